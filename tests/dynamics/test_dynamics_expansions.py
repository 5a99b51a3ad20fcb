"""Weak orders from the expansion of one step, E f(X_h) = f + h L f + h^2 L^2 f / 2 + ..., which ends at the weak order.

L is the generator of the SDE on polynomials, and f runs through all monomials up to degree 4, which gives the moments 1 to 4. The
systems are random: affine or quadratic in the state, time-dependent, and with one to four noises that do not commute.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from sympy.polys.rings import ring

import sdetools as st

DEGREE, LONGEST = 8, {1: 1 / 4096, 2: 1 / 64}
"""Degree in h of the polynomial through the values at the Chebyshev points of (0, LONGEST], where LONGEST depends on the weak order.
Milstein's one-sided differences leave a term in h^(5/2), which at 1/4096 changes the coefficient of h by 4e-6 of the term's own."""
ROUNDING = 1e-6
"""A value is accurate to 1e-15, so the coefficient of h^2 to 1e-15 * 64^2 times the growth 2^(2 * 8) / 100 of the interpolation, about 1e-9.
The first omitted term, h^9, changes it by 64^-7 = 2e-13 of its coefficient. At the power after the weak order the error of the
coefficient is at least 1e-2, which each case checks."""
SPACE, *Y, T = ring("y0,y1,y2,t", sp.QQ)


def polynomial(rng, degree):
    """Return a random polynomial in y0, y1, y2 and t: a constant and three terms with coefficients in eighths."""
    terms = [math.prod(pick) for n in range(1, degree + 1) for pick in itertools.combinations_with_replacement((*Y, T), n)]
    picked = [terms[i] for i in rng.permutation(len(terms))[:3]]
    return sum((Fraction(int(rng.choice([-3, -2, -1, 1, 2, 3])), 8) * term for term in [SPACE(1), *picked]), SPACE(0))


def system(noises, degree, seed, kind="general"):
    """Return drift and diffusion as polynomials: `noises` columns of three rows."""
    rng = np.random.default_rng(seed)
    a = [polynomial(rng, degree) for _ in range(3)]
    if kind == "additive":
        return a, [[polynomial(rng, 0) + Fraction(int(rng.integers(1, 4)), 8) * T for _ in range(3)] for _ in range(noises)]
    if kind == "diagonal":
        return a, [[(1 + Fraction(k + 1, 4) * Y[k] + T / 8) * (i == k) + SPACE(0) for i in range(3)] for k in range(noises)]
    if kind == "commutative":  # b_k = c_k b: all columns are parallel, with constant factors
        one = [polynomial(rng, degree) for _ in range(3)]
        return a, [[Fraction(k + 1, 2) * entry for entry in one] for k in range(noises)]
    return a, [[polynomial(rng, degree) for _ in range(3)] for _ in range(noises)]


def sde(a, b, calculus="ito"):
    """Return the system as an SDE of expressions."""
    rows = [[str(b[k][i].as_expr()) for k in range(len(b))] for i in range(3)]
    return st.SDE([str(p.as_expr()) for p in a], rows, variables="y0 y1 y2", calculus=calculus)


def generator(a, b, calculus="ito"):
    """Return f -> L f = df/dt + a . grad f + sum_k b_k b_k : Hess f / 2; Stratonovich's drift adds sum_k (b_k . grad) b_k / 2."""
    spread = [[sum((c[i] * c[j] for c in b), SPACE(0)) / 2 for j in range(3)] for i in range(3)]
    if calculus == "stratonovich":
        a = [a[i] + sum((c[j] * c[i].diff(Y[j]) for c in b for j in range(3)), SPACE(0)) / 2 for i in range(3)]

    def apply(f):
        slopes = [f.diff(y) for y in Y]
        second = sum((spread[i][j] * slopes[i].diff(Y[j]) for i in range(3) for j in range(3)), SPACE(0))
        return f.diff(T) + sum((a[i] * slopes[i] for i in range(3)), SPACE(0)) + second

    return apply


MONOMIALS = [math.prod(pick) for n in range(1, 5) for pick in itertools.combinations_with_replacement(Y, n)]
POINT = [0.5, -0.25, 0.75]


def expected(a, b, order, calculus="ito"):
    """Return f, L f, ..., L^order f / order! at the start, one row each; the last row has the first and second moments only."""
    rows, now, apply = [], list(MONOMIALS), generator(a, b, calculus)
    for j in range(order + 1):
        rows.append(np.array([float(f.evaluate([*zip(Y, map(Fraction, POINT)), (T, 0)])) / math.factorial(j) for f in now]))
        now = [apply(f) for f in (now if j < order - 1 else now[:9])] if j < order else []
    return rows


