"""Nodes of the graph: NumPy's functions on values, sharing and folding of operations, views, and refused input."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from emitted import as_arrays, as_loops

from sdetools.graph.arrays import compiled
from sdetools.graph.errors import TracingError
from sdetools.graph.value import LARGEST_PRODUCT, SMALL, Trace, Value, apply, is_value, order, value
from sdetools.graph.views import View, at_places, join, stack, view

RNG = np.random.default_rng(12)
A, B = RNG.standard_normal((4, 6)), RNG.standard_normal((6, 6))
SPREAD = np.arange(6.0)


def x_of(*shape):
    return Trace().input("x", shape or (6,))


def count(v, op):
    return sum(n.op == op for n in order([v]))


# -- NumPy's functions ----------------------------------------------------------------------------------------------------------

ON_VECTORS = {
    "average": np.average,
    "variance": lambda x: np.var(x) + np.var(x, ddof=1) + np.std(x),
    "prod": np.prod,
    "dot": lambda x: np.dot(x, x) + np.vdot(x, SPREAD) + np.inner(x, x) + np.dot(2.0, x),
    "outer": lambda x: np.outer(x, SPREAD) - np.multiply.outer(x, x),
    "norms": lambda x: np.stack([np.linalg.norm(x), np.linalg.norm(x, 1), np.linalg.norm(x, np.inf), np.linalg.norm(x, 2)]),
    "cumsum": np.cumsum,
    "diag": lambda x: np.diag(x, 1) + np.diag(np.append(x, x[:1])),
    "clip": lambda x: np.clip(x, -0.5, 0.5) + np.clip(x, None, 1.0) + x.clip(0.0),
    "diff": lambda x: np.append(np.diff(x), np.diff(x, 2)),
    "tile and repeat": lambda x: np.tile(x, 2) + np.repeat(x, 2),
    "split": lambda x: np.split(x, 2)[0] * np.split(x, [1, 4])[1] + np.array_split(x[:5], 2)[0],
    "flip": lambda x: np.flip(x) + np.roll(x, -8),
    "hstack": lambda x: np.hstack([x[:2], 1.0, x[4:]]) + np.append(x[:1], [1.0, 2.0, 3.0, 4.0]),
    "columns": lambda x: np.column_stack([x, x**2]) + np.vstack([x, x**3]).T,
    "axes": lambda x: np.squeeze(np.expand_dims(x, (0, 2))) + np.atleast_2d(x)[0] + np.atleast_1d(x),
    "like": lambda x: np.zeros_like(x) + 2.0 * np.ones_like(x) + np.full_like(x, 3.0) + np.copy(x),
    "any and all": lambda x: np.where(np.any(x > 1.0) & ~np.all(x > -1.0), x, -x),
    "ufuncs of others": lambda x: (
        np.square(x) + np.reciprocal(3.0 + x) + np.fabs(x) + np.positive(x) + np.float_power(abs(x), 1.5)
        + x // 0.7 + np.remainder(x, 0.7) + np.ceil(x) + np.trunc(x)
    ),
    "pairs of others": lambda x: np.logaddexp(x, SPREAD) + np.hypot(x, SPREAD) + np.fmax(x, 0.1) + np.fmin(x, 0.3) + np.heaviside(x, 0.5),
    "conditions": lambda x: np.where(np.isfinite(x) & ~np.isnan(x) ^ np.isinf(x) ^ np.signbit(x), 1.0, x) + (x > 0) * x + np.isclose(x, x + 1e-9),
    "broadcast": lambda x: np.broadcast_to(x, (3, 6)) + np.broadcast_arrays(x, np.zeros((3, 6)))[0],
    "methods": lambda x: x.sum() + x.mean() + x.var() + x.max() + x.min() + x.dot(x) + x.reshape(2, 3).T.ravel() + x.astype(float),
}  # fmt: skip
ON_MATRICES = {
    "matmul": lambda x: x @ B + A @ x.T @ x,
    "both sides": lambda x: A.T @ x @ B,
    "values": lambda x: x @ x.T @ A,
    "rows times a vector": lambda x: x @ SPREAD + (SPREAD[:4] @ x)[:4],
    "a vector times a stack": lambda x: x[0] @ np.stack([x.T[:, :3], x.T[:, 1:]]),
    "batched": lambda x: (x.reshape(2, 2, 6) @ np.ones((2, 6, 3))) @ np.array([1.0, 2.0, 3.0]),
    "einsum": lambda x: np.einsum("ij,jk->ik", x, B) + np.einsum("ki,kj", np.einsum("ij->ji", x), B),
    "einsum of three": lambda x: np.einsum("ij,j,i->i", x, SPREAD, SPREAD[:4]) + np.einsum("ij,ij", x, A),
    "sums": lambda x: np.sum(x, axis=1) + np.max(x, axis=-1) - np.min(x, axis=(1,)) + np.mean(x, axis=1),
    "kept axes": lambda x: x - np.sum(x, axis=0, keepdims=True) + np.max(x, keepdims=True),
    "all axes": lambda x: np.sum(x, axis=(0, 1)) + np.prod(1 + x / 10, axis=0),
    "diagonal": lambda x: np.diagonal(x) + np.diagonal(x, 1)[:4] + np.diagonal(x, -1)[0] + np.trace(x) + np.diag(x),
    "triangles": lambda x: np.tril(x) - np.triu(x, 1),
    "axes": lambda x: np.swapaxes(x, 0, 1) + np.moveaxis(x, 0, 1) + np.transpose(x, (1, 0)),
    "joins": lambda x: np.concatenate([x, A], axis=1)[:, 3:9] + np.concatenate([x[2:], x[:2]]),
    "joined flat": lambda x: np.concatenate([x, A], axis=None),
    "stacks": lambda x: np.stack([x, A, 2 * x], axis=1)[:, 1] + np.stack([x, A], axis=-1)[..., 0],
    "slices": lambda x: x[1:3, ::2] + x[:2, 3:] * x[-1, -3:],
    "masks": lambda x: x[np.arange(4) % 2 == 0, ::-1],
    "tables": lambda x: x[[0, 3, 3], [1, 1, 5]] + x[np.array([[0], [1]]), [2, 3, 4]],
    "new axes": lambda x: x[:, None, 2] * x[None, :, 3] + x[..., 0],
    "rolled": lambda x: np.roll(x, 2, axis=1) + np.roll(x, 1) + np.flip(x, 0) + np.flip(x),
    "cumulative": lambda x: np.cumsum(x, axis=1) + np.cumsum(x, axis=0),
    "norm": lambda x: np.linalg.norm(x, axis=0) + np.linalg.norm(x),
}


OPTIONS = {
    "any and all over an axis": lambda x: np.where(np.any(x > 1, axis=1) & np.all(x.T[:4] > -2, 0)[:4], 1.0, (x > 0).any(axis=1) * 2.0),
    "any and all kept": lambda x: np.where(np.any(x > 9, keepdims=True), 1.0, np.all(x, axis=1, keepdims=True) * x),
    "variance kept": lambda x: np.var(x, axis=1, keepdims=True) * x + np.std(x, 0, ddof=1, keepdims=True),
    "tiles": lambda x: np.tile(x, (2, 3)) - np.tile(np.tile(x, 3), (2, 1)) + np.tile(x[0], 3),
    "repeats": lambda x: np.repeat(x, 2, axis=0)[:4] + np.repeat(x[0], [1, 2, 0, 3, 0, 0]) + np.repeat(x, 2)[:6],
    "clips": lambda x: np.clip(x, min=0.0, max=0.5) + np.clip(x, a_min=-1.0, a_max=0.2) + x.clip(max=0.1),
    "traces": lambda x: np.trace(x, offset=1) + np.trace(x, 2) + x.trace() + np.vdot(x, x),
    "inner": lambda x: np.inner(x, x[:2]),
    "columns": lambda x: np.column_stack([x, x[:, 0], x]),
    "diagonal of three axes": lambda x: np.diagonal(x.reshape(2, 2, 6)).sum() + np.diagonal(x.reshape(6, 2, 2), axis1=1, axis2=2),
    "columns first": lambda x: np.ravel(x, order="F")[:6] + x.flatten("F")[6:12] + x.reshape(2, 12, order="F")[0, :6] + x.ravel("F")[:6],
    "columns first in a shape": lambda x: np.reshape(x, (2, 12), order="F"),
    "kinds": lambda x: (3 * x).astype(int) * 1.0 + (x > 0).astype(float) + np.where(x.astype(bool), 1.0, 2.0),
    "taken": lambda x: np.take(x, [0, 2, 2], axis=1)[:, :2] + np.delete(x, [0, 1, 2, 4], axis=1) + np.fliplr(x)[:, :2] + np.flipud(x)[:, 1:3],
    "quarter turns": lambda x: np.rot90(x) + np.rot90(x, -1),
    "said again": lambda x: np.sum(x, dtype=float, where=True) + np.einsum("ij,ij", x, x, optimize=True) + np.mean(x, out=None),
    "splits": lambda x: np.split(x, 2, axis=1)[1] + np.array_split(x, 4, axis=1)[0][:, :1],
    "several rolls": lambda x: np.roll(x, (1, 2), (0, 1)) + np.flip(x, (0, 1)),
    "reduced ufuncs": lambda x: np.add.reduce(x) + np.maximum.reduce(x, axis=0) + np.logical_or.reduce(x > 1) * x,
}  # fmt: skip
CONDITIONS = {
    "sums": lambda x: (x > 0).sum(axis=0) + np.mean(x > 0) + np.max(x > 0) + np.prod(x > -1.5),
    "of two": lambda x: (
        ((x > 0) + (x > 0.5)) * x + ((x > 0) * (x > 0.5)) * 2.0 + np.maximum(x > 0, x > 1) * x + np.minimum(x > 0, x > 1)
    ),
    "negative": lambda x: -1.0 * (x > 0) + np.negative((x > 0) * 1.0) - (x < 0.3) * 2.0,
    "beside numbers": lambda x: (x > 0) / 2 + 2 * (x > 0) + (x > 0) - x * 0 + (x > 0) ** 2,
    "joined": lambda x: np.concatenate([x > 0, x])[3:9] + np.stack([x > 0, x])[0] + np.concatenate([x > 0, x < 0])[3:9] * 1.0,
    "rearranged": lambda x: (x > 0)[::-1] * 1.0 + np.where((x > 0)[[0, 0, 1, 1, 2, 5]], x, 3.0) + np.eye(6) @ (x > 0),
    "of numbers": lambda x: (
        np.logical_and(np.floor(x), x < 1) * 0.1
        + np.logical_or(np.floor(x), x[::-1]) * x
        + np.logical_not(np.floor(x)) * 0.3
        + np.logical_xor(np.floor(x), np.floor(2 * x)) * 0.7
    ),
    "taken from numbers": lambda x: 0.1 - (x > 0) + (x - (x > 1)) * 0.1,
    "compared": lambda x: ((x > 0) == (x[::-1] > 0)) * 1.0 + ((x > 0) ^ (x > 1)) * 2.0 + ((x > 0) != (x > 1)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_match_numpy(name):
    check(OPTIONS[name], RNG.standard_normal((4, 6, 5)))


@pytest.mark.parametrize("name", CONDITIONS)
def test_arithmetic_of_conditions_matches_numpy(name):
    """On both emitters: the sum of two conditions is `or`, their product is `and`."""
    x = RNG.standard_normal((6, 5))
    check(CONDITIONS[name], x)
    plain = np.stack([CONDITIONS[name](p) for p in x.T], axis=-1)
    np.testing.assert_allclose(
        as_loops(lambda v: value(CONDITIONS[name](v)), x), plain, rtol=0, atol=1e-12 * (1 + np.abs(plain).max())
    )
    at = Trace().input("x", (6,))
    (found,) = compiled([value(CONDITIONS[name](at)) * 0.1], [at], torch)(torch.from_numpy(x))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), 0.1 * plain, rtol=0, atol=1e-12 * (1 + np.abs(plain).max()))


def test_functions_of_conditions_are_double_precision():
    """NumPy itself computes in half precision, with 11 bits: np.exp(True) is 2.71875."""
    x = RNG.standard_normal((3, 16))
    for emit in (as_arrays, as_loops):
        np.testing.assert_allclose(emit(lambda v: np.exp(v > 0) + np.sqrt(v > 0), x), np.where(x > 0, np.e + 1, 1.0), rtol=1e-15)


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: np.average(x, weights=SPREAD), lambda x: np.sum(x, initial=5.0), lambda x: np.sum(x, where=SPREAD > 2),
        lambda x: np.mean(x, where=SPREAD > 2), lambda x: np.max(x, initial=9.0), lambda x: np.sum(x, dtype=int), lambda x: np.add.reduce(x, initial=1.0),
        lambda x: np.zeros_like(x, dtype=int), lambda x: np.ones_like(x, shape=(2,)), lambda x: np.atleast_1d(x, x), lambda x: np.isclose(x, x, equal_nan=True),
        lambda x: np.dot(x, np.ones((2, 6, 3))), lambda x: x.sum(initial=1.0), lambda x: x.astype(complex),
    ],
)  # fmt: skip
def test_unsupported_options_are_refused(formula):
    """The error is that the formula cannot be traced: NumPy accepts the option, so the user's code is not at fault."""
    with pytest.raises(TracingError):
        formula(x_of())
    formula(np.ones(6))


