r"""Sign descent and clipped SGD in one dimension beside their SDEs of orders 1 and 2, without paths.

L = lam x^2/2, noise of law F. Sign descent lives on x_0 + eta Z, a birth-death chain whose law is a vector of probabilities (`st.exact.sign_chain`). A
step of clipped SGD is an integral, a matrix on Chebyshev nodes (`st.exact.transfer_kernel`). The SDEs' expectations solve u_t = b u' + (a^2/2) u'' on the same
nodes, by a matrix exponential (`st.exact.semigroup`).
"""

from __future__ import annotations

import math

import numpy as np
from _estimates import extrapolated, scaled
from scipy.optimize import brentq
from scipy.stats import cauchy, norm

import sdetools as st

LAM, S, START, T, C = 1.0, 0.5, 1.0, 2.0, 0.4
ETAS = tuple(0.2 / 2**k for k in range(9))
HALF, NODES = 3.0, 96
"""The interval (-HALF, HALF) of the nodes: drifts point inwards at its ends."""


def of_sde(sde, observe):
    """Return E observe(X_T) from START for an SDE of the library."""
    return st.exact.semigroup(sde, (-HALF, HALF), T, NODES).expectation(lambda x: observe(x[0]), [START])


def oracle(scale=S):
    """Return the noisy gradient of L."""
    return st.NoisyOracle(st.losses.quadratic(LAM), st.noise.gaussian(dim=1), sigma=scale)


def of_chain(eta, observe):
    """Return E observe(x_N) of sign descent after T / eta steps from START."""
    steps = round(T / eta)
    law = st.exact.sign_chain(st.SignSGD(oracle(), st.schedules.constant(eta)), [START], steps, record=[steps])
    return float(law.expectation(lambda x: observe(x[0]))[0])


def of_clipped(eta, observe):
    """Return E observe(x_N) of x' = x - eta clip(lam x + s z, -C, C) after T / eta steps from START."""
    rule = st.ClippedSGD(oracle(), st.schedules.constant(eta), value=C)
    kernel = st.exact.transfer_kernel(rule, (-HALF, HALF), NODES)
    return kernel.expectation(lambda x: observe(x[0]), [START], round(T / eta))


def equations(make, order):
    """Return a function of eta that makes the SDE of a weak order."""

    def at(eta):
        return make(oracle(), st.schedules.constant(eta), order)

    return at


def measure_step(run, make, expected):
    """Compare one step of a method of the library, in five coordinates, with its equation: expected(x, m, g, eta), m the buffer if there is one."""
    eta, (x, m, g) = 0.3, np.random.default_rng(4).standard_normal((3, 5))
    method = make(st.NoisyOracle(st.losses.quadratic(np.eye(5)), st.noise.gaussian(dim=5)), eta)
    new = method.rule((x, m)[: len(method.parts)], lambda point: g, *method.coefficient_values(1)[0])
    away = max(np.abs(a - b).max() for a, b in zip(new, expected(x, m, g, eta), strict=True))
    run.measure(f"{method.name}: one step beside its equation, largest distance", float(away), at_most=1e-14)


def measure_orders(run, rule, make):
    """Measure the gaps of a rule to its SDEs of orders 1 and 2, and their local orders at the smallest learning rates."""
    for word, observe in (("x^2", lambda x: x * x), ("cos 2x", lambda x: np.cos(2 * x))):
        exact = [rule(eta, observe) for eta in ETAS]
        found = {}
        for order in (1, 2):
            sde = equations(make, order)
            gaps = np.abs([of_sde(sde(eta), observe) - value for eta, value in zip(ETAS, exact, strict=True)])
            local = np.log2(gaps[:-1] / gaps[1:])
            found[order] = 2 * local[-1] - local[-2]  # local orders have an error of order eta
            run.measure(f"E {word}, SDE of order {order}: order of the gap", found[order], float(order), tolerance=0.02)
        with run.control(f"the SDE of order 1 as one of order 2, E {word}"):
            run.measure("order of the gap", found[1], 2.0, tolerance=0.02)


