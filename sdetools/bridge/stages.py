r"""The stages of a diagnosis: sharpness, plain SGD's first steps, paired trial; it stops at the first that answers.

A diagnosis asks whether plain SGD can replace a run with momentum. P(keep) is the probability that it cannot: that plain SGD would lack more than a tenth
of momentum's progress. Each stage adds a measurement to the evidence, and P(keep) is computed anew:

    sharpness      x0 = eta lambda_max at the start: eta the effective learning rate, lambda_max the largest Hessian eigenvalue of the loss
    first steps    R = mean of L(100)/L(0), the loss of plain SGD at eta after 100 steps beside that at the start
    trial          the share of momentum's progress that plain SGD lacks, from pairs of runs on the same batches

Three kinds of statement are kept apart, in code and in the sentences that a user reads:

- The theorem on least squares: plain SGD at eta = lr / (1 - momentum) is stable iff x = eta lambda lies below 2B / (B + 2) (`st.exact.mode_edge`).
- The safe rule: networks may drop momentum that are below this edge even if training sharpens them `SHARPENING` times (`is_safe`).
- The calibrated heuristic: P(keep), fitted to complete runs with and without momentum (`keep_probability`). Where it is clear, it gives the advice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from sdetools.bridge.curvature import Quantity
from sdetools.bridge.keep_probability import (
    CLEAR,
    FIRST_STEPS,
    STAGES,
    TRIAL_STEPS,
    Evidence,
    keep_probability,
    safe,
)
from sdetools.bridge.trial import TOLERANCE, TrainingRuns, Trial
from sdetools.exact.least_squares.momentum_budget import mode_edge

STABLE, UNSTABLE = 1.0, 2.0
"""eta lambda_max below which plain SGD acts like SGDM on a quadratic loss, and above which it is unstable there."""
PLANNED_STEPS = 800
"""The length of the run in question where a user does not state it: that of the runs to which P(keep) was fitted."""
SHARPENING = 16.0
"""The factor of the safe rule by which training may sharpen the loss. Without it the rule is unsafe: of recorded runs whose eta lambda_max at the start lies
between 0.5 and 1, a fifth needs momentum, because the loss sharpens early and plain SGD jumps and is stuck. Recorded runs do not reach below 0.5: there
the factor rests on the theory for small steps."""
LEAST = 0.5
"""The least eta lambda_max at the start of recorded runs. Below, a loss that has hardly moved in plain SGD's first steps may be slow and not stuck."""
WIDEST = 10.0
"""The largest factor between eta lambda_max and an end of its interval: an interval from a few noisy batches may contain 0 and less."""


@dataclass(frozen=True)
class DiagnosisStage:
    """What one stage of a diagnosis found.

    Attributes:
        name: "sharpness", "first steps" or "trial".
        keep: P(keep) by all evidence up to this stage. Its `low` and `high` are the range of P(keep) over the interval of lambda_max (`probability`), and
            no confidence interval of P(keep) itself. NaN in [0, 1] if the runs with momentum themselves diverged or made no progress.
        reason: The finding as a sentence, without a full stop.
        gradients: What the stage cost, in gradients of one batch; those of earlier stages are not included.
        safe: Whether the safe rule applies (`is_safe`): then the advice is "drop" where P(keep) is not clear.
    """

    name: str
    keep: Quantity
    reason: str
    gradients: float
    safe: bool = False

    @property
    def advice(self) -> str:
        """The answer: "drop" if P(keep) is at most `CLEAR` = 0.05 over its range, "keep" if at least 0.95; else "drop" if `safe`, or "unsure"."""
        if self.keep.high <= CLEAR:
            return "drop"
        if self.keep.low >= 1 - CLEAR:
            return "keep"
        return "drop" if self.safe else "unsure"


@dataclass(frozen=True)
class Cost:
    """What a diagnosis cost, and the alternative: a complete pair of runs. The unit is the gradient of one batch.

    A Hessian product counts as two gradients and one more for its graph, an evaluation of the loss as a third of one. Work that is done in larger pieces
    counts by its floating-point operations.

    Attributes:
        terms: The cost of the terms of Lemma 2.4. The advice does not use them.
        sharpness: That of the largest Hessian eigenvalues, at the start and after the trial.
        runs: That of plain SGD's first steps and of the trial.
        paired_run: That of two runs of the planned length, with momentum and without.
    """

    terms: float
    sharpness: float
    runs: float
    paired_run: float

    @property
    def total(self) -> float:
        """The gradients of the whole diagnosis, `terms` + `sharpness` + `runs`."""
        return self.terms + self.sharpness + self.runs

    def __str__(self) -> str:
        share = self.total / self.paired_run
        pays = (
            ""
            if share < 0.5
            else ". Measuring pays only for runs many times longer than its own steps; trying both costs little more here"
        )
        return f"{self.total:.0f} gradients of a batch, where a pair of complete runs takes {self.paired_run:.0f}{pays}"


