"""Means, gaps and their standard errors from the accumulated moments of groups of paths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sdetools.simulation.engine import Sums
from sdetools.simulation.records import PAIR, SINGLE, Columns


def _variance(squares: np.ndarray, n: int) -> np.ndarray:
    """Return the unbiased variance from a sum of squares about the mean; NaN for one path."""
    return np.maximum(squares, 0.0) / (n - 1) if n > 1 else np.full_like(squares, np.nan)


def _pooled(sums: Sums, columns: Columns) -> dict[str, np.ndarray]:
    """Return the moments of all groups together: weighted means, and sums of products about them by the parallel axis theorem."""
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
    """Sample moments of one dynamics; arrays are `(records, columns)`.

    Attributes:
        sums: Accumulated moments of the groups.
    """

    sums: Sums

    @cached_property
    def total(self) -> dict[str, np.ndarray]:
        """The mean of h and the sum of squares about it."""
        return _pooled(self.sums, SINGLE)

    @cached_property
    def mean(self) -> np.ndarray:
        """The mean of h."""
        return self.total["h"]

    @cached_property
    def variance(self) -> np.ndarray:
        """The variance of h over paths."""
        return _variance(self.total["h2"], self.sums.paths)

    @cached_property
    def stderr(self) -> np.ndarray:
        """The standard error of the mean."""
        return np.sqrt(self.variance / self.sums.paths)


@dataclass(frozen=True)
class PairStatistics:
    """Sample moments of a pair with d = h(x) - h(z), adjusted by regression on the control variate C; arrays are `(records, columns)`.

    The residual is d - a C with a = Cov(d, C) / Var C. Since E C = 0, the estimate of the gap is unbiased up to O(1 / paths).

    Attributes:
        sums: Accumulated moments of the groups.
    """

    sums: Sums

    @cached_property
    def total(self) -> dict[str, np.ndarray]:
        """Means, and sums of squares and products about them; see `records.PAIR`."""
        return _pooled(self.sums, PAIR)

    @cached_property
    def slope(self) -> np.ndarray:
        """The regression coefficient a of the control variate; 0 without one."""
        with np.errstate(all="ignore"):
            return np.where(self.total["c2"] > 0, self.total["dc"] / self.total["c2"], 0.0)

    @cached_property
    def gap(self) -> np.ndarray:
        """The estimate of E h(x) - E h(z)."""
        with np.errstate(all="ignore"):
            return self.total["d"] - self.slope * self.total["c"]

    @cached_property
    def variance(self) -> np.ndarray:
        """The variance of the residual d - a C over paths."""
        t, n = self.total, self.sums.paths
        own = _variance(t["d2"], n)
        with np.errstate(all="ignore"):
            explained = self.slope * t["dc"] / (n - 1)
            rest = np.where(self.slope != 0, (own - explained) * ((n - 1) / (n - 2) if n > 2 else np.nan), own)
            return np.where(rest <= 1e-14 * own, np.where(own > 0, 1e-14 * own, 0.0), rest)

    @cached_property
    def stderr(self) -> np.ndarray:
        """The standard error of the gap."""
        return np.sqrt(self.variance / self.sums.paths)

    def member(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the variance of h over paths of one member, "x" or "z"."""
        return self.total[which], _variance(self.total[which + "2"], self.sums.paths)

    @cached_property
    def reductions(self) -> tuple[np.ndarray, np.ndarray]:
        """The variance of independent sampling over that of coupling alone, and over that of coupling with the control variate."""
        independent = self.member("x")[1] + self.member("z")[1]
        coupled = _variance(self.total["d2"], self.sums.paths)
        with np.errstate(all="ignore"):
            return independent / coupled, independent / self.variance

    def residuals(self, column: int) -> np.ndarray:
        """Return centred sums of the residual in each group that has paths, `(groups, records)`, for the bootstrap."""
        used = self.sums.counts > 0
        groups = PAIR.by_name(self.sums.groups[used, :, column])
        with np.errstate(all="ignore"):
            deviation = (groups["d"] - self.total["d"][:, column]) - self.slope[:, column] * (
                groups["c"] - self.total["c"][:, column]
            )
            return self.sums.counts[used][:, None] * deviation
