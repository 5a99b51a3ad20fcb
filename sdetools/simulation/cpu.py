"""The compiled CPU backend: a program's graphs as loops over lanes in one kernel, compiled by Numba.

A kernel advances a block of `lanes` consecutive paths (its lanes) at a time, as many as keep the state in the cache. In each step it draws
and runs the loops of the step; at recorded steps also those of the record. All rows are in one flat array, row r at `S[r * lanes]`. The text
contains structure only; every number that may change is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sdetools.graph.elements import Draw, Tables, indent
from sdetools.graph.errors import TooLong
from sdetools.graph.loops import SMALL, Loops
from sdetools.graph.reals import DOUBLE, Real
from sdetools.graph.tracing import NotTraceable
from sdetools.graph.value import Value, order
from sdetools.noise.base import Normal, Sign
from sdetools.simulation.cpu_template import TEMPLATE
from sdetools.simulation.draws import DrawPlan, Segment
from sdetools.simulation.launch import ARRAYS, NUMBERS
from sdetools.simulation.program import Program
from sdetools.simulation.records import LEAF
from sdetools.simulation.step_graphs import Functions

NARROWEST, GEMM = 32, 128
"""The least number of lanes of a block, without and with products of large matrices, which are efficient on wide blocks."""
CACHE, GEMM_CACHE = 400_000, 8_000_000
"""The largest size of a block's rows in bytes, without and with such products."""
LONGEST = 1000
"""The largest number of lines of a kernel, for ten seconds of compilation; only operations on large arrays can exceed it."""


@dataclass(frozen=True)
class Kernel:
    """The source text of a kernel, the loop that advances blocks of paths through all steps, and what it needs at run time.

    Attributes:
        text: The source, a Python module with a function `run(address)`, whose argument is the address of a table (`launch.table`).
        stages: The compiled functions on arrays that it calls by name, such as a user's gradient: a dictionary from the name to the function.
        data: The arrays of data that its formulas read, such as samples.
        numbers: The constants of its formulas, an array `(n,)` of the kernel's floating-point type; a single 0 if there are none.
        sizes: The lengths of its loops, an int64 array `(n,)`; a single 0 if there are none.
        functions: The names of the library's own functions that it calls by address (`launch.address`), such as "normals".
        lanes: The number of paths of a block, which the kernel advances together: a power of two from 32 to 256.
        scratch: The number of elements of each temporary array, by name: "rows" for the state and intermediate values, "Z" for draws, "W" for
            random words, and "V" for one anchor (the state that a control variate keeps from an earlier step).
        gemm: Whether the kernel calls BLAS for products of large matrices.
    """

    text: str
    stages: dict[str, Callable[..., Any]]
    data: tuple[np.ndarray, ...]
    numbers: np.ndarray
    sizes: np.ndarray
    functions: tuple[str, ...]
    lanes: int
    scratch: dict[str, int]
    gemm: bool

    @property
    def foreign(self) -> dict[str, Callable[..., Any]]:
        """The compiled functions that belong to the user, by name; empty if there are none, and only then is machine code cached on disk."""
        return {name: f for name, f in self.stages.items() if not importable(f)}


def write(program: Program, real: Real = DOUBLE) -> Kernel:
    """Return the CPU kernel of a program as source text, with floating-point numbers of type `real` (by default float64); nothing is compiled yet.

    Raises:
        NotTraceable: A part of the program needs another backend.
        TooLong: A ValueError; the text has more than 1000 (`LONGEST`) lines, which would take too long to compile.
        ValueError: A function of the user gives another number of components than it must.
    """
    functions = Functions(program, real=real)
    nodes = order([v for s in functions.steps for _, v in s.outputs])
    for n in nodes:
        if n.op == "call" and n.extra.function is None and not n.extra.address:
            raise NotTraceable("a part that is a torch function" if n.extra.tensors else "a part that runs on whole arrays only")
    gemm = any(n.op == "contract" and max(n.args[0].shape) > SMALL for n in nodes)
    lanes, narrowest, cache = LEAF, GEMM if gemm else NARROWEST, GEMM_CACHE if gemm else CACHE
    writer = Writer(functions, lanes, real)
    while lanes > narrowest and writer.rows * lanes * real.size > cache:
        lanes //= 2
    if lanes < LEAF:
        writer = Writer(functions, lanes, real)
    if (lines := writer.text.count("\n")) > LONGEST:
        raise TooLong(
            f"the loops of a step must have at most {LONGEST:,} lines; these operations on large arrays have {lines:,}. Use backend='numpy', "
            "which does not compile, or fewer operations on longer arrays."
        )
    t = writer.tables
    numbers, sizes = np.array(t.numbers or [0.0], real.dtype), np.array(t.sizes or [0], np.int64)
    scratch = {"rows": writer.most, "Z": writer.Z, "W": writer.W, "V": 2 * program.members[0].dim}
    return Kernel(
        text=writer.text,
        stages=t.stages,
        data=tuple(map(real.array, t.data)),
        numbers=numbers,
        sizes=sizes,
        functions=tuple(t.functions),
        lanes=lanes,
        scratch={name: rows * lanes for name, rows in scratch.items()},
        gemm="product" in t.functions,
    )


