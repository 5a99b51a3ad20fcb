"""Traced values: a formula that is called with them records its operations as the nodes of a graph.

A `Value` has the component shape of one path; the axis of paths is implicit and last, and is added by the code generators. A value is
*uniform* if it is the same for all paths: coefficients of a step, data. NumPy's functions work on values, so a rule, a loss or a square
root is plain NumPy code. Equal operations of one trace share one node. The kinds of nodes:

    input    rows that differ from path to path: state, draws          uniform  a number or an array that is passed at run time
    const    an array that is known now                                map      elementwise with broadcasting; `name` is the function
    reduce   a sum (maximum, product) over axes                        contract a matrix of data (n, d) times rows (d, ...): a GEMM
    view     elements of a value, rearranged (`views.py`)              join     values concatenated along the first axis
    rows     rows of an array of data, others for each path            tally    its transpose: sums of draws by the row that they index
    call     a compiled function on whole rows
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np

from sdetools.graph.errors import TooLong, TracingError

Shape = tuple[int, ...]
SMALL = 4096
"""Constants up to this size are compared by content, larger ones by the memory that holds them."""
MOST = 200_000
"""The largest number of nodes of a trace: more would take longer than ten seconds to build and to compile."""
LARGEST_PRODUCT = 32
"""Largest whole exponent n for which x**n is expanded into products, by repeated squaring."""


class Trace:
    """The nodes of one trace, that is of formulas called with the same symbolic inputs. A node is one operation; equal operations share one node.

    Attributes:
        known: All nodes except constants, by their content, the tuple (op, name, keys of args, shape, key of extra). `input` and `uniform` create the
            first ones, operations on these the others.
        columns: Column-major copies, `(columns * rows,)`, of arrays of data whose rows are taken at traced indices, by `Value.key` of the array.
    """

    def __init__(self) -> None:
        self.known: dict[Any, Value] = {}
        self.columns: dict[Any, np.ndarray] = {}

    def input(self, name: str, shape: Shape = ()) -> Value:
        """Return the input `name` that differs from path to path, a `Value`; `shape` is its shape for one path. A second call returns the same node."""
        return self.node("input", name, (), shape)

    def uniform(self, name: str, shape: Shape = ()) -> Value:
        """Return the input `name` of shape `shape` that is the same for all paths, a `Value`, passed at run time. A second call returns the same node."""
        return self.node("uniform", name, (), shape)

    def node(
        self, op: str, name: Any, args: tuple[Value, ...], shape: Shape, extra: Any = None, key: Any = None, boolean: bool = False
    ) -> Value:
        """Return the node of an operation in this trace, a `Value`: the existing one if there is an equal one, else a new one.

        `op` (kind), `name`, `args` (operands), `shape`, `extra` and `boolean` are its attributes, explained at `Value`. Nodes are equal if their `op`,
        `name`, `shape`, `key` and the keys of their `args` are; `key` must be hashable and identify `extra`.

        Raises:
            TooLong: If the trace would get more than `MOST` = 200,000 nodes.
        """
        key = (op, name, tuple(a.key for a in args), shape, key)
        found = self.known.get(key)
        if found is None:
            if len(self.known) >= MOST:
                raise TooLong(
                    f"a formula and its derivatives must have at most {MOST:,} operations; these have more. Write it with operations on whole "
                    "arrays (np.sum, A @ x, slices): their number does not grow with the length of the arrays."
                )
            found = self.known[key] = Value(op, name, args, shape, extra, self, boolean)
        return found


class Value(np.lib.mixins.NDArrayOperatorsMixin):
    """A symbolic array, one node of a graph: it stands for an array of one path. NumPy's operators and functions on it return further nodes.

    Attributes:
        op: Kind of the operation: "input", "uniform", "const", "map" (elementwise), "reduce", "contract", "view", "join", "rows", "tally" or "call".
        name: NumPy's name of the function of a map or reduction, such as "add", or the name of an input; else empty.
        args: The nodes that it reads, a tuple.
        shape: Component shape, without the axis of paths.
        extra: What the kind needs in addition: the array of a constant, the axes of a reduction, the `View` of a view, the `Call` of a call.
        home: The `Trace` that it belongs to; None for a constant.
        boolean: Whether its elements are truth values, as those of x > 0 (a condition); else they are floats.
        uniform: Whether it is the same for all paths.
        key: Hashable identity: the object's `id`; of a constant its content, or its memory if it has more than 4096 elements.
    """

    __slots__ = ("args", "boolean", "extra", "home", "key", "name", "op", "shape", "uniform")
    __hash__ = object.__hash__
    numpy: ClassVar[Any]
    """NumPy's functions on values (`functions.py`), set by the package because that module imports this one."""

    def __init__(self, op: str, name: Any, args: tuple[Value, ...], shape: Shape, extra: Any, home: Any, boolean: bool) -> None:
        self.op, self.name, self.args, self.shape, self.extra, self.home = op, name, args, shape, extra, home
        self.boolean = boolean
        self.uniform: bool = op in ("const", "uniform") or (op != "input" and all(a.uniform for a in args))
        self.key: Any = id(self) if op != "const" else _content(extra)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(bool if self.boolean else float)

    @property
    def T(self) -> Value:
        return self.numpy.transpose(self)

    @property
    def flat(self) -> Iterator[Value]:
        return iter(self.reshape(-1))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a coordinate is one number and has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Value]:
        if not self.shape:
            raise TracingError("a coordinate is one number and cannot be iterated over")
        return (self[i] for i in range(self.shape[0]))

    def __bool__(self) -> bool:
        raise TracingError("the formula branches on a value; write `np.where(condition, yes, no)` instead of `if`")

    def __float__(self) -> float:
        raise TracingError("the formula converts a coordinate to a number; use NumPy functions (np.exp, ...) instead of math's")

    __int__ = __index__ = __complex__ = __float__

    def __contains__(self, _: Any) -> bool:
        raise TracingError("the formula tests membership of a value (`in`); write `np.where(condition, yes, no)`")

    def __getitem__(self, key: Any) -> Value:
        return self.numpy.take(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TracingError("the formula changes an array in place; build the new one, for example by np.stack or np.concatenate")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return self.numpy.ufunc_of(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, given: Any, options: Any) -> Any:
        return self.numpy.function_of(function, given, options)

    def __getattr__(self, name: str) -> Any:
        if name not in self.numpy.METHODS:
            raise AttributeError(f"a traced value has no attribute {name!r}", name=name, obj=self)
        return lambda *given, **options: self.numpy.called(
            f"the method {name}", self.numpy.METHODS[name], (self, *given), options
        )

    def __copy__(self) -> Value:
        return self

    def __deepcopy__(self, _: Any) -> Value:
        return self

    def __repr__(self) -> str:
        return f"{self.op}:{self.name}{list(self.shape)}"


def _content(array: np.ndarray) -> Any:
    """Return what identifies a constant: its bytes, or the memory that holds a large one."""
    same = array.tobytes() if array.size <= SMALL else (array.__array_interface__["data"][0], array.strides)
    return array.shape, array.dtype.char, same


def _const(array: np.ndarray) -> Value:
    return Value("const", "", (), array.shape, array, None, array.dtype == bool)


def is_value(x: Any) -> bool:
    """Whether `x` is a symbolic array (`Value`), an object array that contains one, or a list or tuple that contains one at any depth."""
    if isinstance(x, Value):
        return True
    if isinstance(x, np.ndarray):
        return x.dtype == object and any(isinstance(e, Value) for e in x.flat)
    return isinstance(x, (list, tuple)) and any(is_value(e) for e in x)


def value(x: Any) -> Value:
    """Convert a number, an array, or a sequence of values to a `Value`, a symbolic array; a `Value` is returned as it is.

    Args:
        x: A number, a numeric or Boolean array, or a list or tuple of numbers and values.

    Returns:
        A constant of the shape of `x`; with traced values in `x`, its elements stacked along a new first axis. Numbers become float64,
        Booleans a condition. A constant of more than 4096 elements may share the memory of `x`, which must then not change.

    Raises:
        TracingError: If `x` is of another type; NumPy's ValueError for a sequence of which it makes no array of numbers.

    Example:
        >>> from sdetools.graph.value import value
        >>> value([1.0, 2.0]).shape
        (2,)
    """
    if isinstance(x, Value):
        return x
    if isinstance(x, (bool, np.bool_, numbers.Real)):
        return _const(np.asarray(x if isinstance(x, (bool, np.bool_)) else float(x)))
    if isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.dtype == object):
        if is_value(x):
            return value(x[()]) if np.shape(x) == () and isinstance(x, np.ndarray) else Value.numpy.stack(x)
        x = np.array(x, dtype=float)
    if isinstance(x, np.ndarray) and x.dtype.kind in "fiub":
        array = x if x.dtype in (np.dtype(float), np.dtype(bool)) else x.astype(float)
        whole = array.flags.c_contiguous or array.flags.f_contiguous
        return _const(array.copy() if array.size <= SMALL else array if whole else np.ascontiguousarray(array))
    raise TracingError(f"cannot trace a value of type {type(x).__name__}")


