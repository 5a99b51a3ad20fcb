"""Signs and clipping under noise that is not normal: Student's and Cauchy's laws and mixtures, against quadrature, birth-death chains and semigroups.

Distribution functions and densities are those of SciPy; the chain of sign descent and the semigroup of an SDE in one coordinate are exact.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
from scipy import stats
from scipy.integrate import quad

import sdetools as st
from sdetools.exact import generator_gap, modified_equation, semigroup, sign_chain, step_generator
from sdetools.exact.generators.differential_ring import DifferentialRing
from sdetools.exact.generators.noisy_laws import finite_values, noisy_number
from sdetools.exact.generators.smoothed_kinks import mixture_moment
from sdetools.noise import Normal, Sign, Uniform, from_function

S, C = 0.5, 0.4
LOSS = st.losses.from_expression("x**2/2 + x**4/4", "x")


class Mixture:
    """A law with weights, as `sign_chain` takes it."""

    def __init__(self, *parts):
        self.parts = parts

    def cdf(self, v):
        return sum(w * law.cdf(v) for w, law in self.parts)

    def sf(self, v):
        return sum(w * law.sf(v) for w, law in self.parts)

    def pdf(self, v):
        return sum(w * law.pdf(v) for w, law in self.parts)


def scaled_t(nu):
    return stats.t(nu, scale=((nu - 2) / nu) ** 0.5)


LAWS = {
    **{f"student_t, {nu}": (st.noise.student_t(1, degrees=nu), scaled_t(nu)) for nu in (3, 4, 5, 8)},
    "Cauchy": (st.noise.alpha_stable(1.0, dim=1), stats.cauchy()),
    "alpha = 2": (st.noise.alpha_stable(2.0, dim=1), stats.norm(scale=2**0.5)),
    "two means": (
        from_function(lambda x, z: [0.6 * z[0] + 0.8 * z[1]], 1, [Normal(1), Sign(1)], 1.0),
        Mixture((0.5, stats.norm(-0.8, 0.6)), (0.5, stats.norm(0.8, 0.6))),
    ),
    "two scales": (
        from_function(lambda x, z: [z[0] * (1 + 0.5 * z[1])], 1, [Normal(1), Sign(1)], 1.25),
        Mixture((0.5, stats.norm(0, 0.5)), (0.5, stats.norm(0, 1.5))),
    ),
}

DRAWS = {name: [("gaussian", ()), ("rademacher", ())] for name in ("two means", "two scales")}


def moment(law, mean, k, bounds):
    """Return E sign(g)^k or E clip(g)^k of g = mean + S u by quadrature."""
    if not bounds:
        return law.sf(-mean / S) + (-1) ** k * law.cdf(-mean / S)
    low, high = ((b - mean) / S for b in bounds)
    inside = quad(lambda u: (mean + S * u) ** k * law.pdf(u), low, high, epsabs=1e-14, epsrel=1e-13, limit=200)[0]
    return bounds[0] ** k * law.cdf(low) + bounds[1] ** k * law.sf(high) + inside


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("bounds", [(), (-C, C), (-0.3, 1.1)])
def test_moments_by_quadrature(name, bounds):
    """To 1e-12, of the first five orders; control: the normal law of the same scale has others, beyond 1e-3."""
    noise, law = LAWS[name]
    x, known = sp.Symbol("x", real=True), DRAWS.get(name) or [(noise.law.name, noise.law.numbers)]
    home = DifferentialRing([x], len(known), atoms=48)
    u = home.number(0.6 if name == "two means" else 1.0) * home.z[0]
    if name == "two means":
        u = u + home.number(0.8) * home.z[1]
    if name == "two scales":
        u = u * (1 + home.number(0.5) * home.z[1])
    polynomial = home.x[0] + home.number(S) * u
    found = mixture_moment(home, noisy_number(home, polynomial, known)[0], bounds)
    apart = 0.0
    for at in (-0.7, 0.2, 1.3):
        for k in range(1, 6):
            value = float(home.expression(found(k)).evalf(30, subs={x: sp.Float(at, 30)}))
            assert value == pytest.approx(moment(law, at, k, bounds), abs=1e-12)
            apart = max(apart, abs(value - moment(stats.norm, at, k, bounds)))
    assert apart > 1e-3


def sign_gaps(name, make, etas=(0.05, 0.025, 0.0125), h="x**2"):
    """Return E h(x) - E h(X) at t = 1 for sign descent and an SDE that `make` returns from the rule, both exact."""
    noise, law = LAWS[name]
    oracle, out = st.NoisyOracle(LOSS, noise, sigma=S), []
    for eta in etas:
        rule = st.SignSGD(oracle, st.schedules.constant(eta))
        n = round(1 / eta)
        chain = sign_chain(rule, [0.9], n, record=[n], law=law).expectation(h)[0]
        out.append(chain - semigroup(make(rule), (-4.0, 4.0), 1.0, nodes=160).expectation(h, [0.9]))
    return np.array(out)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["student_t, 4", "Cauchy", "two means"])
def test_the_derived_equations_of_signs_have_their_order_at_finite_eta(name):
    """Orders 1 and 2 against the exact chain: local slopes, whose errors of order eta are extrapolated away. Control: without the correction order 1."""
    rule = lambda eta: st.SignSGD(st.NoisyOracle(LOSS, LAWS[name][0], sigma=S), st.schedules.constant(eta))  # noqa: E731
    second = sign_gaps(name, lambda one: modified_equation(one, 2))
    terms = step_generator(rule(0.1), 2).terms
    drift, variance = str(terms[0.0][1,]), str(2 * terms[1.0][2,])
    plain = sign_gaps(name, lambda one: st.SDE([drift], [[f"sqrt(eta*({variance}))"]], "x", parameters={"eta": one.plan.eta}))
    slopes = [np.log2(one[:-1] / one[1:]) for one in (second, plain)]
    assert [2 * s[1] - s[0] for s in slopes] == [pytest.approx(2, abs=0.05), pytest.approx(1, abs=0.05)]
    gap = generator_gap(rule(0.1), st.SDE([drift], [[f"sqrt(eta*({variance}))"]], "x", parameters={"eta": 0.1}))
    assert gap.weak_order == 1 and set(gap.leading) == {(1,)}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["student_t, 3", "student_t, 4", "Cauchy", "two scales"])
def test_the_leading_error_of_clipping_is_that_of_one_step(name):
    """E f(x - eta clip) by quadrature minus the semigroup of the order-1 equation, over eta^2, tends to the leading term."""
    noise, law = LAWS[name]
    loss = st.losses.from_expression("x**2/2", "x")
    rule = lambda eta: st.ClippedSGD(st.NoisyOracle(loss, noise, sigma=S), st.schedules.constant(eta), value=C)  # noqa: E731
    first = modified_equation(rule(0.1), 1)
    gap = generator_gap(rule(0.1), first, 1)
    assert gap.weak_order == 1
    moments, found = [moment(law, 0.3, k, (-C, C)) for k in (1, 2)], []
    for eta in (0.04, 0.02):
        step = 0.09 - 2 * 0.3 * eta * moments[0] + eta**2 * moments[1]
        own = semigroup(modified_equation(rule(eta), 1), (-3.0, 3.0), eta, nodes=128).expectation("x**2", [0.3])
        found.append((step - own) / eta**2)
    assert 2 * found[1] - found[0] == pytest.approx(gap.local("x**2", [0.3]), abs=1e-4)
    assert abs(gap.local("x**2", [0.3])) > 0.01


def test_a_wrong_law_is_named_by_its_leading_term():
    """The equation of normal signs with the same variance is of order 0 for Student's: its drift is another. A correction of half size leaves order 1."""
    oracle = st.NoisyOracle(LOSS, LAWS["student_t, 4"][0], sigma=S)
    rule = st.SignSGD(oracle, st.schedules.constant(0.1))
    normal = st.SignSDE(st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=S), rule.plan, weak_order=2)
    wrong = generator_gap(rule, normal)
    assert wrong.weak_order == 0 and set(wrong.leading) == {(1,)}
    u = 0.3 + 0.3**3
    expected = -(2 * scaled_t(4).cdf(u / S) - 1) + math.erf(u / S / 2**0.5)
    assert wrong.local("x", [0.3]) == pytest.approx(expected, rel=1e-12)
    terms = step_generator(rule, 2).terms
    drift, correction, variance = str(terms[0.0][1,]), str(terms[1.0][1,] / 2), str(2 * terms[1.0][2,])
    half = st.SDE([f"{drift} + eta*({correction})"], [[f"sqrt(eta*({variance}))"]], "x", parameters={"eta": 0.1})
    gap = generator_gap(rule, half)
    assert gap.weak_order == 1 and set(gap.leading) == {(1,)}
    assert gap.local("x", [0.3]) == pytest.approx(float(terms[1.0][1,].subs(sp.Symbol("x", real=True), 0.3)) / 2, rel=1e-9)


