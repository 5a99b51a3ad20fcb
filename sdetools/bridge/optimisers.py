r"""The momentum family as `torch.optim.Optimizer`s: each is the rule of the same name in `sdetools.dynamics`, for real networks.

    SGD            p -= lr g
    SGDM           m = mu m + (1 - mu) g,  p -= lr m                                 Def. 2.3, the EMA form
    HeavyBall      m = mu m + g,  p -= lr m                                          Eq. (1), torch's own form of momentum
    Nesterov       v = mu v + g,  p -= lr (g + mu v)                                 torch's form too
    QHM            m = mu m + (1 - mu) g,  p -= lr ((1 - nu) g + nu m)
    PNM            m_t = mu^2 m_{t-2} + (1 - mu^2) g,  p -= lr ((1 + b0) m_t - b0 m_{t-1}) / norm
    SNGM           m = mu m + g / |g|,  p -= lr m,  |g| over all parameters
    RandomScaling  m as in SGDM,  p -= s lr m,  s ~ Exp(1), one draw a step
    SGDF           p -= lr (mh + K (g - mh)),  K a Wiener gain

All buffers start at zero, as in the paper. torch's own SGD starts its buffer at the first gradient: with `dampening` that is another
first step; without, the same. Names are torch's (`lr`, `momentum`); sources stand with the rules.

Tensors are updated a few at a time, so that they stay in the cache between the passes of a rule, or (`foreach=True`, the default on a
GPU) all together by torch's multi-tensor kernels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch

from sdetools import _check

from .conversion import NEUTRAL, convert, taken_over

Tensors = list[torch.Tensor]
CACHED = 1 << 19
"""Bytes of parameters that are updated together on a CPU."""


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
        return cls.__name__ if cls.__module__ == __name__ else f"{cls.__module__}.{cls.__qualname__}"

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


def _column(states: list[dict[str, Any]], name: str) -> list[Any]:
    return [state[name] for state in states]


class SGD(Optimizer):
    """p -= lr g: `sdetools.SGD`.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([0.5])
    >>> SGD([p], lr=0.5).step()
    >>> p.data
    tensor([0.7500])
    """

    one_pass = True

    def __init__(self, params: Any, lr: float, **options: Any) -> None:
        super().__init__(params, {"lr": lr}, **options)

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        torch._foreach_add_(params, grads, alpha=-float(group["lr"]))


class SGDM(Optimizer):
    """m = mu m + (1 - mu) g, p -= lr m, m = 0 at first: `sdetools.SGDM` (Def. 2.3), mu = `momentum`.

    Its `lr` is that of the plain SGD which it acts like. `HeavyBall` with lr (1 - mu) takes the same steps; see `convert`.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([0.5])
    >>> SGDM([p], lr=0.5, momentum=0.5).step()
    >>> p.data
    tensor([0.8750])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, **options)

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = _column(states, "momentum_buffer")
        torch._foreach_lerp_(m, grads, 1 - group["momentum"])
        torch._foreach_add_(params, m, alpha=-float(group["lr"]))


class HeavyBall(Optimizer):
    """m = mu m + g, p -= lr m: `sdetools.HeavyBall` (Eq. (1)), and `torch.optim.SGD(momentum=mu)`.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([0.5])
    >>> HeavyBall([p], lr=0.5, momentum=0.5).step()
    >>> p.data
    tensor([0.7500])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, **options)

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = _column(states, "momentum_buffer")
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, grads)
        torch._foreach_add_(params, m, alpha=-float(group["lr"]))


class Nesterov(Optimizer):
    """v = mu v + g, p -= lr (g + mu v): `sdetools.Nesterov`, and `torch.optim.SGD(momentum=mu, nesterov=True)`.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([0.5])
    >>> Nesterov([p], lr=0.5, momentum=0.5).step()
    >>> p.data
    tensor([0.6250])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, **options)

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        v, lr, mu = _column(states, "momentum_buffer"), float(group["lr"]), group["momentum"]
        torch._foreach_mul_(v, mu)
        torch._foreach_add_(v, grads)
        torch._foreach_add_(params, grads, alpha=-lr)
        torch._foreach_add_(params, v, alpha=-lr * mu)


