r"""Stochastic differential equations as objects: drift, root times draw, class of noise, calculus.

    dX = a(X, t) dt + b(X, t) dW,        X of `dim` coordinates (or several parts of them), W of `noise_dim` Brownian motions.

An SDE does not move by itself: an integrator (`dynamics.integrators`) makes a dynamics of it. For implementers of a new SDE:

1. `drift(y, p, s)` and `diffusion(y, u, p, s) = b(y) u` are plain branch-free arithmetic on component-first arrays, on rows of paths or
   on traced symbols; `y` holds all parts one after another, and so does what they return.
2. Numbers are read from `p` (`parameters`), numbers that move with time from `s`: `signals` says how many there are, and
   `signal_values(start, fraction, h)` gives them at start + fraction h for steps that begin at `start`.
3. `noise_class` is the smallest class that holds: none, additive, scalar, diagonal, commutative, general. It is found by probing.
4. The noise enters as the gradient's noise does: an optimiser's limit has drift -grad L and diffusion -R, so that shared draws couple.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sdetools import _check
from sdetools._arrays import components
from sdetools.noise.roots import Root, make_root, named_numbers, variable_names

CLASSES = ("none", "additive", "scalar", "diagonal", "commutative", "general")
CALCULI = ("ito", "stratonovich")
TIME = "t"


class SDE:
    r"""dX = a(X, t) dt + b(X, t) dW, from formulas, functions or constant matrices.

    `drift`: one expression a coordinate, or a function `drift(x)` or `drift(x, t)` that returns `dim` components. `diffusion`: rows of
    `noise_dim` expressions (a plain list is a diagonal), a constant matrix, a function `diffusion(x)` or `diffusion(x, t)` that returns
    rows, or None. Expressions may use `t` and the named numbers in `parameters`. `calculus`: "ito" or "stratonovich". `noise`: the class
    of the noise; by default it is found by probing b and its derivatives at a few points near `at`.
    ValueError for shapes that do not fit, unknown names, values that are not finite, and a class that b does not have.

    >>> import numpy as np
    >>> bm = SDE(drift=["mu*x"], diffusion=["s*x"], variables="x", parameters={"mu": 0.5, "s": 0.2})
    >>> bm.noise_class, bm.drift(np.array([2.0])), bm.diffusion(np.array([2.0]), [1.0])
    ('scalar', array([1.]), array([0.4]))
    """

    parts: ClassVar[tuple[str, ...]] = ("x",)
    dim: int
    noise_dim: int
    names: tuple[str, ...]
    calculus: str = "ito"
    noise_class: str
    parameters: np.ndarray
    signals: int = 0
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
        if variables is None and self._drift.names is not None:
            variables = self._drift.names
        self._diffusion = None
        if diffusion is not None:
            self._diffusion = _field("diffusion", diffusion, self.dim, variables, parameters, at, vector=False)
        self.noise_dim = self._diffusion.root.rank if self._diffusion is not None else 0
        fields = [f for f in (self._drift, self._diffusion) if f is not None]
        names = next((f.names for f in fields if f.names is not None), None)
        if names is None and variables is not None:
            names = variable_names((), variables, {})
            if len(names) != self.dim:
                raise ValueError(f"`variables` must name the {self.dim} coordinates of the drift; got {' '.join(names)}.")
        self.names = names or tuple(f"x{i}" for i in range(self.dim))
        self.parameters = np.concatenate([f.root.parameters for f in fields])
        self.signals = int(any(f.timed for f in fields))
        self.identity = f"sde {calculus} " + " | ".join(f.identity for f in fields)
        self.noise_class = classify(self, noise, at)

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

    def start(self, x0: np.ndarray) -> tuple[np.ndarray, ...]:
        """The parts of the state at time 0."""
        return (np.asarray(x0, dtype=float),)

    def settle(self, y: Any, p: Any) -> Any:
        """The end of a step, brought back to where the solution lives: here everywhere."""
        return y

    def __repr__(self) -> str:
        motions = f"{self.noise_dim} Brownian motion{'s' * (self.noise_dim != 1)}"
        return f"{type(self).__name__}(dim={self.dim}, {motions}, {self.noise_class} noise, {self.calculus})"


class _Field:
    """A drift or a diffusion: a root whose entries may use the time."""

    def __init__(
        self,
        root: Root,
        place: int | None = None,
        function: Callable[..., Any] | None = None,
        names: tuple[str, ...] | None = None,
        vector: bool = False,
    ) -> None:
        self.root, self.place, self.function, self.names, self.vector = root, place, function, names, vector

    @property
    def timed(self) -> bool:
        return self.place is not None or self.function is not None

    @property
    def identity(self) -> str:
        from sdetools._identity import function_identity

        return function_identity(self.function) if self.function is not None else self.root.identity

    def rows(self, y: Any, p: Any, s: Sequence[Any]) -> Sequence[Sequence[Any]]:
        if self.function is not None:
            rows = self.function(y, s[0])
            return [[row] for row in rows] if self.vector else rows
        return self.root.entries(y, self._at_time(p, s))

    def times(self, u: Sequence[Any], y: Any, p: Any, s: Sequence[Any]) -> list[Any]:
        if self.function is None:
            return self.root.times(u, y, self._at_time(p, s))
        from sdetools.noise.roots import _dot

        return [_dot(row, u) for row in self.rows(y, p, s)]

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
        if _textual(rows):
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
        raise ValueError(str(error).replace("`root`", f"`{name}`").replace("root(x)", f"{name}(x)")) from None


def _expression_field(rows: list[list[str]], dim: int | None, variables: Any, parameters: Any, at: Any) -> _Field:
    texts = [entry for row in rows for entry in row]
    numbers = named_numbers(parameters)
    if TIME in numbers:
        raise ValueError("`parameters` must not name t, which is the time; got a value for t. Choose another name.")
    names = variable_names(texts, variables, numbers | {TIME: 0.0})
    numbers = numbers if TIME in names else numbers | {TIME: 0.0}
    root = make_root(dim, root=rows, variables=names, parameters=numbers, at=at)
    from sdetools.noise.roots import _used

    used = _used(tuple(texts), names, tuple(numbers.items()))[0]
    return _Field(root, used.index(TIME) if TIME in used else None, None, names)


def _function_field(function: Callable[..., Any], dim: int | None, at: Any, vector: bool) -> _Field:
    timed = len([p for p in inspect.signature(function).parameters.values() if p.default is p.empty]) > 1
    shown = (lambda x: function(x, 0.0)) if timed else function
    if vector:
        plain = shown

        def shown(x: Any) -> list[list[Any]]:
            return [[value] for value in plain(x)]

    root = make_root(dim, root=shown, at=at)
    if timed:
        return _Field(root, function=function, vector=vector)
    return _Field(_Columns(root, function, vector))


class _Columns:
    """A root from the user's function itself, so that its identity is the function's."""

    def __init__(self, root: Root, function: Callable[..., Any], vector: bool) -> None:
        from sdetools._identity import function_identity

        self.dim, self.rank, self.parameters = root.dim, root.rank, np.zeros(0)
        self.function, self.vector, self.identity = function, vector, function_identity(function)

    def entries(self, x: Any, p: Any) -> Sequence[Sequence[Any]]:
        rows = self.function(x)
        return [[row] for row in rows] if self.vector else rows

    def times(self, u: Sequence[Any], x: Any, p: Any) -> list[Any]:
        from sdetools.noise.roots import _dot

        return [_dot(row, u) for row in self.entries(x, p)]


def _textual(rows: Any) -> bool:
    if isinstance(rows, str):
        return True
    return isinstance(rows, (list, tuple)) and any(_textual(row) for row in rows)


def classify(sde: SDE, declared: str | None, at: Any = None) -> str:
    """The smallest class of noise that b shows at a few points; `declared` if it is wide enough.

    Additive: b does not depend on x. Diagonal: b_ii(x_i) only. Commutative: (b_j . grad) b_k = (b_k . grad) b_j for all j, k.
    """
    if declared is not None and declared not in CLASSES:
        raise ValueError(f"`noise` must be one of {', '.join(CLASSES)}; got {declared!r}.")
    found = _probed(sde, at)
    if declared is None:
        return found or "general"
    if found is not None and not _within(found, declared, sde.dim * len(sde.parts)):
        raise ValueError(
            f"`noise` must be wide enough for the diffusion; got noise={declared!r} for a diffusion that is {found}."
        )
    return declared


def _within(inner: str, outer: str, n: int) -> bool:
    """Whether a noise of class `inner` in `n` coordinates may be treated as one of class `outer`."""
    if inner in (outer, "none") or outer == "general" or (inner == "additive" and outer != "none"):
        return True
    return (outer == "commutative" and inner in ("scalar", "diagonal")) or (n == 1 and (inner, outer) == ("scalar", "diagonal"))


def _probed(sde: SDE, at: Any) -> str | None:
    if sde.noise_dim == 0:
        return "none"
    n = sde.dim * len(sde.parts)
    rng = np.random.default_rng(20240604)
    points = [rng.uniform(0.3, 1.3, n) for _ in range(3)]
    if at is not None:
        points = [np.resize(np.asarray(at, dtype=float), n) * (1 + 0.03 * rng.standard_normal(n)) for _ in range(3)]
    signals = sde.signal_values(np.array([0.4]), 0.0, 0.0)[0] if sde.signals else ()
    step = 1e-6

    def matrix(y: np.ndarray) -> np.ndarray:
        return np.stack([sde.diffusion(y, unit, None, signals) for unit in np.eye(sde.noise_dim)], axis=1)

    with np.errstate(all="ignore"):
        values = [matrix(y) for y in points]
        if not np.isfinite(values).all():
            return None
        if all(np.array_equal(v, values[0]) for v in values):
            return "additive"
        slopes = [
            np.stack([(matrix(y + step * e) - matrix(y - step * e)) / (2 * step) for e in np.eye(n)], axis=2) for y in points
        ]
    if sde.noise_dim == 1:
        return "scalar"
    scale = max(np.abs(s).max() for s in slopes)
    if sde.noise_dim == n and all(np.count_nonzero(v - np.diag(np.diag(v))) == 0 for v in values):
        off = ~np.eye(n, dtype=bool)
        if all(np.abs(s[np.arange(n), np.arange(n)][off]).max() <= 1e-6 * scale for s in slopes):
            return "diagonal"
    for b, s in zip(values, slopes):
        moved = np.einsum("aj,ika->ijk", b, s)  # (b_j . grad) b_k
        terms = np.einsum("aj,ika->ijk", np.abs(b), np.abs(s))  # they may cancel
        if np.abs(moved - moved.swapaxes(1, 2)).max() > 1e-6 * terms.max():
            return "general"
    return "commutative"
