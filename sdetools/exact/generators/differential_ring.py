"""The ring in which one-step expansions are computed: polynomials over the rationals with derivatives along the coordinates.

Its generators are the coordinates of the state, the draws of one step, and atoms: values of functions at a formula c of the coordinates, such as
exp(c) or 1 / c, and irrational numbers. A polynomial is an element of SymPy's `PolyRing`, a dict from monomials to rational coefficients, whose
monomials are tuples with the power of each generator in this order. The derivative of an atom is again a polynomial, d exp(c) = exp(c) dc, so that
products and derivatives need no simplification. Relations such as c (1 / c) = 1 are not applied; whether a polynomial with atoms vanishes is decided
at fixed irregular points in 40 digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

LARGEST_DENOMINATOR = 10**6
"""Numbers are taken for fractions (or roots of fractions) with denominators up to this size, if they agree to `CLOSE`."""
CLOSE = 1e-14
LARGEST_OF_PI = 1000
"""Numbers are taken for a power of pi times the root of a fraction, such as 1 / sqrt(2 pi), if the fraction has a denominator up to this size."""
POWERS_OF_PI = tuple(Fraction(k, 2) for k in (-1, 2, 1, -2, 3, -3, 4, -4))
"""The powers of pi that are tried, in this order."""
ROUNDING = 1e-11
"""Rounding error of a coefficient, relative to those that cancel, if the numbers are floats."""
DIGITS = 40
"""Decimal digits in which it is decided whether a polynomial with atoms vanishes."""
VANISHING = 1e-25
"""Size, relative to the sum of the terms' absolute values, below which a value of 40 digits counts as 0."""


class TooFewAtoms(Exception):
    """Raised when a `DifferentialRing` needs more atoms, values of functions, than it was made with; the computation is repeated in a larger one."""


class NotExpandable(ValueError):
    """Raised for a rule or an equation without an expansion in powers of the step; the message gives the reason in one sentence."""


class NeedsFinerRoot(NotExpandable):
    """Raised where an expansion may exist in a higher root r of the step's time than the present one, such as its fourth instead of its square root."""


