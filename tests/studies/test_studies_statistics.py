"""Coverage of intervals, bands and orders; few paths; unresolved points; predictions of the number of paths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import sdetools as st
from sdetools.estimates import Estimate, SupEstimate
from sdetools.estimates.band import multiplier_maxima
from sdetools.estimates.interval import quantile

OBSERVE = ["x**2", "x"]
LOSS = st.losses.from_expression("x**2/2")
ETA = 2.0**-4


def pair_of(eta=ETA, beta=0.5):
    """Return SGDM and SGD on a quadratic loss."""
    oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=eta**-0.5)
    plan = st.schedules.constant(eta, beta)
    return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())


def gap_of(paths, seed, **more):
    """Return the gap of that pair."""
    return st.weak_gap(*pair_of(), [1.0], 1.0, paths, OBSERVE, seed=seed, threads=1, **({"times": "all"} | more))


def exact(h):
    """Return exact gaps."""
    return st.exact.gap(*pair_of(), [1.0], 16, h)


def coverages(repetitions, paths):
    """Return how often the last interval, the band and the interval of the supremum contain the exact values, for x^2."""
    truth, hits = exact("x**2"), np.zeros(3, int)
    for seed in range(repetitions):
        gap = gap_of(paths, seed)
        sup = gap.sup("x**2")
        low, high = sup.band(0.95)
        e = gap.at("x**2")
        hits += [
            e.low <= truth[-1] <= e.high,
            bool(((low <= truth) & (truth <= high)).all()),
            sup.low <= np.abs(truth).max() <= sup.high,
        ]
    return hits


def bounds(repetitions, level, alarm):
    """Return counts between which a true coverage of `level` lies with probability 1 - alarm."""
    return stats.binom.ppf(alarm / 2, repetitions, level), stats.binom.isf(alarm / 2, repetitions, level)


@pytest.mark.slow
def test_intervals_cover():
    """400 repetitions of 5,120 paths: interval and band within binomial bounds (false alarm 1e-4 each), the supremum above the lower one."""
    single, band, sup = coverages(400, 5120)
    low, high = bounds(400, 0.95, 1e-4)
    assert low <= single <= high and low <= band <= high
    assert sup >= low


def test_bonferroni_bands_are_too_wide_for_a_smooth_curve():
    """Negative control of the upper bound for the band: a smooth curve at 64 times needs about 2.6 standard errors, not 3.4.

    4,000 Gaussian curves with correlation 0.99 between neighbours: the band's critical value covers 93 to 97 % of them with 20 and with 80 groups
    (20 groups determine it to 1 %), Bonferroni's more than 99 %.
    """
    rng = np.random.default_rng(3)

    def curves(n):
        out = rng.standard_normal((n, 64))
        for k in range(1, 64):
            out[:, k] = 0.99 * out[:, k - 1] + math.sqrt(1 - 0.99**2) * out[:, k]
        return out

    farthest = np.abs(curves(4000)).max(axis=1)
    for groups in (8, 20, 80):
        found = []
        for _ in range(20):
            r = curves(groups)
            sup = SupEstimate(
                1.0, 1.0, 10**6, curve=np.zeros(64), errors=np.ones(64), draws=multiplier_maxima(r - r.mean(axis=0))
            )
            found.append(np.mean(farthest <= sup.critical(0.95)))
        assert 0.93 <= np.mean(found) <= 0.97
    assert np.mean(farthest <= quantile(0.95, 10**6, 64)) > 0.99


@pytest.mark.slow
def test_intervals_cover_in_a_thousand_repetitions():
    """93 to 97 % for the interval and the band (0.4 % false alarm each), at least 93 % for the supremum (0.2 %)."""
    single, band, sup = coverages(1000, 5120)
    print(f"coverage of 1000: interval {single}, band {band}, supremum {sup}")
    assert 930 <= single <= 970 and 930 <= band <= 970 and sup >= 930


def test_intervals_half_as_wide_do_not_cover():
    """Negative control: half the width covers 67 %, so at most 160 of 200 (false alarm 1e-4)."""
    truth, hits = exact("x**2")[-1], 0
    for seed in range(200):
        e = gap_of(5120, seed, times=[1.0]).at("x**2")
        hits += abs(e.value - truth) < e.half_width / 2
    assert hits < 165 < bounds(200, 0.95, 1e-4)[0]


def test_pointwise_intervals_do_not_cover_the_curve():
    """Negative control of the band: pointwise intervals rarely contain the whole curve."""
    truth, hits = exact("x**2"), 0
    for seed in range(200):
        gap = gap_of(5120, seed)
        half = 1.96 * gap.statistics.stderr[:, 0]
        hits += bool((np.abs(gap.statistics.gap[:, 0] - truth) <= half + 1e-15).all())
    assert hits < bounds(200, 0.95, 1e-4)[0]


@pytest.mark.slow
@pytest.mark.parametrize("paths", [3, 5, 10, 30])
def test_few_paths_still_cover(paths):
    """3,000 repetitions: at least 95 % minus 4.5 binomial errors of 400 repetitions.

    The regression on the control variate costs a degree of freedom. Few residuals are not exactly normal, so that intervals of so few paths are
    slightly too short.
    """
    truth = exact("x")[-1]
    hits = sum((e := gap_of(paths, seed, times=[1.0]).at("x")).low <= truth <= e.high for seed in range(3000))
    assert hits / 3000 >= 0.95 - 4.5 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize("paths", [1, 2])
def test_one_or_two_paths_have_infinite_intervals(paths):
    """One path has no variance, two paths and the control variate are collinear: the interval is infinite, and no value is exact."""
    for e in (gap_of(paths, 0).at("x"), gap_of(paths, 0).sup("x"), gap_of(paths, 0, coupled=False).at("x")):
        if paths == 2 and "sup" not in e.name and e.stderr > 1e-3:
            continue  # two independent paths have a variance
        assert not e.resolved and e.high == math.inf
        assert "exact" not in repr(e)


def test_a_small_variance_is_not_exact():
    """E x = 0.316 with standard deviation 4e-7: small, but not exact. Sums of squares resolve about 1e-8 of the value."""
    oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=1e-6)
    run = st.simulate(st.SGD(oracle, st.schedules.constant(0.25)), [1.0], 1.0, 2000, OBSERVE, threads=1)
    e, m = run.at("x"), st.exact.moments(st.SGD(oracle, st.schedules.constant(0.25)), [1.0], 4)
    assert e.stderr == pytest.approx(math.sqrt(m.covariance[-1, 0, 0] / 2000), rel=0.2)
    assert abs(e.value - m.mean[-1, 0]) < 4.5 * e.stderr


# -- examples of estimates ---------------------------------------------------------------------------------------------------------


def test_interval_of_an_example():
    """Normal and Student's quantiles, exact and NaN values, and the number of paths."""
    e = Estimate(2.0, 0.5, 10**6)
    assert tuple(e.confidence_interval(0.95)) == pytest.approx((2 - 0.5 * 1.959964, 2 + 0.5 * 1.959964), rel=1e-6)
    assert tuple(Estimate(2.0, 0.5, 5).confidence_interval(0.95)) == pytest.approx(
        (2 - 0.5 * 2.776445, 2 + 0.5 * 2.776445), rel=1e-6
    )
    assert tuple(Estimate.exact(3.0).confidence_interval(0.5)) == (3.0, 3.0)
    assert tuple(Estimate(math.nan, math.nan, 5).confidence_interval(0.5)) == (-math.inf, math.inf)
    assert quantile(0.95, 10**6, tests=10) == pytest.approx(stats.norm.isf(0.0025), rel=1e-9)
    assert e.paths_for(0.05) == 10**8 and e.resolved and not Estimate(1.9, 0.5, 5).resolved


