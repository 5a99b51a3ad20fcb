"""What is to be computed: one dynamics or a coupled pair, its driving noise, what is recorded and when."""

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
from sdetools.simulation.draws import DrawPlan
from sdetools.simulation.records import PAIR, SINGLE, Columns
from sdetools.starts import Law

NEVER = np.iinfo(np.int64).max
"""The first step of a loss where there was none."""


def parts_of(member: Moving, new: Any, state: Sequence[Any]) -> tuple[np.ndarray, ...]:
    """What a rule returned, as component-first arrays like the parts of `state`; ValueError for another number of parts or components."""
    try:
        parts = tuple(new)
    except TypeError:
        parts = ()
    if len(parts) != len(state):
        got = f"{len(parts)} of them" if parts else told(new)
        raise ValueError(
            f"the rule of {member.name} must return {len(state)} part{'s' * (len(state) > 1)} ({', '.join(member.parts)}); it returned "
            f"{got}. Write `return {', '.join(member.parts)}{',' * (len(state) == 1)}`, a tuple."
        )
    return tuple(_part(member, name, part, like) for name, part, like in zip(member.parts, parts, state))


def _part(member: Moving, name: str, part: Any, like: np.ndarray) -> Any:
    """A part with one number a coordinate, on each path; ValueError for anything else."""
    try:
        if len(part) != len(like):
            got = str(len(part))
        elif isinstance(like, Value):
            if (made := value(part)).size == like.size:
                return made if made.ndim == 1 else made.reshape(-1)
            got = f"{told(made)}, component by component"
        else:
            made = part if isinstance(part, np.ndarray) and part.shape == like.shape else components(part, like)
            if made.dtype.kind in "fiub":
                return made
            got = f"numbers of type {made.dtype}"
    except (TracingError, TypeError, ValueError):
        got = told(part)
    raise ValueError(
        f"the rule of {member.name} must return its part {name} with {len(like)} components, one a coordinate; it returned {got}. "
        "Compute it from the whole of x, or return a list such as [x[1], x[0]]."
    )


def told(found: Any) -> str:
    """What a function returned, for a message."""
    shape = getattr(found, "shape", None)
    if shape:
        return f"an array of shape {shape}"
    found = found[()] if isinstance(found, np.ndarray) else found
    return "nothing (None)" if found is None else "one number" if shape == () or isinstance(found, Number) else repr(found)[:80]


@dataclass(frozen=True)
class DrivingNoise:
    """The noise behind a pair: one set of draws that both take (coupled), or one set each (independent).

    Members of equal steps share draws address by address. Of members with steps h and r h the longer one takes what the short steps
    add up to: sqrt(1/r) sum z_i is the increment of the same Brownian motion, and likewise its integral over the step. Other draws
    have no such sum; they are refused, or run independently.
    """

    sets: tuple[DrawPlan, ...]
    member_set: tuple[int, ...]
    steps: tuple[int, ...]
    motions: int = 0
    gathered: int = 0

    def every(self, s: int) -> int:
        """After how many short steps set `s` is drawn anew."""
        return self.steps[self.member_set.index(s)] if len(self.sets) > 1 else 1

    def shares_sums(self, member: int) -> bool:
        """Whether a member reads sums of the other's draws."""
        return self.gathered > 0 and self.steps[member] > 1

    @staticmethod
    def of(members: Sequence[Moving], coupled: bool, every: tuple[int, ...]) -> DrivingNoise:
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
                    f"two dynamics with steps of different length can share nothing but Brownian increments, as many for each; got "
                    f"{_told(plans[0], members[0])} against {_told(plans[1], members[1])}. Pass coupled=False to run them independently."
                )
            coarse = plans[int(every[1] > 1)]
            return DrivingNoise((longer,), (0, 0), every, motions.pop(), coarse.rows)
        for plan in plans:
            if plan.draws not in ((), longer.draws) and not same:
                raise ValueError(
                    f"the two dynamics must consume the same draws to be coupled; got {_told(plans[0])} against {_told(plans[1])}. "
                    "Pass coupled=False to run them independently."
                )
        return DrivingNoise((longer,), (0, 0), (1, 1))


def _told(plan: DrawPlan, member: Moving | None = None) -> str:
    told = " + ".join(f"{type(d).__name__}({d.n})" for d in plan.draws) or "none"
    return told if member is None else f"{told} ({member.brownian or 'no'} Brownian motions)"


@dataclass(frozen=True)
class ControlVariate:
    """The control variate of a momentum pair: C_k = c_k grad h(y_a) . (E_k - rho E_a), E the noise that the momentum holds.

    `anchor_slot[k]`: where to keep (y_k, E_k) at step k, -1 for nowhere; `slot`, `factor` c_k and `fading` rho of each recorded step.
    """

    anchor_slot: np.ndarray
    slot: np.ndarray
    factor: np.ndarray
    fading: np.ndarray
    memory: np.ndarray

    @property
    def slots(self) -> int:
        return int(self.anchor_slot.max(initial=0)) + 1


