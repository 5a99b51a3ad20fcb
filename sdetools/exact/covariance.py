"""The mean of a noise covariance that is a quadratic polynomial: E Sigma(u) from the mean and covariance of u.

    Sigma(u) = S0 + S1 (u - o) + 1/2 (u - o)^T S2 (u - o)   gives   E Sigma(u) = Sigma(E u) + 1/2 sum_ij S2_ij Cov(u)_ij,

for any law of u. Constant noise and minibatch least squares have such a covariance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_PROBES = 8
_LARGEST = 40  # coordinates; S2 has dim^4 entries


@dataclass(frozen=True, eq=False)
class QuadraticCovariance:
    """The noise covariance Sigma(u) = S0 + S1 (u - o) + 1/2 S2 vec((u - o)(u - o)^T) at a point u, a quadratic polynomial or a constant.

    Sigma(u) and the matrix (u - o)(u - o)^T, both `(dim, dim)`, are flattened to `(dim^2,)`, row by row, which is the meaning of vec.

    Attributes:
        origin: The point o about which it is expanded, shape `(dim,)`.
        constant: S0 = Sigma(o), shape `(dim^2,)`.
        linear: S1, the first derivatives at o, shape `(dim^2, dim)`, or None for a constant covariance.
        second: S2, the second derivatives, shape `(dim^2, dim^2)`, or None for a constant covariance.
    """

    origin: np.ndarray
    constant: np.ndarray
    linear: np.ndarray | None
    second: np.ndarray | None

    @property
    def is_constant(self) -> bool:
        """Whether the covariance Sigma(u) does not depend on the point u."""
        return self.linear is None

    def mean(self, mu: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Return E Sigma(u), shape `(dim, dim)`, for a random u with mean `mu`, `(dim,)`, and covariance `spread`, `(dim, dim)`."""
        dim = len(self.origin)
        if self.linear is None or self.second is None:
            return self.constant.reshape(dim, dim)
        shift = mu - self.origin
        flat = self.constant + self.linear @ shift + 0.5 * (self.second @ (spread + np.outer(shift, shift)).ravel())
        return flat.reshape(dim, dim)


def quadratic_covariance(covariance: Callable[[np.ndarray], Any], origin: np.ndarray) -> QuadraticCovariance:
    """Return a noise covariance as a constant or quadratic polynomial, from second differences about `origin`, which are exact for it.

    Args:
        covariance: The function x -> Sigma(x), from `(dim, paths)` to `(dim, dim, paths)`, or to `(dim, dim, 1)` if it is constant.
        origin: The point of expansion, shape `(dim,)`.

    Raises:
        ValueError: If values at random points show that the covariance is neither constant nor quadratic, or if it is quadratic in more
            than 40 coordinates.
    """
    dim = len(origin)

    def at(shifts: np.ndarray) -> np.ndarray:
        x = origin[:, None] + shifts
        values = np.asarray(covariance(x), dtype=float)
        return np.broadcast_to(values, (dim, dim, x.shape[1])).reshape(dim * dim, -1)

    rng = np.random.default_rng(20240602)
    random = rng.standard_normal((dim, _PROBES)) * 10.0 ** rng.uniform(-1, 1.5, size=_PROBES)
    with np.errstate(all="ignore"):
        constant, probed = at(np.zeros((dim, 1)))[:, 0], at(random)
    scale = max(np.abs(constant).max(), np.abs(probed).max(), np.finfo(float).tiny)
    if np.abs(probed - constant[:, None]).max() <= 1e-13 * scale:
        return QuadraticCovariance(origin, constant, None, None)
    if dim > _LARGEST:
        raise ValueError(
            f"exact moments with noise that depends on the point must have at most {_LARGEST} coordinates; got {dim}. "
            "Simulate it instead."
        )
    with np.errstate(all="ignore"):
        plus, minus = at(np.eye(dim)), at(-np.eye(dim))
        pairs = at(np.repeat(np.eye(dim), dim, axis=1) + np.tile(np.eye(dim), dim)).reshape(dim * dim, dim, dim)
    linear = (plus - minus) / 2
    second = pairs - plus[:, :, None] - plus[:, None, :] + constant[:, None, None]
    diagonal = np.arange(dim)
    second[:, diagonal, diagonal] = plus + minus - 2 * constant[:, None]
    expected = constant[:, None] + linear @ random + 0.5 * np.einsum("aij,ip,jp->ap", second, random, random)
    if not np.all(np.abs(probed - expected) <= 1e-9 * sizes(constant[:, None], plus, random)):  # also catches NaN
        raise ValueError(
            "exact moments must have a noise covariance that is constant or quadratic in the point; values of `oracle.covariance` "
            "at random points show that it is neither. Simulate it, or in one dimension use `exact.transfer`."
        )
    return QuadraticCovariance(origin, constant, linear, second.reshape(dim * dim, dim * dim))


def sizes(constant: np.ndarray, units: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return the size of the terms of quadratic polynomials at several points s: |constant| + max |units| * (1 + |s|_1)^2.

    An error at s counts as rounding if it is small relative to this size. |s|_1 is the sum of the moduli of the coordinates.

    Args:
        constant: The values at s = 0: a number, or `(n, 1)` for n polynomials.
        units: The values at the unit vectors s, an array of any shape; only the largest modulus counts.
        shifts: The points s, shape `(dim, points)`.

    Returns:
        The sizes, shape `(points,)` for a number `constant`, else `(n, points)`.
    """
    return np.abs(constant) + np.abs(units).max() * (1 + np.abs(shifts).sum(axis=0)) ** 2
