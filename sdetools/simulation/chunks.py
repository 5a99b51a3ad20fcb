"""Chunks of paths: the unit of work, the task that describes it, and its result.

A task is plain data and an import path, so it can be pickled and run on any executor.
"""

from __future__ import annotations

import copyreg
import hashlib
import pickle
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from sdetools._machine_code import COMPILING
from sdetools.graph.reals import real_of
from sdetools.graph.tracing import NotTraceable
from sdetools.simulation.backends import check_backend
from sdetools.simulation.cpu import Kernel, write
from sdetools.simulation.layout import Chunk, Layout
from sdetools.simulation.philox import Stream, stream_key
from sdetools.simulation.program import NEVER, Program
from sdetools.simulation.records import Columns
from sdetools.simulation.trajectories import Points

NAMED = 6
"""The largest number of ranges of paths that an error message lists."""


@dataclass(frozen=True)
class ChunkTask:
    """Everything needed to run a chunk (a set of consecutive paths, the unit of work), apart from the chunk's index.

    A task is pickled once, whatever the number of chunks. A process that already has the task does not unpickle it again.

    Attributes:
        kernel: The source text of the compiled CPU kernel, and what it reads; None for backends that run the program itself.
        arguments: The arrays that the kernel reads. The first one, uint64 `(sets + 1,)`, has the key of each set of draws (one set, or two for
            an independent pair), then that of the draws of the starts; it is the only one if `kernel` is None.
        shape: The pair (number of recorded steps, number of quantities: observables and functionals).
        statistics: The statistics that are accumulated, `records.SINGLE` for one dynamics or `records.PAIR` for two.
        members: The number of dynamics, 1 or 2.
        layout: The division of the run into chunks.
        points: The rows of the state that are stored, the steps at which they are, and the paths.
        steps: The number of steps of the run.
        kept: The number of anchors (states of earlier steps) that the control variate stores at a time; 0 without one.
        program: The program, for backends without a kernel; None if there is a kernel.
        backend: The name of the backend.
        dtype: The floating-point type of the paths, "float64" or "float32".
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
        """The pickled fields, as a pair (name, bytes) where the name is the SHA-256 hash of the bytes."""
        packed = pickled(tuple(getattr(self, f.name) for f in fields(self)))
        return hashlib.sha256(packed).hexdigest(), packed

    @property
    def packed_size(self) -> int:
        """The size of the pickled task in bytes, which an executor of processes sends to a worker with the index of each chunk."""
        return len(self._packed[1])

    def __reduce__(self) -> Any:
        return _unpacked, self._packed

    def missing(self, indices: Sequence[int]) -> tuple[str, str]:
        """Return the subject of a sentence about missing chunks, such as ("paths 0 to 255 and 512 to 767 are", "their").

        The first text has the ranges of the chunks' paths, at most six of them, then the number of the others. The second text refers back to it.

        Args:
            indices: The indices of the chunks, in ascending order.
        """
        ranges: list[list[int]] = []
        for chunk in map(self.layout.chunk, indices):
            if ranges and ranges[-1][1] == chunk.first:
                ranges[-1][1] += chunk.paths
            else:
                ranges.append([chunk.first, chunk.first + chunk.paths])
        named = " and ".join(f"{first:,} to {end - 1:,}" for first, end in ranges[:NAMED])
        more = f" and {sum(end - first for first, end in ranges[NAMED:]):,} others" if len(ranges) > NAMED else ""
        return f"paths {named}{more} are", "their"


def pickled(values: tuple[Any, ...]) -> bytes:
    """Return a tuple of values, such as the fields of a task, as pickled bytes that `pickle.loads` reads in another process.

    Functions of a script or a notebook, and nested ones, are included by value if cloudpickle is installed, because the workers of a cluster cannot
    import them: their main module is another one.

    Raises:
        PicklingError: A value cannot be pickled, such as a nested function without cloudpickle; some kinds give an AttributeError or a TypeError.
    """
    try:
        packed = pickle.dumps(values, pickle.HIGHEST_PROTOCOL)
        if b"__main__" not in packed:
            return packed
    except (AttributeError, TypeError, pickle.PicklingError):
        packed = b""
    try:
        import cloudpickle
    except ModuleNotFoundError:
        return packed or pickle.dumps(values, pickle.HIGHEST_PROTOCOL)
    for kind in {type(module) for name, module in [*sys.modules.items()] if name.partition(".")[0] == "sdetools"} - {ModuleType}:
        # lazy_loader's modules, which functions that read `st` contain, and which cloudpickle does not know
        copyreg.pickle(kind, lambda module: (import_module, (module.__name__,)))
    return cloudpickle.dumps(values, pickle.HIGHEST_PROTOCOL)


_tasks: dict[str, ChunkTask] = {}
"""The four most recently unpickled tasks of this process, by name."""


def _unpacked(name: str, packed: bytes) -> ChunkTask:
    """Return the task whose pickled fields are `packed`, bytes with the hash `name`; they are unpickled only at their first use in this process."""
    task = _tasks.get(name)
    if task is None:
        while len(_tasks) >= 4:
            _tasks.pop(next(iter(_tasks)), None)
        task = _tasks[name] = ChunkTask(*pickle.loads(packed))  # bytes of `ChunkTask._packed`, sent by the user's own executor
    return task


@dataclass(frozen=True)
class ChunkResult:
    """The result of a chunk, a set of consecutive paths: moments, numbers of diverged paths, and stored states.

    A node is a set of consecutive leaves (256 paths each) in the tree along which moments are joined; `Layout.chunk` gives those of the chunk.
    A member is one of the one or two dynamics, and a quantity is an observable or a functional.

    Attributes:
        sums: Moments of the chunk's nodes, float64 `(nodes, records, quantities, statistics)`; records are the recorded steps, and the statistics
            are those of the task (`records.SINGLE` or `records.PAIR`).
        counts: The number of paths of each node, int64 `(nodes,)`.
        diverged: The number of paths of each member that are not finite at the end, int64 `(members,)`.
        first_divergence: For each member, the smallest k such that a path is not finite after k steps; `NEVER`, the
            largest int64, if there is none. int64 `(members,)`.
        points: The stored states, float64 `(steps, rows, paths)`, of the task's `Points`: its `steps`, its rows `real` (those that exist), and the
            stored paths of the chunk in increasing order.
    """

    sums: np.ndarray
    counts: np.ndarray
    diverged: np.ndarray
    first_divergence: np.ndarray
    points: np.ndarray


def cost(program: Program, data: Sequence[np.ndarray] = ()) -> float:
    """Return an estimate of the operations of one step of a path, from which the size of chunks is chosen; one is taken as a nanosecond.

    Args:
        program: The simulation.
        data: The arrays of data that the kernel reads in each step.

    Returns:
        The number of rows of the state and of the draws of a step, plus the number of elements of `data`.
    """
    rows = sum(len(m.parts) * m.dim for m in program.members) + sum(plan.rows for plan in program.noise.sets)
    return rows + sum(array.size for array in data)


def make_task(
    program: Program, seed: int, stream: Stream, paths: int, leaves: int, points: Points, backend: str, dtype: str = "float64"
) -> ChunkTask:
    """Return the task of a program: choose the backend and, for the compiled CPU backend, write the kernel's source text.

    Args:
        program: The simulation.
        seed: The seed of the draws, from 0 to 2^64 - 1.
        stream: The stream of the seed.
        paths: The number of paths of the run.
        leaves: The largest number of leaves (256 paths each) of a chunk.
        points: The steps, rows and paths of the state to be stored.
        backend: "auto", "numba", "numpy", "cuda", or "torch" with or without a device and ":compile". "auto" is the compiled
            backend where the program can be traced, torch for a loss given as a torch function, and NumPy otherwise.
        dtype: The type of draws, coefficients and states, "float64" or "float32".

    Returns:
        The task, with a kernel for the backend "numba" and with the program otherwise; nothing is compiled yet.

    Raises:
        ValueError: A part of the program is incompatible with the backend or with the type, the backend is unknown, or the kernel would be too
            long to compile (`TooLong`; "auto" does not choose another backend then).

    Warns:
        RuntimeWarning: "auto" chose NumPy because a function of the user cannot be traced. (With NUMBA_DISABLE_JIT=1, which turns the
            compiler off, "auto" is never the compiled backend, and "numba" is a ValueError.)
    """
    real = real_of(dtype)
    for n in [getattr(m.loss, "samples", 0) for m in program.members if m.sampled]:
        if n > real.whole:
            raise ValueError(
                f"`dtype` must be 'float64' for batches out of more than {real.whole:,} samples, because {dtype} cannot represent "
                f"their indices; got {dtype!r} and {n:,} samples. Omit dtype=, or use fewer samples."
            )
    shape = (len(program.record), program.columns)
    kept = program.control.slots if program.control is not None else 0
    common = (shape, program.statistics, len(program.members), Layout(paths, leaves), points, program.steps, kept)
    keys = np.array([stream_key(seed, stream, role) for role in (*range(len(program.noise.sets)), None)], np.uint64)
    check_backend(backend)
    if not COMPILING and backend == "numba":
        raise ValueError(
            "`backend` must be 'numpy' or 'torch' while NUMBA_DISABLE_JIT=1 turns the compiler off; got 'numba'. "
            "Unset that variable, or pass backend='numpy'."
        )
    if COMPILING and backend in ("auto", "numba"):
        try:
            kernel = write(program, real)
        except NotTraceable as error:
            if backend == "numba":
                raise ValueError(f"backend 'numba' cannot run this: {error}. Use backend='numpy'.") from error
            if error.function:
                slow = _without_kernel(program)
                warnings.warn(
                    f"{error}. The run uses backend {slow!r}, which is many times slower; pass backend={slow!r} to accept this.",
                    RuntimeWarning,
                    stacklevel=2,
                )
        else:
            return ChunkTask(kernel, (keys, *map(real.array, _arrays(program, points))), *common, backend="numba", dtype=dtype)
    return ChunkTask(None, (keys,), *common, program, _without_kernel(program) if backend == "auto" else backend, dtype)


def _without_kernel(program: Program) -> str:
    """Return the backend of a program for which no kernel can be written: "torch" if a loss is a torch function, else "numpy"."""
    return "torch" if any(getattr(m.loss, "torch_stage", None) is not None for m in program.members) else "numpy"


def task_again(task: ChunkTask, program: Program, points: Points) -> ChunkTask:
    """Return the task that simulates selected paths a second time, with the same kernel, and stores their states.

    Args:
        task: The task of the first run.
        program: Its program, which a task with a kernel does not contain.
        points: The paths, steps and rows of the state to be stored, made by `trajectories.chosen`.

    Returns:
        A new task with the same chunks and draws that records nothing; only `points` of its results is meant to be read.
    """
    program, compiled = replace(program, record=program.record[:0], control=None), task.program is None
    arguments = (task.arguments[0], *(map(real_of(task.dtype).array, _arrays(program, points)) if compiled else ()))
    own = None if compiled else program
    return replace(task, arguments=arguments, program=own, points=points, shape=(0, program.columns), kept=0)


def _arrays(program: Program, points: Points) -> tuple[np.ndarray, ...]:
    """Return the arrays that a kernel reads after the keys of the draws, in the order of `names` in `run_kernel`.

    They are the coefficients and parameters of the program; the table `events`, int64 `(events, 4)`, a row for each step at which something is
    recorded or stored; the factor of m at the steps of these rows; and for each record the slot and the pair (c, rho) of its control variate.
    """
    records, control = len(program.record), program.control
    taken = np.flatnonzero(control.anchor_slot >= 0) if control is not None else np.zeros(0, np.int64)
    busy = np.unique(np.concatenate([program.record, taken, points.steps]))
    events = np.full((len(busy) + 1, 4), -1, np.int64)  # columns: step, record, slot, point; the last row is the end of the run
    events[:, 0] = [*busy, program.steps]
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
    """Advance the paths of a chunk by the task's compiled kernel, in this thread, from their start to the last step.

    Args:
        task: A task with a kernel.
        chunk: The paths, and the nodes of leaves whose moments are computed; with one that has no paths, the kernel is only compiled or loaded.

    Returns:
        The result of the chunk. If a path diverged, the chunk was run a second time to find the exact step. If the task stores selected
        paths only, moments and divergence are not computed, and only `points` of the result has a meaning.
    """
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
        if stored.chosen is not None:  # moments and divergence are known; blocks without chosen paths are skipped
            call(True, np.zeros_like(seen), picked)
        else:
            call(False, seen, picked)
        if diverged.any():  # rerun with a check after every step: draws are addressed, so the paths are the same
            call(True, seen, picked[:0])
    return ChunkResult(nodes.sums, nodes.counts, diverged, seen, points)
