r"""Moments of linear SDEs, and of integrators on them: exact in time, and exact at a finite step.

With Y = (1, y) a linear SDE is dY = A Y dt + sum_j B_j Y dW_j (Ito), so the second moments P = E[Y Y^T], which hold the mean too, obey

    P' = A P + P A^T + sum_j B_j P B_j^T,

solved by one matrix exponential. An integrator's step on it is Y' = M(z) Y with a random matrix that is a polynomial in the draws z,
so P' = E[M P M^T] is a finite sum: Gauss-Hermite nodes for normal draws, the atoms themselves for the others. With additive noise M is
affine in z, and two nodes a draw are enough: that is exact in any dimension.
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
"""Gauss-Hermite nodes a draw: exact for polynomials up to degree 13, more than a squared step of weak order 2 has."""
MOST = 200_000
ATOMS = np.array([1 / 12, 0.5, 11 / 12])
"""Where the uniform behind a three-point draw gives -sqrt(3), 0 and sqrt(3), with probabilities 1/6, 2/3 and 1/6."""
_TOLERANCE = 1e-9


def solution(sde: SDE, x0: Sequence[float], times: Sequence[float], pieces: int = 1) -> Moments:
    r"""Exact mean and covariance of the solution of a linear SDE at `times` (increasing, from 0 on).

    `x0`: a point `(dim,)`, or a law from `st.starts` whose mean and covariance are known.

    Time-dependent coefficients are held over `pieces` equal pieces between two times, at their value in the middle: exact for those
    that are constant on each piece. ValueError for an SDE that is not linear in its state.

    >>> import sdetools as st
    >>> ou = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
    >>> m = solution(ou, x0=[1.0], times=[1.0])
    >>> m.mean.ravel().round(6), m.covariance.ravel().round(6)
    (array([0.367879]), array([0.432332]))
    """
    if not isinstance(sde, SDE):
        raise ValueError(f"`sde` must be an SDE; got {sde!r}. Make one with st.SDE(drift=..., diffusion=...).")
    times = np.atleast_1d(_check.finite("times", times))
    if times.ndim != 1 or not len(times) or np.any(np.diff(times) <= 0) or times[0] < 0:
        raise ValueError(f"`times` must increase from 0 on; got {times!r}.")
    pieces = _check.count("pieces", pieces)
    sizes, second, normal_start = _begin(sde, x0)
    kept, now = [], 0.0
    flows: dict[tuple[str, bytes], np.ndarray] = {}
    for until in times.tolist():
        h = (until - now) / pieces
        for n in range(pieces if h > 0 else 0):
            signals = sde.signal_values(np.array([now + n * h]), 0.5, h)[0] if sde.signals else np.zeros(0)
            key = f"{h:.13g}", np.asarray(signals).tobytes()  # equal steps differ by rounding only
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
    """Mean and covariance of an integrator on a linear SDE after each recorded step, at its finite dt."""
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
        with np.errstate(over="ignore", invalid="ignore"):  # an unstable step ends in infinities, as its simulation would
            second = (known[1] @ second.ravel()).reshape(second.shape)
        if k + 1 in marks:
            out.append(second)
    gaussian = dynamics.sde.noise_class == "none" or (dynamics.sde.noise_class == "additive" and dynamics.law == "normal")
    return _moments(kept, kept * dynamics.step_time, np.array(out), dynamics.sde, sizes, normal_start and gaussian)


def _begin(sde: SDE, x0: Any) -> tuple[list[int], np.ndarray, bool]:
    """Sizes of the parts, E[Y Y^T] at the start, and whether it is Gaussian."""
    mean, covariance, sizes, gaussian = first_state(sde, known_start(x0, sde.dim))
    y = np.concatenate([[1.0], mean])
    second = np.outer(y, y)
    second[1:, 1:] += covariance
    return sizes, second, gaussian


def _flow(sde: SDE, signals: Any, h: float) -> np.ndarray:
    """exp(h G), G the generator of the second moments."""
    from scipy.linalg import expm

    A, B = _linear(sde, signals)
    eye = np.eye(len(A))
    return expm((np.kron(eye, A) + np.kron(A, eye) + sum(np.kron(b, b) for b in B)) * h)


def _linear(sde: SDE, signals: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """The matrices of Ito's form on (1, y)."""
    n = sde.dim * len(sde.parts)
    A = _affine(lambda y: sde.drift(y, None, signals), n, "drift")
    units = np.eye(sde.noise_dim)
    B = [_affine(lambda y, u=u: sde.diffusion(y, u, None, signals), n, "diffusion") for u in units]
    if sde.calculus == "stratonovich":
        A = A + 0.5 * sum(b @ b for b in B)
    return A, B


def _affine(function: Any, n: int, name: str) -> np.ndarray:
    """The matrix of an affine function on (1, y), probed for being one."""
    out = np.zeros((n + 1, n + 1))
    with np.errstate(all="ignore"):  # what is not finite fails the probe
        out[1:, 0] = function(np.zeros(n))
        out[1:, 1:] = np.stack([function(e) for e in np.eye(n)], axis=1) - out[1:, :1]
        probe = np.random.default_rng(20240605).standard_normal(n)
        error = np.abs(function(probe) - out[1:] @ np.concatenate([[1.0], probe]))
    if not (np.isfinite(out).all() and np.all(error <= _TOLERANCE * (1 + np.abs(out).max()) * (1 + np.abs(probe).max()))):
        raise ValueError(
            f"exact moments must be of an SDE that is linear in its state; a probe of the {name} is not. Simulate it."
        )
    return out


