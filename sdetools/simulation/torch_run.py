"""The torch backend: a program's graphs as torch functions of tensors `(rows, paths)`, on any device, in double or single precision.

Draws have the same addresses as on other backends. On a CPU they come from the compiled functions, elsewhere from Philox in torch's
integers. Losses given as torch functions are called through `torch.func`. Results do not depend on the batch, because moments are
those of chunks. With ":compile" after the device, steps are compiled by `torch.compile`; draws, starts and records are not.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from sdetools._machine_code import folder
from sdetools.graph.arrays import compiled
from sdetools.graph.reals import real_of
from sdetools.graph.tracing import NotTraceable
from sdetools.graph.value import Value, order
from sdetools.simulation.chunk_batches import Arrays, ChunkBatches
from sdetools.simulation.chunks import ChunkResult, ChunkTask
from sdetools.simulation.step_graphs import Functions
from sdetools.simulation.threads import available_threads
from sdetools.simulation.torch_rows import Draws

CPU_BATCH, DEVICE_BATCH = 1 << 14, 1 << 22
"""The number of paths of a batch: rows that fit into a core's cache, and enough to occupy a device."""


def parse(backend: str, dtype: torch.dtype) -> tuple[torch.device, bool]:
    """Return the device that the name of a torch backend gives, and whether it ends in ":compile".

    Args:
        backend: The name: "torch", "torch:cuda", "torch:cuda:1", each possibly followed by ":compile". "torch" alone is the CPU.
        dtype: The floating-point type that the device must support, float64 or float32 of torch.

    Returns:
        The pair (device, whether steps are compiled by `torch.compile`).

    Raises:
        ValueError: The device does not exist or does not support the type, or torch cannot compile for it.
    """
    words = backend.split(":")[1:]
    compiling = words[-1:] == ["compile"]
    try:
        device = torch.device(":".join(words[: -1 if compiling else None]) or "cpu")
        torch.zeros(1, device=device, dtype=dtype)
    except (RuntimeError, AssertionError, TypeError) as error:
        available = [
            "cpu",
            *(["cuda"] if torch.cuda.is_available() else []),
            *(["mps"] if torch.backends.mps.is_available() else []),
        ]
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`backend` must name an available device ({', '.join(available)}) that supports the type; got {backend!r} ({reason}). "
            f'Write for example backend="torch:{available[-1]}", with dtype="float32" for a device without doubles.'
        ) from error
    if compiling and (fault := _compiler_fault(device)):
        raise ValueError(
            f"`backend` may end in ':compile' where torch can compile for {device}; got {backend!r} ({fault}). Install a compiler (g++ with "
            f"Python's headers for a CPU, or name another in CXX), or use {backend.removesuffix(':compile')!r}."
        )
    return device, compiling


@cache
def _compiler_fault(device: torch.device) -> str:
    """Return the error of `torch.compile` for a device, one line; an empty text if it compiles. It is tried once, on the smallest function."""
    if (place := folder()) is not None:  # torch's default is a name in /tmp that other users could create first
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place / "torch"))
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", DeprecationWarning)  # raised within torch
            torch.compile(torch.neg)(torch.zeros(16, device=device))
    except Exception as error:  # of a different type for each stage of compilation
        return next((line for line in str(error).splitlines() if "ompiler" in line and "backend=" not in line), repr(error))
    return ""


