"""Verdicts: comparison of intervals with tolerances, for measurements, controls and claims.

A verdict depends on its claim alone. A claim is *supported* if all intervals at level 1 - 1e-3 lie inside their tolerances and all controls
failed: an intersection-union test, so that a false claim is supported with probability at most 1e-3 under any dependence. It is
*contradicted* in two steps. One of its m random measurements is flagged if its interval at level 1 - q/m, q = sqrt(1e-5), lies outside;
then the claim runs again on fresh draws, and one of the f flagged intervals at level 1 - q/f must lie outside again. Both steps together
have probability at most q^2 = 1e-5 for a true claim. A number without draws that lies outside contradicts at once.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdetools.claims.definition import Claim
from sdetools.claims.measurement import FALSE_SUPPORT, FLAG, judge_measurement
from sdetools.claims.record import ClaimRecord, Control
from sdetools.claims.results import (
    ACROSS,
    CONTRADICTED,
    DISJOINT,
    INCONCLUSIVE,
    INSIDE,
    SUPPORTED,
    ClaimResult,
    ControlResult,
    MeasurementResult,
)
from sdetools.estimates.interval import ConfidenceInterval


@dataclass
class Outcome:
    """What a claim has recorded in one run, before it is judged.

    Attributes:
        claim: The claim.
        record: Its record of measurements, controls, figures, tables and notes.
        seed: Its own seed, `ClaimContext.seed`.
        seconds: The run time of its function.
        verdict: "not run" or "error" for a claim that did not finish, else None.
        reason: The reason of that verdict.
        traceback: The traceback of an error, else empty.
        bad_input: Whether the claim ended with a ValueError.
    """

    claim: Claim
    record: ClaimRecord
    seed: int
    seconds: float = 0.0
    verdict: str | None = None
    reason: str = ""
    traceback: str = field(default="", repr=False)
    bad_input: bool = False

    @property
    def flag(self) -> float:
        """The error rate (1 - level) of an interval that may contradict the claim: `FLAG` / max(1, m) for m random measurements outside controls."""
        return FLAG / max(1, sum(item.random for item in self.record.measurements))


def flagged(outcome: Outcome) -> tuple[str, ...]:
    """Return the names of the random measurements of a claim that must be repeated on fresh draws before it is contradicted.

    They are those whose interval at level 1 - `FLAG` / m lies outside its accepted range, m being the number of random measurements. The tuple is
    empty if there are none, and for a claim that did not finish, or that a number without draws contradicts already.
    """
    return _flagged(outcome, _judged(outcome))


def _judged(outcome: Outcome) -> tuple[MeasurementResult, ...]:
    """Return the results of the measurements of a claim's first run, in order of recording, each judged with the error rate `outcome.flag`."""
    return tuple(judge_measurement(item, outcome.flag) for item in outcome.record.measurements)


def _flagged(outcome: Outcome, results: tuple[MeasurementResult, ...]) -> tuple[str, ...]:
    """Return what `flagged` does, the names of the measurements to repeat, from their `results` in order of recording."""
    outside = [item for item, result in zip(outcome.record.measurements, results, strict=True) if result.state == DISJOINT]
    once = outcome.verdict is not None or not all(item.random for item in outside)
    return () if once else tuple(item.name for item in outside)


def judge(outcome: Outcome, again: Outcome | None = None) -> ClaimResult:
    """Judge the measurements and controls of a claim, and the claim itself unless it has a verdict.

    Args:
        outcome: The outcome of the claim.
        again: Its outcome on fresh draws, if measurements are `flagged`; without it such a claim is inconclusive.

    Returns:
        The result. Controls, figures, tables and notes are those of the first run; `seconds` is the time of both.
    """
    measurements, controls = _judged(outcome), tuple(map(judge_control, outcome.record.controls))
    names = _flagged(outcome, measurements)
    measurements = tuple(_repeated(item, len(names), again) if item.name in names else item for item in measurements)
    # Several quantities of one simulation share its diverged paths: count them once.
    counted = {(item.paths, item.diverged, item.first_divergence) for item in measurements if item.diverged}
    diverged = sum(count for _, count, _ in counted)
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
        seconds=round(outcome.seconds + (again.seconds if again is not None else 0.0), 3),
        diverged_paths=diverged,
        figures=tuple(outcome.record.figures),
        tables=tuple(outcome.record.tables),
        notes=tuple(outcome.record.notes),
        traceback=outcome.traceback,
        bad_input=outcome.bad_input,
        file=_place(outcome.claim.path),
        line=outcome.claim.line,
    )


def _place(path: Path) -> str:
    """Return the path of a file as text, relative to the current folder where it lies below it."""
    with contextlib.suppress(ValueError, OSError):
        return path.relative_to(Path.cwd()).as_posix()
    return path.as_posix()


def judge_control(control: Control) -> ControlResult:
    """Return the result of a negative control. It fails, as it must, if one of its intervals is disjoint from its accepted range.

    The k intervals have the level 1 - `FALSE_SUPPORT` / k = 1 - 1e-3 / k.

    Args:
        control: The control. One without measurements neither fails nor passes: its state is "across".
    """
    rate = FALSE_SUPPORT / max(1, len(control.measurements))
    results = tuple(judge_measurement(item, rate, rate) for item in control.measurements)
    states = [item.state for item in results]
    if DISJOINT in states:
        state = DISJOINT
    else:
        state = INSIDE if states and all(state == INSIDE for state in states) else ACROSS
    return ControlResult(control.name, state, results)


