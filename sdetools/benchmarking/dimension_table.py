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
"""Bounds in seconds: time to the first result of an unseen loss, the same from dimension LARGE on, and of a loss whose kernel is on disk."""


@dataclass(frozen=True)
class Cell:
    """The measurement of one problem in one dimension.

    Attributes:
        problem: Name of the problem.
        dim: Dimension.
        lanes: Lanes of the kernel's blocks.
        paths: Number of paths.
        steps: Number of steps of the long run.
        ns: Nanoseconds per coordinate-step.
        limit: Nanoseconds per coordinate-step by the roofline.
        normal: Nanoseconds of a draw: a normal or, for batches, a uniform.
        peak: Peak GEMM rate in Gflop/s.
        peak_at_dim: GEMM rate in Gflop/s for a matrix of the dimension itself.
        bound: Largest allowed ratio of `ns` to `limit`.
        first: Seconds to the first result of an unseen loss, if measured.
        again: Seconds to the first result with the kernel on disk, if measured.
    """

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
        """Measured time over roofline."""
        return self.ns / self.limit

    @property
    def first_bound(self) -> float:
        """Bound of `first` at this dimension."""
        return FIRST_BOUND if self.dim < LARGE else FIRST_BOUND_LARGE

    def misses(self) -> list[str]:
        """Return a description of each bound that the cell exceeds."""
        out = [f"ratio {self.ratio:.2f} > {self.bound}"] if self.ratio > self.bound else []
        if self.first is not None and self.first > self.first_bound:
            out.append(f"first result {self.first:.2f} s > {self.first_bound}")
        if self.again is not None and self.again > AGAIN_BOUND:
            out.append(f"again {self.again:.2f} s > {AGAIN_BOUND}")
        return out


@dataclass(frozen=True)
class Comparison:
    """A measured number and its bound.

    Attributes:
        name: The compared quantities.
        value: Measured value.
        bound: The bound, or None.
        sense: "at most" or "at least".
        remark: Conditions of the measurement.
    """

    name: str
    value: float
    bound: float | None
    sense: str
    remark: str = ""

    @property
    def verdict(self) -> str:
        """Whether the bound is met: "holds" or "misses", and empty without a bound."""
        if self.bound is None:
            return ""
        return "holds" if (self.value <= self.bound if self.sense == "at most" else self.value >= self.bound) else "misses"


@dataclass(frozen=True)
class LeftOut:
    """A cell that was not measured, and the reason."""

    problem: str
    dim: int
    reason: str


@dataclass(frozen=True)
class DimensionTable:
    """The cost of SGDM in each dimension on one machine.

    Attributes:
        hardware: The machine and the versions of libraries.
        threads: Number of threads of the thread comparison.
        cells: Measured cells.
        comparisons: Comparisons of pairs, threads and precisions.
        left_out: Cells that were not measured.
    """

    hardware: dict[str, Any]
    threads: int
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    left_out: tuple[LeftOut, ...]

    def table(self) -> str:
        """Return the table as Markdown."""
        blocks = [machine.text(*block) for block in self.blocks()]
        return "\n\n".join([", ".join(f"{key} {value}" for key, value in self.hardware.items()), *blocks, *self.remarks()])

    def blocks(self) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        """Return titles, columns and rows of the two tables."""
        cells = [
            (c.problem, f"{c.dim:,}", f"{c.ns:.2f}", f"{c.limit:.2f}", f"{c.ratio:.2f}", f"{c.bound:.2f}", _number(c.first), _number(c.again),
             f"{c.lanes}", f"{c.peak:.1f}" if c.peak else "-", f"{c.normal:.2f}", "; ".join(c.misses()) or "holds")
            for c in self.cells
        ]  # fmt: skip
        columns = (
            *("problem", "d", "ns", "roofline", "ratio", "bound", "first s", "again s"),
            *("lanes", "Gflop/s", "ns per draw", "bounds"),
        )
        compared = [
            (c.name, f"{c.value:.3g}", f"{c.sense} {c.bound:.3g}" if c.bound is not None else "-", c.verdict, c.remark)
            for c in self.comparisons
        ]  # fmt: skip
        return [
            (
                "SGDM, Gaussian or minibatch noise, double precision, one thread: processor time per coordinate-step",
                columns,
                cells,
            ),
            ("Comparisons", ("quantity", "measured", "bound", "", "remark"), compared),
        ]

    def remarks(self) -> list[str]:
        """Return a line for each cell that was not measured."""
        return [f"{o.problem}, d = {o.dim:,}, was left out: it {o.reason}" for o in self.left_out]

    def plot(self, *, ax: Any = None) -> Figure:
        """Plot time per coordinate-step and roofline against the dimension, and their ratio with its bounds, on two axes."""
        from sdetools.plots import figure_of, roofline_panels

        series = {
            name: np.array([(c.dim, c.ns, c.limit, c.ratio, c.bound) for c in self.cells if c.problem == name], dtype=float).T
            for name in dict.fromkeys(c.problem for c in self.cells)
        }
        return figure_of(roofline_panels(series, ax))

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of the file."""
        return asdict(self)

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, for `load`."""
        from sdetools.claims.folder import write_text

        write_text(Path(path), json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> DimensionTable:
        """Read a file written by `save`.

        Raises:
            ValueError: If the file is not one of these.
        """
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
                f"`path` must be a file written by `sdetools bench --dimension`; got {str(path)!r} ({error})."
            ) from error


def _number(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"
