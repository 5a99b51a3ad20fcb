"""The identity of a user's function as text: stored results are found by a key of what was computed, and this text is part of the key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np


def function_identity(function: Callable[..., Any]) -> str:
    """Return a text that identifies a function: its import path and a digest of its code, positional defaults and closure.

    Args:
        function: Any callable. For a Numba function, the Python function is used.

    Returns:
        `module.name#digest`. The digest changes with the code, and with the numbers, text, arrays and functions among the positional default
        values and in the closure. Other objects there count by type only; keyword-only defaults and global variables do not count. For a callable
        without `__code__`, such as a built-in function, a `functools.partial` or an object with `__call__`, `module.name` of it or of its class.

    Example:
        >>> function_identity(function_identity).split("#")[0]
        'sdetools._identity.function_identity'
    """
    function = getattr(function, "py_func", function)
    code = getattr(function, "__code__", None)
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    if code is None:
        return name
    closure = [_content(cell.cell_contents) for cell in function.__closure__ or ()]
    text = repr((_code_text(code), list(map(_content, function.__defaults__ or ())), closure))
    return f"{name}#{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _code_text(code: Any) -> tuple[Any, ...]:
    constants = [_code_text(c) if hasattr(c, "co_code") else repr(c) for c in code.co_consts]
    return code.co_code.hex(), constants, code.co_names, code.co_varnames


def _content(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype}{value.shape}{hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, (int, float, complex, str, bytes, bool, type(None), tuple, list)):
        return repr(value)
    return function_identity(value) if callable(value) else type(value).__qualname__
