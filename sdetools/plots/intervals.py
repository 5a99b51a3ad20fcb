"""Values with their intervals on one axis, beside a region or edges with which they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, FAINT, INK, canvas, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def interval_plot(
    rows: Mapping[str, tuple[float, float, float]],
    xlabel: str,
    *,
    region: tuple[str, float] | None = None,
    edges: Mapping[str, float] | None = None,
    ax: Any = None,
) -> Axes:
    """Plot values with their intervals, one line each from bottom to top, on a horizontal axis that begins at 0 (distances, for example).

    Args:
        rows: A mapping from a name to the tuple (value, lower end, upper end of the interval); negative parts of an interval are not shown.
        xlabel: Label of the axis.
        region: The pair (label, upper end) of a shaded region that begins at 0. With it the names are in a legend; with None, no region is drawn and
            the names are labels of the vertical axis.
        edges: A mapping from a label to the position of a dashed vertical line; None for no lines.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Raises:
        ValueError: A value lies outside its interval (Matplotlib's error), or `ax` is not one axes object.

    Example:
        >>> from sdetools.plots import interval_plot
        >>> interval_plot({"W1": (0.2, 0.1, 0.3)}, "distance", region=("equal laws, 95 %", 0.05)).get_xlabel()
        'distance'
    """
    _, axes = canvas(6.0 if edges else 5.0, 2.4 if edges else 2.2, ax)
    if region is not None:
        axes.axvspan(0.0, region[1], color=FAINT, alpha=0.25, label=typeset(region[0]))
    for i, (name, (value, low, high)) in enumerate(rows.items()):
        axes.errorbar(
            [value],
            [i],
            xerr=[[value - low], [high - value]],
            fmt="o",
            color=COLOURS[i % len(COLOURS)],
            capsize=3,
            label=typeset(name),
        )
    for name, edge in (edges or {}).items():
        axes.axvline(edge, color=FAINT, linestyle="--", linewidth=1)
        axes.annotate(typeset(name), (edge, 1.0), xycoords=("data", "axes fraction"), fontsize=8, va="bottom", ha="center")
    axes.set(xlabel=typeset(xlabel), xlim=(0.0, None), ylim=(-0.6, max(1, len(rows)) - 0.4))
    if region is None:
        axes.set(yticks=range(len(rows)), yticklabels=[*map(typeset, rows)])
    else:
        axes.set(yticks=[])
        axes.legend(frameon=False, fontsize=8)
    return axes


def tolerance_plot(names: Sequence[str], values: np.ndarray, colours: Sequence[str] | None = None, ax: Any = None) -> Axes:
    """Plot intervals in units of their tolerances, one line each from top to bottom, over a shaded region from -1 to 1.

    An interval inside the region lies in the accepted range. Numbers beyond +-3 are drawn at the edge of the plot, NaN at +3.

    Args:
        names: A label for each interval; an empty label says that the interval belongs to the label above it.
        values: Value, lower end and upper end of each interval, an array `(3, len(names))`, in units of the tolerance: a number u of a measurement
            is given as (u - expected value) / tolerance.
        colours: The colour of each interval, as Matplotlib takes it, `(len(names),)`; None gives all the same one.
        ax: Axes to draw on; None makes a new figure, whose height grows with the number of intervals.

    Returns:
        The axes; `.figure` is their figure.

    Example:
        >>> import numpy as np
        >>> from sdetools.plots import tolerance_plot
        >>> axes = tolerance_plot(["order", "gap"], np.array([[0.1, 2.0], [-0.2, 1.5], [0.4, 2.5]]))
        >>> [tick.get_text() for tick in axes.get_yticklabels()]
        ['order', 'gap']
    """
    rows = range(len(names))
    _, axes = canvas(7.2, 1.2 + 0.16 * len(names), ax)
    axes.axvspan(-1.0, 1.0, color=FAINT, alpha=0.2)
    shown = np.clip(np.nan_to_num(np.asarray(values, dtype=float).reshape(3, -1), nan=3.0), -3.0, 3.0)
    for i in rows:
        colour = colours[i] if colours is not None else COLOURS[0]
        axes.plot(shown[1:, i], [i, i], color=colour, linewidth=1.4)
        axes.plot(shown[0, i], i, "o", color=colour, markersize=3)
    axes.set(yticks=rows, yticklabels=[*map(typeset, names)], ylim=(len(names) - 0.5, -0.5), xlim=(-3.1, 3.1))
    axes.set_xlabel("distance from the expected value, in tolerances", color=INK, fontsize=10)
    axes.tick_params(axis="y", labelsize=6)
    return axes
