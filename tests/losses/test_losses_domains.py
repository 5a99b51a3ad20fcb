"""Domains of formulas: outside, the value and all derivatives are NaN, even where SymPy cancels the root or the logarithm."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import sdetools as st
from sdetools.losses.expression import latex
from sdetools.losses.kinks import Domain
from sdetools.losses.parser import parse

# text, a point inside, a point outside
ONE = {
    "sqrt(x)**2": (2.0, -2.0),
    "sqrt(x)*sqrt(x)": (2.0, -2.0),
    "sqrt(x)**4 + x": (0.7, -0.7),
    "x**0.5 * x**0.5": (2.0, -2.0),
    "(x**1.5)**2": (2.0, -2.0),
    "(x**(1/3))**3": (2.0, -2.0),
    "x**2.5 / x**0.5": (2.0, -2.0),
    "sqrt(x) / sqrt(x) + x": (2.0, -2.0),
    "sqrt(x + 1)**2": (-0.5, -1.5),
    "sqrt(4*x)**2": (2.0, -2.0),
    "sqrt(-x)**2": (-2.0, 2.0),
    "exp(log(x))": (2.0, -2.0),
    "exp(2*log(x))": (2.0, -2.0),
    "e**log(x)": (2.0, -2.0),
    "exp(log(x)/2)**2": (2.0, -2.0),
    "log(x)": (2.0, -2.0),
    "log(2*x)": (2.0, -2.0),
    "log(x**3)": (2.0, -2.0),
    "log(1/x)": (2.0, -2.0),
    "log(1 - x)": (0.5, 1.5),
    "log(sqrt(x))": (2.0, -2.0),
    "x**2 + 0*log(x)": (2.0, -2.0),
    "log(x) - log(x) + x**2": (2.0, -2.0),
    "log(x)**2 / log(x)": (2.0, -2.0),
    "log(x)**0 * x": (2.0, -2.0),
    "log(log(x))": (3.0, 0.5),
    "x**1.5": (2.0, -2.0),
    "x**-0.5": (2.0, -2.0),
    "x**x": (2.0, -2.0),
    "max(sqrt(x), -1)": (2.0, -2.0),
    "abs(sqrt(x))": (2.0, -2.0),
    "sin(sqrt(x)**2)": (2.0, -2.0),
    "sqrt(x**2 - 1)**2": (-2.0, 0.5),
}
EVERYWHERE = [
    "sqrt(x**2)",
    "log(exp(x))",
    "log(1 + x**2)",
    "sqrt(cosh(x))",
    "sqrt(exp(x))**3",
    "abs(x)",
    "max(x, 1)",
    "x**2",
    "atan(x)",
]
ALL = ("value", "gradient", "hessian", "third")


def with_mpmath(text):
    """Return a formula as a function of mpmath's numbers."""
    space = {n: getattr(mpmath, n) for n in ("sqrt", "log", "exp", "sin")} | {"e": mpmath.e, "max": max, "abs": abs}
    return lambda x: eval(text.replace("(1/3)", "(mpf(1)/3)"), space | {"x": x, "mpf": mpmath.mpf})


@pytest.mark.parametrize("text", ONE)
def test_derivatives_are_exact_inside_and_nan_outside(text):
    """Inside, the derivatives are those of the text itself by mpmath with 40 digits."""
    loss = st.losses.from_expression(text, "x")
    inside, outside = ONE[text]
    with mpmath.workdps(40):
        truth = [float(mpmath.re(mpmath.diff(with_mpmath(text), mpmath.mpf(inside), n))) for n in range(4)]
    both = np.array([[inside, outside, np.nan]])
    for name, expected in zip(ALL, truth):
        got = np.ravel(getattr(loss, name)(both))
        assert got[0] == pytest.approx(expected, rel=1e-12, abs=1e-12), name
        assert np.isnan(got[1:]).all(), name
        assert np.isnan(np.ravel(getattr(loss, name)([outside]))).all()


@pytest.mark.parametrize("text", EVERYWHERE)
def test_formulas_that_are_real_everywhere_have_no_domain_condition(text):
    """Negative control: a base that is positive by its form needs no check in each step."""
    loss = st.losses.from_expression(text, "x")
    assert not loss.expr.has(Domain)
    assert all(np.isfinite(getattr(loss, name)(np.array([[-2.0, 2.0]]))).all() for name in ALL)


