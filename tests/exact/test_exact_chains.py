"""Exact laws of sign descent, operators of steps and of diffusions on a line, and moments of adaptive methods on a quadratic.

Chains are compared with an enumeration of all draws through the rule itself, operators with quadratures and closed forms, and moments with the
linear equations that the SDEs of the library have.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.stats import cauchy, expon, norm, t as student

import sdetools as st

LOSS = st.losses.from_expression("x**2/2 + x**3/12", "x")
PLAN = st.schedules.constant(0.25)
DISCRETE = {
    "rademacher": (st.noise.rademacher(dim=1), [(-1.0, 0.5), (1.0, 0.5)]),
    "three point": (st.noise.three_point(dim=1), [(0.1, 1 / 6), (0.5, 2 / 3), (0.9, 1 / 6)]),  # of uniform draws
    "two point": (st.noise.two_point(dim=1, probability=0.2, root=[[-1.3]]), [(0.1, 0.2), (0.7, 0.8)]),
    "none": (st.noise.none(dim=1), [(0.0, 1.0)]),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_the_chain_is_an_enumeration_of_the_draws(name):
    """At x = 1 a gradient of 1.25 is as large as the noise of two values at sigma = 1.25: sign(0) = 0 occurs."""
    noise, draws = DISCRETE[name]
    oracle = st.NoisyOracle(LOSS, noise, sigma=1.25)
    rule = st.SignSGD(oracle, PLAN)
    law = st.exact.sign_chain(rule, [1.0], 5)
    for k in (1, 3, 5):
        total = 0.0
        for path in itertools.product(draws, repeat=k):
            x = np.array([1.0])
            for z, _ in path:
                x = rule.rule((x,), rule.bind(np.full(noise.n_draws, z)), 0.25)[0]
            total += math.prod(w for _, w in path) * math.cos(float(x[0]))
        assert law.expectation("cos(x)")[k] == pytest.approx(total, abs=1e-13)
    if name == "rademacher":
        assert law.probability[1].max() == 0.5 and law.probability[1, 5] == 0.5  # half stay


@pytest.mark.parametrize(
    ("noise", "cdf"),
    [
        (st.noise.gaussian(dim=1), norm.cdf),
        (st.noise.centred_exponential(dim=1), lambda y: expon.cdf(y + 1)),
        (st.noise.centred_exponential(root=[[-1.0]]), lambda y: expon.sf(1 - y)),
        (st.noise.student_t(1, degrees=5.0), lambda y: student.cdf(y * math.sqrt(5 / 3), 5.0)),
        (st.noise.uniform(dim=1), lambda y: min(max((y + math.sqrt(3)) / math.sqrt(12), 0.0), 1.0)),
        (st.noise.gaussian(root=[["1 + x**2/4"]], variables="x"), None),
    ],
    ids=["normal", "exponential", "mirrored", "student", "uniform", "state"],
)
def test_the_chain_of_a_continuous_law_is_a_recursion_over_paths(noise, cdf):
    rule = st.SignSGD(st.NoisyOracle(LOSS, noise, sigma=0.8), PLAN)

    def mean(x, k):
        if not k:
            return x**3
        slope = x + x * x / 4
        up = norm.cdf(-slope / (0.8 * (1 + x * x / 4))) if cdf is None else cdf(-slope / 0.8)
        return up * mean(x + 0.25, k - 1) + (1 - up) * mean(x - 0.25, k - 1)

    law = st.exact.sign_chain(rule, [0.6], 6, record=[2, 6])
    np.testing.assert_allclose(law.expectation("x**3"), [mean(0.6, 2), mean(0.6, 6)], rtol=1e-12)
    assert law.times.tolist() == [0.5, 1.5] and law.probability.sum(axis=1) == pytest.approx(1.0)
    assert np.abs(law.expectation("x**3")[1] - mean(0.61, 6)) > 1e-4


@pytest.mark.parametrize(("name", "own"), [("normal", norm), ("Cauchy", cauchy)])
@pytest.mark.parametrize("eta", [0.5, 0.05])
def test_the_stationary_law_has_its_identity_and_is_stationary(name, own, eta):
    """E x (1 - 2 F(-lam x / s)) = eta / 2 at every eta, also for noise without moments; a step leaves the law as it is."""
    oracle = st.NoisyOracle(st.losses.quadratic(1.3), st.noise.gaussian(dim=1), sigma=0.7)
    rule = st.SignSGD(oracle, st.schedules.constant(eta))
    law = st.exact.stationary_sign_law(rule, [0.3 * eta], law=own if name == "Cauchy" else None)
    x, (p,) = law.points, law.probability
    assert p @ (x * (1 - 2 * own.cdf(-1.3 * x / 0.7))) == pytest.approx(eta / 2, abs=1e-10)
    up = own.cdf(-1.3 * x / 0.7)
    after = np.zeros_like(p)
    after[1:] += (up * p)[:-1]
    after[:-1] += ((1 - up) * p)[1:]
    np.testing.assert_allclose(after, p, atol=1e-14)
    plain = p @ (x * (1 - 2 * own.cdf(-1.2 * x / 0.7)))
    assert abs(plain - eta / 2) > 1e-4  # another curvature has not this identity


def test_operators_of_linear_rules_are_those_of_the_density():
    oracle = st.NoisyOracle(st.losses.double_well(), st.noise.gaussian(root=[["1 + 0.3*sin(x)"]], variables="x"), sigma=0.6)
    sgd = st.SGD(oracle, st.schedules.constant(0.1))
    name = oracle.loss.names[0]
    kernel = st.exact.transfer_kernel(sgd, (-2.6, 2.6), nodes=128)
    for h in (f"{name}**2", f"cos(2*{name})"):
        assert kernel.expectation(h, [0.3], 12) == pytest.approx(
            float(st.exact.transfer(sgd, [0.3], 12, h, record=[12])[0]), abs=2e-9
        )


def test_the_operator_of_signs_is_the_chain():
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5)
    rule = st.SignSGD(oracle, st.schedules.constant(0.1))
    chain = st.exact.sign_chain(rule, [1.0], 20, record=[20])
    kernel = st.exact.transfer_kernel(rule, (-3.0, 3.0), nodes=160)
    assert kernel.expectation("x0**2", [1.0], 20) == pytest.approx(float(chain.expectation("x0**2")[0]), abs=1e-10)
    normalised = st.exact.transfer_kernel(st.NormalisedSGD(oracle, st.schedules.constant(0.1)), (-3.0, 3.0), nodes=160)
    np.testing.assert_allclose(normalised.matrix, kernel.matrix, atol=1e-12)


def test_the_operator_of_clipping_is_a_double_integral():
    """Two steps by adaptive quadrature with the kinks as its break points; clipping at another value is another operator."""
    s, c, eta = 0.5, 0.4, 0.3
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2 + cos(x)/4", "x"), st.noise.gaussian(dim=1), sigma=s)
    force = lambda x: x - math.sin(x) / 4  # noqa: E731

    def mean(f, x):
        def inner(g):
            return f(x - eta * g) * norm.pdf((g - force(x)) / s) / s

        tails = norm.cdf((-c - force(x)) / s) * f(x + eta * c) + norm.sf((c - force(x)) / s) * f(x - eta * c)
        return tails + quad(inner, -c, c, epsabs=1e-12)[0]

    expected = mean(lambda y: mean(lambda u: math.exp(u / 2), y), 0.6)
    plan = st.schedules.constant(eta)
    for rule in (st.ClippedSGD(oracle, plan, value=c), st.ClippedSGD(oracle, plan, norm=c)):
        assert st.exact.transfer_kernel(rule, (-4.5, 4.5)).expectation("exp(x/2)", [0.6], 2) == pytest.approx(expected, abs=1e-9)
    other = st.exact.transfer_kernel(st.ClippedSGD(oracle, plan, value=1.1 * c), (-4.5, 4.5))
    assert abs(other.expectation("exp(x/2)", [0.6], 2) - expected) > 1e-3


def test_the_semigroup_of_linear_equations_is_that_of_their_moments():
    for diffusion in ("0.5", "0.2 + 0.1*x"):
        sde = st.SDE(["0.2 - x"], [[diffusion, "0.1"]], "x")
        exact = st.exact.solution(sde, [0.7], [1.3])
        kernel = st.exact.semigroup(sde, (-6.0, 6.0), 1.3)
        assert kernel.expectation("x", [0.7]) == pytest.approx(exact.mean[0, 0], abs=1e-9)
        assert kernel.expectation("x**2", [0.7]) == pytest.approx(exact.covariance[0, 0, 0] + exact.mean[0, 0] ** 2, abs=1e-8)
    half = st.exact.semigroup(sde, (-6.0, 6.0), 0.65)
    assert half.expectation("sin(x)", [0.7], 2) == pytest.approx(kernel.expectation("sin(x)", [0.7]), abs=1e-9)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["sign", "clip"])
@pytest.mark.parametrize("order", [1, 2])
def test_the_derived_constants_of_signs_and_clipping_are_those_of_the_exact_gaps(kind, order):
    """E x^2 of the rule less that of the SDE over eta^order, at eta = 2^-6 and 2^-7, extrapolated: what is left is of relative order eta^2."""

    def pair(eta):
        oracle, plan = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5), st.schedules.constant(eta)
        if kind == "sign":
            return st.SignSGD(oracle, plan), st.SignSDE(oracle, plan, weak_order=order)
        return st.ClippedSGD(oracle, plan, value=0.4), st.ClippedSDE(oracle, plan, 0.4, weak_order=order)

    constant = st.exact.generator_gap(*pair(0.1), order).constant("x0**2", [1.0], 1.0)
    found = []
    for eta in (2.0**-6, 2.0**-7):
        rule, sde = pair(eta)
        steps = round(1 / eta)
        if kind == "sign":
            exact = float(st.exact.sign_chain(rule, [1.0], steps, record=[steps]).expectation("x0**2")[0])
        else:
            exact = st.exact.transfer_kernel(rule, (-3.0, 3.0)).expectation("x0**2", [1.0], steps)
        found.append((exact - st.exact.semigroup(sde, (-3.0, 3.0), 1.0).expectation("x0**2", [1.0])) / eta**order)
    assert 2 * found[1] - found[0] == pytest.approx(constant, rel=0.02, abs=1e-4) and abs(constant) > 5e-3


TP1 = st.exact.AdaptiveProblem(lam=1.0, sigma0=0.5, eps0=0.2, c2=1.0, x0=1.0, u0=2.5)


@pytest.mark.parametrize("momentum", [False, True])
def test_moments_of_adaptive_methods_are_those_of_the_equations_of_the_library(momentum):
    """The coefficients of the library's SDE at each u, which is a number, give linear equations for mean and second moments."""
    problem = st.exact.AdaptiveProblem(lam=1.3, deviation=0.8, sigma0=0.5, eps0=0.2, c2=1.5, x0=1.1, u0=2.5)
    eta = 0.1
    noise = st.noise.gaussian(covariance=[[0.64]])
    oracle = st.NoisyOracle(st.losses.quadratic(1.3), noise, sigma=0.5 / eta)
    own = {"beta2": 1 - 1.5 * eta**2, "eps": 0.2 / eta, "second_moment": 2.5 * oracle.sigma**2}
    if momentum:
        sde = st.AdamSDE(oracle, st.schedules.constant(eta, 1 - 2 * eta**2), bias_correction=False, momentum=[0.4], **own)
    else:
        sde = st.RMSPropSDE(oracle, st.schedules.constant(eta), **own)
    signals = tuple(sde.signal_values(np.zeros(1), 0.0, 0.01)[0])
    n = 2 if momentum else 1

    def slope(t, y):
        P, u = y[: (n + 1) ** 2].reshape(n + 1, n + 1), y[-1]
        at = lambda x: sde.drift(np.append(x, u), s=signals)  # noqa: E731
        A, b = np.zeros((n + 1, n + 1)), np.zeros(n + 1)
        A[1:, 0] = at(np.zeros(n))[:n]
        A[1:, 1:] = np.array([at(e)[:n] - A[1:, 0] for e in np.eye(n)]).T
        b[1:] = sde.diffusion(np.append(np.zeros(n), u), [1.0], s=signals)[:n]
        return np.append((A @ P + P @ A.T + np.outer(b, b)).ravel(), at(np.zeros(n))[-1])

    first = np.array([1.0, 1.1, 0.4])[: n + 1]
    end = solve_ivp(slope, (0, 1.7), np.append(np.outer(first, first).ravel(), 2.5), rtol=1e-11, atol=1e-13).y[:, -1]
    P = end[:-1].reshape(n + 1, n + 1)
    mean, square = problem.adam([0.5, 1.7], 2.0, 0.4) if momentum else problem.rmsprop([0.5, 1.7])
    assert mean[1] == pytest.approx(P[0, 1], rel=1e-8) and square[1] == pytest.approx(P[1, 1], rel=1e-8)
    assert problem.second_moment(1.7) == pytest.approx(end[-1], rel=1e-9)


