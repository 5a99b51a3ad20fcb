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

For implementers of a new integrator: set the class attributes, write `step(eq, y, h)` in terms of `eq.drift(y, i)`, `eq.diffusion(y, u, i)`
and `eq.column(y, j, i)` (i: which of `stages`, the fractions of the step at which time-dependent numbers are read), and of the draws
`eq.xi` (`levels` rows of `noise_dim` draws of mean 0 and variance 1) and, with `areas = True`, `eq.area(j, k)`, a sign for each pair of
motions. sqrt(h) eq.xi[0] is the Brownian increment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sdetools import _check
from sdetools._arrays import ArraysOnly, select
from sdetools._identity import function_identity
from sdetools.dynamics.base import Dynamics, State
from sdetools.dynamics.classes import CLASSES, hold
from sdetools.dynamics.sde import SDE
from sdetools.noise.base import Draws, Normal, Sign, Uniform

LAWS = {"normal": Normal, "two-point": Sign, "three-point": Uniform}


class Equation:
    """An SDE in one step: its numbers, its draws, and its time-dependent numbers at each stage; `signs` has one row a pair of motions."""

    __slots__ = ("p", "s", "sde", "signs", "xi")

    def __init__(self, sde: SDE, p: Any, xi: Sequence[Any], signs: Any, s: Sequence[Any]) -> None:
        self.sde, self.p, self.xi, self.signs, self.s = sde, p, xi, signs, s

    def drift(self, y: Any, stage: int = 0) -> np.ndarray:
        """a(y)."""
        return self.sde.drift(y, self.p, self.s[stage])

    def diffusion(self, y: Any, u: Sequence[Any], stage: int = 0) -> np.ndarray:
        """b(y) u."""
        return self.sde.diffusion(y, u, self.p, self.s[stage])

    def column(self, y: Any, j: int, stage: int = 0) -> np.ndarray:
        """b_j(y)."""
        return self.diffusion(y, [float(i == j) for i in range(self.sde.noise_dim)], stage)

    def area(self, j: int, k: int) -> Any:
        """A sign for the motions j and k, antisymmetric: what stands in for (2/h) times the area between them.

        Every pair has one of its own: two areas that share a motion are uncorrelated, and so must their stand-ins be.
        """
        return self.signs[j * (j - 1) // 2 + k] if j > k else -self.signs[k * (k - 1) // 2 + j]


class Integrator(Dynamics):
    """An integrator on an SDE with step `dt`: a dynamics with `step_time` dt.

    `law`: the law of the draws, "normal", "three-point" or "two-point" where the weak order allows it (the last two have no common
    Brownian path, so they couple with nothing of another step). ValueError where the scheme does not apply.
    """

    strong: ClassVar[float | None] = None
    weak: ClassVar[float] = 1.0
    classes: ClassVar[tuple[str, ...]] = CLASSES
    calculus: ClassVar[str] = "ito"
    laws: ClassVar[tuple[str, ...]] = ("normal",)
    levels: ClassVar[int] = 1
    stages: ClassVar[tuple[float, ...]] = (0.0,)
    areas: ClassVar[bool] = False
    """Whether the scheme takes a sign for each pair of motions (`eq.area`), beside its draws."""
    paired: ClassVar[bool] = True
    """Whether the draws are the increment of a path and, with two levels, its integral over the step."""

    oracle = None  # type: ignore[assignment]
    plan = None  # type: ignore[assignment]

    def __init__(self, sde: SDE, dt: float, law: str = "normal") -> None:
        if not isinstance(sde, SDE):
            raise ValueError(
                f"`sde` must be an SDE; got {sde!r}. Make one with st.SDE(drift=..., diffusion=...) or st.LimitSDE(oracle, plan)."
            )
        name = type(self).__name__
        if sde.noise_class not in self.classes:
            raise ValueError(
                f"{name} must have {' or '.join(c for c in self.classes if c != 'none')} noise; got {sde.noise_class} noise. "
                "Take st.EulerMaruyama or st.Platen, or declare the class by noise= if it is narrower than it looks."
            )
        if sde.calculus != self.calculus and self.calculus != "either" and sde.noise_class not in ("none", "additive"):
            raise ValueError(
                f"{name} must have an SDE in the {self.calculus} calculus; got {sde.calculus}. "
                f"Add {'-' if self.calculus == 'stratonovich' else ''}(1/2) sum_j (b_j . grad) b_j to the drift and declare the calculus."
            )
        if law not in self.laws:
            raise ValueError(f"`law` of {name} must be one of {', '.join(self.laws)}; got {law!r}.")
        self.sde, self.law = sde, law
        self.step_time = _check.positive("dt", dt)
        self.parts = sde.parts  # type: ignore[misc]
        n = sde.signals
        self.coefficients = ("h", *(f"s{i}_{j}" for i in range(len(self.stages)) for j in range(n)))  # type: ignore[misc]
        self.momentum_mean, self.momentum_root = getattr(sde, "momentum", np.zeros(sde.dim)), None

    @property
    def dim(self) -> int:
        return self.sde.dim

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sde.names)

    @property
    def loss(self) -> Any:
        return getattr(self.sde, "loss", None)

    @property
    def private_signs(self) -> int:
        """Signs that a step takes beside its draws."""
        return self.sde.noise_dim * (self.sde.noise_dim - 1) // 2 if self.areas else 0

    @property
    def draws(self) -> tuple[Draws, ...]:
        rows = self.levels * self.sde.noise_dim
        own = (LAWS[self.law](rows),) if rows else ()
        return own + ((Sign(self.private_signs),) if self.private_signs else ())

    @property
    def brownian(self) -> int:
        return self.sde.noise_dim if self.law == "normal" and not self.private_signs and self.paired else 0

    @property
    def staged(self) -> bool:
        return False

    @property
    def parameters(self) -> np.ndarray:
        return self.sde.parameters

    @property
    def longest_memory(self) -> float:
        return 1.0

    @property
    def identity(self) -> str:
        return f"{function_identity(type(self).step)} {self.law} {self.sde.identity}"

    @property
    def formula(self) -> str:  # type: ignore[override]
        return self.sde.latex

    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        return self.sde.start(x0)

    def coefficient_values(self, steps: int) -> np.ndarray:
        """The step, and the SDE's time-dependent numbers at each stage."""
        h = self.step_time
        begin = np.arange(steps) * h
        signals = [self.sde.signal_values(begin, c, h) for c in self.stages] if self.sde.signals else []
        return np.column_stack([np.full(steps, h), *signals])

    def bind(self, z: Any, p: Any = None) -> Any:
        return z, self.parameters if p is None else p

    def rule(self, state: State, bound: Any, h: Any, *signals: Any) -> State:  # type: ignore[override]
        z, p = bound
        n, q = self.sde.signals, self.sde.noise_dim
        at = [signals[i * n : (i + 1) * n] for i in range(len(self.stages))]
        xi = [self._law(z[i * q : (i + 1) * q]) for i in range(self.levels)]
        eq = Equation(self.sde, p, xi, z[self.levels * q :], at)
        y = state[0] if len(state) == 1 else np.concatenate(state)
        self._hold(y, p, at[0])
        y = self.sde.settle(self.step(eq, y, h), p)
        return tuple(y[i * self.dim : (i + 1) * self.dim] for i in range(len(state)))

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        """The state after one step."""
        raise TypeError("an integrator must define `step(eq, y, h)`")

    def _hold(self, y: Any, p: Any, s: Any) -> None:
        """Checks a class of noise that is not proven where the run is; symbols would carry it past the check."""
        if self.sde.presumed and self.sde.noise_class != "general":
            if np.asarray(y).dtype == object:
                raise ArraysOnly("a class of noise that is declared and not proven is checked along the run")
            hold(self.sde, y, p, s)

    def _law(self, z: Any) -> Any:
        if self.law != "three-point":
            return z
        return select(z < 1 / 6, -math.sqrt(3.0), select(z < 5 / 6, 0.0, math.sqrt(3.0)))

    def __repr__(self) -> str:
        return f"{self.name}({self.sde!r}, dt={self.step_time:g})"


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
