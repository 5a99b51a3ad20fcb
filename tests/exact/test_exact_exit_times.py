"""Exact mean exit times: closed forms, SciPy's nested quadrature, a chain on another grid, and the bias of exits that are seen at steps."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

import sdetools as st
from sdetools.exact import exit_time

MOTION = st.SDE(drift=["0"], diffusion=["1"], variables="x")
EPS = 0.2
WELL = st.SDE(drift=["x - x**3"], diffusion=[repr(math.sqrt(2 * EPS))], variables="x")
OVERSHOOT = 0.5825971579390107


@pytest.mark.parametrize("x", [-0.9, 0.0, 0.3])
def test_brownian_motion_in_an_interval(x):
    assert exit_time(MOTION, [x], -1.0, 1.0) == pytest.approx(1 - x * x, rel=1e-10)


@pytest.mark.parametrize(("drift", "sigma"), [(0.7, 1.3), (-0.4, 0.6)])
def test_brownian_motion_with_drift(drift, sigma):
    """E tau = (E X_tau - x) / drift by Wald's identity, with P(right end) from the martingale exp(-2 drift X / sigma^2)."""
    sde = st.SDE(drift=[f"{drift} + 0*x"], diffusion=[f"{sigma}"], variables="x")
    low, high, x = -0.5, 1.5, 0.25
    k = -2 * drift / sigma**2
    right = (math.exp(k * x) - math.exp(k * low)) / (math.exp(k * high) - math.exp(k * low))
    assert exit_time(sde, [x], low, high) == pytest.approx((right * high + (1 - right) * low - x) / drift, rel=1e-10)
    toward = {"high": high} if drift > 0 else {"low": low}
    assert exit_time(sde, [x], **toward) == pytest.approx((next(iter(toward.values())) - x) / drift, rel=1e-9)


def test_noise_that_depends_on_the_point():
    """Geometric Brownian motion: log X is Brownian motion with drift 0.1 - 0.045."""
    sde = st.SDE(drift=["0.1*x"], diffusion=["0.3*x"], variables="x")
    plain = st.SDE(drift=["0.055"], diffusion=["0.3"], variables="x")
    want = exit_time(plain, [0.0], math.log(0.5), math.log(2.0))
    assert exit_time(sde, [1.0], 0.5, 2.0) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("eps", [0.05, 0.2])
def test_the_double_well_is_the_nested_integral(eps):
    """SciPy's adaptive quadrature of (1/eps) int e^{V(y)/eps} int_{-inf}^y e^{-V(z)/eps} dz dy; and its mirror image."""
    well = st.SDE(drift=["x - x**3"], diffusion=[repr(math.sqrt(2 * eps))], variables="x")

    def V(y):
        return y**4 / 4 - y**2 / 2

    def inner(y):
        return quad(lambda z: math.exp((V(y) - V(z)) / eps), -6, y, points=sorted({-1.0, min(y, 0.0)}), epsrel=1e-12, limit=400)[
            0
        ]

    want = quad(inner, -1, 0.8, epsrel=1e-10, limit=200)[0] / eps
    assert exit_time(well, [-1.0], high=0.8) == pytest.approx(want, rel=1e-8)
    assert exit_time(well, [1.0], low=-0.8) == pytest.approx(want, rel=1e-8)
    assert abs(exit_time(well, [-1.0], high=0.81) / want - 1) > 1e-4  # another end is noticed


def test_kramers_law_is_the_limit():
    """2 pi e^{1 / (4 eps)} / sqrt(V''(-1) |V''(0)|) = pi sqrt(2) e^{...}, half of it to the top, up to a relative error of order eps."""
    errors = []
    for eps in (0.02, 0.01):
        well = st.SDE(drift=["x - x**3"], diffusion=[repr(math.sqrt(2 * eps))], variables="x")
        kramers = math.pi * math.sqrt(2) * math.exp(0.25 / eps)
        assert exit_time(well, [-1.0], high=0.0) == pytest.approx(exit_time(well, [-1.0], high=1.0) / 2, rel=0.05)
        errors.append(exit_time(well, [-1.0], high=1.0) / kramers - 1)
    assert 1.8 < errors[0] / errors[1] < 2.4 and errors[1] < 0.03


def chain_on_a_grid(x, drift, deviation, h, low, high, points):
    """Return T(x) = h + int N T by midpoints, an independent discretisation."""
    width = (high - low) / points
    grid = low + width * (np.arange(points) + 0.5)

    def kernel(at):
        mean = at + h * drift(at)
        return np.exp(-0.5 * ((grid - mean[:, None]) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi)) * width

    inside = np.linalg.solve(np.eye(points) - kernel(grid), np.full(points, h))
    return h + (kernel(np.array([x])) @ inside).item()


def test_the_mean_exit_time_of_a_chain():
    """Midpoints converge as the square of the width at the ends of the interval; two of them extrapolate."""
    h = 0.05
    em = st.EulerMaruyama(WELL, h)
    coarse, fine = (chain_on_a_grid(-1.0, lambda y: y - y**3, math.sqrt(2 * EPS * h), h, -4.0, 1.0, n) for n in (800, 1600))
    assert exit_time(em, [-1.0], high=1.0) == pytest.approx((4 * fine - coarse) / 3, rel=1e-7)
    assert exit_time(em, [-1.0], -4.0, 1.0) == pytest.approx((4 * fine - coarse) / 3, rel=1e-7)


