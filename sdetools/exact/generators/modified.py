"""The modified equation of a rule: the SDE of a given weak order, derived from the formal logarithm of the rule's one-step generator.

If one step x -> x + D changes E f by M f, with M = sum_a E[D^a] / a! d^a over all multi-indices a, expanded in the time tau of a step, then

    tau A = log(1 + M) = M - M^2 / 2 + M^3 / 3 - ...

is the only formal generator with exp(tau A) = 1 + M. An SDE of weak order p exists if and only if all terms of A below tau^p are
derivatives of first order (the drift) and second order (half the covariance of the noise). A term of third or higher order has no SDE: a
skewness of the noise that remains in the limit, or a covariance that depends on coordinates which the same noise moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Dynamics
from sdetools.exact.generators.derived_sde import DerivedSDE, derived_sde
from sdetools.exact.generators.differential_ring import NotExpandable
from sdetools.exact.generators.formula_texts import formula_texts, formulas, readable, shown
from sdetools.exact.generators.generator_gaps import (
    EXAMINED,
    equivalent_sgd,
    grows,
    ring_of,
    second_moment_units,
    state_names,
    with_enough_atoms,
)
from sdetools.exact.generators.generator_result import Index, cut, derivative_text, operator_latex
from sdetools.exact.generators.one_step import MOST_COORDINATES, OneStep, expansion, idle_parts
from sdetools.exact.generators.scaled_numbers import ETAS, by_class, by_rates
from sdetools.results.saving import Saved

if TYPE_CHECKING:
    import xarray

LONGEST_SENTENCE = 400
"""Largest number of characters of the terms that a message quotes."""


@dataclass(frozen=True, eq=False, repr=False)
class StepGenerator(Saved):
    """The formal generator A of a rule, in powers of the time tau of a step; `exact.step_generator` makes it.

    tau is the `step_time` of the rule, which for `st.SGD` and `st.SGDM` is the plan's eta by default.

    A step x -> x' has E f(x') = exp(tau A) f (x) for smooth functions f, so that A = log(1 + M) / tau where a step changes E f by M f. `save` writes
    it to a file for `st.load`, with the coefficients as texts, which the parser of expressions reads.

    Attributes:
        rule: The name of the rule.
        names: The names of the coordinates of the state.
        weak_order: The order p up to which it is known: powers of tau below p.
        terms: For each power of tau with terms (a multiple of 1/2, a float) a dict from multi-indices a, the orders of the derivatives along each of
            `names`, to the coefficient of d^a, a SymPy expression in the coordinates.
    """

    rule: str
    names: tuple[str, ...]
    weak_order: int
    terms: Mapping[float, Mapping[Index, Any]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", {float(power): formulas(own, self.names) for power, own in self.terms.items()})

    def stored(self) -> dict[str, Any]:
        """Return the fields by name, with formulas as texts, as `save` writes them."""
        return super().stored() | {"terms": {power: formula_texts(own) for power, own in self.terms.items()}}

    @property
    def data(self) -> xarray.Dataset:
        """The terms as a dataset over (term, coordinate), by increasing powers of tau.

        `power` (term) has the powers of tau, `index` (term, coordinate) the orders of the derivatives, `coefficient` (term) the coefficients as texts.
        """
        import xarray

        rows = [(power, a, c) for power, own in self.terms.items() for a, c in own.items()]
        index = np.array([a for _, a, _ in rows], dtype=int).reshape(len(rows), len(self.names))
        variables: dict[str, Any] = {
            "power": ("term", np.array([power for power, _, _ in rows], dtype=float)),
            "index": (("term", "coordinate"), index),
            "coefficient": ("term", [str(c) for _, _, c in rows]),
        }
        attributes = {"rule": self.rule, "weak_order": self.weak_order}
        return xarray.Dataset(variables, {"coordinate": list(self.names)}, attributes)

    @property
    def obstruction(self) -> tuple[float, Mapping[Index, Any]] | None:
        """The first term that no SDE has: the lowest power of tau with derivatives of third or higher order, and these terms by multi-index.

        None if there is none, so that an SDE of this weak order exists.
        """
        for power, terms in self.terms.items():
            high = {a: c for a, c in terms.items() if sum(a) > 2}
            if high:
                return power, high
        return None

    @property
    def latex(self) -> str:
        """The generator A in LaTeX, a sum over powers of tau, without dollar signs."""
        rows = [rf"\tau^{{{power:g}}}\left[{operator_latex(terms, self.names)}\right]" for power, terms in self.terms.items()]
        return " + ".join(rows)

    def table(self) -> str:
        """Return a line for each term: the power of tau, the coefficient and the derivative; terms that no SDE has are marked."""
        rows = [("power of tau", "coefficient", "derivative")]
        for power, terms in self.terms.items():
            for a, c in terms.items():
                rows.append((f"{power:g}", shown(c), derivative_text(a, self.names) + ("  (no SDE)" if sum(a) > 2 else "")))
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        return "\n".join(f"{a:>{widths[0]}}  {b:>{widths[1]}}  {c}" for a, b, c in rows)

    def __repr__(self) -> str:
        return f"StepGenerator({self.rule}, below tau^{self.weak_order}, obstruction: {_obstruction_text(self) or 'none'})"


def _obstruction_text(found: StepGenerator) -> str:
    """Return the first obstruction as a text such as "tau^0.5 (1/3) d_x^3"; empty if there is none."""
    if found.obstruction is None:
        return ""
    power, terms = found.obstruction
    return cut(
        " + ".join(f"tau^{power:g} ({shown(c)}) {derivative_text(a, found.names)}" for a, c in terms.items()), LONGEST_SENTENCE
    )


def step_generator(
    rule: Dynamics | Callable[[float], Dynamics], weak_order: int = 2, *, kinetic: bool = False, sigma_power: float = 0.0
) -> StepGenerator:
    """Return the formal generator A of one step of an optimiser, in powers of the step's time tau below tau^weak_order.

    A is the differential operator with E f(x') = exp(tau A) f (x) for a step x -> x' and smooth functions f.

    Args:
        rule: An optimiser with constant coefficients, or a function of eta that returns one.
        weak_order: The order p, 1 to 4: an SDE of weak order p has the terms below tau^p.
        kinetic: Whether 1 - beta is proportional to tau, such that the momentum is a part of the state of the SDE. Otherwise beta is constant,
            and a rule with a buffer is replaced by its equivalent plain SGD, for weak_order=1 only. Not used for a function of eta.
        sigma_power: The power of tau to which sigma is proportional: 0 for constant sigma, -1/2 for sigma = eta^(-1/2). Not used for a function of eta.

    Raises:
        ValueError: If `weak_order` lies outside 1 to 4, or the rule has no such expansion; the message gives the reason in one sentence.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2", "x"), st.noise.centred_exponential(dim=1), sigma=0.25**-0.5)
        >>> print(st.exact.step_generator(st.SGD(oracle, st.schedules.constant(0.25)), weak_order=1, sigma_power=-0.5).table())
        power of tau  coefficient  derivative
                   0           -x  d_x
                   0          1/2  d_x^2
                 0.5         -1/3  d_x^3  (no SDE)
    """
    step, weak_order = _step(rule, weak_order, kinetic, sigma_power)
    return with_enough_atoms(lambda atoms: _logarithm(step, weak_order, atoms))


def _step(rule: Any, weak_order: int, kinetic: bool, sigma_power: float) -> tuple[OneStep, int]:
    """Return the rule, ready for an expansion, and the validated order; the arguments and errors are those of `step_generator`."""
    weak_order = _check.count("weak_order", weak_order)
    if weak_order > EXAMINED:
        raise ValueError(f"`weak_order` must be at most {EXAMINED}; got weak_order={weak_order}.")
    family = callable(rule) and not isinstance(rule, Dynamics)
    one = rule(ETAS[0]) if family else rule
    if not isinstance(one, Dynamics):
        raise ValueError(
            f"`rule` must be an optimiser, or a function of eta that returns one; got {one!r}. An integrator has its SDE."
        )
    if len(one.parts) > 1 and not kinetic and not family:
        if weak_order > 1:
            raise NotExpandable(
                f"the first steps of a buffer with constant beta have an effect of order tau, so an SDE of the position of {one.name} "
                "has weak_order=1; with 1 - beta proportional to the step, kinetic=True has higher orders."
            )
        one = equivalent_sgd(one)
    idle = idle_parts(one) if len(one.parts) > 1 else ()
    names = state_names(one, idle)
    if len(names) > MOST_COORDINATES:
        raise NotExpandable(
            f"a symbolic expansion must have at most {MOST_COORDINATES} coordinates; got {len(names)}. Take fewer."
        )
    numbers = by_rates(rule, None) if family else by_class(one, None, one.step_time, kinetic, sigma_power)
    if grows(one, numbers):
        numbers.units = second_moment_units(numbers, len(one.parts) - len(idle))
    return OneStep(one, numbers, names, False, idle), weak_order


def _logarithm(step: OneStep, weak_order: int, atoms: int) -> StepGenerator:
    """Return the generator below tau^weak_order, computed in a ring with `atoms` atoms (values of functions such as exp); TooFewAtoms if it needs more."""
    home = ring_of(step, atoms)
    largest = 2 * weak_order + 1
    moved = expansion(step, home, largest)
    found = moved.logarithm_of_one_plus()
    terms = {}
    for j in range(1, largest + 1):
        own = {a: readable(home.expression(p)) for a, p in found.at(j, moved).items()}
        if own and j < 2:
            raise NotExpandable(
                f"the mean of a step of {step.rule.name} must be proportional to its time; it is of order tau^(1/2)."
            )
        if own:
            terms[j / 2 - 1] = own
    return StepGenerator(step.rule.name, step.names, weak_order, terms)


def modified_equation(
    rule: Dynamics | Callable[[float], Dynamics],
    weak_order: int = 2,
    *,
    eta: float | None = None,
    kinetic: bool = False,
    sigma_power: float = 0.0,
) -> DerivedSDE:
    """Derive the SDE that approximates an optimiser with a given weak order, an `st.SDE` that can be simulated.

    For SGD with constant sigma it is dX = -grad(L + (eta/4) |grad L|^2) dt - sigma sqrt(eta) R dW at weak order 2, with R R^T = Sigma. The
    noise has the sign of the gradient's noise.

    Args:
        rule: An optimiser with constant coefficients, or a function of eta that returns one.
        weak_order: The order, 1 to 4.
        eta: The learning rate at which a function `rule` is called for the numbers of the equation; None for an optimiser.
        kinetic: Whether 1 - beta is proportional to the time of a step, such that the equation contains the momentum (sqrt(gamma) times the buffer
            for `st.HeavyBall`, with `step_time=gamma**0.5`). Otherwise beta is constant, and a rule with a buffer is replaced by its equivalent plain
            SGD, for weak_order=1 only. A second moment v of a library rule is in terms of v / sigma^2 if sigma grows. Not used for a function of eta.
        sigma_power: The power of the step's time to which sigma is proportional: 0 for constant sigma, -1/2 for sigma = eta^(-1/2). Not used for a
            function of eta.

    Raises:
        ValueError: If there is no such SDE; the message names the term of the rule's generator that no SDE has. Also if the rule has no
            expansion, the covariance of the noise no symbolic root, or `eta` is missing for a function or given for an optimiser.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2", "x"), st.noise.gaussian(dim=1))
        >>> print(st.exact.modified_equation(st.SGD(oracle, st.schedules.constant(0.1))).table())
        dx = (-eta*x/2 - x) dt + (-sqrt(eta)) dW0
        eta = 0.1, weak order 2
    """
    step, weak_order = _step(rule, weak_order, kinetic, sigma_power)
    found = with_enough_atoms(lambda atoms: _logarithm(step, weak_order, atoms))
    if found.obstruction is not None:
        raise NotExpandable(
            f"no SDE approximates {found.rule} with weak order {weak_order}: its generator contains {_obstruction_text(found)}, and that of an "
            "SDE has no derivatives of third or higher order."
        )
    one: Any = step.rule
    if callable(rule) and not isinstance(rule, Dynamics):
        if eta is None:
            raise ValueError(
                "`eta` must be given for a function of eta; got None. It is the rate of the numbers of the equation."
            )
        one = rule(_check.positive("eta", eta))
    elif eta is not None:
        raise ValueError("`eta` must be left out for an optimiser, which has its own; got both.")
    return with_enough_atoms(lambda atoms: derived_sde(step, one, found.terms, weak_order, ring_of(step, atoms)))
