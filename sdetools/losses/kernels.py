"""The stages of losses that are not traced: gradients and values of a block of lanes, `function(x, out, *data)`.

`x` is `(dim, lanes)`. The innermost loop always runs over lanes with a straight-line body, which is what LLVM vectorises; sums
over coordinates and samples keep a fixed order, so a lane's result does not depend on its neighbours.
"""

from __future__ import annotations

import math

import numpy as np

from sdetools._compiled import jit

_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6
_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it leaves the nearest integer in the low bits

# Python's error model would test every division for zero, and a loop with tests in it is not vectorised.
stage = jit(nogil=True, error_model="numpy")
scalar = jit(nogil=True, error_model="numpy", inline="always")


@scalar
def exp_negative(t):
    """exp(t) for t <= 0 to about 1e-16, without a libm call, so that it vectorises; 0 < exp(-700) below -700, NaN for NaN."""
    t = -700.0 if t < -700.0 else t
    shifted = t * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = (t - n * _LN2_HIGH) - n * _LN2_LOW
    s = 1.0 + r / 13.0
    s = 1.0 + r * s * (1.0 / 12.0)
    s = 1.0 + r * s * (1.0 / 11.0)
    s = 1.0 + r * s * (1.0 / 10.0)
    s = 1.0 + r * s * (1.0 / 9.0)
    s = 1.0 + r * s * (1.0 / 8.0)
    s = 1.0 + r * s * (1.0 / 7.0)
    s = 1.0 + r * s * (1.0 / 6.0)
    s = 1.0 + r * s * (1.0 / 5.0)
    s = 1.0 + r * s * (1.0 / 4.0)
    s = 1.0 + r * s * (1.0 / 3.0)
    s = 1.0 + r * s * (1.0 / 2.0)
    s = 1.0 + r * s
    exponent = (np.float64(shifted).view(np.int64) + np.int64(1023)) << np.int64(52)
    return s * np.int64(exponent).view(np.float64)


@scalar
def least_squares_slope(margin, target):
    """phi'(m, y) of phi = (m - y)^2 / 2."""
    return margin - target


@scalar
def logistic_slope(margin, label):
    """phi'(m, y) of phi = log(1 + e^{-y m}), y = +-1: never overflows, accurate in both tails."""
    t = exp_negative(-abs(margin))
    return -label * (t if label * margin > 0 else 1.0) / (1.0 + t)


@stage
def quadratic_gradient(x, out, hessian, center, slope):
    """H (x - center) + slope."""
    dim, lanes = x.shape
    for i in range(dim):
        for j in range(lanes):
            out[i, j] = slope[i]
        for k in range(dim):
            h, c = hessian[i, k], center[k]
            for j in range(lanes):
                out[i, j] += h * (x[k, j] - c)


@stage
def quadratic_value(x, out, hessian, center, slope):
    """(x - center)^T H (x - center) / 2 + slope^T (x - center)."""
    dim, lanes = x.shape
    row = np.empty(lanes)
    for j in range(lanes):
        out[j] = 0.0
    for i in range(dim):
        for j in range(lanes):
            row[j] = 0.0
        for k in range(dim):
            h, c = 0.5 * hessian[i, k], center[k]
            for j in range(lanes):
                row[j] += h * (x[k, j] - c)
        s, c = slope[i], center[i]
        for j in range(lanes):
            out[j] += (row[j] + s) * (x[i, j] - c)


@stage
def _margins(x, row, out):
    """out_j = sum_i row_i x_ij."""
    for j in range(x.shape[1]):
        out[j] = 0.0
    for i in range(x.shape[0]):
        a = row[i]
        for j in range(x.shape[1]):
            out[j] += a * x[i, j]


@stage
def _ridge_gradient(x, out, l2):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = l2[0] * x[i, j]


@stage
def _ridge_value(x, out, l2):
    for j in range(x.shape[1]):
        out[j] = 0.0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[j] += 0.5 * l2[0] * x[i, j] * x[i, j]


@stage
def _accumulate(slopes, row, out):
    """out_ij += row_i slopes_j."""
    for i in range(out.shape[0]):
        a = row[i]
        for j in range(out.shape[1]):
            out[i, j] += a * slopes[j]


@stage
def least_squares_gradient(x, out, features, targets, l2):
    """mean over samples of (a . x - y) a, plus l2 x."""
    samples, lanes = len(features), x.shape[1]
    margin = np.empty(lanes)
    _ridge_gradient(x, out, l2)
    for s in range(samples):
        _margins(x, features[s], margin)
        y = targets[s]
        for j in range(lanes):
            margin[j] = least_squares_slope(margin[j], y) / samples
        _accumulate(margin, features[s], out)


@stage
def logistic_gradient(x, out, features, targets, l2):
    """mean over samples of phi'(a . x, y) a, plus l2 x."""
    samples, lanes = len(features), x.shape[1]
    margin = np.empty(lanes)
    _ridge_gradient(x, out, l2)
    for s in range(samples):
        _margins(x, features[s], margin)
        y = targets[s]
        for j in range(lanes):
            margin[j] = logistic_slope(margin[j], y) / samples
        _accumulate(margin, features[s], out)


@stage
def least_squares_value(x, out, features, targets, l2):
    """mean over samples of (a . x - y)^2 / 2, plus l2 |x|^2 / 2."""
    samples, lanes = len(features), x.shape[1]
    margin = np.empty(lanes)
    _ridge_value(x, out, l2)
    for s in range(samples):
        _margins(x, features[s], margin)
        y = targets[s]
        for j in range(lanes):
            out[j] += 0.5 * (margin[j] - y) ** 2 / samples


@stage
def logistic_value(x, out, features, targets, l2):
    """mean over samples of log(1 + e^{-y a . x}), plus l2 |x|^2 / 2."""
    samples, lanes = len(features), x.shape[1]
    margin = np.empty(lanes)
    _ridge_value(x, out, l2)
    for s in range(samples):
        _margins(x, features[s], margin)
        y = targets[s]
        for j in range(lanes):
            m = margin[j]
            out[j] += (0.5 * abs(m) - 0.5 * y * m + math.log1p(exp_negative(-abs(m)))) / samples
