"""The command `sdetools bench`, which measures the speed of the kernels on this machine."""

from __future__ import annotations

import click

from sdetools.cli.common import main


@main.command(
    short_help="Measure the speed of the kernels on this machine.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Measure the speed of the kernels on this machine. `sdetools bench --help` lists the options.

    Prints a table that compares the simulation with other implementations or, with --dimension, with the machine's limit.

    \b
    Example:
      sdetools bench
      sdetools bench --dimension --plot dimension.png
    """
    from sdetools.cli.bench_command import main as benchmarking

    ctx.exit(benchmarking(list(arguments)) or 0)
