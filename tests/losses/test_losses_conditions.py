"""Conditions, steps, pieces and whole parts in expressions: equal to NumPy everywhere, on every backend, and what they are refused for."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st
from sdetools.estimates.interval import Kind
from sdetools.losses.expression import from_expression, latex, parse
from sdetools.studies.observables import observable
from sdetools.studies.ranges import range_of_observable

EDGES = np.array([-np.inf, -2.5, -1.75, -1.0, -0.0, 0.0, 0.5, 1.0, 1.5, 2.0, np.inf, np.nan])
ALWAYS = {
    "x > 1": lambda x, y: x > 1,
    "x < y": lambda x, y: x < y,
    "x >= y": lambda x, y: x >= y,
    "x <= 0": lambda x, y: x <= 0,
    "x == y": lambda x, y: x == y,
    "x != y": lambda x, y: x != y,
    "0 < x <= 1": lambda x, y: (x > 0) & (x <= 1),
    "x > 0 and y > 0": lambda x, y: (x > 0) & (y > 0),
    "(x > 0) | (y > 0)": lambda x, y: (x > 0) | (y > 0),
    "x > 0 or not y > 0": lambda x, y: (x > 0) | ~(y > 0),
    "~(x > 0) & (y > 0)": lambda x, y: ~(x > 0) & (y > 0),
    "sqrt(x)**2 > 1": lambda x, y: np.sqrt(x) ** 2 > 1,
    "Heaviside(x - 1)": lambda x, y: np.heaviside(x - 1, 0.5),
    "Heaviside(x, 1)": lambda x, y: np.heaviside(x, 1.0),
    "Heaviside(x - y, 0)": lambda x, y: np.heaviside(x - y, 0.0),
    "sign(x)": lambda x, y: np.sign(x),
    "floor(x)": lambda x, y: np.floor(x),
    "ceiling(x) + ceil(y)": lambda x, y: np.ceil(x) + np.ceil(y),
    "Abs(x)": lambda x, y: abs(x),
    "abs(x - y)": lambda x, y: abs(x - y),
    "Max(x, 0)": lambda x, y: np.maximum(x, 0),
    "Min(x, y, 1)": lambda x, y: np.minimum(np.minimum(x, y), 1),
    "max(x, y, 0, -x)": lambda x, y: np.maximum(np.maximum(np.maximum(x, y), 0), -x),
    "Piecewise((x, x > 0), (0, True))": lambda x, y: np.where(x > 0, x, 0),
    "Piecewise((1, x < 0), (y, x < 1), (3, True))": lambda x, y: np.where(x < 0, 1, np.where(x < 1, y, 3)),
    "x if x > y else y": lambda x, y: np.where(x > y, x, y),
    "sqrt(x) if x > 0 else -1": lambda x, y: np.where(x > 0, np.sqrt(x), -1),
    "log(x) if x > 0 and y > 0 else 1 / (2 + y)": lambda x, y: np.where((x > 0) & (y > 0), np.log(x), 1 / (2 + y)),
    "x * (x > 0) - 2 * (y <= 1)": lambda x, y: x * (x > 0) - 2 * (y <= 1),
}


def points():
    """Return all pairs of edges, kinks among them, and random points: `(2, n)`."""
    grid = np.stack(np.meshgrid(EDGES, EDGES)).reshape(2, -1)
    return np.concatenate([grid, np.random.default_rng(5).normal(0, 2, (2, 200))], axis=1)


@pytest.mark.parametrize("text", ALWAYS)
def test_values_are_numpys_at_random_points_at_kinks_at_infinity_and_at_nan(text):
    """Rows of paths, single points and a constant in place of a number give what NumPy gives."""
    loss, x = from_expression(text, variables="x y"), points()
    with np.errstate(all="ignore"):
        expected = np.asarray(ALWAYS[text](*x), dtype=float)
        np.testing.assert_array_equal(loss.value(x), expected)
        np.testing.assert_array_equal([float(loss.value(p)) for p in x.T], expected)


STARTS = np.where(np.isfinite(points()), points(), 3.0)


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_every_backend_computes_the_same_indicators_and_pieces(backend):
    """The mean over given starts at time 0 is NumPy's mean at these points, kinks included."""
    x = STARTS
    loss = st.losses.from_expression("(x**2 + y**2) / 2", variables="x y")
    sgd = st.SGD(st.NoisyOracle(loss, st.noise.rademacher(2)), st.schedules.constant(0.5))
    run = st.simulate(sgd, x0=x, horizon=0.5, paths=x.shape[1], times=[0.0, 0.5], observe=list(ALWAYS), backend=backend)
    for text, function in ALWAYS.items():
        with np.errstate(all="ignore"):
            expected = np.asarray(function(*x), float).mean()
        np.testing.assert_allclose(run.at(text, 0.0).value, expected, rtol=1e-13, atol=1e-13, err_msg=text)


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_a_diverged_path_counts_nowhere_as_a_success(backend):
    """An indicator of a path that is not finite is no number, and the result names the paths and their first step."""
    loss = st.losses.from_expression("x**4", variables="x")
    sgd = st.SGD(st.NoisyOracle(loss, st.noise.gaussian(1)), st.schedules.constant(0.5))
    run = st.simulate(sgd, x0=[5.0], horizon=6.0, paths=200, observe=["x > 0", "x < 0"], backend=backend)
    assert run.diverged == 200 and np.isnan(run.at("x > 0").value) and np.isnan(run.at("x < 0").value)


