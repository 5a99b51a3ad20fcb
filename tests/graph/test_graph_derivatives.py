"""Derivatives: transposes of views, tied maxima, bit-identical simplifications, and substitution into formulas."""

from __future__ import annotations

import numpy as np
import pytest

from sdetools.graph.arrays import compiled
from sdetools.graph.derivatives import gradient, jvp
from sdetools.graph.replacing import replaced
from sdetools.graph.value import Trace, order, value

N = 7
KEYS = {
    "overlapping": [slice(1, None), slice(None, -1)],
    "one after another": [slice(0, 3), slice(3, 4), slice(4, 7)],
    "with gaps": [slice(1, 3), slice(5, 6)],
    "strided": [slice(0, None, 2), slice(1, None, 3)],
    "backwards": [slice(None, None, -1), slice(5, 1, -2)],
    "nested": [slice(0, n) for n in range(1, N + 1)],
    "repeated": [np.array([3, 3, 0, 3, 6, 0]), np.array([1, 1])],
    "single": [2, 5, -1, 2, slice(0, 4)],
    "mask": [np.arange(N) % 2 == 0],
    "the same twice": [slice(2, 5), slice(2, 5), 3],
}


def values(out, inputs, *arrays):
    found = compiled([out], inputs)(*arrays)[0]
    return found[..., None] if out.uniform else found


@pytest.mark.parametrize("name", KEYS)
def test_the_transpose_of_indexing_adds_at_the_indexed_positions(name):
    """d/dx sum_k w_k . x[key_k]^2 = sum over positions of 2 w x, compared with np.add.at."""
    x = Trace().input("x", (N,))
    numbers = np.random.default_rng(1).standard_normal((N, 3))
    weights = [np.random.default_rng(k).standard_normal(np.shape(numbers[key])[:-1]) for k, key in enumerate(KEYS[name])]
    loss = sum(np.sum(w * x[key] ** 2) for w, key in zip(weights, KEYS[name]))
    expected = np.zeros((N, 3))
    for w, key in zip(weights, KEYS[name]):
        np.add.at(expected, key, 2 * np.asarray(w)[..., None] * numbers[key])
    np.testing.assert_allclose(values(gradient(loss, x), [x], numbers), expected, rtol=1e-13, atol=1e-14)


def test_gradient_of_matrices_stored_in_a_vector():
    x = Trace().input("x", (18,))
    loss = np.sum((x[:12].reshape(4, 3).T * x[12:16]) ** 2) + np.sum(np.outer(x[16:], x[:2]))
    z = np.random.default_rng(0).standard_normal((18, 2))
    W, a = z[:12].reshape(4, 3, 2), z[12:16]
    expected = np.concatenate([(2 * W * a[:, None] ** 2).reshape(12, 2), 2 * a * np.sum(W**2, axis=1), np.zeros((2, 2))])
    expected[:2] += z[16:].sum(axis=0)
    expected[16:] += z[:2].sum(axis=0)
    np.testing.assert_allclose(values(gradient(loss, x), [x], z), expected, rtol=1e-13)


def test_adjacent_slices_need_no_table():
    x = Trace().input("x", (50,))
    slope = gradient(np.sum(x[:20] ** 2) + np.sum(x[20:] ** 4), x)
    assert all(n.extra.table is None for n in order([slope]) if n.op == "view")
    assert sum(n.op == "join" for n in order([slope])) == 1


@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_a_product_has_derivatives_where_its_factors_are_zero(axis):
    """By the product rule, factor by factor; also for the second derivative along v."""
    x, z, v = Trace().input("x", (2, 3)), np.array([[0.0, 4.0, 0.0], [2.0, 0.5, 3.0]]), np.arange(6.0).reshape(2, 3)
    slope = gradient(np.sum(np.prod(x, axis=axis)), x)

    def others(*left_out):
        return np.sum(np.prod(np.where(np.isin(np.arange(6).reshape(2, 3), left_out), 1.0, z), axis=axis) * is_along(*left_out))

    def is_along(*places):  # whether all of them are in one product
        return np.prod([np.any(np.arange(6).reshape(2, 3) == i, axis=axis) for i in places], axis=0)

    first = [others(i) for i in range(6)]
    second = [sum(others(i, j) * v.flat[j] for j in range(6) if j != i) for i in range(6)]
    np.testing.assert_allclose(values(slope, [x], z[..., None]).ravel(), first, rtol=1e-15)
    np.testing.assert_allclose(values(jvp(slope, x, v), [x], z[..., None]).ravel(), second, rtol=1e-15)


