"""The parameters of MaSS, momentum with a compensation for the noise of its extrapolation, on streaming least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.exact.least_squares.spectra import checked_spectrum


@dataclass(frozen=True)
class MassParameters:
    """The parameters of `st.MaSS` on streaming least squares; `mass_parameters` returns them.

    Attributes:
        eta: The learning rate, the authors' eta_1.
        gamma: The extrapolation, the momentum coefficient in [0, 1).
        c: The compensation eta_2 / eta_1.
        rate: 1 - 1/S: the authors' bound on the factor by which the risk falls per step; S as in `mass_parameters`.
    """

    eta: float
    gamma: float
    c: float
    rate: float


def mass_parameters(spectrum: Any, batch: int) -> MassParameters:
    """Return the parameters of `st.MaSS` for Gaussian rows of covariance K and a batch of m, after Liu and Belkin (2020).

    L_m = L_1/m + (m-1) lam_max/m with L_1 = tr K + 2 lam_max, kappa_m = L_m/lam_min, kt_m = (d + 2)/m + (m-1)/m, S = sqrt(kappa_m kt_m):
    eta = 1/L_m, gamma = (S-1)/(S+1), c = S/(S+1) (1 - 1/kt_m). The parameters are recalled from the paper; their rate was measured.

    Args:
        spectrum: The eigenvalues lam_i of K, d positive numbers in any order.
        batch: The number m of rows of a batch.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> st.exact.mass_parameters([1.0, 0.25], batch=1).eta  # 1 / (1.25 + 2)
        0.3076923076923077
    """
    lam, m = checked_spectrum(spectrum), _check.count("batch", batch)
    L = (lam.sum() + 2 * lam.max()) / m + (m - 1) * lam.max() / m
    kt = (len(lam) + 2) / m + (m - 1) / m
    S = float(np.sqrt(L / lam.min() * kt))
    return MassParameters(float(1 / L), (S - 1) / (S + 1), S / (S + 1) * (1 - 1 / kt), 1 - 1 / S)
