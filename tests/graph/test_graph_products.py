"""Sums recognised as matrix products, and formulas of one sample batched over many, against NumPy and by their nodes."""

from __future__ import annotations

import numpy as np
import pytest
from traced import EMITTERS, traced

from sdetools.graph.arrays import compiled
from sdetools.graph.derivatives import gradient, vjp
from sdetools.graph.errors import TracingError
from sdetools.graph.replacing import batched
from sdetools.graph.sampling import gather, tally
from sdetools.graph.value import Trace, order, value
from sdetools.losses.differences import differences

RNG = np.random.default_rng(0)
A, W, T, Y = RNG.normal(size=(6, 4)), RNG.normal(size=(3, 4)), RNG.normal(size=(6, 3, 4)), RNG.normal(size=6)
X = RNG.normal(size=(4, 5))
PRODUCTS = {
    "rows": lambda x: (A * x).sum(axis=1),
    "columns": lambda x: (A * (A @ x)[:, None]).sum(axis=0),
    "repeated on purpose": lambda x: (A * np.broadcast_to(np.tanh(A @ x)[:, None], A.shape)).sum(axis=0),
    "signs, numbers and factors that are not summed": lambda x: (-(A * x) * 2.0 * Y[:, None] * (A @ x)[:, None]).sum(axis=1),
    "with a matrix of values": lambda x: (W[:, None, :] * np.outer(np.sin(x), x)).sum(axis=2),
    "an axis of data alone": lambda x: (T * x).sum(axis=(1, 2)),
    "two axes": lambda x: (T * x * x[:3, None]).sum(axis=(1, 2)),
    "two arrays of data": lambda x: (T * A[:, None] * x).sum(axis=2),
    "a mean": lambda x: (A * x).mean(axis=1),
    "kept": lambda x: (A * x).sum(axis=1, keepdims=True),
    "einsum": lambda x: np.einsum("nij,i,j->n", T, x[:3], x),
}
SUMS = {
    "one row": lambda x: (W[0] * x).sum(),
    "data of the axis that stays": lambda x: (A * np.sin(np.outer(A @ x, x))).sum(axis=1),
    "a condition": lambda x: (np.where(A * x > 0, A, 0.0) * x).sum(axis=1),
}


def node_kinds(out):
    return [n.op for n in order([value(out)]) if n.op in ("contract", "reduce")]


