"""Closed-form expectations of a normal variable X, as functions of its mean and variance. Arguments broadcast; variance 0 stands for a point mass."""

from __future__ import annotations

import numpy as np

from sdetools import _check

_FAR = 50.0  # beyond (mean - a)^2 / (2 variance) = 50 the expansion in variance / (mean - a)^2 is exact to e^-50
_TERMS = 32


def absolute_moment(
    mean: float | np.ndarray, variance: float | np.ndarray, a: float | np.ndarray = 0.0, p: float | np.ndarray = 1.0
) -> np.ndarray | float:
    """Return E |X - a|^p for X ~ N(mean, variance) and p >= 0.

    With d = mean - a and z = d^2 / (2 variance),

        E |X - a|^p = (2 variance)^{p/2} Gamma((1 + p)/2) / sqrt(pi) * e^{-z} 1F1((1 + p)/2; 1/2; z),

    a series of positive terms without cancellation (Winkelbauer, arXiv:1209.4340, eq. 17 after Kummer's transformation).
    For z > 50, and for variance 0, it is summed as |d|^p sum_k C(p, 2k) (2k - 1)!! (variance / d^2)^k.

    Args:
        mean: The mean of X, a number or an array; all arguments broadcast.
        variance: The variance of X, not negative; 0 is a point mass.
        a: The centre, a number or an array.
        p: The exponent, not negative, a number or an array.

    Returns:
        The moment: a float if all arguments are numbers, else an array of their broadcast shape.

    Raises:
        ValueError: If p or the variance is negative, or an argument is not finite.

    Example:
        >>> import sdetools as st
        >>> round(st.exact.absolute_moment(0.0, 4.0), 6), st.exact.absolute_moment(3.0, 0.0, a=1.0, p=2)
        (1.595769, 4.0)
    """
    from scipy.special import gammaln, hyp1f1

    d, variance, p = np.broadcast_arrays(_check.finite("mean", mean) - _check.finite("a", a), _variances(variance), _powers(p))
    near = d * d <= 2 * _FAR * variance
    with np.errstate(all="ignore"):  # both branches are evaluated everywhere
        z = np.where(near & (variance > 0), d * d / (2 * variance), 0.0)
        half = (1 + p) / 2
        first = np.exp(p / 2 * np.log(2 * variance) + gammaln(half) - z) * hyp1f1(half, 0.5, z) / np.sqrt(np.pi)
        ratio = np.where(near, 0.0, variance / np.where(d == 0, 1.0, d) ** 2)
        second, term = np.zeros_like(ratio), np.ones_like(ratio)
        for k in range(_TERMS):
            second = second + term
            term = term * (p - 2 * k) * (p - 2 * k - 1) / (2 * (k + 1)) * ratio
        second = second * np.abs(d) ** p
    return _unwrap(np.where(variance == 0, np.abs(d) ** p, np.where(near, first, second)))


def raw_moment(mean: float | np.ndarray, variance: float | np.ndarray, n: int) -> np.ndarray | float:
    """Return E X^n = sum_k C(n, 2k) (2k - 1)!! variance^k mean^{n - 2k} for X ~ N(mean, variance).

    It is computed by the recursion E X^{n+1} = mean E X^n + n variance E X^{n-1}.

    Args:
        mean: The mean of X, a number or an array that broadcasts with `variance`.
        variance: The variance of X, not negative; 0 is a point mass.
        n: The exponent, an integer >= 0.

    Returns:
        The moment: a float if mean and variance are numbers, else an array of their broadcast shape.

    Raises:
        ValueError: If n or the variance is negative, or an argument is not finite.

    Example:
        >>> import sdetools as st
        >>> st.exact.raw_moment(1.0, 2.0, 3)
        7.0
    """
    n = _check.count("n", n, least=0)
    mean, variance = np.broadcast_arrays(_check.finite("mean", mean), _variances(variance))
    before, now = np.zeros(mean.shape), np.ones(mean.shape)
    for k in range(n):
        before, now = now, mean * now + k * variance * before
    return _unwrap(now)


def probability_below(mean: float | np.ndarray, variance: float | np.ndarray, a: float | np.ndarray) -> np.ndarray | float:
    """Return P(X <= a) for X ~ N(mean, variance); a point mass (variance 0) gives 0 or 1.

    Args:
        mean: The mean of X, a number or an array; all arguments broadcast.
        variance: The variance of X, not negative.
        a: The threshold, a number or an array.

    Returns:
        The probability: a float if all arguments are numbers, else an array of their broadcast shape.

    Raises:
        ValueError: If the variance is negative, or an argument is not finite.

    Example:
        >>> import sdetools as st
        >>> st.exact.probability_below(0.0, 1.0, 0.0), st.exact.probability_below(0.5, 0.0, 0.5)
        (0.5, 1.0)
    """
    from scipy.special import ndtr

    gap, variance = np.broadcast_arrays(_check.finite("a", a) - _check.finite("mean", mean), _variances(variance))
    with np.errstate(all="ignore"):
        inside = ndtr(gap / np.sqrt(variance))
    return _unwrap(np.where(variance == 0, (gap >= 0).astype(float), inside))


def _variances(variance: float | np.ndarray) -> np.ndarray:
    out = _check.finite("variance", variance)
    if out.size and out.min() < 0:
        raise ValueError(f"`variance` must not be negative; got {float(out.min())!r}. Zero is a point mass.")
    return out


def _powers(p: float | np.ndarray) -> np.ndarray:
    out = _check.finite("p", p)
    if out.size and out.min() < 0:
        raise ValueError(f"`p` must not be negative; got {float(out.min())!r}. |x - a|^p then has no polynomial growth.")
    return out


def _unwrap(out: np.ndarray) -> np.ndarray | float:
    return float(out) if np.ndim(out) == 0 else out
