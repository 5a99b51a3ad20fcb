"""Benchmarks of the kernels: against other implementations, against the machine's limit in every dimension, and variance reduction.

The core loop is 2-D SGDM on the hyperbola (`core_loop.py`). The tables over dimensions are in `dimension.py`.

Words of this room: a path-step is one step of one path, and a coordinate-step one step of one coordinate of one path. A kernel computes a
block of paths together; lanes is the number of paths in a block. The roofline is a lower bound of the time of a coordinate-step:
its flops in matrix products at the machine's measured peak rate, plus the time of its random draws.
"""

from sdetools._moved import forward

__getattr__ = forward(__name__, "cli.bench_command")
