"""The class of the noise b(x) dW of an SDE: proven from its formula, or declared and then checked before and during a run.

    none         b = 0
    additive     b does not depend on x
    scalar       there is one Brownian motion
    diagonal     b_ij = 0 for i != j, and b_ii depends on x_i alone
    commutative  (b_j . grad) b_k = (b_k . grad) b_j for all j, k, where b_j is column j of b
    general      any b

Here x is the whole state, all parts together. Narrower classes lie within wider ones: none within all others, additive within all but none, scalar
and diagonal within commutative, all within general. Additive noise counts as scalar and diagonal whatever its matrix, because integrators use these classes
only for derivatives of b, and those of a constant b vanish.

A diffusion that can be traced, an expression or a function, becomes a graph, from which the class is derived (`graph.identities`): by
its structure, including kinks and jumps, and by identities of its derivatives. A diffusion that cannot be traced (a compiled or torch
function, or one that branches) has no proven class: it counts as general, or as scalar where it has one Brownian motion, unless the
class is declared. A declared class that is not proven is checked at points of many sizes, and by `check_class_along_run` at the points of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.graph.derivatives import vjp
from sdetools.graph.errors import TooLong, TracingError
from sdetools.graph.identities import Examination
from sdetools.graph.value import Trace, Value, order, value
from sdetools.graph.views import stack

CLASSES = ("none", "additive", "scalar", "diagonal", "commutative", "general")
LARGEST = 4096
"""Largest number of entries of a diffusion that is traced; a larger one counts as general."""
SIZES = (0.3, 1.0, 3.0, 10.0, 100.0, 1e4, 1e8)
"""Sizes of the points at which a class is checked."""


def classify(sde: Any, declared: str | None, at: Any = None) -> str:
    """Return the class of an SDE's noise, an element of `CLASSES`: `declared` if it is given and true, else the smallest class proven.

    Sets `sde.presumed` to whether the class returned is declared and not proven, so that runs must check it.

    Args:
        sde: The SDE, with all attributes but `noise_class` and `presumed`.
        declared: The class that the user declares, or None. One that can be neither proven nor refuted is checked at many points.
        at: A typical point near which some of these checks are, `(dim,)`; None for 0.8 in each coordinate.

    Raises:
        ValueError: If `declared` is unknown, or the diffusion does not have this class.
    """
    if declared is not None:
        _check.choice("noise", declared, CLASSES)
    rows = sde.dim * len(sde.parts)
    found, open_to = _proven(sde, rows, at)
    sde.presumed = False
    if declared is None or _is_within(found, declared, rows):
        return declared or found
    if declared not in open_to:
        raise ValueError(
            f"`noise` must be wide enough for the diffusion; got noise={declared!r} for a diffusion that is {found}."
        )
    where = witness(sde, declared, points_near(rows, at))
    if where is not None:
        raise ValueError(
            f"`noise` must be wide enough for the diffusion; got noise={declared!r} for a diffusion that is not {declared} at {_point_text(where)}."
        )
    sde.presumed = True
    return declared


def check_class_along_run(sde: Any, y: np.ndarray, p: Any, s: Sequence[Any]) -> None:
    """Raise ValueError if the noise does not have the class `sde.noise_class` at some states of a run; return None otherwise.

    The states examined are those with the smallest or the largest value of a coordinate, and those of the first four paths. States that are
    not finite are left out.

    Args:
        sde: The SDE.
        y: The states of all paths at one step, `(n, paths)`, with the n coordinates of all parts together.
        p: The numbers of the SDE, in the order of `sde.parameters`.
        s: The time-dependent numbers of this step, `sde.signals` of them.
    """
    rows = y.reshape(len(y), -1)
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    if not rows.shape[1]:
        return
    far = np.unique([*rows.argmin(axis=1), *rows.argmax(axis=1), *range(min(4, rows.shape[1]))])
    where = witness(sde, sde.noise_class, rows[:, far], p, s)
    if where is not None:
        raise ValueError(
            f"the diffusion must be {sde.noise_class}, as it is declared; the run reached {_point_text(where)}, where it is not. "
            'Declare noise="general" and use st.EulerMaruyama or st.Platen.'
        )


def points_near(rows: int, at: Any = None) -> np.ndarray:
    """Return fixed random points, one a column, at which a class of noise is checked: an array `(rows, 56)`.

    They are 42 with coordinates of both signs, 6 of each size in `SIZES`, 8 near the point `at`, and 6 with positive coordinates.

    Args:
        rows: The number of coordinates of a point.
        at: A typical point; one with fewer coordinates is repeated. Without it, 0.8 in each coordinate.
    """
    rng = np.random.default_rng(20240604)
    far = [size * rng.standard_normal((rows, 6)) for size in SIZES]
    centre = np.full(rows, 0.8) if at is None else np.resize(np.asarray(at, dtype=float), rows)
    near = centre[:, None] + np.where(centre == 0, 1.0, centre)[:, None] * 0.3 * rng.uniform(-1, 1, (rows, 8))
    return np.concatenate([*far, near, np.abs(far[1])], axis=1)


def witness(sde: Any, kind: str, points: np.ndarray, p: Any = None, s: Sequence[Any] | None = None) -> np.ndarray | None:
    """Return a point `(rows,)` at which the noise does not have a class, or None if the values of b and their central differences show none.

    Args:
        sde: The SDE.
        kind: The class, an element of `CLASSES` other than "general".
        points: The states to examine, `(rows, n)`, one a column, with the coordinates of all parts as rows; those where b is not finite are left out.
        p: The numbers of the SDE, in the order of `sde.parameters`; None for `sde.parameters` itself.
        s: The time-dependent numbers, `sde.signals` of them; by default those at time 0.4.
    """
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
            wrong = (_is_not_diagonal if kind == "diagonal" else _does_not_commute)(values, slopes)
    return points[:, int(wrong.argmax())] if wrong.any() else None


def _is_not_diagonal(values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Return at which points b is not diagonal, or b_ii has a slope in another coordinate: booleans `(points,)`.

    Args:
        values: b_ij, `(n, q, points)`, for n coordinates and q Brownian motions.
        slopes: The derivatives d_a b_ij, `(n, q, n, points)`, with a on the third axis.
    """
    n, q = values.shape[:2]
    if n != q:
        return np.ones(values.shape[2], dtype=bool)
    apart = ~np.eye(n, dtype=bool)
    own = slopes[np.arange(n), np.arange(n)]  # slopes of b_ii along every coordinate
    return (values[apart] != 0).any(axis=0) | (np.abs(own[apart]).max(axis=0, initial=0) > 1e-6 * np.abs(own).max(axis=(0, 1)))


