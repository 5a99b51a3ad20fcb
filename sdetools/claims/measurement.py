"""The judgement of one measurement: its intervals, compared with its accepted range.

The error rate of an interval is 1 minus its level.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

import numpy as np

from sdetools.claims.record import Measurement
from sdetools.claims.results import ACROSS, DISJOINT, INSIDE, MeasurementResult
from sdetools.estimates.interval import ConfidenceInterval, Kind, quantile

Real = TypeVar("Real", float, np.ndarray)

FALSE_SUPPORT = 1e-3
"""The largest probability that a false claim is supported; also the error rate of an interval that must lie inside its accepted range."""
FALSE_CONTRADICTION = 1e-5
"""The largest probability that a true claim is contradicted."""
TILT = math.log(1.5)
"""The largest |g| z^3 / 6 at which a normal interval is trusted: a skewness g of the mean changes its tail beyond z by exp(g z^3 / 6)."""
FEWEST = 12
"""The least number of values, such as seeds, of which Student's t interval is trusted; it assumes that they are normal."""
FLAG = math.sqrt(FALSE_CONTRADICTION)
"""The largest probability, for a true claim, of each of the two steps to a contradiction: an interval outside, and again on fresh draws."""


def widening(skewness: Real, z: float) -> Real:
    """Return the factor by which the half-width of a mean's interval, z standard errors, grows on one side: 1 + |g| (2 z^2 + 1)/(6 z).

    The side is that of the sign of g: above the mean for g > 0.

    It is the first term of Cornish and Fisher for the studentised mean (P. Hall, Ann. Probab. 11 (1983)): if large values are rare, most samples
    have too small a mean and too small a standard error as well, and the interval misses the truth above it.

    Args:
        skewness: The skewness g of the law of the mean, that of one path divided by the square root of their number; a number or an array.
        z: The critical value of the interval, such as 3.29 at level 0.999.

    Returns:
        The factor, at least 1, of the shape of `skewness`.

    Example:
        >>> widening(0.0, 3.0), widening(-0.06, 3.0)
        (1.0, 1.0633333333333332)
    """
    return 1 + abs(skewness) * (2 * z * z + 1) / (6 * z)


def widened(interval: ConfidenceInterval, value: float, skewness: float, paths: int) -> ConfidenceInterval:
    """Return a mean's interval that allows for skewness: its half above (skewness > 0) or below the value (< 0) is multiplied by `widening`.

    An interval that is infinite, or not pointwise (exact, a simultaneous band, that of a probability), is returned as it is.

    Args:
        interval: The interval, symmetric about the value.
        value: The mean.
        skewness: The skewness of the law of the mean, not of one path.
        paths: The number of values of which it is the mean.
    """
    if interval.kind is not Kind.POINTWISE or not interval.finite:
        return interval
    factor = widening(skewness, quantile(interval.level, paths))
    if skewness > 0:
        return replace(interval, high=value + factor * (interval.high - value))
    return replace(interval, low=value - factor * (value - interval.low))


def judge_measurement(item: Measurement, flag: float = FLAG, support: float = FALSE_SUPPORT) -> MeasurementResult:
    """Return the result of a measurement: its intervals, compared with its accepted range.

    All are closed, so intervals with a common end are not disjoint. A value that is not finite has infinite intervals. The interval of a skewed
    mean is wider on one side (`widened`). The state is "across" (no decision) for a mean of fewer than `FEWEST` = 12 values, and for a mean of skewness
    g with |g| z^3 / 6 > log 1.5, z the critical value, for which a normal interval is not trusted.

    Args:
        item: The measurement. An exact number (a float) has intervals without width.
        flag: The error rate of the interval that must lie outside the range for "disjoint", divided by `item.looks`.
        support: The error rate of the interval that must lie inside for "inside", also divided.

    Returns:
        The result: `interval` has the level 1 - support / looks, `outer` 1 - flag / looks. `paths_needed` is extrapolated from the width, which
        falls as 1/sqrt(paths).
    """
    estimate = item.estimate
    if isinstance(estimate, float):
        value, paths, diverged, first, stderr = estimate, None, 0, None, 0.0
        exact = ConfidenceInterval(value, value, 1.0, Kind.EXACT) if math.isfinite(value) else ConfidenceInterval.unknown()
        intervals = [exact, exact]
    else:
        value = float(estimate.value)
        intervals = [estimate.confidence_interval(1 - rate / item.looks) for rate in (support, flag)]
        paths, diverged = int(estimate.n) or None, int(getattr(estimate, "diverged", 0))
        first = getattr(estimate, "first_divergence", None) if diverged else None
        stderr = float(getattr(estimate, "stderr", math.nan))
    if not math.isfinite(value):
        intervals = [ConfidenceInterval.unknown(one.level, one.kind) for one in intervals]
    skewness = float(getattr(estimate, "skewness", 0.0))
    if paths and skewness:
        intervals = [widened(one, value, skewness, paths) for one in intervals]
    inner, outer = intervals
    if outer.disjoint(item.accept_low, item.accept_high):
        state = DISJOINT
    else:
        state = INSIDE if inner.within(item.accept_low, item.accept_high) else ACROSS
    why_open, needed = str(getattr(estimate, "why_open", "")), None
    if item.random and paths and inner.kind is not Kind.CLOPPER_PEARSON:
        # the level of the interval that decides: support is not refused for tails at which only a contradiction would look
        rate = support if state == INSIDE else min(support, flag)
        z = quantile(1 - rate / item.looks, paths)
        tilt = abs(skewness) * z**3 / 6
        if tilt > TILT:
            state, needed = ACROSS, math.ceil(min(paths * (tilt / TILT) ** 2, 1e18))
            why_open = "the law of its mean is too skewed for a normal interval at this level"
    if item.random and paths and paths < FEWEST and inner.kind is Kind.POINTWISE:
        state, needed = ACROSS, FEWEST
        why_open = f"Student's t interval of {paths} values has no verdict, since it relies on their being normal"
    if needed is None and state == ACROSS and paths and inner.finite:
        slack = min(abs(value - item.accept_low), abs(value - item.accept_high))
        if slack > 0:
            ratio = max(inner.high - value, value - inner.low) / slack
            needed = math.ceil(min(paths * ratio**2, 1e18))
    return MeasurementResult(
        name=item.name,
        value=value,
        interval=inner,
        outer=outer,
        stderr=stderr,
        expected=item.expected,
        accept_low=item.accept_low,
        accept_high=item.accept_high,
        state=state,
        paths=paths,
        paths_needed=needed,
        diverged=diverged,
        first_divergence=None if first is None else str(first),
        why_open=why_open,
    )
