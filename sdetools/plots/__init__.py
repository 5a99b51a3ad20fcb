"""Plots: arrays and axes in, axes out. Each function draws on the axes that it is given, or makes a figure in one style.

This package knows nothing of losses, dynamics or results; the results' `plot` methods hand it their numbers. A new plot is a file here.

>>> from sdetools import plots
>>> axes = plots.gap_curve([0.0, 1.0], [0.0, 0.2])
>>> axes.figure.axes == [axes]
True
"""

from __future__ import annotations

from sdetools._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
