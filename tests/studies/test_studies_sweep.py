"""Sweeps: numbers on a grid against closed forms, the same bits on every executor and after an interruption, and errors in one sentence."""

from __future__ import annotations

import functools
import json
import math
import threading
from concurrent.futures import BrokenExecutor, Executor, Future

import numpy as np
import pytest
import xarray
from scipy.stats import t as student

import sdetools as st
from sdetools.simulation.submission import WorkersFailed
from sdetools.simulation.threads import available_threads
from sdetools.studies.sweep_points import record_of

GRID = {"a": [1.0, 2.0, 4.0], "b": [10, 20]}


def product(a, b):
    """Return a number that identifies the point."""
    return a * b


def estimate(a, b, seed=0):
    """Return an estimate and a number that identify the point."""
    return {"sum": st.Estimate(a + b + seed, 0.25 * a, 100, diverged=int(a == 4.0)), "b / a": b / a}


def gap(eta, beta, seed):
    """Return a weak gap whose exact value is known: see `test_the_supremum_of_a_gap`."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.none(dim=1))
    plan = st.schedules.constant(eta=eta, beta=beta)
    return st.weak_gap(
        st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), [1.0], 0.5, 2, ["x", "x**2"], seed=seed, backend="numpy"
    )


def noisy(eta, seed):
    """Return the mean of a noisy run."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1))
    return st.simulate(st.SGD(oracle, st.schedules.constant(eta=eta)), [1.0], 0.5, 300, ["x"], seed=seed, backend="numpy")


def bits(found):
    """Return all numbers of a sweep as bytes."""
    return b"".join(
        a.tobytes()
        for a in (found.values, found.stderrs, found.counts, found.lows, found.highs, found.resolved, found.divergence)
    )


# -- numbers ----------------------------------------------------------------------------------------------------------------------


def test_a_dataset_has_the_parameters_as_dimensions():
    found = st.sweep(product, **GRID, units={"a": "m", "value": "m2"})
    data = found.data
    assert data["value"].dims == ("a", "b") and data["value"].values.tolist() == [[10, 20], [20, 40], [40, 80]]
    assert data["a"].values.tolist() == GRID["a"] and data["b"].values.tolist() == GRID["b"] and data["b"].dtype.kind == "i"
    assert data["a"].units == "m" and data["value"].units == "m2" and data["b"].units == "1"
    assert np.isnan(data["value_stderr"]).all() and (data["value_n"] == 0).all() and data["value_resolved"].all()
    assert data.attrs["call"].startswith("sweep(function=<function product>") and "a=[1.0, 2.0, 4.0]" in data.attrs["call"]
    assert data.attrs["version"] == st.__version__ and data.attrs["seed"] == 0 and data.attrs["diverged"] == 0
    rows = found.to_dataframe()
    assert rows["value"].tolist() == [10, 20, 20, 40, 40, 80] and rows["a"].tolist() == [1, 1, 2, 2, 4, 4]


def test_estimates_keep_their_errors_and_diverged_paths():
    found = st.sweep(estimate, **GRID)
    one = st.Estimate(22.0, 0.5, 100)
    at = found.data.sel(a=2.0, b=20)
    assert (float(at["sum"]), float(at["sum_stderr"]), int(at["sum_n"])) == (22.0, 0.5, 100)
    assert (float(at["sum_low"]), float(at["sum_high"])) == (one.low, one.high) and bool(at["sum_resolved"])
    assert found.data["diverged"].values.tolist() == [[0, 0], [0, 0], [1, 1]] and found.diverged == 2
    assert "1 paths diverged" in found.table() and "2 paths diverged, at 2 points" in found.summary()


def test_the_supremum_of_a_gap():
    """Without noise: x_k of momentum SGD and of SGD are recursions of two numbers."""
    found = st.sweep(gap, eta=[0.125, 0.0625], beta=[0.5])
    for i, eta in enumerate([0.125, 0.0625]):
        x, m, z, largest = 1.0, 0.0, 1.0, 0.0
        rates = [eta * (1 - 0.5 ** (100 - k)) for k in range(100)]  # sum of the weights of step k over all later steps
        for k in range(round(0.5 / eta)):
            m = 0.5 * m + 0.5 * x
            x, z = x - eta * m, z - rates[k] * z
            largest = max(largest, abs(x - z))
        assert float(found.data["x"][i, 0]) == pytest.approx(largest, rel=1e-12)
    assert found.names == ("x", "x**2")


