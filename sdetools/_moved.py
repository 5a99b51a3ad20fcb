"""Deprecated modules, attributes and arguments: they work for one more release, with a warning that names the replacement."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def forward(old: str, *homes: str, renamed: Mapping[str, str] | None = None, depth: int = 2) -> Callable[[str], Any]:
    """A `__getattr__` that finds a name of the module `old` in the first of the modules `homes` that has it, and warns.

    Args:
        old: The name of the deprecated module.
        homes: Names of modules below `sdetools`.
        renamed: New names by old ones, where a thing was also renamed.
        depth: The stack level of the line that uses the name, as in `warnings.warn`.

    Returns:
        A function of a name. It raises AttributeError for a name that none of the modules has.
    """

    def find(name: str) -> Any:
        new = (renamed or {}).get(name, name)
        for home in () if name.startswith("__") else homes:
            found = getattr(import_module(f"sdetools.{home}"), new, None)
            if found is not None:
                warnings.warn(f"`{old}.{name}` is now `sdetools.{home}.{new}`.", DeprecationWarning, stacklevel=depth)
                return found
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find


class _Forwarding(ModuleType):
    """A deprecated module, of which other modules hold the content."""

    def __init__(self, old: str, *homes: str, renamed: Mapping[str, str] | None = None) -> None:
        super().__init__(old, f"Deprecated: see `sdetools.{homes[0]}`.")
        self.__dict__["_find"] = forward(old, *homes, renamed=renamed, depth=3)

    def __getattr__(self, name: str) -> Any:
        find: Callable[[str], Any] = self.__dict__["_find"]
        return find(name)


def forward_modules(package: str, moved: Mapping[str, str | Sequence[str]], renamed: Mapping[str, str] | None = None) -> None:
    """Registers the deprecated modules of a package, each by the module or modules that hold its content now."""
    for old, homes in moved.items():
        name = f"{package}.{old}"
        sys.modules[name] = _Forwarding(name, *((homes,) if isinstance(homes, str) else homes), renamed=renamed)


class RenamedAttribute:
    """A deprecated attribute of a class and its instances, which reads the attribute that replaces it and warns."""

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        warnings.warn(f"`{self.old}` is now `{self.new}`.", DeprecationWarning, stacklevel=2)
        return getattr(owner if instance is None else instance, self.new)

    def __set__(self, instance: Any, value: Any) -> None:
        warnings.warn(f"`{self.old}` is now `{self.new}`.", DeprecationWarning, stacklevel=2)
        setattr(instance, self.new, value)


def renamed_argument(old: str, given: Any, new: str, value: Any) -> Any:
    """The value of an argument that was renamed, under whichever name the caller of the calling function gave it.

    Args:
        old: The deprecated name.
        given: What was passed under it; None for nothing.
        new: The name that replaces it.
        value: What was passed under that; None for nothing.

    Returns:
        `value`, or `given` with a DeprecationWarning.

    Raises:
        ValueError: Both names were given.
    """
    if given is None:
        return value
    if value is not None:
        raise ValueError(f"`{new}` must be given once; got {new}={value!r} and {old}={given!r}. Drop the deprecated `{old}`.")
    warnings.warn(f"`{old}=` is now `{new}=`.", DeprecationWarning, stacklevel=3)
    return given
