"""Elementary functions on rows of numbers, compiled once and called by address: they add nothing to a kernel's compilation.

    lanes.call(address("exp"), source, target, count, 0, 0, 0)
    lanes.call(address("power"), base, target, count, exponent, 0, 0)
    lanes.call(address("sincos"), source, sine, count, cosine, 0, 0)

The rows are addresses of `count` numbers of one type; a target may equal a source, but not overlap it in part. sin, cos, tan and sincos are
accurate for every finite argument: a block of lanes with one beyond `FAR` is computed again by libm. Single instructions (sqrt, abs, floor,
maximum and similar) have no row function.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types

from sdetools import _machine_code
from sdetools._compiled import by_address
from sdetools._machine_code import once
from sdetools.graph import lanes, lanes32
from sdetools.graph.bits import block_copy, float32_pointer, float_pointer, stack_array
from sdetools.graph.lanes import FAR

WIDTH = 32
"""Lanes of a block. Results go through the stack: rows need no overlap check, and vectors are whole to the end."""

_ANGLES = {"sin": math.sin, "cos": math.cos, "tan": math.tan}
NAMES = (
    *("exp", "expm1", "sinh", "cosh", "tanh", "log", "log1p", "arctan", "arcsin", "arccos"),
    *(*_ANGLES, "sincos", "power"),
)
"""The functions, by NumPy's names; sincos is sin and cos together."""
PROGRAM, PRODUCT, SMALL_PRODUCT = "program", "product", "small_product"
"""Functions of `interpreter.py` and `gemm.py` with the same signature."""


def _copier(kind: Any) -> Any:
    whole = block_copy(kind, WIDTH)

    @njit(inline="always")
    def copy(source, at, target, to, n):
        """Copy n numbers from position `at` of the pointer `source` to position `to` of the pointer `target`; n <= `WIDTH` = 32."""
        if n == WIDTH:
            whole(source, at, target, to)
        else:
            for j in range(n):
                target[to + j] = source[at + j]

    return copy


def _plain(f: Any, beyond: Any, pointer: Any, stack: Any, copy: Any, real: Any) -> Any:
    """Return a function on rows that applies `f` to each number of a row; `beyond` is libm's function for arguments beyond `FAR`, or None.

    The other arguments are those of `_TYPES`: casts of an address to a pointer, a block on the stack, the copy of a block, NumPy's type.
    """

    def rows(source, target, count, _a, _b, _c):
        x, y, z, w = pointer(source), pointer(target), stack(), stack()
        for at in range(0, count, WIDTH):
            n, far = min(WIDTH, count - at), 0
            copy(x, at, z, 0, n)
            for j in range(WIDTH):
                if beyond is not None:
                    far |= 1 if math.fabs(z[j]) > FAR else 0
                w[j] = f(z[j])
            if beyond is not None:  # noqa: SIM102 (Numba prunes a test that stands alone)
                if far:
                    for j in range(n):
                        w[j] = real(beyond(np.float64(z[j]))) if math.fabs(z[j]) > FAR else w[j]
            copy(w, 0, y, at, n)
        return 0

    return rows


def _power(f: Any, pointer: Any, stack: Any, copy: Any) -> Any:
    """Return a function on rows that computes x**y for the numbers of two rows by `f`; the other arguments are those of `_plain`."""

    def rows(source, target, count, exponent, _b, _c):
        x, y, p, z, q = pointer(source), pointer(target), pointer(exponent), stack(), stack()
        for at in range(0, count, WIDTH):
            n = min(WIDTH, count - at)
            copy(x, at, z, 0, n)
            copy(p, at, q, 0, n)
            for j in range(WIDTH):
                z[j] = f(z[j], q[j])
            copy(z, 0, y, at, n)
        return 0

    return rows