def zone_of(step_sharpness: Quantity) -> str | None:
    """Return the zone of the interval of eta lambda_max by least squares: "drop" below 1, "keep" above 2, "between" inside [1, 2], ends included.

    Args:
        step_sharpness: eta lambda_max with its interval.

    Returns:
        The zone; None if the interval contains points of two zones, or if the value is not finite.
    """
    if not math.isfinite(step_sharpness.value):
        return None
    if step_sharpness.high < STABLE:
        return "drop"
    if step_sharpness.low > UNSTABLE:
        return "keep"
    return "between" if step_sharpness.low >= STABLE and step_sharpness.high <= UNSTABLE else None


def probability(evidence: Evidence, x0: Quantity) -> Quantity:
    """Return P(keep) with its range over the interval of x0 = eta lambda_max.

    Ends of `x0` that are farther from its value than a factor of `WIDEST` = 10 are moved there. Without a trial, nothing is known about the run with
    momentum. So the range begins at 0 where the upper end reaches the edge 2 (1 + beta)/(1 - beta) at which momentum beta itself is unstable on a quadratic
    loss, and where the lower end lies below `LEAST` = 0.5, where plain SGD may be slow and not stuck.

    Args:
        evidence: What was measured so far. Its own `x0` is not used: those of the argument `x0` take its place.
        x0: eta lambda_max at the start, with its interval; values below 0 count as 0.

    Returns:
        P(keep) at the value of `x0`; `low` and `high` are the least and the largest P(keep) over its interval.
    """
    middle = max(x0.value, 0.0)
    low, high = (min(max(end, middle / WIDEST), middle * WIDEST) for end in (x0.low, x0.high))
    values = [keep_probability(replace(evidence, x0=end)) for end in (x0.value, low, high)]
    unknown = evidence.trial_gap is None and (high > mode_edge(math.inf, evidence.momentum) or low < LEAST)
    return Quantity.of(values[0], 0.0 if unknown else min(values), max(values))


def is_safe(x0: Quantity, evidence: Evidence) -> bool:
    """Return whether the safe rule applies: `SHARPENING` = 16 times the upper end of eta lambda_max lies below plain SGD's edge on least squares.

    Args:
        x0: eta lambda_max at the start, with its interval.
        evidence: What was measured so far, of which only the batch size B enters, by the edge 2B/(B + 2).

    Example:
        >>> from sdetools.bridge.curvature import Quantity; from sdetools.bridge.keep_probability import Evidence
        >>> from sdetools.bridge.stages import is_safe
        >>> run = Evidence(0.9, 32, None, x0=0.1)
        >>> [is_safe(Quantity.of(x), run) for x in (0.1, 0.2)]
        [True, False]
    """
    return safe(replace(evidence, x0=SHARPENING * max(x0.high, 0.0)))


def first_stage(x0: Quantity, evidence: Evidence, gradients: float) -> DiagnosisStage:
    """Return the stage "sharpness", with P(keep) from eta lambda_max at the start; nothing is trained.

    Args:
        x0: eta lambda_max at the start, with its interval.
        evidence: The momentum and the batch size of the run in question, and no measurement of a later stage.
        gradients: What the measurement of lambda_max cost, in gradients of one batch; it is only reported.
    """
    keep = probability(evidence, x0)
    text = f"eta lambda_max = {x0} at the start"
    if x0.high > (edge := mode_edge(math.inf, evidence.momentum)):
        text += f"; momentum itself is unstable above {edge:.4g} on a quadratic loss, so that only a trial can say keep"
    return DiagnosisStage(STAGES[0], keep, text, gradients, is_safe(x0, evidence))


