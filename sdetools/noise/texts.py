"""Sequences of expressions in coordinates and named numbers, for roots of covariances and for SDEs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sdetools import _check

Constants = tuple[tuple[str, float], ...]


def variable_names(
    texts: Sequence[str], variables: str | Sequence[str] | None, constants: Mapping[str, float]
) -> tuple[str, ...]:
    """Return the coordinate names of expressions: those given, or by default x0, x1, ... or all free names in alphabetical order.

    Example:
        >>> variable_names(["y", "x"], "x y", {}), variable_names(["x0 + x1"], None, {})
        (('x', 'y'), ('x0', 'x1'))
    """
    from sdetools.losses.expression import variables_of
    from sdetools.losses.parser import identifiers

    if variables is None:
        return variables_of(" + ".join(f"({text})" for text in texts), constants)
    return identifiers("variables", variables)


def named_numbers(parameters: Mapping[str, float] | None) -> dict[str, float]:
    """Validate the named numbers of expressions: finite values by name, in the order given."""
    return {name: _check.number(f"parameters[{name!r}]", value) for name, value in dict(parameters or {}).items()}


def holds_text(root: Any) -> bool:
    """Return whether nested sequences contain a string."""
    if isinstance(root, str):
        return True
    if isinstance(root, (list, tuple)):
        return any(holds_text(row) for row in root)
    return False


@functools.lru_cache(maxsize=256)
def parsed(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants) -> tuple[Any, ...]:
    """Return the SymPy expressions of texts."""
    from sdetools.losses.expression import parse

    return tuple(parse(text, names, dict(constants)) for text in texts)


def used_numbers(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and values of the constants that are parameters of the parsed expressions."""
    free = {str(s) for e in parsed(texts, names, constants) for s in e.free_symbols}
    kept = [(name, value) for name, value in constants if name in free]
    return tuple(name for name, _ in kept), np.array([value for _, value in kept])


def structure(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants) -> str:
    """Return the texts with a hash of their parsed expressions, which contain the numbers in exponents but not the parameters."""
    import sympy

    forms = "; ".join(sympy.srepr(e) for e in parsed(texts, names, constants))
    return f"{list(texts)}; {' '.join(names)}; {hashlib.sha256(forms.encode()).hexdigest()[:16]}"


@functools.lru_cache(maxsize=256)
def compiled(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants, order: int) -> Callable[..., Any]:
    """Compile the expressions (order 0) or their gradients (order 1), one expression after another."""
    from sdetools.losses.expression import compile, derivatives

    wanted = [d for e in parsed(texts, names, constants) for d in derivatives(e, names, order).values()]
    return compile(wanted, names, used_numbers(texts, names, constants)[0])
