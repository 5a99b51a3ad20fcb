"""Curves with their bands: gaps against the step size, means and gaps along time, and panels of several curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, DASHED, FAINT, INK, LINES, MARKERS, axes_for, canvas, finish, key_beside, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = Sequence[float] | np.ndarray


def loglog_orders(
    etas: Numbers,
    values: Numbers | Mapping[str, Numbers],
    low: Numbers | Mapping[str, Numbers] | None = None,
    high: Numbers | Mapping[str, Numbers] | None = None,
    exact: Numbers | Mapping[str, Numbers] | None = None,
    slopes: Sequence[float] = (0.5, 1.0),
    *,
    band: str = "",
    xlabel: str = r"$\eta$",
    ylabel: str = "weak gap",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    r"""Plot gaps (sizes of differences of two means) against step sizes on logarithmic axes, with bands, exact values and reference slopes.

    Exact values are dashed dark lines, reference slopes grey lines.

    The legend at the right names the curves, the bands, hollow points and the slopes. Curves differ in colour, line style and marker.
    A point is hollow, not resolved, if the lower end of its band is zero, negative or NaN. Gaps that are not positive or NaN are not drawn.

    Args:
        etas: Step sizes (learning rates), positive, at least one, in any order.
        values: Gaps, `(len(etas),)`, or a mapping from a curve's name to such an array.
        low: Lower ends of the bands, in the form of `values`; a curve without them has no band below it and counts as resolved.
        high: Upper ends of the bands, in the form of `values`; a curve without them has no band above it.
        exact: Exact gaps, in the form of `values`; a curve without them has no dashed line.
        slopes: Slopes of the reference lines, y = 1.6 (largest of all gaps) (x / largest step size)^slope; empty for none. They are drawn only with
            two or more step sizes and a positive gap.
        band: What the bands are, for the legend, such as "95 % band"; the empty text leaves them out of the legend.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: Title of the axes.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Raises:
        ValueError: Lengths differ, there is no step size or one that is not positive, or `ax` is not one axes object.

    Example:
        >>> from sdetools.plots import loglog_orders
        >>> axes = loglog_orders([0.1, 0.05], [0.02, 0.011], low=[0.018, 0.010], high=[0.022, 0.012], exact=[0.02, 0.01])
        >>> axes.get_xscale(), axes.get_yscale()
        ('log', 'log')
    """
    x = np.asarray(etas, dtype=float)
    if x.ndim != 1 or len(x) == 0 or not np.all(x > 0):
        raise ValueError(f"`etas` must be positive step sizes; got {etas!r}.")
    curves, lows, highs, exacts = (
        _curves(name, v, len(x)) for name, v in {"values": values, "low": low, "high": high, "exact": exact}.items()
    )
    _, axes = canvas(7.8, 4.2, ax)
    axes.set_xscale("log")
    axes.set_yscale("log")
    order, hollow_any = np.argsort(x), False
    smallest = min((v[v > 0].min() for v in curves.values() if np.any(v > 0)), default=1.0)
    for i, (name, value) in enumerate(curves.items()):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        y, down, up = value[order], *(part.get(name, value)[order] for part in (lows, highs))
        shown, resolved = y > 0, (y > 0) & (down > 0)
        axes.fill_between(
            x[order], np.where(down > 0, down, smallest / 10), up, where=shown, color=colour, alpha=0.16, linewidth=0
        )
        look: dict[str, Any] = {
            "color": colour,
            "linewidth": 1.6,
            "linestyle": LINES[i % len(LINES)],
            "marker": marker,
            "markersize": 5.5,
        }
        axes.plot(x[order][shown], y[shown], label=typeset(name) or None, **look)
        hollow = shown & ~resolved
        hollow_any |= bool(hollow.any())
        axes.plot(
            x[order][hollow],
            y[hollow],
            linestyle="",
            marker=marker,
            markersize=5.5,
            markeredgecolor=colour,
            markerfacecolor="white",
            zorder=3,
        )
        if name in exacts:
            axes.plot(
                x[order], exacts[name][order], color=INK, linewidth=1.1, linestyle=DASHED, label="exact" if i == 0 else None
            )
    _references(axes, x[order], curves, slopes)
    axes.set_ylim(bottom=smallest / 4)
    _few_ticks(axes, x[order])
    finish(axes, xlabel, ylabel, title)
    key_beside(axes, band=band if lows or highs else "", hollow="unresolved" if hollow_any else "")
    return axes


def gap_curve(
    times: Numbers,
    values: Numbers | Mapping[str, Numbers],
    low: Numbers | Mapping[str, Numbers] | None = None,
    high: Numbers | Mapping[str, Numbers] | None = None,
    exact: Numbers | Mapping[str, Numbers] | None = None,
    *,
    band: str = "",
    xlabel: str = "$t$",
    ylabel: str = "weak gap",
    title: str = "",
    zero: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Plot means or gaps (differences of two means) along time with their bands; exact curves are dashed.

    A legend at the right names the curves and the bands. Curves differ in colour and line style.

    Args:
        times: The recorded times, at least one, in ascending order.
        values: Values, `(len(times),)`, or a mapping from a curve's name to such an array; a NaN interrupts the curve.
        low: Lower ends of the bands, in the form of `values`; a curve without them has no band below it.
        high: Upper ends of the bands, in the form of `values`; a curve without them has no band above it.
        exact: Exact values, in the form of `values`; a curve without them has no dashed line.
        band: What the bands are, for the legend, such as "95 % band"; the empty text leaves them out of the legend.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: Title of the axes.
        zero: Whether to draw a line at 0.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Raises:
        ValueError: Lengths differ, there are no times, or `ax` is not one axes object.

    Example:
        >>> from sdetools.plots import gap_curve
        >>> axes = gap_curve([0.0, 0.5, 1.0], [0.0, 0.2, 0.1], low=[0.0, 0.1, 0.0], high=[0.0, 0.3, 0.2])
        >>> axes.get_ylabel()
        'weak gap'
    """
    t = np.asarray(times, dtype=float)
    if t.ndim != 1 or len(t) == 0:
        raise ValueError(f"`times` must be a list of times; got {times!r}.")
    curves, lows, highs, exacts = (
        _curves(name, v, len(t)) for name, v in {"values": values, "low": low, "high": high, "exact": exact}.items()
    )
    _, axes = canvas(7.6 if band or len(curves) > 1 else 6.4, 4.2, ax)
    if zero:
        axes.axhline(0.0, color=FAINT, linewidth=0.8)
    for i, (name, value) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        axes.fill_between(t, lows.get(name, value), highs.get(name, value), color=colour, alpha=0.18, linewidth=0)
        axes.plot(t, value, color=colour, linewidth=1.6, linestyle=LINES[i % len(LINES)], label=typeset(name) or None)
        if name in exacts:
            axes.plot(t, exacts[name], color=INK, linewidth=1.1, linestyle=DASHED, label="exact" if i == 0 else None)
    axes.margins(x=0.01)
    finish(axes, xlabel, ylabel, title)
    key_beside(axes, band=band if lows or highs else "")
    return axes


