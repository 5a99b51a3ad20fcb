"""Long paths: SGDM's stationary variance from time averages, and the exit time of a double well from its integral.

(a) Averages over a few long paths, with intervals from batch means, agree with Var = eta s^2 / (lam (2 - eta lam (1 - beta)/(1 + beta))).
(b) dX = -V' dt + sqrt(2 eps) dW leaves (-inf, c) after tau(x) = (1/eps) int_x^c e^{V(y)/eps} int_{-inf}^y e^{-V(z)/eps} dz dy on average.
Exits of Euler's scheme are seen at steps, so that it leaves (-inf, c) as the SDE leaves (-inf, c + 0.5826 sqrt(2 eps dt)): late by that times dtau/dc, to
order sqrt(dt). A boundary at c - 0.5826 sqrt(2 eps dt) removes this. The means of the scheme are exact numbers, so that simulations have no bias to allow for.
"""

from __future__ import annotations

import math

import numpy as np
from _plain import value_or_far
from scipy.optimize import bisect
from scipy.special import zeta
from scipy.stats import norm

import sdetools as st
from sdetools.studies.stopping import outside_of

LAM, ETA, S, BETA = 1.5, 0.5, 0.8, 0.9
EPS, START, END, DT = 0.2, -1.0, 0.75, 0.01


@st.claim(
    "stationary-average",
    statement=r"Time averages of SGDM on a quadratic converge to its stationary variance "
    r"$\eta s^2 / (\lambda(2 - \eta\lambda\frac{1-\beta}{1+\beta}))$, at the rate of their effective sample size.",
    source="Section 6",
)
def stationary_average(run):
    """Compare averages over 64 long paths with the closed form."""
    run.note(
        r"A fifth of each path is left out: the start is forgotten like $\beta^{k/2}$, so that the average has no bias to allow for. 2 % is the resolution; the "
        r"two formulas differ by more than a third."
    )
    oracle = st.NoisyOracle(st.losses.quadratic(LAM), st.noise.gaussian(dim=1), sigma=S)
    rule = st.SGDM(oracle, st.schedules.constant(ETA, BETA))
    exact = ETA * S**2 / (LAM * (2 - ETA * LAM * (1 - BETA) / (1 + BETA)))
    plain = ETA * S**2 / (LAM * (2 - ETA * LAM))

    def averaged(steps):
        options = {name: value for name, value in run.options().items() if name != "paths"}
        return st.stationary(rule, [0.0], 1.25 * steps * ETA, 64, ["x0**2"], **options).at()

    steps = run.scale(quick=8 * run.paths // 5, standard=run.paths, full=run.paths)
    found = run.decide("average of x^2", averaged, expected=exact, relative=0.02, paths=steps)
    run.table(
        "stationary variance of SGDM",
        [(exact, found.value, found.half_width, found.ess, found.autocorrelation_time, found.r_hat)],
        ["exact", "average", "half-width", "effective sample size", "autocorrelation time in steps", "split R-hat"],
    )
    run.measure("split R-hat of the paths", found.r_hat, at_most=1.01)
    with run.control("the formula of SGD, without the factor of momentum"):
        run.measure("average of x^2", found, expected=plain, relative=0.02)


def plain_exit_time(eps, start, end, points=200_001):
    """Return the double integral by the trapezoidal rule, from -4, where e^{-V/eps} is below 1e-100."""
    z = np.linspace(-4.0, end, points)
    potential = z**4 / 4 - z**2 / 2
    width = z[1] - z[0]
    weight = np.exp(-potential / eps)
    below = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) * width / 2)])
    outer = np.where(z >= start - 1e-12, np.exp(potential / eps) * below, 0.0)
    inside = outer[z >= start - 1e-12]
    return float((inside.sum() - (inside[0] + inside[-1]) / 2) * width / eps)


def plain_slope(eps, end, points=200_001):
    """Return dtau/dc at c = end, (1/eps) e^{V(c)/eps} int_{-inf}^c e^{-V(z)/eps} dz, by the trapezoidal rule."""
    z = np.linspace(-4.0, end, points)
    weight = np.exp(-(z**4 / 4 - z**2 / 2) / eps)
    return math.exp((end**4 / 4 - end**2 / 2) / eps) * (weight.sum() - (weight[0] + weight[-1]) / 2) * (z[1] - z[0]) / eps


def plain_chain_exit_time(dt, points):
    """Return the mean exit time of Euler's scheme from T(x) = dt + int N(y; x - dt V', 2 eps dt) T(y) dy at midpoints of (-4, END)."""
    width, deviation = (END + 4.0) / points, math.sqrt(2 * EPS * dt)
    grid = -4.0 + width * (np.arange(points) + 0.5)
    kernel = lambda x: width * norm.pdf(grid, (x + dt * (x - x**3))[:, None], deviation)  # noqa: E731
    inside = np.linalg.solve(np.eye(points) - kernel(grid), np.full(points, dt))
    return float(dt + (kernel(np.array([START])) @ inside)[0])


def mean_exit_time(of, start, **ends):
    """Return the mean exit time of the library, far off where it refuses a process: the statement covers all of this file."""
    return value_or_far(st.exact.exit_time, of, [start], **ends)


def shift_of(dt):
    """Return 0.5826 sqrt(2 eps dt), 0.5826 = -zeta(1/2) / sqrt(2 pi): the mean overshoot of a random walk."""
    return -float(zeta(0.5)) / math.sqrt(2 * math.pi) * math.sqrt(2 * EPS * dt)


