"""Rows of addressed draws for a block of lanes, compiled once and called by address from every kernel: the layout of `draws.py`.

A block is `lanes` consecutive paths, a power of two from 16 to 256, starting at a multiple of it. All functions take six 64-bit
integers, with arrays as addresses. They write exactly the requested rows of `lanes` numbers, so buffers need no padding.

    normals, uniforms, signs (key, first, step, slot, count << 32 | lanes, out)    `count` rows from `slot` on
    words                    (key, first, step, slot, count << 32 | lanes, out)    rows 2 c and 2 c + 1: the two words of slot + c,
        c < count
    bits                     (words, lanes, shift, count, out, 0)                  row i: the sign of bit shift + i of a row of
        words

`step` is the step of the address (`Segment.address`). `count` is the remaining part of a segment (of `Segment.drawn` rows), or a
tile of it, a multiple of `Segment.group` rows, whose slot is 16 further for each group before it. The functions for float32 write
the same draws, see `draw_decoders.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools._compiled import by_address, jit
from sdetools._machine_code import COMPILING, once
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
from sdetools.simulation.draws import GROUP, DrawPlan, fill
from sdetools.simulation.lane_moments import philox_words
from sdetools.simulation.launch import address


def _groups(decode: Any, per: int, size: int) -> Any:
    """Return the function "normals" or "uniforms" of the module's docstring, from the decoder of a slot.

    A slot of 128 random bits gives 2^per draws of `size` bytes. Rows are written group by group (16 slots); the excess of an incomplete group
    is written to the stack and discarded. `decode` has the arguments of `draw_decoders.decode_normals`.
    """

    def rows(key, first, step, slot, packed, out):
        count, shift = packed >> 32, shift_of(packed & 0xFFFFFFFF)
        at_once, rest = FLAT >> shift, address_of(stack_rows())
        for g in range(0, count, GROUP << per):
            m = min(GROUP << per, count - g)
            T = (m + (1 << per) - 1) >> per
            whole = at_once == 1 or (m == T << per and T & (at_once - 1) == 0)
            c = 0
            while c < T:  # Numba's range with a variable step may raise an error
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
                c += at_once
        return 0

    return rows


def _signs(decode: Any, size: int) -> Any:
    """Return the function "signs" of the module's docstring, which writes rows of signs of `size` bytes, 64 a word, by a decoder of bits."""

    def rows(key, first, step, slot, packed, out):
        count, shift = packed >> 32, shift_of(packed & 0xFFFFFFFF)
        W, E = stack_words(), stack_words()
        c = 0
        while c < (count + 127) // 128:
            fill_words(key, first, step, slot + c, shift, W)
            for w in range(min(2 * (FLAT >> shift), (count + 63) // 64 - 2 * c)):
                row = 64 * (2 * c + w)
                repeat(W, (w & 1) * FLAT + ((w >> 1) << shift), shift, E)
                decode(E, 0, min(64, count - row), shift, out + (row << shift) * size)
            c += FLAT >> shift
        return 0

    return rows


def _words(key, first, step, slot, packed, out):
    """Write the two random words of `count` consecutive slots, for each lane: the function "words" of the module's docstring; return 0."""
    count, lanes = packed >> 32, packed & 0xFFFFFFFF
    a = word_pointer(out)
    for c in range(count):
        k0, k1, low, c1, c2, top, _ = counter(key, first, step, slot + c, u64(0))
        for j in range(lanes):
            a[2 * c * lanes + j], a[(2 * c + 1) * lanes + j] = philox_words(k0, k1, low + u64(j), c1, c2, top)
    return 0


def _bits(decode: Any) -> Any:
    """Return the function "bits" of the module's docstring, which writes rows of signs from a row of words, by a decoder of bits."""

    def rows(source, lanes, start, count, out, _):
        E, shift = stack_words(), shift_of(lanes)
        repeat(word_pointer(source), 0, shift, E)
        decode(E, start, count, shift, out)
        return 0

    return rows


_WRITTEN = {
    "float64": (
        _groups(decode_normals, 2, 8),
        _groups(decode_uniforms, 1, 8),
        _signs(decode_bits, 8),
        _words,
        _bits(decode_bits),
    ),
    "float32": (
        _groups(decode_normals32, 2, 4),
        _groups(decode_uniforms32, 1, 4),
        _signs(decode_bits32, 4),
        _words,
        _bits(decode_bits32),
    ),
}
NAMES = ("normals", "uniforms", "signs", "words", "bits")


@once
def function(name: str, dtype: str = "float64") -> Any:
    """Return one of the functions that kernels call for their draws, compiled by Numba as a C callback; each is compiled once in a process.

    Args:
        name: "normals", "uniforms" or "signs", which write rows of draws for a block of paths; "words", which writes 64-bit random words, or "bits",
            which makes signs of their bits. The module's docstring gives their six integer arguments.
        dtype: The type of the draws, "float64" or "float32".

    Returns:
        Numba's callback object of a function of six 64-bit integers that returns 0; its `address` is that of the machine code.

    Raises:
        ValueError: There is no function of this name.
    """
    return by_address("simulation.draw_rows", name, dtype, _WRITTEN[dtype][NAMES.index(name)], **OPTIONS)


_TILE = 128
"""The number of rows that `fill_block` draws at once: whole groups of every kind, in a buffer that fits into the cache."""


def fill_block(plan: DrawPlan, key: int, first: int, paths: int, step: int, dtype: Any = np.float64) -> np.ndarray:
    """Return the draws of one step for consecutive paths, from the compiled functions: the numbers of `draws.fill`, up to rounding.

    Args:
        plan: The draws of a step.
        key: The 64-bit key of the draws, which seed and stream determine (`philox.stream_key`).
        first: The index of the first path.
        paths: The number of paths.
        step: The step, from 0.
        dtype: float64 or float32.

    Returns:
        An array `(plan.rows, paths)` of this type, the rows in the order of `plan.draws`.
    """
    dtype = np.dtype(dtype)
    if not COMPILING:
        return fill(plan, key, np.arange(first, first + paths), step, dtype)
    names = {Normal: "normals", Sign: "signs"}
    table = []
    for s in plan.segments:
        call_step, at = s.address(step)
        shared = s.kind is Sign and s.share > 1
        where = address("words" if shared else names.get(s.kind, "uniforms"), dtype.name)
        table.append((where, call_step, s.base, s.drawn, s.row, s.n, at, _TILE // s.a_slot, shared))
    skipped = first % FLAT
    out = np.empty((plan.rows, -(-(skipped + paths) // FLAT) * FLAT), dtype)
    bits = address("bits", dtype.name)
    _fill_block(np.array(table, np.int64).reshape(-1, 9), bits, int(np.uint64(key).view(np.int64)), first - skipped, out)
    return out[:, skipped : skipped + paths]


@jit(nogil=True, **OPTIONS)
def _fill_block(table, bits, key, first, out):
    """Write the draws of a table of segments to `out`, an array `(rows, paths)`, 256 paths at a time; `paths` is a multiple of 256.

    A row of the table belongs to a segment: the address of its function, the step and the first slot of its draws, the rows that the function
    writes, its first row in `out`, its number of draws, the first of them among the written ones, the slots of a tile, and whether steps share a
    word of signs. `bits` is the address of the function "bits", and `first` the index of the first path.
    """
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
