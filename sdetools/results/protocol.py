"""The common interface of results: data with named axes, a table, a plot, a summary, and files that restore them.

The origin of a result is the call, seed, stream, backend, floating-point type and version that produced it.
"""

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
from sdetools.results.saving import Saved, contents

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


class Ended(StrEnum):
    """How a run ended: `COMPLETED`, all paths remained finite, or `DIVERGED`, some did not; the values are the texts "completed", "diverged"."""

    COMPLETED = "completed"
    """All paths reached the end."""
    DIVERGED = "diverged"
    """Some paths left the finite range; values that depend on them are NaN."""


@dataclass(frozen=True)
class Origin:
    """The origin of a result: what produced it. All fields have their defaults if the result was constructed directly.

    Attributes:
        call: The text of the function call with the arguments that differ from their defaults, as `call_text` makes it.
        seed: The seed of the random draws.
        stream: The number, 0, 1, ..., of the stream of draws of that seed; different streams are independent.
        backend: The backend that ran, such as "numba".
        dtype: The floating-point type of the paths, "float64" or "float32".
        version: The version of sdetools.
    """

    call: str = ""
    seed: int = 0
    stream: int = 0
    backend: str = ""
    dtype: str = "float64"
    version: str = __version__

    @property
    def attributes(self) -> dict[str, Any]:
        """The fields as a dict from name to value, for the attributes of an `xarray.Dataset`."""
        return asdict(self)


BY_HAND = Origin()
"""The origin of a result that was constructed directly."""


def call_text(function: Callable[..., Any], given: Mapping[str, Any], **options: Any) -> str:
    """Return the text of a function call, with the arguments that differ from their defaults.

    Args:
        function: The function.
        given: The values of its parameters by name, as `locals()` gives them. Other names, and parameters such as `**options`, are omitted.
        **options: Further arguments of the call, such as options of execution, which are shown behind the others.

    Example:
        >>> from sdetools.results.protocol import call_text
        >>> def f(x, n=3, *, seed=0, **options): ...
        >>> call_text(f, {"x": [1.0], "n": 3, "seed": 7, "options": {"threads": 2}}, dtype="float32")
        "f(x=[1.0], seed=7, dtype='float32')"
    """
    own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    shown = {p.name: given[p.name] for p in own if not _same(given[p.name], p.default)} | options
    return f"{function.__name__}({', '.join(f'{name}={_short(value)}' for name, value in shown.items())})"


def _short(value: Any) -> str:
    """Return a short text for an argument of a call: long lists are cut, and a result is its class name only, because its repr takes time."""
    if isinstance(value, Result):
        return type(value).__name__
    return reprlib.repr(value) if isinstance(value, (list, tuple, dict, set, str)) else _check.shown(value)


def _same(value: Any, default: Any) -> bool:
    """Return whether an argument is its default: the same object, or an equal scalar of the same type."""
    return value is default or (isinstance(value, type(default)) and np.ndim(value) == 0 and bool(value == default))


class Result(Saved, ABC):
    """Base class of results. `save` writes a result to a file, and `st.load` restores it; notebooks display the summary and the table.

    A subclass is a dataclass with the field `origin` and the number `diverged` (a field or a property), and defines the property `data` and the methods
    `table` and `plot`. One that sweeps collect also defines `main_estimates`.

    Two results are equal (`==`) if their files would contain the same, to the bit and NaN included, except for the origins: results of the same run on
    one thread and on a cluster are. Dynamics and functions are compared by their descriptions.

    Attributes:
        origin: What produced the result: call, seed, stream, backend, floating-point type and version.
    """

    origin: Origin

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Result) and type(other) is type(self) and contents(self) == contents(other))

    __hash__ = None  # type: ignore[assignment]

    if TYPE_CHECKING:  # a field of some results, a property of others

        @property
        def diverged(self) -> int:
            """The number of diverged paths, of all dynamics of the result: those whose state was not finite at some step."""

    @property
    @abstractmethod
    def data(self) -> xarray.Dataset:
        """The numbers as a dataset with named axes; its attributes include the number of diverged paths and the fields of `origin`."""

    @abstractmethod
    def table(self) -> str:
        """Return a text table of the numbers with their intervals."""

    @abstractmethod
    def plot(self, *, ax: Any = None) -> Figure:
        """Plot the result and return the figure.

        `ax` are the axes of matplotlib to draw on, one for each panel of the plot; None makes a new figure.
        """

    def main_estimates(self) -> Mapping[str, Any]:
        """Return the main numbers of the result, which `st.sweep` collects: a mapping from a name to a number, or to an estimate with its interval.

        A class of your own defines this method.

        Raises:
            ValueError: If the class has no such numbers.
        """
        raise ValueError(
            f"a result in a sweep must have `main_estimates()`; {type(self).__name__} has none. Return its numbers or estimates, as a dict by name."
        )

    def summary(self) -> str:
        """Return the main numbers as a text of a few lines, the repr of the result."""
        return repr(self)

    @property
    def ended(self) -> Ended:
        """`Ended.DIVERGED` if any path diverged, otherwise `Ended.COMPLETED`."""
        return Ended.DIVERGED if self.diverged else Ended.COMPLETED

    def _repr_html_(self) -> str:
        return f'<div class="sdetools-result"><pre>{escape(self.summary())}</pre><pre>{escape(self.table())}</pre></div>'


def estimates_table(what: str, level: float, rows: Iterable[tuple[str, str, Any]]) -> str:
    """Return a text table with a header and a line for each estimate: observable, time, value, standard error and confidence interval.

    Below it stands why values are NaN and intervals infinite, each reason once.

    Args:
        what: The header of the column of values, such as "mean".
        level: The confidence level that the header states; the intervals have the level of their estimates.
        rows: Tuples of the observable's name, a text for the column "time" such as "0.5" or "supremum", and the Estimate.
    """
    rows = list(rows)
    lines = [f"{'observable':<18} {'time':>10} {what:>14} {'stderr':>10} {f'{100 * level:g} % interval':>28}"]
    lines += [f"{h:<18.18} {t:>10} {e.value:>14.6g} {e.stderr:>10.2g} {e.confidence_interval()!s:>28}" for h, t, e in rows]
    reasons = [("nan", e.why_not_finite) for _, _, e in rows] + [("inf", e.why_open) for _, _, e in rows]
    return "\n".join([*lines, *dict.fromkeys(f"{kind}: {reason}" for kind, reason in reasons if reason)])


def plain(value: Any) -> Any:
    """Return a value in a form that JSON can represent: dicts as dicts, lists, tuples and arrays as lists, NaN and infinities as None.

    All other values are returned as they are.
    """
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
