"""The command `sdetools train`, which runs the paper's experiments, full-size or in miniature."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import Any

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
@click.option("--device", default="cpu", show_default=True, help="Device, for example cuda or cuda:1.")
@click.option(
    "--workers",
    default=1,
    show_default=True,
    help="Runs at a time, each in its own process: on its share of the cores, or with --device cuda on a GPU of its own.",
)
@click.option(
    "--plan",
    is_flag=True,
    help="Print a table of all runs with their hours and stop; times a few steps of each kind here, or uses --rate.",
)
@click.option(
    "--rate", type=float, help="With --plan: the samples per second that one device trains on, instead of timing steps."
)
@click.option("--devices", type=click.IntRange(1), default=1, show_default=True, help="With --plan: devices that share the runs.")
@click.option(
    "--compile", "compiled", is_flag=True, help="Compile networks by torch.compile; other rounding errors than without."
)
@click.option(
    "--log-to",
    type=click.Choice(["tensorboard", "wandb"]),
    help="Pass the logs on to TensorBoard (files in --out) or Weights & Biases (project: the recipe's name).",
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
    workers: int, plan: bool, rate: float | None, devices: int, compiled: bool, log_to: str | None, save_every: int, keep: bool,
) -> None:  # fmt: skip
    """Run one of the paper's experiments and write a table with error bars and a figure.

    RECIPE is resnet32-cifar10, resnet50-imagenet or roberta-few-shot. Finished runs in --out are not repeated, and an interrupted run
    resumes from its last checkpoint. Under `torchrun` the processes share each batch and each evaluation. Prints the table, and writes
    table.csv, figure.svg and logs.svg.

    \b
    Example:
      sdetools train resnet32-cifar10 --miniature --workers 2 --set seeds=2 --out figure-2
      sdetools train resnet32-cifar10 --set data=/data/cifar-10-batches-bin --device cuda
      sdetools train resnet50-imagenet --plan --rate 2500 --devices 8
      torchrun --nproc_per_node 2 -m sdetools train resnet32-cifar10 --miniature
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

    if plan:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise click.UsageError("--plan needs no torchrun; it plans one run per device. Start it as a plain command.")
        with sharing(device) as (own_device, _), bar() as (name_run, progress):
            report = {"name_run": name_run, **({"progress": progress} if progress else {})}
            planner = _planned(
                module,
                settings,
                rate,
                folder=folder,
                identity="",
                save_every=save_every,
                device=own_device,
                keep=keep,
                compiled=compiled,
                **report,
            )
        _print_plan(planner, devices)
        return
    if rate is not None or devices != 1:
        raise click.UsageError("--rate and --devices are for --plan; add it, or leave them out.")
    ctx.meta["resume"] = shlex.join(["sdetools", *ctx.meta["arguments"]])
    with sharing(device) as (own_device, first), bar(first) as (name_run, progress):
        loggers = [_logger(log_to, name, folder)] if log_to and first else []
        trainer = Trainer(
            folder,
            identity_of(name, settings),
            save_every,
            own_device,
            workers,
            keep,
            compiled=compiled,
            loggers=loggers,
            name_run=name_run,
            progress=progress or (lambda done, total: None),
            tell=lambda text: click.echo(f"sdetools: {text}", err=True) if first else None,
        )
        outcome = module.main(settings, trainer)
        for logger in loggers:
            logger.close()
    if first:
        print_table(outcome.columns, outcome.rows)
        lines = [",".join(f'"{cell}"' for cell in row) for row in [outcome.columns, *outcome.rows]]
        write_text(folder / "table.csv", "\n".join(lines) + "\n")
        write_text(folder / "figure.svg", svg_text(outcome.figure()))
        write_text(folder / "logs.svg", svg_text(draw(folder)))
        click.echo(f"wrote table.csv, figure.svg and logs.svg in {folder}; the logs are in {folder / 'runs'}", err=True)


def _logger(kind: str, name: str, folder: Path) -> Any:
    """Return a logger of the kind "tensorboard" or "wandb" for the recipe `name` in `folder`."""
    from sdetools.recipes.logs import TensorBoardLogger, WandbLogger

    return TensorBoardLogger(folder / "tensorboard") if kind == "tensorboard" else WandbLogger(name, name=folder.name)


def _planned(module: Any, settings: Any, rate: float | None, **options: Any) -> Any:
    """Return a `recipes.plan.Planner` that has counted all runs of a recipe, and trained none.

    Args:
        module: The module of the recipe.
        settings: Its settings.
        rate: Samples per second that a device trains on; None measures it by timing steps.
        **options: Further arguments of the planner, such as `folder` and `device`.

    Raises:
        MissingData: If the data of the recipe are missing, unless `rate` is given and the recipe knows their published sizes, which then replace them.
    """
    from sdetools.recipes.datasets import MissingData
    from sdetools.recipes.plan import Planner

    planner = Planner(rate=rate, **options)
    try:
        module.main(settings, planner)
    except MissingData as error:
        if not hasattr(module, "sizes"):
            raise
        if rate is None:
            raise MissingData(f"{error} Without data, --plan needs --rate.") from None
        click.echo("sdetools: the data are missing; planned with the published numbers of images", err=True)
        planner = Planner(rate=rate, **options)
        module.main(dataclasses.replace(settings, source="sizes"), planner)
    return planner


def _print_plan(planner: Any, devices: int) -> None:
    """Print the table of a plan, and its total hours of all runs and on a number of devices that share them."""
    print_table(*planner.table())
    of = "measured on this machine" if planner.rate is None else f"at {planner.rate:,g} samples/s a device"
    total, wall = planner.device_seconds / 3600, planner.wall_seconds(devices) / 3600
    click.echo(
        f"total: {total:,.4g} device-hours ({of}); {wall:,.4g} hours on {devices} device{'s' * (devices > 1)}, one run on each"
    )
