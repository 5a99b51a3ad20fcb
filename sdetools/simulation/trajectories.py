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
    """The states to be stored: rows of the state at some steps, for all paths (main run) or for selected paths (rerun).

    Attributes:
        steps: The steps, in increasing order.
        rows: The rows of the state (`Program.state_rows`); -1 for a part that a member lacks.
        chosen: The selected paths, in increasing order; None for all paths.
    """

    steps: np.ndarray
    rows: np.ndarray
    chosen: np.ndarray | None = None

    @cached_property
    def slot(self) -> dict[int, int]:
        """The position of each step in the stored array."""
        return {int(k): t for t, k in enumerate(self.steps)}

    @cached_property
    def real(self) -> np.ndarray:
        """The rows that exist."""
        return self.rows[self.rows >= 0]

    def picked(self, chunk: Chunk) -> np.ndarray:
        """Returns the paths of a chunk that are stored, relative to its first path."""
        if self.chosen is None:
            return np.arange(chunk.paths if len(self.steps) else 0)
        return self.chosen[self._columns(chunk)] - chunk.first

    def empty(self, picked: np.ndarray) -> np.ndarray:
        """Returns an uninitialised array for the stored states of some paths of a chunk."""
        return np.empty((len(self.steps), len(self.real), len(picked)))

    def take(self, points: np.ndarray, k: int, picked: np.ndarray, state: Callable[[np.ndarray, np.ndarray], Any]) -> None:
        """Stores the state before step k, if that step is to be stored.

        Args:
            points: The array of the chunk; it is updated.
            k: The step.
            picked: The paths, relative to the first one.
            state: A function of rows and paths that returns the state.
        """
        if k in self.slot and len(picked):
            points[self.slot[k]] = state(self.real[:, None], picked)

    def whole(self, paths: int) -> np.ndarray:
        """Returns an array for the stored states of a run; NaN in rows that do not exist."""
        stored = paths if self.chosen is None else len(self.chosen)
        return np.full((len(self.steps), len(self.rows), stored if len(self.steps) else 0), np.nan)

    def put(self, whole: np.ndarray, chunk: Chunk, points: np.ndarray) -> None:
        """Copies the stored states of a chunk to their position in the array of the run."""
        if len(self.steps):
            whole[:, self.rows >= 0, self._columns(chunk)] = points

    def chunks(self, layout: Layout) -> Sequence[int]:
        """Returns the indices of the chunks that contain selected paths."""
        assert self.chosen is not None
        return np.unique(layout.holding(self.chosen)).tolist()

    def _columns(self, chunk: Chunk) -> slice:
        """Returns the columns of a chunk's paths in the array of the run."""
        ends = chunk.first, chunk.first + chunk.paths
        return slice(*(ends if self.chosen is None else np.searchsorted(self.chosen, ends).tolist()))


def stored(program: Program, keep: bool = False, slices: Sequence[int] = ()) -> Points:
    """Returns the states that the main run stores.

    Args:
        program: The simulation.
        keep: Whether to store the final positions.
        slices: Steps at which the whole state of all paths is stored.

    Returns:
        The states to be stored.
    """
    steps = np.union1d(np.asarray(slices, np.int64), [program.steps] * keep).astype(np.int64)
    rows = program.state_rows.ravel() if len(slices) else program.positions
    return Points(steps, rows if len(steps) else rows[:0])


def chosen(program: Program, paths: np.ndarray) -> Points:
    """Returns the states that the rerun stores: the whole state of the selected paths at the recorded steps."""
    return Points(program.record, program.state_rows.ravel(), np.sort(paths))
