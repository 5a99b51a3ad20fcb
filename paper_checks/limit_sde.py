"""SGD and SGDM tend to dX = -lambda_t (grad L dt + sigma sqrt(eta) Sigma^{1/2} dW), if the noise is not skewed.

With Gaussian noise SGD is Euler's scheme of its SDE, so the weak gap is of order 1. The SDE is integrated by SRA1 at half the step, on
the same Brownian path, so that the gap of two paths is small and of the order looked for. On a quadratic all of it has exact
values. They are compared with recursions of SGDM and matrix exponentials of the SDE that are written here, with the rates and momenta
of each step, and for SGD with the leading term: from x = 1 on x^2/2 the gap of E x is -(eta/2) t e^-t, and that of E x^2 is
eta ((1 - e^-2t) / 4 - t e^-2t / 2). The coefficients of the SDE are compared with the formula for a general loss and noise.

Skewed noise reduces the order: E v^3 = kappa gives every step a third cumulant of eta^3 sigma^3 kappa; over 1/eta steps at
sigma = eta^-1/2 this amounts to eta^1/2. On a quadratic the third cumulant obeys c_{k+1} = (1 - eta)^3 c_k - (eta sigma)^3 kappa exactly.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from _common import START, measure_against_exact, quadratic, sups
from _linear import flow, iterated, moment
from theorem_3_5_schedules import training

import sdetools as st

ETAS = [2.0**-k for k in range(3, 8)]
SMOOTH = ("x", "x**2")
POWER = {"x": 1, "x**2": 2}
NOT_SMOOTH = "abs(x - 1)"
OBSERVE = [*SMOOTH, NOT_SMOOTH]
HALVES = 2
"""Integrator steps per step of SGD. The integrator's weak error is of order 2, some percent of the gap."""
DEEP = [2.0**-k for k in range(5, 11)]
COMPARED = (0, 2)
"""Indices of the etas in DEEP whose gaps are compared with their recursion at every step. Two etas determine each coefficient."""
SPREAD = {"SGD": {"x": 1.8, "x**2": 3.8}, "schedule": {"x": 5.5, "x**2": 9.5}, "flow": {"x": 2.0, "x**2": 2.0}}
"""Standard error of the largest gap, for one path and relative to the gap at its noisiest eta: upper bounds from a pilot run."""


def against_limit(optimiser, oracle, plan, limit=None):
    """Return an optimiser and SRA1 on its limiting SDE."""
    sde = limit or st.LimitSDE(oracle, plan)
    return optimiser, st.SRA1(sde, dt=plan.eta / HALVES)


def sgd(eta, oracle=None):
    """Return SGD and its limit at a constant learning rate."""
    oracle, plan = oracle or quadratic(eta), st.schedules.constant(eta)
    return against_limit(st.SGD(oracle, plan), oracle, plan)


def sgdm(eta, beta=0.5):
    """Return SGDM and its limit at constant eta and beta."""
    oracle, plan = quadratic(eta), st.schedules.constant(eta, beta)
    return against_limit(st.SGDM(oracle, plan), oracle, plan)


def sgdm_scaled(eta, alpha=0.5):
    """Return SGDM and its limit at 1 - beta = eta^alpha / 2."""
    oracle, plan = quadratic(eta), st.schedules.scaled(eta, alpha=alpha, damping=0.5)
    return against_limit(st.SGDM(oracle, plan), oracle, plan)


def scheduled(eta, averaged=True):
    """Return SGDM under a schedule and its limit, with or without averaging."""
    oracle, plan = quadratic(eta), training(eta)
    return against_limit(st.SGDM(oracle, plan), oracle, plan if averaged else st.schedules.constant(eta))


def to_solution(pair, eta):
    """Return the library's exact gaps of E x and E x^2 between an optimiser and its SDE after every step up to t = 1."""
    optimiser, integrator = pair(eta)
    moved = st.exact.moments(optimiser, START, round(1 / eta))
    solved = st.exact.solution(integrator.sde, START, moved.times)
    return {h: st.exact.expectation(moved, h) - st.exact.expectation(solved, h) for h in SMOOTH}


def last_order(gaps, h):
    """Return the last local order of the largest gaps under h."""
    return float(st.exact.local_orders(DEEP, sups(gap[h] for gap in gaps))[-1])


