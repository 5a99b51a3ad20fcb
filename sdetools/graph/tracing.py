"""Tracing of a formula, and error messages that name the part and the line of user code that failed."""

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
    """Raised for a part of a simulation that cannot be traced (recorded by a call with symbols), or not compiled for the wanted kind of machine.

    Attributes:
        function: Whether the part is a user's function, so that rewriting it in NumPy helps; False by default.
    """

    def __init__(self, message: str, function: bool = False) -> None:
        super().__init__(message)
        self.function = function


def trace(function: Callable[..., Any], part: str, *arguments: Any) -> Any:
    """Return `function(*arguments)` for symbols as arguments, which record the formula, with errors that name the part and the user's line.

    Args:
        function: A formula in NumPy.
        part: What the formula is, for messages: "the observable".
        *arguments: Symbolic arrays (`graph.value.Value`) of one graph.

    Returns:
        What the formula returns, usually a symbolic array or a sequence of them.

    Raises:
        NotTraceable: If the formula needs numbers; the message names the line. Any other error is the formula's own and propagates, with a
            note such as "It was raised by the observable, line 3 of f.py, `x = g(x)`."
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
        if isinstance(error, TypeError) and "must be Tensor, not Value" in str(error):  # by a function of torch
            raise TypeError(
                f"{part} must use functions of NumPy, such as np.sign for torch.sign{place and ': ' + place}. A loss in torch comes by "
                "`st.losses.from_torch`."
            ) from error
        if not getattr(error, "__notes__", None):  # the innermost part has added its note
            error.add_note(f"It was raised by {part}{place and ', ' + place}.")
        raise


def _about_values(error: Exception) -> bool:
    """Whether only values lack the operation: numbers may support it, so this is not yet an error."""
    if isinstance(error, AttributeError):
        return isinstance(error.obj, Value) or "'Value'" in str(error)
    return isinstance(error, TypeError) and any(word in str(error) for word in ("'Value'", "type Value", "ufunc"))


def error_summary(error: BaseException) -> str:
    """Return kind, message and place of an error as one text: "ValueError: no root, in line 3 of f.py, `x = g(x)`".

    The place is the innermost line of the traceback outside NumPy, the standard library and sdetools (`place_of`); without one, the text ends after
    the message.
    """
    place = place_of(error)
    return f"{type(error).__name__}: {error}" + (f", in {place}" if place else "")


def place_of(error: BaseException) -> str:
    """Return where an error was raised: the innermost line of its traceback outside NumPy, the standard library and sdetools.

    The text has the form "line 3 of f.py, `x = g(x)`" with the full path of the file; it is empty if there is no such line.
    """
    found, step = "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not file.startswith(_LIBRARIES) and not (file.startswith(_STANDARD) and "site-packages" not in file):
            line = linecache.getline(file, step.tb_lineno).strip()
            found = f"line {step.tb_lineno} of {file}" + (f", `{line}`" if line else "")
        step = step.tb_next
    return found
