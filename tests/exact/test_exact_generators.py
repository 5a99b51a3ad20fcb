"""Derived weak orders, leading error operators and modified equations, against declared orders, one-step laws and exact gaps.

The expansions of one step are compared with two independent computations: the law of a step at several step sizes (`exact.step_law`, or a
Gauss-Hermite rule), interpolated in the step size, and the generator of the SDE applied by SymPy in this file.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp

import sdetools as st
from sdetools.dynamics.catalogue import integrators, optimisers
from sdetools.exact import generator_gap, modified_equation, step_generator
from sdetools.exact.generators.differential_ring import DifferentialRing
from sdetools.exact.generators.draw_laws import law_moment
from sdetools.exact.generators.power_series import Series
from sdetools.noise import laws

X, Y = sp.symbols("x y", real=True)
POINT = [0.5, -0.75]
DRIFT = ["-x + x**2/4", "x/2 - 3*y/4 + 1/8"]
NOISE = {
    "general": [["x/2", "3/4 + y/4", "x*y/4"], ["1/4 - y/8", "x/2", "x/2"]],
    "commutative": [["x/2 + y/4", "x + y/2"], ["1/4 + x/8", "1/2 + x/4"]],  # parallel columns
    "diagonal": [["1/2 + x/4", "0"], ["0", "y/3 - 1/4"]],
    "scalar": [["x/2"], ["1/4 + x*y/8"]],
    "additive": [["1/2", "1/8"], ["1/4", "3/4"]],
}
MONOMIALS = [X, Y, X**2, X * Y, Y**2, X**3, X**2 * Y, X * Y**2]


def equation(kind, calculus="ito"):
    """Return the SDE with noise of a class."""
    return st.SDE(DRIFT, NOISE[kind], "x y", calculus=calculus)


def semigroup(kind, order, stratonovich=False):
    """Return the coefficient of h^order of E f(X_h) at POINT for each monomial f, by SymPy."""
    a = [sp.sympify(t, locals={"x": X, "y": Y}) for t in DRIFT]
    b = [[sp.sympify(t, locals={"x": X, "y": Y}) for t in row] for row in NOISE[kind]]
    both, q = (X, Y), len(b[0])
    if stratonovich:
        a = [a[i] + sum(b[j][k] * sp.diff(b[i][k], both[j]) for j in range(2) for k in range(q)) / 2 for i in range(2)]
    spread = [[sum(b[i][k] * b[j][k] for k in range(q)) for j in range(2)] for i in range(2)]
    out = []
    for f in MONOMIALS:
        for _ in range(order):
            second = sum(spread[i][j] * sp.diff(f, both[i], both[j]) for i in range(2) for j in range(2)) / 2
            f = sp.expand(a[0] * sp.diff(f, X) + a[1] * sp.diff(f, Y) + second)
        out.append(float(f.subs(dict(zip(both, map(sp.Rational, POINT)))) / math.factorial(order)))
    return np.array(out)


def step_coefficient(make, order, root=False):
    """Return the coefficient of h^order of E f(X_h) for each monomial, by interpolation of the law of a step.

    Args:
        make: The integrator as a function of h.
        order: The power of h.
        root: Whether E f has odd powers of the root of h as well.
    """
    degree, longest = (12, 1 / 4) if root else (8, 1 / 16)
    nodes = longest * (1 - np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))) / 2
    means = []
    for s in nodes:
        points, weights = st.exact.step_law(make(s * s if root else s), POINT)
        means.append([weights @ sp.lambdify((X, Y), f)(*points) for f in MONOMIALS])
    scaled = np.linalg.solve(np.vander(nodes / longest, degree + 1, increasing=True), np.array(means))
    power = 2 * order if root else order
    return scaled[power] / longest**power


def applied(gap):
    """Return Psi f at POINT for each monomial f."""
    return np.array([gap.local(str(f), POINT) for f in MONOMIALS])


CASES = [
    (cls, kind, law) for cls in integrators() if not cls.kinetic for kind in NOISE if kind in cls.classes for law in cls.laws
]


@pytest.mark.sample(2)
@pytest.mark.parametrize(("cls", "kind", "law"), CASES)
def test_every_integrator_has_its_declared_order_and_the_leading_error_of_its_step_law(cls, kind, law):
    """The coefficients of h^3 at most are of size one and good to 1e-15 * 16^3 times the growth of the interpolation, below 1e-8."""
    calculus = "stratonovich" if cls.calculus == "stratonovich" else "ito"
    sde = equation(kind, calculus)
    assert sde.noise_class == kind
    gap = generator_gap(cls(sde, 0.1, law), sde)
    assert gap.weak_order == cls.orders(kind)[0] and gap.leading
    order = int(gap.weak_order) + 1
    found = step_coefficient(lambda h: cls(sde, h, law), order, cls is st.Milstein) - semigroup(kind, order, calculus != "ito")
    np.testing.assert_allclose(applied(gap), found, atol=2e-6)
    assert np.abs(found).max() > 1e-3


class OneSignPerMotion(st.RI1):
    """RI1 with the classical mistake: one random sign for all pairs (k, l) with k < l."""

    def step(self, eq, y, h):
        eq.signs = [eq.signs[k] for j in range(eq.sde.noise_dim) for k in range(j)]
        return super().step(eq, y, h)


def test_one_sign_per_motion_is_named_by_its_leading_term():
    """For dX = dW1, dY = X dW2, dZ = X dW3 the shared sign gives E YZ = h^2 / 4 where the SDE has 0."""
    sde = st.SDE(["0", "0", "0"], [["1", "0", "0"], ["0", "x", "0"], ["0", "0", "x"]], "x y z")
    wrong, right = (generator_gap(cls(sde, 0.1), sde) for cls in (OneSignPerMotion, st.RI1))
    assert wrong.weak_order == 1 and {a: str(c) for a, c in wrong.leading.items()} == {(0, 1, 1): "1/4"}
    assert right.weak_order == 2


def kinetic(root, loss="x**2/2 + x**3/5 - x**4/16"):
    noise = st.noise.gaussian(root=[[root]], variables="x")
    oracle = st.NoisyOracle(st.losses.from_expression(loss), noise, sigma=8.0)
    return st.KineticSDE(oracle, st.schedules.constant(1 / 64, beta=1 - 1.5 / 64))


@pytest.mark.parametrize(
    ("cls", "root"),
    [(cls, root) for cls in integrators() if cls.kinetic for root in ("1", "1 + x/4") if root == "1" or "scalar" in cls.classes],
)
def test_splittings_have_their_declared_order(cls, root):
    sde = kinetic(root)
    gap = generator_gap(cls(sde, 0.1), sde)
    assert gap.weak_order == cls.weak_order and gap.names == ("x", "m") and gap.leading


@pytest.mark.parametrize("cls", [cls for cls in integrators() if cls.kinetic])
def test_the_constant_of_a_splitting_is_that_of_its_exact_error(cls):
    sde, horizon = kinetic("1", "x**2/2"), 1.0
    constant = generator_gap(cls(sde, 0.1), sde).constant("x**2", [1.0, 0.0], horizon)
    found = []
    for n in (16, 32):
        moved = st.exact.moments(cls(sde, horizon / n), [1.0], n, record=[n])
        exact = st.exact.expectation(st.exact.solution(sde, [1.0], [horizon]), "x**2")
        found.append(float((st.exact.expectation(moved, "x**2") - exact)[0]) * n**2)
    assert 2 * found[1] - found[0] == pytest.approx(constant, rel=0.02) and abs(constant) > 1e-3


# -- optimisers -----------------------------------------------------------------------------------------------------------------

LOSS = st.losses.from_expression("x**2/2 + x**4/4", "x")
ADDITIVE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1))
MULTIPLICATIVE = st.NoisyOracle(LOSS, st.noise.gaussian(root=[["1 + x**2/4"]], variables="x"))
SKEWED = st.NoisyOracle(LOSS, st.noise.centred_exponential(dim=1))
CURVED = st.NoisyOracle(
    st.losses.hyperbola(), st.noise.gaussian(root=[["1 + x/3", "1/4"], ["0", "y"]], variables="x y"), sigma=2.0
)
PLAIN, HEAVY = st.schedules.constant(0.01), st.schedules.constant(0.01, beta=0.985)


def heavy_ball(oracle, h=0.125, mu=1.5):
    return st.HeavyBall(oracle, gamma=h * h, beta=1 - mu * h, step_time=h)


PAIRS = {
    "SGD, modified, order 1": (st.SGD(CURVED, PLAIN), st.ModifiedSDE(CURVED, 0.01, order=1), 0.0, 1),
    "SGD, modified, order 2": (st.SGD(CURVED, PLAIN), st.ModifiedSDE(CURVED, 0.01, order=2), 0.0, 2),
    "SGD, gradient flow": (st.SGD(CURVED, PLAIN), st.GradientFlow(CURVED, PLAIN), 0.0, 1),
    "SGD, limit, sigma = eta^-1/2": (st.SGD(MULTIPLICATIVE, PLAIN), st.LimitSDE(MULTIPLICATIVE, PLAIN), -0.5, 1),
    "SGD, limit, skewed": (st.SGD(SKEWED, PLAIN), st.LimitSDE(SKEWED, PLAIN), -0.5, 0.5),
    "SGD, modified, skewed": (st.SGD(SKEWED, PLAIN), st.ModifiedSDE(SKEWED, 0.01), 0.0, 2),
    "SGDM, kinetic": (st.SGDM(MULTIPLICATIVE, HEAVY), st.KineticSDE(MULTIPLICATIVE, HEAVY), -0.5, 1),
    "SGDM, kinetic, constant sigma": (st.SGDM(ADDITIVE, HEAVY), st.KineticSDE(ADDITIVE, HEAVY), 0.0, 1),
    "heavy ball, order 1": (heavy_ball(ADDITIVE), st.ModifiedMomentumSDE(ADDITIVE, 1 / 64, 1 - 1.5 / 8, order=1), 0.0, 1),
    "heavy ball, order 2": (heavy_ball(ADDITIVE), st.ModifiedMomentumSDE(ADDITIVE, 1 / 64, 1 - 1.5 / 8, order=2), 0.0, 2),
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_optimiser_and_its_equation_have_the_order_of_the_theorem(name):
    rule, sde, power, order = PAIRS[name]
    gap = generator_gap(rule, sde, sigma_power=power)
    assert gap.weak_order == order and getattr(sde, "order", order) == order
    assert gap.leading and not gap.note


FILTERS = [e for e in optimisers() if e.gain and e.exact and e.name not in ("SGD", "STORM", "LocalSGD")]
"""The linear filters without STORM, whose first step differs, and LocalSGD, which has several draws a step."""


class TwoDraws(st.Dynamics):
    """The mean of two gradients on independent draws."""

    copies = 2

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        return (x - eta * (oracle.independent(0)(x) + oracle.independent(1)(x)) / 2,)


def test_several_draws_a_step_are_refused():
    """But for LocalSGD, which is compared by rounds."""
    oracle, plan = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1)), st.schedules.constant(0.01)
    with pytest.raises(ValueError, match="must have no draws besides those of one gradient; TwoDraws has"):
        generator_gap(TwoDraws(oracle, plan), st.LimitSDE(oracle, plan))
    with pytest.raises(ValueError, match="must have no draws besides those of one gradient; LocalSGD has"):
        step_generator(st.LocalSGD(oracle, plan, workers=2), 1)


def filter_pair(entry, eta, oracle):
    """Return a linear filter and the limit of its equivalent SGD."""
    arguments = {**entry.valid[0], **({"gamma": 0.2 * eta, "beta": 0.8} if entry.name == "HeavyBall" else {})}
    rule = entry.build(oracle, st.schedules.constant(eta, beta=0.5), arguments)
    return rule, st.LimitSDE(oracle, rule.averaged() if hasattr(rule, "averaged") else rule.plan.averaged())


@pytest.mark.sample(6)
@pytest.mark.parametrize("entry", FILTERS, ids=lambda e: e.name)
def test_linear_filters_have_order_one_against_the_limit_of_their_gain(entry):
    rule, sde = filter_pair(entry, 0.01, MULTIPLICATIVE)
    gap = generator_gap(rule, sde, sigma_power=-0.5)
    assert gap.weak_order == 1 and gap.gain == pytest.approx(
        getattr(rule, "gain", rule.step_time / rule.plan.etas(1)[0]), rel=1e-9
    )
    assert gap.leading and gap.terminal and "at the end of a run" in gap.table()
    faster = st.schedules.from_arrays(1.25 * rule.step_time, 0.0, base=rule.step_time)
    wrong = generator_gap(rule, st.LimitSDE(MULTIPLICATIVE, faster), sigma_power=-0.5)
    assert wrong.weak_order == 0 and set(wrong.leading) == {(1,), (2,)}


@pytest.mark.parametrize("power", [-0.5, 0.0])
@pytest.mark.parametrize("entry", FILTERS, ids=lambda e: e.name)
def test_the_constant_of_a_linear_filter_is_that_of_its_exact_gap(entry, power):
    """The extrapolated gap has an error of eta^2 = 1e-6 times a constant that grows with the memory, at most 20 steps here."""

    def pair(eta):
        return filter_pair(entry, eta, st.NoisyOracle(st.losses.quadratic(1.3), st.noise.gaussian(dim=1), sigma=0.5 * eta**power))

    constant, found = generator_gap(*pair(0.01), 1, sigma_power=power).constant("x0**2", [1.2], 2.0), []
    for eta in (2.0**-10, 2.0**-11):
        rule, sde = pair(eta)
        n = round(2 / rule.step_time)
        moved = st.exact.moments(rule, [1.2], n, record=[n])
        exact = st.exact.expectation(st.exact.solution(sde, [1.2], moved.times), "x0**2")
        found.append(float((st.exact.expectation(moved, "x0**2") - exact)[0]) / rule.step_time)
    # the last step ends within a step of t = 2, which changes the constant by a relative amount of order eta
    assert 2 * found[1] - found[0] == pytest.approx(constant, abs=2e-3)


@pytest.mark.parametrize("h", ["x", "exp(x)"])
def test_the_constant_on_a_loss_that_is_not_quadratic(h):
    """SGD and the gradient flow of x^2/2 + x^4/4, whose E h(x_k) is a quadrature: X^2 = c / (1 - c), c = x^2 / (1 + x^2) exp(-2t)."""
    flow, found = st.GradientFlow(ADDITIVE, PLAIN), []
    constant = generator_gap(st.SGD(ADDITIVE, PLAIN), flow, 1).constant(h, [1.2], 1.0)
    c = 1.44 / 2.44 * math.exp(-2.0)
    end = float(sp.lambdify(X, h)(math.sqrt(c / (1 - c))))
    for eta in (2.0**-7, 2.0**-8):
        law = st.exact.transfer(st.SGD(ADDITIVE, st.schedules.constant(eta)), [1.2], round(1 / eta), h, record=[round(1 / eta)])
        found.append((float(law[0]) - end) / eta)
    assert 2 * found[1] - found[0] == pytest.approx(constant, abs=2e-4) and abs(constant) > 0.01  # eta^2 = 6e-5 remains


@pytest.mark.parametrize("momentum", [False, True])
def test_the_constant_of_second_order_and_of_momentum_along_a_nonlinear_flow(momentum):
    """Without noise all is deterministic: iterates of two coordinates against ordinary differential equations."""
    from scipy.integrate import solve_ivp

    oracle = st.NoisyOracle(st.losses.from_expression("(x*y - 1)**2/2", "x y"), st.noise.none(2))
    x0, found = [1.5, 0.4], []

    def pair(eta):
        if momentum:
            plan = st.schedules.constant(eta, beta=0.5)
            return st.SGDM(oracle, plan), st.GradientFlow(oracle, plan)
        return st.SGD(oracle, st.schedules.constant(eta)), modified_equation(st.SGD(oracle, st.schedules.constant(eta)))

    gap = generator_gap(*pair(0.01))
    assert gap.weak_order == (1 if momentum else 2)
    for eta in (2.0**-8, 2.0**-9):
        rule, sde = pair(eta)
        x = st.simulate(rule, x0, 1.0, 1, ["x"], keep_final=True, backend="numpy").final[:2, 0]
        y = solve_ivp(lambda _, v: sde.drift(v), (0, 1), x0, rtol=1e-12, atol=1e-13).y[:, -1]
        found.append((x[0] * x[1] ** 2 - y[0] * y[1] ** 2) / eta**gap.weak_order)
    assert 2 * found[1] - found[0] == pytest.approx(gap.constant("x*y**2", x0, 1.0), rel=5e-3)


def test_momentum_changes_the_constant_and_not_the_limit():
    """In one mode E x is multiplied by the largest root of z^2 - (1 + beta - (1 - beta) eta lam) z + beta = 0, by hand."""
    oracle, lam, beta, t = st.NoisyOracle(st.losses.quadratic(1.3), st.noise.none(1)), 1.3, 0.8, 2.0
    plan = st.schedules.constant(0.01, beta=beta)
    gap = generator_gap(st.SGDM(oracle, plan), st.LimitSDE(oracle, plan), 1)
    eta, b, c = sp.Symbol("eta"), sp.Rational(4, 5), sp.Rational(13, 10)
    trace = 1 + b - (1 - b) * eta * c
    large = (trace + sp.sqrt(trace**2 - 4 * b)) / 2
    small = b / large
    weight = (1 - (1 - b) * eta * c - small) / (large - small)  # x_1 = (1 - (1 - beta) eta lam) x_0
    rate = float(sp.diff(sp.log(large), eta, 2).subs(eta, 0) / 2)
    start = float(sp.diff(weight, eta).subs(eta, 0))
    assert gap.constant("x0", [1.0], t) == pytest.approx((rate * t + start) * math.exp(-lam * t), rel=1e-9)


@pytest.mark.parametrize(("alpha", "size"), [(0.25, 0.6), (0.5, 0.8), (0.75, 0.9)])
@pytest.mark.parametrize("power", [-0.5, 0.0])
def test_the_order_is_one_minus_alpha_if_the_memory_grows(alpha, size, power):
    """1 - beta = size eta^alpha. The mean of one mode is x_0 (1 + lam d) exp(-lam t (1 + lam d)), d = eta / (1 - beta), up to higher powers."""

    def rule(eta):
        oracle = st.NoisyOracle(st.losses.quadratic(1.3), st.noise.gaussian(dim=1), sigma=0.5 * eta**power)
        return st.SGDM(oracle, st.schedules.constant(eta, beta=1 - size * eta**alpha))

    def limit(eta):
        return st.LimitSDE(rule(eta).oracle, st.schedules.constant(eta))

    gap = generator_gap(rule, limit, 1)
    assert gap.weak_order == 1 - alpha and gap.gain == pytest.approx(1)
    assert gap.constant("x0", [1.2], 2.0) == pytest.approx(1.2 * (1.3 - 1.69 * 2) / size * math.exp(-2.6), rel=1e-8)
    if alpha == 0.5:  # the next term is of relative order eta^(1/2), which 2 f(eta / 4) - f(eta) removes
        found = []
        for eta in (2.0**-16, 2.0**-18):
            n = round(2 / eta)
            moved = st.exact.moments(rule(eta), [1.2], n, record=[n])
            exact = st.exact.expectation(st.exact.solution(limit(eta), [1.2], [2.0]), "x0**2")
            found.append(float((st.exact.expectation(moved, "x0**2") - exact)[0]) / eta**0.5)
        assert 2 * found[1] - found[0] == pytest.approx(gap.constant("x0**2", [1.2], 2.0), rel=2e-4)


@pytest.mark.parametrize("power", [0.0, 0.25])
def test_the_time_of_an_sde_moves_by_the_step_whatever_the_root_of_the_expansion(power):
    """sigma = eta^(1/4) needs powers of eta^(1/4). The drift of the SDE is -x + eta t, which SGD lacks: its mean is x_0 e^-t + eta (t - 1 + e^-t)."""

    def rule(eta):
        return st.SGD(
            st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=eta**power), st.schedules.constant(eta)
        )

    def limit(eta):
        return st.SDE(["-x + c*t"], ["s"], variables="x", parameters={"c": eta, "s": eta ** (0.5 + power)})

    x0, t = 1.2, 2.0
    gap = generator_gap(rule, limit, 1)
    assert gap.weak_order == 1
    expected = -x0 * t * math.exp(-t) / 2 - (t - 1 + math.exp(-t))
    assert gap.constant("x", [x0, 0.0], t) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(
        ValueError, match=r"`x0` must have shape \(2,\), one number per coordinate; got shape \(1,\). The coordinates are x, t."
    ):
        gap.constant("x", [x0], t)


def test_a_family_of_filters_is_the_filter():
    """A function of eta gives the same as the rule at one eta, whose class tells the scaling."""

    def make(eta):
        oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=eta**-0.5 / 2)
        return st.SGDM(oracle, st.schedules.constant(eta, beta=0.5))

    family = generator_gap(make, lambda eta: st.LimitSDE(make(eta).oracle, make(eta).plan))
    single = generator_gap(make(0.01), st.LimitSDE(make(0.01).oracle, make(0.01).plan), sigma_power=-0.5)
    assert family.weak_order == single.weak_order == 1 and family.terminal.keys() == single.terminal.keys()
    assert all(sp.expand(family.leading[a] - c) == 0 for a, c in single.leading.items())


def test_skewed_noise_through_a_buffer_has_order_one_half_and_its_own_third_cumulant():
    """A filter of unit gain keeps the third cumulant of a long sum: the term in d_x^3 is that of SGD."""
    plan = st.schedules.constant(0.01, beta=0.5)
    heavy = generator_gap(st.SGDM(SKEWED, plan), st.LimitSDE(SKEWED, plan), sigma_power=-0.5)
    plain = generator_gap(st.SGD(SKEWED, PLAIN), st.LimitSDE(SKEWED, PLAIN), sigma_power=-0.5)
    assert heavy.weak_order == 0.5 and list(heavy.leading) == [(3,)] and not heavy.terminal
    assert sp.simplify(heavy.leading[3,] - plain.leading[3,]) == 0


def test_two_coordinates_and_two_buffers():
    """PNM has two buffers; on a diagonal quadratic its coordinates have the errors of one dimension."""
    both = st.NoisyOracle(st.losses.quadratic([1.3, 0.6]), st.noise.gaussian(dim=2), sigma=0.5)
    plan = st.schedules.constant(0.01, beta=0.5)
    rule = st.PNM(both, plan)
    gap = generator_gap(rule, st.LimitSDE(both, rule.averaged()), 1)
    for i, lam in enumerate((1.3, 0.6)):
        one = st.NoisyOracle(st.losses.quadratic(lam), st.noise.gaussian(dim=1), sigma=0.5)
        single = generator_gap(st.PNM(one, plan), st.LimitSDE(one, rule.averaged()), 1)
        assert gap.constant(f"x{i}**2", [1.2, 1.2], 2.0) == pytest.approx(single.constant("x0**2", [1.2], 2.0), rel=1e-10)


def one_step(eta, f, sigma=1.0):
    """Return E f(x - eta (x + x^3 + sigma (1 + x^2/4) z)) at x = 1/2 by a Gauss-Hermite rule."""
    z, w = np.polynomial.hermite_e.hermegauss(20)
    x = 0.5
    return (w / w.sum()) @ f(x - eta * (x + x**3 + sigma * (1 + x * x / 4) * z))


@pytest.mark.parametrize("order", [1, 2])
def test_the_leading_error_of_sgd_is_that_of_its_one_step_law(order):
    """E f of a step is a polynomial in eta, and the SDE's expansion is exp(eta (A0 + eta A1)) f by hand."""
    gap = generator_gap(st.SGD(MULTIPLICATIVE, PLAIN), st.ModifiedSDE(MULTIPLICATIVE, 0.01, order))
    force, spread, eta = X + X**3, (1 + X**2 / 4) ** 2, sp.Symbol("eta")
    drift = -force - (eta / 2 * force * sp.diff(force, X) if order == 2 else 0)

    def generator(f):
        return drift * sp.diff(f, X) + eta * spread / 2 * sp.diff(f, X, 2)

    for f in (X, X**2, X**3):
        now, total = f, f
        for k in range(1, order + 2):
            now = sp.expand(generator(now))
            total += eta**k / math.factorial(k) * now
        sde = sp.expand(total.subs(X, sp.Rational(1, 2))).coeff(eta, order + 1)
        nodes = 0.25 * (1 + np.cos(np.pi * (np.arange(8) + 0.5) / 8))
        fit = np.linalg.solve(np.vander(nodes, 8, increasing=True), [one_step(h, sp.lambdify(X, f)) for h in nodes])
        assert gap.local(str(f), [0.5]) == pytest.approx(fit[order + 1] - float(sde), abs=1e-9)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("momentum", [False, True])
