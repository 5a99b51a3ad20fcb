"""The maximum of a curve with a simultaneous confidence band, by the Gaussian multiplier bootstrap over groups of paths.

A curve is the sequence of the gaps (differences of two means) at the recorded times. A group is a set of paths. The residual of a group at
a time is the sum over its paths of one path's difference minus the mean over all paths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from sdetools import _check
from sdetools.estimates.estimate import RESOLVED, Estimate
from sdetools.estimates.interval import Kind, quantile, undetected_probability

MANY_GROUPS = 40
"""The number of groups from which the bootstrap estimates the correlations of a curve well enough."""


@dataclass(frozen=True, eq=False, repr=False)
class SupEstimate(Estimate):
    """The maximum max_k |gap_k| of a curve over the recorded times k, with the simultaneous (sup-t) band of the curve.

    gap_k is the difference of the means of two dynamics at time k. `value` is the maximum of the estimates. It is biased upwards by about the
    standard error; the interval is not. With probability `confidence` all |gap_k| lie in their bands at once, so that their maximum lies between
    max(|gap_k| - c s_k) and max(|gap_k| + c s_k), where c is the critical value.

    Attributes:
        value: max_k |gap_k|.
        stderr: The standard error of the gap at the time of the maximum.
        curve: The estimates gap_k, `(times,)`.
        errors: Their standard errors s_k, `(times,)`.
        draws: Bootstrap draws of max_k |noise_k| / s_k, `(draws,)`, such as `multiplier_maxima` gives; their quantile is the critical value c. If
            empty, c is Bonferroni's.
        argmax: The index k of the maximum in `curve`.
        time: The recorded time of the maximum.
        points: A mapping from "random", "rounding", "least", "most" to the values of these attributes of `Estimate` at each time, `(times,)`.
            For a name that is missing, the attribute itself holds at all times.

    The other attributes are those of `Estimate`, the number of paths `n` and the level `confidence` among them.

    Example:
        >>> import numpy as np, sdetools as st
        >>> gap = st.estimates.SupEstimate(0.3, 0.05, 1000, curve=np.array([0.1, -0.3]), errors=np.array([0.05, 0.05]), argmax=1, time=0.5)
        >>> round(gap.critical(0.95), 2), gap.low < 0.3 < gap.high
        (2.24, True)
    """

    curve: np.ndarray = field(default_factory=lambda: np.zeros(1))
    errors: np.ndarray = field(default_factory=lambda: np.zeros(1))
    draws: np.ndarray = field(default_factory=lambda: np.zeros(0))
    argmax: int = 0
    time: float = 0.0
    points: Mapping[str, np.ndarray] = field(default_factory=dict, kw_only=True)

    def _along(self, name: str) -> np.ndarray:
        """Return the attribute `name` at each time of the curve, `(times,)`: that of `points`, or else the constant one of the estimate."""
        return np.broadcast_to(self.points.get(name, getattr(self, name)), np.shape(self.curve))

    def critical(self, confidence: float) -> float:
        """Return the critical value c of the band at a confidence level: the band is gap_k +- c s_k with standard errors s_k.

        It is the quantile of the bootstrap draws `self.draws`, but at most Bonferroni's value for the number of times with s_k > 0, which is used
        if fewer than ten draws lie beyond the quantile.

        Raises:
            ValueError: Unless 0 < `confidence` < 1.
        """
        tests = max(1, int(np.count_nonzero(self.errors)))
        bound = quantile(confidence, self.n + 1 - self.fitted, tests)
        if len(self.draws) * (1 - confidence) < 10:
            return bound
        return min(bound, float(np.quantile(self.draws, confidence)))

    def band(self, confidence: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the simultaneous band of the curve, which contains all true gaps at once with probability `confidence`.

        It is gap_k +- c s_k with the critical value c, plus the rounding error, and adjusted where one path's values have known bounds (see `Estimate`).

        Args:
            confidence: The confidence level, strictly between 0 and 1 (otherwise ValueError); None for that of the estimate.

        Returns:
            Two arrays `(times,)`: the lower and the upper limit at each time; infinite at times at which the error is unknown.
        """
        confidence = self.confidence if confidence is None else confidence
        random, rounding, least, most = (self._along(name) for name in ("random", "rounding", "least", "most"))
        bounded = random & np.isfinite(least) & np.isfinite(most)
        half = self.critical(confidence) * self.errors + rounding
        half = np.where(random & ~bounded & (self.errors == 0), np.inf, half)
        missed = min(1.0, undetected_probability(confidence, self.n, max(1, int(random.sum()))))
        with np.errstate(invalid="ignore"):
            below = np.where(bounded, np.minimum(half + missed * (self.curve - least), self.curve - least), half)
            above = np.where(bounded, np.minimum(half + missed * (most - self.curve), most - self.curve), half)
        return self.curve - below, self.curve + above

    def paths_needed(self, expected: float | None = None) -> int:
        """Return the number of paths, an integer of at least 1, that reduces the standard error at the maximum to a quarter of the gap.

        Args:
            expected: The size of the gap, positive; None for the value, if it is resolved (at least four standard errors).

        Raises:
            ValueError: If the value is unresolved and `expected` is None, since noise does not determine the size of the gap, or if
                `expected` is not positive.
        """
        if expected is None and not self.resolved:
            raise ValueError(
                f"`expected` must be given, for the gap is unresolved: {self.value:.3g} with standard error {self.stderr:.3g}. "
                "Pass the size of gap that you want to resolve."
            )
        return self.paths_for((self.value if expected is None else _check.positive("expected", expected)) / RESOLVED)

    def bootstrap(self, noise: np.ndarray) -> np.ndarray:
        """Return the maximum over the times k of |gap_k + noise_k s_k| for each bootstrap draw, an array `(draws,)`.

        Args:
            noise: Noise curves in units of the standard errors s_k, `(draws, times)`, such as those of `multiplier_noise`.
        """
        return np.abs(self.curve + noise * self.errors).max(axis=1)

    @property
    def kind(self) -> Kind:
        """What the confidence level refers to: `Kind.SIMULTANEOUS`, or `Kind.EXACT` where no random draw enters."""
        return Kind.SIMULTANEOUS if self.random else Kind.EXACT

    def _ends(self, level: float) -> tuple[float, float]:
        """Return both ends of the interval of the maximum, from the band; infinite ones where the band or the curve is not finite."""
        if not np.isfinite(self.curve).all() or not np.isfinite(self.errors).all():
            return -math.inf, math.inf
        low, high = self.band(level)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return -math.inf, math.inf
        least = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
        return float(least.max()), float(np.maximum(np.abs(low), np.abs(high)).max())


