"""From a program to the source text of its kernel: rules, oracles and observables traced into loops over lanes.

One block of `LANES` paths at a time, for each step: fill words, turn them into draws, run the lane loops of the step, and at recorded
steps the lane loops of the observables. All state lies in one flat array, row r at `S[r * LANES]`: constant distances let LLVM see that
rows do not overlap. The text holds structure only; every number that may change comes in through an argument.

A loss or noise that is not worth tracing runs as a *stage*, a compiled function over the block; the lane loop is cut there.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools.dynamics.base import Dynamics
from sdetools.simulation.build import Build
from sdetools.simulation.foreign import gradient_stage
from sdetools.simulation.frame import (
    LANES,
    REDUCE_PAIR,
    REDUCE_SINGLE,
    TEMPLATE,
    fill_text,
    forget_text,
    gather_text,
    indent,
    lost_text,
    points_text,
    row,
    snapshot_text,
    start_text,
    watch_text,
    word_rows,
)
from sdetools.simulation.loops import Item, lane_loops, scratch
from sdetools.simulation.program import Program, parts_of, told
from sdetools.simulation.trace import NotTraceable, Tape, Traced, symbols, trace

_PARAMETER = re.compile(r"\bp(\d+)\b")
LARGEST = 6000
"""Lines of straight code beyond which a kernel costs more to compile than it saves."""


@dataclass
class Source:
    """The text of a kernel and what it needs at run time: stage functions by name and their data."""

    text: str
    stages: dict[str, Callable[..., Any]]
    data: tuple[np.ndarray, ...]
    rows: int
    draws: int


def write(program: Program) -> Source:
    """The source of a program's kernel; NotTraceable when a part of it needs another backend."""
    build = Build(program)
    first, held, sums, gathered = layout(build)
    draw_rows = np.cumsum([0, *(p.rows for p in program.noise.sets)])
    fills, build.draw_texts = fill_text(program)
    build.draw_rows = draw_rows.tolist()

    step = [line for s, lines in enumerate(fills) if program.noise.every(s) == 1 for line in lines]
    spent = 0
    for every, bodies, calls in passes(build, first, held, sums, gathered):
        spent += len(build.tape.lines)
        lines = _step_text(bodies, calls)
        if every == 1:
            step += lines
            continue
        own = [line for s, filled in enumerate(fills) if program.noise.every(s) == every for line in filled]
        step += gather_text(program, gathered)
        step.append("if (k + 1) % every == 0:\n" + indent([*own, *lines, *forget_text(program, gathered)], 4))
    if spent > LARGEST:
        raise NotTraceable(f"the step takes {spent} lines of straight code, more than {LARGEST}")

    record = _record_text(build, first, held, sums)
    text = TEMPLATE.format(
        arguments="".join(f", d{i}" for i in range(len(build.data))),
        rows=build.rows,
        lanes=LANES,
        draws=max(1, int(draw_rows[-1])),
        words=max(1, sum(word_rows(p) for p in program.noise.sets)),
        start_words=2 * ((program.start_plan.words + 1) // 2) or 1,
        start_draws=program.start_plan.rows + 1,
        dim=program.members[0].dim,
        columns=max(1, program.columns),
        start=start_text(program, first, held, build.rows),
        scalars=indent(_scalars(program, step), 4),
        coefficients=indent(
            [f"c{i}_{name} = C[k * changing, {n}]" for n, (i, name) in enumerate(_coefficient_names(program))], 12
        ),
        step=indent(step, 12),
        snapshot=indent(snapshot_text(program, first, held), 20),
        record=indent(record, 4),
        record_scalars=indent(_scalars(program, record), 4),
        lost=indent(lost_text(program, first), 12),
        watch=indent(watch_text(program, first), 16),
        points=indent(points_text(program, first), 12),
        imports="".join(_import_line(name, function) for name, function in build.stages.items()),
        cache=all(importable(f) for f in build.stages.values()),
    )
    return Source(text, build.stages, tuple(build.data), build.rows, int(draw_rows[-1]))


def layout(build: Build) -> tuple[list[int], int, int, int]:
    """First rows of the members' states, of the held noise, of the functionals' sums and of the gathered draws."""
    program = build.program
    first = [build.take(len(m.parts) * m.dim) for m in program.members]
    held = build.take(program.members[0].dim) if program.control is not None else 0
    return first, held, build.take(len(program.functionals) * len(program.members)), build.take(program.noise.gathered)


def passes(
    build: Build, first: list[int], held: int, sums: int, gathered: int
) -> Iterator[tuple[int, list[tuple[list[Item], list[Item]]], list[str]]]:
    """For each length of step: after how many short steps it ends, its segments of lines and stores, and the calls between them."""
    program = build.program
    for every in sorted(set(program.every)):
        build.new_tape()
        for i in (i for i in range(len(program.members)) if program.every[i] == every):
            _member(build, i, first, held, sums, gathered)
        spill_start = build.rows
        bodies, spilled = build.tape.segments(build.outputs, lambda n, start=spill_start: row(start + n))
        build.take(spilled)
        yield every, bodies, build.tape.calls


def _member(build: Build, i: int, first: list[int], held: int, sums: int, gathered: int) -> None:
    """One step of member `i` on the current tape: its new state, its functionals, and the noise that a control holds."""
    program, tape = build.program, build.tape
    member = program.members[i]
    dim = member.dim
    field = (
        _Oracle(build, member, i, gathered) if member.oracle is not None else member.bind(*_inputs(build, member, i, gathered))
    )
    state = tuple(symbols(tape, [row(first[i] + q * dim + d) for d in range(dim)]) for q in range(len(member.parts)))
    coefficients = [tape.load(f"c{i}_{name}") for name in member.coefficients]
    new = trace(member.rule, f"the rule of {member.name}", state, field, *coefficients)
    new = parts_of(member, new, state)
    # A member is stored at the end of its own last segment: what follows belongs to the next member, which does not read this one.
    segment = len(tape.calls)
    for q, part in enumerate(new):
        build.outputs += [((segment, row(first[i] + q * dim + d)), part[d]) for d in range(dim)]
    if i == 0 and program.control is not None:
        _held_noise(build, member, state, field, coefficients, held)
    for f, functional in enumerate(program.functionals):
        target = row(sums + f * len(program.members) + i)
        step = trace(functional.increment, f"the functional {functional.name}", state[0], new[0])
        build.outputs.append(((segment, target), tape.load(target) + one_number(step, f"the functional {functional.name}")))


def _inputs(build: Build, member: Dynamics, index: int, gathered: int) -> tuple[np.ndarray, np.ndarray]:
    """The symbols of a member's draws and of its numbers."""
    program, tape = build.program, build.tape
    offset = program.parameter_offset(index)
    p = symbols(tape, [f"p{offset + n}" for n in range(len(member.parameters))])
    count = sum(d.n for d in member.draws)
    if not program.noise.shares_sums(index):
        return symbols(tape, build.draw_texts[program.noise.member_set[index]][:count]), p
    motions, share = member.brownian, tape.load("share")
    total = symbols(tape, [row(gathered + n) for n in range(motions)]) * share
    if count == motions:
        return total, p
    area = symbols(tape, [row(gathered + motions + n) for n in range(motions)]) * (share * share * share)
    return np.concatenate([total, math.sqrt(3.0) * (2.0 * area - total)]).view(type(total)), p


class _Oracle:
    """What a traced rule calls: binds loss and noise of one member, traced or by stages, on the step's draws."""

    def __init__(self, build: Build, member: Dynamics, index: int, gathered: int) -> None:
        self.build, self.oracle = build, member.oracle
        self.base = build.draw_rows[build.program.noise.member_set[index]]
        self.offset = build.program.parameter_offset(index)
        draws, self.p = _inputs(build, member, index, gathered)
        self.draws, self.extra = draws[: self.oracle.noise.n_draws], draws[self.oracle.noise.n_draws :]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        whole = self.oracle.noise.oracle_stage(self.oracle.sigma)
        if whole is not None:
            sigma = f"p{self.offset}"
            return self._run(whole, x, f", {self._draw_view()}, {sigma}")
        sigma, numbers, _ = self.oracle.split(self.p)
        stage = self.build.gradient_stage(self.oracle.loss)
        gradient = self._run(stage, x) if stage is not None else self._gradient(x, numbers)
        return self.oracle.noisy(gradient, sigma, self.deviation(x))

    def _gradient(self, x: np.ndarray, p: np.ndarray) -> np.ndarray:
        """The gradient traced, or else the user's function compiled as a stage."""
        loss = self.oracle.loss
        try:
            return trace(loss.gradient, f"the gradient of {loss.label}", x, p)
        except NotTraceable:
            function = getattr(loss, "function", None)
            stage = gradient_stage(function, loss.dim) if function is not None else None
            if stage is None:
                raise
        return self._run(stage, x)

    def deviation(self, x: np.ndarray) -> np.ndarray:
        """The noise v at `x` on the step's draws, without sigma."""
        noise = self.oracle.noise
        if noise.stage is not None:
            return self._run(noise.stage, x, f", {self._draw_view()}")
        return trace(noise.value, f"the noise {noise.label}", x, self.draws, self.oracle.split(self.p)[2])

    def _draw_view(self) -> str:
        return f"Z2[{self.base}:{self.base + self.oracle.noise.n_draws}]"

    def _run(self, stage: Any, x: np.ndarray, more: str = "") -> np.ndarray:
        return self.build.run_stage(stage, [x], len(x), more)[1]


def _held_noise(build: Build, member: Dynamics, state: Any, oracle: _Oracle, coefficients: Any, held: int) -> None:
    """One step of E, the noise alone in the momentum: the same rule, fed with sigma v instead of the gradient."""
    if member.staged:
        raise NotTraceable("the control variate of a noise that runs as a stage")
    tape, dim = build.tape, member.dim
    sigma = tape.load(f"p{oracle.offset}")
    own = symbols(tape, [row(held + d) for d in range(dim)])
    noise = sigma * oracle.deviation(state[0])
    _, new = member.rule((state[0], own), lambda _: noise, *coefficients)
    segment = len(tape.calls)
    build.outputs += [((segment, row(held + d)), value) for d, value in enumerate(np.asarray(new, dtype=object))]


def _coefficient_names(program: Program) -> list[tuple[int, str]]:
    return [(i, name) for i, m in enumerate(program.members) for name in m.coefficients]


def _scalars(program: Program, lines: list[str]) -> list[str]:
    """Reads the parameters that occur in `lines`, and makes room for the rows that they keep between passes."""
    text = "\n".join(lines)
    used = set(_PARAMETER.findall(text))
    scale = ["every = int(P[0])", "share = P[1]"] if any("every" in line for line in lines) else []
    room = [f"T = np.empty({scratch(text) * LANES})"] if scratch(text) else []
    return scale + room + [f"p{i} = P[{i}]" for i in range(len(program.parameters)) if str(i) in used]


def _step_text(bodies: list[tuple[list[Item], list[Item]]], calls: list[str]) -> list[str]:
    out: list[str] = []
    for i, (lines, stores) in enumerate(bodies):
        out += lane_loops(lines, stores)
        out += calls[i : i + 1]
    return out


def _record_text(build: Build, first: list[int], held: int, sums: int) -> list[str]:
    """Lane loops that write h(x), h(z) and C of each recorded quantity into H, three rows each (one for a single dynamics).

    A lost path makes h NaN whatever h is: sums over survivors would be wrong in silence.
    """
    program = build.program
    out: list[str] = []
    width = 3 if program.pair else 1
    for o, observable in enumerate(program.observables):
        offset = program.parameter_offset(len(program.members) + o)
        tape, outputs = Tape(), []
        dead: list[str] = []
        p = symbols(tape, [f"p{offset + n}" for n in range(len(getattr(observable, "parameters", ())))])
        stage = build.value_stage(observable)
        for i, member in enumerate(program.members):
            position, target = range(first[i], first[i] + member.dim), width * o + i
            x = symbols(tape, [row(r) for r in position])
            if stage is not None:
                name, data = build.stage(stage)
                at = target * LANES
                out.append(f"{name}(S2[{position.start}:{position.stop}], H[{at}:{at + LANES}]{data})")
                value: Any = tape.load(f"H[{at} + j]")
            else:
                value = observable_value(observable, x, p)
            if member.dim <= 8:
                for coordinate in x:
                    value = value + coordinate * 0.0
            else:
                rows = f"S[{position.start * LANES} + q + j]"
                dead.append(
                    f"for q in range(0, {member.dim * LANES}, {LANES}):\n    for j in range({LANES}):\n        H[{target * LANES} + j] += {rows} * 0.0"
                )
            outputs.append((f"H[{target * LANES} + j]", value))
        if program.pair:
            c = control_value(build, observable, tape, p, held) if program.control is not None and stage is None else 0.0
            outputs.append((f"H[{(width * o + 2) * LANES} + j]", c))
        out += _loop(tape, outputs) + dead
    for f in range(len(program.functionals)):
        tape, at = Tape(), width * (len(program.observables) + f)
        rows = [row(sums + f * len(program.members) + i) for i in range(len(program.members))]
        outputs = [(f"H[{(at + i) * LANES} + j]", tape.load(text)) for i, text in enumerate(rows)]
        out += _loop(tape, [*outputs, (f"H[{(at + 2) * LANES} + j]", 0.0)] if program.pair else outputs)
    reduce = REDUCE_PAIR if program.pair else REDUCE_SINGLE
    out.append(f"lanes.call(lib[{reduce}], H.ctypes.data, {program.columns}, valid, out.ctypes.data, before, 0)")
    return out


def _given(p: np.ndarray) -> tuple[np.ndarray, ...]:
    return (p,) if len(p) else ()


def observable_value(observable: Any, x: Any, p: Any) -> Any:
    """h(x), traced."""
    part = f"the observable {observable.name}"
    return one_number(trace(observable.value, part, x, *_given(p)), part)


def control_value(build: Build, observable: Any, tape: Tape, p: np.ndarray, held: int) -> Any:
    """C = c grad h(y_a) . (E - rho E_a)."""
    dim = build.program.members[0].dim
    y = symbols(tape, [f"V[slot + {d * LANES} + j]" for d in range(dim)])
    slope = trace(observable.gradient, f"the gradient of {observable.name}", y, *_given(p))
    noise = [tape.load(row(held + d)) - tape.load("rho") * tape.load(f"V[slot + {(dim + d) * LANES} + j]") for d in range(dim)]
    total: Any = 0.0
    for s, n in zip(slope, noise):
        total = total + s * n
    if isinstance(total, Traced):
        total = tape.load("c") * total
        total = (total - total == 0.0).select(total, 0.0)  # a kink or a lost path gives no control
    return total


def one_number(value: Any, part: str) -> Any:
    """A traced number, out of whatever holds one."""
    value = np.asarray(value, dtype=object)
    if value.shape not in ((), (1,)) or not isinstance(value.reshape(-1)[0], (Traced, numbers.Real)):
        raise ValueError(f"{part} must give one number a path; it gave {told(value)}. Return for example x[0]**2.")
    return value.reshape(-1)[0]


def _loop(tape: Tape, outputs: list[tuple[str, Any]]) -> list[str]:
    ((lines, stores),), _ = tape.segments(outputs, row)
    return lane_loops(lines, stores)


def importable(function: Callable[..., Any]) -> bool:
    """Whether a compiled function of this library: only these are imported by the text, and their kernels cached on disk."""
    return getattr(function, "__module__", "").startswith("sdetools.") and "<locals>" not in function.__qualname__


def _import_line(name: str, function: Callable[..., Any]) -> str:
    if importable(function):
        return f"from {function.__module__} import {function.__name__} as {name}\n"
    return f"{name} = None  # set by the loader\n"
