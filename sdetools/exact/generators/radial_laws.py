r"""Gradients that are normalised or clipped by their norm, under normal noise of equal independent coordinates: moments in closed form.

For g ~ N(m, s^2 I) in d coordinates, H is g min(1, C/|g|) = psi g, or g/|g| = psi g / (2 s^2)^(1/2), with the factor psi of the length of g in
`radial_means`, where R_kn is the mean of psi^k in n coordinates. For a multi-index a of total order |a| = k Gauss' integration by parts gives, over 0
<= 2 b_i <= a_i,

    E prod_i g_i^(a_i) psi^k = sum_b prod_i [a_i! / ((a_i - 2 b_i)! b_i! 2^(b_i)) s^(2 b_i) m_i^(a_i - 2 b_i)] R_k,d+2(k-|b|).

In one coordinate these are the moments of a sign and of a clipping by value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from math import factorial, prod
from typing import Any

from sdetools.exact.generators.differential_ring import DifferentialRing, NotExpandable

ISOTROPIC = (
    "a normalised gradient, or one clipped by its norm, must have normal noise of constant, equal and uncorrelated coordinates, which no other part of the "
    "step shares, and at least as many draws as coordinates"
)


def isotropic_law(home: DifferentialRing, row: Sequence[Any], gaussian: Sequence[bool]) -> tuple[list[Any], Any, frozenset[int]]:
    """Return the law N(means, s^2 I) of a vector whose entries are polynomials that are affine in normal draws.

    Args:
        home: The `DifferentialRing` of the polynomials, which have the coordinates of the state and the draws of a step as variables.
        row: The entries of the vector, polynomials in coordinates and draws.
        gaussian: For each draw of the step's noise whether its law is normal.

    Returns:
        A tuple: the means, polynomials in the coordinates; s^2, a constant of the ring; and the numbers of the draws in the vector.

    Raises:
        NotExpandable: If the covariance is not s^2 I with a constant s^2, or a polynomial is not affine in normal draws.
    """
    slopes = [[p.diff(z) for z in home.z] for p in row]
    used = frozenset(k for own in slopes for k, c in enumerate(own) if c)
    none = [lambda k: home.zero] * len(home.z)
    means = [home.mean(p, none) for p in row]
    rest = [
        p - m - sum((c * z for c, z in zip(own, home.z, strict=True)), home.zero)
        for p, m, own in zip(row, means, slopes, strict=True)
    ]
    known = all(k < len(gaussian) and gaussian[k] for k in used)
    if not used or any(rest) or not known or any(home.has_draws(c) for own in slopes for c in own):
        raise NotExpandable(f"{ISOTROPIC}.")
    square = home.reduced(sum((c * c for c in slopes[0]), home.zero))
    for i, one in enumerate(slopes):
        for j, other in enumerate(slopes[: i + 1]):
            found = home.reduced(sum((a * b for a, b in zip(one, other, strict=True)), home.zero))
            if not home.vanishes(found - (square if i == j else home.zero)):
                raise NotExpandable(f"{ISOTROPIC}.")
    if not home.expression(square).is_number:
        raise NotExpandable(f"{ISOTROPIC}.")
    return means, square, used


def radial_moment(home: DifferentialRing, means: Sequence[Any], square: Any, limit: float) -> Callable[[tuple[int, ...]], Any]:
    """Return the function of the powers (a_1, ..., a_d) that gives E prod_i H_i^(a_i), a polynomial in the coordinates, for H of g ~ N(m, s^2 I).

    Args:
        home: The `DifferentialRing` of the coefficients, polynomials in the coordinates of the state and the draws of a step.
        means: The d means m_i of g, polynomials in the coordinates.
        square: s^2, a constant of the ring.
        limit: C for H = g min(1, C/|g|); 0 for H = g/|g|.
    """
    half = home.number(0.5)
    inverse = home.function("power", square, Fraction(-1))
    rho = home.reduced(sum((m * m for m in means), home.zero) * inverse * half)
    c = home.expression(home.reduced(home.number(limit) * home.number(limit) * inverse * half))
    dim = len(means)

    def moment(powers: tuple[int, ...]) -> Any:
        k, out = sum(powers), home.zero
        for pairs in product(*(range(a // 2 + 1) for a in powers)):
            count = prod(factorial(a) // (factorial(a - 2 * b) * factorial(b) * 2**b) for a, b in zip(powers, pairs, strict=True))
            term = home.number(count) * square ** sum(pairs)
            for m, a, b in zip(means, powers, pairs, strict=True):
                term = term * m ** (a - 2 * b)
            out = out + term * home.radial(k, dim + 2 * (k - sum(pairs)), c, rho)
        if not limit:
            out = out * home.function("power", 2 * square, Fraction(-k, 2))
        return home.reduced(out)

    return moment
