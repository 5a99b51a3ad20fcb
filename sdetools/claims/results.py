"""The results of a run of claims: measurements, controls and verdicts, as data, table, plot, JSON and files."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.claims.folder import write_text
from sdetools.claims.record import Drawing, Table
from sdetools.estimates.interval import ConfidenceInterval
from sdetools.results.protocol import Origin, Result

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN, ERROR = "supported", "contradicted", "inconclusive", "not run", "error"
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN, ERROR)
INSIDE, DISJOINT, ACROSS = "inside", "disjoint", "across"


@dataclass(frozen=True)
class MeasurementResult:
    """A measured value with its interval, judged against its accepted range.

    Attributes:
        name: The name of the quantity.
        value: The estimate.
        interval: The interval that must lie inside the accepted range for support, at level 1 - 1e-3 / k.
        outer: The interval that must lie outside for a contradiction, at level 1 - sqrt(1e-5) / (m k) for m random measurements of the claim. Here k
            is the largest number of times that the measurement may be compared with more paths: 1, or `looks` of `ClaimContext.decide`. In a
            control of c measurements both levels are 1 - 1e-3 / (c k).
        stderr: The standard error of the estimate: 0 for an exact number, NaN if it has none.
        expected: The expected value, or None for a bound.
        accept_low: The lower end of the accepted range, or -inf.
        accept_high: The upper end of the accepted range, or inf.
        state: "inside" if `interval` lies inside the accepted range, "disjoint" if `outer` lies outside (and `again` too, if there is one), else
            "across"; also "across" where no interval is trusted, for a skewed mean or fewer than 12 values.
        paths: The number of paths of the estimate, or None for none.
        paths_needed: The number of paths that would decide between inside and disjoint, if the width of the interval falls as 1/sqrt(paths); None
            if it is decided or not known.
        diverged: The number of paths that left the finite range.
        first_divergence: The first step at which a path did, as text; None if none did.
        why_open: The reason for an infinite interval, if known, else empty.
        again: The interval on fresh draws, for a measurement whose `outer` interval lay outside in the first run; else None.
    """

    name: str
    value: float
    interval: ConfidenceInterval
    outer: ConfidenceInterval
    stderr: float
    expected: float | None
    accept_low: float
    accept_high: float
    state: str
    paths: int | None
    paths_needed: int | None
    diverged: int
    first_divergence: str | None
    why_open: str = ""
    again: ConfidenceInterval | None = None

    @property
    def low(self) -> float:
        """Lower end of `interval`, which decides on support; -inf where the error is unknown."""
        return self.interval.low

    @property
    def high(self) -> float:
        """Upper end of `interval`, which decides on support; inf where the error is unknown."""
        return self.interval.high

    @property
    def excess(self) -> float:
        """How far the interval extends beyond the accepted range, in units of half of the range's width.

        It is at most 0 if the interval lies inside, and inf without a finite interval. The unit of a range with one finite end is the size |end|
        of that end, or the width of the interval if that is larger.
        """
        if not self.interval.finite or not math.isfinite(self.value):
            return math.inf
        _, start, end = in_tolerances(self)
        beyond = [end - 1] if math.isfinite(self.accept_high) else []
        return max([*beyond, -1 - start] if math.isfinite(self.accept_low) else beyond, default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as a dict for `results.json`; infinite values and NaN become None.

        The keys are name, value, stderr, low, high, level (of `interval`), outer and again (dicts of low, high and level, or None), expected,
        accept (the list [accept_low, accept_high]), state, paths, paths_needed and diverged_paths.
        """
        return {
            "name": self.name,
            "value": _plain(self.value),
            "stderr": _plain(self.stderr),
            "low": _plain(self.low),
            "high": _plain(self.high),
            "level": self.interval.level,
            "outer": _interval(self.outer),
            "again": _interval(self.again),
            "expected": _plain(self.expected),
            "accept": [_plain(self.accept_low), _plain(self.accept_high)],
            "state": self.state,
            "paths": self.paths,
            "paths_needed": self.paths_needed,
            "diverged_paths": self.diverged,
        }