@pytest.mark.parametrize(
    "text", ["x > 1", "0 < x <= 1", "x > 0 or y > 0", "not x > y", "Heaviside(x, 1)", "Heaviside(x - y, 0)", "x != y"]
)
def test_indicators_have_the_interval_of_clopper_and_pearson(text):
    """Their values are 0 and 1; a kink is none: max(x, 0) keeps its normal interval."""
    loss = st.losses.from_expression("(x**2 + y**2) / 2", variables="x y")
    assert range_of_observable(observable(text, loss), 2).values == frozenset({0.0, 1.0})
    sgd = st.SGD(st.NoisyOracle(loss, st.noise.gaussian(2)), st.schedules.constant(0.5))
    run = st.simulate(sgd, x0=[1.0, 1.0], horizon=1.0, paths=200, observe=[text, "max(x, 0)"], backend="numpy")
    assert run.at(text).confidence_interval().kind == Kind.CLOPPER_PEARSON
    assert run.at("max(x, 0)").confidence_interval().kind == Kind.POINTWISE


def test_the_half_in_heaviside_is_a_third_value_within_the_same_bounds():
    """As in SymPy and with 0.5 in NumPy; the second argument removes it."""
    loss = from_expression("x**2", variables="x")
    found = range_of_observable(observable("Heaviside(x)", loss), 1)
    assert found.values == frozenset({0.0, 0.5, 1.0}) and (found.low, found.high) == (0.0, 1.0)
    by_function = range_of_observable(observable(lambda x: np.heaviside(x[0], 1.0), loss), 1)
    assert by_function.values == frozenset({0.0, 1.0})


@pytest.mark.parametrize(
    ("text", "slope"),
    [
        ("x > 1", 0.0),
        ("floor(x)", 0.0),
        ("Heaviside(x)", 0.0),
        ("x**2 * (x > 1)", 4.0),
        ("Piecewise((x**2, x > 1), (sqrt(x), True))", 4.0),
        ("sqrt(x) if x < 1 else x**3", 12.0),
        ("exp(x if x > 0 else 0)", np.exp(2.0)),
        ("Max(x, 0, 3*x)", 3.0),
    ],
)
def test_derivatives_are_those_of_the_branch_taken(text, slope):
    """Away from jumps the derivative is exact, and that of the other branch, which may be NaN, does not enter."""
    assert from_expression(text, variables="x").gradient([2.0])[0] == pytest.approx(slope, rel=1e-14)
    assert np.isfinite(from_expression("sqrt(x) if x > 0 else x", variables="x").gradient([-1.0]))


@pytest.mark.parametrize(
    "text", ["x > 1", "(x - 1)**2 * (x > 0)", "floor(x)**2", "Heaviside(x)", "Piecewise((floor(x), x > 0), (0, True))"]
)
def test_a_loss_with_a_jump_is_no_loss_to_minimise(text):
    """Its gradient would leave the jump out; the message names the piece and what to write."""
    loss = from_expression(text, variables="x")
    with pytest.raises(ValueError, match=r"`loss` must be continuous.*got .*(>|floor|Heaviside).*Piecewise.*observe"):
        st.NoisyOracle(loss, st.noise.gaussian(1))


