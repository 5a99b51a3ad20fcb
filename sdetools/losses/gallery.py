"""Losses whose limits are known in closed form: quadratic and linear losses, and test problems given by expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools._arrays import components, spread
from sdetools.graph.value import Value
from sdetools.losses.base import Loss, coordinate_names, digest, scalar

if TYPE_CHECKING:
    from sdetools.losses.expression import ExpressionLoss

TRACED = 64
"""Largest number of non-zero entries of a matrix whose entries are parameters, so that other values need no compilation."""


class QuadraticLoss(Loss):
    """The loss L(x) = (x - c)^T H (x - c) / 2 + b^T (x - c); build it with `quadratic` or `linear`.

    Args:
        matrix: H, `(dim, dim)`, symmetric.
        center: c, `(dim,)`.
        slope: b, `(dim,)`.
        names: Names of the coordinates, a list or "x y"; None for x0, x1, ...

    Attributes:
        matrix: H.
        center: c.
        slope: b.
        traced: Whether H has at most 64 non-zero entries and at most 64 coordinates. The non-zero entries are then `parameters`: those of
            the upper triangle of H row by row, then of c, then of b. Other values in the same places need no compilation. A larger H is
            data, and `parameters` is empty.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.quadratic([[2.0, 1.0], [1.0, 3.0]], center=[1.0, 0.0])
        >>> loss.parameters, loss.minimiser()  # three entries of H, one of c
        (array([2., 1., 3., 1.]), array([1., 0.]))
    """

    def __init__(self, matrix: np.ndarray, center: np.ndarray, slope: np.ndarray, names: Sequence[str] | None = None) -> None:
        self.dim = len(center)
        self.names = coordinate_names(names, self.dim)
        self.matrix, self.center, self.slope = matrix, center, slope
        entries = np.count_nonzero(matrix)
        self.traced = entries <= TRACED and self.dim <= TRACED
        rows, columns = np.nonzero(np.triu(matrix)) if self.traced else np.empty((2, 0), int)
        self._pattern = rows, columns, np.flatnonzero(center), np.flatnonzero(slope)
        self.parameters = self._pack() if self.traced else np.empty(0)
        curved = bool(entries)
        self.label = f"quadratic(dim={self.dim})" if curved else f"linear(dim={self.dim})"
        shifted = "(x - c)" if self._pattern[2].size else "x"
        self.latex = rf"\tfrac12 {shifted}^\top H {shifted}" if curved else ""
        if self._pattern[3].size or not curved:
            self.latex += (" + " if curved else "") + rf"b^\top {shifted}"

    @property
    def identity(self) -> str:
        """A text, equal for equal losses in every process: a hash of H, c and b."""
        return f"quadratic:{digest(self.matrix, self.center, self.slope)}"

    def value(self, x: Any, p: Any = None) -> Any:
        """Return L(x), a number for `x` `(dim,)` and `(paths,)` for `(dim, paths)`.

        `p` are numbers in place of `parameters`, in the same order; None for `parameters`.
        """
        x = self._point(x)
        curved = self._curvature(x, p)
        if not self.traced:
            shifted = self._shifted(x)
            out = 0.5 * np.sum(shifted * curved, axis=0)
            return out + np.sum(spread(self.slope, x) * shifted, axis=0) if self.slope.any() else out
        _, c, b = self._unpack(p)
        return scalar(sum((curved[i] / 2 + b[i]) * (x[i] - c[i]) for i in range(self.dim)), x)

    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the gradient H (x - c) + b of the loss, in the shape of `x`, `(dim,)` or `(dim, paths)`.

        `p` are numbers in place of `parameters`, in the same order; None for `parameters`.
        """
        x = self._point(x)
        curved = self._curvature(x, p)
        if not self.traced:
            return curved + spread(self.slope, x) if self.slope.any() else curved
        return components([h + b for h, b in zip(curved, self._unpack(p)[2], strict=True)], x)

    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian H of the loss, `(dim, dim)` for `x` `(dim,)`, repeated as `(dim, dim, paths)` for `(dim, paths)`.

        `p` are numbers in place of `parameters`, in the same order; None for `parameters`.
        """
        x = self._point(x)
        return components(list(self._unpack(p)[0].ravel()), x).reshape(self.dim, self.dim, *x.shape[1:])

    def hessian_product(self, x: Any, v: Any, p: Any = None) -> Any:
        """Return the Hessian-vector product H v, `(dim,)`, or `(dim, paths)` if `x` or `v` has paths; it does not depend on the point `x`.

        `p` are numbers in place of `parameters`, in the same order; None for `parameters`.
        """
        x, v = self._point(x), self._point(v)
        product = self._unpack(p)[0] @ v
        if isinstance(product, Value) and not self.traced:
            return product
        return components(list(product), x if x.ndim >= v.ndim else v)

    def third(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the third derivative, which is 0: zeros `(dim, dim, dim)` for `x` `(dim,)`, `(dim, dim, dim, paths)` for `(dim, paths)`.

        `p` is not used.
        """
        x = self._point(x)
        return components([0.0] * self.dim**3, x).reshape((self.dim,) * 3 + x.shape[1:])

    def third_contracted(self, x: Any, matrix: Any, p: Any = None) -> np.ndarray:
        """Return sum_ij d_ijl L(x) M_ij, which is 0 for every `matrix` M: zeros in the shape of `x`; `p` is not used."""
        return components([0.0] * self.dim, self._point(x))

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return `(H, b - H c, L(0))`, the coefficients of L(x) = x^T H x / 2 + (b - H c)^T x + L(0): `(dim, dim)`, `(dim,)` and a float."""
        pull = self.matrix @ self.center
        level = self.center @ pull / 2 - self.slope @ self.center
        return self.matrix.copy(), self.slope - pull, float(level)

    def minimiser(self) -> np.ndarray:
        """Return the minimiser of L, an array `(dim,)`; among many, the one nearest to the centre c.

        Raises:
            ValueError: If L is not bounded below: H has a negative eigenvalue, or b a component in the null space of H.
        """
        low = np.linalg.eigvalsh(self.matrix)[0]
        step = np.linalg.lstsq(self.matrix, -self.slope, rcond=None)[0]
        scale = max(np.abs(self.matrix).max(), np.abs(self.slope).max(), 1e-300)
        if low < -1e-12 * scale or np.abs(self.matrix @ step + self.slope).max() > 1e-9 * scale:
            raise ValueError(f"{self.label} must be bounded below to have a minimiser; got a smallest eigenvalue of {low:.3g}.")
        return self.center + step

    def _curvature(self, x: Any, p: Any) -> Any:
        """Return the `dim` components of H (x - c), each `(*paths,)` for points `x` `(dim, *paths)`: a list if `traced`, else an array."""
        if not self.traced:
            return self.matrix @ self._shifted(x)
        H, c, _ = self._unpack(p)
        rows, columns = self._pattern[:2]
        pairs = sorted({*zip(rows.tolist(), columns.tolist(), strict=True), *zip(columns.tolist(), rows.tolist(), strict=True)})
        out: list[Any] = [None] * self.dim
        for i, j in pairs:
            term = H[i, j] * (x[j] - c[j])
            out[i] = term if out[i] is None else out[i] + term
        return [0.0 if h is None else h for h in out]

    def _shifted(self, x: Any) -> Any:
        """Return x - c in the shape of `x`."""
        return x - spread(self.center, x) if self.center.any() else x

    def _pack(self) -> np.ndarray:
        """Return the non-zero entries of H (upper triangle), c and b as parameters, one array."""
        rows, columns, centers, slopes = self._pattern
        return np.concatenate([self.matrix[rows, columns], self.center[centers], self.slope[slopes]])

    def _unpack(self, p: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return H `(dim, dim)`, c `(dim,)` and b `(dim,)` with the entries of `p` at the non-zero positions; the stored arrays if `p` is None."""
        p = self._parameters(p)
        if p is self.parameters or not self.traced:
            return self.matrix, self.center, self.slope
        rows, columns, centers, slopes = self._pattern
        kind = object if isinstance(p, Value) else p.dtype
        H, c, b = (np.zeros(shape, dtype=kind) for shape in (self.matrix.shape, self.dim, self.dim))
        entries, at, by = np.split(p, [len(rows), len(rows) + len(centers)])
        entries, at, by = (list(part) for part in (entries, at, by))
        H[rows, columns] = entries
        H[columns, rows] = entries
        c[centers], b[slopes] = at, by
        return H, c, b


