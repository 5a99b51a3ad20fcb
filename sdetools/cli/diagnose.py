"""The commands `sdetools diagnose` and `diagnose-adam`, which examine whether a training run needs momentum."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sdetools.cli.common import bar, main


@main.command(short_help="Estimate whether a training run needs momentum.")
@click.argument("file", type=click.Path())
@click.option("--lr", type=float, required=True, help="Learning rate of the run, in the form of --form.")
@click.option("--momentum", type=float, default=0.9, show_default=True, help="Momentum of the run.")
@click.option("--batch-size", type=int, help="Batch size of the run. [default: that of the loader, if data is one]")
@click.option(
    "--form",
    type=click.Choice(["heavy-ball", "sgdm", "nesterov"]),
    default="heavy-ball",
    show_default=True,
    help="Form of the momentum: heavy-ball and nesterov as in torch, sgdm with m = mu m + (1 - mu) g.",
)
@click.option("--batches", type=int, default=64, show_default=True, help="Batches from which the terms are estimated.")
@click.option("--seeds", type=int, default=2, show_default=True, help="Training runs of each method; 0 for no training.")
@click.option("--steps", type=int, default=200, show_default=True, help="Steps of the trial.")
@click.option("--trial/--no-trial", default=None, help="The paired trial in any case, or never. [default: where doubt is left]")
@click.option("--planned-steps", type=int, help="Length of your run, to compare the cost with. [default: 800]")
@click.option("--pieces", type=int, default=1, show_default=True, help="Pieces in which a batch passes through the network.")
@click.option("--exact", is_flag=True, help="Compute the terms from all samples, for small data.")
@click.option(
    "--hessian-samples",
    type=int,
    help="Samples for the largest Hessian eigenvalue. [default: all if affordable, otherwise as many as needed]",
)
@click.option("--device", help="Device, for example cuda. [default: the device of the model]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--out", type=click.Path(), help="Folder for diagnosis.json.")
def diagnose(file: str, out: str | None, **options: Any) -> None:
    """Estimate P(keep), the probability that plain SGD does worse than momentum on a network.

    In stages: the largest Hessian eigenvalue; where it leaves doubt, a hundred steps of plain SGD; where these leave doubt, a paired trial. It stops as
    soon as P(keep) is below 5 % or above 95 %.

    FILE is a Python file that defines `model` (an nn.Module), `loss` (a function of output and target) and `data` (arrays, a data set or a
    loader). For other batches it defines `loss_of` (a function of model and batch) instead of `loss`. Prints the terms of Lemma 2.4, the largest
    Hessian eigenvalue of the full loss, P(keep) with its reasons and their cost, and a recommendation. With --out it also writes diagnosis.json.

    \b
    Example:
      sdetools diagnose my_run.py --lr 0.1 --momentum 0.9 --batch-size 128 --out diagnosis
    """
    names = _names(file)
    from sdetools.bridge import diagnose as measure

    _report(lambda progress: measure(progress=progress, **_common(names), **options), out, "diagnosis.json")


@main.command("diagnose-adam", short_help="Try whether Adam needs its beta_1, on a training run.")
@click.argument("file", type=click.Path())
@click.option("--batch-size", type=int, help="Batch size of the run. [default: that of the loader, if data is one]")
@click.option("--seeds", type=int, default=6, show_default=True, help="Pairs of runs; fewer than six decide nothing.")
@click.option("--steps", type=int, default=400, show_default=True, help="Steps of a run.")
@click.option("--pieces", type=int, default=1, show_default=True, help="Pieces in which a batch passes through the network.")
@click.option("--clip-norm", type=float, help="Largest norm of a gradient, if the run clips. [default: no clipping]")
@click.option("--device", help="Device, for example cuda. [default: the device of the model]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--out", type=click.Path(), help="Folder for adam_trial.json.")
def diagnose_adam(file: str, out: str | None, **options: Any) -> None:
    """Train a network by its Adam or AdamW, and by the same with beta_1 = 0, on the same batches, and compare their progress.

    FILE is as for `sdetools diagnose`, and also defines `optimizer`, torch's Adam or AdamW of the model's parameters, whose numbers and state
    both runs have. The answer is that of the trial, for runs as long as it: unlike P(keep) of `sdetools diagnose` it is not calibrated.

    \b
    Example:
      sdetools diagnose-adam my_run.py --batch-size 128 --steps 1000 --out trial
    """
    names = _names(file)
    if "optimizer" not in names:
        raise ValueError(f"FILE must define `optimizer`; {file} does not. It is torch.optim.Adam or AdamW of model.parameters().")
    from sdetools.bridge import diagnose_adam as measure

    _report(
        lambda progress: measure(optimizer=names["optimizer"], progress=progress, **_common(names), **options),
        out,
        "adam_trial.json",
    )


def _common(names: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments that both commands take from the user's file: model, loss, data and loss_of, None for a loss that is not defined."""
    return {"model": names["model"], "loss": names.get("loss"), "data": names["data"], "loss_of": names.get("loss_of")}


def _report(measure: Callable[[Any], Any], out: str | None, name: str) -> None:
    """Measure under a progress bar, print what is found, and write it as the file `name` of the folder `out`, if that is given.

    `measure` is a function of the progress function `(done, total)`, or of None where no bar is shown; its result has the method `to_json`.
    """
    from sdetools.claims.folder import check_folder, write_text

    folder = check_folder(out) if out else None
    with bar() as (label, progress):
        label("gradients and trial steps")
        found = measure(progress)
    click.echo(found)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, found.to_json())
        click.echo(f"wrote {name} in {folder}", err=True)


def _names(file: str) -> dict[str, Any]:
    """Run the user's file and return its global names with their values; ValueError if it fails or lacks `model`, `data` or a loss."""
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"FILE must exist; got {file!r}, which does not. It is a Python file that defines model, loss and data.")
    try:
        names = runpy.run_path(str(path))
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"FILE must run; {file} raised {type(error).__name__}: {error}") from error
    for name in ("model", "data"):
        if name not in names:
            raise ValueError(f"FILE must define `{name}`; {file} does not. It needs model, loss (or loss_of) and data.")
    if "loss" not in names and "loss_of" not in names:
        raise ValueError(f"FILE must define `loss` or `loss_of`; {file} does not.")
    return names
