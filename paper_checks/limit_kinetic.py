"""Beyond alpha < 1: the kinetic limit at alpha = 1, and frictionless motion for alpha > 1.

With 1 - beta = lambda eta the memory of the momentum is as long as the time scale of the motion (t = k eta), and SGDM tends to
dX = -M dt, dM = lambda ((grad L - M) dt + Sigma^{1/2} dW), not to the SDE of SGD. For alpha > 1 neither friction nor noise remains on the
clock tau = k eta^{(1+alpha)/2}: X'' = -lambda grad L(X). Both vanish only like f = eta^{(alpha-1)/2}. From X = 1 on x^2/2 and lambda = 1
the friction f contributes f (sin tau - tau cos tau) / 2 to E X, and friction and noise together contribute
f ((sin tau - tau cos tau) cos tau + tau / 2 - sin(2 tau) / 4) to E X^2.

The exact gaps are compared with recursions and matrix exponentials written here, the coefficients of the limits with the formulas
above at varying eta_k and beta_k, and the simulated gaps with the exact ones.
"""

from __future__ import annotations

import math

import numpy as np
from _common import START, measure_against_exact, quadratic, sups
from _linear import after, moment, solved

import sdetools as st

ETAS = [2.0**-k for k in range(4, 9)]
OBSERVE = ["x", "x**2"]
POWER = {"x": 1, "x**2": 2}
DEEP = [2.0**-k for k in range(8, 15, 2)]
ALPHA = 1.5
SPREAD = {"kinetic": {"x": 0.1, "x**2": 0.8}, "Hamiltonian": {"x": 1.4, "x**2": 1.4}}
"""Standard error of the largest gap, for one path and relative to the gap at its noisiest eta: upper bounds from a pilot run."""


def kinetic(eta, damping=1.0):
    """Return SGDM at alpha = 1 and BAOAB, of weak order 2, on its kinetic equation."""
    oracle, plan = quadratic(eta), st.schedules.scaled(eta, alpha=1.0, damping=damping)
    return st.SGDM(oracle, plan), st.BAOAB(st.KineticSDE(oracle, plan), dt=eta)


def overdamped(eta):
    """Return SGDM at alpha = 1 and Euler-Maruyama on the limiting SDE of SGD."""
    oracle, plan = quadratic(eta), st.schedules.scaled(eta, alpha=1.0, damping=1.0)
    return st.SGDM(oracle, plan), st.EulerMaruyama(st.LimitSDE(oracle, plan.averaged()), dt=eta)


def hamiltonian(eta, factor=1.0, alpha=ALPHA):
    """Return SGDM at alpha > 1 and BAOAB on the Hamiltonian motion."""
    oracle = quadratic(eta)
    plan = st.schedules.scaled(eta, alpha=alpha)
    other = plan if factor == 1 else st.schedules.scaled(eta, alpha=alpha, damping=factor)
    clock = eta ** ((1 + alpha) / 2)
    return st.SGDM(oracle, plan, step_time=clock), st.BAOAB(st.HamiltonianSDE(oracle, other), dt=clock)


def recorded(pair, eta, until):
    """Return 60 recorded steps, spaced geometrically."""
    return np.unique(np.geomspace(1, round(until / pair(eta)[0].step_time), 60).round().astype(int))


def deep_gap(pair, eta, h, until=1.0):
    """Return the exact gap to the limit at 60 steps, by the library."""
    first, second = pair(eta)
    record = recorded(pair, eta, until)
    law = st.exact.moments(first, START, int(record[-1]), record=record)
    exact = st.exact.solution(second.sde, START, record * first.step_time)
    return st.exact.expectation(law, h) - st.exact.expectation(exact, h)


def own_gap(pair, eta, h, until=1.0):
    """Return the same gap from matrices: SGDM is m' = beta m + (1 - beta) (x + sigma xi), x' = x - eta m'."""
    near, clock = (1 - eta, eta) if pair is kinetic else (1 - eta**ALPHA, eta ** ((1 + ALPHA) / 2))
    kick = (1 - near) / math.sqrt(eta) * np.array([-eta, 1.0])
    step = np.array([[1 - eta * (1 - near), -eta * near], [1 - near, near]]), np.outer(kick, kick)
    record = recorded(pair, eta, until)
    if pair is kinetic:
        limit = np.array([[0.0, -1.0], [1.0, -1.0]]), np.diag([0.0, 1.0])
    else:
        limit = np.array([[0.0, -1.0], [1.0, 0.0]]), np.zeros((2, 2))
    laws = after(step, [1.0, 0.0], record), solved(*limit, [1.0, 0.0], record * clock)
    return moment(laws[0], POWER[h]) - moment(laws[1], POWER[h])


