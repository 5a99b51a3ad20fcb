r"""The manifold of minimisers at a point: its rank and gap, tangent space, pseudo-inverse, and the second derivative of Phi.

With H = Hess L(x) at x in Gamma, P the projection onto ker H, Q = I - P, D[M]_l = sum_ij d_ijl L M_ij, Lyap(X) = H X + X H:

    dPhi(x) = P,      d2Phi(x)[Sigma] = -H^+ D[P Sigma P] - P D[Lyap^{-1}(Q Sigma Q)] - 2 P D[H^+ Q Sigma P].

The first term is normal to Gamma and keeps a tangent diffusion on it, the others are tangent. For Sigma = c H: -(c/2) P grad tr H.
Dense: one eigen-decomposition a point; `products` does the same without matrices. Source: the paper, section 4; G. Katzenberger,
Annals of Probability 19 (1991); Z. Li, T. Wang, S. Arora, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.base import Loss
from sdetools.manifold.flow import differential, gradients, hessians, points_of, project, shown

CURVED, LEVEL = 1e-6, 1e-9
"""Curvatures above the first part of the largest one count, below the second they do not; between them the rank is ambiguous."""
ON = 1e-6
"""Newton's displacement, as a part of the point's size, up to which a point counts as lying on the manifold."""
ROUNDING = 100 * np.finfo(float).eps
"""What a gradient may err by, as a part of the largest curvature times the point."""


@dataclass(frozen=True)
class Geometry:
    """The manifold at points of it; made by `st.manifold.at(loss, x)`. Arrays are component first: `(dim, ...)`, paths last if there are any.

    `eigenvalues` of the Hessian, descending `(dim, *paths)`, `vectors` `(dim, dim, *paths)` beside them (column j: `vectors[:, j]`),
    `rank` M of the Hessian: Gamma has dim - M dimensions. `gap`: the least M-th eigenvalue beside the largest one after it.
    """

    loss: Loss
    point: np.ndarray
    eigenvalues: np.ndarray
    vectors: np.ndarray
    rank: int

    @property
    def gap(self) -> float:
        """lambda_M / |lambda_{M+1}|, the least over the points: how clearly the rank is seen."""
        if self.rank == 0:
            return np.inf
        after = np.abs(self.eigenvalues[self.rank :]).max(axis=0, initial=0.0)
        return float(np.min(self.eigenvalues[self.rank - 1] / np.maximum(after, 1e-300)))

    @property
    def tangent(self) -> np.ndarray:
        """An orthonormal frame of the tangent space, `(dim, dim - M, *paths)`."""
        return self.vectors[:, self.rank :]

    @property
    def normal(self) -> np.ndarray:
        """An orthonormal frame across the manifold, `(dim, M, *paths)`."""
        return self.vectors[:, : self.rank]

    @cached_property
    def projection(self) -> np.ndarray:
        """P = dPhi, `(dim, dim, *paths)`."""
        return np.einsum("ik...,jk...->ij...", self.tangent, self.tangent)

    @cached_property
    def pseudo_inverse_matrix(self) -> np.ndarray:
        """H^+, `(dim, dim, *paths)`."""
        return np.einsum("ik...,k...,jk...->ij...", self.normal, 1.0 / self.eigenvalues[: self.rank], self.normal)

    def project_tangent(self, v: Any) -> np.ndarray:
        """P v for `(dim,)` or `(dim, *paths)`."""
        return np.einsum(
            "ik...,k...->i...", self.tangent, np.einsum("ik...,i...->k...", self.tangent, np.asarray(v, dtype=float))
        )

    def pseudo_inverse(self, v: Any) -> np.ndarray:
        """H^+ v."""
        return np.einsum("ij...,j...->i...", self.pseudo_inverse_matrix, np.asarray(v, dtype=float))

    def second_derivative(self, Sigma: Any) -> np.ndarray:
        r"""d2Phi[Sigma], `(dim, *paths)`, for a covariance `(dim, dim)` or `(dim, dim, *paths)`. ValueError for a wrong shape or no covariance.

        >>> import sdetools as st
        >>> float(st.manifold.at(st.losses.exponential_valley(), [0.0, 0.0]).second_derivative(np.eye(2))[0])
        -0.5
        """
        Sigma = self._covariance(Sigma)
        across, lyapunov = self._split(Sigma)
        normal = -self.pseudo_inverse(self.loss.third_contracted(self.point, across))
        return normal - self.project_tangent(self.loss.third_contracted(self.point, lyapunov))

    def _split(self, Sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P Sigma P, and Lyap^{-1}(Q Sigma Q) + H^+ Q Sigma P + (the transpose of that)."""
        own = np.einsum("ia...,ij...,jb...->ab...", self.vectors, Sigma, self.vectors)
        tangent = np.arange(len(self.eigenvalues)) >= self.rank
        values = np.where(tangent.reshape(-1, *[1] * (self.eigenvalues.ndim - 1)), 0.0, self.eigenvalues)
        both = np.logical_and.outer(tangent, tangent).reshape(len(tangent), len(tangent), *[1] * (own.ndim - 2))
        across = np.where(both, own, 0.0)
        # a mixed pair has lambda_i + 0: the terms of H^+ Q Sigma P
        lyapunov = np.divide(own, values[:, None] + values[None, :], out=np.zeros(own.shape), where=~both)
        back = "ia...,ab...,jb...->ij..."
        return np.einsum(back, self.vectors, across, self.vectors), np.einsum(back, self.vectors, lyapunov, self.vectors)

    def trace_gradient(self) -> np.ndarray:
        """P grad tr H, `(dim, *paths)`: where label noise does not go."""
        identity = np.broadcast_to(
            np.eye(self.loss.dim).reshape(self.loss.dim, self.loss.dim, *[1] * (self.point.ndim - 1)), self.vectors.shape
        )
        return self.project_tangent(self.loss.third_contracted(self.point, identity))

    def slow_drift(self, Sigma: Any, rate: float = 1.0) -> np.ndarray:
        """(rate^2 / 2) d2Phi[Sigma]: the drift of the slow SDE at lambda_t = `rate`."""
        return 0.5 * rate**2 * self.second_derivative(Sigma)

    def _covariance(self, Sigma: Any) -> np.ndarray:
        Sigma = _check.finite("Sigma", Sigma)
        dim, paths = self.loss.dim, self.point.shape[1:]
        if Sigma.shape not in ((dim, dim), (dim, dim, *paths)):
            wanted = f"({dim}, {dim})" + (f" or ({dim}, {dim}, {paths[0]})" if paths else "")
            raise ValueError(f"`Sigma` must have shape {wanted}, that of the loss's Hessian; got shape {Sigma.shape}.")
        if Sigma.ndim == 2:
            Sigma = _check.covariance("Sigma", Sigma, dim).reshape(dim, dim, *[1] * len(paths))
            return np.broadcast_to(Sigma, (dim, dim, *paths))
        if np.abs(Sigma - Sigma.swapaxes(0, 1)).max() > 1e-12 * np.abs(Sigma).max():
            raise ValueError("`Sigma` must be symmetric at every point; got one that is not. Take (Sigma + Sigma.T) / 2.")
        return Sigma

    def __repr__(self) -> str:
        where = f"{self.point.shape[1]} points" if self.point.ndim > 1 else shown(self.point)
        return f"Geometry({self.loss.label}, at {where}, rank {self.rank} of {self.loss.dim}, gap {self.gap:.3g})"


