"""What would decide a claim: the paths, the seed, or the control that a verdict other than "supported" depends on."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

from sdetools.claims.context import BUDGETS
from sdetools.claims.measurement import FEWEST
from sdetools.claims.results import (
    ACROSS,
    CONTRADICTED,
    DISJOINT,
    ERROR,
    INCONCLUSIVE,
    INSIDE,
    ClaimResult,
    MeasurementResult,
    Results,
)
from sdetools.claims.verdict import about, accepted


def deciding(item: ClaimResult, results: Results) -> tuple[str, ...]:
    r"""Return what would decide a claim, as sentences; the last text is the shell command that runs it alone.

    The tuple is empty for a claim with the verdict "supported" or "not run": nothing remains to be decided, or the reason of its result says what
    is missing.

    Args:
        item: The result of the claim.
        results: The results of its run, for the budget and the seed of the command.

    Example:
        >>> from pathlib import Path
        >>> from sdetools import Estimate
        >>> from sdetools.claims import Claim, Results
        >>> from sdetools.claims.record import ClaimRecord, Measurement
        >>> from sdetools.claims.verdict import Outcome, judge
        >>> record = ClaimRecord([Measurement("order", Estimate(1.0, 0.1, 1000), 0.9, 1.1, 1.0)])
        >>> item = judge(Outcome(Claim("smooth", "The order is 1.", "", print, Path("c.py"), 1), record, 0))
        >>> print("\n".join(deciding(item, Results("1.0", 0, "quick", (item,)))))
        order: about 11,000 paths would decide, and it has 1,000. The budget standard has enough.
        sdetools verify c.py --only smooth --budget standard
    """
    if item.verdict == CONTRADICTED:
        random = any(one.state == DISJOINT and one.again is not None for one in item.measurements)
        why = (
            "Fresh draws agree, so more paths would only narrow the interval. Another seed gives a further look."
            if random
            else "The number has no sampling error: neither paths nor seeds would change it."
        )
        return (why, command(item, results, seed=results.seed + 1 if random else None))
    if item.verdict == ERROR:
        return ("The claim has no verdict until it ends without an error.", command(item, results))
    if item.verdict != INCONCLUSIVE:
        return ()
    found = [text for one in item.measurements if one.state == ACROSS for text in _measurement(one, results)]
    for control in item.controls:
        worst = max(control.measurements, key=lambda one: one.excess, default=None)
        if control.state == INSIDE and worst is not None:
            found.append(
                f"The control {control.name} has no power: it must fail, and {worst.name} is {_where(worst)} there too. "
                "Make the variant more wrong, or narrow the tolerance."
            )
        elif control.state == ACROSS:
            found += [
                f"The control {control.name}: {text}" for one in control.measurements for text in _measurement(one, results)
            ][:1]
            if worst is None:
                found.append(f"The control {control.name} measured nothing. Measure in it what the claim measures.")
    if item.diverged_paths:
        found.append("The diverged paths would have to stay finite: take a smaller step or a shorter horizon.")
    if not item.measurements:
        found.append("Nothing was measured: call `run.measure` in the claim.")
    again = any(one.again is not None and one.state == ACROSS for one in item.measurements)
    return (*found, command(item, results, seed=results.seed + 1 if again else None, budget=_enough(item, results)))


def command(item: ClaimResult, results: Results, seed: int | None = None, budget: str | None = None) -> str:
    """Return the shell command that runs one claim alone, such as "sdetools verify c.py --only smooth --budget standard".

    The options `--budget quick` and `--seed 0` are omitted, since they are the defaults.

    Args:
        item: The result of the claim.
        results: The results of its run.
        seed: The seed; None for that of the run.
        budget: The name of the budget; None for that of the run.
    """
    words = ["sdetools", "verify", *([item.file] if item.file else []), "--only", item.id]
    budget, seed = budget or results.budget, results.seed if seed is None else seed
    return shlex.join([*words, *(["--budget", budget] if budget != "quick" else []), *(["--seed", str(seed)] if seed else [])])


def _where(item: MeasurementResult) -> str:
    """Return the accepted range of a measurement as words that follow "is": "in [0.9, 1.1]", "at most 0.5" or "at least 2"."""
    return f"in {accepted(item)}" if math.isfinite(item.accept_low) and math.isfinite(item.accept_high) else accepted(item)


def _measurement(item: MeasurementResult, results: Results) -> Iterator[str]:
    """Yield one text, of one sentence or two: what would decide a measurement whose interval lies across an edge of its accepted range."""
    if not math.isfinite(item.value):
        yield f"{item.name}: no number of paths, since it is not a finite number."
    elif item.again is not None:
        yield f"{item.name}: another seed, since it lay outside once, and not again on fresh draws."
    elif item.paths_needed == FEWEST and (item.paths or 0) < FEWEST:
        yield f"{item.name}: {FEWEST} values, such as seeds, since an interval of {item.paths} has no verdict."
    elif item.paths_needed and item.paths:
        enough = _budget_for(item, results)
        tail = (
            f"The budget {enough} has enough."
            if enough
            else "No budget has as many: widen the tolerance, or reduce the variance."
        )
        yield f"{item.name}: about {about(item.paths_needed)} paths would decide, and it has {item.paths:,}. {tail}"
    elif not item.interval.finite:
        yield f"{item.name}: an estimate with a finite interval{f' ({item.why_open})' if item.why_open else ''}."
    else:
        yield f"{item.name}: no number of paths, since it lies on the edge of its tolerance."


def _budget_for(item: MeasurementResult, results: Results) -> str | None:
    """Return the name of the smallest budget above that of the run at which a measurement would have the paths it needs; None if there is none.

    Its paths are taken to grow in proportion to those of the budgets.
    """
    factor = (item.paths_needed or 0) / (item.paths or 1)
    have = BUDGETS[results.budget].paths
    return next((name for name, budget in BUDGETS.items() if budget.paths > have and budget.paths >= factor * have), None)


def _enough(item: ClaimResult, results: Results) -> str | None:
    """Return the name of the largest of the budgets that the undecided measurements of a claim and its controls need.

    Measurements for which no budget has enough paths are left out; None if there are no others.
    """
    open_ = [*item.measurements, *(one for control in item.controls if not control.failed for one in control.measurements)]
    needed = [_budget_for(one, results) for one in open_ if one.state == ACROSS and one.paths_needed and one.paths]
    names = list(BUDGETS)
    return max((name for name in needed if name), key=names.index, default=None)
