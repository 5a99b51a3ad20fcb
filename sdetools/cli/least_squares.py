"""Least squares problems and methods from the texts of the command line: spectra, and rules with their numbers."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdetools._check import suggestion
from sdetools.cli.options import numbers

SPECTRA = "numbers '1,0.5,0.1', power:A,MODES, bulks:N1,N2,RATIO, features:A,FEATURES,INPUTS, or a file .npy, .csv or .txt"
"""The forms of --spectrum, for help and messages."""
SHARE = 0.25
"""The share of the noise budget of DANA where nothing else is given."""
_FIRST = {"DANA": ("share",)}
_SUFFIXES = (".npy", ".csv", ".txt")


@dataclass(frozen=True, eq=False)
class Method:
    """A method of `sdetools risk`, a linear optimiser with its numbers.

    Attributes:
        text: What the user wrote, such as "sgdm:0.9": its name in tables.
        rule: The optimiser, a `Dynamics` such as `SGDM`.
        rate: The learning rate in the rule's own form, such as gamma = eta (1 - beta) of heavy ball.
        effective: The learning rate of the SGD that moves equally far in the long run; NaN for a rule without such an SGD.
        numbers: The other numbers of the rule, by name, such as {"beta": 0.9}.
    """

    text: str
    rule: Any
    rate: float
    effective: float
    numbers: dict[str, float]


def spectrum_of(options: dict[str, Any]) -> Any:
    """Return the least squares problem of the options, a `Spectrum` of `st.exact`: eigenvalues, distances from the minimiser, label noise.

    Args:
        options: Values of the options by name. `spectrum` is a text in a form of `SPECTRA`, such as "1,0.5" or "power:1,1000". `targets` is a text with
            the start's distances from the minimiser, or the exponent b of distances j^-b for power and features; None for 1 (b = 0). `label_noise` is
            the standard deviation of the labels; None for 0, or the residual of data from a file. `seed` is that of random features.

    Raises:
        ValueError: If a text has no valid form, a number lies outside its range, or the file does not exist.
    """
    from sdetools import exact

    text, noise = options["spectrum"], options["label_noise"]
    kind, colon, rest = text.partition(":")
    given = None if options["targets"] is None else numbers("targets", options["targets"])
    s = 0.0 if noise is None else noise
    if Path(text).suffix in _SUFFIXES:
        return _from_file(Path(text), given, noise)
    if not colon:
        return _of_numbers(numbers("spectrum", text), given, s)
    sizes = {"power": 2, "bulks": 3, "features": 3}
    values = numbers("spectrum", rest) if kind in sizes else []
    if len(values) != sizes.get(kind):
        raise ValueError(f"`spectrum` must be {SPECTRA}; got {text!r}.")
    if kind == "bulks":
        rho = given or [1.0]
        if len(rho) > 2:
            raise ValueError(f"`targets` of bulks must be one distance or two; got {options['targets']!r}.")
        return exact.two_bulks((_whole(values[0]), _whole(values[1])), values[2], (rho[0], rho[-1]), s)
    b = given or [0.0]
    if len(b) != 1:
        raise ValueError(f"`targets` of {kind} must be one exponent b of the distances j^-b; got {options['targets']!r}.")
    if kind == "power":
        return exact.power_law(_whole(values[1]), values[0], b[0], s)
    return exact.random_features(_whole(values[1]), _whole(values[2]), values[0], b[0], s, options["seed"])


def methods_of(text: str, problem: Any, oracle: Any, eta: float) -> list[Method]:
    """Return the methods of a list such as "sgd,sgdm:0.9,dana:share=0.3".

    A method is a name, then its numbers, each after a colon: by name, or without one in the order of the rule. `eta=` is its own learning rate.

    Args:
        text: The list, separated by commas.
        problem: The `Spectrum`, whose eigenvalues give MaSS its numbers if none are given.
        oracle: The oracle of streaming least squares, `st.streaming_least_squares(...)`.
        eta: The learning rate of the equivalent SGD, for all methods without a rate of their own.

    Returns:
        The methods in the order of the list.

    Raises:
        ValueError: If a name or a number is unknown or given twice, a method is given twice, or a number lies outside its range.
    """
    from sdetools.dynamics.catalogue import optimisers

    entries = {_hyphenated(entry.name): entry for entry in optimisers() if entry.exact}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(f"`methods` must be names separated by commas; got {text!r}. Write for example sgd,sgdm:0.9.")
    for i, part in enumerate(parts):
        if part in parts[:i]:
            raise ValueError(f"`methods` must differ; got {part!r} twice.")
        if (name := part.partition(":")[0]) not in entries:
            others = [_hyphenated(entry.name) for entry in optimisers()]
            linear = "Others are not linear: the exact risk is that of linear rules."
            meant = linear if name in others else suggestion(name, entries, linear)
            raise ValueError(f"a method must be one of {', '.join(entries)}; got {part!r}. {meant}")
    return [_method(part, entries[part.partition(":")[0]], problem, oracle, eta) for part in parts]


def _method(text: str, entry: Any, problem: Any, oracle: Any, eta: float) -> Method:
    """Return one method of the list.

    Args:
        text: The method as the user wrote it, such as "sgdm:0.9".
        entry: The optimiser's entry in `dynamics.catalogue.optimisers`.
        problem: The `Spectrum`, whose eigenvalues give MaSS its numbers if none are given.
        oracle: The oracle of streaming least squares.
        eta: The learning rate of the equivalent SGD, if the text has none.

    Raises:
        ValueError: If a number is unknown, given twice or outside its range.
    """
    from sdetools.exact import mass_parameters

    given, defaults = _numbers(text, entry)
    own = given.pop("eta", None)
    if entry.name == "MaSS" and not given and own is None:
        law = mass_parameters(problem.values, oracle.noise.batch)
        own, given = law.eta, {"gamma": law.gamma, "c": law.c}
    if entry.name == "DANA" and not given.keys() & {"share", "ratio", "power"}:
        given = given | {"share": SHARE}
    shown = {name: value for name, value in (defaults | given).items() if value is not None}
    if "share" in given:
        shown = {name: value for name, value in shown.items() if name not in ("ratio", "power")}

    def rule(rate: float) -> Any:
        return _rule(entry, oracle, rate, given)

    gain = _gain(entry, rule(eta), shown)
    rate = (eta if gain is None else eta / gain) if own is None else own
    return Method(text, rule(rate), rate, float("nan") if gain is None else gain * rate, shown)


def _rule(entry: Any, oracle: Any, rate: float, given: dict[str, float]) -> Any:
    """Return the optimiser of an entry, a `Dynamics`, at a learning rate in its own form, with the `given` numbers, else its own defaults."""
    from sdetools import schedules

    others = {name: value for name, value in given.items() if name != "beta"}
    beta = given.get("beta", 0.9)
    if not entry.schedule:
        return entry.make(oracle, gamma=rate, beta=beta, **others)
    if "beta" in entry.schedule:
        return entry.make(oracle, schedules.constant(rate, beta), **others)
    return entry.make(oracle, schedules.constant(rate), **given)


def _gain(entry: Any, rule: Any, shown: dict[str, float]) -> float | None:
    """Return the learning rate of the equivalent SGD over that of the rule; None for a rule without one. `shown` are all of its numbers."""
    if not entry.gain:
        return None
    if not entry.schedule:  # heavy ball, whose buffer is a sum
        return 1 / (1 - shown["beta"])
    return float(getattr(rule, "gain", 1.0))


def _numbers(text: str, entry: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the numbers that the text of a method gives, by name, and the defaults of all of its numbers in their order.

    Raises:
        ValueError: If the text has an unknown number, one twice, or one that is no number.
    """
    signature = inspect.signature(entry.make.__init__).parameters.values()
    own = {p.name: p.default for p in signature if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in _NOT_NUMBERS}
    if "beta" in entry.schedule or not entry.schedule:
        own = {"beta": 0.9} | {name: default for name, default in own.items() if name != "beta"}
    order = [*_FIRST.get(entry.name, ()), *(name for name in own if name not in _FIRST.get(entry.name, ()))]
    given: dict[str, float] = {}
    for i, part in enumerate(text.split(":")[1:]):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = order[i] if i < len(order) else "", part
        if name not in (*order, "eta") or name in given:
            what = f"at most {', '.join(order) or 'no numbers'}, and eta"
            raise ValueError(f"the method {text!r} must have {what}, each once; got {part!r}. Write for example sgdm:beta=0.9.")
        found = numbers(name, value)
        if len(found) != 1:
            raise ValueError(f"`{name}` of the method {text!r} must be one number; got {value!r}.")
        given[name] = found[0]
    return given, own


