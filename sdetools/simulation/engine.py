"""The run of a program: its chunks on threads or on any executor, and the joining of their moments.

Moments are joined along the tree of `records`, so the result has the same bits whatever the size of chunks, the number of threads, the
executor, the order of arrival, or interruptions. Chunks are submitted in order, a few for each worker at a time (`submission`); each result is
joined with those that wait for it. Memory use does not grow with the number of paths or chunks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from sdetools import _check
from sdetools.graph.tracing import NotTraceable
from sdetools.simulation.backends import runner_of
from sdetools.simulation.chunks import NEVER, ChunkResult, ChunkTask, cost, make_task, run_kernel, task_again
from sdetools.simulation.layout import MOST_ROWS, Chunk, wanted_leaves
from sdetools.simulation.philox import PATHS, WIDEST, Stream
from sdetools.simulation.program import Program
from sdetools.simulation.records import GROUPS, LEAF, Tree
from sdetools.simulation.store import Store
from sdetools.simulation.submission import RETRIES, Accept, Submission, kept_in
from sdetools.simulation.threads import available_threads, check_threads, thread_share
from sdetools.simulation.trajectories import chosen, stored

MOST_PATHS_IN_ROWS = MOST_ROWS * LEAF << 20
"""The largest number of paths on backends whose chunks cannot grow with the run: a million chunks."""


@dataclass(frozen=True)
class Sums:
    """The accumulated moments of a run, with counts of paths and of diverged paths; all arrays of floats are in double precision.

    A member is one of the one or two dynamics, and a quantity is an observable h or a functional, a sum along the path. A group is at most
    ceil(leaves / 256) consecutive leaves of 256 paths each.

    Attributes:
        groups: Moments of each group of paths, `(256, records, quantities, statistics)`, in the order of the paths; 0 for groups without paths. The
            last axis has the statistics of `records.SINGLE` for one member, or of `records.PAIR` for two.
        counts: The number of paths of each group, diverged ones included, int64 `(256,)`.
        diverged: For each member, the number of paths that are not finite at the end, int64 `(members,)`.
        first_divergence: For each member, the smallest k such that a path is not finite after k steps; -1 if there is none. int64 `(members,)`.
        points: The final positions of all members, `(members * dim, paths)`, the first member's first; None unless they were kept.
        slices: The state of all paths at selected steps, `(steps, rows, paths)`. The rows are those of `Program.state_rows`, flattened: for each
            member all parts of `Program.parts`, NaN where the member lacks one. If sums were asked for, the rows are `Program.sum_rows`. Or None.
        trajectories: The state of selected paths at the recorded steps, `(records, rows, selected paths)`, in the rows of `Program.state_rows` and
            in the order in which the paths were asked for; or None.
        backend: The name of the backend that ran, such as "numba" or "torch:cuda".
        dtype: The floating-point type of the paths, "float64" or "float32".
    """

    groups: np.ndarray
    counts: np.ndarray
    diverged: np.ndarray
    first_divergence: np.ndarray
    points: np.ndarray | None = None
    slices: np.ndarray | None = None
    trajectories: np.ndarray | None = None
    backend: str = ""
    dtype: str = "float64"

    @property
    def paths(self) -> int:
        """The number of paths of the run, the sum of `counts`; diverged paths are included."""
        return int(self.counts.sum())


def memory() -> float:
    """Return the size of this machine's main memory in bytes; infinity if the system does not report it."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _fits(name: str, what: str, count: float, remedy: str) -> None:
    """Raise ValueError if `count` doubles exceed the memory; the system would grant it and kill the process later.

    The message names the argument `name`, says that `what` (a plural, such as "3 records of 10 paths") needs the memory, and ends in `remedy`.
    """
    if 8.0 * count > memory():
        raise ValueError(
            f"`{name}` must fit into memory; {what} take {8e-9 * count:,.0f} GB of {1e-9 * memory():,.0f} GB. {remedy}"
        )


def check_records(program: Program) -> None:
    """Check that the moments of all recorded steps and quantities, for 256 groups of paths, fit into the memory of this machine.

    Args:
        program: The simulation; only the numbers of recorded steps and of observables and functionals matter.

    Raises:
        ValueError: They exceed the memory. The message speaks of the argument `times`.
    """
    records = len(program.record)
    recorded = GROUPS * records * program.columns * len(program.statistics)
    _fits("times", f"{records:,} records of {program.columns} quantities", recorded, "Record fewer times.")


