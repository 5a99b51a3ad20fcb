"""How the class of a noise is found: symbols that compute like numbers, coefficients read off a product, and the two tests of a class."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

import sdetools as st
from sdetools.dynamics.sdes import classes
from sdetools.dynamics.sdes.classes import Symbolic

X, Y, S = sp.Symbol("y0", real=True), sp.Symbol("y1", real=True), sp.Symbol("s0", real=True)
AT = {X: sp.Rational(7, 10), Y: sp.Rational(3, 10)}


def both(formula):
    """A formula of two coordinates on symbols, then at numbers; and on the numbers."""
    symbols = np.array([Symbolic(X), Symbolic(Y)], dtype=object)
    return float(formula(symbols).expr.subs(AT).evalf(20)), float(formula(np.array([0.7, 0.3])))


ELEMENTARY = (
    *(np.exp, np.log, np.sqrt, np.sin, np.cos, np.tan),
    *(np.sinh, np.cosh, np.tanh, np.arctan, np.arcsin, np.arccos),
)
FORMULAS = {
    "sums": lambda x: (x[0] + x[1]) + (x[0] + 3) + (5 + x[1]),
    "differences": lambda x: (x[0] - x[1]) + 2 * (x[0] - 3) + 7 * (5 - x[1]),
    "products": lambda x: (x[0] * x[1]) + (x[0] * 3) * (5 * x[1]),
    "quotients": lambda x: (x[0] / x[1]) + (x[0] / 3) + (5 / x[1]),
    "powers": lambda x: (x[0] ** x[1]) + (x[0] ** 3) + (5 ** x[1]) + (x[0] ** 0.5),
    "signs": lambda x: -x[0] + 3 * +x[1] + 10 * abs(x[1] - x[0]),
    "square": lambda x: np.square(x)[0] + 2 * np.square(x)[1],
    "log1p": lambda x: np.log1p(x)[0] + 2 * np.log1p(x)[1],
    "expm1": lambda x: np.expm1(x)[0] + 2 * np.expm1(x)[1],
    "conjugate": lambda x: np.conjugate(x)[0] + 2 * np.conjugate(x)[1],
    **{f.__name__: lambda x, f=f: f(x)[0] + 2 * f(x)[1] for f in ELEMENTARY},
    "a choice, above": lambda x: st.select(x[0] > 0.5, x[0] * x[1], 5 * x[1]),
    "a choice, below": lambda x: st.select(x[0] > 0.9, x[0] * x[1], 5 * x[1]),
    "a choice by two symbols": lambda x: st.select(2 * x[1] > x[0], x[0], 3.0),
    "a choice that is none": lambda x: st.select(x[0] > 0.5, x[1], x[1]),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_symbols_compute_as_numbers_do(name):
    symbolic, number = both(FORMULAS[name])
    assert abs(symbolic - number) < 1e-14 * max(1.0, abs(number))


def test_a_choice_has_its_kink_where_the_comparison_ties():
    """For each comparison and for joined ones; where both branches are one formula there is no kink."""
    x, y = Symbolic(X), Symbolic(Y)
    for condition in (x < 2 * y, x <= 2 * y, x >= 2 * y, ~(x > 2 * y)):
        assert float(condition.apart.subs({X: 0.6, Y: 0.3})) == 0.0 != float(condition.apart.subs({X: 0.6, Y: 0.31}))
    for joined in ((x > 2) & (y > 3), (x > 2) | (y > 3)):
        assert sp.expand(joined.apart - (X - 2) * (Y - 3)) == 0
    assert (x > 2).select(y, y).expr == Y
    for asks in (bool, float, int, iter):
        with pytest.raises(TypeError, match="formula|coordinate"):
            asks(x)


def test_entries_are_read_off_a_product():
    """Three coordinates, two motions and the time: each entry in its place."""
    rows = [["1 + x*y", "t"], ["0", "sin(z)/4"], ["x - 2*t*z", "y"]]
    found = classes.symbolic_entries(st.SDE(["-x", "-y", "-z"], rows, variables="x y z"))
    x, y, z = (sp.Symbol(f"y{i}", real=True) for i in range(3))
    right = sp.Matrix([[1 + x * y, S], [0, sp.sin(z) / 4], [x - 2 * S * z, y]])
    assert sp.simplify(found - right) == sp.zeros(3, 2)


def test_points_of_many_sizes_and_signs():
    points = classes.points_near(2, [5.0, -0.4])
    near = points[:, 6 * len(classes.SIZES) :][:, :8]
    for size, block in zip(classes.SIZES, np.split(points[:, : 6 * len(classes.SIZES)], len(classes.SIZES), axis=1), strict=True):
        assert (block < 0).any() and (block > 0).any() and 0.2 * size < np.abs(block).max() < 4 * size
    assert (np.abs(near / [[5.0], [-0.4]] - 1) < 0.31).all() and (near[0] > 5).any() and (near[0] < 5).any()
    assert (points[:, -6:] > 0).all()


def matrices(b, points):
    """b at points `(dim, n)`, `(dim, motions, n)`, and its slopes by SymPy, `(dim, motions, coordinates, n)`."""
    rows = [[[float(e.subs({X: x, Y: y})) for x, y in points.T] for e in row] for row in b.tolist()]
    slopes = [[[[float(e.diff(v).subs({X: x, Y: y})) for x, y in points.T] for v in (X, Y)] for e in row] for row in b.tolist()]
    return np.array(rows), np.array(slopes)


POINTS = np.array([[0.3, -1.1, 2.0], [0.7, 0.4, -0.6]])
LINEAR = sp.Matrix([[2 * X + Y, X + 3 * Y], [X - Y, Y - 2 * X]])
SQUARES = sp.Matrix([[2 * X + Y, 5 * X + Y], [X - Y, X + 2 * Y]])  # the second column is the first one's matrix, squared


@pytest.mark.parametrize(
    ("b", "diagonal", "commute"),
    [
        (sp.Matrix([[X**2 + 1, 0], [0, 3 + sp.sin(Y)]]), True, True),
        (sp.Matrix([[X**2 + 1, 0], [0, 3 + sp.sin(X)]]), False, False),
        (sp.Matrix([[X**2 + 1, 0], [X / 1000, 3 + sp.sin(Y)]]), False, False),
        (sp.Matrix([[X, 2 * X], [Y, 2 * Y]]), False, True),
        (SQUARES, False, True),
        (SQUARES + sp.Matrix([[0, X / 1000], [0, 0]]), False, False),
        (LINEAR, False, False),
    ],
)
def test_values_and_slopes_tell_the_class(b, diagonal, commute):
    values, slopes = matrices(b, POINTS)
    assert classes._off_diagonal(values, slopes).any() != diagonal
    assert classes._not_commuting(values, slopes).any() != commute
    assert classes._off_diagonal(values, slopes).all() != diagonal


def test_a_matrix_with_more_rows_than_motions_is_not_diagonal():
    assert classes._off_diagonal(np.ones((3, 2, 4)), np.zeros((3, 2, 3, 4))).tolist() == [True] * 4


@pytest.mark.parametrize(
    ("b", "commute"),
    [
        (SQUARES, True),
        (SQUARES + sp.Matrix([[0, X / 10**6], [0, 0]]), False),
        # one column twice, the second time in other words, so that only numbers tell
        (sp.Matrix([[sp.sin(2 * X) + Y, 4 * sp.sin(X) * sp.cos(X) + 2 * Y], [Y * X, 2 * X * Y]]), True),
        (sp.Matrix([[sp.sin(2 * X) + Y, 4 * sp.sin(X) * sp.cos(X) + 2 * Y], [Y * X + S, 2 * X * Y + 2 * S]]), True),
        (sp.Matrix([[sp.sin(2 * X) + Y, 4 * sp.sin(X) * sp.cos(X) + 2 * Y + X / 10**6], [Y * X, 2 * X * Y]]), False),
        (sp.Matrix([[1, X], [0, -X]]), False),  # the two components of what is left cancel
        (sp.Matrix([[1, 0], [0, (X - sp.Rational(2, 5)) ** 2]]), False),  # they commute where x = 2/5
        (sp.Matrix([[0, X], [1, 1 + X * Y]]), False),
        (sp.Matrix([[X, X * abs(Y)], [0, 0]]), True),
        (sp.Matrix([[X, sp.Max(X, 5)], [0, 0]]), False),  # written out they differ, and a kink has no proof by numbers
    ],
)
def test_commuting_is_proven_or_seen_at_many_points(b, commute):
    assert classes._commutes(b, [X, Y]) == commute


def black(rows):
    """An SDE in two coordinates whose diffusion cannot be called with symbols."""

    def b(x):
        assert np.asarray(x).dtype != object
        return rows(x)

    return st.SDE(lambda x: [-x[0], -x[1]], b, dim=2)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("additive", lambda x: [[3.0 + 0 * x[0], 0.2], [0.7, 1.0]]),
        ("scalar", lambda x: [[x[0] * x[1]], [np.sin(x[0])]]),
        ("diagonal", lambda x: [[2 + x[0] ** 2, 0 * x[0]], [0 * x[0], np.exp(-(x[1] ** 2)) + 1]]),
        # d/du and exp(v) d/dv in u = x, v = y + sin(50 x) / 50, where one-sided differences are too coarse
        ("commutative", lambda x: [[1 + 0 * x[0], 0], [-np.cos(50 * x[0]), np.exp(x[1] + np.sin(50 * x[0]) / 50)]]),
        ("commutative", lambda x: [[2 * x[0] + x[1], 5 * x[0] + x[1]], [x[0] - x[1], x[0] + 2 * x[1]]]),
    ],
)
def test_what_a_function_is_declared_to_be_is_believed_where_it_is_so(kind, rows):
    """And no narrower class is: the witness is a point where the class is not."""
    one = black(rows)
    points = np.random.default_rng(8).uniform(0.5, 2.0, (2, 5))
    narrow = {"additive": "none", "scalar": "additive", "diagonal": "additive", "commutative": "diagonal"}[kind]
    assert one.noise_class == ("scalar" if kind == "scalar" else "general")
    assert classes.witness(one, kind, points) is None
    assert classes.witness(one, narrow, points).tolist() in points.T.tolist()


def test_the_witness_is_the_point_where_the_class_fails():
    """A diffusion that is additive, diagonal and commutative but for x > 2, and is not finite at x < 0: those points count for nothing."""
    one = black(lambda x: [[np.where(x[0] < 0, np.nan, 1.0), 0 * x[0]], [0 * x[0], 1.0 + np.maximum(x[0] - 2, 0.0)]])
    points = np.array([[-1.0, 0.5, 1.5, 2.5], [0.3, 0.4, 0.5, 0.6]])
    for kind in ("additive", "diagonal", "commutative"):
        assert classes.witness(one, kind, points).tolist() == [2.5, 0.6]
        assert classes.witness(one, kind, points[:, :3]) is None
        assert classes.witness(one, kind, points[:, :1]) is None
    assert classes.witness(one, "none", points).tolist() == [0.5, 0.4]
    assert classes.witness(one, "scalar", points).tolist() == [-1.0, 0.3]


def test_a_run_is_checked_at_its_outermost_paths():
    """One path of 40 has left for x = 3, one for y = -3; the others are where the class holds."""
    one = st.SDE(
        lambda x: [-x[0], -x[1]],
        lambda x: [[1.0 + np.maximum(x[0] - 2, 0) + np.maximum(-x[1] - 2, 0)], [1.0 + 0 * x[0]]],
        dim=2,
        noise="general",
    )
    one.noise_class = "additive"
    inside = np.random.default_rng(3).uniform(-1, 1, (2, 40))
    classes.hold(one, inside, None, ())
    classes.hold(one, np.full((2, 3), np.nan), None, ())
    for i, away in ((0, 3.0), (1, -3.0)):
        one_left = inside.copy()
        one_left[i, 27] = away
        one_left[1 - i, 30] = np.nan
        with pytest.raises(ValueError, match="must be additive, as it is declared"):
            classes.hold(one, one_left, None, ())


# -- the class that an SDE is given ----------------------------------------------------------------------------------------------

CLASSES = {
    "none": [None],
    "additive": [[[1.0, 0.2], [0.0, 1.0]], [["1 + 0*x", "t"], ["0", "sin(y)**2 + cos(y)**2"]], lambda x: [[0.5, 0.1], [0, 2]]],
    "scalar": [[["x"], ["y"]], [["1 + max(x - 5, 0)"], ["1"]], [["1 + abs(x - 1e6) + x"], ["0"]], [["sign(x - 40)"], ["1"]]],
    "diagonal": [
        ["x", "1 + y**2"],
        ["1 + max(x - 5, 0)", "1"],
        lambda x: [[np.exp(x[0]), 0], [0, 1.0]],
        lambda x: [[st.select(x[0] > 50, 1.0, 2.0), 0], [0, 1.0]],
    ],
    "commutative": [
        [["x", "2*x"], ["y", "2*y"]],
        [["0.1*sin(x*y)", "0.3*sin(x*y)"], ["y", "3*y"]],
        [["abs(x)", "2*abs(x)"], ["0", "0"]],
        [["0", "0"], ["1 + x**2", "cos(x)"]],
        lambda x: [[x[0], 2 * x[0]], [x[1], 2 * x[1]]],
    ],
    "general": [
        [["x", "y"], ["0", "1"]],
        [["1", "0"], ["max(x - 5, 0)", "1 + max(y - 50, 0)"]],
        [["1", "0"], ["0", "1 + max(x - 500, 0)"]],
        lambda x: [[1.0 + np.maximum(x[0], 5.0), 0], [0, 1.0]],  # cannot be called with symbols
    ],
}


@pytest.mark.parametrize(("kind", "diffusion"), [(kind, diffusion) for kind, many in CLASSES.items() for diffusion in many])
def test_classes_of_noise(kind, diffusion):
    """The formula decides, wherever its kinks and jumps lie."""
    how = {"drift": lambda x: [-x[0], -x[1]], "dim": 2} if callable(diffusion) else {"drift": ["-x", "-y"], "variables": "x y"}
    sde = st.SDE(diffusion=diffusion, **how)
    assert sde.noise_class == kind and not sde.presumed
    assert st.SDE(diffusion=diffusion, noise="general", **how).noise_class == "general"


@pytest.mark.parametrize(("kind", "root"), [("general", "x"), ("additive", "2")])
def test_classes_of_limits(kind, root):
    noise = st.noise.gaussian(root=[["1", "0", "0"], ["0", root, "0"], ["0", "0", root]], variables="x y z")
    oracle = st.NoisyOracle(st.losses.quadratic(np.eye(3)), noise, sigma=10.0)
    assert st.LimitSDE(oracle, st.schedules.constant(0.01, 0.9)).noise_class == kind
    assert st.KineticSDE(oracle, st.schedules.constant(0.01, 0.9)).noise_class == {"general": "commutative"}.get(kind, kind)


def kink_at(place):
    """A diffusion that cannot be called with symbols, and is additive up to `place`."""
    return {"drift": lambda x: [1.0 + 0 * x[0]], "diffusion": lambda x: [[0.1 + np.maximum(x[0] - place, 0.0)]], "dim": 1}


def test_a_declared_class_is_checked_before_and_along_the_run():
    with pytest.raises(ValueError, match="additive"):
        st.SRA1(st.SDE(**kink_at(5.0)), 0.1)
    with pytest.raises(ValueError, match=r"wide enough.*not additive at x="):
        st.SDE(**kink_at(5.0), noise="additive")
    hidden = st.SDE(**kink_at(1e12), noise="additive")
    assert hidden.presumed
    for cls in (st.SRA1, st.EulerMaruyama):
        run = {"horizon": 1.0, "paths": 64, "observe": ["x0"], "times": [1.0]}
        st.simulate(cls(hidden, 0.25), [0.0], **run)  # it stays below
        with pytest.raises(ValueError, match="the diffusion must be additive, as it is declared; the run came to x="):
            st.simulate(cls(hidden, 0.25), [1e12], **run)
    with pytest.raises(ValueError, match="numpy"):
        st.simulate(st.SRA1(hidden, 0.25), [0.0], backend="numba", **run)


@pytest.mark.parametrize("noise", ["none", "additive", "scalar", "diagonal", "commutative"])
def test_a_class_that_a_function_does_not_have_is_refused(noise):
    """A function that cannot be called with symbols, with two motions that do not commute where x > 0."""
    with pytest.raises(ValueError, match=f"noise='{noise}' for a diffusion that is not {noise} at x="):
        st.SDE(lambda x: [x[0], x[1]], lambda x: [[np.maximum(x[0], 0.0), 1.0], [1.0, 0 * x[0]]], dim=2, noise=noise)


@pytest.mark.parametrize("noise", ["diagonal", "commutative"])
def test_milstein_checks_along_the_run_what_it_is_told(noise):
    """b_1 = (1 + max(y - 1e12, 0), 0) and b_2 = (0, 1) commute up to y = 1e12."""
    one = st.SDE(
        lambda x: [1.0 + 0 * x[0], 1.0 + 0 * x[1]],
        lambda x: [[1.0 + np.maximum(x[1] - 1e12, 0.0), 0 * x[0]], [0 * x[0], 1.0 + 0 * x[1]]],
        dim=2,
        noise=noise,
    )
    run = {"horizon": 1.0, "paths": 64, "observe": ["x0"], "times": [1.0]}
    st.simulate(st.Milstein(one, 0.25), [0.0, 0.0], **run)
    with pytest.raises(ValueError, match=f"must be {noise}, as it is declared"):
        st.simulate(st.Milstein(one, 0.25), [0.0, 1e12], **run)


# -- the parts of an SDE ---------------------------------------------------------------------------------------------------------


def test_fields_of_every_kind_are_their_formulas():
    """Texts, functions, functions of time and matrices: drift, diffusion times draws, at numbers and on rows of paths."""
    x, u, t = np.array([[0.7, -0.2], [0.3, 1.1]]), [np.array([0.5, -1.2]), np.array([0.8, 0.1])], 0.6
    given = {
        "texts": (
            (["c*y - t*x", "x**2"], [["x", "s*t"], ["0.5", "y"]]),
            {"parameters": {"c": 0.4, "s": 1.3}, "variables": "x y"},
        ),
        "functions": (
            (lambda x, t: [0.4 * x[1] - t * x[0], x[0] ** 2], lambda x, t: [[x[0], 1.3 * t], [0.5, x[1]]]),
            {"dim": 2},
        ),
    }
    for make, more in given.values():
        one = st.SDE(*make, **more)
        np.testing.assert_array_equal(one.signal_values(np.array([0.5, 1.5]), 0.75, 0.2), [[0.65], [1.65]])
        np.testing.assert_allclose(one.drift(x, None, [t]), [0.4 * x[1] - t * x[0], x[0] ** 2], rtol=1e-14)
        np.testing.assert_allclose(
            one.diffusion(x, u, None, [t]), [x[0] * u[0] + 1.3 * t * u[1], 0.5 * u[0] + x[1] * u[1]], rtol=1e-14
        )
    still = st.SDE(lambda x: [x[1], -x[0]], lambda x: [[x[0], 2.0, x[1]], [0.5, x[1], 1.0]], dim=2)
    assert still.signal_values(np.array([0.5, 1.5]), 0.75, 0.2).shape == (2, 0) and still.noise_dim == 3
    np.testing.assert_allclose(
        still.diffusion(x, [*u, 3.0]), [x[0] * u[0] + 2 * u[1] + 3 * x[1], 0.5 * u[0] + x[1] * u[1] + 3.0], rtol=1e-14
    )
    plain = st.SDE(["y", "-x"], np.array([[0.2], [0.7]]), variables="x y")
    np.testing.assert_allclose(plain.diffusion(x, u[:1]), [0.2 * u[0], 0.7 * u[0]], rtol=1e-14)
    bare = st.SDE(["y", "-x"], variables="x y")
    np.testing.assert_array_equal(bare.diffusion(x, []), np.zeros((2, 2)))
