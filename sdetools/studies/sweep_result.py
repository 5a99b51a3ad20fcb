"""The result of a sweep: values with their intervals over the grid, as a dataset, a table, a heat map or curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools.estimates.interval import quantile
from sdetools.results.protocol import BY_HAND, Origin, Result
from sdetools.studies.observables import column
from sdetools.studies.sweep_points import FIELDS, POINT, SEED, Grid

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Sweep(Result):
    """Numbers that a function returned on a grid of parameters; the return value of `st.sweep`.

    Arrays over points, `(variables, *shape)`, have a row for each name in `names` and then one axis for each parameter, and a last one for the seeds if
    there are seeds. If the parameters are not combined, there is one axis for the points instead of one for each parameter.

    Attributes:
        parameters: The values of each parameter, `(values,)`, numbers or texts, in the order of the axes.
        seeds: The seeds, `(seeds,)`; None for a sweep without seeds.
        product: Whether the points are all combinations of the values.
        names: The names of the variables, in the order in which they were first returned.
        values: The values, `(variables, *shape)`; NaN at points that failed or did not return this variable.
        stderrs: Their standard errors, in the same shape; NaN for numbers without an error.
        counts: Their numbers of paths, integers; 0 for numbers without an error.
        lows: The lower ends of their intervals; NaN for numbers without an error.
        highs: The upper ends of their intervals, likewise.
        resolved: Whether a value is resolved, at least four standard errors from 0; for numbers without an error, whether it is finite.
        divergence: The number of diverged paths of each point, `shape`.
        errors: Type and message of the exception at each point that failed, texts `shape`; empty at other points.
        units: Units by the name of a parameter or variable.
        confidence: The confidence level of means over seeds.
        origin: The call, the first seed, and the version.
    """

    parameters: Mapping[str, np.ndarray]
    seeds: np.ndarray | None
    product: bool
    names: tuple[str, ...]
    values: np.ndarray
    stderrs: np.ndarray
    counts: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    resolved: np.ndarray
    divergence: np.ndarray
    errors: np.ndarray
    units: Mapping[str, str] = field(default_factory=dict)
    confidence: float = 0.95
    origin: Origin = field(default=BY_HAND, compare=False)

    @classmethod
    def of(
        cls, grid: Grid, records: Sequence[Mapping[str, Any]], units: Mapping[str, str], confidence: float, origin: Origin
    ) -> Sweep:
        """Return the result for the records (dicts of plain values) of all points, the combinations of parameters and seed.

        Args:
            grid: The parameters with their values, and the seeds.
            records: The records of `sweep_points.run_point`, in the order of the points.
            units: Units by the name of a parameter or variable.
            confidence: The confidence level of means over seeds.
            origin: The call, the first seed, and the version.

        Raises:
            ValueError: If a unit is given for a name that is neither a parameter nor a variable.
        """
        names = tuple(dict.fromkeys(name for record in records for name in record.get("values", ())))
        known = (*grid.labels, *names)
        if unknown := [name for name in units if name not in known]:
            raise ValueError(f"`units` must be those of {', '.join(known)}; got one for {unknown[0]!r}. Correct the name.")
        missing = [math.nan, math.nan, 0, math.nan, math.nan, False]
        rows = [[record.get("values", {}).get(name, missing) for record in records] for name in names]
        shape = len(names), *grid.shape
        columns = {
            part: np.array([[row[i] for row in own] for own in rows], dtype=kind).reshape(shape)
            for i, (part, kind) in enumerate(zip(FIELDS, (float, float, np.int64, float, float, bool)))
        }
        return cls(
            parameters=dict(grid.labels),
            seeds=None if grid.seeds is None else np.array(grid.seeds, dtype=np.uint64),
            product=grid.product,
            names=names,
            values=columns["value"],
            stderrs=columns["stderr"],
            counts=columns["n"],
            lows=columns["low"],
            highs=columns["high"],
            resolved=columns["resolved"],
            divergence=np.array([record.get("diverged", 0) for record in records], dtype=np.int64).reshape(grid.shape),
            errors=np.array([record.get("error", "") for record in records], dtype=np.str_).reshape(grid.shape),
            units=dict(units),
            confidence=confidence,
            origin=origin,
        )

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the grid's dimensions: the parameters, such as ("eta", "beta"), or ("point",) if they are not combined; without the seeds."""
        return tuple(self.parameters) if self.product else (POINT,)

    @property
    def diverged(self) -> int:
        """The number of diverged paths (whose state was not finite at some step), summed over all points, the combinations of parameters and seed."""
        return int(self.divergence.sum())

    @property
    def failed(self) -> int:
        """The number of points at which the function raised an exception."""
        return int((self.errors != "").sum())

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset whose dimensions are the parameters, or "point" if they are not combined, and "seed" if there are seeds.

        For each variable v that the function returned it has `v`, and its standard error `v_stderr`, number of paths `v_n`, interval `v_low`, `v_high`,
        and `v_resolved`. The variables `diverged` and `error` are the number of diverged paths and the message of a failed point. Its attributes are the
        numbers of diverged paths and of failed points, and the fields of `origin`; those of parameters and variables are `units` and `long_name`.
        """
        import xarray

        dims = self.axes + (() if self.seeds is None else (SEED,))
        coords: dict[str, Any] = {} if self.seeds is None else {SEED: self.seeds}
        for name, labels in self.parameters.items():
            coords[name] = ((name,) if self.product else (POINT,), labels, self._attributes(name))
        fields: dict[str, Any] = {}
        parts = ("", self.values), ("_stderr", self.stderrs), ("_n", self.counts), ("_low", self.lows), ("_high", self.highs)
        for v, name in enumerate(self.names):
            for suffix, values in (*parts, ("_resolved", self.resolved)):
                attributes = {"long_name": name} if suffix in ("_n", "_resolved") else self._attributes(name)
                fields[f"{name}{suffix}"] = (dims, values[v], attributes)
        fields |= {"diverged": (dims, self.divergence), "error": (dims, self.errors)}
        return xarray.Dataset(fields, coords, {"diverged": self.diverged, "failed": self.failed} | self.origin.attributes)

    def _attributes(self, name: str) -> dict[str, str]:
        """Return the attributes `long_name` and `units` of a parameter or a variable in the dataset."""
        return {"long_name": name, "units": self.units.get(name, "1")}

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the dataset as a table of pandas with one row for each point: columns for parameters and seed, then the variables of `data`."""
        return self.data.to_dataframe().reset_index()

    def over_seeds(self, name: str | int = 0) -> dict[str, np.ndarray]:
        """Return the mean of a variable over the seeds, with its error; without seeds the values themselves.

        The standard error follows from those of the seeds, which are independent; where these are unknown, from the spread of the seeds, with the quantiles
        of Student's t. A mean is resolved if it is at least four standard errors from 0. A seed that failed makes it NaN.

        Args:
            name: The name of the variable, or its index in `names`; ValueError if there is none.

        Returns:
            A dict with the arrays "value", "stderr", "low", "high" and "resolved", each over the grid without its seeds (the dimensions `axes`).
        """
        v = column(self.names, name)
        parts = ("value", self.values), ("stderr", self.stderrs), ("low", self.lows), ("high", self.highs)
        if self.seeds is None or len(self.seeds) == 1:
            shape = self.divergence.shape if self.seeds is None else self.divergence.shape[:-1]
            return {key: own[v].reshape(shape) for key, own in (*parts, ("resolved", self.resolved))}
        value, errors, seeds = self.values[v], self.stderrs[v], len(self.seeds)
        known = np.isfinite(errors).all(axis=-1)
        with np.errstate(invalid="ignore"):
            mean, spread = value.mean(axis=-1), value.std(axis=-1, ddof=1) / math.sqrt(seeds)
            stderr = np.where(known, np.sqrt((errors**2).sum(axis=-1)) / seeds, spread)
            paths = np.where(known, self.counts[v].sum(axis=-1), seeds)
            half = stderr * np.vectorize(lambda n: quantile(self.confidence, int(n)), otypes=[float])(np.maximum(paths, 2))
            resolved = np.isfinite(mean) & (4 * stderr <= np.abs(mean))
        return {"value": mean, "stderr": stderr, "low": mean - half, "high": mean + half, "resolved": resolved}

    def table(self) -> str:
        """Return a text table with a line for each variable and point, averaged over seeds, and a line for each point that failed."""
        columns = [*self.parameters]
        widths = [max(len(name), *(len(_shown(label)) for label in own)) for name, own in self.parameters.items()]
        cells = "  ".join(f"{name:>{width}}" for name, width in zip(columns, widths))
        wide = max([8, *map(len, self.names)])
        lines = [f"{cells}  {'variable':<{wide}} {'value':>12} {'stderr':>10} {f'{100 * self.confidence:g} % interval':>26}"]
        averaged = {name: self.over_seeds(name) for name in self.names}
        shape = tuple(map(len, self.parameters.values())) if self.product else (len(next(iter(self.parameters.values()))),)
        for where in np.ndindex(*shape):
            chosen = where if self.product else where * len(columns)
            point = "  ".join(f"{_shown(own[i]):>{width}}" for own, i, width in zip(self.parameters.values(), chosen, widths))
            diverged = int(self.divergence[where].sum())
            errors = [str(text) for text in np.atleast_1d(self.errors[where]) if text]
            if errors:
                seeds = f" at {len(errors)} of {len(self.seeds)} seeds" if self.seeds is not None else ""
                lines.append(f"{point}  failed{seeds}: {errors[0]}")
            for name in self.names:
                own = {key: values[where] for key, values in averaged[name].items()}
                if errors and not math.isfinite(own["value"]):
                    continue
                interval = f"[{own['low']:.4g}, {own['high']:.4g}]" if not math.isnan(own["low"]) else "-"
                stderr = f"{own['stderr']:.2g}" if math.isfinite(own["stderr"]) else "-"
                notes = [] if own["resolved"] or math.isnan(own["low"]) else ["unresolved"]
                notes += [f"{diverged:,} paths diverged"] if diverged else []
                note = "  " + ", ".join(notes) if notes else ""
                lines.append(f"{point}  {name:<{wide}} {own['value']:>12.5g} {stderr:>10} {interval:>26}{note}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} ({len(own)} values)" for name, own in self.parameters.items())
        how = "" if self.product else ", not combined"
        seeds = "" if self.seeds is None else f", {len(self.seeds)} seeds"
        lines = [f"sweep over {sizes}{how}{seeds}: {self.divergence.size:,} points, {', '.join(self.names)}"]
        if self.failed:
            first = next(str(text) for text in self.errors.ravel() if text)
            lines.append(f"  {self.failed:,} points failed, the first one with: {first}")
        if self.diverged:
            lines.append(f"  {self.diverged:,} paths diverged, at {int((self.divergence > 0).sum()):,} points")
        for name in self.names:
            own = self.over_seeds(name)
            finite = own["value"][np.isfinite(own["value"])]
            spread = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "no finite value"
            open_ = int((~own["resolved"] & ~np.isnan(own["low"])).sum())
            lines.append(f"  {name}: {spread}{f', unresolved at {open_:,} points' if open_ else ''}")
        return "\n".join(lines)

    def plot(
        self,
        *,
        x: str | None = None,
        y: str | None = None,
        value: str | int = 0,
        at: Mapping[str, Any] | None = None,
        ax: Any = None,
    ) -> Figure:
        """Plot a variable over the grid, averaged over seeds: a heat map over two parameters, or curves with error bars over one.

        Points that are not resolved are hatched in a heat map and hollow on a curve; points that failed or diverged are crossed out.

        Args:
            x: The name of the parameter of the horizontal axis; None for the first one. With `x` alone, the values of a second parameter are curves.
            y: The parameter of the vertical axis of a heat map; None for the second one, if `x` is None too.
            value: The name of the variable, or its index in `names`.
            at: Values of all other parameters, by name; those with a single value may be omitted.
            ax: The axes; None for those of a new figure.

        Raises:
            ValueError: If there is no such parameter, value or variable, or a parameter beyond the plotted ones has no value in `at`.
        """
        from sdetools import plots

        v = column(self.names, value)
        own, names = self.over_seeds(v), list(self.axes)
        labels = dict(self.parameters) if self.product else {POINT: self._point_labels()}
        fixed = dict(at or {})
        single = [name for name in names if name not in (x, y, *fixed) and len(labels[name]) == 1]
        if len(single) + len(fixed) == len(names):
            single = single[1:]
        fixed |= {name: labels[name][0] for name in single}
        for name in (*(n for n in (x, y) if n is not None), *fixed):
            if name not in names:
                raise ValueError(f"`x`, `y` and `at` must name {', '.join(names)}; got {name!r}.")
        place: list[Any] = [slice(None)] * len(names)
        for name, wanted in fixed.items():
            place[names.index(name)] = _index(name, labels[name], wanted)
        free = [name for name in names if name not in fixed]
        first = x or free[0]
        second = y or next((name for name in free if name != first), None)
        if over := [name for name in free if name not in (first, second)]:
            raise ValueError(
                f"`at` must have a value for {' and '.join(over)}; got {at!r}. Write for example at={{{over[0]!r}: {labels[over[0]][0]}}}."
            )
        if first not in free or second in fixed or first == second:
            raise ValueError(f"`x` and `y` must be two parameters that are not in `at`; got {first!r} and {second!r}.")
        arrays = {key: np.asarray(values[tuple(place)]) for key, values in own.items()}
        bad = ~np.isfinite(arrays["value"])
        if second is not None and free.index(first) > free.index(second):
            arrays, bad = {key: values.T for key, values in arrays.items()}, bad.T
        label = self.names[v] + self._unit(self.names[v])
        title = ", ".join(f"{name} = {wanted}" for name, wanted in fixed.items())
        if second is None or (x is not None and y is None):
            rows = {"": 0} if second is None else {f"{second} = {_shown(one)}": i for i, one in enumerate(labels[second])}
            cut = {key: values.reshape(len(labels[first]), -1) for key, values in arrays.items()}
            curves = {name: tuple(cut[key][:, i] for key in ("value", "low", "high", "resolved")) for name, i in rows.items()}
            axes = plots.parameter_curves(
                labels[first], curves, xlabel=first + self._unit(first), ylabel=label, title=title, ax=ax
            )
        else:
            axes = plots.heat_map(
                labels[first], labels[second], arrays["value"].T, ~(arrays["resolved"] | bad).T,
                xlabel=first + self._unit(first), ylabel=second + self._unit(second), label=label, title=title, ax=ax,
            )  # fmt: skip
        return plots.figure_of(axes)

    def _unit(self, name: str) -> str:
        """Return the unit of a parameter or variable for the label of an axis; empty if it has none."""
        return f" [{self.units[name]}]" if name in self.units else ""

    def _point_labels(self) -> np.ndarray:
        """Return a text for each point of parameters that are not combined, such as "0.1, 0.9", `(points,)`."""
        rows = zip(*self.parameters.values())
        return np.array([", ".join(map(_shown, row)) for row in rows])


def _shown(label: Any) -> str:
    """Return the value of a parameter as a short text."""
    return str(label) if isinstance(label, str) else f"{label:.6g}"


def _index(name: str, labels: np.ndarray, wanted: Any) -> int:
    """Return the index of a value among those of a parameter; ValueError if it is none of them."""
    if labels.dtype.kind == "U":
        found = np.flatnonzero(labels == str(wanted))
    else:
        found = np.flatnonzero(np.isclose(labels.astype(float), _check.number(name, wanted), rtol=1e-12, atol=0.0))
    if not len(found):
        raise ValueError(f"`at` must have one of the values of {name}: {', '.join(map(_shown, labels))}; got {wanted!r}.")
    return int(found[0])
