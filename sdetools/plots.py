"""Plots in one quiet style: matplotlib figures without global state, in colours that colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, the dark ones first.
Numbers = Sequence[float] | np.ndarray
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK, FAINT = "#2b2d33", "#8a8d96"
MARKERS = ("o", "s", "^", "D", "v", "P")
PANELS = 6
"""So many coordinates of paths at most are drawn unasked."""
FEW = 6
"""Paths up to which each has a colour of its own."""


def canvas(width: float = 6.4, height: float = 4.2, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """An empty figure in the style of the reports, and its axes; those given, if any are."""
    if ax is not None:
        style(ax)
        return ax.figure, ax  # type: ignore[return-value]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """The look of all axes: two spines, a light grid behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", colors=INK, labelsize=9, color=FAINT)
    axes.grid(visible=True, which="major", color="#e6e6ea", linewidth=0.8)
    axes.set_axisbelow(True)


def loglog_orders(
    etas: Numbers,
    values: Numbers | Mapping[str, Numbers],
    low: Numbers | Mapping[str, Numbers] | None = None,
    high: Numbers | Mapping[str, Numbers] | None = None,
    exact: Numbers | Mapping[str, Numbers] | None = None,
    slopes: Sequence[float] = (0.5, 1.0),
    *,
    xlabel: str = r"$\eta$",
    ylabel: str = "weak gap",
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    r"""Gaps against step sizes on logarithmic axes, with bands, exact values (dashed) and reference slopes (dotted).

    `values`, `low`, `high`, `exact` are arrays `(len(etas),)`, or mappings from a curve's name to such arrays. A point whose
    band reaches down to zero is drawn hollow: it is not resolved. Raises `ValueError` for lengths that differ and for step
    sizes that are not positive.

    >>> figure = loglog_orders([0.1, 0.05], [0.02, 0.011], low=[0.018, 0.010], high=[0.022, 0.012], exact=[0.02, 0.01])
    >>> figure.axes[0].get_xscale(), figure.axes[0].get_yscale()
    ('log', 'log')
    """
    x = np.asarray(etas, dtype=float)
    if x.ndim != 1 or len(x) == 0 or not np.all(x > 0):
        raise ValueError(f"`etas` must be positive step sizes; got {etas!r}.")
    curves, lows, highs, exacts = (_curves(name, v, len(x)) for name, v in _named(values=values, low=low, high=high, exact=exact))
    figure, axes = canvas(ax=ax)
    axes.set_xscale("log")
    axes.set_yscale("log")
    order = np.argsort(x)
    smallest = min((v[v > 0].min() for v in curves.values() if np.any(v > 0)), default=1.0)
    for i, (name, value) in enumerate(curves.items()):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        y, down, up = value[order], *(part.get(name, value)[order] for part in (lows, highs))
        shown, resolved = y > 0, (y > 0) & (down > 0)
        axes.fill_between(
            x[order], np.where(down > 0, down, smallest / 10), up, where=shown, color=colour, alpha=0.16, linewidth=0
        )
        axes.plot(x[order][shown], y[shown], color=colour, linewidth=1.6, label=name or None)
        axes.plot(x[order][resolved], y[resolved], linestyle="", marker=marker, color=colour, markersize=5.5)
        hollow = shown & ~resolved
        axes.plot(
            x[order][hollow],
            y[hollow],
            linestyle="",
            marker=marker,
            markersize=5.5,
            markeredgecolor=colour,
            markerfacecolor="white",
        )
        if name in exacts:
            axes.plot(
                x[order], exacts[name][order], color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="exact" if i == 0 else None
            )
    _references(axes, x[order], curves, slopes)
    axes.set_ylim(bottom=smallest / 4)
    _finish(axes, xlabel, ylabel, title, legend=bool(exacts) or any(curves))
    return figure


def gap_curve(
    times: Numbers,
    values: Numbers | Mapping[str, Numbers],
    low: Numbers | Mapping[str, Numbers] | None = None,
    high: Numbers | Mapping[str, Numbers] | None = None,
    exact: Numbers | Mapping[str, Numbers] | None = None,
    *,
    xlabel: str = "$t$",
    ylabel: str = "weak gap",
    title: str = "",
    zero: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """A gap along time with its band; the exact curve, where there is one, is dashed. Arguments as in `loglog_orders`; `zero` draws the line at 0.

    >>> figure = gap_curve([0.0, 0.5, 1.0], [0.0, 0.2, 0.1], low=[0.0, 0.1, 0.0], high=[0.0, 0.3, 0.2])
    >>> len(figure.axes)
    1
    """
    t = np.asarray(times, dtype=float)
    if t.ndim != 1 or len(t) == 0:
        raise ValueError(f"`times` must be a list of times; got {times!r}.")
    curves, lows, highs, exacts = (_curves(name, v, len(t)) for name, v in _named(values=values, low=low, high=high, exact=exact))
    figure, axes = canvas(ax=ax)
    if zero:
        axes.axhline(0.0, color=FAINT, linewidth=0.8)
    for i, (name, value) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        axes.fill_between(t, lows.get(name, value), highs.get(name, value), color=colour, alpha=0.18, linewidth=0)
        axes.plot(t, value, color=colour, linewidth=1.6, label=name or None)
        if name in exacts:
            axes.plot(t, exacts[name], color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="exact" if i == 0 else None)
    axes.margins(x=0.01)
    _finish(axes, xlabel, ylabel, title, legend=bool(exacts) or any(curves))
    return figure


def _named(**parts: Any) -> list[tuple[str, Any]]:
    return list(parts.items())


def _curves(name: str, value: Any, length: int) -> dict[str, np.ndarray]:
    if value is None:
        return {}
    curves = value if isinstance(value, Mapping) else {"": value}
    out = {str(key): np.asarray(item, dtype=float) for key, item in curves.items()}
    for item in out.values():
        if item.shape != (length,):
            raise ValueError(f"`{name}` must have {length} entries, one for each point of the axis; got shape {item.shape}.")
    return out


def _references(axes: Axes, x: np.ndarray, curves: Mapping[str, np.ndarray], slopes: Sequence[float]) -> None:
    """Dotted lines of given slopes through the topmost point at the largest step, set a little above it."""
    tops = [value.max() for value in curves.values() if np.any(value > 0)]
    if len(x) < 2 or not tops:
        return
    anchor = 1.6 * max(tops)
    for slope in slopes:
        y = anchor * (x / x[-1]) ** slope
        axes.plot(x, y, color=FAINT, linewidth=1.0, linestyle=":")
        axes.annotate(f"slope {slope:g}", (x[0], y[0]), xytext=(2, 3), textcoords="offset points", fontsize=8, color=FAINT)


def _finish(axes: Axes, xlabel: str, ylabel: str, title: str, *, legend: bool) -> None:
    axes.set_xlabel(xlabel, color=INK, fontsize=10)
    axes.set_ylabel(ylabel, color=INK, fontsize=10)
    if title:
        axes.set_title(title, color=INK, fontsize=11, loc="left")
    if legend:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def curves(
    panels: Mapping[str, Mapping[str, tuple[Numbers, Numbers, Numbers]]],
    xlabel: str = "$t$",
    ax: Any = None,
) -> Figure:
    """One panel an entry: curves `name: (x, y, half-width)`, the first as a line with its band, the others as markers with bars.

    >>> figure = curves({"x": {"limit": ([0, 1], [1, 2], [0, 0]), "seen": ([0, 1], [1, 2.1], [0.1, 0.1])}})
    >>> len(figure.axes)
    1
    """
    figure, all_axes = axes_for(len(panels), ax)
    for axes, (title, panel) in zip(all_axes, panels.items()):
        for i, (name, (x, y, half)) in enumerate(panel.items()):
            x, y, half = (np.asarray(values, dtype=float) for values in (x, y, half))
            if i == 0:
                axes.plot(x, y, "-", color=INK, lw=1.4, label=name)
                axes.fill_between(x, y - half, y + half, color=INK, alpha=0.12, lw=0)
            else:
                axes.errorbar(x, y, yerr=half, fmt=MARKERS[i - 1], ms=4, lw=1, color=COLOURS[(i - 1) % len(COLOURS)], label=name)
        axes.set(title=title, xlabel=xlabel)
    all_axes[0].legend(fontsize=8, frameon=False)
    return figure


def paths(names: Sequence[str], members: Sequence[Any], loss: Any = None, ax: Any = None, time: bool = False) -> Figure:
    """Paths of one dynamics or of a pair, each an xarray.DataArray over (path, time, coordinate), with the names of the dynamics.

    Two coordinates are drawn as curves in the plane, on the contours of `loss` if there is one; others, or any if `time`, a panel each against
    time. Few paths have a colour each, and a second member is dashed; of many the members have the colours. `ax`: axes, one for each panel.
    """
    labels = [str(name) for name in members[0].coordinate.values]
    values, t, count = [np.asarray(m.values, float) for m in members], members[0].time.values, members[0].sizes["path"]
    plane, few = len(labels) == 2 and not time, count <= FEW
    figure, panels = axes_for(1 if plane else len(labels), ax)
    limits = [_limits([v[..., i] for v in values]) for i in range(len(labels))]
    if plane and loss is not None:
        _contours(panels[0], loss, *limits)
    look: dict[str, Any] = {"lw": 1.3, "alpha": 0.9} if few else {"lw": 0.7, "alpha": float(np.clip(25 / count, 0.08, 0.6))}
    for m, v in enumerate(values):
        for p, path in enumerate(v):
            colour, dashes = COLOURS[(p if few else m) % len(COLOURS)], (0, (4, 2)) if few and m else "-"
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
        panels[0].set(xlim=limits[0], ylim=limits[1], xlabel=labels[0], ylabel=labels[1])
    else:
        for axes, name, (low, high) in zip(panels, labels, limits):
            axes.set(xlim=(t[0], t[-1] if len(t) > 1 else None), ylim=(low, high), xlabel="$t$", ylabel=name)
    _key(panels[0], names, [f"path {p}" for p in members[0].path.values.tolist()] if few else [])
    return figure


def axes_for(count: int, ax: Any = None, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """So many axes in the style of the reports: those given, or new ones."""
    if ax is None:
        from matplotlib.figure import Figure

        columns = min(count, columns)
        rows = -(-count // columns)
        size = (6.4, 5.0) if count == 1 else (0.6 + 3.4 * columns, 2.8 * rows)
        figure = Figure(figsize=size, facecolor="white", layout="constrained")
        ax = figure.subplots(rows, columns, squeeze=False).ravel()
        for spare in ax[count:]:
            spare.set_visible(False)
        ax = ax[:count]
    panels = np.atleast_1d(np.asarray(ax, dtype=object)).ravel().tolist()
    if len(panels) != count:
        raise ValueError(f"`ax` must be {count} axes, one for each panel; got {len(panels)}.")
    for axes in panels:
        style(axes)
    return panels[0].figure, panels


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Where paths are that stay finite, with a margin; where all are that are finite, if none does."""
    stay = [v[np.isfinite(v).all(axis=1)].ravel() for v in values]
    seen = np.concatenate(stay if any(map(len, stay)) else [v[np.isfinite(v)] for v in values])
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _contours(axes: Axes, loss: Any, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Contours of a loss between limits, at equal shares of the plane."""
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


def _key(axes: Axes, names: Sequence[str], paths: Sequence[str]) -> None:
    """A legend: of colours by path and dashes by member, or of colours by member."""
    from matplotlib.lines import Line2D

    if paths:
        entries = [Line2D([], [], color=COLOURS[i % len(COLOURS)], label=path) for i, path in enumerate(paths)]
        entries += [Line2D([], [], color=INK, ls="-" if i == 0 else (0, (4, 2)), label=name) for i, name in enumerate(names)] * (
            len(names) > 1
        )
    else:
        entries = [Line2D([], [], color=COLOURS[i], label=name) for i, name in enumerate(names)]
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 5, "borderaxespad": 0.2}
    axes.legend(handles=entries, fontsize=8, frameon=False, labelcolor=INK, handlelength=1.6, columnspacing=1.2, **place)


def manifold(loss: Any, paths: Mapping[str, np.ndarray], points: np.ndarray, start: np.ndarray) -> Figure:
    """Paths `(dim, frames, n)` by name on the manifold of minimisers, given by `points` `(dim, m)` of it; 2 or 3 coordinates.

    In the plane the loss is drawn as grey levels of its logarithm; in space the points of the manifold are dots.
    """
    from matplotlib.figure import Figure

    dim = len(points)
    figure = Figure(figsize=(6.0, 5.0), facecolor="white", layout="constrained")
    axes: Any = figure.add_subplot(projection="3d" if dim == 3 else None)
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
        axes.contourf(
            grid[0],
            grid[1],
            level,
            levels=np.linspace(max(-5.0, np.nanmin(level)), np.nanmax(level) + 1e-6, 14),
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
            axes.plot(*lines[:, :, n], "-", color=colour, lw=1.2 if i == 0 else 0.8, alpha=0.8, label=name if n == 0 else None)
            axes.plot(*lines[:, -1:, n], "o", color=colour, ms=3)
    axes.plot(*start[:, None], "*", color="white", mec=INK, ms=12, label="start")
    names = list(loss.names)
    axes.set(xlabel=names[0], ylabel=names[1])
    if dim == 3:
        axes.set_zlabel(names[2])
    axes.legend(fontsize=8, frameon=False, loc="best")
    return figure