@pytest.mark.parametrize(
    "text", ["Piecewise((x**2 / 2, abs(x) < 1), (abs(x) - 1/2, True))", "max(x, 0)**2", "abs(x) + x*sign(x)"]
)
def test_a_continuous_loss_with_kinks_is_minimised(text):
    """Huber's loss runs, and its gradient is clip(x, -1, 1)."""
    loss = from_expression(text, variables="x")
    sgd = st.SGD(st.NoisyOracle(loss, st.noise.gaussian(1)), st.schedules.constant(0.5))
    run = st.simulate(sgd, x0=[2.0], horizon=1.0, paths=50, observe=["x"], backend="numpy")
    assert np.isfinite(run.at("x").value)
    if "Piecewise" in text:
        np.testing.assert_allclose(loss.gradient(np.array([[-3.0, -0.5, 0.25, 7.0]])), [[-1.0, -0.5, 0.25, 1.0]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x and y", "conditions of comparisons.*`x`"),
        ("x > 0 & y > 0", "in parentheses"),
        ("x is y", "conditions of comparisons"),
        ("Piecewise((x, x > 0))", "the last with True"),
        ("Piecewise(x, x > 0)", r"Piecewise\(\(x, x > 0\)"),
        ("maximum(x, 0)", "Write max"),
        ("where(x > 0, x, 0)", "Write Piecewise"),
        ("gamma(x)", "The functions are abs"),
        ("max(x)", "`max` with 2 to 100 arguments"),
        ("Heaviside()", "`Heaviside` with 1 to 2 arguments"),
        ("x + True", "`True`"),
        ("x if y else 0", "conditions of comparisons"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_way_to_write_it(text, words):
    """One sentence on the piece, one on the remedy."""
    with pytest.raises(ValueError, match=rf"`text` must .*{words}"):
        parse(text, "x y")


def test_formulas_are_typeset():
    """An indicator is a bold one, a choice has cases."""
    assert latex(parse("x > 1", "x")) == r"\mathbf{1}\left\{x > 1\right\}"
    assert latex(parse("Piecewise((x, x >= 0), (0, True))", "x")) == (
        r"\begin{cases} x & \text{if } x \geq 0 \\ 0 & \text{otherwise} \end{cases}"
    )
    assert latex(parse("floor(x)**2 + Heaviside(x)", "x")) == r"\left\lfloor{x}\right\rfloor^{2} + \theta\left(x\right)"


def test_exact_expectations_of_indicators_are_normal_probabilities():
    """x after one step is N(0, 1): P(x > 1) = 1 - Phi(1), and a far threshold is not taken for a constant."""
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(1), sigma=2.0)
    moments = st.exact.moments(st.SGD(oracle, st.schedules.constant(0.5)), [0.0], 1)
    found = [st.exact.expectation(moments, t)[1] for t in ("x0 > 1", "x0 < -1", "Heaviside(x0 - 1)", "x0 >= 1", "x0 == 0")]
    np.testing.assert_allclose(found, [0.15865525393145707] * 4 + [0.0], rtol=1e-12)
    assert [st.exact.expectation(moments, t)[0] for t in ("x0 > 0", "x0 >= 0", "Heaviside(x0)", "x0 == 0")] == [
        0.0,
        1.0,
        0.5,
        1.0,
    ]
    far = from_expression("2 * x0 + Piecewise((1, x0 > 1e6), (0, True))")
    with pytest.raises(ValueError, match="`observable` must be a polynomial of degree <= 2 or a sum of"):
        st.exact.expectation(moments, far)


def test_torch_has_the_same_comparisons_in_double_precision():
    """The torch backend does not convert an indicator to single precision."""
    loss = st.losses.from_expression("x**2 / 2", variables="x")
    sgd = st.SGD(st.NoisyOracle(loss, st.noise.gaussian(1)), st.schedules.constant(0.5))
    run = st.simulate(sgd, x0=[0.1], horizon=0.5, paths=10, times=[0.0], observe=["x * (x > 0)"], backend="torch")
    assert run.at(0, 0.0).value == 0.1
