"""Compiled functions for a step on the manifold, on a block of lanes; each innermost loop runs over lanes and has no branch.

`frame` diagonalises one Hessian for each lane by cyclic Jacobi rotations and computes the matrices of the slow SDE, `pull` is its drift,
`tangent` is P v, and `newton` a step back to the manifold. A symmetric matrix is stored by its entries i <= j, a symmetric tensor by its
entries i <= j <= l. The argument `out` contains the results and then scratch memory, so that nothing is allocated.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sdetools._compiled import jit

EXTRA_SWEEPS = 4
"""Sweeps in addition to one for each doubling of the dimension: the rotations converge quadratically."""


@njit(inline="always")
def place(i, j, dim):
    """Return the position of entry (i, j), i <= j, of a symmetric matrix."""
    return i * dim - (i * (i - 1)) // 2 + j - i


@jit(nogil=True, error_model="numpy")
def jacobi(A, V, dim, lanes):
    """Diagonalise A `(dim * dim, lanes)` in place, and write the eigenvectors to the columns of V."""
    for i in range(dim):
        for k in range(dim):
            for j in range(lanes):
                V[i * dim + k, j] = 1.0 if i == k else 0.0
    sweeps = 1 if dim == 2 else EXTRA_SWEEPS + math.ceil(math.log2(dim))
    for _ in range(sweeps):
        for p in range(dim - 1):
            for q in range(p + 1, dim):
                for j in range(lanes):
                    a = A[p * dim + q, j]
                    d = 0.5 * (A[q * dim + q, j] - A[p * dim + p, j])
                    # t = a / (d + sign(d) sqrt(a^2 + d^2)); with a = d = 0 it is 0, and where a^2 underflows at most 1
                    size = max(math.sqrt(a * a + d * d), abs(a)) + 1e-300
                    t = a / (d + (size if d >= 0.0 else -size))
                    c = 1.0 / math.sqrt(1.0 + t * t)
                    A[p * dim + p, j] -= t * a
                    A[q * dim + q, j] += t * a
                    A[p * dim + q, j] = c
                    A[q * dim + p, j] = c * t
                for k in range(dim):
                    if k != p and k != q:
                        up, uq = min(k, p) * dim + max(k, p), min(k, q) * dim + max(k, q)
                        for j in range(lanes):
                            c, s = A[p * dim + q, j], A[q * dim + p, j]
                            x, y = A[up, j], A[uq, j]
                            A[up, j] = c * x - s * y
                            A[uq, j] = s * x + c * y
                for k in range(dim):
                    for j in range(lanes):
                        c, s = A[p * dim + q, j], A[q * dim + p, j]
                        x, y = V[k * dim + p, j], V[k * dim + q, j]
                        V[k * dim + p, j] = c * x - s * y
                        V[k * dim + q, j] = s * x + c * y
                for j in range(lanes):
                    A[p * dim + q, j] = 0.0


@jit(nogil=True, error_model="numpy")
def product(X, transposed, Y, out, dim, lanes):
    """Compute out = X Y for full matrices, or X^T Y if `transposed`."""
    for i in range(dim):
        for k in range(dim):
            for j in range(lanes):
                out[i * dim + k, j] = 0.0
            for a in range(dim):
                at = a * dim + i if transposed else i * dim + a
                for j in range(lanes):
                    out[i * dim + k, j] += X[at, j] * Y[a * dim + k, j]


@jit(nogil=True, error_model="numpy")
def back(X, V, out, dim, lanes):
    """Compute the stored entries of the symmetric matrix X V^T."""
    for i in range(dim):
        for k in range(i, dim):
            at = place(i, k, dim)
            for j in range(lanes):
                out[at, j] = 0.0
            for b in range(dim):
                for j in range(lanes):
                    out[at, j] += X[i * dim + b, j] * V[k * dim + b, j]


@jit(nogil=True, error_model="numpy")
def frame(H, Sigma, out, settings):
    """Compute P, H^+, P Sigma P and Z = Lyap^{-1}(Q Sigma Q) + H^+ Q Sigma P + its transpose from H = Hess L and Sigma.

    `settings` are dim, the rank M, the largest |lambda_{M+1}| / lambda_M and the least lambda_M / lambda_1 allowed. The M largest
    eigenvalues are those across the manifold. If a bound is violated, all results of the lane are NaN.
    """
    dim, rank, most, least = int(settings[0]), settings[1], settings[2], settings[3]
    lanes, own, full = H.shape[1], dim * (dim + 1) // 2, dim * dim
    scratch = out[4 * own :]
    A, V, B, C, across = scratch, scratch[full:], scratch[2 * full :], scratch[3 * full :], scratch[4 * full :]
    low, rest, top = scratch[-3], scratch[-2], scratch[-1]
    for i in range(dim):
        for k in range(dim):
            at = place(min(i, k), max(i, k), dim)
            for j in range(lanes):
                A[i * dim + k, j] = H[at, j]
                B[i * dim + k, j] = Sigma[at, j]
    jacobi(A, V, dim, lanes)
    product(B, False, V, C, dim, lanes)
    product(V, True, C, B, dim, lanes)  # V^T Sigma V
    for j in range(lanes):
        low[j], rest[j], top[j] = np.inf, 0.0, 0.0
    for i in range(dim):
        for j in range(lanes):
            across[i, j] = 0.0
        for k in range(dim):
            for j in range(lanes):
                one, other = A[i * dim + i, j], A[k * dim + k, j]
                across[i, j] += 1.0 if (other > one or (other == one and k < i)) else 0.0
        for j in range(lanes):
            value = A[i * dim + i, j]
            across[i, j] = 1.0 if across[i, j] < rank else 0.0
            low[j] = min(low[j], value if across[i, j] > 0.0 else np.inf)
            rest[j] = max(rest[j], 0.0 if across[i, j] > 0.0 else abs(value))
            top[j] = max(top[j], value)
            A[i * dim + i, j] = across[i, j] * value
    for j in range(lanes):
        top[j] = 1.0 if (rest[j] <= most * low[j] and low[j] >= least * top[j] and low[j] > 0.0) else np.nan
    for r in range(4):
        for i in range(dim):
            for b in range(dim):
                for j in range(lanes):
                    C[i * dim + b, j] = 0.0
        for a in range(dim):
            for b in range(dim):
                if r >= 2 or a == b:
                    for j in range(lanes):
                        level = (1.0 - across[a, j]) * (1.0 - across[b, j])
                        rate = A[a * dim + a, j] + A[b * dim + b, j]
                        inverse = (1.0 - level) / (1.0 if level > 0.0 else rate)
                        if r == 0:
                            low[j] = level
                        elif r == 1:
                            low[j] = 2.0 * inverse
                        elif r == 2:
                            low[j] = level * B[a * dim + b, j]
                        else:
                            low[j] = inverse * B[a * dim + b, j]
                    for i in range(dim):
                        for j in range(lanes):
                            C[i * dim + b, j] += V[i * dim + a, j] * low[j]
        back(C, V, out[r * own : (r + 1) * own], dim, lanes)
    for r in range(4 * own):
        for j in range(lanes):
            out[r, j] *= top[j]


def frame_rows(dim):
    """Return the number of rows of `out` that `frame` needs."""
    return 4 * (dim * (dim + 1) // 2) + 4 * dim * dim + dim + 3


@jit(nogil=True, error_model="numpy")
def times(A, v, out, add, dim, lanes):
    """Compute out = A v for a symmetric A, or out += A v if `add`."""
    for i in range(dim):
        if not add:
            for j in range(lanes):
                out[i, j] = 0.0
        for k in range(dim):
            at = place(min(i, k), max(i, k), dim)
            for j in range(lanes):
                out[i, j] += A[at, j] * v[k, j]


@jit(nogil=True, error_model="numpy")
def contract(T, M, out, dim, lanes):
    """Compute out_l = sum_ij T_ijl M_ij for symmetric T and M."""
    for i in range(dim):
        for j in range(lanes):
            out[i, j] = 0.0
    at = 0
    for i in range(dim):
        for k in range(i, dim):
            for m in range(k, dim):
                # each position of the triple is the free index once; equal indices count once
                for free in range(3):
                    l, a, b = (m, i, k) if free == 0 else ((k, i, m) if free == 1 else (i, k, m))
                    if (free == 1 and k == m) or (free == 2 and i in (k, m)):
                        continue
                    pair = place(min(a, b), max(a, b), dim)
                    factor = 1.0 if a == b else 2.0
                    for j in range(lanes):
                        out[l, j] += factor * T[at, j] * M[pair, j]
                at += 1


@jit(nogil=True, error_model="numpy")
def pull(F, T, out, settings):
    """Compute d2Phi[Sigma] = -(H^+ D[P Sigma P] + P D[Z]) from the results F of `frame` and the third derivative T of L."""
    dim, lanes = int(settings[0]), F.shape[1]
    own, D = dim * (dim + 1) // 2, out[dim:]
    contract(T, F[2 * own :], D, dim, lanes)
    times(F[own:], D, out, False, dim, lanes)
    contract(T, F[3 * own :], D, dim, lanes)
    times(F, D, out, True, dim, lanes)
    for i in range(dim):
        for j in range(lanes):
            out[i, j] = -out[i, j]


@jit(nogil=True, error_model="numpy")
def tangent(P, v, out, settings):
    """Compute P v."""
    times(P, v, out, False, int(settings[0]), P.shape[1])


@jit(nogil=True, error_model="numpy")
def newton(H, P, g, out, settings):
    """Compute (H + tr(H) P)^{-1} g by an L D L^T decomposition."""
    dim, lanes = int(settings[0]), H.shape[1]
    own, L = dim * (dim + 1) // 2, out[dim:]
    for j in range(lanes):
        out[0, j] = 0.0
    for i in range(dim):
        at = place(i, i, dim)
        for j in range(lanes):
            out[0, j] += H[at, j]
    for i in range(own):
        for j in range(lanes):
            L[i, j] = H[i, j] + out[0, j] * P[i, j]
    for i in range(dim):
        for j in range(lanes):
            out[i, j] = g[i, j]
    for k in range(dim):
        pivot = place(k, k, dim)
        for i in range(k + 1, dim):
            row = place(k, i, dim)
            for m in range(i, dim):
                at, other = place(i, m, dim), place(k, m, dim)
                for j in range(lanes):
                    L[at, j] -= L[row, j] * L[other, j] / L[pivot, j]
            for j in range(lanes):
                out[i, j] -= L[row, j] / L[pivot, j] * out[k, j]
    for k in range(dim - 1, -1, -1):
        for i in range(k + 1, dim):
            row = place(k, i, dim)
            for j in range(lanes):
                out[k, j] -= L[row, j] * out[i, j]
        pivot = place(k, k, dim)
        for j in range(lanes):
            out[k, j] /= L[pivot, j]


def newton_rows(dim):
    """Return the number of rows of `out` that `newton` needs."""
    return dim + dim * (dim + 1) // 2
