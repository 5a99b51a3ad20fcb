"""Claims: statements about stochastic optimisation as functions that measure them, with collection, budgets and verdicts.

Words of this package: a run executes all claims given to `verify`. A claim measures quantities; each has an interval and an accepted range.
A control is a variant of a claim that must be contradicted. A measurement is flagged if its interval lies outside its accepted range; the claim
then runs again on fresh draws (`again`). A chunk is a part of the paths of a simulation that is computed at once; the store is the file of
finished chunks, from which an interrupted run resumes.
"""

from __future__ import annotations

from sdetools._moved import forward, forward_modules
from sdetools.claims.context import BUDGETS, Budget, ClaimContext, Missing
from sdetools.claims.definition import Claim, claim, collect, select
from sdetools.claims.packs import pack
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
    "pack",
    "select",
    "verify",
]

_RENAMED = {"Run": "ClaimContext"}

forward_modules(__name__, {"run": "claims.context"}, _RENAMED)
__getattr__ = forward(__name__, "claims.context", renamed=_RENAMED)
