"""Traced formulas against NumPy: unusual operations, refusals, errors in user code, and sharing of equal operations.

A graph is run twice: by the array emitter, and as loops over lanes, compiled with the kernels' flags.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from emitted import as_arrays, as_loops
from hypothesis import given, settings, strategies as some

import sdetools as st
from sdetools.graph.errors import TracingError
from sdetools.graph.value import Trace, order, value


def run_on_arrays(formula, x):
    """Run the graph by the array emitter."""
    return as_arrays(lambda v: value(formula(v)), x)


def compiled(formula, x):
    """Run the graph in a kernel."""
    return as_loops(lambda v: value(formula(v)), x)


def numbers(dim=2, paths=40, seed=0):
    x = np.random.default_rng(seed).normal(0, 1.5, (dim, paths))
    x[:, :6] = [[0.0, 1.0, -1.0, 2.0, -2.0, 0.5]] * dim
    return x


FORMULAS = {
    "arithmetic": lambda x: [x[0] + 2 - x[1] * 3 / 7 - (-x[0]), 1 - x[0] / 4, 2 / (x[1] + 10), +x[0]],
    "neutral elements": lambda x: [0 + x[0] - 0, 1 * x[1] * 1 / 1, 0 - x[0], x[0] * 0 + x[1]],
    "whole powers": lambda x: [x[0] ** 2, x[0] ** 3, x[0] ** 7, x[1] ** 0, x[1] ** 1, x[0] ** 13, (x[0] ** 2) ** 3],
    "negative powers": lambda x: [x[0] ** -1, x[1] ** -2, x[0] ** -3.0],
    "half powers": lambda x: [abs(x[0]) ** 0.5, abs(x[0]) ** 2.5, abs(x[1]) ** -0.5, x[0] ** 1.5],
    "real powers": lambda x: [abs(x[0]) ** 0.3, abs(x[1]) ** 1.7, abs(x[0]) ** -0.25, abs(x[0]) ** 2.2],
    "large powers": lambda x: [x[0] ** 64, x[0] ** 65, x[0] ** 66, (x[1] / 3) ** 101],
    "base a number": lambda x: [2.0 ** x[0], 0.5 ** x[1]],
    "varying power": lambda x: [abs(x[0]) ** x[1], (x[0] * x[0]) ** (x[1] * 0)],
    "kinks": lambda x: [abs(x[0]), np.abs(x[1]), st.select(x[0] > 0, x[0], -3 * x[1]), st.select(x[0] <= x[1], 1.0, x[1])],
    "conditions": lambda x: [
        st.select((x[0] > 0) & (x[1] < 1), x[0], 0.0),
        st.select((x[0] > 1) | (x[1] >= 0), 1.0, -1.0),
        st.select(~(x[0] == 1), 2.0, x[1]),
        st.select(x[0] != x[1], 1.0, 0.0),
        st.select(x[0] > 0, st.select(x[1] > 0, 1.0, 2.0), st.select(x[1] > 0, 3.0, 4.0)),
    ],
    "elementary": lambda x: [
        np.exp(x[0]),
        np.log(abs(x[0]) + 0.1),
        np.sqrt(abs(x[1])),
        np.sin(x[0]),
        np.cos(x[1]),
        np.tan(x[0]),
        np.tanh(x[1]),
        np.sinh(x[0]),
        np.cosh(x[1]),
        np.arctan(x[0]),
        np.log1p(x[0] ** 2),
        np.expm1(x[1]),
        np.square(x[0]),
        np.arcsin(x[0] / 9),
        np.arccos(x[1] / 9),
    ],
    "numpy on whole arrays": lambda x: [*np.exp(x), *(np.tanh(x) * 2.0 + x), *np.power(x, 3)],
    "constants": lambda x: [
        3.0,
        np.float64(2.5),
        math.pi,
        x[0] * np.float64(1e-300),
        np.float32(0.1) * x[1],
        x[0] * True,
        7 // 2,
    ],
    "extreme constants": lambda x: [
        x[0] * 1e308,
        x[1] * 5e-324,
        x[0] + (-1e-5),
        x[0] * np.inf,
        x[0] + np.nan,
        x[1] * -np.inf,
        -0.0 * x[0],
    ],
    "singular": lambda x: [1 / x[0], x[1] / x[0], np.log(x[0]), np.sqrt(x[1]), x[0] ** -2, np.log1p(x[0] - 1)],
    "dot and sum": lambda x: [
        (x * x).sum(axis=0),
        x[0] * x[1] + (x * np.array([2.0, -1.0]).reshape(2, *[1] * (np.ndim(x) - 1))).sum(axis=0),
    ],
}


@pytest.mark.parametrize("name", FORMULAS)
def test_traced_formulas_match_numpy(name):
    """To 1e-13: real powers by exp and log have an error of a digit or two, all else is a rounding error."""
    formula, x = FORMULAS[name], numbers()
    with np.errstate(all="ignore"):
        expected = np.array([np.broadcast_to(v, x.shape[1:]) for v in formula(x)], dtype=float)
        np.testing.assert_allclose(run_on_arrays(formula, x), expected, rtol=1e-13, atol=1e-300)


def test_compiled_formulas_match_numpy():
    """All formulas in one compiled loop (elementary functions have tests of their own).

    Fused multiply-adds err relative to terms that cancel, hence the absolute 1e-13.
    """

    def everything(x):
        return [v for name, formula in FORMULAS.items() if name not in ("extreme constants", "elementary") for v in formula(x)]

    x = numbers(seed=1)
    with np.errstate(all="ignore"):
        expected = np.array([np.broadcast_to(v, x.shape[1:]) for v in everything(x)], dtype=float)
    np.testing.assert_allclose(compiled(everything, x), expected, rtol=1e-12, atol=1e-13)


def test_a_traced_sign_matches_numpy():
    x = np.array([[0.0, -0.0, 3.0, -1e-320, np.inf, -np.inf, np.nan]])
    for run in (run_on_arrays, compiled):
        np.testing.assert_array_equal(run(lambda x: [np.sign(x[0])], x), np.sign(x))


def test_sign_and_comparisons_of_whole_arrays_are_traced():
    """`np.sign(m)` and `select(m > 0, ...)` on the vector m, as one writes a sign method."""
    x = numbers()
    for formula in (
        np.sign,
        lambda x: st.select(x > 0, x, -2.0 * x),
        lambda x: np.where(x > 0.5, np.maximum(x, 1.0), np.floor(x)),
    ):
        np.testing.assert_allclose(run_on_arrays(formula, x), formula(x))
        np.testing.assert_allclose(compiled(formula, x), formula(x))


@settings(max_examples=60, deadline=None)
@given(some.data())
def test_random_formulas(data):
    """Random trees of operations, traced and run."""
    leaves = [lambda x: x[0], lambda x: x[1], *(lambda x, c=c: c for c in (0, 1, -2.5, 0.3))]

    def grow(depth):
        if depth == 0 or data.draw(some.integers(0, 4)) == 0:
            return data.draw(some.sampled_from(leaves))
        kind = data.draw(some.sampled_from(["+", "-", "*", "neg", "abs", "sin", "square", "select", "tanh"]))
        a, b = grow(depth - 1), grow(depth - 1)
        return {
            "+": lambda x: a(x) + b(x),
            "-": lambda x: a(x) - b(x),
            "*": lambda x: a(x) * b(x),
            "neg": lambda x: -a(x),
            "abs": lambda x: abs(a(x)),
            "sin": lambda x: np.sin(a(x)),
            "square": lambda x: a(x) ** 2,
            "select": lambda x: st.select(x[0] > x[1], a(x), b(x)),
            "tanh": lambda x: np.tanh(a(x)),
        }[kind]

    tree, x = grow(5), numbers(paths=12)
    with np.errstate(all="ignore"):
        expected = np.broadcast_to(np.asarray(tree(x), dtype=float), x.shape[1:])
        np.testing.assert_allclose(run_on_arrays(lambda s: [tree(s)], x)[0], expected, rtol=1e-13, atol=1e-300)


def test_a_wrong_formula_is_detected():
    """Negative control."""
    x = numbers()
    assert np.abs(run_on_arrays(lambda s: [s[0] ** 3], x)[0] - x[0] ** 3 * (1 + 1e-12)).max() > 1e-12


# -- refusals -------------------------------------------------------------------------------------------------------------------

REFUSED = {
    "if": lambda x: x[0] if x[0] > 0 else -x[0],
    "and": lambda x: x[0] > 0 and x[1] > 0,
    "truth": lambda x: 1.0 if x[0] else 0.0,
    "float": lambda x: math.exp(x[0]),
    "int": lambda x: [1, 2, 3][x[0]],
    "max": lambda x: max(x[0], x[1]),
    "in place": lambda x: x.__setitem__(0, 1.0),
    "among": lambda x: 1.0 in x,
    "places": lambda x: np.where(x > 0),
    "out": lambda x: np.exp(x, out=np.zeros(2)),
    "iterate": lambda x: sum(x[0]),
    "compare": lambda x: st.select(x[0] > "a", 1.0, 0.0),
    "text": lambda x: st.select(x[0] > 0, "a", 0.0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_formulas_that_need_a_number_are_refused(name):
    with pytest.raises(TracingError):
        REFUSED[name](Trace().input("x", (2,)))


def test_values_of_two_traces_do_not_mix():
    kept = Trace().input("x")
    with pytest.raises(TracingError, match="two traces"):
        Trace().input("x") + kept


class Branching(st.Dynamics):
    """A rule that branches on a value."""

    @staticmethod
    def rule(state, oracle, eta):
        g = oracle(state[0])
        return (state[0] - eta * (g if np.all(np.abs(g) < 1e9) else 0 * g),)


PLAIN_ORACLE = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
GIVEN = dict(x0=[1.0], horizon=1.0, paths=20, observe=["x0"], threads=1)


def test_a_branching_rule_runs_on_numpy_and_is_refused_by_numba():
    """Both messages name the line; with backend="numpy" there is no warning."""
    moving = Branching(PLAIN_ORACLE, st.schedules.constant(0.25))
    assert st.simulate(moving, **GIVEN, backend="numpy").paths == 20
    why = r"rule of Branching cannot be traced \(.*np.where.*line \d+ of .*test_graph_tracing.py, `return .*1e9.*backend.*numpy"
    with pytest.warns(RuntimeWarning, match=why):
        assert st.simulate(moving, **GIVEN).paths == 20
    with pytest.raises(ValueError, match=why):
        st.simulate(moving, backend="numba", **GIVEN)


# -- errors in user code --------------------------------------------------------------------------------------------------------


class Settings:
    """Settings of a rule."""

    step = 0.25


def helper(x, factor):
    return x * factor


def stop():
    raise RuntimeError("on purpose")


BROKEN = {
    NameError: lambda x: x * undefined,  # noqa: F821
    AttributeError: lambda x: x * Settings.stepp,
    KeyError: lambda x: x * {"a": 1.0}["b"],
    IndexError: lambda x: x * [1.0][1],
    ZeroDivisionError: lambda x: x * (1 / 0),
    ValueError: lambda x: x * float("one"),
    TypeError: lambda x: helper(x),
    RecursionError: lambda x: BROKEN[RecursionError](x),
    RuntimeError: lambda x: stop(),
}


def in_a_rule(broken):
    class Rule(st.Dynamics):
        @staticmethod
        def rule(state, oracle, eta):
            return (broken(state[0]) - eta * oracle(state[0]),)

    return Rule(PLAIN_ORACLE, st.schedules.constant(0.25)), {}


def in_a_functional(broken):
    return st.SGD(PLAIN_ORACLE, st.schedules.constant(0.25)), {"functionals": [st.Accumulate("f", lambda a, b: broken(a)[0])]}


def in_an_observable(broken):
    return st.SGD(PLAIN_ORACLE, st.schedules.constant(0.25)), {"observe": {"f": lambda x: broken(x)[0]}}


def in_a_gradient(broken):
    oracle = st.NoisyOracle(st.losses.from_function(lambda x: [broken(x)[0]], dim=1), st.noise.none(1))
    return st.SGD(oracle, st.schedules.constant(0.25)), {}


def in_a_noise(broken):
    noise = st.noise.from_function(lambda x, z: [z[0] + 0 * broken(x)[0]], 1, st.noise.Normal(1), 1.0, check=False)
    return st.SGD(st.NoisyOracle(st.losses.quadratic(1.0), noise), st.schedules.constant(0.25)), {}


@pytest.mark.parametrize("backend", ["auto", "numba", "numpy", "torch"])
@pytest.mark.parametrize("place", [in_a_rule, in_a_functional, in_an_observable, in_a_gradient, in_a_noise])
@pytest.mark.parametrize("kind", BROKEN)
def test_errors_in_user_code_keep_their_type(kind, place, backend):
    """The same type on every backend, with the innermost line in this file, and no warning about another backend."""
    with pytest.raises(kind) as caught:
        moving, more = place(BROKEN[kind])
        st.simulate(moving, **GIVEN | more, backend=backend)
    assert caught.type is kind
    assert str(caught.traceback[-1].path) == __file__
    if place in (in_a_rule, in_a_functional, in_a_noise) and backend != "numpy":  # the others are detected earlier, on numbers
        (note,) = caught.value.__notes__
        assert note.startswith("It was raised by the ") and f"line {caught.traceback[-1].lineno + 1} of {__file__}" in note


def returning(value):
    class Rule(st.Dynamics):
        @staticmethod
        def rule(state, oracle, eta):
            return value(state[0])

    return Rule(st.NoisyOracle(st.losses.quadratic(np.eye(2)), st.noise.none(2)), st.schedules.constant(0.25))


@pytest.mark.parametrize("backend", ["auto", "numba", "numpy", "torch"])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (lambda x: None, r"1 part \(x\); it returned nothing \(None\). Write `return x,`"),
        (lambda x: x, r"1 part \(x\); it returned 2 of them"),
        (lambda x: (x, x), r"1 part \(x\); it returned 2 of them"),
        (lambda x: (), r"1 part \(x\)"),
        (lambda x: (np.concatenate([x, x]),), "its part x with 2 components, one a coordinate; it returned 4"),
        (
            lambda x: (np.outer(x, x),),
            r"its part x with 2 components, one a coordinate; it returned (40|an array of shape \(2, 2\), component by)",
        ),
        (lambda x: ("ab",), "its part x with 2 components, one a coordinate; it returned 'ab'"),
        (lambda x: ([x[0]],), "its part x with 2 components, one a coordinate; it returned 1"),
        (lambda x: (0.0,), "its part x with 2 components, one a coordinate; it returned one number"),
        (lambda x: (None,), r"its part x with 2 components, one a coordinate; it returned nothing \(None\)"),
    ],
)
def test_a_rule_with_a_wrong_return_value_is_refused(value, sentence, backend):
    with pytest.raises(ValueError, match=f"the rule of Rule must return {sentence}"):
        st.simulate(returning(value), **GIVEN | {"x0": [1.0, 2.0]}, backend=backend)


@pytest.mark.parametrize("backend", ["numba", "numpy", "torch"])
def test_a_rule_may_return_lists_with_constants_in_them(backend):
    run = st.simulate(returning(lambda x: ([x[1], 3.0],)), **GIVEN | {"x0": [1.0, 2.0]}, keep_final=True, backend=backend)
    np.testing.assert_array_equal(run.final, [[3.0] * 20, [3.0] * 20])


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: np.arctan2(x[0], 1.0),
        lambda x: np.nan_to_num(x)[0],
        lambda x: np.sort(x)[0],
        lambda x: np.median(x, axis=0),
    ],
)
def test_functions_of_numbers_only_are_reported(bad):
    """An unknown ufunc and functions that depend on values: NumPy runs them, with a warning; Numba refuses them."""
    moving, more = in_a_functional(lambda x: [bad(x)])
    with pytest.warns(RuntimeWarning, match="the functional f cannot be traced .*line .*test_graph_tracing.py.*backend 'numpy'"):
        st.simulate(moving, **GIVEN | more)
    with pytest.raises(ValueError, match="backend 'numba' cannot run this: the functional f cannot be traced"):
        st.simulate(moving, **GIVEN | more, backend="numba")


# -- equal operations are shared, different ones never merged --------------------------------------------------------------------


def test_equal_operations_are_one_node():
    a, b = Trace().input("x", (2,))
    total = (a * b + 1) + (a * b + 1) * (b * a)
    assert len([n for n in order([total]) if n.op == "map"]) == 5  # a*b, +1, b*a, product, sum
    assert a * b is a * b and a * b is not b * a
    assert np.exp(a) + 2.5 is np.exp(a) + 2.5


class ThreeGradients(st.Dynamics):
    """Three oracle calls: at x, at a look-ahead point, and at x again; the momentum is used between them."""

    parts, coefficients = ("x", "m"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        x, m = state
        first = oracle(x)
        ahead = x - eta * (m + first)
        second = oracle(ahead)
        again = oracle(x)
        m = beta * m + (1 - beta) * (0.5 * first + second - 0.25 * again * first)
        return x - eta * m + 0.01 * (ahead - x) * m, m


@pytest.mark.parametrize("staged", ["loss", "oracle", "both"])
def test_a_rule_with_three_gradients_over_staged_parts(staged):
    """Staged loss, staged oracle (minibatch), staged loss and noise: kernel and reference agree path by path to 1e-11."""
    rng, dim = np.random.default_rng(2), 3
    loss = st.losses.least_squares(rng.standard_normal((7, dim)), rng.standard_normal(7))
    noise = {
        "loss": lambda: st.noise.gaussian(dim=dim),
        "oracle": lambda: st.noise.minibatch(loss, size=2),
        "both": lambda: st.noise.label_noise(loss, std=0.5, size=2),
    }[staged]()
    moving = ThreeGradients(st.NoisyOracle(loss, noise, sigma=0.5), st.schedules.constant(0.125, 0.8))
    given_ = dict(x0=np.linspace(-1, 1, dim), horizon=0.75, paths=300, observe={"L": loss}, keep_final=True, threads=1)
    fast, slow = (st.simulate(moving, backend=backend, **given_) for backend in ("numba", "numpy"))
    np.testing.assert_allclose(fast.final, slow.final, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(fast.statistics.mean, slow.statistics.mean, rtol=1e-11)


class Torchy(st.Dynamics):
    """A rule that is written with a function of torch."""

    parts, coefficients = ("x",), ("eta",)

    @staticmethod
    def rule(state, oracle, eta):
        torch = pytest.importorskip("torch")
        return (state[0] - eta * torch.sign(oracle(state[0])),)


def test_a_function_of_torch_in_a_rule_is_refused_with_the_way_out():
    oracle = st.NoisyOracle(st.losses.quadratic([1.0]), st.noise.gaussian(dim=1))
    with pytest.raises(TypeError, match=r"the rule of Torchy must use functions of NumPy, such as np.sign for torch.sign: line"):
        st.simulate(Torchy(oracle, st.schedules.constant(0.1)), [1.0], 1.0, 10, ["x0"])
