r"""Sign descent, Signum and Lion at rest on lam x^2/2, without paths: the law of their chain, and their limits for small eta.

    c = b1 m + (1 - b1) g,   x' = x - eta sign(c),   m' = b2 m + (1 - b2) g,   g = lam x + s z;    Signum is b1 = b2, sign descent b1 = b2 = 0

For small eta x is slow beside m: c = lam x + s rho (a stationary normal variable of correlations r_j), and sign(c) has the drift erf(lam x / (sqrt2 s rho))
and the variance D0 = 1 + 2 sum_j E sign sign = 1 + (4/pi) sum_j asin r_j over time, which leaves Var x = eta D0 s rho sqrt(pi/2) / (2 lam).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from _chebyshev import interpolation, nodes, products
from scipy.optimize import brentq
from scipy.stats import norm

NX, NM, NZ, WIDTH = 28, 50, 24, 7.0
"""Nodes in x and in m, of a quadrature on either side of a jump, and half the intervals in standard deviations."""


def noise_of_filter(b1, b2):
    """Return rho, the deviation of the filtered noise over that of one gradient, and D0."""
    v, j = (1 - b2) / (1 + b2), np.arange(1, 4_000)
    rho = math.sqrt(b1**2 * v + (1 - b1) ** 2)
    r = (b1**2 * v * b2**j + b1 * (1 - b1) * (1 - b2) * b2 ** (j - 1)) / rho**2
    return rho, 1 + 4 / math.pi * float(np.arcsin(r).sum())


def small_step_variance(eta, b1, b2, s=1.0, lam=1.0):
    """Return the variance at rest for small eta."""
    rho, D0 = noise_of_filter(b1, b2)
    return eta * D0 * s * rho * math.sqrt(math.pi / 2) / (2 * lam)


def variance_at_rest(eta, b1, b2, s=1.0, lam=1.0):
    """Return the variance at rest for normal noise, at any eta.

    The expectation of u(x', m') given (x, m) is a matrix P on nodes, with an integral over z on either side of the jump of the sign. The stationary law
    solves pi P = pi, pi 1 = 1, here on functions that are even in (x, m). With two nodes fewer or more in x the variance changes by 2e-4 of itself or less.
    """
    spread = math.sqrt(small_step_variance(eta, b1, b2, s, lam))
    x, m = nodes(NX, WIDTH * spread), nodes(NM, WIDTH * (s * math.sqrt((1 - b2) / (1 + b2)) + 0.3 * lam * spread))
    half = NX * NM // 2
    X, M = (part.ravel()[:half] for part in np.meshgrid(x, m, indexing="ij"))
    jump = np.clip(-(b1 * M / (1 - b1) + lam * X) / s, -8.5, 8.5)
    point, weight = np.polynomial.legendre.leggauss(NZ)
    P = np.zeros((half, 2 * half))
    for step, low, high in ((eta, -8.5, jump), (-eta, jump, 8.5)):
        of_m = np.zeros((half, NM))
        for t, w in zip(point, weight, strict=True):
            z = (low + high) / 2 + (high - low) / 2 * t
            new = np.clip(b2 * M + (1 - b2) * (lam * X + s * z), m[-1], m[0])
            of_m += (w * (high - low) / 2 * norm.pdf(z))[:, None] * interpolation(m, new)
        P += products(interpolation(x, np.clip(X + step, x[-1], x[0])), of_m)
    even = P[:, :half] + P[:, : half - 1 : -1]
    balance = even.T - np.eye(half)
    balance[-1] = 1.0
    return float(np.linalg.solve(balance, np.eye(half)[-1]) @ X**2)


def limit_of_ratio(ratio, etas):
    """Return the limit of ratio(eta) for etas that halve, without the terms of orders 1 and, for three of them, 2."""
    values = [ratio(eta) for eta in etas]
    once = [2 * fine - coarse for coarse, fine in itertools.pairwise(values)]
    return once[0] if len(once) == 1 else (4 * once[1] - once[0]) / 3


def median_of_filter(b1, b2):
    """Return the median of sum_j w_j (E_j - 1), E_j ~ Exp(1) independent and w the weights of gradients in c, by Gil-Pelaez' formula.

    The midpoint rule is exact up to the mass beyond 2 pi / dt = 12, fifty standard deviations or more, and to |phi| at the end of the grid, below 1e-9.
    """
    j = np.arange(1, 25 / (1 - b2))
    w = np.concatenate([[1 - b1], b1 * (1 - b2) * b2 ** (j - 1)])
    t = 0.5 * (np.arange(700) + 0.5)
    log_phi = sum(-1j * t * one - np.log(1 - 1j * t * one) for one in w)
    above = lambda y: (np.imag(np.exp(log_phi - 1j * t * y)) / t).sum() * 0.5 / math.pi  # noqa: E731
    return brentq(above, -0.5, 0.5, xtol=1e-12)
