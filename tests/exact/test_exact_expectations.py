"""Observables with an exact expectation, and the reference values of MATHEMATICS section 2."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st
from sdetools import exact

X = st.losses.quadratic(1.0, names=["x"])


def pair(eta: float, alpha: float, damping: float):
    """SGDM on x^2/2 with sigma = eta^-1/2 and 1 - beta = damping * eta^alpha, and the SGD of its averaged schedule."""
    oracle = st.NoisyOracle(X, st.noise.gaussian(dim=1), sigma=eta**-0.5)
    plan = st.schedules.scaled(eta, alpha, damping=damping)
    return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())


def law(dim: int = 2, noise=None) -> exact.Moments:
    loss = st.losses.quadratic(np.diag([1.0, 0.5])[:dim, :dim], names=["x", "y"][:dim])
    oracle = st.NoisyOracle(
        loss, noise or st.noise.gaussian(covariance=np.array([[1.0, 0.4], [0.4, 2.0]])[:dim, :dim]), sigma=2.0
    )
    return exact.moments(st.SGD(oracle, st.schedules.constant(0.2)), [0.7, -0.4][:dim], 6, record=[0, 2, 6])


def by_quadrature(m: exact.Moments, h, nodes: int = 60) -> list[float]:
    """E h under the normal laws of `m` by a product of Gauss-Hermite rules (h smooth)."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    points = np.array(np.meshgrid(*[z] * m.dim, indexing="ij")).reshape(m.dim, -1)
    weights = np.prod(np.meshgrid(*[w] * m.dim, indexing="ij"), axis=0).ravel()
    out = []
    for mean, covariance in zip(m.mean, m.covariance, strict=True):
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        out.append(float(weights @ h(mean[:, None] + root @ points)))
    return out


@pytest.mark.parametrize(
    ("text", "h"),
    [
        ("x**2 + 3*x*y - y + 1", lambda p: p[0] ** 2 + 3 * p[0] * p[1] - p[1] + 1),
        ("2*cos(2*x - y + 1) - sin(y)", lambda p: 2 * np.cos(2 * p[0] - p[1] + 1) - np.sin(p[1])),
        ("exp(x/3 + y/4) + x", lambda p: np.exp(p[0] / 3 + p[1] / 4) + p[0]),
        ("(x - 2*y + 1)**3", lambda p: (p[0] - 2 * p[1] + 1) ** 3),
        ("x**4/4 - x**2/2 + y**5", lambda p: p[0] ** 4 / 4 - p[0] ** 2 / 2 + p[1] ** 5),
        ("3", lambda p: 3 + 0 * p[0]),
    ],
)
def test_expressions_against_quadrature(text, h):
    m = law()
    assert m.gaussian
    np.testing.assert_allclose(exact.expectation(m, text), by_quadrature(m, h), rtol=1e-12, atol=1e-13)


def test_kinks_and_jumps():
    m = law()
    direction = np.array([1.0, 2.0])
    mean, variance = m.mean @ direction - 0.5, np.einsum("tij,i,j->t", m.covariance, direction, direction)
    np.testing.assert_allclose(exact.expectation(m, "abs(x + 2*y - 0.5)"), exact.absolute_moment(mean, variance), rtol=1e-14)
    np.testing.assert_allclose(
        exact.expectation(m, "1 + 3*abs(x + 2*y - 0.5)**0.5"), 1 + 3 * exact.absolute_moment(mean, variance, p=0.5), rtol=1e-14
    )
    np.testing.assert_allclose(
        exact.expectation(m, "sqrt(abs(y))"), exact.expectation(m, exact.Absolute(0.0, 0.5, coordinate=1)), rtol=1e-14
    )
    np.testing.assert_allclose(exact.expectation(m, "sign(x)"), 1 - 2 * exact.expectation(m, exact.Below(0.0)), atol=1e-15)
    np.testing.assert_allclose(
        exact.expectation(m, "max(x, y)"),
        0.5 * (exact.expectation(m, "x + y") + exact.expectation(m, "abs(x - y)")),
        rtol=1e-14,
    )
    np.testing.assert_allclose(
        exact.expectation(m, exact.Below(0.3, coordinate=1)), exact.probability_below(m.mean[:, 1], m.covariance[:, 1, 1], 0.3)
    )


