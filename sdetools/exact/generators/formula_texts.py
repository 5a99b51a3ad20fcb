"""Formulas of SymPy as texts: short ones for a reader, and those that the parser of expressions reads, so that a file of a result contains no code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sdetools.exact.generators.radial_means import radial_mean, without_radial

LARGEST_SHOWN = 10**9
"""A fraction with a larger denominator is shown as a decimal number."""
LONGEST_NUMBER = 10**14
"""A fraction with a larger denominator stands for a float."""
LONGEST_SIMPLIFIED = 300
"""Largest number of operations of an expression that is simplified, and not only expanded."""
NAMES = {"Abs": "abs", "Magnitude": "abs", "SignFunction": "sign", "Larger": "max"}
"""The names that functions of SymPy have in expressions, where they differ."""


def formula_text(expression: Any) -> str:
    """Return a SymPy expression as a text that `formula` reads.

    Example:
        >>> import sympy
        >>> formula_text(sympy.Abs(sympy.Symbol("x")) / sympy.sqrt(sympy.pi) + sympy.E)
        'abs(x)/sqrt(pi) + e'
    """
    from sympy.printing.str import StrPrinter

    class Printer(StrPrinter):
        def _print_Function(self, expr: Any) -> str:
            name = expr.func.__name__
            return f"{NAMES.get(name, name)}({self.stringify(expr.args, ', ')})"

        _print_Abs = _print_Function

        def _print_Exp1(self, expr: Any) -> str:
            return "e"

    return Printer({"full_prec": True}).doprint(expression)


def formula(text: Any, names: Sequence[str]) -> Any:
    """Return the SymPy expression of a text of `formula_text` in the coordinates `names`; anything but a text is returned as it is.

    Raises:
        ValueError: If the text is no expression of these names, or has more than 10,000 characters.
    """
    if not isinstance(text, str):
        return text
    from sdetools.losses.parser import Domain, parse, symbol

    text, radial = without_radial(text)
    found = parse(text, [*names, *radial])
    # arguments contain names made before them: innermost first
    known: dict[Any, Any] = {}
    for name, arguments in radial.items():
        known[symbol(name)] = radial_mean()(*(parse(one, [*names, *radial]).xreplace(known) for one in arguments))
    found = found.xreplace(known)
    found = found.xreplace({d: 0 for d in found.atoms(Domain)})  # the terms by which an expression keeps the domain of a root
    # SymPy multiplies out 2 (x + 1), which a result may contain as a product
    return found if formula_text(found) == text else readable(found)


def formula_texts(terms: Mapping[Any, Any]) -> dict[Any, str]:
    """Return the SymPy expressions of a mapping as texts by the same keys, a new dict."""
    return {key: formula_text(c) for key, c in terms.items()}


def formulas(terms: Mapping[Any, Any], names: Sequence[str]) -> dict[Any, Any]:
    """Return the texts of a mapping as SymPy expressions in the coordinates `names` by the same keys, a new dict."""
    return {key: formula(c, names) for key, c in terms.items()}


@lru_cache(maxsize=4096)
def readable(expression: Any) -> Any:
    """Return an equal SymPy expression in the form of fewer operations: expanded, or simplified if it is short enough (`LONGEST_SIMPLIFIED`).

    SymPy takes up to seconds for it. The expansions of a rule for several equations, or of several atoms, have most of their terms in common, so
    the last ones are kept.
    """
    import sympy

    expanded = sympy.expand(decimal(expression, LONGEST_NUMBER, 17))
    if sympy.count_ops(expanded) > LONGEST_SIMPLIFIED:
        return expanded
    if expanded.is_polynomial():
        return min((expanded, sympy.factor_terms(sympy.together(expanded))), key=sympy.count_ops)
    simple = sympy.factor_terms(sympy.simplify(expanded))
    return min((expanded, simple), key=sympy.count_ops)


def shown(expression: Any) -> str:
    """Return a SymPy expression as text for a reader, with decimal numbers of six digits instead of long fractions."""
    return str(decimal(expression))


def decimal(expression: Any, largest: int = LARGEST_SHOWN, digits: int = 6) -> Any:
    """Return a SymPy expression in which floats, and fractions whose numerator or denominator exceeds `largest`, are decimals of `digits` digits."""
    import sympy

    long = [q for q in expression.atoms(sympy.Rational) if max(abs(q.p), q.q) > largest] + list(expression.atoms(sympy.Float))
    return expression.xreplace({q: sympy.Float(str(sympy.N(q, digits)), digits) for q in long})
