"""The terms of Lemma 2.4 at a checkpoint, |grad L|^2, grad L^T H grad L, tr(H Sigma) and tr(Sigma): from batches with intervals, or from all data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sdetools.bridge.batches import Batches
from sdetools.bridge.curvature import Population, Quantity, student
from sdetools.bridge.hessian_products import Derivatives, dot
from sdetools.bridge.modules import check_module
from sdetools.estimates.interval import Kind
from sdetools.noise.base import batch_factor

GROUPS = 8
"""Groups of batches, whose spread is the error."""


def sampled_terms(
    own: Derivatives, source: Batches, batches: int, stream: Callable[[int], int], tick: Callable[[int], None]
) -> list[Quantity]:
    """|grad L|^2, grad L^T H grad L, tr(H Sigma), tr(Sigma)."""
    n = max(1, batches // (2 * GROUPS))
    means, products, alone = [], [], np.empty((2, GROUPS))
    for a in range(GROUPS):
        mean: Any = 0
        product: Any = 0
        squares = np.zeros(2)
        for i in range(a * n, a * n + n):
            g = own.gradient(source.fresh(stream(0), i))
            h = own.product(source.fresh(stream(1), i), g)
            squares += dot(g, g) / n, dot(g, h) / n
            mean, product = mean + g / n, product + h / n
            tick(2)
        means.append(mean)
        products.append(product)
        alone[:, a] = squares
    inner = np.array([[dot(b, a) for b in means] for a in means])
    pulled = np.array([[dot(b, h) for b in means] for h in products])
    return jackknife(inner, pulled, alone)


def lemma_terms(inner: np.ndarray, pulled: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Estimates of |grad L|^2, grad L^T H grad L, tr(H Sigma), tr(Sigma) from independent groups of batches, without bias.

    `inner[a, b]` = g_a.g_b and `pulled[a, b]` = (H g)_a.g_b of the groups' means, `alone` the means of g.g and g.Hg over the single batches of
    each group, `(2, groups)`.
    """
    k = len(inner)
    crossed = [(table.sum() - np.trace(table)) / (k * (k - 1)) for table in (inner, pulled)]
    squares = alone.mean(axis=1)
    return np.array([crossed[0], crossed[1], squares[1] - crossed[1], squares[0] - crossed[0]])


def jackknife(inner: np.ndarray, pulled: np.ndarray, alone: np.ndarray) -> list[Quantity]:
    """`lemma_terms` with 95 % intervals: the spread over all but one group, times (k - 1) / sqrt(k) as for a mean."""
    k = len(inner)
    everyone = np.arange(k)
    left = [np.delete(everyone, a) for a in everyone]
    whole = lemma_terms(inner, pulled, alone)
    without = np.array([lemma_terms(inner[np.ix_(a, a)], pulled[np.ix_(a, a)], alone[:, a]) for a in left])
    half = student(k - 1) * (k - 1) / math.sqrt(k) * without.std(axis=0, ddof=1)
    return [Quantity.of(float(v), float(v - h), float(v + h), Kind.JACKKNIFE) for v, h in zip(whole, half)]


def exact_terms(data: Population) -> list[Quantity]:
    """The same from all samples: Sigma = c S, S the covariance (over n) of their gradients, c = (n - size) / ((n - 1) size)."""
    check_module(data.own.net)
    if not data.kind or data.source.partial:
        raise ValueError(
            "`exact=True` must have a loss that is a mean or a sum over samples, and all of the data; got a stream, or a loss that mixes samples or "
            "draws at random. Leave it out."
        )
    n = data.source.samples
    everything = np.arange(n)
    g = data.gradient(everything)
    noise = variance = 0.0
    for i in range(n):
        v = data.gradient(np.array([i])) - g
        noise += dot(v, data.product(everything, v)) / n
        variance += dot(v, v) / n
    factor = batch_factor(n, data.source.size, replace=False)
    four = dot(g, g), dot(g, data.product(everything, g)), factor * noise, factor * variance
    return [Quantity.of(v) for v in four]
