"""How fast the kernels run here: beside other ways, at every dimension beside the machine's limit, and what coupled draws save.

The core loop is 2-D SGDM on the hyperbola (`core_loop.py`); tables of the dimension are in `dimension.py`.
"""

from sdetools.benchmarking.command import main

__all__ = ["main"]
