r"""P(keep), the probability that dropping momentum costs a run more than a tenth of its progress, from what a diagnosis has measured so far.

h is the effective learning rate (lr/(1 - momentum) in torch's form), lambda_max the largest Hessian eigenvalue of the loss, and x0 = h lambda_max at the
start.

Three kinds of statement are kept apart:

- The *theorem on least squares*: with fresh batches of size B, one curvature lambda and h = lr/(1 - momentum), plain SGD at h is stable in mean square
  iff x = h lambda < 2B/(B + 2) (`st.exact.mode_edge`). For small steps without noise, the shares of progress after T steps then differ by a term of order
  momentum/((1 - momentum) T).
- The *safe rule*: momentum may be dropped where x = h lambda_max lies below this edge all the time (`safe`). For networks x0 at the start is no such bound,
  since training sharpens the loss: of 75 recorded settings with x0 below the edge, 23 need momentum. They were drawn close to SGDM's own edge.
- The *calibrated heuristic*: logistic regressions, fitted to recorded complete runs with and without momentum (`keep_probability`). They come in
  stages, each with more evidence than the one before: the sharpness at the start, plain SGD's own first hundred steps, a paired trial.

`benchmarks/dropping_momentum` makes the labels, fits the coefficients and evaluates them.
"""

from __future__ import annotations

import importlib.resources
import json
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

from sdetools import _check
from sdetools.exact.least_squares.momentum_budget import mode_edge

CLEAR = 0.05
"""A diagnosis stops once the probability of "keep" is at most this, or at least one minus this."""
STAGES = ("sharpness", "first steps", "trial")
"""The stages of a diagnosis, in order; each has a regression of its own."""
FIRST_STEPS, TRIAL_STEPS = 100, (200,)
"""The steps of plain SGD after which `Evidence.reduction` is measured, and those at which a diagnosis looks at the paired trial. An earlier look, after 100
steps, made only 1 of 95 open answers clear."""


