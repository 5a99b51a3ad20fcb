"""Deprecated names and modules: they go on for one release, with a warning that says where their content is now."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def forward(old: str, *homes: str, renamed: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """A `__getattr__` that finds a name of the module `old` in the first of the modules `homes` that has it, and warns.

    Args:
        old: The name of the deprecated module.
        homes: Names of modules below `sdetools`.
        renamed: New names by old ones, where a thing was also renamed.

    Returns:
        A function of a name. It raises AttributeError for a name that none of the modules has.
    """

    def find(name: str) -> Any:
        new = (renamed or {}).get(name, name)
        for home in () if name.startswith("__") else homes:
            found = getattr(import_module(f"sdetools.{home}"), new, None)
            if found is not None:
                warnings.warn(f"`{old}.{name}` is now `sdetools.{home}.{new}`.", DeprecationWarning, stacklevel=2)
                return found
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find


class _Forwarding(ModuleType):
    """A deprecated module, of which other modules hold the content."""

    def __init__(self, old: str, *homes: str, renamed: Mapping[str, str] | None = None) -> None:
        super().__init__(old, f"Deprecated: see `sdetools.{homes[0]}`.")
        self.__dict__["_find"] = forward(old, *homes, renamed=renamed)

    def __getattr__(self, name: str) -> Any:
        find: Callable[[str], Any] = self.__dict__["_find"]
        return find(name)


def forward_modules(package: str, moved: Mapping[str, str | Sequence[str]], renamed: Mapping[str, str] | None = None) -> None:
    """Registers the deprecated modules of a package, each by the module or modules that hold its content now."""
    for old, homes in moved.items():
        name = f"{package}.{old}"
        sys.modules[name] = _Forwarding(name, *((homes,) if isinstance(homes, str) else homes), renamed=renamed)
