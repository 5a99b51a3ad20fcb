"""Over O(1/eta^2) steps SGD and SGDM, alpha in (0, 1), tend in law to the slow SDE on the manifold of minimisers.

The laws of endpoints after T / eta^2 steps are compared by Wasserstein-1 and Kolmogorov distances with paths of the slow SDE and, where it
is known, with its law: on the valley L = e^x y^2 / 2 it is N(x_0 - t/4, t), on the circle the angle is N(0, t). On the hyperbola
q = x^2 - y^2 is conserved by the gradient flow, so that E q is constant and d E q^2 = 4 E sqrt(q^2 + 4) dt.

Such distances detect the shape of a law and shifts of a few standard errors. The coefficients of the slow SDE are checked exactly in
addition, by single steps of the compiled program.

Two distances are reported: that to the law of Phi(X), computed from conserved quantities of the flow, and that to the law of X itself,
which includes the fluctuation across the manifold, of size sqrt(eta).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from _slow import (
    RATE,
    SIGMA,
    distance_to_support,
    measure_clock,
    measure_program,
    relative_error,
    slow_step,
    tangent_projection_at,
)
from scipy.stats import wasserstein_distance

import sdetools as st
from sdetools.estimates.interval import HasInterval

GAUSSIAN, SIGNS = st.noise.gaussian(dim=2), st.noise.rademacher(dim=2)
ALPHAS = (0.25, 0.5, 0.75)
DAMPING = 0.5
REFERENCE = 1
"""Stream of draws for the slow SDE, so that the two samples of a distance are independent."""


@dataclass(frozen=True)
class Problem:
    """A loss with a manifold of minimisers.

    Attributes:
        loss: The loss.
        start: A point of the manifold.
        horizon: Time on the slow clock.
        noise: Noise that is cheap to draw.
        conserved: The conserved quantity of the gradient flow, as a function of the points.
        spread: The standard deviation of the conserved quantity, or a bound of it, as a function of the integral of lambda^2.
        law: Draws from the exact law of the conserved quantity, if known.
    """

    loss: st.losses.Loss
    start: tuple[float, float]
    horizon: float
    noise: st.noise.Noise
    conserved: object
    spread: object
    law: object = None


PROBLEMS = {
    "valley": Problem(
        st.losses.exponential_valley(1.0), (0.5, 0.0), 1.0, GAUSSIAN, lambda x: x[0] - x[1] ** 2 / 4, math.sqrt,
        lambda rng, n, clock: rng.normal(0.5 - clock / 4, math.sqrt(clock), n),
    ),
    "circle": Problem(
        st.losses.sphere(2), (1.0, 0.0), 0.5, SIGNS, lambda x: x[0] / np.hypot(x[0], x[1]),
        lambda clock: (1 - math.exp(-clock)) / math.sqrt(2),
        lambda rng, n, clock: np.cos(rng.normal(0.0, math.sqrt(clock), n)),
    ),
    "hyperbola": Problem(
        st.losses.hyperbola(), (1.0, 1.0), 0.25, SIGNS, lambda x: x[0] ** 2 - x[1] ** 2,
        lambda clock: math.sqrt((2 + 2 * clock) ** 2 - 4),  # v' = 4 E sqrt(q^2 + 4) <= 4 sqrt(v + 4)
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fall(HasInterval):
    """The decrease of a distance from one sample to another; its interval combines both intervals and is conservative."""

    first: object
    last: object

    @property
    def value(self):
        return self.first.value - self.last.value

    @property
    def n(self):
        return self.first.n

    def confidence_interval(self, level=0.95):
        inner = 1 - (1 - level) / 2
        a, b = self.first.confidence_interval(inner), self.last.confidence_interval(inner)
        return st.ConfidenceInterval(a.low - b.high, a.high - b.low, level, a.kind)


def plan_of(eta, alpha, rate=1.0, horizon=None):
    """Return the schedule at eta and alpha on the slow clock."""
    return st.schedules.scaled(eta, alpha=alpha, damping=DAMPING, rate=rate, horizon=horizon, step_time=eta**2)


def optimiser(problem, eta, alpha, rate=1.0):
    """Return SGD (alpha None) or SGDM on the slow clock."""
    oracle = st.NoisyOracle(problem.loss, problem.noise)
    plan = plan_of(eta, alpha if alpha is not None else 0.5, rate, problem.horizon if callable(rate) else None)
    if alpha is None:
        return st.SGD(oracle, plan.averaged(), step_time=eta**2)
    return st.SGDM(oracle, plan, step_time=eta**2)


def slow_sde(problem, rate=1.0, steps=256):
    """Return the slow SDE under lambda_t = rate, by Euler-Maruyama in `steps` steps."""
    oracle = st.NoisyOracle(problem.loss, st.noise.gaussian(dim=2))
    eta = math.sqrt(
        problem.horizon / steps
    )  # one step of the plan per step of the integrator, so that its averages are `rate` itself
    plan = st.schedules.scaled(
        eta, alpha=0.0, rate=rate, damping=DAMPING, horizon=problem.horizon if callable(rate) else None, step_time=eta**2
    )
    still = st.schedules.from_arrays(plan.eta_values, base=plan.eta)
    return st.EulerMaruyama(st.SlowSDE(oracle, still, at=problem.start), problem.horizon / steps)


def ends(run, dynamics, problem, paths, stream=0):
    """Return the endpoints of simulated paths."""
    options = run.options(paths=paths, stream=stream)
    return st.simulate(
        dynamics,
        x0=problem.start,
        horizon=problem.horizon,
        observe=[problem.loss.names[0]],
        times=[problem.horizon],
        keep_final=True,
        **options,
    ).final


def name_of(alpha):
    """Return the name of an optimiser."""
    return "SGD" if alpha is None else f"SGDM, alpha = {alpha:g}"


def bound_of(problem, paths, eta, clock=None):
    """Return the upper bound of W1 and its interval.

    It is twice the distance that two samples of one law, of `paths` and four times as many points, may have (five standard errors of their
    means, which is the tail of W1), plus a gap of order eta, both in standard deviations.
    """
    wide = problem.spread(problem.horizon if clock is None else clock)
    return wide * (10 / math.sqrt(0.8 * paths) + 3 * eta)


def cells(distance):
    """Return a distance and its noise floor as text."""
    return ("", "") if distance is None else (f"{distance.value:.4f}", f"{distance.floor_high:.4f}")


def compare(run, name, problem, etas, paths, rate=1.0, alphas=(None, *ALPHAS), kolmogorov=False):
    """Return the distances of each optimiser at each eta to the slow SDE, and the reference sample.

    The distances are {alpha: [(W_1 of the conserved quantity, Kolmogorov, the sample), ...]}. The Kolmogorov distance is None except at the
    last eta, where it is asked for. The table gives W_1 of X there, without an interval.
    """
    reference = ends(run, slow_sde(problem, rate), problem, 4 * paths, REFERENCE)
    kept = problem.conserved(reference)
    found, whole = {}, {}
    for alpha in alphas:
        found[alpha] = []
        for eta in etas:
            x = ends(run, optimiser(problem, eta, alpha, rate), problem, paths)
            own = problem.conserved(x)
            last = eta == etas[-1]
            largest = st.distance(own[None], kept[None], "kolmogorov", seed=run.seed) if last and kolmogorov else None
            found[alpha].append((st.distance(own[None], kept[None], seed=run.seed), largest, own))
            whole[alpha, eta] = f"{wasserstein_distance(x[0], reference[0]):.4f}" if last else ""
    run.table(
        f"{name}: distances to the slow SDE",
        [
            [name_of(alpha), f"{eta:g}", *cells(w), *cells(k), whole[alpha, eta]]
            for alpha, rows in found.items()
            for eta, (w, k, _) in zip(etas, rows)
        ],
        columns=["", "eta", "W1", "floor of W1", "Kolmogorov", "its floor", "W1 of X"],
    )  # fmt: skip
    return found, kept


def plot_distances(results):
    """Plot the distances against eta."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(results), 3.1), layout="constrained")
    for ax, (name, (etas, found)) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items()):
        for n, (alpha, rows) in enumerate(found.items()):
            w = [row[0] for row in rows]
            ax.errorbar(
                etas, [d.value for d in w], yerr=[[d.value - d.low for d in w], [d.high - d.value for d in w]],
                marker="osD^"[n], ms=4, lw=1, capsize=2, label=name_of(alpha),
            )  # fmt: skip
        ax.plot(etas, [rows[0].floor_high for rows in found[None]], "k:", lw=1, label="equal laws")
        ax.set(xscale="log", yscale="log", xlabel=r"$\eta$", title=name)
    figure.axes[0].set_ylabel(r"$W_1$ to the slow SDE")
    figure.axes[0].legend(fontsize=7)
    return figure