@pytest.mark.parametrize("name", ON_VECTORS)
def test_functions_of_vectors_match_numpy(name):
    check(ON_VECTORS[name], RNG.standard_normal((6, 5)))


@pytest.mark.parametrize("name", ON_MATRICES)
def test_functions_of_matrices_match_numpy(name):
    check(ON_MATRICES[name], RNG.standard_normal((4, 6, 5)))


def check(formula, x):
    """Compare with NumPy, to 1e-12 of the largest number."""
    plain = np.stack([np.asarray(formula(x[..., p]), dtype=float) for p in range(x.shape[-1])], axis=-1)
    found = as_arrays(lambda v: value(formula(v)), x)
    assert found.shape == plain.shape
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-12 * (1 + np.abs(plain).max()))


def test_a_wrong_axis_is_detected():
    """Negative control."""
    x = RNG.standard_normal((6, 6, 5))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(as_arrays(lambda v: np.sum(v, axis=0), x), x.sum(axis=1), atol=1e-12)


# -- equal operations, folding and simplification ---------------------------------------------------------------------------------


def test_constants_are_compared_by_content_and_large_ones_by_memory():
    x = x_of()
    assert x * SPREAD is x * SPREAD.copy()
    assert x * SPREAD is not x * (SPREAD + 1)
    trace, large = Trace(), RNG.standard_normal(SMALL + 1)
    y = trace.input("y", (SMALL + 1,))
    assert y * large is y * large and y * large is not y * large.copy()


