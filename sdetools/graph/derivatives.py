"""Automatic differentiation of traced formulas: reverse mode (`vjp`, `gradient`) and forward mode (`jvp`), nested at will.

    vjp(f, x, w) = w . df/dx        jvp(f, x, v) = df/dx . v        gradient(L, x) = vjp(L, x, 1)

Forward over reverse, jvp(gradient(L, x), x, v) is the Hessian-vector product d2L v, and its own jvp along w is the third derivative
d3L[v, w].

Where a formula has no value its derivatives have none: d log u is u'/u for u > 0 and NaN elsewhere. At a kink they are the mean of the two
one-sided derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdetools.graph.errors import TracingError
from sdetools.graph.value import CONDITIONS, Value, apply, order, value
from sdetools.graph.views import assembled, broadcast, join, reshape, same_view, scatter, stack, transpose

Partial = Callable[[Any, Sequence[Value], Value], Any]


def _inside(g: Any, inside: Any, slope: Any) -> Any:
    """Return g times a slope where the condition `inside` holds, that the argument lies in the function's domain, and NaN elsewhere."""
    return np.where(inside, g * slope, np.nan)


def _larger(g: Any, a: Value, b: Value) -> Any:
    """Return the part of g that goes to operand `a` of a maximum: all, half at a tie, or none."""
    return np.where(a > b, g, np.where(a == b, 0.5 * g, np.where(a < b, 0.0, np.nan)))


def _branch_not_taken(branch: Value) -> float:
    """Return the derivative of a branch that is not taken: NaN if the other branch is the constant NaN, else 0."""
    return np.nan if branch.op == "const" and branch.ndim == 0 and branch.extra != branch.extra else 0.0


PARTIALS: dict[str, tuple[Partial | None, ...]] = {
    "add": (lambda g, a, o: g, lambda g, a, o: g),
    "subtract": (lambda g, a, o: g, lambda g, a, o: -g),
    "multiply": (lambda g, a, o: g * a[1], lambda g, a, o: g * a[0]),
    "divide": (lambda g, a, o: g / a[1], lambda g, a, o: -(g / a[1]) * o),
    "negative": (lambda g, a, o: -g,),
    "power": (lambda g, a, o: g * (a[1] * a[0] ** (a[1] - 1.0)), lambda g, a, o: _inside(g, a[0] > 0, o * np.log(a[0]))),
    "absolute": (lambda g, a, o: g * np.sign(a[0]),),
    "sqrt": (lambda g, a, o: g * (0.5 / o),),
    "exp": (lambda g, a, o: g * o,),
    "log": (lambda g, a, o: _inside(g, a[0] > 0, 1.0 / a[0]),),
    "log1p": (lambda g, a, o: _inside(g, a[0] > -1, 1.0 / (1.0 + a[0])),),
    "expm1": (lambda g, a, o: g * (o + 1.0),),
    "sin": (lambda g, a, o: g * np.cos(a[0]),),
    "cos": (lambda g, a, o: -g * np.sin(a[0]),),
    "tan": (lambda g, a, o: g * (1.0 + o * o),),
    "sinh": (lambda g, a, o: g * np.cosh(a[0]),),
    "cosh": (lambda g, a, o: g * np.sinh(a[0]),),
    "tanh": (lambda g, a, o: g * (1.0 - o * o),),
    "arctan": (lambda g, a, o: g / (1.0 + a[0] * a[0]),),
    "arcsin": (lambda g, a, o: g / np.sqrt((1.0 - a[0]) * (1.0 + a[0])),),
    "arccos": (lambda g, a, o: -g / np.sqrt((1.0 - a[0]) * (1.0 + a[0])),),
    "maximum": (lambda g, a, o: _larger(g, a[0], a[1]), lambda g, a, o: _larger(g, a[1], a[0])),
    "minimum": (lambda g, a, o: _larger(g, a[1], a[0]), lambda g, a, o: _larger(g, a[0], a[1])),
    "where": (
        None,
        lambda g, a, o: np.where(a[0], g, _branch_not_taken(a[2])),
        lambda g, a, o: np.where(a[0], _branch_not_taken(a[1]), g),
    ),
    "sign": (None,),
    "floor": (None,),
}
"""The partial derivatives of elementwise functions, times g: `(g, arguments, result) -> change`.

g is the tangent of an argument in forward mode and the adjoint of the result in reverse mode, which is the same product elementwise.
"""