def test_names_within_mappings_and_results():
    made = record_of({"own": 1, "inner": {"p": 2.0, "q": st.Estimate(3.0, 0.1, 10)}, "run": noisy(0.25, 0)})
    assert list(made["values"]) == ["own", "inner p", "inner q", "run x"]
    assert record_of(np.float64(2.5))["values"]["value"][0] == record_of(xarray.DataArray(2.5))["values"]["value"][0] == 2.5
    assert json.loads(json.dumps(made))["values"]["inner q"] == made["values"]["inner q"]
    order = st.order_study(
        lambda eta: (st.SGD(*_sgd(eta)), st.SGD(*_sgd(eta))), [0.25, 0.125], [1.0], 0.5, 4, ["x"], backend="numpy"
    )
    assert list(record_of(order)["values"]) == ["x"]


def _sgd(eta):
    return st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.none(dim=1)), st.schedules.constant(eta=eta)


def test_means_over_seeds():
    """From the errors of the seeds where these are known, otherwise from their spread."""
    found = st.sweep(estimate, a=[1.0, 2.0], b=[10], seeds=[3, 5, 10])
    own = found.over_seeds("sum")
    assert own["value"].ravel().tolist() == [17.0, 18.0]
    assert own["stderr"].ravel() == pytest.approx([0.25 / math.sqrt(3), 0.5 / math.sqrt(3)])
    spread = st.sweep(lambda a, seed: a + seed, a=[1.0], seeds=[3, 5, 10]).over_seeds()
    stderr = np.std([4.0, 6.0, 11.0], ddof=1) / math.sqrt(3)
    assert spread["stderr"][0] == pytest.approx(stderr)
    assert spread["high"][0] - 7.0 == pytest.approx(student.ppf(0.975, 2) * stderr)
    assert found.data["sum"].dims == ("a", "b", "seed") and found.data["seed"].values.tolist() == [3, 5, 10]


def test_parameters_that_are_not_combined():
    found = st.sweep(product, a=[1.0, 2.0], b=[10, 20], product=False)
    assert found.data["value"].dims == ("point",) and found.data["value"].values.tolist() == [10, 40]
    assert found.data["b"].dims == ("point",) and len(found.table().splitlines()) == 3


def test_objects_have_labels():
    found = st.sweep(lambda rule, x: rule(x), rule={"root": math.sqrt, "abs": abs}, x=[4.0, 9.0])
    assert (
        found.data["value"].sel(rule="root").values.tolist() == [2.0, 3.0] and found.data["value"].sel(rule="abs", x=9.0) == 9.0
    )


def test_a_function_is_called_with_seed_0_only_if_it_takes_one():
    assert st.sweep(lambda a, seed: a + seed, a=[1.0]).values.ravel().tolist() == [1.0]
    assert st.sweep(lambda a, seed=7: a + seed, a=[1.0]).values.ravel().tolist() == [1.0]
    assert st.sweep(lambda a: a, a=[1.0]).values.ravel().tolist() == [1.0]


def test_backend_and_precision_reach_a_function_that_takes_them():
    def f(a, backend="none", dtype="float64"):
        return float(backend == "numpy") + 2 * float(dtype == "float32")

    assert st.sweep(f, a=[1.0], backend="numpy", dtype="float32").values.ravel().tolist() == [3.0]
    with pytest.raises(ValueError, match=r"`backend` must be an option that the function takes.*within the function"):
        st.sweep(product, **GRID, backend="numpy")


# -- executors, stores and errors -------------------------------------------------------------------------------------------------


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "how", [{"threads": 2}, {"executor": "threads:2"}, {"executor": "processes:2"}, {"executor": "dask:2"}], ids=str
)
def test_every_executor_gives_the_same_bits(how):
    if how.get("executor") == "dask:2":
        pytest.importorskip("distributed", reason="dask is not installed; it comes with the extra `cluster`")
    grid = dict(eta=[0.25, 0.125, 0.0625], seeds=2)
    assert bits(st.sweep(noisy, **grid, **how)) == bits(st.sweep(noisy, **grid))