def test_a_later_change_of_a_small_array_does_not_change_the_formula():
    data, x = np.ones(6), x_of()
    doubled = x + data * np.arange(6)
    data[:] = 7.0
    (known,) = (n for n in order([doubled]) if n.op == "const")
    np.testing.assert_array_equal(known.extra, np.arange(6))
    kept = value(data)
    data[:] = 0.0
    assert (kept.extra == 7.0).all()


def test_constants_are_folded():
    two = apply("add", 1.0, np.ones(3))
    assert two.op == "const" and two.extra.tolist() == [2, 2, 2]
    assert np.sum(value([1.0, 2.0])).extra == 3.0
    assert (value(np.eye(2)) @ value([1.0, 2.0])).extra.tolist() == [1, 2]
    assert np.isnan(apply("log", -1.0).extra) and np.isinf(apply("divide", 1.0, 0.0).extra)  # without a warning


def test_neutral_elements_are_dropped_and_others_are_not():
    x = x_of()
    for same in (
        x + 0.0,
        0 + x,
        x - 0,
        1 * x,
        x * 1.0,
        x / 1,
        np.negative(-x),
        +x,
        x**1,
        x[:],
        x.reshape(2, 3).reshape(6),
        x.T.T,
        x.reshape(6),
    ):
        assert same is x
    assert 0.0 * x is not x and (0.0 * x).op == "map"  # NaN stays NaN
    assert (0.0 - x).name == "negative" and (x - x).op == "map"
    assert (x + np.zeros((2, 6))).shape == (2, 6)