def _does_not_commute(values: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Return at which points (b_j . grad) b_k and (b_k . grad) b_j differ for some j, k, booleans `(points,)`.

    The arguments are those of `_is_not_diagonal`: b_ij, `(n, q, points)`, and d_a b_ij, `(n, q, n, points)`.
    """
    moved = np.einsum("aj...,ika...->ijk...", values, slopes)  # (b_j . grad) b_k
    terms = np.einsum("aj...,ika...->ijk...", np.abs(values), np.abs(slopes))  # the size of the terms, which may cancel
    return np.abs(moved - moved.swapaxes(1, 2)).max(axis=(0, 1, 2)) > 1e-5 * terms.max(axis=(0, 1, 2))


def _proven(sde: Any, rows: int, at: Any) -> tuple[str, tuple[str, ...]]:
    """Return the smallest class that is proven, and a tuple of the classes that are neither proven nor refuted.

    The latter are "commutative" for a formula with kinks, and all classes without a formula.

    Args:
        sde: The SDE.
        rows: The number of coordinates of all parts of its state.
        at: A typical point near which a formula is examined, or None.
    """
    if sde.noise_dim == 0:
        return "none", ()
    if sde.constant_noise:
        return "additive", ()
    formula = _entries(sde, rows) if rows * sde.noise_dim <= LARGEST else None
    if formula is not None:
        with suppress(TracingError, TooLong):  # it contains a compiled function, which has no derivative
            return _classify_graph(*formula, points_near(rows, at))
    return ("scalar" if sde.noise_dim == 1 else "general"), CLASSES


def _classify_graph(b: Value, y: Value, points: np.ndarray) -> tuple[str, tuple[str, ...]]:
    """Return the smallest class that is proven and a tuple of those left open, as `_proven` does, from a formula of b.

    `b` is the traced b(y), `(coordinates, motions)`, `y` its input, and `points` the points, `(coordinates, n)`, at which identities are examined.
    One slope in a random direction v stands for all slopes, and two random combinations of Brownian motions for all pairs.
    """
    (n, q), look = b.shape, Examination(y, points)
    v, w, z = (y.home.input(name, (size,)) for name, size in (("v", n), ("w", q), ("z", q)))
    moves = look.depends(b)
    open_to = ("commutative",) if look.free else ()
    moves = moves & ~look.vanishes(look.along(b, v))[..., None]
    if not moves.any():
        return "additive", ()
    if q == 1:
        return "scalar", open_to
    apart, own = ~np.eye(n, dtype=bool), np.arange(n)
    if n == q and look.vanishes(b)[apart].all():
        others = moves[own, own] & apart  # the other coordinates on which b_ii depends
        if others.any():
            d = b.reshape(-1)[:: n + 1]
            slopes = look.along(d, v) - v * stack([vjp(d[i], y)[i] for i in own])  # of b_ii along the other coordinates
            others &= ~look.vanishes(slopes)[:, None]
        if not others.any():
            return "diagonal", open_to
    f, g = b @ w, b @ z
    if look.vanishes(look.along(g, f) - look.along(f, g)).all():  # the sum of w_j z_k ((b_j . grad) b_k - (b_k . grad) b_j)
        return "commutative", ()
    return "general", open_to


def _entries(sde: Any, rows: int) -> tuple[Value, Value] | None:
    """Return b(y), `(rows, noise_dim)`, and y, `(rows,)`, as graph values; None if b cannot be traced. b is the Jacobian in u of b(y) u."""
    trace = Trace()
    y, u = trace.input("y", (rows,)), trace.input("u", (sde.noise_dim,))
    clock = [trace.uniform(f"s{i}") for i in range(sde.signals)]
    try:
        with np.errstate(all="ignore"):
            product = value(sde.diffusion(y, list(u), None, clock))
            b = stack([vjp(product[i], u) for i in range(rows)])
    except Exception:  # an error of the user's code on inputs of the graph
        return None
    return None if any(node is u for node in order([b])) else (b, y)


def _signals(sde: Any) -> Sequence[Any]:
    """Return the time-dependent numbers at time 0.4, `(sde.signals,)`; an empty tuple without any."""
    return sde.signal_values(np.array([0.4]), 0.0, 0.0)[0] if sde.signals else ()


def _is_within(inner: str, outer: str, n: int) -> bool:
    """Whether noise of class `inner` in `n` coordinates has class `outer` as well."""
    if inner in (outer, "none") or outer == "general" or (inner == "additive" and outer != "none"):
        return True
    return (outer == "commutative" and inner in ("scalar", "diagonal")) or (n == 1 and (inner, outer) == ("scalar", "diagonal"))


def _point_text(point: np.ndarray) -> str:
    """Return a point `(rows,)` as text for a message, such as "x=[0.5, 2.0]"."""
    return f"x={[float(f'{v:.4g}') for v in point]}"
