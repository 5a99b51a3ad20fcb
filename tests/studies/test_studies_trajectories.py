"""`trajectories=`, `slices=` and `plot_paths`: names, validation, figures; for the paths see tests/simulation/test_sim_trajectories.py."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st
from sdetools import plots
from sdetools.simulation import engine

ETA = 0.125
LOSS = st.losses.from_expression("(u*v - 1)**2 / 2", variables="u v")
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=2), 0.5)
PLAN = st.schedules.constant(ETA, 0.75)
FIRST, SECOND = st.SGDM(ORACLE, PLAN), st.SGD(ORACLE, PLAN.averaged())
GIVEN = dict(x0=[2.0, 0.5], horizon=1.0, paths=600, observe=["u", "u*v"], threads=1, seed=3)


def single(**more):
    """Return a simulation of one dynamics."""
    return st.simulate(FIRST, **GIVEN | more)


def pair(**more):
    """Return a gap."""
    return st.weak_gap(FIRST, SECOND, **GIVEN | more)


# -- names ----------------------------------------------------------------------------------------------------------------------


def test_paths_are_not_stored_by_default():
    """Both arrays are None."""
    run = single()
    assert run.trajectories is None and run.slices is None and run.final is None


def test_axes_coordinates_and_attributes():
    """Of trajectories and slices of one dynamics."""
    run = single(trajectories=[17, 3, 599], times=[0.0, 0.5, 1.0], slices=[0.25, 1.0], stream=2, keep_final=True)
    found = run.trajectories
    assert found.dims == ("path", "time", "part", "coordinate") and found.name == "trajectories"
    assert found.path.values.tolist() == [17, 3, 599] and found.time.values.tolist() == [0.0, 0.5, 1.0]
    assert found.step.values.tolist() == [0, 4, 8]
    assert found.part.values.tolist() == ["x", "m"] and found.coordinate.values.tolist() == ["u", "v"]
    assert found.attrs == {"seed": 3, "stream": 2, "backend": "numba", "dtype": "float64", "version": st.__version__}
    assert run.slices.dims == found.dims and run.slices.time.values.tolist() == [0.25, 1.0] and run.slices.name == "slices"
    assert run.slices.path.values.tolist() == list(range(600))
    np.testing.assert_array_equal(found.sel(time=0.0, part="x"), np.full((3, 2), [2.0, 0.5]))
    np.testing.assert_array_equal(found.sel(time=0.0, part="m"), 0.0)
    np.testing.assert_array_equal(found.sel(time=1.0), run.slices.sel(time=1.0, path=[17, 3, 599]))
    np.testing.assert_array_equal(run.slices.sel(time=1.0, part="x").values.T, run.final)
    np.testing.assert_allclose(run.slices.sel(time=1.0, part="x").mean("path")[0], run.at("u").value, rtol=1e-12)
    xarray_copy = found.copy(deep=True).assign_attrs(seed=0)
    assert found.attrs["seed"] == 3 and xarray_copy.shape == found.shape


def test_a_pair_has_members_and_missing_parts():
    """A part that one member lacks is NaN."""
    gap = pair(trajectories=2, slices=[1.0], keep_final=True)
    found = gap.trajectories
    assert found.dims == ("member", "path", "time", "part", "coordinate") and found.path.values.tolist() == [0, 1]
    assert found.member.values.tolist() == ["first", "second"] and found.dynamics.values.tolist() == ["SGDM", "SGD"]
    assert np.isnan(found.sel(member="second", part="m")).all() and np.isfinite(found.sel(part="x")).all()
    np.testing.assert_array_equal(found.time, gap.times)
    np.testing.assert_array_equal(gap.slices.sel(part="x", time=1.0).values.transpose(0, 2, 1).reshape(4, -1), gap.final)
    alone = single(trajectories=2)
    np.testing.assert_allclose(found.sel(member="first"), alone.trajectories, rtol=1e-12)  # same draws, another kernel


def test_the_position_is_the_first_part_whatever_its_name():
    """The auxiliary process moves y; its last points are y, and the other member's x."""
    gap = st.weak_gap(st.Auxiliary(ORACLE, PLAN), SECOND, **GIVEN, trajectories=600, keep_final=True)
    assert gap.trajectories.part.values.tolist() == ["y", "x", "m"]
    np.testing.assert_array_equal(gap.trajectories.sel(member="first", part="y", time=1.0).values.T, gap.final[:2])
    np.testing.assert_array_equal(gap.trajectories.sel(member="second", part="x", time=1.0).values.T, gap.final[2:])
    gap.plot_paths()


def test_unequal_steps_are_recorded_on_the_longer_clock():
    """Times and steps are those of the longer step."""
    fine = st.EulerMaruyama(st.LimitSDE(ORACLE, PLAN), ETA / 4)
    gap = st.weak_gap(SECOND, fine, **GIVEN, trajectories=3, slices=[ETA, 1.0], times="all")
    np.testing.assert_array_equal(gap.trajectories.time, ETA * np.arange(9))
    np.testing.assert_array_equal(gap.slices.step, [1, 8])
    np.testing.assert_array_equal(gap.trajectories.sel(time=ETA), gap.slices.sel(time=ETA, path=range(3)))


