"""Distances in law: the values against SciPy and closed forms, the intervals' coverage at zero and far from it, the floor's level.

Coverage and levels are judged by binomial bounds at a stated false-alarm rate; seeds are fixed. Endpoints are normal, their means 1 apart
in the clear case: W_1 = 1, and the sliced W_1 of a shift d in the plane is 2 |d| / pi.
"""

from __future__ import annotations

import math
import tracemalloc
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr, ndtri

import sdetools as st
from sdetools.claims.record import Measured
from sdetools.estimates.resampling import KINDS, Resampling, chosen_knots
from sdetools.studies.distance import Distance, _ends, distance, unit_directions

ORACLE = st.NoisyOracle(st.losses.quadratic([1.0, 2.0]), st.noise.gaussian(dim=2), sigma=1.0)
NAN, INF = float("nan"), float("inf")
FEW = dict(resamples=19)
"""Where only the value counts."""


def normals(shape, seed):
    """Return standard normal numbers."""
    return np.random.default_rng([seed, 99]).standard_normal(shape)


def mean_absolute_value(mu, variance):
    """Return E|N(mu, variance)|."""
    s = math.sqrt(variance)
    return s * math.sqrt(2 / math.pi) * math.exp(-(mu**2) / (2 * variance)) + mu * (2 * ndtr(mu / s) - 1)


def truth(kind, d=1.0):
    """Return the distance of N(0, 1) and N(d, 1)."""
    return {
        "wasserstein": d,
        "kolmogorov": 2 * ndtr(d / 2) - 1,
        "energy": 2 * mean_absolute_value(d, 2) - 2 * mean_absolute_value(0, 2),
    }[kind]


def pairwise_energy(x, y):
    """Return the energy distance by its definition, from all pairs: the reference implementation."""

    def mean(a, b):
        return np.linalg.norm(a[:, :, None] - b[:, None, :], axis=0).mean()

    return 2 * mean(x, y) - mean(x, x) - mean(y, y)


# The value


