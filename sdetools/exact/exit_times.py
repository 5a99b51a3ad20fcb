r"""Mean exit times in one dimension: the integral for an SDE, and the equation of a Markov chain for steps with Gaussian noise.

For dX = a dt + b dW let s(y) = exp(-int^y 2 a / b^2) be the scale density, m = 2 / (b^2 s) the speed density, and S(y) = int^y s. x ^ z is the
smaller of two numbers, x v z the larger. The mean time to leave (low, high) from x is

    tau(x) = int_low^high G(x, z) m(z) dz,        G(x, z) = (S(x ^ z) - S(low)) (S(high) - S(x v z)) / (S(high) - S(low)),

and for low = -inf, where the process does not get to -inf, G(x, z) = S(high) - S(x v z). For a = -V', b^2 = 2 eps the latter is

    tau(x) = (1/eps) int_x^high e^{V(y)/eps} int_{-inf}^y e^{-V(z)/eps} dz dy.

All terms are positive, so that no digits cancel at high barriers. A step x_{k+1} = mu(x_k) + sigma(x_k) xi_k with normal xi_k, of time h, leaves at the
first k with x_k outside. Its mean exit time T solves T(x) = h + int_low^high N(y; mu(x), sigma(x)^2) T(y) dy, a Fredholm equation of the second
kind, which Nystrom's method solves with the accuracy of Gauss-Legendre quadrature.

Source: S. Karlin, H. M. Taylor, A Second Course in Stochastic Processes (1981), section 15.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Moving
from sdetools.dynamics.sdes.sde import SDE
from sdetools.noise.base import Normal
from sdetools.starts import point

NODES = 16
"""The number of Gauss-Legendre nodes of a panel."""
DECAY = 45.0
"""An infinite side is truncated where the stationary density is exp(-45) = 3e-20 of its largest value."""
MOST_NODES = 4000
"""The largest number of nodes of the linear system of a chain."""
_PANELS = (64, 128, 256, 512, 1024, 2048, 4096)
_PRECISION = 1e-11

Field = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""A process as a function of points `(points,)`: for an SDE drift and variance b^2, for a chain mean and standard deviation of x', each `(points,)`."""


def exit_time(of: Any, x0: Sequence[float], low: float | None = None, high: float | None = None) -> float:
    """Return the mean time E tau at which a one-dimensional process leaves the interval (low, high).

    For a dynamics tau is the time of the first step outside, as simulations see it. Its mean is above that of the SDE by a term of order
    sqrt(dt), because a path may leave and return between two steps.

    Args:
        of: An SDE with coefficients that do not depend on time, or a dynamics whose step has one part and is affine in normal draws: SGD with
            Gaussian noise, or `st.EulerMaruyama`.
        x0: The start, shape `(1,)`; outside of the interval the result is 0.
        low: The lower end; None for an open side, if the process does not drift to -inf there.
        high: The upper end; None for an open side, if the process does not drift to inf there. At least one of the two is given.

    Returns:
        The mean exit time in the unit of time of `of`; an SDE's to a relative error near 1e-11, a chain's near 1e-9.

    Raises:
        ValueError: If the process does not qualify, if no end is given, if the process drifts away at an open end, or if a chain's steps are too
            small for the interval.

    Example:
        >>> import sdetools as st
        >>> motion = st.SDE(drift=["0"], diffusion=["1"], variables="x")
        >>> round(st.exact.exit_time(motion, [0.25], low=-1.0, high=1.0), 9)  # 1 - x^2
        0.9375
        >>> round(st.exact.exit_time(st.EulerMaruyama(motion, 0.01), [0.25], low=-1.0, high=1.0), 4)
        1.0599
    """
    if getattr(of, "dim", None) != 1 or not isinstance(of, (SDE, Moving)):
        raise ValueError(
            f"`of` must be an SDE or a dynamics in one dimension; got {_check.shown(of)}. Simulate others: st.exit_time."
        )
    x = float(point(x0, 1, "exact.exit_time")[0])
    left = -math.inf if low is None else _check.number("low", low)
    right = math.inf if high is None else _check.number("high", high)
    if left == -math.inf and right == math.inf:
        raise ValueError(
            "`low` or `high` must be given, the end at which the process leaves; got neither. Pass for example high=1.0."
        )
    if left >= right:
        raise ValueError(f"`low` must be below `high`; got low={low!r} and high={high!r}. Swap them.")
    field = _coefficients(of) if isinstance(of, SDE) else _normal_step(of)
    if not left < x < right:
        return 0.0
    return _integral(field, x, left, right) if isinstance(of, SDE) else _chain(field, x, left, right, of.step_time)


# ---- the process as two functions of x: drift and variance, or mean and deviation of a step


