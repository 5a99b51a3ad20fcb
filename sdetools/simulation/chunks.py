"""A chunk of paths: the unit of work. A task is plain data and an import path, so that it runs on any executor."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from sdetools.graph.reals import real_of
from sdetools.graph.tracing import NotTraceable
from sdetools.simulation.cpu import Kernel, write
from sdetools.simulation.layout import Chunk, Layout
from sdetools.simulation.philox import Stream, stream_key
from sdetools.simulation.program import NEVER, Program
from sdetools.simulation.records import Columns
from sdetools.simulation.trajectories import Points


@dataclass(frozen=True)
class ChunkTask:
    """Everything a chunk needs beside its index: the kernel's text and its arguments, or the program itself for the NumPy reference.

    It is pickled once, however many chunks are sent away, and a process that has it already does not read it again.
    """

    kernel: Kernel | None
    arguments: tuple[np.ndarray, ...]
    shape: tuple[int, int]
    statistics: Columns
    members: int
    layout: Layout
    points: Points
    steps: int
    kept: int
    program: Program | None = None
    backend: str = "numpy"
    dtype: str = "float64"

    @cached_property
    def _packed(self) -> tuple[str, bytes]:
        """The fields' bytes, under a name made of them."""
        packed = pickle.dumps(tuple(getattr(self, f.name) for f in fields(self)), pickle.HIGHEST_PROTOCOL)
        return hashlib.sha256(packed).hexdigest(), packed

    def __reduce__(self) -> Any:
        return _unpacked, self._packed


_tasks: dict[str, ChunkTask] = {}
"""The last tasks that came to this process, by name."""


def _unpacked(name: str, packed: bytes) -> ChunkTask:
    task = _tasks.get(name)
    if task is None:
        while len(_tasks) >= 4:
            _tasks.pop(next(iter(_tasks)), None)
        task = _tasks[name] = ChunkTask(
            *pickle.loads(packed)
        )  # written by `ChunkTask._packed` and sent by the user's own executor
    return task


@dataclass(frozen=True)
class ChunkResult:
    """Moments of a chunk's nodes `(nodes, records, columns, statistics)`, their paths, and for each member lost paths and the first step
    of a loss. Which nodes these are is told by `Layout.chunk`. `points` `(steps, rows, paths)` is what was stored."""

    sums: np.ndarray
    counts: np.ndarray
    diverged: np.ndarray
    first_divergence: np.ndarray
    points: np.ndarray


def cost(program: Program, data: Sequence[np.ndarray] = ()) -> float:
    """Operations of a path's step, about a nanosecond each: rows of state, draws, and numbers of the data that stages read."""
    rows = sum(len(m.parts) * m.dim for m in program.members) + sum(plan.rows for plan in program.noise.sets)
    return rows + sum(array.size for array in data)


def make_task(
    program: Program, seed: int, stream: Stream, paths: int, leaves: int, points: Points, backend: str, dtype: str = "float64"
) -> ChunkTask:
    """The task of a program, in chunks of at most `leaves` leaves; ValueError where a part forbids the backend, or the type of numbers."""
    real = real_of(dtype)
    for n in [getattr(m.loss, "samples", 0) for m in program.members if m.sampled]:
        if n > real.whole:
            raise ValueError(
                f"`dtype` must be 'float64' for batches out of more than {real.whole:,} samples, whose numbers {dtype} does not hold; got "
                f"{dtype!r} and {n:,} samples. Leave dtype= out, or draw from fewer of them."
            )
    shape = (len(program.record), program.columns)
    kept = program.control.slots if program.control is not None else 0
    common = (shape, program.statistics, len(program.members), Layout(paths, leaves), points, program.steps, kept)
    keys = np.array([stream_key(seed, stream, role) for role in (*range(len(program.noise.sets)), None)], np.uint64)
    if backend in ("auto", "numba"):
        try:
            kernel = write(program, real)
        except NotTraceable as error:
            if backend == "numba":
                raise ValueError(f"backend 'numba' cannot run this: {error}. Use backend='numpy'.") from error
            if error.function:
                warnings.warn(
                    f"{error}. So this runs on backend 'numpy', many times slower; say backend='numpy' if that is meant.",
                    RuntimeWarning,
                    stacklevel=2,
                )
        else:
            return ChunkTask(kernel, (keys, *map(real.array, _arrays(program, points))), *common, backend="numba", dtype=dtype)
    elif backend not in ("numpy", "cuda") and backend.split(":")[0] != "torch":
        raise ValueError(
            f"`backend` must be 'auto', 'numba', 'numpy', 'cuda', or 'torch' with or without a device and ':compile'; got {backend!r}."
        )
    if backend == "auto" and any(getattr(m.loss, "torch_stage", None) is not None for m in program.members):
        backend = "torch"  # a loss given as a torch function
    return ChunkTask(None, (keys,), *common, program, "numpy" if backend == "auto" else backend, dtype)


