"""`sdetools verify`: run claims and say which are supported."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from sdetools.cli.common import again, bar, executor as open_executor, main, print_table
from sdetools.cli.options import compute_options

if TYPE_CHECKING:
    from sdetools.claims import Results

STYLES = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not run": "dim", "error": "magenta"}


@main.command(short_help="Run claims and say which are supported.")
@click.argument("paths", nargs=-1, type=click.Path())
@click.option(
    "--budget",
    type=click.Choice(["quick", "standard", "full"]),
    default="quick",
    show_default=True,
    help="How many paths a claim may use.",
)
@click.option(
    "--out", type=click.Path(), default="sdetools-report", show_default=True, help="Folder of the report and the store."
)
@click.option("--only", metavar="PATTERN", help="Only claims whose id holds PATTERN, or matches it with * and ?.")
@click.option("--list", "listing", is_flag=True, help="List the claims and stop.")
@click.option(
    "--ahead",
    is_flag=True,
    help="On a first run, compile the kernels of later claims in a second process, which runs them with a handful of paths.",
)
@compute_options
@click.pass_context
def verify(
    ctx: click.Context,
    paths: tuple[str, ...],
    budget: str,
    out: str,
    only: str | None,
    listing: bool,
    ahead: bool,
    seed: int,
    threads: int | None,
    executor: str,
    resume: bool,
) -> None:
    """Run claims and say which are supported.

    PATHS are files or folders with functions marked @st.claim; without any, the current folder. Prints a table of verdicts
    and writes report.html, results.json and the figures. Exit code 0 if nothing is contradicted, 1 otherwise, 2 for bad input.

    \b
    Example:
      sdetools verify paper_checks --budget standard --out report --only "theorem-3.5*"
    """
    from sdetools.claims import collect, select, verify as run
    from sdetools.claims.folder import ending_where_no_room_is

    wanted = paths or (".",)
    if listing:
        print_table(
            ["id", "source", "statement"],
            [[c.id, c.source, " ".join(c.statement.split())] for c in select(collect(wanted), only)],
        )
        return
    ctx.meta["resume"] = again(ctx, resume)
    # What a claim prints must not get between the rows of the table.
    with open_executor(executor, threads) as (pool, lanes), contextlib.redirect_stdout(sys.stderr), bar() as (name, progress):
        results = run(
            wanted,
            budget=budget,
            out=out,
            seed=seed,
            threads=lanes,
            executor=pool,
            resume=resume,
            only=only,
            ahead=ahead,
            progress=progress,
            watch=lambda position, total, claim: name(f"{claim.id} ({position} of {total})"),
        )
    from sdetools.report.page import write

    _print_verdicts(results)  # first: there may be no room for the page
    with ending_where_no_room_is(None):
        click.echo(f"report: {write(results, out)}", err=True)
    ctx.exit(results.exit_code)


def _print_verdicts(results: Results) -> None:
    rows = [[item.verdict, item.id, item.source, item.reason] for item in results.claims]
    print_table(["verdict", "claim", "source", "why"], rows, styles=STYLES)
