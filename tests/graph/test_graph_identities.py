"""Proofs about formulas: dependence per element, identities, and formulas that only look like identities at random points."""

from __future__ import annotations

import numpy as np
import pytest

from sdetools.graph.calls import Call
from sdetools.graph.errors import TooLong
from sdetools.graph.identities import FEW, Examination
from sdetools.graph.value import Trace, apply, value

SIZES = np.repeat([0.3, 1.0, 3.0, 10.0, 1e3, 1e8], 6)


def examination(points=None):
    """Return three coordinates and their examination at points of many sizes."""
    x = Trace().input("x", (3,))
    if points is None:
        points = SIZES * np.random.default_rng(5).standard_normal((3, len(SIZES)))
    return x, Examination(x, points)


def proven(formula, points=None):
    x, look = examination(points)
    return bool(look.vanishes(value(formula(x))).all())


IDENTITIES = {
    "a difference": lambda x: (x[0] + x[1]) - x[1] - x[0],
    "a product": lambda x: (x[0] - x[1]) * (x[0] + x[1]) - (x[0] * x[0] - x[1] * x[1]),
    "a quotient": lambda x: x[0] / x[1] + x[1] / x[0] - (x[0] ** 2 + x[1] ** 2) / (x[0] * x[1]),
    "a zero over something": lambda x: (0.0 * x[0]) / x[1],
    "angles": lambda x: np.sin(x[0] + x[1]) - np.sin(x[0]) * np.cos(x[1]) - np.cos(x[0]) * np.sin(x[1]),
    "tan": lambda x: np.tan(x[0]) - np.sin(x[0]) / np.cos(x[0]),
    "exp": lambda x: np.exp(x[0] + x[1]) - np.exp(x[0]) * np.exp(x[1]),
    "expm1": lambda x: np.expm1(x[0]) - np.exp(x[0]) + 1.0,
    "hyperbolic": lambda x: np.sinh(x[0]) + np.cosh(x[0]) - np.exp(x[0]),
    "tanh": lambda x: np.tanh(x[0]) - np.sinh(x[0]) / np.cosh(x[0]),
    "a root": lambda x: np.sqrt(x[0]) * np.sqrt(x[0]) - x[0],
    "a logarithm": lambda x: np.log(x[0] * 4.0) - np.log(x[0]) - np.log(4.0),
    "log1p": lambda x: np.log1p(x[0]) - np.log(1.0 + x[0]),
    "a power": lambda x: x[0] ** 1.3 * x[0] ** 0.7 - x[0] * x[0],
    "a large power": lambda x: x[0] ** 40 - (x[0] ** 20) ** 2,
    "an odd power": lambda x: (x[0] - x[1]) ** 41 + (x[1] - x[0]) ** 41,
    "a root of what is positive": lambda x: np.sqrt(1 + x[0] ** 2) ** 2 - 1 - x[0] ** 2,
    "a logarithm of what is positive": lambda x: np.log((1 + np.exp(x[0])) ** 2) - 2 * np.log(1 + np.exp(x[0])),
    "arcsin": lambda x: np.arcsin(x[0] / 8) + np.arccos(x[0] / 8) - np.pi / 2,
    "arctan": lambda x: np.tan(np.arctan(x[0])) - x[0],
    "sums and products of arrays": lambda x: np.sum(np.outer(x, x)) - np.sum(x) ** 2,
    "a matrix": lambda x: np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 4.0]]) @ (x * x) - np.stack([x[0] ** 2 + 2 * x[1] ** 2, x[1] ** 2 + 4 * x[2] ** 2]),
    "joined parts": lambda x: np.concatenate([x[1:] * 2.0, x[:1] * 2.0]) - 2.0 * np.roll(x, -1),
    "one branch": lambda x: np.where(x[0] > 0, x[1], x[1]) - x[1],
    "a domain": lambda x: np.where(x[0] > 0, x[1] * 0.0, np.nan) + np.where(x[1] > 2, np.nan, 0.0),
    "a choice of numbers": lambda x: np.where(x[0] > x[1], 2.0, 3.0) * x[2] - np.where(x[0] > x[1], 2.0 * x[2], 3.0 * x[2]),
    "both branches": lambda x: np.where(x[0] > 1, x[1], x[2]) + np.where(x[0] > 1, x[2], x[1]) - x[1] - x[2],
    "one kink": lambda x: (abs(x[0]) + x[1]) * (abs(x[0]) - x[1]) - abs(x[0]) * abs(x[0]) + x[1] ** 2,
    "one maximum": lambda x: np.maximum(x[0], x[1]) * x[2] - x[2] * np.maximum(x[0], x[1]),
    "one sign": lambda x: np.sign(3.0 * x[0]) - np.sign(x[0] / 2.0 + 0.0 * x[1]),
    "the largest": lambda x: np.max(x) * 2.0 - np.max(x) - np.max(x),
}  # fmt: skip


