"""Plots: arrays and axes in, axes out. Each function draws on the axes that it is given, or makes a figure in one style.

This package knows nothing of losses, dynamics or results; the results' `plot` methods hand it their numbers. A new plot is a file here.

>>> from sdetools import plots
>>> axes = plots.gap_curve([0.0, 1.0], [0.0, 0.2])
>>> axes.figure.axes == [axes]
True
"""

from __future__ import annotations

from sdetools.plots.curves import curve_panels, gap_curve, loglog_orders
from sdetools.plots.intervals import interval_plot, tolerance_plot
from sdetools.plots.level_panels import level_panels
from sdetools.plots.paths import PANELS, manifold_plot, path_plot
from sdetools.plots.rooflines import roofline_panels
from sdetools.plots.style import COLOURS, DASHED, FAINT, INK, MARKERS, axes_for, canvas, figure_of, finish, style

__all__ = [
    "COLOURS",
    "DASHED",
    "FAINT",
    "INK",
    "MARKERS",
    "PANELS",
    "axes_for",
    "canvas",
    "curve_panels",
    "figure_of",
    "finish",
    "gap_curve",
    "interval_plot",
    "level_panels",
    "loglog_orders",
    "manifold_plot",
    "path_plot",
    "roofline_panels",
    "style",
    "tolerance_plot",
]
