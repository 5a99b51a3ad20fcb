"""Moments of paths, and the fixed binary tree along which they are joined.

A leaf is `LEAF` = 256 consecutive paths; only the last leaf of a run may have fewer. Leaves are numbered by path index and divided into
at most `GROUPS` = 256 groups of consecutive leaves. Within a group, node (level l, index i) covers the leaves at positions
i 2^l ... (i + 1) 2^l - 1, as far as the group extends. It is the join of nodes (l - 1, 2i) and (l - 1, 2i + 1), or the first of them alone
if the group ends before the second. So the bits of a node depend on its leaves alone, and not on the size of chunks, the order of arrival,
or the worker. Kernels join by `library`, everything else by `joined`. Both evaluate `weights`, `mean` and `product` operation by operation,
so both give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

LEAF = 256
"""The number of paths of a leaf; only the last leaf of a run may have fewer."""
GROUPS = 256
"""The largest number of groups of a run; groups are the units of bands and bootstraps."""


@dataclass(frozen=True, eq=False)
class Columns:
    """The names of the statistics that are accumulated over paths for an observable h, in their order along the last axis of moments.

    Moments are an array `(..., statistics)` of means over paths, and of sums of products about these means. `SINGLE` and `PAIR` are the two
    instances: those of one dynamics, and of a pair. The length of the object is the number of statistics.

    Attributes:
        names: The names, such as ("h", "h2").
        products: For each name of a sum of products about means, the names of these two means: {"h2": ("h", "h")} says
            h2 = sum (h_i - mean h)^2. Every other name is a mean.
    """

    names: tuple[str, ...]
    products: Mapping[str, tuple[str, str]]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the position of a statistic along the last axis of moments `(..., statistics)`; `name` is one of `names`, else ValueError is raised."""
        return self.names.index(name)

    def by_name(self, moments: np.ndarray) -> dict[str, np.ndarray]:
        """Return the statistics of moments as a dictionary from their names, in order, to views of the array.

        Args:
            moments: An array `(..., statistics)` of accumulated statistics; the values of the dictionary have the shape `(...)`.
        """
        return {name: moments[..., i] for i, name in enumerate(self.names)}

    @cached_property
    def means(self) -> tuple[str, ...]:
        """The names of those statistics that are means, in order; the others are sums of products about means."""
        return tuple(n for n in self.names if n not in self.products)

    @cached_property
    def table(self) -> np.ndarray:
        """For each statistic, the positions of the two means of its product, an int64 array `(statistics, 2)`; -1, -1 for a mean.

        For `SINGLE`, with the names ("h", "h2"), it is [[-1, -1], [0, 0]].
        """
        about = [self.products.get(n) for n in self.names]
        return np.array([[self.index(p[0]), self.index(p[1])] if p else [-1, -1] for p in about], np.int64)

    @cached_property
    def places(self) -> tuple[np.ndarray, ...]:
        """The places of means and products along the last axis of moments, a tuple of four integer arrays.

        They are the positions of the means, `(means,)`; the positions of the products, `(products,)`; and for each product the number of its
        first factor and of its second factor among the means (0, 1, ...), `(products,)` each. For `SINGLE` they are [0], [1], [0], [0].
        """
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
    """Return the weights with which two disjoint sets of paths are joined (Chan, Golub and LeVeque 1983).

    Args:
        left: The number n of paths of the left set, a number or an array.
        right: The number m of paths of the right set, likewise; n + m must be positive.

    Returns:
        The pair (m / (n + m), n m / (n + m)): the share of the difference by which the mean moves, and the weight of products of differences.
    """
    share = right / (left + right)
    return share, left * share


def mean(left: Any, step: Any, share: Any) -> Any:
    """Return the mean over the union of two disjoint sets of paths, left + share * step; arguments are numbers or arrays that broadcast.

    Args:
        left: The mean over the left set.
        step: The mean over the right set minus that over the left set.
        share: The first number of `weights`, m / (n + m) for n paths on the left and m on the right.
    """
    return left + share * step


def product(left: Any, right: Any, weight: Any, first: Any, second: Any) -> Any:
    """Return the sum of products about the means over the union of two disjoint sets of paths, left + right + weight * first * second.

    A sum of products of f and g over a set is sum_i (f_i - mean f)(g_i - mean g); "first" is f and "second" is g.

    Args:
        left: The sum of products of the left set, about its own means.
        right: The sum of products of the right set, about its own means.
        weight: The second number of `weights`, n m / (n + m) for n paths on the left and m on the right.
        first: The mean of f over the right set minus that over the left set.
        second: The mean of g over the right set minus that over the left set.
    """
    return (left + right) + (weight * first) * second


