r"""The manifold of minimisers at a point: rank of the Hessian, tangent space, pseudo-inverse, and the second derivative of Phi.

With H = Hess L(x) at x in Gamma, P the projection onto ker H, Q = I - P, D[M]_l = sum_ij d_ijl L M_ij, Lyap(X) = H X + X H:

    dPhi(x) = P,      d2Phi(x)[Sigma] = -H^+ D[P Sigma P] - P D[Lyap^{-1}(Q Sigma Q)] - 2 P D[H^+ Q Sigma P].

The first term is normal to Gamma; it constrains a tangent diffusion to Gamma. The other terms are tangent. For Sigma = c H the sum is
-(c/2) P grad tr H. This module uses one dense eigendecomposition for each point; `product_geometry` uses matrix-vector products only.
Source: Wang et al. 2024, section 4; G. Katzenberger, Annals of Probability 19 (1991); Z. Li, T. Wang, S. Arora, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.base import Loss
from sdetools.manifold.flow import differential, format_point, gradients, hessians, points_of, project

CURVED, LEVEL = 1e-6, 1e-9
"""Eigenvalues above the first fraction of the largest one count as curvature, those below the second as 0; others are ambiguous."""
ON_MANIFOLD = 1e-6
"""Newton displacement, relative to the size of the point, up to which a point counts as lying on the manifold."""
ROUNDING = 100 * np.finfo(float).eps
"""Rounding error of a gradient, relative to the largest curvature times the size of the point."""


@dataclass(frozen=True)
class Geometry:
    """The manifold of minimisers Gamma at points of it; made by `st.manifold.at(loss, x)`.

    Attributes:
        loss: The loss.
        point: The points, `(dim,)` for one or `(dim, paths)` for many; in all shapes `*paths` is nothing or the number of points.
        eigenvalues: Eigenvalues lambda_1 >= lambda_2 >= ... of the Hessian, `(dim, *paths)`.
        vectors: Its orthonormal eigenvectors, `(dim, dim, *paths)`; the column `vectors[:, j]` belongs to `eigenvalues[j]`.
        rank: Rank M of the Hessian; Gamma has dimension dim - M.
    """

    loss: Loss
    point: np.ndarray
    eigenvalues: np.ndarray
    vectors: np.ndarray
    rank: int

    @property
    def gap(self) -> float:
        """The gap ratio lambda_M / max |lambda_j| over j > M = `rank`, the smallest over the points; it is large where the rank is clear."""
        if self.rank == 0:
            return np.inf
        after = np.abs(self.eigenvalues[self.rank :]).max(axis=0, initial=0.0)
        return float(np.min(self.eigenvalues[self.rank - 1] / np.maximum(after, 1e-300)))

    @property
    def tangent(self) -> np.ndarray:
        """A view of an orthonormal basis of the tangent space, the kernel of H: columns, `(dim, dim - rank)` or `(dim, dim - rank, paths)`."""
        return self.vectors[:, self.rank :]

    @property
    def normal(self) -> np.ndarray:
        """A view of an orthonormal basis of the normal space, the directions with curvature: columns, `(dim, rank)` or `(dim, rank, paths)`."""
        return self.vectors[:, : self.rank]

    @cached_property
    def projection(self) -> np.ndarray:
        """The orthogonal projection P = dPhi onto the tangent space of the manifold, `(dim, dim)` at one point or `(dim, dim, paths)`."""
        return np.einsum("ik...,jk...->ij...", self.tangent, self.tangent)

    @cached_property
    def pseudo_inverse_matrix(self) -> np.ndarray:
        """The pseudo-inverse H^+ of the Hessian H, `(dim, dim)` at one point or `(dim, dim, paths)`; eigenvalues of H beyond the rank count as 0."""
        return np.einsum("ik...,k...,jk...->ij...", self.normal, 1.0 / self.eigenvalues[: self.rank], self.normal)

    def project_tangent(self, v: Any) -> np.ndarray:
        """Return P v, the tangent part of `v`, as `(dim,)` at one point or `(dim, paths)`; `v` has this shape, or is `(dim,)` for all points."""
        return np.einsum(
            "ik...,k...->i...", self.tangent, np.einsum("ik...,i...->k...", self.tangent, np.asarray(v, dtype=float))
        )

    def pseudo_inverse(self, v: Any) -> np.ndarray:
        """Return H^+ v, H^+ the pseudo-inverse of the Hessian, as `(dim,)` or `(dim, paths)`; `v` has this shape, or is `(dim,)` for all points."""
        return np.einsum("ij...,j...->i...", self.pseudo_inverse_matrix, np.asarray(v, dtype=float))

    def second_derivative(self, Sigma: Any) -> np.ndarray:
        """Return d2Phi[Sigma] = sum_ij (d^2 Phi / dx_i dx_j) Sigma_ij, `(dim,)` or `(dim, paths)`, at the points; Phi is `project`.

        `Sigma` is a covariance `(dim, dim)` for all points, or `(dim, dim, paths)`; ValueError for another shape or one that is not symmetric.

        Example:
            >>> import numpy as np, sdetools as st
            >>> float(st.manifold.at(st.losses.exponential_valley(), [0.0, 0.0]).second_derivative(np.eye(2))[0])
            -0.5
        """
        Sigma = self._covariance(Sigma)
        across, lyapunov = self._split(Sigma)
        normal = -self.pseudo_inverse(self.loss.third_contracted(self.point, across))
        return normal - self.project_tangent(self.loss.third_contracted(self.point, lyapunov))

    def _split(self, Sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return P Sigma P, and Lyap^{-1}(Q Sigma Q) + H^+ Q Sigma P + (H^+ Q Sigma P)^T, each in the shape of Sigma, `(dim, dim, *paths)`."""
        own = np.einsum("ia...,ij...,jb...->ab...", self.vectors, Sigma, self.vectors)
        tangent = np.arange(len(self.eigenvalues)) >= self.rank
        values = np.where(tangent.reshape(-1, *[1] * (self.eigenvalues.ndim - 1)), 0.0, self.eigenvalues)
        both = np.logical_and.outer(tangent, tangent).reshape(len(tangent), len(tangent), *[1] * (own.ndim - 2))
        across = np.where(both, own, 0.0)
        # a pair of a normal and a tangent direction has lambda_i + 0: the terms of H^+ Q Sigma P
        lyapunov = np.divide(own, values[:, None] + values[None, :], out=np.zeros(own.shape), where=~both)
        back = "ia...,ab...,jb...->ij..."
        return np.einsum(back, self.vectors, across, self.vectors), np.einsum(back, self.vectors, lyapunov, self.vectors)

    def trace_gradient(self) -> np.ndarray:
        """Return P grad tr H, `(dim,)` or `(dim, paths)`, the tangent gradient of the trace of the Hessian H; label noise moves points against it."""
        identity = np.broadcast_to(
            np.eye(self.loss.dim).reshape(self.loss.dim, self.loss.dim, *[1] * (self.point.ndim - 1)), self.vectors.shape
        )
        return self.project_tangent(self.loss.third_contracted(self.point, identity))

    def slow_drift(self, Sigma: Any, rate: float = 1.0) -> np.ndarray:
        """Return the drift (rate^2/2) d2Phi[Sigma] of `st.SlowSDE`, lambda_t = `rate`, at the points, for Sigma `(dim, dim)` or `(dim, dim, paths)`."""
        return 0.5 * rate**2 * self.second_derivative(Sigma)

    def _covariance(self, Sigma: Any) -> np.ndarray:
        """Return a covariance for all points, `(dim, dim, *paths)`; ValueError if it has another shape or is not symmetric."""
        Sigma = _check.finite("Sigma", Sigma)
        dim, paths = self.loss.dim, self.point.shape[1:]
        if Sigma.shape not in ((dim, dim), (dim, dim, *paths)):
            wanted = f"({dim}, {dim})" + (f" or ({dim}, {dim}, {paths[0]})" if paths else "")
            raise ValueError(f"`Sigma` must have shape {wanted}, that of the Hessian; got shape {Sigma.shape}.")
        if Sigma.ndim == 2:
            Sigma = _check.covariance("Sigma", Sigma, dim).reshape(dim, dim, *[1] * len(paths))
            return np.broadcast_to(Sigma, (dim, dim, *paths))
        if np.abs(Sigma - Sigma.swapaxes(0, 1)).max() > 1e-12 * np.abs(Sigma).max():
            raise ValueError("`Sigma` must be symmetric at every point; got one that is not. Take (Sigma + Sigma.T) / 2.")
        return Sigma

    def __repr__(self) -> str:
        where = f"{self.point.shape[1]} points" if self.point.ndim > 1 else format_point(self.point)
        return f"Geometry({self.loss.label}, at {where}, rank {self.rank} of {self.loss.dim}, gap {self.gap:.3g})"


