"""What the table of optimisers says of each: see `sdetools.dynamics.catalogue`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdetools.dynamics.base import Dynamics
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


@dataclass(frozen=True)
class OptimiserEntry:
    """An optimiser in the table: the inputs that it takes and refuses, what it supports, and where it comes from.

    Attributes:
        make: The class.
        reference: The source of the method.
        schedule: The plan that it takes: "eta, beta", "eta" for one without momentum, or "" where its rates are arguments of its own.
        valid: Arguments beside the oracle and the plan, at least one set.
        refused: Arguments that raise ValueError, each with a part of the message. The value `Plan` stands for a plan with momentum.
        exact: Whether moments on quadratic losses are exact: whether a step is linear in the state and the gradients and draws no numbers itself.
        gain: Whether a plain SGD stands for it: whether `averaged()` exists.
        torch: Whether `sdetools.bridge` has it as a `torch.optim.Optimizer`.
    """

    make: type[Dynamics]
    reference: str
    schedule: str = "eta, beta"
    valid: tuple[Mapping[str, Any], ...] = ({},)
    refused: tuple[tuple[Mapping[str, Any], str], ...] = ()
    exact: bool = True
    gain: bool = True
    torch: bool = False

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.make.__name__

    def build(self, oracle: NoisyOracle, plan: Plan, arguments: Mapping[str, Any]) -> Dynamics:
        """Returns the optimiser with these arguments, on the part of `plan` that it takes.

        Args:
            oracle: The noisy gradient.
            plan: A plan with momentum; a method without momentum gets its learning rates alone.
            arguments: One of `valid` or of `refused`.
        """
        given: dict[str, Any] = {name: plan if value is Plan else value for name, value in arguments.items()}
        if self.schedule:
            given.setdefault("plan", plan if "beta" in self.schedule else Plan(plan.eta_values, 0.0, plan.eta))
        return self.make(oracle, **given)
