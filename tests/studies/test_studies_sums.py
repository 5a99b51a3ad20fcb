"""From accumulated moments of groups to means, gaps, standard errors and Estimates, against NumPy on the values of all paths."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from sdetools.estimates.band import multiplier_maxima
from sdetools.results.protocol import BY_HAND
from sdetools.simulation.engine import Sums
from sdetools.simulation.records import PAIR, SINGLE
from sdetools.studies.gap import WeakGap
from sdetools.studies.means import Simulation
from sdetools.studies.statistics import PairStatistics, SingleStatistics

RNG = np.random.default_rng(11)
COUNTS = (5, 3, 0, 4)
TIMES, STEPS = np.array([0.25, 1.5]), np.array([2, 12])
NAMES = ("one", "two", "three")
RANDOM = np.array([[True, True, True], [True, False, True]])
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)


def values_of(paths):
    """Return h(x), h(z) and a control variate with a mean, which is constant at the first record of the second observable."""
    x = RNG.standard_normal((paths, 2, 3)) * [1.0, 3.0, 0.2] + [[2.0, -1.0, 0.5], [1.0, 4.0, -3.0]]
    c = RNG.standard_normal((paths, 2, 3)) + 0.3
    c[:, 0, 1] = 0.0
    z = x - 0.7 - 0.4 * c + 0.5 * RNG.standard_normal((paths, 2, 3))
    return {"x": x, "z": z, "d": x - z, "c": c}


def sums_of(names, values, counts, diverged=(0,), first=(-1,)):
    """Return the accumulated moments of groups; empty groups contain arbitrary numbers."""
    groups = np.full((len(counts), *values[names[0]].shape[1:], len(names)), 7.0)
    for g, (end, n) in enumerate(zip(np.cumsum(counts), counts, strict=True)):
        own = {m: v[end - n : end] for m, v in values.items()}
        for s, name in enumerate(names if n else ()):
            a, b = (name[0] * 2 if name.endswith("2") else name)[0], name.replace("2", name[0])[-1]
            apart = [own[m] - own[m].mean(axis=0) for m in (a, b)]
            groups[g, ..., s] = own[name].mean(axis=0) if name in own else (apart[0] * apart[1]).sum(axis=0)
    return Sums(groups, np.array(counts), np.array(diverged), np.array(first), None)


VALUES = values_of(12)
SUMS = sums_of(PAIR.names, VALUES, COUNTS, diverged=(2, 3), first=(-1, 7))
PAIRED = PairStatistics(SUMS)
SINGLES = SingleStatistics(sums_of(SINGLE.names, {"h": VALUES["x"]}, COUNTS, diverged=(4,), first=(5,)))


def regression(values, t, o):
    """Return intercept, slope, residuals and their variance of regressing d on the control variate, a fitted parameter if it varies."""
    d, c = values["d"][:, t, o], values["c"][:, t, o]
    design = np.column_stack([np.ones(len(d)), c])
    fit = np.linalg.lstsq(design, d, rcond=None)[0]
    left = d - design @ fit
    return fit[0], fit[1], left, left @ left / (len(d) - (2 if c.any() else 1))


CELLS = [(t, o) for t in range(2) for o in range(3)]


def test_means_variances_and_errors_of_one_dynamics():
    """Against NumPy on all paths."""
    h = VALUES["x"]
    close(SINGLES.mean, h.mean(axis=0))
    close(SINGLES.variance, h.var(axis=0, ddof=1))
    close(SINGLES.stderr, h.std(axis=0, ddof=1) / np.sqrt(12))


def test_means_and_variances_of_both_members():
    """Against NumPy on all paths."""
    for which in "xz":
        mean, variance = PAIRED.member(which)
        close(mean, VALUES[which].mean(axis=0))
        close(variance, VALUES[which].var(axis=0, ddof=1))


@pytest.mark.parametrize(("t", "o"), CELLS)
def test_the_gap_is_the_intercept_of_a_regression_on_the_control(t, o):
    """Gap, slope, variance and residuals against least squares."""
    gap, slope, left, variance = regression(VALUES, t, o)
    close(PAIRED.slope[t, o], slope)
    close(PAIRED.gap[t, o], gap)
    close(PAIRED.variance[t, o], variance)
    close(PAIRED.stderr[t, o], np.sqrt(variance / 12))
    close(PAIRED.residuals(o)[:, t], [left[:5].sum(), left[5:8].sum(), left[8:].sum()])
    independent = VALUES["x"][:, t, o].var(ddof=1) + VALUES["z"][:, t, o].var(ddof=1)
    close([r[t, o] for r in PAIRED.reductions], [independent / VALUES["d"][:, t, o].var(ddof=1), independent / variance])


def test_a_regression_takes_two_degrees_of_freedom():
    """One path has no variance; two are collinear with the control variate; three have one degree of freedom."""
    for paths in (1, 2, 3):
        values = values_of(paths)
        found = PairStatistics(sums_of(PAIR.names, values, (paths,))).variance
        assert np.isfinite(found[1]).all() == (paths == 3)
        assert np.isfinite(found[0, 1]) == (paths > 1)
    close(found[1, 2], regression(values, 1, 2)[3])
    assert np.isnan(SingleStatistics(sums_of(SINGLE.names, {"h": values["x"][:1]}, (1,))).stderr).all()


def test_a_vanishing_residual_variance_has_a_floor_of_1e14():
    """Dyadic numbers, without rounding: d = 3 C + 2 has no residual; a constant difference has no variance."""
    c = np.array([-3.0, 1.0, 0.5, 4.0, -2.5]).reshape(5, 1, 1)
    for slope, left in ((3.0, 1e-14 * 9.0 * c.var(ddof=1)), (0.0, 0.0)):
        d = slope * c + 2.0
        found = PairStatistics(sums_of(PAIR.names, {"x": d, "z": 0 * d, "d": d, "c": c}, (1, 4)))
        assert found.variance.item() == pytest.approx(left, rel=1e-12, abs=0)
        assert found.gap.item() == 2.0


# -- results ------------------------------------------------------------------------------------------------------


def known_of(stderr):
    """Return properties of values that identify their place."""
    places = np.arange(6.0).reshape(2, 3)

    def along(o):
        at = places[:, o]
        return {"random": RANDOM[:, o], "rounding": 1e-9 * (1 + at), "least": -10 - at, "most": 20 + at}

    return SimpleNamespace(stderr=stderr, along=along, of=lambda t, o: {n: v[t].item() for n, v in along(o).items()})


def gap_of(controlled=True, statistics=PAIRED):
    """Return a gap of given statistics."""
    known = known_of(np.where(RANDOM, statistics.stderr, 0.0))
    members = SimpleNamespace(name="first", step_time=0.5), SimpleNamespace(name="second", step_time=0.5)
    return WeakGap(*members, TIMES, STEPS, NAMES, statistics, True, controlled, 0.9, known)


@pytest.mark.parametrize("controlled", [True, False])
@pytest.mark.parametrize(("t", "o"), CELLS)
def test_the_estimate_of_a_gap(t, o, controlled):
    """Diverged paths count from the first divergence on, here at step 7, between two records."""
    e = gap_of(controlled).at(NAMES[o], TIMES[t])
    assert (e.value, e.stderr) == (PAIRED.gap[t, o], PAIRED.stderr[t, o] * RANDOM[t, o])
    assert (e.n, e.confidence, e.fitted) == (12, 0.9, 2 if controlled else 1)
    assert (e.diverged, e.first_divergence) == ((5, 7) if t == 1 else (0, -1))
    place = 3 * t + o
    assert (e.random, e.rounding, e.least, e.most) == (RANDOM[t, o], 1e-9 * (1 + place), -10 - place, 20 + place)
    assert e.name == f"gap of {NAMES[o]} at t={TIMES[t]:g}"
    assert repr(gap_of(controlled).at(o)) == repr(gap_of(controlled).at(NAMES[o], 1.5))  # the last time by default


@pytest.mark.parametrize("controlled", [True, False])
@pytest.mark.parametrize("o", range(3))
def test_the_estimate_of_a_supremum(o, controlled):
    """Value, curve, errors, place and time of the maximum."""
    gap = gap_of(controlled)
    sup, curve = gap.sup(NAMES[o]), PAIRED.gap[:, o]
    farthest = int(np.argmax(np.abs(curve)))
    assert (sup.value, sup.argmax, sup.time) == (abs(curve[farthest]), farthest, TIMES[farthest])
    assert sup.stderr == PAIRED.stderr[farthest, o] * RANDOM[farthest, o]
    assert (sup.n, sup.confidence, sup.fitted) == (12, 0.9, 2 if controlled else 1)
    assert (sup.diverged, sup.first_divergence, sup.random) == (5, 7, True)
    assert sup.rounding == 1e-9 * (1 + 3 * farthest + o)
    close(sup.curve, curve)
    close(sup.errors, PAIRED.stderr[:, o] * RANDOM[:, o])
    assert not sup.draws.size  # three groups do not determine correlations
    assert gap.sup(NAMES[o]) is sup and sup.points.keys() == known_of(0).along(o).keys()
    for ours, theirs in zip(gap.band(o, 0.8), sup.band(0.8), strict=True):
        close(ours, theirs)


def test_the_band_of_four_groups_uses_the_bootstrap():
    """Residuals at times without an error are ignored."""
    statistics = PairStatistics(sums_of(PAIR.names, values_of(24), (5, 4, 9, 6)))
    for o in range(3):
        close(gap_of(statistics=statistics).sup(o).draws, np.sort(multiplier_maxima(statistics.residuals(o) * RANDOM[:, o])))


def test_variance_reductions_of_a_pair():
    """By name and by index, at a given time and at the last."""
    gap = gap_of()
    for t, o in CELLS:
        assert gap.variance_reduction(o, TIMES[t]) == tuple(r[t, o] for r in PAIRED.reductions)
    assert gap.variance_reduction("two") == tuple(r[1, 1] for r in PAIRED.reductions)


def test_the_dataset_of_a_gap():
    """Its variables agree with NumPy and with the statistics."""
    data = gap_of().data
    for name, which in (("first", "x"), ("second", "z")):
        close(data[f"{name}_mean"], VALUES[which].mean(axis=0))
        close(data[f"{name}_stderr"], VALUES[which].std(axis=0, ddof=1) / np.sqrt(12))
    for name, wanted in {
        "gap": PAIRED.gap, "mean": PAIRED.gap, "stderr": PAIRED.stderr,
        "reduction_coupled": PAIRED.reductions[0], "reduction": PAIRED.reductions[1],
    }.items():  # fmt: skip
        close(data[name], wanted)
    close(data["time"], TIMES)
    close(data["step"], STEPS)
    assert data.attrs == {"paths": 12, "diverged": 5, "first_divergence": 7} | BY_HAND.attributes


def test_the_first_divergence_of_a_pair_is_the_earlier_one():
    """-1 is ignored."""
    for first, earliest in (((-1, -1), -1), ((9, 4), 4), ((3, -1), 3), ((0, 2), 0)):
        found = gap_of(statistics=PairStatistics(sums_of(PAIR.names, VALUES, COUNTS, diverged=(1, 1), first=first)))
        assert type(found.first_divergence) is int and found.first_divergence == earliest


@pytest.mark.parametrize(("t", "o"), CELLS)
def test_the_estimate_of_a_mean(t, o):
    """Diverged paths count from the first divergence on."""
    run = Simulation(SimpleNamespace(name="one"), TIMES, STEPS, NAMES, SINGLES, 0.9, known_of(2 * SINGLES.stderr))
    e, place = run.at(NAMES[o], TIMES[t]), 3 * t + o
    assert (e.value, e.stderr, e.n, e.confidence, e.fitted) == (SINGLES.mean[t, o], 2 * SINGLES.stderr[t, o], 12, 0.9, 1)
    assert (e.diverged, e.first_divergence) == ((4, 5) if t == 1 else (0, -1))
    assert (e.random, e.rounding, e.least, e.most) == (RANDOM[t, o], 1e-9 * (1 + place), -10 - place, 20 + place)
    assert repr(run.at(o)) == repr(run.at(NAMES[o], 1.5)) and run.at(o - 3) == run.at(o)
    close(run.data["variance"], VALUES["x"].var(axis=0, ddof=1))
    close(run.data["mean"], SINGLES.mean)
    close(run.data["stderr"], SINGLES.stderr)
    assert run.data.attrs == {"paths": 12, "diverged": 4, "first_divergence": 5} | BY_HAND.attributes
