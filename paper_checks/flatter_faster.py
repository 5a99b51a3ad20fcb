"""Flatter, faster: 1 - beta = C eta^{2/3} is the fastest scaling along the minimisers, with eta^{-2/3} steps; and the constant C.

The heavy-ball form of Eq. (1) has learning rate eta, 1 - beta = C eta^g and label noise of size eps. Runs start on Gamma at rest.
tau_1 is the number of steps in which the distance across Gamma relaxes without noise. tau_2 is that of the motion along Gamma for noise so
small that this motion is far slower. T is the settling time, the last step at which the rms distance from the flattest minimum exceeds a
tenth of its initial value. A first-passage time would reward overshooting: it scales like eta^{-2/3} as well, but decreases up to beta = 1
and so has no optimal beta.

At g = 2/3 the energy across Gamma and the momentum along it have the same memory, and neither averages out. The limit is
X'' + X' + r A X = 0 on the clock (1 - beta) k, with a random energy A and r = eta^2 eps^2 chi / (4 (1 - beta)^3), chi the second
derivative of the sharpness along Gamma (`sdetools.exact.modes`). So (1 - beta) T is one function of r for every problem with one mode
across Gamma, T is shortest at r = 0.655, and C = (eps^2 chi / (4 r))^{1/3}, which the source does not give. In the EMA form alpha = 2.
"""

from __future__ import annotations

import math

import numpy as np
from _flatter import (
    FRACTION,
    across_steps,
    along_steps,
    best_restoring_rate,
    estimate,
    exponent,
    measure_limit,
    measure_modes,
    measure_passages,
    minibatch,
    scaling_function,
    sweep,
    uv,
    valley,
)
from _plain import already_contradicted

import sdetools as st
from sdetools.plots import COLOURS, INK, MARKERS, canvas

SOURCE = "Flatter, faster: scaling momentum for optimal speedup of SGD"


def powers(*logs):
    """Return powers of ten."""
    return [10.0**k for k in logs]


EXPONENTS = {  # g: (C, etas); away from g = 1/2, where tau_1 has a crossover at (1 - beta)^2 = 4 eta lam
    0.0: (0.9, powers(-1, -1.5, -2, -2.5)),
    0.2: (0.9, powers(-2, -2.5, -3, -3.5)),
    0.6: (0.3, powers(-1, -2, -3, -4)),
    2 / 3: (0.3, powers(-1, -2, -3, -4)),
    0.8: (0.3, powers(-1, -2, -3, -4)),
}
SEPARATE = 0.02
"""Upper bound of r in the measurement of tau_2, which is then at least 1/r = 50 memories 1 / (1 - beta) long."""
LARGEST_NOISE = 1.0


def separate_noise(problem, g):
    """Return the noise size at which r is at most SEPARATE for all etas."""
    scale, etas = EXPONENTS[g]
    return min(LARGEST_NOISE, math.sqrt(SEPARATE / max(problem.restoring_rate(eta, scale * eta**g, 1.0) for eta in etas)))


@st.claim(
    "flatter-faster-tau",
    statement=r"As $\eta \to 0$ with $1-\beta = C\eta^g$, the distance across $\Gamma$ relaxes in $\tau_1 \sim \eta^{-\max(1-g, g)}$ steps, and label "
    r"noise moves the minimiser along $\Gamma$ in $\tau_2 \sim \eta^{2g-2}$ steps. The two are equal at $g = 2/3$.",
    source=SOURCE,
)
def tau(run):
    """Check the exponents of the relaxation times across and along Gamma."""
    measure_modes(run)
    measure_passages(run)
    if already_contradicted(run):
        return
    paths = run.scale(quick=256, standard=2048, full=8192)
    drawn = []
    for problem in (valley(), uv()):
        rows, slopes = [], {}
        for i, (g, (scale, etas)) in enumerate(EXPONENTS.items()):
            eps = separate_noise(problem, g)
            mus = [scale * eta**g for eta in etas]
            across = [across_steps(run, problem, eta, mu) for eta, mu in zip(etas, mus, strict=True)]
            along = np.stack(
                [
                    along_steps(run, problem, eta, mu, eps, paths=paths, stream=8 * i + j)
                    for j, (eta, mu) in enumerate(zip(etas, mus, strict=True))
                ]
            )
            first, second = float(exponent(etas, np.array(across))), exponent(etas, along)
            run.measure(f"{problem.name}: exponent of tau_1, g = {g:.3g}", first, -max(1 - g, g), tolerance=0.05)
            found = estimate(second, paths)
            run.measure(f"{problem.name}: exponent of tau_2, g = {g:.3g}", found, 2 * g - 2, tolerance=0.05)
            ratio = float(np.min(along[:, 0] / across))
            run.measure(f"{problem.name}: least tau_2 / tau_1, g = {g:.3g}", ratio, at_least=10)
            slopes[g] = first - second
            rows.append((f"{g:.3g}", scale, f"{eps:.3g}", f"{first:.4f}", f"{second[0]:.4f}", f"{ratio:.3g}"))
            drawn.append((g, etas, across, along[:, 0]))
        above = [g for g in EXPONENTS if g > 0.5]
        meet = np.array([np.interp(0.0, column[::-1], above[::-1]) for column in np.transpose([slopes[g] for g in above])])
        run.measure(f"{problem.name}: g at which the exponents meet", estimate(meet, paths), 2 / 3, tolerance=0.05)
        run.table(problem.name, rows, ["g", "C", "eps", "exponent of tau_1", "exponent of tau_2", "least tau_2 / tau_1"])
    run.figure(
        "times", lambda: tau_figure(drawn), r"$\tau_1$ (open) and $\tau_2$ (filled) on the valley; lines: the predictions."
    )
    with run.control("tau_1 ~ eta^(g - 1) for every g, as without oscillation"):
        run.measure("exponent of tau_1, g = 0.8", first, -(1 - g), tolerance=0.05)
    with run.control("tau_2 ~ eta^-2, as without momentum"):
        run.measure("exponent of tau_2, g = 0.8", found, -2.0, tolerance=0.05)