def step_law(dynamics: Integrator, x0: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    r"""The law of an integrator's first step from `x0` as weighted points: `(rows of the state, nodes)` and weights of sum 1.

    The mean of h(X_1) is the weighted sum of h over the points: exact for two- and three-point draws, and for normal ones where it is a
    polynomial of each draw of degree 13 at most. The SDE need not be linear. ValueError where it takes more than 200,000 points.

    >>> import sdetools as st
    >>> gbm = st.SDE(drift=["0.5*x"], diffusion=["x"], variables="x")
    >>> points, weights = step_law(st.EulerMaruyama(gbm, dt=0.5), [1.0])
    >>> [round(float(weights @ points[0] ** k), 12) for k in (1, 2, 3)]
    [1.25, 2.0625, 3.828125]
    """
    if not isinstance(dynamics, Integrator):
        raise ValueError(f"`dynamics` must be an integrator; got {dynamics!r}. Moments of an optimiser are st.exact.moments.")
    nodes, weights = _nodes(dynamics)
    state = dynamics.sde.start(point(x0, dynamics.dim, "step_law"))
    return _mover(dynamics, nodes, dynamics.coefficient_values(1)[0])(np.concatenate(state)), weights


def _nodes(dynamics: Integrator) -> tuple[np.ndarray, np.ndarray]:
    """Nodes `(rows, n)` and weights of the draws of one step."""
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
            f"exact moments must have at most {MOST:,} nodes a step; {dynamics.name} here takes {count:,}. Simulate it."
        )
    points = np.array(list(product(*(o[0] for o in options)))).reshape(count, -1).T
    joint = np.array(list(product(*(o[1] for o in options)))).reshape(count, -1).prod(axis=1)
    return points, joint


def _centre_and_axes(dynamics: Integrator) -> tuple[np.ndarray, np.ndarray]:
    """Nodes with the mean 0 and the covariance I of the draws: enough where a step is affine in them, as with additive noise.

    Each draw takes +-sqrt(3) with weight 1/6 while the others are 0; what is left of the weight is at the centre.
    """
    three = [ATOMS if isinstance(draw, Uniform) else np.array([-1.0, 0.0, 1.0]) * math.sqrt(3.0) for draw in dynamics.draws]
    rows = np.concatenate([np.tile(values, (draw.n, 1)) for values, draw in zip(three, dynamics.draws)] or [np.zeros((0, 3))])
    n = len(rows)
    points = np.repeat(rows[:, 1:2], 2 * n + 1, axis=1)
    points[np.arange(n), np.arange(n)] = rows[:, 0]
    points[np.arange(n), n + np.arange(n)] = rows[:, 2]
    return points, np.array([1 / 6] * (2 * n) + [1 - n / 3])


def _mover(dynamics: Integrator, nodes: np.ndarray, coefficients: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The state after a step from `y` for every node, `(rows, nodes)`."""
    count, parts, rng = nodes.shape[1], len(dynamics.sde.parts), np.random.default_rng(20240607)

    def moved(z: np.ndarray, *state: np.ndarray) -> np.ndarray:
        new = dynamics.rule(state, dynamics.bind(z), *coefficients)
        return np.concatenate([np.broadcast_to(part, (dynamics.dim, *z.shape[1:])) for part in new])

    n = few_paths(dynamics.dim)
    states = with_outliers(rng.standard_normal((parts, dynamics.dim, n)))
    step = on_rows(moved, *([nodes[:, rng.integers(0, count, n)], *state] for state in states))
    return lambda y: step(nodes, *(np.repeat(part[:, None], count, axis=1) for part in np.split(y, parts)))


def _step_map(dynamics: Integrator, nodes: np.ndarray, weights: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """E[M kron M], M the matrix of one step on (1, y)."""
    n, count = dynamics.dim * len(dynamics.sde.parts), nodes.shape[1]
    probe = np.random.default_rng(20240606).standard_normal(n)
    moved, M = _mover(dynamics, nodes, coefficients), np.zeros((count, n + 1, n + 1))
    M[:, 0, 0] = 1.0
    with np.errstate(all="ignore"):  # what is not finite fails the probe
        origin, *units, probed = map(moved, (np.zeros(n), *np.eye(n), probe))
        M[:, 1:, 0] = origin.T
        for i, unit in enumerate(units):
            M[:, 1:, i + 1] = (unit - origin).T
        error = np.abs(probed.T - M[:, 1:, 0] - M[:, 1:, 1:] @ probe)
    if not (np.isfinite(M).all() and np.all(error <= _TOLERANCE * (1 + np.abs(M).max()) * (1 + np.abs(probe).max()))):
        raise ValueError(
            f"exact moments must be of an SDE that is linear in its state; a probe of {dynamics.name} is not. Simulate it."
        )
    return np.einsum("c,cij,ckl->ikjl", weights, M, M, optimize=True).reshape((n + 1) ** 2, (n + 1) ** 2)


def _moments(steps: np.ndarray, times: np.ndarray, second: np.ndarray, sde: SDE, sizes: list[int], gaussian: bool) -> Moments:
    mean = second[:, 1:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        covariance = second[:, 1:, 1:] - mean[:, :, None] * mean[:, None, :]
    return Moments(steps, times, mean, covariance, dict(zip(sde.parts, sizes, strict=True)), tuple(sde.names), gaussian)
