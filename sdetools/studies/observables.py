"""Observables (test functions h) from expressions, functions and losses.

A point is an array `(dim,)`, many points are an array `(dim, paths)`. Functions of a point also accept the traced values of `sdetools.graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import components, few_paths, on_rows, select, with_outliers
from sdetools.graph.derivatives import gradient
from sdetools.graph.tracing import place_of, trace
from sdetools.graph.value import Trace, Value
from sdetools.losses.base import Loss
from sdetools.losses.graphs import Formula
from sdetools.studies.ranges import Range

STEP = 1e-5
"""The step of central differences for gradients of functions that cannot be traced. The control variate is unbiased for any gradient."""


@dataclass(frozen=True)
class Observable:
    """An observable h with its gradient, as `observable` makes it from a user's specification.

    Attributes:
        name: The name of the observable in results.
        value: The function h. It maps a point `(dim,)` to a number, points `(dim, paths)` to `(paths,)`, and a traced value (a symbol of
            `sdetools.graph` for a point) to a traced value. If there are `parameters`, they are an optional second argument.
        gradient: The gradient of h as a function of the same arguments; its value has the shape of the points.
        identity: A text that identifies the function; an interrupted run is resumed from its file only if this text is the same.
        parameters: The numbers in the formula of h, `(n,)`; empty if they are constants of the function.
        torch_value_stage: The function h on torch tensors `(dim, paths)`; None if h is not given as a torch function.
        latex: The formula of h in LaTeX; empty if unknown.
        range: The range of h (bounds, or finitely many values) that the user stated; None to derive it from the formula.
    """

    name: str
    value: Callable[..., Any]
    gradient: Callable[..., Any]
    identity: str
    parameters: np.ndarray = field(default_factory=lambda: np.empty(0))
    torch_value_stage: Any = None
    latex: str = ""
    range: Range | None = None


@dataclass(frozen=True)
class Bounded:
    """An observable with stated bounds, low <= h(x) <= high for every x, so that its mean has a valid interval for few paths as well.

    It is an element of the argument `observe` of `st.simulate` and `st.weak_gap`. The bounds of expressions, and of functions of plain arithmetic and
    NumPy's elementary functions, are derived from their formulas. State them for other functions only. For values that are 0 or 1 see `Indicator`.

    Args:
        h: The observable: an expression, a function of x with x[i] the i-th coordinate, or a loss.
        low: The lower bound, finite.
        high: The upper bound, finite and above `low`.

    Raises:
        ValueError: If a bound is not finite or `low` is not below `high`; later, when a result is read whose mean lies outside of the bounds.

    Example:
        >>> import numpy as np
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=0.1)
        >>> rule = st.SGD(oracle, st.schedules.constant(eta=0.5))
        >>> ramp = st.Bounded(lambda x: np.interp(x[0], [0.0, 1.0], [0.0, 2.0]), 0.0, 2.0)
        >>> run = st.simulate(rule, [0.0], 1.0, 100, {"ramp": ramp}, backend="numpy")
        >>> run.at("ramp").least, run.at("ramp").most
        (0.0, 2.0)
    """

    h: Any
    low: float
    high: float

    def __post_init__(self) -> None:
        if not _check.number("low", self.low) < _check.number("high", self.high):
            raise ValueError(f"`low` must be below `high`; got low={self.low!r} and high={self.high!r}. Swap them.")

    @property
    def range(self) -> Range:
        """The stated bounds, as a `Range` (bounds and, if there are few, all values of a quantity) without a set of values."""
        return Range(float(self.low), float(self.high))


@dataclass(frozen=True)
class Indicator:
    """An observable whose values are 0 and 1, so that its mean is a probability, with Clopper and Pearson's interval.

    It is an element of the argument `observe` of `st.simulate` and `st.weak_gap`. The values of expressions, and of functions of plain arithmetic and
    NumPy's elementary functions, are derived from their formulas. State them for other functions only. For values between two bounds see `Bounded`.

    Args:
        h: The observable: an expression, a function of x with x[i] the i-th coordinate, or a loss. It may return a condition, such as
            `lambda x: x[0] > 4`.

    Example:
        >>> import numpy as np
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=0.1)
        >>> rule = st.SGD(oracle, st.schedules.constant(eta=0.5))
        >>> far = st.Indicator(lambda x: np.searchsorted([4.0], x[0]))  # 1 above 4, 0 up to there
        >>> st.simulate(rule, [0.0], 1.0, 100, {"far": far}, backend="numpy").at("far")
        E[far] at t=1 = 0 in [0, 0.03622] (95 %, 100 paths)
    """

    h: Any

    @property
    def range(self) -> Range:
        """The set of values {0, 1}, as a `Range` (bounds and, if there are few, all values of a quantity)."""
        return Range.of((0, 1))


def observable(spec: Any, space: Any, name: str = "") -> Observable:
    """Return the `Observable` of a user's specification, after an evaluation at two test points.

    A function that returns a condition becomes the indicator function of the condition, with values 0 and 1. A function that fails on
    points `(dim, paths)`, or mixes their columns, is called once for each path.

    Args:
        spec: An expression, a loss, a function h(x), an object with a method `value(x)` (and perhaps `gradient(x)`), or a `Bounded` or `Indicator`
            of these. An `Observable` is returned as it is.
        space: A dynamics or a loss, whose `names` and `dim` define the coordinates.
        name: The name in results; if empty, the expression, the label of the loss, or the name of the function. An `Observable` keeps its own.

    Raises:
        ValueError: If an expression has an unknown name, `spec` is not an observable, or its value is not one real number for each path.

    Example:
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
        from sdetools.losses.parser import parse

        names = " ".join(space.names)
        if not spec.strip():
            raise ValueError(
                f"`observe` must contain formulas in the coordinates {names}; got an empty one. Write '{space.names[0]}**2'."
            )
        parse(spec, space.names, (), "observe", f"The loss has the variables {names}; write these, and constants as numbers.")
        found: Any = from_expression(spec, variables=space.names)
        made = Observable(name or found.label, found.value, found.gradient, found.identity, found.parameters, latex=found.latex)
    elif isinstance(spec, Loss):
        if spec.dim != space.dim:
            raise ValueError(
                f"`observe` must contain functions of {space.dim} coordinates; got the loss {spec.label} with {spec.dim}."
            )
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
        gradient = getattr(spec, "gradient", None) or _Gradient(spec.value)
        made = Observable(label, spec.value, gradient, getattr(spec, "identity", repr(spec)))
    elif callable(spec):
        from sdetools._identity import function_identity

        _check.function("observe", spec, ["x"], "Write for example lambda x: x[0]**2.")
        made = Observable(name or getattr(spec, "__name__", "h"), spec, _Gradient(spec), function_identity(spec))
    else:
        raise ValueError(
            f"`observe` must contain expressions, functions of x, or losses; got {_check.shown(spec)}. Write it like '{space.names[0]}**2'."
        )
    if callable(spec) and not isinstance(spec, Loss):
        points = np.random.default_rng(0).uniform(0.2, 0.8, (space.dim, few_paths(space.dim)))
        made = replace(made, value=on_rows(made.value, *([x] for x in with_outliers(points))))
    try:
        with np.errstate(all="ignore"):
            probe = np.asarray(made.value(np.full((space.dim, 2), 0.5)))
    except Exception as error:
        if (place := place_of(error)) and not getattr(error, "__notes__", None):
            error.add_note(f"It was raised by the observable {made.name} at a point of {space.dim} coordinates, {place}.")
        raise
    shape = probe.shape
    if probe.dtype == bool:
        indicator = _IndicatorOf(made.value)
        made = replace(made, value=indicator, gradient=_Gradient(indicator), range=Range.of((0, 1)))
    if shape not in ((2,), ()) or probe.dtype.kind not in "fiub":
        result = f"shape {shape}" if shape not in ((2,), ()) else f"{probe.flat[0]!r:.40}"
        raise ValueError(f"`observe` must give one real number a path, shape (paths,); {made.name} gave {result} for 2 paths.")
    return made


