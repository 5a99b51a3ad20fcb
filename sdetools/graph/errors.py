"""Errors that are raised while a formula is traced."""

from __future__ import annotations


class TracingError(TypeError):
    """Raised where a formula needs numbers but gets traced values: by `if x > 0`, by `float(x)`, or by a function of NumPy without a traced form."""


class ArraysOnly(TracingError):
    """Raised if a part of the library that can only run on arrays gets a traced value: the formula is right, but cannot be compiled."""


class TooLong(ValueError):
    """Raised for a formula that is too long: for a graph (200,000 operations), for its evaluation at points, or for a kernel's source text."""
