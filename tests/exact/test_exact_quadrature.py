"""The transfer operator against closed forms on quadratics, nested quadrature, and a finer grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import sdetools as st
from sdetools import exact


class Smooth:
    """An observable without a closed form, which is integrated against the density."""

    def value(self, x):
        return np.tanh(x[0]) + np.cos(2 * x[0])


def well(eta: float = 2.0**-6, sigma: float | None = None, plan=None, root: str = "1 + 0.3*sin(x)"):
    noise = st.noise.gaussian(root=[[root]], variables="x")
    oracle = st.NoisyOracle(st.losses.double_well(), noise, sigma=eta**-0.5 if sigma is None else sigma)
    return st.SGD(oracle, plan or st.schedules.constant(eta))


OBSERVABLES = ["x", "x**2", "cos(2*x)", exact.Absolute(1.0), exact.Absolute(1.0, p=0.5), exact.Below(0.7), "abs(x - 1)**3"]


@pytest.mark.parametrize("h", OBSERVABLES, ids=str)
def test_closed_form_on_a_quadratic(h):
    eta = 2.0**-6
    plan = st.schedules.warmup(eta, steps=8, start=eta / 2)
    oracle = st.NoisyOracle(st.losses.quadratic(1.5, center=0.2, names=["x"]), st.noise.gaussian(dim=1), sigma=eta**-0.5)
    sgd = st.SGD(oracle, plan)
    want = exact.expectation(exact.moments(sgd, [1.0], 64), h)
    np.testing.assert_allclose(exact.transfer(sgd, [1.0], 64, h), want, rtol=0, atol=1e-12)


def test_a_slightly_wrong_noise_root_is_detected():
    """Negative control: 0.3001 for 0.3 in the noise root changes the result by far more than the tolerances."""
    right, wrong = (exact.transfer(well(root=root), [1.0], 64, Smooth()) for root in ("1 + 0.3*sin(x)", "1 + 0.3001*sin(x)"))
    assert np.abs(right - wrong).max() > 1e-7


@pytest.mark.parametrize("h", [*OBSERVABLES, Smooth()], ids=lambda h: str(h).split(" object")[0])
def test_self_convergence_on_the_double_well(h):
    """State-dependent Gaussian noise, nonlinear drift: a grid with 5/3 as many points changes the result by less than 1e-12."""
    three, five = (exact.transfer(well(), [1.0], 64, h, resolution=r) for r in (3.0, 5.0))
    np.testing.assert_allclose(three, five, rtol=0, atol=1e-12)


def test_two_steps_by_nested_gauss_hermite():
    eta, x0 = 0.1, 0.4
    z, w = np.polynomial.hermite_e.hermegauss(80)
    w = w / w.sum()

    def kernel(x):
        return x - eta * (x**3 - x), eta * 2.0 * (1 + 0.3 * np.sin(x))

    mean, deviation = kernel(x0)
    first = mean + deviation * z
    mean, deviation = kernel(first)
    second = mean[:, None] + deviation[:, None] * z
    want = w @ (np.tanh(second) + np.cos(2 * second)) @ w
    got = exact.transfer(well(eta, sigma=2.0), [x0], 2, Smooth(), record=[2])
    assert got[0] == pytest.approx(want, abs=1e-12)


def test_polynomial_identity_of_one_step():
    """E z_1 and E z_2 on the double well in closed form: z_1 ~ N(m, s^2), E z_2 = 1.1 E z_1 - 0.1 E z_1^3."""
    sgd = well(0.1, sigma=2.0)
    m, s = 0.4 - 0.1 * (0.4**3 - 0.4), 0.2 * (1 + 0.3 * np.sin(0.4))
    got = exact.transfer(sgd, [0.4], 2, "x")
    np.testing.assert_allclose(got, [0.4, m, 1.1 * m - 0.1 * (m**3 + 3 * m * s**2)], atol=1e-13)


def test_recorded_steps_and_steps_of_rate_zero():
    """Steps of rate zero do not change the law, at the start and later."""
    every = exact.transfer(well(), [1.0], 20, "x**2")
    np.testing.assert_array_equal(exact.transfer(well(), [1.0], 20, "x**2", record=[0, 7, 20]), every[[0, 7, 20]])
    eta = 2.0**-6
    paused = st.schedules.from_arrays([0.0, 0.0, eta, 0.0, eta], base=eta)
    got = exact.transfer(well(plan=paused), [1.0], 5, Smooth())
    plain = exact.transfer(well(), [1.0], 2, Smooth())
    np.testing.assert_allclose(got, plain[[0, 0, 0, 1, 1, 2]], atol=1e-12)
    closed = exact.transfer(well(plan=paused), [1.0], 5, "abs(x - 1)")
    np.testing.assert_allclose(closed, exact.transfer(well(), [1.0], 2, "abs(x - 1)")[[0, 0, 0, 1, 1, 2]], atol=1e-12)


def test_without_noise_the_path_is_deterministic():
    x, got = 0.3, exact.transfer(well(0.1, sigma=0.0), [0.3], 5, "x")
    for k in range(6):
        assert got[k] == pytest.approx(x, abs=1e-15)
        x = x - 0.1 * (x**3 - x)


def momentum():
    return st.SGDM(well().oracle, st.schedules.constant(0.1, 0.9))


def two_dimensional():
    return st.SGD(st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2)), st.schedules.constant(0.1))


def signs():
    return st.SGD(st.NoisyOracle(st.losses.double_well(), st.noise.rademacher(1)), st.schedules.constant(0.1))


def test_resolution_has_a_lower_bound():
    with pytest.raises(ValueError, match=r"`resolution` must be a number >= 1\.5"):
        exact.transfer(well(), [1.0], 3, "x", resolution=1.0)


def test_noise_that_is_not_gaussian_raises_value_error_also_where_it_vanishes():
    noise = st.noise.rademacher(1, root=[["x"]], variables="x")
    sgd = st.SGD(st.NoisyOracle(st.losses.double_well(), noise), st.schedules.constant(0.1))
    with pytest.raises(ValueError, match="must have Gaussian noise"):
        exact.transfer(sgd, [0.0], 3, "x")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (momentum, "one coordinate and no momentum"),
        (two_dimensional, "one coordinate and no momentum; got dim=2"),
        (signs, "must have Gaussian noise"),
        (lambda: well(0.1, plan=st.schedules.from_arrays([0.1, 1e-9, 0.1])), "grid points"),
        (lambda: well(3.0, sigma=1.0), "diverge|stay finite"),
    ],
)
def test_invalid_arguments_raise_value_error(method, message):
    with pytest.raises(ValueError, match=message):
        exact.transfer(method(), [1.0] * method().oracle.dim, 30, "x" if method().oracle.dim == 1 else "x*y")


class Drifting(st.SGD):
    """An affine rule other than SGD, with the gradient at another point."""

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        return (0.9 * x + 0.05 - eta * oracle(0.8 * x + 0.3),)


def two_steps(kernel, x0, h, nodes=80):
    """Return E h after one and after two steps by nested Gauss-Hermite quadrature."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    mean, deviation = kernel(x0)
    first = mean + deviation * z
    mean, deviation = kernel(first)
    return w @ h(first), w @ h(mean[:, None] + deviation[:, None] * z) @ w


