"""Which levels an error takes, found by pilot paths, and the paths that each of them gets: see `estimator.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools.graph.tracing import NotTraceable
from sdetools.graph.value import Trace
from sdetools.simulation.philox import PATHS
from sdetools.simulation.step_graphs import observable_value
from sdetools.studies.known import ROUNDINGS
from sdetools.studies.multilevel.levels import (
    FEW,
    Level,
    LevelMoments,
    LevelSampler,
    combined,
    decay_order,
    fitted_order,
    remaining,
)
from sdetools.studies.multilevel.result import Multilevel
from sdetools.studies.ranges import range_of_observable
from sdetools.studies.result_protocol import BY_HAND, Origin

BIAS, VARIANCE = 0.5, 0.5
"""The remaining bias is at most half of eps, the variance at most half of eps^2."""
SLACK = 1.1
"""Main paths are added when the variance exceeds its share by so much."""
LEAST_LEVEL = 2
LEAST_PILOT, LEAST_PATHS = 32, 16
STEPS = 64, 4096
"""The coarsest step that is chosen by itself has at most so many steps, unless paths run away: then at most the second number."""
RUNAWAY = 10.0
"""A plan that grows by so much while it is carried out rests on variances that the pilot could not see, and so does a pilot's variance."""
SHARE, SETTLING = 1 / 8, 1 << 18
"""So much of an observable's variance may rest on single paths; the pilot of the coarsest step grows to so many paths to see less. Of so
many paths on any level no more may, unless the observable is bounded."""
PILOT_COST = 1 << 24
"""Steps that a pilot may take whatever the plan; beyond, it must not cost more than the run that it plans."""
MOST_KURTOSIS = 100.0
LOWEST_ORDER = 0.5


