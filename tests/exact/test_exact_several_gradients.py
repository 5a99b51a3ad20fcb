"""The exact risk of rules with several gradients a step: of workers on their own rows, and in chains on the same rows.

The independent computation is a Gauss-Hermite rule over all draws of a step, at which the rule itself is called with the oracle. A chain of c gradients
makes a step a polynomial of degree 2 c in each draw, whose square 2 c + 1 nodes integrate exactly.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import sdetools as st
from sdetools.exact.least_squares.chained_rows import chained_risk
from sdetools.exact.least_squares.mode_problem import mode_problem, start_moments
from sdetools.exact.least_squares.mode_steps import mode_steps
from sdetools.exact.least_squares.row_products import evaluated_at, product_moment

LAM, RHO, S = np.array([2.0, 0.9]), np.array([1.0, -0.5]), 0.4
PLAN = st.schedules.constant(0.1)
MOVING = st.schedules.from_arrays([0.3, 0.2, 0.1], 0.0)


class Ascending(st.Dynamics):
    """A user's rule: momentum of gradients at a point that contains another gradient on the same rows and the buffer."""

    parts, coefficients = ("x", "m"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        x, m = state
        g = oracle(x - 0.3 * m)
        m = beta * m + (1 - beta) * oracle(x + 0.2 * g + 0.1 * m)
        return x - eta * (m + 0.5 * g), m


class Extragradient(st.Dynamics):
    """The gradient at a point down the gradient, on the same draws: SAM's formula with a negative move, which `st.SAM` refuses."""

    coefficients, rho = ("eta", "rho"), -0.1
    rule = staticmethod(st.SAM.rule)


class Chain(st.Dynamics):
    """A chain of three gradients."""

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        return (x - eta * oracle(x - eta * oracle(x - 0.3 * oracle(x))),)


class Workers(st.Dynamics):
    """Two workers, each with a chain of its own, and a third gradient on the rows of the first."""

    copies = 2

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        first, second = oracle.independent(0), oracle.independent(1)
        g = first(x)
        return (x - eta * (first(x + 0.2 * g) + second(x - 0.1 * second(x)) + first(0.5 * x)) / 2,)


def by_quadrature(one, steps, nodes):
    """Return the risk after each step: the mean over all draws of E[M P M^T] for the second moments P of (1, state)."""
    d, n = one.dim, len(one.parts)
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    q = sum(draw.n for draw in one.draws)
    points = np.array(list(itertools.product(z, repeat=q))).T
    weights = np.array(list(itertools.product(w / w.sum(), repeat=q))).prod(axis=1)
    s = np.concatenate([[1.0], *one.start(RHO)])
    P = np.outer(s, s)
    out = [(LAM * np.diag(P)[1 : 1 + d]).sum() / 2]
    for row in one.coefficient_values(steps):

        def moved(state, row=row):
            parts = tuple(np.repeat(part[:, None], points.shape[1], axis=1) for part in np.split(state, n))
            return np.concatenate(one.rule(parts, one.bind(points), *row))

        shift = moved(np.zeros(n * d))
        M = np.zeros((points.shape[1], n * d + 1, n * d + 1))
        M[:, 0, 0], M[:, 1:, 0] = 1.0, shift.T
        for i, unit in enumerate(np.eye(n * d)):
            M[:, 1:, i + 1] = (moved(unit) - shift).T
        P = np.einsum("c,cij,jk,clk->il", weights, M, P, M, optimize=True)
        out.append((LAM * np.diag(P)[1 : 1 + d]).sum() / 2)
    return np.array(out)


def rows(batch):
    return st.streaming_least_squares(LAM, S, batch)


CASES = {
    "SAM": (st.SAM(rows(2), PLAN, rho=0.2), 5),
    "SAM, moving": (st.SAM(rows(2), MOVING, rho=0.2), 5),
    "SAM's formula, negative rho, sigma": (Extragradient(rows(2).with_sigma(1.7), PLAN), 5),
    "SAM, svag": (st.SAM(st.svag(rows(1).with_sigma(0.8), 3), PLAN, rho=0.2), 5),
    "two parts": (Ascending(rows(2), st.schedules.constant(0.1, 0.6)), 5),
    "three gradients": (Chain(rows(1), PLAN), 7),
    "workers with chains": (Workers(rows(1), PLAN), 5),
    "LocalSGD": (st.LocalSGD(rows(1), PLAN, workers=2, local_steps=3), 3),
    "LocalSGD, moving": (st.LocalSGD(rows(1), MOVING, workers=2, local_steps=2), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_the_risk_is_that_of_a_quadrature_over_the_rows(name):
    """To rounding; control: one node less is not exact."""
    one, nodes = CASES[name]
    expected = by_quadrature(one, 4, nodes)
    np.testing.assert_allclose(st.exact.risk(one, RHO, 4).risk, expected, rtol=1e-12)
    assert np.abs(by_quadrature(one, 4, nodes - 1) / expected - 1).max() > 1e-9


@pytest.mark.parametrize("make", [lambda o: st.SGDM(o, st.schedules.constant(0.2, 0.7)), lambda o: st.STORM(o, PLAN, a=0.3)])
def test_the_recursion_of_chains_contains_that_of_single_gradients(make):
    """For rules without chains both recursions agree to rounding, with sigma and SVAG too."""
    for oracle in (rows(3), rows(3).with_sigma(1.5), st.svag(rows(2), 2)):
        one = make(oracle)
        problem, made = mode_problem(oracle), mode_steps(one, 9)
        found, _ = chained_risk(problem, made, problem.lam * start_moments(one, RHO), 9)
        np.testing.assert_allclose(found, st.exact.risk(one, RHO, 9).risk, rtol=1e-12)


@pytest.mark.parametrize(("first", "second"), [((0, 0), (0, 0)), ((0, -1, 0), (0, 0)), ((0, 1), (1, 0)), ((), (0, 0, 0))])
def test_moments_of_products_by_quadrature(first, second):
    """E W_ij V_ij of one row and two batches."""
    z, w = np.polynomial.hermite_e.hermegauss(7)
    total, sums = np.zeros((2, 2)), np.array([(LAM**q).sum() for q in range(12)])
    for at in itertools.product(range(7), repeat=4):
        a = z[list(at)].reshape(2, 2) * np.sqrt(LAM)
        letters = {-1: np.diag(LAM), 0: np.outer(a[0], a[0]), 1: np.outer(a[1], a[1])}
        products = [np.linalg.multi_dot([np.eye(2), np.eye(2), *(letters[l] for l in word)]) for word in (first, second)]
        total += np.prod(w[list(at)] / w.sum()) * products[0] * products[1]
    moment = product_moment(first, second)
    found = np.diag(sum(evaluated_at(c, 1, sums) * LAM**t for t, c in moment.diagonal.items()))
    found = found + sum(evaluated_at(c, 1, sums) * np.outer(LAM**r, LAM**s) for (r, s), c in moment.coupled.items())
    np.testing.assert_allclose(found, total, rtol=1e-11)


def z_score(one, x0, steps, paths, expected):
    """The standardised difference of a simulated mean loss from an expected one."""
    times = [steps * one.step_time]
    run = st.simulate(one, x0, times[0], paths, observe={"loss": one.oracle.loss.value}, times=times, seed=7)
    return run.at("loss").z(expected)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("d", "paths", "steps"), [(4, 60_000, 12), (32, 8_000, 8)])
def test_the_simulator_agrees(d, paths, steps):
    """Two rules at 4.5 standard errors: a false alarm once in 70,000 runs of this test. Control: the risk of SGD is another."""
    lam, x0 = (
        (np.array([2.0, 0.9, 0.3, 0.05]), np.array([1.0, -0.5, 2.0, 0.3]))
        if d == 4
        else (np.arange(1.0, d + 1) ** -1.2, np.ones(d))
    )
    oracle = st.streaming_least_squares(lam, S, 4)
    plain = st.exact.risk(st.SGD(oracle, PLAN), x0, steps).risk[-1]
    for one in (st.SAM(oracle, PLAN, rho=0.15), st.LocalSGD(oracle, PLAN, workers=3, local_steps=4)):
        exact = st.exact.risk(one, x0, steps, record=[steps]).risk[0]
        assert abs(z_score(one, x0, steps, paths, exact)) < 4.5
        assert abs(z_score(one, x0, steps, paths, plain)) > 8


def test_workers_that_always_meet_are_sgd_with_larger_batches():
    """K workers with batches of B that meet after every step see K B rows: the same risk, stationary risk and rate."""
    many = st.SGD(rows(6), PLAN)
    one = st.LocalSGD(rows(2), PLAN, workers=3, local_steps=1)
    np.testing.assert_allclose(st.exact.risk(one, RHO, 9).risk, st.exact.risk(many, RHO, 9).risk, rtol=1e-12)
    assert st.exact.stationary_risk(one) == pytest.approx(st.exact.stationary_risk(many), rel=1e-10)
    assert st.exact.rate(one) == pytest.approx(st.exact.rate(many), rel=1e-10)


def test_moments_of_the_modes_and_a_diverging_chain():
    one = Ascending(rows(2), st.schedules.constant(0.1, 0.6))
    found = st.exact.risk(one, RHO, 6, record=[0, 6], moments=True)
    second = found.data.second_moment
    np.testing.assert_allclose((LAM * second.sel(part="x", part2="x")).sum("mode") / 2, found.risk, rtol=1e-13)
    np.testing.assert_allclose(second.sel(part="x", part2="m"), second.sel(part="m", part2="x"), rtol=1e-12)
    assert st.exact.risk(st.SAM(rows(1), st.schedules.constant(4.0)), RHO, 2000).risk[-1] == np.inf
    # the second moment of a mode of eigenvalue 0 is not followed, and nothing warns
    flat = st.streaming_least_squares([2.0, 0.0], S, 2)
    second = st.exact.risk(st.SAM(flat, PLAN, rho=0.2), RHO, 3, record=[3], moments=True).data.second_moment
    assert np.isfinite(second.isel(mode=0)).all() and np.isnan(second.isel(mode=1)).all()


STATIONARY = {
    "SAM": st.SAM(rows(2), PLAN, rho=0.2),
    "SAM, svag": st.SAM(st.svag(rows(2).with_sigma(0.8), 2), PLAN, rho=0.05),
    "SAM, moving": st.SAM(rows(2), MOVING, rho=0.2),
    "two parts": Ascending(rows(2), st.schedules.constant(0.1, 0.6)),
    "three gradients": Chain(rows(2), PLAN),
    "workers with chains": Workers(rows(2), PLAN),
}


@pytest.mark.parametrize("name", STATIONARY)
def test_rate_and_stationary_risk_are_those_of_a_long_run(name):
    """The last ratio of the distance from the limit is the rate, and the limit the stationary risk; control: those of SGD are others, ten tolerances away."""
    one = STATIONARY[name]
    run, limit, rate = st.exact.risk(one, RHO, 2_000).risk, st.exact.stationary_risk(one), st.exact.rate(one)
    assert run[-1] == pytest.approx(limit, rel=1e-11) and 0.5 < rate < 1
    apart = run - limit
    late = np.flatnonzero(np.abs(apart) > 1e-7 * limit)[-1]
    assert apart[late] / apart[late - 1] == pytest.approx(rate, abs=1e-5)
    plain = st.SGD(rows(2), PLAN)
    assert abs(st.exact.rate(plain) - rate) > 1e-4 and abs(st.exact.stationary_risk(plain) / limit - 1) > 0.02


def test_the_rate_of_sam_by_hand():
    """One coordinate, one row, no label noise: E (1 - eta a^2 (1 + rho a^2))^2 with the moments 1, 3, 15, 105 of a^2 ~ lam chi^2."""
    eta, rho, lam = 0.1, 0.2, 0.7
    m1, m2, m3, m4 = lam, 3 * lam**2, 15 * lam**3, 105 * lam**4
    expected = 1 - 2 * eta * (m1 + rho * m2) + eta**2 * (m2 + 2 * rho * m3 + rho**2 * m4)
    one = st.SAM(st.streaming_least_squares([lam], 0.3, 1), PLAN, rho=rho)
    assert st.exact.rate(one) == pytest.approx(expected, rel=1e-13)
    noise = eta**2 * 0.3**2 * (m1 + 2 * rho * m2 + rho**2 * m3)
    assert st.exact.stationary_risk(one) == pytest.approx(lam / 2 * noise / (1 - expected), rel=1e-13)


def test_at_rho_zero_sam_is_sgd_and_its_edge_is_where_the_rate_is_one():
    """Up to 1e-9 of rho; the edge of SAM is below that of SGD for rho > 0, and the risk of a run just beyond it grows."""
    plain, near = st.SGD(rows(2), PLAN), st.SAM(rows(2), PLAN, rho=1e-12)
    for function in (st.exact.rate, st.exact.stationary_risk, st.exact.stability_edge):
        assert function(near) == pytest.approx(function(plain), rel=1e-9)
    make = lambda c: st.SAM(rows(2), st.schedules.constant(0.1 * c), rho=0.2)  # noqa: E731
    edge = st.exact.stability_edge(make(1.0))
    assert edge < st.exact.stability_edge(plain) and st.exact.rate(make(edge)) == pytest.approx(1, abs=1e-9)
    assert np.isinf(st.exact.stationary_risk(make(1.01 * edge))) and np.isfinite(st.exact.stationary_risk(make(0.99 * edge)))
    grown = st.exact.risk(make(1.05 * edge), RHO, 2_000).risk
    assert grown[-1] > 10 * grown[1000]


def test_many_modes_by_arnoldi_and_those_without_curvature():
    """Both computations of the rate agree, and eigenvalues of 0 change nothing."""
    from sdetools.exact.least_squares import chained_stability

    lam = np.arange(1.0, 61) ** -1.3
    one = st.SAM(st.streaming_least_squares(lam, S, 3), PLAN, rho=0.2)
    rate = st.exact.rate(one)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chained_stability, "DENSE", 10)
        assert st.exact.rate(one) == pytest.approx(rate, rel=1e-10)
    flat = st.SAM(st.streaming_least_squares([*LAM, 0.0], S, 2), PLAN, rho=0.2)
    assert st.exact.rate(flat) == st.exact.rate(STATIONARY["SAM"])
    assert st.exact.stationary_risk(flat) == st.exact.stationary_risk(STATIONARY["SAM"])


def test_what_is_too_long_is_refused():
    class Four(st.Dynamics):
        @staticmethod
        def rule(state, oracle, eta):
            (x,) = state
            return (x - eta * oracle(x - eta * oracle(x - eta * oracle(x - eta * oracle(x)))),)

    with pytest.raises(ValueError, match="at most 3 gradients in a chain.*; got 4. Simulate it instead"):
        st.exact.risk(Four(rows(1), PLAN), RHO, 3)
    with pytest.raises(ValueError, match="`nodes` must be 0 for a rule with a gradient at a point that contains another"):
        st.exact.risk(st.SAM(rows(1), PLAN), RHO, 3, nodes=2)
    for function in (st.exact.rate, st.exact.stationary_risk):
        with pytest.raises(ValueError, match="at most 3 gradients in a chain"):
            function(Four(rows(1), PLAN))
