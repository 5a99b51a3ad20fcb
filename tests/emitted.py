"""Graphs run outside of a simulation: by the array emitter, and as loops over lanes in a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdetools import _compiled
from sdetools.graph import lanes, rows
from sdetools.graph.arrays import compiled
from sdetools.graph.elements import Tables, indent
from sdetools.graph.loops import Loops
from sdetools.graph.value import Trace, Value
from sdetools.simulation.kernel import kernel

TEXT = """import math

import numpy as np

from sdetools.graph import lanes


def run(where):
    A = lanes.whole_pointer(where)
    base, Fat = A[0], A[1]
    S, F, K, N = lanes.float_pointer(base), lanes.whole_pointer(Fat), lanes.float_pointer(A[2]), lanes.whole_pointer(A[3])
{arrays}
{lines}
    return 0
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


def _called(text: str, stages: dict[str, Any], kept: bool) -> Callable[[int], int]:
    """Compile a text as the kernels of simulations are, with their cache on disk if `kept`."""
    if kept:
        return kernel(text, stages, stages)
    space: dict[str, Any] = {}
    exec(compile(text, "<loops>", "exec"), space)
    space |= stages
    if stages:
        return _compiled.jit(cache=False, **lanes.FAST)(space["run"])
    return _compiled.callback(space["run"], None, "", "int64(int64)", **lanes.FAST).ctypes


def loops(
    outputs: Sequence[tuple[int, Value]],
    inputs: Sequence[tuple[int, Value]],
    width: int,
    uniform: Sequence[Value] = (),
    kept: bool = True,
) -> Callable[..., np.ndarray]:
    """Return a kernel of `outputs` (row, value): from arrays by row, and the uniform inputs, to all rows `(rows, width)`.

    Its machine code is kept on disk unless `kept` is False, as for random formulas, which do not come again.
    """
    tables = Tables()
    free = max(row + v.size for row, v in [*outputs, *inputs])
    made = Loops(outputs, {v.key: row for row, v in inputs}, {}, {v.key: v.name for v in uniform}, free, width, tables)
    kinds = ["real" if d.dtype.kind == "f" else "whole" for d in tables.data]
    arrays = [f"S2 = lanes.carray(S, ({made.rows}, {width}))"] if tables.stages else []
    for i, kind in enumerate(kinds):
        arrays += [f"d{i}at = A[{4 + i}]", f"d{i} = lanes.{kind}_pointer(d{i}at)"]
    arrays += [f"{v.name} = lanes.float_pointer(A[{4 + len(kinds) + i}])" for i, v in enumerate(uniform)]
    text = TEXT.format(arrays="\n".join(indent(arrays)), lines="\n".join(indent(made.lines)))
    call = _called(text, tables.stages, kept)
    functions = np.array([rows.address(name) for name in tables.functions] or [0], np.int64)
    numbers, sizes = np.array(tables.numbers or [0.0]), np.array(tables.sizes or [0], np.int64)

    types = {"real": np.float64, "whole": np.int64}
    data = [np.ascontiguousarray(d.ravel(order="K"), types[kind]) for d, kind in zip(tables.data, kinds, strict=True)]

    def run(given: dict[int, Any], *numbers_of_all: np.ndarray) -> np.ndarray:
        block = np.full((made.rows, width), np.nan)
        for row, array in given.items():
            flat = np.reshape(array, (-1, width))
            block[row : row + len(flat)] = flat
        assert len(numbers_of_all) == len(uniform)
        own = [block, functions, numbers, sizes, *data, *(np.ascontiguousarray(u, float) for u in numbers_of_all)]
        table = np.array([a.ctypes.data for a in own], np.int64)
        assert call(table.ctypes.data) == 0
        return block

    run.text = text  # type: ignore[attr-defined]
    return run