def test_the_constant_is_that_of_the_exact_gap(order, momentum):
    """The relative error of gap / h^p at h is O(h); extrapolation from h and h / 2 leaves O(h^2)."""
    oracle, horizon = st.NoisyOracle(st.losses.quadratic(1.3), st.noise.gaussian(dim=1)), 2.0

    def pair(h):
        if not momentum:
            return st.SGD(oracle, st.schedules.constant(h)), st.ModifiedSDE(oracle, h, order)
        return heavy_ball(oracle, h), st.ModifiedMomentumSDE(oracle, h * h, 1 - 1.5 * h, order)

    constant = generator_gap(*pair(0.125)).constant("x0**2", [1.2, 0.0][: 1 + momentum], horizon)
    found = []
    for h in (2.0**-7, 2.0**-8):
        rule, sde = pair(h)
        moved = st.exact.moments(rule, [1.2], round(horizon / h), record=[round(horizon / h)])
        exact = st.exact.expectation(st.exact.solution(sde, [1.2], moved.times), "x0**2")
        found.append(float((st.exact.expectation(moved, "x0**2") - exact)[0]) / h**order)
    assert 2 * found[1] - found[0] == pytest.approx(constant, rel=2e-3) and abs(constant) > 0.02


def test_wrong_equations_are_named_by_their_leading_term():
    sgd = st.SGD(MULTIPLICATIVE, PLAIN)
    wrong_drift = st.SDE(["-x - x**3 + x/8"], [["sqrt(eta)*(1 + x**2/4)"]], "x", parameters={"eta": 0.01})
    gap = generator_gap(sgd, wrong_drift)
    assert gap.weak_order == 0 and {a: str(c) for a, c in gap.leading.items()} == {(1,): "-x/8"}
    without = st.SDE(["-x - x**3"], [["sqrt(eta)*(1 + x**2/4)"]], "x", parameters={"eta": 0.01})
    gap = generator_gap(sgd, without)  # -(eta/4) d|grad L|^2 = -(eta/2) (x + x^3) (1 + 3 x^2) is missing
    assert gap.weak_order == 1 and list(gap.leading) == [(1,)]
    assert sp.expand(gap.leading[1,] + (X + X**3) * (1 + 3 * X**2) / 2) == 0
    noise = st.SDE(["-x - x**3 - eta/2*(x + x**3)*(1 + 3*x**2)"], [["sqrt(eta)*(1 + x**2/8)"]], "x", parameters={"eta": 0.01})
    gap = generator_gap(sgd, noise)
    assert gap.weak_order == 1 and list(gap.leading) == [(2,)]
    whole = st.SDE(["-x - x**3 - eta/2*(x + x**3)*(1 + 3*x**2)"], [["sqrt(eta)*(1 + x**2/4)"]], "x", parameters={"eta": 0.01})
    assert generator_gap(sgd, whole).weak_order == 2


