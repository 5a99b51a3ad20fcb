"""The report: one HTML page with the verdicts, numbers and figures of a run of claims."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from sdetools.report.page import render, write
from sdetools.report.typeset import typeset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["render", "typeset", "write"]


def _figure(name: str, given: tuple[Any, ...], options: dict[str, Any]) -> Figure:
    from sdetools import plots

    warnings.warn(f"`st.report.{name}` is now `st.plots.{name}`, which returns axes.", DeprecationWarning, stacklevel=3)
    figure: Figure = getattr(plots, name)(*given, **options).figure
    return figure


def gap_curve(*given: Any, **options: Any) -> Figure:
    """Deprecated: `st.plots.gap_curve`, which returns axes."""
    return _figure("gap_curve", given, options)


def loglog_orders(*given: Any, **options: Any) -> Figure:
    """Deprecated: `st.plots.loglog_orders`, which returns axes."""
    return _figure("loglog_orders", given, options)
