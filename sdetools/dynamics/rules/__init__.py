"""Rules on noisy gradients: SGD and SGDM, the momentum family, adaptive methods, signs, clipping, and several gradients a step."""

from sdetools.dynamics.rules.batch_scaling import square_root_rule, svag
from sdetools.dynamics.rules.clipping import ClippedSGD, NormalisedSGD
from sdetools.dynamics.rules.filters import PNM, QHM, STORM, AccSGD, Nesterov, PrimalAveraging, RandomScaling
from sdetools.dynamics.rules.general_momentum import DANA, AcSGD, GeneralMomentum, MaSS, ScheduleFree
from sdetools.dynamics.rules.linear_filter import LinearFilter
from sdetools.dynamics.rules.optimisers import SGD, SGDM, Auxiliary, HeavyBall
from sdetools.dynamics.rules.second_moment import Adam, AdamW, RMSProp
from sdetools.dynamics.rules.several_gradients import SAM, LocalSGD
from sdetools.dynamics.rules.sign_rules import Lion, SignSGD, Signum
from sdetools.dynamics.rules.without_gain import IGT, SGDF, SNGM

__all__ = [
    "DANA",
    "IGT",
    "PNM",
    "QHM",
    "SAM",
    "SGD",
    "SGDF",
    "SGDM",
    "SNGM",
    "STORM",
    "AcSGD",
    "AccSGD",
    "Adam",
    "AdamW",
    "Auxiliary",
    "ClippedSGD",
    "GeneralMomentum",
    "HeavyBall",
    "LinearFilter",
    "Lion",
    "LocalSGD",
    "MaSS",
    "Nesterov",
    "NormalisedSGD",
    "PrimalAveraging",
    "RMSProp",
    "RandomScaling",
    "ScheduleFree",
    "SignSGD",
    "Signum",
    "square_root_rule",
    "svag",
]
