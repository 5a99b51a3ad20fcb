"""Sampling of programs with the options of execution, and the number of paths for a requested precision."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.estimates.interval import quantile, undetected_probability
from sdetools.results.protocol import Origin
from sdetools.simulation.clusters import open_executor
from sdetools.simulation.engine import Sums, execute
from sdetools.simulation.interruption import interruptible
from sdetools.simulation.philox import Stream
from sdetools.simulation.program import Program
from sdetools.simulation.progress import progress_report
from sdetools.simulation.store import Store
from sdetools.simulation.submission import kept_in
from sdetools.studies.execution import Execution
from sdetools.studies.known import Known
from sdetools.studies.statistics import PairStatistics, SingleStatistics

PILOT_PATHS = 1 << 15
"""The number of paths of the pilot run, which determines how many paths reach a precision."""


@dataclass(frozen=True)
class Sampler:
    """The means to run programs (descriptions of simulations): the draws of a seed and a stream, and the options of execution.

    Attributes:
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The stream of draws of that seed, one of many independent sets.
        execution: Threads, backend, store and other options. Its executor is open, not the name of an engine.
    """

    seed: int = 0
    stream: Stream = field(default_factory=Stream)
    execution: Execution = field(default_factory=Execution)

    def run(self, program: Program, paths: int, keep: bool = False, label: str = "paths", **points: Any) -> Sums:
        """Run a program, the description of a simulation.

        Args:
            program: The program.
            paths: The number of paths.
            keep: Whether to keep the positions of all paths after the last step.
            label: The label of the progress bar.
            points: `slices`, steps at which the states of all paths are kept, and `trajectories`, indices of paths whose states at the recorded
                steps are kept, integer arrays; none of either if missing. `sums=True` keeps in `slices` the sums of functionals instead.

        Returns:
            The accumulated moments, with the requested states in the attributes `points` (for `keep`), `slices` and `trajectories`.
        """
        how = self.execution
        assert not isinstance(how.executor, str)  # `sampling` has opened it
        with progress_report(how.progress, label) as shown:
            return execute(
                program,
                paths,
                self.seed,
                self.stream,
                how.threads,
                how.executor,
                how.store,
                keep,
                how.backend,
                shown,
                **points,
                dtype=how.dtype,
                retries=how.retries,
            )

    def origin(self, call: str, sums: Sums) -> Origin:
        """Return the origin of a result: the text of the `call`, seed and stream, and the backend and floating-point type of the moments `sums`."""
        return Origin(call, self.seed, self.stream.number, sums.backend, sums.dtype)


@contextmanager
def sampling(execution: Execution, seed: int, stream: int | Stream, identity: Callable[[], str]) -> Iterator[Sampler]:
    """Yield a sampler whose store and engine are open: one file of finished work, and the same workers, for all that a run computes.

    Both are closed at the end of the context, unless they were open before.

    Args:
        execution: How paths are run; its `store` is a file's path, None for no file, or a store that is open already and stays open. Its
            `executor` is the name of an engine, or an executor that stays open.
        seed: The seed of the draws.
        stream: The stream of draws of that seed, a number or a `Stream`.
        identity: A function without arguments that returns a text which identifies the run in the store. It is called only if `store` is a
            path, because it reads all data.

    Yields:
        The sampler.

    Raises:
        ValueError: If `store` is something else or holds another run, or `resume` is not True or False.
        KeyboardInterrupt: After Ctrl-C; its message says what is kept and how to resume.
    """
    with ExitStack() as stack:
        kept = execution.store
        if kept is not None and not isinstance(kept, Store):
            kept = stack.enter_context(Store(kept, identity(), execution.resume))
        pool = stack.enter_context(open_executor(execution.executor, execution.threads))
        stack.enter_context(interruptible(lambda: kept_in(kept) if kept is not None else None))
        yield Sampler(seed, Stream.of(stream), replace(execution, store=kept, executor=pool))


def paths_for_precision(program: Program, precision: float, confidence: float, sampler: Sampler) -> int:
    """Return the number of paths, at least 2, that reduces every recorded half-width to `precision`, from a pilot run on its own draws.

    This is Stein's two-stage procedure. The pilot's variance alone determines the number of paths, and the main run alone gives the
    estimate, so that its interval keeps its level. With the standard deviation s over paths, the two-sided quantile q of `confidence`, and the
    width R of the bounds of an observable where these enter the interval (0 for others), the number n of paths solves
    q s / sqrt(n) + R l / n = precision with l = log(2 / (1 - confidence)). The largest n over times and observables is returned.

    Args:
        program: The description of the simulation.
        precision: The half-width, in the units of the observables.
        confidence: The confidence level.
        sampler: Seed, stream and options of the main run.

    Raises:
        ValueError: If the pilot does not determine the variance: paths are not finite, or all agree although draws enter and no bounds
            are known. Also if `precision` is not positive.
    """
    import time

    precision = _check.positive("precision", precision, hint="It is the requested half-width, in the units of the observable.")
    begin = time.perf_counter()
    # The pilot has its own draws, so that the main run depends on it only through the number of paths.
    own = replace(sampler, stream=replace(sampler.stream, pilot=True))
    pilot = own.run(program, PILOT_PATHS, label="pilot")
    seconds = time.perf_counter() - begin
    known = Known(program, PairStatistics(pilot) if program.pair else SingleStatistics(pilot))
    _check_pilot(known, precision)
    least, most = known.bounds
    spread = quantile(confidence, pilot.paths) * known.stderr * np.sqrt(pilot.paths)
    missed = np.where(known.random & _bounded(known), most - least, 0.0) * undetected_probability(confidence, 1)
    root = (spread + np.sqrt(spread**2 + 4 * precision * missed)) / (2 * precision)
    paths = max(2, int(np.ceil(np.max(root**2))))
    if sampler.execution.progress:
        print(f"{paths:,} paths for a half-width of {precision:g}: about {seconds * paths / pilot.paths:.3g} s", file=sys.stderr)
    return paths


def _bounded(known: Known) -> np.ndarray:
    """Return an array of booleans `(times, observables)`: whether both bounds of one path's value are known (finite)."""
    return np.all(np.isfinite(known.bounds), axis=0)


