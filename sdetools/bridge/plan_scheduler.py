"""A schedule of sdetools as a scheduler of torch."""

from __future__ import annotations

from typing import Any

import torch

from sdetools import _check
from sdetools.dynamics.base import check_plan


class PlanScheduler:
    """Scheduler that sets every group to a plan of `sdetools.schedules`: `lr` to eta_k and `momentum` to beta_k for step k = 0, 1, ...

    The constructor sets the values of step 0. Call `step()` once after every step of the optimiser, as with torch's schedulers.

    Args:
        optimizer: Any torch optimiser.
        plan: A schedule of sdetools, such as `st.schedules.constant(0.1, 0.9)`. A finite one is constant after its last step.

    Attributes:
        done: The number of steps done.

    Raises:
        ValueError: If `optimizer` is no torch optimiser or `plan` no schedule. Also if the plan has momentum and a group of the optimiser has not (by
            Theorem 3.5, plain SGD takes `plan.averaged()`), or if the groups have different learning rates, which the plan would overwrite.

    Example:
        >>> import sdetools as st
        >>> import torch
        >>> from sdetools.bridge import PlanScheduler, SGDM
        >>> optimizer = SGDM([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = PlanScheduler(optimizer, st.schedules.from_arrays([0.2, 0.1], 0.5))
        >>> scheduler.step(); optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]
        (0.1, 0.5)
    """

    def __init__(self, optimizer: torch.optim.Optimizer, plan: Any) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError(f"`optimizer` must be an optimiser of torch; got {_check.shown(optimizer)}.")
        check_plan(plan)
        groups = optimizer.param_groups
        if plan.has_momentum and not all("momentum" in group for group in groups):
            raise ValueError(
                f"`plan` must be without momentum for {type(optimizer).__name__}; got one with beta > 0. Pass plan.averaged()."
            )
        rates = list(dict.fromkeys(f"{float(group['lr'])!r}" for group in groups))
        if len(rates) > 1:
            raise ValueError(
                f"`optimizer` must have one lr in all groups, because a plan sets it; got {', '.join(rates)}. Set each group's from "
                "plan.eta_values yourself."
            )
        self.optimizer, self.plan, self.done = optimizer, plan, 0
        self._set()

    def step(self) -> None:
        """Count one step as done, and set the learning rate and momentum of the next one in all groups of the optimiser."""
        self.done += 1
        self._set()

    def state_dict(self) -> dict[str, int]:
        """Return the state {"done": number of steps done}, for a checkpoint."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the number of steps done from `state["done"]`, and set the learning rate and momentum of the next step."""
        self.done = int(state["done"])
        self._set()

    def _set(self) -> None:
        """Set `lr` of every group to eta_k and `momentum`, where a group has it, to beta_k, with k the number of steps done."""
        k = [min(self.done, len(values) - 1) for values in (self.plan.eta_values, self.plan.beta_values)]
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.plan.eta_values[k[0]])
            if "momentum" in group:
                group["momentum"] = float(self.plan.beta_values[k[1]])
