"""Component-first arrays: the few helpers that let one formula run on numbers, on rows of paths and on traced symbols.

A point is `x` with `x[i]` its i-th coordinate: shape `(dim,)` for one path, `(dim, paths)` for many. While a rule is
being traced the coordinates are symbols, held in an object array of shape `(dim,)`. NumPy's ufuncs (`np.exp`, `np.sqrt`, ...)
work on all three; what NumPy cannot dispatch on symbols stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class TracingError(TypeError):
    """The formula needs a value where there is only a symbol."""


class ArraysOnly(TracingError):
    """A part of which it is known beforehand that it runs on arrays: nothing in a user's text is amiss."""


def components(values: Sequence[Any], like: Any) -> np.ndarray:
    """Stack component values (numbers or rows) into one array `(len(values), *paths)`, with the paths of `like`.

    Constant components are broadcast, so `components([x[0], 1.0], x)` is right for one path and for many.

    >>> components([1.0, np.array([2.0, 3.0])], np.zeros((2, 2)))
    array([[1., 1.],
           [2., 3.]])
    """
    like = np.asarray(like)
    if like.dtype == object:
        out = np.empty(len(values), dtype=object)
    else:
        out = np.empty((len(values), *like.shape[1:]), dtype=np.result_type(like.dtype, float))
    for i, value in enumerate(values):
        out[i] = value
    return out


def select(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where `condition` holds, else `no`: a branch-free choice that works on numbers, rows and traced symbols.

    >>> select(np.array([True, False]), 1.0, -1.0)
    array([ 1., -1.])
    """
    if hasattr(condition, "select"):
        return condition.select(yes, no)
    if isinstance(condition, np.ndarray) and condition.dtype == object:
        yes, no = (np.broadcast_to(np.asarray(v, dtype=object), condition.shape) for v in (yes, no))
        out = np.empty(condition.shape, dtype=object)
        for index in np.ndindex(condition.shape):
            out[index] = condition[index].select(yes[index], no[index])
        return out
    return np.where(condition, yes, no)


@dataclass(frozen=True, eq=False)
class Block:
    """A piece of a formula that is not worth tracing: `plain(*parts) -> rows`, each `(n, *paths)`, with `outputs` rows in the answer.

    On traced rows the lane loop is cut and a module-level compiled `function(*parts, out, *data)` runs in between, whose `out` has the
    results first and `scratch` rows after them. Without it a formula runs on the backends that can call `plain`.

    >>> Block(lambda u, v: u + v, outputs=1)(np.array([1.0]), np.array([2.0]))
    array([3.])
    """

    plain: Callable[..., np.ndarray]
    outputs: int
    scratch: int = 0
    function: Callable[..., None] | None = None
    data: tuple[np.ndarray, ...] = ()

    def __call__(self, *parts: Any) -> np.ndarray:
        arrays = [np.asarray(part) for part in parts]
        tape = next((v.tape for a in arrays if a.dtype == object for v in a if hasattr(v, "tape")), None)
        return self.plain(*(np.asarray(a, dtype=float) for a in arrays)) if tape is None else tape.run(self, arrays)
