"""Rare events and small counts: exactness from the computation, coverage for small counts, and infinite intervals without a variance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

import sdetools as st
from sdetools.claims.context import ClaimContext
from sdetools.claims.verdict import judge_measurement
from sdetools.estimates import Estimate, SupEstimate
from sdetools.estimates.interval import binomial_interval, undetected_probability
from sdetools.studies.ranges import Range, range_of

pytestmark = pytest.mark.filterwarnings("ignore:the observable .* cannot be traced")  # some are for NumPy only

LOSS = st.losses.from_expression("x**2/2")
PLAN = st.schedules.constant(0.1)


def sgd(noise=None, plan=PLAN, sigma=1.0, loss=LOSS):
    """Return SGD."""
    return st.SGD(st.NoisyOracle(loss, noise or st.noise.gaussian(dim=1), sigma=sigma), plan)


def beyond(level):
    """Return the indicator of exceeding a level."""
    return lambda x: st.select(x[0] > level, 1.0, 0.0)


def level_of(p, steps=10, eta=0.1):
    """Return the level that SGD from 0 exceeds with probability p after `steps`, from its Gaussian law."""
    variance = sum(eta**2 * (1 - eta) ** (2 * k) for k in range(steps))
    return float(stats.norm.isf(p) * math.sqrt(variance))


def run(observe, paths=20_000, seed=0, **more):
    """Return a simulation of SGD from 0, recorded at times 0 and 1."""
    return st.simulate(sgd(), [0.0], 1.0, paths, observe, **({"times": [0.0, 1.0], "threads": 1, "seed": seed} | more))


# -- exact error probabilities, by summation over all outcomes ------------------------------------------------------------------------------


def missed(points, probabilities, n, alpha, bounds, two_valued=False):
    """Return the probabilities that the interval lies below and above the mean of a law on finitely many points."""
    counts = np.array([c for c in np.ndindex(*[n + 1] * (len(points) - 1)) if sum(c) <= n])
    counts = np.column_stack([n - counts.sum(axis=1), counts])
    weights = stats.multinomial.pmf(counts, n, probabilities)
    points, truth = np.array(points), float(np.dot(points, probabilities))
    out = np.zeros(2)
    for count, weight in zip(counts, weights, strict=True):
        if weight < 1e-15:
            continue
        mean = float(count @ points / n)
        stderr = math.sqrt(max(0.0, float(count @ (points - mean) ** 2)) / (n - 1) / n)
        e = Estimate(mean, stderr, n, least=bounds[0], most=bounds[1], two_valued=two_valued)
        low, high = tuple(e.confidence_interval(1 - alpha))
        out += weight * np.array([high < truth - 1e-12, low > truth + 1e-12])
    return out


@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-5])
@pytest.mark.parametrize("n", [2, 10, 60, 400])
@pytest.mark.parametrize("p", [1e-6, 1e-3, 0.03, 0.2, 0.5, 0.97])
def test_the_error_probability_of_each_side_is_at_most_half_of_alpha(n, p, alpha):
    """Two values, by summation over all outcomes: the general interval, and Clopper and Pearson's."""
    for two_valued in (False, True):
        below, above = missed([0.0, 1.0], [1 - p, p], n, alpha, (0.0, 1.0), two_valued)
        assert below <= alpha / 2 * (1 + 1e-9) and above <= alpha / 2 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("points", "probabilities"),
    [
        ([-1.0, 0.0, 1.0], [0.05, 0.9, 0.05]),
        ([-1.0, 0.0, 1.0], [0.001, 0.949, 0.05]),
        ([0.0, 0.01, 1.0], [0.88, 0.03, 0.09]),
        ([0.0, 0.6, 1.0], [0.6, 0.39, 0.01]),
        ([0.0, 0.3, 1.0], [0.01, 0.98, 0.01]),
    ],
)
def test_the_error_probability_for_three_values(points, probabilities):
    """Differences of indicators, and a rare event in addition to a common spread."""
    for n in (5, 30):
        for alpha in (0.05, 1e-3):
            assert (missed(points, probabilities, n, alpha, (points[0], points[-1])) <= alpha / 2 * (1 + 1e-9)).all()


