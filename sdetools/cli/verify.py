"""The command `sdetools verify`, which runs claims and reports their verdicts."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdetools.cli.common import bar, executor as open_executor, main, print_table, resume_command
from sdetools.cli.options import compute_options

if TYPE_CHECKING:
    from sdetools.claims import Claim, Results

STYLES = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not run": "dim", "error": "magenta"}


@main.command(short_help="Run claims and report which are supported.")
@click.argument("paths", nargs=-1, type=click.Path())
@click.option(
    "--pack",
    "packs",
    metavar="NAME",
    multiple=True,
    help="Also the claims of an installed pack, a package with an entry point `sdetools.claims`; may be repeated.",
)
@click.option(
    "--budget",
    type=click.Choice(["quick", "standard", "full"]),
    default="quick",
    show_default=True,
    help="Number of paths that a claim may use.",
)
@click.option(
    "--out", type=click.Path(), default="sdetools-report", show_default=True, help="Folder of the report and the store."
)
@click.option(
    "-k",
    "--only",
    "only",
    metavar="PATTERN",
    help="Only claims whose id contains PATTERN, or matches it with * and ?; also 'a and not b'.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that run claims side by side; they share the threads.",
)
@click.option(
    "--limit",
    type=float,
    metavar="SECONDS",
    help="End a claim that takes longer, as an error of that claim; each claim then runs in a process apart.",
)
@click.option(
    "--summary",
    type=click.Path(),
    metavar="FILE",
    help="Also write a summary in Markdown; to $GITHUB_STEP_SUMMARY, the page of a job, it is appended.",
)
@click.option("--failed-first", is_flag=True, help="Run the claims first that the last run in --out did not support.")
@click.option("--list", "listing", is_flag=True, help="List the claims and stop.")
@click.option(
    "--ahead",
    is_flag=True,
    help="On a first run, compile the kernels of later claims in a second process, which runs them with a few paths.",
)
@compute_options
@click.pass_context
def verify(
    ctx: click.Context,
    paths: tuple[str, ...],
    packs: tuple[str, ...],
    budget: str,
    out: str,
    only: str | None,
    jobs: int,
    limit: float | None,
    summary: str | None,
    failed_first: bool,
    listing: bool,
    ahead: bool,
    seed: int,
    threads: int | None,
    executor: str,
    retries: int,
    resume: bool,
) -> None:
    """Run claims and report which are supported.

    PATHS are files or folders with functions marked @st.claim; the default, without a --pack, is the current folder. Prints a table of
    verdicts, those that ask for attention last, and writes report.html, results.json and the figures. The exit code is 0 if no claim is
    contradicted or raises an error, 1 otherwise, 2 for invalid input.

    \b
    Example:
      sdetools verify paper_checks --budget standard --out report --only "theorem-3.5*"
    """
    from sdetools.claims import collect, pack, select, verify as run
    from sdetools.claims.folder import end_run_if_disk_full
    from sdetools.report.quoting import seconds

    wanted = [*map(Path, paths), *map(pack, packs)] or [Path()]
    if listing:
        print_table(
            ["id", "source", "statement"],
            [[c.id, c.source, " ".join(c.statement.split())] for c in select(collect(wanted), only)],
        )
        return
    if summary is not None and Path(summary).is_dir():
        raise ValueError(f"`summary` must be a file; got {summary!r}, which is a folder. Name a file in it, such as summary.md.")
    ctx.meta["resume"] = resume_command(ctx, resume)
    if failed_first and not (Path(out) / "results.json").is_file():
        click.echo(f"no earlier results in {out}: the claims run in their own order", err=True)
    began = time.monotonic()
    # The bar comes first, so that what claims print, which must not mix with the table of verdicts, appears above it.
    with open_executor(executor, threads) as (pool, lanes), bar() as (name, progress), contextlib.redirect_stdout(sys.stderr):

        def watch(position: int, total: int, claim: Claim) -> None:
            """Show which claim runs: in the bar, or as a line where there is none, unless it is the only one."""
            name(f"{claim.id} ({position} of {total})")
            if progress is None and total > 1:
                click.echo(f"[{seconds(time.monotonic() - began)}] {position} of {total}: {claim.id}", err=True)

        results = run(
            wanted,
            budget=budget,
            out=out,
            seed=seed,
            threads=lanes,
            executor=pool,
            retries=retries,
            resume=resume,
            only=only,
            failed_first=failed_first,
            jobs=jobs,
            limit=limit,
            ahead=ahead,
            progress=progress,
            watch=watch,
        )
    from sdetools.report.markdown import write_summary
    from sdetools.report.page import write

    _print_verdicts(results)  # first, because the disk may be full
    counts = ", ".join(f"{count} {verdict}" for verdict, count in results.counts.items() if count)
    click.echo(f"{counts} in {seconds(time.monotonic() - began)}", err=True)
    with end_run_if_disk_full(None):
        click.echo(f"report: {write(results, out)}", err=True)
        if summary is not None:
            click.echo(f"summary: {write_summary(results, summary)}", err=True)
    ctx.exit(results.exit_code)


def _print_verdicts(results: Results) -> None:
    """Print one row per claim: verdict, id, source and reason. The last rows, next to the prompt, are those that ask for attention."""
    order = ("supported", "not run", "inconclusive", "error", "contradicted")
    claims = sorted(results.claims, key=lambda item: order.index(item.verdict))
    rows = [[item.verdict, item.id, item.source, item.reason] for item in claims]
    print_table(["verdict", "claim", "source", "reason"], rows, styles=STYLES)