@contextmanager
def own_share_of_threads() -> Iterator[None]:
    """Let an operation of torch on the CPU use no more than `available_threads()` threads in a `with` block.

    Torch by default has a thread for each core in every process. Processes side by side would then wait for each other's threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, available_threads()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TensorPaths:
    """Consecutive paths as tensors on a device, advanced step by step: the `chunk_batches.MovingPaths` of the torch backend.

    Args:
        runner: The runner, which has the torch functions of the program and the device.
        first: The index of the first path.
        paths: The number of paths.

    Attributes:
        k: The present step; the state is the one before it.
        state: The state, a dict with a tensor `(rows, paths)` for each input of the step's graph (`Functions.state`: position, momentum, ...), by
            the input's `key`.
    """

    def __init__(self, runner: TorchRunner, first: int, paths: int) -> None:
        self.runner, self.program, self.paths, self.k = runner, runner.program, paths, 0
        self.draws = Draws(runner.keys, first, paths, runner.device, runner.dtype)
        plan, columns = self.program.start_plan, self.program.start_columns
        given = _segments(self.draws.start(plan), plan)
        if columns:
            given.append((torch.arange(first, first + paths, device=runner.device) % columns)[None])
        self.state: dict[Any, torch.Tensor] = {}
        self._moved(runner.functions.start, runner.start(*given))

    def _moved(self, outputs: Sequence[tuple[Value, Value]], found: Sequence[torch.Tensor]) -> None:
        """Store new values of parts of the state, expanded to all paths: `found` has the values of `outputs`, pairs (input, traced value)."""
        for (target, _), v in zip(outputs, found):
            v = torch.as_tensor(v, dtype=self.runner.dtype, device=self.runner.device)
            self.state[target.key] = v if v.ndim == 2 else v[:, None].expand(-1, self.paths).contiguous()

    def _all(self) -> list[torch.Tensor]:
        """Return all tensors that persist from step to step, in the order of `Functions.state`."""
        return [self.state[v.key] for v in self.runner.functions.state]

    def advance(self, k: int) -> None:
        """Advance the paths to the state before step k, which is not earlier than the present one; changes the paths in place.

        A dynamics whose step is r steps of the program moves once in r steps, at the last of them.
        """
        noise, C = self.program.noise, self.runner.C
        for now in range(self.k, k):
            for step, function in zip(self.runner.functions.steps, self.runner.steps):
                if (now + 1) % step.every == 0:
                    own = [(s, plan) for s, plan in enumerate(noise.sets) if noise.every(s) == step.every]
                    draws = [z for s, plan in own for z in _segments(self.draws(s, plan, now // step.every), plan)]
                    found = function(*self._all(), *draws, *C[min(now, len(C) - 1)], self.runner.P)
                    self._moved(step.outputs, found)
        self.k = k

    def rows_of(self, rows: np.ndarray, picked: np.ndarray) -> np.ndarray:
        return torch.cat(self._all())[rows, picked].double().cpu().numpy()

    def anchor(self, memory: float) -> list[torch.Tensor]:
        f = self.runner.functions
        x, m = (self.state[part.key] for part in f.parts[0][:2])
        return [x - float(memory) * m, self.state[f.momentum_noise.key]]  # type: ignore[union-attr]

    def recorded(self, anchor: Any, c: float, rho: float) -> Any:
        return self.runner.record(*self._all(), *(anchor or ()), self.runner.P, float(c), float(rho))

    def diverged(self, i: int) -> np.ndarray:
        nonfinite = sum((self.state[part.key] * 0.0).sum(0) for part in self.runner.functions.parts[i])
        return (nonfinite != 0.0).cpu().numpy()  # type: ignore[union-attr]


def _segments(z: torch.Tensor, plan: Any) -> list[torch.Tensor]:
    """Return the rows of each segment (kind of draws) of a plan from the draws `(plan.rows, paths)` of a step, as a list of views."""
    return [z[s.row : s.row + s.n] for s in plan.segments]


class TorchRunner(ChunkBatches):
    """The runner of the torch backend: it advances chunks, sets of consecutive paths, as tensors on one device.

    Its steps are torch functions made from the program's graphs.

    Args:
        task: The `ChunkTask`, which contains the program, the type "float64" or "float32", and the name of the backend with the device.

    Raises:
        NotTraceable: A part of the program cannot run on the device.
        ValueError: The device does not exist, does not support the type, or torch cannot compile for it.
    """

    def __init__(self, task: ChunkTask) -> None:
        self.dtype = getattr(torch, task.dtype)
        self.device, compiling = parse(task.backend, self.dtype)
        super().__init__(task, CPU_BATCH if self.device.type == "cpu" else DEVICE_BATCH, Arrays(torch, self.device))
        self.keys = [int(k) for k in task.arguments[0]]
        given = self.program.coefficients, self.program.parameters
        self.C, self.P = (torch.as_tensor(a, dtype=self.dtype, device=self.device) for a in given)
        self.functions = f = Functions(self.program, torch=True, real=real_of(task.dtype))
        noise, numbers = self.program.noise, [*(v for row in f.coefficients for v in row), f.numbers]
        nodes = order([*(v for step in f.steps for _, v in step.outputs), *f.record])
        if self.device.type != "cpu" and any(n.op == "call" and n.extra.tensors is None for n in nodes):
            raise NotTraceable(f"a part that is compiled for a CPU (a loss or noise from data) cannot run on {self.device}")
        self.start = self._function([v for _, v in f.start], [*f.start_draws, *([f.column] if f.column is not None else [])])
        self.steps = []
        for step in f.steps:
            draws = [z for s, own in enumerate(f.draws) for z in own if noise.every(s) == step.every]
            self.steps.append(self._function([v for _, v in step.outputs], [*f.state, *draws, *numbers], compiling))
        self.record = self._function(f.record, [*f.state, *f.anchors, f.numbers, f.factor, f.fading])

    def _function(self, outputs: Sequence[Value], inputs: Sequence[Value], compiling: bool = False) -> Any:
        """Return the torch function of a graph, from tensors of the values `inputs` to those of `outputs`; `compiling` applies `torch.compile`."""
        f = compiled(outputs, inputs, torch, self.device, self.dtype)
        if not compiling:
            return f
        for name, own in f.__globals__.items():
            call: Any = own.func if isinstance(own, partial) else None
            if call is not None and call.__self__.tensors is None:  # already machine code
                f.__globals__[name] = torch.compiler.disable(own)
        return torch.compile(f, dynamic=False)  # the code depends on the number of paths only, not on earlier ones

    def paths(self, first: int, count: int) -> TensorPaths:
        return TensorPaths(self, first, count)

    def run(self, batch: Sequence[int]) -> list[ChunkResult]:
        with torch.no_grad(), own_share_of_threads():
            return super().run(batch)
