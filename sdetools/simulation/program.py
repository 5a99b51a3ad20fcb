"""The description of a simulation: its dynamics, starting points, driving noise, recorded steps and observables."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Number
from typing import Any

import numpy as np

from sdetools._arrays import components
from sdetools.dynamics.base import Moving
from sdetools.graph.errors import TracingError
from sdetools.graph.value import Value, value
from sdetools.noise.base import Normal
from sdetools.simulation.coefficient_rows import coefficient_rows
from sdetools.simulation.draws import DrawPlan
from sdetools.simulation.records import PAIR, SINGLE, Columns
from sdetools.starts import Law

NEVER = np.iinfo(np.int64).max
"""The divergence time of a member none of whose paths diverged: the largest int64."""


def parts_of(member: Moving, new: Any, state: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """Check the value that a rule returned for the state after a step, and return it as one array for each part (position, momentum, ...).

    Args:
        member: The dynamics whose rule was called, for its names in error messages.
        new: The value that the rule returned: a sequence with one part for each of `member.parts`.
        state: The parts of the state before the step, NumPy arrays `(dim,)` or `(dim, paths)`, or traced values `(dim,)`.

    Returns:
        A tuple of arrays or traced values, the parts of the new state in order, each with the shape of its part in `state`.

    Raises:
        ValueError: The rule returned another number of parts or components, or values that are not real numbers.
    """
    try:
        parts = tuple(new)
    except TypeError:
        parts = ()
    if len(parts) != len(state):
        got = f"{len(parts)} of them" if parts else description(new)
        raise ValueError(
            f"the rule of {member.name} must return {len(state)} part{'s' * (len(state) > 1)} ({', '.join(member.parts)}); it returned "
            f"{got}. Write `return {', '.join(member.parts)}{',' * (len(state) == 1)}`, a tuple."
        )
    return tuple(_part(member, name, part, like) for name, part, like in zip(member.parts, parts, state))


def _part(member: Moving, name: str, part: Any, like: np.ndarray) -> Any:
    """Return the part `name` of a rule's result as an array or traced value with the shape of `like`; ValueError for another shape or type."""
    try:
        if len(part) != len(like):
            got = str(len(part))
        elif isinstance(like, Value):
            if (made := value(part)).size == like.size:
                return made if made.ndim == 1 else made.reshape(-1)
            got = f"{description(made)}, component by component"
        else:
            made = part if isinstance(part, np.ndarray) and part.shape == like.shape else components(part, like)
            if made.dtype.kind in "fiub":
                return made
            got = f"numbers of type {made.dtype}"
    except (TracingError, TypeError, ValueError):
        got = description(part)
    raise ValueError(
        f"the rule of {member.name} must return its part {name} with {len(like)} components, one a coordinate; it returned {got}. "
        "Compute it from the whole of x, or return a list such as [x[1], x[0]]."
    )


def description(found: Any) -> str:
    """Return a short text for the value that a user's function returned, to be read after "it returned" in an error message.

    Args:
        found: Any object.

    Returns:
        "an array of shape (2, 3)", "one number", "nothing (None)", or the first 80 characters of the object's representation.
    """
    shape = getattr(found, "shape", None)
    if shape:
        return f"an array of shape {shape}"
    found = found[()] if isinstance(found, np.ndarray) else found
    return "nothing (None)" if found is None else "one number" if shape == () or isinstance(found, Number) else repr(found)[:80]


