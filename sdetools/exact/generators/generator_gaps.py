"""Which SDE a rule is, and how good: the expansions of both one-step generators in the step's time, compared term by term.

One step of a rule from x to x + D changes E f by sum_a E[D^a] / a! d^a f, with a over all multi-indices. An SDE with generator A changes it
by (exp(tau A) - 1) f = tau A f + tau^2 A^2 f / 2 + ... in the same time tau. The SDE has weak order p if both agree up to tau^p, and the
first difference, tau^(p+1) times the leading error operator Psi, gives the error itself:

    E f(x_k) - E f(X_t) = tau^p int_0^t E [(Psi u_(t-s))(X_s)] ds + o(tau^p),        u_s(x) = E[f(X_s) | X_0 = x],        t = k tau.

Expansions are in powers of r, tau = r^unit, with coefficients in a ring (`differential_ring`): polynomials in the coordinates of the state, the draws
of a step, and atoms, values of functions such as exp(x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from sdetools import _check
from sdetools.dynamics.base import Dynamics
from sdetools.dynamics.integrators.base import Integrator
from sdetools.dynamics.rules.optimisers import SGD, SGDM
from sdetools.dynamics.rules.second_moment import SecondMoment
from sdetools.dynamics.rules.several_gradients import LocalSGD
from sdetools.dynamics.sdes.adaptive_limits import RMSPropSDE
from sdetools.dynamics.sdes.limits import HamiltonianSDE
from sdetools.dynamics.sdes.sde import SDE
from sdetools.dynamics.sdes.slow import SlowSDE
from sdetools.exact.generators.differential_ring import DifferentialRing, NeedsFinerRoot, NotExpandable, TooFewAtoms
from sdetools.exact.generators.fast_buffers import slow_motion
from sdetools.exact.generators.formula_texts import readable
from sdetools.exact.generators.generator_result import GeneratorGap
from sdetools.exact.generators.one_step import MOST_COORDINATES, OneStep, expansion, generator, idle_parts
from sdetools.exact.generators.operators import Operator
from sdetools.exact.generators.scaled_numbers import ETAS, Number, ScaledNumbers, by_class, by_rates, constant_row, of_equation
from sdetools.exact.generators.worker_rounds import WorkerRound, worker_of
from sdetools.exact.linear import open_step
from sdetools.schedules import from_arrays

UNITS = (2, 3, 4, 5, 6, 7, 8, 10, 12)
"""Roots of the step's time that are tried: momentum with 1 - beta = eta^alpha, alpha > 1, has the clock eta^((1 + alpha)/2)."""
EXAMINED = 4
"""Largest weak order that is examined."""