def curve_panels(
    panels: Mapping[str, Mapping[str, tuple[Numbers, Numbers, Numbers]]], xlabel: str = "$t$", ax: Any = None
) -> list[Axes]:
    """Plot one panel for each entry of a mapping: the first curve as a line with its band, the others as markers with error bars.

    Args:
        panels: A mapping, not empty, from each panel's title to a mapping from a curve's name to three arrays `(points,)`: x, y and the half-width of
            the band or error bar around y.
        xlabel: Label of the horizontal axes.
        ax: Axes to draw on, one for each panel; None makes a new figure with up to three panels in a row.

    Returns:
        A list of the axes, one for each panel, in the order of `panels`; only the first has a legend, of its own curves,
        above its title.

    Raises:
        ValueError: `ax` holds another number of axes.

    Example:
        >>> from sdetools.plots import curve_panels
        >>> axes = curve_panels({"x": {"limit": ([0, 1], [1, 2], [0, 0]), "mean": ([0, 1], [1, 2.1], [0.1, 0.1])}})
        >>> len(axes)
        1
    """
    _, all_axes = axes_for(len(panels), ax)
    for axes, (title, panel) in zip(all_axes, panels.items()):
        for i, (name, (x, y, half)) in enumerate(panel.items()):
            x, y, half = (np.asarray(values, dtype=float) for values in (x, y, half))
            if i == 0:
                axes.plot(x, y, "-", color=INK, lw=1.4, label=typeset(name))
                axes.fill_between(x, y - half, y + half, color=INK, alpha=0.12, lw=0)
            else:
                axes.errorbar(
                    x,
                    y,
                    yerr=half,
                    fmt=MARKERS[(i - 1) % len(MARKERS)],
                    ms=4,
                    lw=1,
                    color=COLOURS[(i - 1) % len(COLOURS)],
                    label=typeset(name),
                )
        axes.set(title=typeset(title), xlabel=typeset(xlabel))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.12), "ncols": 4, "borderaxespad": 0.0}
    all_axes[0].legend(fontsize=9, frameon=False, labelcolor=INK, **place)
    return all_axes


def _curves(name: str, value: Any, length: int) -> dict[str, np.ndarray]:
    """Return curves by name, each checked to have `length` entries; an unnamed one has the name "", and None gives no curves."""
    if value is None:
        return {}
    curves = value if isinstance(value, Mapping) else {"": value}
    out = {str(key): np.asarray(item, dtype=float) for key, item in curves.items()}
    for item in out.values():
        if item.shape != (length,):
            raise ValueError(f"`{name}` must have {length} entries, one for each point of the axis; got shape {item.shape}.")
    return out


SLOPES: tuple[Any, ...] = ((0, (1, 2)), (0, (4, 2)), (0, (6, 2, 1, 2)))
"""Line styles of reference slopes."""
NEAR = 0.2
"""The least distance of two labels of a logarithmic axis, as a part of its length."""


def _references(axes: Axes, x: np.ndarray, curves: Mapping[str, np.ndarray], slopes: Sequence[float]) -> None:
    """Draw grey lines of the given slopes, above the topmost point at the largest step."""
    tops = [value.max() for value in curves.values() if np.any(value > 0)]
    if len(x) < 2 or not tops:
        return
    anchor = 1.6 * max(tops)
    for i, slope in enumerate(slopes):
        y, line = anchor * (x / x[-1]) ** slope, SLOPES[i % len(SLOPES)]
        axes.plot(x, y, color=FAINT, linewidth=1.3, linestyle=line, label=f"slope {slope:g}")


def _few_ticks(axes: Axes, x: np.ndarray) -> None:
    """Label a logarithmic horizontal axis at the points `x`, ascending, and leave out labels that would touch another."""
    length, kept = np.log(x[-1] / x[0]), [x[-1]]
    for point in x[-2::-1]:
        if np.log(kept[-1] / point) >= NEAR * length:
            kept.append(point)
    axes.set_xticks(kept, [f"{point:.4g}" for point in kept])
    axes.set_xticks([], minor=True)
