"""The lane functions that every kernel needs, compiled once and called by address.

Were they linked into each kernel, LLVM would optimise them anew every time, which is most of the time a kernel takes to compile. All have
one signature, six 64-bit integers; arrays are passed as addresses. A kernel calls `lanes.call(address("count_diverged"), ...)`. Arrays are read by
pointers: Numba's may raise errors, and code that may needs Numba to run (`_machine_code.py`).
"""

from __future__ import annotations

from typing import Any

from numba import njit

from sdetools._compiled import by_address
from sdetools._machine_code import once
from sdetools.graph.bits import float32_pointer
from sdetools.graph.lanes import FLAGS, float_pointer, whole_pointer
from sdetools.simulation import lane_moments, launch, records

NAMES = ("reduce_single", "reduce_pair", "count_diverged", "carry")
"""The functions, as a kernel names them."""
_OPTIONS: dict[str, Any] = dict(fastmath=FLAGS, error_model="numpy")
_SUMS: dict[str, Any] = dict(fastmath=FLAGS | {"reassoc"}, error_model="numpy")


def _readers(pointer: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """What reads values of a type, with its options; sums are double."""

    def reduce_single(values, columns, valid, out, before, width):
        """Joins a block's moments of all columns of a single dynamics to those of `before` paths; the first block of a leaf, to nothing."""
        rows, sums = pointer(values), float_pointer(out)
        if before == 0:
            for i in range(2 * columns):
                sums[i] = 0.0
        for c in range(columns):
            lane_moments.reduce_single(rows, c * width, valid, before, sums, 2 * c)
        return 0

    def reduce_pair(values, columns, valid, out, before, width):
        """The same for a pair."""
        rows, sums = pointer(values), float_pointer(out)
        if before == 0:
            for i in range(9 * columns):
                sums[i] = 0.0
        for c in range(columns):
            lane_moments.reduce_pair(rows, 3 * c * width, width, valid, before, sums, 9 * c)
        return 0

    def count_diverged(state, start, stop, valid, width, _):
        """Lanes with a number that is not finite."""
        return lane_moments.count_diverged(pointer(state), start, stop, valid, width)

    return {
        "reduce_single": (reduce_single, _SUMS),
        "reduce_pair": (reduce_pair, _SUMS),
        "count_diverged": (count_diverged, _OPTIONS),
    }


_weights, _mean, _product = (njit(inline="always")(f) for f in (records.weights, records.mean, records.product))


@njit(error_model="numpy", inline="always")
def _join(left, at_left, n_left, right, n_right, table, rows, width):
    """Joins `rows` rows of moments, `width` statistics each: `right` becomes the node of both; `left` begins at `at_left`."""
    share, weight = _weights(float(n_left), float(n_right))
    for r in range(rows):
        at = r * width
        for s in range(at, at + width):
            a, b = at + table[2 * (s - at)], at + table[2 * (s - at) + 1]
            if a >= at:
                first, second = right[a] - left[at_left + a], right[b] - left[at_left + b]
                right[s] = _product(left[at_left + s], right[s], weight, first, second)
        for s in range(at, at + width):
            if table[2 * (s - at)] < 0:
                right[s] = _mean(left[at_left + s], right[s] - left[at_left + s], share)


_LEAF, _STACK, _STACKED, _SUMS_OUT, _COUNTS, _LENGTHS, _TABLE, _ROWS, _WIDTH, _, _NODES, _NODE, _POSITION = range(
    len(launch.BOOK)
)


def _carry(tree, paths, _a, _b, _c, _d):
    """The leaf whose moments have been made, of so many paths, goes up the tree: as in a binary counter, one join a leaf on average.

    What has no sibling waits on a stack of levels. A node's last leaf gathers what waits, from the right, into the node.
    """
    book = whole_pointer(tree)
    rows, width, node, position = book[_ROWS], book[_WIDTH], book[_NODE], book[_POSITION]
    size = rows * width
    leaf, stack, stacked, table = (
        float_pointer(book[_LEAF]), float_pointer(book[_STACK]), whole_pointer(book[_STACKED]), whole_pointer(book[_TABLE]),
    )  # fmt: skip
    last = position + 1 == whole_pointer(book[_LENGTHS])[node]
    level, count = 0, paths
    while position >> level > 0 and (last or position >> level & 1 == 1):
        if position >> level & 1:  # the ones of the counter are the levels that wait
            _join(stack, level * size, stacked[level], leaf, count, table, rows, width)
            count += stacked[level]
        level += 1
    if last:
        sums = float_pointer(book[_SUMS_OUT])
        for i in range(size):
            sums[node * size + i] = leaf[i]
        whole_pointer(book[_COUNTS])[node] = count
        book[_NODE], book[_POSITION] = node + 1, 0
    else:
        for i in range(size):
            stack[level * size + i] = leaf[i]
        stacked[level] = count
        book[_POSITION] = position + 1
    return 0


@once
def function(name: str, dtype: str = "float64") -> Any:
    """A function of `NAMES` for values of a type, compiled as a C callback."""
    if name == "carry":  # nothing regrouped or contracted: the same bits as `records.joined`
        return by_address("simulation.library", name, dtype, _carry, error_model="numpy")
    written, options = _readers(float_pointer if dtype == "float64" else float32_pointer)[name]
    return by_address("simulation.library", name, dtype, written, **options)
