"""Moments of linear SDEs, exact in time, and of integrators on linear SDEs, exact at a finite step.

With Y = (1, y), y the state of n coordinates, all parts one after another, a linear SDE is dY = A Y dt + sum_j B_j Y dW_j (Ito). The second moments P
= E[Y Y^T], which include the mean, obey

    P' = A P + P A^T + sum_j B_j P B_j^T,

which is solved by one matrix exponential. A step of an integrator is Y' = M(z) Y with a random matrix that is a polynomial in the draws
z, so P' = E[M P M^T] is a finite sum over Gauss-Hermite nodes for normal draws and over the atoms of other draws. With additive noise
M is affine in z, and nodes with the right mean and covariance are sufficient, whose number is linear in the dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import few_paths, on_rows, with_outliers
from sdetools.dynamics.integrators.base import Integrator
from sdetools.dynamics.sdes.sde import SDE
from sdetools.exact.first_state import first_state, known_start
from sdetools.exact.recorded import Moments, recorded
from sdetools.noise.base import Normal, Sign, Uniform
from sdetools.starts import point

NODES = 7
"""Number of Gauss-Hermite nodes per draw, exact for polynomials up to degree 13, more than a squared step of weak order 2 has."""
MOST = 200_000
"""Largest number of nodes per step."""
ATOMS = np.array([1 / 12, 0.5, 11 / 12])
"""Values of the uniform draw for which a three-point draw is -sqrt(3), 0 and sqrt(3), with probabilities 1/6, 2/3 and 1/6."""
_TOLERANCE = 1e-9


def solution(sde: SDE, x0: Sequence[float], times: Sequence[float], pieces: int = 1) -> Moments:
    """Return the mean and covariance of the solution of a linear SDE at given times; they are exact for constant coefficients.

    Args:
        sde: An SDE whose drift and diffusion are affine in its state, in either calculus.
        x0: A point `(dim,)`, or a law from `st.starts` with a mean and covariance.
        times: Increasing times >= 0, at least one; at time 0 the moments are those of `x0`.
        pieces: The number of equal pieces between two of the times on which time-dependent coefficients are replaced by their value in the middle.
            The result is exact for coefficients that are constant on each piece.

    Returns:
        The moments of all parts of the state, at `times`; the field `steps` numbers the times from 0.

    Raises:
        ValueError: If the SDE is not linear in its state, or if another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> ou = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
        >>> m = st.exact.solution(ou, x0=[1.0], times=[1.0])
        >>> m.mean.ravel().round(6), m.covariance.ravel().round(6)
        (array([0.367879]), array([0.432332]))
    """
    if not isinstance(sde, SDE):
        raise ValueError(f"`sde` must be an SDE; got {sde!r}. Make one with st.SDE(drift=..., diffusion=...).")
    times = np.atleast_1d(_check.finite("times", times))
    if times.ndim != 1 or not len(times) or np.any(np.diff(times) <= 0) or times[0] < 0:
        raise ValueError(f"`times` must increase and be at least 0; got {times!r}.")
    pieces = _check.count("pieces", pieces)
    sizes, second, normal_start = _begin(sde, x0)
    kept, now = [], 0.0
    flows: dict[tuple[str, bytes], np.ndarray] = {}
    for until in times.tolist():
        h = (until - now) / pieces
        for n in range(pieces if h > 0 else 0):
            signals = sde.signal_values(np.array([now + n * h]), 0.5, h)[0] if sde.signals else np.zeros(0)
            key = f"{h:.13g}", np.asarray(signals).tobytes()  # equal steps may differ by rounding
            if key not in flows:
                if len(flows) >= 256:
                    flows.clear()
                flows[key] = _flow(sde, signals, h)
            second = (flows[key] @ second.ravel()).reshape(second.shape)
        kept.append(second)
        now = until
    gaussian = normal_start and sde.noise_class in ("none", "additive")
    return _moments(np.arange(len(times)), times, np.array(kept), sde, sizes, gaussian)


def integrator_moments(
    dynamics: Integrator, x0: Sequence[float], steps: int, record: Sequence[int] | np.ndarray | None = None
) -> Moments:
    """Return the mean and covariance of an integrator's state on a linear SDE; they are exact at the integrator's finite step dt.

    Args:
        dynamics: The integrator, whose SDE must have a drift and diffusion that are affine in its state.
        x0: A point `(dim,)`, or a law from `st.starts` with a mean and covariance.
        steps: The number of steps, 0 or more.
        record: The steps at which moments are returned, increasing; by default 0, ..., `steps`.

    Returns:
        The moments at the recorded steps; `times` is step * dt.

    Raises:
        ValueError: If the SDE is not linear in its state, if a step needs more than 200,000 nodes (combinations of values of its draws), or
            if another argument is invalid.
    """
    steps = _check.count("steps", steps, least=0)
    kept = recorded(record, steps)
    sizes, second, normal_start = _begin(dynamics.sde, x0)
    affine = dynamics.sde.noise_class in ("none", "additive")
    nodes, weights = _centre_and_axes(dynamics) if affine else _nodes(dynamics)
    rows = dynamics.coefficient_values(max(1, int(kept[-1])))
    out: list[np.ndarray] = [second] if kept[0] == 0 else []
    marks = set(kept.tolist())
    known: tuple[bytes, np.ndarray] | None = None
    for k in range(int(kept[-1])):
        key = rows[k].tobytes()
        if known is None or known[0] != key:
            known = key, _step_map(dynamics, nodes, weights, rows[k])
        with np.errstate(over="ignore", invalid="ignore"):  # the moments of an unstable step overflow, as its simulation does
            second = (known[1] @ second.ravel()).reshape(second.shape)
        if k + 1 in marks:
            out.append(second)
    gaussian = dynamics.sde.noise_class == "none" or (dynamics.sde.noise_class == "additive" and dynamics.law == "normal")
    return _moments(kept, kept * dynamics.step_time, np.array(out), dynamics.sde, sizes, normal_start and gaussian)


def _begin(sde: SDE, x0: Any) -> tuple[list[int], np.ndarray, bool]:
    """Return the lengths of the parts of the state, E[Y Y^T] of the initial Y = (1, y), `(n + 1, n + 1)`, and whether the initial state is Gaussian."""
    mean, covariance, sizes, gaussian = first_state(sde, known_start(x0, sde.dim))
    y = np.concatenate([[1.0], mean])
    second = np.outer(y, y)
    second[1:, 1:] += covariance
    return sizes, second, gaussian


def _flow(sde: SDE, signals: Any, h: float) -> np.ndarray:
    """Return the matrix by which E[Y Y^T], flattened row by row, is multiplied in the time `h`, `((n + 1)^2, (n + 1)^2)`.

    `signals` are the time-dependent numbers of the SDE in this time, `(signals,)`.
    """
    from scipy.linalg import expm

    A, B = _linear(sde, signals)
    eye = np.eye(len(A))
    return expm((np.kron(eye, A) + np.kron(A, eye) + sum(np.kron(b, b) for b in B)) * h)


def _linear(sde: SDE, signals: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return A and the list of the B_j of dY = A Y dt + sum_j B_j Y dW_j (Ito) for Y = (1, y), each `(n + 1, n + 1)`; ValueError if the SDE is not linear."""
    n = sde.dim * len(sde.parts)
    A = _affine(lambda y: sde.drift(y, None, signals), n, "drift")
    units = np.eye(sde.noise_dim)
    B = [_affine(lambda y, u=u: sde.diffusion(y, u, None, signals), n, "diffusion") for u in units]
    if sde.calculus == "stratonovich":
        A = A + 0.5 * sum(b @ b for b in B)
    return A, B


