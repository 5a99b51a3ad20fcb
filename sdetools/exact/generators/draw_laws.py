"""The laws of the draws of a step: noises as polynomials in independent draws, and the moments of these.

The law of a draw is a pair of a name and a tuple of its numbers, as `law_moment` takes them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from sdetools.exact.generators.differential_ring import NotExpandable
from sdetools.noise.base import Noise, Normal, Sign, Uniform
from sdetools.noise.custom import FunctionNoise
from sdetools.noise.laws import NORMAL, NoNoise, RootedNoise
from sdetools.noise.oracle import NoisyOracle, SVAGNoise


def polynomial_oracle(oracle: NoisyOracle) -> tuple[NoisyOracle, list[tuple[str, Any]], bool]:
    """Return a copy of an oracle whose noise is a polynomial in its draws, the laws of these, and whether the law of the noise is still the same.

    The noise is that of `polynomial_noise`; a law is a pair of a name and its numbers, in the order of the draws. The `parameters` of the copy are sigma,
    then those of loss and new noise.
    """
    noise, laws, exact = polynomial_noise(oracle.noise)
    out = copy.copy(oracle)
    out.noise = noise
    return out, laws, exact


def polynomial_noise(noise: Noise) -> tuple[Noise, list[tuple[str, Any]], bool]:
    """Return a noise whose value is a polynomial in its draws, the laws of these draws, and whether the law of the noise is the same.

    The draws of noises R(x) u become the entries of u themselves. A function of x and draws is returned as it is, a polynomial or not; whether it is one shows
    in the expansion. Any other noise, such as one that samples data, becomes Gaussian noise of the same covariance, and the last result is then False.

    Returns:
        A tuple: the noise; for each of its draws the law, a pair of a name and its numbers; and whether the law of the noise is that of `noise`.
    """
    if isinstance(noise, RootedNoise):
        return RootedNoise(NORMAL, noise.root), [(noise.law.name, noise.law.numbers)] * noise.root.rank, True
    if isinstance(noise, SVAGNoise):
        inner, laws, exact = polynomial_noise(noise.inner)
        twin = copy.copy(noise)
        twin.inner, twin.draws = inner, inner.draws + inner.draws
        twin.parameters = np.concatenate([noise.weights, inner.parameters])
        return twin, laws + laws, exact
    if isinstance(noise, (NoNoise, FunctionNoise)):
        names = {Normal: "gaussian", Sign: "rademacher", Uniform: "unit"}
        return noise, [(names[type(d)], ()) for d in noise.draws for _ in range(d.n)], True
    if noise.gaussian and all(isinstance(d, Normal) for d in noise.draws):
        return noise, [("gaussian", ())] * noise.n_draws, True
    return noise.as_gaussian(), [("gaussian", ())] * noise.as_gaussian().n_draws, False


def law_moment(name: str, numbers: Sequence[float], k: int) -> Fraction | float:
    """Return E u^k for a random number u of a given law, a fraction if it is known as one.

    Args:
        name: "gaussian", "rademacher" (-1 or 1), "uniform" (on (-sqrt 3, sqrt 3)), "unit" (uniform on (0, 1)), "three_point" (-sqrt 3, 0, sqrt 3),
            "centred_exponential", "two_point" or "student_t" (of variance 1), most of them names of `noise.laws`.
        numbers: The numbers of the law: (p, a, b) for a with probability p, else b, of "two_point"; nu - 2 first for nu degrees of freedom of
            "student_t"; else none.
        k: The order, at least 1.

    Raises:
        NotExpandable: If the moment does not exist, or the law is unknown.

    Example:
        >>> [law_moment("gaussian", (), k) for k in (2, 3, 4)], law_moment("centred_exponential", (), 3)
        ([Fraction(1, 1), Fraction(0, 1), Fraction(3, 1)], Fraction(2, 1))
    """
    even = k % 2 == 0
    if name == "unit":
        return Fraction(1, k + 1)
    if name == "centred_exponential":  # the number of derangements of k things
        return Fraction(sum((-1) ** j * math.factorial(k) // math.factorial(j) for j in range(k + 1)))
    if name == "two_point":
        p, a, b = numbers
        return p * a**k + (1 - p) * b**k
    if name == "student_t":
        nu = numbers[0] + 2
        if k >= nu:
            raise NotExpandable(
                f"the moment of order {k} of the noise must exist; Student's law with {nu:g} degrees of freedom has none."
            )
        log = math.lgamma((k + 1) / 2) + math.lgamma((nu - k) / 2) - math.lgamma(0.5) - math.lgamma(nu / 2)
        return (nu - 2) ** (k / 2) * math.exp(log) if even else Fraction(0)
    known = {
        "gaussian": Fraction(math.prod(range(1, k, 2))),
        "rademacher": Fraction(1),
        "uniform": Fraction(3 ** (k // 2), k + 1),
        "three_point": Fraction(3 ** (k // 2), 3),
    }
    if name not in known:
        raise NotExpandable(f"the moments of the noise must be known; those of the law {name!r} are not.")
    return known[name] if even else Fraction(0)
