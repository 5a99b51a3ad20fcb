"""The table of labels: one row for each setting, with lists over its seeds, and what follows from them: gaps, shares, verdicts and evidence."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dropping_momentum.settings import STEPS, Setting
from sdetools.bridge.keep_probability import TRIAL_STEPS, Evidence, capped_gap
from sdetools.estimates.interval import binomial_interval

HOME = Path(__file__).resolve().parent
TABLE = HOME / "labels.csv"
FEATURE_SEEDS, SEEDS = 2, (12, 24, 48)
"""Seeds that only give evidence, the first of each list; seeds that only give labels, until they decide."""
TOLERANCE, DEAD, LEVEL = 0.1, 0.05, 0.95
"""The share of momentum's progress that may be lacked; the progress of SGDM below which a setting or a run is dead, as it has no gap; the confidence of a
verdict over all its looks."""
CHECKPOINTS = (25, 50, 100, 200, 400)
METHODS = ("sgd", "sgdm")
LISTS = tuple(f"{method}_{at}" for method in METHODS for at in (*CHECKPOINTS, "end", "test"))
"""Columns with one loss for each seed over the loss at the start; "end" is the mean of the last three evaluations of the training loss."""


@dataclass(frozen=True)
class Row:
    """A setting with its measurements.

    `edge` is the largest probed x0 at which SGDM alone makes progress; `sharpness` is lambda_max at the start, from `products` Hessian products; `start` and `test_start` are the losses at the start; `runs` has the
    losses over `start` (of the test over `test_start`), one array `(seeds,)` for each name of `LISTS`. A loss that is not finite is nan.
    """

    setting: Setting
    edge: float
    x0: float
    lr: float
    sharpness: float
    products: int
    start: float
    test_start: float
    runs: dict[str, np.ndarray]

    def capped(self, column: str) -> np.ndarray:
        """Return the losses of a column over that at the start, at most 1, and 1 where they are not finite."""
        return np.fmin(np.nan_to_num(self.runs[column], nan=1.0, posinf=1.0), 1.0)

    @property
    def progress(self) -> float:
        """The share of the initial loss that SGDM removes in a complete run, the mean over label seeds."""
        return float(np.mean(1 - self.capped("sgdm_end")[FEATURE_SEEDS:]))

    @property
    def gaps(self) -> np.ndarray:
        """For each label seed whose own run of SGDM is not dead the share of their mean progress that plain SGD lacks at the end."""
        plain, momentum = (self.capped(f"{method}_end")[FEATURE_SEEDS:] for method in METHODS)
        alive = 1 - momentum >= DEAD
        return gaps(plain[alive], momentum[alive])

    @property
    def share(self) -> float:
        """The share of gaps above `TOLERANCE`, 0 if there are no gaps."""
        return float(np.mean(self.gaps > TOLERANCE)) if len(self.gaps) else 0.0

    @property
    def verdict(self) -> str:
        """The verdict "keep", "drop", "open" or "dead"."""
        if self.progress < DEAD:
            return "dead"
        return decided(int(np.sum(self.gaps > TOLERANCE)), len(self.gaps))

    @property
    def log_ratio(self) -> float:
        """The median over label seeds of log(L_sgd/L_sgdm) at the end, with losses that are not finite as that at the start."""
        ends = (np.nan_to_num(self.runs[f"{method}_end"][FEATURE_SEEDS:], nan=1.0, posinf=1.0) for method in METHODS)
        return float(np.median(np.subtract(*(np.log(np.maximum(end, 1e-12)) for end in ends))))

    def evidence(self, stage: str) -> Evidence:
        """Return what a diagnosis knows at a stage, from the sharpness and the feature seeds alone."""
        own = {"momentum": self.setting.momentum, "batch_size": self.setting.batch, "steps": STEPS, "x0": self.x0}
        if stage != "sharpness":
            own["reduction"] = float(self.capped("sgd_100")[:FEATURE_SEEDS].mean())
        if stage == "trial":
            plain, momentum = (self.capped(f"{method}_{TRIAL_STEPS[0]}")[:FEATURE_SEEDS] for method in METHODS)
            own |= {"trial_gap": trial_gap(plain, momentum), "trial_steps": TRIAL_STEPS[0]}
        return Evidence(**own)


def gaps(plain: np.ndarray, momentum: np.ndarray) -> np.ndarray:
    """Return the share of momentum's mean progress that each run of plain SGD lacks, `(seeds,)`, from capped losses over that at the start."""
    return (plain - momentum) / np.mean(1 - momentum) if len(plain) else plain