def multiplier_noise(residuals: np.ndarray, draws: int, seed: int = 20_231_011) -> np.ndarray:
    """Return noise curves sum_g xi_g r_gk / sqrt(sum_g r_gk^2) of the Gaussian multiplier bootstrap over groups g of paths, at times k.

    The sums are taken in a fixed order, so that results are reproducible to the bit. Source: V. Chernozhukov, D. Chetverikov, K. Kato,
    Annals of Statistics 41 (2013) 2786-2819.

    Args:
        residuals: The r_gk, `(groups, times)`: the sum over the paths of group g of one path's deviation from the mean at time k.
        draws: The number of curves.
        seed: The seed of the multipliers xi, independent standard normal numbers.

    Returns:
        The curves, `(draws, times)`, with variance 1; 0 at times at which all residuals are 0.
    """
    scale = np.sqrt((residuals**2).sum(axis=0))
    normalised = np.divide(residuals, scale, out=np.zeros_like(residuals), where=scale > 0)
    return np.einsum("bg,gk->bk", _multipliers(draws, len(residuals), seed), normalised)


@lru_cache(maxsize=8)
def _multipliers(draws: int, groups: int, seed: int) -> np.ndarray:
    """Return standard normal multipliers `(draws, groups)`, cached and read-only: all curves of a study use the same."""
    xi = np.random.default_rng(seed).standard_normal((draws, groups))
    xi.flags.writeable = False
    return xi


def multiplier_maxima(residuals: np.ndarray, draws: int = 4000) -> np.ndarray:
    """Return bootstrap draws of max_k |noise_k| over times k, from which the critical value of a simultaneous band is taken.

    noise_k is a curve of variance 1, from `multiplier_noise`. Curves from G groups have rank G - 1 at most, so that with few groups the
    multiplier bootstrap is too regular over many times. Below `MANY_GROUPS` (40) groups, the maxima of a Gaussian Markov curve are used
    where these, sorted, are larger. It has the same correlations between neighbouring times, which few groups estimate well.

    Args:
        residuals: For each group of paths, the sum of one path's deviation from the mean at each time, `(groups, times)`.
        draws: The number of draws.

    Returns:
        The maxima, `(draws,)`, not necessarily sorted; an empty array if all residuals are 0.
    """
    moving = residuals[:, np.any(residuals, axis=0)]
    if not moving.size:
        return np.zeros(0)
    maxima = np.abs(multiplier_noise(moving, draws)).max(axis=1)
    if len(moving) < MANY_GROUPS:
        maxima = np.maximum(np.sort(maxima), np.sort(np.abs(_markov_noise(moving, draws)).max(axis=1)))
    return maxima


def _markov_noise(residuals: np.ndarray, draws: int, seed: int = 20_231_013) -> np.ndarray:
    """Return `(draws, times)` curves noise_k = rho_k noise_(k-1) + sqrt(1 - rho_k^2) xi_k of variance 1, rho_k the correlation of neighbours.

    With few groups the sample correlation is biased away from 0. Therefore 1 - rho^2 is multiplied by (G - 1) / (G - 2), as in the adjusted
    R^2 of a regression.
    """
    unit = residuals / np.sqrt((residuals**2).sum(axis=0))
    sample, groups = (unit[:, 1:] * unit[:, :-1]).sum(axis=0), len(residuals)
    unexplained = np.clip((1 - sample**2) * (groups - 1) / max(1, groups - 2), 0.0, 1.0)
    rho = np.sign(sample) * np.sqrt(1 - unexplained)
    noise = np.array(_multipliers(draws, residuals.shape[1], seed))
    for k, r in enumerate(rho, 1):
        noise[:, k] = r * noise[:, k - 1] + math.sqrt(1 - r * r) * noise[:, k]
    return noise
