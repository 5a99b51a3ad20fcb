"""Orders, their standard errors and predicted numbers of paths from given gaps, against least squares by NumPy."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import sdetools as st
from sdetools.estimates import Estimate, SupEstimate
from sdetools.estimates.band import MANY_GROUPS, multiplier_noise
from sdetools.simulation.philox import Stream
from sdetools.studies.order import BOOTSTRAP, OrderStudy, slope

close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
ETAS = np.array([0.5, 0.2, 0.1, 0.01])
POINTS = [
    Estimate(0.9, 0.02, 700, rounding=1e-3), Estimate(-0.5, 0.03, 700, rounding=2e-3), Estimate(0.11, 0.01, 700, rounding=5e-3),
    Estimate(0.02, 0.011, 700),
]  # fmt: skip
"""Estimates at each eta; the last one is unresolved."""


def gap_of(point, residuals=None, paths=700, diverged=0, first=-1, names=("one", "two")):
    """Return a gap with given estimates: at time 2 the point, and as supremum the point with a curve of three times."""
    width = residuals.shape[1] if residuals is not None else 3
    fields = {f: getattr(point, f) for f in ("value", "stderr", "n", "random", "rounding")}
    sup = SupEstimate(**fields, curve=point.value * np.linspace(0.2, 1.0, width), errors=np.full(width, point.stderr), time=1.5)

    def at(observable, time):
        return replace(point, value=point.value * {2.0: 1.0, 3.0: 10.0}[time], name=names[observable])

    return SimpleNamespace(
        names=names, paths=paths, diverged=diverged, first_divergence=first, at=at, sup=lambda observable: replace(sup),
        statistics=SimpleNamespace(residuals=lambda o: (residuals if residuals is not None else np.ones((4, 3))) * (1 + o)),
    )  # fmt: skip


def study_of(points=POINTS, **more):
    """Return a study of given points."""
    return OrderStudy(ETAS[: len(points)], tuple(map(gap_of, points)), confidence=0.9, **more)


def draws_of(i, point, count=BOOTSTRAP):
    """Return |value + xi stderr| with the normal numbers of the i-th eta, at least a thousandth of the value."""
    xi = np.random.default_rng([20_231_012, i]).standard_normal(count)
    return np.maximum(np.abs(point.value + xi * point.stderr), abs(point.value) / 1000)


def test_the_slope_is_that_of_a_polynomial_fit():
    """NumPy's fit of log gap against log eta, for all points and for other gaps at the points of an order."""
    gaps = np.array([0.9, 0.4, 0.12, 0.02])
    close(slope(ETAS, gaps), np.polyfit(np.log(ETAS), np.log(gaps), 1)[0])
    close(study_of(POINTS[:3]).order(0, 2.0).fit([3.0, 0.4, 0.3]), np.polyfit(np.log(ETAS[:3]), np.log([3.0, 0.4, 0.3]), 1)[0])


@pytest.mark.parametrize("last", [3, 4])
def test_an_order_is_fitted_to_resolved_points(last):
    """Value, bootstrap standard error and local slopes against explicit formulas."""
    order = study_of(POINTS[:last]).order(1, 2.0)
    logs, values = np.log(ETAS[:3]), np.array([0.9, 0.5, 0.11])
    close(order.value, np.polyfit(logs, np.log(values), 1)[0])
    draws = np.array([draws_of(i, POINTS[i]) for i in range(3)])
    close(order.stderr, np.std(np.polyfit(logs, np.log(draws), 1)[0]))
    away = np.abs(logs - logs.mean())
    close(order.rounding, away @ np.divide([1e-3, 2e-3, 5e-3], values) / (away @ away))
    assert (order.n, order.confidence, order.fitted, order.random, order.name) == (700, 0.9, 1, True, "order of the gap of two")
    close(order.etas, ETAS[:3])
    close(order.gaps, values)
    assert len(order.local) == 2
    for local, a, b in zip(order.local, (0, 1), (1, 2), strict=True):
        width = logs[a] - logs[b]
        close(local.value, math.log(values[a] / values[b]) / width)
        close(local.stderr, np.std(np.log(draws[a] / draws[b])) / width)
        close(local.rounding, (POINTS[a].rounding / values[a] + POINTS[b].rounding / values[b]) / width)
        assert (local.n, local.confidence, local.random) == (700, 0.9, True)
    assert study_of().order("two", 2.0).value == study_of().order(1, 2.0).value != study_of().order(1, 3.0).value


