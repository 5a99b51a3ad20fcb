"""Every SDE of the library beside its rule: derived order = declared order, and the leading error is that of exact one-step laws and exact gaps.

Signs and clipping enter by their moments, which this file computes by quadrature; the expansions of their SDEs are made by SymPy.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
from scipy.integrate import quad
from scipy.stats import norm

import sdetools as st
from sdetools.dynamics.sdes.limits import OracleSDE
from sdetools.dynamics.sdes.sde import SDE
from sdetools.exact import generator_gap, modified_equation, step_generator

X = sp.Symbol("x", real=True)
S, C, POINT = sp.Rational(1, 2), sp.Rational(2, 5), sp.Rational(3, 10)
LOSS = st.losses.from_expression("x**2/2 + x**4/4", "x")
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=float(S))
PLAN = st.schedules.constant(0.1)
SQUARE = st.NoisyOracle(st.losses.from_expression("x**2/2", "x"), st.noise.gaussian(dim=1), sigma=float(S))
KINKED = {
    "sign": (st.SignSGD(ORACLE, PLAN), lambda order: st.SignSDE(ORACLE, PLAN, weak_order=order)),
    "clip": (st.ClippedSGD(SQUARE, PLAN, value=float(C)), lambda order: st.ClippedSDE(SQUARE, PLAN, float(C), weak_order=order)),
}
FORCE = {"sign": X + X**3, "clip": X}


def hamiltonian(alpha, power=-0.5, loss=LOSS):
    """Return SGDM with 1 - beta = eta^alpha on the clock of the frictionless limit, and this limit, as functions of eta."""

    def rule(eta):
        oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=1), sigma=0.5 * eta**power)
        return st.SGDM(oracle, st.schedules.scaled(eta, alpha=alpha), step_time=eta ** ((1 + alpha) / 2))

    return rule, lambda eta: st.HamiltonianSDE(rule(eta).oracle, rule(eta).plan)


def adaptive(momentum):
    """Return RMSProp or Adam in the scaling of Malladi et al., and its SDE, as functions of eta."""

    def rule(eta):
        oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=0.5 / eta)
        plan, own = st.schedules.constant(eta, beta=momentum * (1 - 2 * eta**2)), {"beta2": 1 - eta**2, "eps": 0.2 / eta}
        cls = st.Adam if momentum else st.RMSProp
        return cls(oracle, plan, lagged=True, bias_correction=False, step_time=eta**2, **own)

    def limit(eta):
        one = rule(eta)
        own = {"beta2": one.beta2, "eps": 0.2 / eta, "second_moment": 1.0}
        if momentum:
            return st.AdamSDE(one.oracle, one.plan, bias_correction=False, **own)
        return st.RMSPropSDE(one.oracle, st.schedules.constant(eta), **own)

    return rule, limit


HEAVY = st.schedules.constant(0.01, beta=0.985)
PAIRS = {
    "LimitSDE": (st.SGD(ORACLE, PLAN), st.LimitSDE(ORACLE, PLAN), -0.5, 1),
    "GradientFlow": (st.SGD(ORACLE, PLAN), st.GradientFlow(ORACLE, PLAN), 0.0, 1),
    "KineticSDE": (st.SGDM(ORACLE, HEAVY), st.KineticSDE(ORACLE, HEAVY), -0.5, 1),
    "HamiltonianSDE, alpha = 3/2": (*hamiltonian(1.5), 0.0, 1 / 5),
    "HamiltonianSDE, alpha = 2": (*hamiltonian(2.0), 0.0, 1 / 3),
    "HamiltonianSDE, alpha = 3": (*hamiltonian(3.0), 0.0, 1 / 2),
    "ModifiedSDE": (st.SGD(ORACLE, PLAN), st.ModifiedSDE(ORACLE, 0.1), 0.0, 2),
    "ModifiedMomentumSDE": (
        st.HeavyBall(ORACLE, gamma=1 / 64, beta=1 - 1.5 / 8, step_time=0.125),
        st.ModifiedMomentumSDE(ORACLE, 1 / 64, 1 - 1.5 / 8),
        0.0,
        2,
    ),
    "SignSDE, order 1": (KINKED["sign"][0], KINKED["sign"][1](1), 0.0, 1),
    "SignSDE, order 2": (KINKED["sign"][0], KINKED["sign"][1](2), 0.0, 2),
    "ClippedSDE, order 1": (KINKED["clip"][0], KINKED["clip"][1](1), 0.0, 1),
    "ClippedSDE, order 2": (KINKED["clip"][0], KINKED["clip"][1](2), 0.0, 2),
    "RMSPropSDE": (*adaptive(False), 0.0, 1),
    "AdamSDE": (*adaptive(True), 0.0, 1),
}
WITHOUT_A_STEP = {"SlowSDE", "AdaptiveSlowFlow"}


def test_the_table_has_every_equation_of_the_library():
    own = {name for name in dir(st) if isinstance(cls := getattr(st, name), type) and issubclass(cls, SDE) and cls is not SDE}
    assert own - {cls.__name__ for cls in (OracleSDE,)} == {name.partition(",")[0] for name in PAIRS} | WITHOUT_A_STEP


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", PAIRS)
def test_the_derived_order_is_the_declared_one(name):
    rule, sde, power, order = PAIRS[name]
    gap = generator_gap(rule, sde, max(1, math.ceil(order)), sigma_power=power)
    assert gap.weak_order == pytest.approx(order, abs=1e-12) and gap.leading and not gap.note
    assert getattr(sde, "weak_order", order) == order and getattr(sde, "order", order) == order


def response(kind):
    """Return E H(g) and Var H(g) of a noisy gradient as SymPy expressions in x."""
    density = lambda u: sp.exp(-u * u / 2) / sp.sqrt(2 * sp.pi)  # noqa: E731
    below = lambda u: (1 + sp.erf(u / sp.sqrt(2))) / 2  # noqa: E731
    if kind == "sign":
        e = sp.erf(FORCE[kind] / (sp.sqrt(2) * S))
        return e, 1 - e**2
    mu, s = FORCE[kind], S
    a, b = (-C - mu) / s, (C - mu) / s
    D = below(b) - below(a)
    m = mu * D + s * (density(a) - density(b)) + C * (1 - below(b) - below(a))
    square = (mu**2 + s**2) * D + 2 * mu * s * (density(a) - density(b)) + s**2 * (a * density(a) - b * density(b))
    return m, square + C**2 * (1 - D) - m**2


def moment(kind, k):
    """Return E H(g)^k at POINT by quadrature."""
    mu, s, c = float(FORCE[kind].subs(X, POINT)), float(S), float(C)
    if kind == "sign":
        return norm.cdf(mu / s) + (-1) ** k * norm.cdf(-mu / s)
    inside = quad(lambda g: g**k * norm.pdf((g - mu) / s) / s, -c, c, epsabs=1e-14, epsrel=1e-13)[0]
    return c**k * norm.sf((c - mu) / s) + (-c) ** k * norm.cdf((-c - mu) / s) + inside


@pytest.mark.sample(1)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", KINKED)
def test_the_leading_error_of_signs_and_clipping_is_that_of_one_step(kind, order):
    """E f(x - eta H) is a sum over moments of H; the SDE's expansion is exp(eta (A0 + eta A1)) f by SymPy, applied term by term."""
    rule, make = KINKED[kind]
    gap, (b, V) = generator_gap(rule, make(order), order), response(kind)
    first = -b * sp.diff(b, X) / 2 if order == 2 else 0

    def A0(f):
        return -b * sp.diff(f, X)

    def A1(f):
        return first * sp.diff(f, X) + V / 2 * sp.diff(f, X, 2)

    for f in (X, X**2, X**3):
        if order == 1:
            whole = A0(A0(f)) / 2 + A1(f)
        else:
            whole = A0(A0(A0(f))) / 6 + (A0(A1(f)) + A1(A0(f))) / 2
        sde = float(whole.evalf(30, subs={X: POINT}))
        slope = float(sp.diff(f, X, order + 1).subs(X, POINT)) / math.factorial(order + 1)
        step = slope * (-1) ** (order + 1) * moment(kind, order + 1)
        assert gap.local(str(f), [float(POINT)]) == pytest.approx(step - sde, abs=1e-11)
    assert abs(step - sde) > 1e-4


