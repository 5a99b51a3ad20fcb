"""Sequences of expressions in coordinates and named numbers, for roots of covariances and for SDEs.

The functions share these arguments: `texts` are the expressions, `names` the names of the coordinates in order, and `constants` pairs of a
name and a value. A constant that occurs in an exponent becomes part of the formula; the others are its parameters.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Constants = tuple[tuple[str, float], ...]


def variable_names(
    texts: Sequence[str], variables: str | Sequence[str] | None, constants: Mapping[str, float]
) -> tuple[str, ...]:
    """Return the names of the coordinates in expressions, a tuple: those given, else x0, x1, ... or all free names alphabetically.

    The free names are those in the expressions that are neither functions nor `constants`. The default is x0, x1, ... if x0 is among them or
    all have the form x3.

    Args:
        texts: The expressions.
        variables: The names, "x y" or a list; None for the default.
        constants: Values of the named numbers in the expressions, by name.

    Raises:
        ValueError: If the names are not different identifiers, or without `variables` there are none, or x0, x1, ... have a gap.

    Example:
        >>> variable_names(["y", "x"], "x y", {}), variable_names(["x0 + x1"], None, {})
        (('x', 'y'), ('x0', 'x1'))
    """
    from sdetools.losses.expression import variables_of
    from sdetools.losses.parser import identifiers

    if variables is None:
        return variables_of(" + ".join(f"({text})" for text in texts), constants)
    return identifiers("variables", variables)


def holds_text(root: Any) -> bool:
    """Return whether `root` is a string, or a list or tuple that contains one at any depth; False for an array."""
    if isinstance(root, str):
        return True
    if isinstance(root, (list, tuple)):
        return any(holds_text(row) for row in root)
    return False


@functools.lru_cache(maxsize=256)
def parsed(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants) -> tuple[Any, ...]:
    """Return the SymPy expressions of the texts, a tuple in their order.

    Args:
        texts: The expressions.
        names: The names of the coordinates.
        constants: Pairs of a name and a value. A constant in an exponent is replaced by its value; the others stay symbols.

    Raises:
        ValueError: If a text is not an expression in these names; the message calls it `root`.
    """
    from sdetools.losses.expression import parse

    return tuple(parse(text, names, dict(constants), "root") for text in texts)


def used_numbers(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names, a tuple, and the values, an array `(n,)`, of the constants that the expressions contain as symbols.

    Constants that do not occur, or that an exponent has replaced by numbers, are left out; the order is that of `constants`.

    Args:
        texts: The expressions.
        names: The names of the coordinates.
        constants: Pairs of a name and a value.
    """
    free = {str(s) for e in parsed(texts, names, constants) for s in e.free_symbols}
    kept = [(name, value) for name, value in constants if name in free]
    return tuple(name for name, _ in kept), np.array([value for _, value in kept])


def structure(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants) -> str:
    """Return a text that identifies the formulas: the texts, the names, and a hash of the parsed expressions.

    The hash depends on the values of constants in exponents, but not on those of the other constants, which are parameters.

    Args:
        texts: The expressions.
        names: The names of the coordinates.
        constants: Pairs of a name and a value.

    Example:
        >>> one, other = (structure(("a*x",), ("x",), (("a", value),)) for value in (1.0, 2.0))
        >>> one == other
        True
    """
    import sympy

    forms = "; ".join(sympy.srepr(e) for e in parsed(texts, names, constants))
    return f"{list(texts)}; {' '.join(names)}; {hashlib.sha256(forms.encode()).hexdigest()[:16]}"


@functools.lru_cache(maxsize=256)
def compiled(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants, order: int) -> Callable[..., Any]:
    """Return a function f(x, p) that evaluates the expressions (order 0) or their gradients (order 1).

    Args:
        texts: The expressions.
        names: The names of the coordinates.
        constants: Pairs of a name and a value.
        order: 0 or 1.

    Returns:
        The function. `x` are points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`; `p` are values of the constants that `used_numbers`
        returns, in that order. The result is a list of numbers, arrays `(paths,)` or traced values: one for each expression, or the dim
        partial derivatives of the first expression, then those of the second, and so on. One that does not depend on x is a float.
    """
    from sdetools.losses.expression import compile, derivatives

    wanted = [d for e in parsed(texts, names, constants) for d in derivatives(e, names, order).values()]
    return compile(wanted, names, used_numbers(texts, names, constants)[0])