@st.claim(
    "sign-descent-and-its-sdes",
    statement=r"Sign descent $x' = x - \eta\,\mathrm{sign}(g)$ has weak order 1 to $dX = -e\,dt + \sqrt{\eta(1 - e^2)}\,dW$, "
    r"$e = \mathrm{erf}(L'/\sqrt2 s)$, and order 2 with the further drift $-\frac\eta2 e e'$. In stationarity $E[x(1 - 2F(-\lambda x))] = \eta/2$ for every "
    r"$\eta$ and every law $F$ of the noise, also without moments.",
    source="derived",
)
def signs(run):
    """Compare sign descent with its SDEs through the chain's exact law, and its stationary law with an identity."""
    run.note("Detects a wrong error function, variance, factor of eta, or correction of the drift.")
    measure_step(run, lambda o, eta: st.SignSGD(o, st.schedules.constant(eta)), lambda x, m, g, eta: (x - eta * np.sign(g),))
    measure_orders(run, of_chain, lambda oracle, plan, order: st.SignSDE(oracle, plan, weak_order=order))
    for name, law, scale in (("normal", norm, S), ("Cauchy", cauchy, 0.5)):
        for eta in (0.5, 0.05):
            rest = st.exact.stationary_sign_law(st.SignSGD(oracle(scale), st.schedules.constant(eta)), [0.3 * eta], law=law)
            x, (p,) = rest.points, rest.probability
            found = p @ (x * (1 - 2 * law.cdf(-LAM * x / scale)))
            run.measure(f"{name} noise, eta={eta}: E x (1 - 2F(-lam x))", found, eta / 2, tolerance=1e-8)
    rest = st.exact.stationary_sign_law(st.SignSGD(oracle(), st.schedules.constant(0.002)))
    x, (p,) = rest.points, rest.probability
    run.measure(
        "variance over eta s sqrt(pi/2) / (2 lam), eta = .002",
        p @ x**2 / (0.002 * S * math.sqrt(math.pi / 2) / (2 * LAM)),
        1.0,
        tolerance=0.01,
    )
    with run.control("the variance of plain SGD, eta s^2 / (2 lam)"):
        run.measure("variance over that of plain SGD", p @ x**2 / (0.002 * S**2 / (2 * LAM)), 1.0, tolerance=0.01)


@st.claim(
    "clipped-sgd-and-its-sdes",
    statement=r"Clipped SGD $x' = x - \eta\,\mathrm{clip}(g, -C, C)$ has weak order 1 to $dX = -m\,dt + \sqrt{\eta V}\,dW$ with the mean $m$ and the variance $V$ "
    r"of $\mathrm{clip}(g)$, and order 2 with the further drift $-\frac\eta2 m m'$.",
    source="derived",
)
def clipping(run):
    """Compare clipped SGD with its SDEs through its exact transfer operator."""
    run.note("Detects a wrong moment of a clipped normal variable, its derivative, and a wrong factor of eta.")
    measure_step(
        run,
        lambda o, eta: st.ClippedSGD(o, st.schedules.constant(eta), value=C),
        lambda x, m, g, eta: (x - eta * np.minimum(np.maximum(g, -C), C),),
    )
    measure_orders(run, of_clipped, lambda oracle, plan, order: st.ClippedSDE(oracle, plan, C, weak_order=order))
    plain = [of_sde(st.ModifiedSDE(oracle(), eta), lambda x: x * x) - of_clipped(eta, lambda x: x * x) for eta in ETAS[-2:]]
    with run.control("the drift without clipping"):
        run.measure("order of the gap", math.log2(abs(plain[0] / plain[1])), 1.0, tolerance=0.02)