class QHM(Optimizer):
    """m = mu m + (1 - mu) g, p -= lr ((1 - nu) g + nu m): `sdetools.QHM`, quasi-hyperbolic momentum.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([0.5])
    >>> QHM([p], lr=0.5, momentum=0.5, nu=0.5).step()
    >>> p.data
    tensor([0.8125])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.999, nu: float = 0.7, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nu": nu}, **options)

    def check(self, settings: dict[str, Any]) -> None:
        _check.number("nu", settings["nu"], hint="nu = 0 is SGD, nu = 1 is SGDM.")

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m, lr, nu = _column(states, "momentum_buffer"), float(group["lr"]), group["nu"]
        torch._foreach_lerp_(m, grads, 1 - group["momentum"])
        torch._foreach_add_(params, grads, alpha=-lr * (1 - nu))
        torch._foreach_add_(params, m, alpha=-lr * nu)


class PNM(Optimizer):
    """m_t = mu^2 m_{t-2} + (1 - mu^2) g, p -= lr ((1 + b0) m_t - b0 m_{t-1}) / sqrt((1 + b0)^2 + b0^2): `sdetools.PNM`.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([5.0**0.5])
    >>> PNM([p], lr=0.25, momentum=0.0).step()
    >>> p.data
    tensor([0.5000])
    """

    buffers = ("momentum_buffer", "previous_buffer")

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, b0: float = 1.0, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "b0": b0}, **options)

    def check(self, settings: dict[str, Any]) -> None:
        _check.number("b0", settings["b0"], hint="The authors take b0 = 1.")

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        old, new = _column(states, "momentum_buffer"), _column(states, "previous_buffer")
        b0, rate = group["b0"], float(group["lr"]) / math.hypot(1 + group["b0"], group["b0"])
        torch._foreach_lerp_(new, grads, 1 - group["momentum"] ** 2)
        for state, a, b in zip(states, new, old):
            state["momentum_buffer"], state["previous_buffer"] = a, b
        torch._foreach_add_(params, new, alpha=-rate * (1 + b0))
        torch._foreach_add_(params, old, alpha=rate * b0)


class SNGM(Optimizer):
    """m = mu m + g / |g|, p -= lr m: `sdetools.SNGM`; |g| is the 2-norm over all parameters of all groups, decay included.

    On a GPU the norm is waited for once a step.

    >>> p = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> SNGM([p], lr=0.5).step()
    >>> p.data
    tensor([0.7000, 0.6000])
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum}, **options)

    def prepare(self, grads: Tensors) -> None:
        kind = torch.float32 if grads and grads[0].dtype.itemsize < 4 else None
        norms = torch._foreach_norm(grads, 2, dtype=kind) if grads else []
        length = math.hypot(*(float(norm) for norm in norms))
        self._scale = 1 / length if length > 0 else 1.0

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = _column(states, "momentum_buffer")
        torch._foreach_mul_(m, group["momentum"])
        torch._foreach_add_(m, grads, alpha=self._scale)
        torch._foreach_add_(params, m, alpha=-float(group["lr"]))


class RandomScaling(Optimizer):
    """m = mu m + (1 - mu) g, p -= s lr m, s ~ Exp(1), one draw a step for all parameters: `sdetools.RandomScaling`.

    The draw comes from torch's global generator, or from `generator` (on a CPU), whose state goes with `state_dict`.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([0.5])
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
        """As torch's, with the generator's state where there is one."""
        return super().state_dict() | ({} if self.generator is None else {"generator": self.generator.get_state()})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; a generator goes on where the saved one was."""
        super().load_state_dict({name: part for name, part in state_dict.items() if name != "generator"})
        if self.generator is not None and "generator" in state_dict:
            self.generator.set_state(state_dict["generator"])

    def prepare(self, grads: Tensors) -> None:
        self._scale = float(torch.empty((), dtype=torch.float64).exponential_(generator=self.generator))

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m = _column(states, "momentum_buffer")
        torch._foreach_lerp_(m, grads, 1 - group["momentum"])
        torch._foreach_add_(params, m, alpha=-self._scale * float(group["lr"]))


