"""No number without its error: an estimate, its interval at any confidence, and what would sharpen it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from sdetools import _check

RESOLVED = 4.0
"""A value counts as resolved when its standard error is at most a quarter of it."""


def quantile(confidence: float, n: int, tests: int = 1) -> float:
    """The two-sided critical value of one of `tests` simultaneous intervals: Student's t for few paths, normal for many.

    >>> round(quantile(0.95, 10**6), 3), round(quantile(0.95, 10), 3)
    (1.96, 2.262)
    """
    from scipy.special import ndtri, stdtrit

    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie strictly between 0 and 1; got confidence={confidence!r}.")
    tail = (1 - confidence) / (2 * tests)
    return float(-ndtri(tail) if n > 2000 else -stdtrit(max(1, n - 1), tail))


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo value with its standard error from `n` paths, and the interval `[low, high]` at `confidence`.

    `diverged` counts paths that left the finite range before this was recorded, `first_divergence` the first such step (-1: none).
    `fitted` counts the numbers estimated beside the error (the mean; a control's slope), which few paths feel in Student's t.
    A value that rests on lost paths is NaN, with an infinite interval: survivors alone would give a wrong number.

    >>> e = Estimate(0.5, 0.1, 10_000, name="E x")
    >>> e
    E x = 0.50 +- 0.20 (95 %, 10000 paths)
    >>> e.paths_for(0.01)
    1000000
    """

    value: float
    stderr: float
    n: int
    confidence: float = 0.95
    name: str = ""
    diverged: int = 0
    first_divergence: int = -1
    fitted: int = 1

    @classmethod
    def exact(cls, value: float, name: str = "") -> Estimate:
        """A number without error."""
        return cls(float(value), 0.0, 0, name=name)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The interval at another confidence; the whole line when the value is not finite."""
        if not math.isfinite(self.value) or math.isnan(self.stderr):
            return -math.inf, math.inf
        if self.stderr == 0:
            return self.value, self.value
        half = quantile(confidence, self.n + 1 - self.fitted) * self.stderr
        return self.value - half, self.value + half

    @property
    def low(self) -> float:
        return self.interval(self.confidence)[0]

    @property
    def high(self) -> float:
        return self.interval(self.confidence)[1]

    @property
    def half_width(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    @property
    def resolved(self) -> bool:
        """Whether the standard error is at most a quarter of the value."""
        return math.isfinite(self.value) and bool(self.stderr * RESOLVED <= abs(self.value))

    def paths_for(self, stderr: float) -> int:
        """How many paths bring the standard error down to `stderr`."""
        _check.positive("stderr", stderr)
        return max(1, math.ceil(self.n * (self.stderr / stderr) ** 2))

    def z(self, truth: float) -> float:
        """How many standard errors the value lies from `truth`; 0 when both agree without error."""
        if self.stderr == 0:
            return 0.0 if math.isclose(self.value, truth, rel_tol=1e-12, abs_tol=1e-300) else math.inf
        return (self.value - truth) / self.stderr

    def __repr__(self) -> str:
        name = f"{self.name} = " if self.name else ""
        if not math.isfinite(self.value):
            lost = (
                f", {self.diverged} paths left the finite range, first at step {self.first_divergence}" if self.diverged else ""
            )
            return f"{name}{self.value} ({self.n} paths{lost})"
        if self.stderr == 0:
            return f"{name}{self.value:.10g} (exact)"
        half = self.half_width
        if not math.isfinite(half):
            return f"{name}{self.value:.4g} +- inf ({self.n} paths: too few for an error)"
        digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 6
        told = f"{self.value:.{digits}f} +- {half:.{digits}f}" if digits < 7 else f"{self.value:.4g} +- {half:.2g}"
        return f"{name}{told} ({100 * self.confidence:g} %, {self.n} paths)"


@dataclass(frozen=True, repr=False)
class SupEstimate(Estimate):
    """max_k |gap_k| over the recorded steps, with the simultaneous (sup-t) band of the curve.

    `value` is the maximum of the estimates, so it leans upwards by about the noise; the interval does not: with the stated probability
    all |gap_k| lie in their bands at once, hence their maximum between max(|gap_k| - c s_k) and max(|gap_k| + c s_k).
    `curve` and `errors` are gap_k and s_k, `draws` the bootstrap's maxima of |noise_k| / s_k; `argmax` is the index of the maximum.
    """

    curve: np.ndarray = field(default_factory=lambda: np.zeros(1))
    errors: np.ndarray = field(default_factory=lambda: np.zeros(1))
    draws: np.ndarray = field(default_factory=lambda: np.zeros(0))
    argmax: int = 0
    time: float = 0.0

    def critical(self, confidence: float) -> float:
        """The band's half-width in standard errors: from the bootstrap, never above Bonferroni's, which also serves where draws end."""
        tests = max(1, int(np.count_nonzero(self.errors)))
        bound = quantile(confidence, self.n + 1 - self.fitted, tests)
        if len(self.draws) * (1 - confidence) < 10:
            return bound
        return min(bound, float(np.quantile(self.draws, confidence)))

    def band(self, confidence: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The simultaneous band of the curve."""
        half = self.critical(self.confidence if confidence is None else confidence) * self.errors
        return self.curve - half, self.curve + half

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

    def interval(self, confidence: float) -> tuple[float, float]:
        if not np.isfinite(self.curve).all() or not np.isfinite(self.errors).all():
            return -math.inf, math.inf
        low, high = self.band(confidence)
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
    """The maxima over k of |noise_k| of the multiplier bootstrap; empty when nothing is random."""
    if not np.any(residuals):
        return np.zeros(0)
    return np.abs(multiplier_noise(residuals, draws)).max(axis=1)
