"""The paper's experiments as recipes: a file each, with `Settings`, `MINIATURE` and `main(settings, trainer)`.

A recipe of one's own is a file like these and a line in `RECIPES`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from sdetools._version import __version__
from sdetools.estimates import Estimate

if TYPE_CHECKING:
    from sdetools.recipes.training import TrainingRun

Key = TypeVar("Key")

RECIPES = {
    "resnet50-imagenet": "resnet50_imagenet",
    "resnet32-cifar10": "resnet32_cifar10",
    "roberta-few-shot": "roberta_few_shot",
}
"""Names in a shell, and files."""


@dataclass
class RecipeOutcome:
    """What a recipe found: a table, a figure, the runs by their keys, and what its search chose."""

    columns: list[str]
    rows: list[list[Any]]
    figure: Callable[[], Any]
    runs: Mapping[Any, Any]
    chosen: Mapping[Any, Any] = dataclasses.field(default_factory=dict)


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
    return module.Settings(**values)


def listing(settings: Any) -> list[list[str]]:
    """A row a setting: its name, its value as `--set` takes it, where that comes from unless it was changed, what it is; in the source's words."""
    source = inspect.getsource(type(settings))
    body, lines, told = ast.parse(source).body[0], source.splitlines(), {}
    for part, after in pairwise([*getattr(body, "body", []), None]):
        if isinstance(part, ast.AnnAssign):
            words = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            told[ast.unparse(part.target)] = " ".join(str(words).split()), lines[part.lineno - 1].partition("  # ")[2]
    rows = []
    for field in dataclasses.fields(settings):
        value, (what, comment) = getattr(settings, field.name), told[field.name]
        marked = re.match(r"(\[\w+\])[ :,]*(.*)", comment)
        if marked:
            mark, comment = marked.groups() if value == field.default else ("", "")
        rows.append([field.name, _text(value), mark if marked else "", f"{what} ({comment})".strip() if comment else what])
    return rows


def _text(value: Any) -> str:
    """The inverse of `_value`."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def positive(settings: Any, *names: str) -> None:
    """Refuse numbers, and tuples with numbers, that are not positive."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not all(v > 0 for v in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"`{name}` must be positive; got {name}={value!r}.")


def chosen(settings: Any, name: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    """Refuse a word, or a tuple with a word, that is not known."""
    value = getattr(settings, name)
    for word in value if isinstance(value, tuple) else (value,):
        if word not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}; got {word!r}.")


def optimiser(way: str, params: Any, lr: float, settings: Any, **options: Any) -> Any:
    """ "SGDM" in the form of the settings at `lr` and their momentum, or "SGD" at the rate that is equivalent to it."""
    from sdetools.bridge.torch_optimisers import SGD, convert, named

    if way == "SGD":
        return SGD(params, lr=convert(lr, settings.momentum, source=settings.form, target="sgd")["lr"], **options)
    return named(settings.form)(params, lr=lr, momentum=settings.momentum, **options)


def best(runs: Mapping[Key, TrainingRun], score: str) -> Key:
    """The key of the run with the largest final `score`, or the smallest where that is a loss; of equals the first. A run that diverges is
    the worst."""
    sign = -1 if score.endswith("loss") else 1

    def worth(key: Key) -> float:
        end = runs[key].final
        return -np.inf if end.get("diverged") or end[score] is None else sign * end[score]

    return max(runs, key=worth)


def finals(runs: Sequence[TrainingRun], name: str = "test_accuracy") -> np.ndarray:
    """Shares of right answers at the end, in percent; 0 for a run that has none since it diverged."""
    return np.array([100 * (run.final.get(name) or 0.0) for run in runs])


def _value(key: str, text: str, kind: Any) -> Any:
    """The text as the field's type: a number, a word, true or false, numbers or words with commas, or none where that is allowed."""
    if isinstance(kind, UnionType):
        if text.lower() == "none":
            return None
        (kind,) = (part for part in get_args(kind) if part is not type(None))
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
    """What a checkpoint belongs to: the recipe, the version of sdetools, and all settings but those that only say which runs there are."""
    told = {k: v for k, v in dataclasses.asdict(settings).items() if k not in settings.GRID}
    return json.dumps({"recipe": name, "sdetools": __version__, **told}, sort_keys=True)


def spread(values: np.ndarray) -> str:
    """Mean (standard deviation)."""
    if len(values) < 2:
        return f"{values.mean():.2f}"
    return f"{values.mean():.2f} ({values.std(ddof=1):.2f})"


def mean_over_seeds(values: np.ndarray, name: str = "") -> Estimate:
    """The mean over seeds, with Student's interval."""
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else np.inf
    return Estimate(float(values.mean()), error, len(values), name=name)


def difference(values: np.ndarray) -> str:
    """Mean [95 % interval]."""
    found = mean_over_seeds(values)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
