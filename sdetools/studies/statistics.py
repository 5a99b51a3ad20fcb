"""Means, gaps and their standard errors from the accumulated moments of groups of paths.

A group is a set of consecutive paths whose moments are accumulated together. Arrays `(times, observables)` have one row for each recorded
time and one column for each observable and then for each functional. Values that depend on diverged paths are not finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sdetools.estimates.estimate import skewness_of_mean
from sdetools.simulation.engine import Sums
from sdetools.simulation.records import PAIR, SINGLE, Columns


def _variance(squares: np.ndarray, n: int) -> np.ndarray:
    """Return the unbiased variance squares / (n - 1), in the shape of `squares`; NaN for one path.

    Args:
        squares: Sums of squares about the mean; negative ones, from rounding, count as 0.
        n: The number of paths.
    """
    return np.maximum(squares, 0.0) / (n - 1) if n > 1 else np.full_like(squares, np.nan)


def _pooled(sums: Sums, columns: Columns) -> dict[str, np.ndarray]:
    """Return the moments of all groups together, as a dict from the name of each statistic to an array `(times, observables)`.

    Means are weighted by the numbers of paths. Sums of products about them follow by the parallel axis theorem.

    Args:
        sums: Accumulated moments of the groups.
        columns: The names of the statistics, in their order along the last axis of `sums.groups`.
    """
    used = sums.counts > 0
    weight = sums.counts[used][:, None, None] / sums.paths
    groups = columns.by_name(sums.groups[used])
    with np.errstate(all="ignore"):  # moments of diverged paths are not finite, and stay so
        total = {m: groups[m][0] + (weight * (groups[m] - groups[m][0])).sum(axis=0) for m in columns.means}
        deviation = {m: groups[m] - total[m] for m in columns.means}
        return total | {
            p: groups[p].sum(axis=0) + sums.paths * (weight * deviation[a] * deviation[b]).sum(axis=0)
            for p, (a, b) in columns.products.items()
        }


@dataclass(frozen=True)
class SingleStatistics:
    """Sample moments over paths of the observables h of one dynamics, as arrays `(times, observables)`.

    Arrays have one row for each recorded time and one column for each observable and then each functional. A group is a set of consecutive
    paths.

    Attributes:
        sums: Accumulated moments of the groups of paths.
    """

    sums: Sums

    @cached_property
    def total(self) -> dict[str, np.ndarray]:
        """A dict of moments over all paths: the mean of h, "h", and the sum of squares about it, "h2", `(times, observables)` each."""
        return _pooled(self.sums, SINGLE)

    @cached_property
    def mean(self) -> np.ndarray:
        """The mean over paths of each observable h, `(times, observables)`."""
        return self.total["h"]

    @cached_property
    def variance(self) -> np.ndarray:
        """The unbiased variance over paths of each observable h, `(times, observables)`; NaN for one path."""
        return _variance(self.total["h2"], self.sums.paths)

    @cached_property
    def stderr(self) -> np.ndarray:
        """The standard error of the mean, sqrt(variance / paths), `(times, observables)`; NaN for one path."""
        return np.sqrt(self.variance / self.sums.paths)

    def skewness(self, time: int, column: int) -> float:
        """Return the skewness of the mean of h over paths, as `skewness_of_mean` estimates it from the groups; 0 if it is not significant.

        Args:
            time: The index of the recorded time.
            column: The index of the observable or functional.
        """
        used = self.sums.counts > 0
        return skewness_of_mean(SINGLE.by_name(self.sums.groups[used, time, column])["h"], self.sums.counts[used])


@dataclass(frozen=True)
class PairStatistics:
    """Sample moments of two dynamics x, z with d = h(x) - h(z), adjusted by regression on a control variate C, as arrays `(times, observables)`.

    C is a quantity of the same path with E C = 0 that is correlated with d (`simulation.program.ControlVariate`). The residual is d - a C with
    a = Cov(d, C) / Var C. Since E C = 0, the estimate of the gap is unbiased up to O(1 / paths). Without a control variate a = 0. Arrays have one row
    for each recorded time and one column for each observable and then each functional. A group is a set of consecutive paths.

    Attributes:
        sums: Accumulated moments of the groups of paths.
    """

    sums: Sums

    @cached_property
    def total(self) -> dict[str, np.ndarray]:
        """A dict of arrays `(times, observables)`: means and sums of products about them of h(x), h(z), d = h(x) - h(z) and the control variate C.

        The means are "x", "z", "d", "c"; the sums of squares are "x2", "z2", "d2", "c2"; the sum of products of d and C is "dc".
        """
        return _pooled(self.sums, PAIR)

    @cached_property
    def slope(self) -> np.ndarray:
        """The regression coefficient a = Cov(d, C) / Var C of the difference d = h(x) - h(z) on the control variate C, `(times, observables)`.

        It is 0 without a control variate.
        """
        with np.errstate(all="ignore"):
            return np.where(self.total["c2"] > 0, self.total["dc"] / self.total["c2"], 0.0)

    @cached_property
    def gap(self) -> np.ndarray:
        """The estimate of E h(x) - E h(z), `(times, observables)`: the mean of h(x) - h(z) - a C with the control variate C and a = `slope`."""
        with np.errstate(all="ignore"):
            return self.total["d"] - self.slope * self.total["c"]

    @cached_property
    def variance(self) -> np.ndarray:
        """The variance over paths of the residual d - a C, `(times, observables)`, with d = h(x) - h(z), the control variate C and a = `slope`.

        It is NaN for one path, and with a control variate for two.
        """
        t, n = self.total, self.sums.paths
        own = _variance(t["d2"], n)
        with np.errstate(all="ignore"):
            explained = self.slope * t["dc"] / (n - 1)
            rest = np.where(self.slope != 0, (own - explained) * ((n - 1) / (n - 2) if n > 2 else np.nan), own)
            return np.where(rest <= 1e-14 * own, np.where(own > 0, 1e-14 * own, 0.0), rest)

    @cached_property
    def stderr(self) -> np.ndarray:
        """The standard error of the gap, sqrt(variance / paths), `(times, observables)`; NaN where the variance is."""
        return np.sqrt(self.variance / self.sums.paths)

    def skewness(self, time: int, column: int) -> float:
        """Return the skewness of the mean residual d - a C over paths, as `skewness_of_mean` estimates it; 0 if it is not significant.

        Here d = h(x) - h(z), C is the control variate and a its regression coefficient.

        Args:
            time: The index of the recorded time.
            column: The index of the observable or functional.
        """
        counts = self.sums.counts[self.sums.counts > 0]
        return skewness_of_mean(self.residuals(column, slice(time, time + 1))[:, 0] / counts, counts)

    def member(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the variance over paths of h for one member, `(times, observables)` each.

        Args:
            which: The member: "x" for the first, "z" for the second. The variance is the unbiased one, NaN for one path.
        """
        return self.total[which], _variance(self.total[which + "2"], self.sums.paths)

    @cached_property
    def reductions(self) -> tuple[np.ndarray, np.ndarray]:
        """The variance of independent sampling over that of coupling alone, and over that with the control variate, `(times, observables)` each.

        They are Var h(x) + Var h(z) over Var d and over Var(d - a C), with d = h(x) - h(z), the control variate C and its regression coefficient a.
        Where the denominator is 0 they are infinite or NaN.
        """
        independent = self.member("x")[1] + self.member("z")[1]
        coupled = _variance(self.total["d2"], self.sums.paths)
        with np.errstate(all="ignore"):
            return independent / coupled, independent / self.variance

    def residuals(self, column: int, times: slice = slice(None)) -> np.ndarray:
        """Return the sums over each group of paths of the residual d - a C about its mean, `(groups, times)`, for the bootstrap.

        Here d = h(x) - h(z), C is the control variate and a its regression coefficient. Groups without paths are omitted.

        Args:
            column: The index of the observable or functional, from 0.
            times: The indices of the recorded times that are wanted; all by default.
        """
        used = self.sums.counts > 0
        groups = PAIR.by_name(self.sums.groups[used, times, column])
        with np.errstate(all="ignore"):
            deviation = (groups["d"] - self.total["d"][times, column]) - self.slope[times, column] * (
                groups["c"] - self.total["c"][times, column]
            )
            return self.sums.counts[used][:, None] * deviation
