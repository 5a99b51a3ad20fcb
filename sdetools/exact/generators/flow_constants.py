"""The constant of a weak error whose limit has no noise: the leading error operator along the flow, on any smooth drift.

With limit X' = a(X) and u(s, x) = h(X_T | X_s = x) the derivatives w_b(s) = (d^b u)(s, X_s) along one solution form a closed system,

    w_b' = - sum_{0 < c <= b} binom(b, c) sum_i (d^c a_i)(X_s) w_{b - c + e_i},        w_b(T) = (d^b h)(X_T),

with multi-indices b and c and the unit vector e_i. The constant is int_0^T sum_b Psi_b(X_s) w_b(s) ds + (O h)(X_T), with the leading error operator
Psi = sum_b Psi_b d^b and the terminal operator O of a linear filter (see `GeneratorGap`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from sdetools.exact.generators.operators import Index
from sdetools.exact.generators.radial_means import NAME, numeric_radial_mean

TOLERANCE = 1e-11
"""Relative and absolute tolerance of the solution of the ordinary differential equations."""


def flow_constant(
    limit: Mapping[Index, Any],
    leading: Mapping[Index, Any],
    terminal: Mapping[Index, Any],
    h: Any,
    symbols: Sequence[Any],
    x0: np.ndarray,
    horizon: float,
) -> float:
    """Return the constant C of a weak error E h(x_k) - h(X_T) = C tau^p + o(tau^p), tau the time of a step, for a limit X of the rule without noise.

    Args:
        limit: The generator of the limit, SymPy expressions, the coefficients of d^b, by multi-index b; derivatives of first order only.
        leading: The leading error operator Psi in the same form.
        terminal: The terminal operator O in the same form; empty for none.
        h: The observable, a SymPy expression.
        symbols: The symbols of the n coordinates.
        x0: The start, `(n,)`.
        horizon: The time T.

    Raises:
        ValueError: If the flow leaves the finite range before T.
    """
    from scipy.integrate import solve_ivp
    from sympy import lambdify

    modules: list[Any] = [{NAME: numeric_radial_mean}, "numpy"]
    n, most = len(symbols), max(sum(b) for b in (*leading, *terminal))
    basis = [b for b in product(range(most + 1), repeat=n) if 0 < sum(b) <= most]
    place = {b: k for k, b in enumerate(basis)}
    drift = {next(i for i, k in enumerate(b) if k): c for b, c in limit.items()}
    terms = [(place[b], place[e], f, i) for b in basis for e, f, i in _terms(b, n) if i in drift]
    slopes = lambdify(symbols, [f * _along(drift[i], symbols, _minus(basis[b], basis[e], i)) for b, e, f, i in terms], modules)
    rows, columns = np.array([b for b, *_ in terms]), np.array([e for _, e, *_ in terms])
    velocity = lambdify(symbols, [drift.get(i, 0) for i in range(n)], modules)
    errors = lambdify(symbols, [leading.get(b, 0) for b in basis], modules)
    options = dict(method="DOP853", rtol=TOLERANCE, atol=TOLERANCE)
    path = solve_ivp(lambda _, x: np.array(velocity(*x), dtype=float), (0, horizon), x0, dense_output=True, **options)
    if not path.success:
        raise ValueError(f"the limit must exist up to `horizon`; it ends at t={path.t[-1]:.4g}.")

    def backward(s: float, state: np.ndarray) -> np.ndarray:
        x, w, out = path.sol(horizon - s), state[:-1], np.zeros(len(state))
        np.add.at(out, rows, np.array(slopes(*x), dtype=float) * w[columns])
        out[-1] = np.array(errors(*x), dtype=float) @ w
        return out

    end = path.y[:, -1]
    last = lambdify(symbols, [_along(h, symbols, b) for b in basis], modules)
    start = np.append(np.array(last(*end), dtype=float), 0.0)
    total = solve_ivp(backward, (0, horizon), start, **options).y[-1, -1]
    final = lambdify(symbols, sum((c * _along(h, symbols, b) for b, c in terminal.items()), 0), modules)
    return float(total + final(*end))


def _terms(b: Index, n: int) -> list[tuple[Index, int, int]]:
    """Return (b - c + e_i, binom(b, c), i) for all multi-indices c with 0 < c <= b and all n coordinates i."""
    out = []
    for c in product(*(range(k + 1) for k in b)):
        if sum(c):
            for i in range(n):
                e = tuple(k - j + (l == i) for l, (k, j) in enumerate(zip(b, c)))
                out.append((e, math.prod(map(math.comb, b, c)), i))
    return out


def _minus(b: Index, e: Index, i: int) -> Index:
    """Return the multi-index c = b - e + e_i, from an entry e = b - c + e_i of `_terms`."""
    return tuple(k - j + (l == i) for l, (k, j) in enumerate(zip(b, e)))


def _along(expression: Any, symbols: Sequence[Any], index: Index) -> Any:
    """Return d^index of a SymPy expression, with `index` the orders of the derivatives along `symbols`."""
    import sympy

    for s, k in zip(symbols, index):
        expression = sympy.diff(expression, s, k) if k else expression
    return expression
