"""Additive functionals of the whole path, sums over its steps, for the argument `functionals` of simulations.

A functional has a `name` and a method `increment(before, after)`: the term of one step from the position x_k = `before` to x_{k+1} = `after`. It is 0 at
the start, and recorded at the same times as observables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.base import Loss


class PathLength:
    """The length of the path up to each recorded step n, sum_{k<n} |x_{k+1} - x_k|_2, for the argument `functionals` of `st.simulate` and `st.weak_gap`.

    Its name in results is "path length".

    Example:
        >>> import numpy as np
        >>> import sdetools as st
        >>> st.PathLength().increment(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
        np.float64(5.0)
    """

    name = "path length"

    def increment(self, before: Any, after: Any) -> Any:
        """Return the length of one step, |after - before|_2: a number for positions `(dim,)`, `(paths,)` for positions `(dim, paths)`."""
        step = after - before
        return np.sqrt(np.sum(step * step, axis=0))


@dataclass(frozen=True)
class LossVariation:
    """The total variation of a loss along the path up to each recorded step n, sum_{k<n} |L(x_{k+1}) - L(x_k)|.

    It is an element of the argument `functionals` of `st.simulate` and `st.weak_gap`. Results have its mean over paths at each recorded time, in a
    column named "loss variation".

    Args:
        loss: The loss L, an object of `st.losses` with as many coordinates as the dynamics; usually the one that the dynamics minimises.

    Raises:
        ValueError: If `loss` is not a loss.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.none(dim=1))
        >>> rule = st.SGD(oracle, st.schedules.constant(eta=0.5))
        >>> run = st.simulate(rule, [1.0], 1.0, 10, functionals=st.LossVariation(oracle.loss), backend="numpy")
        >>> run.data["mean"].sel(observable="loss variation").values.tolist()  # L falls from 1/2 to 1/8 to 1/32
        [0.0, 0.375, 0.46875]
    """

    loss: Loss

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss):
            raise ValueError(f"`loss` must be a loss of `sdetools.losses`; got {_check.shown(self.loss)}. Pass oracle.loss.")

    @property
    def name(self) -> str:
        """The name of the functional in results: "loss variation"."""
        return "loss variation"

    @property
    def identity(self) -> str:
        """A text that identifies the functional, its loss and the loss's numbers; a run is resumed from its file only if this text is the same."""
        return f"loss variation of {self.loss.identity} {self.loss.parameters.tolist()}"

    def increment(self, before: Any, after: Any) -> Any:
        """Return |L(after) - L(before)| of one step: a number for positions `(dim,)`, an array `(paths,)` for positions `(dim, paths)`."""
        return abs(self.loss.value(after) - self.loss.value(before))


@dataclass(frozen=True)
class SquaredIncrements:
    """The quadratic variation of one coordinate up to each recorded step n, sum_{k<n} (x_{k+1,i} - x_{k,i})^2.

    It is an element of the argument `functionals` of `st.simulate` and `st.weak_gap`; its name in results is such as "squared increments of x0".

    Args:
        coordinate: The index i of the coordinate, from 0 to dim - 1; a simulation raises ValueError for another one.

    Example:
        >>> import numpy as np
        >>> import sdetools as st
        >>> st.SquaredIncrements(1).increment(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
        np.float64(16.0)
    """

    coordinate: int = 0

    @property
    def name(self) -> str:
        """The name of the functional in results, such as "squared increments of x0"."""
        return f"squared increments of x{self.coordinate}"

    def increment(self, before: Any, after: Any) -> Any:
        """Return (after_i - before_i)^2 of one step, i = `coordinate`: a number for positions `(dim,)`, `(paths,)` for positions `(dim, paths)`."""
        step = after[self.coordinate] - before[self.coordinate]
        return step * step


@dataclass(frozen=True)
class Accumulate:
    """An additive functional of the path with a function of your own, sum_{k<n} f(x_k, x_{k+1}) up to each recorded step n.

    It is an element of the argument `functionals` of `st.simulate` and `st.weak_gap`.

    Args:
        name: The name of the functional in results.
        function: The function f(before, after) of the positions before and after a step, `(dim,)` or `(dim, paths)` each. It returns one number for
            each path. It is plain arithmetic with NumPy functions, without `if` on its arguments.

    Raises:
        ValueError: If `name` is not a text or is empty, or `function` does not take two arguments.

    Example:
        >>> import numpy as np
        >>> import sdetools as st
        >>> climbs = st.Accumulate("climb of x0", lambda before, after: np.maximum(after[0] - before[0], 0.0))
        >>> climbs.increment(np.array([[1.0, 2.0]]), np.array([[1.5, 0.0]])).tolist()
        [0.5, 0.0]
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
        """Return f(before, after) of one step, f = `function`: a number for positions `(dim,)`, `(paths,)` for positions `(dim, paths)`."""
        return self.function(before, after)
