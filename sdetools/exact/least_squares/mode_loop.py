"""The compiled loop over steps and modes of the second moments on streaming least squares.

A mode is a coordinate i of the eigenbasis of the rows' covariance, with the eigenvalue lam_i; the state has n parts s_a, such as x and m, in each mode.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools._compiled import jit


@jit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})
def march(
    S: Any,
    lam: Any,
    drive: Any,
    A: Any,
    G: Any,
    U: Any,
    copies: Any,
    index: Any,
    label_variance: float,
    factor: float,
    first: int,
    count: int,
    risk: Any,
    levels: Any,
) -> None:
    """Advance the second moments by `count` steps in place, and record the risk after each.

    `S[a, b, i]` for a <= b is lam_i E s_a s_b; entries with a > b are neither read nor written. One step, with M_i = A + lam_i sum_j G_j U_j^T,
    Q_jl,i = U_j S_i U_l^T and level_jl = label_variance + sum_i Q_jl,i, is

        S_i <- M_i S_i M_i^T + factor sum_jl G_j G_l^T (lam_i^2 Q_jl,i + drive_i level_jl),

    summed over the pairs of gradients j and l that use the same copy of the rows.

    Args:
        S: The moments, `(n, n, modes)`; changed in place.
        lam: The eigenvalues, `(modes,)`; of nodes, where modes are in groups.
        drive: The factors of the level, `(modes,)`: lam_i^2 for single modes, and the weighted sums of lam_i^2 at nodes of groups.
        A: The matrices of the state for each kind of step, `(kinds, n, n)`; this and the next four as in `ModeSteps`.
        G: The weights of the J gradients in the new state, `(kinds, J, n)`.
        U: The weights of the state in the points of the gradients, `(kinds, J, n)`.
        copies: The index of the batch of rows that each gradient uses, `(J,)`.
        index: The kind of each step of the run, `(steps,)`.
        label_variance: The variance s^2 of the labels' noise.
        factor: sigma^2 / B.
        first: The number of steps made before, so that this call makes steps first, ..., first + count - 1 of `index`.
        count: The number of steps to make.
        risk: Receives half the sum of lam_i E x_i^2 after step k in entry k + 1, `(steps + 1,)`.
        levels: Receives level_jj of the last gradient j of step k in entry k, `(steps,)`; not written without a gradient.
    """
    n, modes, calls = S.shape[0], S.shape[2], G.shape[1]
    P, Q, M = np.empty((n, n, modes)), np.empty((calls, calls, modes)), np.empty((n, n, modes))
    known = -1
    for k in range(first, first + count):
        K = index[k]
        if known != K:
            known = K
            for a in range(n):
                for b in range(n):
                    slope = 0.0
                    for j in range(calls):
                        slope += G[K, j, a] * U[K, j, b]
                    row, start = M[a, b], A[K, a, b]
                    for i in range(modes):
                        row[i] = start + lam[i] * slope
        for j in range(calls):
            for l in range(j + 1):
                if copies[j] != copies[l]:
                    continue
                q = Q[j, l]
                q[:] = 0.0
                for a in range(n):
                    for b in range(n):
                        c = U[K, j, a] * U[K, l, b]
                        if c != 0.0:
                            row = S[min(a, b), max(a, b)]
                            for i in range(modes):
                                q[i] += c * row[i]
                level = label_variance
                for i in range(modes):
                    level += q[i]
                levels[k] = level
                for i in range(modes):
                    q[i] = lam[i] * lam[i] * q[i] + drive[i] * level
        for a in range(n):
            for c in range(n):
                out, left, right = P[a, c], M[a, 0], S[0, c]
                for i in range(modes):
                    out[i] = left[i] * right[i]
                for b in range(1, n):
                    left, right = M[a, b], S[min(b, c), max(b, c)]
                    for i in range(modes):
                        out[i] += left[i] * right[i]
        for a in range(n):
            for b in range(a, n):
                out, left, right = S[a, b], P[a, 0], M[b, 0]
                for i in range(modes):
                    out[i] = left[i] * right[i]
                for c in range(1, n):
                    left, right = P[a, c], M[b, c]
                    for i in range(modes):
                        out[i] += left[i] * right[i]
                for j in range(calls):
                    for l in range(calls):
                        g = factor * G[K, j, a] * G[K, l, b] if copies[j] == copies[l] else 0.0
                        if g != 0.0:
                            row = Q[max(j, l), min(j, l)]
                            for i in range(modes):
                                out[i] += g * row[i]
        total, row = 0.0, S[0, 0]
        for i in range(modes):
            total += row[i]
        risk[k + 1] = total / 2
