"""Bridges to torch: the optimisers for real networks, and SDEs to and from torchsde. Everything here needs the extra `torch`;
`import sdetools` does not load it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "from_torchsde": "torchsde",
    "to_torchsde": "torchsde",
    **dict.fromkeys(
        ("SGD", "SGDM", "HeavyBall", "Nesterov", "QHM", "PNM", "SNGM", "RandomScaling", "SGDF", "Optimizer", "PlanScheduler"),
        "optimisers",
    ),
    "buffer_bytes": "optimisers",
    "convert": "optimisers",
    "SVAG": "svag",
    "loss_of_module": "modules",
    "Batches": "batches",
    "Diagnosis": "diagnosis",
    "diagnose": "diagnosis",
}
"""Which file holds each public name."""

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'sdetools.bridge' has no attribute {name!r}")
    try:
        return getattr(import_module(f"sdetools.bridge.{_PLACES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "the bridge must have torch; install it: pip install -c constraints.txt 'sdetools[torch]'", name="torch"
        ) from error
