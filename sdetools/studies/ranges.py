"""The range of a formula by interval arithmetic: bounds, finitely many values, and whether the formula is analytic.

The formula is traced (`graph.value`), and a `Range` is computed for each node of its graph, one operation or constant. Expressions, Python
functions and losses are therefore treated alike. An array has one range, for all its elements. A function that cannot be traced has no known
bounds; the user may state them (`st.Bounded`, `st.Indicator`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools.graph.value import CONDITIONS, Trace, Value, order, value as value_of

MOST_VALUES = 64
"""The largest number of values in a set; of larger sets only the bounds are stored."""


@dataclass(frozen=True)
class Range:
    """The range of a quantity, low <= value <= high; by default the whole line.

    Attributes:
        low: The lower bound, -inf if unknown.
        high: The upper bound, inf if unknown.
        values: All values that the quantity can take, if these are known and at most `MOST_VALUES` (64); otherwise None.

    Example:
        >>> Range.of([0, 1]).minus(Range.of([0, 1])) == Range.of([-1, 0, 1]), Range(0.0, 2.0).hull(Range.of([3]))
        (True, Range(low=0.0, high=3.0, values=None))
    """

    low: float = -math.inf
    high: float = math.inf
    values: frozenset[float] | None = None

    @classmethod
    def of(cls, values: Any) -> Range:
        """Return the range of an iterable of numbers, not empty; the whole line if one is NaN, only the bounds for over 64 different ones."""
        found = frozenset(float(v) for v in values)
        if any(math.isnan(v) for v in found):
            return cls()
        return cls(min(found), max(found), found if len(found) <= MOST_VALUES else None)

    @property
    def bounded(self) -> bool:
        """Whether both bounds are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def hull(self, other: Range) -> Range:
        """Return the smallest range that contains this one and `other`, with a set of values if both have one and the union has at most 64."""
        both = None if self.values is None or other.values is None else self.values | other.values
        return Range.of(both) if both is not None else Range(min(self.low, other.low), max(self.high, other.high))

    def minus(self, other: Range) -> Range:
        """Return the range of all differences a - b, a in this range and b in `other`: a set of values if there are at most 64 pairs, else bounds."""
        return _apply(_sub, self, other)


def range_of(value: Callable[[Any], Any], dim: int) -> Range:
    """Return a range that contains `value(x)` for all x in R^dim, the whole line if the function cannot be traced.

    Args:
        value: A function of a point, which returns a number, an array (the range contains all its elements) or a condition (values 0 and 1).
        dim: The number of coordinates of the point.

    Example:
        >>> range_of(lambda x: np.tanh(x[0]) ** 2 - 1, 1)
        Range(low=-1.0, high=0.0, values=None)
    """
    try:
        with np.errstate(all="ignore"):
            found = value_of(value(Trace().input("x", (dim,))))
    except Exception:  # a function that cannot be traced, for any reason, has no known range
        return Range()
    if found.boolean:
        return Range.of((0, 1))
    ranges: dict[Any, Range] = {}
    for node in order([found]):
        ranges[node.key] = _range(node, ranges)
    return ranges[found.key]


def range_of_observable(h: Any, dim: int) -> Range:
    """Return the stated range of the `Observable` `h`, or else that of its formula on R^dim; the whole line if neither is known."""
    return range_of(h.value, dim) if h.range is None else h.range


def analytic(write: Callable[[Trace], Any]) -> bool:
    """Return whether a formula is proven analytic: without conditions, absolute values, roots or non-integer powers.

    False says only that it is not proven: the formula cannot be traced, or uses another function than the known analytic ones.

    Args:
        write: A function that writes the formula to a trace: it creates inputs by `trace.input` and computes with them.

    Example:
        >>> analytic(lambda trace: np.exp(trace.input("x"))), analytic(lambda trace: abs(trace.input("x")))
        (True, False)
    """
    trace = Trace()
    try:
        with np.errstate(all="ignore"):
            write(trace)
    except Exception:
        return False
    return all(
        n.op not in ("call", "rows") and (n.op not in ("map", "reduce") or n.name in _ANALYTIC) for n in trace.known.values()
    )


