"""Optimisers, diagnosis and losses for real networks in torch, and the conversion of SDEs from and to torchsde.

Everything here needs the extra `torch`; `import sdetools` does not load it.

Words of this package:

- batch: what one call of the loss takes, often a tuple (inputs, targets); any nesting of tensors in tuples, lists and mappings.
- shuffle: an endless sequence of batches, determined by one integer seed.
- `dim`: the number of trainable numbers of a network. A gradient is a flat tensor `(dim,)`, in the order of `net.parameters()`.
- H and Sigma: the Hessian of the loss, and the covariance of the gradient of one batch.
- method: one optimiser of the momentum family, named as its class ("HeavyBall") or, as an option, in lower case ("heavy-ball").
- form: how the learning rate `lr` of momentum is to be read: "heavy-ball" (torch's), "sgdm" (the average of Def. 2.3) or "nesterov". The effective learning
rate eta, at which plain SGD would replace momentum, is lr / (1 - momentum) for "heavy-ball" and "nesterov", and lr for "sgdm".
- P(keep): the probability that plain SGD at eta lacks more than a tenth of momentum's progress (the decrease of the loss) at the end of a run. A diagnosis
computes it in stages: "sharpness" from x0 = eta lambda_max, lambda_max the largest eigenvalue of H at the start; "first steps" from R, the loss after 100
steps of plain SGD beside that at the start; "trial" from paired runs with momentum and without, on the same batches.
"""

from __future__ import annotations

from typing import Any

from sdetools._install import install_command
from sdetools._lazy import attach
from sdetools._moved import forward_modules

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


_load, __dir__, __all__ = attach(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"`sdetools.bridge` needs torch; install it: {install_command('torch')}", name="torch") from error
