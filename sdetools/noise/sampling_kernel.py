"""Sampling without replacement in compiled kernels: the counterpart of `batch_sampling.floyd`, one path (a column) after another."""

from __future__ import annotations

import numpy as np

from sdetools._compiled import jit


@jit(nogil=True, error_model="numpy")
def choose(u, out, samples):
    """Write to each column of `out` a batch of different indices of samples, from 0, ..., samples[0] - 1, as floats; return nothing.

    For each sample a table stores the column that took it last, so that no list of taken indices is searched. The indices are those of
    `batch_sampling.floyd`.

    Args:
        u: Uniform draws from (0, 1), `(size, lanes)`: a row for each place in the batch, a column (lane) for each path of a block.
        out: The array to write to, `(size, lanes)`, of doubles.
        samples: The number of samples in an integer array `(1,)`; at least `size`.
    """
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
