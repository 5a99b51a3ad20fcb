"""Optimisers, diagnosis and losses for real networks in torch, and the conversion of SDEs from and to torchsde.

Everything here needs the extra `torch`; `import sdetools` does not load it.
"""

from __future__ import annotations

from typing import Any

from sdetools._lazy import lazily
from sdetools._moved import forward_modules

_PLACES = {
    "from_torchsde": "torchsde",
    "to_torchsde": "torchsde",
    **dict.fromkeys(
        ("SGD", "SGDM", "HeavyBall", "Nesterov", "QHM", "PNM", "SNGM", "RandomScaling", "SGDF", "Optimizer", "PlanScheduler"),
        "torch_optimisers",
    ),
    "buffer_bytes": "torch_optimisers",
    "convert": "torch_optimisers",
    "SVAG": "svag",
    "loss_of_module": "modules",
    "Batches": "batches",
    "Diagnosis": "diagnosis",
    "diagnose": "diagnosis",
}
"""The module that defines each public name."""

__all__ = [*_PLACES]

MOVED = {
    **{name: f"recipes.{name}" for name in ("training", "vision", "text", "imagefolder", "checkpoint", "processes", "logs")},
    **{f"recipes.{name}": f"recipes.{name}" for name in ("resnet32_cifar10", "resnet50_imagenet", "roberta_few_shot")},
    "data": "recipes.datasets",
    "optimisers": "bridge.torch_optimisers",
    "recipes": "recipes",
}
"""Modules that were moved out of this package, with their new locations."""

_RENAMED = {
    "Task": "TrainingTask",
    "Run": "TrainingRun",
    "Outcome": "RecipeOutcome",
    "Pictures": "LabelledImages",
    "PictureBatches": "ImageBatches",
}
forward_modules(__name__, MOVED, _RENAMED)


_load, __dir__ = lazily(__name__, _PLACES, __all__)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "`sdetools.bridge` needs torch; install it: pip install -c constraints.txt 'sdetools[torch]'", name="torch"
        ) from error