def at(loss: Loss, x: Any, rank: int | None = None) -> Geometry:
    """The manifold of minimisers at points of it, `(dim,)` or `(dim, paths)`.

    `rank`: the rank of the Hessian there; by default it is found: eigenvalues above 1e-6 of the largest count, and none may lie between
    that and 1e-9 of it. ValueError where a point is no minimiser (project it first), where it is a saddle, where the rank is ambiguous
    (a singular point; the gap is told) or not the same at all points, and where there is no manifold (rank 0 or dim, or a loss that
    leaves its minimum along the kernel of the Hessian, as x^2 + y^4 does).

    >>> import sdetools as st
    >>> at(st.losses.hyperbola(), [2.0, 0.5]).projection.round(12)
    array([[ 0.94117647, -0.23529412],
           [-0.23529412,  0.05882353]])
    """
    points, shape = points_of(loss, x)
    H = hessians(loss, points)
    g = gradients(loss, points)
    if not (np.isfinite(H).all() and np.isfinite(g).all()):
        i = int(np.argmin(np.isfinite(H).all(axis=(1, 2)) & np.isfinite(g).all(axis=1)))
        raise ValueError(f"the loss must be finite with two derivatives at `x`; {loss.label} is not at {shown(points[i])}.")
    values, vectors = np.linalg.eigh(H)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    _check_slope(loss, points, g, np.abs(g).max(axis=1) / np.maximum(np.abs(values).max(axis=1), 1e-300))
    ranks = _ranks(loss, points, values) if rank is None else _given(loss, points, values, rank)
    _check_slope(loss, points, g, np.abs(np.einsum("nij,ni->nj", vectors[:, :, :ranks], g) / values[:, :ranks]).max(axis=1))
    normal, level = vectors[:, :, :ranks], np.abs(values[:, ranks:]).max(axis=1)

    def back(v: np.ndarray) -> np.ndarray:
        return np.einsum("nij,nj->ni", normal, np.einsum("nij,ni->nj", normal, v) / values[:, :ranks])

    def along(v: np.ndarray) -> np.ndarray:
        return v - np.einsum("nij,nj->ni", normal, np.einsum("nij,ni->nj", normal, v))

    check_flat(loss, points, back, along, values[:, :ranks], level)
    tail = shape[1:]
    return Geometry(
        loss,
        points.T.reshape(shape).copy(),
        values.T.reshape(loss.dim, *tail).copy(),
        np.moveaxis(vectors, 0, -1).reshape(loss.dim, loss.dim, *tail).copy(),
        ranks,
    )


