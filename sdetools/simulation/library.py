"""The lane functions that every kernel needs, compiled once and called by address.

Were they linked into each kernel, LLVM would optimise them anew every time, which is most of the time a kernel takes to compile. All have
one signature, six 64-bit integers; arrays are passed as addresses. A kernel gets `ADDRESSES` and calls `lanes.call(lib[WORDS], ...)`.
"""

from __future__ import annotations

import numpy as np
from numba import carray, cfunc

from sdetools.simulation import lanes
from sdetools.simulation.lanes import FLAGS, LANES, float_pointer, u64, word_pointer

WORDS, NORMALS, UNIFORMS, REDUCE_SINGLE, REDUCE_PAIR, LOST = range(6)

_SIGNATURE = "int64(int64, int64, int64, int64, int64, int64)"
_OPTIONS = dict(cache=True, fastmath=FLAGS, error_model="numpy")
_SUMS = dict(cache=True, fastmath=FLAGS | {"reassoc"}, error_model="numpy")


@cfunc(_SIGNATURE, **_OPTIONS)
def _words(key, first, step, slot, out, _):
    """Two rows of words at an address of the noise."""
    lanes.fill_words(u64(key), u64(first), u64(step), u64(slot), carray(word_pointer(out), 2 * LANES), 0)
    return 0


@cfunc(_SIGNATURE, **_OPTIONS)
def _normals(source, out, both, _a, _b, _c):
    """One or two rows of normals from a row of words."""
    lanes.fill_normals(carray(word_pointer(source), LANES), 0, carray(float_pointer(out), 2 * LANES), 0, both != 0)
    return 0


@cfunc(_SIGNATURE, **_OPTIONS)
def _uniforms(source, out, _a, _b, _c, _d):
    """A row of uniforms from a row of words."""
    lanes.fill_uniforms(carray(word_pointer(source), LANES), 0, carray(float_pointer(out), LANES), 0)
    return 0


@cfunc(_SIGNATURE, **_SUMS)
def _reduce_single(values, columns, valid, out, before, _):
    """Moments of all columns of a single dynamics."""
    rows, sums = carray(float_pointer(values), columns * LANES), carray(float_pointer(out), (columns, 2))
    for c in range(columns):
        lanes.reduce_single(rows, c * LANES, valid, before, sums[c])
    return 0


@cfunc(_SIGNATURE, **_SUMS)
def _reduce_pair(values, columns, valid, out, before, _):
    """Moments of all columns of a pair."""
    rows, sums = carray(float_pointer(values), 3 * columns * LANES), carray(float_pointer(out), (columns, 9))
    for c in range(columns):
        lanes.reduce_pair(rows, 3 * c * LANES, valid, before, sums[c])
    return 0


@cfunc(_SIGNATURE, **_OPTIONS)
def _lost(state, start, stop, valid, _a, _b):
    """Lanes with a number that is not finite."""
    return lanes.count_lost(carray(float_pointer(state), stop * LANES), start, stop, valid)


ADDRESSES = np.array([f.address for f in (_words, _normals, _uniforms, _reduce_single, _reduce_pair, _lost)], dtype=np.int64)
"""Addresses of the functions above, in the order of their names."""
