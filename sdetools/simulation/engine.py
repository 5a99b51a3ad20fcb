"""Runs a program's chunks on threads or on any executor, and gathers their moments.

Each chunk is a group of its own, so the result has the same bits whatever the number of threads, the executor, or the interruptions.
Memory does not grow with the number of paths.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np

from sdetools import _check
from sdetools.simulation.chunks import NEVER, ChunkResult, Task, make_task, prepare, run_chunk
from sdetools.simulation.philox import PATHS, WIDEST, Stream
from sdetools.simulation.program import Program
from sdetools.simulation.source import LANES, NotTraceable
from sdetools.simulation.store import Store

GROUPS = 256
"""At most so many chunks in a run, each a group of paths for the bootstrap."""
MOST_THREADS = 4096
"""More than any machine has cores; a run has no more than `GROUPS` chunks to give them."""


@dataclass(frozen=True)
class Sums:
    """What the paths came to: moments of each group, `(256, records, columns, statistics)`, paths in each group, and lost paths.

    `lost` counts the paths of each member that left the finite range, `first` is the first step at which one did (-1 for never).
    `points` holds the last positions, `(rows, paths)`, when they were kept.
    """

    groups: np.ndarray
    counts: np.ndarray
    lost: np.ndarray
    first: np.ndarray
    points: np.ndarray | None

    @property
    def paths(self) -> int:
        return int(self.counts.sum())


def available_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def blocks_per_chunk(paths: int) -> int:
    """Blocks of `LANES` paths in a chunk: a function of the number of paths alone, for results must not depend on the machine."""
    return max(1, math.ceil(math.ceil(paths / LANES) / GROUPS))


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
) -> Sums:
    """All chunks of a program. `progress(done, total)` is called after each chunk, in paths."""
    paths = _check.count(
        "paths", paths, hint="Every estimate needs at least one path, and there are so many addresses.", most=PATHS
    )
    seed, stream = _check.count("seed", seed, least=0, most=WIDEST), Stream.of(stream)
    if executor is not None and not isinstance(executor, Executor):
        raise ValueError(
            f"`executor` must be a concurrent.futures.Executor; got {executor!r}. For threads of our own pass threads=."
        )
    threads = available_threads() if threads is None else _check.count("threads", threads, most=MOST_THREADS)
    rows = sum(m.dim for m in program.members)
    check_records(program)
    _fits("keep_final", f"{paths:,} paths", rows * paths * keep, "Keep fewer paths.")
    blocks = blocks_per_chunk(paths)
    task = make_task(program, seed, stream, paths, blocks, keep, backend)
    if task.backend == "numpy" and task.program is not None:
        blocks = max(blocks, min(16, paths // (64 * LANES)))  # NumPy wants long rows
        task = replace(task, blocks=blocks)
    if task.program is not None:
        _fits("paths", f"{blocks * LANES:,} paths at once", rows * blocks * LANES, "Take fewer, or a backend that compiles.")
    chunks = -(-paths // (blocks * LANES))
    gathered = _Gatherer(task, paths if keep else 0)
    key = ""
    finished: dict[int, ChunkResult] = {}
    if store is not None:
        key = program.fingerprint(
            seed, stream, paths, blocks, keep, task.backend if task.program is not None else "kernel", "moments"
        )
        finished = store.load(key)

    def accept(index: int, result: ChunkResult, fresh: bool) -> None:
        if fresh and store is not None:
            store.save(key, index, result)
        gathered.add(index, result)
        if progress is not None:
            progress(gathered.paths, paths)

    for index in sorted(finished):
        if index < chunks:
            accept(index, finished[index], fresh=False)
    waiting = [i for i in range(chunks) if i not in finished]
    try:
        if task.backend.startswith("torch") and task.program is not None:
            for index, result in _on_torch(task, waiting):
                accept(index, result, fresh=True)
        elif executor is None and (threads == 1 or len(waiting) <= 1):
            for index in waiting:
                accept(index, run_chunk(task, index), fresh=True)
        elif executor is None:
            prepare(task)
            with ThreadPoolExecutor(threads, thread_name_prefix="sdetools") as pool:
                _feed(pool, task, waiting, threads, accept)
        else:
            _feed(executor, task, waiting, 2 * getattr(executor, "_max_workers", 8), accept)
    finally:
        if store is not None:
            store.commit()
    return gathered.result()


def _on_torch(task: Task, waiting: list[int]) -> Iterator[tuple[int, ChunkResult]]:
    """Chunks in batches on one device."""
    try:
        from sdetools.simulation.torch_run import Runner
    except ImportError as error:
        raise ValueError(
            f"the torch backend must have torch; got {error}. Install it: pip install -c constraints.txt 'sdetools[torch]'."
        ) from error
    try:
        runner = Runner(task)
    except NotTraceable as error:
        raise ValueError(f"backend {task.backend!r} cannot run this: {error}. Use backend='numpy'.") from error
    for batch in runner.batches(waiting):
        yield from zip(batch, runner.run(batch))


def _feed(pool: Executor, task: Task, waiting: list[int], workers: int, accept: Callable[[int, ChunkResult, bool], None]) -> None:
    """Keeps the pool busy with a bounded number of chunks in flight."""
    pending: dict[Future[ChunkResult], int] = {}
    order = iter(waiting)
    try:
        while True:
            while len(pending) < 3 * workers and (index := next(order, None)) is not None:
                pending[pool.submit(run_chunk, task, index)] = index
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=pending.__getitem__):
                accept(pending.pop(future), future.result(), True)
    finally:
        for future in pending:
            future.cancel()


class _Gatherer:
    """Puts chunks at their place, in whatever order they come."""

    def __init__(self, task: Task, kept_paths: int) -> None:
        self.groups = np.zeros((GROUPS, *task.shape))
        self.counts = np.zeros(GROUPS, np.int64)
        self.lost = np.zeros(task.members, np.int64)
        self.first = np.full(task.members, NEVER)
        self.points = np.empty((task.position_rows, kept_paths)) if task.keep else None
        self.size = task.blocks * LANES
        self.paths = 0

    def add(self, index: int, result: ChunkResult) -> None:
        self.paths += result.paths
        if self.points is not None:
            self.points[:, index * self.size : index * self.size + result.paths] = result.points
        self.groups[index], self.counts[index] = result.sums, result.paths
        self.lost += result.lost
        self.first = np.minimum(self.first, result.first)

    def result(self) -> Sums:
        first = np.where(self.first == NEVER, -1, self.first)
        return Sums(self.groups, self.counts, self.lost, first, self.points)