def observables(specs: Any, space: Any) -> tuple[Observable, ...]:
    """Return the observables of a user's specification as a tuple, in the given order.

    Args:
        specs: A specification that `observable` accepts, a list of these, or a dict from names to these; an empty list gives an empty tuple.
        space: A dynamics or a loss, whose `names` and `dim` define the coordinates.

    Raises:
        ValueError: If `specs` is something else, two observables have the same name, or one of them is refused by `observable`.
    """
    if isinstance(specs, (str, Loss, Bounded, Indicator)) or callable(specs) or hasattr(specs, "value"):
        specs = [specs]
    if isinstance(specs, Mapping):
        made = tuple(observable(spec, space, name) for name, spec in specs.items())
    elif isinstance(specs, Sequence):
        made = tuple(observable(spec, space) for spec in specs)
    else:
        raise ValueError(
            f"`observe` must be an expression, a list of them, or a dict name -> observable; got {_check.shown(specs)}."
        )
    names = [o.name for o in made]
    for name in (*(specs if isinstance(specs, Mapping) else ()), *names):
        if not isinstance(name, str) or "\0" in name or not _encodable(name):
            raise ValueError(
                f"`observe` must name observables by text that a file can contain; got the name {_check.shown(name)}."
            )
    if len(set(names)) < len(names):
        raise ValueError(f"`observe` must name each observable once; got {', '.join(names)}. Pass a dict name -> observable.")
    return made


