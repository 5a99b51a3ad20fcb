"""Judging: what intervals say about tolerances, measurement by measurement, control by control, claim by claim."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdetools.claims.context import Book, Control, Figure, Measurement, Table
from sdetools.claims.definition import Claim
from sdetools.claims.folder import write_text
from sdetools.estimates.interval import ConfidenceInterval, Kind

FAMILY = 1e-3
"""The chance that one run of any size takes a true statement for a false one, or the reverse."""

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN, ERROR = "supported", "contradicted", "inconclusive", "not run", "error"
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_RUN, ERROR)
INSIDE, DISJOINT, ACROSS = "inside", "disjoint", "across"


@dataclass(frozen=True)
class MeasurementResult:
    """A measured value, its simultaneous interval, the accepted range, and where the one lies to the other."""

    name: str
    value: float
    interval: ConfidenceInterval
    expected: float | None
    accept_low: float
    accept_high: float
    state: str
    paths: int | None
    paths_needed: int | None
    diverged: int
    first_divergence: str | None
    why_open: str = ""

    @property
    def low(self) -> float:
        return self.interval.low

    @property
    def high(self) -> float:
        return self.interval.high

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": _plain(self.value),
            "low": _plain(self.low),
            "high": _plain(self.high),
            "expected": _plain(self.expected),
            "accept": [_plain(self.accept_low), _plain(self.accept_high)],
            "state": self.state,
            "paths": self.paths,
            "paths_needed": self.paths_needed,
            "diverged_paths": self.diverged,
        }


@dataclass(frozen=True)
class ControlResult:
    """A negative control: `failed` when it came out contradicted, as it must; `inside` when it passed; else `across`."""

    name: str
    state: str
    measurements: tuple[MeasurementResult, ...]

    @property
    def failed(self) -> bool:
        return self.state == DISJOINT

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "failed_as_it_must": self.failed,
            "state": self.state,
            "measurements": [item.to_dict() for item in self.measurements],
        }


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its verdict, the reason, and everything it wrote into its book."""

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
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    traceback: str = ""
    bad_input: bool = False

    def to_dict(self) -> dict[str, Any]:
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


