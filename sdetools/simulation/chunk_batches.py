"""Runs of consecutive chunks at once, on a device: what the backends share that hold the paths of a chunk in rows, of torch or of NumPy.

A backend says how paths start and move (`MovingPaths`). From record to record, and from look to look for lost paths, they move by themselves.
Chunks keep their meaning, so results do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from sdetools.simulation.chunks import ChunkResult, ChunkTask
from sdetools.simulation.program import NEVER, Program
from sdetools.simulation.records import LEAF, Columns, Trees, leaf_counts, of_leaves

LOOK = 64
"""Steps between two looks for lost paths; the exact step is found by running those again."""


class MovingPaths(Protocol):
    """Consecutive paths while they move."""

    def advance(self, k: int) -> None:
        """To the state before step k, from an earlier one."""

    def anchor(self, memory: float) -> Any:
        """y = x - memory m, and the noise that the momentum holds."""

    def recorded(self, anchor: Any, c: float, rho: float) -> Any:
        """The rows of a record, `width` of each quantity: `(rows, paths)`; with a control from an anchor and its two numbers, or None."""

    def diverged(self, i: int) -> np.ndarray:
        """Whether each path of member i has left the finite range."""

    def rows_of(self, rows: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """Rows of the members' parts, one below another, at some paths: in double, broadcast."""


class Arrays:
    """NumPy (`torch` is None), or torch on a device."""

    def __init__(self, torch: Any = None, device: Any = "cpu") -> None:
        self.torch, self.device = torch, device

    def zeros(self, shape: Any, dtype: str = "float64") -> Any:
        return (
            np.zeros(shape, dtype)
            if self.torch is None
            else self.torch.zeros(shape, dtype=getattr(self.torch, dtype), device=self.device)
        )

    def put(self, a: np.ndarray) -> Any:
        return a if self.torch is None else self.torch.as_tensor(a, device=self.device)

    def numpy(self, a: Any) -> np.ndarray:
        return np.asarray(a if self.torch is None else a.cpu())

    def moments(self, columns: Columns, rows: Sequence[Any], paths: int) -> np.ndarray:
        """Moments of the leaves, `(leaves, quantities, statistics)`, in double precision, from rows h, or h(x), h(z) and the control, of each
        quantity."""
        counts, given, out = leaf_counts(paths), [name for name in columns.means if name != "d"], []
        for at in range(0, len(rows), len(given)):
            own = self.zeros((len(columns.means), len(counts) * LEAF))
            for name, row in zip(given, rows[at:]):
                own[columns.means.index(name), :paths] = row
            if "d" in columns.means:
                x, z, d = map(columns.means.index, "xzd")
                own[d] = own[x] - own[z]
            found = of_leaves(columns, own.reshape(len(own), len(counts), LEAF), self.put(counts))
            out.append(np.stack([self.numpy(f) for f in found], axis=-1))
        return np.stack(out, axis=1)


def walk(program: Program, paths: MovingPaths, more: Iterable[int]) -> Iterator[tuple[int, Any]]:
    """Moves paths to each step at which something is recorded or kept, and to `more`: that step, and the rows of its record or None."""
    control, record, kept = program.control, {int(k): t for t, k in enumerate(program.record)}, {}
    anchors = () if control is None else np.flatnonzero(control.anchor_slot >= 0).tolist()
    for k in sorted({*record, *anchors, *more}):
        paths.advance(k)
        if control is not None and k in anchors:
            kept[control.anchor_slot[k]] = paths.anchor(control.memory[k])
        if k not in record:
            yield k, None
        elif control is None:
            yield k, paths.recorded(None, 0.0, 0.0)
        else:
            t = record[k]
            yield k, paths.recorded(kept[control.slot[t]], control.factor[t], control.fading[t])


class ChunkBatches:
    """Runs chunks of a task in batches of at most `most` paths (one chunk at least)."""

    def __init__(self, task: ChunkTask, most: int, arrays: Arrays) -> None:
        assert task.program is not None
        self.task, self.program, self.arrays = task, task.program, arrays
        self.most = max(1, most // (task.layout.size * LEAF))

    def paths(self, first: int, count: int) -> MovingPaths:
        """Paths from number `first` on, at their start."""
        raise NotImplementedError

    def results(self, waiting: Iterable[int]) -> Iterator[tuple[int, ChunkResult]]:
        """The results of chunks, in batches of a fixed grid, of which all chunks are run: last bits of a matrix product depend on its width."""
        for at, own in groupby(waiting, lambda index: index // self.most * self.most):
            wanted, batch = set(own), range(at, min(at + self.most, self.task.layout.chunks))
            yield from ((index, result) for index, result in zip(batch, self.run(batch)) if index in wanted)

    def run(self, batch: Sequence[int]) -> list[ChunkResult]:
        """The results of consecutive chunks."""
        program, chunks = self.program, [self.task.layout.chunk(i) for i in batch]
        sizes = [c.paths for c in chunks]
        total, ends = sum(sizes), np.cumsum(sizes)[:-1]
        paths, trees = self.paths(chunks[0].first, total), Trees([n for c in chunks for n in c.lengths], total)
        sums = np.zeros((len(trees.counts), *self.task.shape, len(program.statistics)))
        seen = [np.full(len(batch), NEVER) for _ in program.members]
        stored, picks = self.task.points, [self.task.points.picked(c) for c in chunks]
        picked = np.concatenate([c.first - chunks[0].first + own for c, own in zip(chunks, picks)])
        points = stored.empty(picked)
        for k, rows in walk(program, paths, {*stored.slot, *range(0, program.steps, LOOK), program.steps}):
            stored.take(points, k, picked, paths.rows_of)
            if rows is not None:
                moments = self.arrays.moments(program.statistics, rows, total)
                sums[:, np.searchsorted(program.record, k)] = trees(program.statistics, moments)
            if k and (k % LOOK == 0 or k == program.steps):
                for first, lost in zip(seen, self._diverged(paths)):
                    gone = np.array([part.any() for part in np.split(lost, ends)])
                    first[gone & (first == NEVER)] = k
        lost = [[int(part.sum()) for part in np.split(row, ends)] for row in self._diverged(paths)]
        stored_of = np.split(points, np.cumsum([len(p) for p in picks])[:-1], axis=2)
        nodes = np.cumsum([len(c.lengths) for c in chunks])[:-1]
        out = []
        for c, (index, own, counts) in enumerate(zip(batch, np.split(sums, nodes), np.split(trees.counts, nodes))):
            first = np.array([s[c] for s in seen])
            first = self._first_loss(index, first) if (first != NEVER).any() else first
            out.append(ChunkResult(own, counts, np.array([row[c] for row in lost]), first, stored_of[c]))
        return out

    def _diverged(self, paths: MovingPaths) -> list[np.ndarray]:
        return [paths.diverged(i) for i in range(len(self.program.members))]

    def _first_loss(self, index: int, looked: np.ndarray) -> np.ndarray:
        """The exact first steps at which a chunk lost a path: the same paths once more, with a look at every step."""
        chunk = self.task.layout.chunk(index)
        paths, found = self.paths(chunk.first, chunk.paths), np.full(len(self.program.members), NEVER)
        for k in range(1, int(looked[looked != NEVER].max()) + 1):
            paths.advance(k)
            for i, lost in enumerate(self._diverged(paths)):
                found[i] = k if found[i] == NEVER and lost.any() else found[i]
        return found
