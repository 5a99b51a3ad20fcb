"""Second-order modified equations: SGD and Eq. (1) stay within O(eta^2) of them, and only within O(eta) of those of first order.

A step y -> y + h c_1(y) + h^2 c_2(y) + ... in the mean is matched to second order by dY = (c_1 + h (c_2 - (grad c_1) c_1 / 2)) dt, and
noise of covariance h^2 S in one step by diffusion of covariance h S. Drift and diffusion are compared with this for SGD,
c_1 = -g and c_2 = 0, and for Eq. (1) in h = sqrt(gamma), where M' = (1 - mu h) M + h g, X' = X - h M'.

The test problem of Li, Tai and E: L(x) = x^T H x / 2, gradients H (x - g) with g ~ N(0, I), so Sigma = H^2 and sigma = 1. Optimiser and
equation are linear with additive noise and have exact moments. The gaps are maxima over all steps, since the error of the
first order can cross zero at one time. For SGD the gap of E lam x^2 / 2 is eta^2 lam/2 (-(2/3) lam^3 t x0^2 e^{-2 lam t} + (lam^2/2)
(1 - e^{-2 lam t})) with the correction and -eta lam^3 t x0^2 e^{-2 lam t} / 2 without.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from _common import EIGHT, largest_relative_error, sups
from _linear import flow, iterated, moment

import sdetools as st

LAM = np.array([2.0, 1.0])
H = np.diag(LAM)
X0 = [1.0, 1.0]
HORIZON = 2.0
BETA_MU = 1.5
"""mu = (1 - beta) / sqrt(gamma)."""
ETAS = [2.0**-k for k in range(3, 8)]
DEEP = {"SGD": [2.0**-k for k in range(6, 11)], "momentum": [4.0**-k for k in range(5, 10)]}
"""Step lengths h down to 2^-10 and 2^-9. The error of an order is h times a constant of order one."""
FINE = 4
"""Steps of SRA1, also of weak order 2, per step of SGD. Its error is a sixteenth of that of a step of eta."""
SPREAD = 1.5
"""Standard error of the second-order gap, for one path and relative to the gap at its noisiest eta: an upper bound from a pilot run."""
LOSS = "x0**2 + x1**2/2"


def oracle():
    """Return the oracle of the test problem."""
    return st.NoisyOracle(st.losses.quadratic(H), st.noise.gaussian(root=H), sigma=1.0)


def sgd(eta, order=2):
    """Return SGD and its modified equation."""
    return st.SGD(oracle(), st.schedules.constant(eta)), st.ModifiedSDE(oracle(), eta, order)


def momentum(eta, order=2):
    """Return heavy ball and its modified equation."""
    beta = 1 - BETA_MU * eta**0.5
    return (
        st.HeavyBall(oracle(), gamma=eta, beta=beta, step_time=eta**0.5),
        st.ModifiedMomentumSDE(oracle(), eta, beta, order),
    )


MAKE = {"SGD": sgd, "momentum": momentum}


@lru_cache
def exact_gap(make, eta, order):
    """Return the library's exact gap of E L over all steps."""
    optimiser, sde = make(eta, order)
    moved = st.exact.moments(optimiser, X0, round(HORIZON / optimiser.step_time))
    return st.exact.expectation(moved, LOSS) - st.exact.expectation(st.exact.solution(sde, X0, moved.times), LOSS)


def own_gap(name, eta, order):
    """Return the same gap from matrices written here, one curvature after another."""
    total = 0.0
    for lam in LAM:
        if name == "SGD":
            h, start = eta, [1.0]
            step = np.array([[1 - eta * lam]]), np.array([[(eta * lam) ** 2]])
            A, D = np.array([[-lam - (order == 2) * eta / 2 * lam**2]]), np.array([[eta * lam**2]])
        else:
            h, mu, start = eta**0.5, BETA_MU, [1.0, 0.0]
            kick = np.array([-h * h * lam, h * lam])  # effect of a gradient noise lam xi on x and m
            step = np.array([[1 - h * h * lam, -h * (1 - mu * h)], [h * lam, 1 - mu * h]]), np.outer(kick, kick)
            A = np.array([[0.0, -1.0], [lam, -mu]])
            if order == 2:  # h (c_2 - (grad c_1) c_1 / 2)
                A = A + h * (np.array([[-lam, mu], [0.0, 0.0]]) - A @ A / 2)
            D = np.diag([0.0, h * lam**2])
        steps = round(HORIZON / h)
        total = total + lam / 2 * (moment(iterated(step, start, steps), 2) - moment(iterated(flow(A, D, h), start, steps), 2))
    return total


def leading(order):
    """Return the maximum of the leading term of the gap of SGD, divided by eta^order."""
    t, lam = np.linspace(0, HORIZON, 2049)[:, None], LAM
    first = -(lam**3) * t * np.exp(-2 * lam * t) / 2
    second = lam / 2 * (-2 / 3 * lam**3 * t * np.exp(-2 * lam * t) + lam**2 / 2 * (1 - np.exp(-2 * lam * t)))
    return float(np.abs((first if order == 1 else second).sum(axis=1)).max())