@pytest.mark.parametrize(("kind", "order"), [("sign", 1), ("sign", 2), ("clip", 1)])
def test_the_modified_equation_of_a_kinked_rule_is_that_of_the_library(kind, order):
    """The drift; at order 1 the noise, of order eta^(1/2), is not part of it."""
    rule, make = KINKED[kind]
    derived, own, x = modified_equation(rule, order), make(order), np.linspace(-0.7, 0.9, 6)[None]
    np.testing.assert_allclose(derived.drift(x), own.drift(x), rtol=1e-11, atol=1e-13)
    if order == 2:
        np.testing.assert_allclose(np.abs(derived.diffusion(x, [1.0])), np.abs(own.diffusion(x, [1.0])), rtol=1e-9)


def test_two_coordinates_are_independent():
    oracle = st.NoisyOracle(st.losses.quadratic([[1.0, 0.5], [0.5, 2.0]]), st.noise.gaussian(covariance=np.diag([0.25, 1.0])))
    for order in (1, 2):
        gap = generator_gap(st.SignSGD(oracle, PLAN), st.SignSDE(oracle, PLAN, weak_order=order))
        assert gap.weak_order == order and (order == 1) == (set(gap.leading) == {(1, 0), (0, 1)})


def test_wrong_equations_of_signs_are_named_by_their_leading_term():
    """A scale off by 2 % (order 0, a drift), half the correction (order 1, a drift), and a wrong variance (order 1, d_x^2)."""
    rule = KINKED["sign"][0]
    e, slope = "erf(sqrt(2)*(x + x**3))", "2*sqrt(2)*(1 + 3*x**2)*exp(-2*(x + x**3)**2)/sqrt(pi)"

    def against(drift, diffusion):
        return generator_gap(rule, st.SDE([drift], [[f"sqrt(eta*({diffusion}))"]], "x", parameters={"eta": 0.1}))

    right = against(f"-{e} - eta/2*{e}*{slope}", f"1 - {e}**2")
    assert right.weak_order == 2
    scale = against("-erf(1.02*sqrt(2)*(x + x**3))", f"1 - {e}**2")
    half = against(f"-{e} - eta/4*{e}*{slope}", f"1 - {e}**2")
    noise = against(f"-{e} - eta/2*{e}*{slope}", "1")
    assert (scale.weak_order, set(scale.leading)) == (0, {(1,)})
    assert (half.weak_order, set(half.leading)) == (1, {(1,)}) and (noise.weak_order, set(noise.leading)) == (1, {(2,)})
    assert half.local("x", [0.3]) == pytest.approx(generator_gap(rule, KINKED["sign"][1](1)).local("x", [0.3]) / 2, rel=1e-12)


