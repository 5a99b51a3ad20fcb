"""Calling a formula with values, and saying whose error it is when that fails."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sdetools.graph.errors import ArraysOnly, TracingError
from sdetools.graph.value import Value

_LIBRARIES = str(Path(np.__file__).parent), str(Path(__file__).parents[1])
_STANDARD = str(Path(linecache.__file__).parent)


class NotTraceable(TypeError):
    """This part neither traces nor compiles; the message names it, `function` says whether it is a user's text."""

    def __init__(self, message: str, function: bool = False) -> None:
        super().__init__(message)
        self.function = function


def trace(function: Callable[..., Any], part: str, *arguments: Any) -> Any:
    """`function(*arguments)` on values; NotTraceable, with the line, where values are not enough.

    Any other error is the function's own. It goes on as it is, with a note of the part and the line of the user's file.
    """
    try:
        with np.errstate(all="ignore"):
            return function(*arguments)
    except NotTraceable:
        raise
    except Exception as error:
        place = place_of(error)
        if isinstance(error, TracingError) or _about_values(error):
            raise NotTraceable(
                f"{part} cannot be traced ({error}{place and ': ' + place})", function=not isinstance(error, ArraysOnly)
            ) from error
        if not getattr(error, "__notes__", None):  # the innermost part has said it
            error.add_note(f"It was raised by {part}{place and ', ' + place}.")
        raise


def _about_values(error: Exception) -> bool:
    """Whether an operation is missing on values alone: numbers may have it, so this is no error yet."""
    if isinstance(error, AttributeError):
        return isinstance(error.obj, Value) or "'Value'" in str(error)
    return isinstance(error, TypeError) and any(word in str(error) for word in ("'Value'", "type Value", "ufunc"))


def told(error: BaseException) -> str:
    """An error in a user's own text: its kind, its words and its line."""
    place = place_of(error)
    return f"{type(error).__name__}: {error}" + (f", in {place}" if place else "")


def place_of(error: BaseException) -> str:
    """The innermost line outside NumPy, Python's own library and this one, as text; empty if there is none."""
    found, step = "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not file.startswith(_LIBRARIES) and not (file.startswith(_STANDARD) and "site-packages" not in file):
            line = linecache.getline(file, step.tb_lineno).strip()
            found = f"line {step.tb_lineno} of {file}" + (f", `{line}`" if line else "")
        step = step.tb_next
    return found
