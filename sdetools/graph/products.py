"""Sums and products: reductions over axes, matrix products, and sums that are recognised as matrix products."""

from __future__ import annotations

from functools import reduce as fold
from math import inf, nan, prod
from typing import Any

import numpy as np

from sdetools.graph.errors import TracingError
from sdetools.graph.value import Value, apply, trace_of, value
from sdetools.graph.views import axis_of, broadcast, reshape, transpose, view

REDUCTIONS = {"add": np.add, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum}


def reduce(name: str, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    """Return the sum, product, maximum or minimum over axes as a symbolic array (`Value`).

    Args:
        name: A key of `REDUCTIONS`: "add", "multiply", "maximum" or "minimum".
        x: A symbolic array (`Value`), a number, an array or a sequence of these; a condition counts as 0 and 1.
        axis: The axis, or a sequence of axes, that is reduced; None for all. Negative ones count from the end.
        keepdims: Whether the axes stay, with length 1.

    Raises:
        AxisError: If an axis is out of bounds (NumPy's error).
        ValueError: For the maximum or minimum of a constant without elements, such as `x[:0]`; its sum is 0 and its product 1.
    """
    x = value(x)
    axes = tuple(range(x.ndim)) if axis is None else tuple(sorted(axis_of(a, max(x.ndim, 1)) for a in np.atleast_1d(axis)))
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    shape = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    trace = trace_of((x,))
    if trace is None:
        with np.errstate(all="ignore"):
            out = value(np.asarray(REDUCTIONS[name].reduce(x.extra, axis=axes)))
    elif x.boolean:
        out = reduce(name, np.where(x, 1.0, 0.0), axes)
    elif prod(x.shape[a] for a in axes) == 1:
        out = reshape(x, shape)
    elif name == "add" and x.op == "view" and x.extra.table is None and (few := _repeated(x, axes)) is not None:
        out = few
    elif name == "add" and x.op == "map" and (made := _of_matrix(x, axes)) is not None:
        out = made
    else:
        out = trace.node("reduce", name, (x,), shape, axes, axes)
    return reshape(out, kept) if keepdims else out


def _repeated(x: Value, axes: tuple[int, ...]) -> Value | None:
    """Return the sum over `axes` of a view that repeats its elements along one of them, as a multiple; None if it repeats none."""
    flat = [a for a in axes if x.extra.strides[a] == 0 and x.shape[a] > 1]
    if not flat:
        return None
    times = prod(x.shape[a] for a in flat)
    shape = tuple(n for a, n in enumerate(x.shape) if a not in flat)
    strides = tuple(s for a, s in enumerate(x.extra.strides) if a not in flat)
    rest = tuple(a - sum(f < a for f in flat) for a in axes if a not in flat)
    return float(times) * (
        reduce("add", view(x.args[0], shape, strides, x.extra.start), rest)
        if rest
        else view(x.args[0], shape, strides, x.extra.start)
    )


def _of_matrix(x: Value, axes: tuple[int, ...]) -> Value | None:
    """Return a sum of products with data C, sum_k C[i, k] v[k, j] u[i, j], as (C @ v) * u; None if it has another form.

    Axes that only C or only v has are summed first.
    """
    summed = {a for a in axes if x.shape[a] > 1}
    data, inside, outside = (list[tuple[Value, set[int]]]() for _ in range(3))
    for f, own in ((f, _own_axes(f, x.ndim)) for f in map(_narrow, _factors(x))):
        (outside if not own & summed else data if f.op == "const" and not f.boolean else inside).append((f, own))
    varies = any(not f.uniform for f, _ in inside) or not inside
    of_data, of_rest = (set().union(*(own for _, own in parts)) for parts in (data, inside))
    rows, both, columns = sorted(of_data - summed), sorted(of_data & of_rest & summed), sorted(of_rest - summed)
    alone = [a for a in axes if a in of_data ^ of_rest]
    if not data or not varies or (both and (set(rows) & set(columns) or not (rows or alone))):
        return None
    C = fold(np.multiply, (_wide(f, x.ndim).extra for f, _ in data))
    C = C.sum(axis=tuple(a for a in alone if a in of_data), keepdims=True) if of_data & set(alone) else C
    v = fold(lambda a, b: a * b, (_wide(f, x.ndim) for f, _ in inside or [(value(1.0), set())]))
    v = reduce("add", v, tuple(a for a in alone if a in of_rest), keepdims=True)
    if rows and both:
        rest = [a for a in range(x.ndim) if a not in both]
        wide, high = [v.shape[a] for a in columns], [C.shape[a] for a in rows]
        matrix = C.transpose(*rows, *both, *(a for a in range(x.ndim) if a not in (*rows, *both))).reshape(prod(high), -1)
        product = matmul(matrix, reshape(transpose(v, (*both, *rest)), (matrix.shape[1], *([prod(wide)] if wide else []))))
        product = transpose(reshape(product, (*high, *wide)), np.argsort([*rows, *columns]))
        v = reshape(product, [1 if a in summed else max(C.shape[a], v.shape[a]) for a in range(x.ndim)])
    else:
        v = reduce("add", C * v, both, keepdims=True)
    times = prod(x.shape[a] for a in summed - of_data - of_rest)
    out = fold(lambda a, b: a * b, (f for f, _ in outside), v if times == 1 else float(times) * v)
    kept = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    out = broadcast(out, [1 if a in axes else n for a, n in enumerate(x.shape)])
    return reshape(out, kept)


def _factors(x: Value, most: int = 16) -> list[Value]:
    """Return the factors of a product in order, at most `most` of them; a sign is a factor -1, a value that is no product its only factor."""
    out, todo = list[Value](), [x]
    while todo:
        f = todo.pop()
        if f.op == "map" and f.name in ("multiply", "negative") and len(out) + len(todo) < most:
            todo += reversed(f.args)
            out += [value(-1.0)] if f.name == "negative" else []
        else:
            out.append(f)
    return out


def _narrow(f: Value) -> Value:
    """Return a value without the repetitions of a broadcast, with length 1 along such axes."""
    if f.op != "view" or f.extra.table is not None or 0 not in f.extra.strides:
        return f
    shape = tuple(1 if s == 0 else n for s, n in zip(f.extra.strides, f.shape))
    return view(f.args[0], shape, f.extra.strides, f.extra.start)


def _own_axes(f: Value, ndim: int) -> set[int]:
    """Return the axes of a product with `ndim` axes along which a factor has more than one element."""
    return {a + ndim - f.ndim for a, n in enumerate(f.shape) if n > 1}


def _wide(f: Value, ndim: int) -> Value:
    """Return a factor with leading axes of length 1, so that it has `ndim` axes."""
    return reshape(f, (*[1] * (ndim - f.ndim), *f.shape))


def decided(name: str, x: Any, axis: Any = None, keepdims: bool = False) -> Value:
    """Return whether any or all elements along axes are true, as a symbolic array (`Value`) of truth values.

    Args:
        name: "logical_or" for any, "logical_and" for all.
        x: Truth values or numbers, symbolic or not; a number is true if it is not 0.
        axis: The axis, or a sequence of axes, that is reduced; None for all.
        keepdims: Whether the axes stay, with length 1.
    """
    numbers = np.where(value(x) if value(x).boolean else value(x) != 0.0, 1.0, 0.0)
    return reduce("maximum" if name == "logical_or" else "minimum", numbers, axis, keepdims) > 0.5


def total(x: Any, axis: Any = None, *, keepdims: bool = False) -> Value:
    """Return the sum of `x` over one axis, a sequence of axes, or all (None) as a symbolic array; with `keepdims` the axes stay, with length 1."""
    return reduce("add", x, axis, keepdims)


def average(x: Any, axis: Any = None, *, keepdims: bool = False) -> Value:
    """Return the mean of `x` over one axis, a sequence of axes, or all (None) as a symbolic array; with `keepdims` the axes stay, with length 1.

    It is NaN if `x` has no elements.
    """
    out = reduce("add", x, axis, keepdims)
    return out * (out.size / value(x).size if value(x).size else nan)


def variance(x: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Value:
    """Return the variance over axes, the sum of squared deviations from the mean divided by n - ddof, as a symbolic array (`Value`).

    Args:
        x: A symbolic array (`Value`), a number, an array or a sequence of these.
        axis: The axis, or a sequence of axes, over which it is taken; None for all. n is the number of elements along them.
        ddof: Degrees of freedom that are subtracted: 1 for the unbiased estimate.
        keepdims: Whether the axes stay, with length 1.

    Returns:
        The variance; infinite, or NaN for equal elements, if n = ddof, and NaN if `x` has no elements.
    """
    own = value(x) - average(x, axis, keepdims=True)
    squares = total(own * own, axis, keepdims=keepdims)
    divisor = value(x).size / max(1, squares.size) - ddof
    return squares * (1.0 / divisor if divisor else inf)


def matmul(a: Any, b: Any) -> Value:
    """Return the matrix product a @ b as NumPy defines it, as a symbolic array (`Value`).

    With a constant matrix on one side it becomes one operation, the product of that matrix with the columns of all paths (a GEMM).

    Args:
        a: A symbolic array (`Value`), a number, an array or a sequence of these, with at least one axis.
        b: Of the same kinds; its last axis but one, or its only one, is as long as the last axis of `a`.

    Raises:
        ValueError: If the shapes do not match.
    """
    a, b = value(a), value(b)
    if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} (component shapes of one path) do not match")
    trace = trace_of((a, b))
    if trace is None:
        return value(np.matmul(a.extra, b.extra))
    a, b = (apply("where", v, 1.0, 0.0) if v.boolean else v for v in (a, b))
    if max(a.ndim, b.ndim) <= 2:
        if a.ndim == 2 and a.op == "const" and not b.uniform:
            return trace.node("contract", "", (a, b), (a.shape[0], *b.shape[1:]))
        if b.ndim == 2 and b.op == "const" and not a.uniform:
            return transpose(matmul(value(b.extra.T), transpose(a)))
    columns = b if b.ndim == 1 else transpose(b, (*range(b.ndim - 2), b.ndim - 1, b.ndim - 2))
    if 1 in (a.ndim, b.ndim):
        return total(a * columns, -1)
    left, right = reshape(a, (*a.shape[:-1], 1, a.shape[-1])), reshape(columns, (*columns.shape[:-2], 1, *columns.shape[-2:]))
    return total(left * right, -1)


def einsum(subscripts: Any, *factors: Any) -> Value:
    """Return a sum of products in Einstein notation, as `np.einsum` does, as a symbolic array (`Value`) whose axes are the indices after "->".

    A constant matrix contracted with the first index of a value goes through `matmul`.

    Args:
        subscripts: Indices of each factor and of the result, "ij,j->i"; without "->" the result has those that occur once, sorted. An
            ellipsis is ignored: it can only stand for no axes.
        *factors: Symbolic arrays, or numbers, arrays and sequences that `value` converts to them.

    Raises:
        TracingError: If the subscripts are not one string, name another number of axes than a factor has, or repeat an index in a factor ("ii").
        ValueError: If there are more or fewer terms than factors, or the result repeats an index or has one that no factor has.
    """
    if not isinstance(subscripts, str):
        raise TracingError("np.einsum must get its subscripts as one string to be traced")
    text = subscripts.replace(" ", "").replace("...", "")
    left, _, out = text.partition("->")
    terms, values = left.split(","), [value(f) for f in factors]
    if "->" not in text:
        out = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    if len(terms) != len(values) or len(set(out)) != len(out) or not set(out) <= set(left):
        raise ValueError(
            f"np.einsum({subscripts!r}) must have a term for each of its {len(values)} factors, and a result of their indices"
        )
    for t, v in zip(terms, values):
        if len(t) != v.ndim or len(set(t)) != len(t):
            raise TracingError(f"np.einsum({subscripts!r}) of component shapes {[v.shape for v in values]} cannot be traced")
    if len(terms) == 2 and len(terms[0]) == 2 and terms[0][1] == terms[1][:1] and out == terms[0][0] + terms[1][1:]:
        return matmul(*values)
    letters = out + "".join(c for c in dict.fromkeys("".join(terms)) if c not in out)
    spread = []
    for t, v in zip(terms, values):
        order = sorted(range(len(t)), key=lambda a: letters.index(t[a]))
        sizes = {t[a]: v.shape[a] for a in range(len(t))}
        spread.append(reshape(transpose(v, order), tuple(sizes.get(c, 1) for c in letters)))
    product = fold(lambda a, b: a * b, spread)
    return total(product, tuple(range(len(out), len(letters)))) if len(letters) > len(out) else product