def execute(
    program: Program,
    paths: int,
    seed: int,
    stream: int | Stream = 0,
    threads: int | None = None,
    executor: Executor | None = None,
    store: Store | None = None,
    keep: bool = False,
    backend: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    operations: float | None = None,
    leaves: int | None = None,
    slices: Sequence[int] = (),
    trajectories: Sequence[int] = (),
    dtype: str = "float64",
    retries: int = RETRIES,
    sums: bool = False,
) -> Sums:
    """Run all chunks (sets of consecutive paths) of a program and return the accumulated moments.

    The number of threads, the executor, the store and the size of chunks do not affect a bit of the result. Chunks are run by threads of this
    process, by the workers of `executor`, or, on torch and cuda, by the calling thread; results are always joined in the calling thread. After
    an exception, Ctrl-C included, the chunks that have been accepted are committed to the store, if there is one, and the exception propagates.

    Args:
        program: The simulation.
        paths: The number of paths, from 1 to 2^42.
        seed: The seed of the draws, from 0 to 2^64 - 1.
        stream: The stream of the seed: runs with different streams have independent draws.
        threads: The number of threads; with `executor`, its number of workers if it does not report it. None uses all cores.
        executor: An executor for the chunks; None uses threads of this process. Torch and cuda do not use it.
        store: The file that keeps finished chunks; chunks found in it are not run again. None stores nothing.
        keep: Whether to keep the positions after the last step.
        backend: "auto", "numba", "numpy", "torch..." or "cuda"; see `chunks.make_task`.
        progress: A function `progress(done, total)`, called in the calling thread after each chunk with numbers of paths; None reports nothing.
        operations: Operations of one step of a path, about a nanosecond each, which determine the size of chunks. None uses `chunks.cost`.
        leaves: The largest number of leaves (256 paths each) of a chunk, for tests; it overrides `operations`.
        slices: Steps at which the state of all paths is kept, increasing.
        trajectories: Indices of paths whose state is kept at the recorded steps, in any order; the result has this order.
        dtype: "float64" or "float32", for draws, coefficients and the state of a path; moments are in double precision for both.
        retries: How often a chunk is submitted again after its worker failed (its process or node ended); an error of the chunk itself ends the run.
        sums: Whether the sums of functionals are kept at the steps `slices`, instead of the state; `keep` must then be False.

    Returns:
        The accumulated moments, and the kept states.

    Raises:
        ValueError: An argument is out of range, the results exceed the memory, or the backend cannot run the program.
        StoreError: The store cannot be read or written.
        WorkersFailed: The workers of a chunk failed more than `retries` times. The finished chunks are in the store.
    """
    paths = _check.count(
        "paths", paths, hint="Every estimate needs at least one path, and draws are addressed for that many at most.", most=PATHS
    )
    seed, stream = _check.count("seed", seed, least=0, most=WIDEST), Stream.of(stream)
    threads = check_threads(threads)
    rows = sum(m.dim for m in program.members)
    check_records(program)
    points, asked = stored(program, keep, slices, sums), np.asarray(trajectories, np.int64)
    what, size = (
        (f"{len(points.steps)} times of " if len(slices) else "") + f"{paths:,} paths",
        len(points.steps) * len(points.rows),
    )
    _fits("slices" if len(slices) else "keep_final", what, paths * size, "Keep fewer paths.")
    what, size = f"{len(program.record):,} records of {len(asked):,} paths", len(program.record) * program.state_rows.size
    _fits("trajectories", what, len(asked) * size, "Choose fewer paths, or record fewer times.")
    task = make_task(program, seed, stream, paths, 1, points, backend, dtype)
    in_rows = task.program is not None
    if leaves is None:
        data = task.kernel.data if task.kernel is not None else ()
        work = max(1.0, program.steps * (cost(program, data) if operations is None else operations))
        long = min(runner_of(task.backend).longest_rows, max(1, paths // (64 * LEAF))) if in_rows else 1
        leaves = wanted_leaves(paths, work, long, MOST_ROWS if in_rows else None)
    task = replace(task, layout=replace(task.layout, wanted=leaves))
    if in_rows and paths > MOST_PATHS_IN_ROWS:
        raise ValueError(
            f"`paths` must be at most {MOST_PATHS_IN_ROWS:,} on backend {task.backend!r}, which stores all paths of a chunk in "
            f"rows; got {paths:,}. Use fewer paths, or a backend that compiles."
        )
    if in_rows:
        concurrent = min(paths, task.layout.size * LEAF)
        _fits("paths", f"{concurrent:,} paths at once", rows * concurrent, "Use fewer paths, or a backend that compiles.")
    joined, key, finished = _Joiner(task), "", bytearray(task.layout.chunks)

    def join(index: int, result: ChunkResult) -> None:
        joined.add(index, result)
        if progress is not None:
            progress(joined.paths, paths)

    def accept(index: int, result: ChunkResult) -> None:
        if store is not None:
            store.save(key, index, result)
        join(index, result)

    if store is not None:
        key = program.fingerprint(
            *(seed, stream, paths, leaves, points.steps, points.rows),
            *(task.backend if in_rows else "kernel", dtype, "moments along a tree"),
        )
        for index, result in store.load(key):
            finished[index] = 1
            join(index, result)
    waiting = [index for index in range(task.layout.chunks) if not finished[index]]
    submission = None if executor is None else Submission(executor, threads, retries, kept_in(store))
    try:
        _run(task, waiting, threads, submission, accept)
    finally:
        if store is not None:
            store.commit()
    last = joined.points[-1] if keep else None
    return replace(
        joined.result(),
        points=last[np.isin(points.rows, program.positions)] if last is not None and len(slices) else last,
        slices=joined.points[: len(slices)] if len(slices) else None,
        trajectories=_followed(task_again(task, program, chosen(program, asked)), asked, threads, submission)
        if len(asked)
        else None,
        backend=task.backend,
    )


def _followed(task: ChunkTask, asked: np.ndarray, threads: int | None, submission: Submission | None) -> np.ndarray:
    """Return the stored states of the selected paths, `(steps, rows, len(asked))` in the order of `asked`, from reruns of their chunks.

    `task` is that of `chunks.task_again`; its `points` describe the steps and rows. `asked` are the indices of the paths.
    """
    points = task.points
    whole = points.whole(task.layout.paths)

    def accept(index: int, result: ChunkResult) -> None:
        points.put(whole, task.layout.chunk(index), result.points)

    _run(task, points.chunks(task.layout), threads, submission, accept)
    assert points.chosen is not None
    return whole if (np.diff(asked) > 0).all() else whole[..., np.searchsorted(points.chosen, asked)]


def prepare(task: ChunkTask) -> None:
    """Compile the task's CPU kernel, or load its machine code, in this thread, so that worker threads share it; no effect without a kernel.

    `task` is a `ChunkTask`, what all chunks of a run have in common. Worker processes of this machine then find the code in the cache on disk.
    """
    if task.kernel is not None:
        run_kernel(task, Chunk(0, 0, 0, 0, 0, ()))


def run_chunk(task: ChunkTask, index: int) -> ChunkResult:
    """Run one chunk (a set of consecutive paths) of a task in this thread; workers call this function.

    Args:
        task: The task, with or without a compiled kernel.
        index: The index of the chunk in the task's layout, from 0 to `task.layout.chunks - 1`.

    Returns:
        Its moments, numbers of diverged paths, and stored states.
    """
    if task.kernel is not None:
        return run_kernel(task, task.layout.chunk(index))
    return runner_of(task.backend)(task).run([index])[0]


def _run(task: ChunkTask, waiting: Sequence[int], threads: int | None, submission: Submission | None, accept: Accept) -> None:
    """Run chunks and pass each result to `accept` on arrival, in the calling thread.

    Args:
        task: What the chunks have in common.
        waiting: The indices of the chunks, in increasing order.
        threads: The number of threads without `submission`; None for all cores.
        submission: The executor, and how chunks are submitted to it; None for threads of this process. A backend on a device uses neither.
        accept: A function of the index and the result of a chunk.

    Raises:
        ValueError: The device cannot run a part of the program.
        WorkersFailed: The workers of a chunk failed too often.
    """
    if task.kernel is None and (runner := runner_of(task.backend)).on_device:
        try:
            batches = runner(task)
        except NotTraceable as error:
            raise ValueError(f"backend {task.backend!r} cannot run this: {error}. Use backend='numpy'.") from error
        with thread_share(threads) if threads else nullcontext():
            for index, result in batches.results(waiting):
                accept(index, result)
    elif submission is not None:
        if waiting and getattr(submission.executor, "on_this_machine", False):
            prepare(task)  # one compilation, which the worker processes read from the cache
        submission.run(run_chunk, task, waiting, accept)
    else:
        threads = min(threads or available_threads(), len(waiting))
        if threads <= 1:
            for index in waiting:
                accept(index, run_chunk(task, index))
        else:
            prepare(task)
            with ThreadPoolExecutor(threads, thread_name_prefix="sdetools") as pool:
                Submission(pool, threads).run(run_chunk, task, waiting, accept)


class _Joiner:
    """The accumulated result of a run, to which `add(index, result)` adds the results of chunks in any order; `result()` returns the `Sums`.

    `paths` is the number of paths of the chunks added so far, and `points` the stored states, an array of `Points.whole`.
    """

    def __init__(self, task: ChunkTask) -> None:
        self.task, self.layout, self.tree = task, task.layout, Tree(task.statistics, task.layout.leaves)
        self.groups = np.zeros((GROUPS, *task.shape, len(task.statistics)))
        self.counts = np.zeros(GROUPS, np.int64)
        self.diverged = np.zeros(task.members, np.int64)
        self.first_divergence = np.full(task.members, NEVER)
        self.points = task.points.whole(task.layout.paths)
        self.paths = 0

    def add(self, index: int, result: ChunkResult) -> None:
        chunk = self.layout.chunk(index)
        self.paths += chunk.paths
        self.task.points.put(self.points, chunk, result.points)
        for group, moments, count in zip(range(chunk.group, GROUPS), result.sums, result.counts.tolist()):
            root = self.tree.add(group, chunk.level, chunk.index, moments, count)
            if root is not None:
                self.groups[group], self.counts[group] = root
        self.diverged += result.diverged
        self.first_divergence = np.minimum(self.first_divergence, result.first_divergence)

    def result(self) -> Sums:
        first = np.where(self.first_divergence == NEVER, -1, self.first_divergence)
        return Sums(self.groups, self.counts, self.diverged, first, dtype=self.task.dtype)
