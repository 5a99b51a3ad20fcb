"""What is kept of paths: moments of leaves, and the fixed tree along which they are joined.

A leaf is `LEAF` consecutive paths. Leaves are numbered by path index and shared out to at most `GROUPS` groups of consecutive leaves. Within
a group node (level l, index i) covers the leaves at positions i 2^l ... (i + 1) 2^l - 1, as far as the group has them: it is the join of
nodes (l - 1, 2i) and (l - 1, 2i + 1), or the first of them alone where the group ends before the second. So a node's bits depend on its
leaves alone: not on the size of chunks, their order of arrival, or who computed them. Kernels join by `library`, all else by
`joined`; both evaluate `weights`, `mean` and `product` operation by operation, so both give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

LEAF = 256
"""Paths of a leaf."""
GROUPS = 256
"""At most so many groups in a run: what bands and bootstraps resample."""


@dataclass(frozen=True, eq=False)
class Columns:
    """The names of statistics in their order along the last axis of moments.

    `products` maps the name of a sum of products about means to those two means; every other name is a mean.
    """

    names: tuple[str, ...]
    products: Mapping[str, tuple[str, str]]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Where a statistic lies."""
        return self.names.index(name)

    def by_name(self, moments: np.ndarray) -> dict[str, np.ndarray]:
        """Views of the statistics of moments `(..., statistics)`."""
        return {name: moments[..., i] for i, name in enumerate(self.names)}

    @cached_property
    def means(self) -> tuple[str, ...]:
        """The names of means, in order."""
        return tuple(n for n in self.names if n not in self.products)

    @cached_property
    def table(self) -> np.ndarray:
        """Of each statistic the places of the two means that its product is about, -1 for a mean: `(statistics, 2)`."""
        about = [self.products.get(n) for n in self.names]
        return np.array([[self.index(p[0]), self.index(p[1])] if p else [-1, -1] for p in about], np.int64)

    @cached_property
    def places(self) -> tuple[np.ndarray, ...]:
        """Where means lie along the last axis, and where products do; of each product the numbers of its two means among the means."""
        means, products = np.flatnonzero(self.table[:, 0] < 0), np.flatnonzero(self.table[:, 0] >= 0)
        return means, products, *np.searchsorted(means, self.table[products]).T


SINGLE = Columns(("h", "h2"), {"h2": ("h", "h")})
"""Mean of h, and the sum of squares about it."""
PAIR = Columns(
    ("x", "z", "d", "x2", "z2", "d2", "c", "c2", "dc"),
    {"x2": ("x", "x"), "z2": ("z", "z"), "d2": ("d", "d"), "c2": ("c", "c"), "dc": ("d", "c")},
)
"""The means of h(x), h(z), d = h(x) - h(z) and the control C, and the sums of squares and of d C about those means."""


# The update of Chan, Golub and LeVeque (1983). These three run on arrays here and on numbers in `library`.


def weights(left: Any, right: Any) -> Any:
    """Of nodes of so many paths: by what share of their distance the mean moves, and the weight of products of distances."""
    share = right / (left + right)
    return share, left * share


def mean(left: Any, step: Any, share: Any) -> Any:
    """The mean of both nodes; `step` is the right one's less the left one's."""
    return left + share * step


def product(left: Any, right: Any, weight: Any, first: Any, second: Any) -> Any:
    """The sum of products about the means of both nodes; `first` and `second` are the steps of its two means."""
    return (left + right) + (weight * first) * second


def joined(columns: Columns, left: np.ndarray, n_left: Any, right: np.ndarray, n_right: Any) -> np.ndarray:
    """Moments `(..., statistics)` of two nodes together, or of many pairs of nodes at once (numbers of paths then are arrays)."""
    means, products, first, second = columns.places
    out = np.empty_like(left)
    with np.errstate(all="ignore"):  # moments of lost paths are not finite, and stay so
        share, weight = weights(n_left, n_right)
        start = left.take(means, -1)
        step = right.take(means, -1) - start
        out[..., means] = mean(start, step, share)
        a, b = left.take(products, -1), right.take(products, -1)
        out[..., products] = product(a, b, weight, step.take(first, -1), step.take(second, -1))
    return out


# -- leaves, many at once -------------------------------------------------------------------------------------------------------


def folded(values: Any) -> Any:
    """Sums over the last axis, whose length is a power of two, by halves: the same bits in NumPy and torch, on any device."""
    while (half := values.shape[-1] // 2) > 0:
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


def of_leaves(columns: Columns, rows: Any, counts: Any) -> list[Any]:
    """The statistics of leaves, one array of leaves each, from the rows `(means, leaves, LEAF)`, arrays of NumPy or torch.

    `counts` are the paths of each leaf; lanes beyond them, in the last leaf, are left out. Values are taken about each leaf's first one, so a
    spread far below the value keeps its digits, and equal values have a spread of exactly zero.
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
    """Paths of each leaf."""
    return np.minimum(LEAF, paths - LEAF * np.arange(-(-paths // LEAF)))


class Trees:
    """Joins consecutive leaves to nodes of given lengths, all nodes at once: the same tree, level by level."""

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
        """Moments of the nodes from those of the leaves, `(leaves, quantities, statistics)`, which are overwritten."""
        for left, right, n_left, n_right in self.joins:
            moments[left] = joined(columns, moments[left], n_left, moments[right], n_right)
        return moments[self.starts]


# -- nodes, in any order --------------------------------------------------------------------------------------------------------


class Tree:
    """Joins nodes of all groups to the groups' roots, in any order of arrival.

    What waits is what has no sibling yet: if nodes are handed out in order with W of them out at a time, at most W times the levels.
    """

    def __init__(self, columns: Columns, leaves: int) -> None:
        self.columns, self.leaves = columns, leaves
        self.span = span(leaves)
        self.top = (self.span - 1).bit_length()
        self.waiting: dict[tuple[int, int, int], tuple[np.ndarray, int]] = {}

    def add(self, group: int, level: int, index: int, moments: np.ndarray, count: int) -> tuple[np.ndarray, int] | None:
        """Takes node (level, index) of a group, of `count` paths; gives the group's root if that is complete now."""
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
    """Leaves of a group."""
    return -(-leaves // GROUPS)
