"""The linear map of the second moments of one mode in one step, as a polynomial in its eigenvalue.

For z = lam E s s^T of a mode, packed as the entries a <= b (those off the diagonal times sqrt 2, so that the map's norms are those of
matrices), one step on streaming least squares is z <- E(lam) z + lam^2 sum_jl level_jl N_jl, where

    E(lam) = E0 + lam E1 + lam^2 E2,      E z = M z M^T + factor lam^2 sum_jl (U_j z U_l^T) N_jl,      N_jl = factor sym(G_j G_l^T),

and N_jl = 0 for gradients on independent rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools.exact.least_squares.mode_steps import ModeSteps


@dataclass(frozen=True, eq=False)
class MomentMap:
    """The map of the packed second moments of a mode in one step; p = n (n + 1) / 2 for n parts of the state, and J gradients.

    Attributes:
        E0: The part without the eigenvalue, shape `(p, p)`.
        E1: The part linear in the eigenvalue, shape `(p, p)`.
        E2: The part quadratic in the eigenvalue, shape `(p, p)`.
        N: What noise of level 1 adds in the pair of gradients j and l, over lam^2, shape `(J, J, p)`.
        points: The readouts U_j z U_l^T, shape `(J, J, p)`.
        position: The readout of the first entry, the position, shape `(p,)`.
    """

    E0: np.ndarray
    E1: np.ndarray
    E2: np.ndarray
    N: np.ndarray
    points: np.ndarray
    position: np.ndarray

    def at(self, lam: Any) -> np.ndarray:
        """Return E(lam), `(..., p, p)` for eigenvalues of shape `(...)`, real or complex."""
        lam = np.asarray(lam)[..., None, None]
        return self.E0 + lam * (self.E1 + lam * self.E2)


def moment_map(steps: ModeSteps, factor: float, kind: int = 0) -> MomentMap:
    """Return the map of the second moments of one step.

    Args:
        steps: The matrices of the rule.
        factor: sigma^2 / B of the noise.
        kind: Which of the steps.
    """
    A, G, U = steps.A[kind], steps.G[kind], steps.U[kind]
    n = len(A)
    B = np.einsum("ja,jb->ab", G, U)
    basis = _basis(n)

    def packed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the matrix of z -> sym(first z second^T)."""
        return np.einsum("pcd,qcd->pq", first.T @ basis @ second, basis)

    pairs = np.einsum("ja,lb->jlab", G, G), np.einsum("ja,lb->jlab", U, U)
    N, points = (np.einsum("pab,jlab->jlp", basis, one) for one in pairs)
    N = N * steps.together[..., None]
    E2 = packed(B, B) + factor * np.einsum("jlp,jlq->pq", N, points)
    position = np.einsum("pab,a,b->p", basis, np.eye(n)[0], np.eye(n)[0])
    return MomentMap(packed(A, A), packed(A, B) + packed(B, A), E2, factor * N, points, position)


def pack(z: np.ndarray) -> np.ndarray:
    """Return symmetric matrices `(n, n, ...)` packed, `(p, ...)`."""
    return np.tensordot(_basis(len(z)), z, axes=2)


def unpack(v: np.ndarray, n: int) -> np.ndarray:
    """Return packed matrices `(p, ...)` as `(n, n, ...)`."""
    return np.tensordot(np.moveaxis(_basis(n), 0, 2), v, axes=1)


def _basis(n: int) -> np.ndarray:
    """Return an orthonormal basis of the symmetric matrices, `(p, n, n)`."""
    out = []
    for a in range(n):
        for b in range(a, n):
            one = np.zeros((n, n))
            one[a, b] = one[b, a] = 1.0 if a == b else 0.5**0.5
            out.append(one)
    return np.array(out)