def found(law, order):
    """Return the expansion of a scheme, where `law(h)` is the law of its first step of length h, as points and weights."""
    longest = LONGEST[order - 1]
    nodes = longest * (1 + np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))) / 2
    powers = np.array([m.degrees() for m in MONOMIALS])[:, :3]
    means = []
    for h in nodes:
        points, weights = law(h)
        means.append([weights @ np.prod(points ** p[:, None], axis=0) for p in powers])
    fit = np.polynomial.chebyshev.Chebyshev.fit(nodes, np.zeros(DEGREE + 1), DEGREE, domain=[0, longest])
    coefficients = np.linalg.solve(np.polynomial.chebyshev.chebvander(2 * nodes / longest - 1, DEGREE), np.array(means))
    out = [
        type(fit)(column, domain=[0, longest]).convert(kind=np.polynomial.Polynomial, domain=[0, 1], window=[0, 1]).coef
        for column in coefficients.T
    ]
    return np.array([np.pad(c, (0, DEGREE + 1 - len(c)))[: order + 1] for c in out]).T


def errors_of(law, a, b, order, calculus="ito"):
    """Return the errors of the coefficients up to h^order, relative to 1 + their size: `(order + 1,)`."""
    right = expected(a, b, order, calculus)
    return np.array(
        [np.max(np.abs(row[: len(r)] - r) / (1 + np.abs(r))) for row, r in zip(found(law, order), right, strict=True)]
    )


CASES = [
    *((st.EulerMaruyama, law, "general", q) for law in ("normal", "three-point", "two-point") for q in (1, 2, 3)),
    (st.EulerMaruyama, "three-point", "general", 4),
    *((st.Heun, "normal", "general", q) for q in (1, 2, 3)),
    *(
        (st.Milstein, "normal", kind, q)
        for kind, q in (("general", 1), ("diagonal", 3), ("commutative", 2), ("commutative", 3), ("additive", 2))
    ),
    *((st.SRA1, "normal", "additive", q) for q in (1, 2)),
    *((cls, "three-point", "general", q) for cls in (st.Platen, st.RI1) for q in (1, 2, 3, 4)),
    *((cls, "normal", "general", q) for cls in (st.Platen, st.RI1) for q in (1, 2)),
    *(
        (cls, "normal", kind, q)
        for cls in (st.Platen, st.RI1)
        for kind, q in (("additive", 2), ("diagonal", 3), ("commutative", 2))
    ),
]


@pytest.mark.sample(4)
@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize(("cls", "law", "kind", "noises"), CASES)
def test_weak_order_of_all_moments_up_to_the_fourth(cls, law, kind, noises, degree):
    a, b = system(noises, degree, 10 * noises + degree, kind)
    calculus = "stratonovich" if cls is st.Heun else "ito"
    one = sde(a, b, calculus)
    assert cls is not st.Milstein or one.noise_class == ("scalar" if kind == "general" else kind)
    errors = errors_of(lambda h: st.exact.step_law(cls(one, h, law), POINT), a, b, int(cls.weak_order) + 1, calculus)
    assert errors[:-1].max() < ROUNDING < 1e-2 < errors[-1]


class OneSignAMotion(st.RI1):
    """RI1 with the signs of the publication: I~_(k) for every pair (k, l) with k < l."""

    def step(self, eq, y, h):
        eq.signs = [eq.signs[k] for j in range(eq.sde.noise_dim) for k in range(j)]
        return super().step(eq, y, h)


class Mixed(st.Platen):
    """Platen's scheme with two percent of the mixed terms missing."""

    def step(self, eq, y, h):
        eq.signs = [0.98 * sign for sign in eq.signs]
        return super().step(eq, y, h)


@pytest.mark.parametrize(
    ("cls", "noises", "order"), [(OneSignAMotion, 2, 2), (OneSignAMotion, 3, 1), (OneSignAMotion, 4, 1), (Mixed, 2, 1)]
)
def test_schemes_of_lower_order_are_detected(cls, noises, order):
    """One sign per motion is enough for two motions but not for three; the error appears at h^2."""
    a, b = system(noises, 1, 10 * noises + 1)
    one = sde(a, b)
    errors = errors_of(lambda h: st.exact.step_law(cls(one, h, "three-point"), POINT), a, b, 3)
    assert errors[:2].max() < ROUNDING and (errors[2] < ROUNDING) == (order == 2) and errors[3] > 1e-2
    assert order == 2 or errors[2] > 100 * ROUNDING


@pytest.mark.parametrize("law", ["normal", "three-point"])
@pytest.mark.parametrize("cls", [st.Platen, st.RI1])
def test_areas_that_share_a_motion_are_uncorrelated(cls, law):
    """dX = dW1, dY = X dW2, dZ = X dW3: E YZ = 0 and E Y^2 = h^2 / 2 after one step, where one sign per motion gives E YZ = h^2 / 4."""
    one = st.SDE(["0", "0", "0"], [["1", "0", "0"], ["0", "x", "0"], ["0", "0", "x"]], variables="x y z")

    def moments(scheme):
        points, weights = st.exact.step_law(scheme(one, 0.5, law), [0.0, 0.0, 0.0])
        return weights @ (points[1] * points[2]), weights @ points[1] ** 2

    np.testing.assert_allclose(moments(cls), [0.0, 0.125], atol=1e-15)
    np.testing.assert_allclose(moments(OneSignAMotion), [0.0625, 0.125], atol=1e-15)


