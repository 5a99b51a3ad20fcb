"""Helpers for component-first arrays: one formula runs on one point, on many paths, on traced values and on objects.

A point is `x` with `x[i]` its i-th coordinate: shape `(dim,)` for one path, `(dim, paths)` for many. While a formula is traced, `x` is a
value of the graph (`sdetools.graph`) of shape `(dim,)`. NumPy's ufuncs (`np.exp`, `np.sqrt`, ...) work on all of them. This module has
what NumPy cannot dispatch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from sdetools.graph.calls import Call
from sdetools.graph.errors import ArraysOnly, TracingError
from sdetools.graph.value import Value, is_value
from sdetools.graph.views import stack

__all__ = ["ArraysOnly", "Block", "TracingError", "components", "numeric", "select", "spread"]


def components(values: Sequence[Any], like: Any) -> Any:
    """Stack component values (numbers or rows) into one array `(len(values), *paths)`, with the paths of `like`.

    Constant components are broadcast, so `components([x[0], 1.0], x)` is right for one path and for many.

    Args:
        values: One number or one row `(*paths)` per component.
        like: The point `(dim, *paths)` whose paths and type the result has.

    Raises:
        ValueError: If a component is not real.

    Example:
        >>> components([1.0, np.array([2.0, 3.0])], np.zeros((2, 2)))
        array([[1., 1.],
               [2., 3.]])
    """
    if isinstance(like, Value) or is_value(values):
        made = values if isinstance(values, Value) else stack(values)
        return np.where(made, 1.0, 0.0) if made.boolean else made
    like = np.asarray(like)
    if like.dtype == object:
        out = np.empty(len(values), dtype=object)
    else:
        out = np.empty((len(values), *like.shape[1:]), dtype=np.result_type(like.dtype, float))
    for i, value in enumerate(values):
        if out.dtype != object and (kind := np.asarray(value).dtype).kind not in "fiub":
            raise ValueError(
                f"a function of x must return real numbers; its component {i} is {value!r:.60}, of type {kind}. Write it with floats."
            )
        out[i] = value
    return out


def numeric(x: Any) -> Any:
    """Return `x` as an array of doubles; traced values stay as they are.

    >>> numeric([1, 2])
    array([1., 2.])
    """
    return x if isinstance(x, Value) else np.asarray(x, dtype=float)


def spread(a: Any, like: Any) -> Any:
    """Append axes of length 1 to `a` until it has as many axes as `like`, so that numbers of one path broadcast over many.

    Traced values have no axis of paths and stay as they are.

    >>> spread(np.array([1.0, 2.0]), np.zeros((2, 5))).shape
    (2, 1)
    """
    if isinstance(a, Value) or isinstance(like, Value):
        return a
    a = np.asarray(a)
    return a.reshape(a.shape + (1,) * (np.ndim(like) - a.ndim))


@dataclass(frozen=True)
class PathByPath:
    """A function of one path, such as `np.linalg.norm`, applied to many paths: it is called once per path."""

    function: Callable[..., Any]

    def __call__(self, *given: Any) -> Any:
        first = given[-1]
        if isinstance(first, Value) or first.ndim == 1:
            return self.function(*given)
        flat = [g.reshape(len(g), prod(g.shape[1:])) for g in given]
        made = [np.asarray(self.function(*(g[:, p] for g in flat))) for p in range(flat[-1].shape[1])]
        out = np.stack(made, axis=-1)
        return out.reshape(*out.shape[:-1], *first.shape[1:])


def on_rows(function: Callable[..., Any], *tried: Sequence[np.ndarray]) -> Callable[..., Any]:
    """Return the function in a form that may be called with many paths: itself, or `PathByPath` if it mixes paths.

    Args:
        function: A function of component-first arrays.
        *tried: The arguments of trial calls, arrays `(n, paths)` with `few_paths(n)` paths.

    Returns:
        `PathByPath(function)` if a joint call differs from calls path by path, else `function`. A function that fails on a single path is
        returned as it is, so that its own error is reported.

    Example:
        >>> x = np.ones((2, few_paths(2)))
        >>> on_rows(lambda x: np.sum(x * x), [x])(np.ones((2, 5))), on_rows(np.sqrt, [x]) is np.sqrt
        (array([2., 2., 2., 2., 2.]), True)
    """
    return PathByPath(function) if any(_mixes(function, rows) for rows in tried) else function


def few_paths(*sizes: int) -> int:
    """Return a small number of paths that equals none of these sizes, so that the axis of paths is unmistakable."""
    return next(n for n in range(3, 4 + len(sizes)) if n not in sizes)


def with_outliers(points: np.ndarray) -> list[np.ndarray]:
    """Return points `(..., paths)`, and copies whose first path is very large or NaN.

    They reveal a test such as `if np.all(x < limit)`, which is taken by all paths together.
    """
    out = [points]
    for far in (1e100, -1e100, np.nan):
        out.append(points.copy())
        out[-1][..., 0] = far
    return out


def _mixes(function: Callable[..., Any], rows: Sequence[np.ndarray]) -> bool:
    """Whether a joint call on all paths gives other results than one call per path."""
    with np.errstate(all="ignore"):
        try:
            alone = np.asarray(PathByPath(function)(*rows), float)
        except Exception:
            return False
        try:
            together = np.broadcast_to(np.asarray(function(*rows), float), alone.shape)
        except Exception:
            return True
    size = np.abs(np.where(np.isfinite(alone), alone, 0.0)).max(axis=tuple(range(alone.ndim - 1)))
    return not np.isclose(together, alone, rtol=1e-6, atol=1e-9 * size, equal_nan=True).all()


def select(condition: Any, yes: Any, no: Any) -> Any:
    """Return `yes` where `condition` holds, else `no`: a branch-free choice for numbers, rows and traced values.

    >>> select(np.array([True, False]), 1.0, -1.0)
    array([ 1., -1.])
    """
    if hasattr(condition, "select"):
        return condition.select(yes, no)
    if isinstance(condition, np.ndarray) and condition.dtype == object:
        yes, no = (np.broadcast_to(np.asarray(v, dtype=object), condition.shape) for v in (yes, no))
        out = np.empty(condition.shape, dtype=object)
        for index in np.ndindex(condition.shape):
            chosen: Any = condition[index]
            out[index] = chosen.select(yes[index], no[index])
        return out
    return np.where(condition, yes, no)


@dataclass(eq=False)
class Block:
    """A part of a formula that is not traced: `plain(*parts) -> rows`, each `(n, *paths)`.

    On traced values it becomes a call of the compiled `function(*parts, out, *data)`, whose `out` has the results first and `scratch` rows
    after them. Without `function` a formula runs only on backends that can call `plain`.

    Attributes:
        plain: Function of NumPy arrays.
        outputs: Number of rows of the result.
        scratch: Number of rows of working memory.
        function: Compiled module-level function, or None.
        data: Arrays that `function` takes after `out`.

    Example:
        >>> Block(lambda u, v: u + v, outputs=1)(np.array([1.0]), np.array([2.0]))
        array([3.])
    """

    plain: Callable[..., np.ndarray]
    outputs: int
    scratch: int = 0
    function: Callable[..., None] | None = None
    data: tuple[np.ndarray, ...] = ()

    def __call__(self, *parts: Any) -> Any:
        if any(isinstance(part, Value) for part in parts):
            return self.call(parts, (self.outputs,))
        return self.plain(*(np.asarray(part, dtype=float) for part in parts))

    @cached_property
    def call(self) -> Call:
        """The block as an operation of the graph."""
        return Call(self.function, self.data, self.scratch, self.plain)
