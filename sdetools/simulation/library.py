"""The functions on lanes that every kernel needs, compiled once and called by address.

If they were linked into each kernel, LLVM would optimise them again each time, which takes most of the compile time of a kernel.
All have one signature, six 64-bit integers; arrays are passed as addresses. A kernel calls `lanes.call(address("count_diverged"),
...)`. Arrays are accessed by pointers, because array access in Numba may raise errors, and code that may do so needs Numba at run
time (`_machine_code.py`).
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
"""The names of the functions."""
_OPTIONS: dict[str, Any] = dict(fastmath=FLAGS, error_model="numpy")
_SUMS: dict[str, Any] = dict(fastmath=FLAGS | {"reassoc"}, error_model="numpy")


def _readers(pointer: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the functions that read values of a type, a dict from the name to a pair (Python function, compiler options).

    `pointer` is the function of Numba that makes a pointer to values of this type of an address. Sums are in double precision.
    """

    def reduce_single(values, columns, valid, out, before, width):
        """Add a block of consecutive paths to the moments of a leaf (256 paths), for one dynamics and all quantities of a record; return 0.

        Args:
            values: The address of the rows h(x), one for each quantity (observable or functional).
            columns: The number of quantities.
            valid: The number of paths of the block.
            out: The address of the moments, `(columns, 2)` doubles: the mean of h and the sum of squares about it. They are updated.
            before: The number of paths in earlier blocks of the leaf; the moments are set to zero first if it is 0.
            width: The number of lanes of a row, that is, the distance from one row to the next; those from `valid` on are ignored.
        """
        rows, sums = pointer(values), float_pointer(out)
        if before == 0:
            for i in range(2 * columns):
                sums[i] = 0.0
        for c in range(columns):
            lane_moments.reduce_single(rows, c * width, valid, before, sums, 2 * c)
        return 0

    def reduce_pair(values, columns, valid, out, before, width):
        """Add a block of consecutive paths to the moments of a leaf (256 paths), for a pair and all quantities of a record; return 0.

        Args:
            values: The address of the rows h(x), h(z) and the control variate C, three for each quantity (observable or functional).
            columns: The number of quantities.
            valid: The number of paths of the block.
            out: The address of the moments, `(columns, 9)` doubles in the order of `records.PAIR`. They are updated.
            before: The number of paths in earlier blocks of the leaf; the moments are set to zero first if it is 0.
            width: The number of lanes of a row, that is, the distance from one row to the next; those from `valid` on are ignored.
        """
        rows, sums = pointer(values), float_pointer(out)
        if before == 0:
            for i in range(9 * columns):
                sums[i] = 0.0
        for c in range(columns):
            lane_moments.reduce_pair(rows, 3 * c * width, width, valid, before, sums, 9 * c)
        return 0

    def count_diverged(state, start, stop, valid, width, _):
        """Return how many of the first `valid` lanes (paths of a block) have a number that is not finite in one of the rows `start` to `stop - 1`.

        Args:
            state: The address of row 0 of the state, an array `(rows, width)`.
            start: The first row that is examined.
            stop: The end of these rows, exclusive.
            valid: The number of lanes that are paths.
            width: The number of lanes of a row.
            _: Not used; every function takes six integers.
        """
        return lane_moments.count_diverged(pointer(state), start, stop, valid, width)

    return {
        "reduce_single": (reduce_single, _SUMS),
        "reduce_pair": (reduce_pair, _SUMS),
        "count_diverged": (count_diverged, _OPTIONS),
    }


_weights, _mean, _product = (njit(inline="always")(f) for f in (records.weights, records.mean, records.product))


@njit(error_model="numpy", inline="always")
def _join(left, at_left, n_left, right, n_right, table, rows, width):
    """Join the moments of two disjoint sets of paths, `rows` rows of `width` statistics each, and write the result over those of the right set.

    The moments of the left set begin at position `at_left` of `left`, those of the right set at 0 of `right`; `n_left` and `n_right` are the numbers
    of paths. `table` is that of `records.Columns.table`, flattened.
    """
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
    len(launch.HEADER)
)


def _carry(tree, paths, _a, _b, _c, _d):
    """Add a finished leaf of `paths` paths to the tree of its node, as in a binary counter: one join a leaf on average.

    `tree` is the address of the descriptor of `launch.Nodes`, whose first entries are those of `launch.HEADER`; the leaf's moments are at its
    entry `leaf`. Moments without a sibling are stored on a stack, one for each level of the tree. The last leaf of a node joins those on the
    stack, from the right, and the moments of the node are written to `sums`. The other arguments are not used.
    """
    header = whole_pointer(tree)
    rows, width, node, position = header[_ROWS], header[_WIDTH], header[_NODE], header[_POSITION]
    size = rows * width
    leaf, stack, stacked, table = (
        float_pointer(header[_LEAF]), float_pointer(header[_STACK]), whole_pointer(header[_STACKED]), whole_pointer(header[_TABLE]),
    )  # fmt: skip
    last = position + 1 == whole_pointer(header[_LENGTHS])[node]
    level, count = 0, paths
    while position >> level > 0 and (last or position >> level & 1 == 1):
        if position >> level & 1:  # the ones of the counter are the levels on the stack
            _join(stack, level * size, stacked[level], leaf, count, table, rows, width)
            count += stacked[level]
        level += 1
    if last:
        sums = float_pointer(header[_SUMS_OUT])
        for i in range(size):
            sums[node * size + i] = leaf[i]
        whole_pointer(header[_COUNTS])[node] = count
        header[_NODE], header[_POSITION] = node + 1, 0
    else:
        for i in range(size):
            stack[level * size + i] = leaf[i]
        stacked[level] = count
        header[_POSITION] = position + 1
    return 0


@once
def function(name: str, dtype: str = "float64") -> Any:
    """Return one of the functions that kernels call for moments and divergence, compiled by Numba as a C callback, once in a process.

    Args:
        name: "reduce_single" or "reduce_pair" (add a block of paths to the moments of a leaf, for one dynamics or a pair), "count_diverged" (count
            the paths of a block that are not finite) or "carry" (join the moments of a finished leaf with earlier ones).
        dtype: The type of the values that the function reads, "float64" or "float32"; moments are float64 for both.

    Returns:
        Numba's callback object of a function of six 64-bit integers that returns one; its `address` is that of the machine code.

    Raises:
        KeyError: There is no function of this name.
    """
    if name == "carry":  # no reassociation or contraction: the same bits as `records.joined`
        return by_address("simulation.library", name, dtype, _carry, error_model="numpy")
    written, options = _readers(float_pointer if dtype == "float64" else float32_pointer)[name]
    return by_address("simulation.library", name, dtype, written, **options)
