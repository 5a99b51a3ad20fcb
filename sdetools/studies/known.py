"""What the computation itself says of recorded values, before any sampling error: which are exact, their bounds, their rounding.

A spread of zero over the paths proves nothing: an event that none of them met has one. A value counts as exact

- where no draw enters: a program without draws, the start from points, two members that are one and the same;
- where an analytic function of the draws is constant: constant on draws with a density, it is constant everywhere.

Floating-point rounding: each step rounds the state a few times, and what it left out grows as the dynamics lets a small error grow. A
value of size H at step k therefore carries an error of up to `ROUNDINGS` eps (k + 1) A_k H, A_k >= 1 the growth of a perturbation of the
start, eps that of the paths' type. Nothing below it is resolved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sdetools._arrays import spread
from sdetools.graph.value import Trace
from sdetools.noise.base import Normal, Sign
from sdetools.simulation.draws import DrawPlan, fill
from sdetools.simulation.philox import Stream, stream_key
from sdetools.simulation.program import Program
from sdetools.simulation.records import PAIR
from sdetools.simulation.reference import run_reference
from sdetools.starts import Law
from sdetools.studies.observables import observables
from sdetools.studies.ranges import Range, analytic, range_of_observable
from sdetools.studies.statistics import PairStatistics, SingleStatistics

ROUNDINGS = 4.0
"""Roundings of half a unit, relative to its size, that one step adds to a value: of the draw's term, the drift's, their sum, and h."""
EPS = float(np.finfo(float).eps)
"""Of the paths on which constancy and growth are looked at."""
FEW = 1000
"""A spread that is carried by fewer paths may miss as much again: then the bounds of the observable enter the interval."""
PROOF_PATHS, PROOF_STEPS = 32, 20_000
"""The paths by plain NumPy on which constancy and growth are looked at, and the longest run for which that is done."""
PROOF = Stream(0, proof=True)
"""Their draws."""
UNLIKELY = 25.0
"""exp(-25) is the chance that some outcome of signs was not met after all."""
SCALES = (1.0, 8.0, 64.0)
NUDGE = 1e-7
"""How far a start is moved, relative to its size, to see how small changes grow."""
SMALL = {"float64": 1e-6, "float32": 2.5e-3}
"""Differences of a pair below this part of the values, about eps^(3/8), are looked at more closely: they may be rounding that the dynamics let
grow."""


@dataclass(frozen=True)
class Facts:
    """What a result keeps of `Known`: arrays `(records, columns)`, and which columns have two values."""

    random: np.ndarray
    drawn: np.ndarray
    stderr: np.ndarray
    rounding: np.ndarray
    least: np.ndarray
    most: np.ndarray
    two_valued: tuple[bool, ...]

    def along(self, o: int) -> dict[str, np.ndarray]:
        """The fields of the Estimates of column `o`, over the records."""
        return {name: getattr(self, name)[:, o] for name in ("random", "rounding", "least", "most")}

    def of(self, t: int, o: int) -> dict[str, Any]:
        """The fields of the Estimate of record `t`, column `o`."""
        return {name: values[t].item() for name, values in self.along(o).items()} | {"two_valued": self.two_valued[o]}


@dataclass(frozen=True)
class Known:
    """What is known of the columns of a program's results; arrays are `(records, columns)`.

    `random`: whether draws enter. `spread`: the standard deviation over paths, 0 where it cannot be told from rounding. `rounding`: the
    error of floating-point numbers. `least`, `most`: bounds that the interval has to reckon with, infinite where there are none.
    """

    program: Program
    statistics: SingleStatistics | PairStatistics

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.program.record), self.program.columns

    @cached_property
    def ranges(self) -> tuple[Range, ...]:
        """Of each column: the range of h, or of the difference of two values of it."""
        program = self.program
        own = [self._range(o, h) for o, h in enumerate(program.observables)] + [Range()] * len(program.functionals)
        return tuple(r.minus(r) for r in own) if program.pair else tuple(own)

    def _range(self, o: int, h: Any) -> Range:
        """What is stated, and is it so; else what the formula shows."""
        if h.range is None:
            return range_of_observable(h, self.program.members[0].dim)
        for mean, _ in self._runs:
            seen, slack = mean[:, o][np.isfinite(mean[:, o])], 1e-9 * (h.range.high - h.range.low)
            if seen.size and not h.range.low - slack <= seen.min() <= seen.max() <= h.range.high + slack:
                raise ValueError(
                    f"the observable {h.name} must lie in [{h.range.low:g}, {h.range.high:g}], as is stated; "
                    f"got means from {seen.min():.6g} to {seen.max():.6g}. State wider bounds."
                )
        return h.range

    @property
    def _runs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mean and variance of h under each member."""
        s = self.statistics
        return [(s.mean, s.variance)] if isinstance(s, SingleStatistics) else [s.member("x"), s.member("z")]

    @cached_property
    def two_valued(self) -> tuple[bool, ...]:
        """Which columns are counts of a yes: their interval is that of a binomial."""
        return tuple(r.values is not None and len(r.values) == 2 for r in self.ranges)

    @cached_property
    def _sizes(self) -> np.ndarray:
        """How large the numbers are from which each column is computed, `(columns,)`: |h| along the run, and |x . grad h| at the start."""
        at = self._starts
        with np.errstate(all="ignore"):
            squares = np.array([m * m + np.nan_to_num(v, posinf=0.0) for m, v in self._runs])
            size = np.sqrt(squares.max(axis=(0, 1), initial=0.0, where=np.isfinite(squares)))
            for o, h in enumerate(self.program.observables):
                slopes = spread(np.asarray(h.gradient(at), dtype=float), at)
                terms = np.abs(np.concatenate([np.ravel(h.value(at)), (np.abs(at * slopes)).sum(axis=0)]))
                size[o] = terms.max(initial=size[o], where=np.isfinite(terms))
        return size

    @cached_property
    def _starts(self) -> np.ndarray:
        """The points at which paths start, `(dim, n)`; of a law as many as are looked at."""
        x0 = self.program.x0[0]
        if isinstance(x0, Law):
            z = fill(DrawPlan(x0.draws), stream_key(0, PROOF, None), np.arange(PROOF_PATHS), 0)
            return np.asarray(x0.points(z), dtype=float)
        return x0 if x0.ndim == 2 else x0[:, None]

    @cached_property
    def _reach(self) -> np.ndarray:
        """How far from 0 each coordinate starts."""
        return np.abs(self._starts).max(axis=1)

    @cached_property
    def _rounding_of_stable(self) -> np.ndarray:
        coarser = float(np.finfo(self._dtype).eps) / EPS
        return coarser * self._roundings[:, None] * self._sizes

    @cached_property
    def _dtype(self) -> str:
        return self.statistics.sums.dtype

    @property
    def _roundings(self) -> np.ndarray:
        """The relative error that rounding in double leaves after each record's steps, `(records,)`."""
        return ROUNDINGS * EPS * (self.program.record / min(self.program.every) + 1.0)

    @cached_property
    def _spread(self) -> np.ndarray:
        return np.sqrt(self.statistics.variance)

    @cached_property
    def rounding(self) -> np.ndarray:
        """The error of floating-point numbers; 0 where both members are the same numbers."""
        if self.program.pair and self._same:
            return np.zeros(self._shape)
        floor = self._rounding_of_stable
        if self.program.pair and self.program.coupled:
            with np.errstate(invalid="ignore"):
                close = (self._spread > floor) & (self._spread < SMALL[self._dtype] * self._sizes)
            if close.any():
                floor = floor * self._growth
        return floor

    @cached_property
    def _growth(self) -> np.ndarray:
        """A_k: by how much a small change of the start has grown by each record, relative to the sizes, at least 1."""
        program = self.program
        if program.steps > PROOF_STEPS:
            return np.ones(self._shape)
        seen: dict[str, np.ndarray] = {}
        self._reference(program, lambda _, states: seen.update(x=states[0][0]))
        ends = seen["x"]
        reached = np.abs(ends).max(axis=1, initial=0.0, where=np.isfinite(ends))
        nudge = NUDGE * np.maximum(self._reach, reached)
        first, every = program.members[0], program.every[0]
        twin = replace(
            program, members=(first, first), x0=(program.x0[0], _moved(program.x0[0], nudge)), steps=program.steps // every,
            record=program.record // every, control=None, coupled=True, every=(1, 1),
        )  # fmt: skip
        moments = self._reference(twin)
        with np.errstate(all="ignore"):
            moved = np.sqrt(moments[..., PAIR.index("d")] ** 2 + moments[..., PAIR.index("d2")] / PROOF_PATHS) / (
                NUDGE * self._sizes
            )
        return np.maximum.accumulate(np.where(np.isfinite(moved), np.maximum(moved, 1.0), 1.0), axis=0)

    @staticmethod
    def _reference(program: Program, look: Any = None, scale: float = 1.0) -> np.ndarray:
        """Moments over a few paths, on draws that no run takes; those of two values are replaced by normal ones."""
        noise = program.noise
        normal = tuple(DrawPlan(tuple(Normal(d.n) if isinstance(d, Sign) else d for d in plan.draws)) for plan in noise.sets)
        program = replace(program)
        program.__dict__["noise"] = replace(noise, sets=normal)
        keys = np.array([stream_key(0, PROOF, role) for role in (*range(len(normal)), None)], np.uint64)
        return run_reference(program, keys, 0, PROOF_PATHS, look, scale)

    @cached_property
    def _same(self) -> bool:
        """Whether a pair is one dynamics twice, on the same draws."""
        program = self.program
        if not program.pair or not program.coupled or program.every != (1, 1):
            return False
        first, second = program.members
        steps = program.steps
        return (
            first.identity == second.identity
            and first.draws == second.draws
            and all(
                np.array_equal(np.asarray(a), np.asarray(b))
                for a, b in [
                    (first.parameters, second.parameters), program.x0,
                    (first.coefficient_values(steps), second.coefficient_values(steps)),
                ]
            )
            and len(first.start_numbers) == len(second.start_numbers)
            and all(map(np.array_equal, first.start_numbers, second.start_numbers))
        )  # fmt: skip

    @cached_property
    def drawn(self) -> np.ndarray:
        """Whether the program draws anything that can have reached the points by then."""
        program, out = self.program, np.zeros(self._shape, bool)
        if program.start_plan.rows or any(plan.rows for plan in program.noise.sets):
            out[program.record > 0] = True
            out[program.record == 0] = any(_drawn_start(m, x0) for m, x0 in zip(program.members, program.x0))
        return out

    @cached_property
    def random(self) -> np.ndarray:
        """Whether draws enter the values."""
        if self._same:
            return np.zeros(self._shape, bool)
        with np.errstate(invalid="ignore"):
            flat = self.drawn & (self._spread <= self.rounding)
        if (left := flat & ~self._all_met[:, None]).any():
            flat &= ~left | self._constant(left.any(axis=0))
        return self.drawn & ~flat

    @property
    def _all_met(self) -> np.ndarray:
        """Where so many paths met every outcome of the draws before, `(records,)`: signs have 2^n, and all are as likely."""
        program, draws = self.program, [d for plan in self.program.noise.sets for d in plan.draws]
        if program.start_plan.rows or not all(isinstance(d, Sign) for d in draws):
            return np.zeros(len(program.record), bool)
        signs = np.minimum(sum(d.n for d in draws) * program.record, 60)
        return 2.0**signs * (np.log(2.0) * signs + UNLIKELY) <= self.statistics.sums.paths

    def _constant(self, columns: np.ndarray) -> np.ndarray:
        """Where the values of `columns` are the same for all draws: proven for analytic programs that run in a moment.

        Constant on draws with a density, an analytic function is constant everywhere; members at one point agree under every h. Numbers
        are not analytic, they saturate and underflow: so the draws are taken at several `SCALES`, up to 64 standard deviations' size.
        """
        program = self.program
        normal = all(isinstance(d, (Normal, Sign)) for plan in program.noise.sets for d in plan.draws)
        smooth_step = normal and program.steps <= PROOF_STEPS and analytic(lambda trace: _step(program, trace))
        if not smooth_step or not self._smooth_start:
            return np.zeros(self._shape, bool)
        functions = [lambda x, _, h=h: h.value(x) for h in program.observables] + [f.increment for f in program.functionals]
        dim, found = program.members[0].dim, np.zeros(self._shape, bool)
        smooth = np.array([
            wanted and analytic(lambda trace: f(trace.input("x", (dim,)), trace.input("y", (dim,))))
            for f, wanted in zip(functions, columns.tolist())
        ])  # fmt: skip
        if smooth.any():
            found = smooth & np.logical_and.reduce([self._flat_in(program, scale) for scale in SCALES])
        if program.pair and program.coupled and (columns & ~found.all(axis=0)).any():
            found |= np.logical_and.reduce([self._at_one_point(scale) for scale in SCALES])[:, None]
        return found

    @property
    def _smooth_start(self) -> bool:
        """Whether a few paths show all starts: few points, or an analytic function of draws with a density."""
        law = self.program.x0[0]
        if not isinstance(law, Law):
            return self._starts.shape[1] <= PROOF_PATHS
        density = all(isinstance(d, Normal) for d in law.draws)
        return density and analytic(lambda trace: law.points(trace.input("u", (law.n_draws,))))

    def _flat_in(self, program: Program, scale: float) -> np.ndarray:
        """Where the values of a few paths agree up to the rounding of their own size then and there.

        A size from elsewhere would not do: a steep sigmoid far from its step is nothing beside what it was at the start, but not constant.
        """
        names, moments = program.statistics, self._reference(program, None, scale)
        own, spread = (("x", "z"), "d2") if program.pair else (("h",), "h2")
        with np.errstate(all="ignore"):
            squares = [moments[..., names.index(m)] ** 2 + moments[..., names.index(m + "2")] / PROOF_PATHS for m in own]
            found = np.sqrt(moments[..., names.index(spread)] / PROOF_PATHS)
            return (found <= self._roundings[:, None] * np.sqrt(np.max(squares, axis=0))) | _overflown(found, scale)

    def _at_one_point(self, scale: float) -> np.ndarray:
        """Where both members are at one point whatever is drawn, `(records,)`."""
        program = self.program
        points = observables(list(program.members[0].names), program.members[0])
        moved = replace(program, observables=points, functionals=(), control=None)
        x, z, d, xx, zz, dd, *_ = np.moveaxis(self._reference(moved, None, scale), -1, 0)
        with np.errstate(all="ignore"):
            size = np.sqrt(np.maximum.accumulate(x * x + z * z + (xx + zz) / PROOF_PATHS, axis=0) + self._reach**2)
            apart = np.sqrt(d * d + dd / PROOF_PATHS)
            return ((apart <= self._roundings[:, None] * size) | _overflown(apart, scale)).all(axis=1)

    @cached_property
    def stderr(self) -> np.ndarray:
        """Standard errors; 0 where no draw enters, and where the spread cannot be told from rounding."""
        with np.errstate(invalid="ignore"):
            return np.where(self.random & ~(self._spread <= self.rounding), self.statistics.stderr, 0.0)

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the most that a value can be, where the interval has to reckon with them: infinite elsewhere.

        Always for a mean. A difference of coupled paths is far smaller than its bounds; they enter for functions of finitely many
        values, and where fewer than `FEW` paths carry its spread.
        """
        least, most = (np.tile([getattr(r, side) for r in self.ranges], (self._shape[0], 1)) for side in ("low", "high"))
        if self.program.pair and self.program.coupled:
            counted = np.array([r.values is not None for r in self.ranges])
            aside = ~counted & (self._carriers >= FEW)
            least, most = np.where(aside, -np.inf, least), np.where(aside, np.inf, most)
        return least, most

    @cached_property
    def _carriers(self) -> np.ndarray:
        """By how many paths the spread is carried: paths / kurtosis, from how unevenly the squares fall on the groups; 0 if unseen."""
        sums = self.statistics.sums
        used = sums.counts == sums.counts.max()
        groups = int(used.sum())
        if groups < 4:
            return np.zeros(self._shape)
        squares = sums.groups[used][..., self.program.statistics.index("d2" if self.program.pair else "h2")]
        with np.errstate(all="ignore"):
            uneven = squares.var(axis=0, ddof=1) / squares.mean(axis=0) ** 2
            return np.nan_to_num(sums.paths / (1 + uneven * float(sums.counts.max())))

    @cached_property
    def facts(self) -> Facts:
        """All of it as arrays."""
        shape = self._shape
        given = (self.random, self.drawn, self.stderr, self.rounding, *self.bounds)
        random, drawn, stderr, rounding, least, most = (np.broadcast_to(a, shape) for a in given)
        return Facts(random, drawn, stderr, rounding, least, most, self.two_valued)


def _overflown(values: np.ndarray, scale: float) -> np.ndarray:
    """Where draws larger than the program's own led out of the finite range, and so say nothing."""
    return ~np.isfinite(values) if scale > 1 else np.zeros(np.shape(values), bool)


def _moved(x0: np.ndarray | Law, by: np.ndarray) -> np.ndarray | Law:
    """Every start moved by the same."""
    return x0.moved(by) if isinstance(x0, Law) else x0 + spread(by, x0)


def _drawn_start(member: Any, x0: np.ndarray | Law) -> bool:
    """Whether the position before the first step depends on draws."""
    if isinstance(x0, Law):
        if x0.mean is None or x0.covariance is None or x0.covariance.any():
            return True
        x0 = x0.mean
    own = sum(d.n for d in member.start_draws)
    return own > 0 and any(not np.array_equal(member.start(x0, z)[0], member.start(x0, np.zeros(own))[0]) for z in np.eye(own))


def _step(program: Program, trace: Trace) -> None:
    """One step of each member on values."""
    for i, member in enumerate(program.members):
        state = tuple(trace.input(f"s{i}_{p}", (member.dim,)) for p in range(len(member.parts)))
        z = trace.input(f"z{i}", (sum(d.n for d in member.draws),))
        member.rule(state, member.bind(z), *member.coefficient_values(1)[0].tolist())
