"""Runge-Kutta schemes with pathwise convergence: Heun for the Stratonovich calculus, and SRA1 for additive noise."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import numpy as np

from sdetools.dynamics.integrators.base import Equation, Integrator


class Heun(Integrator):
    """Heun's scheme for a Stratonovich SDE dX = a dt + b dW: y becomes y + (a + a') h / 2 + (b + b') dW / 2.

    a and b are taken at y and the start of the step, a' and b' at the Euler predictor y + a h + b dW and the end of the step. Weak order 1, 2 for
    additive noise; strong order 1 for additive, scalar, diagonal and commutative noise, 1/2 in general. Source: W. Ruemelin, SIAM J. Numer. Anal.
    19 (1982).

    Args:
        sde: The SDE: in the Stratonovich calculus, or with additive noise or none, for which the calculi agree.
        dt: The step size h, positive.
        law: The distribution of the draws dW / sqrt(h), which must be "normal".

    Raises:
        ValueError: If the SDE is in the Ito calculus with noise that depends on the state, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> gbm = st.SDE(drift=["0.5*x"], diffusion=["x"], variables="x", calculus="stratonovich")
        >>> st.exact.moments(st.Heun(gbm, dt=0.1), [1.0], steps=10, record=[10]).mean.ravel().round(5)  # the SDE has exp(1) = 2.71828
        array([2.62337])
    """

    strong_order = 0.5
    weak_orders = MappingProxyType({"additive": 2.0})
    strong_orders = MappingProxyType(dict.fromkeys(("additive", "scalar", "diagonal", "commutative"), 1.0))
    reference = "W. Ruemelin, SIAM J. Numer. Anal. 19 (1982)"
    calculus = "stratonovich"
    stages = (0.0, 1.0)

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        root = np.sqrt(h)
        a, b = eq.drift(y), eq.increment(y, root)
        predicted = y + h * a + b
        return y + (0.5 * h) * (a + eq.drift(predicted, 1)) + 0.5 * (b + eq.increment(predicted, root, 1))


class SRA1(Integrator):
    """Roessler's SRA1, a Runge-Kutta scheme for additive noise, of strong order 3/2 and weak order 2.

    The SDE is dX = a(X, t) dt + b(t) dW. Each step has two normal draws xi_0, xi_1 for each Brownian motion. They give its increment
    dW = sqrt(h) xi_0 and the integral of W - W(t) over the step from time t, dZ = h^(3/2) (xi_0 + xi_1 / sqrt 3) / 2.
    Source: A. Roessler, SIAM J. Numer. Anal. 48 (2010), Table 6.1.

    Args:
        sde: The SDE, in either calculus, with a diffusion that does not depend on the state.
        dt: The step size h, positive.
        law: The distribution of the draws, which must be "normal".

    Raises:
        ValueError: If the noise is not of the class "additive" or "none", or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> ou = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
        >>> st.exact.moments(st.SRA1(ou, dt=0.1), [1.0], steps=10, record=[10]).mean.ravel().round(5)  # the SDE has exp(-1) = 0.36788
        array([0.36854])
    """

    strong_order = 1.5
    weak_order = 2.0
    reference = "A. Roessler, SIAM J. Numer. Anal. 48 (2010), Table 6.1"
    classes = ("none", "additive")
    calculus = "either"
    levels = 2
    stages = (0.0, 0.75, 1.0)

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        a = eq.drift(y)
        if not eq.sde.noise_dim:
            return y + h * ((1 / 3) * a + (2 / 3) * eq.drift(y + (0.75 * h) * a, 1))
        root = np.sqrt(h)
        w = [root * xi for xi in eq.xi[0]]
        z = [(0.5 * root) * (first + second / math.sqrt(3.0)) for first, second in zip(*eq.xi)]  # dZ / h
        late = y + (0.75 * h) * a + eq.diffusion(y, [1.5 * v for v in z], 2)
        new = y + h * ((1 / 3) * a + (2 / 3) * eq.drift(late, 1)) + eq.diffusion(y, [u - v for u, v in zip(w, z)], 2)
        return new + eq.diffusion(y, z)
