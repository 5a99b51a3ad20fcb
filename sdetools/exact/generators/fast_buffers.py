"""Linear filters whose buffers are forgotten in a few steps, or in a time that tends to 0: the position follows an SDE of its own.

Without gradients a combination y = w . s of the parts s of the state is constant, and with them it moves slowly; the rest, F, one number for each
buffer and coordinate, is forgotten at a constant rate. One step acts on functions of y and F by f -> T f = E f(y', F'). tau = r^unit is the time of a
step. For functions h of y, the functions Lambda h = h + r Lambda_1 h + ... that T maps among themselves, T Lambda = Lambda exp(tau A), are found
power by power of r: at every power

    (1 - T_0) Lambda_k h + E_k h = (what the lower powers give),        exp(tau A) - 1 = sum_k r^k E_k,

where T_0 moves F alone. It maps polynomials in F to such polynomials, raises no degree and is a contraction on each degree, so that the
part without F determines E_k, the motion of y, and the rest Lambda_k, which is 0 at F = 0. If 1 - beta tends to 0 like r^m, more slowly
than the time of a step, T - 1 begins with r^m G, and -G takes the place of 1 - T_0, which is m = 0. The same recursion gives the projection Pi onto
the slow functions, Pi T = exp(tau A) Pi. With B, the operator that takes h to the function h(x) of y and F, where x = y + (small),

    E h(x_k) = exp(k tau A) (Pi B) h (x_0) + (what is forgotten),        if the buffers start at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from sdetools.exact.generators.differential_ring import DifferentialRing, NeedsFinerRoot, NotExpandable
from sdetools.exact.generators.one_step import PAD, OneStep
from sdetools.exact.generators.operators import Index, Operator
from sdetools.exact.generators.power_series import Series

Terms = dict[Index, Any]
"""An operator h -> sum_a c_a(y, F) d^a h at one power of r: the polynomials c_a by multi-index a, which counts derivatives along y alone.

