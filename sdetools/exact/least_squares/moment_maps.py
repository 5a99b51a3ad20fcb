"""The linear map of the second moments of one mode in one step, as a polynomial in its eigenvalue.

A mode is a coordinate of the eigenbasis with its eigenvalue lam; s are the n parts of the state in it, such as x and m. z = lam E s s^T is packed as
its p = n (n + 1) / 2 entries (a, b) with a <= b, in the order (0, 0), (0, 1), ..., (0, n-1), (1, 1), ...; those off the diagonal carry the factor
sqrt 2, so that the Euclidean norm of z is that of the matrix. With A, G_j and U_j of `exact.least_squares.mode_steps`, one step on streaming least
squares is

    z <- E(lam) z + lam^2 sum_jl level_jl N_jl,      level_jl = s^2 + sum over modes of U_j z U_l^T,      s the label noise,
    E(lam) = E0 + lam E1 + lam^2 E2,      E z = M z M^T + lam^2 sum_jl (U_j z U_l^T) N_jl,      M = A + lam sum_j G_j U_j^T,

with N_jl = factor sym(G_j G_l^T), factor = sigma^2 / B, and N_jl = 0 for gradients on independent rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools.exact.least_squares.mode_steps import ModeSteps


@dataclass(frozen=True, eq=False)
class MomentMap:
    """The map z <- E(lam) z + lam^2 sum_jl level_jl N_jl of the second moments z = lam E s s^T of a mode of eigenvalue lam in one step.

    s are the n parts of the state; z is packed as its p = n (n + 1) / 2 entries (a, b), a <= b, by a, then b, those off the diagonal times sqrt 2.
    The step has J gradients at points with the weights U_j . s; level_jl is the label variance plus the sum of U_j z U_l^T over modes.

    Attributes:
        E0: The part of E(lam) without the eigenvalue, shape `(p, p)`.
        E1: The factor of lam in E(lam), shape `(p, p)`.
        E2: The factor of lam^2 in E(lam), shape `(p, p)`.
        N: N_jl, what noise of level 1 in the pair of gradients j and l adds, over lam^2, shape `(J, J, p)`; 0 for gradients on independent rows.
        points: The rows with points[j, l] . z = U_j z U_l^T, shape `(J, J, p)`.
        position: The row with position . z = lam E x^2, the entry (0, 0), shape `(p,)`.
    """

    E0: np.ndarray
    E1: np.ndarray
    E2: np.ndarray
    N: np.ndarray
    points: np.ndarray
    position: np.ndarray

    def at(self, lam: Any) -> np.ndarray:
        """Return E(lam), `(..., p, p)` for a number or an array of eigenvalues `(...)`, real or complex."""
        lam = np.asarray(lam)[..., None, None]
        return self.E0 + lam * (self.E1 + lam * self.E2)


def moment_map(steps: ModeSteps, factor: float, kind: int = 0) -> MomentMap:
    """Return the map of the second moments lam E s s^T of a mode in one step, packed as `MomentMap` says, s the parts of the state.

    The points of the gradients must contain no other gradients of the step.

    Args:
        steps: The matrices of the rule in one coordinate.
        factor: sigma^2 / B, the covariance of a gradient over that of one row.
        kind: Which of the different steps, an index of `steps.A`.
    """
    A, G, U = steps.A[kind], steps.G[kind], steps.U[kind]
    n = len(A)
    B = np.einsum("ja,jb->ab", G, U)
    basis = _basis(n)

    def packed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the matrix `(p, p)` of z -> sym(first z second^T) on packed z; sym is the symmetric part."""
        return np.einsum("pcd,qcd->pq", first.T @ basis @ second, basis)

    pairs = np.einsum("ja,lb->jlab", G, G), np.einsum("ja,lb->jlab", U, U)
    N, points = (np.einsum("pab,jlab->jlp", basis, one) for one in pairs)
    N = N * steps.together[..., None]
    E2 = packed(B, B) + factor * np.einsum("jlp,jlq->pq", N, points)
    position = np.einsum("pab,a,b->p", basis, np.eye(n)[0], np.eye(n)[0])
    return MomentMap(packed(A, A), packed(A, B) + packed(B, A), E2, factor * N, points, position)


def pack(z: np.ndarray) -> np.ndarray:
    """Return symmetric matrices `(n, n, ...)` packed, `(p, ...)`, p = n (n + 1) / 2, a new array.

    Rows are the entries (a, b) with a <= b in the order (0, 0), (0, 1), ..., (0, n-1), (1, 1), ...; those off the diagonal carry the factor sqrt 2.
    """
    return np.tensordot(_basis(len(z)), z, axes=2)


def unpack(v: np.ndarray, n: int) -> np.ndarray:
    """Return packed matrices `(p, ...)`, p = n (n + 1) / 2, as full symmetric ones, `(n, n, ...)`: the inverse of `pack`."""
    return np.tensordot(np.moveaxis(_basis(n), 0, 2), v, axes=1)


def _basis(n: int) -> np.ndarray:
    """Return an orthonormal basis of the symmetric matrices, `(p, n, n)`: one for each pair a <= b, in the order of the module."""
    out = []
    for a in range(n):
        for b in range(a, n):
            one = np.zeros((n, n))
            one[a, b] = one[b, a] = 1.0 if a == b else 0.5**0.5
            out.append(one)
    return np.array(out)