def test_points_at_the_same_time_share_the_threads():
    """With two points at a time each has half of the threads, in another process one; alone it has all of them."""
    cores = available_threads()
    for how, share in (({}, cores), ({"threads": 2}, max(1, cores // 2)), ({"executor": Losing(9, 0)}, 1)):
        assert st.sweep(lambda a: available_threads(), a=[1], **how).values.tolist() == [[share]]
    assert available_threads() == cores


def test_a_function_that_cannot_be_pickled_is_refused_before_anything_runs():
    lock = threading.Lock()
    with pytest.raises(ValueError, match=r"`function` must be picklable.*executor='threads'"):
        st.sweep(lambda a: float(lock.locked()), a=[1], executor="processes:1")


def test_draws_matter():
    """Control of the test above: another seed gives other bits."""
    assert bits(st.sweep(noisy, eta=[0.25], seeds=[0])) != bits(st.sweep(noisy, eta=[0.25], seeds=[1]))


def test_an_interrupted_sweep_resumes_to_the_same_bits(tmp_path):
    file = tmp_path / "sweep.sqlite"
    whole, calls, fail = st.sweep(estimate, **GRID), [], [True]

    def report(done, total):
        calls.append(done)
        if done == 3 and fail:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        st.sweep(estimate, **GRID, store=file, progress=report)
    assert str(caught.value) == (
        f"interrupted; the finished points are kept in {file}: run again with resume=True, or with --resume at the command line"
    )
    fail.clear()
    calls.clear()
    again = st.sweep(estimate, **GRID, store=file, resume=True, progress=report)
    assert calls == [4, 5, 6] and bits(again) == bits(whole) and again.names == whole.names
    calls.clear()
    assert bits(st.sweep(estimate, **GRID, store=file, resume=True, progress=report)) == bits(whole) and calls == []


@pytest.mark.parametrize(
    "function, grid",
    [
        (product, GRID),
        (estimate, GRID | {"b": [10, 21]}),
        (estimate, {"b": [10, 20], "a": [1.0, 2.0, 4.0]}),
        (functools.partial(estimate, seed=1), GRID),
    ],
)
def test_a_store_of_another_function_or_grid_is_refused(tmp_path, function, grid):
    st.sweep(estimate, **GRID, store=tmp_path / "s.sqlite")
    with pytest.raises(st.StoreError, match="belongs to another experiment") as caught:
        st.sweep(function, **grid, store=tmp_path / "s.sqlite", resume=True)
    assert "\n" not in str(caught.value)


def fails_at_two(a):
    """Fail at a = 2."""
    if a == 2:
        raise ValueError("`a` must not\n be 2.")
    return 1.0 / a


def test_an_error_names_its_point():
    with pytest.raises(ValueError, match="must not") as caught:
        st.sweep(fails_at_two, a=[1, 2, 3])
    assert caught.value.__notes__ == ["This is at the point a=2 of the sweep."]


def test_recorded_errors(tmp_path):
    """A failed point is NaN with its sentence; it is run again when the sweep is resumed, and finished ones are not."""
    done = []
    for resume in (False, True):
        found = st.sweep(
            fails_at_two,
            a=[1, 2, 3],
            errors="record",
            store=tmp_path / "s",
            resume=resume,
            progress=lambda n, total: done.append(n),
        )
        assert found.values[0, [0, 2]].tolist() == [1.0, 1 / 3] and math.isnan(found.values[0, 1])
        assert found.data["error"].values.tolist() == ["", "ValueError: `a` must not be 2.", ""] and found.failed == 1
        assert "failed: ValueError: `a` must not be 2." in found.table()
    assert done == [1, 2, 3, 3]
    with pytest.raises(ValueError, match="every point of the sweep failed, the first one, a=2, with: ValueError"):
        st.sweep(fails_at_two, a=[2], errors="record")


class Losing(Executor):
    """An executor whose worker fails with one point a number of times."""

    _max_workers = 1

    def __init__(self, index, times):
        self.index, self.times = index, times

    def submit(self, fn, /, task, index):
        future = Future()
        if index == self.index and self.times > 0:
            self.times -= 1
            future.set_exception(BrokenExecutor("the node is gone"))
        else:
            future.set_result(fn(task, index))
        return future


def test_a_point_whose_worker_failed_is_submitted_again(tmp_path):
    assert bits(st.sweep(estimate, **GRID, executor=Losing(2, 2))) == bits(st.sweep(estimate, **GRID))
    with pytest.raises(WorkersFailed, match=r"^the point \(a=2.0, b=10\) is missing, because its worker failed.*retries=1"):
        st.sweep(estimate, **GRID, executor=Losing(2, 9), retries=1, store=tmp_path / "s")
    again = st.sweep(estimate, **GRID, store=tmp_path / "s", resume=True)
    assert bits(again) == bits(st.sweep(estimate, **GRID))


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "at least one parameter"),
        ({"a": 1.0, "b": [1]}, r"`a` must be a list of values.*a=\[1.0\]"),
        ({"a": [], "b": [1]}, "`a` must be different values"),
        ({"a": [1, 1.0], "b": [1]}, "`a` must be different values"),
        ({"a": [1, "x"], "b": [1]}, "`a` must be numbers, or texts, or a dict"),
        ({"a": [math.nan], "b": [1]}, "`a` must contain finite numbers"),
        ({"a": [object()], "b": [1]}, "`a` must be numbers, or texts, or a dict"),
        ({"a": [1], "b": [1], "c": [1]}, "`function` must accept a, b, c by name"),
        ({"a": [1]}, "`function` must accept a by name; missing a required argument: 'b'"),
        ({"a": [1], "b": [1], "thread": 2}, "Did you mean the option `threads`"),
        ({"a": [1], "b": [1, 2], "product": False}, "`product`=False must have as many values"),
        ({"a": [1], "b": [1], "seeds": 2}, "`function` must accept a, b, seed by name"),
        ({"a": [1], "b": [1], "seed": [2]}, "Pass seeds="),
        ({"a": [1], "b": [1], "seeds": [1, 1]}, "`seeds` must be different"),
        ({"a": [1], "b": [1], "errors": "skip"}, "`errors` must be 'raise' or 'record'"),
        ({"a": [1], "b": [1], "units": {"c": "m"}}, "`units` must be those of a, b, value"),
        ({"a": [1], "b": [1], "resume": True}, "`resume` must go with `store`"),
        ({"a": [1], "b": [1], "executor": "dusk"}, "Did you mean `dask`"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        st.sweep(product, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "reswapped, message",
    [
        ("text", "`function` must return a number"),
        (None, "`function` must return a number"),
        ([1.0, 2.0], "`function` must return a number"),
        ({}, "at least one number"),
        ({"error": 1.0}, "must not return the names diverged and error"),
        ({"a": {"b": "x"}}, "under 'a b'"),
    ],
)
def test_what_a_function_cannot_return(reswapped, message):
    with pytest.raises(ValueError, match=message):
        st.sweep(lambda a: reswapped, a=[1])


# -- plots and files --------------------------------------------------------------------------------------------------------------


def signs(a, b):
    """Return an estimate that is resolved where |a| exceeds 1, and NaN at one point."""
    return st.Estimate(math.nan if (a, b) == (-3.0, 2) else a, 0.25, 100)


def test_a_heat_map_hatches_what_is_not_resolved():
    from matplotlib.patches import Rectangle

    found = st.sweep(signs, a=[3.0, 0.5, -3.0], b=[1, 2])
    (axes,) = found.plot().axes
    hatched = sorted(p.get_xy() for p in axes.patches if isinstance(p, Rectangle) and p.get_hatch())
    assert hatched == [(0.5, -0.5), (0.5, 0.5)]  # a = 0.5 is in the middle of the ascending values
    (cross,) = axes.lines
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (0, 1)
    assert axes.get_xlabel() == "a" and [t.get_text() for t in axes.get_xticklabels()] == ["-3", "0.5", "3"]
    assert {t.get_text() for t in axes.get_legend().get_texts()} == {"unresolved", "failed or diverged"}
    swapped = found.plot(x="b", y="a").axes[0]
    assert swapped.get_xlabel() == "b" and swapped.collections[0].get_array().filled(np.nan).shape == (3, 2)
    np.testing.assert_array_equal(
        swapped.collections[0].get_array().filled(np.nan), axes.collections[0].get_array().filled(np.nan).T
    )


def test_curves_have_error_bars_and_hollow_markers():
    found = st.sweep(signs, a=[3.0, 0.5, -3.0], b=[1])
    (axes,) = found.plot(at={"b": 1}).axes
    segments = axes.collections[0].get_segments()
    assert [s[0][0] for s in segments] == [-3.0, 0.5, 3.0] and segments[2][1][1] == st.Estimate(3.0, 0.25, 100).high
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_xdata().tolist() for line in hollow] == [[0.5]]
    several = st.sweep(signs, a=[3.0, 0.5], b=[1, 2]).plot(x="a").axes[0]
    styles = {
        (line.get_color(), str(line._dash_pattern), line.get_marker()) for line in several.lines if line.get_linestyle() != "None"
    }
    assert len(styles) == 2 and [t.get_text() for t in several.get_legend().get_texts()] == ["b = 1", "b = 2", "unresolved"]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"x": "q"}, "must name a, b, c; got 'q'"),
        ({}, "`at` must have a value for c"),
        ({"at": {"c": 9.0}}, "`at` must have one of the values of c: 5, 6; got 9.0"),
        ({"x": "a", "y": "a", "at": {"c": 5, "b": 1}}, "must be two parameters"),
        ({"value": "q", "at": {"c": 5}}, "q"),
    ],
)
def test_bad_plots_are_refused(given, message):
    found = st.sweep(lambda a, b, c: a + b + c, a=[1, 2], b=[1, 2], c=[5, 6])
    with pytest.raises(ValueError, match=message):
        found.plot(**given)


def test_a_file_has_names_with_slashes(tmp_path):
    found = st.sweep(estimate, **GRID)
    again = st.load(found.save(tmp_path / "sweep.nc"))
    xarray.testing.assert_identical(again.data, found.data)
    with xarray.open_dataset(tmp_path / "sweep.nc", engine="h5netcdf") as root:
        assert root["b \N{DIVISION SLASH} a"].values.tolist() == found.data["b / a"].values.tolist()