@dataclass(frozen=True)
class ControlResult:
    """A negative control with its measurements, judged.

    Attributes:
        name: The name of the control.
        state: "disjoint" if some interval is disjoint from its accepted range, as it must be; "inside" if all intervals are inside, so that
            the control passes and the claim is not supported; "across" otherwise, also without measurements.
        measurements: The judged measurements, in order of recording.
    """

    name: str
    state: str
    measurements: tuple[MeasurementResult, ...]

    @property
    def failed(self) -> bool:
        """Whether the control is contradicted, as it must be: True is the good case."""
        return self.state == DISJOINT

    def to_dict(self) -> dict[str, Any]:
        """Return the control as a dict for `results.json`: name, failed_as_it_must, state, and measurements, a list of their dicts."""
        return {
            "name": self.name,
            "failed_as_it_must": self.failed,
            "state": self.state,
            "measurements": [item.to_dict() for item in self.measurements],
        }


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its verdict, the reason, and its record of measurements, controls, figures, tables and notes.

    Attributes:
        id, statement, source: The attributes of the `Claim` with these names: its id, the text of what it states, and where that comes from.
        verdict: "supported", "contradicted", "inconclusive", "not run" or "error".
        reason: A sentence that explains the verdict.
        measurements: The judged measurements.
        controls: The judged negative controls.
        seed: The claim's own seed, `claim_seed` of the seed of the run and the id.
        seconds: The run time, with that of the second run on fresh draws if there was one.
        diverged_paths: The number of paths that left the finite range, without those of controls; those of one simulation are counted once.
        figures, tables, notes: What the claim has added to the report: `Drawing`s, `Table`s and texts.
        traceback: The traceback of an error, else empty.
        bad_input: Whether the claim ended with a ValueError.
        file: The claim's file, relative to the current folder where it lies below it; empty if not known.
        line: The first line of the claim's function; 0 if not known.
    """

    id: str
    statement: str
    source: str
    verdict: str
    reason: str
    measurements: tuple[MeasurementResult, ...]
    controls: tuple[ControlResult, ...]
    seed: int
    seconds: float
    diverged_paths: int
    figures: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    traceback: str = ""
    bad_input: bool = False
    file: str = ""
    line: int = 0

    @property
    def worst(self) -> MeasurementResult | None:
        """The measurement that stands most against support; None if every interval is inside and every control failed.

        It is the measurement whose interval extends the farthest beyond its accepted range, in units of that range, among those outside if
        there are any, else among those that are undecided; if all are inside, that of the controls which did not fail, in the same order.
        """
        open_ = [item for item in self.measurements if item.state != INSIDE]
        if not open_:
            open_ = [item for control in self.controls if not control.failed for item in control.measurements]
        return max(open_, key=lambda item: (item.state == DISJOINT, item.excess), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the claim as a dict for `results.json`, with a list of dicts for its measurements and one for its controls.

        It lacks the figures, tables, notes, the traceback, `bad_input`, and the file and line.
        """
        return {
            "id": self.id,
            "statement": self.statement,
            "source": self.source,
            "verdict": self.verdict,
            "reason": self.reason,
            "measurements": [item.to_dict() for item in self.measurements],
            "controls": [item.to_dict() for item in self.controls],
            "seed": self.seed,
            "seconds": self.seconds,
            "diverged_paths": self.diverged_paths,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Results(Result):
    """The results of a run of claims, in the order of the claims. All of them except `seconds` are reproducible to the bit.

    Attributes:
        version: The version of sdetools.
        seed: The seed of the run, from which each claim's own seed is hashed.
        budget: The name of the budget, "quick", "standard" or "full".
        claims: The result of each claim.
    """

    version: str
    seed: int
    budget: str
    claims: tuple[ClaimResult, ...]

    @property
    def origin(self) -> Origin:  # type: ignore[override]
        """The origin of the results: a text of the call of `verify`, the seed of the run, and the version of sdetools."""
        return Origin(f"verify(budget={self.budget!r}, seed={self.seed})", self.seed, version=self.version)

    @property
    def diverged(self) -> int:
        """The number of paths of all claims that left the finite range, without those of controls."""
        return sum(item.diverged_paths for item in self.claims)

    @property
    def data(self) -> xarray.Dataset:
        """The measurements of all claims, without those of controls, as a dataset over the dimension `measurement`.

        The measurements follow each other in the order of the claims. The variables, each of shape (measurements,), are value, low and high (of
        `MeasurementResult.interval`), expected (NaN for a bound), accept_low, accept_high (infinite for a bound), and paths (0 for none). The
        coordinates are the texts `claim` (its id), `verdict` and `name` (of the measurement). Attributes are budget, diverged, and the fields of
        `origin`.
        """
        import xarray

        rows = [(item.id, item.verdict, one) for item in self.claims for one in item.measurements]
        numbers: dict[str, Any] = {
            name: (
                "measurement",
                np.array([math.nan if (v := getattr(one, name)) is None else v for *_, one in rows], dtype=float),
            )
            for name in ("value", "low", "high", "expected", "accept_low", "accept_high")
        }
        words: dict[str, Any] = {
            "claim": ("measurement", [id for id, *_ in rows]),
            "verdict": ("measurement", [verdict for _, verdict, _ in rows]),
            "name": ("measurement", [one.name for *_, one in rows]),
        }
        paths = np.array([one.paths or 0 for *_, one in rows], dtype=np.int64)
        attributes = {"budget": self.budget, "diverged": self.diverged}
        return xarray.Dataset(numbers | {"paths": ("measurement", paths)}, words, attributes | self.origin.attributes)

    def table(self) -> str:
        """Return a text with one line for each claim: its verdict, its id and the reason."""
        return "\n".join(f"{item.verdict:<13} {item.id:<40} {item.reason}" for item in self.claims)

    def summary(self) -> str:
        """Return a text of one line: the number of claims, the budget, and the number of claims with each verdict that occurs."""
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items() if count)
        return f"{len(self.claims)} claims at the budget {self.budget}: {counts or 'none'}"

    __repr__ = summary

    def plot(self, *, ax: Any = None) -> Figure:
        """Return a figure of the measurements of all claims in units of their tolerances, coloured by the verdict of their claim.

        Each measurement has a row. Its value and interval are mapped linearly so that its accepted range becomes [-1, 1], or ends at 1 (an upper
        bound) or -1 (a lower one).

        Args:
            ax: Matplotlib axes to draw on; None makes a new figure.
        """
        from sdetools.plots import COLOURS, FAINT, figure_of, tolerance_plot

        colours = {SUPPORTED: COLOURS[2], CONTRADICTED: COLOURS[1], INCONCLUSIVE: COLOURS[5]}
        rows = [(item, i, one) for item in self.claims for i, one in enumerate(item.measurements)]
        names = [item.id if i == 0 else "" for item, i, _ in rows]
        values = np.array([in_tolerances(one) for *_, one in rows]).reshape(-1, 3).T
        return figure_of(tolerance_plot(names, values, [colours.get(item.verdict, FAINT) for item, *_ in rows], ax))

    @property
    def counts(self) -> dict[str, int]:
        """The number of claims by verdict, for all five verdicts in the order of `VERDICTS`, also those with 0 claims."""
        found = Counter(item.verdict for item in self.claims)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def exit_code(self) -> int:
        """The exit code of `sdetools verify`: 2 if a claim ended with a ValueError, else 1 if one is contradicted or raised an error, else 0."""
        if any(item.bad_input for item in self.claims):
            return 2
        return int(any(item.verdict in (CONTRADICTED, ERROR) for item in self.claims))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `results.json` as a dict: version, seed, budget, and claims, a list with a dict for each claim."""
        return {
            "version": self.version,
            "seed": self.seed,
            "budget": self.budget,
            "claims": [item.to_dict() for item in self.claims],
        }

    def to_json(self) -> str:
        """Return the text of `results.json`: the dict of `to_dict` as indented JSON, with null for None."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, out: Path) -> None:
        """Write `results.json` and the figures `figures/<id of the claim>/<slug>.svg` into the folder `out`, created if missing; each atomically."""
        for item in self.claims:
            for figure in item.figures:
                write_text(out / "figures" / item.id / f"{figure.slug}.svg", figure.svg)
        write_text(out / "results.json", self.to_json())


