"""The public names, each with its file: what type checkers read, and what is imported when a name is first used."""

from .curves import (
    curve_panels as curve_panels,
    gap_curve as gap_curve,
    loglog_orders as loglog_orders,
)
from .description import (
    FigureText as FigureText,
    describe as describe,
)
from .heat_maps import (
    heat_map as heat_map,
    parameter_curves as parameter_curves,
)
from .intervals import (
    interval_plot as interval_plot,
    tolerance_plot as tolerance_plot,
)
from .level_panels import (
    level_panels as level_panels,
)
from .long_path_plots import (
    cost_diagram as cost_diagram,
    running_means as running_means,
    survival_curve as survival_curve,
)
from .paths import (
    PANELS as PANELS,
    fan_panels as fan_panels,
    manifold_plot as manifold_plot,
    path_plot as path_plot,
)
from .risk_plots import (
    collapse_panels as collapse_panels,
    phase_diagram as phase_diagram,
    risk_curves as risk_curves,
)
from .rooflines import (
    roofline_panels as roofline_panels,
)
from .style import (
    COLOURS as COLOURS,
    DASHED as DASHED,
    FAINT as FAINT,
    INK as INK,
    LINES as LINES,
    MARKERS as MARKERS,
    axes_for as axes_for,
    canvas as canvas,
    figure_of as figure_of,
    finish as finish,
    key_beside as key_beside,
    style as style,
)
