"""Curves of the risk against steps, curves before and after scaling, and a phase diagram over learning rate and batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, DASHED, FAINT, INK, MARKERS, axes_for, canvas, finish, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES: tuple[Any, ...] = ("-", DASHED, (0, (1, 1.5)))
_REGIONS = ("#9ecae9", "#f6c99a")
"""Light blue and light orange, which colour-blind readers tell apart, also in grey."""
_WIDE = 70
"""The number of characters that fit into one line of a legend."""
_CONTOURS = 2
"""The distance from the level, in decades, up to which decades have contours."""
_SMALL: dict[str, Any] = {"fontsize": 8, "color": INK, "annotation_clip": False}


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
    """Plot curves of the risk (the expected loss, say) against the number of steps on logarithmic axes, with dotted reference slopes.

    Args:
        steps: The numbers k of steps, `(times,)`; step 0 is not drawn.
        values: A mapping from a curve's name to its risks, `(times,)`; values that are not positive and finite are not drawn.
        slopes: Exponents s of reference lines, risk proportional to k^s, through the first point drawn of the first curve.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: Title of the axes.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Raises:
        ValueError: If a curve has another length than `steps`, or there is no step above 0.

    Example:
        >>> from sdetools.plots import risk_curves
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
        look: dict[str, Any] = {"linestyle": _LINES[i // len(COLOURS) % len(_LINES)], "linewidth": max(3.0 - 0.5 * i, 1.2)}
        axes.plot(k[shown], curve[shown], color=COLOURS[i % len(COLOURS)], label=typeset(name), zorder=2 + 0.01 * i, **look)
        if i == 0 and shown.any():
            x, y = k[shown], curve[shown]
            for slope in slopes:
                axes.plot(x, y[0] * (x / x[0]) ** slope, color=FAINT, linewidth=1.0, linestyle=":")
                end = (x[-1], y[0] * (x[-1] / x[0]) ** slope)
                axes.annotate(f"slope {slope:.3g}", end, (3, 0), textcoords="offset points", va="center", **_SMALL)
    finish(axes, xlabel, ylabel, title, legend=True)
    return axes


def collapse_panels(
    curves: Mapping[str, tuple[Any, Any]],
    scales: Mapping[str, tuple[float, float]],
    *,
    labels: tuple[str, str] = ("batch size B", "speed-up"),
    scaled_labels: tuple[str, str] = ("B / B*", "speed-up / largest"),
    ax: Any = None,
) -> list[Axes]:
    """Plot curves on logarithmic axes in two panels: as they are, and divided by a scale of each on both axes, where they may collapse.

    Args:
        curves: A mapping from a curve's name to the pair (x, y) of arrays `(points,)`, positive.
        scales: A mapping from the same names to the pair of numbers by which x and y are divided, positive.
        labels: Labels of the horizontal and the vertical axis of the first panel, that of the curves as they are.
        scaled_labels: Labels of the horizontal and the vertical axis of the second panel, that of the divided curves.
        ax: Two axes to draw on; None makes a new figure.

    Returns:
        A list of the two axes: as they are, divided.

    Raises:
        ValueError: If the names of curves and scales differ, the arrays of a curve have different lengths, or `ax` are not two axes.

    Example:
        >>> from sdetools.plots import collapse_panels
        >>> raw, scaled = collapse_panels({"a": ([1, 10], [1, 5])}, {"a": (10.0, 5.0)})
        >>> scaled.lines[0].get_xydata().tolist()
        [[0.1, 0.2], [1.0, 1.0]]
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if curves.keys() != scales.keys():
        raise ValueError(f"`scales` must have the names of `curves`, {', '.join(curves)}; got {', '.join(scales)}.")
    _, panels = axes_for(2, ax, size=(9.2, 4.0))
    for i, (name, pair) in enumerate(curves.items()):
        x, y = (np.asarray(part, dtype=float) for part in pair)
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"a curve must be two arrays of one length; {name} has the shapes {x.shape} and {y.shape}.")
        look: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "markersize": 5,
            "linewidth": 1.4,
        }
        for axes, (by_x, by_y) in zip(panels, ((1.0, 1.0), scales[name]), strict=True):
            axes.plot(x / by_x, y / by_y, label=typeset(name), **look)
    for i, (axes, (xlabel, ylabel)) in enumerate(zip(panels, (labels, scaled_labels), strict=True)):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        finish(axes, xlabel, ylabel, legend=i == 0)
    return panels


def phase_diagram(
    rates: Any,
    batches: Any,
    values: Any,
    level: float,
    *,
    title: str = "",
    label: str = "bound",
    blank: str = "unstable",
    ax: Axes | None = None,
) -> Axes:
    """Plot numbers over learning rate and batch size on logarithmic axes: where they are at most a level, and their contours above and below.

    Args:
        rates: The learning rates h, `(rates,)`, positive, ascending.
        batches: The batch sizes B, `(batches,)`, positive, ascending.
        values: The numbers, `(batches, rates)`, 0 or above; where they are not finite, the diagram is hatched.
        level: The positive level that separates the two regions, such as a tolerance; numbers up to it are blue, larger ones orange.
        title: Title of the axes.
        label: The name of the numbers, in the legend.
        blank: What the hatched region is, in the legend.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Raises:
        ValueError: If the shapes do not fit together, or `ax` is not one axes object.

    Example:
        >>> from sdetools.plots import phase_diagram
        >>> axes = phase_diagram([0.01, 0.1], [1, 8], [[0.001, 0.1], [0.002, 0.3]], level=0.05)
        >>> axes.get_xlabel()
        'learning rate h'
    """
    h, B, table = (np.asarray(part, dtype=float) for part in (rates, batches, values))
    if table.shape != (len(B), len(h)):
        raise ValueError(f"`values` must have shape ({len(B)}, {len(h)}), batches by rates; got {table.shape}.")
    _, axes = canvas(ax=ax)
    known = np.isfinite(table)
    axes.patch.set(facecolor="white", edgecolor=FAINT, hatch="///", linewidth=0)
    axes.grid(visible=False)
    axes.set_xscale("log")
    axes.set_yscale("log")
    logs = np.ma.masked_invalid(np.log10(np.where(known, np.maximum(table, 1e-300), np.nan)))
    edge = np.log10(level)
    if min(table.shape) > 1 and logs.count():
        axes.contourf(h, B, logs, levels=[-np.inf, edge, np.inf], colors=_REGIONS)
    else:
        axes.pcolormesh(h, B, logs > edge, shading="nearest", cmap=_colour_map(), vmin=0, vmax=1)
    if min(table.shape) > 1 and logs.count() > 1 and logs.min() < logs.max():
        decades = np.arange(np.ceil(logs.min()), np.floor(logs.max()) + 1)
        decades = decades[np.abs(decades - edge) < _CONTOURS]
        lines = axes.contour(h, B, logs, levels=decades, colors=INK, linewidths=0.7, linestyles="-") if len(decades) else None
        if logs.min() < edge < logs.max():
            axes.contour(h, B, logs, levels=[edge], colors=INK, linewidths=2.2, linestyles="-")
        if lines is not None:
            axes.clabel(lines, fmt=lambda power: f"{10.0**power:g}", fontsize=8)
    for limits, edges in ((axes.set_xlim, h), (axes.set_ylim, B)):
        if len(edges) > 1:
            limits(edges.min(), edges.max())
    _regions(axes, (f"{label} at most {level:g}", f"{label} above {level:g}", blank), known.all())
    finish(axes, "learning rate h", "batch size B", title)
    return axes


def _colour_map() -> Any:
    """Return the colours of the two regions of a phase diagram."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(_REGIONS)


def _regions(axes: Axes, names: tuple[str, str, str], finite: bool) -> None:
    """Add the legend of the regions above the axes; the third is left out if all numbers are `finite`."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, label=typeset(name)) for colour, name in zip(_REGIONS, names[:2], strict=True)]
    if not finite:
        patches.append(Patch(facecolor="white", edgecolor=FAINT, hatch="///", label=typeset(names[2])))
    wide = sum(len(str(patch.get_label())) for patch in patches) > _WIDE
    axes.legend(
        handles=patches,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=1 if wide else 3,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        borderaxespad=0.2,
    )
