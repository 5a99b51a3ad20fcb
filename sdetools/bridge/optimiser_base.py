"""What the momentum family shares in torch: groups, weight decay, states of other methods, and the walk over tensors.

Tensors are updated a few at a time, so that they stay in the cache between the passes of a rule, or (`foreach=True`, the default on a
GPU) all together by torch's multi-tensor kernels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch

from sdetools import _check
from sdetools.bridge.conversion import NEUTRAL, taken_over

Tensors = list[torch.Tensor]
CACHED = 1 << 19
"""Bytes of parameters that are updated together on a CPU."""
OWN = __name__, f"{__package__}.torch_optimisers"
"""The files of the family: its methods go by their bare names."""


class Optimizer(torch.optim.Optimizer):
    """What the family shares: groups, weight decay, and the walk over tensors. A method of one's own is `buffers` and `update`.

    `weight_decay` adds weight_decay p to the gradient; with `decoupled=True` parameters are multiplied by 1 - lr weight_decay instead,
    and the filter does not see it. `foreach`: whether all tensors of a group go together; None: on a GPU. `maximize` turns the sign of
    the gradient. Every number may differ between parameter groups. A group's "method" says whose numbers it holds.

    `load_state_dict` takes what this method, another of the family or `torch.optim.SGD` left, if this one can go on with its steps: learning
    rates, numbers and buffers are translated (`bridge.conversion`), what an older dictionary does not tell is filled with defaults; one
    without a name is taken for this method's own. ValueError where no numbers give the same steps.

    Raises `ValueError` for numbers out of range, complex parameters and sparse gradients.
    """

    buffers: ClassVar[tuple[str, ...]] = ()
    """Names of a parameter's tensors, zero at first."""
    one_pass: ClassVar[bool] = False
    """Whether a rule reads its tensors once only, so that a cache cannot help it."""

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        *,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        common = {"weight_decay": weight_decay, "decoupled": decoupled, "foreach": foreach, "maximize": maximize}
        super().__init__(params, {"method": self.method} | defaults | common)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, with the numbers of the group checked."""
        self.checked(self.defaults | param_group)
        super().add_param_group(param_group)
        self.param_groups[-1]["method"] = self.method
        for p in self.param_groups[-1]["params"]:
            if p.is_complex():
                raise ValueError(
                    f"parameters of {type(self).__name__} must be real; got one of type {p.dtype}. Pass torch.view_as_real of it."
                )

    @property
    def method(self) -> str:
        """The name of what takes the steps: the class, or the one above it that says how."""
        rule = ("update", "prepare", "step", "_gradients")
        cls = next(c for c in type(self).__mro__ if c is Optimizer or any(_defines(c, name) for name in rule))
        return cls.__name__ if cls.__module__ in OWN else f"{cls.__module__}.{cls.__qualname__}"

    def checked(self, settings: dict[str, Any]) -> None:
        """Refuse numbers of a group that are out of range."""
        for name in ("lr", "weight_decay"):
            if _check.number(name, settings[name]) < 0:
                raise ValueError(f"`{name}` must be at least 0; got {name}={settings[name]!r}.")
        if "momentum" in self.defaults:
            _check.momentum("momentum", settings["momentum"])
        self.check(settings)

    def check(self, settings: dict[str, Any]) -> None:
        """Refuse numbers of a group that the method cannot use."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where another one was: with the same steps, or not at all."""
        super().load_state_dict(taken_over(self, self.method, state_dict))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in ({"method": self.method} | NEUTRAL).items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient; with `closure`, which is called first, its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        ready = []
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                ready.append((group, params, self._gradients(group, params)))
        self.prepare([g for _, _, grads in ready for g in grads])
        for group, params, grads in ready:
            states = [self._state(p) for p in params]
            together = group["foreach"]
            if together is None:
                together = all(p.is_cuda for p in params)
            for part in [slice(None)] if together or self.one_pass else _few_at_a_time(params):
                self.update(params[part], grads[part], states[part], group)
        return loss

    def prepare(self, grads: Tensors) -> None:
        """What a step needs of all gradients together, before any of the updates."""

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        """Move `params` in place by gradients that must stay as they are; `states` hold the buffers."""
        raise NotImplementedError

    def _gradients(self, group: dict[str, Any], params: Tensors) -> Tensors:
        """Gradients with the sign and the decay of the group; a decoupled decay is carried out."""
        grads = [p.grad for p in params if p.grad is not None]
        for g in grads:
            if g.is_sparse:
                raise ValueError(f"gradients of {type(self).__name__} must be dense; got a sparse one. Use sparse=False.")
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        decay = group["weight_decay"]
        if decay == 0:
            return grads
        if group["decoupled"]:
            torch._foreach_mul_(params, 1 - float(group["lr"]) * decay)
            return grads
        return list(torch._foreach_add(grads, params, alpha=decay))

    def _state(self, p: torch.Tensor) -> dict[str, Any]:
        state = self.state[p]
        if self.buffers and self.buffers[0] not in state:
            for name in self.buffers:
                state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        return state


def _defines(cls: type, name: str) -> bool:
    """Whether a class says anew how a step is taken; torch puts a wrapped `step` into every class."""
    return name in vars(cls) and inspect.unwrap(vars(cls)[name]) is not inspect.unwrap(vars(Optimizer)[name])


def _few_at_a_time(params: Tensors) -> Iterator[slice]:
    """Slices of neighbours that fit into a cache together."""
    first, held = 0, 0
    for i, p in enumerate(params):
        size = p.numel() * p.element_size()
        if i > first and held + size > CACHED:
            yield slice(first, i)
            first, held = i, 0
        held += size
    yield slice(first, len(params))
