r"""May beta_1 of Adam be set to 0? A paired trial, and no more: no probability is fitted to complete runs, as `diagnose` has for SGD.

What theory there is:

- For small steps momentum is marginal: at equal lr and beta_2, means of Adam and of Adam with beta_1 = 0 (RMSProp with a bias correction) differ by
  O(h beta_1 / (1 - beta_1)) with h = lr^2, in the scaling of Malladi et al. (2022) and for noise of low skewness.
- On a quadratic loss with a frozen preconditioner P, Adam is stable for lr lambda_max(P^-1 H) < 2 (1 + beta_1)/(1 - beta_1), 38 at beta_1 = 0.9, and 2 at
  beta_1 = 0. A run between the two needs its momentum, unless training moves the preconditioner.

Neither says what a network does at its learning rate. So both are run, from one checkpoint with one state, on the same batches.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sdetools import _check
from sdetools.bridge.batches import Batches, is_stream, read_stream
from sdetools.bridge.hessian_products import Derivatives
from sdetools.bridge.modules import Objective, checked_copy, checked_module
from sdetools.bridge.population import Population
from sdetools.bridge.svag import svag_of
from sdetools.bridge.trial import TOLERANCE, Methods, TrainingRuns, Trial, WorkProgress
from sdetools.results.protocol import BY_HAND, Origin, Result, call_text, plain

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

KINDS = (torch.optim.Adam, torch.optim.AdamW)
UNCALIBRATED = "uncalibrated: no probability is fitted to complete runs of Adam; it speaks of runs as long as the trial, from this checkpoint"
"""What limits the answer."""


@dataclass(frozen=True, eq=False)
class AdamTrial(Result):
    """The paired trial of Adam and the same Adam with beta_1 = 0; `diagnose_adam` returns it, and printing it shows all.

    Attributes:
        optimiser: The class and the numbers of the optimiser, as text, such as "Adam, lr=0.01, betas=(0.9, 0.999), weight_decay=0".
        batch_size: The batch size.
        trial: The pairs of runs on the same batches; `trial.momentum` has the final losses of Adam, `trial.plain` those of Adam with beta_1 = 0.
        freed: The bytes of the first moments, which an implementation without them needs no longer. torch's Adam with beta_1 = 0 keeps them.
        gradients: What the trial cost, in gradients of a batch, with an evaluation of the loss of a batch as a third of one.
        notes: Remarks on what was read of a stream, and on a scheduler or hooks that the trial does not follow; empty if there are none.
        origin: The call, the seed and the version.
    """

    optimiser: str
    batch_size: int
    trial: Trial
    freed: int
    gradients: float
    notes: tuple[str, ...] = ()
    origin: Origin = BY_HAND

    @property
    def diverged(self) -> int:
        """The number of pairs in which a run was not finite at its end."""
        return int(np.sum(~(np.isfinite(self.trial.momentum) & np.isfinite(self.trial.plain))))

    @property
    def data(self) -> xarray.Dataset:
        """The losses at the ends of the runs, variables `with_momentum` and `without` over the dimension `pair`, numbered from 0.

        Attributes are the settings, the share of pairs that lack progress, the answer (`advice`), its limits, the cost and the call.
        """
        import xarray

        found = self.trial
        losses = {"with_momentum": ("pair", found.momentum), "without": ("pair", found.plain)}
        own = {"optimiser": self.optimiser, "batch_size": self.batch_size, "loss_before": found.before, "steps": found.steps}
        own |= {"share_of_pairs": found.share.value, "advice": self.advice, "limits": UNCALIBRATED, "gradients": self.gradients}
        return xarray.Dataset(
            losses, {"pair": np.arange(len(found.plain))}, own | {"diverged": self.diverged} | self.origin.attributes
        )

    def table(self) -> str:
        """Return all quantities, the limits, the notes and the answer as text, one per line."""
        return str(self)

    def summary(self) -> str:
        """Return one line of text: the answer, and the share of pairs that lack more than 0.1 of Adam's progress without beta_1."""
        return f"beta_1 = 0: {self.advice}, {UNCALIBRATED.partition(':')[0]}; share of pairs that lack over {TOLERANCE:g}: {self.trial.share}"

    def plot(self, *, ax: Any = None) -> Figure:
        """Plot the share of pairs that lack progress, with its 95 % interval, beside one half, and return the figure.

        Args:
            ax: The axes to draw into; None for those of a new figure.
        """
        from sdetools.plots import figure_of, interval_plot

        share = self.trial.share
        rows = {f"{len(self.trial.plain)} pairs": (share.value, share.low, share.high)}
        return figure_of(
            interval_plot(rows, f"share that lacks over {TOLERANCE:g} without beta_1", edges={"half of the pairs": 0.5}, ax=ax)
        )

    @property
    def works(self) -> bool:
        """Whether every run of Adam itself stayed finite, and they made progress in the mean; otherwise the trial compares nothing."""
        return bool(np.isfinite(self.trial.momentum).all() and self.trial.momentum.mean() < self.trial.before)

    @property
    def advice(self) -> str:
        """What to do with beta_1, by the share of pairs in which Adam without it lacks more than 0.1 of Adam's progress; uncalibrated.

        "drop" if the 95 % interval of the share lies below 1/2, "keep" if it lies above, else "unsure"; also "unsure" unless `works`. Fewer than six pairs
        never decide.
        """
        return self.trial.advice if self.works else "unsure"

    def to_json(self) -> str:
        """Return JSON text: all fields but `origin`, and with them the share of pairs, the answer and its limits; numbers not finite become null."""
        own = {name: part for name, part in dataclasses.asdict(self).items() if name != "origin"}
        share = dataclasses.asdict(self.trial.share)
        return json.dumps(plain(own | {"share_of_pairs": share, "advice": self.advice, "limits": UNCALIBRATED}), indent=1) + "\n"

    def __str__(self) -> str:
        found = self.trial
        ends = [f"{_mean(part):.4g}" for part in (found.momentum, found.plain)]
        rows = [
            ("optimiser", self.optimiser),
            (
                "measured",
                f"the training loss after {found.steps} steps from this checkpoint and state, with beta_1 and without, on the same batches",
            ),
            ("loss before; with momentum, without", f"{found.before:.4g}; {ends[0]}, {ends[1]}"),
            (
                f"progress lacking, {len(found.plain)} pairs of {found.steps} steps",
                f"{found.shortfall} (Student's t: assumes no mixture)",
            ),
            (f"share of pairs that lack over {TOLERANCE:g}", f"{found.share} (Clopper-Pearson)"),
            ("cost", f"{self.gradients:.0f} gradients of a batch of {self.batch_size}"),
            ("limits", UNCALIBRATED),
            *(("note", note) for note in self.notes),
        ]
        width = max(len(name) for name, _ in rows)
        answer = {
            "drop": f"beta_1 = 0 does as well here; its first moments take {self.freed} bytes",
            "keep": "beta_1 = 0 does worse here: keep beta_1",
            "unsure": "unsure: more pairs or more steps would decide",
        }[self.advice]
        if not self.works:
            answer = "unsure: runs of Adam itself diverge or make no progress here"
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows) + f"\nbeta_1: {answer}"


