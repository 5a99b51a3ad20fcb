"""Normalised gradients and clipping by norm: moments against quadrature, one coordinate against signs and clipping by value, orders at finite eta.

A non-central chi-square law of SciPy and quadrature in polar coordinates are the independent computations.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import sympy as sp
from scipy import stats
from scipy.integrate import quad

import sdetools as st
from sdetools.exact import generator_gap, modified_equation, semigroup, step_generator, transfer_kernel
from sdetools.exact.generators.differential_ring import DifferentialRing
from sdetools.exact.generators.radial_laws import radial_moment
from sdetools.exact.generators.radial_means import numeric_radial_mean, radial_mean
from sdetools.exact.generators.smoothed_kinks import kink_moment

S, C = 0.5, 0.4
PLAN = st.schedules.constant(0.1)
LINE = st.NoisyOracle(st.losses.from_expression("x**2/2 + x**4/4", "x"), st.noise.gaussian(dim=1), sigma=S)
PLANE = st.NoisyOracle(st.losses.from_expression("x**2/2 + y**2", "x y"), st.noise.gaussian(dim=2), sigma=S)
SPACE = st.NoisyOracle(st.losses.from_expression("(x**2 + 2*y**2 + z**2)/2", "x y z"), st.noise.gaussian(dim=3), sigma=S)
RULES = {
    "normalised": lambda oracle, plan=PLAN: st.NormalisedSGD(oracle, plan),
    "clipped": lambda oracle, plan=PLAN: st.ClippedSGD(oracle, plan, norm=C),
}
LIMIT = {"normalised": 0.0, "clipped": C}


@pytest.mark.sample(5)
@pytest.mark.parametrize("c", [0.0, 0.32, 3.0])
@pytest.mark.parametrize(("k", "n"), [(1, 3), (1, 4), (2, 6), (3, 7)])
def test_means_over_directions_by_quadrature(k, n, c):
    """2 X is non-central chi-square with n degrees and 2 rho; the slope by a central difference of the quadrature, error 1e-7. Control: two degrees more."""

    def expected(rho, n=n):
        size = lambda u: min(1.0, (c / u) ** 0.5) ** k if c else u ** (-k / 2)  # noqa: E731
        law = stats.ncx2(n, 2 * rho)
        return sum(
            quad(lambda u: size(u) * 2 * law.pdf(2 * u), *ends, epsabs=1e-13, limit=400)[0] for ends in ((0, c), (c, 6), (6, 60))
        )

    R = radial_mean()
    for rho in (0.05, 0.7, 4.0):
        assert float(R(k, n, c, rho)) == pytest.approx(expected(rho), rel=1e-9)
        assert abs(float(R(k, n + 2, c, rho)) / expected(rho) - 1) > 1e-3
    x = sp.Symbol("x")
    slope = float(R(k, n, c, x).diff(x).subs(x, 0.7))
    assert slope == pytest.approx((expected(0.701) - expected(0.699)) / 0.002, abs=1e-6)
    np.testing.assert_allclose(numeric_radial_mean(k, n, c, np.array([0.05, 0.7])), [expected(0.05), expected(0.7)], rtol=1e-9)


def polar(limit, mean, powers):
    """Return E H_x^a H_y^b of H = g/|g| or g min(1, limit/|g|), g ~ N(mean, S^2 I), in polar coordinates."""
    angle = np.arange(256) * 2 * np.pi / 256
    nodes, weights = np.polynomial.legendre.leggauss(60)
    total = 0.0
    for low, high in itertools.pairwise(sorted({0.0, limit or 0.5, 1.0, 2.0, 3.5, 6.0})):
        r = low + (high - low) * (nodes + 1) / 2
        x, y = r[:, None] * np.cos(angle), r[:, None] * np.sin(angle)
        density = np.exp(-((x - mean[0]) ** 2 + (y - mean[1]) ** 2) / (2 * S**2)) / (2 * np.pi * S**2)
        by = 1 / r if not limit else np.minimum(1, limit / r)
        values = (x * by[:, None]) ** powers[0] * (y * by[:, None]) ** powers[1] * density
        total += (high - low) / 2 * (weights * r) @ values.sum(axis=1) * 2 * np.pi / 256
    return total


@pytest.mark.parametrize("kind", RULES)
def test_joint_moments_in_the_plane(kind):
    """To 1e-11, all moments up to the fourth order; control: without pairs of equal coordinates the second moment is another."""
    x, y = sp.symbols("x y")
    home = DifferentialRing([x, y], draws=0, atoms=48)
    moment = radial_moment(home, list(home.x), home.number(S * S), LIMIT[kind])
    mean = (0.3, -0.55)
    for powers in itertools.product(range(5), repeat=2):
        if 0 < sum(powers) <= 4:
            found = float(home.expression(moment(powers)).evalf(25, subs={x: sp.Rational(3, 10), y: sp.Rational(-11, 20)}))
            assert found == pytest.approx(polar(LIMIT[kind], mean, powers), abs=1e-11)
    scale = 2 * S**2 if kind == "normalised" else 1.0
    rho = (mean[0] ** 2 + mean[1] ** 2) / (2 * S**2)
    c = LIMIT[kind] ** 2 / (2 * S**2)
    assert abs(mean[0] ** 2 * float(radial_mean()(2, 6, c, rho)) / scale - polar(LIMIT[kind], mean, (2, 0))) > 0.01


@pytest.mark.slow
def test_one_coordinate_is_a_sign_or_a_clipping_by_value():
    """To 25 digits, and the derived equations of the library have their orders."""
    x = sp.Symbol("x")
    home = DifferentialRing([x], draws=0, atoms=48)
    for limit, bounds in ((0.0, ()), (C, (-C, C))):
        radial, value = (
            radial_moment(home, [home.x[0]], home.number(S * S), limit),
            kink_moment(home, home.x[0], home.number(S * S), bounds),
        )
        for k in (1, 2, 3):
            apart = home.expression(radial((k,)) - value(k)).subs(x, sp.Rational(3, 7))
            assert abs(sp.N(apart, 30)) < 1e-25
    for order in (1, 2):
        assert generator_gap(RULES["normalised"](LINE), st.SignSDE(LINE, PLAN, weak_order=order), order).weak_order == order
        assert generator_gap(RULES["clipped"](LINE), st.ClippedSDE(LINE, PLAN, C, weak_order=order), order).weak_order == order


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", RULES)
def test_the_derived_equation_in_one_coordinate_has_order_two_at_finite_eta(kind):
    """On x^2/2. Against the transfer operator of the rule, with the slope's error of order eta extrapolated away; control: order 1 with the equation of order 1."""
    oracle, gaps = st.NoisyOracle(st.losses.from_expression("x**2/2", "x"), LINE.noise, sigma=S), {1: [], 2: []}
    for eta in (0.05, 0.025, 0.0125):
        rule = RULES[kind](oracle, st.schedules.constant(eta))
        exact = transfer_kernel(rule, (-3.0, 3.0)).expectation("x**2", [0.9], round(1 / eta))
        for order, one in gaps.items():
            cls = (st.SignSDE, ()) if kind == "normalised" else (st.ClippedSDE, (C,))
            sde = modified_equation(rule, 2) if order == 2 else cls[0](oracle, rule.plan, *cls[1], weak_order=1)
            one.append(exact - semigroup(sde, (-3.0, 3.0), 1.0, nodes=128).expectation("x**2", [0.9]))
    for order, one in gaps.items():
        slopes = np.log2(np.array(one[:-1]) / one[1:])
        assert 2 * slopes[1] - slopes[0] == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("kind", RULES)
