r"""Stochastic differential equations as objects: drift, root times draw, class of noise, calculus.

    dX = a(X, t) dt + b(X, t) dW,        X of `dim` coordinates (or several parts of them), W of `noise_dim` Brownian motions.

An SDE does not move by itself: an integrator (`dynamics.integrators`) makes a dynamics of it. For implementers of a new SDE:

1. `drift(y, p, s)` and `diffusion(y, u, p, s) = b(y) u` are plain branch-free arithmetic on component-first arrays, on rows of paths or
   on traced values; `y` holds all parts one after another, and so does what they return.
2. Numbers are read from `p` (`parameters`), numbers that move with time from `s`: `signals` says how many there are, and
   `signal_values(start, fraction, h)` gives them at start + fraction h for steps that begin at `start`.
3. `noise_class` is the smallest class that is proven: none, additive, scalar, diagonal, commutative, general (see `sdes.classes`).
4. The noise enters as the gradient's noise does: an optimiser's limit has drift -grad L and diffusion -R, so that shared draws couple.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from sdetools import _check
from sdetools._arrays import components, numeric
from sdetools._identity import function_identity
from sdetools.dynamics.sdes.classes import classify
from sdetools.noise.roots import Root, make_root
from sdetools.noise.texts import holds_text, named_numbers, used_numbers, variable_names

CALCULI = ("ito", "stratonovich")
TIME = "t"
AS_VECTOR = {
    "rows of equal length, one row a coordinate": "components, one a coordinate",
    "nested sequences: [[r00, r01], [r10, r11]]": "a list such as [-x[0], -x[1]]",
    "nested sequences": "a list such as [-x[0], -x[1]]",
    " rows; calling": " components; calling",
    " rows of 1. ": ". ",
}
"""What an error of a matrix says of a vector."""


class SDE:
    r"""dX = a(X, t) dt + b(X, t) dW, from formulas, functions or constant matrices.

    `drift`: one expression a coordinate, or a function `drift(x)` or `drift(x, t)` that returns `dim` components. `diffusion`: rows of
    `noise_dim` expressions (a plain list is a diagonal), a constant matrix, a function `diffusion(x)` or `diffusion(x, t)` that returns
    rows, or None. Expressions may use `t` and the named numbers in `parameters`. `calculus`: "ito" or "stratonovich". `noise`: the class
    of the noise; by default the formula decides, and a diffusion without one (a compiled function, one that branches) counts as general.
    A class that is declared for such a diffusion, or "commutative" for one with kinks, is checked at points of many sizes and near `at`,
    and again along every run, on the NumPy backend. ValueError for shapes that do not fit, unknown names, values that are not finite, and
    a class that b does not have.

    >>> import numpy as np
    >>> bm = SDE(drift=["mu*x"], diffusion=["s*x"], variables="x", parameters={"mu": 0.5, "s": 0.2})
    >>> bm.noise_class, bm.drift(np.array([2.0])), bm.diffusion(np.array([2.0]), [1.0])
    ('scalar', array([1.]), array([0.4]))
    """

    parts: ClassVar[tuple[str, ...]] = ("x",)
    dim: int
    noise_dim: int
    names: tuple[str, ...]
    loss: Any = None
    """The loss behind the equation, where there is one."""
    calculus: str = "ito"
    noise_class: str
    parameters: np.ndarray
    signals: int = 0
    presumed: bool = False
    """Whether the class of the noise is declared and not proven, so that runs check it."""
    identity: str
    latex: str = r"\mathrm d X = a\,\mathrm d t + b\,\mathrm d W"

    def __init__(
        self,
        drift: Any,
        diffusion: Any = None,
        variables: str | Sequence[str] | None = None,
        *,
        dim: int | None = None,
        parameters: Mapping[str, float] | None = None,
        calculus: str = "ito",
        noise: str | None = None,
        at: Any = None,
    ) -> None:
        if calculus not in CALCULI:
            raise ValueError(f"`calculus` must be one of {', '.join(CALCULI)}; got {calculus!r}.")
        self.calculus = calculus
        self._drift = _field("drift", drift, dim, variables, parameters, at, vector=True)
        self.dim = self._drift.root.dim
        variables = self._drift.root.names if variables is None else variables
        self._diffusion = None
        if diffusion is not None:
            self._diffusion = _field("diffusion", diffusion, self.dim, variables, parameters, at, vector=False)
        self.noise_dim = self._diffusion.root.rank if self._diffusion is not None else 0
        fields = [f for f in (self._drift, self._diffusion) if f is not None]
        names = next((f.root.names for f in fields if f.root.names is not None), None)
        if names is None and variables is not None:
            names = variable_names((), variables, {})
            if len(names) != self.dim:
                raise ValueError(f"`variables` must name the {self.dim} coordinates of the drift; got {' '.join(names)}.")
        self.names = names or tuple(f"x{i}" for i in range(self.dim))
        self.parameters = np.concatenate([f.root.parameters for f in fields])
        self.signals = int(any(f.timed for f in fields))
        self.identity = f"sde {calculus} " + " | ".join(f.root.identity for f in fields)
        self.noise_class = classify(self, noise, at)

    @property
    def constant_noise(self) -> bool:
        """Whether b is a matrix of numbers."""
        field = getattr(self, "_diffusion", None)
        return field is not None and field.root.constant and not field.timed

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """The numbers that move with time at start + fraction h, `(steps, signals)`: here t itself, if it is asked for."""
        return (np.asarray(start) + fraction * h)[:, None][:, : self.signals]

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        """a(y): the shape of `y`."""
        p = self.parameters if p is None else p
        own = p[: len(self._drift.root.parameters)]
        return components([row[0] for row in self._drift.rows(y, own, s)], y)

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        """b(y) u for `noise_dim` numbers or rows `u`: the shape of `y`."""
        p = self.parameters if p is None else p
        if self._diffusion is None:
            return components([0.0] * self.dim, y)
        return components(self._diffusion.times(u, y, p[len(self._drift.root.parameters) :], s), y)

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        """The numbers that `start` reads beside x0."""
        return ()

    def start(self, x0: np.ndarray) -> tuple[np.ndarray, ...]:
        """The parts of the state at time 0, from `x0` `(dim,)`, `(dim, paths)` or traced."""
        return (numeric(x0),)

    @property
    def starts_from_law(self) -> bool:
        """Whether `start` is plain arithmetic on x0."""
        return True

    def settle(self, y: Any, p: Any) -> Any:
        """The end of a step, brought back to where the solution lives: here everywhere."""
        return y

    def __repr__(self) -> str:
        motions = f"{self.noise_dim} Brownian motion{'s' * (self.noise_dim != 1)}"
        return f"{type(self).__name__}(dim={self.dim}, {motions}, {self.noise_class} noise, {self.calculus})"


@dataclass(frozen=True)
class _Field:
    """A drift or a diffusion: a root, and where the time stands among its numbers."""

    root: Root
    place: int | None = None

    @property
    def timed(self) -> bool:
        return self.place is not None

    def rows(self, y: Any, p: Any, s: Sequence[Any]) -> Sequence[Sequence[Any]]:
        return self.root.entries(y, self._at_time(p, s))

    def times(self, u: Sequence[Any], y: Any, p: Any, s: Sequence[Any]) -> list[Any]:
        return self.root.times(u, y, self._at_time(p, s))

    def _at_time(self, p: Any, s: Sequence[Any]) -> Any:
        if self.place is None:
            return p
        out = np.array(p, dtype=object)
        out[self.place] = s[0]
        return out


def _field(
    name: str,
    given: Any,
    dim: int | None,
    variables: str | Sequence[str] | None,
    parameters: Mapping[str, float] | None,
    at: Any,
    vector: bool,
) -> _Field:
    try:
        if callable(given):
            return _function_field(given, dim, at, vector)
        if isinstance(given, str):
            given = [given]
        rows: Any = given.tolist() if isinstance(given, np.ndarray) else list(given) if isinstance(given, tuple) else given
        if vector and isinstance(rows, list) and any(isinstance(row, (list, tuple)) and len(row) != 1 for row in rows):
            raise ValueError(
                f"`{name}` must have one component a coordinate; got {given!r}. For A X write drift=lambda x: A @ x."
            )
        if holds_text(rows):
            if all(isinstance(row, (str, int, float)) for row in rows):
                n = len(rows)
                rows = [[r] for r in rows] if vector else [[r if i == j else "0" for j in range(n)] for i, r in enumerate(rows)]
            return _expression_field(
                [[e if isinstance(e, str) else repr(float(e)) for e in row] for row in rows], dim, variables, parameters, at
            )
        matrix = _check.finite(name, rows)
        if vector:
            matrix = np.reshape(matrix if matrix.ndim else np.full(dim or 1, float(matrix)), (-1, 1))
        return _Field(make_root(dim, root=matrix))
    except ValueError as error:
        text = str(error).replace("`root`", f"`{name}`").replace("root(x)", f"{name}(x)")
        for root, own in AS_VECTOR.items() if vector else ():
            text = text.replace(root, own)
        raise ValueError(text) from error.__cause__  # an error of the user's own


def _expression_field(rows: list[list[str]], dim: int | None, variables: Any, parameters: Any, at: Any) -> _Field:
    texts = [entry for row in rows for entry in row]
    numbers = named_numbers(parameters)
    if TIME in numbers:
        raise ValueError("`parameters` must not name t, which is the time; got a value for t. Choose another name.")
    names = variable_names(texts, variables, numbers | {TIME: 0.0})
    numbers = numbers if TIME in names else numbers | {TIME: 0.0}
    root = make_root(dim, root=rows, variables=names, parameters=numbers, at=at)
    used = used_numbers(tuple(texts), names, tuple(numbers.items()))[0]
    return _Field(root, used.index(TIME) if TIME in used else None)


def _function_field(function: Callable[..., Any], dim: int | None, at: Any, vector: bool) -> _Field:
    timed = len([p for p in inspect.signature(function).parameters.values() if p.default is p.empty]) > 1
    numbers = np.zeros(int(timed))
    own = _Function(function, vector, 0, 0, numbers)
    shape = make_root(dim, root=lambda x: own.entries(x, numbers), at=at)
    return _Field(replace(own, dim=shape.dim, rank=shape.rank), 0 if timed else None)


@dataclass(frozen=True)
class _Function(Root):
    """The user's function of x, and of the time where that is its number; a `vector` is one column."""

    function: Callable[..., Any]
    vector: bool
    dim: int
    rank: int
    parameters: np.ndarray
    latex = ""

    @property
    def identity(self) -> str:
        return function_identity(self.function)

    def entries(self, x: Any, p: Any) -> Sequence[Sequence[Any]]:
        rows = self.function(x, *p)
        if isinstance(rows, (set, frozenset, dict)):
            raise ValueError(f"`root` must return components in an order; got a {type(rows).__name__}. Return nested sequences.")
        return [[row] for row in rows] if self.vector else rows
