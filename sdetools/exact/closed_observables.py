"""Observables h whose expectation E h(x) is known exactly, from the mean and covariance of x.

Polynomials of degree <= 2 need only the mean and covariance, whatever the law. For a Gaussian law, an expression may also contain terms
c f(w . x + b), where f is |.|^p, (.)^n, exp, sin, cos, sign, or the indicator of a half-line: a comparison, a Heaviside function, or `Below`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import select
from sdetools.exact.covariance import sizes
from sdetools.exact.gaussian import absolute_moment, probability_below, raw_moment
from sdetools.graph.value import Trace
from sdetools.losses.graphs import NONSMOOTH


@dataclass(frozen=True)
class Absolute:
    """The observable h(x) = |x_i - a|^p, which has a kink at a for p <= 1.

    If a is x_i at the start and 1 - beta ~ eta^alpha with alpha < 1, the weak gap E h(x_k) - E h(z_k) between SGDM and SGD has the order
    (1 - alpha)/2 in eta of the paper's Theorem 3.5 for p = 1, and only p (1 - alpha)/2 for p < 1.

    Args:
        a: The centre, finite.
        p: The exponent, positive.
        coordinate: The index i of the coordinate, from 0.

    Raises:
        ValueError: If p <= 0, if a is not finite, or if the index is not an integer >= 0.

    Example:
        >>> import numpy as np
        >>> import sdetools as st
        >>> st.exact.Absolute(1.0, p=0.5).value(np.array([[1.0, 5.0]]))
        array([0., 2.])
    """

    a: float
    p: float = 1.0
    coordinate: int = 0

    def __post_init__(self) -> None:
        _check.number("a", self.a)
        _check.positive("p", self.p)
        _check.count("coordinate", self.coordinate, least=0)

    def value(self, x: np.ndarray) -> Any:
        """Return |x_i - a|^p: a number for one point `(dim,)`, `(paths,)` for many `(dim, paths)`, or a traced value for a traced point."""
        return abs(x[self.coordinate] - self.a) ** self.p


@dataclass(frozen=True)
class Below:
    """The observable h(x) = 1 where x_i <= a and 0 elsewhere, whose expectation is the distribution function of x_i at a.

    Args:
        a: The threshold, finite.
        coordinate: The index i of the coordinate, from 0.

    Raises:
        ValueError: If a is not finite, or if the index is not an integer >= 0.

    Example:
        >>> import numpy as np
        >>> import sdetools as st
        >>> st.exact.Below(0.0).value(np.array([[-1.0, 0.0, 2.0]]))
        array([1., 1., 0.])
    """

    a: float
    coordinate: int = 0

    def __post_init__(self) -> None:
        _check.number("a", self.a)
        _check.count("coordinate", self.coordinate, least=0)

    def value(self, x: np.ndarray) -> Any:
        """Return 1.0 where x_i <= a, else 0.0: a number for one point `(dim,)`, `(paths,)` for many `(dim, paths)`, or a traced value."""
        return select(x[self.coordinate] <= self.a, 1.0, 0.0)


@dataclass(frozen=True)
class Term:
    """The term scale * f(u), u = weights . x + offset, of an observable, such as 2 * cos(x + 3 y).

    Attributes:
        scale: The factor.
        weights: The weights of the linear form, `dim` numbers.
        offset: The constant of the linear form.
        mean: The function f through its expectation: `mean(m, v)` is E f(u) for u ~ N(m, v), entry by entry for arrays of means m and variances v.
    """

    scale: float
    weights: tuple[float, ...]
    offset: float
    mean: Callable[[np.ndarray, np.ndarray], np.ndarray | float]


@dataclass(frozen=True)
class Closed:
    """The observable h(x) = constant + linear . x + x^T second x / 2 + terms, whose expectation under a Gaussian law is known in closed form.

    Attributes:
        constant: The constant term.
        linear: The coefficients of degree 1, shape `(dim,)`.
        second: The symmetric matrix of degree 2, shape `(dim, dim)`.
        terms: The other terms. Without terms, the expectation depends only on the mean and covariance, for any law.
    """

    constant: float
    linear: np.ndarray
    second: np.ndarray
    terms: tuple[Term, ...] = ()

    def expectation(self, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """Return E h(x) at each time, shape `(times,)`, for x with means `(times, dim)` and covariances `(times, dim, dim)`.

        If there are `terms`, x must be Gaussian; this is not checked.
        """
        moment = covariance + mean[:, :, None] * mean[:, None, :]
        out = self.constant + mean @ self.linear + 0.5 * np.einsum("tij,ij->t", moment, self.second)
        for term in self.terms:
            w = np.array(term.weights)
            variance = np.maximum(np.einsum("tij,i,j->t", covariance, w, w), 0.0)
            out = out + term.scale * term.mean(mean @ w + term.offset, variance)
        return out


def closed(observable: Any, names: tuple[str, ...], origin: np.ndarray) -> Closed | None:
    """Return the closed form of an observable, or None if it is no quadratic polynomial and no sum of one with terms c f(w . x + b).

    f is |.|^p, (.)^n, exp, sin, cos, sign, or the indicator of a half-line or of a point.

    Args:
        observable: An expression such as "x**2 + abs(y)", an `Absolute`, a `Below`, or an object with a method `value`; if that is no quadratic
            polynomial, the result is None.
        names: The names of the coordinates in expressions, `dim` of them.
        origin: A point `(dim,)`. A method `value` is called there and nearby, to find coefficients by differences. The coefficients are in powers of x,
            not of x - `origin`.

    Returns:
        A `Closed`: constant, linear and quadratic coefficients and the other terms, with a method for the expectation under a Gaussian law.

    Raises:
        ValueError: If the coordinate of an `Absolute` or a `Below` does not exist, or if an expression is invalid.
    """
    dim = len(names)
    if isinstance(observable, (Absolute, Below)):
        if observable.coordinate >= dim:
            raise ValueError(
                f"`coordinate` must lie in 0..{dim - 1}; got {observable.coordinate}. The loss has {dim} coordinates."
            )
        weights = tuple(np.eye(dim)[observable.coordinate])
        mean = (
            partial(probability_below, a=0.0)
            if isinstance(observable, Below)
            else partial(absolute_moment, a=0.0, p=observable.p)
        )
        return Closed(0.0, np.zeros(dim), np.zeros((dim, dim)), (Term(1.0, weights, -observable.a, mean),))
    text = _text(observable)
    found = None if text is None else _from_text(text, names)
    if found is None and hasattr(observable, "value") and not _nonsmooth(observable.value, dim):
        found = _from_values(observable.value, origin)
    return found


def value_of(observable: Any, names: tuple[str, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function x -> h(x) of an observable, from `(dim, paths)` to `(paths,)`.

    Args:
        observable: An expression such as "x**2 + abs(y)"; an object with a method `value`, which is returned; or a function, which is returned
            as it is. Methods and functions are not checked.
        names: The names of the coordinates in expressions.

    Raises:
        ValueError: If the observable is none of these.
    """
    if isinstance(observable, str):
        from sdetools.losses.compiled_expression import compile as compile_expressions
        from sdetools.losses.parser import parse

        function = compile_expressions([parse(observable, names, (), "observable", _names_hint(names))], names, ())
        return lambda x: function(x)[0]
    if hasattr(observable, "value"):
        return observable.value
    if callable(observable):
        return observable
    raise ValueError(
        f"`observable` must be an expression or have a `value(x)` method; got {_check.shown(observable)}. "
        "Write an expression such as 'x**2', or use `exact.Absolute`."
    )


