r"""May I drop momentum here? The terms of Lemma 2.4 on a real network, what they predict, and a trial of the prediction.

One step of plain SGD changes the loss by - eta |grad L|^2 + eta^2/2 (grad L^T H grad L + tr(H Sigma)) (Lemma 2.4, with the Hessian H
and the covariance Sigma of a batch gradient). SGDM acts like SGD at eta = lr / (1 - momentum) (torch's `lr`) as long as eta is small
beside the curvature: at eta lambda_max near 2 and above plain SGD is thrown off the steepest direction, where momentum still holds.

The terms are estimated from gradients g_i of independent batches, with Hessian products H g_i on batches of their own: g_i.g_j and
g_j.H g_i (i != j) have the means |grad L|^2 and grad L^T H grad L, in which no gradient meets its own noise, and what g_i.g_i and g_i.H g_i
have more is tr(Sigma) and tr(H Sigma). Intervals come from a jackknife over groups of batches. The largest eigenvalue of H is that of the
loss over all of the data, with an interval of its own (`curvature`).
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from sdetools import _check
from sdetools.bridge.batches import Batches, is_stream, read_stream
from sdetools.bridge.curvature import PARTS, Population, Quantity, sharpness
from sdetools.bridge.hessian_products import Derivatives
from sdetools.bridge.lemma_terms import GROUPS, exact_terms, sampled_terms
from sdetools.bridge.modules import Objective
from sdetools.bridge.torch_optimisers import convert
from sdetools.bridge.trial import Trial, run_trial
from sdetools.studies.result_protocol import BY_HAND, Origin, Result, called, plain

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

STABLE, UNSTABLE = 1.0, 2.0
"""eta lambda_max below which plain SGD is predicted to match, and above which it is predicted not to."""


@dataclass(frozen=True)
class Diagnosis(Result):
    """What was measured, what follows from it, and what the trial said; `print` it. `advice` is "drop", "keep" or "unsure"."""

    lr: float
    momentum: float
    batch_size: int
    plain_lr: float
    """The learning rate eta of plain SGD in its place."""
    descent: Quantity
    """|grad L|^2."""
    curvature: Quantity
    """grad L^T H grad L."""
    noise: Quantity
    """tr(H Sigma), Sigma the covariance of a batch gradient."""
    variance: Quantity
    """tr(Sigma)."""
    sharpness: Quantity
    """The largest eigenvalue of the Hessian of the loss over all of the data, at the checkpoint."""
    later_sharpness: Quantity | None
    """The same after the trial's steps with momentum: training may sharpen the valley it is in."""
    freed: int
    """Bytes of the momentum buffer."""
    trial: Trial | None = field(default=None)
    notes: tuple[str, ...] = ()
    """What else there is to know: how the derivatives were taken, what of the data was read."""
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def diverged(self) -> int:
        """1 where the run with momentum diverges itself."""
        return int(self.later_sharpness is not None and not math.isfinite(self.later_sharpness.value))

    @property
    def _quantities(self) -> dict[str, Quantity]:
        found = {
            name: getattr(self, name) for name in ("descent", "curvature", "noise", "variance", "sharpness", "later_sharpness")
        }
        found |= {"step_sharpness": self.step_sharpness, "progress_lost": None if self.trial is None else self.trial.lost}
        return {name: one for name, one in found.items() if one is not None}

    @property
    def data(self) -> xarray.Dataset:
        """`value`, `low`, `high` over (quantity,)."""
        import xarray

        rows = self._quantities
        fields = {end: ("quantity", [getattr(one, end) for one in rows.values()]) for end in ("value", "low", "high")}
        said = {
            name: getattr(self, name)
            for name in ("lr", "momentum", "batch_size", "plain_lr", "freed", "regime", "prediction", "advice")
        }
        return xarray.Dataset(fields, {"quantity": list(rows)}, said | {"diverged": self.diverged} | self.origin.attributes)

    def table(self) -> str:
        """All quantities with their intervals, the regime and the advice."""
        return str(self)

    def summary(self) -> str:
        """The advice, and what it rests on."""
        return f"{self.advice}: {self.regime}; eta lambda_max {self.step_sharpness}"

    def plot(self, *, ax: Any = None) -> Figure:
        """eta lambda_max with its interval, at the checkpoint and after the trial, beside the edges of the prediction."""
        from sdetools.plots import figure_of, interval_plot

        found = {"checkpoint": self.sharpness, "after the trial": self.later_sharpness}
        steps = {name: one * self.plain_lr for name, one in found.items() if one is not None and math.isfinite(one.value)}
        rows = {name: (one.value, one.low, min(one.high, 1e3 * max(1.0, one.value))) for name, one in steps.items()}
        edges = {"drop below": STABLE, "keep above": UNSTABLE}
        return figure_of(interval_plot(rows, r"$\eta\,\lambda_{\max}$ of plain SGD", edges=edges, ax=ax))

    @property
    def noise_scale(self) -> float:
        """batch_size tr(Sigma) / |grad L|^2: the batch size at which noise and gradient are of one size; infinite where the gradient is 0."""
        return self.batch_size * _ratio(self.variance.value, self.descent.value)

    @property
    def step_sharpness(self) -> Quantity:
        """eta lambda_max, with the larger of the two sharpnesses."""
        both = [one for one in (self.sharpness, self.later_sharpness) if one is not None]
        return Quantity.of(*(max(getattr(one, end) for one in both) for end in ("value", "low", "high"))) * self.plain_lr

    @property
    def regime(self) -> str:
        """In words."""
        if self.later_sharpness is not None and not math.isfinite(self.later_sharpness.value):
            return "the run with momentum diverges itself: its learning rate is too large"
        if self.prediction == "keep":
            return "large steps: plain SGD at the equivalent rate would be thrown off the steepest direction"
        if self.prediction == "unsure":
            reach = self.step_sharpness
            across = [f"{edge:g}" for edge in (STABLE, UNSTABLE) if reach.low < edge <= reach.high]
            if not across:
                return "steps near the edge of what plain SGD bears"
            return f"eta lambda_max may lie on either side of {' and of '.join(across)}: only a trial can tell"
        if abs(self.noise.value) > abs(self.curvature.value):
            return "small steps, noise-induced: momentum acts like plain SGD"
        return "small steps, curvature-induced: momentum acts like plain SGD"

    @property
    def prediction(self) -> str:
        """From the Hessian alone: "drop" where all of the interval of eta lambda_max lies below 1, "keep" where it lies above 2, else "unsure";
        "unsure" also where the run with momentum diverges itself."""
        zone = zone_of(self.step_sharpness)
        return "unsure" if zone in (None, "between") else zone

    @property
    def advice(self) -> str:
        """The trial's, where it could tell; else the prediction."""
        if self.trial is None or self.trial.advice == "unsure":
            return self.prediction
        return self.trial.advice

    def to_json(self) -> str:
        """All of it, with the conclusions, as JSON."""
        told = {name: getattr(self, name) for name in ("noise_scale", "regime", "prediction", "advice")}
        own = {name: part for name, part in dataclasses.asdict(self).items() if name != "origin"}
        return json.dumps(plain(own | {"step_sharpness": dataclasses.asdict(self.step_sharpness)} | told), indent=1) + "\n"

    def __str__(self) -> str:
        eta = self.plain_lr
        rows = [
            ("descent force |grad L|^2", str(self.descent)),
            ("curvature term grad L.H grad L", str(self.curvature)),
            ("noise term tr(H Sigma)", str(self.noise)),
            ("share of a step's descent lost to curvature", f"{eta / 2 * _ratio(self.curvature.value, self.descent.value):.3g}"),
            ("share of a step's descent lost to noise", f"{eta / 2 * _ratio(self.noise.value, self.descent.value):.3g}"),
            ("largest Hessian eigenvalue, full loss", str(self.sharpness)),
            *([] if self.later_sharpness is None else [("the same after the trial", str(self.later_sharpness))]),
            ("eta lambda_max", str(self.step_sharpness)),
            ("gradient noise scale", f"{self.noise_scale:.4g} (batch size {self.batch_size})"),
            ("regime", self.regime),
        ]
        if self.trial is not None:
            runs = f"{len(self.trial.plain)} pairs of {self.trial.steps} steps"
            rows.append((f"progress that plain SGD lacks, {runs}", str(self.trial.lost)))
        width = max(len(name) for name, _ in rows)
        text = "\n".join(f"{name:<{width}}  {value}" for name, value in [*rows, *(("note", note) for note in self.notes)])
        told = {
            "drop": f"drop it: plain SGD at lr={eta:.6g}, which frees {_bytes(self.freed)}",
            "keep": "keep it: plain SGD at the equivalent rate would do worse",
            "unsure": "unsure: give the trial more seeds or more steps",
        }[self.advice]
        return f"{text}\nmomentum: {told}"