@dataclass(frozen=True)
class DrivingNoise:
    """The driving noise of one dynamics or of a pair: which random draws its members, the one or two dynamics, read in each step.

    Both members of a coupled pair read one set of draws, those of an independent pair a set each. Coupled members of equal step length share
    their draws address by address. If the members have steps h and r h, the longer step uses sums of the draws z_1, ..., z_r of the short
    steps within it: sqrt(1/r) sum_i z_i is the increment of the same Brownian motion, in units of its standard deviation, and likewise for the
    integral of the motion over the step. Other kinds of draws have no such sum; they are refused unless the members are independent. A step of
    the program is the short step h.

    Attributes:
        sets: The draws of one step of each set: one set if the members are coupled or there is one member, otherwise two.
        member_set: For each member, the index in `sets` of the set that it reads.
        steps: The step length of each member, in steps of the program, such as (1, 4).
        motions: The number n of Brownian motions of a coupled pair with unequal steps; 0 for all others.
        accumulated: The number of rows in which draws are summed for the longer step: n for increments, 2 n with their integrals; 0 if the steps
            are equal.
    """

    sets: tuple[DrawPlan, ...]
    member_set: tuple[int, ...]
    steps: tuple[int, ...]
    motions: int = 0
    accumulated: int = 0

    def every(self, s: int) -> int:
        """Return the number of steps of the program (the shorter steps of a pair) from one draw of a set to the next.

        Args:
            s: The index of the set in `sets`, 0 or 1.

        Returns:
            The step length of the dynamics that reads the set if each has its own; 1 for a single set, which is drawn in every step.
        """
        return self.steps[self.member_set.index(s)] if len(self.sets) > 1 else 1

    def shares_sums(self, member: int) -> bool:
        """Return whether a dynamics reads sums of the other one's draws: True only for the longer step of a coupled pair of unequal steps.

        Args:
            member: The index of the dynamics, 0 or 1.
        """
        return self.accumulated > 0 and self.steps[member] > 1

    @staticmethod
    def of(members: Sequence[Moving], coupled: bool, every: tuple[int, ...]) -> DrivingNoise:
        """Return the driving noise of one dynamics or of a pair.

        Args:
            members: One or two dynamics.
            coupled: Whether the two share their draws; ignored for one.
            every: The step length of each member, in steps of the program (the shorter steps of a pair), so that one of them is 1.

        Raises:
            ValueError: The members are to be coupled but cannot share their draws: they need different draws, or their steps are unequal and the
                draws are not increments of the same number of Brownian motions.
        """
        plans = [DrawPlan(tuple(m.draws)) for m in members]
        if len(plans) == 1:
            return DrivingNoise((plans[0],), (0,), every)
        if not coupled:
            return DrivingNoise(tuple(plans), (0, 1), every)
        longer = max(plans, key=lambda p: p.rows)
        motions = {m.brownian for m in members}
        same = len(motions) == 1 and 0 not in motions
        if every != (1, 1) and 0 not in [p.rows for p in plans]:
            if not same:
                raise ValueError(
                    f"two dynamics with unequal steps can share only Brownian increments, the same number for each; got "
                    f"{_draws(plans[0], members[0])} against {_draws(plans[1], members[1])}. Pass coupled=False to run them independently."
                )
            coarse = plans[int(every[1] > 1)]
            return DrivingNoise((longer,), (0, 0), every, motions.pop(), coarse.rows)
        for plan in plans:
            if plan.draws not in ((), longer.draws) and not same:
                raise ValueError(
                    f"the two dynamics must consume the same draws to be coupled; got {_draws(plans[0])} against {_draws(plans[1])}. "
                    "Pass coupled=False to run them independently."
                )
        return DrivingNoise((longer,), (0, 0), (1, 1))


def _draws(plan: DrawPlan, member: Moving | None = None) -> str:
    """Return a text such as "Normal(2) + Sign(3) (2 Brownian motions)" for an error message; without a member, the draws alone."""
    draws = " + ".join(f"{type(d).__name__}({d.n})" for d in plan.draws) or "none"
    return draws if member is None else f"{draws} ({member.brownian or 'no'} Brownian motions)"


@dataclass(frozen=True)
class ControlVariate:
    """The control variate of a pair whose first dynamics has momentum: C_k = c_k grad h(y_a) . (E_k - rho E_a) for an observable h.

    x and z are the positions of the two dynamics, m is the momentum buffer of the first, E the part of m that gradient noise has contributed,
    and y_k = x_k - memory_k m_k. The expectation of C is 0, so that subtracting a multiple of it from h(x) - h(z) reduces the variance and keeps
    the mean. a is an earlier step, the anchor of step k, at which (y_a, E_a) was stored in a slot, a place that later anchors may use again.

    Attributes:
        anchor_slot: For each step k, the slot in which (y_k, E_k) is stored; -1 for none. An integer array `(steps + 1,)`.
        slot: For each recorded step, the slot of its anchor a, an integer array `(records,)`.
        factor: For each recorded step, the factor c_k, `(records,)`; it is `memory` at that step.
        fading: For each recorded step k, the factor rho by which m decays from step a to step k, such as beta^(k - a), `(records,)`.
        memory: For each step k, the factor of m in y_k, `(steps + 1,)`.
    """

    anchor_slot: np.ndarray
    slot: np.ndarray
    factor: np.ndarray
    fading: np.ndarray
    memory: np.ndarray

    @property
    def slots(self) -> int:
        """The number of slots, places for states (y, E) kept from earlier steps: the largest entry of `anchor_slot` plus 1, at least 1."""
        return int(self.anchor_slot.max(initial=0)) + 1


