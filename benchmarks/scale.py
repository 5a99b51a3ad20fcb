"""Scaling of a run: the coordinating process's work per chunk, measured with a kernel that costs nothing.

    python benchmarks/scale.py [--chunks 100000] [--json scale.json]

Each row is a fresh process that runs a coupled pair with 10 records of 2 quantities in the given number of chunks of one leaf each. The
chunks run on the coordinating thread itself, on two threads, on two processes, or on an executor that completes them in random order; with
and without a store, and resumed from a complete one. Coordinator time is the processor time of the coordinating thread (of its whole
process where workers are processes, including the pool's own threads), so it excludes the workers. Memory is the peak resident size above
that of a run of 1,000 chunks, and `waiting` is the largest number of tree nodes without a sibling. The last line measures a real kernel on
one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import sdetools as st
from sdetools.simulation import engine
from sdetools.simulation.chunks import NEVER, ChunkResult, ChunkTask
from sdetools.simulation.records import LEAF, Tree
from sdetools.simulation.store import Store
from sdetools.studies.means import make_program

WORKERS = ("one thread", "two threads", "two processes", "random order")


def stub(task: ChunkTask, index: int) -> ChunkResult:
    """Return the result of a chunk that costs nothing, a function of its index."""
    chunk = task.layout.chunk(index)
    sums = np.full((len(chunk.lengths), *task.shape, len(task.statistics)), 1.0 + index)
    none = np.zeros(task.members, np.int64)
    return ChunkResult(sums, np.array([chunk.paths]), none, none + NEVER, np.empty((0, 0, 0)))


class Shuffled(Executor):
    """An executor that completes pending chunks, those of a thousand workers, in random order."""

    _max_workers = 1000

    def __init__(self, chunks: int) -> None:
        self.chunks, self.random, self.pending = chunks, random.Random(0), []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.pending.append((future, fn, args))
        while self.pending and (len(self.pending) >= 3 * self._max_workers or args[1] == self.chunks - 1):
            at = self.random.randrange(len(self.pending))
            self.pending[at], self.pending[-1] = self.pending[-1], self.pending[at]
            done, run, arguments = self.pending.pop()
            done.set_result(run(*arguments))
        return future


def peak() -> float:
    """Return the peak resident size in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def case(workers: str, chunks: int, path: str, resume: bool) -> dict[str, Any]:
    """Measure one row in this process."""
    engine.run_chunk, engine.prepare = stub, lambda task: None
    oracle = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2))
    plan = st.schedules.constant(1 / 8, 0.9)
    members = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
    times = np.linspace(1 / 8, 10 / 8, 10).tolist()
    program = make_program(members, [2.0, 0.5], 10 / 8, ["x*y", "x"], times, (), True, True)[0]
    waiting, add = [0], Tree.add

    def watched(self: Tree, *node: Any) -> Any:
        made = add(self, *node)
        waiting[0] = max(waiting[0], len(self.waiting))
        return made

    def run(chunks: int, store: Store | None = None) -> tuple[float, float]:
        pool = {"two threads": ThreadPoolExecutor, "two processes": ProcessPoolExecutor}.get(workers)
        executor = pool(2) if pool else Shuffled(chunks) if workers == "random order" else None
        clock = time.process_time if workers == "two processes" else time.thread_time
        begun, used = time.perf_counter(), clock()
        engine.execute(program, chunks * LEAF, 0, threads=1, executor=executor, store=store, leaves=1)
        out = time.perf_counter() - begun, clock() - used
        if executor is not None:
            executor.shutdown()
        return out

    run(1000)
    before = peak()
    Tree.add = watched  # type: ignore[method-assign]
    if path:
        with Store(path, "benchmark", resume) as store:
            seconds, used = run(chunks, store)
        size = os.path.getsize(path) / chunks
    else:
        (seconds, used), size = run(chunks), 0.0
    return {"way": workers, "store": "resumed" if resume else "written" if path else "none", "chunks": chunks, "seconds": seconds,
            "coordinator": used / chunks, "MiB": peak() - before, "waiting": waiting[0], "bytes": size}  # fmt: skip


def kernel() -> dict[str, float]:
    """Return the nanoseconds of processor time per path-step of two-dimensional SGDM."""
    oracle = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2))
    optimiser = st.SGDM(oracle, st.schedules.constant(1 / 200, 0.9))
    given: dict[str, Any] = dict(x0=[2.0, 0.5], horizon=1.0, observe=["x*y"], times=[1.0], threads=1)
    st.simulate(optimiser, paths=1000, **given)
    begun = time.thread_time()
    st.simulate(optimiser, paths=1 << 18, **given)
    return {"ns": 1e9 * (time.thread_time() - begun) / (200 << 18)}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(case(**json.loads(options.case))))
        return
    rows = []
    print(
        f"{'workers':<14} {'store':<8} {'chunks':>8} {'seconds':>8} {'ms per chunk':>12} {'MiB more':>9} {'waiting':>8} {'bytes per row':>13}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "scale.sqlite")
        cases = [(workers, "", False) for workers in WORKERS] + [("two threads", path, False), ("two threads", path, True)]
        for workers, store, resume in cases:
            arguments = json.dumps({"workers": workers, "chunks": options.chunks, "path": store, "resume": resume})
            done = subprocess.run([sys.executable, __file__, "--case", arguments], capture_output=True, text=True, check=True)
            row = json.loads(done.stdout)
            rows.append(row)
            print(
                f"{workers:<14} {row['store']:<8} {row['chunks']:>8,} {row['seconds']:>8.1f} {1e3 * row['coordinator']:>12.4f} "
                f"{row['MiB']:>9.1f} {row['waiting']:>8,} {row['bytes']:>13,.0f}"
            )
    real = kernel()
    print(f"a path-step of SGDM in two dimensions on one thread: {real['ns']:.2f} ns")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "kernel": real}, indent=1) + "\n")


if __name__ == "__main__":
    main()
