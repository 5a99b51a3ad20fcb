"""Numbers over a grid of parameters: a heat map over two of them, curves with error bars over one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, FAINT, INK, LINES, MARKERS, canvas, finish, key_beside, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TEXTS = 64
"""The number of cells up to which a heat map writes the number into each."""
DECADES = 30.0
"""The ratio of the largest to the smallest positive number from which the colours are logarithmic."""


def heat_map(
    x: Any,
    y: Any,
    values: Any,
    unresolved: Any = None,
    *,
    xlabel: str = "",
    ylabel: str = "",
    label: str = "",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Plot numbers over two parameters as cells of equal size, with a colour bar.

    The colours are those of "cividis", which is made for colour-blind readers and darkens evenly in print; numbers of both signs have those of
    "PuOr", with white at 0. They are logarithmic if all numbers are positive and span a factor of 30. Unresolved cells are hatched within an outline;
    cells without a finite number are white with a cross. Up to 64 cells contain their number.

    Args:
        x: The values of the horizontal parameter, numbers or texts, `(n,)`; numbers are drawn in ascending order.
        y: The values of the vertical parameter, numbers or texts, `(m,)`, from bottom to top; numbers are drawn in ascending order.
        values: The numbers, `(m, n)`: `values[j, i]` belongs to `y[j]` and `x[i]`.
        unresolved: Whether a number is below its noise, Booleans `(m, n)`; None for none.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        label: Label of the colour bar.
        title: Title of the axes.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure. The colour bar lies in inset axes of these.

    Raises:
        ValueError: If the shapes do not fit together, or `ax` is not one axes object.

    Example:
        >>> from sdetools.plots import heat_map
        >>> axes = heat_map([0.1, 0.05], [0.5, 0.9], [[0.3, 0.2], [0.1, 0.05]], label="gap", xlabel="eta", ylabel="beta")
        >>> [text.get_text() for text in axes.get_xticklabels()]
        ['0.05', '0.1']
    """
    (across, i), (up, j) = _sorted(x), _sorted(y)
    table = np.asarray(values, dtype=float)
    hatched = np.zeros(table.shape, dtype=bool) if unresolved is None else np.asarray(unresolved, dtype=bool)
    if table.shape != (len(up), len(across)) or hatched.shape != table.shape:
        raise ValueError(f"`values` must have shape ({len(up)}, {len(across)}), y by x; got {table.shape}.")
    table, hatched = table[np.ix_(j, i)], hatched[np.ix_(j, i)]
    figure, axes = canvas(ax=ax)
    axes.grid(visible=False)
    colours, norm = _colours(table[np.isfinite(table)])
    edges = np.arange(len(across) + 1) - 0.5, np.arange(len(up) + 1) - 0.5
    mesh = axes.pcolormesh(*edges, np.ma.masked_invalid(table), cmap=colours, norm=norm, edgecolors="white", linewidth=0.8)
    for row, column in np.argwhere(~np.isfinite(table)):
        axes.plot(column, row, "x", color=INK, markersize=9, markeredgewidth=1.4)
    if hatched.any():
        _hatch(axes, hatched, lambda row, column: "white" if _is_dark(colours(norm(table[row, column]))) else INK)
    if table.size <= MOST_TEXTS:
        for row, column in np.argwhere(np.isfinite(table)):
            number = table[row, column]
            back = colours(norm(number))
            box = {"facecolor": back, "edgecolor": "none", "pad": 1.2} if hatched[row, column] else None
            ink = "white" if _is_dark(back) else INK
            axes.text(column, row, f"{number:.3g}", ha="center", va="center", fontsize=8, color=ink, bbox=box)
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(up)), up)
    if max(map(len, across)) * len(across) > 60:
        axes.tick_params(axis="x", labelrotation=60)
    axes.set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]])
    bar = figure.colorbar(mesh, cax=axes.inset_axes((1.03, 0.0, 0.045, 1.0)))
    bar.set_label(typeset(label), color=INK, fontsize=10)
    bar.ax.tick_params(labelsize=9, colors=INK)
    bar.outline.set_visible(False)
    finish(axes, xlabel, ylabel)
    axes.set_title(
        typeset(title), color=INK, fontsize=11, loc="left", pad=22 if hatched.any() or not np.isfinite(table).all() else 6
    )
    _key(axes, bool(hatched.any()), not np.isfinite(table).all())
    return axes


