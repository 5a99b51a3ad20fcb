r"""Momentum near a manifold of minimisers: the modes across it, and the inertial motion along it.

Across, the heavy-ball form x_{k+1} = x_k + beta (x_k - x_{k-1}) - eta lam x_k has the modes z^2 - (1 + beta - eta lam) z + beta = 0.
Along, let label noise of size eps drive one transverse mode of curvature lam(x) = lam + chi x^2 / 2, x the distance from the flattest
minimum. For mu = 1 - beta << sqrt(eta lam) that mode is a fast oscillator; its energy, in units of its stationary mean, follows
dA = (1 - A) ds + sqrt(2 A) dB on the clock s = mu k, and it pulls on x by the gradient of its frequency:

    X'' + X' + r A X = 0,    r = eta^2 eps^2 chi / (4 mu^3).

For r -> 0 this is X' = -r X, the slow equation on the manifold. At r of order 1, mu ~ eta^{2/3}, both are of one speed, and
the energy does not average out. G = A d^2/dA^2 + (1 - A) d/dA has Laguerre's polynomials L_n as eigenfunctions, and
A L_n = (2n+1) L_n - (n+1) L_{n+1} - n L_{n-1}: the moments E[X^i V^j L_n(A)] with V = X' obey a banded linear equation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check

TERMS = 32
"""Polynomials kept: for r up to 50 twice as many change the moments by less than 1e-7."""
GRID = 0.05
"""Spacing of the times among which a settling time is sought."""


def transverse_modes(eta: Any, beta: Any, lam: Any) -> np.ndarray:
    r"""The roots of z^2 - (1 + beta - eta lam) z + beta = 0, the larger in modulus first: complex, shape `(2, ...)`.

    `eta` is the learning rate of the heavy-ball form (gamma of `st.HeavyBall`), `lam` a curvature; arrays broadcast.

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
    r"""tau_1 = -1 / log max |z|, the steps in which the slowest transverse mode falls by e; inf where it does not fall.

    About (1 - beta)/(eta lam) for (1 - beta)^2 >> 4 eta lam, and exactly -2 / log beta for (1 - sqrt(beta))^2 < eta lam < (1 + sqrt(beta))^2.

    >>> round(float(relaxation_steps(eta=1e-4, beta=0.5, lam=1.0))), round(float(relaxation_steps(eta=1e-2, beta=0.99, lam=1.0)))
    (4998, 199)
    """
    large = transverse_modes(eta, beta, lam)[0]
    size = np.where(large.imag == 0, np.abs(large), np.sqrt(np.maximum(beta, 0)))  # a pair has the modulus sqrt(beta)
    with np.errstate(all="ignore"):
        return np.where(size < 1, -1 / np.log(size), np.inf)


@dataclass(frozen=True)
class Flattening:
    """E X and E X^2 at the times s = (1 - beta) k, from X = 1 at rest; shapes `(times,)`."""

    times: np.ndarray
    mean: np.ndarray
    square: np.ndarray

    @property
    def rms(self) -> np.ndarray:
        return np.sqrt(self.square)


def flattening(stiffness: float, times: Any, terms: int = TERMS, random: bool = True) -> Flattening:
    r"""E X and E X^2 of X'' + X' + r A X = 0 from X = 1, X' = 0, A = 0 (a minimiser at rest); r = `stiffness`.

    `random=False` puts A's mean, 1 - e^{-s}, for A: what averaging over the transverse energy would give. `times`: increasing, >= 0,
    in units of 1 / (1 - beta) steps. `ValueError` for a stiffness that is not positive and for other times.

    >>> flattening(0.5, [0.0, 4.0, 8.0]).rms.round(4)
    array([1.    , 0.3938, 0.103 ])
    >>> flattening(0.01, [100.0]).mean.round(2), round(math.exp(-1), 2)
    (array([0.37]), 0.37)
    """
    r, s = _check.positive("stiffness", stiffness), _check.finite("times", times)
    if s.ndim != 1 or not len(s) or s[0] < 0 or np.any(np.diff(s) <= 0):
        raise ValueError(
            f"`times` must be increasing and at least 0; got {times!r}. They count steps in units of 1 / (1 - beta)."
        )
    if not random:
        mean = _averaged(r, s)
        return Flattening(s, mean, mean * mean)
    n = _check.count("terms", terms, least=2)
    return Flattening(s, _march(_first(r, n), n, s), _march(_second(r, n), n, s))


