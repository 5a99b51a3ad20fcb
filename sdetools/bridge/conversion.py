r"""Conversion of hyperparameters and momentum buffers between optimisers that take the same steps.

The linear methods with one buffer are filters of the gradients,

    m = mu m + a g,  p -= lr (c g + d m),

    SGD         mu = 0                              HeavyBall     a = 1,       c = 0,       d = 1
    SGDM        a = 1 - mu,  c = 0,       d = 1     Nesterov      a = 1,       c = 1,       d = mu
    QHM         a = 1 - mu,  c = 1 - nu,  d = nu    torch's SGD   a = 1 - dampening,  c, d as HeavyBall or, with nesterov, as Nesterov

The impulse response of a filter is lr (c + d a) in the step of the gradient and lr d a mu^j, j steps later. Two filters with the same mu
take the same steps if their responses agree up to a factor, which is absorbed into `lr`. The pending contribution of the buffer, lr d m,
must be preserved; this determines the new buffer. The conversion is exact for a constant momentum. Under a momentum schedule, a sum and an
average of gradients are different methods.
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
"""Hyperparameters of each method besides its learning rate."""
NEUTRAL: dict[str, Any] = {"weight_decay": 0.0, "decoupled": False, "foreach": None, "maximize": False}
"""Entries that every parameter group of the family has, with the values assumed where a state dictionary has none."""
_OF_TORCH = {"dampening": 0.0, "nesterov": False, "differentiable": False, "fused": None}
"""Further entries of torch's parameter groups; only state dictionaries of torch's SGD have a dampening."""
_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
"""Entries of a group that are learning rates: the optimiser's, and those that torch's schedulers store there."""
_SCHEDULED = (*_RATES, "base_momentum", "max_momentum")


class Filter(NamedTuple):
    """The linear filter m = mu m + a g, p -= lr (c g + d m)."""

    mu: float
    a: float
    c: float
    d: float

    @property
    def later(self) -> float:
        """The weight of a gradient j >= 1 steps later, divided by mu^j."""
        return self.d * self.a

    @property
    def gain(self) -> float:
        """The DC gain, the sum of all weights of a gradient: lr gain is the effective learning rate."""
        return self.c + self.later / (1 - self.mu)

    def reduced(self) -> Filter:
        """Return an equal filter without a buffer, where the buffer has no effect."""
        return Filter(0.0, 1.0, 0.0, self.c + self.later) if self.mu == 0 or self.later == 0 else self


_PLAIN = Filter(0.0, 1.0, 0.0, 1.0)


def _torch(n: Mapping[str, Any]) -> Filter:
    """Return torch's SGD as a filter."""
    mu, a = n["momentum"], 1 - n["dampening"]
    if mu == 0:  # then torch has no buffer and ignores the dampening
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
"""Each method as a filter, given its hyperparameters; None where it is not a filter of this form."""


class Match(NamedTuple):
    """The hyperparameters of a method that takes the steps of another, and the factors for its learning rate and its buffer."""

    numbers: dict[str, float]
    rate: float
    buffer: float


