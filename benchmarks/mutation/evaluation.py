"""Evaluation of mutants by their claims, then by the tests of their package, each in a fork of a process with the libraries loaded."""

from __future__ import annotations

import compileall
import contextlib
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mutants import Mutant
from table import ROOT, Formula, Table

LIMITS = {"quick": 120, "standard": 900, "tests": 300}
"""Time limits in seconds for the claims at a budget and for the tests of one mutant."""
CLAIM, TEST, SURVIVED, CRASHED = "claim", "test", "survived", "crashed"


@dataclass
class Evaluation:
    """The outcome of a mutant.

    Attributes:
        mutant: The mutant.
        formula: Name of its formula.
        fate: "claim", "test", "survived" or "crashed".
        by: The claim or test that killed it, or the crash.
        verdicts: Verdicts of its claims.
        seconds: Duration of the evaluation.
        stated: Whether a claim states the formula.
    """

    mutant: Mutant
    formula: str
    fate: str
    by: str
    verdicts: dict[str, str]
    seconds: float
    stated: bool


@dataclass(frozen=True)
class Order:
    """The order of tests: `noticed` lists the tests that detected a mutant of a function before, `slow` the seconds of slow tests."""

    noticed: dict[str, list[str]] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Order:
        """Read the order from a file."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def rank(self, mutant: Mutant | None, test: str, tests: tuple[str, ...] = ()) -> tuple[int, float, int]:
        """Return the sort key of a test.

        Tests that detected a change of this function come first, then quick tests by file in the order of `tests`, then slow tests. pytest
        collapses a folder and a file in it to the folder, which would discard the position of the most sensitive file.
        """
        known = mutant is not None and test in self.noticed.get(f"{mutant.file}:{mutant.where}", ())
        place = next((i for i, entry in enumerate(tests) if test.startswith(entry)), len(tests))
        return 0 if known else 1, self.slow.get(test, 0.0), place

    def learn(self, evaluations: list[Evaluation]) -> Order:
        """Return the order extended by the results of these evaluations."""
        noticed = {where: list(tests) for where, tests in self.noticed.items()}
        for m in evaluations:
            if m.fate == TEST and m.by not in (own := noticed.setdefault(f"{m.mutant.file}:{m.mutant.where}", [])):
                own.append(m.by)
        return Order(noticed, self.slow)

    def write(self, path: Path) -> None:
        """Write the order to a file."""
        path.write_text(json.dumps({"noticed": self.noticed, "slow": self.slow}, indent=0, sort_keys=True) + "\n")


NO_ORDER = Order()


class Tree:
    """A copy of the project in which one mutant at a time is applied, with its own compiled files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "sdetools-report*"), dirs_exist_ok=True)
        compileall.compile_dir(str(folder / "sdetools"), quiet=2)

    @contextlib.contextmanager
    def applied(self, mutant: Mutant | None) -> Iterator[None]:
        """Apply a mutant to the tree, and restore the file and its modification time afterwards, by which Python and Numba identify it."""
        if mutant is None:
            yield
            return
        path = self.folder / mutant.file
        source, kept = path.read_bytes(), path.stat()
        path.write_bytes(mutant.apply(source))
        try:
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))


def preload() -> None:
    """Load the libraries that every mutant needs and none changes, with one thread per worker."""
    import importlib

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    for name in (
        *(
            "numpy",
            "scipy.stats",
            "scipy.linalg",
            "scipy.integrate",
            "scipy.optimize",
            "scipy.special",
            "numba",
            "sympy",
            "xarray",
            "pandas",
        ),
        *(
            "matplotlib.figure",
            "matplotlib.backends.backend_svg",
            "torch",
            "torchsde",
            "pytest",
            "hypothesis",
            "jinja2",
            "click",
            "rich",
            "sklearn.datasets",
        ),
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)


