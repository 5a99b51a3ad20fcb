"""The result of `sdetools bench --dimension`: a table, a figure, a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.benchmarking import machine
from sdetools.results.protocol import Origin, Result

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

FIRST_BOUND, FIRST_BOUND_LARGE, LARGE, AGAIN_BOUND = 1.5, 2.0, 10_000, 0.3
"""Bounds in seconds: time to the first result of an unseen loss, the same from dimension LARGE on, and of a loss whose kernel is on disk."""
MEASURED = Origin("dimension_table()", backend="numba")


@dataclass(frozen=True)
class Cell:
    """The measurement of SGDM on one problem in one dimension.

    Attributes:
        problem: Name of the problem.
        dim: Dimension.
        lanes: Number of paths that the compiled kernel computes together.
        paths: Number of paths of a run.
        steps: Number of steps by which the long one of the two timed runs exceeds the short one, which has 1.
        ns: Nanoseconds of processor time per coordinate-step (one step of one coordinate of one path), from the difference of the two runs.
        limit: Nanoseconds per coordinate-step by the roofline, a lower bound: matrix products at the peak rate, plus the draws.
        normal: Nanoseconds of a draw: a normal or, for batches, a uniform.
        peak: Peak rate of matrix products in Gflop/s; 0 for a problem without them.
        peak_at_dim: Rate of matrix products in Gflop/s for a square matrix of the dimension, at least 64; 0 for a problem without them.
        bound: Largest allowed ratio of `ns` to `limit`.
        first: Seconds of processor time from the definition of an unseen loss to its first result, compilation included; None if not measured.
        again: The same in a new process with the compiled kernel on disk; None if not measured.
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
        """Measured time over roofline (a lower bound from measured rates of products and draws), `ns / limit`; 1 would be the machine's limit."""
        return self.ns / self.limit

    @property
    def first_bound(self) -> float:
        """Largest allowed `first`, the time to the first result of an unseen loss, in seconds: 1.5 below dimension 10,000, else 2."""
        return FIRST_BOUND if self.dim < LARGE else FIRST_BOUND_LARGE

    def misses(self) -> list[str]:
        """Return a list of texts such as "ratio 1.32 > 1.15", one for each bound (on `ratio`, `first`, `again`) that is exceeded."""
        out = [f"ratio {self.ratio:.2f} > {self.bound}"] if self.ratio > self.bound else []
        if self.first is not None and self.first > self.first_bound:
            out.append(f"first result {self.first:.2f} s > {self.first_bound}")
        if self.again is not None and self.again > AGAIN_BOUND:
            out.append(f"again {self.again:.2f} s > {AGAIN_BOUND}")
        return out


@dataclass(frozen=True)
class Comparison:
    """A measured number that compares variants of a run, and its bound.

    Attributes:
        name: The compared quantities, such as "float32 over float64, 2-D hyperbola".
        value: Measured value, a ratio or seconds, as the name says.
        bound: The bound, or None for a number without one.
        sense: "at most" or "at least", the side of the bound on which the value must lie; empty without a bound.
        remark: Conditions of the measurement, such as "2-D hyperbola"; may be empty.
    """

    name: str
    value: float
    bound: float | None
    sense: str
    remark: str = ""

    @property
    def verdict(self) -> str:
        """The word "holds" if the value meets its bound, "misses" if not, and an empty text without a bound."""
        if self.bound is None:
            return ""
        return "holds" if (self.value <= self.bound if self.sense == "at most" else self.value >= self.bound) else "misses"


@dataclass(frozen=True)
class LeftOut:
    """A cell that was not measured: its `problem` and `dim`, and the `reason`, a phrase such as "would need 6 GB of memory"."""

    problem: str
    dim: int
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class DimensionTable(Result):
    """The cost of SGDM in each dimension on one machine, as `dimension_table` measures it.

    Attributes:
        hardware: The machine and the versions of libraries, the dict of `machine.hardware`: processor, cores, numpy, numba, ...
        threads: Number of threads that `comparisons` compare with one.
        cells: Measured cells, one per problem and dimension: for each problem in turn, in increasing dimension.
        comparisons: Comparisons of pairs with single dynamics, of threads and of precisions, in the order of `dimension.comparisons`.
        left_out: Cells that were not measured, because they do not fit into memory.
        origin: What made the result: the text of the call, the backend and the version of the library.
    """

    hardware: dict[str, Any]
    threads: int
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    left_out: tuple[LeftOut, ...]
    origin: Origin = MEASURED
    diverged = 0

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset over (problem, dim): `ns`, `limit`, `ratio`, `bound`, and the seconds `first` and `again`; NaN where nothing was measured.

        The variables are those of `Cell`: nanoseconds per coordinate-step, the roofline, their ratio and its bound, and times to the first result. The
        attributes of the dataset are the machine, `threads`, and the fields of `origin`.
        """
        import xarray

        problems, dims = (list(dict.fromkeys(getattr(c, key) for c in self.cells)) for key in ("problem", "dim"))
        fields = {key: np.full((len(problems), len(dims)), np.nan) for key in ("ns", "limit", "ratio", "bound", "first", "again")}
        for c in self.cells:
            for key, values in fields.items():
                if (found := getattr(c, key)) is not None:
                    values[problems.index(c.problem), dims.index(c.dim)] = found
        return xarray.Dataset(
            {key: (("problem", "dim"), values) for key, values in fields.items()},
            coords={"problem": problems, "dim": dims},
            attrs={"diverged": 0, "threads": self.threads}
            | {k: str(v) for k, v in self.hardware.items()}
            | self.origin.attributes,
        )

    def __repr__(self) -> str:
        missed = [f"  {c.problem}, d = {c.dim:,}: {text}" for c in self.cells for text in c.misses()]
        return "\n".join(
            [f"{len(self.cells)} cells on {self.hardware.get('processor', 'a machine')}, {len(missed)} bounds missed", *missed]
        )

    def table(self) -> str:
        """Return the whole table as Markdown text: the hardware, the table of cells, that of comparisons, and a line for each cell left out.

        A cell is one problem in one dimension.
        """
        blocks = [machine.text(*block) for block in self.blocks()]
        return "\n\n".join([", ".join(f"{key} {value}" for key, value in self.hardware.items()), *blocks, *self.remarks()])

    def blocks(self) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
        """Return the two tables, first of cells, then of comparisons, each as a tuple: title, headings, and rows of texts, one for each heading."""
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
        """Return a list of sentences, one for each cell that was left out, with the reason."""
        return [f"{o.problem}, d = {o.dim:,}, was left out: it {o.reason}" for o in self.left_out]

    def plot(self, *, ax: Any = None) -> Figure:
        """Return a figure of two panels over the dimension: time per coordinate-step with the roofline, and their ratio with its bounds.

        There is a curve for each problem. The roofline is a lower bound of the time, from measured rates of matrix products and draws.

        Args:
            ax: A sequence of the two axes of matplotlib to draw on; None makes a new figure.
        """
        from sdetools.plots import figure_of, roofline_panels

        series = {
            name: np.array([(c.dim, c.ns, c.limit, c.ratio, c.bound) for c in self.cells if c.problem == name], dtype=float).T
            for name in dict.fromkeys(c.problem for c in self.cells)
        }
        return figure_of(roofline_panels(series, ax))

    def to_json(self) -> str:
        """Return the table as the text of a JSON object, keyed by the names of the attributes: the file that `sdetools bench --dimension` writes."""
        return json.dumps(asdict(self), indent=2) + "\n"


def _number(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"
