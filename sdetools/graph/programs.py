"""Formulas as data: a graph, number by number, becomes instructions for the function of `interpreter.py`, in place of a text to compile.

An element of a value is an element of another one (a view), or an operation of a few elements; equal ones are one. What is the same for
all lanes is a program of its own, of single numbers. Elements are made in the order in which a depth-first walk ends with them, the deeper
operand first, and lie in scratch rows until their last reader: a chain of any length takes two rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from sdetools.graph.value import Value, order

CODES = (
    *("copy", "fill", "add", "add_s", "subtract", "subtract_s", "s_subtract", "multiply", "multiply_s", "divide", "divide_s"),
    *("s_divide", "multiply_add", "multiply_add_s", "negative", "absolute", "sqrt", "floor", "sign", "maximum", "maximum_s"),
    *("minimum", "minimum_s", "less", "less_s", "s_less", "less_equal", "less_equal_s", "s_less_equal", "equal", "equal_s"),
    *("not_equal", "not_equal_s", "logical_and", "logical_or", "logical_not", "where"),
)
"""Operations on rows; in the place of an operand with an `s` stands one number of all lanes."""
CODE = {name: n for n, name in enumerate(CODES)}
FUNCTIONS, BASE = 64, 40
"""The first number of a function of rows; the bits of a place below its base."""
ROWS, NUMBERS, DRAWS = 0, 1, 2
"""Bases: rows of scratch and state, numbers that are known, draws. Those of draws that move from step to step come after."""
SWAPPED = {"greater": "less", "greater_equal": "less_equal"}
SYMMETRIC = ("add", "multiply", "equal", "not_equal")
KNOWN = ("map", "view", "join", "reduce", "contract", "const")


@dataclass
class Elements:
    """Elements in the order of their making: `name` and arguments of an operation, or None and the place of what is there already.

    A place is (base, first, number): row `first` from the base on, or number `first` of all lanes. `alike[e]`: the same for all lanes.
    """

    names: list[str | None] = field(default_factory=list)
    args: list[Any] = field(default_factory=list)
    alike: list[bool] = field(default_factory=list)
    known: dict[Any, int] = field(default_factory=dict)
    depth: list[int] = field(default_factory=list)

    @property
    def deepest(self) -> int:
        return max(self.depth, default=0)

    def add(self, name: str | None, args: Any, alike: bool) -> int:
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
        """A known number, by its bits."""
        return self.add(None, (NUMBERS, np.float64(x).tobytes(), True), True)

    def operation(self, name: str, *args: int) -> int:
        if name in SWAPPED:
            name, args = SWAPPED[name], args[::-1]
        return self.add(name, args, all(self.alike[a] for a in args))


class Walk:
    """Elements of values; `leaf(v)` gives for a value that exists already the element of each of its numbers, or None."""

    def __init__(self, made: Elements, leaf: Callable[[Value], Callable[[int], int] | None]) -> None:
        self.made, self.leaf = made, leaf
        self.found: dict[Any, dict[int, int]] = {}
        self.leaves: dict[Any, Callable[[int], int] | None] = {}
        self.depth: dict[Any, int] = {}
        self.tables: dict[Any, Any] = {}
        self.partial: dict[Any, tuple[int, int]] = {}

    def measure(self, values: Sequence[Value]) -> None:
        for n in order(values):
            self.depth[n.key] = 1 + max((self.depth[a.key] for a in n.args), default=0)

    def element(self, v: Value, flat: int) -> int:
        """The element of number `flat` of a value, after all that it needs."""
        todo = [(v, flat)]
        while todo:
            node, at = todo[-1]
            own = self.found.setdefault(node.key, {})
            if at in own:
                todo.pop()
                continue
            found = self._one(node, at)
            if isinstance(found, int):
                own[at] = found
                todo.pop()
            else:
                todo += found
        return self.found[v.key][flat]

    def _one(self, v: Value, at: int) -> int | list[tuple[Value, int]]:
        """An element, or what it waits for."""
        if v.key not in self.leaves:
            self.leaves[v.key] = self.leaf(v)
        leaf = self.leaves[v.key]
        if leaf is not None:
            return leaf(at)
        if v.op == "const":
            return self.made.number(float(v.extra.flat[at]))
        if v.op == "reduce":
            return self._sum(v, at, [(v.args[0], k) for k in self._table(v)[at]], [])
        if v.op == "contract":
            a, x = v.args
            columns = x.size // x.shape[0]
            row, column = divmod(at, columns)
            used = np.flatnonzero(a.extra[row]).tolist()
            return self._sum(v, at, [(x, k * columns + column) for k in used], a.extra[row, used].tolist())
        needed = self._needed(v, at)
        if needed is None:
            return self.made.number(0.0)
        found = [self.found.get(a.key, {}).get(k) for a, k in needed]
        if None in found:
            return sorted((n for n, f in zip(needed, found) if f is None), key=lambda n: self.depth.get(n[0].key, 0))
        return self.made.operation(v.name, *found) if v.op == "map" else found[0]  # type: ignore[arg-type, return-value]

    def _needed(self, v: Value, at: int) -> list[tuple[Value, int]] | None:
        """What an element of a map, a view or a join is made of; None for a zero."""
        if v.op == "map":
            return [(a, at if a.shape == v.shape else 0 if a.size == 1 else self._spread(a, v)[at]) for a in v.args]
        if v.op == "view":
            place = self._table(v)[at]
            return None if place < 0 else [(v.args[0], place)]
        ends = self._table(v)
        part = int(np.searchsorted(ends, at, side="right"))
        return [(v.args[part], at - (int(ends[part - 1]) if part else 0))]

    def _sum(self, v: Value, at: int, terms: list[tuple[Value, int]], factors: list[float]) -> Any:
        """A sum (product, maximum) from its first term on; one term after another is asked for, so that none waits."""
        done, total = self.partial.get((v.key, at), (0, -1))
        while done < len(terms):
            a, k = terms[done]
            term = self.found.get(a.key, {}).get(k)
            if term is None:
                self.partial[v.key, at] = done, total
                return [(a, k)]
            if factors:
                term = self.made.operation("multiply", term, self.made.number(factors[done]))
            total = term if total < 0 else self.made.operation(v.name if v.op == "reduce" else "add", total, term)
            done += 1
        return total if total >= 0 else self.made.number(1.0 if v.name == "multiply" else 0.0)

    def _spread(self, a: Value, v: Value) -> list[int]:
        key = (a.shape, v.shape)
        if key not in self.tables:
            self.tables[key] = np.broadcast_to(np.arange(a.size).reshape(a.shape), v.shape).ravel().tolist()
        return self.tables[key]  # type: ignore[no-any-return]

    def _table(self, v: Value) -> Any:
        if v.key not in self.tables:
            if v.op == "view":
                self.tables[v.key] = v.extra.places(v.shape).ravel().tolist()
            elif v.op == "join":
                self.tables[v.key] = list(accumulate(a.size for a in v.args))
            else:
                x = v.args[0]
                kept = [a for a in range(x.ndim) if a not in v.extra]
                places = np.arange(x.size).reshape(x.shape).transpose(*kept, *v.extra)
                self.tables[v.key] = places.reshape(v.size, x.size // v.size).tolist()
        return self.tables[v.key]


@dataclass
class Program:
    """Instructions (operation, result, three operands) of all lanes and of single numbers; places are (base, first, number).

    `functions` are the names of functions of rows, of number FUNCTIONS on; `rows` and `numbers` are those of scratch.
    """

    lanes: list[tuple[Any, ...]]
    single: list[tuple[Any, ...]]
    rows: int
    numbers: int
    constants: np.ndarray


def fused(made: Elements, wanted: set[int]) -> None:
    """Products that one sum alone reads become a part of it: a b + c is one operation, rounded once."""
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


def program(made: Elements, stores: Sequence[tuple[int, int]], free: int, numbers: int) -> Program:
    """The instructions that make elements and put them into rows, `(row, element)`; scratch begins at row `free` and at number `numbers`."""
    fused(made, {e for _, e in stores})
    return _Lowering(made, stores, free, numbers).made_program()


class _Lowering:
    def __init__(self, made: Elements, stores: Sequence[tuple[int, int]], free: int, numbers: int) -> None:
        self.made, self.stores, self.free, self.rows, self.numbers = made, stores, free, 0, numbers
        self.empty: list[int] = []
        self.place: list[Any] = [None] * len(made.names)
        self.constants: dict[bytes, int] = {}
        self.lanes: list[tuple[Any, ...]] = []
        self.single: list[tuple[Any, ...]] = []
        self.last = [-1] * len(made.names)
        """Of each element the last one that reads it."""
        self.read: dict[int, int] = {}
        """Of each row of the state the last element that reads it."""
        for e, (name, args) in enumerate(zip(made.names, made.args)):
            for a in args if name is not None else ():
                self.last[a] = e
                if made.names[a] is None and made.args[a][0] == ROWS and not made.alike[a]:
                    self.read[made.args[a][1]] = e
        end = len(made.names)
        for _, e in stores:
            self.last[e] = end
            if made.names[e] is None and made.args[e][0] == ROWS and not made.alike[e]:
                self.read[made.args[e][1]] = end

    def take(self) -> int:
        if self.empty:
            return self.empty.pop()
        self.rows += 1
        return self.free + self.rows - 1

    def made_program(self) -> Program:
        made, targets = self.made, {row for row, _ in self.stores}
        direct: dict[int, int] = {}
        for row, e in self.stores:  # what nobody reads any more is overwritten at once
            if made.names[e] is not None and not made.alike[e] and e not in direct and self.read.get(row, -1) < e:
                direct[e] = row
        held: dict[int, int] = {}
        for e, (name, args) in enumerate(zip(made.names, made.args)):
            if name is None:
                base, first, _ = args
                if base == NUMBERS:
                    first = self.constants.setdefault(first, len(self.constants))
                self.place[e] = (base, first, made.alike[e])
            elif name != "gone":
                self._operation(e, name, args, direct.get(e), held)
        copies = []
        for row, e in self.stores:
            if direct.get(e) == row:
                continue
            place = self.place[e]
            if place[0] == ROWS and not place[2] and place[1] in targets:  # it may be overwritten before it is copied
                kept = (ROWS, self.take(), False)
                self._write("copy", kept, [place])
                place = kept
            copies.append(("fill" if place[2] else "copy", (ROWS, row, False), [place]))
        for copy in copies:
            self._write(*copy)
        constants = np.array([np.frombuffer(bits)[0] for bits in self.constants] or [0.0])
        return Program(self.lanes, self.single, self.rows, self.numbers, constants)

    def _operation(self, e: int, name: str, args: tuple[int, ...], row: int | None, held: dict[int, int]) -> None:
        alike = self.made.alike[e]
        if alike:
            self.place[e] = (ROWS, self.numbers, True)
            self.numbers += 1
            self.single.append((name, self.place[e], [self.place[a] for a in args]))
            return
        places, filled = [self.place[a] for a in args], []
        numbers = [p[2] for p in places]
        if any(numbers):
            variant = self._variant(name, numbers)
            if variant is None and name in (*SYMMETRIC, "multiply_add"):
                places[:2], numbers[:2] = places[1::-1], numbers[1::-1]
                variant = self._variant(name, numbers)
            if variant is None:
                for i, p in enumerate(places):
                    if p[2]:
                        places[i] = (ROWS, self.take(), False)
                        filled.append(places[i][1])
                        self._write("fill", places[i], [p])
            name = variant or name
        own = (ROWS, self.take() if row is None else row, False)
        if row is None:
            held[e] = own[1]
        self.place[e] = own
        self._write(name, own, places)
        self.empty += filled
        for a in set(args):
            if self.last[a] == e and a in held:
                self.empty.append(held.pop(a))

    @staticmethod
    def _variant(name: str, numbers: list[bool]) -> str | None:
        """The operation with numbers of all lanes in the places of these operands."""
        made = {(False, True): f"{name}_s", (True, False): f"s_{name}", (False, True, False): f"{name}_s"}.get(tuple(numbers))
        return made if made in CODE else None

    def _write(self, name: str, target: Any, places: Any) -> None:
        self.lanes.append((name, target, places))


def encoded(instructions: Sequence[tuple[Any, ...]], address: Callable[[Any], int], function: Callable[[str], int]) -> np.ndarray:
    """Instructions as whole numbers `(count, 5)`: `address` gives the bytes from its base to a place, `function` the number of a function of rows."""

    def places(all_of_it: Sequence[Any]) -> Iterator[int]:
        for place in all_of_it:
            yield place[0] << BASE | address(place)

    rows = []
    for name, target, operands in instructions:
        code = CODE[name] if name in CODE else FUNCTIONS + function(name)
        rows.append([code, *places([target, *operands]), *[0] * (3 - len(operands))])
    return np.array(rows, np.int64).reshape(-1, 5)
