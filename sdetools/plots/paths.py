"""Paths: in the plane on the contours of the loss, against time, and on the manifold of minimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, FAINT, INK, LINES, MARKERS, axes_for, finish, key_beside, style, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = 6
"""The number of coordinates that results plot unless others are asked for."""
FEW = 6
"""Up to this number of paths each has a colour of its own."""
DASHES = (0, (4, 2))
LEGEND_COLUMNS = 5
"""The number of entries in a row of the legend above the axes."""
MANIFOLD = "#9fd0c5"
"""The light colour of the minimisers."""


def path_plot(
    names: Sequence[str], members: Sequence[Any], loss: Any = None, ax: Any = None, time: bool = False, separate: bool = False
) -> list[Axes]:
    """Plot paths of one dynamics, or of two that are compared (its members).

    Two coordinates are drawn as curves in the plane, on the contours of the loss if it is given; another number of coordinates is drawn against
    time, one panel each. Up to six paths have a colour each, and those of a second dynamics are dashed; with more paths each dynamics has a colour.
    Paths that do not stay finite do not count for the limits of the axes, unless no path stays finite.

    Args:
        names: The names of the dynamics, one for each of `members`, for the legend.
        members: One `xarray.DataArray` for each dynamics, with the dimensions (path, time, coordinate) and labels along each, such as
            `run.trajectories.sel(part="x")`; all have the same paths and coordinates.
        loss: A loss whose method `value` maps points `(2, n)` to n numbers, and whose contours are drawn in the plane; None draws none.
        ax: Axes to draw on, one for each panel; None makes a new figure.
        time: Whether two coordinates, too, are drawn against time, in two panels, instead of in the plane.
        separate: Whether each dynamics has axes of its own in the plane, with the same limits.

    Returns:
        A list of the axes: one for the plane (one for each dynamics if these are separate), otherwise one for each coordinate in order.

    Raises:
        ValueError: `ax` holds another number of axes, or `separate` is true where paths are not drawn in the plane.

    Example:
        >>> import numpy as np, xarray as xr
        >>> from sdetools.plots import path_plot
        >>> labels = {"path": [0], "time": [0.0, 1.0], "coordinate": ["x", "y"]}
        >>> paths = xr.DataArray(np.array([[[1.0, 0.0], [0.5, 0.1]]]), coords=labels, dims=list(labels))
        >>> [axes.get_xlabel() for axes in path_plot(["SGD"], [paths])], len(path_plot(["SGD"], [paths], time=True))
        (['x'], 2)
    """
    labels = [str(name) for name in members[0].coordinate.values]
    values, t, count = [np.asarray(m.values, float) for m in members], members[0].time.values, members[0].sizes["path"]
    plane, few = len(labels) == 2 and not time, count <= FEW
    if separate and not plane:
        raise ValueError(
            f"`separate` must be False where coordinates are drawn against time, as {len(labels)} are here; got separate=True. Leave it out, or pass "
            "two coordinates without time."
        )
    if separate and len(members) > 1:
        return _separate(names, members, loss, ax)
    way = "For one axes a dynamics, side by side, pass separate=True." if plane and len(members) > 1 else ""
    _, panels = axes_for(1 if plane else len(labels), ax, hint=way)
    limits = [_limits([v[..., i] for v in values]) for i in range(len(labels))]
    if plane and loss is not None:
        _contours(panels[0], loss, *limits)
    look: dict[str, Any] = {"lw": 1.3, "alpha": 0.9} if few else {"lw": 0.7, "alpha": float(np.clip(25 / count, 0.08, 0.6))}
    for m, v in enumerate(values):
        for p, path in enumerate(v):
            colour, dashes = COLOURS[(p if few else m) % len(COLOURS)], DASHES if few and m else "-"
            for i, axes in enumerate(panels):
                line = (path[:, 0], path[:, 1]) if plane else (t, path[:, i])
                axes.plot(*line, color=colour, ls=dashes, zorder=2.5 - m / 4, **look)
            if plane:
                panels[0].plot(
                    *path[-1:].T,
                    "o",
                    color=colour,
                    mfc="white" if few and m else colour,
                    ms=4,
                    zorder=4,
                    alpha=max(look["alpha"], 0.4),
                )
    if plane:
        starts = np.unique(np.concatenate([v[:, 0] for v in values]), axis=0)
        panels[0].plot(
            *starts.T,
            ls="",
            marker="*" if len(starts) == 1 else ".",
            color="white",
            mec=INK,
            ms=13 if len(starts) == 1 else 5,
            zorder=5,
        )
        panels[0].set(xlim=limits[0], ylim=limits[1], xlabel=typeset(labels[0]), ylabel=typeset(labels[1]))
    else:
        for axes, name, (low, high) in zip(panels, labels, limits):
            axes.set(xlim=(t[0], t[-1] if len(t) > 1 else None), ylim=(low, high), xlabel="$t$", ylabel=typeset(name))
    _legend(panels[0], names, [f"path {p}" for p in members[0].path.values.tolist()] if few else [])
    return panels


def _separate(names: Sequence[str], members: Sequence[Any], loss: Any, ax: Any) -> list[Axes]:
    """Plot the paths of each dynamics in a plane of its own; the arguments are those of `path_plot`."""
    _, panels = axes_for(len(members), ax, size=(4.6 * len(members), 4.2))
    for axes, name, member in zip(panels, names, members):
        path_plot([name], [member], None, axes)
        legend = axes.get_legend()
        rows = -(-len(legend.get_texts()) // LEGEND_COLUMNS) if legend is not None else 0
        axes.set_title(typeset(name), color=INK, fontsize=11, loc="right", pad=6 + 13 * rows)  # above the legend
    corners = np.array([[axes.get_xlim(), axes.get_ylim()] for axes in panels])
    (left, low), (right, high) = corners[..., 0].min(axis=0), corners[..., 1].max(axis=0)
    for axes in panels:
        axes.set(xlim=(left, right), ylim=(low, high))
        if loss is not None:
            _contours(axes, loss, (left, right), (low, high))
    return panels


def fan_panels(
    times: Any, panels: Mapping[str, Mapping[str, Any]], levels: Sequence[float] = (0.5, 0.9), ax: Any = None
) -> list[Axes]:
    """Plot the median and central ranges of paths along time, one panel for each quantity and one fan for each dynamics.

    A range of level p contains the share p of the paths at each time, from the quantile (1 - p) / 2 to (1 + p) / 2. A fan has a gap at times at which a
    path is not finite. Fans differ in colour, and in the line style of the median.

    Args:
        times: The times, `(times,)`.
        panels: A mapping, not empty, from each panel's title to a mapping from a fan's name to the quantity along paths, `(paths, times)`.
        levels: The levels of the ranges, strictly between 0 and 1; empty draws medians alone.
        ax: Axes to draw on, one for each panel; None makes a new figure.

    Returns:
        A list of the axes, one for each panel; the last one has the legend.

    Raises:
        ValueError: A level does not lie between 0 and 1, or `ax` holds another number of axes.

    Example:
        >>> from sdetools.plots import fan_panels
        >>> (axes,) = fan_panels([0.0, 1.0], {"x": {"SGD": [[1.0, 0.5], [1.0, 0.7], [1.0, 0.9]]}}, levels=[0.9])
        >>> axes.lines[0].get_ydata().tolist()
        [1.0, 0.7]
    """
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"`levels` must lie strictly between 0 and 1; got {list(levels)!r}. For 90 % write 0.9.")
    wide = sorted((float(level) for level in levels), reverse=True)
    _, all_axes = axes_for(len(panels), ax, size=(2.4 + 4.2 * min(len(panels), 3), 0.4 + 2.8 * -(-len(panels) // 3)))
    t = np.asarray(times, dtype=float)
    for axes, (title, fans) in zip(all_axes, panels.items()):
        for i, (name, paths) in enumerate(fans.items()):
            values = np.asarray(paths, dtype=float)
            values = np.where(np.isfinite(values).all(axis=0), values, np.nan)
            colour, line = COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]
            axes.plot(t, np.median(values, axis=0), color=colour, linewidth=1.8, linestyle=line, zorder=3, label=typeset(name))
            for level in wide:
                low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
                axes.fill_between(t, low, high, color=colour, alpha=0.18, linewidth=0)
                axes.plot(t, low, t, high, color=colour, linewidth=0.5, alpha=0.6, linestyle=line, zorder=1.5)
        axes.margins(x=0.01)
        finish(axes, "$t$", title)
    named = " and ".join(f"{100 * level:g} %" for level in reversed(wide))
    key_beside(all_axes[-1], band=f"{named} of the paths" if wide else "")
    return all_axes


def manifold_plot(loss: Any, paths: Mapping[str, np.ndarray], points: np.ndarray, start: np.ndarray, ax: Any = None) -> Axes:
    """Plot paths on a manifold of minimisers in two or three dimensions.

    Points of the manifold are wide light dots, in the plane a curve. The first entry, the motion on the manifold, is a line on it; the others are
    dots at the recorded times, for their steps between these are not known. In two dimensions the logarithm of the loss is drawn behind in grey.

    Args:
        loss: A loss, with the method `value`, which maps points `(dim, n)` to n numbers, and `names`, those of the coordinates.
        paths: A mapping from a name in the legend to an array `(dim, times, n)` of n paths; the first entry is drawn in the dark colour `INK`.
        points: Points of the manifold, `(dim, m)`, dim 2 or 3; only those near the paths are drawn.
        start: The point where paths start, `(dim,)`.
        ax: Axes to draw on, three-dimensional ones for three coordinates; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.

    Example:
        >>> import numpy as np, sdetools as st
        >>> from sdetools.plots import manifold_plot
        >>> loss = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")
        >>> x = np.linspace(1.0, 2.0, 11)
        >>> hyperbola = np.stack([x, 1 / x])
        >>> manifold_plot(loss, {"slow SDE": hyperbola[:, :, None]}, hyperbola, np.array([2.0, 0.5])).get_xlabel()
        'x'
    """
    dim = len(points)
    axes: Any = ax
    if ax is None:
        from sdetools.plots.figures import DisplayedFigure

        figure = DisplayedFigure(figsize=(6.0, 5.0), facecolor="white", layout="constrained")
        axes = figure.add_subplot(projection="3d" if dim == 3 else None)
    seen = np.concatenate([p.reshape(dim, -1) for p in paths.values()] + [start[:, None]], axis=1)
    low, high = np.nanmin(seen, axis=1), np.nanmax(seen, axis=1)
    room = 0.12 * np.maximum(high - low, 0.3 * (high - low).max() + 1e-3)
    low, high = low - room, high + room
    inside = ((points >= low[:, None]) & (points <= high[:, None])).all(axis=0)
    points = points[:, inside]
    if dim == 2:
        style(axes)
        axes.grid(visible=False)
        grid = np.stack(np.meshgrid(*(np.linspace(a, b, 160) for a, b in zip(low, high)), indexing="ij"))
        with np.errstate(all="ignore"):
            level = np.log10(np.maximum(np.asarray(loss.value(grid.reshape(2, -1)), dtype=float).reshape(160, 160), 1e-12))
        top = np.nanmax(level)
        axes.contourf(
            grid[0],
            grid[1],
            level,
            levels=np.linspace(max(min(-5.0, top - 5.0), np.nanmin(level)), top + 1e-6, 14),
            cmap="Greys",
            alpha=0.25,
            extend="min",
            zorder=0,
        )
        axes.plot(*points, "o", color=MANIFOLD, ms=5, mew=0, label="minimisers", zorder=1)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    else:
        axes.scatter(*points, s=1.5, color=FAINT, alpha=0.5, label="minimisers")
    for i, (name, lines) in enumerate(paths.items()):
        colour, marker = (INK, "o") if i == 0 else (COLOURS[(i - 1) % len(COLOURS)], MARKERS[i % len(MARKERS)])
        look = {"ls": "-", "lw": 1.4} if i == 0 else {"ls": "", "marker": marker, "ms": 3.2, "mew": 0, "alpha": 0.6}
        for n in range(lines.shape[2]):
            axes.plot(*lines[:, :, n], color=colour, zorder=3 - (i > 0), label=typeset(name) if n == 0 else None, **look)
            axes.plot(*lines[:, -1:, n], marker, color=colour, ms=6, mec="white", mew=0.8, zorder=4)
    if paths:
        axes.plot(*np.full((dim, 1), np.nan), ls="", marker="o", ms=6, color=FAINT, mec="white", label="at the end")
    axes.plot(*start[:, None], "*", color="white", mec=INK, ms=12, label="start")
    names = list(loss.names)
    axes.set(xlabel=typeset(names[0]), ylabel=typeset(names[1]))
    if dim == 3:
        axes.set_zlabel(typeset(names[2]))
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 3, "columnspacing": 1.2}
    axes.legend(fontsize=9, frameon=False, labelcolor=INK, handlelength=1.6, **place)
    return axes


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the range of the paths that stay finite, with a margin; the range of all finite values, if no path stays finite."""
    stay = [v[np.isfinite(v).all(axis=1)].ravel() for v in values]
    seen = np.concatenate(stay if any(map(len, stay)) else [v[np.isfinite(v)] for v in values])
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _contours(axes: Axes, loss: Any, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Draw contours of a loss between limits, at its quantiles over the plane."""
    from matplotlib.colors import BoundaryNorm

    grid = np.stack(np.meshgrid(np.linspace(*x, 201), np.linspace(*y, 201), indexing="ij"))
    with np.errstate(all="ignore"):
        value = np.broadcast_to(np.asarray(loss.value(grid.reshape(2, -1)), dtype=float), 201 * 201).reshape(201, 201)
    value = np.ma.masked_invalid(value)
    levels = np.unique(np.quantile(value.compressed(), np.linspace(0.0, 1.0, 11))) if value.count() else np.zeros(0)
    if len(levels) > 1:
        axes.grid(visible=False)
        axes.contourf(*grid, value, levels=levels, cmap="Greys", norm=BoundaryNorm(levels, 256), alpha=0.25, zorder=0)
        axes.contour(*grid, value, levels=levels, colors=FAINT, linewidths=0.5, alpha=0.5, zorder=0.5)


def _legend(axes: Axes, names: Sequence[str], paths: Sequence[str]) -> None:
    """Add a legend of colours by path and dashes by member, or of colours by member."""
    from matplotlib.lines import Line2D

    if paths:
        entries = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=typeset(path)) for i, path in enumerate(paths)]
        entries += [
            Line2D([], [], color=INK, ls="-" if i == 0 else DASHES, label=typeset(name)) for i, name in enumerate(names)
        ] * (len(names) > 1)
    else:
        entries = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=typeset(name)) for i, name in enumerate(names)]
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": LEGEND_COLUMNS, "borderaxespad": 0.2}
    axes.legend(handles=entries, fontsize=8, frameon=False, labelcolor=INK, handlelength=1.6, columnspacing=1.2, **place)
