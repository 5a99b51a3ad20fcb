"""Gradient noise: the law of v in g = grad L + sigma v, its covariance Sigma(x) and square roots of it.

Example:
    >>> from sdetools import noise
    >>> noise.gaussian(dim=2).covariance([0.0, 0.0])
    array([[1., 0.],
           [0., 1.]])
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
