"""Long formulas as programs: every operation against NumPy, random formulas that overwrite their state, scratch rows, limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backends import ANGLES, call_row
from emitted import as_arrays, as_loops, loops
from formulas import assert_same, formulas, graph, places, plain, state
from hypothesis import given, settings

from sdetools.graph import programs, rows, value
from sdetools.graph.derivatives import gradient
from sdetools.graph.elements import Tables
from sdetools.graph.errors import TooLong
from sdetools.graph.loops import Loops
from sdetools.graph.value import Trace

CORNERS = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.5, 1e-310, 1e300, -1e300, np.inf, -np.inf, np.nan, 0.3, 7.0, -7.0])
UNARY = {
    "negative": lambda x: -x, "absolute": abs, "sqrt": np.sqrt, "floor": np.floor, "sign": np.sign, "not": lambda x: ~(x > 0.4),
} | {name: getattr(np, name) for name in ("exp", "log", "log1p", "expm1", "sinh", "cosh", "tanh", "arctan", "arcsin", "arccos", *ANGLES)}  # fmt: skip
BINARY = {
    "add": lambda x, y: x + y, "subtract": lambda x, y: x - y, "multiply": lambda x, y: x * y, "divide": lambda x, y: x / y,
    "maximum": np.maximum, "minimum": np.minimum, "power": np.power, "less": lambda x, y: x < y, "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y, "greater_equal": lambda x, y: x >= y, "equal": lambda x, y: x == y, "not_equal": lambda x, y: x != y,
    "and": lambda x, y: (x > 0.0) & (y > 0.0), "or": lambda x, y: (x > 0.0) | (y > 0.0), "where": lambda x, y: np.where(x > y, x, 2.0 * y),
}  # fmt: skip


@pytest.fixture
def programs_only(monkeypatch):
    """Run all straight-line code as programs."""
    monkeypatch.setattr(Loops, "BUDGET", 0)


def tables_of(outputs: list[tuple[int, Any]], inputs: dict[Any, int], free: int, lanes: int = 16) -> tuple[Loops, Tables]:
    tables = Tables()
    return Loops(outputs, inputs, {}, {}, free, lanes, tables), tables


def pairs() -> np.ndarray:
    return np.array(np.meshgrid(CORNERS, CORNERS)).reshape(2, -1)


def assert_equal(found: np.ndarray, expected: np.ndarray, ulps: int) -> None:
    """NaN where NumPy has it, equal signs of zeros, and other numbers within some ulp; 0 for exact operations."""
    expected = np.where(expected, 1.0, 0.0) if expected.dtype == bool else expected
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    there = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[there]), np.signbit(expected[there]))
    finite = there & np.isfinite(expected) & np.isfinite(found)
    np.testing.assert_array_equal(found[there & ~finite], expected[there & ~finite])
    found, expected = found[finite], expected[finite]
    assert (np.abs(found - expected) <= ulps * np.spacing(np.abs(expected))).all()


@pytest.mark.parametrize("name", UNARY)
def test_unary_operations_match_numpy(name, programs_only):
    """Elementary functions agree to 3 ulp: these are within 2 ulp of the exact value, NumPy's within 1."""
    x = CORNERS[None]
    with np.errstate(all="ignore"):
        assert_equal(as_loops(lambda v: UNARY[name](v[0]), x), UNARY[name](x[0]), 3 if name in rows.NAMES else 0)


@pytest.mark.parametrize("name", BINARY)
def test_binary_operations_of_rows_match_numpy(name, programs_only):
    x = pairs()
    with np.errstate(all="ignore"):
        assert_equal(as_loops(lambda v: BINARY[name](v[0], v[1]), x), BINARY[name](*x), 3 if name == "power" else 0)


