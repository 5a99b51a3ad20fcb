"""Theorem 3.5, the joint law: the Lipschitz gap is 0.471 sqrt(eta / (1 - beta)) for every eta and beta.

A study along one path 1 - beta = lambda eta^alpha cannot show this; a grid over eta and beta can. The origin of 0.471: near the start both
processes are sums of noise. At k = s / (1 - beta) steps, and with r = eta / (1 - beta), SGD has variance r s. SGDM has not yet applied
its last 1 / (1 - beta) gradients in full and has variance r (s - 2 (1 - e^-s) + (1 - e^-2s) / 2). And E |N(0, v)| = sqrt(2 v / pi).
"""

from __future__ import annotations

import math

import numpy as np
from _common import (
    LIPSCHITZ,
    OBSERVE,
    START,
    constant_schedule,
    exact_curves,
    gap_tolerance,
    largest_relative_error,
    measure_equations,
    measure_sups,
    order_tolerance,
    pair,
    quadratic,
    sups,
)  # fmt: skip

import sdetools as st
from sdetools.plots import COLOURS, FAINT, INK, MARKERS, canvas

ETAS = [2.0**-k for k in (8, 9, 10, 11, 12)]
DAMPINGS = [2.0**-k for k in (3, 4, 5, 6)]
GRID = [(eta, damping) for eta in ETAS for damping in DAMPINGS]
DEEP = [(2.0**-20, 2.0**-5), (2.0**-20, 2.0**-7)]
CORRECTION = DAMPINGS[0] + math.sqrt(ETAS[0] / DAMPINGS[-1])
"""Upper bound of the relative error of the limit: 1 - beta for whole steps, sqrt(eta / (1 - beta)) for the drift."""


def constant():
    """Return sqrt(2 / pi) max_s [sqrt(s) - sqrt(s - 2 (1 - e^-s) + (1 - e^-2s) / 2)], attained at s = 1.06."""
    s = np.linspace(0.5, 2.0, 100_001)
    return math.sqrt(2 / math.pi) * np.max(np.sqrt(s) - np.sqrt(s + 2 * np.expm1(-s) - np.expm1(-2 * s) / 2))


def dynamics(eta, damping):
    """Return SGDM and SGD at eta and beta = 1 - damping."""
    return pair(quadratic(eta), st.schedules.constant(eta, beta=1 - damping))


def exponents(points, values, stderrs=None, paths=0):
    """Fit log gap = log C + a log eta + b log(1 - beta) by least squares, and return a and b as estimates."""
    design = np.column_stack([np.ones(len(points)), np.log(points)])
    weights = np.linalg.pinv(design)[1:]
    found = weights @ np.log(values)
    errors = np.sqrt(weights**2 @ (np.zeros(len(points)) if stderrs is None else np.asarray(stderrs) / values) ** 2)
    return [st.Estimate(float(a), float(s), paths) for a, s in zip(found, errors, strict=True)]


