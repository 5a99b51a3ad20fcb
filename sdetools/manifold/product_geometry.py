r"""The manifold of minimisers of large models, without any `dim` x `dim` matrix: products only.

Losses of residuals, L = (1/2n) sum_i r_i^2 with r = 0 on Gamma (`losses.from_torch_model`): H = J^T J / n with the rows grad f_i of J, so that the
Gram matrix J J^T / n = U S U^T gives the frame V = J^T U (n S)^{-1/2} across Gamma, H = V S V^T. On Gamma

    D[M] = (1/n) sum_i (2 Hess f_i M grad f_i + tr(Hess f_i M) grad f_i),

whose second part is normal: P D[M] = (2/n) P sum_i Hess f_i M grad f_i is one reverse pass over forward ones, and D[P Sigma P] = J^T t / n with
t_i = tr(Hess f_i P Sigma P), since P grad f_i = 0. Terms with r_i itself are left out: they vanish on Gamma, and `residual` tells their size.

Other losses: V and S by Lanczos (ARPACK) on Hessian products, D[a b^T] by `loss.third_product`. There P grad tr H = P D[V V^T], for along
Gamma the eigenvalues of the kernel stay 0.

Source: the formula of `geometry`, restricted; M. Hutchinson, Communications in Statistics 19 (1990), for the trace by probes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.base import Loss
from sdetools.manifold.geometry import CURVED, LEVEL, check_flat

FIRST_RANK, MORE = 8, 4
"""Eigenpairs that Lanczos is asked for at first, and how many times as many when all of them count."""
MOST_RANK = 256
"""Eigenpairs that Lanczos is asked for at most."""
SMALL = 1e-6
"""Residuals, as a part of the size of the model's values, up to which a point counts as lying on the manifold."""


@dataclass(frozen=True)
class MatrixFree:
    """The manifold at one point, by products; made by `matrix_free`. `eigenvalues` of the Hessian across it, descending `(M,)`.

    `gap`: the M-th beside the largest one left out. `residual`: the largest |r_i|, or |grad L|: what the formulas neglect.
    """

    loss: Loss
    point: np.ndarray
    eigenvalues: np.ndarray
    gap: float
    residual: float

    @property
    def rank(self) -> int:
        """M."""
        return len(self.eigenvalues)

    def coordinates(self, v: np.ndarray) -> np.ndarray:
        """V^T v: `(M,)` or `(M, k)`."""
        raise NotImplementedError

    def across(self, w: np.ndarray) -> np.ndarray:
        """V w: `(dim,)` or `(dim, k)`."""
        raise NotImplementedError

    def project_tangent(self, v: Any) -> np.ndarray:
        """P v, for `(dim,)` or a block `(dim, k)`."""
        v = np.asarray(v, dtype=float)
        return v - self.across(self.coordinates(v))

    def pseudo_inverse(self, v: Any) -> np.ndarray:
        """H^+ v."""
        w = self.coordinates(np.asarray(v, dtype=float))
        return self.across(w / self.eigenvalues.reshape(-1, *[1] * (w.ndim - 1)))

    def second_derivative(self, root: Any = None, hessian_multiple: float | None = None) -> np.ndarray:
        """d2Phi[Sigma], `(dim,)`, for Sigma = R R^T with `root` R `(dim, q)`, or Sigma = c H with `hessian_multiple` c.

        ValueError unless exactly one of them is given, and for a root of another size.
        """
        if (root is None) == (hessian_multiple is None):
            raise ValueError(
                "give either `root` R, with Sigma = R R^T, or `hessian_multiple` c, with Sigma = c Hess L; one of them."
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
        """P grad tr H and its standard error, `(dim,)` each: exact (error 0), or by Hutchinson's estimator with `probes` random signs."""
        if probes is None:
            return self._trace_gradient(), np.zeros(self.loss.dim)
        probes = _check.count("probes", probes, least=2, hint="One probe alone has no standard error.")
        rng = np.random.default_rng(seed)
        drawn = np.stack([self._probe(rng) for _ in range(probes)])
        return drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / np.sqrt(probes)

    def slow_drift(self, root: Any = None, hessian_multiple: float | None = None, rate: float = 1.0) -> np.ndarray:
        """(rate^2 / 2) d2Phi[Sigma]: the drift of the slow SDE."""
        return 0.5 * rate**2 * self.second_derivative(root, hessian_multiple)

    def _normal(self, A: np.ndarray) -> np.ndarray:
        """H^+ D[A A^T] for tangent columns A."""
        raise NotImplementedError

    def _tangent(self, A: np.ndarray, lyapunov: np.ndarray, mixed: np.ndarray) -> np.ndarray:
        """D[V X V^T + V Y A^T + A Y^T V^T], X = `lyapunov`, Y = `mixed`, up to a normal part."""
        raise NotImplementedError

    def _trace_gradient(self) -> np.ndarray:
        raise NotImplementedError

    def _probe(self, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.loss.label}, rank {self.rank} of {self.loss.dim}, gap {self.gap:.3g})"


