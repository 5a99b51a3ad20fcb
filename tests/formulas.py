"""Random formulas: a list of operations on a list of values, which are arrays of one path or nodes of a graph.

Values that may leave [-3, 3] go through tanh, and no operation has a slope above 6 (sums are divided by their number of terms, rows of data
have absolute sum 1). Conditions, floors and indices compare coordinates of the state only, where there are no ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as some
from naive import doubled_rows

from sdetools.graph.calls import Call
from sdetools.graph.value import Trace, Value, value

LARGEST, OPERATIONS = 400, 8
"""Maximum number of elements of a value, and of operations of a formula."""
ROUNDING = 6.0**OPERATIONS * LARGEST * 2.0**-53
"""Bound of the rounding error: 7.5e-8. A misplaced element causes a far larger error."""
RNG = np.random.default_rng(8)
TABLE = RNG.standard_normal((6, 4))


def data(rows: int, columns: int) -> np.ndarray:
    """Return a matrix of data with zeros in it."""
    made = np.random.default_rng([rows, columns]).standard_normal((rows, columns))
    made[::2, ::3] = 0.0
    return made / (1e-300 + np.abs(made).sum(axis=1, keepdims=True))


def _call(x: Any) -> Any:
    """Apply a compiled function with scratch rows: 2 x + 1/2."""
    return Call(doubled_rows, scratch=1)([x, 0.5 + 0.0 * x[0]], x.shape) if isinstance(x, Value) else 2.0 * x + 0.5


def _rows(index: Any) -> Any:
    """Return rows of data, different ones for different paths."""
    whole = np.floor(3.0 * np.abs(np.tanh(index))) + 1.0
    return value(TABLE)[whole] if isinstance(whole, Value) else TABLE[whole.astype(int)]


ONE = {
    "negative": lambda a: -a,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": lambda a: np.cos(2.0 * a),
    "both angles": lambda a: np.sin(a) * np.cos(a),
    "exp": lambda a: np.exp(-abs(a)),
    "log": lambda a: np.log1p(a * a),
    "root": lambda a: np.sqrt(1.0 + a * a),
    "power": lambda a: (1.0 + a * a) ** 0.3,
    "square": lambda a: a**2,
    "quotient": lambda a: 1.0 / (1.0 + a * a),
}
TWO = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "larger": np.maximum,
    "smaller": np.minimum,
}
SUMS = {
    "sum": lambda a, axis: np.sum(a, axis=axis) / (a.size if axis is None else a.shape[axis]),
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
}


@dataclass(frozen=True)
class Formula:
    """Operations, each on all values before it; the first values are x, m and constants. `kind` names an operation."""

    dim: int
    steps: tuple[tuple[Any, ...], ...]
    stored: tuple[int, int]

    def __call__(self, x: Any, m: Any) -> tuple[Any, Any, Any]:
        """Return two new states `(dim,)`, and the last value."""
        known = [x, m, x[0], np.linspace(-1.0, 1.0, self.dim)]
        for step in self.steps:
            known.append(_result(step, known))
        states = [_state(known[i], self.dim) for i in self.stored]
        states[1] = 0.5 * states[1] + 0.5 * _state(known[-1], self.dim)
        return states[0], states[1], known[-1]

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of each value."""
        z = np.zeros(self.dim)
        known = [z, z, z[0], z]
        for step in self.steps:
            known.append(_result(step, known))
        return [np.shape(k) for k in known]


def _state(a: Any, dim: int) -> Any:
    """Reshape a value to a state."""
    if np.shape(a) == (dim,):
        return a
    return np.reshape(a, -1)[np.arange(dim) % np.size(a)]


def _result(step: tuple[Any, ...], known: list[Any]) -> Any:
    kind, a, *more = step
    a = known[a]
    if kind in ONE:
        out = ONE[kind](a)
    elif kind in TWO:
        out = TWO[kind](a, known[more[0]])
    elif kind in SUMS:
        out = SUMS[kind](a, axis=more[0])
    elif kind == "where":
        x, m = known[:2]
        out = np.where(x[more[1]] > m[more[2]], a, known[more[0]])
    elif kind == "floor":
        out = a + np.floor(3.0 * known[0][more[0]])
    elif kind == "reverse":
        out = a[::-1]
    elif kind == "roll":
        out = np.roll(a, more[0])
    elif kind == "slice":
        out = a[more[0]]
    elif kind == "taken":
        out = np.reshape(a, -1)[np.array(more[0])]
    elif kind == "transpose":
        out = np.transpose(a)
    elif kind == "flat":
        out = np.reshape(a, -1)
    elif kind == "folded":
        out = np.reshape(a, (-1, more[0]))
    elif kind == "spread":
        out = a[:, None] * np.ones(more[0])
    elif kind == "outer":
        out = np.outer(a, known[more[0]])
    elif kind == "joined":
        out = np.concatenate([a, known[more[0]]])
    elif kind == "zeros":
        out = np.concatenate([np.zeros(2), a, np.zeros(1)])
    elif kind == "stacked":
        out = np.stack([a, known[more[0]]], axis=more[1])
    elif kind == "data":
        out = data(more[0], a.shape[0]) @ a
    elif kind == "call":
        out = _call(a)
    elif kind == "rows":
        out = _rows(a)
    else:
        raise KeyError(kind)
    return out if kind in SUMS or np.size(out) == 0 else _bounded(out)


