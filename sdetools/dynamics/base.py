"""What moves: a start, a one-step rule and a clock. Optimisers, integrators and processes are all of this kind.

`Moving` is what a simulation asks of anything that moves. `Dynamics` is a rule on noisy gradients: it adds an oracle, a plan and an
initial momentum. An SDE and an integrator make the other kind (`dynamics.integrators`).

For implementers of a new `Dynamics` (a few lines; nothing else of the library is touched):

1. `parts` names the pieces of the state, the position `"x"` first; each is a component-first array of `dim` rows.
2. `coefficients` names the numbers that may change from step to step, eta and beta of the plan among them, and numbers that the object has
   by that name; `coefficient_values(steps)` gives them, one row a step.
3. `rule(state, oracle, *coefficients) -> state` is plain branch-free arithmetic; `oracle(x)` is a noisy gradient at `x`. Every call
   of the oracle within one step sees the same draws (the same minibatch). The same text runs on NumPy arrays (the
   reference) and on values of a graph (traced into a kernel), so no `if` on them (`np.where` chooses) and no change in place.
4. `start(x0, z)` is the state before the first step, `z` the numbers that `start_draws` asks for: the parts in `at_x0` begin at x0, the others
   are the initial momentum. `x0` is a point `(dim,)`, a point of each path `(dim, paths)`, or a traced value; the parts need not agree in this.
5. `step_time` is the time one step advances; only dynamics that meet at common times can be compared.
6. `extra_draws` names draws of the method's own, beside the oracle's; the rule finds their numbers in `oracle.extra`.

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
    """What a simulation asks of anything that moves: `parts`, `coefficients`, a rule, its draws and numbers, a start, a clock.

    `step_time` is the time one step advances; only what meets at common times can be compared. The state is a tuple of parts,
    component-first arrays of `dim` rows, the position first.
    """

    step_time: float

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """The names of the pieces of the state, the position first."""

    @property
    @abstractmethod
    def coefficients(self) -> tuple[str, ...]:
        """The names of the numbers that may change from step to step."""

    @abstractmethod
    def rule(self, state: State, bound: Any, *coefficients: Any) -> State:
        """The state after one step; `bound` is what `bind` returned."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Coordinates of the position."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the coordinates in expressions."""

    @property
    @abstractmethod
    def draws(self) -> tuple[Draws, ...]:
        """What one step consumes."""

    @property
    @abstractmethod
    def parameters(self) -> np.ndarray:
        """The numbers that `bind` reads from `p`."""

    @abstractmethod
    def bind(self, z: Any, p: Any = None) -> Any:
        """What the rule calls in a step with the draws `z`, with the numbers `p` (its own by default)."""

    @abstractmethod
    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        """The state before the first step from `x0`, `(dim,)` or `(dim, paths)`; `z`: the start's draws, `(n,)` or `(n, paths)`, zeros when
        left out."""

    @abstractmethod
    def coefficient_values(self, steps: int) -> np.ndarray:
        """The rule's coefficients in each step, `(steps, len(coefficients))`."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """A short text that, with the numbers, says which experiment this is."""

    @property
    def name(self) -> str:
        """The name of the rule in tables and reports."""
        return type(self).__name__

    @property
    def formula(self) -> str:
        """The rule as LaTeX; empty where none is given."""
        return ""

    @property
    def loss(self) -> Any:
        """The loss that is minimised; None for an SDE without one."""
        return None

    @property
    def brownian(self) -> int:
        """How many of the draws are increments of Brownian motions, which steps of another length can share; 0 if not all are."""
        return 0

    @property
    def sampled(self) -> bool:
        """Whether the noise comes from samples, whose deviation alone would take the full gradient in each step."""
        return False

    @property
    def longest_memory(self) -> float:
        """In how many steps a start is forgotten: what the default grid of recorded times resolves."""
        return 1.0

    @property
    def start_draws(self) -> tuple[Draws, ...]:
        """What the start consumes."""
        return ()

    @property
    def starts_from_law(self) -> bool:
        """Whether `start` is plain arithmetic on x0, so that a law of starts will do; else it takes known points only."""
        return True

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        """The numbers that the start reads beside x0 and its draws: they belong to what says which experiment this is."""
        return ()

    def memory(self, steps: int) -> np.ndarray | None:
        """c_k, k = 0 ... steps, such that x_k - c_k m_k moves as memoryless SGD on the averaged schedule; None where there is no such thing."""
        return None

    def fading(self, steps: int) -> np.ndarray | None:
        """The factor by which step k damps what the momentum held before it, beside `memory`."""
        return None


