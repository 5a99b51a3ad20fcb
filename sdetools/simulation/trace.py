"""Symbols that write down what is done to them: how a rule given as Python text becomes straight-line code for a kernel.

A `Tape` collects one line an operation, in the order in which the rule wrote them, so a kernel computes what the NumPy reference
computes, up to fused multiply-adds. Equal lines are written once. A `Traced` is the name of one line; arrays of them (object
arrays, component first) go through the same formulas as numbers do. What needs a value to decide (an `if`, `float(x)`,
`np.where`) raises `TracingError`, and the caller falls back on another way to run the formula. Nothing else does: an error of the
user's own code is raised as what it is, with a note that gives its place (`trace`).

A tape may be *cut*: a stage (a compiled function over a block of lanes, such as a gradient from data) runs between two
segments. What a later segment needs of an earlier one is kept in scratch rows.
"""

from __future__ import annotations

import linecache
import numbers
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sdetools._arrays import ArraysOnly, Symbol, TracingError
from sdetools.simulation.loops import Item


class NotTraceable(TypeError):
    """This program has a part that neither traces nor compiles; the message names the part, `function` says whether it is a user's text."""

    def __init__(self, message: str, function: bool = False) -> None:
        super().__init__(message)
        self.function = function


_SYMBOLS = re.compile(r"'(Traced|TracedArray|Condition)'|type (Traced|Condition)\b|\bufunc\b")
_LIBRARIES = str(Path(np.__file__).parent), str(Path(__file__).parents[1])


def trace(function: Callable[..., Any], part: str, *arguments: Any) -> Any:
    """`function(*arguments)` on symbols; NotTraceable, with the line, where symbols are not enough.

    Any other error is the function's own. It goes on as it is, with a note of the part and the line of the user's file.
    """
    try:
        with np.errstate(all="ignore"):
            return function(*arguments)
    except NotTraceable:
        raise
    except Exception as error:
        place = _place(error)
        if isinstance(error, TracingError) or _about_symbols(error):
            raise NotTraceable(
                f"{part} cannot be traced ({error}{place and ': ' + place})", function=not isinstance(error, ArraysOnly)
            ) from error
        if not getattr(error, "__notes__", None):  # the innermost part has said it
            error.add_note(f"It was raised by {part}{place and ', ' + place}.")
        raise


def _about_symbols(error: Exception) -> bool:
    """Whether an operation is missing on symbols alone: numbers may have it, so this is no error yet."""
    if isinstance(error, AttributeError):
        return isinstance(error.obj, (Traced, TracedArray, Condition)) or bool(_SYMBOLS.search(str(error)))
    return isinstance(error, TypeError) and bool(_SYMBOLS.search(str(error)))


def _place(error: Exception) -> str:
    """The innermost line outside NumPy and this library, as text; empty if there is none."""
    found, step = "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not file.startswith(_LIBRARIES):
            line = linecache.getline(file, step.tb_lineno).strip()
            found = f"line {step.tb_lineno} of {file}" + (f", `{line}`" if line else "")
        step = step.tb_next
    return found


@dataclass
class Line:
    """`name = text` in a segment; `uses` are the names in it; a `load` may be repeated anywhere."""

    name: str
    text: str
    uses: tuple[str, ...]
    segment: int
    load: bool = False