@pytest.mark.parametrize("oracle", [CURVED, MULTIPLICATIVE, SKEWED])
def test_the_modified_equation_of_sgd_is_that_of_li_tai_and_e(oracle):
    derived, own = modified_equation(st.SGD(oracle, PLAIN)), st.ModifiedSDE(oracle, 0.01)
    x = np.random.default_rng(1).uniform(0.3, 1.5, (oracle.dim, 5))
    np.testing.assert_allclose(derived.drift(x), own.drift(x), rtol=1e-12)
    units = np.eye(derived.noise_dim).tolist()
    np.testing.assert_allclose([derived.diffusion(x, u) for u in units], [own.diffusion(x, u) for u in units], rtol=1e-12)


def test_the_modified_equation_of_heavy_ball_is_that_of_li_tai_and_e():
    rule, own = heavy_ball(ADDITIVE), st.ModifiedMomentumSDE(ADDITIVE, 1 / 64, 1 - 1.5 / 8)
    derived = modified_equation(rule, kinetic=True)
    y = np.random.default_rng(1).uniform(0.3, 1.5, (2, 5))
    np.testing.assert_allclose(derived.drift(y), own.drift(y), rtol=1e-12)
    np.testing.assert_allclose(derived.diffusion(y, [1.0]), own.diffusion(y, [1.0]), rtol=1e-12)
    assert derived.parts == ("x", "m") and derived.dim == 1