def in_tolerances(item: MeasurementResult) -> tuple[float, float, float]:
    """Return value and interval on a scale on which the accepted range is [-1, 1], or has its one end at 1 (an upper bound) or -1 (a lower one).

    The unit is half of the range's width; for a bound b it is |b|, or the width of the interval if that is larger.

    Args:
        item: The measurement. Infinite ends remain infinite.

    Returns:
        The triple (value, low, high).
    """
    low, high = item.accept_low, item.accept_high
    if math.isfinite(low) and math.isfinite(high):
        middle, unit = (low + high) / 2, (high - low) / 2
    else:
        unit = max(abs(high if math.isfinite(high) else low), item.high - item.low if item.interval.finite else 0.0)
        middle = high - unit if math.isfinite(high) else low + unit
    unit = unit or max(abs(middle), 1.0) * 1e-12
    value, start, end = ((v - middle) / unit for v in (item.value, item.low, item.high))
    return value, start, end


def _interval(interval: ConfidenceInterval | None) -> dict[str, float | None] | None:
    """Return an interval as a dict of low, high and level for JSON, infinite ends as None; None for None."""
    return None if interval is None else {"low": _plain(interval.low), "high": _plain(interval.high), "level": interval.level}


def _plain(value: float | None) -> float | None:
    """Return a number for JSON; infinities, NaN and None become None, which JSON writes as null."""
    return None if value is None or not math.isfinite(value) else float(value)
