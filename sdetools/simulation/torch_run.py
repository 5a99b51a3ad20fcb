"""The torch backend: a program's graphs as torch functions of tensors `(rows, paths)`, on any device, in double or single precision.

Draws have the same addresses as in the other backends: on a CPU they are filled by the compiled functions, elsewhere by Philox in torch's
integers. Losses given as torch functions run as calls through `torch.func`. Chunks keep their meaning, so results do not depend on the batch.
With ":compile" after the device, steps go through `torch.compile`; draws, starts and records do not.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from sdetools._compiled import folder
from sdetools.graph.arrays import compiled
from sdetools.graph.reals import Real, real_of
from sdetools.graph.tracing import NotTraceable
from sdetools.graph.value import Value, order
from sdetools.simulation.batches import Arrays, Batches
from sdetools.simulation.chunks import ChunkResult, Task
from sdetools.simulation.functions import Functions
from sdetools.simulation.program import Program
from sdetools.simulation.torch_rows import Draws

CPU_BATCH, DEVICE_BATCH = 1 << 14, 1 << 22
"""Paths at once: rows that stay in a core's cache, and enough to keep a device busy."""


def parse(backend: str, dtype: torch.dtype) -> tuple[torch.device, bool]:
    """The device of "torch", "torch:cuda", "torch:cuda:1", and whether ":compile" follows; ValueError for a device that is not there or does
    not have the type, and where nothing can be compiled for it."""
    words = backend.split(":")[1:]
    compiling = words[-1:] == ["compile"]
    try:
        device = torch.device(":".join(words[: -1 if compiling else None]) or "cpu")
        torch.zeros(1, device=device, dtype=dtype)
    except (RuntimeError, AssertionError, TypeError) as error:
        there = ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *(["mps"] if torch.backends.mps.is_available() else [])]
        told = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`backend` must name a device that is there ({', '.join(there)}) and has the type; got {backend!r} ({told}). "
            f'Write for example backend="torch:{there[-1]}", with dtype="float32" for a device without doubles.'
        ) from error
    if compiling and (fault := _compiler_fault(device)):
        raise ValueError(
            f"`backend` may end in ':compile' where torch can compile for {device}; got {backend!r} ({fault}). Install a compiler (g++ with "
            f"Python's headers for a CPU, or name another in CXX), or take {backend.removesuffix(':compile')!r}."
        )
    return device, compiling


@cache
def _compiler_fault(device: torch.device) -> str:
    """What `torch.compile` says where it cannot compile; found out once, on the smallest function."""
    if (place := folder()) is not None:  # torch's own choice is a name in /tmp that others could take first
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place / "torch"))
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's, about itself
            torch.compile(torch.neg)(torch.zeros(16, device=device))
    except Exception as error:  # of many kinds, one for each step on the way to machine code
        return next((line for line in str(error).splitlines() if "ompiler" in line and "backend=" not in line), repr(error))
    return ""


class Compiled:
    """A program's graphs as torch functions: `start(*draws)`, `step(every)(*state, *draws)`, `record(*state, *anchors)`."""

    def __init__(self, program: Program, device: torch.device, real: Real, compiling: bool = False) -> None:
        self.functions = f = Functions(program, torch=True, real=real)
        self.device, self.dtype = device, getattr(torch, real.name)
        numbers = [*(v for row in f.coefficients for v in row), f.numbers]
        steps = [(s.every, [t for t, _ in s.outputs], [v for _, v in s.outputs]) for s in f.steps]
        if device.type != "cpu":
            self._refuse_compiled([v for _, _, made in steps for v in made] + f.record)
        draws = [z for own in f.draws for z in own]
        self.start = self._function([v for _, v in f.start], [*f.start_draws, *([f.column] if f.column is not None else [])])
        self.targets = [t.key for t, _ in f.start]
        self.steps = [
            (every, [t.key for t in targets], self._function(made, [*f.state, *draws, *numbers], compiling))
            for every, targets, made in steps
        ]
        self.record = self._function(f.record, [*f.state, *f.anchors, f.numbers, f.factor, f.fading])

    def _function(self, outputs: Sequence[Value], inputs: Sequence[Value], compiling: bool = False) -> Any:
        f = compiled(outputs, inputs, torch, self.device, self.dtype)
        if not compiling:
            return f
        for name, own in f.__globals__.items():
            if isinstance(own, partial) and own.func.__self__.tensors is None:  # machine code already
                f.__globals__[name] = torch.compiler.disable(own)
        return torch.compile(f, dynamic=False)  # a number of paths has its own code, whichever came before

    def _refuse_compiled(self, outputs: Sequence[Value]) -> None:
        if any(n.op == "call" and n.extra.tensors is None for n in order(outputs)):
            raise NotTraceable(f"a part that is compiled for a CPU (a loss or noise from data) cannot run on {self.device}")