@pytest.mark.parametrize("name", IDENTITIES)
def test_an_identity_is_proven_and_a_perturbed_one_is_not(name):
    formula = IDENTITIES[name]
    assert proven(formula)
    assert not proven(lambda x: formula(x) + 1e-6 * x[0] * x[2])


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: np.sqrt((x[0] - 1e9) ** 2) + (x[0] - 1e9),  # zero only below 1e9
        lambda x: np.sqrt((x[0] * x[0] - 2e9 * x[0] + 1e18) / x[1] ** 2) * abs(x[1]) + x[0] - 1e9,
        lambda x: abs(x[0] - 1e9) + (x[0] - 1e9),
        lambda x: np.maximum(x[0], 1e9) - 1e9,
        lambda x: np.where(x[0] < 1e9, 0.0, x[1]),
        lambda x: np.sign(x[0]) - np.sign(x[0] + 1e-15),
        lambda x: np.sign(x[0]) + np.sign(-x[0]),
        lambda x: np.sign(x[0]) - np.sign(0.0 * x[0]),
        lambda x: np.sign(x[0]) - np.sign(x[0] * x[1]),
        lambda x: np.floor(x[0] / 1e10) * np.floor(-x[0] / 1e10),
        lambda x: np.arctan(x[0] - 1e9) + np.arctan(1 / (x[0] - 1e9)) + np.pi / 2,
        lambda x: np.exp(-((x[0] - 50.0) ** 2)),  # 0 by underflow nearly everywhere
        lambda x: (x[1] + np.exp(-((x[0] - 50.0) ** 2))) - x[1],  # hidden by rounding of x1
        lambda x: (x[1] + np.exp(-((x[0] - 50.0) ** 2))) / x[2] - x[1] / x[2],
        lambda x: x[2] / (x[1] + np.exp(-((x[0] - 50.0) ** 2))) - x[2] / x[1],
        lambda x: np.where(x[2] > 0, x[1], x[1] + np.exp(-((x[0] - 50.0) ** 2))) - x[1],
        lambda x: np.sum(np.stack([x[1], np.exp(-((x[0] - 50.0) ** 2)), -x[1]])),
        lambda x: np.ones((1, 3)) @ np.stack([x[1], np.exp(-((x[0] - 50.0) ** 2)), -x[1]]),
        lambda x: np.sin(x[1] + 1e-14 * x[0] ** 2) - np.sin(x[1]),
    ],
)
def test_near_zero_formulas_are_not_taken_for_zero(formula):
    assert not proven(formula)


def test_few_finite_points_prove_nothing():
    points = np.random.default_rng(2).uniform(0.5, 2.0, (3, 20))
    points[0, FEW:] *= -1
    assert proven(lambda x: np.log(x[0]) - np.log(x[0] * 2.0) + np.log(2.0), points)
    points[0, FEW - 1 :] = -1.0
    assert not proven(lambda x: np.log(x[0]) - np.log(x[0] * 2.0) + np.log(2.0), points)


def stage(*given):
    raise AssertionError("not called")


@pytest.mark.parametrize(
    ("formula", "elements", "free"),
    [
        (lambda x: np.exp(x) * np.array([1.0, 0.0, 2.0]), [[0], [], [2]], []),
        (lambda x: x[::-1] + np.sum(x[:2]), [[0, 1, 2], [0, 1], [0, 1]], []),
        (lambda x: np.concatenate([x[1:], 0.0 * x[:1]]), [[1], [2], []], []),
        (lambda x: np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]) @ x, [[0, 2], []], []),
        (lambda x: np.outer(x[:2], x[1:]).T[0], [[0, 1], [1]], []),
        (lambda x: np.abs(x) + np.minimum(x[0], 2.0), [[0], [0, 1], [0, 2]], ["absolute", "minimum"]),
        (lambda x: np.stack([np.sign(x[2]) + x[1], np.floor(x[0])]), [[1, 2], [0]], ["sign", "floor"]),
        (lambda x: np.where(x[:2] > 0, x[1], 1.0), [[0, 1], [1]], ["where"]),
        (lambda x: np.stack([np.max(x[1:]), np.arctan(1 / x[0])]), [[1, 2], [0]], ["maximum", "arctan"]),
        (lambda x: Call(stage)([x[1:] * 2.0], (2,)) + x[:1], [[0, 1, 2]] * 2, [""]),
        (lambda x: np.where(np.zeros(3, dtype=bool), x, 1.0) + apply("where", x[0] < 0, x, np.nan), [[0], [1], [2]], []),
    ],
)
def test_structural_dependence_per_element(formula, elements, free):
    x, look = examination()
    assert [np.flatnonzero(row).tolist() for row in look.depends(value(formula(x)))] == elements
    assert [node.name for node, _ in look.free] == free


def test_slopes_of_formulas_with_kinks():
    """Equal kinks or jumps have the same free slope, different ones have different slopes."""
    x, look = examination()
    kink = np.maximum(x[0], x[1]) * np.where(x[2] > 1, x[0], np.arctan(1 / x[1]))
    twice, other = look.along(3.0 * kink, x) - 3.0 * look.along(kink, x), look.along(abs(x[0]) - abs(2.0 * x[1]) / 2.0, x)
    assert look.vanishes(twice) and not look.vanishes(other)
    assert look.vanishes(look.along(abs(x[0]) - abs(2.0 * x[0]) / 2.0, x))  # one kink, since sign(2 x) is sign(x)


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: np.where(x[0] > 1e9, 1.0, 2.0) * x[1],
        lambda x: np.sign(x[0]) + np.floor(x[1]),
        lambda x: np.arctan(x[0]) + np.arctan(1 / x[0]),
        lambda x: np.sqrt(x[0] ** 2) / x[0],
        lambda x: np.sign(x[0]) - np.sign(2.0 * x[0]),  # equal, but not by the slopes of two jumps
    ],
)
def test_a_jump_has_free_slopes_in_the_directions_that_it_depends_on(formula):
    x, look = examination()
    out = value(formula(x))
    for i, unit in enumerate(np.eye(3)):
        assert bool(look.vanishes(look.along(out, value(unit)))) != bool(look.depends(out)[i])


def test_too_large_a_formula_is_refused():
    x, look = examination()
    with pytest.raises(TooLong, match="numbers at each of 36 points"):
        look.vanishes(np.sum(np.tanh(np.outer(x, np.ones(100_000)))))
