"""Momentum near a manifold of minimisers, against plain iteration, direct integration and limiting cases."""

import math

import numpy as np
import pytest

from sdetools.exact.modes import flattening, relaxation_steps, settled, settling_time, transverse_modes


@pytest.mark.parametrize(
    ("eta", "beta", "lam"), [(0.3, 0.0, 1.0), (0.1, 0.5, 2.0), (0.01, 0.9, 1.0), (1e-3, 0.99, 5.0), (0.2, 1.0, 1.0)]
)
def test_modes_are_the_eigenvalues_of_one_step(eta, beta, lam):
    step = np.array([[1 + beta - eta * lam, -beta], [1.0, 0.0]])
    found = transverse_modes(eta, beta, lam)
    assert np.isclose(found.sum(), 1 + beta - eta * lam, rtol=1e-13) and np.isclose(found.prod(), beta, rtol=1e-13, atol=1e-15)
    assert np.allclose(np.poly(found), np.poly(step), rtol=1e-12, atol=1e-14)
    assert abs(found[0]) >= abs(found[1]) * (1 - 1e-14)


def test_relaxation_steps_agree_with_the_decay_of_the_iteration():
    eta, beta, lam = 0.01, 0.3, 1.0
    old, new, path = 1.0, 1.0, []
    for _ in range(4000):
        old, new = new, new + beta * (new - old) - eta * lam * new
        path.append(new)
    assert abs(2000 / math.log(path[1999] / path[3999]) / relaxation_steps(eta, beta, lam) - 1) < 1e-9
    assert math.isclose(relaxation_steps(0.1, 0.9, 1.0), -2 / math.log(0.9), rel_tol=1e-12)
    assert np.isinf(relaxation_steps(5.0, 0.5, 1.0)) and np.isinf(relaxation_steps(0.1, 1.0, 1.0))


def test_moments_agree_with_simulated_energies():
    """A is the squared modulus of a complex Ornstein-Uhlenbeck process, sampled exactly; X by leapfrog. |z| < 4.5, false alarm 1e-4."""
    r, end, steps, paths = 0.8, 6.0, 1500, 40_000
    rng, dt = np.random.default_rng(7), 6.0 / 1500
    x, v, z = np.ones(paths), np.zeros(paths), np.zeros((2, paths))
    keep = math.exp(-dt / 2)
    spread = math.sqrt((1 - keep**2) / 2)
    for _ in range(steps):
        x = x + dt / 2 * v
        z = keep * z + spread * rng.standard_normal((2, paths))
        v = (v * (1 - dt / 2) - dt * r * (z * z).sum(axis=0) * x) / (1 + dt / 2)
        x = x + dt / 2 * v
    exact = flattening(r, [end])

    def score(sample, mean):
        return abs(sample.mean() - mean) / (sample.std() / math.sqrt(paths))

    assert score(x, exact.mean[0]) < 4.5 and score(x * x, exact.square[0]) < 4.5
    averaged = flattening(r, [end], random=False)
    assert score(x * x, averaged.square[0]) > 4.5  # negative control: the averaged energy


@pytest.mark.parametrize("r", [0.3, 2.0])
def test_averaged_motion_agrees_with_its_power_series(r):
    """X'' + X' + r (1 - e^-s) X = 0 term by term: (n+1)(n+2) a_{n+2} = -(n+1) a_{n+1} + r sum_j (-1)^j a_{n-j} / j!, j >= 1."""
    a = [1.0, 0.0]
    for n in range(60):
        pull = sum((-1) ** j * a[n - j] / math.factorial(j) for j in range(1, n + 1))
        a.append((-(n + 1) * a[n + 1] + r * pull) / ((n + 1) * (n + 2)))
    s = np.array([0.0, 0.5, 1.0, 2.0])
    found = flattening(r, s, random=False)
    want = np.polynomial.polynomial.polyval(s, a)
    assert np.allclose(found.mean, want, rtol=0, atol=1e-8) and np.allclose(found.square, want**2, rtol=0, atol=2e-8)
    assert np.ptp(want) > 0.05


def test_moments_do_not_depend_on_the_number_of_polynomials():
    s = np.linspace(0.5, 20, 14)
    for r in (0.05, 0.7, 10.0):
        assert np.allclose(flattening(r, s).rms, flattening(r, s, terms=64).rms, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_slow_limit_is_the_slow_equation():
    for r in (1e-3, 1e-4):
        assert abs(flattening(r, [1 / r]).mean[0] - math.exp(-1)) < 3 * r
        assert abs(settling_time(r, 0.1) * r / math.log(10) - 1) < 10 * r


def test_the_settling_time_is_the_last_passage():
    times = np.linspace(0, 3, 4)
    assert settled(times, np.array([1.0, 0.01, 1.0, 0.01]), 0.1) == 2.5
    assert np.isnan(settled(times[:1], np.ones(1), 0.1)) and np.isnan(settled(times[:1], np.ones((2, 1)), 2.0)).all()
    assert np.isnan(settled(times, np.ones(4), 0.1)) and np.isnan(settled(times, np.zeros(4), 0.1))


def test_passages_are_interpolated_geometrically():
    """Unequal time steps; a curve that jumps to 0 passes the level at the end of that step. Levels 0.1 and 0.06."""
    times = np.array([0.0, 1.0, 2.5, 3.0, 4.5])
    curves = np.array([[1, 0.3, 0.05, 0.02, 0.01], [1, 0.05, 0.2, 0.08, 0.05], [1, 0.9, 0.5, 0.0, 0.0]])
    part = math.log(3) / math.log(6), math.log(2) / math.log(2.5)
    assert np.allclose(settled(times, curves, 0.1), [1 + 1.5 * part[0], 2.5 + 0.5 * part[1], 3.0], rtol=1e-14)
    part = math.log(5) / math.log(6), math.log(4 / 3) / math.log(1.6)
    assert np.allclose(settled(times, curves[:2], 0.06), [1 + 1.5 * part[0], 3 + 1.5 * part[1]], rtol=1e-14)


@pytest.mark.parametrize(
    "call", [lambda: flattening(0.0, [1.0]), lambda: flattening(1.0, [2.0, 1.0]), lambda: settling_time(1.0, 1.5)]
)
def test_invalid_arguments_raise_value_error(call):
    with pytest.raises(ValueError, match="must|`"):
        call()
