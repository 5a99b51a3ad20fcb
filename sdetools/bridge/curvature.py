r"""The largest eigenvalue lambda of the Hessian of a network's loss over its data, from Hessian products, with a 95 % interval.

Where all of the data are affordable, Lanczos' method runs on the Hessian of the loss itself, and lambda lies between its largest Ritz value and the
probabilistic bound of van Dorsselaer, Hochstenbach and van der Vorst (2000). Else it runs on two halves A and B of a sample. The largest
eigenvalue of a sample is too large on average, as E max v^T H_A v >= max v^T H v; that of an eigenvector on the other half,
v_A^T H_B v_A, is too small, as no direction has more curvature than lambda. So the second less its sampling error and the first
with it enclose lambda; to first order in 1/n both are wrong by the same amount, and the mean of the two is right.
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
"""Of a sample, half of them on each side: their spread is the sampling error."""
FIRST, GROWTH, MOST = 1024, 4, 16_384
"""Samples to begin with, by how much they grow, and how many there are at most, where not all are affordable."""
NARROW = 0.2
"""The width of the interval, beside the value, below which more data are of no use."""
SHARE, TRIAL, CALL = 0.25, 1600, 1e7
"""Of the trial's work, how much both eigenvalues may take together; the batch gradients of a trial, where less is asked for; and the
floating-point operations that a call costs beside its own. Work is counted, time is not, so that no result depends on the machine."""
KEPT = 1 << 29
"""Bytes of graphs that are kept between products, and four times those of one call."""
LANCZOS, PLANNED, FEWEST = 120, 30, 12
"""Products at most, those that a number of samples is chosen for, and those that are always had."""
PRECISE, ROUGH, CHANCE = 2e-3, 2e-2, 1e-4
"""The relative width of Lanczos' own interval at which it ends, on all data and beside a sampling error; how often that interval may be wrong."""


@dataclass(frozen=True)
class Quantity(HasInterval):
    """A value with its 95 % confidence interval."""

    value: float
    bounds: ConfidenceInterval

    @classmethod
    def of(cls, value: float, low: float | None = None, high: float | None = None, kind: Kind = Kind.POINTWISE) -> Quantity:
        """From a value and both ends; exact without them.

        >>> print(Quantity.of(2.0, 1.5, 2.5), Quantity.of(2.0))
        2 [1.5, 2.5] 2
        """
        if low is None or high is None:
            return cls(value, ConfidenceInterval(value, value, 1.0, Kind.EXACT))
        return cls(value, ConfidenceInterval(low, high, kind=kind))

    def confidence_interval(self, level: float | None = None) -> ConfidenceInterval:
        """The interval; it is known at its own level alone, so ValueError for another one."""
        if level is not None and level != self.bounds.level:
            raise ValueError(
                f"`level` must be {self.bounds.level:g}, at which the interval was found; got {level!r}. Leave it out."
            )
        return self.bounds

    def __str__(self) -> str:
        return f"{self.value:.4g}" if self.low == self.high else f"{self.value:.4g} {self.bounds}"

    def __mul__(self, factor: float) -> Quantity:
        """For a factor >= 0."""
        return Quantity(self.value * factor, self.bounds * factor)


def student(degrees: int, looks: int = 1) -> float:
    """The half-width of a 95 % interval in standard errors, valid at each of several looks."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - 0.025 / looks))


@dataclass(frozen=True)
class Top:
    """The largest eigenvalue as Lanczos' method found it: the Ritz value, a bound above the eigenvalue, and the Ritz vector."""

    value: float
    high: float
    vector: torch.Tensor


