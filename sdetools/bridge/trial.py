"""Training runs with and without momentum, from one checkpoint on the same batches: plain SGD's first steps, and the paired trial.

A pair is two runs on the same batches: one with momentum, and one of plain SGD at the effective learning rate ("plain"). Progress is the decrease of the
loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sdetools._moved import RenamedAttribute
from sdetools.bridge.curvature import Population, Quantity, student_quantile
from sdetools.bridge.hessian_products import seeded
from sdetools.bridge.keep_probability import capped_gap
from sdetools.bridge.modules import Objective, plain_copy
from sdetools.bridge.torch_optimisers import SGD, named
from sdetools.estimates.interval import binomial_interval

TOLERANCE = 0.1
"""Plain SGD matches when it lacks less than this fraction of momentum's progress."""
WORST = 2.0
"""The cap for the fraction lacking in one run: the run ends as far above the initial loss as momentum ends below it."""
EVALUATED = 1024
"""The number of samples on which a loss is evaluated, where there are so many."""


@dataclass(frozen=True)
class Trial:
    """Result of paired training runs with and without momentum, from one checkpoint on the same batches.

    Losses are means over the same samples, at most 1,024. Outcomes are often mixtures: one run of plain SGD in seven diverges, the others lack
    nothing. So `share` counts pairs, and its interval holds for outcomes of any distribution.

    Attributes:
        steps: The number of steps of a run.
        before: The loss at the checkpoint, on the same samples.
        momentum: The losses after the last step with momentum, `(pairs,)`; NaN where a run diverged.
        plain: The losses after the last step of plain SGD, `(pairs,)`, in the same order; NaN where a run diverged.
        shortfall: The fraction of momentum's progress that plain SGD lacks, (L_plain - L_momentum) / (L_before - L_momentum) of the means. Its 95 %
            interval is Student's t: it assumes that the pairs' differences are about normal, which mixtures are not.
    """

    steps: int
    before: float
    momentum: np.ndarray
    plain: np.ndarray
    shortfall: Quantity

    lost = RenamedAttribute("shortfall")

    @property
    def gaps(self) -> np.ndarray:
        """The fraction (L_plain - L_momentum) / (L_before - L_momentum) of momentum's progress that plain SGD lacks in each pair, `(pairs,)`.

        It lies in [-1, 1], because losses above that at the start, or not finite, count as that one; 0 if momentum made no progress (`capped_gap`).
        """
        return np.array([capped_gap(self.before, a, b) for a, b in zip(self.momentum, self.plain)])

    @property
    def share(self) -> Quantity:
        """The share of pairs whose `gaps` exceed `TOLERANCE` = 0.1, with its Clopper-Pearson interval at 95 %."""
        hits = int((self.gaps > TOLERANCE).sum())
        return Quantity(hits / len(self.plain), binomial_interval(hits, len(self.plain)))

    @property
    def advice(self) -> str:
        """The answer of the pairs alone, for runs as long as the trial: "drop" where the interval of `share` lies below 1/2, "keep" above, else "unsure".

        Fewer than six pairs never decide.
        """
        if self.share.high < 0.5:
            return "drop"
        return "keep" if self.share.low > 0.5 else "unsure"


Methods = Callable[[torch.nn.Module, bool], torch.optim.Optimizer]
"""A function `make(net, plain)` that returns the optimiser of a run: of a copy of the network, and of whether the run is the one without momentum."""


def sgd_methods(plain_lr: float, form: str, lr: float, momentum: float) -> Methods:
    """Return the function `make(net, plain)` that makes the optimisers of a pair: SGD at `plain_lr` if `plain` is true, else momentum.

    Args:
        plain_lr: The effective learning rate, of plain SGD.
        form: The name of the optimiser with momentum, "heavy-ball" (torch's form), "sgdm" (Def. 2.3) or "nesterov".
        lr: Its learning rate, in this form.
        momentum: Its momentum, in [0, 1).
    """

    def make(net: torch.nn.Module, plain: bool) -> torch.optim.Optimizer:
        own = [p for p in net.parameters() if p.requires_grad]
        return SGD(own, lr=plain_lr) if plain else named(form)(own, lr=lr, momentum=momentum)

    return make


