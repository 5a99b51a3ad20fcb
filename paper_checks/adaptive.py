r"""RMSProp and Adam beside their SDEs, what momentum is worth in Adam, and where skewed noise changes the order.

The problem is L = x^2/2 with noise of variance 1 in the scaling sigma = .5 / eta, eps = .2 / eta, 1 - beta2 = h, v_0 = 2.5 sigma^2, x_0 = 1, T = 2, where a
step takes the time h = eta^2. In the limit u = v / sigma^2 is a number that moves by itself, u' = 1 - u, so that the SDEs' means are linear ODEs, which `st.exact.AdaptiveProblem`
solves apart from the SDEs' classes.
"""

from __future__ import annotations

import math

import numpy as np
from _estimates import combined, extrapolated, order, scaled, shifted

import sdetools as st

LAM, SIGMA0, EPS0, C2, START, U0, T = 1.0, 0.5, 0.2, 1.0, 1.0, 2.5, 2.0


PROBLEM = st.exact.AdaptiveProblem(lam=LAM, sigma0=SIGMA0, eps0=EPS0, c2=C2, x0=START, u0=U0)
MEAN = float(PROBLEM.rmsprop([T])[0][0])
"""E x_T of the SDE of RMSProp."""
A, B = PROBLEM.momentum_terms(T)
"""The law of momentum's part in Adam: its mean less RMSProp's is kappa A + h beta1 B, kappa = h beta1 / (1 - beta1), beyond terms of order h^2."""


def rule(cls, h, beta=0.0, noise=None, lagged=True, **more):
    """Return RMSProp or Adam on the problem, with a step that takes the time h."""
    eta = math.sqrt(h)
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), noise or st.noise.gaussian(dim=1), sigma=SIGMA0 / eta)
    return cls(
        oracle,
        st.schedules.constant(eta, beta),
        beta2=1 - C2 * h,
        eps=EPS0 / eta,
        second_moment=U0 * (SIGMA0 / eta) ** 2,
        lagged=lagged,
        bias_correction=False,
        step_time=h,
        **more,
    )


def simulated(run, dynamics, paths, stream=0):
    """Return E x_T."""
    return st.simulate(dynamics, [START], T, observe=["x"], times=[T], **run.options(paths=paths, stream=stream)).at("x")


@st.claim(
    "rmsprop-and-adam-to-their-sdes",
    statement=r"In the scaling $\sigma = \sigma_0/\eta$, $1 - \beta_i = c_i\eta^2$, $\epsilon = \epsilon_0/\eta$ RMSProp and Adam, with the lagged "
    r"denominator, have weak order 1 in $h = \eta^2$ to their SDEs for noise of low skewness. The theorem is recalled from the paper.",
    source="S. Malladi, K. Lyu, A. Panigrahi, S. Arora (2022)",
)
def to_their_sdes(run):
    """Compare the means of the SDEs of the library with ODEs, and measure the order of the gap in h."""
    paths, steps = run.scale(quick=6_000_000, standard=10_000_000, full=40_000_000), (0.2, 0.1)
    run.note(
        r"The distance of a local order from 1 is of order $h$; $.2$ is allowed at $h = .1$. Detects a wrong denominator, bias correction or noise."
    )
    cases = {
        "RMSProp": (lambda h: rule(st.RMSProp, h), MEAN, lambda one: st.RMSPropSDE(one.oracle, one.plan, **settings(one))),
        "Adam": (
            lambda h: rule(st.Adam, h, beta=1 - 2 * h, momentum=[0.5]),
            float(PROBLEM.adam([T], 2.0, 0.5)[0][0]),
            lambda one: st.AdamSDE(one.oracle, one.plan, **settings(one), bias_correction=False, momentum=[0.5]),
        ),
    }
    for name, (make, mean, equation) in cases.items():
        run.measure(
            f"{name}: one step beside its equations, largest relative distance", away_from_equations(make(0.01)), at_most=1e-13
        )
        sde = equation(make(0.01))
        state = np.concatenate(sde.start(np.array([START])))
        noise = SIGMA0 / PROBLEM.denominator(0.0) if name == "RMSProp" else 2.0 * SIGMA0  # of x, or of the momentum, c1 sigma0
        found = abs(sde.diffusion(state, [1.0], s=tuple(sde.signal_values(np.zeros(1), 0.0, 0.01)[0]))[int(name == "Adam")])
        run.measure(f"{name}: noise of the SDE of the library at t = 0", found, noise, relative=1e-12)
        # the means are linear in x and u is a number, so that Euler's scheme is a recursion: without paths, extrapolated
        run.measure(f"{name}: E x of the SDE of the library", euler_mean(sde), mean, tolerance=1e-5)
        gaps = [shifted(simulated(run, make(h), paths), mean) for h in steps]
        found = order(*gaps)
        run.measure(f"{name}: order of the gap of E x between h = .2 and .1", found, 1.0, tolerance=0.2)
        with run.control(f"{name}: order 1/2, that of skewed noise"):
            run.measure("order of the gap", found, 0.5, tolerance=0.2)
    one = rule(st.Adam, 0.01, beta=1 - 2 * 0.01)
    corrected = st.AdamSDE(one.oracle, one.plan, **settings(one))
    run.measure(
        "Adam with bias corrections: Euler's scheme beside loops",
        ends_of(corrected, 1_000),
        plain_euler(0.01, 1_000),
        relative=1e-9,
    )
    with run.control("without bias corrections"):
        run.measure(
            "Euler's scheme beside loops",
            ends_of(st.AdamSDE(one.oracle, one.plan, **settings(one), bias_correction=False), 1_000),
            plain_euler(0.01, 1_000),
            relative=0.01,
        )