def generator_gap(
    rule: Dynamics | Integrator | Callable[[float], Dynamics],
    sde: SDE | Callable[[float], SDE],
    weak_order: int = 2,
    *,
    sigma_power: float = 0.0,
) -> GeneratorGap:
    """Return the weak order of a rule with respect to an SDE, derived from their generators, and the leading error operator.

    The step tends to 0 with everything else scaled as follows. For an integrator the SDE is fixed. For an optimiser eta is proportional to
    the time tau of a step, and sigma to tau^`sigma_power`. The momentum: if the equation has as many coordinates as the rule (x and m),
    1 - beta is proportional to tau (for `st.HeavyBall`, gamma to tau^2, with `step_time=gamma**0.5`), and the whole state is compared. If
    the equation has the position alone, beta is constant: the rule must be a linear filter of the gradients whose buffers start at 0, and
    the motion of its position after the first few steps is compared (`exact.generators.fast_buffers`), up to order 1. Any other scaling is given by
    two functions of eta, `rule` and `sde`, whose numbers are sums of at most two powers of eta, such as 1 - beta = eta^(1/2). Parts of a
    state that no step reads are left out. `st.LocalSGD` is compared by rounds, at whose ends its K workers meet, with an SDE of its position, such as
    `st.LimitSDE` of SGD with sigma / K^(1/2); the leading error is that of a round over the number of its steps. The average v of squared gradients of
    `st.RMSProp` and `st.Adam` enters as v / sigma^2 where sigma grows. For `st.HamiltonianSDE` the momentum m of `st.SGDM`, 1 - beta ~ eta^alpha, enters
    as that SDE's velocity V = eta^((1 - alpha)/2) m, and the order is (alpha - 1)/(alpha + 1).

    Drift, diffusion, loss and noise must be formulas (expressions, or functions that can be traced) without kinks, and the step a
    polynomial in its draws at every power of the root of tau, or in signs and clippings of single coordinates of a gradient, as in `st.SignSGD`,
    whose noise is normal, Student's (of an integer number of degrees), Cauchy's or a mixture (`exact.generators.noisy_laws`), or in a gradient that
    is normalised or clipped by its norm, under normal noise of equal coordinates (`exact.generators.radial_laws`). Noise that samples data counts as
    Gaussian up to its second moments.

    Args:
        rule: An optimiser with constant coefficients, an integrator, or a function of eta that returns an optimiser.
        sde: The equation, or a function of eta that returns it. In an expression the parameter `eta` is proportional to tau.
        weak_order: The largest order that is examined, 1 to 4: the generators are compared up to tau^(weak_order + 1).
        sigma_power: The power of tau to which sigma is proportional: 0 for constant sigma, -1/2 for sigma = eta^(-1/2). Not used for functions of eta.

    Raises:
        ValueError: If rule and equation do not fit, or have no expansion of this kind; the message gives the reason in one sentence.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2", "x"), st.noise.gaussian(dim=1))
        >>> sgd = st.SGD(oracle, st.schedules.constant(0.1))
        >>> st.exact.generator_gap(sgd, st.ModifiedSDE(oracle, 0.1)).weak_order
        2.0
        >>> print(st.exact.generator_gap(sgd, st.ModifiedSDE(oracle, 0.1, order=1)).table())
        weak order 1, leading error tau^2 times
        coefficient  derivative
               -x/2  d_x
    """
    weak_order = _check.count("weak_order", weak_order)
    if weak_order > EXAMINED:
        raise ValueError(
            f"`weak_order` must be at most {EXAMINED}; got weak_order={weak_order}. No scheme of the library is better."
        )
    pair = _pair(rule, sde, sigma_power)
    return with_enough_atoms(lambda atoms: _compared(pair, weak_order, atoms))


def with_enough_atoms(compute: Callable[[int], Any]) -> Any:
    """Return `compute(atoms)` for the first of 12, 24, ..., 384 atoms of a ring with which it does not raise TooFewAtoms; NotExpandable if none is enough."""
    atoms = 12
    while atoms <= 384:
        try:
            return compute(atoms)
        except TooFewAtoms:
            atoms *= 2
    raise NotExpandable(
        "an expansion must have at most 384 different values of functions such as exp and 1/x. Simplify the formulas."
    )


@dataclass(frozen=True)
class ExpandedPair:
    """A rule and an SDE, with their numbers as functions of r, the root of the time tau of a step.

    Attributes:
        step: The rule and its numbers.
        sde: The SDE.
        equation: The numbers of the SDE.
        filter: Whether the SDE has the position alone and the rule buffers besides.
        finer: For functions of eta, the function from `unit` to the numbers in that root r of tau; else None.
        unit: The power of r that is the time of a step, tau = r^unit.
        rounds: The number H of local steps if `step` is a round of local SGD, else 1; the SDE runs for the time rounds * tau in it.
        title: The name of the rule, where it is not that of `step`; else empty.
    """

    step: OneStep
    sde: SDE
    equation: ScaledNumbers
    filter: bool
    finer: Callable[[int], ScaledNumbers] | None = None
    unit: int = 2
    rounds: int = 1
    title: str = ""


