"""Conversion of random words to draws, 256 numbers at a time; `draw_rows.py` compiles these functions.

Loops run over 256 / lanes slots of `lanes` lanes at once: 256 iterations, a number known to LLVM, whatever the number of lanes.
Temporary arrays are on the stack, so LLVM knows that they do not overlap.

float32 decodes the same bits in float32 arithmetic. The radius uses 40 bits, with full accuracy in both tails, so the largest
normal is that of double precision, sqrt(82 log 2) = 7.539. A uniform is the rounded double, but at most 1 - 2^-24.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types

from sdetools.graph.bits import float32_pointer, intrinsic, stack_array
from sdetools.graph.lanes import FLAGS, LOW, ONE_BITS, S32, float_of, float_pointer, sub_exact, u64
from sdetools.simulation.lane_moments import normal_pair, philox_words, radius

FLAT = 256
"""The number of draws of a loop: slots times lanes."""

OPTIONS: dict[str, Any] = dict(fastmath=FLAGS, error_model="numpy")
_i32, _i64, _f32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
u32, i32, f32 = np.uint32, np.int32, np.float32


stack_words = stack_array(types.uint64, 2 * FLAT, zeros=False)
stack_halves = stack_array(types.uint32, 4 * FLAT, zeros=False)
stack_floats = stack_array(types.float64, FLAT, zeros=False)
stack_floats32 = stack_array(types.float32, FLAT, zeros=False)
stack_rows = stack_array(types.float64, 4 * FLAT, zeros=False)


@intrinsic
def address_of(typingctx, pointer):
    """Return the address in `pointer`, a pointer of Numba, as a 64-bit integer; for compiled code only, and Numba itself passes `typingctx`."""
    return types.int64(pointer), lambda ctx, b, sig, a: b.ptrtoint(a[0], _i64)


@intrinsic
def float32_of(typingctx, i):
    """Return the 32-bit float whose bits are those of the uint32 `i`; for compiled code only, and Numba itself passes `typingctx`."""
    return types.float32(types.uint32), lambda ctx, b, sig, a: b.bitcast(a[0], _f32)


@intrinsic
def bits32_of(typingctx, x):
    """Return the bits of the 32-bit float `x` as a uint32; for compiled code only, and Numba itself passes `typingctx`."""
    return types.uint32(types.float32), lambda ctx, b, sig, a: b.bitcast(a[0], _i32)


@intrinsic
def shift_of(typingctx, lanes):
    """Return log2 of a power of two, the number `lanes` of paths of a block, as a 64-bit integer; for compiled code, Numba passes `typingctx`."""
    return types.int64(types.int64), lambda ctx, b, sig, a: b.cttz(a[0], ir.Constant(ir.IntType(1), 1))


@njit(inline="always")
def counter(key, first, step, slot, shift):
    """Return the parts of the Philox counter and key that are common to all lanes of a block of consecutive paths, for compiled code.

    The address of a draw is (path, step, slot), and a lane is one path of the block.

    Args:
        key: The 64-bit key of the draws (`philox.stream_key`).
        first: The index of the block's first path, a multiple of the number of lanes.
        step: The step of the address.
        slot: The slot of the address.
        shift: log2 of the number of lanes.

    Returns:
        A tuple of seven uint64: the lower and the upper half of the key; the lower halves of `first`, `step` and `slot`; their upper halves in
        one word, at bits 0, 10 and 20; and the mask 2^shift - 1 of the lanes.
    """
    top = (u64(first) >> S32) | ((u64(step) >> S32) << u64(10)) | ((u64(slot) >> S32) << u64(20))
    mask = (u64(1) << u64(shift)) - u64(1)
    return u64(key) & LOW, u64(key) >> S32, u64(first) & LOW, u64(step) & LOW, u64(slot) & LOW, top, mask


@njit(inline="always")
def fill_words(key, first, step, slot, shift, W):
    """Write the random words of 256 / lanes consecutive slots for a block of `lanes` consecutive paths; a slot has two words of 64 bits.

    Args:
        key: The 64-bit key of the draws.
        first: The index of the block's first path.
        step: The step of the address (path, step, slot).
        slot: The first slot.
        shift: log2 of the number of lanes.
        W: The array `(512,)` that is written: the first words of all slots, lane by lane within a slot, then the second words of all slots.
    """
    k0, k1, low, c1, c2, top, mask = counter(key, first, step, slot, shift)
    for q in range(0, FLAT, 16):
        path, c = low + (u64(q) & mask), c2 + (u64(q) >> u64(shift))
        for j in range(16):
            W[q + j], W[FLAT + q + j] = philox_words(k0, k1, path + u64(j), c1, c, top)


# A decoder writes the draws of 256 / lanes slots: those with r = 0 at address `out`, those with r = 1, 2, ... below `valid` at
# `stride` bytes further each. Other draws of a word are written to `spare`.


@njit(**OPTIONS)
def decode_normals(key, first, step, slot, shift, out, stride, valid, spare):
    """Write normals in double precision: the 4 draws of each of 256 / lanes consecutive slots, for a block of `lanes` consecutive paths.

    Args:
        key: The 64-bit key of the draws.
        first: The index of the block's first path.
        step: The step of the address (path, step, slot).
        slot: The first slot.
        shift: log2 of the number of lanes.
        out: The address to which the first draws of the slots are written, 256 numbers: lane by lane within a slot.
        stride: The distance in bytes from there to the second draws of the slots, and so on.
        valid: The number of draws of a slot that are written, from 1 to 4.
        spare: The address of 256 further numbers, which may be overwritten.
    """
    W, R = stack_words(), stack_floats()
    fill_words(key, first, step, slot, shift, W)
    for h in range(2):
        if 2 * h >= valid:
            break
        for j in range(FLAT):
            R[j] = radius(W[h * FLAT + j])
        a = float_pointer(out + 2 * h * stride)
        b = float_pointer(out + (2 * h + 1) * stride if 2 * h + 1 < valid else spare)
        for j in range(FLAT):
            a[j], b[j] = normal_pair(W[h * FLAT + j], R[j])


@njit(**OPTIONS)
def decode_normals32(key, first, step, slot, shift, out, stride, valid, spare):
    """Write normals in single precision: the 4 draws of each of 256 / lanes consecutive slots, for a block of `lanes` consecutive paths.

    The random bits are those of `decode_normals`.

    Args:
        key: The 64-bit key of the draws.
        first: The index of the block's first path.
        step: The step of the address (path, step, slot).
        slot: The first slot.
        shift: log2 of the number of lanes.
        out: The address to which the first draws of the slots are written, 256 floats of 4 bytes: lane by lane within a slot.
        stride: The distance in bytes from there to the second draws of the slots, and so on.
        valid: The number of draws of a slot that are written, from 1 to 4.
        spare: The address of 256 further numbers, which may be overwritten.
    """
    W, R = stack_halves(), stack_floats32()
    k0, k1, low, c1, c2, top, mask = counter(key, first, step, slot, shift)
    for q in range(0, FLAT, 16):
        path, c = low + (u64(q) & mask), c2 + (u64(q) >> u64(shift))
        for j in range(16):
            a, b = philox_words(k0, k1, path + u64(j), c1, c, top)
            W[q + j], W[FLAT + q + j], W[2 * FLAT + q + j], W[3 * FLAT + q + j] = u32(a >> S32), u32(a), u32(b >> S32), u32(b)
    for h in range(2):
        if 2 * h >= valid:
            break
        at = 2 * h * FLAT
        for j in range(FLAT):
            R[j] = radius32(W[at + j], W[at + FLAT + j])
        x = float32_pointer(out + 2 * h * stride)
        y = float32_pointer(out + (2 * h + 1) * stride if 2 * h + 1 < valid else spare)
        for j in range(FLAT):
            x[j], y[j] = normal_pair32(W[at + FLAT + j], R[j])


@njit(inline="always")
def uniform(w):
    """Return a uniform float64 in the open interval (0, 1), (i + 1/2) 2^-52, where i is the upper 52 bits of the 64-bit random word w."""
    return sub_exact(float_of((w >> u64(12)) | ONE_BITS), 1.0) + 1.1102230246251565e-16


@njit(inline="always")
def uniform32(w):
    """Return a uniform float32 in (0, 1): (i + 1/2) 2^-52 rounded, but at most 1 - 2^-24; i is the upper 52 bits of the 64-bit word w."""
    return min(f32(uniform(w)), f32(1 - 2.0**-24))


def _uniforms(uniform: Any, pointer: Any) -> Any:
    """Return a compiled function that writes uniforms, with the arguments of `decode_normals`; a slot has 2 draws, so `valid` is 1 or 2.

    `uniform` converts a word to a number, and `pointer` an address to a pointer to numbers of its type.
    """

    @njit(**OPTIONS)
    def decode(key, first, step, slot, shift, out, stride, valid, spare):
        W = stack_words()
        fill_words(key, first, step, slot, shift, W)
        for h in range(valid):
            a = pointer(out + h * stride)
            for j in range(FLAT):
                a[j] = uniform(W[h * FLAT + j])

    return decode


decode_uniforms, decode_uniforms32 = _uniforms(uniform, float_pointer), _uniforms(uniform32, float32_pointer)


# The polynomials are minimax, like those of `lane_moments`, with relative errors 7e-10, 3e-9 and 6e-11.


@njit(inline="always")
def radius32(high, low):
    """Return the radius sqrt(-log u) of the Box-Muller transform in float32, from 40 random bits.

    u = 1 - (i + 1/2) 2^-40, where i is the 32 bits of `high` and the upper 8 of `low`. All bits count, also where u is
    near 0 or 1. `lane_moments.radius` is the same in double precision.

    Args:
        high: The upper half of a 64-bit random word, a uint32.
        low: Its lower half.
    """
    flip = u32(i32(high) >> i32(31))
    x = f32(i32(u32(high ^ flip))) * f32(2.0**-32) + (f32(i32(u32(low ^ flip) >> u32(24))) + f32(0.5)) * f32(2.0**-40)
    u = x if flip != u32(0) else f32(1.0) - x
    i = bits32_of(u)
    k = u32(i + u32(0x3F800000 - 0x3F3504F3))
    m = float32_of(u32(u32(i - (k & u32(0xFF800000))) + u32(0x3F800000)))
    f = (m - f32(1.0) if k < u32(0x3F800000) else -x) / (m + f32(1.0))
    s = f * f
    e = float32_of(u32(u32(k >> u32(23)) | u32(0x4B000000))) - f32(8388608 + 127)
    high = f32(0.39974794923195034) + s * f32(0.2992565074189279)
    return math.sqrt(
        -f * ((f32(1.9999999986213302) + s * f32(0.6666681595086785)) + (s * s) * high) - e * f32(0.6931471805599453)
    )


@njit(inline="always")
def normal_pair32(w, r):
    """Return two independent standard normals in float32, s0 r (cos a - sin a) and s1 r (cos a + sin a), from the radius and the angle of a word.

    Args:
        w: The lower half of a 64-bit random word, a uint32; its lower 24 bits give the angle a in (-pi/4, pi/4) and the signs s0, s1.
        r: The radius of the same word, see `radius32`.
    """
    t = float32_of(u32(u32(u32(w << u32(1)) & u32(0x7FFFFE)) | u32(0x3F800001))) - f32(1.5)
    s = t * t
    q = s * s
    sine = (f32(1.5707963217083447) - s * f32(0.645963460233428)) + q * (f32(0.07968003277042188) - s * f32(0.004601657891180859))
    high = (f32(0.2536691825959931) - s * f32(0.020859936027821775)) + q * f32(0.0009033629762163813)
    sine, cosine = t * sine, (f32(0.9999999999439374) - s * f32(1.2337005395647531)) + q * high
    a, b = r * (cosine - sine), r * (cosine + sine)
    first, second = u32(u32(w << u32(8)) & u32(1 << 31)), u32(u32(w << u32(9)) & u32(1 << 31))
    return float32_of(u32(bits32_of(a) ^ first)), float32_of(u32(bits32_of(b) ^ second))


@njit(inline="always")
def _sign(w, bit):
    """Return 1.0 - 2.0 times a bit of a word."""
    return float_of(((w >> bit) << u64(63)) | ONE_BITS)


@njit(inline="always")
def _sign32(w, bit):
    """Return 1.0 - 2.0 times a bit of a word, in float32."""
    return float32_of(u32(u32(u32(w >> bit) << u32(31)) | u32(0x3F800000)))


def _bits(sign: Any, pointer: Any) -> Any:
    """Return a compiled function that writes signs: `sign` converts a bit of a word, `pointer` an address to a pointer to numbers of that type."""

    @njit(**OPTIONS)
    def decode(E, start, count, shift, out):
        """Write `count` rows of signs, of 2^shift lanes each, to the address `out`: row i from bit `start + i` of the words of the lanes.

        Bit 0 is the least significant one; a bit b is the sign 1 - 2 b. E holds the words, `(256,)`: those of the lanes, repeated for all bits
        that are decoded at once (see `repeat`).
        """
        a = pointer(out)
        i = 0
        while i < count:  # Numba's range with a variable step may raise an error
            for j in range(min(FLAT, (count - i) << shift)):
                a[(i << shift) + j] = sign(E[j], u64(start + i) + (u64(j) >> shift))
            i += FLAT >> shift

    return decode


decode_bits, decode_bits32 = _bits(_sign, float_pointer), _bits(_sign32, float32_pointer)


@njit(inline="always")
def repeat(W, at, shift, E):
    """Write a row of 64-bit random words, one for each of 2^shift lanes, again and again to an array of 256 words.

    Args:
        W: The array that is read.
        at: The position of the row's first word in W.
        shift: log2 of the number of lanes.
        E: The array that is written: E[j] = W[at + j mod 2^shift] for j < 256.
    """
    mask = (u64(1) << shift) - u64(1)
    for j in range(FLAT):
        E[j] = W[u64(at) + (u64(j) & mask)]


@njit(inline="always")
def copy(source, target, count):
    """Copy `count` pieces of 4 bytes from the address `source` to the address `target`, which must not overlap; for compiled code only."""
    a, b = float32_pointer(source), float32_pointer(target)
    for j in range(count):
        b[j] = a[j]
