"""From a program to the source text of its kernel: rules, oracles and observables traced into loops over lanes.

One block of `LANES` paths at a time, for each step: fill words, turn them into draws, run the lane loops of the step, and at recorded
steps the lane loops of the observables. All state lies in one flat array, row r at `S[r * LANES]`: constant distances let LLVM see that
rows do not overlap. The text holds structure only; every number that may change comes in through an argument.

A loss or noise that is not worth tracing runs as a *stage*, a compiled function over the block; the lane loop is cut there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools.dynamics.base import Dynamics
from sdetools.simulation.foreign import gradient_stage
from sdetools.simulation.frame import (
    LANES,
    REDUCE_PAIR,
    REDUCE_SINGLE,
    TEMPLATE,
    fill_text,
    indent,
    lost_text,
    points_text,
    row,
    snapshot_text,
    start_text,
    watch_text,
    word_rows,
)
from sdetools.simulation.loops import Item, lane_loops
from sdetools.simulation.program import Program
from sdetools.simulation.trace import Tape, Traced, TracingError, symbols

_PARAMETER = re.compile(r"\bp(\d+)\b")
LARGEST = 6000
"""Lines of straight code beyond which a kernel costs more to compile than it saves."""


class NotTraceable(TypeError):
    """This program has a part that neither traces nor compiles; the message names the part."""


@dataclass
class Source:
    """The text of a kernel and what it needs at run time: stage functions by name and their data."""

    text: str
    stages: dict[str, Callable[..., Any]]
    data: tuple[np.ndarray, ...]
    rows: int
    draws: int


@dataclass
class _Build:
    """Rows of the state array, stage functions and their data, while a source is written."""

    program: Program
    tape: Tape = field(default_factory=Tape)
    rows: int = 0
    stages: dict[str, Callable[..., Any]] = field(default_factory=dict)
    data: list[np.ndarray] = field(default_factory=list)
    outputs: list[tuple[Any, Any]] = field(default_factory=list)
    draw_texts: list[list[str]] = field(default_factory=list)

    def take(self, count: int) -> int:
        """Reserves rows of the state array."""
        self.rows += count
        return self.rows - count

    def rows_of(self, x: Any) -> int | None:
        """The first of the consecutive state rows that `x` consists of, if it is nothing but state."""
        texts = [self.tape.text_of(value) for value in x]
        for r in range(self.rows - len(texts) + 1):
            if texts[0] == row(r):
                return r if texts == [row(r + i) for i in range(len(texts))] else None
        return None

    def stage(self, stage: Any) -> tuple[str, str]:
        """The name of a stage's function in the text, and its data arguments."""
        for name, known in self.stages.items():
            if known is stage.function:
                break
        else:
            name = f"stage{len(self.stages)}"
            self.stages[name] = stage.function
        arguments = []
        for array in stage.data:
            for i, known_array in enumerate(self.data):
                if known_array is array:
                    break
            else:
                i = len(self.data)
                self.data.append(array)
            arguments.append(f"d{i}")
        return name, "".join(f", {a}" for a in arguments)