def _pair(rule: Any, sde: Any, sigma_power: float) -> ExpandedPair:
    """Return the pair after validation, from the arguments of `generator_gap`; ValueError if rule and SDE do not fit."""
    functions = [callable(one) and not isinstance(one, (Dynamics, Integrator, SDE)) for one in (rule, sde)]
    if any(functions) and not all(functions):
        raise ValueError(
            "`rule` and `sde` must both be functions of eta, or neither; got one function. Write lambda eta: ... for both."
        )
    one, equation = (rule(ETAS[0]), sde(ETAS[0])) if all(functions) else (rule, sde)
    if not isinstance(one, (Dynamics, Integrator)) or not isinstance(equation, SDE):
        raise ValueError(f"`rule` and `sde` must be an optimiser or integrator and an SDE; got {one!r} and {equation!r}.")
    _check_pair(one, equation)
    if isinstance(one, LocalSGD) and not any(functions):
        return _round_pair(one, equation, sigma_power)
    size, wanted = one.dim * len(one.parts), equation.dim * len(equation.parts)
    idle = idle_parts(one) if size != wanted and isinstance(one, Dynamics) and wanted > one.dim else ()
    size -= one.dim * len(idle)
    if size != wanted:
        if isinstance(one, Integrator) or wanted != one.dim:
            raise ValueError(
                f"`sde` must have the {size} coordinates of the state of {one.name} ({', '.join(one.parts)}); got {wanted}. "
                "A linear filter with constant beta is compared with an SDE of its position alone."
            )
        check_filter(one)
    unit = 2
    if isinstance(one, Integrator):
        numbers, own = of_equation(one.sde), of_equation(equation)
    elif all(functions):
        unit, numbers = _coarsest(partial(by_rates, rule, sde), UNITS if size == wanted else (8,))
        own = numbers
    else:
        numbers = own = by_class(one, equation, one.step_time, size == wanted and len(one.parts) > 1, sigma_power)
    if isinstance(equation, RMSPropSDE) or grows(one, numbers):
        numbers.units = second_moment_units(numbers, len(equation.parts))
    named = equation if wanted == len(equation.names) or idle or isinstance(equation, RMSPropSDE) else one
    timed = own.signals is None or (isinstance(one, Integrator) and numbers.signals is None)
    names = state_names(named) + (("t",) if timed else ())
    if len(names) > MOST_COORDINATES:
        raise NotExpandable(
            f"a symbolic expansion must have at most {MOST_COORDINATES} coordinates; got {len(names)}. Take fewer."
        )
    finer = partial(by_rates, rule, sde) if all(functions) else None
    return ExpandedPair(OneStep(one, numbers, names, timed, idle), equation, own, size != wanted, finer, unit)


def _round_pair(rule: LocalSGD, equation: SDE, sigma_power: float) -> ExpandedPair:
    """Return a round of local SGD and an SDE of its position; NotExpandable if the SDE has more coordinates or depends on the time."""
    if len(equation.names) * len(equation.parts) != rule.dim:
        raise NotExpandable(
            f"`sde` must have the {rule.dim} coordinates of the position for LocalSGD, whose workers meet; got {len(equation.names) * len(equation.parts)}."
        )
    if rule.dim > MOST_COORDINATES:
        raise NotExpandable(f"a symbolic expansion must have at most {MOST_COORDINATES} coordinates; got {rule.dim}. Take fewer.")
    worker = worker_of(rule)
    numbers = by_class(worker, equation, rule.step_time, False, sigma_power)
    if numbers.signals is None:
        raise NotExpandable("`sde` must have coefficients that are constant in time for LocalSGD, which is compared by rounds.")
    step = WorkerRound(worker, numbers, state_names(worker), False, workers=rule.workers, local_steps=rule.local_steps)
    return ExpandedPair(step, equation, numbers, False, rounds=rule.local_steps, title=rule.name)


def _check_pair(one: Any, equation: SDE) -> None:
    """Raise NotExpandable for an SDE that no step of the rule or integrator `one` approximates, such as a slow SDE for an optimiser."""
    if isinstance(equation, SlowSDE) and not isinstance(one, Integrator):
        raise NotExpandable(
            f"a step of {one.name} must approach one of the equation as eta tends to 0; st.{type(equation).__name__} describes the projection Phi(x) onto "
            "the minimisers after 1/eta^2 steps, while x moves by order eta sigma in each of them. Measure it with st.slow_study."
        )
    if isinstance(equation, HamiltonianSDE) and type(one) is not SGDM and not isinstance(one, Integrator):
        raise NotExpandable(
            f"st.HamiltonianSDE must be compared with st.SGDM, whose momentum is eta^((alpha - 1)/2) V; got {one.name}. Compare any other rule with a "
            "st.SDE of your own."
        )


