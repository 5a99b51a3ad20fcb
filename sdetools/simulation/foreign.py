"""Compiled calls of user functions that cannot be traced: `@njit` gradients, or Python functions that Numba can compile."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sdetools.losses.base import Stage


@lru_cache(maxsize=256)
def gradient_stage(function: Callable[..., Any], dim: int, dtype: str) -> Stage | None:
    """Compile a user's gradient that cannot be traced, and return it as a function that a kernel calls for all paths of a block.

    A block is some consecutive paths that the kernel advances together.

    Args:
        function: The gradient at x, `(dim,)`, compiled by Numba or not; it returns a sequence of `dim` numbers.
        dim: The dimension.
        dtype: "float64" or "float32", the type of x.

    Returns:
        The compiled function as a `Stage` without data. The kernel calls it as `function(x, out)` with two arrays `(dim, paths)`; it writes the
        gradients to `out`. None if Numba cannot compile it. It is called once here, at the point (0.5, ..., 0.5), and an exception that it
        raises there propagates.
    """
    import numba
    import numpy as np
    from numba import njit

    own = function if hasattr(function, "py_func") else njit(function)

    @njit(nogil=True, error_model="numpy")
    def stage(x: np.ndarray, out: np.ndarray) -> None:
        for j in range(x.shape[1]):
            g = own(x[:, j].copy())
            for i in range(x.shape[0]):
                out[i, j] = g[i]

    try:
        stage(np.full((dim, 1), 0.5, dtype), np.empty((dim, 1), dtype))
    except numba.core.errors.NumbaError:
        return None
    return Stage(stage)
