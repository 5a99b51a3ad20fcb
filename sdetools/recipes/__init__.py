"""The paper's experiments on real networks as recipes: one module each, with `Settings`, `MINIATURE` and `main(settings, trainer)`.

`Settings` is a frozen dataclass with the names in `GRID` that only select the runs; `main` trains with a `Trainer` and returns a `RecipeOutcome`. To add a
recipe, write a module like these and list it in `RECIPES`.

Words of this package:

- run: one training of a network, with one method ("SGD" or "SGDM"), one seed and one set of hyperparameters.
- log: the numbers of a run, one row per step: a dict with "step", "lr", "loss" and, in rows with an evaluation, numbers such as "test_accuracy"; a
number that is not finite is None. The last row of a diverged run has "diverged": True.
- effective learning rate: that of plain SGD that replaces SGDM. In the form "sgdm" (Def. 2.3) it is the learning rate itself, in the forms "heavy-ball"
(Eq. (1)) and "nesterov" it is lr / (1 - momentum).
- batch number: 0, 1, ... through a run; piece: one of `pieces` equal parts of a batch, which is passed through the network at once.
- SVAG and its amplification l: two batches per step, which multiply the noise by l; see `sdetools.bridge.SVAG`.
- miniature: the same experiment with small real data and a small model; `MINIATURE` is a dict of the settings that differ.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from sdetools import _check
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
"""Modules of the recipes, by their names on the command line."""
RENAMED = {"held": "held_out"}
"""Settings by their earlier names, which are accepted for one release."""


@dataclass
class RecipeOutcome:
    """Result of a recipe: its table, its figure and its training runs.

    Attributes:
        columns: The heads of the table, texts.
        rows: The rows of the table, each with one cell per column, a text or a number.
        figure: A function without arguments that draws the figure and returns it, a matplotlib figure.
        runs: The training runs: lists over seeds of `TrainingRun`s, by keys that the recipe's `main` defines, such as (l, method).
        chosen: The hyperparameters chosen by the search, by keys such as (batch size, method); empty for a recipe without a search.
    """

    columns: list[str]
    rows: list[list[Any]]
    figure: Callable[[], Any]
    runs: Mapping[Any, Any]
    chosen: Mapping[Any, Any] = dataclasses.field(default_factory=dict)


def recipe(name: str) -> Any:
    """Return the imported module of the recipe `name`, a key of `RECIPES` such as "resnet32-cifar10"; ValueError for an unknown name."""
    if name not in RECIPES:
        meant = _check.suggestion(name, RECIPES)
        raise ValueError(f"RECIPE must be one of {', '.join(RECIPES)}; got {name!r}.{f' {meant}' if meant else ''}")
    return import_module(f"{__name__}.{RECIPES[name]}")


def settings_of(module: Any, miniature: bool, given: Sequence[str]) -> Any:
    """Return the settings of a recipe, with some of them changed.

    Args:
        module: The module of the recipe.
        miniature: Start from `MINIATURE`, the small version, instead of the paper's experiment.
        given: Changed settings as texts `key=value`, as after `--set`, such as "lr=0.1" or "batch=64,128"; the last one counts if a key comes twice.

    Returns:
        An instance of the recipe's `Settings`.

    Raises:
        ValueError: If a text is not of this form, a key is unknown, or a value has another type or is out of range.
    """
    hints = get_type_hints(module.Settings)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(module.Settings)}
    values: dict[str, Any] = dict(module.MINIATURE) if miniature else {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be key=value; got {text!r}.")
        if RENAMED.get(key) in fields:
            warnings.warn(f"the setting `{key}` is now `{RENAMED[key]}`.", DeprecationWarning, stacklevel=2)
            key = RENAMED[key]
        if key not in fields:
            raise ValueError(f"--set must name one of {', '.join(fields)}; got {key!r}.")
        values[key] = _value(key, value, fields[key])
    return module.Settings(**values)


def listing(settings: Any) -> list[list[str]]:
    """Return a table of the settings, with their descriptions from the source code.

    Args:
        settings: The settings of a recipe, an instance of its `Settings`.

    Returns:
        One row per setting, in the order of the class, with four texts: its name; its value in the form that `--set` takes; the mark of its source,
        such as "[paper]" for a value stated in the paper (empty without a mark or if the value was changed); its meaning.
    """
    source = inspect.getsource(type(settings))
    body, lines, descriptions = ast.parse(source).body[0], source.splitlines(), {}
    for part, after in pairwise([*getattr(body, "body", []), None]):
        if isinstance(part, ast.AnnAssign):
            words = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            descriptions[ast.unparse(part.target)] = " ".join(str(words).split()), lines[part.lineno - 1].partition("  # ")[2]
    rows = []
    for field in dataclasses.fields(settings):
        value, (what, comment) = getattr(settings, field.name), descriptions[field.name]
        marked = re.match(r"(\[\w+\])[ :,]*(.*)", comment)
        if marked:
            mark, comment = marked.groups() if value == field.default else ("", "")
        rows.append([field.name, _text(value), mark if marked else "", f"{what} ({comment})".strip() if comment else what])
    return rows


def _text(value: Any) -> str:
    """Return the value of a setting as text for `--set`, the inverse of `_value`; a tuple becomes a comma-separated list."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def check_positive(settings: Any, *names: str) -> None:
    """Raise a ValueError if an attribute of `settings` named in `names`, a number or a tuple of numbers, is not positive; None is accepted."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not all(v > 0 for v in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"`{name}` must be positive; got {name}={value!r}.")


def check_choice(settings: Any, name: str, known: Sequence[str] | Mapping[str, Any]) -> None:
    """Raise a ValueError if the attribute `name` of `settings`, a word or a tuple of words, contains a word that is not in `known`."""
    value = getattr(settings, name)
    for word in value if isinstance(value, tuple) else (value,):
        _check.choice(name, word, known)


def optimiser(method: str, params: Any, lr: float, settings: Any, **options: Any) -> Any:
    """Return a torch optimiser: SGD with momentum or, without momentum, plain SGD at the effective learning rate of the former.

    The effective learning rate is `lr` in the form "sgdm", and lr / (1 - momentum) in the forms "heavy-ball" and "nesterov".

    Args:
        method: "SGD" for plain SGD; any other text, by convention "SGDM", for momentum.
        params: The parameters or parameter groups, as in torch.
        lr: The learning rate of SGDM, in the form `settings.form`, for both methods.
        settings: Settings with `form` ("sgdm", "heavy-ball" or "nesterov") and `momentum` in [0, 1).
        **options: Further options of the optimiser, such as `weight_decay`.

    Raises:
        ValueError: If `lr` is negative, `form` unknown or `momentum` outside its range.
    """
    from sdetools.bridge.torch_optimisers import SGD, convert, named

    if method == "SGD":
        return SGD(params, lr=convert(lr, settings.momentum, source=settings.form, target="sgd")["lr"], **options)
    return named(settings.form)(params, lr=lr, momentum=settings.momentum, **options)


def diverged(run: TrainingRun) -> bool:
    """Return whether a run diverged: the last row of its log says "diverged", or has a number that is None because it was not finite."""
    return row_diverged(run.final)


def row_diverged(row: Mapping[str, Any]) -> bool:
    """Return whether a row of a log belongs to a diverged network: it says so, or one of its numbers is None, because it was not finite."""
    return bool(row.get("diverged")) or None in row.values()


def ranked(
    runs: Mapping[Key, TrainingRun], score: str, of: Callable[[TrainingRun], float | None] | None = None
) -> tuple[list[Key], list[Key]]:
    """Return the keys of runs from the best to the worst, and those of runs that diverged; equals keep their order.

    Args:
        runs: Training runs, by their keys.
        score: The logged number that is compared at the end of each run: the smallest is best if the name ends in "loss", else the largest.
        of: The number to be compared, as a function of a run; by default `score` in the last row of its log. A value of None counts as a divergence.

    Returns:
        Two lists: the keys of finite runs, the best first, and those of diverged runs, in the order of `runs`.
    """
    sign = 1 if score.endswith("loss") else -1
    scores = {key: run.final.get(score) if of is None else of(run) for key, run in runs.items() if not diverged(run)}
    found = {key: sign * value for key, value in scores.items() if value is not None}
    return sorted(found, key=found.__getitem__), [key for key in runs if key not in found]


def best(runs: Mapping[Key, TrainingRun], score: str, of: Callable[[TrainingRun], float | None] | None = None) -> Key:
    """Return the key of the best run; the first one among equals. A run that diverged is never chosen.

    Args:
        runs: Training runs, by their keys.
        score: The logged number that is compared at the end of each run: the smallest is best if the name ends in "loss", else the largest.
        of: The number to be compared, as a function of a run; by default `score` in the last row of its log.

    Raises:
        ValueError: If no run is left, because all diverged.
    """
    found, _ = ranked(runs, score, of)
    if not found:
        raise ValueError(
            f"a search must have a run that does not diverge; all {len(runs)} did, such as {next(iter(runs.values())).name}. Try smaller "
            "learning rates, such as --set grid=... or --set lr=...; finished runs are not repeated."
        )
    return found[0]


def finals(runs: Sequence[TrainingRun], name: str = "test_accuracy", last: int = 1, of_diverged: float = np.nan) -> np.ndarray:
    """Return the numbers called `name` at the end of the runs, times 100: percentages `(runs,)`, in the order of `runs`.

    Args:
        runs: The training runs.
        name: The logged number, a fraction in [0, 1].
        last: The number of evaluations at the end of a run whose median is taken; 1 takes the last one.
        of_diverged: The percentage that counts for a run that diverged, such as chance level. By default NaN: its weights classify nothing, and
            the class that NaN is mapped to has an accuracy without meaning.
    """
    return np.array([of_diverged if diverged(run) else 100 * float(np.median(run.curve(name)[1][-last:])) for run in runs])


def _value(key: str, text: str, kind: Any) -> Any:
    """Convert the text of `--set` to the type of a setting.

    Args:
        key: The name of the setting, for the message.
        text: A number, a word, true or false, a comma-separated list for a tuple, or none for a setting that may be None.
        kind: The type of the setting, such as `int`, `tuple[float, ...]` or `float | None`.

    Raises:
        ValueError: If the text cannot be converted.
    """
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
        wanted = {bool: "true or false", int: "an integer", float: "a number"}.get(kind, "numbers separated by commas")
        raise ValueError(f"`{key}` must be {wanted}; got {text!r}.") from None


def identity_of(name: str, settings: Any) -> str:
    """Return the text (JSON) that identifies the runs and checkpoints of an experiment; those of another identity are refused.

    It contains the name of the recipe, the version of sdetools and all settings except those in `GRID`, which only select the runs.

    Args:
        name: The name of the recipe, such as "resnet32-cifar10".
        settings: Its settings, a dataclass with the names of `GRID`.
    """
    relevant = {k: v for k, v in dataclasses.asdict(settings).items() if k not in settings.GRID}
    return json.dumps({"recipe": name, "sdetools": __version__, **relevant}, sort_keys=True)


def spread(values: np.ndarray) -> str:
    """Return the mean and the standard deviation of `values` `(n,)` as text, such as "93.21 (0.15)"; only the mean for a single value.

    NaN stands for a run that diverged. Such runs are counted, and the mean is that of the others: "2 of 5 diverged, others 93.21 (0.15)".

    Example:
        >>> import numpy as np; from sdetools.recipes import spread
        >>> spread(np.array([93.0, 94.0])), spread(np.array([93.0, np.nan])), spread(np.array([np.nan]))
        ('93.50 (0.71)', '1 of 2 diverged, others 93.00', '1 of 1 diverged')
    """
    kept = values[np.isfinite(values)]
    text = f"{kept.mean():.2f} ({kept.std(ddof=1):.2f})" if len(kept) > 1 else f"{kept[0]:.2f}" if len(kept) else ""
    if len(kept) == len(values):
        return text
    return f"{len(values) - len(kept)} of {len(values)} diverged{', others ' if text else ''}{text}"


def counted(texts: Sequence[str]) -> str:
    """Return different texts with their numbers, the most frequent first, "8, 0.01 (3); 4, 0.02 (2)"; only the text if all are equal.

    Example:
        >>> from sdetools.recipes import counted
        >>> counted(["b", "a", "b"]), counted(["a", "a"])
        ('b (2); a (1)', 'a')
    """
    found = Counter(texts).most_common()
    return "; ".join(text if len(found) == 1 else f"{text} ({n})" for text, n in found)


def mean_over_seeds(values: np.ndarray, name: str = "") -> Estimate:
    """Return the mean with its standard error, for Student's t interval; the error of a single value is infinite.

    If a value is NaN, because its run diverged, the mean is NaN too.

    Args:
        values: The values, `(seeds,)`.
        name: The name of the estimate, for printing.
    """
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else np.inf
    return Estimate(float(values.mean()), error, len(values), name=name)


def difference(values: np.ndarray) -> str:
    """Return the mean of paired differences `values` `(seeds,)` as text with its 95 % t interval, "0.30 [0.10, 0.50]"; [-inf, inf] for a single one.

    The difference of a pair with a run that diverged is NaN. Then the mean is unknown, because that of the other pairs would be biased.
    """
    unknown = int(np.isnan(values).sum())
    if unknown:
        return f"unknown, {unknown} of {len(values)} pairs diverged"
    found = mean_over_seeds(values)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