def at_zero(steps, late):
    """Return the limit of late / sqrt(dt) for three dt that fall by 4 each, without the terms of orders 1/2 and 1."""
    a, b, c = (one / math.sqrt(dt) for one, dt in zip(late, steps, strict=True))
    return (4 * (2 * c - b) - (2 * b - a)) / 3


@st.claim(
    "exit-time",
    statement=r"$\mathrm dX = -V'\,\mathrm dt + \sqrt{2\varepsilon}\,\mathrm dW$ leaves $(-\infty, c)$ from $x$ after "
    r"$\frac1\varepsilon\int_x^c e^{V(y)/\varepsilon}\int_{-\infty}^y e^{-V(z)/\varepsilon}\,\mathrm dz\,\mathrm dy$ on average. "
    r"Exits seen at steps are late by $O(\sqrt{\mathrm dt})$; a boundary shifted by $0.5826\sqrt{2\varepsilon\,\mathrm dt}$ removes this.",
    source="S. Karlin, H. M. Taylor (1981), section 15.3; E. Gobet, S. Menozzi (2010)",
)
def exit_time(run):
    """Compare the integral with the library's, with chains, and with simulated exits."""
    exact = plain_exit_time(EPS, START, END)
    well = st.SDE(drift=["x - x**3"], diffusion=[repr(math.sqrt(2 * EPS))], variables="x")
    whole = mean_exit_time(well, START, high=END)
    run.measure("the library's integral", whole, exact, relative=1e-6)
    run.measure("the same for the mirror image", mean_exit_time(well, -START, low=-END), exact, relative=1e-6)
    motion = st.SDE(drift=["0"], diffusion=["1"], variables="x")
    run.measure(
        "Brownian motion from .25 in (-1, 1)", mean_exit_time(motion, 0.25, low=-1.0, high=1.0), 1 - 0.25**2, relative=1e-9
    )
    steps = [0.01, 0.0025, 0.000625]
    left = lambda dt, end: mean_exit_time(st.EulerMaruyama(well, dt), START, high=end)  # noqa: E731
    coarse, fine = (plain_chain_exit_time(0.05, points) for points in (400, 800))  # their error falls as the square of the width
    run.measure("mean of the scheme beside midpoints, dt = .05", left(0.05, END), (4 * fine - coarse) / 3, relative=1e-6)
    mirrored = mean_exit_time(st.EulerMaruyama(well, steps[0]), -START, low=-END)
    run.measure("mean of the scheme for the mirror image", mirrored, left(steps[0], END), relative=1e-8)
    late = [left(dt, END) / whole - 1 for dt in steps]
    shifted = [left(dt, END - shift_of(dt)) / whole - 1 for dt in steps]
    law = shift_of(1.0) * plain_slope(EPS, END) / exact
    run.note(
        r"The lateness over $\sqrt{\mathrm dt}$ is extrapolated from three $\mathrm dt$: the second extrapolation moves it by .001 of itself, and terms of order "
        r"$\mathrm dt^{3/2}$ are left. The simulation is compared with the exact mean of the scheme at its own $\mathrm dt$: 2 % is the resolution."
    )
    run.measure("lateness over sqrt(dt), beside its law", at_zero(steps, late) / law, expected=1.0, tolerance=0.002)
    run.measure("the same with a shifted boundary", at_zero(steps, shifted) / law, expected=0.0, tolerance=0.002)
    with run.control("a boundary that is shifted by 0.57 sqrt(2 eps dt)"):
        less = [left(dt, END - 0.57 * math.sqrt(2 * EPS * dt)) / whole - 1 for dt in steps]
        run.measure("lateness over sqrt(dt) with a shifted boundary", at_zero(steps, less) / law, expected=0.0, tolerance=0.002)

    leaves = outside_of(f"x > {END}", st.EulerMaruyama(well, DT), True)
    shown = value_or_far(bisect, lambda x: float(np.all(leaves(np.array([x])))) - 0.5, 0.5, END, xtol=1e-12)
    run.measure("boundary of the simulated exits", shown, END - shift_of(DT), tolerance=1e-9)

    def simulated(paths):
        horizon = 400.0  # 23 mean exit times: a path has not left with probability 1e-10
        return st.exit_time(
            st.EulerMaruyama(well, DT), [START], f"x > {END}", horizon, corrected=True, **run.options(paths=paths)
        ).mean()

    paths = run.scale(quick=2 * run.paths, standard=run.paths // 5, full=run.paths // 5)
    found = run.decide(
        "simulated, with a shifted boundary", simulated, expected=left(DT, END - shift_of(DT)), relative=0.02, paths=paths
    )
    kramers = math.pi * math.sqrt(2) * math.exp(0.25 / EPS)
    run.table(
        "mean exit time",
        [(exact, found.value, found.half_width, kramers, *late, *shifted)],
        [
            "integral",
            "simulated",
            "half-width",
            "Kramers",
            *(f"late at dt = {dt:g}" for dt in steps),
            *(f"shifted, {dt:g}" for dt in steps),
        ],
    )
    with run.control("the leading term of Kramers' law"):
        run.measure("simulated, with a shifted boundary", found, expected=kramers, relative=0.02)
    with run.control("a noise eps that is larger by a tenth"):
        run.measure("simulated, with a shifted boundary", found, expected=plain_exit_time(1.1 * EPS, START, END), relative=0.02)
