"""Comparison of the slow SDE with its optimisers: the runs, their times, and the comparisons; simulated only where noted."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import xarray

import sdetools as st
from sdetools.results.protocol import BY_HAND
from sdetools.simulation.philox import Stream
from sdetools.studies import slow_clock as module
from sdetools.studies.distance import distance

ORACLE = st.NoisyOracle(st.losses.exponential_valley(), st.noise.rademacher(dim=2))
PLAN = st.schedules.constant(eta=0.1, beta=0.5)
ENDS = np.random.default_rng(2).normal(size=(3, 2, 40))


@pytest.fixture
def calls(monkeypatch):
    """Replace `simulate` by a function that records its arguments and returns given points for each dynamics."""
    asked = []

    def simulate(member, **options):
        asked.append((member, options))
        return SimpleNamespace(final=ENDS[(len(asked) - 1) % 3][:, : options["paths"]], dynamics=member, origin=BY_HAND)

    monkeypatch.setattr(module, "simulate", simulate)
    return asked


def study(horizon, **more):
    """Return a study without paths for plots."""
    return st.slow_study(ORACLE, PLAN, [0.3, 0.2], horizon, 40, **({"shown": 0} | more))


def test_three_runs_on_one_clock(calls):
    """37 steps of eta^2; the optimisers share draws, the SDE has its own; SGD runs on the averaged schedule."""
    found = study(0.37, seed=3, stream=2, threads=5)
    assert list(found.runs) == ["slow SDE", "SGD", "SGDM"] and [o["stream"] for _, o in calls] == [
        Stream.of(2).at(k) for k in (1, 0, 0)
    ]
    for member, options in calls:
        assert member.step_time == pytest.approx(0.01, rel=1e-14)
        given = {k: v for k, v in options.items() if k not in ("stream", "times")} | {"x0": list(options["x0"])}
        options_of_a_run = dict(
            x0=[0.3, 0.2], horizon=0.37, paths=40, observe=["x", "y"], keep_final=True, seed=3, confidence=0.95
        )
        assert given == options_of_a_run | dict(st.Execution(threads=5))
        np.testing.assert_allclose(options["times"], 0.01 * np.unique(np.linspace(1, 37, 24).round()), rtol=1e-13)
    slow, sgd, sgdm = (member for member, _ in calls)
    assert isinstance(slow, st.EulerMaruyama)
    np.testing.assert_array_equal(
        sgd.coefficient_values(9), st.SGD(ORACLE, PLAN.averaged(), step_time=0.01).coefficient_values(9)
    )
    np.testing.assert_array_equal(sgdm.coefficient_values(9), st.SGDM(ORACLE, PLAN, step_time=0.01).coefficient_values(9))
    np.testing.assert_allclose(found.slow.drift(np.array([0.3, 0.0])), [-0.25, 0.0], rtol=1e-12)
    np.testing.assert_allclose(
        found.start, st.SlowSDE(ORACLE, PLAN.averaged(), at=[0.3, 0.2]).start(np.array([0.3, 0.2]))[0], rtol=1e-14
    )
    assert found.x0.tolist() == [0.3, 0.2] and found.oracle is ORACLE and found.paths_shown == {}


@pytest.mark.parametrize(("steps", "every"), [(37, 1), (399, 1), (403, 1), (450, 2), (600, 3), (602, 2), (1001, 1), (2000, 10)])
def test_the_default_step_of_the_integrator(steps, every, calls):
    """About 200 steps, each a whole number of steps of the optimiser."""
    study(0.01 * steps)
    assert calls[0][0].step_time == pytest.approx(0.01 * every, rel=1e-12) and calls[1][0].step_time == pytest.approx(
        0.01, rel=1e-12
    )


def test_given_steps_times_and_observables(calls):
    """They replace the defaults; the default times are steps of dt."""
    study(0.6, dt=0.05, integrator=st.Platen, observe=["x**2"], times=[0.3, 0.6])
    member, options = calls[0]
    assert isinstance(member, st.Platen) and member.step_time == 0.05 and options["times"] == [0.3, 0.6]
    assert [o["observe"] for _, o in calls] == [["x**2"]] * 3
    calls.clear()
    study(0.6, dt=0.05)
    np.testing.assert_allclose(calls[0][1]["times"], 0.05 * np.arange(1, 13), rtol=1e-14)


def test_a_horizon_is_a_whole_number_of_steps_up_to_rounding(calls):
    """Others are refused with a proposal."""
    for off in (5e-7, -5e-7):
        assert study(0.37 * (1 + off)) and calls[0][1]["horizon"] == 0.37 * (1 + off)
        calls.clear()
        with pytest.raises(
            ValueError,
            match=r"steps of eta\^2 = 0\.01; got horizon=0\.37\d+\. Take horizon=0\.37\.|horizon=0\.36\d+\. Take horizon=0\.37\.",
        ):
            study(0.37 * (1 + 10 * off))
    with pytest.raises(ValueError, match=r"got horizon=0\.004\. Take horizon=0\.01\."):
        study(0.004)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0.5, 0.05, 0.01), 0.05 * np.arange(1, 11)),
        ((0.5, 0.01, 0.05), 0.05 * np.arange(1, 11)),
        ((0.23, 0.01, 0.01), 0.01 * np.arange(1, 24)),
        (
            (3.0, 0.02, 0.03),
            0.03 * np.array([1, 5, 10, 14, 18, 23, 27, 31, 35, 40, 44, 48, 53, 57, 61, 66, 70, 74, 78, 83, 87, 91, 96, 100]),
        ),
    ],
)
def test_recorded_times_are_whole_steps_of_the_longer_clock(given, expected):
    """At most 24 times."""
    np.testing.assert_allclose(module.recorded(*given), expected, rtol=1e-13)


def test_end_points_are_compared_with_those_of_the_slow_sde(calls):
    """Distances of each observable, by two kinds."""
    found = study(0.3, observe=["x", "x*y"], seed=4)
    limit, *others = ([e[0], e[0] * e[1]] for e in ENDS)
    assert len(found.distances) == 8
    for name, own in zip(("SGD", "SGDM"), others):
        for h, a, b in zip(("x", "x*y"), own, limit):
            assert found.distances[name, h] == distance(a, b, seed=4)
            assert found.distances[name, f"{h} kolmogorov"] == distance(a, b, "kolmogorov", seed=4)


def test_paths_for_the_plot_are_the_first_paths_of_each_run():
    """The start, then the points at 0.1, 0.2 and 0.3 on the same draws, from a separate run each; not those of another seed."""
    found = study(0.3, times=[0.1, 0.2, 0.3], shown=4, stream=1, seed=3, threads=1)
    assert list(found.paths_shown) == list(found.runs)
    for k, (name, run) in enumerate(found.runs.items()):
        start, *frames = np.moveaxis(found.paths_shown[name], 1, 0)
        np.testing.assert_array_equal(start, np.tile(run.dynamics.start(np.array([0.3, 0.2]))[0][:, None], 4))
        given = dict(paths=40, observe=["x"], keep_final=True, stream=Stream.of(1).at(int(k == 0)), threads=1)
        for t, frame in zip((0.1, 0.2, 0.3), frames, strict=True):
            np.testing.assert_array_equal(frame, st.simulate(run.dynamics, [0.3, 0.2], t, seed=3, **given).final[:, :4])
        assert (frames[-1] != st.simulate(run.dynamics, [0.3, 0.2], 0.3, seed=4, **given).final[:, :4]).any()


def test_means_are_combined_at_common_times():
    """Times of 0.1 and 0.1 + 1e-15 are equal; 0.25 is recorded by one run only."""

    def run(times, value):
        times = np.array(times)
        fields = {
            k: (("time", "observable"), np.stack([v * times], axis=1)) for k, v in (("mean", value), ("stderr", value / 10))
        }
        return SimpleNamespace(times=times, diverged=0, data=xarray.Dataset(fields, coords={"time": times, "observable": ["x"]}))

    runs = {
        "slow SDE": run([0.1, 0.2, 0.4], 1.0),
        "SGD": run([0.1 + 1e-15, 0.2, 0.25, 0.4], 3.0),
        "SGDM": run([0.1, 0.2, 0.4 + 1e-15], 5.0),
    }
    data = module.SlowStudy(None, None, None, runs, {}).data
    assert data["run"].values.tolist() == list(runs) and data["time"].values.tolist() == [0.1, 0.2, 0.4]
    np.testing.assert_allclose(data["mean"].values[..., 0], np.outer([1, 3, 5], [0.1, 0.2, 0.4]), rtol=1e-12)
    np.testing.assert_allclose(data["stderr"].values[..., 0], np.outer([0.1, 0.3, 0.5], [0.1, 0.2, 0.4]), rtol=1e-12)


def test_a_study_as_json():
    """A complete study of five steps by NumPy: means, distances, start and rank agree with the objects."""
    found = study(0.05, backend="numpy", threads=1)
    content = json.loads(found.to_json())
    assert content["rank"] == 1 and content["start"] == found.start.tolist() and list(content["runs"]) == list(found.runs)
    for name, run in found.runs.items():
        own = content["runs"][name]
        assert own["times"] == run.times.tolist() and (own["paths"], own["diverged"]) == (40, 0)
        for i, h in enumerate(("x", "y")):
            assert own[h] == {"mean": run.statistics.mean[:, i].tolist(), "stderr": run.statistics.stderr[:, i].tolist()}
    for row, ((name, what), d) in zip(content["distances"], found.distances.items(), strict=True):
        assert (row["run"], row["what"], row["value"], row["low"], row["high"], row["equal laws"]) == (
            name,
            what,
            d.value,
            d.low,
            d.high,
            d.floor_high,
        )
