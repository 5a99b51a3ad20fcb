r"""The momentum family as `torch.optim.Optimizer`s; each implements the update rule of the same name in `sdetools.dynamics`.

    SGD            p -= lr g
    SGDM           m = mu m + (1 - mu) g,  p -= lr m                                 Def. 2.3, the EMA form
    HeavyBall      m = mu m + g,  p -= lr m                                          Eq. (1), torch's own form of momentum
    Nesterov       v = mu v + g,  p -= lr (g + mu v)                                 torch's form too
    QHM            m = mu m + (1 - mu) g,  p -= lr ((1 - nu) g + nu m)
    PNM            m_t = mu^2 m_{t-2} + (1 - mu^2) g,  p -= lr ((1 + b0) m_t - b0 m_{t-1}) / norm
    SNGM           m = mu m + g / |g|,  p -= lr m,  |g| over all parameters
    RandomScaling  m as in SGDM,  p -= s lr m,  s ~ Exp(1), one draw per step
    SGDF           p -= lr (mh + K (g - mh)),  K a Wiener gain

Here p is a parameter, g its gradient and mu = `momentum`. Every class takes `params` (parameters or groups), the learning rate `lr` and the keyword
options of `Optimizer`: `weight_decay`, `decoupled`, `foreach` and `maximize`. All buffers start at zero, as in the paper. torch's own SGD starts its buffer
at the first gradient. This changes the first step with `dampening` and nothing without. Argument names are torch's; the update rules cite the sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from sdetools import _check
from sdetools.bridge.conversion import convert
from sdetools.bridge.optimiser_base import Optimizer, Tensors, column


class SGD(Optimizer):
    """Stochastic gradient descent, p -= lr g, with parameter p and its gradient g; it has no buffer. As a rule for simulations: `sdetools.SGD`.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0.
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize` of `Optimizer`. Numbers out of range raise a ValueError, as there.

    Example:
        >>> import torch; from sdetools.bridge import SGD
        >>> p = torch.nn.Parameter(torch.tensor([1.0])); p.grad = torch.tensor([0.5])
        >>> SGD([p], lr=0.5).step(); p.data
        tensor([0.7500])
    """

    one_pass = True

    def __init__(self, params: Any, lr: float, **options: Any) -> None:
        super().__init__(params, {"lr": lr}, **options)

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        torch._foreach_add_(params, grads, alpha=-float(group["lr"]))


class SGDM(Optimizer):
    """SGD with momentum in the EMA form (Def. 2.3), m = mu m + (1 - mu) g, p -= lr m; as a rule for simulations: `sdetools.SGDM`.

    p is a parameter, g its gradient, mu = `momentum`, and m the state "momentum_buffer", 0 at first. `HeavyBall` with lr (1 - mu) takes the same steps.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0; it is the effective one, at which plain SGD would replace the method.
        momentum: mu in [0, 1).
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize` of `Optimizer`. Numbers out of range raise a ValueError, as there.

    Example:
        >>> import torch; from sdetools.bridge import SGDM
        >>> p = torch.nn.Parameter(torch.tensor([1.0])); p.grad = torch.tensor([0.5])
        >>> SGDM([p], lr=0.5, momentum=0.5).step(); p.data
        tensor([0.8750])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, **options)

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = column(states, "momentum_buffer")
        torch._foreach_lerp_(m, grads, 1 - group["momentum"])
        torch._foreach_add_(params, m, alpha=-float(group["lr"]))


