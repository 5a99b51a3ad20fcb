"""What every loss is: value, gradient, Hessian and third derivative on component-first arrays.

`x` is `(dim,)` for one point, `(dim, paths)` for many, or a value of a graph of shape `(dim,)` while a rule is traced; results
put the derivative's axes first and the paths last.
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
    """A function that is called within a kernel instead of being traced: `function(x, out, *data)` reads `x` `(dim, lanes)` and writes `out`.

    A noise's takes its draws too, `function(x, z, out, *data)`. `function` is a module-level `@njit(nogil=True)` function, so that a worker
    can import it by module and name, or one of torch tensors that returns what it computes; `data` are the arrays it reads.

    >>> Stage(function=len, data=()).data
    ()
    """

    function: Callable[..., Any]
    data: tuple[np.ndarray, ...] = ()


class Loss(ABC):
    """A loss L with its first three derivatives. Subclasses set the attributes and write the five abstract members.

    1. `parameters` holds numbers that a kernel loads at run time; `p` replaces them (traced values while tracing).
    2. No method changes `x`, and none warns: outside the domain of L the answer is NaN or infinite.
    3. Methods are plain NumPy text without `if` on values, so that the same text runs on numbers, on rows and on traced values. Large
       data stay arrays: `features @ x` becomes one matrix product.
    """

    dim: int
    names: tuple[str, ...]
    parameters: np.ndarray
    latex: str
    label: str

    @property
    @abstractmethod
    def identity(self) -> str:
        """A short text, equal for equal losses in every process: it enters the hash of an experiment."""

    @abstractmethod
    def value(self, x: Any, p: Any = None) -> Any:
        """L(x): a number for `(dim,)`, `(paths,)` for `(dim, paths)`."""

    @abstractmethod
    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        """grad L(x), of the shape of `x`."""

    @abstractmethod
    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        """d_ij L(x): `(dim, dim, *paths)`."""

    @abstractmethod
    def third(self, x: Any, p: Any = None) -> np.ndarray:
        """d_ijl L(x): `(dim, dim, dim, *paths)`."""

    def hessian_product(self, x: Any, v: Any, p: Any = None) -> np.ndarray:
        """sum_j d_ij L(x) v_j: `(dim, *paths)`; `v` is `(dim,)` or `(dim, paths)`."""
        return contract("ij...,j...->i...", self.hessian(x, p), v)

    def third_contracted(self, x: Any, matrix: Any, p: Any = None) -> np.ndarray:
        """sum_ij d_ijl L(x) M_ij: `(dim, *paths)`; `matrix` M is `(dim, dim)` or `(dim, dim, paths)`."""
        return contract("ijl...,ij...->l...", self.third(x, p), matrix)

    def third_product(self, x: Any, a: Any, b: Any) -> np.ndarray:
        """sum_ij d_ijl L(x) a_i b_j at one point: `(dim,)`."""
        both = np.multiply.outer(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
        return self.third_contracted(x, (both + both.T) / 2)

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """`(H, c, L0)` with L(x) = x^T H x / 2 + c^T x + L0, or None when L is not quadratic."""
        return None

    @property
    def torch_stage(self) -> Stage | None:
        """The gradient on torch tensors `(dim, paths)`, for losses given as torch functions."""
        return None

    @property
    def torch_value_stage(self) -> Stage | None:
        """The value, likewise."""
        return None

    def _point(self, x: Any) -> Any:
        """`x` as a float64 or object array with `dim` components."""
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
        """`p`, or the loss's own parameters when it is None."""
        if p is None:
            return self.parameters
        p = p if isinstance(p, Value) else np.asarray(p)
        if p.shape != self.parameters.shape:
            raise ValueError(f"`p` must hold the {len(self.parameters)} parameters of {self.label}; got shape {p.shape}.")
        return p

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r}, dim={self.dim})"


def contract(subscripts: str, *factors: Any) -> np.ndarray:
    """`np.einsum`, also on object arrays of symbols.

    >>> contract("i...,i...->...", np.array([1, 2], dtype=object), [3, 4])
    11
    """
    return np.einsum(subscripts, *(f if isinstance(f, Value) else np.asarray(f) for f in factors))


def scalar(value: Any, like: np.ndarray) -> Any:
    """A value spread over the paths of `like`; a plain number (or symbol) for one point.

    >>> scalar(1.0, np.zeros((2, 3)))
    array([1., 1., 1.])
    """
    return components([value], like)[0]


def coordinate_names(names: Sequence[str] | None, dim: int) -> tuple[str, ...]:
    """The names given, checked, or x0, x1, ...

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
    """sha256 of the shapes and contents of arrays, in hexadecimal.

    >>> digest(np.zeros(2)) == digest(np.zeros(2)), digest(np.zeros(2)) == digest(np.zeros((1, 2)))
    (True, False)
    """
    out = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        out.update(f"{array.dtype.str}{array.shape}".encode())
        out.update(array.data)
    return out.hexdigest()
