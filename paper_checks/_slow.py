"""Helpers of the checks of the slow SDE: losses whose Phi is known, d2Phi in closed form, and one step of the compiled program.

A step of Euler's scheme with three-point draws needs no average. Where all draws are 0 it moves by the drift alone; otherwise it
lands on one of 3^q points -lambda P sigma R u. The expected values are computed here, without `sdetools.manifold`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

import sdetools as st

STEP = 1e-8
"""Step of the scheme. Its own error is of this size in the drift, and of its square root in the diffusion."""
SIGMA, RATE, ETA = 1.3, 0.8, 0.1
ROOTS = {2: [[1.2, 0.3], [-0.4, 0.7]], 3: [[1.1, 0.2, -0.3], [0.4, 0.9, 0.1], [-0.2, 0.5, 0.8]]}
"""Square roots of anisotropic covariances, with tangent, normal and mixed parts."""
POINTS = {
    "valley": (st.losses.exponential_valley(1.0), [0.4, 0.0]),
    "circle": (st.losses.sphere(2), [0.6, -0.8]),
    "sphere": (st.losses.sphere(3), [2 / 3, -1 / 3, 2 / 3]),
    "hyperbola": (st.losses.hyperbola(), [2.0, 0.5]),
}


def closed_second_derivative(name, x, S):
    """Return d2Phi[S] at x in closed form: for Phi = (x - y^2/4, 0), for x/|x|, and on xy = 1, where the flow conserves x^2 - y^2."""
    if name == "valley":
        return np.array([-S[1, 1] / 2, 0.0])
    if name in ("circle", "sphere"):
        Sx = S @ x
        return -2 * Sx - x * np.trace(S) + 3 * x * (x @ Sx)
    # q(Phi(x)) = q(x) and Phi_1 Phi_2 = 1, differentiated twice
    P = np.outer([-x[0], x[1]], [-x[0], x[1]]) / (x @ x)
    tangent = P @ S @ P
    rows = np.array([[2 * x[0], -2 * x[1]], [x[1], x[0]]])
    return np.linalg.solve(rows, [2 * (S[0, 0] - S[1, 1]) - 2 * (tangent[0, 0] - tangent[1, 1]), -2 * tangent[0, 1]])


def tangent_projection_at(name, x):
    """Return the projection onto the tangent space from the normal: (0, 1), x, and (y, x)."""
    normal = np.array({"valley": [0.0, 1.0], "hyperbola": [x[1], x[0]]}.get(name, x))
    return np.eye(len(x)) - np.outer(normal, normal) / (normal @ normal)


def direct_second_derivative(H, third, S):
    """Return the three terms of d2Phi[S] from inverses of matrices and of vec -> vec, without an eigenbasis."""
    dim = len(H)
    inverse = np.linalg.pinv(H, rcond=1e-8, hermitian=True)
    Q = inverse @ H
    P = np.eye(dim) - Q

    def D(M):
        return np.einsum("ijl,ij->l", third, M)

    both = np.kron(H, np.eye(dim)) + np.kron(np.eye(dim), H)
    lyapunov = (np.linalg.pinv(both, rcond=1e-8, hermitian=True) @ (Q @ S @ Q).ravel()).reshape(dim, dim)
    return -inverse @ D(P @ S @ P) - P @ D(lyapunov) - 2 * P @ D(inverse @ Q @ S @ P)


def relative_error(found, exact):
    """Return the largest difference relative to the largest entry; 1e300 for what is not finite."""
    away = float(np.abs(found - exact).max() / np.abs(exact).max())
    return away if math.isfinite(away) else 1e300


def slow_step(run, loss, noise, x, sigma=SIGMA, rate=RATE):
    """Return (drift, moves, plain) of one compiled step of the slow SDE.

    `drift` is the displacement over h of the path without draws, `moves` the displacements over sqrt(h) of all paths `(dim, paths)`, and
    `plain` the drift by NumPy, which has a component normal to the manifold.
    """
    plan = st.schedules.from_arrays(np.full(8, rate * ETA), base=ETA)
    slow = st.SlowSDE(st.NoisyOracle(loss, noise, sigma=sigma), plan, at=x)
    found = st.simulate(
        st.EulerMaruyama(slow, STEP, "three-point"),
        x0=x,
        horizon=STEP,
        times=[STEP],
        observe=[loss.names[0]],
        keep_final=True,
        backend="numba",
        **run.options(paths=4096, store=None),
    )
    moved = found.final - np.array(x)[:, None]
    plain = slow.drift(np.array(x), None, (rate,))
    return moved[:, np.argmin(np.linalg.norm(moved, axis=0))] / STEP, moved / math.sqrt(STEP), plain


def distance_to_support(moves, root):
    """Return the Hausdorff distance between the moves and the points root u, u in {-sqrt 3, 0, sqrt 3}^q."""
    draws = np.array(list(itertools.product([-math.sqrt(3), 0.0, math.sqrt(3)], repeat=root.shape[1]))).T
    away = np.linalg.norm(moves[:, :, None] - (root @ draws)[:, None, :], axis=0)
    return float(max(away.min(axis=1).max(), away.min(axis=0).max())) if np.isfinite(away).all() else 1e300


def measure_program(run, names=("circle", "hyperbola")):
    """Check drift and diffusion of the compiled slow SDE, at lambda and sigma other than 1 and an anisotropic covariance."""
    for name in names:
        loss, x = POINTS[name]
        root = SIGMA * np.array(ROOTS[loss.dim])
        P = tangent_projection_at(name, np.array(x))
        full = RATE**2 / 2 * closed_second_derivative(name, np.array(x), root @ root.T)
        exact = P @ full
        drift, moves, plain = slow_step(run, loss, st.noise.gaussian(root=ROOTS[loss.dim]), x)
        run.measure(
            f"{name}: a step's drift against (lambda^2/2) P d2Phi[sigma^2 Sigma]", relative_error(drift, exact), at_most=1e-5
        )
        run.measure(f"{name}: the drift by NumPy, with its normal part", relative_error(plain, full), at_most=1e-9)
        run.measure(f"{name}: its draws against lambda P sigma R u", distance_to_support(moves, RATE * P @ root), at_most=2e-3)
    with run.control(f"{name}: a drift with lambda for lambda^2"):
        run.measure("a step's drift", relative_error(drift, exact / RATE), at_most=1e-5)


def measure_clock(run, rate, label, horizon=1.0, steps=64):
    """Check the clock: without noise along the valley the slow SDE is x' = -lambda_t^2 / 4, and Euler's scheme sums it exactly."""
    eta = math.sqrt(horizon / steps)
    lam = np.array([rate(k * horizon / steps) for k in range(steps)])
    noise = st.noise.gaussian(root=[[0.0], [1.0]])
    slow = st.SlowSDE(st.NoisyOracle(POINTS["valley"][0], noise), st.schedules.from_arrays(eta * lam, base=eta), at=[0.5, 0.0])
    found = st.simulate(
        st.EulerMaruyama(slow, horizon / steps),
        x0=[0.5, 0.0],
        horizon=horizon,
        times=[horizon],
        observe=["x"],
        keep_final=True,
        **run.options(paths=1, store=None),
    )
    exact = 0.5 - horizon / steps * float((lam**2).sum()) / 4
    run.measure(f"{label}: x_T without noise along, against its sum of lambda_k^2", float(found.final[0, 0]), exact, 1e-9)