class SGDF(Optimizer):
    """p -= lr (mh + K (g - mh)), K = sh / (sh + (g - mh)^2 + eps), coordinate by coordinate: `sdetools.SGDF`, a Wiener filter.

    m = mu m + (1 - mu) g and s = b2 s + (1 - b2) (g - m)^2; mh and sh are m and s over the weight that they have gathered.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([0.5])
    >>> SGDF([p], lr=0.5).step()
    >>> p.data
    tensor([0.7500])
    """

    buffers = ("momentum_buffer", "variance_buffer")

    def __init__(
        self, params: Any, lr: float, momentum: float = 0.9, b2: float = 0.999, eps: float = 1e-8, **options: Any
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "b2": b2, "eps": eps}, **options)

    def check(self, settings: dict[str, Any]) -> None:
        _check.momentum("b2", settings["b2"])
        _check.positive("eps", settings["eps"], "It keeps 0 / 0 away when a gradient equals its average.")

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        m, s = _column(states, "momentum_buffer"), _column(states, "variance_buffer")
        mu, b2, lr = group["momentum"], group["b2"], float(group["lr"])
        for state in states:
            state["forgotten"] = state.get("forgotten", 1.0) * mu
            state["forgotten_2"] = state.get("forgotten_2", 1.0) * b2
        torch._foreach_lerp_(m, grads, 1 - mu)
        away = torch._foreach_sub(grads, m)
        torch._foreach_mul_(s, b2)
        torch._foreach_addcmul_(s, away, away, 1 - b2)
        shares = [1 - state["forgotten"] for state in states]
        # g - m / share = (g - m) - m (1/share - 1), where nothing cancels that need not
        torch._foreach_add_(away, torch._foreach_mul(m, [1 - 1 / share for share in shares]))
        variance = torch._foreach_div(s, [1 - state["forgotten_2"] for state in states])
        below = torch._foreach_mul(away, away)
        torch._foreach_add_(below, variance)
        torch._foreach_add_(below, group["eps"])
        torch._foreach_mul_(variance, away)
        torch._foreach_addcdiv_(params, variance, below, -lr)
        torch._foreach_add_(params, torch._foreach_mul(m, [-lr / share for share in shares]))


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
"""The optimisers by the names that recipes use."""


class PlanScheduler:
    """Sets `lr` and `momentum` of every group before each step from a plan (eta_k, beta_k) of `sdetools.schedules`.

    Call `step()` once after every step of the optimiser, as with torch's schedulers. A plan with momentum is refused by a method without
    one: `plan.averaged()` is what Theorem 3.5 gives plain SGD.

    >>> import sdetools as st
    >>> optimizer = SGDM([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> scheduler = PlanScheduler(optimizer, st.schedules.from_arrays([0.2, 0.1], 0.5))
    >>> scheduler.step(); optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]
    (0.1, 0.5)
    """

    def __init__(self, optimizer: torch.optim.Optimizer, plan: Any) -> None:
        if plan.has_momentum and "momentum" not in optimizer.param_groups[0]:
            raise ValueError(
                f"`plan` must be without momentum for {type(optimizer).__name__}; got one with beta > 0. Pass plan.averaged()."
            )
        self.optimizer, self.plan, self.done = optimizer, plan, 0
        self._set()

    def step(self) -> None:
        """Go on to the next step's numbers."""
        self.done += 1
        self._set()

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = int(state["done"])
        self._set()

    def _set(self) -> None:
        k = [min(self.done, len(values) - 1) for values in (self.plan.eta_values, self.plan.beta_values)]
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.plan.eta_values[k[0]])
            if "momentum" in group:
                group["momentum"] = float(self.plan.beta_values[k[1]])


def buffer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the optimiser's tensors take beside the parameters, now: zero before the first step.

    >>> p = torch.nn.Parameter(torch.zeros(100))
    >>> p.grad = torch.zeros(100)
    >>> optimizer = SGDM([p], lr=0.1)
    >>> optimizer.step(); buffer_bytes(optimizer)
    400
    """
    tensors: Iterable[Any] = (value for state in optimizer.state.values() for value in state.values())
    return sum(held.numel() * held.element_size() for held in tensors if isinstance(held, torch.Tensor) and held.ndim > 0)


def named(name: str) -> Callable[..., Optimizer]:
    """The optimiser of a recipe's name."""
    if name not in FAMILY:
        raise ValueError(f"`optimizer` must be one of {', '.join(FAMILY)}; got {name!r}.")
    return FAMILY[name]


__all__: Sequence[str] = [cls.__name__ for cls in FAMILY.values()] + [
    "Optimizer",
    "PlanScheduler",
    "buffer_bytes",
    "convert",
    "named",
]
