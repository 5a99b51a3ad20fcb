"""The paper's experiments as recipes: a file each, with `Settings`, `MINIATURE` and `main(settings, trainer)`.

A recipe of one's own is a file like these and a line in `RECIPES`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

RECIPES = {"resnet32-cifar10": "resnet32_cifar10"}
"""Names in a shell, and files."""


@dataclass
class Outcome:
    """What a recipe found: a table, a figure, and the runs by their keys."""

    columns: list[str]
    rows: list[list[Any]]
    figure: Callable[[], Any]
    runs: Mapping[Any, Any]


def recipe(name: str) -> Any:
    """The module of a recipe."""
    if name not in RECIPES:
        raise ValueError(f"RECIPE must be one of {', '.join(RECIPES)}; got {name!r}.")
    return import_module(f"{__name__}.{RECIPES[name]}")


def settings_of(module: Any, miniature: bool, given: Sequence[str]) -> Any:
    """The recipe's settings with `key=value` texts put in; ValueError for an unknown key and a value of another kind."""
    hints = get_type_hints(module.Settings)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(module.Settings)}
    values: dict[str, Any] = dict(module.MINIATURE) if miniature else {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be key=value; got {text!r}.")
        if key not in fields:
            raise ValueError(f"--set must name one of {', '.join(fields)}; got {key!r}.")
        values[key] = _value(key, value, fields[key])
    for key in ("lr", "batch", "epochs"):
        if key in values and not values[key] > 0:
            raise ValueError(f"`{key}` must be positive; got {key}={values[key]!r}.")
    return module.Settings(**values)


def _value(key: str, text: str, kind: Any) -> Any:
    """The text as the field's type: a number, a word, true or false, or numbers with commas."""
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if get_origin(kind) is tuple:
            return tuple(get_args(kind)[0](part) for part in text.split(",") if part)
        return kind(text)
    except (ValueError, KeyError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "numbers with commas between them")
        raise ValueError(f"`{key}` must be {wanted}; got {text!r}.") from None


def identity_of(name: str, settings: Any) -> str:
    """What a checkpoint belongs to: the recipe and all settings but those that only say which runs there are."""
    told = {k: v for k, v in dataclasses.asdict(settings).items() if k not in settings.GRID}
    return json.dumps({"recipe": name, **told}, sort_keys=True)


def spread(values: np.ndarray) -> str:
    """Mean (standard deviation)."""
    if len(values) < 2:
        return f"{values.mean():.2f}"
    return f"{values.mean():.2f} ({values.std(ddof=1):.2f})"


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's interval over seeds."""
    from scipy.special import stdtrit

    mean = float(values.mean())
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * float(values.std(ddof=1)) / len(values) ** 0.5
    return mean, mean - half, mean + half


def difference(values: np.ndarray) -> str:
    """Mean [95 % interval]."""
    mean, low, high = interval(values)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"
