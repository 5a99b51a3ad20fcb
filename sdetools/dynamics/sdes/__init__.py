"""Stochastic differential equations dX = a dt + b dW: user-defined, limits of optimisers and modified equations, and the slow SDE.

The words of `sdetools.dynamics` apply: `y` is the state with all parts one after another, `p` the numbers, `s` the signals, `u` the entries of
a noise vector, one for each Brownian motion.
"""

from sdetools.dynamics.sdes.adaptive_limits import AdamSDE, RMSPropSDE
from sdetools.dynamics.sdes.adaptive_slow import AdaptiveSlowFlow
from sdetools.dynamics.sdes.coordinatewise import ClippedSDE, SignSDE
from sdetools.dynamics.sdes.limits import GradientFlow, HamiltonianSDE, KineticSDE, LimitSDE, ModifiedMomentumSDE, ModifiedSDE
from sdetools.dynamics.sdes.sde import SDE
from sdetools.dynamics.sdes.slow import SlowSDE

__all__ = [
    "SDE",
    "AdamSDE",
    "AdaptiveSlowFlow",
    "ClippedSDE",
    "GradientFlow",
    "HamiltonianSDE",
    "KineticSDE",
    "LimitSDE",
    "ModifiedMomentumSDE",
    "ModifiedSDE",
    "RMSPropSDE",
    "SignSDE",
    "SlowSDE",
]