def test_alpha_two_is_normal_noise_of_variance_two():
    stable, normal = (
        st.SignSGD(st.NoisyOracle(LOSS, noise, sigma=S), st.schedules.constant(0.1))
        for noise in (st.noise.alpha_stable(2.0, dim=1), st.noise.gaussian(covariance=[[2.0]]))
    )
    assert generator_gap(stable, st.SignSDE(normal.oracle, normal.plan, weak_order=2)).weak_order == 2
    assert step_generator(stable, 2).terms == step_generator(normal, 2).terms


def test_numbers_of_normal_densities_are_recognised():
    """2^(1/2) pi^(3/2) is such a number; within 1e-14 its square is also a fraction with a denominator below 10^6, by chance."""
    home = DifferentialRing([sp.Symbol("x")], draws=0)
    for value, exact in (
        ((2 / math.pi) ** 0.5, sp.sqrt(2 / sp.pi)),
        (2**0.5 * math.pi**1.5, sp.sqrt(2 * sp.pi**3)),
        (2**0.5 / 7, sp.sqrt(2) / 7),
    ):
        assert sp.simplify(home.expression(home.number(value)) - exact) == 0
    assert home.exact and home.expression(home.number(123457 / 999983)) == sp.Rational(123457, 999983)


def test_values_of_draws():
    """The probabilities sum to 1, the means are 0, the variances 1."""
    for law in (st.noise.rademacher(1).law, st.noise.three_point(1).law, st.noise.two_point(1, probability=0.2).law):
        p, v = np.array([(float(w), value) for w, value in finite_values(law.name, law.numbers)]).T
        np.testing.assert_allclose([p.sum(), p @ v, p @ v**2], [1, 0, 1], atol=1e-14)


