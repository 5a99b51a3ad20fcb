"""Points of a sweep: the grid, the call of the function at one point, and the numbers that it returned.

A *point* is one combination of the values of the parameters, with a seed if there are seeds. Its *record* is a dict of plain values, so that it can
be stored as JSON without loss and sent by an executor.
"""

from __future__ import annotations

import math
import numbers
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.estimates.interval import HasInterval
from sdetools.simulation.chunks import pickled
from sdetools.simulation.threads import thread_share

SEED = "seed"
POINT = "point"
VALUE = "value"
"""The name of the variable if the function returns one number."""
FIELDS = ("value", "stderr", "n", "low", "high", "resolved")
"""The numbers that a record contains of each variable, in this order."""
RESERVED = ("diverged", "error")
"""Names of variables of the dataset that the function cannot return."""
NAMED = 4
"""The largest number of points that an error message lists."""


@dataclass(frozen=True)
class Grid:
    """The parameters of a sweep with their values.

    Attributes:
        labels: The values of each parameter by its name, as they are shown and stored: numbers or texts, `(values,)`.
        values: The values that the function receives, by the name of the parameter; labels, or the objects for which they stand.
        seeds: The seeds; None if the function is called without seeds, or with seed 0.
        product: Whether the points are all combinations of the values; otherwise the i-th point takes the i-th value of each parameter.
    """

    labels: Mapping[str, np.ndarray]
    values: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...] | None
    product: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of values along each dimension of the results; the seeds are the last one."""
        lengths = tuple(map(len, self.values.values()))
        return (lengths if self.product else lengths[:1]) + (() if self.seeds is None else (len(self.seeds),))

    @property
    def size(self) -> int:
        """The number of points."""
        return math.prod(self.shape)

    def at(self, index: int) -> dict[str, Any]:
        """Return the arguments of the function by name at the point with the number `index`, in C order of `shape`; a seed only if there are seeds."""
        return self._chosen(self.values, index)

    def text(self, index: int) -> str:
        """Return the point with a number `index` as a text, such as "eta=0.1, beta=0.9, seed=0"."""
        shown = self._chosen({name: labels.tolist() for name, labels in self.labels.items()}, index)
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def _chosen(self, values: Mapping[str, Sequence[Any]], index: int) -> dict[str, Any]:
        """Return one of the values of each parameter by its name, and the seed if there are seeds.

        Args:
            values: The values of each parameter.
            index: The number of the point, in C order of `shape`.
        """
        where = [int(i) for i in np.unravel_index(index, self.shape)]
        places = where[: len(values)] if self.product else where[:1] * len(values)
        found = {name: own[i] for (name, own), i in zip(values.items(), places)}
        return found if self.seeds is None else found | {SEED: self.seeds[where[-1]]}


@dataclass(frozen=True)
class PointTask:
    """A sweep in pieces, its points, for `submission.Submission`.

    Attributes:
        function: The function, called as `function(**grid.at(index), **fixed)`.
        fixed: Arguments that are the same at all points, by name.
        grid: The points.
        share: The number of threads that simulations of a point may use.
        record_errors: Whether an exception of the function is recorded as text instead of raised.
    """

    function: Callable[..., Any]
    fixed: Mapping[str, Any]
    grid: Grid
    share: int
    record_errors: bool

    @cached_property
    def packed(self) -> bytes:
        """The fields, pickled once for all workers, as bytes; ValueError if the function cannot be pickled."""
        try:
            return pickled((self.function, self.fixed, self.grid, self.share, self.record_errors))
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise ValueError(
                f"`function` must be picklable, for an executor with processes; it is not: {error}. "
                "Define it in a module, install cloudpickle, or take executor='threads'."
            ) from error

    def __reduce__(self) -> Any:
        return _unpacked, (self.packed,)

    def missing(self, indices: Sequence[int]) -> tuple[str, str]:
        """Return the subject of a sentence about missing points, and "their" or "its", such as ("the point (eta=0.1) is", "its").

        Args:
            indices: The numbers of the points; the first four are listed.
        """
        texts = [f"({self.grid.text(index)})" for index in indices[:NAMED]]
        more = f" and {len(indices) - NAMED:,} others" if len(indices) > NAMED else ""
        return (f"the point {texts[0]} is", "its") if len(indices) == 1 else (f"the points {', '.join(texts)}{more} are", "their")


def _unpacked(packed: bytes) -> PointTask:
    """Return the task whose fields were pickled."""
    return PointTask(*pickle.loads(packed))  # bytes of `PointTask.packed`, sent by the user's own executor


def run_point(task: PointTask, index: int) -> dict[str, Any]:
    """Call the function at a point, and return the record, a dict of plain values, of what it returned.

    Args:
        task: The sweep: the function, the grid of points, and the other arguments.
        index: The number of the point, in C order of `task.grid.shape`.

    Returns:
        A dict with "values", a dict by the name of a variable of lists [value, stderr, n, low, high, resolved], and "diverged", a number of paths; or,
        where errors are recorded and the function raised one, a dict with "error", its type and message.

    Raises:
        Exception: What the function raised, unless errors are recorded; with a note that names the point.
    """
    try:
        with thread_share(task.share):
            return record_of(task.function(**task.grid.at(index), **task.fixed))
    except Exception as error:
        if task.record_errors:
            text = " ".join(str(error).split())
            return {"error": f"{type(error).__name__}: {text}" if text else type(error).__name__}
        error.add_note(f"This is at the point {task.grid.text(index)} of the sweep.")
        raise


def record_of(returned: Any) -> dict[str, Any]:
    """Return the record of what a function returned at a point: its numbers by name, and the number of diverged paths.

    Args:
        returned: A number, an estimate (anything with `value` and `confidence_interval`), a result with `main_estimates()`, or a mapping from names
            to such. A single number or estimate gets the name "value". The numbers of a result within a mapping are named by the key and their own name.

    Returns:
        A dict with "values", a dict by name of lists [value, stderr, n, low, high, resolved], in which a plain number has n = 0, NaN for its error,
        and is resolved if it is finite, and with "diverged".

    Raises:
        ValueError: For anything else, for no number at all, and for a name that is reserved.

    Example:
        >>> record_of({"a": 1.5, "b": 2})["values"]["a"]
        [1.5, nan, 0, nan, nan, True]
    """
    values: dict[str, list[Any]] = {}
    diverged = _collect(returned, "", values)
    if not values:
        raise ValueError("`function` must return at least one number; got an empty mapping.")
    if bad := [name for name in values if name in RESERVED]:
        raise ValueError(f"`function` must not return the names {' and '.join(RESERVED)}, which a sweep uses; got {bad[0]!r}.")
    return {"values": values, "diverged": diverged}


def _collect(returned: Any, name: str, values: dict[str, list[Any]]) -> int:
    """Add the numbers of what a function returned to `values` under names that begin with `name`; return the number of diverged paths."""
    if isinstance(returned, HasInterval):
        values[name or VALUE] = _row(returned)
        return int(getattr(returned, "diverged", 0))
    if isinstance(returned, Mapping) or callable(getattr(returned, "main_estimates", None)):
        inner = returned if isinstance(returned, Mapping) else returned.main_estimates()
        counts = [_collect(own, f"{name} {key}" if name else str(key), values) for key, own in inner.items()]
        # The estimates of one result, and usually those of one mapping, come from the same paths.
        return int(getattr(returned, "diverged", max(counts, default=0)))
    try:
        if isinstance(returned, (str, bytes)) or not (isinstance(returned, numbers.Real) or np.ndim(returned) == 0):
            raise TypeError
        number = float(returned)
    except (TypeError, ValueError):
        where = f" under {name!r}" if name else ""
        raise ValueError(
            f"`function` must return a number, an estimate, a result of sdetools, or a mapping of such; got {_check.shown(returned)}{where}. "
            "Return for example {'risk': float(risk)}."
        ) from None
    values[name or VALUE] = [number, math.nan, 0, math.nan, math.nan, math.isfinite(number)]
    return 0


def _row(estimate: HasInterval) -> list[Any]:
    """Return the numbers [value, stderr, n, low, high, resolved] of an estimate; NaN or 0 for those that it lacks."""
    low, high = estimate.confidence_interval()
    resolved = getattr(estimate, "resolved", not low <= 0.0 <= high)
    stderr, n = float(getattr(estimate, "stderr", math.nan)), int(getattr(estimate, "n", 0))
    return [float(estimate.value), stderr, n, float(low), float(high), bool(resolved)]
