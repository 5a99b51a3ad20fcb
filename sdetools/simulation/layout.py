"""The division of a run's leaves into chunks, the units of work; it affects the speed of a run, and no bit of its result.

A leaf is 256 paths with consecutive indices (the last leaf of a run may have fewer); a group is some consecutive leaves, and a run has at
most 256 groups of equal length (the last one may be shorter). The tree of nodes over the leaves of a group is that of `records`.
"""

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
    """A chunk of a run: consecutive paths, and the nodes of the tree whose moments it computes.

    A leaf is 256 consecutive paths (the last one of a run may have fewer), a group is consecutive leaves, and a node is consecutive leaves of
    one group. The nodes of a group form a binary tree, along which moments are joined: node i of level l covers the leaves i 2^l to
    (i + 1) 2^l - 1 of the group. A chunk covers one or more whole groups, with one node (the root) for each, or some leaves of one group, with
    one node.

    Attributes:
        first: The index of its first path.
        paths: The number of its paths.
        group: The index of its first group.
        level: The level l of its nodes in the tree; a node of level l covers up to 2^l leaves.
        index: The position i of its node among the nodes of this level in the group; 0 for whole groups.
        lengths: The number of leaves of each node, in order.
    """

    first: int
    paths: int
    group: int
    level: int
    index: int
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The division of a run into chunks, as a function of the number of paths and the wanted size of a chunk alone.

    A leaf is 256 consecutive paths, and a group is ceil(leaves / 256) consecutive leaves. A chunk is a number of whole groups, or 2^l leaves within
    a group that begin at a multiple of 2^l: the largest such unit with at most `wanted` leaves.

    Attributes:
        paths: The number of paths of the run.
        wanted: The largest number of leaves of a chunk, at least 1.

    Example:
        >>> layout = Layout(paths=1000, wanted=2)
        >>> layout.leaves, layout.chunks, [layout.chunk(i).paths for i in range(layout.chunks)]
        (4, 2, [512, 488])
    """

    paths: int
    wanted: int

    @cached_property
    def leaves(self) -> int:
        """The number of leaves of the run, ceil(paths / 256): a leaf is 256 consecutive paths, and the last one may have fewer."""
        return -(-self.paths // LEAF)

    @cached_property
    def span(self) -> int:
        """The number of leaves (256 paths each) of a group, ceil(leaves / 256), so that there are at most 256 groups; the last may have fewer."""
        return span(self.leaves)

    @cached_property
    def whole(self) -> int:
        """The number of whole groups of leaves (256 paths each) that a chunk, the unit of work, covers; 0 if a group has several chunks."""
        return self.wanted // self.span

    @cached_property
    def level(self) -> int:
        """The level l of the nodes that chunks compute, in the binary tree over a group's leaves (256 paths each): a node covers up to 2^l leaves."""
        return (self.span - 1).bit_length() if self.whole else self.wanted.bit_length() - 1

    @cached_property
    def size(self) -> int:
        """The number of leaves (256 paths each) of a chunk, the unit of work; the last chunk of a group or of the run may have fewer."""
        return self.whole * self.span or 1 << self.level

    @cached_property
    def _row(self) -> int:
        """The number of leaves of a row: of the whole groups that one chunk covers, or of the one group that several chunks share."""
        return max(1, self.whole) * self.span

    @cached_property
    def _per_row(self) -> int:
        """The number of chunks of the leaves counted by `_row`: 1 if a chunk covers whole groups, otherwise the number of chunks of a group."""
        return -(-self._row // self.size)

    @cached_property
    def chunks(self) -> int:
        """The number of chunks, the units of work, into which the run is divided."""
        rows, rest = divmod(self.leaves, self._row)
        return rows * self._per_row + -(-rest // self.size)

    def holding(self, path: Any) -> Any:
        """Return the index of the chunk, the unit of work, that contains a path.

        Args:
            path: The index of a path, or an integer array of indices, from 0 to `paths - 1`; others are not refused.

        Returns:
            The index of the chunk, or an integer array of the same shape.
        """
        leaf = path // LEAF
        return leaf // self._row * self._per_row + leaf % self._row // self.size

    def chunk(self, index: int) -> Chunk:
        """Return a chunk of the run: the range of its paths, and which nodes of the tree of moments it computes.

        Args:
            index: The index of the chunk, from 0 to `chunks - 1`; an index outside this range is not refused.
        """
        row, at = divmod(index, self._per_row)
        leaf = row * self._row + at * self.size
        until = min(leaf + self.size, (row + 1) * self._row, self.leaves)
        lengths = tuple(min(self.span, until - start) for start in range(leaf, until, self.span))
        first = leaf * LEAF
        return Chunk(first, min(until * LEAF, self.paths) - first, row * max(1, self.whole), self.level, at, lengths)


def wanted_leaves(paths: int, work: float, least: int = 1, most: int | None = None) -> int:
    """Return the number of leaves (256 paths each) that a chunk should have; it depends on the arguments alone, and never on a clock.

    A chunk is a group (ceil(leaves / 256) leaves) where a group takes between 2^22 (`LEAST_WORK`) and 2^28 (`MOST_WORK`) operations. Otherwise it
    has the number of leaves that takes the nearer of the two bounds. The number is doubled while there are more than 2^17 (`MOST_CHUNKS`) chunks.

    Args:
        paths: The number of paths of the run.
        work: The operations of one path over all steps, at least 1; an operation is about a nanosecond.
        least: The least number of leaves, for backends that store all paths of a chunk at once.
        most: The largest number of leaves, for the same backends; it wins over `least` and over `MOST_CHUNKS`. None for no limit.

    Returns:
        A number of leaves, at least 1, to be passed as `Layout.wanted`; a chunk may have fewer.
    """
    leaves = -(-paths // LEAF)
    wanted = min(max(span(leaves), LEAST_WORK / (LEAF * work)), MOST_WORK / (LEAF * work))
    wanted = max(1, int(wanted), least)
    while Layout(paths, wanted).chunks > MOST_CHUNKS:
        wanted *= 2
    return wanted if most is None else min(wanted, most)
