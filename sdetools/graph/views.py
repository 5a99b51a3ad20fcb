"""Views, the elements of a value rearranged: indexing, reshaping, transposing, broadcasting, joining, and their transposes.

Element (i, j, ...) of a view is element `k = strides . (i, j, ...) + start` of its source, flattened in C order, or element `table[k]` if
there is a table. Table entry -1 is zero. A position in the flattened source is called flat. Shapes are component shapes: they lack the axis
of paths. All functions take values; those with an argument of type Any also take numbers, arrays and sequences, which they convert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from operator import index
from typing import Any

import numpy as np

from sdetools.graph.errors import TracingError
from sdetools.graph.value import SMALL, Shape, Value, apply, trace_of, value


@dataclass(frozen=True)
class View:
    """Which elements of its source a view consists of, and in which order; both are symbolic arrays (`Value`).

    A flat position is one in the source, flattened in C order.

    Attributes:
        strides: For each axis of the view, the step from one index to the next in k = strides . index + start; 0 repeats an element.
        start: The k of the first element.
        table: Flat positions `table[k]`, -1 for a zero, as bytes of int64; None if k is itself the flat position.
    """

    strides: Shape
    start: int = 0
    table: bytes | None = None

    def places(self, shape: Shape) -> np.ndarray:
        """Return the flat positions in the source of the view's elements, as an integer array; `shape` is that of the view, -1 means zero."""
        at = np.full(shape, self.start)
        for axis, (n, s) in enumerate(zip(shape, self.strides)):
            at += (np.arange(n) * s).reshape(-1, *[1] * (len(shape) - 1 - axis))
        return at if self.table is None else np.frombuffer(self.table, np.int64)[at]


def axis_of(axis: Any, ndim: int) -> int:
    """Return the number of an axis from 0 to ndim - 1, where a negative one counts from the end; NumPy's AxisError if it is out of bounds."""
    if not -ndim <= index(axis) < ndim:
        raise np.exceptions.AxisError(axis, ndim)
    return index(axis) % ndim


def dense(shape: Sequence[int]) -> Shape:
    """Return the strides of a C-contiguous array of shape `shape`, in elements: (3, 1) for shape (2, 3), () for ()."""
    return tuple(int(prod(shape[a + 1 :])) for a in range(len(shape)))


def view(x: Value, shape: Sequence[int], strides: Sequence[int], start: int = 0, table: np.ndarray | None = None) -> Value:
    """Return a rearrangement of the elements of `x` in its simplest form: views of constants are folded, of views composed, parts of joins read directly.

    Args:
        x: The source, a symbolic array.
        shape: Shape of the result.
        strides: For each axis of the result, the step from one index to the next in k = strides . index + start.
        start: The k of the first element.
        table: Integers: element k of the flattened source is taken if it is None, else element `table[k]`, and zero if that is -1.

    Returns:
        A symbolic array of shape `shape`; `x` itself if nothing changes.
    """
    shape, extra = tuple(shape), View(tuple(strides), start, None if table is None else np.asarray(table, np.int64).tobytes())
    if shape == x.shape and extra == View(dense(shape)):
        return x
    if x.op == "const" and prod(shape) == x.size and extra == View(dense(shape)):
        return value(x.extra.reshape(shape))
    if x.op == "const":
        flat, at = x.extra.ravel(), extra.places(shape)
        found = flat[at]
        return value(np.where(at < 0, 0.0, found) if (at < 0).any() else found)
    if x.op == "view" and x.size and prod(shape):
        inner: View = x.extra
        if table is None and inner.table is None and (made := _composed(inner, x.shape, shape, extra)) is not None:
            return view(x.args[0], shape, made.strides, made.start)
        if prod(shape) <= SMALL:
            outer, places = extra.places(shape), inner.places(x.shape).ravel()
            return at_places(x.args[0], np.where(outer < 0, -1, places[outer]))
    if x.op == "join" and 0 not in shape:
        at = extra.places(shape) if table is not None or prod(shape) <= SMALL else _ends(extra, shape)
        low, high = at.min(), at.max()
        i = int(np.searchsorted(x.extra, low, side="right"))
        if low >= 0 and high < x.extra[i]:
            part = x.args[i]
            begin = int(x.extra[i]) - part.size
            if table is None:
                return view(part, shape, strides, start - begin)
            return at_places(part, extra.places(shape) - begin)
    return trace_of((x,)).node("view", "", (x,), shape, extra, extra, x.boolean)  # type: ignore[union-attr]


