"""A chunk of paths: the unit of work. A task is plain data and an import path, so that it runs on any executor."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from sdetools.graph.tracing import NotTraceable
from sdetools.simulation.cpu import Kernel, write
from sdetools.simulation.layout import Chunk, Layout
from sdetools.simulation.philox import Stream, stream_key
from sdetools.simulation.program import NEVER, Program
from sdetools.simulation.records import Columns


@dataclass(frozen=True)
class Task:
    """Everything a chunk needs beside its index: the kernel's text and its arguments, or the program itself for the NumPy reference.

    It is pickled once, however many chunks are sent away, and a process that has it already does not read it again.
    """

    kernel: Kernel | None
    arguments: tuple[np.ndarray, ...]
    shape: tuple[int, int]
    statistics: Columns
    members: int
    position_rows: int
    layout: Layout
    keep: bool
    steps: int
    kept: int
    program: Program | None = None
    backend: str = "numpy"

    @cached_property
    def _packed(self) -> tuple[str, bytes]:
        """The fields' bytes, under a name made of them."""
        packed = pickle.dumps(tuple(getattr(self, f.name) for f in fields(self)), pickle.HIGHEST_PROTOCOL)
        return hashlib.sha256(packed).hexdigest(), packed

    def __reduce__(self) -> Any:
        return _unpacked, self._packed


_tasks: dict[str, Task] = {}
"""The last tasks that came to this process, by name."""


def _unpacked(name: str, packed: bytes) -> Task:
    task = _tasks.get(name)
    if task is None:
        while len(_tasks) >= 4:
            _tasks.pop(next(iter(_tasks)), None)
        task = _tasks[name] = Task(*pickle.loads(packed))  # written by `Task._packed` and sent by the user's own executor
    return task


@dataclass(frozen=True)
class ChunkResult:
    """Moments of a chunk's nodes `(nodes, records, columns, statistics)`, their paths, and for each member lost paths and the first step
    of a loss. Which nodes these are is told by `Layout.chunk`."""

    sums: np.ndarray
    counts: np.ndarray
    lost: np.ndarray
    first: np.ndarray
    points: np.ndarray


def cost(program: Program, data: Sequence[np.ndarray] = ()) -> float:
    """Operations of a path's step, about a nanosecond each: rows of state, draws, and numbers of the data that stages read."""
    rows = sum(len(m.parts) * m.dim for m in program.members) + sum(plan.rows for plan in program.noise.sets)
    return rows + sum(array.size for array in data)


def make_task(program: Program, seed: int, stream: Stream, paths: int, leaves: int, keep: bool, backend: str) -> Task:
    """The task of a program, in chunks of at most `leaves` leaves; ValueError where a part forbids the backend."""
    shape = (len(program.record), program.columns)
    rows = sum(m.dim for m in program.members)
    kept = program.control.slots if program.control is not None else 0
    common = (shape, program.statistics, len(program.members), rows, Layout(paths, leaves), keep, program.steps, kept)
    keys = np.array([stream_key(seed, stream, role) for role in (*range(len(program.noise.sets)), None)], np.uint64)
    if backend in ("auto", "numba"):
        try:
            kernel = write(program)
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
            return Task(kernel, (keys, *_arrays(program)), *common)
    elif backend != "numpy" and backend.split(":")[0] != "torch":
        raise ValueError(f"`backend` must be 'auto', 'numba', 'numpy', or 'torch' with or without a device; got {backend!r}.")
    if backend == "auto" and any(getattr(m.loss, "torch_stage", None) is not None for m in program.members):
        backend = "torch"  # a loss given as a torch function
    return Task(None, (keys,), *common, program, "numpy" if backend == "auto" else backend)


def _arrays(program: Program) -> tuple[np.ndarray, ...]:
    records, control = len(program.record), program.control
    taken = np.flatnonzero(control.anchor_slot >= 0) if control is not None else np.zeros(0, np.int64)
    busy = np.union1d(program.record, taken)
    events = np.full((len(busy) + 1, 3), -1, np.int64)  # step, which record, which slot; the last row is never reached
    events[:-1, 0] = busy
    events[np.searchsorted(busy, program.record), 1] = np.arange(records)
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


def prepare(task: Task) -> None:
    """Compiles the task's kernel, or loads it, in the calling thread: threads then share it, and none compiles beside another."""
    if task.program is None:
        _kernel(task, Chunk(0, 0, 0, 0, 0, ()), np.empty((task.position_rows, 0)))


def run_chunk(task: Task, index: int) -> ChunkResult:
    """Advances the paths of chunk `index` and sums what is recorded."""
    chunk = task.layout.chunk(index)
    points = np.empty((task.position_rows, chunk.paths if task.keep else 0))
    if task.program is not None:
        from sdetools.simulation.reference import run_reference

        return ChunkResult(
            *run_reference(task.program, task.arguments[0], chunk.first, chunk.paths, points, lengths=chunk.lengths), points
        )
    return _kernel(task, chunk, points)


def _kernel(task: Task, chunk: Chunk, points: np.ndarray) -> ChunkResult:
    from sdetools.graph import rows
    from sdetools.simulation import draw_rows
    from sdetools.simulation.kernel import load, one_blas_thread
    from sdetools.simulation.library import ADDRESSES, Nodes

    kernel = task.kernel
    assert kernel is not None
    run = load(kernel.text, kernel.foreign)
    functions = np.array([rows.address(name) for name in kernel.functions] or [0], np.int64)
    nodes = Nodes(task.statistics, task.shape, chunk.lengths)
    lost, seen = np.zeros(task.members, np.int64), np.full(task.members, NEVER)
    keys, *arguments = task.arguments
    blocks = -(-chunk.paths // kernel.lanes)

    def call(watch: bool, lost: np.ndarray, points: np.ndarray) -> None:
        run(
            np.uint64(chunk.first), blocks, chunk.paths, keys, watch, task.steps, *arguments, task.kept, nodes.leaf, nodes.tree, lost, seen,
            points, ADDRESSES, draw_rows.ADDRESSES, functions, kernel.numbers, kernel.sizes, *kernel.data,
        )  # fmt: skip

    with one_blas_thread if kernel.gemm else nullcontext():
        call(False, lost, points)
        if lost.any():  # the same paths once more, looking at every step: draws have addresses, so this is exact
            call(True, np.zeros(task.members, np.int64), np.empty((task.position_rows, 0)))
    return ChunkResult(nodes.sums, nodes.counts, lost, seen, points)
