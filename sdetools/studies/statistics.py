"""From the moments of groups to means, gaps and their errors: the only place where moments become estimates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sdetools.simulation.engine import Sums
from sdetools.simulation.records import PAIR, SINGLE, Columns


def _variance(squares: np.ndarray, n: int) -> np.ndarray:
    """Unbiased variance from the sum of squares about the mean; NaN for one path."""
    return np.maximum(squares, 0.0) / (n - 1) if n > 1 else np.full_like(squares, np.nan)


def _joined(sums: Sums, columns: Columns) -> dict[str, np.ndarray]:
    """The moments of all groups together: means by weight, sums of products about the means by the rule of parallel axes."""
    used = sums.counts > 0
    weight = sums.counts[used][:, None, None] / sums.paths
    groups = columns.by_name(sums.groups[used])
    with np.errstate(all="ignore"):  # moments of lost paths are not finite, and stay so
        total = {m: groups[m][0] + (weight * (groups[m] - groups[m][0])).sum(axis=0) for m in columns.means}
        apart = {m: groups[m] - total[m] for m in columns.means}
        return total | {
            p: groups[p].sum(axis=0) + sums.paths * (weight * apart[a] * apart[b]).sum(axis=0)
            for p, (a, b) in columns.products.items()
        }


@dataclass(frozen=True)
class SingleStatistics:
    """Means of recorded quantities, `(records, columns)` each."""

    sums: Sums

    @cached_property
    def total(self) -> dict[str, np.ndarray]:
        """Mean of h and sum of squares about it."""
        return _joined(self.sums, SINGLE)

    @cached_property
    def mean(self) -> np.ndarray:
        return self.total["h"]

    @cached_property
    def variance(self) -> np.ndarray:
        """Variance over paths."""
        return _variance(self.total["h2"], self.sums.paths)

    @cached_property
    def stderr(self) -> np.ndarray:
        return np.sqrt(self.variance / self.sums.paths)


@dataclass(frozen=True)
class PairStatistics:
    """Gaps of a pair: d = h(x) - h(z), less a regression on the control C, `(records, columns)` each.

    The residual is d - a C with a = Cov(d, C) / Var C; E C = 0, so the gap's estimate stays unbiased up to O(1 / paths).
    """

    sums: Sums

    @cached_property
    def total(self) -> dict[str, np.ndarray]:
        """Means, and sums of squares and products about them: see `records.PAIR`."""
        return _joined(self.sums, PAIR)

    @cached_property
    def slope(self) -> np.ndarray:
        """The regression coefficient a of the control; 0 without one."""
        with np.errstate(all="ignore"):
            return np.where(self.total["c2"] > 0, self.total["dc"] / self.total["c2"], 0.0)

    @cached_property
    def gap(self) -> np.ndarray:
        """Estimate of E h(x) - E h(z)."""
        with np.errstate(all="ignore"):
            return self.total["d"] - self.slope * self.total["c"]

    @cached_property
    def variance(self) -> np.ndarray:
        """Variance of the residual d - a C over paths."""
        t, n = self.total, self.sums.paths
        own = _variance(t["d2"], n)
        with np.errstate(all="ignore"):
            explained = self.slope * t["dc"] / (n - 1)
            left = np.where(self.slope != 0, (own - explained) * ((n - 1) / (n - 2) if n > 2 else np.nan), own)
            return np.where(left <= 1e-14 * own, np.where(own > 0, 1e-14 * own, 0.0), left)

    @cached_property
    def stderr(self) -> np.ndarray:
        return np.sqrt(self.variance / self.sums.paths)

    def member(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance over paths of h under one member, "x" or "z"."""
        return self.total[which], _variance(self.total[which + "2"], self.sums.paths)

    @cached_property
    def reductions(self) -> tuple[np.ndarray, np.ndarray]:
        """Variance of independent sampling over that of coupling alone, and over that of coupling with the control."""
        independent = self.member("x")[1] + self.member("z")[1]
        coupled = _variance(self.total["d2"], self.sums.paths)
        with np.errstate(all="ignore"):
            return independent / coupled, independent / self.variance

    def residuals(self, column: int) -> np.ndarray:
        """Centred sums of the residual in each group that has paths, `(groups, records)`: what bootstraps resample."""
        used = self.sums.counts > 0
        groups = PAIR.by_name(self.sums.groups[used, :, column])
        with np.errstate(all="ignore"):
            apart = (groups["d"] - self.total["d"][:, column]) - self.slope[:, column] * (
                groups["c"] - self.total["c"][:, column]
            )
            return self.sums.counts[used][:, None] * apart
