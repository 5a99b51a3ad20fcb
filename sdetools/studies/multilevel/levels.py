"""The levels of multilevel Monte Carlo: their programs, the sampling and moments of their paths, and fits of rates.

A level is a pair of solutions of one SDE on the same Brownian path: the fine one with step dt, the coarse one with step r dt, where r is the
refinement. Level 0 has only one. Pilot paths determine numbers of paths; main paths give the estimate.
"""

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
"""The relative size below which differences of a level are rounding errors, by the type of the paths."""
FEW = 1000
"""With fewer paths the variance of a level is bounded below by the value extrapolated from the level before; with more by half of it."""
KEPT = 1 << 15
"""The largest number of paths whose last points are stored for the kurtosis; for more it follows from the variances of the groups."""


@dataclass
class LevelMoments:
    """Sample moments over the paths of one level, a pair of solutions of an SDE with a fine and a coarse step, of each observable h.

    The first axis of arrays `(3, observables)` is d = h(fine) - h(coarse), h(fine), h(coarse), in this order, at the horizon. Level 0 has only one
    solution: d is h(fine) there, and h(coarse) is 0.

    Attributes:
        n: The number of paths.
        means: The means, `(3, observables)`.
        squares: Sums of squares about the means, `(3, observables)`.
        kurtosis: The kurtoses E (y - E y)^4 / (Var y)^2, `(3, observables)`; NaN where nothing varies.
        kurtosis_paths: The number of paths from which the kurtoses were computed.
        diverged: The number of diverged paths: those whose state was not finite at some step.
        first_divergence: The first step at which a path diverged, in steps of the fine solution; -1 if none did.
        dtype: The floating-point type of the paths, "float64" or "float32".
    """

    n: int
    means: np.ndarray
    squares: np.ndarray
    kurtosis: np.ndarray
    kurtosis_paths: int
    diverged: int
    first_divergence: int
    dtype: str = "float64"

    @property
    def unseen(self) -> np.ndarray:
        """Whether h(fine) and h(coarse) agree up to rounding on all paths, so that their difference has no spread; `(observables,)`."""
        return self.squares[0] <= ROUNDING[self.dtype] ** 2 * self.squares[1]

    @property
    def variances(self) -> np.ndarray:
        """The variances of d, h(fine) and h(coarse), `(3, observables)`.

        Where d is 0 up to rounding on all n paths (`unseen`), its variance is that of h(fine) divided by n, as if one path had differed by a
        standard deviation of h, because a difference of probability 1/n may not have occurred.
        """
        own = self.squares / (self.n - 1)
        own[0] = np.where(self.unseen, own[1] / self.n, own[0])
        return own

    @property
    def shares(self) -> np.ndarray:
        """How far few paths dominate the variances of d, h(fine) and h(coarse), in this order, a number between 0 and 1, `(3, observables)`.

        With y for each of them in turn, it is sum (y - E y)^4 / (sum (y - E y)^2)^2 = kurtosis / n over n paths: from 1/n, if all |y - E y| are
        equal, to 1 in the limit that one path dominates. If P(|y| > u) ~ u^-a with a < 2, the variance is infinite, and the share has the mean
        1 - a/2 for any n.
        """
        return self.kurtosis / max(1, self.kurtosis_paths)

    def pooled(self, other: LevelMoments | None) -> LevelMoments:
        """Return the moments of this sample and another of the same level together; those of this sample alone for None.

        The kurtosis is that of the sample with more paths, since it cannot be pooled.
        """
        if other is None:
            return self
        n = self.n + other.n
        better = max(self, other, key=lambda m: m.kurtosis_paths)
        with np.errstate(all="ignore"):  # moments of diverged paths are not finite, and stay so
            difference = other.means - self.means
            means = self.means + difference * (other.n / n)
            squares = self.squares + other.squares + difference**2 * (self.n * other.n / n)
        first = min((f for f in (self.first_divergence, other.first_divergence) if f >= 0), default=-1)
        diverged = self.diverged + other.diverged
        return LevelMoments(n, means, squares, better.kurtosis, better.kurtosis_paths, diverged, first, self.dtype)


@dataclass
class Level:
    """One level of the estimator: its program, and the moments of its paths so far, of d = h(fine) - h(coarse) for each observable h.

    Attributes:
        dt: The step of the fine solution.
        program: The description of the simulation: of the fine and the coarse solution, or on level 0 of the only one.
        steps: The cost of a path: the number of steps of the fine solution plus that of the coarse one.
        pilot: Moments of the pilot paths; None before there are any.
        early: The variances of d, `(observables,)`, when there first were `FEW` = 1000 pilot paths or more; None before.
        main: Moments of the main paths; None before there are any.
    """

    dt: float
    program: Program
    steps: int
    pilot: LevelMoments | None = None
    early: np.ndarray | None = None
    main: LevelMoments | None = None

    @property
    def all(self) -> LevelMoments:
        """Moments of pilot and main paths together, for the choice of levels but not for the estimate; IndexError if there are neither."""
        both = [m for m in (self.main, self.pilot) if m is not None]
        return both[0].pooled(both[1] if len(both) > 1 else None)