def test_students_interval_misses_rare_events():
    """Negative control: Student's interval for an event of 1 in 100 excludes the mean in more than half of all samples of 60."""
    hits = np.arange(61)
    mean = hits / 60
    half = stats.t.isf(0.025, 59) * np.sqrt(mean * (1 - mean) / 59)
    assert stats.binom.pmf(hits, 60, 0.01)[np.abs(mean - 0.01) > half].sum() > 0.5


def test_clopper_pearson_intervals_of_examples():
    """No hit among n: 1 - (alpha/2)^(1/n); all hits by symmetry; 3 of 10 from tables."""
    assert tuple(binomial_interval(0, 100, 0.95)) == pytest.approx((0.0, 1 - 0.025 ** (1 / 100)), rel=1e-12)
    assert tuple(binomial_interval(100, 100, 0.95)) == pytest.approx((0.025 ** (1 / 100), 1.0), rel=1e-12)
    assert tuple(binomial_interval(3, 10, 0.95)) == pytest.approx((0.0667, 0.6525), abs=5e-5)
    assert undetected_probability(0.95, 100) == pytest.approx(-math.log(0.025) / 100, rel=1e-12)


def test_two_values_other_than_zero_and_one():
    """The interval of a mean of values 2 and 5 is that of the share of fives, rescaled; likewise for -1 and 0."""
    low, high = binomial_interval(25, 100, 0.95)
    for least, most in ((2.0, 5.0), (-1.0, 0.0)):
        mean = least + (most - least) / 4
        e = Estimate(mean, 0.1, 100, least=least, most=most, two_valued=True)
        assert tuple(e.confidence_interval(0.95)) == pytest.approx(
            (least + (most - least) * low, least + (most - least) * high), rel=1e-12
        )


# -- runs -------------------------------------------------------------------------------------------------------------------------

RARE = {
    "traced indicator": beyond(level_of(1e-5)),
    "condition": lambda x: x[0] > level_of(1e-5),
    "sign": f"(1 + sign(x - {level_of(1e-5)}))/2",
    "steep sigmoid": f"1/(1 + exp(-500*(x - {level_of(1e-5)})))",
    "bump": f"exp(-1000*(x - {level_of(1e-5)} - 0.1)**2)",
    "clipped": f"max(0, min(1, 50*(x - {level_of(1e-5)})))",
    "declared indicator": st.Indicator(lambda x: np.where(x[0] > level_of(1e-5), 1.0, 0.0)),
    "declared bounds": st.Bounded(lambda x: np.where(x[0] > level_of(1e-5), 1.0, 0.0), 0, 1),
}


@pytest.mark.parametrize("name", RARE)
def test_no_hit_among_many_paths(name):
    """20,000 paths, truth about 1e-5: the interval extends from 0 to what they can exclude, and does not contradict a claim of 5e-6."""
    e = run({"h": RARE[name]}, seed=3).at("h")
    if e.value > 1e-20:  # at most about one hit
        assert e.value < 5 / 20_000
    assert e.random and not e.resolved and "exact" not in repr(e)
    assert e.low <= 1e-6 and 1e-5 < e.high < 2e-3
    context = ClaimContext("a-claim")
    context.measure("p", e, at_least=5e-6)
    assert context.record.measurements[0].random
    assert judge_measurement(context.record.measurements[0], 1e-3).state == "across"