def test_the_step_generator_in_the_plane_is_that_of_one_step(kind):
    """E f(x - eta H) - f by polar quadrature minus (eta A_0 + eta^2 (A_1 + A_0^2/2)) f falls by 8 as eta is halved; control: without A_1 by 4."""
    x, y = symbols = [sp.Symbol(name, real=True) for name in "xy"]
    terms = step_generator(RULES[kind](PLANE), 2).terms
    at = (0.3, -0.25)
    f = x**3 + 2 * x * y**2 + y**4

    def applied(operator, u):
        return sum(c * sp.diff(u, x, a[0], y, a[1]) for a, c in operator.items())

    once = applied(terms[0.0], f)
    twice = applied(terms[1.0], f) + applied(terms[0.0], once) / 2
    first, second, without = (float(u.subs(dict(zip(symbols, at))).evalf()) for u in (once, twice, applied(terms[0.0], once) / 2))
    mean = (at[0], 2 * at[1])
    moments = {p: polar(LIMIT[kind], mean, p) for p in itertools.product(range(5), repeat=2) if sum(p) <= 4}

    def rest(eta, second):
        a, b = sp.symbols("a b")
        moved = sp.Poly(sp.expand(f.subs({x: at[0] - eta * a, y: at[1] - eta * b}, simultaneous=True)), a, b)
        mean_after = sum(float(c) * moments[p] for p, c in moved.terms())
        return mean_after - float(f.subs(dict(zip(symbols, at)))) - eta * first - eta**2 * second

    ratio = lambda second: rest(0.02, second) / rest(0.01, second)  # noqa: E731
    assert abs(ratio(second) - 8) < 0.3 and abs(ratio(without) - 4) < 0.3


