"""Moments of linear SDEs and of integrators against explicit recursions; all comparisons are deterministic."""

from itertools import product

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import sdetools as st
from sdetools.exact.covariance import quadratic_covariance

A, A0 = np.array([[-0.8, 0.3], [0.5, -1.1]]), np.array([0.4, -0.2])
B = np.array([[[0.3, -0.2], [0.1, 0.4]], [[0.2, 0.5], [-0.3, 0.1]]])
B0 = np.array([[0.6, -0.1], [0.2, 0.7]])  # row j: the column of the j-th noise at 0
START = np.array([1.2, -0.7])


def affine(matrix, constant):
    return [f"{matrix[i, 0]}*x + {matrix[i, 1]}*y + {constant[i]}" for i in range(2)]


def sde(noisy=True, calculus="ito"):
    """Return the SDE dX = (A X + a) dt + sum_j (B_j X + b_j) dW_j, or the one with constant b_j only."""
    columns = [affine(B[j] if noisy else 0 * B[j], B0[j]) for j in range(2)]
    return st.SDE(drift=affine(A, A0), diffusion=[list(row) for row in zip(*columns)], variables="x y", calculus=calculus)


def law(times, matrix=A, constant=A0, noise=B):
    """Return mean and covariance by a Runge-Kutta method: m' = A m + a, C' = A C + C A^T + sum_j (B_j C B_j^T + c_j c_j^T), c_j = B_j m + b_j."""

    def slope(_, u):
        m, C = u[:2], u[2:].reshape(2, 2)
        fed = sum(noise[j] @ C @ noise[j].T + np.outer(noise[j] @ m + B0[j], noise[j] @ m + B0[j]) for j in range(2))
        return np.concatenate([matrix @ m + constant, (matrix @ C + C @ matrix.T + fed).ravel()])

    out = solve_ivp(slope, (0, times[-1]), [*START, 0, 0, 0, 0], "DOP853", times, rtol=1e-12, atol=1e-13).y
    return out[:2].T, out[2:].T.reshape(-1, 2, 2)


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
def test_the_solution_of_a_linear_sde(noisy, calculus):
    """The Stratonovich form adds sum_j B_j (B_j X + b_j) / 2 to the drift."""
    times = [0.3, 0.9, 1.5]
    noise = B if noisy else 0 * B
    half = 0.5 if calculus == "stratonovich" else 0.0
    mean, covariance = law(times, A + half * sum(b @ b for b in noise), A0 + half * sum(b @ c for b, c in zip(noise, B0)), noise)
    found = st.exact.solution(sde(noisy, calculus), START, times)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9, atol=1e-10)
    assert found.gaussian is not noisy and found.times.tolist() == times and found.steps.tolist() == [0, 1, 2]
    begun = st.exact.solution(sde(noisy, calculus), START, [0.0, 0.9])
    np.testing.assert_allclose(begun.mean, [START, mean[1]], rtol=1e-9)
    assert not begun.covariance[0].any()


def test_time_dependent_coefficients_are_evaluated_in_the_middle_of_each_piece():
    """The limit of SGD with a varying rate, x' = -u_t x: E x is exp(-sum of u at the middles of the pieces)."""
    oracle = st.NoisyOracle(st.losses.quadratic(1.3, names=["x"]), st.noise.gaussian(dim=1), sigma=0.7)
    etas = np.array([0.1, 0.2, 0.05, 0.15])
    moving = st.LimitSDE(oracle, st.schedules.from_arrays(etas, base=0.1))
    times, pieces = [0.15, 0.4], 3
    found, now, mean, variance = st.exact.solution(moving, [1.2], times, pieces=pieces), 0.0, 1.2, 0.0
    for k, until in enumerate(times):
        h = (until - now) / pieces
        for n in range(pieces):
            row = moving.signal_values(np.array([now + n * h]), 0.5, h)[0]
            slope = float(np.squeeze(moving.drift(np.array([1.0]), None, row)))
            size = float(np.squeeze(moving.diffusion(np.array([0.0]), np.array([1.0]), None, row)))
            grown = np.exp(slope * h)
            mean, variance = mean * grown, variance * grown**2 + size**2 * (grown**2 - 1) / (2 * slope)
        now = until
        np.testing.assert_allclose([found.mean[k, 0], found.covariance[k, 0, 0]], [mean, variance], rtol=1e-11)


