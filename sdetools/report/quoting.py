"""Numbers of the report as text: values to the digits that their intervals resolve, intervals, tolerances, durations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdetools.claims import MeasurementResult


def quoted_value(item: MeasurementResult) -> str:
    """Return the value of a measurement of a claim as text, "0.333", rounded to two digits of the width of its confidence interval.

    If the width is 0 or infinite, the value has six significant digits.
    """
    return _number(item.value, item.interval.width)


def quoted_interval(item: MeasurementResult) -> str:
    """Return the confidence interval of a measurement of a claim as text, "[0.310, 0.350]", rounded to two digits of its width.

    It is "exact" if both ends are equal, and "no finite interval" if one is infinite or NaN.
    """
    if item.low == item.high:
        return "exact"
    if not item.interval.finite:
        return "no finite interval"
    spread = item.interval.width
    return f"[{_number(item.low, spread)}, {_number(item.high, spread)}]"


def quoted_tolerance(item: MeasurementResult) -> str:
    """Return the accepted range of a measurement of a claim as text: "≤ 0.5" or "≥ 0.5" if one end is infinite, else "1 ± 0.1".

    The number before ± is the expected value, or the middle of the range if there is none; the number after it is half of the range's width.
    """
    if math.isinf(item.accept_low):
        return f"≤ {_number(item.accept_high)}"
    if math.isinf(item.accept_high):
        return f"≥ {_number(item.accept_low)}"
    expected = 0.5 * (item.accept_low + item.accept_high) if item.expected is None else item.expected
    return f"{_number(expected)} ± {_number(0.5 * (item.accept_high - item.accept_low))}"


def cell(value: Any) -> str:
    """Return the text of a cell of a table: a float with up to six significant digits, "1.5" or "2.5·10⁻⁷", any other value as `str` writes it."""
    return _number(float(value)) if isinstance(value, float) else str(value)


def seconds(value: float) -> str:
    """Return a duration `value` in seconds as text: seconds below a minute, minutes and seconds below an hour, else hours and minutes.

    Example:
        >>> from sdetools.report.quoting import seconds
        >>> seconds(0.4), seconds(75.0)
        ('0.4 s', '1 min 15 s')
    """
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _number(value: float, spread: float = 0.0) -> str:
    """Return a number as text with a minus sign and powers of ten, rounded to two digits of its spread, or to six digits without a spread.

    >>> _number(-0.0123456, 0.0002), _number(1.5), _number(2.5e-7), _number(0.0, 1e-13)
    ('−0.01235', '1.5', '2.5·10⁻⁷', '0')
    """
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    digits = 6
    if 0 < spread < math.inf:
        digits = min(12, max(2, math.floor(math.log10(abs(value))) - math.floor(math.log10(spread / 2)) + 2))
    if not 1e-4 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        if not 0 < spread < math.inf:
            mantissa = mantissa.rstrip("0").rstrip(".")
        text = f"{mantissa}·10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    elif 0 < spread < math.inf:
        text = f"{value:.{max(0, min(12, 1 - math.floor(math.log10(spread / 2))))}f}"
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", "−")
