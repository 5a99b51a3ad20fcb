"""Losses given by an expression: exact derivatives by SymPy, compiled once for each expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np
import sympy as sp

from sdetools import _check
from sdetools._arrays import components
from sdetools.losses.base import Loss, scalar
from sdetools.losses.compiled_expression import CompiledExpression, compile
from sdetools.losses.kinks import Choice, Domain, Jumping, NotAnalytic, tidy
from sdetools.losses.parser import free_names, identifiers, parse, symbol

__all__ = ["CompiledExpression", "ExpressionLoss", "compile", "derivatives", "from_expression", "latex", "parse", "variables_of"]

PROBES = 3


@lru_cache(maxsize=4096)
def derivatives(expr: sp.Expr, names: tuple[str, ...], order: int) -> dict[tuple[int, ...], sp.Expr]:
    """Return all partial derivatives of one order of a SymPy expression, without repetitions.

    Args:
        expr: The expression.
        names: Names of the coordinates, in order; they stand for the symbols `parser.symbol(name)`.
        order: The order, 0 or above; order 0 is `{(): expr}`.

    Returns:
        A dictionary from the indices of the coordinates, sorted tuples of length `order` in lexicographic order, to expressions.

    Example:
        >>> derivatives(parse("x**2 * y", "x y"), ("x", "y"), 2)
        {(0, 0): 2*y, (0, 1): 2*x, (1, 1): 0}
    """
    if order == 0:
        return {(): expr}
    before = derivatives(expr, names, order - 1)
    indices = combinations_with_replacement(range(len(names)), order)
    return {index: _partial(before[index[:-1]], symbol(names[index[-1]])) for index in indices}


def _partial(expr: sp.Expr, s: sp.Symbol) -> sp.Expr:
    """Return the derivative of an expression by the symbol `s`, term by term."""
    return tidy(sp.Add(*(sp.diff(term, s) for term in sp.Add.make_args(expr) if s in term.free_symbols)))


@lru_cache(maxsize=4096)
def _derivative(
    expr: sp.Expr, names: tuple[str, ...], parameter_names: tuple[str, ...], order: int
) -> tuple[CompiledExpression, list[int]]:
    """Return the compiled derivatives of one order, and the index of each entry of the full tensor (row by row) among their components."""
    partials = derivatives(expr, names, order)
    place = {index: i for i, index in enumerate(partials)}
    full = [place[tuple(sorted(index))] for index in product(range(len(names)), repeat=order)]
    return compile(tuple(partials.values()), names, parameter_names), full


def latex(expr: sp.Expr) -> str:
    r"""Return a SymPy expression as LaTeX text, without its domain conditions (the terms of the class `Domain`, which are 0 or NaN).

    Example:
        >>> latex(parse("abs(x)/2", "x"))
        '\\frac{\\left|{x}\\right|}{2}'
    """
    return sp.latex(expr.replace(Domain, lambda *_: sp.S.Zero))


class ExpressionLoss(Loss):
    """A loss given by an expression; build it with `from_expression`.

    It is plain data: it pickles, and is compiled again in the process that unpickles it.

    Args:
        text: The formula of L.
        names: Names of the coordinates, in order.
        parameters: Values of the constants by name; those that remain in the formula as symbols become `parameters`, in this order.

    Raises:
        ValueError: If the text is not a formula in these names.

    Attributes:
        text: The expression as given, with single spaces.
        expr: The SymPy expression.
        parameter_names: Names of the entries of `parameters`.
        constants: All constants by name, including those that became part of the formula.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.from_expression("a * abs(x)**p", variables="x", parameters={"a": 2.0, "p": 3})
        >>> loss.parameter_names, loss.parameters, loss.constants
        (('a',), array([2.]), {'a': 2.0, 'p': 3.0})
    """

    def __init__(self, text: str, names: tuple[str, ...], parameters: Mapping[str, float]) -> None:
        self.names, self.dim = names, len(names)
        self.text = self.label = " ".join(text.split())
        self.expr = parse(text, names, parameters)
        self.parameter_names = tuple(name for name in parameters if symbol(name) in self.expr.free_symbols)
        self.parameters = np.array([parameters[name] for name in self.parameter_names])
        self.constants = dict(parameters)
        self.latex = latex(self.expr)

    @property
    def identity(self) -> str:
        """A text, equal for equal losses in every process: the expression, the coordinates and the constants."""
        constants = ",".join(f"{name}={value!r}" for name, value in self.constants.items())
        return f"expression:{self.text}:{' '.join(self.names)}:{constants}"

    def value(self, x: Any, p: Any = None) -> Any:
        """Return L(x), a number for `x` `(dim,)` and `(paths,)` for `(dim, paths)`; NaN outside the domain of the formula.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            p: Numbers that replace `parameters`, in the order of `parameter_names`; None for `parameters`.

        Raises:
            ValueError: If `x` does not have `dim` rows, or `p` not one number for each parameter.
        """
        x = self._point(x)
        return scalar(self._evaluate(0, x, p)[0], x)

    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the exact gradient, in the shape of `x`.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            p: Numbers that replace `parameters`, in the order of `parameter_names`; None for `parameters`.
        """
        x = self._point(x)
        return components(self._evaluate(1, x, p), x)

    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the exact Hessian, `(dim, dim)` for one point and `(dim, dim, paths)` for many.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            p: Numbers that replace `parameters`, in the order of `parameter_names`; None for `parameters`.
        """
        return self._tensor(2, x, p)

    def third(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the exact third derivative, `(dim, dim, dim)` for one point and `(dim, dim, dim, paths)` for many.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            p: Numbers that replace `parameters`, in the order of `parameter_names`; None for `parameters`.
        """
        return self._tensor(3, x, p)

    @property
    def jump(self) -> str:
        """A comparison, a step function or a floor in the formula, as text; empty if there is none.

        Whether the two branches of a choice (`Piecewise`, `if`) agree where they meet is not examined.
        """
        pieces = self.expr.replace(Choice, lambda c, u, v: u + v).atoms(Jumping)
        return str(min(pieces, key=str)) if pieces else ""

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Return `(H, c, L0)` with L(x) = x^T H x / 2 + c^T x + L0 if the formula is such a polynomial on all of space, else None.

        H is an array `(dim, dim)`, c is `(dim,)` and L0 is a float, at the current `parameters`.
        """
        if self.expr.has(NotAnalytic):
            return None
        probes = np.random.default_rng(0).uniform(0.5, 2.0, (self.dim, PROBES))
        sampled = self.hessian(probes)
        if not np.allclose(sampled, sampled[..., :1], rtol=1e-9, atol=1e-12):
            return None
        origin = {symbol(name): 0 for name in self.names}
        entries = [sp.expand(h) for h in derivatives(self.expr, self.names, 2).values()]
        slopes = [sp.expand(g).subs(origin) for g in derivatives(self.expr, self.names, 1).values()]
        level = sp.expand(self.expr).subs(origin)
        if any(h.free_symbols & origin.keys() for h in entries) or any(t.has(sp.nan, sp.zoo, sp.oo) for t in (*slopes, level)):
            return None
        values = np.array(compile([*entries, *slopes, level], (), self.parameter_names)((), self.parameters))
        full = _derivative(self.expr, self.names, self.parameter_names, 2)[1]
        hessian = values[: len(entries)][full].reshape(self.dim, self.dim)
        return hessian, values[len(entries) : -1], float(values[-1])

    def _evaluate(self, order: int, x: np.ndarray, p: Any) -> list[Any]:
        """Return the different partial derivatives of an order at `x`, in the order of `derivatives`."""
        return _derivative(self.expr, self.names, self.parameter_names, order)[0](x, self._parameters(p))

    def _tensor(self, order: int, x: Any, p: Any) -> np.ndarray:
        """Return all partial derivatives of an order at `x`: an array with `order` axes of length dim, then the paths."""
        x = self._point(x)
        values = self._evaluate(order, x, p)
        full = _derivative(self.expr, self.names, self.parameter_names, order)[1]
        return components([values[i] for i in full], x).reshape((self.dim,) * order + x.shape[1:])


def variables_of(text: str, parameters: Mapping[str, float]) -> tuple[str, ...]:
    """Return the names of the coordinates of an expression, in order, for a caller who gives none.

    The free names are those that are neither functions, `pi` and `e`, nor parameters.

    Args:
        text: The formula.
        parameters: Constants by name; these names are not coordinates.

    Returns:
        x0, x1, ... if the free names are these, without a gap; otherwise all free names in alphabetical order.

    Raises:
        ValueError: If the formula has no free name. Also if it has the name x0, or only names of the form x3, and these names are not exactly
            x0, x1, ..., without a gap.

    Example:
        >>> variables_of("a*x1 + x0", {"a": 1.0}), variables_of("w*v", {})
        (('x0', 'x1'), ('v', 'w'))
    """
    found = free_names(text) - set(parameters)
    if not found:
        raise ValueError(f"`variables` must name the coordinates of a formula without any; got `{text}`. Pass variables='x'.")
    if "x0" in found or all(name[0] == "x" and name[1:].isdigit() for name in found):
        names = tuple(f"x{i}" for i in range(len(found)))
        if found != set(names):
            raise ValueError(
                f"`variables` must be given where the names are not x0, x1, ... in a row; got {', '.join(sorted(found))}. "
                "Pass variables='x0 x1 x2', all coordinates in order."
            )
        return names
    return tuple(sorted(found))


def from_expression(
    text: str, variables: str | Sequence[str] | None = None, parameters: Mapping[str, float] | None = None
) -> ExpressionLoss:
    """Return the loss L(x) that an expression defines, with exact derivatives.

    Args:
        text: The formula of L in Python's notation, such as "(x*y - 1)**2 / 2"; see `sdetools.losses.parser.parse` for its grammar.
        variables: Names of the coordinates in order, "x y" or a list; by default x0, x1, ... or, if the formula has no such names, all its
            names in alphabetical order.
        parameters: Constants by name. They become `loss.parameters` and can change without a recompilation, except for those in an
            exponent, which become part of the formula.

    Returns:
        The loss; its methods run on one point `(dim,)`, on many points `(dim, paths)` and on traced values.

    Raises:
        ValueError: If the text is not a formula, if a name in it is unknown, if a parameter does not occur in it or has the name of a
            coordinate, or if there is no coordinate.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.from_expression("a * (x*y - 1)**2 / 2", variables="x y", parameters={"a": 1.0})
        >>> loss.gradient([2.0, 1.0])
        array([1., 2.])
        >>> loss.hessian([2.0, 1.0])
        array([[1., 3.],
               [3., 4.]])
        >>> loss.gradient([2.0, 1.0], p=[10.0])
        array([10., 20.])
    """
    constants = _check.named_numbers(parameters)
    names = variables_of(text, constants) if variables is None else identifiers("variables", variables)
    if both := constants.keys() & set(names):
        raise ValueError(f"`parameters` must not have the name of a coordinate; got {min(both)}. Rename one of the two.")
    if not names:
        raise ValueError("`variables` must name at least one coordinate; got none. Pass variables='x'.")
    unused = constants.keys() - free_names(text)
    if unused:
        raise ValueError(
            f"`parameters` must occur in the formula; got `{min(unused)}`, which does not occur in `{text}`. Leave it out."
        )
    return ExpressionLoss(text, names, constants)
