r"""Beyond alpha < 1: the kinetic limit at alpha = 1, and frictionless motion for alpha > 1.

With 1 - beta = lambda eta the memory of the momentum is as long as the time of the motion itself (t = k eta), and SGDM tends to
dX = -M dt, dM = lambda ((grad L - M) dt + Sigma^{1/2} dW), not to the SDE of SGD. For alpha > 1 neither friction nor noise is left on the
clock tau = k eta^{(1+alpha)/2}: X'' = -lambda grad L(X); both vanish like eta^{(alpha-1)/2} only.
"""

from __future__ import annotations

import math

import numpy as np
from _common import START, limit, off_exact, quadratic, sups

import sdetools as st

ETAS = [2.0**-k for k in range(4, 9)]
OBSERVE = ["x", "x**2"]
DEEP = [2.0**-k for k in range(8, 15, 2)]
ALPHA = 1.5


def kinetic(eta, damping=1.0):
    """SGDM at alpha = 1 and BAOAB, of weak order 2, on its kinetic equation."""
    oracle, plan = quadratic(eta), st.schedules.scaled(eta, alpha=1.0, damping=damping)
    return st.SGDM(oracle, plan), st.BAOAB(st.KineticSDE(oracle, plan), dt=eta)


def overdamped(eta):
    oracle, plan = quadratic(eta), st.schedules.scaled(eta, alpha=1.0, damping=1.0)
    return st.SGDM(oracle, plan), st.EulerMaruyama(st.LimitSDE(oracle, plan.averaged()), dt=eta)


def near_exact(run, name, found, tests):
    for h in tests:
        exact = sups(st.exact.gap(g.first, g.second, START, int(g.steps[-1]), h, record=g.steps) for g in found.gaps)
        estimates = found.estimates(h)
        # ten standard errors of the relative gap at the noisiest point: six for the band, four for the farthest of them
        room = 10 * max(e.stderr / value for e, value in zip(estimates, exact, strict=True))
        run.measure(f"{name}, {h}: farthest from the exact gap", off_exact(estimates, exact), at_most=room)
        yield h, exact


def deep_gap(pair, eta, h, until=1.0):
    first, second = pair(eta)
    steps = round(until / first.step_time)
    record = np.unique(np.geomspace(1, steps, 60).round().astype(int))
    moved = st.exact.moments(first, START, steps, record=record)
    exact = st.exact.solution(second.sde, START, record * first.step_time)
    return float(np.abs(st.exact.expectation(moved, h) - st.exact.expectation(exact, h)).max())


