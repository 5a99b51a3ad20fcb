"""Rules that are linear in their state and in their gradients: the learning rate of the SGD that they act like, found from the rule itself."""

from __future__ import annotations

from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from sdetools.dynamics.base import Dynamics
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class LinearFilter(Dynamics):
    r"""A rule that is linear in its state and in its gradients, and that forgets: s_{k+1} = A_k s_k + b_k g_k in each coordinate.

    A constant gradient g moves it, in the end, by - `gain` eta g a step: for small eta it acts as plain SGD at the learning rate
    `gain * eta`. The gain is found from the rule itself. With w A = w, w (1, ...) = 1 for the direction in which all
    positions move together, y_k = w_k . s_k forgets nothing and moves by - etabar_k g_k, with

        w_k = w_{k+1} A_k,        etabar_k = - w_{k+1} . b_k        (Theorem 3.5's averaged schedule for SGDM),

    so that gain = - w . b at eta = 1. One step advances the clock by gain times the plan's base eta unless `step_time` says otherwise:
    time is what SGD in its place would count. Subclasses give a rule that is linear in the coefficient `eta` too.
    """

    mean_draws: ClassVar[tuple[float, ...]] = ()
    """Values of the draws of its own at which the rule is its mean."""

    def __init__(self, oracle: NoisyOracle, plan: Plan, momentum: Any = None, step_time: float | None = None) -> None:
        super().__init__(oracle, plan, momentum=momentum, step_time=step_time)
        if step_time is None:
            self.step_time *= self.gain

    @cached_property
    def gain(self) -> float:
        """The learning rate of the plain SGD that it acts like, over eta, under the plan's last momentum; to 14 digits."""
        row = self._rows()[-1]
        row[self.coefficients.index("eta")] = 1.0
        matrix, answer = self._step(row)
        return float(f"{-_forgets_nothing(matrix) @ answer:.14g}")

    def averaged(self) -> Plan:
        """The plan of the SGD to compare with: etabar_k, no momentum, and the clock of this method as its base.

        ValueError where a schedule moves so fast that a filter with negative weights turns against a gradient: etabar_k < 0.
        """
        rates = self._bridge[1]
        if rates.min() < 0:
            raise ValueError(
                f"`averaged` of {self.name} must have rates >= 0; the gradient of step {int(rates.argmin())} comes out with "
                f"{rates.min():.3g}, for its later weights are negative. Take a schedule that moves more slowly."
            )
        return Plan(rates, np.zeros(1), self.step_time)

    @property
    def longest_memory(self) -> float:
        """In how many steps a start is forgotten: 1 / (1 - |the largest eigenvalue of A but for the 1|), or the plan's if longer."""
        sizes = np.sort(np.abs(np.linalg.eigvals(self._step(self._rows()[-1])[0])))
        return max(self.plan.longest_memory, float(1 / (1 - sizes[-2])))

    def _rows(self) -> np.ndarray:
        """Coefficients in the plan's steps and in one more, which goes on for ever."""
        return np.array(self.coefficient_values(len(self.plan.eta_values) + 1))

    def _step(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(A, b) of a coordinate, from unit states without gradient and a unit gradient without state."""
        n = len(self.parts)
        inputs = np.eye(n + 1)
        after = self.rule(tuple(inputs[1:, None]), _Answer(inputs[:1], self.mean_draws), *row.tolist())
        table = np.concatenate([np.broadcast_to(part, (1, n + 1)) for part in after])
        return table[:, 1:], table[:, 0]

    @cached_property
    def _bridge(self) -> tuple[np.ndarray, np.ndarray]:
        """w_k and etabar_k, up to those that go on for ever."""
        *steps, last = [self._step(row) for row in self._rows()]
        weights, rates = [_forgets_nothing(last[0])], []
        for matrix, answer in reversed(steps):
            rates.append(-weights[-1] @ answer)
            weights.append(weights[-1] @ matrix)
        return np.array(weights[::-1]), np.array(rates[::-1])

    def _held(self, steps: int) -> np.ndarray:
        """c_0 ... c_steps of y_k = x_k - c_k m_k, for a state (x, m)."""
        c = -self._bridge[0][: steps + 1, 1]
        return np.pad(c, (0, steps + 1 - len(c)), mode="edge")


class _Answer(SimpleNamespace):
    """An oracle that always gives `value`, with the extra draws `extra`."""

    def __init__(self, value: np.ndarray, extra: tuple[float, ...]) -> None:
        super().__init__(value=value, extra=extra)

    def __call__(self, x: Any) -> np.ndarray:
        return self.value


def _forgets_nothing(matrix: np.ndarray) -> np.ndarray:
    """w with w A = w and w . e = 1, where A e = e, e_0 = 1 is the motion of all positions together."""
    n = len(matrix)
    still, unit = matrix - np.eye(n), np.eye(n + 1)[-1]
    together = np.linalg.lstsq(np.vstack([still, np.eye(n)[:1]]), unit, rcond=None)[0]
    return np.linalg.lstsq(np.vstack([still.T, together]), unit, rcond=None)[0]
