"""Which samples of its data a noise draws, and what noises of samples share."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from sdetools._arrays import spread
from sdetools.graph.calls import Call
from sdetools.graph.value import Value
from sdetools.losses.base import Loss
from sdetools.noise.base import Draws, Noise, Uniform, batch_factor, check_draws


def batch_indices(u: Any, n: int, replace: bool) -> Any:
    """Sample numbers in 0..n-1, whole floats, from uniforms `u` of shape `(size, *paths)`: floor(u n), or those of `floyd`.

    >>> batch_indices(np.array([0.1, 0.1]), 4, replace=False).tolist()
    [0.0, 3.0]
    """
    if replace:
        return np.minimum(np.floor(u * n), n - 1.0)
    return _choice(n)([u], u.shape) if isinstance(u, Value) else floyd(u, n)


def floyd(u: Any, n: int) -> Any:
    """Different numbers below n from uniforms of NumPy or torch: Floyd's algorithm (Bentley & Floyd, Comm. ACM 30, 1987).

    For b = 0..size-1 let last = n - size + b and t = floor(u_b (last + 1)); take t, or `last` when t is taken already. Every subset of
    that size is equally likely; the order is not uniform, which a mean over the batch does not see.
    """
    out = u * 0.0
    for b in range(len(u)):
        last = n - len(u) + b
        t = (u[b] * (last + 1) // 1).clip(0, last)
        out[b] = t + (last - t) * (out[:b] == t).any(0)
    return out


@functools.lru_cache(maxsize=256)
def _choice(n: int) -> Call:
    """`floyd` within a graph, as one call for each n: equal draws are one node. Kernels run a compiled twin, in time linear in the size."""
    from sdetools.noise.sampling_kernel import choose

    return Call(choose, (np.array([n]),), plain=functools.partial(floyd, n=n), tensors=functools.partial(floyd, n=n))


class SampledNoise(Noise):
    """What noise of samples shares: v = raw - c grad L for a batch B of `size` samples, c = 1 `with_data` and 0 for labels alone.

    raw = (1/size) sum_b (grad L_{i_b} - label_std s_b grad f_{i_b}), its first part `with_data`. One evaluation takes `size` uniforms (see
    `batch_indices`), then one draw a label. Sigma(x) = c S(x) + label_std^2 / size F(x): S the covariance of the sample gradients (divided
    by n), F = (1/n) sum_i grad f_i grad f_i^T, c = 1/size with replacement and (1/size) (n - size)/(n - 1) without.
    """

    loss: Loss

    def __init__(
        self, loss: Any, size: int, replace: bool, label_std: float = 0.0, label_draw: type | None = None, with_data: bool = True
    ) -> None:
        self.loss, self.size, self.replace, self.n = loss, size, replace, loss.samples
        self.label_std, self.label_draw, self.with_data = label_std, label_draw, with_data
        self.dim, self.centred = loss.dim, float(with_data)
        self.draws: tuple[Draws, ...] = (Uniform(size),) if label_draw is None else (Uniform(size), label_draw(size))
        what = "minibatch" if label_draw is None else "minibatch and label" if with_data else "label"
        labels = "" if label_draw is None else f", labels={label_draw.__name__}"
        self.identity = f"{what}({loss.identity}, size={size}, replace={replace}{labels})"
        self.parameters = np.empty(0) if label_draw is None else np.array([label_std])
        self.label = f"{what} noise, {size} of {self.n} samples, {'with' if replace else 'without'} replacement"
        terms = [r"\nabla L_i(x)"] * with_data + [r"\epsilon_i \nabla f_i(x)"] * (label_draw is not None)
        self.latex = (
            r"\frac{1}{|B|}\sum_{i \in B} (" + " - ".join(terms) + ")"
            if with_data
            else rf"-\frac{{1}}{{|B|}}\sum_{{i \in B}} {terms[0]}"
        )
        self.latex += r" - \nabla L(x)" if with_data else ""

    @property
    def factor(self) -> float:
        """c in Sigma = c S."""
        return batch_factor(self.n, self.size, self.replace)

    def std(self, p: Any) -> Any:
        """The standard deviation of the labels' noise."""
        return self.label_std if p is None or not len(p) else p[0]

    def value(self, x: Any, z: Any, p: Any = None) -> Any:
        raw = self.raw(x, check_draws(z, self), p)
        return raw - spread(self.loss.gradient(x), raw) if self.with_data else raw
