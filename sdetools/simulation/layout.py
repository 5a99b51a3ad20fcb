"""How a run's leaves are shared out to chunks, the units of work: tuning alone, for no bit of a result depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sdetools.simulation.records import LEAF, span

LEAST_WORK, MOST_WORK = 1 << 22, 1 << 28
"""Operations of a chunk, about a nanosecond each: enough to be worth handing out, and about a third of a second."""
MOST_CHUNKS = 1 << 17
"""So that what is done once a chunk, by one process, stays below minutes, and a store below gigabytes."""
MOST_ROWS = 64
"""Leaves at once for backends that hold all paths of a chunk in rows (NumPy, torch)."""


@dataclass(frozen=True)
class Chunk:
    """Chunk `index`: its first path, how many, and the nodes it gives: level and index in the first group, and their leaves, one a group."""

    first: int
    paths: int
    group: int
    level: int
    index: int
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """`paths` paths in chunks of at most `wanted` leaves: of whole groups, or of an aligned power of two of them within a group.

    The unit is rounded down to one of these; it is a function of the two numbers alone.
    """

    paths: int
    wanted: int

    @cached_property
    def leaves(self) -> int:
        """Leaves of the run."""
        return -(-self.paths // LEAF)

    @cached_property
    def span(self) -> int:
        """Leaves of a group."""
        return span(self.leaves)

    @cached_property
    def whole(self) -> int:
        """Groups of a chunk; 0 where a group has several chunks."""
        return self.wanted // self.span

    @cached_property
    def level(self) -> int:
        """The level of a chunk's nodes."""
        return (self.span - 1).bit_length() if self.whole else self.wanted.bit_length() - 1

    @cached_property
    def size(self) -> int:
        """Leaves of a chunk; the last one of a group or run may have fewer."""
        return self.whole * self.span or 1 << self.level

    @cached_property
    def _row(self) -> int:
        """Leaves of the groups that chunks share out: of those of one chunk, or of one group."""
        return max(1, self.whole) * self.span

    @cached_property
    def _per_row(self) -> int:
        return -(-self._row // self.size)

    @cached_property
    def chunks(self) -> int:
        """Chunks of the run."""
        rows, rest = divmod(self.leaves, self._row)
        return rows * self._per_row + -(-rest // self.size)

    def holding(self, path: Any) -> Any:
        """The index of the chunk that holds a path, or of those that hold an array of paths."""
        leaf = path // LEAF
        return leaf // self._row * self._per_row + leaf % self._row // self.size

    def chunk(self, index: int) -> Chunk:
        """Which paths, and which nodes, chunk `index` is."""
        row, at = divmod(index, self._per_row)
        leaf = row * self._row + at * self.size
        until = min(leaf + self.size, (row + 1) * self._row, self.leaves)
        lengths = tuple(min(self.span, until - start) for start in range(leaf, until, self.span))
        first = leaf * LEAF
        return Chunk(first, min(until * LEAF, self.paths) - first, row * max(1, self.whole), self.level, at, lengths)


def wanted_leaves(paths: int, work: float, least: int = 1, most: int | None = None) -> int:
    """Leaves of a chunk of paths that take `work` operations each, a function of these numbers and never of a clock.

    A group is a chunk where that is between `LEAST_WORK` and `MOST_WORK` operations: more only for the sake of `MOST_CHUNKS`. Backends that
    hold all paths of a chunk at once give bounds in leaves; `most` comes before `MOST_CHUNKS`.
    """
    leaves = -(-paths // LEAF)
    wanted = min(max(span(leaves), LEAST_WORK / (LEAF * work)), MOST_WORK / (LEAF * work))
    wanted = max(1, int(wanted), least)
    while Layout(paths, wanted).chunks > MOST_CHUNKS:
        wanted *= 2
    return wanted if most is None else min(wanted, most)
