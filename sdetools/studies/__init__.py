"""Monte Carlo studies: means, weak gaps with bands, weak orders, distances in law, the slow time scale, multilevel Monte Carlo."""

from sdetools.studies.gap import WeakGap, weak_gap
from sdetools.studies.means import Simulation, simulate
from sdetools.studies.observables import Accumulate, Bounded, Indicator, LossVariation, Observable, PathLength, SquaredIncrements
from sdetools.studies.order import OrderEstimate, OrderStudy, order_study

__all__ = [
    "Accumulate",
    "Bounded",
    "Indicator",
    "LossVariation",
    "Observable",
    "OrderEstimate",
    "OrderStudy",
    "PathLength",
    "Simulation",
    "SquaredIncrements",
    "WeakGap",
    "order_study",
    "simulate",
    "weak_gap",
]
