"""Verdicts: comparison of intervals with tolerances, for measurements, controls and claims."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sdetools.claims.context import ClaimRecord, Control, Measurement
from sdetools.claims.definition import Claim
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
from sdetools.estimates.interval import ConfidenceInterval, Kind

FAMILY = 1e-3
"""Family-wise error rate: the probability that a run of any size judges some statement wrongly."""


@dataclass
class Outcome:
    """What a claim has left after its run, before it is judged.

    Attributes:
        claim: The claim.
        record: Its record of measurements, controls, figures, tables and notes.
        seed: Its own seed.
        seconds: Its run time.
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


def judge(outcomes: list[Outcome]) -> tuple[float, tuple[ClaimResult, ...]]:
    """Judge all claims of a run together, so that a wrong judgement in the whole run has probability at most `FAMILY` = 1e-3.

    The error rate of one interval is `FAMILY` divided by the number of random measurements of the run (Bonferroni). The measurements of
    controls count, because their intervals are used as well.

    Args:
        outcomes: The outcomes of all claims of the run.

    Returns:
        The error rate of one interval (one minus its confidence level), and the results of the claims in the same order.
    """
    everything = [item for outcome in outcomes for item in _measured(outcome.record)]
    alpha = FAMILY / max(1, sum(item.random for item in everything))
    return alpha, tuple(_judge_claim(outcome, alpha) for outcome in outcomes)


def judge_measurement(item: Measurement, alpha: float) -> MeasurementResult:
    """Return the result of a measurement: its interval at confidence level 1 - alpha, compared with its accepted range.

    Both are closed, so intervals with a common end are not disjoint. A value that is not finite has an infinite interval.

    Args:
        item: The measurement.
        alpha: The error rate of the interval.
    """
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
    """Return the result of a negative control. It fails, as it must, if one of its intervals is disjoint from its accepted range.

    Args:
        control: The control. One without measurements neither fails nor passes.
        alpha: The error rate of each interval.
    """
    results = tuple(judge_measurement(item, alpha) for item in control.measurements)
    states = [item.state for item in results]
    if DISJOINT in states:
        state = DISJOINT
    else:
        state = INSIDE if states and all(state == INSIDE for state in states) else ACROSS
    return ControlResult(control.name, state, results)


def _judge_claim(outcome: Outcome, alpha: float) -> ClaimResult:
    """Judge the measurements and controls of a claim, and the claim itself unless it has a verdict."""
    measurements = tuple(judge_measurement(item, alpha) for item in outcome.record.measurements)
    controls = tuple(judge_control(item, alpha) for item in outcome.record.controls)
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
        seconds=outcome.seconds,
        diverged_paths=diverged,
        figures=tuple(outcome.record.figures),
        tables=tuple(outcome.record.tables),
        notes=tuple(outcome.record.notes),
        traceback=outcome.traceback,
        bad_input=outcome.bad_input,
    )


def _verdict(measurements: tuple[MeasurementResult, ...], controls: tuple[ControlResult, ...], diverged: int) -> tuple[str, str]:
    """Return the verdict of a claim that has finished, and the reason."""
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
    """Return why a measurement is inconclusive, with the number of paths that would decide."""
    if not math.isfinite(item.value):
        return f"{item.name} is not a finite number"
    if not item.interval.finite:
        return f"{item.name} has no finite interval{f': {item.why_open}' if item.why_open else ''}"
    advice = (
        f"about {about(item.paths_needed)} paths would decide" if item.paths_needed else "it lies on the edge of its tolerance"
    )
    return f"{item.name} lies {_range(item)}, across an edge of {accepted(item)}: {advice}"


def accepted(item: MeasurementResult) -> str:
    """Return a text of the accepted range of a measurement, such as "[0.9, 1.1]", "at most 0.5" or "at least 2", with four digits.

    Example:
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
    """Return a number of paths as text, rounded to two significant digits, with commas between thousands.

    Example:
        >>> about(1234567)
        '1,200,000'
    """
    return f"{int(float(f'{paths:.2g}')):,}"


def short(value: float) -> str:
    """Return a number as text with at most four significant digits."""
    return f"{value:.4g}"


def _range(item: MeasurementResult) -> str:
    """Return a description of the interval."""
    return f"at {short(item.value)}" if item.low == item.high else f"in [{short(item.low)}, {short(item.high)}]"


def _outside(item: MeasurementResult) -> str:
    """Return a description of the accepted range that the interval misses."""
    if math.isinf(item.accept_low) or math.isinf(item.accept_high):
        return f"and it must be {accepted(item)}"
    return f"outside {accepted(item)}"


def _sentence(parts: list[str]) -> str:
    """Join parts by semicolons to a sentence; the first word is capitalised unless it is a name."""
    text = "; ".join(parts)
    return f"{text[0].upper() if text.startswith(('its ', 'all ', 'the ', 'nothing ')) else text[0]}{text[1:]}."


def _measured(record: ClaimRecord) -> list[Measurement]:
    """Return all measurements of a record, including those of controls."""
    return [*record.measurements, *(item for control in record.controls for item in control.measurements)]
