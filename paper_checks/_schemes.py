"""Reference implementations of the integrators as printed in the literature, in plain loops over numbers.

`a(t, y)` is the drift, `b(t, y)` the matrix whose columns are the noises, `w` the increments, `V[j][r]` the sign of a pair, antisymmetric.
"""

from __future__ import annotations

import math

import numpy as np


def euler(a, b, t, y, h, w, V):
    """Return a step of Euler and Maruyama."""
    return y + a(t, y) * h + b(t, y) @ w


def milstein(a, b, t, y, h, w, V):
    """Return a step of Kloeden and Platen, (11.1.7), for commutative noise.

    There I_(j,k) + I_(k,j) = w_j w_k and I_(j,j) = (w_j^2 - h) / 2.
    """
    new = euler(a, b, t, y, h, w, V)
    for j in range(len(w)):
        for k in range(len(w)):
            double = (w[j] * w[k] - (h if j == k else 0)) / 2
            new = new + (b(t, y + b(t, y)[:, j] * math.sqrt(h))[:, k] - b(t, y)[:, k]) / math.sqrt(h) * double
    return new


def heun(a, b, t, y, h, w, V):
    """Return a step of Heun's scheme."""
    guess = y + a(t, y) * h + b(t, y) @ w
    return y + (a(t, y) + a(t + h, guess)) / 2 * h + (b(t, y) + b(t + h, guess)) / 2 @ w


def platen(a, b, t, y, h, w, V):
    """Return a step of Kloeden and Platen, (15.1.3), with the time of each support point.

    There V_(j,j) = -h and V_(j,r) = -V_(r,j) = +-h.
    """
    m, root = len(w), math.sqrt(h)
    middle = y + a(t, y) * h + b(t, y) @ w
    new = y + (a(t + h, middle) + a(t, y)) / 2 * h
    for j in range(m):
        up, down = (y + a(t, y) * h + sign * b(t, y)[:, j] * root for sign in (1, -1))
        high, low, here = b(t + h, up)[:, j], b(t + h, down)[:, j], b(t, y)[:, j]
        new = new + (high + low + 2 * here) * w[j] / 4 + (high - low) * (w[j] ** 2 - h) / root / 4
        for r in range(m):
            if r != j:
                high, low = (b(t, y + sign * b(t, y)[:, r] * root)[:, j] for sign in (1, -1))
                new = new + (high + low - 2 * here) * w[j] / 4 + (high - low) * (w[j] * w[r] + h * V[r][j]) / root / 4
    return new


A0, B0, C0 = [[0, 0, 0], [2 / 3, 0, 0], [-1 / 3, 1, 0]], [[0, 0, 0], [1, 0, 0], [0, 0, 0]], [0, 2 / 3, 2 / 3]
A1, B1, C1 = [[0, 0, 0], [1, 0, 0], [1, 0, 0]], [[0, 0, 0], [1, 0, 0], [-1, 0, 0]], [0, 1, 1]
A2, B2, C2 = [[0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 0, 0], [-1, 0, 0]], [0, 0, 0]
ALPHA, BETA = [1 / 4, 1 / 2, 1 / 4], [[1 / 2, 1 / 4, 1 / 4], [0, 1 / 2, -1 / 2], [-1 / 2, 1 / 4, 1 / 4], [0, 1 / 2, -1 / 2]]
"""Coefficients of RI1: Roessler (2009), Table 5.2. The times C are the row sums of A."""


def ri1(a, b, t, y, h, w, V):
    """Return a step of Roessler (2009), method (3), for any explicit tableau.

    The stages are those of the drift, of each noise, and of each noise displaced by the others.
    """
    m, root, stages = len(w), math.sqrt(h), range(3)
    double = [[(w[k] ** 2 - h) / 2 if k == r else (w[k] * w[r] + h * V[r][k]) / 2 for r in range(m)] for k in range(m)]
    drift, noise = [], [[] for _ in range(m)]
    for i in stages:
        start = y + sum((A0[i][j] * h * drift[j] for j in range(i)), np.zeros_like(y))
        start = start + sum((B0[i][j] * noise[k][j] * w[k] for j in range(i) for k in range(m)), np.zeros_like(y))
        drift.append(a(t + C0[i] * h, start))
        for k in range(m):
            own = y + sum((A1[i][j] * h * drift[j] + B1[i][j] * root * noise[k][j] for j in range(i)), np.zeros_like(y))
            noise[k].append(b(t + C1[i] * h, own)[:, k])
    new = y + sum(ALPHA[i] * h * drift[i] for i in stages)
    for k in range(m):
        for i in stages:
            new = new + noise[k][i] * (BETA[0][i] * w[k] + BETA[1][i] * double[k][k] / root)
            moved = y + sum(A2[i][j] * h * drift[j] for j in stages)
            for r in range(m):
                if r != k:
                    moved = moved + sum((B2[i][j] * noise[r][j] for j in range(i)), np.zeros_like(y)) * double[k][r] / root
            new = new + b(t + C2[i] * h, moved)[:, k] * (BETA[2][i] * w[k] + BETA[3][i] * root)
    return new


def sra1(a, b, t, y, h, w, z):
    """Return a step of Roessler (2010), Table 6.1, for additive noise; z is the integral of W over the step."""
    first = a(t, y)
    second = a(t + 3 / 4 * h, y + 3 / 4 * h * first + 3 / 2 * b(t + h, y) @ z / h)
    return y + h * (first / 3 + 2 / 3 * second) + b(t + h, y) @ (w - z / h) + b(t, y) @ z / h


def obabo(grad, root, r, gamma, kappa, h, x, m, u):
    """Return a step of the splitting OBABO."""
    c = math.exp(-gamma * h / 2)
    s = kappa * math.sqrt((1 - c * c) / (2 * gamma))
    m = c * m + s * root(x) @ u[0] + kappa * h / 2 * grad(x)
    x = x - r * h * m
    return x, c * (m + kappa * h / 2 * grad(x)) + s * root(x) @ u[1]


def baoab(grad, root, r, gamma, kappa, h, x, m, u):
    """Return a step of the splitting BAOAB."""
    c = math.exp(-gamma * h)
    m = m + kappa * h / 2 * grad(x)
    x = x - r * h / 2 * m
    m = c * m + kappa * math.sqrt((1 - c * c) / (2 * gamma)) * root(x) @ u[0]
    x = x - r * h / 2 * m
    return x, m + kappa * h / 2 * grad(x)


def ubu(grad, root, r, gamma, kappa, h, x, m, u):
    """Return a step of the splitting UBU.

    U is the flow of dX = -r M dt, dM = -gamma M dt + kappa R dW over h/2, by the covariance of its two Gaussian integrals.
    """
    t = h / 2
    c = math.exp(-gamma * t)
    ends = (1 - c * c) / (2 * gamma)  # Var int exp(-gamma (t - s)) dW
    mixed = (1 - c) ** 2 / (2 * gamma**2)
    ways = (t - 2 * (1 - c) / gamma + ends) / gamma**2  # Var int (1 - exp(-gamma (t - s))) / gamma dW
    low = np.linalg.cholesky([[ends, mixed], [mixed, ways]])
    for half in (0, 1):
        first, second = root(x) @ u[2 * half], root(x) @ u[2 * half + 1]
        x = x - r * ((1 - c) / gamma * m + kappa * (low[1, 0] * first + low[1, 1] * second))
        m = c * m + kappa * low[0, 0] * first
        if half == 0:
            m = m + kappa * h * grad(x)
    return x, m