def at(loss: Loss, x: Any, rank: int | None = None) -> Geometry:
    """Return the geometry of the manifold of minimisers Gamma at points of it: rank, tangent space, pseudo-inverse and derivatives of Phi.

    Args:
        loss: The loss, with at most 2,000 coordinates.
        x: A point of the manifold `(dim,)`, or points `(dim, paths)`.
        rank: Rank M of the Hessian at these points, with lambda_M at least 1000 times as large as the eigenvalues after it (the gap ratio). By
            default the number of eigenvalues above 1e-6 of the largest; none may lie between 1e-9 and 1e-6 of it.

    Raises:
        ValueError: If a point is not a minimiser (project it first) or is a saddle; if the rank is ambiguous (a singular point; the
            message gives the gap ratio) or not the same at all points; if there is no manifold: rank 0 or dim, or a loss that increases
            along the kernel of the Hessian, such as x^2 + y^4.

    Example:
        >>> import sdetools as st
        >>> st.manifold.at(st.losses.hyperbola(), [2.0, 0.5]).projection.round(12)
        array([[ 0.94117647, -0.23529412],
               [-0.23529412,  0.05882353]])
    """
    points, shape = points_of(loss, x)
    H = hessians(loss, points)
    g = gradients(loss, points)
    if not (np.isfinite(H).all() and np.isfinite(g).all()):
        i = int(np.argmin(np.isfinite(H).all(axis=(1, 2)) & np.isfinite(g).all(axis=1)))
        raise ValueError(
            f"the loss must be finite with two derivatives at `x`; {loss.label} is not at {format_point(points[i])}."
        )
    values, vectors = np.linalg.eigh(H)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    _check_slope(loss, points, g, np.abs(g).max(axis=1) / np.maximum(np.abs(values).max(axis=1), 1e-300))
    ranks = _detected_rank(loss, points, values) if rank is None else _validated_rank(loss, points, values, rank)
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


