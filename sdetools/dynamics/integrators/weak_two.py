"""Runge-Kutta schemes of weak order 2 for general Ito noise, by Platen and by Roessler."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools.dynamics.integrators.base import Equation, Integrator


class Platen(Integrator):
    """Platen's explicit Runge-Kutta scheme of weak order 2 for any Ito SDE, with a random sign for each pair of Brownian motions.

    A step has one draw for each Brownian motion and a sign, -1 or 1 with probability 1/2, for each pair. The signs replace the Levy areas (the
    antisymmetric double integrals of two motions). So with two or more Brownian motions, steps of another length cannot share its draws. The strong
    order is 1/2. Source: P. Kloeden, E. Platen, *Numerical Solution of Stochastic Differential Equations*, (15.1.3).

    Args:
        sde: The SDE, in the Ito calculus (for additive noise or none the calculi agree).
        dt: The step size h, positive.
        law: The distribution of the draws dW / sqrt(h): "normal" or "three-point" (-sqrt 3, 0, sqrt 3 with probability 1/6, 2/3, 1/6).

    Raises:
        ValueError: If the SDE is in the Stratonovich calculus with noise that depends on the state, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> gbm = st.SDE(drift=["0.5*x"], diffusion=["x"], variables="x")
        >>> st.exact.moments(st.Platen(gbm, dt=0.1), [1.0], steps=10, record=[10]).mean.ravel().round(5)  # the SDE has exp(0.5) = 1.64872
        array([1.64839])
    """

    strong_order = 0.5
    weak_order = 2.0
    reference = "P. Kloeden, E. Platen, Numerical Solution of Stochastic Differential Equations (1992), (15.1.3)"
    laws = ("normal", "three-point")
    stages = (0.0, 1.0)
    areas = True

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        q, root, a = eq.sde.noise_dim, np.sqrt(h), eq.drift(y)
        w = [root * xi for xi in eq.xi[0]]
        base = y + h * a
        noise = eq.diffusion(y, w) if q else 0.0 * y
        new = y + (0.5 * h) * (a + eq.drift(base + noise, 1))
        if not q:
            return new
        new = new + 0.5 * noise
        columns = [eq.column(y, j) for j in range(q)]
        for r in range(q):
            up, down = base + root * columns[r], base - root * columns[r]
            plus, minus = 0.25 * w[r], (0.25 / root) * (w[r] * w[r] - h)
            new = new + eq.along(up, r, plus + minus, 1) + eq.along(down, r, plus - minus, 1)
            others = [j for j in range(q) if j != r]
            if others:
                up, down = y + root * columns[r], y - root * columns[r]
                mixed = {j: (0.25 / root) * (w[j] * w[r] + h * eq.area(j, r)) for j in others}
                new = new + eq.diffusion(up, [0.25 * w[j] + mixed[j] if j != r else 0.0 for j in range(q)])
                new = new + eq.diffusion(down, [0.25 * w[j] - mixed[j] if j != r else 0.0 for j in range(q)])
                new = new - eq.diffusion(y, [0.5 * w[j] if j != r else 0.0 for j in range(q)])
        return new


class RI1(Integrator):
    """Roessler's RI1, a Runge-Kutta scheme of weak order 2 (deterministic order 3) for any Ito SDE, with fewer evaluations of b than `Platen`.

    b is the diffusion, and deterministic order 3 is the order without noise. A step of size h has one draw for each of the m Brownian motions and
    m (m - 1) / 2 random signs, one per pair. The published scheme has m - 1 signs, one I~_(k) for all pairs (k, l) with k < l. Then
    E[I_(2,1) I_(3,1)], of the replacements I_(j,k) of double integrals, is h^2 / 4 instead of 0, and for three or more non-commuting motions the
    weak order is 1. With two or more motions, steps of another length cannot share its draws. Source: A. Roessler, SIAM J. Numer. Anal. 47 (2009), Table 5.2.

    Args:
        sde: The SDE, in the Ito calculus (for additive noise or none the calculi agree).
        dt: The step size h, positive.
        law: The distribution of the draws dW / sqrt(h): "normal" or "three-point" (-sqrt 3, 0, sqrt 3 with probability 1/6, 2/3, 1/6).

    Raises:
        ValueError: If the SDE is in the Stratonovich calculus with noise that depends on the state, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> gbm = st.SDE(drift=["0.5*x"], diffusion=["x"], variables="x")
        >>> st.exact.moments(st.RI1(gbm, dt=0.1), [1.0], steps=10, record=[10]).mean.ravel().round(5)  # the SDE has exp(0.5) = 1.64872
        array([1.64872])
    """

    strong_order = 0.5
    weak_order = 2.0
    reference = "A. Roessler, SIAM J. Numer. Anal. 47 (2009), Table 5.2"
    laws = ("normal", "three-point")
    stages = (0.0, 2 / 3, 1.0)
    areas = True

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        q, root, a0 = eq.sde.noise_dim, np.sqrt(h), eq.drift(y)
        w = [root * xi for xi in eq.xi[0]]
        first = eq.diffusion(y, w) if q else 0.0 * y
        a1 = eq.drift(y + (2 / 3 * h) * a0 + first, 1)
        a2 = eq.drift(y + h * (a1 - (1 / 3) * a0), 1)
        new = y + (0.25 * h) * (a0 + 2.0 * a1 + a2)
        if not q:
            return new
        moved = y + h * a0
        new = new + 0.5 * first
        for k in range(q):
            own = root * eq.column(y, k)
            diagonal = (0.5 / root) * (w[k] * w[k] - h)
            new = new + eq.along(moved + own, k, 0.25 * w[k] + 0.5 * diagonal, 2)
            new = new + eq.along(moved - own, k, 0.25 * w[k] - 0.5 * diagonal, 2)
            if q > 1:
                # the replacements of the double integrals I_(k,j), j different from k, divided by sqrt(h)
                mixed = [(0.5 / root) * (w[k] * w[j] + h * eq.area(k, j)) if j != k else 0.0 for j in range(q)]
                side = eq.diffusion(y, mixed)
                new = new + eq.along(y + side, k, 0.25 * w[k] + 0.5 * root)
                new = new + eq.along(y - side, k, 0.25 * w[k] - 0.5 * root)
                new = new - eq.along(y, k, 0.5 * w[k])
        return new
