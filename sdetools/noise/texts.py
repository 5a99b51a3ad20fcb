"""Expressions as rows of texts, in coordinates and named numbers: what roots of covariances and SDEs are written in."""

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
    """Coordinate names of expressions: those given, or as for a loss x0, x1, ..., or the free names in alphabetical order.

    >>> variable_names(["y", "x"], "x y", {}), variable_names(["x0 + x1"], None, {})
    (('x', 'y'), ('x0', 'x1'))
    """
    from sdetools.losses.expression import variables_of
    from sdetools.losses.parser import identifiers

    if variables is None:
        return variables_of(" + ".join(f"({text})" for text in texts), constants)
    return identifiers("variables", variables)


def named_numbers(parameters: Mapping[str, float] | None) -> dict[str, float]:
    """Names and finite values of the numbers in expressions, in the order given."""
    return {name: _check.number(f"parameters[{name!r}]", value) for name, value in dict(parameters or {}).items()}


def holds_text(root: Any) -> bool:
    """Whether nested sequences hold a text."""
    if isinstance(root, str):
        return True
    if isinstance(root, (list, tuple)):
        return any(holds_text(row) for row in root)
    return False


@functools.lru_cache(maxsize=256)
def parsed(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants) -> tuple[Any, ...]:
    """The expressions of texts."""
    from sdetools.losses.expression import parse

    return tuple(parse(text, names, dict(constants)) for text in texts)


def used_numbers(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and values of the constants that are parameters of the parsed expressions."""
    free = {str(s) for e in parsed(texts, names, constants) for s in e.free_symbols}
    kept = [(name, value) for name, value in constants if name in free]
    return tuple(name for name, _ in kept), np.array([value for _, value in kept])


def structure(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants) -> str:
    """The texts, and a digest of what they parse to: numbers in exponents are part of it, parameters are not."""
    import sympy

    forms = "; ".join(sympy.srepr(e) for e in parsed(texts, names, constants))
    return f"{list(texts)}; {' '.join(names)}; {hashlib.sha256(forms.encode()).hexdigest()[:16]}"


@functools.lru_cache(maxsize=256)
def compiled(texts: tuple[str, ...], names: tuple[str, ...], constants: Constants, order: int) -> Callable[..., Any]:
    """The expressions, or (order 1) their gradients, one expression after another."""
    from sdetools.losses.expression import compile, derivatives

    wanted = [d for e in parsed(texts, names, constants) for d in derivatives(e, names, order).values()]
    return compile(wanted, names, used_numbers(texts, names, constants)[0])
