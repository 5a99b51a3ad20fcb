"""Dynamics that agree in exact arithmetic: gaps of rounding errors are unresolved, have no order, and contradict no claim.

Negative controls: the smallest gaps that are real are resolved.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import sdetools as st
from sdetools.claims.context import ClaimContext
from sdetools.claims.verdict import judge_measurement

SIZES = [1.0, 1e8, 1e-8]


def sgd_and_euler(eta, size=1.0, drift="-x", loss="x**2/2"):
    """Return SGD, and Euler-Maruyama at dt = eta, which is SGD (with the sign convention of the oracle's noise)."""
    oracle = st.NoisyOracle(st.losses.from_expression(loss, variables="x"), st.noise.gaussian(dim=1), sigma=size)
    sde = st.SDE(drift=[drift], diffusion=[f"-{size * math.sqrt(eta)!r}"], variables="x")
    return st.SGD(oracle, st.schedules.constant(eta)), st.EulerMaruyama(sde, eta)


def momentum_and_heavy_ball(eta, size=1.0):
    """Return two forms of momentum."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=size)
    heavy = st.HeavyBall(oracle, gamma=eta / 10, beta=0.9)
    return st.SGDM(oracle, st.schedules.constant(eta, 0.9), step_time=heavy.step_time), heavy


def no_momentum(eta, size=1.0):
    """Return SGDM with beta = 0 and SGD."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=size)
    plan = st.schedules.constant(eta)
    return st.SGDM(oracle, plan), st.SGD(oracle, plan)


def rotated(eta, size=1.0):
    """Return SGD on one loss with two formulas, so that sums are computed in a different order."""
    one, other = (
        st.NoisyOracle(st.losses.from_expression(text, variables="x y"), st.noise.gaussian(dim=2), sigma=size)
        for text in ("0.3*(x + y)**2 + 0.1*y**2", "0.3*x**2 + 0.6*x*y + 0.4*y**2")
    )
    plan = st.schedules.constant(eta)
    return st.SGD(one, plan), st.SGD(other, plan)


PAIRS = {"SGD, Euler": sgd_and_euler, "SGDM, heavy ball": momentum_and_heavy_ball, "beta = 0": no_momentum, "sums": rotated}


def gap_of(pair, size, paths=4000):
    """Return the gap of a pair."""
    dim = pair[0].dim
    rough = {"rough": "abs(x)**0.5"} if size == 1 else {}
    return st.weak_gap(
        *pair, [size] * dim, 10 * pair[0].step_time, paths, {"x": "x", "square": "x**2", "wave": "cos(x)"} | rough, threads=1
    )


@pytest.mark.sample(4)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAIRS)
def test_identical_dynamics_have_no_gap(name, size):
    """Nothing is resolved, 0 lies in every interval at every level, a claim of at_most=0 is not contradicted, and the floor is small."""
    gap = gap_of(PAIRS[name](0.1, size), size)
    for h in gap.names:
        sup = gap.sup(h)
        assert not sup.resolved and not gap.at(h).resolved
        low, high = tuple(sup.confidence_interval(0.5))
        assert low == 0 and high < 1e-9 * max(1.0, size, size**2 if h == "square" else 1.0)
        low, high = tuple(gap.at(h).confidence_interval(0.5))
        assert low <= 0 <= high
        context = ClaimContext("a-claim")
        context.measure("gap", sup, at_most=0.0)
        assert judge_measurement(context.record.measurements[0], 1e-3).state == "across"
    assert gap.sup("x").rounding < 1e-12 * size


@pytest.mark.parametrize("name", PAIRS)
def test_identical_dynamics_have_no_order(name):
    """Gaps of rounding errors do not enter a fit."""
    study = st.order_study(PAIRS[name], [0.2, 0.1, 0.05], [1.0] * PAIRS[name](0.1)[0].dim, 1.0, 2000, ["x", "x**2"], threads=1)
    for h in study.names:
        assert math.isnan(study.order(h).value) and tuple(study.order(h).confidence_interval(0.95)) == (-math.inf, math.inf)
    assert "unresolved" in study.table()


