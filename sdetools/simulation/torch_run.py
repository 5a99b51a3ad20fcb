"""The torch backend: a program's graphs as torch functions of tensors `(rows, paths)`, on any device, in double or single precision.

Draws have the same addresses as in the other backends: on a CPU they are filled by the compiled functions, elsewhere by Philox in torch's
integers. Losses given as torch functions run as calls through `torch.func`. Chunks keep their meaning, so results do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch

from sdetools.graph.arrays import compiled
from sdetools.graph.reals import Real, real_of
from sdetools.graph.tracing import NotTraceable
from sdetools.graph.value import Value, order
from sdetools.simulation.chunks import ChunkResult, Task
from sdetools.simulation.functions import Functions
from sdetools.simulation.program import NEVER, Program
from sdetools.simulation.records import LEAF, Columns, Trees, leaf_counts, of_leaves
from sdetools.simulation.torch_rows import Draws

CPU_BATCH, DEVICE_BATCH = 1 << 14, 1 << 22
"""Paths at once: rows that stay in a core's cache, and enough to keep a device busy."""
LOOK = 64
"""Steps between two looks for lost paths; the exact step is found by running those again."""


def parse(backend: str, dtype: torch.dtype) -> torch.device:
    """The device of "torch", "torch:cuda", "torch:cuda:1"; ValueError for one that is not there, or does not have the type."""
    try:
        device = torch.device(backend.partition(":")[2] or "cpu")
        torch.zeros(1, device=device, dtype=dtype)
    except (RuntimeError, AssertionError, TypeError) as error:
        there = ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *(["mps"] if torch.backends.mps.is_available() else [])]
        told = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`backend` must name a device that is there ({', '.join(there)}) and has the type; got {backend!r} ({told}). "
            'Write for example backend="torch:cuda", dtype="float32".'
        ) from error
    return device


class Compiled:
    """A program's graphs as torch functions: `start(*draws)`, `step(every)(*state, *draws)`, `record(*state, *anchors)`."""

    def __init__(self, program: Program, device: torch.device, real: Real) -> None:
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
            (every, [t.key for t in targets], self._function(made, [*f.state, *draws, *numbers]))
            for every, targets, made in steps
        ]
        self.record = self._function(f.record, [*f.state, *f.anchors, f.numbers, f.factor, f.fading])

    def _function(self, outputs: Sequence[Value], inputs: Sequence[Value]) -> Any:
        return compiled(outputs, inputs, torch, self.device, self.dtype)

    def _refuse_compiled(self, outputs: Sequence[Value]) -> None:
        if any(n.op == "call" and n.extra.tensors is None for n in order(outputs)):
            raise NotTraceable(f"a part that is compiled for a CPU (a loss or noise from data) cannot run on {self.device}")


class Paths:
    """Consecutive paths while they move: their state, a tensor `(rows, paths)` an input, by its key."""

    def __init__(self, runner: Runner, first: int, paths: int) -> None:
        self.program, self.made, self.paths = runner.program, runner.made, paths
        self.draws = Draws(runner.keys, first, paths, runner.device, runner.dtype)
        self.C, self.P = runner.C, runner.P
        plan = self.program.start_plan
        given, columns = _segments(self.draws.start(plan), plan), self.program.start_columns
        if columns:
            given.append((torch.arange(first, first + paths, device=runner.device) % columns)[None])
        found = self.made.start(*given)
        self.state = {key: self._wide(v) for key, v in zip(self.made.targets, found)}

    def _wide(self, v: torch.Tensor) -> torch.Tensor:
        """Rows of paths, also of what is the same for all."""
        v = torch.as_tensor(v, dtype=self.made.dtype, device=self.made.device)
        return v if v.ndim == 2 else v[:, None].expand(-1, self.paths)

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

    def lost(self, i: int) -> torch.Tensor:
        """Whether each path of member i has left the finite range."""
        gone = sum((self.state[part.key] * 0.0).sum(0) for part in self.made.functions.parts[i])
        return gone != 0.0  # type: ignore[return-value]

    def parts(self) -> torch.Tensor:
        """The members' parts, one below another."""
        return torch.cat([self.state[part.key] for parts in self.made.functions.parts for part in parts])


def _segments(z: torch.Tensor, plan: Any) -> list[torch.Tensor]:
    return [z[s.row : s.row + s.n] for s in plan.segments]


