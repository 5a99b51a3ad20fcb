"""Losses given by their value alone: derivatives against 100-digit arithmetic, kinks, domains, paths, errors, large dimensions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from problems_in_digits import PROBLEMS, Digits, Plain, along, points

from sdetools.graph.tracing import NotTraceable
from sdetools.graph.value import Trace, order
from sdetools.losses import from_expression, from_function

pytestmark = pytest.mark.filterwarnings("error")
RELATIVE = 1e-8


def problem(name):
    """Return a loss from a problem's value, and the same value in 100-digit arithmetic."""
    build, dim = PROBLEMS[name]
    return from_function(value=build(Plain), dim=dim), build(Digits)


def directions(dim, count):
    """Return random directions in rows."""
    return np.random.default_rng(3).standard_normal((count, dim))


def close(found, expected):
    """Compare arrays relative to the largest entry."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients(name):
    """Value and gradient agree with 100-digit differences; at a point moved by 1e-6 they do not."""
    loss, digits = problem(name)
    x = points(name, 1)[:, 0]
    expected = np.array([along(digits, x, e) for e in np.eye(loss.dim)])
    close(loss.gradient(x), expected)
    assert loss.value(x) == pytest.approx(along(digits, x), rel=1e-12)
    assert np.abs(loss.gradient(x * (1 + 1e-6)) - expected).max() > RELATIVE * np.abs(expected).max()  # negative control


@pytest.mark.parametrize("name", PROBLEMS)
def test_second_and_third_derivatives(name):
    """Dense tensors and products agree with 100-digit differences along directions."""
    loss, digits = problem(name)
    x, d = points(name, 1)[:, 0], directions(loss.dim, 3)
    pairs = [(a, b) for a in d for b in d]
    second = np.array([along(digits, x, a, b) for a, b in pairs])
    hessian, third = loss.hessian(x), loss.third(x)
    close([a @ hessian @ b for a, b in pairs], second)
    close([a @ loss.hessian_product(x, b) for a, b in pairs], second)
    triples = [(a, b, c) for a, b in pairs for c in d]
    expected = np.array([along(digits, x, *t) for t in triples])
    scale = RELATIVE * max(np.abs(expected).max(), np.abs(second).max())
    for found in (
        [np.einsum("ijl,i,j,l", third, a, b, c) for a, b, c in triples],
        [loss.third_product(x, a, b) @ c for a, b, c in triples],
        [loss.third_contracted(x, np.outer(a, b)) @ c for a, b, c in triples],
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=scale)
    np.testing.assert_array_equal(hessian, hessian.T)


@pytest.mark.parametrize("name", PROBLEMS)
def test_many_paths_agree_with_single_points(name):
    """All derivatives on many paths are those of each path."""
    loss, _ = problem(name)
    x = points(name, 6)
    v, matrices = (
        np.random.default_rng(7).standard_normal((2, *x.shape))[0],
        np.random.default_rng(8).standard_normal((loss.dim, loss.dim, 6)),
    )
    found = loss.value(x), loss.gradient(x), loss.hessian(x), loss.hessian_product(x, v), loss.third_contracted(x, matrices)
    for j in range(6):
        y = x[:, j]
        single = (
            loss.value(y),
            loss.gradient(y),
            loss.hessian(y),
            loss.hessian_product(y, v[:, j]),
            loss.third_contracted(y, matrices[..., j]),
        )
        for many, one in zip(found, single):
            np.testing.assert_allclose(many[..., j], one, rtol=1e-12, atol=1e-12 * (1 + np.abs(one).max()))
    np.testing.assert_array_equal(loss.gradient(x.reshape(-1, 2, 3)), loss.gradient(x).reshape(-1, 2, 3))
    if loss.dim <= 20:
        np.testing.assert_allclose(loss.third(x)[..., 2], loss.third(x[:, 2]), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("name", ["rosenbrock", "network", "attention", "huber", "kepler"])
def test_traced_within_another_formula(name):
    """At a point that is the result of a graph, each derivative is that of numbers."""
    from sdetools.graph.arrays import compiled

    loss, _ = problem(name)
    trace = Trace()
    z, v = trace.input("z", (loss.dim,)), trace.input("v", (loss.dim,))
    y = np.concatenate([2 * z[:1], z[1:] - 0.5 * z[0]])
    outputs = [loss.value(y), loss.gradient(y), loss.hessian_product(y, v), loss.hessian(y), loss.third_product(y, v, z)]
    numbers = np.random.default_rng(2).standard_normal((2, loss.dim, 3))
    x = np.concatenate([2 * numbers[0][:1], numbers[0][1:] - 0.5 * numbers[0][0]])
    found = compiled(outputs, [z, v])(*numbers)
    expected = [loss.value(x), loss.gradient(x), loss.hessian_product(x, numbers[1]), loss.hessian(x)]
    expected.append(np.stack([loss.third_product(x[:, j], numbers[1, :, j], numbers[0, :, j]) for j in range(3)], axis=-1))
    for a, b in zip(found, expected):
        whole = a if a.ndim == b.ndim else a[..., None]  # the same for all paths
        np.testing.assert_allclose(np.broadcast_to(whole, b.shape), b, rtol=1e-11, atol=1e-11 * np.abs(b).max())


def test_agrees_with_the_expression():
    """From the value, from the gradient and from an expression's gradient."""
    exact = from_expression("exp(x0*x1) + x0**3*x2 - sin(x1*x2)/3")
    loss = from_function(value=lambda x: np.exp(x[0] * x[1]) + x[0] ** 3 * x[2] - np.sin(x[1] * x[2]) / 3, dim=3)
    by_gradient = from_function(lambda x: exact.gradient(x), 3)
    by_hand = from_function(
        lambda x: [
            x[1] * np.exp(x[0] * x[1]) + 3 * x[0] ** 2 * x[2],
            x[0] * np.exp(x[0] * x[1]) - x[2] * np.cos(x[1] * x[2]) / 3,
            x[0] ** 3 - x[1] * np.cos(x[1] * x[2]) / 3,
        ],
        3,
    )
    x = np.random.default_rng(0).standard_normal((3, 5))
    for one in (loss, by_hand, by_gradient):
        for method in ("gradient", "hessian", "third"):
            np.testing.assert_allclose(getattr(one, method)(x), getattr(exact, method)(x), rtol=1e-12, atol=1e-12)


