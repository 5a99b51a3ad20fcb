"""Alpha-stable noise: its characteristic function, its special cases, stationary laws in closed form, and what it refuses."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from scipy import stats

import sdetools as st

ALPHAS = [0.5, 1.0, 1.3, 1.8, 2.0]


def entries(alpha, n, seed=3):
    law = st.noise.alpha_stable(alpha, 1)
    return law.value(np.zeros((1, n)), st.noise.sample_draws(law.draws, np.random.default_rng(seed), n))[0]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_characteristic_function(alpha):
    """E cos(t v) = exp(-|t|^alpha) and E sin(t v) = 0: eight z-tests at 5 sigma for each alpha, a false alarm once in 40,000 runs of this file."""
    n = 400_000
    v = entries(alpha, n)
    for t in (0.2, 0.7, 1.5, 3.0):
        for seen, expected in ((np.cos(t * v), math.exp(-(t**alpha))), (np.sin(t * v), 0.0)):
            error = seen.std() / math.sqrt(n)
            assert abs(seen.mean() - expected) < 5 * error
    # negative control: the characteristic function of another index, and of another scale
    seen = np.cos(0.2 * v)
    for wrong in (math.exp(-(0.2 ** (alpha * 0.95))), math.exp(-((0.2 * 1.05) ** alpha))):
        assert abs(seen.mean() - wrong) > 5 * seen.std() / math.sqrt(n)


@pytest.mark.parametrize("alpha", [0.7, 1.3, 1.8])
def test_the_distribution_function_is_scipys(alpha):
    """P(v < r) at seven points, z-tests at 5 sigma, a false alarm once in 80,000 runs of this file; a scale of 1.05 is rejected."""
    n, at = 400_000, np.array([-20.0, -3.0, -1.0, -0.2, 0.5, 2.0, 8.0])
    v, p = np.sort(entries(alpha, n, seed=9)), stats.levy_stable.cdf(at, alpha, 0.0)

    def worst(scale):
        return np.abs((np.searchsorted(scale * v, at) / n - p) / np.sqrt(p * (1 - p) / n)).max()

    assert worst(1.0) < 5 < worst(1.05)


def test_alpha_1_is_cauchy_and_alpha_2_is_gaussian_draw_by_draw():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(size=(2, 1000))
    z = np.stack([a, b])

    def value(alpha):
        return st.noise.alpha_stable(alpha, 1).value(np.zeros((1, 1000)), z)[0]

    np.testing.assert_allclose(value(1.0), np.tan(math.pi * (a - 0.5)), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(value(2.0), 2 * np.sin(math.pi * (a - 0.5)) * np.sqrt(-np.log(b)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        value(1.3), -st.noise.alpha_stable(1.3, 1).value(np.zeros((1, 1000)), np.stack([1 - a, b]))[0], rtol=1e-9
    )


def test_extreme_draws_are_finite():
    """The smallest and the largest uniforms, in each of the two draws."""
    ends = np.array([2.0**-53, 0.5, 1 - 2.0**-53])
    z = np.array(np.meshgrid(ends, ends)).reshape(2, -1)
    for alpha in ALPHAS:
        v = st.noise.alpha_stable(alpha, 1).value(np.zeros((1, 9)), z)
        assert np.isfinite(v).all() and (v[0] == 0).sum() == 3


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_backends_agree_path_by_path(backend):
    if backend == "torch":
        pytest.importorskip("torch")
    oracle = st.NoisyOracle(st.losses.quadratic([1.0, 2.0]), st.noise.alpha_stable(1.4, 2), sigma=0.3)
    options = {"x0": [1.0, 1.0], "horizon": 1.0, "paths": 400, "observe": ["cos(x0)"], "keep_final": True, "threads": 1}
    method = st.SGDM(oracle, st.schedules.constant(0.1, 0.8))
    run = st.simulate(method, backend=backend, **options)
    np.testing.assert_allclose(run.final, st.simulate(method, backend="numpy", **options).final, rtol=1e-9, atol=1e-10)
    assert np.abs(run.final).max() > 3  # tails


@pytest.mark.sample(1)
@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.9])
def test_a_linear_method_has_the_stable_law_of_its_impulse_response(alpha):
    """After k steps x is stable with scale^alpha = sum |sigma psi_j|^alpha: E cos(t x) is exact. z-tests at 4.5 sigma, a false alarm once in 50,000 runs of this file."""
    eta, beta, sigma, steps, t = 0.3, 0.9, 0.5, 40, 1.3
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.alpha_stable(alpha, 1), sigma=sigma)
    for method in (
        st.SGD(oracle, st.schedules.constant(eta)),
        st.SGDM(oracle, st.schedules.constant(eta, beta)),
    ):
        # the response of x to one unit of noise in step 0, by the matrix of the rule
        row = method.coefficient_values(1)[0]

        def move(state, noise, row=row, method=method):
            return method.rule(state, lambda x: x + noise, *row)

        state, psi = move(tuple(np.zeros(1) for _ in method.parts), 1.0), []
        for _ in range(steps):
            psi.append(state[0][0])
            state = move(state, 0.0)
        scale = (np.abs(sigma * np.array(psi)) ** alpha).sum()
        run = st.simulate(method, [0.0], steps * eta, 40_000, [f"cos({t}*x0)"], seed=6)
        expected = math.exp(-scale * t**alpha)
        assert abs(run.at(f"cos({t}*x0)").z(expected)) < 4.5
        assert abs(run.at(f"cos({t}*x0)").z(math.exp(-1.1 * scale * t**alpha))) > 4.5  # negative control: a scale of 1.1


def test_what_needs_a_variance_is_refused_below_2():
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.alpha_stable(1.5, 1))
    plan = st.schedules.constant(0.1, 0.5)
    for attempt in (
        lambda: oracle.covariance(np.zeros(1)),
        lambda: st.LimitSDE(oracle, plan),
        lambda: st.exact.moments(st.SGDM(oracle, plan), [1.0], 3),
    ):
        with pytest.raises(
            ValueError, match="must be that of a noise with a variance; that of alpha-stable noise is infinite for alpha = 1.5"
        ):
            attempt()
    gaussian = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.alpha_stable(2.0, 1), sigma=0.5)
    np.testing.assert_allclose(gaussian.covariance(np.zeros(1)), [[0.5]])
    np.testing.assert_allclose(gaussian.noise.as_gaussian().covariance(np.zeros(1)), [[2.0]])
    assert st.exact.moments(st.SGD(gaussian, plan.averaged()), [1.0], 1).covariance[1, 0, 0] == pytest.approx(0.01 * 0.5)


@pytest.mark.slow
def test_a_gap_has_no_control_variate_without_a_variance():
    plan = st.schedules.constant(0.05, 0.8)
    for noise, controlled in ((st.noise.alpha_stable(1.5, 1), False), (st.noise.alpha_stable(2.0, 1), True)):
        for oracle in (
            st.NoisyOracle(st.losses.quadratic(1.0), noise),
            st.svag(st.NoisyOracle(st.losses.quadratic(1.0), noise), 2),
        ):
            gap = st.weak_gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), [1.0], 0.5, 1_000, ["cos(x0)"], threads=1)
            assert gap.controlled is controlled


def test_input_validation_and_identity():
    for alpha in (0.0, -1.0, 2.1, math.nan, "a"):
        with pytest.raises(ValueError, match=r"`alpha` must lie in \(0, 2\]"):
            st.noise.alpha_stable(alpha, 1)
    with pytest.raises(ValueError, match="`dim`"):
        st.noise.alpha_stable(1.5, 0)
    a, b = st.noise.alpha_stable(1.5, 2), st.noise.alpha_stable(1.2, 2)
    assert a.identity == b.identity and not np.array_equal(a.parameters, b.parameters)  # one kernel for every alpha
    assert math.isnan(a.skewness) and st.noise.alpha_stable(2, 1).skewness == 0.0 and "S_" in a.latex
    assert pickle.loads(pickle.dumps(a)).identity == a.identity
