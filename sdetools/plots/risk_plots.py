"""Curves of the risk against steps on logarithmic axes, and a phase diagram over learning rate and batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, DASHED, FAINT, INK, canvas, finish, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES: tuple[Any, ...] = ("-", DASHED, (0, (1, 1.5)))
_SMALL: dict[str, Any] = {"fontsize": 8, "color": INK, "ha": "right"}


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
        # Later curves are thinner, so that an earlier one that they cover still shows, and dashed where colours repeat.
        look = {"linestyle": _LINES[i // len(COLOURS) % len(_LINES)], "linewidth": max(3.0 - 0.5 * i, 1.2)}
        axes.plot(k[shown], curve[shown], color=COLOURS[i % len(COLOURS)], label=typeset(name), zorder=2 + 0.01 * i, **look)
        if i == 0 and shown.any():
            x, y = k[shown], curve[shown]
            for slope in slopes:
                axes.plot(x, y[0] * (x / x[0]) ** slope, color=FAINT, linewidth=1.0, linestyle=":")
                axes.annotate(
                    f"slope {slope:.3g}", (x[-1], y[0] * (x[-1] / x[0]) ** slope), (-4, 4), textcoords="offset points", **_SMALL
                )
    finish(axes, xlabel, ylabel, title, legend=True)
    return axes


def phase_diagram(
    rates: Any, batches: Any, values: Any, level: float, *, title: str = "", label: str = "bound", ax: Axes | None = None
) -> Axes:
    """Plot numbers over learning rate and batch size on logarithmic axes, with the contour of one level.

    Args:
        rates: The learning rates, `(rates,)`, positive.
        batches: The batch sizes, `(batches,)`, positive.
        values: The numbers, `(batches, rates)`; those that are not positive and finite are left blank.
        level: The level of the contour, such as the tolerance of a rule.
        title: Title of the axes.
        label: The name of the numbers, in the legend of the contour.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Raises:
        ValueError: If the shapes do not fit together.

    Example:
        >>> axes = phase_diagram([0.01, 0.1], [1, 8], [[0.001, 0.1], [0.002, 0.3]], level=0.05)
        >>> axes.get_xlabel()
        'learning rate h'
    """
    h, B, table = (np.asarray(part, dtype=float) for part in (rates, batches, values))
    if table.shape != (len(B), len(h)):
        raise ValueError(f"`values` must have shape ({len(B)}, {len(h)}), batches by rates; got {table.shape}.")
    _, axes = canvas(ax=ax)
    shown = np.ma.masked_invalid(np.log10(np.where((table > 0) & np.isfinite(table), table, np.nan)))
    axes.pcolormesh(h, B, shown, shading="nearest", cmap="viridis")
    if min(table.shape) > 1 and np.nanmin(np.where(np.isfinite(table), table, np.nan)) < level < table.max():
        axes.contour(h, B, np.minimum(table, 1e3), levels=[level], colors="white")
    axes.set_xscale("log")
    axes.set_yscale("log")
    finish(axes, "learning rate h", "batch size B", title or f"log10 {label}; line: {label} = {level:g}")
    return axes
