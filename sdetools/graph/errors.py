"""Errors that are raised while a formula is traced."""

from __future__ import annotations


class TracingError(TypeError):
    """Raised where a formula needs numbers but gets traced values, which are symbols that record its operations (`graph.value.Value`).

    Examples are `if x > 0`, `float(x)`, and a function of NumPy that cannot be recorded.
    """


class ArraysOnly(TracingError):
    """Raised if a part of the library that can only run on arrays gets a traced value, a symbol: the formula is right, but cannot be compiled."""


class TooLong(ValueError):
    """Raised for a formula that is too long: for a graph (200,000 operations), for its evaluation at points (2^23 numbers), or for generated code."""