def _both(f: Any, pointer: Any, stack: Any, copy: Any, real: Any) -> Any:
    """Return a function on rows that computes sine and cosine of a row by `f`, which returns both; the other arguments are those of `_plain`."""

    def rows(source, sine, count, cosine, _b, _c):
        x, s, c, z, v, w = pointer(source), pointer(sine), pointer(cosine), stack(), stack(), stack()
        for at in range(0, count, WIDTH):
            n, far = min(WIDTH, count - at), 0
            copy(x, at, z, 0, n)
            for j in range(WIDTH):
                far |= 1 if math.fabs(z[j]) > FAR else 0
                v[j], w[j] = f(z[j])
            if far:
                for j in range(n):
                    if math.fabs(z[j]) > FAR:
                        v[j], w[j] = real(math.sin(np.float64(z[j]))), real(math.cos(np.float64(z[j])))
            copy(v, 0, s, at, n)
            copy(w, 0, c, at, n)
        return 0

    return rows


_TYPES: dict[str, Any] = {
    "float64": (lanes, float_pointer, stack_array(types.float64, WIDTH), _copier(types.float64), np.float64),
    "float32": (lanes32, float32_pointer, stack_array(types.float32, WIDTH), _copier(types.float32), np.float32),
}


def _write(name: str, dtype: str) -> Any:
    """Return the Python function of six ints, described at `function`, that is compiled for a name and a type."""
    lane, pointer, stack, copy, real = _TYPES[dtype]
    if name in (PRODUCT, SMALL_PRODUCT):
        from sdetools.graph import gemm

        return (gemm.large if name == PRODUCT else gemm.small)(pointer, getattr(types, dtype))
    f = getattr(lane, lanes.NAMES.get(name, name))
    if name == "power":
        return _power(f, pointer, stack, copy)
    if name == "sincos":
        return _both(f, pointer, stack, copy, real)
    return _plain(f, _ANGLES.get(name), pointer, stack, copy, real)


@once
def function(name: str, dtype: str = "float64") -> Any:
    """Return a function on rows, contiguous arrays of floats, as a Numba C callback; generated code calls it by its attribute `address`.

    It takes six int64 and returns an int64, 0. They are (source, target, count, 0, 0, 0): the addresses of two rows of `count` floats, arguments and
    results. "power" takes the address of the row of exponents as the fourth, "sincos" that of the row of cosines (`target` gets the sines). "program"
    is the interpreter of `graph.interpreter`, and the products are the matrix products of `graph.gemm`. A process compiles each function once.

    Args:
        name: One of `NAMES`, "exp" for example (NumPy's names and "sincos"), or "program", "product" or "small_product".
        dtype: Type of the floats, "float64" or "float32".

    Raises:
        ValueError: For another name or type.
    """
    if name not in (*NAMES, PROGRAM, PRODUCT, SMALL_PRODUCT) or dtype not in _TYPES:
        raise ValueError(
            f"`name` must be one of {', '.join(NAMES)}, and `dtype` one of {', '.join(_TYPES)}; got {name!r} of {dtype!r}"
        )
    if name == PROGRAM:
        from sdetools.graph import interpreter

        return interpreter.function(dtype)
    return by_address("graph.rows", name, dtype, _write(name, dtype), fastmath=lanes.FLAGS, error_model="numpy")


def address(name: str, dtype: str = "float64") -> int:
    """Return the address in memory of the machine code of a function on rows, contiguous arrays of floats, by which generated code calls it.

    The code there is that of `function(name, dtype)`: it takes six int64, for most names (address of the arguments, address of the results, number of
    floats, 0, 0, 0), and returns the int64 0. It is read from the cache on disk, and compiled now if it is not there.

    Args:
        name: One of `NAMES`, "exp" for example (NumPy's names and "sincos"), or "program", "product" or "small_product".
        dtype: Type of the floats, "float64" or "float32".

    Raises:
        ValueError: For another name or type.
    """
    return _machine_code.address("graph.rows", name, dtype)