def test_tied_maxima_share_the_gradient_and_nan_propagates():
    x = Trace().input("x", (2, 3))
    z = np.array([[1.0, 4.0, 4.0], [2.0, 2.0, 2.0]])[..., None]
    slope = gradient(np.sum(np.array([3.0, 6.0]) * np.max(x, axis=1)), x)
    np.testing.assert_allclose(values(slope, [x], z)[..., 0], [[0, 1.5, 1.5], [2, 2, 2]], rtol=1e-15)
    moved = jvp(np.max(x, axis=1), x, np.arange(6.0).reshape(2, 3))
    np.testing.assert_allclose(values(moved, [x], z)[..., 0], [1.5, 4.0], rtol=1e-15)
    z[0, 0] = np.nan
    assert np.isnan(values(slope, [x], z)[0]).all()


def test_a_nan_branch_has_nan_derivatives():
    x = Trace().input("x", ())
    slope = gradient(np.log(x) * x, x)
    found = np.stack(
        [values(f, [x], np.array([-1.0, 2.0])) for f in (slope, gradient(slope, x), gradient(gradient(slope, x), x))]
    )
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_allclose(found[:, 1], [np.log(2) + 1, 0.5, -0.25], rtol=1e-14)


@pytest.mark.parametrize(
    "formula",
    [
        lambda a, b: a + a, lambda a, b: 2.0 * (0.3 * a), lambda a, b: 0.7 * (a * 4.0), lambda a, b: -(0.3 * a), lambda a, b: a + -b,
        lambda a, b: -a + b, lambda a, b: a - -b, lambda a, b: -1.0 * a + b, lambda a, b: 0.3 * -a, lambda a, b: (0.1 * a) * 0.3,
        lambda a, b: 0.5 * (a - b) + 0.5 * (a - b), lambda a, b: np.negative(-(a * b)), lambda a, b: -a + -b,
    ],
)  # fmt: skip
def test_merged_operations_are_bit_identical(formula):
    trace = Trace()
    a, b = trace.input("a", ()), trace.input("b", ())
    numbers = np.random.default_rng(0).standard_normal((2, 1000)) * 10.0 ** np.random.default_rng(1).integers(-20, 20, (2, 1000))
    numbers[:, :4] = [[0.0, -0.0, np.inf, np.nan], [-0.0, 0.0, -np.inf, 1.0]]
    with np.errstate(all="ignore"):
        expected = formula(*numbers)
    found = compiled([formula(a, b)], [a, b])(*numbers)[0]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found[:3]), np.signbit(expected[:3]))


def test_thirds_are_not_merged():
    """0.1 and 0.3 are not powers of two: their product would round differently."""
    a = Trace().input("a", ())
    assert [v.op for v in (0.1 * a * 0.3).args] == ["map", "const"] and [v.op for v in (2.0 * a * 0.3).args] == ["const", "input"]


def test_substitution_of_inputs():
    trace, other = Trace(), Trace()
    x, w = trace.input("x", (4,)), trace.input("w", (3,))
    data, rows = np.arange(12.0).reshape(3, 4), np.random.default_rng(0).standard_normal((5, 2))
    formula = [
        np.concatenate([data @ x, np.where(x[:2] > 0, x[:2], 0)]),
        np.max(x) * np.sum(w[::-1] * w),
        value(data)[np.floor(abs(w)) * 0.0 + 1.0],
    ]
    z = other.input("z", (5,))
    given = {x: 2.0 * z[1:], w: z[:3] * z[2:]}
    found = compiled(replaced(formula, given), [z])(rows)
    expected = compiled(formula, [x, w])(2 * rows[1:], rows[:3] * rows[2:])
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="the input 'w' of a formula has no value"):
        replaced(formula, {x: 2.0 * z[1:]})
    with pytest.raises(ValueError, match=r"component shape \(4,\) is needed here; got \(5,\)"):
        replaced(formula, {x: z})
