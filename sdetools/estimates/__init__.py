"""Statistics alone: values with their errors, confidence intervals, simultaneous bands, bootstraps. NumPy and SciPy are all that it knows."""

from sdetools.estimates.band import SupEstimate
from sdetools.estimates.estimate import Estimate
from sdetools.estimates.interval import ConfidenceInterval

__all__ = ["ConfidenceInterval", "Estimate", "SupEstimate"]
