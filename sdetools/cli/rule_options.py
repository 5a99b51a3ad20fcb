"""The optimisers of the command line, their switches, and the objects built from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class CommandRule:
    """An optimiser of the command line, a value of `RULES`.

    Attributes:
        name: The name of its class in `sdetools`, such as "SGDM".
        momentum: Whether it runs on the schedule itself; otherwise on the averaged schedule, which has no momentum.
        switches: The names of its switches, those arguments of the class that are options of the command line, such as "beta2".
    """

    name: str
    momentum: bool = False
    switches: tuple[str, ...] = ()


_SECOND_MOMENT = ("beta2", "eps", "lagged", "bias_correction", "second_moment")
RULES = {
    "sgdm": CommandRule("SGDM", True),
    "sgd": CommandRule("SGD"),
    "adam": CommandRule("Adam", True, _SECOND_MOMENT),
    "adamw": CommandRule("AdamW", True, (*_SECOND_MOMENT, "weight_decay")),
    "rmsprop": CommandRule("RMSProp", False, _SECOND_MOMENT),
    "signsgd": CommandRule("SignSGD"),
    "signum": CommandRule("Signum", True),
    "lion": CommandRule("Lion", True, ("beta2", "weight_decay")),
    "clippedsgd": CommandRule("ClippedSGD", False, ("value", "norm")),
    "normalisedsgd": CommandRule("NormalisedSGD"),
    "localsgd": CommandRule("LocalSGD", False, ("workers", "local_steps")),
    "sam": CommandRule("SAM", False, ("rho",)),
    "acsgd": CommandRule("AcSGD", False, ("ratio",)),
}
"""The optimisers by their names on the command line."""
OPTIONS = {"value": "clip_value", "norm": "clip_norm"}
"""Names of options that differ from those of the arguments."""


def rule_options(command: Any) -> Any:
    """Add the switches of the optimisers (--beta2, --eps, --workers, ...) to `command`, and return it: a decorator.

    `command` is the function of a click command, or what another decorator of options returns. `rule_of` builds an optimiser from their values.
    """
    for option in (
        click.option("--ratio", type=float, help="acsgd: the long step over the short one. [default: 1 / (2 (dim + 2))]"),
        click.option("--rho", type=float, help="sam: the move is rho times the gradient. [default: 0.05]"),
        click.option("--local-steps", type=int, help="localsgd: steps between two averages. [default: 8]"),
        click.option("--workers", type=int, help="localsgd: the number of workers. [default: 4]"),
        click.option("--clip-norm", type=float, help="clippedsgd: the largest norm of a gradient."),
        click.option("--clip-value", type=float, help="clippedsgd: the largest absolute value of a coordinate of a gradient."),
        click.option("--weight-decay", type=float, help="adamw, lion: decoupled weight decay. [default: 0.01; lion: 0]"),
        click.option("--second-moment", type=float, help="adam, adamw, rmsprop: the initial v. [default: 0]"),
        click.option(
            "--bias-correction/--no-bias-correction",
            default=None,
            help="adam, adamw, rmsprop: correct averages for their start at 0. [default: yes; rmsprop: no]",
        ),
        click.option(
            "--lagged/--current",
            default=None,
            help="adam, adamw, rmsprop: divide by the second moment before the gradient, or after it. [default: current]",
        ),
        click.option("--eps", type=float, help="adam, adamw, rmsprop: the number added to the root of v. [default: 1e-8]"),
        click.option(
            "--beta2",
            type=float,
            help="adam, adamw, rmsprop: the decay of v; lion: of m. [default: 0.999; rmsprop and lion: 0.99]",
        ),
    ):
        command = option(command)
    return command


def switches(names: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the switches (arguments such as beta2 and eps) of optimisers, a dict from the name of the argument to its value.

    A switch that is not given has the default of the first optimiser that takes it.

    Args:
        names: The names of the optimisers on the command line, such as ("adam", "rmsprop"); others, such as that of a limit, are skipped.
        options: Values of the options by name, None for one that is not given.

    Raises:
        click.UsageError: If an option is given that none of the optimisers takes.
    """
    import inspect

    import sdetools as st

    found: dict[str, Any] = {}
    for name in names:
        if name in RULES:
            defaults = inspect.signature(getattr(st, RULES[name].name)).parameters if RULES[name].switches else {}
            for switch in RULES[name].switches:
                given = options[OPTIONS.get(switch, switch)]
                found.setdefault(switch, defaults[switch].default if given is None else given)
    for switch in sorted({s for rule in RULES.values() for s in rule.switches} - set(found)):
        option = OPTIONS.get(switch, switch)
        if options[option] is not None:
            users = ", ".join(name for name, rule in RULES.items() if switch in rule.switches)
            raise click.UsageError(f"--{option.replace('_', '-')} is an option of {users}; got it for {' and '.join(names)}.")
    return found


def rule_of(name: str, oracle: Any, plan: Any, given: dict[str, Any]) -> Any:
    """Return the optimiser with a name of the command line, a `Dynamics` of `sdetools`.

    Args:
        name: The name of the optimiser on the command line.
        oracle: The noisy gradient oracle.
        plan: The schedule, with momentum; an optimiser without momentum runs on its averaged schedule.
        given: Values of switches by argument, from `switches`; those that the optimiser does not take are skipped.

    Raises:
        ValueError: If the optimiser refuses an argument.
    """
    import sdetools as st

    rule = RULES[name]
    own = {switch: given[switch] for switch in rule.switches if switch in given}
    return getattr(st, rule.name)(oracle, plan if rule.momentum else plan.averaged(), **own)
