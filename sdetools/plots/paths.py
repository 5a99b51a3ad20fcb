"""Paths: in the plane on the contours of the loss, against time, and on the manifold of minimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.plots.style import COLOURS, FAINT, INK, axes_for, typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = 6
"""The number of coordinates that results plot unless others are asked for."""
FEW = 6
"""Up to this number of paths each has a colour of its own."""
DASHES = (0, (4, 2))


def path_plot(names: Sequence[str], members: Sequence[Any], loss: Any = None, ax: Any = None, time: bool = False) -> list[Axes]:
    """Plot paths of one dynamics, or of two that are compared (its members).

    Two coordinates are drawn as curves in the plane, on the contours of the loss if it is given; another number of coordinates is drawn against
    time, one panel each. Up to six paths have a colour each, and those of a second dynamics are dashed; with more paths each dynamics has a colour.
    Paths that do not stay finite do not count for the limits of the axes, unless no path stays finite.

    Args:
        names: The names of the dynamics, one for each of `members`, for the legend.
        members: One `xarray.DataArray` with the dimensions (path, time, coordinate) for each dynamics; all have the same coordinates.
        loss: A loss whose method `value` maps points `(2, n)` to n numbers, and whose contours are drawn in the plane; None draws none.
        ax: Axes to draw on, one for each panel; None makes a new figure.
        time: Whether two coordinates, too, are drawn against time.

    Returns:
        A list of the axes: one for the plane, otherwise one for each coordinate in order.

    Raises:
        ValueError: `ax` holds another number of axes.
    """
    labels = [str(name) for name in members[0].coordinate.values]
    values, t, count = [np.asarray(m.values, float) for m in members], members[0].time.values, members[0].sizes["path"]
    plane, few = len(labels) == 2 and not time, count <= FEW
    _, panels = axes_for(1 if plane else len(labels), ax)
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


def manifold_plot(loss: Any, paths: Mapping[str, np.ndarray], points: np.ndarray, start: np.ndarray, ax: Any = None) -> Axes:
    """Plot paths on a manifold of minimisers in two or three dimensions.

    Points of the manifold are dots. In two dimensions the logarithm of the loss is drawn behind them in grey.

    Args:
        loss: A loss, with the method `value`, which maps points `(dim, n)` to n numbers, and `names`, those of the coordinates.
        paths: A mapping from a name in the legend to an array `(dim, times, n)` of n paths; the first entry is drawn in the dark colour `INK`.
        points: Points of the manifold, `(dim, m)`, dim 2 or 3; only those near the paths are drawn.
        start: The point where paths start, `(dim,)`.
        ax: Axes to draw on, three-dimensional ones for three coordinates; None makes a new figure.

    Returns:
        The axes; `.figure` is their figure.
    """
    dim = len(points)
    axes: Any = ax
    if ax is None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.0, 5.0), facecolor="white", layout="constrained")
        axes = figure.add_subplot(projection="3d" if dim == 3 else None)
    seen = np.concatenate([p.reshape(dim, -1) for p in paths.values()] + [start[:, None]], axis=1)
    low, high = np.nanmin(seen, axis=1), np.nanmax(seen, axis=1)
    room = 0.12 * np.maximum(high - low, 0.3 * (high - low).max() + 1e-3)
    low, high = low - room, high + room
    inside = ((points >= low[:, None]) & (points <= high[:, None])).all(axis=0)
    points = points[:, inside]
    if dim == 2:
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
            alpha=0.5,
            extend="min",
        )
        axes.plot(*points, ".", color=INK, ms=1.6, label="minimisers")
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    else:
        axes.scatter(*points, s=1.5, color=FAINT, alpha=0.5, label="minimisers")
    for i, (name, lines) in enumerate(paths.items()):
        colour = INK if i == 0 else COLOURS[(i - 1) % len(COLOURS)]
        for n in range(lines.shape[2]):
            axes.plot(
                *lines[:, :, n], "-", color=colour, lw=1.2 if i == 0 else 0.8, alpha=0.8, label=typeset(name) if n == 0 else None
            )
            axes.plot(*lines[:, -1:, n], "o", color=colour, ms=3)
    axes.plot(*start[:, None], "*", color="white", mec=INK, ms=12, label="start")
    names = list(loss.names)
    axes.set(xlabel=typeset(names[0]), ylabel=typeset(names[1]))
    if dim == 3:
        axes.set_zlabel(typeset(names[2]))
    axes.legend(fontsize=8, frameon=False, loc="best")
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
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 5, "borderaxespad": 0.2}
    axes.legend(handles=entries, fontsize=8, frameon=False, labelcolor=INK, handlelength=1.6, columnspacing=1.2, **place)