def diagnose(
    model: torch.nn.Module,
    loss: Callable[..., torch.Tensor] | None,
    data: Any,
    lr: float,
    momentum: float = 0.9,
    batch_size: int | None = None,
    *,
    form: str = "heavy-ball",
    loss_of: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
    batches: int = 64,
    seeds: int = 4,
    steps: int = 200,
    exact: bool = False,
    hessian_samples: int | None = None,
    device: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    r"""Measure Lemma 2.4's terms at the model's present parameters, predict whether plain SGD would do, and try it.

    `loss(model(input), target)` on batches (input, target); for other batches give `loss_of(model, batch)` and None for `loss`. `data`:
    arrays (tensors, NumPy), a data set or a loader (see `Batches`); of a stream (a loader over an `IterableDataset`, a generator of batches) as
    many batches are read as one pass of the measurement needs, and repeated. `lr` and `momentum` are those of `form`: "heavy-ball" (torch's),
    "sgdm" (Def. 2.3) or "nesterov".

    `batches`: how many the terms are estimated from; with `exact=True` they come from the whole data and every sample's own gradient (for
    small data, and losses that are means or sums over samples). The largest eigenvalue of the Hessian is that of the loss over all data, with an
    interval: products go over all samples where that takes a small part of the trial's work, else over samples of growing number, or over
    `hessian_samples`. It does not depend on the batch size, unless the loss does. The trial trains copies of the model for `steps` steps with
    `seeds` shuffles each way, and while it cannot tell, with twice as many, up to 4 `seeds`; seeds=0 leaves it out. The model itself is not
    changed. In training mode it stays in training mode.

    ValueError for settings out of range, too few batches, a model without parameters to train, batches that model and loss do not take, a loss
    that is not one number, and NaN or infinities in the data, the parameters, the loss or its gradient.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> x = torch.randn(256, 4); y = x.sum(1, keepdim=True) + torch.randn(256, 1)
    >>> print(diagnose(torch.nn.Linear(4, 1), torch.nn.functional.mse_loss, (x, y), lr=1e-3, batch_size=8, steps=200).advice)
    drop
    """
    call = called(diagnose, locals())
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"`model` must be a torch.nn.Module; got {type(model).__name__}.")
    if not _check.number("lr", lr) > 0:
        raise ValueError(f"`lr` must be positive; got lr={lr!r}.")
    plain_lr = convert(lr, momentum, source=form, target="sgd")["lr"]
    batches = _check.count("batches", batches, least=2 * GROUPS)
    seeds = _check.count("seeds", seeds, least=0)
    if seeds == 1:
        raise ValueError("`seeds` must be 0, or at least 2 for an interval; got 1.")
    steps = _check.count("steps", steps)
    if hessian_samples is not None:
        hessian_samples = _check.count("hessian_samples", hessian_samples, least=PARTS)
    net = copy.deepcopy(model)
    if device is not None:
        net = net.to(device)
    own = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    if not own:
        raise ValueError("`model` must have parameters that require a gradient; got none.")
    for name, p in own:
        if not bool(torch.isfinite(p).all()):
            raise ValueError(
                f"`model` must have finite parameters; got a NaN or an infinity in {name}. Take it from before its run diverged."
            )
    objective = Objective(loss, loss_of)
    notes = []
    if stream := is_stream(data):
        data, batch_size = read_stream(data, max(batches, steps if seeds else 0), batch_size)
    source = Batches(data, batch_size, device, own[0][1].dtype)
    if stream:
        source.partial = True
        notes.append(f"of the stream, {source.samples} samples were read, and serve for everything")

    terms = 2 * (source.samples if exact else batches)
    tick = _Tick(progress, terms + 8 * PARTS + seeds * 2 * steps)
    stream_of = lambda which: 1_000 * (seed + 1) + which  # noqa: E731
    with torch.random.fork_rng(devices=[] if device is None or torch.device(device).type == "cpu" else None):
        torch.manual_seed(seed)  # for dropout: the same answer each time, and the caller's generator stays where it is
        decided = lambda found: zone_of(found * plain_lr) is not None  # noqa: E731
        derivatives = Derivatives(net, objective, source.fresh(stream_of(0), 0))
        torch.manual_seed(seed)
        population = Population(derivatives, source, stream_of(2), tick, 2 * seeds * steps)
        if exact:
            four = exact_terms(population)
        else:
            four = sampled_terms(derivatives, source, batches, stream_of, tick)
        sharp = sharpness(population, hessian_samples, decided)
        if not all(math.isfinite(one.value) for one in (*four, sharp)):
            raise ValueError(
                "the loss must have finite derivatives at the model's present parameters; got a NaN or an infinity on finite data. Look for "
                "logarithms and roots of 0 and for overflow."
            )
        trial = later = None
        if seeds:
            trial, trained = run_trial(
                model, objective, source, form, lr, momentum, plain_lr, seeds, steps, device, stream_of, tick
            )
            later = Quantity.of(math.inf, math.inf, math.inf)
            if trained is not None:
                after = Derivatives(trained, objective, source.fresh(stream_of(0), 0))
                later = sharpness(Population(after, source, stream_of(2), tick, 2 * seeds * steps), hessian_samples, decided)
    if derivatives.note:
        notes.append(derivatives.note)
    if four[0].value == four[3].value == 0:
        notes.append("every gradient is 0: neither way moves")
    freed = sum(p.numel() * p.element_size() for _, p in own) if momentum else 0
    return Diagnosis(
        float(lr),
        float(momentum),
        source.size,
        plain_lr,
        *(four[0], four[1], four[2], four[3]),
        sharp,
        later,
        freed,
        trial,
        tuple(notes),
        Origin(call, seed, 0, "torch", str(own[0][1].dtype)[6:]),
    )


class _Tick:
    """Moves a progress bar; the total is a guess that grows where it was too small."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, much: int = 1) -> None:
        self.done += much
        self.total = max(self.total, self.done)
        if self.progress is not None:
            self.progress(self.done, self.total)


def zone_of(reach: Quantity) -> str | None:
    """Where all of the interval of eta lambda_max lies: "drop", "keep", "between" the two; None where it lies across, or is infinite."""
    if not math.isfinite(reach.value):
        return None
    if reach.high < STABLE:
        return "drop"
    if reach.low > UNSTABLE:
        return "keep"
    return "between" if reach.low >= STABLE and reach.high <= UNSTABLE else None


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.inf if a else math.nan


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
