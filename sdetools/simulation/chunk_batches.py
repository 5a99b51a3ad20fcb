"""Batches of consecutive chunks, for backends that store the paths of a chunk in rows of arrays: NumPy, torch and CUDA.

A backend defines how paths start and advance (`MovingPaths`). They advance without interruption between records, and between checks
for divergence. Results do not depend on the batch, because moments are still those of chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar, Protocol

import numpy as np

from sdetools.simulation.chunks import ChunkResult, ChunkTask
from sdetools.simulation.program import NEVER, Program
from sdetools.simulation.records import LEAF, Columns, Trees, leaf_counts, of_leaves

CHECK_EVERY = 64
"""The number of steps between two checks for divergence; the exact step is found by a rerun."""


class MovingPaths(Protocol):
    """Consecutive paths of all members, advanced by a backend."""

    def advance(self, k: int) -> None:
        """Advances the paths from an earlier step to the state before step k."""

    def anchor(self, memory: float) -> Any:
        """Returns y = x - memory m, and the noise accumulated in the momentum buffer."""

    def recorded(self, anchor: Any, c: float, rho: float) -> Any:
        """Returns the rows of a record, `(rows, paths)`, one or three for each quantity.

        Args:
            anchor: The anchor of the control variate, or None.
            c: The factor of the control variate.
            rho: The decay of the noise since the anchor.
        """

    def diverged(self, i: int) -> np.ndarray:
        """Returns for each path whether member i is non-finite."""

    def rows_of(self, rows: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """Returns rows of the stacked state at some paths, in double precision; the two index arrays are broadcast."""


class Arrays:
    """The array operations of a backend: those of NumPy (`torch` is None), or of torch on a device.

    Args:
        torch: The module, or None.
        device: The device of tensors.
    """

    def __init__(self, torch: Any = None, device: Any = "cpu") -> None:
        self.torch, self.device = torch, device

    def zeros(self, shape: Any, dtype: str = "float64") -> Any:
        """Returns an array of zeros."""
        return (
            np.zeros(shape, dtype)
            if self.torch is None
            else self.torch.zeros(shape, dtype=getattr(self.torch, dtype), device=self.device)
        )

    def put(self, a: np.ndarray) -> Any:
        """Returns a NumPy array as an array of the backend."""
        return a if self.torch is None else self.torch.as_tensor(a, device=self.device)

    def numpy(self, a: Any) -> np.ndarray:
        """Returns an array of the backend as a NumPy array."""
        return np.asarray(a if self.torch is None else a.cpu())

    def moments(self, columns: Columns, rows: Sequence[Any], paths: int) -> np.ndarray:
        """Returns the moments of leaves, in double precision.

        Args:
            columns: The statistics.
            rows: For each quantity the row h, or the rows h(x), h(z) and the control.
            paths: The number of paths.

        Returns:
            Moments `(leaves, quantities, statistics)`.
        """
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
    """Advances paths to every step at which something is recorded or stored.

    Args:
        program: The simulation.
        paths: The paths, at their start.
        more: Further steps.

    Yields:
        Each step, and the rows of its record or None.
    """
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
    """Runs chunks of a task in batches.

    Args:
        task: A task without a kernel.
        most: The largest number of paths of a batch, which has at least one chunk.
        arrays: The array operations of the backend.
    """

    on_device: ClassVar[bool] = True
    """Whether one device runs all chunks of a task; otherwise threads or an executor's workers run them, a chunk at a time."""
    longest_rows: ClassVar[int] = 1
    """The number of leaves in a chunk from which longer rows are not more efficient."""

    def __init__(self, task: ChunkTask, most: int, arrays: Arrays) -> None:
        assert task.program is not None
        self.task, self.program, self.arrays = task, task.program, arrays
        self.most = max(1, most // (task.layout.size * LEAF))

    def paths(self, first: int, count: int) -> MovingPaths:
        """Returns `count` paths from index `first` on, at their start."""
        raise NotImplementedError

    def results(self, waiting: Iterable[int]) -> Iterator[tuple[int, ChunkResult]]:
        """Yields the results of chunks.

        Batches form a fixed grid, and all chunks of a batch are run, because the last bits of a matrix product depend on its width.

        Args:
            waiting: The indices of the chunks, in order.

        Yields:
            The index of a chunk and its result.
        """
        for at, own in groupby(waiting, lambda index: index // self.most * self.most):
            wanted, batch = set(own), range(at, min(at + self.most, self.task.layout.chunks))
            yield from ((index, result) for index, result in zip(batch, self.run(batch)) if index in wanted)

    def run(self, batch: Sequence[int]) -> list[ChunkResult]:
        """Returns the results of consecutive chunks, given by their indices."""
        program, chunks = self.program, [self.task.layout.chunk(i) for i in batch]
        sizes = [c.paths for c in chunks]
        total, ends = sum(sizes), np.cumsum(sizes)[:-1]
        paths, trees = self.paths(chunks[0].first, total), Trees([n for c in chunks for n in c.lengths], total)
        sums = np.zeros((len(trees.counts), *self.task.shape, len(program.statistics)))
        seen = [np.full(len(batch), NEVER) for _ in program.members]
        stored, picks = self.task.points, [self.task.points.picked(c) for c in chunks]
        picked = np.concatenate([c.first - chunks[0].first + own for c, own in zip(chunks, picks)])
        points = stored.empty(picked)
        for k, rows in walk(program, paths, {*stored.slot, *range(0, program.steps, CHECK_EVERY), program.steps}):
            stored.take(points, k, picked, paths.rows_of)
            if rows is not None:
                moments = self.arrays.moments(program.statistics, rows, total)
                sums[:, np.searchsorted(program.record, k)] = trees(program.statistics, moments)
            if k and (k % CHECK_EVERY == 0 or k == program.steps):
                for first, own in zip(seen, self._diverged(paths)):
                    found = np.array([part.any() for part in np.split(own, ends)])
                    first[found & (first == NEVER)] = k
        diverged = [[int(part.sum()) for part in np.split(row, ends)] for row in self._diverged(paths)]
        stored_of = np.split(points, np.cumsum([len(p) for p in picks])[:-1], axis=2)
        nodes = np.cumsum([len(c.lengths) for c in chunks])[:-1]
        out = []
        for c, (index, own, counts) in enumerate(zip(batch, np.split(sums, nodes), np.split(trees.counts, nodes))):
            first = np.array([s[c] for s in seen])
            first = self._first_divergence(index, first) if (first != NEVER).any() else first
            out.append(ChunkResult(own, counts, np.array([row[c] for row in diverged]), first, stored_of[c]))
        return out

    def _diverged(self, paths: MovingPaths) -> list[np.ndarray]:
        return [paths.diverged(i) for i in range(len(self.program.members))]

    def _first_divergence(self, index: int, checked: np.ndarray) -> np.ndarray:
        """Returns the exact divergence times of a chunk, by a rerun of its paths with a check after every step."""
        chunk = self.task.layout.chunk(index)
        paths, found = self.paths(chunk.first, chunk.paths), np.full(len(self.program.members), NEVER)
        for k in range(1, int(checked[checked != NEVER].max()) + 1):
            paths.advance(k)
            for i, own in enumerate(self._diverged(paths)):
                found[i] = k if found[i] == NEVER and own.any() else found[i]
        return found
