"""Rules on noisy gradients: SGD and SGDM, linear filters of the momentum family, and methods without an equivalent SGD."""

from sdetools.dynamics.rules.filters import PNM, QHM, STORM, AccSGD, Nesterov, PrimalAveraging, RandomScaling
from sdetools.dynamics.rules.general_momentum import DANA, GeneralMomentum, MaSS, ScheduleFree
from sdetools.dynamics.rules.linear_filter import LinearFilter
from sdetools.dynamics.rules.optimisers import SGD, SGDM, Auxiliary, HeavyBall
from sdetools.dynamics.rules.without_gain import IGT, SGDF, SNGM

__all__ = [
    "DANA",
    "IGT",
    "PNM",
    "QHM",
    "SGD",
    "SGDF",
    "SGDM",
    "SNGM",
    "STORM",
    "AccSGD",
    "Auxiliary",
    "GeneralMomentum",
    "HeavyBall",
    "LinearFilter",
    "MaSS",
    "Nesterov",
    "PrimalAveraging",
    "RandomScaling",
    "ScheduleFree",
]
