"""Formulas of SymPy as texts that the parser of expressions reads, so that a file of a result contains no code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {"Abs": "abs", "Magnitude": "abs", "SignFunction": "sign", "Larger": "max"}
"""The names that functions of SymPy have in expressions, where they differ."""


def formula_text(expression: Any) -> str:
    """Return a SymPy expression as a text that `formula` reads.

    Example:
        >>> import sympy
        >>> formula_text(sympy.Abs(sympy.Symbol("x")) / sympy.sqrt(sympy.pi) + sympy.E)
        'e + abs(x)/sqrt(pi)'
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
    """Return the SymPy expression of a text in the coordinates `names`; an expression is returned as it is.

    Raises:
        ValueError: If the text is no expression of these names, or has more than 10,000 characters.
    """
    if not isinstance(text, str):
        return text
    from sdetools.exact.generators.generator_result import readable
    from sdetools.losses.parser import Domain, parse

    found = parse(text, names)
    found = found.xreplace({d: 0 for d in found.atoms(Domain)})  # the terms by which an expression keeps the domain of a root
    # SymPy multiplies out 2 (x + 1), which a result may contain as a product
    return found if formula_text(found) == text else readable(found)


def formula_texts(terms: Mapping[Any, Any]) -> dict[Any, str]:
    """Return the formulas of a mapping as texts."""
    return {key: formula_text(c) for key, c in terms.items()}


def formulas(terms: Mapping[Any, Any], names: Sequence[str]) -> dict[Any, Any]:
    """Return the texts of a mapping as formulas in the coordinates `names`."""
    return {key: formula(c, names) for key, c in terms.items()}
