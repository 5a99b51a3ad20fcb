r"""Conversion of hyperparameters and momentum buffers between optimisers that take the same steps.

The linear methods with one buffer m are filters of the gradients g,

    m = mu m + a g,  p -= lr (c g + d m),

with the parameters p and four numbers (mu, a, c, d):

    SGD         mu = 0                              HeavyBall     a = 1,       c = 0,       d = 1
    SGDM        a = 1 - mu,  c = 0,       d = 1     Nesterov      a = 1,       c = 1,       d = mu
    QHM         a = 1 - mu,  c = 1 - nu,  d = nu    torch's SGD   a = 1 - dampening,  c, d as HeavyBall or, with nesterov, as Nesterov

The impulse response of a filter is lr (c + d a) in the step of the gradient and lr d a mu^j, j steps later. Two filters with the same mu take the
same steps if their responses agree up to a factor, which is absorbed into `lr`. The pending contribution of the buffer, lr d m, must be preserved;
this determines the new buffer. The conversion is exact for a constant momentum. Under a momentum schedule, a sum and an average of gradients are
different methods.

A method is named as its class ("HeavyBall"), and torch's own SGD as `TORCH` ("torch.optim.SGD"). A parameter group is an entry of `param_groups` of
an optimiser or of its state dictionary: a dict with "params", "lr" and the hyperparameters.
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
    **dict.fromkeys(("SGDM", "HeavyBall", "Nesterov", "SNGM", "RandomScaling", "Signum"), ("momentum",)),
    "QHM": ("momentum", "nu"),
    "PNM": ("momentum", "b0"),
    "SGDF": ("momentum", "b2", "eps"),
    "DANA": ("delta", "ratio", "power", "share", "batch", "spectrum"),
    "MaSS": ("momentum", "c"),
    "Lion": ("momentum", "b2"),
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
    """The linear filter m = mu m + a g, p -= lr (c g + d m) of the gradients g, with buffer m and parameters p.

    Attributes:
        mu: The momentum, the factor of the buffer, in [0, 1).
        a: The weight with which a gradient enters the buffer.
        c: The weight of the gradient itself in the step.
        d: The weight of the buffer in the step.
    """

    mu: float
    a: float
    c: float
    d: float

    @property
    def later(self) -> float:
        """The weight d a: a gradient has the weight d a mu^j in the step that is taken j >= 1 steps later."""
        return self.d * self.a

    @property
    def gain(self) -> float:
        """The DC gain c + d a / (1 - mu), the sum of a gradient's weights in all steps; lr times it is the effective learning rate."""
        return self.c + self.later / (1 - self.mu)

    def reduced(self) -> Filter:
        """Return the filter (mu, a, c, d) = (0, 1, 0, c + d a), which takes the same steps, if mu = 0 or d a = 0; else this filter itself."""
        return Filter(0.0, 1.0, 0.0, self.c + self.later) if self.mu == 0 or self.later == 0 else self


_PLAIN = Filter(0.0, 1.0, 0.0, 1.0)


def _torch(n: Mapping[str, Any]) -> Filter:
    """Return the filter of torch's SGD; without momentum it is plain SGD, because torch then ignores the dampening.

    Args:
        n: The hyperparameters, with the keys "momentum", "dampening" and "nesterov".
    """
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
    **dict.fromkeys(("SNGM", "RandomScaling", "DANA", "MaSS", "Signum", "Lion"), lambda n: None),
    TORCH: _torch,
}
"""Each method as a filter, given its hyperparameters; None where it is not a filter of this form."""


class Match(NamedTuple):
    """The settings with which one method takes the steps of another, the source.

    Attributes:
        numbers: The hyperparameters besides the learning rate, by name, such as {"momentum": 0.9, "nu": 0.7}.
        rate: The factor by which the learning rate of the source is multiplied.
        buffer: The factor by which the momentum buffer of the source is multiplied; 0 if the source needs no buffer.
    """

    numbers: dict[str, float]
    rate: float
    buffer: float


