"""The style of all plots: colours that colour-blind readers tell apart, and new axes without global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sdetools._check import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""The palette of Okabe and Ito, dark colours first."""
INK, FAINT = "#2b2d33", "#8a8d96"
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHED = (0, (5, 3))


def axes_for(count: int, ax: Any = None, columns: int = 3, size: tuple[float, float] | None = None) -> tuple[Figure, list[Axes]]:
    """Axes in the style of the reports: the given ones, or those of a new figure.

    Args:
        count: The number of panels.
        ax: Axes to draw on, one for each panel; None makes a new figure.
        columns: Panels in a row of a new figure.
        size: Width and height of a new figure in inches; None takes a size that suits the number of panels.

    Returns:
        The figure and its axes.

    Raises:
        ValueError: `ax` holds another number of axes.
    """
    if ax is None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        columns = min(count, columns)
        rows = -(-count // columns)
        size = size or ((6.4, 5.0) if count == 1 else (0.6 + 3.4 * columns, 2.8 * rows))
        figure = Figure(figsize=size, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.subplots(rows, columns, squeeze=False).ravel()
        for spare in ax[count:]:
            spare.set_visible(False)
        ax = ax[:count]
    panels = np.atleast_1d(np.asarray(ax, dtype=object)).ravel().tolist()
    for axes in panels:
        if not hasattr(axes, "spines"):
            raise ValueError(f"`ax` must be axes of matplotlib or None; got {shown(axes)}. Take them from `plt.subplots()`.")
    if len(panels) != count:
        raise ValueError(f"`ax` must be {count} axes, one for each panel; got {len(panels)}.")
    for axes in panels:
        style(axes)
    return panels[0].figure, panels


def canvas(width: float = 6.4, height: float = 4.2, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """A figure with one pair of axes in the style of the reports: the given axes, or those of a new figure of this size in inches."""
    figure, (axes,) = axes_for(1, ax, size=(width, height))
    return figure, axes


def typeset(text: Any) -> str:
    r"""Return a name as matplotlib can draw it.

    Args:
        text: A name, in which an even number of dollar signs encloses TeX.

    Returns:
        The text itself; where matplotlib cannot typeset its TeX, the text with each dollar sign as a character.

    Example:
        >>> typeset("$x^2$"), print(typeset("$x^{$"))
        \$x^{\$
        ('$x^2$', None)
    """
    from matplotlib.mathtext import MathTextParser

    text = str(text)
    if text.replace(r"\$", "").count("$") % 2 == 0:
        try:
            MathTextParser("path").parse(text)
        except ValueError:
            return text.replace(r"\$", "$").replace("$", r"\$")
    return text


def figure_of(axes: Axes | Sequence[Axes]) -> Figure:
    """The figure that holds these axes."""
    first = axes[0] if isinstance(axes, Sequence) else axes
    return cast("Figure", first.figure)


def style(axes: Axes) -> None:
    """Gives axes the style of the reports: two spines, and a light grid behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", colors=INK, labelsize=9, color=FAINT)
    axes.grid(visible=True, which="major", color="#e6e6ea", linewidth=0.8)
    axes.set_axisbelow(True)


def finish(axes: Axes, xlabel: str, ylabel: str, title: str = "", *, legend: bool = False, size: float = 9) -> None:
    """Writes the labels and the title of axes, and their legend if asked; `size` is that of the legend's text in points."""
    axes.set_xlabel(typeset(xlabel), color=INK, fontsize=10)
    axes.set_ylabel(typeset(ylabel), color=INK, fontsize=10)
    if title:
        axes.set_title(typeset(title), color=INK, fontsize=11, loc="left")
    if legend:
        axes.legend(frameon=False, fontsize=size, labelcolor=INK)
