"""The command `sdetools compare`, which names what moved between two runs of claims."""

from __future__ import annotations

from pathlib import Path

import click

from sdetools.cli.common import main, print_table


@main.command(short_help="Compare the results of two runs of claims.")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.pass_context
def compare(ctx: click.Context, old: Path, new: Path) -> None:
    """Compare the results of two runs of claims, before and after an upgrade or on two machines.

    OLD and NEW are files results.json of `sdetools verify`, or the folders that contain them. Prints the verdicts and values that moved
    beyond their errors: with probability 0.98 nothing, if the runs differ in their draws alone. The exit code is 0 if nothing moved, 1
    otherwise, 2 for invalid input.

    \b
    Example:
      sdetools compare before/results.json after/results.json
    """
    from sdetools.claims.comparison import compare as compared

    found = compared(*(path / "results.json" if path.is_dir() else path for path in (old, new)))
    if found.moved:
        rows = [[d.claim, d.what, d.old, d.new, "" if d.z != d.z else f"{d.z:+.1f}"] for d in found.moved]
        print_table(["claim", "quantity", "old", "new", "standard errors"], rows)
    summary = f"{found.values:,} values compared, {len(found.moved)} differences beyond {found.threshold:.1f} standard errors"
    edges = [f"{d.claim} ({d.old}, {d.new})" for d in found.edges]
    click.echo(summary + (f"; verdicts on the edge of a tolerance: {', '.join(edges)}" if edges else ""), err=True)
    ctx.exit(int(bool(found.moved)))
