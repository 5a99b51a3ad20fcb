"""SGDM in every dimension against the machine's limit: the measurements of `sdetools bench --dimension`.

A cell of the table is one problem in one dimension. It runs through `st.simulate` as in user code, on one thread. Its time is the
difference between runs of 1 and 1 + n steps, so that work done once per run cancels. The short run, the long run and the probes of the
roofline are interleaved, and the smallest time of each counts. Times are processor times of the thread, since other processes may share
the machine; only the comparison of thread counts uses wall time.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sdetools import _check
from sdetools.benchmarking.cases import DIMS, PROBLEMS, Problem, runner
from sdetools.benchmarking.core_loop import CONTROLLED, own_implementations
from sdetools.benchmarking.dimension_table import Cell, Comparison, DimensionTable, LeftOut
from sdetools.benchmarking.first_result import measure as first_result
from sdetools.benchmarking.implementations import STEPS, Implementation, clock, run_interleaved
from sdetools.benchmarking.machine import hardware, topology
from sdetools.benchmarking.roofline import probes, roofline

COPIES = 8
"""Number of matrices (d, d) that a cell may allocate at once: data, loss, program, kernel, probes, and those of the new process."""
PAIR_BOUND, THREADS_BOUND, CORE_LOOP_BOUND, GEMM_BOUND, GEMM_DIM = 1.35, 0.85, 0.7, 0.6, 512
"""Bounds of ratios: a pair with control over a single dynamics; one thread over n threads, per thread; single over double precision, in the
core loop and on a dense quadratic of dimension GEMM_DIM.
"""
PATH_STEPS = 10**10


@dataclass(frozen=True)
class Effort:
    """How long a measured run takes, and how often it is repeated.

    Attributes:
        seconds: Duration of one measured run, for which its number of steps or paths is chosen.
        rounds: Number of rounds; in each round every run that is compared takes its turn.
        first: Whether to measure also the time to the first result of a loss, in two new processes for each cell of the table.
    """

    seconds: float = 0.5
    rounds: int = 5
    first: bool = True


QUICK, QUICK_DIMS = Effort(seconds=0.15, rounds=3), (2, 32, 512)


def dimension_table(
    dims: Sequence[int] | None = None,
    threads: int | None = None,
    effort: Effort | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> DimensionTable:
    """Measure SGDM on the four problems of `cases.PROBLEMS` in each dimension on this machine, and compare it with the machine's limit.

    A cell of the table is one problem in one dimension. It has the time per coordinate-step (one step of one coordinate of one path), its ratio to
    the roofline (a lower bound from measured rates of matrix products and random draws), and the seconds to the first result.

    Args:
        dims: Dimensions from 1 to 10,000, in any order; if None, `cases.DIMS` (1, 2, 4, ..., 10,000).
        threads: Number of threads that is compared with one thread; if None, the number of processors that this process may use.
        effort: Duration and number of rounds; `Effort()` if None.
        progress: Called as `progress(what, done, total)` before each measurement, with a text such as "double well, d = 32", and at the end
            with an empty one; None for no report.

    Returns:
        The measured table. A cell that does not fit into memory is left out and listed in `left_out`.

    Raises:
        ValueError: If there are no dimensions, or if a dimension or `threads` is not a positive integer or too large.
    """
    from sdetools.simulation.engine import memory
    from sdetools.simulation.threads import MOST_THREADS, available_threads

    effort = Effort() if effort is None else effort
    chosen = sorted({_check.count("dims", d, most=DIMS[-1]) for d in (DIMS if dims is None else dims)})
    if not chosen:
        raise ValueError("`dims` must have at least one dimension; got none.")
    threads = available_threads() if threads is None else _check.count("threads", threads, most=MOST_THREADS)
    work = [(problem, d) for problem in PROBLEMS.values() for d in chosen if problem.takes(d)]
    cells, left_out = [], []
    report_progress = progress or (lambda what, done, total: None)
    for i, (problem, d) in enumerate(work):
        report_progress(f"{problem.name}, d = {d:,}", i, len(work) + 1)
        if problem.flops and (needed := COPIES * 8.0 * d * d) > memory():
            left_out.append(LeftOut(problem.name, d, f"would need {1e-9 * needed:.0f} GB of memory"))
            continue
        cells.append(cell(problem, d, effort))
    report_progress("pair, threads, single precision", len(work), len(work) + 1)
    compared = tuple(comparisons(threads, GEMM_DIM in chosen, effort))
    report_progress("", len(work) + 1, len(work) + 1)
    return DimensionTable(hardware(), threads, tuple(cells), compared, tuple(left_out))


def cell(problem: Problem, dim: int, effort: Effort) -> Cell:
    """Measure SGDM on one problem in one dimension on one thread, and return its time per coordinate-step with roofline and time to first result.

    A coordinate-step is one step of one coordinate of one path, and the roofline a lower bound of its time from the machine's measured rates.

    Args:
        problem: The family of losses.
        dim: The dimension, one for which `problem.takes(dim)`.
        effort: Duration and number of rounds; from dimension 10,000 on there are two rounds.
    """
    first, again = first_result(problem.name, dim) if effort.first else (None, None)
    dynamics = problem.dynamics(dim, *problem.data(dim))
    lanes = lanes_of(dynamics, dim)
    paths = paths_at(dim)
    run = runner(dynamics, dim, paths)
    steps = steps_for(run, effort.seconds)
    probed = probes(dim, lanes, "float64", problem.flops > 0, problem.batch > 0)
    short, long, *least = least_seconds(
        [lambda: run(1), lambda: run(1 + steps), *(p.work for p in probed)], effort.rounds if dim < DIMS[-1] else 2
    )
    limit = roofline(probed, least, dim)
    return Cell(
        problem.name, dim, lanes, paths, steps, 1e9 * (long - short) / (steps * paths * dim), limit.nanoseconds(problem.flops_at(dim), problem.draws_at(dim)),
        1e9 * limit.draw, 1e-9 * limit.peak, 1e-9 * limit.peak_at_dim, problem.bound(dim), first, again,
    )  # fmt: skip


def paths_at(dim: int) -> int:
    """Return the number of paths of a run in dimension `dim`: 1024 up to dimension 512, else 256."""
    return 1024 if dim <= 512 else 256


def lanes_of(dynamics: Any, dim: int) -> int:
    """Return the number of lanes of a dynamics of dimension `dim`, the number of paths that its compiled kernel computes together: 32 to 256."""
    import numpy as np

    from sdetools.simulation.cpu import write
    from sdetools.studies.means import make_program

    program = make_program((dynamics,), np.zeros(dim), 1.0, {"x0": lambda x: x[0]}, [1.0], (), control=False, coupled=True)[0]
    return write(program).lanes


def steps_for(run: Callable[[int], Any], seconds: float) -> int:
    """Return the number of steps, at least 1, for which `run(steps)` takes about `seconds`, by extrapolation from shorter runs after compiling.

    Times are processor times of the calling thread. The faster of two runs counts, to exclude one-off costs.
    """
    run(1)
    steps = 1
    while (taken := min(clock(lambda: run(steps), time.thread_time) for _ in range(2))) < seconds / 4:
        steps *= 4
    return max(1, round(steps * seconds / taken))


def least_seconds(parts: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the smallest processor time in seconds of each function of `parts`, a list in their order, over `rounds` rounds.

    The time is that of the calling thread. In every round all functions are called once, without arguments, one after the other.
    """
    taken = [[clock(part, time.thread_time) for part in parts] for _ in range(rounds)]
    return [min(column) for column in zip(*taken, strict=True)]


