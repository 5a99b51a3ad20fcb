"""Tests of verdicts on synthetic estimates: every state of a measurement, a control and a claim."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom

import sdetools as st
from sdetools.claims import Claim, ClaimContext
from sdetools.claims.measurement import FALSE_SUPPORT, FLAG, judge_measurement, widening
from sdetools.claims.verdict import Outcome, flagged, judge
from sdetools.estimates import ConfidenceInterval
from sdetools.estimates.interval import Kind


@dataclass
class Estimate:
    """A normal estimate that records the confidence levels of its intervals."""

    value: float
    stderr: float
    n: int = 1000
    diverged: int = 0
    first_divergence: object = None
    levels: list[float] = field(default_factory=list)

    def confidence_interval(self, level: float) -> ConfidenceInterval:
        self.levels.append(level)
        half = NormalDist().inv_cdf(0.5 + level / 2) * self.stderr
        return ConfidenceInterval(self.value - half, self.value + half, level)

    @property
    def low(self) -> float:
        return self.value - 1.96 * self.stderr

    @property
    def high(self) -> float:
        return self.value + 1.96 * self.stderr


def outcome(write, id: str = "a-claim") -> Outcome:
    run = ClaimContext(id)
    write(run)
    return Outcome(Claim(id, "A statement.", "", write, Path("claims.py"), 1), run.record, run.seed)


def verdict(write, again=None):
    """Return the judged claim; on fresh draws it measures the same, or what `again` writes."""
    first = outcome(write)
    return judge(first, outcome(again or write) if flagged(first) else None)


# half-width at the level 1 - 1e-3 of the interval that must lie inside
HALF = NormalDist().inv_cdf(1 - FALSE_SUPPORT / 2)


@pytest.mark.parametrize(
    ("value", "criterion", "expected"),
    [
        (1.0, {"expected": 1.0, "tolerance": 0.5}, "supported"),
        (1.4, {"expected": 1.0, "tolerance": 0.5}, "inconclusive"),
        (1.6, {"expected": 1.0, "tolerance": 0.5}, "inconclusive"),
        (2.0, {"expected": 1.0, "tolerance": 0.5}, "contradicted"),
        (0.0, {"expected": 1.0, "tolerance": 0.5}, "contradicted"),
        (10.2, {"expected": 10.0, "relative": 0.1}, "supported"),
        (-10.2, {"expected": -10.0, "relative": 0.1}, "supported"),
        (-12.0, {"expected": -10.0, "relative": 0.1}, "contradicted"),
        (1.0, {"at_most": 1.5}, "supported"),
        (1.4, {"at_most": 1.5}, "inconclusive"),
        (2.0, {"at_most": 1.5}, "contradicted"),
        (2.0, {"at_least": 1.5}, "supported"),
        (1.6, {"at_least": 1.5}, "inconclusive"),
        (1.0, {"at_least": 1.5}, "contradicted"),
    ],
)
def test_one_measurement(value, criterion, expected):
    assert verdict(lambda run: run.measure("q", Estimate(value, 0.3 / HALF), **criterion)).verdict == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, "supported"), (1.5, "supported"), (0.5, "supported"), (math.nextafter(1.5, 2), "contradicted"), (0.0, "contradicted")],
)
def test_a_plain_number_is_exact_and_ranges_are_closed(value, expected):
    result = verdict(lambda run: run.measure("q", value, expected=1.0, tolerance=0.5))
    assert result.verdict == expected
    assert result.measurements[0].paths is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("criterion", [{"expected": 1.0, "tolerance": 0.5}, {"at_most": 1.0}, {"at_least": -1.0}])
def test_values_that_are_not_finite_are_inconclusive(value, criterion):
    for estimate in (value, Estimate(value, 0.1)):
        result = verdict(lambda run, estimate=estimate: run.measure("q", estimate, **criterion))
        assert result.verdict == "inconclusive"
        assert "not a finite number" in result.reason
        assert (result.measurements[0].low, result.measurements[0].high) == (-math.inf, math.inf)


def test_an_interval_that_is_not_finite_is_inconclusive():
    result = verdict(lambda run: run.measure("q", Estimate(1.0, math.nan), expected=1.0, tolerance=0.5))
    assert result.verdict == "inconclusive"
    assert result.measurements[0].paths_needed is None


def test_number_of_paths_that_would_decide():
    # A half-width of 0.4 and a slack of 0.1 require 16 times the paths.
    result = verdict(lambda run: run.measure("q", Estimate(1.4, 0.4 / HALF, n=1000), expected=1.0, tolerance=0.5))
    assert result.measurements[0].paths_needed == pytest.approx(16_000, abs=1)
    assert "about 16,000 paths would decide" in result.reason
    more = verdict(
        lambda run: run.measure("q", Estimate(1.4, 0.4 / HALF / math.sqrt(16.1), n=16_100), expected=1.0, tolerance=0.5)
    )
    assert more.verdict == "supported"


def test_no_number_of_paths_decides_at_an_end_of_the_tolerance():
    result = verdict(lambda run: run.measure("q", Estimate(1.5, 0.1), expected=1.0, tolerance=0.5))
    assert result.measurements[0].paths_needed is None
    assert "on the edge" in result.reason


def control(run, value: float, stderr: float = 0.01, name: str = "wrong rate") -> None:
    with run.control(name):
        run.measure("q", Estimate(value, stderr), expected=1.0, tolerance=0.5)


@pytest.mark.parametrize(
    ("wrong", "stderr", "expected", "words"),
    [
        (3.0, 0.01, "supported", "the control failed as it must"),
        (1.0, 0.01, "inconclusive", "the control wrong rate has no power"),
        (1.6, 0.1, "inconclusive", "the control wrong rate neither fails nor passes"),
        (math.nan, 0.1, "inconclusive", "neither fails nor passes"),
    ],
)
def test_controls(wrong, stderr, expected, words):
    def write(run):
        run.measure("q", Estimate(1.0, 0.01), expected=1.0, tolerance=0.5)
        control(run, wrong, stderr)

    result = verdict(write)
    assert result.verdict == expected
    assert words.lower() in result.reason.lower()
    assert result.controls[0].failed is (expected == "supported")


def test_a_control_fails_if_one_of_its_measurements_fails():
    def write(run):
        run.measure("q", 1.0, at_most=2.0)
        with run.control("c"):
            run.measure("same", 1.0, at_most=2.0)
            run.measure("other", 3.0, at_most=2.0)

    assert verdict(write).verdict == "supported"


def test_every_control_must_fail():
    def write(run):
        run.measure("q", 1.0, at_most=2.0)
        control(run, 3.0, name="a")
        control(run, 1.0, name="b")

    result = verdict(write)
    assert result.verdict == "inconclusive" and "The control b has no power" in result.reason


def test_a_control_without_measurements_is_inconclusive():
    def write(run):
        run.measure("q", 1.0, at_most=2.0)
        with run.control("idle"):
            pass

    result = verdict(write)
    assert result.verdict == "inconclusive"
    assert "measured nothing" in result.reason


def test_a_claim_without_measurements_is_not_supported():
    assert verdict(lambda run: None).verdict == "inconclusive"
    assert verdict(lambda run: control(run, 3.0)).verdict == "inconclusive"


def test_contradiction_takes_precedence_over_inconclusive():
    def write(run):
        run.measure("open", Estimate(1.5, 0.1), expected=1.0, tolerance=0.5)
        run.measure("wrong", 3.0, expected=1.0, tolerance=0.5)

    result = verdict(write)
    assert result.verdict == "contradicted"
    assert "wrong" in result.reason
    assert "open" not in result.reason


def test_diverged_paths_prevent_support_except_in_a_control():
    def diverged(run):
        run.measure("a", Estimate(1.0, 0.01, diverged=3, first_divergence="path 7, step 12"), expected=1.0, tolerance=0.5)

    result = verdict(diverged)
    assert result.verdict == "inconclusive"
    assert result.diverged_paths == 3
    assert "3 paths diverged (the first: path 7, step 12)" in result.reason

    def diverged_in_control(run):
        run.measure("a", Estimate(1.0, 0.01), expected=1.0, tolerance=0.5)
        with run.control("c"):
            run.measure("a", Estimate(3.0, 0.01, diverged=3), expected=1.0, tolerance=0.5)

    assert verdict(diverged_in_control).verdict == "supported"


def test_diverged_paths_of_one_simulation_are_counted_once():
    def write(run):
        for name in "abc":
            run.measure(name, Estimate(1.0, 0.01, diverged=3, first_divergence=(7, 12)), expected=1.0, tolerance=0.5)
        run.measure("d", Estimate(1.0, 0.01, diverged=2, first_divergence=(9, 1)), expected=1.0, tolerance=0.5)

    assert verdict(write).diverged_paths == 5


def test_levels_depend_on_the_claim_alone():
    """1 - 1e-3 and 1 - q/m for measurements; 1 - 1e-3/k for the k measurements of a control."""
    estimates = [Estimate(1.0, 0.01) for _ in range(4)]

    def write(run):
        run.measure("a", estimates[0], expected=1.0, tolerance=0.5)
        run.measure("b", estimates[1], at_most=2.0)
        run.measure("exact", 1.0, at_most=2.0)
        run.measure("exact too", st.Estimate.exact(1.0), at_most=2.0)
        with run.control("c"):
            run.measure("a", estimates[2], at_most=0.5)
            run.measure("b", estimates[3], at_most=3.0)

    assert verdict(write).verdict == "supported"
    assert [set(one.levels) for one in estimates] == 2 * [{1 - 1e-3, 1 - FLAG / 2}] + 2 * [{1 - 1e-3 / 2}]
    assert math.isclose(FLAG**2, 1e-5)


def test_a_contradiction_takes_a_second_run():
    """One flagged measurement must lie outside again, at a level for the flagged ones alone; others do not count."""

    def first(run):
        run.measure("a", Estimate(2.0, 0.1), at_most=1.0)
        run.measure("b", Estimate(2.0, 0.1), at_most=1.0)
        run.measure("c", Estimate(0.0, 0.1), at_most=1.0)

    def again(a, b, c):
        def write(run):
            for name, value in (("a", a), ("b", b), ("c", c)):
                run.measure(name, Estimate(value, 0.1), at_most=1.0)

        return write

    assert flagged(outcome(first)) == ("a", "b")
    assert verdict(first).verdict == "contradicted" and "and again in [" in verdict(first).reason
    assert verdict(first, again(0.0, 2.0, 0.0)).verdict == "contradicted"
    result = verdict(first, again(0.0, 0.0, 2.0))
    assert result.verdict == "inconclusive" and "but not again on fresh draws, where it lies in [" in result.reason
    assert [item.state for item in result.measurements] == ["across", "across", "inside"]
    assert [item.again is None for item in result.measurements] == [False, False, True]
    assert verdict(first, lambda run: None).verdict == "inconclusive"  # the second run did not measure it
    assert judge(outcome(first)).verdict == "inconclusive"  # there was no second run
    half = NormalDist().inv_cdf(1 - FLAG / 4) * 0.1  # two flagged measurements
    for inside, expected in ((-0.01, "contradicted"), (0.01, "inconclusive")):
        assert verdict(first, again(1.0 + half - inside, 0.0, 0.0)).verdict == expected


def test_an_exact_number_outside_contradicts_at_once():
    def write(run):
        run.measure("a", Estimate(2.0, 0.1), at_most=1.0)
        run.measure("exact", 2.0, at_most=1.0)

    assert flagged(outcome(write)) == () and judge(outcome(write)).verdict == "contradicted"


def test_a_claim_that_did_not_finish_is_not_repeated():
    broken = outcome(lambda run: run.measure("a", Estimate(2.0, 0.1), at_most=1.0))
    broken.verdict = "error"
    assert flagged(broken) == ()


@pytest.mark.parametrize("dependent", [False, True])
def test_error_rates_of_a_claim_with_ten_measurements(dependent):
    """At the worst true and the worst false parameter, with independent measurements and with equal ones.

    A step of a contradiction has probability at most q, and 40,000 claims have at most 127 false flags on average; the tests are
    one-sided, so half is expected. 100 or more independent ones of mean 63 have probability below 1e-5. A false claim (one of ten values lies
    beyond its bound) is supported in at most 40 of 40,000 (half expected again); 45 or more of mean 20 have probability below 1e-5.
    """
    import numpy as np

    generator = np.random.default_rng(5 + dependent)
    claims, m = 40_000, 10
    values = generator.normal(size=(claims, 1 if dependent else m)) + np.zeros((claims, m))
    flag, support = (NormalDist().inv_cdf(1 - rate / 2) for rate in (FLAG / m, FALSE_SUPPORT))
    # at_most = 0 where the truth is 0: the interval lies above 0
    flags = int((values > flag).any(axis=1).sum())
    # the truth of the first value is 0 and its bound 0, the others lie far inside
    supports = int((values[:, 0] < -support).sum())
    assert flags < 100 and supports < 45
    run = ClaimContext("x")  # the same comparisons as by the code, near the ends
    for i, value in enumerate((flag + 1e-6, flag - 1e-6, -support - 1e-6, -support + 1e-6)):
        run.measure(f"{i}", Estimate(value, 1.0), at_most=0.0)
    states = [judge_measurement(item, FLAG / m).state for item in run.record.measurements]
    assert states == ["disjoint", "across", "inside", "across"]


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        ({}, "exactly one criterion; got none"),
        ({"at_most": 1.0, "at_least": 0.0}, "exactly one criterion"),
        ({"expected": 1.0, "tolerance": 0.1, "at_most": 1.0}, "exactly one criterion"),
        ({"expected": 1.0}, "must have a `tolerance` or a `relative` one; got none"),
        ({"expected": 1.0, "tolerance": 0.1, "relative": 0.1}, "got both"),
        ({"expected": 1.0, "tolerance": 0.0}, "`tolerance` must be a positive number"),
        ({"expected": 1.0, "tolerance": -1.0}, "`tolerance` must be a positive number"),
        ({"expected": 0.0, "relative": 0.1}, "must not be used with expected=0"),
        ({"expected": math.nan, "tolerance": 0.1}, "`expected` must be a finite number"),
        ({"at_most": math.inf}, "`at_most` must be a finite number"),
        ({"at_most": 1.0, "tolerance": 0.1}, "must go with `expected`"),
    ],
)
def test_invalid_criteria_are_refused(criterion, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        ClaimContext("a").measure("q", 1.0, **criterion)


def test_invalid_measurements_are_refused():
    run = ClaimContext("a")
    run.measure("q", 1.0, at_most=2.0)
    with pytest.raises(ValueError, match="unique within the claim `a`; got 'q' twice"):
        run.measure("q", 1.0, at_most=2.0)
    with pytest.raises(ValueError, match="must have a name"):
        run.measure(" ", 1.0, at_most=2.0)
    with pytest.raises(ValueError, match="by an Estimate or a number; got list"):
        run.measure("list", [1.0], at_most=2.0)
    with run.control("c"), pytest.raises(ValueError, match="must not be inside another"), run.control("d"):
        pass
    with pytest.raises(ValueError, match="unique within the claim"), run.control("c"):
        pass
    with pytest.raises(ValueError, match="must have 2 cells"):
        run.table("t", [[1, 2, 3]], ["a", "b"])
    with pytest.raises(ValueError, match="must be a matplotlib Figure"):
        run.figure("f", 3)


def test_a_control_ends_even_when_it_raises():
    run = ClaimContext("a")
    with pytest.raises(ZeroDivisionError), run.control("c"):
        _ = 1 / 0
    run.measure("q", 1.0, at_most=2.0)
    assert [item.name for item in run.record.measurements] == ["q"]


def test_an_estimate_with_the_deprecated_method_is_accepted_with_a_warning():
    class DeprecatedEstimate:
        value, n = 1.0, 100

        def interval(self, confidence):
            return 0.9, 1.1

    with pytest.warns(DeprecationWarning, match="confidence_interval"):
        found = verdict(lambda run: run.measure("q", DeprecatedEstimate(), expected=1.0, tolerance=0.2))
    assert found.verdict == "supported" and tuple(found.measurements[0].interval) == (0.9, 1.1)


def estimator_of(value, spread, asked):
    """Return an estimator whose standard error is spread / sqrt(paths), and which notes the numbers of paths."""
    return lambda n: asked.append(n) or Estimate(value, spread / math.sqrt(n), n)


@pytest.mark.parametrize(
    ("value", "calls", "expected"),
    [(0.0, 1, "supported"), (0.9, 5, "supported"), (1.0, 5, "inconclusive"), (1.15, 4, "contradicted"), (9.0, 1, "contradicted")],
)
def test_a_measurement_takes_as_many_paths_as_its_verdict_requires(value, calls, expected):
    """Twice as many at each look, at most five: half of the interval must be below 0.1 for 0.9, 3.72 * 10 / sqrt(n), and below 0.15 for 1.15, 3.42 * 10 / sqrt(n)."""
    asked = []
    result = verdict(lambda run: run.decide("q", estimator_of(value, 10.0, asked), at_most=1.0, looks=5, paths=10_000))
    assert result.verdict == expected
    assert asked[:calls] == [10_000 << k for k in range(calls)] and (len(asked) == calls or expected == "contradicted")
    assert [item.paths for item in result.measurements] == [10_000 << (calls - 1)]


def test_the_levels_of_a_decision_allow_for_its_looks():
    """Also in a control; the state at the last look is judged at these levels."""
    asked = []

    def write(run):
        run.decide("q", estimator_of(0.0, 1.0, asked), at_most=1.0, looks=4)
        with run.control("c"):
            run.decide("q", estimator_of(2.0, 1.0, asked), at_most=1.0, looks=8)

    result = verdict(write)
    assert result.verdict == "supported"
    (item,) = result.measurements
    assert (item.interval.level, item.outer.level) == (1 - FALSE_SUPPORT / 4, 1 - FLAG / 4)
    assert result.controls[0].measurements[0].interval.level == 1 - FALSE_SUPPORT / 8


def test_looking_often_does_not_raise_the_error_rates():
    """Brownian sums at the worst parameter, 5 looks: false supports and flags of 40,000 measurements; with undivided levels there are too many.

    At most 40 false supports and 127 flags are allowed on average, of which the one-sided tests expect a half. 45 or more of mean 20, and 100 or
    more of mean 63, have probability below 1e-5. The control: one look's level at each look gives more than that.
    """
    import numpy as np

    rng, looks, many = np.random.default_rng(8), 5, 40_000
    n = 2.0 ** np.arange(looks)
    steps = rng.normal(size=(many, looks)) * np.sqrt(np.diff(n, prepend=0.0))
    z = np.cumsum(steps, axis=1) / np.sqrt(n)  # means of nested samples in standard errors; the truth is the bound

    def errors(divisor):
        support, flag = (NormalDist().inv_cdf(1 - rate / divisor / 2) for rate in (FALSE_SUPPORT, FLAG))
        decided = (z < -support) | (z > flag)
        first = np.where(decided.any(axis=1), decided.argmax(axis=1), looks - 1)
        last = z[np.arange(many), first]
        return int((last < -support).sum()), int((last > flag).sum())

    supports, flags = errors(looks)
    assert supports < 45 and flags < 100
    undivided = errors(1)
    assert undivided[0] >= 45 and undivided[1] >= 100


@pytest.mark.parametrize("wrong", [{"looks": 0}, {"paths": 0}, {"at_least": 0.0}])
def test_wrong_arguments_of_a_decision(wrong):
    with pytest.raises(ValueError, match="`looks`|`paths`|exactly one criterion"):
        ClaimContext("a").decide("q", estimator_of(0.0, 1.0, []), at_most=1.0, **wrong)


@dataclass
class Skewed(Estimate):
    """An estimate whose law is known to be skewed."""

    skewness: float = 0.0


class Known(Skewed):
    """An estimate with an exact interval, as that of a mean without noise."""

    def confidence_interval(self, level: float) -> ConfidenceInterval:
        return ConfidenceInterval(self.value, self.value, 1.0, Kind.EXACT)


def test_a_skewed_mean_has_no_verdict_but_the_paths_that_it_would_take():
    """Where exp(g z^3 / 6) exceeds 1.5 at the level of the intervals; neither supported nor contradicted, nor a control that failed."""
    z = NormalDist().inv_cdf(1 - FALSE_SUPPORT / 2)  # the smaller error rate of one measurement
    limit = 6 * math.log(1.5) / z**3
    for value, decided in ((0.0, "supported"), (2.0, "contradicted")):
        for factor, expected in ((0.99, decided), (-0.99, decided), (1.01, "inconclusive"), (-2.0, "inconclusive")):
            result = verdict(
                lambda run, v=value, f=factor: run.measure("q", Skewed(v, 0.01, 10_000, skewness=f * limit), at_most=1.0)
            )
            assert result.verdict == expected
    assert result.measurements[0].paths_needed == pytest.approx(40_000, abs=1)
    assert "too skewed for a normal interval at this level; about 40,000 paths would do" in result.reason

    def several(run, factor, value=0.0):
        """Twenty measurements, so that a contradiction looks at 1.6e-4, where the limit is two thirds."""
        for k in range(20):
            run.measure(f"q{k}", Skewed(value, 0.01, 10_000, skewness=factor * limit), at_most=1.0)

    found = [verdict(lambda run, f=f: several(run, f)).verdict for f in (0.99, 1.01)]
    assert found == ["supported", "inconclusive"]
    assert verdict(lambda run: several(run, 0.99, 2.0)).verdict == "inconclusive"

    def write(run):
        run.measure("q", 1.0, at_most=2.0)
        with run.control("c"):
            run.measure("q", Skewed(2.0, 0.01, 1000, skewness=0.2), at_most=1.0)

    assert verdict(write).verdict == "inconclusive"


def test_a_skewed_mean_has_an_interval_that_is_wider_on_the_side_of_its_tail():
    """By |g| (2 z^2 + 1)/6 standard errors, and unchanged on the other side; exact values and probabilities have no such term."""
    z, g = NormalDist().inv_cdf(1 - FALSE_SUPPORT / 2), 0.06
    far = 1.0 + 0.01 * (z + g * (2 * z**2 + 1) / 6)
    for sign, expected in ((1, (1 - 0.01 * z, far)), (-1, (2 - far, 1 + 0.01 * z)), (0, (1 - 0.01 * z, 1 + 0.01 * z))):
        item = Skewed(1.0, 0.01, 10**9, skewness=sign * g)
        found = verdict(lambda run, item=item: run.measure("q", item, at_most=2.0)).measurements[0].interval
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
    share = dict(stderr=0.05, n=100, least=0.0, most=1.0, two_valued=True)
    ends = [
        verdict(lambda run, g=g: run.measure("q", st.Estimate(0.5, **share, skewness=g), at_most=2.0)).measurements[0].interval
        for g in (0.0, 0.06)
    ]
    assert ends[0] == ends[1]
    exact = verdict(lambda run: run.measure("q", Known(0.5, 0.0, 100, skewness=0.06), at_most=2.0)).measurements[0].interval
    assert (exact.low, exact.high, exact.level) == (0.5, 0.5, 1.0)


def test_the_wider_interval_has_the_stated_rate():
    """Exactly, from the binomial law of rare events whose mean has the skewness .069: 1.04e-3 are missed above without the term, 5e-4 +- a fifth with it.

    A claim that this mean lies below its true value is supported whenever the interval does.
    """
    n, p = 20_000, 0.01
    hits = np.arange(n + 1)
    mean = hits / n
    stderr = np.sqrt(mean * (1 - mean) / (n - 1))
    z, g = NormalDist().inv_cdf(1 - FALSE_SUPPORT / 2), (1 - 2 * p) / math.sqrt(n * p * (1 - p))
    rate = [binom.pmf(hits[mean + factor * z * stderr < p], n, p).sum() for factor in (1.0, widening(g, z))]
    assert rate[0] > FALSE_SUPPORT and 4e-4 < rate[1] < 6e-4


@pytest.mark.parametrize(("n", "state"), [(11, "inconclusive"), (12, "supported")])
def test_fewer_than_twelve_values_have_no_verdict(n, state):
    """Student's t interval relies on normal values. Exact numbers and counts, whose intervals rely on nothing, need none."""
    result = verdict(lambda run: run.measure("q", st.Estimate(0.0, 0.01, n), at_most=1.0))
    assert result.verdict == state
    outside = verdict(lambda run: run.measure("q", st.Estimate(9.0, 0.01, n), at_most=1.0))
    assert outside.verdict == ("inconclusive" if n < 12 else "contradicted")
    if n < 12:
        assert "Student's t interval of 11 values has no verdict" in result.reason and result.measurements[0].paths_needed == 12

    def exact(run):
        run.measure("share", st.Estimate(0.0, 0.0, 8, least=0.0, most=1.0, two_valued=True), at_most=0.9)
        run.measure("number", st.Estimate.exact(0.5), at_most=0.9)

    assert verdict(exact).verdict == "supported"


