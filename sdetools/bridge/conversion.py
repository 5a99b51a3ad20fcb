r"""One optimiser's numbers and buffers as another's: which methods take the same steps, at which rates, with which buffers.

The linear methods with one buffer are filters

    m = mu m + a g,  p -= lr (c g + d m),

    SGD         mu = 0                              HeavyBall     a = 1,       c = 0,       d = 1
    SGDM        a = 1 - mu,  c = 0,       d = 1     Nesterov      a = 1,       c = 1,       d = mu
    QHM         a = 1 - mu,  c = 1 - nu,  d = nu    torch's SGD   a = 1 - dampening,  c, d as HeavyBall or, with nesterov, as Nesterov

A gradient moves p by lr (c + d a) at once and by lr d a mu^j after j steps more. Two filters with the same mu take the same steps if
these weights are the same up to a factor, which goes to `lr`; what the buffer still holds, lr d m, must stay, which sets the new buffer. All
this is exact while the momentum stays: under one that moves a sum and an average of gradients are two methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import torch

from sdetools import _check

TORCH = "torch.optim.SGD"
NUMBERS: dict[str, tuple[str, ...]] = {
    "SGD": (),
    **dict.fromkeys(("SGDM", "HeavyBall", "Nesterov", "SNGM", "RandomScaling"), ("momentum",)),
    "QHM": ("momentum", "nu"),
    "PNM": ("momentum", "b0"),
    "SGDF": ("momentum", "b2", "eps"),
}
"""Numbers of each method beside its learning rate."""
NEUTRAL: dict[str, Any] = {"weight_decay": 0.0, "decoupled": False, "foreach": None, "maximize": False}
"""What all groups of ours have, and what a dictionary means that does not tell."""
_OF_TORCH = {"dampening": 0.0, "nesterov": False, "differentiable": False, "fused": None}
"""What torch's groups have beyond; only dictionaries of torch's SGD have a dampening."""
_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
"""Entries of a group that are learning rates: the optimiser's, and those that torch's schedulers remember there."""
_SCHEDULED = (*_RATES, "base_momentum", "max_momentum")


class Filter(NamedTuple):
    """m = mu m + a g, p -= lr (c g + d m)."""

    mu: float
    a: float
    c: float
    d: float

    @property
    def later(self) -> float:
        """The weight of a gradient j steps later, over mu^j."""
        return self.d * self.a

    @property
    def gain(self) -> float:
        """All weights of a gradient together: lr gain is the learning rate of the plain SGD that it acts like."""
        return self.c + self.later / (1 - self.mu)

    def reduced(self) -> Filter:
        """Without a buffer, where none is seen."""
        return Filter(0.0, 1.0, 0.0, self.c + self.later) if self.mu == 0 or self.later == 0 else self


_PLAIN = Filter(0.0, 1.0, 0.0, 1.0)


def _torch(n: Mapping[str, Any]) -> Filter:
    mu, a = n["momentum"], 1 - n["dampening"]
    if mu == 0:  # then torch has no buffer, and its dampening does nothing
        return _PLAIN
    return Filter(mu, a, 1.0, mu) if n["nesterov"] else Filter(mu, a, 0.0, 1.0)


FILTERS: dict[str, Callable[[Mapping[str, Any]], Filter | None]] = {
    "SGD": lambda n: _PLAIN,
    "SGDM": lambda n: Filter(n["momentum"], 1 - n["momentum"], 0.0, 1.0),
    "HeavyBall": lambda n: Filter(n["momentum"], 1.0, 0.0, 1.0),
    "Nesterov": lambda n: Filter(n["momentum"], 1.0, 1.0, n["momentum"]),
    "QHM": lambda n: Filter(n["momentum"], 1 - n["momentum"], 1 - n["nu"], n["nu"]),
    "PNM": lambda n: _PLAIN if n["momentum"] == n["b0"] == 0 else None,
    "SGDF": lambda n: _PLAIN if n["momentum"] == 0 else None,
    "SNGM": lambda n: None,
    "RandomScaling": lambda n: None,
    TORCH: _torch,
}
"""Each method as a filter, from its numbers; None where it is none, or has another memory."""


class Match(NamedTuple):
    """`numbers` of the method that takes the steps of another at `rate` times its lr, with `buffer` times its buffer."""

    numbers: dict[str, float]
    rate: float
    buffer: float


def match(source: Filter | None, target: str) -> Match | None:
    """How the method `target` takes the steps of a filter; None where it cannot."""
    if source is None:
        return None
    source = source.reduced()
    mu, w = source.mu, source.later
    numbers = {"momentum": mu}
    if target == "QHM":
        numbers["nu"] = w / ((source.c + w) * (1 - mu) + w * mu)
    if target == "PNM":
        numbers["b0"] = 0.0
    numbers = {name: numbers[name] for name in NUMBERS[target] if name in numbers}
    own = FILTERS[target](numbers)
    if own is None:
        return None
    own = own.reduced()
    rate = source.gain / own.gain
    if own.mu != mu or rate <= 0 or not math.isclose(rate * own.later, w, rel_tol=1e-12):
        return None
    return Match(numbers, rate, source.d / (rate * own.d) if mu else 0.0)


_NAMED = {"sgd": "SGD", "sgdm": "SGDM", "heavy-ball": "HeavyBall", "nesterov": "Nesterov"}


def convert(lr: float, momentum: float = 0.0, *, source: str, target: str) -> dict[str, float]:
    """The settings with which `target` takes the steps of `source`; with the target "sgd", the plain SGD that acts like it.

    Between "sgdm" (Def. 2.3), "heavy-ball" (Eq. (1), torch's form), "nesterov" (torch's form) and "qhm", at constant momentum: "sgdm" is
    heavy-ball at lr / (1 - momentum); "nesterov" is "qhm" with nu = momentum, there. The target "sgd" gets the product of `lr` and the
    gain, which is what Theorem 3.5 compares with: near, not equal. ValueError where no setting does it.

    >>> convert(0.1, 0.9, source="heavy-ball", target="sgdm")
    {'lr': 1.0, 'momentum': 0.9}
    >>> convert(1.0, 0.9, source="sgdm", target="sgd")
    {'lr': 1.0}
    >>> convert(0.1, 0.9, source="nesterov", target="qhm")
    {'lr': 1.0, 'momentum': 0.9, 'nu': 0.9}
    """
    for name, value, known in (("source", source, _NAMED), ("target", target, {*_NAMED, "qhm"})):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(sorted(known))}; got {value!r}.")
    lr, mu = _check.number("lr", lr), _check.momentum("momentum", momentum)
    if source == "sgd" and mu != 0:
        raise ValueError(f"`momentum` of sgd must be 0; got momentum={momentum!r}. Name the form: sgdm, heavy-ball or nesterov.")
    steps = FILTERS[_NAMED[source]]({"momentum": mu})
    assert steps is not None
    if target == "sgd":
        return {"lr": _rounded(lr * steps.gain)}
    found = match(steps, _NAMED.get(target, "QHM"))
    if found is None:
        raise ValueError(
            f"`target` must be able to take the steps of the source; {target} cannot take those of {source} at momentum={mu!r}. "
            'Only "qhm" and, for the motion on average, "sgd" can.'
        )
    return {"lr": _rounded(lr * found.rate)} | {name: _rounded(value) for name, value in found.numbers.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.15g}")


class Ours(Protocol):
    """What is asked of an optimiser of the family (`optimiser_base.py`)."""

    buffers: ClassVar[tuple[str, ...]]
    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]

    def checked(self, settings: dict[str, Any]) -> Any: ...


def taken_over(optimizer: Ours, method: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """What `optimizer`, which is a `method`, loads so that it goes on with the steps of the one that gave `state_dict`.

    ValueError where it cannot. Where groups or parameters differ in number the dictionary stays as it is: torch says which.
    """
    if not (isinstance(state_dict, Mapping) and {"state", "param_groups"} <= state_dict.keys()):
        raise ValueError("`state_dict` must be an optimiser's, with `state` and `param_groups`; got another. Is it the model's?")
    saved = state_dict["param_groups"]
    sizes = [[len(group["params"]) for group in groups] for groups in (saved, optimizer.param_groups)]
    if sizes[0] != sizes[1]:
        return dict(state_dict)
    state, groups = dict(state_dict["state"]), []
    for own, group in zip(optimizer.param_groups, saved):
        params = dict(zip(group["params"], own["params"]))
        source = _method(group, method, own)
        numbers = _numbers(group, source, optimizer)
        if source == method:
            found = Match({}, 1.0, 1.0)
        else:
            if source == TORCH:
                _check_torch(numbers, params, state)
            found = _found(source, method, numbers)
            for key in params:
                held = state.pop(key, {}).get("momentum_buffer")
                if held is not None and found.buffer:
                    state[key] = {"momentum_buffer": held * found.buffer}
        _check_buffers(optimizer, method, params, state)
        kept = {name: value for name, value in group.items() if name not in _OF_TORCH and name not in NUMBERS.get(source, ())}
        filled = {name: optimizer.defaults[name] for name in NUMBERS.get(method, ())} | NEUTRAL | kept
        filled |= numbers if source == method else found.numbers
        if found.rate != 1:
            filled |= {name: _number(filled[name]) * found.rate for name in _RATES if name in filled}
            if filled["decoupled"]:  # then a parameter is multiplied by 1 - lr weight_decay
                filled["weight_decay"] = _number(filled["weight_decay"]) / found.rate
        if source == TORCH:
            filled["weight_decay"] = _number(filled["weight_decay"])
        filled["method"] = method
        optimizer.checked(filled)
        groups.append(filled)
    return {**state_dict, "state": state, "param_groups": groups}


def _method(group: Mapping[str, Any], method: str, own: Mapping[str, Any]) -> str:
    """The method that gave a group: by its name, or, without one, by its numbers, of which those of `method` itself come first."""
    if "lr" not in group:
        raise ValueError(f"groups of `state_dict` must have a learning rate; got one with {_listed(group)} alone.")
    if "method" in group:
        return str(group["method"])
    if {"dampening", "momentum"} <= group.keys():
        strange = group.keys() - {"params", "param_names", "momentum", *NEUTRAL, *_OF_TORCH, *_SCHEDULED, *own}
        if strange:
            raise ValueError(
                f"`state_dict` must be of {TORCH} or of this family; got one with {_listed(strange)}, which neither has. "
                "Remove the entries from its groups where they do not change its steps."
            )
        return TORCH
    told = group.keys() - {"params", "param_names", *NEUTRAL, *_SCHEDULED}
    if set(NUMBERS.get(method, ())) <= told <= own.keys():
        return method
    fits = [name for name, numbers in NUMBERS.items() if told == set(numbers)]
    if len(fits) == 1:
        return fits[0]
    raise ValueError(
        f"`state_dict` must be of {method}, of another of this family or of {TORCH}; got one with {_listed(told)} in its groups"
        + (f", which may be of {', '.join(fits)}. Write its name into them: group['method'] = {fits[0]!r}." if fits else ".")
    )


def _numbers(group: Mapping[str, Any], source: str, optimizer: Ours) -> dict[str, Any]:
    """The numbers of a group that decide its steps, filled with defaults."""
    if source == TORCH:
        told = _OF_TORCH | {name: group[name] for name in ("momentum", *_OF_TORCH) if name in group}
        del told["fused"]
        return told | {name: _number(told[name]) for name in ("momentum", "dampening")}
    return {name: group.get(name, optimizer.defaults.get(name)) for name in NUMBERS.get(source, ())}


def _found(source: str, method: str, numbers: Mapping[str, Any]) -> Match:
    steps = FILTERS[source](numbers) if source in FILTERS and None not in numbers.values() else None
    found = match(steps, method) if method in NUMBERS and (steps is None or steps.a != 0) else None
    if found is not None:
        return found
    shown = ", ".join(f"{name}={value!r}" for name, value in numbers.items() if value or name == "momentum")
    able = [] if steps is None or steps.a == 0 else [name for name in NUMBERS if match(steps, name)]
    ways = able or ([source] if source != TORCH else [])
    raise ValueError(
        f"`state_dict` must be of a method whose steps {method} can take; got that of {source}{f' with {shown}' if shown else ''}. "
        + (f"Load it into {' or '.join(ways)}." if ways else f"Only {TORCH} itself goes on with it.")
    )


def _check_torch(numbers: Mapping[str, Any], params: Mapping[Any, torch.Tensor], state: Mapping[Any, Any]) -> None:
    """What torch's SGD does and a filter does not."""
    if numbers["differentiable"]:
        raise ValueError("`differentiable` of the groups must be False, for no graph is made of the steps here; got True.")
    _check.momentum("momentum", numbers["momentum"])
    if numbers["momentum"] == 0 or numbers["dampening"] == 0:
        return
    bare = sum(p.requires_grad and (state.get(key) or {}).get("momentum_buffer") is None for key, p in params.items())
    if bare:
        raise ValueError(
            f"`state_dict` of {TORCH} with dampening must have a buffer of every parameter, for torch's first one is the whole gradient; "
            f"got none for {bare} of them. Take a step with it first."
        )


def _check_buffers(optimizer: Ours, method: str, params: Mapping[Any, torch.Tensor], state: dict[Any, Any]) -> None:
    """Refuse buffers that are missing or of another shape; one that is None is none."""
    for key, p in params.items():
        held = {name: value for name, value in (state.get(key) or {}).items() if value is not None}
        if not held:
            state.pop(key, None)
            continue
        for name in optimizer.buffers:
            if name not in held:
                raise ValueError(f"`state_dict` must have each buffer of {method}; got no {name}, but {_listed(held)}.")
            if held[name].shape != p.shape:
                shapes = tuple(p.shape), tuple(held[name].shape)
                raise ValueError(f"a {name} of `state_dict` must have the shape of its parameter, {shapes[0]}; got {shapes[1]}.")


def _number(value: Any) -> Any:
    """A float, of a tensor too."""
    return float(value.detach()) if isinstance(value, torch.Tensor) else value


def _listed(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
