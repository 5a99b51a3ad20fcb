r"""The sharpness of a network, the largest Hessian eigenvalue lambda of its loss over all data, with a 95 % interval.

If all data are affordable, the Lanczos method runs on the Hessian H of the loss itself. Then lambda lies between the largest Ritz value and the
probabilistic bound of van Dorsselaer, Hochstenbach and van der Vorst (2000).

Otherwise cross-fitting on two halves A and B of a sample is used. The largest eigenvalue of a half is biased upwards, because E max v^T H_A v >= max
v^T H v. The Rayleigh quotient of its eigenvector on the other half, v_A^T H_B v_A, is biased downwards, because no direction has more curvature than
lambda. The second minus its sampling error and the first plus it therefore enclose lambda. To first order in 1/n the two biases are opposite and
equal, so that the mean of both is unbiased.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from sdetools.bridge.batches import Batches, map_tensors
from sdetools.bridge.hessian_products import Derivatives, dot, seeded
from sdetools.estimates.interval import ConfidenceInterval, HasInterval, Kind

PARTS = 32
"""Parts of a sample, half of them in each half of the cross-fitting; the spread between them gives the sampling error."""
FIRST_SAMPLES, GROWTH, MAX_SAMPLES = 1024, 4, 16_384
"""The initial sample size, its growth factor and its maximum, where not all data are affordable."""
NARROW_WIDTH = 0.2
"""The relative width of the interval below which the sample is not enlarged."""
WORK_SHARE, TRIAL_GRADIENTS, CALL_COST = 0.25, 1600, 1e7
"""The share of the trial's work that both eigenvalues together may take, the minimum for a trial's batch gradients, and the overhead of a
call in floating-point operations. Work is counted and not timed, so that no result depends on the machine."""
GRAPH_BYTES = 1 << 29
"""The limit for bytes of graphs that are kept between products, and for four times those of one call."""
MAX_PRODUCTS, PLANNED_PRODUCTS, MIN_PRODUCTS = 120, 30, 12
"""Hessian products of a Lanczos run: the maximum, the number assumed when a sample size is chosen, and the minimum."""
TOLERANCE, ROUGH_TOLERANCE, FAILURE_PROBABILITY = 2e-3, 2e-2, 1e-4
"""The relative width of the Lanczos interval at which a run ends, on all data and on a sample; the interval's failure probability."""


@dataclass(frozen=True)
class Quantity(HasInterval):
    """A measured value (`value`) with its confidence interval (`bounds`); the interval of an exact value has width 0."""

    value: float
    bounds: ConfidenceInterval

    @classmethod
    def of(cls, value: float, low: float | None = None, high: float | None = None, kind: Kind = Kind.POINTWISE) -> Quantity:
        """Return a quantity with the 95 % interval [low, high], computed as `kind` says; without `low` or `high` it is exact, with level 1.

        Example:
            >>> print(Quantity.of(2.0, 1.5, 2.5), Quantity.of(2.0))
            2 [1.5, 2.5] 2
        """
        if low is None or high is None:
            return cls(value, ConfidenceInterval(value, value, 1.0, Kind.EXACT))
        return cls(value, ConfidenceInterval(low, high, kind=kind))

    def confidence_interval(self, level: float | None = None) -> ConfidenceInterval:
        """Return the stored interval; ValueError if `level` is neither None nor the level of this interval."""
        if level is not None and level != self.bounds.level:
            raise ValueError(
                f"`level` must be {self.bounds.level:g}, the level of the stored interval; got {level!r}. Leave it out."
            )
        return self.bounds

    def __str__(self) -> str:
        return f"{self.value:.4g}" if self.low == self.high else f"{self.value:.4g} {self.bounds}"

    def __mul__(self, factor: float) -> Quantity:
        """Return the quantity with its value and both ends of its interval multiplied by `factor` >= 0."""
        return Quantity(self.value * factor, self.bounds * factor)