def _ranks(loss: Loss, points: np.ndarray, values: np.ndarray) -> int:
    top = np.abs(values).max(axis=1)
    parts = values / np.maximum(top, 1e-300)[:, None]
    if (parts < -CURVED).any():
        i = int(np.argmax((parts < -CURVED).any(axis=1)))
        raise ValueError(
            f"`x` must hold minimisers; at {shown(points[i])} the Hessian of {loss.label} has the eigenvalue {values[i, -1]:.3g} "
            f"beside {values[i, 0]:.3g}, so that it is a saddle or no zero of the gradient. Project a start: st.manifold.project(loss, x)."
        )
    ranks = (parts > CURVED).sum(axis=1)
    unclear = (np.abs(parts) > LEVEL) & (parts <= CURVED)
    if unclear.any():
        i = int(np.argmax(unclear.any(axis=1)))
        M = int(ranks[i])
        after = values[i, M:][np.argmax(np.abs(values[i, M:]))]
        raise ValueError(
            f"the rank of the Hessian must be clear; at {shown(points[i])} the eigenvalues of {loss.label} next to the gap are "
            f"{values[i, M - 1]:.3g} and {after:.3g} beside {values[i, 0]:.3g}: a gap ratio of {values[i, M - 1] / abs(after):.3g} "
            f"with {abs(after) / top[i]:.1g} of the largest left, where at most {LEVEL:g} may be. The point is near a singular one, or was not "
            "projected to rounding; give rank= if you know it."
        )
    if len(set(ranks.tolist())) > 1:
        low, high = int(np.argmin(ranks)), int(np.argmax(ranks))
        raise ValueError(
            f"the rank of the Hessian must be the same at all points; it is {ranks[low]} at {shown(points[low])} and {ranks[high]} at "
            f"{shown(points[high])}: a singular point, or two manifolds. Take them one by one."
        )
    return _proper(loss, int(ranks[0]))


def _given(loss: Loss, points: np.ndarray, values: np.ndarray, rank: int) -> int:
    rank = _proper(loss, _check.count("rank", rank, least=0))
    after = np.abs(values[:, rank:]).max(axis=1)
    poor = ~(values[:, rank - 1] > 1e3 * after)
    if poor.any():
        i = int(np.argmax(poor))
        raise ValueError(
            f"`rank` must stand before a gap of the Hessian's eigenvalues; at {shown(points[i])} those before and after rank {rank} are "
            f"{values[i, rank - 1]:.3g} and {after[i]:.3g}, a gap ratio of {values[i, rank - 1] / max(after[i], 1e-300):.3g} where 1000 is asked for."
        )
    return rank


def _proper(loss: Loss, rank: int) -> int:
    if rank >= loss.dim:
        raise ValueError(
            f"the loss must have a manifold of minimisers; the Hessian of {loss.label} has full rank {loss.dim} there, an isolated minimum. "
            "Nothing moves on the slow clock."
        )
    if rank == 0:
        raise ValueError(
            f"the loss must curve across its manifold; the Hessian of {loss.label} vanishes there. Start at another point, or rescale."
        )
    return rank


def _check_slope(loss: Loss, points: np.ndarray, g: np.ndarray, off: np.ndarray) -> None:
    """`off`: how far each point is from a zero of the gradient."""
    far = (off > ON * (1e-3 + np.abs(points).max(axis=1))) & (np.abs(g).max(axis=1) > 0)
    if far.any():
        i = int(np.argmax(far))
        raise ValueError(
            f"`x` must lie on the manifold of minimisers; at {shown(points[i])} |grad L| is {np.abs(g[i]).max():.3g}, about "
            f"{off[i]:.2g} away from it. Project it first: st.manifold.project(loss, x)."
        )