def settling_time(stiffness: float, fraction: float = 0.1, terms: int = TERMS) -> float:
    r"""The last time s at which sqrt(E X^2) exceeds `fraction`, from X = 1 at rest: (1 - beta) T as a function of r.

    A last passage, not a first one: overshooting is no arrival. `ValueError` for a fraction outside (0, 1).

    >>> round(settling_time(0.6), 3)
    7.497
    """
    r, fraction = _check.positive("stiffness", stiffness), _check.number("fraction", fraction, "lie in (0, 1)")
    if not 0 < fraction < 1:
        raise ValueError(f"`fraction` must lie in (0, 1); got fraction={fraction!r}. 0.1 is a tenth of the start.")
    s = np.arange(0, _long_enough(r, fraction, terms), GRID)
    return float(settled(s, flattening(r, s, terms).rms, fraction))


def _long_enough(r: float, fraction: float, terms: int) -> float:
    """A time after which E X^2 has fallen below fraction^2: it ends like exp(-slowest s), from at most e^10."""
    slowest = -np.linalg.eigvals(_second(r, terms)).real.max()
    return (10 - 2 * math.log(fraction)) / slowest


def settled(times: np.ndarray, curve: np.ndarray, fraction: float) -> Any:
    """The last time at which curves `(..., times)` exceed `fraction`, geometrically interpolated; nan for one that still does at the end.

    >>> round(float(settled(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 0.05, 0.2, 0.05]), 0.1)), 6)
    2.5
    """
    above = curve > fraction
    last = above.shape[-1] - 1 - np.argmax(above[..., ::-1], axis=-1)
    inside = above.any(axis=-1) & (last < above.shape[-1] - 1)
    k = np.where(inside, last, 0)
    with np.errstate(all="ignore"):
        high, low = (np.log(np.take_along_axis(curve, (k + i)[..., None], -1)[..., 0] / fraction) for i in (0, 1))
        found = times[k] + np.where(np.isinf(low), 1.0, high / (high - low)) * (times[k + 1] - times[k])
    return np.where(inside, found, np.nan)[()]


def _energy(n: int) -> np.ndarray:
    """The matrix of p_n = E[f L_n] -> E[f A L_n]."""
    k = np.arange(n, dtype=float)
    return np.diag(2 * k + 1) - np.diag(k[1:], 1) - np.diag(k[1:], -1)


def _first(r: float, n: int) -> np.ndarray:
    """d/ds of (E[X L_n], E[V L_n])."""
    eye, decay = np.eye(n), np.diag(np.arange(n, dtype=float))
    return np.block([[-decay, eye], [-r * _energy(n), -eye - decay]])


def _second(r: float, n: int) -> np.ndarray:
    """d/ds of (E[X^2 L_n], E[X V L_n], E[V^2 L_n])."""
    eye, zero, decay, pull = np.eye(n), np.zeros((n, n)), np.diag(np.arange(n, dtype=float)), r * _energy(n)
    return np.block([[-decay, 2 * eye, zero], [-pull, -eye - decay, eye], [zero, -2 * pull, -2 * eye - decay]])


def _march(matrix: np.ndarray, n: int, times: np.ndarray) -> np.ndarray:
    """The first moment of the list at all times, from X = 1, V = 0 and L_n(0) = 1."""
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
    """X for A = 1 - e^{-s}."""
    from scipy.integrate import solve_ivp

    def slope(s: float, u: np.ndarray) -> list[float]:
        return [u[1], -u[1] + r * math.expm1(-s) * u[0]]

    span = (0.0, max(float(times[-1]), 1e-9))
    return solve_ivp(slope, span, [1.0, 0.0], method="DOP853", t_eval=times, rtol=1e-10, atol=1e-12).y[0]