@pytest.mark.sample(1)
@pytest.mark.parametrize("hits", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("name", ["indicator", "sigmoid"])
def test_small_counts_cover(name, hits):
    """400 runs of 1,000 paths with about `hits` hits each: at least 95 % minus 4.5 binomial errors at 95 %."""
    p = hits / 1000
    level = level_of(p)
    h = beyond(level) if name == "indicator" else f"(1 + tanh(1500*(x - {level})))/2"
    inside = 0
    for seed in range(400):
        e = run({"h": h}, 1000, seed).at("h")
        inside += e.low <= p <= e.high
    assert inside >= 400 * 0.95 - 4.5 * math.sqrt(400 * 0.95 * 0.05)


def test_the_normal_interval_does_not_cover_small_counts():
    """Negative control: with half a hit in each run, 1.96 standard errors cover in about 1 - exp(-.5) = 39 % of 400 runs."""
    level, inside = level_of(5e-4), 0
    for seed in range(400):
        found = run({"h": beyond(level)}, 1000, seed)
        inside += abs(found.statistics.mean[-1, 0] - 5e-4) <= 1.96 * found.statistics.stderr[-1, 0]
    assert inside < 400 * 0.6


@pytest.mark.parametrize("coupled", [True, False])
def test_gaps_of_indicators_without_hits(coupled):
    """SGDM against SGD above a level that no path reaches: values in {-1, 0, 1}, so that the gap is within 2 L of 0 and not exact."""
    plan = st.schedules.constant(0.1, 0.5)
    oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=1.0)
    pair = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
    gap = st.weak_gap(*pair, [0.0], 1.0, 20_000, {"h": beyond(2.5)}, coupled=coupled, threads=1)
    e, sup = gap.at("h"), gap.sup("h")
    assert e.value == sup.value == 0 and e.random and sup.random and not e.resolved and not sup.resolved
    assert tuple(e.confidence_interval(0.95)) == pytest.approx(
        (-undetected_probability(0.95, 20_000), undetected_probability(0.95, 20_000)), rel=1e-6
    )
    times = int((gap.steps > 0).sum())
    assert tuple(sup.confidence_interval(0.95)) == pytest.approx((0.0, undetected_probability(0.95, 20_000, times)), rel=1e-6)
    assert tuple(gap.at("h", 0.0).confidence_interval(0.95)) == (0.0, 0.0) and not gap.at("h", 0.0).random


def test_gaps_of_indicators_cover_at_small_counts():
    """200 runs of 2,000 paths against the exact gap of both Gaussian laws; about ten paths differ. At least 95 % minus 4.5 errors."""
    plan = st.schedules.constant(0.1, 0.9)
    oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=1.0)
    pair = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
    spread = [math.sqrt(st.exact.moments(one, [0.0], 10).covariance[-1, 0, 0]) for one in pair]
    level = float(stats.norm.isf(0.005) * spread[1])
    truth = stats.norm.sf(level / spread[0]) - stats.norm.sf(level / spread[1])
    inside = 0
    for seed in range(200):
        e = st.weak_gap(*pair, [0.0], 1.0, 2000, {"h": beyond(level)}, times=[1.0], threads=1, seed=seed).at("h")
        inside += e.low <= truth <= e.high
    assert inside >= 200 * 0.95 - 4.5 * math.sqrt(200 * 0.95 * 0.05)


def test_well_sampled_differences_do_not_use_bounds():
    """A cosine varies on every path: with the bounds +-2 of a difference the interval would be eight times as wide."""
    plan = st.schedules.constant(2.0**-6, 0.5)
    oracle = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), sigma=1.0)
    pair = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
    gap = st.weak_gap(
        *pair, [1.0], 1.0, 20_000, {"smooth": "cos(x)", "rare": "1/(1 + exp(-500*(x - 1.5)))"}, times=[1.0], threads=1
    )
    smooth, rare = gap.at("smooth"), gap.at("rare")
    assert not smooth.bounded and smooth.half_width == pytest.approx(1.96 * smooth.stderr, rel=1e-3)
    assert rare.bounded and rare.half_width >= undetected_probability(0.95, 20_000)


# -- exactness ----------------------------------------------------------------------------------------------------------------------


def test_deterministic_values_are_exact():
    """No noise; time 0 from a point; a conserved quantity; x - x; a constant."""
    found = st.simulate(sgd(st.noise.none(dim=1)), [1.0], 1.0, 100, {"x": "x", "h": beyond(2.0)}, threads=1)
    assert [found.at(n).random for n in found.names] == [False, False]
    assert found.at("x").value == pytest.approx(0.9**10, rel=1e-14) and "(exact)" in repr(found.at("x"))
    noisy = run({"x": "x", "zero": "x*0"}, 100)
    assert not noisy.at("x", 0.0).random and noisy.at("x").random and not noisy.at("zero").random
    corner = st.noise.gaussian(covariance=[[1.0, 0.0], [0.0, 0.0]])
    loss = st.losses.from_expression("x**2/2 + y**2", variables="x y")
    two = st.simulate(sgd(corner, loss=loss), [1.0, 1.0], 1.0, 1000, ["x", "y", "x*y"], threads=1)
    assert [two.at(n).random for n in two.names] == [True, False, True]
    assert two.at("y").low <= 0.8**10 <= two.at("y").high
    assert tuple(Estimate.exact(3.0).confidence_interval(1 - 1e-12)) == (3.0, 3.0) and Estimate.exact(3.0).resolved