def test_supremum_of_an_example_band():
    """Critical value, band and interval of a curve of three times."""
    curve, errors = np.array([1.0, -2.0, 0.5]), np.array([0.1, 0.2, 1.0])
    sup = SupEstimate(2.0, 0.2, 10**6, curve=curve, errors=errors, draws=np.linspace(0, 2, 4001), argmax=1)
    c = sup.critical(0.95)
    assert c == pytest.approx(1.9)
    low, high = sup.band(0.95)
    np.testing.assert_allclose(low, curve - 1.9 * errors)
    np.testing.assert_allclose(high, curve + 1.9 * errors)
    assert tuple(sup.confidence_interval(0.95)) == pytest.approx((2.0 - 0.38, max(2.38, 0.5 + 1.9)))
    assert sup.critical(0.9999) == pytest.approx(quantile(0.9999, 10**6, 3))  # beyond the draws: Bonferroni


def test_the_bootstrap_reflects_correlations():
    """One column repeated: the quantile of one normal. Independent columns: that of their maximum, to 5 %."""
    rng = np.random.default_rng(0)
    one = rng.standard_normal((256, 1))
    same = np.quantile(multiplier_maxima(np.repeat(one, 50, axis=1)), 0.95)
    many = np.quantile(multiplier_maxima(rng.standard_normal((256, 50))), 0.95)
    assert same == pytest.approx(1.96, rel=0.05)
    assert many == pytest.approx(stats.norm.isf((1 - 0.95 ** (1 / 50)) / 2), rel=0.05)


