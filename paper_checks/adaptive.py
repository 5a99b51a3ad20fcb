r"""RMSProp and Adam beside their SDEs, what momentum is worth in Adam, and where skewed noise changes the order.

The problem is that of `_adaptive_chain`. In the limit u = v / sigma^2 is a number that moves by itself, u' = 1 - u, so that the SDEs' means are linear ODEs.
`st.exact.AdaptiveProblem` solves them apart from the SDEs' classes. The means of the optimisers come from the backward equation of their chain, which is
written out and shares nothing with the library: orders and coefficients have no error of paths. Rules enter by single steps, and by simulations at one h.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from _adaptive_chain import (
    C2,
    EPS0,
    LAM,
    SIGMA0,
    START,
    U0,
    T,
    exact_mean,
    exponential_draws,
    limit_in_eta,
    normal_draws,
    svag_draws,
)
from _estimates import combined, scaled, shifted
from _plain import NON_FINITE_DISTANCE, value_or_far, value_or_nan
from scipy.integrate import cumulative_trapezoid

import sdetools as st

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


def plain_terms(part):
    """Return A, B and the term M_1 for mu3 = 2, where noise enters with the weight `part`, by the trapezoidal rule on the solved linear equations.

    With u = 1 + (u_0 - 1) e^-t, P = sigma0 u^{1/2} + eps0, J = int lam / P and M = x_0 e^-J: A = M_T (lam / P_0 - lam^2 int P^-2),
    B = M_T lam c2 sigma0 int u^{-1/2} P^-2, C' = -(lam / P + c2) C - c2 sigma0 mu3 / P, M_1' = -lam M_1 / P + sigma0 (lam C + q c2 sigma0 mu3) / (2 u^{1/2} P^2).
    """
    t = np.linspace(0.0, T, 20_001)
    u = 1 + (U0 - 1) * np.exp(-C2 * t)
    P, skewed = SIGMA0 * np.sqrt(u) + EPS0, 2.0 * C2 * SIGMA0
    integral = lambda f: cumulative_trapezoid(f, t, initial=0.0)  # noqa: E731
    J = integral(LAM / P)
    end = START * math.exp(-J[-1])
    mixed = -skewed * np.exp(-J - C2 * t) * integral(np.exp(J + C2 * t) / P)
    first = math.exp(-J[-1]) * integral(np.exp(J) * SIGMA0 * (LAM * mixed + part * skewed) / (2 * np.sqrt(u) * P**2))[-1]
    inner = LAM / P[0] - LAM**2 * integral(P**-2.0)[-1]
    return end * inner, end * LAM * C2 * SIGMA0 * integral(u**-0.5 * P**-2.0)[-1], float(first)


def local_orders(gaps):
    """Return log2 |gap / next gap| for gaps at steps that halve."""
    return [math.log2(abs(coarse / fine)) for coarse, fine in itertools.pairwise(gaps)]


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
    paths = run.scale(quick=1_000_000, standard=4_000_000, full=20_000_000)
    run.note(
        r"The distance of a local order from 1 is of order $h$, which is extrapolated from $h = .05, .025, .0125$: terms of order $h^2$ are left, and .005 of "
        r"the nodes. Detects a wrong denominator, bias correction or noise."
    )
    normal = normal_draws()
    cases = {
        "RMSProp": (
            lambda h: rule(st.RMSProp, h),
            lambda steps: exact_mean(steps, normal),
            MEAN,
            lambda one: st.RMSPropSDE(one.oracle, one.plan, **settings(one)),
        ),
        "Adam": (
            lambda h: rule(st.Adam, h, beta=1 - 2 * h, momentum=[0.5]),
            lambda steps: exact_mean(steps, normal, beta=1 - 2 * T / steps, momentum=0.5),
            float(PROBLEM.adam([T], 2.0, 0.5)[0][0]),
            lambda one: st.AdamSDE(one.oracle, one.plan, **settings(one), bias_correction=False, momentum=[0.5]),
        ),
    }
    for i, (name, (make, exact, mean, equation)) in enumerate(cases.items()):
        run.measure(
            f"{name}: one step beside its equations, largest relative distance", away_from_equations(make(0.01)), at_most=1e-13
        )
        sde = equation(make(0.01))
        state = np.concatenate(sde.start(np.array([START])))
        noise = (
            -SIGMA0 / (SIGMA0 * math.sqrt(U0) + EPS0) if name == "RMSProp" else 2.0 * SIGMA0
        )  # of x, or of the momentum, c1 sigma0
        found = float(sde.diffusion(state, [1.0], s=tuple(sde.signal_values(np.zeros(1), 0.0, 0.01)[0]))[int(name == "Adam")])
        run.measure(f"{name}: noise of the SDE of the library at t = 0", found, noise, relative=1e-12)
        # the means are linear in x and u is a number, so that Euler's scheme is a recursion: without paths, extrapolated
        run.measure(f"{name}: E x of the SDE of the library", euler_mean(sde), mean, tolerance=1e-5)
        coarse, fine = local_orders([exact(steps) - mean for steps in (40, 80, 160)])
        run.measure(f"{name}: order of the gap of E x, exact", 2 * fine - coarse, 1.0, tolerance=0.02)
        with run.control(f"{name}: order 1/2, that of skewed noise"):
            run.measure("order of the gap", 2 * fine - coarse, 0.5, tolerance=0.02)
        found = simulated(run, make(0.1), paths, stream=i)
        run.measure(f"{name}: E x simulated at h = .1", found, exact(20), tolerance=0.002)
        with run.control(f"{name}: E x of the SDE"):
            run.measure("E x simulated at h = .1", found, mean, tolerance=0.002)
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
    worst = float(np.max([np.abs(a / b - 1) for a, b in zip(new, expected, strict=True)]))
    return worst if math.isfinite(worst) else NON_FINITE_DISTANCE


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
    for name, one in (("Adam", adam), ("RMSProp", rule(st.RMSProp, h))):
        run.measure(f"{name}: one step beside its equations, largest relative distance", away_from_equations(one), at_most=1e-13)
    for name, found, plain in zip("AB", (A, B), plain_terms(0.0), strict=False):
        run.measure(f"{name} beside the trapezoidal rule", found, plain, relative=1e-6)  # which leaves 1e-8
    run.note(
        rf"$A = {A:.5f}$, $B = {B:.5f}$ by quadrature. Measured over law has next terms of orders $h$ and $h^2$, which are extrapolated from "
        r"$h = .05, .025, .0125$; the second one moves it by .003, and the next is smaller."
    )
    normal, ratios = normal_draws(), []
    for steps in (40, 80, 160):
        law = T / steps * (A + 0.5 * B)
        ratios.append((exact_mean(steps, normal, beta=0.5) - exact_mean(steps, normal)) / law)
    run.table("exact over law", [{"h": T / steps, "ratio": r} for steps, r in zip((40, 80, 160), ratios, strict=True)])
    once = [2 * fine - coarse for coarse, fine in itertools.pairwise(ratios)]
    found = (4 * once[1] - once[0]) / 3
    run.measure("exact difference of the means over its law, extrapolated in h", found, 1.0, tolerance=0.01)
    with run.control("the law without B"):
        run.measure("exact difference of the means over its law", found * (A + B / 2) / A, 1.0, tolerance=0.01)
    gap = difference(run, {"beta": 0.5, "h": 0.05}, run.scale(quick=2_000_000, standard=5_000_000, full=20_000_000))
    run.measure(
        "simulated difference over the exact one, h = .05",
        scaled(gap, 1 / (ratios[0] * 0.05 * (A + 0.5 * B))),
        1.0,
        tolerance=0.1,
    )
    run.measure("difference of the means at h = .05", gap, 0.0, tolerance=0.02)
    with run.control("1 - beta1 = 2h"):
        run.measure("difference of the means", difference(run, {"beta": 1 - 0.1, "h": 0.05}, run.paths), 0.0, tolerance=0.02)


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
    """Measure the term of order eta of the mean for exponential noise, and its absence for symmetric noise, to .002, and simulate the chains."""
    paths = run.scale(quick=5_000_000, standard=10_000_000, full=40_000_000)
    exponential, steps = st.noise.centred_exponential(dim=1), 20
    cases = {
        "lagged RMSProp": (lambda h: rule(st.RMSProp, h, noise=exponential), {}, 0.0),
        "current RMSProp": (lambda h: rule(st.RMSProp, h, noise=exponential, lagged=False), {"lagged": False}, 1.0),
        "lagged Adam, beta1 = .5": (lambda h: rule(st.Adam, h, 0.5, noise=exponential), {"beta": 0.5}, 0.5),
    }
    run.note(
        r"The gap is $M_1\eta + C\eta^2 + \dots$; a polynomial in $\eta$ through the quotients by $\eta$ at $h = .025, .0125, .00625, .003125$ leaves terms of "
        r"order $\eta^4$. Those at $\eta = .06$ and the error of the nodes are below .0005 for normal noise. A simulation at $h = .1$ may differ by .004 in "
        r"units of $\eta$. Detects a lag where there is none, and a wrong mixed moment of x and u."
    )
    for i, (name, (make, own, part)) in enumerate(cases.items()):
        expected, found = (
            value_or_far(PROBLEM.skewness, T, 2.0, part),
            {
                kind: limit_in_eta(lambda n, draws=draws, own=own: (exact_mean(n, draws, **own) - MEAN) / math.sqrt(T / n))
                for kind, draws in (("exponential", exponential_draws()), ("normal", normal_draws()))
            },
        )
        run.measure(
            f"{name}: coefficient of the library beside the trapezoidal rule", expected, plain_terms(part)[2], relative=1e-6
        )
        run.measure(f"{name}: coefficient of eta", found["exponential"], expected, tolerance=0.002)
        run.measure(f"{name}: coefficient of eta, symmetric noise", found["normal"], 0.0, tolerance=0.002)
        mean, eta = simulated(run, make(T / steps), paths, stream=i), math.sqrt(T / steps)
        away = scaled(shifted(mean, exact_mean(steps, exponential_draws(), **own)), 1 / eta)
        run.measure(f"{name}: simulated less exact mean over eta, h = .1", away, 0.0, tolerance=0.004)
        if abs(expected) > 0.05:
            with run.control(f"{name}: symmetric noise"):
                run.measure("coefficient of eta", found["normal"], expected, tolerance=0.002)
            with run.control(f"{name}: the mean of symmetric noise"):
                away = scaled(shifted(mean, exact_mean(steps, normal_draws(), **own)), 1 / eta)
                run.measure("simulated less exact mean over eta", away, 0.0, tolerance=0.004)


def means(run, method, paths, stream, observe=("x", "x**2")):
    """Return the means of the observables at t = 2."""
    found = st.simulate(method, [START], T, observe=list(observe), times=[T], **run.options(paths=paths, stream=stream))
    return [found.at(name) for name in observe]


def away_from_square_root(make, k):
    """Return the largest relative distance of two steps of a rescaled AdamW from those of the square-root rule for k times the batch.

    Rates, decays and the number added to the root are written out, with rates and averages of gradients that move in time. Further distances are those of
    the initial second moment, the noise and the time of a step.
    """
    etas, betas = 0.1 / np.arange(1.0, 10.0), 0.95 + 0.004 * np.arange(9.0)
    beta2, eps, decay, moment, sigma, time = 0.97, 0.4, 0.3, 7.0, 2.0, 0.02
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=sigma)
    scaled = value_or_nan(
        lambda: make(
            st.AdamW(
                oracle, st.schedules.from_arrays(etas, betas), beta2=beta2, eps=eps, weight_decay=decay, bias_correction=False,
                second_moment=moment, step_time=time,
            )
        )
    )  # fmt: skip
    if not isinstance(scaled, st.AdamW):
        return NON_FINITE_DISTANCE
    x, m, v = np.array([[0.7], [-0.4], [5.0]])
    state, rows, pairs, root = (x, m, v), scaled.coefficient_values(2), [], math.sqrt(k)
    for step, g in enumerate((1.3, -0.6)):
        at = min(math.floor(step * k + 1e-9), 8)  # on the clock of samples
        eta, beta, slow = root * etas[at], 1 - k * (1 - betas[at]), 1 - k * (1 - beta2)
        m, v, before = beta * m + (1 - beta) * g, slow * v + (1 - slow) * g**2, x
        x = before - eta * m / (np.sqrt(v) + eps / root) - eta * root * decay * before
        state = scaled.rule(state, lambda point, g=g: np.array([g]), *rows[step])
        pairs += zip(state, (x, m, v), strict=True)
    pairs += [(scaled.second_moment, moment / k), (scaled.oracle.sigma, sigma / root)]
    pairs += [(scaled.step_time, k * time), (scaled.plan.eta, root * etas[0])]
    worst = float(np.max([np.abs(np.asarray(found) / expected - 1).max() for found, expected in pairs]))
    return worst if math.isfinite(worst) else NON_FINITE_DISTANCE


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
        r"Both are RMSProp on the same SDE, at $h$ and $4h$: their means differ by $3h$ times the constant of the weak error, about .15 here. "
        r"Detects a rate, a decay or a number added to the root that is scaled by another power."
    )
    for times in (k, 0.5):
        away = away_from_square_root(lambda one, times=times: st.square_root_rule(one, times), times)
        run.measure(
            f"AdamW for {times:g} times the batch: two steps beside the rule, largest relative distance", away, at_most=1e-12
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
    """Measure the order in 1/l of the gap of E x for exponential noise, and simulate l = 2."""
    h = 0.2
    run.note(
        r"The distance of a local order from its limit is of order $1/l$, which is extrapolated from $l = 2, 4, 8$: terms of order $1/l^2$, about .03, are left. "
        r"Detects another pair of weights."
    )
    away = away_from_square_root(lambda one: st.svag(one, 2**2), 1 / 4)
    run.measure("AdamW, l = 2: two steps beside the rule, largest relative distance", away, at_most=1e-12)
    found = {}
    for kind, draws in (("SVAG", svag_draws), ("skewness kept", lambda l: exponential_draws())):
        coarse, fine = local_orders([exact_mean(round(T / h) * l * l, draws(l)) - MEAN for l in (2, 4, 8)])
        found[kind] = 2 * fine - coarse
    run.measure("SVAG: order in 1/l", found["SVAG"], 2.0, tolerance=0.1)
    with run.control("noise with its skewness kept"):
        run.measure("order in 1/l", found["skewness kept"], 2.0, tolerance=0.1)
    method = st.svag(rule(st.RMSProp, h, noise=st.noise.centred_exponential(dim=1)), 2**2)
    mean = simulated(run, method, run.scale(quick=1_000_000, standard=10_000_000, full=40_000_000))
    run.measure("E x simulated, l = 2", mean, exact_mean(40, svag_draws(2)), tolerance=0.002)
    with run.control("skewness kept, E x"):
        run.measure("E x simulated, l = 2", mean, exact_mean(40, exponential_draws()), tolerance=0.002)
