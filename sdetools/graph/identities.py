"""Properties of a formula for all inputs: which elements of an input it depends on, and whether it vanishes identically.

Structural zeros and dependences are read off the graph. The rest is decided at random points: an analytic function on a connected domain
that vanishes there vanishes everywhere. So an operation is expanded only if it is single-valued with a connected domain:

1. Sums, products, exp, sin, tanh and similar functions are; so is a quotient, since its poles do not disconnect the complex space.
2. sqrt, log and powers of u are if u is affine (the domain is a half space), or structurally positive without poles.
   arctan(u) is if u has no poles: arctan(x) + arctan(1/x) is constant, but with another constant for x < 0.
3. Everything else (abs, sign, floor, maximum, comparisons, sqrt((x - 1)^2), compiled functions) is replaced by a free variable: what
   vanishes for all values of it vanishes. sign(c u) is that of u for c > 0. `np.where(c, a, b)` is b + c (a - b) with c free, and a branch that
   is NaN bounds the domain of the other. Operations other than abs, maximum and minimum may jump: `along` gives them a free slope as well.

A point counts as evidence if no term is so small compared with the others that rounding hides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from sdetools.graph.derivatives import jvp
from sdetools.graph.errors import TooLong
from sdetools.graph.value import Value, order
from sdetools.graph.views import reshape

ROUNDING = 1e-13
"""Relative rounding error of a sum at a point of size 1; at one of size r that of the arguments is r times larger."""
FEW = 8
"""Number of points that must be evidence before anything is proven."""
MOST = 1 << 23
"""Largest number of values of one node over all points."""
ENTIRE = {"exp", "expm1", "sin", "cos", "sinh", "cosh", "tanh"}
"""Functions that are analytic on the real line, and single-valued on the complex plane."""
KINKS = {"absolute", "maximum", "minimum"}
"""Operations with a kink but no jump."""
ROOTS = {"sqrt", "log", "log1p", "arcsin", "arccos", "power"}
"""Multivalued functions, on a domain with a boundary."""


@dataclass(slots=True)
class NodeFacts:
    """What is known of a node, one operation of a graph that depends on an input x: its numbers at some points, and properties for all x.

    `shape` is the shape of the node, n the number of elements of x, and m that of the points x at which the graph is evaluated. Structural
    properties are read off the graph, without numbers.

    Attributes:
        values: The node's values at the points, `(*shape, m)`.
        sizes: Sum of the absolute values of the terms that it adds up, `(*shape, m)`: 3 for 2 - 1. A measure of rounding.
        least: The smallest absolute value of those terms, `(*shape, m)`; infinite where an element vanishes structurally.
        reach: Which elements of x each element can depend on, `(*shape, n)`, Boolean.
        zero: Whether an element vanishes structurally, such as 0 x, `(*shape, 1)`, Boolean.
        affine: Whether the node is affine in x.
        whole: Whether it is analytic without poles.
        sign: Sign of all of its elements: 2 for positive, 1 for nonnegative, 0 for unknown.
    """

    values: np.ndarray
    sizes: np.ndarray
    least: np.ndarray
    reach: np.ndarray
    zero: np.ndarray
    affine: bool = False
    whole: bool = False
    sign: int = 0

    def __post_init__(self) -> None:
        if self.zero.any():
            self.values, self.sizes = (np.where(self.zero, 0.0, a) for a in (self.values, self.sizes))
            self.least, self.reach = np.where(self.zero, np.inf, self.least), self.reach & ~self.zero

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The tuple (values, sizes, least, reach, zero) of the attributes that are arrays: numbers at the points, then properties for all inputs."""
        return self.values, self.sizes, self.least, self.reach, self.zero