def test_kinks_and_domains():
    """At a kink the gradient is the mean of both sides; outside a domain all is NaN."""
    kinks = from_function(value=lambda x: abs(x[0]) + np.maximum(x[1], 0) + np.where(x[2] > 0, x[2] ** 2, 0), dim=3)
    assert kinks.gradient([0.0, 0.0, 0.0]).tolist() == [0.0, 0.5, 0.0]
    assert kinks.gradient([-2.0, -1.0, 3.0]).tolist() == [-1.0, 0.0, 6.0]
    assert kinks.hessian([1.0, 1.0, 3.0])[2, 2] == 2.0
    for f, outside in ((np.log, -1.0), (np.sqrt, -1.0), (np.arcsin, 2.0), (np.log1p, -3.0), (lambda u: u**0.3, -1.0)):
        loss = from_function(value=lambda x, f=f: f(x[0]), dim=1)
        x = np.array([[outside, 0.5, outside]])
        for found in (loss.value(x), loss.gradient(x)[0], loss.hessian(x)[0, 0], loss.third(x)[0, 0, 0]):
            assert np.isnan(found[[0, 2]]).all() and np.isfinite(found[1])


def test_quadratic_values_are_recognised():
    """Sums of squares, products and linear functions, with and without a gradient."""
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((7, 4)), rng.standard_normal(7)
    for value, hand in (
        (lambda x: np.sum((A @ x - b) ** 2) / 2 + 3, None),
        (lambda x: (A @ x - b) @ (A @ x - b) / 2 + 3.0, None),
        (lambda x: np.sum((A @ x - b) ** 2) / 2 + 3, lambda x: A.T @ (A @ x - b)),
    ):
        H, c, level = from_function(hand, 4, value).quadratic()
        np.testing.assert_allclose(H, A.T @ A, rtol=1e-12)
        np.testing.assert_allclose(c, -A.T @ b, rtol=1e-12)
        assert level == pytest.approx(b @ b / 2 + 3)
    H, c, level = from_function(value=lambda x: 2 * x[0] - x[1] + 1, dim=2).quadratic()
    assert (H.tolist(), c.tolist(), level) == ([[0, 0], [0, 0]], [2, -1], 1)


