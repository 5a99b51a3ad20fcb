"""Deprecated: what was here is in `sdetools.estimates` and `sdetools.studies`. Names and modules go on for one release, with a warning."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

MOVED = {
    "clock": "studies.clock",
    "distance": "studies.distance",
    "estimate": "estimates",
    "extrapolation": "studies.extrapolation",
    "gap": "studies.gap",
    "known": "studies.known",
    "level_search": "studies.multilevel.search",
    "levels": "studies.multilevel.levels",
    "multilevel": "studies.multilevel.multilevel",
    "multilevel_result": "studies.multilevel.result",
    "observables": "studies.observables",
    "ranges": "studies.ranges",
    "resampling": "estimates.resampling",
    "run": "studies.means",
    "slow": "studies.slow_clock",
    "statistics": "studies.statistics",
    "study": "studies.order",
    "trajectories": "studies.kept_paths",
    "work": "studies.execution",
}
"""Where each module's content went."""
HOMES = ("estimates", "studies", "estimates.band", "estimates.interval")


class _Moved(ModuleType):
    """A module that hands on what others have now."""

    def __init__(self, old: str, *homes: str) -> None:
        super().__init__(f"{__name__}.{old}" if old else __name__, f"Deprecated: see `sdetools.{homes[0]}`.")
        self.__dict__["_homes"] = homes

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for home in self.__dict__["_homes"]:
                found = getattr(import_module(f"sdetools.{home}"), name, None)
                if found is not None:
                    text = f"`{self.__name__}.{name}` is now `sdetools.{home}.{name}`."
                    warnings.warn(text, DeprecationWarning, stacklevel=2)
                    return found
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


for _old, _new in MOVED.items():
    sys.modules[f"{__name__}.{_old}"] = _Moved(_old, *(HOMES if _new == "estimates" else (_new,)))

__getattr__ = _Moved("", *HOMES).__getattr__
