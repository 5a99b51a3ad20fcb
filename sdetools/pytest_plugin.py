"""Plugin of pytest, active wherever sdetools is installed: `pytest paper_checks` collects claims, and each is a test.

A claim is a function marked by `@st.claim`, whose measurements are judged against a statement. A claim that is contradicted or raises an error fails,
one that is inconclusive is an expected failure with its reason, and one that cannot run is skipped. Verdicts and numbers are those of
`sdetools verify`, so that `-k`, `--lf`, `-n` and `--junit-xml` of pytest apply to claims. This module imports the rest of sdetools only once a file
has a claim.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sdetools.claims import Claim, ClaimResult

PROPERTY = "sdetools claim"
"""The name of the property of a test's report that contains the entry of the claim in `results.json`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of claims to pytest's command line."""
    group = parser.getgroup("sdetools", "claims of sdetools")
    group.addoption(
        "--claims-budget", choices=["quick", "standard", "full"], default="quick", help="Number of paths that a claim may use."
    )
    group.addoption("--claims-seed", type=int, default=0, help="Seed of all random numbers of claims.")
    group.addoption(
        "--claims-results", metavar="FILE", help="Write the results of all claims to FILE, as results.json of `sdetools verify`."
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Keep the package out of the packages whose assertions pytest rewrites: all of a plugin's would be, and importing it takes twice as long."""
    marked = getattr(getattr(early_config.pluginmanager, "rewrite_hook", None), "_must_rewrite", None)
    if isinstance(marked, set):
        marked.discard(__name__.partition(".")[0])


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Generator[None, list[Any], list[Any]]:
    """Collect a file with claims as such, instead of as a module with examples; files beside it can be imported, as in a script."""
    found = yield
    if file_path.suffix != ".py" or not any(_claims_in(file_path.parent)):
        return found
    if str(file_path.parent) not in sys.path:
        sys.path.append(str(file_path.parent))
    return [ClaimFile.from_parent(parent, path=file_path)] if file_path in _claims_in(file_path.parent) else found


@cache
def _claims_in(folder: Path) -> tuple[Path, ...]:
    """Return the paths of the files with claims in a folder, sorted; where no file has the text "claim(", nothing of sdetools is imported."""
    named = []
    for file in sorted(folder.glob("*.py")):
        with contextlib.suppress(OSError):  # what cannot be read is not ours to report
            if b"claim(" in file.read_bytes():
                named.append(file)
    if not named:
        return ()
    from sdetools.claims.definition import has_claims

    return tuple(filter(has_claims, named))


class ClaimFile(pytest.File):
    """A file with claims, which pytest collects as one test for each of them."""

    def collect(self) -> Iterator[pytest.Item]:
        """Import the file and yield a test for each of its claims; a file that cannot be imported is an error of collection."""
        from sdetools.claims import collect

        try:
            claims = collect(self.path)
        except ValueError as error:
            raise self.CollectError(str(error)) from error
        yield from (ClaimItem.from_parent(self, name=claim.id, claim=claim) for claim in claims)


class ClaimItem(pytest.Item):
    """A claim as a test: it passes if the claim is supported, fails, is skipped or is an expected failure otherwise.

    Args:
        claim: The claim, as `sdetools.claims.collect` returns it.
        **more: Arguments of `pytest.Item`, such as its name and parent.
    """

    def __init__(self, *, claim: Claim, **more: Any) -> None:
        super().__init__(**more)
        self.claim = claim

    def runtest(self) -> None:
        """Run and judge the claim, and end the test by its verdict: pass, skip ("not run"), expected failure ("inconclusive") or `ClaimFailed`."""
        from sdetools.claims.context import ClaimContext
        from sdetools.claims.verification import run_claim

        option = self.config.option
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        threads = max(1, (os.cpu_count() or 1) // workers)
        with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
            warnings.simplefilter("default")  # as in `sdetools verify`, whatever the tests beside it take for an error
            context = partial(
                ClaimContext,
                self.claim.id,
                budget=option.claims_budget,
                seed=option.claims_seed,
                threads=threads,
                work=Path(work),
            )
            result = run_claim(self.claim, context)
        self.user_properties.append((PROPERTY, json.dumps(result.to_dict())))
        if result.verdict == "not run":
            pytest.skip(result.reason)
        if result.verdict == "inconclusive":
            pytest.xfail(f"inconclusive: {result.reason}")
        if result.verdict != "supported":
            raise ClaimFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the text of a failed test: verdict, statement, reason and measurements of the claim, and the traceback of its error."""
        if isinstance(excinfo.value, ClaimFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return the file, the line before that of the claim (pytest counts from 0), and its name in reports."""
        return self.claim.path, self.claim.line - 1, f"claim {self.claim.id}"


class ClaimFailed(Exception):
    """The failure of a test whose claim is contradicted or raised an error; its text is the claim's verdict, statement and measurements."""

    def __init__(self, result: ClaimResult) -> None:
        lines = [f"{result.verdict}: {result.reason}", f"  {' '.join(result.statement.split())}"]
        lines += [
            f"  {item.name} = {item.value:.6g} in [{item.low:.6g}, {item.high:.6g}]: {item.state}" for item in result.measurements
        ]
        super().__init__("\n".join([*lines, *([result.traceback] if result.traceback else [])]))


def pytest_configure(config: pytest.Config) -> None:
    """Register the writer of results in the process that reports, not in the workers of pytest-xdist."""
    if config.getoption("claims_results", None) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ResultsWriter(config), "sdetools-results")


class ResultsWriter:
    """Collects the results of claims from the reports of tests, also of other processes, and writes them at the end of the session.

    Args:
        config: pytest's configuration, with the options of claims.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.entries: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Store the entry in `results.json` of a claim that has run, by the id of its test."""
        for name, text in report.user_properties:
            if name == PROPERTY:
                self.entries[report.nodeid] = json.loads(str(text))

    def pytest_sessionfinish(self) -> None:
        """Write the JSON file that `--claims-results` names, as `results.json` of `sdetools verify`, with the claims in the order of their ids."""
        from sdetools._version import __version__
        from sdetools.claims.folder import write_text

        option = self.config.option
        claims = sorted(self.entries.values(), key=lambda entry: entry["id"])
        found = {"version": __version__, "seed": option.claims_seed, "budget": option.claims_budget, "claims": claims}
        write_text(Path(option.claims_results), json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