def _affine(function: Any, n: int, name: str) -> np.ndarray:
    """Return the matrix `(n + 1, n + 1)` of (1, y) -> (0, function(y)) for an affine function from `(n,)` to `(n,)`, checked at a random point.

    ValueError if it is not affine; `name` is what the message calls it.
    """
    out = np.zeros((n + 1, n + 1))
    with np.errstate(all="ignore"):  # values that are not finite fail the check
        out[1:, 0] = function(np.zeros(n))
        out[1:, 1:] = np.stack([function(e) for e in np.eye(n)], axis=1) - out[1:, :1]
        probe = np.random.default_rng(20240605).standard_normal(n)
        error = np.abs(function(probe) - out[1:] @ np.concatenate([[1.0], probe]))
    if not (np.isfinite(out).all() and np.all(error <= _TOLERANCE * (1 + np.abs(out).max()) * (1 + np.abs(probe).max()))):
        raise ValueError(f"exact moments must be of an SDE that is linear in its state; its {name} is not. Simulate it.")
    return out


def step_law(dynamics: Integrator, x0: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the law of an integrator's state X_1 after its first step, as weighted points; the SDE need not be linear.

    The weighted sum of a function h over the points is E h(X_1). It is exact for draws with two or three values, and for normal draws, which
    are replaced by 7 Gauss-Hermite nodes each, if h(X_1) is a polynomial of degree at most 13 in each draw.

    Args:
        dynamics: An integrator on any SDE.
        x0: The initial point, shape `(dim,)`.

    Returns:
        The points, shape `(n, points)` with the n coordinates of the state (all its parts in order), and their weights, shape `(points,)`,
        which sum to 1.

    Raises:
        ValueError: If `dynamics` is no integrator, or if more than 200,000 points are needed.

    Example:
        >>> import sdetools as st
        >>> gbm = st.SDE(drift=["0.5*x"], diffusion=["x"], variables="x")
        >>> points, weights = st.exact.step_law(st.EulerMaruyama(gbm, dt=0.5), [1.0])
        >>> [round(float(weights @ points[0] ** k), 12) for k in (1, 2, 3)]
        [1.25, 2.0625, 3.828125]
    """
    if not isinstance(dynamics, Integrator):
        raise ValueError(f"`dynamics` must be an integrator; got {dynamics!r}. For moments of an optimiser use st.exact.moments.")
    nodes, weights = _nodes(dynamics)
    state = dynamics.sde.start(point(x0, dynamics.dim, "step_law"))
    return _mover(dynamics, nodes, dynamics.coefficient_values(1)[0])(np.concatenate(state)), weights


def _nodes(dynamics: Integrator) -> tuple[np.ndarray, np.ndarray]:
    """Return all combinations of the values of the draws of one step, `(draws, nodes)`, and their probabilities or weights, `(nodes,)`.

    A normal draw has 7 Gauss-Hermite nodes, a sign its 2 values, a uniform draw the 3 values `ATOMS` of a three-point draw. ValueError above 200,000.
    """
    hermite, weights = np.polynomial.hermite_e.hermegauss(NODES)
    options: list[tuple[np.ndarray, np.ndarray]] = []
    for draw in dynamics.draws:
        if isinstance(draw, Normal):
            one = (hermite, weights / weights.sum())
        elif isinstance(draw, Sign):
            one = (np.array([-1.0, 1.0]), np.array([0.5, 0.5]))
        else:
            one = (ATOMS, np.array([1 / 6, 2 / 3, 1 / 6]))
        options += [one] * draw.n
    count = math.prod(len(o[0]) for o in options)
    if count > MOST:
        raise ValueError(
            f"exact moments must have at most {MOST:,} nodes per step; {dynamics.name} needs {count:,} here. Simulate it."
        )
    points = np.array(list(product(*(o[0] for o in options)))).reshape(count, -1).T
    joint = np.array(list(product(*(o[1] for o in options)))).reshape(count, -1).prod(axis=1)
    return points, joint


def _centre_and_axes(dynamics: Integrator) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes with the mean 0 and the covariance I of the draws, which are sufficient where a step is affine in them.

    Each of n draws takes the values +-sqrt(3) with weight 1/6 while the others are 0; the remaining weight, 1 - n/3, is at the centre. The result is
    the nodes, `(n, 2 n + 1)`, and their weights, `(2 n + 1,)`.
    """
    three = [ATOMS if isinstance(draw, Uniform) else np.array([-1.0, 0.0, 1.0]) * math.sqrt(3.0) for draw in dynamics.draws]
    rows = np.concatenate([np.tile(values, (draw.n, 1)) for values, draw in zip(three, dynamics.draws)] or [np.zeros((0, 3))])
    n = len(rows)
    points = np.repeat(rows[:, 1:2], 2 * n + 1, axis=1)
    points[np.arange(n), np.arange(n)] = rows[:, 0]
    points[np.arange(n), n + np.arange(n)] = rows[:, 2]
    return points, np.array([1 / 6] * (2 * n) + [1 - n / 3])


def _mover(dynamics: Integrator, nodes: np.ndarray, coefficients: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that maps a state `y`, `(n,)`, to the states after a step, one for each node, `(n, nodes)`.

    Args:
        dynamics: The integrator.
        nodes: The values of the draws of a step, `(draws, nodes)`.
        coefficients: The numbers of the step, a row of `coefficient_values`.
    """
    count, parts, rng = nodes.shape[1], len(dynamics.sde.parts), np.random.default_rng(20240607)

    def moved(z: np.ndarray, *state: np.ndarray) -> np.ndarray:
        new = dynamics.rule(state, dynamics.bind(z), *coefficients)
        return np.concatenate([np.broadcast_to(part, (dynamics.dim, *z.shape[1:])) for part in new])

    n = few_paths(dynamics.dim)
    states = with_outliers(rng.standard_normal((parts, dynamics.dim, n)))
    step = on_rows(moved, *([nodes[:, rng.integers(0, count, n)], *state] for state in states))
    return lambda y: step(nodes, *(np.repeat(part[:, None], count, axis=1) for part in np.split(y, parts)))


def _step_map(dynamics: Integrator, nodes: np.ndarray, weights: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return E[M kron M], where M is the random matrix of one step on Y = (1, y): by it E[Y Y^T], flattened row by row, is multiplied in the step.

    Args:
        dynamics: The integrator.
        nodes: Values of the draws of a step, `(draws, nodes)`.
        weights: Their weights, `(nodes,)`.
        coefficients: The numbers of the step, a row of `coefficient_values`.

    Raises:
        ValueError: If the step is not affine in the state.
    """
    n, count = dynamics.dim * len(dynamics.sde.parts), nodes.shape[1]
    probe = np.random.default_rng(20240606).standard_normal(n)
    moved, M = _mover(dynamics, nodes, coefficients), np.zeros((count, n + 1, n + 1))
    M[:, 0, 0] = 1.0
    with np.errstate(all="ignore"):  # values that are not finite fail the check
        origin, *units, probed = map(moved, (np.zeros(n), *np.eye(n), probe))
        M[:, 1:, 0] = origin.T
        for i, unit in enumerate(units):
            M[:, 1:, i + 1] = (unit - origin).T
        error = np.abs(probed.T - M[:, 1:, 0] - M[:, 1:, 1:] @ probe)
    if not (np.isfinite(M).all() and np.all(error <= _TOLERANCE * (1 + np.abs(M).max()) * (1 + np.abs(probe).max()))):
        raise ValueError(
            f"exact moments must be of an SDE that is linear in its state; a step of {dynamics.name} is not. Simulate it."
        )
    return np.einsum("c,cij,ckl->ikjl", weights, M, M, optimize=True).reshape((n + 1) ** 2, (n + 1) ** 2)


def _moments(steps: np.ndarray, times: np.ndarray, second: np.ndarray, sde: SDE, sizes: list[int], gaussian: bool) -> Moments:
    """Return `Moments` from the second moments E[Y Y^T] of Y = (1, y) at all times, `(times, n + 1, n + 1)`; `sizes` are the lengths of the parts."""
    mean = second[:, 1:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        covariance = second[:, 1:, 1:] - mean[:, :, None] * mean[:, None, :]
    return Moments(steps, times, mean, covariance, dict(zip(sde.parts, sizes, strict=True)), tuple(sde.names), gaussian)
