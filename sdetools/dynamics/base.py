"""Base classes of everything that a simulation can run: an initial state, a one-step rule and a clock.

`Moving` is the interface that a simulation requires. `Dynamics` is a rule on noisy gradients; it adds an oracle, a plan and an
initial momentum. An integrator applied to an SDE is the other kind of `Moving` (`dynamics.integrators`).

For implementers of a new `Dynamics`, which takes a few lines and changes no other part of the library:

1. `parts` names the components of the state, the position `"x"` first. Each is a component-first array with `dim` rows.
2. `coefficients` names the numbers that may change from step to step: eta and beta of the plan, or float attributes of the object.
   `coefficient_values(steps)` returns them, one row per step.
3. `rule(state, oracle, *coefficients) -> state` is branch-free arithmetic, and `oracle(x)` is a noisy gradient at `x`. All calls
   of the oracle in one step use the same draws (the same minibatch). The same code runs on NumPy arrays (the reference
   implementation) and on values of a graph (traced into a kernel). It must not branch on them (use `np.where`) or modify them in place.
4. `start(x0, z)` returns the state before the first step, where `z` holds the draws listed in `start_draws`. The parts in `at_x0` start
   at x0, the other parts start at the initial momentum. `x0` is a point `(dim,)`, one point per path `(dim, paths)`, or a traced value;
   the parts may differ in this respect.
5. `step_time` is the time of one step. Only dynamics that share time points can be compared.
6. `extra_draws` lists random draws of the method beside those of the oracle. The rule reads them from `oracle.extra`.

    class SignMomentum(st.Dynamics):
        parts, coefficients = ("x", "m"), ("eta", "beta")

        @staticmethod
        def rule(state, oracle, eta, beta):
            x, m = state
            m = beta * m + (1 - beta) * oracle(x)
            return x - eta * m / np.sqrt(1 + m * m), m
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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

    The state is a tuple of parts, component-first arrays with `dim` rows, the position first.

    Attributes:
        step_time: The time of one step. Only dynamics that share time points can be compared.
    """

    step_time: float

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """The names of the parts of the state, the position first."""

    @property
    @abstractmethod
    def coefficients(self) -> tuple[str, ...]:
        """The names of the numbers that may change from step to step."""

    @abstractmethod
    def rule(self, state: State, bound: Any, *coefficients: Any) -> State:
        """Return the state after one step; `bound` is the return value of `bind`."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """The number of coordinates of the position."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates in expressions."""

    @property
    @abstractmethod
    def draws(self) -> tuple[Draws, ...]:
        """The random draws of one step."""

    @property
    @abstractmethod
    def parameters(self) -> np.ndarray:
        """The numbers that `bind` receives as `p`."""

    @abstractmethod
    def bind(self, z: Any, p: Any = None) -> Any:
        """Return the second argument of the rule for the draws `z` of one step and the numbers `p` (default: `parameters`)."""

    @abstractmethod
    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        """Return the state before the first step.

        Args:
            x0: The initial point, `(dim,)` or `(dim, paths)`.
            z: The draws of the start, `(n,)` or `(n, paths)`; zeros by default.
        """

    @abstractmethod
    def coefficient_values(self, steps: int) -> np.ndarray:
        """Return the coefficients of the rule in each step, shape `(steps, len(coefficients))`."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """A short key that, together with the numbers, identifies the experiment."""

    @property
    def name(self) -> str:
        """The name of the rule in tables and reports."""
        return type(self).__name__

    @property
    def formula(self) -> str:
        """The rule in LaTeX, or an empty string."""
        return ""

    @property
    def loss(self) -> Any:
        """The loss that is minimised, or None for an SDE without a loss."""
        return None

    @property
    def brownian(self) -> int:
        """The number of draws that are Brownian increments, which steps of another length can share; 0 unless all draws are."""
        return 0

    @property
    def sampled(self) -> bool:
        """Whether the noise comes from sampled data, so that its deviation alone costs a full gradient per step."""
        return False

    @property
    def longest_memory(self) -> float:
        """The number of steps after which the initial state is forgotten; the default time grid resolves it."""
        return 1.0

    @property
    def start_draws(self) -> tuple[Draws, ...]:
        """The random draws of the start."""
        return ()

    @property
    def starts_from_law(self) -> bool:
        """Whether `start` is plain arithmetic on x0, so that x0 may be a law and need not be a given point."""
        return True

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        """The numbers that the start reads in addition to x0 and its draws; they are part of the experiment's identity."""
        return ()

    def memory(self, steps: int) -> np.ndarray | None:
        """Return c_k, k = 0 ... steps, such that x_k - c_k m_k moves like SGD without momentum on the averaged schedule.

        The default is None, for dynamics without such a sequence.
        """
        return None

    def fading(self, steps: int) -> np.ndarray | None:
        """Return the factor by which step k damps the earlier content of the momentum buffer; None where `memory` is None."""
        return None


def that_of(path: str, name: str = "") -> property:
    """Return a property of `Moving` that forwards to the attribute `path` of a part, with the documentation of the property `name`."""
    return property(attrgetter(path), doc=getattr(Moving, name or path.rpartition(".")[2]).__doc__)


class BoundOracle:
    """A noisy gradient on the draws `z` of one step, as a rule calls it.

    `extra` contains the rows of the method's own draws.
    """

    __slots__ = ("extra", "oracle", "p", "z")

    def __init__(self, oracle: NoisyOracle, z: Any, p: Any = None) -> None:
        n = oracle.noise.n_draws
        self.oracle, self.z, self.p, self.extra = oracle, z[:n], p, z[n:]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.oracle(x, self.z, self.p)


