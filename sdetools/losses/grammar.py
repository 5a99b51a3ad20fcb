"""The functions, comparisons and constants of formulas: their names, their meaning for SymPy and for floats, and names of other libraries."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

import sympy as sp

from sdetools.losses.kinks import (
    Above,
    AtLeast,
    Domain,
    Floor,
    Magnitude,
    NotNegative,
    Positive,
    SameNumber,
    SignFunction,
    UnitStep,
    ceiling,
    largest,
    smallest,
)

MOST_FACTORS = 100
"""The largest number of factors in a product, and of arguments of max and min."""
# text -> (least and largest number of arguments, SymPy function, function of floats)
FUNCTIONS: dict[str, tuple[int, int, Callable, Callable]] = {
    "exp": (1, 1, sp.exp, math.exp),
    "log": (1, 1, sp.log, math.log),
    "sqrt": (1, 1, sp.sqrt, math.sqrt),
    "sin": (1, 1, sp.sin, math.sin),
    "cos": (1, 1, sp.cos, math.cos),
    "tan": (1, 1, sp.tan, math.tan),
    "sinh": (1, 1, sp.sinh, math.sinh),
    "cosh": (1, 1, sp.cosh, math.cosh),
    "tanh": (1, 1, sp.tanh, math.tanh),
    "atan": (1, 1, sp.atan, math.atan),
    "erf": (1, 1, sp.erf, math.erf),
    "abs": (1, 1, Magnitude, abs),
    "sign": (1, 1, SignFunction, lambda u: float((u > 0) - (u < 0))),
    "floor": (1, 1, Floor, lambda u: float(math.floor(u))),
    "ceiling": (1, 1, ceiling, lambda u: float(math.ceil(u))),
    "max": (2, MOST_FACTORS, largest, max),
    "min": (2, MOST_FACTORS, smallest, min),
    "Heaviside": (1, 2, lambda u, h=sp.S.Half: UnitStep(u, h), lambda u, h=0.5: float(u > 0) if u else h),
}
NAMED = sorted([*FUNCTIONS, "Piecewise"], key=str.lower)
"""The names of the functions for messages, without their other spellings."""
FUNCTIONS |= {name: FUNCTIONS[name.lower()] for name in ("Abs", "Max", "Min")} | {"ceil": FUNCTIONS["ceiling"]}
ELSEWHERE = {
    "arctan": "atan", "maximum": "max", "minimum": "min", "fabs": "abs", "absolute": "abs", "heaviside": "Heaviside", "ln": "log",
    "where": "Piecewise", "piecewise": "Piecewise", "Floor": "floor", "Sign": "sign", "pow": "**", "square": "**",
}  # fmt: skip
"""Names of other libraries, and what they are called here."""
# comparison in the syntax tree -> (SymPy function, function of floats)
RELATIONS: dict[type[ast.cmpop], tuple[Callable, Callable]] = {
    ast.Gt: (Above, operator.gt),
    ast.Lt: (lambda u, v: Above(v, u), operator.lt),
    ast.GtE: (AtLeast, operator.ge),
    ast.LtE: (lambda u, v: AtLeast(v, u), operator.le),
    ast.Eq: (SameNumber, operator.eq),
    ast.NotEq: (lambda u, v: 1 - SameNumber(u, v), operator.ne),
}
# function -> the domain in which its argument must lie
DOMAINS: dict[str, type[Domain]] = {"log": Positive, "sqrt": NotNegative}
CONSTANTS: dict[str, sp.Expr] = {"pi": sp.pi, "e": sp.E}
RESERVED = frozenset(FUNCTIONS) | frozenset(CONSTANTS) | {"Piecewise"}
"""The names that coordinates and parameters must not have."""
