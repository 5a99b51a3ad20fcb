"""What all results have in common: their data with named axes, a table, a plot, a summary, and a file that gives them back."""

from __future__ import annotations

import inspect
import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools._version import __version__
from sdetools.studies.execution import Execution
from sdetools.studies.saving import Saved

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


class Ended(StrEnum):
    """Why a run ended."""

    COMPLETED = "completed"
    """All paths reached the end."""
    DIVERGED = "diverged"
    """Some paths left the finite range: values that rest on them are NaN."""


@dataclass(frozen=True)
class Origin:
    """Where a result comes from: the call, the draws, and what ran it. Empty for a result that was made by hand."""

    call: str = ""
    seed: int = 0
    stream: int = 0
    backend: str = ""
    dtype: str = "float64"
    version: str = __version__

    @property
    def attributes(self) -> dict[str, Any]:
        """As attributes of a dataset."""
        return asdict(self)


BY_HAND = Origin()
"""That of a result which no call made."""


def called(function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """A call in words: the function, and the arguments that are not its defaults, but for those of execution.

    >>> def f(x, n=3, *, seed=0, **options): ...
    >>> called(f, {"x": [1.0], "n": 3, "seed": 7, "options": {"threads": 2}})
    'f(x=[1.0], seed=7)'
    """
    shown: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            shown |= Execution.of(given[name]).changed()
        elif not _same(given[name], parameter.default):
            shown[name] = given[name]
    words = [f"{name}={_short(value)}" for name, value in shown.items()]
    return f"{function.__name__}({', '.join(words)})"


def _short(value: Any) -> str:
    """A value in few words, without looking at all of it: a list has a million entries, a result computes what it shows."""
    if isinstance(value, Result):
        return type(value).__name__
    return reprlib.repr(value) if isinstance(value, (list, tuple, dict, set, str)) else _check.shown(value)


def _same(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, type(default)) and np.ndim(value) == 0 and bool(value == default))


class Result(Saved, ABC):
    """A result: `data` with named axes and attributes, `table()`, `summary()`, `plot(ax=)`, `save(path)`; `st.load(path)` gives it back.

    A notebook shows the summary and the table. `ended` says why the run ended.
    """

    origin: Origin

    if TYPE_CHECKING:  # some results hold it, others ask their parts

        @property
        def diverged(self) -> int:
            """Paths that left the finite range."""

    @property
    @abstractmethod
    def data(self) -> xarray.Dataset:
        """The numbers over named axes; attributes say paths, seed, stream, backend, version and the call."""

    @abstractmethod
    def table(self) -> str:
        """The numbers with their intervals, as text."""

    @abstractmethod
    def plot(self, *, ax: Any = None) -> Figure:
        """The customary figure, on the axes given or on new ones."""

    def summary(self) -> str:
        """What was found, in a few lines."""
        return repr(self)

    @property
    def ended(self) -> Ended:
        """Why the run ended."""
        return Ended.DIVERGED if self.diverged else Ended.COMPLETED

    def _repr_html_(self) -> str:
        return f'<div class="sdetools-result"><pre>{escape(self.summary())}</pre><pre>{escape(self.table())}</pre></div>'


def estimates_table(what: str, level: float, rows: Iterable[tuple[str, str, Any]]) -> str:
    """Estimates with their intervals, a line each; `rows`: the observable, the time or what stands in its place, the Estimate."""
    lines = [f"{'observable':<18} {'time':>10} {what:>14} {'stderr':>10} {f'{100 * level:g} % interval':>28}"]
    lines += [f"{h:<18.18} {t:>10} {e.value:>14.6g} {e.stderr:>10.2g} {e.confidence_interval()!s:>28}" for h, t, e in rows]
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """NaN and infinities as null, for JSON has no word for them."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