def lanczos(
    product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, most: int = LANCZOS, precise: float = PRECISE
) -> Top:
    """The largest eigenvalue of a symmetric matrix given by products, from a random `start`, by Lanczos' method with whole reorthogonalisation.

    It ends where its own interval is narrow, and after `most` products. An eigenvalue that is not finite comes with a vector of zeros.

    >>> top = lanczos(lambda v: torch.arange(5.0) * v, torch.ones(5))
    >>> round(top.value, 3), round(top.high, 3)
    (4.0, 4.0)
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        w = product(basis[-1])
        diagonal.append(dot(w, basis[-1]))
        for _ in range(2):
            for v in basis:
                w = w - torch.dot(v, w) * v
        size = float(w.norm())
        if not math.isfinite(size):
            return Top(math.inf, math.inf, torch.zeros_like(start))
        ritz, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        beside.append(size)
        top = high = float(ritz[-1])
        scale = float(np.abs(ritz).max())
        if size > 10 * torch.finfo(start.dtype).eps * scale and len(basis) < len(start):
            high = upper_bound(ritz, np.array(beside), len(start))
        if high - top <= precise * max(abs(top), 0.01 * scale) or len(basis) >= most:
            return Top(top, high, sum((float(a) * q for a, q in zip(vectors[:, -1], basis)), torch.zeros_like(start)))
        basis.append(w / size)


def upper_bound(ritz: np.ndarray, beside: np.ndarray, dim: int) -> float:
    """A bound above the largest eigenvalue, wrong with the probability `CHANCE` over the start, from k Ritz values and the k numbers beside them.

    prod_i (lambda - ritz_i) |q . u| <= prod_i beside_i for a start q and an eigenvector u: as |q . u|^2 is Beta(1/2, (dim - 1)/2), the bound
    solves prod_i (x - ritz_i) = prod_i beside_i / c with P(|q . u| < c) = `CHANCE`.
    """
    from scipy.optimize import brentq
    from scipy.special import betaincinv

    target = float(np.log(beside).sum() - 0.5 * math.log(betaincinv(0.5, (dim - 1) / 2, CHANCE)))
    below = ritz[-1] - ritz
    excess = lambda t: float(np.log(math.exp(t) + below).sum()) - target  # noqa: E731 - t = log(x - ritz_k)
    low = high = math.log(float(beside.max()))
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
    products: int = LANCZOS,
) -> Quantity:
    """The largest eigenvalue of the mean E H of independent random matrices H_1 ... H_parts, with its sampling interval.

    `product(some, v)`: the mean of H_a v over a in `some`. `looks`: at how many of such intervals it is decided whether to draw more. The
    head of this file says what is done.
    """
    halves = range(parts // 2), range(parts // 2, parts)
    tops = [lanczos(partial(product, own), start, products, ROUGH) for own in halves]
    across = np.array([dot(top.vector, product([a], top.vector)) for top, other in zip(tops, halves[::-1]) for a in other])
    error = student(parts - 1, looks) * float(across.std(ddof=1)) / math.sqrt(parts)
    inside, outside = (tops[0].value + tops[1].value) / 2, float(across.mean())
    if not math.isfinite(inside):
        return Quantity.of(math.inf, math.inf, math.inf)
    return Quantity.of((inside + outside) / 2, outside - error, (tops[0].high + tops[1].high) / 2 + error)


class Population:
    """The loss over all samples, in the scale of the run's batches: gradients and Hessian products over any of them.

    `kind`: "mean" or "sum" over the samples of a batch, whatever its size; "" where a sample's loss depends on the others' (batch
    normalisation, class weights) or on chance (dropout, data that are drawn anew): then samples come in random batches of the run's size,
    each with the same draws every time.
    """

    def __init__(
        self, own: Derivatives, source: Batches, seed: int, tick: Callable[[], None] = lambda: None, trial: int = TRIAL
    ) -> None:
        self.own, self.source, self.seed, self.tick = own, source, seed, tick
        self._held: dict[bytes, Any] = {}
        self._graphs: dict[bytes, Callable[[torch.Tensor], torch.Tensor]] = {}
        some = source.rows([0])
        sizes: list[tuple[int, int]] = []
        map_tensors(lambda part: sizes.append((part.numel(), part.element_size())), some)
        size = sum(n * width for n, width in sizes)
        self._each, self._bytes = self._work()
        self.kind = self._kind()
        self.step = max(source.size, min(4096, int(KEPT / 16 / self._bytes))) if self.kind else source.size
        self.room = MOST * source.samples if source.columns else (1 << 30) // max(size, 1)
        """How many samples can be kept: any number where reading costs nothing, else what fits into a gigabyte."""
        fixed = bool(self.kind) or (source.size == source.samples and self._again())
        self.whole = fixed and not source.partial and self.room >= source.samples
        """Whether the loss over all samples can be had."""
        self.budget = SHARE / 2 * max(trial, TRIAL) * (self._each * source.size + CALL)
        """Of one eigenvalue, in floating-point operations."""

    def batch(self, piece: np.ndarray) -> Any:
        if self.source.columns:
            return self.source.rows(piece.tolist())
        name = piece.tobytes()
        if name not in self._held:
            self._held[name] = self.source.rows(piece.tolist())
        return self._held[name]

    def gradient(self, index: np.ndarray) -> torch.Tensor:
        """The gradient of the mean over samples of these numbers."""
        return self._mean(index, self.own.gradient)

    def product(self, index: np.ndarray, v: torch.Tensor) -> torch.Tensor:
        """H v of the mean over samples of these numbers."""
        return self._mean(index, lambda batch: self.own.product(batch, v))

    def products(self, index: np.ndarray, v: torch.Tensor) -> torch.Tensor:
        """The same, for many v: graphs are kept where there is room."""
        if self.own.note or 4 * self._bytes * (len(index) + self.step * len(self._graphs)) > KEPT:
            return self.product(index, v)

        def kept(piece: np.ndarray) -> torch.Tensor:
            name = piece.tobytes()
            if name not in self._graphs:
                self._draws(piece)
                self._graphs[name] = self.own.linear(self.batch(piece))
            return self._graphs[name](v)

        return self._over(index, kept)

    def forget(self) -> None:
        """Lets the graphs go."""
        self._graphs.clear()

    def _draws(self, piece: np.ndarray) -> None:
        """The same draws for these samples every time."""
        if not self.kind:
            seeded(zlib.crc32(piece.tobytes()) + self.seed)

    def _mean(self, index: np.ndarray, change: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        def changed(piece: np.ndarray) -> torch.Tensor:
            self._draws(piece)
            return change(self.batch(piece))

        return self._over(index, changed)

    def _over(self, index: np.ndarray, change: Callable[[np.ndarray], torch.Tensor]) -> torch.Tensor:
        out: Any = 0
        for at in range(0, len(index), self.step):
            piece = index[at : at + self.step]
            weight = self.source.size if self.kind == "sum" else len(piece)
            out = out + change(piece) * (weight / len(index))
            self.tick()
        return out

    def index(self, samples: int, parts: int) -> np.ndarray:
        """Numbers of about `samples` random samples in independent parts, `(parts, samples / parts)`; the same for every batch size where there is a `kind`."""
        if self.kind:
            order = torch.randperm(self.source.samples, generator=torch.Generator().manual_seed(self.seed + 2))
            return order[: samples // parts * parts].reshape(parts, -1).numpy()
        each = max(1, samples // (parts * self.source.size))
        drawn = [self.source.drawn(self.seed, i) for i in range(parts * each)]
        return np.array(drawn).reshape(parts, -1)

    def cost(self, samples: int, products: int = PLANNED) -> float:
        """Floating-point operations of so many products over so many samples: each as two gradients, and one for the graph."""
        return (2 * products + 1) * (self._each * samples + CALL * math.ceil(samples / self.step))

    def affordable(self, samples: int) -> int:
        """The products over so many samples that the budget allows, `FEWEST` to `LANCZOS`."""
        return min(LANCZOS, max(FEWEST, int((self.budget / self.cost(samples, 0) - 1) / 2)))

    def _work(self) -> tuple[float, float]:
        """Floating-point operations and saved bytes of a gradient, a sample."""
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

    def _kind(self) -> str:
        n = min(self.source.samples, max(2, min(self.source.size, 64)))
        index = torch.randperm(self.source.samples, generator=torch.Generator().manual_seed(self.seed))[:n].tolist()
        cut = max(1, n // 3)
        try:
            with torch.no_grad():
                whole, one, other = (
                    float(self.own.value(self.source.rows(part))) if part else 0.0 for part in (index, index[:cut], index[cut:])
                )
        except ValueError:  # a batch of this size will not do
            return ""
        room = 1e3 * torch.finfo(self.own.dtype).eps * max(abs(whole), abs(one), abs(other))
        if abs(whole - (cut * one + (n - cut) * other) / n) <= room:
            return "mean"
        return "sum" if abs(whole - one - other) <= room else ""

    def _again(self) -> bool:
        """Whether the loss of all samples is the same a second time."""
        everything = range(self.source.samples)
        with torch.no_grad():
            one, other = (float(self.own.value(self.source.rows(list(everything)))) for _ in range(2))
        return abs(one - other) <= 1e3 * torch.finfo(self.own.dtype).eps * abs(one)


def sharpness(
    data: Population, samples: int | None = None, decided: Callable[[Quantity], bool] = lambda found: False
) -> Quantity:
    """The largest eigenvalue of the Hessian of the loss over all of the data.

    All of them are taken where the budget allows it: `SHARE` of the work of the trial, counted, for both of its ends. Else samples of growing
    size are, until the interval is narrow, or `decided`, or the next size is beyond the budget; `samples` sets their number instead. Where the
    loss has no `kind`, or the data are part of a stream, there is a sampling error in any case.
    """
    own, n = data.own, data.source.samples
    start = own.direction(data.seed + 1)
    room = min(LANCZOS, max(FEWEST, (1 << 31) // (start.element_size() * own.dim)))
    most = min(MOST if samples is None else samples, data.room, n if data.kind else MOST)
    least = min(most, 8 * (1 if data.kind else data.source.size))
    count = most if samples is not None else min(FIRST, most)
    while samples is None and count > least and data.cost(count, FEWEST) > data.budget:
        count = max(least, count // 2)
    looks = 1 + math.ceil(math.log(most / count, GROWTH))
    spent = 0.0
    try:
        while True:
            if data.whole and (n <= count or (samples is None and data.cost(n) <= data.budget - spent)):
                top = lanczos(lambda v: data.products(np.arange(n), v), start, min(room, data.affordable(n)))
                return Quantity.of(top.value, top.value, top.high)
            index = data.index(count, PARTS if data.kind and count >= FIRST else min(8, count // 2 * 2))
            products = min(room, data.affordable(count) - 1)  # one goes across the halves
            found = cross_fitted(lambda some, v: data.products(index[list(some)].ravel(), v), len(index), start, looks, products)
            data.forget()
            spent += data.cost(count, products + 1)
            narrow = found.high - found.low <= NARROW * abs(found.value)
            following = min(GROWTH * count, most)
            if narrow or count == most or decided(found) or spent + data.cost(following, FEWEST) > data.budget:
                return found
            count = following
    finally:
        data.forget()