class Examination:
    """Formulas evaluated at m points of an input: which of its elements they depend on, and whether they vanish for all of its values.

    The formulas are values (symbolic arrays) of the trace of `x`. Inputs other than `x` get random positive numbers.

    Args:
        x: The input, a value of kind "input".
        points: Its numbers at the points, `(*x.shape, m)`, best random ones. With m < 8 points only structural zeros are proven: those that the
            graph shows without numbers, such as 0 x.

    >>> import numpy as np
    >>> from sdetools.graph.identities import Examination
    >>> from sdetools.graph.value import Trace
    >>> x = Trace().input("x", (2,))
    >>> examination = Examination(x, np.random.default_rng(0).standard_normal((2, 20)))
    >>> bool(examination.vanishes(np.sin(x[0]) ** 2 + np.cos(x[0]) ** 2 - 1.0)), examination.depends(abs(x[1]) + 0.0 * x[0])
    (True, array([False,  True]))
    """

    def __init__(self, x: Value, points: np.ndarray) -> None:
        self.rng, self.x = np.random.default_rng(20240607), x
        self.n, self.count = x.size, points.shape[-1]
        self.rounding = ROUNDING * np.maximum(1.0, np.abs(points).reshape(-1, self.count).max(axis=0))
        self.free: list[tuple[Value, np.ndarray]] = []
        """Nodes that are free variables and depend on x, with the elements that they depend on."""
        self.signs: dict[Any, NodeFacts] = {}
        """The facts of sign(u) by the key of u."""
        self.seen = {x.key: self._number(x, points, np.eye(self.n, dtype=bool).reshape(*x.shape, -1))}

    def depends(self, out: Value) -> np.ndarray:
        """Return which of the n elements of x each element of `out` can depend on, by the structure of its graph: Booleans `(*out.shape, n)`.

        Raises:
            TooLong: If an operation of the graph has more than `MOST` = 2^23 numbers over all points.
        """
        return self._of(out).reach

    def along(self, out: Value, direction: Value) -> Value:
        """Return the directional derivative d out / dx . direction as a symbolic array of the shape of `out`, plus terms for operations that may jump.

        An operation that may jump (floor, sign, `np.where`, ...) has no derivative at a jump. It contributes d out / d operation . (slope . direction),
        where the slope is a new input, free of the others, for each element of x on which the operation depends. So the result vanishes identically
        only if the derivative does and no jump matters.

        Args:
            out: The formula.
            direction: A value of the shape of x.

        Raises:
            TracingError: If x enters a compiled function, which has no derivative.
            TooLong: If an operation of the graph has more than `MOST` = 2^23 numbers over all points.
        """
        self._of(out)
        total = jvp(out, self.x, direction)
        for number, (node, reach) in enumerate(self.free):
            if node.name not in KINKS:
                own = self.x.home.input(f"slope {number}", reach.shape) * reach.astype(float)
                total = total + jvp(out, node, own @ reshape(direction, -1))
        return total

    def vanishes(self, out: Value) -> np.ndarray:
        """Return, for each element of `out`, whether it vanishes for all inputs: Booleans of its shape; False may also mean not proven.

        An element vanishes if its graph shows it without numbers, such as 0 x, or if it is 0 within rounding at all points where it is finite, of which at least `FEW` = 8
        must have no term so small that rounding hides it.

        Raises:
            TooLong: If an operation of the graph has more than `MOST` = 2^23 numbers over all points.
        """
        seen = self._of(out)
        with np.errstate(all="ignore"):
            finite = np.isfinite(seen.values) & np.isfinite(seen.sizes)
            evidence = finite & (seen.least > np.maximum(100 * self.rounding * seen.sizes, 1e-250))
            rounding = ~finite | (np.abs(seen.values) <= self.rounding * seen.sizes)
            return seen.zero[..., 0] | ((evidence.sum(-1) >= FEW) & rounding.all(-1))

    def _of(self, out: Value) -> NodeFacts:
        with np.errstate(all="ignore"):
            for node in order([out]):
                if node.key not in self.seen:
                    if node.size * self.count > MOST:
                        raise TooLong(f"{node.size:,} numbers at each of {self.count:,} points are too many to evaluate")
                    self.seen[node.key] = self._node(node, [self.seen[a.key] for a in node.args])
        return self.seen[out.key]

    def _number(self, node: Value, values: Any, reach: Any = False, sign: int = 0) -> NodeFacts:
        """Return the facts of an input, a constant or a free variable: its numbers at the points, which elements of x it depends on, its sign."""
        values = np.broadcast_to(values, (*node.shape, self.count))
        zero = values[..., :1] == 0 if node.op == "const" else np.zeros((*node.shape, 1), dtype=bool)
        return NodeFacts(
            values, np.abs(values), np.abs(values), np.broadcast_to(reach, (*node.shape, self.n)), zero, True, True, sign
        )

    def _free(self, node: Value, args: Sequence[NodeFacts]) -> NodeFacts:
        """Return the facts of a free variable for each element of a node.

        All but elementwise operations depend on all elements of their arguments.
        """
        mixed = [a.reach if node.op == "map" else a.reach.reshape(-1, self.n).any(axis=0) for a in args]
        reach = np.broadcast_to(_any(mixed), (*node.shape, self.n))
        if reach.any() and not node.boolean:
            self.free.append((node, reach))
        values, positive = self.rng.standard_normal((*node.shape, self.count)), node.name in ("absolute", "sqrt")
        return self._number(node, np.exp(values) if positive else values, reach, 2 * positive)

    def _node(self, node: Value, args: list[NodeFacts]) -> NodeFacts:
        if node.op == "const":
            numbers = node.extra.astype(float)
            return self._number(node, numbers[..., None], sign=2 if (numbers > 0).all() else int((numbers >= 0).all()))
        if node.op in ("input", "uniform"):
            return self._number(node, np.exp(self.rng.standard_normal((*node.shape, self.count))))
        if node.op == "map" and not node.boolean:
            return self._where(node, args) if node.name == "where" else self._mapped(node, args)
        x, axes = args[-1], node.extra
        if node.op == "view":
            at = axes.places(node.shape)
            values, sizes, least, reach, zero = (a.reshape(-1, a.shape[-1])[at] for a in x.arrays)
            outside = (at < 0)[..., None]
            sign = min(x.sign, 1) if outside.any() else x.sign
            return NodeFacts(values, sizes, least, reach, zero | outside, x.affine, x.whole, sign)
        if node.op == "join":
            facts = all(a.affine for a in args), all(a.whole for a in args), min(a.sign for a in args)
            values, sizes, least, reach, zero = map(np.concatenate, zip(*(a.arrays for a in args)))
            return NodeFacts(values, sizes, least, reach, zero, *facts)
        if node.op == "reduce" and node.name == "add":
            sums = x.values.sum(axes), x.sizes.sum(axes), x.least.min(axes), x.reach.any(axes), x.zero.all(axes)
            return NodeFacts(*sums, x.affine, x.whole, x.sign)
        if node.op == "contract":
            A = node.args[0].extra
            reach, some = (np.tensordot(1.0 * (A != 0), 1.0 * a, 1) > 0 for a in (x.reach, ~x.zero))
            sums = np.tensordot(A, x.values, 1), np.tensordot(np.abs(A), x.sizes, 1)
            least = np.abs(A[A != 0]).min(initial=np.inf) * x.least.min(axis=0)
            return NodeFacts(*sums, np.broadcast_to(least, sums[0].shape), reach, ~some, x.affine, x.whole)
        return self._free(node, args)

    def _mapped(self, node: Value, args: list[NodeFacts]) -> NodeFacts:
        """Return the facts of an elementwise operation; a free variable's if it is not analytic."""
        name, a, b = node.name, args[0], args[-1]
        affine, whole, sign = _facts(node, args)
        if sign is None:
            return self._sign(node, a) if name == "sign" else self._free(node, args)
        values = getattr(np, name)(*(s.values for s in args))
        sizes, zero = np.abs(values), np.zeros((*node.shape, 1), dtype=bool)
        if name in ("add", "subtract"):
            sizes, zero = a.sizes + b.sizes, a.zero & b.zero
            terms: list[Any] = [np.inf if n.op == "const" else s.least for n, s in zip(node.args, args)]
            least = np.minimum(*terms) + 0 * sizes  # a constant term hides nothing
        elif name == "negative":
            sizes, least, zero = a.sizes, a.least, a.zero
        elif name == "multiply":
            sizes, least, zero = a.sizes * b.sizes, a.least * b.least, a.zero | b.zero
        elif name == "divide":
            sizes, least, zero = a.sizes / np.abs(b.values), a.least / np.abs(b.values) * (b.least / b.sizes), a.zero | zero
        else:  # a term hidden in an argument is hidden in the result
            least = reduce(np.multiply, [np.minimum(1.0, s.least / s.sizes) for s in args], sizes)
        return NodeFacts(values, sizes, least, _any([s.reach for s in args]), zero, affine, whole, sign)

    def _sign(self, node: Value, x: NodeFacts) -> NodeFacts:
        """Return the facts of sign(x), a free variable: the same for all x = c u with equal u and constants c > 0."""
        own, core = self._free(node, [x]), self._core(node.args[0]).key
        first = self.signs.setdefault(core, own)
        own.values, own.sizes, own.least = first.values, first.sizes, first.least
        return own

    def _core(self, node: Value) -> Value:
        """Return u for a node c u + 0 with a constant c > 0, by structure; the node itself if it has no such form."""
        while node.op == "map" and node.name in ("add", "multiply", "divide"):
            a, b = node.args
            for term, rest in ((a, b), (b, a)) if node.name != "divide" else ((b, a),):
                adds_nothing = node.name == "add" and self.seen[term.key].zero.all()
                scales = node.name != "add" and term.op == "const" and (term.extra > 0).all() and np.isfinite(term.extra).all()
                if rest.shape == node.shape and (adds_nothing or scales):
                    node = rest
                    break
            else:
                break
        return node

    def _where(self, node: Value, args: list[NodeFacts]) -> NodeFacts:
        """Return the facts of `np.where(c, yes, no)` as no + c (yes - no) with a free c."""
        (c, yes, no), (_, first, second) = args, node.args
        for branch, other, seen in ((first, second, no), (second, first, yes)):
            if branch.key == other.key or (branch.op == "const" and np.isnan(branch.extra).all()):
                values, sizes, least, reach, zero = (np.broadcast_to(a, (*node.shape, a.shape[-1])) for a in seen.arrays)
                return NodeFacts(values, sizes, least, reach, zero, seen.affine, seen.whole, seen.sign)
        if c.reach.any():
            self.free.append((node, np.broadcast_to(c.reach, (*node.shape, self.n))))
        values = c.values * yes.values + (1 - c.values) * no.values
        sizes = np.abs(c.values) * yes.sizes + np.abs(1 - c.values) * no.sizes
        zero = np.broadcast_to(yes.zero & no.zero, (*node.shape, 1))
        least = np.minimum(yes.least, no.least) + 0 * sizes
        return NodeFacts(values, sizes, least, _any([s.reach for s in args]), zero, whole=yes.whole and no.whole)


