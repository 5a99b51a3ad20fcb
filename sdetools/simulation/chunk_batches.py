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
    """Consecutive paths of a program, advanced together by a backend in arrays of its own; the protocol that each backend implements.

    The paths have been advanced to a step k, the present step: their state is the one before step k, that is, after k steps. At first k = 0.
    A backend without a compiled kernel implements all five methods.
    """

    def advance(self, k: int) -> None:
        """Advance the paths in place until k steps of the program have been taken, so that their state is the one before step k (from 0).

        `k` is not smaller than the number of steps taken so far; if it is equal, nothing changes.
        """

    def anchor(self, memory: float) -> Any:
        """Return what the control variate keeps of the present step: y `(dim, paths)` and E `(dim, paths)`, in a form of the backend's own.

        Here y = x - memory m, where x and m are position and momentum of the first dynamics, and E is the part of m that gradient noise has
        contributed. Later calls of `advance` do not change the result, which is an argument of `recorded`. Only programs with a control variate
        call this method.

        Args:
            memory: The factor of m in y.
        """

    def recorded(self, anchor: Any, c: float, rho: float) -> Any:
        """Return the record of the present step as rows `(rows, paths)` of the backend's arrays, one quantity after another.

        A quantity is an observable h or a functional, a sum along the path; observables come first. It has one row, h(x), for a single dynamics,
        and three rows h(x), h(z), C for a pair with positions x and z. Observables of a diverged path are NaN; C is 0 there and for functionals.

        Args:
            anchor: What the method `anchor` returned at this or an earlier step; None without a control variate, and then C = 0.
            c: The factor c of the control variate C = c grad h(y) . (E_now - rho E), where (y, E) is the anchor and E_now the noise accumulated
                in the momentum of the first dynamics at the present step.
            rho: The factor by which momentum decays from the step of the anchor to the present step, such as beta^n for n steps.
        """

    def diverged(self, i: int) -> np.ndarray:
        """Return which paths are not finite now, as a boolean NumPy array `(paths,)`: True where a number of the state is infinite or NaN.

        `i` is the index of the dynamics whose state is examined: 0, or 1 for the second one of a pair. Callers ask for 0 first.
        """

    def rows_of(self, rows: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """Return numbers of the present state as a float64 array of NumPy.

        Args:
            rows: Indices of rows of the stacked state, which has the position, momentum, ... of all dynamics (`Program.state_rows`), then the sums
                of functionals (`Program.sum_rows`).
            picked: Positions of paths, 0 for the first path of this object.

        Returns:
            The state at `[rows, picked]`, where the two index arrays are broadcast: `(r, 1)` and `(n,)` give `(r, n)`.
        """


class Arrays:
    """The few array operations that a backend needs, in NumPy or in torch on a device.

    Args:
        torch: The module torch; None for NumPy.
        device: The device of torch's tensors, a `torch.device` or its name; NumPy ignores it.
    """

    def __init__(self, torch: Any = None, device: Any = "cpu") -> None:
        self.torch, self.device = torch, device

    def zeros(self, shape: Any, dtype: str = "float64") -> Any:
        """Return an array of zeros, a NumPy array or a torch tensor on the device of these operations.

        Args:
            shape: The shape, a tuple or a length.
            dtype: The name of the type, such as "float64" or "float32".
        """
        return (
            np.zeros(shape, dtype)
            if self.torch is None
            else self.torch.zeros(shape, dtype=getattr(self.torch, dtype), device=self.device)
        )

    def put(self, a: np.ndarray) -> Any:
        """Return a NumPy array as an array of the backend: the array itself in NumPy, or a torch tensor of the same type on the device."""
        return a if self.torch is None else self.torch.as_tensor(a, device=self.device)

    def numpy(self, a: Any) -> np.ndarray:
        """Return an array of the backend, a NumPy array or a torch tensor, as a NumPy array in main memory; it may share the memory of `a`."""
        return np.asarray(a if self.torch is None else a.cpu())

    def moments(self, columns: Columns, rows: Sequence[Any], paths: int) -> np.ndarray:
        """Return the moments (means and sums of products about them) of each leaf, 256 consecutive paths, at one recorded step.

        Args:
            columns: The statistics, `records.SINGLE` for one dynamics or `records.PAIR` for two.
            rows: The record, arrays of the backend with `paths` numbers each: for each observable or functional one, h(x), or three for a pair,
                h(x), h(z) and the control variate C.
            paths: The number of paths, counted from the first path of the first leaf.

        Returns:
            A float64 NumPy array `(leaves, quantities, statistics)`; the last leaf may have fewer than 256 paths.
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
    """Advance paths to every step at which something is recorded or stored, and give the records one by one.

    Anchors of the control variate are taken on the way.

    Args:
        program: The simulation.
        paths: The paths, at their start; they are advanced in place.
        more: Further steps, from 0 to `program.steps`, at which the caller wants to look at the paths.

    Yields:
        Pairs (k, record), in increasing order of the step k: for each recorded step, each step of an anchor and each of `more`. The record has the
        rows `(rows, paths)` of `MovingPaths.recorded`, or is None where step k is not recorded. While the caller has a pair, the state of the paths
        is the one before step k.
    """
    control, record, kept = program.control, {int(k): t for t, k in enumerate(program.record)}, {}
    anchors = () if control is None else np.flatnonzero(control.anchor_slot >= 0).tolist()
    still = False
    for k in sorted({*record, *anchors, *more}):
        if not still:
            paths.advance(k)
        if control is not None and k in anchors:
            kept[control.anchor_slot[k]] = paths.anchor(control.memory[k])
        if k not in record:
            yield k, None
        elif control is None:
            rows = paths.recorded(None, 0.0, 0.0)
            still = program.stop is not None and bool((rows[program.stop] == 1.0).all())
            yield k, rows
        else:
            t = record[k]
            yield k, paths.recorded(kept[control.slot[t]], control.factor[t], control.fading[t])


class ChunkBatches:
    """The base class of the backends without a compiled CPU kernel: it runs the chunks of a task, a batch of consecutive chunks at a time.

    A chunk is a set of consecutive paths. A subclass must implement `paths`, which starts the paths of a batch and returns a `MovingPaths`, and
    a constructor whose only argument is a task; it may set `on_device` and `longest_rows`. Moments are those of chunks, so results do not depend
    on the batch.

    Args:
        task: A task without a kernel, which contains the program.
        most: The largest number of paths of a batch; a batch has at least one chunk, even if the chunk is larger.
        arrays: The array operations of the backend.
    """

    on_device: ClassVar[bool] = True
    """Whether one device runs all chunks of a task; otherwise threads or the workers of an executor run them, one chunk a call."""
    longest_rows: ClassVar[int] = 1
    """The number of leaves (256 paths each) of a chunk beyond which longer arrays are not more efficient."""

    def __init__(self, task: ChunkTask, most: int, arrays: Arrays) -> None:
        assert task.program is not None
        self.task, self.program, self.arrays = task, task.program, arrays
        self.most = max(1, most // (task.layout.size * LEAF))

    def paths(self, first: int, count: int) -> MovingPaths:
        """Return paths at their start, as an object of `MovingPaths` that advances them together; every subclass implements this.

        Args:
            first: The index of the first path.
            count: The number of paths; their indices are `first` to `first + count - 1`.
        """
        raise NotImplementedError

    def results(self, waiting: Iterable[int]) -> Iterator[tuple[int, ChunkResult]]:
        """Run chunks, sets of consecutive paths, and give their results one by one.

        Batches form a fixed grid: each has the same number of consecutive chunks (the last one may have fewer), whatever `waiting` is. All chunks of a
        batch are run even if only some are wanted, because the last bits of a matrix product depend on its width.

        Args:
            waiting: The indices of the wanted chunks, in increasing order.

        Yields:
            Pairs (index of a chunk, its result), in the order of `waiting`.
        """
        for at, own in groupby(waiting, lambda index: index // self.most * self.most):
            wanted, batch = set(own), range(at, min(at + self.most, self.task.layout.chunks))
            yield from ((index, result) for index, result in zip(batch, self.run(batch)) if index in wanted)

    def run(self, batch: Sequence[int]) -> list[ChunkResult]:
        """Run consecutive chunks of paths together and return a list of their results, a `ChunkResult` for each, in order.

        Args:
            batch: The indices of the chunks, consecutive and in increasing order.
        """
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
        """Return which paths are not finite now, a boolean array `(paths,)` for each of the dynamics."""
        return [paths.diverged(i) for i in range(len(self.program.members))]

    def _first_divergence(self, index: int, checked: np.ndarray) -> np.ndarray:
        """Return the exact divergence times of a chunk, by a rerun of its paths with a check after every step.

        Args:
            index: The index of the chunk.
            checked: For each member, the step of the check that found a diverged path, or `NEVER`. The rerun ends at the latest of them.

        Returns:
            For each member, the smallest k such that a path is not finite after k steps, or `NEVER`: an integer array `(members,)`.
        """
        chunk = self.task.layout.chunk(index)
        paths, found = self.paths(chunk.first, chunk.paths), np.full(len(self.program.members), NEVER)
        for k in range(1, int(checked[checked != NEVER].max()) + 1):
            paths.advance(k)
            for i, own in enumerate(self._diverged(paths)):
                found[i] = k if found[i] == NEVER and own.any() else found[i]
        return found
