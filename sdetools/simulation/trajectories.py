"""What is stored of paths beside their moments: rows of the state at some steps, of all paths or of chosen ones.

A path is a function of its address. So while moments are made nothing is stored for the sake of chosen paths: afterwards the blocks that
hold them are run once more, as wide and as aligned as before, and give the same bits.
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
    """Rows `rows` of the state (`Program.state_rows`; -1 for one that no member has) at the steps `steps`, which increase.

    Of all paths, in the run that makes moments; or of the paths `chosen`, which increase, in a run that makes nothing else.
    """

    steps: np.ndarray
    rows: np.ndarray
    chosen: np.ndarray | None = None

    @cached_property
    def slot(self) -> dict[int, int]:
        """Where each step is stored."""
        return {int(k): t for t, k in enumerate(self.steps)}

    @cached_property
    def real(self) -> np.ndarray:
        """The rows that there are."""
        return self.rows[self.rows >= 0]

    def picked(self, chunk: Chunk) -> np.ndarray:
        """The paths of a chunk that are stored, counted from its first."""
        if self.chosen is None:
            return np.arange(chunk.paths if len(self.steps) else 0)
        return self.chosen[self._columns(chunk)] - chunk.first

    def empty(self, picked: np.ndarray) -> np.ndarray:
        """Room for what is stored of some paths."""
        return np.empty((len(self.steps), len(self.real), len(picked)))

    def take(self, points: np.ndarray, k: int, picked: np.ndarray, state: Callable[[np.ndarray, np.ndarray], Any]) -> None:
        """Stores what `state(rows, paths)` gives before step k, if that is one to store."""
        if k in self.slot and len(picked):
            points[self.slot[k]] = state(self.real[:, None], picked)

    def whole(self, paths: int) -> np.ndarray:
        """Room for what is stored in a run; not a number where there is no such row."""
        stored = paths if self.chosen is None else len(self.chosen)
        return np.full((len(self.steps), len(self.rows), stored if len(self.steps) else 0), np.nan)

    def put(self, whole: np.ndarray, chunk: Chunk, points: np.ndarray) -> None:
        """Puts what a chunk stored at its place."""
        if len(self.steps):
            whole[:, self.rows >= 0, self._columns(chunk)] = points

    def chunks(self, layout: Layout) -> Sequence[int]:
        """The chunks that hold chosen paths."""
        assert self.chosen is not None
        return np.unique(layout.holding(self.chosen)).tolist()

    def _columns(self, chunk: Chunk) -> slice:
        ends = chunk.first, chunk.first + chunk.paths
        return slice(*(ends if self.chosen is None else np.searchsorted(self.chosen, ends).tolist()))


def stored(program: Program, keep: bool = False, slices: Sequence[int] = ()) -> Points:
    """What the run that makes moments stores: all of the state at the steps `slices`, and the last positions."""
    steps = np.union1d(np.asarray(slices, np.int64), [program.steps] * keep).astype(np.int64)
    rows = program.state_rows.ravel() if len(slices) else program.positions
    return Points(steps, rows if len(steps) else rows[:0])


def chosen(program: Program, paths: np.ndarray) -> Points:
    """What the run after it stores: all of the state of some paths at the recorded steps."""
    return Points(program.record, program.state_rows.ravel(), np.sort(paths))
