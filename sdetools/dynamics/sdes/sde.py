"""Stochastic differential equations: drift, diffusion times a draw, class of noise, calculus.

    dX = a(X, t) dt + b(X, t) dW,        X of `dim` coordinates (or several parts of them), W of `noise_dim` Brownian motions.

An integrator (`dynamics.integrators`) makes a dynamics of an SDE. For implementers of a new SDE:

1. `drift(y, p, s)` and `diffusion(y, u, p, s) = b(y) u` are branch-free arithmetic on arrays `(n,)` of one path or `(n, paths)` of many,
   or on traced values. `y` and the return values contain all parts of the state one after another.
2. Numbers are read from `p` (`parameters`), time-dependent numbers from `s`. `signals` is the number of the latter, and
   `signal_values(start, fraction, h)` returns them at start + fraction h for steps that begin at `start`.
3. `noise_class` is the smallest class that is proven: none, additive, scalar, diagonal, commutative, general (see `sdes.classes`).
4. The noise has the sign of the gradient noise: the limit of an optimiser has drift -grad L and diffusion -R, so that shared draws
   couple the two.
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
from sdetools.noise.roots import ExpressionRoot, Root, make_root
from sdetools.noise.texts import holds_text, used_numbers, variable_names

CALCULI = ("ito", "stratonovich")
TIME = "t"
AS_VECTOR = {
    "rows of equal length, one for each coordinate": "components, one for each coordinate",
    "nested sequences: [[r00, r01], [r10, r11]]": "a list such as [-x[0], -x[1]]",
    "nested sequences": "a list such as [-x[0], -x[1]]",
    " rows; calling": " components; calling",
    " rows of 1. ": ". ",
}
"""Replacements that turn a message about a matrix into one about a vector."""


class SDE:
    """The SDE dX = a(X, t) dt + b(X, t) dW, defined by expressions, functions or constant matrices.

    An integrator makes a dynamics of it, such as `st.EulerMaruyama(sde, dt=0.01)`. In functions, x has its coordinates first: `(dim,)` for one path,
    `(dim, paths)` for many.

    Args:
        drift: a: one expression per coordinate, constants, or a function `drift(x)` or `drift(x, t)` that returns `dim` components.
        diffusion: b, `(dim, noise_dim)`: rows of `noise_dim` expressions (a plain list is a diagonal), a constant matrix, a function
            `diffusion(x)` or `diffusion(x, t)` that returns such rows, or None for no noise.
        variables: The names of the coordinates, "x y" or a list; by default x0, x1, ... or all names in the expressions, alphabetically.
        dim: The number of coordinates, needed where it does not follow from the other arguments.
        parameters: Values of the named numbers in expressions, by name. Expressions may also use the time `t`.
        calculus: How b dW is meant, "ito" or "stratonovich"; for additive noise they agree.
        noise: The class of the noise, which decides which integrators apply: "none", "additive", "scalar", "diagonal", "commutative" or "general"
            (see `sdetools.dynamics.sdes.classes`). By default it is derived from the
            formula; a diffusion that cannot be traced (a compiled function, or one that branches) counts as general, or as scalar with one
            Brownian motion. A class declared for such a diffusion, or "commutative" for one with kinks, is checked at points of many sizes
            and near `at`, and during every run, which then uses the NumPy backend.
        at: A typical point, shape `(dim,)`, for these checks.

    Attributes:
        parts: The names of the parts of the state, a tuple of strings, here ("x",).
        dim: The number of coordinates of each part.
        noise_dim: The number of Brownian motions.
        names: The names of the coordinates, a tuple of strings.
        loss: The loss of the equation, or None.
        noise_class: The class of the noise, one of the six texts above.
        parameters: The numbers of drift and diffusion, an array `(n,)`: those of the drift first.
        signals: The number of time-dependent numbers (here 1 if `t` is used, else 0).
        presumed: Whether the class is declared and not proven, so that runs check it.
        identity: A short text that identifies the formulas, without their numbers.
        latex: The equation in LaTeX, without dollar signs.

    Raises:
        ValueError: If shapes do not match, names are unknown, values are not finite, or b does not have the declared class.

    Example:
        >>> import numpy as np, sdetools as st
        >>> bm = st.SDE(drift=["mu*x"], diffusion=["s*x"], variables="x", parameters={"mu": 0.5, "s": 0.2})
        >>> bm.noise_class, bm.drift(np.array([2.0])), bm.diffusion(np.array([2.0]), [1.0])
        ('scalar', array([1.]), array([0.4]))
    """

    parts: ClassVar[tuple[str, ...]] = ("x",)
    dim: int
    noise_dim: int
    names: tuple[str, ...]
    loss: Any = None
    calculus: str = "ito"
    noise_class: str
    parameters: np.ndarray
    signals: int = 0
    presumed: bool = False
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
        self.calculus = _check.choice("calculus", calculus, CALCULI)
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
        """Whether b is given as a matrix of numbers; False for expressions, for functions and for an equation without noise."""
        field = getattr(self, "_diffusion", None)
        return field is not None and field.root.constant and not field.timed

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The names of the entries of `parameters`, a tuple of strings; numbers of functions and of constant matrices have empty names."""
        names: list[str] = []
        for field in filter(None, (getattr(self, "_drift", None), getattr(self, "_diffusion", None))):
            root = field.root
            texts = tuple(e for row in root.rows for e in row) if isinstance(root, ExpressionRoot) else ()
            names += used_numbers(texts, root.variables, root.constants)[0] if texts else [""] * len(root.parameters)
        return tuple(names) if len(names) == len(self.parameters) else ("",) * len(self.parameters)

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """Return the time-dependent numbers at the times t = start + fraction h, an array `(steps, signals)`, a row for each time; here t, if it is used.

        Args:
            start: The times at which the steps of an integrator begin, `(steps,)`.
            fraction: The place within the step, from 0 (its start) to 1 (its end).
            h: The step size.
        """
        return (np.asarray(start) + fraction * h)[:, None][:, : self.signals]

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        """Return a(y), in the shape of `y`.

        Args:
            y: The state, its parts one after another: `(n,)` or `(n, paths)`, with `n = dim * len(parts)`, or a traced value `(n,)`.
            p: The numbers, in the order of `parameters`; None for `parameters` itself.
            s: The time-dependent numbers, a row of `signal_values`; for drift and diffusion of your own the time t, if they use it.
        """
        p = self.parameters if p is None else p
        own = p[: len(self._drift.root.parameters)]
        return components([row[0] for row in self._drift.rows(y, own, s)], y)

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        """Return b(y) u, in the shape of `y`.

        Args:
            y: The state, its parts one after another: `(n,)` or `(n, paths)`, with `n = dim * len(parts)`, or a traced value `(n,)`.
            u: One entry for each of the `noise_dim` Brownian motions: a number, an array `(paths,)` or a traced value.
            p: The numbers, in the order of `parameters`; None for `parameters` itself.
            s: The time-dependent numbers, a row of `signal_values`; for drift and diffusion of your own the time t, if they use it.
        """
        p = self.parameters if p is None else p
        if self._diffusion is None:
            return components([0.0] * self.dim, y)
        return components(self._diffusion.times(u, y, p[len(self._drift.root.parameters) :], s), y)

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        """The arrays that `start` reads besides x0, a tuple, such as the initial momentum `(dim,)`; by default empty."""
        return ()

    def start(self, x0: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the state at time 0, a tuple of its parts, for `x0` of shape `(dim,)` or `(dim, paths)` or a traced value; by default `(x0,)`."""
        return (numeric(x0),)

    @property
    def starts_from_law(self) -> bool:
        """Whether `start` is plain arithmetic on x0, so that x0 may be a distribution instead of points; by default True."""
        return True

    def settle(self, y: Any, p: Any) -> Any:
        """Return the end `y` of a step, projected to the set on which the solution lives, in the shape of `y`; by default `y` unchanged.

        Args:
            y: The state after a step of an integrator, `(n,)` or `(n, paths)`, or a traced value.
            p: The numbers, in the order of `parameters`.
        """
        return y

    def __repr__(self) -> str:
        motions = f"{self.noise_dim} Brownian motion{'s' * (self.noise_dim != 1)}"
        return f"{type(self).__name__}(dim={self.dim}, {motions}, {self.noise_class} noise, {self.calculus})"


@dataclass(frozen=True)
class _Field:
    """A drift (one column) or a diffusion: the matrix-valued function `root`, and the index `place` of the time t among its numbers (None without time).

    In its methods `y` is the state, `p` the numbers of `root`, `s` the time-dependent numbers, of which s[0] is t, and `u` a noise vector.
    """

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
    """Return the drift (`vector`) or the diffusion that the user has `given` as the argument `name` of `SDE`; ValueError in the words of that argument.

    The other arguments are those of `SDE`.
    """
    try:
        if callable(given):
            return _function_field(given, dim, at, vector)
        if isinstance(given, str):
            given = [given]
        rows: Any = given.tolist() if isinstance(given, np.ndarray) else list(given) if isinstance(given, tuple) else given
        if vector and isinstance(rows, list) and any(isinstance(row, (list, tuple)) and len(row) != 1 for row in rows):
            raise ValueError(
                f"`{name}` must have one component per coordinate; got {given!r}. For A X write drift=lambda x: A @ x."
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
        raise ValueError(text) from error.__cause__  # keep the cause: an error in the user's code


def _expression_field(rows: list[list[str]], dim: int | None, variables: Any, parameters: Any, at: Any) -> _Field:
    """Return the drift or diffusion whose rows are expressions; the other arguments are those of `SDE`."""
    texts = [entry for row in rows for entry in row]
    numbers = _check.named_numbers(parameters)
    if TIME in numbers:
        raise ValueError("`parameters` must not name t, the time; got a value for t. Choose another name.")
    names = variable_names(texts, variables, numbers | {TIME: 0.0})
    numbers = numbers if TIME in names else numbers | {TIME: 0.0}
    root = make_root(dim, root=rows, variables=names, parameters=numbers, at=at)
    used = used_numbers(tuple(texts), names, tuple(numbers.items()))[0]
    return _Field(root, used.index(TIME) if TIME in used else None)


def _function_field(function: Callable[..., Any], dim: int | None, at: Any, vector: bool) -> _Field:
    """Return the drift (`vector`) or diffusion that is a function of x, or of x and t if it has two arguments without default values."""
    timed = len([p for p in inspect.signature(function).parameters.values() if p.default is p.empty]) > 1
    numbers = np.zeros(int(timed))
    own = _Function(function, vector, 0, 0, numbers)
    shape = make_root(dim, root=lambda x: own.entries(x, numbers), at=at)
    return _Field(replace(own, dim=shape.dim, rank=shape.rank), 0 if timed else None)


@dataclass(frozen=True)
class _Function(Root):
    """A user's function of x and, where `parameters` has one entry, of that number, the time; if `vector`, its components are taken as one column."""

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
