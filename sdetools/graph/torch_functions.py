"""Functions that differ between torch and NumPy: NaN, the ends of the floating-point range, subnormal arguments.

All other functions of a graph are torch's own. Elementwise functions return a new tensor of the argument's shape and type. Of two zeros,
`maximum` and `minimum` return either, in NumPy as in torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def sign(x: Tensor) -> Tensor:
    """Return the signs of x elementwise, -1, 0 or 1, and NaN for NaN (`torch.sign` gives 0 there)."""
    return torch.where(torch.isnan(x), x, torch.sign(x))


def heaviside(x: Tensor, h: Tensor) -> Tensor:
    """Return elementwise 0 for x < 0, 1 for x > 0, h (of x's type) for x = 0, and NaN for x = NaN (`torch.heaviside` gives 0 there)."""
    return torch.where(torch.isnan(x), x, torch.heaviside(x, h))


def power(x: Tensor, y: Tensor | float) -> Tensor:
    """Return x**y elementwise, for an exponent that is a tensor or a number.

    A number is made a tensor first: for the number -0.5 torch computes 1/sqrt(x), which is -inf at x = -0.0 instead of inf.
    """
    return torch.pow(x, y if isinstance(y, Tensor) else torch.full_like(x, y))


def log1p(x: Tensor) -> Tensor:
    """Return log(1 + x) elementwise, and x where 1 + x rounds to 1: `torch.log1p` makes subnormal numbers 0."""
    return torch.where(torch.abs(x) < torch.finfo(x.dtype).eps / 4, x, torch.log1p(x))


def sinh(x: Tensor) -> Tensor:
    """Return sinh x elementwise; it overflows where sinh x does (`torch.sinh` earlier, where e^|x| does)."""
    return torch.where(_far(x), torch.copysign(_half_exp(x), x), torch.sinh(x))


def cosh(x: Tensor) -> Tensor:
    """Return cosh x elementwise; it overflows where cosh x does (`torch.cosh` earlier, where e^|x| does)."""
    return torch.where(_far(x), _half_exp(x), torch.cosh(x))


def _far(x: Tensor) -> Tensor:
    """Return elementwise whether e^|x| is close to overflow."""
    return torch.abs(x) > 0.99 * math.log(torch.finfo(x.dtype).max)


def _half_exp(x: Tensor) -> Tensor:
    """Return e^|x| / 2 without intermediate overflow; |x| - 1 is exact where this is used."""
    return torch.exp(torch.abs(x) - 1.0) * (math.e / 2)


def transpose(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return a view of x whose axis i is axis `axes[i]` of x (torch.transpose swaps two axes)."""
    return torch.permute(x, tuple(axes))


def prod(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the product of x over `axes`, a sequence of nonnegative axes, which the result lacks (`torch.prod` takes one axis only)."""
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis)
    return x


def tally(index: Tensor, n: int, weights: Tensor | None = None) -> Tensor:
    """Return for each path how often each of n samples was drawn, or the sum of the weights of its draws, as a tensor `(n, *paths)`.

    Args:
        index: Indices of the drawn samples, from 0 to n - 1, as floats, `(size, *paths)`; for others torch raises RuntimeError (on a CPU).
        n: Number of samples.
        weights: A weight of each draw, of the shape of `index`; 1 by default.
    """
    given = torch.ones_like(index) if weights is None else weights
    return given.new_zeros((n, *index.shape[1:])).scatter_add_(0, index.long(), given)


def through_arrays(function: Callable[..., np.ndarray], parts: Sequence[Any]) -> Tensor:
    """Return `function(*parts)` as a tensor, for a function of NumPy arrays and parts that are CPU tensors or numbers.

    Float64 tensors share their memory with the arrays; others are converted to float64. The result gets the type of the first part with at
    least two axes; StopIteration if there is no such part.

    Args:
        function: Function of arrays `(n, paths)` or `(paths,)` and floats that returns an array.
        parts: Its arguments; a tensor without axes is passed as a float.
    """
    like = next(p for p in parts if getattr(p, "ndim", 0) > 1)
    arrays = [p.double().numpy() if getattr(p, "ndim", 0) else float(p) for p in parts]
    return torch.from_numpy(np.ascontiguousarray(function(*arrays))).to(like.dtype)
