"""Observables and functionals of paths: each formula against NumPy, at points without symmetry."""

import numpy as np
import pytest

import sdetools as st
from sdetools.studies.observables import column, observable, observables

LOSS = st.losses.from_expression("x**2*y + y**3/3", variables="x y")
POINTS = np.array([[0.7, -1.2, 2.0], [0.4, 1.5, -0.3]])


def test_the_gradient_of_a_function_is_its_central_difference():
    """Of sin(x) y^2: (cos(x) y^2, 2 sin(x) y); the errors are of the order of the squared step, 1e-10, and of rounding over it, 1e-11."""
    h = observable(lambda x: np.sin(x[0]) * x[1] ** 2, LOSS)
    x, y = POINTS
    np.testing.assert_allclose(h.value(POINTS), np.sin(x) * y**2, rtol=1e-15)
    np.testing.assert_allclose(h.gradient(POINTS), [np.cos(x) * y**2, 2 * np.sin(x) * y], atol=1e-8)


@pytest.mark.parametrize("spec", ["x*y**2", LOSS, st.Bounded("x*y**2", -9, 9)], ids=["text", "loss", "bounded"])
def test_values_and_gradients_of_formulas(spec):
    """Expressions, losses and functions that can be traced."""
    h, (x, y) = observable(spec, LOSS), POINTS
    if spec is LOSS:
        value, gradient = x**2 * y + y**3 / 3, [2 * x * y, x**2 + y**2]
    else:
        value, gradient = x * y**2, [y**2, 2 * x * y]
    np.testing.assert_allclose(h.value(POINTS), value, rtol=1e-14)
    np.testing.assert_allclose(h.gradient(POINTS), gradient, rtol=1e-14, atol=1e-15)
    assert h.range is None if not isinstance(spec, st.Bounded) else (h.range.low, h.range.high) == (-9.0, 9.0)


def test_an_indicator_is_one_or_zero():
    """Conditions become numbers."""
    h = observable(st.Indicator(lambda x: x[0] > x[1]), LOSS)
    assert np.asarray(h.value(POINTS)).tolist() == [1.0, 0.0, 1.0]
    assert sorted(h.range.values) == [0.0, 1.0]


def test_columns_are_found_by_name_and_by_index():
    """Negative indices count from the end; others are refused."""
    names = tuple(o.name for o in observables(["y", "x*y", lambda x: x[0]], LOSS))
    assert names[:2] == ("y", "x*y") and len(set(names)) == 3
    assert [column(names, o) for o in ("x*y", 2, -3)] == [1, 2, 0]


BEFORE, AFTER = POINTS, POINTS + np.array([[0.3, -0.5, 0.1], [0.4, 1.2, -0.7]])


@pytest.mark.parametrize(
    ("functional", "expected"),
    [
        (st.PathLength(), np.hypot([0.3, -0.5, 0.1], [0.4, 1.2, -0.7])),
        (st.SquaredIncrements(), np.array([0.3, -0.5, 0.1]) ** 2),
        (st.SquaredIncrements(coordinate=1), np.array([0.4, 1.2, -0.7]) ** 2),
        (st.LossVariation(LOSS), np.abs(LOSS.value(AFTER) - LOSS.value(BEFORE))),
    ],
    ids=["length", "squares of x", "squares of y", "variation of the loss"],
)
def test_increments_of_functionals(functional, expected):
    """The increment of one step."""
    np.testing.assert_allclose(functional.increment(BEFORE, AFTER), expected, rtol=1e-13)


def test_the_gradient_of_a_function_that_cannot_be_traced():
    """x0^2 x1 + |x2|, by an `if` on a value: central differences in every coordinate, of one point and of many."""
    space = st.losses.from_expression("x + y + z", variables="x y z")

    def branching(x):
        return x[0] ** 2 * x[1] + (x[2] if np.all(x[2] > 0) else -x[2])

    h = observable(branching, space, "h")
    x = np.array([0.7, -1.3, -0.4])
    np.testing.assert_allclose(h.gradient(x), [2 * 0.7 * -1.3, 0.7**2, -1.0], rtol=0, atol=1e-8)
    many = np.stack([x, [2.0, 0.5, -3.0]], axis=1)
    np.testing.assert_allclose(h.gradient(many)[:, 1], [2.0, 4.0, -1.0], rtol=0, atol=1e-8)
