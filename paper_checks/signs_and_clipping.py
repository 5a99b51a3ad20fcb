r"""Sign descent and clipped SGD in one dimension beside their SDEs of orders 1 and 2, without paths.

L = lam x^2/2, noise of law F. Sign descent lives on x_0 + eta Z, a birth-death chain whose law is a vector of probabilities (`st.exact.sign_chain`). A
step of clipped SGD is an integral, a matrix on Chebyshev nodes (`st.exact.transfer_kernel`). The SDEs' expectations solve u_t = b u' + (a^2/2) u'' on the same
nodes, by a matrix exponential (`st.exact.semigroup`).
"""

from __future__ import annotations

import math

import numpy as np
from _estimates import extrapolated
from _filtered_signs import limit_of_ratio, median_of_filter, noise_of_filter, small_step_variance, variance_at_rest
from _plain import value_or_far
from scipy.stats import cauchy, expon, norm

import sdetools as st

LAM, S, START, T, C = 1.0, 0.5, 1.0, 2.0, 0.4
ETAS = tuple(0.2 / 2**k for k in range(9))
HALF, NODES = 3.0, 96
"""The interval (-HALF, HALF) of the nodes: drifts point inwards at its ends."""


def of_sde(sde, observe):
    """Return E observe(X_T) from START for an SDE of the library; far off where its drift does not point inwards, or is no function of x."""
    return value_or_far(lambda: st.exact.semigroup(sde, (-HALF, HALF), T, NODES).expectation(lambda x: observe(x[0]), [START]))


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


def stationary(eta, law, scale):
    """Return the points and the stationary probabilities of sign descent."""
    rest = st.exact.stationary_sign_law(st.SignSGD(oracle(scale), st.schedules.constant(eta)), law=law)
    return rest.points, rest.probability[0]


def equations(make, order):
    """Return a function of eta that makes the SDE of a weak order."""

    def at(eta):
        return make(oracle(), st.schedules.constant(eta), order)

    return at


def measure_step(run, make, expected, label=None, opposite=0.0):
    """Compare one step of a method of the library, in five coordinates, with its equation: expected(x, m, g, eta), m the buffer if there is one.

    With `opposite` the gradient is -opposite m up to 1 % in three of them: there a sign shows a change of either weight.
    """
    eta, (x, m, g) = 0.3, np.random.default_rng(4).standard_normal((3, 5))
    if opposite:
        g[2:] = -opposite * m[2:] * np.array([0.99, 1.01, 0.99])
    method = make(st.NoisyOracle(st.losses.quadratic(np.eye(5)), st.noise.gaussian(dim=5)), eta)
    new = method.rule((x, m)[: len(method.parts)], lambda point: g, *method.coefficient_values(1)[0])
    away = max(np.abs(a - b).max() for a, b in zip(new, expected(x, m, g, eta), strict=True))
    run.measure(f"{label or method.name}: one step beside its equation, largest distance", float(away), at_most=1e-14)


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


RULES = {
    "sign descent": (0.0, 0.0, lambda oracle, eta: st.SignSGD(oracle, st.schedules.constant(eta))),
    "Signum": (0.9, 0.9, lambda oracle, eta: st.Signum(oracle, st.schedules.constant(eta, 0.9))),
    "Lion": (0.9, 0.99, lambda oracle, eta: st.Lion(oracle, st.schedules.constant(eta, 0.9), beta2=0.99)),
    "Lion, .5 and .9": (0.5, 0.9, lambda oracle, eta: st.Lion(oracle, st.schedules.constant(eta, 0.5), beta2=0.9)),
}
"""Rules and their two weights."""


def at_rest(run, name, noise, eta, start, observe, horizon, stream=0):
    """Return the stationary mean of an observable from 2,048 paths of a rule of the library."""
    make = RULES[name][2]
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), noise, sigma=1.0)
    options = {key: value for key, value in run.options(stream=stream).items() if key != "paths"}
    return st.stationary(make(oracle, eta), [start], horizon, 2_048, [observe], **options).at()


