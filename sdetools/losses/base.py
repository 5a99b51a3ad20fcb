"""The base class of losses: value, gradient, Hessian and third derivative on component-first arrays.

A point `x` has shape `(dim,)`, many points have shape `(dim, paths)`. While a rule is traced, `x` is a graph value of shape `(dim,)`.
Results put the axes of the derivative first and the paths last.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools._arrays import components
from sdetools.graph.value import Value


@dataclass(frozen=True)
class Stage:
    """A function that a kernel calls as it is, instead of tracing it.

    Attributes:
        function: A module-level `@njit(nogil=True)` function `function(x, out, *data)` that reads `x` `(dim, lanes)` and writes `out`; the
            function of a noise also takes its draws, `function(x, z, out, *data)`. A worker process imports it by module and name. For the
            torch backend, a function of tensors that returns its result.
        data: The arrays that the function reads.

    Example:
        >>> Stage(function=len, data=()).data
        ()
    """

    function: Callable[..., Any]
    data: tuple[np.ndarray, ...] = ()


class Loss(ABC):
    """A loss L with its first three derivatives.

    Subclasses set the attributes and implement the five abstract members, under this contract:

    1. `parameters` are numbers that a kernel loads at run time. The argument `p` of a method replaces them, by traced values while
       tracing.
    2. No method changes `x` or warns. Outside the domain of L the result is NaN or infinite.
    3. Methods are NumPy code without branches on values, so that the same code runs on numbers, on rows of paths and on traced values.
       Large data remain arrays: `features @ x` becomes one matrix product.

    Attributes:
        dim: Number of coordinates.
        names: Names of the coordinates, in order.
        parameters: Numbers that can change without a recompilation.
        latex: The formula of L.
        label: A short name for messages and reports.
    """

    dim: int
    names: tuple[str, ...]
    parameters: np.ndarray
    latex: str
    label: str

    @property
    @abstractmethod
    def identity(self) -> str:
        """A short string, equal for equal losses in every process; it enters the hash of an experiment."""

    @abstractmethod
    def value(self, x: Any, p: Any = None) -> Any:
        """Return L(x): a number for `x` of shape `(dim,)`, `(paths,)` for `(dim, paths)`."""

    @abstractmethod
    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        """Return grad L(x), of the shape of `x`."""

    @abstractmethod
    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian d_ij L(x), `(dim, dim, *paths)`."""

    @abstractmethod
    def third(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the third derivative d_ijl L(x), `(dim, dim, dim, *paths)`."""

    def hessian_product(self, x: Any, v: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian-vector product sum_j d_ij L(x) v_j, `(dim, *paths)`; `v` is `(dim,)` or `(dim, paths)`."""
        return contract("ij...,j...->i...", self.hessian(x, p), v)

    def third_contracted(self, x: Any, matrix: Any, p: Any = None) -> np.ndarray:
        """Return sum_ij d_ijl L(x) M_ij, `(dim, *paths)`; `matrix` M is `(dim, dim)` or `(dim, dim, paths)`."""
        return contract("ijl...,ij...->l...", self.third(x, p), matrix)

    def third_product(self, x: Any, a: Any, b: Any) -> np.ndarray:
        """Return sum_ij d_ijl L(x) a_i b_j at one point, `(dim,)`."""
        both = np.multiply.outer(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
        return self.third_contracted(x, (both + both.T) / 2)

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Return `(H, c, L0)` with L(x) = x^T H x / 2 + c^T x + L0, or None if L is not quadratic."""
        return None

    @property
    def torch_stage(self) -> Stage | None:
        """The gradient on torch tensors `(dim, paths)` for a loss given as a torch function, else None."""
        return None

    @property
    def torch_value_stage(self) -> Stage | None:
        """The value on torch tensors `(dim, paths)` for a loss given as a torch function, else None."""
        return None

    def _point(self, x: Any) -> Any:
        """Return `x` as a float64 or object array, or as the graph value it is, with `dim` components."""
        if not isinstance(x, Value):
            x = np.asarray(x)
            x = x if x.dtype == object else np.asarray(x, dtype=float)
        if x.ndim == 0 or len(x) != self.dim:
            raise ValueError(
                f"`x` must have shape ({self.dim},) or ({self.dim}, paths), component first; got shape {x.shape}. "
                f"The coordinates of {self.label} are {', '.join(self.names[:8])}{', ...' if self.dim > 8 else ''}."
            )
        return x

    def _parameters(self, p: Any) -> Any:
        """Return `p`, or the parameters of the loss if it is None."""
        if p is None:
            return self.parameters
        p = p if isinstance(p, Value) else np.asarray(p)
        if p.shape != self.parameters.shape:
            raise ValueError(f"`p` must contain the {len(self.parameters)} parameters of {self.label}; got shape {p.shape}.")
        return p

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r}, dim={self.dim})"


def contract(subscripts: str, *factors: Any) -> np.ndarray:
    """Return `np.einsum(subscripts, *factors)`, also for graph values and for object arrays of symbols.

    Example:
        >>> contract("i...,i...->...", np.array([1, 2], dtype=object), [3, 4])
        11
    """
    return np.einsum(subscripts, *(f if isinstance(f, Value) else np.asarray(f) for f in factors))


def scalar(value: Any, like: np.ndarray) -> Any:
    """Broadcast a value to the paths of `like`; for one point return the number (or symbol) itself.

    Example:
        >>> scalar(1.0, np.zeros((2, 3)))
        array([1., 1., 1.])
    """
    return components([value], like)[0]


def coordinate_names(names: Sequence[str] | None, dim: int) -> tuple[str, ...]:
    """Validate the coordinate names, or return the default names x0, x1, ...

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
    """Return the SHA-256 hash of the types, shapes and contents of arrays, in hexadecimal.

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