def test_rounding_amplified_by_chaos_is_not_resolved():
    """The map x' = x + eta (x - x^3) at eta = 1.5 is chaotic: differences of 1e-16 grow by orders of magnitude and stay unresolved."""
    pair = sgd_and_euler(1.5, 1e-3, "x - x**3", "x**4/4 - x**2/2")
    grown = []
    for steps in (10, 20, 30, 40):
        gap = st.weak_gap(*pair, [0.3], steps * 1.5, 4000, ["x", "x**2"], times=[steps * 1.5], threads=1)
        grown.append(float(gap.statistics.variance[0, 0] ** 0.5))
        for h in gap.names:
            e = gap.at(h)
            assert not e.resolved and e.low <= 0 <= e.high
            assert e.rounding >= abs(e.value) or e.stderr > 0
    assert grown[-1] > 1e4 * grown[0]  # negative control: the differences grow


@pytest.mark.parametrize("size", SIZES)
def test_the_smallest_real_gap_is_resolved(size):
    """Negative control: learning rates with a relative difference of 1e-7, with coupled noise only, are resolved at every size."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=0.01 * size)
    one, other = (st.SGD(oracle, st.schedules.constant(eta), step_time=0.1) for eta in (0.1, 0.1 * (1 + 1e-7)))
    gap = st.weak_gap(one, other, [size], 1.0, 4000, ["x"], threads=1)
    assert gap.sup("x").resolved
    truth = np.abs([(0.9**k - (1 - 0.1 * (1 + 1e-7)) ** k) * size for k in range(11)]).max()
    assert gap.sup("x").low <= truth <= gap.sup("x").high


def test_cancellation_inside_an_observable_is_rounding():
    """The value x - 1e8 at x near 1e8 is accurate to 1e-8: the floor depends on the numbers that are subtracted, not their difference."""
    pair = sgd_and_euler(0.1, 1.0, "-(x - 100000000)", "(x - 100000000)**2/2")
    gap = st.weak_gap(*pair, [1e8], 1.0, 4000, ["x - 100000000"], threads=1)
    assert not gap.sup().resolved and gap.sup().low == 0 and gap.sup().rounding > 1e-8


def test_identical_members_have_a_gap_of_exactly_zero():
    """For any observable, with an interval of width 0."""
    one = sgd_and_euler(0.1)[0]
    sup = st.weak_gap(one, one, [1.0], 1.0, 1000, {"x": "x", "rough": "abs(x)"}, threads=1).sup("rough")
    assert (sup.value, sup.low, sup.high, sup.random) == (0, 0, 0, False)


def test_a_run_without_noise_is_right_up_to_rounding():
    """0.9^1000 and the like: the interval contains the exact number and is not wider than 4 eps for each step."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.none(dim=1))
    found = st.simulate(st.SGD(oracle, st.schedules.constant(0.1)), [1.0], 100.0, 1, ["x", "cos(x)"], times="all", threads=1)
    for t, k in zip(found.times, found.steps, strict=True):
        e = found.at("x", float(t))
        assert e.low <= 0.9 ** int(k) <= e.high and e.half_width <= 4 * 2.3e-16 * (k + 1)


def test_an_order_has_the_rounding_of_its_gaps():
    """Without noise, log |gap_i| has an error of at most r_i / |gap_i| by rounding, and the slope sum |x_i| of these / sum x_i^2."""
    etas = [0.1, 0.05, 0.02]
    quiet = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=0.0)

    def pair(eta):
        plan = st.schedules.constant(eta, beta=0.5)
        return st.SGDM(quiet, plan), st.SGD(quiet, plan.averaged())

    study = st.order_study(pair, etas=etas, x0=[1.0], horizon=1.0, paths=300, observe=["x"], times=[1.0])
    order, points = study.order("x"), [gap.sup("x") for gap in study.gaps]
    away = np.log(etas) - np.mean(np.log(etas))
    off = sum(abs(a) * p.rounding / p.value for a, p in zip(away, points)) / sum(away**2)
    assert not order.random and 0 < order.rounding < 1e-9 and order.rounding == pytest.approx(off, rel=1e-12)
    assert tuple(order.confidence_interval(0.95)) == pytest.approx((order.value - off, order.value + off), abs=1e-15)
    for local, a, b in zip(order.local, (0, 1), (1, 2)):
        width = abs(np.log(etas[a] / etas[b]))
        assert local.rounding == pytest.approx(
            (points[a].rounding / points[a].value + points[b].rounding / points[b].value) / width
        )
