"""Base class of the momentum family in torch: parameter groups, weight decay, state dictionaries and the loop over tensors.

On a CPU, tensors are updated in slices (runs of consecutive tensors) that fit into the cache, so that they stay there between the passes of an
update rule. With `foreach=True`, the default on a GPU, torch's multi-tensor kernels update all tensors of a parameter group at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch

from sdetools import _check
from sdetools.bridge.conversion import NEUTRAL, translated_state

Tensors = list[torch.Tensor]
CACHE_BYTES = 1 << 19
"""Bytes of parameters that are updated at once on a CPU."""
FAMILY_MODULES = (
    __name__,
    *(f"{__package__}.torch_{name}" for name in ("optimisers", "general_momentum", "sign_descent")),
)
"""The modules of the family: state dictionaries name its methods without the module."""


class Optimizer(torch.optim.Optimizer):
    """Base class of the momentum family; a new method defines `update`, and passes its hyperparameters to the constructor of this class.

    If it stores tensors, it names them in the class attribute `buffers`; each has the shape of its parameter and is 0 at first. It may also define `check`,
    which validates its own hyperparameters, and `prepare`, which is called once per step before all updates. Every hyperparameter may differ between
    parameter groups. The entry "method" of a group names the method that its numbers belong to.

    `load_state_dict` accepts the state of this method, of another one of the family or of `torch.optim.SGD`, provided that this method can take
    the same steps. Learning rates, hyperparameters and buffers are translated (`bridge.conversion`). Entries missing from an older dictionary
    get their defaults. If its groups do not name their method, it is recognised by their hyperparameters; this method has precedence.

    Args:
        params: The parameters, an iterable of tensors, or parameter groups, dicts with "params" and any hyperparameters of their own, as in torch.
        defaults: Hyperparameters of the method and their default values; "lr" is required, and "momentum" is validated if present.
        weight_decay: Coefficient of the L2 penalty, at least 0; weight_decay p is added to the gradient of a parameter p.
        decoupled: Multiply parameters by 1 - lr weight_decay instead, so that the decay does not enter the momentum buffer.
        foreach: Update all tensors of a group at once; None means on a GPU only.
        maximize: Ascend instead of descend.

    Raises:
        ValueError: If a number is out of range or a parameter complex; in a step, if a gradient is sparse.

    Example:
        >>> import torch; from sdetools.bridge import Optimizer
        >>> class SignDescent(Optimizer):
        ...     def __init__(self, params, lr, **options):
        ...         super().__init__(params, {"lr": lr}, **options)
        ...     def update(self, params, grads, states, group):
        ...         for p, g in zip(params, grads):
        ...             p -= group["lr"] * g.sign()
        >>> p = torch.nn.Parameter(torch.tensor([1.0])); p.grad = torch.tensor([3.0])
        >>> SignDescent([p], lr=0.25).step(); p.data
        tensor([0.7500])
    """

    buffers: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors that are stored per parameter, initially zero."""
    one_pass: ClassVar[bool] = False
    """Whether a rule reads its tensors only once, so that slices for the cache do not pay."""

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
        if isinstance(params, str) or not isinstance(params, Iterable):
            raise ValueError(
                f"`params` must be the parameters of a network; got {_check.shown(params)}. Pass model.parameters()."
            )
        super().__init__(params, {"method": self.method} | defaults | common)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Validate a parameter group and add it, as in torch.

        Args:
            param_group: A dict with "params" and any hyperparameters that differ from the defaults.

        Raises:
            ValueError: If a hyperparameter is out of range or a parameter is complex.
        """
        self.checked(self.defaults | param_group)
        super().add_param_group(param_group)
        self.param_groups[-1]["method"] = self.method
        for p in self.param_groups[-1]["params"]:
            if p.is_complex():
                raise ValueError(
                    f"parameters of {type(self).__name__} must be real; got one of type {p.dtype}. Pass torch.view_as_real(p)."
                )

    @property
    def method(self) -> str:
        """The name of the method: that of the most derived class that defines how a step is taken.

        A class of this family gives its own name, such as "SGDM"; any other class its module and name, such as "package.module.MySGD".
        """
        rule = ("update", "prepare", "step", "_gradients")
        cls = next(c for c in type(self).__mro__ if c is Optimizer or any(_defines(c, name) for name in rule))
        return cls.__name__ if cls.__module__ in FAMILY_MODULES else f"{cls.__module__}.{cls.__qualname__}"

    def checked(self, settings: dict[str, Any]) -> None:
        """Validate all hyperparameters of a parameter group.

        Args:
            settings: The hyperparameters of the group by name, such as {"lr": 0.1, "momentum": 0.9}, defaults included.

        Raises:
            ValueError: If `lr` or `weight_decay` is negative, `momentum` is not in [0, 1), or a number of the method (see `check`) is out of
                range.
        """
        for name in ("lr", "weight_decay"):
            if _check.number(name, settings[name]) < 0:
                raise ValueError(f"`{name}` must be at least 0; got {name}={settings[name]!r}.")
        if "momentum" in self.defaults:
            _check.momentum("momentum", settings["momentum"])
        self.check(settings)

    def check(self, settings: dict[str, Any]) -> None:
        """Validate the hyperparameters that only this method has; an override raises a ValueError. The base class has none and does nothing.

        Args:
            settings: All hyperparameters of a parameter group by name, defaults included.
        """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Replace buffers and hyperparameters by those of a state dictionary, translated if another method saved it.

        Afterwards this optimiser has its own method and parameters, the saved (translated) learning rates, hyperparameters and buffers, and zero
        buffers where none are saved: it takes the next steps of the saved one. If an error is raised, it is unchanged. `state_dict` is not changed;
        as in torch, buffers that need no translation are not copied but shared with it.

        Args:
            state_dict: The state of this method, of another one of the family or of `torch.optim.SGD`.

        Raises:
            ValueError: If this method cannot take the steps of the saved one, the numbers of groups or parameters differ, a buffer is missing
                or has another shape than its parameter, or a hyperparameter is out of range.
        """
        super().load_state_dict(translated_state(self, self.method, state_dict))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in ({"method": self.method} | NEUTRAL).items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; parameters without one are skipped.

        Args:
            closure: A function without arguments that computes the gradients and returns the loss; it is called before the update. None if the
                gradients are already computed.

        Returns:
            The result of `closure`, or None without one.

        Raises:
            ValueError: If a gradient is sparse.
        """
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
            at_once = group["foreach"]
            if at_once is None:
                at_once = all(p.is_cuda for p in params)
            for part in [slice(None)] if at_once or self.one_pass else _cache_sized_slices(params):
                self.update(params[part], grads[part], states[part], group)
        return loss

    def prepare(self, grads: Tensors) -> None:
        """Compute what a step needs from all gradients, such as their norm, before the first call of `update`. The base class does nothing.

        Args:
            grads: The gradients of all parameters that have one, in all groups, with the sign of `maximize` and the weight decay applied.
        """

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        """Take one step with some parameters of one group: change `params` and their buffers in place. Every method defines this.

        Args:
            params: Some parameter tensors of the group.
            grads: Their gradients in the same order, with the sign of `maximize` and the weight decay applied; they must not be modified.
            states: For each parameter a dict of its buffers by name, as listed in `buffers`.
            group: The hyperparameters of the group by name, such as "lr" and "momentum".
        """
        raise NotImplementedError

    def _gradients(self, group: dict[str, Any], params: Tensors) -> Tensors:
        """Return the gradients of `params`, one tensor each, with the sign of `maximize` and the weight decay of `group` applied.

        A decoupled decay is applied to `params` in place instead. ValueError for a sparse gradient.
        """
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
        """Return the state of the parameter `p`: a dict with its buffers by name, which are created with zeros at the first call."""
        state = self.state[p]
        if self.buffers and self.buffers[0] not in state:
            for name in self.buffers:
                state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        return state


def column(states: list[dict[str, Any]], name: str) -> list[Any]:
    """Return the buffer called `name` of each parameter, a list of tensors in the order of `states`, which has one dict per parameter."""
    return [state[name] for state in states]


def _defines(cls: type, name: str) -> bool:
    """Return whether the class `cls` itself defines the method `name` of `Optimizer` anew.

    torch puts a wrapped copy of `step` into every class, which does not count.
    """
    return name in vars(cls) and inspect.unwrap(vars(cls)[name]) is not inspect.unwrap(vars(Optimizer)[name])


def _cache_sized_slices(params: Tensors) -> Iterator[slice]:
    """Yield slices of the list `params` that cover it in order, each of at most `CACHE_BYTES` bytes or of a single larger tensor."""
    first, used = 0, 0
    for i, p in enumerate(params):
        size = p.numel() * p.element_size()
        if i > first and used + size > CACHE_BYTES:
            yield slice(first, i)
            first, used = i, 0
        used += size
    yield slice(first, len(params))
