"""Confidence intervals: the one form in which every result says how far its value may be off."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from sdetools import _check


class Kind(StrEnum):
    """What an interval's level is a statement about, and how it was found."""

    POINTWISE = "pointwise"
    """One value, from its standard error: normal, or Student's t."""
    SIMULTANEOUS = "simultaneous"
    """All points of a curve at once."""
    BOOTSTRAP = "bootstrap"
    JACKKNIFE = "jackknife"
    CLOPPER_PEARSON = "Clopper-Pearson"
    """A probability, from counts: at least the level at every number of paths."""
    EXACT = "exact"
    """No draw enters: what is left is rounding."""


@dataclass(frozen=True)
class ConfidenceInterval:
    """`[low, high]`, closed, that holds the true value with probability `level`; the whole line where nothing is known.

    It unpacks as SciPy's does: `low, high = interval`. `level` is 1 for an exact one. An end that is NaN is an end that nobody knows: then
    it is the whole line.

    Args:
        low: The lower end, `-inf` if there is none.
        high: The upper end, not below `low`.
        level: The confidence level, in (0, 1].
        kind: What the level is a statement about; see `Kind`.

    Raises:
        ValueError: `high` lies below `low`, or the level is not in (0, 1].

    Example:
        >>> interval = ConfidenceInterval(0.9, 1.1)
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
        """The whole line: nothing is known of the error."""
        return cls(-math.inf, math.inf, level, kind)

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def half_width(self) -> float:
        return self.width / 2

    @property
    def finite(self) -> bool:
        """Whether both ends are."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def within(self, low: float, high: float) -> bool:
        """Whether all of it lies in `[low, high]`."""
        return low <= self.low and self.high <= high

    def disjoint(self, low: float, high: float) -> bool:
        """Whether none of it lies in `[low, high]`; touching is not disjoint."""
        return self.high < low or self.low > high

    def widened(self, by: float) -> ConfidenceInterval:
        """Both ends moved out, by a bound of an error that the level does not know of."""
        return replace(self, low=self.low - by, high=self.high + by)

    def __mul__(self, factor: float) -> ConfidenceInterval:
        """That of the value times a positive factor."""
        return replace(self, low=self.low * factor, high=self.high * factor)

    def __str__(self) -> str:
        return f"[{self.low:.4g}, {self.high:.4g}]"


class HasInterval:
    """What has a `value` and gives its confidence interval: its ends at its own level, and the value as a number."""

    value: float

    def confidence_interval(self, level: float | None = None) -> ConfidenceInterval:
        """The interval at a level, by default at its own."""
        raise NotImplementedError

    def interval(self, confidence: float) -> tuple[float, float]:
        """Deprecated: `confidence_interval(level)`."""
        warnings.warn("`interval(confidence)` is now `confidence_interval(level)`.", DeprecationWarning, stacklevel=2)
        low, high = self.confidence_interval(confidence)
        return low, high

    @property
    def low(self) -> float:
        """The lower end of its interval."""
        return self.confidence_interval().low

    @property
    def high(self) -> float:
        """The upper end of its interval."""
        return self.confidence_interval().high

    @property
    def half_width(self) -> float:
        """Half of the interval."""
        return self.confidence_interval().half_width

    def __float__(self) -> float:
        return float(self.value)


def quantile(level: float, n: int, tests: int = 1) -> float:
    """The two-sided critical value of one of `tests` simultaneous intervals: Student's t for few paths, normal for many.

    >>> round(quantile(0.95, 10**6), 3), round(quantile(0.95, 10), 3)
    (1.96, 2.262)
    """
    from scipy.special import ndtri, stdtrit

    _check.confidence(level, "level")
    tail = (1 - level) / (2 * tests)
    return float(-ndtri(tail) if n > 2000 else -stdtrit(max(1, n - 1), tail))


def miss(level: float, n: int, tests: int = 1) -> float:
    """log(2 tests / (1 - level)) / n: an event that is more likely than this shows up among `n` paths with that confidence.

    (1 - p)^n <= exp(-n p). For p = 3.7 / n at 95 %, two-sided: the rule of three.

    >>> round(miss(0.95, 1000), 5)
    0.00369
    """
    return math.log(2 * tests / (1 - level)) / max(1, n)


def binomial_interval(hits: int, n: int, level: float = 0.95) -> ConfidenceInterval:
    """Clopper and Pearson's interval of a probability from `hits` among `n`: it holds at every n and every probability.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413.

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
