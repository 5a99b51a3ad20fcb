"""Curves of the risk against steps on logarithmic axes, and a phase diagram over learning rate and batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, FAINT, canvas, finish, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def risk_curves(
    steps: Any,
    values: Mapping[str, Any],
    slopes: Sequence[float] = (),
    *,
    xlabel: str = "step",
    ylabel: str = "excess risk",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Plot curves of the risk against the steps on logarithmic axes, with dotted reference slopes.

    Args:
        steps: The steps, `(times,)`; step 0 is not drawn.
        values: A mapping from a curve's name to its risks, `(times,)`; values that are not positive and finite are not drawn.
        slopes: Exponents of reference lines through the first point drawn of the first curve.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: Title of the axes.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Raises:
        ValueError: If a curve has another length than `steps`, or there is no step above 0.

    Example:
        >>> axes = risk_curves([1, 10, 100], {"SGD": [1.0, 0.2, 0.04]}, slopes=[-0.7])
        >>> axes.get_xscale(), axes.get_yscale()
        ('log', 'log')
    """
    k = np.asarray(steps, dtype=float)
    curves = {str(name): np.asarray(curve, dtype=float) for name, curve in values.items()}
    if k.ndim != 1 or not np.any(k > 0) or any(curve.shape != k.shape for curve in curves.values()):
        raise ValueError(f"`steps` must have a step above 0, and `values` curves of the same length; got {k.shape} steps.")
    _, axes = canvas(ax=ax)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for i, (name, curve) in enumerate(curves.items()):
        shown = (k > 0) & np.isfinite(curve) & (curve > 0)
        axes.plot(k[shown], curve[shown], color=COLOURS[i % len(COLOURS)], linewidth=1.6, label=typeset(name))
        if i == 0 and shown.any():
            x, y = k[shown], curve[shown]
            for slope in slopes:
                axes.plot(x, y[0] * (x / x[0]) ** slope, color=FAINT, linewidth=1.0, linestyle=":")
    finish(axes, xlabel, ylabel, title, legend=True)
    return axes
