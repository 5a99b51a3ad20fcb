"""Options of the commands that compare a pair of dynamics, `gap` and `sweep`, and the arguments of the library built from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sdetools.cli.options import check_bounded, loss_of, noise_of, noise_options, numbers, plan_of, stable_index
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


def problem_options(command: Any) -> Any:
    """Add the options of the problem (--loss, --variables, the noise, --sigma) to `command`, and return it: a decorator.

    `command` is the function of a click command, or what another decorator of options returns. `pair_arguments` reads their values.
    """
    for option in (
        click.option(
            "--sigma",
            default="auto",
            show_default=True,
            help="Scale of the noise; auto is eta**-0.5; alpha-stable: eta**(1/index - 1).",
        ),
        noise_options,
        click.option(
            "--variables",
            help='The names of its coordinates in order, for example "x y". [default: x0, x1, ..., or alphabetical]',
        ),
        click.option("--loss", required=True, help='The loss as a formula, for example "(x*y - 1)**2 / 2".'),
    ):
        command = option(command)
    return command


def pair_options(command: Any) -> Any:
    """Add the options of the pair and its run (--x0, --against, --paths, ...) to `command`, and return it: a decorator.

    `command` is the function of a click command, or what another decorator of options returns. `pair_arguments` reads their values.
    """
    for option in (
        click.option(
            "--substeps",
            type=click.IntRange(min=1),
            default=2,
            show_default=True,
            help="Steps of the integrator per step of the optimiser.",
        ),
        click.option(
            "--integrator",
            type=click.Choice(["auto", *INTEGRATORS]),
            default="auto",
            show_default=True,
            help="Integrator of a limit; auto is sra1 for additive noise, euler-maruyama for other noise, ri1 for the flow, baoab for kinetic.",
        ),
        rule_options,
        click.option(
            "--dynamics",
            type=click.Choice([*RULES]),
            default="sgdm",
            show_default=True,
            help="The optimiser. sgdm, adam, adamw, signum and lion use the momentum; the others run on the averaged schedule.",
        ),
        click.option(
            "--against",
            type=click.Choice(["sgd-unaveraged", *LIMITS, *RULES]),
            default="sgd",
            show_default=True,
            help="The second dynamics: an optimiser (without momentum: on the averaged schedule), SGD on the schedule itself, or a limit of sgdm "
            "and sgd: the SDE, the gradient flow, the kinetic equation (alpha = 1), the second-order modified equation of SGD.",
        ),
        click.option(
            "--precision", type=float, help="Instead of --paths: half-width of the 95 % interval of every recorded gap."
        ),
        click.option("--paths", type=click.IntRange(min=2), help="Paths for each learning rate. [default: 100000]"),
        click.option("--observe", multiple=True, help="A formula whose mean is compared; may be repeated. [default: the loss]"),
        click.option("--horizon", type=float, default=1.0, show_default=True, help="The final time; step k is at time k * eta."),
        click.option("--x0", required=True, metavar="POINT", help='The initial point, for example "2,0.5".'),
        click.option(
            "--ripple", type=float, default=0.0, show_default=True, help="Amplitude R of eta_k = eta * (1 + R * (-1)**k)."
        ),
    ):
        command = option(command)
    return command


def pair_arguments(options: dict[str, Any], say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return the keyword arguments of `st.order_study` for the values of the command's options.

    Args:
        options: Values by name of the options that `problem_options`, `pair_options` and `momentum_options` add, and of `eta` (a list as text) and
            `seed`.
        say: A function that is called with a remark for the user, if there is one; None drops it.

    Returns:
        A dict with `pair`, a function of eta that returns the two dynamics, `etas`, `x0`, `horizon`, `observe`, `seed`, either `paths` or `precision`,
        and `coupled=False` if the two cannot share their draws.

    Raises:
        ValueError: For invalid numbers or formulas, or a second dynamics that does not belong to the first or to the noise.
        click.UsageError: For a switch that none of the optimisers takes, or an option of another noise.
    """
    import math

    import sdetools as st
    from sdetools import _check

    etas = [_check.positive("eta", eta) for eta in numbers("eta", options["eta"])]
    horizon = _check.positive("horizon", options["horizon"])
    ripple = _check.number("ripple", options["ripple"])
    if not 0 <= ripple <= 1:
        raise ValueError(f"`ripple` must lie in [0, 1]; got ripple={ripple!r}. Above 1 every second step would climb the loss.")
    loss = loss_of(options)
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
    if not together and say is not None:
        say(f"{reason}: the two run independently, which needs more paths")
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
    """Return the limiting equation of `--against` with its integrator, a dynamics whose step is eta over the option `substeps`.

    Args:
        options: Values of the options by name: against, integrator, substeps and dynamics.
        oracle: The noisy gradient oracle.
        plan: The schedule of the optimiser.

    Raises:
        ValueError: For the modified equation of an optimiser with momentum, or an integrator that does not suit the equation.
    """
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
    """Return the value of --sigma from its text, which is not "auto": a finite number; raise ValueError for any other text."""
    try:
        value: Any = float(text)
    except ValueError:
        value = text
    from sdetools import _check

    return _check.number("sigma", value, "be a number or auto")
