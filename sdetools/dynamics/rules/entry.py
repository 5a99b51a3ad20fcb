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
    """One line of the table of optimisers: valid and invalid arguments for the tests, the features that it supports, and its source.

    Attributes:
        make: The class of the optimiser.
        reference: The source of the method, for the table.
        schedule: The plan that it uses: "eta, beta", "eta" for a plan without momentum, or "" if its rates are separate arguments.
        valid: Mappings of keyword arguments besides the oracle and the plan, at least one: `make(oracle, plan, **mapping)` is accepted.
        refused: Pairs of a mapping of keyword arguments that raise ValueError and a part of its message. The class `Plan` itself as the value
            of an argument stands for a plan with momentum (see `build`).
        exact: Whether moments on quadratic losses are exact, because a step is linear in state and gradients and has no extra draws.
        gain: Whether a plain SGD at some learning rate is equivalent, so that there is a plan of the SGD to compare with: `averaged()` of the
            method or, where it has none (SGD, SGDM), of its plan.
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
        """The name of the class `make`, such as "SGDM"."""
        return self.make.__name__

    def build(self, oracle: NoisyOracle, plan: Plan, arguments: Mapping[str, Any]) -> Dynamics:
        """Return an instance of the class `make` with the given arguments.

        Args:
            oracle: The noisy gradient oracle.
            plan: A plan with momentum. For `schedule` "eta" its momenta are set to 0, for "" no plan is passed. A plan in `arguments` takes its place.
            arguments: An element of `valid`, or the arguments in an element of `refused`. A value that is the class `Plan` is replaced by `plan`.

        Raises:
            ValueError: If the class refuses the arguments.
        """
        given: dict[str, Any] = {name: plan if value is Plan else value for name, value in arguments.items()}
        if self.schedule:
            given.setdefault("plan", plan if "beta" in self.schedule else Plan(plan.eta_values, 0.0, plan.eta))
        return self.make(oracle, **given)
