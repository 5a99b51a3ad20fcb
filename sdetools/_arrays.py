"""Component-first arrays: the few helpers that let one formula run on numbers, on rows of paths, on traced values and on symbols.

A point is `x` with `x[i]` its i-th coordinate: shape `(dim,)` for one path, `(dim, paths)` for many. While a rule is traced, `x` is a
value of the graph (`sdetools.graph`) of shape `(dim,)`; while the class of an SDE's noise is proven, an object array of symbols. NumPy's
ufuncs (`np.exp`, `np.sqrt`, ...) work on all four; what NumPy cannot dispatch on symbols stands here.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sdetools.graph.calls import Call
from sdetools.graph.errors import ArraysOnly, TracingError
from sdetools.graph.value import Value, is_value
from sdetools.graph.views import stack

__all__ = ["ELEMENTARY", "ArraysOnly", "Block", "Symbol", "TracingError", "components", "numeric", "select", "spread"]


def components(values: Sequence[Any], like: Any) -> np.ndarray:
    """Stack component values (numbers or rows) into one array `(len(values), *paths)`, with the paths of `like`.

    Constant components are broadcast, so `components([x[0], 1.0], x)` is right for one path and for many.

    >>> components([1.0, np.array([2.0, 3.0])], np.zeros((2, 2)))
    array([[1., 1.],
           [2., 3.]])
    """
    if isinstance(like, Value) or is_value(values):
        return values if isinstance(values, Value) else stack(values)  # type: ignore[return-value]
    like = np.asarray(like)
    if like.dtype == object:
        out = np.empty(len(values), dtype=object)
    else:
        out = np.empty((len(values), *like.shape[1:]), dtype=np.result_type(like.dtype, float))
    for i, value in enumerate(values):
        out[i] = value
    return out


def numeric(x: Any) -> Any:
    """`x` as an array of doubles, or the traced value that it is.

    >>> numeric([1, 2])
    array([1., 2.])
    """
    return x if isinstance(x, Value) else np.asarray(x, dtype=float)


def spread(a: Any, like: Any) -> Any:
    """Numbers of one path beside rows of many: `a` with as many axes as `like`, new ones last. Traced values have no axis of paths.

    >>> spread(np.array([1.0, 2.0]), np.zeros((2, 5))).shape
    (2, 1)
    """
    if isinstance(a, Value) or isinstance(like, Value):
        return a
    a = np.asarray(a)
    return a.reshape(a.shape + (1,) * (np.ndim(like) - a.ndim))


def select(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where `condition` holds, else `no`: a branch-free choice that works on numbers, rows and traced symbols.

    >>> select(np.array([True, False]), 1.0, -1.0)
    array([ 1., -1.])
    """
    if hasattr(condition, "select"):
        return condition.select(yes, no)
    if isinstance(condition, np.ndarray) and condition.dtype == object:
        yes, no = (np.broadcast_to(np.asarray(v, dtype=object), condition.shape) for v in (yes, no))
        out = np.empty(condition.shape, dtype=object)
        for index in np.ndindex(condition.shape):
            out[index] = condition[index].select(yes[index], no[index])
        return out
    return np.where(condition, yes, no)


class Symbol:
    """What stands for a number while a formula runs to be written down: a subclass says how, by `operation` and `comparison`.

    Names of operations are those of `ELEMENTARY` and "add", "sub", "mul", "div", "pow", "neg", "abs"; operands are symbols of one class
    and numbers. What needs a value raises TracingError.

    >>> class Said(Symbol):
    ...     operation = lambda self, name, *operands: f"{name} of {len(operands)}"
    >>> 1 - Said(), np.exp(np.array([Said()], dtype=object))
    ('sub of 2', array(['exp of 1'], dtype=object))
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def operation(self, name: str, *operands: Any) -> Any:
        """The symbol of a result."""
        raise NotImplementedError

    def comparison(self, sign: str, other: Any) -> Any:
        """The symbol of a comparison, to be used in `select`."""
        raise NotImplementedError

    def _two(self, name: str, a: Any, b: Any) -> Any:
        if not all(isinstance(o, (type(self), numbers.Real)) for o in (a, b)):
            return NotImplemented
        return self.operation(name, a, b)

    def __add__(self, other: Any) -> Any:
        return self._two("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._two("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._two("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._two("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._two("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._two("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._two("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._two("div", other, self)

    def __pow__(self, power: Any) -> Any:
        return self._two("pow", self, power)

    def __rpow__(self, base: Any) -> Any:
        return self._two("pow", base, self)

    def __neg__(self) -> Any:
        return self.operation("neg", self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self.operation("abs", self)

    def __lt__(self, other: Any) -> Any:
        return self.comparison("<", other)

    def __le__(self, other: Any) -> Any:
        return self.comparison("<=", other)

    def __gt__(self, other: Any) -> Any:
        return self.comparison(">", other)

    def __ge__(self, other: Any) -> Any:
        return self.comparison(">=", other)

    def __eq__(self, other: Any) -> Any:
        return self.comparison("==", other)

    def __ne__(self, other: Any) -> Any:
        return self.comparison("!=", other)

    def __bool__(self) -> bool:
        raise TracingError("the formula branches on a value; write `sdetools.select(condition, yes, no)` instead of `if`")

    def __float__(self) -> float:
        raise TracingError("the formula turns a coordinate into a number; use NumPy functions (np.exp, ...) instead of math's")

    __int__ = __index__ = __float__  # type: ignore[assignment]

    def __iter__(self) -> Any:
        raise TracingError("a coordinate is one number and cannot be iterated over")

    def square(self) -> Any:
        return self * self

    def conjugate(self) -> Any:
        return self


ELEMENTARY = ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arctan", "arcsin", "arccos", "log1p", "expm1")
"""The functions that NumPy asks of objects by their names."""


def _elementary(name: str) -> Callable[[Symbol], Any]:
    def method(self: Symbol) -> Any:
        return self.operation(name, self)

    return method


for _name in ELEMENTARY:
    setattr(Symbol, _name, _elementary(_name))


@dataclass(eq=False)
class Block:
    """A piece of a formula that is not worth tracing: `plain(*parts) -> rows`, each `(n, *paths)`, with `outputs` rows in the answer.

    On traced rows it becomes a call of a module-level compiled `function(*parts, out, *data)`, whose `out` has the results first and
    `scratch` rows after them. Without it a formula runs on the backends that can call `plain`.

    >>> Block(lambda u, v: u + v, outputs=1)(np.array([1.0]), np.array([2.0]))
    array([3.])
    """

    plain: Callable[..., np.ndarray]
    outputs: int
    scratch: int = 0
    function: Callable[..., None] | None = None
    data: tuple[np.ndarray, ...] = ()

    def __call__(self, *parts: Any) -> Any:
        if any(isinstance(part, Value) for part in parts):
            return self.call(parts, (self.outputs,))
        return self.plain(*(np.asarray(part, dtype=float) for part in parts))

    @cached_property
    def call(self) -> Call:
        """As a node of a graph."""
        return Call(self.function, self.data, self.scratch, self.plain)
