"""The command `sdetools sweep`, which estimates a weak gap on a grid of learning rates and momenta."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdetools.cli.common import UNIDENTIFYING, checked_folder, main, remark, running
from sdetools.cli.options import check_exclusive, compute_options, numbers
from sdetools.cli.pair_options import pair_arguments, pair_options, problem_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdetools.studies.sweep_result import Sweep


@main.command(short_help="Estimate a weak gap on a grid of eta and beta.")
@problem_options
@click.option("--eta", required=True, metavar="LIST", help='Learning rates, for example "0.1,0.05,0.025".')
@click.option("--beta", default="0.9", show_default=True, metavar="LIST", help='Momenta, for example "0.5,0.9,0.99".')
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Replicates of each point, with seeds from --seed on.",
)
@click.option(
    "--errors",
    type=click.Choice(["raise", "record"]),
    default="raise",
    show_default=True,
    help="Whether a point that fails ends the sweep, or is recorded with its message.",
)
@pair_options
@click.option(
    "--plot", type=click.Path(dir_okay=False), metavar="FILE", help="Draw the heat map, or curves, as .png, .svg or .pdf."
)
@click.option("--out", type=click.Path(), help="Folder for sweep.csv, sweep.svg and the store.")
@compute_options
@click.pass_context
def sweep(ctx: click.Context, **options: Any) -> None:
    """Estimate the weak gap between an optimiser and another one or a limiting equation on a grid of learning rates and momenta.

    Prints the largest gap over time at each point with its 95 % band. All points have the same seeds. With --out it also writes sweep.csv and
    sweep.svg, and --resume continues with the points that are not finished.

    \b
    Example:
      sdetools sweep --loss "(x*y - 1)**2 / 2" --variables "x y" --x0 2,0.5 --observe "x**2 + y**2" \\
                     --eta 0.02,0.01 --beta 0.5,0.9,0.99 --paths 20000 --plot gaps.png
    """
    check_exclusive(options | {"alpha": None, "damping": None}, ("paths", "precision"))
    folder = checked_folder(options)
    grid: dict[str, Any] = {name: numbers(name, options[name]) for name in ("eta", "beta")}
    file = _checked_file(options["plot"])
    own = {name: value for name, value in options.items() if name not in UNIDENTIFYING}
    for i, beta in enumerate(grid["beta"]):
        pair_arguments(_at(own, options["eta"], beta), None if i else remark)
    first = options["seed"]
    with running(ctx, options, folder) as work:
        import sdetools as st

        seeds = range(first, first + options["seeds"])
        found = st.sweep(GapPoint(own), **grid, seeds=seeds, errors=options["errors"], **work.settings)
    click.echo(found.table())
    if found.failed or found.diverged:
        click.echo(found.summary().splitlines()[1].strip(), err=True)
    if file is not None:
        _figure(found).savefig(file, dpi=150)
        click.echo(f"wrote {file}", err=True)
    if folder is not None:
        from sdetools.claims.record import svg_text

        work.write(sweep_csv=found.to_dataframe().to_csv(index=False), sweep_svg=svg_text(_figure(found)))


@dataclass(frozen=True)
class GapPoint:
    """The weak gap at a point of the grid, a function of (eta, beta, seed) that can be sent to other processes.

    Attributes:
        options: Values of the command's options by name, without those of execution and output (threads, executor, retries, resume, out, plot).
    """

    options: dict[str, Any]

    def __call__(self, eta: float, beta: float, seed: int) -> Any:
        """Return the gap, the result of `st.weak_gap`, for the learning rate eta, the momentum beta and a seed.

        Raises:
            ValueError: For invalid numbers or formulas.
        """
        from sdetools import weak_gap

        given = pair_arguments(_at(self.options, repr(eta), beta))
        pair, _ = given.pop("pair"), given.pop("etas")
        return weak_gap(*pair(eta), **given | {"seed": seed})


def _at(options: dict[str, Any], eta: str, beta: float) -> dict[str, Any]:
    """Return the options of `sdetools gap` at the momentum `beta` and the learning rate `eta`, a text, which may be a list."""
    return options | {"eta": eta, "beta": beta, "alpha": None, "damping": None}


def _checked_file(name: str | None) -> Path | None:
    """Return the file of --plot, or None; ValueError if matplotlib cannot write its format, or its folder does not exist."""
    if name is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file, known = Path(name), FigureCanvasAgg.get_supported_filetypes()
    if file.suffix[1:] not in known:
        raise ValueError(
            f"`plot` must be a file of a format that can be drawn; got {name!r}. Name it for example {file.stem}.png."
        )
    if not file.parent.is_dir():
        raise ValueError(f"`plot` must lie in a folder that exists; got {name!r}. Create {str(file.parent)!r} first.")
    return file


def _figure(found: Sweep) -> Figure:
    """Return the figure of a sweep, a heat map or curves, with one panel for each observable."""
    from sdetools import plots

    if len(found.names) == 1:
        return found.plot()
    columns, count = min(2, len(found.names)), len(found.names)
    figure, panels = plots.axes_for(count, columns=columns, size=(6.4 * columns, 4.2 * -(-count // columns)))
    for name, axes in zip(found.names, panels):
        found.plot(value=name, ax=axes)
    return figure
