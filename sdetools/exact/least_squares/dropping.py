"""May momentum be dropped on least squares? A bound on the logarithm of the ratio of the risks with and without it.

The risk is the excess loss 1/2 sum_i lam_i E x_i^2, with x_i the distance from the minimiser in the mode of eigenvalue lam_i.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.exact.least_squares.momentum_budget import momentum_budget
from sdetools.exact.least_squares.spectra import Spectrum
from sdetools.exact.least_squares.stability import exact_rate, heavy_ball_map, is_stable

_TIMES = 400
_FLOOR = 0.05
_AT_ONCE = 1 << 20
"""Pairs of a time and a mode that are in memory at once."""


@dataclass(frozen=True)
class Dropping:
    """The three terms of the rule for dropping momentum, each at least 0; `drop_momentum` returns them.

    Each bounds a part of |log(risk of SGDM / risk of SGD)|, both at the effective learning rate h: that is the eta of `st.SGDM`, whose m' = beta m +
    (1 - beta) g has unit gain, and lr / (1 - beta) for a buffer m' = beta m + g. Index b stands for SGDM at momentum beta, 0 for plain SGD. If one of the
    two is unstable, all three terms are infinite.

    Attributes:
        noise: log[q_0 (1 - q_b) / (q_b (1 - q_0))], q the noise budgets of `exact.momentum_budget`: the ratio of the stationary risks. Exact.
        transient: max_t 2 beta/(1-beta) |<x_i (1 - x_i t)>_w|, x_i = h lam_i: the lag while the risk falls, over t in 0, ..., `steps`. <f>_w is
            sum_i w_i f_i / (sum_i w_i + 2 floor) with w_i = lam_i rho_i^2 e^(-2 x_i t), rho_i the distance of the start, floor the stationary risk
            of SGD. Asymptotic: to first order in x/(1-beta).
        rate: T |log z_b - log z_0| with the exact rates z, the factors per step of the risk. To add this term up to the step T is heuristic.
        floor_step: T: the first step at which 1/2 sum_i w_i is below 5 % of the floor, at most `steps`; a model of the risk, heuristic.
    """

    noise: float
    transient: float
    rate: float
    floor_step: int

    @property
    def bound(self) -> float:
        """The sum of the three terms, an estimate from above of the largest |log(risk with momentum / risk without)|; no proved bound."""
        return self.noise + self.transient + self.rate

    def drop(self, delta: float) -> bool:
        """Return whether `bound` is at most `delta`, a positive tolerance of |log(risk with momentum / risk without)|."""
        return bool(self.bound <= _check.positive("delta", delta))


def drop_momentum(spectrum: Spectrum, batch: int, h: float, beta: float, steps: int) -> Dropping:
    """Return the three terms of the rule for dropping momentum on streaming least squares: SGD at rate h instead of SGDM.

    Drop it at a tolerance delta if their sum is at most delta. The rule says when dropping is safe; where it says nothing, dropping may still
    be. Its small parameter is beta h lam / (1 - beta), and not the heavy-ball rate times lam. `Dropping` says what is exact, asymptotic and heuristic.

    Args:
        spectrum: The problem, such as `exact.power_law(...)`, with its start and label noise.
        batch: The number B of rows of a batch.
        h: The learning rate of the EMA form, positive; torch's lr over 1 - beta.
        beta: The momentum coefficient in [0, 1).
        steps: The number of steps of the run, at least 1.

    Raises:
        ValueError: If `spectrum` is no `Spectrum`, or an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> terms = st.exact.drop_momentum(st.exact.power_law(100, a=1.0, b=0.5, label_noise=0.5), batch=8, h=0.001, beta=0.9, steps=1000)
        >>> terms.drop(0.05), terms.drop(1e-4)
        (True, False)
    """
    if not isinstance(spectrum, Spectrum):
        raise ValueError(
            f"`spectrum` must be a Spectrum, with distances and label noise; got {_check.shown(spectrum)}. "
            "Make one with st.exact.power_law, two_bulks, random_features or from_data."
        )
    lam, rho, steps = spectrum.values, spectrum.distance, _check.count("steps", steps)
    q = {b: momentum_budget(lam, batch, h, b) for b in (0.0, beta)}
    beta = _check.momentum("beta", beta)
    maps = {b: heavy_ball_map(h, b, 1 / batch) for b in (0.0, beta)}
    if q[0.0] >= 1 or not all(is_stable(one, lam) for one in maps.values()):
        return Dropping(np.inf, np.inf, np.inf, steps)
    noise = float(np.log(q[0.0] * (1 - q[beta]) / (q[beta] * (1 - q[0.0]))))
    x, t = h * lam, np.unique(np.concatenate([[0.0], np.geomspace(1, steps, _TIMES)]))
    signal, lag = _signal_and_lag(lam * rho**2, x, t)
    floor = spectrum.label_noise**2 / 2 * q[0.0] / (1 - q[0.0])
    share = lag / 2 / np.maximum(signal + floor, 1e-300)
    transient = float(2 * beta / (1 - beta) * np.abs(share).max())
    reached = np.flatnonzero(signal <= _FLOOR * floor)
    last = int(np.ceil(t[reached[0]])) if len(reached) else steps
    rates = [np.log(exact_rate(maps[b], lam)) for b in (0.0, beta)]
    return Dropping(max(noise, 0.0), transient, float(last * abs(rates[0] - rates[1])), last)


def _signal_and_lag(weights: np.ndarray, x: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 1/2 sum_i w_i and sum_i w_i x_i (1 - x_i t), w_i = weights_i e^{-2 x_i t}, at each time t; in blocks of times, for large spectra.

    Args:
        weights: The weights at time 0, lam_i rho_i^2, `(modes,)`.
        x: The rates h lam_i, `(modes,)`.
        times: The times t in steps, `(times,)`; both results have this shape.
    """
    blocks = np.array_split(times, -(-len(times) * len(x) // _AT_ONCE))
    signal, lag = [], []
    for t in blocks:
        decayed = np.exp(-2 * np.outer(t, x))
        signal.append(decayed @ weights / 2)
        lag.append(decayed @ (weights * x) - t * (decayed @ (weights * x * x)))
    return np.concatenate(signal), np.concatenate(lag)


def dropping_diagram(spectrum: Spectrum, batches: Any, rates: Any, beta: float, steps: int) -> np.ndarray:
    """Return the bound of the rule for dropping momentum over a grid of batches and learning rates; `plots.phase_diagram` draws it.

    Momentum may be dropped at a tolerance delta where the bound, `drop_momentum(...).bound`, is at most delta.

    Args:
        spectrum: The problem, such as `exact.power_law(...)`, with its start and label noise.
        batches: The batch sizes, a number or a list.
        rates: The learning rates h of the EMA form, a number or a list.
        beta: The momentum coefficient in [0, 1).
        steps: The number of steps of the run.

    Returns:
        The bounds, shape `(batches, rates)` in the order of the arguments; infinite where SGD or SGDM is unstable.

    Raises:
        ValueError: If a list is empty, `spectrum` is no `Spectrum`, or an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> st.exact.dropping_diagram(st.exact.power_law(9, 1.0, 0.5, 2.0), [1, 8], [0.001, 0.01, 9.0], beta=0.9, steps=1000).round(3)
        array([[0.016, 0.156,   inf],
               [0.016, 0.159,   inf]])
    """
    rates = np.atleast_1d(_check.finite("rates", rates)).tolist()
    batches = [_check.count("batches", B) for B in np.atleast_1d(_check.finite("batches", batches)).tolist()]
    if not rates or not batches:
        raise ValueError(f"`batches` and `rates` must be lists of numbers; got {len(batches)} and {len(rates)} of them.")
    return np.array([[drop_momentum(spectrum, B, h, beta, steps).bound for h in rates] for B in batches])
