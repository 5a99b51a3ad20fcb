r"""SGD and SGDM tend to dX = -lambda_t (grad L dt + sigma sqrt(eta) Sigma^{1/2} dW), if the noise is not skewed.

With Gaussian noise SGD is Euler's scheme of its SDE, so the weak gap is of order 1; the SDE is integrated by SRA1 at half the step, on
the same Brownian path, so that the gap of two paths is small and what is left is of the order looked for. On a quadratic all of it has exact
values: moments of SGD, of SRA1 at its finite step, and of the SDE itself.

Skewed noise breaks the order: E v^3 = kappa gives every step a third cumulant of eta^3 sigma^3 kappa, 1/eta steps and sigma = eta^-1/2
leave eta^1/2. On a quadratic the third cumulant obeys c_{k+1} = (1 - eta)^3 c_k - (eta sigma)^3 kappa exactly.
"""

from __future__ import annotations

import math

import numpy as np
from _common import START, limit, off_exact, quadratic, sups
from theorem_3_5_schedules import training

import sdetools as st
from sdetools.weak import Estimate

ETAS = [2.0**-k for k in range(3, 8)]
SMOOTH = ("x", "x**2")
NOT_SMOOTH = "abs(x - 1)"
OBSERVE = [*SMOOTH, NOT_SMOOTH]
HALVES = 2
"""Steps of the integrator in one of SGD: its own weak error is of order 2, some percent of the gap."""
DEEP = [2.0**-k for k in range(8, 15, 2)]


def against_limit(optimiser, oracle, plan, limit=None):
    sde = limit or st.LimitSDE(oracle, plan)
    return optimiser, st.SRA1(sde, dt=plan.eta / HALVES)


def sgd(eta, oracle=None):
    oracle, plan = oracle or quadratic(eta), st.schedules.constant(eta)
    return against_limit(st.SGD(oracle, plan), oracle, plan)


def sgdm(eta, beta=0.5):
    oracle, plan = quadratic(eta), st.schedules.constant(eta, beta)
    return against_limit(st.SGDM(oracle, plan), oracle, plan)


def sgdm_scaled(eta, alpha=0.5):
    oracle, plan = quadratic(eta), st.schedules.scaled(eta, alpha=alpha, damping=0.5)
    return against_limit(st.SGDM(oracle, plan), oracle, plan)


def exact_sups(found, tests):
    """The largest exact gaps at the recorded times: to the integrator as it is run, and to the SDE itself."""
    run, true = {}, {}
    for h in tests:
        run[h] = sups(st.exact.gap(g.first, g.second, START, int(g.steps[-1]), h, record=g.steps) for g in found.gaps)
        true[h] = sups(to_solution(g.first, g.second.sde, h, g.steps, g.times) for g in found.gaps)
    return run, true


def to_solution(optimiser, sde, h, steps, times):
    """The exact gap between an optimiser and its SDE at some steps."""
    pieces = 1 if len(sde.plan.eta_values) == 1 else None
    if pieces is None:
        times, steps = np.arange(int(steps[-1]) + 1) * optimiser.step_time, np.arange(int(steps[-1]) + 1)
    moved = st.exact.moments(optimiser, START, int(steps[-1]), record=steps)
    return st.exact.expectation(moved, h) - st.exact.expectation(st.exact.solution(sde, START, times), h)


