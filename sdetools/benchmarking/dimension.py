"""SGDM in every dimension, beside what the machine allows: the measurements of `sdetools bench --dimension`.

A cell runs through `st.simulate` as a user calls it, on one thread. The difference between runs of 1 and 1 + n steps counts, so what is done
once a run drops out. Short run, long run and the probes of the roofline take turns, and the least seconds of each count: processor time
of the thread, for other processes may share the machine. Threads are compared by the clock on the wall.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sdetools import _check
from sdetools.benchmarking.cases import DIMS, PROBLEMS, Problem, runner
from sdetools.benchmarking.core_loop import CONTROLLED, own_ways
from sdetools.benchmarking.dimension_table import Cell, Comparison, DimensionTable, LeftOut
from sdetools.benchmarking.first_result import measure as first_result
from sdetools.benchmarking.machine import hardware, topology
from sdetools.benchmarking.roofline import probes, roofline
from sdetools.benchmarking.ways import STEPS, Way, clock, take_turns

COPIES = 8
"""Copies of a matrix (d, d) that a cell may hold at once: data, loss, program, kernel, probes, and what a new process holds beside them."""
PAIR_BOUND, THREADS_BOUND, CORE_LOOP_BOUND, GEMM_BOUND, GEMM_DIM = 1.35, 0.85, 0.7, 0.6, 512
"""Of a pair with control over the single; of one thread over n, for each of them; of single over double precision, in the core loop and
on a dense quadratic of so many dimensions."""
PATH_STEPS = 10**10


@dataclass(frozen=True)
class Effort:
    """Seconds of a measured run, about, turns that all take, and whether new processes measure the first result."""

    seconds: float = 0.5
    turns: int = 5
    first: bool = True


QUICK, QUICK_DIMS = Effort(seconds=0.15, turns=3), (2, 32, 512)


def dimension_table(
    dims: Sequence[int] | None = None,
    threads: int | None = None,
    effort: Effort | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> DimensionTable:
    """The table at dimensions `dims` (by default `DIMS`), threads compared on `threads` (by default all) of them.

    `progress(what, done, total)` is called before each measurement. ValueError for dimensions and threads that are no positive integers.
    """
    from sdetools.simulation.engine import MOST_THREADS, available_threads, memory

    effort = Effort() if effort is None else effort
    chosen = sorted({_check.count("dims", d, most=DIMS[-1]) for d in (DIMS if dims is None else dims)})
    if not chosen:
        raise ValueError("`dims` must have at least one dimension; got none.")
    threads = available_threads() if threads is None else _check.count("threads", threads, most=MOST_THREADS)
    work = [(problem, d) for problem in PROBLEMS.values() for d in chosen if problem.takes(d)]
    cells, left_out = [], []
    tell = progress or (lambda what, done, total: None)
    for i, (problem, d) in enumerate(work):
        tell(f"{problem.name}, d = {d:,}", i, len(work) + 1)
        if problem.flops and (needed := COPIES * 8.0 * d * d) > memory():
            left_out.append(LeftOut(problem.name, d, f"would need {1e-9 * needed:.0f} GB of memory"))
            continue
        cells.append(cell(problem, d, effort))
    tell("pair, threads, single precision", len(work), len(work) + 1)
    compared = tuple(comparisons(threads, GEMM_DIM in chosen, effort))
    tell("", len(work) + 1, len(work) + 1)
    return DimensionTable(hardware(), threads, tuple(cells), compared, tuple(left_out))


def cell(problem: Problem, dim: int, effort: Effort) -> Cell:
    """One measured cell."""
    first, again = first_result(problem.name, dim) if effort.first else (None, None)
    dynamics = problem.dynamics(dim, *problem.data(dim))
    lanes = lanes_of(dynamics, dim)
    paths = paths_at(dim)
    run = runner(dynamics, dim, paths)
    steps = steps_for(run, effort.seconds)
    probed = probes(dim, lanes, "float64", problem.flops > 0, problem.batch > 0)
    short, long, *least = least_seconds(
        [lambda: run(1), lambda: run(1 + steps), *(p.work for p in probed)], effort.turns if dim < DIMS[-1] else 2
    )
    limit = roofline(probed, least, dim)
    return Cell(
        problem.name, dim, lanes, paths, steps, 1e9 * (long - short) / (steps * paths * dim), limit.nanoseconds(problem.flops_at(dim), problem.draws_at(dim)),
        1e9 * limit.draw, 1e-9 * limit.peak, 1e-9 * limit.peak_at_dim, problem.bound(dim), first, again,
    )  # fmt: skip


def paths_at(dim: int) -> int:
    return 1024 if dim <= 512 else 256


def lanes_of(dynamics: Any, dim: int) -> int:
    """Lanes of the blocks of a kernel."""
    import numpy as np

    from sdetools.simulation.cpu import write
    from sdetools.studies.means import make_program

    program = make_program((dynamics,), np.zeros(dim), 1.0, {"x0": lambda x: x[0]}, [1.0], (), control=False, coupled=True)[0]
    return write(program).lanes


def steps_for(run: Callable[[int], Any], seconds: float) -> int:
    """Steps that take about so many seconds; compiles first. The faster of two, for what happens once must not count."""
    run(1)
    steps = 1
    while (taken := min(clock(lambda: run(steps), time.thread_time) for _ in range(2))) < seconds / 4:
        steps *= 4
    return max(1, round(steps * seconds / taken))


def least_seconds(parts: Sequence[Callable[[], Any]], turns: int) -> list[float]:
    """The least processor time of each; they take turns."""
    taken = [[clock(part, time.thread_time) for part in parts] for _ in range(turns)]
    return [min(column) for column in zip(*taken, strict=True)]


def has_single_precision() -> bool:
    """Whether `st.simulate` takes `dtype="float32"`."""
    import sdetools as st

    return "dtype" in inspect.signature(st.simulate).parameters


def comparisons(threads: int, dense: bool, effort: Effort) -> Iterator[Comparison]:
    """A pair with control beside a single, all threads beside one, single beside double precision, and what 10^10 path-steps take."""
    one, pair = (way for way in own_ways(1) if way.name in ("sdetools", CONTROLLED))
    walls = [own_ways(n)[0] for n in sorted({1, threads})]
    narrow = [own_ways(1, dtype="float32")[0]] if has_single_precision() else []
    for way in (one, pair, *narrow):
        way.timer = time.thread_time
    ways = [one, pair, *walls, *narrow]
    for way in ways:
        way.size(effort.seconds)
    take_turns(ways, effort.turns)
    yield Comparison(
        "coupled pair with control over the single", least(pair) / least(one), PAIR_BOUND, "at most", "2-D hyperbola"
    )
    if threads > 1:
        ratio = least(walls[0]) / least(walls[1])
        remark = f"{topology()}, of which the threads were given {processors(walls[1]):.1f}"
        yield Comparison(f"one thread over {threads}, by the wall", ratio, THREADS_BOUND * threads, "at least", remark)
    for way in narrow:
        yield Comparison("float32 over float64, 2-D hyperbola", least(way) / least(one), CORE_LOOP_BOUND, "at most")
    if narrow and dense:
        yield _single(GEMM_DIM, effort)
    most = walls[-1]
    remark = (
        f"extrapolated from {most.paths * STEPS:,} of them in {min(most.seconds):.2f} s on {threads} thread{'s' * (threads > 1)}"
    )
    yield Comparison("seconds for 10^10 two-dimensional path-steps", 1e-9 * least(most) * PATH_STEPS, None, "", remark)


def processors(way: Way) -> float:
    """How many processors' worth of time a run is given: fewer than its threads where other processes want them too."""
    used: list[float] = []
    seconds = clock(lambda: used.append(clock(lambda: way.run(way.paths), time.process_time)))
    return used[0] / seconds


def least(way: Way) -> float:
    return min(way.nanoseconds)


def _single(dim: int, effort: Effort) -> Comparison:
    """Single over double precision on the dense quadratic."""
    problem = PROBLEMS["dense quadratic"]
    dynamics = problem.dynamics(dim, *problem.data(dim))
    runs = [runner(dynamics, dim, paths_at(dim), **more) for more in ({}, {"dtype": "float32"})]
    steps = [steps_for(run, effort.seconds) for run in runs]
    parts = [lambda run=run, n=n: run(n) for run, count in zip(runs, steps) for n in (1, 1 + count)]
    a, b, c, d = least_seconds(parts, effort.turns)
    double, single = (b - a) / steps[0], (d - c) / steps[1]
    return Comparison(f"float32 over float64, dense quadratic, d = {dim}", single / double, GEMM_BOUND, "at most")
