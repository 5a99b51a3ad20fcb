r"""Local SGD near a manifold of minimisers: with label noise its drift along the manifold is stronger than that of SGD on the averaged gradients.

L = (x y - 1)^2/2 with label noise of deviation s, u = x^2 - y^2, K workers with H local steps each, and the clock t = eta^2 steps:

    du/dt = -(s^2/K) u (1 + (K-1) psi),   psi = 1 - (1 - a^H) / (H (1 - a)),  a = (1 - eta tr)^2,  tr = x^2 + y^2 = (u^2 + 4)^{1/2}

As eta -> 0 at a fixed eta H, psi tends to (e^-z - 1 + z)/z with z = 2 eta H tr. H = 1 is SGD with the noise of K averaged gradients.
"""

from __future__ import annotations

import math

import numpy as np
from _estimates import extrapolated, shifted
from scipy.integrate import solve_ivp

import sdetools as st

K, START, T = 4, (2.0, 0.5), 0.5


def flow(share):
    """Return u(T) of du/dt = -(1/K) u (1 + (K - 1) share(u))."""
    u0 = START[0] ** 2 - START[1] ** 2
    found = solve_ivp(lambda t, u: -u / K * (1 + (K - 1) * share(u[0])), (0, T), [u0], rtol=1e-10, atol=1e-12)
    return float(found.y[0, -1])


def share_of(eta, H):
    """Return psi for finite H as a function of u."""

    def share(u):
        a = (1 - eta * math.sqrt(u * u + 4)) ** 2
        return 1 - (1 - a**H) / (H * (1 - a))

    return share


def limit_of(z):
    """Return the limit of psi for eta H = z as a function of u."""

    def share(u):
        x = 2 * z * math.sqrt(u * u + 4)
        return (math.exp(-x) - 1 + x) / x

    return share


class Workers:
    """An oracle whose worker i has the gradient (i + 1) w + i."""

    def independent(self, i):
        return lambda w: (i + 1) * w + i


def measure_step(run):
    """Compare the steps of a round with their equations: three workers, two local steps, then their mean."""
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
    method, own = st.LocalSGD(oracle, st.schedules.constant(0.1), workers=3, local_steps=2), np.array([1.0, -0.5, 2.0])
    state, away = tuple(np.array([w]) for w in (own.mean(), *own))[-len(method.parts) :], 0.0
    for k, row in enumerate(method.coefficient_values(4)):
        state = method.rule(state, Workers(), *row)
        own = own - 0.1 * np.array([(i + 1) * w + i for i, w in enumerate(own)])
        mean = own.mean()
        own = np.full(3, mean) if k % 2 else own
        away = max(away, float(abs(state[0][0] - mean)))
    run.measure("mean of the workers along two rounds beside its equation, largest distance", away, at_most=1e-13)


@st.claim(
    "local-sgd-drifts-faster",
    statement=r"With label noise local SGD with $K$ workers and $H$ local steps moves along the minimisers of $(xy-1)^2/2$ by "
    r"$\dot u = -\frac{s^2}{K} u\,(1 + (K-1)\psi)$, $u = x^2 - y^2$, with $\psi$ from 0 at $\eta H = 0$ to 1.",
    source="X. Gu, K. Lyu, L. Huang, S. Arora, ICLR 2023; the general formula recalled, this case derived",
)
def drift(run):
    """Compare u after the time 1/2 of the slow clock with the flow, for three values of eta H."""
    paths, etas = run.scale(quick=2_000, standard=20_000, full=100_000), (0.02, 0.01)
    run.note(
        r"Values at $\eta$ and $\eta/2$ are extrapolated at a fixed $\eta H$. Detects a wrong mean of the workers and rounds of another length."
    )
    measure_step(run)
    noise = st.noise.gaussian(root=[["y"], ["x"]], variables="x y")
    oracle = st.NoisyOracle(st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y"), noise, sigma=1.0)
    for z in run.scale(quick=(0.5,), standard=(0.1, 0.5, 2.0), full=(0.1, 0.5, 2.0)):
        gaps, own = [], []
        for i, eta in enumerate(etas):
            H = round(z / eta)
            method = st.LocalSGD(oracle, st.schedules.constant(eta), workers=K, local_steps=H, step_time=eta**2)
            found = st.simulate(method, START, T, observe=["x**2 - y**2"], times=[T], **run.options(paths=paths, stream=i))
            own.append(flow(share_of(eta, H)))
            gaps.append(shifted(found.at("x**2 - y**2"), own[-1]))
        found = extrapolated(*gaps)
        run.measure(f"eta H = {z}: u less that of the flow", found, 0.0, tolerance=0.01)
        run.measure(f"eta H = {z}: flow at finite H beside its limit", own[1], flow(limit_of(z)), tolerance=0.05)
        with run.control(f"eta H = {z}: the flow of SGD with averaged gradients"):
            run.measure("u less that of the flow", shifted(found, flow(lambda u: 0.0) - own[1]), 0.0, tolerance=0.01)
