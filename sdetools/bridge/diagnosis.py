r"""May I drop momentum here? The terms of Lemma 2.4 on a real network, what they predict, and a trial of the prediction.

One step of plain SGD changes the loss by - eta |grad L|^2 + eta^2/2 (grad L^T H grad L + tr(H Sigma)) (Lemma 2.4, with the Hessian H
and the covariance Sigma of a batch gradient). SGDM acts like SGD at eta = lr / (1 - momentum) (torch's `lr`) as long as eta is small
beside the curvature: at eta lambda_max near 2 and above plain SGD is thrown off the steepest direction, where momentum still holds.

Everything is estimated from gradients g_i of independent batches, with Hessian products H g_i on batches of their own: g_i.g_j and
g_j.H g_i (i != j) have the means |grad L|^2 and grad L^T H grad L, in which no gradient meets its own noise, and what g_i.g_i and g_i.H g_i
have more is tr(Sigma) and tr(H Sigma). Intervals come from a jackknife over groups of batches.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sdetools import _check
from sdetools.noise.minibatch import batch_factor

from .batches import Batches
from .modules import check_module
from .optimisers import SGD, convert, named

STABLE, UNSTABLE = 1.0, 2.0
"""eta lambda_max below which plain SGD is predicted to match, and above which it is predicted not to."""
TOLERANCE = 0.1
"""Plain SGD matches when it loses less than this part of the progress that momentum makes."""
WORST = 2.0
"""The largest part that a run counts for: it ends as far above the start as momentum ends below it."""
GROUPS = 8


@dataclass(frozen=True)
class Quantity:
    """An estimate with its 95 % interval; exact where both ends are the value."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g}" if self.low == self.high else f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


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


@dataclass(frozen=True)
class Diagnosis:
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
    sharpness: float
    """The largest eigenvalue of H, at the checkpoint."""
    later_sharpness: float | None
    """The same after the trial's steps with momentum: training may sharpen the valley it is in."""
    freed: int
    """Bytes of the momentum buffer."""
    trial: Trial | None = field(default=None)

    @property
    def noise_scale(self) -> float:
        """batch_size tr(Sigma) / |grad L|^2: the batch size at which noise and gradient are of one size."""
        return self.batch_size * self.variance.value / self.descent.value

    @property
    def stiffness(self) -> float:
        """eta lambda_max, with the larger of the two sharpnesses."""
        return self.plain_lr * max(self.sharpness, self.later_sharpness or 0.0)

    @property
    def regime(self) -> str:
        """In words."""
        if self.later_sharpness is not None and not math.isfinite(self.later_sharpness):
            return "the run with momentum diverges itself: its learning rate is too large"
        if not math.isfinite(self.stiffness) or self.stiffness >= UNSTABLE:
            return "large steps: plain SGD at the equivalent rate would be thrown off the steepest direction"
        if self.stiffness >= STABLE:
            return "steps near the edge of what plain SGD bears"
        if abs(self.noise.value) > abs(self.curvature.value):
            return "small steps, noise-induced: momentum acts like plain SGD"
        return "small steps, curvature-induced: momentum acts like plain SGD"

    @property
    def prediction(self) -> str:
        """From the Hessian alone; "unsure" where the run with momentum diverges itself."""
        if not math.isfinite(self.stiffness):
            return "unsure"
        return "drop" if self.stiffness < STABLE else "keep" if self.stiffness > UNSTABLE else "unsure"

    @property
    def advice(self) -> str:
        """The trial's, where it could tell; else the prediction."""
        if self.trial is None or self.trial.advice == "unsure":
            return self.prediction
        return self.trial.advice

    def to_json(self) -> str:
        """All of it, with the conclusions, as JSON."""
        told = {name: getattr(self, name) for name in ("noise_scale", "stiffness", "regime", "prediction", "advice")}
        return json.dumps(_plain(dataclasses.asdict(self)) | _plain(told), indent=1) + "\n"

    def __str__(self) -> str:
        eta = self.plain_lr
        sharp = f"{self.sharpness:.4g}" + (
            "" if self.later_sharpness is None else f", after the trial {self.later_sharpness:.4g}"
        )
        rows = [
            ("descent force |grad L|^2", str(self.descent)),
            ("curvature term grad L.H grad L", str(self.curvature)),
            ("noise term tr(H Sigma)", str(self.noise)),
            ("share of a step's descent lost to curvature", f"{eta / 2 * self.curvature.value / self.descent.value:.3g}"),
            ("share of a step's descent lost to noise", f"{eta / 2 * self.noise.value / self.descent.value:.3g}"),
            ("largest Hessian eigenvalue", sharp),
            ("eta lambda_max", f"{self.stiffness:.3g}"),
            ("gradient noise scale", f"{self.noise_scale:.4g} (batch size {self.batch_size})"),
            ("regime", self.regime),
        ]
        if self.trial is not None:
            runs = f"{len(self.trial.plain)} pairs of {self.trial.steps} steps"
            rows.append((f"progress that plain SGD lacks, {runs}", str(self.trial.lost)))
        width = max(len(name) for name, _ in rows)
        text = "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
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
    device: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    r"""Measure Lemma 2.4's terms at the model's present parameters, predict whether plain SGD would do, and try it.

    `loss(model(input), target)` on batches (input, target); for other batches give `loss_of(model, batch)` and None for `loss`. `data`:
    tensors, a data set or a loader (see `Batches`). `lr` and `momentum` are those of `form`: "heavy-ball" (torch's), "sgdm" (Def. 2.3) or
    "nesterov". `batches`: how many the terms are estimated from; with `exact=True` they come from the whole data and every sample's own gradient (for small data, and
    losses that are means over samples). The trial trains copies of the model for `steps` steps with `seeds` shuffles each way, and while it
    cannot tell, with twice as many, up to 4 `seeds`; seeds=0 leaves it out. The model itself is not changed. In training mode it stays in training mode.

    ValueError for settings out of range, too few batches, and a model without parameters to train.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> x = torch.randn(256, 4); y = x.sum(1, keepdim=True) + torch.randn(256, 1)
    >>> print(diagnose(torch.nn.Linear(4, 1), torch.nn.functional.mse_loss, (x, y), lr=1e-3, batch_size=8, steps=200).advice)
    drop
    """
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
    source = Batches(data, batch_size, device)
    net = copy.deepcopy(model)
    if device is not None:
        net = net.to(device)
    params = [p for p in net.parameters() if p.requires_grad]
    if not params:
        raise ValueError("`model` must have parameters that require a gradient; got none.")
    evaluate = loss_of or _with_criterion(loss)
    total = (source.samples if exact else batches) + _SHARP + seeds * 2 * steps
    tick = _Tick(progress, total)

    with torch.random.fork_rng(devices=[] if device is None or torch.device(device).type == "cpu" else None):
        torch.manual_seed(seed)  # for dropout: the same answer each time, and the caller's generator stays where it is
        return _measured(
            model, net, params, evaluate, source, form, lr, momentum, plain_lr, batches, seeds, steps, exact, device, seed, tick
        )