def _coarsest(numbers: Callable[[int], ScaledNumbers], units: Sequence[int]) -> tuple[int, ScaledNumbers]:
    """Return the first of `units` for which all numbers are whole powers of r, r^unit = tau, and `numbers(unit)`; NeedsFinerRoot if there is none."""
    for unit in units:
        try:
            return unit, numbers(unit)
        except NeedsFinerRoot:
            if unit == units[-1]:
                raise
    raise AssertionError("there is a unit")


def grows(rule: Any, numbers: ScaledNumbers) -> bool:
    """Return whether a rule has a running average v of squared gradients, and sigma grows by its `numbers` as the step tends to 0."""
    return isinstance(rule, SecondMoment) and 0 not in numbers.oracle[0]


def second_moment_units(numbers: ScaledNumbers, parts: int) -> list[Number]:
    """Return the factors of the parts of a rule's state that put u = v / sigma^2 in the place of the last part, the average v of squared gradients.

    Args:
        numbers: The numbers of the rule, of which sigma is used.
        parts: The number of parts of the state.

    Returns:
        A factor for each part, a dict from powers of the root r of the step's time to coefficients; 1 for all but the last.
    """
    ((power, sigma),) = numbers.oracle[0].items()
    return [{0: 1.0}] * (parts - 1) + [{-2 * power: sigma**-2}]


def state_names(moving: Any, idle: Sequence[str] = ()) -> tuple[str, ...]:
    """Return names for all coordinates of the state of a rule or of an SDE, `moving`, one part after another without those in `idle`.

    They are, for example, x and m in one dimension, and x, y, m_x and m_y in two.
    """
    names, parts = tuple(moving.names), [part for part in moving.parts if part not in idle]
    if len(parts) == 1:
        return names
    others = [p if len(names) == 1 and p not in names else f"{p}_{name}" for p in parts[1:] for name in names]
    return names + tuple(others)


def check_filter(rule: Dynamics) -> None:
    """Raise NotExpandable (a ValueError) unless a rule is a linear filter of the gradients with constant coefficients whose buffers start at 0 (or at x0).

    A linear filter is a rule whose new state is linear in the state and in its gradients.
    """
    if rule.extra_draws or rule.copies > 1:
        raise NotExpandable(f"a rule must have no draws besides those of one gradient; {rule.name} has.")
    try:
        open_step(rule.rule, [rule.dim] * len(rule.parts), rule.dim, constant_row(rule))
    except (ValueError, TypeError) as error:
        raise NotExpandable(
            f"a rule with a buffer must be a linear filter of the gradients with constant coefficients to be compared with an SDE of its "
            f"position; {rule.name} is none ({error})"
        ) from error
    if rule.momentum_root is not None or rule.momentum_mean.any():
        raise NotExpandable("the buffers of a linear filter must start at 0 here; leave out `momentum`.")


def equivalent_sgd(rule: Dynamics) -> SGD:
    """Return the plain SGD that moves, for small steps, as the position of a linear filter with constant coefficients; ValueError if the rule is none."""
    check_filter(rule)
    step = OneStep(rule, by_class(rule, None, rule.step_time, False, 0.0), tuple(rule.names), False)
    rate = with_enough_atoms(lambda atoms: slow_motion(step, filter_ring(step, atoms)).rate) * rule.step_time
    return SGD(rule.oracle, from_arrays(float(f"{rate:.14g}"), 0.0, base=rule.step_time), step_time=rule.step_time)


def _compared(pair: ExpandedPair, weak_order: int, atoms: int) -> GeneratorGap:
    """Return the comparison up to tau^(weak_order + 1), in a ring with `atoms` atoms; TooFewAtoms if it needs more."""
    if pair.filter:
        return _compared_filter(pair, atoms)
    home, power, note = ring_of(pair.step, atoms), pair.unit * (weak_order + 1), ""
    home.unit = pair.unit
    found: dict[Any, Any] = {}
    for largest, moved, difference in _differences(pair, home, weak_order):
        if isinstance(difference, NotExpandable):
            note, power = str(difference), largest
            break
        power, found = next(
            ((j, c) for j in range(1, largest + 1) if (c := difference.at(j, moved))), (home.unit * (weak_order + 1), {})
        )
        if found:
            break
    if not found and not note:
        note = f"The generators agree up to tau^{weak_order + 1}: the weak order is above {weak_order}."
    found = {a: p * home.number(Fraction(1, pair.rounds)) for a, p in found.items()}
    return _result(pair, home, power, found, {}, None, note)