class Polynomial:
    def value(self, x):
        return 2 - x[0] * x[1] + 4 * x[1] ** 2


class Wave:
    def value(self, x):
        return np.cos(x[0]) + x[1]


def test_an_object_with_a_quadratic_value_is_recognised():
    for noise in (None, st.noise.rademacher(2)):
        m = law(noise=noise)
        np.testing.assert_allclose(exact.expectation(m, Polynomial()), exact.expectation(m, "2 - x*y + 4*y**2"), rtol=1e-13)
    loss = st.losses.quadratic([[1.0, 0.2], [0.2, 3.0]])
    np.testing.assert_allclose(exact.expectation(m, loss), exact.expectation(m, "(x**2 + 0.4*x*y + 3*y**2)/2"), rtol=1e-13)


@pytest.mark.parametrize(
    ("m", "h", "message"),
    [
        (lambda: law(), Wave(), "polynomial of degree <= 2 or a sum"),
        (lambda: law(), "x**2*y**2", "polynomial of degree <= 2 or a sum"),
        (lambda: law(), "tanh(x)", "use `exact.transfer`"),
        (lambda: law(), "abs(x*y)", "polynomial"),
        (lambda: law(), 3.0, "polynomial"),
        (lambda: law(noise=st.noise.rademacher(2)), "abs(x)", "not Gaussian"),
        (lambda: law(noise=st.noise.rademacher(2)), exact.Below(0.0), "not Gaussian"),
        (lambda: law(), exact.Absolute(0.0, coordinate=2), r"`coordinate` must lie in 0..1"),
    ],
)
def test_observables_without_exact_expectation_raise_value_error(m, h, message):
    with pytest.raises(ValueError, match=message):
        exact.expectation(m(), h)


def test_observable_classes_validate_and_compare():
    with pytest.raises(ValueError, match="`p`"):
        exact.Absolute(0.0, p=0.0)
    assert exact.Absolute(1.0) == exact.Absolute(1.0, 1.0, 0)
    x = np.array([[0.0, 2.0, 1.0]])
    np.testing.assert_array_equal(exact.Absolute(1.0).value(x), [1, 1, 0])
    np.testing.assert_array_equal(exact.Below(1.0).value(x), [1, 0, 1])
    assert exact.Absolute(1.0).value(x[:, 1]) == 1 and exact.Below(1.0).value(x[:, 1]) == 0


def test_gap_on_two_clocks():
    """An SGD of half the step size shares every time point of the first; the converse does not hold."""
    oracle = st.NoisyOracle(X, st.noise.gaussian(dim=1))
    coarse, fine = st.SGD(oracle, st.schedules.constant(0.2)), st.SGD(oracle, st.schedules.constant(0.1))
    np.testing.assert_allclose(
        exact.gap(coarse, fine, [1.0], 5, "x"), 0.8 ** np.arange(6) - 0.9 ** (2 * np.arange(6)), atol=1e-15
    )
    np.testing.assert_allclose(
        exact.gap(fine, coarse, [1.0], 4, "x", record=[0, 2, 4]), [0, 0.9**2 - 0.8, 0.9**4 - 0.8**2], atol=1e-15
    )
    with pytest.raises(ValueError, match="step 1 of the first"):
        exact.gap(fine, coarse, [1.0], 4, "x")


ETAS = 2.0 ** -np.arange(4, 15)


@pytest.fixture(scope="module")
def suprema():
    """Return the supremum over k <= 1/eta of the gap for every h, with its step and the first gap, for alpha = 0 and 0.5."""
    observables = {"x": "x", "x2": "x**2", "abs": "abs(x)", "kink": exact.Absolute(1.0), "root": exact.Absolute(1.0, p=0.5)}
    out = {}
    for alpha, damping in ((0.0, 0.1), (0.5, 0.4)):
        for eta in ETAS:
            first, second = pair(eta, alpha, damping)
            steps = round(1 / eta)
            left, right = exact.moments(first, [1.0], steps), exact.moments(second, [1.0], steps)
            for name, h in observables.items():
                curve = np.abs(exact.expectation(left, h) - exact.expectation(right, h))
                out.setdefault((alpha, name), []).append((curve.max(), curve.argmax(), curve[1]))
    return {key: np.array(values) for key, values in out.items()}


