"""Momentum near a manifold of minimisers: linear modes across the manifold, and inertial motion along it.

Across the manifold, the heavy-ball form x_{k+1} = x_k + beta (x_k - x_{k-1}) - eta lam x_k has the modes x_k = z^k with
z^2 - (1 + beta - eta lam) z + beta = 0. Along the manifold, let label noise of size eps drive one transverse mode of curvature
lam(x) = lam + chi x^2 / 2, where x is the distance from the flattest minimum. For mu = 1 - beta << sqrt(eta lam) that mode is a fast
oscillator. Its energy A, in units of its stationary mean, follows dA = (1 - A) ds + sqrt(2 A) dB on the clock s = mu k, and it exerts on
x, called X in units of its initial value, a force proportional to the gradient of its frequency:

    X'' + X' + r A X = 0,    r = eta^2 eps^2 chi / (4 mu^3).

For r -> 0 this is X' = -r X, the slow equation on the manifold. At r of order 1, mu ~ eta^{2/3}, both motions have the same time scale,
and the energy does not average out. G = A d^2/dA^2 + (1 - A) d/dA has the Laguerre polynomials L_n as eigenfunctions, and
A L_n = (2n+1) L_n - (n+1) L_{n+1} - n L_{n-1}. The moments E[X^i V^j L_n(A)] with V = X' therefore obey a banded linear equation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check

TERMS = 32
"""Number of Laguerre polynomials: for r up to 50, twice as many change the moments by less than 1e-7."""
GRID = 0.05
"""Time step of the grid on which a settling time is determined."""


def transverse_modes(eta: Any, beta: Any, lam: Any) -> np.ndarray:
    """Return the roots z of z^2 - (1 + beta - eta lam) z + beta = 0, the factors by which the two modes of heavy ball are multiplied in a step.

    Args:
        eta: The learning rate of the heavy-ball form (gamma of `st.HeavyBall`). All arguments are numbers or arrays that broadcast.
        beta: The momentum coefficient, any finite number.
        lam: The curvature of the quadratic loss, any finite number.

    Returns:
        The complex roots, shape `(2, ...)` with the broadcast shape of the arguments, the root of larger modulus first.

    Raises:
        ValueError: If an argument is not finite.

    Example:
        >>> transverse_modes(eta=0.5, beta=0.0, lam=1.0)
        array([0.5+0.j, 0. +0.j])
        >>> abs(transverse_modes(eta=0.1, beta=0.81, lam=1.0)).round(12)
        array([0.9, 0.9])
    """
    eta, beta, lam = (_check.finite(name, value) for name, value in (("eta", eta), ("beta", beta), ("lam", lam)))
    half = (1 + beta - eta * lam) / 2
    root = np.sqrt((half * half - beta).astype(complex))
    large = half + np.where(half < 0, -root, root)
    with np.errstate(all="ignore"):
        small = np.where(large == 0, 0, beta / large)
    return np.stack(np.broadcast_arrays(large, small))


def relaxation_steps(eta: Any, beta: Any, lam: Any) -> Any:
    """Return tau_1 = -1 / log max |z| over the two roots z of `transverse_modes`, the steps in which the slower mode decays by a factor e.

    It is (1 - beta)/(eta lam) in the limit (1 - beta)^2 >> 4 eta lam, and exactly -2 / log beta for
    (1 - sqrt(beta))^2 < eta lam < (1 + sqrt(beta))^2. It is infinite for a mode that does not decay.

    Args:
        eta: The learning rate of the heavy-ball form. All arguments are numbers or arrays that broadcast.
        beta: The momentum coefficient, any finite number.
        lam: The curvature of the quadratic loss, any finite number.

    Returns:
        The numbers of steps, an array of the broadcast shape of the arguments, of shape () for numbers.

    Raises:
        ValueError: If an argument is not finite.

    Example:
        >>> round(float(relaxation_steps(eta=1e-4, beta=0.5, lam=1.0))), round(float(relaxation_steps(eta=1e-2, beta=0.99, lam=1.0)))
        (4998, 199)
    """
    large = transverse_modes(eta, beta, lam)[0]
    size = np.where(
        large.imag == 0, np.abs(large), np.sqrt(np.maximum(beta, 0))
    )  # complex conjugate roots have modulus sqrt(beta)
    with np.errstate(all="ignore"):
        return np.where(size < 1, -1 / np.log(size), np.inf)


@dataclass(frozen=True)
class Flattening:
    """The moments E X and E X^2 of the motion X'' + X' + r A X = 0 along a manifold of minimisers, as `flattening` returns them.

    X(s) is the distance from the flattest minimum along the manifold, 1 at the start, A the random energy of the mode across the manifold, and r > 0 the
    strength of the force; `flattening` has their equations.

    Attributes:
        times: The times s = (1 - beta) k, with k the number of steps, shape `(times,)`.
        mean: E X, shape `(times,)`.
        square: E X^2, shape `(times,)`.
    """

    times: np.ndarray
    mean: np.ndarray
    square: np.ndarray

    @property
    def rms(self) -> np.ndarray:
        """The root mean square sqrt(E X^2) of the distance X along the manifold at each time, shape `(times,)`."""
        return np.sqrt(self.square)


def flattening(r: float, times: Any, terms: int = TERMS, random: bool = True) -> Flattening:
    """Return E X and E X^2 of X'' + X' + r A X = 0 from X = 1, X' = 0, A = 0 (a minimiser at rest).

    X is the distance from the flattest minimum along the manifold, in units of its initial value, and A the energy of the fast mode across
    the manifold, in units of its stationary mean, with dA = (1 - A) ds + sqrt(2 A) dB for a Brownian motion B.

    Args:
        r: The coefficient r = eta^2 eps^2 chi / (4 (1 - beta)^3), positive, for the heavy-ball form with learning rate eta and label noise of size eps;
            chi is the second derivative along the manifold of the curvature across it.
        times: Increasing times s >= 0, shape `(times,)`, in units of 1 / (1 - beta) steps.
        terms: The number of Laguerre polynomials in A that are kept, at least 2.
        random: Whether A is random. With False, A is replaced by its mean 1 - e^{-s}, which is the result of averaging over the energy.

    Returns:
        The moments at `times`.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import math
        >>> flattening(0.5, [0.0, 4.0, 8.0]).rms.round(4)
        array([1.    , 0.3938, 0.103 ])
        >>> flattening(0.01, [100.0]).mean.round(2), round(math.exp(-1), 2)
        (array([0.37]), 0.37)
    """
    r, s = _check.positive("r", r), _check.finite("times", times)
    if s.ndim != 1 or not len(s) or s[0] < 0 or np.any(np.diff(s) <= 0):
        raise ValueError(f"`times` must be increasing and at least 0; got {times!r}. Their unit is 1 / (1 - beta) steps.")
    if not random:
        mean = _averaged(r, s)
        return Flattening(s, mean, mean * mean)
    n = _check.count("terms", terms, least=2)
    return Flattening(s, _march(_first(r, n), n, s), _march(_second(r, n), n, s))


def settling_time(r: float, fraction: float = 0.1, terms: int = TERMS) -> float:
    """Return the last time s at which sqrt(E X^2) exceeds `fraction`, for the motion of `flattening` from X = 1 at rest.

    In steps this is T = s / (1 - beta). It is found on a grid of spacing 0.05 with interpolation.

    Args:
        r: The coefficient r = eta^2 eps^2 chi / (4 (1 - beta)^3) of the motion, positive; see `flattening`.
        fraction: The level in (0, 1), a share of the initial distance.
        terms: The number of Laguerre polynomials in A that are kept, at least 2.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> round(settling_time(0.6), 3)
        7.497
    """
    r, fraction = _check.positive("r", r), _check.number("fraction", fraction, "lie in (0, 1)")
    if not 0 < fraction < 1:
        raise ValueError(f"`fraction` must lie in (0, 1); got fraction={fraction!r}. 0.1 is a tenth of the initial value.")
    s = np.arange(0, _search_horizon(r, fraction, terms), GRID)
    return float(settled(s, flattening(r, s, terms).rms, fraction))


def _search_horizon(r: float, fraction: float, terms: int) -> float:
    """Return a time s after which E X^2 is below fraction^2; it decays at the rate of the slowest mode of `_second`, from at most e^10."""
    slowest = -np.linalg.eigvals(_second(r, terms)).real.max()
    return (10 - 2 * math.log(fraction)) / slowest


def settled(times: np.ndarray, curve: np.ndarray, fraction: float) -> Any:
    """Return the last time at which each curve exceeds a level; between two times the logarithm of a curve is interpolated linearly.

    Args:
        times: The times, increasing, shape `(times,)`.
        curve: The curves, shape `(..., times)`, not negative.
        fraction: The level, positive.

    Returns:
        The times, shape `(...)`, a scalar for a single curve. They are NaN for curves that never exceed the level or still do at the end.

    Example:
        >>> import numpy as np
        >>> round(float(settled(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 0.05, 0.2, 0.05]), 0.1)), 6)
        2.5
    """
    above = curve > fraction
    last = above.shape[-1] - 1 - np.argmax(above[..., ::-1], axis=-1)
    inside = above.any(axis=-1) & (last < above.shape[-1] - 1)
    k = np.where(inside, last, 0)
    with np.errstate(all="ignore"):
        high, low = (np.log(np.take_along_axis(curve, (k + i * inside)[..., None], -1)[..., 0] / fraction) for i in (0, 1))
        found = times[k] + np.where(np.isinf(low), 1.0, high / (high - low)) * (times[k + inside] - times[k])
    return np.where(inside, found, np.nan)[()]


def _energy(n: int) -> np.ndarray:
    """Return the matrix `(n, n)` of multiplication by the energy A: it maps the moments E[f L_k], k < n, to the moments E[f A L_k]."""
    k = np.arange(n, dtype=float)
    return np.diag(2 * k + 1) - np.diag(k[1:], 1) - np.diag(k[1:], -1)


def _first(r: float, n: int) -> np.ndarray:
    """Return the matrix M `(2 n, 2 n)` of y' = M y for y = (E[X L_0], ..., E[X L_(n-1)], E[V L_0], ...), with V = X' and Laguerre polynomials L_k of A."""
    eye, decay = np.eye(n), np.diag(np.arange(n, dtype=float))
    return np.block([[-decay, eye], [-r * _energy(n), -eye - decay]])


def _second(r: float, n: int) -> np.ndarray:
    """Return the matrix M `(3 n, 3 n)` of y' = M y for y = (E[X^2 L_k], E[X V L_k], E[V^2 L_k]), k = 0, ..., n - 1 in each of the three."""
    eye, zero, decay, pull = np.eye(n), np.zeros((n, n)), np.diag(np.arange(n, dtype=float)), r * _energy(n)
    return np.block([[-decay, 2 * eye, zero], [-pull, -eye - decay, eye], [zero, -2 * pull, -2 * eye - decay]])


def _march(matrix: np.ndarray, n: int, times: np.ndarray) -> np.ndarray:
    """Return the first entry of y at all times, `(times,)`, for y' = `matrix` y from X = 1, V = 0, A = 0: the first n entries are 1, the others 0."""
    from scipy.linalg import expm

    state, out, known = np.zeros(len(matrix)), np.empty(len(times)), {}
    state[:n] = 1.0
    for i, step in enumerate(np.diff(times, prepend=0.0)):
        key = float(f"{step:.9g}")
        if key not in known:
            known[key] = expm(matrix * step)
        state = known[key] @ state
        out[i] = state[0]
    return out


def _averaged(r: float, times: np.ndarray) -> np.ndarray:
    """Return X at all times, `(times,)`, for the energy A = 1 - e^{-s}, its mean."""
    from scipy.integrate import solve_ivp

    def slope(s: float, u: np.ndarray) -> list[float]:
        return [u[1], -u[1] + r * math.expm1(-s) * u[0]]

    span = (0.0, max(float(times[-1]), 1e-9))
    return solve_ivp(slope, span, [1.0, 0.0], method="DOP853", t_eval=times, rtol=1e-10, atol=1e-12).y[0]
