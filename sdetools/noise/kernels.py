"""Compiled stages of the noises that are not worth tracing: data in the gradient, constant roots of many coordinates.

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


@jit(nogil=True, fastmath=FAST, error_model="numpy")
def sampled_gaussian(x, z, out, features, targets, numbers, weights, settings):
    """Stage: out = sum_c weights[c] n^(-1/2) (p sum_i (xi_ci - mean xi_c) s_i(x) a_i + q sum_i zeta_ci a_i), (p, q) = numbers."""
    logistic, labels = settings[0] == 1, settings[3] == 1
    dim, lanes = x.shape
    n = features.shape[0]
    rows = n * (2 if labels else 1)
    at, total, xi = np.empty(dim), np.empty(dim), np.empty(n)
    for j in range(lanes):
        for k in range(dim):
            at[k] = x[k, j]
            total[k] = 0.0
        mean = 0.0
        for i in range(n):
            xi[i] = 0.0
            for c in range(weights.shape[0]):
                xi[i] += weights[c] * z[c * rows + i, j]
            mean += xi[i]
        mean /= n
        for i in range(n):
            factor = numbers[0] * (xi[i] - mean) * _slope(logistic, _dot(features[i], at), targets[i])
            if labels:
                for c in range(weights.shape[0]):
                    factor += numbers[1] * weights[c] * z[c * rows + n + i, j]
            _add(total, factor / math.sqrt(n), features[i])
        for k in range(dim):
            out[k, j] = total[k]


@jit(nogil=True, fastmath=FAST, error_model="numpy")
def _entry(code, numbers, z, row, rank, j):
    """One entry of u by the code of its law; the twin of the `entry` functions of the gallery."""
    first = z[row, j]
    if code == 1:
        return math.sqrt(12.0) * (first - 0.5)
    if code == 2:
        return -math.sqrt(3.0) if first < 1 / 6 else (0.0 if first < 5 / 6 else math.sqrt(3.0))
    if code == 3:
        return -math.log(first) - 1.0
    if code == 4:
        return numbers[1] if first < numbers[0] else numbers[2]
    if code == 5:
        return math.sqrt(numbers[0] * math.expm1(numbers[1] * math.log(first))) * math.cos(2 * math.pi * z[row + rank, j])
    return first


@jit(nogil=True, fastmath=FAST, error_model="numpy")
def rooted(x, z, out, root, numbers, weights, settings):
    """Stage: out = R sum_c weights[c] u_c for a constant root R (identity, diagonal or dense) and entries u of one law."""
    code, structure, rank, per_entry = settings[0], settings[1], settings[2], settings[3]
    dim, lanes = out.shape
    u = np.zeros((rank, lanes))
    for c in range(weights.shape[0]):
        for i in range(rank):
            row, weight = c * rank * per_entry + i, weights[c]
            if code == 0:
                for j in range(lanes):
                    u[i, j] += weight * z[row, j]
            else:
                for j in range(lanes):
                    u[i, j] += weight * _entry(code, numbers, z, row, rank, j)
    for i in range(dim):
        if structure == 2:
            for j in range(lanes):
                out[i, j] = 0.0
            for k in range(rank):
                factor = root[i, k]
                for j in range(lanes):
                    out[i, j] += factor * u[k, j]
        else:
            factor = root[i, 0] if structure == 1 else 1.0
            for j in range(lanes):
                out[i, j] = factor * u[i, j]