def write(program: Program) -> Source:
    """The source of a program's kernel; NotTraceable when a part of it needs another backend."""
    build = _Build(program)
    dims = [m.dim for m in program.members]
    first = [build.take(len(m.parts) * m.dim) for m in program.members]
    held = build.take(dims[0]) if program.control is not None else 0
    sums = build.take(len(program.functionals) * len(program.members))
    draw_rows = np.cumsum([0, *(p.rows for p in program.noise.sets)])
    fills, build.draw_texts = fill_text(program)

    for i, member in enumerate(program.members):
        base = int(draw_rows[program.noise.member_set[i]])
        oracle = _Oracle(build, member, i, base)
        state = tuple(
            symbols(build.tape, [row(first[i] + q * member.dim + d) for d in range(member.dim)]) for q in range(len(member.parts))
        )
        coefficients = [build.tape.load(f"c{i}_{name}") for name in member.coefficients]
        new = _trace(member.rule, f"the rule of {member.name}", state, oracle, *coefficients)
        if len(new) != len(state):
            raise ValueError(
                f"the rule of {member.name} must return {len(state)} parts ({', '.join(member.parts)}); it returned {len(new)}."
            )
        # A member is stored at the end of its own last segment: what follows belongs to the next member, which does not read this one.
        segment = len(build.tape.calls)
        for q, part in enumerate(new):
            values = np.broadcast_to(np.asarray(part, dtype=object), (member.dim,))
            for d in range(member.dim):
                build.outputs.append(((segment, row(first[i] + q * member.dim + d)), values[d]))
        if i == 0 and program.control is not None:
            _held_noise(build, member, state, oracle, coefficients, held)
        for f, functional in enumerate(program.functionals):
            target = row(sums + f * len(program.members) + i)
            step = _trace(functional.increment, f"the functional {functional.name}", state[0], np.asarray(new[0], dtype=object))
            build.outputs.append(((segment, target), build.tape.load(target) + step))

    spill_start = build.rows
    bodies, spilled = build.tape.segments(build.outputs, lambda n: row(spill_start + n))
    build.take(spilled)
    if len(build.tape.lines) > LARGEST:
        raise NotTraceable(f"the step takes {len(build.tape.lines)} lines of straight code, more than {LARGEST}")

    record = _record_text(build, first, held, sums)
    step = _step_text(bodies, build.tape.calls)
    text = TEMPLATE.format(
        arguments="".join(f", d{i}" for i in range(len(build.data))),
        rows=build.rows,
        lanes=LANES,
        draws=max(1, int(draw_rows[-1])),
        words=max(1, sum(word_rows(p) for p in program.noise.sets)),
        start_words=2 * ((program.start_plan.words + 1) // 2) or 1,
        start_draws=program.start_plan.rows + 1,
        dim=dims[0],
        columns=max(1, program.columns),
        stats=len(program.statistics),
        start=start_text(program, first, held, build.rows),
        scalars=indent(_scalars(program, step), 4),
        coefficients=indent(
            [f"c{i}_{name} = C[k * changing, {n}]" for n, (i, name) in enumerate(_coefficient_names(program))], 12
        ),
        fills=indent(fills, 12),
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


class _Oracle:
    """What a traced rule calls: binds loss and noise of one member, traced or by stages, on the step's draws."""

    def __init__(self, build: _Build, member: Dynamics, index: int, base: int) -> None:
        self.build, self.oracle, self.base = build, member.oracle, base
        self.offset = build.program.parameter_offset(index)
        texts = build.draw_texts[build.program.noise.member_set[index]]
        self.draws = symbols(build.tape, texts[: self.oracle.noise.n_draws])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        loss, noise, tape = self.oracle.loss, self.oracle.noise, self.build.tape
        p = symbols(tape, [f"p{self.offset + i}" for i in range(len(self.oracle.parameters))])
        whole = noise.oracle_stage(self.oracle.sigma)
        if whole is not None:
            sigma = f"p{self.offset}"
            return self._run(whole, x, lambda at, out: f"{at}, {self._draw_view()}, {sigma}, {out}")
        split = 1 + len(loss.parameters)
        if loss.stage is not None:
            gradient = self._run(loss.stage, x, lambda at, out: f"{at}, {out}")
        else:
            gradient = self._gradient(x, p[1:split])
        return gradient + p[0] * self.deviation(x, p)

    def _gradient(self, x: np.ndarray, p: np.ndarray) -> np.ndarray:
        """The gradient traced, or else the user's function compiled as a stage."""
        loss = self.oracle.loss
        try:
            return _trace(loss.gradient, f"the gradient of {loss.label}", x, p)
        except NotTraceable:
            function = getattr(loss, "function", None)
            stage = gradient_stage(function, loss.dim) if function is not None else None
            if stage is None:
                raise
        return self._run(stage, x, lambda at, out: f"{at}, {out}")

    def deviation(self, x: np.ndarray, p: np.ndarray | None = None) -> np.ndarray:
        """The noise v at `x` on the step's draws, without sigma."""
        loss, noise = self.oracle.loss, self.oracle.noise
        if p is None:
            p = symbols(self.build.tape, [f"p{self.offset + i}" for i in range(len(self.oracle.parameters))])
        if noise.stage is not None:
            return self._run(noise.stage, x, lambda at, out: f"{at}, {self._draw_view()}, {out}")
        return _trace(noise.value, f"the noise {noise.label}", x, self.draws, p[1 + len(loss.parameters) :])

    def _draw_view(self) -> str:
        return f"Z2[{self.base}:{self.base + self.oracle.noise.n_draws}]"

    def _run(self, stage: Any, x: np.ndarray, arguments: Callable[[str, str], str]) -> np.ndarray:
        build, dim = self.build, len(x)
        out, at = build.take(dim), build.rows_of(x)
        if at is None:
            at = build.take(dim)
            segment = len(build.tape.calls)
            build.outputs += [((segment, row(at + i)), value) for i, value in enumerate(x)]
        name, data = build.stage(stage)
        build.tape.cut(f"{name}({arguments(f'S2[{at}:{at + dim}]', f'S2[{out}:{out + dim}]')}{data})")
        return symbols(build.tape, [row(out + i) for i in range(dim)])


def _held_noise(build: _Build, member: Dynamics, state: Any, oracle: _Oracle, coefficients: Any, held: int) -> None:
    """One step of E, the noise alone in the momentum: the same rule, fed with sigma v instead of the gradient."""
    if member.oracle.noise.oracle_stage(member.oracle.sigma) is not None or member.oracle.noise.stage is not None:
        raise NotTraceable("the control variate of a noise that runs as a stage")
    tape, dim = build.tape, member.dim
    sigma = tape.load(f"p{oracle.offset}")
    own = symbols(tape, [row(held + d) for d in range(dim)])
    noise = sigma * oracle.deviation(state[0])
    _, new = member.rule((state[0], own), lambda _: noise, *coefficients)
    segment = len(tape.calls)
    build.outputs += [((segment, row(held + d)), value) for d, value in enumerate(np.asarray(new, dtype=object))]


def _trace(function: Callable[..., Any], part: str, *arguments: Any) -> Any:
    try:
        with np.errstate(all="ignore"):
            return function(*arguments)
    except (TracingError, TypeError, AttributeError, RecursionError) as error:
        raise NotTraceable(f"{part} cannot be traced ({error})") from error


def _coefficient_names(program: Program) -> list[tuple[int, str]]:
    return [(i, name) for i, m in enumerate(program.members) for name in m.coefficients]


def _scalars(program: Program, lines: list[str]) -> list[str]:
    """Reads the parameters that occur in `lines`."""
    used = set(_PARAMETER.findall("\n".join(lines)))
    return [f"p{i} = P[{i}]" for i in range(len(program.parameters)) if str(i) in used]


def _step_text(bodies: list[tuple[list[Item], list[Item]]], calls: list[str]) -> list[str]:
    out: list[str] = []
    for i, (lines, stores) in enumerate(bodies):
        out += lane_loops(lines, stores)
        out += calls[i : i + 1]
    return out


def _record_text(build: _Build, first: list[int], held: int, sums: int) -> list[str]:
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
        stage = getattr(observable, "value_stage", None)
        for i, member in enumerate(program.members):
            position, target = range(first[i], first[i] + member.dim), width * o + i
            x = symbols(tape, [row(r) for r in position])
            if stage is not None:
                name, data = build.stage(stage)
                at = target * LANES
                out.append(f"{name}(S2[{position.start}:{position.stop}], H[{at}:{at + LANES}]{data})")
                value: Any = tape.load(f"H[{at} + j]")
            else:
                value = _scalar(_trace(observable.value, f"the observable {observable.name}", x, *_given(p)), observable.name)
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
            c = _control(build, observable, tape, p, held) if program.control is not None and stage is None else 0.0
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


def _control(build: _Build, observable: Any, tape: Tape, p: np.ndarray, held: int) -> Any:
    """C = c grad h(y_a) . (E - rho E_a)."""
    dim = build.program.members[0].dim
    y = symbols(tape, [f"V[slot + {d * LANES} + j]" for d in range(dim)])
    slope = _trace(observable.gradient, f"the gradient of {observable.name}", y, *_given(p))
    noise = [tape.load(row(held + d)) - tape.load("rho") * tape.load(f"V[slot + {(dim + d) * LANES} + j]") for d in range(dim)]
    total: Any = 0.0
    for s, n in zip(slope, noise):
        total = total + s * n
    if isinstance(total, Traced):
        total = tape.load("c") * total
        total = (total - total == 0.0).select(total, 0.0)  # a kink or a lost path gives no control
    return total


def _scalar(value: Any, name: str) -> Any:
    value = np.asarray(value, dtype=object)
    if value.shape not in ((), (1,)):
        raise ValueError(f"the observable {name} must give one number a path; it gave an array of shape {value.shape}.")
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
