"""The lane functions that every kernel needs, compiled once and called by address.

Were they linked into each kernel, LLVM would optimise them anew every time, which is most of the time a kernel takes to compile. All have
one signature, six 64-bit integers; arrays are passed as addresses. A kernel gets `ADDRESSES` and calls `lanes.call(lib[WORDS], ...)`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from sdetools._compiled import callback, jit
from sdetools.noise.base import Normal, Sign
from sdetools.simulation import lanes
from sdetools.simulation.lanes import FAR, FLAGS, LANES, float_pointer, u64, word_pointer
from sdetools.simulation.philox import SIGN_SLOT, WordPlan

WORDS, NORMALS, UNIFORMS, REDUCE_SINGLE, REDUCE_PAIR, LOST, ANGLES = range(7)

_SIGNATURE = "int64(int64, int64, int64, int64, int64, int64)"
_OPTIONS = dict(fastmath=FLAGS, error_model="numpy")
_SUMS = dict(fastmath=FLAGS | {"reassoc"}, error_model="numpy")


@callback(_SIGNATURE, **_OPTIONS)
def _words(key, first, step, slot, out, _):
    """Two rows of words at an address of the noise."""
    lanes.fill_words(u64(key), u64(first), u64(step), u64(slot), carray(word_pointer(out), 2 * LANES), 0)
    return 0


@callback(_SIGNATURE, **_OPTIONS)
def _normals(source, out, both, _a, _b, _c):
    """One or two rows of normals from a row of words."""
    lanes.fill_normals(carray(word_pointer(source), LANES), 0, carray(float_pointer(out), 2 * LANES), 0, both != 0)
    return 0


@callback(_SIGNATURE, **_OPTIONS)
def _uniforms(source, out, _a, _b, _c, _d):
    """A row of uniforms from a row of words."""
    lanes.fill_uniforms(carray(word_pointer(source), LANES), 0, carray(float_pointer(out), LANES), 0)
    return 0


@callback(_SIGNATURE, **_SUMS)
def _reduce_single(values, columns, valid, out, before, _):
    """Moments of all columns of a single dynamics."""
    rows, sums = carray(float_pointer(values), columns * LANES), carray(float_pointer(out), (columns, 2))
    for c in range(columns):
        lanes.reduce_single(rows, c * LANES, valid, before, sums[c])
    return 0


@callback(_SIGNATURE, **_SUMS)
def _reduce_pair(values, columns, valid, out, before, _):
    """Moments of all columns of a pair."""
    rows, sums = carray(float_pointer(values), 3 * columns * LANES), carray(float_pointer(out), (columns, 9))
    for c in range(columns):
        lanes.reduce_pair(rows, 3 * c * LANES, valid, before, sums[c])
    return 0


@callback(_SIGNATURE, **_OPTIONS)
def _lost(state, start, stop, valid, _a, _b):
    """Lanes with a number that is not finite."""
    return lanes.count_lost(carray(float_pointer(state), stop * LANES), start, stop, valid)


@callback(_SIGNATURE, **_OPTIONS)
def _angles(source, sine, cosine, tangent, _a, _b):
    """Sines, cosines and tangents of a row, to the addresses that are not 0: right for every finite argument, NaN for the others.

    Lanes beyond `FAR` are looked at again, one by one, by libm; a row without any pays for the look alone.
    """
    x, far = carray(float_pointer(source), LANES), 0
    s, c, t = carray(float_pointer(sine), LANES), carray(float_pointer(cosine), LANES), carray(float_pointer(tangent), LANES)
    if sine != 0 and cosine != 0:
        for j in range(LANES):
            s[j], c[j] = lanes.sincos(x[j])
    elif sine != 0:
        for j in range(LANES):
            s[j] = lanes.sincos(x[j])[0]
    elif cosine != 0:
        for j in range(LANES):
            c[j] = lanes.sincos(x[j])[1]
    if tangent != 0:
        for j in range(LANES):
            u, v = lanes.sincos(x[j])
            t[j] = u / v
    for j in range(LANES):
        far |= 1 if math.fabs(x[j]) > FAR else 0
    if far:
        for j in range(LANES):
            if math.fabs(x[j]) > FAR:
                if sine != 0:
                    s[j] = math.sin(x[j])
                if cosine != 0:
                    c[j] = math.cos(x[j])
                if tangent != 0:
                    t[j] = math.tan(x[j])
    return 0


_FUNCTIONS = (_words, _normals, _uniforms, _reduce_single, _reduce_pair, _lost, _angles)
ADDRESSES = np.array([f.address for f in _FUNCTIONS], dtype=np.int64)
"""Addresses of the functions above, in the order of their names."""


def fill_draws(plan: WordPlan, key: int, first: int, paths: int, step: int) -> np.ndarray:
    """What `philox.fill` gives for consecutive paths from `first` (a multiple of LANES) on, by the compiled lane functions."""
    kinds = np.concatenate([np.full(d.n, 0 if isinstance(d, Normal) else 1 if isinstance(d, Sign) else 2) for d in plan.draws])
    begins = np.cumsum([0, *(d.n for d in plan.draws)])
    firsts = np.isin(np.arange(len(kinds)), begins[:-1])  # a draw of normals begins a new word
    blocks = -(-paths // LANES)
    out = np.empty((plan.rows, blocks * LANES))
    signs = plan.signs if plan.sign_words == 1 else 0
    _fill_rows(u64(key), u64(first), step, kinds, firsts, plan.words, signs, plan.sign_steps, plan.sign_words, out)
    return out[:, :paths]


@jit(nogil=True, fastmath=FLAGS, error_model="numpy")
def _fill_rows(key, first, step, kinds, firsts, words, signs, sign_steps, sign_words, out):
    W, bits, row = np.empty(2 * LANES, np.uint64), np.empty(2 * LANES, np.uint64), np.empty(2 * LANES)
    flat = out.shape[1]
    for b in range(flat // LANES):
        at = first + u64(b * LANES)
        taken, sign, r, side, shift = 0, 0, 0, 0, 0
        while r < kinds.shape[0]:
            if kinds[r] == 1:
                if sign % 64 == 0:
                    if signs > 0:
                        block = step // sign_steps
                        lanes.fill_words(key, at, u64(block // 2), u64(SIGN_SLOT), bits, 0)
                        side, shift = block % 2, (step % sign_steps) * signs
                    else:
                        lanes.fill_words(key, at, u64(step), u64(SIGN_SLOT + sign // 128), bits, 0)
                        side, shift = sign // 64 % 2, 0
                for j in range(LANES):
                    bit = (bits[side * LANES + j] >> u64(shift + sign % 64)) & u64(1)
                    out[r, b * LANES + j] = 1.0 - 2.0 * np.float64(bit)
                sign += 1
                r += 1
                continue
            if words == 1:
                lanes.fill_words(key, at, u64(step // 2), u64(0), W, 0)
                half = step % 2
            else:
                lanes.fill_words(key, at, u64(step), u64(taken // 2), W, 0)
                half = taken % 2
            taken += 1
            if kinds[r] == 2:
                lanes.fill_uniforms(W, half * LANES, row, 0)
                out[r, b * LANES : (b + 1) * LANES] = row[:LANES]
                r += 1
                continue
            both = r + 1 < kinds.shape[0] and kinds[r + 1] == 0 and not firsts[r + 1]
            lanes.fill_normals(W, half * LANES, row, 0, both)
            out[r, b * LANES : (b + 1) * LANES] = row[:LANES]
            if both:
                out[r + 1, b * LANES : (b + 1) * LANES] = row[LANES:]
            r += 2 if both else 1