@dataclass
class Search:
    """The levels that eps takes: found by pilot paths, then run."""

    work: LevelSampler
    eps: float
    weak_order: float
    pilot: int
    most: int
    levels: list[Level] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self, dt: float, choose: bool) -> bool:
        """Whether the levels hold: no path lost, and no variance that only the main paths saw."""
        self._begin(dt, choose)
        if not self._lost:
            self._settle()
            self._allocation()  # refuses an eps out of reach before the search for it
        while not self._lost:
            self._sharpen()
            if len(self.levels) > LEAST_LEVEL and (self._last or (self._biases("pilot") <= BIAS * self.eps).all()):
                break
            self._deepen()
        if self._lost:
            return False
        planned = None
        while True:
            wanted = self._allocation()
            plan = float(wanted @ self._steps)
            planned = plan if planned is None else planned
            if plan > RUNAWAY * planned:
                self.warnings.append(
                    f"the variance grew {plan / planned:.3g} times beyond what the pilot saw, so eps is not reached: large values are rare. "
                    "Take a shorter coarsest step by dt=, or more paths by pilot=."
                )
                return False
            for l, (level, n) in enumerate(zip(self.levels, wanted.tolist())):
                have = level.main.n if level.main is not None else 0
                if n > have:
                    level.main = self.work.sample(level, n - have, f"level {l}").joined(level.main)
                    self._refuse_thin(level, level.main)
            if self._lost:
                return False
            variance = sum(level.all.variances[0] / level.main.n for level in self.levels if level.main is not None)
            if (variance > SLACK * VARIANCE * self.eps**2).any():
                continue
            if (variance + self._biases("all") ** 2 <= self.eps**2).all():
                return True
            if self._last:
                self.warnings.append(
                    f"the bias is still {self._biases('all').max():.2g} after {self.most} levels. Allow more by most_levels=, or take a larger eps."
                )
                return True
            self._deepen()

    def _begin(self, dt: float, choose: bool) -> None:
        """Levels 0 and 1: with the step given, or with the longest at which a coarser level pays."""
        work, r = self.work, self.work.refinement
        while True:
            pair = work.pair(dt / r)
            work.explore(pair, self.pilot)
            seen = pair.pilot
            assert seen is not None
            d, fine, coarse = seen.variances
            steps = work.horizon / dt
            good = not seen.lost and np.isfinite(seen.variances).all()
            pays = good and bool((np.sqrt(coarse) + np.sqrt(d * (1 + r)) <= np.sqrt(fine * r)).all())
            if pays or not choose or (good and steps * r > STEPS[0]) or steps * r > STEPS[1]:
                break
            dt /= r
        base, same = work.single(dt), [2, 2, 2]
        # The coarse member of level 1 has the law of level 0: its paths tell the variance, and its draws are never used again.
        base.pilot = LevelMoments(
            seen.n, seen.means[same], seen.squares[same], seen.kurtosis[same], seen.known, 0, -1, seen.dtype
        )
        self.levels = [base, pair]
        if not good:
            self.refuse_what_is_not_finite()

    def refuse_what_is_not_finite(self) -> None:
        """ValueError where an observable is not finite on paths that are."""
        for level in self.levels:
            bad = np.flatnonzero(~np.isfinite(level.all.squares).all(axis=0))
            if len(bad) and not any(other.all.lost for other in self.levels):
                raise ValueError(
                    f"`observe` must be finite where the paths go; {self._named(bad[0])} is not with steps of {level.dt:g}, though all "
                    f"{level.all.n:,} paths are. Take a function without a pole or a negative root there, or a shorter coarsest step by dt=."
                )

    def _named(self, o: int) -> str:
        return self.levels[0].program.observables[o].name

    @property
    def _constants(self) -> frozenset[str]:
        """The observables that are one number."""
        program = self.levels[0].program
        return frozenset(h.name for h in program.observables if _constant(h, program.members[0].dim))

    def _settle(self) -> None:
        """Refuses observables whose variance no number of paths tells: seen to be 0 without being constant, or resting on few paths."""
        base, observables = self.levels[0], self.levels[0].program.observables
        assert base.pilot is not None
        constant = np.array([self._named(o) in self._constants for o in range(len(observables))])
        for o in np.flatnonzero((base.pilot.squares[0] == 0) & ~constant).tolist():
            raise ValueError(
                f"`observe` must vary from path to path; {self._named(o)} was {base.pilot.means[0, o]:.6g} on all {base.pilot.n:,} pilot paths, "
                "which does not tell its variance. Take more by pilot=, or if nothing is random one path of st.simulate."
            )
        while base.pilot.n < SETTLING and (base.pilot.shares[1] > SHARE).any():
            self.work.explore(base, base.pilot.n)
            if base.pilot.lost or not np.isfinite(base.pilot.squares).all():
                return
        for o in np.flatnonzero(base.pilot.shares[1] > SHARE).tolist():
            self._refuse_tails(o, base.pilot.n, base.dt)

    def _refuse_thin(self, level: Level, moments: LevelMoments) -> None:
        """Refuses what rests on single paths among many still. One look at a law without a variance may miss that, for its share varies as
        much as itself; each new batch is another look."""
        if moments.n < SETTLING:
            return
        program = level.program
        free = np.array([not range_of_observable(h, program.members[0].dim).bounded for h in program.observables])
        with np.errstate(invalid="ignore"):  # of what does not vary there is no share
            thin = (moments.shares[:2] > SHARE).any(axis=0) & free
        for o in np.flatnonzero(thin).tolist():
            self._refuse_tails(o, moments.n, level.dt)

    def _refuse_tails(self, o: int, paths: int, dt: float) -> None:
        raise ValueError(
            f"`observe` must have a variance that the pilot can see; that of {self._named(o)} with steps of {dt:g} rests on few of {paths:,} "
            "paths, and may be infinite. Take a bounded observable, or if its variance is finite more paths by pilot=."
        )

    def _deepen(self) -> None:
        """One more level, with a pilot of its own."""
        r = self.work.refinement
        level = self.work.pair(self.levels[-1].dt / r)
        self.work.explore(level, max(LEAST_PILOT, self.pilot // r ** (len(self.levels) - 1)))
        self.levels.append(level)

    def _sharpen(self) -> None:
        """Pilot paths until the remaining bias is known to a quarter of eps, by each level alone to half of it, or is clearly too large."""
        limit = BIAS * self.eps
        while not self._lost:
            order = self._order("pilot")
            terms, errors, factors = self._terms("pilot", order)
            fitted, error = combined(terms, errors)
            scale = limit * (self.work.refinement**order - 1)
            surely = np.maximum(np.abs(fitted) - 3 * error, (np.abs(terms) - 3 * errors).max(axis=0))
            if (surely > scale).any():
                return
            last = self.levels[: -len(terms) - 1 : -1]
            if (error > scale / 2).any():
                o = int(np.argmax(error / scale))
                gain = [f**2 / (v.all.variances[0, o] * v.steps + 1e-200) for f, v in zip(factors[:, o], last)]
                level = last[int(np.argmax(gain))]
            elif (errors > scale).any():
                level = last[int(np.argmax((errors / scale).max(axis=1)))]
            else:
                return
            assert level.pilot is not None
            self.work.explore(level, level.pilot.n)
            self._refuse_thin(level, level.pilot)
            grown = level.pilot.variances[0] > RUNAWAY * (level.early if level.early is not None else math.inf)
            dear = self.work.pilot_cost > max(PILOT_COST, float(self._allocation() @ self._steps))
            if not self._lost and (grown.any() or dear):
                self._refuse_tails(int(np.argmax(grown if grown.any() else error / scale)), level.pilot.n, level.dt)

    @property
    def _last(self) -> bool:
        return len(self.levels) > self.most

    @property
    def _lost(self) -> bool:
        return any(level.all.lost or not np.isfinite(level.all.squares).all() for level in self.levels)

    @property
    def _steps(self) -> np.ndarray:
        return np.array([level.steps for level in self.levels], dtype=float)

    def _means(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Means of d on levels 1 ... L and their standard errors, `(levels, observables)`."""
        moments = [getattr(level, which) for level in self.levels[1:]]
        return np.array([m.means[0] for m in moments]), np.array([np.sqrt(m.variances[0] / m.n) for m in moments])

    def _terms(self, which: str, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c_j and its error from each of the last three levels, the last first, and the factors r^(alpha j)."""
        means, errors = self._means(which)
        factors = float(self.work.refinement) ** (order * np.arange(min(3, len(means)))[:, None])
        return means[:-4:-1] / factors, errors[:-4:-1] / factors, factors

    def _order(self, which: str) -> np.ndarray:
        """The weak order of each observable that the bias is judged by: as declared, or as fitted where that is clearly lower."""
        means, errors = self._means(which)
        out = []
        for m, s in zip(means[-4:].T, errors[-4:].T):
            fitted, error = fitted_order(m, s, self.work.refinement, least=3)
            contradicted = fitted + 3 * error < self.weak_order - 0.25
            out.append(min(self.weak_order, max(LOWEST_ORDER, fitted)) if contradicted else self.weak_order)
        return np.array(out)

    def _biases(self, which: str) -> np.ndarray:
        """What remains beyond the last level, for each observable."""
        order = self._order(which)
        terms, errors, _ = self._terms(which, order)
        return remaining(terms, errors) / (self.work.refinement**order - 1)

    def _allocation(self) -> np.ndarray:
        """N_l, never fewer than there are: for the observable that wants most."""
        # the larger of what all paths say and what the main ones say alone: the error of the result comes from these
        variances = np.array(
            [np.maximum(v.all.variances[0], v.main.variances[0] if v.main is not None else 0.0) for v in self.levels]
        )
        r = self.work.refinement
        seen = np.array([level.all.n for level in self.levels])
        for v in variances.T:
            decay = decay_order(v[1:], r, seen[1:])
            decay = max(LOWEST_ORDER, decay) if math.isfinite(decay) else LOWEST_ORDER
            for l in range(2, len(v)):
                v[l] = max(v[l], (1.0 if seen[l] < FEW else 0.5) * v[l - 1] * r**-decay)
        steps = self._steps[:, None]
        wanted = np.sqrt(variances / steps) * np.sqrt(variances * steps).sum(axis=0) / (VARIANCE * self.eps**2)
        if wanted.max() > PATHS:
            raise ValueError(
                f"`eps` must be in reach; got eps={self.eps!r}, which takes {wanted.max():.3g} paths (a stream has {PATHS:.3g}). "
                "Ask for a larger one."
            )
        have = np.array([level.main.n if level.main is not None else 0 for level in self.levels])
        return np.maximum(np.maximum(np.ceil(wanted).max(axis=1), LEAST_PATHS), have).astype(np.int64)

    def result(self, confidence: float, origin: Origin = BY_HAND) -> Multilevel:
        """All that was found, with its checks; ValueError for an observable that is not finite on paths that are."""
        self.refuse_what_is_not_finite()
        work = self.work
        lost = self._lost
        diverged = sum(level.all.lost for level in self.levels)
        own = [level.all if lost or level.main is None else level.main for level in self.levels]
        every = [level.all for level in self.levels]
        n = np.array([m.n for m in own])
        means = np.stack([m.means for m in own], axis=1)
        variances = np.stack([m.variances for m in every], axis=1)  # the pilot's paths know these as well
        kurtoses = np.array([m.kurtosis[0] for m in every])
        errors = np.sqrt(variances / n[:, None])
        consistency = np.zeros_like(means[0])
        with np.errstate(all="ignore"):
            apart = np.abs(means[1, :-1] - means[1, 1:] + means[0, 1:])
            consistency[1:] = np.where(apart > 0, apart / (3 * (errors[1, :-1] + errors[1, 1:] + errors[0, 1:])), 0.0)
        names = tuple(o.name for o in self.levels[0].program.observables)
        warnings, biases = list(self.warnings), np.full(len(names), np.nan)
        alphas = np.array([fitted_order(m, s, work.refinement)[0] for m, s in zip(*(a.T for a in self._means("all")))])
        seen = np.array([m.n for m in every])
        told = np.where([m.unseen for m in every[1:]], 0.0, variances[0, 1:])
        betas = np.array([decay_order(v, work.refinement, seen[1:]) for v in told.T])
        if lost:
            where = next(level for level in self.levels if level.all.lost or not np.isfinite(level.all.squares).all())
            warnings.append(
                f"{diverged:,} paths left the finite range, first with steps of {where.dt:g}. Take a shorter coarsest step by dt=."
            )
        else:
            biases = self._biases("all")
            judged = self._order("all")
            for o, name in enumerate(names):
                warnings += [
                    f"level {l}: kurtosis {kurtoses[l, o]:.3g} of the difference of {name} (more than {MOST_KURTOSIS:g}): "
                    "its variance rests on rare paths, and the standard error may be too small."
                    for l in np.flatnonzero(kurtoses[:, o] > MOST_KURTOSIS)
                ]
                warnings += [
                    f"level {l}: the means of {name} with steps of {self.levels[l - 1].dt:g} on levels {l - 1} and {l} disagree "
                    f"(check {consistency[l, o]:.3g}, more than 1): the two members are not of one family."
                    for l in np.flatnonzero(consistency[:, o] > 1)
                ]
                size = math.hypot(every[-1].means[1, o], math.sqrt(variances[1, -1, o]))
                rounding = ROUNDINGS * float(np.finfo(every[-1].dtype).eps) * (self.levels[-1].steps + 1) * size
                if rounding > self.eps / 2:
                    warnings.append(
                        f"rounding in {every[-1].dtype} may reach {rounding:.2g} in {name} over the {self.levels[-1].steps:,} finest steps, and eps is "
                        f"{self.eps:g}. Take dtype='float64', or a larger eps."
                    )
                if judged[o] < self.weak_order:
                    warnings.append(
                        f"the levels of {name} decay with order {judged[o]:.2g}, below the weak order {self.weak_order:g}; the bias is judged by the former."
                    )
        first = min((m.first for m in every if m.first >= 0), default=-1)
        return Multilevel(
            names, work.horizon, self.eps, work.refinement, self.weak_order, np.array([level.dt for level in self.levels]), n,
            np.array([level.steps for level in self.levels]), means[0], variances[0], kurtoses, means[1], variances[1], consistency, biases,
            alphas, betas, work.cost, work.pilot_cost, self._constants, tuple(warnings), diverged, first, confidence, origin,
        )  # fmt: skip


def _constant(observable: Any, dim: int) -> bool:
    """Whether h is a number by its computation, which no spread of 0 can tell: traced, it uses no coordinate."""
    try:
        trace, n = Trace(), len(getattr(observable, "parameters", ()))
        p = [trace.uniform("p", (n,))] if n else []
        return observable_value(observable, trace.input("x", (dim,)), *p).uniform
    except NotTraceable:
        with np.errstate(all="ignore"):
            return np.ndim(observable.value(np.full((dim, 2), 0.5))) == 0  # not a row of paths
