"""The command `sdetools gap`, which estimates a weak gap and its order in eta."""

from __future__ import annotations

from typing import Any

import click

from sdetools.cli.common import checked_folder, main, remark, running
from sdetools.cli.options import check_exclusive, compute_options, momentum_options
from sdetools.cli.pair_options import pair_arguments, pair_options, problem_options


@main.command(short_help="Estimate a weak gap and its order in eta.")
@problem_options
@click.option("--eta", required=True, metavar="LIST", help='Learning rates, for example "0.1,0.05,0.025".')
@momentum_options
@pair_options
@click.option("--out", type=click.Path(), help="Folder for gap.csv, gap.json, gap.svg and the store.")
@compute_options
@click.pass_context
def gap(ctx: click.Context, **options: Any) -> None:
    """Estimate the weak gap between an optimiser and another one or a limiting equation, and its order in eta.

    The switches of an optimiser apply to both dynamics; one that is not given has the default of the first that takes it.
    Both run on the same random draws where the second one allows it. Prints the largest gap over time for each learning rate, with its 95 %
    band, and the fitted order of each observable. With --out it also writes gap.csv, gap.json and gap.svg.

    \b
    Example:
      sdetools gap --loss "(x*y - 1)**2 / 2" --variables "x y" --x0 2,0.5 --beta 0.9 \\
                   --eta 0.1,0.05,0.025 --observe "x**2 + y**2" --paths 100000
      sdetools gap --loss "x**4/4 - x**2/2" --x0 1 --dynamics sgd --against sde --eta 0.1,0.05,0.025
      sdetools gap --loss "x**2/2" --x0 1 --sigma 1 --dynamics adam --against rmsprop --beta 0.5 --beta2 0.9 --eps 0.1 \\
                   --bias-correction --eta 0.1,0.05,0.025
      sdetools gap --loss "x**2/2" --x0 1 --noise alpha-stable --index 1.5 --observe "cos(x)" --beta 0.5 --eta 0.2,0.1,0.05
    """
    check_exclusive(options, ("paths", "precision"))
    folder = checked_folder(options)
    arguments = pair_arguments(options, remark)
    with running(ctx, options, folder) as work:
        from sdetools import order_study

        if options["precision"] is not None:
            work.settings["progress"] = work.settings["progress"] or (lambda done, total: None)
        study = order_study(**arguments, **work.settings)
    click.echo(study.table())
    if folder is not None:
        from sdetools.claims.record import svg_text

        table = study.data.to_dataframe().reset_index().to_csv(index=False)
        work.write(gap_csv=table, gap_json=study.to_json(), gap_svg=svg_text(study.plot()))
