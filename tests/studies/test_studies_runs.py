"""Draws, records and names of runs, and the number of paths for a precision, against its formula.

The draws themselves are those of the engine; every number here follows from them by NumPy.
"""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from scipy import stats

import sdetools as st
from sdetools.simulation.engine import execute
from sdetools.simulation.philox import Stream
from sdetools.studies.clock import moment
from sdetools.studies.means import make_program
from sdetools.studies.observables import column

PLAN = st.schedules.constant(0.25, beta=0.5)
PILOT = 32768
"""Paths of a pilot."""


def oracle(noise=None):
    """Return an oracle of a quadratic loss."""
    return st.NoisyOracle(st.losses.from_expression("x**2/2"), noise or st.noise.gaussian(dim=1), sigma=0.7)


SGDM, SGD = st.SGDM(oracle(), PLAN), st.SGD(oracle(), PLAN.averaged())
ON_NUMPY = {"backend": "numpy", "threads": 1}


def draws_of(members, paths, seed, stream, observe=("x",), coupled=True, times=None):
    """Return the last points of a program on given draws, and the program."""
    program, *_ = make_program(members, [2.0], 1.5, list(observe), times, (), True, coupled)
    return execute(program, paths, seed, stream, 1, keep=True, backend="numpy").points, program


def test_a_simulation_agrees_with_its_draws():
    """Means and standard errors from the last points."""
    x = draws_of((SGD,), 50, 3, Stream(2))[0][0]
    run = st.simulate(SGD, [2.0], 1.5, 50, ["x", "x**2"], seed=3, stream=2, keep_final=True, confidence=0.8, **ON_NUMPY)
    assert (run.final[0] == x).all() and run.dynamics is SGD and run.names == ("x", "x**2")
    assert run.at("x**2").value == pytest.approx((x**2).mean(), rel=1e-12)
    half = stats.t.isf(0.1, 49) * (x**2).std(ddof=1) / math.sqrt(50)
    assert run.at("x**2").half_width == pytest.approx(half, rel=1e-12)
    assert run.times.tolist() == [0.25 * k for k in range(7)] and run.steps.tolist() == list(range(7))


@pytest.mark.parametrize("coupled", [True, False])
def test_a_gap_agrees_with_its_draws(coupled):
    """Gap and standard error from the last points."""
    x, z = draws_of((SGDM, SGD), 50, 3, Stream(2), coupled=coupled)[0]
    gap = st.weak_gap(
        SGDM, SGD, [2.0], 1.5, 50, ["x", "x**2"],
        seed=3, stream=2, keep_final=True, confidence=0.8, coupled=coupled, control=False, times=[0.5, 1.5], **ON_NUMPY,
    )  # fmt: skip
    assert (gap.final == [x, z]).all() and (gap.first, gap.second) == (SGDM, SGD) and gap.names == ("x", "x**2")
    d = x**2 - z**2
    assert gap.at("x**2").value == pytest.approx(d.mean(), rel=1e-12)
    assert gap.at("x**2").stderr == pytest.approx(d.std(ddof=1) / math.sqrt(50), rel=1e-10)
    assert gap.at("x**2").half_width == pytest.approx(stats.t.isf(0.1, 49) * gap.at("x**2").stderr, rel=1e-9)
    assert (gap.times.tolist(), gap.steps.tolist()) == ([0.5, 1.5], [2, 6])
    assert (gap.coupled, gap.controlled, gap.at().fitted) == (coupled, False, 1)
    controlled = st.weak_gap(SGDM, SGD, [2.0], 1.5, 50, ["x"], coupled=coupled, **ON_NUMPY)
    assert controlled.controlled == coupled and controlled.at().fitted == 1 + coupled


@pytest.mark.parametrize("run", [st.simulate, st.weak_gap])
def test_a_store_belongs_to_one_seed_stream_and_number_of_paths(run, tmp_path):
    """A run with seed and stream exchanged is another run; the same run is resumed bitwise."""
    members = (SGDM, SGD) if run is st.weak_gap else (SGD,)

    def value(seed=1, stream=2, paths=50):
        how = {"seed": seed, "stream": stream, "store": tmp_path / "run.db", "resume": True}
        return run(*members, [2.0], 1.5, paths, ["x"], **how, **ON_NUMPY).at().value

    found = value()
    for other in ({"seed": 2}, {"stream": 1}, {"seed": 2, "stream": 1}, {"paths": 51}):
        with pytest.raises(ValueError, match="belongs to"):
            value(**other)
    assert value() == found


