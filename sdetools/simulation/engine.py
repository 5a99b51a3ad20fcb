"""Runs a program's chunks on threads or on any executor, and gathers their moments.

Moments are joined along the tree of `records`, so the result has the same bits whatever the size of chunks, the number of threads, the
executor, the order of arrival, or the interruptions. Chunks are handed out in order, a few for each worker at a time; what arrives is
joined with what waits for it. Memory grows neither with the number of paths nor with that of chunks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue

import numpy as np

from sdetools import _check
from sdetools.graph.tracing import NotTraceable
from sdetools.simulation.chunks import NEVER, ChunkResult, ChunkTask, cost, make_task, run_kernel, task_again
from sdetools.simulation.layout import MOST_ROWS, Chunk, wanted_leaves
from sdetools.simulation.philox import PATHS, WIDEST, Stream
from sdetools.simulation.program import Program
from sdetools.simulation.records import GROUPS, LEAF, Tree
from sdetools.simulation.store import Store
from sdetools.simulation.trajectories import chosen, stored

Accept = Callable[[int, ChunkResult], None]

MOST_THREADS = 4096
"""More than any machine has cores."""
IN_FLIGHT = 3
"""Chunks handed out at a time for each worker: one that runs, and some that wait for it to end."""
MOST_PATHS_IN_ROWS = MOST_ROWS * LEAF << 20
"""For backends whose chunks cannot grow with the run: a million chunks."""
UNKNOWN_WORKERS = 256
"""Workers of an executor that does not say how many it has."""


@dataclass(frozen=True)
class Sums:
    """What the paths came to: moments of each group, `(256, records, columns, statistics)`, paths in each group, and lost paths.

    `diverged` counts the paths of each member that left the finite range, `first_divergence` is the first step at which one did (-1 for never).
    `points` holds the last positions, `(rows, paths)`, when they were kept. `slices` `(steps, rows, paths)` and `trajectories`
    `(records, rows, chosen paths)` hold the state, in the rows of `Program.state_rows`. `backend` is the one that ran, `dtype` the type of
    the paths; all here is in double.
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
        return int(self.counts.sum())


def available_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def memory() -> float:
    """Bytes of memory of this machine; infinite where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _fits(name: str, what: str, count: float, way: str) -> None:
    """Refuses what this machine cannot hold, `count` doubles of it: the system would grant the memory and end the process later."""
    if 8.0 * count > memory():
        raise ValueError(f"`{name}` must fit into memory; {what} take {8e-9 * count:,.0f} GB of {1e-9 * memory():,.0f} GB. {way}")


def check_records(program: Program) -> None:
    """Refuses more recorded times than memory holds."""
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
) -> Sums:
    """All chunks of a program. `progress(done, total)` is called after each chunk, in paths.

    `keep` keeps the last positions, `slices` the state of all paths at these steps, `trajectories` that of these paths at recorded steps.
    `threads` is the number of workers of an executor that does not say it. `operations` of a path's step, about a nanosecond each, decide
    how large chunks are (`chunks.cost` if None); `leaves` overrides that, for tests. Neither changes a bit of the result.
    `dtype`: "float64" or "float32" for draws, coefficients and the state of a path; moments are double in both.
    """
    paths = _check.count(
        "paths", paths, hint="Every estimate needs at least one path, and there are so many addresses.", most=PATHS
    )
    seed, stream = _check.count("seed", seed, least=0, most=WIDEST), Stream.of(stream)
    if executor is not None and not isinstance(executor, Executor):
        raise ValueError(
            f"`executor` must be a concurrent.futures.Executor; got {executor!r}. For threads of our own pass threads=."
        )
    if threads is not None:
        threads = _check.count("threads", threads, most=MOST_THREADS)
    rows = sum(m.dim for m in program.members)
    check_records(program)
    points, asked = stored(program, keep, slices), np.asarray(trajectories, np.int64)
    what, size = (
        (f"{len(points.steps)} times of " if len(slices) else "") + f"{paths:,} paths",
        len(points.steps) * len(points.rows),
    )
    _fits("slices" if len(slices) else "keep_final", what, paths * size, "Keep fewer paths.")
    what, size = f"{len(program.record):,} records of {len(asked):,} paths", len(program.record) * program.state_rows.size
    _fits("trajectories", what, len(asked) * size, "Choose fewer paths, or record fewer times.")
    task = make_task(program, seed, stream, paths, 1, points, backend, dtype)
    in_rows, numpy = task.program is not None, task.backend == "numpy"
    if leaves is None:
        data = task.kernel.data if task.kernel is not None else ()
        work = max(1.0, program.steps * (cost(program, data) if operations is None else operations))
        long = min(16, paths // (64 * LEAF)) if in_rows and numpy else 1  # NumPy wants long rows
        leaves = wanted_leaves(paths, work, long, MOST_ROWS if in_rows else None)
    task = replace(task, layout=replace(task.layout, wanted=leaves))
    if in_rows and paths > MOST_PATHS_IN_ROWS:
        raise ValueError(
            f"`paths` must be at most {MOST_PATHS_IN_ROWS:,} on backend {task.backend!r}, which holds the paths of a chunk in rows; got "
            f"{paths:,}. Take fewer, or a backend that compiles."
        )
    if in_rows:
        held = min(paths, task.layout.size * LEAF)
        _fits("paths", f"{held:,} paths at once", rows * held, "Take fewer, or a backend that compiles.")
    gathered, key, finished = _Gatherer(task), "", bytearray(task.layout.chunks)

    def gather(index: int, result: ChunkResult) -> None:
        gathered.add(index, result)
        if progress is not None:
            progress(gathered.paths, paths)

    def accept(index: int, result: ChunkResult) -> None:
        if store is not None:
            store.save(key, index, result)
        gather(index, result)

    if store is not None:
        key = program.fingerprint(
            *(seed, stream, paths, leaves, points.steps, points.rows),
            *(task.backend if in_rows else "kernel", dtype, "moments along a tree"),
        )
        for index, result in store.load(key):
            finished[index] = 1
            gather(index, result)
    waiting = [index for index in range(task.layout.chunks) if not finished[index]]
    try:
        _run(task, waiting, threads, executor, accept)
    finally:
        if store is not None:
            store.commit()
    last = gathered.points[-1] if keep else None
    return replace(
        gathered.result(),
        points=last[np.isin(points.rows, program.positions)] if last is not None and len(slices) else last,
        slices=gathered.points[: len(slices)] if len(slices) else None,
        trajectories=_followed(task_again(task, program, chosen(program, asked)), asked, threads, executor)
        if len(asked)
        else None,
        backend=task.backend,
    )


def _followed(task: ChunkTask, asked: np.ndarray, threads: int | None, executor: Executor | None) -> np.ndarray:
    """What is stored of the paths that a task chooses, in the order asked for: of the chunks that hold them."""
    points = task.points
    whole = points.whole(task.layout.paths)

    def accept(index: int, result: ChunkResult) -> None:
        points.put(whole, task.layout.chunk(index), result.points)

    _run(task, points.chunks(task.layout), threads, executor, accept)
    assert points.chosen is not None
    return whole if (np.diff(asked) > 0).all() else whole[..., np.searchsorted(points.chosen, asked)]


def prepare(task: ChunkTask) -> None:
    """Compiles the task's kernel, or loads it, in the calling thread: threads then share it, and none compiles beside another."""
    if task.kernel is not None:
        run_kernel(task, Chunk(0, 0, 0, 0, 0, ()))


