"""Splitting schemes for kinetic equations, whose parts are solved exactly: OBABO, BAOAB and UBU, all of weak order 2.

A kinetic equation (`PhaseSDE`) has the state (x, m), a position X and a momentum M, each `(dim,)` or `(dim, paths)`. It is split into

    A: dX = -r M dt,      B: dM = kappa grad L dt,      O: dM = -gamma M dt + kappa scale R dW,      U: A and O together.

r, gamma and kappa are numbers that may change from step to step, scale is a number, and R R^T = Sigma is the covariance of the oracle's noise.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from sdetools import _check
from sdetools._identity import function_identity
from sdetools.dynamics.base import State
from sdetools.dynamics.integrators.base import Equation, Integrator
from sdetools.dynamics.sdes.sde import SDE


class _Splitting(Integrator):
    """A splitting into dX = -r M dt (A), dM = kappa grad L dt (B) and dM = -gamma M dt + kappa scale R dW (O), each solved exactly.

    A subclass writes `_flow` and `move`. The coefficients of a step are r h ("drift"), kappa h ("kick") and the numbers of `_flow`.

    Args:
        sde: A `PhaseSDE` whose whole equation has this form, so that its attribute `splits` is true.
        dt: The step size h, positive.
        law: The distribution of the draws, which must be "normal".

    Attributes:
        flow_numbers: The number of values that `_flow` returns.

    Raises:
        ValueError: If the SDE has another form, or an argument is invalid.
    """

    weak_order = 2.0
    kinetic = True
    calculus = "either"
    flow_numbers: ClassVar[int] = 2

    def __init__(self, sde: SDE, dt: float, law: str = "normal") -> None:
        if not getattr(sde, "splits", False):
            raise ValueError(
                f"`sde` of {type(self).__name__} must be a kinetic equation, such as st.KineticSDE(oracle, plan); got {_check.shown(sde)}. "
                "For another SDE use st.EulerMaruyama, st.SRA1 or st.Platen."
            )
        super().__init__(sde, dt, law)

    @property
    def coefficients(self) -> tuple[str, ...]:
        return ("drift", "kick", *(f"f{i}" for i in range(self.flow_numbers)))

    def coefficient_values(self, steps: int) -> np.ndarray:
        h = self.step_time
        different, which = np.unique(self.sde.signal_values(np.arange(steps) * h, 0.5, h), axis=0, return_inverse=True)
        return np.array([self.step_numbers(h, *row) for row in different.tolist()])[which.ravel()]

    def step_numbers(self, h: Any, r: float, gamma: float, kappa: float) -> np.ndarray:
        """Return the coefficients of a step of size h, `(2 + flow_numbers,)`: r h, kappa h, then the numbers of the exact flow O (or U).

        Args:
            h: The step size, a number or a power series in it.
            r: The factor of M in dX = -r M dt.
            gamma: The friction in dM = -gamma M dt + kappa (grad L dt + scale R dW).
            kappa: The factor of the gradient there.
        """
        return np.array([r * h, kappa * h, *self._flow(gamma, kappa, h)])

    def _flow(self, gamma: float, kappa: float, h: Any) -> np.ndarray:
        """Return the numbers of the exact flow O (or U), `(flow_numbers,)`, over its share of a step of length h, for `move`.

        `gamma` is the friction and `kappa` the factor of gradient and noise.
        """
        raise NotImplementedError

    def move(self, eq: Equation, x: Any, m: Any, drift: Any, kick: Any, *flow: Any) -> State:
        """Return position and momentum after one step, a pair of arrays in the shape of `x` and `m`.

        Args:
            eq: The equation with its draws: `eq.sde.gradient(x, eq.p)` is grad L, `eq.sde.force(x, eq.xi[i], eq.p)` is scale R xi_i.
            x: The position before the step, `(dim,)`, `(dim, paths)` or a traced value.
            m: The momentum before the step, of the same shape.
            drift: r h, with the step size h.
            kick: kappa h.
            *flow: The `flow_numbers` numbers of the exact solution of O (or U) over its share of the step, in the order of `_flow`.
        """
        raise NotImplementedError

    def rule(self, state: State, bound: Any, *coefficients: Any) -> State:
        z, p = bound
        q = self.sde.noise_dim
        eq = Equation(self.sde, p, [z[i * q : (i + 1) * q] for i in range(self.levels)], (), ())
        self._check_noise_class(np.concatenate(state), p, (1.0,) * self.sde.signals)
        return self.move(eq, *state, *coefficients)

    @property
    def identity(self) -> str:
        return f"{function_identity(type(self).move)} {self.law} {self.sde.identity}"


class _Word(_Splitting):
    """A splitting scheme given by `word`, such as "OBABO": the flows A, B and O in order; a letter that occurs n times takes 1/n of the step each time."""

    word: ClassVar[str]

    def _flow(self, gamma: float, kappa: float, h: Any) -> np.ndarray:
        return _ornstein_uhlenbeck(gamma, kappa, h / self.word.count("O"))

    def move(self, eq: Equation, x: Any, m: Any, drift: Any, kick: Any, decay: Any, spread: Any) -> State:
        level = 0
        for letter in self.word:
            share = 1 / self.word.count(letter)
            if letter == "A":
                x = x - share * drift * m
            elif letter == "B":
                m = m + share * kick * eq.sde.gradient(x, eq.p)
            else:
                m = decay * m
                if eq.sde.noise_dim:
                    m = m + spread * eq.sde.force(x, eq.xi[level], eq.p)
                level += 1
        return x, m

    @property
    def identity(self) -> str:
        return f"{self.word} {super().identity}"


class OBABO(_Word):
    """The splitting O(h/2) B(h/2) A(h) B(h/2) O(h/2) of a kinetic equation, of weak order 2; h is the step size.

    A solves dX = -r M dt, B dM = kappa grad L dt and O dM = -gamma M dt + kappa scale R dW, each exactly over the time in brackets. The state is
    (x, m), position X and momentum M; r, gamma, kappa and scale are numbers of the equation, and R R^T = Sigma (see `PhaseSDE`). No strong order is
    declared, and steps of another length cannot share its draws, two for each Brownian motion.
    Source: G. Bussi, M. Parrinello, Phys. Rev. E 75 (2007).

    Args:
        sde: The kinetic equation, such as `st.KineticSDE(oracle, plan)` or `st.HamiltonianSDE(oracle, plan)`.
        dt: The step size h, positive.
        law: The distribution of the draws, which must be "normal".

    Raises:
        ValueError: If the SDE is not kinetic (or is the `ModifiedMomentumSDE` of order 2, which has further terms), or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=10.0)
        >>> sde = st.KineticSDE(oracle, st.schedules.constant(eta=0.01, beta=0.99))
        >>> st.exact.moments(st.OBABO(sde, dt=0.1), [1.0], steps=10, record=[10]).mean.ravel().round(5)  # the SDE has 0.65970
        array([0.65829])
    """

    word = "OBABO"
    reference = "G. Bussi, M. Parrinello, Phys. Rev. E 75 (2007)"
    levels = 2
    paired = False


class BAOAB(_Word):
    """The splitting B(h/2) A(h/2) O(h) A(h/2) B(h/2) of a kinetic equation, of weak order 2; h is the step size.

    A solves dX = -r M dt, B dM = kappa grad L dt and O dM = -gamma M dt + kappa scale R dW, each exactly over the time in brackets. The state is
    (x, m), position X and momentum M; r, gamma, kappa and scale are numbers of the equation, and R R^T = Sigma (see `PhaseSDE`). On
    quadratic losses with constant noise and coefficients the position has the exact stationary law. No strong order is declared. A step has one
    draw for each Brownian motion, dW / sqrt(h), so that steps of another length can share the Brownian path.
    Source: B. Leimkuhler, C. Matthews, Appl. Math. Res. Express (2013).

    Args:
        sde: The kinetic equation, such as `st.KineticSDE(oracle, plan)` or `st.HamiltonianSDE(oracle, plan)`.
        dt: The step size h, positive.
        law: The distribution of the draws, which must be "normal".

    Raises:
        ValueError: If the SDE is not kinetic (or is the `ModifiedMomentumSDE` of order 2, which has further terms), or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=10.0)
        >>> sde = st.KineticSDE(oracle, st.schedules.constant(eta=0.01, beta=0.99))
        >>> st.exact.moments(st.BAOAB(sde, dt=0.1), [1.0], steps=10, record=[10]).mean.ravel().round(5)  # the SDE has 0.65970
        array([0.65962])
    """

    word = "BAOAB"
    reference = "B. Leimkuhler, C. Matthews, Appl. Math. Res. Express (2013)"


class UBU(_Splitting):
    """The splitting U(h/2) B(h) U(h/2) of a kinetic equation with additive noise, of weak order 2; h is the step size.

    B solves dM = kappa grad L dt, and U solves dX = -r M dt, dM = -gamma M dt + kappa scale R dW, both exactly over the time in brackets.
    The state is (x, m), position X and momentum M; r, gamma, kappa and scale are numbers of the equation, and R R^T = Sigma (see `PhaseSDE`).
    The strong order is 2 for Brownian motions built from its own draws, four for each motion and step; the attribute `strong_order` is None, since
    steps of another length cannot share them. Source: J. M. Sanz-Serna, K. Zygalakis, J. Mach. Learn. Res. 22 (2021).

    Args:
        sde: The kinetic equation, such as `st.KineticSDE(oracle, plan)` or `st.HamiltonianSDE(oracle, plan)`.
        dt: The step size h, positive.
        law: The distribution of the draws, which must be "normal".

    Raises:
        ValueError: If the SDE is not kinetic (or is the `ModifiedMomentumSDE` of order 2, which has further terms), has noise that depends on the
            state, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=10.0)
        >>> sde = st.KineticSDE(oracle, st.schedules.constant(eta=0.01, beta=0.99))
        >>> st.exact.moments(st.UBU(sde, dt=0.1), [1.0], steps=10, record=[10]).mean.ravel().round(5)  # the SDE has 0.65970
        array([0.65922])
    """

    reference = "J. M. Sanz-Serna, K. Zygalakis, J. Mach. Learn. Res. 22 (2021)"
    classes = ("none", "additive")
    levels = 4
    paired = False
    flow_numbers = 5

    def _flow(self, gamma: float, kappa: float, h: Any) -> np.ndarray:
        return _joint_flow(gamma, kappa, h / 2)

    def move(
        self, eq: Equation, x: Any, m: Any, drift: Any, kick: Any, decay: Any, reach: Any, spread: Any, cross: Any, own: Any
    ) -> State:
        for half in (0, 1):
            if eq.sde.noise_dim:
                first = eq.sde.force(x, eq.xi[2 * half], eq.p)
                second = eq.sde.force(x, eq.xi[2 * half + 1], eq.p)
                x, m = x - (drift * reach) * m - drift * (cross * first + own * second), decay * m + spread * first
            else:
                x, m = x - (drift * reach) * m, decay * m
            if half == 0:
                m = m + kick * eq.sde.gradient(x, eq.p)
        return x, m


def _ornstein_uhlenbeck(gamma: float, kappa: float, t: Any) -> np.ndarray:
    """Return exp(-gamma t) and kappa sqrt((1 - exp(-2 gamma t)) / (2 gamma)), `(2,)`: factor of M and standard deviation of O over time t."""
    return np.array([np.exp(-gamma * t), kappa * np.sqrt(t * _mean_decay(2 * gamma * t))])


def _mean_decay(x: Any) -> Any:
    """Return (1 - exp(-x)) / x, and 1 at x = 0."""
    return -np.expm1(-x) / x if x else 1.0


def _joint_flow(gamma: float, kappa: float, t: Any) -> np.ndarray:
    """Return the array (decay, reach, spread, cross, own) of the flow U over time t, with phi(t) = (1 - exp(-gamma t)) / gamma.

    decay = exp(-gamma t), reach = phi(t) / (2t), and the rest is kappa times the Cholesky factor of the noise in momentum and displacement:
    G1 = int exp(-gamma w) dW, G2 = int phi(w) dW: Var G1 = phi(2t) / 2, Cov = phi(t)^2 / 2, Var G2 = (t - 2 phi(t) + phi(2t)/2) / gamma^2.
    The displacement is divided by 2t, because `drift` is r times the whole step.
    """
    phi = t * _mean_decay(gamma * t)
    first, both = t * _mean_decay(2 * gamma * t), phi * phi / 2
    x = gamma * t
    second = (
        (t - 2 * phi + first) / gamma**2 if x > 1e-2 else t**3 * (1 / 3 - x / 4 + 7 * x**2 / 60 - x**3 / 24 + 31 * x**4 / 2520)
    )
    spread = np.sqrt(first)
    cross = both / spread
    own = np.sqrt(max(0.0, second - cross * cross))
    return np.array([np.exp(-x), phi / (2 * t), kappa * spread, kappa * cross / (2 * t), kappa * own / (2 * t)])
