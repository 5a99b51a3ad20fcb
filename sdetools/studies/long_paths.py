"""Stationary averages of a dynamics from few long paths, with effective sample sizes and intervals from batch means."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Moving
from sdetools.estimates.batch_means import BatchMeans, StationaryEstimate, default_batches
from sdetools.results.protocol import BY_HAND, Origin, Result, call_text
from sdetools.simulation.philox import Stream
from sdetools.studies.clock import asked_steps
from sdetools.studies.execution import Execution, ExecutionOptions
from sdetools.studies.means import make_program
from sdetools.studies.observables import Observable, column
from sdetools.studies.sampler import sampling

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

BLOCKS = 64
"""The number of blocks, sets of consecutive steps of equal number, of a path whose averages are stored."""
BURN_IN = 0.2
"""The share of the horizon that is left out by default."""


@dataclass(frozen=True)
class PathSum:
    """The functional sum_k h(x_k), or sum_k h(x_k)^2, over the steps k = 1, 2, ... of a path up to the recorded one.

    Attributes:
        observable: The observable h.
        squared: Whether the squares of h are added.
    """

    observable: Observable
    squared: bool

    @property
    def name(self) -> str:
        """The name of the functional, such as "sum of squares of x"."""
        return f"sum of {'squares of ' * self.squared}{self.observable.name}"

    @property
    def identity(self) -> str:
        """A text that identifies the functional and its observable; a run is resumed from its file only if this text is the same."""
        return f"{self.name} {self.observable.identity} {self.observable.parameters.tolist()}"

    def increment(self, before: Any, after: Any) -> Any:
        """Return h(after) or its square for one step: a number for points `(dim,)`, `(paths,)` for points `(dim, paths)`."""
        h = self.observable.value(after)
        return h * h if self.squared else h


@dataclass(frozen=True, eq=False)
class StationaryStudy(Result):
    """Stationary averages from long paths; the return value of `st.stationary`.

    After the burn-in a path consists of 64 blocks of equal numbers of steps. A batch is one or more consecutive blocks; the averages over batches are
    taken as independent.

    Attributes:
        dynamics: The dynamics.
        names: The names of the observables.
        means: Averages of each observable over the blocks of each path, `(observables, paths, blocks)`, blocks in the order of time.
        squares: Averages of the squared observables, in the same shape.
        times: The times at which the blocks end, `(blocks,)`.
        burn_in: The time that the averages leave out.
        length: The number of steps of a block.
        batches: The number of batches of each path for the standard errors; 1 where paths disagree.
        confidence: The confidence level of intervals.
        diverged: The number of diverged paths: those whose state was not finite at some step.
        first_divergence: The first step at which the state of a path was not finite; -1 if all were finite.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    dynamics: Moving
    names: tuple[str, ...]
    means: np.ndarray
    squares: np.ndarray
    times: np.ndarray
    burn_in: float
    length: int
    batches: int
    confidence: float = 0.95
    diverged: int = 0
    first_divergence: int = -1
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def paths(self) -> int:
        """The number of paths, diverged ones included."""
        return self.means.shape[1]

    def batch_means(self, observable: str | int = 0) -> BatchMeans:
        """Return the averages of one observable over blocks as a `BatchMeans`, which computes its statistics from them.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
        """
        o = column(self.names, observable)
        return BatchMeans(self.means[o], self.squares[o], self.length, self.batches)

    def at(self, observable: str | int = 0) -> StationaryEstimate:
        """Return the stationary mean of an observable; NaN with an infinite interval if a path diverged.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
        """
        name = f"E[{self.names[column(self.names, observable)]}]"
        return self.batch_means(observable).estimate(self.confidence, name, self.diverged, self.first_divergence)

    def main_estimates(self) -> dict[str, StationaryEstimate]:
        """Return a dict of the stationary mean by the name of the observable."""
        return {name: self.at(name) for name in self.names}

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset over `observable`, with the averages over blocks `batch_mean` over (observable, path, time); a time is the end of a block.

        The other variables are `mean`, `stderr`, `low`, `high`, `variance` (of h), `autocorrelation_time` (in steps), `ess` (the effective sample size)
        and `r_hat` (split R-hat). Attributes are the numbers of `paths`, of `batches` of a path, of steps of a block (`length`) and of `diverged` paths,
        `first_divergence`, the time `burn_in`, and the fields of `origin`.
        """
        import xarray

        rows = [self.at(o) for o in range(len(self.names))]
        fields = {
            "mean": [e.value for e in rows],
            **{
                name: [getattr(e, name) for e in rows]
                for name in ("stderr", "low", "high", "autocorrelation_time", "ess", "r_hat")
            },
            "variance": [self.batch_means(o).variance for o in range(len(self.names))],
        }
        return xarray.Dataset(
            {name: ("observable", np.array(values, dtype=float)) for name, values in fields.items()}
            | {"batch_mean": (("observable", "path", "time"), self.means)},
            coords={"observable": list(self.names), "path": np.arange(self.paths), "time": self.times},
            attrs={"paths": self.paths, "batches": self.batches, "length": self.length, "burn_in": self.burn_in}
            | {"diverged": self.diverged, "first_divergence": self.first_divergence}
            | self.origin.attributes,
        )

    def table(self) -> str:
        """Return a text table with a line for each observable: mean, interval, effective sample size, autocorrelation time in steps, R-hat."""
        level = f"{100 * self.confidence:g} % interval"
        lines = [f"{'observable':<18} {'mean':>14} {'stderr':>10} {level:>28} {'ESS':>12} {'tau (steps)':>12} {'R-hat':>8}"]
        for o, name in enumerate(self.names):
            e = self.at(o)
            lines.append(
                f"{name:<18.18} {e.value:>14.6g} {e.stderr:>10.2g} {e.confidence_interval()!s:>28} {e.ess:>12,.0f} "
                f"{e.autocorrelation_time:>12.4g} {e.r_hat:>8.4f}"
            )
        lines += [f"{name}: {concern}" for o, name in enumerate(self.names) for concern in self.at(o).concerns]
        if self.diverged:
            lines.append(f"{self.diverged:,} paths diverged, first at step {self.first_divergence}")
        lines.append(
            f"{self.paths:,} paths of {self.length * len(self.times):,} steps after t={self.burn_in:g}, {self.batches} batches a path"
        )
        return "\n".join(lines)

    def plot(self, observable: str | int = 0, *, ax: Any = None) -> Figure:
        """Plot the averages of paths from the end of the burn-in to each time, with the interval of the stationary mean; return the figure.

        Paths that have not mixed do not meet. At most eight paths are drawn.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            ax: The axes; None for those of a new figure.
        """
        from sdetools.plots import figure_of, running_means

        o, e = column(self.names, observable), self.at(observable)
        running = np.cumsum(self.means[o], axis=1) / np.arange(1, len(self.times) + 1)
        interval = e.confidence_interval()
        return figure_of(
            running_means(self.times, running[:8], e.value, interval.low, interval.high, f"mean of {self.names[o]}", ax=ax)
        )

    def plot_blocking(self, observable: str | int = 0, *, ax: Any = None) -> Figure:
        """Plot the autocorrelation time in steps against the length of batches, a curve that must reach a plateau, and return the figure.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            ax: The axes; None for those of a new figure.
        """
        from sdetools.plots import figure_of, loglog_orders

        found = self.batch_means(observable)
        lengths, taus = found.blocking
        axes = loglog_orders(lengths, taus, slopes=(), xlabel="steps of a batch", ylabel="autocorrelation time in steps", ax=ax)
        return figure_of(axes)

    def __repr__(self) -> str:
        steps = self.length * len(self.times)
        lines = [f"{self.dynamics.name}: {self.paths:,} paths of {steps:,} steps after t={self.burn_in:g}"]
        if self.diverged:
            lines.append(f"{self.diverged:,} paths left the finite range, first at step {self.first_divergence}")
        for o in range(len(self.names)):
            lines += [repr(self.at(o)), *(f"  {concern}" for concern in self.at(o).concerns)]
        return "\n  ".join(lines)


def stationary(
    dynamics: Moving,
    x0: Any,
    horizon: float,
    paths: int = 256,
    observe: Any = (),
    *,
    burn_in: float | None = None,
    batches: int | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    stream: int | Stream = 0,
    **execution: Unpack[ExecutionOptions],
) -> StationaryStudy:
    r"""Estimate stationary averages lim E h(x_k) from few long paths, as averages over the steps after a burn-in.

    Intervals are those of replicated batch means (`estimates.batch_means`): they allow for the autocorrelation of a path, and for paths that
    disagree. The averages are those of the dynamics itself, also where an integrator's stationary law is not that of its SDE. 256 paths take the time
    of one, because the compiled kernel advances 256 at a time.

    Args:
        dynamics: An optimiser, an SDE with an integrator, or any other one-step rule, with constant coefficients.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`. Starts that are
            more widely spread than the stationary law make R-hat informative.
        horizon: The final time, a whole number of steps.
        paths: The number of paths. Fewer than 256 take no less time.
        observe: Observables h: an expression, a function of x with x[i] the i-th coordinate, a loss, a list of these, or a dict from names to these.
        burn_in: The time that the averages leave out, below the horizon, a whole number of steps; None for a fifth of it. It is prolonged by at most
            63 steps, so that 64 blocks of equal length remain.
        batches: The number of batches (averages over consecutive steps) of each path from which the standard error is computed: 1, 2, 4, ..., 64. None
            takes the least number with 64 batches of all paths together: for 64 paths or more, one batch a path. It is 1 where the split R-hat shows
            that paths disagree.
        confidence: The confidence level of intervals, strictly between 0 and 1.
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The number 0, 1, 2, ... of one of many independent sets of draws that belong to the seed, or a `Stream` with this number.
        execution: Options of `st.Execution`: threads, executor, backend, dtype, store, resume, progress, retries.

    Returns:
        The stationary averages, with effective sample sizes, integrated autocorrelation times and split R-hat.

    Raises:
        ValueError: If an argument is invalid, or fewer than 64 steps remain after the burn-in; the message states the rule and a remedy.
        TypeError: If a keyword is neither a parameter nor an option of `st.Execution`.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5)
        >>> run = st.stationary(st.SGDM(oracle, st.schedules.constant(0.25, beta=0.5)), [0.0], 2500.0, paths=64, observe=["x0**2"])
        >>> abs(run.at("x0**2").z(st.exact.stationary_variance(0.25, 0.5, 1.0, 0.25))) < 4.5
        True
    """
    how = Execution.of(execution)
    call = call_text(stationary, locals(), **how.changed())
    if how.dtype != "float64":
        raise ValueError(
            f"`dtype` of a stationary average must be 'float64'; got {how.dtype!r}. Rounding in single precision changes a stationary law "
            "by an unknown amount. Omit dtype=."
        )
    paths = _check.count("paths", paths, hint="Few long paths suffice; 256 is the default.")
    _check.confidence(confidence)
    batches = default_batches(paths, BLOCKS) if batches is None else _check.count("batches", batches, most=BLOCKS)
    if BLOCKS % batches:
        raise ValueError(
            f"`batches` must be 1, 2, 4, ..., {BLOCKS}; got {batches}. Powers of two divide the {BLOCKS} stored blocks."
        )
    program, _, step_time = make_program((dynamics,), x0, horizon, observe, [horizon], (), control=False, coupled=True)
    test_functions = program.observables
    sums = tuple(PathSum(h, squared) for h in test_functions for squared in (False, True))
    program = replace(program, observables=(), functionals=sums)
    first = _first_step(burn_in, program.steps, step_time)
    length = (program.steps - first) // BLOCKS
    edges = first + length * np.arange(BLOCKS + 1)
    with sampling(how, seed, stream, lambda: program.fingerprint(seed, stream, paths, edges)) as sampler:
        found = sampler.run(program, paths, slices=edges, sums=True)
    assert found.slices is not None
    with np.errstate(all="ignore"):  # sums of diverged paths are not finite
        averages = np.diff(found.slices, axis=0).transpose(1, 2, 0) / length
    return StationaryStudy(
        dynamics,
        tuple(h.name for h in test_functions),
        np.ascontiguousarray(averages[::2]),
        np.ascontiguousarray(averages[1::2]),
        edges[1:] * step_time,
        float(first * step_time),
        length,
        batches,
        confidence,
        int(found.diverged[0]),
        int(found.first_divergence[0]),
        sampler.origin(call, found),
    )


def _first_step(burn_in: float | None, steps: int, step_time: float) -> int:
    """Return the step after which averages begin: at least that of `burn_in`, such that the remaining steps are a multiple of `BLOCKS`.

    Args:
        burn_in: The time to leave out; None for a fifth of the run.
        steps: The number of steps of the run.
        step_time: The time of one step.

    Raises:
        ValueError: If `burn_in` is invalid, or fewer than `BLOCKS` steps remain.
    """
    if burn_in is None:
        first = int(BURN_IN * steps)
    else:
        first = int(
            asked_steps(
                "burn_in", [_check.number("burn_in", burn_in, "be a time from 0 to below the horizon")], steps, step_time
            )[0]
        )
    length = (steps - first) // BLOCKS
    if length < 1:
        raise ValueError(
            f"`horizon` must leave at least {BLOCKS} steps after the burn-in; got {steps - first} of {steps:,} steps. Take a later horizon."
        )
    return steps - BLOCKS * length
