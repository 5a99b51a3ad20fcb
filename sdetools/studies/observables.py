"""Test functions h: expressions, functions, losses; and additive functionals of the whole path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import components, few_paths, on_rows, select, with_outliers
from sdetools.graph.derivatives import gradient
from sdetools.graph.tracing import trace
from sdetools.graph.value import Trace, Value
from sdetools.losses.base import Loss
from sdetools.losses.graphs import Formula
from sdetools.studies.ranges import Range

STEP = 1e-5
"""Step of the central differences that give a function's gradient to the control variate (which is unbiased whatever they give)."""


@dataclass(frozen=True)
class Observable:
    """h with its gradient, for kernels and for people: `value(x)` and `gradient(x)` on component-first arrays or traced values."""

    name: str
    value: Callable[..., Any]
    gradient: Callable[..., Any]
    identity: str
    parameters: np.ndarray = field(default_factory=lambda: np.empty(0))
    torch_value_stage: Any = None
    latex: str = ""
    range: Range | None = None
    """What h(x) can be at any point, where its user says so; else it is read from the formula."""


@dataclass(frozen=True)
class Bounded:
    """An observable with bounds that its user knows: low <= h(x) <= high at every x. Means of it have intervals at small counts too.

    `h` is whatever can be observed. Expressions and traced functions show their bounds themselves; this is for those that do not.
    ValueError unless low < high are finite, and for a mean outside of them. Near-twin: `Indicator`, for values 0 and 1 alone.

    >>> from sdetools.losses import from_expression
    >>> observable(Bounded(lambda x: np.interp(x[0], [0.0, 1.0], [0.0, 2.0]), 0, 2), from_expression("x**2")).range
    Range(low=0.0, high=2.0, values=None)
    """

    h: Any
    low: float
    high: float

    def __post_init__(self) -> None:
        if not _check.number("low", self.low) < _check.number("high", self.high):
            raise ValueError(f"`low` must be below `high`; got low={self.low!r} and high={self.high!r}. Swap them.")

    @property
    def range(self) -> Range:
        return Range(float(self.low), float(self.high))


@dataclass(frozen=True)
class Indicator:
    """An observable whose values are 0 and 1, as its user knows: its mean is a probability, with Clopper and Pearson's interval.

    `h` may be a function that returns a condition, such as `lambda x: x[0] > 4`. Expressions and traced functions show their values
    themselves; this is for those that do not. Near-twin: `Bounded`, for anything between two bounds.

    >>> from sdetools.losses import from_expression
    >>> observable(Indicator(lambda x: np.where(x[0] > 4, 1.0, 0.0)), from_expression("x**2")).range.values
    frozenset({0.0, 1.0})
    """

    h: Any

    @property
    def range(self) -> Range:
        return Range.of((0, 1))


def observable(spec: Any, space: Any, name: str = "") -> Observable:
    """An observable from an expression in the coordinates of `space` (a dynamics or a loss: `names`, `dim`), a loss, a function h(x), or an object with `value(x)`.

    ValueError for an unknown name in an expression, for anything else that is not an observable, and for a value that is not one number a path.

    >>> from sdetools.losses import from_expression
    >>> observable("x**2 + y**2", from_expression("x*y", variables="x y")).value(np.array([3.0, 4.0]))
    np.float64(25.0)
    """
    if isinstance(spec, Observable):
        return spec
    if isinstance(spec, (Bounded, Indicator)):
        return replace(observable(spec.h, space, name), range=spec.range)
    if isinstance(spec, str):
        from sdetools.losses.expression import from_expression

        found: Any = from_expression(spec, variables=space.names)
        made = Observable(name or found.label, found.value, found.gradient, found.identity, found.parameters, latex=found.latex)
    elif isinstance(spec, Loss):
        if spec.dim != space.dim:
            raise ValueError(f"an observable must take {space.dim} coordinates; got the loss {spec.label} with {spec.dim}.")
        made = Observable(
            name or spec.label,
            spec.value,
            spec.gradient,
            spec.identity,
            spec.parameters,
            spec.torch_value_stage,
            spec.latex,
        )
    elif callable(getattr(spec, "value", None)):
        label = name or getattr(spec, "name", "") or repr(spec)
        gradient = getattr(spec, "gradient", None) or _Slope(spec.value)
        made = Observable(label, spec.value, gradient, getattr(spec, "identity", repr(spec)))
    elif callable(spec):
        from sdetools._identity import function_identity

        made = Observable(name or getattr(spec, "__name__", "h"), spec, _Slope(spec), function_identity(spec))
    else:
        raise ValueError(f"an observable must be an expression, a function of x, or a loss; got {spec!r}. Write it like 'x**2'.")
    if callable(spec) and not isinstance(spec, Loss):
        points = np.random.default_rng(0).uniform(0.2, 0.8, (space.dim, few_paths(space.dim)))
        made = replace(made, value=on_rows(made.value, *([x] for x in with_outliers(points))))
    with np.errstate(all="ignore"):
        probe = np.asarray(made.value(np.full((space.dim, 2), 0.5)))
    shape = probe.shape
    if probe.dtype == bool:
        chosen = _Chosen(made.value)
        made = replace(made, value=chosen, gradient=_Slope(chosen), range=Range.of((0, 1)))
    if shape not in ((2,), ()) or probe.dtype.kind not in "fiub":
        told = f"shape {shape}" if shape not in ((2,), ()) else f"{probe.flat[0]!r:.40}"
        raise ValueError(
            f"the observable {made.name} must give one real number a path, shape (paths,); for 2 paths it gave {told}."
        )
    return made


