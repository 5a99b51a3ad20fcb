"""An SDE that is derived from a rule: drift and covariance in powers of the step's time, and a root of the covariance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sdetools._arrays import numeric
from sdetools.dynamics.sdes.sde import SDE
from sdetools.exact.generators.differential_ring import ROUNDING, DifferentialRing, NotExpandable
from sdetools.exact.generators.formula_texts import readable, shown
from sdetools.exact.generators.generator_result import Index
from sdetools.exact.generators.one_step import OneStep
from sdetools.exact.generators.radial_means import radial_mean

LONGEST_TEXT = 9_000
"""Largest number of characters of an entry of drift or diffusion."""


class DerivedSDE(SDE):
    """The modified equation of a rule, an SDE of expressions in the coordinates and the step's time; `exact.modified_equation` makes it.

    Its state has the parts of the rule one after another, such as x and m, of `dim` coordinates each: n = dim * len(parts) numbers. For an
    equation in terms of sqrt(gamma) m or v / sigma^2 (see `exact.modified_equation`) the part has the name of m or v.

    Args:
        rule: The name of the rule.
        parts: The names of the parts of the state, which are those of the rule.
        names: The names of the n coordinates of all parts, one part after another.
        drift: The drift a of dX = a dt + b dW (Ito), a SymPy expression for each of the n coordinates.
        diffusion: The diffusion b, n rows with a SymPy expression for each Brownian motion; empty rows without noise.
        step: The name of the step's time in the expressions, "eta" or "tau", and its value.
        weak_order: The weak order with which it approximates the rule.
        starts: The starts of the parts after x, arrays `(dim,)`, or None for a part that starts at x0.

    Raises:
        NotExpandable: If an entry of drift or diffusion has more than 9,000 characters.

    Attributes:
        drift_expressions: The drift, as given, a tuple.
        diffusion_expressions: The diffusion, as given, a tuple of rows.
        weak_order: The weak order, as given.
        starts: The starts of the parts after x, as given.
    """

    def __init__(
        self,
        rule: str,
        parts: tuple[str, ...],
        names: tuple[str, ...],
        drift: Sequence[Any],
        diffusion: Sequence[Sequence[Any]],
        step: tuple[str, float],
        weak_order: int,
        starts: Sequence[np.ndarray | None] = (),
    ) -> None:
        texts = [str(e) for e in drift], [[str(e) for e in row] for row in diffusion]
        longest = max(len(e) for row in [texts[0], *texts[1]] for e in row)
        if longest > LONGEST_TEXT:
            raise NotExpandable(f"the modified equation must have entries of at most {LONGEST_TEXT} characters; got {longest}.")
        super().__init__(texts[0], texts[1] if texts[1][0] else None, names, parameters=dict([step]))
        self.parts = parts  # type: ignore[misc]
        self.dim, self.names = len(names) // len(parts), names[: len(names) // len(parts)]
        self.identity += f" parts {' '.join(parts)}"
        self.drift_expressions, self.diffusion_expressions = tuple(drift), tuple(tuple(row) for row in diffusion)
        self.weak_order, self.starts = weak_order, tuple(starts)
        self._rule, self._step, self._all_names = rule, step, names
        self.latex = self._as_latex()

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        return tuple(start for start in self.starts if start is not None)

    def start(self, x0: np.ndarray) -> tuple[np.ndarray, ...]:
        x = numeric(x0)
        return (x, *(x if start is None else start for start in self.starts))

    def table(self) -> str:
        """Return the equation as text, a line such as "dx = (-x) dt + (-sqrt(eta)) dW0" for each coordinate, and the value of the step's time."""
        lines = []
        for name, a, row in zip(self._all_names, self.drift_expressions, self.diffusion_expressions):
            noise = [f"({shown(b)}) dW{k}" for k, b in enumerate(row) if b != 0]
            lines.append(f"d{name} = " + " + ".join([f"({shown(a)}) dt", *noise]))
        name, size = self._step
        return "\n".join([*lines, f"{name} = {size:g}, weak order {self.weak_order}"])

    def _as_latex(self) -> str:
        import sympy

        rows = []
        for name, a, row in zip(self._all_names, self.drift_expressions, self.diffusion_expressions):
            noise = [rf"\left({sympy.latex(b)}\right)\mathrm d W_{{{k}}}" for k, b in enumerate(row) if b != 0]
            rows.append(rf"\mathrm d {name} = " + " + ".join([rf"\left({sympy.latex(a)}\right)\mathrm d t", *noise]))
        return r",\quad ".join(rows)

    def __repr__(self) -> str:
        return f"DerivedSDE({self._rule}, weak order {self.weak_order}, dim={self.dim}, {self.noise_class} noise)"