@pytest.mark.parametrize(("power", "products"), [(2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (31, 8), (2.5, 2), (0.5, 0)])
def test_small_powers_are_repeated_squaring(power, products):
    x = x_of()
    made = [n for n in order([x**power]) if n.op == "map"]
    assert [n.name for n in made].count("multiply") == products and {n.name for n in made} <= {"multiply", "sqrt"}


def test_large_and_fractional_powers_stay_powers():
    x = x_of()
    assert (x ** (LARGEST_PRODUCT + 1)).name == "power" and (x**0.3).name == "power" and (2.0**x).name == "power"
    assert (x**-2).name == "divide" and (x**0).op == "const"


def test_a_constant_array_of_one_value_becomes_a_scalar():
    x = x_of()
    assert (x * np.full(6, 3.0)).args[1].shape == () and (x * np.full((2, 6), 3.0)).args[1].shape == (2, 6)
    assert x * np.full(6, 3.0) is x * 3.0


def test_constant_matrix_times_value_is_one_contraction():
    """A GEMM, with the matrix on either side; the product of two values is multiplied and summed."""
    x, m = x_of(), x_of(4, 6)
    assert (A @ x).op == "contract" and count(A @ x @ np.ones(4), "contract") == 1
    assert count(m @ B, "contract") == 1 and count(m @ m.T, "contract") == 0
    assert (A @ x) is (A @ x)


def test_sums_of_broadcast_values_are_multiples():
    x = x_of()
    spread = np.sum(np.broadcast_to(x, (5, 6)), axis=0)
    assert spread.name == "multiply" and float(spread.args[0].extra) == 5.0
    check(lambda v: np.sum(np.broadcast_to(v, (5, 6))), RNG.standard_normal((6, 3)))


# -- views ------------------------------------------------------------------------------------------------------------------------


def test_views_of_views_are_composed():
    x = x_of(4, 6)
    for made in (x.T[2:, 1], x[1:].reshape(-1)[3:9], x[::2, ::-1][1], x[1:3].T[::2].T, x.reshape(2, 12)[1, ::3]):
        assert made.op == "view" and made.args[0] is x and made.extra.table is None


def test_two_axes_along_one_axis_of_a_view_stay_in_bounds():
    x = RNG.standard_normal((3, 2, 5))
    for places in ([[0, 1, 2], [1, 2, 3]], [[0, 1], [1, 2]], [[3, 4, 5], [2, 3, 4]]):
        check(lambda v: np.take(v.T, places), x)


def test_empty_selections():
    x = RNG.standard_normal((4, 6, 5))
    check(lambda v: v[:0].sum() + v[:, 3:3].sum(axis=1) + np.prod(v[:0]) + v[[]].sum(), x)
    check(lambda v: v[True][0] + v[np.newaxis, False].sum(), x)


def test_a_cumulative_sum_reads_earlier_elements_only():
    """An infinite element does not reach the sums before it, and no matrix is needed."""
    x = RNG.standard_normal((6, 5))
    x[4] = np.inf
    np.testing.assert_allclose(as_arrays(np.cumsum, x), np.cumsum(x, axis=0), rtol=0, atol=1e-14)
    assert not count(np.cumsum(x_of(10_000)), "contract")


def test_unevenly_spaced_positions_use_a_table():
    x = x_of()
    made = x[[0, 1, 4]]
    assert made.args[0] is x and np.frombuffer(made.extra.table, np.int64).tolist() == [0, 1, 4]
    assert x[[1, 3, 5]].extra.table is None
    assert x[[1, 1, 1]].extra == View((0,), 1)


def test_table_entry_minus_one_is_zero_also_through_a_view():
    x = x_of()
    spread = at_places(x, np.array([2, -1, 5, -1]))
    reversed_part = spread[::-1][1:]
    for made, expected in ((spread, [2, None, 5, None]), (reversed_part, [5, None, 2])):
        z = RNG.standard_normal((6, 4))
        found = as_arrays(lambda v, m=made: at_places(v, np.frombuffer(m.extra.table, np.int64)), z)
        np.testing.assert_array_equal(found, [np.zeros(4) if i is None else z[i] for i in expected])
    assert view(value([1.0, 2.0]), (3,), (1,), 0, np.array([1, -1, 0])).extra.tolist() == [2, 0, 1]


def test_splitting_and_joining_gives_the_original_node():
    x, m = x_of(), x_of(4, 6)
    assert stack(list(x)) is x and join([x[:2], x[2:]]) is x and np.stack(list(m)) is m
    assert np.concatenate([x[3:], x[:3]]).args[0] is x


def test_a_part_of_a_join_is_read_from_its_source():
    trace = Trace()
    x, m = trace.input("x", (3,)), trace.input("m", (4,))
    both = np.concatenate([x, m * 2.0])
    assert both[:3] is x and both[1].args[0] is x and both[3:] is m * 2.0
    assert both[[4, 6]].args[0] is m * 2.0 and both[2:4].args[0] is both
    assert np.concatenate([np.concatenate([x, m * 2.0]), x]).args == (x, m * 2.0, x)


# -- uniform values, arrays of values ---------------------------------------------------------------------------------------------


def test_uniform_values_are_recognised():
    trace = Trace()
    x, eta = trace.input("x", (2,)), trace.uniform("eta")
    assert eta.uniform and (np.exp(eta) * SPREAD[:2]).uniform and value(3.0).uniform
    assert not (eta * x).uniform and not (0.0 * x).uniform


def test_sequences_and_object_arrays_of_values():
    x = x_of(2)
    assert is_value([1.0, [x[0]]]) and is_value(np.array([x[0], 1.0], dtype=object)) and not is_value([1.0, "a"])
    made = value(np.array([[x[0], 1.0], [2.0, x[1]]], dtype=object))
    assert made.shape == (2, 2)
    filled = np.zeros_like(x)
    filled[1] = x[0]
    np.testing.assert_array_equal(as_arrays(lambda v: value([0.0, v[0]]), np.ones((2, 3))), [[0, 0, 0], [1, 1, 1]])
    assert value(filled).shape == (2,) and filled[1] is x[0]


def test_values_support_numpys_protocols():
    x = x_of(4, 6)
    assert (x.shape, x.ndim, x.size, len(x), x.T.shape, x.dtype) == ((4, 6), 2, 24, 4, (6, 4), np.dtype(float))
    assert (x > 0).dtype == np.dtype(bool) and len(list(x)) == 4 and len(list(x.flat)) == 24
    assert np.shape(x) == (4, 6) and np.ndim(x) == 2 and np.size(x) == 24 and np.result_type(x, 1.0) == np.dtype(float)
    assert copy.copy(x) is x and copy.deepcopy([x])[0] is x and {x: 1}[x] == 1 and repr(x) == "input:x[4, 6]"


# -- refusals ---------------------------------------------------------------------------------------------------------------------

WRONG_SHAPES = {
    "operands": (lambda x: x + np.ones(5), "broadcast together with shapes .*6.*5.*component shapes of one path"),
    "matmul": (lambda x: np.ones((3, 5)) @ x, r"matmul: shapes \(3, 5\) and \(6,\)"),
    "reshape": (lambda x: x.reshape(4, 2), r"cannot reshape array of size 6 into shape \(4, 2\)"),
    "broadcast": (lambda x: np.broadcast_to(x, (6, 2)), "broadcast"),
    "splits": (lambda x: np.split(x, 4), "does not result in an equal division"),
    "squeezed": (lambda x: np.squeeze(x, axis=0), "size not equal to one"),
    "axis of a sum": (lambda x: np.sum(x, axis=1), "axis 1 is out of bounds for array of dimension 1"),
    "axis of a join": (lambda x: np.concatenate([x, x], axis=1), "axis 1 is out of bounds"),
    "axis of a stack": (lambda x: np.stack([x, x], axis=2), "axis 2 is out of bounds"),
    "axes": (lambda x: x.reshape(2, 3).transpose(0, 2), "axis 2 is out of bounds"),
    "joined coordinates": (lambda x: np.concatenate([x[0], x[1]]), "a coordinate is one number and cannot be concatenated"),
    "joins": (lambda x: np.concatenate([x.reshape(3, 2), x.reshape(2, 3)]), "one shape but for the first axis"),
}


@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_wrong_shapes_are_value_errors(name):
    formula, sentence = WRONG_SHAPES[name]
    with pytest.raises(ValueError, match=sentence):
        formula(x_of())


@pytest.mark.parametrize("key", [6, -7, (0, 1), [0, 9]])
def test_positions_out_of_bounds_are_index_errors(key):
    with pytest.raises(IndexError):
        x_of()[key]


@pytest.mark.parametrize(
    ("formula", "sentence"),
    [
        (lambda x: np.add.accumulate(x), "np.add.accumulate into an array cannot be traced"),
        (lambda x: np.exp(x, where=x > 0), "with `where=` cannot be traced; write `np.where"),
        (lambda x: np.einsum("ii", x.reshape(2, 3) @ np.ones((3, 2))), "cannot be traced"),
        (lambda x: np.einsum(x, [0]), "subscripts as one string"),
        (lambda x: np.linalg.norm(x.reshape(2, 3), 2), "ord=2 of matrices cannot be traced"),
        (lambda x: np.diff(x.reshape(2, 3)), "subtract slices"),
        (lambda x: x[x > 0], "only rows of data can be taken at traced indices"),
        (lambda x: x[x[0]], "only rows of data can be taken at traced indices"),
        (lambda x: (x > 0) & x, "`&` takes conditions only"),
        (lambda x: ~x, "`~` takes conditions only"),
        (lambda x: np.sort(x), "np.sort cannot be traced"),
        (lambda x: value(1j), "cannot trace a value of type complex"),
        (lambda x: bool(x[0]), "branches on a value"),
        (lambda x: float(x[0]), "instead of math's"),
        (lambda x: list(x[0]), "cannot be iterated over"),
    ],
)
def test_untraceable_formulas_raise_tracing_errors(formula, sentence):
    with pytest.raises(TracingError, match=sentence):
        formula(x_of())


@pytest.mark.parametrize("n", [2, 3])
def test_a_zero_next_to_the_first_element_is_a_zero(n):
    """Positions 0 and -1 are evenly spaced, but -1 is a zero.

    This happens in the first row of a diagonal 2 x 2 matrix, and in a row that is reversed and padded.
    """
    z = RNG.standard_normal((n, 7))
    for formula in (lambda x: np.diag(x)[0], lambda x: np.diag(x)[::-1][-1], lambda x: np.diag(x) @ x):
        for found in (as_arrays(formula, z), as_loops(formula, z)):
            np.testing.assert_allclose(found, np.stack([formula(p) for p in z.T], axis=-1), rtol=1e-15)


def test_an_unknown_attribute_is_named_in_the_error():
    with pytest.raises(AttributeError, match="a traced value has no attribute 'squared'") as caught:
        x_of().squared()
    assert caught.value.name == "squared" and isinstance(caught.value.obj, Value)


def test_norms_along_axes_are_numpys_or_refused():
    """Of vectors along one axis and of matrices along two, every order that NumPy has; `ord="fro"` is of matrices."""
    x = np.arange(1.0, 25.0).reshape(2, 3, 4)
    traced = 0
    for axis in (0, 1, 2, (1,), (0, 1), (2, 0)):
        for kind in (None, 1, 2, np.inf, -np.inf, 0, "fro", "nuc"):
            try:
                expected = np.linalg.norm(x, kind, axis)
            except ValueError:
                expected = None
            try:
                found = as_arrays(
                    lambda v, kind=kind, axis=axis: np.linalg.norm(v.reshape(2, 3, 4), kind, axis), x.reshape(24, 1)
                )[..., 0]
            except TracingError:
                continue
            traced += 1
            assert expected is not None and np.allclose(found, expected, rtol=1e-12), (axis, kind)
    assert traced == 4 * 4 + 2 * 2  # None, 1, 2, inf along one axis; None and "fro" along two


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: np.einsum("i", x, x),
        lambda x: np.einsum("i,i,i", x, x),
        lambda x: np.einsum("i->j", x),
        lambda x: np.einsum("i->ii", x),
        lambda x: np.transpose(x.reshape(2, 3), (0, 0)),
        lambda x: np.transpose(x.reshape(2, 3), (0,)),
        lambda x: x.reshape(-1, -1),
        lambda x: x.reshape(4, -1),
        lambda x: x.reshape(0, -1),
        lambda x: np.concatenate([x, x[0]]),
        lambda x: np.concatenate([x[0], x]),
    ],
)
def test_what_numpy_refuses_is_refused(formula):
    """With a ValueError on numbers and on values; the shapes that fit are accepted (control)."""
    for x in (SPREAD, x_of()):
        with pytest.raises(ValueError):
            formula(x)
    assert x_of().reshape(3, -1).shape == (3, 2) and x_of()[:0].reshape(0, 5).shape == (0, 5)


def test_means_and_variances_without_degrees_of_freedom_are_numpys():
    """NaN of nothing, infinite or NaN of one element."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for formula in (
            lambda x: np.mean(x[:0]),
            lambda x: np.var(x, ddof=6),
            lambda x: np.var(0 * x, ddof=6),
            lambda x: np.var(x[:0]),
        ):
            np.testing.assert_array_equal(as_arrays(lambda v, f=formula: value(f(v)), SPREAD[:, None])[..., 0], formula(SPREAD))
