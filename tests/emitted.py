"""Graphs run outside of a simulation: by the array emitter, and as loops over lanes in a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from sdetools.graph import lanes, rows
from sdetools.graph.arrays import compiled
from sdetools.graph.elements import Tables, indent
from sdetools.graph.loops import Loops
from sdetools.graph.value import Trace, Value

TEXT = """
def run(rows, F, K, N{data}{uniform}):
    base, Fat = rows.ctypes.data, F.ctypes.data
    S, S2 = lanes.float_pointer(base), rows.reshape(({count}, {lanes}))
{addresses}
{lines}
    rows[0] = rows[0]  # used to the end, or Numba frees it
"""


def as_arrays(formula: Callable[[Value], Value], x: np.ndarray) -> np.ndarray:
    """Evaluate a formula of one point at many, by the array emitter: `(*shape, paths)`."""
    at = Trace().input("x", x.shape[:-1])
    made = formula(at)
    (found,) = compiled([made], [at])(x)
    return np.broadcast_to(found if not made.uniform else np.asarray(found)[..., None], (*made.shape, x.shape[-1]))


def as_loops(formula: Callable[[Value], Value], x: np.ndarray, width: int = 16) -> np.ndarray:
    """Evaluate a formula of one point at many, by loops over blocks of `width` lanes."""
    at = Trace().input("x", x.shape[:-1])
    made = formula(at)
    run = loops([(at.size, made)], [(0, at)], width)
    out = np.empty((*made.shape, x.shape[-1]))
    for b in range(0, x.shape[-1], width):
        block = np.ones((*at.shape, width))
        n = min(width, x.shape[-1] - b)
        block[..., :n] = x[..., b : b + n]
        out[..., b : b + n] = run({0: block})[at.size : at.size + made.size].reshape(*made.shape, width)[..., :n]
    return out


@cache
def _kernel(text: str, stages: tuple[tuple[str, Any], ...]) -> Callable[..., None]:
    space: dict[str, Any] = {"np": np, "math": math, "lanes": lanes, **dict(stages)}
    exec(compile(text, "<loops>", "exec"), space)
    return njit(**lanes.FAST)(space["run"])


def pointer(i: int, d: np.ndarray) -> list[str]:
    """Return the lines that define an array of data as the generated code expects it."""
    return [f"d{i}at = a{i}.ctypes.data", f"d{i} = lanes.{'real' if d.dtype.kind == 'f' else 'whole'}_pointer(d{i}at)"]


def loops(
    outputs: Sequence[tuple[int, Value]], inputs: Sequence[tuple[int, Value]], width: int, uniform: Sequence[Value] = ()
) -> Callable[..., np.ndarray]:
    """Return a kernel of `outputs` (row, value): from arrays by row, and the uniform inputs, to all rows `(rows, width)`."""
    tables = Tables()
    free = max(row + v.size for row, v in [*outputs, *inputs])
    made = Loops(outputs, {v.key: row for row, v in inputs}, {}, {v.key: v.name for v in uniform}, free, width, tables)
    data = "".join(f", a{i}" for i in range(len(tables.data)))
    names = "".join(f", {v.name}" for v in uniform)
    addresses = "\n".join(indent([line for i, d in enumerate(tables.data) for line in pointer(i, d)]))
    text = TEXT.format(
        data=data, uniform=names, count=made.rows, lanes=width, addresses=addresses, lines="\n".join(indent(made.lines))
    )
    kernel = _kernel(text, tuple(tables.stages.items()))
    functions = np.array([rows.address(name) for name in tables.functions] or [0], np.int64)
    numbers, sizes = np.array(tables.numbers or [0.0]), np.array(tables.sizes or [0], np.int64)

    def run(given: dict[int, Any], *numbers_of_all: np.ndarray) -> np.ndarray:
        block = np.full((made.rows, width), np.nan)
        for row, array in given.items():
            flat = np.reshape(array, (-1, width))
            block[row : row + len(flat)] = flat
        flat = block.ravel()
        kernel(flat, functions, numbers, sizes, *(d.ravel(order="K") for d in tables.data), *numbers_of_all)
        return flat.reshape(made.rows, width)

    run.text = text  # type: ignore[attr-defined]
    return run