@st.claim(
    "momentum-in-sign-descent-is-not-marginal",
    statement=r"Signum and Lion keep, as $\eta \to 0$, the variance $\eta D_0 s \rho\sqrt{\pi/2}/2\lambda$, $D_0 = 1 + \frac4\pi\sum_{j\ge1}\arcsin r_j$, with the "
    r"deviation $\rho$ and the correlations $r_j$ of their filtered noise. At equal drift Signum's is $D_0\rho^2$ times that of sign descent, which tends to "
    r"$\ln 2$ as $\beta \to 1$. Under skewed noise they rest where the median of the filtered noise says: elsewhere than sign descent.",
    source="derived",
)
def filtered_signs(run):
    """Compare the exact law of the chains of Signum and Lion with its limit for small eta, and simulations with both."""
    run.note(
        r"Variances over their limit are extrapolated from $\eta = .01, .005, .0025$: terms of order $\eta^3$ are left, and $2 \cdot 10^{-4}$ of the "
        r"quadrature. Points of rest are extrapolated from two $\eta$, which moves them by .001; at $2\eta$ by .002, as a term of order 1 does. "
        r"Detects a weight in another place and a wrong correlation."
    )
    after = lambda m, g, b: b * m + (1 - b) * g  # noqa: E731
    own = {  # the equations of one step
        "Signum": lambda x, m, g, eta: (x - eta * np.sign(after(m, g, 0.9)), after(m, g, 0.9)),
        "Lion": lambda x, m, g, eta: (x - eta * np.sign(after(m, g, 0.9)), after(m, g, 0.99)),
    }
    for name, expected in own.items():
        measure_step(run, RULES[name][2], expected, opposite=0.9 / 0.1)
    decayed = lambda oracle, eta: st.Lion(oracle, st.schedules.constant(eta, 0.9), beta2=0.99, weight_decay=0.5)  # noqa: E731
    smaller = lambda x, m, g, eta: ((1 - eta * 0.5) * x - eta * np.sign(after(m, g, 0.9)), after(m, g, 0.99))  # noqa: E731
    measure_step(run, decayed, smaller, "Lion with weight decay")
    for name in ("Signum", "Lion, .5 and .9"):
        b1, b2, _ = RULES[name]
        exact = lambda eta, b1=b1, b2=b2: variance_at_rest(eta, b1, b2) / small_step_variance(eta, b1, b2)  # noqa: E731
        found = limit_of_ratio(exact, (0.01, 0.005, 0.0025))
        run.measure(f"{name}: exact variance over its limit", found, 1.0, tolerance=0.001)
        signs, rho = math.sqrt(math.pi / 2) / 2, noise_of_filter(b1, b2)[0]
        with run.control(f"{name}: the variance of sign descent"):
            run.measure("exact variance over its limit", found * small_step_variance(1.0, b1, b2) / signs, 1.0, tolerance=0.001)
        with run.control(f"{name}: signs that are independent"):
            run.measure(
                "exact variance over its limit", found * small_step_variance(1.0, b1, b2) / (rho * signs), 1.0, tolerance=0.001
            )
        simulated = at_rest(
            run, name, st.noise.gaussian(dim=1), 0.01, 0.0, "x**2", run.scale(quick=200, standard=4_000, full=16_000)
        )
        run.measure(f"{name}: simulated variance, eta = .01", simulated, variance_at_rest(0.01, b1, b2), relative=0.01)
    matched = {beta: limit_of_ratio(lambda eta, beta=beta: at_matched_drift(eta, beta), (0.01, 0.005)) for beta in (0.9, 0.95)}
    power = (
        2**1.5
    )  # the sum in D_0 is an integral but for a term of relative order (1 - beta)^{3/2}, from the root of arcsin at 1
    run.measure(
        "variance of Signum over that of sign descent at equal drift, beta to 1",
        (power * matched[0.95] - matched[0.9]) / (power - 1),
        math.log(2),
        tolerance=0.001,
    )
    with run.control("ln 2 at beta = .9"):
        run.measure("variance of Signum over that of sign descent at equal drift", matched[0.9], math.log(2), tolerance=0.001)
    measure_points_of_rest(run)


def at_matched_drift(eta, beta):
    """Return the exact variance of Signum at eta rho over that of sign descent at eta: for small eta both have the drift -eta lam x sqrt(2/pi) / s."""
    x, p = stationary(eta, norm, 1.0)
    return variance_at_rest(eta * math.sqrt((1 - beta) / (1 + beta)), beta, beta) / (p @ x**2)


def measure_points_of_rest(run):
    """Compare the points of rest under exponential noise with the medians of the filtered noise."""
    skewed, longer = st.noise.centred_exponential(dim=1), run.scale(quick=1, standard=8, full=32)
    centred = expon(loc=-1.0)  # P(g < 0) = F(-lam x)
    chain = limit_of_ratio(lambda eta: float(np.dot(*stationary(eta, centred, 1.0))), (0.01, 0.005, 0.0025))
    run.measure("sign descent, exact: point of rest", chain, 1 - math.log(2), tolerance=1e-5)
    found = {}
    for i, (name, eta, horizon, tolerance) in enumerate(
        (("sign descent", 0.02, 200, 0.004), ("Signum", 0.02, 800, 0.0015), ("Lion", 0.002, 200, 0.0015))
    ):
        b1, b2, _ = RULES[name]
        expected = -median_of_filter(b1, b2) if b1 else 1 - math.log(2)
        coarse, fine = (
            at_rest(run, name, skewed, own, expected, "x", longer * horizon, stream=2 * i + j)
            for j, own in enumerate((eta, eta / 2))
        )
        found[name] = extrapolated(coarse, fine)
        run.measure(f"{name}: point of rest under exponential noise", found[name], expected, tolerance=tolerance)
    for name in ("Signum", "Lion"):
        with run.control(f"{name}: the point of rest of sign descent"):
            run.measure("point of rest", found[name], 1 - math.log(2), tolerance=0.0015)
    with run.control("Lion: the point of rest of Signum"):
        run.measure("point of rest", found["Lion"], -median_of_filter(0.9, 0.9), tolerance=0.0015)