def measure_deep(run, pair, etas, until, order, tolerance, rounding):
    """Compare the exact gaps with the recursions, and check their last local order."""
    for h in OBSERVE:
        gaps = [deep_gap(pair, eta, h, until) for eta in etas]
        apart = max(float(np.abs(gap - own_gap(pair, eta, h, until)).max()) for gap, eta in zip(gaps, etas, strict=True))
        run.measure(f"{h}: exact gap, farthest from its recursion", apart, at_most=rounding)
        local = float(st.exact.local_orders(etas, sups(gaps))[-1])
        run.measure(f"{h}: last exact local order", local, expected=order, tolerance=tolerance)


def coefficients_off(kind):
    """Return the largest error of a limit's coefficients, for a nonquadratic loss, state-dependent noise and a varying schedule."""
    loss = st.losses.from_expression("x**2/2 + x*y/3 + y**4/5", variables="x y")
    noise = st.noise.gaussian(root=[["1 + x**2/4", "0.3"], ["0.2*y", "0.8"]], variables="x y")
    eta, sigma, rng, worst = 0.125, 1.3, np.random.default_rng(2), 0.0
    oracle = st.NoisyOracle(loss, noise, sigma=sigma)
    etas, betas = eta / np.arange(1, 6), 1 - eta * (0.5 + np.arange(5))
    if kind == "kinetic":
        sde = st.KineticSDE(oracle, st.schedules.from_arrays(etas, betas, base=eta))
    else:
        sde = st.HamiltonianSDE(oracle, st.schedules.scaled(eta, alpha=ALPHA, damping=0.7))
    for k in range(5):
        x, m, u = rng.uniform(-1.5, 1.5, (3, 2))
        g = np.array([x[0] + x[1] / 3, x[0] / 3 + 4 / 5 * x[1] ** 3])
        root = np.array([[1 + x[0] ** 2 / 4, 0.3], [0.2 * x[1], 0.8]])
        # within a step and at its end, after which the coefficients jump; and in a step that spans three of the plan's
        for part, width in ((0.0, 1), (float(rng.uniform(0, 1)), 1), (1.0, 1), (0.33, 3), (0.66, 3), (1.0, 3)):
            s = sde.signal_values(np.array([k * eta]), part, width * eta)[0]
            j = min(k + math.ceil(part * width) - 1 if part else k, 4)
            if kind == "kinetic":
                drift = np.concatenate([-etas[j] / eta * m, (1 - betas[j]) / eta * (g - m)])
                force = (1 - betas[j]) / eta * sigma * eta**0.5 * root @ u
                diffusion = sde.diffusion(np.concatenate([x, m]), list(u), None, s)
                worst = max(worst, np.abs(diffusion - np.concatenate([0 * m, force])).max())
            else:
                drift = np.concatenate([-m, 0.7 * g])
                worst = max(worst, float(sde.noise_dim))
            worst = max(worst, np.abs(sde.drift(np.concatenate([x, m]), None, s) - drift).max())
    return float(worst)


