"""The comparison of two one-step generators: the weak order, the leading error operator, and the constant of the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools.exact.generators.flow_constants import flow_constant
from sdetools.exact.generators.formula_texts import decimal, formula_texts, formulas, shown
from sdetools.results.saving import Saved

if TYPE_CHECKING:
    import xarray

Index = tuple[int, ...]
"""A multi-index a: the order of the derivative d^a in each coordinate."""


@dataclass(frozen=True, eq=False, repr=False)
class GeneratorGap(Saved):
    """The weak order of a rule with respect to an SDE and the leading error operator Psi; `exact.generator_gap` makes it.

    tau is the time of a step, and one step of the rule minus the SDE's changes E f by tau^(weak_order + 1) Psi f + ... `save` writes it to a file
    for `st.load`, with the coefficients as texts, which the parser of expressions reads.

    Attributes:
        rule: The name of the rule.
        sde: The SDE as text.
        names: The names of the coordinates of the state; "t" is the time, if an equation depends on it.
        weak_order: The derived weak order in tau, a multiple of 1/2 or of a smaller fraction. 0 or negative if the SDE has another limit or none.
        leading: Psi: a dict from multi-indices a, the orders of the derivatives along each of `names`, to the coefficient of d^a, a SymPy expression in
            the coordinates. Empty if it is not known; `note` says why.
        limit: The generator of the SDE as tau tends to 0, a dict of the same form.
        step_time: The time of a step of the rule as given, a number.
        gain: The gain of a linear filter with constant beta whose position was compared: it moves like SGD with gain times its learning rate. Else None.
        terminal: For such a filter a second operator O, a dict of the same form: E h of the position at a time is E (h + tau^weak_order O h) of the slow
            variable, whose steps have the leading error Psi. Else empty.
        note: A sentence on what is not derived; empty if there is nothing.
    """

    rule: str
    sde: str
    names: tuple[str, ...]
    weak_order: float
    leading: Mapping[Index, Any]
    limit: Mapping[Index, Any]
    step_time: float
    gain: float | None = None
    terminal: Mapping[Index, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("leading", "limit", "terminal"):
            object.__setattr__(self, name, formulas(getattr(self, name), self.names))

    def stored(self) -> dict[str, Any]:
        """Return the fields by name, with formulas as texts, as `save` writes them."""
        return super().stored() | {name: formula_texts(getattr(self, name)) for name in ("leading", "limit", "terminal")}

    @property
    def power(self) -> float:
        """The power of tau of the leading error in one step: weak_order + 1."""
        return self.weak_order + 1

    @property
    def text(self) -> str:
        """The leading error operator Psi as a text, such as "(x/2) d_x + (1/4) d_x^2"; empty if it is not known."""
        return " + ".join(f"({shown(c)}) {derivative_text(a, self.names)}" for a, c in self.leading.items())

    @property
    def latex(self) -> str:
        """The leading error of one step in LaTeX, tau^(weak_order + 1) Psi, without dollar signs; empty if it is not known."""
        if not self.leading:
            return ""
        return rf"\tau^{{{self.power:g}}}\left[{operator_latex(self.leading, self.names)}\right]"

    def table(self) -> str:
        """Return the weak order, and a line for each term of the leading error operator: its coefficient and its derivative, such as d_x^2.

        For a linear filter the terms of `terminal` follow, then `note`, if there is one.
        """
        lines = [f"weak order {self.weak_order:g}" + (f", leading error tau^{self.power:g} times" if self.leading else "")]
        width = max((len(shown(c)) for c in (*self.leading.values(), *self.terminal.values())), default=0)
        width = max(width, len("coefficient"))
        if self.leading or self.terminal:
            lines.append(f"{'coefficient':>{width}}  derivative")
        lines += [f"{shown(c):>{width}}  {derivative_text(a, self.names)}" for a, c in self.leading.items()]
        if self.terminal:
            lines.append(f"and, at the end of a run, E h with h + tau^{self.weak_order:g} times")
        lines += [f"{shown(c):>{width}}  {derivative_text(a, self.names)}" for a, c in self.terminal.items()]
        return "\n".join([*lines, self.note] if self.note else lines)

    @property
    def data(self) -> xarray.Dataset:
        """The terms of the leading error operator Psi, then those of the terminal operator O, as a dataset over (term, coordinate).

        `index` (term, coordinate) has the orders of the derivatives and `coefficient` (term) the coefficients as texts. The coordinate `operator`
        (term) is "step" for Psi and "terminal" for O, and `coordinate` has `names`.
        """
        import xarray

        rows = [("step", a, c) for a, c in self.leading.items()] + [("terminal", a, c) for a, c in self.terminal.items()]
        index = np.array([a for _, a, _ in rows], dtype=int).reshape(len(rows), len(self.names))
        variables: dict[str, Any] = {
            "index": (("term", "coordinate"), index),
            "coefficient": ("term", [str(c) for _, _, c in rows]),
        }
        attributes = {"rule": self.rule, "sde": self.sde, "weak_order": self.weak_order, "power": self.power, "note": self.note}
        coordinates = {"coordinate": list(self.names), "operator": ("term", [name for name, _, _ in rows])}
        return xarray.Dataset(variables, coordinates, attributes)

    def local(self, observable: str, at: Sequence[float]) -> float:
        """Return (Psi h)(x): one step from x changes E h by tau^(weak_order + 1) times this more than the SDE does.

        For a linear filter x is the slow variable, the combination of position and buffers that gradients alone move, after the first few steps.

        Args:
            observable: The function h, an expression in `names`, such as "x**2".
            at: The point x, one number for each of `names`.

        Raises:
            ValueError: If Psi is not known, or an argument is invalid.

        Example:
            >>> import sdetools as st
            >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2", "x"), st.noise.gaussian(dim=1))
            >>> sgd, limit = st.SGD(oracle, st.schedules.constant(0.1)), st.ModifiedSDE(oracle, 0.1, order=1)
            >>> st.exact.generator_gap(sgd, limit).local("x**2", [3.0])
            -9.0
        """
        import sympy

        from sdetools.losses.parser import symbol

        h, point = self._observable(observable), _check.point("at", at, len(self.names), self.names)
        symbols = [symbol(name) for name in self.names]
        value = sum((c * _derivative(h, symbols, a) for a, c in self.leading.items()), sympy.S.Zero)
        return float(value.subs(dict(zip(symbols, point.tolist(), strict=True))))

    def constant(self, observable: str, x0: Sequence[float], horizon: float) -> float:
        """Return C in E h(x_k) - E h(X_T) = C tau^weak_order + o(tau^weak_order), T = k tau.

        x_k is the rule and X_T the SDE, both from x0, and tau the time of a step. C is int_0^T exp(s A) Psi exp((T-s) A) h ds at x0, with the leading
        error operator Psi of a step and the generator A of the limit, the SDE as tau tends to 0. A limit without noise (sigma constant) may have any
        drift, and h be any smooth function. With noise the limit must be linear and h a polynomial: A is a matrix on polynomials. For a linear filter
        exp(T A) O h with the operator O of `terminal` is added, and T must be long compared with its memory.

        Args:
            observable: The function h, an expression in `names`, such as "x**2".
            x0: The start, one number for each of `names`.
            horizon: The time T, positive.

        Raises:
            ValueError: If Psi is not known, or the limit has noise and is not linear or h no polynomial; `local` has the error of one step
                there.

        Example:
            >>> import sdetools as st
            >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2", "x"), st.noise.gaussian(dim=1))
            >>> sgd, limit = st.SGD(oracle, st.schedules.constant(0.1)), st.ModifiedSDE(oracle, 0.1, order=1)
            >>> round(st.exact.generator_gap(sgd, limit).constant("x**2", [1.0], horizon=1.0), 6)  # exp(-2)
            -0.135335
        """
        import sympy
        from scipy.linalg import expm

        from sdetools.losses.parser import symbol

        h, point = self._observable(observable), _check.point("x0", x0, len(self.names), self.names)
        horizon = _check.positive("horizon", horizon)
        symbols = [symbol(name) for name in self.names]
        if all(sum(a) == 1 for a in self.limit):
            return flow_constant(self.limit, self.leading, self.terminal, h, symbols, point, horizon)
        if not h.is_polynomial(*symbols):
            raise ValueError(f"`observable` must be a polynomial here; got {observable!r}. The error of one step is `local`.")
        degree = sympy.Poly(h, *symbols).total_degree()
        basis = [a for a in product(range(degree + 1), repeat=len(symbols)) if sum(a) <= degree]
        place = {a: i for i, a in enumerate(basis)}

        def column(expression: Any) -> np.ndarray:
            out = np.zeros(len(basis))
            polynomial = sympy.expand(expression)
            known = polynomial.is_polynomial(*symbols)
            for powers, c in sympy.Poly(polynomial, *symbols).terms() if known else [((degree + 1,), 0)]:
                if not known or (powers not in place and c != 0):
                    raise ValueError("the limit must have a linear drift and diffusion for a constant; use `local` for one step.")
                if c != 0:
                    out[place[powers]] = float(c)
            return out

        def matrix(terms: Mapping[Index, Any]) -> np.ndarray:
            columns = []
            for powers in basis:
                monomial = sympy.prod([s**k for s, k in zip(symbols, powers)])
                columns.append(column(sum((c * _derivative(monomial, symbols, a) for a, c in terms.items()), sympy.S.Zero)))
            return np.array(columns).T

        A, psi, last, n = matrix(self.limit), matrix(self.leading), matrix(self.terminal), len(basis)
        both = expm(horizon * np.block([[A, psi], [np.zeros((n, n)), A]]))
        values = np.array([np.prod(point ** np.array(a)) for a in basis])
        return float(values @ (both[:n, n:] + both[:n, :n] @ last) @ column(h))

    def _observable(self, observable: str) -> Any:
        from sdetools.losses.parser import parse

        if not self.leading and not self.terminal:
            raise ValueError(f"the leading error operator must be known; {self.note or 'it is not.'}")
        return parse(observable, self.names)

    def __repr__(self) -> str:
        leading = f", leading error tau^{self.power:g} [{cut(self.text)}]" if self.leading else ""
        leading += ", and a term at the end of a run" if self.terminal else ""
        return f"GeneratorGap({self.rule} - {self.sde}: weak order {self.weak_order:g}{leading})"


def cut(text: str, longest: int = 160) -> str:
    """Return a text of at most `longest` characters, with an ellipsis in place of its end."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _derivative(h: Any, symbols: Sequence[Any], index: Index) -> Any:
    """Return d^a h for a SymPy expression h, with `index` the orders a of the derivatives along `symbols`."""
    for s, k in zip(symbols, index):
        h = h.diff(s, k) if k else h
    return h


def derivative_text(index: Index, names: Sequence[str]) -> str:
    """Return d^a as a text, from the orders a of the derivatives and the names of the coordinates.

    Example:
        >>> derivative_text((2, 1), ("x", "y"))
        'd_x^2 d_y'
    """
    return " ".join(f"d_{name}" + (f"^{k}" if k > 1 else "") for name, k in zip(names, index) if k)


def operator_latex(terms: Mapping[Index, Any], names: Sequence[str]) -> str:
    """Return a differential operator in LaTeX: the sum of its coefficients, SymPy expressions by multi-index, times partial derivatives along `names`."""
    import sympy

    out = []
    for index, c in terms.items():
        derivative = "".join(rf"\partial_{{{name}}}" + (f"^{{{k}}}" if k > 1 else "") for name, k in zip(names, index) if k)
        out.append(rf"\left({sympy.latex(decimal(c))}\right){derivative}")
    return " + ".join(out)
