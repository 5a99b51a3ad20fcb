"""Options shared by several commands, and the objects built from them.

`options` are the values of a command's options by name, as click passes them. A function that adds options is a decorator: it takes a
command and returns it with the options.
"""

from __future__ import annotations

from typing import Any

import click


def compute_options(command: Any) -> Any:
    """Add the options of execution (--seed, --threads, --executor, --retries, --resume) to `command`, and return it: a decorator.

    `command` is the function of a click command, or what another decorator of options returns.
    """
    for option in (
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random numbers."),
        click.option("--threads", type=click.IntRange(min=1), help="Threads, or workers. [default: all cores]"),
        click.option(
            "--engine",
            "--executor",
            "executor",
            callback=_engine,
            metavar="NAME",
            default="threads",
            show_default=True,
            help="Where chunks of paths are simulated: threads, processes, dask, dask:tcp://HOST:PORT, mpi, slurm:partition=NAME,time=MINUTES.",
        ),
        click.option(
            "--retries",
            type=click.IntRange(min=0),
            default=2,
            show_default=True,
            help="How often a chunk is submitted again after its worker failed.",
        ),
        click.option("--resume", is_flag=True, help="Resume from the finished chunks in the store of --out."),
    ):
        command = option(command)
    return command


def _engine(ctx: click.Context, _: click.Parameter, name: str) -> str:
    """Return the value of --engine, or raise ValueError if there is no such engine: the callback of the option; nothing is started."""
    if name != "threads" and not ctx.resilient_parsing:
        from sdetools.simulation.clusters import check_executor

        check_executor(name)
    return name


def noise_options(command: Any) -> Any:
    """Add the options of the gradient noise (--noise, --covariance, --degrees, --probability, --index) to `command`, and return it: a decorator.

    `command` is the function of a click command, or what another decorator of options returns. `noise_of` builds the noise from their values.
    """
    for option in (
        click.option(
            "--index",
            type=float,
            help="Index of stability of alpha-stable in (0, 2]; its scale is --sigma. Below 2 it has no variance: observe bounded functions. [default: 1.5]",
        ),
        click.option(
            "--probability", type=float, default=0.1, show_default=True, help="Probability of the rare value of two-point."
        ),
        click.option("--degrees", type=float, default=5.0, show_default=True, help="Degrees of freedom of student-t."),
        click.option(
            "--covariance",
            metavar="ROWS",
            help='Covariance of the noise: "1,0.5;0.5,2", or its diagonal "1,2". [default: identity]',
        ),
        click.option(
            "--noise",
            type=click.Choice(
                [
                    "gaussian",
                    "rademacher",
                    "uniform",
                    "three-point",
                    "exponential",
                    "two-point",
                    "student-t",
                    "alpha-stable",
                    "none",
                ]
            ),
            default="gaussian",
            show_default=True,
            help="Distribution of the gradient noise.",
        ),
    ):
        command = option(command)
    return command


def loss_of(options: dict[str, Any]) -> Any:
    """Return the loss, a `Loss` of an expression, that the options `loss` (a formula) and `variables` (names of its coordinates, or None) describe.

    Raises:
        ValueError: If the formula or the names are not valid; the message speaks of --loss and --variables.
    """
    import sdetools as st

    try:
        return st.losses.from_expression(options["loss"], variables=options["variables"])
    except ValueError as error:
        shown = str(error).replace("`text`", "`--loss`").replace("`variables`", "`--variables`")
        raise ValueError(shown.replace("Pass variables='x'", "Pass --variables x")) from None


def noise_of(options: dict[str, Any], dim: int) -> Any:
    """Return the gradient noise in `dim` dimensions, an object of `st.noise`, that the options describe.

    Args:
        options: Values of the options by name: `noise`, such as "gaussian"; `covariance`, a text "1,0.5;0.5,2" with rows or "1,2" with the diagonal,
            None for the identity; the numbers `degrees` (of student-t), `probability` (of two-point) and `index` (of alpha-stable, None for 1.5).
        dim: Number of coordinates.

    Raises:
        ValueError: If a value is invalid, for example a covariance of another dimension.
        click.UsageError: If `--index` is given for another noise, or `--covariance` for alpha-stable noise.
    """
    import sdetools as st

    name = options["noise"]
    if options["index"] is not None and name != "alpha-stable":
        raise click.UsageError(f"--index is an option of --noise alpha-stable; got it for {name}.")
    if name == "alpha-stable":
        if options["covariance"] is not None:
            raise click.UsageError("--covariance cannot be that of alpha-stable noise, which has none; --sigma is its scale.")
        return st.noise.alpha_stable(stable_index(options), dim)
    if name == "none":
        return st.noise.none(dim)
    covariance = None
    if options["covariance"] is not None:
        rows = [numbers("covariance", row) for row in options["covariance"].split(";")]
        covariance = rows[0] if len(rows) == 1 else rows
    if name == "two-point":
        return st.noise.two_point(dim, probability=options["probability"], covariance=covariance)
    if name == "student-t":
        return st.noise.student_t(dim, degrees=options["degrees"], covariance=covariance)
    make = {"three-point": st.noise.three_point, "exponential": st.noise.centred_exponential}.get(name)
    return (make or getattr(st.noise, name))(dim, covariance=covariance)


