"""Norms of differences of distribution functions: exact for two samples, and bootstrap and permutation draws by groups of paths.

F_n and G_m are the empirical distribution functions of two samples of n and m numbers, one for each path. Knots are the points at which
such functions are evaluated. Groups, in this module, are sets of paths in random order that are resampled together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GROUPS = 512
"""The number of groups of paths that are resampled, in both samples together; more if one sample is far smaller than the other."""
LEAST_GROUPS = 64
"""The least number of groups of the smaller sample, if it has that many paths."""
LOPSIDED = 16
"""The largest ratio of the sample sizes. Of a larger sample only a subset is resampled, and its noise is rescaled."""
BLOCK = 1 << 21
"""The largest number of elements of a temporary array."""


def _steps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F_n - G_m at all points of two sorted samples but the last, and the distances to the next point (0 between equal points)."""
    both = np.concatenate([a, b])
    order = np.argsort(both, kind="stable")  # merges two runs: O(N)
    both = both[order]
    counts = np.where(order < len(a), len(b), -len(a))
    del order
    # In units of 1 / (n m) these are integers, and hence exact.
    np.cumsum(counts, out=counts)
    return counts[:-1] / (len(a) * len(b)), np.diff(both)


def _exact_wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Return the integral of |F_n - G_m| for two sorted samples."""
    if len(a) == len(b):
        return float(np.abs(a - b).mean())
    difference, widths = _steps(a, b)
    return float((np.abs(difference) * widths).sum())


def _exact_kolmogorov(a: np.ndarray, b: np.ndarray) -> float:
    """Return the supremum of |F_n - G_m| for two sorted samples."""
    difference, widths = _steps(a, b)
    return float(np.abs(difference[widths > 0]).max(initial=0.0))


def _exact_energy(a: np.ndarray, b: np.ndarray) -> float:
    """Return twice the integral of (F_n - G_m)^2 for two sorted samples."""
    difference, widths = _steps(a, b)
    return 2 * float((difference**2 * widths).sum())


@dataclass(frozen=True)
class DistanceKind:
    """A distance of two distributions, a norm of the difference of their distribution functions to the power `power`, and how to compute it.

    Attributes:
        label: The name in print, such as "W1".
        power: The power p of the norm that the distance is: the distance is norm^p, with p = 1 or, for the energy distance, 2.
        exact: A function of two sorted samples, arrays `(n,)` and `(m,)`, that returns their distance.
        part: A function that returns the contribution of a range of knots (points of evaluation) to norm^p, `(draws,)`, for each of several
            resampled differences. Its arguments are these differences of distribution functions at the knots, `(draws, knots)`, and the distances
            to the next knot, `(knots,)`.
        join: The function that combines the contributions of two ranges of knots: `np.add` for integrals, `np.maximum` for a maximum.
        knots: The largest number of knots at which resampled differences are evaluated. An integral needs fewer than a maximum.
    """

    label: str
    power: int
    exact: Callable[[np.ndarray, np.ndarray], float]
    part: Callable[[np.ndarray, np.ndarray], np.ndarray]
    join: Callable[[np.ndarray, np.ndarray], np.ndarray]
    knots: int


KINDS = {
    "wasserstein": DistanceKind("W1", 1, _exact_wasserstein, lambda p, w: (np.abs(p) * w).sum(axis=1), np.add, 4096),
    "kolmogorov": DistanceKind(
        "Kolmogorov distance", 1, _exact_kolmogorov, lambda p, w: np.abs(p).max(axis=1), np.maximum, 16_384
    ),
    "energy": DistanceKind("energy distance", 2, _exact_energy, lambda p, w: 2 * (p * p * w).sum(axis=1), np.add, 4096),
}


def chosen_knots(a: np.ndarray, b: np.ndarray, limit: int) -> np.ndarray:
    """Return points of two samples at which their distribution functions are compared, sorted and distinct: at most `limit`, ends included.

    If both samples have at most `limit` points together, all are returned. Otherwise, of a sample with more than its share of `limit` (half of
    it, or what the other sample leaves), the points at the quantile levels sin^2(t) are chosen, t equidistant in [0, pi/2]: densest in the tails.

    Args:
        a: The first sample, sorted, `(n,)`.
        b: The second sample, sorted, `(m,)`.
        limit: The largest number of points returned.

    Returns:
        An array `(knots,)` in ascending order.
    """
    kept = []
    for own, other in ((a, b), (b, a)):
        count = max(limit // 2, limit - len(other))
        if len(own) > count:
            levels = np.sin(np.linspace(0, np.pi / 2, count)) ** 2
            own = own[np.rint((len(own) - 1) * levels).astype(int)]
        kept.append(own)
    return np.unique(np.concatenate(kept))


class Resampling:
    """The random choices of a bootstrap and of a permutation test for two samples of paths, the same for all observables of the paths.

    A sample has one number for each path: an observable, or a projection of the path's last point. Paths are resampled in groups. A bootstrap draw
    gives each group a weight, the number of times that it is drawn. A permutation assigns each group to one of the two samples.

    Args:
        n: The number of paths of the first sample.
        m: The number of paths of the second sample.
        most: The largest number of paths of a sample that are resampled; of a larger one, or one more than 16 times as large as the other, a random
            subset is taken.
        resamples: The number of bootstrap draws, and of permutations.
        rng: The generator of all random choices.

    Attributes:
        resamples: The number of bootstrap draws, and of permutations.
        order: For each sample, the indices of the paths that are resampled, in random order, an integer array.
        edges: For each sample, the limits of its groups within `order`, `(groups + 1,)`: group g is `order[edges[g]:edges[g + 1]]`.
        weights: For each sample, an array `(2 * resamples, groups)`: the bootstrap weights, then 1 for the groups that a permutation
            assigns to the first sample and 0 for the others.
    """

    def __init__(self, n: int, m: int, most: int, resamples: int, rng: np.random.Generator) -> None:
        self.resamples = resamples
        sizes = (n, m)
        used = (min(n, LOPSIDED * m, most), min(m, LOPSIDED * n, most))
        length = max(1.0, min(sum(used) / GROUPS, min(used) / LEAST_GROUPS))
        counts = [max(2, round(paths / length)) for paths in used]
        # In random order, because a sample may be sorted.
        self.order = [rng.permutation(size)[:paths] for size, paths in zip(sizes, used)]
        self.edges = [np.arange(groups + 1) * paths // groups for groups, paths in zip(counts, used)]
        lengths = [np.diff(edges) for edges in self.edges]

        rows = np.arange(resamples)[:, None]
        times = [
            np.bincount((g * rows + rng.integers(g, size=(resamples, g))).ravel(), minlength=g * resamples).reshape(-1, g)
            for g in counts
        ]
        # The bootstrap variance of g groups is (g - 1) / g of the true one.
        self.factors = [math.sqrt(g / (g - 1) * paths / size) for g, paths, size in zip(counts, used, sizes)]
        self.drawn = [(t @ size)[:, None] for t, size in zip(times, lengths)]

        side = rng.permuted(np.tile(np.arange(sum(counts)) < counts[0], (resamples, 1)), axis=1)
        sides = np.split(side, [counts[0]], axis=1)
        self.on_first = (sides[0] @ lengths[0] + sides[1] @ lengths[1])[:, None]
        self.on_second = sum(used) - self.on_first
        self.stretch = np.sqrt((1 / n + 1 / m) / (1 / self.on_first + 1 / self.on_second))
        self.weights = [np.concatenate([t, s]).astype(float) for t, s in zip(times, sides)]

    def parts(self, a: np.ndarray, b: np.ndarray, knots: np.ndarray, gauge: DistanceKind) -> tuple[np.ndarray, np.ndarray]:
        """Return the resampled distances of two samples: of the centred bootstrap process, and of the permuted samples.

        Args:
            a: The first sample, `(n,)`, in the order of the paths (not sorted).
            b: The second sample, `(m,)`, in the order of the paths.
            knots: Sorted points at which distribution functions are evaluated, `(knots,)`.
            gauge: The distance, a value of `KINDS`.

        Returns:
            Two arrays `(resamples,)` of the distance, the norm to the power `gauge.power`. The first is that of the bootstrapped difference F_n - G_m
            minus the observed one, the second that of the difference of the distribution functions after each permutation, rescaled to the
            variance of n and m paths.
        """
        rows = [
            [np.sort(group) for group in np.split(values[order], edges[1:-1])]
            for values, order, edges in zip((a, b), self.order, self.edges)
        ]
        widths = np.diff(knots, append=knots[-1])
        block = max(64, BLOCK // (2 * self.resamples + max(map(len, rows))))
        centred, permuted = np.zeros(self.resamples), np.zeros(self.resamples)
        for start in range(0, len(knots), block):
            here, reach = knots[start : start + block], widths[start : start + block]
            below = [np.array([np.searchsorted(row, here, side="right") for row in of], dtype=float) for of in rows]
            products = [_product(weights, counts) for weights, counts in zip(self.weights, below)]
            total = [counts.sum(axis=0) for counts in below]
            noise = [
                factor * (product[: self.resamples] / drawn - whole / len(order))
                for factor, product, drawn, whole, order in zip(self.factors, products, self.drawn, total, self.order)
            ]
            centred = gauge.join(centred, gauge.part(noise[0] - noise[1], reach))
            chosen = products[0][self.resamples :] + products[1][self.resamples :]
            split = self.stretch * (chosen / self.on_first - (total[0] + total[1] - chosen) / self.on_second)
            permuted = gauge.join(permuted, gauge.part(split, reach))
        return centred, permuted


def _product(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return a matrix product of integers, exact in any order of summation; by BLAS only where its threads are worth synchronising."""
    if len(weights) * counts.size < 1 << 23:
        return np.einsum("bg,gk->bk", weights, counts)
    return weights @ counts
