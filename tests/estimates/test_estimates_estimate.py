"""Intervals, bands and critical values: every branch agrees with a formula in SciPy's distributions.

The only random numbers are Gaussian multipliers of a given seed, which enter the formulas as given numbers.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from sdetools.estimates import Estimate, SupEstimate
from sdetools.estimates.band import MANY_GROUPS, _markov_noise, multiplier_maxima, multiplier_noise
from sdetools.estimates.estimate import skewness_of_mean
from sdetools.estimates.interval import binomial_interval, quantile, undetected_probability
from sdetools.results.protocol import estimates_table

close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
LINE = (-math.inf, math.inf)


@pytest.mark.parametrize("tests", [1, 3])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_critical_values(confidence, tests):
    """Quantiles of Student's t and of the normal law with Bonferroni's correction, and the probability that n paths may miss."""
    tail = (1 - confidence) / 2 / tests
    for n in (2, 7, 2000):
        close(quantile(confidence, n, tests), stats.t.isf(tail, n - 1))
    close(quantile(confidence, 2001, tests), stats.norm.isf(tail))
    close(quantile(confidence, 1, tests), stats.t.isf(tail, 1))  # one path: one degree of freedom as well
    close(undetected_probability(confidence, 50, tests), -math.log(tail) / 50)
    close(undetected_probability(confidence, 0, tests), -math.log(tail))


@pytest.mark.parametrize("hits", [0, 1, 4, 8, 9])
def test_clopper_pearson_ends_are_beta_quantiles(hits):
    """Both ends are quantiles of beta laws."""
    low = stats.beta.ppf(0.05, hits, 10 - hits) if hits else 0.0
    high = stats.beta.ppf(0.95, hits + 1, 9 - hits) if hits < 9 else 1.0
    close(tuple(binomial_interval(hits, 9, 0.9)), (low, high))


# -- one value ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fitted", [1, 2])
@pytest.mark.parametrize("n", [5, 10**4])
def test_an_interval_without_bounds(n, fitted):
    """Student's t with n - fitted degrees of freedom, plus the rounding error."""
    half = 0.01 + 0.5 * (stats.t.isf(0.05, n - fitted) if n < 2000 else stats.norm.isf(0.05))
    e = Estimate(3.0, 0.5, n, 0.9, fitted=fitted, rounding=0.01)
    close(tuple(e.confidence_interval(0.9)), (3 - half, 3 + half))
    close((e.low, e.high, e.half_width), (3 - half, 3 + half, half))


@pytest.mark.parametrize("stderr", [0.0, 0.2])
def test_an_interval_with_bounds(stderr):
    """Events that n paths may have missed extend the interval towards each bound, but not beyond it."""
    e = Estimate(3.0, stderr, 40, least=-2.0, most=4.5, rounding=0.01)
    half, missed = 0.01 + stderr * stats.t.isf(0.025, 39), math.log(40) / 40
    close(tuple(e.confidence_interval(0.95)), (3 - half - missed * 5, 3 + half + missed * 1.5))
    wide = Estimate(3.0, 5.0, 40, least=-2.0, most=4.5, rounding=0.01)
    close(tuple(wide.confidence_interval(0.95)), (-2.01, 4.51))
    close(
        tuple(Estimate(-2.5, 5.0, 40, least=-2.0, most=4.5).confidence_interval(0.95)), (-2.5, 4.5)
    )  # the interval contains the value
    close(tuple(Estimate(5.0, 5.0, 40, least=-2.0, most=4.5).confidence_interval(0.95)), (-2.0, 5.0))


