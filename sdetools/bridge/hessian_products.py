"""Gradients g and Hessian-vector products H v of a network's loss on one batch, at the network's current parameters x.

All of them are flat tensors `(dim,)`: the trainable parameters, in the order of `net.parameters()`, flattened and concatenated.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdetools.bridge.batches import map_tensors
from sdetools.bridge.modules import Objective


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product a . b of two vectors of equal length as a float, accumulated in double precision."""
    return float(torch.dot(a.double(), b.double()))


POWERS = (1 / 2, 2 / 3, 1 / 3)
"""Steps of differences in double precision, as powers of its machine precision: the one in use, a shorter one and a longer one."""


def seeded(seed: int) -> None:
    """Set the seed of torch's global generators; those of GPUs only if a GPU is already in use.

    `torch.manual_seed` would queue a deferred call with a stack trace for an uninitialised GPU, every time.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class Derivatives:
    """Gradients and Hessian-vector products of the loss of a batch, at the parameters of a network that it may modify.

    Products are second derivatives by autograd, with the plain implementation of attention (`SDPBackend.MATH`). Some functions have no second
    derivative in torch (`EmbeddingBag`, ctc_loss, once-differentiable functions) or a wrong one (a `torch.autograd.Function` whose backward
    hides its inputs). Then products are central differences of gradients, in double precision if the network runs in it. Differences over a step
    that crosses kinks of the loss, such as those of relu, contain the jumps of its gradient. Each of many samples has kinks, so steps are short.

    Args:
        net: The network; it is perturbed during differences and restored afterwards. One in half precision becomes float32 and stays
            so.
        objective: The loss of the network on a batch, `objective(net, batch)`, a scalar tensor; it may split a batch into pieces.
        batch: A batch on which autograd's second derivatives are compared with differences.
        second: Whether Hessian products are needed; without them, the network keeps its precision and nothing is compared.

    Raises:
        ValueError: If the network and the loss have no gradient.

    Attributes:
        net: The network whose parameters are used; a copy in double precision where `note` is not empty and one runs.
        note: Why products are differences; empty if they are second derivatives by autograd.
        params: The trainable parameters, a list of tensors in the order of `net.parameters()`.
        dim: The number of their entries, the length of gradients and of vectors v.
        dtype: The type of gradients, that of the first parameter.
        power: The step of differences as a power of the machine precision of `dtype`: 1/3, for which rounding and truncation are equal, or 1/2 in
            double precision, which crosses fewer kinks, unless single precision inside the network spoils it.
    """

    def __init__(self, net: torch.nn.Module, objective: Objective, batch: Any, second: bool = True) -> None:
        self.objective, self.note, self.cast, self.power = objective, "", False, 1 / 3
        self._take(net)
        if not second:
            self._check_gradient(batch)
            return
        if self.dtype in (torch.float16, torch.bfloat16):
            self._take(net.float(), cast=True)
        cause = self._refused(batch)
        if cause:
            self.note = f"Hessian products are central differences of gradients, as torch has no second derivative here: {cause}"
            double = _doubled(self)
            if double is not None and _runs(double, batch):
                self._take(double.net, cast=True)
                v = self.direction(0)
                usual, shorter = (self.differences(batch, v, draws=0, power=power) for power in POWERS[:2])
                self.power = POWERS[0] if _near(usual, shorter, 1e-2, 1e-6 * float(self.gradient(batch).norm())) else 1 / 3
            else:
                self._check_gradient(batch)

    def _check_gradient(self, batch: Any) -> None:
        """Raise a ValueError if the loss of `batch` has no gradient."""
        try:
            self.gradient(batch)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            cause = str(error).strip().splitlines()[0].rstrip(".")
            raise ValueError(
                f"`model` and the loss must have a gradient; torch raised: {cause}. A recurrent network on a GPU must be in training mode: "
                "call model.train()."
            ) from error

    def _take(self, net: torch.nn.Module, cast: bool = False) -> None:
        """Set the network and what depends on it: `params`, `dim` and `dtype`.

        `net` is the network. If `cast` is true, the floating-point tensors of each batch are converted to `dtype` before they enter it.
        """
        self.net, self.cast, self.params = net, cast, [p for p in net.parameters() if p.requires_grad]
        self.dim, self.dtype = sum(p.numel() for p in self.params), self.params[0].dtype

    def value(self, batch: Any) -> torch.Tensor:
        """Return the loss of `batch`, a scalar tensor with its autograd graph."""
        if self.cast:
            batch = map_tensors(lambda part: part.to(self.dtype) if part.is_floating_point() else part, batch)
        return self.objective(self.net, batch)

    def gradient(self, batch: Any) -> torch.Tensor:
        """Return the gradient of the loss of `batch`, `(dim,)`, detached; it is zero for a parameter that the loss does not depend on."""
        parts = (
            self._flat(torch.autograd.grad(weight * self.value(piece), self.params, allow_unused=True))
            for weight, piece in self.objective.pieces(batch)
        )
        return sum(parts, torch.zeros((), dtype=self.dtype, device=self.params[0].device))

    def product(self, batch: Any, v: torch.Tensor) -> torch.Tensor:
        """Return H v, `(dim,)`, for the Hessian H of the loss of `batch` and a vector v `(dim,)`.

        It is computed by `differences` if the attribute `note` is not empty, else by autograd.
        """
        return self.differences(batch, v) if self.note else self.twice(batch, v)

    def twice(self, batch: Any, v: torch.Tensor) -> torch.Tensor:
        """Return H v, `(dim,)`, as the gradient of g . v by autograd, for the gradient g of the loss of `batch` and a vector v `(dim,)`."""
        return sum((weight * self.linear(piece)(v) for weight, piece in self.objective.pieces(batch)), torch.zeros_like(v))

    def linear(self, batch: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function v -> H v for the loss of `batch`, by autograd; argument and result are `(dim,)`.

        It keeps the autograd graph of the gradient in memory, so that each further product costs two gradients and not three.
        """
        with sdpa_kernel(SDPBackend.MATH):
            first = torch.autograd.grad(self.value(batch), self.params, create_graph=True, allow_unused=True)

        def product(v: torch.Tensor) -> torch.Tensor:
            along = sum(((g.to_dense() * part).sum() for g, part in zip(first, self._cut(v)) if g is not None), v.new_zeros(()))
            if not along.requires_grad:
                return torch.zeros_like(v)
            return self._flat(torch.autograd.grad(along, self.params, retain_graph=True, allow_unused=True))

        return product

    def differences(self, batch: Any, v: torch.Tensor, draws: int | None = None, power: float | None = None) -> torch.Tensor:
        """Return H v, `(dim,)`, as (g(x + h v) - g(x - h v)) / (2 h) with h |v| = eps^power (1 + |x|), and zeros for v = 0.

        x are the parameters, g is the gradient of the loss of `batch`, and eps the machine precision of the parameters' type.

        Args:
            batch: The batch.
            v: The vector, `(dim,)`.
            draws: The seed of torch's generators before both gradients, so that they have the same dropout; None draws one.
            power: The power of eps; None for the attribute `power`.
        """
        size = float(v.norm())
        if size == 0:
            return torch.zeros_like(v)
        x = [p.detach().clone() for p in self.params]
        reach = (
            torch.finfo(self.dtype).eps ** (self.power if power is None else power)
            * (1 + math.sqrt(sum(dot(p.ravel(), p.ravel()) for p in x)))
            / size
        )
        draws, ends = int(torch.randint(1 << 62, ())) if draws is None else draws, []
        try:
            for step in (reach, -reach):
                with torch.no_grad():
                    for p, at, part in zip(self.params, x, self._cut(v)):
                        p.copy_(at + step * part)
                seeded(draws)
                ends.append(self.gradient(batch))
        finally:
            with torch.no_grad():
                for p, at in zip(self.params, x):
                    p.copy_(at)
        return (ends[0] - ends[1]) / (2 * reach)

    def direction(self, seed: int) -> torch.Tensor:
        """Return a random unit vector, `(dim,)`, uniformly distributed on the sphere and determined by `seed`.

        It has the type and the device of the first parameter.
        """
        v = torch.randn(self.dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (v / v.norm()).to(self.params[0])

    def _refused(self, batch: Any) -> str:
        """Return why autograd's second derivatives are not used, as text; empty if they are used.

        They are refused if autograd raises an error on `batch`, or if central differences in double precision contradict them along three
        directions (`_agree`).
        """
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
        except (RuntimeError, ValueError):  # the network does not run in double precision: there is no reference
            return ""
        return "that of one of its functions is not the derivative of its gradient"

    def _cut(self, v: torch.Tensor) -> list[torch.Tensor]:
        """Split a flat vector v `(dim,)` into a list of tensors with the shapes of the parameters, in their order."""
        return [part.reshape(p.shape) for part, p in zip(torch.split(v, [p.numel() for p in self.params]), self.params)]

    def _flat(self, grads: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Concatenate `grads`, one gradient per parameter or None for a zero one, to a flat detached tensor `(dim,)`."""
        parts = [torch.zeros_like(p) if g is None else g.detach().to_dense() for g, p in zip(grads, self.params)]
        return torch.cat([part.ravel() for part in parts])


def _doubled(one: Derivatives) -> Derivatives | None:
    """Return a copy of `one` whose network is a copy in double precision; None if the device lacks this type or the memory. `one` stays as it is."""
    out = copy.copy(one)
    try:
        out._take(copy.deepcopy(one.net).double(), cast=True)
    except (RuntimeError, TypeError):
        return None
    return out


def _runs(one: Derivatives, batch: Any) -> bool:
    """Return whether `one` can compute the gradient of the loss of `batch` without a RuntimeError or ValueError."""
    try:
        one.gradient(batch)
    except (RuntimeError, ValueError):
        return False
    return True


def _agree(one: Derivatives, batch: Any, seed: int) -> bool:
    """Return whether differences leave it open that H v by autograd is right on `batch`, for the random direction v of `seed`.

    Differences are taken over three steps. Kinks of the loss near the parameters spoil a long step. Rounding spoils a short one, and of a network with
    single precision inside all. Where autograd is wrong, two of them agree with each other up to 1 %, and none with it up to 0.1 %.

    Parameters without a gradient are not moved: a row of an embedding for padding changes the output, but is constant.
    """
    g = one.gradient(batch)
    moved = (g != 0) if bool(g.any()) else torch.ones_like(g, dtype=torch.bool)
    v, rounding = one.direction(seed) * moved, 1e-6 * float(g.norm())
    seeded(seed)
    own, found = one.twice(batch, v) * moved, list[torch.Tensor]()
    for power in POWERS:
        found.append(one.differences(batch, v, draws=seed, power=power) * moved)
        if _near(own, found[-1], 1e-3, rounding):
            return True
    return not any(_near(a, b, 1e-2, rounding) for a, b in combinations(found, 2))


def _near(a: torch.Tensor, b: torch.Tensor, share: float, rounding: float) -> bool:
    """Return whether the distance of two vectors is at most a share of the longer one plus a number for rounding."""
    return float((a - b).norm()) <= share * max(float(a.norm()), float(b.norm())) + rounding