def test_decide_returns_the_estimate_of_the_last_look():
    asked = []
    run = ClaimContext("a")
    found = run.decide("q", estimator_of(0.0, 400.0, asked), at_most=10.0, paths=10_000)
    assert found.n == asked[-1] > 10_000 and run.record.measurements[0].estimate is found


def test_simulations_pass_their_skewness_on():
    """One step with a rare, large noise has a skewed mean, alone and in a gap; with normal noise none is seen, and an indicator needs none.

    The exact skewness is 31.6 / 128 = 0.247, less 1.5 standard errors 0.19. A normal mean would have to lie 2.8 standard errors away to show
    0.05, with probability 5e-3; the seed is that of the library, 0.
    """
    plan = st.schedules.constant(1.0)
    given = dict(x0=[0.0], horizon=1.0, paths=64 * 256, observe=["x0", st.Indicator(lambda x: x[0] > 3)], backend="numpy")
    for noise, skewed in ((st.noise.two_point(1, probability=1e-3), True), (st.noise.gaussian(1), False)):
        rule = st.SGD(st.NoisyOracle(st.losses.quadratic([[1.0]]), noise), plan)
        still = st.SGD(st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.none(1)), plan)
        for found in (st.simulate(rule, **given), st.weak_gap(rule, still, **given, coupled=False)):
            assert (abs(found.at(0).skewness) > 0.05) == skewed
    run = ClaimContext("a")
    run.measure("share", st.simulate(rule, **given).at(1), at_most=0.5)
    assert judge_measurement(run.record.measurements[0]).state == "inside"


def test_a_decision_checks_its_criterion_before_it_measures():
    """A wrong criterion or a name that is used costs no paths."""
    asked = []
    run = ClaimContext("a")
    run.measure("q", 1.0, at_most=2.0)
    for name, criterion in (("q", {"at_most": 1.0}), ("r", {}), ("r", {"expected": 1.0})):
        with pytest.raises(ValueError):
            run.decide(name, estimator_of(0.0, 1.0, asked), **criterion)
    assert asked == [] and [item.name for item in run.record.measurements] == ["q"]


def test_an_unknown_budget_is_refused():
    with pytest.raises(ValueError, match="`budget` must be one of quick, standard, full; got 'quik'. Did you mean `quick`"):
        ClaimContext("a", budget="quik")
