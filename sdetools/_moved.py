"""Deprecated modules, attributes and arguments: they work for one more release, with a warning that names the replacement."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from sdetools._lazy import unknown


def forward(old: str, *homes: str, renamed: Mapping[str, str] | None = None, depth: int = 2) -> Callable[[str], Any]:
    """Return a `__getattr__` for a deprecated module: it finds each name in the modules that replace it, and warns when it does.

    Args:
        old: The name of the deprecated module, for messages.
        homes: Names of modules below `sdetools`, such as "claims.context", searched in this order.
        renamed: A dict from old to new names of things that were also renamed; None for none.
        depth: The argument `stacklevel` of `warnings.warn`; 2 attributes the warning to the code that reads the attribute.

    Returns:
        A function of a name that returns the object with a DeprecationWarning. It raises AttributeError for a name that none of the modules has,
        and for names that begin with two underscores.
    """

    def find(name: str) -> Any:
        new = (renamed or {}).get(name, name)
        for home in () if name.startswith("__") else homes:
            found = getattr(import_module(f"sdetools.{home}"), new, None)
            if found is not None:
                warnings.warn(f"`{old}.{name}` is now `sdetools.{home}.{new}`.", DeprecationWarning, stacklevel=depth)
                return found
        names = vars(sys.modules[old]).get("__all__", ()) if old in sys.modules else ()
        raise unknown(old, name, names)

    return find


class _Forwarding(ModuleType):
    """A deprecated module named `old`, whose content is in the modules `homes` below `sdetools`; see `forward` for the arguments."""

    def __init__(self, old: str, *homes: str, renamed: Mapping[str, str] | None = None) -> None:
        super().__init__(old, f"Deprecated: see `sdetools.{homes[0]}`.")
        self.__dict__["_find"] = forward(old, *homes, renamed=renamed, depth=3)

    def __getattr__(self, name: str) -> Any:
        find: Callable[[str], Any] = self.__dict__["_find"]
        return find(name)


def forward_modules(package: str, moved: Mapping[str, str | Sequence[str]], renamed: Mapping[str, str] | None = None) -> None:
    """Register the deprecated modules of a package in `sys.modules`, so that they can still be imported; reading a name of one warns.

    Args:
        package: The full name of the package, such as "sdetools.claims".
        moved: A dict from the last part of a deprecated module's name to the module or modules below `sdetools` that have its content now, such
            as {"run": "claims.context"}.
        renamed: A dict from old to new names of things that were also renamed; None for none.
    """
    for old, homes in moved.items():
        name = f"{package}.{old}"
        sys.modules[name] = _Forwarding(name, *((homes,) if isinstance(homes, str) else homes), renamed=renamed)


class RenamedAttribute:
    """A descriptor for a deprecated attribute: reading or setting it acts on the attribute `new` that replaces it, with a DeprecationWarning.

    Args:
        new: The name of the attribute that replaces it.
    """

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
    """Return the value of an argument that was renamed, whichever of its two names the caller has used.

    Args:
        old: The deprecated name.
        given: What was passed under the deprecated name; None for nothing.
        new: The name that replaces it.
        value: What was passed under the new name; None for nothing.

    Returns:
        `value` if `given` is None, else `given`, with a DeprecationWarning attributed to the caller of the calling function.

    Raises:
        ValueError: If both names were given.
    """
    if given is None:
        return value
    if value is not None:
        raise ValueError(f"`{new}` must be given once; got {new}={value!r} and {old}={given!r}. Drop the deprecated `{old}`.")
    warnings.warn(f"`{old}=` is now `{new}=`.", DeprecationWarning, stacklevel=3)
    return given