@pytest.mark.parametrize("first", [True, False], ids=["number first", "number last"])
@pytest.mark.parametrize("name", [name for name in BINARY if name != "where"])
def test_binary_operations_of_a_row_and_a_number_match_numpy(name, first, programs_only):
    """The number is uniform and passed at run time, so that it cannot be folded."""
    for number in (0.0, -0.0, 1.0, -2.5, 1e300, np.inf, np.nan):
        trace = Trace()
        x, u = trace.input("x", (1,)), trace.uniform("u", (2,))
        made = BINARY[name](*((u[1], x[0]) if first else (x[0], u[1])))
        run = loops([(1, value.value(made))], [(0, x)], 16, [u])
        with np.errstate(all="ignore"):
            expected = BINARY[name](*((number, CORNERS) if first else (CORNERS, number)))
        assert_equal(run({0: CORNERS[None]}, np.array([7.0, number]))[1], expected, 3 if name == "power" else 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_types_support_all_operations(dtype):
    """One call for each code on three rows of a type, against plain arithmetic: 1, 2, 3 and a half are exact in both types."""
    n, rng = 32, np.random.default_rng(1)
    given_ = rng.choice([-2.0, -1.0, 0.5, 1.0, 2.0, 3.0], (3, n)).astype(dtype)
    given_[0] = np.abs(given_[0])
    (a, b, c), size = given_, given_.itemsize
    plain_ = {
        "copy": a, "s_copy": a[0], "negative": -a, "absolute": a, "sqrt": np.sqrt(a), "floor": np.floor(a), "sign": np.sign(a),
        "logical_and": (a != 0) & (b != 0), "logical_or": (a != 0) | (b != 0), "logical_not": a == 0, "where": np.where(a != 0, b, c),
        "multiply_add": a * b + c, "multiply_add_s": a * b[0] + c, "s_subtract": a[0] - b, "s_divide": a[0] / b, "s_less": a[0] < b,
        "s_less_equal": a[0] <= b,
    }  # fmt: skip
    for name in programs.CODES:
        if name not in plain_:
            plain_[name] = getattr(np, name.removesuffix("_s"))(a, b[0] if name.endswith("_s") else b)
    memory = np.concatenate([given_, np.full((1, n), 99.0, dtype)]).ravel()
    bases = np.array([memory.ctypes.data], np.int64)
    for name in programs.CODES:
        code = np.array([[programs.CODE[name], 3 * n * size, 0, n * size, 2 * n * size]], np.int64)
        assert call_program(rows.address("program", dtype), code, bases, n) == 0
        np.testing.assert_array_equal(memory[3 * n :], np.broadcast_to(plain_[name], n).astype(dtype), err_msg=name)


def call_program(address: int, code: np.ndarray, bases: np.ndarray, n: int) -> int:
    return int(call_row(address, code.ctypes.data, len(code), bases.ctypes.data, n))


@pytest.mark.sample(1)
@pytest.mark.parametrize("lanes", [16, 256])
@settings(max_examples=25, deadline=None)
@given(formulas((1, 2, 3, 6, 33)))
def test_programs_match_numpy(lanes, formula):
    """Random formulas that overwrite their own state, each as a single program."""
    x, m = state(formula, lanes)
    inputs, outputs = graph(formula)
    stores = places(formula, outputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loops, "BUDGET", 0)
        patch.setattr(Loops, "_is_long", lambda *_: True)
        run = loops(stores, [(0, inputs[0]), (formula.dim, inputs[1])], lanes, kept=False)
    assert_same(run({0: x, formula.dim: m}), plain(formula, x, m))


def test_a_state_is_read_before_it_is_overwritten(programs_only):
    """A cycle of copies, and results whose target rows are still to be read."""
    trace = Trace()
    x = trace.input("x", (4,))
    made = np.stack([x[1], x[2], x[0], x[3] + x[0] * x[1] - np.exp(x[2])])
    points = np.random.default_rng(3).standard_normal((4, 16))
    found = loops([(0, made)], [(0, x)], 16)({0: points})[:4]
    np.testing.assert_allclose(found, [*points[[1, 2, 0]], points[3] + points[0] * points[1] - np.exp(points[2])], rtol=1e-14)


def test_a_chain_of_any_length_needs_three_rows():
    """Two, and one for the number that a power takes as a row."""
    trace = Trace()
    x = trace.input("x", (2,))
    y = x[0]
    for i in range(2000):
        y = np.tanh(y * x[1] + 0.01 * i) ** 0.3 - y
    made, _ = tables_of([(2, y)], {x.key: 0}, 3)
    extra = 3 + 2000 + 2  # bases, and 16 numbers per row
    assert made.rows - 3 <= 4 + extra // 16


def test_a_sum_keeps_one_term_at_a_time():
    trace = Trace()
    x = trace.input("x", (500,))
    elements, total = programs.ElementList(), np.sum(np.exp(x) * x[::-1])
    own = lambda at: elements.add(None, (programs.ROWS, at, False), False)  # noqa: E731
    walk = programs.Walk(elements, lambda v: own if v is x else None, [total])
    assert programs.RowProgram(elements, [(500, walk.element(total, 0))], 501, 0).rows <= 4


def long_formula(x: Any, operations: int) -> Any:
    rng, made = np.random.default_rng(11), [x[0], x[1], x[2]]
    for kind, a, b, c in zip(
        rng.integers(0, 5, operations), *rng.integers(1, 4, (2, operations)), rng.uniform(0.1, 0.9, operations)
    ):
        u, v = made[-a], made[-b]
        new = (
            lambda: u - c * v,
            lambda: np.tanh(u) * v,
            lambda: np.sqrt(u * u + c),
            lambda: np.maximum(u, c * v),
            lambda: np.where(u > v, u, np.sin(v)),
        )[kind]()
        made = [*made[-2:], new * 0.9]
    return made[-1] + made[-2] * made[-3]


@pytest.mark.slow
def test_twenty_thousand_operations_run():
    """Its code is as short as that of any other formula. The error bound grows by at most 2 for each operation."""
    x = np.random.default_rng(0).standard_normal((3, 21))
    trace = Trace()
    at = trace.input("x", (3,))
    made = long_formula(at, 20_000)
    assert len(value.order([made])) > 40_000
    assert loops([(3, made)], [(0, at)], 16).text.count("\n") < 25
    found = as_loops(lambda v: long_formula(v, 20_000), x)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, as_arrays(lambda v: long_formula(v, 20_000), x), rtol=1e-12, atol=1e-12)