@st.claim(
    "theorem-4.5-in-law",
    statement=r"For $\alpha \in (0, 1)$ SGD and SGDM over $T/\eta^2$ steps converge in law to $\mathrm dX = -P\,\Sigma^{1/2}\mathrm dW + "
    r"\frac12\partial^2\Phi(X)[\Sigma]\,\mathrm dt$ on the manifold of minimisers.",
    source="Theorem 4.5",
)
def in_law(run):
    """Check convergence in law for three problems."""
    paths = run.scale(quick=4096, standard=65_536, full=131_072)
    etas = run.scale(quick=[0.1, 0.02], standard=[0.1, 0.05, 0.02, 0.01, 0.005], full=[0.1, 0.05, 0.02, 0.01, 0.005])
    results = {}
    rng = np.random.default_rng([run.seed, 1])
    # A few thousand paths do not resolve the smaller decreases.
    falls = ["hyperbola"] if run.budget == "quick" else list(PROBLEMS)
    for name, problem in PROBLEMS.items():
        own = etas if name in falls else etas[-1:]
        found, kept = compare(
            run,
            name,
            problem,
            own,
            paths,
            kolmogorov=True,
        )
        results[name] = own, found
        bound = bound_of(problem, paths, etas[-1])
        for alpha, rows in found.items():
            run.measure(f"{name}, {name_of(alpha)}: W1 at eta = {etas[-1]:g}", rows[-1][0], at_most=bound)
            most = run.scale(quick=0.13, standard=0.05, full=0.03)
            run.measure(f"{name}, {name_of(alpha)}: Kolmogorov there", rows[-1][1], at_most=most)
        if name in falls:
            run.measure(f"{name}, {name_of(0.75)}: the fall of W1", Fall(found[0.75][0][0], found[0.75][-1][0]), at_least=0.0)
        if problem.law is not None:
            exact = problem.law(rng, 4 * paths, problem.horizon)
            for alpha in (None, 0.5):
                w = st.distance(found[alpha][-1][2][None], exact[None], seed=run.seed)
                run.measure(f"{name}, {name_of(alpha)}: W1 to the closed form", w, at_most=bound)
            w = st.distance(kept[None], exact[None], seed=run.seed)
            run.measure(f"{name}, the slow SDE itself: W1 to the closed form", w, at_most=bound_of(problem, paths, 0.0))
    measure_program(run)
    run.figure(
        "Distances to the slow SDE",
        lambda: plot_distances(results),
        "Wasserstein-1 distance of $\\Phi(X)$ after $T/\\eta^2$ steps; dotted: 95 % quantile for two samples of one law.",
    )
    with run.control("the valley without the drift of the slow SDE"):
        driftless = rng.normal(0.5, 1.0, 4 * paths)
        run.measure(
            "W1 to N(x_0, t)", st.distance(results["valley"][1][None][-1][2][None], driftless[None], seed=run.seed), at_most=0.12
        )
    with run.control("a slow SDE at four fifths of the rate"):
        slower = PROBLEMS["circle"].conserved(
            ends(run, slow_sde(PROBLEMS["circle"], 0.8), PROBLEMS["circle"], 4 * paths, REFERENCE)
        )
        run.measure("W1", st.distance(results["circle"][1][0.5][-1][2][None], slower[None], seed=run.seed), at_most=0.02)