def speeds(eta, etas, betas):
    """Return etabar_k / eta, with a constant last pair."""
    total = np.full(len(etas), etas[-1] / (1 - betas[-1]))  # sum_{s >= k} eta_s prod_{t=k+1..s} beta_t
    for k in reversed(range(len(etas) - 1)):
        total[k] = etas[k] + betas[k + 1] * total[k + 1]
    return (1 - betas) * total / eta


def own_gap(eta, etas, betas, h, level=1.0):
    """Return the same gap from matrices.

    SGDM: m' = beta m + (1 - beta) (x + sigma xi), x' = x - eta m'. SDE: dX = -lambda (X dt + sqrt(level) dW). `level` is sigma^2 eta. lambda_t
    is etabar_k / eta in step k, by the sum in its definition, starting from the last, constant pair.
    """
    rate = speeds(eta, etas, betas)

    def step(k):
        near = 1 - betas[k]
        kick = near * math.sqrt(level / eta) * np.array([-etas[k], 1.0])
        return np.array([[1 - etas[k] * near, -etas[k] * betas[k]], [near, betas[k]]]), np.outer(kick, kick)

    moved = {value: flow(np.array([[-value]]), np.array([[value**2 * level]]), eta) for value in np.unique(rate)}

    def motion(k):
        return moved[rate[k]]

    laws = iterated(step, [1.0, 0.0], len(etas) - 1), iterated(motion, [1.0], len(etas) - 1)
    return moment(laws[0], POWER[h]) - moment(laws[1], POWER[h])


def own_schedule(name, eta):
    """Return eta_k and beta_k, k = 0 ... 1/eta, written out."""
    t = eta * np.arange(round(1 / eta) + 1)
    if name == "schedule":  # warm-up until 1/8, a third of the speed from 1/2 on; 1 - beta falls from 0.3 to 0.1
        return eta * np.where(t < 0.5, np.minimum(1.0, 0.25 + 6 * t), 1 / 3), 1 - (0.3 - 0.2 * t)
    return np.full(len(t), eta), np.full(len(t), {"SGD": 0.0, "SGDM": 0.5, "SGDM, alpha = 1/2": 1 - 0.5 * eta**0.5}[name])


def measure_exact(run, name, pair, order, tolerance):
    """Compare the exact gaps with the recursion at every step, check their last local order, and return the gaps."""
    gaps = [to_solution(pair, eta) for eta in DEEP]
    for h in SMOOTH:
        apart = max(float(np.abs(gaps[i][h] - own_gap(DEEP[i], *own_schedule(name, DEEP[i]), h)).max()) for i in COMPARED)
        # hundreds of steps of rounding; the smallest gap is 1e-3
        run.measure(f"{name}, {h}: exact gap, farthest from its recursion", apart, at_most=1e-11)
        run.measure(f"{name}, {h}: last exact local order", last_order(gaps, h), expected=order, tolerance=tolerance)
    return gaps


def coefficients_off():
    """Return the largest error of drift and diffusion with respect to -lambda_t grad L and -lambda_t sigma sqrt(eta) R u.

    The loss is not quadratic, the noise depends on the state and the schedule varies.
    """
    loss = st.losses.from_expression("x**2/2 + x*y/3 + y**4/5", variables="x y")
    noise = st.noise.gaussian(root=[["1 + x**2/4", "0.3"], ["0.2*y", "0.8"]], variables="x y")
    eta, sigma, rng, worst = 0.125, 1.3, np.random.default_rng(3), 0.0
    oracle, etas = st.NoisyOracle(loss, noise, sigma=sigma), eta / np.arange(1, 6)
    plan = st.schedules.from_arrays(etas, base=eta)  # without momentum lambda_t is eta_k / eta
    limit, deterministic = st.LimitSDE(oracle, plan), st.GradientFlow(oracle, plan)
    for k in range(5):
        x, u = rng.uniform(-1.5, 1.5, (2, 2))
        g = np.array([x[0] + x[1] / 3, x[0] / 3 + 4 / 5 * x[1] ** 3])
        kick = sigma * eta**0.5 * np.array([[1 + x[0] ** 2 / 4, 0.3], [0.2 * x[1], 0.8]]) @ u
        for sde, part, width in (
            (limit, 0.0, 1),
            (limit, float(rng.uniform(0, 1)), 1),
            (limit, 1.0, 1),  # lambda_t jumps after the step
            (deterministic, 1.0, 1),
            *((limit, part, 3) for part in (0.33, 0.66, 1.0)),  # a step that spans three of the plan's
        ):
            s = sde.signal_values(np.array([k * eta]), part, width * eta)[0]
            speed = etas[min(k + math.ceil(part * width) - 1 if part else k, 4)] / eta
            right = -speed * kick * (sde is limit)
            off = (
                np.abs(sde.drift(x, None, s) + speed * g).max(),
                np.abs(sde.diffusion(x, list(u), None, s) - right).max(),
            )
            worst = max(worst, *off)
    return float(worst + deterministic.noise_dim)