@dataclass(frozen=True)
class Program:
    """The description of one simulation: members, starting points, steps, observables, functionals, control variate and noise.

    It is independent of the number of paths, the seed and the backend. All members take `steps` steps of equal length; if those of a pair are
    unequal, `steps` counts the short ones, called steps of the program. The stacked state is an array `(rows, paths)`: the parts (position,
    momentum, ...; `dim` rows each) of the first member, then those of the second, then the rows described at `sum_rows`.

    Attributes:
        members: One dynamics, or the two of a pair.
        x0: The start of each member: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law (`starts.Law`).
        steps: The number of steps.
        record: The steps at which observables and functionals are recorded, an increasing integer array `(records,)`; 0 is the start.
        observables: Test functions h of the position, with `name`, `value(x)` and `gradient(x)`, such as `studies.observables.Observable`.
        functionals: Sums along a path, with `name` and `increment(before, after)`, a function of the positions before and after a step.
        control: The control variate of a pair with momentum, or None.
        coupled: Whether the members of a pair share their draws.
        every: The step length of each member, in steps of the program; one of them is 1. For a single member (1,) and (1, 1) mean the same.
        stop: The index of an observable with the values 0 and 1: a path of a single dynamics stands still from the first step at which it is 1.
            Functionals must not change then, because paths that all stand still take no more steps. None lets all paths move.
    """

    members: tuple[Moving, ...]
    x0: tuple[np.ndarray | Law, ...]
    steps: int
    record: np.ndarray
    observables: tuple[Any, ...]
    functionals: tuple[Any, ...] = ()
    control: ControlVariate | None = None
    coupled: bool = True
    every: tuple[int, ...] = (1, 1)
    stop: int | None = None

    @property
    def pair(self) -> bool:
        """Whether the program simulates a pair of dynamics, and not a single one."""
        return len(self.members) == 2

    @property
    def statistics(self) -> Columns:
        """The statistics (means over paths, and sums of products about them) of each recorded quantity: `records.PAIR` for two dynamics, else `SINGLE`."""
        return PAIR if self.pair else SINGLE

    @property
    def columns(self) -> int:
        """The number of recorded quantities: the number of observables h(x) plus that of functionals (sums along a path)."""
        return len(self.observables) + len(self.functionals)

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts of the state of all dynamics, such as ("x", "m"), each once, in the order of their first occurrence."""
        return tuple(dict.fromkeys(name for m in self.members for name in m.parts))

    @cached_property
    def state_rows(self) -> np.ndarray:
        """The row of each coordinate in the stacked state `(rows, paths)`, an integer array `(members, parts, dim)`; -1 for a part that a member lacks.

        A member is one of the dynamics (one, or two of a pair). The parts (position, momentum, ...) along the second axis are those of `parts`. The
        stacked state has the parts of the first member, in the member's order, then those of the second. SGDM with the state (x, m) against SGD in
        two dimensions has the rows [[[0, 1], [2, 3]], [[4, 5], [-1, -1]]].
        """
        rows, at = np.full((len(self.members), len(self.parts), self.members[0].dim), -1), 0
        for own, member in zip(rows, self.members):
            for name in member.parts:
                own[self.parts.index(name)] = np.arange(at, at + member.dim)
                at += member.dim
        return rows

    @property
    def sum_rows(self) -> np.ndarray:
        """The rows of the sums of functionals in the stacked state `(rows, paths)`, an integer array `(functionals * members,)`.

        The rows of the first functional come first, one for each of the one or two dynamics. They follow the rows of the parts (position, momentum,
        ...) of all dynamics and, if there is a control variate, the `dim` rows of the noise in the first one's momentum buffer.
        """
        first = sum(len(m.parts) * m.dim for m in self.members) + (self.members[0].dim if self.control is not None else 0)
        return np.arange(first, first + len(self.members) * len(self.functionals))

    @property
    def positions(self) -> np.ndarray:
        """The rows of the positions x of all dynamics in the stacked state `(rows, paths)`, an integer array `(members * dim,)`, the first one's first."""
        return np.concatenate([own[self.parts.index(m.parts[0])] for own, m in zip(self.state_rows, self.members)])

    @cached_property
    def noise(self) -> DrivingNoise:
        """The driving noise of the one or two dynamics: which random draws each of them reads in each step."""
        return DrivingNoise.of(self.members, self.coupled, self.every[: len(self.members)])

    @cached_property
    def start_plan(self) -> DrawPlan:
        """The random draws of the start: those of the law of starting points, then normals for random momenta.

        The two dynamics of a coupled pair share them; those of an independent pair have their own: the first one's law, the second one's law, the first
        one's momentum, the second one's momentum. Without random starts the plan is empty.
        """
        counts = [sum(d.n for d in m.start_draws) for m in self.members]
        n = (max(counts) if self.coupled else sum(counts)) if counts else 0
        laws = [x0.draws if isinstance(x0, Law) else () for x0 in self.x0[: 1 if self.coupled else None]]
        return DrawPlan((*(draw for own in laws for draw in own), *((Normal(n),) if n else ())))

    @cached_property
    def start_columns(self) -> int:
        """The number n of starting points that the paths cycle through, path p at point p mod n; 0 if there is no such array."""
        return max((x0.shape[1] for x0 in self.x0 if isinstance(x0, np.ndarray) and x0.ndim == 2), default=0)

    def start_rows(self, member: int) -> tuple[slice, slice]:
        """Return which rows of the start's draws, an array `(start_plan.rows, paths)`, one of the dynamics reads.

        Args:
            member: The index of the dynamics, 0 or 1.

        Returns:
            Two slices of these rows: those for the law of its starting point, and those for its random momentum. A slice is empty if the start does
            not need such draws.
        """
        laws = [x0.n_draws if isinstance(x0, Law) else 0 for x0 in self.x0]
        counts = [sum(d.n for d in m.start_draws) for m in self.members]
        before = 0 if self.coupled else member
        law, momentum = sum(laws[:before]), (laws[0] if self.coupled else sum(laws)) + sum(counts[:before])
        return slice(law, law + laws[member]), slice(momentum, momentum + counts[member])

    @cached_property
    def coefficients(self) -> np.ndarray:
        """The coefficients (eta, beta, ...) of all dynamics, a float64 array `(steps, n)`, or `(1, n)` if they are constant.

        Row k holds the coefficients of step k of the program. The columns are `coefficients` of the first dynamics, then of the second. Those of a
        dynamics with a longer step are repeated for each of the short steps within it.

        Raises:
            ValueError: The method `coefficient_values` of a dynamics returns no array of real numbers of the right shape.
        """
        values = np.hstack([np.repeat(coefficient_rows(m, self.steps // r), r, axis=0) for m, r in zip(self.members, self.every)])
        return np.array(values[:1] if (values == values[:1]).all() else values, dtype=float, order="C")

    @cached_property
    def parameters(self) -> np.ndarray:
        """The constant numbers in the formulas of dynamics and observables, a new float64 array `(n,)`: dynamics first, then observables, in order.

        If step lengths differ, there is one more number in front, (short step / long step)^(1/2), the factor of summed Brownian increments.
        """
        scale = [np.array([max(self.every) ** -0.5])] if max(self.every) > 1 else []
        parts = scale + [m.parameters for m in self.members] + [getattr(o, "parameters", np.empty(0)) for o in self.observables]
        return np.concatenate([np.asarray(p, dtype=float) for p in parts])

    def parameter_offset(self, index: int) -> int:
        """Return the position in the array `parameters` of the first number that one of the dynamics or observables reads, an integer.

        Args:
            index: The index of the dynamics (0 or 1), or the number of dynamics plus the index of the observable.
        """
        sizes = [len(m.parameters) for m in self.members] + [len(getattr(o, "parameters", ())) for o in self.observables]
        return int(max(self.every) > 1) + sum(sizes[:index])

    def fingerprint(self, *more: Any) -> str:
        """Return a hash of everything in the program that determines the results, as 64 hexadecimal digits.

        It is the key under which a store keeps the finished chunks of a run.

        Args:
            *more: Further values to be included, such as the seed and the number of paths: arrays, or objects whose `repr` determines them.
        """
        digest = hashlib.sha256()

        def add(value: Any) -> None:
            if isinstance(value, np.ndarray):
                digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
            else:
                digest.update((hex(value) if isinstance(value, int) and value.bit_length() > 64 else repr(value)).encode())
            digest.update(b"|")

        for member, x0 in zip(self.members, self.x0):
            for part in (member.identity, x0.identity if isinstance(x0, Law) else x0, *member.start_numbers):
                add(part)
        for part in (self.steps, self.record, self.coefficients, self.parameters, self.coupled, self.every, *more):
            add(part)
        for item in (*self.observables, *self.functionals):
            add(getattr(item, "identity", item.name))
        if self.stop is not None:
            add(f"stop {self.stop}")
        if self.control is not None:
            for part in (self.control.anchor_slot, self.control.slot, self.control.factor, self.control.fading):
                add(part)
        return digest.hexdigest()
