"""Compilation of SymPy expressions to a list of operations that runs on numbers, rows of paths and traced values."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import sympy as sp

from sdetools._arrays import select
from sdetools.losses.parser import Larger, Magnitude, NotNegative, Positive, Signum, symbol, to_float

LARGEST_PRODUCT = 32  # up to this exponent x**n is computed by repeated squaring


def _sign(u: Any) -> Any:
    """Return sign(u), 0 at 0 and NaN at NaN."""
    return select(u > 0, 1.0, select(u < 0, -1.0, u))


def _larger(u: Any, v: Any) -> Any:
    """Return max(u, v), NaN if one of them is NaN."""
    return select(u > v, u, select(u <= v, v, u + v))


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
    Magnitude: abs,
    Signum: _sign,
    Larger: _larger,
    Positive: lambda u: select(u > 0, 0.0, math.nan),
    NotNegative: lambda u: select(u >= 0, 0.0, math.nan),
}

# functions that SymPy's simplifications may introduce
REWRITTEN: dict[Any, Callable] = {
    sp.Abs: Magnitude,
    sp.sign: Signum,
    sp.cot: lambda u: sp.cos(u) / sp.sin(u),
    sp.sec: lambda u: 1 / sp.cos(u),
    sp.csc: lambda u: 1 / sp.sin(u),
    sp.coth: lambda u: sp.cosh(u) / sp.sinh(u),
}


class CompiledExpression:
    """A compiled function `f(x, p=()) -> list of components`: operations on numbered slots, run in order.

    The slots contain the coordinates, the parameters, the constants and then the result of each step. A common subexpression is
    computed once. A component that does not depend on `x` is returned as a float, and one that is a coordinate as that row itself.
    Nothing is changed in place.
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
        """Evaluate the components at `x` with parameters `p`; ValueError for another number of them."""
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
    """Translator of expressions to steps `(function, slots)` that reuses equal steps."""

    def __init__(self, inputs: Sequence[sp.Symbol]) -> None:
        self.known: dict[sp.Expr, Slot] = {s: ("input", i) for i, s in enumerate(inputs)}
        self.constants: dict[float, int] = {}
        self.steps: dict[tuple[Callable, tuple[Slot, ...]], int] = {}

    def constant(self, value: float) -> Slot:
        """Return the slot of a finite constant."""
        if not math.isfinite(value):
            raise ValueError(
                "The expression must have finite real coefficients, as must its derivatives; got one that is not. Rescale it."
            )
        return "constant", self.constants.setdefault(value, len(self.constants))

    def step(self, function: Callable, *slots: Slot) -> Slot:
        """Return the slot of a function of other slots."""
        return "step", self.steps.setdefault((function, slots), len(self.steps))

    def slot(self, expr: sp.Expr) -> Slot:
        """Return the slot of an expression, translated at its first occurrence."""
        if expr not in self.known:
            self.known[expr] = self.translate(expr)
        return self.known[expr]

    def translate(self, expr: sp.Expr) -> Slot:
        """Translate an expression by its type."""
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
        """Add the terms, then subtract those with a negative coefficient."""
        signed = [(term, term.as_coeff_Mul()[0].is_negative) for term in expr.args]
        plus = [self.slot(term) for term, negative in signed if not negative]
        minus = [self.slot(-term) for term, negative in signed if negative]
        total = reduce(lambda a, b: self.step(operator.add, a, b), plus) if plus else self.step(operator.neg, minus.pop(0))
        return reduce(lambda a, b: self.step(operator.sub, a, b), minus, total)

    def product(self, expr: sp.Expr) -> Slot:
        """Multiply the factors, then divide by those with a negative exponent."""
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
        """Compute a power by repeated squaring, a square root or `pow`."""
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
        """Compute a positive integer power by repeated squaring."""
        if times == 1:
            return base
        half = self.multiplied(base, times // 2)
        square = self.step(operator.mul, half, half)
        return self.step(operator.mul, square, base) if times % 2 else square


@lru_cache(maxsize=4096)
def _program(expressions: tuple[sp.Expr, ...], names: tuple[str, ...], parameter_names: tuple[str, ...]) -> CompiledExpression:
    return CompiledExpression(expressions, names, parameter_names)


def compile(expressions: Sequence[sp.Expr], names: Sequence[str], parameter_names: Sequence[str] = ()) -> CompiledExpression:
    """Compile expressions to a function `f(x, p=()) -> list of components`; equal expressions give the same object.

    Args:
        expressions: SymPy expressions, one for each component.
        names: Names of the coordinates; `x` contains as many numbers, rows of paths or traced values.
        parameter_names: Names of the parameters, in the order of `p`.

    Returns:
        The compiled function. It never warns: log(-1) is NaN.

    Example:
        >>> from sdetools.losses.parser import parse
        >>> f = compile([parse("a*x**2", "x", ["a"])], ["x"], ["a"])
        >>> f(np.array([[1.0, 2.0]]), [3.0])
        [array([ 3., 12.])]
    """
    return _program(tuple(expressions), tuple(names), tuple(parameter_names))
