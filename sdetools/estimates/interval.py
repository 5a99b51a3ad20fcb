"""Confidence intervals, the form in which all results report their error, and the quantiles from which they are computed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from sdetools import _check


class Kind(StrEnum):
    """What the confidence level of an interval refers to, or how the interval was computed; the values are the texts of reports.

    Pointwise is the interval of one value, simultaneous that of all points of a curve at once. Exact means that no random draw enters.
    Bootstrap, jackknife and Clopper-Pearson say how the interval of one value was computed.
    """

    POINTWISE = "pointwise"
    """A single value, from its standard error with a normal or Student's t quantile."""
    SIMULTANEOUS = "simultaneous"
    """All points of a curve simultaneously."""
    BOOTSTRAP = "bootstrap"
    JACKKNIFE = "jackknife"
    CLOPPER_PEARSON = "Clopper-Pearson"
    """A probability, from counts. The coverage is at least the level for every number of paths."""
    EXACT = "exact"
    """No draw enters; only rounding errors remain."""


@dataclass(frozen=True)
class ConfidenceInterval:
    """A closed interval `[low, high]` that contains the true value with probability `level`; infinite where the error is unknown.

    It unpacks as SciPy's does: `low, high = interval`; `value in interval` tests whether it contains a number. If one end is NaN, both
    become infinite.

    Args:
        low: The lower end; `-inf` if there is none.
        high: The upper end, not below `low`; `inf` if there is none.
        level: The confidence level, 0 < level <= 1; 1 for an exact value.
        kind: What the level refers to; see `Kind`.

    Raises:
        ValueError: If `high` lies below `low`, or the level is not in (0, 1].

    Example:
        >>> import sdetools as st
        >>> interval = st.ConfidenceInterval(0.9, 1.1)
        >>> low, high = interval
        >>> 1.0 in interval, interval.within(0.5, 1.5), interval.disjoint(1.2, 2.0), f"{interval}"
        (True, True, True, '[0.9, 1.1]')
    """

    low: float
    high: float
    level: float = 0.95
    kind: Kind = Kind.POINTWISE

    def __post_init__(self) -> None:
        if math.isnan(self.low) or math.isnan(self.high):
            object.__setattr__(self, "low", -math.inf)
            object.__setattr__(self, "high", math.inf)
        if not self.low <= self.high:
            raise ValueError(f"`low` must not lie above `high`; got [{self.low!r}, {self.high!r}]. Swap the two.")
        if not 0 < self.level <= 1:
            raise ValueError(f"`level` must lie in (0, 1]; got {self.level!r}. For 95 % write 0.95.")
        object.__setattr__(self, "kind", Kind(self.kind))

    @classmethod
    def unknown(cls, level: float = 0.95, kind: Kind = Kind.POINTWISE) -> ConfidenceInterval:
        """Return the interval from -inf to inf of a value whose error is unknown, with the given confidence level, in (0, 1], and kind."""
        return cls(-math.inf, math.inf, level, kind)

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def width(self) -> float:
        """The distance high - low of the two ends; infinite if an end is infinite."""
        return self.high - self.low

    @property
    def half_width(self) -> float:
        """Half of the distance of the two ends; infinite if an end is infinite."""
        return self.width / 2

    @property
    def finite(self) -> bool:
        """Whether both ends are finite; False if the error of the value is unknown."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def within(self, low: float, high: float) -> bool:
        """Return whether the interval lies inside the closed range `[low, high]`, whose ends may be infinite."""
        return low <= self.low and self.high <= high

    def disjoint(self, low: float, high: float) -> bool:
        """Return whether the interval and the closed range `[low, high]` have no common point, not even an end."""
        return self.high < low or self.low > high

    def widened(self, by: float) -> ConfidenceInterval:
        """Return a copy with both ends moved outwards by `by` >= 0, a bound of an error that is not random, such as rounding."""
        return replace(self, low=self.low - by, high=self.high + by)

    def __mul__(self, factor: float) -> ConfidenceInterval:
        """Return the interval of the value times a positive factor."""
        return replace(self, low=self.low * factor, high=self.high * factor)

    def __str__(self) -> str:
        return f"[{self.low:.4g}, {self.high:.4g}]"


class HasInterval:
    """The base class of results with a `value`, a number, and a confidence interval; `float(result)` is the value.

    Subclasses set `value` and implement `confidence_interval(level)`, which returns a `ConfidenceInterval`; with level None it is the interval at the
    level of the result. `low`, `high` and `half_width` are read from it.
    """

    value: float

    def confidence_interval(self, level: float | None = None) -> ConfidenceInterval:
        """Return the confidence interval of the value at the confidence level `level`, in (0, 1); None takes the level of the result."""
        raise NotImplementedError

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the ends `(low, high)` of `confidence_interval(confidence)`, with a DeprecationWarning: use that method instead."""
        warnings.warn("`interval(confidence)` is now `confidence_interval(level)`.", DeprecationWarning, stacklevel=2)
        low, high = self.confidence_interval(confidence)
        return low, high

    @property
    def low(self) -> float:
        """The lower end of the confidence interval at the level of the result."""
        return self.confidence_interval().low

    @property
    def high(self) -> float:
        """The upper end of the confidence interval at the level of the result."""
        return self.confidence_interval().high

    @property
    def half_width(self) -> float:
        """Half of the width of the confidence interval at the level of the result; infinite if the error is unknown."""
        return self.confidence_interval().half_width

    def __float__(self) -> float:
        return float(self.value)


