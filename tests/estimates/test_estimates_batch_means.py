"""Replicated batch means: their definition, the autocorrelation time of an autoregression, R-hat of paths that disagree, refused intervals."""

import math

import numpy as np
import pytest

from sdetools.estimates.batch_means import SHORTEST, BatchMeans, default_batches


def autoregression(phi, paths, steps, seed=0):
    """Return stationary paths of x' = phi x + sqrt(1 - phi^2) xi, `(paths, steps)`, of variance 1."""
    rng, out = np.random.default_rng(seed), np.empty((paths, steps))
    out[:, 0] = rng.standard_normal(paths)
    for k in range(1, steps):
        out[:, k] = phi * out[:, k - 1] + math.sqrt(1 - phi**2) * rng.standard_normal(paths)
    return out


def blocks(h, count, batches):
    """Return the batch means of paths `(paths, steps)`."""
    rows = h.reshape(len(h), count, -1)
    return BatchMeans(rows.mean(axis=2), (rows**2).mean(axis=2), rows.shape[2], batches)


def test_mean_and_standard_error_are_those_of_the_batch_averages():
    h = np.random.default_rng(1).exponential(size=(3, 96))
    found = blocks(h, 16, batches=4)
    y = h.reshape(3, 4, 24).mean(axis=2).ravel()
    assert found.mean == pytest.approx(h.mean(), rel=1e-14)
    assert found.stderr() == pytest.approx(y.std(ddof=1) / math.sqrt(12), rel=1e-13)
    assert found.variance == pytest.approx(h.var(), rel=1e-12)
    e = found.estimate()
    assert (e.n, e.steps) == (12, 288) and e.ess == pytest.approx(h.var() / (y.var(ddof=1) / 12), rel=1e-12)
    assert e.autocorrelation_time == pytest.approx(288 / e.ess, rel=1e-12)
    assert e.half_width == pytest.approx(2.2009851600829447 * e.stderr, rel=1e-12)  # Student's t, 11 degrees of freedom


@pytest.mark.parametrize("steps", [4, 64])
def test_split_r_hat_is_that_of_its_definition(steps):
    h = np.random.default_rng(2).normal(size=(4, steps)).cumsum(axis=1)
    halves, n = h.reshape(8, -1), steps // 2
    within, between = halves.var(axis=1, ddof=1).mean(), halves.mean(axis=1).var(ddof=1)
    assert blocks(h, 4, 2).r_hat == pytest.approx(math.sqrt(((n - 1) / n * within + between) / within), rel=1e-12)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_autocorrelation_time_is_that_of_an_autoregression(phi):
    """1 + 2 sum phi^k = (1 + phi) / (1 - phi). 2,048 batches: the relative standard error is sqrt(2 / 2047); 4.5 of them, 7e-6."""
    tau = (1 + phi) / (1 - phi)
    found = blocks(autoregression(phi, 32, 64 * 400), 64, 64)
    short = tau / (2 * 400)  # the share that batches of 400 steps lack
    assert abs(found.autocorrelation_time() / tau - 1) < 4.5 * math.sqrt(2 / 2047) + short
    assert abs(blocks(autoregression(phi, 32, 64 * 400), 64, 64).autocorrelation_time(1) / tau - 1) < 4.5 * math.sqrt(2 / 31)


def test_the_blocking_curve_rises_to_the_autocorrelation_time():
    """Batches of 2 steps show less than a tenth of a memory of 39 steps."""
    lengths, taus = blocks(autoregression(0.95, 64, 64 * 64), 2048, 64).blocking
    assert lengths.tolist() == [2 * 2**j for j in range(12)]
    assert taus[0] < 4 and abs(taus[-1] / 39 - 1) < 4.5 * math.sqrt(2 / 63) + 39 / 8192


def test_paths_that_disagree_have_a_wide_interval_and_a_large_r_hat():
    """Two wells at -1 and 1 that no path leaves. Deviations from the paths' own means would give an interval of width 0.01."""
    rng = np.random.default_rng(3)
    h = np.repeat([-1.0, 1.0], 32)[:, None] + 0.1 * rng.standard_normal((64, 6400))
    for batches in (1, 4):
        e = blocks(h, 64, batches).estimate()
        assert (
            e.r_hat > 5
            and e.n == 64
            and e.half_width == pytest.approx(1.9983405417721956 / math.sqrt(63), rel=0.01)
            and "R-hat" in e.concerns[0]
        )
    alike = blocks(rng.standard_normal((64, 6400)), 64, 4).estimate()
    assert alike.r_hat < 1.001 and not alike.concerns and 0.0 in alike.confidence_interval(0.9999)


def test_batches_shorter_than_the_memory_are_reported():
    e = blocks(autoregression(0.99, 1, 64 * 32), 64, 64).estimate()
    assert any("shorter than 10 autocorrelation times" in c for c in e.concerns) and SHORTEST == 10
    assert not any("shorter" in c for c in blocks(autoregression(0.0, 4, 64 * 32), 64, 64).estimate().concerns)


@pytest.mark.parametrize("factor", [0.995, 1.005])
def test_the_limit_of_the_length_is_ten_autocorrelation_times(factor):
    """The variance of h is chosen such that a batch of 640 steps has ten autocorrelation times, up to half a per cent."""
    means = np.random.default_rng(5).normal(size=(1, 32))
    wanted = factor * 64.0
    variance = 32 * 640 * float(means.var(ddof=1)) / 32 / wanted
    found = BatchMeans(means, np.full((1, 32), variance + means.mean() ** 2), 640, 32)
    assert found.autocorrelation_time() == pytest.approx(wanted, rel=1e-12)
    assert any("shorter" in c for c in found.concerns) == (factor > 1)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_the_limit_of_r_hat(factor):
    """Two halves with means -a and a about the total: R-hat^2 is (n - 1)/n + 2 a^2 / W."""
    n, target = 500, 1 + 0.01 * factor
    a = math.sqrt((target**2 - (n - 1) / n) / 2)
    within = (n - 1) / n  # the variance about the own mean, with divisor n, for W = 1
    found = BatchMeans(np.array([[-a, a]]), np.array([[within + a * a, within + a * a]]), n, 2)
    assert found.r_hat == pytest.approx(target, rel=1e-12)
    assert any("R-hat" in c for c in found.concerns) == (factor > 1) and found.used == 2
    two = BatchMeans(np.array([[-a, -a], [a, a]]), np.full((2, 2), within + a * a), n, 2)
    assert two.used == (1 if two.r_hat > 1.01 else 2) and two.r_hat == pytest.approx(
        math.sqrt((n - 1) / n + a * a * 4 / 3), rel=1e-12
    )


def test_diverged_paths_one_batch_and_constants_have_no_interval():
    h = np.random.default_rng(4).normal(size=(1, 64))
    assert math.isinf(blocks(h, 2, 1).estimate().half_width)
    assert math.isinf(blocks(h * 0 + 2, 4, 4).estimate().half_width) and blocks(h * 0 + 2, 4, 4).estimate().value == 2
    few_digits = blocks(h + 1e9, 4, 4)
    assert math.isnan(few_digits.variance) and math.isnan(few_digits.estimate().ess) and few_digits.estimate().stderr < 1
    gone = blocks(h, 4, 4).estimate(diverged=3, first=7)
    assert math.isnan(gone.value) and math.isinf(gone.half_width) and gone.diverged == 3


def test_the_default_number_of_batches():
    assert [default_batches(p, 64) for p in (1, 2, 3, 16, 63, 64, 1000)] == [64, 32, 32, 4, 2, 1, 1]
