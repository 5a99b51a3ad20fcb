"""Benchmarks of the kernels: against other implementations, against the machine's limit in every dimension, and variance reduction.

The core loop is 2-D SGDM on the hyperbola (`core_loop.py`). The tables over dimensions are in `dimension.py`.
"""

from sdetools._moved import forward

__getattr__ = forward(__name__, "cli.bench_command")