def many(run):
    """Paths that tell an order from the next half: a path costs a few hundred steps of a few nanoseconds."""
    return run.scale(quick=10 * run.paths, standard=run.paths, full=run.paths // 4)


def measure(run, name, found, tests, width=0.2):
    """Gaps on their exact curve, and the fitted order beside the same fit through the exact gaps."""
    exact, true = exact_sups(found, tests)
    for h in tests:
        estimates = found.estimates(h)
        # ten standard errors of the relative gap at the noisiest point: six for the band, four for the farthest of them
        room = 10 * max(e.stderr / value for e, value in zip(estimates, exact[h], strict=True))
        run.measure(f"{name}, {h}: farthest from the exact gap", off_exact(estimates, exact[h]), at_most=room)
        order = found.order(h)
        run.measure(f"{name}, {h}: fitted order", order, order.fit(exact[h][np.isin(found.etas, order.etas)]), tolerance=width)
    return true


@st.claim(
    "sgd-to-sde",
    statement=r"SGD with Gaussian noise and $\sigma = \eta^{-1/2}$ is a weak approximation of order 1 of "
    r"$\mathrm dX = -(\nabla L\,\mathrm dt + \sigma\sqrt\eta\,\Sigma^{1/2}\,\mathrm dW)$, and SGDM as well for smooth $h$ at a "
    r"fixed $\beta$; at $1-\beta = \lambda\eta^\alpha$ it is of order $1-\alpha$.",
    source="Section 3, the SDE after Definition 2.2",
)
def sgd_to_sde(run):
    options = run.options(paths=many(run))
    found = st.order_study(sgd, ETAS, START, 1.0, observe=OBSERVE, **options)
    true = measure(run, "SGD", found, SMOOTH)
    run.figure(
        "SGD against its SDE",
        found.plot(exact=true),
        "The largest gap between SGD and its SDE; dashed: exact, to the SDE itself.",
    )
    for optimiser, name, order in ((sgd, "SGD", 1.0), (sgdm, "SGDM", 1.0), (sgdm_scaled, "SGDM, alpha = 1/2", 0.5)):
        for h in SMOOTH:
            gaps = [np.abs(deep_gap(optimiser, eta, h)).max() for eta in DEEP]
            value, tolerance = limit(st.exact.local_orders(DEEP, gaps))
            run.measure(f"limit of the exact local order, {name}, {h}", value, expected=order, tolerance=tolerance + 0.01)
    moving = st.order_study(sgdm, ETAS, START, 1.0, observe=OBSERVE, **options)
    measure(run, "SGDM, beta = 1/2", moving, SMOOTH)
    scaled = st.order_study(sgdm_scaled, ETAS, START, 1.0, observe=list(SMOOTH), **run.options(paths=run.paths))
    measure(run, "SGDM, alpha = 1/2", scaled, SMOOTH)
    well = st.order_study(wells, ETAS[1:], [0.3], 1.0, observe=["x**2", "cos(2*x)"], **options)
    for h in ("x**2", "cos(2*x)"):
        run.measure(f"double well, {h}: fitted order", well.order(h), expected=1.0, tolerance=0.3)
    with run.control("an SDE with nine tenths of the drift"):
        wrong = st.order_study(lambda eta: slowed(eta), ETAS, START, 1.0, observe=OBSERVE, **options)
        run.measure("order of x", wrong.order("x"), at_least=0.75)


def deep_gap(optimiser, eta, h):
    steps = round(1 / eta)
    record = np.unique(np.geomspace(1, steps, 60).round().astype(int))
    first, second = optimiser(eta)
    return to_solution(first, second.sde, h, record, record * eta)


def wells(eta):
    return sgd(eta, st.NoisyOracle(st.losses.double_well(), st.noise.gaussian(dim=1), eta**-0.5))


def slowed(eta):
    oracle, plan = quadratic(eta), st.schedules.constant(eta)
    slow = st.NoisyOracle(st.losses.from_expression("0.9 * x**2/2"), st.noise.gaussian(dim=1), sigma=eta**-0.5)
    return against_limit(st.SGD(oracle, plan), slow, plan)


@st.claim(
    "sgd-to-sde-schedules",
    statement=r"Under warm-up, step decay and a moving $\beta_k$ the limit of SGDM is the SDE with $\lambda_t = \lim \bar\eta_k / \eta$.",
    source="Section 3; Theorem 3.5",
)
def schedules(run):
    def scheduled(eta, averaged=True):
        oracle, plan = quadratic(eta), training(eta)
        sde = st.LimitSDE(oracle, plan if averaged else st.schedules.constant(eta))
        return st.SGDM(oracle, plan), st.SRA1(sde, dt=eta / HALVES)

    etas = ETAS[1:]
    found = st.order_study(scheduled, etas, START, 1.0, observe=["x", "x**2"], **run.options(paths=many(run)))
    exact = {
        h: sups(st.exact.gap(g.first, g.second, START, int(g.steps[-1]), h, record=g.steps) for g in found.gaps) for h in SMOOTH
    }
    for h in SMOOTH:
        estimates = found.estimates(h)
        room = 10 * max(e.stderr / value for e, value in zip(estimates, exact[h], strict=True))
        run.measure(f"{h}: farthest from the exact gap", off_exact(estimates, exact[h]), at_most=room)
        run.measure(f"{h}: fitted order", found.order(h), at_least=0.5)
    run.figure(
        "schedules", found.plot(exact=exact), r"SGDM with a moving schedule against the SDE with $\lambda_t$; dashed: exact."
    )
    with run.control("lambda = 1 throughout"):
        wrong = st.order_study(lambda eta: scheduled(eta, False), etas, START, 1.0, observe=["x"], **run.options(paths=run.paths))
        run.measure("order of x", wrong.order("x"), at_least=0.5)


@st.claim(
    "fixed-sigma-to-gradient-flow",
    statement=r"For a fixed $\sigma$ the limit of SGD and SGDM is the gradient flow $\mathrm dX = -\nabla L\,\mathrm dt$, at rate $\eta$.",
    source="Section 3",
)
def gradient_flow(run):
    def flow(eta, beta, sigma=1.0):
        oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=sigma)
        plan = st.schedules.constant(eta, beta)
        return st.SGDM(oracle, plan), st.RI1(st.GradientFlow(oracle, plan), dt=eta)

    for beta in (0.0, 0.5):
        found = st.order_study(
            lambda eta, b=beta: flow(eta, b), ETAS, START, 1.0, observe=["x", "x**2"], **run.options(paths=many(run))
        )
        for h in ("x", "x**2"):
            exact = sups(st.exact.gap(g.first, g.second, START, int(g.steps[-1]), h, record=g.steps) for g in found.gaps)
            estimates = found.estimates(h)
            room = 10 * max(e.stderr / value for e, value in zip(estimates, exact, strict=True))
            run.measure(f"beta = {beta:g}, {h}: farthest from the exact gap", off_exact(estimates, exact), at_most=room)
            run.measure(f"beta = {beta:g}, {h}: fitted order", found.order(h), at_least=0.75)
    with run.control("sigma = eta^-1/2, whose limit is not deterministic"):
        loud = st.order_study(
            lambda eta: flow(eta, 0.5, eta**-0.5), ETAS, START, 1.0, observe=["x**2"], **run.options(paths=run.paths)
        )
        run.measure("order of x**2", loud.order("x**2"), at_least=0.75)