def _detected_rank(loss: Loss, points: np.ndarray, values: np.ndarray) -> int:
    """Return the rank of the Hessian from its descending eigenvalues `values` `(n, dim)`; ValueError if it is unclear or differs among the points."""
    top = np.abs(values).max(axis=1)
    parts = values / np.maximum(top, 1e-300)[:, None]
    if (parts < -CURVED).any():
        i = int(np.argmax((parts < -CURVED).any(axis=1)))
        raise ValueError(
            f"`x` must consist of minimisers; at {format_point(points[i])} the Hessian of {loss.label} has eigenvalues from "
            f"{values[i, -1]:.3g} to {values[i, 0]:.3g}: a saddle, or no zero of the gradient. "
            "Project the point first: st.manifold.project(loss, x)."
        )
    ranks = (parts > CURVED).sum(axis=1)
    unclear = (np.abs(parts) > LEVEL) & (parts <= CURVED)
    if unclear.any():
        i = int(np.argmax(unclear.any(axis=1)))
        M = int(ranks[i])
        after = values[i, M:][np.argmax(np.abs(values[i, M:]))]
        raise ValueError(
            f"the rank of the Hessian must be clear; at {format_point(points[i])} the eigenvalues of {loss.label} next to the "
            f"gap are {values[i, M - 1]:.3g} and {after:.3g}, a gap ratio of {values[i, M - 1] / abs(after):.3g}; relative to the "
            f"largest, {values[i, 0]:.3g}, the second is {abs(after) / top[i]:.1g} > {LEVEL:g}. The point is near a singular "
            "one, or was not projected to rounding; give rank= if you know it."
        )
    if len(set(ranks.tolist())) > 1:
        low, high = int(np.argmin(ranks)), int(np.argmax(ranks))
        raise ValueError(
            f"the rank of the Hessian must be the same at all points; it is {ranks[low]} at {format_point(points[low])} and "
            f"{ranks[high]} at {format_point(points[high])}: a singular point, or two manifolds. Take them one by one."
        )
    return _check_rank(loss, int(ranks[0]))


