"""Losses given by Python functions: validation of derivatives, differences, functions of one point, Numba functions."""

import functools
import pickle
import statistics
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numba import njit

from sdetools.graph.tracing import place_of
from sdetools.losses import from_expression, from_function

pytestmark = pytest.mark.filterwarnings("error")


def value(x):
    """Return (x y - 1)^2 / 2."""
    return (x[0] * x[1] - 1) ** 2 / 2


def gradient(x):
    """Return its gradient."""
    r = x[0] * x[1] - 1
    return [r * x[1], r * x[0]]


def hessian(x):
    """Return its Hessian."""
    off = 2 * x[0] * x[1] - 1
    return [[x[1] ** 2, off], [off, x[0] ** 2]]


@njit
def compiled_gradient(x):
    """Return its gradient as a tuple, compiled."""
    r = x[0] * x[1] - 1
    return r * x[1], r * x[0]


@njit
def compiled_point_gradient(x):
    """Return its gradient as an array for one point, compiled."""
    out = np.empty(2)
    r = x[0] * x[1] - 1
    out[0] = r * x[1]
    out[1] = r * x[0]
    return out


def mixing_gradient(x):
    """Return a gradient that is wrong if it is called with many paths."""
    return x * np.sum(x**2) - x  # for one point only: on (dim, paths) it would sum over the paths


def test_agrees_with_the_expression():
    """With a Hessian and without: the derivatives are those of the same loss as an expression."""
    exact = from_expression("(x0*x1 - 1)**2 / 2")
    x = np.random.default_rng(0).standard_normal((2, 6))
    before = x.copy()
    full, part = from_function(gradient, 2, value, hessian), from_function(gradient, 2)
    for loss, second, third in ((full, 1e-15, 1e-9), (part, 1e-9, 1e-6)):
        np.testing.assert_allclose(loss.gradient(x), exact.gradient(x), rtol=1e-14)
        np.testing.assert_allclose(loss.hessian(x), exact.hessian(x), atol=10 * second)
        np.testing.assert_allclose(loss.third(x), exact.third(x), atol=10 * third)
        for method in (loss.gradient, loss.hessian, loss.third):
            np.testing.assert_allclose(method(x)[..., 3], method(x[:, 3]), rtol=1e-12, atol=1e-12)
        at = loss.third(x[:, 0])
        assert all(np.allclose(at, at.transpose(o), rtol=1e-13, atol=1e-13) for o in permutations(range(3)))
        np.testing.assert_allclose(loss.hessian_product(x, x), exact.hessian_product(x, x), atol=1e-7)
        np.testing.assert_allclose(loss.third_contracted(x, np.eye(2)), exact.third_contracted(x, np.eye(2)), atol=1e-5)
    np.testing.assert_allclose(full.value(x), exact.value(x), rtol=1e-14)
    assert full.value(x).shape == (6,) and np.ndim(full.value(x[:, 0])) == 0
    np.testing.assert_array_equal(x, before)
    assert full.quadratic() is None and full.names == ("x0", "x1") and full.batched and not full.compiled


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: [(x[0] * x[1] - 1) * x[1], -(x[0] * x[1] - 1) * x[0]],
        lambda x: [(x[0] * x[1] - 1) * x[1], 2 * (x[0] * x[1] - 1) * x[0]],
        lambda x: [(x[0] * x[1] - 1) * x[1], (x[0] * x[1] - 1) * x[0] + 1e-5],
        lambda x: [(x[0] * x[1] - 1) * x[1], np.nan],
    ],
)
def test_a_wrong_gradient_is_rejected(wrong):
    """A wrong sign, factor or constant, and NaN; the message names the coordinate."""
    with pytest.raises(ValueError, match=r"`gradient` must be the derivative of `value`; at x = .* its coordinate q is .* give"):
        from_function(wrong, 2, value, names="p q")


def test_the_worst_coordinate_is_named():
    """Of two wrong coordinates the message gives the one with the larger error."""
    with pytest.raises(ValueError, match=r"coordinate c is 9.* but central differences give 0"):
        from_function(lambda x: [x[0], x[1] + 1, 9.0], 3, lambda x: (x[0] ** 2 + x[1] ** 2) / 2 + 0 * x[2], names=["a", "b", "c"])


def test_a_wrong_hessian_is_rejected():
    """The message names the entry."""
    with pytest.raises(ValueError, match=r"`hessian` must be the derivative of `gradient`.*x1, x1"):
        from_function(gradient, 2, hessian=lambda x: [hessian(x)[0], [hessian(x)[1][0], 2 * x[0] ** 2]])


def test_without_a_value_there_is_no_check():
    """A field that is no gradient passes; its value cannot be evaluated."""
    loss = from_function(lambda x: [x[1], -x[0]], 2)  # no gradient of anything
    assert loss.gradient([1.0, 2.0]).tolist() == [2.0, -1.0]
    with pytest.raises(ValueError, match=r"`value` of the loss <lambda> was not given.*value="):
        loss.value([1.0, 2.0])


