"""Options that commands share, and what they make of them."""

from __future__ import annotations

from typing import Any

import click


def compute_options(command: Any) -> Any:
    """Where and with which random numbers."""
    for option in (
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random numbers."),
        click.option("--threads", type=click.IntRange(min=1), help="Threads, or worker processes. [default: all cores]"),
        click.option(
            "--executor",
            type=click.Choice(["threads", "processes"]),
            default="threads",
            show_default=True,
            help="Where the chunks run.",
        ),
        click.option("--resume", is_flag=True, help="Go on from the finished chunks in the store of --out."),
    ):
        command = option(command)
    return command


def noise_options(command: Any) -> Any:
    """The law of the gradient noise; `noise_of` makes it."""
    for option in (
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
                ["gaussian", "rademacher", "uniform", "three-point", "exponential", "two-point", "student-t", "none"]
            ),
            default="gaussian",
            show_default=True,
            help="Law of the gradient noise.",
        ),
    ):
        command = option(command)
    return command


def noise_of(options: dict[str, Any], dim: int) -> Any:
    """The noise that the options name."""
    import sdetools as st

    name = options["noise"]
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


def momentum_options(command: Any) -> Any:
    """The momentum; `plan_of` makes a schedule with it."""
    for option in (
        click.option("--damping", type=float, help="The damping beside --alpha. [default: 0.5]"),
        click.option("--alpha", type=float, help="Instead of --beta: 1 - beta = damping * eta**alpha."),
        click.option("--beta", type=float, help="Momentum. [default: 0.9]"),
    ):
        command = option(command)
    return command


def plan_of(options: dict[str, Any], eta: float) -> Any:
    """The schedule with the step eta that the options name."""
    import sdetools as st

    if options["alpha"] is not None:
        return st.schedules.scaled(eta, alpha=options["alpha"], damping=0.5 if options["damping"] is None else options["damping"])
    return st.schedules.constant(eta, beta=0.9 if options["beta"] is None else options["beta"])


def check_one_way(options: dict[str, Any], *pairs: tuple[str, str]) -> None:
    """Refuse two options that say the same thing; for the momentum always, for `pairs` too."""
    for one, other in (("beta", "alpha"), ("beta", "damping"), *pairs):
        if options[one] is not None and options[other] is not None:
            raise click.UsageError(f"--{one} and --{other} say the same thing in two ways; give one of them.")
    if options["damping"] is not None and options["alpha"] is None:
        raise click.UsageError("--damping needs --alpha: 1 - beta = damping * eta**alpha.")


def numbers(name: str, text: str) -> list[float]:
    """Numbers with commas between them."""
    try:
        found = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if not found:
        raise ValueError(f"`{name}` must be numbers with commas between them; got {text!r}. Write for example 0.1,0.05.")
    return found
