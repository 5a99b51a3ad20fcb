"""The answer: observables, estimates, gaps with bands, orders."""

from sdetools.weak.estimate import Estimate, SupEstimate
from sdetools.weak.gap import WeakGap, weak_gap
from sdetools.weak.observables import Accumulate, Bounded, Indicator, LossVariation, Observable, PathLength, SquaredIncrements
from sdetools.weak.run import Simulation, simulate
from sdetools.weak.study import OrderEstimate, OrderStudy, order_study

__all__ = [
    "Accumulate",
    "Bounded",
    "Estimate",
    "Indicator",
    "LossVariation",
    "Observable",
    "OrderEstimate",
    "OrderStudy",
    "PathLength",
    "Simulation",
    "SquaredIncrements",
    "SupEstimate",
    "WeakGap",
    "order_study",
    "simulate",
    "weak_gap",
]