def test_a_drawn_momentum_reaches_the_point_with_the_first_step():
    """At time 0 the point is exact, later it is not."""
    plan = st.schedules.constant(0.1, 0.5)
    rule = st.SGDM(st.NoisyOracle(LOSS, st.noise.none(dim=1)), plan, momentum=([0.0], [[1.0]]))
    found = st.simulate(rule, [1.0], 0.2, 500, ["x"], times="all", threads=1)
    assert [found.at("x", t).random for t in found.times] == [False, True, True]
    assert found.at("x").stderr > 0


def test_signs_are_exact_if_all_outcomes_occurred():
    """x^2 after one step from 0 is eta^2 for either sign. A product of 20 signs is 0 except on one path in a million: not exact."""
    rademacher = st.noise.rademacher(dim=1)
    found = st.simulate(sgd(rademacher), [0.0], 0.1, 5000, ["x**2"], threads=1)
    assert not found.at().random and found.at().value == pytest.approx(0.01, rel=1e-12)
    few = st.simulate(sgd(rademacher), [0.0], 0.1, 20, ["x**2"], threads=1).at()
    assert few.unseen and few.high == math.inf  # negative control: all twenty paths may have the same sign
    product = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.rademacher(root=[["x"]], variables="x"), sigma=1.0)
    halves = st.SGD(product, st.schedules.constant(0.5))  # x' = x - (x + xi x)/2 is 0 or x
    product_mean = st.simulate(halves, [1.0], 15.0, 20_000, ["x"], times=[15.0], threads=1).at()
    assert (
        product_mean.value == 0 and product_mean.random and product_mean.high == math.inf
    )  # E x = 2^-30, x is 0 on all 20,000 paths


def test_no_variance_and_no_bounds_give_an_infinite_interval():
    """An unbounded observable that is 0 on all paths: inconclusive, with a remedy."""
    e = run({"h": lambda x: np.where(x[0] > 2.5, x[0] ** 2, 0.0)}).at("h")
    assert e.unseen and tuple(e.confidence_interval(0.5)) == (-math.inf, math.inf) and not e.resolved and math.isnan(e.z(0.0))
    assert "st.Bounded" in e.why_open and "no spread" in repr(e)
    context = ClaimContext("a-claim")
    context.measure("h", e, at_most=1.0)
    found = judge_measurement(context.record.measurements[0], 1e-3)
    assert found.state == "across" and found.why_open == e.why_open


def test_the_band_is_infinite_where_the_error_is_unknown():
    """A time with an error of 0 has a finite band only if no draw enters there."""
    known = SupEstimate(
        1.0, 0.1, 100, curve=np.array([0.0, 1.0]), errors=np.array([0.0, 0.1]), points={"random": np.array([False, True])}
    )
    assert np.isfinite(known.band()).all()
    unknown = SupEstimate(1.0, 0.1, 100, curve=np.array([0.0, 1.0]), errors=np.array([0.0, 0.1]))
    assert unknown.band()[1][0] == math.inf and tuple(unknown.confidence_interval(0.95)) == (-math.inf, math.inf)


