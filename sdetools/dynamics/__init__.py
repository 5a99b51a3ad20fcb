"""Dynamics: one-step rules on noisy gradients, stochastic differential equations, and integrators that discretise them.

Words of this package:

- state: a tuple of parts, such as position and momentum. A part is an array with the coordinates first: `(dim,)` for one path, `(dim, paths)`
  for many. In formulas, a prime marks the value after the step, and g is the noisy gradient. An SDE has all parts one after another in one array
  `y`, `(n,)` or `(n, paths)` with n = dim times the number of parts.
- draws, `z`: the random numbers of one step, `(n_draws,)` or `(n_draws, paths)`, in the order that the property `draws` lists.
- numbers, `p`: the numbers of a formula as one vector, in the order of the property `parameters`. Other numbers need no new compilation.
- traced value: a `sdetools.graph.value.Value`. A formula is called with it in place of an array, to record its operations for compilation.
- coefficients: the numbers of a rule that may change from step to step, such as eta_k and beta_k.
- clock, `step_time`: the time that passes in one step.
- signals, `s`: the time-dependent numbers of an SDE, such as the rate lambda_t of a schedule.
- stage: one of the times within a step, as a fraction of it, at which an integrator evaluates the signals.
- class of noise: what is known of the diffusion b, see `sdetools.dynamics.sdes.classes`.
- identity: a short text that identifies the formulas of an object, without their numbers.
"""
