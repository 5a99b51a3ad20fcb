"""The description of a figure in words, for readers who do not see it: its axes, and what is drawn on them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6
"""The number of curves of one panel, and of panels of one figure, that are described one by one."""


class FigureText(NamedTuple):
    """A figure in words, as a pair of texts; formulas stand between dollar signs, as in its labels.

    Attributes:
        axes: What is on the horizontal and on the vertical axes, with their ranges, panel by panel.
        seen: What is drawn: each labelled curve with its first and last point, and the number of other curves, bands, bars and images.
    """

    axes: str
    seen: str


def describe(drawn: Axes | Figure) -> FigureText:
    r"""Return a figure in words, from its labels, scales, limits and legend.

    Args:
        drawn: The figure, or axes of it; all visible axes of the figure are described, except those without labels and data (colour bars).

    Returns:
        The pair (axes, seen) of texts: what is on the axes with their ranges, and what is drawn. Both are empty if the figure has no axes with data.

    Example:
        >>> from sdetools import plots
        >>> found = plots.describe(plots.loglog_orders([0.1, 0.01], {"x": [0.2, 0.02]}, slopes=()))
        >>> found.axes
        'Horizontal: $\\eta$, from 0.00891 to 0.112, logarithmic. Vertical: weak gap, from 0.005 to 0.224, logarithmic.'
        >>> found.seen
        'x: from 0.02 at 0.01 to 0.2 at 0.1; 1 band or group of points.'
    """
    panels = [axes for axes in drawn.figure.axes if axes.get_visible() and (axes.has_data() or axes.get_xlabel())]
    panels = [axes for axes in panels if axes.get_label() != "<colorbar>"]
    titles = [_title(axes) or f"panel {i}" for i, axes in enumerate(panels, 1)]
    axes_texts, seen = [_axes(axes) for axes in panels], ["; ".join(_things(axes)) for axes in panels]
    if len(panels) == 1:
        return FigureText(axes_texts[0], _sentence(seen[0]))
    texts = []
    for parts in (axes_texts, [_sentence(one) for one in seen]):
        alike = len(set(parts)) == 1
        first = f"{len(panels)} panels ({_listed(titles)}), each: {parts[0]}" if alike and parts[0] else ""
        each = [f"{title}: {part}" for title, part in zip(titles, parts, strict=True) if part][:SHOWN]
        texts.append(first or " ".join(each))
    return FigureText(*texts)


def _axes(axes: Any) -> str:
    """Return the sentences on the two axes of a panel."""
    found = []
    for name, axis, limits in (("Horizontal", axes.xaxis, axes.get_xlim()), ("Vertical", axes.yaxis, axes.get_ylim())):
        label = axis.get_label_text().strip()
        names = _names(axis)
        low, high = sorted(limits)
        scale = ", logarithmic" if axis.get_scale() == "log" else ""
        parts = [label, _listed(names) if names else f"from {_short(low)} to {_short(high)}{scale}"]
        found.append(f"{name}: {', '.join(filter(None, parts))}.")
    return " ".join(found)


def _names(axis: Any) -> list[str]:
    """Return the names at the ticks of an axis whose rows have names; none for an axis of numbers."""
    from matplotlib.ticker import FixedLocator

    if not isinstance(axis.get_major_locator(), FixedLocator):
        return []
    texts = [text for tick in axis.get_ticklabels() if (text := tick.get_text().strip())]
    return texts if any(re.search(r"[^\W\d_]{2}", text) and "mathdefault" not in text for text in texts) else []


def _things(axes: Any) -> Iterator[str]:
    """Yield descriptions of what is drawn on a panel: its labelled curves first, then the number of other curves, points and bands."""
    handles, labels = axes.get_legend_handles_labels()
    # The handle of points with error bars is a group whose first part is their line.
    handles = [handle[0] if isinstance(handle, tuple) and handle and handle[0] is not None else handle for handle in handles]
    named = {id(handle): label for handle, label in zip(handles, labels, strict=True)}
    curves = [line for line in axes.lines if len(line.get_xdata())]
    labelled = [line for line in curves if id(line) in named]
    long = [line for line in curves if len(line.get_xdata()) > 2]
    described = labelled[:SHOWN] or (long if len(long) <= SHOWN // 2 else [])
    for line in described:
        name = named.get(id(line), "a curve")
        ends = _ends(line.get_xdata(orig=False), line.get_ydata(orig=False))
        yield f"{name}: {ends}" if ends else name
    others = [label for handle, label in zip(handles, labels, strict=True) if not any(handle is line for line in labelled)]
    if others or len(labelled) > SHOWN:
        yield f"also {_listed([*[named[id(line)] for line in labelled[SHOWN:]], *others])}"
    for number, one in (
        (len(curves) - len(described), "other curve" if described else "curve"),
        (len(axes.collections), "band or group of points"),
        (sum(patch.get_visible() for patch in axes.patches), "bar"),
        (len(axes.images), "image"),
    ):
        if number > 0 and not (labelled and one.endswith("curve")):
            plural = {"band or group of points": "bands or groups of points"}.get(one, f"{one}s")
            yield f"{number} {one if number == 1 else plural}"


def _ends(x: Any, y: Any) -> str:
    """Return the first and the last finite point of a curve, in the order of x, as text; empty for one that has none."""
    x, y = np.ma.filled(np.ma.asarray(x, dtype=float), np.nan), np.ma.filled(np.ma.asarray(y, dtype=float), np.nan)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return ""
    order = np.argsort(x[finite], kind="stable")
    x, y = x[finite][order], y[finite][order]
    if len(x) == 1 or (x[0] == x[-1] and y[0] == y[-1]):
        return f"{_short(y[0])} at {_short(x[0])}"
    return f"from {_short(y[0])} at {_short(x[0])} to {_short(y[-1])} at {_short(x[-1])}"


def _title(axes: Any) -> str:
    """Return the title of a panel, wherever it is placed."""
    return next((text for place in ("left", "center", "right") if (text := axes.get_title(loc=place).strip())), "")


def _listed(names: Iterable[str]) -> str:
    """Return names separated by commas, at most twice `SHOWN` of them."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - 2 * SHOWN} more" if len(names) > 2 * SHOWN else ""
    return ", ".join(names[: 2 * SHOWN]) + more


def _sentence(text: str) -> str:
    """Return text with a full stop; empty text remains empty."""
    return f"{text}." if text else ""


def _short(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:.3g}"