def median_of_filtered(weights):
    """Return the median of sum_j w_j (E_j - 1), E_j ~ Exp(1) independent, from its characteristic function (Gil-Pelaez)."""
    t = (np.arange(400_000) + 0.5) * 1e-3 / np.abs(weights).max()
    phi = np.exp(-1j * t * weights.sum()) / np.prod([1 - 1j * t * w for w in weights if w > 1e-4 * weights.max()], axis=0)
    phi = phi * np.exp(
        1j * t * weights[weights <= 1e-4 * weights.max()].sum()
    )  # 1 - itw = exp(-itw) to first order for the smallest
    below = lambda y: 0.5 - (np.imag(np.exp(-1j * t * y) * phi) / t).sum() * (t[1] - t[0]) / math.pi  # noqa: E731
    return brentq(lambda y: below(y) - 0.5, -1.0, 0.5, xtol=1e-10)


def at_rest(run, make, noise, start, observe, paths, etas, stream=0):
    """Return the stationary mean of an observable for each learning rate."""
    ends = []
    for i, eta in enumerate(etas):
        oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), noise, sigma=1.0)
        method = make(oracle, eta)
        found = st.simulate(method, [start], 4.0, observe=[observe], times=[4.0], **run.options(paths=paths, stream=stream + i))
        ends.append(found.at(observe))
    return ends


@st.claim(
    "momentum-in-sign-descent-is-not-marginal",
    statement=r"Signum with $\beta = .9$ keeps, as $\eta \to 0$, the variance $\eta D_0 s \rho\sqrt{\pi/2}/2\lambda$, $\rho^2 = \frac{1-\beta}{1+\beta}$, "
    r"$D_0 = 1 + \frac4\pi\sum_{j\ge1}\arcsin\beta^j$, and under skewed noise it rests where the median of the filtered noise says: elsewhere than sign descent.",
    source="derived",
)
def signum(run):
    """Measure the stationary variance and the point of rest of Signum and of sign descent."""
    beta, etas, paths = 0.9, (0.02, 0.01), run.scale(quick=100_000, standard=1_000_000, full=4_000_000)
    run.note(
        r"Values at $\eta$ and $\eta/2$ are extrapolated: terms of order $\eta^2$ are left. Detects a weight $\beta$ in another place and a wrong correlation."
    )
    momentum = lambda oracle, eta: st.Signum(oracle, st.schedules.constant(eta, beta))  # noqa: E731
    plain = lambda oracle, eta: st.SignSGD(oracle, st.schedules.constant(eta))  # noqa: E731
    after = lambda m, g: beta * m + (1 - beta) * g  # noqa: E731
    measure_step(run, momentum, lambda x, m, g, eta: (x - eta * np.sign(after(m, g)), after(m, g)))
    rho = math.sqrt((1 - beta) / (1 + beta))
    D0 = 1 + 4 / math.pi * sum(math.asin(beta**j) for j in range(1, 400))
    squares = at_rest(run, momentum, st.noise.gaussian(dim=1), 0.0, "x**2", paths, etas)
    found = extrapolated(*(scaled(one, 1 / eta) for one, eta in zip(squares, etas, strict=True)))
    run.measure("Signum: variance over eta", found, D0 * rho * math.sqrt(math.pi / 2) / 2, relative=0.05)
    with run.control("the variance of sign descent"):
        run.measure("variance over eta", found, math.sqrt(math.pi / 2) / 2, relative=0.05)
    skewed = st.noise.centred_exponential(dim=1)
    weights = (1 - beta) * beta ** np.arange(400)
    rest = {"sign descent": (plain, 1 - math.log(2)), "Signum": (momentum, -median_of_filtered(weights))}
    for i, (name, (make, expected)) in enumerate(rest.items(), 1):
        found = extrapolated(*at_rest(run, make, skewed, expected, "x", paths, etas, stream=2 * i))
        run.measure(f"{name}: point of rest under exponential noise", found, expected, tolerance=0.01)
    with run.control("the point of rest of sign descent"):
        run.measure("Signum: point of rest", found, 1 - math.log(2), tolerance=0.01)
