"""The number of rows of the arrays that `manifold.kernels` writes to, here without Numba, for those who reserve them."""

from __future__ import annotations


def frame_rows(dim: int) -> int:
    """Return the number of rows of the array `out` of `kernels.frame` for matrices with `dim` rows: those of the results and of scratch memory.

    The results are four symmetric matrices, by their entries i <= j.
    """
    return 4 * (dim * (dim + 1) // 2) + 4 * dim * dim + dim + 3


def newton_rows(dim: int) -> int:
    """Return the number of rows of the array `out` of `kernels.newton` for matrices with `dim` rows: those of the result and of scratch memory."""
    return dim + dim * (dim + 1) // 2
