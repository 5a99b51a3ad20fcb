"""The division of a run's leaves into chunks, the units of work; it affects the speed of a run, and no bit of its result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sdetools.simulation.records import LEAF, span

LEAST_WORK, MOST_WORK = 1 << 22, 1 << 28
"""Bounds on the operations of a chunk, about a nanosecond each: long enough to justify a task, and a third of a second."""
MOST_CHUNKS = 1 << 17
"""The largest number of chunks: per-chunk work in one process then takes at most minutes, and a store at most gigabytes."""
MOST_ROWS = 64
"""The largest number of leaves of a chunk on backends that store all paths of a chunk in rows (NumPy, torch)."""


@dataclass(frozen=True)
class Chunk:
    """A chunk: its paths, and the nodes of the tree that it computes, one for each of its groups.

    Attributes:
        first: The index of its first path.
        paths: The number of its paths.
        group: Its first group.
        level: The level of its nodes.
        index: The index of its node within the level and the first group.
        lengths: The number of leaves of each node.
    """

    first: int
    paths: int
    group: int
    level: int
    index: int
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The division of `paths` paths into chunks of at most `wanted` leaves.

    A chunk is a number of whole groups, or an aligned power of two of leaves within a group: the largest such unit with at most
    `wanted` leaves. It is a function of these two numbers alone.

    Attributes:
        paths: The number of paths.
        wanted: The largest number of leaves of a chunk.
    """

    paths: int
    wanted: int

    @cached_property
    def leaves(self) -> int:
        """The number of leaves, blocks of up to 256 consecutive paths, whose moments are joined along the tree of `records`."""
        return -(-self.paths // LEAF)

    @cached_property
    def span(self) -> int:
        """The number of leaves of a group."""
        return span(self.leaves)

    @cached_property
    def whole(self) -> int:
        """The number of groups of a chunk; 0 if a group has several chunks."""
        return self.wanted // self.span

    @cached_property
    def level(self) -> int:
        """The level of a chunk's nodes."""
        return (self.span - 1).bit_length() if self.whole else self.wanted.bit_length() - 1

    @cached_property
    def size(self) -> int:
        """The number of leaves of a chunk; the last chunk of a group or run may have fewer."""
        return self.whole * self.span or 1 << self.level

    @cached_property
    def _row(self) -> int:
        """The number of leaves of the groups of a chunk, or of the group that several chunks share."""
        return max(1, self.whole) * self.span

    @cached_property
    def _per_row(self) -> int:
        """The number of chunks for these leaves."""
        return -(-self._row // self.size)

    @cached_property
    def chunks(self) -> int:
        """The number of chunks of the run."""
        rows, rest = divmod(self.leaves, self._row)
        return rows * self._per_row + -(-rest // self.size)

    def holding(self, path: Any) -> Any:
        """Returns the index of the chunk that contains a path, or the indices for an array of paths."""
        leaf = path // LEAF
        return leaf // self._row * self._per_row + leaf % self._row // self.size

    def chunk(self, index: int) -> Chunk:
        """Returns the paths and the nodes of chunk `index`."""
        row, at = divmod(index, self._per_row)
        leaf = row * self._row + at * self.size
        until = min(leaf + self.size, (row + 1) * self._row, self.leaves)
        lengths = tuple(min(self.span, until - start) for start in range(leaf, until, self.span))
        first = leaf * LEAF
        return Chunk(first, min(until * LEAF, self.paths) - first, row * max(1, self.whole), self.level, at, lengths)


def wanted_leaves(paths: int, work: float, least: int = 1, most: int | None = None) -> int:
    """Returns the number of leaves of a chunk; it depends on the arguments alone, and never on a clock.

    A group is a chunk if it takes between `LEAST_WORK` and `MOST_WORK` operations. Larger chunks are used only to keep
    `MOST_CHUNKS`.

    Args:
        paths: The number of paths of the run.
        work: The operations of a path.
        least: The least number of leaves, for backends that store all paths of a chunk at once.
        most: The largest number of leaves, likewise; it takes precedence over `MOST_CHUNKS`.

    Returns:
        The number of leaves.
    """
    leaves = -(-paths // LEAF)
    wanted = min(max(span(leaves), LEAST_WORK / (LEAF * work)), MOST_WORK / (LEAF * work))
    wanted = max(1, int(wanted), least)
    while Layout(paths, wanted).chunks > MOST_CHUNKS:
        wanted *= 2
    return wanted if most is None else min(wanted, most)