def parameter_curves(
    x: Any,
    curves: Mapping[str, Sequence[Any]],
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Plot numbers against a parameter, with error bars, one curve for each value of another parameter.

    Numbers that are not resolved, because they are below their noise, have hollow markers. Curves differ in colour, line style and marker. Axes are
    logarithmic where positive numbers span a factor of 8.

    Args:
        x: The values of the parameter, numbers or texts, `(n,)`.
        curves: A mapping from a curve's name, which may be empty, to four arrays `(n,)`: numbers (those that are not finite are not drawn), lower and
            upper ends of their intervals (NaN for none), and whether a number is resolved, Booleans.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: Title of the axes.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Example:
        >>> from sdetools.plots import parameter_curves
        >>> axes = parameter_curves([0.1, 0.05], {"": ([0.2, 0.1], [0.1, 0.0], [0.3, 0.2], [True, False])}, xlabel="eta")
        >>> axes.get_xlabel()
        'eta'
    """
    names, order = _sorted(x)
    _, axes = canvas(7.6 if len(curves) > 1 else 6.4, 4.2, ax)
    texts = np.asarray(x).dtype.kind == "U"
    places = np.arange(len(names), dtype=float) if texts else np.asarray(x, dtype=float)[order]
    wide, everything = _spans(places), []
    hollow_any = False
    for c, (name, rows) in enumerate(curves.items()):
        value, low, high = (np.asarray(row, dtype=float)[order] for row in rows[:3])
        resolved = np.asarray(rows[3], dtype=bool)[order]
        colour, marker, line = (part[c % len(part)] for part in (COLOURS, MARKERS, LINES))
        known = np.isfinite(value)
        if not known.any():
            continue
        hollow = known & ~resolved
        hollow_any |= bool(hollow.any())
        axes.plot(
            places[known],
            value[known],
            color=colour,
            linestyle=line,
            linewidth=1.5,
            marker=marker,
            markersize=5.5,
            label=typeset(name) or None,
        )
        axes.plot(
            places[hollow],
            value[hollow],
            linestyle="",
            marker=marker,
            markersize=5.5,
            markeredgecolor=colour,
            markerfacecolor="white",
            zorder=3,
        )
        bars = known & np.isfinite(low) & np.isfinite(high)
        axes.vlines(places[bars], low[bars], high[bars], color=colour, linewidth=1.2)
        everything.append(value[known])
    if texts or len(names) <= 8:
        axes.set_xscale("log" if wide and not texts else "linear")
        axes.set_xticks(places, names)
        axes.set_xticks([], minor=True)
    elif wide:
        axes.set_xscale("log")
    lowest = [np.asarray(rows[1], dtype=float) for rows in curves.values()]
    if _spans(np.concatenate([np.zeros(0), *everything])) and np.nanmin([np.inf, *np.concatenate(lowest)]) > 0:
        axes.set_yscale("log")
    finish(axes, xlabel, ylabel, title)
    key_beside(axes, hollow="unresolved" if hollow_any else "")
    return axes


def _sorted(values: Any) -> tuple[list[str], np.ndarray]:
    """Return the labels of a parameter's values and their order: ascending for numbers, as given for texts."""
    array = np.asarray(values)
    if array.dtype.kind == "U":
        return [typeset(text) for text in array.tolist()], np.arange(len(array))
    order = np.argsort(array)
    return [f"{number:.6g}" for number in array[order].tolist()], order


def _spans(values: np.ndarray) -> bool:
    """Return whether numbers are positive and span a factor of 8, so that a logarithmic axis shows them better."""
    return bool(values.size and values.min() > 0 and values.max() >= 8 * values.min())


def _colours(finite: np.ndarray) -> tuple[Any, Any]:
    """Return the colour map and the norm of finite numbers."""
    import matplotlib
    from matplotlib.colors import LogNorm, Normalize

    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0 < high:
        edge = max(-low, high)
        return matplotlib.colormaps["PuOr"], Normalize(-edge, edge)
    if low == high:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    if low > 0 and high >= DECADES * low:
        return matplotlib.colormaps["cividis"], LogNorm(low, high)
    return matplotlib.colormaps["cividis"], Normalize(low, high)


def _is_dark(colour: Any) -> bool:
    """Return whether white text is more readable than dark text on a colour (red, green, blue, alpha)."""
    return bool(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 0.5)


def _hatch(axes: Axes, cells: np.ndarray, ink: Callable[[int, int], str]) -> None:
    """Hatch cells, and draw the outline of the regions that they form; `ink` returns the colour of the hatching at (row, column)."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    for row, column in np.argwhere(cells):
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ink(row, column), alpha=0.6, hatch="///", linewidth=0
            )
        )
    padded = np.pad(cells, 1)
    beside, above = padded[1:-1, 1:] != padded[1:-1, :-1], padded[1:, 1:-1] != padded[:-1, 1:-1]
    lines = [[(c - 0.5, r - 0.5), (c - 0.5, r + 0.5)] for r, c in np.argwhere(beside)]
    lines += [[(c - 0.5, r - 0.5), (c + 0.5, r - 0.5)] for r, c in np.argwhere(above)]
    axes.add_collection(LineCollection(lines, colors=INK, linewidths=1.8, capstyle="projecting", clip_on=False))


def _key(axes: Axes, hatched: bool, crossed: bool) -> None:
    """Add a legend above the axes that explains hatched and crossed cells, where there are any."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if hatched:
        handles.append(Patch(facecolor="white", edgecolor=INK, hatch="///", label="unresolved"))
    if crossed:
        handles.append(Line2D([], [], linestyle="", marker="x", color=INK, label="failed or diverged"))
    if handles:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 2, "borderaxespad": 0.3}
        axes.legend(handles=handles, frameon=False, fontsize=9, labelcolor=INK, edgecolor=FAINT, **place)