def batches_of_one(loss, spread=0.5):
    """Return the noise of eight samples (1 + spread s) L + s' x + s'' y with all sign combinations, one drawn a step.

    On the manifold the covariance is I, off it I + spread^2 grad L grad L^T.
    """
    slopes = [str(loss.expr.diff(name)) for name in loss.names]
    root = [[f"{spread}*({slope})", *("1" if i == j else "0" for j in range(2))] for i, slope in enumerate(slopes)]
    return st.noise.rademacher(root=root, variables=loss.names, parameters=dict(zip(loss.parameter_names, loss.parameters)))


@st.claim(
    "theorem-4.5-minibatch",
    statement=r"For minibatch noise, whose covariance depends on the state, the limit is the slow SDE with the covariance on the manifold.",
    source="Theorem 4.5",
)
def minibatch(run):
    """Check convergence in law under minibatch noise."""
    paths = run.scale(quick=4096, standard=32_768, full=131_072)
    etas = run.scale(quick=[0.02], standard=[0.1, 0.02, 0.01], full=[0.1, 0.02, 0.01, 0.005])
    found = {}
    for name, problem in PROBLEMS.items():
        noise = batches_of_one(problem.loss)
        found[name], _ = compare(run, name, replace(problem, noise=noise), etas, paths, alphas=(None, 0.5))
        for alpha, rows in found[name].items():
            run.measure(
                f"{name}, {name_of(alpha)}: W1 at eta = {etas[-1]:g}", rows[-1][0], at_most=bound_of(problem, paths, etas[-1])
            )
    # a covariance that changes along the circle, (1, x; x, 1 + x^2): in closed form at one point
    x = np.array([0.6, -0.8])
    root = SIGMA * np.array([[1.0, 0.0], [x[0], 1.0]])
    drift, moves, _ = slow_step(
        run, st.losses.sphere(2), st.noise.gaussian(root=[["1", "0"], ["x0", "1"]], variables="x0 x1"), list(x)
    )
    S = root @ root.T
    exact = (
        0.32 * tangent_projection_at("circle", x) @ (-2 * S @ x)
    )  # of d2(x/|x|)[S] = -2 S x - x tr S + 3 x (x.S x) only the first term is not normal
    run.measure("circle, a root that depends on x: a step's drift", relative_error(drift, exact), at_most=1e-5)
    away = distance_to_support(moves, RATE * tangent_projection_at("circle", x) @ root)
    run.measure("circle, a root that depends on x: a step's draws", away, at_most=2e-3)
    with run.control("batches whose tangent part has half the variance"):
        circle = PROBLEMS["circle"]
        half = replace(circle, noise=st.noise.rademacher(covariance=[0.5, 0.5]))
        x = circle.conserved(ends(run, optimiser(half, etas[-1], 0.5), circle, paths))
        own = circle.conserved(ends(run, slow_sde(circle), circle, 4 * paths, REFERENCE))
        run.measure("circle: W1", st.distance(x[None], own[None], seed=run.seed), at_most=0.06)