def speed_off(eta=DEEP[0]):
    """Return the largest error of lambda_t with respect to etabar_k / eta, at several points of every step and after the last pair."""
    plan, (etas, betas) = training(eta), own_schedule("schedule", eta)
    right = np.pad(speeds(eta, etas, betas), (0, 3), mode="edge")
    k = np.arange(len(right))
    found = np.array([[plan.rate(float(eta * (i + part))) for i in k] for part in (0.0, 0.5, 0.98)])
    return float(max(np.abs(found - right).max(), np.abs(plan.rate(eta * k) - right).max()))


@st.claim(
    "sgd-to-sde",
    statement=r"As $\eta \to 0$, SGD with Gaussian noise and $\sigma = \eta^{-1/2}$ is a weak approximation of order 1 of "
    r"$\mathrm dX = -(\nabla L\,\mathrm dt + \sigma\sqrt\eta\,\Sigma^{1/2}\,\mathrm dW)$, and so is SGDM for smooth $h$ at a "
    r"fixed $\beta$. At $1-\beta = \lambda\eta^\alpha$ its order is $1-\alpha$.",
    source="Section 3, the SDE after Definition 2.2",
)
def sgd_to_sde(run):
    """Check the limiting SDE of SGD and SGDM at constant schedules.

    Detects errors in lambda, sigma sqrt(eta), a sign or a term of the SDE; a constant, a shift or a term of SGD, SGDM; the times at which a
    schedule is evaluated.
    """
    run.measure("coefficients: farthest from the formulas", coefficients_off(), at_most=1e-12)
    # orders have errors of eta = 2^-9 times a constant of order one. With momentum the largest gap lies log(1/eta) / (1 - beta) steps from
    # the start, and the error is that number times eta: 18 * 2^-9, or, where 1 - beta = sqrt(eta) / 2, some sqrt(eta) = 2^-4.5
    gaps = measure_exact(run, "SGD", sgd, 1.0, 0.01)
    measure_exact(run, "SGDM", sgdm, 1.0, 0.05)
    measure_exact(run, "SGDM, alpha = 1/2", sgdm_scaled, 0.5, 0.15)
    for h, constant in (("x", math.exp(-1) / 2), ("x**2", (1 - 3 * math.exp(-2)) / 4)):
        found = float(np.abs(gaps[-1][h]).max()) / DEEP[-1]
        run.measure(f"SGD, {h}: constant", found, expected=constant, relative=0.01)
    paths = run.scale(quick=5 * run.paths, standard=run.paths, full=run.paths // 4)
    options = run.options(paths=paths)
    found = st.order_study(sgd, ETAS, START, 1.0, observe=OBSERVE, **options)
    exact = measure_against_exact(run, "SGD", found, paths, SPREAD["SGD"])
    run.figure("SGD against its SDE", found.plot(exact=exact), "The largest gap between SGD and its SDE; dashed: exact, to SRA1.")
    well = st.order_study(wells, ETAS[1:], [0.3], 1.0, observe=["x**2", "cos(2*x)"], **options)
    for h in ("x**2", "cos(2*x)"):
        run.measure(f"double well, {h}: fitted order", well.order(h), expected=1.0, tolerance=0.3)
    with run.control("an SDE with nine tenths of the drift"):
        wrong = st.order_study(lambda eta: slowed(eta), ETAS, START, 1.0, observe=OBSERVE, **options)
        run.measure("order of x", wrong.order("x"), at_least=0.75)


def wells(eta):
    """Return SGD and its limit on a double well."""
    return sgd(eta, st.NoisyOracle(st.losses.double_well(), st.noise.gaussian(dim=1), eta**-0.5))


def slowed(eta):
    """Return SGD and an SDE with nine tenths of the drift."""
    oracle, plan = quadratic(eta), st.schedules.constant(eta)
    slow = st.NoisyOracle(st.losses.from_expression("0.9 * x**2/2"), st.noise.gaussian(dim=1), sigma=eta**-0.5)
    return against_limit(st.SGD(oracle, plan), slow, plan)


@st.claim(
    "sgd-to-sde-schedules",
    statement=r"Under warm-up, step decay and a varying $\beta_k$ the limit of SGDM is the SDE with $\lambda_t = \lim \bar\eta_k / \eta$.",
    source="Section 3; Theorem 3.5",
)
def schedules(run):
    """Check the limiting SDE of SGDM under varying schedules.

    Detects a lambda_t other than etabar_k / eta in step k: one step early or late, not averaged, or missing in drift or diffusion.
    """
    run.measure(
        "lambda_t: farthest from the averaged rate over eta, in every step and after the last", speed_off(), at_most=1e-12
    )
    # the gap has a leading term for each piece of the schedule: its order has an error of eta = 2^-9 times some 1/(1 - beta)
    measure_exact(run, "schedule", scheduled, 1.0, 0.05)
    paths = run.scale(quick=5 * run.paths, standard=run.paths, full=run.paths // 4)
    found = st.order_study(scheduled, ETAS[1:], START, 1.0, observe=["x", "x**2"], **run.options(paths=paths))
    exact = measure_against_exact(run, "schedule", found, paths, SPREAD["schedule"])
    run.figure(
        "schedules", found.plot(exact=exact), r"SGDM with a varying schedule against the SDE with $\lambda_t$; dashed: exact."
    )
    with run.control("lambda = 1 throughout"):
        gaps = [to_solution(lambda e: scheduled(e, False), eta) for eta in DEEP]
        run.measure("last exact local order of x", last_order(gaps, "x"), at_least=0.5)


@st.claim(
    "fixed-sigma-to-gradient-flow",
    statement=r"For a fixed $\sigma$ the limit of SGD and SGDM is the gradient flow $\mathrm dX = -\nabla L\,\mathrm dt$, at rate $\eta$ as $\eta \to 0$.",
    source="Section 3",
)
def gradient_flow(run):
    """Check the gradient flow as the limit at fixed sigma.

    Detects noise, a factor or a sign in the flow; a constant or a term of SGD, SGDM.
    """

    def flow_of(eta, beta, sigma=1.0):
        oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=sigma)
        plan = st.schedules.constant(eta, beta)
        return st.SGDM(oracle, plan), st.RI1(st.GradientFlow(oracle, plan), dt=eta)

    paths = run.scale(quick=2 * run.paths, standard=run.paths, full=run.paths // 4)
    for beta in (0.0, 0.5):
        gaps = [to_solution(lambda eta, b=beta: flow_of(eta, b), eta) for eta in DEEP]
        for h in SMOOTH:
            apart = []
            for eta, gap in ((DEEP[i], gaps[i][h]) for i in COMPARED):
                n = len(gap)
                noisy = own_gap(eta, np.full(n, eta), np.full(n, beta), h, level=eta)  # sigma = 1
                spread = eta / 2 * (1 - np.exp(-2 * eta * np.arange(n)))  # variance of the SDE; the flow has none
                apart.append(float(np.abs(gap - noisy - (spread if h == "x**2" else 0.0)).max()))
            run.measure(f"beta = {beta:g}, {h}: exact gap, farthest from its recursion", max(apart), at_most=1e-11)
            order = last_order(gaps, h)
            run.measure(f"beta = {beta:g}, {h}: last exact local order", order, expected=1.0, tolerance=0.05 if beta else 0.01)
    found = st.order_study(lambda eta: flow_of(eta, 0.5), ETAS, START, 1.0, observe=["x", "x**2"], **run.options(paths=paths))
    measure_against_exact(run, "flow", found, paths, SPREAD["flow"])
    with run.control("sigma = eta^-1/2, whose limit is not deterministic"):
        gaps = [to_solution(lambda e: flow_of(e, 0.5, e**-0.5), eta) for eta in DEEP]
        run.measure("last exact local order of x**2", last_order(gaps, "x**2"), at_least=0.75)


HALF_TIME = 0.5
"""At t = 1 the first-order term of the gap of E x^3 happens to cancel where there is no skewness."""


def third_moment(eta, kappa):
    """Return E x^3 of SGD from x = 1 on x^2/2 with noise of variance 1 and third moment kappa, sigma = eta^-1/2."""
    mean, variance, third = 1.0, 0.0, 0.0
    for _ in range(round(HALF_TIME / eta)):
        mean, variance, third = (1 - eta) * mean, (1 - eta) ** 2 * variance + eta, (1 - eta) ** 3 * third - eta**1.5 * kappa
    return mean**3 + 3 * mean * variance + third


def third_moment_of_sde(t=HALF_TIME):
    """Return E x^3 of the SDE at time t."""
    mean, variance = math.exp(-t), (1 - math.exp(-2 * t)) / 2
    return mean**3 + 3 * mean * variance


@st.claim(
    "skewed-noise-breaks-the-order",
    statement=r"With skewed noise, $E v^3 = \kappa \ne 0$ for all $\sigma$, SGD approximates its SDE only with weak order $1/2$ as $\eta \to 0$: "
    r"the gap of $E x^3$ is $\tfrac{\kappa}{3}(1-e^{-3t})\sqrt\eta$ to leading order. With $\kappa = 0$ the order is 1 for any law.",
    source="Definition 2.1, and the low-skewness condition of Malladi et al. (2022)",
)
def skewed(run):
    """Check the order 1/2 of the gap of E x^3 under skewed noise.

    Detects another skewness of the law, sigma or eta in SGD. The SDE's vanishing third cumulant enters through its closed form.
    """
    kappa = 2.0  # E (Exp(1) - 1)^3 = 2
    stated = st.noise.centred_exponential(dim=1).skewness
    run.measure("skewness of the law", float(stated), expected=kappa, tolerance=1e-12)
    target = third_moment_of_sde()
    for i, eta in enumerate(ETAS):
        sgd = st.SGD(quadratic(eta, st.noise.centred_exponential(dim=1)), st.schedules.constant(eta))

        def gap(paths, sgd=sgd, i=i):
            options = run.options(paths=paths, observe=["x**3"], times=[HALF_TIME], stream=i)
            found = st.simulate(sgd, START, HALF_TIME, **options).at("x**3")
            return replace(found, value=found.value - target)

        # a fifth, where another order of the leading term would change the gap from one eta to the next by a factor of 1.4 or more
        paths = run.scale(quick=10 * run.paths, standard=run.paths, full=run.paths)
        expected = third_moment(eta, kappa) - target
        run.decide(f"gap of x^3 at eta = {eta:g}", gap, expected, relative=0.2, paths=paths, looks=6)
    for value, order, name in ((kappa, 0.5, "skewed"), (0.0, 1.0, "not skewed")):
        gaps = [abs(third_moment(eta, value) - target) for eta in DEEP]
        # the remainder is of the next order, sqrt(eta) with skewness and eta without, times a constant of order one
        local = float(st.exact.local_orders(DEEP, gaps)[-1])
        run.measure(f"last exact local order, {name}", local, expected=order, tolerance=2 * DEEP[-2] ** order)
    leading = abs(third_moment(DEEP[-1], kappa) - target) / math.sqrt(DEEP[-1])
    # the remainder is of the next order, sqrt(eta) times a constant of order 1
    run.measure("constant", leading, expected=kappa / 3 * (1 - math.exp(-3 * HALF_TIME)), tolerance=3 * math.sqrt(DEEP[-1]))
    with run.control("order 1 in spite of the skewness"):
        gaps = [abs(third_moment(eta, kappa) - target) for eta in DEEP]
        run.measure("last local order", st.exact.local_orders(DEEP, gaps)[-1], at_least=0.75)
