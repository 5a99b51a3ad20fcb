"""Functions on an interval by their values at Chebyshev points: nodes, interpolation, and several variables."""

from __future__ import annotations

import numpy as np

from sdetools.exact.transfer_kernels import interpolation as interpolation


def nodes(count, half):
    """Return the Chebyshev points of (-half, half), `(count,)`, from the right to the left."""
    return half * np.cos(np.pi * np.arange(count) / (count - 1))


def products(*rows):
    """Return the row-wise Kronecker product of matrices, `(rows, n m ...)`: interpolation in several variables."""
    out = rows[0]
    for one in rows[1:]:
        out = (out[:, :, None] * one[:, None]).reshape(len(out), -1)
    return out
