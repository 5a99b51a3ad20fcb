"""Exact reference values without Monte Carlo: moment recursions, closed forms and quadrature.

`moments`, `expectation` and `gap` apply to linear rules on quadratic losses at finite eta, `solution` to linear SDEs, `step_law` to one
step of an integrator on any SDE, and `transfer` to one-dimensional SGD on any loss. `warmup`, `stationary_variance` and `local_orders`
are formulas. `generator_gap` derives the weak order of any rule or integrator with respect to an SDE, and the leading error;
`modified_equation` derives the SDE of a rule.

In one dimension `sign_chain` is the law of sign descent, `transfer_kernel` the operator of a step with kinks, and `semigroup` that of an SDE.
`AdaptiveProblem` has the moments of RMSProp and Adam on a quadratic.

`least_squares/` has the exact risk of linear rules on streaming least squares, `generators/` the expansions of one-step generators.

Words of this room: the state s of a dynamics is the vector of all its parts in order, such as x and the momentum buffer m; n is its
length, dim the number of coordinates of x. A rule is the function that makes one step. Its oracle calls are its evaluations of the
noisy gradient, and their results are the oracle's answers. The coefficients of a step are its numbers, such as eta_k and beta_k.
"""

from __future__ import annotations

from sdetools._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
