"""Diverged paths are counted, their first non-finite step is exact, and they are never excluded from means."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest

import sdetools as st

ETA, STEPS, PATHS, SIGMA = 0.25, 24, 300, 3.5
LOSS = st.losses.from_expression("x**4/4 - x**2/2", variables="x")
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=SIGMA)
PLAN = st.schedules.constant(ETA, 0.5)
PAIR = (st.SGDM(ORACLE, PLAN), st.SGD(ORACLE, PLAN.averaged()))
GIVEN = dict(x0=[1.0], horizon=STEPS * ETA, paths=PATHS, observe=["x**2", "1/(1 + x**2)"], times="all", threads=1, seed=5)


def reference(beta):
    """The number of diverged paths and their first divergence time, in pure Python."""
    key, first = naive.key_of(5, 0), []

    def gradient(x, z):
        return [x[0] * x[0] * x[0] - x[0] + SIGMA * z[0]]

    for path in range(PATHS):
        points = naive.sgdm(
            [1.0], [0.0], gradient, [ETA] * STEPS, [beta] * STEPS, lambda k, path=path: naive.normals(key, path, k, 1)
        )
        first += [next((k for k, x in enumerate(points) if not math.isfinite(x[0])), None)]
    diverged = [k for k in first if k is not None]
    return len(diverged), min(diverged, default=-1)


@pytest.fixture(scope="module")
def expected():
    """The counts and divergence times of SGDM and SGD."""
    return reference(0.5), reference(0.0)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_counts_and_divergence_times_equal_the_reference(backend, expected):
    """Counts and divergence times against pure Python."""
    gap = st.weak_gap(*PAIR, backend=backend, **GIVEN)
    (momentum, plain) = expected
    assert 0 < plain[0] < PATHS  # some paths diverge, some do not
    assert gap.statistics.sums.diverged.tolist() == [momentum[0], plain[0]]
    assert gap.statistics.sums.first_divergence.tolist() == [momentum[1], plain[1]]
    assert gap.diverged == momentum[0] + plain[0]
    assert gap.first_divergence == min(k for _, k in expected if k >= 0)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_estimates_are_finite_before_and_nan_after(backend, expected):
    """Holds also for a bounded observable, whose value at an infinite point would appear valid."""
    gap = st.weak_gap(*PAIR, backend=backend, **GIVEN)
    first = gap.first_divergence
    for h in gap.names:
        known = first - (h == "x**2")  # one step before, x is beyond 1e120: its square may be infinite
        assert np.isfinite(gap.statistics.gap[:known, gap.names.index(h)]).all()
        assert np.isnan(gap.statistics.gap[first:, gap.names.index(h)]).all()
        late = gap.at(h)
        assert math.isnan(late.value) and tuple(late.confidence_interval(0.9)) == (-math.inf, math.inf) and not late.resolved
        assert "left the finite range" in repr(late)
        assert gap.at(h, gap.times[first - 1]).value != 0
        assert math.isnan(gap.sup(h).value) and tuple(gap.sup(h).confidence_interval(0.95)) == (-math.inf, math.inf)


def test_divergence_of_a_single_dynamics(expected):
    """The count of a run of one dynamics."""
    run = st.simulate(PAIR[1], **GIVEN)
    assert (run.diverged, run.first_divergence) == expected[1]
    assert math.isnan(run.at("1/(1 + x**2)").value)
    assert np.isfinite(run.statistics.mean[: run.first_divergence, 1]).all()
    assert np.isfinite(run.statistics.mean[: run.first_divergence - 1, 0]).all()
    assert f"{run.diverged} paths" in repr(run)


def test_no_path_of_a_stable_run_diverges():
    """Negative control: at a quarter of the learning rate no path diverges, and no mean is NaN."""
    plan = st.schedules.constant(ETA / 4, 0.5)
    run = st.simulate(st.SGD(ORACLE, plan.averaged()), **GIVEN)
    assert (run.diverged, run.first_divergence) == (0, -1)
    assert np.isfinite(run.statistics.mean).all()


def test_a_study_with_diverged_paths_is_unresolved():
    """An order study reports points with diverged paths as unresolved."""
    study = st.order_study(
        lambda eta: (st.SGDM(ORACLE, st.schedules.constant(eta, 0.5)), st.SGD(ORACLE, st.schedules.constant(eta))),
        etas=[0.25, 0.0625], **{k: v for k, v in GIVEN.items() if k != "times"},
    )  # fmt: skip
    assert study.gaps[0].diverged > 0 and study.gaps[1].diverged == 0
    assert math.isnan(study.order("x**2").value)
    assert "diverged" in study.table()


@pytest.mark.parametrize("h", ["sqrt(x)", "log(x - 100)"])
def test_a_non_finite_observable_is_not_reported_as_divergence(h):
    """All paths remain finite; the message names the observable, and reports no divergence."""
    plan = st.schedules.constant(ETA / 4, 0.5)
    given = GIVEN | {"observe": [h]}
    run = st.simulate(st.SGD(ORACLE, plan.averaged()), **given)
    gap = st.weak_gap(st.SGDM(ORACLE, plan), st.SGD(ORACLE, plan.averaged()), **given)
    for text in (repr(run.at(h)), repr(gap.at(h)), repr(gap.sup(h))):
        assert h in text and "not a finite number on each of them, though the paths are" in text and "step" not in text
    assert run.diverged == gap.diverged == 0
