"""Compiled functions for a step on the manifold, on a block of lanes; each innermost loop runs over lanes and has no branch.

A lane is one of the paths that are computed together: all arrays are `(entries, lanes)`, with one row per entry of a vector or matrix. A
full matrix has entry (i, j) in row i * dim + j. A symmetric matrix has stored entries: those with i <= j, in the rows `place(i, j, dim)`,
dim (dim + 1)/2 of them. A symmetric tensor has those with i <= j <= l in lexicographic order. Functions return nothing: they write to `out`, which has
the results first and then scratch rows, so that nothing is allocated. Where `settings` is an argument, `settings[0]` is dim.

`frame` diagonalises one Hessian for each lane by cyclic Jacobi rotations and computes the matrices of the slow SDE, `pull` is its drift,
`tangent` is P v, and `newton` a step back to the manifold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from sdetools._compiled import by_address, jit
from sdetools._machine_code import once
from sdetools.graph.bits import float32_pointer, float_pointer, rows_at
from sdetools.manifold.kernel_rows import frame_rows, newton_rows

PLAIN: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False, "cache": False}
"""Options of `jit`, for machine code without symbols of Numba: nothing is allocated, so arrays need no counts of references; and inner functions are compiled with
the outer one, since of one from Numba's cache it is unknown that it raises no error. `function` has a cache of its own."""
NAMES = ("frame", "pull", "tangent", "newton")
"""The functions that compiled kernels call by address."""
EXTRA_SWEEPS = 4
"""Sweeps in addition to one for each doubling of the dimension: the rotations converge quadratically."""


_frame_rows, _newton_rows = (njit(inline="always")(rows) for rows in (frame_rows, newton_rows))


@njit(inline="always")
def place(i, j, dim):
    """Return the index of entry (i, j), i <= j, in a list of the entries i <= j of a `dim` x `dim` matrix, row by row: 0 for (0, 0), 1 for (0, 1)."""
    return i * dim - (i * (i - 1)) // 2 + j - i


@jit(**PLAIN)
def jacobi(A, V, dim, lanes):
    """Compute the eigenvalues and eigenvectors of one symmetric matrix per lane (path), by cyclic Jacobi rotations; return nothing.

    Args:
        A: The matrices, `(dim * dim, lanes)`, entry (i, j) in row i * dim + j; of a pair i < j only that entry is read. Overwritten: with the
            eigenvalues on the diagonal in no particular order.
        V: Output, `(dim * dim, lanes)`; its column k is the eigenvector of the k-th eigenvalue on the diagonal.
        dim: Number of rows of a matrix.
        lanes: Number of lanes.
    """
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


@jit(**PLAIN)
def product(X, transposed, Y, out, dim, lanes):
    """Write the matrix product X Y, or X^T Y if `transposed`, to `out`, for each lane (path), a column of the arrays.

    X, Y and `out` are `(dim * dim, lanes)`, with entry (i, j) of a matrix in row i * dim + j.
    """
    for i in range(dim):
        for k in range(dim):
            for j in range(lanes):
                out[i * dim + k, j] = 0.0
            for a in range(dim):
                at = a * dim + i if transposed else i * dim + a
                for j in range(lanes):
                    out[i * dim + k, j] += X[at, j] * Y[a * dim + k, j]


@jit(**PLAIN)
def back(X, V, out, dim, lanes):
    """Write the entries i <= j of X V^T, which must be symmetric, to `out`, for each lane (path), a column of the arrays.

    X and V are `(dim * dim, lanes)`, with entry (i, j) in row i * dim + j; `out` is `(dim (dim + 1)/2, lanes)`, entry (i, j) in row
    `place(i, j, dim)`.
    """
    for i in range(dim):
        for k in range(i, dim):
            at = place(i, k, dim)
            for j in range(lanes):
                out[at, j] = 0.0
            for b in range(dim):
                for j in range(lanes):
                    out[at, j] += X[i * dim + b, j] * V[k * dim + b, j]