class Paths:
    """Consecutive paths while they move: their state, a tensor `(rows, paths)` an input, by its key."""

    def __init__(self, runner: Runner, first: int, paths: int) -> None:
        self.program, self.made, self.paths = runner.program, runner.made, paths
        self.draws = Draws(runner.keys, first, paths, runner.device, runner.dtype)
        self.C, self.P, self.k = runner.C, runner.P, 0
        self.anchors: dict[int, list[torch.Tensor]] = {}
        plan = self.program.start_plan
        given, columns = _segments(self.draws.start(plan), plan), self.program.start_columns
        if columns:
            given.append((torch.arange(first, first + paths, device=runner.device) % columns)[None])
        found = self.made.start(*given)
        self.state = {key: self._wide(v) for key, v in zip(self.made.targets, found)}

    def _wide(self, v: torch.Tensor) -> torch.Tensor:
        """Rows of paths, also of what is the same for all."""
        v = torch.as_tensor(v, dtype=self.made.dtype, device=self.made.device)
        return v if v.ndim == 2 else v[:, None].expand(-1, self.paths).contiguous()

    def rows(self) -> list[torch.Tensor]:
        """All that lasts from step to step."""
        return [self.state[v.key] for v in self.made.functions.state]

    def step(self, k: int) -> None:
        """Step k, and at its end the longer steps that end there."""
        row = self.C[min(k, len(self.C) - 1)]
        noise = self.program.noise
        for every, targets, step in self.made.steps:
            if (k + 1) % every:
                continue
            draws = []
            for s, plan in enumerate(noise.sets):
                used = noise.every(s) == every
                z = (
                    self.draws(s, plan, k // every)
                    if used
                    else torch.empty((plan.rows, self.paths), dtype=self.made.dtype, device=self.made.device)
                )
                draws += _segments(z, plan)
            found = step(*self.rows(), *draws, *row, self.P)
            self.state |= {key: self._wide(v) for key, v in zip(targets, found)}

    def advance(self, k: int) -> None:
        while self.k < k:
            self.step(self.k)
            self.k += 1

    def rows_of(self, rows: np.ndarray, picked: np.ndarray) -> np.ndarray:
        parts = torch.cat([self.state[part.key] for own in self.made.functions.parts for part in own])
        return parts[rows, picked].double().cpu().numpy()

    def anchor(self, slot: int, memory: float) -> None:
        f = self.made.functions
        x, m = (self.state[part.key] for part in f.parts[0][:2])
        self.anchors[slot] = [x - memory * m, self.state[f.held.key]]  # type: ignore[union-attr]

    def recorded(self, t: int) -> Any:
        control = self.program.control
        given: list[Any] = [self.P, 0.0, 0.0]
        if control is not None:
            given = [*self.anchors[int(control.slot[t])], self.P, float(control.factor[t]), float(control.fading[t])]
        return self.made.record(*self.rows(), *given)

    def lost(self, i: int) -> np.ndarray:
        gone = sum((self.state[part.key] * 0.0).sum(0) for part in self.made.functions.parts[i])
        return (gone != 0.0).cpu().numpy()  # type: ignore[union-attr]


def _segments(z: torch.Tensor, plan: Any) -> list[torch.Tensor]:
    return [z[s.row : s.row + s.n] for s in plan.segments]


class Runner(Batches):
    """Runs chunks of a task in batches on one device."""

    def __init__(self, task: Task) -> None:
        self.dtype = getattr(torch, task.dtype)
        self.device, compiling = parse(task.backend, self.dtype)
        super().__init__(task, CPU_BATCH if self.device.type == "cpu" else DEVICE_BATCH, Arrays(torch, self.device))
        self.made = Compiled(self.program, self.device, real_of(task.dtype), compiling)
        self.keys = [int(k) for k in task.arguments[0]]
        self.C = torch.as_tensor(self.program.coefficients, dtype=self.dtype, device=self.device)
        self.P = torch.as_tensor(self.program.parameters, dtype=self.dtype, device=self.device)

    def paths(self, first: int, count: int) -> Paths:
        return Paths(self, first, count)

    @torch.no_grad()
    def run(self, batch: Sequence[int]) -> list[ChunkResult]:
        return super().run(batch)
