"""What a program computes, as graphs: the start of its state, a step of each length, and what is recorded.

Rules, oracles, functionals and observables are called once with values (`graph.value`); every backend writes its code from the nodes that
come back. A loss or noise that is compiled code of its own becomes a call within the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools.dynamics.base import Dynamics, Moving
from sdetools.graph.calls import Call
from sdetools.graph.reals import DOUBLE, Real
from sdetools.graph.tracing import NotTraceable, trace
from sdetools.graph.value import Trace, Value, is_value, value
from sdetools.graph.views import join, reshape
from sdetools.simulation.draws import DrawPlan
from sdetools.simulation.foreign import gradient_stage
from sdetools.simulation.program import Program, parts_of, told
from sdetools.starts import Law


@dataclass
class StepGraph:
    """One step of every member that moves at once: `every` short steps of time; what each state input becomes."""

    every: int
    outputs: list[tuple[Value, Value]] = field(default_factory=list)


class Functions:
    """The graphs of a program; NotTraceable where a part of it does not trace, and `torch` says that calls of torch functions may stand.

    `state` holds the inputs that last from step to step: parts of the members (`parts[i]`), `held`, `sums`, their `rests` and `gathered`.
    Sums of functionals lose no more digits than one addition, whatever the number of steps: in single precision each has a rest, what its
    last addition rounded off (Kahan 1965). `anchors` are the inputs of a record beside them. `draws[s]` are the inputs of set s, one a segment; `start_draws` those of the start, and `column` the
    number of the column at which a path starts, if it starts at one of an array's.
    """

    def __init__(self, program: Program, torch: bool = False, real: Real = DOUBLE) -> None:
        self.program, self.torch, self.real, self.trace = program, torch, real, Trace()
        self.calls: dict[Any, Call] = {}
        new = self.trace.input
        members, noise = program.members, program.noise
        self.parts = [[new(f"{name}{i}", (m.dim,)) for name in m.parts] for i, m in enumerate(members)]
        dim = members[0].dim
        controlled = program.control is not None
        self.held = new("held", (dim,)) if controlled else None
        self.sums = new("sums", (len(members) * len(program.functionals),)) if program.functionals else None
        self.rests = None if real.double or self.sums is None else new("rests", self.sums.shape)
        self.gathered = new("gathered", (noise.gathered,)) if noise.gathered else None
        self.anchors = [new("anchor", (dim,)), new("kept", (dim,))] if controlled else []
        self.draws = [self._inputs(f"z{s}", plan) for s, plan in enumerate(noise.sets)]
        self.start_draws = self._inputs("u", program.start_plan)
        self.column = new("column", (1,)) if program.start_columns else None
        self.numbers = self.trace.uniform("P", (len(program.parameters),))
        self.factor, self.fading = self.trace.uniform("c"), self.trace.uniform("rho")
        self.coefficients = [[self.trace.uniform(f"c{i}_{name}") for name in m.coefficients] for i, m in enumerate(members)]
        self.start = self._start()
        self.steps = [self._step(every) for every in sorted(set(program.every))]
        self.record = [row for o in range(program.columns) for row in self._column(o)]

    @property
    def state(self) -> list[Value]:
        """All that lasts from step to step."""
        more = (self.held, self.sums, self.rests, self.gathered)
        return [*(p for parts in self.parts for p in parts), *(v for v in more if v is not None)]

    @property
    def width(self) -> int:
        """Rows that are recorded of a quantity: h(x), or h(x), h(z) and the control."""
        return 3 if self.program.pair else 1

    def _inputs(self, name: str, plan: DrawPlan) -> list[Value]:
        return [self.trace.input(f"{name}_{g}", (segment.n,)) for g, segment in enumerate(plan.segments)]

    # ---- the start and the steps

    def _start(self) -> list[tuple[Value, Value]]:
        """The first state; zeros for all but the members' parts."""
        program, out = self.program, []
        z = join(self.start_draws) if self.start_draws else value(np.zeros(0))
        for i, (member, x0) in enumerate(zip(program.members, program.x0)):
            law, momentum = program.start_rows(i)
            drawn = (z[momentum],) if member.start_draws else ()
            if isinstance(x0, Law):
                x0 = value(trace(x0.points, f"the {x0!r}", z[law]))
            elif drawn:
                x0 = self._at_column(x0)
            first = trace(member.start, f"the start of {member.name}", x0, *drawn)
            out += [(p, self._at_column(v)) for p, v in zip(self.parts[i], first)]
        return out + [(v, value(np.zeros(v.shape))) for v in self.state[len(out) :]]

    def _at_column(self, x: Any) -> Value:
        """A path's own column of points `(dim, n)`; a point or a value is what it is."""
        if isinstance(x, Value) or x.ndim == 1:
            return value(x)
        assert self.column is not None
        return value(np.ascontiguousarray(x.T))[self.column[0]]

    def _step(self, every: int) -> StepGraph:
        program, step = self.program, StepGraph(every)
        moved = [value(0.0)] * (self.sums.size if self.sums is not None else 0)
        if self.gathered is not None:
            step.outputs.append(
                (self.gathered, self._gather(join(self.draws[0])) if every == 1 else value(np.zeros(self.gathered.shape)))
            )
        for i, member in enumerate(program.members):
            if program.every[i] == every:
                self._member(i, member, step, moved)
        if self.sums is not None:
            step.outputs += self._added(join([reshape(m, (1,)) for m in moved]))
        return step

    def _added(self, increments: Value) -> list[tuple[Value, Value]]:
        """What the sums, and their rests, become."""
        assert self.sums is not None
        if self.rests is None:
            return [(self.sums, self.sums + increments)]
        more = increments - self.rests
        total = self.sums + more
        return [(self.sums, total), (self.rests, (total - self.sums) - more)]

    def _member(self, i: int, member: Moving, step: StepGraph, moved: list[Value]) -> None:
        program, state = self.program, tuple(self.parts[i])
        z, p = self._given(i, member)
        field = _Oracle(self, member, z, p) if isinstance(member, Dynamics) else member.bind(z, p)
        coefficients = self.coefficients[i]
        new = parts_of(member, trace(member.rule, f"the rule of {member.name}", state, field, *coefficients), state)
        step.outputs += [(part, value(v)) for part, v in zip(state, new)]
        if i == 0 and self.held is not None:
            if member.sampled:
                raise NotTraceable("the control variate of a noise of samples")
            noise = p[0] * field.deviation(state[0])
            step.outputs.append((self.held, value(member.rule((state[0], self.held), lambda _: noise, *coefficients)[1])))
        for f, functional in enumerate(program.functionals):
            part = f"the functional {functional.name}"
            moved[f * len(program.members) + i] = one_number(trace(functional.increment, part, state[0], value(new[0])), part)

    def _given(self, i: int, member: Moving) -> tuple[Value, Value]:
        """A member's draws and its numbers."""
        program, offset = self.program, self.program.parameter_offset(i)
        p = self.numbers[offset : offset + len(member.parameters)]
        count = sum(d.n for d in member.draws)
        if not program.noise.shares_sums(i):
            segments = self.draws[program.noise.member_set[i]]
            return (join(segments)[:count] if segments else value(np.zeros(0))), p
        assert self.gathered is not None
        motions, share = member.brownian, self.numbers[0]
        total = self.gathered[:motions] * share
        if count == motions:
            return total, p
        area = self.gathered[motions:] * (share * share * share)
        return join([total, math.sqrt(3.0) * (2.0 * area - total)]), p

    def _gather(self, z: Value) -> Value:
        """A step's draws added to what the longer steps of the other member will read: increments, and their integrals where asked for.

        In units of the short step h: A = sum of dW_i, I = sum of (dZ_i + the increments before), dZ_i = (z + z' / sqrt 3) / 2.
        """
        assert self.gathered is not None
        n = self.program.noise.motions
        total, area = self.gathered[:n], self.gathered[n:]
        if not area.size:
            return total + z[:n]
        return join([total + z[:n], area + (total + 0.5 * z[:n] + (0.5 / 3**0.5) * z[n : 2 * n])])

    # ---- what is recorded

    def _column(self, o: int) -> list[Value]:
        """h(x), h(z) and C of a recorded quantity. A lost path makes h NaN whatever h is: sums over survivors would be wrong in silence."""
        program = self.program
        if o >= len(program.observables):
            assert self.sums is not None
            at = (o - len(program.observables)) * len(program.members)
            found = [self.sums[at + i] for i in range(len(program.members))]
            return [*found, value(0.0)] if program.pair else found
        h = program.observables[o]
        offset = program.parameter_offset(len(program.members) + o)
        given = (self.numbers[offset : offset + len(h.parameters)],) if len(getattr(h, "parameters", ())) else ()
        stage = getattr(h, "torch_value_stage", None) if self.torch else None
        rows = []
        for parts in self.parts:
            x = parts[0]
            found = self.call(stage, [x], ()) if stage is not None else observable_value(h, x, *given)
            rows.append(found + np.sum(x * 0.0))
        if program.pair:
            rows.append(self._control(h, given) if program.control is not None and stage is None else value(0.0))
        return rows

    def _control(self, h: Any, given: Sequence[Any]) -> Value:
        """C = c grad h(y_a) . (E - rho E_a); 0 where that is not finite, for a kink or a lost path gives no control."""
        y, kept = self.anchors
        slope = value(trace(h.gradient, f"the gradient of {h.name}", y, *given))
        c = self.factor * np.sum(slope * (self.held - self.fading * kept))
        return value(np.where(c - c == 0.0, c, 0.0))

    # ---- calls of compiled functions

    def call(self, stage: Any, parts: Sequence[Any], shape: tuple[int, ...]) -> Value:
        """A stage on rows of values; NotTraceable for one of torch where torch does not run."""
        if getattr(stage.function, "torch_stage", False) and not self.torch:
            raise NotTraceable("a part that is given to torch")
        key = (id(stage.function), *map(id, stage.data))
        if key not in self.calls:
            tensors = stage.function if getattr(stage.function, "torch_stage", False) else None
            self.calls[key] = Call(stage.function, stage.data, tensors=tensors)
        return self.calls[key](parts, shape)


