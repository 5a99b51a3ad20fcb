"""Plots in one quiet style: matplotlib figures without global state, in colours that colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, the dark ones first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
INK, FAINT = "#2b2d33", "#8a8d96"
MARKERS = ("o", "s", "^", "D", "v", "P")


def canvas(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    """An empty figure in the style of the reports, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", colors=INK, labelsize=9, color=FAINT)
    axes.grid(visible=True, which="major", color="#e6e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def loglog_orders(
    etas: Sequence[float],
    values: Sequence[float] | Mapping[str, Sequence[float]],
    low: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    high: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    exact: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    slopes: Sequence[float] = (0.5, 1.0),
    *,
    xlabel: str = r"$\eta$",
    ylabel: str = "weak gap",
    title: str = "",
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
    figure, axes = canvas()
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
    times: Sequence[float],
    values: Sequence[float] | Mapping[str, Sequence[float]],
    low: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    high: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    exact: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    *,
    xlabel: str = "$t$",
    ylabel: str = "weak gap",
    title: str = "",
) -> Figure:
    """A gap along time with its band; the exact curve, where there is one, is dashed. Arguments as in `loglog_orders`.

    >>> figure = gap_curve([0.0, 0.5, 1.0], [0.0, 0.2, 0.1], low=[0.0, 0.1, 0.0], high=[0.0, 0.3, 0.2])
    >>> len(figure.axes)
    1
    """
    t = np.asarray(times, dtype=float)
    if t.ndim != 1 or len(t) == 0:
        raise ValueError(f"`times` must be a list of times; got {times!r}.")
    curves, lows, highs, exacts = (_curves(name, v, len(t)) for name, v in _named(values=values, low=low, high=high, exact=exact))
    figure, axes = canvas()
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