def derived_sde(
    step: OneStep, rule: Any, terms: Mapping[float, Mapping[Index, Any]], weak_order: int, home: DifferentialRing
) -> DerivedSDE:
    """Return the SDE dX = a dt + b dW whose generator sum_i a_i d_i + (1/2) sum_ij (b b^T)_ij d_i d_j has the given terms.

    Args:
        step: The rule and its numbers.
        rule: The rule at the step size of the equation.
        terms: For each power of the step's time tau the coefficients of d^a by multi-index a, SymPy expressions, of total orders 1 and 2.
        weak_order: The weak order of the equation.
        home: A `DifferentialRing` with the coordinates and draws of the rule.

    Raises:
        NotExpandable: If the covariance has no symbolic root, an entry is too long, or drift or covariance contain means over directions.
    """
    import sympy

    n, name = len(step.names), "eta" if "eta" not in step.names and rule.step_time == rule.plan.eta else "tau"
    tau = sympy.Symbol(name, positive=True)
    drift, covariance = [sympy.S.Zero] * n, sympy.zeros(n, n)
    for power, own in terms.items():
        scale = tau ** sympy.Rational(round(2 * power), 2)
        for a, c in own.items():
            at = [i for i, k in enumerate(a) for _ in range(k)]
            if len(at) == 1:
                drift[at[0]] += scale * c
            else:
                i, j = at
                covariance[i, j] += scale * c * (2 if i == j else 1)
                covariance[j, i] = covariance[i, j]
    if any(e.has(radial_mean()) for e in (*drift, *covariance)):
        raise NotExpandable(
            f"the modified equation must be a formula that can be simulated; that of {rule.name} in {n} coordinates contains means over directions (1F1 or "
            "incomplete gamma functions), which expressions do not have. st.exact.step_generator has its drift and covariance."
        )
    root = _root(step, home, covariance, tau, weak_order) if any(covariance) else sympy.zeros(n, 0)
    plain = {tau: sympy.Symbol(name, real=True)}
    rows = [[readable(e).xreplace(plain) for e in root.row(i)] for i in range(n)]
    kept = [part for part in rule.parts if part not in step.idle]
    first = dict(zip(rule.parts, rule.start(np.zeros(rule.dim)), strict=True))
    starts = []
    for i, part in enumerate(kept[1:], start=1):
        unit = step.numbers.units[i] if step.numbers.units else {0: 1.0}
        scale = sum(c * rule.step_time ** (j / 2) for j, c in unit.items())
        starts.append(None if part in rule.at_x0 else scale * np.asarray(first[part], dtype=float))
    own_drift = [readable(e).xreplace(plain) for e in drift]
    return DerivedSDE(rule.name, tuple(kept), step.names, own_drift, rows, (name, rule.step_time), weak_order, starts)


