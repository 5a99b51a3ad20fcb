"""Samples of data, other ones for each path: rows at drawn indices, and how often each row was drawn.

Indices of samples are whole floats from 0 on, `(size,)` for traced values and `(size, *paths)` for arrays; the functions take both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools.graph.value import Value, trace_of, value


def gather(data: np.ndarray, index: Any) -> Any:
    """Return the samples at drawn indices, `data[index]`, with the axes of paths last.

    Args:
        data: The n samples, each an array of shape `row`: `(n, *row)`.
        index: Indices from 0 to n - 1 as floats, an array `(size, *paths)`, where `paths` are any axes of paths, or a symbolic array (`Value`)
            `(size,)`, whose indices are not checked.

    Returns:
        A new array `(size, *row, *paths)`, or a symbolic array `(size, *row)`.

    Raises:
        IndexError: If an index of an array is no whole number from 0 to n - 1.

    Example:
        >>> import numpy as np
        >>> from sdetools.graph.sampling import gather
        >>> gather(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 1.0, 0.0])).tolist()
        [[3.0, 4.0], [3.0, 4.0], [1.0, 2.0]]
    """
    if isinstance(index, Value):
        return value(data)[index]
    rows = data[_whole(index, len(data))]
    return np.moveaxis(rows, range(1, np.ndim(index)), range(1 - np.ndim(index), 0))


def tally(index: Any, n: int, weights: Any = None) -> Any:
    """Return how often each of n samples of data was drawn in each path, or the sum of the weights of its draws.

    Args:
        index: Indices of the drawn samples, from 0 to n - 1, as floats: an array `(size, *paths)`, where `paths` are any axes of paths, or a
            symbolic array (`Value`) `(size,)`, whose indices are not checked.
        n: Number of samples.
        weights: A weight of each draw, of the shape of `index`; 1 by default.

    Returns:
        A new float array `(n, *paths)`, or a symbolic array `(n,)`; 0 for a sample that was not drawn.

    Raises:
        IndexError: If an index of an array is no whole number from 0 to n - 1.

    Example:
        >>> import numpy as np
        >>> from sdetools.graph.sampling import tally
        >>> tally(np.array([2.0, 0.0, 2.0]), 4).tolist()
        [1.0, 0.0, 2.0, 0.0]
    """
    if isinstance(index, Value):
        args = (index,) if weights is None else (index, value(weights))
        return trace_of(args).node("tally", "", args, (n,))  # type: ignore[union-attr]
    out, path = np.zeros((n, *index.shape[1:])), np.indices(index.shape[1:])
    for b, own in enumerate(_whole(index, n)):
        out[(own, *path)] += 1.0 if weights is None else weights[b]
    return out


def _whole(index: Any, n: int) -> np.ndarray:
    """Return indices as integers; IndexError unless they are whole numbers from 0 to n - 1."""
    index = np.asarray(index)
    wrong = ~((index >= 0) & (index < n) & (index == np.floor(index)))
    if wrong.any():
        raise IndexError(f"`index` must contain whole numbers from 0 to {n - 1}; got {index[wrong][0]!s}.")
    return index.astype(np.int64)