def _validated_rank(loss: Loss, points: np.ndarray, values: np.ndarray, rank: int) -> int:
    """Return the rank that the user gives; ValueError unless the gap ratio, with the eigenvalues `(n, dim)`, is at least 1000 at all points."""
    rank = _check_rank(loss, _check.count("rank", rank, least=0))
    after = np.abs(values[:, rank:]).max(axis=1)
    poor = ~(values[:, rank - 1] > 1e3 * after)
    if poor.any():
        i = int(np.argmax(poor))
        raise ValueError(
            f"`rank` must be at a gap of the eigenvalues of the Hessian, a ratio of 1000 or more; at {format_point(points[i])} "
            f"those before and after rank {rank} are {values[i, rank - 1]:.3g} and {after[i]:.3g}, a gap ratio of "
            f"{values[i, rank - 1] / max(after[i], 1e-300):.3g}."
        )
    return rank


def _check_rank(loss: Loss, rank: int) -> int:
    """Return `rank`; ValueError if it is 0 or dim."""
    if rank >= loss.dim:
        raise ValueError(
            f"the loss must have a manifold of minimisers; the Hessian of {loss.label} has full rank {loss.dim} there: "
            "the minimum is isolated, and there is no slow SDE."
        )
    if rank == 0:
        raise ValueError(
            f"the loss must have curvature across its manifold; the Hessian of {loss.label} vanishes there. Take another point."
        )
    return rank


def _check_slope(loss: Loss, points: np.ndarray, g: np.ndarray, off: np.ndarray) -> None:
    """Raise ValueError for points `(n, dim)` off the manifold, with gradients `g` `(n, dim)` and distances `off` `(n,)` from a zero of the gradient."""
    far = (off > ON_MANIFOLD * (1e-3 + np.abs(points).max(axis=1))) & (np.abs(g).max(axis=1) > 0)
    if far.any():
        i = int(np.argmax(far))
        raise ValueError(
            f"`x` must lie on the manifold of minimisers; at {format_point(points[i])} |grad L| is {np.abs(g[i]).max():.3g}, at "
            f"a distance of about {off[i]:.2g} from it. Project it first: st.manifold.project(loss, x)."
        )


def check_flat(
    loss: Any,
    points: np.ndarray,
    back: Callable[[np.ndarray], np.ndarray],
    along: Callable[[np.ndarray], np.ndarray],
    values: np.ndarray,
    level: np.ndarray,
) -> None:
    """Raise ValueError if the loss increases, to whatever order, along the kernel of its Hessian; return None otherwise.

    From x + t v, with a random direction v of the kernel, the iteration y <- y - H^+ grad L(y) converges to a point whose normal gradient
    vanishes. If there is a manifold, the point lies on it by the implicit function theorem, so its tangent gradient vanishes as well. If
    not, the tangent gradient is the slope of t -> min L over the normal directions, with its lowest order in t: t^3 for a fourth power.
    t increases as long as the iteration contracts and its steps are short compared to t, where the theorem holds. A slope counts if
    neither rounding nor a curvature of size `level` explains it. Independent residuals, as many as curvatures, have a manifold of zeros;
    then there is nothing to check.

    Args:
        loss: The loss L.
        points: Minimisers, one per row, `(n, dim)`.
        back: The function v -> H^+ v, row by row, of arrays `(n, dim)`: row i with the Hessian H at point i.
        along: The function v -> P v of such arrays, with the projection P onto the kernel of H.
        values: The curvatures across the manifold, descending, `(n, M)`.
        level: The largest modulus of an eigenvalue that counts as 0, `(n,)`.
    """
    if getattr(loss, "model", None) is not None and len(loss.residuals(points[0])) == values.shape[1]:
        return
    size, top = np.abs(points).max(axis=1, keepdims=True), values[:, 0]
    rounding = ROUNDING * top / values[:, -1]
    start, valid = _newton_return(loss, points, back, rounding)
    v = along(np.random.default_rng(0).standard_normal(points.shape))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    t, reason = 1e-6 * (1e-3 + size), ""
    while valid.any() and (t < 1 + size).any():
        y, found = _newton_return(loss, start + t * v, back, rounding)
        with np.errstate(invalid="ignore", over="ignore"):
            valid &= found & (np.linalg.norm(y - start - t * v, axis=1) <= 0.25 * t[:, 0])
            g = gradients(loss, y)
            slope = np.abs(along(g)).max(axis=1)
            noise = ROUNDING * top * np.abs(y).max(axis=1) + 1e3 * np.abs(g - along(g)).max(axis=1)
            rises = valid & (slope > 10 * noise + 100 * level * t[:, 0])
        if rises.any():
            i = int(np.argmax(rises))
            reason = (
                f"at {format_point(points[i])}: at distance {t[i, 0]:.2g} along {format_point(v[i])}, with zero normal gradient, "
                f"its slope is {slope[i]:.2g}"
            )
        t = 4 * t
    if reason:
        raise ValueError(
            "the loss must stay at its minimum along the kernel of its Hessian, as on a manifold of minimisers; "
            f"{loss.label} does not {reason}. The minimum is degenerate, as that of x**2 + y**4 at 0, and there is no slow SDE."
        )


