"""The command `sdetools slow`, which compares SGD, SGDM and the slow SDE along the manifold of minimisers."""

from __future__ import annotations

from typing import Any

import click

from sdetools.cli.common import checked_folder, main, running
from sdetools.cli.options import (
    check_exclusive,
    compute_options,
    loss_of,
    momentum_options,
    noise_of,
    noise_options,
    numbers,
    plan_of,
    stable_index,
)


@main.command(short_help="Compare SGD, SGDM and the slow SDE along the minimisers.")
@click.option("--loss", required=True, help='The loss as a formula, for example "(x*y - 1)**2 / 2".')
@click.option(
    "--variables", help='The names of its coordinates in order, for example "x y". [default: x0, x1, ..., or alphabetical]'
)
@noise_options
@click.option(
    "--label-noise",
    metavar="MODELS",
    help='Instead of --noise: independent noise on the labels of the models f, for example "x*y"; separate several by semicolons.',
)
@click.option("--std", type=float, default=1.0, show_default=True, help="Standard deviation of the label noise.")
@click.option("--sigma", type=float, default=1.0, show_default=True, help="Scale of the noise.")
@click.option("--eta", type=float, required=True, help="Learning rate; a unit of slow time is 1/eta**2 steps.")
@momentum_options
@click.option(
    "--x0",
    required=True,
    metavar="POINT",
    help='The initial point, for example "2,0.5"; the slow SDE starts at its projection Phi.',
)
@click.option("--horizon", type=float, default=1.0, show_default=True, help="The final time on the slow clock k * eta**2.")
@click.option("--observe", multiple=True, help="A formula whose law is compared; may be repeated. [default: the coordinates]")
@click.option("--paths", type=click.IntRange(min=2), default=10_000, show_default=True, help="Paths of each dynamics.")
@click.option("--dt", type=float, help="Step of the integrator of the slow SDE. [default: about a 200th of the horizon]")
@click.option(
    "--integrator",
    type=click.Choice(["euler-maruyama", "platen", "ri1"]),
    default="euler-maruyama",
    show_default=True,
    help="Integrator of the slow SDE, of weak order 1 (euler-maruyama) or 2.",
)
@click.option("--out", type=click.Path(), help="Folder for slow.json, slow.svg, manifold.svg (2 or 3 coordinates) and the store.")
@compute_options
@click.pass_context
def slow(ctx: click.Context, **options: Any) -> None:
    """Simulate SGD, SGDM and the slow SDE along the manifold of minimisers, over 1/eta**2 steps, and compare their laws.

    Prints the means at the final time with 95 % intervals, and the distances of the laws of SGD and SGDM to that of the slow SDE. With
    --out it also writes slow.json, slow.svg and, for 2 or 3 coordinates, manifold.svg.

    \b
    Example:
      sdetools slow --loss "(x*y - 1)**2 / 2" --x0 1,1 --eta 0.02 --horizon 0.2 --observe "x**2 - y**2" --out slow
      sdetools slow --loss "(1 + x**2)*y**2/2" --label-noise "sqrt(1 + x**2)*y" --x0 1,0 --eta 0.05 --horizon 2
    """
    check_exclusive(options)
    folder = checked_folder(options)
    arguments = _arguments(options)
    with running(ctx, options, folder) as work:
        from sdetools import slow_study

        study = slow_study(**arguments, **work.settings)
    click.echo(study.table())
    if folder is not None:
        from sdetools.claims.record import svg_text

        drawn = {"manifold_svg": svg_text(study.plot_manifold())} if study.oracle.loss.dim in (2, 3) else {}
        work.write(slow_json=study.to_json(), slow_svg=svg_text(study.plot()), **drawn)


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `st.slow_study` (oracle, plan, x0, horizon, ...) for the values `options` of the command's options by name.

    Raises:
        ValueError: For invalid numbers or formulas, or noise without a variance.
        click.UsageError: For an option of another noise.
    """
    import sdetools as st
    from sdetools import _check

    eta = _check.positive("eta", options["eta"])
    loss = loss_of(options)
    if options["label_noise"] is not None:
        models = [text.strip() for text in options["label_noise"].split(";")]
        noise = st.noise.label_noise(model=models, std=_check.positive("std", options["std"]), variables=list(loss.names))
    else:
        noise = noise_of(options, loss.dim)
        if (index := stable_index(options)) < 2:
            raise ValueError(
                f"`noise` must have a variance, which drives the slow SDE; got alpha-stable noise of index {index:g}. For two optimisers on it see `sdetools gap`."
            )
    return {
        "oracle": st.NoisyOracle(loss, noise, sigma=options["sigma"]),
        "plan": plan_of(options, eta),
        "x0": _check.point("x0", numbers("x0", options["x0"]), loss.dim).tolist(),
        "horizon": options["horizon"],
        "observe": list(options["observe"]) or None,
        "paths": options["paths"],
        "dt": options["dt"],
        "integrator": getattr(st, {"euler-maruyama": "EulerMaruyama", "platen": "Platen", "ri1": "RI1"}[options["integrator"]]),
        "seed": options["seed"],
    }
