"""Formulas too long for straight-line code, as data for an interpreter.

LLVM takes milliseconds for each line, and a formula has a line per operation. Beyond a budget the operations become data for a precompiled
function (`programs.py`, `interpreter.py`), at two to four times the cost per step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from sdetools.graph import programs
from sdetools.graph.elements import PRICE, Elements, indent
from sdetools.graph.programs import DRAWS, KNOWN, ROWS
from sdetools.graph.value import Value

BUDGET = 300
"""Operations of straight-line code in a kernel; an inlined function counts its lines."""
DEEPEST = 60
"""Longest chain of dependent operations in straight-line code: the generator recurses for each."""


LINES = 500
"""Lines of loops from which programs are faster to compile."""


class _NoProgram(Exception):
    """Raised for a value that no program computes."""


class LongFormulas(Elements):
    """Writes the code of values like `Elements`, with its arguments, but long formulas as programs: data for an interpreter, not lines to compile.

    A subclass sets the attributes `outputs`, `nodes` and `lines`, and implements `_call`, which returns the lines that call a compiled function.

    Attributes:
        BUDGET: Largest number of operations of straight-line code (without loops over components) in a kernel, the compiled loop over steps;
            infinite for CUDA, which has no interpreter.
        outputs: What to compute, as pairs (first row of the result in the array S, value). A row has one number for each path.
        nodes: The values that the outputs depend on, arguments first.
        lines: The code.
    """

    BUDGET: float = BUDGET
    outputs: list[tuple[int, Value]]
    nodes: list[Value]
    lines: list[str]

    def straight(self, stores: Sequence[tuple[int, Value]]) -> list[str]:
        """Return the lines of code that compute `stores`, pairs (first row of the result in the array S, value).

        They run a program, data for the interpreter, if `as_program` makes one, and else are straight-line code.
        """
        lines = self.as_program(stores)
        return super().straight(stores) if lines is None else lines

    def as_program(self, stores: Sequence[tuple[int, Value]], always: bool = False) -> list[str] | None:
        """Return lines of code that run a program, data for the interpreter; None if there should be no program.

        That is the case if the operations stay within the budget, which are then counted in `tables.straight`, if `BUDGET` is infinite, or if a value
        needs an operation that no program has, such as a compiled function.

        Args:
            stores: What to compute, as pairs (first row of the result in the array S, value).
            always: Whether to make a program also within the budget.
        """
        if math.inf == self.BUDGET:
            return None
        made = programs.ElementList()
        leaves = _Leaves(self, made)
        walk = programs.Walk(made, leaves, [v for _, v in stores])
        try:
            wanted = [(row + at, walk.element(v, at)) for row, v in stores for at in range(v.size)]
        except _NoProgram:
            return None
        cost = len(wanted) + sum(PRICE.get(name, 1) for name in made.names if name is not None)
        if not always and self.tables.straight + cost <= self.BUDGET and made.deepest <= DEEPEST:
            self.tables.straight += cost
            return None
        return self._run(programs.RowProgram(made, wanted, self.rows, leaves.count), leaves)

    def _call(self, n: Value) -> list[str]:
        """Return lines that call a compiled function."""
        raise NotImplementedError

    def as_programs(self, stores: Sequence[tuple[int, Value]], nodes: Sequence[Value]) -> list[str] | None:
        """Return lines of code that compute values by programs (data for the interpreter) and by calls of compiled functions.

        A program computes the arguments of each call, and a last one the rest. The result is None if a value needs an operation that no program has.

        Args:
            stores: What to compute, as pairs (first row of the result in the array S, value).
            nodes: The values that those of `stores` depend on, arguments first; those of kind "call" are the compiled functions.
        """
        lines: list[str] = []
        for n in (n for n in nodes if n.op == "call"):
            given = {a.key: a for a in n.args if (a.ndim or not a.uniform) and a.key not in self.at and a.key not in self.draws}
            wanted = [(self.take(a.size), a) for a in given.values()]
            made = self.as_program(wanted, always=True) if wanted else []
            if made is None:
                return None
            self.at |= {a.key: row for row, a in wanted} | {n.key: self.take(n.size + n.extra.scratch)}
            lines += [*made, *self._call(n)]
        made = self.as_program(stores, always=True)
        return None if made is None else [*lines, *made]

    def shorter(self, rows: dict[Any, int], free: int) -> list[str]:
        """Return the lines that compute `self.outputs` by programs (data for the interpreter); `self.lines`, loops, if programs cannot compute them.

        The code is written anew, as at the beginning. If programs cannot compute the outputs, all attributes are as before.

        Args:
            rows: The first row in the array S of each input, by `Value.key`.
            free: The first row of working memory.
        """
        before = dict(vars(self))
        self.at, self.rows = rows, free
        self.making, self.in_place, self.from_rows, self.tiled = set(), set(), set(), set()
        lines = self.as_programs(self.outputs, self.nodes)
        if lines is None:
            vars(self).update(before)
        return self.lines if lines is None else lines

    def _run(self, program: programs.RowProgram, leaves: _Leaves) -> list[str]:
        """Return the lines that fill the tables of a program and call it."""
        self.take(program.rows)
        self.from_rows |= leaves.draws
        self.tiled -= leaves.draws
        size, bases = self.tables.real.size, 3 + len(leaves.shifts)
        region = self.take(-(-(8 * bases + size * program.numbers) // (size * self.L))) * self.L * size
        numbers = region + 8 * bases

        def address(place: tuple[int, int, bool]) -> int:
            base, first, alike = place
            return (numbers if base == ROWS and alike else 0) + first * size * (1 if alike else self.L)

        def call(instructions: Sequence[Any], n: int) -> list[str]:
            if not instructions:
                return []
            code = self.tables.array(programs.encoded(instructions, address, self.tables.number_of_function))
            count = self.tables.size(len(instructions))
            run = self.tables.function("program")
            return [f"lanes.call({run}, {code}at, {count}, base + {region}, {n}, Fat, 0)"]

        at = [
            "base",
            f"{self.tables.array(program.constants)}at",
            "Zbase" if leaves.draws else "base",
            *(f"Zbase + {size} * {shift}" for shift in leaves.shifts),
        ]
        lines = [f"bases = lanes.word_pointer(base + {region})", *(f"bases[{n}] = lanes.u64({a})" for n, a in enumerate(at))]
        for v, first in leaves.numbers:
            name, first = self.names[v.key], numbers // size + first
            if v.ndim:
                lines += [f"for i in range({self.tables.size(v.size)}):", *indent([f"S[{first} + i] = {name}[i]"])]
            else:
                lines.append(f"S[{first}] = {name}")
        return [*lines, *call(program.single, 1), *call(program.lanes, self.L)]


class _Leaves:
    """The elements that exist before a program runs, and what it needs for them: draws and numbers passed at run time."""

    def __init__(self, writer: LongFormulas, made: programs.ElementList) -> None:
        self.writer, self.made = writer, made
        self.draws: set[Any] = set()
        self.shifts: list[str] = []
        self.numbers: list[tuple[Value, int]] = []
        self.count = 0

    def __call__(self, v: Value) -> Callable[[int], int] | None:
        writer = self.writer
        if v.key in writer.names:
            first, self.count = self.count, self.count + v.size
            self.numbers.append((v, first))
            return self._at(ROWS, first, True)
        if v.key in writer.draws:
            draw = writer.draws[v.key]
            if draw.shift and draw.shift not in self.shifts:
                self.shifts.append(draw.shift)
            self.draws.add(v.key)
            return self._at(DRAWS + 1 + self.shifts.index(draw.shift) if draw.shift else DRAWS, draw.row, False)
        if v.key in writer.at and v.key not in writer.making:
            return self._at(ROWS, writer.at[v.key], False)
        if v.op not in KNOWN:
            raise _NoProgram
        return None

    def _at(self, base: int, first: int, alike: bool) -> Callable[[int], int]:
        return lambda flat: self.made.add(None, (base, first + flat, alike), alike)
