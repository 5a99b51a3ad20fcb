"""Which SDE a rule is, and how good: the expansions of both one-step generators in the step's time, compared term by term.

One step of a rule from x to x + D changes E f by sum_a E[D^a] / a! d^a f, with a over all multi-indices. An SDE with generator A changes it
by (exp(tau A) - 1) f = tau A f + tau^2 A^2 f / 2 + ... in the same time tau. The SDE has weak order p if both agree up to tau^p, and the
first difference, tau^(p+1) times the leading error operator Psi, gives the error itself:

    E f(x_k) - E f(X_t) = tau^p int_0^t E [(Psi u_(t-s))(X_s)] ds + o(tau^p),        u_s(x) = E[f(X_s) | X_0 = x],        t = k tau.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sdetools import _check
from sdetools.dynamics.base import Dynamics
from sdetools.dynamics.integrators.base import Integrator
from sdetools.dynamics.rules.optimisers import SGD, SGDM
from sdetools.dynamics.sdes.sde import SDE
from sdetools.exact.differential_ring import DifferentialRing, NotExpandable, TooFewAtoms
from sdetools.exact.generator_result import GeneratorGap, readable
from sdetools.exact.one_step import MOST_COORDINATES, OneStep, expansion, generator
from sdetools.exact.operators import Operator
from sdetools.exact.scaled_numbers import ETAS, ScaledNumbers, by_class, by_rates, of_equation

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
    the equation has the position alone, beta is constant: the rule is replaced by the plain SGD of its gain (`averaged()`), whose order is
    reported up to 1, since the buffer has an effect of order tau that is not derived. Any other scaling is given by two functions of eta,
    `rule` and `sde`, whose numbers are sums of at most two powers of eta.

    Drift, diffusion, loss and noise must be formulas (expressions, or functions that can be traced) without kinks, and the step a
    polynomial in its draws at every power of the root of tau. Noise that samples data counts as Gaussian up to its second moments.

    Args:
        rule: An optimiser with constant coefficients, an integrator, or a function of eta that returns an optimiser.
        sde: The equation, or a function of eta that returns it. In an expression the parameter `eta` is proportional to tau.
        weak_order: The largest order that is examined, 1 to 4: the generators are compared up to tau^(weak_order + 1).
        sigma_power: The power of tau to which sigma is proportional: 0 for constant sigma, -1/2 for sigma = eta^(-1/2).

    Raises:
        ValueError: If rule and equation do not fit, or have no expansion of this kind; the message gives the reason in one sentence.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2", "x"), st.noise.gaussian(dim=1))
        >>> sgd = st.SGD(oracle, st.schedules.constant(0.1))
        >>> generator_gap(sgd, st.ModifiedSDE(oracle, 0.1)).weak_order
        2.0
        >>> print(generator_gap(sgd, st.ModifiedSDE(oracle, 0.1, order=1)).table())
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
    """Return `compute(atoms)` for the first of 12, 24, ..., 384 atoms that are enough; NotExpandable if none is."""
    atoms = 12
    while atoms <= 384:
        try:
            return compute(atoms)
        except TooFewAtoms:
            atoms *= 2
    raise NotExpandable(
        "an expansion must have at most 384 different values of functions such as exp and 1/x. Simplify the formulas."
    )


class ExpandedPair:
    """A rule and an SDE on the same state, with their numbers as functions of r.

    Attributes:
        step: The rule.
        sde: The SDE.
        equation: Its numbers.
        gain: The gain of the linear filter that was replaced by plain SGD, or None.
        step_time: The time of a step of the rule as given.
    """

    def __init__(self, step: OneStep, sde: SDE, equation: ScaledNumbers, gain: float | None, step_time: float) -> None:
        self.step, self.sde, self.equation, self.gain, self.step_time = step, sde, equation, gain, step_time


def _pair(rule: Any, sde: Any, sigma_power: float) -> ExpandedPair:
    """Return the pair after validation; ValueError if rule and SDE do not fit."""
    functions = [callable(one) and not isinstance(one, (Dynamics, Integrator, SDE)) for one in (rule, sde)]
    if any(functions) and not all(functions):
        raise ValueError(
            "`rule` and `sde` must both be functions of eta, or neither; got one function. Write lambda eta: ... for both."
        )
    one, equation = (rule(ETAS[0]), sde(ETAS[0])) if all(functions) else (rule, sde)
    if not isinstance(one, (Dynamics, Integrator)) or not isinstance(equation, SDE):
        raise ValueError(f"`rule` and `sde` must be an optimiser or integrator and an SDE; got {one!r} and {equation!r}.")
    size, wanted = one.dim * len(one.parts), equation.dim * len(equation.parts)
    gain = None
    if size != wanted:
        if isinstance(one, Integrator) or wanted != one.dim or all(functions):
            raise ValueError(
                f"`sde` must have the {size} coordinates of the state of {one.name} ({', '.join(one.parts)}); got {wanted}. "
                "A linear filter with constant beta is compared with an SDE of its position alone."
            )
        one, gain = equivalent_sgd(one)
    if isinstance(one, Integrator):
        numbers, own = of_equation(one.sde), of_equation(equation)
    elif all(functions):
        numbers = own = by_rates(rule, sde)
    else:
        numbers = own = by_class(one, equation, one.step_time, len(one.parts) > 1, sigma_power)
    named = one if wanted != len(equation.names) else equation
    timed = own.signals is None or (isinstance(one, Integrator) and numbers.signals is None)
    names = state_names(named) + (("t",) if timed else ())
    if len(names) > MOST_COORDINATES:
        raise NotExpandable(
            f"a symbolic expansion must have at most {MOST_COORDINATES} coordinates; got {len(names)}. Take fewer."
        )
    return ExpandedPair(OneStep(one, numbers, names, timed), equation, own, gain, one.step_time)


def state_names(moving: Any) -> tuple[str, ...]:
    """Return names for all coordinates of the state of a rule or of an SDE: x and m, or x, y, m_x and m_y."""
    names, parts = tuple(moving.names), moving.parts
    if len(parts) == 1:
        return names
    others = [p if len(names) == 1 and p not in names else f"{p}_{name}" for p in parts[1:] for name in names]
    return names + tuple(others)


def equivalent_sgd(rule: Any) -> tuple[SGD, float]:
    """Return the plain SGD that is equivalent to a linear filter with constant coefficients, and the filter's gain per unit of eta.

    Raises:
        ValueError: If the rule has none.
    """
    plan = getattr(rule, "averaged", rule.plan.averaged if isinstance(rule, SGDM) else None)
    if plan is None or rule.extra_draws:
        raise NotExpandable(
            f"a rule with a buffer must be a linear filter of the gradients to be compared with an SDE of its position; {rule.name} is none."
        )
    averaged = plan()
    rate = float(averaged.etas(1)[0])
    return SGD(rule.oracle, averaged, step_time=rule.step_time), rate / float(rule.plan.etas(1)[0])


def _compared(pair: ExpandedPair, weak_order: int, atoms: int) -> GeneratorGap:
    """Return the comparison in a ring with a number of atoms."""
    home = ring_of(pair.step, atoms)
    most = 1 if pair.gain is not None else weak_order
    found: dict[Any, Any] = {}
    power, note = 2 * weak_order + 2, ""
    for largest, moved, difference in _differences(pair, home, weak_order):
        if isinstance(difference, NotExpandable):
            note, power = str(difference), largest
            break
        power, found = next(((j, c) for j in range(1, largest + 1) if (c := difference.at(j, moved))), (2 * weak_order + 2, {}))
        if found:
            break
    order = power / 2 - 1
    if pair.gain is not None and order >= most:
        order, found = float(most), {}
        note = "The buffer with constant beta has an effect of order tau that is not derived."
    elif not found and not note:
        order, note = float(weak_order), f"The generators agree up to tau^{weak_order + 1}: the weak order is above {weak_order}."
    home.largest = 2
    limit = generator(pair.sde, pair.equation, home, pair.step.timed, 2)
    return GeneratorGap(
        rule=pair.step.rule.name if pair.gain is None else f"the SGD equivalent to it, gain {pair.gain:g}",
        sde=repr(pair.sde),
        names=pair.step.names,
        weak_order=order,
        leading={a: readable(home.expression(p)) for a, p in found.items()},
        limit={a: readable(home.expression(p)) for a, p in limit.at(2).items()},
        step_time=pair.step_time,
        gain=pair.gain,
        note=note,
    )


def _differences(
    pair: ExpandedPair, home: DifferentialRing, weak_order: int
) -> Iterator[tuple[int, Operator | None, Operator | NotExpandable]]:
    """Yield the largest power of r, from 3 on, the rule's expansion up to it, and its difference from the SDE's, or why there is none."""
    for largest in range(3, 2 * weak_order + 3):
        try:
            moved = expansion(pair.step, home, largest)
        except NotExpandable as error:
            if largest == 3:
                raise
            yield largest, None, error
            return
        yield largest, moved, moved - generator(pair.sde, pair.equation, home, pair.step.timed, largest).exponential_minus_one()


def ring_of(step: OneStep, atoms: int) -> DifferentialRing:
    """Return a ring with the coordinates and draws of a rule."""
    from sdetools.losses.parser import symbol

    return DifferentialRing([symbol(name) for name in step.names], len(step.noise[1]), atoms)