@pytest.mark.parametrize("cls", [st.Platen, st.RI1])
def test_limits_of_optimisers_have_the_same_order(cls):
    """LimitSDE of x^2/2 + y^2 z/3 + z^4/4 with a root in which three noises do not commute: drift -grad L, columns -R."""
    x, y, z = Y
    root = [[SPACE(1), y / 4, SPACE(0)], [SPACE(0), 1 + x / 2, z / 4], [x / 3, SPACE(0), 1 + y / 2]]
    rows = [[str(entry.as_expr()) for entry in row] for row in root]
    loss = st.losses.from_expression("y0**2/2 + y1**2*y2/3 + y2**4/4", variables="y0 y1 y2")
    oracle = st.NoisyOracle(loss, st.noise.gaussian(root=rows, variables="y0 y1 y2"), sigma=10.0)
    one = st.LimitSDE(oracle, st.schedules.constant(0.01, beta=0.5))
    a, b = [-x, -2 * y * z / 3, -(y**2) / 3 - z**3], [[-root[i][k] for i in range(3)] for k in range(3)]
    errors = errors_of(lambda h: st.exact.step_law(cls(one, h, "three-point"), POINT), a, b, 3)
    assert one.noise_class == "general" and errors[:-1].max() < ROUNDING < 1e-2 < errors[-1]


@pytest.mark.parametrize("x", [0.0, 1e-4, 9.9e-3, 1.01e-2, 0.4, 3.0])
def test_the_joint_flow_agrees_with_sixty_digit_arithmetic(x):
    """Decay, reach and the Cholesky root of (G1, G2) = int (exp(-g w), (1 - exp(-g w)) / g) dW, by the limit of the moments at g = 0.

    Up to x = g t = 0.01 a series ends at x^4 of the last entry: the error is x^5 / 250 of 1/12, 5e-12. Beyond, the closed
    form has a rounding error of 1e-16 x^-3, which is 1e-10 at x = 0.01.
    """
    from mpmath import expm1, mp, mpf, sqrt

    from sdetools.dynamics.integrators.splittings import _joint_flow

    t, kappa = 0.3, 1.7
    with mp.workdps(60):
        time, g = mpf(t), mpf(x / t) if x else mpf("1e-20")

        def reach(s):
            return -expm1(-g * s) / g

        first, both = reach(2 * time) / 2, reach(time) ** 2 / 2
        second = (time - 2 * reach(time) + first) / g**2
        cross = both / sqrt(first)
        right = [1 - g * reach(time), reach(time) / (2 * time), kappa * sqrt(first), kappa * cross / (2 * time)]
        own = kappa * sqrt(second - cross**2) / (2 * time)
    found = _joint_flow(x / t, kappa, t)
    np.testing.assert_allclose(found[:4], np.array(right, dtype=float), rtol=1e-14)
    np.testing.assert_allclose(found[4], float(own), rtol=1e-9 if 0.01 < x < 0.1 else 1e-11)


def test_the_number_of_signs_is_the_number_of_pairs():
    def signs(noises, cls=st.RI1):
        return cls(sde(*system(noises, 1, 0)), 0.1).private_signs

    assert [signs(q) for q in (1, 2, 3, 4)] == [0, 1, 3, 6] and signs(4, st.Platen) == 6 and signs(4, st.EulerMaruyama) == 0


KINETIC_LOSS = "x**2/2 + x**3/5 - x**4/16"
ETA = 1 / 64


@pytest.mark.parametrize(
    ("cls", "root"), [(st.OBABO, "0.7"), (st.OBABO, "0.7 + x/4"), (st.BAOAB, "0.7"), (st.BAOAB, "0.7 + x/4"), (st.UBU, "0.7")]
)
def test_splittings_of_a_kinetic_equation(cls, root):
    """dX = -M dt, dM = 1.5 ((L' - M) dt + R dW), in the ring's y0, y1."""
    x, m = Y[0], Y[1]
    r = Fraction(7, 10) + (x / 4 if "x" in root else 0)
    slope = x + Fraction(3, 5) * x**2 - x**3 / 4
    a, b = [-m, Fraction(3, 2) * (slope - m), SPACE(0)], [[SPACE(0), Fraction(3, 2) * r, SPACE(0)]]
    noise = st.noise.gaussian(root=[[root]], variables="x")
    oracle = st.NoisyOracle(st.losses.from_expression(KINETIC_LOSS), noise, sigma=ETA**-0.5)
    one = st.KineticSDE(oracle, st.schedules.constant(ETA, beta=1 - 1.5 * ETA), momentum=POINT[1:2])

    def law(h):  # the third coordinate is constant
        points, weights = st.exact.step_law(cls(one, h), POINT[:1])
        return np.vstack([points, np.full(len(weights), POINT[2])]), weights

    errors = errors_of(law, a, b, 3)
    assert errors[:-1].max() < ROUNDING < 1e-2 < errors[-1]