def oscillating(t):
    """Return a rate that oscillates between 1/2 and 3/2: its square has the integral 1.125 t over whole periods of a quarter."""
    return 1.0 + 0.5 * math.cos(8 * math.pi * t)


def decreasing(t):
    """Return a decreasing rate."""
    return 1.5 - t


@st.claim(
    "theorem-4.5-schedules",
    statement=r"With $\eta_k = \eta\lambda(k\eta^2)$ the limit is the slow SDE with $\lambda_t$: on the valley "
    r"$N(x_0 - \frac14\int\lambda^2, \int\lambda^2)$.",
    source="Theorem 4.5; Assumptions 4.3 and 4.4",
)
def schedules(run):
    """Check convergence in law under varying learning rates."""
    paths = run.scale(quick=4096, standard=32_768, full=131_072)
    etas = run.scale(quick=[0.02], standard=[0.1, 0.02, 0.01], full=[0.1, 0.02, 0.01, 0.005])
    rng = np.random.default_rng([run.seed, 2])
    valley = PROBLEMS["valley"]
    for label, rate, clock in (("swinging", oscillating, 1.125), ("falling", decreasing, (1.5**3 - 0.5**3) / 3)):
        found, kept = compare(run, f"valley, {label} rate", valley, etas, paths, rate, (None, 0.5))
        exact = valley.law(rng, 4 * paths, clock)
        bound = bound_of(valley, paths, etas[-1], clock)
        for alpha, rows in found.items():
            run.measure(f"{label} rate, {name_of(alpha)}: W1 to the slow SDE", rows[-1][0], at_most=bound)
            run.measure(
                f"{label} rate, {name_of(alpha)}: W1 to the closed form",
                st.distance(rows[-1][2][None], exact[None], seed=run.seed),
                at_most=bound,
            )
        run.measure(
            f"{label} rate: W1 of the slow SDE to the closed form",
            st.distance(kept[None], exact[None], seed=run.seed),
            at_most=bound_of(valley, paths, 0.0, clock),
        )
        measure_clock(run, rate, f"{label} rate")
    measure_program(run)
    circle = PROBLEMS["circle"]
    found, _ = compare(run, "circle, falling rate", circle, etas, paths, decreasing, (None, 0.5))
    bound = bound_of(circle, paths, etas[-1], (1.5**3 - 1.0**3) / 3)
    for alpha, rows in found.items():
        run.measure(f"circle, falling rate, {name_of(alpha)}: W1 to the slow SDE", rows[-1][0], at_most=bound)
    with run.control("the slow SDE at the constant rate 1"):
        flat = valley.law(rng, 4 * paths, 0.6)
        x = valley.conserved(ends(run, optimiser(valley, etas[-1], 0.5, decreasing), valley, paths))
        run.measure("W1", st.distance(x[None], flat[None], seed=run.seed), at_most=0.1)


