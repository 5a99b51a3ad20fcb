r"""Flatter, faster: 1 - beta = C eta^{2/3} moves fastest along the minimisers, in eta^{-2/3} steps; and what C is.

The heavy-ball form of Eq. (1) with learning rate eta and 1 - beta = C eta^g, label noise of size eps; runs start on Gamma at rest.
tau_1: the steps in which the distance across Gamma relaxes (no noise). tau_2: those of the motion along Gamma where noise is so small that
it is far slower. T: the settling time, the last step at which the rms distance from the flattest minimum exceeds a tenth of its start.
A first passage would reward overshooting. It scales like eta^{-2/3} as well, yet falls all the way to beta = 1: it has no best beta.

At g = 2/3 the energy across Gamma and the momentum along it forget equally fast, and neither averages out. What is left is
X'' + X' + r A X = 0 on the clock (1 - beta) k, with a random energy A and r = eta^2 eps^2 chi / (4 (1 - beta)^3), chi the second
derivative of the sharpness along Gamma (`sdetools.exact.modes`). So (1 - beta) T is one function of r for every problem with one mode
across Gamma, T is shortest at r = 0.655, and C = (eps^2 chi / (4 r))^{1/3}, which the source leaves open. In the EMA form this is alpha = 2.
"""

from __future__ import annotations

import math

import numpy as np
from _flatter import (
    EPS,
    FRACTION,
    across_steps,
    along_steps,
    best_stiffness,
    estimate,
    exponent,
    minibatch,
    settling,
    sweep,
    uv,
    valley,
)

import sdetools as st
from sdetools.exact.modes import flattening, relaxation_steps
from sdetools.plots import COLOURS, INK, MARKERS, canvas
from sdetools.weak import Estimate, SupEstimate

SOURCE = "Flatter, faster: scaling momentum for optimal speedup of SGD"


def powers(*logs):
    return [10.0**k for k in logs]


EXPONENTS = {  # g: (C, etas); away from g = 1/2, where (1 - beta)^2 = 4 eta lam makes tau_1 cross over
    0.0: (0.9, powers(-1.5, -2, -2.5, -3)),
    0.2: (0.9, powers(-2.5, -3, -3.5, -4)),
    0.6: (0.3, powers(-1, -2, -3, -4)),
    2 / 3: (0.3, powers(-1, -2, -3, -4)),
    0.8: (0.3, powers(-1, -2, -3, -4)),
}
SEPARATE = 0.02
"""tau_2 is taken where r is at most this: it is then 1/r = 50 memories 1 / (1 - beta) long."""
LARGEST_NOISE = 1.0


def separate_noise(problem, g):
    scale, etas = EXPONENTS[g]
    return min(LARGEST_NOISE, math.sqrt(SEPARATE / max(problem.stiffness(eta, scale * eta**g, 1.0) for eta in etas)))


@st.claim(
    "flatter-faster-tau",
    statement=r"With $1-\beta = C\eta^g$ the distance across $\Gamma$ relaxes in $\tau_1 \sim \eta^{-\max(1-g, g)}$ steps, and label "
    r"noise moves the minimiser along $\Gamma$ in $\tau_2 \sim \eta^{2g-2}$ steps: they meet at $g = 2/3$.",
    source=SOURCE,
)
def tau(run):
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
                    along_steps(run, problem, eta, mu, eps, paths=paths, stream=4 * (8 * i + j))
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
            drawn.append((problem.name, g, etas, across, along[:, 0]))
        above = [g for g in EXPONENTS if g > 0.5]
        meet = np.array([np.interp(0.0, column[::-1], above[::-1]) for column in np.transpose([slopes[g] for g in above])])
        run.measure(f"{problem.name}: g at which the exponents meet", estimate(meet, paths), 2 / 3, tolerance=0.05)
        run.table(problem.name, rows, ["g", "C", "eps", "exponent of tau_1", "exponent of tau_2", "least tau_2 / tau_1"])
    run.figure("times", lambda: tau_figure(drawn), r"$\tau_1$ (open) and $\tau_2$ (filled) on the valley; lines: the predictions.")
    problem, etas = valley(), powers(-1, -2, -3, -4)
    with run.control("g = 0.45, where the range of eta lies in the crossover"):
        crossing = [across_steps(run, problem, eta, 0.9 * eta**0.45) for eta in etas]
        run.measure("exponent of tau_1", float(exponent(etas, np.array(crossing))), -0.55, tolerance=0.05)
    with run.control("tau_2 of SGD, eta^-2 whatever beta is"):
        run.measure("exponent of tau_2, g = 2/3", estimate(meet * 0 + second_at(drawn, 2 / 3), paths), -2.0, tolerance=0.05)
