"""Helpers for component-first arrays: one formula runs on one point, on many paths, on traced values and on objects.

A point is `x` with `x[i]` its i-th coordinate: shape `(dim,)` for one path, `(dim, paths)` for many. `*paths` in a shape stands for any
number of axes of paths, also for none. A row is one component of all paths, shape `(*paths,)`. While a formula is traced, `x` is a traced
value, a node of the graph (`sdetools.graph`) of shape `(dim,)`. NumPy's ufuncs (`np.exp`, `np.sqrt`, ...) work on all of them. This
module has what NumPy cannot dispatch.
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
    """Return component values, numbers or arrays over paths, as one array of shape `(len(values), *paths)`.

    Constant components are broadcast over the paths, so `components([x[0], 1.0], x)` is right for one path and for many.

    Args:
        values: One entry per component: a number, an array of shape `(*paths,)`, or a traced value.
        like: The point `(dim, *paths)` whose paths the result has.

    Returns:
        An array of doubles (of objects if `like` contains objects), or a traced value if `like` or a component is traced. True and False
        become 1.0 and 0.0.

    Raises:
        ValueError: If a component of an array of doubles is not real.

    Example:
        >>> import numpy as np, sdetools as st
        >>> st.components([1.0, np.array([2.0, 3.0])], np.zeros((2, 2)))
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
    """Return `x` as an array of doubles of the same shape; a traced value is returned unchanged.

    >>> from sdetools._arrays import numeric
    >>> numeric([1, 2])
    array([1., 2.])
    """
    return x if isinstance(x, Value) else np.asarray(x, dtype=float)


def spread(a: Any, like: Any) -> Any:
    """Return the array `a` with axes of length 1 appended until it has as many axes as `like`, so that it broadcasts over the paths of `like`.

    If either argument is a traced value, which has no axis of paths, `a` is returned unchanged.

    >>> import numpy as np
    >>> from sdetools._arrays import spread
    >>> spread(np.array([1.0, 2.0]), np.zeros((2, 5))).shape
    (2, 1)
    """
    if isinstance(a, Value) or isinstance(like, Value):
        return a
    a = np.asarray(a)
    return a.reshape(a.shape + (1,) * (np.ndim(like) - a.ndim))


@dataclass(frozen=True)
class PathByPath:
    """A wrapper of a function that mixes paths, such as `np.linalg.norm`: it calls the function once per path and stacks the results.

    Called with one or more arrays `(n, *paths)`, with one shape of paths but not necessarily one n, it returns the results with the axes of
    paths last: `(*paths,)` for numbers, `(m, *paths)` for arrays `(m,)`. Arrays `(n,)` of a single path, and traced values, are given to
    `function` unchanged, and its result is returned.

    Attributes:
        function: A function of as many arrays `(n,)`, those of one path, that returns a number or an array.
    """

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
    """Return a function that may be called with many paths at once: `function` itself, or `PathByPath(function)` if it mixes paths.

    Args:
        function: A function of component-first arrays, right for a single path.
        *tried: For each trial call, the sequence of its arguments: arrays `(n, paths)` with `few_paths(n)` paths. Without any, `function` is
            returned.

    Returns:
        `PathByPath(function)` if a joint call differs from calls path by path in some trial, else `function`. A function that fails on a
        single path is returned as it is, so that its own error is reported when it is used.

    Example:
        >>> import numpy as np
        >>> from sdetools._arrays import few_paths, on_rows
        >>> x = np.ones((2, few_paths(2)))
        >>> on_rows(lambda x: np.sum(x * x), [x])(np.ones((2, 5))), on_rows(np.sqrt, [x]) is np.sqrt
        (array([2., 2., 2., 2., 2.]), True)
    """
    return PathByPath(function) if any(_mixes(function, rows) for rows in tried) else function


def few_paths(*sizes: int) -> int:
    """Return the smallest integer >= 3 that is not among `sizes`, the lengths of the other axes of an array.

    With this number of paths in a trial call, the axis of paths is recognised by its length.
    """
    return next(n for n in range(3, 4 + len(sizes)) if n not in sizes)


def with_outliers(points: np.ndarray) -> list[np.ndarray]:
    """Return a list of four arrays: `points` `(..., paths)`, and copies of it whose first path is set to 1e100, -1e100 and NaN.

    Trial calls on them reveal a test such as `if np.all(x < limit)`, which is taken by all paths together.
    """
    out = [points]
    for far in (1e100, -1e100, np.nan):
        out.append(points.copy())
        out[-1][..., 0] = far
    return out


def _mixes(function: Callable[..., Any], rows: Sequence[np.ndarray]) -> bool:
    """Whether a joint call of `function` on all paths gives other results than a call for each path; `rows` are its arguments, each `(n, paths)`."""
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
    """Return `yes` where `condition` holds and `no` elsewhere, entry by entry: a branch-free choice in a formula.

    The arguments are numbers, arrays that broadcast, or traced values. The result is an array, or a traced value if the condition is traced.

    >>> import numpy as np, sdetools as st
    >>> st.select(np.array([True, False]), 1.0, -1.0)
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
    """A part of a formula that is called as it is and not traced: a function `plain(*inputs)` of arrays `(n, *paths)` with the result `(outputs, *paths)`.

    Called with arrays, a block evaluates `plain`. Called with traced values, it becomes an operation of the graph, which compiled CPU kernels
    evaluate by a function of the library with the arguments `(*inputs, out, *data)`: `out` is `(outputs + scratch, paths)`, with the results in its
    first rows. Without such a function, a formula with this block runs only on backends that can call `plain`.

    Attributes:
        plain: The function of NumPy arrays; the number of inputs is its own.
        outputs: The number of components of the result, the length of its first axis.
        scratch: The number of rows of working memory in `out`, after the results.
        data: Constant arrays that the function takes after `out`.
        address: The function's name, such as "manifold.kernels:frame", by which kernels call it, see `graph.calls.Call`; empty for none.

    Example:
        >>> import numpy as np
        >>> from sdetools._arrays import Block
        >>> Block(lambda u, v: u + v, outputs=1)(np.array([1.0]), np.array([2.0]))
        array([3.])
    """

    plain: Callable[..., np.ndarray]
    outputs: int
    scratch: int = 0
    data: tuple[np.ndarray, ...] = ()
    address: str = ""

    def __call__(self, *parts: Any) -> Any:
        if any(isinstance(part, Value) for part in parts):
            return self.call(parts, (self.outputs,))
        return self.plain(*(np.asarray(part, dtype=float) for part in parts))

    @cached_property
    def call(self) -> Call:
        """The operation of the graph (a `graph.calls.Call`) that evaluates the block. It is made once and then reused."""
        return Call(None, self.data, self.scratch, self.plain, address=self.address)
