"""Monte Carlo studies: means, weak gaps with bands, weak orders, distances in law, the slow time scale, multilevel Monte Carlo.

Words of this package:

- A *dynamics* is a one-step rule with its noise and the time of one step (`dynamics.base.Moving`): an optimiser, or an SDE with an integrator.
  A *pair* is two dynamics, the *members*: x_k is the first and z_k the second. The *parts* of a state are the position and, where the rule
  has more, such as a momentum buffer, these.
- An *observable* is a test function h of a point. A *functional* is a sum over the steps of a path, such as its length.
- *Recorded* times or steps are those at which h is evaluated. Arrays `(times, observables)` have one row for each recorded time, in
  ascending order, and one column for each observable and then for each functional, in the order of `names`.
- A path *diverges* at the first step at which its state is not finite. *Diverged* counts are numbers of such paths.
- A *group* is a set of consecutive paths whose moments are accumulated together. A run has at most 256 groups; bootstraps resample them.
- A *stream*, numbered 0, 1, 2, ..., is one of many independent sets of draws that belong to a seed.
- *Pilot* paths determine how many paths a run needs. They have draws of their own and do not enter an estimate.
- The *origin* of a result is the call, seed, stream, backend, floating-point type and version that produced it.
"""

from sdetools.studies.functionals import Accumulate, LossVariation, PathLength, SquaredIncrements
from sdetools.studies.gap import WeakGap, weak_gap
from sdetools.studies.means import Simulation, simulate
from sdetools.studies.observables import Bounded, Indicator, Observable
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