def test_columns_by_name_and_by_index():
    """Of observables and functionals."""
    names = ("a", "b", "c")
    assert [column(names, o) for o in ("a", "c", 1, -1, -3)] == [0, 2, 1, 2, 0]
    for wrong in ("d", 3, -4):
        with pytest.raises(ValueError, match="`observable` must be"):
            column(names, wrong)


def test_moments_by_time():
    """Recorded times up to rounding; the last by default."""
    times = np.array([0.0, 0.5, 2.0])
    assert [moment(times, t) for t in (None, 0.0, 0.5, 2.0, 2.0 * (1 + 9e-10), 0.0 + 9e-10)] == [2, 0, 1, 2, 2, 0]
    for wrong in (2.0 * (1 + 2e-9), 0.25, 0.51):
        with pytest.raises(ValueError, match="`time` must be a recorded time"):
            moment(times, wrong)


# -- precision -----------------------------------------------------------------------------------------------------------------------


def paths_of(members, observe, precision, confidence, ranges, coupled=True, **more):
    """Return the number of paths for a precision, and the largest solution n of q s / sqrt(n) + R l / n = precision over the columns."""
    run = st.weak_gap if len(members) == 2 else st.simulate
    how = {"coupled": coupled, "control": False} if len(members) == 2 else {}
    found = run(
        *members, [2.0], 1.5, precision=precision, observe=observe, confidence=confidence,
        times=[1.5], seed=3, stream=2, **how, **ON_NUMPY, **more,
    )  # fmt: skip
    points, program = draws_of(members, PILOT, 3, Stream(2, pilot=True), observe, coupled, times=[1.5])
    values = [[np.asarray(h.value(x[None])) for x in points] for h in program.observables]
    n = 2.0
    for own, width in zip(values, ranges, strict=True):
        s = np.std(own[0] - (own[1] if len(own) == 2 else 0.0), ddof=1)
        terms = [precision, -stats.norm.isf((1 - confidence) / 2) * s, -width * math.log(2 / (1 - confidence))]
        n = max(n, np.roots(terms).real.max() ** 2)
    return found.paths, math.ceil(n)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(
    ("observe", "ranges", "precision"),
    [
        (["x"], [0.0], 0.03),
        (["x**2"], [0.0], 0.03),  # bounded on one side only: the interval uses no bound
        (["2*cos(x) + 3"], [4.0], 0.05),
        (["x", "cos(x)"], [0.0, 2.0], 0.05),
        (["x", "cos(x)/100"], [0.0, 0.02], 0.05),
    ],
)
def test_the_number_of_paths_for_a_precision(observe, ranges, precision, confidence):
    """Against the formula, with bounded and unbounded observables."""
    taken, wanted = paths_of((SGD,), observe, precision, confidence, ranges)
    assert taken == wanted


@pytest.mark.parametrize(("coupled", "second", "width"), [(True, "x**2", 0.0), (False, "cos(x)", 4.0)])
def test_the_number_of_paths_for_the_precision_of_a_gap(coupled, second, width):
    """The range of a difference is twice as wide; it enters for independent members."""
    taken, wanted = paths_of((SGDM, SGD), ["x", second], 0.01, 0.95, [0.0, width], coupled)
    assert taken == wanted


def test_deterministic_values_take_two_paths():
    """Whatever their bounds."""
    quiet = st.SGD(oracle(st.noise.none(dim=1)), PLAN.averaged())
    assert st.simulate(quiet, [2.0], 1.5, precision=1e-3, observe=["cos(x)"], **ON_NUMPY).paths == 2


def test_the_time_for_a_precision_is_predicted(monkeypatch, capsys):
    """In proportion to the pilot, which takes 2.5 seconds on this clock."""
    monkeypatch.setattr(time, "perf_counter", itertools.count(10.0, 2.5).__next__)
    taken, _ = paths_of((SGD,), ["x"], 0.01, 0.95, [0.0], progress=True)
    assert f"{taken:,} paths for a half-width of 0.01: about {2.5 * taken / PILOT:.3g} s\n" in capsys.readouterr().err


def test_unknown_variances_are_refused_by_name():
    """The first time and observable without a known variance; a bound on one side does not help."""
    hidden = {"x": "x", "far": "max(0, x - 9)"}
    with pytest.raises(ValueError, match=rf"of its {PILOT:,} paths none differs from another in far at step 4\. State"):
        st.simulate(SGD, [2.0], 1.5, precision=0.1, observe=hidden, times=[1.0, 1.5], **ON_NUMPY)