def diagnose_adam(
    model: torch.nn.Module,
    loss: Callable[..., torch.Tensor] | None,
    data: Any,
    optimizer: torch.optim.Optimizer,
    batch_size: int | None = None,
    *,
    loss_of: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
    seeds: int = 6,
    steps: int = 400,
    pieces: int = 1,
    clip_norm: float | None = None,
    device: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> AdamTrial:
    """Train copies of a network by its Adam or AdamW, and by the same with beta_1 = 0, on the same batches, and compare their progress.

    Both continue from the present parameters and the present state of `optimizer`, at its present learning rates, which stay constant: a scheduler is not
    followed. Model, optimiser and torch's generator are not changed, and a network keeps its precision. What is measured is the progress of the training loss
    over `steps` steps. The answer is uncalibrated, unlike that of `diagnose` for SGD: it is the trial's, for runs as long as the trial.

    Args:
        model: The network at the checkpoint, in training or evaluation mode.
        loss: The loss of (model(input), target) for batches (input, target); None with `loss_of`.
        data: A tuple of arrays (inputs, targets) with a row per sample, a data set with a length, a list of samples, or a loader, whose order is ignored;
            see `Batches`. Of a stream (a loader over an `IterableDataset`, a generator of batches), `steps` batches are read and reused.
        optimizer: `torch.optim.Adam` or `AdamW` of the model's parameters. Every parameter group keeps its numbers, and its present state is copied; a new
            optimiser, which has taken no step, starts at zero moments.
        batch_size: The batch size of the run; None for that of the loader.
        loss_of: The loss of (model, batch), for batches of another form.
        seeds: The number of pairs, at least 2; fewer than six give an interval and no answer.
        steps: The number of steps of a run.
        pieces: The number of pieces in which a batch passes through the network, where it does not fit into memory.
        clip_norm: The largest norm of all gradients together, if your loop clips by `torch.nn.utils.clip_grad_norm_`; None for no clipping.
        device: The device; None for that of the model.
        seed: The seed of shuffles and dropout.
        progress: Called as `progress(done, total)` with the units of work done and in total.

    Returns:
        The trial; print it, or read `.advice`, "drop", "keep" or "unsure".

    Raises:
        ValueError: If the optimiser is another one, has beta_1 = 0 already, learning rates of 0, SVAG or parameters that are not the model's. Also if a
            setting is out of range, the model has no trainable parameters or no finite ones, model and loss reject the batches, or the loss is not a
            scalar.

    Example:
        >>> import torch
        >>> from sdetools.bridge import diagnose_adam
        >>> torch.manual_seed(0).initial_seed()
        0
        >>> x = torch.randn(256, 4); y = x.sum(1, keepdim=True) + torch.randn(256, 1)
        >>> model = torch.nn.Linear(4, 1)
        >>> found = diagnose_adam(model, torch.nn.functional.mse_loss, (x, y), torch.optim.Adam(model.parameters(), lr=0.01), 8)
        >>> found.advice, len(found.trial.gaps)
        ('drop', 6)
    """
    call = call_text(diagnose_adam, locals())
    checked_module(model)
    places = {id(p): i for i, p in enumerate(model.parameters())}
    _check_optimizer(optimizer, places)
    clip = None if clip_norm is None else _check.positive("clip_norm", clip_norm, "Leave it out for no clipping.")
    seeds = _check.count("seeds", seeds, least=2, hint="One pair has no interval.")
    steps, pieces = _check.count("steps", steps), _check.count("pieces", pieces)
    net = checked_copy(model, device)
    dtype, notes = next(p.dtype for p in net.parameters() if p.requires_grad), _remarks(optimizer)
    if stream := is_stream(data):
        data, batch_size = read_stream(data, steps, batch_size)
    source = Batches(data, batch_size, device, dtype)
    if stream:
        source.partial = True
        notes.append(f"{source.samples} samples were read from the stream and used throughout")
    if pieces > source.size:
        raise ValueError(f"`pieces` must be at most the batch size, {source.size}; got {pieces}.")
    objective = Objective(loss, loss_of, -(-source.size // pieces) if pieces > 1 else None)
    tick = WorkProgress(progress, 2 * seeds * steps)
    stream_of = lambda which: 1_000 * (seed + 1) + which  # noqa: E731
    with torch.random.fork_rng(devices=[] if device is None or torch.device(device).type == "cpu" else None):
        torch.manual_seed(seed)
        derivatives = Derivatives(net, objective, source.fresh(stream_of(0), 0), second=False)
        torch.manual_seed(seed)
        population = Population(derivatives, source, stream_of(2), tick, 2 * seeds * steps)
        runs = TrainingRuns(model, objective, population, _methods(optimizer, places), device, stream_of, tick, clip)
        found = runs.trial(seeds, steps)
    tick.end()
    moved = {id(p): p for group in optimizer.param_groups if float(group["betas"][0]) for p in group["params"] if p.requires_grad}
    return AdamTrial(
        _described(optimizer) + ("" if clip is None else f", gradients clipped to the norm {clip:g}"),
        source.size,
        found,
        sum(p.numel() * p.element_size() for p in moved.values()),
        runs.gradients,
        tuple(notes),
        Origin(call, seed, 0, "torch", str(dtype)[6:]),
    )


def _check_optimizer(optimizer: Any, places: dict[int, int]) -> None:
    """Raise a ValueError unless `optimizer` is torch's Adam or AdamW of the model's parameters, without SVAG, with lr > 0 and beta_1 > 0 in some group.

    `places` has the number of each parameter of the model, in the order of `model.parameters()`, by its `id`.
    """
    if type(optimizer) not in KINDS:
        inner = isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer)
        hint = "Pass its attribute `optimizer`." if inner else "For SGD with momentum see `diagnose`."
        raise ValueError(f"`optimizer` must be torch.optim.Adam or AdamW; got {type(optimizer).__name__}. {hint}")
    if (svag := svag_of(optimizer)) is not None:
        raise ValueError(
            f"`optimizer` must be without SVAG, which the runs of the trial have not; got one with l={svag.l}. Pass the optimiser of the run itself."
        )
    if not any(float(group["lr"]) for group in optimizer.param_groups):
        raise ValueError(
            "`optimizer` must have a learning rate above 0 in some group; got 0, as before a warm-up. Take a checkpoint after it."
        )
    if not any(float(group["betas"][0]) for group in optimizer.param_groups):
        raise ValueError("`optimizer` must have beta_1 above 0 in some group; got 0, so that both methods are the same.")
    if any(id(p) not in places for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("`optimizer` must be of the model's own parameters; got others. Make it from model.parameters().")


def _remarks(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return sentences on what `optimizer` has and the trial has not: a scheduler, and hooks around the steps; empty if there is neither."""
    notes = []
    if any("initial_lr" in group for group in optimizer.param_groups):
        notes.append("learning rates are constant at their present values: the scheduler is not followed")
    if any(getattr(optimizer, name, None) for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")):
        notes.append("hooks of the optimiser are not called: for clipping pass clip_norm=")
    return notes


def _methods(optimizer: torch.optim.Optimizer, places: dict[int, int]) -> Methods:
    """Return a function `make(net, plain_run)` that makes a copy of `optimizer`, with its state, for `net`, a copy of the network.

    It has beta_1 = 0 if `plain_run`, else it is as it was. `places` has the number of each parameter of the model, in the order of `model.parameters()`, by
    its `id`.
    """

    def make(net: torch.nn.Module, plain_run: bool) -> torch.optim.Optimizer:
        own = list(net.parameters())
        groups = [group | {"params": [own[places[id(p)]] for p in group["params"]]} for group in optimizer.param_groups]
        kind: Any = type(optimizer)
        out: torch.optim.Optimizer = kind(groups)
        out.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if plain_run:
            for group in out.param_groups:
                group["betas"] = (0.0, group["betas"][1])
        return out

    return make


def _described(optimizer: torch.optim.Optimizer) -> str:
    """Return the class and the numbers of Adam or AdamW as text, such as "Adam, lr=0.01, betas=(0.9, 0.999), weight_decay=0".

    Groups that differ are separated by semicolons.
    """
    texts = [
        f"lr={float(group['lr']):g}, betas=({float(group['betas'][0]):g}, {float(group['betas'][1]):g}), weight_decay={float(group['weight_decay']):g}"
        for group in optimizer.param_groups
    ]
    return f"{type(optimizer).__name__}, {'; '.join(dict.fromkeys(texts))}"


def _mean(losses: np.ndarray) -> float:
    """Return the mean of losses `(pairs,)`, infinite if one of them is not finite."""
    return float(losses.mean()) if np.isfinite(losses).all() else math.inf