def euler(times, h, noise):
    """Return m' = m + h (A m + a), C' = (1 + h A) C (1 + h A)^T + h sum_j (B_j C B_j^T + c_j c_j^T)."""
    m, C, step, out = START, np.zeros((2, 2)), np.eye(2) + h * A, []
    for k in range(max(times) + 1):
        if k in times:
            out.append((m, C))
        C = step @ C @ step.T + h * sum(
            noise[j] @ C @ noise[j].T + np.outer(noise[j] @ m + B0[j], noise[j] @ m + B0[j]) for j in (0, 1)
        )
        m = m + h * (A @ m + A0)
    return tuple(map(np.array, zip(*out)))


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("law_of_draws", ["normal", "three-point", "two-point"])
def test_moments_of_eulers_scheme(law_of_draws, noisy):
    """For every distribution of draws with mean 0 and variance 1, with and without a record at step 0."""
    h, record = 0.17, [0, 1, 4]
    scheme = st.EulerMaruyama(sde(noisy), h, law_of_draws)
    found = st.exact.moments(scheme, START, 4, record=record)
    mean, covariance = euler(record, h, B if noisy else 0 * B)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(found.times, np.array(record) * h, rtol=1e-15)
    assert found.gaussian is (law_of_draws == "normal" and not noisy) and found.steps.tolist() == record
    later = st.exact.moments(scheme, START, 4, record=[2])
    np.testing.assert_allclose(later.mean, euler([2], h, B)[0], rtol=1e-12)


POINTS = {
    "normal": None,
    "three-point": ([-(3**0.5), 0.0, 3**0.5], [1 / 6, 2 / 3, 1 / 6]),
    "two-point": ([-1.0, 1.0], [0.5, 0.5]),
}


@pytest.mark.parametrize("name", POINTS)
def test_the_law_of_one_step_of_eulers_scheme(name):
    """E X^i Y^j for i + j up to 6, by the atoms of two draws, or by the moments 1, 0, 1, 0, 3, 0, 15 of normal draws."""
    h, root = 0.3, 0.3**0.5
    points, weights = st.exact.step_law(st.EulerMaruyama(sde(), h, name), START)
    centre = START + h * (A @ START + A0)
    columns = root * np.array([B[j] @ START + B0[j] for j in range(2)]).T
    nodes, chances = POINTS[name] or tuple(np.polynomial.hermite_e.hermegauss(12))
    chances = np.array(chances) / np.sum(chances)
    drawn = np.array(list(product(nodes, repeat=2))).T
    joint = np.outer(chances, chances).ravel()
    exact = centre[:, None] + columns @ drawn
    for i, j in product(range(7), repeat=2):
        if i + j <= 6:
            np.testing.assert_allclose(
                weights @ (points[0] ** i * points[1] ** j), joint @ (exact[0] ** i * exact[1] ** j), rtol=1e-12
            )
    assert len(weights) == {"normal": 49, "three-point": 9, "two-point": 4}[name]


# --- covariances that are polynomials of the point ---

S0 = np.array([[1.0, 0.2], [0.2, 0.5]])
S1 = np.array([[[0.3, -0.4], [0.1, 0.2]], [[0.1, 0.2], [-0.5, 0.6]]])  # [i, j, a]
S2 = np.random.default_rng(2).normal(size=(2, 2, 2, 2))
S2 = S2 + S2.transpose(0, 1, 3, 2)
ORIGIN = np.array([0.6, -1.1])


def polynomial(x):
    u = x - ORIGIN.reshape(2, *[1] * (x.ndim - 1))
    return (
        np.einsum("ij,...->ij...", S0, np.ones(x.shape[1:]))
        + np.einsum("ija,a...->ij...", S1, u)
        + 0.5 * np.einsum("ijab,a...,b...->ij...", S2, u, u)
    )


def test_the_mean_of_a_quadratic_covariance():
    """E Sigma(u) = Sigma(E u) + sum_ab S2_ab Cov(u)_ab / 2, about an origin that is not that of the polynomial."""
    found = quadratic_covariance(polynomial, np.array([-0.3, 0.8]))
    mu, spread = np.array([0.4, -1.7]), np.array([[0.5, -0.2], [-0.2, 0.9]])
    exact = polynomial(mu[:, None])[..., 0] + 0.5 * np.einsum("ijab,ab->ij", S2, spread)
    np.testing.assert_allclose(found.mean(mu, spread), exact, rtol=1e-11)
    assert not found.is_constant
    constant_covariance = quadratic_covariance(lambda x: S0[..., None], ORIGIN)
    np.testing.assert_array_equal(constant_covariance.mean(mu, spread), S0)
    assert constant_covariance.is_constant


@pytest.mark.parametrize("bend", [0.0, 1e-8, 1e-4])
def test_a_covariance_that_is_not_quadratic_raises_value_error(bend):
    """A cubic term of 1e-8 is detected at the random points, some of which have size 30."""

    def bent(x):
        return polynomial(x) + bend * x[0] ** 3

    if bend == 0:
        quadratic_covariance(bent, ORIGIN)
    else:
        with pytest.raises(ValueError, match="neither"):
            quadratic_covariance(bent, ORIGIN)