def match(source: Filter | None, target: str) -> Match | None:
    """Return the settings with which the method `target` takes the steps of a filter; None where there are none."""
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
    """Return the settings with which the optimiser `target` takes the steps of `source`, at constant momentum.

    Heavy ball at lr equals SGDM at lr / (1 - momentum). Nesterov at lr equals QHM at lr / (1 - momentum) with nu = momentum. The target
    "sgd" is an approximation: it gets the effective learning rate, `lr` times the DC gain, as in Theorem 3.5.

    Args:
        lr: The learning rate of the source.
        momentum: The momentum of the source, in [0, 1); 0 for "sgd".
        source: "sgd", "sgdm" (Def. 2.3), "heavy-ball" (Eq. (1), torch's form) or "nesterov" (torch's form).
        target: The same, or "qhm".

    Returns:
        The keyword arguments of the target.

    Raises:
        ValueError: If no settings of the target give the steps of the source.

    Example:
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
            'Only "qhm" can or, up to the order of Theorem 3.5, "sgd".'
        )
    return {"lr": _rounded(lr * found.rate)} | {name: _rounded(value) for name, value in found.numbers.items()}


def _rounded(value: float) -> float:
    """Round to 15 significant digits, so that 0.1 / (1 - 0.9) is 1.0."""
    return float(f"{value:.15g}")


class FamilyOptimizer(Protocol):
    """The interface of an optimiser of the family (`optimiser_base.py`) that the conversion needs."""

    buffers: ClassVar[tuple[str, ...]]
    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]

    def checked(self, settings: dict[str, Any]) -> Any: ...


def translated_state(optimizer: FamilyOptimizer, method: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the state dictionary of another optimiser, so that `optimizer` continues with the same steps.

    Args:
        optimizer: The optimiser that loads the state.
        method: The name of its method.
        state_dict: The state of an optimiser of the family or of `torch.optim.SGD`.

    Returns:
        The translated state dictionary. If the numbers of groups or parameters differ, it is unchanged and torch reports the difference.

    Raises:
        ValueError: If `method` cannot take the steps of the saved optimiser.
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
            found = _match_or_raise(source, method, numbers)
            for key in params:
                buffer = state.pop(key, {}).get("momentum_buffer")
                if buffer is not None and found.buffer:
                    state[key] = {"momentum_buffer": buffer * found.buffer}
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
    """Return the method that saved a group: by its name or, without one, by its hyperparameters, with precedence for `method`."""
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
    keys = group.keys() - {"params", "param_names", *NEUTRAL, *_SCHEDULED}
    if set(NUMBERS.get(method, ())) <= keys <= own.keys():
        return method
    fits = [name for name, numbers in NUMBERS.items() if keys == set(numbers)]
    if len(fits) == 1:
        return fits[0]
    raise ValueError(
        f"`state_dict` must be of {method}, of another of this family or of {TORCH}; got one with {_listed(keys)} in its groups"
        + (f", which may be of {', '.join(fits)}. Write its name into them: group['method'] = {fits[0]!r}." if fits else ".")
    )


def _numbers(group: Mapping[str, Any], source: str, optimizer: FamilyOptimizer) -> dict[str, Any]:
    """Return the hyperparameters of a group that determine its steps, completed with defaults."""
    if source == TORCH:
        options = _OF_TORCH | {name: group[name] for name in ("momentum", *_OF_TORCH) if name in group}
        del options["fused"]
        return options | {name: _number(options[name]) for name in ("momentum", "dampening")}
    return {name: group.get(name, optimizer.defaults.get(name)) for name in NUMBERS.get(source, ())}


def _match_or_raise(source: str, method: str, numbers: Mapping[str, Any]) -> Match:
    """Return the match of `method` to the source; ValueError, with the methods that have one, where there is none."""
    steps = FILTERS[source](numbers) if source in FILTERS and None not in numbers.values() else None
    found = match(steps, method) if method in NUMBERS and (steps is None or steps.a != 0) else None
    if found is not None:
        return found
    shown = ", ".join(f"{name}={value!r}" for name, value in numbers.items() if value or name == "momentum")
    able = [] if steps is None or steps.a == 0 else [name for name in NUMBERS if match(steps, name)]
    able = able or ([source] if source != TORCH else [])
    raise ValueError(
        f"`state_dict` must be of a method whose steps {method} can take; got that of {source}{f' with {shown}' if shown else ''}. "
        + (f"Load it into {' or '.join(able)}." if able else f"Only {TORCH} itself can continue with it.")
    )


def _check_torch(numbers: Mapping[str, Any], params: Mapping[Any, torch.Tensor], state: Mapping[Any, Any]) -> None:
    """Refuse settings and states of torch's SGD that a filter cannot reproduce."""
    if numbers["differentiable"]:
        raise ValueError("`differentiable` of the groups must be False, because steps are not recorded by autograd; got True.")
    _check.momentum("momentum", numbers["momentum"])
    if numbers["momentum"] == 0 or numbers["dampening"] == 0:
        return
    bare = sum(p.requires_grad and (state.get(key) or {}).get("momentum_buffer") is None for key, p in params.items())
    if bare:
        raise ValueError(
            f"`state_dict` of {TORCH} with dampening must have a buffer of every parameter, because torch's first buffer is the "
            f"undamped gradient; got none for {bare} of them. Take a step with it first."
        )


def _check_buffers(optimizer: FamilyOptimizer, method: str, params: Mapping[Any, torch.Tensor], state: dict[Any, Any]) -> None:
    """Refuse states with missing or misshaped buffers; a buffer that is None counts as absent."""
    for key, p in params.items():
        values = {name: value for name, value in (state.get(key) or {}).items() if value is not None}
        if not values:
            state.pop(key, None)
            continue
        for name in optimizer.buffers:
            if name not in values:
                raise ValueError(f"`state_dict` must have each buffer of {method}; got no {name}, but {_listed(values)}.")
            if values[name].shape != p.shape:
                shapes = tuple(p.shape), tuple(values[name].shape)
                raise ValueError(f"a {name} of `state_dict` must have the shape of its parameter, {shapes[0]}; got {shapes[1]}.")


def _number(value: Any) -> Any:
    """Convert a number to a float where it is a tensor."""
    return float(value.detach()) if isinstance(value, torch.Tensor) else value


def _listed(names: Any) -> str:
    """Join names with commas, in alphabetical order."""
    return ", ".join(sorted(map(str, names))) or "none"
