"""The result of a diagnosis: measured quantities with their intervals, P(keep) after each stage, reasons, cost and advice.

P(keep) is the probability that plain SGD cannot replace momentum. The stages, "sharpness", "first steps" and "trial", are described in `stages`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdetools._moved import RenamedAttribute
from sdetools.bridge.curvature import Quantity
from sdetools.bridge.keep_probability import CLEAR, Evidence
from sdetools.bridge.stages import STABLE, UNSTABLE, Cost, DiagnosisStage, background, zone_of
from sdetools.bridge.trial import Trial
from sdetools.results.protocol import BY_HAND, Origin, Result, plain

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Diagnosis(Result):
    """Result of `diagnose`: measured quantities with 95 % intervals, and P(keep) with its reasons.

    "Keep" means that plain SGD at the effective learning rate would lack more than a tenth of momentum's progress at the end of the run. L is the loss
    over all data, H its Hessian at the checkpoint, and Sigma the covariance of the gradient of one batch. A `Quantity` has `value`, `low` and `high`.

    Attributes:
        lr: The learning rate of the run with momentum, as it was passed to `diagnose`.
        momentum: Its momentum.
        batch_size: Its batch size.
        plain_lr: The effective learning rate eta, at which plain SGD would replace it.
        descent: |grad L|^2.
        curvature: grad L^T H grad L.
        noise: tr(H Sigma).
        variance: tr(Sigma).
        sharpness: The largest eigenvalue lambda_max of H.
        later_sharpness: lambda_max after the trial's steps with momentum, because training may increase it; infinite if that run diverged, and None
            without a trial.
        freed: The bytes of the momentum buffer, which plain SGD does not need.
        trial: The paired training runs; None without a trial.
        notes: Remarks on how derivatives were computed and which data were read; empty if there are none.
        origin: The call that made the result, its seed, and the version.
        stages: The stages that were needed, in order; the last one gives the answer.
        evidence: The numbers of which P(keep) is a function, such as x0 = eta lambda_max at the start (`Evidence`); None without momentum.
        cost: The gradients spent, and those of a complete pair of runs; None if the result was constructed directly.
    """

    lr: float
    momentum: float
    batch_size: int
    plain_lr: float
    descent: Quantity
    curvature: Quantity
    noise: Quantity
    variance: Quantity
    sharpness: Quantity
    later_sharpness: Quantity | None
    freed: int
    trial: Trial | None = field(default=None)
    notes: tuple[str, ...] = ()
    origin: Origin = field(default=BY_HAND, compare=False)
    stages: tuple[DiagnosisStage, ...] = ()
    evidence: Evidence | None = None
    cost: Cost | None = None

    prediction = RenamedAttribute("least_squares")

    @property
    def diverged(self) -> int:
        """1 if the last run with momentum of the trial diverged, else 0; 0 without a trial."""
        return int(self.later_sharpness is not None and not math.isfinite(self.later_sharpness.value))

    @property
    def keep_probability(self) -> float:
        """P(keep) after the last stage, the probability that plain SGD would lack more than a tenth of momentum's progress at the end of the run.

        NaN if all runs with momentum diverged or made no progress in the trial, or if the result was constructed without stages.
        """
        return self._keep.value

    @property
    def stage(self) -> str:
        """The stage that answers: "sharpness", "first steps" or "trial"; empty if the result was constructed without stages."""
        return self.stages[-1].name if self.stages else ""

    @property
    def advice(self) -> str:
        """What to do with momentum: "drop" if P(keep) of the last stage is at most 0.05 over its range, "keep" if it is at least 0.95.

        Otherwise "drop" where the safe rule applies (16 times eta lambda_max lies below plain SGD's stability edge on least squares), else "unsure".
        """
        return self.stages[-1].advice if self.stages else "unsure"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Sentences that justify the advice, in order: what theorem and safe rule say, what each stage found and cost, the cost of all."""
        known = background(self.sharpness * self.plain_lr, self.evidence) if self.evidence is not None else ()
        return (
            *known,
            *(f"{one.name}: {one.reason}; P(keep) = {_percent(one.keep)}; {one.gradients:.0f} gradients" for one in self.stages),
            *(() if self.cost is None else (f"cost: {self.cost}",)),
        )

    @property
    def _keep(self) -> Quantity:
        """P(keep) of the last stage, with its range; NaN in [0, 1] without stages."""
        return self.stages[-1].keep if self.stages else Quantity.of(math.nan, 0.0, 1.0)

    @property
    def _quantities(self) -> dict[str, Quantity]:
        """The measured and derived quantities in a dict by name, without those that were not measured."""
        found = {
            name: getattr(self, name) for name in ("descent", "curvature", "noise", "variance", "sharpness", "later_sharpness")
        }
        found |= {
            "step_sharpness": self.step_sharpness,
            "progress_shortfall": None if self.trial is None else self.trial.shortfall,
            "share_of_pairs": None if self.trial is None else self.trial.share,
            "keep_probability": self._keep,
        }
        return {name: one for name, one in found.items() if one is not None}

    @property
    def data(self) -> xarray.Dataset:
        """The measured quantities as a data set: variables `value`, `low` and `high` over the dimension `quantity` (their names, such as "sharpness").

        `low` and `high` are the ends of 95 % intervals; those of "keep_probability" are its range over the interval of the sharpness. The attributes are
        the settings, the conclusions (`regime`, `least_squares`, `stage`, `advice`), the reasons, the cost and the call.
        """
        import xarray

        rows = self._quantities
        fields = {end: ("quantity", [getattr(one, end) for one in rows.values()]) for end in ("value", "low", "high")}
        names = ("lr", "momentum", "batch_size", "plain_lr", "freed", "regime", "least_squares", "stage", "advice")
        attributes = {name: getattr(self, name) for name in names} | {"reasons": "\n".join(self.reasons)}
        if self.cost is not None:
            attributes |= {"gradients": self.cost.total, "gradients_of_a_paired_run": self.cost.paired_run}
        return xarray.Dataset(fields, {"quantity": list(rows)}, attributes | {"diverged": self.diverged} | self.origin.attributes)

    def table(self) -> str:
        """Return all quantities with their intervals, the regime, the reasons, the notes and the advice as text, one per line."""
        return str(self)

    def summary(self) -> str:
        """Return one line of text: the advice, P(keep) and the stage that gave it, and eta lambda_max with its interval."""
        return f"{self.advice}: P(keep) = {_percent(self._keep)} by the {self.stage}; eta lambda_max {self.step_sharpness}"

    def plot(self, *, ax: Any = None) -> Figure:
        """Plot P(keep) after each stage, with its range (see `DiagnosisStage.keep`), and the thresholds of the advice.

        A stage whose P(keep) is NaN is left out.

        Args:
            ax: The axes to draw into; None for those of a new figure.

        Returns:
            The figure.
        """
        from sdetools.plots import figure_of, interval_plot

        rows = {one.name: (one.keep.value, one.keep.low, one.keep.high) for one in self.stages if math.isfinite(one.keep.value)}
        return figure_of(interval_plot(rows, "P(keep)", edges={"drop below": CLEAR, "keep above": 1 - CLEAR}, ax=ax))

    @property
    def noise_scale(self) -> float:
        """The gradient noise scale, batch_size tr(Sigma) / |grad L|^2: the batch size at which noise equals signal; inf or NaN if |grad L|^2 = 0."""
        return self.batch_size * _ratio(self.variance.value, self.descent.value)

    @property
    def step_sharpness(self) -> Quantity:
        """The stability number eta lambda_max of plain SGD, with its interval; infinite if the last run with momentum diverged.

        Value and ends are each the larger one of those before and after the trial, times `plain_lr`.
        """
        both = [one for one in (self.sharpness, self.later_sharpness) if one is not None]
        return Quantity.of(*(max(getattr(one, end) for one in both) for end in ("value", "low", "high"))) * self.plain_lr

    @property
    def regime(self) -> str:
        """The step-size regime of a quadratic loss with this sharpness, a sentence such as "small steps, noise-induced: ...", or that it is undecided."""
        if self.later_sharpness is not None and not math.isfinite(self.later_sharpness.value):
            return "the run with momentum diverges: its learning rate is too large"
        if self.least_squares == "keep":
            return "large steps: plain SGD at the effective learning rate would exceed the stability limit of a quadratic loss"
        if self.least_squares == "unsure":
            step_sharpness = self.step_sharpness
            across = [f"{edge:g}" for edge in (STABLE, UNSTABLE) if step_sharpness.low < edge <= step_sharpness.high]
            if not across:
                return "intermediate steps, near the stability limit of plain SGD"
            return f"undecided: the interval of eta lambda_max contains {' and '.join(across)}"
        if abs(self.noise.value) > abs(self.curvature.value):
            return "small steps, noise-induced: momentum acts like plain SGD"
        return "small steps, curvature-induced: momentum acts like plain SGD"

    @property
    def least_squares(self) -> str:
        """The answer if the loss were quadratic, by eta lambda_max alone: "drop" if its interval lies below 1, "keep" above 2, else "unsure".

        Above 2 plain SGD diverges on a quadratic loss, which is a theorem. On networks training often flattens the loss, so `advice` does not use it.
        It is "unsure" also if the run with momentum diverged.
        """
        zone = zone_of(self.step_sharpness)
        return "unsure" if zone in (None, "between") else zone

    def to_json(self) -> str:
        """Return JSON text: all fields but `origin`, and with them the conclusions, such as `advice` and `regime`; numbers not finite become null."""
        names = ("noise_scale", "regime", "least_squares", "keep_probability", "stage", "advice", "reasons")
        own = {name: part for name, part in dataclasses.asdict(self).items() if name != "origin"}
        derived = {"step_sharpness": dataclasses.asdict(self.step_sharpness)}
        if self.trial is not None:
            derived["share_of_pairs"] = dataclasses.asdict(self.trial.share)
        return json.dumps(plain(own | derived | {name: getattr(self, name) for name in names}), indent=1) + "\n"

    def __str__(self) -> str:
        eta = self.plain_lr
        rows = [
            ("descent term |grad L|^2", str(self.descent)),
            ("curvature term grad L.H grad L", str(self.curvature)),
            ("noise term tr(H Sigma)", str(self.noise)),
            ("curvature term / descent term of a step", f"{eta / 2 * _ratio(self.curvature.value, self.descent.value):.3g}"),
            ("noise term / descent term of a step", f"{eta / 2 * _ratio(self.noise.value, self.descent.value):.3g}"),
            ("sharpness lambda_max, full loss", str(self.sharpness)),
            *([] if self.later_sharpness is None else [("sharpness after the trial", str(self.later_sharpness))]),
            ("eta lambda_max", str(self.step_sharpness)),
            ("gradient noise scale", f"{self.noise_scale:.4g} (batch size {self.batch_size})"),
            ("regime", self.regime),
        ]
        if self.trial is not None:
            runs = f"{len(self.trial.plain)} pairs of {self.trial.steps} steps"
            rows.append((f"progress plain SGD lacks, {runs}", f"{self.trial.shortfall} (Student's t: assumes no mixture)"))
            rows.append(("share of pairs that lack over 0.1", f"{self.trial.share} (Clopper-Pearson)"))
        rows.append(("P(keep)", f"{_percent(self._keep)} by the {self.stage}"))
        width = max(len(name) for name, _ in rows)
        sentences = [("reason", one) for one in self.reasons] + [("note", note) for note in self.notes]
        text = "\n".join(f"{name:<{width}}  {value}" for name, value in [*rows, *sentences])
        advice = {
            "drop": f"drop it: plain SGD at lr={eta:.6g}, which frees {_bytes(self.freed)}",
            "keep": "keep it: plain SGD at the effective learning rate would do worse",
            "unsure": "unsure: a longer trial (`trial=True` with more `steps`), or complete runs with and without momentum, would decide",
        }[self.advice]
        return f"{text}\nmomentum: {advice}"


def _percent(keep: Quantity) -> str:
    """Return the probability `keep` with its range as text, in per cent, such as "3.1 % [2.0 %, 4.2 %]"; "unknown" for NaN."""
    if math.isnan(keep.value):
        return "unknown"
    shown = [f"{100 * p:.1f} %" for p in (keep.value, keep.low, keep.high)]
    return shown[0] if shown[0] == shown[1] == shown[2] else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _ratio(a: float, b: float) -> float:
    """Return a / b; for b = 0 it is infinite, and NaN if a = 0 too."""
    return a / b if b else math.inf if a else math.nan


def _bytes(count: int) -> str:
    """Return `count` bytes as text with a decimal unit, such as "1.5 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
