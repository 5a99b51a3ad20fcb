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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from sdetools.bridge.hessian_products import dot
from sdetools.bridge.population import MAX_PRODUCTS, MAX_SAMPLES, MIN_PRODUCTS, Population
from sdetools.estimates.interval import ConfidenceInterval, HasInterval, Kind

PARTS = 32
"""Parts of a sample, half of them in each half of the cross-fitting; the spread between them gives the sampling error."""
FIRST_SAMPLES, GROWTH = 1024, 4
"""The initial sample size and its growth factor, where not all data are affordable."""
NARROW_WIDTH = 0.2
"""The relative width of the interval below which the sample is not enlarged."""
TOLERANCE, ROUGH_TOLERANCE, FAILURE_PROBABILITY = 2e-3, 2e-2, 1e-4
"""The relative width of the Lanczos interval at which a run ends, on all data and on a sample; the interval's failure probability."""


@dataclass(frozen=True)
class Quantity(HasInterval):
    """A measured value (`value`) with its confidence interval (`bounds`, with the ends `low` and `high`); that of an exact value has width 0."""

    value: float
    bounds: ConfidenceInterval

    @classmethod
    def of(cls, value: float, low: float | None = None, high: float | None = None, kind: Kind = Kind.POINTWISE) -> Quantity:
        """Return a quantity with the 95 % interval [low, high]; without `low` or `high` it is exact, with level 1.

        Args:
            value: The value.
            low: The lower end; None with `high` for an exact value.
            high: The upper end.
            kind: How the interval was computed; by default that of a single value, from its standard error.

        Example:
            >>> from sdetools.bridge.curvature import Quantity
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

    Args:
        degrees: The degrees of freedom, at least 1.
        looks: The number of intervals that are inspected; they hold together with probability 95 % (Bonferroni).
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - 0.025 / looks))


@dataclass(frozen=True)
class Top:
    """Result of `lanczos`, two bounds of the largest eigenvalue and a vector.

    Attributes:
        value: The largest Ritz value, a lower bound up to rounding.
        high: An upper bound that fails with probability `FAILURE_PROBABILITY` = 1e-4 (`upper_bound`).
        vector: The unit Ritz vector of `value`, `(dim,)`: its Rayleigh quotient is `value`.
    """

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
        >>> import torch; from sdetools.bridge.curvature import lanczos
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
    """Return an upper bound of the largest eigenvalue lambda that fails with probability `FAILURE_PROBABILITY` = 1e-4 over the random start.

    For the unit start q and the eigenvector u of lambda, |q . u| prod_i (lambda - ritz_i) <= prod_i off_diagonal_i. Because |q . u|^2 has the law
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


def sharpness(
    data: Population, samples: int | None = None, decided: Callable[[Quantity], bool] = lambda found: False
) -> Quantity:
    """Estimate the largest eigenvalue of the Hessian of the loss over all data.

    All data are used if the budget (a share of the trial's work) allows it, else growing samples until high - low <= 0.2 |value|, `decided(found)`
    is true, or the next size exceeds budget or maximum. Where `data.whole` is false, for example for a stream, there is always a sampling error.

    Args:
        data: The loss over all samples, with its products and its budget of work.
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