HALF_TIME = 0.5
"""At t = 1 the first order of the gap of E x^3 happens to cancel where there is no skewness."""


def third_moment(eta, kappa):
    """E x^3 of SGD from x = 1 on x^2/2 with noise of variance 1 and third moment kappa, sigma = eta^-1/2."""
    mean, variance, third = 1.0, 0.0, 0.0
    for _ in range(round(HALF_TIME / eta)):
        mean, variance, third = (1 - eta) * mean, (1 - eta) ** 2 * variance + eta, (1 - eta) ** 3 * third - eta**1.5 * kappa
    return mean**3 + 3 * mean * variance + third


def third_moment_of_sde(t=HALF_TIME):
    mean, variance = math.exp(-t), (1 - math.exp(-2 * t)) / 2
    return mean**3 + 3 * mean * variance


@st.claim(
    "skewed-noise-breaks-the-order",
    statement=r"With skewed noise, $E v^3 = \kappa \ne 0$ for all $\sigma$, SGD is only of order $1/2$ near its SDE: "
    r"$E x^3$ is off by $\tfrac{\kappa}{3}(1-e^{-3t})\sqrt\eta$. With $\kappa = 0$ the order is 1 whatever else the law is.",
    source="Definition 2.1, and the low-skewness condition of Malladi et al. (2022)",
)
def skewed(run):
    kappa = st.noise.centred_exponential(dim=1).skewness
    target = third_moment_of_sde()
    etas, measured = ETAS, []
    for i, eta in enumerate(etas):
        oracle = quadratic(eta, st.noise.centred_exponential(dim=1))
        run_at = st.simulate(
            st.SGD(oracle, st.schedules.constant(eta)),
            START,
            HALF_TIME,
            observe=["x**3"],
            times=[HALF_TIME],
            stream=4 * i,
            **run.options(paths=run.paths),
        )
        found = run_at.at("x**3")
        measured.append(Estimate(found.value - target, found.stderr, found.n, name=found.name))
        expected = third_moment(eta, kappa) - target
        run.measure(f"gap of x^3 at eta = {eta:g}", measured[-1], expected, tolerance=10 * found.stderr)
    for value, order, name in ((kappa, 0.5, "skewed"), (0.0, 1.0, "not skewed")):
        gaps = [abs(third_moment(eta, value) - target) for eta in DEEP]
        where, tolerance = limit(st.exact.local_orders(DEEP, gaps))
        run.measure(f"limit of the exact local order, {name}", where, expected=order, tolerance=tolerance + 0.01)
    leading = abs(third_moment(DEEP[-1], kappa) - target) / math.sqrt(DEEP[-1])
    # what is left over is of the next order, sqrt(eta) times a constant of order 1
    run.measure("constant", leading, expected=kappa / 3 * (1 - math.exp(-3 * HALF_TIME)), tolerance=3 * math.sqrt(DEEP[-1]))
    with run.control("order 1 in spite of the skewness"):
        gaps = [abs(third_moment(eta, kappa) - target) for eta in DEEP]
        run.measure("last local order", st.exact.local_orders(DEEP, gaps)[-1], at_least=0.75)
