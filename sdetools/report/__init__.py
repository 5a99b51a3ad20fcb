"""What a person sees: the report page, and plots in one style."""

from __future__ import annotations

from sdetools.plots import gap_curve, loglog_orders
from sdetools.report.page import render, write
from sdetools.report.typeset import typeset

__all__ = ["gap_curve", "loglog_orders", "render", "typeset", "write"]