def match(source: Filter | None, target: str) -> Match | None:
    """Return the settings with which the method `target` takes the steps of a given linear filter of the gradients.

    Args:
        source: The filter m = mu m + a g, p -= lr (c g + d m) of the gradients g; None for a method of another form, which nothing matches.
        target: The name of the method, a key of `NUMBERS`, such as "HeavyBall".

    Returns:
        The hyperparameters of `target`, with factors for the learning rate and the buffer; None if it cannot take these steps.
    """
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

    Heavy ball at lr equals SGDM at lr / (1 - momentum). Nesterov at lr equals QHM at lr / (1 - momentum) with nu = momentum. The target "sgd" is an
    approximation: it gets the effective learning rate, `lr` times the DC gain (the sum of a gradient's weights in all steps), as in Theorem 3.5.

    Args:
        lr: The learning rate of the source.
        momentum: The momentum of the source, in [0, 1); 0 for "sgd".
        source: "sgd", "sgdm" (Def. 2.3), "heavy-ball" (Eq. (1), torch's form) or "nesterov" (torch's form).
        target: One of these four names, or "qhm".

    Returns:
        The keyword arguments of the target: a dict with "lr" and, where the target has them, "momentum" and "nu".

    Raises:
        ValueError: If a name is unknown, `lr` is negative or not finite, `momentum` is not in [0, 1), or the target cannot take the steps of the source.

    Example:
        >>> from sdetools.bridge import convert
        >>> convert(0.1, 0.9, source="heavy-ball", target="sgdm")
        {'lr': 1.0, 'momentum': 0.9}
        >>> convert(1.0, 0.9, source="sgdm", target="sgd")
        {'lr': 1.0}
        >>> convert(0.1, 0.9, source="nesterov", target="qhm")
        {'lr': 1.0, 'momentum': 0.9, 'nu': 0.9}
    """
    for name, value, known in (("source", source, _NAMED), ("target", target, {*_NAMED, "qhm"})):
        _check.choice(name, value, sorted(known))
    lr, mu = _check.non_negative("lr", lr, "To go up, change the sign of the loss."), _check.momentum("momentum", momentum)
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
    """Return a number rounded to 15 significant digits, so that 0.1 / (1 - 0.9) is 1.0."""
    return float(f"{value:.15g}")


class FamilyOptimizer(Protocol):
    """The interface of a torch optimiser of the momentum family, `optimiser_base.Optimizer`, as far as the conversion needs it.

    `buffers` are the names of the tensors stored per parameter, `defaults` the default hyperparameters by name, `param_groups` the groups, dicts by name.
    `checked(settings)` raises a ValueError for hyperparameters of a group, by name, that are out of range.
    """

    buffers: ClassVar[tuple[str, ...]]
    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]

    def checked(self, settings: dict[str, Any]) -> Any: ...


def translated_state(optimizer: FamilyOptimizer, method: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the state dictionary of another optimiser, so that `optimizer` continues with the same steps.

    Args:
        optimizer: The optimiser that loads the state.
        method: The name of its method, such as "SGDM".
        state_dict: The state of an optimiser of the momentum family or of `torch.optim.SGD`, as `state_dict()` returns it.

    Returns:
        The translated state dictionary, in torch's format: "state" with the buffers by parameter, and "param_groups". If the numbers of groups or
        parameters differ from those of `optimizer`, it is a copy without changes, and torch's `load_state_dict` reports the difference.

    Raises:
        ValueError: If `state_dict` is not an optimiser's, if `method` cannot take the steps of the saved optimiser, or if a buffer is missing or
            has another shape than its parameter.
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
    """Return the name of the method that saved a parameter group.

    Args:
        group: The saved group.
        method: The method that loads it; it has precedence where the hyperparameters fit several methods.
        own: The corresponding group of the loading optimiser.

    Returns:
        The entry "method" of the group or, without one, the method whose hyperparameters the group has; `TORCH` for torch's SGD.

    Raises:
        ValueError: If the group has no learning rate, or if its entries fit no method or several.
    """
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
    """Return the hyperparameters of a saved group that determine its steps besides the learning rate, as a dict by name.

    `group` is the saved group, and `source` the method that saved it. A missing entry gets the default of `optimizer`, which loads the group, and
    is None without one; for torch's SGD it gets torch's default.
    """
    if source == TORCH:
        options = _OF_TORCH | {name: group[name] for name in ("momentum", *_OF_TORCH) if name in group}
        del options["fused"]
        return options | {name: _number(options[name]) for name in ("momentum", "dampening")}
    return {name: group.get(name, optimizer.defaults.get(name)) for name in NUMBERS.get(source, ())}


def _match_or_raise(source: str, method: str, numbers: Mapping[str, Any]) -> Match:
    """Return the settings with which `method` takes the steps of `source`, as `match` does.

    Args:
        source: The name of the method that saved the state.
        method: The name of the method that loads it.
        numbers: The hyperparameters of the source, by name.

    Raises:
        ValueError: If there are no such settings; the message names the methods that have some.
    """
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
    """Raise a ValueError for settings and states of torch's SGD whose continuation no filter can reproduce.

    These are `differentiable`, a momentum outside [0, 1), and dampening while a trainable parameter still lacks its momentum buffer.

    `numbers` are the hyperparameters of the group by name, `params` the parameters of the loading optimiser by their keys in the saved state, and
    `state` the saved buffers by these keys.
    """
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
    """Raise a ValueError if a saved parameter has only some of its buffers, or one whose shape differs from the parameter's.

    A buffer that is None counts as absent. The entry of a parameter without any buffers is removed from `state`, so that they start at zero.

    `params` are the parameters of the loading `optimizer`, and `state` the saved buffers, both by the parameters' keys in the saved state; `method`
    is the optimiser's method, for the message.
    """
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
    """Return a float for a tensor with one element; any other value unchanged."""
    return float(value.detach()) if isinstance(value, torch.Tensor) else value


def _listed(names: Any) -> str:
    """Return names joined with commas, in alphabetical order; "none" if there are none."""
    return ", ".join(sorted(map(str, names))) or "none"
