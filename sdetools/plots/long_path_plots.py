"""Plots of studies of long paths: running means, survival curves, and error against cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.curves import Numbers
from sdetools.plots.style import COLOURS, DASHED, FAINT, INK, MARKERS, canvas, finish, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def running_means(
    times: Numbers, paths: Any, value: float, low: float, high: float, ylabel: str = "running mean", *, ax: Axes | None = None
) -> Axes:
    """Plot running means of some paths along time, and a value with its interval as a horizontal band.

    The running mean of a path at time t is the average of an observable from the first time to t.

    Args:
        times: The times, `(times,)`.
        paths: The running means, `(paths, times)`; `(times,)` for one path.
        value: The value to which they converge.
        low: The lower end of the value's interval.
        high: The upper end of the value's interval.
        ylabel: Label of the vertical axis.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Example:
        >>> from sdetools.plots import running_means
        >>> axes = running_means([1.0, 2.0], [[0.0, 0.5], [1.0, 0.7]], 0.6, 0.5, 0.7)
        >>> len(axes.lines)
        3
    """
    _, axes = canvas(ax=ax)
    t = np.asarray(times, dtype=float)
    for i, path in enumerate(np.atleast_2d(np.asarray(paths, dtype=float))):
        axes.plot(t, path, color=COLOURS[i % len(COLOURS)], linewidth=0.9, alpha=0.7)
    axes.axhspan(low, high, color=INK, alpha=0.15, linewidth=0)
    axes.axhline(value, color=INK, linewidth=1.2)
    axes.margins(x=0.01)
    finish(axes, "$t$", ylabel)
    return axes


def survival_curve(
    times: Numbers, survival: Numbers, low: Numbers, high: Numbers, *, censored: int = 0, ax: Axes | None = None
) -> Axes:
    """Plot the share of paths that have not yet left a region against time, a step function, with its band.

    Args:
        times: The times, `(times,)`, ascending.
        survival: The shares, from 0 to 1, `(times,)`; each holds from its time to the next.
        low: Lower ends of the band, `(times,)`.
        high: Upper ends of the band, `(times,)`.
        censored: The number of paths that had not left at the last time; it is written next to the curve's end if it is not 0.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Example:
        >>> from sdetools.plots import survival_curve
        >>> survival_curve([0.0, 1.0], [1.0, 0.4], [0.9, 0.3], [1.0, 0.5]).get_ylabel()
        'share of paths inside'
    """
    _, axes = canvas(ax=ax)
    t, s = np.asarray(times, dtype=float), np.asarray(survival, dtype=float)
    axes.fill_between(t, low, high, step="post", color=COLOURS[0], alpha=0.18, linewidth=0)
    axes.step(t, s, where="post", color=COLOURS[0], linewidth=1.6)
    if censored:
        note = f"{censored:,} have not left"
        axes.annotate(note, (t[-1], s[-1]), xytext=(-4, 6), textcoords="offset points", ha="right", fontsize=8, color=FAINT)
    axes.set_ylim(0.0, 1.05)
    axes.margins(x=0.01)
    finish(axes, "$t$", "share of paths inside")
    return axes


def cost_diagram(
    curves: Mapping[str, tuple[Numbers, Numbers, Numbers, Numbers]], xlabel: str, ylabel: str, *, ax: Axes | None = None
) -> Axes:
    """Plot costs against errors on logarithmic axes, one curve for each method: a work-precision diagram, in which lower is cheaper.

    Errors stand on the horizontal axis, as in the diagrams of Hairer, Norsett and Wanner and of DifferentialEquations.jl. A point is
    hollow, at the upper end of its interval, if the lower end is not positive: its error is below the noise, somewhere along the dashed line.

    Args:
        curves: A mapping from a method's name to four arrays `(points,)`: costs, errors, and the lower and upper ends of the intervals of the errors.
            A point with an error that is not finite is not drawn.
        xlabel: Label of the horizontal axis, that of the errors.
        ylabel: Label of the vertical axis, that of the costs.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Example:
        >>> from sdetools.plots import cost_diagram
        >>> axes = cost_diagram({"Euler": ([10, 20], [0.1, 0.05], [0.09, 0.04], [0.11, 0.06])}, "error", "seconds")
        >>> axes.get_xscale(), axes.get_yscale()
        ('log', 'log')
    """
    _, axes = canvas(ax=ax)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for i, (name, rows) in enumerate(curves.items()):
        cost, error, low, high = (np.asarray(row, dtype=float) for row in rows)
        shown = np.isfinite(error) & np.isfinite(high) & (high > 0)
        resolved = shown & (low > 0)
        hollow = shown & ~resolved
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        axes.plot(
            error[resolved], cost[resolved], color=colour, linewidth=1.5, marker=marker, markersize=5.5, label=typeset(name)
        )
        axes.hlines(cost[resolved], low[resolved], high[resolved], color=colour, linewidth=1.0)
        axes.plot(high[hollow], cost[hollow], linestyle="", marker=marker, markeredgecolor=colour, markerfacecolor="white")
        axes.hlines(cost[hollow], high[hollow] / 3, high[hollow], color=colour, linewidth=1.0, linestyle=DASHED)
    finish(axes, xlabel, ylabel, legend=bool(curves))
    return axes
