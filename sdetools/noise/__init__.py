"""Gradient noise: the law of v in g = grad L + sigma v, its covariance Sigma(x) and square roots of it.

Words of this package:

- point, `x`: `(dim,)` for one path, `(dim, paths)` for many; `(dim, *paths)` means either.
- draws, `z`: the random numbers of one evaluation, `(n_draws,)` for one path or `(n_draws, paths)`, in the order that `draws` lists. `x` and `z`
  have the same paths: column j of both belongs to path j.
- numbers, `p`: the numbers of a noise as one vector, in the order of `parameters`; None means `parameters` itself. Other numbers need no new
  compilation.
- traced value: a `sdetools.graph.value.Value`. A formula is called with it in place of an array, to record its operations for compilation.
- root, R(x): a matrix `(dim, rank)` with R R^T = Sigma; v = R u, where u has `rank` independent entries with mean 0 and variance 1.
- samples: the rows of a data set, i = 1, ..., n. A batch is a random selection of `size` of them; each path draws its own.
- identity: a short text that identifies the formulas of an object, without the numbers in `parameters`.

Definitions and theorems are cited by their numbers in R. Wang, S. Malladi, T. Wang, K. Lyu, Z. Li, *The marginal value of momentum for small
learning rate SGD*, ICLR 2024 ("Wang et al. 2024").

Example:
    >>> from sdetools import noise
    >>> noise.gaussian(dim=2).covariance([0.0, 0.0])
    array([[1., 0.],
           [0., 1.]])
"""

from __future__ import annotations

from sdetools._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
