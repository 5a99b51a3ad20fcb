"""Formulas as data: a graph becomes, element by element, instructions for the interpreter instead of code to compile.

An element of a value is an element of another one (a view), or an operation on a few elements; equal ones are shared. A lane is the place of
a path in a block, a row one number for each lane. What is the same for all lanes is a separate program of single numbers. Elements are
computed in the postorder of a depth-first walk, the deeper operand first, and stay in rows of working memory (scratch) until their last use:
a chain of any length takes two rows.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from sdetools.graph.value import Value, order

FORMULAS = {
    "copy": "a", "add": "a + b", "subtract": "a - b", "multiply": "a * b", "divide": "a / b", "multiply_add": "a * b + c",
    "negative": "-a", "absolute": "math.fabs(a)", "sqrt": "math.sqrt(a)", "floor": "lane.vfloor(a)", "sign": "lane.vsign(a)",
    "maximum": "lane.vmaximum(a, b)", "minimum": "lane.vminimum(a, b)",
    "less": "one if a < b else zero", "less_equal": "one if a <= b else zero",
    "equal": "one if a == b else zero", "not_equal": "one if a != b else zero",
    "logical_and": "one if (a != zero) & (b != zero) else zero", "logical_or": "one if (a != zero) | (b != zero) else zero",
    "logical_not": "one if a == zero else zero", "where": "b if a != zero else c",
}  # fmt: skip
"""Operations on rows a, b and c."""
NUMBER_FIRST = ("copy", "subtract", "divide", "less", "less_equal")
NUMBER_SECOND = (*NUMBER_FIRST[1:], "add", "multiply", "multiply_add", "maximum", "minimum", "equal", "not_equal")
"""Operations that also take one number for all lanes in the place of a row: `s_subtract` is a number minus a row."""
CODES = (*FORMULAS, *(f"s_{name}" for name in NUMBER_FIRST), *(f"{name}_s" for name in NUMBER_SECOND))
CODE = {name: n for n, name in enumerate(CODES)}
FUNCTIONS, BASE = 64, 40
"""Code of the first function of rows; number of low bits of a location, below its base."""
ROWS, NUMBERS, DRAWS = 0, 1, 2
"""Bases of locations: rows of scratch and state, constants, draws. Bases of draws that shift from step to step follow."""
SWAPPED = {"greater": "less", "greater_equal": "less_equal"}
SYMMETRIC = ("add", "multiply", "multiply_add", "equal", "not_equal")
KNOWN = ("map", "view", "join", "reduce", "contract", "const")


@dataclass
class ElementList:
    """Elements of values, each a number for each lane (path), in the order of computation; element number e is described by entry e of the lists.

    A row is an array with one number for each lane. A location in memory is (base, first, alike). The base is `ROWS` (0: state and working memory),
    `NUMBERS` (1: constants), `DRAWS` (2), or 3, 4, ... for draws that shift from step to step. The location is row `first` from the base on, or, if
    `alike`, the single number `first` from there, which all lanes share. A constant has its bits in the place of `first`.

    Attributes:
        names: Name of the operation, a key of `FORMULAS` or of `graph.rows.NAMES`; None for an element that exists already.
        args: Numbers of the operands in the lists, or the location of an existing element.
        alike: Whether the element is the same for all lanes.
        known: A dictionary from (name, args) of each element to its number e.
        depth: Length of the longest chain of operations that leads to the element; 0 for one that exists already.
    """

    names: list[str | None] = field(default_factory=list)
    args: list[Any] = field(default_factory=list)
    alike: list[bool] = field(default_factory=list)
    known: dict[Any, int] = field(default_factory=dict)
    depth: list[int] = field(default_factory=list)

    @property
    def deepest(self) -> int:
        """Length of the longest chain of operations in the list, each of which takes the result of the one before; 0 without operations."""
        return max(self.depth, default=0)

    def add(self, name: str | None, args: Any, alike: bool) -> int:
        """Return the number of an element, its place in the lists; it is appended unless there is one with the same `name` and `args`.

        Args:
            name: Name of its operation, such as "add"; None for an element that exists in memory.
            args: Numbers of the operands in the lists, a tuple, or for an element in memory its location (base, first, alike), see `ElementList`.
            alike: Whether it is the same for all lanes (paths).
        """
        key = (name, args)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = len(self.names)
            self.names.append(name)
            self.args.append(args)
            self.alike.append(alike)
            self.depth.append(0 if name is None else 1 + max(self.depth[a] for a in args))
        return found

    def number(self, x: float) -> int:
        """Return the place in the lists of the constant `x`, which is appended unless there is one with the same bits (0.0 is not -0.0)."""
        return self.add(None, (NUMBERS, np.float64(x).tobytes(), True), True)

    def operation(self, name: str, *args: int) -> int:
        """Return the place in the lists of the operation `name`, such as "add", on the elements numbered `args`; it is appended if new.

        a > b is stored as b < a, and likewise a >= b.
        """
        if name in SWAPPED:
            name, args = SWAPPED[name], args[::-1]
        return self.add(name, args, all(self.alike[a] for a in args))


class Walk:
    """Translates elements of values, single numbers of a path, to operations on numbers: a depth-first walk through the graph that fills a list.

    Args:
        made: The list of operations to fill.
        leaf: For a value that exists in memory, `leaf(value)` returns a function that maps an element's flat position (in C order) to its number in
            `made`; for a value that must be computed it returns None.
        values: The values whose elements `element` will be asked for; nothing is translated before.
    """

    def __init__(self, made: ElementList, leaf: Callable[[Value], Callable[[int], int] | None], values: Sequence[Value]) -> None:
        self.made, self.leaf = made, cache(leaf)
        self.found: dict[tuple[Any, int], int] = {}
        self.depth: dict[Any, int] = {}
        self.tables: dict[Any, list[Any]] = {}
        for n in order(values):
            self.depth[n.key] = 1 + max((self.depth[a.key] for a in n.args), default=0)

    def element(self, v: Value, flat: int) -> int:
        """Return the number, in the list `made`, of element `flat` (its position in C order) of the value `v`.

        The element and all that it depends on are appended to `made` if they are new.
        """
        todo, found = [((v.key, flat), self._made(v, flat))], None
        while todo:
            own, making = todo[-1]
            try:
                node, at = making.send(found)
            except StopIteration as end:
                found = self.found[own] = end.value
                todo.pop()
            else:
                found = self.found.get((node.key, at))
                if found is None:
                    todo.append(((node.key, at), self._made(node, at)))
        assert found is not None
        return found

    def _made(self, v: Value, at: int) -> Generator[tuple[Value, int], Any, int]:
        """Return the number of an element; the elements that it waits for are yielded as (value, position), and their numbers sent back.

        The terms of a sum are added one after another, so that none waits.
        """
        made, leaf = self.made, self.leaf(v)
        if leaf is not None:
            return leaf(at)
        if v.op == "const":
            return made.number(float(v.extra.flat[at]))
        if v.op == "map":
            args = [-1] * len(v.args)
            for _, n in sorted([(self.depth[a.key], n) for n, a in enumerate(v.args)], reverse=True):
                a = v.args[n]
                args[n] = yield a, at if a.shape == v.shape else 0 if a.size == 1 else self._table(a, v)[at]
            return made.operation(v.name, *args)
        if v.op in ("reduce", "contract"):
            x = v.args[-1]
            if v.op == "reduce":
                name, places, factors = v.name, self._table(x, v)[at], ()
            else:
                row, column = divmod(at, x.size // x.shape[0])
                used = np.flatnonzero(v.args[0].extra[row])
                name, places, factors = "add", used * (x.size // x.shape[0]) + column, v.args[0].extra[row, used].tolist()
            total = None
            for n, place in enumerate(places):
                term = yield x, int(place)
                term = made.operation("multiply", term, made.number(factors[n])) if factors else term
                total = term if total is None else made.operation(name, total, term)
            return total if total is not None else made.number(1.0 if name == "multiply" else 0.0)
        if v.op == "join":
            ends = self._table(v, v)
            part = bisect(ends, at)
            return (yield v.args[part], at - (ends[part - 1] if part else 0))
        place = self._table(v.args[0], v)[at]
        return made.number(0.0) if place < 0 else (yield v.args[0], place)

    def _table(self, a: Value, v: Value) -> list[Any]:
        """Return which positions of an argument the elements of a value read; for a join, where its parts end."""
        key = (a.shape, v.shape) if v.op == "map" else v.key
        if key not in self.tables:
            numbers = np.arange(a.size).reshape(a.shape)
            if v.op == "map":
                self.tables[key] = np.broadcast_to(numbers, v.shape).ravel().tolist()
            elif v.op == "view":
                self.tables[key] = v.extra.places(v.shape).ravel().tolist()
            elif v.op == "join":
                self.tables[key] = list(accumulate(part.size for part in v.args))
            else:
                kept = [n for n in range(a.ndim) if n not in v.extra]
                self.tables[key] = numbers.transpose(*kept, *v.extra).reshape(v.size, -1).tolist()
        return self.tables[key]


def fused(made: ElementList, wanted: set[int]) -> None:
    """Merge, in place, each product a b that only a sum a b + c reads into that sum, as "multiply_add" with the operands (a, b, c).

    It is rounded once where the processor can. If the product or c is the same for all lanes (paths), the sum is left as it is.

    Args:
        made: The elements, which are changed; a merged product keeps its entry, with the name "gone" and no operands.
        wanted: Numbers of the elements whose results are stored; they are not merged.
    """
    uses = [0] * len(made.names)
    for name, args in zip(made.names, made.args):
        if name is not None:
            for a in args:
                uses[a] += 1
    for e, name in enumerate(made.names):
        if name != "add" or made.alike[e]:
            continue
        for product, other in (made.args[e], made.args[e][::-1]):
            if (
                made.names[product] == "multiply"
                and uses[product] == 1
                and product not in wanted
                and not made.alike[product]
                and not made.alike[other]
            ):
                made.names[e], made.args[e] = "multiply_add", (*made.args[product], other)
                made.names[product], made.args[product] = "gone", ()
                break


class RowProgram:
    """The instructions that compute elements and store them in rows, arrays with one number for each lane (path).

    An instruction is (operation, location of the result, list of the locations of the operands); the operation is a text of `CODES` or of
    `graph.rows.NAMES`. A location is a tuple (base, first, alike) that `ElementList` explains: row `first` of a memory, or one number for all lanes.

    Args:
        made: The elements; they are changed, since products are merged into sums (`fused`).
        stores: What to store, as pairs (row of the result, number of the element in `made`).
        free: The first row of working memory.
        numbers: How many single numbers, the same for all lanes, exist before the program runs.

    Attributes:
        lanes: Instructions on rows, in order.
        single: Instructions on single numbers, which run before.
        rows: How many rows of working memory are used, from `free` on.
        numbers: How many single numbers there are, those that `single` computes included.
        constants: The constants, a float64 array `(count,)`; `[0.0]` without constants.
    """

    def __init__(self, made: ElementList, stores: Sequence[tuple[int, int]], free: int, numbers: int) -> None:
        fused(made, {e for _, e in stores})
        self.free, self.rows, self.numbers = free, 0, numbers
        self.lanes: list[tuple[Any, ...]] = []
        self.single: list[tuple[Any, ...]] = []
        self.empty: list[int] = []
        self.place: dict[int, tuple[int, int, bool]] = {}
        last: dict[int, int] = {}
        for e, (name, args) in enumerate(zip(made.names, made.args)):
            last |= dict.fromkeys(args, e) if name is not None else {}
        last |= dict.fromkeys((e for _, e in stores), len(made.names))
        read = {made.args[e][1]: end for e, end in last.items() if made.names[e] is None and made.args[e][::2] == (ROWS, False)}
        direct: dict[int, int] = {}
        for row, e in stores:  # what is not read any more is overwritten at once
            if made.names[e] is not None and not made.alike[e] and e not in direct and read.get(row, -1) < e:
                direct[e] = row
        constants: dict[bytes, int] = {}
        for e, (name, args) in enumerate(zip(made.names, made.args)):
            if name is None:
                base, first, alike = args
                self.place[e] = base, constants.setdefault(first, len(constants)) if base == NUMBERS else first, alike
            elif made.alike[e]:
                self.place[e] = ROWS, self.numbers, True
                self.numbers += 1
                self.single.append((name, self.place[e], [self.place[a] for a in args]))
            elif name != "gone":
                self._operation(e, name, args, direct.get(e))
                for a in set(args):
                    if last[a] == e and a not in direct and made.names[a] is not None and not made.alike[a]:
                        self.empty.append(self.place[a][1])
        self.constants = np.array([np.frombuffer(bits)[0] for bits in constants] or [0.0])
        copies, targets = [], {row for row, _ in stores}
        for row, e in stores:
            if direct.get(e) == row:
                continue
            place = self.place[e]
            if place[0] == ROWS and not place[2] and place[1] in targets:  # it may be overwritten before it is copied
                place = self._copied(place)
            copies.append(("s_copy" if place[2] else "copy", (ROWS, row, False), [place]))
        self.lanes += copies

    def _row(self) -> tuple[int, int, bool]:
        """Return a free scratch row."""
        self.rows += not self.empty
        return ROWS, self.empty.pop() if self.empty else self.free + self.rows - 1, False

    def _copied(self, place: tuple[int, int, bool]) -> tuple[int, int, bool]:
        """Return a scratch row to which an added instruction copies what lies at a location; a single number is repeated."""
        row = self._row()
        self.lanes.append(("s_copy" if place[2] else "copy", row, [place]))
        return row

    def _operation(self, e: int, name: str, args: Sequence[int], row: int | None) -> None:
        places, filled = [self.place[a] for a in args], []
        code = coded(name, places)
        if code not in CODE and name in SYMMETRIC:
            places[:2] = places[1::-1]
            code = coded(name, places)
        if code not in CODE:
            numbers = [i for i, place in enumerate(places) if place[2]]
            for i in numbers:
                places[i] = self._copied(places[i])
            filled, code = [places[i][1] for i in numbers], name
        self.place[e] = self._row() if row is None else (ROWS, row, False)
        self.lanes.append((code, self.place[e], places))
        self.empty += filled


def coded(name: str, places: Sequence[tuple[int, int, bool]]) -> str:
    """Return the interpreter's name of the operation `name` on operands at `places`, locations (base, first, alike) in memory.

    An operand is a row, with one number for each path, or, if `alike`, a single number for all. For "subtract" the name is "subtract" if all operands
    are rows, "s_subtract" if only the first is a single number, "subtract_s" if only the second is, and "" in all other cases. The interpreter has
    the operation only if the name is in `CODES`, which is not checked. `ElementList` explains locations.
    """
    numbers = [i for i, place in enumerate(places) if place[2]]
    return {(): name, (0,): f"s_{name}", (1,): f"{name}_s"}.get(tuple(numbers), "")


def encoded(instructions: Sequence[tuple[Any, ...]], address: Callable[[Any], int], function: Callable[[str], int]) -> np.ndarray:
    """Return instructions encoded as an int64 array `(count, 5)`: operation, result, and three operands (0 for those that it lacks).

    An operation is its place in `CODES`, or `FUNCTIONS` = 64 + the number of a function of rows; a location is base << 40 | offset in bytes.

    Args:
        instructions: Tuples (name of the operation, location of the result, list of the locations of the operands), as in `RowProgram.lanes`.
        address: Maps a location, the tuple (base, first, alike) of `ElementList`, to its offset in bytes from its base.
        function: Maps the name of a function of rows (`graph.rows`), such as "exp", to its number in the table of their addresses.
    """

    def places(all_of_it: Sequence[Any]) -> Iterator[int]:
        for place in all_of_it:
            yield place[0] << BASE | address(place)

    rows = []
    for name, target, operands in instructions:
        code = CODE[name] if name in CODE else FUNCTIONS + function(name)
        rows.append([code, *places([target, *operands]), *[0] * (3 - len(operands))])
    return np.array(rows, np.int64).reshape(-1, 5)
