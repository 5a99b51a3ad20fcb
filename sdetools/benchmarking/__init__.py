"""Benchmarks of the kernels: against other implementations, against the machine's limit in every dimension, and variance reduction.

The core loop is 2-D SGDM on the hyperbola (`core_loop.py`). The tables over dimensions are in `dimension.py`.
"""

from sdetools.benchmarking.command import main

__all__ = ["main"]