@dataclass(frozen=True)
class Program:
    """One experiment's work on a path: members, start, steps, recorded steps, observables, functionals, control, driving noise."""

    members: tuple[Moving, ...]
    x0: tuple[np.ndarray | Law, ...]
    """Of each member: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law."""
    steps: int
    record: np.ndarray
    observables: tuple[Any, ...]
    """Test functions h, with a `name`, `value(x)` and `gradient(x)`."""
    functionals: tuple[Any, ...] = ()
    """Sums along a path, with a `name` and `increment(before, after)`."""
    control: ControlVariate | None = None
    coupled: bool = True
    every: tuple[int, ...] = (1, 1)
    """How many of the program's steps each member takes at once."""

    @property
    def pair(self) -> bool:
        return len(self.members) == 2

    @property
    def statistics(self) -> Columns:
        """Moments over paths for each recorded step and quantity."""
        return PAIR if self.pair else SINGLE

    @property
    def columns(self) -> int:
        """Recorded quantities: observables, then functionals."""
        return len(self.observables) + len(self.functionals)

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The names of the members' parts, each once."""
        return tuple(dict.fromkeys(name for m in self.members for name in m.parts))

    @cached_property
    def state_rows(self) -> np.ndarray:
        """Where the parts lie when those of all members stand one below another, `(members, parts, dim)`; -1 for one a member lacks."""
        rows, at = np.full((len(self.members), len(self.parts), self.members[0].dim), -1), 0
        for own, member in zip(rows, self.members):
            for name in member.parts:
                own[self.parts.index(name)] = np.arange(at, at + member.dim)
                at += member.dim
        return rows

    @property
    def positions(self) -> np.ndarray:
        """The rows of each member's first part."""
        return np.concatenate([own[self.parts.index(m.parts[0])] for own, m in zip(self.state_rows, self.members)])

    @cached_property
    def noise(self) -> DrivingNoise:
        return DrivingNoise.of(self.members, self.coupled, self.every[: len(self.members)])

    @cached_property
    def start_plan(self) -> DrawPlan:
        """Draws of the law of starts, then normals for drawn momenta: shared by coupled members, one after the other's for independent ones."""
        counts = [sum(d.n for d in m.start_draws) for m in self.members]
        n = (max(counts) if self.coupled else sum(counts)) if counts else 0
        laws = [x0.draws if isinstance(x0, Law) else () for x0 in self.x0[: 1 if self.coupled else None]]
        return DrawPlan((*(draw for own in laws for draw in own), *((Normal(n),) if n else ())))

    @cached_property
    def start_columns(self) -> int:
        """How many points the paths start at in turn, path p at number p mod this; 0 where they do not."""
        return max((x0.shape[1] for x0 in self.x0 if isinstance(x0, np.ndarray) and x0.ndim == 2), default=0)

    def start_rows(self, member: int) -> tuple[slice, slice]:
        """Which rows of the start's draws a member reads: for its law, and for its momentum."""
        laws = [x0.n_draws if isinstance(x0, Law) else 0 for x0 in self.x0]
        counts = [sum(d.n for d in m.start_draws) for m in self.members]
        before = 0 if self.coupled else member
        law, momentum = sum(laws[:before]), (laws[0] if self.coupled else sum(laws)) + sum(counts[:before])
        return slice(law, law + laws[member]), slice(momentum, momentum + counts[member])

    @cached_property
    def coefficients(self) -> np.ndarray:
        """All coefficients of all members, `(steps, n)`, or `(1, n)` when they never change."""
        values = np.hstack(
            [np.repeat(m.coefficient_values(self.steps // r), r, axis=0) for m, r in zip(self.members, self.every)]
        )
        return np.array(values[:1] if (values == values[:1]).all() else values, dtype=float, order="C")

    @cached_property
    def parameters(self) -> np.ndarray:
        """All numbers that members and observables read, one after another; before them (short step / longer step)^(1/2), if they differ."""
        scale = [np.array([max(self.every) ** -0.5])] if max(self.every) > 1 else []
        parts = scale + [m.parameters for m in self.members] + [getattr(o, "parameters", np.empty(0)) for o in self.observables]
        return np.concatenate([np.asarray(p, dtype=float) for p in parts])

    def parameter_offset(self, index: int) -> int:
        """Where the numbers of member `index`, or of observable `index - len(members)`, begin."""
        sizes = [len(m.parameters) for m in self.members] + [len(getattr(o, "parameters", ())) for o in self.observables]
        return int(max(self.every) > 1) + sum(sizes[:index])

    def fingerprint(self, *more: Any) -> str:
        """A hash of everything that decides the numbers."""
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
        if self.control is not None:
            for part in (self.control.anchor_slot, self.control.slot, self.control.factor, self.control.fading):
                add(part)
        return digest.hexdigest()