def check_flat(
    loss: Any,
    points: np.ndarray,
    back: Callable[[np.ndarray], np.ndarray],
    along: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    level: np.ndarray,
) -> None:
    """ValueError where the loss does not stay at its minimum along the kernel of its Hessian, to whatever order it leaves it.

    `points` `(n, dim)`; `back` is H^+ and `along` P, on such rows; `values` `(n, M)` the curvatures across, descending, and `level` the
    largest that counts as none. From x + t v, v a random direction of the kernel, steps y - H^+ grad L(y) lead back to where the slope
    across vanishes. By the implicit function theorem that is the manifold, if there is one, so that the slope along vanishes as well.
    Else it is the slope of t -> min over the rest of L, whose lowest term it shows, t^3 for a fourth power. t grows for as long as the
    steps contract well and are short beside t: there the theorem holds. The slope counts where rounding, and a curvature of size `level`,
    do not explain it. Independent residuals, as many as curvatures, have a manifold of zeros: nothing is to be checked then.
    """
    if getattr(loss, "model", None) is not None and len(loss.residuals(points[0])) == values.shape[1]:
        return
    size, top = np.abs(points).max(axis=1, keepdims=True), values[:, 0]
    rounding = ROUNDING * top / values[:, -1]
    start, valid = _returned(loss, points, back, rounding)
    v = along(np.random.default_rng(0).standard_normal(points.shape))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    t, told = 1e-6 * (1e-3 + size), ""
    while valid.any() and (t < 1 + size).any():
        y, found = _returned(loss, start + t * v, back, rounding)
        with np.errstate(invalid="ignore", over="ignore"):
            valid &= found & (np.linalg.norm(y - start - t * v, axis=1) <= 0.25 * t[:, 0])
            g = gradients(loss, y)
            slope = np.abs(along(g)).max(axis=1)
            noise = ROUNDING * top * np.abs(y).max(axis=1) + 1e3 * np.abs(g - along(g)).max(axis=1)
            rises = valid & (slope > 10 * noise + 100 * level * t[:, 0])
        if rises.any():
            i = int(np.argmax(rises))
            told = f"at {shown(points[i])}: {t[i, 0]:.2g} along {shown(v[i])}, and back across it, its slope is {slope[i]:.2g}"
        t = 4 * t
    if told:
        raise ValueError(
            "the loss must stay at its minimum along the kernel of its Hessian, as on a manifold of minimisers; "
            f"{loss.label} does not {told}. Its minimum is of higher order there, as that of x**2 + y**4 at 0, and nothing moves "
            "on the slow clock."
        )


def _returned(loss: Loss, y: np.ndarray, back: Any, rounding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the steps y - H^+ grad L(y) lead, and whether each was at most 0.7 of the one before, down to rounding."""
    last, good = np.full(len(y), np.inf), np.ones(len(y), dtype=bool)
    for _ in range(40):
        with np.errstate(all="ignore"):
            step = back(gradients(loss, y))
            long = np.linalg.norm(step, axis=1)
            fine = long <= rounding * np.abs(y).max(axis=1)
            good &= (long <= 0.7 * last) | fine
        if (fine | ~good).all():
            break
        y = np.where((good & ~fine)[:, None], y - step, y)
        last = long
    return y, good


def tangent_projection(loss: Loss, x: Any, rank: int | None = None) -> np.ndarray:
    """dPhi(x) = P on Gamma, `(dim, dim)` or `(dim, dim, paths)`; off it see `differential`. Errors as in `at`.

    >>> import sdetools as st
    >>> tangent_projection(st.losses.sphere(2), [1.0, 0.0])
    array([[0., 0.],
           [0., 1.]])
    """
    return at(loss, x, rank).projection


def second_derivative(loss: Loss, x: Any, Sigma: Any, rank: int | None = None) -> np.ndarray:
    """d2Phi(x)[Sigma] on Gamma, `(dim,)` or `(dim, paths)`. Errors as in `at`, and for a Sigma that is no covariance of the loss's size.

    >>> import sdetools as st
    >>> float(second_derivative(st.losses.sphere(3), [1.0, 0.0, 0.0], np.eye(3))[0])  # Brownian motion: twice its drift -(d - 1)/2 x
    -2.0
    """
    return at(loss, x, rank).second_derivative(Sigma)


def distance(loss: Loss, x: Any, tolerance: float = 1e-10) -> np.ndarray:
    """|x - Phi(x)|, `()` or `(paths,)`: how far the flow carries a point to the manifold.

    >>> import sdetools as st
    >>> float(distance(st.losses.sphere(2), [3.0, 0.0]).round(9))
    2.0
    """
    return np.linalg.norm(np.asarray(x, dtype=float) - project(loss, x, tolerance), axis=0)


__all__ = ["Geometry", "at", "differential", "distance", "project", "second_derivative", "tangent_projection"]
