r"""RMSProp and Adam on a quadratic: their SDEs' moments by ordinary differential equations, and the leading terms beside them.

L = lam x^2/2 with noise of variance s^2 in the scaling sigma = sigma0 / eta, 1 - beta_i = c_i h, eps = eps0 / eta, h = eta^2, without bias
corrections. The second moment u = v / sigma^2 moves by itself, u = s^2 + (u_0 - s^2) e^{-c2 t}, and P = sigma0 u^{1/2} + eps0 is a number at each
time, so that the moments of

    RMSProp   dX = -P^{-1} (lam X dt + sigma0 s dW)
    Adam      dX = -P^{-1} M dt,        dM = c1 ((lam X - M) dt + sigma0 s dW)

obey linear equations. The rules differ from these by terms that are known too: for noise with E z^3 = mu3 by one of order eta in the mean,

    C' = -(lam/P + c2) C - c2 sigma0 s^3 mu3 / P
    M1' = -lam M1 / P + lam sigma0 C / (2 u^{1/2} P^2) + q c2 sigma0^2 s^3 mu3 / (2 u^{1/2} P^2),

where M1 is that term over eta and C is Cov(x, u) / eta, both to leading order and 0 at the start, with q = 0 for RMSProp with the lagged denominator,
beta1 for Adam with it, and 1 for the current one; and by momentum with a fixed beta1 in Adam, which changes the mean by kappa A + h beta1 B, kappa =
h beta1 / (1 - beta1), beyond order h^2. Derived.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check

TOLERANCE = 1e-12
"""Relative and absolute tolerance of the solutions."""


@dataclass(frozen=True)
class AdaptiveProblem:
    """RMSProp and Adam on L = lam x^2/2 with noise of a constant variance: moments of their SDEs, and the leading differences of the rules from these.

    The rules have the learning rate eta, noise of scale sigma = sigma0 / eta, beta2 = 1 - c2 eta^2, eps = eps0 / eta and no bias corrections; a step
    takes the time h = eta^2. v is their average of squared gradients.

    Attributes:
        lam: The curvature, positive.
        deviation: The standard deviation s of the noise before the factor sigma, positive.
        sigma0: sigma eta, positive.
        eps0: eps eta, 0 or above.
        c2: (1 - beta2) / eta^2, positive.
        x0: The initial point, a number.
        u0: The initial v / sigma^2, positive.

    Raises:
        ValueError: If a number lies outside its range.

    Example:
        >>> import sdetools as st
        >>> problem = st.exact.AdaptiveProblem(lam=1.0, sigma0=0.5, eps0=0.2, u0=2.5)
        >>> mean, square = problem.rmsprop([2.0])
        >>> [round(float(v), 5) for v in (*mean, *square, problem.skewness(2.0, third=2.0))]
        [0.09058, 0.16883, -0.12374]
    """

    lam: float = 1.0
    deviation: float = 1.0
    sigma0: float = 1.0
    eps0: float = 0.0
    c2: float = 1.0
    x0: float = 1.0
    u0: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lam", "deviation", "sigma0", "c2", "u0"):
            _check.positive(name, getattr(self, name))
        _check.non_negative("eps0", self.eps0)
        _check.number("x0", self.x0)

    def second_moment(self, t: Any) -> Any:
        """Return u = v / sigma^2 = s^2 + (u_0 - s^2) e^{-c2 t} of the SDE at times t, a number or an array, in its shape."""
        return self.deviation**2 + (self.u0 - self.deviation**2) * np.exp(-self.c2 * np.asarray(t, dtype=float))

    def denominator(self, t: Any) -> Any:
        """Return P = sigma0 u^{1/2} + eps0, the denominator of a step times eta, at times t, a number or an array, in its shape."""
        return self.sigma0 * np.sqrt(self.second_moment(t)) + self.eps0

    def rmsprop(self, times: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return E X and E X^2 of the SDE of RMSProp, dX = -(lam X dt + sigma0 s dW) / P, at increasing times of 0 or above, each `(times,)`.

        P is `denominator`. ValueError for other times.
        """

        def slope(t: float, y: np.ndarray) -> list[float]:
            P = float(self.denominator(t))
            return [-self.lam * y[0] / P, -2 * self.lam * y[1] / P + (self.sigma0 * self.deviation / P) ** 2]

        found = self._solved(slope, [self.x0, self.x0**2], times)
        return found[0], found[1]

    def adam(self, times: Sequence[float], c1: float, momentum: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return E X and E X^2 of the SDE of Adam without bias corrections at increasing times, each `(times,)`.

        It is dX = -(M / P) dt, dM = c1 ((lam X - M) dt + sigma0 s dW), with P of `denominator`.

        Args:
            times: The times, increasing, 0 or above.
            c1: (1 - beta1) / eta^2, positive.
            momentum: The initial momentum M_0.

        Raises:
            ValueError: If an argument lies outside its range.
        """
        c1, m0 = _check.positive("c1", c1), _check.number("momentum", momentum)
        noise = (c1 * self.sigma0 * self.deviation) ** 2

        def slope(t: float, y: np.ndarray) -> list[float]:
            P, (x, m, xx, xm, mm) = float(self.denominator(t)), y
            return [
                -m / P,
                c1 * (self.lam * x - m),
                -2 * xm / P,
                -mm / P + c1 * (self.lam * xx - xm),
                2 * c1 * (self.lam * xm - mm) + noise,
            ]

        found = self._solved(slope, [self.x0, m0, self.x0**2, self.x0 * m0, m0**2], times)
        return found[0], found[2]

    def skewness(self, t: float, third: float, part: float = 0.0) -> float:
        """Return M1, the coefficient of eta of E x at time t for noise with a third moment: E x = (that of the SDE) + eta M1 + ...

        Args:
            t: The time, 0 or above.
            third: mu3 = E z^3 of the noise of unit variance.
            part: q: 0 for RMSProp with the lagged denominator (made of the v before the step), beta1 for Adam with it, 1 for the current denominator.
        """
        third, q = _check.number("third", third), _check.number("part", part)
        cube = self.c2 * self.sigma0 * self.deviation**3 * third

        def slope(t: float, y: np.ndarray) -> list[float]:
            (mean, C, M1), P = y, float(self.denominator(t))
            share = self.sigma0 / (2 * math.sqrt(float(self.second_moment(t))) * P**2)
            return [
                -self.lam * mean / P,
                -(self.lam / P + self.c2) * C - cube / P,
                -self.lam * M1 / P + self.lam * share * C + q * share * cube,
            ]

        return float(self._solved(slope, [self.x0, 0.0, 0.0], [t])[2, 0])

    def momentum_terms(self, t: float) -> tuple[float, float]:
        """Return A and B at time t: E x of Adam at a fixed beta1 less that of RMSProp is kappa A + h beta1 B + O(h^2), kappa = h beta1 / (1 - beta1).

        Both rules divide by the v before the step (lagged), and m_0 = 0; h = eta^2 is the time of a step. With u = v / sigma^2 and the denominator P,
        A = M_t (lam / P_0 - lam^2 int P^-2),  B = M_t lam c2 s^2 sigma0 int u^{-1/2} P^-2, with integrals over [0, t] and M the mean of RMSProp.
        """

        def slope(t: float, y: np.ndarray) -> list[float]:
            P = float(self.denominator(t))
            return [-self.lam * y[0] / P, P**-2, P**-2 / math.sqrt(float(self.second_moment(t)))]

        mean, first, second = self._solved(slope, [self.x0, 0.0, 0.0], [t])[:, 0].tolist()
        own = self.lam / float(self.denominator(0.0)) - self.lam**2 * first
        return mean * own, mean * self.lam * self.c2 * self.deviation**2 * self.sigma0 * second

    def _solved(self, slope: Callable[..., Any], start: Sequence[float], times: Sequence[float]) -> np.ndarray:
        """Return the solution y of y' = slope(t, y) from y(0) = `start` at increasing times, `(numbers, times)`; ValueError for other times."""
        from scipy.integrate import solve_ivp

        at = np.atleast_1d(_check.finite("times", times))
        if at.ndim != 1 or at[0] < 0 or np.any(np.diff(at) <= 0):
            raise ValueError(f"`times` must increase and be at least 0; got {times!r}.")
        span = (0.0, max(float(at[-1]), 1e-12))
        return solve_ivp(slope, span, list(start), t_eval=at, method="DOP853", rtol=TOLERANCE, atol=TOLERANCE).y