class WorkProgress:
    """Counter of the units of work done. A call adds `count` units, 1 by default, and reports the number so far.

    Args:
        progress: Called as `progress(done, total)` after each addition; None for no report.
        total: An estimate of all units; where more is done, it grows with it.

    Attributes:
        done: The units done so far.
    """

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, count: int = 1) -> None:
        self.done += count
        self.total = max(self.total, self.done)
        if self.progress is not None:
            self.progress(self.done, self.total)

    def end(self) -> None:
        """Report that all is done: stages that were not needed were counted in the total."""
        self(max(0, self.total - self.done))


class _Run:
    """A copy of a network in training: what is needed to continue it.

    Attributes:
        net: The network after `steps` steps; None if the run diverged.
        optimiser: Its optimiser, with its state.
        steps: The number of steps done; it stays behind where the run diverged.
        losses: The losses by the numbers of steps after which the run was evaluated; NaN after a divergence.
    """

    def __init__(self, net: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.net: torch.nn.Module | None = net
        self.optimiser, self.steps = optimiser, 0
        self.losses: dict[int, float] = {}


class TrainingRuns:
    """Training runs from one checkpoint: run i with momentum and run i of plain SGD see the same batches, those of the shuffle `stream(10 + i)`.

    Runs continue where they stopped, so that a trial reuses the first steps of plain SGD. Draws of dropout are seeded by run and step.

    Args:
        model: The network at the checkpoint; it is not changed.
        objective: The loss of the network on a batch.
        population: The loss over all samples, on which runs are evaluated, and the source of the batches.
        make: `make(net, plain)` returns the optimiser of a copy of the network; `plain` is true for the run without momentum (`sgd_methods` for SGD).
        device: The device of the runs; None for that of the model.
        stream: A function that returns a seed: `stream(3)` for the evaluation, `stream(10 + i)` for the batches of run i, `stream(1000 + i)` for its
            dropout.
        tick: Called without arguments after every step, for progress.
        clip_norm: The largest norm of a gradient, over all trainable parameters; longer ones are shortened to it. None for no clipping.

    Attributes:
        gradients: The number of batch gradients computed so far, with an evaluation as a third of a gradient per batch.
    """

    def __init__(
        self, model: torch.nn.Module, objective: Objective, population: Population, make: Methods,
        device: Any, stream: Callable[[int], int], tick: Callable[[], None], clip_norm: float | None = None,
    ) -> None:  # fmt: skip
        self.model, self.objective, self.population, self.device = model, objective, population, device
        self.make, self.stream, self.tick, self.gradients, self.clip_norm = make, stream, tick, 0.0, clip_norm
        self._runs: dict[tuple[int, bool], _Run] = {}
        source = population.source
        count = max(1, min(source.per_epoch, EVALUATED // source.size))
        self._evaluation = np.concatenate([source.indices(stream(3), k) for k in range(count)])

    @cached_property
    def before(self) -> float:
        """The loss at the checkpoint, a mean over at most `EVALUATED` = 1,024 samples (one batch at least), the same for all runs."""
        return self._evaluate(self._start())

    def loss(self, i: int, plain: bool, steps: int) -> float:
        """Return the loss of a run after some steps, and train it that far if necessary; NaN if it diverged.

        Args:
            i: The number of the pair, 0, 1, ...
            plain: True for the run of plain SGD, False for the one with momentum.
            steps: The number of steps; ask for fewer before more, because a run does not go back.

        Raises:
            ValueError: If the run is past `steps`, and was not evaluated there.
        """
        run = self._runs.get((i, plain)) or self._begin(i, plain)
        if steps not in run.losses:
            if steps < run.steps:
                raise ValueError(f"`steps` must not lie before the run's present step, {run.steps}; got {steps}. Ask in order.")
            self._advance(run, i, steps)
            run.losses[steps] = self._evaluate(run.net)
        return run.losses[steps]

    def reduction(self, seeds: int, steps: int) -> float:
        """Return R, the mean over pairs 0 ... seeds - 1 of L(steps)/L(0), the loss of plain SGD after `steps` steps beside that at the start.

        A loss above L(0) or not finite counts as L(0), so that R lies in [0, 1]. R is 1 if L(0) is not positive.
        """
        ends = [self.loss(i, True, steps) for i in range(seeds)]
        ratios = [end / self.before if math.isfinite(end) else 1.0 for end in ends]
        return float(np.clip(ratios, 0.0, 1.0).mean()) if self.before > 0 else 1.0

    def trial(self, seeds: int, steps: int) -> Trial:
        """Return the paired trial of the pairs 0 ... seeds - 1, at least two, with `steps` steps each; runs that exist are continued."""
        plain = np.array([self.loss(i, True, steps) for i in range(seeds)])
        momentum = np.empty(seeds)
        for i in range(seeds):
            momentum[i] = self.loss(i, False, steps)
        return Trial(steps, self.before, momentum, plain, progress_shortfall(self.before, momentum, plain))

    def last_with_momentum(self, seeds: int) -> torch.nn.Module | None:
        """Return the trained network of pair `seeds` - 1 with momentum, None where it diverged; the trial must have been made before."""
        return self._runs[seeds - 1, False].net

    def _start(self) -> torch.nn.Module:
        """Return a new copy of the network at the checkpoint, on the device of the runs."""
        net = plain_copy(self.model)
        return net if self.device is None else net.to(self.device)

    def _begin(self, i: int, plain: bool) -> _Run:
        """Return a new run of pair `i` at step 0, of plain SGD if `plain`, and remember it."""
        net = self._start()
        self._runs[i, plain] = run = _Run(net, self.make(net, plain))
        return run

    def _advance(self, run: _Run, i: int, steps: int) -> None:
        """Train run `run` of pair `i` up to step `steps`; its network becomes None if a loss or a parameter is not finite."""
        net = run.net
        if net is None:
            return
        own = [p for p in net.parameters() if p.requires_grad]
        for k in range(run.steps, steps):
            seeded(self.stream(1000 + i) + 1_000_003 * k)
            run.optimiser.zero_grad()
            value = self.objective.backward(net, self.population.source.at(self.stream(10 + i), k))
            self.gradients += 1
            if not math.isfinite(value):
                run.net = None
                return
            for p in own:  # the gradient of an embedding may be sparse
                p.grad = None if p.grad is None else p.grad.to_dense()
            if self.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(own, self.clip_norm)
            run.optimiser.step()
            self.tick()
        run.steps = steps
        if not all(bool(torch.isfinite(p).all()) for p in own):
            run.net = None

    def _evaluate(self, net: torch.nn.Module | None) -> float:
        """Return the loss of `net` over the samples of the evaluation, equally seeded each time; NaN for None, the network of a diverged run."""
        if net is None:
            return math.nan
        seeded(self.stream(3))
        self.gradients += len(self._evaluation) / self.population.source.size / 3
        with torch.no_grad():
            value = self.population.over(
                self._evaluation, lambda piece: self.objective(net, self.population.batch(piece)).double()
            )
        return float(value)


def progress_shortfall(before: float, momentum: np.ndarray, plain: np.ndarray, looks: int = 1) -> Quantity:
    """Return the fraction of momentum's progress that plain SGD lacks, with a 95 % interval by the delta method.

    The fraction is (mean plain - mean momentum) / (before - mean momentum). A pair contributes at most the fraction `WORST` = 2, also if its run of
    plain SGD diverged. If a run with momentum diverged or there was no progress, the value is NaN and the interval unbounded. The interval is Student's
    t: it assumes differences that are about normal. Where some pairs lack nothing and others everything, count the pairs (`Trial.share`).

    Args:
        before: The loss at the checkpoint.
        momentum: The final losses with momentum, `(pairs,)`, of at least two pairs; NaN or infinite where a run diverged.
        plain: The final losses of plain SGD on the same batches, `(pairs,)`, in the same order.
        looks: How often the interval is inspected; it is valid at all looks simultaneously (Bonferroni).
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
