"""Errors that are raised while a formula is traced."""

from __future__ import annotations


class TracingError(TypeError):
    """Raised where a formula needs numbers and gets a traced value: `if x > 0`, `float(x)`, a function of NumPy that cannot be traced."""


class ArraysOnly(TracingError):
    """Raised by a part of the library that runs on arrays only and gets a traced value; the user's code is not at fault."""


class TooLong(ValueError):
    """Raised for a formula with more operations than a graph, its evaluation or a kernel may have."""
