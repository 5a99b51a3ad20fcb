"""Theorem 3.5, constant schedules: the rate eta^((1-alpha)/2) is sharp for Lipschitz h, doubled for smooth h, halved for Hoelder h.

SGDM(eta, beta) against SGD(eta) on L = x^2/2 with sigma = eta^-1/2, 1 - beta = lambda eta^alpha, x_0 = 1, m_0 = 0, T = 1. Both
are Gaussian, so every gap has an exact value. Simulation confirms the exact curves, and the curves give the limiting orders.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from _common import (
    HOELDER,
    LIPSCHITZ,
    OBSERVE,
    SMOOTH,
    START,
    constant_schedule,
    exact_curves,
    gap_tolerance,
    limit,
    measure_equations,
    measure_study,
    pair,
    quadratic,
    sups,
)  # fmt: skip

import sdetools as st
from sdetools.plots import COLOURS, FAINT, canvas

DAMPING = {0.0: 0.1, 0.25: 0.2, 0.5: 0.4, 0.75: 0.8}
"""lambda for each alpha: all four families contain the same pair, beta = 0.9 at eta = 2^-4."""
ETAS = [2.0**-k for k in range(4, 9)]
AT = ETAS[2]
"""The eta at which path and moments are compared step by step."""
DEEP = [2.0**-k for k in range(12, 21, 2)]


def constant(eta, alpha):
    """Return SGDM and SGD at 1 - beta = lambda eta^alpha."""
    return pair(quadratic(eta), st.schedules.scaled(eta, alpha, damping=DAMPING[alpha]))


def schedule(eta, alpha):
    """Return the same pair's eta_k, beta_k and noise variance, by Definition 3.1."""
    return constant_schedule(eta, 1 - DAMPING[alpha] * eta**alpha, round(1 / eta))


def study(run, alpha):
    """Run the order study of a family."""
    return st.order_study(lambda eta: constant(eta, alpha), ETAS, START, 1.0, observe=OBSERVE, **run.options(paths=few(run)))


