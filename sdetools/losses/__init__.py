"""Loss functions with their value, gradient, Hessian and third derivative.

A loss has three input forms: an expression (`from_expression`, exact derivatives by SymPy; `from_models` for sums of squares), a Python
function (`from_function`, the value or the gradient in NumPy, with data or without) and a torch function (`from_torch`, with data or
without). The other functions build losses from the literature. SymPy, Numba and torch are imported on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
