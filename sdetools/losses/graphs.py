"""Derivatives of a function of one point from its graph, on rows of paths and within another trace.

    value L(x)    slope g(x)    product sum_j d_j g v_j    third sum_jl d_jl g v_j w_l

Here L is the loss, g its gradient, d_j the derivative by x_j, and v, w are directions, `(dim,)`. A row of paths is an array `(n,)` with one
number for each of n paths; `(dim, n)` are n points. A dense tensor of numbers is assembled from columns of these, so that the size of a graph
does not depend on the size of the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import combinations_with_replacement, permutations
from typing import Any

import numpy as np

from sdetools.graph.arrays import compiled
from sdetools.graph.derivatives import gradient, jacobian, jvp
from sdetools.graph.replacing import replaced
from sdetools.graph.value import CONDITIONS, Trace, Value, order, value

BLOCK = 1 << 18
"""Largest number of entries in a block of columns of a tensor."""
NONSMOOTH = CONDITIONS | {"sign", "floor", "absolute", "maximum", "minimum"}
"""Operations with a jump or a kink that their derivative does not show."""

Traced = Callable[[Value], Value]


class Formula:
    """A function given by a graph, the record of its operations; call it with arrays for many paths, or `of` with graph values.

    A call takes one array `(*shape, n)` for each input and returns one for the result, for n paths. It compiles NumPy code the first time.

    Args:
        out: The result, a graph value.
        *inputs: The input values of the graph, in the order of the arguments of a call.
    """

    def __init__(self, out: Value, *inputs: Value) -> None:
        self.out, self.inputs = out, inputs

    def of(self, *given: Any) -> Any:
        """Return the result as a graph value, with the inputs replaced by `given`: in order, graph values, arrays or numbers of their shapes.

        This inserts the formula into another graph. ValueError for another shape or number of inputs.
        """
        return replaced([self.out], dict(zip(self.inputs, map(value, given), strict=True)))[0]

    @cached_property
    def _function(self) -> Callable[..., Any]:
        return compiled([self.out], self.inputs)

    def __call__(self, *rows: np.ndarray) -> np.ndarray:
        """Evaluate the formula for n paths.

        Args:
            *rows: An array `(*shape, n)` for each input, in order, where `shape` is that of the input.

        Returns:
            An array `(*shape, n)`, where `shape` is that of the result for one path.
        """
        made = np.asarray(self._function(*rows)[0], dtype=float)
        return np.broadcast_to(made[..., None] if self.out.uniform else made, (*self.out.shape, rows[0].shape[-1]))


class Graphs:
    """The derivatives of a loss from functions that trace its `value`, its `slope` (the gradient g) or its `curvature` (the Hessian).

    Each derivative is computed from the highest derivative among these that is given. Errors of these functions (NotTraceable, or an error in
    the user's code) are raised at the first access of a formula that needs them; so is TracingError if a compiled function, which has no
    graph, would have to be differentiated.

    Args:
        dim: Number of coordinates.
        given: The functions by name: "value", "slope" or "curvature". Each maps the graph value of a point to that of its result.

    Attributes:
        x: The point, an input `(dim,)` of all formulas.
        v: First direction, `(dim,)`, an input of `product` and `third`.
        w: Second direction, `(dim,)`, an input of `third`.
    """

    def __init__(self, dim: int, given: dict[str, Traced]) -> None:
        self.dim, self._given = dim, given
        trace = Trace()
        self.x, self.v, self.w = (trace.input(name, (dim,)) for name in "xvw")

    @cached_property
    def value(self) -> Formula:
        """The loss L(x) as a `Formula` of the point x `(dim,)`; its result is one number for each path."""
        return Formula(self._given["value"](self.x), self.x)

    @cached_property
    def slope(self) -> Formula:
        """The gradient g(x) of the loss as a `Formula` of the point x `(dim,)`; its result is `(dim,)` for each path."""
        own = self._given.get("slope")
        return Formula(own(self.x) if own is not None else gradient(self.value.out, self.x), self.x)

    @cached_property
    def curvature(self) -> Formula:
        """The dense Hessian of the loss as one `Formula` of the point x `(dim,)`; its result is `(dim, dim)` for each path."""
        own = self._given.get("curvature")
        return Formula(own(self.x) if own is not None else jacobian(self.slope.out, self.x), self.x)

    @cached_property
    def dense_third(self) -> Formula:
        """The dense third derivative of the loss as one `Formula` of the point x `(dim,)`; its result is `(dim, dim, dim)` for each path."""
        return Formula(jacobian(self.curvature.out, self.x), self.x)

    @cached_property
    def product(self) -> Formula:
        """The Hessian-vector product sum_j d_ij L(x) v_j of the loss L as a `Formula` of x and v, each `(dim,)`.

        Its result is `(dim,)` for each path.
        """
        if "curvature" in self._given:
            return Formula(value(self.curvature.out @ self.v), self.x, self.v)
        return Formula(jvp(self.slope.out, self.x, self.v), self.x, self.v)

    @cached_property
    def third(self) -> Formula:
        """The third derivative of the loss L along two directions, sum_jl d_ijl L(x) v_j w_l, as a `Formula` of x, v and w, each `(dim,)`.

        Its result is `(dim,)` for each path.
        """
        return Formula(jvp(self.product.out, self.x, self.w), self.x, self.v, self.w)

    # ---- tensors of numbers; x is (dim, n)

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """Return the Hessian d_ij L of the loss at n points `x` `(dim, n)` as numbers, `(dim, dim, n)`, computed column by column and symmetrised."""
        unit = np.eye(self.dim)
        out = np.empty((self.dim, *x.shape[:1], x.shape[1]))
        for first, last in self._blocks(self.dim, x.shape[1]):
            out[first:last] = self._columns(self.product, x, unit[:, first:last, None])
        return (out + out.swapaxes(0, 1)) / 2

    def tensor(self, x: np.ndarray) -> np.ndarray:
        """Return the third derivative d_ijl L of the loss at n points `x` `(dim, n)` as numbers, `(dim, dim, dim, n)`, symmetric in i, j, l."""
        unit = np.eye(self.dim)
        pairs = np.array(list(combinations_with_replacement(range(self.dim), 2)))
        rough = np.empty((self.dim, self.dim, self.dim, x.shape[1]))
        for first, last in self._blocks(len(pairs), x.shape[1]):
            i, j = pairs[first:last].T
            rough[i, j] = rough[j, i] = self._columns(self.third, x, unit[:, i, None], unit[:, j, None])
        return np.mean([rough.transpose(*axes, 3) for axes in permutations(range(3))], axis=0)

    def contracted(self, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Return sum_ij d_ijl L(x) M_ij of the loss L as numbers `(dim, n)`, row l for coordinate l, without forming the third derivative.

        Args:
            x: n points, `(dim, n)`.
            matrix: M, `(dim, dim, n)`, or `(dim, dim, 1)` for all points.
        """
        unit, out = np.eye(self.dim), np.zeros(x.shape)
        for first, last in self._blocks(self.dim, x.shape[1]):
            out += self._columns(self.third, x, matrix[:, first:last], unit[:, first:last, None]).sum(axis=0)
        return out

    def _blocks(self, columns: int, n: int) -> Iterator[tuple[int, int]]:
        """Return the ranges first <= column < last of `columns` columns of a tensor that are computed together for n paths, to bound the memory."""
        width = max(1, BLOCK // (self.dim * max(n, 1)))
        return ((first, min(first + width, columns)) for first in range(0, columns, width))

    def _columns(self, formula: Formula, x: np.ndarray, *along: np.ndarray) -> np.ndarray:
        """Evaluate a formula at n points `x` `(dim, n)` along k directions `(dim, k, n)` or `(dim, k, 1)`; the result has shape `(k, dim, n)`."""
        shape = (self.dim, along[0].shape[1], x.shape[1])
        rows = [np.broadcast_to(a, shape).reshape(self.dim, -1) for a in (x[:, None], *along)]
        return formula(*rows).reshape(shape).swapaxes(0, 1)

    # ---- structure of the graph

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Return `(H, c, L0)` with L(x) = x^T H x / 2 + c^T x + L0 if the graph of the value shows that it is quadratic, else None.

        The graph shows it if H v does not depend on x and L has no jump or kink. H is an array `(dim, dim)`, c is `(dim,)` and L0 a float.
        The result is also None if one of them is not finite.
        """
        if self._depends_on_x(self.product.out) or any(
            _is_nonsmooth(node, dependent) for dependent in [self._dependent(self.value.out)] for node in dependent.values()
        ):
            return None
        origin = np.zeros((self.dim, 1))
        hessian, linear, level = self.hessian(origin)[..., 0], self.slope(origin)[:, 0], self.value(origin)[0]
        finite = np.isfinite(hessian).all() and np.isfinite(linear).all() and np.isfinite(level)
        return (hessian, linear, float(level)) if finite else None

    def _depends_on_x(self, out: Value) -> bool:
        return self.x.key in {node.key for node in order([out])}

    def _dependent(self, out: Value) -> dict[Any, Value]:
        """Return the nodes that depend on x, by their keys."""
        dependent = {self.x.key: self.x}
        for node in order([out]):
            if any(a.key in dependent for a in node.args):
                dependent[node.key] = node
        return dependent


def _is_nonsmooth(node: Value, dependent: dict[Any, Value]) -> bool:
    """Return whether a node that depends on x may have a jump or a kink."""
    if node.op == "map":
        return node.name in NONSMOOTH or (node.name == "where" and node.args[0].key in dependent)
    return node.op in ("rows", "call") or (node.op == "reduce" and node.name in ("maximum", "minimum"))