@pytest.mark.parametrize("name", [*PRODUCTS, *SUMS])
def test_sums_match_numpy(name):
    formula = (PRODUCTS | SUMS)[name]
    x = Trace().input("x", (4,))
    (found,) = compiled([formula(x)], [x])(X)
    expected = np.stack([formula(X[:, j]) for j in range(5)], axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_sum_of_data_times_values_is_a_matrix_product(name):
    x = Trace().input("x", (4,))
    assert set(node_kinds(PRODUCTS[name](x))) == {"contract"}


@pytest.mark.parametrize("name", SUMS)
def test_other_sums_stay_sums(name):
    x = Trace().input("x", (4,))
    assert "reduce" in node_kinds(SUMS[name](x))


@pytest.mark.parametrize("emitter", EMITTERS)
@pytest.mark.parametrize("text", [lambda x: (A * (x > 0)).sum(axis=1), lambda x: A @ (x > 0)])
def test_conditions_count_as_numbers_in_a_product(text, emitter):
    expected = np.stack([text(X[:, j]) for j in range(5)], axis=-1)
    np.testing.assert_allclose(traced(emitter, text, X), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("text", [lambda x: (A * x).sum(axis=1), lambda x: A @ x])
def test_the_adjoint_of_a_product_is_the_product_with_the_transpose(text):
    x = Trace().input("x", (4,))
    slope = gradient(np.sum(np.tanh(text(x) - Y) ** 2), x)
    assert node_kinds(slope) == ["contract", "contract"]
    assert all(n.op == "const" or n.size <= 6 for n in order([slope]))


def test_large_data_are_not_copied():
    data = RNG.normal(size=(200, 50))
    x = Trace().input("x", (50,))
    constants = [n.extra for n in order([(data[:, None, :] * x).sum(axis=2), (data * x).sum(axis=1)]) if n.op == "const"]
    assert all(np.shares_memory(h, data) for h in constants if h.size == data.size)


# ---- batching of a formula of one sample


M = RNG.normal(size=(5, 3))
SAMPLES = {
    "a product": lambda x, a, y: (a @ x[:3] - y) ** 2,
    "a layer": lambda x, a, y: np.tanh(x[:6].reshape(2, 3) @ a) @ x[4:] - y,
    "a logarithm": lambda x, a, y: np.log1p(np.exp(-y * (a @ x[:3]))),
    "extremes": lambda x, a, y: np.max(np.maximum(x[:3], a)) + np.linalg.norm(a) * x[0] + a.min() * x[1],
    "a matrix of data": lambda x, a, y: np.sum((M @ (a * x[:3])) ** 2) + np.concatenate([a * x[:3], x[3:]]).prod(),
    "places": lambda x, a, y: np.sum(a[[2, 0]] * x[[1, 1]]) + np.roll(a * x[:3], 1) @ x[3:] + np.sum(np.where(a > 0, a, x[:3])),
    "a padded part": lambda x, a, y: np.sum(np.diag(a * x[:3], 1)[:3] * np.outer(x[:3], np.append(a, y))),
    "several axes": lambda x, a, y: np.sum(np.outer(a, x) ** 2) + np.sum(M @ np.outer(a, x)),
    "no sample": lambda x, a, y: np.sum(x**2),
    "no point": lambda x, a, y: np.sum(a**2) + y,
}


def one_sample(formula):
    one = Trace()
    x, a, y = one.input("x", (6,)), one.input("a", (3,)), one.input("y")
    return value(formula(x, a, y)), x, a, y


@pytest.mark.parametrize("name", SAMPLES)
def test_batching_over_all_samples_and_over_drawn_ones(name):
    formula = SAMPLES[name]
    out, x, a, y = one_sample(formula)
    a_all, y_all, points = RNG.normal(size=(7, 3)), 2 * RNG.normal(size=7), RNG.normal(size=(6, 4))
    index = RNG.integers(0, 7, (5, 4)).astype(float)
    here = Trace()
    at, which = here.input("x", (6,)), here.input("which", (5,))
    whole = batched(out, {a: value(a_all), y: value(y_all)}, {x: at})
    drawn = batched(out, {a: gather(a_all, which), y: gather(y_all, which)}, {x: at})
    assert (whole.shape, drawn.shape) == ((7,), (5,))
    found = compiled([whole, drawn], [at, which])(points, index)
    expected = np.array([[formula(points[:, j], a_all[i], y_all[i]) for j in range(4)] for i in range(7)])
    chosen = np.take_along_axis(expected, index.astype(int), axis=0)
    for f, e in zip(found, (expected, chosen)):
        np.testing.assert_allclose(np.broadcast_to(f if f.ndim > 1 else f[:, None], e.shape), e, rtol=1e-12, atol=1e-13)
    slope = compiled([vjp(whole, at, np.full(7, 1 / 7))], [at])(points)[0]
    mean = lambda p: np.mean([formula(p, a_all[i], y_all[i]) for i in range(7)])  # noqa: E731
    rough = np.stack([differences(mean, points[:, j], 1e-5) for j in range(4)], axis=-1)
    slope = slope if slope.ndim > 1 else slope[:, None]
    np.testing.assert_allclose(np.broadcast_to(slope, rough.shape), rough, rtol=1e-6, atol=1e-6 * (1 + np.abs(rough).max()))


def test_a_compiled_function_of_a_sample_cannot_be_batched():
    from sdetools.graph.calls import Call

    out, x, a, y = one_sample(lambda x, a, y: Call(None, plain=lambda a: a)([a], (3,))[0] * x[0])
    with pytest.raises(TracingError, match="batched over samples of data"):
        batched(out, {a: value(np.ones((2, 3))), y: value(np.ones(2))}, {x: Trace().input("x", (6,))})


@pytest.mark.parametrize("index", [-1.0, 3.0, 1.5, np.nan, np.inf])
def test_an_index_that_is_no_sample_is_refused(index):
    """Negative indices do not count from the end, fractions are not cut, NaN is no sample; the others are accepted (control)."""
    for function in (lambda i: gather(np.arange(3.0), i), lambda i: tally(i, 3)):
        with pytest.raises(IndexError, match="`index` must contain whole numbers from 0 to 2; got"):
            function(np.array([0.0, index]))
        assert len(function(np.array([0.0, 2.0]))) in (2, 3)
