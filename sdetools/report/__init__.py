"""The report: one HTML page with the verdicts, measurements and figures of a run of claims, and a summary in Markdown."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from sdetools.report.markdown import markdown, write_summary
from sdetools.report.page import render, write
from sdetools.report.typeset import typeset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["markdown", "render", "typeset", "write", "write_summary"]


def _figure(name: str, given: tuple[Any, ...], options: dict[str, Any]) -> Figure:
    """Return the figure of the axes that the function `name` of `st.plots` draws, with a deprecation warning."""
    from sdetools import plots

    warnings.warn(f"`st.report.{name}` is now `st.plots.{name}`, which returns axes.", DeprecationWarning, stacklevel=3)
    figure: Figure = getattr(plots, name)(*given, **options).figure
    return figure


def gap_curve(*given: Any, **options: Any) -> Figure:
    """Return the Matplotlib figure of `st.plots.gap_curve` (means or gaps along time with bands), called with the same arguments.

    A DeprecationWarning says that the name is now `st.plots.gap_curve`, which returns axes.
    """
    return _figure("gap_curve", given, options)


def loglog_orders(*given: Any, **options: Any) -> Figure:
    """Return the Matplotlib figure of `st.plots.loglog_orders` (gaps against step sizes with reference slopes), called with the same arguments.

    A DeprecationWarning says that the name is now `st.plots.loglog_orders`, which returns axes.
    """
    return _figure("loglog_orders", given, options)
