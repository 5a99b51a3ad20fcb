"""The graphs of a program: the start of its state, one step of each length, and the recorded quantities.

Rules, oracles, functionals and observables are called once with traced values (`graph.value`). Every backend generates its code from
the nodes that result. A loss or noise that is itself compiled code becomes a call within the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools.dynamics.base import BoundOracle, Dynamics, Moving
from sdetools.graph.calls import Call
from sdetools.graph.reals import DOUBLE, Real
from sdetools.graph.tracing import NotTraceable, trace
from sdetools.graph.value import Trace, Value, is_value, value
from sdetools.graph.views import join, reshape
from sdetools.simulation.draws import DrawPlan
from sdetools.simulation.foreign import gradient_stage
from sdetools.simulation.program import Program, description, parts_of
from sdetools.starts import Law


@dataclass
class StepGraph:
    """The graph of one step of those dynamics whose step takes `every` steps of the program, the shorter steps of a pair.

    Attributes:
        every: The step length, in steps of the program; that of a single dynamics, and of the shorter step of a pair, is 1.
        outputs: Pairs (input, its value after the step), both traced values, symbolic expressions of `graph.value`. An input is the symbol of a
            part of the state before the step, such as the position.
    """

    every: int
    outputs: list[tuple[Value, Value]] = field(default_factory=list)


class Functions:
    """The graphs of a program: the start of its state, one step of each length, and a record (the values of all quantities at a recorded step).

    They consist of traced values (`graph.value.Value`): an input is a symbol that stands for an array of one path, and any other value is an
    expression in inputs. In single precision the sums of functionals use compensated summation (Kahan 1965), so their error does not grow with the
    number of steps. `rests` are the compensation terms.

    Args:
        program: The simulation.
        torch: Whether calls of torch functions are allowed in the graphs.
        real: The floating-point type of the draws and the state.

    Attributes:
        parts: The inputs of the state of each dynamics: `parts[i]` is a list with one input for the position, the momentum, ... of dynamics i.
        momentum_noise: The input `(dim,)` of the noise accumulated in the first dynamics' momentum buffer, for the control variate, or None.
        sums: The input of the sums of functionals, `(functionals * members,)` with functional by functional; None without functionals.
        rests: The input of their compensation terms, of the same shape; None in double precision.
        accumulated: The input of the draws summed for the longer step of a pair, or None.
        anchors: The inputs of a record besides the state: y and the momentum noise that the control variate keeps from an earlier step; empty
            without one.
        draws: `draws[s]` is the list of inputs of set s of draws, one for each segment (kind of draws) of its plan.
        start_draws: The inputs of the draws of the start, one for each segment.
        column: The input of the number of a path's starting point, or None if the paths do not cycle through an array of points.
        numbers: The input of `Program.parameters`.
        factor, fading: The inputs of the numbers c and rho of the control variate at a recorded step (`program.ControlVariate`).
        coefficients: The inputs of the coefficients (eta, beta, ...) of a step: `coefficients[i]` for dynamics i.
        start: Pairs (input of a part of the state, its initial value).
        steps: One `StepGraph` for each step length, the shortest first.
        record: The values of a record, `width` for each quantity (observables, then functionals) in order.

    Raises:
        NotTraceable: A part of the program cannot be traced.
        ValueError: A function of the user gives another number of components than it must, or cannot be compiled for the type.
    """

    def __init__(self, program: Program, torch: bool = False, real: Real = DOUBLE) -> None:
        self.program, self.torch, self.real, self.trace = program, torch, real, Trace()
        self.calls: dict[Any, Call] = {}
        new = self.trace.input
        members, noise = program.members, program.noise
        self.parts = [[new(f"{name}{i}", (m.dim,)) for name in m.parts] for i, m in enumerate(members)]
        dim = members[0].dim
        controlled = program.control is not None
        self.momentum_noise = new("momentum_noise", (dim,)) if controlled else None
        self.sums = new("sums", (len(members) * len(program.functionals),)) if program.functionals else None
        self.rests = None if real.double or self.sums is None else new("rests", self.sums.shape)
        self.accumulated = new("accumulated", (noise.accumulated,)) if noise.accumulated else None
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
        """All inputs of the graphs that persist from step to step, as a list.

        First the parts of the state (position, momentum, ...) of each dynamics, then those of these inputs that exist: `momentum_noise`, `sums`,
        `rests`, `accumulated`. In this order they are the rows of the stacked state.
        """
        more = (self.momentum_noise, self.sums, self.rests, self.accumulated)
        return [*(p for parts in self.parts for p in parts), *(v for v in more if v is not None)]

    @property
    def width(self) -> int:
        """The number of values that a path records for an observable h: 1 for a single dynamics, h(x); 3 for a pair, h(x), h(z) and the control C."""
        return 3 if self.program.pair else 1

    def _inputs(self, name: str, plan: DrawPlan) -> list[Value]:
        return [self.trace.input(f"{name}_{g}", (segment.n,)) for g, segment in enumerate(plan.segments)]

    # ---- the start and the steps

    def _start(self) -> list[tuple[Value, Value]]:
        """Return the initial state, pairs (input, value) for all inputs of `state`: the starts of the members, and zeros for all others."""
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
        """Select a path's own column of points `(dim, n)`; a single point or a traced value is returned unchanged."""
        if isinstance(x, Value) or x.ndim == 1:
            return value(x)
        assert self.column is not None
        return value(np.ascontiguousarray(x.T))[self.column[0]]

    def _step(self, every: int) -> StepGraph:
        """Return the graph of one step of the members whose step takes `every` steps of the program, with the sums of draws and functionals."""
        program, step = self.program, StepGraph(every)
        moved = [value(0.0)] * (self.sums.size if self.sums is not None else 0)
        if self.accumulated is not None:
            step.outputs.append(
                (
                    self.accumulated,
                    self._accumulate(join(self.draws[0])) if every == 1 else value(np.zeros(self.accumulated.shape)),
                )
            )
        for i, member in enumerate(program.members):
            if program.every[i] == every:
                self._member(i, member, step, moved)
        if self.sums is not None:
            step.outputs += self._added(join([reshape(m, (1,)) for m in moved]))
        return step

    def _added(self, increments: Value) -> list[tuple[Value, Value]]:
        """Return the pairs (input, new value) of the sums of functionals after a step that adds `increments`, with compensation in single precision."""
        assert self.sums is not None
        if self.rests is None:
            return [(self.sums, self.sums + increments)]
        more = increments - self.rests
        total = self.sums + more
        return [(self.sums, total), (self.rests, (total - self.sums) - more)]

    def _member(self, i: int, member: Moving, step: StepGraph, moved: list[Value]) -> None:
        """Add a step of member i to the outputs of `step`, and write the increments of its functionals to their places in `moved`."""
        program, state = self.program, tuple(self.parts[i])
        z, p = self._given(i, member)
        field = _Oracle(self, member, z, p) if isinstance(member, Dynamics) else member.bind(z, p)
        coefficients = self.coefficients[i]
        new = parts_of(member, trace(member.rule, f"the rule of {member.name}", state, field, *coefficients), state)
        if program.stop is not None:
            stands = self._observed(program.stop, state[0]) != 0.0
            new = tuple(value(np.where(stands, old, moving)) for old, moving in zip(state, new))
        step.outputs += [(part, value(v)) for part, v in zip(state, new)]
        if i == 0 and self.momentum_noise is not None:
            if member.sampled:
                raise NotTraceable("the control variate of minibatch or label noise")
            noise = p[0] * field.deviation(state[0])
            step.outputs.append(
                (self.momentum_noise, value(member.rule((state[0], self.momentum_noise), lambda _: noise, *coefficients)[1]))
            )
        for f, functional in enumerate(program.functionals):
            part = f"the functional {functional.name}"
            moved[f * len(program.members) + i] = one_number(trace(functional.increment, part, state[0], value(new[0])), part)

    def _given(self, i: int, member: Moving) -> tuple[Value, Value]:
        """Return the draws that member i reads in a step, `(draws,)`, and its parameters, `(parameters,)`, as traced values.

        For the longer step of a coupled pair the draws are normalised sums of those of the shorter steps.
        """
        program, offset = self.program, self.program.parameter_offset(i)
        p = self.numbers[offset : offset + len(member.parameters)]
        count = sum(d.n for d in member.draws)
        if not program.noise.shares_sums(i):
            segments = self.draws[program.noise.member_set[i]]
            return (join(segments)[:count] if segments else value(np.zeros(0))), p
        assert self.accumulated is not None
        motions, share = member.brownian, self.numbers[0]
        total = self.accumulated[:motions] * share
        if count == motions:
            return total, p
        area = self.accumulated[motions:] * (share * share * share)
        return join([total, math.sqrt(3.0) * (2.0 * area - total)]), p

    def _accumulate(self, z: Value) -> Value:
        """Return the sums for the longer step after the draws `z` of a short step are added: increments, and their integrals if required.

        In units of the short step h: A = sum of dW_i, I = sum of (dZ_i + the earlier increments), with dW_i = z and dZ_i = (z + z' / sqrt 3) / 2,
        where z and z' are the first and the second half of the draws. The result is (A, I), or A alone.
        """
        assert self.accumulated is not None
        n = self.program.noise.motions
        total, area = self.accumulated[:n], self.accumulated[n:]
        if not area.size:
            return total + z[:n]
        return join([total + z[:n], area + (total + 0.5 * z[:n] + (0.5 / 3**0.5) * z[n : 2 * n])])

    # ---- recorded quantities

    def _column(self, o: int) -> list[Value]:
        """Return the values of quantity `o` (observables, then functionals) in a record: h(x) for one dynamics; h(x), h(z) and C for a pair.

        A diverged path makes h NaN whatever h is, because sums over the surviving paths alone would be biased. C is the control variate.
        """
        program = self.program
        if o >= len(program.observables):
            assert self.sums is not None
            at = (o - len(program.observables)) * len(program.members)
            found = [self.sums[at + i] for i in range(len(program.members))]
            return [*found, value(0.0)] if program.pair else found
        rows = [self._observed(o, parts[0]) + np.sum(parts[0] * 0.0) for parts in self.parts]
        if program.pair:
            h = program.observables[o]
            in_torch = self.torch and getattr(h, "torch_value_stage", None) is not None
            controlled = program.control is not None and not in_torch
            rows.append(self._control(h, self._numbers_of(o)) if controlled else value(0.0))
        return rows

    def _observed(self, o: int, x: Value) -> Value:
        """Return the observable with index `o` at the position `x`, a traced value `(dim,)`; the result is a traced value of shape `()`."""
        h = self.program.observables[o]
        stage = getattr(h, "torch_value_stage", None) if self.torch else None
        return self.call(stage, [x], ()) if stage is not None else observable_value(h, x, *self._numbers_of(o))

    def _numbers_of(self, o: int) -> tuple[Value, ...]:
        """Return the parameters of the observable with index `o`, a tuple of one traced value `(n,)`, or an empty one if it has none."""
        n = len(getattr(self.program.observables[o], "parameters", ()))
        offset = self.program.parameter_offset(len(self.program.members) + o)
        return (self.numbers[offset : offset + n],) if n else ()

    def _control(self, h: Any, given: Sequence[Any]) -> Value:
        """Return the control variate C = c grad h(y_a) . (E - rho E_a) of `program.ControlVariate`, or 0 where it is not finite.

        It is not finite at a kink of h, or on a diverged path. `given` are the parameters of the observable `h`, as `_numbers_of` returns them.
        """
        y, kept = self.anchors
        slope = value(trace(h.gradient, f"the gradient of {h.name}", y, *given))
        c = self.factor * np.sum(slope * (self.momentum_noise - self.fading * kept))
        return value(np.where(c - c == 0.0, c, 0.0))

    # ---- calls of compiled functions

    def call(self, stage: Any, parts: Sequence[Any], shape: tuple[int, ...]) -> Value:
        """Return a call of a compiled function as a traced value, an expression of the graph; nothing is computed.

        Args:
            stage: The compiled function and its data, a `losses.base.Stage`.
            parts: Its arguments besides the data, traced values such as the position `(dim,)`.
            shape: The shape of the result on one path, `(n,)` or `()`.

        Returns:
            The result, a traced value of this shape.

        Raises:
            NotTraceable: The function is one of torch, and the graphs must not contain those.
        """
        if getattr(stage.function, "torch_stage", False) and not self.torch:
            raise NotTraceable("a part that is a torch function")
        key = (id(stage.function), *map(id, stage.data))
        if key not in self.calls:
            tensors = stage.function if getattr(stage.function, "torch_stage", False) else None
            self.calls[key] = Call(stage.function, stage.data, tensors=tensors)
        return self.calls[key](parts, shape)