def orders(suprema, alpha, name):
    return exact.local_orders(ETAS, suprema[alpha, name][:, 0])


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["x", "x2", "abs"])
def test_smooth_observables_have_order_one_minus_alpha(suprema, name):
    """MATHEMATICS 2: order -> 1 - alpha (0.99 at 2^-14; 0.45 and rising at alpha = 0.5)."""
    fixed, half = orders(suprema, 0.0, name), orders(suprema, 0.5, name)
    assert fixed[-1] == pytest.approx(0.99, abs=0.005)
    assert half[-1] == pytest.approx(0.45, abs=0.005)
    assert np.all(np.diff(fixed) > 0) and np.all(np.diff(half) > 0)


def test_range_of_local_orders(suprema):
    """0.63 to 0.91 at practical eta, for h = x."""
    fixed = orders(suprema, 0.0, "x")
    assert fixed[0] == pytest.approx(0.63, abs=0.005) and fixed[4] == pytest.approx(0.90, abs=0.005)


def test_lipschitz_kink_at_the_start_attains_the_theorem(suprema):
    """h = |x - x_0|: order (1 - alpha)/2, at k ~ 1/(1 - beta)."""
    assert orders(suprema, 0.0, "kink")[-1] == pytest.approx(0.500, abs=0.001)
    assert orders(suprema, 0.5, "kink")[-1] == pytest.approx(0.246, abs=0.001)
    assert suprema[0.0, "kink"][-1, 1] == pytest.approx(10, abs=1)
    assert suprema[0.5, "kink"][-1, 1] == pytest.approx(2.0**7 / 0.4, rel=0.05)


def test_hoelder_observables_have_lower_order(suprema):
    """h = |x - x_0|^p: order p (1 - alpha)/2; after one step gap / eta^{1/4} -> E|Z|^{1/2} (1 - (1 - beta)^{1/2}) = 0.562."""
    assert orders(suprema, 0.0, "root")[-1] == pytest.approx(0.25, abs=0.001)
    assert orders(suprema, 0.5, "root")[-1] == pytest.approx(0.125, abs=0.003)
    limit = exact.absolute_moment(0.0, 1.0, p=0.5) * (1 - 0.1**0.5)
    assert limit == pytest.approx(0.56, abs=0.005)
    assert suprema[0.0, "root"][-1, 2] / ETAS[-1] ** 0.25 == pytest.approx(limit, rel=1e-3)


def test_lipschitz_gap_collapses_on_eta_over_one_minus_beta():
    """Over an (eta, beta) grid the sup gap of |x - x_0| is a function of eta/(1 - beta), up to the discreteness 1 - beta.

    At s = k (1 - beta) of order 1 the drift is negligible and both displacements are Gaussian with variances r s and
    r (s - 2 (1 - e^-s) + (1 - e^-2s)/2), r = eta/(1 - beta): the gap is sqrt(2 r / pi) times the difference of the roots.
    """
    s = np.linspace(0.01, 10, 2000)
    limit = np.sqrt(2 / np.pi) * (np.sqrt(s) - np.sqrt(s - 2 * (1 - np.exp(-s)) + (1 - np.exp(-2 * s)) / 2)).max()
    assert limit == pytest.approx(0.471, abs=5e-4)
    for ratio in (1e-3, 1e-4):
        seen = []
        for one_minus_beta in (0.05, 0.025, 0.0125):
            eta = ratio * one_minus_beta
            oracle = st.NoisyOracle(X, st.noise.gaussian(dim=1), sigma=eta**-0.5)
            plan = st.schedules.constant(eta, 1 - one_minus_beta)
            steps = round(10 / one_minus_beta)
            seen.append(
                np.abs(exact.gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), [1.0], steps, exact.Absolute(1.0))).max()
            )
        assert max(seen) / min(seen) < 1.05
        assert seen[-1] == pytest.approx(limit * ratio**0.5, rel=0.02)


