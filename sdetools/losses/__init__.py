"""Loss functions with their value, gradient, Hessian and third derivative.

A loss has three input forms: an expression (`from_expression`, exact derivatives by SymPy; `from_models` for sums of squares), a Python
function (`from_function`, the value or the gradient in NumPy, with data or without) and a torch function (`from_torch`, with data or
without). The other functions build losses from the literature. SymPy, Numba and torch are imported on first use.

Words of this package:

- A point `x` is an array `(dim,)`. Many points are an array `(dim, paths)`: one column for each simulated path. A row of paths is one
coordinate of all paths, `(paths,)`. In a shape, `*paths` is nothing for one point, and the number of paths for many.
- A traced value (`sdetools.graph.value.Value`) stands for a point while a formula is recorded as a graph. Its shape has no axis of paths.
- `parameters` of a loss are the numbers in its formula that can change without a recompilation. The argument `p` of a method replaces them.
"""

from __future__ import annotations

from sdetools._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
