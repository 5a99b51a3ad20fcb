"""Reference implementations of the paper's equations in plain NumPy, against which the claims check the library.

Only the random draws (`draws`) and the runs to be checked (`path`) come from the library, so that no formula is checked against itself.
Everything else is written here or in the claim from the equations: rules as functions `(state, gradient, *coefficients) -> state` on
tuples of arrays, averaged rates by their sum, moments by one small matrix a step. Paths are compared step by step, so that a wrong index
or a wrong time cannot average out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

import sdetools as st
from sdetools.simulation.draws import DrawPlan, fill
from sdetools.simulation.philox import stream_key

ROUNDING = 1e-9
"""Largest relative difference attributed to rounding between two implementations of one formula: some 1e-16 a step, a few hundred steps,
growth of at most e^3 per run, and draws that agree to a few last places. The smallest error looked for, 2 %, is ten million times larger.
"""


NON_FINITE_DISTANCE = 1e300
"""Distance assigned to a non-finite result, so that the claim is contradicted and not inconclusive."""


def value_or_nan(function: Callable, *args: Any, **options: Any) -> Any:
    """Return the result of a library function, or nan where it raises for numbers that the statement covers."""
    try:
        return function(*args, **options)
    except (ValueError, ArithmeticError, IndexError, np.linalg.LinAlgError):
        return math.nan


def value_or_far(function: Callable, *args: Any, **options: Any) -> float:
    """Return a number of the library, or `NON_FINITE_DISTANCE` where it raises for a case that the statement covers, or is not finite."""
    found = value_or_nan(function, *args, **options)
    return float(found) if np.isfinite(found) else NON_FINITE_DISTANCE


def already_contradicted(run: Any) -> bool:
    """Return whether a deterministic measurement lies outside its range, so that no simulation can change the verdict."""
    exact = [item for item in run.record.measurements if isinstance(item.estimate, float)]
    return any(not item.accept_low <= item.estimate <= item.accept_high for item in exact)


def sgd(state: Any, gradient: Callable, eta: Any) -> tuple:
    """Return z - eta g(z)."""
    (z,) = state
    return (z - eta * gradient(z),)


def sgdm(state: Any, gradient: Callable, eta: Any, beta: Any) -> tuple:
    """Return the state after m' = beta m + (1 - beta) g(x), x' = x - eta m'."""
    x, m = state
    m = beta * m + (1 - beta) * gradient(x)
    return x - eta * m, m


def nesterov(state: Any, gradient: Callable, eta: Any, mu: Any) -> tuple:
    """Return the state after v' = mu v + g, x' = x - eta (g + mu v')."""
    x, v = state
    now = gradient(x)
    v = mu * v + now
    return x - eta * (now + mu * v), v


def acc_sgd(state: Any, gradient: Callable, eta: Any, kappa: Any, A: Any) -> tuple:
    """Return the state after w' = A w + (1 - A) (x - kappa eta g / .7), x' = the mean of x - eta g and w' with weights .7 and 1 - A."""
    x, w = state
    now = gradient(x)
    w = A * w + (1 - A) * (x - kappa * eta * now / 0.7)
    share = 0.7 / (0.7 + (1 - A))
    return share * (x - eta * now) + (1 - share) * w, w


def memory(etas: Sequence[float], betas: Sequence[float]) -> np.ndarray:
    """Return c_k = sum_{s>=k} eta_s prod_{t=k..s} beta_t, k = 0 ... K - 1, by its sum.

    Beyond the last step the schedule is constant, which gives a geometric series.
    """
    out = []
    for k in range(len(etas)):
        products = np.cumprod(betas[k:])
        out.append(np.sum(etas[k:] * products) + products[-1] * etas[-1] * betas[-1] / (1 - betas[-1]))
    return np.array(out)


def averaged(etas: Sequence[float], betas: Sequence[float]) -> np.ndarray:
    """Return etabar_k = (1 - beta_k) sum_{s>=k} eta_s prod_{t=k+1..s} beta_t by its sum, with a constant last pair."""
    out = []
    for k in range(len(etas)):
        products = np.cumprod(np.concatenate([[1.0], betas[k + 1 :]]))
        tail = products[-1] * etas[-1] * betas[-1] / (1 - betas[-1])
        out.append((1 - betas[k]) * (np.sum(etas[k:] * products) + tail))
    return np.array(out)


def draws(dynamics: st.Dynamics, steps: int, seed: int, stream: int = 0) -> np.ndarray:
    """Return the draws of the first path: `(steps, rows)`."""
    plan, key = DrawPlan(tuple(dynamics.draws)), stream_key(seed, stream)
    return np.array([fill(plan, key, np.zeros(1, int), k)[:, 0] for k in range(steps)])


def start_draws(dynamics: st.Dynamics, seed: int, stream: int = 0) -> np.ndarray:
    """Return the draws of the first path's initial state."""
    return fill(DrawPlan(tuple(dynamics.start_draws)), stream_key(seed, stream, role=None), np.zeros(1, int), 0)[:, 0]