@pytest.mark.parametrize(("order", "power"), [(1, 0.0), (2, 0.0), (3, 0.0), (1, -0.5), (2, -0.5)])
def test_the_modified_equation_has_the_order_for_which_it_is_derived(order, power):
    """Floats that are no fractions (a symmetric root of a matrix) are compared up to rounding."""
    oracles = (
        [ADDITIVE]
        if order == 3
        else [ADDITIVE, st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(covariance=[[1, 0.5], [0.5, 2]]))]
    )
    for oracle in oracles:
        rule = st.SGD(oracle, PLAIN)
        sde = modified_equation(rule, order, sigma_power=power)
        assert generator_gap(rule, sde, order, sigma_power=power).weak_order == order == sde.weak_order


def test_a_derived_equation_can_be_simulated_and_is_better_than_the_first_order():
    """Exact moments on a quadratic loss; a simulation agrees with them (a z-test at 4.5 sigma, a false alarm once in 150,000 runs)."""
    oracle = st.NoisyOracle(st.losses.quadratic(1.3), st.noise.gaussian(dim=1))
    rule = heavy_ball(oracle, 1 / 64)
    moved = st.exact.moments(rule, [1.2], 128, record=[128])
    errors = []
    for order in (1, 2):
        sde = modified_equation(rule, order, kinetic=True)
        errors.append(
            float(
                abs(st.exact.expectation(moved, "x0**2") - st.exact.expectation(st.exact.solution(sde, [1.2], [2.0]), "x0**2"))[0]
            )
        )
    assert errors[1] < errors[0] / 10  # h = 1/64 and h^2, each times a constant of order one
    run = st.simulate(st.EulerMaruyama(sde, 1 / 64), [1.2], 2.0, 20_000, ["x0"], times=[2.0], seed=3)
    exact = st.exact.moments(st.EulerMaruyama(sde, 1 / 64), [1.2], 128, record=[128])
    assert abs(run.at("x0").z(exact.mean[0, 0])) < 4.5 and abs(run.at("x0").z(exact.mean[0, 0] + 0.05)) > 10