def trial_gap(plain: np.ndarray, momentum: np.ndarray) -> float:
    """Return the mean over pairs of `capped_gap` in a paired trial."""
    return float(np.mean([capped_gap(1.0, own, other) for own, other in zip(momentum, plain)]))


def decided(lacking: int, seeds: int) -> str:
    """Return "keep" or "drop" if most runs without momentum lack, or most do not, with confidence; else "open".

    The interval of the share of runs that lack more than `TOLERANCE` excludes 1/2. It is valid for all looks together (Bonferroni).
    """
    low, high = binomial_interval(lacking, seeds, 1 - (1 - LEVEL) / len(SEEDS))
    return "keep" if low > 0.5 else "drop" if high < 0.5 else "open"


HEADER = (
    "network", "number", "momentum", "batch", "place", "seed", "edge", "x0", "lr", "sharpness", "products", "start", "test_start",
    "verdict", "share", "log_ratio", *LISTS,
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return the cells of a row, in the order of `HEADER`: losses with four digits, lists separated by spaces."""
    s = row.setting
    own = [
        s.network,
        s.number,
        s.momentum,
        s.batch,
        s.place,
        s.seed,
        f"{row.edge:.4g}",
        row.x0,
        f"{row.lr:.6g}",
        f"{row.sharpness:.6g}",
        row.products,
    ]
    own += [f"{row.start:.6g}", f"{row.test_start:.6g}", row.verdict, f"{row.share:.4g}", f"{row.log_ratio:.4g}"]
    return [str(cell) for cell in own] + [" ".join(f"{loss:.4g}" for loss in row.runs[name]) for name in LISTS]


def from_cells(named: dict[str, str]) -> Row:
    """Return the row with these cells; the verdict, the share and the log ratio follow from the others."""
    s = named
    setting = Setting(s["network"], int(s["number"]), float(s["momentum"]), int(s["batch"]), float(s["place"]), int(s["seed"]))
    numbers = (
        float(s["edge"]),
        float(s["x0"]),
        float(s["lr"]),
        float(s["sharpness"]),
        int(s["products"]),
        float(s["start"]),
        float(s["test_start"]),
    )
    return Row(setting, *numbers, {name: np.array(s[name].split(), dtype=float) for name in LISTS})


def read(path: Path = TABLE) -> list[Row]:
    """Return the rows of a table, sorted by network and number."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [from_cells(named) for named in csv.DictReader(file) if named[LISTS[-1]]]
    return sorted(rows, key=lambda row: (row.setting.network, row.setting.number))


def write(rows: Sequence[Row], path: Path) -> None:
    """Write a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(cells(row) for row in rows)


def digest(rows: Sequence[Row]) -> str:
    """Return a digest of the content of rows, independent of their order."""
    lines = sorted("\t".join(cells(row)) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def summary(rows: Sequence[Row]) -> str:
    """Return the number of settings for each verdict."""
    counts = {word: sum(row.verdict == word for row in rows) for word in ("keep", "drop", "open", "dead")}
    return ", ".join(f"{count} {word}" for word, count in counts.items()) + f" of {len(rows)} settings"


def finite(value: float) -> float:
    """Return a loss for the table: nan if it is not finite."""
    return value if math.isfinite(value) else math.nan
