"""Truncated Ito-Taylor expansions: Euler-Maruyama, and Milstein with the double integrals of commutative noise."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from sdetools.dynamics.integrators.base import Equation, Integrator


class EulerMaruyama(Integrator):
    """The Euler-Maruyama scheme for an Ito SDE dX = a dt + b dW: y becomes y + a h + b sqrt(h) xi, with draws xi of mean 0 and variance 1.

    There is one draw for each Brownian motion and step. The scheme has strong order 1/2 (1 for additive noise) with normal draws, and weak order
    1 with all. Applied to `LimitSDE` with dt = eta and normal draws, it equals SGD with Gaussian noise, draw by draw.

    Args:
        sde: The SDE, in the Ito calculus (for additive noise or none the calculi agree).
        dt: The step size h, positive.
        law: The distribution of xi: "normal", "three-point" (-sqrt 3, 0, sqrt 3 with probability 1/6, 2/3, 1/6) or "two-point" (-1 or 1).

    Raises:
        ValueError: If the SDE is in the Stratonovich calculus with noise that depends on the state, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> em = st.EulerMaruyama(st.SDE(drift=["-x"], diffusion=["1"], variables="x"), dt=0.1)
        >>> em.rule((np.array([1.0]),), em.bind(z=np.array([2.0])), 0.1)  # 1 - 0.1 + sqrt(0.1) * 2
        (array([1.53245553]),)
    """

    strong_order = 0.5
    strong_orders = MappingProxyType({"additive": 1.0})
    reference = "G. Maruyama, Rend. Circ. Mat. Palermo 4 (1955)"
    laws = ("normal", "three-point", "two-point")

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        return y + h * eq.drift(y) + eq.increment(y, np.sqrt(h))


class Milstein(Integrator):
    """The derivative-free Milstein scheme for an Ito SDE dX = a dt + b dW with commutative noise, of strong order 1 and weak order 1.

    It adds sum_jk [(b_k(y + sqrt(h) b_j(y)) - b_k(y)) / sqrt(h)] [(dW_j dW_k - h delta_jk) / 2] to Euler-Maruyama, where b_j is column j of b,
    dW_j the increment of Brownian motion j, and delta_jk = 1 if j = k, else 0. The difference quotients are exact where b is linear.
    Diagonal and scalar noise need one additional shifted state y + sqrt(h) b_j(y), commutative noise one for each motion; additive noise needs
    none, and the scheme is Euler-Maruyama. Source: P. Kloeden, E. Platen, Numerical Solution of Stochastic Differential Equations, section 11.1.

    Args:
        sde: The SDE, in the Ito calculus, with scalar, diagonal or commutative noise (additive noise or none in either calculus).
        dt: The step size h, positive.
        law: The distribution of the draws dW_j / sqrt(h), which must be "normal".

    Raises:
        ValueError: If the noise is of the class "general", or depends on the state in the Stratonovich calculus, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> gbm = st.SDE(drift=["0.5*x"], diffusion=["x"], variables="x")
        >>> st.exact.moments(st.Milstein(gbm, dt=0.1), [1.0], steps=10, record=[10]).mean.ravel().round(5)  # the SDE has exp(0.5) = 1.64872
        array([1.62889])
    """

    strong_order = 1.0
    reference = "P. Kloeden, E. Platen, Numerical Solution of Stochastic Differential Equations (1992), section 11.1"
    classes = ("none", "additive", "scalar", "diagonal", "commutative")

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        root, sde = np.sqrt(h), eq.sde
        new = y + h * eq.drift(y) + eq.increment(y, root)
        if sde.noise_class in ("none", "additive"):
            return new
        w = [root * xi for xi in eq.xi[0]]
        if sde.noise_class in ("scalar", "diagonal"):
            shifted = y + root * eq.diffusion(y, [1.0] * sde.noise_dim)
            second = [(v * v - h) * (0.5 / root) for v in w]
            return new + (eq.diffusion(shifted, second) - eq.diffusion(y, second))
        for j in range(sde.noise_dim):
            second = [(w[j] * w[k] - (h if j == k else 0.0)) * (0.5 / root) for k in range(sde.noise_dim)]
            shifted = y + root * eq.column(y, j)
            new = new + (eq.diffusion(shifted, second) - eq.diffusion(y, second))
        return new