def test_unresolved_and_diverged_points_do_not_enter_an_order():
    """The draws depend on the place of eta in the study, not among the points of the fit."""
    points = [POINTS[0], POINTS[3], POINTS[1], POINTS[2]]
    study = study_of(points)
    logs, values = np.log(ETAS[[0, 2, 3]]), [0.9, 0.5, 0.11]
    draws = np.array([draws_of(i, points[i]) for i in (0, 2, 3)])
    close(study.order(0, 2.0).value, np.polyfit(logs, np.log(values), 1)[0])
    close(study.order(0, 2.0).stderr, np.std(np.polyfit(logs, np.log(draws), 1)[0]))
    close(study.order(0, 2.0).local[0].value, math.log(0.9 / 0.5) / (logs[0] - logs[1]))
    partial = study_of([POINTS[0], replace(POINTS[1], diverged=3), POINTS[2]]).order(0, 2.0)
    close(partial.etas, ETAS[[0, 2]])


def test_an_order_of_exact_gaps_is_exact():
    """It is random if one of the gaps is; a local slope if one of its two gaps is."""
    exact = [replace(p, stderr=0.0, random=False) for p in POINTS[:3]]
    order = study_of(exact).order(0, 2.0)
    assert not order.random and order.stderr == 0 and [e.random for e in order.local] == [False, False]
    mixed = study_of([exact[0], exact[1], POINTS[2]]).order(0, 2.0)
    assert mixed.random and [e.random for e in mixed.local] == [False, True]
    mixed = study_of([POINTS[0], exact[1], exact[2]]).order(0, 2.0)
    assert mixed.random and [e.random for e in mixed.local] == [True, False]


def test_fewer_than_two_points_have_no_order():
    """The order is NaN with an infinite interval, and the diverged paths are counted."""
    gaps = gap_of(POINTS[0]), gap_of(POINTS[3], diverged=2, first=7), gap_of(POINTS[3], diverged=5, first=4), gap_of(POINTS[3])
    study = OrderStudy(ETAS, gaps, confidence=0.9)
    order = study.order(0, 2.0)
    assert math.isnan(order.value) and math.isnan(order.stderr) and study.diverged == 7
    assert (order.n, order.confidence, order.diverged, order.first_divergence) == (700, 0.9, 7, 4)
    assert study_of(POINTS[3:] + POINTS[:1]).order(0, 2.0).first_divergence == -1


def test_the_draws_of_a_gap_have_a_floor():
    """With a standard error for which one draw is 0, whose logarithm is infinite: it is replaced by a thousandth of the value."""
    xi = np.random.default_rng([20_231_012, 1]).standard_normal(BOOTSTRAP)
    point = Estimate(3.0, -3.0 / xi[xi < 0][5], 700)
    found = study_of()._draws(1, 0, point)
    assert found.min() == 0.003
    close(found, draws_of(1, point))


@pytest.mark.parametrize("groups", [MANY_GROUPS - 1, MANY_GROUPS])
def test_the_draws_of_a_supremum_come_from_its_curve_for_many_groups(groups):
    """With few groups they are those of a single value."""
    residuals = np.random.default_rng(2).standard_normal((3, groups, 5))
    gaps = tuple(map(gap_of, POINTS, residuals))
    study = OrderStudy(ETAS[:3], gaps)
    draws = []
    for i, gap in enumerate(gaps):
        sup = gap.sup(1)
        noise = multiplier_noise(2 * residuals[i], BOOTSTRAP, 20_231_012 + i)
        many = np.abs(sup.curve + noise * sup.errors).max(axis=1)
        draws.append(many if groups == MANY_GROUPS else draws_of(i, POINTS[i]))
        close(study._draws(i, 1, sup), draws[-1])
        close(study._draws(i, 1, POINTS[i]), draws_of(i, POINTS[i]))
    order = study.order(1)
    close(order.stderr, np.std(np.polyfit(np.log(ETAS[:3]), np.log(draws), 1)[0]))


