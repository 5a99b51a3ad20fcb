"""Local SGD against its limit, round by round: the leading error by hand, and orders at finite eta against exact operators of a round.

The operator of a round is a Gauss-Hermite rule over all its draws on Chebyshev nodes, at which the rule itself is called.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sympy as sp

import sdetools as st
from sdetools.exact import generator_gap, modified_equation, semigroup
from sdetools.exact.transfer_kernels import chebyshev, interpolation

X = sp.Symbol("x", real=True)
LOSS = st.losses.from_expression("x**2/2 + x**4/4", "x")
S = 0.4


def oracle(eta, workers=1, loss=LOSS):
    """Return gradients with sigma = S (eta K)^(-1/2)."""
    return st.NoisyOracle(loss, st.noise.gaussian(dim=1), sigma=S * (eta * workers) ** -0.5)


def local(eta, workers, steps, loss=LOSS):
    return st.LocalSGD(oracle(eta, loss=loss), st.schedules.constant(eta), workers=workers, local_steps=steps)


def limit(eta, workers, loss=LOSS):
    """Return the limit: SGD with the noise of K averaged gradients."""
    return st.LimitSDE(oracle(eta, workers, loss), st.schedules.constant(eta))


@pytest.mark.parametrize(("workers", "steps"), [(1, 3), (2, 1), (2, 3), (3, 4)])
def test_workers_that_part_add_a_drift_to_the_leading_error_of_sgd(workers, steps):
    """Workers part by a variance h eta^2 sigma^2 (1 - 1/K) after h steps: on average -(H-1)(1-1/K) S^2 L'''/4 d_x beyond SGD of batches of K."""
    eta = 0.1
    gap = generator_gap(local(eta, workers, steps), limit(eta, workers), 1, sigma_power=-0.5)
    plain = generator_gap(st.SGD(oracle(eta, workers), st.schedules.constant(eta)), limit(eta, workers), 1, sigma_power=-0.5)
    assert gap.weak_order == plain.weak_order == 1 and gap.rule == "LocalSGD" and gap.names == ("x",)
    expected = -(steps - 1) * (1 - 1 / workers) * S**2 * 6 * X / 4
    for at in (-0.7, 0.4, 1.2):
        apart = {a: float((gap.leading.get(a, 0) - plain.leading.get(a, 0)).subs(X, at)) for a in [(1,), (2,)]}
        assert apart[1,] == pytest.approx(float(expected.subs(X, at)) if workers > 1 else 0.0, abs=1e-12)
        assert apart[2,] == pytest.approx(0, abs=1e-12)


def test_constant_sigma_has_order_two_against_the_modified_equation():
    """The drift of workers that part is of the order eta^3 in a step then; with the equation of one worker's noise the order is 1, a d_x^2."""
    eta, plan = 0.1, st.schedules.constant(0.1)
    one = lambda sigma: st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=sigma)  # noqa: E731
    rule = st.LocalSGD(one(1.0), plan, workers=2, local_steps=2)
    right, wrong = (generator_gap(rule, st.ModifiedSDE(one(sigma), eta), 2) for sigma in (0.5**0.5, 1.0))
    assert right.weak_order == 2 and right.leading
    assert wrong.weak_order == 1 and {a: str(c) for a, c in wrong.leading.items()} == {(2,): "-1/4"}


def test_wrong_limits_are_named_by_their_leading_term():
    """The limit of one worker has K times the variance: order 0, -(1 - 1/K) S^2/2 d_x^2. A drift off by 2 % is a d_x."""
    rule = local(0.1, 2, 2)
    noise = generator_gap(rule, limit(0.1, 1), 1, sigma_power=-0.5)
    assert noise.weak_order == 0 and set(noise.leading) == {(2,)}
    assert float(noise.leading[2,]) == pytest.approx(-(S**2) / 4, rel=1e-12)
    drift = generator_gap(rule, st.SDE(["-1.02*(x + x**3)"], [[str(S / 2**0.5)]], "x"), 1, sigma_power=-0.5)
    assert drift.weak_order == 0 and set(drift.leading) == {(1,)}


def rounds(rule, horizon, h, x0, nodes=64, quadrature=8):
    """Return E h after rounds until `horizon`, by the operator of a round."""
    workers, steps, eta = rule.workers, rule.local_steps, rule.step_time
    z, w = np.polynomial.hermite_e.hermegauss(quadrature)
    draws = np.array(list(itertools.product(z, repeat=workers * steps))).T.reshape(steps, workers, -1)
    weights = np.array(list(itertools.product(w / w.sum(), repeat=workers * steps))).prod(axis=1)
    x, _ = chebyshev(-2.5, 2.5, nodes)
    matrix = np.empty((nodes, nodes))
    for i, at in enumerate(x):
        state = tuple(np.full((1, draws.shape[-1]), at) for _ in rule.parts)
        for own, row in zip(draws, rule.coefficient_values(steps), strict=True):
            state = rule.rule(state, rule.bind(own), *row)
        matrix[i] = weights @ interpolation(x, np.clip(state[0][0], -2.5, 2.5))
    u = np.linalg.matrix_power(matrix, round(horizon / (steps * eta))) @ h(x)
    return float(interpolation(x, np.array([x0]))[0] @ u)


def test_the_order_at_finite_eta_is_the_derived_one():
    """K = H = 2 at t = 0.48: local slopes whose error of order eta is extrapolated away; one round has the leading error. Control: the limit of one worker."""
    found, wrong, one = [], [], []
    for eta in (0.04, 0.02, 0.01):
        rule = local(eta, 2, 2)
        exact = rounds(rule, 0.48, np.square, 0.9)
        found.append(exact - semigroup(limit(eta, 2), (-2.5, 2.5), 0.48).expectation("x**2", [0.9]))
        wrong.append(exact - semigroup(limit(eta, 1), (-2.5, 2.5), 0.48).expectation("x**2", [0.9]))
        step = rounds(rule, 2 * eta, np.square, 0.9) - semigroup(limit(eta, 2), (-2.5, 2.5), 2 * eta).expectation("x**2", [0.9])
        one.append(step / (2 * eta**2))
    slopes, flat = (np.log2(np.array(u[:-1]) / u[1:]) for u in (found, wrong))
    assert 2 * slopes[1] - slopes[0] == pytest.approx(1, abs=0.05) and 2 * flat[1] - flat[0] == pytest.approx(0, abs=0.1)
    leading = generator_gap(local(0.04, 2, 2), limit(0.04, 2), 1, sigma_power=-0.5).local("x**2", [0.9])
    # the errors of order eta and eta^2 of one round are extrapolated away
    first = [2 * one[1] - one[0], 2 * one[2] - one[1]]
    assert (4 * first[1] - first[0]) / 3 == pytest.approx(leading, rel=5e-3)


def test_the_constant_on_a_quadratic_is_that_of_the_exact_moments():
    """At the ends of rounds, C eta + O(eta^2), by moments of the rule and of the SDE in closed form."""
    loss = st.losses.quadratic(1.3)
    found = []
    for eta in (0.02, 0.01):
        n = round(1.2 / eta)
        rule = local(eta, 3, 4, loss)
        moved = st.exact.expectation(st.exact.moments(rule, [1.2], n, record=[n]), "x0**2")[0]
        found.append((moved - st.exact.expectation(st.exact.solution(limit(eta, 3, loss), [1.2], [n * eta]), "x0**2")[0]) / eta)
    constant = generator_gap(local(0.02, 3, 4, loss), limit(0.02, 3, loss), 1, sigma_power=-0.5).constant("x0**2", [1.2], 1.2)
    assert 2 * found[1] - found[0] == pytest.approx(constant, rel=2e-3) and abs(constant) > 0.1


PLANE = st.NoisyOracle(st.losses.from_expression("x**2/2 + x*y**2", "x y"), st.noise.gaussian(dim=2))
PLAN = st.schedules.constant(0.1)
REFUSED = {
    "draws": (lambda: generator_gap(local(0.1, 8, 9), limit(0.1, 8), 1), "at most 64 draws.*got 72. Take fewer workers"),
    "momentum": (
        lambda: generator_gap(local(0.1, 2, 2), st.KineticSDE(oracle(0.1), st.schedules.constant(0.1, 0.9))),
        "must have the 1 coordinates of the position for LocalSGD.*got 2",
    ),
    "time": (
        lambda: generator_gap(local(0.1, 2, 2), st.SDE(["-x*(1 + t)"], [["0.1"]], "x")),
        "constant in time for LocalSGD",
    ),
    "functions": (
        lambda: generator_gap(lambda eta: local(eta, 2, 2), lambda eta: limit(eta, 2)),
        "no draws besides those of one gradient",
    ),
    "equation": (lambda: modified_equation(local(0.1, 2, 2), 1), "no draws besides those of one gradient"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_expansion_is_refused_in_one_sentence(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        make()


def test_two_coordinates():
    """The mean of the workers moves by the third derivatives contracted with the noise: -(H-1)(1-1/K) sigma^2 eta / 4 grad(tr Hessian)."""
    eta = 0.1
    rule = st.LocalSGD(PLANE.with_sigma(2.0), PLAN, workers=2, local_steps=2)
    one = PLANE.with_sigma(2.0**0.5)
    sde = st.LimitSDE(one, PLAN)
    gap, plain = (generator_gap(r, sde, 1, sigma_power=-0.5) for r in (rule, st.SGD(one, PLAN)))
    apart = {
        a: float((gap.leading.get(a, 0) - plain.leading.get(a, 0)).subs({s: 0.3 for s in gap.leading[1, 0].free_symbols}))
        for a in gap.leading
    }
    expected = {a: 0.0 for a in gap.leading} | {(1, 0): -0.5 * 4.0 * eta / 4 * 2.0}
    assert apart == pytest.approx(expected, abs=1e-12)