def test_the_undetected_probability_is_capped_at_one():
    """log(40) / 2 exceeds 1. A value below its bound by rounding has an interval that ends at the bounds, not beyond."""
    assert tuple(Estimate(-0.25, 0.0, 2, least=0.0, most=1.0).confidence_interval(0.95)) == (0.0, 1.0)
    low, high = SupEstimate(0.0, 0.0, 2, curve=np.array([-0.25, 1.25]), errors=np.zeros(2), least=0.0, most=1.0).band(0.95)
    assert (low.tolist(), high.tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_an_interval_of_two_values():
    """Clopper and Pearson's interval of the share of the larger value, rescaled; values outside by rounding count as the nearer end."""
    for value, hits in ((1.0, 0), (2.5, 3), (6.0, 10), (0.99, 0), (6.01, 10)):
        e = Estimate(value, 0.3, 10, least=1.0, most=6.0, two_valued=True, rounding=0.01)
        low, high = binomial_interval(hits, 10, 0.9)
        close(tuple(e.confidence_interval(0.9)), (1 + 5 * low - 0.01, 1 + 5 * high + 0.01))
    unbounded = Estimate(2.0, 0.3, 10**4, two_valued=True)
    close(tuple(unbounded.confidence_interval(0.9)), (2 - 0.3 * stats.norm.isf(0.05), 2 + 0.3 * stats.norm.isf(0.05)))


def test_intervals_of_exact_and_of_unknown_values():
    """An exact value has its rounding error; a value of unknown error has an infinite interval."""
    assert tuple(Estimate(3.0, 0.0, 9, random=False, rounding=0.25).confidence_interval(0.9)) == (2.75, 3.25)
    for value, stderr, least in ((3.0, 0.0, -math.inf), (3.0, 0.0, 0.0), (math.nan, 1.0, 0.0), (3.0, math.nan, 0.0)):
        assert tuple(Estimate(value, stderr, 9, least=least).confidence_interval(0.9)) == LINE


def test_resolved_is_four_errors_and_the_rounding():
    """Dyadic numbers: at the boundary a value is resolved, slightly below it is not."""
    for sign in (1, -1):
        assert Estimate(sign * 1.5, 0.25, 9, rounding=0.5).resolved
        assert not Estimate(sign * 1.4999, 0.25, 9, rounding=0.5).resolved
    missed = math.log(40) / 100
    for most, resolved in ((1.0, True), (1.0 / missed - 0.9, True), (1.0 / missed + 1.1, False)):
        assert Estimate(1.0, 0.0, 100, least=1.0 - most, most=1.0).resolved == resolved  # 1 - L most above 0, up to L
        assert Estimate(-1.0, 0.0, 100, least=-1.0, most=most - 1.0).resolved == resolved
    assert not Estimate(math.nan, 0.1, 9).resolved


def test_paths_for_a_standard_error():
    """The number of paths is proportional to the squared ratio of standard errors, and an integer of at least 1."""
    assert Estimate(1.0, 0.5, 64).paths_for(0.125) == 1024
    assert Estimate(1.0, 0.5, 64).paths_for(0.3) == math.ceil(64 / 0.36)
    assert Estimate(1.0, 0.0, 64).paths_for(0.3) == 1 and type(Estimate(1.0, 0.0, 64).paths_for(0.3)) is int


def test_z_scores():
    """In units of the standard error; exact values agree or not; NaN for an unknown error."""
    close(Estimate(3.0, 0.4, 9).z(2.5), 1.25)
    exact = Estimate(3.0, 0.0, 9, random=False, rounding=1e-3)
    assert (exact.z(3.0009), exact.z(3.0011), Estimate.exact(3.0).z(3.0 + 1e-13)) == (0.0, math.inf, 0.0)
    assert math.isnan(Estimate(3.0, 0.0, 9).z(3.0))


# -- a curve --------------------------------------------------------------------------------------------------------------------------

CURVE, ERRORS = np.array([1.0, -2.5, 0.5, 0.0]), np.array([0.1, 0.2, 0.7, 0.0])


def curve_of(n=30, fitted=2, draws=(), **more):
    """Return a supremum over four times."""
    return SupEstimate(2.5, 0.2, n, 0.9, "", 0, -1, fitted, CURVE, ERRORS, np.array(draws), **more)


def test_a_bands_critical_value():
    """Bonferroni's value over the times with an error, unless at least ten draws exceed a smaller one."""
    bonferroni = stats.t.isf(0.05 / 3, 28)
    close(curve_of().critical(0.9), bonferroni)
    close(curve_of(fitted=1).critical(0.9), stats.t.isf(0.05 / 3, 29))
    close(SupEstimate(0.0, 0.0, 30, errors=np.zeros(4)).critical(0.9), stats.t.isf(0.05, 29))
    draws = np.arange(101) / 64
    close(curve_of(draws=draws).critical(0.9), 90 / 64)
    close(curve_of(draws=draws[:99]).critical(0.9), bonferroni)  # 9.9 draws exceed it
    close(curve_of(draws=4 * draws).critical(0.9), bonferroni)  # at most Bonferroni's value


def test_a_band_and_its_supremum():
    """Half-widths c s_k + r_k; with bounds, extended by what may have been missed at one of the random times, but not beyond the bounds."""
    c, missed = stats.t.isf(0.05 / 3, 28), math.log(2 * 3 / 0.1) / 30
    points = {
        "random": np.array([True, True, True, False]), "rounding": np.array([0.01, 0.02, 0.03, 0.04]),
        "least": np.array([-np.inf, -3.0, -0.2, -1.0]), "most": np.array([np.inf, 4.0, 0.9, 1.0]),
    }  # fmt: skip
    low, high = curve_of(points=points).band(0.9)
    halves = c * ERRORS + points["rounding"]
    below = np.array([halves[0], min(halves[1] + missed * 0.5, 0.5), 0.7, 0.04])
    above = np.array([halves[0], halves[1] + missed * 6.5, 0.4, 0.04])
    close(low, CURVE - below)
    close(high, CURVE + above)
    assert halves[1] + missed * 0.5 > 0.5  # one end lies at its bound, the other inside
    close(tuple(curve_of(points=points).confidence_interval(0.9)), (2.5 - above[1], 2.5 + below[1]))
    near = curve_of(n=10**4, points=points | {"least": np.full(4, -9.0), "most": np.full(4, 9.0)}).band()
    half = stats.norm.isf(0.05 / 3) * ERRORS + points["rounding"]
    missed = math.log(2 * 3 / 0.1) / 10**4
    close(near[0], CURVE - half - [*(missed * (CURVE + 9))[:3], 0.0])
    close(near[1], CURVE + half + [*(missed * (9 - CURVE))[:3], 0.0])


def test_the_lower_end_is_0_if_every_band_contains_0():
    """The interval of a supremum starts at 0 unless some band excludes 0."""
    wide = SupEstimate(1.0, 1.0, 10**4, curve=np.array([1.0, -0.5]), errors=np.ones(2))
    c = stats.norm.isf(0.0125)
    close(tuple(wide.confidence_interval(0.95)), (0.0, 1 + c))
    mixed = SupEstimate(1.0, 1.0, 10**4, curve=np.array([1.0, -5.0]), errors=np.array([1.0, 0.5]))
    close(tuple(mixed.confidence_interval(0.95)), (5 - 0.5 * c, 5 + 0.5 * c))


def test_a_curve_that_is_not_finite_has_an_infinite_interval():
    """NaN values, infinite errors, and errors of 0 at random times."""
    for curve, errors in ((CURVE * np.nan, ERRORS), (CURVE, ERRORS + np.inf), (CURVE, 0 * ERRORS)):
        assert tuple(SupEstimate(1.0, 0.1, 30, curve=curve, errors=errors).confidence_interval(0.9)) == LINE


def test_paths_for_a_quarter_of_the_gap():
    """The standard error at the maximum becomes a quarter of the value, or of the expected gap."""
    assert curve_of().paths_needed() == math.ceil(30 * (0.2 / (2.5 / 4)) ** 2)
    assert curve_of().paths_needed(0.04) == 30 * 400


def test_a_bootstrap_adds_noise_in_standard_errors():
    """The maxima of |curve + noise * errors|, for three noise curves."""
    noise = np.array([[1.0, 0.0, 0.0, 9.0], [0.0, 3.0, 0.0, 9.0], [0.0, 3.0, 8.0, 9.0]])
    close(curve_of().bootstrap(noise), [2.5, 1.9, 6.1])


# -- noise curves ----------------------------------------------------------------------------------------------------------------------


def residuals_of(groups, times):
    """Return centred random walks of several groups."""
    r = np.random.default_rng(8).standard_normal((groups, times)).cumsum(axis=1)
    return r - r.mean(axis=0)


def test_multiplier_noise_weights_the_groups():
    """Multipliers times residuals over their norm; 0 for a time without residuals."""
    r = residuals_of(7, 4) * [1.0, 0.1, 30.0, 0.0]
    xi = np.random.default_rng(5).standard_normal((9, 7))
    close(multiplier_noise(r, 9, 5), np.column_stack([*(xi @ r[:, k] / np.linalg.norm(r[:, k]) for k in range(3)), np.zeros(9)]))


@pytest.mark.parametrize("groups", [4, 12])
def test_markov_noise_has_the_adjusted_correlations_of_neighbours(groups):
    """The residual variance of a regression on the preceding time: (1 - r^2) (G - 1) / (G - 2), at most 1."""
    u, v, w = np.linalg.qr(residuals_of(groups, 4)[:, :3])[0].T
    r = np.column_stack([3 * u, 0.9 * u + math.sqrt(0.19) * v, 5 * v, 0.6 * w - 0.8 * v, u, u - v, 0.1 * u - 2 * w])
    xi = np.random.default_rng(5).standard_normal((9, 7))
    sample = np.array([stats.pearsonr(r[:, k - 1], r[:, k])[0] for k in range(1, 7)])
    rest = (1 - sample**2) * (groups - 1) / (groups - 2)
    assert rest.min() < 0.5 and rest.max() > 1 and sample.min() < -0.7 and sample.max() > 0.7  # every branch
    expected = xi.copy()
    for k in range(1, 7):
        share = min(1.0, rest[k - 1])
        expected[:, k] = math.copysign(math.sqrt(1 - share), sample[k - 1]) * expected[:, k - 1] + math.sqrt(share) * xi[:, k]
    close(_markov_noise(r, 9, 5), expected)


def test_markov_noise_of_two_groups():
    """The adjustment has at least one degree of freedom: the correlation is 0.6, unadjusted."""
    xi = np.random.default_rng(5).standard_normal((9, 2))
    close(_markov_noise(np.array([[5.0, 3.0], [0.0, 4.0]]), 9, 5)[:, 1], 0.6 * xi[:, 0] + 0.8 * xi[:, 1])


@pytest.mark.parametrize("groups", [MANY_GROUPS - 1, MANY_GROUPS])
def test_maxima_of_noise(groups):
    """Few groups: the larger of both kinds of noise for each rank; many groups: multiplier noise. Times without noise do not count."""
    r = residuals_of(groups, 3)
    found = multiplier_maxima(np.insert(r, 1, 0.0, axis=1), 50)
    expected = np.abs(multiplier_noise(r, 50)).max(axis=1)
    if groups < MANY_GROUPS:
        expected = np.maximum(np.sort(expected), np.sort(np.abs(_markov_noise(r, 50)).max(axis=1)))
    close(found, expected)
    assert multiplier_maxima(0 * r).shape == (0,) and multiplier_maxima(r).shape == (4000,)


@pytest.mark.parametrize(("stderr", "target"), [(math.inf, 0.1), (0.1, 1e-300), (math.nan, 0.1)])
def test_a_precision_that_no_number_of_paths_reaches_is_refused(stderr, target):
    with pytest.raises(ValueError, match="`stderr` must be one that a number of paths below"):
        Estimate(1.0, stderr, 100).paths_for(target)
    assert Estimate(1.0, 0.1, 100).paths_for(0.01) == 10_000


def test_the_skewness_of_a_mean_is_seen_beyond_standard_errors():
    """Exactly for G groups of which k are 1 and the others 0: (1 - 2 p) / sqrt(p (1 - p) G), p = k / G, less 1.5 sqrt(6) / G towards 0.

    Of 200 symmetric cases 13 % exceed 1.5 standard errors, 27 on average with a spread of 5; 55 or more have probability below 1e-7.
    """
    rng = np.random.default_rng(1)
    for count, ones in ((64, 1), (64, 5), (64, 63), (256, 3), (8, 1)):
        p = ones / count
        skewness = (1 - 2 * p) / math.sqrt(p * (1 - p) * count)
        expected = math.copysign(max(0.0, abs(skewness) - 1.5 * math.sqrt(6) / count), skewness)
        found = skewness_of_mean(7.0 + 3.0 * (np.arange(count) < ones))
        assert math.isclose(found, expected, rel_tol=1e-9) and abs(found) > 0.01
    assert sum(skewness_of_mean(rng.normal(size=64)) != 0 for _ in range(200)) < 55
    assert (
        skewness_of_mean(np.ones(64))
        == skewness_of_mean(np.r_[np.zeros(6), 9.0])
        == skewness_of_mean(np.r_[np.zeros(63), np.nan])
        == 0
    )


def test_the_skewness_of_a_mean_allows_for_groups_of_unequal_size():
    """Of 200 symmetric cases with a small last group 13 % exceed 1.5 standard errors; 55 or more have probability below 1e-7.

    Negative control: taken for equal, many look skewed, for the mean of the small group is far from the others.
    """
    rng, counts = np.random.default_rng(2), np.r_[np.full(78, 256), 8]
    cases = rng.normal(size=(200, 79)) / np.sqrt(counts)
    assert sum(skewness_of_mean(means, counts) != 0 for means in cases) < 55
    assert sum(skewness_of_mean(means) != 0 for means in cases) > 75
    # one group of two paths whose sum is 7 above the mean, and seven of one path, each 1 below it
    sums, sizes = np.r_[7.0, -np.ones(7)], np.r_[2, np.ones(7)]
    assert math.isclose(skewness_of_mean(2 + sums / sizes, sizes), 336 / 56**1.5 - 1.5 * math.sqrt(90) / 27)


def test_a_value_that_is_not_finite_says_how_many_paths_when_and_what_to_do():
    """The text of a result, of its table, and of an interval that is infinite, names the count, the reason and the way out."""
    diverged = Estimate(math.nan, math.nan, 1000, name="E[x]", diverged=7, first_divergence=5)
    assert (
        repr(diverged)
        == "E[x] = nan (1000 paths, 7 paths left the finite range, first at step 5; take smaller steps or an earlier time)"
    )
    assert "the observable overflows there or leaves its domain" in repr(Estimate(math.nan, math.nan, 1000))
    overflowing = Estimate(1e167, math.inf, 1000)
    assert overflowing.why_open == "the squares of its values overflow; observe a smaller multiple, or the logarithm"
    assert "the squares of its values overflow" in repr(overflowing) and "too few" not in repr(overflowing)
    assert "1 path is too few for an error" in Estimate(1.0, math.inf, 1).why_open
    assert diverged.why_open == "" and Estimate(1.0, 0.1, 9).why_not_finite == ""
    table = estimates_table(
        "mean", 0.95, [("x", "1", diverged), ("x", "2", diverged), ("y", "2", overflowing), ("z", "2", Estimate(1.0, 0.1, 9))]
    )
    assert (
        table.splitlines()[-2:] == [f"nan: {diverged.why_not_finite}", f"inf: {overflowing.why_open}"]
        and len(table.splitlines()) == 7
    )