@st.claim(
    "theorem-3.5-joint-law",
    statement=r"Over a grid of $\eta$ and $\beta$ the largest gap of $h = |x - x_0|$ between SGDM and SGD collapses on "
    r"$0.471\,\sqrt{\eta/(1-\beta)}$.",
    source="Theorem 3.5",
)
def theorem_3_5_joint_law(run):
    """Check the exponents and the constant of the gap over a grid of eta and beta."""
    run.note(
        "A wrong rule, rate or noise scale is detected step by step, a wrong exponent or constant by exact values on the grid."
    )
    paths = run.scale(quick=run.paths, standard=run.paths // 5, full=run.paths // 5)
    gaps = []
    for i, (eta, damping) in enumerate(GRID):
        horizon = eta * math.ceil(4 / damping)  # the maximum lies at 1.06 / (1 - beta) steps
        gaps.append(st.weak_gap(*dynamics(eta, damping), START, horizon, observe=OBSERVE, stream=i, **run.options(paths=paths)))
    schedules = [constant_schedule(eta, 1 - damping, math.ceil(4 / damping)) for eta, damping in GRID]
    for k in (0, len(GRID) - 1):
        eta, damping = GRID[k]
        name = f"eta = {eta:g}, 1 - beta = {damping:g}"
        measure_equations(run, name, dynamics(eta, damping), schedules[k], [LIPSCHITZ])
    measured, exact = [gap.sup(LIPSCHITZ) for gap in gaps], sups(exact_curves(gaps, schedules, [LIPSCHITZ])[LIPSCHITZ])
    measure_sups(run, "grid", measured)
    values, errors = np.array([e.value for e in measured]), np.array([e.stderr for e in measured])
    run.measure(
        "farthest from the exact gap on the grid",
        largest_relative_error(measured, exact),
        at_most=gap_tolerance(LIPSCHITZ, paths),
    )

    in_eta, in_damping = exponents(GRID, values, errors, paths)
    exact_eta, exact_damping = (e.value for e in exponents(GRID, exact))
    for name, found, expected, axis in (("eta", in_eta, exact_eta, 0), ("1 - beta", in_damping, exact_damping, 1)):
        tolerance = order_tolerance(LIPSCHITZ, paths, [point[axis] for point in GRID])
        run.measure(f"exponent of {name}, beside the exact one on this grid", found, expected, tolerance)
    slack = CORRECTION / math.log(DAMPINGS[0] / DAMPINGS[-1])
    run.measure("exponent of eta", in_eta, 0.5, slack)
    run.measure("exponent of 1 - beta", in_damping, -0.5, slack)

    run.measure("the constant", constant(), 0.471, 5e-4)
    for eta, damping in DEEP:
        record = np.arange(math.ceil(4 / damping) + 1)
        gap = np.abs(st.exact.gap(*dynamics(eta, damping), START, int(record[-1]), LIPSCHITZ, record=record)).max()
        name = f"exact gap / sqrt(eta / (1 - beta)) at eta = 2^{math.log2(eta):.0f}, 1 - beta = 2^{math.log2(damping):.0f}"
        run.measure(name, gap / math.sqrt(eta / damping), constant(), constant() * (damping + math.sqrt(eta / damping)))
    run.figure(
        "collapse",
        collapse(values, exact),
        r"Left: the gap against $\eta$. Right: against $\eta/(1-\beta)$; the line is $0.471\sqrt{r}$.",
    )

    with run.control("collapse on eta alone"):
        run.measure("exponent of 1 - beta", in_damping, 0.0, slack)
    with run.control("collapse on eta (1 - beta), the learning rate of Eq. (1)"):
        run.measure("exponent of 1 - beta", in_damping, 0.5, slack)


def collapse(values, exact):
    """Plot the gap against eta and against eta / (1 - beta)."""
    figure, left = canvas(9.2, 4.0)
    left.remove()
    axes = figure.subplots(1, 2, sharey=True)
    points = np.array(GRID)
    for one, x, label in ((axes[0], points[:, 0], r"$\eta$"), (axes[1], points[:, 0] / points[:, 1], r"$\eta/(1-\beta)$")):
        for damping, colour, marker in zip(DAMPINGS, COLOURS, MARKERS, strict=False):
            own = points[:, 1] == damping
            one.loglog(x[own], values[own], marker, color=colour, label=rf"$\beta = {1 - damping:g}$")
            one.loglog(x[own], exact[own], linestyle=(0, (5, 3)), color=colour if one is axes[0] else INK, linewidth=1)
        one.set_xlabel(label)
        one.minorticks_off()
        one.grid(visible=True, color="#e6e6ea")
        one.spines[["top", "right"]].set_visible(False)
    r = np.array([ETAS[-1] / DAMPINGS[0], ETAS[0] / DAMPINGS[-1]])
    axes[1].loglog(r, constant() * np.sqrt(r), color=FAINT, linestyle=":", zorder=0)
    axes[0].set_ylabel(r"largest gap of $|x - x_0|$")
    axes[0].legend(frameon=False, fontsize=9)
    return figure
