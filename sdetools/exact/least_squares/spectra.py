"""Spectra of least squares problems: eigenvalues, the distance of the start in each mode, and the label noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check

MOST_MODES = 1 << 30
"""The largest number of modes, of which a spectrum takes 16 GiB."""
_GROUPS = "Millions of modes are followed in groups."


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A least squares problem in the eigenbasis of its rows' covariance, whose coordinates are called modes.

    Use a spectrum s as `st.streaming_least_squares(s.values, s.label_noise, batch)` and `x0=s.distance`; x is then the distance from the minimiser.

    Attributes:
        values: The eigenvalues lam_i of the rows' covariance, shape `(modes,)`; the functions of this module return them in decreasing order.
        distance: The initial point minus the minimiser in each mode, rho_i, up to sign, shape `(modes,)`.
        label_noise: The standard deviation of the labels' errors.
    """

    values: np.ndarray
    distance: np.ndarray
    label_noise: float

    @property
    def risk(self) -> float:
        """The excess risk 1/2 sum_i lam_i rho_i^2 of the start."""
        return float((self.values * self.distance**2).sum() / 2)


def checked_spectrum(spectrum: Any) -> np.ndarray:
    """Return eigenvalues, a number or a vector, as an array `(modes,)` of floats; ValueError unless they are finite and positive.

    Example:
        >>> checked_spectrum([1.0, 0.5])
        array([1. , 0.5])
    """
    lam = np.atleast_1d(_check.finite("spectrum", spectrum))
    if lam.ndim != 1 or not len(lam) or lam.min() <= 0:
        raise ValueError(f"`spectrum` must be a vector of positive numbers; got {_check.shown(spectrum)}. Leave out zeros.")
    return lam


def power_law(modes: int, a: float, b: float, label_noise: float = 0.0) -> Spectrum:
    """Return the spectrum lam_j = j^(-2a) with the distance rho_j = j^(-b) from the minimiser, j = 1, ..., `modes`.

    Args:
        modes: The number of modes, at most 2^30.
        a: Half the exponent of the eigenvalues, positive.
        b: The exponent of the distance, any number.
        label_noise: The standard deviation of the errors of labels, 0 or above.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> st.exact.power_law(2, a=1.0, b=0.5).values
        array([1.  , 0.25])
    """
    j = np.arange(1.0, _check.count("modes", modes, most=MOST_MODES, hint=_GROUPS) + 1)
    return Spectrum(j ** (-2 * _check.positive("a", a)), j ** -_check.number("b", b), _noise(label_noise))


def random_features(features: int, inputs: int, a: float, b: float, label_noise: float = 0.0, seed: int = 0) -> Spectrum:
    """Return the spectrum of least squares on random features W^T x of inputs x ~ N(0, D), D = diag(j^(-2a)), with the target sum_j b_j x_j, b_j = j^(-b).

    W, `(inputs, features)`, has independent entries N(0, 1/features), and theta = 0 is the start. With the features' covariance K = W^T D W and the
    minimiser theta*, the part of the target outside the features is independent of them and acts as label noise of variance
    sum_j D_j (b_j - (W theta*)_j)^2, which is added to that of the labels.

    Args:
        features: The number of features.
        inputs: The number of inputs, at least that of features.
        a: Half the exponent of the inputs' variances, positive.
        b: The exponent of the target's weights, any number.
        label_noise: The standard deviation of the labels themselves, 0 or above.
        seed: The seed of W.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> few, many = (st.exact.random_features(n, 64, a=1.0, b=0.3) for n in (4, 32))
        >>> few.values.shape, few.label_noise > many.label_noise > 0  # more features leave less of the target outside
        ((4,), True)
    """
    features = _check.count("features", features)
    inputs = _check.count("inputs", inputs, least=features, hint="Fewer inputs than features leave modes of eigenvalue 0.")
    law = power_law(inputs, a, b, label_noise)
    W = np.random.default_rng(seed).standard_normal((inputs, features)) / features**0.5
    scaled = np.sqrt(law.values)[:, None] * W  # D^(1/2) W, whose singular values are the roots of the eigenvalues of K
    left, roots, _ = np.linalg.svd(scaled, full_matrices=False)
    target = np.sqrt(law.values) * law.distance
    seen = left.T @ target
    outside = float(((target - left @ seen) ** 2).sum())
    return Spectrum(roots**2, seen / roots, float(np.sqrt(law.label_noise**2 + outside)))


def two_bulks(
    modes: tuple[int, int], ratio: float, distance: tuple[float, float] = (1.0, 1.0), label_noise: float = 0.0
) -> Spectrum:
    """Return the spectrum of two groups of equal eigenvalues, 1 and 1/`ratio`.

    Args:
        modes: The number of modes of eigenvalue 1, and of eigenvalue 1/ratio.
        ratio: The condition number, at least 1.
        distance: The distance of the start from the minimiser in each mode of the first group, and of the second.
        label_noise: The standard deviation of the errors of labels, 0 or above.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> st.exact.two_bulks((1, 2), ratio=4.0).values
        array([1.  , 0.25, 0.25])
    """
    ratio = _check.positive("ratio", ratio)
    if ratio < 1 or np.shape(modes) != (2,) or np.shape(distance) != (2,):
        raise ValueError(f"`ratio` must be at least 1, `modes` and `distance` pairs; got {ratio!r}, {modes!r}, {distance!r}.")
    counts = [_check.count("modes", n) for n in modes]
    return Spectrum(
        np.repeat([1.0, 1 / ratio], counts), np.repeat(np.asarray(distance, dtype=float), counts), _noise(label_noise)
    )


def from_data(features: Any, targets: Any, start: Any = None) -> Spectrum:
    """Return the spectrum of a data set: its covariance's eigenvalues, the distance of the start, and the residual as label noise.

    The covariance is (1/samples) sum_i a_i a_i^T, not centred, and modes of eigenvalues below 1e-12 of the largest are left out. The label noise is
    the root mean square of the residuals of the least squares fit. The rows of streaming least squares are Gaussian with this covariance, and the
    residuals independent of them: a model of the data.

    Args:
        features: The rows a_i, `(samples, dim)`.
        targets: The labels y_i, `(samples,)`.
        start: The initial point, `(dim,)`; 0 by default.

    Raises:
        ValueError: If a shape is wrong or a number is not finite.

    Example:
        >>> import numpy as np
        >>> import sdetools as st
        >>> found = st.exact.from_data([[2.0, 0.0], [0.0, 1.0]], [2.0, 3.0])
        >>> found.values, np.abs(found.distance), round(found.label_noise, 12)
        (array([2. , 0.5]), array([1., 3.]), 0.0)
    """
    a, y = _check.finite("features", features), _check.finite("targets", targets)
    if a.ndim != 2 or y.shape != a.shape[:1]:
        raise ValueError(f"`features` must be (samples, dim) and `targets` (samples,); got shapes {a.shape} and {y.shape}.")
    x0 = np.zeros(a.shape[1]) if start is None else _check.point("start", start, a.shape[1])
    values, vectors = np.linalg.eigh(a.T @ a / len(a))
    keep = values > 1e-12 * values.max()
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    best = np.linalg.lstsq(a, y, rcond=None)[0]
    return Spectrum(values, vectors.T @ (x0 - best), float(np.sqrt(((a @ best - y) ** 2).mean())))


def _noise(value: float) -> float:
    """Return the label noise as a float; ValueError if it is negative."""
    out = _check.number("label_noise", value)
    if out < 0:
        raise ValueError(f"`label_noise` must be a standard deviation, 0 or above; got {value!r}.")
    return out
