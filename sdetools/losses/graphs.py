"""Derivatives of a function of one point from its graph: on rows of paths, and within another trace.

    value L(x)    slope g(x)    product sum_j d_j g v_j    third sum_jl d_jl g v_j w_l

Dense tensors of numbers are columns of these, so that no graph grows with the size of a tensor.
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
"""Numbers that a block of columns of a tensor holds."""
BROKEN = CONDITIONS | {"sign", "floor", "absolute", "maximum", "minimum"}
"""Operations whose derivative does not show where they jump or have a kink."""

Traced = Callable[[Value], Value]


class Formula:
    """A graph of some inputs, on rows and on values; its text is compiled when it is first called with rows."""

    def __init__(self, out: Value, *inputs: Value) -> None:
        self.out, self.inputs = out, inputs

    def of(self, *given: Any) -> Any:
        """The formula of other values."""
        return replaced([self.out], dict(zip(self.inputs, map(value, given), strict=True)))[0]

    @cached_property
    def _function(self) -> Callable[..., Any]:
        return compiled([self.out], self.inputs)

    def __call__(self, *rows: np.ndarray) -> np.ndarray:
        """On arrays `(dim, n)`: `(*shape, n)`."""
        made = np.asarray(self._function(*rows)[0], dtype=float)
        return np.broadcast_to(made[..., None] if self.out.uniform else made, (*self.out.shape, rows[0].shape[-1]))


class Graphs:
    """The derivatives of a loss from functions that trace its `value`, its `slope` g or its `curvature` (the Hessian) at a value `(dim,)`.

    A derivative comes from the highest of these that is given. What they raise, NotTraceable or an error of the user's, is raised when a
    formula is first asked for; TracingError where a formula with a compiled function in it is to be differentiated.
    """

    def __init__(self, dim: int, given: dict[str, Traced]) -> None:
        self.dim, self._given = dim, given
        trace = Trace()
        self.x, self.v, self.w = (trace.input(name, (dim,)) for name in "xvw")

    @cached_property
    def value(self) -> Formula:
        return Formula(self._given["value"](self.x), self.x)

    @cached_property
    def slope(self) -> Formula:
        own = self._given.get("slope")
        return Formula(own(self.x) if own is not None else gradient(self.value.out, self.x), self.x)

    @cached_property
    def curvature(self) -> Formula:
        """The dense Hessian `(dim, dim)` as one graph."""
        own = self._given.get("curvature")
        return Formula(own(self.x) if own is not None else jacobian(self.slope.out, self.x), self.x)

    @cached_property
    def dense_third(self) -> Formula:
        return Formula(jacobian(self.curvature.out, self.x), self.x)

    @cached_property
    def product(self) -> Formula:
        if "curvature" in self._given:
            return Formula(value(self.curvature.out @ self.v), self.x, self.v)
        return Formula(jvp(self.slope.out, self.x, self.v), self.x, self.v)

    @cached_property
    def third(self) -> Formula:
        return Formula(jvp(self.product.out, self.x, self.w), self.x, self.v, self.w)

    # ---- tensors of numbers; x is (dim, n)

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """d_ij L: `(dim, dim, n)`."""
        unit = np.eye(self.dim)
        out = np.empty((self.dim, *x.shape[:1], x.shape[1]))
        for first, last in self._blocks(self.dim, x.shape[1]):
            out[first:last] = self._columns(self.product, x, unit[:, first:last, None])
        return (out + out.swapaxes(0, 1)) / 2

    def tensor(self, x: np.ndarray) -> np.ndarray:
        """d_ijl L: `(dim, dim, dim, n)`."""
        unit = np.eye(self.dim)
        pairs = np.array(list(combinations_with_replacement(range(self.dim), 2)))
        rough = np.empty((self.dim, self.dim, self.dim, x.shape[1]))
        for first, last in self._blocks(len(pairs), x.shape[1]):
            i, j = pairs[first:last].T
            rough[i, j] = rough[j, i] = self._columns(self.third, x, unit[:, i, None], unit[:, j, None])
        return np.mean([rough.transpose(*turn, 3) for turn in permutations(range(3))], axis=0)

    def contracted(self, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """sum_ij d_ijl L M_ij for M `(dim, dim, n)` or `(dim, dim, 1)`: `(dim, n)`."""
        unit, out = np.eye(self.dim), np.zeros(x.shape)
        for first, last in self._blocks(self.dim, x.shape[1]):
            out += self._columns(self.third, x, matrix[:, first:last], unit[:, first:last, None]).sum(axis=0)
        return out

    def _blocks(self, columns: int, n: int) -> Iterator[tuple[int, int]]:
        wide = max(1, BLOCK // (self.dim * max(n, 1)))
        return ((first, min(first + wide, columns)) for first in range(0, columns, wide))

    def _columns(self, formula: Formula, x: np.ndarray, *along: np.ndarray) -> np.ndarray:
        """A formula along directions `(dim, k, n or 1)`: `(k, dim, n)`."""
        shape = (self.dim, along[0].shape[1], x.shape[1])
        rows = [np.broadcast_to(a, shape).reshape(self.dim, -1) for a in (x[:, None], *along)]
        return formula(*rows).reshape(shape).swapaxes(0, 1)

    # ---- what a graph shows

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """`(H, c, L0)` where the graph shows that the value is quadratic: H v does not depend on x, and no part of L jumps or has a kink."""
        if self._reached(self.product.out) or any(
            _broken(node, live) for live in [self._live(self.value.out)] for node in live.values()
        ):
            return None
        origin = np.zeros((self.dim, 1))
        hessian, linear, level = self.hessian(origin)[..., 0], self.slope(origin)[:, 0], self.value(origin)[0]
        finite = np.isfinite(hessian).all() and np.isfinite(linear).all() and np.isfinite(level)
        return (hessian, linear, float(level)) if finite else None

    def _reached(self, out: Value) -> bool:
        return self.x.key in {node.key for node in order([out])}

    def _live(self, out: Value) -> dict[Any, Value]:
        """The nodes that depend on x."""
        live = {self.x.key: self.x}
        for node in order([out]):
            if any(a.key in live for a in node.args):
                live[node.key] = node
        return live


def _broken(node: Value, live: dict[Any, Value]) -> bool:
    """Whether a node that depends on x may jump or have a kink."""
    if node.op == "map":
        return node.name in BROKEN or (node.name == "where" and node.args[0].key in live)
    return node.op in ("rows", "call") or (node.op == "reduce" and node.name in ("maximum", "minimum"))