def joined(columns: Columns, left: np.ndarray, n_left: Any, right: np.ndarray, n_right: Any) -> np.ndarray:
    """Return the moments of the union of two disjoint sets of paths, left and right; or of many unions, a pair of sets for each entry of `...`.

    Moments are means over paths, and sums of products about these means, along the last axis of an array.

    Args:
        columns: The names and order of the statistics along that axis.
        left: Moments of the left set, `(..., statistics)`.
        n_left: Its number of paths; for many unions an integer array that is broadcast against `left[..., :1]`.
        right: Moments of the right set, `(..., statistics)`.
        n_right: Its number of paths, in the form of `n_left`.

    Returns:
        A new array `(..., statistics)`. Moments of diverged paths stay NaN or infinite, without a warning.
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
    """Return sums over the last axis, `(..., n)` -> `(...)`, by halving: the first half plus the second half until one number is left.

    NumPy and torch give the same bits, on any device.

    Args:
        values: An array of NumPy or torch whose last axis has a length n that is a power of two; this is not checked.
    """
    while (half := values.shape[-1] // 2) > 0:
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


def of_leaves(columns: Columns, rows: Any, counts: Any) -> list[Any]:
    """Return the statistics of each leaf (256 consecutive paths, the last leaf may have fewer) for one observable h at one step.

    Values are centred at the first value of each leaf. A variance far below the square of the mean keeps its digits, and equal
    values have a variance of exactly zero.

    Args:
        columns: The statistics, `SINGLE` for one dynamics or `PAIR` for two.
        rows: The values `(means, leaves, 256)` of every path, in the order of `columns.means`: h(x) for one dynamics; h(x), h(z), their difference
            and the control variate for two. An array of NumPy or torch.
        counts: The number of paths of each leaf, `(leaves,)`. All leaves but the last are full; the last one's values beyond its number of paths
            are ignored.

    Returns:
        A list with one array `(leaves,)` for each statistic, in the order of `columns.names`.
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
    """Return the number of paths of each leaf if `paths` paths are divided into leaves of 256 consecutive paths; the last leaf has the rest.

    Returns:
        An integer array `(ceil(paths / 256),)`, for example [256, 256, 88] for 600 paths; empty for 0 paths.
    """
    return np.minimum(LEAF, paths - LEAF * np.arange(-(-paths // LEAF)))


class Trees:
    """A plan that joins the moments of leaves to those of nodes, all nodes at once, level by level in a binary tree.

    A leaf is 256 consecutive paths, except that the last leaf may have fewer. A node is some consecutive leaves. The plan is made once and then
    called for each recorded step: `trees(columns, moments)` returns the moments of the nodes from those of the leaves.

    Args:
        lengths: The number of leaves of each node, at least 1. With [3, 2] leaves 0, 1, 2 are the first node and leaves 3, 4 the second.
        paths: The number of paths of all leaves together, which gives the size of the last leaf: from 1025 to 1280 for five leaves.

    Attributes:
        counts: The number of paths of each node, an integer array `(nodes,)`.
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
        """Return the moments of the nodes (consecutive leaves), joined from those of the leaves, in the order of the nodes.

        Args:
            columns: The statistics.
            moments: Moments of the leaves, `(leaves, quantities, statistics)`; the array is overwritten. A quantity is an observable or a
                functional.

        Returns:
            An array `(nodes, quantities, statistics)`.
        """
        for left, right, n_left, n_right in self.joins:
            moments[left] = joined(columns, moments[left], n_left, moments[right], n_right)
        return moments[self.starts]


# -- joins in any order --------------------------------------------------------------------------------------------------------


class Tree:
    """The joining of a run's nodes to the roots of its groups, in any order of arrival and with the same bits for each.

    A leaf is 256 consecutive paths (the last one may have fewer), a group is consecutive leaves, and a node of level l in the binary tree of a
    group is up to 2^l of its leaves. The method `add` takes one node; the siblings 2i and 2i + 1 of a level join to node i of the next level.

    Only nodes whose sibling has not arrived are stored, in `waiting`. If nodes are submitted in order, W at a time, at most W times as many wait
    as the tree has levels.

    Args:
        columns: The statistics.
        leaves: The number of leaves of the run.

    Attributes:
        waiting: From (group, level, index) of a node without its sibling to the pair (moments, number of paths).
        top: The level of the roots.
    """

    def __init__(self, columns: Columns, leaves: int) -> None:
        self.columns, self.leaves = columns, leaves
        self.span = span(leaves)
        self.top = (self.span - 1).bit_length()
        self.waiting: dict[tuple[int, int, int], tuple[np.ndarray, int]] = {}

    def add(self, group: int, level: int, index: int, moments: np.ndarray, count: int) -> tuple[np.ndarray, int] | None:
        """Add the moments of a node of the tree, and join it with the siblings that have arrived, level by level.

        Args:
            group: The index of its group, a set of consecutive leaves.
            level: The level l of the node; it covers up to 2^l leaves of 256 consecutive paths.
            index: The position i of the node among those of its level in the group; it covers the group's leaves from i 2^l on.
            moments: Its moments, `(..., statistics)`; the object keeps this array until the sibling arrives.
            count: Its number of paths.

        Returns:
            The pair (moments, number of paths) of the group's root if this node completes the group, otherwise None: its join waits for a sibling.
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
    """Return the number of leaves (256 paths each) of a group, ceil(leaves / 256), such that a run of `leaves` leaves has at most 256 groups."""
    return -(-leaves // GROUPS)