@st.claim(
    "conserved-on-the-slow-clock",
    statement=r"Conserved quantities of the gradient flow test the slow SDE exactly: on the hyperbola $q = x^2 - y^2$ is a martingale with "
    r"$\mathrm d\,\mathbb E q^2 = 4\,\mathbb E\sqrt{q^2+4}\,\mathrm dt$.",
    source="Section 4; Katzenberger (1991)",
)
def conserved(run):
    """Check that the conserved quantity of the hyperbola is a martingale with the stated second moment."""
    problem, start = PROBLEMS["hyperbola"], (1.5, 1 / 1.5)
    q, paths = "x**2 - y**2", run.scale(quick=16_384, standard=131_072, full=1_000_000)
    eta = run.scale(quick=0.02, standard=0.01, full=0.005)
    times = np.linspace(0.0, 0.16, 17)[1:]
    q0 = start[0] ** 2 - start[1] ** 2
    oracle = st.NoisyOracle(problem.loss, SIGNS)
    plan = plan_of(eta, 0.5)
    members = {
        "the slow SDE": st.EulerMaruyama(
            st.SlowSDE(st.NoisyOracle(problem.loss, GAUSSIAN), plan.averaged(), at=start), 0.0025, "three-point"
        ),
        "SGD": st.SGD(oracle, plan.averaged(), step_time=eta**2),
        "SGDM": st.SGDM(oracle, plan, step_time=eta**2),
    }
    # at finite eta E q of SGD decreases by eta^2 E r^2 q a step, r = xy - 1 with E r^2 ~ eta/2
    slack = {"the slow SDE": 0.02, "SGD": eta, "SGDM": 6 * eta}
    curves = {}
    for name, dynamics in members.items():
        options = run.options(paths=paths)
        found = st.simulate(
            dynamics, x0=start, horizon=times[-1], observe=[q, f"({q})**2", f"sqrt(({q})**2 + 4)"], times=times, **options
        )
        for t in (times[7], times[-1]):
            run.measure(f"{name}: E q at t = {t:.2f}", found.at(q, t), expected=q0, tolerance=slack[name] + 13 / math.sqrt(paths))
        run.measure(
            f"{name}: E q^2 at t = {times[-1]:.2f}",
            found.at(1),
            expected=grown(q0, float(times[-1])),
            tolerance=5 * slack[name] + 80 / math.sqrt(paths),
        )
        curves[name] = [found.at(q, t) for t in times]
    measure_program(run, ["hyperbola"])
    run.figure("A martingale", lambda: martingale(times, curves, q0), "$E q$ along the slow clock, with 95 % intervals.")
    with run.control("x^2 + y^2, which the flow does not conserve"):
        found = st.simulate(
            members["the slow SDE"], x0=start, horizon=times[-1], observe=["x**2 + y**2"], times=times, **run.options(paths=paths)
        )
        run.measure("E (x^2 + y^2)", found.at(0), expected=start[0] ** 2 + start[1] ** 2, tolerance=0.02 + 13 / math.sqrt(paths))


def grown(q, t):
    """Return E q_t^2 from q: q^2 + 4 int E sqrt(q^2 + 4).

    E f(q_t) = f + t G f + t^2/2 G^2 f + ..., G = 2 sqrt(q^2 + 4) d^2/dq^2, for f = sqrt(q^2 + 4) with G f = 8/(q^2 + 4). The remainder is
    below 1e-3 up to t = 0.16 at q = 1.8.
    """
    r = q * q + 4
    terms = math.sqrt(r), 8 / r, 16 * math.sqrt(r) * (6 * q * q - 8) / r**3
    return q * q + 4 * sum(f * t ** (k + 1) / math.factorial(k + 1) for k, f in enumerate(terms))


def martingale(times, curves, q0):
    """Plot E q along the slow clock."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3))
    ax = figure.subplots()
    for n, (name, estimates) in enumerate(curves.items()):
        ax.errorbar(
            times + 0.001 * n,
            [e.value for e in estimates],
            yerr=[1.96 * e.stderr for e in estimates],
            fmt="o-",
            ms=3,
            lw=1,
            label=name,
        )
    ax.axhline(q0, color="k", lw=0.8, ls=":")
    ax.set(xlabel=r"$t = k\eta^2$", ylabel=r"$E\,(x^2 - y^2)$")
    ax.legend(fontsize=8)
    return figure
