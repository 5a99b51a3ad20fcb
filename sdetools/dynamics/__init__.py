"""Dynamics: one-step rules on noisy gradients, stochastic differential equations, and integrators that discretise them."""