@st.claim(
    "alpha-1-kinetic",
    statement=r"At $\alpha = 1$, $1-\beta = \lambda\eta$, SGDM tends to the kinetic equation $\mathrm dX = -M\,\mathrm dt$, "
    r"$\mathrm dM = \lambda((\nabla L - M)\,\mathrm dt + \Sigma^{1/2}\mathrm dW)$ with order 1, and not to the SDE of SGD.",
    source="Section 6; the regime that Theorem 3.5 leaves out",
)
def alpha_1(run):
    exact = st.exact.solution(kinetic(ETAS[0])[1].sde, START, [1.0])
    run.measure("mean of the kinetic limit at t = 1, lambda = 1", exact.mean[0, 0], expected=0.65970, tolerance=1e-5)
    run.measure("variance of the kinetic limit", exact.covariance[0, 0, 0], expected=0.14008, tolerance=1e-5)
    sgdm = st.exact.moments(kinetic(1e-3)[0], START, 1000, record=[1000])
    run.measure("mean of SGDM at eta = 1e-3", sgdm.mean[0, 0], expected=0.65932, tolerance=1e-5)
    run.measure("variance of SGDM at eta = 1e-3", sgdm.covariance[0, 0, 0], expected=0.14031, tolerance=1e-5)
    paths = run.scale(quick=5 * run.paths, standard=run.paths, full=run.paths // 4)
    found = st.order_study(kinetic, ETAS, START, 1.0, observe=OBSERVE, **run.options(paths=paths))
    curves = {}
    for h, curve in near_exact(run, "kinetic", found, OBSERVE):
        curves[h] = curve
        run.measure(f"kinetic, {h}: fitted order", found.order(h), found.order(h).fit(curve), tolerance=0.2)
        value, tolerance = limit(st.exact.local_orders(DEEP, [deep_gap(kinetic, eta, h) for eta in DEEP]))
        run.measure(f"kinetic, {h}: limit of the exact local order", value, expected=1.0, tolerance=tolerance + 0.01)
    run.figure("kinetic", found.plot(exact=curves), r"SGDM at $\alpha = 1$ against the kinetic equation; dashed: exact.")
    with run.control("the overdamped SDE"):
        wrong = st.order_study(overdamped, ETAS, START, 1.0, observe=OBSERVE, **run.options(paths=run.paths))
        run.measure("order of x", wrong.order("x"), at_least=0.5)
        run.measure("order of x**2", wrong.order("x**2"), at_least=0.5)


def hamiltonian(eta, factor=1.0, alpha=ALPHA):
    oracle = quadratic(eta)
    plan = st.schedules.scaled(eta, alpha=alpha)
    other = plan if factor == 1 else st.schedules.scaled(eta, alpha=alpha, damping=factor)
    clock = eta ** ((1 + alpha) / 2)
    return st.SGDM(oracle, plan, step_time=clock), st.BAOAB(st.HamiltonianSDE(oracle, other), dt=clock)


@st.claim(
    "alpha-above-1-hamiltonian",
    statement=r"For $\alpha > 1$, on the clock $\tau = k\,\eta^{(1+\alpha)/2}$, SGDM tends to $X'' = -\lambda\nabla L(X)$, without "
    r"friction or noise, at the slow rate $\eta^{(\alpha-1)/2}$.",
    source="The regime beyond Theorem 3.5",
)
def alpha_above_1(run):
    etas = [2.0**-4, 2.0**-8]  # a whole number of steps of eta^1.25
    paths = run.scale(quick=run.paths // 4, standard=run.paths // 20, full=run.paths // 20)
    found = st.order_study(hamiltonian, etas, START, 2.0, observe=OBSERVE, times=[0.5, 1.0, 1.5, 2.0], **run.options(paths=paths))
    for _ in near_exact(run, "Hamiltonian", found, OBSERVE):
        pass
    mean = st.exact.moments(hamiltonian(1e-4)[0], START, 200_000, record=[200_000]).mean[0, 0]
    run.measure("mean of SGDM at tau = 2, eta = 1e-4", mean, expected=-0.333, tolerance=5e-4)
    deep = [2.0 ** (-4 * k) for k in range(2, 5)]
    for h in OBSERVE:
        local = st.exact.local_orders(deep, [deep_gap(hamiltonian, eta, h, 2.0) for eta in deep])
        # friction of eta^1/4 adds terms of eta^1/2: the local order is off by some of eta^1/4
        run.measure(f"last exact local order, {h}", local[-1], expected=(ALPHA - 1) / 2, tolerance=deep[-2] ** 0.25)
    tau = np.linspace(0, 2, 81)
    run.figure("Hamiltonian", lambda: oscillation(tau), r"$E X$ of SGDM at $\alpha = 1.5$ for falling $\eta$, and $\cos\tau$.")
    with run.control("twice the lambda"):
        wrong = [2.0**-8]
        far = st.order_study(
            lambda e: hamiltonian(e, 2.0), wrong, START, 2.0, observe=["x"], times=[2.0], **run.options(paths=paths)
        )
        exact = math.cos(2.0) - math.cos(2.0 * math.sqrt(2.0))
        run.measure("gap of E X at tau = 2, eta = 2^-8", far.estimates("x")[0], at_most=abs(exact) / 4)


def oscillation(tau):
    from sdetools.plots import canvas

    figure, axes = canvas()
    for power in (4, 8, 12):
        first, _ = hamiltonian(2.0**-power)
        record = np.unique(np.round(tau / first.step_time).astype(int))
        moved = st.exact.moments(first, START, int(record[-1]), record=record)
        axes.plot(moved.times, moved.mean[:, 0], label=rf"$\eta = 2^{{-{power}}}$")
    axes.plot(tau, np.cos(tau), "k--", label=r"$\cos\tau$")
    axes.set_xlabel(r"$\tau$")
    axes.set_ylabel(r"$E X$")
    axes.legend(frameon=False)
    return figure