def that_of(path: str, name: str = "") -> property:
    """A property of `Moving` that is a part's, by its own name there or by `name`."""
    return property(attrgetter(path), doc=getattr(Moving, name or path.rpartition(".")[2]).__doc__)


class BoundOracle:
    """A noisy gradient on the draws `z` of one step: what a rule calls. `extra` holds the rows of the method's own draws."""

    __slots__ = ("extra", "oracle", "p", "z")

    def __init__(self, oracle: NoisyOracle, z: Any, p: Any = None) -> None:
        n = oracle.noise.n_draws
        self.oracle, self.z, self.p, self.extra = oracle, z[:n], p, z[n:]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.oracle(x, self.z, self.p)


class Dynamics(Moving):
    """A one-step rule with its oracle, its plan and its clock (`step_time`, by default the plan's base eta: t = k eta).

    `momentum` starts the parts after `x`: None for zero, a vector, or a pair (mean, covariance) for a Gaussian draw.
    ValueError when the parts do not fit together. TypeError for a class without a `rule`.
    """

    parts: tuple[str, ...] = ("x",)
    coefficients: tuple[str, ...] = ("eta",)
    at_x0: tuple[str, ...] = ()
    """Parts that begin where x does."""
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
        """A noisy gradient on the draws `z` of one step, with the numbers `p` (its own by default)."""
        return BoundOracle(self.oracle, z, p)

    @property
    def start_draws(self) -> tuple[Draws, ...]:
        """Normals for a drawn momentum."""
        return () if self.momentum_root is None else (Normal(self.momentum_root.shape[1]),)

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        """The mean of the initial momentum and, where it is drawn, its root."""
        return (self.momentum_mean,) if self.momentum_root is None else (self.momentum_mean, self.momentum_root)

    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        momentum = self.momentum_mean
        if self.momentum_root is not None and z is not None:
            momentum = spread(momentum, z) + self.momentum_root @ z
        x = numeric(x0)
        return (x, *(x if part in self.at_x0 else momentum for part in self.parts[1:]))

    def coefficient_values(self, steps: int) -> np.ndarray:
        """eta_k and beta_k from the plan, and the object's own numbers, `(steps, len(coefficients))`."""
        series = {"eta": self.plan.etas, "beta": self.plan.betas}
        unknown = [c for c in self.coefficients if c not in series and not isinstance(getattr(self, c, None), float)]
        if unknown:
            raise ValueError(
                f"`coefficients` of {self.name} must be eta, beta or its own floats, or `coefficient_values` must be overridden; "
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
    """`oracle`, if it is one."""
    if not isinstance(oracle, NoisyOracle):
        raise ValueError(f"`oracle` must be a NoisyOracle; got {oracle!r}. Make one with st.NoisyOracle(loss, noise, sigma=...).")
    return oracle


def check_plan(plan: Any) -> Plan:
    """`plan`, if it is a schedule."""
    if not isinstance(plan, Plan):
        raise ValueError(f"`plan` must be a schedule; got {plan!r}. Make one with st.schedules.constant(eta=..., beta=...).")
    return plan


def without_momentum(plan: Plan, name: str, own: str) -> Plan:
    """A plan without momentum, for the rule `name` whose memory is set by `own`; ValueError for another."""
    if isinstance(plan, Plan) and plan.has_momentum:
        raise ValueError(
            f"`plan` of {name} must be without momentum; got one with beta > 0. Its memory is set by {own}: leave beta out of the plan."
        )
    return plan


def columns(first: np.ndarray, *others: Any) -> np.ndarray:
    """Coefficients, one row a step, from series and numbers."""
    return np.column_stack([first, *(np.broadcast_to(values, first.shape) for values in others)])


def _initial(momentum: Any, dim: int, parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean and root of the initial momentum."""
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
