"""The result of `sdetools bench --dimension`: a table, a figure, a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.benchmarking import machine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST_BOUND, FIRST_BOUND_LARGE, LARGE, AGAIN_BOUND = 1.5, 2.0, 10_000, 0.3
"""Seconds to the first result of an unseen loss, from dimension LARGE on, and of one whose kernel is on disk."""


@dataclass(frozen=True)
class Cell:
    """One problem in one dimension: `ns` and the roofline's `limit` for a coordinate-step, of which `normal` is the price of a draw, a normal or (for batches) a uniform; GEMM
    rates in Gflop/s, the peak and that of a matrix of the dimension itself; seconds to the first result, of an unseen loss and `again`."""

    problem: str
    dim: int
    lanes: int
    paths: int
    steps: int
    ns: float
    limit: float
    normal: float
    peak: float
    peak_at_dim: float
    bound: float
    first: float | None
    again: float | None

    @property
    def ratio(self) -> float:
        """Measured over roofline."""
        return self.ns / self.limit

    @property
    def first_bound(self) -> float:
        return FIRST_BOUND if self.dim < LARGE else FIRST_BOUND_LARGE

    def misses(self) -> list[str]:
        """Which bounds it does not hold."""
        out = [f"ratio {self.ratio:.2f} > {self.bound}"] if self.ratio > self.bound else []
        if self.first is not None and self.first > self.first_bound:
            out.append(f"first result {self.first:.2f} s > {self.first_bound}")
        if self.again is not None and self.again > AGAIN_BOUND:
            out.append(f"again {self.again:.2f} s > {AGAIN_BOUND}")
        return out


@dataclass(frozen=True)
class Comparison:
    """A number, and the bound that it must keep to, `sense` "at most" or "at least"; None where there is none."""

    name: str
    value: float
    bound: float | None
    sense: str
    remark: str = ""

    @property
    def verdict(self) -> str:
        """Whether it keeps to its bound; empty without one."""
        if self.bound is None:
            return ""
        return "holds" if (self.value <= self.bound if self.sense == "at most" else self.value >= self.bound) else "misses"


@dataclass(frozen=True)
class LeftOut:
    """A cell that was not measured, and why."""

    problem: str
    dim: int
    reason: str


@dataclass(frozen=True)
class DimensionTable:
    """What SGDM costs in each dimension on one machine: `cells`, `comparisons`, what was left out, `hardware` with versions, `threads`."""

    hardware: dict[str, Any]
    threads: int
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    left_out: tuple[LeftOut, ...]

    def table(self) -> str:
        """Markdown."""
        blocks = [machine.text(*block) for block in self.blocks()]
        return "\n\n".join([", ".join(f"{key} {value}" for key, value in self.hardware.items()), *blocks, *self.remarks()])

    def blocks(self) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        """Titles, columns and rows of the two tables."""
        cells = [
            (c.problem, f"{c.dim:,}", f"{c.ns:.2f}", f"{c.limit:.2f}", f"{c.ratio:.2f}", f"{c.bound:.2f}", _number(c.first), _number(c.again),
             f"{c.lanes}", f"{c.peak:.1f}" if c.peak else "-", f"{c.normal:.2f}", "; ".join(c.misses()) or "holds")
            for c in self.cells
        ]  # fmt: skip
        columns = (
            *("problem", "d", "ns", "roofline", "ratio", "bound", "first s", "again s"),
            *("lanes", "Gflop/s", "ns a draw", "bounds"),
        )
        compared = [
            (c.name, f"{c.value:.3g}", f"{c.sense} {c.bound:.3g}" if c.bound is not None else "-", c.verdict, c.remark)
            for c in self.comparisons
        ]  # fmt: skip
        return [
            (
                "SGDM, Gaussian noise or that of batches, double precision, one thread: processor time of a coordinate-step",
                columns,
                cells,
            ),
            ("Beside each other", ("what", "measured", "bound", "", "remark"), compared),
        ]

    def remarks(self) -> list[str]:
        """What was left out, a line each."""
        return [f"{o.problem}, d = {o.dim:,}, was left out: it {o.reason}" for o in self.left_out]

    def plot(self, *, ax: Any = None) -> Figure:
        """ns of a coordinate-step and roofline against the dimension, and their ratio with its bounds."""
        from sdetools.plots import figure_of, roofline_panels

        series = {
            name: np.array([(c.dim, c.ns, c.limit, c.ratio, c.bound) for c in self.cells if c.problem == name], dtype=float).T
            for name in dict.fromkeys(c.problem for c in self.cells)
        }
        return figure_of(roofline_panels(series, ax))

    def to_dict(self) -> dict[str, Any]:
        """What the file holds."""
        return asdict(self)

    def save(self, path: str | Path) -> None:
        """Write JSON that `load` reads."""
        from sdetools.claims.folder import write_text

        write_text(Path(path), json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> DimensionTable:
        """What `save` wrote; ValueError for any other file."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                found["hardware"],
                found["threads"],
                tuple(Cell(**c) for c in found["cells"]),
                tuple(Comparison(**c) for c in found["comparisons"]),
                tuple(LeftOut(**o) for o in found["left_out"]),
            )
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"`path` must be a file that `sdetools bench --dimension` wrote; got {str(path)!r} ({error})."
            ) from error


def _number(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"