def _root(step: OneStep, home: DifferentialRing, covariance: Any, tau: Any, weak_order: int) -> Any:
    """Return a SymPy matrix R with R R^T = covariance + O(tau^weak_order), one column for each Brownian motion.

    Candidates are the linear response of a step to its draws, this one corrected to first order, and a Cholesky factor in up to three coordinates.

    Args:
        step: The rule.
        home: A `DifferentialRing` with its coordinates and draws.
        covariance: The covariance b b^T of the noise, a SymPy matrix `(n, n)`.
        tau: The symbol of the step's time.
        weak_order: The power of tau from which terms are dropped.

    Raises:
        NotExpandable: If none of them is a root.
    """
    import sympy

    largest = 2 * weak_order + 1
    change, moments, _ = step.moments(home, largest)
    n, q = len(change), len(home.z)
    root = sympy.zeros(n, q)
    for i, one in enumerate(change):
        for j, p in one.terms.items():
            if j < 2 * weak_order:
                for k in range(q):
                    part = home.linear_part(p, k)
                    if part and moments[k](2) == home.one and not moments[k](1):
                        root[i, k] += readable(home.expression(part)) * tau ** sympy.Rational(j - 1, 2)
    size = max(
        (abs(float(sympy.N(c))) for e in covariance for t in sympy.Add.make_args(sympy.expand(e)) for c in [t.as_coeff_Mul()[0]]),
        default=1.0,
    )
    root = root[:, [k for k in range(q) if any(root[:, k])]]
    rest = _truncated(covariance - root * root.T, tau, weak_order, size)
    if not any(rest):
        return root
    lowest = {k for e in [*root] for k in _powers(e, tau)}
    if root.rows == root.cols and lowest:
        first = min(lowest)
        leading = root.applyfunc(lambda e: _powers(e, tau).get(first, sympy.S.Zero) * tau**first)
        rest = _truncated(covariance - leading * leading.T, tau, weak_order, size)
        if leading.det() != 0:
            corrected = (leading + rest * leading.inv().T / 2).applyfunc(sympy.expand)
            if not any(_truncated(covariance - corrected * corrected.T, tau, weak_order, size)):
                return corrected
    if n <= 3:
        try:
            factor = covariance.cholesky(hermitian=False).applyfunc(_without_magnitude)
        except (ValueError, sympy.matrices.exceptions.NonPositiveDefiniteMatrixError):
            factor = sympy.zeros(n, n)
        if not any(_truncated(covariance - factor * factor.T, tau, weak_order, size)):
            return factor
    raise NotExpandable(
        "the covariance of the noise must have a symbolic root; this one has none that is found. Take a lower weak order."
    )


def _without_magnitude(expression: Any) -> Any:
    """Return an expression with u for |u| = sqrt(u^2), a root of the same square that is smooth."""
    import sympy

    return sympy.powdenest(expression, force=True).replace(sympy.Abs, lambda u: u)


def _powers(expression: Any, tau: Any) -> dict[Any, Any]:
    """Return a SymPy expression as a sum of powers of tau: a dict from exponents, SymPy numbers, to coefficients without tau."""
    import sympy

    out: dict[Any, Any] = {}
    for term in sympy.Add.make_args(sympy.expand(expression)):
        c, own = term.as_independent(tau)
        if term != 0:
            power = own.as_base_exp()[1] if own != 1 else sympy.S.Zero
            out[power] = out.get(power, sympy.S.Zero) + c
    return out


def _negligible(expression: Any, size: float) -> bool:
    """Return whether an expression is 0, or has coefficients with floats that are all 0 up to rounding relative to `size`."""
    import sympy

    if expression == 0 or not expression.has(sympy.Float):
        return bool(expression == 0)
    return all(abs(float(sympy.N(t.as_coeff_Mul()[0]))) <= ROUNDING * size for t in sympy.Add.make_args(sympy.expand(expression)))


def _truncated(matrix: Any, tau: Any, weak_order: int, size: float) -> Any:
    """Return a matrix without powers of tau from tau^weak_order on, and with entries that vanish identically set to 0.

    Args:
        matrix: The matrix, in SymPy.
        tau: The step's time.
        weak_order: The first power that is dropped.
        size: The size of the terms that cancel in it.
    """
    import sympy

    def entry(e: Any) -> Any:
        kept = {k: c if _negligible(c, size) else sympy.simplify(c) for k, c in _powers(e, tau).items() if k < weak_order}
        return sum((c * tau**k for k, c in kept.items() if not _negligible(c, size)), sympy.S.Zero)

    return matrix.applyfunc(entry)
