"""The command `sdetools gap`, which estimates a weak gap and its order in eta."""

from __future__ import annotations

from typing import Any

import click

from sdetools.cli.common import checked_folder, main, running
from sdetools.cli.options import (
    check_bounded,
    check_exclusive,
    compute_options,
    momentum_options,
    noise_of,
    noise_options,
    numbers,
    plan_of,
    stable_index,
)
from sdetools.cli.rule_options import RULES, rule_of, rule_options, switches

INTEGRATORS = {
    "euler-maruyama": "EulerMaruyama",
    "milstein": "Milstein",
    "sra1": "SRA1",
    "platen": "Platen",
    "ri1": "RI1",
    "obabo": "OBABO",
    "baoab": "BAOAB",
    "ubu": "UBU",
}
"""Class names of the integrators of the limits, by their names on the command line."""
LIMITS = ("sde", "gradient-flow", "kinetic", "modified")
"""The limiting equations of SGD and of SGD with momentum, by their names on the command line."""
BOUNDED_STEPS = {"signsgd", "signum", "lion", "clippedsgd", "normalisedsgd"}
"""Optimisers whose steps are bounded: their iterates have moments for noise without a variance, too."""


@main.command(short_help="Estimate a weak gap and its order in eta.")
@click.option("--loss", required=True, help='The loss as a formula, for example "(x*y - 1)**2 / 2".')
@click.option(
    "--variables", help='The names of its coordinates in order, for example "x y". [default: x0, x1, ..., or alphabetical]'
)
@noise_options
@click.option(
    "--sigma", default="auto", show_default=True, help="Scale of the noise; auto is eta**-0.5; alpha-stable: eta**(1/index - 1)."
)
@click.option("--eta", required=True, metavar="LIST", help='Learning rates, for example "0.1,0.05,0.025".')
@momentum_options
@click.option("--ripple", type=float, default=0.0, show_default=True, help="Amplitude R of eta_k = eta * (1 + R * (-1)**k).")
@click.option("--x0", required=True, metavar="POINT", help='The initial point, for example "2,0.5".')
@click.option("--horizon", type=float, default=1.0, show_default=True, help="The final time; step k is at time k * eta.")
@click.option("--observe", multiple=True, help="A formula whose mean is compared; may be repeated. [default: the loss]")
@click.option("--paths", type=click.IntRange(min=2), help="Paths for each learning rate. [default: 100000]")
@click.option("--precision", type=float, help="Instead of --paths: half-width of the 95 % interval of every recorded gap.")
@click.option(
    "--against",
    type=click.Choice(["sgd-unaveraged", *LIMITS, *RULES]),
    default="sgd",
    show_default=True,
    help="The second dynamics: an optimiser (without momentum: on the averaged schedule), SGD on the schedule itself, or a limit of sgdm "
    "and sgd: the SDE, the gradient flow, the kinetic equation (alpha = 1), the second-order modified equation of SGD.",
)
@click.option(
    "--dynamics",
    type=click.Choice([*RULES]),
    default="sgdm",
    show_default=True,
    help="The optimiser. sgdm, adam, adamw, signum and lion use the momentum; the others run on the averaged schedule.",
)
@rule_options
@click.option(
    "--integrator",
    type=click.Choice(["auto", *INTEGRATORS]),
    default="auto",
    show_default=True,
    help="Integrator of a limit; auto is sra1 for additive noise, euler-maruyama for other noise, ri1 for the flow, baoab for kinetic.",
)
@click.option(
    "--substeps",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Steps of the integrator per step of the optimiser.",
)
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
    arguments = _arguments(options)
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


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `order_study` for the values `options` of the command's options.

    Raises:
        ValueError: For invalid numbers or formulas.
    """
    import math

    import sdetools as st
    from sdetools import _check

    etas = [_check.positive("eta", eta) for eta in numbers("eta", options["eta"])]
    horizon = _check.positive("horizon", options["horizon"])
    ripple = _check.number("ripple", options["ripple"])
    if not 0 <= ripple <= 1:
        raise ValueError(f"`ripple` must lie in [0, 1]; got ripple={ripple!r}. Above 1 every second step would climb the loss.")
    loss = st.losses.from_expression(options["loss"], variables=options["variables"])
    noise = noise_of(options, loss.dim)
    sigma = None if options["sigma"] == "auto" else _number_or_auto(options["sigma"])
    x0 = _check.point("x0", numbers("x0", options["x0"]), loss.dim)
    observe = list(options["observe"]) or [options["loss"]]
    from sdetools.losses.expression import parse

    for text in observe:
        parse(text, loss.names, {})
    kind, against = options["dynamics"], options["against"]
    limit, index = against in LIMITS, stable_index(options)
    if limit and index < 2 and against != "gradient-flow":
        raise ValueError(
            f"`against` {against} must be the limit of noise with a variance; got alpha-stable noise of index {index:g}. Compare two optimisers."
        )
    if not {kind, against} <= BOUNDED_STEPS:
        check_bounded(observe, loss, index)
    if limit and kind not in ("sgdm", "sgd"):
        raise ValueError(f"`against` {against} is a limit of sgdm and sgd; got it for {kind}. Add --against with an optimiser.")
    given = switches((kind, against), options)

    def plan(eta: float) -> Any:
        smooth = plan_of(options, eta)
        if ripple == 0:
            return smooth
        # The averaged schedule depends on later steps, so the ripple continues for 40 memory lengths after the horizon.
        steps = math.ceil(horizon / eta + 40 * smooth.longest_memory)
        return st.schedules.from_functions(lambda k: eta * (1 + ripple * (-1) ** k), smooth.betas(1)[0], steps, base=eta)

    def pair(eta: float) -> tuple[Any, Any]:
        own = plan(eta)
        oracle = st.NoisyOracle(loss, noise, sigma=eta ** (1 / index - 1) if sigma is None else sigma)
        first = rule_of(kind, oracle, own, given)
        if limit:
            return first, _limit(options, oracle, own)
        if against == "sgd-unaveraged":
            return first, st.SGD(oracle, st.schedules.from_arrays(own.eta_values, base=own.eta))
        return first, rule_of(against, oracle, own, given)

    together, reason = True, ""
    for eta in etas:
        first, second = pair(eta)
        if limit and second.sde.noise_dim and (first.brownian == 0 or first.brownian != second.brownian):
            together, reason = False, "the optimiser's draws are not Brownian increments"
        if "localsgd" in (kind, against) and tuple(first.draws) != tuple(second.draws):
            together, reason = False, "each worker has its own draws"
    if not together:
        click.echo(f"{reason}: the two run independently, which needs more paths", err=True)
    size = (
        {"paths": options["paths"] or 100_000}
        if options["precision"] is None
        else {"precision": _check.positive("precision", options["precision"])}
    )
    return {
        "pair": pair,
        "etas": etas,
        "x0": x0.tolist(),
        "horizon": horizon,
        "observe": observe,
        "seed": options["seed"],
        **({} if together else {"coupled": False}),
        **size,
    }


def _limit(options: dict[str, Any], oracle: Any, plan: Any) -> Any:
    """Return the integrator of the limiting equation of `--against`; ValueError for the modified equation of an optimiser with momentum."""
    import sdetools as st

    kind = options["against"]
    if kind == "modified" and (plan.has_momentum and options["dynamics"] == "sgdm"):
        raise ValueError("`against` modified is the equation of SGD; got it for momentum. Add --dynamics sgd, or --against sde.")
    sde = {
        "sde": lambda: st.LimitSDE(oracle, plan),
        "gradient-flow": lambda: st.GradientFlow(oracle, plan),
        "kinetic": lambda: st.KineticSDE(oracle, plan),
        "modified": lambda: st.ModifiedSDE(oracle, plan.eta),
    }[kind]()
    name = options["integrator"]
    if name == "auto":
        additive = sde.noise_class in ("none", "additive")
        name = "baoab" if kind == "kinetic" else "ri1" if kind == "gradient-flow" else "sra1" if additive else "euler-maruyama"
    return getattr(st, INTEGRATORS[name])(sde, dt=plan.eta / options["substeps"])


def _number_or_auto(text: str) -> float:
    """Return the value of --sigma that is not "auto", a finite number."""
    try:
        value: Any = float(text)
    except ValueError:
        value = text
    from sdetools import _check

    return _check.number("sigma", value, "be a number or auto")
