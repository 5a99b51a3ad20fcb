"""The call of a kernel: its argument is the address of a table of integers and of addresses of arrays.

Nothing here needs Numba. Kernels and the functions that they call are loaded as machine code (`_machine_code.py`), and otherwise
compiled by their modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from sdetools import _machine_code
from sdetools.simulation import records

NUMBERS = ("first", "blocks", "paths", "watch", "steps", "changing", "kept", "shown_rows", "picked_paths")
"""The integers at the beginning of a kernel's table.

They are the index of the chunk's first path, its numbers of blocks and of paths; `watch`, 1 for a check of divergence after every step,
otherwise 0; the number of steps; `changing`, the number of coefficients of a step, 0 if they are constant; the number of anchors of the control
variate; and the numbers of stored rows of the state and of stored paths of the chunk.
"""
ARRAYS = dict.fromkeys(("C", "P", "memory", "factors", "K", "rows", "Z", "V"), "real")
ARRAYS |= dict.fromkeys(("events", "slots", "diverged", "seen", "shown", "picked", "F", "N"), "whole")
ARRAYS |= dict.fromkeys(("keys", "W"), "word") | dict.fromkeys(("points", "leaf"), "float")
"""The arrays that follow, by the type of their elements: the kernel's floating-point type, int64, uint64, float64. Those of data come last."""
MODULES = dict.fromkeys(("normals", "uniforms", "signs", "words", "bits"), "simulation.draw_rows")
MODULES |= dict.fromkeys(("reduce_single", "reduce_pair", "count_diverged", "carry"), "simulation.library")
"""The modules of functions that kernels call by address, except those of `graph.rows`."""
ALIGNED = 64
"""The size of a cache line in bytes, the alignment of temporary arrays."""


def address(name: str, dtype: str = "float64") -> int:
    """Return the address of the machine code of a function that kernels call; it is compiled or loaded from the cache at its first use.

    Args:
        name: The name of the function: a key of `MODULES`, such as "normals" or "reduce_pair", a function of `graph.rows`, such as "exp", or that of
            another module below `sdetools`, such as "manifold.kernels:frame".
        dtype: The floating-point type of the kernel, "float64" or "float32".

    Returns:
        The address, an integer; it stays valid until the process ends.
    """
    module, _, own = name.rpartition(":")
    return _machine_code.address(module or MODULES.get(name, "graph.rows"), own, dtype)


def where(array: np.ndarray) -> int:
    """Return the address in memory of the first element of a NumPy array, as an integer; the array must outlive its use."""
    return array.__array_interface__["data"][0]


def scratch(size: int, dtype: np.dtype | type) -> np.ndarray:
    """Return a new, uninitialised array `(size,)` whose first element lies at the beginning of a cache line (64 bytes).

    Args:
        size: The number of elements.
        dtype: Their type.
    """
    dtype = np.dtype(dtype)
    memory = np.empty(size * dtype.itemsize + ALIGNED, np.uint8)
    return memory[-where(memory) % ALIGNED :][: size * dtype.itemsize].view(dtype)


def table(
    numbers: Mapping[str, int], arrays: Mapping[str, np.ndarray], tree: int, data: Sequence[np.ndarray], real: np.dtype
) -> np.ndarray:
    """Return the argument of a kernel: its integers, then the addresses of its arrays. The arrays must outlive its use.

    The kernel accesses memory by address, so types and layouts are checked here.

    Args:
        numbers: The integers, by the names of `NUMBERS`; each must be there.
        arrays: The arrays, by the names of `ARRAYS`, which lists their types; each must be there.
        tree: The attribute `tree` of the `Nodes` in which the kernel accumulates moments, the address of an array.
        data: The arrays of data that the kernel's formulas read, such as samples, in the order of `cpu.Kernel.data`.
        real: The floating-point type of the kernel.

    Returns:
        An int64 array: the integers, the addresses of `arrays`, `tree`, and the addresses of `data`. A kernel takes its address (`where`).

    Raises:
        TypeError: An array is not contiguous, or has another type than the kernel expects.
        KeyError: An integer or an array is missing.
    """
    kinds = {"real": real, "whole": np.dtype(np.int64), "word": np.dtype(np.uint64), "float": np.dtype(float)}
    for name, kind in ARRAYS.items():
        a = arrays[name]
        if a.dtype != kinds[kind] or not a.flags.c_contiguous:
            raise TypeError(f"array {name} of a kernel must be contiguous {kinds[kind]}; got {a.dtype} with strides {a.strides}")
    if any(not a.flags.forc or a.dtype not in (real, np.int64) for a in data):
        raise TypeError("arrays of data must be contiguous, and of type int64 or the kernel's type")
    places = [*(where(arrays[name]) for name in ARRAYS), tree, *map(where, data)]
    return np.array([*(int(numbers[name]) for name in NUMBERS), *places], np.int64)


HEADER = (
    "leaf",
    "stack",
    "stacked",
    "sums",
    "counts",
    "lengths",
    "table",
    "rows",
    "width",
    "levels",
    "nodes",
    "node",
    "position",
)
"""The first entries of the descriptor of `Nodes`: addresses, sizes, and the node and the position within it of the next leaf."""


class Nodes:
    """The memory in which a kernel accumulates the moments of a chunk (a set of consecutive paths), and its contract with the kernel.

    A leaf is 256 consecutive paths (the last leaf of a run may have fewer), and a node is some consecutive leaves. For each leaf, the kernel
    writes the leaf's moments to `leaf`: for each record by reduce_single or reduce_pair of `library`, block by block; their argument `before` is
    the number of paths in earlier blocks of the leaf. Then it calls carry(tree, paths of the leaf, 0, 0, 0, 0) once. After the last leaf, `sums`
    and `counts` are those of the nodes.

    Args:
        statistics: The names and order of the statistics, `records.SINGLE` or `records.PAIR`.
        shape: The numbers of recorded steps and of quantities (observables and functionals).
        lengths: The number of leaves of each node of the chunk, in order.

    Attributes:
        leaf: The moments of the present leaf, `(records, quantities, statistics)`.
        sums: The moments of the nodes, `(nodes, records, quantities, statistics)`.
        counts: The number of paths of each node, `(nodes,)`.
        tree: The address of the descriptor, an integer array whose first entries are those of `HEADER`.
    """

    def __init__(self, statistics: records.Columns, shape: tuple[int, int], lengths: Sequence[int]) -> None:
        nodes, levels, width, head = len(lengths), max(lengths, default=1).bit_length(), len(statistics), len(HEADER)
        size = shape[0] * shape[1] * width
        self._memory = np.empty((1 + levels) * size)
        self.leaf = self._memory[:size].reshape(*shape, width)
        self.sums = np.empty((nodes, *shape, width))
        self._descriptor = np.zeros(head + levels + 2 * nodes + 2 * width, np.int64)
        stacked, counted, long, table = accumulate((levels, nodes, nodes), initial=head)
        self.counts, self._descriptor[long:table], self._descriptor[table:] = (
            self._descriptor[counted:long],
            lengths,
            statistics.table.ravel(),
        )
        memory, self.tree = where(self._memory), where(self._descriptor)
        places = (memory, memory + 8 * size, self.tree + 8 * stacked, where(self.sums))
        more = (self.tree + 8 * counted, self.tree + 8 * long, self.tree + 8 * table)
        self._descriptor[:11] = (*places, *more, shape[0] * shape[1], width, levels, nodes)
