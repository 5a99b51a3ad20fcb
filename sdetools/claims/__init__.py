"""Claims: statements about stochastic optimisation as functions that measure them, with collection, budgets and verdicts."""

from __future__ import annotations

from sdetools._moved import forward, forward_modules
from sdetools.claims.context import BUDGETS, Budget, ClaimContext, Missing
from sdetools.claims.definition import Claim, claim, collect, select
from sdetools.claims.results import ClaimResult, ControlResult, MeasurementResult, Results
from sdetools.claims.verification import verify

__all__ = [
    "BUDGETS",
    "Budget",
    "Claim",
    "ClaimContext",
    "ClaimResult",
    "ControlResult",
    "MeasurementResult",
    "Missing",
    "Results",
    "claim",
    "collect",
    "select",
    "verify",
]

_RENAMED = {"Run": "ClaimContext"}

forward_modules(__name__, {"run": "claims.context"}, _RENAMED)
__getattr__ = forward(__name__, "claims.context", renamed=_RENAMED)
