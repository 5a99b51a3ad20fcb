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
INK = "#2b2d33"
"""The colour of text."""
FAINT = "#8a8d96"
"""The colour of lines that are no data."""
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHED = (0, (5, 3))
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""Line styles, by which curves differ in print as well."""


def axes_for(
    count: int, ax: Any = None, columns: int = 3, size: tuple[float, float] | None = None, hint: str = ""
) -> tuple[Figure, list[Axes]]:
    """Return axes in the style of the reports: the given ones, which are changed in place, or those of a new figure, without pyplot.

    Args:
        count: The number of panels, at least 1.
        ax: Axes to draw on, one for each panel: one axes object, a sequence or an array of them; None makes a new figure.
        columns: The number of panels in a row of a new figure.
        size: Width and height of a new figure in inches. None takes 6.4 x 5.0 for one panel, else 3.4 a column plus 0.6, and 2.8 a row.
        hint: Last sentence of the message about another number of axes, a remedy; empty for none.

    Returns:
        The pair (figure, list of its `count` axes in reading order).

    Raises:
        ValueError: `ax` holds another number of axes, or anything but axes.
    """
    if ax is None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        from sdetools.plots.figures import DisplayedFigure

        columns = min(count, columns)
        rows = -(-count // columns)
        size = size or ((6.4, 5.0) if count == 1 else (0.6 + 3.4 * columns, 2.8 * rows))
        figure = DisplayedFigure(figsize=size, facecolor="white", layout="constrained")
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
        raise ValueError(f"`ax` must be {count} axes, one for each panel; got {len(panels)}.{f' {hint}' if hint else ''}")
    for axes in panels:
        style(axes)
    return panels[0].figure, panels


def canvas(width: float = 6.4, height: float = 4.2, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Return a figure and its only axes in the style of the reports: the given axes with their figure, or those of a new figure.

    Args:
        width: Width of a new figure in inches.
        height: Height of a new figure in inches.
        ax: Axes to draw on; None makes a new figure.

    Returns:
        The pair (figure, axes).

    Raises:
        ValueError: `ax` is not one axes object.
    """
    figure, (axes,) = axes_for(1, ax, size=(width, height))
    return figure, axes


def typeset(text: Any) -> str:
    r"""Return a name as matplotlib can draw it.

    Args:
        text: A name, which `str` converts to text; TeX in it stands between dollar signs, "$x^2$".

    Returns:
        The text itself; if matplotlib cannot typeset its TeX, the text with each dollar sign escaped, so that it is drawn as a character. With an
        odd number of dollar signs matplotlib draws them as characters anyway.

    Example:
        >>> from sdetools.plots.style import typeset
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
    """Return the figure on which axes lie.

    Args:
        axes: One axes object, or a sequence of them, whose first one's figure is returned.
    """
    first = axes[0] if isinstance(axes, Sequence) else axes
    return cast("Figure", first.figure)


def style(axes: Axes) -> None:
    """Give axes the style of the reports, in place: lines only at the left and the bottom, and a light grid behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(which="both", colors=INK, labelsize=9, color=FAINT)
    axes.grid(visible=True, which="major", color="#e6e6ea", linewidth=0.8)
    axes.set_axisbelow(True)


def key_beside(axes: Axes, *, band: str = "", hollow: str = "") -> None:
    """Add a legend at the right of axes, where it covers nothing: their labelled curves, and what bands and hollow markers mean.

    Args:
        axes: The axes; without a labelled curve, band and hollow marker they get no legend.
        band: What a band around a curve is, such as "95 % band"; empty leaves bands out of the legend.
        hollow: What a hollow marker is, such as "unresolved"; empty leaves hollow markers out of the legend.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = list(axes.get_legend_handles_labels()[0])
    if band:
        handles.append(Patch(facecolor=FAINT, alpha=0.4, linewidth=0, label=typeset(band)))
    if hollow:
        handles.append(
            Line2D([], [], linestyle="", marker="o", markeredgecolor=INK, markerfacecolor="white", label=typeset(hollow))
        )
    if handles:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
        axes.legend(handles=handles, frameon=False, fontsize=9, labelcolor=INK, handlelength=2.8, **place)


def finish(axes: Axes, xlabel: str, ylabel: str, title: str = "", *, legend: bool = False, size: float = 9) -> None:
    """Write the labels and the title of axes, and add a legend of the labelled curves if asked. Texts may contain TeX between dollar signs.

    Args:
        axes: The axes; they are changed.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        title: The title; an empty one is not written.
        legend: Whether to add a legend.
        size: The size of the legend's text in points.
    """
    axes.set_xlabel(typeset(xlabel), color=INK, fontsize=10)
    axes.set_ylabel(typeset(ylabel), color=INK, fontsize=10)
    if title:
        axes.set_title(typeset(title), color=INK, fontsize=11, loc="left")
    if legend:
        axes.legend(frameon=False, fontsize=size, labelcolor=INK)
