"""Packages whose public names are imported when they are first used, and errors for names that they do not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lazy_loader


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return the tuple (`__getattr__`, `__dir__`, `__all__`) of a package whose public names are those of the stub beside its `__init__.py`.

    The stub `__init__.pyi` imports each public name from its file. `__getattr__` imports it when it is first used, and raises AttributeError with a
    suggestion for any other name.

    Args:
        package: The package's `__name__`.
        file: The package's `__file__`.

    Example:
        >>> import sdetools as st
        >>> st.losses.quadratc
        Traceback (most recent call last):
        ...
        AttributeError: module 'sdetools.losses' has no attribute 'quadratc'. Did you mean `quadratic`?
    """
    load, listed, names = lazy_loader.attach_stub(package, file)

    def find(name: str) -> Any:
        """Return the public object of a name, which is imported if necessary; AttributeError for another name."""
        if name not in names:
            raise unknown(package, name, names)
        return load(name)

    return find, listed, names


def list_public_names(module: dict[str, Any]) -> None:
    """Give a module that defines its names itself the `__dir__` that lists the public ones, and the `__getattr__` that refuses all others.

    They are set here, and not in the module, because to a type checker a module with a `__getattr__` has every attribute.

    Args:
        module: The module's `globals()`. Its public names are those of `__all__`, else those of its functions and classes.
    """

    def public() -> list[str]:
        """Return the public names of the module, sorted."""
        own = (name for name, thing in module.items() if getattr(thing, "__module__", "") == module["__name__"])
        return sorted(module.get("__all__") or (name for name in own if not name.startswith("_")))

    def find(name: str) -> Any:
        """Raise AttributeError for a name that the module does not define."""
        raise unknown(module["__name__"], name, public())

    module.update(__getattr__=find, __dir__=public)


def unknown(package: str, name: str, known: Iterable[str]) -> AttributeError:
    """Return, without raising it, the error of a module that has no attribute of this name, with the nearest known name as a suggestion.

    Args:
        package: The name of the module.
        name: The name of the attribute.
        known: The names of its attributes.
    """
    from sdetools._check import suggestion  # which imports NumPy

    # Private names are asked for by tools, not by people.
    meant = "" if name.startswith("_") else suggestion(name, known)
    return AttributeError(f"module {package!r} has no attribute {name!r}{f'. {meant}' if meant else ''}")
