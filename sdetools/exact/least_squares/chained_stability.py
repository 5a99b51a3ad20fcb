"""Rate and stationary risk of rules with chained gradients: the spectral radius and the fixed point of the map of their second moments.

The moments z_i = lam_i S_i, with S_i the n x n matrix of the second moments of the n parts of the state in mode i, move in a step of constant
coefficients by

    z_i <- E_i z_i + sum_rs lam_i^(r+1) M_rs T_s + lam_i noise_i,        T_s = sum_j lam_j^(s-1) z_j,

a map of finite rank apart from its blocks E_i. `ChainedMoments.step` of `exact.least_squares.chained_rows` returns E_i, M_rs and noise_i. The map
preserves the order of covariances, so that its spectral radius, the rate, is an eigenvalue. The fixed point solves linear equations for the few sums
T_s.
"""

from __future__ import annotations

import numpy as np

from sdetools.exact.least_squares.chained_rows import ChainedMoments

DENSE = 1_200
"""Up to so many moments, n^2 a mode, all eigenvalues of the map are computed; of more, the largest one by Arnoldi's method."""


def chained_rate(recursion: ChainedMoments) -> float:
    """Return the rate of a rule with chained gradients: the factor per step by which its second moments approach their limit, or grow.

    It is the spectral radius of the linear map of all second moments in a step, without noise; infinity if the map has an entry that is not finite.

    Args:
        recursion: The recursion of a rule whose steps all have the same coefficients, on positive eigenvalues.
    """
    own, shared, _ = recursion.step(0)
    size, _, modes = own.shape
    if not np.isfinite(own).all() or not all(np.isfinite(one).all() for one in shared.values()):
        return np.inf
    if size * modes <= DENSE:
        whole = np.einsum("pqm,mk->pmqk", own, np.eye(modes))
        for (r, s), matrix in shared.items():
            whole += np.einsum("pq,m,k->pmqk", matrix, recursion.powers[r + 1], recursion.powers[s - 1])
        return float(np.abs(np.linalg.eigvals(whole.reshape(size * modes, -1))).max())
    from scipy.sparse.linalg import LinearOperator, eigs

    step = LinearOperator((size * modes, size * modes), matvec=lambda z: _moved(recursion, z.reshape(size, modes)).ravel())
    start = np.tile(np.eye(recursion.n).ravel()[:, None], modes).ravel()
    return float(np.abs(eigs(step, k=1, which="LM", v0=start, tol=1e-13, return_eigenvectors=False)).max())


def chained_stationary_risk(recursion: ChainedMoments) -> float:
    """Return the stationary risk 1/2 sum_i lam_i E x_i^2 of a rule with chained gradients, at the fixed point of its moments; infinity if the rate is 1 or more.

    Args:
        recursion: The recursion of a rule whose steps all have the same coefficients, on positive eigenvalues.
    """
    if not chained_rate(recursion) < 1:
        return np.inf
    own, shared, noise = recursion.step(0)
    size = len(own)
    lam, powers = recursion.problem.lam, recursion.powers
    inverse = np.linalg.inv(np.eye(size) - np.moveaxis(own, -1, 0))  # (modes, size, size)
    alone = np.einsum("mpq,qm->pm", inverse, lam * noise)
    orders = sorted({s for _, s in shared})
    # z_i = alone_i + sum_s answer_is T_s
    answer = {
        s: sum(np.einsum("mpq,qt,m->ptm", inverse, matrix, powers[r + 1]) for (r, t), matrix in shared.items() if t == s)
        for s in orders
    }
    system = np.eye(size * len(orders)).reshape(len(orders), size, len(orders), size)
    known = np.array([alone @ powers[s - 1] for s in orders])
    for a, s in enumerate(orders):
        for b, t in enumerate(orders):
            system[a, :, b] -= answer[t] @ powers[s - 1]
    sums = np.linalg.solve(system.reshape(size * len(orders), -1), known.ravel()).reshape(len(orders), size)
    z = alone + sum(np.einsum("ptm,t->pm", answer[s], T) for s, T in zip(orders, sums, strict=True))
    return float(z[0].sum() / 2)


def _moved(recursion: ChainedMoments, z: np.ndarray) -> np.ndarray:
    """Return the moments `(n^2, modes)` after a step without its noise, from those before it, `z` of the same shape."""
    return recursion.after(z, 0) - recursion.problem.lam * recursion.step(0)[2]
