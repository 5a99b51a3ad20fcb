"""Streaming least squares: exact moments by Gauss-Hermite quadrature, graphs against NumPy, all backends, validation."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from traced import EMITTERS, traced

import sdetools as st
from sdetools import noise
from sdetools.graph.value import Value

LAM, S = np.array([2.0, 0.5]), 0.7
X, Y = np.array([0.6, -1.1]), np.array([-0.4, 0.9])


def law(batch=1, label_noise=S, lam=LAM):
    return noise.streaming_least_squares(lam, label_noise, batch).noise


def hermite(n, points=4):
    """Nodes `(n, nodes)` and weights of a product rule for n normals, exact for polynomials of degree 7 in each."""
    z, w = np.polynomial.hermite_e.hermegauss(points)
    nodes = np.array(list(itertools.product(z, repeat=n))).T
    return nodes, np.prod(list(itertools.product(w / w.sum(), repeat=n)), axis=1)


def expected(x, y, batch):
    """Isserlis' theorem: Cov(g(x), g(y)) on the same rows."""
    K = np.diag(LAM)
    return (np.outer(K @ y, K @ x) + (x @ K @ y + S * S) * K) / batch


@pytest.mark.parametrize("batch", [1, 2])
def test_moments_on_the_same_rows_are_exact(batch):
    """A gradient is of degree 2 in each normal, so that the rule integrates its moments exactly; control: label_noise is no variance."""
    one = law(batch)
    z, w = hermite(one.n_draws)
    v, other = (one.value(np.repeat(p[:, None], len(w), axis=1), z) for p in (X, Y))
    np.testing.assert_allclose(v @ w, 0.0, atol=1e-13)
    np.testing.assert_allclose((v * w) @ v.T, one.covariance(X), rtol=1e-12)
    np.testing.assert_allclose(one.covariance(X), expected(X, X, batch), rtol=1e-14)
    np.testing.assert_allclose((v * w) @ other.T, expected(X, Y, batch), rtol=1e-12, atol=1e-14)
    assert np.abs(law(batch, S**0.5).covariance(X) / one.covariance(X) - 1).max() > 0.05


def test_a_gradient_is_that_of_its_rows():
    """(1/B) X^T (X x + s eps), with the rows and labels that the draws stand for."""
    oracle = st.streaming_least_squares(LAM, S, 3)
    z = np.random.default_rng(0).standard_normal(oracle.noise.n_draws)
    rows, labels = z[:6].reshape(3, 2) * np.sqrt(LAM), z[6:]
    np.testing.assert_allclose(oracle(X, z), rows.T @ (rows @ X + S * labels) / 3, rtol=1e-14)
    np.testing.assert_allclose(oracle.with_sigma(2.0)(X, z) - LAM * X, 2 * (oracle(X, z) - LAM * X), rtol=1e-12)
    assert oracle.loss.value(X) == pytest.approx((LAM * X**2).sum() / 2, rel=1e-15)
    assert st.svag(oracle, 3).covariance(X) == pytest.approx(3 * expected(X, X, 3), rel=1e-12)


@pytest.mark.parametrize("emitter", EMITTERS)
def test_graphs_agree_with_arrays(emitter):
    """The raw gradient, the deviation and the Gaussian noise, with the numbers as inputs."""
    rng = np.random.default_rng(1)
    for one in (law(3), law(3).as_gaussian()):
        x, z = rng.standard_normal((2, 5)), rng.standard_normal((one.n_draws, 5))
        for method in (one.value, *([one.raw] if one.centred else [])):
            np.testing.assert_allclose(traced(emitter, method, x, z, one.parameters), method(x, z), rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(method(x, z)[:, 2], method(x[:, 2], z[:, 2]), rtol=1e-13, atol=1e-14)


def test_the_gaussian_noise_has_the_same_covariance():
    """At several points, as rows of entries, and as a product with a list."""
    one = law(3)
    gaussian, x = one.as_gaussian(), np.stack([X, Y], axis=1)
    assert gaussian.gaussian and gaussian.as_gaussian() is gaussian and not isinstance(gaussian.covariance(x), Value)
    np.testing.assert_allclose(gaussian.covariance(x), one.covariance(x), rtol=1e-14)
    np.testing.assert_allclose(one.covariance(x)[..., 1], one.covariance(Y), rtol=1e-15)
    u = np.random.default_rng(2).standard_normal((3, 2))
    np.testing.assert_allclose(gaussian.root.times(list(u), x, gaussian.parameters), gaussian.value(x, u), rtol=1e-14)


def test_backends_agree_and_a_gradient_twice_sees_the_same_rows():
    """STORM takes two gradients a step, SVAG two draws; kernel, reference and torch agree path by path."""
    oracle = st.svag(st.streaming_least_squares([1.0, 0.5, 0.25], 0.3, 2), 2)
    one = st.STORM(oracle, st.schedules.constant(eta=0.1), a=0.3)
    given = dict(horizon=0.8, paths=65, observe=["x0"], keep_final=True, threads=1, seed=3)
    reference, *others = (st.simulate(one, [1.0, -1.0, 2.0], backend=b, **given).final for b in ("numpy", "numba", "torch"))
    for other in others:
        np.testing.assert_allclose(other, reference, rtol=1e-11, atol=1e-12)
    oracle = st.streaming_least_squares(np.arange(1.0, 513.0) ** -1.5, 0.3, 2)
    finals = [
        st.simulate(st.SGD(oracle, st.schedules.constant(eta=0.1)), np.ones(512), backend=b, **given).final
        for b in ("numpy", "torch")
    ]
    np.testing.assert_allclose(*finals, rtol=1e-11, atol=1e-12)


def test_noises_pickle_and_numbers_share_a_structure():
    one, other = law(3), law(3, 0.1, LAM * 2)
    assert one.identity == other.identity != law(2).identity and one.parameters.tolist() != other.parameters.tolist()
    again = pickle.loads(pickle.dumps(st.streaming_least_squares(LAM, S, 3)))
    assert again.loss.identity == st.streaming_least_squares(LAM, S, 3).loss.identity and again.noise.identity == one.identity
    z = np.ones(one.n_draws)
    np.testing.assert_array_equal(one.raw(X, z, other.parameters), other.raw(X, z))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, -1.0],), "`spectrum`"),
        (([[1.0]],), "`spectrum`"),
        (([],), "`spectrum`"),
        (([1.0], -0.1), "`label_noise`"),
        (([1.0], "a"), "`label_noise`"),
        (([1.0], 0.1, 0), "`batch`"),
        (([1.0], 0.1, 1.5), "`batch`"),
    ],
)
def test_invalid_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        st.streaming_least_squares(*arguments)
