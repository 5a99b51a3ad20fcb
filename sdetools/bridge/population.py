"""The loss of a network over all data, with gradients and Hessian products over any subset, their work, and the part of it that is affordable."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sdetools.bridge.batches import Batches, map_tensors
from sdetools.bridge.hessian_products import Derivatives, seeded

MAX_SAMPLES = 16_384
"""The maximal sample size where not all data are affordable."""
WORK_SHARE, TRIAL_GRADIENTS, CALL_COST = 0.25, 1600, 1e7
"""The share of the trial's work that both eigenvalues together may take, the minimum for a trial's batch gradients, and the overhead of a
call in floating-point operations. Work is counted and not timed, so that no result depends on the machine."""
GRAPH_BYTES = 1 << 29
"""The limit for bytes of graphs that are kept between products, and for four times those of one call."""
MAX_PRODUCTS, PLANNED_PRODUCTS, MIN_PRODUCTS = 120, 30, 12
"""Hessian products of a Lanczos run: the maximum, the number assumed when a sample size is chosen, and the minimum."""


class Population:
    """The loss over all samples, in the scale of one batch of the run, with gradients and Hessian products over any subset.

    In this scale a loss that sums over samples is its mean over the subset times the batch size; any other is a mean over the subset. Samples are addressed
    by their indices in the data, and pass through the network in pieces, consecutive parts of an array of indices.

    Args:
        own: Gradients and Hessian products of the network on a batch.
        source: The batches of the run.
        seed: The seed of random subsets and of the draws of random losses, such as those of dropout.
        tick: Called without arguments after every piece, for progress.
        trial: The number of batch gradients of the trial, the training runs of the diagnosis; the budget is a share of their work.

    Attributes:
        kind: "mean" or "sum" where the loss of a batch of any size is the mean or sum of its samples' losses. Empty where a sample's loss depends on
            other samples (batch normalisation, class weights) or is random (dropout, augmentation); then samples come in random batches of the run's
            size, each with fixed draws.
        sample_limit: The maximal number of samples in use: those that fit into a gigabyte; without effect for arrays in memory.
        step: The number of samples of a piece, the set that is passed through the network at once.
        whole: Whether the loss over all samples can be computed.
        budget: The work allowed for one eigenvalue, in floating-point operations.
        split: Whether batches pass through the network in pieces (`Objective.rows`).
        work: The work done so far, in floating-point operations.
    """

    def __init__(
        self, own: Derivatives, source: Batches, seed: int, tick: Callable[[], None] = lambda: None, trial: int = TRIAL_GRADIENTS
    ) -> None:
        self.own, self.source, self.seed, self.tick = own, source, seed, tick
        self._cache: dict[bytes, Any] = {}
        self._graphs: dict[bytes, Callable[[torch.Tensor], torch.Tensor]] = {}
        sizes: list[tuple[int, int]] = []
        map_tensors(lambda part: sizes.append((part.numel(), part.element_size())), source.rows([0]))
        size = sum(n * width for n, width in sizes)
        self._each, self._bytes = self._count_work()
        self.kind, self.work = self._find_kind(), 0.0
        own.objective.sums = self.kind == "sum"
        fitting = own.objective.rows or source.size
        self.split = fitting < source.size
        self.step = max(fitting, min(4096, int(GRAPH_BYTES / 16 / self._bytes))) if self.kind else source.size
        self.sample_limit = MAX_SAMPLES * source.samples if source.columns else (1 << 30) // max(size, 1)
        fixed = bool(self.kind) or (source.size == source.samples and self._repeatable())
        self.whole = fixed and not source.partial and self.sample_limit >= source.samples
        self.budget = WORK_SHARE / 2 * max(trial, TRIAL_GRADIENTS) * (self._each * source.size + CALL_COST)

    def batch(self, piece: np.ndarray) -> Any:
        """Return the samples with the indices `piece`, integers `(samples,)`, as one batch; it is cached unless the data are arrays in memory."""
        if self.source.columns:
            return self.source.rows(piece.tolist())
        name = piece.tobytes()
        if name not in self._cache:
            self._cache[name] = self.source.rows(piece.tolist())
        return self._cache[name]

    def gradient(self, index: np.ndarray) -> torch.Tensor:
        """Return the gradient, `(dim,)`, of the mean loss over the samples `index` `(samples,)`, times the batch size if losses are sums."""
        return self._mean(index, self.own.gradient, 1.0)

    def product(self, index: np.ndarray, v: torch.Tensor) -> torch.Tensor:
        """Return H v, `(dim,)`, for v `(dim,)` and H the Hessian of the loss over the samples `index` `(samples,)`, in the scale of `gradient`."""
        return self._mean(index, lambda batch: self.own.product(batch, v), 3.0)

    def products(self, index: np.ndarray, v: torch.Tensor) -> torch.Tensor:
        """Return H v, `(dim,)`, as `product` does, faster if several v `(dim,)` follow with the same `index` `(samples,)`.

        Autograd graphs are kept between the calls while they fit into memory, until `forget`.
        """
        if self.own.note or self.split or 4 * self._bytes * (len(index) + self.step * len(self._graphs)) > GRAPH_BYTES:
            return self.product(index, v)

        def kept(piece: np.ndarray) -> torch.Tensor:
            name = piece.tobytes()
            if name not in self._graphs:
                self._draws(piece)
                self._graphs[name] = self.own.linear(self.batch(piece))
                self.work += self._each * len(piece) + CALL_COST
            return self._graphs[name](v)

        return self.over(index, kept, 2.0)

    def forget(self) -> None:
        """Release the autograd graphs that `products` has kept."""
        self._graphs.clear()

    def _draws(self, piece: np.ndarray) -> None:
        """Seed torch by the indices `piece`, so that a random loss has the same draws each time; without effect if the loss has a `kind`."""
        if not self.kind:
            seeded(zlib.crc32(piece.tobytes()) + self.seed)

    def _mean(self, index: np.ndarray, change: Callable[[Any], torch.Tensor], gradients: float) -> torch.Tensor:
        """Return the average of `change(batch)`, a tensor, over the pieces of the samples `index` `(samples,)`, with the weights of `over`.

        `gradients` is the work of a call, in gradients of its piece. A random loss has the same draws for a piece at each call.
        """

        def changed(piece: np.ndarray) -> torch.Tensor:
            self._draws(piece)
            return change(self.batch(piece))

        return self.over(index, changed, gradients)

    def over(self, index: np.ndarray, change: Callable[[np.ndarray], torch.Tensor], gradients: float = 0.0) -> torch.Tensor:
        """Return the average of `change(piece)`, a tensor, over pieces of the samples `index`, weighted by their numbers of samples.

        For a loss that is a sum of those of its samples, it is the sum over the pieces times batch size / number of samples: the value of one batch.

        Args:
            index: Indices of samples, `(samples,)`; a piece has at most `step` of them.
            change: A function of the indices of a piece.
            gradients: The work of a call in gradients of its piece, which is added to `work`.
        """
        out: Any = 0
        for at in range(0, len(index), self.step):
            piece = index[at : at + self.step]
            weight = self.source.size if self.kind == "sum" else len(piece)
            out = out + change(piece) * (weight / len(index))
            self.work += gradients * (self._each * len(piece) + CALL_COST)
            self.tick()
        return out

    def index(self, samples: int, parts: int) -> np.ndarray:
        """Return the indices of random samples, determined by the seed: integers, one row for each of `parts` parts.

        If the loss has a `kind`, the rows have `samples // parts` different samples each, and no sample is in two rows. Otherwise a row is one or more
        whole batches, as many as fit into `samples // parts` (one at least), drawn independently.

        Args:
            samples: The number of samples in all; at most those of the data if the loss has a `kind`.
            parts: The number of rows.
        """
        if self.kind:
            order = torch.randperm(self.source.samples, generator=torch.Generator().manual_seed(self.seed + 2))
            return order[: samples // parts * parts].reshape(parts, -1).numpy()
        each = max(1, samples // (parts * self.source.size))
        drawn = [self.source.drawn(self.seed, i) for i in range(parts * each)]
        return np.array(drawn).reshape(parts, -1)

    @property
    def gradients(self) -> float:
        """The work done so far, in gradients of one batch of the run's size."""
        return self.work / (self._each * self.source.size + CALL_COST)

    def cost(self, samples: int, products: int = PLANNED_PRODUCTS) -> float:
        """Return the floating-point operations of `products` Hessian products over `samples` samples: two gradients each, and one for the graph."""
        return (2 * products + 1) * (self._each * samples + CALL_COST * math.ceil(samples / self.step))

    def affordable(self, samples: int) -> int:
        """Return how many Hessian products over `samples` samples the budget allows, an integer from `MIN_PRODUCTS` to `MAX_PRODUCTS`."""
        return min(MAX_PRODUCTS, max(MIN_PRODUCTS, int((self.budget / self.cost(samples, 0) - 1) / 2)))

    def _count_work(self) -> tuple[float, float]:
        """Return what a gradient takes per sample: its floating-point operations, and the bytes saved for the backward pass, at least 1."""
        from torch.autograd.graph import saved_tensors_hooks
        from torch.utils.flop_counter import FlopCounterMode

        rows, saved = min(self.source.size, self.source.samples), 0
        weights = {p.untyped_storage().data_ptr() for p in self.own.params}

        def pack(part: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            if part.layout != torch.strided or part.untyped_storage().data_ptr() not in weights:
                saved += part.numel() * part.element_size()
            return part.detach()

        batch = self.source.rows(self.source.drawn(self.seed, 0))
        with FlopCounterMode(display=False) as counter, saved_tensors_hooks(pack, lambda part: part):
            self.own.gradient(batch)
        return counter.get_total_flops() / rows, max(1.0, saved / rows)

    def _find_kind(self) -> str:
        """Return "mean" or "sum" if the losses of three random batches are those of their two pieces, up to rounding; "" if they are neither.

        A single batch could be so by chance, within the rounding errors that are allowed.
        """
        objective = self.own.objective
        rows, objective.rows = objective.rows, None  # pieces have weights that presuppose the answer
        n = min(self.source.samples, max(2, min(self.source.size, 64, rows or 64)))
        draws = torch.Generator().manual_seed(self.seed)
        try:
            kinds = {self._kind_of(torch.randperm(self.source.samples, generator=draws)[:n].tolist()) for _ in range(3)}
        except ValueError:  # the network rejects a batch of this size
            return ""
        finally:
            objective.rows = rows
        return kinds.pop() if len(kinds) == 1 else ""

    def _kind_of(self, index: list[int]) -> str:
        """Return `kind` as it appears from one batch, the samples `index`, and two pieces of it."""
        n, cut = len(index), max(1, len(index) // 3)
        with torch.no_grad():
            whole, one, other = (
                float(self.own.value(self.source.rows(part))) if part else 0.0 for part in (index, index[:cut], index[cut:])
            )
        tolerance = 1e3 * torch.finfo(self.own.dtype).eps * max(abs(whole), abs(one), abs(other))
        if abs(whole - (cut * one + (n - cut) * other) / n) <= tolerance:
            return "mean"
        return "sum" if abs(whole - one - other) <= tolerance else ""

    def _repeatable(self) -> bool:
        """Return whether two evaluations of the loss over all samples agree up to rounding."""
        everything = range(self.source.samples)
        with torch.no_grad():
            one, other = (float(self.own.value(self.source.rows(list(everything)))) for _ in range(2))
        return abs(one - other) <= 1e3 * torch.finfo(self.own.dtype).eps * abs(one)