class LaggedRMSProp(st.Dynamics):
    """x' = x - eta g / (sigma sqrt(u) + eps), u' = u + (1 - b2) ((g / sigma)^2 - u)."""

    parts, at_x0 = ("x", "u"), ("u",)
    coefficients = ("eta", "share", "eps", "scale")

    def __init__(self, oracle, eta):
        self.share, self.eps, self.scale = eta * eta, 0.2 / eta, oracle.sigma
        super().__init__(oracle, st.schedules.constant(eta), step_time=eta * eta)

    @staticmethod
    def rule(state, oracle, eta, share, eps, scale):
        x, u = state
        g = oracle(x)
        return x - eta * g / (scale * np.sqrt(u) + eps), u + share * ((g / scale) ** 2 - u)


def rmsprop(noise):
    loss = st.losses.from_expression("x**2/2", "x")
    return lambda eta: LaggedRMSProp(st.NoisyOracle(loss, noise, sigma=0.5 / eta), eta)


def rmsprop_sde(eta):
    return st.SDE(["-x/(sqrt(u)/2 + 1/5)", "1 - u"], [["-1/2/(sqrt(u)/2 + 1/5)"], ["0"]], "x u")


def test_rmsprop_in_the_scaling_of_malladi_has_no_equation_of_order_two():
    """The generator contains h^2 c2 sigma0^2 s^4 / P^2 d_x d_x d_u with P = sigma0 sqrt(u) + eps0, for Gaussian noise too."""
    assert generator_gap(rmsprop(st.noise.gaussian(dim=1)), rmsprop_sde, 1).weak_order == 1
    found = step_generator(rmsprop(st.noise.gaussian(dim=1)), 2)
    power, terms = found.obstruction
    U = sp.Symbol("u", positive=True)
    expected = sp.Rational(1, 4) / (sp.sqrt(U) / 2 + sp.Rational(1, 5)) ** 2
    assert power == 1 and list(terms) == [(2, 1)]
    assert sp.simplify(terms[2, 1].subs(sp.Symbol("u", real=True), U) - expected) == 0
    with pytest.raises(ValueError, match=r"no SDE approximates LaggedRMSProp with weak order 2: .* d_x\^2 d_u"):
        modified_equation(rmsprop(st.noise.gaussian(dim=1)), 2, eta=0.1)
    assert modified_equation(rmsprop(st.noise.gaussian(dim=1)), 1, eta=0.1).noise_dim == 1