def follow(rule: Callable, state: Any, rows: Any, gradient: Callable[[int, Any], Any]) -> np.ndarray:
    """Return the positions x_0 ... x_K of a rule: `(K + 1, dim)`.

    `gradient(k, x)` is the noisy gradient in step k.
    """
    out = [np.atleast_1d(state[0])]
    for k, row in enumerate(rows):
        state = rule(state, lambda x, k=k: gradient(k, x), *row)
        out.append(np.atleast_1d(state[0]))
    return np.array(out)


def checked_against_reference(run: Callable[[str], np.ndarray]) -> np.ndarray:
    """Return `run("auto")`, the compiled kernel's result, or nan where the NumPy backend gives something else."""
    found, reference = run("auto"), run("numpy")
    return found if relative_distance(found, reference) <= ROUNDING else np.full_like(found, np.nan)


def path(dynamics: st.Dynamics, x0: Any, steps: int, observe: Any, seed: int, **options: Any) -> np.ndarray:
    """Return the observables along the first path of the compiled kernel, step by step: `(steps + 1, observables)`."""
    own = {"paths": 1, "times": "all", "seed": seed} | options

    def run(backend: str) -> np.ndarray:
        found = st.simulate(dynamics, x0, steps * dynamics.step_time, observe=observe, backend=backend, **own)
        return np.array([[found.at(h, t).value for h in found.names] for t in found.times])

    return checked_against_reference(run)


def gap_path(pair: Any, x0: Any, steps: int, observe: Any, seed: int) -> np.ndarray:
    """Return h(x_k) - h(z_k) along the first path of a coupled pair: `(steps + 1, observables)`."""
    own = {"paths": 1, "times": "all", "seed": seed, "control": False, "observe": observe}
    return checked_against_reference(
        lambda backend: st.weak_gap(*pair, x0, steps * pair[0].step_time, backend=backend, **own).statistics.gap
    )


def relative_distance(found: Any, expected: Any) -> float:
    """Return the largest difference of two arrays relative to the largest expected value; `NON_FINITE_DISTANCE` if one is not finite."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape != expected.shape or not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return NON_FINITE_DISTANCE
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300))


def moments(
    rule: Callable, start: Sequence[float], rows: Any, curvature: float, variance: float, spread: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean `(K + 1, parts)` and the covariance of a linear rule in one coordinate.

    The gradient is curvature x + noise of the given variance. s' = A s + b v: A is the rule at unit states without noise, b is the rule at
    the state 0 with unit noise.
    """
    n = len(start)
    mean, spread = np.array(start, float), np.zeros((n, n)) if spread is None else np.array(spread, float)
    means, spreads, known = [mean], [spread], {}
    for row in rows:
        key = tuple(row)
        if key not in known:
            A = np.array(rule(tuple(np.eye(n)), lambda x: curvature * x, *row))
            b = np.array(rule((0.0,) * n, lambda x: curvature * x + 1.0, *row))
            known[key] = A, variance * np.outer(b, b)
        A, added = known[key]
        mean, spread = A @ mean, A @ spread @ A.T + added
        means.append(mean)
        spreads.append(spread)
    return np.array(means), np.array(spreads)


def normal_power(mean: Any, variance: Any, p: float) -> np.ndarray:
    """Return E |N(mean, variance)|^p.

    For p = 1 by the folded normal law, else by (2 v)^{p/2} Gamma((1+p)/2) / sqrt(pi) 1F1(-p/2; 1/2; -z).
    """
    from scipy.special import erf, gamma, hyp1f1

    mean, variance = np.broadcast_arrays(np.asarray(mean, float), np.asarray(variance, float))
    v = np.where(variance > 0, variance, 1.0)
    z = mean**2 / (2 * v)
    if p == 1:
        spread = np.sqrt(2 * v / math.pi) * np.exp(-z) + mean * erf(mean / np.sqrt(2 * v))
    else:
        spread = (2 * v) ** (p / 2) * gamma((1 + p) / 2) / math.sqrt(math.pi) * hyp1f1(-p / 2, 0.5, -np.minimum(z, 500.0))
    return np.where(variance > 0, spread, np.abs(mean) ** p)


@lru_cache
def gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes and weights of the rule on [-1, 1], which are eigenvalues of a matrix and take 20 ms."""
    return np.polynomial.legendre.leggauss(nodes)


def integrate_unit_interval(
    function: Callable[[np.ndarray], Any], breaks: Sequence[float] = (), power: int = 1, nodes: int = 400
) -> Any:
    """Return int_0^1 function(u) du by Gauss-Legendre quadrature between the `breaks`.

    The substitution u = s^power removes a singularity at 0.
    """
    s, w = gauss_legendre(nodes)
    total, edges = 0.0, np.array([0.0, *breaks, 1.0]) ** (1 / power)
    for low, high in pairwise(edges):
        at = (high - low) / 2 * s + (high + low) / 2
        total = total + np.sum(function(at**power) * power * at ** (power - 1) * w, axis=-1) * (high - low) / 2
    return total