def quantile(level: float, n: int, tests: int = 1) -> float:
    """Return the two-sided critical value q of a confidence interval `value +- q stderr`, a positive number.

    It is that of Student's t with n - 1 degrees of freedom (at least 1), or of the normal distribution for n > 2000.

    Args:
        level: The confidence level, strictly between 0 and 1; ValueError otherwise.
        n: The number of paths from which the standard error is computed.
        tests: The number of intervals that shall all contain their values at once with probability `level` (Bonferroni's correction).

    Example:
        >>> from sdetools.estimates.interval import quantile
        >>> round(quantile(0.95, 10**6), 3), round(quantile(0.95, 10), 3)
        (1.96, 2.262)
    """
    from scipy.special import ndtri, stdtrit

    _check.confidence(level, "level")
    tail = (1 - level) / (2 * tests)
    return float(-ndtri(tail) if n > 2000 else -stdtrit(max(1, n - 1), tail))


def undetected_probability(level: float, n: int, tests: int = 1) -> float:
    """Return log(2 tests / (1 - level)) / n, the largest probability of an event that `n` paths may miss at a confidence level.

    An event of probability p is missed by all n paths with probability (1 - p)^n <= exp(-n p), here at most (1 - level) / (2 tests). The value
    exceeds 1 if n is small. At level 0.95 it is 3.7 / n; the one-sided form log(1 / (1 - level)) / n is the rule of three, 3 / n.

    Args:
        level: The confidence level, below 1.
        n: The number of paths; 0 counts as 1.
        tests: The number of intervals that shall all contain their values at once with probability `level` (Bonferroni's correction).

    Example:
        >>> from sdetools.estimates.interval import undetected_probability
        >>> round(undetected_probability(0.95, 1000), 5)
        0.00369
    """
    return math.log(2 * tests / (1 - level)) / max(1, n)


def binomial_interval(hits: int, n: int, level: float = 0.95) -> ConfidenceInterval:
    """Return Clopper and Pearson's interval of a probability; its coverage is at least the level for every n and every probability.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413.

    Args:
        hits: The number of successes, from 0 to n. For 0 the lower end is 0, for n the upper end is 1.
        n: The number of trials; for 0 the interval is [0, 1].
        level: The confidence level, strictly between 0 and 1.

    Returns:
        The interval, inside [0, 1], of kind `Kind.CLOPPER_PEARSON`.

    Example:
        >>> from sdetools.estimates.interval import binomial_interval
        >>> low, high = binomial_interval(0, 20_000, 0.95)
        >>> low, round(high, 6)
        (0.0, 0.000184)
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    return ConfidenceInterval(
        float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0,
        float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0,
        level,
        Kind.CLOPPER_PEARSON,
    )