def in_fork(tree: Tree, seconds: float, work: Any, *arguments: Any) -> Any:
    """Return the result of `work(*arguments)` in a fork of this process within the tree; "timeout" or "crash" if there is none."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def body() -> None:
        os.setsid()
        log = os.open(tree.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(tree.folder)
        sys.path.insert(0, str(tree.folder))
        sys.dont_write_bytecode = True
        os.environ["PYTHONPATH"] = str(tree.folder)
        writer.send(work(*arguments))

    process = context.Process(target=body)
    process.start()
    writer.close()
    try:
        answer = reader.recv() if reader.poll(seconds) else "timeout"
    except EOFError:
        answer = "crash"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return answer


def use_fresh_caches(mutant: Mutant | None, tree: Tree) -> None:
    """Use empty Numba caches for a mutant of compiled code: Numba does not detect edits of functions that other files inline."""
    if mutant is not None and b"njit" in (tree.folder / mutant.file).read_bytes():
        fresh = tempfile.mkdtemp(dir=tree.folder)
        os.environ["SDETOOLS_CACHE"] = fresh
        from numba.core import config

        config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = fresh


class Contradicted(Exception):
    """Stops a claim whose verdict is certain."""


def stopping_at_contradiction(measure: Any) -> Any:
    """Wrap `ClaimContext.measure` so that a claim stops at its first deterministic number outside its range, controls excepted."""

    def measured(self: Any, name: str, *args: Any, **named: Any) -> None:
        measure(self, name, *args, **named)
        last = None if self._control else self.record.measurements[-1]
        exact = last is not None and isinstance(last.estimate, float) and math.isfinite(last.estimate)
        if exact and not last.accept_low <= last.estimate <= last.accept_high:
            raise Contradicted(name)

    return measured


def claim_verdicts(mutant: Mutant | None, tree: Tree, claims: dict[str, str], budget: str, until: bool = True) -> dict[str, str]:
    """Return the verdicts of claims (id -> file), evaluated in order; with `until`, stop at the first contradiction."""
    use_fresh_caches(mutant, tree)
    import warnings

    warnings.simplefilter("ignore")
    try:
        import sdetools

        assert Path(sdetools.__file__).is_relative_to(tree.folder)
        from sdetools.claims import context, verify

        context.ClaimContext.measure = stopping_at_contradiction(context.ClaimContext.measure)  # type: ignore[method-assign]
    except Exception as error:
        return {"import": f"crashed: {error!r}"}
    verdicts = {}
    for id, file in claims.items():
        try:
            (found,) = verify([file], budget=budget, only=f"[{id[0]}]{id[1:]}", threads=1).claims
            ended = found.reason.startswith(Contradicted.__name__)
            verdicts[id] = (
                "contradicted" if ended else f"crashed: {found.reason[:200]}" if found.verdict == "error" else found.verdict
            )
        except Exception as error:
            verdicts[id] = f"crashed: {error!r}"[:200]
        if until and verdicts[id] == "contradicted":
            break
    return verdicts


def failed_tests(
    mutant: Mutant | None, tree: Tree, tests: tuple[str, ...], order: Order, only: frozenset[str] = frozenset()
) -> list[str]:
    """Return the first failing test in a list, or all failing tests of `only`."""
    use_fresh_caches(mutant, tree)
    import pytest

    failed: list[str] = []

    class Watch:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            items[:] = sorted(
                (i for i in items if not only or i.nodeid in only), key=lambda i: order.rank(mutant, i.nodeid, tests)
            )

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                failed.append(report.nodeid)

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                failed.append(f"import of {report.nodeid}")

    # Doctests are collected last: collected first, their module exists twice, and tests that patch it or check its classes fail unmutated.
    collected = sorted(tests, key=lambda test: test.startswith("sdetools/"))
    options = ["-q", "-m", "", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"] + ([] if only else ["-x"])
    code = pytest.main([*options, *collected], plugins=[Watch()])
    return failed or ([] if code == 0 else [f"pytest ended with {code}"])


def evaluate(mutant: Mutant, formula: Formula, table: Table, tree: Tree, standard: bool, order: Order = NO_ORDER) -> Evaluation:
    """Evaluate a mutant by its claims at quick, then at standard if requested, then by its tests in the given order."""
    began = time.perf_counter()
    stated = {id: table.claims[id] for id in formula.claims}
    verdicts: dict[str, str] = {}

    def done(fate: str, by: str) -> Evaluation:
        return Evaluation(mutant, formula.name, fate, by, verdicts, round(time.perf_counter() - began, 1), bool(stated))

    def ask(budget: str) -> str | None:
        answer = in_fork(tree, LIMITS[budget], claim_verdicts, mutant, tree, stated, budget)
        found = answer if isinstance(answer, dict) else {"all": f"crashed: {answer}"}
        verdicts.update({f"{id} ({budget})": verdict for id, verdict in found.items()})
        return next((id for id, verdict in found.items() if verdict == "contradicted"), None)

    with tree.applied(mutant):
        if stated and (killer := ask("quick")):
            return done(CLAIM, f"{killer} (quick)")
        if verdicts and all(verdict.startswith("crashed") for verdict in verdicts.values()):
            return done(CRASHED, next(iter(verdicts.values())))
        if stated and standard and (killer := ask("standard")):
            return done(CLAIM, f"{killer} (standard)")
        tests = formula.tests_of(mutant.file)
        answer = in_fork(tree, LIMITS["tests"], failed_tests, mutant, tree, tests, order) if tests else []
    failed = answer if isinstance(answer, str) else answer[0] if answer else ""
    if failed in ("crash", "timeout") or failed.startswith("import of"):
        return done(CRASHED, failed)
    return done(TEST, failed) if failed else done(SURVIVED, "")


def false_detections(evaluations: list[Evaluation], table: Table, order: Order) -> Iterator[Callable[[Tree], set[str]]]:
    """Yield functions that run the killers of mutants on the unchanged project, and return those that fail there too."""

    def claim(id: str, budget: str) -> Callable[[Tree], set[str]]:
        def rerun(tree: Tree) -> set[str]:
            found = in_fork(tree, LIMITS[budget], claim_verdicts, None, tree, {id: table.claims[id]}, budget)
            return {f"{id} ({budget})"} if not isinstance(found, dict) or found[id] == "contradicted" else set()

        return rerun

    def tests(formula: Formula, file: str, killers: frozenset[str]) -> Callable[[Tree], set[str]]:
        def rerun(tree: Tree) -> set[str]:
            found = in_fork(tree, LIMITS["tests"], failed_tests, None, tree, formula.tests_of(file), order, killers)
            return killers & set(found) if isinstance(found, list) and set(found) <= killers else set(killers)

        return rerun

    for killer in sorted({m.by for m in evaluations if m.fate == CLAIM}):
        id, _, budget = killer.rstrip(")").rpartition(" (")
        yield claim(id, budget)
    formulas = {f.name: f for f in table.formulas}
    killed = [m for m in evaluations if m.fate == TEST]
    for name, file in sorted({(m.formula, m.mutant.file) for m in killed}):
        yield tests(formulas[name], file, frozenset(m.by for m in killed if (m.formula, m.mutant.file) == (name, file)))


def run_jobs(jobs: list[Callable[[Tree], Any]], workers: int, end: float = float("inf")) -> Iterator[Any]:
    """Yield the results of jobs started before `end`, as they complete; each worker is a fork with its own tree."""
    context = multiprocessing.get_context("fork")
    following = context.Value("i", 0)

    def work(tree: Tree, out: Any) -> None:
        while True:
            with following.get_lock():
                mine = following.value
                following.value += 1
            if mine >= len(jobs) or time.monotonic() > end:
                return
            out.send(jobs[mine](tree))

    with tempfile.TemporaryDirectory() as place:
        os.environ["SDETOOLS_CACHE"], os.environ["NUMBA_CACHE_DIR"] = f"{place}/kernels", f"{place}/numba"
        preload()
        pipes: list[Any] = []
        for i in range(workers):
            (folder := Path(place) / f"tree{i}").mkdir()
            reader, writer = context.Pipe(duplex=False)
            context.Process(target=work, args=(Tree(folder), writer)).start()
            writer.close()
            pipes.append(reader)
        while pipes:
            for reader in multiprocessing.connection.wait(pipes):
                try:
                    yield reader.recv()  # type: ignore[union-attr]
                except EOFError:
                    pipes.remove(reader)


def run(
    chosen: list[Mutant],
    table: Table,
    workers: int,
    standard: bool,
    log: Path | None = None,
    minutes: float = float("inf"),
    order: Order = NO_ORDER,
) -> list[Evaluation]:
    """Return all evaluations started within `minutes`, in the order of the sample.

    A test or claim that also fails without a mutant has killed none.
    """
    evaluations: dict[str, Evaluation] = {}
    for line in log.read_text().splitlines() if log is not None and log.exists() else ():
        entry = json.loads(line)
        evaluation = Evaluation(**entry | {"mutant": Mutant(**entry["mutant"])})
        evaluations[evaluation.mutant.key] = evaluation

    def job(mutant: Mutant) -> Callable[[Tree], Evaluation]:
        formula = table.formula(mutant.file, mutant.where)
        assert formula is not None
        return lambda tree: evaluate(mutant, formula, table, tree, standard, order)

    for evaluation in run_jobs([job(m) for m in chosen if m.key not in evaluations], workers, time.monotonic() + 60 * minutes):
        evaluations[evaluation.mutant.key] = evaluation
        print(
            f"{len(evaluations):4d} {evaluation.seconds:6.1f} s  {evaluation.fate:8s} {evaluation.mutant.key}  {evaluation.by}",
            flush=True,
        )
        if log is not None:
            with log.open("a") as file:
                file.write(json.dumps(asdict(evaluation)) + "\n")
    done = [evaluations[m.key] for m in chosen if m.key in evaluations]
    print("The claims and tests that killed them run without a mutant ...", flush=True)
    for killer in set().union(*run_jobs(list(false_detections(done, table, order)), workers)):
        print(f"     fails without a mutant too: {killer}", flush=True)
        done = [replace(m, fate=SURVIVED, by=f"{killer} fails without a mutant too") if m.by == killer else m for m in done]
    return done