def test_terms_beside_the_equations_have_their_published_values():
    """Computed independently, to the digits given: -.1237, .1207 and -.0015 for exponential noise, and A = -.17140, B = .10578."""
    assert [round(TP1.skewness(2.0, 2.0, q), 4) for q in (0.0, 1.0, 0.5)] == [-0.1237, 0.1207, -0.0015]
    assert [round(v, 5) for v in TP1.momentum_terms(2.0)] == [-0.17140, 0.10578]
    assert TP1.skewness(2.0, 0.0, 1.0) == 0.0


NOISY = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1))
REFUSED = {
    "not a sign": (lambda: st.exact.sign_chain(st.SGD(NOISY, PLAN), [1.0], 3), "must be st.SignSGD"),
    "moving": (lambda: st.exact.sign_chain(st.SignSGD(NOISY, st.schedules.from_arrays([0.1, 0.2], 0.0)), [1.0], 3), "constant plan"),
    "unknown law": (
        lambda: st.exact.sign_chain(st.SignSGD(st.svag(NOISY, 2), PLAN), [1.0], 3),
        "noise of a known law.*law=",
    ),
    "no stationary law": (
        lambda: st.exact.stationary_sign_law(
            st.SignSGD(st.NoisyOracle(st.losses.from_expression("1.5*x", "x"), st.noise.rademacher(dim=1)), PLAN)
        ),
        "must have a stationary law",
    ),
    "two parts": (lambda: st.exact.transfer_kernel(st.SGDM(NOISY, st.schedules.constant(0.1, 0.5)), (-1.0, 1.0)), "one part"),
    "two gradients": (lambda: st.exact.transfer_kernel(st.SAM(NOISY, PLAN), (-1.0, 1.0)), "one noisy gradient a step"),
    "another law": (
        lambda: st.exact.transfer_kernel(st.SGD(st.NoisyOracle(LOSS, st.noise.rademacher(dim=1)), PLAN), (-1.0, 1.0)),
        "normal noise",
    ),
    "interval": (lambda: st.exact.transfer_kernel(st.SGD(NOISY, PLAN), (1.0, -1.0)), "`interval`"),
    "leaving": (lambda: st.exact.transfer_kernel(st.SGD(NOISY, PLAN), (-1.0, 1.0)).expectation("x", [0.0], 5), "leave"),
    "outside": (lambda: st.exact.transfer_kernel(st.SGD(NOISY, PLAN), (-1.0, 1.0)).expectation("x", [2.0], 5), "`x0`"),
    "outwards": (lambda: st.exact.semigroup(st.SDE(["x"], ["1"], "x"), (-1.0, 1.0), 1.0), "inwards"),
    "stratonovich": (lambda: st.exact.semigroup(st.SDE(["-x"], ["x"], "x", calculus="stratonovich"), (-1.0, 1.0), 1.0), "Ito SDE"),
    "no SDE": (lambda: st.exact.semigroup("x", (-1.0, 1.0), 1.0), "Ito SDE"),
    "numbers": (lambda: st.exact.AdaptiveProblem(u0=0.0), "`u0`"),
    "times": (lambda: TP1.rmsprop([1.0, 0.5]), "`times`"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_such_law_is_refused(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        make()
