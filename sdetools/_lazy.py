"""Packages whose names are loaded at their first use, so that an import is quick."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazily(package: str, home: Mapping[str, str], listed: Sequence[str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose names are loaded on demand.

    Args:
        package: The package's import path.
        home: For each name the module of the package that defines it.
        listed: What `dir` of the package returns.

    Example:
        >>> load, names = lazily("sdetools", {"select": "_arrays"}, ["select"])
        >>> load("select").__name__, names()
        ('select', ['select'])
    """

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: list(listed)
