"""Statistics: estimates with standard errors, confidence intervals, simultaneous bands and the bootstrap, on NumPy and SciPy alone.

Words of this package: a path is one simulated trajectory, and the paths are independent. A gap is the difference of the means of two
dynamics, and a curve is the sequence of the gaps at the recorded times. Paths are collected in groups, at most 256 in a run, and the sum over
a group is what the bootstrap resamples. A path diverges when its state leaves the finite numbers. Random draws are the random numbers of a
simulation; bootstrap draws are those of the resampling.
"""

from sdetools.estimates.band import SupEstimate
from sdetools.estimates.estimate import Estimate
from sdetools.estimates.interval import ConfidenceInterval

__all__ = ["ConfidenceInterval", "Estimate", "SupEstimate"]
