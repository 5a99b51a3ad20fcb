r"""RMSProp and Adam on x^2/2 without paths: E x_T by the backward equation of their chain, on nodes.

The problem is L = x^2/2 with noise of variance 1 in the scaling sigma = .5 / eta, eps = .2 / eta, 1 - beta2 = h, v_0 = 2.5 sigma^2, x_0 = 1, T = 2, where a
step takes the time h = eta^2. With u = v / sigma^2 and P(u) = sigma0 u^{1/2} + eps0 a step is

    g = x + sigma z,   m' = beta m + (1 - beta) g,   u' = (1 - h) u + h (x / sigma + z)^2,   x' = x - h m' / P(u)     (P(u') if v is not lagged)

f(x, u, m) = E x_T at one step before T, two steps before T, ... is smooth, so that its values at some hundred nodes determine it.
"""

from __future__ import annotations

import math

import numpy as np
from _chebyshev import interpolation, nodes, products

LAM, SIGMA0, EPS0, C2, START, U0, T = 1.0, 0.5, 0.2, 1.0, 1.0, 2.5, 2.0
NX, NU, NM, X, LEAST_U = 8, 10, 6, 3.0, 0.3
"""Nodes in x on (-X, X), in 1 / (1 + u^{1/2}) for u from LEAST_U to infinity, and in m. u stays above U0 e^-T = .34."""


def normal_draws():
    """Return points and weights of E f(z) for normal z."""
    z, w = np.polynomial.hermite_e.hermegauss(40)
    return z, w / math.sqrt(2 * math.pi)


def exponential_draws():
    """Return points and weights of E f(z) for z = E - 1, E ~ Exp(1), of third moment 2."""
    z, w = np.polynomial.laguerre.laggauss(40)
    return z - 1, w


def svag_draws(l):
    """Return points and weights of E f(z) for z = (r_1 z_1 + r_2 z_2) / l, SVAG's noise over its deviation, where z_1 and z_2 are exponential."""
    (z, w), root = exponential_draws(), math.sqrt(2 * l * l - 1)
    kept = w > 1e-9
    z, w = z[kept], w[kept]
    return (((1 - root) / 2 * z[:, None] + (1 + root) / 2 * z) / l).ravel(), np.outer(w, w).ravel()


def exact_mean(steps, draws, beta=0.0, momentum=0.0, lagged=True):
    """Return E x_T after `steps` steps; RMSProp for beta = 0."""
    h = T / steps
    sigma, top = SIGMA0 / math.sqrt(h), 1 / (1 + math.sqrt(LEAST_U))
    x, r = nodes(NX, X), top / 2 * (1 + nodes(NU, 1.0) * (1 - 1e-6))  # u is finite at all nodes
    m = nodes(NM, 6 * sigma * math.sqrt(1 - beta))
    grids = (x, r, m) if beta else (x, r)
    at = [part.ravel() for part in np.meshgrid(*grids, indexing="ij")]
    u, before = (1 / at[1] - 1) ** 2, at[2] if beta else 0.0
    step = np.zeros((len(u), len(u)))
    for z, w in zip(*draws, strict=True):
        g = at[0] + sigma * z
        after, new = beta * before + (1 - beta) * g, (1 - C2 * h) * u + C2 * h * (g / sigma) ** 2
        moved = at[0] - h * after / (SIGMA0 * np.sqrt(u if lagged else new) + EPS0)
        rows = [interpolation(x, moved), interpolation(r, 1 / (1 + np.sqrt(new)))]
        step += w * products(*rows, *([interpolation(m, after)] if beta else []))
    f = at[0].copy()
    for _ in range(steps):
        f = step @ f
    start = (START, 1 / (1 + math.sqrt(U0)), momentum)
    return float((products(*(interpolation(grid, np.array([one])) for grid, one in zip(grids, start, strict=False))) @ f)[0])


def limit_in_eta(term, steps=(80, 160, 320, 640)):
    """Return the limit of term(steps) as eta = (T / steps)^{1/2} tends to 0, by the polynomial in eta through its values."""
    eta = np.sqrt(T / np.array(steps))
    return float(np.linalg.solve(np.vander(eta, increasing=True), [term(n) for n in steps])[0])
