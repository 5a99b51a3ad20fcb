"""The formulas of distances in law against explicit sums on small arrays: resampling, knots, directions, intervals, sample sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from sdetools.estimates import resampling
from sdetools.estimates.resampling import KINDS, Resampling, chosen_knots
from sdetools.studies import distance as module
from sdetools.studies.distance import (
    Distance,
    _direction_error,
    _ends,
    _radius,
    _rank,
    distance,
    unit_directions,
)

RNG = np.random.default_rng(21)


def share_below(points, weights, knots):
    """Return the weighted distribution function of points at the knots."""
    return (points <= knots[:, None]) @ weights / sum(weights)


def norm(kind, process, knots):
    """Return a norm, to its power, of a process that is constant between knots: the reference implementation."""
    widths = np.diff(knots)
    return {
        "wasserstein": sum(abs(p) * w for p, w in zip(process, widths)),
        "kolmogorov": max(abs(p) for p in process),
        "energy": 2 * sum(p**2 * w for p, w in zip(process, widths)),
    }[kind]


# -- resampling ----------------------------------------------------------------------------------------------------------------------


def groups_of(sampling, which, values):
    """Return the values of the resampled paths and their groups."""
    edges = sampling.edges[which]
    return values[sampling.order[which]], np.repeat(np.arange(len(edges) - 1), np.diff(edges))


@pytest.mark.parametrize(("n", "m", "most"), [(23, 17, 23), (400, 9, 400), (9, 400, 400), (700, 500, 700), (800, 90, 60)])
@pytest.mark.parametrize("kind", KINDS)
def test_resampled_norms_are_those_of_weighted_samples(kind, n, m, most, monkeypatch):
    """Path by path: single paths, samples of very different sizes, groups of unequal lengths, and subsets of the paths.

    The bootstrap gives each group of a sample an integer weight. Its noise is scaled by sqrt(g/(g - 1)) for g groups and by the root of the
    share of paths that are resampled. A split is rescaled from its own sizes to 1/n + 1/m. Knots are processed in blocks of 64 here.
    """
    monkeypatch.setattr(resampling, "BLOCK", 1)
    draws = 3
    sampling = Resampling(n, m, most, draws, np.random.default_rng(8))
    x, y = RNG.normal(0, 1, n), RNG.normal(0.3, 1.5, m)
    knots = np.sort(np.concatenate([x, y]))[::2]
    centred, permuted = sampling.parts(x, y, knots, KINDS[kind])
    own = [groups_of(sampling, i, values) for i, values in enumerate((x, y))]
    for b in range(draws):
        noise, pooled, side = [], [], []
        for i, ((values, group), size) in enumerate(zip(own, (n, m))):
            g = int(group.max()) + 1
            weights, on_first = sampling.weights[i][b], sampling.weights[i][draws + b]
            assert weights.sum() == g and (weights >= 0).all()
            factor = math.sqrt(g / (g - 1) * len(values) / size)
            noise.append(factor * (share_below(values, weights[group], knots) - share_below(values, 1 + 0 * values, knots)))
            pooled.append(values), side.append(on_first[group])
        assert centred[b] == pytest.approx(norm(kind, noise[0] - noise[1], knots), rel=1e-12)
        pooled, side = np.concatenate(pooled), np.concatenate(side)
        sizes = side.sum(), (1 - side).sum()
        stretch = math.sqrt((1 / n + 1 / m) / (1 / sizes[0] + 1 / sizes[1]))
        split = share_below(pooled, side, knots) - share_below(pooled, 1 - side, knots)
        assert permuted[b] == pytest.approx(norm(kind, stretch * split, knots), rel=1e-12)
    # The first side has as many groups as the first sample; permutations and weights differ between draws.
    assert all(
        sampling.weights[0][draws + b].sum() + sampling.weights[1][draws + b].sum() == own[0][1].max() + 1 for b in range(draws)
    )
    assert len({tuple(w) for w in sampling.weights[0]}) == 2 * draws or n < 16


@pytest.mark.parametrize(
    ("n", "m", "most", "used", "groups"),
    [
        (23, 17, 23, (23, 17), (23, 17)),  # single paths
        (2, 40, 40, (2, 32), (2, 32)),  # of the larger sample at most 16 times the smaller
        (40, 2, 40, (32, 2), (32, 2)),
        (500, 524, 524, (500, 524), (250, 262)),  # 512 groups of two
        (6000, 640, 6000, (6000, 640), (600, 64)),  # 64 groups of the smaller, of ten
        (300, 200, 100, (100, 100), (100, 100)),  # at most `most` paths
    ],
)
def test_how_many_paths_and_groups_are_resampled(n, m, most, used, groups):
    """The numbers of paths and groups for several sizes; the paths are distinct, and the groups of equal length up to 1."""
    sampling = Resampling(n, m, most, 2, np.random.default_rng(0))
    assert tuple(map(len, sampling.order)) == used and tuple(len(e) - 1 for e in sampling.edges) == groups
    for order, edges, size, paths in zip(sampling.order, sampling.edges, (n, m), used):
        assert len(set(order.tolist())) == paths and order.min() >= 0 and order.max() < size
        assert (edges[0], edges[-1]) == (0, paths) and set(np.diff(edges)) <= {
            paths // (len(edges) - 1),
            -(-paths // (len(edges) - 1)),
        }


def test_all_groups_have_the_same_law():
    """Mean 1 and variance (g - 1)/g of 4,000 weights of 20 groups, side probabilities 12/20 and 8/20: five standard errors, 1e-4 in all."""
    sampling = Resampling(12, 8, 12, 4000, np.random.default_rng(1))
    weights = np.concatenate([w[:4000].ravel() for w in sampling.weights])
    assert np.abs(sampling.weights[0][:4000].mean(axis=0) - 1).max() < 5 * 4000**-0.5
    assert weights.var() == pytest.approx((12 * 11 / 12 + 8 * 7 / 8) / 20, rel=5 * math.sqrt(3 / weights.size))
    sides = np.concatenate([w[4000:] for w in sampling.weights], axis=1).mean(axis=0)
    assert np.abs(sides - 0.6).max() < 5 * math.sqrt(0.24 / 4000)


def test_products_of_integers_are_exact():
    """Both by einsum and, for large products, by BLAS."""
    for knots in (3, 700):
        weights, counts = RNG.integers(0, 9, (200, 64)).astype(float), RNG.integers(0, 99, (64, knots)).astype(float)
        assert np.array_equal(resampling._product(weights, counts), weights.astype(int) @ counts.astype(int))


def test_knots_are_densest_in_the_tails():
    """Of a sample of 30 the points at 29 sin^2 of equal angles; all points of a small sample, which leaves more knots for the other."""
    a, b = np.sort(RNG.normal(size=30)), np.sort(RNG.normal(size=25))
    chosen = (
        [round(29 * math.sin(math.pi / 2 * k / 5) ** 2) for k in range(6)],
        [round(24 * math.sin(math.pi / 2 * k / 5) ** 2) for k in range(6)],
    )
    assert chosen[0] == [0, 3, 10, 19, 26, 29]
    np.testing.assert_array_equal(chosen_knots(a, b, 12), np.sort(np.concatenate([a[chosen[0]], b[chosen[1]]])))
    rest = [round(29 * math.sin(math.pi / 2 * k / 7) ** 2) for k in range(8)]
    np.testing.assert_array_equal(chosen_knots(a, b[:4], 12), np.sort(np.concatenate([a[rest], b[:4]])))
    np.testing.assert_array_equal(chosen_knots(b[:4], a, 12), chosen_knots(a, b[:4], 12))


# -- directions ------------------------------------------------------------------------------------------------------------------------------


def test_directions_in_the_plane_are_equally_spaced_with_a_random_rotation():
    """The random rotation is a fraction of the spacing."""
    rotation = np.random.default_rng([5, 0]).random()
    angles = math.pi * (np.arange(7) + rotation) / 7
    np.testing.assert_allclose(
        unit_directions(2, 7, 5), np.stack([np.cos(angles), np.sin(angles)], axis=1), rtol=1e-13, atol=1e-15
    )


def test_the_error_over_directions():
    """In the plane from successive differences around the half circle; in space from at least four frames, or else from directions."""
    v = np.array([1.0, 1.4, 2.0, 1.7, 1.1, 0.3, 0.6, 0.9, 1.3])
    successive = [v[0] - v[8], *(v[k] - v[k - 1] for k in range(1, 9))]
    assert _direction_error(v, 2) == pytest.approx(math.sqrt(sum(d * d for d in successive) / 9 / 2 / 9), rel=1e-13)
    assert _direction_error(v, 3) == pytest.approx(stats.sem(v), rel=1e-13)
    longer = np.concatenate([v, v[:5] ** 2])
    frames = [longer[3 * k : 3 * k + 3].mean() for k in range(4)]
    assert _direction_error(longer, 3) == pytest.approx(stats.sem(frames), rel=1e-13)
    assert _direction_error(longer, 4) == pytest.approx(stats.sem(longer), rel=1e-13)


@pytest.mark.parametrize("dim", [2, 3, 7])
def test_the_constant_between_a_norm_and_its_mean_projection(dim):
    """|x| = c E|<t, x>|, E|t_1| = Gamma(d/2) / (sqrt(pi) Gamma((d + 1)/2)): c = pi/2, 2 and 3.2 in 2, 3 and 7 dimensions."""
    expected = {2: math.pi / 2, 3: 2.0, 7: 3.2}[dim]
    assert module._norm_constant(dim) == pytest.approx(expected, rel=1e-12)


# -- distances ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wasserstein", "energy"])
@pytest.mark.parametrize(("dim", "lines"), [(1, 0), (2, 5), (3, 7)])
def test_a_distance_is_the_average_over_its_directions(kind, dim, lines):
    """Value, floor, noise, scale and error from the single directions; for energy the squared norm is averaged before the root."""
    n, m, draws = 31, 22, 39
    x, y = RNG.normal(size=(dim, n)), RNG.normal(0.4, 1.3, (dim, m))
    d = distance(x, y, kind, directions=lines or 64, confidence=0.9, resamples=draws, seed=6)
    sampling = Resampling(n, m, max(n, m), draws, np.random.default_rng([6, 1]))
    rows = [(t @ x, t @ y) for t in unit_directions(dim, lines, 6)] if lines else [(x[0], y[0])]
    if kind == "wasserstein":
        values = [stats.wasserstein_distance(a, b) for a, b in rows]
    else:
        values = [stats.energy_distance(a, b) ** 2 for a, b in rows]
    parts = [sampling.parts(a, b, np.sort(np.concatenate([a, b])), KINDS[kind]) for a, b in rows]
    constant = 1.0 if kind == "wasserstein" or not lines else {2: math.pi / 2, 3: 2.0}[dim]
    noise, split = (constant * np.mean([p[i] for p in parts], axis=0) for i in (0, 1))
    noise = np.sort(np.sqrt(noise) if kind == "energy" else noise)
    assert d.value == pytest.approx(constant * np.mean(values), rel=1e-12)
    np.testing.assert_allclose(d.draws, noise, rtol=1e-12)
    assert (d.floor, d.floor_high) == pytest.approx((split.mean(), np.sort(split)[35]), rel=1e-12)  # 0.9 x 40 is the 36th
    spread = [math.sqrt(a.var(ddof=1) / n + b.var(ddof=1) / m) for a, b in rows]
    assert d.scale == pytest.approx(np.mean(spread) if kind == "wasserstein" else math.sqrt(np.mean(noise**2)), rel=1e-12)
    assert d.direction_error == pytest.approx(constant * _direction_error(np.array(values), dim) if lines else 0.0, rel=1e-10)
    assert (d.n, d.m, d.kind, d.confidence, d.diverged, d.directions) == (n, m, kind, 0.9, 0, lines)
    assert (d.low, d.high) == tuple(d.confidence_interval(0.9))


def test_the_scale_of_kolmogorov_noise():
    """F (1 - F) is at most a quarter: sqrt((1/n + 1/m) / 4)."""
    d = distance(RNG.normal(size=31), RNG.normal(size=22), "kolmogorov", resamples=19)
    assert d.scale == pytest.approx(math.sqrt((1 / 31 + 1 / 22) / 4), rel=1e-14)


def test_the_default_number_of_directions(monkeypatch):
    """There are 64 directions by default."""
    x = RNG.normal(size=(2, 9))
    assert distance(x, x + 1, resamples=19).directions == 64


def test_the_numbers_of_knots_and_resampled_paths(monkeypatch):
    """Each kind has its number of knots; sliced distances have `SLICED_KNOTS`, and resample at most `SLICED_PATHS` paths."""
    monkeypatch.setattr(module, "SLICED_KNOTS", 20)
    monkeypatch.setattr(module, "SLICED_PATHS", 50)
    monkeypatch.setitem(KINDS, "energy", replace(KINDS["energy"], knots=30))
    sizes = []
    parts = Resampling.parts

    def recorded(self, a, b, knots, gauge):
        sizes.append((len(knots), *map(len, self.order)))
        return parts(self, a, b, knots, gauge)

    monkeypatch.setattr(Resampling, "parts", recorded)
    x, y = RNG.normal(size=(2, 90)), RNG.normal(size=(2, 80))
    distance(x, y, "energy", directions=2, resamples=19)
    distance(x, y, "energy", coordinate=1, resamples=19)
    assert sizes == [(20, 50, 50), (20, 50, 50), (30, 90, 80)]


# -- intervals and sizes -----------------------------------------------------------------------------------------------------------------


def test_the_rank_that_bounds_one_more_draw():
    """The smallest r with r / (draws + 1) >= confidence."""
    assert [_rank(19, 0.95), _rank(39, 0.95), _rank(199, 0.95), _rank(200, 0.95), _rank(999, 0.999)] == [19, 38, 190, 191, 999]


def test_the_radius_is_a_quantile_of_the_draws_or_a_gaussian_bound():
    """The quantile is used if more than five draws exceed it."""
    draws = np.sort(RNG.exponential(size=101))
    edge = 1 - 5 / 101
    for confidence, draw in ((0.9, 91), (edge - 1e-3, 96)):
        assert _radius(draws, 0.3, confidence) == draws[draw]
    for confidence in (edge + 1e-3, 0.999):
        assert _radius(draws, 0.3, confidence) == pytest.approx(draws[50] + 0.3 * special.ndtri(confidence), rel=1e-14)
    assert _radius(draws[:6], 0.3, 0.3) == np.median(draws[:6])  # few draws: at least their median


@pytest.mark.parametrize(
    ("kind", "value", "resolved", "expected"),
    [
        ("wasserstein", 0.7, True, (0.45, 0.95)),
        ("wasserstein", 0.7, False, (0.0, 0.95)),
        ("wasserstein", 0.2, True, (0.0, 0.45)),
        ("kolmogorov", 0.8, True, (0.55, 1.0)),
        ("kolmogorov", 0.6, True, (0.35, 0.85)),
        ("energy", 0.49, True, (0.2025, 0.9025)),
        ("energy", 1.21, False, (0.0, 1.8225)),
        ("energy", 0.04, True, (0.0, 0.2025)),
    ],
)
def test_an_interval_is_the_norm_with_its_radius_on_both_sides(kind, value, resolved, expected):
    """A radius of 1/4; energy by its root; a Kolmogorov distance is at most 1, and no distance is negative."""
    assert _ends(kind, value, resolved, 0.25) == pytest.approx(expected, rel=1e-12)
    floor = value - 0.01 if resolved else value
    d = Distance(value, 0.1, floor, 20, 30, kind, 0.95, draws=np.full(7, 0.25), scale=0.0)
    assert d.resolved == resolved and tuple(d.confidence_interval(0.99)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("kind", "factor"), [("wasserstein", 2.0), ("kolmogorov", 2.0), ("energy", 4.0)])
def test_paths_for_a_distance_of_given_size(kind, factor):
    """The floor of the norm is of order sqrt(1/n + 1/m), here sqrt(1/12); half of the size for W_1, a quarter for the squared energy norm."""
    d = Distance(0.5, 0.1, 0.13, 20, 30, kind)
    ratio = factor * 0.13 / 0.011
    needed = 24 * ratio ** (2 if kind != "energy" else 1)
    assert d.paths_for(0.011) == math.ceil(needed) and d.paths_for(1e9) == 2


def test_a_distance_with_diverged_paths_has_an_infinite_interval():
    """One path of the first sample is NaN."""
    found = distance([1.0, math.nan, 3.0], [0.5, 1.5], confidence=0.9)
    assert (
        math.isnan(found.value)
        and math.isnan(found.floor)
        and (found.low, found.high, found.floor_high) == (-math.inf, math.inf, math.inf)
    )
    assert (found.n, found.m, found.confidence, found.diverged, found.directions) == (3, 2, 0.9, 1, 0)
    assert tuple(found.confidence_interval(0.5)) == (-math.inf, math.inf)


def test_seeds_have_64_bits():
    """The largest seed is accepted, a larger one is refused."""
    assert distance([1.0, 2.0], [3.0, 4.0], resamples=19, seed=2**64 - 1).value == 2
    with pytest.raises(ValueError, match="seed"):
        distance([1.0, 2.0], [3.0, 4.0], resamples=19, seed=2**64)