def test_no_equation_of_order_three_describes_signs():
    """The third cumulant of a sign is 2 (e^3 - e); a step of -eta sign has the generator tau^2 (e - e^3)/3 d_x^3."""
    power, terms = step_generator(KINKED["sign"][0], 3).obstruction
    e = sp.erf(sp.sqrt(2) * FORCE["sign"])
    assert power == 2 and list(terms) == [(3,)] and sp.simplify(terms[3,] - (e - e**3) / 3) == 0
    with pytest.raises(ValueError, match=r"no SDE approximates SignSGD with weak order 3: .* d_x\^3"):
        modified_equation(KINKED["sign"][0], 3)


@pytest.mark.parametrize("power", [-0.5, 0.0])
def test_the_constant_of_the_frictionless_limit_is_that_of_its_exact_gap(power):
    """alpha = 3: friction and, at sigma = eta^(-1/2), noise of order tau^(1/2); the next term, of order tau, is extrapolated away."""
    rule, sde = hamiltonian(3.0, power, st.losses.quadratic(1.3))
    gap, found = generator_gap(rule, sde, 1), []
    text = {a: str(c) for a, c in gap.leading.items()}
    assert text == {(0, 1): "-m", (0, 2): "1/8"} if power else text == {(0, 1): "-m"}
    for eta in (2.0**-7, 2.0**-8):  # tau and tau / 4
        tau = eta**2
        n = round(2 / tau)
        moved = st.exact.moments(rule(eta), [1.2], n, record=[n])
        exact = st.exact.solution(sde(eta), [1.2], [n * tau])
        found.append(float((st.exact.expectation(moved, "x0**2") - st.exact.expectation(exact, "x0**2"))[0]) / tau**0.5)
    constant = gap.constant("x0**2", [1.2, 0.0], 2.0)
    assert 2 * found[1] - found[0] == pytest.approx(constant, abs=2e-3) and abs(constant) > 0.1


OTHER = st.NoisyOracle(LOSS, st.noise.centred_exponential(dim=1))
TWO = st.NoisyOracle(st.losses.quadratic([1.0, 2.0]), st.noise.gaussian(covariance=[[1.0, 0.5], [0.5, 1.0]]))


class SignAndGradient(st.Dynamics):
    """A step by the sign of a gradient and by the gradient itself."""

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        g = oracle(x)
        return (x - eta * (np.sign(g) + g),)


REFUSED = {
    "another law": (
        lambda: generator_gap(st.SignSGD(OTHER, PLAN), st.LimitSDE(OTHER, PLAN)),
        "centred-exponential noise jumps.*has a kink.*st.exact.sign_chain",
    ),
    "correlated": (lambda: generator_gap(st.SignSGD(TWO, PLAN), st.LimitSDE(TWO, PLAN)), "independent of all others"),
    "shared": (lambda: step_generator(SignAndGradient(ORACLE, PLAN)), "independent of all others"),
    "without noise": (
        lambda: step_generator(st.SignSGD(st.NoisyOracle(LOSS, st.noise.none(dim=1)), PLAN)),
        "function sign has a kink",
    ),
    "large noise": (lambda: generator_gap(*PAIRS["SignSDE, order 1"][:2], sigma_power=-0.5), "constant scale, sigma_power=0"),
    "by norm": (
        lambda: step_generator(st.ClippedSGD(TWO, PLAN, norm=1.0)),
        "clipped by its norm, must have normal noise of constant, equal",
    ),
    "slow": (
        lambda: generator_gap(
            st.SGD(ORACLE, PLAN), st.SlowSDE(st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(2)), PLAN)
        ),
        "a step of SGD must approach one of the equation.*st.SlowSDE describes the projection.*st.slow_study",
    ),
    "not a function": (lambda: generator_gap(*(make(0.1) for make in hamiltonian(2.0))), "functions of eta"),
    "heavy ball": (
        lambda: generator_gap(lambda eta: st.HeavyBall(ORACLE, gamma=eta, beta=1 - eta**2), hamiltonian(2.0)[1]),
        "must be compared with st.SGDM",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_expansion_is_refused_in_one_sentence(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        make()