@dataclass(frozen=True)
class Results:
    """The outcome of a run, in the order of the claims. All of it but `seconds` is reproducible to the bit."""

    version: str
    seed: int
    budget: str
    alpha_per_interval: float
    claims: tuple[ClaimResult, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many claims got each verdict."""
        found = Counter(item.verdict for item in self.claims)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def exit_code(self) -> int:
        """0 if nothing is contradicted and nothing broke, 2 if a claim was given bad input, 1 otherwise."""
        if any(item.bad_input for item in self.claims):
            return 2
        return int(any(item.verdict in (CONTRADICTED, ERROR) for item in self.claims))

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "seed": self.seed,
            "budget": self.budget,
            "alpha_per_interval": self.alpha_per_interval,
            "claims": [item.to_dict() for item in self.claims],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, out: Path) -> None:
        """Write `results.json` (whole or not at all) and `figures/<claim>/<name>.svg` into the folder `out`."""
        for item in self.claims:
            for figure in item.figures:
                write_text(out / "figures" / item.id / f"{figure.slug}.svg", figure.svg)
        write_text(out / "results.json", self.to_json())


@dataclass
class Outcome:
    """What happened when a claim ran, before anything is judged."""

    claim: Claim
    book: Book
    seed: int
    seconds: float = 0.0
    verdict: str | None = None
    reason: str = ""
    traceback: str = field(default="", repr=False)
    bad_input: bool = False


def judge(outcomes: list[Outcome]) -> tuple[float, tuple[ClaimResult, ...]]:
    """The error rate of one interval, by Bonferroni over every random measurement of the run, and all verdicts.

    Controls count among the measurements, for their intervals are read as well.
    """
    everything = [item for outcome in outcomes for item in _measured(outcome.book)]
    alpha = FAMILY / max(1, sum(item.random for item in everything))
    return alpha, tuple(_judge_claim(outcome, alpha) for outcome in outcomes)


def judge_measurement(item: Measurement, alpha: float) -> MeasurementResult:
    """Compare the interval at level 1 - alpha with the accepted range; both are closed, so that touching is not disjoint."""
    estimate = item.estimate
    if isinstance(estimate, float):
        value, paths, diverged, first = estimate, None, 0, None
        interval = ConfidenceInterval(value, value, 1.0, Kind.EXACT) if math.isfinite(value) else ConfidenceInterval.unknown()
    else:
        value, interval = float(estimate.value), estimate.confidence_interval(1 - alpha)
        paths, diverged = int(estimate.n) or None, int(getattr(estimate, "diverged", 0))
        first = getattr(estimate, "first_divergence", None) if diverged else None
    if not math.isfinite(value):
        interval = ConfidenceInterval.unknown(interval.level, interval.kind)
    if interval.disjoint(item.accept_low, item.accept_high):
        state = DISJOINT
    else:
        state = INSIDE if interval.within(item.accept_low, item.accept_high) else ACROSS
    needed = None
    if state == ACROSS and paths and interval.finite:
        slack = min(abs(value - item.accept_low), abs(value - item.accept_high))
        if slack > 0:
            ratio = max(interval.high - value, value - interval.low) / slack
            needed = math.ceil(min(paths * ratio**2, 1e18))
    return MeasurementResult(
        name=item.name,
        value=value,
        interval=interval,
        expected=item.expected,
        accept_low=item.accept_low,
        accept_high=item.accept_high,
        state=state,
        paths=paths,
        paths_needed=needed,
        diverged=diverged,
        first_divergence=None if first is None else str(first),
        why_open=str(getattr(estimate, "why_open", "")),
    )


def judge_control(control: Control, alpha: float) -> ControlResult:
    """A control fails as it must when one of its intervals is disjoint from its accepted range."""
    results = tuple(judge_measurement(item, alpha) for item in control.measurements)
    states = [item.state for item in results]
    if DISJOINT in states:
        state = DISJOINT
    else:
        state = INSIDE if states and all(state == INSIDE for state in states) else ACROSS
    return ControlResult(control.name, state, results)


def _judge_claim(outcome: Outcome, alpha: float) -> ClaimResult:
    measurements = tuple(judge_measurement(item, alpha) for item in outcome.book.measurements)
    controls = tuple(judge_control(item, alpha) for item in outcome.book.controls)
    # Several quantities of one simulation share its lost paths: count them once.
    lost = {(item.paths, item.diverged, item.first_divergence) for item in measurements if item.diverged}
    diverged = sum(count for _, count, _ in lost)
    verdict, reason = outcome.verdict, outcome.reason
    if verdict is None:
        verdict, reason = _verdict(measurements, controls, diverged)
    return ClaimResult(
        id=outcome.claim.id,
        statement=outcome.claim.statement,
        source=outcome.claim.source,
        verdict=verdict,
        reason=reason,
        measurements=measurements,
        controls=controls,
        seed=outcome.seed,
        seconds=outcome.seconds,
        diverged_paths=diverged,
        figures=tuple(outcome.book.figures),
        tables=tuple(outcome.book.tables),
        notes=tuple(outcome.book.notes),
        traceback=outcome.traceback,
        bad_input=outcome.bad_input,
    )


def _verdict(measurements: tuple[MeasurementResult, ...], controls: tuple[ControlResult, ...], diverged: int) -> tuple[str, str]:
    against = [f"{item.name} lies {_range(item)}, {_outside(item)}" for item in measurements if item.state == DISJOINT]
    against += [f"the control {item.name} passed, and it must fail" for item in controls if item.state == INSIDE]
    if against:
        return CONTRADICTED, _sentence(against)
    open_ = [_undecided(item) for item in measurements if item.state == ACROSS]
    for control in controls:
        if control.state == ACROSS:
            open_.append(
                f"the control {control.name} neither fails nor passes"
                if control.measurements
                else f"the control {control.name} measured nothing"
            )
    if diverged:
        first = next((item.first_divergence for item in measurements if item.first_divergence), None)
        open_.append(
            f"{diverged:,} path{'s' * (diverged != 1)} diverged{f' (the first: {first})' if first else ''}, and what is left is a biased sample"
        )
    if not measurements:
        open_.append("nothing was measured")
    if open_:
        return INCONCLUSIVE, _sentence(open_)
    parts = [
        "its interval lies inside its tolerance"
        if len(measurements) == 1
        else f"all {len(measurements)} intervals lie inside their tolerances"
    ]
    if controls:
        parts.append(
            "the control failed as it must" if len(controls) == 1 else f"all {len(controls)} controls failed as they must"
        )
    return SUPPORTED, _sentence([" and ".join(parts)])


def _undecided(item: MeasurementResult) -> str:
    if not math.isfinite(item.value):
        return f"{item.name} is not a finite number"
    if not item.interval.finite:
        return f"{item.name} has no finite interval{f': {item.why_open}' if item.why_open else ''}"
    advice = (
        f"about {about(item.paths_needed)} paths would decide" if item.paths_needed else "it sits on the edge of its tolerance"
    )
    return f"{item.name} lies {_range(item)}, across an edge of {accepted(item)}: {advice}"


def accepted(item: MeasurementResult) -> str:
    """The accepted range in words.

    >>> from sdetools.claims.context import Measurement
    >>> accepted(judge_measurement(Measurement("order", 1.5, 0.9, 1.1, 1.0), 1e-3))
    '[0.9, 1.1]'
    """
    if math.isinf(item.accept_low):
        return f"at most {short(item.accept_high)}"
    if math.isinf(item.accept_high):
        return f"at least {short(item.accept_low)}"
    return f"[{short(item.accept_low)}, {short(item.accept_high)}]"


def about(paths: int) -> str:
    """A number of paths with two digits.

    >>> about(1234567)
    '1,200,000'
    """
    return f"{int(float(f'{paths:.2g}')):,}"


def short(value: float) -> str:
    """A number with four digits."""
    return f"{value:.4g}"


def _range(item: MeasurementResult) -> str:
    return f"at {short(item.value)}" if item.low == item.high else f"in [{short(item.low)}, {short(item.high)}]"


def _outside(item: MeasurementResult) -> str:
    if math.isinf(item.accept_low) or math.isinf(item.accept_high):
        return f"and it must be {accepted(item)}"
    return f"outside {accepted(item)}"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper() if text.startswith(('its ', 'all ', 'the ', 'nothing ')) else text[0]}{text[1:]}."


def _measured(book: Book) -> list[Measurement]:
    return [*book.measurements, *(item for control in book.controls for item in control.measurements)]


def _plain(value: float | None) -> float | None:
    """JSON has no infinities and no NaN: they are null."""
    return None if value is None or not math.isfinite(value) else float(value)
