r"""Integrators: an SDE and a step make a dynamics, like any other one-step rule.

    EulerMaruyama   strong 1/2 (additive 1)   weak 1   Ito            any noise; normal, two- or three-point draws
    Milstein        strong 1                  weak 1   Ito            additive, scalar, diagonal, commutative noise; derivative-free
    Heun            strong 1/2 (comm. 1)      weak 1   Stratonovich   any noise
    SRA1            strong 3/2                weak 2   either         additive noise
    Platen          strong 1/2                weak 2   Ito            any noise; normal or three-point draws; a sign a pair of motions
    RI1             strong 1/2                weak 2   Ito            any noise; normal or three-point draws; a sign a pair of motions
    OBABO, BAOAB    weak 2                             either         the kinetic equation, split; UBU: additive noise only

Weak orders hold for any number of motions, whether they commute or not: the tests compare E f of one step with the generator's expansion,
for all moments up to the fourth and one to four motions. Steps that take signs share no Brownian path with steps of another length.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sdetools._identity import function_identity
from sdetools.dynamics.base import State
from sdetools.dynamics.integrator_base import Equation, Integrator
from sdetools.dynamics.sde import SDE


class EulerMaruyama(Integrator):
    """y + a h + b sqrt(h) xi. Strong order 1/2 (1 for additive noise), weak order 1; with dt = eta and normal draws it is SGD.

    >>> import sdetools as st
    >>> em = EulerMaruyama(st.SDE(drift=["-x"], diffusion=["1"], variables="x"), dt=0.1)
    >>> em.rule((np.array([1.0]),), em.bind(np.array([0.0])), 0.1)
    (array([0.9]),)
    """

    strong = 0.5
    laws = ("normal", "three-point", "two-point")

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        return y + h * eq.drift(y) + _noise(eq, y, np.sqrt(h))


class Milstein(Integrator):
    """Euler-Maruyama with the iterated integrals of commutative noise, derivative-free: strong order 1, weak order 1.

    sum_jk (b_k(y + sqrt(h) b_j) - b_k(y)) / sqrt(h) (dW_j dW_k - h delta_jk) / 2: exact derivatives where b is linear. Diagonal and
    scalar noise need one extra evaluation of b. Source: P. Kloeden, E. Platen, section 11.1.
    """

    strong = 1.0
    classes = ("none", "additive", "scalar", "diagonal", "commutative")

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        root, sde = np.sqrt(h), eq.sde
        new = y + h * eq.drift(y) + _noise(eq, y, root)
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


class Heun(Integrator):
    """The trapezoidal rule in drift and noise: y + (a + a') h / 2 + (b + b') dW / 2 with y' by Euler. Stratonovich; weak order 1.

    Strong order 1 for commutative noise, 1/2 in general. Source: W. Ruemelin, SIAM J. Numer. Anal. 19 (1982).
    """

    strong = 0.5
    calculus = "stratonovich"
    stages = (0.0, 1.0)

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        root = np.sqrt(h)
        a, b = eq.drift(y), _noise(eq, y, root)
        predicted = y + h * a + b
        return y + (0.5 * h) * (a + eq.drift(predicted, 1)) + 0.5 * (b + _noise(eq, predicted, root, 1))


class SRA1(Integrator):
    """Roessler's SRA1 for additive noise: strong order 3/2, with dW and its integral dZ as draws.

    Source: A. Roessler, SIAM J. Numer. Anal. 48 (2010), Table 6.1.
    """

    strong = 1.5
    weak = 2.0
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


class Platen(Integrator):
    """The explicit scheme of weak order 2 for general Ito noise; a pair of motions takes a sign beside its draws.

    Source: P. Kloeden, E. Platen, *Numerical Solution of Stochastic Differential Equations*, (15.1.3).
    """

    strong = 0.5
    weak = 2.0
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
            new = new + _times(eq, up, r, plus + minus, 1) + _times(eq, down, r, plus - minus, 1)
            others = [j for j in range(q) if j != r]
            if others:
                up, down = y + root * columns[r], y - root * columns[r]
                mixed = {j: (0.25 / root) * (w[j] * w[r] + h * eq.area(j, r)) for j in others}
                new = new + eq.diffusion(up, [0.25 * w[j] + mixed[j] if j != r else 0.0 for j in range(q)])
                new = new + eq.diffusion(down, [0.25 * w[j] - mixed[j] if j != r else 0.0 for j in range(q)])
                new = new - eq.diffusion(y, [0.5 * w[j] if j != r else 0.0 for j in range(q)])
        return new


class RI1(Integrator):
    """Roessler's RI1, a Runge-Kutta scheme of weak order 2 (deterministic order 3) for general Ito noise, with fewer evaluations of b.

    For m motions it takes m (m - 1) / 2 signs, one a pair. The printed scheme has m - 1, one sign I~_(k) for all pairs (k, l) with k < l:
    E[I_(2,1) I_(3,1)] is h^2 / 4 then where 0 is right, and from three non-commuting motions on the weak order is 1.
    Source: A. Roessler, SIAM J. Numer. Anal. 47 (2009), Table 5.2.
    """

    strong = 0.5
    weak = 2.0
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
            new = new + _times(eq, moved + own, k, 0.25 * w[k] + 0.5 * diagonal, 2)
            new = new + _times(eq, moved - own, k, 0.25 * w[k] - 0.5 * diagonal, 2)
            if q > 1:
                # the stand-ins for the double integrals I_(k,j), j different from k, divided by sqrt(h)
                mixed = [(0.5 / root) * (w[k] * w[j] + h * eq.area(k, j)) if j != k else 0.0 for j in range(q)]
                side = eq.diffusion(y, mixed)
                new = new + _times(eq, y + side, k, 0.25 * w[k] + 0.5 * root)
                new = new + _times(eq, y - side, k, 0.25 * w[k] - 0.5 * root)
                new = new - _times(eq, y, k, 0.5 * w[k])
        return new


class _Splitting(Integrator):
    """dX = -r M dt (A), dM = kappa grad L dt (B), dM = -gamma M dt + kappa scale R dW (O, solved exactly), of a kinetic equation."""

    weak = 2.0
    calculus = "either"

    def __init__(self, sde: SDE, dt: float, law: str = "normal") -> None:
        if not getattr(sde, "splits", False):
            raise ValueError(
                f"{type(self).__name__} must have a kinetic equation, such as st.KineticSDE(oracle, plan); got {sde!r}. "
                "For another SDE take st.EulerMaruyama, st.SRA1 or st.Platen."
            )
        super().__init__(sde, dt, law)
        self.coefficients = ("drift", "kick", *(f"f{i}" for i in range(self._flow(1.0, 1.0, 1.0).shape[0])))  # type: ignore[misc]

    def coefficient_values(self, steps: int) -> np.ndarray:
        h = self.step_time
        r, gamma, kappa = self.sde.signal_values(np.arange(steps) * h, 0.5, h).T
        flow = (
            np.stack([self._flow(g, k, h) for g, k in zip(gamma, kappa)])
            if steps <= 1 or _moves(gamma, kappa)
            else np.broadcast_to(self._flow(gamma[0], kappa[0], h), (steps, self._flow(gamma[0], kappa[0], h).shape[0]))
        )
        return np.column_stack([r * h, kappa * h, flow])

    def _flow(self, gamma: float, kappa: float, h: float) -> np.ndarray:
        """Numbers of the exact flow O (or U)."""
        raise NotImplementedError

    def rule(self, state: State, bound: Any, *coefficients: Any) -> State:  # type: ignore[override]
        z, p = bound
        q = self.sde.noise_dim
        eq = Equation(self.sde, p, [z[i * q : (i + 1) * q] for i in range(self.levels)], (), ())
        self._hold(np.concatenate(state), p, (1.0,) * self.sde.signals)
        return self.move(eq, *state, *coefficients)

    @property
    def identity(self) -> str:
        return f"{function_identity(type(self).move)} {self.law} {self.sde.identity}"


def _moves(*series: np.ndarray) -> bool:
    return any(bool((s != s[0]).any()) for s in series)


class OBABO(_Splitting):
    """O(h/2) B(h/2) A(h) B(h/2) O(h/2): weak order 2. Source: G. Bussi, M. Parrinello, Phys. Rev. E 75 (2007)."""

    levels = 2
    paired = False

    def _flow(self, gamma: float, kappa: float, h: float) -> np.ndarray:
        return _ornstein_uhlenbeck(gamma, kappa, h / 2)

    def move(self, eq: Equation, x: Any, m: Any, drift: Any, kick: Any, decay: Any, spread: Any) -> State:
        m = _fade(eq, x, m, 0, decay, spread)
        m = m + 0.5 * kick * eq.sde.gradient(x, eq.p)
        x = x - drift * m
        m = m + 0.5 * kick * eq.sde.gradient(x, eq.p)
        return x, _fade(eq, x, m, 1, decay, spread)


class BAOAB(_Splitting):
    """B(h/2) A(h/2) O(h) A(h/2) B(h/2): weak order 2, exact in the position's stationary law on quadratics.

    Source: B. Leimkuhler, C. Matthews, Appl. Math. Res. Express (2013).
    """

    def _flow(self, gamma: float, kappa: float, h: float) -> np.ndarray:
        return _ornstein_uhlenbeck(gamma, kappa, h)

    def move(self, eq: Equation, x: Any, m: Any, drift: Any, kick: Any, decay: Any, spread: Any) -> State:
        m = m + 0.5 * kick * eq.sde.gradient(x, eq.p)
        x = x - 0.5 * drift * m
        m = _fade(eq, x, m, 0, decay, spread)
        x = x - 0.5 * drift * m
        return x, m + 0.5 * kick * eq.sde.gradient(x, eq.p)


class UBU(_Splitting):
    """U(h/2) B(h) U(h/2), U the exact flow of A and O together: weak order 2, strong order 2 in its own noise; additive noise.

    Source: J. M. Sanz-Serna, K. Zygalakis, J. Mach. Learn. Res. 22 (2021).
    """

    classes = ("none", "additive")
    levels = 4
    paired = False

    def _flow(self, gamma: float, kappa: float, h: float) -> np.ndarray:
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


def _fade(eq: Equation, x: Any, m: Any, level: int, decay: Any, spread: Any) -> Any:
    m = decay * m
    return m + spread * eq.sde.force(x, eq.xi[level], eq.p) if eq.sde.noise_dim else m


def _ornstein_uhlenbeck(gamma: float, kappa: float, t: float) -> np.ndarray:
    """exp(-gamma t) and kappa sqrt((1 - exp(-2 gamma t)) / (2 gamma))."""
    return np.array([math.exp(-gamma * t), kappa * math.sqrt(t * _mean_decay(2 * gamma * t))])


def _mean_decay(x: float) -> float:
    """(1 - exp(-x)) / x."""
    return -math.expm1(-x) / x if x else 1.0


def _joint_flow(gamma: float, kappa: float, t: float) -> np.ndarray:
    """Decay, reach phi(t) = (1 - exp(-gamma t)) / gamma, and the root of the covariance of the noise in m and in the way.

    G1 = int exp(-gamma w) dW, G2 = int phi(w) dW: Var G1 = phi(2t) / 2, Cov = phi(t)^2 / 2, Var G2 = (t - 2 phi(t) + phi(2t)/2) / gamma^2.
    The way is divided by 2t, since `drift` is r times the whole step.
    """
    phi = t * _mean_decay(gamma * t)
    first, both = t * _mean_decay(2 * gamma * t), phi * phi / 2
    x = gamma * t
    second = (
        (t - 2 * phi + first) / gamma**2 if x > 1e-2 else t**3 * (1 / 3 - x / 4 + 7 * x**2 / 60 - x**3 / 24 + 31 * x**4 / 2520)
    )
    spread = math.sqrt(first)
    cross = both / spread
    own = math.sqrt(max(0.0, second - cross * cross))
    return np.array([math.exp(-x), phi / (2 * t), kappa * spread, kappa * cross / (2 * t), kappa * own / (2 * t)])


def _noise(eq: Equation, y: Any, root: Any, stage: int = 0) -> Any:
    """b(y) dW."""
    return eq.diffusion(y, [root * xi for xi in eq.xi[0]], stage) if eq.sde.noise_dim else 0.0 * y


def _times(eq: Equation, y: Any, k: int, factor: Any, stage: int = 0) -> Any:
    """b_k(y) times a number."""
    return eq.diffusion(y, [factor if j == k else 0.0 for j in range(eq.sde.noise_dim)], stage)
