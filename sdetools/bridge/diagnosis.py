r"""Diagnosis of momentum on a real network: can plain SGD replace it? A prediction from Lemma 2.4 and the sharpness, and a trial.

One step of plain SGD changes the expected loss by - eta |grad L|^2 + eta^2/2 (grad L^T H grad L + tr(H Sigma)) (Lemma 2.4, with the Hessian
H and the covariance Sigma of a batch gradient). SGDM acts like SGD at the effective learning rate eta = lr / (1 - momentum) (torch's `lr`) as
long as eta lambda_max is small. In the large step-size regime, eta lambda_max near 2 and above, plain SGD exceeds its stability limit along
the top eigenvector, where SGDM is still stable.

The terms are estimated from gradients g_i of independent batches and Hessian products H g_i on further independent batches. For i != j,
g_i.g_j and g_j.H g_i are unbiased for |grad L|^2 and grad L^T H grad L. The means of g_i.g_i and g_i.H g_i exceed them by tr(Sigma) and
tr(H Sigma). Intervals come from a jackknife over groups of batches. The sharpness lambda_max is the largest Hessian eigenvalue of the loss
over all data, with its own interval (`curvature`).
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
"""eta lambda_max below which plain SGD is predicted to match SGDM, and above which it is predicted not to."""


@dataclass(frozen=True)
class Diagnosis(Result):
    """Result of `diagnose`: measured quantities with 95 % intervals, the prediction and the outcome of the trial.

    L is the loss over all data, H its Hessian at the checkpoint, and Sigma the covariance of the gradient of one batch.

    Attributes:
        lr: The learning rate of the run with momentum.
        momentum: Its momentum.
        batch_size: Its batch size.
        plain_lr: The effective learning rate eta, at which plain SGD would replace it.
        descent: |grad L|^2.
        curvature: grad L^T H grad L.
        noise: tr(H Sigma).
        variance: tr(Sigma).
        sharpness: The largest eigenvalue lambda_max of H.
        later_sharpness: lambda_max after the trial's steps with momentum, because training may increase it; infinite if that run diverged, and None
            without a trial.
        freed: The bytes of the momentum buffer, which plain SGD does not need.
        trial: The paired training runs; None without a trial.
        notes: Sentences on how derivatives were computed and which data were read.
        origin: The call that made the result.
    """

    lr: float
    momentum: float
    batch_size: int
    plain_lr: float
    descent: Quantity
    curvature: Quantity
    noise: Quantity
    variance: Quantity
    sharpness: Quantity
    later_sharpness: Quantity | None
    freed: int
    trial: Trial | None = field(default=None)
    notes: tuple[str, ...] = ()
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def diverged(self) -> int:
        """1 if the last run with momentum diverged, else 0."""
        return int(self.later_sharpness is not None and not math.isfinite(self.later_sharpness.value))

    @property
    def _quantities(self) -> dict[str, Quantity]:
        """The measured quantities in a dict by name, without missing ones; "step_sharpness" and "progress_shortfall" included."""
        found = {
            name: getattr(self, name) for name in ("descent", "curvature", "noise", "variance", "sharpness", "later_sharpness")
        }
        found |= {
            "step_sharpness": self.step_sharpness,
            "progress_shortfall": None if self.trial is None else self.trial.shortfall,
        }
        return {name: one for name, one in found.items() if one is not None}

    @property
    def data(self) -> xarray.Dataset:
        """The measured quantities as a data set: variables `value`, `low` and `high` over the dimension `quantity` (their names).

        The attributes are the settings, the conclusions (`regime`, `prediction`, `advice`) and the call.
        """
        import xarray

        rows = self._quantities
        fields = {end: ("quantity", [getattr(one, end) for one in rows.values()]) for end in ("value", "low", "high")}
        attributes = {
            name: getattr(self, name)
            for name in ("lr", "momentum", "batch_size", "plain_lr", "freed", "regime", "prediction", "advice")
        }
        return xarray.Dataset(fields, {"quantity": list(rows)}, attributes | {"diverged": self.diverged} | self.origin.attributes)

    def table(self) -> str:
        """Return all quantities with their intervals, the regime, the notes and the advice as text, one per line."""
        return str(self)

    def summary(self) -> str:
        """Return one line of text: the advice, the regime, and eta lambda_max with its interval."""
        return f"{self.advice}: {self.regime}; eta lambda_max {self.step_sharpness}"

    def plot(self, *, ax: Any = None) -> Figure:
        """Plot eta lambda_max with its interval, at the checkpoint and after the trial, and the thresholds 1 and 2 of the prediction.

        An eta lambda_max that is not finite is left out.

        Args:
            ax: The axes to draw into; None for those of a new figure.

        Returns:
            The figure.
        """
        from sdetools.plots import figure_of, interval_plot

        found = {"checkpoint": self.sharpness, "after the trial": self.later_sharpness}
        steps = {name: one * self.plain_lr for name, one in found.items() if one is not None and math.isfinite(one.value)}
        rows = {name: (one.value, one.low, min(one.high, 1e3 * max(1.0, one.value))) for name, one in steps.items()}
        edges = {"drop below": STABLE, "keep above": UNSTABLE}
        return figure_of(interval_plot(rows, r"$\eta\,\lambda_{\max}$ of plain SGD", edges=edges, ax=ax))

    @property
    def noise_scale(self) -> float:
        """The gradient noise scale, batch_size tr(Sigma) / |grad L|^2: the batch size at which noise equals signal; inf or NaN if |grad L|^2 = 0."""
        return self.batch_size * _ratio(self.variance.value, self.descent.value)

    @property
    def step_sharpness(self) -> Quantity:
        """The stability number eta lambda_max of plain SGD, from the larger sharpness before or after the trial; infinite if momentum diverged."""
        both = [one for one in (self.sharpness, self.later_sharpness) if one is not None]
        return Quantity.of(*(max(getattr(one, end) for one in both) for end in ("value", "low", "high"))) * self.plain_lr

    @property
    def regime(self) -> str:
        """The step-size regime (or that it is undecided), a sentence such as "small steps, noise-induced: momentum acts like plain SGD"."""
        if self.later_sharpness is not None and not math.isfinite(self.later_sharpness.value):
            return "the run with momentum diverges: its learning rate is too large"
        if self.prediction == "keep":
            return "large steps: plain SGD at the effective learning rate would exceed its stability limit"
        if self.prediction == "unsure":
            step_sharpness = self.step_sharpness
            across = [f"{edge:g}" for edge in (STABLE, UNSTABLE) if step_sharpness.low < edge <= step_sharpness.high]
            if not across:
                return "intermediate steps, near the stability limit of plain SGD"
            return f"undecided: the interval of eta lambda_max contains {' and '.join(across)}; only a trial can decide"
        if abs(self.noise.value) > abs(self.curvature.value):
            return "small steps, noise-induced: momentum acts like plain SGD"
        return "small steps, curvature-induced: momentum acts like plain SGD"

    @property
    def prediction(self) -> str:
        """The advice by the Hessian alone: "drop" if the interval of eta lambda_max lies below 1, "keep" if it lies above 2, else "unsure".

        "drop" means to replace momentum by plain SGD. The prediction is "unsure" also if the run with momentum diverged.
        """
        zone = zone_of(self.step_sharpness)
        return "unsure" if zone in (None, "between") else zone

    @property
    def advice(self) -> str:
        """What to do with momentum, "drop", "keep" or "unsure": the advice of the trial unless that is "unsure" or missing, else the prediction."""
        if self.trial is None or self.trial.advice == "unsure":
            return self.prediction
        return self.trial.advice

    def to_json(self) -> str:
        """Return all fields except `origin`, and all conclusions, as JSON text; numbers that are not finite become null."""
        conclusions = {name: getattr(self, name) for name in ("noise_scale", "regime", "prediction", "advice")}
        own = {name: part for name, part in dataclasses.asdict(self).items() if name != "origin"}
        return json.dumps(plain(own | {"step_sharpness": dataclasses.asdict(self.step_sharpness)} | conclusions), indent=1) + "\n"

    def __str__(self) -> str:
        eta = self.plain_lr
        rows = [
            ("descent term |grad L|^2", str(self.descent)),
            ("curvature term grad L.H grad L", str(self.curvature)),
            ("noise term tr(H Sigma)", str(self.noise)),
            ("curvature term / descent term of a step", f"{eta / 2 * _ratio(self.curvature.value, self.descent.value):.3g}"),
            ("noise term / descent term of a step", f"{eta / 2 * _ratio(self.noise.value, self.descent.value):.3g}"),
            ("sharpness lambda_max, full loss", str(self.sharpness)),
            *([] if self.later_sharpness is None else [("sharpness after the trial", str(self.later_sharpness))]),
            ("eta lambda_max", str(self.step_sharpness)),
            ("gradient noise scale", f"{self.noise_scale:.4g} (batch size {self.batch_size})"),
            ("regime", self.regime),
        ]
        if self.trial is not None:
            runs = f"{len(self.trial.plain)} pairs of {self.trial.steps} steps"
            rows.append((f"progress plain SGD lacks, {runs}", str(self.trial.shortfall)))
        width = max(len(name) for name, _ in rows)
        text = "\n".join(f"{name:<{width}}  {value}" for name, value in [*rows, *(("note", note) for note in self.notes)])
        advice = {
            "drop": f"drop it: plain SGD at lr={eta:.6g}, which frees {_bytes(self.freed)}",
            "keep": "keep it: plain SGD at the effective learning rate would do worse",
            "unsure": "unsure: increase seeds or steps of the trial",
        }[self.advice]
        return f"{text}\nmomentum: {advice}"


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
    r"""Measure Lemma 2.4's terms and the sharpness at a checkpoint, predict whether plain SGD can replace momentum, and try it.

    The trial trains copies of the model with momentum and without, on the same batches. The model and torch's generator are not changed.

    Args:
        model: The network at the checkpoint, in training or evaluation mode.
        loss: The loss of (model(input), target) for batches (input, target); None with `loss_of`.
        data: Arrays, a data set or a loader; see `Batches`. Of a stream (a loader over an `IterableDataset`, a generator of batches), as many batches
            are read as one pass of the measurement needs, and reused.
        lr: The learning rate > 0 of the run with momentum, in the parametrisation `form`.
        momentum: Its momentum, in [0, 1).
        batch_size: Its batch size; None for that of the loader.
        form: "heavy-ball" (torch's), "sgdm" (Def. 2.3) or "nesterov".
        loss_of: The loss of (model, batch), for batches of another form.
        batches: The number of batches that the terms are estimated from, at least 16.
        seeds: The initial number of pairs of runs; it doubles up to 4 `seeds` while the trial is undecided. 0 omits the trial; 1 is refused.
        steps: The number of steps of a run.
        exact: Compute the terms from every sample's gradient, for small data and losses that are means or sums over samples.
        hessian_samples: A fixed sample size for the sharpness, at least 32. None uses all data where that takes a small part of the trial's work,
            else samples of growing size.
        device: The device; None for that of the model.
        seed: The seed of shuffles, samples and dropout.
        progress: Called with the units of work done and in total; the total may grow.

    Returns:
        The diagnosis; print it, or read `.advice`.

    Raises:
        ValueError: If a setting is out of range, the model has no trainable parameters, model and loss reject the batches, the loss is not a scalar,
            or data, parameters, loss or gradient are not finite.

    Example:
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
                f"`model` must have finite parameters; got a NaN or an infinity in {name}. Use a checkpoint from before the divergence."
            )
    objective = Objective(loss, loss_of)
    notes = []
    if stream := is_stream(data):
        data, batch_size = read_stream(data, max(batches, steps if seeds else 0), batch_size)
    source = Batches(data, batch_size, device, own[0][1].dtype)
    if stream:
        source.partial = True
        notes.append(f"{source.samples} samples were read from the stream and used throughout")

    planned = 2 * (source.samples if exact else batches)
    tick = _Progress(progress, planned + 8 * PARTS + seeds * 2 * steps)
    stream_of = lambda which: 1_000 * (seed + 1) + which  # noqa: E731
    with torch.random.fork_rng(devices=[] if device is None or torch.device(device).type == "cpu" else None):
        torch.manual_seed(seed)  # dropout is reproducible, and `fork_rng` restores the caller's generator
        decided = lambda found: zone_of(found * plain_lr) is not None  # noqa: E731
        derivatives = Derivatives(net, objective, source.fresh(stream_of(0), 0))
        torch.manual_seed(seed)
        population = Population(derivatives, source, stream_of(2), tick, 2 * seeds * steps)
        if exact:
            terms = exact_terms(population)
        else:
            terms = sampled_terms(derivatives, source, batches, stream_of, tick)
        initial_sharpness = sharpness(population, hessian_samples, decided)
        if not all(math.isfinite(one.value) for one in (*terms, initial_sharpness)):
            raise ValueError(
                "the loss must have finite derivatives at the model's present parameters; got a NaN or an infinity on finite data. "
                "Check for logarithms and roots of 0 and for overflow."
            )
        trial = final_sharpness = None
        if seeds:
            trial, trained = run_trial(
                model, objective, source, form, lr, momentum, plain_lr, seeds, steps, device, stream_of, tick
            )
            final_sharpness = Quantity.of(math.inf, math.inf, math.inf)
            if trained is not None:
                after = Derivatives(trained, objective, source.fresh(stream_of(0), 0))
                final_sharpness = sharpness(
                    Population(after, source, stream_of(2), tick, 2 * seeds * steps), hessian_samples, decided
                )
    if derivatives.note:
        notes.append(derivatives.note)
    if terms[0].value == terms[3].value == 0:
        notes.append("every gradient is 0: neither method moves")
    freed = sum(p.numel() * p.element_size() for _, p in own) if momentum else 0
    return Diagnosis(
        float(lr),
        float(momentum),
        source.size,
        plain_lr,
        *(terms[0], terms[1], terms[2], terms[3]),
        initial_sharpness,
        final_sharpness,
        freed,
        trial,
        tuple(notes),
        Origin(call, seed, 0, "torch", str(own[0][1].dtype)[6:]),
    )


class _Progress:
    """Counter of the units of work done; a call adds `count` and reports (done, total) to `progress`, if that is not None.

    `total` is an estimate; where more is done, it grows with it.
    """

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, count: int = 1) -> None:
        self.done += count
        self.total = max(self.total, self.done)
        if self.progress is not None:
            self.progress(self.done, self.total)


def zone_of(step_sharpness: Quantity) -> str | None:
    """Return the zone of the interval of eta lambda_max: "drop" below 1, "keep" above 2, "between" inside [1, 2], ends included.

    None if the interval contains points of two zones, or if the value is not finite. `step_sharpness` is eta lambda_max with its interval.
    """
    if not math.isfinite(step_sharpness.value):
        return None
    if step_sharpness.high < STABLE:
        return "drop"
    if step_sharpness.low > UNSTABLE:
        return "keep"
    return "between" if step_sharpness.low >= STABLE and step_sharpness.high <= UNSTABLE else None


def _ratio(a: float, b: float) -> float:
    """Return a / b; for b = 0 it is infinite, and NaN if a = 0 too."""
    return a / b if b else math.inf if a else math.nan


def _bytes(count: int) -> str:
    """Return a number of bytes as text with a decimal unit, such as "1.5 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
