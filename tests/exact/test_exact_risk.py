"""The exact risk on streaming least squares: against an explicit recursion of whole matrices, a simulation, and itself in groups."""

from __future__ import annotations

import math

import numpy as np
import pytest

import sdetools as st
from sdetools.exact.least_squares.groups import group

LAM, S, B = np.array([2.0, 0.9, 0.3, 0.05]), 0.4, 2
RHO = np.array([1.0, -0.5, 2.0, 0.3])
ORACLE = st.streaming_least_squares(LAM, S, B)
MOVING = st.schedules.from_arrays(np.linspace(0.3, 0.1, 12), np.linspace(0.9, 0.3, 12))
RULES = {
    "SGD": lambda o: st.SGD(o, st.schedules.constant(0.2)),
    "SGDM": lambda o: st.SGDM(o, MOVING, momentum=[0.1, 0.2, 0.3, 0.4]),
    "Nesterov": lambda o: st.Nesterov(o, st.schedules.constant(0.05, 0.8)),
    "PNM": lambda o: st.PNM(o, st.schedules.constant(0.1, 0.5)),
    "STORM": lambda o: st.STORM(o, st.schedules.constant(0.1), a=0.3),
    "IGT": lambda o: st.IGT(o, st.schedules.constant(0.1)),
}


class TwoBuffers(st.Dynamics):
    """A user's rule: a fast and a slow average, and a gradient at an extrapolated point."""

    parts, coefficients = ("x", "m", "v"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        x, m, v = state
        g = oracle(x - eta * math.sqrt(0.5) * m)
        m, v = beta * m + (1 - beta) * g, 0.99 * v + 0.01 * g
        return x - eta * (0.7 * m + 0.3 * v), m, v


def whole(one, x0, steps, variance=0.0, without_square=False):
    """The risk by the recursion of the whole second moment E s s^T of all parts and coordinates, explicitly, step by step.

    `one.rule` is run on unit vectors of the whole state, and the noise is Isserlis' covariance of gradients at two points.
    """
    d, parts = len(x0), [np.asarray(part) for part in one.start(np.asarray(x0))]
    n = len(parts)
    s = np.concatenate(parts)
    second = np.outer(s, s)
    if variance:
        J = np.vstack([b - a for a, b in zip(parts, one.start(np.asarray(x0) + 1.0))]) * np.ones((n, d))
        for i in range(d):
            column = np.zeros(n * d)
            column[i::d] = J[:, i]
            second += variance * np.outer(column, column)
    out = [(LAM * np.diag(second)[:d]).sum() / 2]
    for row in one.coefficient_values(steps):
        points = []

        def call(state, gradients):
            points.clear()

            def oracle(x):
                points.append(np.array(x))
                return gradients[len(points) - 1] if gradients is not None else np.zeros(d)

            return np.concatenate(one.rule(tuple(np.split(state, n)), oracle, *row))

        eye = np.eye(n * d)
        A, U = [], []
        for unit in eye:
            A.append(call(unit, None))
            U.append(np.array(points))
        A, U = np.array(A).T, np.moveaxis(np.array(U), 0, 2)  # (calls, d, n d)
        calls = len(U)
        G = [
            np.array([call(np.zeros(n * d), [unit * (i == j) for i in range(calls)]) for unit in np.eye(d)]).T
            for j in range(calls)
        ]
        M = A + sum(G[j] @ np.diag(LAM) @ U[j] for j in range(calls))
        new = M @ second @ M.T
        K = np.diag(LAM)
        for j in range(calls):
            for l in range(calls):
                C = U[j] @ second @ U[l].T  # E u_j u_l^T
                noise = (0 if without_square else K @ C.T @ K) + (np.trace(K @ C) + S * S) * K
                new += G[j] @ noise @ G[l].T / B
        second = new
        out.append((LAM * np.diag(second)[:d]).sum() / 2)
    return np.array(out)


@pytest.mark.parametrize("name", [*RULES, "two buffers"])
def test_the_recursion_is_that_of_the_whole_covariance(name):
    """To rounding, for moving schedules, several parts and several gradients on the same rows; control: without lam_i^2 u_i^2."""
    one = RULES[name](ORACLE) if name in RULES else TwoBuffers(ORACLE, MOVING)
    found = st.exact.risk(one, RHO, 20)
    np.testing.assert_allclose(found.risk, whole(one, RHO, 20), rtol=1e-12)
    assert found.steps.tolist() == list(range(21)) and found.times[-1] == pytest.approx(20 * one.step_time, rel=1e-15)
    assert np.abs(found.risk / whole(one, RHO, 20, without_square=True) - 1).max() > 1e-3


def test_a_start_may_be_a_law():
    """A pair (mean, variance), a law, and a random momentum, whose covariance may couple coordinates."""
    one = RULES["IGT"](ORACLE)
    expected = whole(one, RHO, 6, variance=0.3)
    for x0 in ((RHO, np.full(4, 0.3)), st.starts.gaussian(RHO, 0.3 * np.eye(4))):
        np.testing.assert_allclose(st.exact.risk(one, x0, 6).risk, expected, rtol=1e-12)
    C = np.full((4, 4), 0.1) + np.diag([0.1, 0.2, 0.3, 0.4])
    random = st.SGDM(ORACLE, MOVING, momentum=(np.zeros(4), C))
    pieces = [
        st.exact.risk(st.SGDM(ORACLE, MOVING, momentum=m), x0, 5).risk
        for m, x0 in ((None, RHO), *((np.sqrt(C[i, i]) * np.eye(4)[i], 0 * RHO) for i in range(4)), (None, 0 * RHO))
    ]
    # the risk is affine in the second moments of the start
    np.testing.assert_allclose(st.exact.risk(random, RHO, 5).risk, sum(pieces[:5]) - 4 * pieces[5], rtol=1e-12)


def test_sigma_and_svag_scale_the_noise():
    """sigma^2 / B and l sigma^2 / B in the place of 1 / B."""
    rule = RULES["SGDM"]
    other = rule(st.streaming_least_squares(LAM, S, 6))
    for oracle in (ORACLE.with_sigma(3**-0.5), st.svag(st.streaming_least_squares(LAM, S, 12), 2)):
        np.testing.assert_allclose(st.exact.risk(rule(oracle), RHO, 9).risk, st.exact.risk(other, RHO, 9).risk, rtol=1e-12)


def test_moments_of_the_modes():
    """Their first entry gives the risk."""
    found = st.exact.risk(RULES["SGDM"](ORACLE), RHO, 9, record=[0, 4, 9], moments=True)
    data = found.data
    np.testing.assert_allclose((LAM * data.second_moment.sel(part="x", part2="x")).sum("mode") / 2, data.risk, rtol=1e-13)
    np.testing.assert_allclose(
        data.second_moment.sel(part="x", part2="m"), data.second_moment.sel(part="m", part2="x"), rtol=1e-15
    )
    assert data.risk.sel(step=4) == found.at(4) and "4" in found.table() and len(found.local_exponents()) == 1
    assert found.plot().axes[0].get_xscale() == "log" and "<pre>" in found._repr_html_()
    with pytest.raises(ValueError, match="recorded"):
        found.at(5)


def z_score(one, x0, steps, paths, expected):
    """The standardised difference of a simulated mean loss from an expected one."""
    run = st.simulate(
        one, x0, steps * one.step_time, paths, observe={"loss": one.oracle.loss.value}, times=[steps * one.step_time], seed=5
    )
    return run.at("loss").z(expected)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("d", "paths", "steps"), [(4, 100_000, 20), (32, 20_000, 20), (512, 512, 12)])
