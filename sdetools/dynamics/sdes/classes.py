r"""The class of an SDE's noise: proven from its formula, or declared and then checked, before a run and along it.

    additive     b does not depend on x
    diagonal     b_ij = 0 for i != j, and b_ii depends on x_i alone
    commutative  (b_j . grad) b_k = (b_k . grad) b_j for all j, k

A diffusion that is plain arithmetic, an expression or a function, is called once with symbols, and the formula that comes back decides.
What cannot be called with symbols (compiled or torch functions, branches) has no proven class: it is general, or scalar where one motion
drives it, unless the class is declared. A declared class that is not proven is checked at points of many sizes, and by `hold` at the
points of a run.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from sdetools._arrays import Symbol

CLASSES = ("none", "additive", "scalar", "diagonal", "commutative", "general")
LARGEST = 4096
"""Entries up to which a diffusion is called with symbols, and derivatives (coordinates^2 times motions) up to which it is asked whether
its noise commutes; what is larger counts as general."""
SIZES = (0.3, 1.0, 3.0, 10.0, 100.0, 1e4, 1e8)
"""Sizes of the points at which a class is checked."""
FEW = 8
"""A formula must be finite at so many of them for its derivatives to prove anything."""


class Noisy(Protocol):
    """What is asked of an equation to tell the class of its noise: an `SDE` whose class is not known yet."""

    dim: int
    noise_dim: int
    noise_class: str
    signals: int
    presumed: bool

    @property
    def parts(self) -> tuple[str, ...]: ...

    @property
    def constant_noise(self) -> bool: ...

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray: ...

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = ...) -> np.ndarray: ...


def classify(sde: Noisy, declared: str | None, at: Any = None) -> str:
    """The smallest class of noise that is proven, or `declared` if it is wide enough; sets `sde.presumed` where it is not proven."""
    if declared is not None and declared not in CLASSES:
        raise ValueError(f"`noise` must be one of {', '.join(CLASSES)}; got {declared!r}.")
    rows = sde.dim * len(sde.parts)
    asked = sde.noise_dim > 0 and not sde.constant_noise and rows * sde.noise_dim <= LARGEST
    entries = symbolic_entries(sde) if asked else None
    found = _proven(sde, entries)
    sde.presumed = False
    if declared is None or _within(found, declared, rows):
        return declared or found
    if entries is None or (declared == "commutative" and not _smooth(entries)):
        sde.presumed = True
        where = witness(sde, declared, points_near(rows, at))
        if where is None:
            return declared
        raise ValueError(
            f"`noise` must be wide enough for the diffusion; got noise={declared!r} for a diffusion that is not {declared} at {_told(where)}."
        )
    raise ValueError(f"`noise` must be wide enough for the diffusion; got noise={declared!r} for a diffusion that is {found}.")


def hold(sde: Noisy, y: np.ndarray, p: Any, s: Sequence[Any]) -> None:
    """ValueError where a class that is declared and not proven fails at the paths that lie farthest out, or at the first ones."""
    rows = y.reshape(len(y), -1)
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    if not rows.shape[1]:
        return
    far = np.unique([*rows.argmin(axis=1), *rows.argmax(axis=1), *range(min(4, rows.shape[1]))])
    where = witness(sde, sde.noise_class, rows[:, far], p, s)
    if where is not None:
        raise ValueError(
            f"the diffusion must be {sde.noise_class}, as it is declared; the run came to {_told(where)}, where it is not. "
            'Declare noise="general" and take st.EulerMaruyama or st.Platen.'
        )


def points_near(rows: int, at: Any = None) -> np.ndarray:
    """Points `(rows, n)` of all signs and sizes, and some near `at` or in a box on the positive side."""
    rng = np.random.default_rng(20240604)
    far = [size * rng.standard_normal((rows, 6)) for size in SIZES]
    centre = np.full(rows, 0.8) if at is None else np.resize(np.asarray(at, dtype=float), rows)
    return np.concatenate([*far, centre[:, None] * (1 + 0.3 * rng.uniform(-1, 1, (rows, 8))), np.abs(far[1])], axis=1)


def witness(sde: Noisy, kind: str, points: np.ndarray, p: Any = None, s: Sequence[Any] | None = None) -> np.ndarray | None:
    """A point at which the noise is seen not to be of this class, by values and central differences; None if there is none."""
    n, q = len(points), sde.noise_dim
    signals = _signals(sde) if s is None else s

    def matrix(y: np.ndarray) -> np.ndarray:
        return np.stack([np.broadcast_to(sde.diffusion(y, list(unit), p, signals), y.shape) for unit in np.eye(q)], axis=1)

    if kind == "scalar":
        return points[:, 0] if q > 1 else None
    with np.errstate(all="ignore"):
        values = matrix(points)
        points = points[:, np.isfinite(values).all(axis=(0, 1))]
        values = matrix(points)
        if not points.shape[1]:
            return None
        if kind in ("none", "additive"):
            first = values[..., :1] if kind == "additive" else 0.0
            wrong = np.abs(values - first).max(axis=(0, 1)) > 1e-9 * np.abs(values).max(axis=(0, 1))
        else:
            step = 1e-6 * np.maximum(1.0, np.abs(points))
            shifts = [np.where(np.arange(n)[:, None] == a, step, 0.0) for a in range(n)]
            slopes = np.stack([(matrix(points + e) - matrix(points - e)) / (2 * step[a]) for a, e in enumerate(shifts)], axis=2)
            wrong = (_off_diagonal if kind == "diagonal" else _not_commuting)(values, slopes)
    return points[:, int(wrong.argmax())] if wrong.any() else None


def _off_diagonal(values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Where a matrix is not diagonal, or b_ii has a slope in another coordinate."""
    n, q = values.shape[:2]
    if n != q:
        return np.ones(values.shape[2], dtype=bool)
    apart = ~np.eye(n, dtype=bool)
    own = slopes[np.arange(n), np.arange(n)]  # of b_ii, along every coordinate
    return (values[apart] != 0).any(axis=0) | (np.abs(own[apart]).max(axis=0, initial=0) > 1e-6 * np.abs(own).max(axis=(0, 1)))