@pytest.mark.parametrize(
    "value",
    [
        lambda x: x[0] ** 4, lambda x: abs(x[0]), lambda x: np.maximum(x[0], 0), lambda x: np.where(x[0] > 0, x[0], 0), lambda x: np.sign(x[0]),
        lambda x: np.floor(x[0]) + x[0] ** 2, lambda x: np.max(x), lambda x: np.where(x[0] > 1, x[0] ** 2, x[0] ** 2 + 1), lambda x: 1 / x[0],
        lambda x: abs(x[0]) * abs(x[0]), lambda x: x[0] > 0, lambda x: x[0] ** 2 * x[1],
    ],
)  # fmt: skip
def test_other_values_are_not_quadratic(value):
    """Also functions that are quadratic on each side of a kink or a jump."""
    assert from_function(value=value, dim=2).quadratic() is None


def test_a_gradient_alone_is_not_quadratic():
    """Without a value there is no quadratic form."""
    assert from_function(lambda x: x, 2).quadratic() is None


def test_exact_moments_of_a_quadratic_value():
    """The moment recursion takes the quadratic form from the graph."""
    import sdetools as st

    A = np.array([[2.0, 1.0], [1.0, 3.0]])
    ours = from_function(value=lambda x: x @ A @ x / 2, dim=2)
    found, expected = (
        st.exact.moments(
            st.SGDM(st.NoisyOracle(loss, st.noise.gaussian(dim=2), 0.3), st.schedules.constant(0.1, 0.8)), [1.0, 2.0], 9
        )
        for loss in (ours, st.losses.quadratic(A))
    )
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-12, atol=1e-15)


def branching(x):
    """A value that branches."""
    return x[0] if x[0] > 0 else -x[0]


def misspelt(x):
    """A value with a wrong attribute."""
    return np.sum(x.squared())


def divided(x):
    """A value that divides by zero."""
    return np.sum(x) * (1 / 0)


def beyond(x):
    """A value with an index out of range."""
    return x[2] ** 2


def mixed(x):
    """A value of mixed types."""
    return np.sum(x) + "1"


def misshaped(x):
    """A value with shapes that do not fit."""
    return np.sum(np.ones((3, 5)) @ x)


@pytest.mark.parametrize(
    ("value", "error", "line"),
    [
        (misspelt, AttributeError, "np.sum(x.squared())"),
        (divided, ZeroDivisionError, "1 / 0"),
        (beyond, IndexError, "x[2] ** 2"),
        (mixed, TypeError, 'np.sum(x) + "1"'),
        (misshaped, ValueError, "np.ones((3, 5)) @ x"),
    ],
)
def test_errors_of_user_functions_are_raised_unchanged(value, error, line):
    """A note gives the line and the function."""
    with pytest.raises(error) as caught:
        from_function(value=value, dim=2)
    assert not isinstance(caught.value, NotTraceable) and any(
        line in note and "the value of" in note for note in caught.value.__notes__
    )
    with pytest.raises(error) as caught:
        from_function(lambda x: [value(x), x[1]], 2)
    assert not isinstance(caught.value, NotTraceable) and any(
        line in note and "the gradient of" in note for note in caught.value.__notes__
    )