Multi-indices have an entry for each coordinate of y, then zeros for those of F.
"""


@dataclass(frozen=True)
class SlowMotion:
    """The motion of the position of a linear filter with constant beta.

    y is the slow variable, the combination of position and buffers that gradients alone move, and r the root of the time tau of a step, tau = r^unit.

    Attributes:
        motion: exp(tau A) - 1 with the generator A of the motion of y, an operator up to r^(2 unit - memory).
        terminal: The operator that h(y) is changed by to have the mean of h of the position (Pi B - 1 of the module), up to r^(unit - memory).
        memory: The power of r to which the rate of forgetting is proportional.
        rate: The factor c in y' = y - c g, g the gradient, divided by the time of a step, for small steps.
    """

    motion: Operator
    terminal: Operator
    memory: int
    rate: float


class _UnitGradients:
    """An oracle with one answer, `answer`, at every point: the input that stands for the gradient when the matrices of a filter are read off."""

    extra = ()

    def __init__(self, answer: np.ndarray) -> None:
        self.answer = answer

    def __call__(self, x: Any) -> np.ndarray:
        return self.answer


def slow_motion(step: OneStep, home: DifferentialRing) -> SlowMotion:
    """Return the motion of a linear filter, a rule with buffers whose new state is linear in state and gradient.

    y = w . s, with s the parts of the state, is the slow combination: without gradients it is constant. h is a function of the position.

    Args:
        step: The rule, whose buffers start at 0, those that `Dynamics.at_x0` names at x0.
        home: A `DifferentialRing` with the coordinates of the position, then one for each buffer and coordinate, as `generator_gaps.filter_ring` makes it.

    Returns:
        Two operators on functions of y: `motion`, exp(tau A) - 1 for a step of time tau with the generator A of y, and `terminal`, which turns h(y) into the
        mean of h of the position; beside them the powers and rates of the forgetting, see `SlowMotion`.

    Raises:
        NotExpandable: If the filter has no slow combination, or its buffers are not forgotten.
        NeedsFinerRoot: If a buffer is of the size of a power of tau that is no whole power of r, the root of tau in which series are written.
    """
    return _Elimination(step, home).result()


class _Elimination:
    """The recursion over powers of r, with the notation of the module; `result` runs it.

    Args:
        step: The rule.
        home: The `DifferentialRing`, whose first `dim` coordinates are y, and the others F.

    Attributes:
        dim: The number of coordinates of the position.
        memory: The power m of r to which the rate of forgetting is proportional.
        largest: The largest power of r that is computed, 2 unit - m.
        rate: As in `SlowMotion`.
        apart: x - y, a series for each coordinate.
        change: The change y' - y, a series for each coordinate.
        after: F' after a step, a series for each coordinate of F.
        motion: exp(tau A) - 1 as far as it is known.
        lifts: Lambda_k by powers k of r, as far as they are known.
        none: The multi-index of zeros.
    """

    def __init__(self, step: OneStep, home: DifferentialRing) -> None:
        self.home, self.dim = home, step.rule.dim
        home.largest = (2 + PAD) * home.unit
        n = len(step.rule.parts)
        common = [1.0 if i == 0 or p in step.rule.at_x0 else 0.0 for i, p in enumerate(step.rule.parts)]  # type: ignore[union-attr]
        A, b = self._matrices(step, n)
        B = [[A[i][j] - common[i] * A[0][j] for j in range(1, n)] for i in range(1, n)]
        still = [[(1.0 if i == j else 0.0) - B[i][j] for i in range(n - 1)] for j in range(n - 1)]
        self.memory = _memory(home, still)
        self.largest = 2 * home.unit - self.memory
        w = _solve(still, A[0][1:])
        moved_by = b[0] + sum((w[i] * (b[i + 1] - common[i + 1] * b[0]) for i in range(n - 1)), Series(home, {}))
        self.rate = -float(home.expression(moved_by.terms.get(home.unit, home.zero)))
        sizes = self._sizes(step, B, [b[i] - common[i] * b[0] for i in range(1, n)])
        y, F = home.x[: self.dim], home.x[self.dim :]
        fast = [[Series(home, {k: F[i * self.dim + c]}) for c in range(self.dim)] for i, k in enumerate(sizes)]
        self.apart = [sum((-1 * w[i] * fast[i][c] for i in range(n - 1)), Series(home, {})) for c in range(self.dim)]  # x - y
        x = [Series(home, {0: y[c]}) + self.apart[c] for c in range(self.dim)]
        new = step.moved(home, [x, *([common[i + 1] * x[c] + fast[i][c] for c in range(self.dim)] for i in range(n - 1))])
        after = [[new[i + 1][c] - common[i + 1] * new[0][c] for c in range(self.dim)] for i in range(n - 1)]
        moved = [
            new[0][c] + sum((w[i] * after[i][c] for i in range(n - 1)), Series(home, {})) - Series(home, {0: y[c]})
            for c in range(self.dim)
        ]
        scaled = [after[i][c].shifted(-k) for i, k in enumerate(sizes) for c in range(self.dim)]
        if any(s.valuation < 1 for s in (*moved, *self.apart)) or any(s.valuation < 0 for s in scaled):
            raise NotExpandable(
                f"{step.rule.name} must have a slow combination of its parts and buffers of bounded size; it has none."
            )
        both, self.moments, self.exact = step.draws(home, [*moved, *scaled], self.largest)
        self.change, self.after = both[: self.dim], both[self.dim :]
        self.powers: dict[Index, Series] = {}
        self.after_powers: dict[Index, Series] = {}
        self.inverses: dict[int, tuple[list[Index], Any]] = {}
        self.none = (0,) * len(home.x)
        self.motion = Operator(home, {})
        self.lifts: dict[int, Terms] = {0: {self.none: home.one}}

    def _matrices(self, step: OneStep, n: int) -> tuple[list[list[Any]], list[Any]]:
        """Return A, n rows, and b of s' = A s + b g for one coordinate of the n parts of the state and the gradient g; entries are series."""
        home = self.home
        inputs = np.empty((n + 1, n + 1), dtype=object)
        for i, j in product(range(n + 1), repeat=2):
            inputs[i, j] = Series(home, {0: home.one} if i == j else {})
        after = step.rule.rule(tuple(inputs[1:, None]), _UnitGradients(inputs[:1]), *step.coefficients(home))
        table = [np.broadcast_to(np.asarray(part, dtype=object), (1, n + 1))[0] for part in after]
        return [[row[j + 1] for j in range(n)] for row in table], [row[0] for row in table]

    def _sizes(self, step: OneStep, B: list[list[Any]], b: list[Any]) -> list[int]:
        """Return the power of r to which each buffer is proportional, from its inputs over its memory of 1 / r^memory steps.

        Gradients add up over the steps, and noise like a root of their number. B and b are the matrix and vector of F' = B F + b g.
        """
        sigma = min(step.numbers.oracle[0])
        if self.memory % 2:
            raise NeedsFinerRoot("a buffer must be a series in the root of the step's time.")
        sizes = [c.valuation + min(-self.memory, sigma - self.memory // 2) if c else self.home.largest for c in b]
        for _ in B:
            sizes = [min([k, *(B[i][j].valuation + sizes[j] for j in range(len(B)) if B[i][j])]) for i, k in enumerate(sizes)]
        return sizes

    # ---- one step

    def push(self, terms: Terms) -> Operator:
        """Return T f, the mean of f after a step, for f = sum_a c_a(y, F) d^a h with `terms` c_a: an operator on h with coefficients in y and F."""
        home = self.home
        out: dict[Index, Series] = {}
        for a, c in terms.items():
            for d, slope in self._slopes(c):
                base = self._substituted(slope)
                for g in self._indices(self.largest - sum(d)):
                    power = self._power(tuple(i + j for i, j in zip(d, g)))
                    factor = Fraction(1, math.prod(math.factorial(k) for k in (*d, *g)))
                    term = factor * (base * power).mapped(self._mean)
                    index = tuple(i + j for i, j in zip(a, g))
                    if term:
                        out[index] = out[index] + term if index in out else term
        return Operator(home, out)

    def _mean(self, p: Any) -> Any:
        if not self.exact and self.home.degree_in_draws(p) > 2:
            raise NotExpandable("the moments of the noise beyond the second are not known for noise that samples data.")
        return self.home.mean(p, self.moments)

    def _indices(self, most: int) -> list[Index]:
        """Return the multi-indices along y of a total order up to `most`, padded with zeros for F."""
        rest = (0,) * (len(self.home.x) - self.dim)
        return [(*g, *rest) for g in product(range(most + 1), repeat=self.dim) if sum(g) <= most]

    def _slopes(self, c: Any) -> list[tuple[Index, Any]]:
        """Return pairs (multi-index, derivative) of the derivatives of a polynomial in y and F along y that are not 0, the polynomial itself included."""
        found = {self.none: c}
        for d in sorted(self._indices(self.largest), key=sum)[1:]:
            i = next(k for k, order in enumerate(d) if order)
            lower = found.get((*d[:i], d[i] - 1, *d[i + 1 :]))
            if lower is not None and (slope := self.home.derivative(lower, i)):
                found[d] = slope
        return list(found.items())

    def _power(self, index: Index) -> Series:
        """Return D^index, the product of the powers of the change D of y in a step, a series."""
        return _product(self.home, self.powers, index, self.change)

    def _substituted(self, p: Any) -> Series:
        """Return a polynomial in y and F with F' in the place of F, a series in r."""
        out = Series(self.home, {})
        for powers, c in self.home.by_powers(p, self.dim, len(self.home.x)).items():
            out = out + Series(self.home, {0: c}) * _product(self.home, self.after_powers, powers, self.after)
        return out

    # ---- the fast motion on polynomials in F

    def solve(self, terms: Terms) -> tuple[Terms, Terms]:
        """Return chi and g with -G chi = terms - g, where g does not depend on F and chi is 0 at F = 0; for m = 0, G is T_0 - 1."""
        solved: Terms = {}
        rest: Terms = {}
        for a, p in terms.items():
            total = self.home.zero
            while degree := self._degree(p):
                top = self._top(p, degree)
                basis, inverse = self._inverse(degree)
                chi = self.home.zero
                for i, powers in enumerate(basis):
                    for j, other in enumerate(basis):
                        if other in top and inverse[i, j]:
                            chi = chi + top[other] * self._monomial(powers) * self.home.number(
                                Fraction(inverse[i, j].p, inverse[i, j].q)
                            )
                total = total + chi
                p = p + self._fast(chi)
                if self._degree(p) >= degree:
                    raise NotExpandable("a step must not raise the degree of a polynomial in the buffers; here it does.")
            if total:
                solved[a] = total
            if p:
                rest[a] = p
        return solved, rest

    def _fast(self, p: Any) -> Any:
        """Return G p, the coefficient of r^m of E p(y, F') - p, for a polynomial in y and F."""
        moved = self._mean(self._substituted(p).terms.get(self.memory, self.home.zero))
        return moved if self.memory else moved - p

    def _degree(self, p: Any) -> int:
        return max((sum(powers) for powers in self.home.by_powers(p, self.dim, len(self.home.x))), default=0)

    def _top(self, p: Any, degree: int) -> dict[Index, Any]:
        found = self.home.by_powers(p, self.dim, len(self.home.x))
        return {powers: c for powers, c in found.items() if sum(powers) == degree}

    def _monomial(self, powers: Sequence[int]) -> Any:
        return math.prod((f**k for f, k in zip(self.home.x[self.dim :], powers)), start=self.home.one)

    def _inverse(self, degree: int) -> tuple[list[Index], Any]:
        """Return the exponents of the monomials in F of a degree, and the inverse of -G on these monomials, a SymPy matrix in their order."""
        import sympy

        if degree not in self.inverses:
            size = len(self.after)
            basis = [p for p in product(range(degree + 1), repeat=size) if sum(p) == degree]
            columns = []
            for powers in basis:
                image = self._top(self._fast(self._monomial(powers)), degree)
                if any(self.home.has_coordinates(c) for c in image.values()):
                    raise NotExpandable(
                        "the rates at which buffers are forgotten must be numbers; here they depend on the position."
                    )
                columns.append([self.home.expression(image.get(other, self.home.zero)) for other in basis])
            self.inverses[degree] = basis, (-sympy.Matrix(columns).T).inv()
        return self.inverses[degree]

    # ---- the recursion

    def result(self) -> SlowMotion:
        """Run the recursion over all powers of r and return the motion and the terminal operator."""
        pushed, lift = self.push(self.lifts[0]), Operator(self.home, {self.none: Series(self.home, {0: self.home.one})})
        for k in range(1 if not self.memory else 0, self.largest - self.memory + 1):
            right = pushed - lift - lift @ self.motion
            chi, own = self.solve(_coefficient(right, k + self.memory))
            if k == 0 and chi:
                raise NotExpandable("a buffer must be forgotten faster than the position moves; here it is not.")
            self.motion = self.motion + _at_power(self.home, own, k + self.memory)
            if k:
                self.lifts[k] = chi
                lift = lift + _at_power(self.home, chi, k)
            if chi:
                pushed = pushed + Operator(self.home, {a: c.shifted(k) for a, c in self.push(chi).terms.items()})
        return SlowMotion(self.motion, self._terminal(), self.memory, self.rate)

    def _terminal(self) -> Operator:
        out, most = Operator(self.home, {}), self.home.unit - self.memory
        read: dict[int, Terms] = {}
        for g in self._indices(most):
            c = Fraction(1, math.prod(math.factorial(k) for k in g)) * _product(self.home, {}, g, self.apart)
            for j, p in c.terms.items():
                if j <= most:
                    read.setdefault(j, {})[g] = p
        for k in range(1, most + 1):
            total: Operator = Operator(self.home, {})
            for j, terms in read.items():
                if j <= k:
                    total = total + self._projected(terms, k - j)
            out = out + Operator(self.home, {a: c.shifted(k) for a, c in total.terms.items()})
        return out

    def _projected(self, terms: Terms, k: int) -> Operator:
        """Return Pi_k, the coefficient of r^k of the projection Pi, of the function sum_a c_a(y, F) d^a h: an operator on h without powers of r."""
        chi, own = self.solve(terms)
        if k == 0 or not terms:
            return _at_power(self.home, own, 0)
        chi = {a: -p for a, p in chi.items()}
        pushed, out = self.push(chi), Operator(self.home, {})
        plain = _at_power(self.home, own, 0)
        for j in range(1, k + 1):
            motion = _at_power(self.home, _coefficient(self.motion, j + self.memory), 0)
            if chi and motion.terms:
                out = out + motion @ self._projected(chi, k - j)
            out = out - self._projected(_coefficient(pushed, j + self.memory), k - j)
            lifted = _at_power(self.home, self.lifts.get(j, {}), 0) @ plain
            out = out - self._projected(_coefficient(lifted, 0), k - j)
        return out


def _coefficient(operator: Operator, power: int) -> Terms:
    """Return the coefficients of r^power of an operator, polynomials by multi-index."""
    return {a: c.terms[power] for a, c in operator.terms.items() if power in c.terms}


def _at_power(home: DifferentialRing, terms: Terms, power: int) -> Operator:
    return Operator(home, {a: Series(home, {power: p}) for a, p in terms.items()})


def _product(home: DifferentialRing, known: dict[Index, Series], powers: Sequence[int], factors: Sequence[Series]) -> Series:
    """Return prod_i factors[i]^powers[i]; the exponents beyond the number of factors are not used. Results are stored in `known` by their exponents."""
    index = tuple(powers[: len(factors)])
    if index not in known:
        i = next((k for k, n in enumerate(index) if n), None)
        if i is None:
            known[index] = Series(home, {0: home.one})
        else:
            known[index] = _product(home, known, (*index[:i], index[i] - 1, *index[i + 1 :]), factors) * factors[i]
    return known[index]


def _memory(home: DifferentialRing, still: list[list[Any]]) -> int:
    """Return the memory m, if 1 - B = r^m (M + ...) with an invertible matrix M of numbers, where F' = B F + ... is the motion of the buffers.

    Args:
        home: The `DifferentialRing` of the coefficients, polynomials in the coordinates of the state and the draws of a step.
        still: The rows of the matrix 1 - B, or of its transpose, series.

    Raises:
        NotExpandable: If there is no such m below the power of r that is the time of a step, or the buffers grow.
    """

    def numbers(power: int) -> np.ndarray:
        return np.array([[float(home.expression(c.terms.get(power, home.zero))) for c in row] for row in still])

    m = min((c.valuation for row in still for c in row), default=0)
    if 0 <= m < home.unit:
        values = np.linalg.eigvals(numbers(m))
        if (abs(1 - values) < 1 - 1e-12).all() if m == 0 else (values.real > 1e-12).all():
            return m
    raise NotExpandable(
        "a buffer must be forgotten in a time that tends to 0 with the step: 1 - beta constant, or a power of eta below the first; otherwise "
        "compare the whole state."
    )


def _solve(matrix: list[list[Any]], right: Sequence[Any]) -> list[Any]:
    """Return the solution of a linear system of n rows of series, a list of n series, by elimination with the largest pivot as r tends to 0."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    n = len(rows)
    for i in range(n):
        best = min(range(i, n), key=lambda k: rows[k][i].valuation)
        rows[i], rows[best] = rows[best], rows[i]
        rows[i] = [e / rows[i][i] for e in rows[i]]
        for k in range(n):
            if k != i:
                rows[k] = [e - rows[k][i] * own for e, own in zip(rows[k], rows[i])]
    return [row[-1] for row in rows]
