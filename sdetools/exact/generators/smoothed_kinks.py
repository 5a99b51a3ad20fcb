r"""Signs and clipping of noisy numbers in a step: random variables whose moments are smooth functions of the state.

For g ~ N(m, v) in one coordinate, with Phi and phi the normal distribution function and density, a = (low - m)/s, b = (high - m)/s, s = v^(1/2),

    E sign(g)^k       = erf(m / (2 v)^(1/2)) for odd k, 1 for even k
    E clip(g)^k       = low^k Phi(a) + high^k (1 - Phi(b)) + I_k,        clip(g) = min(max(g, low), high)
    I_0 = Phi(b) - Phi(a),        I_k = m I_(k-1) + (k-1) v I_(k-2) - s (high^(k-1) phi(b) - low^(k-1) phi(a)).

So an expansion takes sign(g) or clip(g) itself for a new draw of the ring (`differential_ring`), whose moments depend on the state. Its noise must be
independent of all other draws of the step; besides the normal law `exact.generators.noisy_laws` has Student's, Cauchy's, and mixtures. The error
function of an SDE's drift, and a maximum with 0 under a root, are recognised in the graph of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from sdetools.dynamics.rules.clipping import clipped_by_norm
from sdetools.dynamics.rules.without_gain import direction
from sdetools.exact.generators.differential_ring import DifferentialRing, NotExpandable
from sdetools.exact.generators.noisy_laws import INDEPENDENT, NoisyNumber, noisy_number, student_moment
from sdetools.exact.generators.power_series import Series
from sdetools.exact.generators.radial_laws import ISOTROPIC, isotropic_law, radial_moment
from sdetools.graph.error_function import erf
from sdetools.graph.value import Value, is_number, order


@dataclass(frozen=True)
class Kink:
    """A sign or a clipping in the graph of operations of a step.

    Attributes:
        node: The node of the graph that is its value, such as sign(g).
        inner: The node of its argument g, of the same shape.
        bounds: The pair (low, high) of a clipping by value, finite; empty for a sign, and where `norm` is given.
        norm: The largest norm of a vector that is clipped as a whole, 0 for one that is normalised; None for signs and clipping by value.
    """

    node: Value
    inner: Value
    bounds: tuple[float, ...] = ()
    norm: float | None = None


@dataclass(frozen=True)
class Smoothed:
    """Signs and clippings as new draws, which the ring counts after those of the step's noise.

    Attributes:
        values: For each `Kink` an array of its shape, whose entries are series that consist of one new draw; equal arguments have the same draw.
        moments: For each new draw a function of the order k >= 1 that returns its k-th moment, a polynomial in the coordinates.
        used: The numbers of the draws of the step's noise in their arguments.
        joint: For each vector with a `norm`, whose entries are not independent, the numbers of its draws, and the function from a tuple of their powers
            to the mean of the product; see `DifferentialRing.joint`.
    """

    values: list[np.ndarray]
    moments: list[Callable[[int], Any]]
    used: frozenset[int]
    joint: list[tuple[tuple[int, ...], Callable[[tuple[int, ...]], Any]]]


def kinks(outputs: Sequence[Value], noisy: Value) -> list[Kink]:
    """Return the signs and clippings in a graph whose argument depends on the draws, outermost first where they are nested.

    Args:
        outputs: The values that the graph computes.
        noisy: The input of the graph that has the draws.
    """
    found: list[Kink] = []
    inside: set[Any] = set()
    nodes = order(outputs)
    depends = {noisy.key}
    for node in nodes:
        if any(a.key in depends for a in node.args):
            depends.add(node.key)
    for node in reversed(nodes):
        if node.op != "map" or node.key in inside or node.key not in depends:
            continue
        if (whole := _by_norm(node)) is not None:
            found.append(whole)
        elif node.name == "sign":
            found.append(Kink(node, node.args[0]))
        elif (one := _clipping(node)) is not None:
            found.append(one[0])
            inside.add(one[1])
    return found


def _by_norm(node: Value) -> Kink | None:
    """Return the kink of a node that is a vector g/|g| or g min(1, C/|g|); in one coordinate that is a sign or a clipping by value. None for others."""
    if node.name != "divide" or len(node.shape) != 1 or node.args[0].shape != node.shape:
        return None
    g, size = node.args
    limit = None
    if direction(g) is node:
        limit = 0.0
    elif size.op == "map" and size.name == "maximum":
        by, own = size.args[0], 1.0  # |g| over C, which the graph writes as a product where it is exact, and leaves out if C = 1
        if by.op == "map" and by.name in ("divide", "multiply") and by.args[1].op == "const" and by.args[1].size == 1:
            own = float(by.args[1].extra.flat[0]) ** (1 if by.name == "divide" else -1)
        if clipped_by_norm(g, own) is node:
            limit = own
    if limit is None:
        return None
    return Kink(node, g, norm=limit) if node.size > 1 else Kink(node, g, (-limit, limit) if limit else ())


def _clipping(node: Value) -> tuple[Kink, Any] | None:
    """Return the kink of a node that is min(max(g, low), high), in either order, and the key of the node of its inner half; None for others."""
    if node.name not in ("minimum", "maximum"):
        return None
    outer, half = _bound(node)
    if outer is None or half is None or half.op != "map" or half.name != ("maximum" if node.name == "minimum" else "minimum"):
        return None
    inner, g = _bound(half)
    if inner is None or g is None:
        return None
    low, high = (inner, outer) if node.name == "minimum" else (outer, inner)
    return (Kink(node, g, (low, high)), half.key) if low < high else None


def _bound(node: Value) -> tuple[float | None, Value | None]:
    """Return the constant c and the other argument of a node such as max(g, c), with equal entries of c; (None, None) without such a constant."""
    for one, other in (node.args, node.args[::-1]):
        if one.op == "const" and one.size and (one.extra == one.extra.flat[0]).all() and other.shape == node.shape:
            return float(one.extra.flat[0]), other
    return None, None


def error_functions(outputs: Sequence[Value]) -> list[tuple[Value, Value]]:
    """Return the error functions in a graph that computes `outputs`, as pairs (node of erf(x), node of x), innermost first."""
    out = []
    for node in order(outputs):
        if node.op == "map" and node.name == "where" and node.args[0].name == "less":
            size = node.args[0].args[0]
            if size.op == "map" and size.name == "minimum" and size.args[0].op == "map" and size.args[0].name == "absolute":
                x = size.args[0].args[0]
                if erf(x) is node:
                    out.append((node, x))
    return out


def guards(outputs: Sequence[Value]) -> dict[Value, Value]:
    """Return a dict from each node max(v, 0) that is used under square roots alone to the node v: such a maximum guards a root against rounding errors."""
    nodes = order(outputs)
    readers: dict[Any, list[Value]] = {}
    for node in nodes:
        for a in node.args:
            readers.setdefault(a.key, []).append(node)
    out = {}
    for node in nodes:
        if node.op == "map" and node.name == "maximum" and is_number(node.args[1], 0.0) and node.args[0].shape == node.shape:
            own = readers.get(node.key, [])
            if own and all(r.op == "map" and r.name == "sqrt" for r in own):
                out[node] = node.args[0]
    return out


def kink_moment(home: DifferentialRing, mean: Any, variance: Any, bounds: tuple[float, ...]) -> Callable[[int], Any]:
    """Return the function of k >= 1 that gives the k-th moment of sign(g) or clip(g), a polynomial in the coordinates, for g ~ N(mean, variance).

    Args:
        home: The `DifferentialRing` of the polynomials, which have the coordinates of the state and the draws of a step as variables.
        mean: The mean of g, a polynomial in the coordinates.
        variance: The variance of g, a polynomial in the coordinates.
        bounds: The pair (low, high) of clip(g); empty for sign(g).

    Example:
        >>> import sympy
        >>> home = DifferentialRing([sympy.Symbol("x")], draws=0)
        >>> moment = kink_moment(home, home.x[0], home.number(0.25), ())
        >>> home.expression(moment(2)), home.expression(moment(3))
        (1, erf(sqrt(2)*x))
    """
    half = Fraction(1, 2)
    variance = home.reduced(variance)

    def scaled(u: Any) -> Any:
        """Return u / (2 variance)^(1/2), the argument of the error function."""
        return home.reduced(u * home.function("power", variance, -half) * home.function("power", home.number(half), half))

    if not bounds:
        return lambda k: home.one if k % 2 == 0 else home.function("erf", scaled(mean))
    low, high = (home.number(b) for b in bounds)
    deviation, reciprocal = home.function("power", variance, half), home.function("power", variance, Fraction(-1))
    below, above = (home.function("erf", scaled(b - mean)) for b in (low, high))  # 2 Phi(a) - 1 and 2 Phi(b) - 1
    over = home.function("power", home.number(half), half) * home.power_of_pi(-half)  # 1 / sqrt(2 pi)
    at_low, at_high = (
        over * home.function("exp", -home.reduced((b - mean) * (b - mean) * reciprocal * home.number(half))) for b in (low, high)
    )

    def inside(k: int) -> Any:
        if k == 0:
            return (above - below) * home.number(half)
        edges = deviation * (high ** (k - 1) * at_high - low ** (k - 1) * at_low)
        return mean * inside(k - 1) + ((k - 1) * variance * inside(k - 2) if k > 1 else home.zero) - edges

    def moment(k: int) -> Any:
        tails = (low**k * (home.one + below) + high**k * (home.one - above)) * home.number(half)
        return home.reduced(tails + inside(k))

    return moment


def mixture_moment(home: DifferentialRing, law: Sequence[NoisyNumber], bounds: tuple[float, ...]) -> Callable[[int], Any]:
    """Return the function of k >= 1 that gives the k-th moment of sign(g) or clip(g), a polynomial in the coordinates, for g of a mixture of laws.

    Args:
        home: The `DifferentialRing` of the polynomials, which have the coordinates of the state and the draws of a step as variables.
        law: The components of the mixture, whose weights sum to 1.
        bounds: The pair (low, high) of clip(g); empty for sign(g).
    """
    parts = [
        (one.weight, student_moment(home, one, bounds) if one.degrees else kink_moment(home, one.mean, one.square, bounds))
        for one in law
    ]
    return lambda k: sum((home.number(weight) * moment(k) for weight, moment in parts), home.zero)


def check_unshared(home: DifferentialRing, change: Sequence[Any], used: frozenset[int]) -> None:
    """Raise NotExpandable if a draw of the noise that is inside a sign or a clipping occurs elsewhere in a step.

    Args:
        home: The `DifferentialRing` of the coefficients, polynomials in the coordinates of the state and the draws of a step.
        change: The series of the change of the state in a step.
        used: The numbers of the draws inside signs and clippings.
    """
    first = len(home.x)
    if any(m[first + k] for one in change for p in one.terms.values() for m in p for k in used):
        raise NotExpandable(f"{INDEPENDENT}.")


def smoothed(
    home: DifferentialRing, found: Sequence[Kink], rows: Sequence[np.ndarray], laws: Sequence[tuple[str, Any]]
) -> Smoothed:
    """Return signs and clippings as draws of the ring, the last of `home.z`, with their moments.

    Args:
        home: The `DifferentialRing`, with a draw for each entry beyond those of the step's noise.
        found: The signs and clippings.
        rows: For each of them the series of its argument, an array of its shape.
        laws: The laws of the draws of the step's noise, in their order: pairs of a name and the numbers of the law, as in `draw_laws.law_moment`.

    Raises:
        NotExpandable: If an argument depends on the size of the step, or its law is not known, or two have a draw in common.
    """
    known: dict[Any, Any] = {}
    used = frozenset[int]()
    values: list[np.ndarray] = []
    moments: list[Callable[[int], Any]] = []
    joint: list[tuple[tuple[int, ...], Callable[[tuple[int, ...]], Any]]] = []
    for kink, row in zip(found, rows, strict=True):
        if any(set(one.terms) - {0} for one in row.ravel()):
            raise NotExpandable(
                "what a sign or a clipping is of must not depend on the size of the step: gradient and noise of constant scale, sigma_power=0."
            )
        out = np.empty(row.shape, dtype=object)
        if kink.norm is not None:
            means, square, own = isotropic_law(
                home, [one.terms.get(0, home.zero) for one in row], [name == "gaussian" for name, _ in laws]
            )
            if used & own:
                raise NotExpandable(f"{ISOTROPIC}.")
            used |= own
            draws = tuple(len(laws) + len(moments) + i for i in range(len(row)))
            together = radial_moment(home, means, square, kink.norm)
            joint.append((draws, together))
            for i, k in enumerate(draws):
                moments.append(partial(_single, together, i, len(row)))
                out[i] = Series(home, {0: home.z[k]})
            values.append(out)
            continue
        for at, one in np.ndenumerate(row):
            p = one.terms.get(0, home.zero)
            if (p, kink.bounds) not in known:
                law, own = noisy_number(home, p, laws)
                if used & own:
                    raise NotExpandable(f"{INDEPENDENT}.")
                used |= own
                known[p, kink.bounds] = home.z[len(laws) + len(moments)]
                moments.append(mixture_moment(home, law, kink.bounds))
            out[at] = Series(home, {0: known[p, kink.bounds]})
        values.append(out)
    return Smoothed(values, moments, used, joint)


def _single(together: Callable[[tuple[int, ...]], Any], i: int, size: int, k: int) -> Any:
    """Return the k-th moment of entry i of a vector of `size` entries; `together` gives its joint moments by tuples of powers."""
    return together(tuple(k if j == i else 0 for j in range(size)))
