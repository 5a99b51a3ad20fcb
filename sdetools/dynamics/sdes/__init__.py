"""Stochastic differential equations: user-defined, limits of optimisers and modified equations, and the slow SDE."""

from sdetools.dynamics.sdes.limits import GradientFlow, HamiltonianSDE, KineticSDE, LimitSDE, ModifiedMomentumSDE, ModifiedSDE
from sdetools.dynamics.sdes.sde import SDE
from sdetools.dynamics.sdes.slow import SlowSDE

__all__ = [
    "SDE",
    "GradientFlow",
    "HamiltonianSDE",
    "KineticSDE",
    "LimitSDE",
    "ModifiedMomentumSDE",
    "ModifiedSDE",
    "SlowSDE",
]