def _check_pilot(known: Known, precision: float) -> None:
    """Raise a ValueError if a pilot run does not determine the number of paths for a precision.

    Args:
        known: The properties and the sample moments of the pilot run.
        precision: The requested half-width, for the message.
    """
    program, statistics = known.program, known.statistics
    names = [o.name for o in (*program.observables, *program.functionals)]
    problem = f"`precision` must be requested for means whose variance a pilot run can estimate; got precision={precision:g}, and of its {statistics.sums.paths:,} paths"
    value = statistics.gap if isinstance(statistics, PairStatistics) else statistics.mean
    bad = np.argwhere(~np.isfinite(value) | ~np.isfinite(known.stderr))
    if len(bad):
        t, o = bad[0]
        step = int(program.record[t])
        diverged = int(statistics.sums.diverged.sum())
        if diverged:
            first = min(s for s in statistics.sums.first_divergence.tolist() if s >= 0)
            raise ValueError(
                f"{problem} {diverged:,} left the finite range, first at step {first}, so that {names[o]} has no mean at step {step}. "
                "Take a smaller learning rate or an earlier horizon."
            )
        raise ValueError(
            f"{problem} some have no finite {names[o]} at step {step}, or one too large to be squared. "
            "Observe something that is finite wherever paths go."
        )
    open_ = np.argwhere(known.random & (known.stderr == 0) & ~_bounded(known))
    if len(open_):
        t, o = open_[0]
        raise ValueError(
            f"{problem} none differs from another in {names[o]} at step {int(program.record[t])}. "
            "State its bounds (st.Bounded, st.Indicator), leave that time out, or pass paths= instead."
        )