@dataclass
class Tape:
    """Straight-line code under construction."""

    lines: list[Line] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    run: Callable[[Any, Any], Any] | None = None
    """What a `Block` is handed to, with its traced rows."""
    _known: dict[tuple[str, int], str] = field(default_factory=dict)
    _segment: int = 0

    def load(self, text: str) -> Traced:
        """A symbol that is read from memory or from a scalar of the kernel."""
        return self._write(text, (), load=True)

    def operation(self, template: str, *operands: Any) -> Traced:
        """`template.format(...)` of operands, which are symbols or numbers."""
        texts = [_text(o) for o in operands]
        return self._write(template.format(*texts), tuple(o.name for o in operands if isinstance(o, Traced)))

    def text_of(self, value: Any) -> str:
        """The text of a symbol's line; of anything else, its own."""
        return next(line.text for line in self.lines if line.name == value.name) if isinstance(value, Traced) else str(value)

    def cut(self, call: str) -> None:
        """Ends the segment; `call` runs between it and the next."""
        self.calls.append(call)
        self._segment += 1

    def _write(self, text: str, uses: tuple[str, ...], load: bool = False) -> Traced:
        # a load is the same value in every segment; an operation is found again wherever it stands
        known = self._known.get((text, 0))
        if known is None:
            known = f"v{len(self.lines)}"
            self.lines.append(Line(known, text, uses, self._segment, load))
            self._known[text, 0] = known
        return Traced(self, known)

    def segments(
        self, outputs: Sequence[tuple[Any, Any]], spill: Callable[[int], str]
    ) -> tuple[list[tuple[list[Item], list[Item]]], int]:
        """Lines and stores of each segment, with `outputs` (target, value) stored at the end of the last, and the number of scratch rows.

        An output whose target is a pair `(segment, target)` is stored at the end of that segment.
        """
        by_name = {line.name: line for line in self.lines}
        last = self._segment
        stores: list[tuple[int, str, Any]] = [(t[0], t[1], v) if isinstance(t, tuple) else (last, t, v) for t, v in outputs]
        spilled: dict[str, str] = {}
        needed: list[set[str]] = [set() for _ in range(last + 1)]

        def need(name: str, segment: int) -> None:
            todo = [(name, segment)]
            while todo:
                name, segment = todo.pop()
                if name in needed[segment]:
                    continue
                needed[segment].add(name)
                line = by_name[name]
                if line.load:
                    continue
                if line.segment == segment:
                    todo += [(use, segment) for use in line.uses]
                else:
                    spilled.setdefault(name, spill(len(spilled)))
                    todo.append((name, line.segment))

        for segment, _, value in stores:
            if isinstance(value, Traced):
                need(value.name, segment)
        out: list[tuple[list[Item], list[Item]]] = []
        for segment in range(last + 1):
            lines: list[Item] = []
            kept: list[Item] = []
            for line in self.lines:
                if line.name not in needed[segment]:
                    continue
                if line.load or line.segment == segment:
                    lines.append(Item(line.name, line.text, line.uses))
                    if line.name in spilled and line.segment == segment:
                        kept.append(Item(spilled[line.name], line.name, (line.name,)))
                else:
                    lines.append(Item(line.name, spilled[line.name], ()))
            for where, target, value in stores:
                if where == segment:
                    kept.append(Item(target, _text(value), (value.name,) if isinstance(value, Traced) else ()))
            out.append((lines, kept))
        return out, len(spilled)


TEMPLATES = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "pow": "lanes.vpow({}, {})",
    "neg": "-{}",
    "abs": "math.fabs({})",
    "sqrt": "math.sqrt({})",
    "arctan": "math.atan({})",
    "arcsin": "math.asin({})",
    "arccos": "math.acos({})",
}
"""The text of an operation; of any other, the function of `lanes`."""
NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "div": 1}
"""The number that an operation leaves as it is on its right, and for sums and products on its left."""


class Traced(Symbol):
    """The name of a value on a tape; arithmetic on it writes lines."""

    __slots__ = ("name", "tape")

    def __init__(self, tape: Tape, name: str) -> None:
        self.tape, self.name = tape, name

    def operation(self, name: str, *operands: Any) -> Any:
        if name in NEUTRAL:
            a, b = operands
            if _is(b, NEUTRAL[name]):
                return a
            if name in ("add", "mul") and _is(a, NEUTRAL[name]):
                return b
            if name == "div" and isinstance(b, numbers.Real) and float(b) in (2.0, 4.0, 8.0, 0.5, 0.25):
                return a * (1.0 / float(b))  # exact
        return self.tape.operation(TEMPLATES.get(name, f"lanes.v{name}({{}})"), *operands)

    def comparison(self, sign: str, other: Any) -> Condition:
        if not isinstance(other, (Traced, numbers.Real)):
            raise TracingError(f"a symbol cannot be compared with {type(other).__name__}")
        return Condition(self.tape, f"({{}} {sign} {{}})", (self, other))

    def __pow__(self, power: Any) -> Any:
        if isinstance(power, Traced):
            return self.operation("pow", self, power)
        if not isinstance(power, numbers.Real):
            return NotImplemented
        power = float(power)
        if power < 0:
            return 1.0 / self**-power
        whole, half = divmod(power, 1.0)
        if half not in (0.0, 0.5) or whole > 2**20:
            return self.operation("pow", self, power)
        out: Any = self.sqrt() if half else None
        square, n = self, int(whole)
        while n:
            if n & 1:
                out = square if out is None else out * square
            n >>= 1
            if n:
                square = square * square
        return 1.0 if out is None else out

    def __rpow__(self, base: Any) -> Any:
        if not isinstance(base, numbers.Real) or base <= 0:
            raise TracingError(f"a power with base {base!r} and a varying exponent cannot be traced; write it with exp and log")
        return (float(np.log(base)) * self).exp()

    def sign(self) -> Traced:
        return (self > 0).select(1.0, (self < 0).select(-1.0, self * 0.0))

    def __array_function__(self, function: Any, types: Any, given: Any, options: Any) -> Any:
        return _on_objects(function, given, options)


