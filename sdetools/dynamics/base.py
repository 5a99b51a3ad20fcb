"""Base classes of everything that a simulation can run: an initial state, a one-step rule and a clock.

`Moving` is the interface that a simulation requires. `Dynamics` is a rule on noisy gradients; it adds an oracle, a plan and an initial momentum. An
integrator applied to an SDE is the other kind of `Moving` (`dynamics.integrators`).

For implementers of a new `Dynamics` (its docstring has an example), which takes a few lines and changes no other part of the library:

1. `parts` names the parts of the state, the position `"x"` first. A part is an array `(dim,)` of one path or `(dim, paths)` of many.
2. `coefficients` names the numbers of a step: eta and beta of the plan, or float attributes. Where others change, override `coefficient_values`.
3. `rule(state, oracle, *coefficients) -> state` is branch-free arithmetic, and `oracle(x)` is a noisy gradient at `x`. All calls of the oracle in one
   step use the same draws (the same minibatch). The same code runs on NumPy arrays (the reference implementation) and on values of a graph (traced
   into a kernel). It must not branch on them (use `np.where`) or modify them in place.
4. `start(x0, z)` returns the state before the first step, where `z` are the draws listed in `start_draws`. The parts in `at_x0` start at x0, the others
   at the initial momentum. `x0` is a point `(dim,)`, one point per path `(dim, paths)`, or a traced value; the parts may differ in this respect.
5. `step_time` is the time of one step. Only dynamics that share time points can be compared.
6. `extra_draws` lists random draws of the method beside those of the oracle. The rule reads them from `oracle.extra`. `copies` is the number of
   independent draws of the noise in one step, 1 by default. `oracle.independent(i)` is the noisy gradient on copy i.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from operator import attrgetter
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import numeric, spread
from sdetools._identity import function_identity
from sdetools.noise.base import Draws, Normal
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan

State = tuple[Any, ...]  # arrays of one path or of many, or values of the graph
Oracle = Callable[[np.ndarray], np.ndarray]


class Moving(ABC):
    """The interface of everything that a simulation can run: a one-step rule with its draws, numbers, initial state and clock.

    The state is a tuple of parts, the position first. A part is an array `(dim,)` of one path or `(dim, paths)` of many. A subclass sets `step_time`
    and writes `parts`, `coefficients`, `rule`, `dim`, `names`, `draws`, `parameters`, `bind`, `start`, `coefficient_values` and `identity`; all other
    members have a default.

    Attributes:
        step_time: The time of one step. Only dynamics that share time points can be compared.
    """

    step_time: float

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """The names of the parts of the state, a tuple of strings with the position first, such as ("x", "m")."""

    @property
    @abstractmethod
    def coefficients(self) -> tuple[str, ...]:
        """The names of the numbers that the rule gets anew in each step, a tuple of strings such as ("eta", "beta")."""

    @abstractmethod
    def rule(self, state: State, bound: Any, *coefficients: Any) -> State:
        """Return the state after one step, a tuple of the parts in the order of `parts` and in their shapes.

        Args:
            state: The state before the step, a tuple of the parts, each `(dim,)`, `(dim, paths)` or a traced value `(dim,)`.
            bound: The return value of `bind`: the noisy gradient of this step for a `Dynamics`, its draws and numbers for an integrator.
            *coefficients: The numbers of this step, one for each name in `coefficients`.
        """

    @property
    @abstractmethod
    def dim(self) -> int:
        """The number of coordinates of the position and of every other part."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the `dim` coordinates in expressions, a tuple of strings."""

    @property
    @abstractmethod
    def draws(self) -> tuple[Draws, ...]:
        """The random numbers of one step: a tuple of `Normal(n)`, `Sign(n)` (-1.0 or 1.0) and `Uniform(n)` on (0, 1), in the order of the rows of `z`."""

    @property
    @abstractmethod
    def parameters(self) -> np.ndarray:
        """The numbers of the formulas of loss, noise or SDE, an array `(n,)`, the `p` of `bind`; they can change without a new compilation."""

    @abstractmethod
    def bind(self, z: Any, p: Any = None) -> Any:
        """Return the second argument of the rule, `bound`: the noisy gradient of a `Dynamics`, a pair (z, p) for an integrator.

        Args:
            z: The draws of one step, `(n_draws,)` or `(n_draws, paths)`.
            p: The numbers, in the order of `parameters`; None for `parameters` itself.
        """

    @abstractmethod
    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        """Return the state before the first step, a tuple of the parts in the order of `parts`.

        Args:
            x0: The initial point, `(dim,)` or `(dim, paths)`.
            z: The draws listed in `start_draws`, `(n,)` or `(n, paths)`. With None, a random initial momentum has its mean.
        """

    @abstractmethod
    def coefficient_values(self, steps: int) -> np.ndarray:
        """Return the coefficients of the rule, `(steps, len(coefficients))`: row k for step k = 0 ... steps - 1, columns as in `coefficients`."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """A short text that identifies the formulas of rule, loss and noise; with all numbers, start and seed it identifies a simulation."""

    @property
    def name(self) -> str:
        """The name of the rule in tables and reports, by default the name of the class."""
        return type(self).__name__

    @property
    def formula(self) -> str:
        """The rule in LaTeX, without dollar signs; empty if there is none."""
        return ""

    @property
    def loss(self) -> Any:
        """The loss that is minimised, a `Loss`, or None for an SDE without a loss."""
        return None

    @property
    def brownian(self) -> int:
        """The number of Brownian motions, if all draws of a step are their increments (or their time integrals) over it; 0, the default, if not.

        Such draws can be shared by dynamics with steps of other lengths, others, such as a sign or a sampled index, by those with equal steps only.
        """
        return 0

    @property
    def sampled(self) -> bool:
        """Whether the noise samples data, such as minibatches; its deviation from grad L then costs a full gradient in each step. False by default."""
        return False

    @property
    def finite_variance(self) -> bool:
        """Whether the noise has a variance, which a control variate (a correction of means by sums of the noise) requires; True by default."""
        return True

    @property
    def longest_memory(self) -> float:
        """The longest memory in steps, such as 1 / (1 - beta) for momentum; 1 by default. The default time grid resolves it."""
        return 1.0

    @property
    def start_draws(self) -> tuple[Draws, ...]:
        """The random numbers that `start` uses, a tuple of `Normal(n)`, `Sign(n)` and `Uniform(n)`; empty for a start without randomness."""
        return ()

    @property
    def starts_from_law(self) -> bool:
        """Whether `start` is plain arithmetic on x0, so that x0 may be a distribution (`sdetools.starts`) instead of points; True by default."""
        return True

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        """The arrays that `start` reads besides x0 and its draws, a tuple, such as the initial momentum `(dim,)`; empty by default."""
        return ()

    def memory(self, steps: int) -> np.ndarray | None:
        """Return c_0, ..., c_steps, an array `(steps + 1,)`, such that y_k = x_k - c_k m_k moves by y_{k+1} = y_k - etabar_k g_k.

        m_k is the momentum, g_k the noisy gradient, and etabar_k the rate of the plain SGD to compare with (the averaged schedule). The default is
        None, for dynamics without such a sequence.
        """
        return None

    def fading(self, steps: int) -> np.ndarray | None:
        """Return the factor, such as beta_k, by which step k = 0 ... steps - 1 multiplies the momentum, `(steps,)`; None if `memory` is None."""
        return None


def that_of(path: str, name: str = "") -> property:
    """Return a property that reads the attribute `path` of the object, with dots between its parts, such as "plan.longest_memory".

    Its docstring is that of the property `name` of `Moving`, by default of the last part of `path`.
    """
    return property(attrgetter(path), doc=getattr(Moving, name or path.rpartition(".")[2]).__doc__)


class BoundOracle:
    """The noisy gradient of one step as a function of x: `oracle(x)` returns g(x) in the shape of `x`, always on the draws of this step.

    Args:
        oracle: The noisy gradient oracle, a `NoisyOracle`.
        z: The draws of one step, `(n_draws,)` or `(n_draws, paths)`: first those of each copy of the noise, then those of the method itself.
        p: The numbers of the oracle; None for its own.
        copies: The number of independent copies of the noise among the draws (`Dynamics.copies`).

    Attributes:
        extra: The draws of the method itself (`Dynamics.extra_draws`), the last rows of `z`.
    """

    __slots__ = ("extra", "given", "oracle", "p", "z")

    def __init__(self, oracle: NoisyOracle, z: Any, p: Any = None, copies: int = 1) -> None:
        n = oracle.noise.n_draws
        self.oracle, self.p, self.given, self.z, self.extra = oracle, p, z, z[:n], z[copies * n :]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.oracle(x, self.z, self.p)

    def independent(self, i: int) -> BoundOracle:
        """Return the noisy gradient on the `i`-th independent copy of the noise, i = 0 ... copies - 1; copy 0 is this oracle."""
        other, n = copy(self), self.oracle.noise.n_draws
        other.z = self.given[i * n : (i + 1) * n]
        return other


class Dynamics(Moving):
    """The base class of optimisers: a one-step rule on noisy gradients, with its oracle, its schedule and its clock.

    A rule of your own is a subclass with `parts`, `coefficients` and a static method `rule(state, oracle, *coefficients) -> state`; `oracle(x)` is g(x).

    Args:
        oracle: The noisy gradient oracle, a `NoisyOracle`.
        plan: The schedule of learning rates and momentum coefficients, a `Plan`.
        momentum: The initial value of the parts after `x` that do not start at x0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance) of
            a normal law, with a covariance matrix `(dim, dim)` or its diagonal `(dim,)`.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`, so that step k begins at t = k eta.

    Attributes:
        parts: The names of the parts of the state, a tuple of strings, the position "x" first.
        coefficients: The names of the numbers that the rule gets anew in each step, a tuple: "eta", "beta" or float attributes of the object.
        at_x0: The names of the parts that start at x0, in addition to the first.
        copies: The number of independent draws of the noise in one step; a rule reads copy i by `oracle.independent(i)`.
        extra_draws: Random draws of the method besides those of the oracle, a tuple such as `(Uniform(1),)`; a rule reads them from `oracle.extra`.
        linear: Whether a step is linear in state and gradients. Exact results refuse False; they test True, the default, at random inputs.
        momentum_mean: The initial momentum or its mean, `(dim,)`.
        momentum_root: A square root of its covariance, `(dim, dim)`, or None if it is not random.

    Raises:
        ValueError: If an argument is invalid, or `momentum` is given to a rule whose only part is the position.
        TypeError: If the class defines no `rule`.

    Example:
        >>> import numpy as np, sdetools as st
        >>> class Bounded(st.Dynamics):
        ...     parts, coefficients = ("x", "m"), ("eta", "beta")
        ...
        ...     @staticmethod
        ...     def rule(state, oracle, eta, beta):
        ...         m = beta * state[1] + (1 - beta) * oracle(state[0])
        ...         return state[0] - eta * m / np.sqrt(1 + m * m), m
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.none(dim=1))
        >>> st.simulate(Bounded(oracle, st.schedules.constant(0.5, 0.5)), x0=[1.5], horizon=0.5, paths=2, observe=["x0"]).data["mean"].values.ravel()
        array([1.5, 1.2])
    """

    parts: tuple[str, ...] = ("x",)
    coefficients: tuple[str, ...] = ("eta",)
    at_x0: tuple[str, ...] = ()
    copies: int = 1
    extra_draws: tuple[Draws, ...] = ()
    linear: bool = True
    formula: str = ""

    dim, loss, parameters = that_of("oracle.dim"), that_of("oracle.loss"), that_of("oracle.parameters")
    longest_memory, finite_variance = that_of("plan.longest_memory"), that_of("oracle.noise.finite_variance")

    def __init__(self, oracle: NoisyOracle, plan: Plan, momentum: Any = None, step_time: float | None = None) -> None:
        self.oracle, self.plan = check_oracle(oracle), check_plan(plan)
        self.step_time = plan.eta if step_time is None else _check.positive("step_time", step_time)
        self.momentum_mean, self.momentum_root = _initial(momentum, oracle.dim, self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.oracle.loss.names)

    @property
    def draws(self) -> tuple[Draws, ...]:
        return (*self.oracle.draws * self.copies, *self.extra_draws)

    @property
    def brownian(self) -> int:
        noise = self.oracle.noise
        return (
            self.copies * noise.n_draws
            if noise.gaussian and not self.extra_draws and all(isinstance(d, Normal) for d in noise.draws)
            else 0
        )

    @property
    def sampled(self) -> bool:
        return self.oracle.noise.centred is not None

    def bind(self, z: Any, p: Any = None) -> BoundOracle:
        """Return the noisy gradient of one step as a function of x, for its draws `z` in the order of `draws`, and numbers `p` (None: `parameters`)."""
        return BoundOracle(self.oracle, z, p, self.copies)

    @property
    def start_draws(self) -> tuple[Draws, ...]:
        """The draws of a random initial momentum, `(Normal(dim),)`; an empty tuple if it is not random."""
        return () if self.momentum_root is None else (Normal(self.momentum_root.shape[1]),)

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        """A tuple of arrays: the mean of the initial momentum, `(dim,)`, and, if it is random, the square root of its covariance, `(dim, dim)`."""
        return (self.momentum_mean,) if self.momentum_root is None else (self.momentum_mean, self.momentum_root)

    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        momentum = self.momentum_mean
        if self.momentum_root is not None and z is not None:
            momentum = spread(momentum, z) + self.momentum_root @ z
        x = numeric(x0)
        return (x, *(x if part in self.at_x0 else momentum for part in self.parts[1:]))

    def coefficient_values(self, steps: int) -> np.ndarray:
        """Return the coefficients, an array `(steps, len(coefficients))`: row k for step k, columns in the order of `coefficients`.

        "eta" and "beta" are eta_k and beta_k of the plan, whose last values are repeated if it is shorter than `steps`. Another name is a float
        attribute of the object, equal in all steps.

        Raises:
            ValueError: If a name is neither of them.
        """
        series = {"eta": self.plan.etas, "beta": self.plan.betas}
        unknown = [c for c in self.coefficients if c not in series and not isinstance(getattr(self, c, None), float)]
        if unknown:
            c, own = unknown[0], getattr(self, unknown[0], None)
            raise ValueError(
                f"`coefficients` of {self.name} must be eta, beta or float attributes; got {c!r}, whose value is {_check.shown(own)}. Set "
                f"self.{c} to a float such as {float(own) if isinstance(own, int) else 0.5}, or override `coefficient_values`."
            )
        columns = [series[c](steps) if c in series else np.full(steps, getattr(self, c)) for c in self.coefficients]
        return np.column_stack(columns) if columns else np.empty((steps, 0))

    @property
    def identity(self) -> str:
        return f"{function_identity(self.rule)} {self.oracle.loss.identity} {self.oracle.noise.identity}"

    def __repr__(self) -> str:
        return f"{self.name}({self.oracle!r}, {self.plan!r})"


def check_oracle(oracle: Any) -> NoisyOracle:
    """Return `oracle` unchanged if it is a `NoisyOracle`; raise ValueError otherwise."""
    if not isinstance(oracle, NoisyOracle):
        raise ValueError(f"`oracle` must be a NoisyOracle; got {_check.shown(oracle)}. Make one: st.NoisyOracle(loss, noise).")
    return oracle


def check_plan(plan: Any) -> Plan:
    """Return `plan` unchanged if it is a `Plan`; raise ValueError otherwise."""
    if not isinstance(plan, Plan):
        way = "from_arrays(eta=[...])" if isinstance(plan, (list, tuple, np.ndarray)) else "constant(eta=..., beta=...)"
        raise ValueError(f"`plan` must be a schedule; got {_check.shown(plan)}. Make one with st.schedules.{way}.")
    return plan


def without_momentum(plan: Plan, name: str, own: str = "", instead: str = "") -> Plan:
    """Return `plan` unchanged; raise ValueError if it is a `Plan` with some beta_k > 0, which the rule called `name` does not use.

    The message names what sets the memory of the rule instead, `own`, such as "a = 1 - beta". For a rule without memory `own` is empty, and the
    message names the rule with momentum, `instead`, such as "st.SGDM", if there is one.
    """
    if isinstance(plan, Plan) and plan.has_momentum:
        use = f", or use {instead}." if instead else "."
        hint = (
            f"Its memory is set by {own}: use a plan with beta = 0."
            if own
            else f"Pass plan.averaged() (the schedule of Theorem 3.5){use}"
        )
        raise ValueError(f"`plan` of {name} must be without momentum; got one with beta > 0. {hint}")
    return plan


def columns(first: np.ndarray, *others: Any) -> np.ndarray:
    """Return the array `(steps, 1 + len(others))` with the columns `first`, `(steps,)`, and `others`, each a series `(steps,)` or a constant number."""
    return np.column_stack([first, *(np.broadcast_to(values, first.shape) for values in others)])


def _initial(momentum: Any, dim: int, parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean of the initial momentum, `(dim,)`, and a square root of its covariance, `(dim, dim)`, None if it is not random."""
    if momentum is None:
        return np.zeros(dim), None
    if len(parts) < 2:
        raise ValueError("`momentum` must be left out for a dynamics without momentum; use SGDM, or drop the argument.")
    if isinstance(momentum, tuple) and len(momentum) == 2 and np.ndim(momentum[1]) in (1, 2):
        mean, covariance = (
            _check.point("momentum mean", momentum[0], dim),
            _check.covariance("momentum covariance", momentum[1], dim),
        )
        values, vectors = np.linalg.eigh(covariance)
        return mean, (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return _check.point("momentum", momentum, dim), None