def _measured(
    model: torch.nn.Module, net: torch.nn.Module, params: Sequence[torch.Tensor], evaluate: Any, source: Batches, form: str, lr: float,
    momentum: float, plain_lr: float, batches: int, seeds: int, steps: int, exact: bool, device: Any, seed: int, tick: _Tick,
) -> Diagnosis:  # fmt: skip
    if exact:
        check_module(net)
        terms = _exact_terms(net, params, evaluate, source, tick)
    else:
        terms = _terms(net, params, evaluate, source, batches, seed, tick)
    sharpness = _sharpness(net, params, evaluate, source.whole() if exact else source, seed, tick)
    trial = later = None
    if seeds:
        trial, trained = _try(model, evaluate, source, form, lr, momentum, plain_lr, seeds, steps, device, seed, tick)
        finite = all(bool(torch.isfinite(p).all()) for p in trained.parameters())
        own = [p for p in trained.parameters() if p.requires_grad]
        later = _sharpness(trained, own, evaluate, source, seed, _Tick(None, 0)) if finite else math.inf
    freed = sum(p.numel() * p.element_size() for p in params) if momentum else 0
    return Diagnosis(float(lr), float(momentum), source.size, plain_lr, *terms, sharpness, later, freed, trial)


_SHARP = 40
"""Hessian products of the search for the largest eigenvalue, at most."""


class _Tick:
    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, much: int = 1) -> None:
        self.done += much
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