def observables(specs: Any, space: Any) -> tuple[Observable, ...]:
    """Observables from one spec, a list, or a dict of names; names must differ."""
    if isinstance(specs, (str, Loss, Bounded, Indicator)) or callable(specs) or hasattr(specs, "value"):
        specs = [specs]
    if isinstance(specs, Mapping):
        made = tuple(observable(spec, space, name) for name, spec in specs.items())
    elif isinstance(specs, Sequence):
        made = tuple(observable(spec, space) for spec in specs)
    else:
        raise ValueError(f"`observe` must be an expression, a list of them, or a dict name -> observable; got {specs!r}.")
    names = [o.name for o in made]
    if len(set(names)) < len(names):
        raise ValueError(f"`observe` must name each observable once; got {', '.join(names)}. Pass a dict with names of your own.")
    return made


def column(names: tuple[str, ...], observable: str | int) -> int:
    """The column of an observable that is asked for by its name or its index."""
    if isinstance(observable, str):
        if observable not in names:
            raise ValueError(f"`observable` must be one of {', '.join(map(repr, names))}; got {observable!r}.")
        return names.index(observable)
    if observable not in range(-len(names), len(names)):
        raise ValueError(f"`observable` must be a name or an index below {len(names)}; got {observable!r}.")
    return range(len(names))[observable]


@dataclass(frozen=True)
class _Slope:
    """The gradient of a function: from its graph, or by central differences where it does not trace."""

    value: Callable[[Any], Any]

    def __call__(self, x: Any) -> Any:
        formula = self._formula(len(x))
        if isinstance(x, Value):
            return gradient(self.value(x), x) if formula is None else formula.of(x)
        if formula is None:
            return self._differences(x)
        return formula(x) if x.ndim > 1 else formula(x[:, None])[:, 0]

    def _formula(self, dim: int) -> Formula | None:
        if dim not in self._formulas:
            x = Trace().input("x", (dim,))
            try:
                self._formulas[dim] = Formula(gradient(trace(self.value, "the observable", x), x), x)
            except Exception:  # whatever it does on values, it is asked at points then
                self._formulas[dim] = None
        return self._formulas[dim]

    @cached_property
    def _formulas(self) -> dict[int, Formula | None]:
        """By the number of coordinates, so that each is traced once."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {"value": self.value}

    def _differences(self, x: Any) -> np.ndarray:
        out = []
        for i in range(len(x)):
            up, down = np.array(x, copy=True), np.array(x, copy=True)
            up[i], down[i] = x[i] + STEP, x[i] - STEP
            out.append((self.value(up) - self.value(down)) * (0.5 / STEP))
        return components(out, x)


@dataclass(frozen=True)
class _Chosen:
    """1 where a condition holds, else 0."""

    condition: Callable[[Any], Any]

    def __call__(self, x: Any) -> Any:
        return select(self.condition(x), 1.0, 0.0)


class PathLength:
    """sum_k |x_{k+1} - x_k|_2, the length of the path so far.

    >>> PathLength().increment(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
    np.float64(5.0)
    """

    name = "path length"

    def increment(self, before: Any, after: Any) -> Any:
        step = after - before
        return np.sqrt(np.sum(step * step, axis=0))


@dataclass(frozen=True)
class LossVariation:
    """sum_k |L(x_{k+1}) - L(x_k)|, the variation of a loss along the path so far."""

    loss: Loss

    @property
    def name(self) -> str:
        return "loss variation"

    @property
    def identity(self) -> str:
        return f"loss variation of {self.loss.identity} {self.loss.parameters.tolist()}"

    def increment(self, before: Any, after: Any) -> Any:
        return abs(self.loss.value(after) - self.loss.value(before))


@dataclass(frozen=True)
class SquaredIncrements:
    """sum_k (x_{k+1,i} - x_{k,i})^2 of coordinate `coordinate`: the quadratic variation so far.

    >>> SquaredIncrements(1).increment(np.array([0.0, 0.0]), np.array([3.0, 4.0]))
    np.float64(16.0)
    """

    coordinate: int = 0

    @property
    def name(self) -> str:
        return f"squared increments of x{self.coordinate}"

    def increment(self, before: Any, after: Any) -> Any:
        step = after[self.coordinate] - before[self.coordinate]
        return step * step


@dataclass(frozen=True)
class Accumulate:
    """sum_k f(x_k, x_{k+1}) for a function f of two points, written in plain arithmetic."""

    name: str
    function: Callable[[Any, Any], Any]

    @property
    def identity(self) -> str:
        from sdetools._identity import function_identity

        return function_identity(self.function)

    def increment(self, before: Any, after: Any) -> Any:
        return self.function(before, after)
