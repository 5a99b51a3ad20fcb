"""Runs of consecutive chunks at once, on a device: what the backends share that hold the paths of a chunk in rows, of torch or of NumPy.

A backend says how paths start and move (`Paths`). From record to record, and from look to look for lost paths, they move by themselves.
Chunks keep their meaning, so results do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from sdetools.simulation.chunks import ChunkResult, Task
from sdetools.simulation.program import NEVER
from sdetools.simulation.records import LEAF, Columns, Trees, leaf_counts, of_leaves

LOOK = 64
"""Steps between two looks for lost paths; the exact step is found by running those again."""


class Paths(Protocol):
    """Consecutive paths while they move."""

    def advance(self, k: int) -> None:
        """To the state before step k, from an earlier one."""

    def anchor(self, slot: int, memory: float) -> None:
        """Keeps y = x - memory m, and the noise that the momentum holds."""

    def recorded(self, t: int) -> Any:
        """The rows of record t, `width` of each quantity: `(rows, paths)`."""

    def lost(self, i: int) -> np.ndarray:
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

    def moments(self, columns: Columns, values: Sequence[Any], paths: int) -> np.ndarray:
        """Moments of the leaves, `(leaves, statistics)`, in double precision, of h, or of h(x), h(z) and the control."""
        counts = leaf_counts(paths)
        rows = self.zeros((len(columns.means), len(counts) * LEAF))
        names = ("x", "z", "c") if len(values) == 3 else columns.means
        for name, value in zip(names, values):
            rows[columns.means.index(name), :paths] = value
        if len(values) == 3:
            x, z, d = (columns.means.index(name) for name in "xzd")
            rows[d] = rows[x] - rows[z]
        found = of_leaves(columns, rows.reshape(len(rows), len(counts), LEAF), self.put(counts))
        return np.stack([self.numpy(f) for f in found], axis=-1)


class Batches:
    """Runs chunks of a task in batches of at most `most` paths (one chunk at least)."""

    def __init__(self, task: Task, most: int, arrays: Arrays) -> None:
        assert task.program is not None
        self.task, self.program, self.arrays = task, task.program, arrays
        self.most = max(1, most // (task.layout.size * LEAF))

    def paths(self, first: int, count: int) -> Paths:
        """Paths from number `first` on, at their start."""
        raise NotImplementedError

    def results(self, waiting: Iterable[int]) -> Iterator[tuple[int, ChunkResult]]:
        """The results of chunks, in batches of a fixed grid, of which all chunks are run: last bits of a matrix product depend on its width."""
        for at, own in groupby(waiting, lambda index: index // self.most * self.most):
            wanted, batch = set(own), range(at, min(at + self.most, self.task.layout.chunks))
            yield from ((index, result) for index, result in zip(batch, self.run(batch)) if index in wanted)

    def run(self, batch: Sequence[int]) -> list[ChunkResult]:
        """The results of consecutive chunks."""
        program, control = self.program, self.program.control
        chunks = [self.task.layout.chunk(i) for i in batch]
        sizes = [c.paths for c in chunks]
        total, ends = sum(sizes), np.cumsum(sizes)[:-1]
        paths, trees = self.paths(chunks[0].first, total), Trees([n for c in chunks for n in c.lengths], total)
        sums = np.zeros((len(trees.counts), *self.task.shape, len(program.statistics)))
        seen = [np.full(len(batch), NEVER) for _ in program.members]
        record = {int(k): t for t, k in enumerate(program.record)}
        anchors = (
            {} if control is None else {int(k): int(control.anchor_slot[k]) for k in np.flatnonzero(control.anchor_slot >= 0)}
        )
        stored, picks = self.task.points, [self.task.points.picked(c) for c in chunks]
        picked = np.concatenate([c.first - chunks[0].first + own for c, own in zip(chunks, picks)])
        points = stored.empty(picked)
        for k in sorted({*record, *anchors, *stored.slot, *range(0, program.steps, LOOK), program.steps}):
            paths.advance(k)
            stored.take(points, k, picked, paths.rows_of)
            if k in anchors:
                paths.anchor(anchors[k], float(control.memory[k]))  # type: ignore[union-attr]
            if k in record:
                sums[:, record[k]] = trees(program.statistics, self._moments(paths.recorded(record[k]), total))
            if k and (k % LOOK == 0 or k == program.steps):
                for first, lost in zip(seen, self._lost(paths)):
                    gone = np.array([part.any() for part in np.split(lost, ends)])
                    first[gone & (first == NEVER)] = k
        lost = [[int(part.sum()) for part in np.split(row, ends)] for row in self._lost(paths)]
        stored_of = np.split(points, np.cumsum([len(p) for p in picks])[:-1], axis=2)
        nodes = np.cumsum([len(c.lengths) for c in chunks])[:-1]
        out = []
        for c, (index, own, counts) in enumerate(zip(batch, np.split(sums, nodes), np.split(trees.counts, nodes))):
            first = np.array([s[c] for s in seen])
            first = self._first_loss(index, first) if (first != NEVER).any() else first
            out.append(ChunkResult(own, counts, np.array([row[c] for row in lost]), first, stored_of[c]))
        return out

    def _lost(self, paths: Paths) -> list[np.ndarray]:
        return [paths.lost(i) for i in range(len(self.program.members))]

    def _moments(self, rows: Any, paths: int) -> np.ndarray:
        """Moments of the leaves, `(leaves, columns, statistics)`."""
        columns, width = self.program.columns, len(rows) // self.program.columns
        found = [self.arrays.moments(self.program.statistics, rows[o * width : (o + 1) * width], paths) for o in range(columns)]
        return np.stack(found, axis=1)

    def _first_loss(self, index: int, looked: np.ndarray) -> np.ndarray:
        """The exact first steps at which a chunk lost a path: the same paths once more, with a look at every step."""
        if max(self.program.every) > 1:
            return looked  # a look is exact to `LOOK` of the short steps
        chunk = self.task.layout.chunk(index)
        paths, found = self.paths(chunk.first, chunk.paths), np.full(len(self.program.members), NEVER)
        for k in range(1, int(looked[looked != NEVER].max()) + 1):
            paths.advance(k)
            for i, lost in enumerate(self._lost(paths)):
                found[i] = k if found[i] == NEVER and lost.any() else found[i]
        return found
