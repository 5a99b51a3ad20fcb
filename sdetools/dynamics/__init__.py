"""Everything that moves, as a one-step rule with a clock."""

from sdetools.dynamics.base import Dynamics
from sdetools.dynamics.optimisers import SGD, SGDM, Auxiliary, HeavyBall

__all__ = ["SGD", "SGDM", "Auxiliary", "Dynamics", "HeavyBall"]