def student_quantile(degrees: int, looks: int = 1) -> float:
    """Return the half-width of a 95 % Student's t interval in units of the standard error: the quantile of the t law at 1 - 0.025 / looks.

    `degrees` are the degrees of freedom. If `looks` estimates are inspected, their intervals hold together with probability 95 % (Bonferroni).
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - 0.025 / looks))


@dataclass(frozen=True)
class Top:
    """Result of `lanczos`: the largest Ritz value, a lower bound, its unit Ritz vector `(dim,)`, and `high`, an upper bound (`upper_bound`)."""

    value: float
    high: float
    vector: torch.Tensor


def lanczos(
    product: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    max_products: int = MAX_PRODUCTS,
    tolerance: float = TOLERANCE,
) -> Top:
    """Compute the largest eigenvalue of a symmetric operator H by the Lanczos method with full reorthogonalisation.

    Args:
        product: The operator, v -> H v, for vectors `(dim,)`.
        start: A random start vector, `(dim,)`, of any positive norm.
        max_products: The maximal number of products; after them the bounds are returned even if they are farther apart.
        tolerance: The iteration ends if high - value <= tolerance max(|value|, 0.01 max_i |ritz_i|) for the bounds and the Ritz values ritz_i.

    Returns:
        The two bounds and the vector. If a product is not finite, both bounds are infinite and the vector is zero.

    Example:
        >>> top = lanczos(lambda v: torch.arange(5.0) * v, torch.ones(5))
        >>> round(top.value, 3), round(top.high, 3)
        (4.0, 4.0)
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    while True:
        w = product(basis[-1])
        diagonal.append(dot(w, basis[-1]))
        for _ in range(2):
            for v in basis:
                w = w - torch.dot(v, w) * v
        size = float(w.norm())
        if not math.isfinite(size):
            return Top(math.inf, math.inf, torch.zeros_like(start))
        ritz, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1))
        off_diagonal.append(size)
        top = high = float(ritz[-1])
        scale = float(np.abs(ritz).max())
        if size > 10 * torch.finfo(start.dtype).eps * scale and len(basis) < len(start):
            high = upper_bound(ritz, np.array(off_diagonal), len(start))
        if high - top <= tolerance * max(abs(top), 0.01 * scale) or len(basis) >= max_products:
            return Top(top, high, sum((float(a) * q for a, q in zip(vectors[:, -1], basis)), torch.zeros_like(start)))
        basis.append(w / size)


def upper_bound(ritz: np.ndarray, off_diagonal: np.ndarray, dim: int) -> float:
    """Return an upper bound of the largest eigenvalue that fails with probability `FAILURE_PROBABILITY` over the random start.

    For the start q and the eigenvector u of lambda, |q . u| prod_i (lambda - ritz_i) <= prod_i off_diagonal_i. Because |q . u|^2 has the law
    Beta(1/2, (dim - 1)/2), the bound x solves prod_i (x - ritz_i) = (1/c) prod_i off_diagonal_i with P(|q . u| < c) = `FAILURE_PROBABILITY`.

    Args:
        ritz: The k Ritz values, in ascending order.
        off_diagonal: The k - 1 off-diagonal entries of the Lanczos matrix, then the norm of the residual, which would be the next entry.
        dim: The dimension of the operator, at least 2.
    """
    from scipy.optimize import brentq
    from scipy.special import betaincinv

    target = float(np.log(off_diagonal).sum() - 0.5 * math.log(betaincinv(0.5, (dim - 1) / 2, FAILURE_PROBABILITY)))
    gaps = ritz[-1] - ritz
    excess = lambda t: float(np.log(math.exp(t) + gaps).sum()) - target  # noqa: E731 - t = log(x - ritz_k)
    low = high = math.log(float(off_diagonal.max()))
    while excess(high) < 0:
        high += 1.0
    while excess(low) > 0:
        low -= 1.0
    return float(ritz[-1] + math.exp(brentq(excess, low, high)))