def test_skewed_noise_in_the_scaling_of_malladi_has_order_one_half():
    """Lagged denominator: q = 0, so the terms are (h^1.5) E z^3 (-sigma0^3/(6 P^3) d_x^3 - sigma0 c2/P d_x d_u) with E z^3 = 2."""
    gap = generator_gap(rmsprop(st.noise.centred_exponential(dim=1)), rmsprop_sde, 1)
    P = sp.sqrt(sp.Symbol("u", real=True)) / 2 + sp.Rational(1, 5)
    assert gap.weak_order == 0.5 and set(gap.leading) == {(3, 0), (1, 1)}
    at = {sp.Symbol("u", real=True): sp.Rational(4)}
    assert float(gap.leading[1, 1].subs(at)) == pytest.approx(float((-1 / P).subs(at)), rel=1e-13)
    assert float(gap.leading[3, 0].subs(at)) == pytest.approx(float((-1 / (24 * P**3)).subs(at)), rel=1e-13)


@pytest.mark.sample(5)
@pytest.mark.parametrize("lagged", [True, False])
@pytest.mark.parametrize(("law", "order"), [(st.noise.gaussian, 1), (st.noise.centred_exponential, 0.5)])
@pytest.mark.parametrize("momentum", [True, False])
def test_the_adaptive_rules_of_the_library_have_the_orders_of_malladi(momentum, law, order, lagged):
    """u = v / sigma^2; the buffer of RMSProp without momentum is no coordinate. A drift of u off by 2 % has order 0."""

    def oracle(eta):
        return st.NoisyOracle(LOSS, law(1), sigma=0.5 / eta)

    def rule(eta):
        plan, own = st.schedules.constant(eta, beta=momentum * (1 - 2 * eta**2)), {"beta2": 1 - eta**2, "eps": 0.2 / eta}
        cls = st.Adam if momentum else st.RMSProp
        return cls(oracle(eta), plan, lagged=lagged, bias_correction=False, step_time=eta**2, **own)

    def limit(eta, decay=1.0):
        own = {"beta2": 1 - decay * eta**2, "eps": 0.2 / eta, "second_moment": 1.0}
        if momentum:
            return st.AdamSDE(oracle(eta), st.schedules.constant(eta, beta=1 - 2 * eta**2), bias_correction=False, **own)
        return st.RMSPropSDE(oracle(eta), st.schedules.constant(eta), **own)

    gap = generator_gap(rule, limit, 1)
    assert gap.weak_order == order and gap.names == (("x", "m", "u") if momentum else ("x", "u"))
    wrong = generator_gap(rule, lambda eta: limit(eta, 1.02), 1)
    assert wrong.weak_order == 0 and {a[-1] for a in wrong.leading} == {1}
    with pytest.raises(ValueError, match="functions of eta"):
        generator_gap(rule(0.1), limit(0.1))