@st.claim(
    "alpha-1-kinetic",
    statement=r"At $\alpha = 1$, $1-\beta = \lambda\eta$, SGDM tends to the kinetic equation $\mathrm dX = -M\,\mathrm dt$, "
    r"$\mathrm dM = \lambda((\nabla L - M)\,\mathrm dt + \Sigma^{1/2}\mathrm dW)$ with order 1 as $\eta \to 0$, and not to the SDE of SGD.",
    source="Section 6; the regime not covered by Theorem 3.5",
)
def alpha_1(run):
    """Check the kinetic limit at alpha = 1.

    Detects errors in r_t, lambda_t, sigma sqrt(eta), a sign or a term of the kinetic equation; a constant, a shift or a term of SGDM.
    """
    run.measure("coefficients: farthest from the formulas", coefficients_off("kinetic"), at_most=1e-12)
    exact = st.exact.solution(kinetic(ETAS[0])[1].sde, START, [1.0])
    run.measure("mean of the kinetic limit at t = 1, lambda = 1", exact.mean[0, 0], expected=0.65970, tolerance=1e-5)
    run.measure("variance of the kinetic limit", exact.covariance[0, 0, 0], expected=0.14008, tolerance=1e-5)
    sgdm = st.exact.moments(kinetic(1e-3)[0], START, 1000, record=[1000])
    run.measure("mean of SGDM at eta = 1e-3", sgdm.mean[0, 0], expected=0.65932, tolerance=1e-5)
    run.measure("variance of SGDM at eta = 1e-3", sgdm.covariance[0, 0, 0], expected=0.14031, tolerance=1e-5)
    # the order has an error of eta = 2^-12 times a constant of order one, plus that of a maximum over a grid of 60 steps
    measure_deep(run, kinetic, DEEP, 1.0, 1.0, 0.01, 1e-11)
    paths = run.scale(quick=2 * run.paths, standard=run.paths, full=run.paths // 4)
    found = st.order_study(kinetic, ETAS, START, 1.0, observe=OBSERVE, **run.options(paths=paths))
    curves = measure_against_exact(run, "kinetic", found, paths, SPREAD["kinetic"])
    run.figure("kinetic", found.plot(exact=curves), r"SGDM at $\alpha = 1$ against the kinetic equation; dashed: exact.")
    with run.control("the overdamped SDE"):
        wrong = st.order_study(overdamped, ETAS, START, 1.0, observe=OBSERVE, **run.options(paths=run.paths))
        run.measure("order of x", wrong.order("x"), at_least=0.5)
        run.measure("order of x**2", wrong.order("x**2"), at_least=0.5)


def leading(h):
    """Return the maximum of the leading term of the gap to frictionless motion up to tau = 2, divided by f."""
    tau = np.linspace(0, 2, 2049)
    mean = (np.sin(tau) - tau * np.cos(tau)) / 2
    return float(np.abs(mean if h == "x" else 2 * mean * np.cos(tau) + tau / 2 - np.sin(2 * tau) / 4).max())


@st.claim(
    "alpha-above-1-hamiltonian",
    statement=r"For $\alpha > 1$, on the clock $\tau = k\,\eta^{(1+\alpha)/2}$, SGDM tends to $X'' = -\lambda\nabla L(X)$, without "
    r"friction or noise, at the slow rate $\eta^{(\alpha-1)/2}$ as $\eta \to 0$.",
    source="The regime beyond Theorem 3.5",
)
def alpha_above_1(run):
    """Check the Hamiltonian limit for alpha > 1.

    Detects errors in lambda, a sign or a term of the Hamiltonian motion, noise or friction in it, the clock; a constant or a term of SGDM.
    """
    run.measure("coefficients: farthest from the formulas", coefficients_off("Hamiltonian"), at_most=1e-12)
    deep = [2.0 ** (-4 * k) for k in range(2, 5)]  # a whole number of steps of eta^1.25
    small = deep[-1] ** ((ALPHA - 1) / 2)
    # friction of f = eta^1/4 adds terms of f^2: orders and constants have errors of f times a constant of order one
    measure_deep(run, hamiltonian, deep, 2.0, (ALPHA - 1) / 2, 2 * small, 1e-8)
    for h in OBSERVE:
        constant = float(np.abs(deep_gap(hamiltonian, deep[-1], h, 2.0)).max()) / small
        run.measure(f"{h}: constant", constant, expected=leading(h), tolerance=2 * small)
    etas = [2.0**-4, 2.0**-8]
    paths = run.scale(quick=run.paths // 4, standard=run.paths // 20, full=run.paths // 20)
    found = st.order_study(hamiltonian, etas, START, 2.0, observe=OBSERVE, times=[0.5, 1.0, 1.5, 2.0], **run.options(paths=paths))
    measure_against_exact(run, "Hamiltonian", found, paths, SPREAD["Hamiltonian"])
    tau = np.linspace(0, 2, 81)
    run.figure("Hamiltonian", lambda: oscillation(tau), r"$E X$ of SGDM at $\alpha = 1.5$ for decreasing $\eta$, and $\cos\tau$.")
    with run.control("twice the lambda"):
        wrong = [2.0**-8]
        far = st.order_study(
            lambda e: hamiltonian(e, 2.0), wrong, START, 2.0, observe=["x"], times=[2.0], **run.options(paths=paths)
        )
        exact = math.cos(2.0) - math.cos(2.0 * math.sqrt(2.0))
        run.measure("gap of E X at tau = 2, eta = 2^-8", far.estimates("x")[0], at_most=abs(exact) / 4)


def oscillation(tau):
    """Plot E X of SGDM for decreasing eta."""
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
