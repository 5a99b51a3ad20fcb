"""How weak results get their sums: the store, the progress bar, and the number of paths that a precision asks for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.simulation.engine import Sums, execute
from sdetools.simulation.philox import Stream
from sdetools.simulation.program import Program
from sdetools.simulation.store import Store
from sdetools.weak.estimate import quantile

PILOT_PATHS = 1 << 15


@dataclass(frozen=True)
class Options:
    """Where and how chunks run; the keyword arguments that all weak functions share."""

    seed: int = 0
    stream: int | Stream = 0
    threads: int | None = None
    executor: Executor | None = None
    store: Store | None = None
    progress: Any = False
    backend: str = "auto"

    def run(self, program: Program, paths: int, keep: bool = False, label: str = "paths") -> Sums:
        """The sums of a program over `paths` paths."""
        with _shown(self.progress, paths, label) as shown:
            return execute(
                program, paths, self.seed, self.stream, self.threads, self.executor, self.store, keep, self.backend, shown
            )


@contextmanager
def opened(store: Any, resume: bool, identity: str) -> Iterator[Store | None]:
    """The store of a run, opened if it is given as a path: one file for all that the run computes."""
    if store is None or isinstance(store, Store):
        yield store
        return
    if not isinstance(store, (str, Path)):
        raise ValueError(f"`store` must be a file's path or None; got {store!r}.")
    with Store(store, identity, resume) as kept:
        yield kept


@contextmanager
def _shown(progress: Any, paths: int, label: str) -> Iterator[Callable[[int, int], None] | None]:
    if callable(progress):
        yield progress
        return
    if not isinstance(progress, (bool, type(None))):
        raise ValueError(f"`progress` must be True, False or a function of (done, total); got {progress!r}.")
    if not progress or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=paths, desc=label, unit="path", unit_scale=True, leave=False) as bar:
        yield lambda done, total: bar.update(done - bar.n) and None


def paths_for_precision(
    program: Program, precision: float, confidence: float, stderr_of: Callable[[Sums], np.ndarray], options: Options
) -> int:
    """How many paths bring every recorded half-width below `precision`: from a pilot run on its own draws.

    Two stages (Stein): the pilot's variance alone sets the number, the main run alone gives the estimate, so its interval keeps its level.
    """
    import time

    precision = _check.positive("precision", precision, hint="It is the half-width asked for, in the units of the observable.")
    begin = time.perf_counter()
    # The pilot has draws of its own: the main run does not depend on what the pilot saw but for its size.
    own = replace(options, stream=replace(Stream.of(options.stream), pilot=True))
    pilot = own.run(program, PILOT_PATHS, label="pilot")
    seconds = time.perf_counter() - begin
    worst = float(np.nanmax(np.where(np.isfinite(stderr := stderr_of(pilot)), stderr, 0.0)))
    paths = max(2, int(np.ceil(pilot.paths * (quantile(confidence, 10**9) * worst / precision) ** 2)))
    if options.progress:
        print(f"{paths:,} paths for a half-width of {precision:g}: about {seconds * paths / pilot.paths:.3g} s", file=sys.stderr)
    return paths
