"""The weak gap of a pair: unbiased with and without the control variate, whose mean is exactly zero, and variance reduction.

Every |z| < 4.5 (7e-6 each, about 700 of them: 0.5 % for the file; seeds are fixed); negative controls beyond 20.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import sdetools as st
from sdetools.simulation.engine import execute
from sdetools.simulation.records import PAIR
from sdetools.studies import clock
from sdetools.studies.means import make_program
from sdetools.studies.statistics import PairStatistics

OBSERVE = ["x**2", "x"]
LOSS = st.losses.from_expression("x**2/2")
WAVY = st.losses.from_expression("(x**2 - 1)**2 / 4", variables="x")
RNG = np.random.default_rng(5)


def quadratic_pair(eta, beta=0.9, plan=None):
    """Return SGDM and SGD on a quadratic loss."""
    oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=eta**-0.5)
    plan = plan or st.schedules.constant(eta, beta)
    return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())


def moving(eta, steps=48):
    """Return a schedule with random learning rates and momenta."""
    return st.schedules.from_arrays(eta * RNG.uniform(0.3, 1.6, steps), RNG.uniform(0.2, 0.95, steps), base=eta)


def wavy_pair(eta, beta=0.9):
    """Return a pair on a double well with state-dependent noise."""
    oracle = st.NoisyOracle(WAVY, st.noise.gaussian(root=[["1 + 0.3*sin(x)"]], variables="x"), sigma=eta**-0.5)
    plan = st.schedules.constant(eta, beta)
    return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())


def heavy_pair(eta):
    """Return heavy-ball momentum and SGD."""
    oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=eta**-0.5)
    heavy = st.HeavyBall(oracle, gamma=eta * 0.1, beta=0.9)
    return heavy, st.SGD(oracle, heavy.averaged(), step_time=heavy.step_time)


HOW = {"control": {}, "coupled": {"control": False}, "independent": {"coupled": False}}


@pytest.mark.parametrize("schedule", ["fixed", "moving"])
@pytest.mark.parametrize("how", HOW)
def test_unbiased_at_every_recorded_time(how, schedule):
    """Against the exact gap at finite eta: with the control variate, with coupling alone, and with independent draws."""
    eta, steps = 2.0**-5, 48
    pair = quadratic_pair(eta, plan=moving(eta) if schedule == "moving" else None)
    gap = st.weak_gap(*pair, [1.0], steps * eta, 200_000, OBSERVE, seed=1, **HOW[how])
    for o, h in enumerate(OBSERVE):
        exact = st.exact.gap(*pair, [1.0], steps, h, record=gap.steps)
        error = gap.statistics.gap[:, o] - exact
        assert np.abs(error[gap.steps == 0]).max(initial=0) == 0
        z = error[1:] / gap.statistics.stderr[1:, o]
        assert np.abs(z).max() < 4.5
        if how == "control":  # negative control: the gap of a momentum of .89 instead of .9 is far away
            wrong = st.exact.gap(*quadratic_pair(eta, 0.87), [1.0], steps, h, record=gap.steps)
            assert np.abs((gap.statistics.gap[:, o] - wrong)[1:] / gap.statistics.stderr[1:, o]).max() > 20


PAIRS = {
    "quadratic": lambda: (quadratic_pair(2.0**-6), [1.0], OBSERVE),
    "moving": lambda: (quadratic_pair(2.0**-6, plan=moving(2.0**-6, 64)), [1.0], OBSERVE),
    "short memory": lambda: (quadratic_pair(2.0**-6, 0.5), [1.0], OBSERVE),
    "heavy ball": lambda: (heavy_pair(2.0**-6), [1.0], OBSERVE),
    "state-dependent root": lambda: (wavy_pair(2.0**-6), [1.2], ["x**2", "cos(2*x)"]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_control_has_mean_zero_exactly(name):
    """Its sample mean is within 4.5 standard errors of 0."""
    pair, x0, observe = PAIRS[name]()
    gap = st.weak_gap(*pair, x0, 1.0, 300_000, observe, seed=2)
    total, n = gap.statistics.total, gap.paths
    stderr = np.sqrt(total["c2"]) / n
    alive = stderr > 0
    assert alive[1:].all() and not alive[0].any()
    assert np.abs(total["c"][alive] / stderr[alive]).max() < 4.5


def biased_control(monkeypatch, pair, x0, observe, paths):
    """C = c grad h(y_k) . E_k with no lag: y_k and E_k are correlated, so that its mean is not zero."""
    with monkeypatch.context() as patch:
        patch.setattr(clock, "LAG", 0.0)
        program, *_ = make_program(pair, x0, 1.0, observe, None, (), True, True)
    wrong = replace(program.control, fading=np.zeros_like(program.control.fading))
    return PairStatistics(execute(replace(program, control=wrong), paths, seed=2))


def test_a_control_without_its_lag_is_detected(monkeypatch):
    """Negative control of the two tests above: its mean, and the gap that depends on it, are off by more than 20 standard errors."""
    pair, x0, observe = PAIRS["quadratic"]()
    statistics = biased_control(monkeypatch, pair, x0, observe, 300_000)
    total, n = statistics.total, 300_000
    z = total["c"][1:, 0] / (np.sqrt(total["c2"][1:, 0]) / n)
    assert np.abs(z).max() > 20
    record = st.weak_gap(*pair, x0, 1.0, 256, observe).steps
    exact = st.exact.gap(*pair, x0, 64, "x**2", record=record)
    assert np.abs((statistics.gap[:, 0] - exact)[1:] / statistics.stderr[1:, 0]).max() > 20


def test_the_control_is_unbiased_for_state_dependent_noise():
    """Without a closed form: estimates with and without the control variate, on different draws, agree."""
    pair = wavy_pair(2.0**-6)
    a = st.weak_gap(*pair, [1.2], 1.0, 300_000, ["x**2", "cos(2*x)"], seed=3)
    b = st.weak_gap(*pair, [1.2], 1.0, 300_000, ["x**2", "cos(2*x)"], seed=4, control=False)
    z = (a.statistics.gap - b.statistics.gap)[1:] / np.hypot(a.statistics.stderr, b.statistics.stderr)[1:]
    assert np.abs(z).max() < 4.5
    assert a.statistics.stderr[-1, 0] < b.statistics.stderr[-1, 0]


@pytest.mark.parametrize(("power", "coupled", "controlled"), [(-8, 25, 100), (-9, 50, 300), (-11, 200, 3000)])
def test_variance_reduction_has_its_theoretical_order(power, coupled, controlled):
    """For h = x^2, T = 1, beta = 0.9 the variance reduction is of order 1/eta for coupling and 1/eta^2 for the control variate."""
    gap = st.weak_gap(*quadratic_pair(2.0**power), [1.0], 1.0, 20_000, OBSERVE, times=[1.0], seed=6)
    by_coupling, by_control = gap.variance_reduction("x**2")
    assert by_coupling >= coupled and by_control >= controlled
    alone = st.weak_gap(*quadratic_pair(2.0**power), [1.0], 1.0, 20_000, OBSERVE, times=[1.0], seed=6, control=False)
    assert alone.variance_reduction("x**2")[0] == pytest.approx(by_coupling, rel=1e-9)
    assert alone.variance_reduction("x**2")[1] == pytest.approx(by_coupling, rel=1e-9)


def test_independent_members_have_no_variance_reduction():
    """Negative control: with independent draws both reductions are 1 within 5 %."""
    gap = st.weak_gap(*quadratic_pair(2.0**-8), [1.0], 1.0, 20_000, OBSERVE, times=[1.0], coupled=False)
    assert gap.variance_reduction("x**2") == pytest.approx((1, 1), abs=0.05)


def test_estimates_follow_from_the_last_points():
    """Mean, variance, regression and standard error from the last points, by NumPy."""
    pair = quadratic_pair(2.0**-4)
    gap = st.weak_gap(*pair, [1.0], 1.0, 1000, OBSERVE, keep_final=True, control=False, threads=1)
    x, z = gap.final
    d = x**2 - z**2
    e = gap.at("x**2")
    assert e.value == pytest.approx(d.mean(), rel=1e-11) and e.stderr == pytest.approx(d.std(ddof=1) / 1000**0.5, rel=1e-9)
    assert gap.data["first_mean"].sel(observable="x").values[-1] == pytest.approx(x.mean(), rel=1e-11)
    assert gap.data["second_stderr"].sel(observable="x").values[-1] == pytest.approx(z.std(ddof=1) / 1000**0.5, rel=1e-9)
    assert gap.variance_reduction("x**2")[0] == pytest.approx(((x**2).var() + (z**2).var()) / d.var(), rel=1e-9)


def test_the_order_of_members_changes_the_sign_only():
    """Exchanging the members changes the sign of the gap."""
    pair = quadratic_pair(2.0**-4)
    there = st.weak_gap(*pair, [1.0], 1.0, 1000, OBSERVE, control=False, threads=1)
    back = st.weak_gap(*pair[::-1], [1.0], 1.0, 1000, OBSERVE, control=False, threads=1)
    np.testing.assert_allclose(back.statistics.gap, -there.statistics.gap, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(back.statistics.stderr, there.statistics.stderr, rtol=1e-6, atol=1e-13)


def test_a_dynamics_has_no_gap_to_itself():
    """The gap is exactly 0."""
    sgd = quadratic_pair(2.0**-4)[1]
    gap = st.weak_gap(sgd, sgd, [1.0], 1.0, 1000, OBSERVE, threads=1)
    assert not gap.statistics.gap.any() and not gap.statistics.stderr.any()
    assert (gap.sup("x").value, gap.sup("x").low, gap.sup("x").high) == (0, 0, 0)


@pytest.mark.parametrize("first", [0.125, 0.5])
def test_independent_members_with_different_steps_agree_with_numpy(first):
    """For either order of the steps: the member with longer steps reads no draws in between."""
    sde = st.SDE(["-x"], ["0.5*x"], variables="x")
    pair = st.EulerMaruyama(sde, first), st.EulerMaruyama(sde, 0.625 - first)
    gaps = [
        st.weak_gap(*pair, x0=[1.0], horizon=1.0, paths=64, observe=["x"], coupled=False, backend=b).data["gap"]
        for b in ("numba", "numpy")
    ]
    np.testing.assert_allclose(gaps[1], gaps[0], rtol=0, atol=1e-14)


def test_the_skewness_of_a_gap_is_that_of_what_the_control_variate_leaves():
    """Against SciPy's skewness of the groups' means of d - a C, lowered by 1.5 standard errors."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**4/4"), st.noise.two_point(1, probability=2e-3), sigma=2.0)
    plan = st.schedules.constant(1 / 16, 0.5)
    gap = st.weak_gap(
        st.SGDM(oracle, plan),
        st.SGD(oracle, plan.averaged()),
        [1.0],
        1.0,
        64 * 256,
        ["x**2"],
        times="all",
        backend="numpy",
        threads=1,
    )
    groups = gap.statistics.sums.groups[gap.statistics.sums.counts > 0]
    used = [t for t in range(len(gap.times)) if gap.controlled and gap.statistics.slope[t, 0] != 0]
    assert used and len(groups) == 64
    shown = 0
    for t in used:
        names = {name: groups[:, t, 0, i] for i, name in enumerate(PAIR.names)}
        a, d, c = gap.statistics.slope[t, 0], names["d"], names["c"]
        if np.ptp(d - a * c) < 1e-9 * np.ptp(d):  # the control variate explains all but rounding
            continue
        rest, wrong = (stats.skew(d + sign * a * c) / 8 for sign in (-1, 1))
        lowered, other = (math.copysign(max(0.0, abs(s) - 1.5 * math.sqrt(6) / 64), s) for s in (rest, wrong))
        assert math.isclose(gap.at(0, float(gap.times[t])).skewness, lowered, rel_tol=1e-6, abs_tol=1e-9)
        shown += abs(lowered - other) > 1e-3
    assert shown  # negative control: the other sign would be noticed