SAMPLES = {
    "equal sizes": (normals(500, 0), normals(500, 1) + 0.3),
    "unequal sizes": (normals(500, 2), 2 * normals(173, 3)),
    "ties": (np.random.default_rng(4).integers(0, 6, 300), np.random.default_rng(5).integers(1, 9, 200)),
    "apart": (normals(50, 6), normals(70, 7) + 100),
    "one point": (np.zeros(3), np.full(5, 2.0)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_values_agree_with_scipy(name):
    """In one dimension, with and without ties, for equal and unequal sizes."""
    x, y = SAMPLES[name]
    scale = max(1.0, abs(np.mean(x) - np.mean(y)))
    assert distance(x, y, **FEW).value == pytest.approx(stats.wasserstein_distance(x, y), abs=1e-12 * scale)
    assert distance(x, y, "energy", **FEW).value == pytest.approx(stats.energy_distance(x, y) ** 2, abs=1e-12 * scale)
    assert distance(x, y, "kolmogorov", **FEW).value == pytest.approx(stats.ks_2samp(x, y).statistic, abs=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_shifted_normals_have_the_closed_forms(kind):
    """Exact quantiles have a grid error of at most 1 / n in the Kolmogorov distance; intervals of samples contain the exact distance."""
    points = ndtri((np.arange(4000) + 0.5) / 4000)
    tolerance = {"wasserstein": 1e-12, "kolmogorov": 1 / 4000, "energy": 1e-4}[kind]
    assert distance(points, points + 0.7, kind, **FEW).value == pytest.approx(truth(kind, 0.7), abs=tolerance)
    drawn = distance(normals(3000, 0), normals(2000, 1) + 0.7, kind)
    assert drawn.resolved
    low, high = tuple(drawn.confidence_interval(0.9999))
    assert 0 < low < truth(kind, 0.7) < high


@pytest.mark.parametrize("kind", KINDS)
def test_a_distance_is_symmetric_zero_on_itself_and_scales(kind):
    """Symmetry, identity and scaling."""
    x, y = SAMPLES["unequal sizes"]
    d, back = distance(x, y, kind, **FEW), distance(y, x, kind, **FEW)
    assert d.value == pytest.approx(back.value, rel=1e-13) and (d.n, d.m) == (back.m, back.n) == (500, 173)
    same = distance(x, x, kind, **FEW)
    assert same.value == same.low == 0 and not same.resolved
    tripled = distance(3 * x, 3 * y, kind, **FEW)
    factor = 1 if kind == "kolmogorov" else 3
    for name in ("value", "low", "high", "floor", "floor_high"):
        assert getattr(tripled, name) == pytest.approx(factor * getattr(d, name), rel=1e-12), name


@pytest.mark.parametrize("shift", [(0.3, 0.4), (0.0, -2.0), (1e-3, 0.0)])
def test_sliced_w1_of_a_shift_in_the_plane(shift):
    """E|<t, d>| = 2 |d| / pi; n equally spaced lines sum |cos| up to a relative (pi / n)^2 / 6."""
    x = normals((2, 300), 0)
    d = distance(x, x + np.array(shift)[:, None], **FEW)
    exact = 2 * math.hypot(*shift) / math.pi
    assert d.value == pytest.approx(exact, rel=(math.pi / 64) ** 2 / 6)
    assert abs(d.value - exact) < d.direction_error < 0.02 * exact
    assert d.directions == 64


@pytest.mark.parametrize("dim, mean", [(3, 1 / 2), (5, 3 / 8), (40, math.gamma(20) / math.sqrt(math.pi) / math.gamma(20.5))])
def test_sliced_w1_of_a_shift_in_space(dim, mean):
    """E|t_1| |d|, within five standard errors over the directions for 10 seeds (false alarm 10 P(|t_11| > 5) = 4e-3)."""
    x = normals((dim, 20), 0)
    for seed in range(10):
        d = distance(x, x + np.full((dim, 1), dim**-0.5), seed=seed, **FEW)
        assert abs(d.value - mean) < 5 * d.direction_error < mean


@pytest.mark.parametrize("dim", [2, 3, 6])
def test_sliced_energy_approximates_that_of_all_pairs(dim):
    """Averages over directions approximate the distance of the vectors."""
    x, y = normals((dim, 150), 0), 1.5 * normals((dim, 100), 1) + 0.5
    d, exact = distance(x, y, "energy", directions=240, **FEW), pairwise_energy(x, y)
    assert abs(d.value - exact) < 4 * d.direction_error < 0.2 * exact
    line = distance(x, y, "energy", coordinate=1, **FEW)
    assert line.value == pytest.approx(pairwise_energy(x[1:2], y[1:2]), rel=1e-10) and line.directions == 0


@pytest.mark.parametrize("dim, count", [(2, 7), (3, 9), (4, 10), (50, 8)])
def test_directions_are_unit_vectors_in_orthogonal_frames(dim, count):
    """Unit length; equally spaced in the plane, orthogonal frames in higher dimensions."""
    t = unit_directions(dim, count, 3)
    assert t.shape == (count, dim) and np.allclose((t**2).sum(axis=1), 1)
    if dim > 2:
        frame = t[: min(dim, count)]
        assert np.allclose(frame @ frame.T, np.eye(len(frame)))
    else:
        angles = np.sort(np.arctan2(t[:, 1], t[:, 0]) % np.pi)
        assert np.allclose(np.diff(angles), np.pi / count)


# Interval and floor


REPETITIONS = 200
ALARM = 1e-4
LEAST, MOST = stats.binom.ppf(ALARM / 2, REPETITIONS, 0.95), stats.binom.isf(ALARM / 2, REPETITIONS, 0.95)


@cache
def pairs(kind, d, n=50, m=70):
    """Return distances of 200 pairs of samples shifted by d."""
    return [distance(normals(n, 2 * s), normals(m, 2 * s + 1) + d, kind, seed=s) for s in range(REPETITIONS)]


def covered(results, exact):
    """Return how many intervals contain the exact distance."""
    return sum(r.low <= exact <= r.high for r in results)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_cover_at_distance_zero(kind):
    """200 repetitions, at least 176 hits (false alarm 5e-5)."""
    assert covered(pairs(kind, 0.0), 0.0) >= LEAST


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_cover_at_a_large_distance(kind):
    """The same bound; coverage is conservative there, and at most one pair is unresolved."""
    results = pairs(kind, 1.5)
    assert covered(results, truth(kind, 1.5)) >= LEAST
    assert sum(r.resolved for r in results) >= REPETITIONS - 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_floor_has_its_level_for_equal_laws(kind):
    """Between 176 and 199 of 200 (false alarm 1e-4), and the mean of the floor is that of the values."""
    results = pairs(kind, 0.0)
    unresolved = sum(not r.resolved for r in results)
    assert LEAST <= unresolved <= MOST
    assert all(r.low == 0 for r in results if not r.resolved)
    # The mean of the floor is the mean of the values: five standard errors (false alarm 1e-6).
    values, floors = np.array([r.value for r in results]), np.array([r.floor for r in results])
    assert abs(values.mean() - floors.mean()) < 5 * values.std() / math.sqrt(REPETITIONS)


@pytest.mark.parametrize("law", ["steps", "heavy tails"])
def test_the_floor_has_its_level_for_other_laws(law):
    """At least 176 of 200 (false alarm 5e-5), for binomial laws and Student's t with 3 degrees of freedom, half of them of unequal sizes."""
    below = 0
    for s in range(REPETITIONS):
        rng = np.random.default_rng([s, 5])
        n, m = (30, 40) if s % 2 else (300, 15)
        draw = (lambda k: rng.integers(0, 2, (6, k)).sum(axis=0)) if law == "steps" else (lambda k: rng.standard_t(3, k))
        below += not distance(draw(n), draw(m), list(KINDS)[s % 3], seed=s).resolved
    assert below >= LEAST


@pytest.mark.slow
def test_sliced_intervals_cover_and_sliced_floors_have_their_level():
    """100 repetitions each, at least 85 hits (false alarm 5e-5): a shift in the plane over its own directions; equal laws in space."""
    least = stats.binom.ppf(ALARM / 2, 100, 0.95)
    hits = below = 0
    for s in range(100):
        x, y = normals((2, 40), 2 * s), normals((2, 40), 2 * s + 1) + np.array([[0.9], [0.0]])
        d = distance(x, y, directions=6, seed=s)
        hits += d.low <= 0.9 * np.abs(unit_directions(2, 6, s)[:, 0]).mean() <= d.high
        below += not distance(normals((3, 30), 2 * s), normals((3, 40), 2 * s + 1), "energy", directions=6, seed=s).resolved
    assert hits >= least and below >= least


def test_a_bootstrap_of_the_value_does_not_cover_zero():
    """Negative control: with no correction of the bias, no percentile interval contains 0, and a third of 100 normal intervals do."""
    percentiles = deviations = 0
    for s in range(100):
        rng = np.random.default_rng([s, 6])
        x, y = np.sort(normals(50, 2 * s)), np.sort(normals(50, 2 * s + 1))
        again = [np.sort(rng.choice(z, (200, 50)), axis=1) for z in (x, y)]
        draws = np.abs(again[0] - again[1]).mean(axis=1)
        percentiles += np.quantile(draws, 0.025) <= 0
        deviations += np.abs(x - y).mean() <= 1.96 * draws.std()
    assert percentiles == 0 and deviations < 60 < stats.binom.ppf(ALARM / 2, 100, 0.95)


def test_half_the_noise_does_not_cover():
    """Negative control: half the radius covers 0 in far fewer than 176 of 200 (the value itself is about half the radius)."""
    results = pairs("wasserstein", 0.0)
    hits = sum(_ends(r.kind, r.value, True, r.draws[190] / 2)[0] == 0 for r in results)
    assert hits < 0.6 * REPETITIONS < LEAST


@pytest.mark.sample(4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n, m", [(200, 200), (9000, 6000), (20_000, 500)])
def test_floor_and_noise_have_their_exact_means(kind, n, m):
    """Single paths, groups with coarse knots, and lopsided samples, against the Brownian bridge's closed forms.

    E sup|B| = 0.8687; E|B_t| = sqrt(2 t (1 - t) / pi); E B_t^2 = t (1 - t). Standard errors: of 500 draws of spread 0.3, 0.4, 0.9 of the mean,
    and of spread estimated from g groups, 1 / sqrt(2 g) (its double for squares); samples of 200 miss the integrals by about 5 %, and discrete
    sups lag by 0.6 / sqrt(n + m) and the knots. Five of them.
    """
    root = math.sqrt(1 / n + 1 / m)
    grid = np.linspace(-9, 9, 20_001)
    share = ndtr(grid) * ndtr(-grid)
    expected, spread = {
        "wasserstein": (math.sqrt(2 / math.pi) * np.trapezoid(np.sqrt(share), grid) * root, 0.4),
        "kolmogorov": (0.8687 * root, 0.3),
        "energy": (2 * np.trapezoid(share, grid) * root**2, 0.9),
    }[kind]
    power = KINDS[kind].power
    d = distance(normals(n, 0), normals(m, 1), kind, resamples=500)
    groups = 64 if m < n / 16 else 200
    tolerance = 5 * math.sqrt(spread**2 / 500 + power**2 / (2 * groups) / 2) + (0.05 if n + m == 400 else 0.01)
    assert d.floor == pytest.approx(expected, rel=tolerance)
    assert np.mean(d.draws**power) == pytest.approx(expected, rel=tolerance)


def test_coarse_knots_change_little():
    """Changes below 1 % of W_1 and energy at 512 knots, and of the Kolmogorov noise at 16,384, against all 30,000 points."""
    x, y = normals(15_000, 0), normals(15_000, 1)
    ends = np.sort(x), np.sort(y)
    resampling = Resampling(15_000, 15_000, 15_000, 50, np.random.default_rng(2))
    for kind, limit in (("wasserstein", 512), ("energy", 512), ("kolmogorov", 16_384)):
        fine, coarse = (resampling.parts(x, y, chosen_knots(*ends, many), KINDS[kind]) for many in (30_000, limit))
        for a, b in zip(fine, coarse):
            assert b.mean() == pytest.approx(a.mean(), rel=0.01) and np.allclose(a, b, rtol=0.1)
    assert len(chosen_knots(*ends, 512)) <= 512 and len(chosen_knots(*ends, 30_000)) == 30_000
    assert np.isin(ends[1][:100], chosen_knots(ends[0], ends[1][:100], 512)).all()


def test_the_order_of_the_paths_does_not_matter():
    """Groups of a sorted sample would have different laws. The values are equal, the floors up to Monte Carlo error (5 standard errors)."""
    x, y = normals(5000, 0), normals(5000, 1)
    drawn, ordered = distance(x, y), distance(np.sort(x), np.sort(y))
    assert drawn.value == ordered.value
    assert ordered.floor == pytest.approx(drawn.floor, rel=5 * 0.4 * math.sqrt(2 / 200))


def test_positively_correlated_samples_are_conservative():
    """No false alarm in 100 runs at correlation 0.9; at -0.9 more than 12, which a level of 5 % exceeds in 0.2 % of cases."""
    alarms = {sign: 0 for sign in (1, -1)}
    for s in range(100):
        x, own = normals((2, 50), s)
        for sign in alarms:
            alarms[sign] += distance(x, sign * 0.95 * x + math.sqrt(1 - 0.95**2) * own, "energy", seed=s).resolved
    assert alarms[1] == 0 and alarms[-1] > 12


def test_intervals_at_other_confidences():
    """Higher levels give wider intervals, from bootstrap quantiles and from the Gaussian bound."""
    d = distance(normals(400, 0), normals(300, 1) + 0.5)
    assert (d.low, d.high) == tuple(d.confidence_interval(0.95))
    ends = [tuple(d.confidence_interval(c)) for c in (0.5, 0.9, 0.95, 0.99, 0.9999, 1 - 1e-9)]
    assert all(a[0] >= b[0] and a[1] < b[1] for a, b in pairwise(ends))
    # The Gaussian bound, used beyond the draws, exceeds the quantile of 1,000 draws.
    for kind in KINDS:
        d = distance(normals(400, 0), normals(300, 1) + 0.5, kind, resamples=1000)
        for confidence in (0.9, 0.95, 0.99):
            assert np.median(d.draws) + d.scale * ndtri(confidence) > np.quantile(d.draws, confidence)
    assert isinstance(d, Measured)
    with pytest.raises(ValueError, match="level"):
        d.confidence_interval(1.0)


def test_paths_for_is_sufficient():
    """From a pilot of 100 paths, for a shift by 0.4, 2.5 standard deviations above the floor: 17 of 20 resolved (false alarm 1e-5)."""
    for kind in ("wasserstein", "energy"):
        paths = distance(normals(100, 2), normals(100, 3), kind).paths_for(truth(kind, 0.4))
        assert 100 < paths < 1000
        pairs = [(normals(paths, 2 * s), normals(paths, 2 * s + 1) + 0.4) for s in range(20)]
        assert sum(distance(x, y, kind, seed=s).resolved for s, (x, y) in enumerate(pairs)) >= 17
    with pytest.raises(ValueError, match="size"):
        distance(normals(10, 0), normals(10, 1)).paths_for(0.0)


# Input and output


def test_results_depend_on_points_and_seed_alone():
    """Repeated calls agree bitwise; another seed changes the resampling and the directions."""
    x, y = normals((3, 200), 0), normals((3, 150), 1)
    for kind, more in (("wasserstein", {}), ("energy", {}), ("kolmogorov", {"coordinate": 2})):
        first, again, other = (distance(x, y, kind, directions=5, seed=seed, **more) for seed in (7, 7, 8))
        assert first == again and np.array_equal(first.draws, again.draws)
        assert first.floor != other.floor
        assert (first.value == other.value) == (kind == "kolmogorov")
    few = x[:, :100]
    # The directions depend on the seed, not on the sample.
    assert distance(few, few + 1.0, seed=1, **FEW).value == pytest.approx(distance(y, y + 1.0, seed=1, **FEW).value)


def test_one_coordinate_is_a_one_dimensional_sample():
    """`coordinate=` agrees with the distance of that row."""
    x, y = normals((2, 80), 0), normals((2, 90), 1)
    for kind in KINDS:
        assert distance(x, y, kind, coordinate=1) == distance(x[1], y[1], kind) == distance(x[1:], y[1:].tolist(), kind)


def run(beta=0.5, **more):
    """Simulate SGDM and keep its last points."""
    plan = st.schedules.constant(0.25, beta)
    options = dict(horizon=2.0, paths=200, observe=["x0"], threads=1, backend="numpy", keep_final=True)
    return st.simulate(st.SGDM(ORACLE, plan), **({"x0": [1.0, 2.0]} | options | more))


def test_runs_are_taken_at_their_last_points():
    """Runs are accepted as samples if they have their last points."""
    one, same, other = run(), run(stream=2), run(beta=0.95, stream=2)
    d = distance(one, same, directions=6)
    assert d == distance(one.final, same.final, directions=6) and (d.n, d.m) == (200, 200)
    assert not d.resolved and distance(one, other, directions=6).resolved
    with pytest.raises(ValueError, match="keep_final=True"):
        distance(one, run(keep_final=False))


@pytest.mark.parametrize("kind", KINDS)
def test_diverged_paths_are_reported_and_not_dropped(kind):
    """With any NaN or infinity the value is NaN, the interval infinite, and the diverged paths are counted."""
    x, y = normals((2, 50), 0), normals((2, 60), 1)
    x[0, 3], x[1, 3], y[1, 9] = NAN, INF, -INF
    d = distance(x, y, kind, coordinate=0)
    assert math.isnan(d.value) and (d.low, d.high) == (-INF, INF) == tuple(d.confidence_interval(0.5)) and not d.resolved
    assert d.diverged == 2 and "2 of them left the finite range" in repr(d)
    with pytest.raises(ValueError, match="left the finite range"):
        d.paths_for(0.1)


def test_points_without_noise_are_exact():
    """Constant samples have intervals of width 0."""
    d = distance(np.full(20, 1.5), np.full(30, 1.0))
    assert d.low == d.value == d.high == 0.5 and d.resolved
    assert tuple(d.confidence_interval(1 - 1e-9)) == (0.5, 0.5)
    same = distance(np.ones(20), np.ones(20), "energy")
    assert same.value == same.high == same.floor_high == 0 and not same.resolved


def test_two_paths_give_a_wide_interval():
    """The smallest possible samples are unresolved."""
    d = distance([0.0, 1.0], [5.0, 6.0])
    assert d.value == 5 and not d.resolved and d.low == 0


def test_repr():
    """Name, numbers of paths, directions, and whether the distance is resolved."""
    line = distance(normals(400, 2), normals(400, 3))
    assert repr(line).startswith("W1 = ") and repr(line).endswith(": unresolved") and "400 and 400 paths" in repr(line)
    sliced = repr(distance(normals((2, 60), 0), normals((2, 60), 1) + 3.0, directions=8))
    assert sliced.startswith("sliced W1 = ") and "8 directions" in sliced and sliced.endswith(": resolved")
    assert repr(distance(normals(40, 0), normals(40, 1), "kolmogorov")).startswith("Kolmogorov distance = ")
    with pytest.raises(AttributeError):
        line.value = 0.0
    assert isinstance(line, Distance)


def test_memory_is_bounded():
    """A million paths take less than 200 MB in addition to the points."""
    x, y = normals(10**6, 0), normals(10**6, 1)
    tracemalloc.start()
    distance(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


GOOD = normals(20, 0)
PLANE = normals((2, 20), 0)
BAD = {
    "kind": (lambda: distance(GOOD, GOOD, "hellinger"), "one of wasserstein, kolmogorov, energy"),
    "words": (lambda: distance(["fast"], GOOD), "`first`"),
    "no points": (lambda: distance(GOOD, None), "`second`"),
    "empty": (lambda: distance(GOOD, []), "at least 2 paths"),
    "one path": (lambda: distance(np.zeros((2, 1)), PLANE), "at least 2 paths"),
    "a number": (lambda: distance(1.0, GOOD), "component first"),
    "several times": (lambda: distance(np.zeros((2, 3, 4)), PLANE), "component first"),
    "other dimension": (lambda: distance(PLANE, GOOD), "component first"),
    "paths first": (lambda: distance(PLANE.T, PLANE), "one dimension; got 20 and 2"),
    "Kolmogorov in the plane": (lambda: distance(PLANE, PLANE, "kolmogorov"), "coordinate=0"),
    "coordinate too large": (lambda: distance(PLANE, PLANE, coordinate=2), "0..1"),
    "coordinate negative": (lambda: distance(PLANE, PLANE, coordinate=-1), "coordinate"),
    "coordinate a name": (lambda: distance(PLANE, PLANE, coordinate="x"), "coordinate"),
    "one direction": (lambda: distance(PLANE, PLANE, directions=1), "directions"),
    "half a direction": (lambda: distance(PLANE, PLANE, directions=2.5), "directions"),
    "confidence 1": (lambda: distance(GOOD, GOOD, confidence=1.0), "confidence"),
    "confidence in per cent": (lambda: distance(GOOD, GOOD, confidence=95), "0.95"),
    "confidence NaN": (lambda: distance(GOOD, GOOD, confidence=NAN), "confidence"),
    "no resamples": (lambda: distance(GOOD, GOOD, resamples=0), "resamples"),
    "too few resamples": (lambda: distance(GOOD, GOOD, resamples=18), "at least 19"),
    "too few resamples for 99.9 %": (lambda: distance(GOOD, GOOD, confidence=0.999), "at least 999"),
    "seed negative": (lambda: distance(GOOD, GOOD, seed=-1), "seed"),
    "seed a word": (lambda: distance(GOOD, GOOD, seed="lucky"), "seed"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_remedy(name):
    """Each message names the argument and a remedy."""
    call, word = BAD[name]
    with pytest.raises(ValueError) as caught:
        call()
    text = str(caught.value)
    assert word in text and "got" in text and "\n" not in text


def test_the_minimum_of_resamples_in_the_message_is_accepted():
    """The bound that the message states is sharp."""
    for confidence, least in ((0.95, 19), (0.999, 999)):
        assert distance(GOOD, GOOD + 9, confidence=confidence, resamples=least).resolved


def test_the_scale_of_wasserstein_noise_is_the_standard_error_of_the_difference_of_means():
    """The standard error of the difference of the means."""
    rng = np.random.default_rng(4)
    first, second = rng.normal(0.0, 1.0, 400), rng.normal(0.0, 3.0, 700)
    expected = np.sqrt(first.var(ddof=1) / 400 + second.var(ddof=1) / 700)
    assert st.distance(first, second).scale == pytest.approx(expected, rel=1e-12)