def test_paths_needed_for_each_eta():
    """A quarter of the gap as standard error: of the measured, the expected or the fitted gap; 0 where none is known."""
    seen = [math.ceil(700 * (4 * p.stderr / p.value) ** 2) for p in POINTS[:3]]
    line = np.polyfit(np.log(ETAS[:3]), np.log([0.9, 0.5, 0.11]), 1)
    fitted = math.exp(np.polyval(line, math.log(ETAS[3])))
    assert study_of().paths_needed("two").tolist() == [*seen, math.ceil(700 * (4 * 0.011 / fitted) ** 2)]
    expected = study_of(expected={"one": tuple(eta**0.75 / 3 for eta in ETAS)})
    assert expected.paths_needed("one").tolist() == [*seen, math.ceil(700 * (4 * 0.011 / (0.01**0.75 / 3)) ** 2)]
    assert expected.paths_needed("two").tolist() == study_of().paths_needed("two").tolist()
    assert study_of([POINTS[0], POINTS[3]]).paths_needed("two").tolist() == [seen[0], 0]
    assert study_of([replace(POINTS[0], stderr=0.0, random=False)]).paths_needed("two").tolist() == [0]


def test_the_gap_at_one_eta():
    """The learning rate is found up to rounding; others are refused."""
    study = OrderStudy(ETAS, tuple(map(gap_of, POINTS)), confidence=0.9)
    for eta, point in zip(ETAS, POINTS, strict=True):
        assert study.sup("one", eta * (1 + 1e-13)).value == point.value
    assert [e.value for e in study.estimates(0, 3.0)] == [10 * p.value for p in POINTS]
    with pytest.raises(ValueError, match=r"`eta` must be one of 0\.5, 0\.2, 0\.1, 0\.01; got eta=0\.101"):
        study.sup("one", 0.101)


def test_tables_agree_with_the_estimates():
    """The dataset and JSON."""
    study = study_of()
    data, rows = study.data, json.loads(study.to_json())
    order = study.order("two")
    assert rows["orders"][1] == {
        "observable": "two", "order": order.value, "low": order.low, "high": order.high, "local": [e.value for e in order.local],
    }  # fmt: skip
    needed = study.paths_needed("two")
    for i, (eta, e) in enumerate(zip(ETAS, study.estimates("two"), strict=True)):
        cell, row = data.sel(observable="two").isel(eta=i), rows["gaps"][4 + i]
        values = {name: getattr(e, name) for name in ("stderr", "low", "high", "resolved")}
        for name, value in (values | {"gap": e.value, "paths_needed": needed[i]}).items():
            assert cell[name].item() == row[name] == value
        assert (cell["mean"], cell["time_of_max"], cell["eta"], cell["paths"]) == (e.value, 1.5, eta, 700)
        assert [row[name] for name in ("observable", "eta", "paths", "diverged_paths")] == ["two", eta, 700, 0]
        assert row["first_divergence"] == -1


def test_a_study_consists_of_independent_gaps():
    """In descending order of eta, with paths as given for each; the i-th gap uses the i-th part of the stream, bitwise."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1))

    def pair(eta):
        plan = st.schedules.constant(eta, beta=0.5)
        return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())

    how = {"observe": ["x", "x**2"], "seed": 3, "backend": "numpy", "times": [0.5, 1.0]}
    study = st.order_study(pair, [0.25, 0.5], [2.0], 1.0, lambda eta: int(80 / eta), stream=4, confidence=0.8, **how)
    assert study.etas.tolist() == [0.5, 0.25] and study.confidence == 0.8
    for i, (eta, gap) in enumerate(zip([0.5, 0.25], study.gaps, strict=True)):
        alone = st.weak_gap(*pair(eta), [2.0], 1.0, int(80 / eta), stream=Stream(4, part=i), **how)
        assert gap.paths == 80 / eta and gap.confidence == 0.8 and gap.times.tolist() == [0.5, 1.0]
        assert (gap.statistics.gap == alone.statistics.gap).all() and (gap.statistics.stderr == alone.statistics.stderr).all()
        assert gap.first.name == "SGDM" and gap.second.name == "SGD"


def test_learning_rates_are_distinguished_however_small():
    """Rates that differ by less than 1e-8, and a slope of nothing."""
    oracle = st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1), sigma=0.1)

    def pair(eta):
        plan = st.schedules.constant(eta, 0.5)
        return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())

    study = st.order_study(pair, [2e-9, 1e-9], [1.0], 1e-8, 100, ["x0"], backend="numpy")
    assert study.sup("x0", 1e-9).value == study.gaps[1].sup("x0").value
    with pytest.raises(ValueError, match="`eta` must be one of"):
        study.sup("x0", 1.5e-9)
    unresolved = st.studies.order.OrderEstimate(math.nan, math.nan, 100)
    assert math.isnan(unresolved.fit([]))
