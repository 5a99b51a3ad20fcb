"""The identity of a user's function as text: stored results are found by a key of what was computed, and this text is part of the key."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np


def function_identity(function: Callable[..., Any]) -> str:
    """Return a text that identifies what a function computes: its import path and a digest of all that it can read.

    Args:
        function: Any callable: a function, a method, a `functools.partial`, an object with `__call__`, a Numba function.

    Returns:
        `module.name#digest`. The digest changes with the code and with the contents of default values, of the closure, of the arguments of a
        partial, of the object of a method, and of the global variables that the code names: numbers, texts, arrays, tensors, collections,
        objects by their attributes, and functions in turn. Of functions of installed packages, and of modules and classes, only the name counts.

    Example:
        >>> import functools
        >>> from sdetools._identity import function_identity
        >>> function_identity(function_identity).split("#")[0]
        'sdetools._identity.function_identity'
        >>> function_identity(functools.partial(max, 1)) == function_identity(functools.partial(max, 2))
        False
    """
    return f"{_name(function)}#{hashlib.sha256(_content(function, {}).encode()).hexdigest()[:16]}"


def of_package(value: Any) -> bool:
    """Return whether the class of a value, or a class that it extends, belongs to this package."""
    return any(cls.__module__.partition(".")[0] == "sdetools" for cls in type(value).__mro__)


def _name(function: Any) -> str:
    """Return the import path "module.name" of a callable, or that of its class if it has no name of its own."""
    own = getattr(function, "py_func", function)
    named = own if hasattr(own, "__name__") else type(own)
    return f"{getattr(own, '__module__', None) or type(own).__module__}.{getattr(named, '__qualname__', named.__name__)}"


def _content(value: Any, seen: dict[int, Any]) -> str:
    """Return a text that changes with the content of a value; an object that was met before, in `seen` by its `id`, stands for its type."""
    value = getattr(value, "py_func", value)  # of Numba
    if isinstance(value, (int, float, complex, str, bytes, bool, type(None), np.generic)):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, (ModuleType, type)):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(
        value, "detach"
    ):  # a tensor; open files have a `detach` too
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype}{value.shape}{hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if id(value) in seen:
        return type(value).__qualname__
    seen[id(value)] = value  # kept alive, so that no other object has its id
    inner = functools.partial(_content, seen=seen)
    if isinstance(value, np.ndarray):
        return _joined(f"array{value.shape}", map(inner, value.ravel()))
    if isinstance(value, Mapping):
        return _joined(type(value).__name__, (f"{inner(k)}: {inner(v)}" for k, v in value.items()))
    if isinstance(value, (tuple, list, set, frozenset)):
        parts = map(inner, value)
        return _joined(type(value).__name__, sorted(parts) if isinstance(value, (set, frozenset)) else parts)
    if isinstance(value, functools.partial):
        return f"partial{inner(value.func)}{inner(value.args)}{inner(value.keywords)}"
    if isinstance(value, MethodType):
        own = value.__self__
        return f"method{inner(value.__func__)}{inner(own) if isinstance(own, type) else _name(own) + _attributes(own, seen)}"  # not the identity
    if isinstance(value, FunctionType):
        closure = [cell.cell_contents for cell in value.__closure__ or () if _is_set(cell)]
        read = [] if _is_installed(value) else sorted({n for n in _names(value.__code__) if n in value.__globals__})
        defaults = value.__defaults__, value.__kwdefaults__
        return f"{_name(value)}{_code_text(value.__code__)}{inner(defaults)}{inner(closure)}{inner({n: value.__globals__[n] for n in read})}"
    if of_package(value) and isinstance(identity := getattr(value, "identity", None), str):
        return identity
    call = vars(type(value)).get("__call__")
    return f"{_name(value)}{inner(call) if isinstance(call, FunctionType) else ''}{_attributes(value, seen)}"


def _attributes(value: Any, seen: dict[int, Any]) -> str:
    """Return a text that changes with the content of an object's attributes, without cached properties; `seen` is as in `_content`."""
    seen[id(value)] = value
    state = getattr(value, "__dict__", None) or {n: getattr(value, n, None) for n in getattr(type(value), "__slots__", ())}
    kept = {n: v for n, v in state.items() if not isinstance(getattr(type(value), n, None), functools.cached_property)}
    return _content(kept, seen)


def _joined(kind: str, parts: Iterable[str]) -> str:
    """Return the texts `parts` of a collection's entries as one text, "kind(part, part)"; a repr would escape every quote again at each level."""
    return f"{kind}({', '.join(parts)})"


def _code_text(code: CodeType) -> tuple[Any, ...]:
    """Return a tuple that changes with what a code object does: its instructions, constants (as texts), and the names of globals and variables."""
    constants = [_code_text(c) if isinstance(c, CodeType) else _content(c, {}) for c in code.co_consts]
    return code.co_code.hex(), constants, code.co_names, code.co_varnames


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that a code object and those within it read, among them all global variables."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_set(cell: Any) -> bool:
    """Return whether a variable of a closure has a value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_installed(function: FunctionType) -> bool:
    """Return whether a function belongs to Python, to this package or to another installed one: its globals are not a user's."""
    top = (function.__module__ or "").partition(".")[0]
    file = function.__code__.co_filename
    return top in sys.stdlib_module_names or top == "sdetools" or "site-packages" in file or "dist-packages" in file