def quadratic(H: Any, center: Any = 0.0, names: Sequence[str] | None = None) -> QuadraticLoss:
    """Return the quadratic loss L(x) = (x - c)^T H (x - c) / 2.

    Args:
        H: A symmetric matrix `(dim, dim)`, its diagonal `(dim,)`, or one number, which stands for its multiple of the identity; `center`
            then gives the dimension. It need not be positive.
        center: The point c, `(dim,)`, or one number for all coordinates.
        names: Names of the coordinates, a list or one string such as "x y"; by default x0, x1, ...

    Raises:
        ValueError: If H is not symmetric or not finite, or a shape is wrong.

    Example:
        >>> import sdetools as st
        >>> st.losses.quadratic([[2.0, 1.0], [1.0, 2.0]], center=[1.0, 0.0]).gradient([2.0, 1.0])
        array([3., 3.])
    """
    H, center = _check.finite("H", H), _check.finite("center", center)
    if H.ndim > 2 or center.ndim > 1 or 0 in H.shape or 0 in center.shape:
        raise ValueError(
            f"`H` must be a matrix, a diagonal or a number, and `center` a point; got shapes {H.shape}, {center.shape}."
        )
    dim = max(len(H) if H.ndim else 1, len(center) if center.ndim else 1)
    if H.ndim < 2 and H.size in (1, dim):
        H = np.diag(np.broadcast_to(H, dim))
    if H.shape != (dim, dim):
        raise ValueError(f"`H` must have shape ({dim}, {dim}), that of `center` squared; got shape {H.shape}.")
    asymmetry = _asymmetry(H)
    if asymmetry and asymmetry > 1e-12 * np.abs(H).max():
        raise ValueError(
            f"`H` must be symmetric; its largest asymmetry is {asymmetry:.3g}. Take (H + H.T) / 2: it has the same loss."
        )
    if center.ndim and len(center) != dim:
        raise ValueError(f"`center` must have shape ({dim},), one number for each coordinate; got shape {center.shape}.")
    matrix = np.ascontiguousarray((H + H.T) / 2) if asymmetry else np.array(H, order="C")
    return QuadraticLoss(matrix, np.broadcast_to(center, dim).copy(), np.zeros(dim), names)