class HeavyBall(Optimizer):
    """Heavy-ball momentum (Eq. (1)), m = mu m + g, p -= lr m, as `torch.optim.SGD(momentum=mu)`; as a rule for simulations: `sdetools.HeavyBall`.

    p is a parameter, g its gradient, mu = `momentum`, and m the state "momentum_buffer", 0 at first. The effective learning rate is lr / (1 - mu).

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0.
        momentum: mu in [0, 1).
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize` of `Optimizer`. Numbers out of range raise a ValueError, as there.

    Example:
        >>> import torch; from sdetools.bridge import HeavyBall
        >>> p = torch.nn.Parameter(torch.tensor([1.0])); p.grad = torch.tensor([0.5])
        >>> HeavyBall([p], lr=0.5, momentum=0.5).step(); p.data
        tensor([0.7500])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, **options)

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = column(states, "momentum_buffer")
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, grads)
        torch._foreach_add_(params, m, alpha=-float(group["lr"]))


class Nesterov(Optimizer):
    """Nesterov momentum, v = mu v + g, p -= lr (g + mu v), as `torch.optim.SGD(momentum=mu, nesterov=True)`; as a rule: `sdetools.Nesterov`.

    p is a parameter, g its gradient, mu = `momentum`, and v the state "momentum_buffer", 0 at first. The effective learning rate is lr / (1 - mu).

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0.
        momentum: mu in [0, 1).
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize` of `Optimizer`. Numbers out of range raise a ValueError, as there.

    Example:
        >>> import torch; from sdetools.bridge import Nesterov
        >>> p = torch.nn.Parameter(torch.tensor([1.0])); p.grad = torch.tensor([0.5])
        >>> Nesterov([p], lr=0.5, momentum=0.5).step(); p.data
        tensor([0.6250])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, **options)

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        v, lr, mu = column(states, "momentum_buffer"), float(group["lr"]), group["momentum"]
        torch._foreach_mul_(v, mu)
        torch._foreach_add_(v, grads)
        torch._foreach_add_(params, grads, alpha=-lr)
        torch._foreach_add_(params, v, alpha=-lr * mu)


class QHM(Optimizer):
    """Quasi-hyperbolic momentum, m = mu m + (1 - mu) g, p -= lr ((1 - nu) g + nu m); as a rule for simulations: `sdetools.QHM`.

    p is a parameter, g its gradient, mu = `momentum`, and m the state "momentum_buffer", 0 at first.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0; it is the effective one.
        momentum: mu in [0, 1).
        nu: The weight of the momentum in the step, any finite number: 0 is `SGD`, 1 is `SGDM`.
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize` of `Optimizer`. Numbers out of range raise a ValueError, as there.

    Example:
        >>> import torch; from sdetools.bridge import QHM
        >>> p = torch.nn.Parameter(torch.tensor([1.0])); p.grad = torch.tensor([0.5])
        >>> QHM([p], lr=0.5, momentum=0.5, nu=0.5).step(); p.data
        tensor([0.8125])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.999, nu: float = 0.7, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nu": nu}, **options)

    def check(self, settings: dict[str, Any]) -> None:
        _check.number("nu", settings["nu"], hint="nu = 0 is SGD, nu = 1 is SGDM.")

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m, lr, nu = column(states, "momentum_buffer"), float(group["lr"]), group["nu"]
        torch._foreach_lerp_(m, grads, 1 - group["momentum"])
        torch._foreach_add_(params, grads, alpha=-lr * (1 - nu))
        torch._foreach_add_(params, m, alpha=-lr * nu)


class PNM(Optimizer):
    """Positive-negative momentum, m_t = mu^2 m_{t-2} + (1 - mu^2) g with mu = `momentum`; as a rule for simulations: `sdetools.PNM`.

    The step is p -= lr ((1 + b0) m_t - b0 m_{t-1}) / sqrt((1 + b0)^2 + b0^2), for a parameter p with gradient g. The state is "momentum_buffer", m_t, and
    "previous_buffer", m_{t-1}, both 0 at first.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0.
        momentum: mu in [0, 1).
        b0: The weight of the negative momentum, any finite number; the authors take 1.
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize` of `Optimizer`. Numbers out of range raise a ValueError, as there.

    Example:
        >>> import torch; from sdetools.bridge import PNM
        >>> p = torch.nn.Parameter(torch.tensor([1.0])); p.grad = torch.tensor([5.0**0.5])
        >>> PNM([p], lr=0.25, momentum=0.0).step(); p.data
        tensor([0.5000])
    """

    buffers = ("momentum_buffer", "previous_buffer")

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, b0: float = 1.0, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "b0": b0}, **options)

    def check(self, settings: dict[str, Any]) -> None:
        _check.number("b0", settings["b0"], hint="The authors take b0 = 1.")

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        old, new = column(states, "momentum_buffer"), column(states, "previous_buffer")
        b0, rate = group["b0"], float(group["lr"]) / math.hypot(1 + group["b0"], group["b0"])
        torch._foreach_lerp_(new, grads, 1 - group["momentum"] ** 2)
        for state, a, b in zip(states, new, old):
            state["momentum_buffer"], state["previous_buffer"] = a, b
        torch._foreach_add_(params, new, alpha=-rate * (1 + b0))
        torch._foreach_add_(params, old, alpha=rate * b0)


