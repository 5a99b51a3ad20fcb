"""Linear models: values by hand, a reference implementation, traced formulas, numerical stability, input validation."""

import math
import pickle
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from traced import EMITTERS, traced

from sdetools.losses import LinearModel, least_squares, logistic

pytestmark = pytest.mark.filterwarnings("error")


def problem(kind, samples=11, dim=3, l2=0.3, seed=0):
    """Return a random loss of one kind."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((samples, dim))
    if kind == "logistic":
        return logistic(a, rng.integers(0, 2, samples), l2)
    return least_squares(a, rng.standard_normal(samples), l2)


KINDS = pytest.mark.parametrize("kind", ["least_squares", "logistic"])


def naive(loss, x):
    """Value and gradient sample by sample, in plain Python."""
    value, gradient = loss.l2 / 2 * sum(v * v for v in x), [loss.l2 * v for v in x]
    for a, y in zip(loss.features, loss.targets, strict=True):
        m = sum(u * v for u, v in zip(a, x, strict=True))
        phi, slope = (
            ((m - y) ** 2 / 2, m - y)
            if loss.kind == "least_squares"
            else (math.log1p(math.exp(-y * m)), -y / (1 + math.exp(y * m)))
        )
        value += phi / loss.samples
        gradient = [g + slope * u / loss.samples for g, u in zip(gradient, a, strict=True)]
    return value, gradient


@KINDS
def test_agrees_with_the_reference_implementation(kind):
    """Values and gradients are those of `naive`, and the sample gradients have the gradient as their mean."""
    loss = problem(kind)
    x = np.random.default_rng(1).standard_normal((3, 5))
    for j in range(5):
        value, gradient = naive(loss, x[:, j])
        assert loss.value(x[:, j]) == pytest.approx(value, rel=1e-13)
        np.testing.assert_allclose(loss.gradient(x[:, j]), gradient, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(loss.sample_gradients(x[:, j]).mean(axis=0), gradient, rtol=1e-12, atol=1e-14)
    assert loss.sample_gradients(x[:, 0]).shape == (11, 3)


@KINDS
def test_derivatives_against_differences(kind):
    """Each derivative is the central difference of the one before, and the third is symmetric."""
    loss, h = problem(kind), 6e-6
    for x in np.random.default_rng(2).standard_normal((3, 3)):
        for lower, upper in ((loss.value, loss.gradient), (loss.gradient, loss.hessian), (loss.hessian, loss.third)):
            numeric = np.stack([(lower(x + s) - lower(x - s)) / (2 * h) for s in h * np.eye(3)])
            np.testing.assert_allclose(upper(x), numeric, atol=1e-9)
        third = loss.third(x)
        assert all(np.allclose(third, third.transpose(o), rtol=1e-13, atol=1e-15) for o in permutations(range(3)))


@KINDS
def test_contract(kind):
    """Shapes, one path and many, contractions, unchanged inputs, pickling."""
    loss = problem(kind)
    rng = np.random.default_rng(3)
    x, v, M = rng.standard_normal((3, 4)), rng.standard_normal((3, 4)), rng.standard_normal((3, 3, 4))
    before = x.copy()
    assert isinstance(loss, LinearModel) and loss.kind == kind and loss.names == ("x0", "x1", "x2") and loss.parameters.size == 0
    for method, shape in ((loss.value, ()), (loss.gradient, (3,)), (loss.hessian, (3, 3)), (loss.third, (3, 3, 3))):
        assert method(x).shape == (*shape, 4)
        for j in range(4):
            np.testing.assert_allclose(method(x)[..., j], method(x[:, j]), rtol=1e-12, atol=1e-14)
    for points, vectors, matrices in ((x, v, M), (x[:, 1], v, M), (x, v[:, 1], M[..., 1]), (x[:, 1], v[:, 1], M[..., 1])):
        product, contracted = loss.hessian_product(points, vectors), loss.third_contracted(points, matrices)
        if product.ndim == 2:
            product, contracted = product[:, 1], contracted[:, 1]
        np.testing.assert_allclose(product, loss.hessian(x[:, 1]) @ v[:, 1], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(contracted, np.einsum("ijl,ij->l", loss.third(x[:, 1]), M[..., 1]), rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(x, before)
    again = pickle.loads(pickle.dumps(loss))
    assert again.identity == loss.identity != problem(kind, seed=1).identity
    np.testing.assert_array_equal(again.gradient(x), loss.gradient(x))


@KINDS
@pytest.mark.parametrize("emitter", EMITTERS)
@pytest.mark.parametrize(("samples", "dim", "lanes"), [(1, 1, 1), (11, 3, 7), (40, 20, 64)])
def test_traced_formulas_agree_with_numpy_and_the_reference(kind, emitter, samples, dim, lanes):
    """The traced value and gradient agree for all sizes of data, and lanes are independent."""
    loss = problem(kind, samples, dim)
    x = 3 * np.random.default_rng(lanes).standard_normal((dim, lanes))
    before = x.copy()
    gradient, value = traced(emitter, loss.gradient, x), traced(emitter, loss.value, x)
    np.testing.assert_allclose(gradient, loss.gradient(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(value, loss.value(x), rtol=1e-12)
    for j in range(lanes):
        by_hand = naive(loss, x[:, j])
        np.testing.assert_allclose(gradient[:, j], by_hand[1], rtol=1e-12, atol=1e-12)
        assert value[j] == pytest.approx(by_hand[0], rel=1e-12)
    np.testing.assert_array_equal(x, before)
    others = np.random.default_rng(0).standard_normal((dim, lanes))
    others[:, -1] = x[:, -1]
    np.testing.assert_array_equal(
        traced(emitter, loss.gradient, others)[:, -1], gradient[:, -1]
    )  # a lane does not depend on its neighbours


@KINDS
@pytest.mark.parametrize("emitter", EMITTERS)
def test_traced_formulas_keep_nans_in_their_lane(kind, emitter):
    """A NaN in one lane leaves the other lanes finite."""
    loss = problem(kind)
    x = np.ones((3, 4))
    x[1, 2] = np.nan
    gradient, value = traced(emitter, loss.gradient, x), traced(emitter, loss.value, x)
    assert np.isnan(gradient[:, 2]).all() and np.isnan(value[2])
    assert np.isfinite(np.delete(gradient, 2, axis=1)).all() and np.isfinite(np.delete(value, 2)).all()


def test_logistic_is_stable():
    """Values and gradients are accurate in both tails and finite up to the largest numbers."""
    loss = logistic([[1.0], [1.0]], [1, 1])
    assert loss.value([1000.0]) == pytest.approx(0, abs=1e-300) and loss.value([-1000.0]) == 1000.0
    assert loss.gradient([1000.0]).item() == 0 and loss.gradient([-1000.0]).item() == -1
    assert loss.gradient([40.0]).item() == pytest.approx(-math.exp(-40), rel=1e-14)  # both tails to relative accuracy
    assert loss.value([40.0]) == pytest.approx(math.exp(-40), rel=1e-14)
    x = np.array([[-1e307, -1e5, 0.0, 1e5, 1e307]])
    for method in (loss.value, loss.gradient, loss.hessian, loss.third):
        assert np.isfinite(method(x)).all()
    for emitter in EMITTERS:
        np.testing.assert_allclose(traced(emitter, loss.gradient, x), loss.gradient(x), atol=1e-300)
        np.testing.assert_allclose(traced(emitter, loss.value, x), loss.value(x), atol=1e-300)


def test_labels():
    """Labels may be 0 and 1, or -1 and 1, or one class alone; others are rejected."""
    a = [[1.0], [2.0], [3.0]]
    for labels in ([0, 1, 1], [-1, 1, 1], [False, True, True], [-1.0, 1.0, 1.0]):
        assert logistic(a, labels).targets.tolist() == [-1, 1, 1]
    assert logistic(a, [1, 1, 1]).targets.tolist() == [1, 1, 1]
    assert logistic(a, [0, 0, 0]).targets.tolist() == [-1, -1, -1]
    for labels in ([0, 1, 2], [-1, 0, 1], [0.5, 1, 1], [-1, 0, 0]):
        with pytest.raises(ValueError, match="0 and 1, or -1 and 1"):
            logistic(a, labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [0.0, 1.0]), "features"),
        ((np.zeros((0, 2)), []), "features"),
        ((np.zeros((2, 0)), [0.0, 1.0]), "features"),
        (([[1.0], [np.nan]], [0.0, 1.0]), "features"),
        (([[1.0], [2.0]], [0.0, np.inf]), "targets|labels"),
        (([[1.0], [2.0]], [0.0]), "targets|labels"),
        (([[1.0], [2.0]], [[0.0], [1.0]]), "targets|labels"),
        (([["a"], ["b"]], [0.0, 1.0]), "features"),
        (([[1.0], [2.0]], [0.0, 1.0], -0.1), "l2"),
        (([[1.0], [2.0]], [0.0, 1.0], np.nan), "l2"),
    ],
)
@pytest.mark.parametrize("make", [least_squares, logistic])
def test_invalid_arguments_are_rejected(make, arguments, message):
    """The message names the argument."""
    with pytest.raises(ValueError, match=message):
        make(*arguments)


def test_wrong_points_are_rejected():
    """The message gives the shape that a point must have."""
    loss = problem("logistic")
    with pytest.raises(ValueError, match=r"\(3,\)"):
        loss.gradient([1.0])
    with pytest.raises(ValueError, match=r"\(3,\)"):
        loss.sample_gradients(np.zeros((3, 2)))


def test_quadratic_form_of_least_squares():
    """`quadratic` returns the loss for least squares, and None for logistic loss."""
    loss = problem("least_squares")
    H, c, level = loss.quadratic()
    x = np.array([0.3, -1.0, 2.0])
    assert loss.value(x) == pytest.approx(x @ H @ x / 2 + c @ x + level, rel=1e-13)
    np.testing.assert_allclose(loss.gradient(x), H @ x + c, rtol=1e-12)
    assert problem("logistic").quadratic() is None


@KINDS
def test_minimiser(kind):
    """The gradient at the minimiser is zero."""
    loss = problem(kind)
    np.testing.assert_allclose(loss.gradient(loss.minimiser()), 0, atol=1e-8)


def test_minimiser_without_enough_data():
    """With fewer samples than features the minimiser has least norm; separable data have none."""
    wide = least_squares([[3.0, 4.0]], [5.0])
    np.testing.assert_allclose(wide.minimiser(), [0.6, 0.8], rtol=1e-13)
    with pytest.raises(ValueError, match="hyperplane"):
        logistic([[1.0], [2.0], [-1.0]], [1, 1, 0]).minimiser()


@KINDS
@pytest.mark.parametrize("emitter", EMITTERS)
def test_traced_derivatives(kind, emitter):
    """Traced Hessians, third derivatives and their contractions agree with those of numbers."""
    loss = problem(kind, samples=4, dim=2)
    x, v, M = np.array([[0.4, 2.0, -0.3], [-1.1, 0.6, 1.7]]), np.array([0.7, -0.2]), np.array([[1.5, 0.4], [0.4, -0.9]])
    for method in (loss.hessian, loss.third):
        found = traced(emitter, method, x)
        for j in range(3):
            np.testing.assert_allclose(found[..., j], method(x[:, j]), rtol=1e-12, atol=1e-14)
    product = traced(emitter, lambda y: loss.hessian_product(y, v), x)
    contracted = traced(emitter, lambda y: loss.third_contracted(y, M), x)
    for j in range(3):
        np.testing.assert_allclose(product[:, j], loss.hessian(x[:, j]) @ v, rtol=1e-12)
        np.testing.assert_allclose(contracted[:, j], np.einsum("ijl,ij->l", loss.third(x[:, j]), M), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.floats(0, 2), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_traced_gradients_agree_for_random_data(samples, dim, lanes, is_logistic, l2, seed):
    """The traced gradient is that of NumPy and of the reference, for random sizes and penalties."""
    loss = problem("logistic" if is_logistic else "least_squares", samples, dim, l2, seed)
    x = 5 * np.random.default_rng(seed).standard_normal((dim, lanes))
    for emitter in EMITTERS:
        found = traced(emitter, loss.gradient, x)
        np.testing.assert_allclose(found, loss.gradient(x), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[:, 0], naive(loss, x[:, 0])[1], rtol=1e-12, atol=1e-12)


def test_the_covariance_of_samples_at_a_list():
    loss = least_squares([[1.0, 0.5], [0.0, 2.0]], [1.0, 0.0])
    np.testing.assert_array_equal(loss.sample_covariance([1.0, 2.0]), loss.sample_covariance(np.array([1.0, 2.0])))
