"""The maximum of a curve, with a simultaneous band: by the Gaussian multiplier bootstrap over groups of paths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from sdetools import _check
from sdetools.estimates.estimate import RESOLVED, Estimate
from sdetools.estimates.interval import Kind, miss, quantile

MANY_GROUPS = 40
"""From so many groups on the bootstrap knows the correlations of a curve well enough."""


@dataclass(frozen=True, repr=False)
class SupEstimate(Estimate):
    """max_k |gap_k| over the recorded steps, with the simultaneous (sup-t) band of the curve.

    `value` is the maximum of the estimates, so it leans upwards by about the noise; the interval does not: with the stated probability
    all |gap_k| lie in their bands at once, hence their maximum between max(|gap_k| - c s_k) and max(|gap_k| + c s_k).
    `curve` and `errors` are gap_k and s_k, `draws` the bootstrap's maxima of |noise_k| / s_k; `argmax` is the index of the maximum.
    `points` are the Estimates' fields `random`, `rounding`, `least`, `most` at each time, as arrays; those of the Estimate for all, if empty.
    """

    curve: np.ndarray = field(default_factory=lambda: np.zeros(1))
    errors: np.ndarray = field(default_factory=lambda: np.zeros(1))
    draws: np.ndarray = field(default_factory=lambda: np.zeros(0))
    argmax: int = 0
    time: float = 0.0
    points: Mapping[str, np.ndarray] = field(default_factory=dict, kw_only=True)

    def _along(self, name: str) -> np.ndarray:
        """A field of the Estimate along the curve."""
        return np.broadcast_to(self.points.get(name, getattr(self, name)), np.shape(self.curve))

    def critical(self, confidence: float) -> float:
        """The band's half-width in standard errors: from the bootstrap, never above Bonferroni's, which also serves where draws end."""
        tests = max(1, int(np.count_nonzero(self.errors)))
        bound = quantile(confidence, self.n + 1 - self.fitted, tests)
        if len(self.draws) * (1 - confidence) < 10:
            return bound
        return min(bound, float(np.quantile(self.draws, confidence)))

    def band(self, confidence: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The simultaneous band of the curve; the whole line at times at which nothing is known of the error."""
        confidence = self.confidence if confidence is None else confidence
        random, rounding, least, most = (self._along(name) for name in ("random", "rounding", "least", "most"))
        bounded = random & np.isfinite(least) & np.isfinite(most)
        half = self.critical(confidence) * self.errors + rounding
        half = np.where(random & ~bounded & (self.errors == 0), np.inf, half)
        missed = min(1.0, miss(confidence, self.n, max(1, int(random.sum()))))
        with np.errstate(invalid="ignore"):
            below = np.where(bounded, np.minimum(half + missed * (self.curve - least), self.curve - least), half)
            above = np.where(bounded, np.minimum(half + missed * (most - self.curve), most - self.curve), half)
        return self.curve - below, self.curve + above

    def paths_needed(self, expected: float | None = None) -> int:
        """How many paths bring the standard error at the maximum to a quarter of the gap: of `expected`, or of the value if it is resolved.

        ValueError for an unresolved value and no expectation: noise cannot say how large the gap is.
        """
        if expected is None and not self.resolved:
            raise ValueError(
                f"`expected` must be given, for the gap is unresolved: {self.value:.3g} with standard error {self.stderr:.3g}. "
                "Pass the size of gap that you want to see."
            )
        return self.paths_for((self.value if expected is None else _check.positive("expected", expected)) / RESOLVED)

    def bootstrap(self, noise: np.ndarray) -> np.ndarray:
        """The maximum with noise curves (draws, times), in standard errors, added to it."""
        return np.abs(self.curve + noise * self.errors).max(axis=1)

    @property
    def kind(self) -> Kind:
        return Kind.SIMULTANEOUS if self.random else Kind.EXACT

    def _ends(self, level: float) -> tuple[float, float]:
        if not np.isfinite(self.curve).all() or not np.isfinite(self.errors).all():
            return -math.inf, math.inf
        low, high = self.band(level)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return -math.inf, math.inf
        least = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
        return float(least.max()), float(np.maximum(np.abs(low), np.abs(high)).max())


def multiplier_noise(residuals: np.ndarray, draws: int, seed: int = 20_231_011) -> np.ndarray:
    """Gaussian multiplier bootstrap over groups: noise curves sum_g xi_g r_gk / sqrt(sum_g r_gk^2), `(draws, times)`; 0 where r is.

    `residuals` `(groups, times)` are centred sums of each group. The Gaussian multipliers are fixed by `seed`, and the sums are taken in
    a fixed order, so that results are reproducible to the bit. Source: V. Chernozhukov et al., Annals of Statistics 41 (2013).
    """
    scale = np.sqrt((residuals**2).sum(axis=0))
    normalised = np.divide(residuals, scale, out=np.zeros_like(residuals), where=scale > 0)
    return np.einsum("bg,gk->bk", _multipliers(draws, len(residuals), seed), normalised)


@lru_cache(maxsize=8)
def _multipliers(draws: int, groups: int, seed: int) -> np.ndarray:
    """The Gaussian multipliers: the same for all curves of a study, so they are drawn once."""
    xi = np.random.default_rng(seed).standard_normal((draws, groups))
    xi.flags.writeable = False
    return xi


def multiplier_maxima(residuals: np.ndarray, draws: int = 4000) -> np.ndarray:
    """The maxima over k of |noise_k|, for the band's critical value; empty when nothing is random.

    Sums of G groups have rank G - 1 at most: with few of them the multiplier bootstrap is too regular over many times. Below `MANY_GROUPS`
    the maxima are therefore those of a Gaussian Markov curve with the same correlations from one time to the next, which are what few
    groups know well, where these are larger.
    """
    moving = residuals[:, np.any(residuals, axis=0)]
    if not moving.size:
        return np.zeros(0)
    found = np.abs(multiplier_noise(moving, draws)).max(axis=1)
    if len(moving) < MANY_GROUPS:
        found = np.maximum(np.sort(found), np.sort(np.abs(_markov_noise(moving, draws)).max(axis=1)))
    return found


def _markov_noise(residuals: np.ndarray, draws: int, seed: int = 20_231_013) -> np.ndarray:
    """Curves of variance 1 with noise_k = rho_k noise_(k-1) + sqrt(1 - rho_k^2) xi_k, rho_k the correlation of neighbours.

    Few groups see too much of it by chance: 1 - rho^2 is taken times (G - 1) / (G - 2), as in the adjusted R^2 of a regression.
    """
    unit = residuals / np.sqrt((residuals**2).sum(axis=0))
    seen, groups = (unit[:, 1:] * unit[:, :-1]).sum(axis=0), len(residuals)
    left = np.clip((1 - seen**2) * (groups - 1) / max(1, groups - 2), 0.0, 1.0)
    rho = np.sign(seen) * np.sqrt(1 - left)
    noise = np.array(_multipliers(draws, residuals.shape[1], seed))
    for k, r in enumerate(rho, 1):
        noise[:, k] = r * noise[:, k - 1] + math.sqrt(1 - r * r) * noise[:, k]
    return noise