class DifferentialRing:
    """Polynomials over the rationals in coordinates, draws and atoms, with derivatives along the coordinates.

    Coordinates are those of the state, draws the random numbers of one step, and atoms values of functions of the coordinates, such as exp(x) or 1/x,
    and irrational numbers. Methods take and return polynomials, elements of `ring`: dicts from tuples of powers, one for each generator, to rationals.

    Args:
        coordinates: The symbols of the coordinates, SymPy symbols.
        draws: The number of draws.
        atoms: The largest number of atoms.
        largest: The largest power of r, the root of the step's time in which steps are expanded, that a `power_series.Series` has.

    Attributes:
        coordinates: The symbols of the coordinates, as given.
        ring: The `PolyRing` of SymPy, whose generators are the coordinates, the draws and the atoms.
        zero: The polynomial 0.
        one: The polynomial 1.
        x: The generators of the coordinates.
        z: The generators of the draws.
        largest: The largest power of r, which may change.
        unit: The power of r that is the time of a step, 2 unless it is set.
        exact: Whether all numbers so far were fractions or roots of fractions; other numbers have the rounding errors of floats.
        own_moments: The moments of the draws for signs and clippings, which come last: for each a function of the order k that returns a polynomial in the
            coordinates. Set by `OneStep.moved`, as `joint`.
        joint: Draws that are not independent: pairs of a tuple of their numbers, and the function from a tuple of their powers to the mean of the
            product of these powers, a polynomial. `mean` uses these instead of single moments.
    """

    def __init__(self, coordinates: Sequence[Any], draws: int, atoms: int = 12, largest: int = 12) -> None:
        from sympy import QQ
        from sympy.polys.rings import PolyRing

        self.coordinates = tuple(coordinates)
        n = len(self.coordinates)
        names = [*map(str, coordinates), *(f"z{i}" for i in range(draws)), *(f"atom{i}" for i in range(atoms))]
        self.ring = PolyRing([f"g{i}_{name}" for i, name in enumerate(names)], QQ, "lex")
        generators = self.ring.gens
        self.x, self.z, self._free = generators[:n], generators[n : n + draws], list(generators[n + draws :])
        self._first_draw, self._first_atom = n, n + draws
        self.zero, self.one, self.largest, self.exact, self.unit = self.ring.zero, self.ring.one, largest, True, 2
        self.own_moments: list[Callable[[int], Any]] = []
        self.joint: list[tuple[tuple[int, ...], Callable[[tuple[int, ...]], Any]]] = []
        self._atoms: dict[Any, Any] = {}
        self._symbols: list[Any] = []
        self._roots: dict[int, Any] = {}
        self._made: list[tuple[str, Any, Any]] = []
        self._slopes: dict[int, list[Any]] = {}

    # ---- numbers and functions

    def number(self, value: Any) -> Any:
        """Return a finite number as a polynomial: a fraction, the root of one as an atom, also times a power of pi, or else the exact value of the float.

        A float within 1e-14 (relative) of one of these with a small denominator stands for it; otherwise `exact` becomes False.
        """
        if isinstance(value, (int, Fraction)):
            return self._fraction(Fraction(value))
        value = float(value)
        if value != value or value in (float("inf"), -float("inf")):
            raise NotExpandable(f"an expansion must have finite numbers; got {value!r}.")
        # small denominators first: by chance the square of 2^(1/2) pi^(3/2) is near a fraction with one below 10^6
        for largest in (LARGEST_OF_PI, LARGEST_DENOMINATOR):
            near = _near(value, largest)
            if near is not None:
                return self._fraction(near)
            for exponent in (Fraction(0), *POWERS_OF_PI) if largest == LARGEST_OF_PI else (Fraction(0),):
                square = _near((value * math.pi ** -float(exponent)) ** 2, largest)
                if square is not None:
                    root = self.function("power", self._fraction(square), Fraction(1, 2))
                    root = root * self.power_of_pi(exponent) if exponent else root
                    return root if value > 0 else -root
        self.exact = False
        return self._fraction(Fraction(value))

    def power_of_pi(self, exponent: Fraction) -> Any:
        """Return the atom pi^exponent for a fraction."""
        import sympy

        key = "pi", self.one, exponent
        power = sympy.pi ** sympy.Rational(exponent.numerator, exponent.denominator)
        return self._atoms[key] if key in self._atoms else self._atom(key, power)

    def _atom(self, key: tuple[str, Any, Any], symbol: Any) -> Any:
        """Return a new atom; TooFewAtoms if none is free.

        Args:
            key: (function, argument, exponent), by which the atom is found again: its name, a polynomial, and a fraction, None, or the numbers of
                "radial".
            symbol: Its value as a SymPy expression in the coordinates.
        """
        if not self._free:
            raise TooFewAtoms
        found = self._free.pop(0)
        self._symbols.append(symbol)
        self._made.append(key)
        self._atoms[key] = found
        return found

    def _fraction(self, value: Fraction) -> Any:
        return self.ring.ground_new(self.ring.domain(value.numerator, value.denominator))

    def function(self, kind: str, c: Any, exponent: Fraction | None = None) -> Any:
        """Return the value of a function at the polynomial `c` of the coordinates: a polynomial if SymPy finds a fraction, else an atom.

        Args:
            kind: "power" (with `exponent`), "exp", "log", "sin", "cos", "sinh", "cosh", "tan", "tanh", "arctan" or "erf".
            c: The argument, a polynomial without draws.
            exponent: The exponent of a power, a fraction; -1 for the reciprocal.

        Raises:
            NotExpandable: If `c` contains a draw, or the function has no finite real value there.
            TooFewAtoms: If the ring has no free atom.
        """
        import sympy

        if self.has_draws(c):
            raise NotExpandable(
                f"a step must be a polynomial in its draws at every power of the step size; here a draw is inside the function {kind}."
            )
        key = kind, c, exponent
        if key in self._atoms:
            return self._atoms[key]
        inner = self.expression(c)
        outer = (
            inner ** sympy.Rational(exponent.numerator, exponent.denominator) if exponent is not None else _FUNCTIONS(kind)(inner)
        )
        if outer.is_infinite or outer is sympy.nan or outer.is_real is False:
            raise NotExpandable(f"the function {kind} must be finite and real; at {inner} it is {outer}.")
        coefficient, rest = outer.as_coeff_Mul()
        if outer.is_Rational:
            found = self._fraction(Fraction(outer.p, outer.q))
        elif (  # 1/sqrt(3) = sqrt(3)/3
            rest.is_Pow
            and rest.base.is_Integer
            and rest.exp == sympy.Rational(1, 2)
            and (rest.base != inner or exponent != Fraction(1, 2))
        ):
            found = self.function("power", self._fraction(Fraction(int(rest.base))), Fraction(1, 2))
            found = found * self._fraction(Fraction(coefficient.p, coefficient.q))
        else:
            if exponent == Fraction(1, 2):
                self._roots[len(self._symbols)] = c
            found = self._atom(key, outer)
        self._atoms[key] = found
        return found

    def radial(self, k: int, n: int, c: Any, rho: Any) -> Any:
        """Return R_kn(c, rho) of `radial_means`, the mean of a k-th power over the directions of a normal vector, as an atom.

        k and n are integers, c is a SymPy number, and rho a polynomial in the coordinates.
        """
        from sdetools.exact.generators.radial_means import radial_mean

        key = "radial", rho, (k, n, c)
        return self._atoms[key] if key in self._atoms else self._atom(key, radial_mean()(k, n, c, self.expression(rho)))

    def reduced(self, p: Any) -> Any:
        """Return an equal polynomial with each square of an atom c^(1/2), a root, replaced by c."""
        for k, square in reversed(self._roots.items()):  # the argument of a root may contain earlier ones
            place = self._first_atom + k
            if any(m[place] > 1 for m in p):
                out = self.zero
                for m, c in p.items():
                    term = self.ring.from_dict({(*m[:place], m[place] % 2, *m[place + 1 :]): c})
                    out = out + (term * square ** (m[place] // 2) if m[place] > 1 else term)
                p = out
        return p

    def taylor(self, kind: str, c: Any, order: int, exponent: Any = None) -> list[Any]:
        """Return the Taylor coefficients f(c), f'(c), f''(c) / 2!, ... of a function, `order` + 1 polynomials.

        The arguments `kind`, `c` and `exponent` are those of `function`; or `kind` is "radial", `c` is rho and `exponent` is (k, n, c) of `radial`.
        """
        if kind == "radial":  # d R_kn / d rho = R_k,n+2 - R_kn
            power, n, limit = exponent
            row = [self.radial(power, n + 2 * i, limit, c) for i in range(order + 1)]
            return [
                sum(((-1) ** (j - i) * math.comb(j, i) * row[i] for i in range(j + 1)), self.zero)
                * self._fraction(Fraction(1, math.factorial(j)))
                for j in range(order + 1)
            ]
        value = self.function(kind, c, exponent)
        if kind == "power":
            assert exponent is not None
            reciprocal, out, binomial = self.function("power", c, Fraction(-1)) if order else self.one, [value], Fraction(1)
            power = value
            for k in range(1, order + 1):
                binomial *= (exponent - k + 1) / Fraction(k)
                power = power * reciprocal
                out.append(power * self._fraction(binomial))
            return out
        out = [value]
        partner = {"sin": "cos", "cos": "sin", "sinh": "cosh", "cosh": "sinh"}.get(kind)
        other = self.function(partner, c) if partner and order else self.zero
        if kind == "log" and order:
            other = self.function("power", c, Fraction(-1))
        if kind == "erf" and order:  # erf' = 2/sqrt(pi) e^(-c^2)
            other = 2 * self.power_of_pi(Fraction(-1, 2)) * self.function("exp", -self.reduced(c * c))
        if kind == "arctan" and order:
            other = self.function("power", self.one + c * c, Fraction(-1))
        slopes: list[Any] = []  # Taylor coefficients of the derivative
        for k in range(order):
            unit = self.one if k == 0 else self.zero
            if kind == "exp":
                slope = out[k]
            elif kind in ("tan", "tanh"):
                square = sum((out[i] * out[k - i] for i in range(k + 1)), self.zero)
                slope = unit + square if kind == "tan" else unit - square
            elif kind == "log":
                slope = other if k == 0 else -slopes[-1] * other
            elif kind == "arctan":
                before = [self.zero, self.zero, *slopes]
                slope = other * (unit - 2 * c * before[-1] - before[-2])
            elif kind == "erf":
                before = [self.zero, self.zero, *slopes]
                slope = other if k == 0 else (c * before[-1] + before[-2]) * self._fraction(Fraction(-2, k))
            else:  # f'' = -f for sin and cos, f'' = f for sinh and cosh
                sign = -1 if kind in ("sin", "cos") else 1
                first = other if kind != "cos" else -other
                slope = first if k == 0 else out[k - 1] * self._fraction(Fraction(sign, k))
            slopes.append(slope)
            out.append(slope * self._fraction(Fraction(1, k + 1)))
        return out

    # ---- structure

    def has_draws(self, p: Any) -> bool:
        """Return whether a polynomial contains a draw."""
        return any(any(m[self._first_draw : self._first_atom]) for m in p)

    def degree_in_draws(self, p: Any) -> int:
        """Return the largest total degree in the draws of the terms of a polynomial, 0 without draws."""
        return max((sum(m[self._first_draw : self._first_atom]) for m in p), default=0)

    def linear_part(self, p: Any, k: int) -> Any:
        """Return the coefficient, a polynomial without draws, of draw `k` in the terms of `p` that contain this draw alone, to the first power."""
        first, last = self._first_draw, self._first_atom
        return self.by_powers(p, first, last).get(tuple(int(i == k) for i in range(last - first)), self.zero)

    def has_coordinates(self, p: Any) -> bool:
        """Return whether a polynomial contains a coordinate or an atom, and is therefore no number."""
        return any(any(m[: self._first_draw]) or any(m[self._first_atom :]) for m in p)

    def derivative(self, p: Any, i: int) -> Any:
        """Return the derivative of a polynomial along coordinate `i`; draws are constant, atoms follow the chain rule."""
        out = p.diff(self.x[i])
        for k in self._atoms_in(p):
            slopes, (kind, c, exponent) = self._slopes.setdefault(k, [None] * len(self.x)), self._made[k]
            if slopes[i] is None:
                inner = self.derivative(c, i)
                slopes[i] = self.taylor(kind, c, 1, exponent)[1] * inner if inner else self.zero
            if slopes[i]:
                out = out + p.diff(self.ring.gens[self._first_atom + k]) * slopes[i]
        return out

    def _atoms_in(self, p: Any) -> list[int]:
        return sorted({k for m in p for k, power in enumerate(m[self._first_atom :]) if power})

    def by_powers(self, p: Any, first: int, last: int) -> dict[tuple[int, ...], Any]:
        """Return the coefficients of a polynomial by its powers of the generators `first` ... `last` - 1: a dict from tuples of powers to polynomials.

        Generators are counted from 0: the coordinates, the draws, the atoms.
        """
        blank = (0,) * (last - first)
        groups: dict[tuple[int, ...], dict[Any, Any]] = {}
        for monomial, coefficient in p.items():
            groups.setdefault(monomial[first:last], {})[(*monomial[:first], *blank, *monomial[last:])] = coefficient
        return {powers: self.ring.from_dict(terms) for powers, terms in groups.items()}

    def mean(self, p: Any, moments: Sequence[Callable[[int], Any]]) -> Any:
        """Return the expectation of a polynomial over the draws, which are independent but for those in `joint`: a polynomial without draws.

        Args:
            p: The polynomial.
            moments: For each draw the function from an order k >= 1 to its k-th moment, a polynomial without draws that may depend on the coordinates.
        """
        out = self.zero
        for powers, coefficient in self.by_powers(p, self._first_draw, self._first_atom).items():
            factor = self.one
            for draws, together in self.joint:
                if any(powers[i] for i in draws):
                    factor = factor * together(tuple(powers[i] for i in draws))
                    powers = tuple(0 if i in draws else k for i, k in enumerate(powers))
            for moment, k in zip(moments, powers, strict=True):
                factor = factor * moment(k) if k else factor
                if not factor:
                    break
            out = out + coefficient * factor
        return out

    def without_rounding(self, p: Any, size: float) -> Any:
        """Return a polynomial without the terms whose coefficients are at most `ROUNDING` times `size`; unchanged if the ring is `exact` or `size` is 0."""
        if self.exact or not size:
            return p
        return self.ring.from_dict({m: c for m, c in p.items() if abs(float(c)) > ROUNDING * size})

    def vanishes(self, p: Any) -> bool:
        """Return whether a polynomial without draws is 0 for all coordinates; one with atoms is evaluated in 40 digits at three fixed irregular points."""
        if not p or not self._atoms_in(p):
            return not p
        import sympy

        rng = iter([sympy.Rational(k * 7919 % 9973 + 2000, 9973) for k in range(1, 3 * len(self.x) + 1)])
        used = self._atoms_in(p)
        for _ in range(3):
            point = {s: next(rng) for s in self.coordinates}
            values = [sympy.Float(v, DIGITS) for v in point.values()]
            atoms = {k: sympy.N(self._symbols[k].subs(point), DIGITS) for k in used}
            total = size = sympy.Float(0, DIGITS)
            for monomial, c in p.items():
                term = sympy.Float(sympy.Rational(int(c.numerator), int(c.denominator)), DIGITS)
                for v, k in zip(values, monomial):
                    term *= v**k
                for k in used:
                    term *= atoms[k] ** monomial[self._first_atom + k]
                total, size = total + term, size + abs(term)
            if abs(total) > VANISHING * size:
                return False
        return True

    def expression(self, p: Any) -> Any:
        """Return a polynomial as a SymPy expression in the coordinates; draws become symbols z0, z1, ..."""
        import sympy

        draws = [sympy.Symbol(f"z{i}") for i in range(len(self.z))]
        unused = [sympy.S.Zero] * len(self._free)
        return p.as_expr(*self.coordinates, *draws, *self._symbols, *unused)


def _FUNCTIONS(kind: str) -> Any:
    """Return the SymPy function that NumPy calls `kind`, such as sympy.atan for "arctan"."""
    import sympy

    return {"arctan": sympy.atan}.get(kind) or getattr(sympy, kind)


def _near(value: float, largest: int = LARGEST_DENOMINATOR) -> Fraction | None:
    """Return the fraction of denominator at most `largest` that a float stands for, or None."""
    near = Fraction(value).limit_denominator(largest)
    return near if abs(float(near) - value) <= CLOSE * abs(value) else None