def test_values_that_cannot_be_traced_need_a_gradient():
    """The message gives the branch; with a gradient the functions run path by path."""
    with pytest.raises(
        ValueError, match=r"`gradient` must be given if `value` cannot be traced: .*`return x\[0\] if x\[0\] > 0.*gradient="
    ):
        from_function(value=branching, dim=1)
    loss = from_function(lambda x: [1.0] if x[0] > 0 else [-1.0], 1, branching)
    assert loss.value([[-2.0, 3.0]]).tolist() == [2, 3] and loss.gradient([[-2.0, 3.0]]).tolist() == [[-1, 1]]
    with pytest.raises(TypeError, match="branches on a value"):
        loss.gradient(Trace().input("x", (1,)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 2}, "`gradient` or `value` must be given"),
        ({"dim": 2, "value": lambda x: x}, "must be one number for one point; got shape \\(2,\\)"),
        ({"dim": 2, "value": lambda x: None}, "must be one number for one point; got nothing"),
        ({"value": lambda x: x[0]}, "`dim`"),
        ({"dim": 2, "gradient": lambda x: np.outer(x, x)}, "gradient must be an array of shape"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    """The message names the argument or the wrong result."""
    with pytest.raises(ValueError, match=message):
        from_function(**arguments)


def test_a_hessian_beside_a_value_is_validated():
    """A correct Hessian is used; a wrong entry is rejected."""
    value, hessian = (lambda x: x[0] ** 3 * x[1]), (lambda x: [[6 * x[0] * x[1], 3 * x[0] ** 2], [3 * x[0] ** 2, 0]])
    loss, x = from_function(value=value, dim=2, hessian=hessian), np.array([1.0, 2.0])
    assert loss.hessian(x).tolist() == [[12, 3], [3, 0]] and loss.third(x)[0, 0].tolist() == [12, 6]
    with pytest.raises(ValueError, match="`hessian` must be the derivative of `gradient`"):
        from_function(value=value, dim=2, hessian=lambda x: [[6 * x[0] * x[1], 3 * x[0] ** 2], [3 * x[0] ** 2, 1]])


def module_value(x):
    """A value that pickles."""
    return np.sum(x**4) / 4 - np.sum(x) ** 2


def test_compiled_functions_are_not_pickled():
    """A pickled loss has no graphs and gives the same results."""
    loss = from_function(value=module_value, dim=3)
    x = np.arange(6.0).reshape(3, 2)
    before = loss.hessian(x)
    assert not {"_graphs", "_known"} & loss.__getstate__().keys()
    again = pickle.loads(pickle.dumps(loss))
    np.testing.assert_array_equal(again.hessian(x), before)
    assert again.identity == loss.identity != from_function(value=lambda x: np.sum(x**4) / 4, dim=3).identity


def test_large_dimensions_build_no_dense_graph():
    """With 3,000 coordinates the Hessian-vector product is exact and the graph is small."""
    n = 3000
    a = np.random.default_rng(1).standard_normal((40, n))
    loss = from_function(value=lambda x: np.sum(np.log(np.cosh(a @ x))) + np.sum((x[1:] - x[:-1]) ** 4), dim=n)
    x, v = np.random.default_rng(2).standard_normal((2, n)) / n
    d, r = v[1:] - v[:-1], 12 * (x[1:] - x[:-1]) ** 2
    expected = a.T @ ((a @ v) / np.cosh(a @ x) ** 2) + np.append(0, r * d) - np.append(r * d, 0)
    np.testing.assert_allclose(loss.hessian_product(x, v), expected, rtol=1e-10, atol=1e-12)
    y = Trace().input("y", (n,))
    assert len(order([loss.gradient(y), loss.hessian_product(y, v)])) < 100


def test_results_do_not_alias_the_point():
    """Writing to a result changes neither the point nor later results."""
    loss = from_function(value=lambda x: np.sum(x**2) / 2, dim=2)
    x = np.ones((2, 3))
    loss.gradient(x)[:] = 7.0
    loss.hessian_product(x, x)[:] = 7.0
    assert (x == 1).all() and loss.hessian(x).flags.writeable


# ---- kernels: the gradient of the graph and a hand-written one


def valley(n):
    """Return a nonlinear loss of any dimension and its gradient, with slices, a data matrix and elementary functions."""
    a = np.random.default_rng(n).standard_normal((n, n)) / np.sqrt(n)

    def value(x):
        return (
            np.sum(np.log(np.cosh(a @ x))) + np.sum(np.sqrt(1 + x**2)) + np.sum(np.where(x[1:] > 0, (x[1:] - x[:-1]) ** 2, 0)) / 2
        )

    def gradient(x):
        d = np.where(x[1:] > 0, x[1:] - x[:-1], 0)
        zero = 0 * x[:1]
        return a.T @ np.tanh(a @ x) + x / np.sqrt(1 + x**2) + np.concatenate([zero, d]) - np.concatenate([d, zero])

    return value, gradient


@pytest.mark.sample(1)
@pytest.mark.parametrize("n", [1, 3, 40, 300])
@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_simulated_paths_agree_with_the_hand_written_gradient(n, backend):
    """On all backends; another seed gives other paths."""
    import sdetools as st

    if backend == "torch":
        pytest.importorskip("torch", reason="torch is an extra")
    value, gradient = valley(n)
    runs = [
        st.simulate(
            st.SGDM(st.NoisyOracle(loss, st.noise.gaussian(dim=n), 0.5), st.schedules.constant(0.05, 0.8)),
            x0=np.linspace(-1, 1, n), horizon=1.0, paths=130, observe={"L": loss}, seed=seed, backend=backend, keep_final=True, threads=1,
        )
        for loss, seed in ((from_function(value=value, dim=n), 0), (from_function(gradient, n, value), 0), (from_function(value=value, dim=n), 1))
    ]  # fmt: skip
    ours, hand, other = (run.final for run in runs)
    np.testing.assert_allclose(ours, hand, rtol=1e-12, atol=1e-12)
    assert np.abs(ours - other).max() > 1e-2  # negative control: other draws are other paths
