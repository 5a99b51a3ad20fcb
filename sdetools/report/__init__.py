"""The report: one HTML page with the verdicts, measurements and figures of a run of claims."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from sdetools.report.page import render, write
from sdetools.report.typeset import typeset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["render", "typeset", "write"]


def _figure(name: str, given: tuple[Any, ...], options: dict[str, Any]) -> Figure:
    """Call the function `name` of `st.plots` with a deprecation warning and return its figure."""
    from sdetools import plots

    warnings.warn(f"`st.report.{name}` is now `st.plots.{name}`, which returns axes.", DeprecationWarning, stacklevel=3)
    figure: Figure = getattr(plots, name)(*given, **options).figure
    return figure


def gap_curve(*given: Any, **options: Any) -> Figure:
    """Return the figure of `st.plots.gap_curve`. Deprecated: `st.plots.gap_curve` returns axes."""
    return _figure("gap_curve", given, options)


def loglog_orders(*given: Any, **options: Any) -> Figure:
    """Return the figure of `st.plots.loglog_orders`. Deprecated: `st.plots.loglog_orders` returns axes."""
    return _figure("loglog_orders", given, options)
