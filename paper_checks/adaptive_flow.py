r"""Adam and SGD part on a manifold of minimisers: one flattens the trace of the Hessian, the other the trace of the root of its diagonal.

L = (x^2 y - 1)^2/2 with label noise of deviation b, from (x, x^-2), clock t = eta^2 steps, 1 - beta2 = c eta^2, H = Hess L. SGD follows the flow of
-(b^2/4) tr H along the manifold; a method that divides by the root of v follows, with S = diag(v)^{-1/2} frozen in the derivative,

    dtheta = -(b^2/4) Proj_S [S grad sum_i S_i H_ii] dt,    dv = c (b^2 diag H - v) dt,

where Proj_S projects onto the tangent orthogonally for <., .>_{S^-1}. On the curve y = x^-2, where H_xx = 4/x^2 and H_yy = x^4, both are equations for x.
"""

from __future__ import annotations

import numpy as np
from _estimates import extrapolated
from _plain import value_or_far
from scipy.integrate import solve_ivp

import sdetools as st

B, C, START, T = 0.5, 4.0, 1.06, 4.0


def sgd_flow():
    """Return x(T) of SGD's flow, which rests at 2^(1/6)."""
    found = solve_ivp(lambda t, x: -(B**2) / 4 * (4 * x**3 - 8 / x**3) / (1 + 4 / x**6), (0, T), [START], rtol=1e-10, atol=1e-12)
    return float(found.y[0, -1])


def level(x):
    """Return b^2 diag H at (x, x^-2), where v rests."""
    return B**2 * np.array([4 / x**2, x**4])


def adaptive_flow(eps=0.0, share=1.0):
    """Return x(T) of the adaptive flow, which rests at 1, from `share` times the level of v: S = diag(v^{1/2} + eps)^{-1}."""

    def slope(t, state):
        x, *v = state
        S1, S2 = 1 / (np.sqrt(v) + eps)
        moved = -(B**2) / 4 * (4 * S2 * x**3 - 8 * S1 / x**3) / (1 / S1 + 4 / (x**6 * S2))
        return [moved, *(C * (level(x) - v))]

    return float(solve_ivp(slope, (0, T), [START, *(share * level(START))], rtol=1e-10, atol=1e-12).y[0, -1])


def problem():
    """Return the oracle: the loss with label noise."""
    noise = st.noise.gaussian(root=[["2*x*y"], ["x**2"]], variables="x y")
    return st.NoisyOracle(st.losses.from_expression("(x**2*y - 1)**2 / 2", variables="x y"), noise, sigma=B)


def of_library(kind):
    """Return x(T) of a slow equation of the library by Platen's scheme, which has order 2 in its steps, extrapolated."""

    def end(dt):
        return st.simulate(st.Platen(kind, dt), [START, START**-2], T, 2, observe=["x"], times=[T]).at("x").value

    coarse, fine = (value_or_far(end, dt) for dt in (0.05, 0.025))
    return (4 * fine - coarse) / 3


def method(name, eta):
    """Return SGD, RMSProp or Adam on the problem, with a step that takes the time eta^2."""
    oracle = problem()
    if name == "SGD":
        return st.SGD(oracle, st.schedules.constant(eta), step_time=eta**2)
    kind, beta = (st.RMSProp, 0.0) if name == "RMSProp" else (st.Adam, 0.9)
    return kind(
        oracle, st.schedules.constant(eta, beta), beta2=1 - C * eta**2, eps=1e-12, bias_correction=False,
        second_moment=level(START), step_time=eta**2,
    )  # fmt: skip


@st.claim(
    "adam-and-sgd-part-on-the-minimisers",
    statement=r"On $(x^2y - 1)^2/2$ with label noise, from $x = 1.06$, SGD moves towards $2^{1/6}$, RMSProp and Adam towards 1: each follows its flow "
    r"on the clock $\eta^2 k$ with a gap of order $\eta$, and $\beta_1$ does not enter.",
    source="derived; it agrees with the abstract of arXiv:2511.02773",
)
def part(run):
    """Compare x at t = 4, extrapolated in eta, with the flows."""
    paths, etas = (
        run.scale(quick=1_000, standard=8_000, full=20_000),
        run.scale(quick=(0.04, 0.02), standard=(0.02, 0.01), full=(0.02, 0.01)),
    )
    flows = {"SGD": sgd_flow(), "RMSProp": adaptive_flow(), "Adam": adaptive_flow()}
    run.note(
        r"What is left after extrapolation is of order $\eta^2$. Detects a denominator that does not enter the flow, and a wrong clock of $v$."
    )
    run.table("ends of the flows", [{"method": name, "x(4)": value} for name, value in flows.items()])
    plan, at = st.schedules.constant(0.01), [START, START**-2]
    own = {"beta2": 1 - C * 1e-4, "at": at}
    # the level of v alone cannot show the size of the noise: b^2 S^2 does not depend on it there
    for name, kind, end in (
        ("SlowSDE", st.SlowSDE(problem(), plan, at=at), flows["SGD"]),
        ("AdaptiveSlowFlow", st.AdaptiveSlowFlow(problem(), plan, eps=0.0, **own), flows["Adam"]),
        (
            "AdaptiveSlowFlow from twice the level of v, eps = .1",
            st.AdaptiveSlowFlow(problem(), plan, eps=0.1, second_moment=2 * level(START), **own),
            adaptive_flow(0.1, 2.0),
        ),
    ):
        run.measure(f"x at t = 4 by {name} beside the flow", of_library(kind), end, tolerance=1e-6)
    for i, (name, end) in enumerate(flows.items()):
        ends = []
        for j, eta in enumerate(etas):
            options = run.options(paths=paths, stream=2 * i + j)
            ends.append(st.simulate(method(name, eta), [START, START**-2], T, observe=["x"], times=[T], **options).at("x"))
        found = extrapolated(*ends)
        run.measure(f"{name}: x at t = 4, extrapolated", found, end, tolerance=0.02)
        if name == "SGD":
            run.measure("SGD moves up", found, at_least=START)
        else:
            run.measure(f"{name} moves down", found, at_most=START)
        with run.control(f"{name} along the other flow"):
            run.measure("x at t = 4", found, flows["RMSProp" if name == "SGD" else "SGD"], tolerance=0.02)