def few(run):
    """Return the number of paths. Few suffice, since the exact curves carry the claims and paths only confirm the simulation."""
    return run.scale(quick=run.paths, standard=run.paths // 4, full=run.paths // 4)


def deep_gaps(alpha, tests, etas=DEEP):
    """Return exact largest gaps at learning rates too small to simulate: `{h: (etas,)}`."""
    rows = []
    for eta in etas:
        steps = round(1 / eta)
        record = np.unique(np.geomspace(1, steps, 200).round().astype(int))
        sgdm, sgd = (st.exact.moments(one, START, steps, record=record) for one in constant(eta, alpha))
        rows.append([np.abs(st.exact.expectation(sgdm, h) - st.exact.expectation(sgd, h)).max() for h in tests])
    return dict(zip(tests, np.transpose(rows), strict=True))


def measure_limits(run, alpha, orders):
    """Check the limits of the local orders of the exact gaps, and return the gaps."""
    deep = deep_gaps(alpha, list(orders))
    for h, order in orders.items():
        value, tolerance = limit(st.exact.local_orders(DEEP, deep[h]))
        run.measure(f"limit of the local order of {h}, alpha = {alpha:g}, exact", value, expected=order, tolerance=tolerance)
    return deep


def measure_curves(run, alpha, found, tests):
    """Compare a study with the exact curves."""
    exact = {h: sups(curves) for h, curves in exact_curves(found.gaps, [schedule(eta, alpha) for eta in found.etas]).items()}
    measure_equations(run, f"alpha = {alpha:g}, eta = {AT:g}", constant(AT, alpha), schedule(AT, alpha), tests)
    measure_study(run, f"alpha = {alpha:g}", found, exact, tests)
    if alpha == 0:
        run.figure(
            f"alpha = {alpha:g}",
            found.plot(exact=exact, slopes=((1 - alpha) / 4, (1 - alpha) / 2, 1 - alpha)),
            rf"$\alpha = {alpha:g}$, $1 - \beta = {DAMPING[alpha]:g}\,\eta^{{{alpha:g}}}$: the largest gap; dashed: exact.",
        )


@st.claim(
    "theorem-3.5-constant",
    statement=r"As $\eta \to 0$ at a constant schedule with $1-\beta = \lambda\eta^\alpha$ and $\sigma = \eta^{-1/2}$ the weak gap between SGDM "
    r"and SGD has order $(1-\alpha)/2$ for Lipschitz $h$, so that the theorem's rate is attained, and twice this order, $1-\alpha$, "
    r"for smooth $h$.",
    source="Theorem 3.5",
)
def theorem_3_5_constant(run):
    """Check the orders for smooth and Lipschitz test functions."""
    run.note(
        "A wrong rule, rate, noise scale or moment is detected step by step: along a path of the kernel and in the exact moments, each "
        "against plain recursions. The orders are limits of exact curves, so that a wrong power is detected to one part in a hundred."
    )
    tests, local = (*SMOOTH, LIPSCHITZ), {}
    for alpha in DAMPING:
        measure_curves(run, alpha, study(run, alpha), tests)
        deep = measure_limits(run, alpha, {"x": 1 - alpha, "x**2": 1 - alpha, LIPSCHITZ: (1 - alpha) / 2})
        local[alpha] = {h: st.exact.local_orders(DEEP, gaps) / (1 - alpha) for h, gaps in deep.items()}
    run.figure("local orders", local_orders_figure(local, tests), r"Local orders of the exact curves in units of $1-\alpha$.")
    with run.control("SGD at the wrong learning rate, (1 - beta) eta, on the same clock"):

        def wrong(eta):
            sgdm, _ = constant(eta, 0.0)
            return sgdm, st.SGD(quadratic(eta), st.schedules.constant(DAMPING[0.0] * eta), step_time=eta)

        found = st.order_study(wrong, ETAS, START, 1.0, observe=OBSERVE, **run.options(paths=few(run)))
        run.measure("order of x**2, at least half of the theorem's", found.order("x**2"), at_least=0.25)
        run.measure("order of |x - 1|, at least half of the theorem's", found.order(LIPSCHITZ), at_least=0.25)


@st.claim(
    "definition-3.4-needs-lipschitz-h",
    statement=r"Definition 3.4 admits every $h$ of polynomial growth, a class too large for Theorem 3.5: for $h = |x-x_0|^{1/2}$ "
    r"the gap between SGDM and SGD is only of order $(1-\alpha)/4$ as $\eta \to 0$. After one step it is $0.562\,\eta^{1/4}$ at $\beta = 0.9$.",
    source="Definition 3.4, Theorem 3.5",
)
def definition_3_4_needs_lipschitz_h(run):
    """Check the order for a Hoelder test function."""
    for alpha in (0.0, 0.5):
        found = study(run, alpha)
        halfway = (1 - alpha) * 3 / 8
        measure_curves(run, alpha, found, [HOELDER])
        run.measure(
            f"order at alpha = {alpha:g}, nearer to (1 - alpha)/4 than to the theorem's", found.order(HOELDER), at_most=halfway
        )
        measure_limits(run, alpha, {HOELDER: (1 - alpha) / 4})
        with run.control(f"Lipschitz h falls short as well, alpha = {alpha:g}"):
            run.measure("order of |x - 1|", found.order(LIPSCHITZ), at_most=halfway)
        if alpha == 0:
            one_step(run, found)


def one_step(run, found):
    """Check the gap after one step.

    The first step moves SGD by sqrt(eta) N and SGDM by (1 - beta) of it: gap / eta^1/4 -> (1 - (1-beta)^1/2) E |N|^1/2.
    """
    from math import gamma, pi, sqrt

    absolute = 2**0.25 * gamma(0.75) / sqrt(pi)
    leading = (1 - sqrt(DAMPING[0.0])) * absolute
    run.measure("leading constant of one step", leading, expected=0.562, tolerance=5e-4)
    for eta, gap in ((found.etas[0], found.gaps[0]), (found.etas[-1], found.gaps[-1])):
        first = gap.at(HOELDER, gap.times[1])
        scaled = replace(first, value=abs(first.value) / eta**0.25, stderr=first.stderr / eta**0.25)
        # the drift of the first step, eta against noise of sqrt(eta), shifts E |N|^1/2 by O(eta)
        run.measure(
            f"one step at eta = {eta:g}: gap / eta^1/4", scaled, leading, leading * (eta + gap_tolerance(HOELDER, first.n))
        )


def local_orders_figure(local, tests):
    """Plot the local orders of the exact curves."""
    figure, axes = canvas()
    dashes = ("-", "--", "-.")
    for colour, (alpha, rows) in zip(COLOURS, local.items(), strict=False):
        for style, h in zip(dashes, tests, strict=True):
            name = rf"$\alpha = {alpha:g}$" if h == tests[0] else None
            axes.plot(DEEP[1:], rows[h], linestyle=style, color=colour, linewidth=1.6, label=name)
    for level in (0.5, 1.0):
        axes.axhline(level, color=FAINT, linestyle=":")
    axes.set_xscale("log")
    axes.set_ylim(0.3, 1.08)
    axes.set_xlabel(r"$\eta$")
    axes.set_ylabel(r"local order / $(1-\alpha)$")
    axes.legend(
        frameon=False, fontsize=9, title="solid $x$, dashed $x^2$, dash-dot $|x-1|$", title_fontsize=9, ncols=4, loc=(0.08, 0.34)
    )
    return figure
