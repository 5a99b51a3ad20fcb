"""Coverage of the largest Hessian eigenvalue: 20 small networks, four batch sizes, against the dense Hessian in double precision.

    python benchmarks/sharpness.py

For each network and batch size the interval that `diagnose` reports is compared with the eigenvalue of the exact Hessian. With batch normalisation the
loss is the mean over random batches of the run's size; its Hessian is then averaged over 2^14 samples in such batches. The 20 networks and their data
serve no other purpose. A 95 % interval holds at least 17 of 20 times with probability 98.4 %.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sdetools.bridge import diagnose

BATCHES = (1, 8, 64, 0)
"""The batch sizes; 0 stands for all data, and 2 replaces 1 where a network normalises batches."""
REFERENCE_SAMPLES = 1 << 14
"""The samples, in random batches, of the reference for a network that normalises batches."""


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x + f(x)."""
        return x + self.inner(x)


class LastState(nn.Module):
    """A recurrent network that returns its output at the last time."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output at the last time, `(batch, units)`."""
        return self.inner(x)[0][:, -1]


class SelfAttention(nn.Module):
    """One layer of self-attention, averaged over positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean over positions of the attention of x to itself, `(batch, width)`."""
        return self.inner(x, x, x, need_weights=False)[0].mean(dim=1)


class Autoencoder(nn.Module):
    """A linear map and its transpose, around tanh: one tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4) / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return tanh(x W) W^T."""
        return torch.tanh(x @ self.weight) @ self.weight.T


