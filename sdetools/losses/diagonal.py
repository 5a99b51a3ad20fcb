"""The quadratic loss of independent coordinates, in as many dimensions as there is memory for vectors: no matrix is formed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import spread
from sdetools.graph.value import Value
from sdetools.losses.base import Loss, coordinate_names, digest


class DiagonalQuadratic(Loss):
    """The loss L(x) = 1/2 sum_i lam_i x_i^2 of independent coordinates, with its minimiser at 0.

    The numbers lam_i are `parameters`, so that another spectrum needs no compilation. `losses.quadratic` is the same loss for any matrix.

    Args:
        spectrum: The curvatures lam_i, `(dim,)`, none of them negative.

    Raises:
        ValueError: If `spectrum` is not a vector of finite numbers, 0 or above.

    Attributes:
        parameters: The curvatures lam_i, `(dim,)`.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.DiagonalQuadratic([2.0, 1.0])
        >>> float(loss.value([1.0, 2.0])), loss.gradient([1.0, 2.0])
        (3.0, array([2., 2.]))
    """

    def __init__(self, spectrum: Any) -> None:
        lam = np.array(np.atleast_1d(_check.finite("spectrum", spectrum)))
        if lam.ndim != 1 or not len(lam) or lam.min() < 0:
            raise ValueError(
                f"`spectrum` must be a vector of numbers, 0 or above; got {_check.shown(spectrum)}. "
                "For a matrix take its eigenvalues, and the coordinates of x in its eigenbasis."
            )
        lam.setflags(write=False)
        self.parameters, self.dim = lam, len(lam)
        self.label = f"diagonal quadratic(dim={self.dim})"
        self.latex = r"\tfrac12 \sum_i \lambda_i x_i^2"

    @cached_property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names x0, x1, ... of the coordinates."""
        return coordinate_names(None, self.dim)

    @property
    def identity(self) -> str:
        """A text, equal for equal losses in every process: a hash of the curvatures."""
        return f"diagonal:{digest(self.parameters)}"

    def value(self, x: Any, p: Any = None) -> Any:
        """Return L(x), a number for `x` `(dim,)` and `(paths,)` for `(dim, paths)`; `p` are curvatures `(dim,)` in place of `parameters`, or None."""
        x = self._point(x)
        return 0.5 * np.sum(self._curvatures(x, p) * x * x, axis=0)

    def gradient(self, x: Any, p: Any = None) -> Any:
        """Return the gradient lam_i x_i, in the shape of `x`, `(dim,)` or `(dim, paths)`; `p` are curvatures in place of `parameters`, or None."""
        x = self._point(x)
        return self._curvatures(x, p) * x

    def hessian(self, x: Any, p: Any = None) -> Any:
        """Return the Hessian diag(lam), `(dim, dim)` for `x` `(dim,)`, repeated as `(dim, dim, paths)` for `(dim, paths)`, a new array.

        `p` are curvatures `(dim,)` in place of `parameters`, or None.
        """
        x = self._point(x)
        lam = self._parameters(p)
        if isinstance(x, Value) or isinstance(lam, Value):
            return np.eye(self.dim) * lam
        return np.broadcast_to(spread(np.diag(lam), x[None]), (self.dim, self.dim, *x.shape[1:])).copy()

    def hessian_product(self, x: Any, v: Any, p: Any = None) -> Any:
        """Return the Hessian-vector product lam_i v_i, a new array `(dim,)`, or `(dim, paths)` if the point `x` or the vector `v` has paths.

        `p` are curvatures `(dim,)` in place of `parameters`, or None.
        """
        x, v = self._point(x), self._point(v)
        like = x if x.ndim > v.ndim else v
        out = self._curvatures(like, p) * spread(v, like)
        return out if out.shape == like.shape else np.broadcast_to(out, like.shape).copy()

    def third(self, x: Any, p: Any = None) -> Any:
        """Return the third derivative, which is 0: `(dim, dim, dim)` for `x` `(dim,)`, `(dim, dim, dim, paths)` for `(dim, paths)`; `p` is not used."""
        return np.zeros((self.dim,) * 3 + self._point(x).shape[1:])

    def third_contracted(self, x: Any, matrix: Any, p: Any = None) -> Any:
        """Return sum_ij d_ijl L(x) M_ij, which is 0 for every `matrix` M: zeros in the shape of `x`; `p` is not used."""
        return 0.0 * self._point(x)

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return `(H, c, L0)` with L(x) = x^T H x / 2 + c^T x + L0: the matrix diag(lam) `(dim, dim)`, zeros `(dim,)` and 0."""
        return np.diag(self.parameters), np.zeros(self.dim), 0.0

    def minimiser(self) -> np.ndarray:
        """Return the minimiser 0 of L, `(dim,)`."""
        return np.zeros(self.dim)

    def effective_dimension(self, mu: float) -> float:
        """Return N(mu) = sum_i lam_i / (lam_i + mu), roughly the number of curvatures lam_i that are above `mu`, a positive number."""
        return float((self.parameters / (self.parameters + mu)).sum())

    def _curvatures(self, like: Any, p: Any) -> Any:
        """Return the curvatures, `(dim,)` or `(dim, 1)`, to multiply the points `like`."""
        return spread(self._parameters(p), like)
