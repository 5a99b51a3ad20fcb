"""Paired training runs with and without momentum, from one checkpoint on the same batches, and the progress that the latter lack."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sdetools._moved import RenamedAttribute
from sdetools.bridge.batches import Batches
from sdetools.bridge.curvature import Quantity, student_quantile
from sdetools.bridge.modules import Objective
from sdetools.bridge.torch_optimisers import SGD, named

TOLERANCE = 0.1
"""Plain SGD matches when it lacks less than this fraction of momentum's progress."""
WORST = 2.0
"""The cap for the fraction lacking in one run: the run ends as far above the initial loss as momentum ends below it."""


@dataclass(frozen=True)
class Trial:
    """Result of paired training runs with and without momentum, from one checkpoint on the same batches.

    Losses are means over batches of the same data in a separate shuffle.

    Attributes:
        steps: The number of steps of a run.
        before: The loss at the checkpoint.
        momentum: The losses after the last step with momentum, `(pairs,)`; NaN where a run diverged.
        plain: The losses after the last step of plain SGD, `(pairs,)`, in the same order; NaN where a run diverged.
        shortfall: The fraction of momentum's progress that plain SGD lacks, (L_plain - L_momentum) / (L_before - L_momentum) of the means, with its
            95 % interval.
    """

    steps: int
    before: float
    momentum: np.ndarray
    plain: np.ndarray
    shortfall: Quantity

    lost = RenamedAttribute("shortfall")

    @property
    def advice(self) -> str:
        """The advice of the trial, with the tolerance `TOLERANCE` = 0.1 for `shortfall`.

        It is "drop" (plain SGD can replace momentum) where the interval lies below the tolerance, "keep" where it lies above, else "unsure".
        """
        if self.shortfall.high < TOLERANCE:
            return "drop"
        return "keep" if self.shortfall.low > TOLERANCE else "unsure"


def run_trial(
    model: torch.nn.Module, objective: Objective, source: Batches, form: str, lr: float, momentum: float, plain_lr: float,
    seeds: int, steps: int, device: Any, stream: Callable[[int], int], tick: Callable[[], None],
) -> tuple[Trial, torch.nn.Module | None]:  # fmt: skip
    """Train pairs of copies of a network, with momentum and by plain SGD; while the result is undecided, double the number of pairs.

    Args:
        model: The network at the checkpoint; it is not changed.
        objective: The loss of the network on a batch.
        source: The batches.
        form: The optimiser with momentum: "heavy-ball", "sgdm" or "nesterov".
        lr: Its learning rate.
        momentum: Its momentum.
        plain_lr: The learning rate of plain SGD.
        seeds: The initial number of pairs; it doubles to at most 4 `seeds`.
        steps: The number of steps of a run.
        device: The device of the runs; None for that of the model.
        stream: A function that returns the seed of a shuffle: `stream(3)` for the evaluation, `stream(10 + i)` for both runs of pair i.
        tick: Called after every step, for progress.

    Returns:
        The trial, and the network of the last run with momentum, or None where that run diverged.
    """
    count = max(1, min(source.per_epoch, 1024 // source.size))
    evaluation_batches = list(source.some(stream(3), count))

    def evaluated(net: torch.nn.Module | None) -> float:
        if net is None:
            return math.nan
        with torch.no_grad():
            return float(np.mean([float(objective(net, batch)) for batch in evaluation_batches]))

    def initial_network() -> torch.nn.Module:
        net = copy.deepcopy(model)
        return net if device is None else net.to(device)

    def trained(i: int, plain: bool) -> torch.nn.Module | None:
        net = initial_network()
        own = [p for p in net.parameters() if p.requires_grad]
        optimiser = SGD(own, lr=plain_lr) if plain else named(form)(own, lr=lr, momentum=momentum)
        for batch in source.some(stream(10 + i), steps):
            optimiser.zero_grad()
            value = objective(net, batch)
            if not bool(torch.isfinite(value)):
                return None
            value.backward()
            for p in own:  # the gradient of an embedding may be sparse
                p.grad = None if p.grad is None else p.grad.to_dense()
            optimiser.step()
            tick()
        return net if all(bool(torch.isfinite(p).all()) for p in own) else None

    before = evaluated(initial_network())
    ends: list[tuple[float, float]] = []
    while True:
        for i in range(len(ends), max(seeds, 2 * len(ends))):
            last = trained(i, plain=False)
            ends.append((evaluated(last), evaluated(trained(i, plain=True))))
        with_momentum, plain = np.array(ends).T
        trial = Trial(steps, before, with_momentum, plain, progress_shortfall(before, with_momentum, plain))
        if trial.advice != "unsure" or len(ends) >= 4 * seeds:
            return trial, last


def progress_shortfall(before: float, momentum: np.ndarray, plain: np.ndarray, looks: int = 3) -> Quantity:
    """Return the fraction of momentum's progress that plain SGD lacks, with a 95 % interval by the delta method.

    The fraction is (mean plain - mean momentum) / (before - mean momentum). A pair contributes at most the fraction `WORST` = 2, also if its run of
    plain SGD diverged. If a run with momentum diverged or there was no progress, the value is NaN and the interval unbounded.

    Args:
        before: The loss at the checkpoint.
        momentum: The final losses with momentum, `(pairs,)`, of at least two pairs; NaN or infinite where a run diverged.
        plain: The final losses of plain SGD on the same batches, `(pairs,)`, in the same order.
        looks: How often the interval is inspected; it is valid at all looks simultaneously (Bonferroni). A trial has three.
    """
    if not np.isfinite(momentum).all():
        return Quantity.of(math.nan, -math.inf, math.inf)
    progress = before - float(momentum.mean())
    if progress <= 0:
        return Quantity.of(math.nan, -math.inf, math.inf)
    difference = np.fmin(np.nan_to_num(plain, nan=math.inf) - momentum, WORST * progress)
    value = float(difference.mean()) / progress
    scatter = difference - value * (before - momentum)
    half = student_quantile(len(plain) - 1, looks) * float(scatter.std(ddof=1)) / math.sqrt(len(plain)) / progress
    return Quantity.of(value, value - half, value + half)