@pytest.mark.parametrize(
    ("g", "f"),
    [
        (lambda x: [np.exp(x[0])], lambda x: np.exp(x[0])),
        (lambda x: [1e6 * x[0]], lambda x: 1e6 * x[0] ** 2 / 2),
        (lambda x: [1e-6 * x[0]], lambda x: 1e-6 * x[0] ** 2 / 2),
        (lambda x: [x[0]], lambda x: 1e6 + x[0] ** 2 / 2),
        (lambda x: [1 / x[0]], lambda x: np.log(x[0])),
        (lambda x: [40 * np.cos(40 * x[0])], lambda x: np.sin(40 * x[0])),
        (lambda x: [np.sign(x[0])], lambda x: abs(x[0])),
        (lambda x: [x[0] ** 9], lambda x: x[0] ** 10 / 10),
    ],
)
def test_correct_gradients_pass(g, f):
    """Steep, flat, offset, oscillating and non-smooth functions, and one with a domain."""
    assert from_function(g, 1, f).dim == 1


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.integers(0, 3), st.floats(0.001, 2))
@settings(max_examples=30, deadline=None)
def test_random_gradients_pass_and_perturbed_ones_fail(c, which, error):
    """A perturbation of one coefficient by 0.001 or more is detected."""

    def f(x):
        return c[0] * x[0] + c[1] * x[0] ** 2 + c[2] * x[0] ** 3 + c[3] * np.sin(x[0])

    def g(x, wrong=()):
        d = [v + (error if i in wrong else 0) for i, v in enumerate(c)]
        return [d[0] + 2 * d[1] * x[0] + 3 * d[2] * x[0] ** 2 + d[3] * np.cos(x[0])]

    from_function(g, 1, f)
    with pytest.raises(ValueError, match="coordinate x0"):
        from_function(lambda x: g(x, (which,)), 1, f)


@pytest.mark.parametrize(("function", "batched"), [(compiled_gradient, True), (compiled_point_gradient, False)])
def test_numba_functions(function, batched):
    """A compiled gradient is used as it is, for one point or for many."""
    loss = from_function(function, 2, value)
    x = np.random.default_rng(1).standard_normal((2, 5))
    assert loss.function is function and loss.compiled is hasattr(function, "py_func") and loss.batched is batched
    np.testing.assert_allclose(loss.gradient(x), gradient(x), rtol=1e-14)
    np.testing.assert_allclose(loss.gradient(x[:, 0]), gradient(x[:, 0]), rtol=1e-14)
    np.testing.assert_allclose(loss.hessian(x), np.array(hessian(x)), atol=1e-8)


def test_a_function_for_one_point_is_called_path_by_path():
    """A function that mixes paths gives the results of single points."""
    loss = from_function(mixing_gradient, 3, lambda x: np.sum(x**2) ** 2 / 4 - np.sum(x**2) / 2)
    x = np.random.default_rng(2).standard_normal((3, 4))
    assert not loss.batched
    for j in range(4):
        np.testing.assert_allclose(loss.gradient(x)[:, j], mixing_gradient(x[:, j]), rtol=1e-14)
        np.testing.assert_allclose(loss.value(x)[j], loss.value(x[:, j]), rtol=1e-14)


def test_a_function_that_writes_to_its_argument_does_not_change_it():
    """A function gets a copy of the point."""

    def rude(x):
        x[0] = 2 * x[0]
        return [x[0]]

    x = np.ones((1, 3))
    assert from_function(rude, 1).gradient(x).tolist() == [[2, 2, 2]] and x.tolist() == [[1, 1, 1]]


def test_symbols():
    """Functions run on SymPy's symbols; derivatives that need a graph do not."""
    sympy = pytest.importorskip("sympy")
    x = np.array(sympy.symbols("x y"), dtype=object)
    for function in (gradient, compiled_gradient):
        loss = from_function(function, 2, value)
        traced = loss.gradient(x)
        assert traced.dtype == object and traced[0] == (x[0] * x[1] - 1) * x[1]
        with pytest.raises(ValueError, match="must be traced with graph values"):
            loss.hessian(x)
    assert loss.value(x) == (x[0] * x[1] - 1) ** 2 / 2
    assert from_function(gradient, 2, hessian=hessian).hessian(x)[0, 0] == x[1] ** 2


