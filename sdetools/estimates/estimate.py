"""No number without its error: an estimate, its interval at any level, and what would sharpen it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sdetools import _check
from sdetools.estimates.interval import ConfidenceInterval, HasInterval, Kind, binomial_interval, miss, quantile

RESOLVED = 4.0
"""A value counts as resolved when its standard error is at most a quarter of it."""


@dataclass(frozen=True)
class Estimate(HasInterval):
    """A Monte-Carlo value with its standard error from `n` paths, and the confidence interval `[low, high]` at the level `confidence`.

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

    @property
    def kind(self) -> Kind:
        """What the level of its interval is a statement about."""
        if not self.random:
            return Kind.EXACT
        return Kind.CLOPPER_PEARSON if self.two_valued and self.bounded else Kind.POINTWISE

    def confidence_interval(self, level: float | None = None) -> ConfidenceInterval:
        """The interval at a level, by default at `confidence`; the whole line where the value is not finite, or nothing is known of its error."""
        level = _check.confidence(self.confidence if level is None else level, "level")
        low, high = self._ends(level) if math.isfinite(self.value) else (-math.inf, math.inf)
        return ConfidenceInterval(low, high, 1.0 if self.kind is Kind.EXACT else level, self.kind)

    def _ends(self, level: float) -> tuple[float, float]:
        """Both ends, for a value that is finite."""
        if not self.random:
            return self.value - self.rounding, self.value + self.rounding
        if self.two_valued and self.bounded:
            width = self.most - self.least
            hits = min(self.n, max(0, round(self.n * (self.value - self.least) / width)))
            low, high = binomial_interval(hits, self.n, level)
            return self.least + width * low - self.rounding, self.least + width * high + self.rounding
        known = self.stderr > 0
        if not (known or self.bounded):
            return -math.inf, math.inf
        half = self.rounding + (quantile(level, self.n + 1 - self.fitted) * self.stderr if known else 0.0)
        if not self.bounded:
            return self.value - half, self.value + half
        missed = min(1.0, miss(level, self.n))
        low, high = self.value - half - missed * (self.value - self.least), self.value + half + missed * (self.most - self.value)
        return max(low, min(self.least, self.value) - self.rounding), min(high, max(self.most, self.value) + self.rounding)

    @property
    def resolved(self) -> bool:
        """Whether the standard error is at most a quarter of the value, above rounding; of a value without spread, whether its interval leaves out 0."""
        if not math.isfinite(self.value):
            return False
        if self.unseen:
            return 0.0 not in self.confidence_interval()
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