def test_the_modified_equation_of_rmsprop_is_that_of_malladi():
    oracle = lambda eta: st.NoisyOracle(LOSS, st.noise.gaussian(1), sigma=0.5 / eta)  # noqa: E731

    def rule(eta):
        plan = st.schedules.constant(eta)
        return st.RMSProp(oracle(eta), plan, beta2=1 - eta**2, eps=0.2 / eta, lagged=True, step_time=eta**2, second_moment=50.0)

    derived = modified_equation(rule, 1, eta=0.1)
    own = st.RMSPropSDE(oracle(0.1), st.schedules.constant(0.1), beta2=0.99, eps=2.0, second_moment=50.0)
    y = np.random.default_rng(1).uniform(0.3, 1.5, (2, 5))
    np.testing.assert_allclose(derived.drift(y), own.drift(y), rtol=1e-12)
    np.testing.assert_allclose(derived.diffusion(y, [1.0]), own.diffusion(y, [1.0]), rtol=1e-12)
    np.testing.assert_allclose(derived.start(np.ones(1)), own.start(np.ones(1)), rtol=1e-12)
    assert generator_gap(rule, lambda eta: modified_equation(rule, 1, eta=eta), 1).weak_order == 1


def test_starts_of_a_derived_equation_are_those_of_the_rule():
    """The momentum of the equation is sqrt(gamma) m for the heavy-ball form, and a part at x0 starts there."""
    rule = st.HeavyBall(ADDITIVE, gamma=1 / 64, beta=0.8, step_time=0.125, momentum=[2.0])
    np.testing.assert_allclose(modified_equation(rule, kinetic=True).start(np.ones(1)), [[1.0], [0.25]])
    two = st.PrimalAveraging(ADDITIVE, PLAIN, c=0.5)
    with pytest.raises(ValueError, match="amount of order one"):
        modified_equation(two, 1, kinetic=True)


def test_multiplicative_noise_at_sigma_eta_to_the_minus_half_has_no_equation_of_order_two():
    with pytest.raises(ValueError, match=r"generator contains tau\^1 .* d_x\^3"):
        modified_equation(st.SGD(MULTIPLICATIVE, PLAIN), 2, sigma_power=-0.5)
    assert step_generator(st.SGD(ADDITIVE, PLAIN), 2, sigma_power=-0.5).obstruction is None


# -- what is refused --------------------------------------------------------------------------------------------------------------

