"""The elementary functions of a graph on each backend that has them, and their distances from the exact values."""

from __future__ import annotations

from functools import cache

import mpmath
import numpy as np
import torch
from numba import njit

from sdetools.graph import lanes, lanes32, rows, torch_functions

SINGLE = tuple(name for name in lanes.NAMES if name not in ("power", "maximum", "minimum", "heaviside"))
EXACT = ("sign", "floor")
REAL = tuple(name for name in SINGLE if name not in EXACT)
ANGLES = ("sin", "cos", "tan")
BACKENDS = ("numpy", "torch", "lanes", "rows")
TYPES = {"float64": lanes, "float32": lanes32}


@cache
def _inlined(name: str, dtype: str):
    f = getattr(TYPES[dtype], lanes.NAMES[name])
    if name in SINGLE:

        @njit(**lanes.FAST)
        def loop(x, out):
            for j in range(len(x)):
                out[j] = f(x[j])

    else:

        @njit(**lanes.FAST)
        def loop(x, y, out):
            for j in range(len(x)):
                out[j] = f(x[j], y[j])

    return loop


@njit
def call_row(address, source, target, count, other):
    """Calls a function on rows by its address."""
    return lanes.call(address, source, target, count, other, 0, 0)


def on_rows(name: str, x: np.ndarray, *others: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """A function applied to a whole row by one call; `out` is the target, if given."""
    out = np.empty_like(x) if out is None else out
    other = others[0].ctypes.data if others else 0
    assert call_row(rows.address(name, x.dtype.name), x.ctypes.data, out.ctypes.data, len(x), other) == 0
    return out


def computed(backend: str, name: str, *arguments: np.ndarray) -> np.ndarray:
    """A function applied to arrays by a backend."""
    x = arguments[0]
    if backend == "numpy":
        with np.errstate(all="ignore"):
            return getattr(np, name)(*arguments)
    if backend == "torch":
        f = getattr(torch_functions, name, None) or getattr(torch, name)
        return f(*[torch.from_numpy(a) for a in arguments]).numpy()
    if backend == "rows" and name in rows.NAMES:
        return on_rows(name, *arguments)
    out = np.empty_like(x)
    _inlined(name, x.dtype.name)(*arguments, out)
    return out


def true(name: str):
    """The function of mpmath with this name."""
    return getattr(mpmath, {"arctan": "atan", "arcsin": "asin", "arccos": "acos"}.get(name, name))


def ulps(f, x: tuple[np.ndarray, ...], *rows_of_values: np.ndarray) -> list[np.ndarray]:
    """The distances from the exact values, in units of their last place."""
    with mpmath.workprec(100):
        truth = [f(*map(mpmath.mpf, point)) for point in zip(*(a.tolist() for a in x))]
        unit = np.spacing(np.abs([float(t) for t in truth]))
        return [np.abs([float(v - t) for v, t in zip(values.tolist(), truth)]) / unit for values in rows_of_values]


def any_float(rng: np.random.Generator, n: int, dtype: type = np.float64) -> np.ndarray:
    """Random floats with uniform sign, exponent and mantissa, including subnormal numbers."""
    word = np.uint64 if dtype == np.float64 else np.uint32
    x = rng.integers(0, np.iinfo(word).max, n, dtype=word, endpoint=True).view(dtype)
    return x[np.isfinite(x)]


def right_angles(counts: np.ndarray) -> np.ndarray:
    """The floats nearest to k pi/2, whose remainder is determined by cancellation."""
    with mpmath.workdps(400):
        return np.array([float(mpmath.mpf(int(k)) * mpmath.pi / 2) for k in counts])
