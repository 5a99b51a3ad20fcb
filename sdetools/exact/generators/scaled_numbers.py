"""How the numbers of a rule and of an SDE depend on the time of a step as it tends to 0: as sums of powers of its root r.

A number is a dict from powers of r to coefficients: {2: 1.5} is 1.5 r^2, and {0: 1.0, 2: -3.0} is 1 - 3 r^2. The dependence follows from
the classes of rule and SDE at one step size, or, for functions of eta that make them, from their numbers at several eta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np

from sdetools.dynamics.base import Dynamics
from sdetools.dynamics.sdes.limits import HamiltonianSDE, OracleSDE
from sdetools.dynamics.sdes.sde import SDE
from sdetools.exact.generators.differential_ring import NeedsFinerRoot, NotExpandable
from sdetools.exact.generators.draw_laws import polynomial_oracle

Number = dict[int, float]
"""A number as a function of r: the coefficients by powers of r."""
ETAS = tuple(2.0**-k for k in range(4, 10))
"""Rates at which functions of eta are evaluated."""
EXPONENTS = sorted((Fraction(k, 4) for k in range(-16, 17)), key=lambda a: (a.denominator, abs(a), a < 0))
"""Powers of eta that are tried, the simplest first."""
AGREES = 1e-8
"""Relative error to which a number at all rates agrees with a sum of at most two powers; (1 - (1 - eta^2)) / eta^2 loses up to six digits."""
SIMPLE = 1e-11
"""Relative error, at the two largest rates, to which a coefficient is taken for a simple fraction."""


@dataclass
class ScaledNumbers:
    """The numbers of a rule and of an SDE as functions of r, the root of the step's time: dicts from powers of r to coefficients.

    Attributes:
        coefficients: The rule's coefficients, such as eta and beta, in their order.
        oracle: The `parameters` of the oracle with polynomial noise (`draw_laws.polynomial_oracle`), sigma first.
        equation: The SDE's `parameters`, in their order.
        signals: The numbers of the SDE that may depend on the time (`SDE.signals`), here constant; None if they are the time itself.
        units: For each part of the rule's state the factor by which it is multiplied to be a part of the equation's state; empty if all are 1.
    """

    coefficients: list[Number] = field(default_factory=list)
    oracle: list[Number] = field(default_factory=list)
    equation: list[Number] = field(default_factory=list)
    signals: list[Number] | None = None
    units: list[Number] = field(default_factory=list)


def constant_row(rule: Any) -> np.ndarray:
    """Return the coefficients of every step of a rule, `(coefficients,)`; NotExpandable if they change within the first 64 steps."""
    rows = np.asarray(rule.coefficient_values(64), dtype=float)
    if np.any(rows != rows[0]):
        raise NotExpandable(f"the coefficients of {rule.name} must be the same in every step; give a constant schedule.")
    return rows[0]


def constant_signals(sde: SDE, step_time: float) -> np.ndarray | None:
    """Return the signals of an SDE, the numbers in its formula that may depend on the time, `(signals,)`, if they are constant.

    None stands for an `st.SDE` whose formula contains the time t, its only signal; an SDE without signals has an empty array.

    Args:
        sde: The SDE.
        step_time: The time between two of the 64 times at which they are compared.

    Raises:
        NotExpandable: If signals of a schedule, such as lambda_t, change.
    """
    if type(sde).signal_values is SDE.signal_values:
        return None if sde.signals else np.zeros(0)
    rows = np.asarray(sde.signal_values(np.arange(64) * step_time, 0.0, step_time), dtype=float)
    if np.abs(rows - rows[0]).max(initial=0.0) > 1e-12 * np.abs(rows).max(initial=0.0):
        raise NotExpandable("the time-dependent numbers of the SDE must be constant; give a constant schedule.")
    return rows[0]


def by_class(rule: Any, sde: SDE | None, step_time: float, kinetic: bool, sigma_power: float) -> ScaledNumbers:
    """Return the numbers of a rule and an SDE as functions of the root r of the step's time, from those at one step size and the powers of their classes.

    eta and gamma are proportional to the time of a step (gamma to its square in a kinetic equation), 1 - beta is constant (in a kinetic
    equation proportional to it), sigma is proportional to its power `sigma_power`. In expressions of an SDE, the parameters `eta` and
    `tau` are proportional to it, and all other numbers are constant. The momentum of a kinetic equation of the heavy-ball form is sqrt(gamma) m.

    Args:
        rule: The rule, a `Dynamics`.
        sde: The SDE, or None.
        step_time: The time of one step.
        kinetic: Whether the state of the equation contains the momentum.
        sigma_power: The power of the step's time to which sigma is proportional, a multiple of 1/2.

    Raises:
        ValueError: If `sigma_power` is no multiple of 1/2.
        NotExpandable: If coefficients or numbers of the SDE change from step to step, or the class of the SDE does not say how they scale.
    """

    def scaled(value: float, power: float) -> Number:
        if (2 * power) % 1:
            raise ValueError(f"`sigma_power` must be a multiple of 1/2; got sigma_power={sigma_power!r}.")
        return {round(2 * power): float(value) / step_time**power}

    out = ScaledNumbers()
    heavy_ball = "eta" not in rule.coefficients  # gamma is then the learning rate
    rates = {"eta": 1, "gamma": 2 if kinetic else 1} if heavy_ball else {"eta": 1}
    for name, value in zip(rule.coefficients, constant_row(rule).tolist(), strict=True):
        if name == "beta" and kinetic:
            out.coefficients.append({0: 1.0, 2: -(1 - value) / step_time})
        else:
            out.coefficients.append(scaled(value, rates.get(name, 0)))
        if name == "gamma" and kinetic and heavy_ball:
            out.units = [{0: 1.0}, {2: math.sqrt(value) / step_time}]
    numbers = polynomial_oracle(rule.oracle)[0].parameters.tolist()
    out.oracle = [scaled(numbers[0], sigma_power), *(scaled(v, 0) for v in numbers[1:])]
    if sde is None:
        return out
    if isinstance(sde, HamiltonianSDE) or (isinstance(sde, OracleSDE) and len(sde.powers) != sde.own):
        raise NotExpandable(f"the scaling of {type(sde).__name__} must be given: write `rule` and `sde` as functions of eta.")
    if isinstance(sde, OracleSDE):
        powers = [*sde.powers, *[0.0] * (len(sde.parameters) - sde.own)]
        powers[0] += sigma_power
    else:
        powers = [1.0 if name in ("eta", "tau") else 0.0 for name in sde.parameter_names]
    out.equation = [scaled(v, a) for v, a in zip(sde.parameters.tolist(), powers, strict=True)]
    signals = constant_signals(sde, step_time)
    out.signals = None if signals is None else [scaled(v, 0) for v in signals.tolist()]
    return out


def of_equation(sde: SDE) -> ScaledNumbers:
    """Return the numbers of an SDE that does not depend on the step, as an integrator discretises it: `equation` and `signals`, all constant in the root r of its time."""
    signals = constant_signals(sde, 1.0)
    constant = [{0: float(v)} for v in sde.parameters]
    return ScaledNumbers(equation=constant, signals=None if signals is None else [{0: float(v)} for v in signals])


def by_rates(make_rule: Callable[[float], Dynamics], make_sde: Callable[[float], SDE] | None, unit: int = 2) -> ScaledNumbers:
    """Return the numbers in the formulas of a rule and an SDE, as functions of the root r of the step's time, from their values at the rates `ETAS`.

    The numbers are the rule's coefficients (such as eta and beta), the parameters of its oracle (such as sigma), and those of the SDE.

    Args:
        make_rule: The function from eta to the rule.
        make_sde: The function from eta to the SDE, or None for no SDE.
        unit: The power of r that is the time of a step.

    Raises:
        NotExpandable: If a number is no sum of at most two powers of eta (multiples of 1/4 from -4 to 4), or the time of a step no positive power.
        NeedsFinerRoot: If a power of eta is no whole power of r; a larger `unit` may do.
    """
    rules = [make_rule(eta) for eta in ETAS]
    equations = [make_sde(eta) for eta in ETAS] if make_sde is not None else []
    times = np.array([rule.step_time for rule in rules])
    clock = _powers("the time of a step", times)
    if len(clock) != 1 or next(iter(clock)) <= 0:
        raise NotExpandable("the time of a step must be proportional to a positive power of eta.")
    ((c, time),) = clock.items()

    def scaled(what: str, rows: Sequence[np.ndarray]) -> list[Number]:
        table = np.array(rows, dtype=float).reshape(len(ETAS), -1)
        return [_in_root(what, _powers(what, column), c, time, unit) for column in table.T]

    out = ScaledNumbers(
        scaled("a coefficient of the rule", [constant_row(rule) for rule in rules]),
        scaled("a number of the oracle", [polynomial_oracle(rule.oracle)[0].parameters for rule in rules]),
    )
    if equations and isinstance(equations[0], HamiltonianSDE):
        alpha = Fraction(equations[0].plan.alpha).limit_denominator(64)  # V = eta^((1 - alpha) / 2) m
        out.units = [{0: 1.0}, _in_root("the momentum", {(1 - alpha) / 2: 1.0}, c, time, unit)]
    if equations:
        out.equation = scaled("a number of the SDE", [sde.parameters for sde in equations])
        signals = [constant_signals(sde, float(t)) for sde, t in zip(equations, times)]
        out.signals = None if signals[0] is None else scaled("a signal of the SDE", signals)  # type: ignore[arg-type]
    return out


def _powers(what: str, values: np.ndarray) -> dict[Fraction, float]:
    """Return a number, given by its values at the rates `ETAS`, as a sum of at most two powers of eta: a dict from exponents to coefficients.

    The exponents are multiples of 1/4; a number that is 0 is {0: 0.0}. NotExpandable, with the name `what` of the number, if there is no such sum.
    """
    if not values.any():
        return {Fraction(0): 0.0}
    etas = np.array(ETAS)
    for count in (1, 2):
        for exponents in combinations(EXPONENTS, count):
            columns = etas[:, None] ** np.array(exponents, dtype=float)
            found = np.array([_tidy(v) for v in np.linalg.solve(columns[:count], values[:count])])
            if found.all() and np.all(np.abs(columns @ found - values) <= AGREES * np.abs(values)):
                return dict(zip(exponents, found.tolist(), strict=True))
    raise NotExpandable(f"{what} must be a sum of at most two powers of eta; its values at eta = 1/16, 1/32, ... are not.")


def _tidy(value: float) -> float:
    """Return the fraction with a denominator up to 10,000, or the square root of one, that a value is up to rounding; else the value."""
    if not np.isfinite(value):
        return value
    near = float(Fraction(value).limit_denominator(10_000))
    if abs(near - value) <= SIMPLE * abs(value):
        return near
    root = math.copysign(math.sqrt(Fraction(value * value).limit_denominator(10_000)), value)
    return root if abs(root - value) <= SIMPLE * abs(value) else value


def _in_root(what: str, powers: dict[Fraction, float], c: Fraction, time: float, unit: int) -> Number:
    """Return a sum of powers of eta as powers of r, where the time of a step is time eta^c = r^unit.

    Args:
        what: The name of the number, for the message of an error.
        powers: The coefficients by powers of eta.
        c: The power of eta in the time of a step.
        time: The factor of this power.
        unit: The power of r that is the time of a step.

    Raises:
        NeedsFinerRoot: If a power of eta is no whole power of r.
    """
    out: Number = {}
    for a, coefficient in powers.items():
        power = unit * a / c
        if power.denominator != 1:
            raise NeedsFinerRoot(f"{what} must be a series in the root of the step's time; got its power {a / c}.")
        out[int(power)] = coefficient / time ** float(a / c)
    return out
