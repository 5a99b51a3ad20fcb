"""Plots: axes in, axes out. Each function draws on the axes it is given and on nothing else, or makes a figure of its own."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import sdetools as st
from sdetools import plots

T = np.array([0.0, 0.5, 1.0])
LOSS = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")


def walk(coordinates: str) -> list:
    run = st.simulate(
        st.SGD(
            st.NoisyOracle(st.losses.quadratic(np.eye(len(coordinates))), st.noise.gaussian(dim=len(coordinates))),
            st.schedules.constant(eta=0.1),
        ),
        np.ones(len(coordinates)),
        0.5,
        8,
        observe=["x0"],
        trajectories=8,
        backend="numpy",
    )
    return [run.trajectories.isel(part=0).transpose("path", "time", "coordinate")]


CASES = {
    "gap_curve": (1, lambda ax: plots.gap_curve(T, [0.0, 0.2, 0.1], [0.0, 0.1, 0.0], [0.0, 0.3, 0.2], ax=ax)),
    "loglog_orders": (1, lambda ax: plots.loglog_orders([0.1, 0.05], [0.02, 0.01], [0.01, -0.01], [0.03, 0.02], ax=ax)),
    "curve_panels": (2, lambda ax: plots.curve_panels({h: {"limit": (T, T, 0 * T), "mean": (T, T, T)} for h in "xy"}, ax=ax)),
    "path_plot": (1, lambda ax: plots.path_plot(["SGD"], walk("xy"), LOSS, ax)),
    "path_plot against time": (3, lambda ax: plots.path_plot(["SGD"], walk("xyz"), None, ax)),
    "manifold_plot": (
        1,
        lambda ax: plots.manifold_plot(LOSS, {"a": np.ones((2, 3, 2))}, np.stack([T[1:], 1 / T[1:]]), np.array([1.2, 0.7]), ax),
    ),
    "interval_plot": (1, lambda ax: plots.interval_plot({"a": (1.0, 0.5, 2.0)}, "size", edges={"here": 1.5}, ax=ax)),
    "interval_plot with a region": (1, lambda ax: plots.interval_plot({"a": (1.0, 0.5, 2.0)}, "size", region=("0", 0.2), ax=ax)),
    "tolerance_plot": (1, lambda ax: plots.tolerance_plot(["a", "b"], np.array([[0, np.inf], [-1, 2.0], [1, np.inf]]), ax=ax)),
    "level_panels": (
        4,
        lambda ax: plots.level_panels("x", (T + 1, T[:2] + 1), (T, T[:2]), T + 1, T + 1, (3.0, 9.0), eps=0.1, ax=ax),
    ),
    "phase_diagram": (
        1,
        lambda ax: plots.phase_diagram([0.1, 1.0, 2.0], [1, 9], [[0.01, 0.1, np.inf], [0.02, 0.2, 3.0]], level=0.05, ax=ax),
    ),
    "risk_curves": (1, lambda ax: plots.risk_curves([0, 1, 9], {"SGD": [2.0, 1.0, 0.1]}, slopes=[-1.0], ax=ax)),
    "roofline_panels": (2, lambda ax: plots.roofline_panels({"quadratic": np.arange(1.0, 11.0).reshape(5, 2)}, ax)),
}
"""For each plot the number of its axes, and a call."""


def artists(axes) -> int:
    return len(axes.lines) + len(axes.collections) + len(axes.patches) + len(axes.texts) + len(axes.containers)


@pytest.mark.parametrize("name", CASES)
def test_a_plot_draws_on_the_axes_it_is_given_and_returns_them(name):
    count, draw = CASES[name]
    figure = Figure()
    given = figure.subplots(1, count + 1, squeeze=False)[0]
    back = draw(given[0] if count == 1 else given[:count])
    assert [*(back if isinstance(back, list) else [back])] == [*given[:count]]
    assert all(artists(axes) > 0 for axes in given[:count]) and artists(given[count]) == 0
    assert figure.axes == [*given]


@pytest.mark.parametrize("name", CASES)
def test_a_plot_without_axes_makes_a_figure_of_its_own(name):
    count, draw = CASES[name]
    first, second = draw(None), draw(None)
    figure = plots.figure_of(first)
    assert sum(axes.get_visible() for axes in figure.axes) == count and figure is not plots.figure_of(second)
    FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize("name", [name for name, (count, _) in CASES.items() if count > 1])
def test_axes_of_another_number_are_refused(name):
    count, draw = CASES[name]
    with pytest.raises(ValueError, match=f"`ax` must be {count} axes.*got 1"):
        draw(Figure().subplots())


def test_every_plot_has_a_case():
    drawing = set(plots.__all__) - {
        "COLOURS",
        "DASHED",
        "FAINT",
        "INK",
        "MARKERS",
        "PANELS",
        "axes_for",
        "canvas",
        "figure_of",
        "finish",
        "style",
    }
    assert drawing == {name.split()[0] for name in CASES}


def test_the_functions_of_the_report_go_on_with_a_warning():
    with pytest.warns(DeprecationWarning, match="is now `st.plots.gap_curve`"):
        assert isinstance(st.report.gap_curve(T, T), Figure)
    with pytest.warns(DeprecationWarning, match="is now `st.plots.loglog_orders`"):
        assert isinstance(st.report.loglog_orders([0.1, 0.05], [0.2, 0.1]), Figure)


BAD = "$x^{$"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.gap_curve(T, {BAD: T, "$y^2$": T}, xlabel=BAD, ylabel=BAD, title=BAD),
        lambda: plots.loglog_orders([0.1, 0.05], {BAD: [0.02, 0.01], "a$b": [0.02, 0.01]}),
        lambda: plots.curve_panels({BAD: {"limit": (T, T, 0 * T), BAD: (T, T, T)}}),
        lambda: plots.path_plot([BAD, "b"], walk("xy") * 2),
        lambda: plots.path_plot([BAD, "b"], walk("xyz") * 2),
        lambda: plots.manifold_plot(LOSS, {BAD: np.ones((2, 3, 2))}, np.stack([T[1:], 1 / T[1:]]), np.array([1.2, 0.7])),
        lambda: plots.interval_plot({BAD: (1.0, 0.5, 2.0)}, BAD, edges={BAD: 1.5}, region=(BAD, 0.2)),
        lambda: plots.interval_plot({BAD: (1.0, 0.5, 2.0)}, BAD),
        lambda: plots.tolerance_plot([BAD], np.array([[0.0], [-1.0], [1.0]])),
        lambda: plots.level_panels(BAD, (T + 1, T[:2] + 1), (T, T[:2]), T + 1, T + 1, (3.0, 9.0), eps=0.1),
        lambda: plots.roofline_panels({BAD: np.arange(1.0, 11.0).reshape(5, 2)}),
    ],
)
def test_a_name_that_is_no_tex_is_drawn_as_it_is(draw):
    """Names are the user's; one with unfinished TeX would end the drawing of a figure (control: matplotlib refuses it)."""
    plots.figure_of(draw()).canvas.draw()
    figure = Figure()
    figure.subplots().set_title(BAD)
    with pytest.raises(ValueError, match="ParseException|Expected"):
        FigureCanvasAgg(figure).draw()


def test_what_is_no_axes_is_refused():
    with pytest.raises(ValueError, match="`ax` must be axes of matplotlib or None; got 3"):
        plots.gap_curve(T, T, ax=3)


def test_many_curves_repeat_their_colours():
    """More curves than there are colours and markers."""
    plots.interval_plot({f"{i}": (1.0, 0.5, 2.0) for i in range(20)}, "size")
    plots.curve_panels({"h": {f"{i}": (T, T, T) for i in range(20)}})
    plots.path_plot([f"{i}" for i in range(20)], walk("xy") * 20)
