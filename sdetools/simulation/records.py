"""Moments of paths, and the fixed binary tree along which they are joined.

A leaf is `LEAF` consecutive paths. Leaves are numbered by path index and divided into at most `GROUPS` groups of consecutive
leaves. Within a group, node (level l, index i) covers the leaves at positions i 2^l ... (i + 1) 2^l - 1, as far as the group
extends. It is the join of nodes (l - 1, 2i) and (l - 1, 2i + 1), or the first of them alone if the group ends before the second. So
the bits of a node depend on its leaves alone, and not on the size of chunks, the order of arrival, or the worker. Kernels join by
`library`, everything else by `joined`. Both evaluate `weights`, `mean` and `product` operation by operation, so both give the same
bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

LEAF = 256
"""The number of paths of a leaf."""
GROUPS = 256
"""The largest number of groups of a run; groups are the units of bands and bootstraps."""


@dataclass(frozen=True, eq=False)
class Columns:
    """The names of the statistics, in their order along the last axis of moments.

    Attributes:
        names: The names.
        products: Maps the name of a sum of products about means to the names of these two means; every other name is a mean.
    """

    names: tuple[str, ...]
    products: Mapping[str, tuple[str, str]]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Returns the position of a statistic."""
        return self.names.index(name)

    def by_name(self, moments: np.ndarray) -> dict[str, np.ndarray]:
        """Returns views of the statistics of moments `(..., statistics)`."""
        return {name: moments[..., i] for i, name in enumerate(self.names)}

    @cached_property
    def means(self) -> tuple[str, ...]:
        """The names of the means, in order."""
        return tuple(n for n in self.names if n not in self.products)

    @cached_property
    def table(self) -> np.ndarray:
        """For each statistic, the positions of the two means of its product, `(statistics, 2)`; -1 for a mean."""
        about = [self.products.get(n) for n in self.names]
        return np.array([[self.index(p[0]), self.index(p[1])] if p else [-1, -1] for p in about], np.int64)

    @cached_property
    def places(self) -> tuple[np.ndarray, ...]:
        """Four arrays: the positions of means and of products, and for each product the numbers of its two means among the means."""
        means, products = np.flatnonzero(self.table[:, 0] < 0), np.flatnonzero(self.table[:, 0] >= 0)
        return means, products, *np.searchsorted(means, self.table[products]).T


SINGLE = Columns(("h", "h2"), {"h2": ("h", "h")})
"""The mean of h and the sum of squares about it."""
PAIR = Columns(
    ("x", "z", "d", "x2", "z2", "d2", "c", "c2", "dc"),
    {"x2": ("x", "x"), "z2": ("z", "z"), "d2": ("d", "d"), "c2": ("c", "c"), "dc": ("d", "c")},
)
"""The means of h(x), h(z), d = h(x) - h(z) and the control C, and the sums of squares and of d C about these means."""


# The update of Chan, Golub and LeVeque (1983). These three functions run on arrays here and on numbers in `library`.


def weights(left: Any, right: Any) -> Any:
    """Returns the weights of a join of two nodes (Chan, Golub and LeVeque 1983).

    Args:
        left: The number of paths of the left node.
        right: The number of paths of the right node.

    Returns:
        The share of the difference by which the mean moves, and the weight of products of differences.
    """
    share = right / (left + right)
    return share, left * share


def mean(left: Any, step: Any, share: Any) -> Any:
    """Returns the mean of both nodes; `step` is the right node's mean minus the left node's."""
    return left + share * step


def product(left: Any, right: Any, weight: Any, first: Any, second: Any) -> Any:
    """Returns the sum of products about the means of both nodes.

    Args:
        left: The sum of the left node.
        right: The sum of the right node.
        weight: The weight of products of differences.
        first: The difference of the first mean, right minus left.
        second: The difference of the second mean.
    """
    return (left + right) + (weight * first) * second


def joined(columns: Columns, left: np.ndarray, n_left: Any, right: np.ndarray, n_right: Any) -> np.ndarray:
    """Returns the moments of the union of two nodes, or of many pairs of nodes at once.

    Args:
        columns: The statistics.
        left: Moments of the left node, `(..., statistics)`.
        n_left: Its number of paths; an array for many pairs.
        right: Moments of the right node.
        n_right: Its number of paths.

    Returns:
        Moments `(..., statistics)`.
    """
    means, products, first, second = columns.places
    out = np.empty_like(left)
    with np.errstate(all="ignore"):  # moments of diverged paths remain non-finite
        share, weight = weights(n_left, n_right)
        start = left.take(means, -1)
        step = right.take(means, -1) - start
        out[..., means] = mean(start, step, share)
        a, b = left.take(products, -1), right.take(products, -1)
        out[..., products] = product(a, b, weight, step.take(first, -1), step.take(second, -1))
    return out


