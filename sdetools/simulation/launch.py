"""How a kernel is called: one address, of a table of whole numbers and of the addresses of all that it reads and writes.

Nothing here needs Numba: kernels and the functions that they call are found compiled (`_machine_code.py`), or their modules are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from sdetools import _machine_code
from sdetools.simulation import records

NUMBERS = ("first", "blocks", "paths", "watch", "steps", "changing", "kept", "shown_rows", "picked_paths")
"""The whole numbers at the head of a kernel's table; `watch` is 0 or 1, `changing` the coefficients of a step, 0 where all steps have the same."""
ARRAYS = dict.fromkeys(("C", "P", "memory", "factors", "K", "rows", "Z", "V"), "real")
ARRAYS |= dict.fromkeys(("events", "slots", "diverged", "seen", "shown", "picked", "F", "N"), "whole")
ARRAYS |= dict.fromkeys(("keys", "W"), "word") | dict.fromkeys(("points", "leaf"), "float")
"""The arrays after them, by the kind of their numbers: reals of the kernel's type, whole numbers, words, doubles. Those of data follow."""
MODULES = dict.fromkeys(("normals", "uniforms", "signs", "words", "bits"), "simulation.draw_rows")
MODULES |= dict.fromkeys(("reduce_single", "reduce_pair", "count_diverged", "carry"), "simulation.library")
"""Where functions that kernels call by address are made, if not in `graph.rows`."""
ALIGNED = 64
"""Bytes of a cache line, of which scratch begins one."""


def address(name: str, dtype: str = "float64") -> int:
    """Where a function is that kernels of a type call; compiled, or found compiled, when it is first asked for."""
    return _machine_code.address(MODULES.get(name, "graph.rows"), name, dtype)


def where(array: np.ndarray) -> int:
    """The address of an array's first number."""
    return array.__array_interface__["data"][0]


def scratch(size: int, dtype: np.dtype | type) -> np.ndarray:
    """Room for so many numbers, that begins a cache line."""
    dtype = np.dtype(dtype)
    room = np.empty(size * dtype.itemsize + ALIGNED, np.uint8)
    return room[-where(room) % ALIGNED :][: size * dtype.itemsize].view(dtype)


def table(
    numbers: Mapping[str, int], arrays: Mapping[str, np.ndarray], tree: int, data: Sequence[np.ndarray], real: np.dtype
) -> np.ndarray:
    """A kernel's table; the arrays must outlive its use. The kernel reads by address, so all are looked at here once."""
    kinds = {"real": real, "whole": np.dtype(np.int64), "word": np.dtype(np.uint64), "float": np.dtype(float)}
    for name, kind in ARRAYS.items():
        a = arrays[name]
        if a.dtype != kinds[kind] or not a.flags.c_contiguous:
            raise TypeError(f"array {name} of a kernel must be contiguous {kinds[kind]}; got {a.dtype} with strides {a.strides}")
    if any(not a.flags.forc or a.dtype not in (real, np.int64) for a in data):
        raise TypeError("arrays of data must lie in one piece, and be whole numbers or of the kernel's type")
    places = [*(where(arrays[name]) for name in ARRAYS), tree, *map(where, data)]
    return np.array([*(int(numbers[name]) for name in NUMBERS), *places], np.int64)


BOOK = ("leaf", "stack", "stacked", "sums", "counts", "lengths", "table", "rows", "width", "levels", "nodes", "node", "position")
"""What the book of `Nodes` begins with: addresses, sizes, and how far it has come (the node and the position in it of the leaf to come)."""


class Nodes:
    """Where a kernel puts moments: its contract.

    For each leaf of `LEAF` paths the kernel makes the leaf's moments in `leaf`, `(records, columns, statistics)`: for each record by
    reduce_single or reduce_pair, block after block of the leaf, with `before` the leaf's paths in the blocks before. Then it calls
    carry(tree, paths of the leaf, 0, 0, 0, 0) once. After the last leaf `sums` and `counts` are those of the nodes, `lengths` leaves each.
    """

    def __init__(self, statistics: records.Columns, shape: tuple[int, int], lengths: Sequence[int]) -> None:
        nodes, levels, width, head = len(lengths), max(lengths, default=1).bit_length(), len(statistics), len(BOOK)
        size = shape[0] * shape[1] * width
        self._room = np.empty((1 + levels) * size)
        self.leaf = self._room[:size].reshape(*shape, width)
        self.sums = np.empty((nodes, *shape, width))
        self._book = np.zeros(head + levels + 2 * nodes + 2 * width, np.int64)
        stacked, counted, long, table = accumulate((levels, nodes, nodes), initial=head)
        self.counts, self._book[long:table], self._book[table:] = self._book[counted:long], lengths, statistics.table.ravel()
        room, self.tree = where(self._room), where(self._book)
        places = (room, room + 8 * size, self.tree + 8 * stacked, where(self.sums))
        more = (self.tree + 8 * counted, self.tree + 8 * long, self.tree + 8 * table)
        self._book[:11] = (*places, *more, shape[0] * shape[1], width, levels, nodes)
