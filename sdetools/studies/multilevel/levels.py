"""The levels of multilevel Monte Carlo: their programs, the draws and the moments of their paths, and what is fitted to the levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sdetools.dynamics.base import Moving
from sdetools.noise.base import Normal
from sdetools.simulation.engine import Sums
from sdetools.simulation.program import Program
from sdetools.simulation.records import PAIR, SINGLE
from sdetools.studies.clock import steps_to
from sdetools.studies.means import make_program
from sdetools.studies.sampler import Sampler
from sdetools.studies.statistics import PairStatistics, SingleStatistics

ROUNDING = {"float64": 1e-10, "float32": 1e-5}
"""Differences of a level that are this small beside the values are rounding, by the type of the paths."""
FEW = 1000
"""Below so many paths a variance is not believed to be less than the level before it promises; beyond, not less than half of that."""
KEPT = 1 << 15
"""Up to so many paths the end points are kept for the kurtosis; beyond, the variances of the groups give it."""


@dataclass
class LevelMoments:
    """Means and variances over `n` paths of d = h(fine) - h(coarse) and of both; d is h(fine) on level 0."""

    n: int
    means: np.ndarray
    """`(3, observables)`: of d, h(fine), h(coarse)."""
    squares: np.ndarray
    """Sums of squares about these."""
    kurtosis: np.ndarray
    """`(3, observables)` as the means, from `known` paths."""
    known: int
    lost: int
    first: int
    dtype: str = "float64"

    @property
    def unseen(self) -> np.ndarray:
        """Where no path tells the two members apart, beyond rounding."""
        return self.squares[0] <= ROUNDING[self.dtype] ** 2 * self.squares[1]

    @property
    def variances(self) -> np.ndarray:
        """Of d, h(fine), h(coarse). Where d was seen to vary nowhere, as if one path more had differed by a standard deviation of h:
        n equal paths leave differences unseen that have a probability of 1/n."""
        own = self.squares / (self.n - 1)
        own[0] = np.where(self.unseen, own[1] / self.n, own[0])
        return own

    @property
    def shares(self) -> np.ndarray:
        """The share of the largest paths in the variances of d, h(fine), h(coarse): sum (h - E h)^4 / (sum (h - E h)^2)^2. It falls as
        kurtosis / n where the fourth moment is finite; where P(|h| > y) ~ y^-a with a < 2 there is no variance, and it has the mean 1 - a/2
        however many the paths, now above and now below."""
        return self.kurtosis / max(1, self.known)

    def joined(self, other: LevelMoments | None) -> LevelMoments:
        """Both together, each by its number of paths; the kurtosis is that of the larger."""
        if other is None:
            return self
        n = self.n + other.n
        better = max(self, other, key=lambda m: m.known)
        with np.errstate(all="ignore"):  # moments of lost paths are not finite, and stay so
            apart = other.means - self.means
            means = self.means + apart * (other.n / n)
            squares = self.squares + other.squares + apart**2 * (self.n * other.n / n)
        first = min((f for f in (self.first, other.first) if f >= 0), default=-1)
        return LevelMoments(n, means, squares, better.kurtosis, better.known, self.lost + other.lost, first, self.dtype)


@dataclass
class Level:
    """One level: its program, the steps of a path, and what pilot and main paths came to."""

    dt: float
    program: Program
    steps: int
    pilot: LevelMoments | None = None
    early: np.ndarray | None = None
    """The variances of d from the first `FEW` paths of the pilot."""
    main: LevelMoments | None = None

    @property
    def all(self) -> LevelMoments:
        """Pilot and main paths together: for decisions, never for the estimate."""
        both = [m for m in (self.main, self.pilot) if m is not None]
        return both[0].joined(both[1] if len(both) > 1 else None)


@dataclass
class LevelSampler:
    """Makes the levels and runs their paths, each batch on a stream of its own."""

    make: Callable[[float], Moving]
    x0: Any
    horizon: float
    observe: Any
    refinement: int
    sampler: Sampler = field(default_factory=Sampler)
    parts: int = 0
    """Batches of paths so far: each is a part of the stream, with draws of its own."""
    cost: int = 0
    pilot_cost: int = 0

    def dynamics(self, dt: float) -> Moving:
        """make(dt), checked."""
        made = self.make(dt)
        if not isinstance(made, Moving):
            raise ValueError(
                f"`make` must return a dynamics; for dt={dt:g} it returned {made!r}. Write lambda dt: st.Milstein(sde, dt)."
            )
        if made.step_time is None or not math.isclose(made.step_time, dt, rel_tol=1e-9):
            raise ValueError(
                f"`make` must return a dynamics of the step it is given; for dt={dt:g} its step_time is {made.step_time:g}."
            )
        if not made.draws:
            raise ValueError(
                f"`make` must return a dynamics with noise; got {made!r} without any. One path of st.simulate is exact."
            )
        if not made.brownian:
            other = [d for d in made.draws if not isinstance(d, Normal)] or made.draws
            told = " + ".join(f"{type(d).__name__}({d.n})" for d in other)
            raise ValueError(
                f"`make` must return a dynamics whose draws are Brownian increments, which steps of different length can share; got "
                f"{made.name}, whose {told} cannot be shared. Take st.Milstein or st.EulerMaruyama with normal draws."
            )
        return made

    def single(self, dt: float) -> Level:
        member = self.dynamics(dt)
        return self._level(dt, (member,), steps_to(self.horizon, dt))

    def pair(self, dt: float) -> Level:
        """The level of step `dt` and the step before it."""
        members = self.dynamics(dt), self.dynamics(dt * self.refinement)
        fine = steps_to(self.horizon, dt)
        return self._level(dt, members, fine + fine // self.refinement)

    def _level(self, dt: float, members: tuple[Moving, ...], steps: int) -> Level:
        program, *_ = make_program(members, self.x0, self.horizon, self.observe, [self.horizon], (), False, True)
        return Level(dt, program, steps)

    def sample(self, level: Level, paths: int, label: str) -> LevelMoments:
        """Moments of new paths of a level."""
        self.cost += paths * level.steps
        own = replace(self.sampler, stream=self.sampler.stream.at(self.parts))
        self.parts += 1
        sums = own.run(level.program, paths, keep=paths <= KEPT, label=label)
        program = level.program
        total = PairStatistics(sums).total if program.pair else SingleStatistics(sums).total
        if program.pair:
            means, squares = [total[k][-1] for k in "dxz"], [total[k][-1] for k in ("d2", "x2", "z2")]
        else:
            means, squares = [total["h"][-1]] * 2 + [0 * total["h"][-1]], [total["h2"][-1]] * 2 + [0 * total["h2"][-1]]
        steps = [s for s in sums.first_divergence.tolist() if s >= 0]
        kurtosis = _kurtosis(program, sums)
        lost, first = int(sums.diverged.sum()), min(steps, default=-1)
        return LevelMoments(paths, np.array(means), np.array(squares), kurtosis, paths, lost, first, sums.dtype)

    def explore(self, level: Level, paths: int) -> None:
        """Pilot paths of a level."""
        fresh = self.sample(level, paths, f"pilot, dt={level.dt:g}")
        self.pilot_cost += paths * level.steps
        level.pilot = fresh.joined(level.pilot)
        if level.early is None and level.pilot.n >= FEW:
            level.early = level.pilot.variances[0]


def combined(terms: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of terms by the weights of their errors, and its error."""
    floor = 1e-9 * np.abs(terms).max(axis=0) + 1e-150  # whose square is a number still: terms may all be 0
    weights = 1 / (errors**2 + floor**2)
    error = np.where((errors == 0).all(axis=0), 0.0, 1 / np.sqrt(weights.sum(axis=0)))
    return (weights * terms).sum(axis=0) / weights.sum(axis=0), error