class _Oracle(BoundOracle):
    """The gradient oracle that a traced rule calls: loss and noise of one member, on the draws `z` of the step and the parameters `p`."""

    __slots__ = ("functions",)

    def __init__(self, functions: Functions, member: Dynamics, z: Value, p: Value) -> None:
        super().__init__(member.oracle, z, p, member.copies)
        self.functions = functions

    def __call__(self, x: Any) -> Any:
        x, oracle = value(x), self.oracle
        sigma, numbers, p = oracle.split(self.p)
        part = f"the noise {oracle.noise.label}"
        return trace(oracle.noisy, part, lambda: self._gradient(x, numbers), sigma, x, self.z, p, oracle.sigma)

    def _gradient(self, x: Value, p: Value) -> Any:
        """Return the gradient of the loss at `x` as a traced value `(dim,)`: an expression if possible, otherwise a call of a compiled function.

        `p` are the parameters of the loss.
        """
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
                            f"`dtype` must be 'float64' for the gradient of {loss.label}: it is compiled for float64 only; "
                            f"got {self.functions.real.name!r}. Omit its signature (@njit), so that it is compiled for any type."
                        ) from None
                    raise
        return self.functions.call(stage, [x], x.shape)

    def deviation(self, x: Value) -> Any:
        """Return the noise v at x on the step's draws as a traced value `(dim,)`, without the factor sigma."""
        noise = self.oracle.noise
        return trace(noise.value, f"the noise {noise.label}", x, self.z, self.oracle.split(self.p)[2])


