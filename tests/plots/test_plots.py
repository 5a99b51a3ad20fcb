"""Plots: axes in, axes out. Each function draws on the axes it is given and on nothing else, or makes a figure of its own."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

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
    "collapse_panels": (
        2,
        lambda ax: plots.collapse_panels(
            {"a": ([1, 9], [1.0, 2.0]), "b": ([2, 9], [1.0, 3.0])}, {"a": (3, 2), "b": (2, 2)}, ax=ax
        ),
    ),
    "phase_diagram": (
        1,
        lambda ax: plots.phase_diagram([0.1, 1.0, 2.0], [1, 9], [[0.01, 0.1, np.inf], [0.02, 0.2, 3.0]], level=0.05, ax=ax),
    ),
    "running_means": (1, lambda ax: plots.running_means(T, [T, 1 - T], 0.5, 0.4, 0.6, ax=ax)),
    "survival_curve": (1, lambda ax: plots.survival_curve(T, [1.0, 0.5, 0.2], T * 0, T * 0 + 1, censored=3, ax=ax)),
    "cost_diagram": (
        1,
        lambda ax: plots.cost_diagram(
            {"Euler": ([1, 2, 4], [0.1, 0.01, np.nan], [0.09, 0.0, 0.0], [0.11, 0.02, np.inf])}, "error", "seconds", ax=ax
        ),
    ),
    "path_plot of separate dynamics": (2, lambda ax: plots.path_plot(["SGD", "b"], walk("xy") * 2, LOSS, ax, separate=True)),
    "fan_panels": (
        2,
        lambda ax: plots.fan_panels(T, {h: {n: np.arange(12.0).reshape(4, 3) for n in ("SGD", "SGDM")} for h in "xy"}, ax=ax),
    ),
    "heat_map": (
        1,
        lambda ax: plots.heat_map(
            [0.1, 0.2, 0.4], ["a", "b"], [[1, 2, np.nan], [-4, 5, 6]], np.eye(2, 3) > 0, label="gap", ax=ax
        ),
    ),
    "parameter_curves": (
        1,
        lambda ax: plots.parameter_curves(
            [1.0, 8.0], {name: ([1, 9], [0.5, -1.0], [2, 20], [True, False]) for name in "ab"}, xlabel="eta", ax=ax
        ),
    ),
    "risk_curves": (1, lambda ax: plots.risk_curves([0, 1, 9], {"SGD": [2.0, 1.0, 0.1]}, slopes=[-1.0], ax=ax)),
    "roofline_panels": (2, lambda ax: plots.roofline_panels({"quadratic": np.arange(1.0, 11.0).reshape(5, 2)}, ax)),
}
"""For each plot the number of its axes, and a call."""


def artists(axes) -> int:
    return len(axes.lines) + len(axes.collections) + len(axes.patches) + len(axes.texts) + len(axes.containers)


@pytest.mark.sample(13)
@pytest.mark.parametrize("name", CASES)
def test_a_plot_draws_on_the_axes_it_is_given_and_returns_them(name):
    count, draw = CASES[name]
    figure = Figure()
    given = figure.subplots(1, count + 1, squeeze=False)[0]
    back = draw(given[0] if count == 1 else given[:count])
    assert [*(back if isinstance(back, list) else [back])] == [*given[:count]]
    assert all(artists(axes) > 0 for axes in given[:count]) and artists(given[count]) == 0
    assert figure.axes == [*given]


@pytest.mark.sample(8)
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
        "FigureText",
        "FAINT",
        "INK",
        "LINES",
        "MARKERS",
        "PANELS",
        "axes_for",
        "canvas",
        "describe",
        "figure_of",
        "finish",
        "key_beside",
        "style",
    }
    assert drawing == {name.split()[0] for name in CASES}


def test_the_functions_of_the_report_go_on_with_a_warning():
    with pytest.warns(DeprecationWarning, match="is now `st.plots.gap_curve`"):
        assert isinstance(st.report.gap_curve(T, T), Figure)
    with pytest.warns(DeprecationWarning, match="is now `st.plots.loglog_orders`"):
        assert isinstance(st.report.loglog_orders([0.1, 0.05], [0.2, 0.1]), Figure)


BAD = "$x^{$"


@pytest.mark.sample(8)
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
        lambda: plots.risk_curves([1, 9], {BAD: [1.0, 0.1]}),
        lambda: plots.collapse_panels({BAD: ([1, 9], [1.0, 2.0])}, {BAD: (3, 2)}, labels=(BAD, BAD), scaled_labels=(BAD, BAD)),
        lambda: plots.phase_diagram([0.1, 1.0], [1, 9], [[0.01, 0.1], [0.02, 0.2]], 0.05, title=BAD, label=BAD, blank=BAD),
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


def test_curves_of_the_risk_that_coincide_or_repeat_a_colour_stay_apart():
    axes = plots.risk_curves([0, 1, 10, 100], {f"{i}": [9.0, 1.0, 0.1, np.inf] for i in range(8)}, slopes=[-1.0, -2.0])
    curves = [line for line in axes.lines if line.get_label()[0] != "_"]
    assert len({(line.get_color(), line.get_linestyle(), line.get_linewidth()) for line in curves}) == 8
    assert [line.get_linewidth() for line in curves[:3]] == sorted((line.get_linewidth() for line in curves[:3]), reverse=True)
    assert all(line.get_xydata().tolist() == [[1.0, 1.0], [10.0, 0.1]] for line in curves)  # neither step 0 nor infinity
    reference = [line.get_ydata().tolist() for line in axes.lines if line.get_label()[0] == "_"]
    assert reference == [pytest.approx([1.0, 0.1]), pytest.approx([1.0, 0.01])]
    assert [text.get_text() for text in axes.texts] == ["slope -1", "slope -2"]


def test_scaled_curves_are_divided_by_their_scales():
    raw, scaled = plots.collapse_panels({"a": ([2, 8], [1.0, 3.0]), "b": ([4, 16], [2.0, 6.0])}, {"a": (2, 1), "b": (4, 2)})
    assert [line.get_xydata().tolist() for line in raw.lines] == [[[2, 1], [8, 3]], [[4, 2], [16, 6]]]
    assert [line.get_xydata().tolist() for line in scaled.lines] == [[[1, 1], [4, 3]]] * 2
    with pytest.raises(ValueError, match="`scales` must have the names of `curves`, a; got b"):
        plots.collapse_panels({"a": ([1], [1])}, {"b": (1, 1)})
    with pytest.raises(ValueError, match="two arrays of one length; a has"):
        plots.collapse_panels({"a": ([1, 2], [1])}, {"a": (1, 1)})


@pytest.mark.parametrize(
    ("table", "regions"),
    [
        ([[0.01, 0.01], [0.02, 0.02]], 2),
        ([[0.1, 1e9], [0.2, 1e9]], 2),
        ([[0.0, 0.0], [0.0, 1.0]], 2),
        ([[0.1, np.inf], [0.01, np.inf]], 3),
        ([[np.inf, np.inf], [np.nan, np.inf]], 3),
        ([[0.01, 0.1]], 2),
        ([[0.01], [0.1]], 2),
        ([[0.01]], 2),
    ],
)
def test_a_phase_diagram_of_every_kind_of_table_is_drawn(table, regions):
    """All on one side of the level, zeros, infinities alone, a single row or column: without a warning."""
    axes = plots.phase_diagram([0.1, 1.0][: len(table[0])], [1, 9][: len(table)], table, level=0.05)
    axes.figure.canvas.draw()
    assert len(axes.get_legend().get_texts()) == regions


def test_a_phase_diagram_separates_the_level():
    """Numbers h / 0.1 with the level 1: the boundary is at h = 0.1, between the colours of its two sides."""
    h, B = np.geomspace(0.01, 1, 21), np.array([1.0, 4.0, 16.0])
    axes = plots.phase_diagram(h, B, np.tile(h / 0.1, (3, 1)), level=1.0)
    boundary = [
        path for item in axes.collections for path in item.get_paths() if len(path.vertices) and np.ptp(path.vertices[:, 0]) == 0
    ]
    assert any(np.allclose(path.vertices[:, 0], 0.1) for path in boundary)
    assert (axes.get_xlim(), axes.get_ylim()) == ((pytest.approx(0.01), 1.0), (1.0, 16.0))


def test_a_figure_in_words_names_axes_curves_and_their_ends():
    axes = plots.canvas()[1]
    axes.plot([3.0, 1.0, 2.0], [0.5, np.nan, 4.0], label="SGD")
    axes.errorbar([1.0, 10.0], [2.0, 2.0], yerr=0.1, label="SGDM")
    axes.set(xscale="log", xlim=(1.0, 10.0), ylim=(0.0, 5.0), xlabel=r"$\eta$", ylabel="gap")
    text = plots.describe(axes)
    assert text.axes == r"Horizontal: $\eta$, from 1 to 10, logarithmic. Vertical: gap, from 0 to 5."
    assert text.seen == "SGD: from 4 at 2 to 0.5 at 3; SGDM: from 2 at 1 to 2 at 10; 1 band or group of points."


def test_a_figure_in_words_lists_panels_and_names_of_rows():
    figure, (left, right) = plots.axes_for(2)
    for axes, title, rows in ((left, "near", ["a", "below the edge"]), (right, "far", ["1", "2"])):
        axes.barh([0, 1], [1.0, 2.0])
        axes.set(title=title, xlabel="seconds", xlim=(0.0, 2.0), ylim=(0.0, 1.0), yticks=[0, 1], yticklabels=rows)
    text = plots.describe(figure)
    first, second = "Vertical: a, below the edge.", "Vertical: from 0 to 1."
    assert text.axes == f"near: Horizontal: seconds, from 0 to 2. {first} far: Horizontal: seconds, from 0 to 2. {second}"
    assert text.seen == "2 panels (near, far), each: 2 bars."


@pytest.mark.parametrize("case", CASES)
def test_every_figure_has_words(case):
    drawn = CASES[case][1](None)
    text = plots.describe(np.atleast_1d(np.asarray(drawn, dtype=object)).ravel()[0])
    assert text.axes.count("Horizontal:") >= 1 and text.seen


def test_a_fan_is_the_median_and_the_ranges_of_the_paths():
    """A path that diverges ends the fan at its time."""
    paths = np.random.default_rng(0).normal(size=(101, 3))
    paths[4, 2] = np.inf
    (axes,) = plots.fan_panels(T, {"x": {"SGD": paths}}, levels=[0.5, 0.9])
    median, *ends = (line.get_ydata() for line in axes.lines)
    wanted = [np.quantile(paths[:, :2], q, axis=0) for q in (0.05, 0.95, 0.25, 0.75)]
    np.testing.assert_allclose([end[:2] for end in ends], wanted)
    np.testing.assert_allclose(median[:2], np.median(paths[:, :2], axis=0))
    assert all(np.isnan(line[2]) for line in (median, *ends))
    with pytest.raises(ValueError, match="`levels` must lie strictly between 0 and 1"):
        plots.fan_panels(T, {"x": {"SGD": paths[:, :2]}}, levels=[90])


@pytest.mark.parametrize("count", [3, 5, 6])
def test_titles_of_separate_dynamics_stand_above_their_legends(count):
    """Three paths leave room beside the legend, five fill its row, six make two rows."""
    (run,) = walk("xy")
    panels = plots.path_plot(["momentum", "SGD"], [run[:count]] * 2, LOSS, separate=True)
    panels[0].figure.canvas.draw()
    for axes, name in zip(panels, ["momentum", "SGD"]):
        (title,) = (text for text in axes.get_children() if isinstance(text, Text) and text.get_text() == name)
        assert title.get_window_extent().y0 >= axes.get_legend().get_window_extent().y1 - 1


def test_separate_panels_against_time_are_refused():
    with pytest.raises(ValueError, match="`separate` must be False where coordinates are drawn against time, as 3 are here"):
        plots.path_plot(["SGD", "b"], walk("xyz") * 2, separate=True)


def test_separate_planes_have_one_scale_and_one_colour_for_each_path():
    run = walk("xy")[0]
    first, second = plots.path_plot(["a", "b"], [run[:2], 3 * run[:2]], LOSS, separate=True)
    assert first.get_xlim() == second.get_xlim() and first.get_ylim() == second.get_ylim()
    assert first.get_xlim()[1] > float(3 * run[:2, :, 0].max()) > float(run[:2, :, 0].max())
    curves = [[line for line in axes.lines if len(line.get_xdata()) > 2] for axes in (first, second)]
    assert [a.get_color() for a in curves[0]] == [b.get_color() for b in curves[1]]
    np.testing.assert_allclose(curves[1][0].get_xdata(), 3 * curves[0][0].get_xdata())


def _boxes(axes):
    """Return the boxes of a legend, of the axes, and of the labels of the horizontal axis, in pixels."""
    figure = plots.figure_of(axes)
    FigureCanvasAgg(figure).draw()
    ticks = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text()]
    legend = axes.get_legend()
    return legend.get_window_extent(), axes.get_window_extent(), sorted(ticks, key=lambda box: box.x0)


@pytest.mark.parametrize("etas", [[0.1, 0.05, 0.025], [0.1, 0.099, 0.05, 0.049, 0.01], np.geomspace(1e-3, 1e-1, 30)])
def test_labels_of_a_convergence_plot_do_not_collide(etas):
    etas = np.asarray(etas)
    gaps = {"x": etas, "$x^2$": etas**2, "a very long name of an observable": 3 * etas}
    axes = plots.loglog_orders(
        etas, gaps, {n: 0.5 * g for n, g in gaps.items()}, {n: 2 * g for n, g in gaps.items()}, band="95 % band"
    )
    legend, inside, ticks = _boxes(axes)
    assert legend.x0 >= inside.x1 and not legend.overlaps(inside)
    assert len(ticks) >= 2 and all(a.x1 < b.x0 for a, b in itertools.pairwise(ticks))
    assert [t.get_text() for t in axes.get_legend().get_texts()][-3:] == ["slope 0.5", "slope 1", "95 % band"]
    drawn = {
        (line.get_color(), str(line._dash_pattern))
        for line in axes.lines
        if len(line.get_xdata()) > 1 and line.get_linestyle() != "None"
    }
    assert len(drawn) == 5  # three curves and two slopes


def test_the_legend_of_panels_is_above_them():
    panels = {"x": {"limit": (T, T, 0 * T), "SGD": (T, T, T)}, "y": {"limit": (T, T, 0 * T)}}
    axes = plots.curve_panels(panels)[0]
    legend, inside, _ = _boxes(axes)
    assert legend.y0 > inside.y1


def test_the_start_of_the_manifold_plot_differs_from_the_motion():
    """The minimisers are no line, and have another colour than every path."""
    paths = {name: np.ones((2, 3, 2)) + i for i, name in enumerate(["slow SDE", "SGD", "SGDM"])}
    axes = plots.manifold_plot(LOSS, paths, np.stack([T[1:], 1 / T[1:]]), np.array([1.2, 0.7]))
    by_name = {h.get_label(): h for h in axes.lines if not h.get_label().startswith("_")}
    assert list(by_name) == ["minimisers", "slow SDE", "SGD", "SGDM", "at the end", "start"]
    assert by_name["minimisers"].get_linestyle() == "None" and by_name["slow SDE"].get_linestyle() == "-"
    assert len({h.get_color() for h in list(by_name.values())[:4]}) == 4
    assert len({h.get_marker() for h in list(by_name.values())[2:4]}) == 2
