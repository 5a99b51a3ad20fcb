"""The figures of all plots: matplotlib's, which notebooks display also where pyplot was never imported."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class DisplayedFigure(Figure):
    """A figure that a notebook displays as an image when it is the value of a cell; it takes the arguments of matplotlib's `Figure`.

    Example:
        >>> from sdetools.plots.figures import DisplayedFigure
        >>> DisplayedFigure(figsize=(1, 1))._repr_png_()[1:4]
        b'PNG'
    """

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG image, for IPython."""
        if not isinstance(self.canvas, FigureCanvasAgg):
            FigureCanvasAgg(self)
        data = io.BytesIO()
        self.savefig(data, format="png", bbox_inches="tight")
        return data.getvalue()