def _ends(extra: View, shape: Shape) -> np.ndarray:
    """Return the smallest and the largest position of a view without table."""
    ends = [s * (n - 1) for s, n in zip(extra.strides, shape)]
    return np.array([extra.start + sum(min(e, 0) for e in ends), extra.start + sum(max(e, 0) for e in ends)])


def _composed(inner: View, middle: Shape, shape: Shape, outer: View) -> View | None:
    """Return a view of shape `shape` of a view of shape `middle` as one view without table; None if there is none."""
    along = {s: i for s, i, n in zip(dense(middle), inner.strides, middle) if n > 1}
    if any(n > 1 and s and s not in along for s, n in zip(outer.strides, shape)):
        return _linear(inner, middle, outer)
    begin = np.unravel_index(outer.start, middle)
    end = list(begin)
    for s, n in zip(outer.strides, shape):
        if n > 1 and s:
            axis = next(a for a, (d, m) in enumerate(zip(dense(middle), middle)) if d == s and m > 1)
            end[axis] += n - 1  # several axes of the outer view may run along it
            if end[axis] >= middle[axis]:
                return _linear(inner, middle, outer)
    start = inner.start + sum(int(b) * s for b, s in zip(begin, inner.strides))
    return View(tuple(along.get(s, 0) if n > 1 else 0 for s, n in zip(outer.strides, shape)), start)


def _linear(inner: View, middle: Shape, outer: View) -> View | None:
    """Return a view of a view as one view if the elements of the inner one are equally spaced in the source, else None."""
    flat, n = dense(middle), [a for a, m in enumerate(middle) if m > 1]
    step = inner.strides[n[-1]] if n else 0
    if any(inner.strides[a] != step * flat[a] for a in n):
        return None
    return View(tuple(step * s for s in outer.strides), inner.start + step * outer.start)


def at_places(x: Value, places: np.ndarray) -> Value:
    """Return the elements of `x` at given positions as a symbolic array (`Value`) of the shape of `places`.

    It is a view without a table if the positions are an affine function of the indices, else one with a table (`View`).

    Args:
        x: A symbolic array.
        places: Positions in `x`, flattened in C order, an integer array; -1 gives a zero. Others than -1 to x.size - 1 are not checked.
    """
    if not places.size:
        return value(np.zeros(places.shape))
    shape, first = places.shape, int(places.flat[0])
    strides = tuple(int(np.take(places, 1, a).flat[0] - first) if n > 1 else 0 for a, n in enumerate(shape))
    if places.min() >= 0 and np.array_equal(View(strides, first).places(shape), places):
        return view(x, shape, strides, first)
    return view(x, shape, dense(shape), 0, places.ravel())


def same_view(of: Value, x: Value) -> Value:
    """Return the elements of `x` rearranged as the view `of` rearranges those of its source; `x` has the shape of that source, the result that of `of`."""
    table = None if of.extra.table is None else np.frombuffer(of.extra.table, np.int64)
    return view(x, of.shape, of.extra.strides, of.extra.start, table)


def take(x: Value, key: Any) -> Value:
    """Return `x[key]` as NumPy defines it, for integers, slices, integer arrays and masks of numbers; a symbolic index selects rows of data.

    Args:
        x: A symbolic array (`Value`); for a symbolic index a constant one, `(n, *row)`.
        key: An index of NumPy, or a symbolic array `(size,)` or `()` with row numbers as floats, others for each path.

    Returns:
        A symbolic array; for a symbolic index of shape `(size, *row)` or `row`.

    Raises:
        IndexError: If an index is out of bounds; a symbolic one is not checked.
        TracingError: If a symbolic index is used on anything but rows of data, or is a condition.
    """
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool) and x.ndim:
        n = x.shape[0]
        if not -n <= key < n:
            raise IndexError(f"index {key} is out of bounds for axis 0 with size {n}")
        rest = x.shape[1:]
        return view(x, rest, dense(rest), int(key) % n * prod(rest))
    if isinstance(key, Value) or (isinstance(key, tuple) and any(isinstance(k, Value) for k in key)):
        return _gather(x, key)
    return at_places(x, np.arange(x.size).reshape(x.shape)[key])


