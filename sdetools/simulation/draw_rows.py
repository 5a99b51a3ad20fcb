"""Rows of addressed draws for a block of lanes, compiled once and called by address from every kernel: the layout of `draws.py`.

A block is `lanes` consecutive paths, a power of two from 16 to 256, that start at a multiple of it. All functions take six 64-bit integers,
arrays as addresses, and write exactly the rows asked for, each of `lanes` numbers: a buffer needs no padding.

    NORMALS, UNIFORMS, SIGNS (key, first, step, slot, count << 32 | lanes, out)    `count` rows from `slot` on
    WORDS                    (key, first, step, slot, count << 32 | lanes, out)    rows 2 c and 2 c + 1: the two words of slot + c, c < count
    BITS                     (words, lanes, shift, count, out, 0)                  row i: the sign of bit shift + i of a row of words

`step` is that of the address (`Segment.address`); `count` is what remains of a segment (of `Segment.drawn` rows), or a tile of it, a multiple
of `Segment.group` rows, whose slot is 16 further for each group before it. Names with 32 write float32: the same draws, see `draw_decoders.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sdetools._compiled import callback, jit
from sdetools.graph.lanes import call, u64, word_pointer
from sdetools.noise.base import Normal, Sign
from sdetools.simulation.draw_decoders import (
    FLAT,
    OPTIONS,
    address_of,
    copy,
    counter,
    decode_bits,
    decode_bits32,
    decode_normals,
    decode_normals32,
    decode_uniforms,
    decode_uniforms32,
    fill_words,
    repeat,
    shift_of,
    stack_rows,
    stack_words,
)
from sdetools.simulation.draws import GROUP, DrawPlan
from sdetools.simulation.lanes import philox_words

_SIGNATURE = "int64(int64, int64, int64, int64, int64, int64)"


@njit(inline="always")
def _grouped(decode, per, size, key, first, step, slot, packed, out):
    """Rows of draws of `size` bytes, 2^per a slot, group by group; what a short group has too much goes by way of the stack."""
    count, shift = packed >> 32, shift_of(packed & 0xFFFFFFFF)
    at_once, rest = FLAT >> shift, address_of(stack_rows())
    for g in range(0, count, GROUP << per):
        m = min(GROUP << per, count - g)
        T = (m + (1 << per) - 1) >> per
        whole = at_once == 1 or (m == T << per and T & (at_once - 1) == 0)
        for c in range(0, T, at_once):
            begin = slot + (g >> per) + c
            valid = 1 + int(T + c < m) + int(2 * T + c < m) + int(3 * T + c < m)
            if whole:
                to = out + ((g + c) << shift) * size
                decode(key, first, step, begin, shift, to, (T << shift) * size, valid, rest)
            else:
                decode(key, first, step, begin, shift, rest, FLAT * size, valid, rest + 3 * FLAT * size)
                for r in range(valid):
                    row = r * T + c
                    numbers = min(at_once, T - c, m - row) << shift
                    copy(rest + r * FLAT * size, out + ((g + row) << shift) * size, numbers * (size >> 2))
    return 0


@callback(_SIGNATURE, **OPTIONS)
def _normal_rows(key, first, step, slot, packed, out):
    """Rows of normals."""
    return _grouped(decode_normals, 2, 8, key, first, step, slot, packed, out)


@callback(_SIGNATURE, **OPTIONS)
def _normal_rows32(key, first, step, slot, packed, out):
    """Rows of normals in float32."""
    return _grouped(decode_normals32, 2, 4, key, first, step, slot, packed, out)


@callback(_SIGNATURE, **OPTIONS)
def _uniform_rows(key, first, step, slot, packed, out):
    """Rows of uniforms."""
    return _grouped(decode_uniforms, 1, 8, key, first, step, slot, packed, out)


@callback(_SIGNATURE, **OPTIONS)
def _uniform_rows32(key, first, step, slot, packed, out):
    """Rows of uniforms in float32."""
    return _grouped(decode_uniforms32, 1, 4, key, first, step, slot, packed, out)


@njit(inline="always")
def _signs(decode, size, key, first, step, slot, packed, out):
    """Rows of signs: 64 a word."""
    count, lanes = packed >> 32, packed & 0xFFFFFFFF
    shift = shift_of(lanes)
    W, E = stack_words(), stack_words()
    for c in range(0, (count + 127) // 128, FLAT >> shift):
        fill_words(key, first, step, slot + c, shift, W)
        for w in range(min(2 * (FLAT >> shift), (count + 63) // 64 - 2 * c)):
            row = 64 * (2 * c + w)
            repeat(W, (w & 1) * FLAT + ((w >> 1) << shift), shift, E)
            decode(E, 0, min(64, count - row), shift, out + (row << shift) * size)
    return 0


@callback(_SIGNATURE, **OPTIONS)
def _sign_rows(key, first, step, slot, packed, out):
    """Rows of signs."""
    return _signs(decode_bits, 8, key, first, step, slot, packed, out)


@callback(_SIGNATURE, **OPTIONS)
def _sign_rows32(key, first, step, slot, packed, out):
    """Rows of signs in float32."""
    return _signs(decode_bits32, 4, key, first, step, slot, packed, out)


@callback(_SIGNATURE, **OPTIONS)
def _word_rows(key, first, step, slot, packed, out):
    """Rows of raw words."""
    count, lanes = packed >> 32, packed & 0xFFFFFFFF
    a = word_pointer(out)
    for c in range(count):
        k0, k1, low, c1, c2, top, _ = counter(key, first, step, slot + c, u64(0))
        for j in range(lanes):
            a[2 * c * lanes + j], a[(2 * c + 1) * lanes + j] = philox_words(k0, k1, low + u64(j), c1, c2, top)
    return 0


@callback(_SIGNATURE, **OPTIONS)
def _bit_rows(source, lanes, start, count, out, _):
    """Rows of signs from a row of words."""
    E, shift = stack_words(), shift_of(lanes)
    repeat(word_pointer(source), 0, shift, E)
    decode_bits(E, start, count, shift, out)
    return 0


@callback(_SIGNATURE, **OPTIONS)
def _bit_rows32(source, lanes, start, count, out, _):
    """The same in float32."""
    E, shift = stack_words(), shift_of(lanes)
    repeat(word_pointer(source), 0, shift, E)
    decode_bits32(E, start, count, shift, out)
    return 0


NORMALS, UNIFORMS, SIGNS, WORDS, BITS, NORMALS32, UNIFORMS32, SIGNS32, BITS32 = range(9)
_FUNCTIONS = (
    _normal_rows, _uniform_rows, _sign_rows, _word_rows, _bit_rows, _normal_rows32, _uniform_rows32, _sign_rows32, _bit_rows32,
)  # fmt: skip
ADDRESSES = np.array([f.address for f in _FUNCTIONS], dtype=np.int64)
"""Addresses of the functions above, in the order of their names."""

_TILE = 128
"""Rows drawn at once for `fill_block`: whole groups of every kind, and a buffer that stays in the cache."""


def fill_block(plan: DrawPlan, key: int, first: int, paths: int, step: int, dtype: Any = np.float64) -> np.ndarray:
    """What `draws.fill` gives for `paths` consecutive paths from `first` on, in double or float32: `(plan.rows, paths)`."""
    dtype = np.dtype(dtype)
    single = dtype == np.float32
    names = {Normal: (NORMALS, NORMALS32), Sign: (SIGNS, SIGNS32)}
    table = []
    for s in plan.segments:
        call_step, at = s.address(step)
        shared = s.kind is Sign and s.share > 1
        function = WORDS if shared else names.get(s.kind, (UNIFORMS, UNIFORMS32))[single]
        table.append((ADDRESSES[function], call_step, s.base, s.drawn, s.row, s.n, at, _TILE // s.a_slot, shared))
    skipped = first % FLAT
    out = np.empty((plan.rows, -(-(skipped + paths) // FLAT) * FLAT), dtype)
    bits = ADDRESSES[BITS32 if single else BITS]
    _fill_block(np.array(table, np.int64).reshape(-1, 9), bits, int(np.uint64(key).view(np.int64)), first - skipped, out)
    return out[:, skipped : skipped + paths]


@jit(nogil=True, **OPTIONS)
def _fill_block(table, bits, key, first, out):
    buffer, words = np.empty((_TILE, FLAT), out.dtype), np.empty((2, FLAT), np.uint64)
    for b in range(0, out.shape[1], FLAT):
        for s in range(table.shape[0]):
            function, step, slot, drawn, row, n, at, slots, shared = table[s]
            if shared:
                call(function, key, first + b, step, slot, (1 << 32) | FLAT, words.ctypes.data)
                call(bits, words[at // 64].ctypes.data, FLAT, at % 64, n, buffer.ctypes.data, 0)
                for r in range(n):
                    out[row + r, b : b + FLAT] = buffer[r]
                continue
            for i in range(0, drawn, _TILE):
                count = min(_TILE, drawn - i)
                call(function, key, first + b, step, slot + i // _TILE * slots, (count << 32) | FLAT, buffer.ctypes.data)
                begin, end = max(i, at), min(i + count, at + n)
                for r in range(begin, end):
                    out[row + r - at, b : b + FLAT] = buffer[r - i]
