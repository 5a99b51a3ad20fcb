"""Additive functionals of the whole path, sums over its steps, for the argument `functionals` of simulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.base import Loss


class PathLength:
    """The length of the path up to each recorded step, sum_k |x_{k+1} - x_k|_2, for `functionals=`.

    Example:
        >>> PathLength().increment(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
        np.float64(5.0)
    """

    name = "path length"

    def increment(self, before: Any, after: Any) -> Any:
        """Return the length of one step, |after - before|_2: a number for points `(dim,)`, `(paths,)` for points `(dim, paths)`."""
        step = after - before
        return np.sqrt(np.sum(step * step, axis=0))


@dataclass(frozen=True)
class LossVariation:
    """The total variation of a loss along the path up to each recorded step, sum_k |L(x_{k+1}) - L(x_k)|, for `functionals=`.

    Args:
        loss: The loss L.
    """

    loss: Loss

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss):
            raise ValueError(f"`loss` must be a loss of `sdetools.losses`; got {_check.shown(self.loss)}. Pass oracle.loss.")

    @property
    def name(self) -> str:
        """The name of the functional in results, "loss variation"."""
        return "loss variation"

    @property
    def identity(self) -> str:
        """A text that identifies the functional and its loss; an interrupted run is resumed from its file only if this text is the same."""
        return f"loss variation of {self.loss.identity} {self.loss.parameters.tolist()}"

    def increment(self, before: Any, after: Any) -> Any:
        """Return |L(after) - L(before)| of one step, L = `loss`: a number for points `(dim,)`, `(paths,)` for points `(dim, paths)`."""
        return abs(self.loss.value(after) - self.loss.value(before))


@dataclass(frozen=True)
class SquaredIncrements:
    """The quadratic variation of one coordinate up to each recorded step, sum_k (x_{k+1,i} - x_{k,i})^2, for `functionals=`.

    Args:
        coordinate: The index i of the coordinate, from 0.

    Example:
        >>> SquaredIncrements(1).increment(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
        np.float64(16.0)
    """

    coordinate: int = 0

    @property
    def name(self) -> str:
        """The name of the functional in results, such as "squared increments of x0"."""
        return f"squared increments of x{self.coordinate}"

    def increment(self, before: Any, after: Any) -> Any:
        """Return (after_i - before_i)^2 of one step, i = `coordinate`: a number for points `(dim,)`, `(paths,)` for points `(dim, paths)`."""
        step = after[self.coordinate] - before[self.coordinate]
        return step * step


@dataclass(frozen=True)
class Accumulate:
    """An additive functional of the path with a function of your own, sum_k f(x_k, x_{k+1}) up to each recorded step, for `functionals=`.

    Args:
        name: The name of the functional in results.
        function: The function f of the points before and after a step, `(dim,)` or `(dim, paths)` each. It returns one number for each path.
            It is plain arithmetic with NumPy functions, without `if` on its arguments.
    """

    name: str
    function: Callable[[Any, Any], Any]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(
                f"`name` must be a text, the name in results; got {_check.shown(self.name)}. Write for example 'crossings'."
            )
        _check.function("function", self.function, ["before", "after"])

    @property
    def identity(self) -> str:
        """A text that identifies the function f by its code; an interrupted run is resumed from its file only if this text is the same."""
        from sdetools._identity import function_identity

        return function_identity(self.function)

    def increment(self, before: Any, after: Any) -> Any:
        """Return f(before, after) of one step, f = `function`: a number for points `(dim,)`, `(paths,)` for points `(dim, paths)`."""
        return self.function(before, after)