def _any(arrays: Sequence[Any]) -> np.ndarray:
    return reduce(np.logical_or, arrays)


def _facts(node: Value, args: list[NodeFacts]) -> tuple[bool, bool, int | None]:
    """Return whether an operation is affine, whether it is analytic without poles, and its sign (None: it must become a free variable)."""
    name, a, b = node.name, args[0], args[-1]
    affine, whole, both = all(s.affine for s in args), all(s.whole for s in args), min(a.sign, b.sign)
    numbers = [n.op == "const" for n in node.args]
    if name in ("add", "subtract", "negative"):
        return affine, whole, max(a.sign, b.sign) if both and name == "add" else 0
    if name == "multiply":
        return affine and any(numbers), whole, max(both, 1) if node.args[0] is node.args[1] else both
    if name == "divide":
        return affine and numbers[1], whole and (b.sign == 2 or numbers[1]), both
    if name in ENTIRE or name == "tan" or (name == "arctan" and whole):
        return False, whole and name != "tan", 2 if name in ("exp", "cosh") else 0
    if name == "power" and numbers[1] and (node.args[1].extra % 1 == 0).all() and (node.args[1].extra > 0).all():
        return False, whole, a.sign
    if name in ROOTS and (a.affine or (a.whole and a.sign == 2 and not name.startswith("arc"))):
        return False, whole, 2 if name in ("sqrt", "power") else 0
    return False, False, None
