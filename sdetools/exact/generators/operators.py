"""Linear differential operators sum_a c_a d^a whose coefficients are power series in the root r of the step's time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import product
from typing import Any

from sdetools.exact.generators.differential_ring import DifferentialRing
from sdetools.exact.generators.power_series import Series

Index = tuple[int, ...]
"""A multi-index a: the order of the derivative in each coordinate of the ring."""


class Operator:
    """A differential operator sum_a c_a d^a: d^a has the order a_i in coordinate i, and c_a is a series in the root r of the step's time.

    `A + B`, `A - B` and `A @ B` are sum, difference and composition, new operators.

    Args:
        home: The `DifferentialRing` of the coefficients.
        terms: The series c_a by multi-index a; those that are 0 are left out.

    Attributes:
        home: The `DifferentialRing`, as given.
        terms: The series c_a that are not 0, by multi-index.
    """

    def __init__(self, home: DifferentialRing, terms: Mapping[Index, Series]) -> None:
        self.home, self.terms = home, {a: c for a, c in terms.items() if c}

    def __add__(self, other: Operator) -> Operator:
        out = dict(self.terms)
        for a, c in other.terms.items():
            out[a] = out[a] + c if a in out else c
        return Operator(self.home, out)

    def __sub__(self, other: Operator) -> Operator:
        return self + other.scaled(Fraction(-1))

    def scaled(self, factor: Fraction) -> Operator:
        """Return the operator times a number, a new one."""
        return Operator(self.home, {a: factor * c for a, c in self.terms.items()})

    def __matmul__(self, other: Operator) -> Operator:
        """Return the composition f -> self(other(f)), by the rule of Leibniz."""
        out: dict[Index, Series] = {}
        for b, d in other.terms.items():
            derived = _Derivatives(self.home, d)
            for a, c in self.terms.items():
                for g in product(*(range(n + 1) for n in a)):
                    slope = derived[g]
                    if not slope:
                        continue
                    index = tuple(i - j + k for i, j, k in zip(a, g, b))
                    term = math.prod(map(math.comb, a, g)) * (c * slope)
                    out[index] = out[index] + term if index in out else term
        return Operator(self.home, out)

    def at(self, power: int, like: Operator | None = None) -> dict[Index, Any]:
        """Return the coefficients of r^power, r the root of the step's time: polynomials by multi-index, by increasing total order, without those that vanish.

        Args:
            power: The power of r.
            like: An operator from which this one was made, by differences. Where the ring has floats, coefficients below 1e-11 of its largest one count
                as rounding errors and are dropped; None drops none.
        """
        made = [] if like is None or self.home.exact else [p for c in like.terms.values() for p in c.terms.values()]
        size = max((abs(float(c)) for p in made for c in p.values()), default=0.0)
        found = {a: self.home.without_rounding(c.terms[power], size) for a, c in self.terms.items() if power in c.terms}
        ordered = sorted(found, key=lambda a: (sum(a), [-i for i in a]))
        return {a: found[a] for a in ordered if not self.home.vanishes(found[a])}

    def powers(self) -> Iterator[Operator]:
        """Yield the operator, its square, its cube, ... as long as they have terms; they end where all terms lie above `home.largest`."""
        power = self
        while power.terms:
            yield power
            power = power @ self

    def exponential_minus_one(self) -> Operator:
        """Return exp(A) - 1 = A + A^2 / 2 + ... for this operator A, whose coefficients begin with a positive power of r, the root of the step's time."""
        return self._sum(lambda k: Fraction(1, math.factorial(k)))

    def logarithm_of_one_plus(self) -> Operator:
        """Return log(1 + A) = A - A^2 / 2 + ... for this operator A, whose coefficients begin with a positive power of r, the root of the step's time."""
        return self._sum(lambda k: Fraction((-1) ** (k + 1), k))

    def _sum(self, factor: Callable[[int], Fraction]) -> Operator:
        out = Operator(self.home, {})
        for k, power in enumerate(self.powers(), start=1):
            out = out + power.scaled(factor(k))
        return out


class _Derivatives:
    """The derivatives of a series: `self[a]` is its derivative d^a for a multi-index a, computed once from one of lower order."""

    def __init__(self, home: DifferentialRing, series: Series) -> None:
        self.home, self.known = home, {(0,) * len(home.x): series}

    def __getitem__(self, index: Index) -> Series:
        if index not in self.known:
            i = next(k for k, n in enumerate(index) if n)
            lower = self[(*index[:i], index[i] - 1, *index[i + 1 :])]
            self.known[index] = lower.mapped(lambda p: self.home.derivative(p, i)) if lower else lower
        return self.known[index]
