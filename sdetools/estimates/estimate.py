"""A Monte Carlo estimate: its value, standard error, confidence interval at any level, and the paths that a smaller error takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.estimates.interval import ConfidenceInterval, HasInterval, Kind, binomial_interval, quantile, undetected_probability

RESOLVED = 4.0
"""A value counts as resolved if it is at least this many standard errors."""


OVERFLOW = "the squares of its values overflow; observe a smaller multiple, or the logarithm"
"""Why the standard error of a finite mean is not finite, with a remedy, as text."""
WHY_NOT_FINITE = "not a finite number on each of them, though the paths are; the observable overflows there or leaves its domain"
"""Why a mean is not finite although no path diverged, as text."""


def _alike(a: Any, b: Any) -> bool:
    """Return whether two numbers, arrays, or mappings to these are equal, with NaN equal to NaN."""
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, (float, np.ndarray)):
        return np.array_equal(a, b, equal_nan=True)
    return bool(a == b)


@dataclass(frozen=True)
class Estimate(HasInterval):
    """A Monte Carlo value with its standard error from `n` paths, and the confidence interval `[low, high]` at the level `confidence`.

    A value that depends on diverged paths is NaN, with an infinite interval: the mean over the remaining paths would be wrong.

    A standard error of 0 does not prove that a value is exact, since all paths may have missed a rare event. Where the bounds `least` and
    `most` of one path's value are known, the interval allows for such events:

        [value - q stderr - (value - least) L, value + q stderr + (most - value) L],  L = log(2 / (1 - confidence)) / n,

    with q the two-sided quantile of Student's t or of the normal distribution, and L at most 1; the ends are cut at the bounds, and `rounding`
    is added. All n paths miss an event of probability above L with probability below (1 - confidence) / 2; an event of smaller probability
    changes the mean by at most its probability times the distance to the bound. Without bounds and without a spread the interval is infinite.

    Two estimates are equal (`==`) if they have the same class and all their numbers are equal, NaN included.

    Attributes:
        value: The estimate.
        stderr: Its standard error.
        n: The number of paths.
        confidence: The confidence level of `low` and `high`.
        name: What is estimated, for printing.
        diverged: The number of paths whose state left the finite numbers before the value was recorded.
        first_divergence: The first step at which such a path left them; -1 if none did.
        fitted: The number of fitted parameters (the mean; the slope of a control variate), which reduce the degrees of freedom of Student's
            t.
        random: Whether random draws enter. If not, the value is exact up to `rounding`, and the interval is value +- rounding. This is known
            from the computation, not from the spread.
        rounding: A bound of the floating-point error.
        least: A lower bound of one path's value; -inf if unknown.
        most: An upper bound of one path's value; inf if unknown.
        two_valued: Whether one path's value is either `least` or `most`. The interval is then that of Clopper and Pearson, if both are finite.
        skewness: The skewness of the law of `value`, as far as groups of paths show it (`skewness_of_mean`); far out in the tails, where
            verdicts look, a skewed law has other quantiles than the normal one.

    Example:
        >>> import sdetools as st
        >>> e = st.Estimate(0.5, 0.1, 10_000, name="E x")
        >>> e
        E x = 0.50 +- 0.20 (95 %, 10000 paths)
        >>> e.paths_for(0.01)
        1000000
        >>> st.Estimate(0.0, 0.0, 20_000, least=0.0, most=1.0, two_valued=True).high < 0.0002
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
    skewness: float = field(default=0.0, kw_only=True)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(_alike(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    @classmethod
    def exact(cls, value: float, name: str = "") -> Estimate:
        """Return the Estimate of a number `value` that is known without error: no paths (n = 0), standard error 0, and an interval of width 0.

        `name` says what the number is, for printing.
        """
        return cls(float(value), 0.0, 0, name=name, random=False)

    @property
    def bounded(self) -> bool:
        """Whether both bounds of one path's value, `least` and `most`, are known, that is, finite."""
        return math.isfinite(self.least) and math.isfinite(self.most)

    @property
    def unseen(self) -> bool:
        """Whether the standard error is 0 although random draws enter, because all paths agree; it is then not informative."""
        return self.random and self.stderr == 0

    @property
    def why_not_finite(self) -> str:
        """The reason why the value is not finite, with a remedy, as text: the diverged paths, or the observable. Empty if it is finite."""
        if math.isfinite(self.value):
            return ""
        if not self.diverged:
            return WHY_NOT_FINITE
        return f"{self.diverged} paths left the finite range, first at step {self.first_divergence}; take smaller steps or an earlier time"

    @property
    def why_open(self) -> str:
        """The reason why the interval is infinite although the value is finite, with a remedy, as text; empty if the interval is finite.

        It is also empty for a value that is not finite, which `diverged` explains.
        """
        if not math.isfinite(self.value) or math.isfinite(self.half_width):
            return ""
        if self.unseen:
            return (
                f"its {self.n:,} paths show no spread, which proves nothing where draws enter and no bounds are known; "
                "state bounds with st.Bounded or st.Indicator"
            )
        if self._overflows:
            return OVERFLOW
        return f"{self.n:,} path{'s are' if self.n != 1 else ' is'} too few for an error; take more"

    @property
    def _overflows(self) -> bool:
        """Whether the standard error is not finite although there are paths enough: the squares of their values overflow."""
        return self.n > 1 and not math.isfinite(self.stderr)

    @property
    def kind(self) -> Kind:
        """What the confidence level refers to: `Kind.EXACT`, `Kind.CLOPPER_PEARSON` or `Kind.POINTWISE`.

        It is exact if no random draw enters, and Clopper-Pearson if one path's value is either `least` or `most` and both are finite.
        """
        if not self.random:
            return Kind.EXACT
        return Kind.CLOPPER_PEARSON if self.two_valued and self.bounded else Kind.POINTWISE

    def confidence_interval(self, level: float | None = None) -> ConfidenceInterval:
        """Return the confidence interval of the value.

        Args:
            level: The confidence level; by default the attribute `confidence`.

        Returns:
            The interval, infinite where the value is not finite or its error is unknown. If no random draw enters, its level is 1.

        Raises:
            ValueError: If the level does not lie strictly between 0 and 1.
        """
        level = _check.confidence(self.confidence if level is None else level, "level")
        low, high = self._ends(level) if math.isfinite(self.value) else (-math.inf, math.inf)
        return ConfidenceInterval(low, high, 1.0 if self.kind is Kind.EXACT else level, self.kind)

    def _ends(self, level: float) -> tuple[float, float]:
        """Return both ends of the interval of a finite value at a confidence level."""
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
        missed = min(1.0, undetected_probability(level, self.n))
        low, high = self.value - half - missed * (self.value - self.least), self.value + half + missed * (self.most - self.value)
        return max(low, min(self.least, self.value) - self.rounding), min(high, max(self.most, self.value) + self.rounding)

    @property
    def resolved(self) -> bool:
        """Whether |value| is at least four standard errors plus its rounding error; False if the value is not finite.

        A random value without spread is resolved if its interval excludes 0.
        """
        if not math.isfinite(self.value):
            return False
        if self.unseen:
            return 0.0 not in self.confidence_interval()
        return bool(self.stderr * RESOLVED + self.rounding <= abs(self.value))

    def paths_for(self, stderr: float) -> int:
        """Return the number of paths, an integer, that reduces the standard error to `stderr`.

        It is n (s / stderr)^2, rounded up and at least 1, with the standard error s of this estimate and its n paths.

        Raises:
            ValueError: If `stderr` is not positive, or the number is not below 2^64, as for a standard error that is not finite.
        """
        _check.positive("stderr", stderr)
        needed = self.n * (self.stderr / stderr) * (self.stderr / stderr)
        if not needed < 2.0**64:
            raise ValueError(
                f"`stderr` must be one that a number of paths below 2^64 reaches; got {stderr:g}, with a standard error of {self.stderr:g} "
                f"from {self.n:,} paths. Take a larger one, or an observable whose variance is finite."
            )
        return max(1, math.ceil(needed))

    def z(self, truth: float) -> float:
        """Return the z-score (value - truth) / stderr, the distance to a known exact value `truth` in standard errors.

        If the standard error is 0, it is NaN where random draws enter (the error is unknown), and for an exact value 0 if both agree up to
        rounding, else infinity.
        """
        if self.unseen:
            return math.nan
        if self.stderr == 0:
            near = math.isclose(self.value, truth, rel_tol=1e-12, abs_tol=max(self.rounding, 1e-300))
            return 0.0 if near else math.inf
        return (self.value - truth) / self.stderr

    def __repr__(self) -> str:
        name = f"{self.name} = " if self.name else ""
        if not math.isfinite(self.value):
            return f"{name}{self.value} ({self.n} paths{', ' if self.diverged else ': '}{self.why_not_finite})"
        if not self.random:
            return f"{name}{self.value:.10g} (exact)"
        half = self.half_width
        if not math.isfinite(half):
            why = "no spread, and no bounds known" if self.unseen else OVERFLOW if self._overflows else "too few for an error"
            return f"{name}{self.value:.4g} +- inf ({self.n} paths: {why})"
        if self.bounded and (self.unseen or self.two_valued):
            return f"{name}{self.value:.4g} in [{self.low:.4g}, {self.high:.4g}] ({100 * self.confidence:g} %, {self.n} paths)"
        digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 6
        interval = f"{self.value:.{digits}f} +- {half:.{digits}f}" if digits < 7 else f"{self.value:.4g} +- {half:.2g}"
        return f"{name}{interval} ({100 * self.confidence:g} %, {self.n} paths)"


SKEWNESS_ERRORS = 1.5
"""Standard errors by which an estimated skewness is lowered: with none a normal mean would often look skewed, with more a skewed one normal."""


def skewness_of_mean(groups: np.ndarray, counts: np.ndarray | None = None) -> float:
    """Return the skewness of the mean of all paths that exceeds 1.5 standard errors of its estimate; 0 if it does not, or below 8 groups.

    With S_g the sum of the deviations of the n_g paths of group g from the mean, it is sum S_g^3 / (sum S_g^2)^{3/2}: sums of independent
    paths have moments about the mean that add up to third order, so groups may differ in size. The standard error is
    sqrt(6 sum n_g^3) / (sum n_g)^{3/2}, for G equal groups sqrt(6) / G.

    Args:
        groups: The means of the groups, sets of paths, `(G,)`.
        counts: The numbers n_g of their paths, `(G,)`; None for equal ones.

    Example:
        >>> import numpy as np
        >>> from sdetools.estimates.estimate import skewness_of_mean
        >>> rng = np.random.default_rng(0)
        >>> skewness_of_mean(rng.normal(size=100)), skewness_of_mean(rng.exponential(size=100)) > 0.05
        (0.0, True)
    """
    sizes = np.ones(len(groups)) if counts is None else np.asarray(counts, dtype=float)
    total = sizes.sum()
    with np.errstate(all="ignore"):  # moments of diverged paths are not finite
        deviation = sizes * (groups - np.sum(sizes * groups) / total)
        seen = float(np.sum(deviation**3) / np.sum(deviation**2) ** 1.5)
    if len(groups) < 8 or not math.isfinite(seen):
        return 0.0
    error = math.sqrt(6 * float(np.sum(sizes**3)) / total**3)
    return math.copysign(max(0.0, abs(seen) - SKEWNESS_ERRORS * error), seen) + 0.0