# -- moments of many leaves -------------------------------------------------------------------------------------------------------


def folded(values: Any) -> Any:
    """Returns sums over the last axis by pairwise halving; the length of the axis is a power of two.

    NumPy and torch give the same bits, on any device.
    """
    while (half := values.shape[-1] // 2) > 0:
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


def of_leaves(columns: Columns, rows: Any, counts: Any) -> list[Any]:
    """Returns the statistics of leaves.

    Values are centred at the first value of each leaf. A variance far below the square of the mean keeps its digits, and equal
    values have a variance of exactly zero.

    Args:
        columns: The statistics.
        rows: The values `(means, leaves, LEAF)`, an array of NumPy or torch.
        counts: The number of paths of each leaf; lanes beyond it, in the last leaf, are ignored.

    Returns:
        One array over leaves for each statistic.
    """
    valid = int(counts[-1])
    pivot = rows[..., :1]
    own = rows - pivot
    own[:, -1, valid:] = 0.0
    shift = folded(own) / counts
    own = own - shift[..., None]
    own[:, -1, valid:] = 0.0
    about = dict(zip(columns.means, own))
    found = dict(zip(columns.means, pivot[..., 0] + shift))
    found |= {name: folded(about[a] * about[b]) for name, (a, b) in columns.products.items()}
    return [found[name] for name in columns.names]


def leaf_counts(paths: int) -> np.ndarray:
    """Returns the number of paths of each leaf."""
    return np.minimum(LEAF, paths - LEAF * np.arange(-(-paths // LEAF)))


class Trees:
    """Joins consecutive leaves to nodes of given lengths, all nodes at once, level by level.

    Args:
        lengths: The number of leaves of each node.
        paths: The number of paths of all leaves.
    """

    def __init__(self, lengths: Sequence[int], paths: int) -> None:
        self.starts = np.cumsum([0, *lengths[:-1]])
        position = np.concatenate([np.arange(n) for n in lengths])
        length = np.repeat(lengths, lengths)
        counts = leaf_counts(paths)
        self.joins = []
        width = 1
        while width < max(lengths):
            left = np.flatnonzero((position % (2 * width) == 0) & (position + width < length))
            n_left, n_right = counts[left], counts[left + width]
            self.joins.append((left, left + width, n_left[:, None, None], n_right[:, None, None]))
            counts[left] = n_left + n_right
            width *= 2
        self.counts = counts[self.starts]

    def __call__(self, columns: Columns, moments: np.ndarray) -> np.ndarray:
        """Returns the moments of the nodes from those of the leaves, `(leaves, quantities, statistics)`, which are overwritten."""
        for left, right, n_left, n_right in self.joins:
            moments[left] = joined(columns, moments[left], n_left, moments[right], n_right)
        return moments[self.starts]


# -- joins in any order --------------------------------------------------------------------------------------------------------


class Tree:
    """Joins nodes of all groups to the roots of the groups, in any order of arrival.

    Only nodes without a sibling are stored. If nodes are submitted in order, W at a time, their number is at most W times that of
    the levels.

    Args:
        columns: The statistics.
        leaves: The number of leaves of the run.
    """

    def __init__(self, columns: Columns, leaves: int) -> None:
        self.columns, self.leaves = columns, leaves
        self.span = span(leaves)
        self.top = (self.span - 1).bit_length()
        self.waiting: dict[tuple[int, int, int], tuple[np.ndarray, int]] = {}

    def add(self, group: int, level: int, index: int, moments: np.ndarray, count: int) -> tuple[np.ndarray, int] | None:
        """Adds a node, and joins it with the siblings that have arrived.

        Args:
            group: The group.
            level: The level of the node.
            index: The index of the node within its level.
            moments: Its moments.
            count: Its number of paths.

        Returns:
            The moments and the number of paths of the group's root if the group is complete, otherwise None.
        """
        own = min(self.span, self.leaves - group * self.span)
        while level < self.top:
            sibling = self.waiting.pop((group, level, index ^ 1), None)
            if sibling is not None:
                (left, n_left), (right, n_right) = (sibling, (moments, count)) if index % 2 else ((moments, count), sibling)
                moments, count = joined(self.columns, left, n_left, right, n_right), n_left + n_right
            elif index % 2 or (index + 1) << level < own:
                self.waiting[group, level, index] = moments, count
                return None
            level, index = level + 1, index // 2
        return moments, count


def span(leaves: int) -> int:
    """Returns the number of leaves of a group."""
    return -(-leaves // GROUPS)
