"""What a formula can be, found without drawing anything: bounds, finitely many values, and whether it is analytic.

The formula is written to a tape that carries an interval beside every line (interval arithmetic), so expressions, Python functions and
losses are read alike. What cannot be written to a tape has no known bounds; the user may state them (`st.Bounded`, `st.Indicator`).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools.simulation.trace import Condition, Tape, Traced, symbols

_COMPARED = re.compile(r"\(\{\} if \(\{\} (\S+) \{\}\) else \{\}\)")
MOST_VALUES = 64
"""A set of values that grows beyond this is kept as its bounds alone."""


@dataclass(frozen=True)
class Range:
    """`low <= value <= high`; `values` are all that it can take, where those are known and few."""

    low: float = -math.inf
    high: float = math.inf
    values: frozenset[float] | None = None

    @classmethod
    def of(cls, values: Any) -> Range:
        """The range of finitely many values."""
        found = frozenset(float(v) for v in values)
        if any(math.isnan(v) for v in found):
            return cls()
        return cls(min(found), max(found), found if len(found) <= MOST_VALUES else None)

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def hull(self, other: Range) -> Range:
        """The smallest range that holds both."""
        both = None if self.values is None or other.values is None else self.values | other.values
        return Range.of(both) if both is not None else Range(min(self.low, other.low), max(self.high, other.high))

    def minus(self, other: Range) -> Range:
        """The range of the difference of a value of each."""
        return _apply(_sub, self, other)


def range_of(value: Callable[[Any], Any], dim: int) -> Range:
    """The range of `value(x)` over all x in R^dim, or over what can be said of it.

    >>> range_of(lambda x: np.tanh(x[0]) ** 2 - 1, 1)
    Range(low=-1.0, high=0.0, values=None)
    """
    tape = _RangeTape()
    try:
        found = value(symbols(tape, [f"x{i}" for i in range(dim)]))
    except Exception:  # what cannot be written to a tape, for whatever reason, says nothing about its range
        return Range()
    if isinstance(found, np.ndarray) and found.shape == ():
        found = found[()]
    return Range.of((0, 1)) if isinstance(found, (Condition, bool, np.bool_)) else tape.range(found)


def range_of_observable(h: Any, dim: int) -> Range:
    """The range that is stated, else what the formula of h shows; nothing is known of values that are computed in stages."""
    if h.range is not None:
        return h.range
    return Range() if h.value_stage is not None else range_of(h.value, dim)


def analytic(write: Callable[[Tape], Any]) -> bool:
    """Whether what `write` writes to a tape is an analytic function: no choice, absolute value, root or power that is not whole.

    >>> analytic(lambda tape: np.exp(symbols(tape, ["x"])[0])), analytic(lambda tape: abs(symbols(tape, ["x"])[0]))
    (True, False)
    """
    tape = _RangeTape()
    try:
        write(tape)
    except Exception:
        return False
    return not tape.calls and tape.templates <= _ANALYTIC


@dataclass
class _RangeTape(Tape):
    """A tape with the range of each line."""

    templates: set[str] = field(default_factory=set)
    ranges: dict[str, Range] = field(default_factory=dict)
    choices: dict[str, tuple[str, tuple[Any, ...]]] = field(default_factory=dict)

    def range(self, operand: Any) -> Range:
        return self.ranges.get(operand.name, Range()) if isinstance(operand, Traced) else Range.of([operand])

    def operation(self, template: str, *operands: Any) -> Traced:
        out = super().operation(template, *operands)
        self.templates.add(template)
        if " if " in template:
            self.choices.setdefault(out.name, (template, operands))
            self.ranges[out.name] = self._choice(template, operands)
        elif template in _SAME and len(operands) == 2 and _equal(*operands):
            self.ranges[out.name] = _apply(_SAME[template], self.range(operands[0]))
        elif template in _RULES:
            self.ranges[out.name] = _apply(_RULES[template], *map(self.range, operands))
        return out

    def _choice(self, template: str, operands: tuple[Any, ...]) -> Range:
        """Of `yes if condition else no`: both; less for the sign and the larger of two, whose inner choice never meets the rest."""
        yes, *compared, no = operands
        inner_template, inner = self.choices.get(getattr(no, "name", ""), ("", ()))
        if len(compared) == 2 and len(inner) == 4:
            outside, inside = _comparison(template, *compared), _comparison(inner_template, *inner[1:3])
            if outside is not None and inside is not None:
                (strict, u, v), (other, a, b) = outside, inside
                if strict == other == ">" and _equal(a, v) and _equal(b, u) and _equal(inner[3], u):  # u > v, v > u, else u
                    return self.range(yes).hull(self.range(inner[0])).hull(self.range(v))
                if (strict, other) == (">", "<=") and all(map(_equal, (a, b, yes, inner[0]), (u, v, u, v))):
                    return _apply(_larger, self.range(u), self.range(v))
        return self.range(yes).hull(self.range(no))


def _comparison(template: str, a: Any, b: Any) -> tuple[str, Any, Any] | None:
    """The sign of a single comparison and its sides, with > and <= for < and >=, which are the same from the other side."""
    found = _COMPARED.fullmatch(template)
    if found is None:
        return None
    sign = found[1]
    return {">": (">", a, b), "<": (">", b, a), "<=": ("<=", a, b), ">=": ("<=", b, a)}.get(sign)


def _equal(a: Any, b: Any) -> bool:
    traced = isinstance(a, Traced), isinstance(b, Traced)
    return a.name == b.name if all(traced) else not any(traced) and float(a) == float(b)


@dataclass(frozen=True)
class _Rule:
    """An operation on numbers, and on intervals."""

    number: Callable[..., float]
    interval: Callable[..., tuple[float, float]]


def _apply(rule: _Rule, *given: Range) -> Range:
    if all(r.values is not None for r in given) and math.prod(len(r.values) for r in given if r.values) <= MOST_VALUES:
        with np.errstate(all="ignore"):
            return Range.of(
                rule.number(*combination) for combination in itertools.product(*(sorted(r.values or ()) for r in given))
            )
    with np.errstate(all="ignore"):
        low, high = (float(v) for v in rule.interval(*((r.low, r.high) for r in given)))
    return Range() if math.isnan(low) or math.isnan(high) else Range(low, high)


def _corners(operation: Callable[[float, float], float]) -> Callable[..., tuple[float, float]]:
    """Of an operation that is monotone in each operand: the extremes lie at the corners; 0 times the whole line is 0."""

    def interval(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
        found = [operation(np.float64(x), np.float64(y)) for x in a for y in b]
        found = [0.0 if math.isnan(v) else v for v in found]
        return min(found), max(found)

    return interval


def _quotient(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    if b[0] < 0 < b[1] or b == (0.0, 0.0):
        return -math.inf, math.inf
    inverse = (1 / b[1] if b[1] else -math.inf, 1 / b[0] if b[0] else math.inf)
    return _PRODUCT(a, inverse)


def _power(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return _corners(np.power)(a, b) if a[0] >= 0 and b[0] == b[1] else (-math.inf, math.inf)


def _rising(function: Callable[..., Any]) -> _Rule:
    return _Rule(function, lambda a: (function(np.float64(a[0])), function(np.float64(a[1]))))


def _even(function: Callable[..., Any]) -> _Rule:
    """Of a function of |x| that rises with it."""
    return _Rule(
        function,
        lambda a: (
            function(0.0 if a[0] <= 0 <= a[1] else min(abs(a[0]), abs(a[1]))),
            function(np.float64(max(abs(a[0]), abs(a[1])))),
        ),
    )


def _wave(function: Callable[..., Any]) -> _Rule:
    return _Rule(function, lambda a: (-1.0, 1.0))


_PRODUCT = _corners(np.multiply)
_sub = _Rule(np.subtract, lambda a, b: (a[0] - b[1], a[1] - b[0]))
_larger = _Rule(max, lambda a, b: (max(a[0], b[0]), max(a[1], b[1])))
_RULES = {
    "{} + {}": _Rule(np.add, lambda a, b: (a[0] + b[0], a[1] + b[1])),
    "{} - {}": _sub,
    "{} * {}": _Rule(np.multiply, _PRODUCT),
    "{} / {}": _Rule(np.divide, _quotient),
    "-{}": _Rule(np.negative, lambda a: (-a[1], -a[0])),
    "math.fabs({})": _even(np.abs),
    "lanes.vcosh({})": _even(np.cosh),
    "lanes.vpow({}, {})": _Rule(np.power, _power),
    "lanes.vsin({})": _wave(np.sin),
    "lanes.vcos({})": _wave(np.cos),
    "math.sqrt({})": _Rule(np.sqrt, lambda a: (math.sqrt(max(a[0], 0.0)), np.sqrt(np.float64(max(a[1], 0.0))))),
    "lanes.vlog({})": _Rule(np.log, lambda a: (np.log(max(np.float64(a[0]), 0.0)), np.log(max(np.float64(a[1]), 0.0)))),
    "lanes.vlog1p({})": _Rule(np.log1p, lambda a: (np.log1p(max(np.float64(a[0]), -1.0)), np.log1p(max(np.float64(a[1]), -1.0)))),
    "math.asin({})": _Rule(np.arcsin, lambda a: (-math.pi / 2, math.pi / 2)),
    "math.acos({})": _Rule(np.arccos, lambda a: (0.0, math.pi)),
} | {
    f"{where}({{}})": _rising(function)
    for where, function in {
        "lanes.vexp": np.exp, "lanes.vexpm1": np.expm1, "lanes.vtanh": np.tanh, "lanes.vsinh": np.sinh, "math.atan": np.arctan,
    }.items()
}  # fmt: skip
_SAME = {
    "{} * {}": _even(np.square),
    "{} - {}": _Rule(lambda a: 0.0, lambda a: (0.0, 0.0)),
    "{} / {}": _Rule(lambda a: 1.0, lambda a: (1.0, 1.0)),
}
"""Of an operand and itself."""
_ANALYTIC = {"{} + {}", "{} - {}", "{} * {}", "{} / {}", "-{}", "math.atan({})"} | {
    f"lanes.v{name}({{}})" for name in ("exp", "log", "sin", "cos", "tan", "tanh", "sinh", "cosh", "log1p", "expm1")
}
