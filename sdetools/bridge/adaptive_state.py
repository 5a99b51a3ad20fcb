r"""States of Adam, AdamW and RMSProp, of the library to torch's optimisers and back, so that a run continues on the other side with the same steps.

    library                   torch.optim.Adam, AdamW         torch.optim.RMSprop
    m, b                      exp_avg (m)                     momentum_buffer (b, with momentum)
    v                         exp_avg_sq                      square_avg
    number of steps taken     step                            step

m is the first moment of Adam and AdamW, b the momentum buffer of RMSProp, v the second moment.

x are the parameters, flattened one after another. The numbers (lr, betas or alpha and momentum, eps, weight_decay) are those of the parameter groups. Only methods
that are on both sides are translated; the others are refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from sdetools import _check
from sdetools.dynamics.rules.second_moment import Adam, AdamW, RMSProp, SecondMoment
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import constant

KINDS: dict[type[SecondMoment], type[torch.optim.Optimizer]] = {
    Adam: torch.optim.Adam,
    AdamW: torch.optim.AdamW,
    RMSProp: torch.optim.RMSprop,
}
"""The class of torch for each class of the library."""


def state_to_torch(
    method: SecondMoment, state: Sequence[Any], steps: int, params: Iterable[torch.Tensor] | None = None
) -> dict[str, Any]:
    """Return the state dictionary with which torch's optimiser continues a run of Adam, AdamW or RMSProp after `steps` steps.

    Learning rate and momentum are those of the plan at the next step; a scheduler continues the plan.

    Args:
        method: An `Adam`, `AdamW` or `RMSProp` of the library.
        state: Its state after `steps` steps, the parts (x, m, v) or (x, b, v), each `(dim,)`: for example `run.trajectories.values[path, time]`.
        steps: The number of steps taken, including those before the start of a run that was itself continued.
        params: The parameters of the torch optimiser in their order, which give shapes and precision; None for one of shape `(dim,)` in double precision.
            They are not changed: x is yours to copy.

    Returns:
        An argument of `load_state_dict` of `torch.optim.Adam`, `AdamW` or `RMSprop` with one parameter group.

    Raises:
        ValueError: If torch has no such method (a lagged denominator, Adam without or RMSProp with bias correction, a momentum that changes under bias
            correction), or if the state or the parameters have other sizes.

    Example:
        >>> import sdetools as st
        >>> import torch
        >>> from sdetools.bridge import state_to_torch
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.none(dim=1))
        >>> method = st.Adam(oracle, st.schedules.constant(0.125, beta=0.5))
        >>> p = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        >>> optimizer = torch.optim.Adam([p])
        >>> optimizer.load_state_dict(state_to_torch(method, ([2.0], [0.25], [0.5]), 3))
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"], optimizer.state[p]["exp_avg"].tolist()
        (0.125, (0.5, 0.999), [0.25])
    """
    steps = _check.count("steps", steps, least=0)
    if type(method) not in KINDS:
        raise ValueError(
            f"`method` must be Adam, AdamW or RMSProp; got {_check.shown(method)}. torch's optimiser has other steps."
        )
    _check_method(method)
    parts = [_check.point(name, part, method.dim) for name, part in zip(method.parts, _three(state), strict=True)]
    shaped = [torch.empty(method.dim, dtype=torch.float64)] if params is None else list(params)
    if sum(p.numel() for p in shaped) != method.dim:
        raise ValueError(f"`params` must have {method.dim} numbers in all; got {sum(p.numel() for p in shaped)}.")
    eta, beta = (float(values(steps + 1)[-1]) for values in (method.plan.etas, method.plan.betas))
    numbers: dict[str, Any] = {"lr": eta, "eps": method.eps}
    numbers |= {"alpha": method.beta2, "momentum": beta} if isinstance(method, RMSProp) else {"betas": (beta, method.beta2)}
    numbers["weight_decay"] = method.weight_decay if isinstance(method, AdamW) else 0.0
    kind: Any = KINDS[type(method)]
    out: dict[str, Any] = kind([torch.nn.Parameter(torch.empty_like(p)) for p in shaped], **numbers).state_dict()
    first, second = (_split(torch.as_tensor(part), shaped) for part in parts[1:])
    mean, square = _names(method, beta)
    for i, (m, v) in enumerate(zip(first, second, strict=True)):
        out["state"][i] = {"step": torch.tensor(float(steps)), square: v} | ({mean: m} if mean else {})
    return out


def state_from_torch(optimizer: torch.optim.Optimizer) -> tuple[tuple[np.ndarray, ...], int]:
    """Return the state (x, m, v) or (x, b, v) of torch's Adam, AdamW or RMSprop, each part `(dim,)` in double precision, and its number of steps.

    The parameters are flattened one after another. Before the first step m and v are 0.

    Args:
        optimizer: The optimiser, whose groups have equal numbers.

    Returns:
        The state, whose first part x are the present parameters, and the number of steps.

    Raises:
        ValueError: If the optimiser is another one, has groups with unequal numbers, `amsgrad`, `centered`, `maximize` or a coupled weight decay, or
            parameters that have taken unequal numbers of steps.

    Example:
        >>> import torch
        >>> from sdetools.bridge import state_from_torch
        >>> p = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        >>> optimizer = torch.optim.Adam([p], lr=0.125, betas=(0.5, 0.75))
        >>> p.grad = torch.ones_like(p); optimizer.step()
        >>> (x, m, v), steps = state_from_torch(optimizer)
        >>> m, v, steps
        (array([0.5]), array([0.25]), 1)
    """
    kind, group = _checked_optimizer(optimizer)
    params = [p for own in optimizer.param_groups for p in own["params"]]
    counts = {int(optimizer.state[p]["step"]) if optimizer.state.get(p) else 0 for p in params}
    if len(counts) > 1:
        raise ValueError(
            f"`optimizer` must have taken the same steps for all parameters; got {_check.shown(sorted(counts))}. Leave frozen parameters out of it."
        )
    mean, square = _names(kind, float(group.get("momentum", 1.0)))
    parts = [torch.cat([p.detach().reshape(-1).double().cpu() for p in params])]
    for name in (mean, square):
        stored = [(optimizer.state.get(p) or {}).get(name) if name else None for p in params]
        flat = [
            torch.zeros(p.numel(), dtype=torch.float64) if s is None else s.reshape(-1).double().cpu()
            for p, s in zip(params, stored)
        ]
        parts.append(torch.cat(flat))
    return tuple(part.numpy() for part in parts), counts.pop()


def method_from_torch(optimizer: torch.optim.Optimizer, oracle: NoisyOracle) -> SecondMoment:
    """Return the `Adam`, `AdamW` or `RMSProp` of the library that continues a run of torch's optimiser, at its present learning rate.

    A simulation of it from the x of `state_from_torch` takes the steps that torch would take on the same gradients.

    Args:
        optimizer: torch's Adam, AdamW or RMSprop, whose groups have equal numbers.
        oracle: The noisy gradient oracle, of as many coordinates as the optimiser has numbers.

    Returns:
        The method, with a constant plan (lr and beta_1 or momentum of the optimiser), which begins with the moments and the number of steps of the
        optimiser.

    Raises:
        ValueError: If the optimiser is another one, has groups with unequal numbers or switches that the library has not (see `state_from_torch`), or if
            the oracle has another dimension.

    Example:
        >>> import sdetools as st
        >>> import torch
        >>> from sdetools.bridge import method_from_torch
        >>> p = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        >>> optimizer = torch.optim.AdamW([p], lr=0.125, betas=(0.5, 0.75))
        >>> p.grad = torch.ones_like(p); optimizer.step()
        >>> method = method_from_torch(optimizer, st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1)))
        >>> method.name, method.steps_taken, method.second_moment, method.weight_decay
        ('AdamW', 1, array([0.25]), 0.01)
    """
    kind, group = _checked_optimizer(optimizer)
    (_, first, second), steps = state_from_torch(optimizer)
    own: dict[str, Any] = {"eps": float(group["eps"]), "momentum": first, "second_moment": second, "steps_taken": steps}
    if kind is RMSProp:
        beta, own["beta2"] = float(group["momentum"]), float(group["alpha"])
    else:
        beta, own["beta2"] = (float(b) for b in group["betas"])
    if kind is AdamW:
        own["weight_decay"] = float(group["weight_decay"])
    make: Any = kind
    made: SecondMoment = make(oracle, constant(float(group["lr"]), beta), **own)
    return made


def _check_method(method: SecondMoment) -> None:
    """Raise a ValueError if torch has no optimiser with the switches of a method: lag, bias correction, and a momentum that changes under it."""
    if method.lag:
        raise ValueError("`method` must divide by the current second moment, as torch does; got lagged=True.")
    if method.bias_correction == isinstance(method, RMSProp):
        name, right = (method.name, "without") if isinstance(method, RMSProp) else (method.name, "with")
        hint = " At beta = 0 `Adam` is RMSProp with it." if isinstance(method, RMSProp) else ""
        raise ValueError(
            f"`method` must be {name} {right} bias correction, as torch's; got bias_correction={method.bias_correction}.{hint}"
        )
    if method.bias_correction and np.ptp(method.plan.beta_values):
        raise ValueError(
            "`method` must have a constant beta, because torch corrects the bias by beta_1^step; got one that changes."
        )


def _checked_optimizer(optimizer: Any) -> tuple[type[SecondMoment], dict[str, Any]]:
    """Return the library's class for torch's `optimizer`, such as `Adam`, and the first parameter group, to which all others are equal.

    ValueError for another optimiser, groups with unequal numbers, `amsgrad`, `centered`, `maximize` or a weight decay that is not AdamW's.
    """
    kind = next((own for own, theirs in KINDS.items() if type(optimizer) is theirs), None)
    if kind is None:
        raise ValueError(
            f"`optimizer` must be torch.optim.Adam, AdamW or RMSprop; got {type(optimizer).__name__}, which the library has not."
        )
    numbers = [{name: value for name, value in group.items() if name in _NUMBERS} for group in optimizer.param_groups]
    if any(other != numbers[0] for other in numbers):
        raise ValueError("`optimizer` must have groups of equal numbers, as the library's methods have; got groups that differ.")
    group = optimizer.param_groups[0]
    for switch in ("amsgrad", "centered", "maximize"):
        if group.get(switch):
            raise ValueError(
                f"`optimizer` must be without {switch}; got {switch}=True, which the library's {kind.__name__} has not."
            )
    if kind is not AdamW and group["weight_decay"]:
        raise ValueError(
            f"`optimizer` must be without coupled weight decay; got weight_decay={float(group['weight_decay']):g}. Add it to the loss, or use AdamW."
        )
    return kind, group


_NUMBERS = ("lr", "betas", "alpha", "momentum", "eps", "weight_decay", "amsgrad", "centered", "maximize")
"""Entries of a parameter group that change the steps."""


def _names(kind: SecondMoment | type[SecondMoment], momentum: float) -> tuple[str, str]:
    """Return torch's names of the buffers for m or b, and for v; the first is empty for RMSprop without momentum, which has no buffer.

    Args:
        kind: A method of the library or its class.
        momentum: The momentum of RMSprop; it does not matter for the others.
    """
    own = kind if isinstance(kind, type) else type(kind)
    return ("momentum_buffer" if momentum else "", "square_avg") if own is RMSProp else ("exp_avg", "exp_avg_sq")


def _three(state: Sequence[Any]) -> Sequence[Any]:
    """Return the state if it has three parts; raise ValueError otherwise."""
    if not isinstance(state, Sequence | np.ndarray) or len(state) != 3:
        raise ValueError(
            f"`state` must have the three parts of the method; got {_check.shown(state)}. Take run.trajectories.values[path, time]."
        )
    return state


def _split(flat: torch.Tensor, params: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the vector `flat` `(dim,)` cut into new tensors, one per parameter in `params`, of its shape, precision and device."""
    cut = torch.split(flat, [p.numel() for p in params])
    return [part.reshape(p.shape).to(p.device, p.dtype).clone() for part, p in zip(cut, params, strict=True)]
