"""SymPy functions of formulas with kinks and jumps, |u|, max, floor, comparisons, choices, and the domains of roots and logarithms.

SymPy's own functions have derivatives with delta functions, and comparisons that are no numbers. Here a derivative is that of the formula away
from its kinks and jumps, and a comparison is the number 1 or 0, so that it is an indicator. As in NumPy, a comparison with NaN is false.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import sympy as sp


class NotAnalytic(sp.Function):
    """The base class of the SymPy functions of this module, for tests such as `expression.has(NotAnalytic)`; they are real."""

    is_real = True


class Jumping(NotAnalytic):
    """The base class of the SymPy functions that jump: they are piecewise constant, and their derivative is 0, without delta functions."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.S.Zero


class Magnitude(NotAnalytic):
    """The SymPy function |u| of a real u: its derivative is sign(u), 0 at 0, and higher derivatives have no delta functions."""

    is_nonnegative = True

    @classmethod
    def eval(cls, u: sp.Expr) -> sp.Expr | None:
        if u.is_nonnegative:
            return u
        return sp.Abs(u) if u.is_number else None

    def _eval_power(self, exponent: sp.Expr) -> sp.Expr | None:
        return self.args[0] ** exponent if exponent.is_even else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return SignFunction(self.args[0])

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return rf"\left|{{{printer._print(self.args[0])}}}\right|" + (f"^{{{exp}}}" if exp else "")


class SignFunction(NotAnalytic):
    """The SymPy function sign(u) of a real u, 0 at 0, with derivative 0."""

    @classmethod
    def eval(cls, u: sp.Expr) -> sp.Expr | None:
        return sp.sign(u) if u.is_number else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.S.Zero

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return rf"\operatorname{{sign}}{f'^{{{exp}}}' if exp else ''}\left({printer._print(self.args[0])}\right)"


class Larger(NotAnalytic):
    """The SymPy function max(u, v) of real u and v; at u = v its derivative is the mean of the one-sided derivatives."""

    @classmethod
    def eval(cls, u: sp.Expr, v: sp.Expr) -> sp.Expr | None:
        return sp.Max(u, v) if u.is_number and v.is_number else None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        side = SignFunction(self.args[0] - self.args[1])
        return (1 + side) / 2 if argindex == 1 else (1 - side) / 2

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        inner = ", ".join(printer._print(a) for a in self.args)
        return rf"\max{f'^{{{exp}}}' if exp else ''}\left({inner}\right)"


class Domain(NotAnalytic):
    """The base class of domain conditions: SymPy functions of u that are 0 if u lies in a domain, else NaN, as are their derivatives.

    A formula is the sum of its expression and of one such term for each root, logarithm and power whose base may leave its domain. These
    terms preserve a domain that SymPy simplifies away: sqrt(x)**2 is x only for x >= 0, exp(log(x)) is x only for x > 0, and the derivative
    of log x is 1/x only for x > 0.
    """

    def _eval_derivative(self, s: sp.Symbol) -> sp.Expr:
        return self if s in self.args[0].free_symbols else sp.S.Zero


class Positive(Domain):
    """The SymPy function that is 0 for u > 0, else NaN: the domain condition of logarithms and of negative non-integer powers."""

    @classmethod
    def eval(cls, u: sp.Expr) -> sp.Expr | None:
        return sp.S.Zero if u.is_positive else None


class NotNegative(Domain):
    """The SymPy function that is 0 for u >= 0, else NaN: the domain condition of roots and of other non-integer powers."""

    @classmethod
    def eval(cls, u: sp.Expr) -> sp.Expr | None:
        return sp.S.Zero if u.is_nonnegative else None


class Floor(Jumping):
    """The SymPy function floor(u), the largest whole number <= u."""

    @classmethod
    def eval(cls, u: sp.Expr) -> sp.Expr | None:
        return sp.floor(u) if u.is_number else None

    def _sympystr(self, printer: Any) -> str:
        return f"floor({printer._print(self.args[0])})"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return rf"\left\lfloor{{{printer._print(self.args[0])}}}\right\rfloor" + (f"^{{{exp}}}" if exp else "")


