"""Values with their intervals on one axis, beside a region or the edges that they are compared with."""

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
    """Plots values with their intervals, one row each, on an axis that begins at 0.

    Args:
        rows: Value, lower end and upper end of the interval, by the row's name.
        xlabel: Label of the axis.
        region: A label and the upper end of a shaded region that begins at 0.
        edges: Positions of dashed vertical lines, by their labels.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes.

    Example:
        >>> interval_plot({"W1": (0.2, 0.1, 0.3)}, "distance", region=("equal laws, 95 %", 0.05)).get_xlabel()
        'distance'
    """
    _, axes = canvas(6.0 if edges else 5.0, 2.4 if edges else 2.2, ax)
    if region is not None:
        axes.axvspan(0.0, region[1], color=FAINT, alpha=0.25, label=typeset(region[0]))
    for i, (name, (value, low, high)) in enumerate(rows.items()):
        axes.errorbar(
            [value], [i], xerr=[[value - low], [high - value]], fmt="o", color=COLOURS[i], capsize=3, label=typeset(name)
        )
    for name, edge in (edges or {}).items():
        axes.axvline(edge, color=FAINT, linestyle="--", linewidth=1)
        axes.annotate(typeset(name), (edge, 1.0), xycoords=("data", "axes fraction"), fontsize=8, va="bottom", ha="center")
    axes.set(xlabel=typeset(xlabel), xlim=(0.0, None), ylim=(-0.6, max(1, len(rows)) - 0.4))
    if region is None:
        axes.set(yticks=range(len(rows)), yticklabels=list(rows))
    else:
        axes.set(yticks=[])
        axes.legend(frameon=False, fontsize=8)
    return axes


def tolerance_plot(names: Sequence[str], values: np.ndarray, colours: Sequence[str] | None = None, ax: Any = None) -> Axes:
    """Plots intervals in units of their tolerances, one row each: inside the shaded region from -1 to 1 they lie in the accepted range.

    What lies beyond +-3 is drawn at the edge.

    Args:
        names: A label for each row; an empty one for a row below another of its group.
        values: Value, lower end and upper end of each row, `(3, rows)`.
        colours: The colour of each row.
        ax: Axes to draw on; None makes a new figure, whose height grows with the rows.

    Returns:
        The axes.

    Example:
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
