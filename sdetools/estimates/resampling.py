"""What the distances of `distance.py` have in common: the norms, exact for two samples, and the resampling of their noise in groups of paths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GROUPS = 512
"""Groups of paths that are resampled, in both samples together, unless one is much smaller than the other."""
LEAST_GROUPS = 64
"""Groups of the smaller sample, if it has so many paths."""
LOPSIDED = 16
"""Beyond this ratio of sizes only so many times the smaller sample are resampled of the larger, whose noise is then scaled."""
BLOCK = 1 << 21
"""Numbers in one temporary array of the resampling."""


def _steps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F_n - G_m at all points of two sorted samples but the last, and how far it reaches; only the last of equal points reaches anywhere."""
    both = np.concatenate([a, b])
    order = np.argsort(both, kind="stable")  # merges two runs: O(N)
    both = both[order]
    counts = np.where(order < len(a), len(b), -len(a))
    del order
    # In units of 1 / (n m) whole numbers, hence exact.
    np.cumsum(counts, out=counts)
    return counts[:-1] / (len(a) * len(b)), np.diff(both)


def _exact_wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) == len(b):
        return float(np.abs(a - b).mean())
    difference, widths = _steps(a, b)
    return float((np.abs(difference) * widths).sum())


def _exact_kolmogorov(a: np.ndarray, b: np.ndarray) -> float:
    difference, widths = _steps(a, b)
    return float(np.abs(difference[widths > 0]).max(initial=0.0))


def _exact_energy(a: np.ndarray, b: np.ndarray) -> float:
    difference, widths = _steps(a, b)
    return 2 * float((difference**2 * widths).sum())


@dataclass(frozen=True)
class DistanceKind:
    """A norm, to the power `power`, of a process: exact for two sorted samples; of processes `(draws, knots)` in parts to be joined."""

    label: str
    power: int
    exact: Callable[[np.ndarray, np.ndarray], float]
    part: Callable[[np.ndarray, np.ndarray], np.ndarray]
    join: Callable[[np.ndarray, np.ndarray], np.ndarray]
    knots: int
    """Points at which the noise of one line is followed: an integral needs fewer than a largest value."""


KINDS = {
    "wasserstein": DistanceKind("W1", 1, _exact_wasserstein, lambda p, w: (np.abs(p) * w).sum(axis=1), np.add, 4096),
    "kolmogorov": DistanceKind(
        "Kolmogorov distance", 1, _exact_kolmogorov, lambda p, w: np.abs(p).max(axis=1), np.maximum, 16_384
    ),
    "energy": DistanceKind("energy distance", 2, _exact_energy, lambda p, w: 2 * (p * p * w).sum(axis=1), np.add, 4096),
}


def chosen_knots(a: np.ndarray, b: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` points of both sorted samples, ends included, at levels sin^2: densest in the tails, where knots lie far apart."""
    kept = []
    for own, other in ((a, b), (b, a)):
        count = max(limit // 2, limit - len(other))
        if len(own) > count:
            levels = np.sin(np.linspace(0, np.pi / 2, count)) ** 2
            own = own[np.rint((len(own) - 1) * levels).astype(int)]
        kept.append(own)
    return np.unique(np.concatenate(kept))


class Resampling:
    """Groups of paths, and how often (bootstrap) or on which side (permutation) each stands in each draw: the same for all lines."""

    def __init__(self, n: int, m: int, most: int, resamples: int, rng: np.random.Generator) -> None:
        self.resamples = resamples
        sizes = (n, m)
        used = (min(n, LOPSIDED * m, most), min(m, LOPSIDED * n, most))
        length = max(1.0, min(sum(used) / GROUPS, min(used) / LEAST_GROUPS))
        counts = [max(2, round(paths / length)) for paths in used]
        # In a random order, for a sample may come sorted.
        self.order = [rng.permutation(size)[:paths] for size, paths in zip(sizes, used)]
        self.edges = [np.arange(groups + 1) * paths // groups for groups, paths in zip(counts, used)]
        lengths = [np.diff(edges) for edges in self.edges]

        rows = np.arange(resamples)[:, None]
        times = [
            np.bincount((g * rows + rng.integers(g, size=(resamples, g))).ravel(), minlength=g * resamples).reshape(-1, g)
            for g in counts
        ]
        # A bootstrap of g groups has (g - 1) / g of the variance.
        self.factors = [math.sqrt(g / (g - 1) * paths / size) for g, paths, size in zip(counts, used, sizes)]
        self.drawn = [(t @ size)[:, None] for t, size in zip(times, lengths)]

        side = rng.permuted(np.tile(np.arange(sum(counts)) < counts[0], (resamples, 1)), axis=1)
        sides = np.split(side, [counts[0]], axis=1)
        self.on_first = (sides[0] @ lengths[0] + sides[1] @ lengths[1])[:, None]
        self.on_second = sum(used) - self.on_first
        self.stretch = np.sqrt((1 / n + 1 / m) / (1 / self.on_first + 1 / self.on_second))
        self.weights = [np.concatenate([t, s]).astype(float) for t, s in zip(times, sides)]

    def parts(self, a: np.ndarray, b: np.ndarray, knots: np.ndarray, gauge: DistanceKind) -> tuple[np.ndarray, np.ndarray]:
        """Norms, to their power, of the centred bootstrap process and of the permuted difference; `(draws,)` each."""
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
    """The matrix product of whole numbers, exact in any order; by BLAS, whose threads wait for each other, only where that is worth it."""
    if len(weights) * counts.size < 1 << 23:
        return np.einsum("bg,gk->bk", weights, counts)
    return weights @ counts
