"""Bridges to torch: SDEs to and from `torchsde`. Everything here needs the extra `torch`; `import sdetools` does not load it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdetools.bridge.torchsde import from_torchsde, to_torchsde

__all__ = ["from_torchsde", "to_torchsde"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sdetools.bridge' has no attribute {name!r}")
    try:
        return getattr(import_module("sdetools.bridge.torchsde"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "the bridge must have torch; install it: pip install -c constraints.txt 'sdetools[torch]'", name="torch"
        ) from error
