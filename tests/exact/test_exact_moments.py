"""Moment recursions against enumeration of all noise sequences, closed forms, and input validation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import sdetools as st
from sdetools import exact

STEPS = 8
MATRIX = np.array([[1.3, 0.4], [0.4, 0.7]])
ROOT = np.array([[1.0, 0.2], [-0.3, 0.5]])


class TwoGradients(st.Dynamics):
    """x' = x - eta (2 g(x) - g(x - eta m)) and so on: two gradients per step on the same draw."""

    parts, coefficients = ("x", "m"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        x, m = state
        first = oracle(x)
        m = beta * m + (1 - beta) * (2 * first - oracle(x - eta * m - eta * first))
        return x - eta * m, m


class Lookahead(st.Dynamics):
    """An affine rule: one gradient at a point other than x, and a constant shift."""

    parts, coefficients = ("x", "m"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        x, m = state
        m = beta * m + oracle(x - eta * beta * m + 0.1)
        return x - eta * m - 0.01, m


class Normalised(st.Dynamics):
    parts, coefficients = ("x",), ("eta",)

    @staticmethod
    def rule(state, oracle, eta):
        g = oracle(state[0])
        return (state[0] - eta * g / np.sqrt(1 + 1e-3 * (g * g).sum(axis=0)),)


def plan(momentum: bool = True) -> st.schedules.Plan:
    rng = np.random.default_rng(1)
    return st.schedules.from_arrays(rng.uniform(0.05, 0.3, 5), rng.uniform(0.3, 0.9, 5) if momentum else 0.0)


def signs_oracle(sigma: float = 0.8) -> st.NoisyOracle:
    loss = st.losses.quadratic(MATRIX, center=[0.5, -1.0])
    return st.NoisyOracle(loss, st.noise.rademacher(2, root=ROOT), sigma=sigma)


def dynamics(kind: str, oracle: st.NoisyOracle) -> st.Dynamics:
    makers = {
        "sgd": lambda: st.SGD(oracle, plan(False)),
        "sgdm": lambda: st.SGDM(oracle, plan(), momentum=[0.3, -0.2]),
        "heavy": lambda: st.HeavyBall(oracle, gamma=0.1, beta=0.7),
        "auxiliary": lambda: st.Auxiliary(oracle, plan(), momentum=[0.3, -0.2]),
        "two": lambda: TwoGradients(oracle, plan()),
        "lookahead": lambda: Lookahead(oracle, plan(), momentum=[0.3, -0.2]),
    }
    return makers[kind]()


KINDS = ["sgd", "sgdm", "heavy", "auxiliary", "two", "lookahead"]


def enumerate_signs(method: st.Dynamics, x0: np.ndarray, steps: int) -> list[np.ndarray]:
    """Return the states of all 4^steps equally likely paths, one array (parts * dim, paths) per step."""
    signs = np.array(list(product([-1.0, 1.0], repeat=2 * steps))).T.reshape(steps, 2, -1)
    paths = signs.shape[-1]
    state = tuple(np.repeat(part[:, None], paths, axis=1) for part in method.start(x0))
    rows = method.coefficient_values(steps)
    out = [np.concatenate(state)]
    for k in range(steps):
        z = signs[k]
        state = method.rule(state, lambda x, z=z: method.oracle(x, z), *rows[k])
        out.append(np.concatenate(state))
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_enumeration_of_all_sign_sequences(kind):
    """Mean and covariance of the whole state after 0..8 steps, over all 65,536 paths, to 1e-13."""
    method, x0 = dynamics(kind, signs_oracle()), np.array([2.0, -1.5])
    m = exact.moments(method, x0, STEPS)
    for k, states in enumerate(enumerate_signs(method, x0, STEPS)):
        np.testing.assert_allclose(m.state_mean[k], states.mean(axis=1), rtol=0, atol=1e-13)
        np.testing.assert_allclose(m.state_covariance[k], np.cov(states, bias=True), rtol=0, atol=1e-13)
    assert not m.gaussian
    np.testing.assert_allclose(m.times, np.arange(STEPS + 1) * method.step_time)
    h = exact.expectation(m, "x0**2 - 3*x0*x1 + x1 - 2")
    final = states
    np.testing.assert_allclose(h[-1], np.mean(final[0] ** 2 - 3 * final[0] * final[1] + final[1] - 2), atol=1e-13)


def test_enumeration_detects_a_wrong_noise_scale():
    """Negative control: sigma off by one part in a million exceeds the tolerance above by far."""
    x0 = np.array([2.0, -1.5])
    states = enumerate_signs(dynamics("sgdm", signs_oracle()), x0, 5)[-1]
    wrong = exact.moments(dynamics("sgdm", signs_oracle(0.8 * (1 + 1e-6))), x0, 5).state_covariance[-1]
    assert np.abs(wrong - np.cov(states, bias=True)).max() > 1e-8


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["sgd", "sgdm", "lookahead"])
def test_enumeration_of_all_minibatch_sequences(kind, l2):
    """Least squares with batches of one of 3 samples: noise quadratic in x, 3^6 index sequences, to 1e-13."""
    rng = np.random.default_rng(3)
    loss = st.losses.least_squares(rng.standard_normal((3, 2)), rng.standard_normal(3), l2=l2)
    method, x0 = dynamics(kind, st.NoisyOracle(loss, st.noise.minibatch(loss, size=1), sigma=1.5)), np.array([1.0, -2.0])
    steps = 6
    choice = np.array(list(product(range(3), repeat=steps)))
    m = exact.moments(method, x0, steps)
    finals = []
    for indices in choice:
        state = tuple(method.start(x0))
        for row, i in zip(method.coefficient_values(steps), indices, strict=True):

            def oracle(x, i=i):
                full = loss.gradient(x)
                return full + 1.5 * (loss.sample_gradients(x)[i] - full)

            state = method.rule(state, oracle, *row)
        finals.append(np.concatenate(state))
    finals = np.array(finals).T
    np.testing.assert_allclose(m.state_mean[-1], finals.mean(axis=1), rtol=0, atol=1e-13)
    np.testing.assert_allclose(m.state_covariance[-1], np.cov(finals, bias=True), rtol=1e-12, atol=1e-13)
    assert not m.gaussian


def test_label_noise_on_least_squares_has_exact_moments():
    rng = np.random.default_rng(4)
    loss = st.losses.least_squares(rng.standard_normal((5, 2)), rng.standard_normal(5))
    oracle = st.NoisyOracle(loss, st.noise.label_noise(loss, std=0.3))
    m = exact.moments(st.SGD(oracle, st.schedules.constant(0.1)), [0.0, 0.0], 400)
    assert np.linalg.eigvalsh(m.covariance[-1]).min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_recording_fewer_steps_gives_the_same_numbers(kind):
    """Repeated doubling of the affine map gives the same result as single steps."""
    method = dynamics(kind, signs_oracle())
    every = exact.moments(method, [1.0, 1.0], 300)
    some = exact.moments(method, [1.0, 1.0], 300, record=[0, 1, 4, 7, 250, 299])
    np.testing.assert_allclose(some.state_mean, every.state_mean[some.steps], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(some.state_covariance, every.state_covariance[some.steps], rtol=1e-12, atol=1e-14)


def test_auxiliary_process_follows_the_averaged_schedule_in_the_mean():
    """On a linear loss y_k and the SGD of plan.averaged() have the same law up to the start y_0 = x_0 - c_0 m_0."""
    oracle = st.NoisyOracle(st.losses.linear([1.0, -2.0]), st.noise.gaussian(covariance=ROOT @ ROOT.T), sigma=0.5)
    a = exact.moments(st.Auxiliary(oracle, plan()), [1.0, 1.0], 40)
    z = exact.moments(st.SGD(oracle, plan().averaged()), [1.0, 1.0], 40)
    np.testing.assert_allclose(a.mean, z.mean, atol=1e-13)
    np.testing.assert_allclose(a.covariance, z.covariance, atol=1e-14)


def test_both_forms_of_momentum_have_the_same_moments():
    oracle = signs_oracle()
    heavy = exact.moments(st.HeavyBall(oracle, gamma=0.02, beta=0.9), [1.0, 1.0], 50)
    ema = exact.moments(st.SGDM(oracle, st.schedules.constant(0.2, 0.9)), [1.0, 1.0], 50)
    np.testing.assert_allclose(heavy.mean, ema.mean, atol=1e-13)
    np.testing.assert_allclose(heavy.covariance, ema.covariance, atol=1e-13)
    np.testing.assert_allclose(0.1 * heavy.part("m")[0], ema.part("m")[0], atol=1e-13)


def test_warmup_of_section_3_1():
    """Stationary Gaussian momentum on a linear loss: variances of one step and of the endpoint."""
    eta, beta, c = 0.1, 0.9, np.array([1.0, -2.0])
    oracle = st.NoisyOracle(st.losses.linear(c), st.noise.gaussian(dim=2))
    sgdm = st.SGDM(oracle, st.schedules.constant(eta, beta), momentum=(c, (1 - beta) / (1 + beta) * np.eye(2)))
    m = exact.moments(sgdm, [0.0, 0.0], 60)
    z = exact.moments(st.SGD(oracle, st.schedules.constant(eta)), [0.0, 0.0], 60)
    assert m.gaussian
    for k in (1, 2, 17, 60):
        w = exact.warmup(eta, beta, k)
        np.testing.assert_allclose(m.covariance[k], w.endpoint_sgdm * np.eye(2), rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(z.covariance[k], w.endpoint_sgd * np.eye(2), rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(m.mean[k], -eta * k * c, rtol=1e-12)
    np.testing.assert_allclose(m.covariance[1], exact.warmup(eta, beta, 1).one_step_sgdm * np.eye(2), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("eta", [0.1, 1.2])
def test_stationary_variance(eta, beta):
    lam, noise = 1.5, 4.0
    oracle = st.NoisyOracle(st.losses.quadratic(lam), st.noise.uniform(dim=1), sigma=2.0)
    m = exact.moments(st.SGDM(oracle, st.schedules.constant(eta, beta)), [1.0], 100_000, record=[100_000])
    assert m.covariance[0, 0, 0] == pytest.approx(exact.stationary_variance(eta, beta, lam, noise), rel=1e-12)


def test_without_noise_the_law_is_a_point():
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.rademacher(1), sigma=0.0)
    m = exact.moments(st.SGD(oracle, st.schedules.constant(0.5)), [2.0], 3)
    assert m.gaussian and not m.covariance.any()
    np.testing.assert_allclose(exact.expectation(m, exact.Absolute(1.0)), [1.0, 0.0, 0.5, 0.75])


def test_the_moments_of_an_unstable_rule_overflow_without_warning():
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
    m = exact.moments(st.SGD(oracle, st.schedules.constant(10.0)), [2.0], 1000)
    assert not np.isfinite(m.mean[-1]).all()


def test_parts_and_repr():
    m = exact.moments(dynamics("sgdm", signs_oracle()), [1.0, 1.0], 4, record=[0, 4])
    assert m.part("m")[0].shape == (2, 2) and m.part("m")[1].shape == (2, 2, 2)
    np.testing.assert_array_equal(m.part("x")[0], m.mean)
    np.testing.assert_array_equal(m.part("m")[0][0], [0.3, -0.2])
    assert repr(m).startswith("Moments(2 times up to t=") and "state x+m" in repr(m)
    with pytest.raises(ValueError, match="one of x, m; got name='y'"):
        m.part("y")


def quadratic_sgd(noise=None, rule=st.SGD, loss=None, sigma=1.0):
    loss = st.losses.quadratic(1.0) if loss is None else loss
    return rule(st.NoisyOracle(loss, noise or st.noise.gaussian(dim=loss.dim), sigma=sigma), st.schedules.constant(0.1))


def two_gradients_rotating():
    """Return a rule for which Cov v is constant, but one draw gives different deviations at two points."""
    noise = st.noise.gaussian(root=[["cos(x0)", "sin(x0)"]], variables="x0")
    return TwoGradients(st.NoisyOracle(st.losses.quadratic(1.0), noise), st.schedules.constant(0.1, 0.5))


def two_gradients_minibatch():
    loss = st.losses.least_squares([[1.0], [2.0]], [1.0, 0.0])
    return TwoGradients(st.NoisyOracle(loss, st.noise.minibatch(loss, size=1)), st.schedules.constant(0.1, 0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.moments(quadratic_sgd(loss=st.losses.double_well()), [1.0], 3), "must have a quadratic loss"),
        (lambda: exact.moments(quadratic_sgd(rule=Normalised), [1.0], 3), "must be linear in the state and the gradient"),
        (
            lambda: exact.moments(quadratic_sgd(st.noise.gaussian(root=[["1 + 0.3*sin(x0)"]], variables="x0")), [1.0], 3),
            "constant or quadratic",
        ),
        (lambda: exact.moments(quadratic_sgd(), [1.0, 2.0], 3), "`x0` must have shape"),
        (lambda: exact.moments(quadratic_sgd(), [1.0], -1), "`steps`"),
        (lambda: exact.moments(quadratic_sgd(), [1.0], 3, record=[2, 1]), "`record` must hold increasing steps"),
        (lambda: exact.moments(quadratic_sgd(), [1.0], 3, record=[5]), "between 0 and steps=3"),
        (lambda: exact.moments(two_gradients_rotating(), [1.0], 3), "several gradients per step must have noise that does not"),
        (
            lambda: exact.moments(two_gradients_minibatch(), [1.0], 3),
            "several gradients per step must have noise that does not depend",
        ),
    ],
)
def test_invalid_arguments_raise_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_noise_affine_in_x_has_exact_moments():
    """Multiplicative noise, root = x: E x^2 is multiplied by (1 - eta)^2 + eta^2 sigma^2 in every step."""
    noise = st.noise.rademacher(1, root=[["x0"]], variables="x0")
    m = exact.moments(quadratic_sgd(noise, sigma=2.0), [3.0], 50)
    second = exact.expectation(m, "x0**2")
    np.testing.assert_allclose(second, 9 * (0.9**2 + 0.04) ** np.arange(51), rtol=1e-12)


def test_a_rule_with_extra_draws_raises_value_error():
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
    with pytest.raises(ValueError, match="without extra draws"):
        st.exact.moments(st.RandomScaling(oracle, st.schedules.constant(0.1, 0.5)), [1.0], 4)