@dataclass(frozen=True)
class Evidence:
    """What a diagnosis knows about a run that is to drop its momentum; optional entries are None before they are measured.

    Args:
        momentum: The momentum coefficient, in (0, 1).
        batch_size: The batch size, at least 1.
        steps: The length of the run in steps, or None if it is unknown. It does not enter the regressions: their labels have one length, 800 steps.
        x0: h lambda_max at the start, for h = lr/(1 - momentum) in torch's form and the largest Hessian eigenvalue lambda_max. It may be negative;
            values below 0.001 count as 0.001, those above 1,000 as 1,000.
        reduction: R, the mean over at least two seeds of L(100)/L(0), the loss after 100 steps of plain SGD at h beside that at the start. Each
            ratio is at most 1, and 1 if it is not finite, so that R lies in [0, 1].
        trial_gap: The share (L_plain - L_momentum) / (L(0) - L_momentum) of momentum's progress that plain SGD lacks in a paired trial, the mean over
            pairs, in [-1, 1] (`capped_gap`). It needs `reduction`, which the trial's own runs of plain SGD give.
        trial_steps: The steps of the trial, at least 200, the length that was fitted.

    Raises:
        ValueError: If an entry is outside its range, or only some of a trial's entries are given.

    Example:
        >>> from sdetools.bridge.keep_probability import Evidence
        >>> Evidence(momentum=0.9, batch_size=32, steps=None, x0=8.0, reduction=0.4).reduction
        0.4
    """

    momentum: float
    batch_size: int
    steps: int | None
    x0: float
    reduction: float | None = None
    trial_gap: float | None = None
    trial_steps: int | None = None

    def __post_init__(self) -> None:
        if _check.momentum("momentum", self.momentum) == 0:
            raise ValueError("`momentum` must be positive; got momentum=0. Without momentum there is nothing to drop.")
        _check.count("batch_size", self.batch_size)
        if self.steps is not None:
            _check.count("steps", self.steps)
        if math.isnan(self.x0):
            raise ValueError(
                "`x0` must be a number; got x0=nan. Leave a network whose loss is not finite at the start undiagnosed."
            )
        for name, least in (("reduction", 0.0), ("trial_gap", -1.0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= 1:
                raise ValueError(f"`{name}` must lie in [{least:g}, 1]; got {name}={value!r}. See its description in `Evidence`.")
        trial = (self.trial_gap, self.trial_steps)
        if trial != (None, None) and None in (self.reduction, *trial):
            raise ValueError(
                "`trial_gap` must be given together with `trial_steps` and `reduction`; "
                f"got trial_gap={trial[0]!r}, trial_steps={trial[1]!r}, reduction={self.reduction!r}. Pass all, or no trial."
            )
        if self.trial_steps is not None:
            _check.count("trial_steps", self.trial_steps, TRIAL_STEPS[0], "Let the trial be longer, or leave it out.")


STUCK, LEAST_REDUCTION, LEAST_GAP = 0.97, 0.02, 0.03
"""The reduction from which plain SGD is stuck at its start; the least reduction and gap that the regressions distinguish from 0."""
FEATURES = {
    "log x0": lambda e: math.log(min(max(e.x0, 1e-3), 1e3)),
    "log reduction": lambda e: math.log(max(e.reduction, LEAST_REDUCTION)),
    "stuck": lambda e: float(e.reduction >= STUCK),
    "log gap": lambda e: math.log(max(e.trial_gap, LEAST_GAP)),
}
"""The numbers that enter the regressions, as functions of the evidence; none decreases in what was measured."""


def capped_gap(start: float, momentum: float, plain: float) -> float:
    """Return the share of momentum's progress that plain SGD lacks, (plain - momentum) / (start - momentum), in [-1, 1].

    Losses above that at the start, or not finite, count as that at the start. Without progress of momentum the share is 0, and below -1 it is -1.

    Args:
        start: The loss before both runs.
        momentum: The loss after the run with momentum.
        plain: The loss after as many steps of plain SGD.

    Example:
        >>> import math; from sdetools.bridge.keep_probability import capped_gap
        >>> capped_gap(3.0, 1.0, 1.5), capped_gap(3.0, 1.0, math.nan), capped_gap(3.0, math.inf, 1.0)
        (0.25, 1.0, 0.0)
    """
    own, other = (min(end, start) if math.isfinite(end) else start for end in (momentum, plain))
    return max((other - own) / (start - own), -1.0) if own < start else 0.0


def stage_of(evidence: Evidence) -> str:
    """Return the latest stage for which there is evidence: "sharpness", "first steps" or "trial".

    Example:
        >>> from sdetools.bridge.keep_probability import Evidence, stage_of
        >>> stage_of(Evidence(0.9, 32, None, x0=8.0)), stage_of(Evidence(0.9, 32, None, x0=8.0, reduction=0.4))
        ('sharpness', 'first steps')
    """
    if evidence.trial_gap is not None:
        return "trial"
    return "sharpness" if evidence.reduction is None else "first steps"


def keep_probability(evidence: Evidence) -> float:
    """Return P(keep), the probability that the run lacks more than a tenth of momentum's progress at its end if it drops momentum.

    It is 1 / (1 + exp(-z)), with z linear in some of `FEATURES`, with frozen coefficients. They depend on the latest stage with evidence (`stage_of`):
    before any training z is a function of `x0` alone, after plain SGD's first steps of `reduction`, after the trial of `reduction` and `trial_gap`. It
    never decreases where one of these grows.

    Example:
        >>> from sdetools.bridge.keep_probability import Evidence, keep_probability
        >>> flat, stuck = (keep_probability(Evidence(0.9, 32, None, x0=8.0, reduction=r)) for r in (0.2, 1.0))
        >>> flat < 0.5 < stuck
        True
    """
    model = coefficients()["stages"][stage_of(evidence)]
    z = model["intercept"] + sum(weight * FEATURES[name](evidence) for name, weight in model["weights"].items())
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


@cache
def coefficients() -> dict[str, Any]:
    """Return the frozen coefficients with their provenance, the content of `keep_probability.json`.

    Under "stages", each stage has a dict with "intercept", a number, and "weights", numbers by names in `FEATURES`. "provenance" says from which runs they
    were fitted. Every call returns the same dict: do not change it.

    Example:
        >>> from sdetools.bridge.keep_probability import coefficients
        >>> list(coefficients()["stages"])
        ['sharpness', 'first steps', 'trial']
    """
    text = importlib.resources.files(__package__).joinpath("keep_probability.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def safe(evidence: Evidence) -> bool:
    """Return whether x0 = h lambda_max lies below 2B/(B + 2), the stability edge of plain SGD on least squares with one coordinate.

    Of `evidence` only `x0` and `batch_size`, B, enter. The edge is that of `st.exact.mode_edge`.

    This is no probability. True is safe where the curvature stays what it is at the start, as on least squares with one large eigenvalue; a network needs a
    margin for the sharpening by training. False says nothing: many runs above the edge may drop momentum as well.

    Example:
        >>> from sdetools.bridge.keep_probability import Evidence, safe
        >>> safe(Evidence(0.9, 32, None, x0=1.5)), safe(Evidence(0.9, 32, None, x0=8.0))
        (True, False)
    """
    return evidence.x0 < mode_edge(evidence.batch_size)
