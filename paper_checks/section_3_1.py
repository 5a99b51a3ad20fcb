"""Momentum reduces the variance of a single step, not that of the endpoint: section 3.1 on a linear loss.

Gradients g_k ~ N(c, I) that do not depend on x, momentum stationary in law, m_0 ~ N(c, r I) with r = (1 - beta) / (1 + beta). Then

    one step    z' - z ~ N(-eta c, eta^2 I),                          x' - x ~ N(-eta c, r eta^2 I)
    endpoint    z_k ~ N(z_0 - k eta c, k eta^2 I),                    x_k has k eta^2 - 2 beta eta^2 (1 - beta^k) / (1 - beta^2)

and the turbulence of the path decreases as well. In two dimensions, with s^2 = 1 for SGD and s^2 = r for SGDM,

    mean length of a step       eta s sqrt(pi / 2) 1F1(-1/2; 1; - |c|^2 / (2 s^2))    (mean of a Rice law, Rayleigh's for c = 0)
    mean variation of the loss  eta E |X|,  X ~ N(|c|^2, s^2 |c|^2)                   (mean of a folded normal law)

Starting from x_0 = k eta c puts the mean endpoint at the origin, so E |x_k|^2 / 2 is the endpoint's variance in one coordinate.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import erf, exp, pi, sqrt

import numpy as np
from _plain import ROUNDING, draws, follow, path, relative_distance, sgd as plain_sgd, sgdm as plain_sgdm, start_draws

import sdetools as st
from sdetools.plots import COLOURS, FAINT, INK, canvas

ETA, BETA, STEPS = 1 / 16, 0.9, 64
R = (1 - BETA) / (1 + BETA)
HORIZON = STEPS * ETA
SPREAD = "(x0**2 + x1**2) / 2"
DIRECTION = np.array([0.6, 0.8])
RESOLUTION = 0.02
"""Relative tolerance of a variance of single steps, whose two values differ by a factor of 19."""
TURBULENCE = 0.01
"""Relative tolerance of the turbulence of a path: a third of the least effect of momentum, 3 % of the length at |c| = 4."""


def linear(size: float):
    """Return the oracle with slope |c| = `size`, the start whose mean endpoint is the origin, and the schedule."""
    c = size * DIRECTION
    oracle = st.NoisyOracle(st.losses.linear(c), st.noise.gaussian(dim=2))
    return oracle, HORIZON * c, st.schedules.constant(eta=ETA, beta=BETA)


def sgd(size: float) -> st.SGD:
    """Return SGD on the linear loss."""
    oracle, _, plan = linear(size)
    return st.SGD(oracle, plan.averaged())


def sgdm(size: float, at_rest: bool = True) -> st.SGDM:
    """Return SGDM on the linear loss, with stationary or zero initial momentum."""
    oracle, _, plan = linear(size)
    return st.SGDM(oracle, plan, momentum=(size * DIRECTION * at_rest, R * np.eye(2) * at_rest))


def walk(run, dynamics: st.Dynamics, size: float, stream: int = 0) -> Callable[[int], st.studies.Simulation]:
    """Return the simulation of a dynamics, with the functionals that measure turbulence, as a function of its number of paths."""
    turbulence = [st.SquaredIncrements(0), st.PathLength(), st.LossVariation(dynamics.oracle.loss)]

    @lru_cache
    def simulated(paths: int) -> st.studies.Simulation:
        options = run.options(paths=paths, stream=stream, functionals=turbulence, times=[HORIZON])
        return st.simulate(dynamics, linear(size)[1], HORIZON, observe=["x0", SPREAD], **options)

    return simulated


def scaled(estimate: st.Estimate, unit: float, shift: float = 0.0) -> st.Estimate:
    """Return estimate / unit - shift."""
    return replace(estimate, value=estimate.value / unit - shift, stderr=estimate.stderr / unit)


def ratio(above: st.Estimate, below: st.Estimate) -> st.Estimate:
    """Return the ratio of two independent estimates, its error to first order."""
    value = above.value / below.value
    return replace(above, value=value, stderr=value * np.hypot(above.stderr / above.value, below.stderr / below.value))


def measure_walk(run, size: float) -> None:
    """Compare one path of the kernel, from a stationary start, with the equations at every step: x and the functionals along the path."""
    c = size * DIRECTION
    for name, dynamics in (("SGD", sgd(size)), ("SGDM", sgdm(size))):
        turbulence = [st.SquaredIncrements(0), st.PathLength(), st.LossVariation(dynamics.oracle.loss)]
        names = ["x0", SPREAD, *(one.name for one in turbulence)]
        found = path(dynamics, linear(size)[1], STEPS, ["x0", SPREAD], run.seed, functionals=turbulence)
        z, start = draws(dynamics, STEPS, run.seed), HORIZON * c
        rule, state, row = plain_sgd, (start,), (ETA,)
        if name == "SGDM":
            rule, state, row = plain_sgdm, (start, c + sqrt(R) * start_draws(dynamics, run.seed)), (ETA, BETA)
        x = follow(rule, state, [row] * STEPS, lambda k, x, z=z: c + z[k])
        moves = np.diff(x, axis=0)
        sums = [moves[:, 0] ** 2, np.sqrt((moves**2).sum(axis=1)), np.abs(moves @ c)]
        expected = [x[:, 0], (x**2).sum(axis=1) / 2, *(np.concatenate([[0.0], np.cumsum(one)]) for one in sums)]
        for h, one, other in zip(names, found.T, expected, strict=True):
            run.measure(f"{h} along one path beside its equations, {name}", relative_distance(one, other), at_most=ROUNDING)


def endpoint_variance(eta: float, beta: float, steps: int) -> float:
    """Return Var x_k for SGDM with stationary momentum.

    A draw has the weight (1 - beta^j) eta with j steps to go, and m_0 the weight eta beta (1 - beta^k) / (1 - beta).
    """
    left = np.arange(1, steps + 1)
    own = eta * (1 - beta**left)
    first = eta * beta * (1 - beta**steps) / (1 - beta)
    return float((own**2).sum() + first**2 * (1 - beta) / (1 + beta))


@st.claim(
    "section-3.1-one-step",
    statement=r"The variance of a single step is $\eta^2$ for SGD and $\frac{1-\beta}{1+\beta} \eta^2$ for SGDM with "
    r"$m_0 \sim N(c, \frac{1-\beta}{1+\beta} I)$, at every step.",
    source="Section 3.1",
)
def one_step(run):
    """Check the variance of a single step of SGD and SGDM."""
    size = 0.25
    run.note("A wrong rule, start or schedule is detected along one path, step by step, and a wrong closed form by its value.")
    measure_walk(run, size)
    closed = st.exact.warmup(ETA, BETA, STEPS)
    run.measure("variance of a step / eta^2 by the library, SGD", closed.one_step_sgd / ETA**2, 1.0, tolerance=ROUNDING)
    run.measure("variance of a step / eta^2 by the library, SGDM", closed.one_step_sgdm / ETA**2, R, tolerance=ROUNDING)

    def variance(dynamics):
        """Return the mean over all steps of (x_{k+1} - x_k)^2, minus the square of its mean eta c, as a function of the paths."""
        walked = walk(run, dynamics, size)
        shift = (size * DIRECTION[0]) ** 2
        return lambda paths: scaled(walked(paths).at("squared increments of x0"), STEPS * ETA**2, shift=shift)

    for name, dynamics, exact in (("SGD", sgd(size), 1.0), ("SGDM", sgdm(size), R)):
        found = run.decide(f"variance of a step / eta^2, {name}", variance(dynamics), expected=exact, relative=RESOLUTION)
    with run.control("SGDM's step as loud as SGD's"):
        run.measure("variance of a step / eta^2, SGDM", found, expected=1.0, tolerance=(1 - R) / 2)
    with run.control("m_0 = 0 in place of the draw at rest"):
        run.decide("variance of a step / eta^2, SGDM", variance(sgdm(size, at_rest=False)), expected=R, relative=RESOLUTION)


@st.claim(
    "section-3.1-endpoint",
    statement=r"$z_k$ has variance $k\eta^2$ and $x_k$ has $k\eta^2 - 2\beta\eta^2 \frac{1-\beta^k}{1-\beta^2}$, with the same "
    r"mean. The two differ by at most $\frac{2\eta^2}{1-\beta}$ for every $k$ (and even by less than half of that).",
    source="Section 3.1",
)
def endpoint(run):
    """Check the variance of the endpoint of SGD and SGDM, and the bound on their difference."""
    size, warmup = 1.0, st.exact.warmup(ETA, BETA, STEPS)
    run.note("A wrong rule, start, schedule or moment is detected along one path and in the moments, each step by step.")
    measure_walk(run, size)
    correction = 2 * BETA * ETA**2 * (1 - BETA**STEPS) / (1 - BETA**2)
    first, second = STEPS * ETA**2, STEPS * ETA**2 - correction
    run.measure(
        "the statement's formula beside the weights of all draws, SGDM",
        endpoint_variance(ETA, BETA, STEPS),
        second,
        tolerance=1e-12,
    )
    run.measure("variance by the library's closed form, SGD", warmup.endpoint_sgd, first, relative=ROUNDING)
    run.measure("variance by the library's closed form, SGDM", warmup.endpoint_sgdm, second, relative=ROUNDING)
    ends = {}
    for name, dynamics, exact in (("SGD", sgd(size), first), ("SGDM", sgdm(size), second)):
        end = walk(run, dynamics, size)
        recursion = st.exact.moments(dynamics, linear(size)[1], STEPS).covariance[-1]
        run.measure(f"variance by moment recursion, {name}", recursion[0, 0], expected=exact, tolerance=1e-12)
        middle = st.exact.moments(dynamics, linear(size)[1], STEPS, record=[7])
        drawn = 7 * ETA**2 if name == "SGD" else endpoint_variance(ETA, BETA, 7)
        run.measure(f"variance after 7 steps by moment recursion, {name}", middle.covariance[0, 1, 1], drawn, tolerance=1e-12)
        away = relative_distance(middle.mean[0], (STEPS - 7) * ETA * size * DIRECTION)
        run.measure(f"mean after 7 steps by moment recursion, {name}", away, at_most=ROUNDING)
        # a quarter of the correction, so that a correction of half its size or of twice it is detected
        ends[name] = run.decide(
            f"variance of the endpoint, {name}", lambda n, end=end: end(n).at(SPREAD), expected=exact, tolerance=correction / 4
        )
        # a twentieth of a standard deviation; the mean is the start's, k eta c = 4, minus k eta times the mean gradient
        run.decide(f"mean of the endpoint, {name}", lambda n, end=end: end(n).at("x0"), expected=0.0, tolerance=sqrt(exact) / 20)

    with run.control("the correction left out"):
        run.measure("variance of the endpoint, SGDM", ends["SGDM"], first, tolerance=correction / 4)
    with run.control("the steps taken for independent"):
        run.measure("variance of the endpoint, SGDM", ends["SGDM"], STEPS * R * ETA**2, tolerance=correction / 4)

    # SGDM and SGD on the same gradients: the difference itself, along the whole path
    gap = st.weak_gap(sgdm(0.0), sgd(0.0), [0.0, 0.0], HORIZON, observe=[SPREAD], **run.options(times="all"))
    largest, bound = gap.sup(SPREAD), 2 * ETA**2 / (1 - BETA)
    run.measure("largest difference of the variances", largest, expected=correction, tolerance=correction / 4)
    run.measure("largest difference of the variances, within the bound", largest, at_most=bound)
    with run.control("a quarter of the bound"):
        run.measure("largest difference of the variances", largest, at_most=bound / 4)
    parts = [
        (w.endpoint_sgd - w.endpoint_sgdm) * (1 - beta) / 2
        for beta in (0.1, 0.5, 0.9, 0.99, 0.999)
        for w in (st.exact.warmup(1.0, beta, k) for k in (1, 10, 100, 1000, 10_000))
    ]
    run.measure("largest difference over its bound, by formula, all beta and k", max(parts), at_most=0.5)
    run.figure("difference", lambda: plot_difference(gap, bound), "The variance of $x_k$ minus that of $z_k$; dashed: exact.")


def plot_difference(gap: st.studies.WeakGap, bound: float):
    """Plot the difference of the variances against time."""
    warmups = [st.exact.warmup(ETA, BETA, k) for k in gap.steps.tolist()]
    figure = gap.plot(SPREAD, exact=np.array([w.endpoint_sgdm - w.endpoint_sgd for w in warmups]))
    axes = figure.axes[0]
    axes.axhline(-bound, color=FAINT, linestyle=":")
    axes.annotate(r"$-2\eta^2/(1-\beta)$", (HORIZON, -bound), xytext=(-4, 4), textcoords="offset points", ha="right", color=FAINT)
    axes.set_ylabel("difference of variances", color=INK)
    return figure


def mean_length(size: float, variance: float) -> float:
    """Return E |m| for m ~ N(c, variance I) in the plane, |c| = size."""
    from scipy.special import hyp1f1

    return sqrt(variance * pi / 2) * float(hyp1f1(-0.5, 1.0, -(size**2) / (2 * variance)))


def mean_change(size: float, variance: float) -> float:
    """Return E |c . m|, by the folded normal law."""
    mean, deviation = size**2, size * sqrt(variance)
    return deviation * sqrt(2 / pi) * exp(-(mean**2) / (2 * deviation**2)) + mean * erf(mean / (deviation * sqrt(2)))


@st.claim(
    "section-3.1-turbulence",
    statement=r"The length of the path and the variation of the loss along it are smaller under momentum, by factors given by "
    r"the Rice and the folded normal distribution: $\sqrt{\frac{1-\beta}{1+\beta}}$ for the length when $c = 0$, and closer to 1 "
    r"for larger $|c|$.",
    source="Section 3.1",
)
def turbulence(run):
    """Check path length and loss variation of SGD and SGDM."""
    run.note("A wrong rule, start or functional is detected along one path, step by step; the means come from the named laws.")
    measure_walk(run, 1.0)
    sizes, formulas = (0.0, 0.25, 1.0, 4.0), {"path length": mean_length, "loss variation": mean_change}
    seen = {name: {} for name in formulas}
    for size in sizes:
        # independent draws, for a ratio of independent means
        plain, momentum = walk(run, sgd(size), size), walk(run, sgdm(size), size, stream=1)
        for name, formula in formulas.items():
            if size == 0 and name == "loss variation":
                continue  # a flat loss does not vary
            exact = formula(size, 1.0) * STEPS * ETA, formula(size, R) * STEPS * ETA
            parts = [lambda n, own=own, name=name: own(n).at(name) for own in (plain, momentum)]
            for method, part, value in zip(("SGD", "SGDM"), parts, exact, strict=True):
                run.decide(f"{name}, {method}, |c|={size}", part, expected=value, relative=TURBULENCE)
            seen[name][size] = run.decide(
                f"{name}, SGDM over SGD, |c|={size}",
                lambda n, parts=parts: ratio(parts[1](n), parts[0](n)),
                expected=exact[1] / exact[0],
                relative=TURBULENCE,
            )
    length = seen["path length"]
    with run.control("the length shrinks like the variance of a step"):
        run.measure("path length, SGDM over SGD, c=0", length[0.0], expected=R, relative=TURBULENCE)
    with run.control("c does not matter"):
        run.measure("path length, SGDM over SGD, |c|=1", length[1.0], expected=sqrt(R), relative=TURBULENCE)
    run.figure(
        "turbulence",
        lambda: plot_turbulence(seen, formulas),
        r"Turbulence under momentum over that of SGD, $\beta = 0.9$: measured (markers) and by formula (dashed).",
    )


def plot_turbulence(seen, formulas):
    """Plot the ratio of SGDM's turbulence to SGD's against |c|."""
    figure, axes = canvas()
    sizes = np.linspace(1e-3, 4.2, 200)
    for i, (name, points) in enumerate(seen.items()):
        exact = [formulas[name](s, R) / formulas[name](s, 1.0) for s in sizes]
        axes.plot(sizes, exact, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="exact" if i == 0 else None)
        measured = [[e.value, e.half_width] for e in points.values()]
        axes.errorbar(list(points), *np.transpose(measured), fmt="os"[i], markersize=5.5, color=COLOURS[i], label=name)
    axes.axhline(sqrt(R), color=FAINT, linestyle=":")
    label = {"xytext": (0, 4), "textcoords": "offset points", "ha": "right", "color": FAINT}
    axes.annotate(r"$\sqrt{(1-\beta)/(1+\beta)}$", (4.2, sqrt(R)), **label)
    axes.set_xlabel("$|c|$", color=INK)
    axes.set_ylabel("SGDM over SGD", color=INK)
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure
