"""The CUDA backend's text: a program's graphs as kernels in which a thread is a path, and what runs between them.

They are written by the writer of the kernels for a CPU (`cpu.Writer`, `graph.loops`). Few operations are one kernel that keeps a path's state
in registers over many steps; more are a kernel of one step, with rows in global memory; where a large matrix is multiplied, several, with
GEMMs on the same memory between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools.graph.cuda_loops import CudaLoops, CudaStraight, Product
from sdetools.graph.elements import Draw, indent
from sdetools.graph.reals import DOUBLE, Real
from sdetools.graph.value import Value
from sdetools.simulation import cuda_draws
from sdetools.simulation.cpu import Writer
from sdetools.simulation.draws import DrawPlan, Segment
from sdetools.simulation.program import Program
from sdetools.simulation.step_graphs import Functions, StepGraph

REGISTERS = 32
"""Rows of state and draws that a thread keeps in registers; two of its 255 each."""

TEMPLATE = """
def kernel(first, lanes, begin, end, keys, C, P, c, rho, S, Z, K, N{data}):
    j = cuda.grid(1)
    if j < lanes:
        path, at, c, rho = first + j, u64(first), f(c), f(rho)
        changing = {width} if C.shape[0] > {width} else 0
{load}
        {loop}
{lines}
{store}
"""
LOOP, ONCE = "for k in range(begin, end):", "if (k := begin) < end:"
"""Many steps with the state in registers, or one: compilers take the places of rows out of a loop, and would fill the registers with them."""


@dataclass(frozen=True)
class Lines:
    """The lines of a kernel: before its steps, in one, after them."""

    load: tuple[str, ...]
    step: tuple[str, ...]
    store: tuple[str, ...]

    def text(self, data: int, width: int) -> str:
        """The kernel, which is given so many arrays of data, and so many coefficients of a step."""
        load, lines, store = ("\n".join(part) for part in (self.load, self.step, self.store))
        return TEMPLATE.format(
            data="".join(f", d{i}" for i in range(data)),
            width=width,
            load=load,
            loop=LOOP if self.store else ONCE,
            lines=lines,
            store=store,
        )


Phase = Lines | Product
"""A kernel, or a product between two."""


@dataclass
class Kernels:
    """Phases that make the start, a step (each with after how many short steps it runs), what is recorded (rows from `h` on), an anchor
    (rows `anchors`), and rows from `gone` on that say of each member whether it is lost. The members' parts are the first rows.

    `fused`: the step's kernel takes any number of steps. S has `rows`, Z has `drawn`.
    """

    h: int
    gone: int
    anchors: slice
    drawn: int
    real: Real
    rows: int = 0
    fused: bool = False
    start: list[Phase] = field(default_factory=list)
    step: list[tuple[int, Phase]] = field(default_factory=list)
    record: list[Phase] = field(default_factory=list)
    anchor: list[Phase] = field(default_factory=list)
    look: list[Phase] = field(default_factory=list)
    data: tuple[np.ndarray, ...] = ()
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(1))
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))


def write(program: Program, real: Real = DOUBLE) -> Kernels:
    """The kernels of a program in numbers of a type; NotTraceable when a part of it needs another backend."""
    return _CudaWriter(Functions(program, real=real), real).kernels()


class _CudaWriter(Writer):
    """Writes the kernels' texts."""

    def __init__(self, functions: Functions, real: Real) -> None:
        self.segments: dict[Any, tuple[Segment, int, str, str]] = {}
        self.kind: type[CudaLoops] = CudaLoops
        super().__init__(functions, "lanes", real)

    def _place(self, inputs: Sequence[Value], plan: DrawPlan, key: str, k: str, name: str) -> None:
        """Rows of Z for the segments of a set."""
        for v, segment in zip(inputs, plan.segments):
            self.draws[v.key] = Draw(self.Z + segment.row)
            self.segments[v.key] = segment, self.Z, key, k
        self.Z += plan.rows

    def _filled(self, v: Value) -> list[str]:
        """The lines that make the draws of an input."""
        segment, first, key, k = self.segments[v.key]
        if self.kind is CudaStraight:
            lines = cuda_draws.in_registers(segment, lambda row: f"z{first + row}", k, self.real.name)
        else:
            lines = cuda_draws.in_memory(segment, lambda row: f"Z[({first} + {row}) * lanes + j]", k, self.real.name)
        return [f"_k0, _k1 = {key} & low, {key} >> half", *lines]

    def _made(self, outputs: Sequence[tuple[int, Value]], inputs: Sequence[Value] = ()) -> tuple[list[str], CudaLoops]:
        """Lines that make the draws of some inputs and then outputs, and what wrote them."""
        made = self.kind(outputs, self.at, self.draws, self.names, self.rows, self.L, self.tables)
        self.most = max(self.most, made.rows)
        return [line for v in inputs if v.key in made.from_rows for line in self._filled(v)] + made.lines, made

    def _phases(self, outputs: Sequence[tuple[int, Value]], inputs: Sequence[Value] = ()) -> list[Phase]:
        """Kernels, and products between them."""
        lines, made = self._made(outputs, inputs)
        return self._cut(lines, made.products)

    def _cut(self, lines: Sequence[str], products: dict[str, Product | None], before: Sequence[str] = ()) -> list[Phase]:
        out: list[Phase] = []
        own: list[str] = []
        for line in [*lines, None]:
            if line is not None and line not in products:
                own.append(line)
                continue
            out += [self._kernel([*before, *own])] if own else []
            product = products[line] if line is not None else None
            out += [product] if product is not None else []
            own = []
        return out

    def _kernel(self, lines: Sequence[str], kept: Sequence[int] = ()) -> Lines:
        """A kernel; rows `kept` are local variables between its first step and its last."""
        load = [f"s{row} = S[{row} * lanes + j]" for row in kept]
        store = [f"S[{row} * lanes + j] = s{row}" for row in kept]
        return Lines(tuple(indent(load, 8)), tuple(indent(lines, 12)), tuple(indent(store, 8)))

    def kernels(self) -> Kernels:
        f, at = self.functions, self.at
        gone = self.take(len(f.parts))
        self.most = self.rows
        anchors = at[f.anchors[0].key] if f.anchors else 0
        made = Kernels(self.h, gone, slice(anchors, anchors + sum(a.size for a in f.anchors)), self.Z, self.real)
        made.start = self._phases([(at[t.key], v) for t, v in f.start], f.start_draws)
        made.record = self._phases([(self.h + i, v) for i, v in enumerate(f.record)])
        made.look = self._phases([(gone + i, sum(np.sum(p * 0.0) for p in parts)) for i, parts in enumerate(f.parts)])
        made.anchor = self._phases(self.anchor("c")) if f.anchors else []
        self._write_steps(made)
        made.rows, t = self.most, self.tables
        made.data = tuple(map(self.real.array, t.data))
        made.numbers, made.sizes = np.array(t.numbers or [0.0], self.real.dtype), np.array(t.sizes or [0], np.int64)
        return made

    def _write_steps(self, kernels: Kernels) -> None:
        """The phases of a step: one kernel, unless large matrices are multiplied or a formula is long."""
        steps = self.functions.steps
        found = [self._step(step) for step in steps]
        if any(made.products for _, made in found):
            for step, (lines, made) in zip(steps, found):
                kernels.step += [(step.every, phase) for phase in self._cut(lines, made.products, self._begun(step.every))]
            return
        kept: set[int] = set()
        if all(made.in_registers for _, made in found) and self.h + self.Z <= REGISTERS:
            self.kind = CudaStraight
            found = [self._step(step) for step in steps]
            kept = kept.union(*(made.used for _, made in found))  # type: ignore[attr-defined]
        body = self._begun(1)
        for step, (lines, _) in zip(steps, found):
            long = [f"if (k + 1) % {self.tables.size(step.every)} == 0:", *indent([*self._begun(step.every)[-1:], *lines])]
            body += lines if step.every == 1 else long
        kernels.fused = bool(kept)
        kernels.step = [(1, self._kernel(body, sorted(kept)))]

    def _begun(self, every: int) -> list[str]:
        """The first lines of a step: its coefficients, and for a longer one its number."""
        return self.coefficients() + ([f"n = k // {self.tables.size(every)}"] if every > 1 else [])

    def _step(self, step: StepGraph) -> tuple[list[str], CudaLoops]:
        noise = self.program.noise
        inputs = [v for s, own in enumerate(self.functions.draws) for v in own if noise.every(s) == step.every]
        return self._made([(self.at[t.key], v) for t, v in step.outputs], inputs)
