"""Everything that moves, as a one-step rule with a clock."""

from sdetools.dynamics.base import Dynamics
from sdetools.dynamics.family import IGT, PNM, QHM, SGDF, SNGM, STORM, AccSGD, Nesterov, PrimalAveraging, RandomScaling
from sdetools.dynamics.integrators import BAOAB, OBABO, RI1, SRA1, UBU, EulerMaruyama, Heun, Integrator, Milstein, Platen
from sdetools.dynamics.limits import GradientFlow, HamiltonianSDE, KineticSDE, LimitSDE, ModifiedMomentumSDE, ModifiedSDE
from sdetools.dynamics.optimisers import SGD, SGDM, Auxiliary, HeavyBall
from sdetools.dynamics.sde import SDE
from sdetools.dynamics.slow import SlowSDE

__all__ = [
    "BAOAB",
    "IGT",
    "OBABO",
    "PNM",
    "QHM",
    "RI1",
    "SDE",
    "SGD",
    "SGDF",
    "SGDM",
    "SNGM",
    "SRA1",
    "STORM",
    "UBU",
    "AccSGD",
    "Auxiliary",
    "Dynamics",
    "EulerMaruyama",
    "GradientFlow",
    "HamiltonianSDE",
    "HeavyBall",
    "Heun",
    "Integrator",
    "KineticSDE",
    "LimitSDE",
    "Milstein",
    "ModifiedMomentumSDE",
    "ModifiedSDE",
    "Nesterov",
    "Platen",
    "PrimalAveraging",
    "RandomScaling",
    "SlowSDE",
]