def observable_value(observable: Any, x: Any, *p: Any) -> Value:
    """Return h(x), one number a path, as a traced value (a symbolic expression) of shape `()`.

    Args:
        observable: The test function h, with `name` and `value`.
        x: The position, a traced value `(dim,)`.
        *p: One traced value `(n,)` with the observable's n parameters; omitted if it has none.

    Raises:
        NotTraceable: h cannot be traced.
        ValueError: h does not give one number a path.
    """
    part = f"the observable {observable.name}"
    return one_number(trace(observable.value, part, x, *p), part)


def one_number(found: Any, part: str) -> Value:
    """Return the result of a user's function, called with traced values (symbolic expressions), as a traced value of shape `()`.

    Args:
        found: The result, a number or a traced value of one element; a comparison counts as 1 or 0.
        part: A description of the function for the error message, such as "the observable x**2".

    Raises:
        ValueError: The result is not one number per path.
    """
    if isinstance(found, (list, tuple)) and not is_value(found) and not np.shape(found):
        found = None
    try:
        made = value(found)
    except TypeError:
        made = None
    if made is None or made.size != 1:
        raise ValueError(f"{part} must give one number a path; it gave {description(found)}. Return for example x[0]**2.")
    return value(np.where(made.reshape(()), 1.0, 0.0)) if made.boolean else made.reshape(())
