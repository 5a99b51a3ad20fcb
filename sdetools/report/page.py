"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import importlib.resources
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdetools.report.typeset import typeset

if TYPE_CHECKING:
    from sdetools.claims import ClaimResult, MeasurementResult, Results

MARKS = {
    "supported": ("✓", "supported"),
    "contradicted": ("✗", "contradicted"),
    "inconclusive": ("?", "inconclusive"),
    "not run": ("–", "not-run"),
    "error": ("!", "error"),
}


def render(results: Results) -> str:
    """Return the report on a run of claims as the text of an HTML page.

    The page is self-contained: it includes style, figures and formulas, and has no script.

    Args:
        results: The results of `st.verify`.

    Returns:
        The text of the page, which starts with `<!DOCTYPE html>`.

    Example:
        >>> from sdetools.claims import Results
        >>> page = render(Results("1.0", 0, "quick", ()))
        >>> page.startswith("<!DOCTYPE html>")
        True
    """
    import jinja2

    from sdetools.claims.measurement import FALSE_CONTRADICTION, FALSE_SUPPORT

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_file_of_package),
    )
    environment.filters.update(typeset=typeset, cell=cell, seconds=seconds)
    environment.globals.update(
        marks=MARKS,
        rates=(FALSE_SUPPORT, FALSE_CONTRADICTION),
        bar=interval_bar,
        value=quoted_value,
        interval=quoted_interval,
        tolerance=quoted_tolerance,
        image=_data_url,
        reason=_reason,
        style=_file_of_package("style.css"),
    )
    return environment.get_template("template.html").render(results=results).lstrip()


def write(results: Results, out: str | os.PathLike[str]) -> Path:
    """Write the report on a run of claims as `report.html` into a folder, atomically: an existing page is replaced as a whole.

    Args:
        results: The results of `st.verify`.
        out: The folder, which is created if necessary.

    Returns:
        The path of the page.

    Raises:
        OSError: If the page cannot be written.
    """
    from sdetools.claims.folder import write_text

    path = Path(out) / "report.html"
    write_text(path, render(results))
    return path


def interval_bar(item: MeasurementResult) -> Any:
    """Return a small SVG of a measurement, as `markupsafe.Markup`, in the colours of the page.

    A line with a dot is the confidence interval with the value, a bar behind it the accepted range, and a vertical line the expected value, if
    there is one. An infinite end lies at the edge. The text is empty if none of these numbers is finite.
    """
    from markupsafe import Markup

    width, height, pad = 220.0, 26.0, 10.0
    shown = [
        v
        for v in (item.value, item.low, item.high, item.accept_low, item.accept_high, item.expected)
        if v is not None and math.isfinite(v)
    ]
    if not shown:
        return Markup("")
    left, right = min(shown), max(shown)
    margin = 0.12 * (right - left) or abs(left) * 1e-9 or 1.0
    # A one-sided range extends to the edge of the figure, so it gets a wider margin.
    open_margin = 0.35 * (right - left) or margin
    left -= open_margin if math.isinf(item.accept_low) else margin
    right += open_margin if math.isinf(item.accept_high) else margin

    def at(v: float) -> float:
        """Return the horizontal coordinate of the number `v` in the SVG; infinite numbers lie at its left and right edges."""
        if math.isinf(v):
            return 0.0 if v < 0 else width
        return pad + (width - 2 * pad) * (v - left) / (right - left)

    a, b, low, high = (at(v) for v in (item.accept_low, item.accept_high, item.low, item.high))
    parts = [
        f'<line class="axis" x1="0" x2="{width:g}" y1="13" y2="13"/>',
        f'<rect class="accept" x="{a:.1f}" y="4" width="{max(b - a, 1.5):.1f}" height="18" rx="2"/>',
    ]
    if item.expected is not None and math.isfinite(item.expected):
        parts.append(f'<line class="expected" x1="{at(item.expected):.1f}" x2="{at(item.expected):.1f}" y1="4" y2="22"/>')
    parts.append(f'<line class="interval" x1="{low:.1f}" x2="{max(high, low + 0.1):.1f}" y1="13" y2="13"/>')
    for end, value in ((low, item.low), (high, item.high)):
        if math.isfinite(value) and item.low != item.high:
            parts.append(f'<line class="end" x1="{end:.1f}" x2="{end:.1f}" y1="9" y2="17"/>')
    if math.isfinite(item.value):
        parts.append(f'<circle class="dot" cx="{at(item.value):.1f}" cy="13" r="3.6"/>')
    where = {"inside": "inside", "disjoint": "outside", "across": "across an edge of"}[item.state]
    svg = f'<svg class="bar {item.state}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{{}}">{"".join(parts)}</svg>'
    return Markup(svg).format(f"the interval lies {where} the tolerance")


def quoted_value(item: MeasurementResult) -> str:
    """Return the value of a measurement as text, rounded to two digits of its interval's width, "0.333"; six digits if that is 0 or infinite."""
    return _number(item.value, item.interval.width)


def quoted_interval(item: MeasurementResult) -> str:
    """Return the confidence interval of a measurement as text, "[0.310, 0.350]", rounded to two digits of its width.

    It is "exact" if both ends are equal, and "no finite interval" if one is infinite or NaN.
    """
    if item.low == item.high:
        return "exact"
    if not item.interval.finite:
        return "no finite interval"
    spread = item.interval.width
    return f"[{_number(item.low, spread)}, {_number(item.high, spread)}]"


def quoted_tolerance(item: MeasurementResult) -> str:
    """Return the accepted range of a measurement as text: "≤ 0.5" or "≥ 0.5" if one end is infinite, else "1 ± 0.1".

    The number before ± is the expected value, or the middle of the range if there is none; the number after it is half of the range's width.
    """
    if math.isinf(item.accept_low):
        return f"≤ {_number(item.accept_high)}"
    if math.isinf(item.accept_high):
        return f"≥ {_number(item.accept_low)}"
    expected = 0.5 * (item.accept_low + item.accept_high) if item.expected is None else item.expected
    return f"{_number(expected)} ± {_number(0.5 * (item.accept_high - item.accept_low))}"


def cell(value: Any) -> str:
    """Return the text of a cell of a table: a float with six digits, "1.5" or "2.5·10⁻⁷", any other value by `str`."""
    return _number(float(value)) if isinstance(value, float) else str(value)


def seconds(value: float) -> str:
    """Return a duration `value` in seconds as text: seconds below a minute, minutes and seconds below an hour, else hours and minutes.

    Example:
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


def _reason(item: ClaimResult) -> Any:
    """Return the reason of a verdict for the page: names of measurements may contain formulas, but the text of an exception is not LaTeX."""
    return item.reason if item.verdict in ("error", "not run") else typeset(item.reason)


def _data_url(svg: str) -> str:
    """Return a data URL of an SVG image: ids of several images cannot clash, and no code in them is executed."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _file_of_package(name: str) -> str:
    """Return the text of a file that is part of this package, such as the style sheet."""
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