class SNGM(Optimizer):
    """Stochastic normalised gradient descent with momentum, m = mu m + g / |g|, p -= lr m; as a rule for simulations: `sdetools.SNGM`.

    p is a parameter, g its gradient, mu = `momentum`, and m the state "momentum_buffer", 0 at first. |g| is the 2-norm over all parameters of all groups,
    weight decay included; g / |g| is 0 for g = 0. On a GPU each step synchronises once.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0. A step (without decoupled decay) is at most lr / (1 - mu) long, whatever the size of the gradients.
        momentum: mu in [0, 1).
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize` of `Optimizer`. Numbers out of range raise a ValueError, as there.

    Example:
        >>> import torch; from sdetools.bridge import SNGM
        >>> p = torch.nn.Parameter(torch.tensor([1.0, 1.0])); p.grad = torch.tensor([3.0, 4.0])
        >>> SNGM([p], lr=0.5).step(); p.data
        tensor([0.7000, 0.6000])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, **options)

    def prepare(self, grads: Tensors) -> None:
        dtype = torch.float32 if grads and grads[0].dtype.itemsize < 4 else None
        norms = torch._foreach_norm(grads, 2, dtype=dtype) if grads else []
        norm = math.hypot(*(float(norm) for norm in norms))
        self._scale = 1 / norm if norm > 0 else 1.0

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = column(states, "momentum_buffer")
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, grads, alpha=self._scale)
        torch._foreach_add_(params, m, alpha=-float(group["lr"]))


class RandomScaling(Optimizer):
    """SGDM with a random learning rate, m = mu m + (1 - mu) g, p -= s lr m, s ~ Exp(1); as a rule for simulations: `sdetools.RandomScaling`.

    p is a parameter, g its gradient, mu = `momentum`, and m the state "momentum_buffer", 0 at first. One draw s per step scales all parameters.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The mean learning rate, at least 0; it is the effective one.
        momentum: mu in [0, 1).
        generator: The source of s, a generator on the CPU, whose state is part of `state_dict`; None for torch's global generator.
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize` of `Optimizer`. Numbers out of range raise a ValueError, as there.

    Example:
        >>> import torch; from sdetools.bridge import RandomScaling
        >>> p = torch.nn.Parameter(torch.tensor([1.0])); p.grad = torch.tensor([0.5])
        >>> optimizer = RandomScaling([p], lr=0.5, momentum=0.5, generator=torch.Generator().manual_seed(0))
        >>> optimizer.step()
        >>> bool(p < 1)
        True
    """

    buffers = ("momentum_buffer",)

    def __init__(
        self, params: Any, lr: float, momentum: float = 0.9, *, generator: torch.Generator | None = None, **options: Any
    ) -> None:
        self.generator = generator
        super().__init__(params, {"lr": lr, "momentum": momentum}, **options)

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state dictionary, with the state of `generator`, if there is one, as the entry "generator" (a byte tensor)."""
        return super().state_dict() | ({} if self.generator is None else {"generator": self.generator.get_state()})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load `state_dict` as `Optimizer.load_state_dict` does, and set `generator`, if there is one, to the entry "generator", if any."""
        super().load_state_dict({name: part for name, part in state_dict.items() if name != "generator"})
        if self.generator is not None and "generator" in state_dict:
            self.generator.set_state(state_dict["generator"])

    def prepare(self, grads: Tensors) -> None:
        self._scale = float(torch.empty((), dtype=torch.float64).exponential_(generator=self.generator))

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = column(states, "momentum_buffer")
        torch._foreach_lerp_(m, grads, 1 - group["momentum"])
        torch._foreach_add_(params, m, alpha=-self._scale * float(group["lr"]))


class SGDF(Optimizer):
    """SGD with a Wiener filter in each coordinate, p -= lr (mh + K (g - mh)), K = sh / (sh + (g - mh)^2 + eps); as a rule: `sdetools.SGDF`.

    m = mu m + (1 - mu) g and s = b2 s + (1 - b2) (g - m)^2 for a parameter p with gradient g, mu = `momentum`. mh and sh are m and s with Adam's bias
    correction, after k steps m / (1 - mu^k) and s / (1 - b2^k). The state is "momentum_buffer", m, and "variance_buffer", s, both 0 at first, and the
    numbers "forgotten", mu^k, and "forgotten_2", b2^k.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0.
        momentum: mu in [0, 1).
        b2: The decay rate of s, in [0, 1).
        eps: A number that avoids 0 / 0, positive.
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize` of `Optimizer`. Numbers out of range raise a ValueError, as there.

    Example:
        >>> import torch; from sdetools.bridge import SGDF
        >>> p = torch.nn.Parameter(torch.tensor([1.0])); p.grad = torch.tensor([0.5])
        >>> SGDF([p], lr=0.5).step(); p.data
        tensor([0.7500])
    """

    buffers = ("momentum_buffer", "variance_buffer")

    def __init__(
        self, params: Any, lr: float, momentum: float = 0.9, b2: float = 0.999, eps: float = 1e-8, **options: Any
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "b2": b2, "eps": eps}, **options)

    def check(self, settings: dict[str, Any]) -> None:
        _check.momentum("b2", settings["b2"])
        _check.positive("eps", settings["eps"], "It avoids 0 / 0 when a gradient equals its average.")

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m, s = column(states, "momentum_buffer"), column(states, "variance_buffer")
        mu, b2, lr = group["momentum"], group["b2"], float(group["lr"])
        for state in states:
            state["forgotten"] = state.get("forgotten", 1.0) * mu
            state["forgotten_2"] = state.get("forgotten_2", 1.0) * b2
        torch._foreach_lerp_(m, grads, 1 - mu)
        deviation = torch._foreach_sub(grads, m)
        torch._foreach_mul_(s, b2)
        torch._foreach_addcmul_(s, deviation, deviation, 1 - b2)
        weights = [1 - state["forgotten"] for state in states]
        # g - m / weight = (g - m) - m (1/weight - 1), which avoids cancellation
        torch._foreach_add_(deviation, torch._foreach_mul(m, [1 - 1 / weight for weight in weights]))
        variance = torch._foreach_div(s, [1 - state["forgotten_2"] for state in states])
        denominator = torch._foreach_mul(deviation, deviation)
        torch._foreach_add_(denominator, variance)
        torch._foreach_add_(denominator, group["eps"])
        torch._foreach_mul_(variance, deviation)
        torch._foreach_addcdiv_(params, variance, denominator, -lr)
        torch._foreach_add_(params, torch._foreach_mul(m, [-lr / weight for weight in weights]))


FAMILY: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "sgdm": SGDM,
    "heavy-ball": HeavyBall,
    "nesterov": Nesterov,
    "qhm": QHM,
    "pnm": PNM,
    "sngm": SNGM,
    "random-scaling": RandomScaling,
    "sgdf": SGDF,
}
"""The optimisers by their names in recipes."""


def buffer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return how many bytes the buffers of any torch optimiser occupy now, its tensors with at least one axis; 0 before the first step.

    ValueError if `optimizer` is none.

    Example:
        >>> import torch; from sdetools.bridge import SGDM, buffer_bytes
        >>> p = torch.nn.Parameter(torch.zeros(100)); p.grad = torch.zeros(100)
        >>> optimizer = SGDM([p], lr=0.1)
        >>> optimizer.step(); buffer_bytes(optimizer)
        400
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"`optimizer` must be an optimiser of torch; got {optimizer!r}.")
    tensors: Iterable[Any] = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.numel() * value.element_size() for value in tensors if isinstance(value, torch.Tensor) and value.ndim > 0)


def named(name: str) -> Callable[..., Optimizer]:
    """Return the optimiser class with the name `name`, a key of `FAMILY` such as "heavy-ball" for `HeavyBall`; ValueError for an unknown name."""
    return FAMILY[_check.choice("optimizer", name, FAMILY)]


__all__ = [cls.__name__ for cls in FAMILY.values()] + ["Optimizer", "buffer_bytes", "convert", "named"]
