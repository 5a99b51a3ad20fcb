"""Random formulas that overwrite their own state: loops, as source code and compiled, and the array emitters against plain NumPy.

The source code is first run by Python with two lanes, and NumPy's functions for the compiled ones: hundreds of formulas take seconds.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emitted import loops
from formulas import ROUNDING, Formula, assert_same, formulas, graph, places, plain, state
from hypothesis import given, settings

from sdetools.graph.arrays import compiled
from sdetools.graph.elements import Tables, indent
from sdetools.graph.loops import Loops

DIMS = (1, 2, 3, 6, 33, 90)
NAMES = ("exp", "log", "sin", "cos", "tan", "tanh", "sinh", "cosh", "log1p", "expm1", "maximum", "minimum", "sign", "floor")
LANES = {f"v{n}": getattr(np, n) for n in NAMES} | {"vpow": np.power, "vatan": np.arctan, "vasin": np.arcsin, "vacos": np.arccos}
MATH = SimpleNamespace(fabs=np.abs, sqrt=np.sqrt, floor=np.floor, sin=np.sin, cos=np.cos, tan=np.tan)


class LoopsOnly(Loops):
    """Loops of any length: programs are tested separately."""

    BUDGET = math.inf


def interpreted(formula: Formula, x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Return all rows after Python has run the code of the loops."""
    inputs, outputs = graph(formula)
    stores, lanes, tables = places(formula, outputs), x.shape[1], Tables()
    free = 2 * formula.dim + outputs[2].size
    made = LoopsOnly(stores, {inputs[0].key: 0, inputs[1].key: formula.dim}, {}, {}, free, lanes, tables)
    S = np.full(made.rows * lanes, np.nan)
    S[: 2 * x.size] = np.concatenate([x, m]).ravel()

    def call(name: str, source: int, target: int, count: int, other: int, *more: int) -> None:
        """A function of rows: an address is the position of the first number in `S`, whose address is 0, except for a matrix."""
        if name in ("product", "small_product"):
            matrix, (width, transposed) = next(d for d in tables.data if d.ctypes.data == source), more
            n, d = other >> 32, other & 0xFFFFFFFF
            assert matrix.shape == (n, d) and transposed == (not matrix.flags.c_contiguous)
            S[count // 8 : count // 8 + n * width] = (matrix @ S[target // 8 : target // 8 + d * width].reshape(d, width)).ravel()
            return
        a, b, c = (slice(at // 8, at // 8 + count) for at in (source, target, other))
        given_ = S[a].copy()
        if name == "sincos":
            S[b], S[c] = np.sin(given_), np.cos(given_)
        else:
            S[b] = np.power(given_, S[c]) if name == "power" else getattr(np, name)(given_)

    space: dict[str, Any] = {"np": np, "math": MATH, **{n: f.py_func for n, f in tables.stages.items()}}
    space["lanes"] = SimpleNamespace(call=call, **LANES)
    data = "".join(f", a{i}" for i in range(len(tables.data)))
    addresses = [f"d{i}at, d{i} = a{i}.ctypes.data, a{i}" for i in range(len(tables.data))]
    head = ["base = Fat = 0", f"S2 = S.reshape({made.rows}, {lanes})", *addresses]
    exec("\n".join([f"def run(S, F, K, N{data}):", *indent([*head, *made.lines])]), space)
    space["run"](S, tables.functions, tables.numbers, tables.sizes, *(d.ravel(order="K") for d in tables.data))
    return S.reshape(-1, lanes)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(formulas(DIMS))
def test_the_code_of_the_loops_matches_numpy(formula):
    x, m = state(formula, 2)
    assert_same(interpreted(formula, x, m), plain(formula, x, m))


@settings(max_examples=150, deadline=None)
@given(formulas(DIMS))
def test_the_array_emitter_matches_numpy(formula):
    x, m = state(formula, 3)
    inputs, outputs = graph(formula)
    found = compiled(outputs, inputs)(x.copy(), m.copy())
    for v, a, b in zip(outputs, found, plain(formula, x, m)):
        wide = np.asarray(a)[..., None] if v.uniform else a
        np.testing.assert_allclose(np.broadcast_to(wide, b.shape), b, rtol=0, atol=ROUNDING)


@settings(max_examples=60, deadline=None)
@given(formulas(DIMS))
def test_torch_code_matches_numpy(formula):
    torch = pytest.importorskip("torch", reason="torch is an extra")
    x, m = state(formula, 3)
    inputs, outputs = graph(formula)
    found = compiled(outputs, inputs, torch)(torch.tensor(x), torch.tensor(m))
    for v, a, b in zip(outputs, found, plain(formula, x, m)):
        wide = a.numpy()[..., None] if v.uniform else a.numpy()
        np.testing.assert_allclose(np.broadcast_to(wide, b.shape), b, rtol=0, atol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [16, 32, 256])
@settings(max_examples=8, deadline=None)
@given(formulas((2, 6, 70)))
def test_compiled_loops_match_numpy(lanes, formula):
    x, m = state(formula, lanes)
    inputs, outputs = graph(formula)
    run = loops(places(formula, outputs), [(0, inputs[0]), (formula.dim, inputs[1])], lanes, kept=False)
    assert_same(run({0: x, formula.dim: m}), plain(formula, x, m))


def test_a_misplaced_element_is_detected():
    """Negative control: x rolled by one more coordinate, and a state that is overwritten before it is read."""
    right = Formula(6, (("roll", 0, 1), ("add", 1, 4)), (4, 5))
    x, m = state(right, 2)
    rows = interpreted(right, x, m)
    assert_same(rows, plain(right, x, m))
    with pytest.raises(AssertionError):
        assert_same(rows, plain(Formula(6, (("roll", 0, 2), ("add", 1, 4)), (4, 5)), x, m))
    early = plain(right, np.roll(x, 1, axis=0), m)
    assert np.abs(early[1] - plain(right, x, m)[1]).max() > 1e6 * ROUNDING
