"""An entry of the table of optimisers in `sdetools.dynamics.catalogue`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdetools.dynamics.base import Dynamics
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


@dataclass(frozen=True)
class OptimiserEntry:
    """An optimiser in the table: its valid and invalid arguments, the features it supports, and its source.

    Attributes:
        make: The class.
        reference: The source of the method.
        schedule: The plan that it uses: "eta, beta", "eta" for a plan without momentum, or "" if its rates are separate arguments.
        valid: Sets of valid arguments besides the oracle and the plan, at least one.
        refused: Sets of arguments that raise ValueError, each with a part of the message. The value `Plan` represents a plan with momentum.
        exact: Whether moments on quadratic losses are exact, because a step is linear in state and gradients and has no extra draws.
        gain: Whether an equivalent plain SGD exists, so that `averaged()` is defined.
        torch: Whether `sdetools.bridge` implements it as a `torch.optim.Optimizer`.
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
        """Return the optimiser with the given arguments.

        Args:
            oracle: The noisy gradient oracle.
            plan: A plan with momentum; a method without momentum uses its learning rates only.
            arguments: An element of `valid` or `refused`.
        """
        given: dict[str, Any] = {name: plan if value is Plan else value for name, value in arguments.items()}
        if self.schedule:
            given.setdefault("plan", plan if "beta" in self.schedule else Plan(plan.eta_values, 0.0, plan.eta))
        return self.make(oracle, **given)
