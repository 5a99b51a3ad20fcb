"""NumPy's functions on values: what `np.sum(x)`, `A @ x` or `np.where(x > 0, x, 0)` add to a trace.

NumPy calls `ufunc_of` and `function_of` when a function gets a value (`graph.value.Value`). `FUNCTIONS` maps the functions to those of this
module, which have NumPy's signature as far as they can. Arguments of type Any are values, numbers, arrays or sequences of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce as fold
from inspect import signature
from typing import Any

import numpy as np

from sdetools.graph.error_function import erf, normal_cdf
from sdetools.graph.errors import TracingError
from sdetools.graph.products import REDUCTIONS, average, decided, einsum, matmul, reduce, total, variance
from sdetools.graph.value import MAPS, SMALL, Value, apply, value
from sdetools.graph.views import at_places, broadcast, join, reshape, stack, take, transpose  # noqa: F401


def ufunc_of(ufunc: Any, method: str, inputs: Sequence[Any], options: dict[str, Any]) -> Any:
    """Apply a ufunc (an elementwise function of NumPy), or its `reduce` or `outer`, to symbolic arrays; NumPy calls this for each ufunc on one.

    Args:
        ufunc: The ufunc, such as `np.exp`.
        method: Its method that was called, "__call__" for the ufunc itself.
        inputs: Operands, some of them symbolic arrays (`Value`).
        options: Keyword arguments of the call.

    Returns:
        The result, a symbolic array (`Value`).

    Raises:
        TracingError: If the ufunc, its method or an option is not supported, such as `out=` or `where=`.
    """
    name = ufunc.__name__
    options = {n: o for n, o in options.items() if not harmless(n, o)}
    if method == "reduce" and name in (*REDUCTIONS, "logical_and", "logical_or") and options.keys() <= {"axis", "keepdims"}:
        made = reduce if name in REDUCTIONS else decided
        return made(name, inputs[0], options.get("axis", 0), bool(options.get("keepdims")))
    if method == "outer" and not options:
        a, b = map(value, inputs)
        return ufunc(reshape(a, (*a.shape, *[1] * b.ndim)), b)
    if "where" in options:
        raise TracingError(f"np.{name} with `where=` cannot be traced; write `np.where(condition, yes, no)`")
    if method != "__call__" or "out" in options:
        raise TracingError(f"np.{name}.{method} into an array cannot be traced; write `y = np.{name}(...)`")
    if options:
        raise TracingError(f"np.{name} with {', '.join(options)} cannot be traced")
    if name == "matmul":
        return matmul(*inputs)
    if name in REWRITTEN:
        return REWRITTEN[name](*map(value, inputs))
    if name not in MAPS:
        raise TracingError(
            f"np.{name} cannot be traced; write it with exp, log, sqrt, sin, tanh, abs, maximum, where and similar"
        )
    return apply(name, *inputs)


def function_of(function: Any, given: Sequence[Any], options: dict[str, Any]) -> Any:
    """Return what a function of NumPy that is no ufunc, such as `np.concatenate`, gives for symbolic arrays; NumPy calls this.

    The result is a symbolic array (`Value`), or what `function` returns instead of an array: `np.split` gives a list of them, `np.shape` a tuple.

    Args:
        function: The function of NumPy.
        given: Positional arguments of the call.
        options: Keyword arguments of the call.

    Raises:
        TracingError: If `FUNCTIONS` lacks the function, or its version there lacks an argument.
    """
    if function not in FUNCTIONS:
        if function is np.nan_to_num:
            raise TracingError("np.nan_to_num depends on values; write `np.where(condition, yes, no)`")
        raise TracingError(f"np.{function.__name__} cannot be traced")
    return called(f"np.{function.__name__}", FUNCTIONS[function], given, options)


def called(name: str, function: Callable[..., Any], given: Sequence[Any], options: dict[str, Any]) -> Any:
    """Return `function(*given, **options)`, without the options that change nothing (`harmless`), such as dtype=float.

    Args:
        name: Name of the function for the message: "np.sum".
        function: The version of a function of NumPy for symbolic arrays (`Value`), from the tables `FUNCTIONS` or `METHODS`.
        given: Positional arguments.
        options: Keyword arguments.

    Raises:
        TracingError: If `function` lacks one of the arguments.
    """
    options = {n: o for n, o in options.items() if not harmless(n, o)}
    try:
        signature(function).bind(*given, **options)
    except TypeError as error:
        raise TracingError(f"{name} with these arguments cannot be traced: {error}") from None
    return function(*given, **options)


def harmless(name: str, option: Any) -> bool:
    """Whether the argument `name=option`, such as dtype=float or out=None, asks a function of NumPy for what its version for values does anyway."""
    if name == "dtype":
        return option is None or np.dtype(option) == float
    if name == "out":
        return option is None or all(o is None for o in np.atleast_1d(np.asarray(option, dtype=object)))
    if name in ("order", "where"):
        return option is True or (isinstance(option, str) and option in "CKA")
    return name in ("optimize", "copy")


def _whole(a: Value, b: Value) -> Value:
    """Return floor(a / b)."""
    return apply("floor", apply("divide", a, b))


def _conditions(sign: str, *args: Value) -> tuple[Value, ...]:
    """Return the arguments of a bitwise operation, which must be conditions."""
    if not all(a.boolean for a in args):
        raise TracingError(f"`{sign}` takes conditions only, such as x > 0; got a number")
    return args


REWRITTEN: dict[str, Callable[..., Any]] = {
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1.0 / x,
    "positive": lambda x: x,
    "conjugate": lambda x: x,
    "fabs": abs,
    "float_power": lambda a, b: a**b,
    "floor_divide": _whole,
    "remainder": lambda a, b: a - b * _whole(a, b),
    "ceil": lambda x: -np.floor(-x),
    "trunc": lambda x: np.where(x < 0, -np.floor(-x), np.floor(x)),
    "logaddexp": lambda a, b: np.maximum(a, b) + np.log1p(np.exp(-abs(a - b))),
    "hypot": lambda a, b: np.sqrt(a * a + b * b),
    "fmax": lambda a, b: np.where(b != b, a, np.where(a != a, b, np.maximum(a, b))),
    "fmin": lambda a, b: np.where(b != b, a, np.where(a != a, b, np.minimum(a, b))),
    "erf": erf,
    "ndtr": normal_cdf,
    "heaviside": lambda x, h: np.where(x < 0, 0.0, np.where(x > 0, 1.0, np.where(x == 0, h, x))),
    "isnan": lambda x: x != x,
    "isfinite": lambda x: x - x == 0.0,
    "isinf": lambda x: apply("logical_and", x == x, x - x != 0.0),
    "signbit": lambda x: x < 0,
    "bitwise_and": lambda a, b: apply("logical_and", *_conditions("&", a, b)),
    "bitwise_or": lambda a, b: apply("logical_or", *_conditions("|", a, b)),
    "bitwise_xor": lambda a, b: apply("not_equal", *_conditions("^", a, b)),
    "logical_xor": lambda a, b: apply("not_equal", apply("logical_not", a), apply("logical_not", b)),
    "invert": lambda a: apply("logical_not", *_conditions("~", a)),
}
"""Ufuncs that are expressed by others."""


# ---- norms


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Value:
    """Return `np.linalg.norm` of vectors, or the Frobenius norm of matrices, as a symbolic array without the axes of the vectors or matrices.

    Args:
        x: A vector, or an array with several axes, symbolic (`Value`) or not.
        ord: None for the root of the sum of squares, also written 2 for vectors and "fro" for matrices; for vectors also 1 and infinity.
        axis: The axis of the vectors, a pair of axes of the matrices, or None for all axes.
        keepdims: Whether the axes stay, with length 1.

    Raises:
        TracingError: For another `ord`, such as 2 for matrices.
    """
    x = value(x)
    of_vectors = x.ndim == 1 if axis is None else np.ndim(axis) == 0 or len(axis) == 1
    if ord is None or ord == (2 if of_vectors else "fro"):
        return apply("sqrt", total(x * x, axis, keepdims=keepdims))
    if ord == 1 and of_vectors:
        return total(abs(x), axis, keepdims=keepdims)
    if ord == np.inf and of_vectors:
        return reduce("maximum", abs(x), axis, keepdims)
    raise TracingError(f"np.linalg.norm with ord={ord!r} of {'vectors' if of_vectors else 'matrices'} cannot be traced")


# ---- shapes


def rearranged(function: Callable[..., Any]) -> Callable[..., Value]:
    """Return a version for symbolic arrays of a NumPy function that only rearranges its first argument x, such as `np.roll` or `np.repeat`.

    The version takes the arguments of `function`. It applies `function` to the array of the positions of x's elements in C order, and returns the
    elements at the resulting positions as a symbolic array (`Value`). For invalid arguments it raises what NumPy's function raises.
    """

    def rearrange(x: Any, *given: Any, **options: Any) -> Value:
        x = value(x)
        return at_places(x, function(np.arange(x.size).reshape(x.shape), *given, **options))

    return rearrange


def split_into_views(function: Callable[..., Any]) -> Callable[..., list[Value]]:
    """Return a version for symbolic arrays of a NumPy function that splits its first argument, such as `np.split`.

    The version takes the arguments of `function` and returns a list of symbolic arrays (`Value`).
    """
    return lambda x, *given, **options: [
        at_places(value(x), part) for part in function(np.arange(value(x).size).reshape(value(x).shape), *given, **options)
    ]


def shaped(function: Callable[..., Any]) -> Callable[..., Value]:
    """Return a version for symbolic arrays of a NumPy function that changes only the shape of its first argument, such as `np.squeeze`.

    The version takes the arguments of `function` and returns a symbolic array (`Value`). `function` determines its shape, and raises its own errors
    for invalid arguments.
    """
    return lambda x, *given, **options: reshape(x, function(np.broadcast_to(0.0, value(x).shape), *given, **options).shape)


def reshaped(x: Any, shape: Any, *, order: str = "C") -> Value:
    """Return `x` in another shape as a symbolic array: `order` is "C" (last index changing fastest) or "F" (first index changing fastest).

    One axis of `shape` may be -1, and then has the length that remains. ValueError if the number of elements differs.
    """
    return reshape(x, shape) if order == "C" else rearranged(np.reshape)(x, shape, order=order)


def flat(x: Any, order: str = "C") -> Value:
    """Return the n elements of `x` as a symbolic array `(n,)`: `order` is "C" (last index changing fastest) or "F" (first index changing fastest)."""
    return reshape(x, -1) if order == "C" else rearranged(np.ravel)(x, order)


def diag(x: Any, k: int = 0) -> Value:
    """Return diagonal k of a matrix x as a vector, or for a vector x the square matrix with x as diagonal k and zeros elsewhere.

    Both are symbolic arrays (`Value`).

    k = 0 is the main diagonal, k > 0 lies above it and k < 0 below.
    """
    x = value(x)
    return rearranged(np.diag)(x, k) if x.ndim == 2 else at_places(x, np.diag(np.arange(1, x.size + 1), k) - 1)


def like(number: float) -> Callable[..., Any]:
    """Return a function x -> NumPy array of the shape of x, filled with `number`: a version of `np.zeros_like` or `np.ones_like` for symbolic x.

    Arrays of at most 4096 elements have dtype object, so that symbols can be assigned to their elements; larger ones are float arrays.
    """
    return lambda x: np.full(value(x).shape, number, dtype=object) if value(x).size <= SMALL else np.full(value(x).shape, number)


def cumsum(x: Any, axis: int | None = None) -> Value:
    """Return sums of x's first 1, 2, ..., n elements along an axis as a symbolic array of x's shape; for axis None of the flattened x, `(n,)`."""
    x = value(x)
    out, step = reshape(x, -1) if axis is None else rearranged(np.moveaxis)(x, axis, 0), 1
    out = apply("where", out, 1.0, 0.0) if out.boolean else out
    while step < out.shape[0]:  # sums of 2, 4, 8, ... consecutive elements
        out, step = join([out[:step], out[step:] + out[:-step]]), 2 * step
    return out if axis is None else rearranged(np.moveaxis)(out, 0, axis)


def clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Value:
    """Return `x` limited to an interval as a symbolic array (`Value`); a bound that is None does not limit it.

    Args:
        x: A symbolic array (`Value`), a number, an array or a sequence of these.
        a_min: Lower bound; it broadcasts with `x`.
        a_max: Upper bound; it broadcasts with `x`, and is the result where the lower bound exceeds it.
        min: Another name of `a_min`; if both are given, `a_min` is ignored.
        max: Another name of `a_max`; if both are given, `a_max` is ignored.
    """
    low, high = a_min if min is None else min, a_max if max is None else max
    x = value(x) if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def astype(x: Value, dtype: Any) -> Value:
    """Return a symbolic array converted to the kind of `dtype`: for floats x, for signed integers x truncated (still floats), for Booleans x != 0.

    TracingError for all other kinds of `dtype`. Truth values become 0 and 1 for floats and integers.
    """
    kind = np.dtype(dtype).kind
    if kind not in "fib":
        raise TracingError(f"astype({dtype}) cannot be traced")
    if x.boolean:
        return x if kind == "b" else apply("where", x, 1.0, 0.0)
    return {"f": lambda: x, "i": lambda: np.trunc(x), "b": lambda: x != 0.0}[kind]()


def outer(a: Any, b: Any) -> Value:
    """Return the outer product a_i b_j of the flattened arrays a and b as a symbolic array (`Value`) `(a.size, b.size)`."""
    return reshape(a, (-1, 1)) * reshape(b, (1, -1))


def dot(a: Any, b: Any) -> Value:
    """Return `np.dot(a, b)` as a symbolic array (`Value`): the matrix product, or the product with a number.

    Raises:
        TracingError: If an array has more than two axes.
        ValueError: If the shapes do not match.
    """
    if max(np.ndim(a), np.ndim(b)) > 2:
        raise TracingError("np.dot and np.inner of arrays with more than two axes cannot be traced; write `a @ b`")
    return value(a) * value(b) if 0 in (np.ndim(a), np.ndim(b)) else matmul(a, b)


def where(condition: Any, *branches: Any) -> Value:
    """Return, elementwise, `branches[0]` where the condition holds (numbers: is not 0), else `branches[1]`, as a symbolic array (`Value`).

    It has the shape to which all three broadcast. TracingError unless there are two branches: which elements of a symbol are true is not known.
    """
    if len(branches) != 2:
        raise TracingError("np.where without its two branches depends on values; write `np.where(condition, yes, no)`")
    condition = value(condition)
    return apply("where", condition if condition.boolean else condition != 0.0, *branches)


def _named(name: str, made: Callable[..., Any] = reduce) -> Callable[..., Any]:
    return lambda x, axis=None, *, keepdims=False: made(name, x, axis, keepdims)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: total, np.mean: average, np.average: average, np.var: variance, np.std: lambda *a, **o: np.sqrt(variance(*a, **o)),
    np.prod: _named("multiply"), np.max: _named("maximum"), np.min: _named("minimum"), np.amax: _named("maximum"), np.amin: _named("minimum"),
    np.any: _named("logical_or", decided), np.all: _named("logical_and", decided),
    np.dot: dot, np.vdot: lambda a, b: total(reshape(a, -1) * reshape(b, -1)), np.inner: lambda a, b: dot(a, transpose(b)), np.outer: outer, np.einsum: einsum, np.linalg.norm: norm,
    np.cumsum: cumsum, np.trace: lambda x, offset=0: total(rearranged(np.diagonal)(x, offset), -1), np.diagonal: rearranged(np.diagonal), np.diag: diag, np.clip: clip, np.where: where,
    np.reshape: reshaped, np.ravel: flat, np.take: rearranged(np.take), np.rot90: rearranged(np.rot90), np.fliplr: rearranged(np.fliplr), np.flipud: rearranged(np.flipud),
    np.transpose: transpose, np.swapaxes: rearranged(np.swapaxes), np.moveaxis: rearranged(np.moveaxis), np.broadcast_to: lambda x, shape: broadcast(x, np.atleast_1d(shape) if np.ndim(shape) == 0 else shape),
    np.squeeze: shaped(np.squeeze), np.expand_dims: shaped(np.expand_dims), np.split: split_into_views(np.split), np.array_split: split_into_views(np.array_split), np.flip: rearranged(np.flip), np.roll: rearranged(np.roll),
    np.concatenate: lambda parts, axis=0: join([reshape(p, -1) for p in parts] if axis is None else parts, axis or 0),
    np.stack: lambda parts, axis=0: stack(parts, axis), np.hstack: lambda parts: join([np.atleast_1d(p) for p in parts], -1 if value(parts[0]).ndim > 1 else 0),
    np.vstack: lambda parts: join([np.atleast_2d(p) for p in parts]), np.column_stack: lambda parts: join([p if np.ndim(p) == 2 else reshape(p, (-1, 1)) for p in parts], 1),
    np.append: lambda a, b, axis=None: join([reshape(a, -1), reshape(b, -1)] if axis is None else [a, b], axis or 0),
    np.atleast_1d: lambda x: shaped(np.atleast_1d)(x), np.atleast_2d: lambda x: shaped(np.atleast_2d)(x),
    np.diff: lambda x, n=1, axis=-1: fold(lambda v, _: v[1:] - v[:-1], range(n), value(x)) if value(x).ndim == 1 else _no_diff(),
    np.tile: rearranged(np.tile), np.repeat: rearranged(np.repeat), np.delete: rearranged(np.delete),
    np.shape: lambda x: x.shape, np.ndim: lambda x: x.ndim, np.size: lambda x: x.size, np.copy: lambda x: x, np.real: lambda x: x,
    np.zeros_like: like(0.0), np.ones_like: like(1.0), np.empty_like: like(0.0), np.full_like: lambda x, n: like(n)(x),
    np.tril: lambda x, k=0: x * np.tril(np.ones(value(x).shape), k), np.triu: lambda x, k=0: x * np.triu(np.ones(value(x).shape), k),
    np.isclose: lambda a, b, rtol=1e-5, atol=1e-8: abs(value(a) - b) <= atol + rtol * abs(value(b)), np.broadcast_arrays: lambda *a: [broadcast(x, np.broadcast_shapes(*(value(y).shape for y in a))) for x in a],
    np.result_type: lambda *_: np.dtype(float),
}  # fmt: skip


def _no_diff() -> Value:
    raise TracingError("np.diff of an array with several axes cannot be traced; subtract slices")


METHODS: dict[str, Callable[..., Any]] = {
    "sum": total, "mean": average, "var": variance, "std": FUNCTIONS[np.std], "prod": _named("multiply"), "max": _named("maximum"),
    "min": _named("minimum"), "dot": dot, "ravel": FUNCTIONS[np.ravel], "flatten": FUNCTIONS[np.ravel], "copy": FUNCTIONS[np.copy],
    "reshape": lambda x, *shape, order="C": reshaped(x, shape[0] if len(shape) == 1 else shape, order=order), "astype": astype,
    "transpose": lambda x, *axes: transpose(x, (axes[0] if len(axes) == 1 else axes) if axes else None), "swapaxes": rearranged(np.swapaxes),
    "squeeze": shaped(np.squeeze), "clip": clip, "diagonal": rearranged(np.diagonal), "trace": FUNCTIONS[np.trace], "cumsum": cumsum, "item": lambda x: reshape(x, ()),
    "any": FUNCTIONS[np.any], "all": FUNCTIONS[np.all], "square": lambda x: x * x, "conjugate": lambda x: x, "select": where,
    **{name: (lambda name: lambda x: apply(name, x))(name) for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh",
       "arctan", "arcsin", "arccos", "log1p", "expm1", "floor")},
}  # fmt: skip
"""Methods of values: those of arrays, and those by which NumPy applies functions to object arrays of values."""
