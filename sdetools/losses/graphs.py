"""Derivatives of a function of one point from its graph, on rows of paths and within another trace.

    value L(x)    slope g(x)    product sum_j d_j g v_j    third sum_jl d_jl g v_j w_l

A dense tensor of numbers is assembled from columns of these, so that the size of a graph does not depend on the size of the tensor.
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
    """A function given by a graph, of rows of paths or of graph values; it is compiled at the first call with rows."""

    def __init__(self, out: Value, *inputs: Value) -> None:
        self.out, self.inputs = out, inputs

    def of(self, *given: Any) -> Any:
        """Return the graph with its inputs replaced by other values."""
        return replaced([self.out], dict(zip(self.inputs, map(value, given), strict=True)))[0]

    @cached_property
    def _function(self) -> Callable[..., Any]:
        return compiled([self.out], self.inputs)

    def __call__(self, *rows: np.ndarray) -> np.ndarray:
        """Evaluate the formula on arrays `(dim, n)`; the result has shape `(*shape, n)`."""
        made = np.asarray(self._function(*rows)[0], dtype=float)
        return np.broadcast_to(made[..., None] if self.out.uniform else made, (*self.out.shape, rows[0].shape[-1]))


class Graphs:
    """The derivatives of a loss from functions that trace its `value`, its `slope` g or its `curvature` (the Hessian).

    A derivative is derived from the highest of these that is given. Errors of these functions (NotTraceable, or an error in the user's
    code) are raised at the first access of a formula; so is TracingError if a compiled function would have to be differentiated.
    """

    def __init__(self, dim: int, given: dict[str, Traced]) -> None:
        self.dim, self._given = dim, given
        trace = Trace()
        self.x, self.v, self.w = (trace.input(name, (dim,)) for name in "xvw")

    @cached_property
    def value(self) -> Formula:
        """The value L(x), `()`."""
        return Formula(self._given["value"](self.x), self.x)

    @cached_property
    def slope(self) -> Formula:
        """The gradient g(x), `(dim,)`."""
        own = self._given.get("slope")
        return Formula(own(self.x) if own is not None else gradient(self.value.out, self.x), self.x)

    @cached_property
    def curvature(self) -> Formula:
        """The dense Hessian, `(dim, dim)`, as one graph."""
        own = self._given.get("curvature")
        return Formula(own(self.x) if own is not None else jacobian(self.slope.out, self.x), self.x)

    @cached_property
    def dense_third(self) -> Formula:
        """The third derivative, `(dim, dim, dim)`, as one graph."""
        return Formula(jacobian(self.curvature.out, self.x), self.x)

    @cached_property
    def product(self) -> Formula:
        """The Hessian-vector product sum_j d_j g v_j, `(dim,)`."""
        if "curvature" in self._given:
            return Formula(value(self.curvature.out @ self.v), self.x, self.v)
        return Formula(jvp(self.slope.out, self.x, self.v), self.x, self.v)

    @cached_property
    def third(self) -> Formula:
        """The third derivative along two directions, sum_jl d_jl g v_j w_l, `(dim,)`."""
        return Formula(jvp(self.product.out, self.x, self.w), self.x, self.v, self.w)

    # ---- tensors of numbers; x is (dim, n)

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """Return d_ij L, `(dim, dim, n)`."""
        unit = np.eye(self.dim)
        out = np.empty((self.dim, *x.shape[:1], x.shape[1]))
        for first, last in self._blocks(self.dim, x.shape[1]):
            out[first:last] = self._columns(self.product, x, unit[:, first:last, None])
        return (out + out.swapaxes(0, 1)) / 2

    def tensor(self, x: np.ndarray) -> np.ndarray:
        """Return d_ijl L, `(dim, dim, dim, n)`."""
        unit = np.eye(self.dim)
        pairs = np.array(list(combinations_with_replacement(range(self.dim), 2)))
        rough = np.empty((self.dim, self.dim, self.dim, x.shape[1]))
        for first, last in self._blocks(len(pairs), x.shape[1]):
            i, j = pairs[first:last].T
            rough[i, j] = rough[j, i] = self._columns(self.third, x, unit[:, i, None], unit[:, j, None])
        return np.mean([rough.transpose(*axes, 3) for axes in permutations(range(3))], axis=0)

    def contracted(self, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Return sum_ij d_ijl L M_ij, `(dim, n)`, for M `(dim, dim, n)` or `(dim, dim, 1)`."""
        unit, out = np.eye(self.dim), np.zeros(x.shape)
        for first, last in self._blocks(self.dim, x.shape[1]):
            out += self._columns(self.third, x, matrix[:, first:last], unit[:, first:last, None]).sum(axis=0)
        return out

    def _blocks(self, columns: int, n: int) -> Iterator[tuple[int, int]]:
        """Return the ranges of columns that fit into a block for n paths."""
        width = max(1, BLOCK // (self.dim * max(n, 1)))
        return ((first, min(first + width, columns)) for first in range(0, columns, width))

    def _columns(self, formula: Formula, x: np.ndarray, *along: np.ndarray) -> np.ndarray:
        """Evaluate a formula along directions `(dim, k, n or 1)`; the result has shape `(k, dim, n)`."""
        shape = (self.dim, along[0].shape[1], x.shape[1])
        rows = [np.broadcast_to(a, shape).reshape(self.dim, -1) for a in (x[:, None], *along)]
        return formula(*rows).reshape(shape).swapaxes(0, 1)

    # ---- structure of the graph

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Return `(H, c, L0)` if the value is quadratic by its graph (H v does not depend on x, L has no jump or kink), else None."""
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
