"""The lane functions that every kernel needs, compiled once and called by address.

Were they linked into each kernel, LLVM would optimise them anew every time, which is most of the time a kernel takes to compile. All have
one signature, six 64-bit integers; arrays are passed as addresses. A kernel calls `lanes.call(address("lost"), ...)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numba import carray, njit

from sdetools._compiled import callback, jit, once
from sdetools.graph.bits import float32_pointer
from sdetools.graph.lanes import FLAGS, float_pointer, u64, word_pointer
from sdetools.simulation import lanes, records

NAMES = ("reduce_single", "reduce_pair", "lost", "carry")
"""The functions, as a kernel names them."""
_SIGNATURE = "int64(int64, int64, int64, int64, int64, int64)"
_OPTIONS = dict(fastmath=FLAGS, error_model="numpy")
_SUMS = dict(fastmath=FLAGS | {"reassoc"}, error_model="numpy")


def _readers(pointer):
    """What reads values of a type, with its options; sums are double."""

    def reduce_single(values, columns, valid, out, before, width):
        """Joins a block's moments of all columns of a single dynamics to those of `before` paths; the first block of a leaf, to nothing."""
        rows, sums = carray(pointer(values), columns * width), carray(float_pointer(out), (columns, 2))
        if before == 0:
            sums[:] = 0.0
        for c in range(columns):
            lanes.reduce_single(rows, c * width, valid, before, sums[c])
        return 0

    def reduce_pair(values, columns, valid, out, before, width):
        """The same for a pair."""
        rows, sums = carray(pointer(values), 3 * columns * width), carray(float_pointer(out), (columns, 9))
        if before == 0:
            sums[:] = 0.0
        for c in range(columns):
            lanes.reduce_pair(rows, 3 * c * width, width, valid, before, sums[c])
        return 0

    def lost(state, start, stop, valid, width, _):
        """Lanes with a number that is not finite."""
        return lanes.count_lost(carray(pointer(state), stop * width), start, stop, valid, width)

    return {"reduce_single": (reduce_single, _SUMS), "reduce_pair": (reduce_pair, _SUMS), "lost": (lost, _OPTIONS)}


_weights, _mean, _product = (njit(inline="always")(f) for f in (records.weights, records.mean, records.product))


@jit(error_model="numpy")
def _join(left, n_left, right, n_right, table, rows, width):
    """Joins `rows` rows of moments, `width` statistics each: `right` becomes the node of both."""
    share, weight = _weights(float(n_left), float(n_right))
    for at in range(0, rows * width, width):
        for s in range(width):
            a, b = at + table[s, 0], at + table[s, 1]
            if a >= at:
                right[at + s] = _product(left[at + s], right[at + s], weight, right[a] - left[a], right[b] - left[b])
        for s in range(at, at + width):
            if table[s - at, 0] < 0:
                right[s] = _mean(left[s], right[s] - left[s], share)


_LEAF, _STACK, _STACKED, _SUMS_OUT, _COUNTS, _LENGTHS, _TABLE, _ROWS, _WIDTH, _LEVELS, _NODES, _NODE, _POSITION = range(13)
"""What the book of `Nodes` begins with: addresses, sizes, and how far it has come (the node and the position in it of the leaf to come)."""


def _carry(tree, paths, _a, _b, _c, _d):
    """The leaf whose moments have been made, of so many paths, goes up the tree: as in a binary counter, one join a leaf on average.

    What has no sibling waits on a stack of levels. A node's last leaf gathers what waits, from the right, into the node.
    """
    book = carray(word_pointer(tree), 13)
    rows, width, nodes, node, position = (
        np.int64(book[_ROWS]), np.int64(book[_WIDTH]), np.int64(book[_NODES]), np.int64(book[_NODE]), np.int64(book[_POSITION]),
    )  # fmt: skip
    size, levels = rows * width, np.int64(book[_LEVELS])
    leaf, stack = carray(float_pointer(book[_LEAF]), size), carray(float_pointer(book[_STACK]), (levels, size))
    stacked, table = carray(word_pointer(book[_STACKED]), levels).view(np.int64), carray(word_pointer(book[_TABLE]), (width, 2))
    table = table.view(np.int64)
    last = position + 1 == np.int64(carray(word_pointer(book[_LENGTHS]), nodes)[node])
    level, count = 0, paths
    while position >> level > 0 and (last or position >> level & 1 == 1):
        if position >> level & 1:  # the ones of the counter are the levels that wait
            _join(stack[level], stacked[level], leaf, count, table, rows, width)
            count += stacked[level]
        level += 1
    if last:
        carray(float_pointer(book[_SUMS_OUT]), (nodes, size))[node] = leaf
        carray(word_pointer(book[_COUNTS]), nodes)[node] = u64(count)
        book[_NODE], book[_POSITION] = u64(node + 1), u64(0)
    else:
        stack[level] = leaf
        stacked[level] = count
        book[_POSITION] = u64(position + 1)
    return 0


@once
def function(name, dtype="float64"):
    """A function of `NAMES` for values of a type, as a C callback; compiled, or found compiled, when it is first asked for."""
    if name == "carry":  # nothing regrouped or contracted: the same bits as `records.joined`
        return callback(_SIGNATURE, error_model="numpy")(_carry)
    written, options = _readers(float_pointer if dtype == "float64" else float32_pointer)[name]
    return callback(_SIGNATURE, name=f"{name}_{dtype}", **options)(written)


def address(name, dtype="float64"):
    """Where that function is."""
    return function(name, dtype).address


class Nodes:
    """Where a kernel puts moments: its contract.

    For each leaf of `LEAF` paths the kernel makes the leaf's moments in `leaf`, `(records, columns, statistics)`: for each record by
    reduce_single or reduce_pair, block after block of the leaf, with `before` the leaf's paths in the blocks before. Then it calls
    carry(tree, paths of the leaf, 0, 0, 0, 0) once. After the last leaf `sums` and `counts` are those of the nodes, `lengths` leaves each.
    """

    def __init__(self, statistics: records.Columns, shape: tuple[int, int], lengths: Sequence[int]) -> None:
        nodes, levels, width = len(lengths), max(lengths, default=1).bit_length(), len(statistics)
        size = shape[0] * shape[1] * width
        self._room = np.empty((1 + levels) * size)
        self.leaf = self._room[:size].reshape(*shape, width)
        self.sums = np.empty((nodes, *shape, width))
        self._book = np.zeros(13 + levels + 2 * nodes + 2 * width, np.int64)
        stacked, counted, long, table = accumulate((levels, nodes, nodes), initial=13)
        self.counts, self._book[long:table], self._book[table:] = self._book[counted:long], lengths, statistics.table.ravel()
        room, self.tree = self._room.__array_interface__["data"][0], self._book.__array_interface__["data"][0]
        places = (room, room + 8 * size, self.tree + 8 * stacked, self.sums.__array_interface__["data"][0])
        more = (self.tree + 8 * counted, self.tree + 8 * long, self.tree + 8 * table)
        self._book[:11] = (*places, *more, shape[0] * shape[1], width, levels, nodes)