class Condition:
    """A comparison between symbols, to be used in `select`; `&`, `|` and `~` combine conditions."""

    __slots__ = ("operands", "tape", "template")

    def __init__(self, tape: Tape, template: str, operands: tuple[Any, ...]) -> None:
        self.tape, self.template, self.operands = tape, template, operands

    def select(self, yes: Any, no: Any) -> Traced:
        return self.tape.operation(f"({{}} if {self.template} else {{}})", yes, *self.operands, no)

    def __and__(self, other: Condition) -> Condition:
        return Condition(self.tape, f"({self.template} & {other.template})", self.operands + other.operands)

    def __or__(self, other: Condition) -> Condition:
        return Condition(self.tape, f"({self.template} | {other.template})", self.operands + other.operands)

    def __invert__(self) -> Condition:
        return Condition(self.tape, f"(not {self.template})", self.operands)

    def __bool__(self) -> bool:
        raise TracingError("the formula branches on a comparison; write `sdetools.select(condition, yes, no)` instead of `if`")


def _on_objects(function: Any, given: Any, options: Any) -> Any:
    """NumPy's function on object arrays; refused where it would leave symbols as they are in silence."""
    if function is np.nan_to_num:
        raise TracingError("np.nan_to_num looks at values; write `sdetools.select(condition, yes, no)`")
    return function._implementation(*given, **options)


COMPARISONS = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}


class TracedArray(np.ndarray):
    """An object array of symbols: NumPy would ask its comparisons and signs for truth values, which symbols do not have."""

    def __array_function__(self, function: Any, types: Any, given: Any, options: Any) -> Any:
        return _on_objects(function, given, options)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(i) if isinstance(i, TracedArray) else i for i in inputs]
        if "out" in options:
            options["out"] = tuple(np.asarray(o) if isinstance(o, TracedArray) else o for o in options["out"])
        if ufunc is np.sign and method == "__call__":
            found: Any = np.empty(plain[0].shape, dtype=object)
            for index, value in np.ndenumerate(plain[0]):
                found[index] = value.sign() if isinstance(value, Traced) else float(np.sign(value))
        else:
            if ufunc in COMPARISONS:
                options["dtype"] = object
            found = getattr(ufunc, method)(*plain, **options)
        return found.view(TracedArray) if isinstance(found, np.ndarray) and found.dtype == object else found


def symbols(tape: Tape, texts: Sequence[str]) -> TracedArray:
    """An array of loads."""
    out = np.empty(len(texts), dtype=object)
    for i, text in enumerate(texts):
        out[i] = tape.load(text)
    return out.view(TracedArray)


def _is(value: Any, number: float) -> bool:
    return isinstance(value, numbers.Real) and float(value) == number


def _text(operand: Any) -> str:
    if isinstance(operand, Traced):
        return operand.name
    if not isinstance(operand, numbers.Real):
        raise TracingError(f"cannot trace a value of type {type(operand).__name__}")
    value = float(operand)
    if value != value:
        return "np.nan"
    if value in (float("inf"), float("-inf")):
        return "np.inf" if value > 0 else "(-np.inf)"
    return repr(value) if value >= 0 else f"({value!r})"