def test_the_simulator_agrees(d, paths, steps):
    """Two rules, each at 4.5 standard errors: a false alarm once in 24,000 runs of this test; control: without lam_i^2 u_i^2."""
    lam, rho = (LAM, RHO) if d == 4 else (np.arange(1.0, d + 1) ** -1.2, np.ones(d))
    oracle = st.streaming_least_squares(lam, S, B)
    for one in (st.SGDM(oracle, st.schedules.constant(0.1, 0.7)), st.STORM(oracle, st.schedules.constant(0.1), a=0.3))[
        : 1 + (d == 4)
    ]:
        exact = st.exact.risk(one, rho, steps, record=[steps]).risk[0]
        assert abs(z_score(one, rho, steps, paths, exact)) < 4.5
        if d == 4 and one.name == "SGDM":
            assert abs(z_score(one, rho, steps, paths, whole(one, rho, steps, without_square=True)[-1])) > 20


# -- groups -------------------------------------------------------------------------------------------------------------------


def power_law(d):
    return np.arange(1.0, d + 1) ** -2


@pytest.mark.sample(2)
@pytest.mark.parametrize("beta", [0.0, 0.9])
@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_groups_stay_within_their_bound(beta, nodes):
    """For a smooth spectrum and two bulks, at every step; with more nodes bound and error fall."""
    for lam, eta in ((power_law(1500), 0.05), (np.concatenate([np.linspace(0.9, 1.0, 300), np.linspace(1e-3, 2e-3, 400)]), 0.01)):
        one = st.SGDM(st.streaming_least_squares(lam, 0.2, 16), st.schedules.constant(eta, beta))
        rho = np.random.default_rng(0).standard_normal(len(lam))
        every, grouped, finer = (st.exact.risk(one, rho, 600, nodes=n) for n in (0, nodes, nodes + 2))
        error, less = (np.abs(every.risk - found.risk).max() for found in (grouped, finer))
        assert error <= grouped.bound and less <= finer.bound and grouped.nodes < len(lam) / 3
        assert finer.bound < 0.2 * grouped.bound or np.isinf(grouped.bound)
        assert less < 0.01 * error or less < 1e-13 * every.risk[0]
        assert (every.bound, every.nodes) == (0, len(lam))
    assert (
        st.exact.risk(st.SGD(st.streaming_least_squares(power_law(1500), 0.2, 16), PLAN), np.ones(1500), 9, nodes=4).bound < 1e-3
    )


