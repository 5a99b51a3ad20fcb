"""Expression graphs: formulas are traced into operations, differentiated, and compiled for NumPy, torch, Numba and CUDA.

This package knows nothing of losses, noise or dynamics.
"""

from sdetools.graph import functions
from sdetools.graph.value import Value

Value.numpy = functions
