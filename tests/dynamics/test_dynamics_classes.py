"""The class of noise: a gallery of diffusions, as expressions and as functions, and the two numerical checks of a class."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numba
import numpy as np
import pytest
import sympy as sp

import sdetools as st
from sdetools.dynamics.sdes import classes

X, Y = sp.Symbol("y0", real=True), sp.Symbol("y1", real=True)


def test_entries_of_a_diffusion_follow_from_its_product():
    """Each Brownian motion acts on one coordinate: one of the six orders of three columns is diagonal."""
    rows = [["1 + x**2", "0", "0"], ["0", "sin(y)/4", "0"], ["0", "0", "t*z"]]
    for order in itertools.permutations(range(3)):
        one = st.SDE(["-x", "-y", "-z"], [[row[j] for j in order] for row in rows], variables="x y z")
        assert one.noise_class == ("diagonal" if order == (0, 1, 2) else "commutative")
    wide = [["1 + x*y", "t"], ["0", "sin(z)/4"], ["x - 2*t*z", "y"]]
    assert st.SDE(["-x", "-y", "-z"], wide, variables="x y z").noise_class == "general"


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
SQUARES = sp.Matrix(
    [[2 * X + Y, 5 * X + Y], [X - Y, X + 2 * Y]]
)  # the matrix of the second column is the square of that of the first


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
def test_values_and_slopes_determine_the_class(b, diagonal, commute):
    values, slopes = matrices(b, POINTS)
    assert classes._is_not_diagonal(values, slopes).any() != diagonal
    assert classes._does_not_commute(values, slopes).any() != commute
    assert classes._is_not_diagonal(values, slopes).all() != diagonal


def test_a_matrix_with_more_rows_than_motions_is_not_diagonal():
    assert classes._is_not_diagonal(np.ones((3, 2, 4)), np.zeros((3, 2, 3, 4))).tolist() == [True] * 4


def sde_of(rows, **more):
    """Return an SDE in two coordinates from expressions in x, y and t, or from a function."""
    options = {"drift": lambda x: [-x[0], -x[1]], "dim": 2} if callable(rows) else {"drift": ["-x", "-y"], "variables": "x y"}
    return st.SDE(diffusion=rows, **options, **more)


def texts(b):
    return [[str(e).replace("y0", "x").replace("y1", "y") for e in row] for row in b.tolist()]


@pytest.mark.parametrize(
    ("b", "commute"),
    [
        (texts(SQUARES), True),
        (texts(SQUARES + sp.Matrix([[0, X / 10**6], [0, 0]])), False),
        # a column and an equivalent form of its double, equal only numerically
        ([["sin(2*x) + y", "4*sin(x)*cos(x) + 2*y"], ["y*x", "2*x*y"]], True),
        ([["sin(2*x) + y", "4*sin(x)*cos(x) + 2*y"], ["y*x + t", "2*x*y + 2*t"]], True),
        ([["sin(2*x) + y", "4*sin(x)*cos(x) + 2*y + x/10**6"], ["y*x", "2*x*y"]], False),
        ([["1", "x"], ["0", "-x"]], False),  # the two components of the commutator cancel
        ([["1", "0"], ["0", "(x - 2/5)**2"]], False),  # commutative only at x = 2/5
        ([["0", "x"], ["1", "1 + x*y"]], False),
        ([["x", "x*abs(y)"], ["0", "0"]], True),
        ([["x", "max(x, 5)"], ["0", "0"]], False),  # different kinks, which numbers cannot prove equal
    ],
)
def test_commutativity_is_proven_from_the_formula(b, commute):
    assert sde_of(b).noise_class == ("commutative" if commute else "general")


def untraceable(rows):
    """Return the same function in a form that cannot be traced."""
    return lambda x: rows(np.asarray(x, dtype=float))


def untraceable_sde(rows):
    """Return an SDE in two coordinates whose diffusion cannot be traced."""
    return sde_of(untraceable(rows))


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("additive", lambda x: [[3.0 + 0 * x[0], 0.2], [0.7, 1.0]]),
        ("scalar", lambda x: [[x[0] * x[1]], [np.sin(x[0])]]),
        ("diagonal", lambda x: [[2 + x[0] ** 2, 0 * x[0]], [0 * x[0], np.exp(-(x[1] ** 2)) + 1]]),
        # d/du and exp(v) d/dv in u = x, v = y + sin(50 x) / 50, for which one-sided differences are too inaccurate
        ("commutative", lambda x: [[1 + 0 * x[0], 0], [-np.cos(50 * x[0]), np.exp(x[1] + np.sin(50 * x[0]) / 50)]]),
        ("commutative", lambda x: [[2 * x[0] + x[1], 5 * x[0] + x[1]], [x[0] - x[1], x[0] + 2 * x[1]]]),
    ],
)
def test_a_correct_declaration_of_an_untraceable_function_is_accepted(kind, rows):
    """Narrower classes are rejected: the witness is a point at which they fail."""
    one = untraceable_sde(rows)
    points = np.random.default_rng(8).uniform(0.5, 2.0, (2, 5))
    narrow = {"additive": "none", "scalar": "additive", "diagonal": "additive", "commutative": "diagonal"}[kind]
    assert one.noise_class == ("scalar" if kind == "scalar" else "general")
    assert classes.witness(one, kind, points) is None
    assert classes.witness(one, narrow, points).tolist() in points.T.tolist()


def test_the_witness_is_the_point_where_the_class_fails():
    """A diffusion that is additive, diagonal and commutative except for x > 2; at x < 0 it is not finite, and these points are ignored."""
    one = untraceable_sde(lambda x: [[np.where(x[0] < 0, np.nan, 1.0), 0 * x[0]], [0 * x[0], 1.0 + np.maximum(x[0] - 2, 0.0)]])
    points = np.array([[-1.0, 0.5, 1.5, 2.5], [0.3, 0.4, 0.5, 0.6]])
    for kind in ("additive", "diagonal", "commutative"):
        assert classes.witness(one, kind, points).tolist() == [2.5, 0.6]
        assert classes.witness(one, kind, points[:, :3]) is None
        assert classes.witness(one, kind, points[:, :1]) is None
    assert classes.witness(one, "none", points).tolist() == [0.5, 0.4]
    assert classes.witness(one, "scalar", points).tolist() == [-1.0, 0.3]


def test_a_run_is_checked_at_its_outermost_paths():
    """One of 40 paths is at x = 3 or at y = -3; the class holds at the others."""
    one = st.SDE(
        lambda x: [-x[0], -x[1]],
        lambda x: [[1.0 + np.maximum(x[0] - 2, 0) + np.maximum(-x[1] - 2, 0)], [1.0 + 0 * x[0]]],
        dim=2,
        noise="general",
    )
    one.noise_class = "additive"
    inside = np.random.default_rng(3).uniform(-1, 1, (2, 40))
    classes.check_class_along_run(one, inside, None, ())
    classes.check_class_along_run(one, np.full((2, 3), np.nan), None, ())
    for i, away in ((0, 3.0), (1, -3.0)):
        one_left = inside.copy()
        one_left[i, 27] = away
        one_left[1 - i, 30] = np.nan
        with pytest.raises(ValueError, match="must be additive, as it is declared"):
            classes.check_class_along_run(one, one_left, None, ())


# -- the class of an SDE ----------------------------------------------------------------------------------------------

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
        untraceable(lambda x: [[1.0 + np.maximum(x[0], 5.0), 0], [0, 1.0]]),
    ],
}


@pytest.mark.parametrize(("kind", "diffusion"), [(kind, diffusion) for kind, many in CLASSES.items() for diffusion in many])
def test_classes_of_noise(kind, diffusion):
    """The class follows from the formula, wherever its kinks and jumps are."""
    sde = sde_of(diffusion)
    assert sde.noise_class == kind and not sde.presumed
    assert sde_of(diffusion, noise="general").noise_class == "general"


@numba.njit
def _wave(a):
    return np.sin(a)


GALLERY = {
    "disguised constants": (
        "additive",
        [["x - x + 1", "0*y"], ["t", "sin(x)**2 + cos(x)**2"]],
        lambda x, t: [[x[0] - x[0] + 1.0, 0 * x[1]], [t, np.sin(x[0]) ** 2 + np.cos(x[0]) ** 2]],
    ),
    "a constant on its domain": (
        "additive",
        [["exp(log(x))/x", "0"], ["0", "1"]],
        lambda x: [[np.exp(np.log(x[0])) / x[0], 0], [0, np.where(x[1] > 0, 1.0, np.nan)]],
    ),
    "a tower that overflows": (
        "additive",
        [["exp(exp(x))*exp(-exp(x))", "0"], ["0", "1"]],
        lambda x: [[np.exp(np.exp(x[0])) * np.exp(-np.exp(x[0])), 0], [0, 1.0]],
    ),
    "a bump": ("scalar", [["1 + exp(-(x - 50)**2)"], ["1"]], lambda x: [[1 + np.exp(-((x[0] - 50) ** 2))], [1.0]]),
    "two constants": (
        "scalar",
        [["atan(x - 1e9) + atan(1/(x - 1e9))"], ["0"]],
        lambda x: [[np.arctan(x[0]) + np.arctan(1 / x[0])], [0]],
    ),
    "a disguised sign": (
        "scalar",
        [["sign(x - 1e9)"], ["1"]],
        lambda x: [[np.sqrt((x[0] - 1e9) ** 2) / (x[0] - 1e9)], [1.0]],
    ),
    "a staircase": ("scalar", None, lambda x: [[np.floor(x[0] / 1e9)], [1.0]]),
    "abs": ("diagonal", ["abs(x)", "sqrt(abs(y))"], lambda x: [[abs(x[0]), 0], [0, np.sqrt(np.abs(x[1]))]]),
    "kinks": (
        "diagonal",
        ["1 + max(x - 5, 0)", "min(y, t)"],
        lambda x: [[np.where(x[0] > 5, x[0] - 4, 1.0), 0], [0, np.clip(x[1], 0.0, 1.0)]],
    ),
    "zeros that contain x": (
        "diagonal",
        [["x + y - y", "x*y - y*x"], ["0*x", "2 + sin(y)"]],
        lambda x: [[x[0] + x[1] - x[1], x[0] * x[1] - x[1] * x[0]], [0 * x[0], 2 + np.sin(x[1])]],
    ),
    "arrays": ("diagonal", None, lambda x: np.diag(np.exp(x) + np.ones((2, 2)) @ np.zeros(2))),
    "one matrix, two motions": (
        "commutative",
        [["x + 3*y", "2*x + 6*y"], ["x*y", "2*x*y"]],
        lambda x: np.stack([x[0] + 3 * x[1], x[0] * x[1]])[:, None] * np.array([1.0, 2.0]),
    ),
    # d/du and exp(v) d/dv in u = x, v = y + sin(x)
    "terms that cancel": (
        "commutative",
        [["1", "0"], ["-cos(x)", "exp(y + sin(x))"]],
        lambda x: [[1.0, 0], [-np.cos(x[0]), np.exp(x[1] + np.sin(x[0]))]],
    ),
    "sums of angles": (
        "commutative",
        [["sin(x + y)", "sin(x)*cos(y) + cos(x)*sin(y)"], ["x", "x"]],
        lambda x: [[np.sin(x[0] + x[1]), np.sin(x[0]) * np.cos(x[1]) + np.cos(x[0]) * np.sin(x[1])], [x[0], x[0]]],
    ),
    "one kink twice": (
        "commutative",
        [["x*max(x, y)", "2*x*max(x, y)"], ["sqrt(x*y)", "2*sqrt(x*y)"]],
        lambda x: [[np.maximum(x[0], x[1]), 2 * np.maximum(x[0], x[1])], [abs(x[1]), 2 * abs(x[1])]],
    ),
    "one jump twice": (
        "commutative",
        [["sign(x)", "2*sign(x)"], ["atan(x/y)", "2*atan(x/y)"]],
        lambda x: [[np.floor(x[0]), 2 * np.floor(x[0])], [np.sqrt(x[0] ** 2 + x[1] ** 2), 2 * np.sqrt(x[0] ** 2 + x[1] ** 2)]],
    ),
    "a jump across which nothing moves": (
        "commutative",
        [["x", "2*x*sign(y)"], ["0", "0"]],
        lambda x: [[x[0], np.where(x[1] > 1, x[0], 2 * x[0])], [0, 0]],
    ),
    "a jump": (
        "general",
        [["1", "0"], ["0", "2 + sign(x)"]],
        lambda x: [[1.0, 0], [0, np.where(x[0] > 500, 1.0, 2.0)]],
    ),
    "stairs": ("general", None, lambda x: [[1.0, 0], [0, 2 + np.sign(x[0]) + np.floor(x[0])]]),
    "arctangents": ("general", None, lambda x: [[1.0, 0], [0, np.arctan(x[0]) + np.arctan(1 / x[0])]]),
    "roots of a half space": (
        "commutative",
        [["sqrt(x + 2)", "3*sqrt(x + 2)"], ["log(x)/(1 + y**2)", "3*log(x)/(1 + y**2)"]],
        lambda x: [[np.sqrt(x[0] + 2), 3 * np.sqrt(x[0] + 2)], [np.log(x[0]), 3 * np.log(x[0])]],
    ),
    "the area of Levy": ("general", [["1", "0"], ["0", "x"]], lambda x: [[1.0, 0], [0, x[0]]]),
    "a term that rounding hides": (
        "general",
        [["1", "0"], ["0", "1 + exp(-(x - 50)**2)"]],
        lambda x: [[1.0, 0], [0, 1 + np.exp(-((x[0] - 50) ** 2))]],
    ),
    "a root of two signs": (
        "general",
        [["1", "0"], ["0", "x - 1e9 - abs(x - 1e9)"]],
        lambda x: [[1.0, 0], [0, 1e9 - x[0] - np.sqrt((x[0] - 1e9) ** 2)]],
    ),
    "a domain between all points": (
        "general",
        [["x", "2*x"], ["log(y - 0.699)*log(0.701 - y)", "2*log(y - 0.699)*log(0.701 - y)"]],
        lambda x: [
            [x[0], 2 * x[0]],
            [np.log(x[1] - 0.699) * np.log(0.701 - x[1]), 2 * np.log(x[1] - 0.699) * np.log(0.701 - x[1])],
        ],
    ),
    "a branch": ("general", None, lambda x: [[x[0], 0], [0, 1.0 if x[1] < 5 else 2.0]]),
    "a compiled function": ("general", None, lambda x: [[_wave(x[0]), 0], [0, 1.0]]),
}


@pytest.mark.parametrize(
    ("kind", "rows"),
    [pytest.param(kind, rows, id=f"{name}, {form}") for name, (kind, text, function) in GALLERY.items()
     for form, rows in (("text", text), ("function", function)) if rows is not None],
)  # fmt: skip
def test_a_gallery_of_diffusions(kind, rows):
    """Only proven classes are reported: beyond kinks, jumps, overflow and rounding, numbers alone suggest narrower classes."""
    assert sde_of(rows).noise_class == kind


def test_a_class_is_checked_near_the_given_point():
    """A logarithm with a domain beyond 1e4 is finite only near `at`; a coordinate 0 still gets points of both signs."""
    rows = [["x", "2*x"], ["log(y - 1e4)", "2*log(y - 1e4)"]]
    assert sde_of(rows, at=[0.0, 3e4]).noise_class == "commutative"
    points = classes.points_near(2, [0.0, 3e4])[:, 6 * len(classes.SIZES) :][:, :8]
    assert (points[0] < 0).any() and (points[0] > 0).any()


def test_functions_are_classified_without_sympy():
    text = """
