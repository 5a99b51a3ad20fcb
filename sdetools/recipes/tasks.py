"""What the training loop is given and what it returns: the task of a run, jobs to be executed, and finished runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sdetools.noise.oracle import svag_weights


@dataclass
class TrainingTask:
    """Everything that defines a training run except its folder and its seed. The model is trained in training mode.

    A step takes one batch, with SVAG two; batches are numbered 0, 1, ... through the run.

    Attributes:
        model: The network.
        optimiser: Its torch optimiser, without SVAG; its learning rates are those that `factor` multiplies.
        steps: The number of steps, without SVAG; 0 only evaluates the model.
        batch: `batch(number, piece, pieces)` returns part `piece` of `pieces` equal parts of batch `number`, a function of its arguments only. It is
            called in the order of the steps, in a background thread unless the device is the CPU.
        loss_of: `loss_of(model, batch)` returns the mean loss over the samples, a scalar tensor; the batch is on the run's device.
        evaluate: `evaluate(model)` returns a dict of numbers for the log, by name. It is called in all processes that share the run: it may work on a
            share of the data (`processes.own_share`) and add up the sums (`processes.summed`); the first process's numbers are logged.
        factor: `factor(k)` is the learning rate of step k = 0, 1, ... relative to the optimiser's.
        every: The number of steps taken (with SVAG, of its smaller ones) between evaluations; there is one at the end too.
        pieces: The number of parts of a batch, which pass through the network one after the other. Several processes take a multiple of their number.
        l: The amplification of SVAG, an integer >= 1: l times as many steps, each of two batches, at lr / l, with `factor` stretched. None without SVAG.
        clip: The maximal 2-norm of the gradient of all parameters, to which longer ones are rescaled; None for no limit.
        precision: "float32", "bfloat16" or "float16" (autocast; float16 with loss scaling), or "float64".
        size: The number of samples in a batch; only plans at a given rate need it.
        evaluated: The number of samples that an evaluation passes through the network; only plans at a given rate need it.
    """

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    steps: int
    batch: Callable[[int, int, int], Any]
    loss_of: Callable[[torch.nn.Module, Any], torch.Tensor]
    evaluate: Callable[[torch.nn.Module], dict[str, float]]
    factor: Callable[[int], float] = lambda k: 1.0
    every: int = 100
    pieces: int = 1
    l: int | None = None
    clip: float | None = None
    precision: str = "float32"
    size: int | None = None
    evaluated: int | None = None

    @property
    def total(self) -> int:
        """The number of steps of the optimiser: `steps`, times l with SVAG."""
        return self.steps * (self.l or 1)

    @property
    def evaluations(self) -> list[int]:
        """The numbers of steps done at which the model is evaluated: the multiples of `every`, and the end."""
        return sorted({*range(self.every, self.total + 1, self.every), self.total})

    def parts(self, k: int) -> list[tuple[float, int]]:
        """Return pairs (weight in the loss, number) of the batches of step `k`: [(1.0, k)] without SVAG; with it, batches 2 k and 2 k + 1.

        With SVAG the weights are r_1 = (1 - sqrt(2 l - 1)) / 2 and r_2 = 1 - r_1; at l = 1 only batch 2 k + 1 is returned, because r_1 = 0.
        """
        if self.l is None:
            return [(1.0, k)]
        return [(w, 2 * k + i) for i, w in enumerate(svag_weights(self.l)) if w]


class Job(NamedTuple):
    """A run to be executed.

    Attributes:
        name: The name of the run, and of its folder.
        make: A function without arguments that returns its task. For workers it must be a module-level function, or a partial of one.
        seed: The seed of its initial weights and of the draws during training.
        keep: Whether to keep its weights, in a last checkpoint.
        like: Words for the plan, such as "batch 256". Jobs with the same words cost the same, and are listed together; "" stands for the name.
    """

    name: str
    make: Callable[[], TrainingTask]
    seed: int = 0
    keep: bool = True
    like: str = ""


@dataclass
class TrainingRun:
    """A finished run.

    Attributes:
        name: The name of the run.
        final: The last row of its log: the numbers of the last step by name, such as "step", "lr", "loss" and "test_accuracy". A number that was not finite
            is None, and a run that diverged has "diverged": True.
        log: All rows of its log, one dict per step; those with an evaluation have its numbers too.
        folder: Its folder, with log.jsonl, final.json and, if its weights were kept, a checkpoint.
    """

    name: str
    final: dict[str, float]
    log: list[dict[str, Any]]
    folder: Path

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Return the numbers of steps done at the rows with a logged number `name`, and its values, two lists of equal length.

        A value that was not finite is None.
        """
        rows = [row for row in self.log if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]
