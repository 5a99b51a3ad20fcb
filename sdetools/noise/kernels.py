"""Compiled stages of batches of data, which kernels call instead of tracing `value`.

Arrays are component first, `(rows, lanes)`, C-contiguous. The sampled kernels walk one lane at a time over contiguous copies of
its point, so that the inner loops over coordinates are vectorised. `FAST` leaves out the flags that let a compiler forget NaNs, and
those that let it regroup sums: a function may be compiled on its own and again within a kernel, and both must give the same bits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sdetools._compiled import jit

FAST = {"contract", "nsz"}


@njit(nogil=True, error_model="numpy")
def _slope(logistic, margin, target):
    """phi'(margin, target): m - y, or -y / (1 + e^{y m}) with y = +-1 in a form that never overflows."""
    if logistic:
        small = math.exp(-abs(margin))
        return -target * (small if target * margin > 0 else 1.0) / (1.0 + small)
    return margin - target


@njit(nogil=True, fastmath=FAST, error_model="numpy", inline="always")
def _dot(row, at):
    """The inner product by four sums side by side: vector code in an order of its own, so the same bits wherever it is compiled."""
    n = row.shape[0]
    a = b = c = d = 0.0
    for k in range(0, n - 3, 4):
        a += row[k] * at[k]
        b += row[k + 1] * at[k + 1]
        c += row[k + 2] * at[k + 2]
        d += row[k + 3] * at[k + 3]
    for k in range(n - n % 4, n):
        a += row[k] * at[k]
    return (a + b) + (c + d)


@njit(nogil=True, fastmath=FAST, error_model="numpy", inline="always")
def _add(total, factor, row):
    for k in range(row.shape[0]):
        total[k] += factor * row[k]


@jit(nogil=True, fastmath=FAST, error_model="numpy")
def _sampled(x, z, full, scale, out, features, targets, numbers, weights, settings):
    """out = full grad L(x) + scale sum_c weights[c] g_c(x), g_c the gradient of the c-th batch of perturbed labels."""
    logistic, size, replace, labels, data = settings[0] == 1, settings[1], settings[2] == 1, settings[3] == 1, settings[4] == 1
    l2, std = numbers[0], numbers[1]
    dim, lanes = x.shape
    n, rows = features.shape[0], size * (2 if labels else 1)
    at, total = np.empty(dim), np.empty(dim)
    stamp, mark = np.zeros(0 if replace else n, np.int64), 0
    ridge = full
    for c in range(weights.shape[0]):
        ridge += scale * weights[c]
    ridge = ridge * l2 if data else 0.0
    for j in range(lanes):
        for k in range(dim):
            at[k] = x[k, j]
            total[k] = ridge * at[k]
        if full != 0.0:
            for i in range(n):
                _add(total, full / n * _slope(logistic, _dot(features[i], at), targets[i]), features[i])
        for c in range(weights.shape[0]):
            mark += 1
            for b in range(size):
                u = z[c * rows + b, j]
                if replace:
                    i = min(int(u * n), n - 1)
                else:
                    last = n - size + b
                    i = min(int(u * (last + 1)), last)
                    if stamp[i] == mark:
                        i = last
                    stamp[i] = mark
                factor = 0.0
                if data:
                    factor = _slope(logistic, _dot(features[i], at), targets[i])
                if labels:
                    factor -= std * z[c * rows + size + b, j]
                _add(total, scale * weights[c] / size * factor, features[i])
        for k in range(dim):
            out[k, j] = total[k]


@jit(nogil=True, fastmath=FAST, error_model="numpy")
def sampled_deviation(x, z, out, features, targets, numbers, weights, settings):
    """Stage: out = sum_c weights[c] (g_c - grad L); without the data part, sum_c weights[c] times the label noise of batch c."""
    full = -weights.sum() if settings[4] == 1 else 0.0
    _sampled(x, z, full, 1.0, out, features, targets, numbers, weights, settings)


@jit(nogil=True, fastmath=FAST, error_model="numpy")
def sampled_gradient(x, z, sigma, out, features, targets, numbers, weights, settings):
    """Stage: out = (1 - sigma sum_c weights[c]) grad L + sigma sum_c weights[c] g_c.

    Where the factor of grad L is 0 to rounding (sigma = 1 and its SVAG) the full gradient is not computed.
    """
    full, size = 1.0, 1.0
    for c in range(weights.shape[0]):
        full -= sigma * weights[c]
        size += abs(sigma * weights[c])
    if abs(full) <= 1e-15 * size:
        full = 0.0
    _sampled(x, z, full, sigma, out, features, targets, numbers, weights, settings)
