"""Sampling without replacement in compiled kernels: the counterpart of `batch_sampling.floyd`, one lane after another."""

from __future__ import annotations

import numpy as np

from sdetools._compiled import jit


@jit(nogil=True, error_model="numpy")
def choose(u, out, samples):
    """Write different numbers below samples[0] from uniforms `(size, lanes)`; a table stores the lane that took a number last."""
    n, size = samples[0], u.shape[0]
    taken = np.full(n, -1, np.int64)
    for j in range(u.shape[1]):
        for b in range(size):
            last = n - size + b
            t = min(int(u[b, j] * (last + 1)), last)
            if taken[t] == j:
                t = last
            taken[t] = j
            out[b, j] = t