DATA = st.losses.least_squares(np.random.default_rng(0).standard_normal((12, 2)).round(1), [1.0, -0.5] * 6)
REFUSED = {
    "kink": (lambda: generator_gap(st.SGD(st.NoisyOracle(st.losses.from_expression("abs(x)**3", "x"), st.noise.gaussian(dim=1)), PLAIN), st.GradientFlow(ADDITIVE, PLAIN)), "branch"),
    "rates": (lambda: generator_gap(st.SGD(ADDITIVE, st.schedules.from_arrays([0.1, 0.2], 0.0)), st.ModifiedSDE(ADDITIVE, 0.1)), "constant schedule"),
    "one function": (lambda: generator_gap(lambda eta: st.SGD(ADDITIVE, PLAIN), st.ModifiedSDE(ADDITIVE, 0.1)), "both be functions"),
    "not a filter": (lambda: generator_gap(st.SNGM(ADDITIVE, HEAVY), st.LimitSDE(ADDITIVE, PLAIN)), "linear filter"),
    "buffer as slow as the position": (lambda: generator_gap(lambda eta: st.SGDM(ADDITIVE, st.schedules.constant(eta, beta=1 - eta)), lambda eta: st.LimitSDE(ADDITIVE, st.schedules.constant(eta))), "tends to 0 with the step"),
    "buffer that does not start at 0": (lambda: generator_gap(st.SGDM(ADDITIVE, HEAVY, momentum=[1.0]), st.LimitSDE(ADDITIVE, HEAVY)), "start at 0"),
    "coordinates": (lambda: generator_gap(st.SGD(ADDITIVE, PLAIN), st.LimitSDE(CURVED, PLAIN)), "1 coordinates"),
    "no SDE": (lambda: generator_gap(st.SGD(ADDITIVE, PLAIN), "x"), "an SDE"),
    "order": (lambda: generator_gap(st.SGD(ADDITIVE, PLAIN), st.ModifiedSDE(ADDITIVE, 0.1), 5), "at most 4"),
    "third of sigma": (lambda: generator_gap(st.SGD(ADDITIVE, PLAIN), st.LimitSDE(ADDITIVE, PLAIN), sigma_power=-1 / 3), "multiple of 1/2"),
    "buffer": (lambda: modified_equation(st.SGDM(ADDITIVE, HEAVY)), "kinetic=True"),
    "integrator": (lambda: modified_equation(st.EulerMaruyama(equation("scalar"), 0.1)), "optimiser"),
    "eta": (lambda: modified_equation(rmsprop(st.noise.gaussian(dim=1)), 1), "`eta` must be given"),
    "two etas": (lambda: modified_equation(st.SGD(ADDITIVE, PLAIN), eta=0.1), "`eta` must be left out"),
    "hamiltonian": (lambda: generator_gap(st.SGDM(ADDITIVE, HEAVY), st.HamiltonianSDE(ADDITIVE, st.schedules.scaled(0.01, alpha=1.5))), "HamiltonianSDE"),
    "moments": (lambda: generator_gap(st.SGD(st.NoisyOracle(LOSS, st.noise.student_t(1, degrees=3)), PLAIN), st.LimitSDE(st.NoisyOracle(LOSS, st.noise.student_t(1, degrees=3)), PLAIN), sigma_power=-0.5), "Student"),
    "kink of a loss": (lambda: step_generator(st.SGD(st.NoisyOracle(st.losses.from_function(value=lambda x: np.maximum(x[0], 0.0) ** 3, dim=1), st.noise.gaussian(dim=1)), PLAIN)), "kink|branch"),
    "extra draws": (lambda: step_generator(st.RandomScaling(ADDITIVE, HEAVY), kinetic=True), "draws besides"),
    "compiled": (lambda: generator_gap(st.SGD(st.NoisyOracle(st.losses.from_function(lambda x: [float(x[0])], dim=1), st.noise.gaussian(dim=1)), PLAIN), st.LimitSDE(ADDITIVE, PLAIN)), "formula"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_expansion_is_refused_in_one_sentence(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        make()


def test_noise_that_samples_data_counts_up_to_its_covariance():
    oracle = st.NoisyOracle(DATA, st.noise.minibatch(DATA, size=2))
    gap = generator_gap(st.SGD(oracle, PLAIN), st.ModifiedSDE(oracle, 0.01, order=1), 1)
    assert gap.weak_order == 1 and set(gap.leading) == {(1, 0), (0, 1)}
    with pytest.raises(ValueError, match="moments of the noise beyond the second"):
        generator_gap(st.SGD(oracle, PLAIN), st.LimitSDE(oracle, PLAIN), 1, sigma_power=-0.5)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "noise",
    [
        st.noise.two_point(2, 0.2, root=[[1.0, 0.5], [0.25, 2.0]]),
        st.noise.student_t(2, 9.0, covariance=[[1.0, 0.5], [0.5, 2.0]]),
        st.noise.label_noise(DATA, std=0.5),
        st.noise.minibatch(DATA, size=2),
        st.noise.from_function(
            lambda x, z: [x[0] * z[0] * z[1], z[2]], 2, st.noise.Sign(3), lambda x: [[x[0] * x[0], 0.0], [0.0, 1.0]]
        ),
    ],
    ids=lambda noise: noise.label,
)
def test_every_noise_enters_the_modified_equation_by_its_covariance(noise):
    loss = DATA if noise.loss is not None else st.losses.quadratic([1.3, 0.6])
    oracle = st.NoisyOracle(loss, noise, sigma=1.5)
    for one in (oracle, st.noise.svag(oracle, 3)) if noise.loss is None else (oracle,):
        sde = modified_equation(st.SGD(one, PLAIN))
        x = np.array([0.7, -0.4])
        b = np.stack([sde.diffusion(x, unit) for unit in np.eye(sde.noise_dim).tolist()], axis=1)
        np.testing.assert_allclose(b @ b.T, 0.01 * one.sigma**2 * noise.covariance(x), rtol=1e-9, atol=1e-12)


# -- the parts --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arctan", "sqrt", "log1p", "expm1"])
def test_functions_of_a_series_agree_with_numpy(name):
    """The first omitted power is r^9 at r = 1/256: 2e-22 times a coefficient of at most (14/3)^9 / 9 = 1e5 (log) or 6e8 (tan)."""
    home = DifferentialRing([X], 0, largest=8)
    r = Series(home, {1: home.one})
    out = getattr(np, name)(home_x := Series(home, {0: home.x[0]}) + r * 2 - r * r * home_of(home))
    assert home_x.terms
    at = sum(float(home.expression(c).subs(X, sp.Rational(3, 7))) * 256.0**-j for j, c in out.terms.items())
    u = 3 / 7 + 2 / 256 - 3 / 7 / 256**2
    assert at == pytest.approx(float(getattr(np, name)(u)), rel=1e-12)
    slope = home.expression(home.derivative(out.terms[2], 0))
    assert sp.simplify(slope - sp.diff(home.expression(out.terms[2]), X)) == 0


def home_of(home):
    """Return x as a series."""
    return Series(home, {0: home.x[0]})


def test_quotients_lose_precision_and_say_so():
    home = DifferentialRing([X], 0, largest=6)
    r, x = Series(home, {1: home.one}), home_of(home)
    quotient = (r * r * x + r * r * r) / (r * r)
    assert quotient.terms == {0: home.x[0], 1: home.one} and quotient.precision == 5
    with pytest.raises(ValueError, match="divide by 0"):
        1 / (x - x)
    with pytest.raises(ValueError, match="root of its time"):
        np.sqrt(r)


def test_roots_and_reciprocals_that_cancel_vanish():
    home = DifferentialRing([X], 0)
    x = home_of(home)
    difference = np.sqrt(x) * np.sqrt(x) * (1 / x) - 1
    assert home.vanishes(difference.terms[0]) and not home.vanishes((np.sqrt(x) - x).terms[0])


@pytest.mark.parametrize(
    "law", [laws.NORMAL, laws.SIGN, laws.UNIFORM, laws.THREE_POINT, laws.CENTRED_EXPONENTIAL, "two_point", "student_t"]
)
def test_moments_of_the_laws_agree_with_quadrature(law):
    if isinstance(law, str):
        law = (st.noise.two_point(1, probability=0.2) if law == "two_point" else st.noise.student_t(1, degrees=9.5)).law
    if law.draw is st.noise.Normal:
        z, w = np.polynomial.hermite_e.hermegauss(30)
    elif law.draw is st.noise.Sign:
        z, w = np.array([-1.0, 1.0]), np.ones(2)
    else:  # the substitution u = s^3 (10 - 15 s + 6 s^2) smooths the singularity at 0; exact to 1e-7 also at jumps
        s = (np.arange(600_000) + 0.5) / 600_000
        z, w = s**3 * (10 - 15 * s + 6 * s * s), 30 * (s * (1 - s)) ** 2
    if law.per_entry == 2:
        b = (np.arange(64) + 0.5) / 64
        rows = [np.repeat(z[::50], 64), np.tile(b, len(z[::50]))]
        w = np.repeat(w[::50], 64)
    else:
        rows = [z]
    u = law.entry(rows, law.numbers)
    for k in (1, 2, 3, 4):
        found = (w * u**k).sum() / w.sum()
        assert float(law_moment(law.name, law.numbers, k)) == pytest.approx(found, abs=2e-4)


def test_tables_and_data():
    gap = generator_gap(st.SGD(SKEWED, PLAIN), st.LimitSDE(SKEWED, PLAIN), sigma_power=-0.5)
    assert gap.table().splitlines()[0] == "weak order 0.5, leading error tau^1.5 times"
    assert (
        gap.data.sizes == {"term": 1, "coordinate": 1} and gap.data["index"].item() == 3 and gap.data.attrs["weak_order"] == 0.5
    )
    assert r"\partial_{x}^{3}" in gap.latex and "weak order 0.5" in repr(gap) and gap.power == 1.5
    derived = modified_equation(st.SGD(ADDITIVE, PLAIN))
    assert r"\sqrt{\eta}" in derived.latex and "weak order 2" in derived.table()
    with pytest.raises(ValueError, match="the weak order is above 2"):
        generator_gap(st.SGD(ADDITIVE, PLAIN), modified_equation(st.SGD(ADDITIVE, PLAIN), 3)).local("x", [1.0])
    with pytest.raises(ValueError, match="linear"):
        gap.constant("x**2", [1.0], 1.0)
