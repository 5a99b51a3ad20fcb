"""Losses given as torch functions of one point: derivatives by `torch.func`, many paths by `torch.func.vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.func import grad, jacrev, vmap

from .. import _check
from .._identity import function_identity
from .base import Loss, Stage, coordinate_names


class _Rows:
    """A batched torch function on a list of rows, as the torch backend calls it."""

    torch_stage = True

    def __init__(self, batched: Callable[[torch.Tensor], torch.Tensor], vector: bool) -> None:
        self.batched, self.vector = batched, vector

    def __call__(self, rows: list[torch.Tensor]) -> Any:
        with torch.enable_grad():
            out = self.batched(torch.stack(rows, dim=-1))
        return list(out.detach().unbind(dim=-1)) if self.vector else out.detach()


class TorchLoss(Loss):
    """L(x) from `function(x)`, x a tensor `(dim,)`, differentiated by `torch.func`; NumPy arrays go through torch and back."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], dim: int, names: Any = None, at: Any = None) -> None:
        if not callable(function):
            raise ValueError(f"`function` must be a torch function of one point; got {function!r}.")
        self.function, self.dim = function, _check.count("dim", dim)
        self.names = coordinate_names(names, self.dim)
        self.parameters, self.latex = np.zeros(0), r"L(x)"
        self.label = getattr(function, "__name__", "torch function")
        self._gradient = _Rows(vmap(grad(function)), True)
        self._value = _Rows(vmap(function), False)
        self._check(np.full(self.dim, 0.7) if at is None else _check.point("at", at, self.dim))

    def _check(self, at: np.ndarray) -> None:
        try:
            value = self.function(torch.as_tensor(at))
            single = isinstance(value, torch.Tensor) and value.ndim == 0
            gradient = self.gradient(at) if single else at
        except (RuntimeError, IndexError, TypeError) as error:
            told = str(error).splitlines()[0]
            raise ValueError(
                f"`function` must be a torch function of one point of shape ({self.dim},), made of torch operations that vmap knows; "
                f"calling it raised {type(error).__name__}: {told}."
            ) from error
        if not single:
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"`function` must return one number, a tensor of shape (); got {shape}. Sum it up.")
        if not np.isfinite([float(value), *gradient]).all():
            raise ValueError(f"`function` must be finite with its gradient at x={at.tolist()}; give at= a point of its domain.")

    @property
    def identity(self) -> str:
        return f"torch({self.dim}; {function_identity(self.function)})"

    @property
    def torch_stage(self) -> Stage:
        return Stage(self._gradient)

    @property
    def torch_value_stage(self) -> Stage:
        return Stage(self._value)

    def _apply(self, function: Callable[[torch.Tensor], torch.Tensor], x: Any) -> np.ndarray:
        x = self._point(x)
        if x.dtype == object:
            raise TypeError(f"{self.label} is a torch function")
        points = torch.as_tensor(np.moveaxis(x.reshape(self.dim, -1), 0, 1).copy())
        out = np.moveaxis(vmap(function)(points).detach().numpy(), 0, -1)
        return out.reshape(*out.shape[:-1], *x.shape[1:]) if x.ndim > 1 else out[..., 0]

    def value(self, x: Any, p: Any = None) -> Any:
        return self._apply(self.function, x)

    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        return self._apply(grad(self.function), x)

    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        return self._apply(jacrev(grad(self.function)), x)

    def third(self, x: Any, p: Any = None) -> np.ndarray:
        return self._apply(jacrev(jacrev(grad(self.function))), x)


def from_torch(function: Callable[[Any], Any], dim: int, names: Any = None, at: Any = None) -> TorchLoss:
    """A loss from a torch function of one point `(dim,)`: value by `vmap`, derivatives by `torch.func`, any device.

    `names`: names of the coordinates for expressions; `at`: a point of the domain for the check at the door. It runs with
    backend="torch" (also "torch:cuda"); "auto" takes that, and "numpy" goes through torch and back.
    ValueError for a function that does not return one finite number, or that `vmap` cannot batch.

    >>> loss = from_torch(lambda x: ((x[0] * x[1] - 1) ** 2) / 2, dim=2)
    >>> loss.gradient([2.0, 1.0])
    array([1., 2.])
    """
    return TorchLoss(function, dim, names, at)
