r"""Sign descent with momentum as `torch.optim.Optimizer`s.

    Signum   m = mu m + (1 - mu) g,  p -= lr (sign(m) + wd p)                                         Bernstein et al. 2018
    Lion     p -= lr (sign(mu m + (1 - mu) g) + wd p),  m = b2 m + (1 - b2) g                         Chen et al. 2023

p is a parameter, g its gradient, mu = `momentum`, wd = `weight_decay`, and sign(0) = 0. As in the references, the decay is decoupled, unless
`decoupled=False` adds wd p to the gradient. The buffer starts at zero.
"""

from __future__ import annotations

from typing import Any

import torch

from sdetools import _check
from sdetools.bridge.optimiser_base import Optimizer, Tensors, column


class Signum(Optimizer):
    """Sign descent with momentum, m = mu m + (1 - mu) g, p -= lr (sign(m) + wd p), mu = `momentum`, wd = `weight_decay`.

    p is a parameter, g its gradient, and m the state "momentum_buffer", 0 at first. mu = 0 is signSGD. A step moves each coordinate by lr, whatever the
    size of the gradients: lr is some hundred times smaller than that of `SGDM`.
    Source: Bernstein et al., signSGD: compressed optimisation for non-convex problems, ICML 2018.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0: the distance by which a coordinate moves in a step without weight decay.
        momentum: mu in [0, 1).
        decoupled: Whether the weight decay multiplies p by 1 - lr wd, as in the reference; otherwise wd p is added to the gradient.
        **options: `weight_decay`, `foreach` and `maximize`, as in `Optimizer`.

    Raises:
        ValueError: If a number lies outside its range, a parameter is complex or, in a step, a gradient is sparse.

    Example:
        >>> import torch
        >>> from sdetools.bridge import Signum
        >>> p = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> p.grad = torch.tensor([0.5, -3.0])
        >>> Signum([p], lr=0.25).step()
        >>> p.data
        tensor([0.7500, 1.2500])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, *, decoupled: bool = True, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, decoupled=decoupled, **options)

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = column(states, "momentum_buffer")
        torch._foreach_lerp_(m, grads, 1 - group["momentum"])
        torch._foreach_add_(params, torch._foreach_sign(m), alpha=-float(group["lr"]))


class Lion(Optimizer):
    """Lion, p -= lr (sign(mu m + (1 - mu) g) + wd p), m = b2 m + (1 - b2) g, mu = `momentum`, wd = `weight_decay`.

    p is a parameter, g its gradient, and m the state "momentum_buffer", 0 at first. The authors' betas are (mu, b2). With mu = b2 the method is `Signum`.
    The authors take lr three to ten times smaller, and wd as many times larger, than for AdamW. Source: Chen et al., Symbolic discovery of optimization
    algorithms, NeurIPS 2023.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0: the distance by which a coordinate moves in a step without weight decay.
        momentum: mu in [0, 1), the weight of the buffer in the step.
        b2: The decay rate of the buffer, in [0, 1).
        decoupled: Whether the weight decay multiplies p by 1 - lr wd, as in the reference; otherwise wd p is added to the gradient.
        **options: `weight_decay`, `foreach` and `maximize`, as in `Optimizer`.

    Raises:
        ValueError: If a number lies outside its range, a parameter is complex or, in a step, a gradient is sparse.

    Example:
        >>> import torch
        >>> from sdetools.bridge import Lion
        >>> p = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> p.grad = torch.tensor([0.5, -3.0])
        >>> Lion([p], lr=0.25, weight_decay=1.0).step()
        >>> p.data  # (1 - 0.25) p - 0.25 sign(g)
        tensor([0.5000, 1.0000])
    """

    buffers = ("momentum_buffer",)

    def __init__(
        self, params: Any, lr: float, momentum: float = 0.9, b2: float = 0.99, *, decoupled: bool = True, **options: Any
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "b2": b2}, decoupled=decoupled, **options)

    def check(self, settings: dict[str, Any]) -> None:
        _check.momentum("b2", settings["b2"])

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = column(states, "momentum_buffer")
        direction = torch._foreach_lerp(m, grads, 1 - group["momentum"])
        torch._foreach_sign_(direction)
        torch._foreach_add_(params, direction, alpha=-float(group["lr"]))
        torch._foreach_lerp_(m, grads, 1 - group["b2"])