_NOT_NUMBERS = ("self", "oracle", "plan", "gamma", "momentum", "step_time")


def _hyphenated(name: str) -> str:
    """Return the name of a class as one writes it in a shell: "heavy-ball" for HeavyBall."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "-", name).lower()


def _whole(value: float) -> Any:
    """Return a number of modes as an integer; other numbers unchanged, which the problem then refuses."""
    return int(value) if value == int(value) else value


def _of_numbers(values: Any, targets: list[float] | None, label_noise: float) -> Any:
    """Return the problem, a `Spectrum`, of given eigenvalues and distances: one distance for all or one for each, None for 1."""
    import numpy as np

    from sdetools.exact import Spectrum
    from sdetools.exact.least_squares.spectra import checked_spectrum

    lam, rho = checked_spectrum(values), targets or [1.0]
    if len(rho) not in (1, len(lam)):
        raise ValueError(f"`targets` must be one distance or {len(lam)}, one for each eigenvalue; got {len(rho)}.")
    return Spectrum(lam, np.broadcast_to(np.asarray(rho, dtype=float), lam.shape).copy(), label_noise)


def _from_file(path: Path, targets: list[float] | None, label_noise: float | None) -> Any:
    """Return the problem, a `Spectrum`, of a file: one column is a list of eigenvalues, more are rows of data with the label last.

    `targets` are the distances for eigenvalues, None for 1; they are refused for data. A `label_noise` of None is 0, or the residual of the data.
    """
    import dataclasses

    from sdetools.exact import from_data

    table = _read(path)
    if table.ndim == 1 or min(table.shape) == 1:
        return _of_numbers(table.ravel(), targets, label_noise or 0.0)
    if targets is not None:
        raise ValueError(f"`targets` must be left out for data; got some. The labels are the last column of {path.name}.")
    found = from_data(table[:, :-1], table[:, -1])
    return found if label_noise is None else dataclasses.replace(found, label_noise=label_noise)


def _read(path: Path) -> Any:
    """Return the finite numbers of a file .npy, .csv or .txt as a float64 array of one or two axes; ValueError if it has anything else."""
    import numpy as np

    if not path.is_file():
        raise ValueError(f"`spectrum` must be a file that exists, or {SPECTRA}; got {str(path)!r}.")

    def text(skip: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an empty file is a warning of NumPy
            return np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None, skiprows=skip)

    readers: list[Callable[[], Any]] = [lambda: np.load(path, allow_pickle=False)]
    if path.suffix != ".npy":
        readers = [lambda: text(0), lambda: text(1)]  # a line of names comes first, or not
    for read in readers:
        try:
            table = np.asarray(read(), dtype=float)
        except (ValueError, EOFError, UserWarning):
            continue
        if table.ndim in (1, 2) and table.size and np.isfinite(table).all():
            return table
    raise ValueError(f"`spectrum` must be a file of finite numbers in one or two axes; got {path.name}, which has others.")
