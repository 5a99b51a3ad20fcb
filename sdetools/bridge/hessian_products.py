"""Gradients and Hessian products of a network's loss on one batch, at the parameters of the network itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdetools.bridge.batches import map_tensors
from sdetools.bridge.modules import Objective


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """a . b in double precision."""
    return float(torch.dot(a.double(), b.double()))


def seeded(seed: int) -> None:
    """Sets torch's generators, those of a GPU only where it is in use: `torch.manual_seed` else keeps a note of the stack for later, every time."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class Derivatives:
    """Gradients and Hessian products of the loss of a batch, at the parameters of a network that is its own.

    Products are second derivatives by torch, with attention written out (`SDPBackend.MATH`); where torch has none (`EmbeddingBag`, ctc_loss,
    functions that can be differentiated once), or has wrong ones (a `torch.autograd.Function` whose backward hides its inputs), they are central
    differences of gradients, in double precision where the network runs in it, and `note` says so.
    """

    def __init__(self, net: torch.nn.Module, objective: Objective, batch: Any) -> None:
        self.objective, self.note, self.cast = objective, "", False
        self._take(net)
        if self.dtype in (torch.float16, torch.bfloat16):
            self._take(net.float(), cast=True)
        cause = self._refused(batch)
        if cause:
            self.note = f"Hessian products are central differences of gradients, as torch has no second derivative here: {cause}"
            double = _doubled(self)
            if double is not None and _runs(double, batch):
                self._take(double.net, cast=True)

    def _take(self, net: torch.nn.Module, cast: bool = False) -> None:
        """A network, and whether the numbers of a batch are brought to its type."""
        self.net, self.cast, self.params = net, cast, [p for p in net.parameters() if p.requires_grad]
        self.dim, self.dtype = sum(p.numel() for p in self.params), self.params[0].dtype

    def value(self, batch: Any) -> torch.Tensor:
        """The loss of a batch."""
        if self.cast:
            batch = map_tensors(lambda part: part.to(self.dtype) if part.is_floating_point() else part, batch)
        return self.objective(self.net, batch)

    def gradient(self, batch: Any) -> torch.Tensor:
        """Its gradient, `(dim,)`."""
        return self._flat(torch.autograd.grad(self.value(batch), self.params, allow_unused=True))

    def product(self, batch: Any, v: torch.Tensor) -> torch.Tensor:
        """H v on a batch, v `(dim,)`."""
        return self.differences(batch, v) if self.note else self.twice(batch, v)

    def twice(self, batch: Any, v: torch.Tensor) -> torch.Tensor:
        """H v as the gradient of g . v."""
        return self.linear(batch)(v)

    def linear(self, batch: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        """v -> H v on a batch, with the graph of its gradient kept for as long as the function is: a product costs two gradients, not three."""
        with sdpa_kernel(SDPBackend.MATH):
            first = torch.autograd.grad(self.value(batch), self.params, create_graph=True, allow_unused=True)

        def product(v: torch.Tensor) -> torch.Tensor:
            along = sum(((g.to_dense() * part).sum() for g, part in zip(first, self._cut(v)) if g is not None), v.new_zeros(()))
            if not along.requires_grad:
                return torch.zeros_like(v)
            return self._flat(torch.autograd.grad(along, self.params, retain_graph=True, allow_unused=True))

        return product

    def differences(self, batch: Any, v: torch.Tensor, draws: int | None = None) -> torch.Tensor:
        """H v as (g(x + h v) - g(x - h v)) / 2 h, both with the same draws, h |v| the cube root of the rounding times 1 + |x|."""
        size = float(v.norm())
        if size == 0:
            return torch.zeros_like(v)
        x = [p.detach().clone() for p in self.params]
        reach = torch.finfo(self.dtype).eps ** (1 / 3) * (1 + math.sqrt(sum(dot(p.ravel(), p.ravel()) for p in x))) / size
        draws, ends = int(torch.randint(1 << 62, ())) if draws is None else draws, []
        try:
            for way in (reach, -reach):
                with torch.no_grad():
                    for p, at, part in zip(self.params, x, self._cut(v)):
                        p.copy_(at + way * part)
                seeded(draws)
                ends.append(self.gradient(batch))
        finally:
            with torch.no_grad():
                for p, at in zip(self.params, x):
                    p.copy_(at)
        return (ends[0] - ends[1]) / (2 * reach)

    def direction(self, seed: int) -> torch.Tensor:
        """A random vector of length 1."""
        v = torch.randn(self.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (v / v.norm()).to(self.params[0])

    def _refused(self, batch: Any) -> str:
        """Why the second derivatives by torch will not do; empty where they will."""
        try:
            self.twice(batch, self.direction(0))
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return str(error).strip().splitlines()[0].rstrip(".")
        double = _doubled(self)
        try:
            if double is None or any(_agree(double, batch, seed) for seed in range(3)):
                return ""
        except (RuntimeError, ValueError):  # not in double precision: nothing to compare with
            return ""
        return "that of a function in it is not the derivative of its gradient"

    def _cut(self, v: torch.Tensor) -> list[torch.Tensor]:
        return [part.reshape(p.shape) for part, p in zip(torch.split(v, [p.numel() for p in self.params]), self.params)]

    def _flat(self, grads: Sequence[torch.Tensor | None]) -> torch.Tensor:
        parts = [torch.zeros_like(p) if g is None else g.detach().to_dense() for g, p in zip(grads, self.params)]
        return torch.cat([part.ravel() for part in parts])


def _doubled(one: Derivatives) -> Derivatives | None:
    """The same in double precision; None where the device has none, or no room."""
    out = copy.copy(one)
    try:
        out._take(copy.deepcopy(one.net).double(), cast=True)
    except (RuntimeError, TypeError):
        return None
    return out


def _runs(one: Derivatives, batch: Any) -> bool:
    try:
        one.gradient(batch)
    except (RuntimeError, ValueError):
        return False
    return True


def _agree(one: Derivatives, batch: Any, seed: int) -> bool:
    """Whether both products along a direction agree; a kink within reach of the differences spoils one direction, hardly three."""
    v = one.direction(seed)
    seeded(seed)
    own, other = one.twice(batch, v), one.differences(batch, v, draws=seed)
    room = 1e-3 * max(float(own.norm()), float(other.norm())) + 1e-6 * float(one.gradient(batch).norm())
    return float((own - other).norm()) <= room