def test_trajectories_with_a_precision():
    """The number of paths is unknown until the pilot has run."""
    run = single(paths=None, precision=0.02, trajectories=[0, 5])
    same = single(paths=run.paths, trajectories=[0, 5])
    assert run.paths != 600 and np.array_equal(run.trajectories, same.trajectories)
    with pytest.raises(ValueError, match="from 0 to"):
        single(paths=None, precision=0.02, trajectories=[run.paths])


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_the_backend_is_an_attribute(backend):
    """For every backend."""
    if backend == "torch":
        pytest.importorskip("torch")
    assert single(backend=backend, trajectories=1).trajectories.attrs["backend"] == backend


# -- input validation -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([600], "from 0 to 599; got 600 of 600"), ([3, -1], "0, 1, 2, ...; got -1"), ([3, 17, 3], "each path once; got 3 more"),
        ([1.0, 2.0], "list of whole numbers"), ([0.5], "list of whole numbers"), (["3"], "list of whole numbers"), ([], "list of whole numbers"),
        ([[1, 2]], "list of whole numbers"), ({3, 4}, "whole number"), ([True, False], "list of whole numbers"), (601, "from 0 to 599; got 601 of 600"),
        (0, "at least 1"), (-3, "at least 1"), (2.5, "whole number"), (True, "whole number"), ("all", "whole number"), ([2**70], "list of whole numbers"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("run", [single, pair])
def test_invalid_paths_are_refused(run, asked, message):
    """Negative, repeated, fractional and too large indices."""
    with pytest.raises(ValueError, match="`trajectories` must") as caught:
        run(trajectories=asked)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("times", "message"),
    [([0.3], "whole number of steps"), ([1.25], "between 0 and the horizon"), ([-1.0], "between 0"), ([], "list of times"), ("last", "'all'"), (["a"], "real numbers")],
)  # fmt: skip
@pytest.mark.parametrize("run", [single, pair])
def test_invalid_times_of_slices_are_refused(run, times, message):
    """Times that are not steps, or beyond the horizon."""
    with pytest.raises(ValueError, match="`slices` must") as caught:
        run(slices=times)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "need", "message"),
    [
        ({"trajectories": 600}, 8 * 600 * 9 * 4, "9 records of 600 paths"),
        ({"slices": "all"}, 8 * 6000 * 9 * 4, "9 times of 6,000 paths"),
        ({"keep_final": True}, 8 * 6000 * 2, "6,000 paths"),
    ],
)
def test_paths_that_exceed_memory_are_refused(monkeypatch, asked, need, message):
    """At a limit of one byte less. 9 records or times of a state of 4 numbers, or last points of 2."""
    assert need > 8 * engine.GROUPS * 9 * 2 * 2
    monkeypatch.setattr(engine, "memory", lambda: need - 1.0)
    with pytest.raises(ValueError, match=f"`{next(iter(asked))}` must fit into memory; {message}"):
        single(times="all", paths=6000, **asked)
    monkeypatch.setattr(engine, "memory", lambda: float(need))
    single(times="all", paths=6000, **asked)


# -- figures --------------------------------------------------------------------------------------------------------------------


def path_curves(axes):
    """Return the curves of paths, without markers of starts and ends."""
    return [line for line in axes.lines if line.get_linestyle() not in ("None", "") and len(line.get_xdata()) > 1]


@pytest.mark.parametrize("count", [3, 100])
@pytest.mark.parametrize("run", [single, pair])
def test_two_coordinates_are_curves_on_the_contours(run, count):
    """Curves, limits, colours and the legend, which names paths if they are few, otherwise the dynamics."""
    found = run(trajectories=count)
    figure = found.plot_paths()
    (axes,) = figure.axes
    curves, members = path_curves(axes), 1 + (run is pair)
    assert len(curves) == members * count and len(axes.collections) == 2 and (axes.get_xlabel(), axes.get_ylabel()) == ("u", "v")
    values = found.trajectories.sel(part="x").values.reshape(members, count, -1, 2)
    for line, path in zip(curves, values.reshape(members * count, -1, 2)):
        np.testing.assert_array_equal(np.column_stack(line.get_data()), path)
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    assert (values > low).all() and (values < high).all()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    names = ["SGDM", "SGD"][:members]
    assert labels == (["path 0", "path 1", "path 2", *(names if members == 2 else [])] if count == 3 else names)
    assert len({line.get_color() for line in curves}) == (3 if count == 3 else members)


