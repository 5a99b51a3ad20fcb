"""From group sums to means, gaps and their errors: the only place where sums become numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sdetools.simulation.engine import Sums
from sdetools.simulation.program import PAIR, SINGLE


def _variance(square: np.ndarray, total: np.ndarray, n: int) -> np.ndarray:
    """Unbiased variance from sums, at least what their rounding can hide; 0 where every value is the same; NaN for one path."""
    if n < 2:
        return np.full_like(square, np.nan)
    with np.errstate(all="ignore"):  # sums of lost paths are not finite, and stay so
        out = (square - total**2 / n) / (n - 1)
        rounding = 4e-16 * np.abs(square) / n
        # equal values leave a difference of a few units in the last place of the sums, whatever their number
        equal = np.abs(square * n - total**2) <= 8e-16 * np.abs(square) * n
        return np.where(equal, 0.0, np.maximum(out, rounding))


@dataclass(frozen=True)
class SingleStatistics:
    """Means of recorded quantities, `(records, columns)` each."""

    sums: Sums

    @cached_property
    def total(self) -> dict[str, np.ndarray]:
        return dict(zip(SINGLE, np.moveaxis(self.sums.groups.sum(axis=0), -1, 0)))

    @cached_property
    def mean(self) -> np.ndarray:
        return self.total["h"] / self.sums.paths

    @cached_property
    def variance(self) -> np.ndarray:
        """Variance over paths."""
        return _variance(self.total["h2"], self.total["h"], self.sums.paths)

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
        return dict(zip(PAIR, np.moveaxis(self.sums.groups.sum(axis=0), -1, 0)))

    @cached_property
    def slope(self) -> np.ndarray:
        """The regression coefficient a of the control; 0 without one."""
        t, n = self.total, self.sums.paths
        with np.errstate(all="ignore"):
            spread = t["c2"] - t["c"] ** 2 / n
            both = t["dc"] - t["d"] * t["c"] / n
            return np.where(spread > 1e-14 * t["c2"], both / spread, 0.0)

    @cached_property
    def gap(self) -> np.ndarray:
        """Estimate of E h(x) - E h(z)."""
        with np.errstate(all="ignore"):
            return (self.total["d"] - self.slope * self.total["c"]) / self.sums.paths

    @cached_property
    def variance(self) -> np.ndarray:
        """Variance of the residual d - a C over paths."""
        t, n = self.total, self.sums.paths
        own = _variance(t["d2"], t["d"], n)
        with np.errstate(all="ignore"):
            explained = self.slope * (t["dc"] - t["d"] * t["c"] / n) / max(1, n - 1)
            left = np.where(self.slope != 0, (own - explained) * ((n - 1) / (n - 2) if n > 2 else np.nan), own)
            return np.where(left <= 1e-14 * own, np.where(own > 0, 1e-14 * own, 0.0), left)

    @cached_property
    def stderr(self) -> np.ndarray:
        return np.sqrt(self.variance / self.sums.paths)

    def member(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance over paths of h under one member, "x" or "z"."""
        t, n = self.total, self.sums.paths
        return t[which] / n, _variance(t[which + "2"], t[which], n)

    @cached_property
    def reductions(self) -> tuple[np.ndarray, np.ndarray]:
        """Variance of independent sampling over that of coupling alone, and over that of coupling with the control."""
        independent = self.member("x")[1] + self.member("z")[1]
        coupled = _variance(self.total["d2"], self.total["d"], self.sums.paths)
        with np.errstate(all="ignore"):
            return independent / coupled, independent / self.variance

    def residuals(self, column: int) -> np.ndarray:
        """Centred sums of the residual in each group that has paths, `(groups, records)`: what bootstraps resample."""
        groups = dict(zip(PAIR, np.moveaxis(self.sums.groups[:, :, column], -1, 0)))
        with np.errstate(all="ignore"):
            own = groups["d"] - self.slope[:, column] * groups["c"] - self.sums.counts[:, None] * self.gap[:, column]
        return own[self.sums.counts > 0]
