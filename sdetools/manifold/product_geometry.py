r"""The manifold of minimisers Gamma of large models, by matrix-vector products, without any `dim` x `dim` matrix.

Losses of residuals, L = (1/2n) sum_i r_i^2, r_i = f_i(x) - y_i, with r = 0 on Gamma (`losses.from_torch_model`), have the Hessian H = J^T J / n
on it, with the rows grad f_i of J. P is the projection onto the kernel of H, the tangent space, and D[M]_l = sum_ij d_ijl L M_ij.
The Gram matrix J J^T / n = U S U^T gives the orthonormal basis V = J^T U (n S)^{-1/2} of the normal space, H = V S V^T. On Gamma

    D[M] = (1/n) sum_i (2 Hess f_i M grad f_i + tr(Hess f_i M) grad f_i).

The second term is normal, so P D[M] = (2/n) P sum_i Hess f_i M grad f_i, a reverse pass over forward passes. Since P grad f_i = 0,
D[P Sigma P] = J^T t / n with t_i = tr(Hess f_i P Sigma P). Terms with r_i are neglected, as they vanish on Gamma; `residual` is their size.

For other losses V and S come from the Lanczos method (ARPACK) with Hessian-vector products, and D[a b^T] from `loss.third_product`. Then
P grad tr H = P D[V V^T], because the eigenvalues of the kernel stay 0 along Gamma.

Source: the formula of `geometry`; M. Hutchinson, Communications in Statistics 19 (1990), for the stochastic trace estimator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.base import Loss
from sdetools.manifold.geometry import CURVED, LEVEL, check_flat

FIRST_RANK, GROWTH = 8, 4
"""Number of eigenpairs of the first Lanczos run, and the factor by which it grows if all of them count as curvature."""
MOST_RANK = 256
"""Largest number of eigenpairs of a Lanczos run."""
SMALL = 1e-6
"""Residuals, relative to the size of the values of the model, up to which a point counts as lying on the manifold."""


@dataclass(frozen=True)
class MatrixFree:
    """The manifold of minimisers Gamma at one point, by matrix-vector products; made by `matrix_free`.

    A subclass (`ResidualGeometry`, `LanczosGeometry`) implements the methods that raise NotImplementedError here.

    Attributes:
        loss: The loss, with `dim` coordinates.
        point: The point, `(dim,)`.
        eigenvalues: The non-zero eigenvalues of the Hessian in descending order, `(M,)`.
        gap: Gap ratio, the M-th eigenvalue over the largest modulus of those found after it, or over 1e-16 times the first if that is larger.
        residual: The size of the neglected terms: the largest |r_i| for a loss of residuals, else the largest entry of |grad L|.
    """

    loss: Loss
    point: np.ndarray
    eigenvalues: np.ndarray
    gap: float
    residual: float

    @property
    def rank(self) -> int:
        """Rank M of the Hessian; Gamma has dimension dim - M."""
        return len(self.eigenvalues)

    def coordinates(self, v: np.ndarray) -> np.ndarray:
        """Return V^T v, `(M,)` or `(M, k)`, M = `rank`, for `v` `(dim,)` or k columns `(dim, k)`; V is an orthonormal basis of the normal space."""
        raise NotImplementedError

    def across(self, w: np.ndarray) -> np.ndarray:
        """Return V w, `(dim,)` or `(dim, k)`: normal vectors from their `coordinates` w, `(M,)` or `(M, k)`, M = `rank`, in the basis V `(dim, M)`."""
        raise NotImplementedError

    def project_tangent(self, v: Any) -> np.ndarray:
        """Return P v, the tangent part of `v`, a vector `(dim,)` or k columns `(dim, k)`; the result has the shape of `v`."""
        v = np.asarray(v, dtype=float)
        return v - self.across(self.coordinates(v))

    def pseudo_inverse(self, v: Any) -> np.ndarray:
        """Return H^+ v, with the pseudo-inverse H^+ of the Hessian, for `v` `(dim,)` or `(dim, k)`; the result has the shape of `v`."""
        w = self.coordinates(np.asarray(v, dtype=float))
        return self.across(w / self.eigenvalues.reshape(-1, *[1] * (w.ndim - 1)))

    def second_derivative(self, root: Any = None, hessian_multiple: float | None = None) -> np.ndarray:
        """Return d2Phi[Sigma] = sum_ij (d^2 Phi / dx_i dx_j) Sigma_ij, `(dim,)`, for a covariance Sigma given in one of two forms.

        Args:
            root: The matrix R of Sigma = R R^T, `(dim, q)`, or `(dim,)` for one column.
            hessian_multiple: The number c of Sigma = c H, with the Hessian H; the result is then -(c/2) P grad tr H (see `trace_gradient`).

        Raises:
            ValueError: If not exactly one of them is given, or `root` has another number of rows.
        """
        if (root is None) == (hessian_multiple is None):
            raise ValueError(
                "`root` R, with Sigma = R R^T, or `hessian_multiple` c, with Sigma = c Hess L, must be given; "
                f"got {'neither' if root is None else 'both'}. Give one of them."
            )
        if hessian_multiple is not None:
            return -0.5 * _check.number("hessian_multiple", hessian_multiple) * self.trace_gradient()[0]
        R = _check.finite("root", root)
        R = R[:, None] if R.ndim == 1 else R
        if R.ndim != 2 or len(R) != self.loss.dim:
            raise ValueError(f"`root` must have shape ({self.loss.dim}, q); got shape {np.shape(root)}.")
        B = self.coordinates(R)
        A = R - self.across(B)
        lyapunov = (B @ B.T) / (self.eigenvalues[:, None] + self.eigenvalues[None, :])
        mixed = B / self.eigenvalues[:, None]
        return -self._normal(A) - self.project_tangent(self._tangent(A, lyapunov, mixed))

    def trace_gradient(self, probes: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return P grad tr H, the tangent part of the gradient of the Hessian's trace, and its standard error, `(dim,)` each.

        Args:
            probes: Number of random sign vectors of Hutchinson's estimator, at least 2; by default the result is exact, with zeros as its error.
            seed: Seed of the random signs, not read without `probes`.
        """
        if probes is None:
            return self._trace_gradient(), np.zeros(self.loss.dim)
        probes = _check.count("probes", probes, least=2, hint="One probe alone has no standard error.")
        rng = np.random.default_rng(seed)
        drawn = np.stack([self._probe(rng) for _ in range(probes)])
        return drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / np.sqrt(probes)

    def slow_drift(self, root: Any = None, hessian_multiple: float | None = None, rate: float = 1.0) -> np.ndarray:
        """Return (rate^2/2) d2Phi[Sigma], `(dim,)`, the drift of `st.SlowSDE` at lambda_t = `rate`, for Sigma = root root^T, or hessian_multiple H."""
        return 0.5 * rate**2 * self.second_derivative(root, hessian_multiple)

    def _normal(self, A: np.ndarray) -> np.ndarray:
        """Return H^+ D[A A^T], `(dim,)`, for tangent columns A `(dim, q)`; a subclass implements it, as the three methods below."""
        raise NotImplementedError

    def _tangent(self, A: np.ndarray, lyapunov: np.ndarray, mixed: np.ndarray) -> np.ndarray:
        """Return D[V X V^T + V Y A^T + A Y^T V^T], `(dim,)`, X = `lyapunov` `(M, M)`, Y = `mixed` `(M, q)`, up to a normal vector."""
        raise NotImplementedError

    def _trace_gradient(self) -> np.ndarray:
        """Return P grad tr H, `(dim,)`, exactly."""
        raise NotImplementedError

    def _probe(self, rng: np.random.Generator) -> np.ndarray:
        """Return one draw of Hutchinson's estimator of P grad tr H, `(dim,)`, with random signs from `rng`."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.loss.label}, rank {self.rank} of {self.loss.dim}, gap {self.gap:.3g})"


@dataclass(frozen=True, repr=False)
class ResidualGeometry(MatrixFree):
    """The geometry of a loss of residuals, L = (1/2n) sum_i r_i^2, by the Gram matrix J J^T / n of the residuals' gradients.

    Attributes:
        jacobian: J, `(n, dim)`, with the gradient of r_i in row i.
        mixing: U (n S)^{-1/2}, `(n, M)`, J J^T / n = U S U^T without the eigenvalues 0; V = J^T `mixing` is the basis of the normal space.
    """

    jacobian: np.ndarray
    mixing: np.ndarray

    def coordinates(self, v: np.ndarray) -> np.ndarray:
        """Return V^T v, `(rank,)` or `(rank, k)`, for `v` `(dim,)` or `(dim, k)`, with the basis V = `jacobian.T @ mixing` of the normal space."""
        return self.mixing.T @ (self.jacobian @ v)

    def across(self, w: np.ndarray) -> np.ndarray:
        """Return the normal vectors V w, `(dim,)` or `(dim, k)`, for `w` `(rank,)` or `(rank, k)`, with the basis V = `jacobian.T @ mixing`."""
        return self.jacobian.T @ (self.mixing @ w)

    def _curved(self, directions: Any) -> np.ndarray:
        """Return sum_i Hess f_i v_i, `(dim,)`; `directions(part)` returns the rows v_i of the samples in a slice."""
        loss: Any = self.loss
        return loss.curved(self.point, directions)

    def _normal_gradients(self) -> np.ndarray:
        """Return the coordinates V^T grad f_i of the normal vectors grad f_i in rows, `(n, M)`."""
        return len(self.jacobian) * self.mixing * self.eigenvalues

    def _normal(self, A: np.ndarray) -> np.ndarray:
        loss: Any = self.loss
        t = sum(loss.bent(self.point, a) for a in A.T)
        return self.pseudo_inverse(self.jacobian.T @ t) / len(self.jacobian)

    def _tangent(self, A: np.ndarray, lyapunov: np.ndarray, mixed: np.ndarray) -> np.ndarray:
        own = self._normal_gradients()
        inside, outside = (own @ lyapunov) @ self.mixing.T, own @ mixed
        moved = self._curved(lambda part: inside[part] @ self.jacobian + outside[part] @ A.T)
        return (2.0 / len(own)) * moved

    def _trace_gradient(self) -> np.ndarray:
        moved = self._curved(lambda part: self.jacobian[part])
        return self.project_tangent((2.0 / len(self.jacobian)) * moved)

    def _probe(self, rng: np.random.Generator) -> np.ndarray:
        # tr H = E |J^T s|^2 / n for signs s: its gradient along Gamma is (2/n) (sum_i s_i Hess f_i)(J^T s)
        s = rng.choice([-1.0, 1.0], len(self.jacobian))
        direction = self.jacobian.T @ s
        moved = self._curved(lambda part: s[part, None] * direction[None, :])
        return self.project_tangent((2.0 / len(s)) * moved)


@dataclass(frozen=True, repr=False)
class LanczosGeometry(MatrixFree):
    """The geometry of any loss, by the eigenvectors of the Hessian from the Lanczos method.

    Attributes:
        frame: The orthonormal basis V of the normal space, `(dim, rank)`: column j is the eigenvector of `eigenvalues[j]`.
    """

    frame: np.ndarray

    def coordinates(self, v: np.ndarray) -> np.ndarray:
        """Return V^T v, `(rank,)` or `(rank, k)`, for `v` `(dim,)` or `(dim, k)`; V = `frame` is an orthonormal basis of the normal space."""
        return self.frame.T @ v

    def across(self, w: np.ndarray) -> np.ndarray:
        """Return the normal vectors V w, `(dim,)` or `(dim, k)`, for coordinates `w`, `(rank,)` or `(rank, k)`, in the basis V = `frame`."""
        return self.frame @ w

    def _third(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return sum_ij d_ijl L a_i b_j at the point, `(dim,)` indexed by l, for vectors a and b `(dim,)`."""
        return self.loss.third_product(self.point, a, b)

    def _normal(self, A: np.ndarray) -> np.ndarray:
        return self.pseudo_inverse(sum(self._third(a, a) for a in A.T))

    def _tangent(self, A: np.ndarray, lyapunov: np.ndarray, mixed: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(lyapunov)
        out = sum(value * self._third(v, v) for value, v in zip(values, (self.frame @ vectors).T))
        return out + 2.0 * sum(self._third(w, a) for w, a in zip((self.frame @ mixed).T, A.T))

    def _trace_gradient(self) -> np.ndarray:
        return self.project_tangent(sum(self._third(v, v) for v in self.frame.T))

    def _probe(self, rng: np.random.Generator) -> np.ndarray:
        z = self.frame @ rng.choice([-1.0, 1.0], self.rank)
        return self.project_tangent(self._third(z, z))


def matrix_free(loss: Loss, x: Any, rank: int | None = None) -> MatrixFree:
    """Return the geometry of the manifold of minimisers at one point by matrix-vector products, for losses of many coordinates.

    A loss of residuals (`st.losses.from_torch_model`) gives a `ResidualGeometry` by its Gram matrix, any other loss a `LanczosGeometry`
    by the Lanczos method (up to 256 curvatures).

    Args:
        loss: The loss.
        x: A point of the manifold, `(dim,)`.
        rank: Rank of the Hessian, at least 1; by default the number of its eigenvalues above 1e-6 of the largest.

    Raises:
        ValueError: If the point is not a minimiser (`retract` moves a near one to the manifold), an eigenvalue is negative, the rank is
            ambiguous (the message gives the gap ratio), or there is no manifold.

    Example:
        >>> import numpy as np, sdetools as st
        >>> geometry = st.manifold.matrix_free(st.losses.sphere(3), [1.0, 0.0, 0.0])
        >>> geometry.rank, geometry.second_derivative(root=np.eye(3)).round(9)[0]
        (1, np.float64(-2.0))
    """
    if not isinstance(loss, Loss):
        raise ValueError(
            f"`loss` must be a loss of `sdetools.losses`; got {_check.shown(loss)}. Try losses.from_torch_model(...)."
        )
    x = _check.point("x", x, loss.dim)
    rank = None if rank is None else _check.count("rank", rank)
    found = _by_residuals(loss, x, rank) if getattr(loss, "model", None) is not None else _by_lanczos(loss, x, rank)
    check_flat(
        loss,
        x[None],
        lambda v: found.pseudo_inverse(v[0])[None],
        lambda v: found.project_tangent(v[0])[None],
        found.eigenvalues[None],
        found.eigenvalues[-1:] / found.gap,
    )
    return found


def _by_residuals(loss: Any, x: np.ndarray, rank: int | None) -> ResidualGeometry:
    """Return the geometry of a loss of residuals at the point `x` `(dim,)`; `rank` is that of the Hessian, None if unknown."""
    J, r = loss.jacobian(x), loss.residuals(x)
    largest = float(np.abs(r).max())
    size = float(np.abs(loss.data[1].numpy()).max()) + float(np.abs(loss.model_values(x)).max())
    if not largest <= SMALL * max(size, 1e-300):
        raise ValueError(
            f"`x` must lie on the manifold of minimisers, all residuals 0; the largest is {largest:.3g} for values of size "
            f"{size:.3g}. Move a near point to the manifold: st.manifold.retract(loss, x)."
        )
    values, U = np.linalg.eigh(J @ J.T / len(J))
    values, U = values[::-1], U[:, ::-1]
    M, gap = _rank_of(loss, values, rank, len(values) < loss.dim)
    return ResidualGeometry(loss, x, values[:M], gap, largest, J, U[:, :M] / np.sqrt(len(J) * values[:M]))


def _by_lanczos(loss: Loss, x: np.ndarray, rank: int | None) -> LanczosGeometry:
    """Return the geometry of any loss at the point `x` `(dim,)` by the largest eigenpairs of its Hessian; `rank` is None if unknown."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    slope = float(np.abs(loss.gradient(x)).max())
    operator = LinearOperator((loss.dim, loss.dim), matvec=lambda v: loss.hessian_product(x, np.ravel(v)), dtype=float)
    k, most = min(FIRST_RANK if rank is None else rank + 2, loss.dim), min(loss.dim, MOST_RANK)
    while True:
        if k >= loss.dim - 1:
            values, V = np.linalg.eigh(np.stack([loss.hessian_product(x, e) for e in np.eye(loss.dim)], axis=1))
        else:
            start = np.random.default_rng(0).standard_normal(loss.dim)
            values, V = eigsh(operator, k=k, which="LM", v0=start)
        order = np.argsort(values)[::-1]
        values, V = values[order], V[:, order]
        # LM finds the eigenvalues of largest modulus: a negative one among them is a saddle
        if len(values) == loss.dim or np.abs(values).min() <= CURVED * np.abs(values).max() or k >= most:
            break
        k = min(GROWTH * k, most)
    top = max(float(np.abs(values).max()), 1e-300)
    if slope > 1e-6 * top * (1e-3 + float(np.abs(x).max())):
        raise ValueError(
            f"`x` must lie on the manifold of minimisers; |grad L| is {slope:.3g} there. "
            "Project it first: st.manifold.project(loss, x)."
        )
    if len(values) < loss.dim and np.abs(values).min() > CURVED * top and rank is None:
        raise ValueError(
            f"the Hessian must have a rank of at most {MOST_RANK} for Lanczos; eigenvalue {len(values)} is "
            f"{np.abs(values).min():.3g}, the largest {top:.3g}. Give the loss by its residuals (st.losses.from_torch_model), or "
            "give rank=."
        )
    M, gap = _rank_of(loss, values, rank, len(values) < loss.dim)
    return LanczosGeometry(loss, x, values[:M], gap, slope, V[:, :M])


def _rank_of(loss: Loss, values: np.ndarray, rank: int | None, more: bool) -> tuple[int, float]:
    """Return the rank M, `rank` or if None detected, and its gap ratio from descending eigenvalues; `more`: whether there are others, which are 0."""
    top = max(float(values[0]), 1e-300)
    if values[-1] < -CURVED * top:
        raise ValueError(
            f"`x` must be a minimiser; the Hessian of {loss.label} has eigenvalues from {values[-1]:.3g} to {values[0]:.3g}: "
            "a saddle. Project a perturbed point: st.manifold.project(loss, x)."
        )
    M = int((values > CURVED * top).sum()) if rank is None else min(rank, len(values))
    after = float(np.abs(values[M:]).max(initial=0.0))
    gap = float(values[M - 1]) / max(after, 1e-16 * top) if M else 0.0
    unclear = after > LEVEL * top if rank is None else gap < 1e3
    if unclear:
        raise ValueError(
            f"the rank of the Hessian must be clear; the eigenvalues of {loss.label} before and after rank {M} are "
            f"{values[max(M - 1, 0)]:.3g} and {after:.3g}, the largest {top:.3g}, a gap ratio of {gap:.3g}. The point is near a "
            "singular one, or was not moved to the manifold to rounding; give rank= if you know it."
        )
    if M == 0 or (len(values) == M and not more):
        what = "vanishes" if M == 0 else f"has full rank {M}, an isolated minimum,"
        raise ValueError(f"the loss must have a manifold of minimisers; the Hessian of {loss.label} {what} there.")
    return M, gap


def retract(loss: Any, x: Any, tolerance: float = 1e-13, max_steps: int = 100) -> np.ndarray:
    """Return a point of zero residuals near `x`, a new array `(dim,)`, by Gauss-Newton steps of least norm with backtracking.

    The step is -J^T (J J^T)^+ r, with the residuals r and their Jacobian J, halved until the sum of squares decreases. The result agrees
    with the gradient-flow projection Phi(x) to second order in the distance.

    Args:
        loss: A loss of `st.losses.from_torch_model`.
        x: The initial point, `(dim,)`.
        tolerance: Largest residual of the result, relative to the sum of the largest |y_i| and the largest |f_i(x)| at the initial point.
        max_steps: Largest number of steps.

    Raises:
        ValueError: If the residuals do not converge to 0, or the loss has none.

    Example:
        >>> import torch, sdetools as st
        >>> circle = st.losses.from_torch_model(lambda x, a: a * (x * x).sum(), torch.tensor([1.0]), torch.tensor([1.0]), dim=2)
        >>> st.manifold.retract(circle, [3.0, 4.0]).round(9)
        array([0.6, 0.8])
    """
    if getattr(loss, "model", None) is None:
        raise ValueError(
            f"`loss` must be a loss of residuals, such as st.losses.from_torch_model(...); got {getattr(loss, 'label', loss)!r}. "
            "For any other take st.manifold.project(loss, x)."
        )
    x = _check.point("x", x, loss.dim).copy()
    size = float(np.abs(loss.data[1].numpy()).max()) + float(np.abs(loss.model_values(x)).max())
    r = loss.residuals(x)
    for _ in range(max_steps):
        if np.abs(r).max() <= tolerance * size:
            return x
        J = loss.jacobian(x)
        step = J.T @ np.linalg.lstsq(J @ J.T, r, rcond=1e-12)[0]
        share = 1.0
        while True:
            tried = x - share * step
            new = loss.residuals(tried)
            if np.isfinite(new).all() and (new @ new < r @ r):
                break
            share *= 0.5
            if share < 1e-6:
                break
        if share < 1e-6:
            if np.abs(r).max() <= 100 * tolerance * size:
                return x  # no step helps because the residuals are rounding errors
            break
        x, r = tried, new
    raise ValueError(
        f"the residuals must converge to 0 near `x`; the Gauss-Newton steps ended at a largest residual of {np.abs(r).max():.3g} "
        f"for values of size {size:.3g}. Start nearer to an interpolating point, or take a wider model."
    )