@jit(**PLAIN)
def frame(H, Sigma, out, settings):
    """Compute the matrices of the slow SDE for each lane (path) from the Hessian H and the covariance Sigma; return nothing.

    They are P, H^+, P Sigma P and Z = Lyap^{-1}(Q Sigma Q) + H^+ Q Sigma P + (H^+ Q Sigma P)^T, with P the projection onto the kernel of H,
    Q = I - P and Lyap(X) = H X + X H. The M largest eigenvalues of H are those across the manifold; the others count as 0.

    Args:
        H: The Hessian by its entries i <= j, row by row, `(dim (dim + 1)/2, lanes)`.
        Sigma: The covariance, of the same form.
        out: Output, `(frame_rows(dim), lanes)`: the four matrices in this order, each of the form of H, then scratch memory. If a bound
            of `settings` is violated, all results of the lane are NaN.
        settings: Four numbers: dim, the rank M, the largest |lambda_j| / lambda_M over j > M and the least lambda_M / lambda_1 allowed, for the
            eigenvalues lambda_1 >= lambda_2 >= ... of H.
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


@jit(**PLAIN)
def times(A, v, out, add, dim, lanes):
    """Write A v to `out`, or add it to `out` if `add`, for each lane (path), a column of the arrays.

    A is symmetric, by its entries i <= j, row by row, `(dim (dim + 1)/2, lanes)`; `v` and `out` are `(dim, lanes)`.
    """
    for i in range(dim):
        if not add:
            for j in range(lanes):
                out[i, j] = 0.0
        for k in range(dim):
            at = place(min(i, k), max(i, k), dim)
            for j in range(lanes):
                out[i, j] += A[at, j] * v[k, j]


@jit(**PLAIN)
def contract(T, M, out, dim, lanes):
    """Write out_l = sum_ij T_ijl M_ij to `out`, `(dim, lanes)`, for each lane (path), a column of the arrays.

    T is a symmetric tensor by its entries i <= j <= l in lexicographic order, `(dim (dim + 1)(dim + 2)/6, lanes)`, and M a symmetric matrix by
    its entries i <= j, row by row, `(dim (dim + 1)/2, lanes)`.
    """
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


@jit(**PLAIN)
def pull(F, T, out, settings):
    """Write d2Phi[Sigma] = -(H^+ D[P Sigma P] + P D[Z]) to the first dim rows of `out`, for each lane (path); D[M]_l = sum_ij T_ijl M_ij.

    Args:
        F: The result of `frame`: the matrices P, H^+, P Sigma P and Z, each by its entries i <= j; further rows are not read.
        T: The third derivative of the loss, by its entries i <= j <= l, `(dim (dim + 1)(dim + 2)/6, lanes)`.
        out: Output, `(2 dim, lanes)`, with dim rows of scratch memory after the result.
        settings: dim, and further numbers that are not read.
    """
    dim, lanes = int(settings[0]), F.shape[1]
    own, D = dim * (dim + 1) // 2, out[dim:]
    contract(T, F[2 * own :], D, dim, lanes)
    times(F[own:], D, out, False, dim, lanes)
    contract(T, F[3 * own :], D, dim, lanes)
    times(F, D, out, True, dim, lanes)
    for i in range(dim):
        for j in range(lanes):
            out[i, j] = -out[i, j]


@jit(**PLAIN)
def tangent(P, v, out, settings):
    """Write P v to `out`, `(dim, lanes)`, for the projection P and vectors `v` `(dim, lanes)`, for each lane (path); `settings[0]` is dim.

    P is given by its entries i <= j, row by row; rows after the first dim (dim + 1)/2 are not read, so it may be the result of `frame`.
    """
    times(P, v, out, False, int(settings[0]), P.shape[1])


@jit(**PLAIN)
def newton(H, P, g, out, settings):
    """Write (H + tr(H) P)^{-1} g to the first dim rows of `out`, for each lane (path), by an L D L^T decomposition.

    On the normal space it is H^{-1} g: minus a Newton step across the manifold.

    Args:
        H: The Hessian by its entries i <= j, row by row, `(dim (dim + 1)/2, lanes)`.
        P: The projection onto its kernel, of the same form. With the term tr(H) P the matrix is invertible.
        g: The gradient, `(dim, lanes)`.
        out: Output, `(newton_rows(dim), lanes)`: the result, then scratch memory.
        settings: dim, and further numbers that are not read.
    """
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


@once
def function(name: str, dtype: str = "float64") -> Any:
    """Return `frame`, `pull`, `tangent` or `newton` as a function of addresses, a C callback, compiled once in a process.

    Its six 64-bit integers are the addresses of the arrays in the order of the function's arguments, then the number of lanes, then zeros; the
    numbers of rows follow from `settings`. So a kernel calls machine code from the cache, and does not compile it again.

    Args:
        name: The name of the function.
        dtype: The type of all numbers, "float64" or "float32".

    Returns:
        Numba's callback object; its `address` is that of the machine code.

    Raises:
        KeyError: There is no such function.
    """
    pointer = float_pointer if dtype == "float64" else float32_pointer

    def _frame(H, Sigma, out, settings, lanes, _):
        given = pointer(settings)
        dim = int(given[0])
        own = dim * (dim + 1) // 2
        H, Sigma = rows_at(pointer(H), own, lanes), rows_at(pointer(Sigma), own, lanes)
        frame(H, Sigma, rows_at(pointer(out), _frame_rows(dim), lanes), given)
        return 0

    def _pull(F, T, out, settings, lanes, _):
        given = pointer(settings)
        dim = int(given[0])
        own, third = dim * (dim + 1) // 2, dim * (dim + 1) * (dim + 2) // 6
        pull(rows_at(pointer(F), 4 * own, lanes), rows_at(pointer(T), third, lanes), rows_at(pointer(out), 2 * dim, lanes), given)
        return 0

    def _tangent(P, v, out, settings, lanes, _):
        given = pointer(settings)
        dim = int(given[0])
        at = rows_at(pointer(P), dim * (dim + 1) // 2, lanes)
        tangent(at, rows_at(pointer(v), dim, lanes), rows_at(pointer(out), dim, lanes), given)
        return 0

    def _newton(H, P, g, out, settings, lanes):
        given = pointer(settings)
        dim = int(given[0])
        own = dim * (dim + 1) // 2
        H, P = rows_at(pointer(H), own, lanes), rows_at(pointer(P), own, lanes)
        newton(H, P, rows_at(pointer(g), dim, lanes), rows_at(pointer(out), _newton_rows(dim), lanes), given)
        return 0

    written = dict(zip(NAMES, (_frame, _pull, _tangent, _newton)))[name]
    return by_address("manifold.kernels", name, dtype, written, error_model="numpy", _nrt=False)
