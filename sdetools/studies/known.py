"""Properties of recorded values that follow from the computation, not from the sample: exactness, bounds and rounding errors.

Arrays `(times, observables)` have a row for each recorded time and a column for each observable and then each functional. *Test paths* are 32
paths in NumPy on draws of their own, which show the effect of draws.

A sample variance of zero does not prove that a value is exact, since all paths may have missed a rare event. A value counts as exact

- if no draw enters: a program without draws, a start from points, two identical members;
- if it is an analytic function of the draws that is constant on draws with a density, and therefore constant everywhere;
- if both members are at one point after the first steps, as the graph of these steps proves (`coincidence`).

Rounding. Each step rounds the state a few times, and the dynamics amplifies rounding errors as any perturbation. A value of size H at step k
has an error of up to `ROUNDINGS` eps (k + 1) A_k H, with A_k >= 1 the amplification of a perturbation of the start and eps the machine epsilon
of the paths. No smaller value is resolved.
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
from sdetools.studies.coincidence import steps_together
from sdetools.studies.facts import Facts
from sdetools.studies.observables import observables
from sdetools.studies.ranges import Range, analytic, range_of_observable
from sdetools.studies.statistics import PairStatistics, SingleStatistics

ROUNDINGS = 4.0
"""The number of roundings by half a unit in each step: of the noise term, the drift, their sum, and h."""
EPS = float(np.finfo(float).eps)
"""The machine epsilon of the test paths, on which constancy and amplification are determined."""
FEW = 1000
"""The least effective number of paths for a variance estimate; below it the bounds of the observable enter the interval."""
PROOF_PATHS, PROOF_STEPS = 32, 20_000
"""The number of test paths, run by the NumPy reference, and the largest number of steps for which they are run."""
PROOF = Stream(0, proof=True)
"""The stream of the test paths."""
UNLIKELY = 25.0
"""exp(-25) bounds the probability that some outcome of the random signs has not occurred."""
SCALES = (1.0, 8.0, 64.0)
"""Factors of the draws for which constancy is tested."""
PERTURBATION = 1e-7
"""The relative perturbation of a start from which the amplification is determined."""
SMALL = {"float64": 1e-6, "float32": 2.5e-3}
"""The relative size, about eps^(3/8), below which the difference of a pair may be an amplified rounding error."""


@dataclass(frozen=True)
class Known:
    """Exactness, bounds and rounding errors of the values of a run; each is computed when it is read.

    Arrays `(times, observables)` have a row for each recorded time and a column for each observable and then each functional (sum over a path).

    Attributes:
        program: The description of the run, of one dynamics or of a pair.
        statistics: Its sample moments: means, or gaps.
    """

    program: Program
    statistics: SingleStatistics | PairStatistics

    @property
    def _shape(self) -> tuple[int, int]:
        """The shape (times, observables) of arrays; functionals count as observables."""
        return len(self.program.record), self.program.columns

    @cached_property
    def ranges(self) -> tuple[Range, ...]:
        """The `Range` of one path's value (in a pair, of the members' difference) by column; ValueError if a mean lies outside of stated bounds."""
        program = self.program
        own = [self._range(o, h) for o, h in enumerate(program.observables)] + [Range()] * len(program.functionals)
        return tuple(r.minus(r) for r in own) if program.pair else tuple(own)

    def _range(self, o: int, h: Any) -> Range:
        """Return the stated range of observable `h`, index `o`, or that of its formula; ValueError if means contradict the former."""
        if h.range is None:
            return range_of_observable(h, self.program.members[0].dim)
        for mean, _ in self._runs:
            means, slack = mean[:, o][np.isfinite(mean[:, o])], 1e-9 * (h.range.high - h.range.low)
            if means.size and not h.range.low - slack <= means.min() <= means.max() <= h.range.high + slack:
                raise ValueError(
                    f"the observable {h.name} must lie in [{h.range.low:g}, {h.range.high:g}], as is stated; "
                    f"got means from {means.min():.6g} to {means.max():.6g}. State wider bounds."
                )
        return h.range

    @property
    def _runs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The mean and the variance of h for each member, a list of one or two pairs of arrays `(times, observables)`."""
        s = self.statistics
        return [(s.mean, s.variance)] if isinstance(s, SingleStatistics) else [s.member("x"), s.member("z")]

    @cached_property
    def two_valued(self) -> tuple[bool, ...]:
        """For each observable and functional, in order, whether its value on a path is one of two numbers: its interval is Clopper and Pearson's."""
        return tuple(r.values is not None and len(r.values) == 2 for r in self.ranges)

    @cached_property
    def _sizes(self) -> np.ndarray:
        """The largest of |h| along the run and |x . grad h| at the start, `(observables,)`: the size of the numbers that are rounded."""
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
        """The starts of the first member, `(dim, n)`: one point or the given points; for a law those of the test paths."""
        x0 = self.program.x0[0]
        if isinstance(x0, Law):
            z = fill(DrawPlan(x0.draws), stream_key(0, PROOF, None), np.arange(PROOF_PATHS), 0)
            return np.asarray(x0.points(z), dtype=float)
        return x0 if x0.ndim == 2 else x0[:, None]

    @cached_property
    def _reach(self) -> np.ndarray:
        """The largest absolute value of each coordinate over the starts, `(dim,)`."""
        return np.abs(self._starts).max(axis=1)

    @cached_property
    def _unamplified_rounding(self) -> np.ndarray:
        """The rounding error of means of a dynamics that does not amplify perturbations, `(times, observables)`: 4 eps (k + 1) times `_sizes`."""
        coarser = float(np.finfo(self._dtype).eps) / EPS
        return coarser * self._roundings[:, None] * self._sizes

    @cached_property
    def _dtype(self) -> str:
        """The floating-point type of the paths, "float64" or "float32"."""
        return self.statistics.sums.dtype

    @property
    def _roundings(self) -> np.ndarray:
        """The relative rounding error in double precision after the steps up to each recorded time, `(times,)`."""
        return ROUNDINGS * EPS * (self.program.record / min(self.program.every) + 1.0)

    @cached_property
    def _spread(self) -> np.ndarray:
        """The standard deviation over paths of a value, or of the difference of a pair after regression, `(times, observables)`."""
        return np.sqrt(self.statistics.variance)

    @cached_property
    def rounding(self) -> np.ndarray:
        """A bound of the rounding error of each mean or gap, `(times, observables)`; 0 for two identical members."""
        if self.program.pair and self._same:
            return np.zeros(self._shape)
        floor = self._unamplified_rounding
        if self.program.pair and self.program.coupled:
            with np.errstate(invalid="ignore"):
                close = (self._spread > floor) & (self._spread < SMALL[self._dtype] * self._sizes)
            if close.any():
                last = 1 + int(np.flatnonzero(close.any(axis=1))[-1])
                amplification = self._up_to(last)._amplification
                floor = floor * amplification[np.minimum(np.arange(len(floor)), last - 1)]  # later values differ clearly
        return floor

    def _up_to(self, n: int) -> Known:
        """Return what is known of the first `n` recorded times alone, from a run that ends there: later steps take time and change nothing."""
        program = self.program
        if n == len(program.record):
            return self
        end = max(int(program.record[n - 1]), *program.every)
        own = Known(replace(program, steps=end, record=program.record[:n], control=None), self.statistics)
        own.__dict__["_sizes"] = self._sizes
        return own

    @cached_property
    def _amplification(self) -> np.ndarray:
        """The factor A_k >= 1 by which a small perturbation of the start has grown, `(times, observables)`; 1 for over 20,000 steps."""
        program = self.program
        if program.steps > PROOF_STEPS:
            return np.ones(self._shape)
        last: dict[str, np.ndarray] = {}
        ends_alone = replace(program, record=program.record[-1:], control=None)
        self._reference(ends_alone, lambda _, states: last.update(x=states[0][0]))
        ends = last["x"]
        reached = np.abs(ends).max(axis=1, initial=0.0, where=np.isfinite(ends))
        nudge = PERTURBATION * np.maximum(self._reach, reached)
        first, every = program.members[0], program.every[0]
        perturbed = replace(
            program, members=(first, first), x0=(program.x0[0], _moved(program.x0[0], nudge)), steps=program.steps // every,
            record=program.record // every, control=None, coupled=True, every=(1, 1),
        )  # fmt: skip
        moments = self._reference(perturbed)
        with np.errstate(all="ignore"):
            moved = np.sqrt(moments[..., PAIR.index("d")] ** 2 + moments[..., PAIR.index("d2")] / PROOF_PATHS) / (
                PERTURBATION * self._sizes
            )
        return np.maximum.accumulate(np.where(np.isfinite(moved), np.maximum(moved, 1.0), 1.0), axis=0)

    @staticmethod
    def _reference(program: Program, look: Any = None, scale: float = 1.0) -> np.ndarray:
        """Return moments `(times, observables, statistics)` of the test paths, normals replacing signs; `look`, `scale`: see `run_reference`."""
        noise = program.noise
        normal = tuple(DrawPlan(tuple(Normal(d.n) if isinstance(d, Sign) else d for d in plan.draws)) for plan in noise.sets)
        program = replace(program)
        program.__dict__["noise"] = replace(noise, sets=normal)
        keys = np.array([stream_key(0, PROOF, role) for role in (*range(len(normal)), None)], np.uint64)
        return run_reference(program, keys, 0, PROOF_PATHS, look, scale)

    @cached_property
    def _same(self) -> bool:
        """Whether the two members are identical and share their draws; False for one dynamics."""
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
        """Whether any draw precedes the recorded time, `(times, observables)`; at step 0, whether starts are drawn."""
        program, out = self.program, np.zeros(self._shape, bool)
        if program.start_plan.rows or any(plan.rows for plan in program.noise.sets):
            out[program.record > 0] = True
            out[program.record == 0] = any(_drawn_start(m, x0) for m, x0 in zip(program.members, program.x0))
        return out

    @cached_property
    def random(self) -> np.ndarray:
        """Whether draws enter each mean or gap, `(times, observables)`; False only where this is proven, so that the value is exact."""
        if self._same:
            return np.zeros(self._shape, bool)
        with np.errstate(invalid="ignore"):
            flat = self.drawn & (self._spread <= self.rounding)
        if (undecided := flat & ~self._exhaustive[:, None]).any():
            early = 1 + int(np.flatnonzero(undecided.any(axis=1))[-1])
            flat[:early] &= ~undecided[:early] | self._up_to(early)._constant(undecided.any(axis=0))
        return self.drawn & ~flat

    @property
    def _exhaustive(self) -> np.ndarray:
        """Whether the paths cover all 2^n equally likely outcomes of n random signs, except with probability exp(-25); `(times,)`."""
        program, draws = self.program, [d for plan in self.program.noise.sets for d in plan.draws]
        if program.start_plan.rows or not all(isinstance(d, Sign) for d in draws):
            return np.zeros(len(program.record), bool)
        signs = np.minimum(sum(d.n for d in draws) * program.record, 60)
        return 2.0**signs * (np.log(2.0) * signs + UNLIKELY) <= self.statistics.sums.paths

    def _constant(self, columns: np.ndarray) -> np.ndarray:
        """Return where values do not depend on the draws, `(times, observables)`, as far as this can be decided for short analytic programs.

        An analytic function that is constant on draws with a density is constant everywhere, and two members at one point agree for every
        h. Floating-point functions saturate and underflow; therefore draws are tested at several `SCALES`, up to 64 standard deviations.
        `columns` is True for the observables to be examined, `(observables,)`.
        """
        program = self.program
        normal = all(isinstance(d, (Normal, Sign)) for plan in program.noise.sets for d in plan.draws)
        smooth_step = normal and program.steps <= PROOF_STEPS and analytic(lambda trace: _step(program, trace))
        if not smooth_step or not self._smooth_start:
            equal = (program.record > 0) & (program.record <= steps_together(program))
            return np.repeat(equal[:, None], program.columns, axis=1)
        functions = [lambda x, _, h=h: h.value(x) for h in program.observables] + [f.increment for f in program.functionals]
        dim, constant = program.members[0].dim, np.zeros(self._shape, bool)
        smooth = np.array([
            needed and analytic(lambda trace: f(trace.input("x", (dim,)), trace.input("y", (dim,))))
            for f, needed in zip(functions, columns.tolist())
        ])  # fmt: skip
        if smooth.any():
            constant = smooth & np.logical_and.reduce([self._flat_in(program, scale) for scale in SCALES])
        if program.pair and program.coupled and (columns & ~constant.all(axis=0)).any():
            constant |= np.logical_and.reduce([self._at_one_point(scale) for scale in SCALES])[:, None]
        return constant

    @property
    def _smooth_start(self) -> bool:
        """Whether the test paths represent all starts: few points, or an analytic function of draws with a density."""
        law = self.program.x0[0]
        if not isinstance(law, Law):
            return self._starts.shape[1] <= PROOF_PATHS
        density = all(isinstance(d, Normal) for d in law.draws)
        return density and analytic(lambda trace: law.points(trace.input("u", (law.n_draws,))))

    def _flat_in(self, program: Program, scale: float) -> np.ndarray:
        """Return where the test paths of a program, with draws times `scale`, agree up to rounding, `(times, observables)`.

        The unit is their size at the same time: far from its step, a steep sigmoid is negligible compared with the start, but not constant.
        """
        names, moments = program.statistics, self._reference(program, None, scale)
        own, spread = (("x", "z"), "d2") if program.pair else (("h",), "h2")
        with np.errstate(all="ignore"):
            squares = [moments[..., names.index(m)] ** 2 + moments[..., names.index(m + "2")] / PROOF_PATHS for m in own]
            deviation = np.sqrt(moments[..., names.index(spread)] / PROOF_PATHS)
            return (deviation <= self._roundings[:, None] * np.sqrt(np.max(squares, axis=0))) | _overflown(deviation, scale)

    def _at_one_point(self, scale: float) -> np.ndarray:
        """Return where both members are at one point on all test paths with draws times `scale`, `(times,)`."""
        program = self.program
        points = observables(list(program.members[0].names), program.members[0])
        moved = replace(program, observables=points, functionals=(), control=None)
        x, z, d, xx, zz, dd, *_ = np.moveaxis(self._reference(moved, None, scale), -1, 0)
        with np.errstate(all="ignore"):
            size = np.sqrt(np.maximum.accumulate(x * x + z * z + (xx + zz) / PROOF_PATHS, axis=0) + self._reach**2)
            distance = np.sqrt(d * d + dd / PROOF_PATHS)
            return ((distance <= self._roundings[:, None] * size) | _overflown(distance, scale)).all(axis=1)

    @cached_property
    def stderr(self) -> np.ndarray:
        """Standard errors of the means or gaps, `(times, observables)`; 0 where no draw enters, and where the spread is within rounding."""
        with np.errstate(invalid="ignore"):
            return np.where(self.random & ~(self._spread <= self.rounding), self.statistics.stderr, 0.0)

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lower and the upper bounds of one path's value that enter the interval, `(times, observables)` each; infinite where they do not.

        For a pair these are bounds of the difference. They enter for every mean. The difference of coupled paths is far smaller than its bounds; there
        they enter for functions of finitely many values, and where the effective number of paths, paths / kurtosis, is below `FEW` = 1000.
        """
        least, most = (np.tile([getattr(r, side) for r in self.ranges], (self._shape[0], 1)) for side in ("low", "high"))
        if self.program.pair and self.program.coupled:
            counted = np.array([r.values is not None for r in self.ranges])
            unused = ~counted & (self._effective_paths >= FEW)
            least, most = np.where(unused, -np.inf, least), np.where(unused, np.inf, most)
        return least, most

    @cached_property
    def _effective_paths(self) -> np.ndarray:
        """The number paths / kurtosis, from the variation of the variance between groups, `(times, observables)`; 0 if unknown."""
        sums = self.statistics.sums
        used = sums.counts == sums.counts.max()
        groups = int(used.sum())
        if groups < 4:
            return np.zeros(self._shape)
        squares = sums.groups[used][..., self.program.statistics.index("d2" if self.program.pair else "h2")]
        with np.errstate(all="ignore"):
            variation = squares.var(axis=0, ddof=1) / squares.mean(axis=0) ** 2
            return np.nan_to_num(sums.paths / (1 + variation * float(sums.counts.max())))

    @cached_property
    def facts(self) -> Facts:
        """All properties as a `Facts` with arrays `(times, observables)`, which results store."""
        shape = self._shape
        given = (self.random, self.drawn, self.stderr, self.rounding, *self.bounds)
        random, drawn, stderr, rounding, least, most = (np.broadcast_to(a, shape) for a in given)
        return Facts(random, drawn, stderr, rounding, least, most, self.two_valued)


def _overflown(values: np.ndarray, scale: float) -> np.ndarray:
    """Return where `values` are not finite if `scale` > 1, an array of booleans: enlarged draws that overflow show nothing."""
    return ~np.isfinite(values) if scale > 1 else np.zeros(np.shape(values), bool)


def _moved(x0: np.ndarray | Law, by: np.ndarray) -> np.ndarray | Law:
    """Return the starts `x0`, all translated by the vector `by`, `(dim,)`, in the form of `x0`."""
    return x0.moved(by) if isinstance(x0, Law) else x0 + spread(by, x0)


def _drawn_start(member: Any, x0: np.ndarray | Law) -> bool:
    """Return whether the position of `member` before the first step depends on draws, for starts `x0`."""
    if isinstance(x0, Law):
        if x0.mean is None or x0.covariance is None or x0.covariance.any():
            return True
        x0 = x0.mean
    own = sum(d.n for d in member.start_draws)
    return own > 0 and any(not np.array_equal(member.start(x0, z)[0], member.start(x0, np.zeros(own))[0]) for z in np.eye(own))


def _step(program: Program, trace: Trace) -> None:
    """Write one step of each member to a trace, for a test of its formula; nothing is returned."""
    for i, member in enumerate(program.members):
        state = tuple(trace.input(f"s{i}_{p}", (member.dim,)) for p in range(len(member.parts)))
        z = trace.input(f"z{i}", (sum(d.n for d in member.draws),))
        member.rule(state, member.bind(z), *member.coefficient_values(1)[0].tolist())