def _names_hint(names: tuple[str, ...]) -> str:
    """Return the sentence that an error about an unknown name in an observable ends with."""
    return f"The loss has the variables {' '.join(names)}; write these, and constants as numbers."


def _text(observable: Any) -> str | None:
    """Return the expression of an observable, itself a text or an object with the attribute `text`; None for others."""
    if isinstance(observable, str):
        return observable
    text = getattr(observable, "text", None)
    return text if isinstance(text, str) else None


def _nonsmooth(value: Callable, dim: int) -> bool:
    """Return whether the method `value` of an observable in `dim` coordinates has a jump or a kink, which points nearby need not show.

    False if it cannot be traced into a formula.
    """
    trace = Trace()
    try:
        with np.errstate(all="ignore"):
            value(trace.input("x", (dim,)))
    except Exception:  # a function that cannot be traced, for any reason
        return False
    return any(node.name in NONSMOOTH for node in trace.known.values())


def _from_values(value: Callable, origin: np.ndarray) -> Closed | None:
    """Return the polynomial of degree <= 2 that a function `(dim, paths)` -> `(paths,)` is, from second differences about `origin`, `(dim,)`.

    None if values at random points near and far show that it is none.
    """
    dim = len(origin)

    def at(shifts: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(value(origin[:, None] + shifts), dtype=float), (shifts.shape[1],))

    rng = np.random.default_rng(20240604)
    random = rng.standard_normal((dim, 24)) * np.repeat(10.0 ** np.arange(-1.0, 3.0), 6)
    with np.errstate(all="ignore"):
        base, probed = at(np.zeros((dim, 1)))[0], at(random)
        plus, minus = at(np.eye(dim)), at(-np.eye(dim))
        pairs = at(np.repeat(np.eye(dim), dim, axis=1) + np.tile(np.eye(dim), dim)).reshape(dim, dim)
        slope, second = (plus - minus) / 2, pairs - plus[:, None] - plus[None, :] + base
        np.fill_diagonal(second, plus + minus - 2 * base)
        expected = base + slope @ random + 0.5 * np.einsum("ij,ip,jp->p", second, random, random)
        if not np.all(np.abs(probed - expected) <= 1e-10 * sizes(base, np.stack([plus, minus]), random)):
            return None
    linear = slope - second @ origin
    return Closed(float(base - slope @ origin + 0.5 * origin @ second @ origin), linear, second)