def _newton_return(loss: Loss, y: np.ndarray, back: Any, rounding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits `(n, dim)` of y <- y - H^+ grad L(y), with `back` for H^+, and whether the steps contract by 0.7 to rounding, `(n,)`."""
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
    """Return the tangent projection P = dPhi(x), `(dim, dim)` or `(dim, dim, paths)`, on the manifold of minimisers Gamma; off it see `differential`.

    Args:
        loss: The loss, with at most 2,000 coordinates.
        x: A point of Gamma `(dim,)`, or points `(dim, paths)`.
        rank: Rank of the Hessian; by default the number of eigenvalues above 1e-6 of the largest, see `at`.

    Raises:
        ValueError: If a point does not lie on Gamma, or if the rank is ambiguous, as in `at`.

    Example:
        >>> import sdetools as st
        >>> st.manifold.tangent_projection(st.losses.sphere(2), [1.0, 0.0]).tolist()
        [[0.0, 0.0], [0.0, 1.0]]
    """
    return at(loss, x, rank).projection


def second_derivative(loss: Loss, x: Any, Sigma: Any, rank: int | None = None) -> np.ndarray:
    """Return d2Phi(x)[Sigma] = sum_ij (d^2 Phi(x) / dx_i dx_j) Sigma_ij, `(dim,)` or `(dim, paths)`, at points x of Gamma; Phi is `project`.

    Args:
        loss: The loss.
        x: A point of Gamma `(dim,)`, or points `(dim, paths)`.
        Sigma: A covariance, `(dim, dim)` for all points, or `(dim, dim, paths)`.
        rank: Rank of the Hessian; by default the number of eigenvalues above 1e-6 of the largest, see `at`.

    Raises:
        ValueError: If a point does not lie on Gamma or the rank is ambiguous, as in `at`, or if `Sigma` is not a covariance of that shape.

    Example:
        >>> import numpy as np, sdetools as st
        >>> float(st.manifold.second_derivative(st.losses.sphere(3), [1.0, 0.0, 0.0], np.eye(3))[0])  # Brownian motion: twice its drift -(d - 1)/2 x
        -2.0
    """
    return at(loss, x, rank).second_derivative(Sigma)


def distance(loss: Loss, x: Any, tolerance: float = 1e-10) -> np.ndarray:
    """Return |x - Phi(x)|, a number or `(paths,)`, the Euclidean distance of points to the limit Phi(x) of their gradient flow, see `project`.

    Args:
        loss: The loss.
        x: A point `(dim,)`, or points `(dim, paths)`, each with its own distance.
        tolerance: Error of Phi, relative to the size of x; a positive number.

    Raises:
        FlowError: If the gradient flow of a point does not converge to minimisers, as in `project`.

    Example:
        >>> import sdetools as st
        >>> float(st.manifold.distance(st.losses.sphere(2), [3.0, 0.0]).round(9))
        2.0
    """
    return np.linalg.norm(_check.finite("x", x) - project(loss, x, tolerance), axis=0)


__all__ = ["Geometry", "at", "differential", "distance", "project", "second_derivative", "tangent_projection"]