def away_from_equations(one):
    """Return the largest relative distance of a step with the lagged denominator from its equations, at a random state."""
    eta, (x, m, g), v = one.plan.eta, np.random.default_rng(5).standard_normal((3, 1)), np.array([30.0])
    beta = float(one.plan.betas(1)[0])
    new = one.rule((x, m, v), lambda point: g, *one.coefficient_values(1)[0])
    size = np.sqrt(v) + EPS0 / eta
    m1 = beta * m + (1 - beta) * g if isinstance(one, st.Adam) else beta * m + g / size
    expected = x - eta * (m1 / size if isinstance(one, st.Adam) else m1), m1, one.beta2 * v + (1 - one.beta2) * g**2
    return max(float(np.abs(a / b - 1).max()) for a, b in zip(new, expected, strict=True))


def settings(one):
    """Return beta2, eps and the initial second moment of a rule."""
    return {"beta2": one.beta2, "eps": one.eps, "second_moment": one.second_moment}


def ends_of(sde, steps):
    """Return x_T by Euler's scheme for the drift alone."""
    dt = T / steps
    y = np.concatenate(sde.start(np.array([START])))
    for s in sde.signal_values(dt * np.arange(steps), 0.0, dt):
        y = y + dt * sde.drift(y, s=tuple(s))
    return float(y[0])


def euler_mean(sde):
    """Return E x_T by Euler's scheme for the drift alone, with steps of T/4,000 and T/8,000, extrapolated."""
    return 2 * ends_of(sde, 8_000) - ends_of(sde, 4_000)


def plain_euler(h, steps):
    """Return x_T of Adam's equations with c1 = 2 and bias corrections by Euler's scheme, in plain loops, where the optimiser's steps take the time h."""
    dt, x, m, v = T / steps, START, 0.0, U0
    for i in range(steps):
        k = math.floor(i * dt / h + 1e-9)
        first, second = 1 - (1 - 2 * h) ** (k + 1), 1 - (1 - C2 * h) ** (k + 1)
        moved = -math.sqrt(second) / first * m / (SIGMA0 * math.sqrt(v) + EPS0 * math.sqrt(second))
        x, m, v = x + dt * moved, m + dt * 2 * (LAM * x - m), v + dt * C2 * (1 - v)
    return x


