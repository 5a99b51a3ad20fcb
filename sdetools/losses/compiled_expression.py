"""Compilation of SymPy expressions to a list of operations that runs on numbers, rows of paths and traced values.

A row of paths is an array `(paths,)` with one coordinate of all paths. A traced value stands for such a row while a graph is recorded. A
slot names an operand of the list of operations: a pair `(kind, index)` with the kind "input" (a coordinate or parameter), "constant" or
"step" (the result of an operation).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import sympy as sp

from sdetools._arrays import select
from sdetools.graph.error_function import erf
from sdetools.losses.kinks import (
    Above,
    AtLeast,
    Choice,
    Floor,
    Larger,
    Magnitude,
    NotNegative,
    Positive,
    SameNumber,
    SignFunction,
    UnitStep,
)
from sdetools.losses.parser import symbol, to_float

LARGEST_PRODUCT = 32  # up to this exponent x**n is computed by repeated squaring


def _sign(u: Any) -> Any:
    """Return sign(u) as a float: 0 at 0 and NaN at NaN."""
    return select(u > 0, 1.0, select(u < 0, -1.0, u))


def _larger(u: Any, v: Any) -> Any:
    """Return max(u, v), NaN if one of them is NaN."""
    return select(u > v, u, select(u <= v, v, u + v))


def _unit_step(u: Any, h: Any) -> Any:
    """Return 0 for u < 0, h at 0, 1 for u > 0 and NaN at NaN."""
    return select(u > 0, 1.0, select(u < 0, 0.0, select(u >= 0, h, u)))


# SymPy function -> function of numbers, rows and traced values
NUMERIC: dict[Any, Callable] = {
    sp.exp: np.exp,
    sp.log: np.log,
    sp.sin: np.sin,
    sp.cos: np.cos,
    sp.tan: np.tan,
    sp.sinh: np.sinh,
    sp.cosh: np.cosh,
    sp.tanh: np.tanh,
    sp.atan: np.arctan,
    sp.erf: erf,
    Magnitude: abs,
    SignFunction: _sign,
    Larger: _larger,
    Floor: np.floor,
    UnitStep: _unit_step,
    Above: lambda u, v: select(u > v, 1.0, 0.0),
    AtLeast: lambda u, v: select(u >= v, 1.0, 0.0),
    SameNumber: lambda u, v: select(u >= v, select(u <= v, 1.0, 0.0), 0.0),
    Choice: lambda c, u, v: select(c > 0.5, u, v),
    Positive: lambda u: select(u > 0, 0.0, math.nan),
    NotNegative: lambda u: select(u >= 0, 0.0, math.nan),
}

# functions that SymPy's simplifications may introduce
REWRITTEN: dict[Any, Callable] = {
    sp.Abs: Magnitude,
    sp.sign: SignFunction,
    sp.cot: lambda u: sp.cos(u) / sp.sin(u),
    sp.sec: lambda u: 1 / sp.cos(u),
    sp.csc: lambda u: 1 / sp.sin(u),
    sp.coth: lambda u: sp.cosh(u) / sp.sinh(u),
}


class CompiledExpression:
    """A compiled function `f(x, p=())` that returns the list of its components, one for each expression; build it with `compile`.

    It is a list of operations that run in order on one list of operands: the coordinates `x`, the parameters `p`, the constants, and then
    the result of each operation. A common subexpression is computed once. A component that does not depend on `x` is returned as a float,
    and one that is just a coordinate as that entry of `x` itself, not a copy. Nothing is changed in place.

    Args:
        expressions: SymPy expressions, one for each component.
        names: Names of the coordinates, in the order of `x`.
        parameter_names: Names of the parameters, in the order of `p`.

    Attributes:
        inputs: Number of coordinates and parameters together.
        constants: The constants, floats.
        steps: The operations in order, pairs of a function and the indices of its operands in the list of operands.
        outputs: The index of each component in the list of operands.
    """

    def __init__(self, expressions: Sequence[sp.Expr], names: Sequence[str], parameter_names: Sequence[str]) -> None:
        inputs = [symbol(name) for name in (*names, *parameter_names)]
        writer = _Writer(inputs)
        outputs = [writer.slot(sp.sympify(e)) for e in expressions]
        start = {"input": 0, "constant": len(inputs), "step": len(inputs) + len(writer.constants)}
        self.inputs = len(inputs)
        self.constants = list(writer.constants)
        self.steps = [(function, tuple(start[kind] + i for kind, i in slots)) for function, slots in writer.steps]
        self.outputs = [start[kind] + i for kind, i in outputs]

    def __call__(self, x: Any, p: Any = ()) -> list[Any]:
        """Return the list of components at `x` with parameters `p`; ValueError if there are not as many of both as names.

        `x` has one number, row of paths `(paths,)` or traced value for each coordinate, so it may be an array `(dim,)` or `(dim, paths)`.
        """
        slots = [*x, *p]
        if len(slots) != self.inputs:
            raise ValueError(f"The expression must be given {self.inputs} coordinates and parameters; got {len(slots)}.")
        slots += self.constants
        with np.errstate(all="ignore"):
            for function, args in self.steps:
                slots.append(function(*[slots[i] for i in args]))
        return [slots[i] for i in self.outputs]


Slot = tuple[str, int]


class _Writer:
    """Translator of expressions to operations, which reuses equal ones.

    Each method adds the operations that it needs and returns a slot: a pair `(kind, index)` that names an operand, of the kind "input" (a
    coordinate or parameter), "constant" or "step" (the result of an operation).

    Args:
        inputs: The symbols of the coordinates, then those of the parameters.

    Attributes:
        known: The slot of each expression that has been translated.
        constants: The index of each constant by its value.
        steps: The index of each operation by the pair of its function and the slots of its arguments, in the order in which they run.
    """

    def __init__(self, inputs: Sequence[sp.Symbol]) -> None:
        self.known: dict[sp.Expr, Slot] = {s: ("input", i) for i, s in enumerate(inputs)}
        self.constants: dict[float, int] = {}
        self.steps: dict[tuple[Callable, tuple[Slot, ...]], int] = {}

    def constant(self, value: float) -> Slot:
        """Return the slot `("constant", index)` of a number, which is added if it is new; ValueError unless it is finite."""
        if not math.isfinite(value):
            raise ValueError(
                "The expression must have finite real coefficients, as must its derivatives; got one that is not. Rescale it."
            )
        return "constant", self.constants.setdefault(value, len(self.constants))

    def step(self, function: Callable, *slots: Slot) -> Slot:
        """Return the slot `("step", index)` of the result of `function` on other slots; the operation is added if there is no equal one.

        Args:
            function: A function of numbers, rows of paths or traced values, such as `np.exp` or `operator.add`.
            *slots: Its arguments in order, pairs `(kind, index)`.
        """
        return "step", self.steps.setdefault((function, slots), len(self.steps))

    def slot(self, expr: sp.Expr) -> Slot:
        """Return the slot `(kind, index)` with the value of a SymPy expression, which is translated to operations at its first occurrence."""
        if expr not in self.known:
            self.known[expr] = self.translate(expr)
        return self.known[expr]

    def translate(self, expr: sp.Expr) -> Slot:
        """Add the operations that compute a SymPy expression, and return the slot `(kind, index)` of its value.

        Raises:
            ValueError: If it contains an unknown name, a function that is not supported, or a number that is not finite and real.
        """
        if expr.is_number:
            return self.constant(to_float(expr))
        if expr.is_Add:
            return self.sum(expr)
        if expr.is_Mul:
            return self.product(expr)
        if expr.is_Pow:
            return self.power(*expr.as_base_exp())
        if expr.func in NUMERIC:
            return self.step(NUMERIC[expr.func], *(self.slot(a) for a in expr.args))
        if expr.func in REWRITTEN:
            return self.slot(REWRITTEN[expr.func](*expr.args))
        raise ValueError(
            f"The expression must not contain `{expr}`: it is neither one of its names nor a function it can compute."
        )

    def sum(self, expr: sp.Expr) -> Slot:
        """Add the operations of a SymPy sum, and return its slot `(kind, index)`: terms with a negative coefficient are subtracted at the end."""
        signed = [(term, term.as_coeff_Mul()[0].is_negative) for term in expr.args]
        plus = [self.slot(term) for term, negative in signed if not negative]
        minus = [self.slot(-term) for term, negative in signed if negative]
        total = reduce(lambda a, b: self.step(operator.add, a, b), plus) if plus else self.step(operator.neg, minus.pop(0))
        return reduce(lambda a, b: self.step(operator.sub, a, b), minus, total)

    def product(self, expr: sp.Expr) -> Slot:
        """Add the operations of a SymPy product, and return its slot `(kind, index)`: factors with a negative exponent become one divisor."""
        coefficient, rest = expr.as_coeff_Mul()
        pairs = [factor.as_base_exp() if factor.is_Pow else (factor, sp.S.One) for factor in sp.Mul.make_args(rest)]
        above = [base**power for base, power in pairs if not power.is_negative]
        below = [base**-power for base, power in pairs if power.is_negative]
        factor = to_float(coefficient)
        if above:
            total = reduce(lambda a, b: self.step(operator.mul, a, b), map(self.slot, above))
            if abs(factor) != 1:
                total = self.step(operator.mul, total, self.constant(factor))
            elif factor == -1:
                total = self.step(operator.neg, total)
        else:
            total = self.constant(factor)
        if below:
            total = self.step(operator.truediv, total, reduce(lambda a, b: self.step(operator.mul, a, b), map(self.slot, below)))
        return total

    def power(self, base: sp.Expr, exponent: sp.Expr) -> Slot:
        """Add the operations of `base**exponent`, and return the slot `(kind, index)` of the power.

        Integer exponents up to 32 use repeated squaring, half-integer ones (up to 16) a square root as well, and other numbers `pow`. A
        negative exponent becomes a division. A power with a variable exponent u is exp(u log(base)).
        """
        if not exponent.is_number:  # b**u = exp(u log b), for b > 0
            return self.step(np.exp, self.step(operator.mul, self.slot(exponent), self.step(np.log, self.slot(base))))
        if exponent.is_negative:
            return self.step(operator.truediv, self.constant(1.0), self.slot(base**-exponent))
        if exponent.is_Integer and exponent <= LARGEST_PRODUCT:
            return self.multiplied(self.slot(base), int(exponent))
        if exponent == sp.S.Half:
            return self.step(np.sqrt, self.slot(base))
        if (2 * exponent).is_Integer and 2 * exponent <= LARGEST_PRODUCT:
            return self.step(operator.mul, self.slot(base ** (exponent - sp.S.Half)), self.slot(sp.sqrt(base)))
        return self.step(operator.pow, self.slot(base), self.constant(to_float(exponent)))

    def multiplied(self, base: Slot, times: int) -> Slot:
        """Add the operations of a power by repeated squaring, and return its slot `(kind, index)`.

        Args:
            base: The slot of the base.
            times: The exponent, a positive integer.
        """
        if times == 1:
            return base
        half = self.multiplied(base, times // 2)
        square = self.step(operator.mul, half, half)
        return self.step(operator.mul, square, base) if times % 2 else square


@lru_cache(maxsize=4096)
def _program(expressions: tuple[sp.Expr, ...], names: tuple[str, ...], parameter_names: tuple[str, ...]) -> CompiledExpression:
    """Return the compiled function of `compile`, made once for equal arguments."""
    return CompiledExpression(expressions, names, parameter_names)


def compile(expressions: Sequence[sp.Expr], names: Sequence[str], parameter_names: Sequence[str] = ()) -> CompiledExpression:
    """Compile expressions to a function `f(x, p=())` that returns the list of its components; equal expressions give the same object.

    Args:
        expressions: SymPy expressions, one for each component.
        names: Names of the coordinates; `x` contains as many numbers, rows of paths `(paths,)` or traced values, in this order.
        parameter_names: Names of the parameters, in the order of `p`.

    Returns:
        The compiled function. It never warns: log(-1) is NaN. A component without coordinates is a float, even for rows of paths.

    Raises:
        ValueError: If an expression contains another name, an unsupported function or a number that is not finite and real.

    Example:
        >>> from sdetools.losses.parser import parse
        >>> f = compile([parse("a*x**2", "x", ["a"])], ["x"], ["a"])
        >>> f(np.array([[1.0, 2.0]]), [3.0])
        [array([ 3., 12.])]
    """
    return _program(tuple(expressions), tuple(names), tuple(parameter_names))