def test_kinetic_limit_at_alpha_one():
    """alpha = 1, x_0 = 1, T = 1: mean 0.65932, variance 0.14031 at eta = 1e-3; the limit is 0.65970, 0.14008."""
    seen = []
    for eta in (1e-3, 1e-6):
        first, _ = pair(eta, 1.0, 1.0)
        m = exact.moments(first, [1.0], round(1 / eta), record=[round(1 / eta)])
        seen.append((m.mean[0, 0], m.covariance[0, 0, 0]))
    np.testing.assert_allclose(seen, [[0.65932, 0.14031], [0.65970, 0.14008]], atol=5e-6)


def test_frictionless_limit_above_alpha_one():
    """alpha = 1.5, tau = k eta^1.25 = 2: mean -0.333 at eta = 1e-4, converging to cos 2 = -0.416."""
    gaps = []
    for eta in (1e-4, 1e-5):
        first, _ = pair(eta, 1.5, 1.0)
        steps = round(2 / eta**1.25)
        mean = exact.moments(first, [1.0], steps, record=[steps]).mean[0, 0]
        gaps.append(mean - np.cos(2))
        if eta == 1e-4:
            assert mean == pytest.approx(-0.333, abs=5e-4)
    # friction vanishes like eta^{(alpha - 1)/2} = eta^{1/4}
    assert gaps[0] / gaps[1] == pytest.approx(10**0.25, rel=0.1)


def test_svag_keeps_the_mean_and_multiplies_the_covariance():
    """SVAG at eta/l for l times the steps: second moments approach the SDE's, (1 - e^{-2t})/2 here, like 1/l."""
    eta, errors = 0.1, []
    for copies in (1, 2, 4, 8):
        oracle = st.svag(st.NoisyOracle(X, st.noise.rademacher(1), sigma=eta**-0.5), copies)
        m = exact.moments(st.SGD(oracle, st.schedules.constant(eta / copies)), [0.0], 10 * copies, record=[10 * copies])
        errors.append(m.covariance[0, 0, 0] - (1 - np.exp(-2.0)) / 2)
    np.testing.assert_allclose(exact.local_orders([1, 0.5, 0.25, 0.125], np.abs(errors)), 1, atol=0.05)


def test_second_order_test_problem_of_li_tai_e():
    """E L(z_k) of SGD on L_g(x) = (x - g)^T H (x - g)/2 - tr H/2 against its first-order SDE: the error is O(eta)."""
    lam, x0, errors = np.array([1.0, 2.0]), np.array([1.0, 1.0]), []
    etas = 2.0 ** -np.arange(5, 9)
    for eta in etas:
        loss = st.losses.quadratic(np.diag(lam))
        oracle = st.NoisyOracle(loss, st.noise.gaussian(covariance=np.diag(lam**2)))
        m = exact.moments(st.SGD(oracle, st.schedules.constant(eta)), x0, round(1 / eta))
        t = m.times[:, None]
        limit = (0.5 * lam * x0**2 * np.exp(-2 * lam * t) + eta / 4 * lam * (1 - np.exp(-2 * lam * t)) * lam).sum(axis=1)
        errors.append(np.abs(exact.expectation(m, loss) - limit).max())
    assert exact.local_orders(etas, errors)[-1] == pytest.approx(1.0, abs=0.02)


def test_warmup_values():
    w = exact.warmup(0.1, 0.9, 1000)
    assert w.one_step_sgdm / w.one_step_sgd == pytest.approx(1 / 19)
    assert w.endpoint_sgdm / w.endpoint_sgd == pytest.approx(1, abs=0.01)
    assert exact.warmup(0.1, 0.0, 7) == exact.Warmup(0.1**2, 0.1**2, 7 * 0.1**2, 7 * 0.1**2)
    one = exact.warmup(0.3, 0.7, 1)
    assert one.endpoint_sgdm == pytest.approx(one.one_step_sgdm, rel=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.warmup(0.1, 1.0, 3), "`beta`"),
        (lambda: exact.stationary_variance(2.0), "must stay below 2"),
        (lambda: exact.stationary_variance(0.1, noise_variance=-1), "`noise_variance`"),
        (lambda: exact.local_orders([0.1], [1.0]), "at least 2"),
        (lambda: exact.local_orders([0.1, 0.2], [1.0, 0.0]), "must be positive"),
    ],
)
def test_invalid_arguments_of_closed_forms_raise_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
