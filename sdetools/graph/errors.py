"""Errors that are raised while a formula is traced."""

from __future__ import annotations


class TracingError(TypeError):
    """The formula needs a number where there is only a traced value."""


class ArraysOnly(TracingError):
    """Raised by a part that is known to run on arrays only; the user's code is not at fault."""


class TooLong(ValueError):
    """A formula has more operations than a graph may have."""
