"""The choice of levels and numbers of paths in multilevel Monte Carlo, from pilot paths; see `estimator.py` for the method."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools.graph.tracing import NotTraceable
from sdetools.graph.value import Trace
from sdetools.results.protocol import BY_HAND, Origin
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
    remaining_bias,
)
from sdetools.studies.multilevel.result import Multilevel
from sdetools.studies.ranges import range_of_observable

BIAS, VARIANCE = 0.5, 0.5
"""The largest remaining bias relative to eps, and the largest variance relative to eps^2."""
SLACK = 1.1
"""Main paths are added if the variance exceeds its budget by this factor."""
LEAST_LEVEL = 2
"""The least number L of the finest level."""
LEAST_PILOT, LEAST_PATHS = 32, 16
"""The least numbers of pilot and of main paths on a level."""
STEPS = 64, 4096
"""The largest number of steps of an automatically chosen coarsest level, without and with divergence on coarser levels."""
VARIANCE_JUMP = 10.0
"""A cost or a variance that grows by this factor with more paths depends on values that the earlier paths did not contain."""
SHARE, TAIL_PATHS = 1 / 8, 1 << 18
"""The largest share of single paths in the variance of an observable, and the number of paths by which it must be reached.

The pilot of the coarsest step grows to that number if necessary. On every level the rule applies from that number on, unless the observable
is bounded.
"""
PILOT_COST = 1 << 24
"""The number of pilot steps beyond which the pilot must not cost more than the main run."""
MOST_KURTOSIS = 100.0
"""The kurtosis of a level above which a warning is given."""
LOWEST_ORDER = 0.5
"""The lowest order that is used for extrapolation."""


@dataclass
class Search:
    """The search for the levels and numbers of paths that reach eps, and their simulation.

    Attributes:
        work: The sampler of levels.
        eps: The root-mean-square error to reach.
        weak_order: The weak order by which the bias is judged.
        pilot: The number of pilot paths, which determine numbers of paths but do not enter the estimate, on the first level.
        most: The largest number L of the finest level.
        levels: The levels so far, from level 0 on.
        warnings: Sentences about possible problems so far.
    """

    work: LevelSampler
    eps: float
    weak_order: float
    pilot: int
    most: int
    levels: list[Level] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self, dt: float, choose: bool) -> bool:
        """Choose the levels l (coupled pairs of steps dt r^-l and dt r^-(l-1)) by pilot paths and simulate them; they remain in `levels`.

        Args:
            dt: The coarsest step to try.
            choose: Whether a shorter coarsest step may be chosen.

        Returns:
            Whether the levels are valid: no path diverged, and the main paths confirm the variances of the pilot. If not, nothing is raised.

        Raises:
            ValueError: If eps is out of reach, or an observable is not finite or has no variance that pilot paths can estimate.
        """
        self._choose_coarsest(dt, choose)
        if not self._failed:
            self._check_variances()
            self._allocation()  # raises an error if eps is out of reach, before the search
        while not self._failed:
            self._refine_bias()
            if len(self.levels) > LEAST_LEVEL and (self._last or (self._biases("pilot") <= BIAS * self.eps).all()):
                break
            self._add_level()
        if self._failed:
            return False
        planned = None
        while True:
            wanted = self._allocation()
            plan = float(wanted @ self._steps)
            planned = plan if planned is None else planned
            if plan > VARIANCE_JUMP * planned:
                self.warnings.append(
                    f"the variance grew {plan / planned:.3g} times beyond what the pilot saw, so eps is not reached: large values are rare. "
                    "Take a shorter coarsest step by dt=, or more paths by pilot=."
                )
                return False
            for l, (level, n) in enumerate(zip(self.levels, wanted.tolist())):
                have = level.main.n if level.main is not None else 0
                if n > have:
                    level.main = self.work.sample(level, n - have, f"level {l}").pooled(level.main)
                    self._check_tails(level, level.main)
            if self._failed:
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
            self._add_level()

    def _choose_coarsest(self, dt: float, choose: bool) -> None:
        """Create levels 0 and 1, with the coarsest step `dt` or, if `choose`, the longest one up to it at which a coarser level is efficient."""
        work, r = self.work, self.work.refinement
        while True:
            pair = work.pair(dt / r)
            work.explore(pair, self.pilot)
            moments = pair.pilot
            assert moments is not None
            d, fine, coarse = moments.variances
            steps = work.horizon / dt
            good = not moments.diverged and np.isfinite(moments.variances).all()
            pays = good and bool((np.sqrt(coarse) + np.sqrt(d * (1 + r)) <= np.sqrt(fine * r)).all())
            if pays or not choose or (good and steps * r > STEPS[0]) or steps * r > STEPS[1]:
                break
            dt /= r
        base, same = work.single(dt), [2, 2, 2]
        # The coarse member of level 1 has the law of level 0, so that its paths are pilot paths of level 0 as well.
        own = moments.means[same], moments.squares[same], moments.kurtosis[same]
        base.pilot = LevelMoments(moments.n, *own, moments.kurtosis_paths, 0, -1, moments.dtype)
        self.levels = [base, pair]
        if not good:
            self.refuse_what_is_not_finite()

    def refuse_what_is_not_finite(self) -> None:
        """Raise a ValueError if an observable is not finite on some path of the levels so far although no path diverged; otherwise do nothing."""
        for level in self.levels:
            bad = np.flatnonzero(~np.isfinite(level.all.squares).all(axis=0))
            if len(bad) and not any(other.all.diverged for other in self.levels):
                raise ValueError(
                    f"`observe` must be finite where the paths go; {self._name(bad[0])} is not with steps of {level.dt:g}, though all "
                    f"{level.all.n:,} paths are. Take a function without a pole or a negative root there, or a shorter coarsest step by dt=."
                )

    def _name(self, o: int) -> str:
        """Return the name of the observable with index `o`."""
        return self.levels[0].program.observables[o].name

    @property
    def _constants(self) -> frozenset[str]:
        """The names of the observables that do not depend on the point, by their formulas."""
        program = self.levels[0].program
        return frozenset(h.name for h in program.observables if _constant(h, program.members[0].dim))

    def _check_variances(self) -> None:
        """Raise a ValueError for observables without a reliable variance: 0 without being constant, or dominated by few paths."""
        base, observables = self.levels[0], self.levels[0].program.observables
        assert base.pilot is not None
        constant = np.array([self._name(o) in self._constants for o in range(len(observables))])
        for o in np.flatnonzero((base.pilot.squares[0] == 0) & ~constant).tolist():
            raise ValueError(
                f"`observe` must vary from path to path; {self._name(o)} was {base.pilot.means[0, o]:.6g} on all {base.pilot.n:,} pilot paths, "
                "which does not determine its variance. Take more by pilot=, or if nothing is random one path of st.simulate."
            )
        while base.pilot.n < TAIL_PATHS and (base.pilot.shares[1] > SHARE).any():
            self.work.explore(base, base.pilot.n)
            if base.pilot.diverged or not np.isfinite(base.pilot.squares).all():
                return
        for o in np.flatnonzero(base.pilot.shares[1] > SHARE).tolist():
            self._refuse_heavy_tails(o, base.pilot.n, base.dt)

    def _check_tails(self, level: Level, moments: LevelMoments) -> None:
        """Raise a ValueError if single paths dominate the variance of many paths, those of `moments`, for an observable without bounds.

        The share of the largest path in a law without a variance is itself random, so that the check is repeated for each new batch.
        """
        if moments.n < TAIL_PATHS:
            return
        program = level.program
        free = np.array([not range_of_observable(h, program.members[0].dim).bounded for h in program.observables])
        with np.errstate(invalid="ignore"):  # the share is NaN if nothing varies
            dominated = (moments.shares[:2] > SHARE).any(axis=0) & free
        for o in np.flatnonzero(dominated).tolist():
            self._refuse_heavy_tails(o, moments.n, level.dt)

    def _refuse_heavy_tails(self, o: int, paths: int, dt: float) -> None:
        """Raise a ValueError: few of the `paths` with step `dt` dominate the variance of the observable with index `o`."""
        raise ValueError(
            f"`observe` must have a variance that the pilot can estimate; that of {self._name(o)} with steps of {dt:g} rests on few of {paths:,} "
            "paths, and may be infinite. Take a bounded observable, or if its variance is finite more paths by pilot=."
        )

    def _add_level(self) -> None:
        """Add the level with the next shorter step, with its pilot paths."""
        r = self.work.refinement
        level = self.work.pair(self.levels[-1].dt / r)
        self.work.explore(level, max(LEAST_PILOT, self.pilot // r ** (len(self.levels) - 1)))
        self.levels.append(level)

    def _refine_bias(self) -> None:
        """Add pilot paths until the error of the bias is eps/4 (eps/2 from each level alone), or the bias is significantly too large."""
        limit = BIAS * self.eps
        while not self._failed:
            order = self._order("pilot")
            terms, errors, factors = self._terms("pilot", order)
            fitted, error = combined(terms, errors)
            scale = limit * (self.work.refinement**order - 1)
            lower = np.maximum(np.abs(fitted) - 3 * error, (np.abs(terms) - 3 * errors).max(axis=0))
            if (lower > scale).any():
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
            self._check_tails(level, level.pilot)
            grown = level.pilot.variances[0] > VARIANCE_JUMP * (level.early if level.early is not None else math.inf)
            expensive = self.work.pilot_cost > max(PILOT_COST, float(self._allocation() @ self._steps))
            if not self._failed and (grown.any() or expensive):
                self._refuse_heavy_tails(int(np.argmax(grown if grown.any() else error / scale)), level.pilot.n, level.dt)

    @property
    def _last(self) -> bool:
        """Whether the largest number of levels is reached, so that none may be added."""
        return len(self.levels) > self.most

    @property
    def _failed(self) -> bool:
        """Whether any path diverged, or an observable is not finite on some path."""
        return any(level.all.diverged or not np.isfinite(level.all.squares).all() for level in self.levels)

    @property
    def _steps(self) -> np.ndarray:
        """The numbers C_l of steps of a path, of both solutions together, `(levels,)`."""
        return np.array([level.steps for level in self.levels], dtype=float)

    def _means(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the means of d on levels 1 ... L and their standard errors, `(L, observables)` each; `which` paths: "pilot", "main" or "all"."""
        moments = [getattr(level, which) for level in self.levels[1:]]
        return np.array([m.means[0] for m in moments]), np.array([np.sqrt(m.variances[0] / m.n) for m in moments])

    def _terms(self, which: str, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the estimates c_j = m_{L-j} r^(-alpha j) from the last (up to three) levels, j = 0, 1, 2, their standard errors, and r^(alpha j).

        Each is an array `(levels, observables)` with the last level first. `which` paths: "pilot", "main" or "all"; `order`: alpha, `(observables,)`.
        """
        means, errors = self._means(which)
        factors = float(self.work.refinement) ** (order * np.arange(min(3, len(means)))[:, None])
        return means[:-4:-1] / factors, errors[:-4:-1] / factors, factors

    def _order(self, which: str) -> np.ndarray:
        """Return the weak order for the bias, `(observables,)`: the declared one, or the fitted one if it is significantly lower.

        `which` paths enter: "pilot", "main" or "all".
        """
        means, errors = self._means(which)
        out = []
        for m, s in zip(means[-4:].T, errors[-4:].T):
            fitted, error = fitted_order(m, s, self.work.refinement, least=3)
            contradicted = fitted + 3 * error < self.weak_order - 0.25
            out.append(min(self.weak_order, max(LOWEST_ORDER, fitted)) if contradicted else self.weak_order)
        return np.array(out)

    def _biases(self, which: str) -> np.ndarray:
        """Return the estimated |bias| beyond the last level, `(observables,)`, from `which` paths: "pilot", "main" or "all"."""
        order = self._order(which)
        terms, errors, _ = self._terms(which, order)
        return remaining_bias(terms, errors) / (self.work.refinement**order - 1)

    def _allocation(self) -> np.ndarray:
        """Return the numbers of main paths N_l, integers `(levels,)`: the largest over the observables, and at least the present numbers.

        ValueError is raised if eps takes more paths than a stream has.
        """
        # the larger of the variances of all paths and of the main paths, which determine the error of the result
        variances = np.array(
            [np.maximum(v.all.variances[0], v.main.variances[0] if v.main is not None else 0.0) for v in self.levels]
        )
        r = self.work.refinement
        paths = np.array([level.all.n for level in self.levels])
        for v in variances.T:
            decay = decay_order(v[1:], r, paths[1:])
            decay = max(LOWEST_ORDER, decay) if math.isfinite(decay) else LOWEST_ORDER
            for l in range(2, len(v)):
                v[l] = max(v[l], (1.0 if paths[l] < FEW else 0.5) * v[l - 1] * r**-decay)
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
        """Return the result with its consistency checks; its estimates are NaN if any path diverged.

        Args:
            confidence: The confidence level of intervals.
            origin: The call, seed, stream, backend, floating-point type and version.

        Raises:
            ValueError: If an observable is not finite although no path diverged.
        """
        self.refuse_what_is_not_finite()
        work = self.work
        failed = self._failed
        diverged = sum(level.all.diverged for level in self.levels)
        own = [level.all if failed or level.main is None else level.main for level in self.levels]
        every = [level.all for level in self.levels]
        n = np.array([m.n for m in own])
        means = np.stack([m.means for m in own], axis=1)
        variances = np.stack([m.variances for m in every], axis=1)  # pilot paths contribute to these as well
        kurtoses = np.array([m.kurtosis[0] for m in every])
        errors = np.sqrt(variances / n[:, None])
        consistency = np.zeros_like(means[0])
        with np.errstate(all="ignore"):
            difference = np.abs(means[1, :-1] - means[1, 1:] + means[0, 1:])
            consistency[1:] = np.where(difference > 0, difference / (3 * (errors[1, :-1] + errors[1, 1:] + errors[0, 1:])), 0.0)
        names = tuple(o.name for o in self.levels[0].program.observables)
        warnings, biases = list(self.warnings), np.full(len(names), np.nan)
        alphas = np.array([fitted_order(m, s, work.refinement)[0] for m, s in zip(*(a.T for a in self._means("all")))])
        counts = np.array([m.n for m in every])
        resolved = np.where([m.unseen for m in every[1:]], 0.0, variances[0, 1:])
        betas = np.array([decay_order(v, work.refinement, counts[1:]) for v in resolved.T])
        if failed:
            where = next(level for level in self.levels if level.all.diverged or not np.isfinite(level.all.squares).all())
            warnings.append(
                f"{diverged:,} paths left the finite range, first with steps of {where.dt:g}. Take a shorter coarsest step by dt=."
            )
        else:
            biases = self._biases("all")
            used = self._order("all")
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
                if used[o] < self.weak_order:
                    warnings.append(
                        f"the levels of {name} decay with order {used[o]:.2g}, below the weak order {self.weak_order:g}; the bias is judged by the former."
                    )
        first = min((m.first_divergence for m in every if m.first_divergence >= 0), default=-1)
        return Multilevel(
            names, work.horizon, self.eps, work.refinement, self.weak_order, np.array([level.dt for level in self.levels]), n,
            np.array([level.steps for level in self.levels]), means[0], variances[0], kurtoses, means[1], variances[1], consistency, biases,
            alphas, betas, work.cost, work.pilot_cost, self._constants, tuple(warnings), diverged, first, confidence, origin,
        )  # fmt: skip


def _constant(observable: Any, dim: int) -> bool:
    """Return whether h does not depend on the point of `dim` coordinates by its formula, which a spread of 0 does not prove."""
    try:
        trace, n = Trace(), len(getattr(observable, "parameters", ()))
        p = [trace.uniform("p", (n,))] if n else []
        return observable_value(observable, trace.input("x", (dim,)), *p).uniform
    except NotTraceable:
        with np.errstate(all="ignore"):
            return np.ndim(observable.value(np.full((dim, 2), 0.5))) == 0  # not a row of paths
