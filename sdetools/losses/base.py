"""The base class of losses: value, gradient, Hessian and third derivative on component-first arrays.

A point `x` has shape `(dim,)`, many points have shape `(dim, paths)`, one column for each path. In a shape, `*paths` is nothing for one
point, and the number of paths for many. While a formula is traced (recorded as a graph), `x` is a graph value of shape `(dim,)`. Results
put the axes of the derivative first and the paths last.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools._arrays import components
from sdetools._check import shown
from sdetools.graph.value import Value


@dataclass(frozen=True)
class Stage:
    """A compiled or torch function with its data, which the simulation calls as it is instead of recording its operations in a graph.

    Attributes:
        function: A module-level `@njit(nogil=True)` function `function(x, out, *data)`. It reads the points `x` `(dim, lanes)`, a column
            for each of the paths that are advanced together, and writes its result to the array `out`. The function of a noise also takes
            its draws: `function(x, z, out, *data)`. A worker process imports it by module and name. For the torch backend it is a function
            of a tensor `(dim, paths)` that returns its result, a tensor with the paths last.
        data: The arrays that `function` takes as its last arguments; none by default.

    Example:
        >>> import numpy as np, sdetools as st
        >>> def scaled(x, out, curvatures):
        ...     out[:] = curvatures[:, None] * x
        >>> stage, out = st.losses.Stage(scaled, data=(np.array([1.0, 2.0]),)), np.empty((2, 3))
        >>> stage.function(np.ones((2, 3)), out, *stage.data)
        >>> out
        array([[1., 1., 1.],
               [2., 2., 2.]])
    """

    function: Callable[..., Any]
    data: tuple[np.ndarray, ...] = ()


class Loss(ABC):
    """The base class of losses: a function L with its first three derivatives.

    A subclass sets the attributes and implements `identity`, `value`, `gradient`, `hessian` and `third`. It may replace `hessian_product`,
    `third_contracted` and `third_product`, which form whole tensors, by faster forms, and define `quadratic` and `jump`. The contract:

    1. `parameters` are numbers that are loaded at run time. The argument `p` of a method replaces them: an array of the same shape, or a
       traced value. If `p` is None, `parameters` are used.
    2. A point `x` is an array `(dim,)`, many points are `(dim, paths)`; `*paths` in a shape is nothing for one point. Another number of
       rows is a ValueError. While a formula is traced, `x` is a graph value `(dim,)`, and the result is one of the shape for one point.
    3. No method changes `x` or warns. Outside the domain of L the result is NaN or infinite.
    4. Methods are NumPy code without branches on values, so that the same code runs on numbers, on rows of paths and on traced values.
       Large data remain arrays: `features @ x` becomes one matrix product.

    Attributes:
        dim: Number of coordinates.
        names: Names of the coordinates, `dim` different identifiers, in order.
        parameters: Numbers of the formula that can change without a recompilation, an array `(number of parameters,)`, often empty.
        latex: The formula of L in LaTeX, without dollar signs.
        label: A short name for messages and reports.

    Example:
        >>> import numpy as np
        >>> from sdetools.losses import Loss
        >>> class Cubic(Loss):
        ...     dim, names, parameters, latex, label, identity = 1, ("x",), np.zeros(0), "x^3", "cubic", "cubic"
        ...     def value(self, x, p=None):
        ...         return self._point(x)[0] ** 3
        ...     def gradient(self, x, p=None):
        ...         return 3 * self._point(x) ** 2
        ...     def hessian(self, x, p=None):
        ...         return 6 * self._point(x)[None]
        ...     def third(self, x, p=None):
        ...         return 0 * self._point(x)[None, None] + 6
        >>> Cubic().hessian_product([2.0], [10.0])
        array([120.])
    """

    dim: int
    names: tuple[str, ...]
    parameters: np.ndarray
    latex: str
    label: str

    @property
    @abstractmethod
    def identity(self) -> str:
        """A short text, equal for equal losses in every process; stored results of a simulation are recognised by a hash of it."""

    @property
    def jump(self) -> str:
        """A piece of the formula at which L jumps, such as "(x > 1)", as text; derivatives leave the jump out. Empty, as here, if none is known."""
        return ""

    @abstractmethod
    def value(self, x: Any, p: Any = None) -> Any:
        """Return the loss L(x) at one point or at many.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            p: Numbers that replace `parameters`, in the same order; None for `parameters`.

        Returns:
            A number for one point, an array `(paths,)` for many, a traced value of shape `()` for a traced point; NaN or infinite outside
            the domain of L.
        """

    @abstractmethod
    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the gradient of L at one point or at many, in the shape of `x`.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            p: Numbers that replace `parameters`, in the same order; None for `parameters`.
        """

    @abstractmethod
    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian d_ij L(x), an array `(dim, dim)` for one point and `(dim, dim, paths)` for many.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            p: Numbers that replace `parameters`, in the same order; None for `parameters`.
        """

    @abstractmethod
    def third(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the third derivative d_ijl L(x), an array `(dim, dim, dim)` for one point and `(dim, dim, dim, paths)` for many.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            p: Numbers that replace `parameters`, in the same order; None for `parameters`.
        """

    def hessian_product(self, x: Any, v: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian-vector product sum_j d_ij L(x) v_j, an array `(dim,)`, or `(dim, paths)` if `x` or `v` has many columns.

        Args:
            x: One point `(dim,)`, or many points `(dim, paths)`.
            v: The vector, `(dim,)` for all points or `(dim, paths)` with one for each.
            p: Numbers that replace `parameters`, in the same order; None for `parameters`.
        """
        return contract("ij...,j...->i...", self.hessian(x, p), v)

    def third_contracted(self, x: Any, matrix: Any, p: Any = None) -> np.ndarray:
        """Return the contraction sum_ij d_ijl L(x) M_ij of the third derivative, indexed by l: `(dim,)`, or `(dim, paths)` for many points.

        Args:
            x: One point `(dim,)`, or many points `(dim, paths)`.
            matrix: M, `(dim, dim)` for all points or `(dim, dim, paths)` with one for each; only its symmetric part matters.
            p: Numbers that replace `parameters`, in the same order; None for `parameters`.
        """
        return contract("ijl...,ij...->l...", self.third(x, p), matrix)

    def third_product(self, x: Any, a: Any, b: Any) -> np.ndarray:
        """Return sum_ij d_ijl L(x) a_i b_j, an array `(dim,)` indexed by l, for one point `x` and two vectors `a` and `b`, each `(dim,)`.

        It is the second derivative of the gradient along `a` and `b`, at the current `parameters`.
        """
        both = np.multiply.outer(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
        return self.third_contracted(x, (both + both.T) / 2)

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Return the coefficients of a quadratic loss L(x) = x^T H x / 2 + c^T x + L0, or None if L is not known to be quadratic.

        Returns:
            `(H, c, L0)`: a symmetric matrix `(dim, dim)`, a vector `(dim,)` and a number, at the current `parameters`. None in the base
            class.
        """
        return None

    @property
    def torch_stage(self) -> Stage | None:
        """A `Stage` with the gradient as a function of torch tensors `(dim, paths)`, for a loss given as a torch function; None for others."""
        return None

    @property
    def torch_value_stage(self) -> Stage | None:
        """A `Stage` with the value as a function of torch tensors, `(dim, paths)` to `(paths,)`, for a loss given as one; None for others."""
        return None

    def _point(self, x: Any) -> Any:
        """Return `x` as an array of doubles or objects, or as the graph value it is; ValueError unless its first axis has `dim` real components."""
        if not isinstance(x, Value):
            given, x = x, np.asarray(x)
            if x.dtype.kind not in "biufO":
                raise ValueError(f"`x` must be an array of real numbers; got {shown(given)}. Write a point like [1.0, 0.5].")
            x = x if x.dtype == object else np.asarray(x, dtype=float)
        if x.ndim == 0 or len(x) != self.dim:
            raise ValueError(
                f"`x` must have shape ({self.dim},) or ({self.dim}, paths), component first; got shape {x.shape}. "
                f"The coordinates of {self.label} are {', '.join(self.names[:8])}{', ...' if self.dim > 8 else ''}."
            )
        return x

    def _parameters(self, p: Any) -> Any:
        """Return `p`, or the parameters of the loss if it is None; ValueError if `p` has another shape than these."""
        if p is None:
            return self.parameters
        p = p if isinstance(p, Value) else np.asarray(p)
        if p.shape != self.parameters.shape:
            raise ValueError(f"`p` must contain the {len(self.parameters)} parameters of {self.label}; got shape {p.shape}.")
        return p

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r}, dim={self.dim})"