class UnitStep(Jumping):
    """The SymPy function of u and a number h that is 0 for u < 0, h at 0, 1 for u > 0 and NaN at NaN: Heaviside's step function."""

    @classmethod
    def eval(cls, u: sp.Expr, h: sp.Expr) -> sp.Expr | None:
        return (sp.S.One if u > 0 else sp.S.Zero if u < 0 else h) if u.is_number else None

    def _sympystr(self, printer: Any) -> str:
        return f"Heaviside({', '.join(printer._print(a) for a in self.args if a != sp.S.Half)})"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return rf"\theta{f'^{{{exp}}}' if exp else ''}\left({printer._print(self.args[0])}\right)"


class Relation(Jumping):
    """The base class of the SymPy functions of u and v that are 1 where a relation holds and 0 elsewhere, also at NaN.

    A subclass sets `symbol`, the relation as text (">="), and `sign`, the relation in LaTeX.
    """

    is_nonnegative = True
    sign = symbol = ""

    def _sympystr(self, printer: Any) -> str:
        u, v = (printer._print(a) for a in self.args)
        return f"({u} {self.symbol} {v})"

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        u, v = (printer._print(a) for a in self.args)
        return rf"\mathbf{{1}}\left\{{{u} {self.sign} {v}\right\}}" + (f"^{{{exp}}}" if exp else "")


class Above(Relation):
    """The SymPy function that is 1 for u > v, else 0."""

    sign = symbol = ">"

    @classmethod
    def eval(cls, u: sp.Expr, v: sp.Expr) -> sp.Expr | None:
        return sp.Integer(bool(u > v)) if u.is_number and v.is_number else None


class AtLeast(Relation):
    """The SymPy function that is 1 for u >= v, else 0."""

    sign, symbol = r"\geq", ">="

    @classmethod
    def eval(cls, u: sp.Expr, v: sp.Expr) -> sp.Expr | None:
        return sp.Integer(bool(u >= v)) if u.is_number and v.is_number else None


class SameNumber(Relation):
    """The SymPy function that is 1 for u = v, else 0."""

    sign, symbol = "=", "=="

    @classmethod
    def eval(cls, u: sp.Expr, v: sp.Expr) -> sp.Expr | None:
        return sp.Integer(bool(sp.Eq(u, v))) if u.is_number and v.is_number else None


class Choice(NotAnalytic):
    """The SymPy function of c, u and v that is u where the indicator c is 1, and v where it is 0; its derivative is that of the branch taken."""

    @classmethod
    def eval(cls, c: sp.Expr, u: sp.Expr, v: sp.Expr) -> sp.Expr | None:
        return (v if c.is_zero else u) if c.is_number else u if u == v else None

    def _eval_derivative(self, s: sp.Symbol) -> sp.Expr:
        c, u, v = self.args
        return Choice(c, u.diff(s), v.diff(s))

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        c, u, v = (printer._print(a) for a in self.args)
        if isinstance(condition := self.args[0], Relation):
            c = f"{printer._print(condition.args[0])} {condition.sign} {printer._print(condition.args[1])}"
        else:
            c = f"{c} = 1"
        text = rf"\begin{{cases}} {u} & \text{{if }} {c} \\ {v} & \text{{otherwise}} \end{{cases}}"
        return rf"\left({text}\right)^{{{exp}}}" if exp else text


def tidy(expr: sp.Expr) -> sp.Expr:
    """Return `expr` with SymPy's Abs and sign (from sqrt(x**2), say) replaced by `Magnitude` and `SignFunction`, whose derivatives are functions."""
    return expr.replace(sp.Abs, Magnitude).replace(sp.sign, SignFunction) if expr.has(sp.Abs, sp.sign) else expr


def largest(*numbers: sp.Expr) -> sp.Expr:
    """Return the maximum of at least two SymPy expressions, as nested functions `Larger`.

    >>> largest(sp.Integer(1), sp.Integer(3), sp.Integer(2))
    3
    """
    return reduce(Larger, numbers)


def smallest(*numbers: sp.Expr) -> sp.Expr:
    """Return the minimum of at least two SymPy expressions, as minus the maximum of their negatives.

    >>> smallest(sp.Integer(2), sp.Integer(3), sp.Integer(1))
    1
    """
    return -reduce(Larger, [-n for n in numbers])


def ceiling(u: sp.Expr) -> sp.Expr:
    """Return -floor(-u) for a SymPy expression u: the smallest whole number >= u.

    >>> ceiling(sp.Rational(5, 2))
    3
    """
    return -Floor(-u)