def stable_index(options: dict[str, Any]) -> float:
    """Return the index of stability of the noise: `index`, 1.5 by default, for alpha-stable noise, and 2 for all others.

    `options` has the values of the options noise and index by name.
    """
    if options["noise"] != "alpha-stable":
        return 2.0
    return 1.5 if options["index"] is None else float(options["index"])


def check_bounded(texts: list[str], loss: Any, index: float) -> None:
    """Check that a mean of each observable exists under the noise.

    Args:
        texts: The formulas of the observables.
        loss: The loss, whose coordinate names the formulas use.
        index: The index of stability of the noise in (0, 2]; for 2, noise with a variance, everything is accepted.

    Raises:
        ValueError: If the noise has no variance (`index` below 2) and a formula is not proven bounded.
    """
    if index == 2:
        return
    from sdetools.studies.observables import observable
    from sdetools.studies.ranges import range_of_observable

    for text in texts:
        if not range_of_observable(observable(text, loss), loss.dim).bounded:
            raise ValueError(
                f"`observe` must be bounded for alpha-stable noise of index {index:g}, which has no variance{'' if index > 1 else ' and no mean'}; got {text!r}. "
                f'Write for example --observe "cos({loss.names[0]})", or take --index 2.'
            )


def momentum_options(command: Any) -> Any:
    """Add the options of the momentum (--beta, --alpha, --damping) to `command`, and return it: a decorator.

    `command` is the function of a click command, or what another decorator of options returns. `plan_of` builds a schedule from them.
    """
    for option in (
        click.option("--damping", type=float, help="The damping that goes with --alpha. [default: 0.5]"),
        click.option("--alpha", type=float, help="Instead of --beta: 1 - beta = damping * eta**alpha."),
        click.option("--beta", type=float, help="Momentum. [default: 0.9]"),
    ):
        command = option(command)
    return command


def plan_of(options: dict[str, Any], eta: float) -> Any:
    """Return the schedule, a `Plan` of `st.schedules`, with learning rate `eta` and the momentum of the options.

    `options` has the values of the options beta, alpha and damping by name, None for one that is not given. If alpha is given, the momentum is
    beta = 1 - damping * eta**alpha, with damping 0.5 by default; otherwise it is the option beta, 0.9 by default.

    Raises:
        ValueError: If a number lies outside its range.
    """
    import sdetools as st

    if options["alpha"] is not None:
        return st.schedules.scaled(eta, alpha=options["alpha"], damping=0.5 if options["damping"] is None else options["damping"])
    return st.schedules.constant(eta, beta=0.9 if options["beta"] is None else options["beta"])


def check_exclusive(options: dict[str, Any], *pairs: tuple[str, str]) -> None:
    """Raise an error if mutually exclusive options are given: beta with alpha or damping, or both options of one of the `pairs`.

    Args:
        options: Values of the options by name, None for one that is not given; beta, alpha, damping and the names in `pairs` must be there.
        *pairs: Pairs of names of options, such as ("paths", "precision").

    Raises:
        click.UsageError: If both options of a pair are given, or `--damping` without `--alpha`.
    """
    for one, other in (("beta", "alpha"), ("beta", "damping"), *pairs):
        if options[one] is not None and options[other] is not None:
            raise click.UsageError(f"--{one} and --{other} are mutually exclusive; give one of them.")
    if options["damping"] is not None and options["alpha"] is None:
        raise click.UsageError("--damping needs --alpha: 1 - beta = damping * eta**alpha.")


def numbers(name: str, text: str) -> list[float]:
    """Return the numbers of a list separated by commas or spaces.

    Args:
        name: The name of the option, "eta" for example, for the error message.
        text: The list, such as "0.1,0.05" or "0.1 0.05".

    Returns:
        The floats in order, at least one.

    Raises:
        ValueError: If the list is empty or has an entry that is not a number.
    """
    try:
        found = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if not found:
        raise ValueError(f"`{name}` must be numbers separated by commas; got {text!r}. Write for example 0.1,0.05.")
    return found