def coefficients_off(name, order):
    """Return the largest error of drift and diffusion with respect to the matched ones.

    The points are random, the loss is not quadratic and the noise depends on the state.
    """
    loss = st.losses.from_expression("x**2/2 + x*y/3 + y**4/5", variables="x y")
    noise = st.noise.gaussian(root=[["1 + x**2/4", "0.3"], ["0.2*y", "0.8"]], variables="x y")
    sigma, h, mu = 1.3, 0.2, 0.7
    noisy, rng, worst = st.NoisyOracle(loss, noise, sigma=sigma), np.random.default_rng(1), 0.0
    for _ in range(8):
        x, m, u = rng.uniform(-1.5, 1.5, (3, 2))
        g = np.array([x[0] + x[1] / 3, x[0] / 3 + 4 / 5 * x[1] ** 3])
        hessian = np.array([[1.0, 1 / 3], [1 / 3, 12 / 5 * x[1] ** 2]])
        kick = sigma * h**0.5 * np.array([[1 + x[0] ** 2 / 4, 0.3], [0.2 * x[1], 0.8]]) @ u
        if name == "SGD":
            sde, at = st.ModifiedSDE(noisy, h, order), x
            c1, c2, curved, noisy_part = -g, 0 * g, hessian @ g, -kick
        else:
            sde, at = st.ModifiedMomentumSDE(noisy, h**2, 1 - mu * h, order), np.concatenate([x, m])
            force = g - mu * m
            c1, c2 = np.concatenate([-m, force]), np.concatenate([mu * m - g, 0 * m])
            curved, noisy_part = np.concatenate([-force, -mu * force - hessian @ m]), np.concatenate([0 * m, kick])
        drift = c1 + (order == 2) * h * (c2 - curved / 2)
        worst = max(worst, np.abs(sde.drift(at) - drift).max(), np.abs(sde.diffusion(at, list(u)) - noisy_part).max())
    return float(worst)


@st.claim(
    "modified-equations",
    statement=r"$\mathrm dX = -\nabla(L + \frac{\eta}{4}|\nabla L|^2)\,\mathrm dt + \sqrt\eta\,\Sigma^{1/2}\mathrm dW$ is a weak "
    r"approximation of SGD of order 2 in $\eta \to 0$; without the correction the order is 1. The same holds for its counterpart for "
    r"Eq. (1), in $h = \sqrt\gamma$.",
    source="Q. Li, C. Tai, W. E (2019), Theorems 9, 10 and 13",
)
def modified_equations(run):
    """Check coefficients, exact gaps and orders of the modified equations.

    Detects errors in sign, factor or presence of any term of a drift or diffusion ((h/2) Hess M among them), sigma, the square root of h, mu.
    """
    for name, make in MAKE.items():
        for order in (1, 2):
            off = coefficients_off(name, order)
            run.measure(f"{name}, order {order}: drift and diffusion, farthest from the matched ones", off, at_most=1e-12)
            apart = max(np.abs(exact_gap(make, eta, order) - own_gap(name, eta, order)).max() for eta in DEEP[name][::2])
            # rounding over a thousand steps; the smallest gap is 1e-7
            run.measure(f"{name}, order {order}: exact gap, farthest from its recursion", float(apart), at_most=1e-12)
            gaps = [float(np.abs(exact_gap(make, eta, order)).max()) for eta in DEEP[name]]
            scale = (
                DEEP[name] if name == "SGD" else np.sqrt(DEEP[name])
            )  # a step of momentum advances the clock by h = sqrt(gamma)
            local = float(st.exact.local_orders(scale, gaps)[-1])
            run.measure(f"{name}, order {order}: last exact local order", local, expected=order, tolerance=0.02)
            if name == "SGD":
                constant = gaps[-1] / DEEP[name][-1] ** order
                run.measure(f"SGD, order {order}: constant", constant, expected=leading(order), relative=0.01)
    paths = run.scale(quick=5 * run.paths, standard=2 * run.paths, full=run.paths)

    def pair(eta):
        optimiser, sde = sgd(eta)
        return optimiser, st.SRA1(sde, dt=eta / FINE)

    found = st.order_study(pair, ETAS, X0, HORIZON, observe=[LOSS], **run.options(paths=paths))
    exact = sups(st.exact.gap(g.first, g.second, X0, int(g.steps[-1]), LOSS, record=g.steps) for g in found.gaps)
    run.measure(
        "SGD: farthest from the exact gap",
        largest_relative_error(found.estimates(LOSS), exact),
        at_most=EIGHT * SPREAD / paths**0.5,
    )
    run.figure("order 2", found.plot(exact={LOSS: exact}, slopes=(1.0, 2.0)), "SGD against its modified equation of order 2.")
    with run.control("the first-order equation taken for the second"):
        local = st.exact.local_orders(DEEP["SGD"], [float(np.abs(exact_gap(sgd, eta, 1)).max()) for eta in DEEP["SGD"]])
        run.measure("last exact local order", float(local[-1]), at_least=1.5)
