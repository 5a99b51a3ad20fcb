r"""What the checks of the slow SDE share: losses whose Phi is known, d2Phi by hand, and one step of the program that runs.

A step of Euler's scheme with three-point draws needs no average: where all draws are 0 it has moved by the drift alone, and where not it
lands on one of 3^q points -lambda P sigma R u. The expected values are written out here and use nothing of `sdetools.manifold`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

import sdetools as st

STEP = 1e-8
"""Of the scheme: its own error is of this size in the drift, and of its root in the diffusion."""
SIGMA, RATE, ETA = 1.3, 0.8, 0.1
ROOTS = {2: [[1.2, 0.3], [-0.4, 0.7]], 3: [[1.1, 0.2, -0.3], [0.4, 0.9, 0.1], [-0.2, 0.5, 0.8]]}
"""Square roots of anisotropic covariances: tangent, normal and mixed parts are all there."""
POINTS = {
    "valley": (st.losses.exponential_valley(1.0), [0.4, 0.0]),
    "circle": (st.losses.sphere(2), [0.6, -0.8]),
    "sphere": (st.losses.sphere(3), [2 / 3, -1 / 3, 2 / 3]),
    "hyperbola": (st.losses.hyperbola(), [2.0, 0.5]),
}


def closed_second(name, x, S):
    """d2Phi[S] at x: of Phi = (x - y^2/4, 0), of x/|x|, and on xy = 1, where the flow conserves x^2 - y^2."""
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


def tangent_to(name, x):
    """The projection onto the tangent space, by the normal: (0, 1), x, and (y, x)."""
    normal = np.array({"valley": [0.0, 1.0], "hyperbola": [x[1], x[0]]}.get(name, x))
    return np.eye(len(x)) - np.outer(normal, normal) / (normal @ normal)


def by_hand(H, third, S):
    """The three terms of d2Phi[S], from inverses of matrices and of vec -> vec: no frame is used."""
    dim = len(H)
    inverse = np.linalg.pinv(H, rcond=1e-8, hermitian=True)
    Q = inverse @ H
    P = np.eye(dim) - Q

    def D(M):
        return np.einsum("ijl,ij->l", third, M)

    both = np.kron(H, np.eye(dim)) + np.kron(np.eye(dim), H)
    lyapunov = (np.linalg.pinv(both, rcond=1e-8, hermitian=True) @ (Q @ S @ Q).ravel()).reshape(dim, dim)
    return -inverse @ D(P @ S @ P) - P @ D(lyapunov) - 2 * P @ D(inverse @ Q @ S @ P)


def off(found, exact):
    """The largest difference, as a part of the largest entry; what is not finite is as far off as can be."""
    away = float(np.abs(found - exact).max() / np.abs(exact).max())
    return away if math.isfinite(away) else 1e300


def slow_step(run, loss, noise, x, sigma=SIGMA, rate=RATE):
    """(drift, moves, plain): what a compiled step moves by, over h, without draws, and over sqrt(h), with them, `(dim, paths)`; and the
    drift by NumPy, which has its part normal to the manifold."""
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


def off_support(moves, root):
    """How far the moves are from root u, u in {-sqrt 3, 0, sqrt 3}^q, and these from the moves."""
    draws = np.array(list(itertools.product([-math.sqrt(3), 0.0, math.sqrt(3)], repeat=root.shape[1]))).T
    away = np.linalg.norm(moves[:, :, None] - (root @ draws)[:, None, :], axis=0)
    return float(max(away.min(axis=1).max(), away.min(axis=0).max())) if np.isfinite(away).all() else 1e300


def measure_program(run, names=("circle", "hyperbola")):
    """Drift and diffusion of the slow SDE as it runs, at lambda and sigma other than 1 and an anisotropic covariance."""
    for name in names:
        loss, x = POINTS[name]
        root = SIGMA * np.array(ROOTS[loss.dim])
        P = tangent_to(name, np.array(x))
        full = RATE**2 / 2 * closed_second(name, np.array(x), root @ root.T)
        exact = P @ full
        drift, moves, plain = slow_step(run, loss, st.noise.gaussian(root=ROOTS[loss.dim]), x)
        run.measure(f"{name}: a step's drift against (lambda^2/2) P d2Phi[sigma^2 Sigma]", off(drift, exact), at_most=1e-5)
        run.measure(f"{name}: the drift by NumPy, with its normal part", off(plain, full), at_most=1e-9)
        run.measure(f"{name}: its draws against lambda P sigma R u", off_support(moves, RATE * P @ root), at_most=2e-3)
    with run.control(f"{name}: a drift with lambda for lambda^2"):
        run.measure("a step's drift", off(drift, exact / RATE), at_most=1e-5)


def measure_clock(run, rate, label, horizon=1.0, steps=64):
    """Without noise along the valley the slow SDE is x' = -lambda_t^2 / 4, and Euler's sum of it exact."""
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