class Runner:
    """Runs chunks of a task in batches on one device."""

    def __init__(self, task: Task) -> None:
        assert task.program is not None
        self.task, self.program = task, task.program
        self.dtype = getattr(torch, task.dtype)
        self.device = parse(task.backend, self.dtype)
        self.made = Compiled(self.program, self.device, real_of(task.dtype))
        self.keys = [int(k) for k in task.arguments[0]]
        self.C = torch.as_tensor(self.program.coefficients, dtype=self.dtype, device=self.device)
        self.P = torch.as_tensor(self.program.parameters, dtype=self.dtype, device=self.device)

    def results(self, waiting: Iterable[int]) -> Iterator[tuple[int, ChunkResult]]:
        """The results of chunks, in batches of a fixed grid, of which all chunks are run: last bits of a matrix product depend on its width."""
        layout = self.task.layout
        most = max(1, (CPU_BATCH if self.device.type == "cpu" else DEVICE_BATCH) // (layout.size * LEAF))
        for at, own in groupby(waiting, lambda index: index // most * most):
            wanted, batch = set(own), range(at, min(at + most, layout.chunks))
            yield from ((index, result) for index, result in zip(batch, self.run(batch)) if index in wanted)

    @torch.no_grad()
    def run(self, batch: Sequence[int]) -> list[ChunkResult]:
        """The results of consecutive chunks."""
        program = self.program
        chunks = [self.task.layout.chunk(i) for i in batch]
        sizes = [c.paths for c in chunks]
        paths, trees = Paths(self, chunks[0].first, sum(sizes)), Trees([n for c in chunks for n in c.lengths], sum(sizes))
        sums = np.zeros((len(trees.counts), *self.task.shape, len(program.statistics)))
        control, anchors = program.control, {}
        record = {int(k): t for t, k in enumerate(program.record)}
        seen = [np.full(len(batch), NEVER) for _ in program.members]
        stored, picks = self.task.points, [self.task.points.picked(c) for c in chunks]
        picked = np.concatenate([c.first - chunks[0].first + own for c, own in zip(chunks, picks)])
        points = stored.empty(picked)
        for k in range(program.steps + 1):
            stored.take(points, k, picked, lambda rows, own: paths.parts()[rows, own].double().cpu().numpy())
            if control is not None and control.anchor_slot[k] >= 0:
                x, m = (paths.state[part.key] for part in self.made.functions.parts[0][:2])
                anchors[int(control.anchor_slot[k])] = [
                    x - float(control.memory[k]) * m,
                    paths.state[self.made.functions.held.key],
                ]  # type: ignore[union-attr]
            if k in record:
                sums[:, record[k]] = trees(program.statistics, self._recorded(paths, record[k], anchors))
            if k == program.steps:
                break
            paths.step(k)
            if (k + 1) % LOOK == 0 or k + 1 == program.steps:
                for i in range(len(program.members)):
                    for c, part in enumerate(torch.split(paths.lost(i), sizes)):
                        if seen[i][c] == NEVER and bool(part.any()):
                            seen[i][c] = k + 1
        ends = np.cumsum([len(c.lengths) for c in chunks])[:-1]
        lost = [[int(part.sum()) for part in torch.split(paths.lost(i), sizes)] for i in range(len(program.members))]
        stored_of = np.split(points, np.cumsum([len(p) for p in picks])[:-1], axis=2)
        out = []
        for c, (index, own, counts) in enumerate(zip(batch, np.split(sums, ends), np.split(trees.counts, ends))):
            first = np.array([s[c] for s in seen])
            first = self._first_loss(index, first) if (first != NEVER).any() else first
            out.append(ChunkResult(own, counts, np.array([row[c] for row in lost]), first, stored_of[c]))
        return out

    def _recorded(self, paths: Paths, t: int, anchors: dict[int, Any]) -> np.ndarray:
        """Moments of the leaves, `(leaves, columns, statistics)`."""
        program, control = self.program, self.program.control
        given: list[Any] = [self.P, 0.0, 0.0]
        if control is not None:
            given = [*anchors[int(control.slot[t])], self.P, float(control.factor[t]), float(control.fading[t])]
        rows = self.made.record(*paths.rows(), *given)
        width = self.made.functions.width
        out = np.empty((-(-paths.paths // LEAF), program.columns, len(program.statistics)))
        for o in range(program.columns):
            out[:, o] = _moments(program.statistics, rows[o * width : (o + 1) * width], paths.paths, self.device)
        return out

    @torch.no_grad()
    def _first_loss(self, index: int, looked: np.ndarray) -> np.ndarray:
        """The exact first steps at which a chunk lost a path: the same paths once more, with a look at every step."""
        if max(self.program.every) > 1:
            return looked  # a look is exact to `LOOK` of the short steps
        chunk = self.task.layout.chunk(index)
        paths, found = Paths(self, chunk.first, chunk.paths), np.full(len(self.program.members), NEVER)
        for k in range(int(looked[looked != NEVER].max())):
            paths.step(k)
            for i in range(len(self.program.members)):
                if found[i] == NEVER and bool(paths.lost(i).any()):
                    found[i] = k + 1
        return found


def _moments(columns: Columns, values: tuple[Any, ...], paths: int, device: torch.device) -> np.ndarray:
    """Moments of the leaves, `(leaves, statistics)`, in double precision."""
    counts = leaf_counts(paths)
    rows = torch.zeros(len(columns.means), len(counts) * LEAF, dtype=torch.float64, device=device)
    names = ("x", "z", "c") if len(values) == 3 else columns.means
    for name, value in zip(names, values):
        rows[columns.means.index(name), :paths] = value
    if len(values) == 3:
        x, z, d = (columns.means.index(name) for name in "xzd")
        rows[d] = rows[x] - rows[z]
    rows = rows.view(len(rows), len(counts), LEAF)
    return torch.stack(of_leaves(columns, rows, torch.as_tensor(counts, device=device)), dim=-1).cpu().numpy()
