"""What can go wrong while a formula is traced."""

from __future__ import annotations


class TracingError(TypeError):
    """The formula needs a value where there is only a symbol."""


class ArraysOnly(TracingError):
    """A part of which it is known beforehand that it runs on arrays: nothing in a user's text is amiss."""


class TooLong(ValueError):
    """A formula of more operations than a graph may have."""
