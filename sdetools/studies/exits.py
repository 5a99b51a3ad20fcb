r"""Exit times: when paths leave a set, as a survival curve with its band, and a mean that allows for paths which have not left.

A path leaves at the first step k >= 0 with x_k outside. It then stands still, so that its last state is the place of exit and the observable
"outside" is 1 from then on. So the survival function is a mean of an indicator, and min(tau, T) a sum over the steps of a path, for the end T of
the run.

All paths that have not left are censored at the same time T. Kaplan and Meier's estimate is then the share of paths that have not left, and the
inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant gives a band for all times at once,

    P(sup_t |S_n(t) - S(t)| > sqrt(log(2 / (1 - level)) / (2 n))) <= 1 - level.

An SDE's path may leave and return between two steps, so the exit time of an integrator is too late by a term of order sqrt(dt). A boundary that
is shifted inwards by 0.5826 sqrt(dt) |b^T n|, with the normal n, removes this term.

Sources: P. Massart, Annals of Probability 18 (1990) 1269-1283; M. Broadie, P. Glasserman, S. Kou, Mathematical Finance 7 (1997) 325-349;
E. Gobet, S. Menozzi, Stochastic Processes and their Applications 120 (2010) 130-162.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sdetools import _check
from sdetools.dynamics.arguments import check_dynamics
from sdetools.dynamics.base import Moving
from sdetools.estimates import Estimate
from sdetools.results.protocol import BY_HAND, Origin, Result, call_text
from sdetools.simulation.philox import Stream
from sdetools.studies.clock import steps_to
from sdetools.studies.execution import Execution, ExecutionOptions
from sdetools.studies.known import Known
from sdetools.studies.means import Simulation, make_program
from sdetools.studies.observables import Indicator, observable, observables
from sdetools.studies.sampler import sampling
from sdetools.studies.statistics import SingleStatistics
from sdetools.studies.stopping import OUTSIDE, TIME, TimeInside, outside_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

FRAMES = 200
"""The number of recorded times by default, the start not included."""


@dataclass(frozen=True, eq=False, repr=False)
class ExitMean(Estimate):
    """A mean exit time E tau; if some paths have not left, a lower bound: the value is then E min(tau, T), and the interval has no upper end.

    Attributes:
        censored: The number of paths that had not left at the end of the run.
        horizon: The time T at which the run ended.
        remedy: The horizon at which all paths would probably have left, if paths go on to leave at their rate so far; infinite if none left.

    The other attributes are those of `Estimate`.
    """

    censored: int = field(default=0, kw_only=True)
    horizon: float = field(default=math.nan, kw_only=True)
    remedy: float = field(default=math.nan, kw_only=True)

    def _ends(self, level: float) -> tuple[float, float]:
        low, high = super()._ends(level)
        return max(low, 0.0), math.inf if self.censored else high

    def __repr__(self) -> str:
        if not self.censored or not math.isfinite(self.value):
            return super().__repr__()
        way = f"take horizon={self.remedy:.3g}" if math.isfinite(self.remedy) else "no path left; take a far later horizon"
        return f"{self.name} >= {self.low:.4g} ({100 * self.confidence:g} %, {self.n} paths: {self.censored:,} had not left by t={self.horizon:g}; {way})"


@dataclass(frozen=True, eq=False)
class ExitStudy(Result):
    """Exit times tau of the paths of a dynamics; the return value of `st.exit_time`.

    Attributes:
        run: The means along the stopped paths, which stand still where they left: of the indicator "outside", of the observables, and of the
            functional "time inside", which is min(tau, t) at time t. Its `names` are in this order.
        corrected: Whether the boundary was shifted by 0.5826 |b^T n| sqrt(dt), to estimate the exit time of the SDE; b is its diffusion, n the unit
            normal of the boundary.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    run: Simulation
    corrected: bool = False
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def diverged(self) -> int:
        """The number of diverged paths: those whose state was not finite before they left."""
        return self.run.diverged

    @property
    def times(self) -> np.ndarray:
        """The recorded times, `(times,)`, in ascending order."""
        return self.run.times

    @property
    def paths(self) -> int:
        """The number of paths, diverged ones included."""
        return self.run.paths

    @property
    def censored(self) -> int:
        """The number of paths that had not left at the end of the run, diverged paths included."""
        share = float(self.run.statistics.mean[-1, 0])
        return self.paths - round(self.paths * share) if math.isfinite(share) else self.paths

    def survival(self, time: float | None = None) -> Estimate:
        """Return the probability that a path has not left by a recorded time, with Clopper and Pearson's interval.

        Args:
            time: The recorded time; None for the last. ValueError if it was not recorded.
        """
        left = self.run.at(0, time)
        return replace(
            left, value=1.0 - left.value, name=f"P(tau > {self.times[-1] if time is None else time:g})", skewness=-left.skewness
        )

    def band(self, confidence: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the simultaneous band of the survival function P(tau > t) at the recorded times, by Massart's inequality.

        Args:
            confidence: The confidence level, strictly between 0 and 1; None for that of the run.

        Returns:
            Two arrays `(times,)`, the lower and the upper limit; 0 and 1 at times by which a path diverged.
        """
        level = _check.confidence(self.run.confidence if confidence is None else confidence)
        half = math.sqrt(math.log(2 / (1 - level)) / (2 * self.paths))
        share = 1.0 - self.run.statistics.mean[:, 0]
        low, high = np.clip(share - half, 0.0, 1.0), np.clip(share + half, 0.0, 1.0)
        return np.where(np.isfinite(share), low, 0.0), np.where(np.isfinite(share), high, 1.0)

    def restricted_mean(self, time: float | None = None) -> Estimate:
        """Return the estimate of E min(tau, t), tau the exit time, for a recorded time t. All paths show it, also those that have not left.

        Args:
            time: The recorded time; None for the last. ValueError if it was not recorded.
        """
        t = float(self.times[-1] if time is None else time)
        found = self.run.at(TIME, time)
        return replace(found, name=f"E min(tau, {t:g})", least=0.0, most=t)

    def main_estimates(self) -> dict[str, Estimate]:
        """Return estimates of E min(tau, T) and of the probability that a path has not left by the last recorded time T.

        The keys of the dict are "E min(tau, T)" and "P(tau > T)".
        """
        return {"E min(tau, T)": self.restricted_mean(), "P(tau > T)": self.survival()}

    def mean(self) -> ExitMean:
        """Return the mean exit time if all paths have left, otherwise its lower bound E min(tau, T) with an interval without an upper end.

        The value is NaN if a path diverged.
        """
        found = self.run.at(TIME)
        gone, horizon = self.paths - self.censored, float(self.times[-1])
        rate = gone / (self.paths * found.value) if gone and found.value > 0 else 0.0
        remedy = math.log(20 * self.paths) / rate if rate else math.inf
        least, most = (0.0, horizon) if self.censored or found.stderr == 0 else (-math.inf, math.inf)
        return ExitMean(
            found.value, found.stderr, found.n, found.confidence, "E tau", found.diverged, found.first_divergence, random=found.random,
            rounding=found.rounding, least=least, most=most, skewness=found.skewness, censored=self.censored, horizon=horizon, remedy=remedy,
        )  # fmt: skip

    def at_exit(self, h: str | int) -> Estimate:
        """Return the estimated mean of an observable where paths left, or where they are at the end of the run if they have not left.

        Args:
            h: The name of the observable, or its index among those that were passed as `observe`; an unknown name raises ValueError.
        """
        found = self.run.at(h if isinstance(h, str) else range(1, len(self.run.names) - 1)[h])
        return replace(found, name=found.name.replace(f" at t={self.times[-1]:g}", " at the exit"))

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset over `time` (the recorded times, with the coordinate `step`) and `observable`.

        Over time it has `survival`, P(tau > t), its simultaneous band `low` and `high`, and `restricted_mean`, E min(tau, t), with
        `restricted_mean_stderr`. Over observable, with the names "time inside" and then those of `observe`, it has `mean` and `stderr` at the last time
        T: E min(tau, T), and the observables at the exit. The attributes are the numbers of paths, of censored paths and of diverged paths, whether
        the boundary was shifted (`corrected`, 0 or 1), and the fields of `origin`.
        """
        import xarray

        low, high = self.band()
        s, names = self.run.statistics, [TIME, *self.run.names[1:-1]]
        order = [len(self.run.names) - 1, *range(1, len(self.run.names) - 1)]
        return xarray.Dataset(
            {
                "survival": ("time", 1.0 - s.mean[:, 0]), "low": ("time", low), "high": ("time", high),
                "restricted_mean": ("time", s.mean[:, -1]), "restricted_mean_stderr": ("time", self.run.facts.stderr[:, -1]),
                "mean": ("observable", s.mean[-1, order]), "stderr": ("observable", self.run.facts.stderr[-1, order]),
            },
            coords={"time": self.times, "step": ("time", self.run.steps), "observable": names},
            attrs={"paths": self.paths, "censored": self.censored, "diverged": self.diverged, "corrected": int(self.corrected)}
            | self.origin.attributes,
        )  # fmt: skip

    def table(self) -> str:
        """Return a text table of the survival function at up to eleven recorded times with its band, and the mean exit time."""
        low, high = self.band()
        lines = [f"{'time':>10} {'inside':>10} {f'{100 * self.run.confidence:g} % band':>22} {'E min(tau, time)':>18}"]
        for t in np.unique(np.linspace(0, len(self.times) - 1, 11).astype(int)):
            s = self.run.statistics.mean[t]
            band = f"[{low[t]:.4f}, {high[t]:.4f}]"
            lines.append(f"{self.times[t]:>10.4g} {1 - s[0]:>10.4f} {band:>22} {s[-1]:>18.6g}")
        return "\n".join([*lines, repr(self.mean()), *(repr(self.at_exit(h)) for h in self.run.names[1:-1])])

    def plot(self, *, ax: Any = None) -> Figure:
        """Plot the share of paths inside against time with its simultaneous band, and return the figure.

        Args:
            ax: The axes; None for those of a new figure.
        """
        from sdetools.plots import figure_of, survival_curve

        share = 1.0 - self.run.statistics.mean[:, 0]
        return figure_of(survival_curve(self.times, share, *self.band(), censored=self.censored, ax=ax))

    def __repr__(self) -> str:
        how = ", boundary shifted for the time between steps" if self.corrected else ""
        lines = [f"exit of {self.run.dynamics.name}: {self.paths:,} paths to t={self.times[-1]:g}{how}", repr(self.mean())]
        if self.diverged:
            lines.append(f"{self.diverged:,} paths left the finite range, first at step {self.run.first_divergence}")
        return "\n  ".join([*lines, *(repr(self.at_exit(h)) for h in self.run.names[1:-1])])


def exit_time(
    dynamics: Moving,
    x0: Any,
    leaves: Any,
    horizon: float,
    paths: int = 10_000,
    observe: Any = (),
    *,
    corrected: bool = False,
    times: Any = None,
    confidence: float = 0.95,
    seed: int = 0,
    stream: int | Stream = 0,
    **execution: Unpack[ExecutionOptions],
) -> ExitStudy:
    r"""Estimate when paths leave a set: the survival function P(tau > t) with a band, the mean exit time, and observables at the exit.

    Exits are seen at steps. For an optimiser, this is its exit time. For an integrator it is above that of the SDE by a term of order
    sqrt(dt); `corrected=True` removes it. In one dimension `st.exact.exit_time` gives the mean of both without simulation.

    Args:
        dynamics: An optimiser, an SDE with an integrator, or any other one-step rule.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`.
        leaves: A comparison such as "x**2 + y**2 > 4"; an expression or a function g of x that is positive outside, such as "x**2 + y**2 - 4"; or
            a function of x that returns a condition, such as `lambda x: x[0] > 2`. A path leaves at its first step outside.
        horizon: The time at which the run ends, a whole number of steps.
        paths: The number of paths.
        observe: Observables h whose means at the place of exit are wanted: an expression, a function of x with x[i] the i-th coordinate, a loss, a list
            of these, or a dict from names to these; none by default.
        corrected: Whether to shift the boundary inwards by 0.5826 sqrt(dt) |b^T grad g| / |grad g|, b the diffusion, to estimate the exit time of the
            SDE with an error of order dt. It needs an integrator with normal draws, an SDE whose state is the position alone and whose coefficients do
            not depend on time, and a differentiable g.
        times: A list of times to record, or "all" for every step. None records the start and 200 later times at equal distances.
        confidence: The confidence level of intervals and of the simultaneous band, strictly between 0 and 1.
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The number 0, 1, 2, ... of one of many independent sets of draws that belong to the seed, or a `Stream` with this number.
        execution: Options of `st.Execution`: threads, executor, backend, dtype, store, resume, progress, retries.

    Returns:
        The survival function, the mean exit time and the observables at the exit.

    Raises:
        ValueError: If an argument is invalid, or the boundary cannot be shifted; the message states the rule and a remedy.
        TypeError: If a keyword is neither a parameter nor an option of `st.Execution`.

    Example:
        >>> import sdetools as st
        >>> motion = st.SDE(drift=["0"], diffusion=["1"], variables="x")
        >>> run = st.exit_time(st.EulerMaruyama(motion, 0.01), [0.25], "abs(x) > 1", horizon=20.0, paths=20_000)
        >>> run.censored, abs(run.mean().z(st.exact.exit_time(st.EulerMaruyama(motion, 0.01), [0.25], -1.0, 1.0))) < 4.5
        (0, True)
    """
    how = Execution.of(execution)
    call = call_text(exit_time, locals(), **how.changed())
    check_dynamics(dynamics)
    if times is None:
        steps = steps_to(horizon, dynamics.step_time)
        times = np.unique(np.linspace(0, steps, min(FRAMES, steps) + 1).astype(int)) * dynamics.step_time
    condition = outside_of(leaves, dynamics, corrected)
    outside = observable(Indicator(condition), dynamics, OUTSIDE)
    test_functions = [outside, *observables(observe, dynamics)]
    named = {h.name: h for h in test_functions}
    if len(named) < len(test_functions) or TIME in named:
        raise ValueError(f"`observe` must not use the names {OUTSIDE!r} and {TIME!r}. Pass a dict name -> observable.")
    inside = TimeInside(outside, dynamics.step_time)
    program, record, step_time = make_program(
        (dynamics,), x0, horizon, test_functions, times, inside, control=False, coupled=True
    )
    program = replace(program, stop=0)
    paths = _check.count("paths", paths, hint="It is the number of simulated paths, at least one.")
    _check.confidence(confidence)
    with sampling(how, seed, stream, lambda: program.fingerprint(seed, stream, paths)) as sampler:
        sums = sampler.run(program, paths)
    statistics = SingleStatistics(sums)
    names = tuple(o.name for o in (*program.observables, *program.functionals))
    origin = sampler.origin(call, sums)
    run = Simulation(
        dynamics, record * step_time, record, names, statistics, confidence, Known(program, statistics), origin=origin
    )
    return ExitStudy(run, corrected, origin)
