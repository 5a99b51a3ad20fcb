"""How a gradient errs: the law of v in g = grad L + sigma v, its covariance Sigma(x) and square roots of it.

>>> from sdetools import noise
>>> noise.gaussian(dim=2).covariance([0.0, 0.0])
array([[1., 0.],
       [0., 1.]])
"""

from __future__ import annotations

from .base import Noise, Normal, Sign, Uniform, sample_draws
from .function import FunctionNoise, from_function
from .gallery import (
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
from .minibatch import Minibatch, SampleGaussian, label_noise, minibatch
from .oracle import NoisyOracle, SVAGNoise, svag
from .samples import SampledNoise

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
