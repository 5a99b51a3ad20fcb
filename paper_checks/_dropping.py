"""Complete runs for the claim on P(keep): the recorded ones, and those of twelve small networks, of all seeds at once.

None of the twelve, and none of their data, was used to fit P(keep). Networks and settings were fixed before any of their runs. They consist of layers that
run under `torch.vmap`.
"""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STEPS, LATE = 800, (700, 750, 800)
"""Length of a complete run, and the steps whose mean training loss is that at the end."""
MOMENTUM, LEAST, MOST = 0.9, 0.5, 8.0
"""The momentum, and the range of x0 = h lambda_max. In a first range, from 1.5 to 34, runs with momentum failed themselves at both points of four networks."""
BATCHES = (8, 16, 32, 64)
"""The batch sizes, which networks take in turn."""


class Answers(NamedTuple):
    """Probabilities of "keep" and what became of the runs, for settings that are not dead.

    Args:
        p: The probability of each setting, `(settings,)`.
        lacking: The share of its runs that lack more than a tenth of momentum's progress, `(settings,)`.
        networks: The name of its network.
        cost: The mean cost of a diagnosis in batch gradients.
    """

    p: np.ndarray
    lacking: np.ndarray
    networks: list[str]
    cost: float


def benchmark(name: str) -> Any:
    """Return a module of the package `dropping_momentum` in the folder `benchmarks`, where the labels, the fit and the scores are."""
    folder = str(Path(__file__).resolve().parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(f"dropping_momentum.{name}")
    finally:
        sys.path.remove(folder)


def recorded() -> Answers:
    """Return the staged answers for all recorded settings, each from regressions that were fitted to other networks.

    A network of the fit is left out of it; for the others the regressions are those of the package, which were frozen before their runs.
    """
    fit, labels = benchmark("fit"), benchmark("labels")
    rows, parts = fit.alive(labels.read(labels.TABLE)), []
    for part in ("fitted", "unseen"):
        own = fit.of_part(rows, part)
        if part == "fitted":
            found = fit.left_out(own)
        else:
            found = {stage: np.array([fit.model.keep_probability(row.evidence(stage)) for row in own]) for stage in fit.STAGES}
        p, _, cost = fit.staged(found, fit.costs(own))
        parts += [(row, *each) for row, *each in zip(own, p, cost)]
    own, p, cost = zip(*parts)
    return Answers(np.array(p), np.array([r.share for r in own]), [r.setting.network for r in own], float(np.mean(cost)))


class Problem(NamedTuple):
    """A network at its initialisation, the loss of its output, and its data (inputs, targets)."""

    network: Any
    loss: Callable[[Any, Any], Any]
    data: tuple[Any, Any]


def problems() -> dict[str, Problem]:
    """Return the twelve networks by name."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Plus(nn.Module):
        """x + body(x)."""

        def __init__(self, *body: nn.Module) -> None:
            super().__init__()
            self.body = nn.Sequential(*body)

        def forward(self, x: Any) -> Any:
            return x + self.body(x)

    class Attend(nn.Module):
        """Attention of tokens to each other, averaged over tokens."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

        def forward(self, x: Any) -> Any:
            scores = self.query(x) @ self.key(x).transpose(-1, -2) / math.sqrt(x.shape[-1])
            return (scores.softmax(dim=-1) @ self.value(x)).mean(dim=-2)

    class Elman(nn.Module):
        """The last state of h' = tanh(W x + U h)."""

        def __init__(self, features: int, width: int) -> None:
            super().__init__()
            self.outside, self.inside = nn.Linear(features, width), nn.Linear(width, width)

        def forward(self, x: Any) -> Any:
            h = torch.tanh(self.outside(x[:, 0]))
            for k in range(1, x.shape[1]):
                h = torch.tanh(self.outside(x[:, k]) + self.inside(h))
            return h

    class Average(nn.Module):
        """The mean over tokens."""

        def forward(self, x: Any) -> Any:
            return x.mean(dim=-2)

    def chain(*widths: int, act: Any) -> list[nn.Module]:
        """Return linear layers of these widths with `act` between them."""
        pairs = list(itertools.pairwise(widths))
        return [layer for i, pair in enumerate(pairs) for layer in ((act(), nn.Linear(*pair)) if i else (nn.Linear(*pair),))]

    def table(name: str) -> tuple[Any, Any]:
        """Return a data set of scikit-learn with standardised columns; targets that are numbers are standardised too."""
        from sklearn import datasets

        raw = getattr(datasets, f"load_{name}")()
        x, y = (torch.as_tensor(part) for part in (raw.data, raw.target))
        x = ((x - x.mean(0)) / x.std(0)).float()
        return (x, y.long()) if len(y.unique()) < 10 else (x, ((y - y.mean()) / y.std()).float()[:, None])

    def waves(n: int = 512) -> tuple[Any, Any]:
        """Return sequences of 8 noisy points of waves of three frequencies, `(n, 8, 2)`, and the frequencies."""
        kind = torch.randint(0, 3, (n,))
        phase = 6.3 * torch.rand(n, 1) + (0.4 + 0.5 * kind)[:, None] * torch.arange(8)
        return torch.stack([phase.sin(), phase.cos()], dim=-1) + 0.4 * torch.randn(n, 8, 2), kind

    def phrases(n: int = 512) -> tuple[Any, Any]:
        """Return phrases of 6 of 30 words, `(n, 6)`, and the sum of the words' values."""
        x, value = torch.randint(0, 30, (n, 6)), torch.randn(30)
        return x, value[x].mean(dim=1, keepdim=True) * 2 + 0.1 * torch.randn(n, 1)

    def bumps(n: int = 512) -> tuple[Any, Any]:
        """Return points in four dimensions, `(n, 4)`, and a smooth function of them."""
        x = torch.randn(n, 4)
        return x, torch.cos(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3] + 0.1 * torch.randn(n, 1)

    ce, mse = F.cross_entropy, F.mse_loss
    made: dict[str, tuple[Callable[[], nn.Module], Any, Callable[[], tuple[Any, Any]]]] = {
        "logistic, tumours": (lambda: nn.Linear(30, 2), ce, lambda: table("breast_cancer")),
        "relu, tumours": (lambda: nn.Sequential(*chain(30, 24, 16, 2, act=nn.ReLU)), ce, lambda: table("breast_cancer")),
        "tanh, wines": (lambda: nn.Sequential(*chain(13, 16, 16, 3, act=nn.Tanh)), ce, lambda: table("wine")),
        "residual, wines": (
            lambda: nn.Sequential(nn.Linear(13, 12), Plus(nn.Tanh(), nn.Linear(12, 12)), Plus(nn.Tanh(), nn.Linear(12, 12)), nn.Linear(12, 3)),
            ce, lambda: table("wine"),
        ),
        "gelu, diabetes": (lambda: nn.Sequential(*chain(10, 24, 1, act=nn.GELU)), mse, lambda: table("diabetes")),
        "linear, diabetes": (lambda: nn.Linear(10, 1), mse, lambda: table("diabetes")),
        "recurrent, waves": (lambda: nn.Sequential(Elman(2, 12), nn.Linear(12, 3)), ce, waves),
        "attention, waves": (lambda: nn.Sequential(nn.Linear(2, 8), Plus(nn.LayerNorm(8), nn.Tanh()), Attend(8), nn.Linear(8, 3)), ce, waves),
        "convolution, waves": (
            lambda: nn.Sequential(nn.Conv1d(8, 8, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)), ce, waves,
        ),
        "words": (lambda: nn.Sequential(nn.Embedding(30, 8), Average(), nn.Linear(8, 1)), mse, phrases),
        "relu, bumps": (lambda: nn.Sequential(*chain(4, 32, 32, 1, act=nn.ReLU)), mse, bumps),
        "layer norm, bumps": (
            lambda: nn.Sequential(nn.Linear(4, 24), nn.LayerNorm(24), nn.SiLU(), nn.Linear(24, 1)), mse, bumps,
        ),
    }  # fmt: skip
    out = {}
    for i, (name, (make, loss, data)) in enumerate(made.items()):
        with torch.random.fork_rng():
            torch.manual_seed(900 + i)
            own = data()
            out[name] = Problem(make(), loss, own)
    return out


def points(places: int) -> list[float]:
    """Return `places` values of x0, the middles of equal parts of the range of log x0."""
    return [LEAST * (MOST / LEAST) ** ((i + 0.5) / places) for i in range(places)]


def complete_runs(problem: Problem, plain_lrs: list[float], batch: int, seeds: int, seed: int) -> np.ndarray:
    """Return the losses at the end of runs with momentum and of plain SGD, over that at the start, `(rates, 2, seeds)`.

    A loss above that at the start, or not finite, counts as 1. All methods see the same batches.

    Args:
        problem: The network at its initialisation, and its data.
        plain_lrs: The learning rates of plain SGD, `(rates,)`; those with momentum are 1 - `MOMENTUM` times as large.
        batch: The batch size.
        seeds: The number of runs of each method.
        seed: The seed of the shuffles.
    """
    import torch

    names, params = zip(*problem.network.named_parameters())
    sizes = [p.numel() for p in params]
    x, y = problem.data

    def loss(flat: Any, index: Any) -> Any:
        own = {name: part.view(p.shape) for name, part, p in zip(names, flat.split(sizes), params)}
        return problem.loss(torch.func.functional_call(problem.network, own, (x[index],)), y[index])

    rng, per_epoch = np.random.default_rng(seed), len(x) // batch
    orders = np.stack(
        [
            np.concatenate([rng.permutation(len(x))[: per_epoch * batch] for _ in range(-(-STEPS // per_epoch))])
            for _ in range(seeds)
        ]
    ).reshape(seeds, -1, batch)
    index = torch.as_tensor(np.tile(orders, (2 * len(plain_lrs), 1, 1)))
    start = torch.cat([p.detach().ravel() for p in params])
    flat = start.repeat(len(index), 1).requires_grad_()
    lr = torch.tensor([factor * rate for rate in plain_lrs for factor in (1 - MOMENTUM, 1.0)]).repeat_interleave(seeds)[:, None]
    beta = torch.tensor([MOMENTUM, 0.0] * len(plain_lrs)).repeat_interleave(seeds)[:, None]
    buffer, values, everything, ends = torch.zeros_like(start).repeat(len(index), 1), torch.vmap(loss), torch.arange(len(x)), []
    for k in range(STEPS):
        (gradient,) = torch.autograd.grad(values(flat, index[:, k]).sum(), flat)
        with torch.no_grad():
            buffer.mul_(beta).add_(gradient)
            flat.addcmul_(lr, buffer, value=-1.0)
            if k + 1 in LATE:
                ends.append(torch.vmap(loss, in_dims=(0, None))(flat, everything))
    ratios = (torch.stack(ends).mean(dim=0) / loss(start, everything)).detach().double().numpy()
    return np.fmin(np.nan_to_num(ratios, nan=1.0, posinf=1.0), 1.0).reshape(len(plain_lrs), 2, seeds)