def test_constant_components():
    """Constant components are broadcast over the paths."""
    loss = from_function(lambda x: [1.0, x[1]], 2, lambda x: x[0] + x[1] ** 2 / 2, hessian=lambda x: [[0, 0], [0, 1]])
    assert loss.gradient(np.zeros((2, 3))).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert loss.hessian(np.zeros((2, 3))).shape == (2, 2, 3)
    assert from_function(lambda x: [0.0], 1, lambda x: 3.0).value(np.zeros((1, 2))).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3.0, 2), "gradient"),
        ((gradient, 0), "dim"),
        ((gradient, 2, 5), "value"),
        ((lambda x: [x[0]], 2), "2 components"),
        ((lambda x: x[0], 2), "2 components"),
        ((gradient, 2, value, lambda x: [1.0, 2.0]), "2 components"),
        ((gradient, 2, value, None, ["a"]), "names"),
        ((None, 2), "gradient"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    """The message names the argument."""
    with pytest.raises(ValueError, match=message):
        from_function(*arguments)


def test_identity_and_pickle():
    """The identity depends on the code and on the values that it reads."""
    loss = from_function(gradient, 2, value, hessian)
    again = pickle.loads(pickle.dumps(loss))
    assert again.identity == loss.identity
    np.testing.assert_array_equal(again.gradient([1.0, 2.0]), loss.gradient([1.0, 2.0]))

    def scaled(a):
        return from_function(lambda x: [np.sum(a) * x[0]], 1)

    def recursive(x, n=2):
        return [x[0]] if n == 0 else recursive(x, n - 1)

    assert scaled(1.0).identity == scaled(1.0).identity != scaled(2.0).identity
    assert scaled(np.ones(1)).identity == scaled(np.ones(1)).identity != scaled(np.zeros(1)).identity
    assert from_function(recursive, 1).identity
    assert from_function(gradient, 2).identity != loss.identity


class Scaled:
    """A function object, and one with a method."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x[0] ** 2

    def method(self, x):
        return self.factor * x[0] ** 2


def with_default(factor):
    def f(x, *, factor=factor):
        return factor * x[0] ** 2

    return f


def with_mapping(factor):
    numbers = {"factor": factor}
    return lambda x: numbers["factor"] * x[0] ** 2


KINDS = {
    "object": Scaled,
    "method": lambda factor: Scaled(factor).method,
    "keyword-only default": with_default,
    "mapping": with_mapping,
    "partial": lambda factor: functools.partial(lambda x, factor: factor * x[0] ** 2, factor=factor),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [None, (np.ones(3), np.zeros(3))], ids=["alone", "with data"])
def test_the_identity_depends_on_all_that_a_function_reads(kind, data):
    """A store finds results by it: losses with the factors 1 and 2 have different identities, equal ones the same."""

    def loss(factor):
        function = KINDS[kind](factor)
        if data is None:
            return from_function(value=function, dim=1)
        return from_function(value=lambda x, a, y: function(x) + a * x[0] + y, dim=1, data=data)

    assert loss(1.0).identity == loss(1.0).identity != loss(2.0).identity


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x * 1j,
        lambda x: [x[0], None],
        lambda x: ["0", x[1]],
        lambda x: np.array([x[0], "a"], dtype=object),
    ],
)
def test_a_gradient_that_is_not_real_is_rejected(wrong):
    """Complex numbers, None and strings are not converted."""
    with pytest.raises(ValueError, match="must return real numbers; its component"):
        from_function(gradient=wrong, dim=2).gradient(np.ones(2))


def test_an_error_within_the_standard_library_is_reported_by_the_users_line():
    """The reported line is the call in the user's code."""

    def average(x):
        return statistics.mean(["a", x[0]])

    with pytest.raises(Exception) as caught:
        from_function(value=average, dim=2).value(np.ones(2))
    assert "statistics.mean([" in place_of(caught.value) and "statistics.py" not in place_of(caught.value)


def test_products_of_a_torch_loss_have_the_shapes_of_other_losses():
    """One point with many vectors or matrices, many points with one, against the Hessian and the third derivative."""
    from sdetools.losses import from_torch

    loss = from_torch(lambda x: (x[0] ** 3 * x[1]).sin() + x[1] ** 4, dim=2)
    rng = np.random.default_rng(0)
    for shape, more in (((2,), ()), ((2,), (5,)), ((2, 5), ()), ((2, 5), (5,))):
        x, v, m = rng.standard_normal(shape), rng.standard_normal((2, *more)), rng.standard_normal((2, 2, *more))
        m = m + m.swapaxes(0, 1)
        columns = 5 if len(shape) > 1 or more else 1
        xs, vs, ms = (np.broadcast_to(a.reshape(*a.shape[:k], -1), (*a.shape[:k], columns)) for a, k in ((x, 1), (v, 1), (m, 2)))
        product = np.einsum("ijp,jp->ip", np.stack([loss.hessian(c) for c in xs.T], -1), vs)
        contracted = np.einsum("ijlp,ijp->lp", np.stack([loss.third(c) for c in xs.T], -1), ms)
        found = loss.hessian_product(x, v), loss.third_contracted(x, m)
        for a, b in zip(found, (product, contracted)):
            assert a.ndim == (2 if columns > 1 else 1)
            np.testing.assert_allclose(a.reshape(2, -1), b, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"`x` must have shape \(2,\)"):
        loss.hessian_product(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match=r"`v` must have shape \(2,\)"):
        loss.hessian_product(np.ones(2), np.ones(3))