def _repeated(item: MeasurementResult, count: int, again: Outcome | None) -> MeasurementResult:
    """Return a flagged measurement with its interval on fresh draws, at level 1 - `FLAG` / count.

    Its state stays "disjoint" only if that interval lies outside the accepted range as well; otherwise it becomes "across".

    Args:
        item: The measurement's result of the first run.
        count: The number of flagged measurements.
        again: The outcome of the claim on fresh draws; None, or an outcome without this measurement, confirms nothing.
    """
    found = [m for m in again.record.measurements if m.name == item.name] if again is not None else []
    if not found:
        return replace(item, state=ACROSS)
    second = judge_measurement(found[0], FLAG / count)
    return replace(item, state=DISJOINT if second.state == DISJOINT else ACROSS, again=second.outer)


def _verdict(measurements: tuple[MeasurementResult, ...], controls: tuple[ControlResult, ...], diverged: int) -> tuple[str, str]:
    """Return the pair of the verdict of a claim that has finished ("supported", "contradicted" or "inconclusive") and the reason, a sentence.

    Args:
        measurements: The judged measurements; one that is "disjoint" contradicts.
        controls: The judged controls; each must be "disjoint" for support.
        diverged: The number of diverged paths; with any the claim is not supported.
    """
    against = [
        f"{item.name} lies {_range(item, item.outer)}{_again(item)}, {_outside(item)}"
        for item in measurements
        if item.state == DISJOINT
    ]
    if against:
        return CONTRADICTED, _sentence(against)
    open_ = [_undecided(item) for item in measurements if item.state == ACROSS]
    open_ += [
        f"the control {control.name} has no power: it passed, and it must fail" for control in controls if control.state == INSIDE
    ]
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
            f"{diverged:,} path{'s' * (diverged != 1)} diverged{f' (the first: {first})' if first else ''}, and the remaining paths are a biased sample"
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
    """Return a clause on why a measurement is inconclusive, with the number of paths that would decide if it is known."""
    if not math.isfinite(item.value):
        return f"{item.name} is not a finite number"
    if item.interval.finite and item.why_open:
        return f"{item.name}: {item.why_open}; about {about(item.paths_needed or 0)} paths would do"
    if item.again is not None:
        return f"{item.name} lies {_range(item, item.outer)}, {_outside(item)}, but not again on fresh draws{_again(item, ', where it lies')}"
    if item.outer.disjoint(item.accept_low, item.accept_high):
        return f"{item.name} lies {_range(item, item.outer)}, {_outside(item)}, and was not measured again on fresh draws"
    if not item.interval.finite:
        return f"{item.name} has no finite interval{f': {item.why_open}' if item.why_open else ''}"
    advice = (
        f"about {about(item.paths_needed)} paths would decide" if item.paths_needed else "it lies on the edge of its tolerance"
    )
    return f"{item.name} lies {_range(item, item.interval)}, across an edge of {accepted(item)}: {advice}"


def accepted(item: MeasurementResult) -> str:
    """Return a text of the accepted range of a measurement, such as "[0.9, 1.1]", "at most 0.5" or "at least 2"; numbers have four digits.

    Example:
        >>> from sdetools.claims.record import Measurement
        >>> accepted(judge_measurement(Measurement("order", 1.5, 0.9, 1.1, 1.0), 1e-3))
        '[0.9, 1.1]'
    """
    if math.isinf(item.accept_low):
        return f"at most {short(item.accept_high)}"
    if math.isinf(item.accept_high):
        return f"at least {short(item.accept_low)}"
    return f"[{short(item.accept_low)}, {short(item.accept_high)}]"


def about(paths: int) -> str:
    """Return a number of paths as text, rounded to two significant digits, with commas between thousands.

    Example:
        >>> about(1234567)
        '1,200,000'
    """
    return f"{int(float(f'{paths:.2g}')):,}"


def short(value: float) -> str:
    """Return a number as text with at most four significant digits."""
    return f"{value:.4g}"


def _range(item: MeasurementResult, interval: ConfidenceInterval) -> str:
    """Return a text of an interval of a measurement: "in [0.9, 1.1]", or "at 1.05" for one without width."""
    low, high = interval.low, interval.high
    return f"at {short(item.value)}" if low == high else f"in [{short(low)}, {short(high)}]"


def _again(item: MeasurementResult, text: str = ", and again") -> str:
    """Return `text` and the measurement's interval on fresh draws, such as ", and again in [1.2, 1.3]"; empty if there is none."""
    return "" if item.again is None else f"{text} in [{short(item.again.low)}, {short(item.again.high)}]"


def _outside(item: MeasurementResult) -> str:
    """Return a text of the accepted range that the interval misses: "outside [0.9, 1.1]", or "and it must be at most 0.5"."""
    if math.isinf(item.accept_low) or math.isinf(item.accept_high):
        return f"and it must be {accepted(item)}"
    return f"outside {accepted(item)}"


def _sentence(parts: list[str]) -> str:
    """Join clauses by semicolons to a sentence; the first word is capitalised unless it is the name of a measurement."""
    text = "; ".join(parts)
    return f"{text[0].upper() if text.startswith(('its ', 'all ', 'the ', 'nothing ')) else text[0]}{text[1:]}."