def tau_figure(drawn):
    """Plot the measured relaxation times and their predicted powers."""
    figure, ax = canvas()
    for i, (g, etas, across, along) in enumerate(drawn[: len(EXPONENTS)]):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        ax.plot(etas, across, marker, color=colour, mfc="none")
        ax.plot(etas, along, marker, color=colour, label=f"g = {g:.3g}")
        for times, power in ((across, -max(1 - g, g)), (along, 2 * g - 2)):
            ax.plot(etas, times[-1] * (np.array(etas) / etas[-1]) ** power, color=colour, lw=0.7)
    ax.set(xscale="log", yscale="log", xlabel=r"$\eta$", ylabel="steps")
    ax.legend(fontsize=7)
    return figure


ETAS = powers(-1, -1.5, -2, -2.5, -3, -3.5, -4)
"""Learning rates over three decades."""


@st.claim(
    "flatter-faster-optimum",
    statement=r"As $\eta \to 0$ the settling time along the minimisers is shortest at $1-\beta = C\eta^{2/3}$, where it is of order $\eta^{-2/3}$ steps, for "
    r"label noise and for minibatches. $C = (\varepsilon^2\chi/4r)^{1/3}$ with $r = 0.655$ for every problem with one mode across $\Gamma$.",
    source=SOURCE,
)
def shortest(run):
    """Check the optimal momentum, the shortest settling time and the prefactor C."""
    measure_passages(run)
    measure_limit(run)
    if already_contradicted(run):
        return
    # with fewer paths neighbouring T have unusable errors where the rms overshoots, at the largest eta
    paths, etas = run.scale(quick=2048, standard=4096, full=16384), run.scale(quick=ETAS[::2], standard=ETAS, full=ETAS)
    drawn, rows = [], []
    for n, problem in enumerate((valley(), uv(), minibatch())):
        sweeps = [sweep(run, problem, eta, 1000 * (n + 1) + 50 * i, paths) for i, eta in enumerate(etas)]
        if not all(np.isfinite(one.optimum).all() for one in sweeps):
            run.measure(
                f"{problem.name}: exponent of the best 1 - beta", estimate(np.full(2, np.nan), paths), 2 / 3, tolerance=0.05
            )
            continue
        best, least = np.stack([one.optimum for one in sweeps], axis=1)
        slope, time = (np.polyfit(np.log(etas), rows_, 1)[0] for rows_ in (best, least))
        found = estimate(slope, paths)
        run.measure(f"{problem.name}: exponent of the best 1 - beta", found, 2 / 3, tolerance=0.05)
        run.measure(f"{problem.name}: exponent of the shortest T", estimate(time, paths), -2 / 3, tolerance=0.05)
        prefactor = np.exp(best[-3:] - 2 / 3 * np.log(etas[-3:])[:, None]).mean(axis=0)
        expected = problem.damping(1.0, best_restoring_rate())
        run.measure(f"{problem.name}: prefactor C at the three smallest eta", estimate(prefactor, paths), expected, relative=0.1)
        rows += [
            (
                problem.name,
                f"{eta:.3g}",
                f"{math.exp(b):.4g}",
                f"{math.exp(e[0]):.4g}",
                f"{math.exp(t):.4g}",
                f"{math.exp(e[1]):.4g}",
            )
            for eta, b, t, e in zip(etas, best[:, 0], least[:, 0], (one.expected for one in sweeps), strict=True)
        ]
        drawn.append((problem, sweeps))
        with run.control(f"{problem.name}: the best 1 - beta on the scale of the critical damping, eta^(1/2)"):
            run.measure("exponent of the best 1 - beta", found, 1 / 2, tolerance=0.05)
    run.table("The shortest settling time", rows, ["problem", "eta", "1 - beta", "by theory", "T", "by theory"])
    run.note(
        f"T is the last step at which the rms distance from the flattest minimum along the manifold exceeds {FRACTION:g} of its start; "
        f"its minimum over beta is that of a parabola in log(1 - beta). Theory: the exact moments of the limit at g = 2/3, r = {best_restoring_rate():.3f}."
    )
    run.figure(
        "collapse",
        lambda: collapse(drawn),
        r"$(1-\beta)T$ of all problems and $\eta$ against $r$; line: the limit's exact moments.",
    )


def collapse(drawn):
    """Plot the settling times of all problems against r."""
    figure, ax = canvas()
    for i, (problem, sweeps) in enumerate(drawn):
        for j, one in enumerate(sweeps):
            r = problem.restoring_rate(one.eta, one.mus)
            ax.plot(
                r,
                one.mus * one.times[:, 0],
                MARKERS[i],
                color=COLOURS[i],
                alpha=0.3 + 0.6 * j / (len(sweeps) - 1),
                label=problem.name if j == len(sweeps) - 1 else None,
            )
    logs = np.linspace(math.log(0.1), math.log(3), 200)
    ax.plot(np.exp(logs), np.exp(scaling_function()(logs)), "-", color=INK, lw=1, label="limit")
    ax.set(xscale="log", yscale="log", xlabel=r"$r = \eta^2\varepsilon^2\chi / 4(1-\beta)^3$", ylabel=r"$(1-\beta)\,T$")
    ax.legend(fontsize=8)
    return figure
