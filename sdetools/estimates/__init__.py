"""Statistics: estimates with standard errors, confidence intervals, simultaneous bands and the bootstrap, on NumPy and SciPy alone."""

from sdetools.estimates.band import SupEstimate
from sdetools.estimates.estimate import Estimate
from sdetools.estimates.interval import ConfidenceInterval

__all__ = ["ConfidenceInterval", "Estimate", "SupEstimate"]