def remaining(terms: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """max(|c_hat| + s, max_j |c_j| - s_j): the size of the terms together with its error, and of each alone without."""
    fitted, error = combined(terms, errors)
    return np.maximum(np.abs(fitted) + error, (np.abs(terms) - errors).max(axis=0))


def fitted_order(means: np.ndarray, errors: np.ndarray, refinement: int, least: int = 2) -> tuple[float, float]:
    """alpha in |m_l| ~ r^(-alpha l) and its error, from the levels whose mean is four times its error; NaN from fewer than `least`.

    Each logarithm has its statistical error and 5 % for what is not yet asymptotic.
    """
    with np.errstate(all="ignore"):
        kept = np.flatnonzero((np.abs(means) >= 4 * errors) & (means != 0) & np.isfinite(means))
    if len(kept) < least:
        return math.nan, math.nan
    y = -np.log(np.abs(means[kept])) / math.log(refinement)
    weights = 1 / (((errors[kept] / means[kept]) ** 2 + 0.05**2) / math.log(refinement) ** 2)
    x = kept - (weights * kept).sum() / weights.sum()
    norm = (weights * x * x).sum()
    return float((weights * x * y).sum() / norm), float(1 / np.sqrt(norm))


def decay_order(values: np.ndarray, refinement: int, paths: Any = math.inf) -> float:
    """The order in which positive values decay with the level, by least squares; NaN for fewer than two.

    Variances count by their `paths`: a relative error of sqrt(10 / n), and 10 % for what is not yet asymptotic.
    """
    kept = np.flatnonzero((values > 0) & np.isfinite(values))
    if len(kept) < 2:
        return math.nan
    weights = 1 / (0.01 + 10 / np.broadcast_to(paths, values.shape)[kept])
    x, y = kept - (weights * kept).sum() / weights.sum(), -np.log(values[kept]) / math.log(refinement)
    return float((weights * x * y).sum() / (weights * x * x).sum())


def _kurtosis(program: Program, sums: Sums) -> np.ndarray:
    """E (d - E d)^4 / (Var d)^2 of d, h(fine) and h(coarse), `(3, observables)`: from the end points if they were kept, else from the
    variances of the groups.

    The variance s^2 of a group of n has Var s^2 = (kurtosis - (n - 3) / (n - 1)) (Var d)^2 / n. NaN where nothing varies.
    """
    with np.errstate(all="ignore"):
        if sums.points is not None:
            dim = program.members[0].dim
            rows = []
            for o in program.observables:
                fine = np.broadcast_to(o.value(sums.points[:dim]), sums.paths).astype(float)
                coarse = np.broadcast_to(o.value(sums.points[dim:]), sums.paths).astype(float) if program.pair else fine
                own = [v - v.mean() for v in (fine - coarse if program.pair else fine, fine, coarse)]
                rows.append([(v**4).mean() / (v**2).mean() ** 2 for v in own])
            return np.array(rows).T
        n = int(sums.counts.max())
        full = sums.counts == n
        squares = [PAIR.index(name) for name in ("d2", "x2", "z2")] if program.pair else 3 * [SINGLE.index("h2")]
        variances = np.moveaxis(sums.groups[full, -1][..., squares], -1, 1)
        return n * variances.var(axis=0, ddof=1) / variances.mean(axis=0) ** 2 + (n - 3) / (n - 1)
