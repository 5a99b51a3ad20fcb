"""The base class of integrators, which make a dynamics of an SDE and a step size.

For implementers of a new integrator: set the class attributes and write `step(eq, y, h)` in terms of the equation,

    eq.drift(y, i) = a(y)    eq.diffusion(y, u, i) = b(y) u    eq.column(y, j, i) = b_j(y)    eq.along(y, j, c, i) = b_j(y) c

and of its draws. Here b_j is column j of b, and i is the index into `stages`, the fractions of the step at which time-dependent numbers are
evaluated. `y` is the state with all parts one after another, `(n,)`, `(n, paths)` or a traced value. `eq.xi` contains `levels` rows of
`noise_dim` draws with mean 0 and variance 1. With `areas = True`, `eq.area(j, k)` is a random sign for each pair of Brownian motions.
sqrt(h) eq.xi[0] is the Brownian increment dW, and `eq.increment(y, sqrt(h), i)` is b(y) dW.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from sdetools import _check
from sdetools._arrays import ArraysOnly, select
from sdetools._identity import function_identity
from sdetools._moved import RenamedAttribute
from sdetools.dynamics.base import Moving, State, that_of
from sdetools.dynamics.sdes.classes import CLASSES, check_class_along_run
from sdetools.dynamics.sdes.sde import SDE
from sdetools.noise.base import Draws, Normal, Sign, Uniform

SDEType = TypeVar("SDEType", bound=SDE)
LAWS: dict[str, type[Draws]] = {"normal": Normal, "two-point": Sign, "three-point": Uniform}


class Equation(Generic[SDEType]):
    """An SDE dY = a dt + b dW within one step, as an integrator sees it: with its numbers, its draws and its time-dependent numbers.

    A stage is an index into `Integrator.stages`, the fractions of the step at which time-dependent numbers are evaluated. `y` is the state with
    its parts one after another, `(n,)`, `(n, paths)` or a traced value. All arguments are attributes of the same names.

    Args:
        sde: The SDE; `sde.noise_dim` is the number of Brownian motions, `sde.noise_class` the class of the noise.
        p: Its numbers, in the order of `sde.parameters`.
        xi: The draws: `Integrator.levels` sequences of `noise_dim` entries with mean 0 and variance 1, each `()`, `(paths,)` or traced.
        signs: One random sign for each pair of Brownian motions (1, 0), (2, 0), (2, 1), ..., or an empty sequence.
        s: The time-dependent numbers: for each stage a sequence of `sde.signals` numbers.
    """

    __slots__ = ("p", "s", "sde", "signs", "xi")

    def __init__(self, sde: SDEType, p: Any, xi: Sequence[Any], signs: Any, s: Sequence[Any]) -> None:
        self.sde, self.p, self.xi, self.signs, self.s = sde, p, xi, signs, s

    def drift(self, y: Any, stage: int = 0) -> np.ndarray:
        """Return the drift a(y) in the shape of the state `y`, `(n,)` or `(n, paths)`; `stage` is an index into `Integrator.stages`."""
        return self.sde.drift(y, self.p, self.s[stage])

    def diffusion(self, y: Any, u: Sequence[Any], stage: int = 0) -> np.ndarray:
        """Return b(y) u for the diffusion b, in the shape of the state `y`.

        `u` has one entry, a number or an array `(paths,)`, for each Brownian motion, and `stage` is an index into `Integrator.stages`.
        """
        return self.sde.diffusion(y, u, self.p, self.s[stage])

    def column(self, y: Any, j: int, stage: int = 0) -> np.ndarray:
        """Return column j = 0 ... noise_dim - 1 of the diffusion b(y), in the shape of the state `y`; `stage` indexes `Integrator.stages`."""
        return self.diffusion(y, [float(i == j) for i in range(self.sde.noise_dim)], stage)

    def increment(self, y: Any, root: Any, stage: int = 0) -> Any:
        """Return b(y) dW for the diffusion b, in the shape of the state `y`; zeros for an equation without noise.

        dW = `root` xi[0] with `root` = sqrt(h) for a step of size h. `stage`, an index into `Integrator.stages`, selects the time of the numbers in b alone.
        """
        return self.diffusion(y, [root * xi for xi in self.xi[0]], stage) if self.sde.noise_dim else 0.0 * y

    def along(self, y: Any, k: int, factor: Any, stage: int = 0) -> Any:
        """Return column k of the diffusion b(y) times `factor`, a number or an array `(paths,)`, in the shape of the state `y`.

        k = 0 ... noise_dim - 1 counts the Brownian motions, and `stage` is an index into `Integrator.stages`.
        """
        return self.diffusion(y, [factor if j == k else 0.0 for j in range(self.sde.noise_dim)], stage)

    def area(self, j: int, k: int) -> Any:
        """Return the random sign of the Brownian motions j and k, j different from k: -1.0 or 1.0, `()`, `(paths,)` or a traced value.

        It is antisymmetric, area(j, k) = -area(k, j), and replaces (2/h) times the Levy area of an integrator with `areas`. Every pair has its
        own sign: two Levy areas with a common motion are uncorrelated, and their replacements must be uncorrelated as well.
        """
        return self.signs[j * (j - 1) // 2 + k] if j > k else -self.signs[k * (k - 1) // 2 + j]


class Integrator(Moving):
    """The base class of integrators: an SDE discretised with step `dt`, which a simulation runs as a dynamics whose `step_time` is dt.

    A subclass must write one method, `step(eq, y, h)`, which returns the state after a step of size h, in the shape of y: the parts of the state one
    after another, `(n,)` or `(n, paths)`. `eq` is an `Equation`: `eq.drift(y)`, `eq.increment(y, sqrt(h))` for b dW, `eq.diffusion(y, u)` for b u, the
    draws `eq.xi`; the first three take an index `stage` into `stages`, 0 by default. The subclass sets those class attributes below whose
    defaults, in brackets, do not fit. All other methods of a dynamics are inherited; the parts of the state and its start are those of the SDE.
    Where the docstring speaks of a class of noise, it means "none", "additive", "scalar", "diagonal", "commutative" or "general"
    (`sdetools.dynamics.sdes.classes`).

    Args:
        sde: The SDE dX = a dt + b dW, such as `st.SDE(...)` or `st.LimitSDE(oracle, plan)`.
        dt: The step size, positive.
        law: The distribution of the draws xi that stand for dW / sqrt(dt), with mean 0 and variance 1; one of `laws`. "normal" is N(0, 1),
            "three-point" is -sqrt 3, 0, sqrt 3 with probability 1/6, 2/3, 1/6 (which suffices for weak order 2), "two-point" is -1, 1 with
            probability 1/2 each (for weak order 1). Only normal draws are Brownian increments: only they have a strong order and can be shared
            with steps of another length.

    Attributes:
        strong_order: p in E|Y(T) - X(T)| = O(dt^p) for the scheme's Y on the Brownian path of X, at normal draws whatever `law` is; None if none
            is declared [None]. On the class for the widest class of noise in `classes`, on an instance for the noise of its SDE.
        weak_order: p in |E f(Y(T)) - E f(X(T))| = O(dt^p) for smooth f, a number [1.0]; on the class and on an instance as `strong_order`.
        weak_orders: The weak orders that differ from `weak_order`, a mapping from classes of noise to numbers, such as {"additive": 2.0} [empty].
        strong_orders: The same for `strong_order` [empty].
        reference: The source of the scheme, a text [""].
        kinetic: Whether the scheme applies to kinetic equations (position and momentum) only [False].
        classes: The classes of noise for which the scheme is defined, a tuple of their names [all six].
        calculus: The calculus of the scheme: "ito", "stratonovich" or "either" ["ito"].
        laws: The values that `law` may have, a tuple [("normal",)].
        levels: The number of draws per Brownian motion and step [1]. `eq.xi[i][j]` is draw i of motion j, row `i * noise_dim + j` of all draws.
        stages: The fractions of the step at which time-dependent numbers are evaluated, a tuple [(0.0,)].
        areas: Whether the scheme uses a random sign for each pair of Brownian motions, `eq.area(j, k)`, in addition to its draws [False].
        paired: Whether the draws are the increment of a Brownian path and, with two levels, also determine its integral over the step [True].
        sde: The SDE, as given.
        law: The distribution of the draws, as given.

    Raises:
        ValueError: If the scheme is not defined for the SDE (its class of noise or its calculus), or if an argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> class Euler(st.Integrator):
        ...     strong_order, strong_orders = 0.5, {"additive": 1.0}
        ...
        ...     def step(self, eq, y, h):
        ...         return y + h * eq.drift(y) + eq.increment(y, np.sqrt(h))
        >>> own = Euler(st.SDE(drift=["-x"], diffusion=["1"], variables="x"), dt=0.25)
        >>> own.strong_order, own.rule((np.array([1.0]),), own.bind(z=np.array([2.0])), 0.25)  # 1 - 0.25 + 0.5 * 2
        (1.0, (array([1.75]),))
    """

    strong_order: float | None = None
    weak_order: float = 1.0
    weak_orders: ClassVar[Mapping[str, float]] = {}
    strong_orders: ClassVar[Mapping[str, float]] = {}
    reference: ClassVar[str] = ""
    strong, weak = RenamedAttribute("strong_order"), RenamedAttribute("weak_order")
    classes: ClassVar[tuple[str, ...]] = CLASSES
    kinetic: ClassVar[bool] = False
    calculus: ClassVar[str] = "ito"
    laws: ClassVar[tuple[str, ...]] = ("normal",)
    levels: ClassVar[int] = 1
    stages: ClassVar[tuple[float, ...]] = (0.0,)
    areas: ClassVar[bool] = False
    paired: ClassVar[bool] = True

    parts, dim, names, loss = that_of("sde.parts"), that_of("sde.dim"), that_of("sde.names"), that_of("sde.loss")
    parameters, formula = that_of("sde.parameters"), that_of("sde.latex", "formula")
    start_numbers, starts_from_law = that_of("sde.start_numbers"), that_of("sde.starts_from_law")

    def __init_subclass__(cls, **options: Any) -> None:
        """Rename the attributes `weak` and `strong` of a new subclass to `weak_order` and `strong_order`, with a DeprecationWarning."""
        super().__init_subclass__(**options)
        for old, new in (("weak", "weak_order"), ("strong", "strong_order")):
            if old in cls.__dict__:
                warnings.warn(f"{cls.__name__} sets `{old}`, which is now `{new}`.", DeprecationWarning, stacklevel=3)
                setattr(cls, new, cls.__dict__[old])
                delattr(cls, old)

    def __init__(self, sde: SDE, dt: float, law: str = "normal") -> None:
        if not isinstance(sde, SDE):
            raise ValueError(
                f"`sde` must be an SDE; got {sde!r}. Make one with st.SDE(drift=..., diffusion=...) or st.LimitSDE(oracle, plan)."
            )
        name = type(self).__name__
        if sde.noise_class not in self.classes:
            raise ValueError(
                f"{name} must have {' or '.join(c for c in self.classes if c != 'none')} noise; got {sde.noise_class} noise. "
                "Use st.EulerMaruyama or st.Platen, or declare the class by noise= if it is narrower than derived."
            )
        if sde.calculus != self.calculus and self.calculus != "either" and sde.noise_class not in ("none", "additive"):
            raise ValueError(
                f"{name} must have an SDE in the {self.calculus} calculus; got {sde.calculus}. "
                f"Add {'-' if self.calculus == 'stratonovich' else ''}(1/2) sum_j (b_j . grad) b_j to the drift and declare the calculus."
            )
        if law not in self.laws:
            meant = _check.suggestion(law, self.laws)
            raise ValueError(f"`law` of {name} must be one of {', '.join(self.laws)}; got {law!r}.{f' {meant}' if meant else ''}")
        self.sde, self.law = sde, law
        self.weak_order, self.strong_order = self.orders(sde.noise_class)
        self.step_time = _check.positive("dt", dt)

    @classmethod
    def orders(cls, noise_class: str) -> tuple[float, float | None]:
        """Return the pair (weak order, strong order) of the scheme for a class of noise such as "additive"; the latter is None if none is declared.

        A class without an entry of its own in `weak_orders` or `strong_orders` has the order for the widest class of noise.
        """
        return cls.weak_orders.get(noise_class, cls.weak_order), cls.strong_orders.get(noise_class, cls.strong_order)

    @property
    def coefficients(self) -> tuple[str, ...]:
        """The names of the numbers of a step: "h", its size, then "s0_0", ...: "si_j" is time-dependent number j of the SDE at `stages[i]`."""
        return ("h", *(f"s{i}_{j}" for i in range(len(self.stages)) for j in range(self.sde.signals)))

    @property
    def private_signs(self) -> int:
        """The number of random signs in a step: one for each pair of Brownian motions if the scheme uses `areas`, else 0."""
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
    def identity(self) -> str:
        return f"{function_identity(type(self).step)} {self.law} {self.sde.identity}"

    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        return self.sde.start(x0)

    def coefficient_values(self, steps: int) -> np.ndarray:
        h = self.step_time
        begin = np.arange(steps) * h
        signals = [self.sde.signal_values(begin, c, h) for c in self.stages] if self.sde.signals else []
        return np.column_stack([np.full(steps, h), *signals])

    def bind(self, z: Any, p: Any = None) -> Any:
        return z, self.parameters if p is None else p

    def rule(self, state: State, bound: Any, h: Any, *signals: Any) -> State:
        z, p = bound
        n, q = self.sde.signals, self.sde.noise_dim
        at = [signals[i * n : (i + 1) * n] for i in range(len(self.stages))]
        xi = [self._law(z[i * q : (i + 1) * q]) for i in range(self.levels)]
        eq = Equation(self.sde, p, xi, z[self.levels * q :], at)
        y = state[0] if len(state) == 1 else np.concatenate(state)
        self._check_noise_class(y, p, at[0])
        y = self.sde.settle(self.step(eq, y, h), p)
        return tuple(y[i * self.dim : (i + 1) * self.dim] for i in range(len(state)))

    def step(self, eq: Equation, y: Any, h: Any) -> Any:
        """Return the state after one step of the scheme, in the shape of `y`; every integrator overrides it.

        It is branch-free arithmetic, which also runs on traced values. `SDE.settle` is applied to its result.

        Args:
            eq: The equation with its draws, an `Equation`.
            y: The state before the step, its parts one after another: `(n,)`, `(n, paths)` or a traced value.
            h: The step size `dt`, a number or a traced value.

        Raises:
            TypeError: If the class does not override it.
        """
        raise TypeError("an integrator must define `step(eq, y, h)`")

    def _check_noise_class(self, y: Any, p: Any, s: Any) -> None:
        """Raise ValueError if a declared class of noise that is not proven fails at the states `y` of the run, for numbers `p` and signals `s`.

        Raises `ArraysOnly` for values that are no plain numbers, for which the check is impossible; nothing happens for a proven class.
        """
        if self.sde.presumed and self.sde.noise_class != "general":
            if np.asarray(y).dtype == object:
                raise ArraysOnly("a class of noise that is declared and not proven is checked during the run")
            check_class_along_run(self.sde, y, p, s)

    def _law(self, z: Any) -> Any:
        """Return entries with mean 0 and variance 1 of the distribution `law`, in the shape of the draws `z`.

        Normals and signs stay as they are; uniforms become -sqrt 3, 0 or sqrt 3 with probability 1/6, 2/3 and 1/6.
        """
        if self.law != "three-point":
            return z
        return select(z < 1 / 6, -math.sqrt(3.0), select(z < 5 / 6, 0.0, math.sqrt(3.0)))

    def __repr__(self) -> str:
        return f"{self.name}({self.sde!r}, dt={self.step_time:g})"