def test_another_long_formula_has_the_same_code():
    """So it is compiled only once for each number of bases and sizes."""
    texts = []
    for shift in (1.0, 2.0):
        trace = Trace()
        x = trace.input("x", (2,))
        y = x[0]
        for i in range(400):
            y = y * x[1] - (shift + 3.7 * i)
        texts.append(loops([(2, y)], [(0, x)], 16).text)
    assert texts[0] == texts[1]


def test_short_formulas_stay_straight_line_code():
    trace = Trace()
    x = trace.input("x", (2,))
    _, tables = tables_of([(2, (x[0] * x[1] - 1) ** 2 / 2)], {x.key: 0}, 3)
    assert "program" not in tables.functions and tables.straight > 0


def test_the_budget_counts_all_lines_of_a_kernel():
    """Negative control of the test above: a second formula of the same size exceeds the budget."""
    trace = Trace()
    x = trace.input("x", (2,))
    y = x[0]
    for i in range(20):
        y = y * x[1] - 3.7 * i
    tables = Tables()
    made = [Loops([(2, y + n)], {x.key: 0}, {}, {}, 3, 16, tables) for n in range(9)]
    programs_in = ["word_pointer" in "".join(m.lines) for m in made]
    assert not programs_in[0] and programs_in[-1] and tables.straight <= Loops.BUDGET


def test_gradients_of_nested_formulas_have_linear_size():
    """The number of nodes of a value and its gradient grows by a constant per level."""

    def nodes(depth: int, step: Any) -> int:
        x = Trace().input("x", (2,))
        y = x[0] * x[1]
        for _ in range(depth):
            y = step(x, y)
        return len(value.order([gradient(y, x)]))

    for step in (lambda x, y: np.tan(0.5 * y), lambda x, y: np.maximum(0.3 * x[0], y * x[1] - 0.1)):
        assert nodes(40, step) - nodes(20, step) <= 1.1 * (nodes(20, step) - nodes(0, step))


def test_a_formula_of_too_many_operations_is_refused(monkeypatch):
    monkeypatch.setattr(value, "MOST", 1000)
    x = Trace().input("x", (2,))
    with pytest.raises(TooLong, match="at most 1,000 operations"):
        long_formula(np.concatenate([x, x[:1]]), 2000)


def deep(x: Any, turns: int) -> Any:
    for i in range(turns):
        x = 0.5 * x * x[::-1] + np.maximum(0.01 * i - x, 0.1)
    return x


@pytest.mark.slow
def test_a_long_chain_on_a_large_array_is_split():
    """It has too many elements for a program, and is too deep for the recursive generator: some values are stored in rows."""
    x = np.random.default_rng(2).uniform(-0.5, 0.5, (2000, 16))
    found, expected = as_loops(lambda v: deep(v, 50), x), deep(x, 50)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