def _not_commuting(values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    moved = np.einsum("aj...,ika...->ijk...", values, slopes)  # (b_j . grad) b_k
    terms = np.einsum("aj...,ika...->ijk...", np.abs(values), np.abs(slopes))  # they may cancel
    return np.abs(moved - moved.swapaxes(1, 2)).max(axis=(0, 1, 2)) > 1e-5 * terms.max(axis=(0, 1, 2))


def _proven(sde: Noisy, entries: Any) -> str:
    """The smallest class that a formula proves; without one what one motion or none makes it."""
    if sde.noise_dim == 0:
        return "none"
    if sde.constant_noise:
        return "additive"
    y = _coordinates(sde)
    if entries is not None and (
        not _varies(entries, y) or (_smooth(entries) and all(e.diff(v) == 0 for e in entries for v in y))
    ):
        return "additive"
    if sde.noise_dim == 1:
        return "scalar"
    if entries is None:
        return "general"
    n, q = entries.shape
    if n == q and all(
        (e == 0) if i != j else (e.free_symbols & set(y) <= {y[i]}) for i in range(n) for j, e in enumerate(entries.row(i))
    ):
        return "diagonal"
    if n * n * q > LARGEST or witness(sde, "commutative", points_near(n)[:, 6:10]) is not None:
        return "general"
    return "commutative" if _commutes(entries, y) else "general"


def _varies(entries: Any, y: Sequence[Any]) -> bool:
    """Whether coordinates occur in a formula."""
    return bool(entries.free_symbols & set(y))


def _commutes(entries: Any, y: Sequence[Any]) -> bool:
    """Whether all (b_j . grad) b_k - (b_k . grad) b_j vanish: written out, or, for an analytic formula, at many points.

    What is analytic and vanishes at random points of many sizes vanishes everywhere it is defined.
    """
    import sympy as sp

    from sdetools.losses.expression import compile

    n, q = entries.shape
    slopes = [[[entries[i, k].diff(y[a]) for a in range(n)] for k in range(q)] for i in range(n)]

    def along(j: int, k: int, i: int) -> list[Any]:
        return [entries[a, j] * slopes[i][k][a] for a in range(n) if entries[a, j] != 0 and slopes[i][k][a] != 0]

    pairs = [(along(j, k, i), along(k, j, i)) for j in range(q) for k in range(j) for i in range(n)]
    open_ = [(left, right) for left, right in pairs if sp.Add(*left) != sp.Add(*right)]
    if not open_:
        return True
    if not _smooth(entries):
        return False
    terms = [term for left, right in open_ for term in (*left, *(-t for t in right))]
    ends = np.cumsum([len(left) + len(right) for left, right in open_])[:-1]
    names = [v.name for v in y]
    points = points_near(n)
    clock = {v: sp.Rational(2, 5) for v in set().union(*(t.free_symbols for t in terms)) - set(y)}
    with np.errstate(all="ignore"):
        rows = compile([t.subs(clock) for t in terms], names)(points)
        values = np.array([np.broadcast_to(row, points.shape[1:]) for row in rows])
        good = np.isfinite(values).all(axis=0)
        sums = [(np.abs(part.sum(axis=0)), np.abs(part).max(axis=0)) for part in np.split(values[:, good], ends)]
    return good.sum() >= FEW and all((total <= 1e-10 * size).all() for total, size in sums)


def _smooth(entries: Any) -> bool:
    """Whether a formula has no kinks, so that it is analytic where it is defined."""
    import sympy as sp

    from sdetools.losses.parser import Larger, Magnitude, Signum

    return not entries.has(sp.Piecewise, sp.Abs, sp.sign, sp.Max, sp.Min, Larger, Magnitude, Signum)


def symbolic_entries(sde: Noisy) -> Any:
    """b(x) as a SymPy matrix of `(coordinates, motions)`, from calling the diffusion with symbols; None where that cannot be done."""
    import sympy as sp

    y = np.array([Symbolic(v) for v in _coordinates(sde)], dtype=object)
    u = [sp.Symbol(f"u{j}", real=True) for j in range(sde.noise_dim)]
    clock = [Symbolic(sp.Symbol(f"s{i}", real=True)) for i in range(sde.signals)]
    try:
        with np.errstate(all="ignore"):
            product = sde.diffusion(y, [Symbolic(v) for v in u], None, clock)
            return sp.Matrix([_coefficients(_expression(product[i]), u) for i in range(len(y))])
    except Exception:  # the user's own code, with what it was not made for
        return None


def _coefficients(row: Any, u: Sequence[Any]) -> list[Any]:
    """The factors of u_0, u_1, ... in a sum that is linear in them."""
    import sympy as sp

    place, out = {v: j for j, v in enumerate(u)}, [[] for _ in u]
    for term in sp.Add.make_args(row):
        for v in term.free_symbols & place.keys():
            out[place[v]].append(term.diff(v))
    return [sp.Add(*parts) for parts in out]


def _coordinates(sde: Noisy) -> list[Any]:
    import sympy as sp

    return [sp.Symbol(f"y{i}", real=True) for i in range(sde.dim * len(sde.parts))]


def _signals(sde: Noisy) -> Sequence[Any]:
    return sde.signal_values(np.array([0.4]), 0.0, 0.0)[0] if sde.signals else ()


def _within(inner: str, outer: str, n: int) -> bool:
    """Whether a noise of class `inner` in `n` coordinates may be treated as one of class `outer`."""
    if inner in (outer, "none") or outer == "general" or (inner == "additive" and outer != "none"):
        return True
    return (outer == "commutative" and inner in ("scalar", "diagonal")) or (n == 1 and (inner, outer) == ("scalar", "diagonal"))


def _told(point: np.ndarray) -> str:
    return f"x={[float(f'{v:.4g}') for v in point]}"


def _expression(value: Any) -> Any:
    """The SymPy expression of a symbol; of a number, exactly the rational that it is."""
    import sympy as sp

    if isinstance(value, Symbolic):
        return value.expr
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise TypeError(f"{type(value).__name__} is no number")
    return sp.Rational(float(value))


class Symbolic(Symbol):
    """A SymPy expression with the arithmetic that a formula on coordinates uses."""

    __slots__ = ("expr",)

    def __init__(self, expr: Any) -> None:
        self.expr = expr

    def operation(self, name: str, *operands: Any) -> Symbolic:
        return Symbolic(_operation(name)(*map(_expression, operands)))

    def comparison(self, sign: str, other: Any) -> Choice:
        return Choice(self.expr - _expression(other))


def _operation(name: str) -> Callable[..., Any]:
    """An operation of symbols as a function of expressions."""
    import sympy as sp

    from sdetools.losses.parser import Magnitude

    own = {
        "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "pow": operator.pow, "neg": operator.neg,
        "abs": Magnitude, "log1p": lambda a: sp.log(a + 1), "expm1": lambda a: sp.exp(a) - 1,
    }  # fmt: skip
    return own[name] if name in own else getattr(sp, name.replace("arc", "a"))


class Choice:
    """A comparison: what is selected by it is a formula with a kink or a jump, whichever the comparison."""

    __slots__ = ("apart",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, apart: Any) -> None:
        self.apart = apart

    def select(self, yes: Any, no: Any) -> Symbolic:
        from sdetools.losses.parser import Signum

        yes, no = _expression(yes), _expression(no)
        return Symbolic(yes if yes == no else (yes + no + Signum(self.apart) * (yes - no)) / 2)

    def __and__(self, other: Choice) -> Choice:
        return Choice(self.apart * other.apart)

    __or__ = __and__

    def __invert__(self) -> Choice:
        return self

    def __bool__(self) -> bool:
        raise TypeError("a comparison of symbols has no value")