class EachBatch(nn.Module):
    """Batch normalisation of consecutive batches of `size` rows, each with its own statistics, by the formula."""

    def __init__(self, size: int, own: Any) -> None:
        super().__init__()
        self.size, self.weight, self.bias, self.eps = size, own.weight, own.bias, own.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised rows, in the shape of x."""
        parts = x.reshape(-1, self.size, *x.shape[1:])
        axes = (1, *range(3, parts.ndim))
        centred = parts - parts.mean(dim=axes, keepdim=True)
        scaled = centred / (centred.square().mean(dim=axes, keepdim=True) + self.eps).sqrt()
        shape = (1, 1, -1, *([1] * (parts.ndim - 3)))
        return (scaled * self.weight.reshape(shape) + self.bias.reshape(shape)).reshape(x.shape)


def problems() -> Iterator[tuple[str, nn.Module, Callable[..., torch.Tensor], torch.Tensor, torch.Tensor]]:
    """Yield 20 networks with loss, inputs and targets: the name says what is special; every second one has been trained for 60 steps."""
    torch.manual_seed(20_000)
    numbers = lambda n, *shape: torch.randn(n, *shape) * torch.linspace(0.3, 2, shape[-1])  # noqa: E731
    classes = lambda x, k: (x.flatten(1) @ torch.randn(x[0].numel(), k)).argmax(1)  # noqa: E731
    values = lambda x: torch.sin(x.flatten(1).sum(1, keepdim=True))  # noqa: E731
    ce, mse = F.cross_entropy, F.mse_loss
    words = lambda n: torch.randint(0, 12, (n, 5))  # noqa: E731
    counted = lambda x: (x < 4).sum(1, keepdim=True).float() / 2 - 1  # noqa: E731
    made: list[tuple[str, Callable[[], nn.Module], Any, Any, Any]] = [
        ("least squares", lambda: nn.Linear(20, 1), mse, numbers(3000, 20), values),
        ("softmax", lambda: nn.Linear(16, 5), ce, numbers(2000, 16), 5),
        ("tanh", lambda: nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4)), ce, numbers(1000, 8), 4),
        ("relu", lambda: nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 3)), ce, numbers(4000, 10), 3),
        ("deep tanh", lambda: nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.Tanh())), nn.Linear(6, 1)),
         mse, numbers(800, 6), values),
        ("gelu", lambda: nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 1)), mse, numbers(500, 6), values),
        ("summed loss", lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)), nn.MSELoss(reduction="sum"),
         numbers(600, 5), values),
        ("convolutions", lambda: nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(),
                                               nn.Linear(16, 3)), ce, numbers(1200, 1, 8, 8), 3),
        ("residual", lambda: nn.Sequential(nn.Linear(6, 8), Residual(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))),
                                           nn.Linear(8, 3)), ce, numbers(900, 6), 3),
        ("layer normalisation", lambda: nn.Sequential(nn.Linear(6, 10), nn.LayerNorm(10), nn.ReLU(), nn.Linear(10, 3)), ce,
         numbers(700, 6), 3),
        ("batch normalisation", lambda: nn.Sequential(nn.Linear(8, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 4)), ce,
         numbers(1024, 8), 4),
        ("batch normalisation, twice", lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 8),
                                                             nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)), mse, numbers(512, 6), values),
        ("residual with batch normalisation", lambda: nn.Sequential(nn.Linear(6, 8), Residual(nn.Sequential(
            nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())), nn.Linear(8, 3)), ce, numbers(768, 6), 3),
        ("convolution with batch normalisation", lambda: nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(),
                                                                       nn.Flatten(), nn.Linear(36, 3)), ce, numbers(512, 1, 6, 6), 3),
        ("attention", lambda: nn.Sequential(SelfAttention(6), nn.Linear(6, 3)), ce, numbers(640, 4, 6), 3),
        ("embedding bag", lambda: nn.Sequential(nn.EmbeddingBag(12, 6), nn.Tanh(), nn.Linear(6, 1)), mse, words(800), counted),
        ("embedding", lambda: nn.Sequential(nn.Embedding(12, 4), nn.Flatten(), nn.Linear(20, 6), nn.Tanh(), nn.Linear(6, 1)), mse,
         words(800), counted),
        ("LSTM", lambda: nn.Sequential(LastState(nn.LSTM(3, 5, batch_first=True)), nn.Linear(5, 2)), ce, numbers(480, 6, 3), 2),
        ("GRU", lambda: nn.Sequential(LastState(nn.GRU(3, 6, batch_first=True)), nn.Linear(6, 1)), mse, numbers(480, 6, 3), values),
        ("tied weights", Autoencoder, mse, numbers(1000, 6), lambda x: x),
    ]  # fmt: skip
    for i, (name, make, loss, x, target) in enumerate(made):
        torch.manual_seed(20_000 + i)
        model, y = make(), classes(x, target) if isinstance(target, int) else target(x)
        if i % 2:
            optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
            for k in range(60):
                optimiser.zero_grad()
                loss(model(x[k::60]), y[k::60]).backward()
                optimiser.step()
        yield name, model, loss, x, y


def dense(model: nn.Module, loss: Callable[..., torch.Tensor], x: torch.Tensor, y: torch.Tensor, size: int) -> float:
    """Return the largest eigenvalue of the Hessian of the mean batch loss, from all its columns in double precision."""
    net = copy.deepcopy(model).double()
    mixes = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in net.modules())
    summed = getattr(loss, "reduction", "mean") == "sum"
    if mixes and size < len(x):
        for parent in list(net.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.modules.batchnorm._BatchNorm):
                    setattr(parent, name, EachBatch(size, child))
        draw = torch.Generator().manual_seed(77)
        index = torch.cat([torch.randperm(len(x), generator=draw)[:size] for _ in range(REFERENCE_SAMPLES // size)])
        x, y = x[index], y[index]
    x, y = (part.double() if part.is_floating_point() else part for part in (x, y))
    params = list(net.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        grads = differentiable(net, loss, x, y, params)
    flat = torch.cat([g.ravel() for g in grads])
    columns = []
    for i in range(len(flat)):
        parts = torch.autograd.grad(flat[i], params, retain_graph=True, allow_unused=True)
        columns.append(torch.cat([(torch.zeros_like(p) if g is None else g).ravel() for g, p in zip(parts, params)]))
    h = torch.stack(columns)
    return float(torch.linalg.eigvalsh((h + h.T) / 2)[-1]) * (size / len(x) if summed else 1.0)


def differentiable(net: nn.Module, loss: Any, x: torch.Tensor, y: torch.Tensor, params: list[Any]) -> tuple[torch.Tensor, ...]:
    """Return the gradient of the loss with its graph; a bag of embeddings, which torch differentiates once, is written as a mean."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.EmbeddingBag):
                own = nn.Embedding(*child.weight.shape, _weight=child.weight)
                own.weight = child.weight
                setattr(parent, name, nn.Sequential(own, Mean()))
    return torch.autograd.grad(loss(net(x), y), params, create_graph=True)


class Mean(nn.Module):
    """The mean over the second axis."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean over the second axis."""
        return x.mean(dim=1)


def main() -> int:
    """Print a row per network, the count of intervals that hold the exact eigenvalue per batch size, and return 1 if one is below 17."""
    torch.set_num_threads(1)
    inside_of = dict.fromkeys(BATCHES, 0)
    for name, model, loss, x, y in problems():
        mixes = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
        row = []
        for batch in BATCHES:
            size = batch or len(x)
            size = max(size, 2) if mixes else size
            found = diagnose(model, loss, (x, y), lr=1e-4, batch_size=size, batches=16, seeds=0).sharpness
            true = dense(model, loss, x, y, size)
            inside = found.low * (1 - 1e-5) <= true <= found.high * (1 + 1e-5)
            inside_of[batch] += inside
            row.append(f"{true:.4g} in {found}{'' if inside else ' MISSED'}")
        print(f"{name:<37} {'; '.join(row)}", flush=True)
    print("inside of 20: " + ", ".join(f"batch {batch or 'full'}: {count}" for batch, count in inside_of.items()))
    return int(min(inside_of.values()) < 17)


if __name__ == "__main__":
    sys.exit(main())
