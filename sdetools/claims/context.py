"""What a claim is handed: its budget, its seed, and the book in which it writes what it measures."""

from __future__ import annotations

import hashlib
import math
import numbers
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from sdetools._check import number, positive
from sdetools.estimates.interval import ConfidenceInterval

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """How much one claim may spend: `paths` of a simulation, and `seconds` as a guide for what is not counted in paths."""

    name: str
    paths: int
    seconds: float


BUDGETS = {
    "quick": Budget("quick", 20_000, 10.0),
    "standard": Budget("standard", 1_000_000, 300.0),
    "full": Budget("full", 10_000_000, 3600.0),
}


class Missing(Exception):
    """Raised by a claim that cannot run here, for want of a data set or an extra; `remedy` is the line that gets it."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


@runtime_checkable
class Measured(Protocol):
    """What judging needs of an estimate: `sdetools.Estimate` and its kin have it."""

    value: float
    n: int

    def confidence_interval(self, level: float) -> ConfidenceInterval: ...


class _Former:
    """An estimate of a claim's own, with the method of before: `interval(confidence)`, a pair."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_own"], name)

    def confidence_interval(self, level: float) -> ConfidenceInterval:
        low, high = map(float, self._own.interval(level))
        return ConfidenceInterval(low, high, level)


@dataclass(frozen=True)
class Measurement:
    """One measured quantity and the closed range `[accept_low, accept_high]` in which the claim says it lies."""

    name: str
    estimate: Any
    accept_low: float
    accept_high: float
    expected: float | None

    @property
    def random(self) -> bool:
        """Whether draws enter: not for a plain number, nor for an estimate that says so. An interval without width proves nothing."""
        return not isinstance(self.estimate, float) and bool(getattr(self.estimate, "random", True))


@dataclass
class Control:
    """A variant that must come out contradicted."""

    name: str
    measurements: list[Measurement] = field(default_factory=list)


@dataclass(frozen=True)
class Drawing:
    """A figure as the text of an SVG file."""

    name: str
    slug: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass
class Book:
    """Everything one claim wrote down."""

    measurements: list[Measurement] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    figures: list[Drawing] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def claim_seed(seed: int, id: str) -> int:
    """The seed of one claim, by hashing: claims are independent, and a new one changes no other.

    It has 52 bits, so that every reader of JSON gets it exactly.

    >>> claim_seed(0, "theorem-3.5") == claim_seed(0, "theorem-3.5") != claim_seed(1, "theorem-3.5")
    True
    """
    return int(hashlib.sha256(f"{seed}:{id}".encode()).hexdigest()[:13], 16)


