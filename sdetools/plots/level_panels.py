"""The four panels that are usual for multilevel Monte Carlo: variance, mean, number of paths and cost of each level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, axes_for, finish, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def level_panels(
    name: str,
    variances: tuple[np.ndarray, np.ndarray],
    means: tuple[np.ndarray, np.ndarray],
    paths: np.ndarray,
    cost: np.ndarray,
    totals: tuple[float, float],
    *,
    eps: float,
    refinement: int = 2,
    ax: Any = None,
) -> list[Axes]:
    """Plot a multilevel Monte Carlo estimate: variance, absolute mean, number of paths and cost, each against the level.

    Level l is a simulation whose step is `refinement` times shorter than that of level l - 1. The first two panels have two curves, for the observable
    on a level and for its difference from the level before.

    Args:
        name: The name of the observable, for the legends.
        variances: A pair: variances of the observable on levels 0, 1, ..., `(levels,)`, and of its differences from the level before, on levels
            1, 2, ..., `(levels - 1,)`. A variance or mean that is 0 is not drawn.
        means: A pair: means of the observable, `(levels,)`, and of the differences, `(levels - 1,)`; their absolute values are drawn.
        paths: The number of paths of each level, `(levels,)`.
        cost: The number of steps of each level, over all its paths, `(levels,)`.
        totals: A pair: the number of steps of all levels with their pilot runs (first runs, which estimate the variances), and that of plain Monte Carlo
            with the same error.
        eps: The root-mean-square error that was asked for; it is only written in a legend.
        refinement: The ratio of the step sizes of two successive levels, the base of the logarithmic axes of variance and mean.
        ax: Four axes to draw on; None makes a new figure.

    Returns:
        A list of the four axes: variance, mean, paths, cost.

    Raises:
        ValueError: `ax` holds another number of axes.

    Example:
        >>> import numpy as np
        >>> from sdetools.plots import level_panels
        >>> steps = np.array([4e4, 2e4])
        >>> axes = level_panels("x", ([1.0, 1.1], [0.01]), ([0.5, 0.52], [0.02]), np.array([10_000, 2_500]), steps, (7e4, 2e5), eps=0.01)
        >>> [panel.get_ylabel() for panel in axes]
        ['variance', '|mean|', 'paths $N_l$', 'cost in steps']
    """
    _, panels = axes_for(4, ax, columns=2)
    level, later = np.arange(len(paths)), np.arange(1, len(paths))
    look: dict[str, Any] = {"linewidth": 1.6, "markersize": 5}
    for axes, label, (whole, difference) in zip(panels, ("variance", "|mean|"), (variances, means)):
        axes.set_yscale("log", base=refinement, nonpositive="mask")
        axes.plot(level, np.abs(whole), "o-", color=COLOURS[0], label=f"{typeset(name)} on level $l$", **look)
        axes.plot(later, np.abs(difference), "s-", color=COLOURS[1], label=f"{typeset(name)}: level $l$ less level $l-1$", **look)
        finish(axes, "level $l$", label, legend=True, size=8)
    for axes, label, values, key in (
        (panels[2], "paths $N_l$", paths, f"eps = {eps:g}"),
        (panels[3], "cost in steps", cost, "each level"),
    ):
        axes.set_yscale("log", nonpositive="mask")
        axes.plot(level, values, "o-", color=COLOURS[0], label=key, **look)
        if axes is panels[3]:
            axes.axhline(totals[0], color=COLOURS[2], linewidth=1.4, label="all levels and the pilot")
            axes.axhline(totals[1], color=COLOURS[3], linewidth=1.4, linestyle="--", label="plain Monte Carlo, same error")
        finish(axes, "level $l$", label, legend=True, size=8)
    for axes in panels:
        axes.set_xticks(level[:: 1 + len(level) // 12])
    return panels
