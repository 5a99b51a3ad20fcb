"""Everything that moves, as a one-step rule with a clock: rules on noisy gradients, SDEs, and the integrators that make a rule of an SDE."""
