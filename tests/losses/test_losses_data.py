"""Data losses: hand values, naive twins, stages, stability, refusals."""

import math
import pickle
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdetools.losses import LinearModel, least_squares, logistic

pytestmark = pytest.mark.filterwarnings("error")


def problem(kind, samples=11, dim=3, l2=0.3, seed=0):
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
def test_against_the_naive_twin(kind):
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
    loss, h = problem(kind), 6e-6
    for x in np.random.default_rng(2).standard_normal((3, 3)):
        for lower, upper in ((loss.value, loss.gradient), (loss.gradient, loss.hessian), (loss.hessian, loss.third)):
            numeric = np.stack([(lower(x + s) - lower(x - s)) / (2 * h) for s in h * np.eye(3)])
            np.testing.assert_allclose(upper(x), numeric, atol=1e-9)
        third = loss.third(x)
        assert all(np.allclose(third, third.transpose(o), rtol=1e-13, atol=1e-15) for o in permutations(range(3)))


@KINDS
def test_contract(kind):
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
    assert pickle.loads(pickle.dumps(loss.stage)).data[0].shape == (11, 3)


@KINDS
@pytest.mark.parametrize(("samples", "dim", "lanes"), [(1, 1, 1), (11, 3, 7), (40, 20, 64)])
def test_stages_against_numpy(kind, samples, dim, lanes):
    loss = problem(kind, samples, dim)
    x = 3 * np.random.default_rng(lanes).standard_normal((dim, lanes))
    before, out, value = x.copy(), np.full((dim, lanes), np.nan), np.full(lanes, np.nan)
    loss.stage.function(x, out, *loss.stage.data)
    loss.value_stage.function(x, value, *loss.value_stage.data)
    np.testing.assert_allclose(out, loss.gradient(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(value, loss.value(x), rtol=1e-12)
    np.testing.assert_array_equal(x, before)
    alone = np.empty((dim, 1))
    loss.stage.function(np.ascontiguousarray(x[:, -1:]), alone, *loss.stage.data)
    np.testing.assert_array_equal(alone[:, 0], out[:, -1])  # a lane does not depend on its neighbours
    import importlib

    plain = getattr(loss.stage.function, "py_func", loss.stage.function)
    assert getattr(importlib.import_module(plain.__module__), plain.__name__) is loss.stage.function


def test_stages_carry_nan():
    for kind in ("least_squares", "logistic"):
        loss = problem(kind)
        x = np.ones((3, 4))
        x[1, 2] = np.nan
        out, value = np.empty((3, 4)), np.empty(4)
        loss.stage.function(x, out, *loss.stage.data)
        loss.value_stage.function(x, value, *loss.value_stage.data)
        assert np.isnan(out[:, 2]).all() and np.isnan(value[2]) and np.isfinite(np.delete(out, 2, axis=1)).all()


def test_own_exponential():
    from sdetools.losses.kernels import exp_negative

    t = -np.concatenate([np.linspace(0, 40, 4001), np.linspace(40, 700, 500), [0.0, 1e-300, 1e-17]])
    got = np.array([exp_negative(v) for v in t])
    np.testing.assert_allclose(got, np.exp(t), rtol=4e-16 * 2)
    assert exp_negative(0.0) == 1 and exp_negative(-1e300) == exp_negative(-700.0) > 0 and math.isnan(exp_negative(math.nan))
    assert exp_negative(-math.inf) == exp_negative(-700.0)


def test_logistic_is_stable():
    loss = logistic([[1.0], [1.0]], [1, 1])
    assert loss.value([1000.0]) == pytest.approx(0, abs=1e-300) and loss.value([-1000.0]) == 1000.0
    assert loss.gradient([1000.0]).item() == 0 and loss.gradient([-1000.0]).item() == -1
    assert loss.gradient([40.0]).item() == pytest.approx(-math.exp(-40), rel=1e-14)  # both tails to relative accuracy
    assert loss.value([40.0]) == pytest.approx(math.exp(-40), rel=1e-14)
    x = np.array([[-1e307, -1e5, 0.0, 1e5, 1e307]])
    for method in (loss.value, loss.gradient, loss.hessian, loss.third):
        assert np.isfinite(method(x)).all()
    out, value = np.empty_like(x), np.empty(5)
    loss.stage.function(x, out, *loss.stage.data)
    loss.value_stage.function(x, value, *loss.value_stage.data)
    np.testing.assert_allclose(out, loss.gradient(x), atol=1e-300)
    np.testing.assert_allclose(value, loss.value(x), atol=1e-300)


def test_labels():
    a = [[1.0], [2.0], [3.0]]
    for labels in ([0, 1, 1], [-1, 1, 1], [False, True, True], [-1.0, 1.0, 1.0]):
        assert logistic(a, labels).targets.tolist() == [-1, 1, 1]
    assert logistic(a, [1, 1, 1]).targets.tolist() == [1, 1, 1]
    assert logistic(a, [0, 0, 0]).targets.tolist() == [-1, -1, -1]
    for labels in ([0, 1, 2], [-1, 0, 1], [0.5, 1, 1], [-1, 0, 0]):
        with pytest.raises(ValueError, match="0 and 1, or -1 and 1"):
            logistic(a, labels)


@pytest.mark.parametrize(
    ("arguments", "word"),
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
def test_refusals(make, arguments, word):
    with pytest.raises(ValueError, match=word):
        make(*arguments)


def test_wrong_points():
    loss = problem("logistic")
    with pytest.raises(ValueError, match=r"\(3,\)"):
        loss.gradient([1.0])
    with pytest.raises(ValueError, match=r"\(3,\)"):
        loss.sample_gradients(np.zeros((3, 2)))


def test_quadratic_form_of_least_squares():
    loss = problem("least_squares")
    H, c, level = loss.quadratic()
    x = np.array([0.3, -1.0, 2.0])
    assert loss.value(x) == pytest.approx(x @ H @ x / 2 + c @ x + level, rel=1e-13)
    np.testing.assert_allclose(loss.gradient(x), H @ x + c, rtol=1e-12)
    assert problem("logistic").quadratic() is None


@KINDS
def test_minimiser(kind):
    loss = problem(kind)
    np.testing.assert_allclose(loss.gradient(loss.minimiser()), 0, atol=1e-8)


def test_minimiser_without_enough_data():
    wide = least_squares([[3.0, 4.0]], [5.0])
    np.testing.assert_allclose(wide.minimiser(), [0.6, 0.8], rtol=1e-13)
    with pytest.raises(ValueError, match="hyperplane"):
        logistic([[1.0], [2.0], [-1.0]], [1, 1, 0]).minimiser()


@KINDS
def test_symbols(kind):
    sympy = pytest.importorskip("sympy")

    class Sym:
        """A symbol by SymPy, with the methods that NumPy's ufuncs ask for."""

        def __init__(self, e):
            self.e = sympy.sympify(e)

        exp = lambda s: Sym(sympy.exp(s.e))  # noqa: E731
        tanh = lambda s: Sym(sympy.tanh(s.e))  # noqa: E731
        log1p = lambda s: Sym(sympy.log(1 + s.e))  # noqa: E731
        __abs__ = lambda s: Sym(sympy.Abs(s.e))  # noqa: E731
        __neg__ = lambda s: Sym(-s.e)  # noqa: E731
        __pow__ = lambda s, n: Sym(s.e**n)  # noqa: E731

        def __bool__(self):
            raise TypeError("a symbol has no truth value")

    def get(a):
        return a.e if isinstance(a, Sym) else sympy.sympify(float(a))

    for name in ("add", "sub", "mul", "truediv"):
        import operator

        f = getattr(operator, name)
        setattr(Sym, f"__{name}__", lambda a, b, f=f: Sym(f(a.e, get(b))))
        setattr(Sym, f"__r{name}__", lambda a, b, f=f: Sym(f(get(b), a.e)))
    loss = problem(kind, samples=4, dim=2)
    point = np.array([0.4, -1.1])
    x = np.empty(2, dtype=object)
    x[:] = [Sym("u"), Sym("v")]
    at = {"u": point[0], "v": point[1]}
    numbers = np.vectorize(lambda a: float(get(a).subs(at)), otypes=[float])
    np.testing.assert_allclose(numbers(loss.value(x)), loss.value(point), rtol=1e-13)
    for method in (loss.gradient, loss.hessian, loss.third):
        np.testing.assert_allclose(numbers(method(x)), method(point), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(numbers(loss.hessian_product(x, point)), loss.hessian_product(point, point), rtol=1e-12)


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.floats(0, 2), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_stage_is_the_formula(samples, dim, lanes, is_logistic, l2, seed):
    loss = problem("logistic" if is_logistic else "least_squares", samples, dim, l2, seed)
    x = 5 * np.random.default_rng(seed).standard_normal((dim, lanes))
    out = np.empty_like(x)
    loss.stage.function(x, out, *loss.stage.data)
    np.testing.assert_allclose(out, loss.gradient(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(out[:, 0], naive(loss, x[:, 0])[1], rtol=1e-12, atol=1e-12)