def _bounded(a: Any) -> Any:
    """Return 3 tanh(a / 3): the identity to third order, bounded by 3."""
    return 3.0 * np.tanh(a / 3.0)


MOVES = ("reverse", "roll", "slice", "taken", "flat", "transpose", "folded", "spread", "zeros")


@some.composite
def formulas(draw: Any, dims: tuple[int, ...]) -> Formula:
    """Draw a formula whose operations fit the shapes of their operands."""
    dim = draw(some.sampled_from(dims))
    steps: list[tuple[Any, ...]] = []
    for _ in range(draw(some.integers(1, OPERATIONS))):
        shapes = Formula(dim, tuple(steps), (0, 1)).shapes()
        step = _step(draw, dim, shapes)
        if np.prod(Formula(dim, (*steps, step), (0, 1)).shapes()[-1]) <= LARGEST:
            steps.append(step)
    last = 3 + len(steps)
    return Formula(dim, tuple(steps), (draw(some.integers(0, last)), draw(some.integers(0, last))))


def _step(draw: Any, dim: int, shapes: list[tuple[int, ...]]) -> tuple[Any, ...]:
    whole = some.integers(0, len(shapes) - 1)
    a = draw(whole)
    shape = shapes[a]
    fitting = [i for i, s in enumerate(shapes) if _broadcasts(shape, s)]
    same = [i for i, s in enumerate(shapes) if s[1:] == shape[1:] and len(s) == len(shape)]
    alike = [i for i, s in enumerate(shapes) if s == shape]
    kinds = [*ONE, *TWO, "where", "floor", "stacked"]
    if shape:
        kinds += [*SUMS, "joined", "data", *MOVES]
    if len(shape) == 1:
        kinds += ["call", "rows", "outer"]
    kind = draw(some.sampled_from(kinds))
    size = int(np.prod(shape))
    coordinate = some.integers(0, dim - 1)
    if kind in TWO:
        return kind, a, draw(some.sampled_from(fitting))
    if kind in SUMS:
        return kind, a, draw(some.sampled_from([None, *range(len(shape))]))
    if kind == "where":
        return kind, a, draw(some.sampled_from(fitting)), draw(coordinate), draw(coordinate)
    if kind == "floor":
        return kind, a, draw(coordinate)
    if kind == "roll":
        return kind, a, draw(some.integers(-3, 3))
    if kind == "slice":
        n, begin = shape[0], draw(some.integers(0, shape[0] - 1))
        return kind, a, slice(begin, draw(some.integers(begin + 1, n)), draw(some.integers(1, 3)))
    if kind == "taken":
        return kind, a, tuple(draw(some.lists(some.integers(-size, size - 1), min_size=1, max_size=9)))
    if kind == "folded":
        return kind, a, draw(some.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    if kind == "spread" and len(shape) != 1:
        return "flat", a
    if kind == "spread":
        return kind, a, draw(some.integers(1, 4))
    if kind == "outer":
        return kind, a, draw(some.sampled_from([i for i, s in enumerate(shapes) if len(s) == 1]))
    if kind == "joined":
        return kind, a, draw(some.sampled_from(same))
    if kind == "zeros" and len(shape) != 1:
        return "reverse", a
    if kind == "stacked":
        return kind, a, draw(some.sampled_from(alike)), draw(some.integers(0, len(shape)))
    if kind == "data" and len(shape) > 2:  # a product of a matrix with a vector or a matrix
        return "reverse", a
    if kind == "data":
        return kind, a, draw(some.sampled_from([1, 3, 20]))
    return kind, a


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


def graph(formula: Formula) -> tuple[list[Value], list[Value]]:
    """Return the inputs x and m, and the outputs of a formula."""
    trace = Trace()
    inputs = [trace.input("x", (formula.dim,)), trace.input("m", (formula.dim,))]
    return inputs, [value(v) for v in formula(*inputs)]


def plain(formula: Formula, x: np.ndarray, m: np.ndarray) -> list[np.ndarray]:
    """Evaluate a formula one path after another."""
    paths = [formula(a, b) for a, b in zip(x.T, m.T)]
    return [np.stack([p[i] for p in paths], axis=-1) for i in range(3)]


def places(formula: Formula, outputs: list[Value]) -> list[tuple[int, Value]]:
    """Return the rows of the outputs: new states overwrite the old ones, the last value follows."""
    return [(0, outputs[0]), (formula.dim, outputs[1]), (2 * formula.dim, outputs[2])]


def assert_same(rows: np.ndarray, expected: list[np.ndarray]) -> None:
    begin = 0
    for part in expected:
        flat = part.reshape(-1, part.shape[-1])
        np.testing.assert_allclose(rows[begin : begin + len(flat)], flat, rtol=0, atol=ROUNDING)
        begin += len(flat)


def state(formula: Formula, paths: int) -> np.ndarray:
    return np.random.default_rng(formula.dim).uniform(-2.0, 2.0, (2, formula.dim, paths))