def trace_of(args: Sequence[Value]) -> Trace | None:
    """Return the trace (record of operations) of the values `args`, None if all are constants; TracingError if they belong to several traces."""
    found = None
    for a in args:
        if a.home is not None:
            if found is not None and a.home is not found:
                raise TracingError("a formula must not keep values from one call to the next: these belong to two traces")
            found = a.home
    return found


def is_number(x: Value, number: float) -> bool:
    """Whether the value x is a constant scalar equal to `number`; False for a condition, and for NaN."""
    return x.op == "const" and x.shape == () and not x.boolean and float(x.extra) == number


CONDITIONS = {"less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "logical_and", "logical_or", "logical_not"}
MAPS = CONDITIONS | {
    "add", "subtract", "multiply", "divide", "negative", "power", "absolute", "sqrt", "exp", "log", "log1p", "expm1", "sin", "cos", "tan",
    "sinh", "cosh", "tanh", "arctan", "arcsin", "arccos", "maximum", "minimum", "sign", "floor", "where",
}  # fmt: skip
"""The elementwise operations; every code generator and the derivatives support these."""


OF_CONDITIONS = {"add": "logical_or", "maximum": "logical_or", "multiply": "logical_and", "minimum": "logical_and"}
"""NumPy's meaning of arithmetic between conditions."""


def apply(name: str, *inputs: Any) -> Value:
    """Return an elementwise operation as a symbolic array, simplified: constants are folded, operations without effect are dropped.

    Args:
        name: One of `MAPS`, NumPy's name of the function: "add", "exp", "where"; another one is not noticed here.
        *inputs: Operands (numbers, arrays, values), which broadcast by their component shapes, those of one path.

    Returns:
        A value of the broadcast shape. Its elements are truth values for the names in `CONDITIONS`, such as "less", for the sum, product, maximum and
        minimum of conditions, and for "where" with two of them.

    Raises:
        ValueError: If the shapes do not broadcast.
    """
    args = tuple(map(value, inputs))
    if name.startswith("logical_"):
        args = tuple(a if a.boolean else apply("not_equal", a, 0.0) for a in args)
    trace = trace_of(args)
    if all(a.boolean for a in args) and name not in CONDITIONS:
        if len(args) == 1:  # NumPy would compute with 11 bits
            return apply(name, apply("where", args[0], 1.0, 0.0))
        name = OF_CONDITIONS.get(name, name)
    if trace is None:
        with np.errstate(all="ignore"):
            return value(np.asarray(getattr(np, name)(*(a.extra for a in args))))
    try:
        shape = np.broadcast_shapes(*(a.shape for a in args))
    except ValueError:
        shapes = ", ".join(str(a.shape) for a in args)
        raise ValueError(
            f"operands could not be broadcast together with shapes {shapes} (component shapes of one path)"
        ) from None
    for i in range(len(args)):
        args = (*args[:i], _as_scalar(args[i], args, shape), *args[i + 1 :])
    plain = _simplified(name, args, shape)
    if plain is not None:
        return plain
    return trace.node(
        "map", name, args, shape, boolean=name in CONDITIONS or (name == "where" and args[1].boolean and args[2].boolean)
    )


def _as_scalar(a: Value, args: Sequence[Value], shape: Shape) -> Value:
    """Return the number that a constant array repeats, if the other operands still give the result its shape."""
    if a.op != "const" or not 1 <= a.size <= SMALL or not a.ndim or (a.extra != a.extra.flat[0]).any():
        return a
    return value(a.extra.flat[0]) if np.broadcast_shapes(*(b.shape for b in args if b is not a)) == shape else a


def _simplified(name: str, args: tuple[Value, ...], shape: Shape) -> Value | None:
    """Return a cheaper value equal to the operation `name` of `args`, of broadcast shape `shape`; None if there is none."""
    if name in ("add", "subtract", "multiply", "divide"):
        a, b = args
        unit = 0.0 if name in ("add", "subtract") else 1.0
        if is_number(b, unit) and a.shape == shape and not a.boolean:
            return a
        if name in ("add", "multiply") and is_number(a, unit) and b.shape == shape and not b.boolean:
            return b
        if name == "subtract" and is_number(a, 0.0):
            return apply("negative", b)
        if name == "divide" and b.op == "const" and b.shape == () and _is_power_of_two(b.extra) and abs(float(b.extra)) < 1e300:
            return apply("multiply", a, 1.0 / float(b.extra))  # exact
    if name == "power" and args[1].op == "const" and args[1].shape == ():
        return _power(args[0], float(args[1].extra))
    if name == "negative" and args[0].op == "map" and args[0].name == "negative":
        return args[0].args[0]
    if name in ("add", "subtract", "multiply", "negative"):
        return _merged(name, args)
    if name == "where" and args[0].op == "const" and args[0].shape == ():
        return Value.numpy.broadcast(args[1 if bool(args[0].extra) else 2], shape)
    return None


def _merged(name: str, args: tuple[Value, ...]) -> Value | None:
    """Return two operations combined into one (signs, powers of two, x + x); None if they cannot be.

    The results are bit-identical unless an intermediate result overflows or underflows.
    """
    a, b = args[0], args[-1]
    if name == "negative":
        factor = _factor(a)
        return apply("multiply", -factor[0], factor[1]) if factor is not None else None
    if name == "add" and a is b and not a.boolean:
        return apply("multiply", 2.0, a)
    if name in ("add", "subtract"):
        if _is_negative(b):
            return apply("subtract" if name == "add" else "add", a, b.args[0])
        return apply("subtract", b, a.args[0]) if name == "add" and _is_negative(a) else None
    number, other = (a, b) if a.op == "const" else (b, a)
    if number.op != "const" or number.ndim or number.boolean:
        return None
    if float(number.extra) == -1.0 and other.shape == a.shape + b.shape and not other.boolean:
        return apply("negative", other)
    if _is_negative(other):
        return apply("multiply", -float(number.extra), other.args[0])
    factor = _factor(other)
    if factor is None or not (_is_power_of_two(number.extra) or _is_power_of_two(factor[0])):
        return None
    both = float(number.extra) * factor[0]
    return apply("multiply", both, factor[1]) if 1e-300 < abs(both) < 1e300 else None


def _is_power_of_two(x: Any) -> bool:
    return bool(abs(np.frexp(x)[0]) == 0.5)


def _is_negative(x: Value) -> bool:
    return x.op == "map" and x.name == "negative"


def _factor(x: Value) -> tuple[float, Value] | None:
    """Return a multiple of a value by a constant as `(c, y)` with x = c y; None for other values."""
    if x.op == "map" and x.name == "multiply":
        for number, other in (x.args, x.args[::-1]):
            if number.op == "const" and not number.ndim and not number.boolean and other.shape == x.shape:
                return float(number.extra), other
    return None


def _power(x: Value, p: float) -> Value | None:
    """Return x**p for a whole or half-integer p as products, a square root and a reciprocal; None for other exponents."""
    if p < 0 and _power(x, -p) is not None:
        return apply("divide", 1.0, apply("power", x, -p))
    whole, half = divmod(p, 1.0)
    if p < 0 or half not in (0.0, 0.5) or whole > LARGEST_PRODUCT:
        return None
    out, square, n = apply("sqrt", x) if half else None, x, int(whole)
    while n:
        if n & 1:
            out = square if out is None else apply("multiply", out, square)
        n >>= 1
        square = apply("multiply", square, square) if n else square
    return value(np.ones(x.shape)) if out is None else out


def order(outputs: Sequence[Value]) -> list[Value]:
    """Return all values that `outputs` depend on, and `outputs` themselves, as a list: each once, after its arguments; of values with one `key` (equal constants) one."""
    done: dict[Any, Value] = {}
    todo = [(o, False) for o in reversed(list(outputs))]
    while todo:
        node, ready = todo.pop()
        if ready:
            done.setdefault(node.key, node)
        elif node.key not in done:
            todo += [(node, True), *((a, False) for a in reversed(node.args))]
    return list(done.values())