def _gather(x: Value, key: Any) -> Value:
    """Return rows of data at indices that differ from path to path: `data[index]`, the index `(n,)` or a number; TracingError for all else."""
    if not isinstance(key, Value) or key.boolean or x.op != "const" or key.ndim > 1:
        raise TracingError(
            "only rows of data can be taken at traced indices, `data[index]`; write `np.where(condition, yes, no)` for a mask"
        )
    trace: Any = trace_of((key,))
    if x.key not in trace.columns:  # column-major
        trace.columns[x.key] = np.array(np.moveaxis(x.extra, 0, -1), float).ravel()
    return trace.node("rows", "", (x, key), (*key.shape, *x.shape[1:]), trace.columns[x.key])


def reshape(x: Any, shape: Any) -> Value:
    """Return `x` in another shape, in C order, as a symbolic array (`Value`); ValueError if the number of elements differs.

    Args:
        x: A symbolic array (`Value`), a number, an array or a sequence of these.
        shape: The new shape, or a number for one axis; one axis may be -1, and then has the length that remains.
    """
    x, shape = value(x), (shape,) if isinstance(shape, (int, np.integer)) else tuple(map(int, shape))
    rest = prod(n for n in shape if n != -1)
    full = tuple(x.size // rest if n == -1 and rest else n for n in shape)
    if min(full, default=0) < 0 or shape.count(-1) > 1 or prod(full) != x.size:
        raise ValueError(f"cannot reshape array of size {x.size} into shape {shape}")
    shape = full
    return view(x, shape, dense(shape))


def transpose(x: Any, axes: Any = None) -> Value:
    """Return `x` as a symbolic array (`Value`) whose axis i is axis `axes[i]` of `x`; None reverses the order of the axes.

    ValueError unless `axes` is a permutation of all axes; AxisError (NumPy's) if one is out of bounds.
    """
    x = value(x)
    axes = tuple(axis_of(a, x.ndim) for a in (axes if axes is not None else reversed(range(x.ndim))))
    if sorted(axes) != list(range(x.ndim)):
        raise ValueError(f"the axes {axes} must be a permutation of those of an array of shape {x.shape}")
    return view(x, tuple(x.shape[a] for a in axes), tuple(dense(x.shape)[a] for a in axes))


def broadcast(x: Any, shape: Any) -> Value:
    """Return `x` broadcast to the shape `shape` as a symbolic array (`Value`); ValueError if it does not fit."""
    x, shape = value(x), tuple(shape)
    if x.shape == shape:
        return x
    if np.broadcast_shapes(x.shape, shape) != shape:
        raise ValueError(f"could not broadcast an array of shape {x.shape} to shape {shape}")
    lead = (0,) * (len(shape) - x.ndim)
    return view(x, shape, lead + tuple(0 if n == 1 else s for n, s in zip(x.shape, dense(x.shape))))


def join(parts: Sequence[Any], axis: int = 0) -> Value:
    """Return arrays concatenated along an existing axis as one symbolic array (`Value`); an empty one `(0,)` without parts.

    Args:
        parts: Symbolic arrays, or numbers, arrays and sequences that `value` converts to them; empty vectors are dropped.
        axis: The axis; a negative one counts from the end.

    Raises:
        ValueError: If the shapes differ in another axis, or a part is a scalar.
        AxisError: If the parts lack the axis (NumPy's error).
    """
    parts = tuple(p for p in map(value, parts) if p.size or p.ndim > 1)
    if not parts:
        return value(np.zeros(0))
    if not all(p.ndim for p in parts):
        raise ValueError("a coordinate is one number and cannot be concatenated; write np.stack, or x[:1] for an array of one")
    axis = axis_of(axis, parts[0].ndim)
    if axis:
        order = list(range(parts[0].ndim))
        order[0], order[axis] = axis, 0
        return transpose(join([transpose(p, order) for p in parts]), order)
    if len({p.shape[1:] for p in parts}) > 1:
        raise ValueError(f"all parts must have one shape but for the first axis; got {', '.join(str(p.shape) for p in parts)}")
    if len(parts) == 1:
        return parts[0]
    trace = trace_of(parts)
    if trace is None:
        return value(np.concatenate([p.extra for p in parts]))
    parts = tuple(q for p in parts for q in (p.args if p.op == "join" else (p,)))
    whole = _same_source(parts)
    if whole is not None:
        return whole
    shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
    return trace.node("join", "", parts, shape, np.cumsum([p.size for p in parts]), boolean=all(p.boolean for p in parts))


def _same_source(parts: tuple[Value, ...]) -> Value | None:
    """Return parts that are views of one source, concatenated, as one view of it; None if they have several sources or are too large."""
    first = parts[0]
    if (
        first.op != "view"
        or any(p.op != "view" or p.args[0] is not first.args[0] for p in parts)
        or sum(p.size for p in parts) > SMALL
    ):
        return None
    return at_places(first.args[0], np.concatenate([p.extra.places(p.shape) for p in parts]))


def stack(parts: Any, axis: int = 0) -> Value:
    """Return arrays stacked along a new axis, after broadcasting them to one shape, as one symbolic array (`Value`).

    Args:
        parts: A sequence of symbolic arrays, or of numbers and arrays that `value` converts to them; an empty one gives shape `(0,)`.
        axis: Place of the new axis in the result; a negative one counts from the end.

    Raises:
        ValueError: If the shapes do not broadcast.
    """
    made = [value(p) for p in parts]
    shape = np.broadcast_shapes(*(p.shape for p in made)) if made else ()
    joined = join([reshape(broadcast(p, shape), (1, *shape)) for p in made])
    if not axis:
        return joined
    order = list(range(1, len(shape) + 1))
    order.insert(axis_of(axis, len(shape) + 1), 0)
    return transpose(joined, order)


def scatter(x: Value, of: Value) -> tuple[int, Value]:
    """Apply the transpose of a view to adjoints, derivatives of an output: an element of the source gets the sum over all its places in the view.

    Args:
        x: Adjoints of the elements of the view, a symbolic array of its shape.
        of: The view, a value of kind "view", which consists of elements of another value, its source.

    Returns:
        The pair (first position in the flattened source, symbolic array `(n,)` with the sums for the n elements from there on). All other elements
        have adjoint 0; n is 0 if the view contains no element of the source.
    """
    extra = of.extra
    summed = tuple(a for a, (s, n) in enumerate(zip(extra.strides, of.shape)) if s == 0 and n > 1)
    if not summed or extra.table is not None:
        return _placed(x, extra.places(of.shape))
    shape = tuple(n for a, n in enumerate(of.shape) if a not in summed)  # a broadcast
    strides = tuple(s for a, s in enumerate(extra.strides) if a not in summed)
    return _placed(np.sum(x, axis=summed), View(strides, extra.start).places(shape))


def _placed(x: Value, places: np.ndarray) -> tuple[int, Value]:
    """Add the elements of `x` at flat positions of the source; return the first position and the sums `(n,)` from there on."""
    at = places.ravel()
    flat, own = reshape(x, (x.size,)), np.flatnonzero(at >= 0)
    if not own.size:
        return 0, value(np.zeros(0))
    order = own[np.argsort(at[own], kind="stable")]
    low, size = int(at[order[0]]), int(at[order[-1]] - at[order[0]]) + 1
    which = at[order] - low
    out: Value | None = None
    while len(which):  # once for each time that an element occurs in the view
        fresh = np.concatenate([[True], which[1:] != which[:-1]])
        back = np.full(size, -1)
        back[which[fresh]] = order[fresh]
        part = at_places(flat, back)
        out = part if out is None else apply("add", out, part)
        order, which = order[~fresh], which[~fresh]
    return low, out  # type: ignore[return-value]


def assembled(pieces: Mapping[tuple[int, int], Value], shape: Shape) -> Value:
    """Return the sum of pieces of a flattened array as a symbolic array (`Value`) of shape `shape`; zeros outside of all pieces.

    Args:
        pieces: A dictionary from (position of a piece's first element in C order, its length n) to the piece, a symbolic array `(n,)`; pieces may
            overlap.
        shape: Shape of the result.
    """
    size, waiting, out = prod(shape), sorted(pieces), None
    while waiting:
        parts: list[Any] = []
        end, later = 0, []
        for first, length in waiting:
            if first < end:
                later.append((first, length))
                continue
            parts += [np.zeros(first - end), pieces[first, length]]
            end = first + length
        layer = reshape(join([*parts, np.zeros(size - end)]), shape)
        out = layer if out is None else apply("add", out, layer)
        waiting = later
    return out if out is not None else value(np.zeros(shape))
