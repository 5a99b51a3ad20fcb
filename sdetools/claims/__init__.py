"""Claims: statements about stochastic optimisation as functions that rerun themselves, collected, budgeted and judged."""

from __future__ import annotations

from .definition import Claim, claim, collect, select
from .run import BUDGETS, Budget, Missing, Run
from .verdict import ClaimResult, ControlResult, MeasurementResult, Results
from .verification import verify

__all__ = [
    "BUDGETS",
    "Budget",
    "Claim",
    "ClaimResult",
    "ControlResult",
    "MeasurementResult",
    "Missing",
    "Results",
    "Run",
    "claim",
    "collect",
    "select",
    "verify",
]
