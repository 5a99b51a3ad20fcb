"""Long paths: SGDM's stationary variance from time averages, and the exit time of a double well from its integral.

(a) Averages over a few long paths, with intervals from batch means, agree with Var = eta s^2 / (lam (2 - eta lam (1 - beta)/(1 + beta))).
(b) dX = -V' dt + sqrt(2 eps) dW leaves (-inf, c) after tau(x) = (1/eps) int_x^c e^{V(y)/eps} int_{-inf}^y e^{-V(z)/eps} dz dy on average.
Exits of Euler's scheme are seen at steps, so that they are late by a term of order sqrt(dt), which a boundary at c - 0.5826 sqrt(2 eps dt) removes.
"""

from __future__ import annotations

import math

import numpy as np

import sdetools as st

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
    run.measure("the library's integral", st.exact.exit_time(well, [START], high=END), exact, relative=1e-6)
    steps = np.array([0.0025, 0.000625])
    late = [st.exact.exit_time(st.EulerMaruyama(well, dt), [START], high=END) / exact - 1 for dt in steps.tolist()]
    shift = 0.5825971579390107 * np.sqrt(2 * EPS * steps)
    ends = zip(steps.tolist(), (END - shift).tolist())
    shifted = [st.exact.exit_time(st.EulerMaruyama(well, dt), [START], high=end) / exact - 1 for dt, end in ends]
    run.measure("lateness at dt over that at dt/4: order 1/2", late[0] / late[1], expected=2.0, tolerance=0.25)
    run.measure("the same with a shifted boundary: order 1", shifted[0] / shifted[1], expected=4.0, tolerance=0.6)

    def simulated(paths):
        horizon = 400.0  # 23 mean exit times: a path has not left with probability 1e-10
        return st.exit_time(
            st.EulerMaruyama(well, DT), [START], f"x > {END}", horizon, corrected=True, **run.options(paths=paths)
        ).mean()

    paths = run.scale(quick=2 * run.paths, standard=run.paths // 5, full=run.paths // 5)
    found = run.decide("simulated, with a shifted boundary", simulated, expected=exact, relative=0.03, paths=paths)
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
        run.measure("simulated, with a shifted boundary", found, expected=kramers, relative=0.03)
    with run.control("a noise eps that is larger by a tenth"):
        run.measure("simulated, with a shifted boundary", found, expected=plain_exit_time(1.1 * EPS, START, END), relative=0.03)