def _coefficients(sde: SDE) -> Field:
    """Return the function x -> (a, b^2) of an SDE in one dimension, with b^2 the sum over Brownian motions.

    Raises:
        ValueError: If the SDE has several parts or no noise, depends on time, or is a Stratonovich equation whose noise depends on x.
    """
    if len(sde.parts) != 1 or sde.noise_dim == 0:
        raise ValueError(f"`of` must have noise and no momentum; got {sde!r}. Simulate it: st.exit_time.")
    if sde.calculus != "ito" and sde.noise_class != "additive":
        raise ValueError(f"`of` must be an Ito equation; got the {sde.calculus} calculus. Add (1/2) b b' to its drift.")
    numbers = sde.signal_values(np.linspace(0.0, 1000.0, 1001), 0.0, 1.0)
    if numbers.size and not (numbers == numbers[:1]).all():
        raise ValueError(f"`of` must not depend on time; got {sde!r}. Simulate it: st.exit_time.")
    s = numbers[0] if numbers.size else ()

    def field(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = x[None, :]
        columns = [sde.diffusion(y, [float(i == j) for i in range(sde.noise_dim)], None, s)[0] for j in range(sde.noise_dim)]
        return np.asarray(sde.drift(y, None, s)[0], dtype=float), np.sum(np.square(columns), axis=0)

    return field


def _normal_step(dynamics: Moving) -> Field:
    """Return the function x -> (mean, standard deviation) of x' after a step from x.

    Raises:
        ValueError: If the dynamics has several parts, its steps are not affine in normal draws, or its coefficients change.
    """
    draws, rows = sum(d.n for d in dynamics.draws), dynamics.coefficient_values(1000)
    if len(dynamics.parts) != 1 or not draws or not all(isinstance(d, Normal) for d in dynamics.draws):
        raise ValueError(
            f"`of` must have one part and normal draws; got {dynamics!r} with the parts {', '.join(dynamics.parts)}. Simulate it: st.exit_time."
        )
    if not (rows == rows[:1]).all():
        raise ValueError(f"`of` must have constant coefficients; got {dynamics!r}. Simulate it: st.exit_time.")

    def moved(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        new = dynamics.rule((x[None, :],), dynamics.bind(np.repeat(z[:, None], len(x), axis=1)), *rows[0])[0]
        return np.broadcast_to(np.asarray(new, dtype=float), (1, len(x)))[0]

    def field(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = moved(x, np.zeros(draws))
        return mean, np.sqrt(sum((moved(x, unit) - mean) ** 2 for unit in np.eye(draws)))

    x, z = np.linspace(-1.5, 1.5, 7), np.random.default_rng(0).standard_normal(draws)
    mean = moved(x, np.zeros(draws))
    affine = mean + sum(own * (moved(x, unit) - mean) for own, unit in zip(z, np.eye(draws)))
    if not np.allclose(moved(x, z), affine, rtol=1e-9, atol=1e-12):
        raise ValueError(f"`of` must have steps that are affine in their draws; got {dynamics!r}. Simulate it: st.exit_time.")
    return field


# ---- quadrature


def _legendre() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Gauss-Legendre nodes and weights on [-1, 1], `(NODES,)` each, and the matrix of indefinite integrals, `(NODES, NODES)`.

    The matrix takes values at the nodes to the integrals from -1 to each node.
    """
    x, w = np.polynomial.legendre.leggauss(NODES)
    values = np.polynomial.legendre.legvander(x, NODES)
    degree = np.arange(NODES)
    fit = ((2 * degree + 1) / 2)[:, None] * (values[:, :NODES] * w[:, None]).T
    below = np.concatenate([-np.ones((NODES, 1)), values[:, : NODES - 1]], axis=1)
    integrals = (values[:, 1 : NODES + 1] - below) / (2 * degree + 1)
    integrals[:, 0] = x + 1.0
    return x, w, integrals @ fit


class _Panels:
    """Gauss-Legendre panels of an interval, subintervals with 16 nodes each, with cumulative integrals at the nodes.

    Args:
        edges: The ends of the panels, `(panels + 1,)`, monotone; decreasing ones give integrals in that direction.

    Attributes:
        x: The nodes, panel after panel, `(nodes,)`.
        weights: Their weights: the integral of f over the interval is the sum of weights * f(x), `(nodes,)`.
        half: Half the length of each panel, with its sign, `(panels,)`.
    """

    def __init__(self, edges: np.ndarray) -> None:
        x, self.w, self.integrals = _legendre()
        self.half = np.diff(edges) / 2
        self.x = (edges[:-1, None] + self.half[:, None] * (1 + x)).ravel()
        self.weights = (self.half[:, None] * self.w).ravel()

    def upward(self, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the integral of `f`, values at the nodes `(nodes,)`, from the first edge to each node, `(nodes,)`, and to each edge, `(panels + 1,)`."""
        rows = f.reshape(len(self.half), NODES) * self.half[:, None]
        at_edges = np.concatenate([[0.0], np.cumsum(rows @ self.w)])
        return (at_edges[:-1, None] + rows @ self.integrals.T).ravel(), at_edges

    def downward(self, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the integral of `f`, values at the nodes, from each node to the last edge, `(nodes,)`, and from each edge, `(panels + 1,)`.

        It is summed from the last edge, so that no digits cancel.
        """
        rows = f.reshape(len(self.half), NODES) * self.half[:, None]
        whole = rows @ self.w
        at_edges = np.concatenate([np.cumsum(whole[::-1])[::-1], [0.0]])
        return (at_edges[1:, None] + (whole[:, None] - rows @ self.integrals.T)).ravel(), at_edges


def _open_end(field: Field, x: float, toward: float, sign: float, name: str) -> float:
    """Return the place at which an open side is truncated: where the stationary density is e^-45 of its largest value before, and remains below.

    Args:
        field: The function x -> (drift, variance) per unit of time.
        x: The start of the process.
        toward: The other end of the interval.
        sign: -1.0 for the left side, 1.0 for the right.
        name: The name of the missing argument, for the message.

    Raises:
        ValueError: If the stationary density does not decay, so that the process may go to infinity.
    """
    span = abs(toward - x) + 1.0
    for _ in range(24):
        panels = _Panels(np.linspace(toward, x + sign * span, 513))
        drift, variance = field(panels.x)
        with np.errstate(all="ignore"):
            density = panels.upward(2 * drift / variance)[0] - np.log(variance)
        if not np.isfinite(density).all():
            break
        before, beyond = np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1]
        past = np.flatnonzero((beyond < before - DECAY) & (sign * (panels.x - x) > 0))
        if len(past):
            return float(panels.x[past[0]])
        span *= 2
    raise ValueError(
        f"`{name}` must be given where the process may go to infinity; its stationary density does not decay there. Pass {name}=."
    )


def _integral(field: Field, x: float, low: float, high: float) -> float:
    """Return the mean exit time of an SDE from `x`, by panels that are halved until the result no longer changes.

    Args:
        field: The function x -> (a, b^2).
        x: The start, inside the interval.
        low: The lower end, or -infinity.
        high: The upper end, or infinity.

    Raises:
        ValueError: If 4,096 panels are not enough, or the process may go to infinity at an open end.
    """
    left = _open_end(field, x, high, -1.0, "low") if low == -math.inf else low
    right = _open_end(field, x, low, 1.0, "high") if high == math.inf else high
    before = math.nan
    for count in _PANELS:
        below = max(1, round(count * (x - left) / (right - left)))
        edges = np.concatenate([np.linspace(left, x, below + 1), np.linspace(x, right, max(1, count - below) + 1)[1:]])
        found = _green(field, _Panels(edges), below, low, high)
        if abs(found - before) <= _PRECISION * abs(found):
            return found
        before = found
    raise ValueError(
        f"`of` must have coefficients that quadrature resolves between {left:.3g} and {right:.3g}, with b > 0; the last two values are "
        f"{before:.10g} and {found:.10g}. Take a narrower interval, or simulate it: st.exit_time."
    )


def _green(field: Field, panels: _Panels, start: int, low: float, high: float) -> float:
    """Return the integral of G(x, z) m(z) over z of the module, for the start x at the edge of index `start`.

    For an infinite `low` or `high`, which the panels truncate, G is that of the one finite end.
    """
    drift, variance = field(panels.x)
    with np.errstate(all="ignore"):
        exponent = panels.upward(2 * drift / variance)[0]
        exponent = exponent - exponent.mean()
        s, speed = np.exp(-exponent), 2 / variance * np.exp(exponent)
        (below, below_edges), (above, above_edges) = panels.upward(s), panels.downward(s)
        left, right, after = below_edges[start], above_edges[start], np.arange(len(s)) >= start * NODES
        if low == -math.inf:
            green = np.where(after, above, right)
        elif high == math.inf:
            green = np.where(after, left, below)
        else:
            green = np.where(after, left * above, right * below) / below_edges[-1]
        return float(np.sum(panels.weights * green * speed))


def _chain(field: Field, x: float, low: float, high: float, h: float) -> float:
    """Return the mean exit time of a chain with normal steps from `x`, each of time `h`, by Nystrom's method.

    Args:
        field: The function x -> (mean, standard deviation) of the next point.
        x: The start, inside the interval.
        low: The lower end, or -infinity.
        high: The upper end, or infinity.
        h: The time of a step.

    Raises:
        ValueError: If the noise of a step is too small for 4,000 nodes, or the process may go to infinity at an open end.
    """

    def per_time(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, deviation = field(y)
        return (mean - y) / h, deviation**2 / h

    left = _open_end(per_time, x, high, -1.0, "low") if low == -math.inf else low
    right = _open_end(per_time, x, low, 1.0, "high") if high == math.inf else high
    deviation = field(np.linspace(left, right, 2001))[1]
    least = float(deviation.min())
    count = math.ceil((right - left) / (3 * least)) if least > 0 else math.inf
    if count * NODES > MOST_NODES:
        raise ValueError(
            f"`of` must have steps whose noise is at least {3 * NODES:g} / {MOST_NODES} of the interval from {left:.3g} to {right:.3g}; the least "
            f"is {least:.3g}. Take longer steps, or the integral of the SDE."
        )
    panels = _Panels(np.linspace(left, right, int(count) + 1))
    mean, deviation = (v[:, None] for v in field(np.concatenate([[x], panels.x])))
    kernel = np.exp(-0.5 * ((panels.x - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi)) * panels.weights
    inside = np.linalg.solve(np.eye(len(panels.x)) - kernel[1:], np.full(len(panels.x), h))
    return float(h + kernel[0] @ inside)
