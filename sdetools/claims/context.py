"""The context of a claim: its budget and seed, and the methods by which it records measurements, figures and tables."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sdetools._check import choice, count
from sdetools._moved import RenamedAttribute
from sdetools.claims.record import (
    ClaimRecord,
    Control,
    Drawing,
    Measured,
    Measurement,
    Table,
    accepted_range,
    judged_estimate,
    slug_of,
    svg_text,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """The budget `name` of one claim: `paths` of a simulation, and the intended `seconds` of a computation that is not counted in paths.

    Both are numbers which a claim reads from its `ClaimContext`; nothing ends a claim that takes longer.
    """

    name: str
    paths: int
    seconds: float


BUDGETS = {
    "quick": Budget("quick", 20_000, 10.0),
    "standard": Budget("standard", 1_000_000, 300.0),
    "full": Budget("full", 10_000_000, 3600.0),
}
"""The budgets by name: "quick" has 20,000 paths and 10 s, "standard" 10^6 and 300 s, "full" 10^7 and 3,600 s."""


class Missing(Exception):
    """An error by which a claim says that it cannot run, because something is missing; its verdict is then `not run`.

    Args:
        what: What is missing, such as a data set, or a whole sentence with its full stop, such as the message of another error.
        remedy: The command that installs it; empty for none.

    Example:
        >>> import sdetools as st
        >>> st.claims.Missing("the data set california", "pip install scikit-learn").reason
        'the data set california is missing: pip install scikit-learn'
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy

    @property
    def reason(self) -> str:
        """The text "<what> is missing: <remedy>"; if `what` ends with a full stop, both texts after each other."""
        what = str(self).strip()
        if what.endswith("."):
            return f"{what} {self.remedy}".strip()
        return f"{what} is missing: {self.remedy}" if self.remedy else f"{what} is missing."


def claim_seed(seed: int, id: str) -> int:
    """Return the seed of one claim, an integer from 0 to 2^52 - 1: a hash of the seed of the run and the id of the claim.

    Claims are independent, and a new one does not change the others. The seed has 52 bits, which every JSON parser reads exactly.

    Args:
        seed: The seed of the run, the argument of `verify`.
        id: The id of the claim; "<id> again" for its second run, on fresh draws.

    Example:
        >>> claim_seed(0, "theorem-3.5") == claim_seed(0, "theorem-3.5") != claim_seed(1, "theorem-3.5")
        True
    """
    return int(hashlib.sha256(f"{seed}:{id}".encode()).hexdigest()[:13], 16)


