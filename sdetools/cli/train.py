"""The command `sdetools train`, which runs the paper's experiments, full-size or in miniature."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from sdetools.cli.common import bar, main, print_table


@main.command(short_help="Run one of the paper's experiments, full-size or in miniature.")
@click.argument("name", metavar="RECIPE")
@click.option(
    "--miniature", is_flag=True, help="Use small real data and a small model with the same code; takes minutes on two cores."
)
@click.option("--set", "given", metavar="KEY=VALUE", multiple=True, help="Change a setting; may be repeated.")
@click.option("--settings", "listing", is_flag=True, help="List the settings, their values and their sources, and stop.")
@click.option(
    "--logs", is_flag=True, help="Plot the current logs in --out as logs.svg, also while runs are in progress, and stop."
)
@click.option("--out", type=click.Path(), help="Folder of logs, checkpoints, table and figure. [default: the recipe's name]")
@click.option("--device", default="cpu", show_default=True, help="Device, for example cuda.")
@click.option(
    "--workers", default=1, show_default=True, help="Runs at a time, each in its own process on its share of the cores."
)
@click.option("--save-every", default=200, show_default=True, help="Steps between checkpoints.")
@click.option(
    "--weights/--no-weights",
    "keep",
    default=True,
    show_default=True,
    help="Keep the weights of finished runs; those of learning-rate searches are never kept.",
)
@click.pass_context
def train(
    ctx: click.Context, name: str, miniature: bool, given: tuple[str, ...], listing: bool, logs: bool, out: str | None, device: str,
    workers: int, save_every: int, keep: bool,
) -> None:  # fmt: skip
    """Run one of the paper's experiments and write a table with error bars and a figure.

    RECIPE is resnet32-cifar10, resnet50-imagenet or roberta-few-shot. Finished runs in --out are not repeated, and an interrupted run
    resumes from its last checkpoint. Under `torchrun` the processes share each batch. Prints the table, and writes table.csv, figure.svg
    and logs.svg.

    \b
    Example:
      sdetools train resnet32-cifar10 --miniature --workers 2 --set seeds=2 --out figure-2
      sdetools train resnet32-cifar10 --set data=/data/cifar-10-batches-bin --device cuda
    """
    from sdetools.recipes import identity_of, listing as list_settings, recipe, settings_of

    module = recipe(name)
    settings = settings_of(module, miniature, given)
    if listing:
        print_table(["setting", "value", "source", "description"], list_settings(settings))
        return
    from sdetools.claims.folder import write_text
    from sdetools.claims.record import svg_text
    from sdetools.recipes.logs import draw

    folder = Path(out or (f"{name}-miniature" if miniature else name))
    if logs:
        write_text(folder / "logs.svg", svg_text(draw(folder)))
        click.echo(f"wrote logs.svg in {folder}", err=True)
        return
    from sdetools.recipes.processes import sharing
    from sdetools.recipes.training import Trainer

    ctx.meta["resume"] = shlex.join(["sdetools", *ctx.meta["arguments"]])
    with sharing(device) as (own_device, first), bar(first) as (name_run, progress):
        trainer = Trainer(
            folder,
            identity_of(name, settings),
            save_every,
            own_device,
            workers,
            keep,
            name_run=name_run,
            progress=progress or (lambda done, total: None),
            tell=lambda text: click.echo(f"sdetools: {text}", err=True) if first else None,
        )
        outcome = module.main(settings, trainer)
    if first:
        print_table(outcome.columns, outcome.rows)
        lines = [",".join(f'"{cell}"' for cell in row) for row in [outcome.columns, *outcome.rows]]
        write_text(folder / "table.csv", "\n".join(lines) + "\n")
        write_text(folder / "figure.svg", svg_text(outcome.figure()))
        write_text(folder / "logs.svg", svg_text(draw(folder)))
        click.echo(f"wrote table.csv, figure.svg and logs.svg in {folder}; the logs are in {folder / 'runs'}", err=True)
