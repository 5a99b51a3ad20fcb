"""Roofline of a step of SGDM: its matrix products at the measured peak rate plus its draws, normals or uniforms of batches.

    ns per coordinate-step >= flops / peak + time of its draws

The peak is that of `np.dot` of (n, n) and (n, lanes) in place on one BLAS thread, with blocks as wide as the kernel's, for the faster of
n = 1,024 and the dimension itself. (This is NumPy's BLAS; kernels multiply through SciPy's. The versions of both are recorded.) Draws are
made by `draw_rows` as in kernels, into a buffer that stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools.benchmarking.implementations import clock

SQUARE = 1024
"""Size of the matrix at which products are fastest."""
ROWS = 64
"""Rows of draws made at once: whole groups of the draw plan."""
PROBE = 0.015
"""Approximate duration of a probe in seconds."""


@dataclass(frozen=True)
class Roofline:
    """Measured rates of the machine, from which a lower bound of the time of a coordinate-step (one step of one coordinate of one path) follows.

    Attributes:
        peak: Flops per second of matrix products, the largest that was measured; 0 where none was.
        peak_at_dim: Flops per second of products with a square matrix of the dimension, at least 64; 0 where none was measured.
        draw: Seconds per random draw.
    """

    peak: float
    peak_at_dim: float
    draw: float

    def nanoseconds(self, flops: float, draws: float = 1.0) -> float:
        """Return the least nanoseconds of a coordinate-step (of one coordinate of one path) with `flops` in matrix products and `draws` random draws.

        This is 1e9 * (draws * self.draw + flops / self.peak), without the second term if `flops` is 0.
        """
        return 1e9 * (draws * self.draw + (flops / self.peak if flops else 0.0))


@dataclass(frozen=True)
class Probe:
    """A function to be timed, `work()`, and the `amount` of work of one call, the number of flops or of random draws: their rate is amount / time."""

    work: Callable[[], Any]
    amount: float


def product(n: int, lanes: int, dtype: str, seconds: float = PROBE) -> Probe:
    """Return the probe of matrix products (n, n) times (n, lanes) on one BLAS thread, with its amount in flops.

    Args:
        n: Size of the square matrix.
        lanes: Number of columns of the second factor.
        dtype: "float64" or "float32".
        seconds: Approximate duration of one call of the probe, which repeats its work until then.
    """
    from sdetools.simulation.kernel import one_blas_thread

    a, b = np.full((n, n), 0.5, dtype), np.random.default_rng(n).normal(size=(n, lanes)).astype(dtype)
    out = np.empty((n, lanes), dtype)

    def run(times: int) -> None:
        with one_blas_thread:
            for _ in range(times):
                np.dot(a, b, out=out)

    run(1)
    times = max(1, round(seconds / clock(lambda: run(1))))
    return Probe(lambda: run(times), times * 2.0 * n * n * lanes)


def draws(lanes: int, dtype: str, seconds: float = PROBE, uniform: bool = False) -> Probe:
    """Return the probe of random draws, made by one thread as in kernels, with its amount in draws.

    Args:
        lanes: Number of paths in a block, a power of two from 16 to 256.
        dtype: "float64" or "float32".
        seconds: Approximate duration of one call of the probe, which repeats its work until then.
        uniform: Whether the draws are uniforms; else they are normals.
    """
    from sdetools._compiled import jit
    from sdetools.graph.lanes import call
    from sdetools.simulation import draw_rows

    @jit(cache=False)
    def loop(function: int, times: int, packed: int, out: int) -> None:
        for step in range(times):
            call(function, 1, 0, step, 0, packed, out)

    buffer = np.empty(ROWS * lanes, dtype)
    function = draw_rows.address("uniforms" if uniform else "normals", dtype)
    packed, times = ROWS << 32 | lanes, max(1, int(seconds / (1.2e-9 * buffer.size)))
    return Probe(lambda: loop(function, times, packed, buffer.ctypes.data), times * buffer.size)


def probes(dim: int, lanes: int, dtype: str, multiplies: bool, uniform: bool = False) -> tuple[Probe, ...]:
    """Return the probes of a dimension: that of draws first, then, if `multiplies`, those of matrix products, in increasing size of the matrix.

    The sizes are 1024 and `dim`, or 64 if `dim` is smaller; a single probe if they are equal.

    Args:
        dim: The dimension.
        lanes: Number of paths in a block, which the kernel computes together.
        dtype: "float64" or "float32".
        multiplies: Whether a step has matrix products.
        uniform: Whether the draws are uniforms; else they are normals.
    """
    sizes = sorted({SQUARE, max(dim, ROWS)}) if multiplies else ()
    return (draws(lanes, dtype, uniform=uniform), *(product(n, lanes, dtype) for n in sizes))


def roofline(made: Sequence[Probe], seconds: Sequence[float], dim: int) -> Roofline:
    """Return the roofline of a dimension from the measured times of its probes.

    Args:
        made: The probes of this dimension, as returned by `probes`: that of draws first, then those of products.
        seconds: The smallest time of each probe, in the same order, in seconds.
        dim: The dimension.
    """
    (draw, *rates) = [probe.amount / least for probe, least in zip(made, seconds, strict=True)]
    at_dim = (rates[-1] if dim > SQUARE else rates[0]) if rates else 0.0
    return Roofline(max(rates, default=0.0), at_dim, 1 / draw)