class ClaimContext:
    """The context of a claim: the argument of its function, created by `verify`, whose methods record results in the report.

    Attributes:
        id: The claim's id.
        budget: The name of the budget, "quick", "standard" or "full".
        paths: The budget's number of paths of a simulation.
        seconds: The budget's intended seconds of work that is not counted in paths.
        seed: Seed of the claim, `claim_seed` of the argument `seed` (the seed of the run) and the claim's id.
        executor, threads, retries: As in `sdetools.Execution`: an executor, or None for threads in this process; the number of threads, None for one
            per core; how often a chunk (a set of paths computed at once) is submitted again after its worker failed.
        store: The open `Store` (file) of finished chunks, or None.
        record: The `ClaimRecord` of the measurements, controls, figures, tables and notes so far.

    Further arguments: `work` is the folder of all claims' files (without it `folder` ends the claim), `resume` says whether the run continues
    an interrupted one, `progress(done, total)` is called during simulations with numbers of paths, and `again=True` is for the second run of a
    claim: its seed, and so all draws, are independent of those of the first.

    Example:
        >>> import sdetools as st
        >>> run = st.claims.ClaimContext("a-claim", budget="quick", seed=7)
        >>> run.paths, run.scale(quick=8, standard=64, full=512)
        (20000, 8)
        >>> run.measure("half", 0.5, expected=0.5, tolerance=1e-9)
    """

    book = RenamedAttribute("record")

    def __init__(
        self,
        id: str,
        *,
        budget: str = "quick",
        seed: int = 0,
        executor: Any = None,
        threads: int | None = None,
        retries: int = 2,
        store: Any = None,
        work: Path | None = None,
        resume: bool = False,
        progress: Callable[[int, int], None] | None = None,
        again: bool = False,
    ) -> None:
        allowed = BUDGETS[choice("budget", budget, BUDGETS)]
        self.id = id
        self.budget = allowed.name
        self.paths = allowed.paths
        self.seconds = allowed.seconds
        self.seed = claim_seed(seed, f"{id} again" if again else id)
        self.executor = executor
        self.threads = threads
        self.retries = retries
        self.store = store
        self.record = ClaimRecord()
        self._place = None if work is None else work / (f"{id}-again" if again else id)
        self._resume = resume
        self._progress = progress
        self._control: Control | None = None

    def scale(self, *, quick: T, standard: T, full: T) -> T:
        """Return the one of the arguments `quick`, `standard` and `full`, of any type, whose name is that of the claim's budget."""
        return {"quick": quick, "standard": standard, "full": full}[self.budget]

    def options(self, **extra: Any) -> dict[str, Any]:
        """Return the arguments of `st.simulate`, `st.weak_gap` and others that a claim passes on, as a dict by name, updated by `extra`.

        They are paths, seed, executor, threads, retries, store, resume and progress, for a call such as
        `st.simulate(rule, x0, 1.0, observe=["x"], **run.options(paths=1000))`.
        """
        own = {
            "paths": self.paths,
            "seed": self.seed,
            "executor": self.executor,
            "threads": self.threads,
            "retries": self.retries,
            "store": self.store,
            "resume": self._resume,
            "progress": self._progress,
        }
        return own | extra

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Return a context manager that gives the path of the claim's folder for files: empty, or as an interrupted run left it with `resume`.

        Call it as `with run.folder() as path:`, before expensive computations: a process that only compiles ahead has no folder, so that the claim
        ends here. The files remain after the body; `verify` removes them at its end if it has no output folder.

        Raises:
            Missing: If the context has no folder for files.
        """
        if (place := self._place) is None:
            raise Missing("a folder for files")
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
        """Record a quantity and its accepted range, given by `expected` with a tolerance, by `at_most` or by `at_least`.

        Args:
            name: Name, unique among the measurements of the claim or, within `control`, of the control.
            estimate: An `Estimate`, or a number that is exact. Pass a number computed from paths as an `Estimate`.
            expected: The expected value, the centre of the accepted range.
            tolerance: Largest absolute difference from `expected`, a positive number.
            relative: Instead of `tolerance`: largest difference as a fraction of |expected|, where `expected` is not 0.
            at_most: Upper bound; the range has no lower end.
            at_least: Lower bound; the range has no upper end.

        Raises:
            ValueError: For no criterion or several, no tolerance or two, an invalid number or estimate, and a name that is used twice.

        Example:
            >>> import sdetools as st
            >>> run = st.claims.ClaimContext("a-claim")
            >>> run.measure("order", st.Estimate(1.02, 0.01, 1000), expected=1.0, relative=0.1)
            >>> run.record.measurements[0].accept_low, run.record.measurements[0].accept_high
            (0.9, 1.1)
        """
        target = self._free(name)
        estimate = judged_estimate(name, estimate)
        low, high = accepted_range(name, expected, tolerance, relative, at_most, at_least)
        target.append(Measurement(name, estimate, low, high, None if expected is None else float(expected)))

    def decide(
        self,
        name: str,
        estimator: Callable[[int], Measured],
        expected: float | None = None,
        tolerance: float | None = None,
        *,
        relative: float | None = None,
        at_most: float | None = None,
        at_least: float | None = None,
        looks: int = 4,
        paths: int | None = None,
    ) -> Any:
        """Record a quantity as `measure` does, with as many paths as its verdict requires.

        The estimator is called with n, 2n, 4n, ... paths, at most `looks` times, until its interval lies inside the accepted range or outside it.
        Each such comparison is a look. A look has the error rates of `measure` divided by `looks`, so that errors are as rare as with one look.

        Args:
            name: Name, unique within the claim or control.
            estimator: A function of the number of paths (or seeds) that returns an `Estimate`, such as
                `lambda n: st.simulate(rule, x0, 1.0, observe=["x"], **run.options(paths=n)).at("x")`.
            expected: The expected value, the centre of the accepted range.
            tolerance: Largest absolute difference from `expected`, a positive number.
            relative: Instead of `tolerance`: largest difference as a fraction of |expected|.
            at_most: Upper bound; the range has no lower end.
            at_least: Lower bound; the range has no upper end.
            looks: The largest number of calls, which bounds the work: n 2^(looks - 1) paths in the last one.
            paths: The number n of paths of the first call; by default that of the budget.

        Returns:
            The estimate that is judged, that of the last call: an object with the interface of an `Estimate`, or a float.

        Raises:
            ValueError: As for `measure` (no criterion or several, an invalid estimate, a name that is used twice), or if `looks` or `paths` is not a
                positive integer.

        Example:
            >>> import sdetools as st
            >>> run, asked = st.claims.ClaimContext("a-claim"), []
            >>> found = run.decide("mean", lambda n: asked.append(n) or st.Estimate(1.0, 10 / n**0.5, n), at_most=1.2)
            >>> asked, found.n
            ([20000, 40000], 40000)
        """
        from sdetools.claims.measurement import ACROSS, judge_measurement

        looks, n = count("looks", looks), count("paths", self.paths if paths is None else paths)
        low, high = accepted_range(name, expected, tolerance, relative, at_most, at_least)
        target = self._free(name)
        for look in range(looks):
            estimate = judged_estimate(name, estimator(n << look))
            item = Measurement(name, estimate, low, high, None if expected is None else float(expected), looks)
            if judge_measurement(item).state != ACROSS:
                break
        target.append(item)
        return estimate

    @contextmanager
    def control(self, name: str) -> Iterator[None]:
        """Return a context manager of a negative control: at least one measurement in its body must be contradicted.

        A negative control is a variant of the claim that is false, such as one with a wrong learning rate. Call `measure` and `decide` in the body
        as outside of it; a claim whose control passes is not supported.

        Args:
            name: Name, unique among the controls of the claim.

        Raises:
            ValueError: Within another control, or for an empty name or one that is used twice.

        Example:
            >>> import sdetools as st
            >>> run = st.claims.ClaimContext("a-claim")
            >>> run.measure("order", 1.0, expected=1.0, tolerance=0.1)
            >>> with run.control("wrong learning rate"):
            ...     run.measure("order", 0.5, expected=1.0, tolerance=0.1)
            >>> run.record.controls[0].name, len(run.record.controls[0].measurements)
            ('wrong learning rate', 1)
        """
        if self._control is not None:
            raise ValueError(
                f"a control must not be inside another; got {name!r} inside {self._control.name!r}. Close that one first."
            )
        self._check_name("control", name, [item.name for item in self.record.controls])
        self._control = Control(name)
        self.record.controls.append(self._control)
        try:
            yield
        finally:
            self._control = None

    def figure(self, name: str, figure: Any | Callable[[], Any], caption: str = "") -> None:
        """Add a matplotlib figure to the report; ValueError for anything else and for a name that is used twice.

        Args:
            name: Name, unique within the claim.
            figure: A figure, its axes, or a function without arguments that returns one of these.
            caption: Text with LaTeX formulas between dollar signs.
        """
        self._check_name("figure", name, [item.name for item in self.record.figures])
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure

        from sdetools.plots.description import describe

        if not isinstance(figure, (Axes, Figure)) and callable(figure):
            figure = figure()
        if not isinstance(figure, (Axes, Figure)):
            raise ValueError(
                f"the figure `{name}` must be a matplotlib Figure, its Axes, or a function that returns one; got {figure!r}."
            )
        taken = {item.slug for item in self.record.figures}
        self.record.figures.append(Drawing(name, slug_of(name, taken), svg_text(figure), caption, *describe(figure)))

    def table(self, name: str, rows: Sequence[Sequence[Any] | Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
        """Add a table to the report; ValueError for a name that is used twice, rows of wrong length, or no headings.

        Args:
            name: Name, unique within the claim.
            rows: Rows of cells, or mappings from heading to cell. A float is shown with six digits, any other object by its `str`.
            columns: Headings; by default the keys of the first mapping. Of a mapping, only the cells under the headings are taken.
        """
        self._check_name("table", name, [item.name for item in self.record.tables])
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
        self.record.tables.append(Table(name, names, tuple(cells)))

    def note(self, text: str) -> None:
        """Add the paragraph `text` to the report, which may contain LaTeX formulas between dollar signs."""
        self.record.notes.append(str(text))

    def missing(self, what: str, remedy: str = "") -> None:
        """Raise `Missing`: the claim ends with the verdict `not run`.

        Args:
            what: What is missing, or a whole sentence with its full stop that says so.
            remedy: The command that installs it.
        """
        raise Missing(what, remedy)

    def _free(self, name: str) -> list[Measurement]:
        """Return the list to which a measurement of this name is added: that of the open control if there is one, else that of the claim.

        Raises:
            ValueError: If the name is empty, or a measurement in the list has it.
        """
        target = self.record.measurements if self._control is None else self._control.measurements
        self._check_name("measurement", name, [item.name for item in target])
        return target

    def _check_name(self, kind: str, name: str, taken: Sequence[str]) -> None:
        """Raise a ValueError for an empty name and one that is in `taken`; `kind` is the word for the message, such as "figure"."""
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"a {kind} must have a name; got {name!r}.")
        if name in taken:
            raise ValueError(f"the name of a {kind} must be unique within the claim `{self.id}`; got {name!r} twice.")
