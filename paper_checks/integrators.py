r"""The integrators keep their declared orders where the SDE is not linear, in law and path by path.

X = sinh(Y), dY = dt + s dW, solves dX = (sqrt(1 + X^2) + s^2 X / 2) dt + s sqrt(1 + X^2) dW, which is dX = sqrt(1 + X^2) (dt + s o dW) in
Stratonovich's sense. The exact Y runs on the same Brownian path as a scheme, so that the error of E asinh(X)^2 is measured as the mean
of asinh(X_dt)^2 - Y^2, whose variance falls with dt, and the strong error as the root mean square of asinh(X_dt) - Y.

The splittings have a kinetic equation with a force that is not linear, without a closed form: their E x^2 is set beside that of UBU
with a step of 1/64, whose own error is a part of 64 of that at 1/8, the shortest.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

import sdetools as st
from sdetools.weak import Estimate

S = 0.5
NOISE = {"variables": "x", "parameters": {"s": S}, "diffusion": ["s*sqrt(1 + x**2)"]}
ITO = st.SDE(drift=["sqrt(1 + x**2) + s**2*x/2"], **NOISE)
STRATONOVICH = st.SDE(drift=["sqrt(1 + x**2)"], **NOISE, calculus="stratonovich")
EXACT = st.SDE(drift=["1 + 0*x"], diffusion=[f"{S}"], variables="x")
SCHEMES = {
    "EulerMaruyama": (st.EulerMaruyama, ITO, None),  # its strong order, 1/2, is reached slowly where s is small
    "Milstein": (st.Milstein, ITO, 1.0),
    "Heun": (st.Heun, STRATONOVICH, 1.0),
    "Platen": (st.Platen, ITO, None),
    "RI1": (st.RI1, ITO, None),
}
SPLITTINGS = (st.OBABO, st.BAOAB, st.UBU)
STEPS = [2.0**-k for k in range(2, 6)]
LONG_STEPS = [2.0**-k for k in range(1, 4)]
PREASYMPTOTIC = 0.25
"""How far a local order may be from its limit at these steps for what is of the next order."""


def mean(values, name=""):
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size), values.size, name=name)


def errors(run, cls, sde, steps=STEPS):
    """Weak errors as Estimates, and strong ones."""
    weak, strong = [], []
    options = run.options(paths=run.scale(quick=20 * run.paths, standard=2 * run.paths, full=run.paths))
    for i, dt in enumerate(steps):
        pair = cls(sde, dt), st.EulerMaruyama(EXACT, dt)
        x, y = st.weak_gap(*pair, [0.0], 1.0, observe=["x"], times=[1.0], keep_final=True, stream=4 * i, **options).final
        x = np.arcsinh(x)
        weak.append(mean(x * x - y * y))
        square = mean((x - y) ** 2)
        strong.append(Estimate(math.sqrt(square.value), square.stderr / 2 / math.sqrt(square.value), square.n))
    return weak, strong


def local_orders(run, name, steps, found, order):
    """The order between the two finest steps, and the two before; `quick` has not paths enough for the two finest of order 2.

    Eight standard errors: five for its interval at the level of a whole run, three for where it falls.
    """
    pairs = list(zip(steps, steps[1:], found, found[1:], strict=False))[-2:]
    for dt, half, a, b in pairs[:1] if run.budget == "quick" else pairs:
        width = math.log(dt / half)
        error = math.hypot(a.stderr / a.value, b.stderr / b.value) / width
        slope = Estimate(math.log(abs(a.value / b.value)) / width, error, min(a.n, b.n))
        run.measure(f"{name}, {dt:g} to {half:g}", slope, expected=order, tolerance=PREASYMPTOTIC + 8 * error)


@st.claim(
    "integrators-keep-their-orders",
    statement=r"On SDEs that are not linear Euler-Maruyama, Milstein and Heun are of weak order 1, Platen, RI1, the splittings and "
    r"extrapolated Euler of weak order 2, and Milstein and Heun of strong order 1.",
    source="P. Kloeden, E. Platen (1992); A. Roessler (2009); D. Talay, L. Tubaro (1990)",
)
def orders(run):
    curves = {}
    for name, (cls, sde, strong_order) in SCHEMES.items():
        weak, strong = errors(run, cls, sde)
        curves[name] = weak
        local_orders(run, f"weak order of {name}", STEPS, weak, cls.weak)
        if strong_order is not None:
            local_orders(run, f"strong order of {name}", STEPS, strong, strong_order)
        if name == "EulerMaruyama":
            extrapolated = [Estimate(2 * b.value - a.value, math.hypot(2 * b.stderr, a.stderr), a.n) for a, b in pairwise(weak)]
            local_orders(run, "weak order of Euler extrapolated", STEPS, extrapolated, 2.0)
    run.figure("errors", lambda: picture(STEPS, curves), r"Error of $E\,\mathrm{asinh}(X_1)^2$, with reference slopes 1 and 2.")
    splittings(run)
    with run.control("a drift that is too small by 3 %: no convergence to the right limit"):
        slow = st.SDE(drift=["0.97*(sqrt(1 + x**2) + s**2*x/2)"], **NOISE)
        weak, _ = errors(run, st.Platen, slow)
        local_orders(run, "weak order of Platen", STEPS, weak, 2.0)


def splittings(run):
    eta = 2.0**-6
    loss = st.losses.from_expression("x**2/2 - cos(2*x)/2")
    oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=1), sigma=0.5 * eta**-0.5)
    sde = st.KineticSDE(oracle, st.schedules.scaled(eta, alpha=1.0, damping=2.0))
    options = run.options(paths=run.scale(quick=60 * run.paths, standard=8 * run.paths, full=2 * run.paths))

    def second(cls, dt, stream):
        return st.simulate(cls(sde, dt), [1.5], 2.0, observe=["x**2"], times=[2.0], stream=stream, **options).at("x**2")

    true, curves = second(st.UBU, 1 / 64, 400), {}
    for i, cls in enumerate(SPLITTINGS):
        found = [second(cls, dt, 4 * (10 * i + j + 1)) for j, dt in enumerate(LONG_STEPS)]
        apart = [Estimate(e.value - true.value, math.hypot(e.stderr, true.stderr), e.n) for e in found]
        curves[cls.__name__] = apart
        local_orders(run, f"weak order of {cls.__name__}", LONG_STEPS, apart, 2.0)
    run.figure(
        "splittings", lambda: picture(LONG_STEPS, curves), r"Error of $E\,X_2^2$ of a kinetic equation, with reference slopes."
    )


def picture(steps, curves):
    from sdetools.plots import loglog_orders

    values = {name: [abs(e.value) for e in row] for name, row in curves.items()}
    low = {name: [max(0.0, abs(e.value) - e.half_width) for e in row] for name, row in curves.items()}
    high = {name: [abs(e.value) + e.half_width for e in row] for name, row in curves.items()}
    return loglog_orders(np.array(steps), values, low, high, None, (1.0, 2.0), xlabel="step dt", ylabel="weak error")
