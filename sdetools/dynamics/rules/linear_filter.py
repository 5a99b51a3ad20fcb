"""The base class of rules that are linear in their state and their gradients, with the learning rate of the equivalent SGD."""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from sdetools.dynamics.base import Dynamics
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class LinearFilter(Dynamics):
    """The base class of rules that are linear in state and gradients with a fading memory: s_{k+1} = A_k s_k + b_k g_k in each coordinate.

    Here s_k is the vector of the parts of the state in one coordinate, the position first, g_k the noisy gradient, and A_k `(parts, parts)` and
    b_k `(parts,)` depend on the coefficients of step k. Under a constant gradient g the position finally moves by -`gain` eta g per step. For small
    eta the method therefore behaves like plain SGD at the learning rate `gain * eta`. The gain is computed from the rule. For the constant A beyond
    the schedule, let e be the shift that moves all positions alike, A e = e with e_0 = 1, and w the left eigenvector w A = w with w . e = 1. Then
    y_k = w_k . s_k is constant without gradients, and moves by -etabar_k g_k with them, where w_k = w beyond the schedule, and backwards from there

        w_k = w_{k+1} A_k,        etabar_k = - w_{k+1} . b_k        (Theorem 3.5's averaged schedule for SGDM),

    so that gain = - w . b at eta = 1. By default one step advances the clock by gain times the plan's base rate, which is the time that
    the equivalent SGD counts. A subclass writes `parts`, `coefficients` and a `rule` that is also linear in the coefficient "eta"; it may override
    `coefficient_values` for coefficients of its own, which are constant beyond the plan.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k and beta_k.
        momentum: The initial momentum: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default gain times the plan's base rate `plan.eta`.

    Attributes:
        mean_draws: A value for each of the method's own draws (`extra_draws`) at which the rule equals its mean over them; empty without any.

    Raises:
        ValueError: If an argument is invalid.
    """

    mean_draws: ClassVar[tuple[float, ...]] = ()

    def __init__(self, oracle: NoisyOracle, plan: Plan, momentum: Any = None, step_time: float | None = None) -> None:
        super().__init__(oracle, plan, momentum=momentum, step_time=step_time)
        if step_time is None:
            self.step_time *= self.gain

    @cached_property
    def gain(self) -> float:
        """The learning rate of the equivalent plain SGD divided by eta, rounded to 14 digits.

        If the coefficients change from step to step, it is the gain of the last ones, which are constant from then on.
        """
        row = self._rows()[-1]
        row[self.coefficients.index("eta")] = 1.0
        matrix, answer = self._step(row)
        return float(f"{-_conserved_form(matrix) @ answer:.14g}")

    def averaged(self) -> Plan:
        """Return the plan of the SGD to compare with: learning rates etabar_k, no momentum, and this method's `step_time` as base rate.

        etabar_k = -w_{k+1} . b_k is the total weight with which the gradient of step k finally moves the position, `gain * eta` if the coefficients
        are constant.

        Raises:
            ValueError: If some etabar_k is negative. This happens for filters with negative weights under rapidly changing schedules.
        """
        rates = self._bridge[1]
        if rates.min() < 0:
            raise ValueError(
                f"`averaged` of {self.name} must have rates >= 0; the rate of step {int(rates.argmin())} is {rates.min():.3g}, "
                "because the later weights of its gradient are negative. Use a schedule that changes more slowly."
            )
        return Plan(rates, np.zeros(1), self.step_time)

    @property
    def longest_memory(self) -> float:
        """The memory in steps: 1 / (1 - |z|) for the eigenvalue z of A of second largest size, or the plan's longest memory if that is longer.

        A is the matrix of a step with the last coefficients; its largest eigenvalue is 1.
        """
        sizes = np.sort(np.abs(np.linalg.eigvals(self._step(self._rows()[-1])[0])))
        return max(self.plan.longest_memory, float(1 / (1 - sizes[-2])))

    def _rows(self) -> np.ndarray:
        """Return the coefficients, `(K + 1, len(coefficients))`, for the K steps of the plan and one more, beyond which they are constant."""
        return np.array(self.coefficient_values(len(self.plan.eta_values) + 1))

    def _step(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (A, b), arrays `(parts, parts)` and `(parts,)`, for one `row` of `coefficient_values`: the answer to unit states and a unit gradient."""
        n = len(self.parts)
        inputs = np.eye(n + 1)
        after = self.rule(tuple(inputs[1:, None]), _ConstantOracle(inputs[:1], self.mean_draws), *row.tolist())
        table = np.concatenate([np.broadcast_to(part, (1, n + 1)) for part in after])
        return table[:, 1:], table[:, 0]

    @cached_property
    def _bridge(self) -> tuple[np.ndarray, np.ndarray]:
        """The sequences w_k, `(K + 1, parts)`, and etabar_k, `(K,)`, for the K steps of the plan; beyond them they are constant."""
        *steps, last = [self._step(row) for row in self._rows()]
        weights, rates = [_conserved_form(last[0])], []
        for matrix, answer in reversed(steps):
            rates.append(-weights[-1] @ answer)
            weights.append(weights[-1] @ matrix)
        return np.array(weights[::-1]), np.array(rates[::-1])

    def _memory_coefficients(self, steps: int) -> np.ndarray:
        """Return c_0, ..., c_steps of y_k = x_k - c_k m_k, `(steps + 1,)`, for a rule with the parts x and m; see `Dynamics.memory`."""
        c = -self._bridge[0][: steps + 1, 1]
        return np.pad(c, (0, steps + 1 - len(c)), mode="edge")


class _ConstantOracle(SimpleNamespace):
    """An oracle that returns `value` at every point, an array, and has the values `extra` for the method's own draws."""

    def __init__(self, value: np.ndarray, extra: tuple[float, ...]) -> None:
        super().__init__(value=value, extra=extra)

    def __call__(self, x: Any) -> np.ndarray:
        return self.value


def _conserved_form(matrix: np.ndarray) -> np.ndarray:
    """Return w, `(n,)`, with w A = w and w . e = 1 for A = `matrix`, where A e = e, e_0 = 1 is the common motion of all positions."""
    n = len(matrix)
    deviation, unit = matrix - np.eye(n), np.eye(n + 1)[-1]
    common = np.linalg.lstsq(np.vstack([deviation, np.eye(n)[:1]]), unit, rcond=None)[0]
    return np.linalg.lstsq(np.vstack([deviation.T, common]), unit, rcond=None)[0]