@st.claim(
    "momentum-in-adam-is-marginal",
    statement=r"For a fixed $\beta_1$ Adam is RMSProp at the same $\eta$ up to $O(h)$, $h = \eta^2$: $y = x - \kappa P^{-1} m$, "
    r"$\kappa = h\beta_1/(1-\beta_1)$, takes RMSProp's steps up to $\kappa\,(P_{k+1}^{-1} - P_k^{-1})\,m_{k+1}$, exactly; on a quadratic "
    r"the means differ by $\kappa A + h\beta_1 B$ to first order. Where $1 - \beta_1 = 2h$ the difference stays.",
    source="derived; a new proposition whose proof is sketched",
)
def marginal(run):
    """Check the identity along one path, and measure the difference of the means on shared draws beside its law."""
    beta, h = 0.9, 0.05
    adam = rule(st.Adam, h, beta)
    rng, eta = np.random.default_rng(run.seed), math.sqrt(h)
    coefficients, state = (
        adam.coefficient_values(200),
        tuple(np.asarray(part, dtype=float) for part in adam.start(np.array([START]))),
    )
    sigma, kappa, worst = SIGMA0 / eta, h * beta / (1 - beta), 0.0
    denominator = lambda v: eta * (np.sqrt(v) + EPS0 / eta)  # noqa: E731
    for row in coefficients:
        g = LAM * state[0] + sigma * rng.standard_normal(1)
        new = adam.rule(state, lambda x, g=g: g, *row)
        (x, m, v), (x1, m1, v1) = state, new
        before, after = x - kappa * m / denominator(v), x1 - kappa * m1 / denominator(v1)
        moved = before - h * g / denominator(v) - kappa * (1 / denominator(v1) - 1 / denominator(v)) * m1
        worst, state = max(worst, float(np.abs(after - moved)[0])), new
    run.measure("identity along one path, largest distance", worst, at_most=1e-13)
    run.note(
        rf"$A = {A:.5f}$, $B = {B:.5f}$ by quadrature. Measured over law has a next term of order $h$, which is extrapolated; what is left is of order $h^2$."
    )
    paths = run.scale(quick=2_000_000, standard=20_000_000, full=40_000_000)
    steps, tolerance, ratios = (0.05, 0.025), run.scale(quick=0.2, standard=0.06, full=0.05), []
    for step in steps:
        gap = difference(run, {"beta": 0.5, "h": step}, paths)
        ratios.append(scaled(gap, 1 / (step * A + step * 0.5 * B)))
    run.table("measured over law", [{"h": step, "ratio": r.value, "stderr": r.stderr} for step, r in zip(steps, ratios)])
    found = extrapolated(*ratios)
    run.measure("difference of the means over its law, extrapolated in h", found, 1.0, tolerance)
    with run.control("the law without B"):
        run.measure("difference of the means over its law", scaled(found, (A + B / 2) / A), 1.0, tolerance)
    run.measure("difference of the means at h = .025", gap, 0.0, tolerance=0.02)
    with run.control("1 - beta1 = 2h"):
        run.measure("difference of the means", difference(run, {"beta": 1 - 0.05, "h": 0.025}, run.paths), 0.0, tolerance=0.02)


def difference(run, own, paths):
    """Return E x_T of Adam less that of RMSProp on the same draws."""
    pair = rule(st.Adam, **own), rule(st.RMSProp, own["h"])
    gap = st.weak_gap(*pair, [START], T, observe=["x"], times=[T], **run.options(paths=paths))
    return gap.at("x")


@st.claim(
    "skewness-in-adaptive-methods",
    statement=r"Noise with $E z^3 = \mu_3 \ne 0$ shifts the mean by a term of order $\eta = \sqrt h$, whose coefficient depends on what is divided by what: the "
    r"lagged denominator, the current one, or Adam's average.",
    source="derived",
)
def skewness(run):
    """Measure the term of order eta of the mean for exponential noise, and its absence for symmetric noise."""
    paths = run.scale(quick=1_000_000, standard=20_000_000, full=80_000_000)
    tolerance = run.scale(quick=0.06, standard=0.02, full=0.01)
    exponential = st.noise.centred_exponential(dim=1)
    cases = {
        "lagged RMSProp": (lambda h, z: rule(st.RMSProp, h, noise=z), PROBLEM.skewness(T, 2.0), MEAN),
        "current RMSProp": (lambda h, z: rule(st.RMSProp, h, noise=z, lagged=False), PROBLEM.skewness(T, 2.0, 1.0), MEAN),
        "lagged Adam, beta1 = .5": (lambda h, z: rule(st.Adam, h, 0.5, noise=z), PROBLEM.skewness(T, 2.0, 0.5), MEAN),
    }
    run.note(
        "The gap at h is M1 eta + C eta^2 + O(eta^3); twice the quotient by eta at h/4 less that at h leaves O(eta^2), here below .05 of the terms themselves. "
        "Detects a lag where there is none, and a wrong mixed moment of x and u."
    )
    for name, (make, expected, mean) in cases.items():

        def term(noise, make=make, mean=mean):
            near, far = (shifted(simulated(run, make(h, noise), paths, stream=i), mean) for i, h in enumerate((0.0125, 0.05)))
            return combined([(2 / math.sqrt(0.0125), near), (-1 / math.sqrt(0.05), far)])

        found = term(exponential)
        run.measure(f"{name}: coefficient of eta", found, expected, tolerance=tolerance)
        run.measure(f"{name}: coefficient of eta, symmetric noise", term(st.noise.gaussian(dim=1)), 0.0, tolerance=tolerance)
        if abs(expected) > 0.05:
            with run.control(f"{name}: no term of order eta"):
                run.measure("coefficient of eta", found, 0.0, tolerance=tolerance)


