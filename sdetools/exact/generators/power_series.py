"""Truncated power series in r, a root of the step's time (by default the square root); their coefficients are polynomials of a `DifferentialRing`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from numbers import Real
from typing import Any

from sdetools.exact.generators.differential_ring import DifferentialRing, NotExpandable


class Series:
    """A Laurent series sum_j c_j r^j in the root r of the step's time, with coefficients that are known for all j below `precision`.

    NumPy's functions apply to object arrays of series. Sums, products, quotients and powers with series and numbers, and `sqrt`, `exp`, `log`, `sin`,
    `cos`, `tan`, `sinh`, `cosh`, `tanh`, `arctan`, `erf`, `expm1` and `log1p` are new series. Comparisons with > and >= are true: they occur in the
    domain conditions of roots and logarithms, and choose a closed form over its series.

    Args:
        home: The `DifferentialRing` of the coefficients. Powers above `home.largest` are dropped.
        terms: The coefficients c_j, polynomials of the ring, by power j, which may be negative; those that are 0 are left out.
        precision: The smallest power whose coefficient is unknown; `home.largest` + 1 by default and at most.

    Attributes:
        home: The `DifferentialRing`, as given.
        terms: The coefficients that are not 0 by increasing power.
        precision: The smallest power whose coefficient is unknown.

    Example:
        >>> import sympy
        >>> from sdetools.exact.generators.differential_ring import DifferentialRing
        >>> home = DifferentialRing([sympy.Symbol("x")], draws=0, largest=3)
        >>> r, x = Series(home, {1: home.one}), Series(home, {0: home.x[0]})
        >>> {j: home.expression(c) for j, c in (1 / (1 - r * x)).terms.items()}
        {0: 1, 1: x, 2: x**2, 3: x**3}
    """

    __slots__ = ("home", "precision", "terms")

    def __init__(self, home: DifferentialRing, terms: dict[int, Any], precision: int | None = None) -> None:
        bound = home.largest + 1 if precision is None else min(precision, home.largest + 1)
        self.home, self.precision = home, bound
        self.terms = {j: c for j, c in sorted(terms.items()) if j < bound and c}

    @property
    def valuation(self) -> int:
        """The smallest power of r with a coefficient that is not 0; `precision`, the first unknown power, for the series 0."""
        return next(iter(self.terms), self.precision)

    def _other(self, other: Any) -> Series | None:
        if isinstance(other, Series):
            return other
        return Series(self.home, {0: self.home.number(other)}) if isinstance(other, (Real, Fraction)) else None

    def __add__(self, other: Any) -> Series:
        b = self._other(other)
        if b is None:
            return NotImplemented
        terms = dict(self.terms)
        for j, c in b.terms.items():
            terms[j] = terms[j] + c if j in terms else c
        return Series(self.home, terms, min(self.precision, b.precision))

    def __mul__(self, other: Any) -> Series:
        b = self._other(other)
        if b is None:
            return NotImplemented
        precision = min(self.valuation + b.precision, b.valuation + self.precision, self.home.largest + 1)
        terms: dict[int, Any] = {}
        for i, c in self.terms.items():
            for j, d in b.terms.items():
                if i + j >= precision:
                    break
                terms[i + j] = terms[i + j] + c * d if i + j in terms else c * d
        return Series(self.home, {j: self.home.reduced(c) for j, c in terms.items()}, precision)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Series:
        return Series(self.home, {j: -c for j, c in self.terms.items()}, self.precision)

    def __sub__(self, other: Any) -> Series:
        b = self._other(other)
        return NotImplemented if b is None else self + (-b)

    def __rsub__(self, other: Any) -> Series:
        return (-self) + other

    def __truediv__(self, other: Any) -> Series:
        b = self._other(other)
        return NotImplemented if b is None else self * b.power(Fraction(-1))

    def __rtruediv__(self, other: Any) -> Series:
        return self.power(Fraction(-1)) * other

    def __pow__(self, exponent: Any) -> Series:
        if isinstance(exponent, Series):
            constant = exponent.terms.get(0, self.home.zero)
            if set(exponent.terms) - {0} or self.home.has_coordinates(constant) or self.home.has_draws(constant):
                raise NotExpandable("an exponent must be a number; here it depends on the state or on the step.")
            exponent = Fraction(str(self.home.expression(constant)))
        return self.power(Fraction(exponent).limit_denominator(64))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __gt__(self, other: Any) -> bool:
        return True

    __ge__ = __gt__

    def shifted(self, by: int) -> Series:
        """Return r^by times this series in r, for an integer `by` of either sign."""
        return Series(self.home, {j + by: c for j, c in self.terms.items()}, self.precision + by)

    def mapped(self, function: Callable[[Any], Any]) -> Series:
        """Return the series whose coefficients are `function` of those of this one, a function from polynomials to polynomials with f(0) = 0."""
        return Series(self.home, {j: function(c) for j, c in self.terms.items()}, self.precision)

    def truncated(self, largest: int) -> Series:
        """Return the series without powers of r above `largest`, which count as unknown from then on."""
        return Series(self.home, self.terms, min(self.precision, largest + 1))

    # ---- functions

    def power(self, exponent: Fraction) -> Series:
        """Return the series to the power of a fraction, such as 1/2 or -1.

        Raises:
            NotExpandable: If the leading power of r times the exponent is no whole number, or a series of 0 has a negative or fractional exponent.
        """
        if exponent.denominator == 1 and exponent >= 0:
            out = Series(self.home, {0: self.home.one})
            for _ in range(int(exponent)):
                out = out * self
            return out
        if not self.terms:
            raise NotExpandable("a step must not divide by 0, or take a root of 0, as its size tends to 0.")
        shift = exponent * self.valuation
        if shift.denominator != 1:
            raise NotExpandable(f"a step must be a series in the root of its time; got the power {shift / 2} of the time.")
        return self.shifted(-self.valuation)._composed("power", exponent).shifted(int(shift))

    def _composed(self, kind: str, exponent: Fraction | None = None) -> Series:
        """Return a function of the series, by its Taylor series at the coefficient of r^0; NotExpandable if the series has negative powers of r.

        `kind` is a name of `DifferentialRing.function`, and `exponent` that of "power".
        """
        home = self.home
        if self.valuation < 0:
            raise NotExpandable(f"the argument of {kind} must stay finite as the step tends to 0.")
        delta = Series(home, {j: c for j, c in self.terms.items() if j > 0}, self.precision)
        order = (self.precision - 1) // delta.valuation if delta.terms else 0
        taylor = home.taylor(kind, self.terms.get(0, home.zero), order, exponent)
        out = Series(home, {0: taylor[order]}, self.precision)
        for c in taylor[:order][::-1]:
            out = out * delta + Series(home, {0: c}, self.precision)
        return out

    def sqrt(self) -> Series:
        return self.power(Fraction(1, 2))

    def expm1(self) -> Series:
        return self.exp() - 1

    def log1p(self) -> Series:
        return (1 + self).log()

    def exp(self) -> Series:
        return self._composed("exp")

    def log(self) -> Series:
        return self._composed("log")

    def sin(self) -> Series:
        return self._composed("sin")

    def cos(self) -> Series:
        return self._composed("cos")

    def tan(self) -> Series:
        return self._composed("tan")

    def sinh(self) -> Series:
        return self._composed("sinh")

    def cosh(self) -> Series:
        return self._composed("cosh")

    def tanh(self) -> Series:
        return self._composed("tanh")

    def arctan(self) -> Series:
        return self._composed("arctan")

    def erf(self) -> Series:
        return self._composed("erf")

    def __repr__(self) -> str:
        return f"Series({ {j: self.home.expression(c) for j, c in self.terms.items()} } + O(r^{self.precision}))"