def cross_fitted(
    product: Callable[[Sequence[int], torch.Tensor], torch.Tensor],
    parts: int,
    start: torch.Tensor,
    looks: int = 1,
    products: int = MAX_PRODUCTS,
) -> Quantity:
    """Estimate the largest eigenvalue of the mean E H of independent random matrices H_1 ... H_parts by cross-fitting.

    Args:
        product: `product(indices, v)` returns the mean of H_a v over a in `indices`, for v `(dim,)`.
        parts: The number of matrices, numbered from 0.
        start: A random start vector, `(dim,)`.
        looks: How many such intervals a sequential procedure may inspect; the interval is valid for all of them simultaneously.
        products: The maximal number of products of a Lanczos run; each half of the matrices has one run.

    Returns:
        The estimate with its 95 % interval; infinite, with infinite ends, if a product is not finite.
    """
    halves = range(parts // 2), range(parts // 2, parts)
    tops = [lanczos(partial(product, own), start, products, ROUGH_TOLERANCE) for own in halves]
    across = np.array([dot(top.vector, product([a], top.vector)) for top, other in zip(tops, halves[::-1]) for a in other])
    error = student_quantile(parts - 1, looks) * float(across.std(ddof=1)) / math.sqrt(parts)
    inside, outside = (tops[0].value + tops[1].value) / 2, float(across.mean())
    if not math.isfinite(inside):
        return Quantity.of(math.inf, math.inf, math.inf)
    return Quantity.of((inside + outside) / 2, outside - error, (tops[0].high + tops[1].high) / 2 + error)


class Population:
    """The loss over all samples, in the scale of one batch of the run, with gradients and Hessian products over any subset.

    In this scale a loss that sums over samples is its mean over the subset times the batch size; any other is a mean over the subset.

    Args:
        own: Gradients and Hessian products of the network on a batch.
        source: The batches of the run.
        seed: The seed of samples and draws.
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
        self.kind = self._find_kind()
        self.step = max(source.size, min(4096, int(GRAPH_BYTES / 16 / self._bytes))) if self.kind else source.size
        self.sample_limit = MAX_SAMPLES * source.samples if source.columns else (1 << 30) // max(size, 1)
        fixed = bool(self.kind) or (source.size == source.samples and self._repeatable())
        self.whole = fixed and not source.partial and self.sample_limit >= source.samples
        self.budget = WORK_SHARE / 2 * max(trial, TRIAL_GRADIENTS) * (self._each * source.size + CALL_COST)

    def batch(self, piece: np.ndarray) -> Any:
        """Return the samples with the indices `piece` `(samples,)` as one batch, cached unless the data are arrays in memory."""
        if self.source.columns:
            return self.source.rows(piece.tolist())
        name = piece.tobytes()
        if name not in self._cache:
            self._cache[name] = self.source.rows(piece.tolist())
        return self._cache[name]

    def gradient(self, index: np.ndarray) -> torch.Tensor:
        """Return the gradient, `(dim,)`, of the mean loss over the samples `index` `(samples,)`, times the batch size if losses are sums."""
        return self._mean(index, self.own.gradient)

    def product(self, index: np.ndarray, v: torch.Tensor) -> torch.Tensor:
        """Return H v, `(dim,)`, for v `(dim,)` and H the Hessian of the loss over the samples `index` `(samples,)` whose gradient is `gradient`."""
        return self._mean(index, lambda batch: self.own.product(batch, v))

    def products(self, index: np.ndarray, v: torch.Tensor) -> torch.Tensor:
        """Return H v as `product` does, faster if several v follow with the same `index`: autograd graphs are kept while they fit into memory."""
        if self.own.note or 4 * self._bytes * (len(index) + self.step * len(self._graphs)) > GRAPH_BYTES:
            return self.product(index, v)

        def kept(piece: np.ndarray) -> torch.Tensor:
            name = piece.tobytes()
            if name not in self._graphs:
                self._draws(piece)
                self._graphs[name] = self.own.linear(self.batch(piece))
            return self._graphs[name](v)

        return self._over(index, kept)

    def forget(self) -> None:
        """Release the autograd graphs that `products` has kept."""
        self._graphs.clear()

    def _draws(self, piece: np.ndarray) -> None:
        """Seed torch by the indices `piece`, so that a random loss has the same draws each time; without effect if the loss has a `kind`."""
        if not self.kind:
            seeded(zlib.crc32(piece.tobytes()) + self.seed)

    def _mean(self, index: np.ndarray, change: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        """Return the average of `change(batch)`, a tensor, over the pieces of the samples `index` `(samples,)`; weights as in `_over`."""

        def changed(piece: np.ndarray) -> torch.Tensor:
            self._draws(piece)
            return change(self.batch(piece))

        return self._over(index, changed)

    def _over(self, index: np.ndarray, change: Callable[[np.ndarray], torch.Tensor]) -> torch.Tensor:
        """Return the average of `change(piece)` over pieces of `index` `(samples,)`, at most `step` indices each; for a sum, that of a batch."""
        out: Any = 0
        for at in range(0, len(index), self.step):
            piece = index[at : at + self.step]
            weight = self.source.size if self.kind == "sum" else len(piece)
            out = out + change(piece) * (weight / len(index))
            self.tick()
        return out

    def index(self, samples: int, parts: int) -> np.ndarray:
        """Return indices of random samples, integers `(parts, samples // parts)`; if `kind` is empty, each row is one or more whole batches."""
        if self.kind:
            order = torch.randperm(self.source.samples, generator=torch.Generator().manual_seed(self.seed + 2))
            return order[: samples // parts * parts].reshape(parts, -1).numpy()
        each = max(1, samples // (parts * self.source.size))
        drawn = [self.source.drawn(self.seed, i) for i in range(parts * each)]
        return np.array(drawn).reshape(parts, -1)

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
        """Return "mean" or "sum" if the loss of a random batch is that of its two pieces, up to rounding; "" if it is neither."""
        n = min(self.source.samples, max(2, min(self.source.size, 64)))
        index = torch.randperm(self.source.samples, generator=torch.Generator().manual_seed(self.seed))[:n].tolist()
        cut = max(1, n // 3)
        try:
            with torch.no_grad():
                whole, one, other = (
                    float(self.own.value(self.source.rows(part))) if part else 0.0 for part in (index, index[:cut], index[cut:])
                )
        except ValueError:  # the network rejects a batch of this size
            return ""
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


def sharpness(
    data: Population, samples: int | None = None, decided: Callable[[Quantity], bool] = lambda found: False
) -> Quantity:
    """Estimate the largest eigenvalue of the Hessian of the loss over all data.

    All data are used if the budget (a share of the trial's work) allows it, else growing samples until high - low <= 0.2 |value|, `decided(found)`
    is true, or the next size exceeds budget or maximum. Where `data.whole` is false, for example for a stream, there is always a sampling error.

    Args:
        data: The loss over all samples.
        samples: A fixed sample size, or all data if there are not more; None for the sequential procedure.
        decided: Returns whether an estimate, a `Quantity`, answers the question, so that no more data are needed.

    Returns:
        The eigenvalue with its 95 % interval; infinite where derivatives are not finite.
    """
    own, n = data.own, data.source.samples
    start = own.direction(data.seed + 1)
    product_limit = min(MAX_PRODUCTS, max(MIN_PRODUCTS, (1 << 31) // (start.element_size() * own.dim)))
    max_samples = min(MAX_SAMPLES if samples is None else samples, data.sample_limit, n if data.kind else MAX_SAMPLES)
    min_samples = min(max_samples, 8 * (1 if data.kind else data.source.size))
    count = max_samples if samples is not None else min(FIRST_SAMPLES, max_samples)
    while samples is None and count > min_samples and data.cost(count, MIN_PRODUCTS) > data.budget:
        count = max(min_samples, count // 2)
    looks = 1 + math.ceil(math.log(max_samples / count, GROWTH))
    spent = 0.0
    try:
        while True:
            if data.whole and (n <= count or (samples is None and data.cost(n) <= data.budget - spent)):
                top = lanczos(lambda v: data.products(np.arange(n), v), start, min(product_limit, data.affordable(n)))
                return Quantity.of(top.value, top.value, top.high)
            index = data.index(count, PARTS if data.kind and count >= FIRST_SAMPLES else min(8, count // 2 * 2))
            products = min(product_limit, data.affordable(count) - 1)  # one is needed on the other half
            found = cross_fitted(lambda some, v: data.products(index[list(some)].ravel(), v), len(index), start, looks, products)
            data.forget()
            spent += data.cost(count, products + 1)
            narrow = found.high - found.low <= NARROW_WIDTH * abs(found.value)
            next_count = min(GROWTH * count, max_samples)
            if narrow or count == max_samples or decided(found) or spent + data.cost(next_count, MIN_PRODUCTS) > data.budget:
                return found
            count = next_count
    finally:
        data.forget()
