"""The condition under which a path leaves a set, with a boundary that is shifted for the time between steps, and the time that it spends inside."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import select
from sdetools.dynamics.base import Moving
from sdetools.dynamics.integrators.base import Integrator
from sdetools.losses.parser import parse
from sdetools.studies.observables import Observable, observable
from sdetools.studies.ranges import Range, range_of_observable

OVERSHOOT = 0.5825971579390107
"""-zeta(1/2) / sqrt(2 pi), the mean overshoot of a normal random walk over a distant boundary, in standard deviations of a step."""
OUTSIDE, TIME = "outside", "time inside"


@dataclass(frozen=True)
class Outside:
    """The condition g(x) > -shift |b(x)^T grad g(x)|: the path is outside.

    Attributes:
        level: The function g, positive outside.
        sde: The SDE whose diffusion is b; None for a shift of 0.
        shift: The factor of the shift, 0.5826 sqrt(dt); 0 for none.

    It is called with a point `(dim,)` or points `(dim, paths)`, and returns a boolean or an array of booleans `(paths,)`.
    """

    level: Observable
    sde: Any = None
    shift: float = 0.0

    def __call__(self, x: Any) -> Any:
        g = self.level.value(x)
        if not self.shift:
            return g > 0.0
        slope, squares = self.level.gradient(x), 0.0
        for j in range(self.sde.noise_dim):
            column = self.sde.diffusion(x, [float(i == j) for i in range(self.sde.noise_dim)])
            along = np.sum(slope * column, axis=0)
            squares = squares + along * along
        return g + self.shift * np.sqrt(squares) > 0.0

    @property
    def identity(self) -> str:
        """A text that identifies the condition and its numbers; a run is resumed from its file only if this text is the same."""
        numbers = [] if self.sde is None else self.sde.parameters.tolist()
        own = self.level.identity, self.level.parameters.tolist()
        return f"outside {own} shift {self.shift!r} {getattr(self.sde, 'identity', '')} {numbers}"


@dataclass(frozen=True)
class TimeInside:
    """The functional min(tau, t), tau the exit time and t the recorded one: the time of the steps that began inside. It is NaN for a diverged path.

    Attributes:
        outside: The observable that is 1 outside, 0 inside.
        step_time: The time of one step.
    """

    outside: Observable
    step_time: float

    name = TIME

    @property
    def identity(self) -> str:
        """A text that identifies the functional; a run is resumed from its file only if this text is the same."""
        return f"{self.name} {self.outside.identity} {self.step_time!r}"

    def increment(self, before: Any, after: Any) -> Any:
        """Return the time of one step if `before` is inside, else 0: a number for points `(dim,)`, `(paths,)` for points `(dim, paths)`."""
        return select(self.outside.value(before) > 0.0, 0.0, self.step_time) + np.sum(after * 0.0, axis=0)


def outside_of(leaves: Any, dynamics: Moving, corrected: bool) -> Outside:
    """Return the condition of a point outside, a function of x.

    Args:
        leaves: A comparison as text, such as "x > 1"; an expression or a function g of x that is positive outside; or a function of x that returns a
            condition.
        dynamics: The dynamics; for `corrected` an integrator with normal draws, whose SDE has one part and coefficients without time.
        corrected: Whether the boundary is shifted inwards by 0.5826 sqrt(dt) |b^T grad g| / |grad g|, b the diffusion.

    Raises:
        ValueError: If `leaves` is none of these, or the boundary cannot be shifted.
    """
    if not isinstance(leaves, str):
        if not (callable(leaves) or hasattr(leaves, "value")):
            raise ValueError(f"`leaves` must be a comparison such as 'x > 1' or a function of x; got {_check.shown(leaves)}.")
        level = observable(leaves, dynamics, OUTSIDE)
    else:
        names = " ".join(dynamics.names)
        parse(leaves, dynamics.names, (), "leaves", f"The loss has the variables {names}; write these, and constants as numbers.")
        level = observable(_level(leaves), dynamics, OUTSIDE)
        if range_of_observable(level, dynamics.dim) == Range.of((0, 1)):
            level = replace(level, range=Range.of((0, 1)))
    if level.range is not None and level.range == Range.of((0, 1)):
        if corrected:
            raise ValueError(
                "`leaves` must be a function g that is positive outside for corrected=True; got a condition, which has no gradient. Write for "
                "example 'x - 1' for x > 1."
            )
        return Outside(level)
    if not corrected:
        return Outside(level)
    if not isinstance(dynamics, Integrator) or dynamics.law != "normal":
        raise ValueError(
            f"`corrected` must be False for {dynamics.name}, which has no SDE with normal draws; its exits at steps are its own. Omit it."
        )
    if len(dynamics.parts) != 1 or dynamics.sde.signals or not dynamics.sde.noise_dim:
        raise ValueError(
            f"`corrected` must be False for {dynamics.sde!r}, which has several parts, no noise, or coefficients that depend on time. Take a "
            "smaller dt, and extrapolate in sqrt(dt)."
        )
    return Outside(level, dynamics.sde, OVERSHOOT * math.sqrt(dynamics.step_time))


def _level(text: str) -> str:
    """Return the expression g that is positive where a comparison holds, such as "(x) - (1)" for "x > 1"; another expression unchanged.

    The condition of ">=", "<=", "==" and several comparisons remains a condition, an expression with values 0 and 1: g > 0 is not the same
    where a path may lie on the boundary.
    """
    tree = ast.parse(text.strip(), mode="eval").body
    if not isinstance(tree, ast.Compare) or len(tree.ops) > 1 or not isinstance(tree.ops[0], (ast.Gt, ast.Lt)):
        return text
    left, right = ast.unparse(tree.left), ast.unparse(tree.comparators[0])
    return f"({left}) - ({right})" if isinstance(tree.ops[0], ast.Gt) else f"({right}) - ({left})"