def test_against_time_and_other_parts():
    """One panel for each coordinate."""
    run = single(trajectories=4)
    first, second = run.plot_paths(time=True).axes
    assert (first.get_ylabel(), second.get_ylabel(), second.get_xlabel()) == ("u", "v", "$t$")
    for i, axes in enumerate((first, second)):
        for line, path in zip(path_curves(axes), run.trajectories.sel(part="x").values):
            np.testing.assert_array_equal(line.get_xdata(), run.times)
            np.testing.assert_array_equal(line.get_ydata(), path[:, i])
    (axes,) = run.plot_paths(part="m", coordinates=["v"]).axes
    np.testing.assert_array_equal(path_curves(axes)[2].get_ydata(), run.trajectories.sel(part="m", coordinate="v")[2])
    assert not axes.collections  # the loss does not depend on the momentum


def test_many_coordinates_are_the_first_six_unless_named():
    """Names select others."""
    wide = st.NoisyOracle(st.losses.quadratic(np.ones(9)), st.noise.gaussian(dim=9))
    run = st.simulate(st.SGD(wide, PLAN.averaged()), np.ones(9), 1.0, 50, ["x0"], trajectories=5, threads=1)
    shown = [axes for axes in run.plot_paths().axes if axes.get_visible()]
    assert [axes.get_ylabel() for axes in shown] == ["x0", "x1", "x2", "x3", "x4", "x5"] and plots.PANELS == 6
    figure, given = plots.canvas()
    assert run.plot_paths(given, coordinates=["x8"]) is figure and len(path_curves(given)) == 5
    with pytest.raises(ValueError, match="`ax` must be 2 axes"):
        run.plot_paths(given, coordinates=["x8", "x7"], time=True)


def test_an_sde_without_a_loss_and_paths_that_diverge():
    """The limits are those of the finite points; diverging curves end."""
    sde = st.SDE(["x**3", "0*y"], [["0.1", "0"], ["0", "0.1"]], variables="x y")
    run = st.simulate(
        st.EulerMaruyama(sde, 0.5), [[0.1, 9.0], [0.0, 0.0]], 6.0, 20, ["x"], times="all", trajectories=20, threads=1
    )
    (axes,) = run.plot_paths().axes
    assert run.diverged == 10 and not axes.collections and max(np.abs(axes.get_xlim())) < 9


def test_impossible_figures_are_refused():
    """Runs without trajectories, unknown parts and coordinates."""
    run = single(trajectories=3)
    with pytest.raises(ValueError, match=r"`trajectories` must have been requested.*trajectories=100"):
        single().plot_paths()
    with pytest.raises(ValueError, match="`part` must be among x, m; got 'v'"):
        run.plot_paths(part="v")
    with pytest.raises(ValueError, match="`coordinates` must be among u, v; got 'x'"):
        run.plot_paths(coordinates=["u", "x"])


def test_divergence_with_unequal_steps_is_counted_on_the_longer_clock():
    """dx = x^3 dt from 1.5 by steps of 1/8 and 1/2: a mean is not finite from the longer step on in which a path diverged, and not before."""
    cubic = st.SDE(drift=["x**3"], diffusion=["0.1"], variables="x")
    with np.errstate(all="ignore"):
        gap = st.weak_gap(
            st.EulerMaruyama(cubic, 1 / 8), st.EulerMaruyama(cubic, 1 / 2), [1.5], 6.0, 100, ["x"], times="all", backend="numpy"
        )
    finite = np.isfinite(gap.statistics.gap[:, 0])
    assert finite[0] and not finite[-1]
    assert gap.steps.tolist() == list(range(13)) and gap.first_divergence == gap.steps[~finite][0]
    for step, ok in zip(gap.steps, finite):
        estimate = gap.at("x", step / 2)
        assert (estimate.diverged == 0) == (step < gap.first_divergence)
        assert ok or estimate.diverged  # never "not finite, though the paths are"


def test_a_fan_of_a_pair_and_of_one_run():
    """Medians of the stored paths, with one fan for each dynamics and one panel for each coordinate."""
    plan = st.schedules.constant(0.125, beta=0.5)
    oracle = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2))
    pair = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
    gap = st.weak_gap(*pair, [2.0, 0.5], 0.5, 40, ["x"], trajectories=40, backend="numpy")
    first, second = gap.plot_fan().axes
    lines = [line for line in second.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == ["SGDM", "SGD"] and first.get_ylabel() == "x"
    for m, line in enumerate(lines):
        paths = gap.trajectories.isel(member=m, coordinate=1).sel(part="x")
        np.testing.assert_allclose(line.get_ydata(), np.median(paths.transpose("path", "time"), axis=0))
    assert len(gap.plot_paths(separate=True).axes) == 2 and len(gap.plot_fan(coordinates=["y"]).axes) == 1
    run = st.simulate(pair[0], [2.0, 0.5], 0.5, 4, ["x"], trajectories=4, backend="numpy")
    assert len(run.plot_fan(part="m", levels=[0.5]).axes) == 2
    with pytest.raises(ValueError, match="`trajectories` must have been requested"):
        st.simulate(pair[0], [2.0, 0.5], 0.5, 4, ["x"], backend="numpy").plot_fan()