def gradient(out: Any, x: Value) -> Value:
    """Return the gradient dL/dx of a scalar L = `out` as a symbolic array (`Value`) of the shape of `x`; zeros if `out` does not depend on `x`.

    Args:
        out: A value with one element for each path.
        x: The input to differentiate by, or any value from which `out` was computed.

    Raises:
        TracingError: If `out` has not exactly one element, or depends on `x` through a compiled function (`graph.calls.Call`) or `sampling.tally`.
    """
    out = value(out)
    if out.size != 1:
        raise TracingError(
            f"a loss must be one number per path; got component shape {out.shape}. Sum it up, for example by np.sum"
        )
    return vjp(reshape(out, ()), x, 1.0)


def vjp(out: Value, x: Value, weight: Any = 1.0) -> Value:
    """Return the vector-Jacobian product sum_i weight_i d out_i / dx as a symbolic array (`Value`) of the shape of `x`.

    It is computed in reverse mode, and consists of zeros if `out` does not depend on `x`.

    Args:
        out: The value to differentiate.
        x: The input to differentiate by, or any value from which `out` was computed.
        weight: Weights of the elements of `out`, a number, array or value; it broadcasts to the shape of `out`.

    Raises:
        TracingError: If `out` depends on `x` through a compiled function (`graph.calls.Call`) or `sampling.tally`.
    """
    nodes = order([out])
    live = {x.key}
    for node in nodes:
        if node.op != "rows" and node.name not in CONDITIONS and any(a.key in live for a in node.args):
            live.add(node.key)
    bars: dict[Any, _Adjoint] = {n.key: _Adjoint(n) for n in nodes if n.key in live}
    if out.key not in live:
        return value(np.zeros(x.shape))
    bars[out.key].add(broadcast(value(weight), out.shape))
    for node in reversed(nodes):
        if node.key in live and node.key != x.key and (g := bars[node.key].total()) is not None:
            for a, amount in _pullback(node, g, live):
                bars[a.key].add(amount)
    found = bars[x.key].total()
    return found if found is not None else value(np.zeros(x.shape))


class _Adjoint:
    """The adjoint of a node, the derivative of the output by it, as a sum of whole arrays and of pieces of the flat array."""

    def __init__(self, node: Value) -> None:
        self.shape = node.shape
        self.whole: Value | None = None
        self.pieces: dict[tuple[int, int], Value] = {}

    def add(self, amount: Any) -> None:
        """Add a contribution, `amount`: a value of the node's shape, or a pair (flat position of the first of n elements, value `(n,)`)."""
        if isinstance(amount, tuple):  # a piece
            first, piece = amount
            place = first, piece.size
            self.pieces[place] = self.pieces[place] + piece if place in self.pieces else piece
        else:
            self.whole = amount if self.whole is None else self.whole + amount

    def total(self) -> Value | None:
        """Return the sum of the contributions that `add` has got, as a `Value` of the node's shape; None if there is none."""
        if self.pieces:
            pieces = assembled(self.pieces, self.shape)
            self.whole, self.pieces = (pieces if self.whole is None else self.whole + pieces), {}
        return self.whole


def _pullback(node: Value, g: Value, live: set[Any]) -> list[tuple[Value, Any]]:
    """Return the contributions of the adjoint `g` of a node to the adjoints of its arguments, as pairs (argument, what `_Adjoint.add` takes).

    `live` has the keys of the values that depend on the input; other arguments get none.
    """
    args = [a for a in node.args if a.key in live]
    if node.op == "map":
        pushes = PARTIALS[node.name]
        wanted = [(a, push) for a, push in zip(node.args, pushes) if push is not None and a.key in live]
        return [(a, _unbroadcast(broadcast(value(push(g, node.args, node)), node.shape), a.shape)) for a, push in wanted]
    if node.op == "reduce":
        (a,) = args
        wide = tuple(1 if i in node.extra else n for i, n in enumerate(a.shape))
        if node.name == "add":
            return [(a, broadcast(reshape(g, wide), a.shape))]
        share, of = _share(node)
        return [(a, reshape(g / of, wide) * share)]
    if node.op == "contract":
        return [(node.args[1], value(node.args[0].extra.T) @ g)] if node.args[1].key in live else []
    if node.op == "view":
        return [(args[0], scatter(g, node))]
    if node.op == "join":
        ends = np.cumsum([0, *(a.shape[0] for a in node.args)])
        return [(a, g[ends[i] : ends[i + 1]]) for i, a in enumerate(node.args) if a.key in live]
    raise TracingError(f"a {node.op} of a compiled function has no derivative; write the formula in NumPy, or give its gradient")