class ClaimContext:
    """The hand that a claim is given. Its attributes are `budget` (a name), `paths`, `seconds`, `seed`, `executor`,
    `threads`, `store`; its methods write into the report, and `folder()` is for files.

    >>> run = ClaimContext("a-claim", budget="quick", seed=7)
    >>> run.paths, run.scale(quick=8, standard=64, full=512)
    (20000, 8)
    >>> run.measure("half", 0.5, expected=0.5, tolerance=1e-9)
    """

    def __init__(
        self,
        id: str,
        *,
        budget: str = "quick",
        seed: int = 0,
        executor: Any = None,
        threads: int | None = None,
        store: Any = None,
        work: Path | None = None,
        resume: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        allowed = BUDGETS[budget]
        self.id = id
        self.budget = allowed.name
        self.paths = allowed.paths
        self.seconds = allowed.seconds
        self.seed = claim_seed(seed, id)
        self.executor = executor
        self.threads = threads
        self.store = store
        self.book = Book()
        self._work = work
        self._resume = resume
        self._progress = progress
        self._control: Control | None = None

    def scale(self, *, quick: T, standard: T, full: T) -> T:
        """The value that goes with the budget."""
        return {"quick": quick, "standard": standard, "full": full}[self.budget]

    def options(self, **extra: Any) -> dict[str, Any]:
        """Keyword arguments for `simulate`, `weak_gap` and `order_study`; what is given in `extra` comes on top."""
        own = {
            "paths": self.paths,
            "seed": self.seed,
            "executor": self.executor,
            "threads": self.threads,
            "store": self.store,
            "resume": self._resume,
            "progress": self._progress,
        }
        return own | extra

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """The claim's own folder for what is no path, such as trained networks: empty, or with `resume` as the broken off run left it.

        It is not there where kernels are only compiled ahead: the claim ends at this line then, so it comes before the expensive ones.
        """
        if self._work is None:
            raise Missing("a folder to work in")
        place = self._work / self.id
        if not self._resume:
            shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        yield place

    def measure(
        self,
        name: str,
        estimate: Measured | float,
        expected: float | None = None,
        tolerance: float | None = None,
        *,
        relative: float | None = None,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Write down a quantity and what the claim says about it, in one of three ways.

        `expected` with `tolerance` (absolute) or `relative` (a part of `expected`): it lies within that distance of
        `expected`. `at_most`: it does not exceed this. `at_least`: it does not fall below this. A plain number is taken as
        exact; a number that comes from drawn paths belongs here as the `Estimate` it is. Raises `ValueError` otherwise.
        """
        target = self.book.measurements if self._control is None else self._control.measurements
        self._new("measurement", name, [item.name for item in target])
        if isinstance(estimate, numbers.Real):
            estimate = float(estimate)
        elif callable(getattr(estimate, "interval", None)) and not isinstance(estimate, Measured):
            warnings.warn(
                f"`{name}`: `interval(confidence)` of an estimate is now `confidence_interval(level)`.",
                DeprecationWarning,
                stacklevel=2,
            )
            estimate = _Former(estimate)
        elif not isinstance(estimate, Measured):
            raise ValueError(
                f"`{name}` must be measured by an Estimate or a number; got {type(estimate).__name__}. "
                "Reduce it first, for example with `gap.sup(observable)`."
            )
        low, high = _accepted(name, expected, tolerance, relative, at_most, at_least)
        target.append(Measurement(name, estimate, low, high, None if expected is None else float(expected)))

    @contextmanager
    def control(self, name: str) -> Iterator[None]:
        """A negative control: what is measured inside must come out contradicted, or the claim is not supported."""
        if self._control is not None:
            raise ValueError(
                f"a control must not lie inside another; got {name!r} inside {self._control.name!r}. Close that one first."
            )
        self._new("control", name, [item.name for item in self.book.controls])
        self._control = Control(name)
        self.book.controls.append(self._control)
        try:
            yield
        finally:
            self._control = None

    def figure(self, name: str, figure: Any | Callable[[], Any], caption: str = "") -> None:
        """Put a matplotlib figure, or what a function without arguments draws, into the report; `caption` may hold $formulas$."""
        self._new("figure", name, [item.name for item in self.book.figures])
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure

        if not isinstance(figure, (Axes, Figure)) and callable(figure):
            figure = figure()
        if not isinstance(figure, (Axes, Figure)):
            raise ValueError(
                f"the figure `{name}` must be a matplotlib Figure, its Axes, or a function that returns one; got {figure!r}."
            )
        taken = {item.slug for item in self.book.figures}
        self.book.figures.append(Drawing(name, _slug(name, taken), svg_text(figure), caption))

    def table(self, name: str, rows: Sequence[Sequence[Any] | Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
        """Put a table into the report: rows of cells under `columns`, or mappings from column to cell."""
        self._new("table", name, [item.name for item in self.book.tables])
        rows = list(rows)
        if columns is None:
            if not rows or not isinstance(rows[0], Mapping):
                raise ValueError(f"the table `{name}` must have `columns` unless its rows are mappings; got none.")
            columns = list(rows[0])
        names = tuple(map(str, columns))
        cells = [tuple(row[column] for column in columns) if isinstance(row, Mapping) else tuple(row) for row in rows]
        for row in cells:
            if len(row) != len(names):
                raise ValueError(f"every row of the table `{name}` must have {len(names)} cells; got {len(row)} in {row!r}.")
        self.book.tables.append(Table(name, names, tuple(cells)))

    def note(self, text: str) -> None:
        """A paragraph for the report; it may hold $formulas$."""
        self.book.notes.append(str(text))

    def missing(self, what: str, remedy: str = "") -> None:
        """Leave the claim as not run, because `what` is missing here; `remedy` is the line that gets it."""
        raise Missing(what, remedy)

    def _new(self, kind: str, name: str, taken: Sequence[str]) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"a {kind} must have a name; got {name!r}.")
        if name in taken:
            raise ValueError(f"the name of a {kind} must be unique within the claim `{self.id}`; got {name!r} twice.")


def _accepted(
    name: str,
    expected: float | None,
    tolerance: float | None,
    relative: float | None,
    at_most: float | None,
    at_least: float | None,
) -> tuple[float, float]:
    kinds = [kind for kind, value in (("expected", expected), ("at_most", at_most), ("at_least", at_least)) if value is not None]
    if len(kinds) != 1:
        raise ValueError(
            f"`{name}` must have exactly one criterion; got {' and '.join(kinds) or 'none'}. "
            "Give `expected` with `tolerance`, or `at_most`, or `at_least`."
        )
    if expected is None and (tolerance is not None or relative is not None):
        raise ValueError(f"the tolerance of `{name}` must go with `expected`; got it with `{kinds[0]}`. Move the bound instead.")
    if at_most is not None:
        return -math.inf, number("at_most", at_most)
    if at_least is not None:
        return number("at_least", at_least), math.inf
    centre = number("expected", expected)
    if (tolerance is None) == (relative is None):
        raise ValueError(f"`{name}` must have a `tolerance` or a `relative` one; got {'none' if tolerance is None else 'both'}.")
    if tolerance is not None:
        width = positive("tolerance", tolerance)
    else:
        width = positive("relative", relative) * abs(centre)
        if width == 0:
            raise ValueError(
                f"`relative` must not stand beside expected=0, of which every part is 0. Give `{name}` a `tolerance`."
            )
    return centre - width, centre + width


def _slug(name: str, taken: set[str]) -> str:
    slug = stem = "-".join(re.findall(r"[a-z0-9]+", name.lower()))[:60] or "figure"
    count = 1
    while slug in taken:
        count += 1
        slug = f"{stem}-{count}"
    return slug


def svg_text(drawn: Any) -> str:
    """The text of an SVG file of a matplotlib figure, or of the figure of axes: the same figure gives the same text."""
    import io

    import matplotlib

    out, figure = io.StringIO(), drawn.figure
    if len(figure.axes) == 1:
        figure.set_layout_engine("none")  # the tight box does for one plot what a layout engine takes twice the time for
    # Without a date and with fixed ids the same figure is the same file.
    with matplotlib.rc_context({"svg.hashsalt": "sdetools", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    return out.getvalue()
