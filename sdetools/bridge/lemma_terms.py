"""The terms of Lemma 2.4 at a checkpoint, |grad L|^2, grad L^T H grad L, tr(H Sigma) and tr(Sigma): estimated or exact.

L is the loss over all data, H its Hessian, and Sigma the covariance of the gradient g of one batch. A group is one of `GROUPS` = 8 sets of
independent batches; the spread between the groups gives the standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sdetools.bridge.batches import Batches
from sdetools.bridge.curvature import Quantity, student_quantile
from sdetools.bridge.hessian_products import Derivatives, dot
from sdetools.bridge.modules import check_module
from sdetools.bridge.population import Population
from sdetools.estimates.interval import Kind
from sdetools.noise.base import batch_factor

GROUPS = 8
"""Groups of batches; the spread between them gives the standard error."""


def sampled_terms(
    derivatives: Derivatives, source: Batches, batches: int, stream: Callable[[int], int], tick: Callable[[int], None]
) -> list[Quantity]:
    """Estimate |grad L|^2, grad L^T H grad L, tr(H Sigma) and tr(Sigma) from independent batches, with 95 % intervals.

    L is the loss over all data, H its Hessian, and Sigma the covariance of the gradient of one batch of the size of `source`, not of one sample. The
    estimates are unbiased, that of |grad L|^2, too: it has products of gradients of different groups of batches alone (`lemma_terms`).

    Args:
        derivatives: Gradients and Hessian products of the network.
        source: The batches.
        batches: The number of batches, half for gradients and half for Hessian products; rounded down to a multiple of 2 `GROUPS` = 16, and 16
            if it is smaller.
        stream: A function that returns the seed of the batches: `stream(0)` for gradients, `stream(1)` for Hessian products.
        tick: Called with the number of batches processed since the last call, for progress.

    Returns:
        The four terms in this order, with jackknife intervals.
    """
    n = max(1, batches // (2 * GROUPS))
    means, products, squared = [], [], np.empty((2, GROUPS))
    for a in range(GROUPS):
        mean: Any = 0
        product: Any = 0
        squares = np.zeros(2)
        for i in range(a * n, a * n + n):
            g = derivatives.gradient(source.fresh(stream(0), i))
            h = derivatives.product(source.fresh(stream(1), i), g)
            squares += dot(g, g) / n, dot(g, h) / n
            mean, product = mean + g / n, product + h / n
            tick(2)
        means.append(mean)
        products.append(product)
        squared[:, a] = squares
    inner = np.array([[dot(b, a) for b in means] for a in means])
    hessian_inner = np.array([[dot(b, h) for b in means] for h in products])
    return jackknife(inner, hessian_inner, squared)


def lemma_terms(inner: np.ndarray, hessian_inner: np.ndarray, squared: np.ndarray) -> np.ndarray:
    """Return unbiased estimates of |grad L|^2, grad L^T H grad L, tr(H Sigma) and tr(Sigma) from independent groups of batches.

    With g_a the mean gradient of group a, the first two are the means of g_a . g_b and g_b . (H g)_a over pairs a != b. The last two are the
    means of g . H g and g . g over single batches, minus the second and the first estimate, respectively.

    Args:
        inner: Inner products g_a . g_b of the groups' mean gradients, `(groups, groups)`.
        hessian_inner: Inner products (H g)_a . g_b with the groups' mean Hessian products, `(groups, groups)`.
        squared: Means of g . g (first row) and of g . H g (second row) over the single batches of each group, `(2, groups)`.

    Returns:
        The four estimates in this order, `(4,)`.
    """
    k = len(inner)
    crossed = [(table.sum() - np.trace(table)) / (k * (k - 1)) for table in (inner, hessian_inner)]
    squares = squared.mean(axis=1)
    return np.array([crossed[0], crossed[1], squares[1] - crossed[1], squares[0] - crossed[0]])


def jackknife(inner: np.ndarray, hessian_inner: np.ndarray, squared: np.ndarray) -> list[Quantity]:
    """Return estimates of |grad L|^2, grad L^T H grad L, tr(H Sigma) and tr(Sigma), those of `lemma_terms`, with 95 % intervals.

    The intervals come from the jackknife that leaves out one group at a time.

    Args:
        inner: Inner products g_a . g_b of the groups' mean gradients, `(groups, groups)`.
        hessian_inner: Inner products (H g)_a . g_b with the groups' mean Hessian products, `(groups, groups)`.
        squared: Means of g . g (first row) and of g . H g (second row) over the single batches of each group, `(2, groups)`.
    """
    k = len(inner)
    indices = np.arange(k)
    left = [np.delete(indices, a) for a in indices]
    whole = lemma_terms(inner, hessian_inner, squared)
    without = np.array([lemma_terms(inner[np.ix_(a, a)], hessian_inner[np.ix_(a, a)], squared[:, a]) for a in left])
    half = student_quantile(k - 1) * (k - 1) / math.sqrt(k) * without.std(axis=0, ddof=1)
    return [Quantity.of(float(v), float(v - h), float(v + h), Kind.JACKKNIFE) for v, h in zip(whole, half)]


def exact_terms(data: Population) -> list[Quantity]:
    """Return |grad L|^2, grad L^T H grad L, tr(H Sigma) and tr(Sigma) exactly, from the gradient of every sample.

    Sigma = c S, with S the covariance (divisor n) of the gradients of the n samples and c = (n - size) / ((n - 1) size) for the batch size
    `size`.

    Args:
        data: The loss over all samples.

    Returns:
        The four terms in this order, each with an interval of width 0.

    Raises:
        ValueError: If the loss is not a mean or a sum over samples, or if the data are part of a stream.
    """
    check_module(data.own.net)
    if not data.kind or data.source.partial:
        raise ValueError(
            "`exact=True` must have a loss that is a mean or a sum over samples, and all of the data; got a stream, or a loss that "
            "mixes samples or draws at random. Leave it out."
        )
    n = data.source.samples
    all_samples = np.arange(n)
    g = data.gradient(all_samples)
    noise = variance = 0.0
    for i in range(n):
        v = data.gradient(np.array([i])) - g
        noise += dot(v, data.product(all_samples, v)) / n
        variance += dot(v, v) / n
    factor = batch_factor(n, data.source.size, replace=False)
    terms = dot(g, g), dot(g, data.product(all_samples, g)), factor * noise, factor * variance
    return [Quantity.of(v) for v in terms]
