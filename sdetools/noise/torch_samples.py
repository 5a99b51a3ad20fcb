"""Noise from a torch loss with data: minibatch noise, label noise, and Gaussian noise with the same covariance.

The laws and the draws are those of `noise.minibatch`, with gradients by `torch.func`. The gradient of a path,

    raw = grad of  (1/size) sum_b [l(x, row_{i_b}) - std s_b f(x, a_{i_b})],

is one reverse pass over its batch: l is the loss of a sample, f its model, row_i the data of sample i, a_i its input, i_b the indices of the
batch, and s_b signs or normals. In a graph it is a call of torch, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.func import grad, vmap

from sdetools.graph.calls import Call
from sdetools.graph.value import Value
from sdetools.losses.torch_function import TorchSamples
from sdetools.noise.base import Noise, Normal, check_draws
from sdetools.noise.batch_sampling import SampledNoise, batch_indices


def on_paths(function: Callable[..., torch.Tensor], *parts: Any) -> Any:
    """Return the gradient of a torch function by its first argument, for all paths: an array `(dim,)` or `(dim, paths)` or a traced value `(dim,)`.

    Args:
        function: A function of tensors of one path, `function(x, *others)`, that returns one number, a tensor of shape `()`.
        *parts: Its arguments for all paths, the points x `(dim,)` or `(dim, paths)` first: arrays `(n,)`, the same for all paths, or `(n, paths)`,
            each with its own n; or traced values `(n,)` if x is one.
    """
    if isinstance(parts[0], Value):
        return Call(None, tensors=partial(_vmapped, function))(parts, parts[0].shape)
    paths = max((p.shape[1:] for p in parts), key=len)
    rows = [torch.as_tensor(np.array(p, dtype=float).reshape(len(p), math.prod(p.shape[1:]))) for p in parts]
    made = _vmapped(function, *(r.expand(-1, math.prod(paths)) for r in rows))
    return made.numpy().reshape(-1, *paths)


def _vmapped(function: Callable[..., torch.Tensor], *rows: torch.Tensor) -> torch.Tensor:
    """Return the gradients of `function` by its first argument, `(dim, columns)`, for each column of the tensors `rows`, each `(n, columns)`."""
    with torch.enable_grad():
        return vmap(grad(function), in_dims=1, out_dims=1)(*rows).detach()


class TorchMinibatch(SampledNoise):
    """Minibatch and label noise of a torch loss with data, `losses.from_torch(..., data=...)` or `losses.from_torch_model`.

    `SampledNoise` has the formula of v and the rows of the draws. `noise.minibatch` and `noise.label_noise` make it.

    Args:
        loss: The loss with the data.
        size: Batch size.
        replace: Whether samples are drawn with replacement.
        label_std: Standard deviation of the label noise.
        label_draw: The class of its draws, `Sign` or `Normal`, or None without label noise.
        with_data: Whether the gradient of the batch is part of the noise; False for label noise alone.
    """

    loss: TorchSamples

    def raw(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return the batch gradient with label noise, (1/size) sum_b (grad L_{i_b} - label_std s_b grad f_{i_b}), `(dim,)` or `(dim, paths)`.

        For label noise alone the first term is left out. L_i is the loss of sample i, and f_i its model.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            z: Draws with the paths of `x`: `size` uniforms, which select the samples i_b, then with label noise `size` signs or normals s_b.
            p: [label_std]; None or empty for the attribute `label_std`.
        """
        labels = [self.std(p) * z[self.size :]] if self.label_draw is not None else []
        return on_paths(self._batch, x, batch_indices(z[: self.size], self.n, self.replace), *labels)

    def _batch(self, point: torch.Tensor, index: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
        """Return the tensor `()` whose gradient by `point` `(dim,)` is `raw`, for one path.

        `index` `(size,)` are the indices of its batch, and `labels` at most one tensor `(size,)`, the label noise label_std s_b.
        """
        loss, own = self.loss, [row[index.long()] for row in self.loss.rows(point)]
        total: Any = loss.each(loss.sample, point, own).mean() if self.with_data else 0.0
        return total - (labels[0] * loss.each(loss.model, point, own[:-1])).mean() if labels else total

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return Sigma(x) = c S(x) + (label_std^2 / size) F(x): `(dim, dim)`, or `(dim, dim, paths)` for points `(dim, paths)`.

        S is the covariance of the n sample gradients (divided by n), F = (1/n) sum_i grad f_i grad f_i^T for the models f_i, and c the attribute
        `factor`, 1/size with replacement. For label noise alone the first term is left out, without label noise the second. `p` is
        [label_std]; with None or an empty `p` the attribute `label_std` is used.
        """
        x, out = np.asarray(x, dtype=float), 0.0
        if self.with_data:
            g = self.loss.sample_gradients(x)
            g = g - g.mean(axis=0)
            out = self.factor * np.einsum("ni...,nj...->ij...", g, g) / self.n
        if self.label_draw is not None:
            f = self.loss.sample_gradients(x, _of_input(self.loss))
            out = out + self.std(p) ** 2 / self.size * np.einsum("ni...,nj...->ij...", f, f) / self.n
        return np.asarray(out)

    def as_gaussian(self) -> TorchSampleGaussian:
        """Return the Gaussian noise with the same covariance, a `TorchSampleGaussian`."""
        return TorchSampleGaussian(self)


class TorchSampleGaussian(Noise):
    """Gaussian noise with the covariance of a `TorchMinibatch`: v = sqrt(c/n) sum_i (xi_i - mean xi) grad L_i(x), xi ~ N(0, I_n).

    c is `SampledNoise.factor`, 1/size with replacement, and L_i the loss of sample i. Label noise adds label_std / sqrt(n size) sum_i xi'_i
    grad f_i(x) with the models f_i and further normals xi'; label noise alone has this term only. The draws are n normals, or 2 n for data
    and labels: all xi_i, then all xi'_i.

    Args:
        noise: The minibatch or label noise whose covariance it has.
    """

    gaussian = True
    latex = r"\sqrt{c/n}\,\sum_i (\xi_i - \bar\xi)\,\nabla L_i(x)"

    def __init__(self, noise: TorchMinibatch) -> None:
        self.inner, self.loss, self.dim = noise, noise.loss, noise.dim
        self.draws = (Normal((noise.with_data + (noise.label_draw is not None)) * noise.n),)
        self.identity = f"gaussian[{noise.identity}, label_std={noise.label_std!r}]"
        self.label = f"Gaussian with the covariance of {noise.label}"

    def value(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return v in the shape of the points `x`, `(dim,)`, `(dim, paths)` or traced `(dim,)`, for standard normal draws `z`; `p` is not used.

        `z` has the paths of `x` and the rows xi_1, ..., xi_n, then xi'_1, ..., xi'_n if there are both data and label noise. ValueError if it
        does not have one row for each draw.
        """
        return on_paths(self._weighted, x, check_draws(z, self))

    def _weighted(self, point: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
        """Return the tensor `()` whose gradient by `point` `(dim,)` is v, for the draws `xi` `(n_draws,)` of one path.

        It is a sum of sample losses and models, weighted by the draws.
        """
        loss, inner, n = self.inner.loss, self.inner, self.inner.n
        rows, total, own = loss.rows(point), torch.zeros_like(point).sum(), xi
        if inner.with_data:
            weights, own = math.sqrt(inner.factor / n) * (xi[:n] - xi[:n].mean()), xi[n:]
            total = total + (weights * loss.each(loss.sample, point, rows)).sum()
        if inner.label_draw is not None:
            total = total + inner.label_std / math.sqrt(n * inner.size) * (own * loss.each(loss.model, point, rows[:-1])).sum()
        return total

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return Sigma(x) of the minibatch noise, `(dim, dim)` or `(dim, dim, paths)`; `p` is not used."""
        return self.inner.covariance(x)

    def as_gaussian(self) -> TorchSampleGaussian:
        """Return this noise, which is Gaussian."""
        return self


def _of_input(loss: TorchSamples) -> Callable[..., Any]:
    """Return the function `g(x, *row) = f(x, *row[:-1])` for the model f of a loss: it takes whole rows of data and ignores the target."""
    model = loss.model
    assert model is not None
    return lambda x, *row: model(x, *row[:-1])