class Writer:
    """The generator of a kernel's source text, which is its property `text`.

    The text refers to two arrays of a block of paths: S, whose rows are the state, the record and intermediate values, and Z, whose rows are draws.

    Args:
        functions: The graphs of the program, in traced values (symbolic expressions).
        lanes: The number of paths of a block; or, for a CUDA kernel, the name of a variable of the source.
        real: The floating-point type.
    """

    def __init__(self, functions: Functions, lanes: Any, real: Real) -> None:
        self.functions, self.program, self.L, self.real = functions, functions.program, lanes, real
        self.tables, self.rows, self.Z, self.W = Tables(real), 0, 0, 0
        self.at: dict[Any, int] = {}
        for v in [*functions.state, *functions.anchors]:  # parts first: `Program.state_rows`
            self.at[v.key] = self.take(v.size)
        self.h = self.take(functions.width * self.program.columns)
        self.names = self._names()
        self.fills: dict[Any, list[str]] = {}
        self.draws: dict[Any, Draw] = {}
        noise = self.program.noise
        for s, inputs in enumerate(functions.draws):
            k = "k" if noise.every(s) == 1 else "n"
            self._place(inputs, noise.sets[s], f"keys[{s}]", k, f"{s}")
        self._place(functions.start_draws, self.program.start_plan, f"keys[{len(noise.sets)}]", "0", "u")
        if functions.column is not None:
            which = f"float((at + u64(j)) % u64({self.tables.size(self.program.start_columns)}))"
            self.draws[functions.column.key] = Draw(0, sign=lambda _: which)

    def take(self, rows: int) -> int:
        """Reserve `rows` further rows of the kernel's array S, `(rows, lanes)`, for a block of paths; return the number of the first of them."""
        self.rows += rows
        return self.rows - rows

    def _names(self) -> dict[Any, str]:
        """Return the source's names of the inputs that are common to all paths, a dict from the key of a traced value to a variable such as "P"."""
        f = self.functions
        return {f.numbers.key: "P", f.factor.key: "c", f.fading.key: "rho"} | {
            v.key: v.name for row in f.coefficients for v in row
        }

    # ---- draws

    def _place(self, inputs: Sequence[Value], plan: DrawPlan, key: str, k: str, name: str) -> None:
        """Reserve rows of Z for the draws of a set, and write the lines that fill them to `fills` and `draws`, by the key of each input.

        Args:
            inputs: The inputs of the graph that stand for the draws, one for each segment of `plan`.
            plan: The draws of a step.
            key: The expression of the set's key in the source, such as "keys[0]".
            k: The expression of the step in the draws' addresses, such as "k".
            name: A text that makes names of variables unique, such as "0".
        """
        for g, (v, segment) in enumerate(zip(inputs, plan.segments)):
            if segment.kind is Sign:
                self._signs(v, segment, key, k, f"{name}_{g}")
                continue
            row, drawn = self.Z, "normals" if segment.kind is Normal else "uniforms"
            self.Z += max(segment.n, segment.drawn)

            def fill(first: str, count: str, segment: Segment = segment, row: int = row, draw: str = drawn) -> str:
                """Return the source of a call that makes draws `first` to `first + count - 1` of the segment, in the rows reserved for one tile.

                `first` and `count` are expressions of the source text, such as "t" and "min(64, 100 - t)". The further arguments are fixed here.
                """
                slot = f"{segment.base} + {first} // {segment.a_slot}"
                return f"lanes.call({self.tables.function(draw)}, {key}, at, {k}, {slot}, ({count}) << 32 | {self.L}, {self.place(row)})"

            if segment.share == 1:
                whole = f"lanes.call({self.tables.function(drawn)}, {key}, at, {k}, {segment.base}, {segment.n << 32 | self.L}, {self.place(row)})"
                self.draws[v.key] = Draw(row, tile=segment.group, fill=fill)
                self.fills[v.key] = [whole]
                continue
            shift = f"z{name}_{g}"
            call = f"lanes.call({self.tables.function(drawn)}, {key}, at, {k} // {segment.share}, {segment.base}, {segment.drawn << 32 | self.L}, {self.place(row)})"
            self.draws[v.key] = Draw(row, shift=shift)
            self.fills[v.key] = [
                f"if {k} % {segment.share} == 0:",
                f"    {call}",
                f"{shift} = {k} % {segment.share} * {segment.n * self.L}",
            ]

    def place(self, row: int) -> str:
        """Return the source text of the address of row `row` of the kernel's array of draws, `(rows, lanes)`, such as "Zbase + 4096"."""
        return f"Zbase + {self.real.size * row * self.L}"

    def _signs(self, v: Value, segment: Segment, key: str, k: str, name: str) -> None:
        """Write the lines for signs, with the arguments of `_place` for one input.

        Expressions decode up to 64 signs in place from a stored random word, which is cheaper than storing them; loops read rows of them.
        """
        row, word = self.Z, self.W
        self.Z += segment.n
        if segment.n > 64:
            self.draws[v.key] = Draw(row)
            self.fills[v.key] = [
                f"lanes.call({self.tables.function('signs')}, {key}, at, {k}, {segment.base}, {segment.n << 32 | self.L}, {self.place(row)})"
            ]
            return
        self.W += 2
        lasts = 64 // segment.n
        half, left = f"w{name}", f"b{name}"
        lines = [
            f"if {k} % {segment.share} == 0:",
            f"    lanes.call({self.tables.function('words')}, {key}, at, {k} // {segment.share}, {segment.base}, {1 << 32 | self.L}, Wbase + {8 * word * self.L})",
            f"{half} = {word * self.L} + {k} // {lasts} % 2 * {self.L}",
        ]
        bits = f"{left} = u64(63 - {k} % {lasts} * {segment.n})"
        rows = f"lanes.call({self.tables.function('bits')}, Wbase + 8 * {half}, {self.L}, {k} % {lasts} * {segment.n}, {segment.n}, {self.place(row)}, 0)"

        def sign(i: int) -> str:
            """Return the expression of sign i = 0, 1, ... of a step on lane j, such as "lanes.sign_of(W[w0_0 + j] << (b0_0 - u64(3)))"."""
            return f"lanes.sign_of(W[{half} + j] << ({left} - u64({i})))"

        self.draws[v.key] = Draw(row, sign=sign)
        self.fills[v.key] = [*lines, bits, rows]

    # ---- graphs as lines

    def loops(self, outputs: Sequence[tuple[int, Value]]) -> Loops:
        """Return the source of loops that compute `outputs`, pairs (first row of S, traced value), and write the values to S.

        The lines are the attribute `lines` of the result. The attribute `most` of this object becomes the largest number of rows of S, temporary ones
        included, that the loops made so far need.
        """
        made = Loops(outputs, self.at, self.draws, self.names, self.rows, self.L, self.tables)
        self.most = max(getattr(self, "most", 0), made.rows)
        return made

    def with_draws(self, outputs: Sequence[tuple[int, Value]], inputs: Sequence[Value]) -> tuple[list[str], Loops]:
        """Return the source lines that make the draws of `inputs`, and the loops that compute `outputs`, pairs (first row of S, traced value).

        Draws that `outputs` do not read, and those that the loops make themselves tile by tile (a tile is a range of components), have no lines of
        their own.
        """
        made = self.loops(outputs)
        fills = []
        for v in inputs:
            read = v.key in made.from_rows, v.key in made.in_place
            if v.key in made.tiled or not any(read):
                continue
            if self.draws[v.key].sign is None:
                fills += self.fills[v.key]
                continue
            *words, bits, rows = self.fills[v.key]
            fills += [*words, *([bits] if read[1] else []), *([rows] if read[0] else [])]
        return fills, made

    def _steps(self) -> list[str]:
        """Return the lines that advance a block from step `first_step` to `until_step`.

        Where tiles of components are independent of each other, a tile takes all these steps before the next, so that it stays in the cache.
        """
        noise, out = self.program.noise, self.coefficients()
        loop = "for k in range(first_step, until_step):"
        for step in self.functions.steps:
            inputs = [v for s, own in enumerate(self.functions.draws) for v in own if noise.every(s) == step.every]
            fills, made = self.with_draws([(self.at[t.key], v) for t, v in step.outputs], inputs)
            lines = made.lines
            if made.by_tiles and not fills and len(self.functions.steps) == 1:
                return [lines[0], *indent([loop, *indent(out), *lines[1:]])]
            if step.every == 1:
                out += [*fills, *lines]
            else:
                out += ["if (k + 1) % every == 0:", *indent(["n = k // every", *fills, *lines])]
        return [loop, *indent(out)]

    def _record(self) -> list[str]:
        """Return the lines that compute a record (the values of all quantities at a recorded step), in rows of S from `h` on, and its moments."""
        lines = self.loops([(self.h + i, v) for i, v in enumerate(self.functions.record)]).lines
        reduce = self.tables.function("reduce_pair" if self.program.pair else "reduce_single")
        where = f"base + {self.real.size * self.h * self.L}, {self.program.columns}, valid, leafat + t * {8 * self.program.columns * len(self.program.statistics)}"
        return [*lines, f"lanes.call({reduce}, {where}, before, {self.L})"]

    def _copied(self, to_slot: bool) -> list[str]:
        """Return the lines that copy an anchor (y, E) from its rows of S to slot `slot` of the array V, or back if not `to_slot`."""
        if self.program.control is None:
            return ["pass"]
        first, n = self.at[self.functions.anchors[0].key] * self.L, 2 * self.program.members[0].dim * self.L
        a, b = f"V[slot * {n} + j]", f"S[{first} + j]"
        return [f"for j in range({n}):", f"    {a} = {b}" if to_slot else f"    {b} = {a}"]

    def _snapshot(self) -> list[str]:
        """Return the lines that compute an anchor, the state (y, E) that the control variate keeps, and store it; "pass" without one."""
        if self.program.control is None:
            return ["pass"]
        return ["memory_e = memory[e]", *self.loops(self.anchor("memory_e")).lines, *self._copied(True)]

    def anchor(self, name: str) -> list[tuple[int, Value]]:
        """Return two pairs (first row of S, traced value) of an anchor: y = x - c m, and the noise accumulated in the momentum buffer m.

        An anchor is the state that the control variate keeps from an earlier step. x and m are position and momentum of the first dynamics; `name` is
        the variable of the source that has the value c, such as "memory_e".
        """
        (x, m, *_), (y, kept) = self.functions.parts[0], self.functions.anchors
        assert self.functions.momentum_noise is not None
        memory = self.functions.trace.uniform(name)
        self.names[memory.key] = name
        return [(self.at[y.key], x - memory * m), (self.at[kept.key], self.functions.momentum_noise)]

    def coefficients(self) -> list[str]:
        """Return source lines that read the coefficients of step k of all dynamics (eta, beta, ...), such as "c0_eta = C[k * changing + 0]"."""
        names = [v.name for row in self.functions.coefficients for v in row]
        return [f"{name} = C[k * changing + {n}]" for n, name in enumerate(names)]

    def _spans(self) -> list[str]:
        """Return for each dynamics the text "first row, end" of its rows of S, such as "0, 4"."""
        out = []
        for parts in self.functions.parts:
            rows = [self.at[p.key] for p in parts]
            out.append(f"{rows[0]}, {rows[-1] + parts[-1].size}")
        return out

    @cached_property
    def text(self) -> str:
        """The source text of the whole kernel, a Python module: `cpu_template.TEMPLATE`, filled with the lines of the start, the steps and the records."""
        program, L = self.program, self.L
        self.most = self.rows
        starts, start = self.with_draws([(self.at[t.key], v) for t, v in self.functions.start], self.functions.start_draws)
        step, record, snapshot = self._steps(), self._record(), self._snapshot()
        if program.stop is not None:  # a block whose paths all stand still takes no more steps
            starts = ["still = 0", *starts]
            record += [
                "still = 1",
                "for j in range(valid):",
                f"    if S[{(self.h + program.stop) * L} + j] != 1.0:",
                "        still = 0",
            ]
            step = ["if still == 0:", *indent(step)]
        spans = self._spans()
        count = self.tables.function("count_diverged")
        diverged = [f"diverged[{i}] += lanes.call({count}, base, {span}, valid, {L}, 0)" for i, span in enumerate(spans)]
        watch = []
        for i, span in enumerate(spans):
            watch += [
                f"if k < seen[{i}] and lanes.call({count}, base, {span}, valid, {L}, 0) > 0:",
                f"    seen[{i}] = k",
            ]
        kinds = ARRAYS | {f"d{i}": "real" if a.dtype.kind == "f" else "whole" for i, a in enumerate(self.tables.data)}
        head = [f"{name} = A[{i}]" for i, name in enumerate(NUMBERS)]
        head += [f"{name}at = A[{len(NUMBERS) + i}]" for i, name in enumerate([*ARRAYS, "tree", *list(kinds)[len(ARRAYS) :]])]
        head += [f"{name} = lanes.{kind}_pointer({name}at)" for name, kind in kinds.items()]
        if self.tables.stages:  # compiled functions take arrays
            head += [
                f"{name}2 = lanes.carray({own}, ({rows}, {L}))"
                for name, own, rows in (("S", "rows", self.most), ("Z", "Z", self.Z))
            ]
        return TEMPLATE.format(
            imports="".join(_import(name, f) for name, f in self.tables.stages.items()),
            head=_block(head, 4),
            L=L,
            module=self.real.lanes,
            real=self.real.name,
            anchors=2 * program.members[0].dim,
            blocks=LEAF // L,
            last=LEAF - L,
            every=f"every = {self.tables.size(max(program.every))}" if max(program.every) > 1 else "pass",
            start=_block([*starts, *start.lines], 8),
            snapshot=_block(snapshot, 20),
            fetch=_block(self._copied(False), 20),
            record=_block(record, 20),
            step=_block(step, 12),
            watch=_block(watch, 16),
            diverged=_block(diverged, 12),
            carry=self.tables.function("carry"),
        )


def _block(lines: Sequence[str], by: int) -> str:
    """Return lines as one text, indented `by` spaces; "pass" if there are none."""
    return "\n".join(indent(lines, by)) or " " * by + "pass"


def importable(function: Callable[..., Any]) -> bool:
    """Return whether a compiled function is at the top level of a module of sdetools, where the text of a kernel can import it.

    A kernel with other functions, those of users, is not cached on disk.
    """
    return getattr(function, "__module__", "").startswith("sdetools.") and "<locals>" not in function.__qualname__


def _import(name: str, function: Callable[..., Any]) -> str:
    """Return the line that imports a compiled function under `name`; for a function of the user, which the loader sets, a line that reserves it."""
    if importable(function):
        return f"from {function.__module__} import {function.__name__} as {name}\n"
    return f"{name} = None  # set by the loader\n"