def _with_criterion(loss: Callable[..., torch.Tensor] | None) -> Callable[[torch.nn.Module, Any], torch.Tensor]:
    if not callable(loss):
        raise ValueError(f"`loss` must be a function of (output, target), or None beside `loss_of`; got {loss!r}.")

    def of(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise ValueError(
                "`data` must give batches (input, target) to `loss`; got others. Give loss_of(model, batch) instead."
            )
        return loss(model(batch[0]), batch[1])

    return of


def _gradient(net: Any, params: Sequence[torch.Tensor], evaluate: Any, batch: Any) -> torch.Tensor:
    return _flat(torch.autograd.grad(evaluate(net, batch), params, allow_unused=True), params)


def _product(net: Any, params: Sequence[torch.Tensor], evaluate: Any, batch: Any, v: torch.Tensor) -> torch.Tensor:
    """H v on a batch."""
    first = torch.autograd.grad(evaluate(net, batch), params, create_graph=True, allow_unused=True)
    parts = torch.split(v, [p.numel() for p in params])
    dot = sum((g * part.reshape(g.shape)).sum() for g, part in zip(first, parts) if g is not None)
    if not isinstance(dot, torch.Tensor) or not dot.requires_grad:
        return torch.zeros_like(v)
    return _flat(torch.autograd.grad(dot, params, allow_unused=True), params)


def _flat(grads: Sequence[torch.Tensor | None], params: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([torch.zeros_like(p).ravel() if g is None else g.detach().ravel() for g, p in zip(grads, params)])


def _terms(
    net: Any, params: Sequence[torch.Tensor], evaluate: Any, source: Batches, batches: int, seed: int, tick: _Tick
) -> tuple[Quantity, Quantity, Quantity, Quantity]:
    """|grad L|^2, grad L^T H grad L, tr(H Sigma), tr(Sigma)."""
    n = max(1, batches // (2 * GROUPS))
    means, products, own = [], [], np.empty((2, GROUPS))
    for a in range(GROUPS):
        mean: Any = 0
        product: Any = 0
        squares = np.zeros(2)
        for i in range(a * n, a * n + n):
            g = _gradient(net, params, evaluate, source.fresh(_stream(seed, 0), i))
            h = _product(net, params, evaluate, source.fresh(_stream(seed, 1), i), g)
            squares += _dot(g, g) / n, _dot(g, h) / n
            mean, product = mean + g / n, product + h / n
            tick(2)
        means.append(mean)
        products.append(product)
        own[:, a] = squares
    inner = np.array([[_dot(b, a) for b in means] for a in means])
    pulled = np.array([[_dot(b, h) for b in means] for h in products])

    def estimates(keep: np.ndarray) -> np.ndarray:
        k = len(keep)
        crossed = [(m.sum() - np.trace(m)) / (k * (k - 1)) for m in (table[np.ix_(keep, keep)] for table in (inner, pulled))]
        alone = own[:, keep].mean(axis=1)
        return np.array([crossed[0], crossed[1], alone[1] - crossed[1], alone[0] - crossed[0]])

    everyone = np.arange(GROUPS)
    whole = estimates(everyone)
    without = np.array([estimates(np.delete(everyone, a)) for a in everyone])
    spread = np.sqrt((GROUPS - 1) / GROUPS * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    half = _student(GROUPS - 1) * spread
    first, second, third, fourth = (Quantity(float(v), float(v - h), float(v + h)) for v, h in zip(whole, half))
    return first, second, third, fourth


def _exact_terms(
    net: Any, params: Sequence[torch.Tensor], evaluate: Any, source: Batches, tick: _Tick
) -> tuple[Quantity, Quantity, Quantity, Quantity]:
    """The same from all samples: Sigma = c S, S the covariance (over n) of their gradients, c = (n - size) / ((n - 1) size)."""
    everything = source.whole().at(0, 0)
    first = torch.autograd.grad(evaluate(net, everything), params, create_graph=True)
    g = _flat(first, params)

    def pulled(v: torch.Tensor) -> float:
        parts = torch.split(v, [p.numel() for p in params])
        dot = sum((a * b.reshape(a.shape)).sum() for a, b in zip(first, parts))
        if not isinstance(dot, torch.Tensor) or not dot.requires_grad:
            return 0.0
        return _dot(v, _flat(torch.autograd.grad(dot, params, retain_graph=True, allow_unused=True), params))

    noise = variance = 0.0
    for i in range(source.samples):
        v = _gradient(net, params, evaluate, source.rows([i])) - g
        noise += pulled(v) / source.samples
        variance += _dot(v, v) / source.samples
        tick()
    factor = batch_factor(source.samples, source.size, replace=False)
    first_, second, third, fourth = (Quantity(v, v, v) for v in (_dot(g, g), pulled(g), factor * noise, factor * variance))
    return first_, second, third, fourth


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.dot(a.double(), b.double()))


def _stream(seed: int, which: int) -> int:
    return 1_000 * (seed + 1) + which


def _student(degrees: int, looks: int = 1) -> float:
    """The half-width of a 95 % interval in standard errors, valid at each of several looks."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - 0.025 / looks))


def _sharpness(net: Any, params: Sequence[torch.Tensor], evaluate: Any, source: Batches, seed: int, tick: _Tick) -> float:
    """The largest eigenvalue of the Hessian of the mean loss over a few batches, by Lanczos' method with whole reorthogonalisation."""
    few = min(source.per_epoch, max(1, 512 // source.size))
    held = list(source.some(_stream(seed, 2), few))
    q = torch.randn(sum(p.numel() for p in params), generator=torch.Generator().manual_seed(seed + 1)).to(params[0])
    basis: list[torch.Tensor] = [q / q.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    last = -math.inf
    for k in range(min(_SHARP, len(q))):
        w: Any = 0
        for batch in held:
            w = w + _product(net, params, evaluate, batch, basis[-1]) / few
        tick()
        diagonal.append(_dot(w, basis[-1]))
        for _ in range(2):
            for v in basis:
                w = w - torch.dot(v, w) * v
        top = float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))[-1])
        size = float(w.norm())
        if not math.isfinite(size) or size <= 1e-6 * max(map(abs, diagonal)) or (k > 4 and abs(top - last) < 1e-4 * abs(top)):
            return top
        last = top
        beside.append(size)
        basis.append(w / size)
    return last


def _try(
    model: torch.nn.Module, evaluate: Any, source: Batches, form: str, lr: float, momentum: float, plain_lr: float,
    seeds: int, steps: int, device: Any, seed: int, tick: _Tick,
) -> tuple[Trial, torch.nn.Module]:  # fmt: skip
    """The trial, and the network of the last run with momentum."""
    few = max(1, min(source.per_epoch, 1024 // source.size))
    held = list(source.some(_stream(seed, 3), few))

    def judged(net: torch.nn.Module) -> float:
        with torch.no_grad():
            return float(np.mean([float(evaluate(net, batch)) for batch in held]))

    def fresh() -> torch.nn.Module:
        net = copy.deepcopy(model)
        return net if device is None else net.to(device)

    before = judged(fresh())
    ends: list[tuple[float, float]] = []
    trained = fresh()
    while True:
        for i in range(len(ends), max(seeds, 2 * len(ends))):
            pair = []
            for way in (0, 1):
                net = fresh()
                own = [p for p in net.parameters() if p.requires_grad]
                optimiser = SGD(own, lr=plain_lr) if way else named(form)(own, lr=lr, momentum=momentum)
                for batch in source.some(_stream(seed, 10 + i), steps):
                    optimiser.zero_grad()
                    evaluate(net, batch).backward()
                    optimiser.step()
                    tick()
                pair.append(judged(net))
                trained = trained if way else net
            ends.append((pair[0], pair[1]))
        with_momentum, plain = np.array(ends).T
        trial = Trial(steps, before, with_momentum, plain, lost_progress(before, with_momentum, plain))
        if trial.advice != "unsure" or len(ends) >= 4 * seeds:
            return trial, trained


def lost_progress(before: float, momentum: np.ndarray, plain: np.ndarray) -> Quantity:
    """The part of momentum's progress that plain SGD lacks: (mean plain - mean momentum) / (before - mean momentum), by the delta method.

    The interval is good for the trial's three looks. A run of plain SGD counts as at most `WORST`: one that diverges says no more than that it did.
    """
    if not np.isfinite(momentum).all():
        return Quantity(math.nan, -math.inf, math.inf)
    progress = before - float(momentum.mean())
    if progress <= 0:
        return Quantity(math.nan, -math.inf, math.inf)
    difference = np.fmin(np.nan_to_num(plain, nan=math.inf) - momentum, WORST * progress)
    value = float(difference.mean()) / progress
    scatter = difference - value * (before - momentum)
    half = _student(len(plain) - 1, looks=3) * float(scatter.std(ddof=1)) / math.sqrt(len(plain)) / progress
    return Quantity(value, value - half, value + half)


def _plain(value: Any) -> Any:
    """What JSON can hold: arrays as lists, numbers that are none as null."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (np.ndarray, list, tuple)):
        return [_plain(part) for part in value]
    return (
        None
        if isinstance(value, float) and not math.isfinite(value)
        else float(value)
        if isinstance(value, np.floating)
        else value
    )


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