def _range(node: Value, known: dict[Any, Range]) -> Range:
    """Return the range of all elements of a node; the whole line for an operation without a rule.

    Args:
        node: The node, one operation or constant of a formula.
        known: The ranges of its arguments, by the keys of their nodes.
    """
    given = [known[a.key] for a in node.args]
    if node.op == "const":
        return Range.of(np.unique(node.extra)) if node.size and np.isfinite(node.extra).all() else Range()
    if node.op in ("view", "join") and node.name != "call":
        zero = [Range.of([0.0])] if node.op == "view" and node.extra.table is not None else []
        out, *rest = given + zero
        for other in rest:
            out = out.hull(other)
        return out
    if node.op == "reduce":
        return _reduced(node.name, given[0], node.args[0].size // max(node.size, 1))
    if node.op == "map" and node.name in CONDITIONS:
        return Range.of((0, 1))
    if node.op == "map" and node.name == "where":
        return _choice(node, known)
    if node.op == "map" and node.name in _SAME and node.args[0].key == node.args[1].key:
        return _apply(_SAME[node.name], given[0])
    return _apply(_RULES[node.name], *given) if node.op == "map" and node.name in _RULES else Range()


def _reduced(name: str, one: Range, times: int) -> Range:
    """Return the range of a reduction of `times` elements, each in the range `one`, by the operation `name`: "add", "multiply", "maximum", ..."""
    if name in ("maximum", "minimum"):
        return one
    rule, out = _RULES[name], one
    if one.values is None and name == "add":
        return Range(times * one.low, times * one.high)
    for _ in range(min(times, 4 * MOST_VALUES) - 1):
        out = _apply(rule, out, one)
    return out if times <= 4 * MOST_VALUES else Range()


def _choice(node: Value, known: dict[Any, Range]) -> Range:
    """Return the range of a node `where(condition, yes, no)` from the ranges `known` of its arguments, by the keys of their nodes.

    For the sign function, a step function and a maximum, the branch that is never taken is omitted.
    """
    condition, yes, no = node.args
    branches, cases, last = [yes], [_comparison(condition)], no
    while last.op == "map" and last.name == "where":
        branches, cases, last = [*branches, last.args[1]], [*cases, _comparison(last.args[0])], last.args[2]
    if cases[0] is not None and last.key in (sides := {w.key for w in cases[0][1:]}) and len(sides) == 2:
        u, v = (w.key for w in cases[0][1:])
        if {(">", u, v), (">", v, u)} < {(c[0], c[1].key, c[2].key) for c in cases if c is not None} and any(
            c is not None and c[0] in ("<=", "==") and {c[1].key, c[2].key} == sides for c in cases
        ):  # the last branch is u or v, and taken only where one of the two is NaN
            out = known[branches[0].key]
            for branch in branches[1:]:
                out = out.hull(known[branch.key])
            return out
    if no.op == "map" and no.name == "where":
        outside, inside = _comparison(condition), _comparison(no.args[0])
        if outside is not None and inside is not None:
            (strict, u, v), (other, a, b) = outside, inside
            if strict == other == ">" and a.key == v.key and b.key == u.key and no.args[2].key == u.key:  # u > v, v > u, else u
                return known[yes.key].hull(known[no.args[1].key]).hull(known[v.key])
            if (strict, other) == (">", "<=") and [w.key for w in (a, b, yes, no.args[1])] == [w.key for w in (u, v, u, v)]:
                return _apply(_RULES["maximum"], known[u.key], known[v.key])
    return known[yes.key].hull(known[no.key])


def _comparison(condition: Value) -> tuple[str, Value, Value] | None:
    """Return a node's comparison as (sign, left, right); None for other nodes.

    The sign is ">", "<=" or "==": < and >= become > and <= by an exchange of the sides.
    """
    if condition.op != "map":
        return None
    a, *rest = condition.args
    if not rest:
        return None
    b = rest[0]
    return {
        "greater": (">", a, b), "less": (">", b, a), "less_equal": ("<=", a, b), "greater_equal": ("<=", b, a), "equal": ("==", a, b)
    }.get(condition.name)  # fmt: skip


@dataclass(frozen=True)
class _Rule:
    """An operation on numbers, and its extension to intervals.

    Attributes:
        number: The operation on numbers.
        interval: A function of one pair (low, high) for each operand that returns such a pair for the result.
    """

    number: Callable[..., float]
    interval: Callable[..., tuple[float, float]]


def _apply(rule: _Rule, *given: Range) -> Range:
    """Return the range of an operation on operands in the `given` ranges, one for each operand.

    It is found from all combinations of values if these are at most `MOST_VALUES`, otherwise from the bounds; if a bound is NaN it is the whole
    line.
    """
    if all(r.values is not None for r in given) and math.prod(len(r.values) for r in given if r.values) <= MOST_VALUES:
        with np.errstate(all="ignore"):
            return Range.of(
                rule.number(*combination) for combination in itertools.product(*(sorted(r.values or ()) for r in given))
            )
    with np.errstate(all="ignore"):
        low, high = (float(v) for v in rule.interval(*((r.low, r.high) for r in given)))
    return Range() if math.isnan(low) or math.isnan(high) else Range(low, high)


def _corners(operation: Callable[[float, float], float]) -> Callable[..., tuple[float, float]]:
    """Return the interval extension of a binary operation that is monotone in each operand, a function of two pairs (low, high) to a pair.

    0 times infinity counts as 0.
    """

    def interval(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
        found = [operation(np.float64(x), np.float64(y)) for x in a for y in b]
        found = [0.0 if math.isnan(v) else v for v in found]
        return min(found), max(found)

    return interval


def _quotient(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Return the interval (low, high) of a quotient a / b of two such intervals, infinite if b may change sign or is 0."""
    if b[0] < 0 < b[1] or b == (0.0, 0.0):
        return -math.inf, math.inf
    inverse = (1 / b[1] if b[1] else -math.inf, 1 / b[0] if b[0] else math.inf)
    return _PRODUCT(a, inverse)


def _power(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Return the interval (low, high) of a power a ** b of two such intervals, infinite unless a >= 0 and b is a single number."""
    return _corners(np.power)(a, b) if a[0] >= 0 and b[0] == b[1] else (-math.inf, math.inf)


def _increasing(function: Callable[..., Any]) -> _Rule:
    """Return the rule of an increasing function of one number."""
    return _Rule(function, lambda a: (function(np.float64(a[0])), function(np.float64(a[1]))))


def _even(function: Callable[..., Any]) -> _Rule:
    """Return the rule of an even function of one number that increases with |x|."""
    return _Rule(
        function,
        lambda a: (
            function(0.0 if a[0] <= 0 <= a[1] else min(abs(a[0]), abs(a[1]))),
            function(np.float64(max(abs(a[0]), abs(a[1])))),
        ),
    )


def _oscillating(function: Callable[..., Any]) -> _Rule:
    """Return the rule of a function of one number with the range [-1, 1], such as the sine."""
    return _Rule(function, lambda a: (-1.0, 1.0))


_PRODUCT = _corners(np.multiply)
_sub = _Rule(np.subtract, lambda a, b: (a[0] - b[1], a[1] - b[0]))
_RULES = {
    "add": _Rule(np.add, lambda a, b: (a[0] + b[0], a[1] + b[1])),
    "subtract": _sub,
    "multiply": _Rule(np.multiply, _PRODUCT),
    "divide": _Rule(np.divide, _quotient),
    "negative": _Rule(np.negative, lambda a: (-a[1], -a[0])),
    "absolute": _even(np.abs),
    "cosh": _even(np.cosh),
    "power": _Rule(np.power, _power),
    "sin": _oscillating(np.sin),
    "cos": _oscillating(np.cos),
    "sign": _Rule(np.sign, lambda a: (np.sign(a[0]), np.sign(a[1]))),
    "floor": _increasing(np.floor),
    "maximum": _Rule(max, lambda a, b: (max(a[0], b[0]), max(a[1], b[1]))),
    "minimum": _Rule(min, lambda a, b: (min(a[0], b[0]), min(a[1], b[1]))),
    "sqrt": _Rule(np.sqrt, lambda a: (math.sqrt(max(a[0], 0.0)), np.sqrt(np.float64(max(a[1], 0.0))))),
    "log": _Rule(np.log, lambda a: (np.log(max(np.float64(a[0]), 0.0)), np.log(max(np.float64(a[1]), 0.0)))),
    "log1p": _Rule(np.log1p, lambda a: (np.log1p(max(np.float64(a[0]), -1.0)), np.log1p(max(np.float64(a[1]), -1.0)))),
    "arcsin": _Rule(np.arcsin, lambda a: (-math.pi / 2, math.pi / 2)),
    "arccos": _Rule(np.arccos, lambda a: (0.0, math.pi)),
} | {f.__name__: _increasing(f) for f in (np.exp, np.expm1, np.tanh, np.sinh, np.arctan)}
_SAME = {
    "multiply": _even(np.square),
    "subtract": _Rule(lambda a: 0.0, lambda a: (0.0, 0.0)),
    "divide": _Rule(lambda a: 1.0, lambda a: (1.0, 1.0)),
}
"""Rules of operations whose two operands are the same node."""
_ANALYTIC = {
    "add", "subtract", "multiply", "divide", "negative", "arctan", "exp", "log", "sin", "cos", "tan", "tanh", "sinh", "cosh", "log1p",
    "expm1",
}  # fmt: skip
