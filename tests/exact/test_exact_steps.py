"""One step of a linear rule as matrices, and random starts, against the rules themselves."""

import numpy as np
import pytest

import sdetools as st
from sdetools.exact.covariance import QuadraticCovariance
from sdetools.exact.linear import LinearStep, OpenStep, close, open_step
from sdetools.exact.moments import _advance

RNG = np.random.default_rng(21)


def matrices(*shapes):
    return [RNG.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("copies", [(0, 0, 0), (0, 1, 0), (2, 0, 1)])
def test_a_step_with_three_oracle_calls(copies):
    """g_j = H u_j + c + v_i, i the copy of call j, at u_j = U_j s + sum_{i<j} K_ji g_i + d_j, then s' = A s + sum_j G_j g_j + b; H is not symmetric."""
    n, dim = 5, 2
    b, A, H, c = matrices(n, (n, n), (dim, dim), dim)
    G = matrices(*[(n, dim)] * 3)
    points = [
        (d, U, tuple(matrices(*[(dim, dim)] * j)))
        for j, (d, U) in enumerate(zip(matrices(*[dim] * 3), matrices(*[(dim, n)] * 3)))
    ]
    step = close(OpenStep(b, A, tuple(G), tuple(points), copies), H, c)
    for _ in range(3):
        s, v = matrices(n, (1 + max(copies), dim))
        answers = []
        for (d, U, earlier), i in zip(points, copies, strict=True):
            u = U @ s + d + sum(K @ g for K, g in zip(earlier, answers, strict=True))
            answers.append(H @ u + c + v[i])
        exact = A @ s + b + sum(own @ g for own, g in zip(G, answers, strict=True))
        np.testing.assert_allclose(step.A @ s + step.b + np.einsum("ind,id", step.N, v), exact, rtol=1e-12)
    np.testing.assert_array_equal(step.points[0][0], points[0][1])
    np.testing.assert_array_equal(step.points[0][1], points[0][0])
    assert len(step.points) == 3 and step.copies == copies and step.chained and not step.separate


def test_the_matrices_of_a_rule_with_constants_and_zeros():
    """Two calls, the second at a point with a constant and the first answer in it; a part that becomes 0."""

    def rule(state, oracle, a, b):
        x, m, gone = state
        first = oracle(a * x - m + 0.3)
        second = oracle(x + b * first + 0.2 * m - 0.7)
        return x - a * second + 0.1, b * m + first - 2 * second - 0.4, 0 * gone

    found, eye = open_step(rule, [2, 2, 1], 2, [0.6, -1.3]), np.eye(2)
    Z, z = np.zeros((2, 2)), np.zeros((2, 1))
    np.testing.assert_allclose(found.constant, [0.1, 0.1, -0.4, -0.4, 0.0], atol=1e-15)
    matrix = np.block([[eye, Z, z], [Z, -1.3 * eye, z], [np.zeros((1, 5))]])
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-15)
    np.testing.assert_allclose(found.answers[0], np.vstack([Z, eye, z.T]), atol=1e-15)
    np.testing.assert_allclose(found.answers[1], np.vstack([-0.6 * eye, -2 * eye, z.T]), atol=1e-15)
    (d1, U1, none), (d2, U2, (K,)) = found.points
    assert none == ()
    np.testing.assert_allclose(d1, [0.3, 0.3])
    np.testing.assert_allclose(U1, np.hstack([0.6 * eye, -eye, z]), atol=1e-15)
    np.testing.assert_allclose(d2, [-0.7, -0.7])
    np.testing.assert_allclose(U2, np.hstack([eye, 0.2 * eye, z]), atol=1e-15)
    np.testing.assert_allclose(K, -1.3 * eye, atol=1e-15)


@pytest.mark.parametrize("bend", [1e-6, -1e-6])
def test_a_quadratic_term_of_1e_6_is_detected(bend):
    with pytest.raises(ValueError, match="must be linear"):
        open_step(lambda state, oracle: (state[0] - oracle(state[0]) + bend * state[0] ** 2,), [1], 1, [])


class Drawn(st.Dynamics):
    """SGDM with the initial state (x_0 + M xi, c + R xi)."""

    parts, coefficients = ("x", "m"), ("eta", "beta")
    draw, start_draws = st.noise.Normal, (st.noise.Normal(2),)
    C, R, M = np.array([0.3, -0.5]), np.array([[0.4, 0.1], [-0.2, 0.6]]), np.array([[0.1, 0.0], [0.3, -0.2]])

    @staticmethod
    def rule(state, oracle, eta, beta):
        x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        return x - eta * m, m

    def start(self, x0, z=None):
        return np.asarray(x0) + self.M @ z, self.C + self.R @ z


def test_mean_and_covariance_of_a_random_start():
    """State (x, m) at the start: mean (x_0, c), covariance of (M; R) xi; then one step by its matrix."""
    H, root, sigma = np.array([[1.3, 0.4], [0.4, 0.7]]), np.array([[0.8, 0.0], [0.3, 0.5]]), 0.9
    oracle = st.NoisyOracle(st.losses.quadratic(H), st.noise.gaussian(root=root), sigma=sigma)
    x0, eta, beta = np.array([1.4, -0.6]), 0.2, 0.7
    found = st.exact.moments(Drawn(oracle, st.schedules.constant(eta, beta=beta)), x0, 1)
    spread = np.vstack([Drawn.M, Drawn.R])
    mean, covariance = np.concatenate([x0, Drawn.C]), spread @ spread.T
    np.testing.assert_allclose(found.state_mean[0], mean, rtol=1e-14)
    np.testing.assert_allclose(found.state_covariance[0], covariance, rtol=1e-13, atol=1e-15)
    m = np.hstack([(1 - beta) * H, beta * np.eye(2)])
    step = np.vstack([np.hstack([np.eye(2), np.zeros((2, 2))]) - eta * m, m])
    own = (1 - beta) * sigma * np.vstack([-eta * root, root])
    np.testing.assert_allclose(found.state_mean[1], step @ mean, rtol=1e-13)
    np.testing.assert_allclose(found.state_covariance[1], step @ covariance @ step.T + own @ own.T, rtol=1e-12)
    assert found.gaussian
    np.testing.assert_allclose(found.part("m")[0][0], Drawn.C)
    np.testing.assert_allclose(found.part("m")[1][0], Drawn.R @ Drawn.R.T)
    np.testing.assert_allclose(found.covariance[0], Drawn.M @ Drawn.M.T)


def test_a_rule_without_gradients_has_no_noise():
    """Two steps s' = A s + b with any noise: mean A (A m + b) + b, covariance A^2 S A'^2."""
    A, b, mean, spread = matrices((2, 2), 2, 2, (2, 2))
    spread = spread @ spread.T
    noise = QuadraticCovariance(np.zeros(2), np.ones(4), *matrices((4, 2), (4, 4)))
    step = LinearStep(A, b, np.zeros((1, 2, 2)), (), (), False)
    found = _advance(step, noise, mean, spread, 2)
    np.testing.assert_allclose(found[0], A @ (A @ mean + b) + b, rtol=1e-13)
    np.testing.assert_allclose(found[1], A @ A @ spread @ A.T @ A.T, rtol=1e-13)
