"""SDEs of sign descent, clipping, RMSProp and Adam: moments of H(g) by quadrature, equations written out, refused arguments; and the error function."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import special
from scipy.integrate import quad
from scipy.stats import norm

import sdetools as st
from sdetools.graph.error_function import erf, normal_cdf, normal_density

PLAN = st.schedules.constant(0.1)


def oracle(sigma=0.5, dim=1, noise=None):
    """Return an oracle of |x|^2 / 2."""
    return st.NoisyOracle(st.losses.quadratic(np.eye(dim)), noise or st.noise.gaussian(dim=dim), sigma=sigma)


def test_the_error_function_is_scipys():
    x = np.concatenate(
        [np.linspace(-8, 8, 100_001), np.geomspace(1e-300, 1, 999), [0.0, 0.49999999, 0.5, 30.0, -1e10, np.inf, -np.inf]]
    )
    assert np.abs(erf(x) - special.erf(x)).max() < 1e-15
    own = x != 0
    assert np.abs(erf(x[own]) / special.erf(x[own]) - 1).max() < 2e-15
    assert np.abs(normal_cdf(x) - special.ndtr(x)).max() < 1e-15
    assert normal_density(1.3) == pytest.approx(norm.pdf(1.3), rel=1e-14)
    assert np.isnan(erf(np.nan))


def test_scipys_error_function_can_be_traced():
    """A user's drift with `scipy.special.erf` and `ndtr` runs on every backend with the same numbers."""
    sde = st.SDE(drift=lambda x: [-special.erf(x[0]) - special.ndtr(x[0])], diffusion=[[0.3]], dim=1)
    found = [
        st.simulate(st.EulerMaruyama(sde, 0.1), [1.0], 1.0, 300, ["x0"], backend=b, seed=2).at("x0").value
        for b in ("numpy", "numba")
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    plain = sde.drift(np.array([0.7]))
    assert plain[0] == pytest.approx(-math.erf(0.7) - norm.cdf(0.7), rel=1e-14)


def integral(function, mean, deviation):
    """Return E function(g), g ~ N(mean, deviation^2), by adaptive quadrature with breaks at the kinks."""
    pieces = [-np.inf, -0.7, 0.0, 0.7, np.inf]
    return sum(
        quad(lambda g: function(g) * norm.pdf(g, mean, deviation), a, b, epsabs=1e-13)[0] for a, b in itertools.pairwise(pieces)
    )


@pytest.mark.sample(7)
@pytest.mark.parametrize("mean", [-2.0, -0.3, 0.0, 0.05, 1.1])
@pytest.mark.parametrize("deviation", [0.2, 0.5, 3.0])
def test_moments_by_quadrature(mean, deviation):
    own = oracle(deviation)
    cases = ((st.SignSDE(own, PLAN), np.sign, ()), (st.ClippedSDE(own, PLAN, 0.7), lambda g: np.clip(g, -0.7, 0.7), (0.7,)))
    for sde, H, numbers in cases:
        b, slope, variance = (float(part[0]) for part in sde.response(np.array([mean]), np.array([deviation]), numbers))
        first, second = (integral(lambda g, k=k: H(g) ** k, mean, deviation) for k in (1, 2))
        stein = integral(lambda g: H(g) * (g - mean), mean, deviation) / deviation**2  # d/dmean E H, by Stein's identity
        assert b == pytest.approx(first, abs=1e-10) and slope == pytest.approx(stein, abs=1e-9)
        assert variance == pytest.approx(second - first**2, abs=1e-9)
        assert sde.drift(np.array([mean]))[0] == pytest.approx(-first, abs=1e-10)
        assert sde.diffusion(np.array([mean]), [1.0])[0] ** 2 == pytest.approx(0.1 * (second - first**2), abs=1e-9)


def test_the_correction_of_the_drift_in_two_coordinates():
    """-(eta/2) (grad b) b by central differences of the drift of order 1, with coupled coordinates and a moving plan."""
    loss = st.losses.from_expression("x**2 + x*y + y**4 / 3", variables="x y")
    own = st.NoisyOracle(loss, st.noise.gaussian(covariance=[[0.25, 0.0], [0.0, 1.0]]), sigma=0.8)
    plan = st.schedules.from_arrays([0.1, 0.05])
    for make in (st.SignSDE, lambda *a, **k: st.ClippedSDE(*a, value=0.6, **k)):
        one, two = make(own, plan, weak_order=1), make(own, plan, weak_order=2)
        x, e = np.array([0.4, -0.7]), 1e-5
        grad = np.column_stack([(one.drift(x + e * u) - one.drift(x - e * u)) / (2 * e) for u in np.eye(2)])
        assert two.drift(x) - one.drift(x) == pytest.approx(-plan.eta / 2 * grad @ one.drift(x), rel=1e-6)
        assert two.drift(x, s=(0.5,)) == pytest.approx(0.5 * one.drift(x) - 0.25 * plan.eta / 2 * grad @ one.drift(x), rel=1e-6)
        assert np.array_equal(one.diffusion(x, [1.0, 2.0]), two.diffusion(x, [1.0, 2.0]))


def test_the_equations_of_rmsprop_and_adam_written_out():
    eta, beta2, eps, sigma0 = 0.1, 1 - 0.03, 2.0, 0.5
    own = st.NoisyOracle(
        st.losses.quadratic([[2.0, 0.3], [0.3, 1.0]]), st.noise.gaussian(covariance=[[1.0, 0.2], [0.2, 0.5]]), sigma=sigma0 / eta
    )
    H, Sigma, R = np.array([[2.0, 0.3], [0.3, 1.0]]), np.array([1.0, 0.5]), np.linalg.cholesky([[1.0, 0.2], [0.2, 0.5]])
    x, m, u, z = np.array([1.0, -0.5]), np.array([0.3, 0.1]), np.array([2.5, 0.4]), np.array([0.7, -1.1])
    rms = st.RMSPropSDE(own, st.schedules.constant(eta), beta2=beta2, eps=eps, second_moment=4.0)
    P = sigma0 * np.sqrt(u) + eps * eta
    assert rms.start(x)[1] == pytest.approx(np.full(2, 4.0 * eta**2 / sigma0**2))
    assert rms.drift(np.concatenate([x, u])) == pytest.approx(np.concatenate([-H @ x / P, (1 - beta2) / eta**2 * (Sigma - u)]))
    noise = rms.diffusion(np.concatenate([x, u]), z)
    outer = np.outer(sigma0 / P, sigma0 / P) * (R @ R.T)
    columns = np.column_stack([rms.diffusion(np.concatenate([x, u]), e)[:2] for e in np.eye(2)])
    assert columns @ columns.T == pytest.approx(outer) and not noise[2:].any()
    plan = st.schedules.constant(eta, beta=0.9)
    adam = st.AdamSDE(own, plan, beta2=beta2, eps=eps, momentum=m)
    signals = adam.signal_values(np.array([0.0, 0.05]), 0.0, 0.01)
    k = np.array([0, 5])
    assert signals == pytest.approx(np.column_stack([np.ones(2), np.full(2, 10.0), 1 - 0.9 ** (k + 1), 1 - beta2 ** (k + 1)]))
    root, first = math.sqrt(signals[1, 3]), signals[1, 2]
    P = sigma0 * np.sqrt(u) + eps * eta * root
    drift = adam.drift(np.concatenate([x, m, u]), s=signals[1])
    assert drift[:2] == pytest.approx(-root / first * m / P) and drift[2:4] == pytest.approx(10.0 * (H @ x - m))
    assert drift[4:] == pytest.approx((1 - beta2) / eta**2 * (Sigma - u))
    assert st.AdamSDE(own, plan, bias_correction=False).signal_values(np.array([0.0]), 0.0, 0.01)[0, 2:].tolist() == [1.0, 1.0]


def test_a_stage_within_a_step_reads_the_plan_at_its_own_time():
    """k = floor((t + c h) / eta^2) by hand at eta = .1: t + c h = .0099 lies in step 0, .0301 in step 3, and a jump at the end of a step acts after it."""
    scaled, plan = oracle(0.5 / 0.1), st.schedules.from_arrays([0.1, 0.08, 0.05, 0.02])
    sde = st.RMSPropSDE(scaled, plan, beta2=0.97, eps=2.0)
    assert sde.signal_values(np.array([0.0, 0.0202]), 0.5, 0.0198)[:, 0] == pytest.approx([1.0, 0.2], rel=1e-14)
    assert sde.signal_values(np.array([0.0, 0.01]), 1.0, 0.01)[:, 0] == pytest.approx([1.0, 0.8], rel=1e-14)
    assert sde.signal_values(np.array([0.0, 0.01, 0.02]), 0.0, 0.01)[:, 0] == pytest.approx([1.0, 0.8, 0.5], rel=1e-14)
    assert sde.signal_values(np.array([0.0]), 0.75, 0.0132)[:, 0] == pytest.approx(
        [1.0], rel=1e-14
    )  # .0099, where 1.02 times that is .0101
    plan = st.schedules.from_arrays([0.1, 0.08, 0.05, 0.02], [0.9, 0.8, 0.7, 0.6])
    adam = st.AdamSDE(scaled, plan, beta2=0.97, eps=2.0)
    for start, fraction, h, k in ((0.0, 0.5, 0.0198, 0), (0.0202, 0.5, 0.0198, 3), (0.01, 0.75, 0.0132, 1)):
        first, second = 1 - math.prod([0.9, 0.8, 0.7, 0.6][: k + 1]), 1 - 0.97 ** (k + 1)
        expected = [[1.0, 0.8, 0.5, 0.2][k], (1 - [0.9, 0.8, 0.7, 0.6][k]) / 0.01, first, second]
        assert adam.signal_values(np.array([start]), fraction, h)[0] == pytest.approx(expected, rel=1e-12)


def test_the_noise_enters_as_that_of_the_gradient():
    """-sigma0 z / P in the position, c1 sigma0 z in the momentum, so that an optimiser and its equation can share draws."""
    scaled, z = oracle(0.5 / 0.1, dim=2), np.array([0.7, -1.1])
    rms = st.RMSPropSDE(scaled, PLAN, beta2=0.97, eps=2.0)
    y, P = np.array([1.0, 2.0, 2.5, 0.4]), 0.5 * np.sqrt([2.5, 0.4]) + 0.2
    assert rms.diffusion(y, z, s=(0.8,)) == pytest.approx([*(-0.8 * 0.5 * z / P), 0.0, 0.0], rel=1e-14)
    adam = st.AdamSDE(scaled, st.schedules.constant(0.1, beta=0.9), beta2=0.97, eps=2.0)
    y = np.array([1.0, 2.0, 0.3, 0.1, 2.5, 0.4])
    assert adam.diffusion(y, z, s=(0.8, 10.0, 0.5, 0.6)) == pytest.approx([0.0, 0.0, *(10.0 * 0.5 * z), 0.0, 0.0], rel=1e-14)


def test_backends_agree():
    """Means of 300 paths on the same draws, to rounding."""
    eta = 0.1
    scaled = oracle(0.5 / eta)
    cases = (
        st.Platen(st.SignSDE(oracle(dim=2), PLAN, weak_order=2), 0.05),
        st.EulerMaruyama(st.ClippedSDE(oracle(dim=2), PLAN, value=1.0), 0.05),
        st.EulerMaruyama(st.RMSPropSDE(scaled, PLAN, beta2=0.99, eps=2.0), 0.01),
        st.EulerMaruyama(st.AdamSDE(scaled, st.schedules.constant(eta, beta=0.98), beta2=0.99, eps=2.0), 0.01),
    )
    for dynamics in cases:
        found = [
            st.simulate(dynamics, [0.8] * dynamics.dim, 0.5, 300, ["x0**2"], backend=b, seed=1).at("x0**2").value
            for b in ("numpy", "numba")
        ]
        assert np.isfinite(found[0]) and found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: st.SignSDE(oracle(noise=st.noise.rademacher(dim=1)), PLAN), "normal noise with a constant, diagonal"),
        (lambda: st.SignSDE(oracle(sigma=0.0), PLAN), "positive covariance"),
        (lambda: st.SignSDE(oracle(dim=2, noise=st.noise.gaussian(covariance=[[1.0, 0.5], [0.5, 1.0]])), PLAN), "diagonal"),
        (lambda: st.SignSDE(oracle(), PLAN, weak_order=3), "`weak_order` must be 1 or 2"),
        (lambda: st.SignSDE(oracle(), st.schedules.constant(0.1, 0.9)), "no momentum"),
        (lambda: st.ClippedSDE(oracle(), PLAN, value=0.0), "`value`"),
        (lambda: st.RMSPropSDE(oracle(), st.schedules.constant(0.1, 0.9)), "use st.AdamSDE"),
        (lambda: st.AdamSDE(oracle(), PLAN), "use st.RMSPropSDE"),
        (lambda: st.RMSPropSDE(oracle(sigma=0.0), PLAN), "sigma > 0"),
        (lambda: st.RMSPropSDE(oracle(), PLAN, eps=0.0), "`second_moment`"),
        (lambda: st.RMSPropSDE(oracle(), PLAN, eps=-1.0), "`eps`"),
        (lambda: st.RMSPropSDE(oracle(), PLAN, beta2=1.0), "`beta2`"),
    ],
)
def test_invalid_arguments_raise_value_error(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def valley():
    """Return an oracle of (x^2 y - 1)^2 / 2 with label noise."""
    loss = st.losses.from_expression("(x**2*y - 1)**2 / 2", variables="x y")
    return st.NoisyOracle(loss, st.noise.gaussian(root=[["2*x*y"], ["x**2"]], variables="x y"), sigma=0.5)


def test_the_adaptive_slow_flow_is_the_projected_gradient_written_out():
    """-(b^2/4) Proj_S [S grad sum_i S_i H_ii] with S frozen, H_xx = 6 x^2 y^2 - 2 y + ... differentiated by hand, at points of the manifold."""
    eta, b, eps = 0.1, 0.5, 0.3
    flow = st.AdaptiveSlowFlow(valley(), st.schedules.constant(eta), beta2=0.97, eps=eps, at=[1.0, 1.0], second_moment=[2.0, 0.5])
    for x in (0.8, 1.3):
        y, v = x**-2, np.array([1.7, 0.4])
        S = 1 / (np.sqrt(v) + eps)
        # L_xx = 6 x^2 y^2 - 2 y, L_yy = x^4
        grad = np.array([S[0] * 12 * x * y**2 + S[1] * 4 * x**3, S[0] * (12 * x**2 * y - 2)])
        normal = np.array([2 * x * y, x**2])
        step = S * grad
        step = step - S * normal * (normal @ step) / (normal @ (S * normal))
        found = flow.drift(np.array([x, y, *v]), s=(0.5,))
        assert found[:2] == pytest.approx(-(b**2) / 4 * 0.25 * step, rel=1e-9)
        H = np.array([6 * x**2 * y**2 - 2 * y, x**4])
        assert found[2:] == pytest.approx(0.03 / eta**2 * (b**2 * H - v), rel=1e-9)
    assert flow.start(np.array([1.0, 1.0]))[1] == pytest.approx([2.0, 0.5])


def test_the_adaptive_slow_flow_refuses_noise_along_the_manifold():
    loss = valley().loss
    with pytest.raises(ValueError, match="vanishes along the manifold"):
        st.AdaptiveSlowFlow(st.NoisyOracle(loss, st.noise.gaussian(dim=2)), PLAN, at=[1.0, 1.0])
    with pytest.raises(ValueError, match="`second_moment`"):
        st.AdaptiveSlowFlow(valley(), PLAN, at=[1.0, 1.0], second_moment=-1.0)