def has_single_precision() -> bool:
    """Return whether `st.simulate` has the argument `dtype`, by which single precision is chosen."""
    import sdetools as st

    return "dtype" in inspect.signature(st.simulate).parameters


def comparisons(threads: int, dense: bool, effort: Effort) -> Iterator[Comparison]:
    """Yield measured ratios with their bounds, which compare variants of a run on this machine; the last one is a time.

    They are, in this order: the time of a coupled pair with control variate over that of a single dynamics, of one thread over `threads`
    threads, of single over double precision in the core loop (2-D SGDM on the hyperbola) and on a dense quadratic, and the seconds of 10^10
    two-dimensional path-steps (steps of one path).

    Args:
        threads: Number of threads that is compared with one; for 1 this comparison is omitted. The last run is on this number, too.
        dense: Whether to compare single with double precision also on the dense quadratic of dimension 512.
        effort: Duration and number of rounds.
    """
    one, pair = (impl for impl in own_implementations(1) if impl.name in ("sdetools", CONTROLLED))
    walls = [own_implementations(n)[0] for n in sorted({1, threads})]
    narrow = [own_implementations(1, dtype="float32")[0]] if has_single_precision() else []
    for impl in (one, pair, *narrow):
        impl.timer = time.thread_time
    impls = [one, pair, *walls, *narrow]
    for impl in impls:
        impl.size(effort.seconds)
    run_interleaved(impls, effort.rounds)
    yield Comparison(
        "coupled pair with control over the single", least(pair) / least(one), PAIR_BOUND, "at most", "2-D hyperbola"
    )
    if threads > 1:
        ratio = least(walls[0]) / least(walls[1])
        remark = f"{topology()}, of which the threads received {processors(walls[1]):.1f}"
        yield Comparison(f"one thread over {threads}, by the wall", ratio, THREADS_BOUND * threads, "at least", remark)
    for impl in narrow:
        yield Comparison("float32 over float64, 2-D hyperbola", least(impl) / least(one), CORE_LOOP_BOUND, "at most")
    if narrow and dense:
        yield _single(GEMM_DIM, effort)
    most = walls[-1]
    remark = (
        f"extrapolated from {most.paths * STEPS:,} of them in {min(most.seconds):.2f} s on {threads} thread{'s' * (threads > 1)}"
    )
    yield Comparison("seconds for 10^10 two-dimensional path-steps", 1e-9 * least(most) * PATH_STEPS, None, "", remark)


def processors(impl: Implementation) -> float:
    """Return the average number of processors that a run of an implementation receives, measured now: its processor time over its wall time.

    On a busy machine it is below the number of threads. `Implementation.size` must have been called; the run is of `impl.paths` paths.
    """
    used: list[float] = []
    seconds = clock(lambda: used.append(clock(lambda: impl.run(impl.paths), time.process_time)))
    return used[0] / seconds


def least(impl: Implementation) -> float:
    """Return the smallest time per path-step (one step of one path) in nanoseconds over the rounds of an implementation; ValueError if it ran none."""
    return min(impl.nanoseconds)


def _single(dim: int, effort: Effort) -> Comparison:
    """Return the time of a step in single over that in double precision, on the dense quadratic of dimension `dim` on one thread."""
    problem = PROBLEMS["dense quadratic"]
    dynamics = problem.dynamics(dim, *problem.data(dim))
    runs = [runner(dynamics, dim, paths_at(dim), **more) for more in ({}, {"dtype": "float32"})]
    steps = [steps_for(run, effort.seconds) for run in runs]
    parts = [lambda run=run, n=n: run(n) for run, count in zip(runs, steps) for n in (1, 1 + count)]
    a, b, c, d = least_seconds(parts, effort.rounds)
    double, single = (b - a) / steps[0], (d - c) / steps[1]
    return Comparison(f"float32 over float64, dense quadratic, d = {dim}", single / double, GEMM_BOUND, "at most")