def _asymmetry(H: np.ndarray, tile: int = 128) -> float:
    """Return max |H - H^T|, block by block of `tile` rows and columns: reading a large matrix along its columns takes seconds."""
    starts = range(0, len(H), tile)
    return max(
        float(np.abs(H[i : i + tile, j : j + tile] - H[j : j + tile, i : i + tile].T).max())
        for i in starts
        for j in starts
        if j <= i
    )


def linear(c: Any, names: Sequence[str] | None = None) -> QuadraticLoss:
    """Return the linear loss L(x) = c^T x, whose gradient c is constant, as in section 3.1 of Wang et al. 2024.

    Args:
        c: The gradient, `(dim,)`, or one number for one coordinate.
        names: Names of the coordinates, a list or one string such as "x y"; by default x0, x1, ...

    Raises:
        ValueError: If `c` is not a vector of finite numbers.

    Example:
        >>> import sdetools as st
        >>> st.losses.linear([1.0, -2.0]).gradient([5.0, 5.0])
        array([ 1., -2.])
    """
    c = np.atleast_1d(_check.finite("c", c))
    if c.ndim != 1 or not c.size:
        raise ValueError(f"`c` must be a vector, one number for each coordinate; got shape {c.shape}.")
    return QuadraticLoss(np.zeros((len(c), len(c))), np.zeros(len(c)), c.copy(), names)