def many_signs():
    return from_function(lambda x, z: [z[0] + sum(z[i] for i in range(1, 9)) / 8], 1, [Normal(1), Sign(8)], 1.125)


REFUSED = {
    "atoms": (st.noise.rademacher(1), r"rademacher noise has atoms.*jumps or.*st.exact.sign_chain; with normal noise added"),
    "three atoms": (st.noise.three_point(1), "three-point noise has atoms"),
    "two atoms": (st.noise.two_point(1), "two-point noise has atoms"),
    "uniform": (st.noise.uniform(1), "that of uniform noise jumps.*has a kink"),
    "exponential": (st.noise.centred_exponential(1), "that of centred-exponential noise jumps"),
    "uniform draws": (from_function(lambda x, z: [12**0.5 * (z[0] - 0.5)], 1, Uniform(1), 1.0), "that of uniform noise jumps"),
    "stable": (st.noise.alpha_stable(1.5, dim=1), "alpha = 1 or 2.*got alpha = 1.5.*levy_stable"),
    "Student": (st.noise.student_t(1, degrees=2.5), "integer number of degrees.*got 2.5"),
    "sum": (st.noise.student_t(root=[[1.0, 0.5]]), "sum of two draws of another law"),
    "square": (from_function(lambda x, z: [(z[0] ** 2 - 1) / 2**0.5], 1, Normal(1), 1.0), "independent of all others"),
    "many": (many_signs(), "at most 64 laws"),
}


@pytest.mark.parametrize("rule", ["sign", "clip"])
@pytest.mark.parametrize("name", REFUSED)
def test_laws_without_an_expansion_are_refused_in_one_sentence(name, rule):
    noise, words = REFUSED[name]
    oracle, plan = st.NoisyOracle(LOSS, noise, sigma=S), st.schedules.constant(0.1)
    one = st.SignSGD(oracle, plan) if rule == "sign" else st.ClippedSGD(oracle, plan, value=C)
    with pytest.raises(ValueError, match=words):
        step_generator(one, 1)