# -- ranges -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("x**2", 0, math.inf), ("1/(1 + x**2)", 0, 1), ("exp(-x**2)", 0, 1), ("tanh(3*x) + 1", 0, 2), ("abs(sin(x))", 0, 1),
        ("sqrt(abs(tanh(x)))", 0, 1), ("atan(x)", -math.pi / 2, math.pi / 2), ("max(0, min(1, x))", 0, 1), ("min(1, x**2)", 0, 1),
        ("abs(cos(x))**0.3", 0, 1), ("1/x", -math.inf, math.inf), ("x", -math.inf, math.inf), ("cosh(x)", 1, math.inf),
        ("exp(x)/(1 + exp(x))", 0, math.inf), ("log(1 + x**2)", 0, math.inf), ("2 - 3*cos(x)*cos(y)", -1, 5),
    ],
)  # fmt: skip
def test_ranges_contain_all_values(text, low, high):
    """The range of the formula contains its values at 10,000 points."""
    loss = st.losses.from_expression(text, variables="x y")
    found = range_of(loss.value, 2)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    seen = np.asarray(loss.value(np.random.default_rng(0).standard_t(1, (2, 10_000))), dtype=float)
    assert found.low <= np.nanmin(seen) and np.nanmax(seen) <= found.high  # exp overflows for large x


def test_values_of_step_functions():
    """Finite sets of values."""
    assert range_of(beyond(0.0), 1).values == {0.0, 1.0}
    assert range_of(lambda x: (x[0] > 0) & (x[0] < 1), 1).values == {0.0, 1.0}
    assert range_of(st.losses.from_expression("3*sign(x)", variables="x").value, 1).values == {-3.0, 0.0, 3.0}
    assert Range.of((0, 1)).minus(Range.of((0, 1))).values == {-1.0, 0.0, 1.0}
    assert range_of(lambda x: np.where(x[0] > 0, 1.0, 0.0), 1).values == {0.0, 1.0}
    assert range_of(lambda x: np.interp(x[0], [0.0, 1.0], [0.0, 2.0]), 1) == Range()  # not traceable: unknown range


def test_stated_bounds_are_checked():
    """Means outside of stated bounds, and exchanged bounds, are refused."""
    with pytest.raises(ValueError, match=r"`low` must be below `high`; got low=1 and high=0\. Swap them\."):
        st.Bounded("x", 1, 0)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], as is stated; got means"):
        st.simulate(sgd(), [3.0], 1.0, 100, {"h": st.Bounded("x", 0, 1)}, threads=1).at("h")


# -- precision ------------------------------------------------------------------------------------------------------------------------


def ask(observe, precision, dynamics=None, x0=0.0, **more):
    """Return a simulation to a precision."""
    return st.simulate(dynamics or sgd(), [x0], 1.0, precision=precision, observe=observe, threads=1, **more)


def test_a_precision_without_a_known_variance_is_refused():
    """The message has a remedy."""
    with pytest.raises(
        ValueError, match=r"none differs from another in h at step 10\. State its bounds \(st\.Bounded, st\.Indicator\)"
    ):
        ask({"h": lambda x: np.where(x[0] > 2.5, x[0] ** 2, 0.0)}, 0.005, times=[1.0])
    with pytest.raises(ValueError, match=r"some have no finite log at step"):
        ask({"log": lambda x: np.log(x[0])}, 0.005)
    quartic = sgd(loss=st.losses.from_expression("x**4"))
    with pytest.raises(
        ValueError, match=r"left the finite range, first at step \d+, so that x has no mean at step \d+\. Take a smaller"
    ):
        ask(["x"], 0.005, quartic, 6.0, times=[1.0])


def test_precision_of_a_gap_that_is_not_finite_is_refused():
    """Diverged paths are reported."""
    quartic = sgd(loss=st.losses.from_expression("x**4"))
    with pytest.raises(ValueError, match=r"got precision=0\.005, and of its 32,768 paths [\d,]+ left the finite range"):
        st.weak_gap(quartic, sgd(), [6.0], 1.0, precision=0.005, observe=["x"], threads=1)


@pytest.mark.parametrize("name", ["traced indicator", "steep sigmoid", "declared bounds"])
def test_precision_of_a_rare_event_comes_from_its_bounds(name):
    """No hit in the pilot: R log(2/alpha) / n gives the half-width; a tenth of it is not reached."""
    found = ask({"h": RARE[name]}, 2e-4, times=[1.0])
    assert found.paths == pytest.approx(-math.log(0.025) / 2e-4, rel=0.2)
    assert 2e-5 < found.at("h").half_width <= 2e-4


def test_exact_values_take_two_paths():
    """The minimum."""
    assert ask(["x"], 1e-3, sgd(st.noise.none(dim=1)), 1.0).paths == 2
