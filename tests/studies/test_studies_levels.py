"""The formulas of multilevel Monte Carlo on small arrays, beside sums written out: moments, fits, biases, costs and checks.

Nothing is drawn but for a few paths by plain NumPy, which are compared with the points that they ended at.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import sdetools as st
from sdetools.simulation.engine import Sums
from sdetools.simulation.philox import Stream
from sdetools.studies.execution import Execution
from sdetools.studies.multilevel import levels
from sdetools.studies.multilevel.estimator import _check_divides
from sdetools.studies.multilevel.levels import (
    Level,
    LevelMoments,
    LevelSampler,
    combined,
    decay_order,
    fitted_order,
    remaining_bias,
)
from sdetools.studies.multilevel.result import Multilevel, MultilevelEstimate
from sdetools.studies.multilevel.search import TAIL_PATHS, Search
from sdetools.studies.sampler import Sampler

PLAIN = Execution(backend="numpy", threads=1)
OU = st.SDE(drift=["-x"], diffusion=["0.3 + 0.1*x"], variables="x")
RNG = np.random.default_rng(12)


def moments(n, means, squares, kurtosis=None, diverged=0, first=-1, kurtosis_paths=None):
    """Return moments of a level with arbitrary defaults."""
    squares = np.array(squares, dtype=float)
    kurtosis = np.ones_like(squares) if kurtosis is None else np.array(kurtosis, dtype=float)
    return LevelMoments(
        n, np.array(means, dtype=float), squares, kurtosis, n if kurtosis_paths is None else kurtosis_paths, diverged, first
    )


# -- moments ------------------------------------------------------------------------------------------------------------------------


def test_pooled_moments_are_those_of_all_paths():
    """Two observables; the numbers of diverged paths add, the earlier divergence counts, and the kurtosis is that of the larger sample."""
    sample = RNG.normal(2.0, 1.0, (3, 2, 70)) * np.array([1.0, 3.0, 5.0])[:, None, None]

    def of(part, kurtosis, diverged, first):
        mean = part.mean(axis=-1)
        squares = ((part - mean[..., None]) ** 2).sum(axis=-1)
        return moments(part.shape[-1], mean, squares, np.full((3, 2), kurtosis), diverged, first)

    small, large = of(sample[..., :20], 3.5, 2, 9), of(sample[..., 20:], 4.5, 3, 7)
    pooled = small.pooled(large)
    np.testing.assert_allclose(pooled.means, sample.mean(axis=-1), rtol=1e-13)
    np.testing.assert_allclose(pooled.squares, ((sample - sample.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1), rtol=1e-13)
    assert (pooled.n, pooled.diverged, pooled.first_divergence, pooled.kurtosis_paths) == (70, 5, 7, 50) and (
        pooled.kurtosis == 4.5
    ).all()
    assert (
        small.pooled(replace(large, first_divergence=-1)).first_divergence,
        replace(small, first_divergence=-1).pooled(large).first_divergence,
    ) == (9, 7)
    assert small.pooled(None) is small


def test_variances_and_unobserved_differences():
    """Squares over n - 1; if the members agree on all n paths, a share of 1/n may still differ by a standard deviation of h."""
    seen = moments(41, np.zeros((3, 2)), [[8.0, 0.0], [12.0, 20.0], [16.0, 24.0]], [[1, 2], [5, 7], [3, 4]], kurtosis_paths=10)
    np.testing.assert_allclose(seen.variances, [[0.2, 20 / 40 / 41], [0.3, 0.5], [0.4, 0.6]], rtol=1e-14)
    assert seen.unseen.tolist() == [False, True]
    np.testing.assert_allclose(seen.shares, [[0.1, 0.2], [0.5, 0.7], [0.3, 0.4]], rtol=1e-14)
    # Relative differences of 1e-10 are rounding: squares of 1e-20, 1 % below and above.
    edge = moments(9, np.zeros((3, 2)), [[0.99e-20 * 7, 1.01e-20 * 7], [7.0, 7.0], [1.0, 1.0]])
    assert edge.unseen.tolist() == [True, False]
    assert moments(5, np.zeros((3, 1)), np.ones((3, 1)), np.full((3, 1), 3.0), kurtosis_paths=0).shares[0] == 3


def test_pilot_and_main_paths_are_pooled_for_decisions():
    """Number and mean of both samples."""
    one, other = moments(3, np.full((3, 1), 1.0), np.full((3, 1), 2.0)), moments(5, np.full((3, 1), 2.0), np.full((3, 1), 3.0))
    level = Level(0.1, None, 10, pilot=one, main=other)
    assert level.all.n == 8 and level.all.means[0, 0] == pytest.approx((3 + 10) / 8, rel=1e-14)
    assert Level(0.1, None, 10, pilot=one).all.n == 3


@pytest.mark.parametrize("pair", [False, True])
def test_a_batch_has_the_moments_of_its_points(pair, monkeypatch):
    """Of d, h(fine), h(coarse) for two observables, with the kurtosis; each batch has independent draws, and the cost is counted."""
    observe = ["x**2", "exp(x)"]
    work = LevelSampler(lambda dt: st.EulerMaruyama(OU, dt), [1.0], 1.0, observe, 4, Sampler(3, execution=PLAIN))
    level = work.pair(0.125) if pair else work.single(0.25)
    runs = []
    run = Sampler.run
    monkeypatch.setattr(Sampler, "run", lambda self, *a, **k: (runs.append(run(self, *a, **k)), runs[-1])[1])
    found, again = work.sample(level, 300, "x"), work.sample(level, 300, "x")
    assert level.dt == (0.125 if pair else 0.25) and level.steps == (8 + 2 if pair else 4)
    assert [member.step_time for member in level.program.members] == ([0.125, 0.5] if pair else [0.25])
    assert work.batches == 2 and work.cost == 600 * level.steps and not np.array_equal(found.means, again.means)
    points = runs[0].points
    values = [np.stack([p**2, np.exp(p)]) for p in (points if pair else (points[0], points[0]))]
    rows = [values[0] - values[1] if pair else values[0], values[0], values[1] if pair else 0 * values[0]]
    np.testing.assert_allclose(found.means, [r.mean(axis=-1) for r in rows], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.squares, [r.var(axis=-1) * 300 for r in rows], rtol=1e-12, atol=1e-13)
    rows[2] = values[1]
    np.testing.assert_allclose(found.kurtosis, [stats.kurtosis(r, axis=-1, fisher=False) for r in rows], rtol=1e-10)
    assert (found.n, found.kurtosis_paths, found.diverged, found.first_divergence) == (300, 300, 0, -1)


def test_the_cost_and_the_first_variances_of_a_pilot(monkeypatch):
    """The variances of the first `FEW` paths are stored."""
    monkeypatch.setattr(levels, "FEW", 60)
    work = LevelSampler(lambda dt: st.EulerMaruyama(OU, dt), [1.0], 1.0, ["x"], 2, Sampler(execution=PLAIN))
    level = work.pair(0.25)
    work.explore(level, 40)
    assert level.early is None and level.pilot.n == 40
    work.explore(level, 40)
    early = level.pilot.variances[0]
    assert np.array_equal(level.early, early) and level.pilot.n == 80
    work.explore(level, 40)
    assert np.array_equal(level.early, early) and work.pilot_cost == work.cost == 120 * 6


def test_the_first_divergence_of_a_batch():
    """The earlier step of both members; -1 means none."""

    class Diverging(Sampler):
        def run(self, program, paths, keep=False, label=""):
            sums = super().run(program, paths, keep=keep, label=label)
            return replace(sums, diverged=np.array([2, 3]), first_divergence=np.array([8, 5]))

    work = LevelSampler(lambda dt: st.EulerMaruyama(OU, dt), [1.0], 1.0, ["x"], 2, Diverging(execution=PLAIN))
    found = work.sample(work.pair(0.25), 20, "x")
    assert (found.diverged, found.first_divergence) == (5, 5)


@pytest.mark.parametrize("pair", [False, True])
def test_kurtosis_from_the_variances_of_groups(pair):
    """Full groups of n = 7 with chosen variances. Var s^2 = (kurtosis - (n - 3)/(n - 1)) (Var d)^2 / n."""
    n, names = 7, ("x", "z", "d", "x2", "z2", "d2", "c", "c2", "dc") if pair else ("h", "h2")
    groups = np.zeros((6, 2, 2, len(names)))
    groups[:, -1] = RNG.uniform(1.0, 3.0, (6, 2, len(names)))
    counts = np.array([n, n, n, 4, n, n])
    sums = Sums(groups, counts, np.zeros(2), np.full(2, -1), None)
    found = levels._kurtosis(SimpleNamespace(pair=pair), sums)
    for row, name in enumerate(("d2", "x2", "z2") if pair else ("h2", "h2", "h2")):
        for o in range(2):
            own = groups[counts == n, -1, o, names.index(name)] / 6
            spread = own.var(ddof=1) / own.mean() ** 2
            assert found[row, o] == pytest.approx(7 * spread + 4 / 6, rel=1e-12)


# -- fits to the levels -----------------------------------------------------------------------------------------------------


def test_terms_are_combined_by_the_weights_of_their_errors():
    """3 +- .5, 5 +- 1 and 4 +- 2 have weights 4, 1, 1/4: 18/5.25 +- 1/sqrt(5.25). Exact terms have no error."""
    terms, errors = np.array([[3.0, 2.0], [5.0, 2.0], [4.0, 2.0]]), np.array([[0.5, 0.0], [1.0, 0.0], [2.0, 0.0]])
    mean, error = combined(terms, errors)
    assert mean == pytest.approx([18 / 5.25, 2.0], rel=1e-12) and error == pytest.approx([5.25**-0.5, 0.0], rel=1e-12)
    # The size plus its error, or the largest term minus its error: 5 - 1 = 4 here, and 3.86 without the second.
    assert remaining_bias(terms, errors) == pytest.approx([4.0, 2.0], rel=1e-12)
    assert remaining_bias(-terms[::2, :1], errors[::2, :1]) == pytest.approx([13 / 4.25 + 4.25**-0.5], rel=1e-12)
    # An exact term among noisy ones has a finite weight: 1e-9 of the largest, 3e-9, enters both errors, 3e-9 and sqrt(18) e-9.
    assert combined(np.array([1.0, 3.0]), np.array([0.0, 3e-9])) == pytest.approx((5 / 3, 6e-18**0.5), rel=1e-9)


MEANS = np.array([0.31, -0.13, 0.002, 0.05, 0.0])
ERRORS = np.array([0.01, 0.02, 0.01, 0.0124, 0.0])


@pytest.mark.parametrize("refinement", [2, 3])
def test_the_order_of_means_is_their_weighted_slope(refinement):
    """Of log|m| / log r on levels with at least four standard errors (the fourth has 4.03, and 3.95 with 2 % more); 5 % of model error."""
    kept = [0, 1, 3]
    y = -np.log(np.abs(MEANS[kept])) / math.log(refinement)
    sigma = np.hypot(ERRORS[kept] / MEANS[kept], 0.05) / math.log(refinement)
    slope, cov = np.polyfit(kept, y, 1, w=1 / sigma, cov="unscaled")
    order, error = fitted_order(MEANS, ERRORS, refinement)
    assert order == pytest.approx(slope[0], rel=1e-10) and error == pytest.approx(math.sqrt(cov[0, 0]), rel=1e-10)
    assert math.isnan(fitted_order(MEANS, ERRORS, refinement, least=4)[0])
    assert fitted_order(MEANS, ERRORS, refinement, least=3)[0] == order
    assert math.isnan(fitted_order(MEANS[1:3], ERRORS[1:3], refinement)[1])
    # Exactly four standard errors suffice.
    assert fitted_order(np.array([8.0, 4.0]), np.array([0.5, 1.0]), 2)[0] == pytest.approx(1.0, rel=1e-12)


def test_the_order_of_decay_is_a_weighted_slope():
    """Variances from n paths have a relative error of sqrt(10 / n), and 10 % of model error; exact values only the latter."""
    values, paths, kept = np.array([2.0, 0.0, 0.7, 0.1, np.nan]), np.array([900, 10, 300, 40, 7]), [0, 2, 3]
    for n, sigma in ((paths, np.sqrt(0.01 + 10 / paths[kept])), (math.inf, np.full(3, 0.1))):
        slope = np.polyfit(kept, -np.log(values[kept]) / math.log(3), 1, w=1 / sigma)[0]
        assert decay_order(values, 3, n) == pytest.approx(slope, rel=1e-10)
    assert math.isnan(decay_order(np.array([0.0, 3.0]), 2))
    assert decay_order(np.array([8.0, 1.0]), 2) == pytest.approx(3.0, rel=1e-14)


# -- the search -------------------------------------------------------------------------------------------------------------------------


def search(means, errors, weak_order=1.0, refinement=3, n=101, eps=0.1, **more):
    """Return a search with levels 1 ... L of given means and errors of d, and a level 0."""
    means, errors = (np.array(v, dtype=float).reshape(len(v), -1) for v in (means, errors))
    zero = np.zeros_like(means[0])
    found = [Level(0.9, None, 4, pilot=moments(n, [zero + 1] * 3, [zero + 5] * 3))]
    for l, (m, e) in enumerate(zip(means, errors), 1):
        found.append(
            Level(
                0.9 / refinement**l,
                None,
                4 * refinement**l,
                pilot=moments(n, [m, zero, zero], [e**2 * n * (n - 1), zero + 5, zero]),
            )
        )
    work = SimpleNamespace(refinement=refinement, cost=0, pilot_cost=0, horizon=0.9)
    return Search(work, eps, weak_order, n, 20, found, **more)


def test_the_bias_follows_from_the_last_three_levels():
    """c_j = m_{L-j} / r^j for order 1, r = 3; the remaining bias is |c| over r - 1. The first level does not count."""
    own = search([5.0, 0.9, 0.36, 0.1], [0.1, 0.09, 0.03, 0.02])
    terms, errors, factors = own._terms("pilot", np.array([1.0]))
    np.testing.assert_allclose(terms[:, 0], [0.1, 0.36 / 3, 0.1], rtol=1e-12)
    np.testing.assert_allclose(errors[:, 0], [0.02, 0.01, 0.01], rtol=1e-12)
    np.testing.assert_allclose(factors[:, 0], [1.0, 3.0, 9.0], rtol=1e-12)
    weights = np.array([2500.0, 1e4, 1e4])
    size = weights @ [0.1, 0.12, 0.1] / weights.sum() + weights.sum() ** -0.5
    np.testing.assert_allclose(own._biases("pilot"), [max(size, 0.12 - 0.01) / 2], rtol=1e-12)
    two = search([0.36, 0.1], [0.03, 0.02])
    np.testing.assert_allclose(two._terms("pilot", np.array([2.0]))[0][:, 0], [0.1, 0.04], rtol=1e-12)


def test_a_lower_fitted_order_replaces_the_declared_one():
    """Means that decrease by 3^0.6 each level: error of the slope .05 / log 3 / sqrt(5) over the last four levels, with 5 % each."""
    means = 3.0 ** (-0.6 * np.arange(5))
    error = 0.05 / math.log(3) / math.sqrt(5)

    def used_order(weak_order, means=means):
        return search(means, 1e-9 * means, weak_order)._order("pilot")[0]

    edge = 0.6 + 3 * error + 0.25
    assert used_order(edge + 0.001) == pytest.approx(0.6, rel=1e-6) and used_order(edge - 0.001) == edge - 0.001
    assert used_order(1.0, 3.0 ** (-0.2 * np.arange(5))) == 0.5  # at least one half
    assert used_order(2.0, np.append(40.0, means)) == pytest.approx(0.6, rel=1e-6)  # the last four of six levels
    assert used_order(2.0, np.append(3.0**9, 3.0 ** (-0.6 * np.arange(3)))) != pytest.approx(
        0.6, abs=0.1
    )  # the fourth level counts


def test_the_result_of_levels_against_explicit_sums():
    """Means and numbers of the main paths, variances of all paths; the check |P - P + d| over three standard errors; the warnings."""
    program = SimpleNamespace(observables=[SimpleNamespace(name="a"), SimpleNamespace(name="b")])
    rng = np.random.default_rng(5)
    found = []
    for l, n in enumerate((50, 40, 30, 20)):
        means, squares, kurtosis = rng.normal(1, 0.3, (3, 2)), rng.uniform(1, 2, (3, 2)), rng.uniform(2, 4, (3, 2))
        main = moments(n, means, squares * n, kurtosis)
        found.append(
            Level(0.8 / 2**l, program, 6 * 2**l, moments(10 * n, means + 0.1, squares * 11 * n, kurtosis + 1), None, main)
        )
    found[2].main.kurtosis[0] = found[2].pilot.kurtosis[0] = [101.0, 99.0]
    work = SimpleNamespace(refinement=2, cost=700, pilot_cost=300, horizon=0.8)
    own = Search(work, 0.1, 1.0, 40, 20, found)
    own.__class__ = type("Own", (Search,), {"_constants": frozenset("b")})
    result = own.result(0.9)
    np.testing.assert_allclose(result.means, [v.main.means[0] for v in found], rtol=1e-14)
    np.testing.assert_allclose(result.fine_means, [v.main.means[1] for v in found], rtol=1e-14)
    np.testing.assert_allclose(result.variances, [v.all.variances[0] for v in found], rtol=1e-14)
    np.testing.assert_allclose(result.fine_variances, [v.all.variances[1] for v in found], rtol=1e-14)
    np.testing.assert_allclose(result.kurtoses, [v.pilot.kurtosis[0] for v in found], rtol=1e-14)
    assert result.paths.tolist() == [50, 40, 30, 20] and result.steps.tolist() == [6, 12, 24, 48]
    for l in (1, 2, 3):
        here, before = found[l], found[l - 1]
        apart = np.abs(before.main.means[1] - here.main.means[1] + here.main.means[0])
        errors = [np.sqrt(v.all.variances[i] / v.main.n) for v, i in ((before, 1), (here, 1), (here, 0))]
        np.testing.assert_allclose(result.consistency[l], apart / (3 * sum(errors)), rtol=1e-12)
    assert (result.consistency[0] == 0).all()
    np.testing.assert_allclose(result.biases, own._biases("all"), rtol=1e-14)
    several = np.array([v.all.n for v in found[1:]])
    for o in range(2):
        m, v = (np.array([getattr(level.all, which)[0, o] for level in found[1:]]) for which in ("means", "variances"))
        assert result.alphas[o] == pytest.approx(fitted_order(m, np.sqrt(v / several), 2)[0], rel=1e-12)
        assert result.betas[o] == pytest.approx(decay_order(v, 2, several), rel=1e-12)
        for l in range(4):
            assert any(f"level {l}: the means of {'ab'[o]}" in w for w in result.warnings) == (result.consistency[l, o] > 1)
    assert sum("kurtosis" in w for w in result.warnings) == 1 and any(
        "level 2: kurtosis 101 of the difference of a" in w for w in result.warnings
    )
    assert (result.names, result.horizon, result.eps, result.refinement, result.weak_order) == (("a", "b"), 0.8, 0.1, 2, 1.0)
    assert (result.cost, result.pilot_cost, result.constants, result.confidence) == (700, 300, frozenset("b"), 0.9)
    assert (result.diverged, result.first_divergence) == (0, -1)


def test_diverged_paths_are_counted_with_their_first_step():
    """The result is NaN with a warning."""
    own = search([0.3, 0.1], [0.01, 0.01])
    own.levels[1].pilot.diverged, own.levels[1].pilot.first_divergence = 4, 11
    own.levels[2].pilot.diverged, own.levels[2].pilot.first_divergence = 3, 6
    for level in own.levels:
        level.program = SimpleNamespace(observables=[SimpleNamespace(name="a")])
    own.__class__ = type("Own", (Search,), {"_constants": frozenset()})
    result = own.result(0.95)
    assert (result.diverged, result.first_divergence) == (7, 6) and math.isnan(result.biases[0])
    assert result.warnings[-1].startswith("7 paths left the finite range, first with steps of 0.3")


def test_single_paths_may_not_dominate_an_unbounded_variance():
    """At most an eighth of the variance of d or of h(fine), from 2^18 paths on; bounded observables are exempt."""

    def look(n, d, fine, observe):
        level = LevelSampler(lambda dt: st.EulerMaruyama(OU, dt), [1.0], 1.0, [observe], 2).pair(0.5)
        found = moments(n, np.zeros((3, 1)), np.ones((3, 1)), [[d * n], [fine * n], [0.9 * n]])
        search([0.1], [0.1], eps=0.1)._check_tails(level, found)

    look(TAIL_PATHS, 0.124, 0.124, "x")
    look(TAIL_PATHS - 1, 0.9, 0.9, "x")
    look(TAIL_PATHS, 0.9, 0.9, "tanh(x)")
    look(TAIL_PATHS, np.nan, 0.1, "x")


@pytest.mark.parametrize(("d", "fine"), [(0.126, 0.0), (0.0, 0.126)])
def test_an_observable_with_heavy_tails_is_refused_by_name(d, fine):
    """The message has the observable, the step and the number of paths."""
    level = LevelSampler(lambda dt: st.EulerMaruyama(OU, dt), [1.0], 1.0, ["tanh(x)", "x"], 2).pair(0.5)
    found = moments(TAIL_PATHS, np.zeros((3, 2)), np.ones((3, 2)), np.array([[d, d], [fine, fine], [0, 0]]) * TAIL_PATHS)
    own = search([0.1], [0.1])
    own.levels = [level, level]
    with pytest.raises(ValueError, match=r"that of x with steps of 0\.5 rests on few of 262,144 paths"):
        own._check_tails(level, found)


@pytest.mark.parametrize("middle", [8.0, 1.0])
@pytest.mark.parametrize(("n", "trusted"), [(101, 1.0), (999, 1.0), (1000, 0.5), (5000, 0.5)])
def test_numbers_of_paths_minimise_the_cost(n, trusted, middle):
    """N_l = 2 eps^-2 sqrt(V_l / C_l) sum_k sqrt(V_k C_k), the largest over the observables.

    V_l of few paths is at least the value extrapolated from the level before by the order of decay, of many paths half of it.
    """
    variances = np.array([[200.0, 2.0], [36.0, 1.1], [middle, 0.3], [0.3, 0.09]])
    zero, costs = np.zeros(2), np.array([4.0, 16.0, 48.0, 144.0])
    found = [
        Level(0.9 / 3**l, None, int(c), pilot=moments(n, [zero] * 3, [v * (n - 1), zero + 9, zero]))
        for l, (c, v) in enumerate(zip(costs, variances))
    ]
    own = Search(SimpleNamespace(refinement=3), 0.2, 1.0, n, 20, found)

    def planned(variances):
        out = []
        for v in variances.T.copy():
            decay = decay_order(v[1:], 3, np.full(3, n))
            for l in (2, 3):
                v[l] = max(v[l], trusted * v[l - 1] * 3**-decay)
            out.append(2 / 0.04 * np.sqrt(v / costs) * np.sqrt(v * costs).sum())
        return np.maximum(np.ceil(np.max(out, axis=0)), 16)

    assert own._allocation().tolist() == planned(variances).tolist()
    # The larger variance of main and of all paths counts, and no main paths are discarded.
    found[1].main = moments(50, [zero] * 3, [np.array([120.0, 2.0]) * 49, zero + 9, zero])
    found[3].main = moments(7777, [zero] * 3, [zero, zero, zero])
    before, after = planned(variances)[1], own._allocation()
    assert after[3] == 7777 and after[1] > 1.2 * before
    with pytest.raises(ValueError, match=r"got eps=1e-09, which takes .* paths"):
        replace(own, eps=1e-9)._allocation()


def test_the_order_of_decay_is_at_least_one_half():
    """Two levels do not determine it; increasing variances would be extrapolated without bound."""
    zero = np.zeros(1)
    for values in ((5.0, 0.9, 0.01), (5.0, 0.9, 1.1, 0.3)):
        found = [Level(1.0, None, 10, pilot=moments(50, [zero] * 3, [zero + v * 49, zero + 9, zero])) for v in values]
        v = np.array(values)
        decay = max(0.5, decay_order(v[1:], 2, np.full(len(v) - 1, 50)))
        for l in range(2, len(v)):
            v[l] = max(v[l], v[l - 1] * 2**-decay)
        expected = np.maximum(np.ceil(2 / 0.01 * np.sqrt(v / 10) * np.sqrt(v * 10).sum()), 16)
        assert Search(SimpleNamespace(refinement=2), 0.1, 1.0, 50, 20, found)._allocation().tolist() == expected.tolist()
    one = [Level(1.0, None, 10, pilot=moments(50, [zero] * 3, [zero + v * 49, zero + 9, zero])) for v in (5.0, 0.9)]
    assert Search(SimpleNamespace(refinement=2), 0.1, 1.0, 50, 20, one)._allocation().tolist() == [
        math.ceil(200 * math.sqrt(v) * (5**0.5 + 0.9**0.5)) for v in (5.0, 0.9)
    ]


def test_a_new_level_has_a_shorter_step_and_fewer_pilot_paths():
    """The step and the number of pilot paths decrease by the refinement."""
    own = search([0.3, 0.2, 0.1], [0.1, 0.1, 0.1], n=900)
    made = []
    own.work = SimpleNamespace(refinement=3, pair=lambda dt: Level(dt, None, 7), explore=lambda level, n: made.append((level, n)))
    own._add_level()
    assert (
        own.levels[-1] is made[0][0] and own.levels[-1].dt == pytest.approx(0.9 / 81, rel=1e-14) and made[0][1] == 33
    )  # 900 / 27
    own._add_level()
    assert own.levels[-1].dt == pytest.approx(0.9 / 243, rel=1e-14) and made[1][1] == 32  # the minimum


class Scripted(Search):
    """The rules of `run` alone, with given levels, biases, numbers of paths and variances."""

    _failed = False

    def _choose_coarsest(self, dt, choose):
        self.began, self.levels = (dt, choose), []
        self._add_level(), self._add_level()

    def _check_variances(self):
        pass

    _refine_bias = _check_variances

    def _check_tails(self, level, found):
        pass

    def _add_level(self):
        self.levels.append(Level(0.5 ** len(self.levels), None, (3, 7, 12, 20, 36)[len(self.levels)]))

    def _allocation(self):
        return np.array(self.planned.pop(0) if len(self.planned) > 1 else self.planned[0])[: len(self.levels)]

    def _biases(self, which):
        return np.array([0.0, self.biases[which]])


def run_scripted(eps=0.7, pilot=0.0, bias=0.0, planned=((10, 8, 6, 4, 2),), variance=0.0, most=3):
    """Return whether the levels are valid, the search, and the sampled (level, paths); the variance of d is `variance` times steps / 3."""
    own = Scripted(None, eps, 1.0, 100, most)
    own.biases, own.planned, sampled = {"pilot": pilot, "all": bias}, list(map(list, planned)), []

    def sample(level, n, label):
        sampled.append((own.levels.index(level), n))
        return moments(n, np.zeros((3, 2)), [[0, variance * level.steps / 3 * (n - 1)], [1, 1], [1, 1]])

    own.work = SimpleNamespace(sample=sample)
    return own.run(0.25, False), own, sampled


def test_levels_are_added_until_the_pilots_bias_is_half_of_eps():
    """A bias slightly below and above the threshold."""
    for bias, count in ((0.99 * 0.35, 3), (1.01 * 0.35, 4)):
        holds, own, sampled = run_scripted(pilot=bias)
        assert holds and own.began == (0.25, False) and len(own.levels) == count and not own.warnings
        assert sampled == list(enumerate((10, 8, 6, 4)))[:count]


UNIT = 1 / 10 + 7 / 3 / 8 + 12 / 3 / 6
"""sum V_l / N_l of 10, 8 and 6 paths."""


def test_main_paths_are_added_while_the_variance_exceeds_its_budget():
    """1.1 times half of eps^2; only the missing paths are simulated."""
    edge = 1.1 * 0.5 * 0.49 / UNIT
    for variance, then in ((0.99 * edge, []), (1.01 * edge, [(0, 15), (2, 54)])):
        holds, own, sampled = run_scripted(planned=((9, 9, 9), (10, 8, 6), (25, 8, 60)), variance=variance)
        assert holds and sampled == [(0, 10), (1, 8), (2, 6), *then]
        assert [level.main.n for level in own.levels] == ([25, 8, 60] if then else [10, 8, 6])


def test_a_level_is_added_if_the_bias_of_all_paths_is_too_large():
    """Variance and squared bias are at most eps^2 together; on the last level a warning reports the bias."""
    planned = ((10, 8, 6), (10, 8, 6), (30, 20, 20, 40))
    for bias, count in ((0.99 * math.sqrt(0.49 - 0.2), 3), (1.01 * math.sqrt(0.49 - 0.2), 4)):
        holds, own, _ = run_scripted(bias=bias, planned=planned, variance=0.2 / UNIT, most=4)
        assert holds and len(own.levels) == count and not own.warnings
    holds, own, _ = run_scripted(bias=0.8, planned=planned, variance=0.2 / UNIT)
    assert holds and len(own.levels) == 4 and "the bias is still 0.8 after 3 levels" in own.warnings[0]


def test_a_search_stops_if_the_cost_increases_tenfold():
    """Ten times the 3 x 10 + 7 x 8 + 12 x 6 = 158 steps of the first plan: 1,580 are accepted, 1,583 are not."""
    for first, holds in ((138, True), (139, False)):
        found, own, sampled = run_scripted(planned=((9, 9, 9), (10, 8, 6), (first, 110, 33)), variance=1.0)
        assert found == holds and len(sampled) == (6 if holds else 3) and bool(own.warnings) != holds


# -- the estimator ---------------------------------------------------------------------------------------------------------------------------


def result(**more):
    """Return a result of three levels."""
    given = dict(
        names=("a", "b"), horizon=0.9, eps=0.1, refinement=3, weak_order=1.0, dts=np.array([0.45, 0.15, 0.05]), paths=np.array([2000, 1000, 40]),
        steps=np.array([2, 8, 24]), means=np.array([[1.0, 2.0], [0.3, 0.4], [0.1, 0.2]]), variances=np.array([[4.0, 6.0], [0.5, 0.7], [0.08, 0.12]]),
        kurtoses=np.ones((3, 2)), fine_means=np.ones((3, 2)), fine_variances=np.array([[3.0, 5.0], [3.5, 5.5], [9.0, 9.0]]),
        consistency=np.zeros((3, 2)), biases=np.array([0.03, 0.04]), alphas=np.array([1.1, 1.2]), betas=np.array([2.1, 2.2]), cost=900, pilot_cost=100,
    )  # fmt: skip
    return Multilevel(**(given | more))


def test_the_estimate_is_the_sum_of_the_levels():
    """Value, standard error and number of paths, for each observable."""
    own = result(constants=frozenset("b"), confidence=0.9)
    e = own.at("b")
    assert e.value == pytest.approx(2.6, rel=1e-14) and e.bias == 0.04 and e.n == 3040 and e.confidence == 0.9 and not e.random
    stderr = math.sqrt(4 / 2000 + 0.5 / 1000 + 0.08 / 40)
    assert own.estimate.stderr == pytest.approx(stderr, rel=1e-14) and own.estimate.random and own.bias == 0.03
    assert own.rmse == pytest.approx(math.sqrt(stderr**2 + 0.0009), rel=1e-14)
    assert own.rates("b") == pytest.approx((1.2, 2.2, 1.0), rel=1e-12)
    assert (own.alpha, own.beta, own.gamma) == pytest.approx((1.1, 2.1, 1.0), rel=1e-12)
    failed = result(diverged=3, first_divergence=8).at("b")
    assert math.isnan(failed.value) and math.isnan(failed.bias) and (failed.diverged, failed.first_divergence) == (3, 8)


def test_the_interval_is_wider_by_the_bias_on_both_sides():
    """The interval of an Estimate, extended by the bias."""
    e = MultilevelEstimate(2.0, 0.1, 10_000, bias=0.03)
    half = stats.norm.isf(0.05) * 0.1
    assert tuple(e.confidence_interval(0.9)) == pytest.approx((1.97 - half, 2.03 + half), rel=1e-12)
    assert e.confidence_interval(0.9).high - 2 == pytest.approx(2 - e.confidence_interval(0.9).low, rel=1e-12)


def test_the_cost_of_plain_monte_carlo():
    """Variance of the finest level with 1,000 paths over the squared error, the larger cost of both observables, 18 steps a path."""
    own = result()
    planned = max(3.5 / (4 / 2000 + 0.5 / 1000 + 0.08 / 40), 5.5 / (6 / 2000 + 0.7 / 1000 + 0.12 / 40))
    assert own.plain_cost == pytest.approx(18 * planned, rel=1e-12) and own.saving == pytest.approx(18 * planned / 900, rel=1e-12)
    assert result(paths=np.array([30, 20, 10])).plain_cost == pytest.approx(
        18 * max(9 / (4 / 30 + 0.5 / 20 + 0.08 / 10), 9 / (6 / 30 + 0.7 / 20 + 0.12 / 10)), rel=1e-12
    )
    assert result(fine_variances=np.zeros((3, 2))).plain_cost == 18
    assert own.data is own.levels and own.data["cost"].values.tolist() == [4000, 8000, 960]
    np.testing.assert_allclose(own.data["stderr"].sel(observable="b"), np.sqrt([6 / 2000, 0.7 / 1000, 0.12 / 40]), rtol=1e-14)


@pytest.mark.parametrize("steps", [1, 3, 7, 1000])
def test_a_step_divides_the_horizon_up_to_rounding(steps):
    """A relative tolerance of 1e-9; the message proposes a step."""
    _check_divides(0.7, 0.7 / steps * (1 + 0.9e-9))
    _check_divides(0.7, 0.7 / steps * (1 - 0.9e-9))
    for off in (1.1e-9, -1.1e-9, 0.1):
        with pytest.raises(ValueError, match=rf"Take dt={0.7 / steps:.9g}"):
            _check_divides(0.7, 0.7 / steps * (1 + off)) if off < 0.1 else _check_divides(0.7, 0.7 / (steps + 0.2))
    with pytest.raises(ValueError, match=r"0\.4 steps to horizon=0\.7.* Take dt=0\.7\."):
        _check_divides(0.7, 1.75)


class Undeclared(st.EulerMaruyama):
    """An integrator that declares no weak order."""

    def __getattribute__(self, name):
        if name == "weak_order":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("dt", [None, 0.35])
def test_further_attempts_have_a_shorter_step_and_a_larger_pilot(dt, monkeypatch):
    """Four attempts with pilots of 40 times 1, 4, 16 and 64 and steps shorter by r than that of the last search; one attempt with dt=."""
    from sdetools.studies.multilevel import estimator as module

    tried = []

    class Recorded:
        def __init__(self, work, eps, weak_order, pilot, most):
            tried.append(self)
            self.work, self.asked = work, (eps, weak_order, pilot, most)

        def run(self, coarsest, choose):
            self.ran, self.levels = (coarsest, choose), [SimpleNamespace(dt=coarsest / 2)]
            return False

        def result(self, confidence, origin):
            return self, confidence

    monkeypatch.setattr(module, "Search", Recorded)
    made = []
    asked = dict(
        eps=0.1,
        observe=["x"],
        dt=dt,
        refinement=3,
        pilot=40,
        most_levels=7,
        confidence=0.9,
        seed=5,
        stream=2,
        threads=3,
        backend="numpy",
    )
    last, confidence = st.multilevel(lambda h: (made.append(h), Undeclared(OU, h))[1], [1.3], 0.7, **asked)
    assert last is tried[-1] and confidence == 0.9
    assert [t.asked for t in tried] == [(0.1, 1.0, 40 * 4**k, 7) for k in range(4 if dt is None else 1)]
    for k, t in enumerate(tried):
        assert t.ran == pytest.approx((0.7 / 6**k, True) if dt is None else (0.35, False), rel=1e-12)
    assert made[0] == (dt or 0.7)
    work = last.work
    assert (work.x0, work.horizon, work.observe, work.refinement) == ([1.3], 0.7, ["x"], 3)
    assert (work.sampler.seed, work.sampler.stream, work.sampler.execution) == (5, Stream.of(2), Execution(3, backend="numpy"))
    tried.clear()
    st.multilevel(lambda h: st.Platen(OU, h), [1.3], 0.7, **asked)
    assert tried[0].asked[1] == 2
    st.multilevel(lambda h: st.Platen(OU, h), [1.3], 0.7, weak_order=1.5, **asked)
    assert tried[-1].asked[1] == 1.5


def test_constants_are_recognised_by_their_formula():
    """Expressions and functions that do not depend on the point."""
    work = LevelSampler(lambda dt: st.EulerMaruyama(OU, dt), [1.0], 1.0, ["x", "3", lambda x: np.float64(2.0)], 2)
    own = search([0.1], [0.1])
    own.levels = [work.single(0.5)]
    assert own._constants == {h.name for h in work.single(0.5).program.observables[1:]}


def test_the_pilot_of_the_coarsest_level_grows_until_no_path_dominates():
    """Doubled while an eighth of the variance of h depends on single paths, up to 2^18 paths; then refused by name."""
    work = LevelSampler(lambda dt: st.EulerMaruyama(OU, dt), [1.0], 1.0, ["x", "x**3"], 2)
    for target, drawn in ((0.12, [100]), (0.13, [100, 200, 400])):
        level = work.single(0.5)
        own, taken = search([0.1], [0.1]), []
        own.levels = [level]
        level.pilot = moments(100, np.zeros((3, 2)), np.ones((3, 2)), [[1, 1], [1, 100 * 0.2], [99, 99]])

        def explore(level, n, target=target, taken=taken):
            taken.append(n)
            share = target if len(taken) < 3 else 0.1
            level.pilot = moments(2 * n, np.zeros((3, 2)), np.ones((3, 2)), [[99, 99], [1, 2 * n * share], [99, 99]])

        own.work = SimpleNamespace(explore=explore, refinement=2)
        own._check_variances()
        assert taken == drawn
    level.pilot = moments(TAIL_PATHS, np.zeros((3, 2)), np.ones((3, 2)), [[1, 1], [1, TAIL_PATHS * 0.13], [1, 1]])
    with pytest.raises(ValueError, match=r"that of x\*\*3 with steps of 0\.5 rests on few of 262,144 paths"):
        own._check_variances()
