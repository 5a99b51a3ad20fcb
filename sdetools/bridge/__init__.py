"""Bridges to torch: the optimisers for real networks, and SDEs to and from torchsde. Everything here needs the extra `torch`;
`import sdetools` does not load it."""

from __future__ import annotations

from typing import Any

from .._lazy import lazily

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


_load, __dir__ = lazily(__name__, _PLACES, __all__)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "the bridge must have torch; install it: pip install -c constraints.txt 'sdetools[torch]'", name="torch"
        ) from error