@dataclass(frozen=True, repr=False)
class ResidualGeometry(MatrixFree):
    """By the Gram matrix of the residuals' gradients; `jacobian` J `(n, dim)`, `mixing` U (n S)^{-1/2} `(n, M)`: V = J^T `mixing`."""

    jacobian: np.ndarray
    mixing: np.ndarray

    def coordinates(self, v: np.ndarray) -> np.ndarray:
        return self.mixing.T @ (self.jacobian @ v)

    def across(self, w: np.ndarray) -> np.ndarray:
        return self.jacobian.T @ (self.mixing @ w)

    def _curved(self, directions: Any) -> np.ndarray:
        """sum_i Hess f_i v_i."""
        loss: Any = self.loss
        return loss.curved(self.point, directions)

    def _own(self) -> np.ndarray:
        """V^T grad f_i in rows, `(n, M)`."""
        return len(self.jacobian) * self.mixing * self.eigenvalues

    def _normal(self, A: np.ndarray) -> np.ndarray:
        loss: Any = self.loss
        t = sum(loss.bent(self.point, a) for a in A.T)
        return self.pseudo_inverse(self.jacobian.T @ t) / len(self.jacobian)

    def _tangent(self, A: np.ndarray, lyapunov: np.ndarray, mixed: np.ndarray) -> np.ndarray:
        own = self._own()
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
    """By the eigenvectors `frame` V `(dim, M)` across the manifold."""

    frame: np.ndarray

    def coordinates(self, v: np.ndarray) -> np.ndarray:
        return self.frame.T @ v

    def across(self, w: np.ndarray) -> np.ndarray:
        return self.frame @ w

    def _third(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.loss.third_product(self.point, a, b)

    def _normal(self, A: np.ndarray) -> np.ndarray:
        return self.pseudo_inverse(sum(self._third(a, a) for a in A.T))

    def _tangent(self, A: np.ndarray, lyapunov: np.ndarray, mixed: np.ndarray) -> np.ndarray:
        values, turned = np.linalg.eigh(lyapunov)
        out = sum(value * self._third(v, v) for value, v in zip(values, (self.frame @ turned).T))
        return out + 2.0 * sum(self._third(w, a) for w, a in zip((self.frame @ mixed).T, A.T))

    def _trace_gradient(self) -> np.ndarray:
        return self.project_tangent(sum(self._third(v, v) for v in self.frame.T))

    def _probe(self, rng: np.random.Generator) -> np.ndarray:
        z = self.frame @ rng.choice([-1.0, 1.0], self.rank)
        return self.project_tangent(self._third(z, z))


def matrix_free(loss: Loss, x: Any, rank: int | None = None) -> MatrixFree:
    """The manifold of minimisers at a point of it, `(dim,)`, by products: for losses of many coordinates.

    A loss of residuals (`st.losses.from_torch_model`) goes through its Gram matrix, any other through Lanczos on Hessian products (up to
    256 curvatures). `rank` as in `at`. ValueError where the point is no minimiser (`retract` brings a near one back), where a
    curvature is negative, where the rank is ambiguous (the gap is told), and where there is no manifold.

    >>> import sdetools as st
    >>> geometry = matrix_free(st.losses.sphere(3), [1.0, 0.0, 0.0])
    >>> geometry.rank, geometry.second_derivative(root=np.eye(3)).round(9)[0]
    (1, np.float64(-2.0))
    """
    if not isinstance(loss, Loss):
        raise ValueError(f"`loss` must be a loss of `sdetools.losses`; got {loss!r}. Try losses.from_torch_model(...).")
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
    J, r = loss.jacobian(x), loss.residuals(x)
    largest = float(np.abs(r).max())
    size = float(np.abs(loss.data[1].numpy()).max()) + float(np.abs(loss.model_values(x)).max())
    if not largest <= SMALL * max(size, 1e-300):
        raise ValueError(
            f"`x` must lie on the manifold of minimisers, all residuals 0; the largest is {largest:.3g} beside values of {size:.3g}. "
            "Bring a near point back: st.manifold.retract(loss, x)."
        )
    values, U = np.linalg.eigh(J @ J.T / len(J))
    values, U = values[::-1], U[:, ::-1]
    M, gap = _rank_of(loss, values, rank, len(values) < loss.dim)
    return ResidualGeometry(loss, x, values[:M], gap, largest, J, U[:, :M] / np.sqrt(len(J) * values[:M]))


def _by_lanczos(loss: Loss, x: np.ndarray, rank: int | None) -> LanczosGeometry:
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
        # LM finds what is largest in size: a negative curvature among them is a saddle
        if len(values) == loss.dim or np.abs(values).min() <= CURVED * np.abs(values).max() or k >= most:
            break
        k = min(MORE * k, most)
    top = max(float(np.abs(values).max()), 1e-300)
    if slope > 1e-6 * top * (1e-3 + float(np.abs(x).max())):
        raise ValueError(
            f"`x` must lie on the manifold of minimisers; |grad L| is {slope:.3g} there. Project it first: st.manifold.project(loss, x)."
        )
    if len(values) < loss.dim and np.abs(values).min() > CURVED * top and rank is None:
        raise ValueError(
            f"the Hessian must have at most {MOST_RANK} curvatures for Lanczos; the {len(values)}th is still {np.abs(values).min():.3g} beside "
            f"{top:.3g}. Give the loss by its residuals (st.losses.from_torch_model), or rank=."
        )
    M, gap = _rank_of(loss, values, rank, len(values) < loss.dim)
    return LanczosGeometry(loss, x, values[:M], gap, slope, V[:, :M])


def _rank_of(loss: Loss, values: np.ndarray, rank: int | None, more: bool) -> tuple[int, float]:
    """M and the gap behind it, from descending eigenvalues; `more`: there are others, which are 0."""
    top = max(float(values[0]), 1e-300)
    if values[-1] < -CURVED * top:
        raise ValueError(
            f"`x` must hold minimisers; the Hessian of {loss.label} has the eigenvalue {values[-1]:.3g} beside {values[0]:.3g}: a saddle."
        )
    M = int((values > CURVED * top).sum()) if rank is None else min(rank, len(values))
    after = float(np.abs(values[M:]).max(initial=0.0))
    gap = float(values[M - 1]) / max(after, 1e-16 * top) if M else 0.0
    unclear = after > LEVEL * top if rank is None else gap < 1e3
    if unclear:
        raise ValueError(
            f"the rank of the Hessian must be clear; the eigenvalues of {loss.label} before and after rank {M} are "
            f"{values[max(M - 1, 0)]:.3g} and {after:.3g} beside {top:.3g}, a gap ratio of {gap:.3g}. The point is near a singular one, or was not "
            "brought to the manifold to rounding; give rank= if you know it."
        )
    if M == 0 or (len(values) == M and not more):
        what = "vanishes" if M == 0 else f"has full rank {M}, an isolated minimum,"
        raise ValueError(f"the loss must have a manifold of minimisers; the Hessian of {loss.label} {what} there.")
    return M, gap


def retract(loss: Any, x: Any, tolerance: float = 1e-13, max_steps: int = 100) -> np.ndarray:
    """A point of zero residuals near `x`, `(dim,)`, by Gauss-Newton steps of least norm, -J^T (J J^T)^+ r, halved where they do not help.

    For losses of `st.losses.from_torch_model`. It is not Phi from afar, but agrees with it to second order in the distance. `tolerance`: of
    residuals, as a part of the model's values. ValueError where it does not get there.

    >>> import torch, sdetools as st
    >>> circle = st.losses.from_torch_model(lambda x, a: a * (x * x).sum(), torch.tensor([1.0]), torch.tensor([1.0]), dim=2)
    >>> retract(circle, [3.0, 4.0]).round(9)
    array([0.6, 0.8])
    """
    if getattr(loss, "model", None) is None:
        raise ValueError(
            "`retract` must have a loss of residuals, such as st.losses.from_torch_model(...); take st.manifold.project(loss, x)."
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
                return x  # rounding
            break
        x, r = tried, new
    raise ValueError(
        f"the residuals must reach 0 near `x`; Gauss-Newton's steps ended at a largest residual of {np.abs(r).max():.3g} beside values of {size:.3g}. "
        "Start nearer to an interpolating point, or take a wider model."
    )
