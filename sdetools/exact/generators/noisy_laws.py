r"""The laws of noisy numbers whose signs and clippings have smooth moments: normal, Student's, Cauchy's, and mixtures of these.

A number g = m + s u, with u of the distribution function F, has F((w - m)/s). Draws with finitely many values make its law a mixture: it is one of
the laws below for each of their values. For odd k, E sign(g)^k = 1 - 2 F(-m/s), which has as many derivatives in m as F has. Student's law with nu
degrees of freedom and variance s^2, and Cauchy's law (nu = 1, scale s), have with t = w - m, p = (nu + 1)/2 and q = (nu - 2) s^2 (Cauchy: s^2) the
density

    f = c Q^-p,      Q = 1 + t^2/q,      c = Gamma(p) / (Gamma(p - 1/2) (pi q)^(1/2)).

The antiderivatives J_j(p) of t^j Q^-p follow for integer nu from J_0(1) = q^(1/2) arctan(t/q^(1/2)) and J_0(1/2) = q^(1/2) arsinh(t/q^(1/2)) by

    J_0(p) = t Q^(1-p) / (2p-2) + (2p-3)/(2p-2) J_0(p-1),      J_1(p) = q Q^(1-p) / (2-2p)  (p = 1: (q/2) log Q),      J_j(p) = q (J_(j-2)(p-1) - J_(j-2)(p)).

A law with atoms, or a density with jumps, has moments with jumps or kinks, and no expansion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb, prod
from typing import Any

from sdetools.exact.generators.differential_ring import DifferentialRing, NotExpandable

MOST_COMPONENTS = 64
"""Largest number of components of a mixture."""
INDEPENDENT = (
    "a sign or a clipping must be of a single coordinate of the gradient, with noise that is independent of all others in the step, and normal, "
    "Student's or Cauchy's given its draws of finitely many values"
)
INSTEAD = "Take st.noise.gaussian or st.noise.student_t, or, for signs, the exact law of st.exact.sign_chain"
HALF = Fraction(1, 2)


@dataclass(frozen=True)
class NoisyNumber:
    """The law of g = mean + s u with a random u, one component of a mixture.

    Attributes:
        weight: The probability of the component.
        mean: The mean (of Cauchy's law, the median), a polynomial in the coordinates.
        square: s^2, a polynomial in the coordinates: the variance (of Cauchy's law, the squared scale).
        degrees: The law of u: 0 for the normal law of variance 1, 1 for Cauchy's law of scale 1, nu >= 3 for Student's law scaled to variance 1.
    """

    weight: Fraction | float
    mean: Any
    square: Any
    degrees: int = 0


def finite_values(name: str, numbers: Sequence[float]) -> list[tuple[Fraction | float, float]]:
    """Return the values of a draw with their probabilities, as pairs (probability, value); an empty list for a law with a density.

    Args:
        name: The name of the law, as in `draw_laws.law_moment`.
        numbers: The numbers of the law; for "two_point" the probability of the first value, and both values.
    """
    if name == "two_point":
        p, a, b = numbers
        return [(p, a), (1 - p, b)]
    third = 3**0.5
    known = {
        "rademacher": [(HALF, 1.0), (HALF, -1.0)],
        "three_point": [(Fraction(1, 6), -third), (Fraction(2, 3), 0.0), (Fraction(1, 6), third)],
    }
    return known.get(name, [])  # type: ignore[return-value]


def noisy_number(home: DifferentialRing, p: Any, laws: Sequence[tuple[str, Any]]) -> tuple[list[NoisyNumber], frozenset[int]]:
    """Return the law of a polynomial in the draws as a mixture, and the numbers of the draws in it.

    Args:
        home: The `DifferentialRing`, whose first draws have the laws `laws`.
        p: The polynomial in coordinates and draws.
        laws: The laws of the draws, pairs of a name and its numbers, as in `draw_laws.law_moment`.

    Raises:
        NotExpandable: If the law is none of those of this module; the message gives the reason.
    """
    used = frozenset(k for k in range(len(home.z)) if p.diff(home.z[k]))
    if not used or any(k >= len(laws) for k in used):
        raise NotExpandable(f"{INDEPENDENT}.")
    atoms = [k for k in sorted(used) if finite_values(*laws[k])]
    if prod(len(finite_values(*laws[k])) for k in atoms) > MOST_COMPONENTS:
        raise NotExpandable(f"the noise in a sign or a clipping must be a mixture of at most {MOST_COMPONENTS} laws.")
    out = []
    for weight, one in _given(home, p, [(k, finite_values(*laws[k])) for k in atoms]):
        slopes = {k: c for k in used if (c := one.diff(home.z[k]))}
        if not slopes:
            names = " and ".join(sorted({laws[k][0].replace("_", "-") for k in atoms}))
            raise NotExpandable(
                f"the noise in a sign or a clipping must have a density; the law of {names} noise has atoms, so that the mean of the step jumps or "
                f"has a kink where the gradient meets one. {INSTEAD}; with normal noise added to it, the law is a mixture."
            )
        mean = home.mean(one, [lambda k: home.zero] * len(home.z))
        if one - mean - sum((c * home.z[k] for k, c in slopes.items()), home.zero) or any(map(home.has_draws, slopes.values())):
            raise NotExpandable(f"{INDEPENDENT}.")
        out.append(_component(home, weight, mean, slopes, laws))
    return out, used


def _given(
    home: DifferentialRing, p: Any, atoms: Sequence[tuple[int, list[tuple[Fraction | float, float]]]]
) -> Iterator[tuple[Fraction | float, Any]]:
    """Yield (probability, polynomial) for all combinations of values of some draws, which take the place of the draws in the polynomial `p`.

    `atoms` has for each of these draws its number and its values, pairs (probability, value).
    """
    if not atoms:
        yield 1, p
        return
    (k, values), *rest = atoms
    for weight, value in values:
        for other, one in _given(home, p.compose(home.z[k], home.number(value)), rest):
            yield weight * other, home.reduced(one)


def _component(
    home: DifferentialRing, weight: Fraction | float, mean: Any, slopes: dict[int, Any], laws: Sequence[tuple[str, Any]]
) -> NoisyNumber:
    """Return the law of mean + sum_k slopes[k] z_k as a component of probability `weight`; NotExpandable if it is not normal, Student's or Cauchy's.

    `slopes` has polynomials in the coordinates by the numbers k of draws, and `laws` the laws of all draws.
    """
    square, names = sum((c * c for c in slopes.values()), home.zero), {laws[k][0] for k in slopes}
    index = {laws[k][1][0] for k in slopes if laws[k][0] == "alpha_stable"}
    if names == {"gaussian"}:
        return NoisyNumber(weight, mean, square)
    if names == {"alpha_stable"} and index == {2.0}:  # N(0, 2)
        return NoisyNumber(weight, mean, 2 * square)
    if sharp := sorted(names & {"uniform", "unit", "centred_exponential"}):
        raise NotExpandable(
            f"the noise in a sign or a clipping must have a smooth density; that of {sharp[0].replace('unit', 'uniform').replace('_', '-')} noise jumps, so that "
            f"the mean of the step, or its derivative, has a kink. {INSTEAD}."
        )
    if len(slopes) > 1:
        raise NotExpandable(f"{INDEPENDENT}; a sum of two draws of another law than the normal has no closed form here.")
    ((name, numbers),) = {laws[k] for k in slopes}
    if name == "alpha_stable":
        if numbers[0] == 1:
            return NoisyNumber(weight, mean, square, 1)
        raise NotExpandable(
            f"alpha-stable noise in a sign or a clipping must have alpha = 1 or 2, whose distribution functions have closed forms; got alpha = {numbers[0]:g}. "
            f"{INSTEAD} with law=scipy.stats.levy_stable(alpha, 0)."
        )
    if name == "student_t":
        nu = numbers[0] + 2
        if nu == round(nu):
            return NoisyNumber(weight, mean, square, round(nu))
        raise NotExpandable(
            f"Student's law in a sign or a clipping must have an integer number of degrees of freedom for a closed form; got {nu:g}. {INSTEAD}."
        )
    raise NotExpandable(f"{INDEPENDENT}; the law {name!r} is not known.")


def student_integral(home: DifferentialRing, q: Any, p: Fraction, j: int, t: Any) -> Any:
    """Return J_j(p), an antiderivative of t^j (1 + t^2/q)^-p at the polynomial t; J_0 is 0 at t = 0.

    Args:
        home: The `DifferentialRing` of the polynomials, which have the coordinates of the state and the draws of a step as variables.
        q: The square of the width, a polynomial in the coordinates.
        p: The exponent, a multiple of 1/2.
        j: The power of t, 0 or above.
        t: The upper end of the integral, a polynomial in the coordinates.

    Example:
        >>> import sympy
        >>> home = DifferentialRing([sympy.Symbol("x")], draws=0)
        >>> home.expression(student_integral(home, home.one, Fraction(3, 2), 0, home.x[0]))
        x/sqrt(x**2 + 1)
    """
    root = home.function("power", q, HALF) if q != home.one else home.one
    inverse = home.function("power", q, Fraction(-1))
    Q = home.reduced(home.one + t * t * inverse)

    def power(exponent: Fraction) -> Any:
        """Return Q^exponent for a multiple of 1/2, by one atom."""
        if exponent.denominator == 1 and exponent >= 0:
            return Q ** int(exponent)
        if exponent.denominator == 1:
            return home.function("power", Q, Fraction(-1)) ** int(-exponent)
        own = home.function("power", Q, -HALF)
        return own ** int(-2 * exponent) if exponent < 0 else own * Q ** int(exponent + HALF)

    def integral(p: Fraction, j: int) -> Any:
        if j >= 2:
            return q * (integral(p - 1, j - 2) - integral(p, j - 2))
        if j == 1:
            return q * home.function("log", Q) * home.number(HALF) if p == 1 else q * power(1 - p) * home.number(1 / (2 - 2 * p))
        if p > 1:
            return (t * power(1 - p) + (2 * p - 3) * integral(p - 1, 0)) * home.number(1 / (2 * p - 2))
        if p in (HALF, 1):
            scaled = home.reduced(t * root * inverse)
            return root * (home.function("arctan", scaled) if p == 1 else home.function("log", scaled + power(HALF)))
        return (2 * p * (integral(p + 1, 0) if p else home.zero) - t * power(-p)) * home.number(1 / (2 * p - 1))

    return home.reduced(integral(p, j))


def student_moment(home: DifferentialRing, one: NoisyNumber, bounds: tuple[float, ...]) -> Callable[[int], Any]:
    """Return the function of k >= 1 that gives E sign(g)^k or E clip(g)^k, a polynomial in the coordinates, for Student's or Cauchy's law.

    Args:
        home: The `DifferentialRing` of the polynomials, which have the coordinates of the state and the draws of a step as variables.
        one: The law of g, with `degrees` of 1 or above.
        bounds: The pair (low, high) of clip(g) = min(max(g, low), high); empty for sign(g).

    Example:
        >>> import sympy
        >>> home = DifferentialRing([sympy.Symbol("x")], draws=0)
        >>> cauchy = NoisyNumber(1, home.x[0], home.one, 1)
        >>> home.expression(student_moment(home, cauchy, ())(1))
        2*atan(x)/pi
    """
    p = Fraction(one.degrees + 1, 2)
    q = home.reduced(one.square * max(one.degrees - 2, 1))
    # Gamma(p) / (Gamma(p - 1/2) sqrt(pi)) is rational, or a rational number over pi
    factor = prod((Fraction(2 * i, 2 * i - 1) for i in range(1, int(p))), start=Fraction(1))
    if p.denominator == 1:
        c = home.number(factor) * home.power_of_pi(Fraction(-1))
    else:  # Gamma(i + 1/2) / (Gamma(i) sqrt(pi)), i = p - 1/2
        c = home.number(HALF * prod((Fraction(2 * i + 1, 2 * i) for i in range(1, int(p))), start=Fraction(1)))
    c = c * home.function("power", q, -HALF)

    def J(j: int, t: Any) -> Any:
        return c * student_integral(home, q, p, j, t)

    if not bounds:
        return lambda k: home.one if k % 2 == 0 else home.reduced(2 * J(0, one.mean))
    low, high = (home.number(b) for b in bounds)

    def moment(k: int) -> Any:
        tails = low**k * (home.number(HALF) + J(0, low - one.mean)) + high**k * (home.number(HALF) - J(0, high - one.mean))
        inside = sum(
            (comb(k, j) * one.mean ** (k - j) * (J(j, high - one.mean) - J(j, low - one.mean)) for j in range(k + 1)), home.zero
        )
        return home.reduced(tails + inside)

    return moment
