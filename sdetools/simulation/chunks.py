"""A chunk of paths: the unit of work. A task is plain data and an import path, so that it runs on any executor."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools.simulation.philox import Stream, stream_key
from sdetools.simulation.program import NEVER, Program
from sdetools.simulation.source import LANES, NotTraceable, Source, importable, write


@dataclass(frozen=True)
class Task:
    """Everything a chunk needs beside its index: the kernel's text and its arguments, or the program itself for the NumPy reference."""

    text: str
    stages: dict[str, Callable[..., Any]]
    data: tuple[np.ndarray, ...]
    arguments: tuple[np.ndarray, ...]
    shape: tuple[int, int, int]
    members: int
    position_rows: int
    paths: int
    blocks: int
    keep: bool
    steps: int
    kept: int
    program: Program | None = None
    backend: str = "numpy"


@dataclass(frozen=True)
class ChunkResult:
    """Moments over a chunk's paths `(records, columns, statistics)`, paths, lost paths and the first step of a loss for each member."""

    sums: np.ndarray
    paths: int
    lost: np.ndarray
    first: np.ndarray
    points: np.ndarray


def make_task(program: Program, seed: int, stream: Stream, paths: int, blocks: int, keep: bool, backend: str) -> Task:
    """The task of a program; ValueError where a part forbids the backend."""
    shape = (len(program.record), program.columns, len(program.statistics))
    rows = sum(m.dim for m in program.members)
    kept = program.control.slots if program.control is not None else 0
    keys = np.array([stream_key(seed, stream, role) for role in (*range(len(program.noise.sets)), None)], np.uint64)
    if backend in ("auto", "numba"):
        try:
            source = write(program)
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
            arguments = (keys, *_arrays(program, source))
            foreign = {name: f for name, f in source.stages.items() if not importable(f)}
            common = (shape, len(program.members), rows, paths, blocks, keep, program.steps, kept)
            return Task(source.text, foreign, source.data, arguments, *common)
    elif backend != "numpy" and backend.split(":")[0] != "torch":
        raise ValueError(f"`backend` must be 'auto', 'numba', 'numpy', or 'torch' with or without a device; got {backend!r}.")
    common = (shape, len(program.members), rows, paths, blocks, keep, program.steps, kept)
    if backend == "auto" and any(getattr(m.loss, "torch_stage", None) is not None for m in program.members):
        backend = "torch"  # a loss given as a torch function
    return Task("", {}, (), (keys,), *common, program, "numpy" if backend == "auto" else backend)


def _arrays(program: Program, source: Source) -> tuple[np.ndarray, ...]:
    start = np.zeros(source.rows)
    draws = program.start_plan.rows
    root = np.zeros((source.rows if draws else 0, draws))
    at = 0
    for i, (member, x0) in enumerate(zip(program.members, program.x0)):
        own, offset = sum(d.n for d in member.start_draws), program.start_offset(i)
        mean = np.concatenate(member.start(x0, np.zeros(own)))
        start[at : at + len(mean)] = mean
        for n in range(own):
            root[at : at + len(mean), offset + n] = np.concatenate(member.start(x0, np.eye(own)[n])) - mean
        at += len(mean)
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
    return program.coefficients, program.parameters, start, root, events, memory, slots, np.ascontiguousarray(factors)


def prepare(task: Task) -> None:
    """Compiles the task's kernel, or loads it, in the calling thread: threads then share it, and none compiles beside another."""
    if task.program is None:
        _kernel(task, 0, 0, np.empty((task.position_rows, 0)))


def run_chunk(task: Task, index: int) -> ChunkResult:
    """Advances the paths of chunk `index` and sums what is recorded."""
    size = task.blocks * LANES
    first = index * size
    paths = min(size, task.paths - first)
    points = np.empty((task.position_rows, paths if task.keep else 0))
    if task.program is not None:
        from sdetools.simulation.reference import run_reference

        sums, lost, seen = run_reference(task.program, task.arguments[0], first, paths, points)
        return ChunkResult(sums, paths, lost, seen, points)
    return _kernel(task, first, paths, points)


def _kernel(task: Task, first: int, paths: int, points: np.ndarray) -> ChunkResult:
    from sdetools.simulation.kernel import load
    from sdetools.simulation.library import ADDRESSES

    run = load(task.text, task.stages)
    blocks = -(-paths // LANES)
    sums, lost, seen = np.zeros(task.shape), np.zeros(task.members, np.int64), np.full(task.members, NEVER)
    keys, *arguments = task.arguments

    def call(watch: bool, sums: np.ndarray, lost: np.ndarray, points: np.ndarray) -> None:
        run(
            np.uint64(first), blocks, paths, keys, watch, task.steps, *arguments, task.kept, sums, lost, seen, points, ADDRESSES,
            *task.data,
        )  # fmt: skip

    call(False, sums, lost, points)
    if lost.any():  # the same paths once more, looking at every step: draws have addresses, so this is exact
        call(True, np.zeros(task.shape), np.zeros(task.members, np.int64), np.empty((task.position_rows, 0)))
    return ChunkResult(sums, paths, lost, seen, points)
