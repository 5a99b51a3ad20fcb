"""Measured run times beside a roofline, a lower bound of the time from measured rates of the hardware, against the dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, DASHED, FAINT, INK, MARKERS, axes_for, finish, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def roofline_panels(series: Mapping[str, np.ndarray], ax: Any = None) -> list[Axes]:
    """Plot measured times and rooflines against the dimension, and in a second panel their ratio with the largest ratio allowed.

    A roofline is a lower bound of the time, from measured rates of the hardware. Times are in nanoseconds for one coordinate in one step of one path.

    Args:
        series: A mapping from a problem's name to an array `(5, n)`, or five arrays `(n,)`, with an entry for each of n dimensions (numbers of
            coordinates): dimension, measured time in ns, roofline in ns, measured time / roofline, and the largest ratio that is allowed.
        ax: Two axes to draw on; None makes a new figure.

    Returns:
        A list of the two axes: times, ratios.

    Raises:
        ValueError: `ax` holds another number of axes.

    Example:
        >>> import numpy as np
        >>> from sdetools.plots import roofline_panels
        >>> times, ratios = roofline_panels({"quadratic": np.array([[2, 64], [1.5, 4.3], [1.4, 4.0], [1.07, 1.08], [1.5, 1.5]])})
        >>> ratios.get_ylabel()
        'measured over roofline'
    """
    _, panels = axes_for(2, ax, size=(9.6, 4.2))
    left, right = panels
    right.axhline(1.0, color=FAINT, linewidth=0.8)
    for i, (name, (dims, times, rooflines, ratios, bounds)) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        look: dict[str, Any] = {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": 5, "linewidth": 1.4}
        left.plot(dims, times, label=typeset(name), **look)
        left.plot(dims, rooflines, color=colour, linewidth=1.1, linestyle=DASHED)
        right.plot(dims, ratios, **look)
        right.plot(dims, bounds, color=colour, marker="_", markersize=12, linestyle="")
    left.plot([], [], color=INK, linewidth=1.1, linestyle=DASHED, label="roofline")
    left.set_yscale("log")
    right.plot([], [], color=INK, marker="_", markersize=12, linestyle="", label="bound")
    right.margins(y=0.16)
    for axes, label in ((left, "ns per coordinate-step"), (right, "measured over roofline")):
        axes.set_xscale("log")
        finish(axes, "$d$", label, legend=True)
    return panels