class _Oracle:
    """What a traced rule calls: loss and noise of one member on the step's draws, traced or as calls."""

    def __init__(self, functions: Functions, member: Dynamics, z: Value, p: Value) -> None:
        self.functions, self.oracle, self.p = functions, member.oracle, p
        n = self.oracle.noise.n_draws
        self.z, self.extra = z[:n], z[n:]

    def __call__(self, x: Any) -> Any:
        x, oracle = value(x), self.oracle
        sigma, numbers, p = oracle.split(self.p)
        part = f"the noise {oracle.noise.label}"
        return trace(oracle.noisy, part, lambda: self._gradient(x, numbers), sigma, x, self.z, p, oracle.sigma)

    def _gradient(self, x: Value, p: Value) -> Any:
        """The gradient traced, or else a compiled function."""
        loss = self.oracle.loss
        stage = loss.torch_stage
        if stage is None:
            try:
                return trace(loss.gradient, f"the gradient of {loss.label}", x, p)
            except NotTraceable:
                function = getattr(loss, "function", None)
                stage = gradient_stage(function, loss.dim, self.functions.real.name) if function is not None else None
                if stage is None:
                    if function is not None and gradient_stage(function, loss.dim, DOUBLE.name) is not None:
                        raise ValueError(
                            f"`dtype` must be 'float64' for the gradient of {loss.label}: it is compiled for float64 only; got "
                            f"{self.functions.real.name!r}. Leave its signature out (@njit), so that it is compiled for what it is given."
                        ) from None
                    raise
        return self.functions.call(stage, [x], x.shape)

    def deviation(self, x: Value) -> Any:
        """The noise v at `x` on the step's draws, without sigma."""
        noise = self.oracle.noise
        return trace(noise.value, f"the noise {noise.label}", x, self.z, self.oracle.split(self.p)[2])


def observable_value(observable: Any, x: Any, *p: Any) -> Value:
    """h(x), traced."""
    part = f"the observable {observable.name}"
    return one_number(trace(observable.value, part, x, *p), part)


def one_number(found: Any, part: str) -> Value:
    """A traced number, out of whatever holds one."""
    if isinstance(found, (list, tuple)) and not is_value(found) and not np.shape(found):
        found = None
    try:
        made = value(found)
    except TypeError:
        made = None
    if made is None or made.size != 1:
        raise ValueError(f"{part} must give one number a path; it gave {told(found)}. Return for example x[0]**2.")
    return value(np.where(made.reshape(()), 1.0, 0.0)) if made.boolean else made.reshape(())