def run_chunk(task: ChunkTask, index: int) -> ChunkResult:
    """Advances the paths of chunk `index`, sums what is recorded and stores what is to be stored."""
    if task.kernel is not None:
        return run_kernel(task, task.layout.chunk(index))
    from sdetools.simulation.reference import NumpyRunner

    return NumpyRunner(task).run([index])[0]


def _run(task: ChunkTask, waiting: Sequence[int], threads: int | None, executor: Executor | None, accept: Accept) -> None:
    """Runs chunks where they are to run, and hands their results to `accept` as they come."""
    if task.backend not in ("numba", "numpy"):
        for index, result in _in_batches(task, waiting):
            accept(index, result)
    elif executor is not None:
        workers = getattr(executor, "_max_workers", None) or threads or UNKNOWN_WORKERS
        _feed(executor, task, iter(waiting), IN_FLIGHT * workers, accept)
    else:
        threads = min(threads or available_threads(), len(waiting))
        if threads <= 1:
            for index in waiting:
                accept(index, run_chunk(task, index))
        else:
            prepare(task)
            with ThreadPoolExecutor(threads, thread_name_prefix="sdetools") as pool:
                _feed(pool, task, iter(waiting), IN_FLIGHT * threads, accept)


def _in_batches(task: ChunkTask, waiting: Iterable[int]) -> Iterator[tuple[int, ChunkResult]]:
    """Chunks in batches on one device."""
    try:
        if task.backend == "cuda":
            from sdetools.simulation.torch_cuda import CudaRunner as Runner
        else:
            from sdetools.simulation.torch_run import TorchRunner as Runner  # type: ignore[assignment]
    except ImportError as error:
        raise ValueError(
            f"the torch backend must have torch; got {error}. Install it: pip install -c constraints.txt 'sdetools[torch]'."
        ) from error
    try:
        runner = Runner(task)
    except NotTraceable as error:
        raise ValueError(f"backend {task.backend!r} cannot run this: {error}. Use backend='numpy'.") from error
    yield from runner.results(waiting)


def _feed(pool: Executor, task: ChunkTask, waiting: Iterator[int], most: int, accept: Accept) -> None:
    """Keeps at most `most` chunks in flight, handed out in order and accepted as they come; what is done for one is independent of `most`."""
    pending: dict[Future[ChunkResult], int] = {}
    done: SimpleQueue[Future[ChunkResult]] = SimpleQueue()
    try:
        while True:
            while len(pending) < most and (index := next(waiting, None)) is not None:
                future = pool.submit(run_chunk, task, index)
                pending[future] = index
                future.add_done_callback(done.put)
            if not pending:
                return
            future = done.get()
            accept(pending.pop(future), future.result())
    finally:
        for future in pending:
            future.cancel()


class _Gatherer:
    """Puts chunks at their place, in whatever order they come."""

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