def test_an_affine_rule_with_a_shifted_oracle_point():
    def kernel(x):
        u = 0.8 * x + 0.3
        return 0.9 * x + 0.05 - 0.1 * (u**3 - u), 0.2 * (1 + 0.3 * np.sin(u))

    def h(x):
        return np.tanh(x) + np.cos(2 * x)

    dynamics = Drifting(well(0.1, sigma=2.0).oracle, st.schedules.constant(0.1))
    np.testing.assert_allclose(exact.transfer(dynamics, [0.4], 2, Smooth())[1:], two_steps(kernel, 0.4, h), rtol=0, atol=1e-12)


def test_the_grid_widens_for_an_unstable_rule(monkeypatch):
    """For z' = 3 z / 2 - 1/2 + v / 4 the first interval, which is based on the noise of single steps, is too short."""
    hill = st.losses.quadratic(-1.0, center=1.0, names=["x"])
    sgd = st.SGD(st.NoisyOracle(hill, st.noise.gaussian(dim=1), sigma=0.5), st.schedules.constant(0.5))
    intervals, original = [], exact.quadrature._propagate
    monkeypatch.setattr(exact.quadrature, "_propagate", lambda *a: intervals.append(a[4:6]) or original(*a))
    got = exact.transfer(sgd, [1.1], 7, "x**2")
    k = np.arange(8)
    want = (1 + 0.1 * 1.5**k) ** 2 + (1.5 ** (2 * k) - 1) / (1.5**2 - 1) / 16
    np.testing.assert_allclose(got, want, rtol=1e-11)
    assert len(intervals) > 1, "the first interval was sufficient: the test has no effect"
    for (low, high), (below, above) in itertools.pairwise(intervals):  # a quarter of the width on either side
        assert (below, above) == pytest.approx((low - (high - low) / 4, high + (high - low) / 4), rel=1e-12)
