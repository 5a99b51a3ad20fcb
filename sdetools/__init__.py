"""pytest for theorems about stochastic optimisation: simulate optimisers over very many paths, and measure how close they are.

>>> import sdetools as st
>>> loss = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")
>>> oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=2), sigma=0.01**-0.5)
>>> plan = st.schedules.constant(eta=0.01, beta=0.9)
>>> gap = st.weak_gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), x0=[2.0, 0.5], horizon=0.1, paths=5_000, observe=["x**2 + y**2"])
>>> gap.paths
5000
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sdetools._lazy import lazily

if TYPE_CHECKING:
    from sdetools import estimates, exact, losses, manifold, noise, schedules, starts, studies
    from sdetools._arrays import components, select
    from sdetools.claims import claim, verify
    from sdetools.dynamics.base import Dynamics, Moving
    from sdetools.dynamics.integrators import BAOAB, OBABO, RI1, SRA1, UBU, EulerMaruyama, Heun, Integrator, Milstein, Platen
    from sdetools.dynamics.rules import (
        IGT,
        PNM,
        QHM,
        SGD,
        SGDF,
        SGDM,
        SNGM,
        STORM,
        AccSGD,
        Auxiliary,
        HeavyBall,
        Nesterov,
        PrimalAveraging,
        RandomScaling,
    )
    from sdetools.dynamics.sdes import (
        SDE,
        GradientFlow,
        HamiltonianSDE,
        KineticSDE,
        LimitSDE,
        ModifiedMomentumSDE,
        ModifiedSDE,
        SlowSDE,
    )
    from sdetools.estimates import ConfidenceInterval, Estimate
    from sdetools.noise.oracle import NoisyOracle, svag
    from sdetools.schedules import Plan
    from sdetools.simulation.store import Store, StoreError
    from sdetools.studies import (
        Accumulate,
        Bounded,
        Indicator,
        LossVariation,
        PathLength,
        SquaredIncrements,
        order_study,
        simulate,
        weak_gap,
    )
    from sdetools.studies.distance import distance
    from sdetools.studies.execution import Execution
    from sdetools.studies.extrapolation import extrapolate
    from sdetools.studies.multilevel.estimator import multilevel
    from sdetools.studies.saving import load
    from sdetools.studies.slow_clock import slow_study

from sdetools._version import __version__

_HOME = {
    "components": "_arrays",
    "select": "_arrays",
    "claim": "claims",
    "verify": "claims",
    **dict.fromkeys(("Dynamics", "Moving"), "dynamics.base"),
    **dict.fromkeys(
        (
            *("SGD", "SGDM", "Auxiliary", "HeavyBall"),
            *("IGT", "PNM", "QHM", "SGDF", "SNGM", "STORM", "AccSGD", "Nesterov", "PrimalAveraging", "RandomScaling"),
        ),
        "dynamics.rules",
    ),
    **dict.fromkeys(
        ("GradientFlow", "HamiltonianSDE", "KineticSDE", "LimitSDE", "ModifiedMomentumSDE", "ModifiedSDE", "SDE", "SlowSDE"),
        "dynamics.sdes",
    ),
    **dict.fromkeys(
        ("BAOAB", "OBABO", "RI1", "SRA1", "UBU", "EulerMaruyama", "Heun", "Integrator", "Milstein", "Platen"),
        "dynamics.integrators",
    ),
    "NoisyOracle": "noise.oracle",
    "svag": "noise.oracle",
    "Plan": "schedules",
    "Store": "simulation.store",
    "StoreError": "simulation.store",
    "Accumulate": "studies",
    "Bounded": "studies",
    "ConfidenceInterval": "estimates",
    "Estimate": "estimates",
    "Indicator": "studies",
    "LossVariation": "studies",
    "PathLength": "studies",
    "SquaredIncrements": "studies",
    "distance": "studies.distance",
    "extrapolate": "studies.extrapolation",
    "Execution": "studies.execution",
    "load": "studies.saving",
    "multilevel": "studies.multilevel.estimator",
    "order_study": "studies",
    "slow_study": "studies.slow_clock",
    "simulate": "studies",
    "weak_gap": "studies",
}
_ROOMS = (
    "bridge",
    "claims",
    "estimates",
    "exact",
    "losses",
    "manifold",
    "noise",
    "plots",
    "report",
    "schedules",
    "starts",
    "studies",
    "weak",
)

__all__ = [*sorted(_HOME), "exact", "losses", "manifold", "noise", "schedules", "starts"]


_load, __dir__ = lazily(__name__, _HOME, [*__all__, *_ROOMS])


def __getattr__(name: str) -> Any:
    """Rooms and names are loaded when they are first asked for, so that `import sdetools` is quick."""
    return import_module(f"sdetools.{name}") if name in _ROOMS else _load(name)