def _compared_filter(pair: ExpandedPair, atoms: int) -> GeneratorGap:
    """Return the comparison of the position of a linear filter, in the first root of the step's time that is fine enough, with `atoms` atoms."""
    for unit in (2, 4, 8):
        try:
            numbers = pair.step.numbers if pair.finer is None else pair.finer(unit)
            now = replace(pair, step=replace(pair.step, numbers=numbers), equation=numbers)
            home = filter_ring(now.step, atoms)
            home.unit = unit
            slow = slow_motion(now.step, home)
            break
        except NeedsFinerRoot:
            if unit == 8 or pair.finer is None:
                raise
    rule, most = pair.step.rule, 2 * unit - slow.memory
    difference = slow.motion - _semigroup(now, home, most)
    for power in range(1, most + 1):
        found, terminal = difference.at(power, slow.motion), slow.terminal.at(power - unit, slow.motion)
        if found or terminal:
            break
    note = "" if found or terminal else f"The weak order is above {(most - unit) / unit:g}."
    gain = float(f"{slow.rate * rule.step_time / float(rule.plan.etas(1)[0]):.12g}")  # type: ignore[union-attr]
    return _result(now, home, power, found, terminal, gain, note)


def _result(
    pair: ExpandedPair, home: DifferentialRing, power: int, found: Any, terminal: Any, gain: float | None, note: str
) -> GeneratorGap:
    """Return the result from the leading error at r^power, `found`, and the terminal operator, `terminal`, polynomials of the ring by multi-index."""
    step, size = pair.step, len(pair.step.names)
    home.largest = home.unit
    limit = generator(pair.sde, pair.equation, home, step.timed, home.unit).at(home.unit)
    leading, last, slowest = (
        {a[:size]: readable(home.expression(p)) for a, p in terms.items()} for terms in (found, terminal, limit)
    )
    order = float(Fraction(power, home.unit) - 1)
    return GeneratorGap(
        pair.title or step.rule.name, repr(pair.sde), step.names, order, leading, slowest, step.rule.step_time, gain, last, note
    )


def _semigroup(pair: ExpandedPair, home: DifferentialRing, largest: int) -> Operator:
    """Return exp(t A) - 1 of the SDE up to r^largest, with t the time of the pair's step: tau, or `rounds` tau for a round."""
    return (
        generator(pair.sde, pair.equation, home, pair.step.timed, largest).scaled(Fraction(pair.rounds)).exponential_minus_one()
    )


def filter_ring(step: OneStep, atoms: int) -> DifferentialRing:
    """Return a ring for `fast_buffers`: the position's coordinates, one for each buffer and coordinate, the draws of a step, and `atoms` atoms."""
    from sdetools.losses.parser import symbol

    buffers = [f"buffer{i}_{k}" for i in range(1, len(step.rule.parts)) for k in range(step.rule.dim)]
    return DifferentialRing([symbol(name) for name in (*step.names, *buffers)], len(step.noise[1]), atoms)


def _differences(
    pair: ExpandedPair, home: DifferentialRing, weak_order: int
) -> Iterator[tuple[int, Operator | None, Operator | NotExpandable]]:
    """Yield (power, expansion, difference) for the powers of r above the time of a step up to tau^(weak_order + 1).

    The expansion of the rule, and its difference from that of the SDE, are operators up to this power. Where the rule has no expansion beyond the first
    of these powers, the last tuple is (power, None, the error that says why).
    """
    for largest in range(home.unit + 1, home.unit * (weak_order + 1) + 1):
        try:
            moved = expansion(pair.step, home, largest)
        except NotExpandable as error:
            if largest == home.unit + 1:
                raise
            yield largest, None, error
            return
        yield largest, moved, moved - _semigroup(pair, home, largest)


def ring_of(step: OneStep, atoms: int) -> DifferentialRing:
    """Return a ring with the coordinates of a rule, the draws of its step, further ones for signs and clippings, and `atoms` atoms."""
    from sdetools.losses.parser import symbol

    return DifferentialRing([symbol(name) for name in step.names], len(step.noise[1]) + step.kinked, atoms)