@dataclass
class LevelSampler:
    """A maker of levels that samples their paths, each batch with independent draws, and counts their cost.

    Attributes:
        make: A function of dt that returns a dynamics of step dt.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`.
        horizon: The final time.
        observe: Observables h: an expression, a function of x with x[i] the i-th coordinate, a loss, a list of these, or a dict from names to these.
        refinement: The ratio r of successive steps, an integer of at least 2.
        sampler: Seed, stream and options of execution.
        batches: The number of calls of `sample` so far; each uses draws of its own, another part of the stream.
        cost: The number of steps of all paths sampled so far, pilot paths included.
        pilot_cost: The number of steps of pilot paths so far.
    """

    make: Callable[[float], Moving]
    x0: Any
    horizon: float
    observe: Any
    refinement: int
    sampler: Sampler = field(default_factory=Sampler)
    batches: int = 0
    cost: int = 0
    pilot_cost: int = 0

    def dynamics(self, dt: float) -> Moving:
        """Return the dynamics `make(dt)`; ValueError if it is not a dynamics of step dt whose draws are Brownian increments."""
        made = self.make(dt)
        if not isinstance(made, Moving):
            raise ValueError(
                f"`make` must return a dynamics; for dt={dt:g} it returned {made!r}. Write lambda dt: st.Milstein(sde, dt)."
            )
        if made.step_time is None or not math.isclose(made.step_time, dt, rel_tol=1e-9):
            raise ValueError(f"`make` must return a dynamics of step dt; for dt={dt:g} its step_time is {made.step_time:g}.")
        if not made.draws:
            raise ValueError(
                f"`make` must return a dynamics with noise; got {made!r} without any. One path of st.simulate is exact."
            )
        if not made.brownian:
            other = [d for d in made.draws if not isinstance(d, Normal)] or made.draws
            draws = " + ".join(f"{type(d).__name__}({d.n})" for d in other)
            raise ValueError(
                f"`make` must return a dynamics whose draws are Brownian increments, which steps of different length can share; got "
                f"{made.name}, whose {draws} cannot be shared. Take st.Milstein or st.EulerMaruyama with normal draws."
            )
        return made

    def single(self, dt: float) -> Level:
        """Return level 0, which has one solution, of step `dt`, before any path is sampled; ValueError if `dt` does not divide the horizon."""
        member = self.dynamics(dt)
        return self._level(dt, (member,), steps_to(self.horizon, dt))

    def pair(self, dt: float) -> Level:
        """Return the level with fine step `dt` and coarse step `refinement * dt`, before any path is sampled.

        Raises:
            ValueError: If the steps do not divide the horizon, or `make` returns something else than dynamics of these steps.
        """
        members = self.dynamics(dt), self.dynamics(dt * self.refinement)
        fine = steps_to(self.horizon, dt)
        return self._level(dt, members, fine + fine // self.refinement)

    def _level(self, dt: float, members: tuple[Moving, ...], steps: int) -> Level:
        """Return a level without paths.

        Args:
            dt: The step of the fine solution.
            members: The dynamics of the fine and, except on level 0, of the coarse solution.
            steps: The number of steps of a path, of both together.
        """
        program, *_ = make_program(members, self.x0, self.horizon, self.observe, [self.horizon], (), False, True)
        return Level(dt, program, steps)

    def sample(self, level: Level, paths: int, label: str) -> LevelMoments:
        """Simulate new paths of a level with draws of their own, return their moments at the horizon, and add their steps to `cost`.

        Args:
            level: The level, which is not modified.
            paths: The number of paths.
            label: The label of the progress bar, such as "level 2".
        """
        self.cost += paths * level.steps
        own = replace(self.sampler, stream=self.sampler.stream.at(self.batches))
        self.batches += 1
        sums = own.run(level.program, paths, keep=paths <= KEPT, label=label)
        program = level.program
        total = PairStatistics(sums).total if program.pair else SingleStatistics(sums).total
        if program.pair:
            means, squares = [total[k][-1] for k in "dxz"], [total[k][-1] for k in ("d2", "x2", "z2")]
        else:
            means, squares = [total["h"][-1]] * 2 + [0 * total["h"][-1]], [total["h2"][-1]] * 2 + [0 * total["h2"][-1]]
        steps = [s for s in sums.first_divergence.tolist() if s >= 0]
        kurtosis = _kurtosis(program, sums)
        diverged, first = int(sums.diverged.sum()), min(steps, default=-1)
        return LevelMoments(paths, np.array(means), np.array(squares), kurtosis, paths, diverged, first, sums.dtype)

    def explore(self, level: Level, paths: int) -> None:
        """Simulate new pilot paths of a level, pool their moments into `level.pilot`, and add their steps to `cost` and `pilot_cost`.

        Args:
            level: The level, whose `pilot` and `early` are updated.
            paths: The number of new paths. Pilot paths determine numbers of paths, and do not enter the estimate.
        """
        fresh = self.sample(level, paths, f"pilot, dt={level.dt:g}")
        self.pilot_cost += paths * level.steps
        level.pilot = fresh.pooled(level.pilot)
        if level.early is None and level.pilot.n >= FEW:
            level.early = level.pilot.variances[0]


def combined(terms: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean over terms of estimates of one number, and its standard error, `(observables,)` each.

    Weights are inverse variances. If some standard errors are 0, the mean is the average of these terms; if all are 0, the one returned is 0.

    Args:
        terms: The estimates, `(terms, observables)`.
        errors: Their standard errors, `(terms, observables)`.
    """
    floor = 1e-9 * np.abs(terms).max(axis=0) + 1e-150  # all terms may be 0; the square of this number does not underflow
    weights = 1 / (errors**2 + floor**2)
    error = np.where((errors == 0).all(axis=0), 0.0, 1 / np.sqrt(weights.sum(axis=0)))
    return (weights * terms).sum(axis=0) / weights.sum(axis=0), error


def remaining_bias(terms: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return an upper estimate of |c| from several estimates c_j of one number c with standard errors s_j, `(observables,)`.

    It is the larger of |c_hat| + s and max_j (|c_j| - s_j), where c_hat with standard error s is the weighted mean that `combined` returns. A
    term with s_j = 0 counts as exact: the result is then at least |c_j|.

    Args:
        terms: The estimates c_j, `(terms, observables)`, with at least one term.
        errors: Their standard errors s_j, `(terms, observables)`.
    """
    fitted, error = combined(terms, errors)
    return np.maximum(np.abs(fitted) + error, (np.abs(terms) - errors).max(axis=0))


def fitted_order(means: np.ndarray, errors: np.ndarray, refinement: int, least: int = 2) -> tuple[float, float]:
    """Return alpha in |m_l| ~ r^(-alpha l) and its standard error, by weighted least squares; NaN for both if too few means are resolved.

    A mean is resolved if it is finite, not 0, and at least four standard errors s_l. The fit weighs log |m_l| by the inverse of
    (s_l / m_l)^2 + 0.05^2, where 5 % stands for deviations from the asymptotic regime. A mean with s_l = 0 has the second term only.

    Args:
        means: The means m_l of successive levels, `(levels,)`.
        errors: Their standard errors s_l, `(levels,)`.
        refinement: The ratio r of successive steps.
        least: The least number of resolved means; with fewer the result is NaN.
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
    """Return the order p with value ~ r^(-p l) on level l, by weighted least squares; NaN for fewer than two positive, finite values.

    Values that are not positive and finite are omitted. The order is negative if values grow with the level.

    Args:
        values: One value for each of successive levels, such as a variance, `(levels,)`.
        refinement: The ratio r of successive steps.
        paths: The numbers n of paths of the values, `(levels,)` or one for all; infinite for equal weights. The squared relative error of a
            value is taken as 10 / n + 0.1^2, where 10 % stands for deviations from the asymptotic regime.
    """
    kept = np.flatnonzero((values > 0) & np.isfinite(values))
    if len(kept) < 2:
        return math.nan
    weights = 1 / (0.01 + 10 / np.broadcast_to(paths, values.shape)[kept])
    x, y = kept - (weights * kept).sum() / weights.sum(), -np.log(values[kept]) / math.log(refinement)
    return float((weights * x * y).sum() / (weights * x * x).sum())


def _kurtosis(program: Program, sums: Sums) -> np.ndarray:
    """Return the kurtosis E (d - E d)^4 / (Var d)^2 of d, h(fine) and h(coarse), `(3, observables)`; NaN where nothing varies.

    It is computed from the last points if they are stored, otherwise from the variances of the groups of paths.
    The variance s^2 of a group of n has Var s^2 = (kurtosis - (n - 3) / (n - 1)) (Var d)^2 / n.

    Args:
        program: The description of the simulation of the level.
        sums: Its accumulated moments.
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