def test_a_derivative_along_a_coordinate_without_a_domain_is_finite():
    """For log x + y^2 / 2 at x < 0: NaN along x, y along y."""
    loss = st.losses.from_expression("log(x) + y**2/2", "x y")
    np.testing.assert_array_equal(loss.gradient([-1.0, 3.0]), [np.nan, 3.0])
    np.testing.assert_array_equal(loss.hessian([-1.0, 3.0]), [[np.nan, 0], [0, 1]])


def test_the_boundary_of_a_domain():
    """Domains of roots include 0, those of logarithms do not."""
    assert st.losses.from_expression("sqrt(x)", "x").value([0.0]) == 0.0
    assert st.losses.from_expression("x**1.5", "x").gradient([0.0]) == 0.0
    assert not np.isfinite(st.losses.from_expression("log(x)", "x").value([0.0]))


def test_products_and_parameters():
    """Sqrt(x y)^2 is x y if both have one sign; sqrt(a) of a parameter has a domain, too."""
    loss = st.losses.from_expression("sqrt(x*y)**2 / 2", "x y")
    np.testing.assert_array_equal(loss.gradient([-2.0, -3.0]), [-1.5, -1.0])
    assert np.isnan(loss.gradient([-2.0, 3.0])).all()
    scaled = st.losses.from_expression("sqrt(a)**2 * x", "x", parameters={"a": 4.0})
    assert scaled.value([3.0]) == 12.0 and np.isnan(scaled.value([3.0], p=[-4.0]))


def test_a_loss_on_a_part_of_the_line_is_not_quadratic():
    """A formula with a domain is not quadratic, even if its expression is."""
    for text in ("sqrt(x)**4", "exp(2*log(x))", "x**2 + 0*log(x)", "(sqrt(x) - 1)*(sqrt(x) + 1)"):
        assert st.losses.from_expression(text, "x").quadratic() is None
    assert st.losses.from_expression("sqrt(1 + x**2)**2", "x").quadratic() is not None


def test_domains_are_not_printed():
    """LaTeX shows the expression without its domain."""
    assert st.losses.from_expression("log(x)", "x").latex == r"\log{\left(x \right)}" == latex(parse("log(x)", "x"))


PLAN = st.schedules.constant(0.25)
START = dict(horizon=1.0, paths=300, threads=1)


@pytest.mark.parametrize("backend", ["numba", "numpy", "torch"])
@pytest.mark.parametrize("text", ["exp(log(x))", "sqrt(x)**2", "log(x**3)/100 + x", "x + 0*log(x)"])
def test_a_path_that_leaves_the_domain_counts_as_diverged(backend, text):
    """From 0.6, x decreases by 1/4 a step and is negative after three of four steps, so the fourth is NaN."""
    moving = st.SGD(st.NoisyOracle(st.losses.from_expression(text, "x"), st.noise.none(1)), PLAN)
    assert st.simulate(moving, x0=[0.6], observe=["1"], **START, backend=backend).diverged == 300
    assert st.simulate(moving, x0=[60.0], observe=["1"], **START, backend=backend).diverged == 0


@pytest.mark.parametrize("backend", ["numba", "numpy", "torch"])
def test_noise_roots_observables_and_sdes_have_domains_too(backend):
    """Paths outside the domain of a root or a drift diverge; an observable outside its domain is NaN."""
    quadratic = st.losses.from_expression("x**2/2", "x")
    root = st.noise.gaussian(root=[["exp(log(x))"]], variables="x")
    sde = st.EulerMaruyama(st.SDE(drift=["-sqrt(x)**2"], diffusion=["0*x + 0.1"], variables="x"), 0.25)
    for moving in (st.SGD(st.NoisyOracle(quadratic, root, sigma=1e-3), PLAN), sde):
        assert st.simulate(moving, x0=[-1.0], observe=["x"], **START, backend=backend).diverged == 300
        assert st.simulate(moving, x0=[50.0], observe=["x"], **START, backend=backend).diverged == 0
    still = st.SGD(st.NoisyOracle(quadratic, st.noise.none(1)), PLAN)
    run = st.simulate(still, x0=[-1.0], observe=["sqrt(x)**2", "x**2"], **START, backend=backend)
    assert np.isnan(run.at("sqrt(x)**2").value) and run.at("x**2").value == 0.75**8
