"""Trials: runs with momentum and without from one checkpoint on the same batches, and what the second lack beside the first."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sdetools.bridge.batches import Batches
from sdetools.bridge.curvature import Quantity, student
from sdetools.bridge.modules import Objective
from sdetools.bridge.torch_optimisers import SGD, named

TOLERANCE = 0.1
"""Plain SGD matches when it loses less than this part of the progress that momentum makes."""
WORST = 2.0
"""The largest part that a run counts for: it ends as far above the start as momentum ends below it."""


@dataclass(frozen=True)
class Trial:
    """Paired runs from one checkpoint on the same batches: losses after the last step, `(seeds,)`, on batches of the same data in a shuffle of
    their own."""

    steps: int
    before: float
    momentum: np.ndarray
    plain: np.ndarray
    lost: Quantity
    """The part of momentum's progress that plain SGD lacks: (L_plain - L_momentum) / (L_before - L_momentum), over the seeds."""

    @property
    def advice(self) -> str:
        """ "drop" where the interval lies below the tolerance, "keep" where it lies above, else "unsure"."""
        if self.lost.high < TOLERANCE:
            return "drop"
        return "keep" if self.lost.low > TOLERANCE else "unsure"


def run_trial(
    model: torch.nn.Module, objective: Objective, source: Batches, form: str, lr: float, momentum: float, plain_lr: float,
    seeds: int, steps: int, device: Any, stream: Callable[[int], int], tick: Callable[[], None],
) -> tuple[Trial, torch.nn.Module | None]:  # fmt: skip
    """The trial, and the network of the last run with momentum; None where that diverges. `stream(i)` numbers the shuffles."""
    few = max(1, min(source.per_epoch, 1024 // source.size))
    held = list(source.some(stream(3), few))

    def judged(net: torch.nn.Module | None) -> float:
        if net is None:
            return math.nan
        with torch.no_grad():
            return float(np.mean([float(objective(net, batch)) for batch in held]))

    def fresh() -> torch.nn.Module:
        net = copy.deepcopy(model)
        return net if device is None else net.to(device)

    def trained(i: int, plain: bool) -> torch.nn.Module | None:
        net = fresh()
        own = [p for p in net.parameters() if p.requires_grad]
        optimiser = SGD(own, lr=plain_lr) if plain else named(form)(own, lr=lr, momentum=momentum)
        for batch in source.some(stream(10 + i), steps):
            optimiser.zero_grad()
            value = objective(net, batch)
            if not bool(torch.isfinite(value)):
                return None
            value.backward()
            for p in own:  # an embedding's sparse gradient
                p.grad = None if p.grad is None else p.grad.to_dense()
            optimiser.step()
            tick()
        return net if all(bool(torch.isfinite(p).all()) for p in own) else None

    before = judged(fresh())
    ends: list[tuple[float, float]] = []
    while True:
        for i in range(len(ends), max(seeds, 2 * len(ends))):
            last = trained(i, plain=False)
            ends.append((judged(last), judged(trained(i, plain=True))))
        with_momentum, plain = np.array(ends).T
        trial = Trial(steps, before, with_momentum, plain, lost_progress(before, with_momentum, plain))
        if trial.advice != "unsure" or len(ends) >= 4 * seeds:
            return trial, last


def lost_progress(before: float, momentum: np.ndarray, plain: np.ndarray, looks: int = 3) -> Quantity:
    """The part of momentum's progress that plain SGD lacks: (mean plain - mean momentum) / (before - mean momentum), by the delta method.

    The interval is good at each of so many `looks`: the trial has three. A run of plain SGD counts as at most `WORST`: one that diverges says no more than that it did.
    """
    if not np.isfinite(momentum).all():
        return Quantity.of(math.nan, -math.inf, math.inf)
    progress = before - float(momentum.mean())
    if progress <= 0:
        return Quantity.of(math.nan, -math.inf, math.inf)
    difference = np.fmin(np.nan_to_num(plain, nan=math.inf) - momentum, WORST * progress)
    value = float(difference.mean()) / progress
    scatter = difference - value * (before - momentum)
    half = student(len(plain) - 1, looks) * float(scatter.std(ddof=1)) / math.sqrt(len(plain)) / progress
    return Quantity.of(value, value - half, value + half)
