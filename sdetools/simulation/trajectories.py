"""Stored states: rows of the state at selected steps, of all paths or of selected paths.

A path is a function of its address. So the main run stores nothing for selected paths. Afterwards the blocks that contain them
are run again, with the same width and alignment, and give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sdetools.simulation.layout import Chunk, Layout
from sdetools.simulation.program import Program


@dataclass(frozen=True)
class Points:
    """The states to be stored: some rows of the state at some steps, for all paths (main run) or for selected paths (rerun).

    Attributes:
        steps: The steps, an integer array `(steps,)` in increasing order; a state is the one before its step, so step 0 is the start.
        rows: The indices of the wanted rows of the stacked state, an integer array `(rows,)`, such as `Program.state_rows` flattened (position,
            momentum, ... of each dynamics); -1 stands for a coordinate of a part, such as the momentum, that one of the dynamics lacks.
        chosen: The indices of the selected paths, an integer array in increasing order; None for all paths.
    """

    steps: np.ndarray
    rows: np.ndarray
    chosen: np.ndarray | None = None

    @cached_property
    def slot(self) -> dict[int, int]:
        """A dictionary from each step at which states are stored to its position along the first axis of the stored arrays."""
        return {int(k): t for t, k in enumerate(self.steps)}

    @cached_property
    def real(self) -> np.ndarray:
        """The numbers of the stored rows of the state, an integer array `(existing rows,)`: `rows` without the entries -1."""
        return self.rows[self.rows >= 0]

    def picked(self, chunk: Chunk) -> np.ndarray:
        """Return the paths of a chunk (a set of consecutive paths) that are stored, as positions in the chunk, 0 for its first path.

        The result is an integer array in increasing order. Without selected paths these are all paths of the chunk, or none if no step is stored.
        """
        if self.chosen is None:
            return np.arange(chunk.paths if len(self.steps) else 0)
        return self.chosen[self._columns(chunk)] - chunk.first

    def empty(self, picked: np.ndarray) -> np.ndarray:
        """Return an uninitialised float64 array `(steps, existing rows, paths)` for the stored states of one chunk.

        Args:
            picked: The paths of the chunk, as `picked` returns them; only their number matters.
        """
        return np.empty((len(self.steps), len(self.real), len(picked)))

    def take(self, points: np.ndarray, k: int, picked: np.ndarray, state: Callable[[np.ndarray, np.ndarray], Any]) -> None:
        """Store the state before step k in the array of a chunk, if that step is to be stored; do nothing otherwise.

        Args:
            points: The array `(steps, existing rows, paths)` of the chunk, made by `empty`; it is updated.
            k: The present step.
            picked: Positions of the stored paths, 0 for the first path that is simulated; with none, nothing is stored.
            state: A function of indices of rows `(rows, 1)` and positions `(paths,)` that returns the present state there, `(rows, paths)`, such as
                `MovingPaths.rows_of`.
        """
        if k in self.slot and len(picked):
            points[self.slot[k]] = state(self.real[:, None], picked)

    def whole(self, paths: int) -> np.ndarray:
        """Return a float64 array `(steps, rows, stored paths)` for the stored states of a run, filled with NaN.

        Rows that do not exist (-1 in `rows`, such as the momentum of plain SGD) stay NaN.

        Args:
            paths: The number of paths of the run, all of which are stored unless some are selected.
        """
        stored = paths if self.chosen is None else len(self.chosen)
        return np.full((len(self.steps), len(self.rows), stored if len(self.steps) else 0), np.nan)

    def put(self, whole: np.ndarray, chunk: Chunk, points: np.ndarray) -> None:
        """Copy the stored states of a chunk to their place in the array of the run.

        Args:
            whole: The array `(steps, rows, stored paths)` of the run, made by the method `whole`; it is updated.
            chunk: The chunk, a set of consecutive paths of the run.
            points: Its stored states, `(steps, existing rows, stored paths of the chunk)`.
        """
        if len(self.steps):
            whole[:, self.rows >= 0, self._columns(chunk)] = points

    def chunks(self, layout: Layout) -> Sequence[int]:
        """Return the indices of the chunks, the units of work of a run, that contain selected paths, as a list in increasing order.

        Call it only if `chosen` is not None.

        Args:
            layout: The division of the run into chunks.
        """
        assert self.chosen is not None
        return np.unique(layout.holding(self.chosen)).tolist()

    def _columns(self, chunk: Chunk) -> slice:
        """Return the range of a chunk's stored paths along the last axis of the array of the run, as a slice."""
        ends = chunk.first, chunk.first + chunk.paths
        return slice(*(ends if self.chosen is None else np.searchsorted(self.chosen, ends).tolist()))


def stored(program: Program, keep: bool = False, slices: Sequence[int] = (), sums: bool = False) -> Points:
    """Return the states that the main run stores.

    Args:
        program: The simulation.
        keep: Whether to store the positions of all dynamics after the last step.
        slices: Steps at which the whole state of all paths is stored.
        sums: Whether `slices` are steps at which the sums of functionals are stored instead, of all paths as well; then `keep` must be False.

    Returns:
        The description of these states. Its steps are `slices` in increasing order, without repetition, and the last step if `keep`. Its rows
        are the sums of functionals if `sums`; otherwise the whole state with `slices` (also at the last step), else the positions. Without slices
        and `keep`, no steps and no rows.
    """
    steps = np.union1d(np.asarray(slices, np.int64), [program.steps] * keep).astype(np.int64)
    rows = program.sum_rows if sums else program.state_rows.ravel() if len(slices) else program.positions
    return Points(steps, rows if len(steps) else rows[:0])


def chosen(program: Program, paths: np.ndarray) -> Points:
    """Return the states that the rerun stores: the whole state of the selected paths at all recorded steps.

    Args:
        program: The simulation.
        paths: The indices of the selected paths, an integer array in any order; the result has them in increasing order.
    """
    return Points(program.record, program.state_rows.ravel(), np.sort(paths))