def double_well() -> ExpressionLoss:
    """Return the loss L(x) = (x^2 - 1)^2 / 4 of one coordinate, with minima at -1 and 1 and a barrier of height 1/4 at 0.

    Example:
        >>> import sdetools as st
        >>> st.losses.double_well().gradient([2.0])
        array([6.])
    """
    return _expression("(x**2 - 1)**2 / 4", "x")


def hyperbola() -> ExpressionLoss:
    """Return the loss L(x, y) = (x y - 1)^2 / 2, whose minimisers are the curve x y = 1; its gradient flow conserves x^2 - y^2.

    Example:
        >>> import sdetools as st
        >>> st.losses.hyperbola().gradient([2.0, 1.0])
        array([1., 2.])
    """
    return _expression("(x*y - 1)**2 / 2", "x y")


def exponential_valley(c: float = 1.0) -> ExpressionLoss:
    """Return the loss L(x, y) = e^{c x} y^2 / 2, whose minimisers are the line y = 0.

    The gradient flow from (x, y) ends at Phi(x, y) = (x - c y^2/4, 0). The slow SDE on the minimisers, with noise covariance Sigma = I and rate
    lambda_t = 1, has X_t ~ N(x_0 - c t/4, t) for the first coordinate.

    Args:
        c: Rate at which the curvature grows along the valley.

    Raises:
        ValueError: If `c` is not a finite number.

    Example:
        >>> import sdetools as st
        >>> st.losses.exponential_valley(2.0).gradient([0.0, 3.0])
        array([9., 3.])
    """
    return _expression("exp(c*x) * y**2 / 2", "x y", {"c": _check.number("c", c)})


def sphere(dim: int) -> ExpressionLoss:
    """Return the loss L(x) = (|x|^2 - 1)^2 / 4, whose minimisers are the unit sphere.

    The gradient flow from x ends at Phi(x) = x / |x|. The slow SDE on the minimisers, with noise covariance Sigma = I and rate lambda_t = 1, is
    Brownian motion on the sphere: E X_t = e^{-(dim-1) t/2} x_0.

    Args:
        dim: Number of coordinates.

    Raises:
        ValueError: If `dim` is not a positive integer.

    Example:
        >>> import sdetools as st
        >>> st.losses.sphere(2).gradient([2.0, 0.0])
        array([6., 0.])
    """
    dim = _check.count("dim", dim)
    names = [f"x{i}" for i in range(dim)]
    return _expression(f"({' + '.join(f'{name}**2' for name in names)} - 1)**2 / 4", names)


def label_noise_valley() -> ExpressionLoss:
    """Return the loss L(x, y) = f^2 / 2 with f = sqrt(1 + x^2) y, whose minimisers are the line y = 0.

    Label noise drives x along this line to 0, the flattest point: the curvature across the line is 1 + x^2.

    Example:
        >>> import sdetools as st
        >>> st.losses.label_noise_valley().gradient([1.0, 2.0])
        array([4., 4.])
    """
    return _expression("(sqrt(1 + x**2) * y)**2 / 2", "x y")


def _expression(text: str, variables: str | list[str], parameters: dict[str, float] | None = None) -> ExpressionLoss:
    """Return the loss of an expression; SymPy is imported on first use."""
    from sdetools.losses.expression import from_expression

    return from_expression(text, variables, parameters)