def _encodable(name: str) -> bool:
    """Return whether a text can be written in UTF-8, which half of a surrogate pair cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def column(names: tuple[str, ...], observable: str | int) -> int:
    """Return the index of an observable in `names`, from 0 to len(names) - 1; ValueError if there is none.

    Args:
        names: The names of the observables and functionals of a result.
        observable: A name, or an index; a negative index counts from the end.
    """
    if isinstance(observable, str):
        if observable not in names:
            meant = _check.suggestion(observable, names, "Name it in `observe`.")
            raise ValueError(f"`observable` must be one of {', '.join(map(repr, names))}; got {observable!r}. {meant}")
        return names.index(observable)
    if isinstance(observable, (bool, float)) or observable not in range(-len(names), len(names)):
        raise ValueError(f"`observable` must be a name or an index below {len(names)}; got {observable!r}.")
    return range(len(names))[observable]


@dataclass(frozen=True)
class _Gradient:
    """The gradient of a function h(x): derived from its formula if the function can be traced, otherwise by central differences.

    It is called with a point `(dim,)`, points `(dim, paths)` or a traced value, and returns the gradient in the same shape.

    Args:
        value: The function h.
    """

    value: Callable[[Any], Any]

    def __call__(self, x: Any) -> Any:
        formula = self._formula(len(x))
        if isinstance(x, Value):
            return gradient(self.value(x), x) if formula is None else formula.of(x)
        if formula is None:
            return self._differences(x)
        return formula(x) if x.ndim > 1 else formula(x[:, None])[:, 0]

    def _formula(self, dim: int) -> Formula | None:
        """Return the traced gradient of h for points of `dim` coordinates; None if the function cannot be traced."""
        if dim not in self._formulas:
            x = Trace().input("x", (dim,))
            try:
                self._formulas[dim] = Formula(gradient(trace(self.value, "the observable", x), x), x)
            except Exception:  # any failure on traced values: evaluate it at points instead
                self._formulas[dim] = None
        return self._formulas[dim]

    @cached_property
    def _formulas(self) -> dict[int, Formula | None]:
        """A dict of the return values of `_formula` so far, by the number of coordinates."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {"value": self.value}

    def _differences(self, x: Any) -> np.ndarray:
        """Return the gradient at `x` by central differences with `STEP`, in the shape of `x`: `(dim,)` or `(dim, paths)`."""
        out = []
        for i in range(len(x)):
            up, down = np.array(x, copy=True), np.array(x, copy=True)
            up[i], down[i] = x[i] + STEP, x[i] - STEP
            out.append((self.value(up) - self.value(down)) * (0.5 / STEP))
        return components(out, x)


@dataclass(frozen=True)
class _IndicatorOf:
    """The indicator function of a condition: 1 where it holds, 0 elsewhere.

    Args:
        condition: A function of a point that returns True or False for each path.
    """

    condition: Callable[[Any], Any]

    def __call__(self, x: Any) -> Any:
        return select(self.condition(x), 1.0, 0.0)