def further_stages(
    first: DiagnosisStage, x0: Quantity, evidence: Evidence, runs: TrainingRuns, seeds: int, steps: int, trial: bool | None
) -> tuple[list[DiagnosisStage], Evidence, Trial | None]:
    """Train where the sharpness leaves doubt: plain SGD's first steps, then, where these leave doubt too, the paired trial.

    Nothing is trained if the loss at the start is not positive, because the stages compare losses with it; the reason of the first stage then says so.

    Args:
        first: The stage "sharpness", of `first_stage`.
        x0: eta lambda_max at the start, with its interval.
        evidence: The evidence of the first stage: momentum, batch size and x0.
        runs: The training runs of both methods from the checkpoint; they are continued and counted.
        seeds: The number of runs of each method, at least 2.
        steps: The steps of the trial, at least 200; a longer one is looked at after the earlier ones of `TRIAL_STEPS` too.
        trial: True for both stages in any case, False for no trial, None for as many stages as the answer takes.

    Returns:
        The stages in their order, the first included; the evidence with what was measured; the last trial, None if there was none.
    """
    stages = [first]
    if first.advice != "unsure" and not trial:
        return stages, evidence, None
    if not runs.before > 0:
        reason = (
            f"the loss at the start is {runs.before:.4g}; the stages that train compare losses with it, and need a positive one"
        )
        return [replace(first, reason=f"{first.reason}; {reason}")], evidence, None
    evidence = replace(evidence, reduction=runs.reduction(seeds, FIRST_STEPS))
    text = f"plain SGD's loss is {evidence.reduction:.3g} of that at the start after {FIRST_STEPS} steps, mean of {seeds} runs"
    spent = runs.gradients
    stages.append(DiagnosisStage(STAGES[1], probability(evidence, x0), text, spent, first.safe))
    if trial is False or (stages[-1].advice != "unsure" and not trial):
        return stages, evidence, None
    for look in [*(earlier for earlier in TRIAL_STEPS if earlier < steps and not trial), steps]:
        found = runs.trial(seeds, look)
        last, evidence = _trial_stage(found, x0, evidence, runs.gradients - spent, first.safe)
        if last.advice != "unsure":
            break
    return [*stages, last], evidence, found


def _trial_stage(found: Trial, x0: Quantity, evidence: Evidence, gradients: float, rule: bool) -> tuple[DiagnosisStage, Evidence]:
    """Return the stage "trial" and the evidence with the gap of the trial.

    If no run with momentum ended below the loss at the start, P(keep) is NaN in [0, 1], and the evidence is returned unchanged.

    Args:
        found: The paired runs.
        x0: eta lambda_max at the start, with its interval.
        evidence: The evidence of the stage "first steps".
        gradients: What the runs of this stage cost, in gradients of one batch.
        rule: Whether the safe rule applies.
    """
    what = f"{len(found.plain)} pairs of {found.steps} steps"
    if not (found.momentum < found.before).any():  # NaN where a run diverged
        keep = Quantity.of(math.nan, 0.0, 1.0)
        text = (
            f"the runs with momentum diverge or make no progress in {what}: its learning rate is wrong, with momentum or without"
        )
    else:
        evidence = replace(evidence, trial_gap=float(found.gaps.mean()), trial_steps=found.steps)
        keep = probability(evidence, x0)
        text = f"plain SGD lacks {evidence.trial_gap:.3g} of momentum's progress, the mean over {what}; more than {TOLERANCE:g} in the share {found.share} of them"
    return DiagnosisStage(STAGES[2], keep, text, gradients, rule and not math.isnan(keep.value)), evidence


def decided(evidence: Evidence | None, eta: float) -> Callable[[Quantity], bool]:
    """Return a function of lambda_max with its interval: whether the stage "sharpness" gives "drop" or "keep" there, so that no more data are needed.

    Args:
        evidence: The momentum and the batch size of the run in question; None without momentum, where the function always returns False.
        eta: The effective learning rate, at which plain SGD would run.
    """
    return lambda found: (
        evidence is not None and math.isfinite(found.value) and first_stage(found * eta, evidence, 0.0).advice != "unsure"
    )


def background(x0: Quantity, evidence: Evidence) -> tuple[str, ...]:
    """Return two sentences, without full stops: what the theorem on least squares says about eta lambda_max = `x0`, and what the safe rule says.

    Args:
        x0: eta lambda_max with its interval.
        evidence: What was measured, of which only the batch size B enters, by the edge 2B/(B + 2).
    """
    edge = mode_edge(evidence.batch_size)
    place = "is stable below" if x0.high < edge else "is unstable above" if x0.low >= edge else "may be on either side of"
    rule = (
        f"applies: even {SHARPENING:g} times eta lambda_max lies below this edge, so that momentum may be dropped"
        if is_safe(x0, evidence)
        else f"does not apply: {SHARPENING:g} times eta lambda_max lies above this edge, and training may sharpen the loss or flatten it"
    )
    return (
        f"theorem, for least squares alone: plain SGD {place} eta lambda = 2B/(B + 2) = {edge:.3g} at batch size {evidence.batch_size}",
        f"safe rule: {rule}",
    )
