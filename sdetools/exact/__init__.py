"""Exact reference values without Monte Carlo: moment recursions, closed forms and quadrature.

`moments`, `expectation` and `gap` apply to linear rules on quadratic losses at finite eta, `solution` to linear SDEs, `step_law` to one
step of an integrator on any SDE, and `transfer` to one-dimensional SGD on any loss. `warmup`, `stationary_variance` and `local_orders`
are formulas.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