import sys
import sdetools as st
one = st.SDE(lambda x: [-x[0], -x[1]], lambda x: [[x[0], 2*x[0]], [x[1], 2*x[1]]], dim=2)
print(one.noise_class, "sympy" in sys.modules)
"""
    output = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["commutative", "False"]


def test_with_kinks_only_commutativity_can_be_declared():
    """A declared class that contradicts the structure of the formula is an error; commutativity is accepted and checked."""
    kinked = [["1 + max(x - 1e12, 0)", "1"], ["0", "1 + max(y - 1e12, 0)"]]
    assert sde_of(kinked, noise="commutative").presumed
    for noise in ("additive", "diagonal"):
        with pytest.raises(ValueError, match=f"noise='{noise}' for a diffusion that is general"):
            sde_of(kinked, noise=noise)


@pytest.mark.parametrize(("kind", "root"), [("general", "x"), ("additive", "2")])
def test_classes_of_limits(kind, root):
    noise = st.noise.gaussian(root=[["1", "0", "0"], ["0", root, "0"], ["0", "0", root]], variables="x y z")
    oracle = st.NoisyOracle(st.losses.quadratic(np.eye(3)), noise, sigma=10.0)
    assert st.LimitSDE(oracle, st.schedules.constant(0.01, 0.9)).noise_class == kind
    assert st.KineticSDE(oracle, st.schedules.constant(0.01, 0.9)).noise_class == {"general": "commutative"}.get(kind, kind)


def kink_at(place):
    """Return an SDE whose diffusion cannot be traced and is additive up to `place`."""
    diffusion = untraceable(lambda x: [[0.1 + np.maximum(x[0] - place, 0.0)]])
    return {"drift": lambda x: [1.0 + 0 * x[0]], "diffusion": diffusion, "dim": 1}


def test_a_declared_class_is_checked_before_and_along_the_run():
    with pytest.raises(ValueError, match="additive"):
        st.SRA1(st.SDE(**kink_at(5.0)), 0.1)
    with pytest.raises(ValueError, match=r"wide enough.*not additive at x="):
        st.SDE(**kink_at(5.0), noise="additive")
    hidden = st.SDE(**kink_at(1e12), noise="additive")
    assert hidden.presumed
    for cls in (st.SRA1, st.EulerMaruyama):
        run = {"horizon": 1.0, "paths": 64, "observe": ["x0"], "times": [1.0]}
        st.simulate(cls(hidden, 0.25), [0.0], **run)  # no path reaches the kink
        with pytest.raises(ValueError, match="the diffusion must be additive, as it is declared; the run reached x="):
            st.simulate(cls(hidden, 0.25), [1e12], **run)
    with pytest.raises(ValueError, match="numpy"):
        st.simulate(st.SRA1(hidden, 0.25), [0.0], backend="numba", **run)


@pytest.mark.parametrize("noise", ["none", "additive", "scalar", "diagonal", "commutative"])
def test_a_wrong_declaration_raises_value_error(noise):
    """A function that cannot be traced, with two columns that do not commute where x > 0."""
    with pytest.raises(ValueError, match=f"noise='{noise}' for a diffusion that is not {noise} at x="):
        sde_of(untraceable(lambda x: [[np.maximum(x[0], 0.0), 1.0], [1.0, 0 * x[0]]]), noise=noise)


@pytest.mark.parametrize("noise", ["diagonal", "commutative"])
def test_milstein_checks_a_declared_class_along_the_run(noise):
    """b_1 = (1 + max(y - 1e12, 0), 0) and b_2 = (0, 1) commute for y < 1e12."""
    one = st.SDE(
        lambda x: [1.0 + 0 * x[0], 1.0 + 0 * x[1]],
        untraceable(lambda x: [[1.0 + np.maximum(x[1] - 1e12, 0.0), 0 * x[0]], [0 * x[0], 1.0 + 0 * x[1]]]),
        dim=2,
        noise=noise,
    )
    run = {"horizon": 1.0, "paths": 64, "observe": ["x0"], "times": [1.0]}
    st.simulate(st.Milstein(one, 0.25), [0.0, 0.0], **run)
    with pytest.raises(ValueError, match=f"must be {noise}, as it is declared"):
        st.simulate(st.Milstein(one, 0.25), [0.0, 1e12], **run)


# -- the parts of an SDE ---------------------------------------------------------------------------------------------------------


def test_drift_and_diffusion_of_every_input_form_equal_their_formulas():
    """Expressions, functions, functions of time and matrices: drift, and diffusion times draws, on many paths."""
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
    autonomous = st.SDE(lambda x: [x[1], -x[0]], lambda x: [[x[0], 2.0, x[1]], [0.5, x[1], 1.0]], dim=2)
    assert autonomous.signal_values(np.array([0.5, 1.5]), 0.75, 0.2).shape == (2, 0) and autonomous.noise_dim == 3
    np.testing.assert_allclose(
        autonomous.diffusion(x, [*u, 3.0]), [x[0] * u[0] + 2 * u[1] + 3 * x[1], 0.5 * u[0] + x[1] * u[1] + 3.0], rtol=1e-14
    )
    plain = st.SDE(["y", "-x"], np.array([[0.2], [0.7]]), variables="x y")
    np.testing.assert_allclose(plain.diffusion(x, u[:1]), [0.2 * u[0], 0.7 * u[0]], rtol=1e-14)
    bare = st.SDE(["y", "-x"], variables="x y")
    np.testing.assert_array_equal(bare.diffusion(x, []), np.zeros((2, 2)))
