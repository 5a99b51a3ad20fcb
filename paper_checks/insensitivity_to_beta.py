"""At a fixed learning rate beta hardly matters: from 0 to 0.99 it changes the law at T by less than sqrt(eta / (1 - beta)).

"Same learning rate" refers to the form of Definition 2.3, which averages past gradients. In the form of Eq. (1), which sums them,
the same gamma at another beta is another learning rate, gamma / (1 - beta). This is the control.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from _common import (
    LIPSCHITZ,
    OBSERVE,
    SPREAD,
    START,
    constant_schedule,
    exact_curves,
    gap_tolerance,
    largest_relative_error,
    measure_equations,
    measure_sups,
    pair,
    quadratic,
    sups,
)  # fmt: skip

import sdetools as st
from sdetools.plots import COLOURS, INK, MARKERS, canvas

ETA = 2.0**-8
LATE = SPREAD | {"x**2": 7.5}
"""`SPREAD` where 1 / (1 - beta) is a third of the run, at beta = 0.99."""
BETAS = [0.5, 0.8, 0.9, 0.95, 0.98, 0.99]  # at beta = 0 SGDM is SGD
TESTS = ["x", "x**2", LIPSCHITZ]
SYMBOLS = dict(zip(TESTS, ("$x$", "$x^2$", "$|x - x_0|$"), strict=True))


def bound(beta):
    """Return 0.471 sqrt(eta / (1 - beta)): the theorem's rate with the constant of Lipschitz h at the start, where it is attained."""
    return 0.471 * math.sqrt(ETA / (1 - beta))


def at_fixed_rate(beta):
    """Return SGDM and SGD at the learning rate ETA."""
    return pair(quadratic(ETA), st.schedules.constant(ETA, beta=beta))


def at_fixed_gamma(beta):
    """Return Eq. (1) at gamma = eta, which is SGDM at eta / (1 - beta), and SGD at the same gamma, on the same clock."""
    rate = st.schedules.constant(ETA / (1 - beta), beta=beta)
    return st.SGDM(quadratic(ETA), rate, step_time=ETA), st.SGD(quadratic(ETA), st.schedules.constant(ETA))


def endpoint(curve):
    """Return the absolute value at the last time."""
    return abs(float(curve[-1]))


def size(gap, h):
    """Return |gap| at T."""
    found = gap.at(h)
    return replace(found, value=abs(found.value))


@st.claim(
    "insensitivity-to-beta",
    statement=r"At a fixed learning rate, $\eta = 2^{-8}$, $\sigma = \eta^{-1/2}$, the gap between SGDM and SGD at $T = 1$ "
    r"stays below $0.471\,\sqrt{\eta/(1-\beta)}$ in $x$, $x^2$ and $|x - x_0|$ for $\beta$ from 0 to 0.99, "
    r"that is for $\eta/(1-\beta)$ from 0.004 to 0.39.",
    source="Theorem 3.5, section 6",
)
def insensitivity_to_beta(run):
    """Check the gap at T against the bound for a range of beta."""
    run.note("A wrong rule, rate or noise scale is detected step by step; the bound alone would not exclude it.")
    paths = run.scale(quick=run.paths, standard=run.paths // 4, full=run.paths // 4)
    gaps = [
        st.weak_gap(*at_fixed_rate(beta), START, 1.0, observe=OBSERVE, stream=i, **run.options(paths=paths))
        for i, beta in enumerate(BETAS)
    ]
    schedules = [constant_schedule(ETA, beta, round(1 / ETA)) for beta in BETAS]
    for beta, schedule in ((BETAS[0], schedules[0]), (BETAS[-1], schedules[-1])):
        measure_equations(run, f"beta = {beta}", at_fixed_rate(beta), schedule, TESTS)
    curves = exact_curves(gaps, schedules, TESTS)
    for h in TESTS:
        measure_sups(run, h, [gap.sup(h) for gap in gaps])
        away = largest_relative_error([gap.sup(h) for gap in gaps], sups(curves[h]))
        run.measure(f"{h}: farthest from the largest exact gap", away, at_most=gap_tolerance(h, paths, LATE))
        for beta, gap, curve in zip(BETAS, gaps, curves[h], strict=True):
            run.measure(f"{h}: |gap| at T, beta = {beta}", size(gap, h), at_most=bound(beta))
            run.measure(f"{h}: |gap| at T, beta = {beta}, exact", endpoint(curve), at_most=bound(beta))
    run.table(
        "gaps at T",
        [[b, ETA / (1 - b), bound(b), *(f"{endpoint(curves[h][i]):.5f}" for h in TESTS)] for i, b in enumerate(BETAS)],
        ["beta", "eta/(1-beta)", "bound", *(f"exact |gap| of {h}" for h in TESTS)],
    )
    run.figure(
        "gap at T",
        plot_gaps(gaps, curves),
        r"The gap at $T$ against $\eta/(1-\beta)$; dashed: exact; dotted: $0.471\sqrt{\eta/(1-\beta)}$.",
    )
    for beta in (0.5, 0.9):
        with run.control(f"the same gamma in Eq. (1), beta = {beta}"):
            found = st.weak_gap(*at_fixed_gamma(beta), START, 1.0, observe=OBSERVE, **run.options(paths=paths))
            run.measure("|gap| of x at T", size(found, "x"), at_most=bound(beta))


def plot_gaps(gaps, curves):
    """Plot the gap at T against eta / (1 - beta)."""
    figure, axes = canvas()
    r = ETA / (1 - np.array(BETAS))
    for h, colour, marker in zip(TESTS, COLOURS, MARKERS, strict=False):
        found = [size(gap, h) for gap in gaps]
        axes.errorbar(
            r,
            [e.value for e in found],
            [e.half_width for e in found],
            fmt=marker,
            color=colour,
            label=SYMBOLS[h],
        )
        axes.plot(r, [endpoint(curve) for curve in curves[h]], color=INK, linewidth=1, linestyle=(0, (5, 3)))
    axes.plot(r, [bound(beta) for beta in BETAS], color=INK, linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(r"$\eta/(1-\beta)$")
    axes.set_ylabel("gap at $T = 1$")
    axes.legend(frameon=False, fontsize=9)
    return figure