def test_a_chain_whose_steps_are_as_long_as_the_interval():
    """Three deviations of a step are more than the interval, which one panel covers."""
    coarse, fine = (chain_on_a_grid(0.25, lambda y: 0.0 * y, 1.0, 1.0, -1.0, 1.0, n) for n in (400, 800))
    assert exit_time(st.EulerMaruyama(MOTION, 1.0), [0.25], -1.0, 1.0) == pytest.approx((4 * fine - coarse) / 3, rel=1e-7)


def test_an_open_end_of_a_chain_with_strong_noise():
    """Noise 2 in place of .6: the stationary law of x' = .9 x + .63 z has the deviation 1.45, and -20 is 13 of them away."""
    em = st.EulerMaruyama(st.SDE(drift=["-x"], diffusion=["2"], variables="x"), 0.1)
    coarse, fine = (chain_on_a_grid(0.0, lambda y: -y, 2 * math.sqrt(0.1), 0.1, -20.0, 2.0, n) for n in (600, 1200))
    assert exit_time(em, [0.0], high=2.0) == pytest.approx((4 * fine - coarse) / 3, rel=1e-6)


def test_a_chain_leaves_at_its_lower_end_as_its_mirror_image_at_the_upper():
    em = st.EulerMaruyama(WELL, 0.05)
    assert exit_time(em, [0.9], low=-0.7) == pytest.approx(exit_time(em, [-0.9], high=0.7), rel=1e-9)


def test_sgd_is_the_euler_scheme_of_its_limit():
    eta = 0.05
    oracle = st.NoisyOracle(st.losses.double_well(), st.noise.gaussian(dim=1), sigma=3.0)
    plan = st.schedules.constant(eta)
    euler = st.EulerMaruyama(st.LimitSDE(oracle, plan), eta)
    assert exit_time(st.SGD(oracle, plan), [-1.0], high=0.5) == pytest.approx(exit_time(euler, [-1.0], high=0.5), rel=1e-10)


def test_exits_at_steps_are_late_by_the_root_of_the_step_and_a_shifted_boundary_removes_it():
    """Halving dt twice halves the bias, and divides by about four that with the boundary shifted by 0.5826 sigma sqrt(dt)."""
    exact = exit_time(WELL, [-1.0], high=0.5)
    steps = np.array([0.01, 0.0025, 0.000625])
    shift = OVERSHOOT * np.sqrt(2 * EPS * steps)
    plain = np.array([exit_time(st.EulerMaruyama(WELL, dt), [-1.0], high=0.5) for dt in steps]) - exact
    shifted = np.array([exit_time(st.EulerMaruyama(WELL, dt), [-1.0], high=0.5 - s) for dt, s in zip(steps, shift)]) - exact
    assert (plain > 0).all() and (np.abs(plain[:-1] / plain[1:] - 2) < 0.25).all()
    assert (np.abs(shifted) < 0.2 * plain).all() and (np.abs(shifted[:-1] / shifted[1:] - 4) < 0.5).all()
    wrong = exit_time(st.EulerMaruyama(WELL, steps[-1]), [-1.0], high=0.5 - 1.2 * shift[-1]) - exact
    assert abs(wrong) > 3 * abs(shifted[-1])  # control: a constant that is off by a fifth


def test_a_start_outside_has_left():
    assert exit_time(WELL, [1.0], high=1.0) == 0.0 == exit_time(MOTION, [-2.0], -1.0, 1.0)


ORACLE = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))


@pytest.mark.parametrize(
    ("of", "given", "text"),
    [
        (WELL, dict(), "`low` or `high` must be given"),
        (WELL, dict(low=1.0, high=0.0), "`low` must be below `high`"),
        (MOTION, dict(high=1.0), "`low` must be given where the process may go to infinity"),
        (MOTION, dict(low=-1.0), "`high` must be given where"),
        (st.SDE(drift=["-x", "-y"], diffusion=["1", "1"], variables="x y"), dict(high=1.0), "in one dimension"),
        (ORACLE, dict(high=1.0), "in one dimension"),
        (st.SDE(drift=["t - x"], diffusion=["1"], variables="x"), dict(high=1.0), "must not depend on time"),
        (st.SDE(drift=["-x"], variables="x"), dict(high=1.0), "must have noise"),
        (
            st.SDE(drift=["-x"], diffusion=["x"], variables="x", calculus="stratonovich"),
            dict(high=1.0),
            "must be an Ito equation",
        ),
        (st.SGDM(ORACLE, st.schedules.constant(0.1, 0.5)), dict(high=1.0), "one part and normal draws"),
        (st.SGD(ORACLE, st.schedules.warmup(0.1, steps=3)), dict(high=1.0), "constant coefficients"),
        (st.Platen(st.SDE(drift=["-x"], diffusion=["x"], variables="x"), 0.1), dict(low=0.5, high=2.0), "affine in their draws"),
        (st.EulerMaruyama(WELL, 1e-7), dict(high=1.0), "steps whose noise is at least"),
    ],
)
def test_what_does_not_qualify_is_refused(of, given, text):
    with pytest.raises(ValueError, match=text):
        exit_time(of, [0.0] * getattr(of, "dim", 1), **given)