def test_without_a_proof_there_is_an_estimate_and_no_bound():
    """A moving schedule has none; an unstable run has an infinite bound."""
    lam, rho = power_law(1500), np.ones(1500)
    oracle = st.streaming_least_squares(lam, 0.2, 16)
    plan = st.schedules.from_arrays(np.linspace(0.1, 0.05, 200), 0.9)
    every, grouped = (st.exact.risk(st.SGDM(oracle, plan), rho, 200, nodes=n) for n in (0, 4))
    assert np.isnan(grouped.bound) and 0 < grouped.estimate < 1e-4 and np.abs(every.risk - grouped.risk).max() < grouped.estimate
    assert st.exact.risk(st.SGD(oracle, st.schedules.constant(4.0)), rho, 50, nodes=2).bound == np.inf
    assert st.exact.risk(st.SGD(oracle, st.schedules.constant(4.0)), rho, 4000, nodes=0).risk[-1] == np.inf


def test_a_million_modes_are_grouped_by_default():
    lam = power_law(100_000)
    found = st.exact.risk(
        st.SGD(st.streaming_least_squares(lam, 0.2, 16), st.schedules.constant(0.2)), np.sqrt(lam), 100, record=[100]
    )
    assert found.nodes < 400 and 0 < found.bound < 1e-5


# -- refusals -----------------------------------------------------------------------------------------------------------------


class Mixing(st.Dynamics):
    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        return (x - eta * (oracle(x) + np.mean(x, axis=0)),)


class Preconditioned(st.Dynamics):
    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        return (x - eta * np.array([1.0, 2.0, 3.0, 4.0]).reshape(-1, *(1,) * (np.ndim(x) - 1)) * oracle(x),)


class Shifted(st.Dynamics):
    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        return (x - eta * (oracle(x) + 1.0),)


PLAN = st.schedules.constant(0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: st.SNGM(ORACLE, PLAN), "linear"),
        (lambda: st.SGDF(ORACLE, MOVING), "linear"),
        (lambda: st.RandomScaling(ORACLE, PLAN), "extra draws"),
        (lambda: Mixing(ORACLE, PLAN), "alike"),
        (lambda: Preconditioned(ORACLE, PLAN), "alike"),
        (lambda: Shifted(ORACLE, PLAN), "without constants"),
        (lambda: st.SGD(st.NoisyOracle(st.losses.quadratic([1.0, 2.0, 3.0, 4.0]), st.noise.gaussian(dim=4)), PLAN), "streaming"),
    ],
)
def test_what_has_no_exact_risk_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        st.exact.risk(make(), RHO, 10)


@pytest.mark.parametrize(
    ("x0", "options", "words"),
    [
        ([1.0], {}, "`x0`"),
        ((RHO, -RHO), {}, "variances"),
        (RHO, {"steps": -1}, "`steps`"),
        (RHO, {"record": [3, 2]}, "`record`"),
        (RHO, {"nodes": -1}, "`nodes`"),
        (RHO, {"nodes": 3, "moments": True}, "`nodes`"),
    ],
)
def test_invalid_arguments_are_refused(x0, options, words):
    with pytest.raises(ValueError, match=words):
        st.exact.risk(RULES["SGD"](ORACLE), x0, **{"steps": 4} | options)


def test_the_nodes_of_a_group_are_those_of_chebyshev():
    """In each disc the q nodes are the roots of T_q, on which the bound of the error rests; the weights of a mode interpolate polynomials below degree q."""
    spectrum, q = np.linspace(1.0, 0.2, 500), 4
    found = group(spectrum, q, None)
    assert len(found.discs) > 1
    for centre, half, _, first, end in found.discs:
        start = int(found.place[first])
        nodes = found.lam[start : start + q]
        roots = np.polynomial.chebyshev.chebval((nodes - centre) / half, [0.0] * q + [1.0])
        assert np.abs(roots).max() < 1e-12 and len(np.unique(nodes.round(12))) == q
        modes = spectrum[found.order[first:end]]
        for power in range(q):
            assert found.weights[first:end] @ nodes**power == pytest.approx(modes**power, rel=1e-12)
