"""Gradient noise: the law of v in g = grad L + sigma v, its covariance Sigma(x) and square roots of it.

Example:
    >>> from sdetools import noise
    >>> noise.gaussian(dim=2).covariance([0.0, 0.0])
    array([[1., 0.],
           [0., 1.]])
"""

from __future__ import annotations

from sdetools.noise.base import Noise, Normal, Sign, Uniform, sample_draws
from sdetools.noise.batch_sampling import SampledNoise
from sdetools.noise.custom import FunctionNoise, from_function
from sdetools.noise.laws import (
    RootedNoise,
    centred_exponential,
    gaussian,
    none,
    rademacher,
    student_t,
    three_point,
    two_point,
    uniform,
)
from sdetools.noise.minibatch import Minibatch, SampleGaussian, label_noise, minibatch
from sdetools.noise.oracle import NoisyOracle, SVAGNoise, svag

__all__ = [
    "FunctionNoise",
    "Minibatch",
    "Noise",
    "NoisyOracle",
    "Normal",
    "RootedNoise",
    "SVAGNoise",
    "SampleGaussian",
    "SampledNoise",
    "Sign",
    "Uniform",
    "centred_exponential",
    "from_function",
    "gaussian",
    "label_noise",
    "minibatch",
    "none",
    "rademacher",
    "sample_draws",
    "student_t",
    "svag",
    "three_point",
    "two_point",
    "uniform",
]
