r"""Noise that a torch loss with data makes: batches, fresh noise on labels, and the Gaussian noise of the same covariance.

The same laws and the same draws as for linear models in `minibatch`, with gradients by `torch.func`: a path takes

    v = grad of  (1/size) sum_b [l(x, row_{i_b}) - std s_b f(x, a_{i_b})]  less grad L(x),

one reverse pass over its own batch. It runs as a stage on the torch backend, on any device.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.func import grad, vmap

from ..losses.base import Stage
from ..losses.torch_function import TorchSamples
from .base import Draws, Noise, Normal, Uniform, batch_factor, check_draws


def batch_indices(u: torch.Tensor, n: int, replace: bool) -> torch.Tensor:
    """`minibatch.batch_indices` on tensors `(size, paths)`, the same numbers.

    >>> batch_indices(torch.tensor([[0.1], [0.1]]), 4, replace=False).ravel().tolist()
    [0, 3]
    """
    if replace:
        return (u * n).long().clamp_max(n - 1)
    out = torch.empty(u.shape, dtype=torch.int64, device=u.device)
    for b in range(len(u)):
        last = n - len(u) + b
        index = (u[b] * (last + 1)).long().clamp_max(last)
        taken = (out[:b] == index).any(dim=0)
        out[b] = torch.where(taken, last, index)
    return out


class _OnPaths:
    """sum_c weights[c] v(x, z_c) (`whole`: with the gradient, and sigma) on tensors with paths last, as the torch backend calls it."""

    torch_stage = True

    def __init__(self, noise: TorchNoise, weights: Sequence[float], sigma: float = 1.0, whole: bool = False) -> None:
        self.noise, self.weights = noise, tuple(weights)
        left = float(whole) - sigma * sum(weights) * noise.centred
        size = 1.0 + sigma * sum(map(abs, weights))
        self.full = left if abs(left) > 1e-15 * size else 0.0
        """The factor of grad L; where nothing is left of it but rounding (sigma = 1 and its SVAG) it is not computed."""

    def __call__(self, x: torch.Tensor, z: torch.Tensor, sigma: Any = 1.0) -> torch.Tensor:
        own = self.noise.n_draws
        with torch.enable_grad():
            parts = [w * self.noise.raw(x, z[c * own : (c + 1) * own]) for c, w in enumerate(self.weights)]
            out = sigma * sum(parts)
            if self.full:
                out = out + self.full * self.noise.full(x)
        return out.detach()


class TorchNoise(Noise):
    """What the noises of torch data share: v = raw(x, z) less grad L where `centred`, computed by torch."""

    loss: TorchSamples
    centred: float = 0.0

    @abstractmethod
    def raw(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """The part of v that the draws make, `(dim, paths)` from `(dim, paths)` and `(draws, paths)`."""

    def full(self, x: torch.Tensor) -> torch.Tensor:
        """grad L, `(dim, paths)`."""
        return vmap(grad(self.loss.function), in_dims=1, out_dims=1)(x)

    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        x, z = np.asarray(x, dtype=float), np.asarray(check_draws(z, self), dtype=float)
        rows = [torch.as_tensor(a.reshape(len(a), -1).copy()) for a in (x, z)]
        paths = max(r.shape[1] for r in rows)
        rows = [r.expand(-1, paths) for r in rows]
        v = self.raw(*rows) - (self.centred * self.full(rows[0]) if self.centred else 0.0)
        return v.detach().numpy().reshape(self.dim, *(z.shape[1:] if z.ndim > 1 else x.shape[1:]))

    def combined_stage(self, weights: Sequence[float]) -> Stage:
        return Stage(_OnPaths(self, weights))

    def oracle_stage(self, sigma: float, weights: Sequence[float] = (1.0,)) -> Stage:
        """The whole gradient; where sigma sum(weights) = 1 it takes the batches only."""
        return Stage(_OnPaths(self, weights, sigma, whole=True))


class TorchMinibatch(TorchNoise):
    """v = g_B(x) - grad L(x) for a batch B of `size` samples (`with_data`), and fresh noise of `label_std` on its labels."""

    def __init__(
        self,
        loss: TorchSamples,
        size: int,
        replace: bool,
        label_std: float = 0.0,
        label_draw: type | None = None,
        with_data: bool = True,
    ) -> None:
        self.loss, self.size, self.replace, self.label_std, self.with_data = loss, size, replace, label_std, with_data
        self.dim, self.centred = loss.dim, float(with_data)
        self.draws: tuple[Draws, ...] = (Uniform(size),) if label_draw is None else (Uniform(size), label_draw(size))
        what = "minibatch" if label_draw is None else "minibatch and label" if with_data else "label"
        labels = f", labels={label_draw.__name__}({label_std!r})" if label_draw else ""
        self.identity = f"torch {what}({loss.identity}, size={size}, replace={replace}{labels})"
        self.label = f"{what} noise, {size} of {loss.samples} samples, {'with' if replace else 'without'} replacement"
        self.latex = r"\frac{1}{|B|}\sum_{i \in B} \nabla L_i(x) - \nabla L(x)"
        if label_draw is not None:
            batch = r"\nabla L_i(x)" if with_data else ""
            self.latex = rf"\frac{{1}}{{|B|}}\sum_{{i \in B}} ({batch} - \epsilon_i \nabla f_i(x))" + (
                r" - \nabla L(x)" if with_data else ""
            )

    @property
    def factor(self) -> float:
        """c in Sigma = c S."""
        return batch_factor(self.loss.samples, self.size, self.replace)

    def raw(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        loss, size = self.loss, self.size
        index = batch_indices(z[:size], loss.samples, self.replace)
        rows, signs = loss.rows(x), z[size:]

        def batch(point: torch.Tensor, chosen: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
            own = [row[chosen] for row in rows]
            total = loss.each(loss.sample, point, own).mean() if self.with_data else 0.0
            if len(signs):
                total = total - self.label_std * (sign * loss.each(loss.model, point, own[:-1])).mean()
            return total

        return vmap(grad(batch), in_dims=1, out_dims=1)(x, index, signs)

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        x, out = np.asarray(x, dtype=float), 0.0
        if self.with_data:
            g = self.loss.sample_gradients(x)
            g = g - g.mean(axis=0)
            out = self.factor * np.einsum("ni...,nj...->ij...", g, g) / self.loss.samples
        if len(self.draws) > 1:
            f = self.loss.sample_gradients(x, _of_input(self.loss))
            out = out + self.label_std**2 / self.size * np.einsum("ni...,nj...->ij...", f, f) / self.loss.samples
        return np.asarray(out)

    def as_gaussian(self) -> TorchSampleGaussian:
        return TorchSampleGaussian(self)


class TorchSampleGaussian(TorchNoise):
    """v = sqrt(c/n) sum_i (xi_i - mean xi) grad l_i(x), and std/sqrt(n size) sum_i xi'_i grad f_i(x): the covariance of a `TorchMinibatch`."""

    gaussian = True
    latex = r"\sqrt{c/n}\,\sum_i (\xi_i - \bar\xi)\,\nabla L_i(x)"

    def __init__(self, noise: TorchMinibatch) -> None:
        self.inner, self.loss, self.dim = noise, noise.loss, noise.dim
        self.parts = noise.with_data + (len(noise.draws) > 1)
        self.draws = (Normal(self.parts * self.loss.samples),)
        self.identity, self.label = f"gaussian[{noise.identity}]", f"Gaussian with the covariance of {noise.label}"

    def raw(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        loss, inner, n = self.loss, self.inner, self.loss.samples
        rows = loss.rows(x)

        def weighted(point: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
            total, own = torch.zeros((), dtype=point.dtype, device=point.device), xi
            if inner.with_data:
                weights, own = math.sqrt(inner.factor / n) * (xi[:n] - xi[:n].mean()), xi[n:]
                total = total + (weights * loss.each(loss.sample, point, rows)).sum()
            if len(inner.draws) > 1:
                total = (
                    total + inner.label_std / math.sqrt(n * inner.size) * (own * loss.each(loss.model, point, rows[:-1])).sum()
                )
            return total

        return vmap(grad(weighted), in_dims=1, out_dims=1)(x, z)

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        return self.inner.covariance(x)

    def as_gaussian(self) -> TorchSampleGaussian:
        return self


def _of_input(loss: TorchSamples) -> Callable[..., Any]:
    """f as a function of whole rows."""
    model = loss.model
    assert model is not None
    return lambda x, *row: model(x, *row[:-1])