def contract(subscripts: str, *factors: Any) -> np.ndarray:
    """Return the contraction `np.einsum(subscripts, *factors)`, also for graph values and for object arrays of symbols.

    Args:
        subscripts: The indices of the factors and of the result, as in NumPy, for example "ij...,j...->i...".
        *factors: Arrays, lists or graph values, one for each group of indices before the arrow.

    Example:
        >>> contract("i...,i...->...", np.array([1, 2], dtype=object), [3, 4])
        11
    """
    return np.einsum(subscripts, *(f if isinstance(f, Value) else np.asarray(f) for f in factors))


def scalar(value: Any, like: np.ndarray) -> Any:
    """Return the value of a function with one entry for each path of `like`: a value that does not depend on the point is repeated.

    Args:
        value: A number or symbol, an array `(paths,)`, or a traced value `()`.
        like: The point or points at which the function was evaluated: `(dim,)`, `(dim, paths)`, or a traced point (a graph value `(dim,)`).

    Returns:
        An array `(paths,)` for many points, in which a single number is repeated. For one point the number (or symbol) itself, for a traced
        point a traced value `()`.

    Example:
        >>> scalar(1.0, np.zeros((2, 3)))
        array([1., 1., 1.])
    """
    return components([value], like)[0]


def coordinate_names(names: Sequence[str] | None, dim: int) -> tuple[str, ...]:
    """Return the names of the coordinates as a tuple of `dim` strings: the given ones after validation, or x0, x1, ... by default.

    Args:
        names: A list of identifiers, or one string with spaces or commas between them; None for the default names.
        dim: Number of coordinates.

    Raises:
        ValueError: If `names` are not `dim` different identifiers.

    Example:
        >>> coordinate_names(None, 2)
        ('x0', 'x1')
    """
    if names is None:
        return tuple(f"x{i}" for i in range(dim))
    out = tuple(names.replace(",", " ").split() if isinstance(names, str) else names)
    if len(out) != dim or len(set(out)) != dim or not all(isinstance(n, str) and n.isidentifier() for n in out):
        raise ValueError(f"`names` must be {dim} different identifiers, one a coordinate; got {names!r}.")
    return out


def digest(*arrays: np.ndarray) -> str:
    """Return the SHA-256 hash of the types, shapes and contents of the arrays, in the given order, as 64 hexadecimal digits.

    Example:
        >>> digest(np.zeros(2)) == digest(np.zeros(2)), digest(np.zeros(2)) == digest(np.zeros((1, 2)))
        (True, False)
    """
    out = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        out.update(f"{array.dtype.str}{array.shape}".encode())
        out.update(array.data)
    return out.hexdigest()
