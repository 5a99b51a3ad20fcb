"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdetools.report.images import data_url, in_words
from sdetools.report.quoting import cell, quoted_interval, quoted_tolerance, quoted_value, seconds
from sdetools.report.typeset import plain, typeset

if TYPE_CHECKING:
    from sdetools.claims import ClaimResult, MeasurementResult, Results

MARKS = {
    "contradicted": ("✗", "contradicted"),
    "error": ("!", "error"),
    "inconclusive": ("?", "inconclusive"),
    "not run": ("–", "not-run"),
    "supported": ("✓", "supported"),
}
"""The verdicts in the order of the page, failures first, with their symbols and the names of their classes."""
OPEN = ("contradicted", "error", "inconclusive")
"""The verdicts whose claims are open when the page is opened."""


def render(results: Results) -> str:
    """Return the report on a run of claims as the text of an HTML page.

    Claims that are contradicted, raised an error or are inconclusive come first and are unfolded, each with the interval that stands most against it
    and what would decide. Those that were not run follow, then the supported ones by file. The page is self-contained: it includes style, figures,
    formulas, and a script that filters and sorts the claims; without JavaScript the page is complete.

    Args:
        results: The results of `st.verify`.

    Returns:
        The text of the page, which starts with `<!DOCTYPE html>`.

    Example:
        >>> from sdetools.claims import Results
        >>> from sdetools.report import render
        >>> page = render(Results("1.0", 0, "quick", ()))
        >>> page.startswith("<!DOCTYPE html>")
        True
    """
    import jinja2

    from sdetools.claims.deciding import deciding
    from sdetools.claims.measurement import FALSE_CONTRADICTION, FALSE_SUPPORT

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_file_of_package),
    )
    script = _file_of_package("filter.js")
    environment.filters.update(typeset=typeset, cell=cell, seconds=seconds)
    environment.globals.update(
        marks=MARKS,
        opened=OPEN,
        rates=(FALSE_SUPPORT, FALSE_CONTRADICTION),
        bar=interval_bar,
        value=quoted_value,
        interval=quoted_interval,
        tolerance=quoted_tolerance,
        image=data_url,
        in_words=in_words,
        reason=_reason,
        worst=_worst,
        decides=lambda claim: deciding(claim, results),
        words=_searched,
        margin=_margin,
        files=by_file,
        style=_file_of_package("style.css"),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    page = environment.get_template("template.html").render(results=results).lstrip()
    return re.sub(r"^[ \t]+(?=<)|^\s+$", "", page, flags=re.MULTILINE)  # the indentation of the template


def by_file(claims: Sequence[ClaimResult]) -> dict[str, list[ClaimResult]]:
    """Return claims by their files: a dictionary from the path of a file to the list of its claims, files and claims in the given order.

    Args:
        claims: The results of claims, each with the attribute `file`.
    """
    found: dict[str, list[ClaimResult]] = {}
    for item in claims:
        found.setdefault(item.file, []).append(item)
    return found


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
    """Return a small SVG image of a measurement of a claim, as HTML that is not escaped again (`markupsafe.Markup`), in the colours of the page.

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
        return round(pad + (width - 2 * pad) * (v - left) / (right - left), 1)

    a, b, low, high = (at(v) for v in (item.accept_low, item.accept_high, item.low, item.high))
    parts = [f'<path class="a" d="M{a:g} 4H{max(b, a + 1.5):g}V22H{a:g}z"/>']
    if item.expected is not None and math.isfinite(item.expected):
        parts.append(f'<path class="e" d="M{at(item.expected):g} 4V22"/>')
    finite = [end for end, value in ((low, item.low), (high, item.high)) if math.isfinite(value) and item.low != item.high]
    ends = "".join(f"M{end:g} 9V17" for end in finite)
    if item.low != item.high:
        parts.append(f'<path class="i" d="M{low:g} 13H{max(high, low + 0.1):g}{ends}"/>')
    if math.isfinite(item.value):
        parts.append(f'<circle cx="{at(item.value):g}" cy="13" r="3.6"/>')
    where = {"inside": "inside", "disjoint": "outside", "across": "across an edge of"}[item.state]
    svg = f'<svg class="bar {item.state}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{{}}">{"".join(parts)}</svg>'
    return Markup(svg).format(f"{where} the tolerance")


def _reason(item: ClaimResult) -> Any:
    """Return the reason of a verdict for the page: names of measurements may contain formulas, but the text of an exception is not LaTeX."""
    return item.reason if item.verdict in ("error", "not run") else typeset(item.reason)


def _worst(item: ClaimResult) -> tuple[MeasurementResult, str] | None:
    """Return the measurement that stands most against a claim and the name of its control, empty for none; None if all are as they must be."""
    if (found := item.worst) is None:
        return None
    return found, next((control.name for control in item.controls if any(one is found for one in control.measurements)), "")


def _searched(item: ClaimResult) -> str:
    """Return the text in which the filter of the page searches: the claim's id, source, statement and file in lower case."""
    return " ".join(f"{item.id} {plain(item.source)} {plain(item.statement)} {item.file}".lower().split())


def _margin(item: ClaimResult) -> float:
    """Return the largest excess of a claim's measurements over their tolerances, by which claims are sorted: 1e9 for infinity, -1e9 for none."""
    return min(1e9, max((one.excess for one in item.measurements), default=-1e9))


def _file_of_package(name: str) -> str:
    """Return the text of a file that is part of this package, such as the style sheet."""
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