def _share(node: Value) -> tuple[Value, Value]:
    """Return d out / dx_i of a reduction as numerator and denominator.

    Of a maximum it is whether x_i is maximal, over how many are; of a product it is the product of the other factors, over 1.
    """
    (a,) = node.args
    if node.name == "multiply":  # without a division, since a factor may be 0
        axes = [*node.extra, *(i for i in range(a.ndim) if i not in node.extra)]
        first = transpose(a, axes)
        flat = reshape(first, (-1, *node.shape))
        others = _exclusive_products(flat) * _exclusive_products(flat[::-1])[::-1]
        return transpose(reshape(others, first.shape), np.argsort(axes)), value(1.0)
    wide = tuple(1 if i in node.extra else n for i, n in enumerate(a.shape))
    equal = apply("where", a == reshape(node, wide), 1.0, 0.0)
    return equal, np.sum(equal, axis=node.extra)


def _exclusive_products(x: Value) -> Value:
    """Return for each row of `x` the product of the rows before it, 1 for the first, in log2(rows) operations on whole arrays."""
    out, step = join([np.ones((1, *x.shape[1:])), x[:-1]]), 1
    while step < x.shape[0]:
        out, step = join([out[:step], out[step:] * out[:-step]]), 2 * step
    return out


def _unbroadcast(g: Value, shape: tuple[int, ...]) -> Value:
    """Return the adjoint of a value of shape `shape` from that of its broadcast, `g`: the sum over the axes along which it was repeated."""
    lead = g.ndim - len(shape)
    g = np.sum(g, axis=tuple(range(lead))) if lead else g
    wide = tuple(a for a, n in enumerate(shape) if n == 1 and g.shape[a] > 1)
    return reshape(np.sum(g, axis=wide), shape) if wide else g


def jvp(out: Value, x: Value, along: Any) -> Value:
    """Return the Jacobian-vector product sum_j d out / dx_j along_j as a symbolic array (`Value`) of the shape of `out`.

    It is computed in forward mode, and consists of zeros if `out` does not depend on `x`.

    Args:
        out: The value to differentiate.
        x: The input to differentiate by, or any value from which `out` was computed.
        along: Direction, a number, array or value; it broadcasts to the shape of `x`.

    Raises:
        TracingError: If `out` depends on `x` through a compiled function (`graph.calls.Call`) or `sampling.tally`.
    """
    dots: dict[Any, Value] = {x.key: broadcast(value(along), x.shape)}
    for node in order([out]):
        if node.key in dots or node.op in ("const", "input", "uniform") or node.name in CONDITIONS:
            continue
        if any(a.key in dots for a in node.args) and (tangent := _pushforward(node, dots)) is not None:
            dots[node.key] = tangent
    return dots.get(out.key, value(np.zeros(out.shape)))


def _pushforward(node: Value, dots: dict[Any, Value]) -> Value | None:
    """Return the tangent (directional derivative) of a node from those of its arguments, `dots` by key; None if it is zero."""
    if node.op == "map":
        pushes = PARTIALS[node.name]
        parts = [push(dots[a.key], node.args, node) for a, push in zip(node.args, pushes) if push is not None and a.key in dots]
        if not parts:
            return None
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return broadcast(value(total), node.shape)
    tangent = dots.get(node.args[-1].key, value(0.0))  # the only argument with a tangent, except for a join
    if node.op == "reduce":
        if node.name == "add":
            return np.sum(tangent, axis=node.extra)
        share, of = _share(node)
        return np.sum(tangent * share, axis=node.extra) / of
    if node.op == "contract":
        return node.args[0] @ tangent
    if node.op == "view":
        return same_view(node, tangent)
    if node.op == "join":
        return join([dots[a.key] if a.key in dots else np.zeros(a.shape) for a in node.args])
    if node.op == "rows":  # the indices of samples are constants
        return None
    raise TracingError("a compiled function has no derivative here; write the formula in NumPy, or give its gradient")


def jacobian(out: Value, x: Value) -> Value:
    """Return the Jacobian d out_i / dx_j as a symbolic array (`Value`) of shape `(*out.shape, *x.shape)`; zeros if `out` does not depend on `x`.

    Args:
        out: The value to differentiate: in reverse mode if it has fewer elements than `x`, else in forward mode.
        x: The input to differentiate by, or any value from which `out` was computed.

    Raises:
        TracingError: If `out` depends on `x` through a compiled function (`graph.calls.Call`) or `sampling.tally`.
    """
    out = value(out)
    if out.size < x.size:
        flat = reshape(out, -1)
        return reshape(stack([vjp(flat[i], x) for i in range(out.size)]), (*out.shape, *x.shape))
    columns = [jvp(out, x, np.eye(x.size)[j].reshape(x.shape)) for j in range(x.size)]
    return reshape(transpose(stack([reshape(c, -1) for c in columns])), (*out.shape, *x.shape))
