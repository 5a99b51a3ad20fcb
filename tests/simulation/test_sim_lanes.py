"""Moments over lanes, and counts of diverged paths, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from sdetools.simulation import lane_moments
from sdetools.simulation.records import LEAF as LANES

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("valid", [1, 2, 255, LANES])
def test_reductions_ignore_lanes_beyond_the_last_path(valid):
    """Two blocks are joined, the second one incomplete: the moments are those of all paths, without the excess lanes."""
    blocks = RNG.standard_normal((2, 3, LANES)) + 1e3
    blocks[1, :, valid:] = np.nan
    out, single = np.zeros(9), np.zeros(2)
    for before, n, rows in zip((0, LANES), (LANES, valid), blocks):
        lane_moments.reduce_pair(rows.copy().ravel(), 0, LANES, n, before, out, 0)
        lane_moments.reduce_single(rows[0].copy(), 0, n, before, single, 0)
    x, z, c = np.hstack([blocks[0], blocks[1, :, :valid]])
    d = x - z
    own = {name: v - v.mean() for name, v in dict(x=x, z=z, d=d, c=c).items()}
    squares = [(own["x"] ** 2).sum(), (own["z"] ** 2).sum(), (own["d"] ** 2).sum()]
    expected = [x.mean(), z.mean(), d.mean(), *squares, c.mean(), (own["c"] ** 2).sum(), (own["d"] * own["c"]).sum()]
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(single, [x.mean(), (own["x"] ** 2).sum()], rtol=1e-10)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("sigma", [1e-5, 1e-9, 1e-12])
def test_a_variance_far_below_the_mean_keeps_its_digits(backend, sigma):
    """Raw sums of squares would lose the variance at sigma = 1e-9, and report the mean as exact."""
    import sdetools as st

    noisy = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=sigma)
    sgd = st.SGD(noisy, st.schedules.constant(eta=0.5))
    run = st.simulate(sgd, [1.0], 0.5, 100_000, ["x", "1 + 0*x"], times=[0.5], backend=backend)
    got = run.at("x")
    assert abs(got.stderr / (0.5 * sigma / np.sqrt(100_000)) - 1) < max(
        0.01, 1e-15 / sigma
    )  # 1 %: 4.5 standard errors of a variance
    assert abs(got.z(0.5)) < 4.5 + 1e-15 / got.stderr
    assert run.at("1 + 0*x").stderr == 0.0 and run.at("1 + 0*x").value == 1.0


def test_count_diverged_finds_infinities_and_nan_in_any_row():
    """Infinities and NaN in any row are counted; large finite numbers are not."""
    state = np.zeros((3, LANES))
    state[0, 3], state[2, 3], state[1, 9], state[2, 200], state[0, 255] = np.nan, np.inf, -np.inf, np.nan, 1e308
    assert lane_moments.count_diverged(state.ravel(), 0, 3, LANES, LANES) == 3
    assert lane_moments.count_diverged(state.ravel(), 0, 3, 200, LANES) == 2
    assert lane_moments.count_diverged(state.ravel(), 1, 2, LANES, LANES) == 1