def _from_text(text: str, names: tuple[str, ...]) -> Closed | None:
    """Return the closed form of an expression in the coordinates `names`; None if some term is neither quadratic nor of the form c f(w . x + b)."""
    import sympy

    from sdetools.losses.kinks import Larger, Magnitude
    from sdetools.losses.parser import parse, symbol

    symbols = [symbol(name) for name in names]
    expression = parse(text, names, (), "observable", _names_hint(names)).replace(
        Larger, lambda u, v: (u + v + Magnitude(u - v)) / 2
    )
    return _from_sum(expression, symbols) or _from_sum(sympy.expand(expression), symbols)


def _from_sum(expression: Any, symbols: list) -> Closed | None:
    """Return the closed form of a SymPy expression, term by term of its sum; None if some term has none. `symbols` are those of the coordinates."""
    import sympy

    dim = len(symbols)
    constant, linear, second, terms = 0.0, np.zeros(dim), np.zeros((dim, dim)), []
    for part in sympy.Add.make_args(expression):
        if part.is_polynomial(*symbols) and sympy.Poly(part, *symbols).total_degree() <= 2:
            for powers, coefficient in sympy.Poly(part, *symbols).terms():
                at = [i for i, power in enumerate(powers) for _ in range(power)]
                if not at:
                    constant += float(coefficient)
                elif len(at) == 1:
                    linear[at[0]] += float(coefficient)
                else:
                    second[at[0], at[1]] += float(coefficient)
                    second[at[1], at[0]] += float(coefficient)
            continue
        term = _term(part, symbols)
        if term is None:
            return None
        terms.append(term)
    return Closed(constant, linear, second, tuple(terms))


def _term(part: Any, symbols: list) -> Term | None:
    """Return the SymPy expression `part` as a term c f(w . x + b) with a known mean of f under a normal law; None if it is none."""
    import sympy

    from sdetools.losses.kinks import Above, AtLeast, Magnitude, SameNumber, SignFunction, UnitStep

    scale, kernel = part.as_independent(*symbols, as_Add=False)
    base, power = kernel.as_base_exp()
    if isinstance(kernel, sympy.exp):
        inner, mean = kernel.args[0], _mean_exp
    elif isinstance(base, Magnitude) and power.is_number and power > 0:
        inner, mean = base.args[0], partial(absolute_moment, a=0.0, p=float(power))
    elif isinstance(kernel, SignFunction):
        inner, mean = kernel.args[0], _mean_sign
    elif isinstance(kernel, (Above, AtLeast)):
        inner, mean = kernel.args[0] - kernel.args[1], partial(_mean_step, at_zero=float(isinstance(kernel, AtLeast)))
    elif isinstance(kernel, UnitStep) and kernel.args[1].is_number:
        inner, mean = kernel.args[0], partial(_mean_step, at_zero=float(kernel.args[1]))
    elif isinstance(kernel, SameNumber):
        inner, mean = kernel.args[0] - kernel.args[1], _mean_zero
    elif isinstance(kernel, sympy.cos):
        inner, mean = kernel.args[0], _mean_cos
    elif isinstance(kernel, sympy.sin):
        inner, mean = kernel.args[0], _mean_sin
    elif power.is_Integer and power > 2:
        inner, mean = base, partial(raw_moment, n=int(power))
    else:
        return None
    if not inner.is_polynomial(*symbols):
        return None
    polynomial = sympy.Poly(inner, *symbols)
    if polynomial.total_degree() != 1:
        return None
    weights = tuple(float(polynomial.coeff_monomial(symbol)) for symbol in symbols)
    return Term(float(scale), weights, float(polynomial.coeff_monomial(1)), mean)


def _mean_exp(m: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.exp(m + v / 2)


def _mean_cos(m: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.cos(m) * np.exp(-v / 2)


def _mean_sin(m: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sin(m) * np.exp(-v / 2)


def _mean_sign(m: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.where(v == 0, np.sign(m), 1 - 2 * probability_below(m, v, 0.0))


def _mean_step(m: np.ndarray, v: np.ndarray, at_zero: float) -> np.ndarray:
    return np.where(v == 0, np.heaviside(m, at_zero), 1 - probability_below(m, v, 0.0))


def _mean_zero(m: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((m == 0) & (v == 0)).astype(float)
