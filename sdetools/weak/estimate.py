"""No number without its error: an estimate, its interval at any confidence, and what would sharpen it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from sdetools import _check

RESOLVED = 4.0
"""A value counts as resolved when its standard error is at most a quarter of it."""


MANY_GROUPS = 40
"""From so many groups on the bootstrap knows the correlations of a curve well enough."""


def quantile(confidence: float, n: int, tests: int = 1) -> float:
    """The two-sided critical value of one of `tests` simultaneous intervals: Student's t for few paths, normal for many.

    >>> round(quantile(0.95, 10**6), 3), round(quantile(0.95, 10), 3)
    (1.96, 2.262)
    """
    from scipy.special import ndtri, stdtrit

    _check.confidence(confidence)
    tail = (1 - confidence) / (2 * tests)
    return float(-ndtri(tail) if n > 2000 else -stdtrit(max(1, n - 1), tail))


def miss(confidence: float, n: int, tests: int = 1) -> float:
    """log(2 tests / (1 - confidence)) / n: an event that is more likely than this shows up among `n` paths with that confidence.

    (1 - p)^n <= exp(-n p). For p = 3.7 / n at 95 %, two-sided: the rule of three.

    >>> round(miss(0.95, 1000), 5)
    0.00369
    """
    return math.log(2 * tests / (1 - confidence)) / max(1, n)


def binomial_interval(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a probability from `hits` among `n`: it holds at every n and every probability.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413.

    >>> [round(v, 6) for v in binomial_interval(0, 20_000, 0.95)]
    [0.0, 0.000184]
    """
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    return (
        float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0,
        float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0,
    )


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo value with its standard error from `n` paths, and the interval `[low, high]` at `confidence`.

    `diverged` counts paths that left the finite range before this was recorded, `first_divergence` the first such step (-1: none).
    `fitted` counts the numbers estimated beside the error (the mean; a control's slope), which few paths feel in Student's t.
    A value that rests on lost paths is NaN, with an infinite interval: survivors alone would give a wrong number.

    `random` is False where no draw enters: then the value is exact up to `rounding`, the error of floating-point numbers. It is known
    from the computation; a standard error of 0 proves nothing, for paths that all agree may all have missed a rare event. What they may
    have missed enters the interval through the bounds `least` and `most` of one path's value, where these are known:

        [value - q stderr - (value - least) L, value + q stderr + (most - value) L],  L = log(2 / (1 - confidence)) / n,

    for an event of probability above L is missed by all n with a chance below (1 - confidence) / 2, and one below it moves the mean by at
    most its probability times the distance to the bound. `two_valued`: a path's value is `least` or `most`; the interval is then Clopper
    and Pearson's. Without bounds and without a spread the interval is the whole line.

    >>> e = Estimate(0.5, 0.1, 10_000, name="E x")
    >>> e
    E x = 0.50 +- 0.20 (95 %, 10000 paths)
    >>> e.paths_for(0.01)
    1000000
    >>> Estimate(0.0, 0.0, 20_000, least=0.0, most=1.0, two_valued=True).high < 0.0002
    True
    """

    value: float
    stderr: float
    n: int
    confidence: float = 0.95
    name: str = ""
    diverged: int = 0
    first_divergence: int = -1
    fitted: int = 1
    random: bool = field(default=True, kw_only=True)
    rounding: float = field(default=0.0, kw_only=True)
    least: float = field(default=-math.inf, kw_only=True)
    most: float = field(default=math.inf, kw_only=True)
    two_valued: bool = field(default=False, kw_only=True)

    @classmethod
    def exact(cls, value: float, name: str = "") -> Estimate:
        """A number without error."""
        return cls(float(value), 0.0, 0, name=name, random=False)

    @property
    def bounded(self) -> bool:
        """Whether bounds of one path's value are known."""
        return math.isfinite(self.least) and math.isfinite(self.most)

    @property
    def unseen(self) -> bool:
        """Whether draws enter and yet all paths agree: then the standard error says nothing."""
        return self.random and self.stderr == 0

    @property
    def why_open(self) -> str:
        """Why there is no finite interval, and the way out; empty where there is one."""
        if not math.isfinite(self.value) or math.isfinite(self.half_width):
            return ""
        if self.unseen:
            return (
                f"its {self.n:,} paths show no spread, which proves nothing where draws enter and no bounds are known; "
                "state bounds with st.Bounded or st.Indicator"
            )
        return f"{self.n:,} path{'s are' if self.n != 1 else ' is'} too few for an error; take more"

    def interval(self, confidence: float) -> tuple[float, float]:
        """The interval at another confidence; the whole line when the value is not finite, or nothing is known of its error."""
        if not math.isfinite(self.value):
            return -math.inf, math.inf
        if not self.random:
            return self.value - self.rounding, self.value + self.rounding
        if self.two_valued and self.bounded:
            width = self.most - self.least
            hits = min(self.n, max(0, round(self.n * (self.value - self.least) / width)))
            low, high = binomial_interval(hits, self.n, confidence)
            return self.least + width * low - self.rounding, self.least + width * high + self.rounding
        known = self.stderr > 0
        if not (known or self.bounded):
            return -math.inf, math.inf
        half = self.rounding + (quantile(confidence, self.n + 1 - self.fitted) * self.stderr if known else 0.0)
        if not self.bounded:
            return self.value - half, self.value + half
        missed = min(1.0, miss(confidence, self.n))
        low, high = self.value - half - missed * (self.value - self.least), self.value + half + missed * (self.most - self.value)
        return max(low, min(self.least, self.value) - self.rounding), min(high, max(self.most, self.value) + self.rounding)

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
        """Whether the standard error is at most a quarter of the value, above rounding; of a value without spread, whether its interval leaves out 0."""
        if not math.isfinite(self.value):
            return False
        if self.unseen:
            low, high = self.interval(self.confidence)
            return low > 0 or high < 0
        return bool(self.stderr * RESOLVED + self.rounding <= abs(self.value))

    def paths_for(self, stderr: float) -> int:
        """How many paths bring the standard error down to `stderr`."""
        _check.positive("stderr", stderr)
        return max(1, math.ceil(self.n * (self.stderr / stderr) ** 2))

    def z(self, truth: float) -> float:
        """How many standard errors the value lies from `truth`; 0 when both agree without error, NaN where the error is not known."""
        if self.unseen:
            return math.nan
        if self.stderr == 0:
            near = math.isclose(self.value, truth, rel_tol=1e-12, abs_tol=max(self.rounding, 1e-300))
            return 0.0 if near else math.inf
        return (self.value - truth) / self.stderr

    def __repr__(self) -> str:
        name = f"{self.name} = " if self.name else ""
        if not math.isfinite(self.value):
            lost = (
                f", {self.diverged} paths left the finite range, first at step {self.first_divergence}"
                if self.diverged
                else ": not finite on all of them, though the paths are"
            )
            return f"{name}{self.value} ({self.n} paths{lost})"
        if not self.random:
            return f"{name}{self.value:.10g} (exact)"
        half = self.half_width
        if not math.isfinite(half):
            why = "no spread, and no bounds known" if self.unseen else "too few for an error"
            return f"{name}{self.value:.4g} +- inf ({self.n} paths: {why})"
        if self.bounded and (self.unseen or self.two_valued):
            return f"{name}{self.value:.4g} in [{self.low:.4g}, {self.high:.4g}] ({100 * self.confidence:g} %, {self.n} paths)"
        digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 6
        told = f"{self.value:.{digits}f} +- {half:.{digits}f}" if digits < 7 else f"{self.value:.4g} +- {half:.2g}"
        return f"{name}{told} ({100 * self.confidence:g} %, {self.n} paths)"


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

    def interval(self, confidence: float) -> tuple[float, float]:
        if not np.isfinite(self.curve).all() or not np.isfinite(self.errors).all():
            return -math.inf, math.inf
        low, high = self.band(confidence)
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