def task_again(task: ChunkTask, program: Program, points: Points) -> ChunkTask:
    """The task of running chosen paths of a task once more, by the same kernel, to store what `points` says and record nothing."""
    program, compiled = replace(program, record=program.record[:0], control=None), task.program is None
    arguments = (task.arguments[0], *(map(real_of(task.dtype).array, _arrays(program, points)) if compiled else ()))
    own = None if compiled else program
    return replace(task, arguments=arguments, program=own, points=points, shape=(0, program.columns), kept=0)


def _arrays(program: Program, points: Points) -> tuple[np.ndarray, ...]:
    records, control = len(program.record), program.control
    taken = np.flatnonzero(control.anchor_slot >= 0) if control is not None else np.zeros(0, np.int64)
    busy = np.unique(np.concatenate([program.record, taken, points.steps]))
    events = np.full(
        (len(busy) + 1, 4), -1, np.int64
    )  # step, which record, which slot, which point; the last row is never reached
    events[:-1, 0] = busy
    events[np.searchsorted(busy, program.record), 1] = np.arange(records)
    events[np.searchsorted(busy, points.steps), 3] = np.arange(len(points.steps))
    if control is None:
        slots, factors, memory = np.zeros(records, np.int64), np.zeros((records, 2)), np.zeros(len(busy))
    else:
        events[:-1, 2] = control.anchor_slot[busy]
        slots, factors, memory = (
            control.slot.astype(np.int64),
            np.column_stack([control.factor, control.fading]),
            control.memory[busy],
        )
    return program.coefficients, program.parameters, events, memory, slots, np.ascontiguousarray(factors)


def run_kernel(task: ChunkTask, chunk: Chunk) -> ChunkResult:
    """Advances the paths of a chunk in the task's kernel; of an empty chunk it compiles or loads it."""
    from sdetools.simulation import launch
    from sdetools.simulation.kernel import kernel, one_blas_thread

    own, stored, real = task.kernel, task.points, np.dtype(task.dtype)
    assert own is not None
    run = kernel(own.text, own.stages, own.foreign)
    nodes = launch.Nodes(task.statistics, task.shape, chunk.lengths)
    diverged, seen = np.zeros(task.members, np.int64), np.full(task.members, NEVER)
    points = stored.empty(picked := stored.picked(chunk))
    names = ("keys", "C", "P", "events", "memory", "slots", "factors")
    arrays = dict(
        zip(names, task.arguments),
        diverged=diverged,
        points=points,
        leaf=nodes.leaf,
        K=own.numbers,
        N=own.sizes,
        shown=stored.real,
    )
    arrays["F"] = np.array([launch.address(name, task.dtype) for name in own.functions], np.int64)
    for name, size in own.scratch.items():
        arrays[name] = launch.scratch(size * (task.kept if name == "V" else 1), np.uint64 if name == "W" else real)
    steps, width = arrays["C"].shape
    numbers = dict(first=chunk.first, blocks=-(-chunk.paths // own.lanes), paths=chunk.paths, steps=task.steps, kept=task.kept)
    numbers |= dict(changing=width if steps > 1 else 0, shown_rows=len(stored.real))

    def call(watch: bool, seen: np.ndarray, picked: np.ndarray) -> None:
        own_numbers, own_arrays = numbers | dict(watch=watch, picked_paths=len(picked)), arrays | dict(seen=seen, picked=picked)
        table = launch.table(own_numbers, own_arrays, nodes.tree, own.data, real)
        run(launch.where(table))

    with one_blas_thread if own.gemm else nullcontext():
        if stored.chosen is not None:  # no moments, no losses, and no blocks without chosen paths
            call(True, np.zeros_like(seen), picked)
        else:
            call(False, seen, picked)
        if diverged.any():  # the same paths once more, looking at every step: draws have addresses, so this is exact
            call(True, seen, picked[:0])
    return ChunkResult(nodes.sums, nodes.counts, diverged, seen, points)
