"""Sampling of batches, with and without replacement, and the base class of noises that sample data."""

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
    """Return the indices of the samples of a batch, from 0, ..., n - 1, as floats in the shape of `u`: a new array or a traced value.

    They are floor(u n) with replacement, and different indices by Floyd's algorithm (see `floyd`) without.

    Args:
        u: Uniform draws from (0, 1), one for each place in the batch: an array `(size,)`, or `(size, paths)` with one batch in each column,
            or a traced value `(size,)`. Without replacement size must be at most n.
        n: Number of samples.
        replace: Whether samples are drawn with replacement.

    Example:
        >>> batch_indices(np.array([0.1, 0.1]), 4, replace=True).tolist()
        [0.0, 0.0]
        >>> batch_indices(np.array([0.1, 0.1]), 4, replace=False).tolist()
        [0.0, 3.0]
    """
    if replace:
        return np.minimum(np.floor(u * n), n - 1.0)
    return _choice(n)([u], u.shape) if isinstance(u, Value) else floyd(u, n)


def floyd(u: Any, n: int) -> Any:
    """Return different integers from 0, ..., n - 1 as floats, a new array or tensor in the shape of `u`, by Floyd's algorithm.

    For b = 0, ..., size - 1 let last = n - size + b and t = floor(u_b (last + 1)); entry b is t, or `last` if t is an earlier entry of the same
    column. All subsets of that size are equally likely. The order is not uniform, but a mean over the batch does not depend on it. Source:
    J. Bentley, R. Floyd, Communications of the ACM 30 (1987).

    Args:
        u: Uniform draws from (0, 1), an array of NumPy or tensor of torch, `(size,)` or `(size, paths)`, one column for each path.
        n: The number of integers, at least size.

    Example:
        >>> floyd(np.array([0.1, 0.1, 0.9]), 4).tolist()
        [0.0, 2.0, 3.0]
    """
    out = u * 0.0
    for b in range(len(u)):
        last = n - len(u) + b
        t = (u[b] * (last + 1) // 1).clip(0, last)
        out[b] = t + (last - t) * (out[:b] == t).any(0)
    return out


@functools.lru_cache(maxsize=256)
def _choice(n: int) -> Call:
    """Return `floyd` for n samples as an operation on traced values; called with `([u], shape)` it returns the indices, a traced value.

    Equal n give the same object, so that equal operations of a graph are merged. Kernels run the compiled counterpart `choose`, whose time is
    linear in the batch size.
    """
    from sdetools.noise.sampling_kernel import choose

    return Call(choose, (np.array([n]),), plain=functools.partial(floyd, n=n), tensors=functools.partial(floyd, n=n))


class SampledNoise(Noise):
    """The base class of noises that sample data: v = raw - c grad L for a batch of `size` of the n samples, with indices i_1, ..., i_size.

    raw = (1/size) sum_b (grad L_{i_b} - label_std s_b grad f_{i_b}) for draws s_b with mean 0 and variance 1, where L_i is the loss of sample
    i and f_i its model. With `with_data` c = 1; without, the first term is left out and c = 0. Each path draws its own batch; `size` = 1 is
    the noise of single samples.

    The rows of the draws z are `size` uniforms from (0, 1), which select the samples (see `batch_indices`), then with label noise the `size`
    signs or normals s_b. `parameters` is [label_std], or empty without label noise.

    Sigma(x) = factor S(x) + (label_std^2 / size) F(x), with the covariance S = (1/n) sum_i (g_i - gbar)(g_i - gbar)^T of the n sample gradients
    g_i = grad L_i, their mean gbar, and F = (1/n) sum_i grad f_i grad f_i^T. Without `with_data` the first term is left out, without label
    noise the second.

    A subclass implements `raw`, `covariance` and `as_gaussian`. The arguments are attributes of the same names:

    Attributes:
        loss: The loss with the data.
        size: Batch size, a positive integer; at most n without replacement.
        replace: Whether samples are drawn with replacement.
        n: Number of samples.
        label_std: Standard deviation of the label noise.
        label_draw: The class of the draws s_b, `Sign` or `Normal`, or None without label noise.
        with_data: Whether the gradient of the batch is part of the noise; False for label noise alone.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.least_squares([[1.0], [2.0], [3.0]], [1.0, 0.0, 2.0])
        >>> noise = st.noise.label_noise(loss, std=0.5, size=2, batch=True, replace=False)
        >>> noise.draws, noise.factor, noise.parameters
        ((Uniform(n=2), Sign(n=2)), 0.25, array([0.5]))
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
        """The number c in the covariance c S(x) of a batch: 1/size with replacement, (n - size) / ((n - 1) size) without; S is as in the class."""
        return batch_factor(self.n, self.size, self.replace)

    def std(self, p: Any) -> Any:
        """Return the standard deviation of the label noise: `p[0]` for `p` = [label_std], the attribute `label_std` if `p` is None or empty."""
        return self.label_std if p is None or not len(p) else p[0]

    def value(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return v, `(dim,)` or `(dim, paths)`: raw(x, z, p) - grad L(x), or raw(x, z, p) for label noise alone.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            z: Draws with the paths of `x`: `size` uniforms, which select the samples, then with label noise `size` signs or normals.
            p: [label_std]; None or empty for the attribute `label_std`.

        Raises:
            ValueError: If `z` does not have one row for each draw.
        """
        raw = self.raw(x, check_draws(z, self), p)
        return raw - spread(self.loss.gradient(x), raw) if self.with_data else raw