def space(scale=1.0, half=1.0):
    """Return the equation of normalised gradients in three coordinates, written with the error function."""
    square = "(x**2 + 4*y**2 + z**2)"
    r = f"sqrt({square})"
    size = f"(erf({scale}*sqrt(2)*{r})*(1 - 1/(4*{square}))/{r} + exp(-2*{square})/(sqrt(2*pi)*{square}))"
    return st.SDE([f"-x*{size}", f"-2*y*{size}", f"-{half}*z*{size}"], None, "x y z")


@pytest.mark.slow
def test_three_coordinates_are_those_of_the_error_function():
    """Order 1 with the drift E g/|g| written with erf; a scale off by 2 % and a coordinate off by 2 % are named: order 0, drifts."""
    rule = RULES["normalised"](SPACE)
    gap = generator_gap(rule, space(), 1)
    assert gap.weak_order == 1 and not gap.note and {sum(a) for a in gap.leading} == {1, 2}
    scale, half = (generator_gap(rule, one, 1) for one in (space(scale=1.02), space(half=0.98)))
    assert scale.weak_order == 0 and set(scale.leading) == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    assert half.weak_order == 0 and set(half.leading) == {(0, 0, 1)}


@pytest.mark.parametrize("limit", [0.5, 0.7, 1.0, 2.0, 3.0])
def test_every_limit_is_recognised(limit):
    """The graph of operations writes |g|/2 as a product, and |g|/1 as |g|."""
    drift = step_generator(st.ClippedSGD(PLANE, PLAN, norm=limit), 1).terms[0.0][1, 0]
    x, y = (sp.Symbol(name, real=True) for name in "xy")
    assert float(drift.subs({x: 0.3, y: -0.25}).evalf()) == pytest.approx(-polar(limit, (0.3, -0.5), (1, 0)), abs=1e-11)


def test_a_step_generator_of_directions_is_saved(tmp_path):
    found = step_generator(RULES["clipped"](PLANE), 2)
    found.save(tmp_path / "one")
    again = st.load(tmp_path / "one")
    assert again.terms == found.terms


class NormAndGradient(st.Dynamics):
    """A step by a normalised gradient and the gradient itself."""

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        g = oracle(x)
        return (x - eta * (g + g / np.maximum(np.sqrt((g * g).sum(axis=0)) / 2.0, 1.0)),)


def of(noise):
    return st.NoisyOracle(PLANE.loss, noise, sigma=S)


REFUSED = {
    "unequal": (
        lambda: step_generator(RULES["normalised"](of(st.noise.gaussian(covariance=[1.0, 2.0])))),
        "constant, equal and uncorrelated",
    ),
    "correlated": (
        lambda: step_generator(RULES["clipped"](of(st.noise.gaussian(covariance=[[1.0, 0.5], [0.5, 1.0]])))),
        "uncorrelated",
    ),
    "another law": (lambda: step_generator(RULES["normalised"](of(st.noise.student_t(2)))), "must have normal noise"),
    "none": (lambda: step_generator(RULES["clipped"](of(st.noise.none(2)))), "function maximum has a kink"),
    "of the state": (
        lambda: step_generator(
            RULES["normalised"](of(st.noise.gaussian(root=[["1 + x**2", "0"], ["0", "1 + x**2"]], variables="x y")))
        ),
        "constant, equal",
    ),
    "shared": (lambda: step_generator(NormAndGradient(PLANE, PLAN)), "independent of all others"),
    "large noise": (lambda: step_generator(RULES["normalised"](PLANE), sigma_power=-0.5), "constant scale, sigma_power=0"),
    "equation": (
        lambda: modified_equation(RULES["normalised"](PLANE), 1),
        "means over directions.*st.exact.step_generator has its drift",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_expansion_is_refused_in_one_sentence(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        make()


def test_the_mean_direction_is_that_of_the_hypergeometric_function():
    """E g/|g| = (m/s) Gamma((d+1)/2) / (2^(1/2) Gamma(d/2+1)) 1F1(1/2; d/2+1; -|m|^2/(2 s^2)) in 2 and 3 coordinates."""
    from scipy.special import hyp1f1

    for oracle, at in ((PLANE, [0.3, -0.25]), (SPACE, [0.3, -0.25, 0.8])):
        d, m = len(at), oracle.loss.gradient(np.array(at))
        drift = step_generator(RULES["normalised"](oracle), 1).terms[0.0]
        factor = math.gamma((d + 1) / 2) / (2**0.5 * math.gamma(d / 2 + 1)) * hyp1f1(0.5, d / 2 + 1, -(m @ m) / (2 * S**2))
        point = {sp.Symbol(name, real=True): value for name, value in zip(oracle.loss.names, at)}
        for i in range(d):
            index = tuple(int(i == j) for j in range(d))
            assert float(drift[index].subs(point).evalf()) == pytest.approx(-m[i] / S * factor, rel=1e-12)
