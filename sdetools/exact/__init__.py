"""Exact reference values without Monte Carlo: moment recursions, closed forms and quadrature.

`moments`, `expectation` and `gap` apply to linear rules on quadratic losses at finite eta, `solution` to linear SDEs, `step_law` to one
step of an integrator on any SDE, and `transfer` to one-dimensional SGD on any loss. `warmup`, `stationary_variance` and `local_orders`
are formulas.
"""

from __future__ import annotations

from sdetools.exact.closed_forms import Warmup, local_orders, stationary_variance, warmup
from sdetools.exact.closed_observables import Absolute, Below
from sdetools.exact.equations import solution, step_law
from sdetools.exact.expectations import expectation, gap
from sdetools.exact.gaussian import absolute_moment, probability_below, raw_moment
from sdetools.exact.moments import moments
from sdetools.exact.quadrature import transfer
from sdetools.exact.recorded import Moments

__all__ = [
    "Absolute",
    "Below",
    "Moments",
    "Warmup",
    "absolute_moment",
    "expectation",
    "gap",
    "local_orders",
    "moments",
    "probability_below",
    "raw_moment",
    "solution",
    "stationary_variance",
    "step_law",
    "transfer",
    "warmup",
]