# -- unresolved points --------------------------------------------------------------------------------------


def test_too_few_paths_are_unresolved():
    """The gap is unresolved, and the number of paths that would resolve it is unknown unless its size is given."""
    gap = st.weak_gap(*pair_of(2.0**-8, 0.9), [1.0], 1.0, 50, OBSERVE, times=[1.0], threads=1, control=False)
    sup = gap.sup("x**2")
    assert not sup.resolved and not gap.at("x**2").resolved
    with pytest.raises(ValueError, match="`expected` must be given, for the gap is unresolved"):
        sup.paths_needed()


@pytest.mark.parametrize("pilot", [300, 3000])
def test_paths_needed_reduces_the_error_to_a_quarter_of_the_gap(pilot):
    """Within 10 %: the residual of x is Gaussian, so that 300 paths estimate its standard deviation to 4 %, 3000 to 1.3 %."""
    truth = 0.0015
    needed = gap_of(pilot, 5, times=[1.0]).sup("x").paths_needed(expected=truth)
    again = gap_of(needed, 6, times=[1.0]).sup("x")
    assert again.stderr == pytest.approx(truth / 4, rel=0.1)
    assert gap_of(needed // 2, 6, times=[1.0]).sup("x").stderr > truth / 4 * 1.2  # negative control


def study_of(paths, **more):
    """Return a study of four learning rates at time 0.5."""
    return st.order_study(
        pair_of, [2.0**-3, 2.0**-4, 2.0**-5, 2.0**-6], [1.0], 0.5, paths, OBSERVE, threads=1, times=[0.5], **more
    )


def exact_at_half(eta, h):
    """Return the absolute exact gap at time 0.5."""
    k = round(0.5 / eta)
    return abs(st.exact.gap(*pair_of(eta), [1.0], k, h, record=[k])[0])


def test_a_study_predicts_paths_for_unresolved_points():
    """The smallest eta has too few paths; the fit through the other points predicts how many reduce its error to a quarter of the gap."""
    paths = {2.0**-3: 20_000, 2.0**-4: 20_000, 2.0**-5: 40_000, 2.0**-6: 60}
    study = study_of(paths.__getitem__, control=False)
    points = study.estimates("x")
    assert [p.resolved for p in points] == [True, True, True, False]
    assert len(study.order("x").etas) == 3  # it does not enter the fit
    assert "unresolved" in study.table()
    needed = int(study.paths_needed("x")[-1])
    truth = exact_at_half(2.0**-6, "x")
    again = st.weak_gap(*pair_of(2.0**-6), [1.0], 0.5, needed, OBSERVE, times=[0.5], control=False, threads=1)
    # 60 paths estimate their standard error to 9 %, and the fit the gap to a few per cent: twice both
    assert again.sup("x").stderr == pytest.approx(truth / 4, rel=0.25)
    assert again.sup("x").paths_needed(expected=truth) == pytest.approx(needed, rel=0.5)


def test_a_study_predicts_paths_from_expected_gaps():
    """Expected gaps are used for unresolved points."""
    study = study_of(60, control=False, expected={"x": lambda eta: eta})
    needed = study.paths_needed("x")
    for eta, point, n in zip(study.etas, study.estimates("x"), needed, strict=True):
        size = abs(point.value) if point.resolved else eta
        assert n == math.ceil(60 * (point.stderr / (size / 4)) ** 2)
    for point, n in zip(study.estimates("x**2"), study.paths_needed("x**2"), strict=True):
        assert point.resolved or n == 0 or len(study.order("x**2").etas) >= 2


def test_the_order_agrees_with_exact_gaps():
    """The fitted slope agrees with the same fit on exact gaps: |z| < 4.5; for x, 0.1 more is beyond 10."""
    study = study_of(40_000)
    for h in OBSERVE:
        truth = [exact_at_half(e, h) for e in study.etas]
        order = study.order(h)
        assert order.etas.tolist() == study.etas.tolist()
        slope = order.fit(truth)
        assert abs(order.value - slope) < 4.5 * order.stderr
        assert h != "x" or abs(order.value - slope - 0.1) > 10 * order.stderr  # negative control
        for local, a, b in zip(order.local, truth[:-1], truth[1:], strict=True):
            assert abs(local.value - math.log2(a / b)) < 4.5 * local.stderr


@pytest.mark.slow
def test_intervals_of_an_order_cover():
    """100 repetitions: at least 95 % less 4.5 binomial errors, 85."""
    truth, hits = [exact_at_half(e, "x") for e in (2.0**-3, 2.0**-4)], 0
    for seed in range(100):
        study = st.order_study(pair_of, [2.0**-3, 2.0**-4], [1.0], 0.5, 2000, OBSERVE, threads=1, times=[0.5], seed=seed)
        order = study.order("x")
        hits += order.low <= order.fit(truth) <= order.high
    assert hits >= 85


def test_a_study_of_equal_dynamics_has_no_order():
    """Gaps of exactly 0 do not enter the fit, and cause no warning or infinity."""
    study = st.order_study(lambda eta: (pair_of(eta)[1],) * 2, [0.5, 0.25], [1.0], 1.0, 500, OBSERVE, threads=1)
    order = study.order("x")
    assert math.isnan(order.value) and tuple(order.confidence_interval(0.95)) == (-math.inf, math.inf)


# -- precision ------------------------------------------------------------------------------------------------------------------


def test_precision_is_met():
    """100 runs to a half-width of 0.01: at least 95 within 10 % of it, and none above by more."""
    asked, met = 0.01, 0
    oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=1.0)
    sgd = st.SGD(oracle, st.schedules.constant(0.5))
    for seed in range(100):
        run = st.simulate(sgd, [1.0], 1.0, precision=asked, observe=["x"], times=[1.0], seed=seed, threads=1)
        met += abs(run.at("x").half_width - asked) <= 0.1 * asked
    assert met >= 95
    assert abs(st.simulate(sgd, [1.0], 1.0, run.paths // 2, ["x"], times=[1.0]).at("x").half_width - asked) > 0.1 * asked


def test_precision_holds_for_every_recorded_gap():
    """The largest half-width determines the number of paths."""
    gap = st.weak_gap(*pair_of(), [1.0], 1.0, precision=0.002, observe=OBSERVE, threads=1)
    halves = [e.half_width for h in OBSERVE for t in gap.times if (e := gap.at(h, float(t))).stderr > 0]
    assert max(halves) == pytest.approx(0.002, rel=0.1)
