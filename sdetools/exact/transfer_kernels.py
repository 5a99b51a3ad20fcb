r"""Expectations of Markov chains and diffusions on a line by one matrix on Chebyshev nodes, for steps with kinks too.

A step of a chain maps a function u to T u(x) = E u(x'), and n steps map h to T^n h. With u as a polynomial through its values at Chebyshev nodes T is
a matrix: the law of x' given x is a quadrature over the normal noise of the gradient, cut where the step has kinks or jumps. u stays smooth since E
smooths it, so that the error falls geometrically with the number of nodes. For an SDE dX = b dt + a dW, T is exp(t A) with A u = b u' + (a^2/2) u''
on the same nodes; its drift must point inwards at both ends, where it acts alone. Paths should hardly reach the ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Dynamics
from sdetools.dynamics.rules.clipping import ClippedSGD, NormalisedSGD
from sdetools.dynamics.rules.sign_rules import SignSGD
from sdetools.dynamics.sdes.sde import SDE
from sdetools.exact.closed_observables import value_of
from sdetools.exact.generators.scaled_numbers import constant_row, constant_signals
from sdetools.starts import point

REACH, PANELS, ORDER = 9.0, 12, 20
"""The noise is cut at 9 standard deviations, a probability of 2e-19, and has 12 panels of 20 Gauss-Legendre nodes."""
LEAVING = 1e-8
"""Largest probability of leaving the interval: an expectation is then wrong by at most 1e-8 of the range of h, the precision that claims ask of these operators."""


@dataclass(frozen=True, eq=False, repr=False)
class TransferKernel:
    """The operator u -> E[u(x') | x] of a step from x to x' on Chebyshev nodes; `exact.transfer_kernel` and `exact.semigroup` make it.

    Attributes:
        points: The nodes in the interval, its ends included, decreasing, shape `(nodes,)`.
        matrix: The matrix that takes the values of u at the nodes to those of E u(x'), shape `(nodes, nodes)`.
        leaving: The probability of leaving the interval in a step from each node, shape `(nodes,)`; 0 for `exact.semigroup`.
        step_time: The time of a step; for `exact.semigroup` the time t.
        names: The name of the coordinate in expressions, as a tuple of one.
    """

    points: np.ndarray
    matrix: np.ndarray
    leaving: np.ndarray
    step_time: float
    names: tuple[str, ...]

    def expectation(self, h: Any, x0: Sequence[float], steps: int = 1) -> float:
        """Return E h(x_n) after n = `steps` steps from `x0`.

        Args:
            h: The observable, smooth in the interval: an expression in the name of the coordinate, an object with `value`, or a function of points
                `(1, points)` that returns `(points,)`.
            x0: The initial point in the interval, shape `(1,)`.
            steps: The number of steps, 0 or more.

        Raises:
            ValueError: If `x0` lies outside the interval, or paths leave it with a probability above 1e-8.
        """
        steps, start = _check.count("steps", steps, least=0), float(point(x0, 1, "expectation")[0])
        low, high = self.points[-1], self.points[0]
        if not low <= start <= high:
            raise ValueError(f"`x0` must lie in the interval [{low:g}, {high:g}]; got {start:g}. Make a kernel on a wider one.")
        u = np.broadcast_to(np.asarray(value_of(h, self.names)(self.points[None]), dtype=float), self.points.shape)
        n = len(u)
        whole = np.zeros((n + 1, n + 1))
        whole[:n, :n], whole[:n, n], whole[n, n] = self.matrix, self.leaving, 1.0
        power = np.linalg.matrix_power(whole, steps)
        at = interpolation(self.points, np.array([start]))[0]
        left = abs(float(at @ power[:n, n]))
        if left > LEAVING:
            raise ValueError(
                f"`interval` must contain the paths; they leave [{low:g}, {high:g}] with probability {left:.2g}. Make a kernel on a wider one."
            )
        return float(at @ (power[:n, :n] @ u))

    def __repr__(self) -> str:
        return (
            f"TransferKernel({len(self.points)} nodes in [{self.points[-1]:g}, {self.points[0]:g}], step_time={self.step_time:g})"
        )


def transfer_kernel(
    rule: Dynamics, interval: tuple[float, float], nodes: int = 96, breaks: Sequence[float] | None = None
) -> TransferKernel:
    """Return the operator u -> E[u(x') | x] of a step x -> x' of a rule in one coordinate with one noisy gradient a step, which need not be linear.

    Args:
        rule: A rule with one part in one coordinate, constant coefficients, and normal noise.
        interval: The interval (low, high), which paths must not leave.
        nodes: The number of Chebyshev nodes, 4 to 1024; a comparison with another number shows the error.
        breaks: The values of the noisy gradient where the step has a kink or a jump; by default those of `st.SignSGD`, `st.NormalisedSGD` (0) and
            `st.ClippedSGD` (its limits), and none for other rules.

    Raises:
        ValueError: If the rule has another form, takes its gradient elsewhere than at x, or `interval` or `nodes` is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5)
        >>> sgd = st.SGD(oracle, st.schedules.constant(0.1))
        >>> kernel = st.exact.transfer_kernel(sgd, (-3.0, 3.0))
        >>> round(kernel.expectation("x0**2", [1.0], 20), 10), round(float(st.exact.moments(sgd, [1.0], 20).covariance[-1, 0, 0] + 0.9**40), 10)
        (0.0277442924, 0.0277442924)
    """
    low, high, count = _interval(interval, nodes)
    if not isinstance(rule, Dynamics) or rule.dim != 1 or len(rule.parts) != 1 or rule.extra_draws or rule.copies > 1:
        raise ValueError(
            f"`rule` must have one part in one coordinate and one noisy gradient a step; got {rule!r}. Simulate it instead."
        )
    if not rule.oracle.noise.gaussian:
        raise ValueError(f"`rule` must have normal noise; got {rule.oracle.noise.label}. `exact.sign_chain` takes other laws.")
    row, (x, _) = constant_row(rule), chebyshev(low, high, count)
    cuts = np.sort(np.array(_breaks(rule, row) if breaks is None else _check.finite("breaks", list(breaks)), dtype=float))
    mean = np.broadcast_to(np.asarray(rule.oracle.loss.gradient(x[None]), dtype=float), (1, count))[0]
    deviation = np.sqrt(np.broadcast_to(np.asarray(rule.oracle.covariance(x[None]), dtype=float), (1, 1, count))[0, 0])
    matrix, leaving = np.empty((count, count)), np.empty(count)
    for i in range(count):
        g, weight = _normal_nodes(float(mean[i]), float(deviation[i]), cuts)
        moved = _moved(rule, row, float(x[i]), g)
        leaving[i] = weight[(moved < low) | (moved > high)].sum()
        matrix[i] = weight @ interpolation(x, np.clip(moved, low, high))
    return TransferKernel(x, matrix, leaving, float(rule.step_time), tuple(rule.oracle.loss.names))


def semigroup(sde: SDE, interval: tuple[float, float], time: float, nodes: int = 96) -> TransferKernel:
    """Return the operator u -> E u(X_t) of an Ito SDE dX = b dt + a dW in one coordinate, exp(t A) with the generator A u = b u' + (a^2/2) u''.

    Args:
        sde: The SDE, with coefficients that are constant in time.
        interval: The interval (low, high), at both ends of which the drift points inwards; paths should hardly reach them.
        time: The time t, positive.
        nodes: The number of Chebyshev nodes, 4 to 1024; a comparison with another number shows the error.

    Returns:
        The operator; a step of it is the time t, so that `expectation(h, x0)` is E h(X_t).

    Raises:
        ValueError: If the SDE has another form, its drift points outwards, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> ou = st.SDE(drift=["-x"], diffusion=["0.5"], variables="x")
        >>> round(st.exact.semigroup(ou, (-4.0, 4.0), time=1.0).expectation("cos(x)", [1.0]), 10)  # exp(-v/2) cos m
        0.8840046642
    """
    from scipy.linalg import expm

    low, high, count = _interval(interval, nodes)
    if not isinstance(sde, SDE) or len(sde.parts) != 1 or sde.dim != 1 or sde.calculus != "ito":
        raise ValueError(f"`sde` must be an Ito SDE in one coordinate; got {sde!r}. Simulate it instead.")
    time, (x, D) = _check.positive("time", time), chebyshev(low, high, count)
    signals = constant_signals(sde, time / 64)
    if signals is None:
        raise ValueError(
            "`sde` must have coefficients that are constant in time; got one that depends on t. Simulate it instead."
        )
    s = tuple(signals.tolist())
    b = np.broadcast_to(np.asarray(sde.drift(x[None], None, s), dtype=float), (1, count))[0]
    square = np.zeros(count)
    for unit in np.eye(sde.noise_dim):
        column = np.asarray(sde.diffusion(x[None], [np.full(count, e) for e in unit], None, s), dtype=float)
        square += np.broadcast_to(column, (1, count))[0] ** 2
    if not (b[-1] > 0 > b[0]):
        raise ValueError(
            f"`interval` must have ends at which the drift points inwards; got drifts {b[-1]:.3g} and {b[0]:.3g}. Move them."
        )
    # At the ends the drift alone carries paths inwards: a boundary condition of its own, which keeps exp(t A) bounded.
    square[[0, -1]] = 0.0
    matrix = expm(time * (b[:, None] * D + (square / 2)[:, None] * (D @ D)))
    return TransferKernel(x, matrix, np.zeros(count), time, tuple(sde.names))


def chebyshev(low: float, high: float, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the Chebyshev points of an interval, decreasing from `high` to `low`, `(nodes,)`, and the matrix of the derivative, `(nodes, nodes)`.

    The matrix takes the values of a polynomial at the points to those of its derivative there.

    Example:
        >>> import numpy as np
        >>> x, D = chebyshev(0.0, 2.0, 8)
        >>> bool(np.allclose(D @ x**3, 3 * x**2))
        True
    """
    k = np.arange(nodes)
    x = np.cos(np.pi * k / (nodes - 1))
    c = np.where((k == 0) | (k == nodes - 1), 2.0, 1.0) * (-1.0) ** k
    D = np.outer(c, 1 / c) / (x[:, None] - x[None] + np.eye(nodes))
    D -= np.diag(D.sum(axis=1))
    return low + (high - low) * (1 + x) / 2, D * 2 / (high - low)


def interpolation(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the matrix `(points, nodes)` that takes a polynomial's values at Chebyshev points `x`, `(nodes,)`, to those at `at`, `(points,)`.

    It is the barycentric formula.
    """
    w = (-1.0) ** np.arange(len(x))
    w[[0, -1]] *= 0.5
    apart = at[:, None] - x[None]
    exact = apart == 0
    rows = w / np.where(exact, 1.0, apart)
    rows = np.where(exact.any(axis=1)[:, None], exact.astype(float), rows)
    return rows / rows.sum(axis=1, keepdims=True)


def _interval(interval: Any, nodes: int) -> tuple[float, float, int]:
    """Return (low, high, nodes) after validation; ValueError unless low < high are finite and `nodes` lies in 4 to 1024."""
    ends = _check.finite("interval", list(interval))
    if ends.shape != (2,) or not ends[0] < ends[1]:
        raise ValueError(f"`interval` must be a pair (low, high) with low < high; got {interval!r}.")
    return float(ends[0]), float(ends[1]), _check.count("nodes", nodes, least=4, most=1024)


def _breaks(rule: Dynamics, row: np.ndarray) -> list[float]:
    """Return the values of the noisy gradient at which a step of `rule` with coefficients `row` has a kink or a jump; none for other classes of rules."""
    if isinstance(rule, ClippedSGD):
        limit = float(row[list(rule.coefficients).index("limit")])
        return [-limit, limit] if np.isfinite(limit) else []
    return [0.0] if isinstance(rule, (SignSGD, NormalisedSGD)) else []


def _normal_nodes(mean: float, deviation: float, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of a quadrature for N(mean, deviation^2), each `(points,)`, with panels that end at `cuts`, where a step may have kinks."""
    if deviation == 0:
        return np.array([mean]), np.ones(1)
    z = np.concatenate([np.linspace(-REACH, REACH, PANELS + 1), (cuts - mean) / deviation])
    edges = np.unique(z[np.abs(z) <= REACH])
    nodes, weights = np.polynomial.legendre.leggauss(ORDER)
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half * (1 + nodes)).ravel()
    weight = (half * weights).ravel() * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    return mean + deviation * z, weight / weight.sum()


def _moved(rule: Dynamics, row: np.ndarray, x: float, g: np.ndarray) -> np.ndarray:
    """Return the point after a step from `x` with coefficients `row` for each value of the noisy gradient, `(points,)` as `g`.

    ValueError unless the rule takes the gradient once, at x.
    """
    calls: list[bool] = []

    def oracle(at: Any) -> np.ndarray:
        calls.append(bool(np.all(np.asarray(at) == x)))
        return g[None].copy()

    new = rule.rule((np.full((1, len(g)), x),), oracle, *row)
    if calls != [True]:
        raise ValueError(
            f"`rule` must take one noisy gradient a step, at its position; {rule.name} does not. Simulate it instead."
        )
    return np.broadcast_to(np.asarray(new[0], dtype=float), (1, len(g)))[0]