class Dynamics(Moving):
    """A one-step rule on noisy gradients, with its oracle, its plan and its clock.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of learning rates and momentum coefficients.
        momentum: The initial value of the parts after `x`: None for zero, a vector `(dim,)`, or a pair (mean, covariance) of a normal law.
        step_time: The time of one step; by default the plan's base rate eta, so that t = k eta.

    Attributes:
        parts: The names of the parts of the state.
        coefficients: The names of the rule's coefficients.
        at_x0: The parts that start at x0, in addition to `x`.
        extra_draws: Random draws of the method, in addition to those of the oracle.

    Raises:
        ValueError: If the arguments are invalid or do not fit together.
        TypeError: If the class defines no `rule`.
    """

    parts: tuple[str, ...] = ("x",)
    coefficients: tuple[str, ...] = ("eta",)
    at_x0: tuple[str, ...] = ()
    extra_draws: tuple[Draws, ...] = ()
    formula: str = ""

    dim, loss, parameters = that_of("oracle.dim"), that_of("oracle.loss"), that_of("oracle.parameters")
    longest_memory = that_of("plan.longest_memory")

    def __init__(self, oracle: NoisyOracle, plan: Plan, momentum: Any = None, step_time: float | None = None) -> None:
        self.oracle, self.plan = check_oracle(oracle), check_plan(plan)
        self.step_time = plan.eta if step_time is None else _check.positive("step_time", step_time)
        self.momentum_mean, self.momentum_root = _initial(momentum, oracle.dim, self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.oracle.loss.names)

    @property
    def draws(self) -> tuple[Draws, ...]:
        return (*self.oracle.draws, *self.extra_draws)

    @property
    def brownian(self) -> int:
        noise = self.oracle.noise
        return noise.n_draws if noise.gaussian and not self.extra_draws and all(isinstance(d, Normal) for d in noise.draws) else 0

    @property
    def sampled(self) -> bool:
        return self.oracle.noise.centred is not None

    def bind(self, z: Any, p: Any = None) -> BoundOracle:
        """Return the noisy gradient on the draws `z` of one step with the numbers `p` (default: `parameters`)."""
        return BoundOracle(self.oracle, z, p)

    @property
    def start_draws(self) -> tuple[Draws, ...]:
        """The normal draws of a random initial momentum."""
        return () if self.momentum_root is None else (Normal(self.momentum_root.shape[1]),)

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        """The mean of the initial momentum and, where it is random, the square root of its covariance."""
        return (self.momentum_mean,) if self.momentum_root is None else (self.momentum_mean, self.momentum_root)

    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        momentum = self.momentum_mean
        if self.momentum_root is not None and z is not None:
            momentum = spread(momentum, z) + self.momentum_root @ z
        x = numeric(x0)
        return (x, *(x if part in self.at_x0 else momentum for part in self.parts[1:]))

    def coefficient_values(self, steps: int) -> np.ndarray:
        """Return eta_k and beta_k from the plan and the object's own numbers, shape `(steps, len(coefficients))`."""
        series = {"eta": self.plan.etas, "beta": self.plan.betas}
        unknown = [c for c in self.coefficients if c not in series and not isinstance(getattr(self, c, None), float)]
        if unknown:
            raise ValueError(
                f"`coefficients` of {self.name} must be eta, beta or float attributes, or `coefficient_values` must be overridden; "
                f"got {', '.join(unknown)}."
            )
        columns = [series[c](steps) if c in series else np.full(steps, getattr(self, c)) for c in self.coefficients]
        return np.column_stack(columns) if columns else np.empty((steps, 0))

    @property
    def identity(self) -> str:
        return f"{function_identity(self.rule)} {self.oracle.loss.identity} {self.oracle.noise.identity}"

    def __repr__(self) -> str:
        return f"{self.name}({self.oracle!r}, {self.plan!r})"


def check_oracle(oracle: Any) -> NoisyOracle:
    """Return `oracle` if it is a `NoisyOracle`; raise ValueError otherwise."""
    if not isinstance(oracle, NoisyOracle):
        raise ValueError(f"`oracle` must be a NoisyOracle; got {oracle!r}. Make one with st.NoisyOracle(loss, noise, sigma=...).")
    return oracle


def check_plan(plan: Any) -> Plan:
    """Return `plan` if it is a `Plan`; raise ValueError otherwise."""
    if not isinstance(plan, Plan):
        raise ValueError(f"`plan` must be a schedule; got {plan!r}. Make one with st.schedules.constant(eta=..., beta=...).")
    return plan


def without_momentum(plan: Plan, name: str, own: str) -> Plan:
    """Return `plan` if it has no momentum; raise ValueError otherwise. `own` names what sets the memory of the rule `name`."""
    if isinstance(plan, Plan) and plan.has_momentum:
        raise ValueError(
            f"`plan` of {name} must be without momentum; got one with beta > 0. Its memory is set by {own}: use a plan with beta = 0."
        )
    return plan


def columns(first: np.ndarray, *others: Any) -> np.ndarray:
    """Return coefficients, one row per step, from a series and further series or numbers."""
    return np.column_stack([first, *(np.broadcast_to(values, first.shape) for values in others)])


def _initial(momentum: Any, dim: int, parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean of the initial momentum and the square root of its covariance."""
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