def means(run, method, paths, stream, observe=("x", "x**2")):
    """Return the means of the observables at t = 2."""
    found = st.simulate(method, [START], T, observe=list(observe), times=[T], **run.options(paths=paths, stream=stream))
    return [found.at(name) for name in observe]


@st.claim(
    "square-root-rule",
    statement=r"For batches that are $k$ times larger RMSProp keeps its law on the clock of samples, up to $O(h)$, if $\eta$ is multiplied by $\sqrt k$, $1 - \beta_2$ "
    r"by $k$ and $\epsilon$ by $1/\sqrt k$; the linear rule, $\eta$ times $k$, changes it.",
    source="S. Malladi, K. Lyu, A. Panigrahi, S. Arora (2022)",
)
def square_root_rule(run):
    """Compare the means at t = 2 for batches of one and four times the size."""
    k, h, paths = 4, 0.0125, run.scale(quick=200_000, standard=2_000_000, full=10_000_000)
    run.note(
        r"Both are RMSProp on the same SDE, at $h$ and $4h$: their means differ by $3h$ times the constant of the weak error, about .15 here."
    )
    one = rule(st.RMSProp, h)
    root = st.square_root_rule(one, k)
    plan = st.schedules.constant(k * one.plan.eta)
    linear = st.RMSProp(root.oracle, plan, lagged=True, step_time=root.step_time, **settings(root))
    found = [means(run, method, paths, i) for i, method in enumerate((one, root, linear))]
    for name, base, other, wrong in zip(("x", "x^2"), *found, strict=True):
        run.measure(f"E {name}: four times the batch less once", combined([(1.0, other), (-1.0, base)]), 0.0, tolerance=0.02)
        with run.control(f"E {name}: the linear rule"):
            run.measure("four times the batch less once", combined([(1.0, wrong), (-1.0, base)]), 0.0, tolerance=0.02)


@st.claim(
    "svag-for-adaptive-methods",
    statement=r"SVAG with $\eta/l$, $(1 - \beta_2)/l^2$ and $\epsilon\,l$ takes RMSProp to its SDE with a gap of order 2 in $1/l$ also for skewed noise, since it "
    r"lowers the skewness by $3/2l$; noise that is amplified with its skewness kept has order 1.",
    source="S. Malladi, K. Lyu, A. Panigrahi, S. Arora (2022)",
)
def svag_for_adaptive(run):
    """Measure the order in 1/l of the gap of E x^2 between l = 2 and 4, for exponential noise."""
    h, paths = 0.2, run.scale(quick=4_000_000, standard=10_000_000, full=40_000_000)
    one = rule(st.RMSProp, h, noise=st.noise.centred_exponential(dim=1))

    def gap(l, amplified, stream):
        plain = one.oracle.with_sigma(l * one.oracle.sigma)
        method = st.svag(one, l**2) if amplified else st.square_root_rule(one, l**-2, oracle=plain)
        return shifted(simulated(run, method, paths, stream), MEAN)

    run.note(
        r"The distance of a local order from its limit is of order $1/l$ or less; $.35$ is allowed. Detects another pair of weights."
    )
    found = {}
    for kind, amplified in (("SVAG", True), ("skewness kept", False)):
        found[kind] = order(gap(2, amplified, 0), gap(4, amplified, 1))
    run.measure("SVAG: order in 1/l", found["SVAG"], 2.0, tolerance=0.35)
    with run.control("noise with its skewness kept"):
        run.measure("order in 1/l", found["skewness kept"], 2.0, tolerance=0.35)
