"""Closed forms of momentum on streaming least squares: noise budget, stationary risk, edge, batch threshold, and the best rates.

h = eta is the learning rate of the EMA form (in the heavy-ball form gamma / (1 - beta)), beta the momentum coefficient, B the rows of a batch, s the
standard deviation of the labels, lam_i the eigenvalues of the rows' covariance K. The level of the noise is s^2 + sum_i lam_i E x_i^2, the mean
square of a row's residual; in the stationary law it solves level = s^2 + q level, and the factor q is the noise budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.exact.least_squares.spectra import checked_spectrum
from sdetools.exact.least_squares.stability import exact_rate, heavy_ball_map
from sdetools.losses.diagonal import DiagonalQuadratic


def momentum_budget(spectrum: Any, batch: int, h: float, beta: float = 0.0) -> float:
    """Return the noise budget of SGD with momentum, q_b = sum_i h lam_i / (2 B - (1 + k B) h lam_i), k = (1 - beta)/(1 + beta).

    The stationary level of the noise, s^2 + sum_i lam_i E x_i^2 with the standard deviation s of the labels and x the distance from the minimiser, is
    s^2 / (1 - q_b): q_b is the share that the noise of former steps has in it. The rule is stable in mean square if and only if every denominator is
    positive and q_b < 1; the result is infinite if a denominator is not. Derived; it agrees with the recursion of `exact.risk` to rounding.

    Args:
        spectrum: The eigenvalues lam_i, positive.
        batch: The number B of rows of a batch.
        h: The learning rate of the EMA form, positive.
        beta: The momentum coefficient in [0, 1); 0 for SGD.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> st.exact.momentum_budget([1.0], batch=1, h=0.5)
        0.5
    """
    lam, B, h, k = _checked(spectrum, batch, h, beta)
    below = 2 * B - (1 + k * B) * h * lam
    return float((h * lam / below).sum()) if below.min() > 0 else np.inf


def momentum_stationary_risk(spectrum: Any, batch: int, label_noise: float, h: float, beta: float = 0.0) -> float:
    """Return the stationary excess risk of SGD with momentum, (s^2/2) q/(1-q) with the q of `momentum_budget`; infinity if unstable.

    Args:
        spectrum: The eigenvalues lam_i, positive.
        batch: The number B of rows of a batch.
        label_noise: The standard deviation s of the labels, 0 or above.
        h: The learning rate of the EMA form, positive.
        beta: The momentum coefficient in [0, 1); 0 for SGD.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> st.exact.momentum_stationary_risk([1.0], batch=1, label_noise=2.0, h=0.5)
        2.0
    """
    s, q = _check.non_negative("label_noise", label_noise), momentum_budget(spectrum, batch, h, beta)
    return s * s / 2 * q / (1 - q) if q < 1 else np.inf


def mode_edge(batch: float, beta: float = 0.0) -> float:
    """Return 2 B / (2 + k B), k = (1 - beta)/(1 + beta): the edge of x = h lam in mean square for a single eigenvalue lam.

    It is the root of `momentum_budget` = 1 for one eigenvalue: for plain SGD 2 B / (B + 2), from E rho'^2 = ((1 - x)^2 + 2 x^2 / B) E rho^2 for the
    distance rho from the minimiser, and without noise (an infinite batch) 2 (1 + beta)/(1 - beta). Source: derived.

    Args:
        batch: The number B of rows of a batch, positive; infinity for no noise.
        beta: The momentum coefficient in [0, 1); 0 for SGD.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> st.exact.mode_edge(2), round(st.exact.mode_edge(float("inf"), beta=0.9), 12)
        (1.0, 38.0)
    """
    beta = _check.momentum("beta", beta)
    batch = math.inf if batch == math.inf else _check.positive("batch", batch)
    return 2 / (2 / batch + (1 - beta) / (1 + beta))


def momentum_edge(spectrum: Any, batch: int, beta: float = 0.0) -> float:
    """Return the learning rate h at which SGD with momentum loses stability in mean square: the root of q_b(h) = 1 of `momentum_budget`.

    For one eigenvalue it is `mode_edge` / lam. In the heavy-ball form, gamma = (1 - beta) h, it is 2 (1 + beta)/lam_max for large batches and
    2 B (1 - beta) / sum_i lam_i for small ones.

    Args:
        spectrum: The eigenvalues lam_i, positive.
        batch: The number B of rows of a batch.
        beta: The momentum coefficient in [0, 1); 0 for SGD.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> round(st.exact.momentum_edge([2.0], batch=4), 12)
        0.666666666667
    """
    from scipy.optimize import brentq

    lam, B, _, k = _checked(spectrum, batch, 1.0, beta)
    most = 2 * B / ((1 + k * B) * lam.max())  # where the first denominator vanishes and q is infinite
    return float(
        brentq(
            lambda h: 1 / max(momentum_budget(lam, batch, h, beta), 1e-300) - 1,
            1e-12 * most,
            most * (1 - 1e-15),
            xtol=1e-300,
            rtol=1e-14,
        )
    )


def general_budget(spectrum: Any, batch: int, D: float, g2: float, g3: float) -> float:
    """Return the noise budget q = sum_i r_i/(1 - r_i) of general momentum of constant coefficients, y' = (1 - D) y + g, x' = x - g2 g - g3 y'.

    g is the gradient and y the momentum buffer. r = lam^2 R / B is the share of its own noise that a mode (coordinate) of eigenvalue lam keeps, with

        R = [(2-D) g3 + D (2-D) g2 + (1-D) g2 lam ((2-D) g2 + g3)] / [lam (D + (1-D) g2 lam) (4 - 2 D - (2-D) g2 lam - g3 lam)].

    The rule is stable in mean square if and only if every r < 1, every factor is positive, and q < 1; otherwise the result is infinite or
    at least 1. Derived; it agrees with the recursion of `exact.risk` to rounding. For small steps q ~ (g2 tr K + (g3/g2) N(D/g2)) / (2 B), where
    tr K = sum_i lam_i and N is `effective_dimension`.

    Args:
        spectrum: The eigenvalues lam_i, positive.
        batch: The number B of rows of a batch.
        D: The decay of the buffer y, in (0, 1].
        g2: The weight of the gradient, 0 or above.
        g3: The weight of the buffer, 0 or above; not both weights are 0.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> round(st.exact.general_budget([1.0], batch=1, D=1.0, g2=0.5, g3=0.0), 12), st.exact.momentum_budget([1.0], batch=1, h=0.5)
        (0.5, 0.5)
    """
    lam, B, _, _ = _checked(spectrum, batch, 1.0, 0.0)
    D, g2, g3 = _check.number("D", D), _check.number("g2", g2), _check.number("g3", g3)
    if not 0 < D <= 1 or g2 < 0 or g3 < 0 or g2 + g3 == 0:
        raise ValueError(f"`D` must lie in (0, 1] and `g2`, `g3` be 0 or above, not both 0; got {D}, {g2}, {g3}.")
    above = (2 - D) * g3 + D * (2 - D) * g2 + (1 - D) * g2 * lam * ((2 - D) * g2 + g3)
    first, second = D + (1 - D) * g2 * lam, 4 - 2 * D - (2 - D) * g2 * lam - g3 * lam
    if first.min() <= 0 or second.min() <= 0:
        return np.inf
    r = lam * above / (first * second) / B
    return float((r / (1 - r)).sum()) if r.max() < 1 else np.inf


def effective_dimension(spectrum: Any, mu: float) -> float:
    """Return N(mu) = sum_i lam_i / (lam_i + mu), the number of eigenvalues that are large compared with mu.

    Args:
        spectrum: The eigenvalues lam_i, positive.
        mu: A positive number, to which eigenvalues are compared.

    Raises:
        ValueError: If `spectrum` is not a vector of positive numbers or `mu` is not positive.

    Example:
        >>> import sdetools as st
        >>> st.exact.effective_dimension([1.0, 1.0], mu=1.0)
        1.0
    """
    return DiagonalQuadratic(checked_spectrum(spectrum)).effective_dimension(_check.positive("mu", mu))


@dataclass(frozen=True)
class BatchThreshold:
    """The batch sizes between which momentum gains speed; `batch_threshold` returns it.

    The gain is the number of steps of SGD over that of SGD with momentum to the same risk, each at its best learning rate (and momentum).

    Attributes:
        effective_rank: r_eff = tr K / lam_max, K = diag(lam): for a batch below this there is no gain (asymptotic).
        kappa: The condition number lam_max / lam_min.
        threshold: B* = r_eff sqrt(kappa) / 2, half the batch from which the gain is the full sqrt(kappa); between r_eff and 2 B* it is about B / r_eff.
    """

    effective_rank: float
    kappa: float
    threshold: float

    def gain(self, batch: float) -> float:
        """Return the gain min(max(1, B/r_eff), sqrt(kappa)) of momentum for `batch` = B rows, an asymptotic estimate and no exact value."""
        return float(min(max(1.0, batch / self.effective_rank), np.sqrt(self.kappa)))


def batch_threshold(spectrum: Any) -> BatchThreshold:
    """Return the batch sizes between which momentum gains on streaming least squares without label noise.

    An asymptotic rule that was measured on three spectra, not a theorem: the best rate -log(z) of heavy ball over that of large batches, 4 / sqrt(kappa),
    is nearly one function of B / B*; z is the factor per step of the risk. `exact.best` gives the exact best rates.

    Args:
        spectrum: The eigenvalues lam_i, positive.

    Raises:
        ValueError: If `spectrum` is not a vector of positive numbers.

    Example:
        >>> import sdetools as st
        >>> st.exact.batch_threshold([1.0, 0.25])
        BatchThreshold(effective_rank=1.25, kappa=4.0, threshold=1.25)
    """
    lam = checked_spectrum(spectrum)
    rank, kappa = float(lam.sum() / lam.max()), float(lam.max() / lam.min())
    return BatchThreshold(rank, kappa, rank * kappa**0.5 / 2)


@dataclass(frozen=True)
class Best:
    """The best learning rate and momentum; `best` returns it.

    Attributes:
        h: The learning rate of the EMA form.
        beta: The momentum coefficient, 0 for SGD.
        rate: The factor per step, below 1, by which the risk is finally multiplied, the least over h and beta.
    """

    h: float
    beta: float
    rate: float


def best(spectrum: Any, batch: int, momentum: bool = True) -> Best:
    """Return the learning rate and momentum of the fastest exact rate on streaming least squares without label noise.

    The rate at given (h, beta) is exact; the least one is found by nested golden-section searches in log h and log(1 - beta), a local search to about
    four digits of h. Where momentum does not improve the rate, the result has beta = 0.

    Args:
        spectrum: The eigenvalues lam_i, positive.
        batch: The number B of rows of a batch.
        momentum: Whether beta is free; otherwise it is 0.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> found = st.exact.best([1.0], batch=2, momentum=False)  # 1 - h lam (2 - h lam (B + 2)/B) is least at h lam = B/(B + 2)
        >>> round(found.h, 4), round(found.rate, 8)
        (0.5, 0.5)
    """
    from scipy.optimize import minimize_scalar

    lam, B, _, _ = _checked(spectrum, batch, 1.0, 0.0)

    def at(log_h: float, beta: float) -> float:
        return float(np.log(exact_rate(heavy_ball_map(float(np.exp(log_h)), beta, 1 / B), lam)))

    def over_h(beta: float, precision: float = 1e-4) -> tuple[float, float]:
        top = np.log(momentum_edge(lam, int(B), beta))
        found = minimize_scalar(lambda u: at(u, beta), bounds=(top - 12, top), method="bounded", options={"xatol": precision})
        return float(found.fun), float(found.x)

    value, log_h = over_h(0.0, 1e-6)
    if not momentum:
        return Best(float(np.exp(log_h)), 0.0, float(np.exp(value)))
    low, high = np.log(1e-3 / np.sqrt(lam.max() / lam.min())), 0.0
    found = minimize_scalar(lambda v: over_h(-np.expm1(v))[0], bounds=(low, high), method="bounded", options={"xatol": 1e-3})
    beta = float(-np.expm1(found.x))
    if found.fun >= value:
        return Best(float(np.exp(log_h)), 0.0, float(np.exp(value)))
    value, log_h = over_h(beta, 1e-6)
    return Best(float(np.exp(log_h)), beta, float(np.exp(value)))


def _checked(spectrum: Any, batch: int, h: float, beta: float) -> tuple[np.ndarray, float, float, float]:
    """Return (lam, B, h, k) after validation, with k = (1 - beta)/(1 + beta); ValueError if an argument lies outside its range."""
    lam, B = checked_spectrum(spectrum), float(_check.count("batch", batch))
    beta = _check.momentum("beta", beta)
    return lam, B, _check.positive("h", h), (1 - beta) / (1 + beta)
