"""What the compiled kernels stand on: addressed noise and elementary functions that LLVM turns into vector code.

A kernel advances a block of `LANES` paths at a time; every loop over lanes is innermost, straight-line and free of libm calls.
Three habits keep them vector code: numbers that a polynomial needs are *arguments* (tuples `REAL`, `BITS`), because literals
are loaded afresh each time round while arguments stay in registers or on the stack; conversions between integers and
floats go through bit patterns, because the 64-bit conversions need AVX-512; and loops are short, so that the processor
can overlap many turns of them. `sub_exact` is a subtraction that fast-math may not touch.

`FLAGS` names the liberties taken: fused multiply-add, and no care for the sign of zero. NaN and infinity keep their meaning,
for a path that leaves the finite range has to be seen.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 256
FLAGS = {"contract", "nsz"}
FAST = dict(nogil=True, fastmath=FLAGS, error_model="numpy")

u64 = np.uint64
LOW, S32 = u64(0xFFFFFFFF), u64(32)
ONE_BITS = u64(0x3FF0000000000000)
SIGN_BIT = u64(1 << 63)
_M0, _M1 = u64(0xD2511F53), u64(0xCD9E8D57)
_W0, _W1 = u64(0x9E3779B9), u64(0xBB67AE85)

# Minimax polynomials (relative error): sin and cos of a quarter turn t in [-1/2, 1/2], by powers of t^2; -2 atanh(f) / f by powers of f^2.
_SIN = (1.5707963267948895, -0.6459640975042397, 0.07969262615353437, -0.004681752566775282, 0.00016042915250834877, -3.556206574116599e-06)
_COS = (0.9999999999999999, -1.2337005501361489, 0.25366950789975307, -0.02086348073305851, 0.000919259935579931, -2.5200084137183358e-05, 4.6546176702782693e-07)  # fmt: skip
_LOG = (-2.0000000000000004, -0.6666666666655222, -0.40000000062016494, -0.2857141598122734, -0.22223437162244242, -0.18121855428921346, -0.16838554998839272)  # fmt: skip
_LN2 = 0.6931471805599453
_EXPONENT = 4503599627370496.0 + 1024.0
REAL = (*_SIN, *_COS, *_LOG, _LN2, _EXPONENT, 2.0, 1.5, 1.0)
BITS = (
    ONE_BITS | u64(0x800),  # 1.0 with half a unit of the 40 bits of radius
    ONE_BITS | u64(1 << 29),  # 1.0 with half a unit of the 22 bits of angle
    u64(0x000FFFFFFFFFF000),  # the 40 bits of radius in the mantissa
    u64(0x3FFFFF << 30),  # the 22 bits of angle in the mantissa
    u64((1024 << 52) - 0x3FE6A09E667F3BCD),  # exponent offset that puts the mantissa into [sqrt(1/2), sqrt(2))
    u64(0x4330000000000000),  # 2^52
    SIGN_BIT,
    u64(0xFFF0000000000000),  # sign and exponent
    u64(1024 << 52),
)


@intrinsic
def bits_of(typingctx, x):
    """The bits of a float."""
    return types.uint64(types.float64), lambda ctx, b, sig, a: b.bitcast(a[0], ir.IntType(64))


@intrinsic
def float_of(typingctx, i):
    """The float with these bits."""
    return types.float64(types.uint64), lambda ctx, b, sig, a: b.bitcast(a[0], ir.DoubleType())


@intrinsic
def sub_exact(typingctx, x, y):
    """x - y, rounded once, whatever fast-math allows."""
    return types.float64(types.float64, types.float64), lambda ctx, b, sig, a: b.fsub(a[0], a[1], flags=())


@intrinsic
def add_exact(typingctx, x, y):
    """x + y, rounded once, whatever fast-math allows."""
    return types.float64(types.float64, types.float64), lambda ctx, b, sig, a: b.fadd(a[0], a[1], flags=())


@intrinsic
def low_product(typingctx, x, y):
    """(low 32 bits of x) times y: one vector instruction; the dirty upper half of x is ignored."""
    low = ir.Constant(ir.IntType(64), 0xFFFFFFFF)
    return types.uint64(types.uint64, types.uint64), lambda ctx, b, sig, a: b.mul(b.and_(a[0], low), a[1])


@njit(inline="always")
def philox_words(k0, k1, c0, c1, c2, c3):
    """Philox4x32-10; the two 64-bit words at a counter. Upper halves stay dirty until the end: only lower ones are read."""
    for _ in range(10):
        p0, p1 = low_product(c0, _M0), low_product(c2, _M1)
        c0, c1, c2, c3 = (p1 >> S32) ^ c1 ^ k0, p1, (p0 >> S32) ^ c3 ^ k1, p0
        k0, k1 = (k0 + _W0) & LOW, (k1 + _W1) & LOW
    return (c0 << S32) | (c1 & LOW), (c2 << S32) | (c3 & LOW)


@njit(cache=True, **FAST)
def fill_words(key, first, step, slot, out, at):
    """Two words for each lane at (path = first + lane, step, slot), into rows `at` and `at + LANES` of `out`."""
    k0, k1 = key & LOW, key >> S32
    top = (first >> S32) | ((step >> S32) << u64(10)) | ((slot >> S32) << u64(20))
    low = first & LOW  # a block starts at a multiple of LANES, so the lanes never carry into the upper half
    c1, c2 = step & LOW, slot & LOW
    for j in range(LANES):
        a, b = philox_words(k0, k1, low + u64(j), c1, c2, top)
        out[at + j] = a
        out[at + LANES + j] = b


@njit(inline="always")
def normal_pair(w, real, bits):
    """Two standard normals from one word (see `philox.py`); `real`, `bits` are REAL and BITS."""
    i = bits_of(real[22] - float_of(((w >> u64(12)) & bits[2]) | bits[0]))
    t = float_of(((w << u64(30)) & bits[3]) | bits[1]) - real[23]
    s = t * t
    q = s * s
    sn = t * ((real[0] + real[1] * s) + q * ((real[2] + real[3] * s) + q * (real[4] + real[5] * s)))
    cs = (real[6] + real[7] * s) + q * ((real[8] + real[9] * s) + q * ((real[10] + real[11] * s) + q * real[12]))
    e = i + bits[4]
    m = float_of(i - (e & bits[7]) + bits[8])
    e = sub_exact(float_of((e >> u64(52)) | bits[5]), real[21])
    f = (m - real[24]) / (m + real[24])
    s = f * f
    q = s * s
    p = (real[13] + s * real[14]) + q * ((real[15] + s * real[16]) + q * ((real[17] + s * real[18]) + q * real[19]))
    r = math.sqrt(f * p - e * real[20])
    a, b = r * (cs - sn), r * (cs + sn)
    return float_of(bits_of(a) ^ ((w << u64(40)) & bits[6])), float_of(bits_of(b) ^ ((w << u64(41)) & bits[6]))


@njit(cache=True, **FAST)
def fill_normals(words, source, out, at, both, real, bits):
    """One or two rows of normals from one row of words."""
    if both:
        for j in range(LANES):
            a, b = normal_pair(words[source + j], real, bits)
            out[at + j] = a
            out[at + LANES + j] = b
    else:
        for j in range(LANES):
            a, b = normal_pair(words[source + j], real, bits)
            out[at + j] = a


@njit(cache=True, **FAST)
def fill_uniforms(words, source, out, at):
    """A row of numbers in (0, 1): 52 bits and a half."""
    for j in range(LANES):
        m = float_of((words[source + j] >> u64(12)) | ONE_BITS)
        out[at + j] = sub_exact(m, 1.0) + 1.1102230246251565e-16


# Elementary functions for traced formulas, accurate to a few units in the last place.


@njit(inline="always")
def vlog(x):
    """log x; -inf at 0, NaN below. Subnormal numbers count as zero."""
    i = bits_of(x)
    e = i + u64((1024 << 52) - 0x3FE6A09E667F3BCD)
    m = float_of(i - (e & u64(0xFFF0000000000000)) + u64(1024 << 52))
    e = sub_exact(float_of((e >> u64(52)) | u64(0x4330000000000000)), 4503599627370496.0 + 1024.0)
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    p = 0.14810530200354172
    p = p * s + 0.15312443715170704
    p = p * s + 0.1818363509609567
    p = p * s + 0.2222219698820671
    p = p * s + 0.28571428761347134
    p = p * s + 0.3999999999929888
    p = p * s + 0.6666666666666765
    # 2 f is exact and the rest is small beside it: the order of the sum keeps the error below one unit
    out = e * 0.693147180369123816490 + (2.0 * f + (f * (s * p) + e * 1.90821492927058770002e-10))
    out = -np.inf if x < 2.2250738585072014e-308 else out
    out = np.nan if x < 0.0 else out
    out = x if x > 1.7976931348623157e308 else out
    return x if x != x else out


@njit(inline="always")
def vexp(x):
    """e^x; 0 below -745, infinite above 709.8."""
    y = 710.0 if x > 710.0 else x
    y = -746.0 if y < -746.0 else y
    t = add_exact(y * 1.4426950408889634, 6755399441055744.0)
    n = sub_exact(t, 6755399441055744.0)
    r = (y - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    p = 1.6059043836821613e-10
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 1.984126984126984e-04
    p = p * r + 1.388888888888889e-03
    p = p * r + 8.333333333333333e-03
    p = p * r + 4.1666666666666664e-02
    p = p * r + 1.6666666666666666e-01
    p = p * r + 0.5
    p = (p * (r * r) + r) + 1.0
    k = (bits_of(t) + u64(2048)) & u64(0xFFF)  # n + 2048: positive, so a logical shift halves it
    h = k >> u64(1)
    return (p * float_of((h - u64(1)) << u64(52))) * float_of((k - h - u64(1)) << u64(52))


@njit(inline="always")
def vsincos(x):
    """sin x and cos x, for |x| up to about 10^6 (beyond, the reduction loses digits, as the argument itself has)."""
    t = add_exact(x * 0.6366197723675814, 6755399441055744.0)
    n = sub_exact(t, 6755399441055744.0)
    r = ((x - n * 1.5707963267341256) - n * 6.077100506303966e-11) - n * 2.0222662487959506e-21
    s = r * r
    sn = 1.58962301576546568060e-10
    sn = sn * s - 2.50507477628578072866e-08
    sn = sn * s + 2.75573136213857245213e-06
    sn = sn * s - 1.98412698295895385996e-04
    sn = sn * s + 8.33333333332211858878e-03
    sn = sn * s - 1.66666666666666307295e-01
    sn = r + r * (s * sn)
    cs = -1.13585365213876817300e-11
    cs = cs * s + 2.08757008419747316778e-09
    cs = cs * s - 2.75573141792967388112e-07
    cs = cs * s + 2.48015872888517045348e-05
    cs = cs * s - 1.38888888888730564116e-03
    cs = cs * s + 4.16666666666665929218e-02
    cs = (1.0 - 0.5 * s) + (s * s) * cs
    q = bits_of(t)
    odd = (q & u64(1)) != u64(0)
    a = cs if odd else sn
    b = sn if odd else cs
    return (
        float_of(bits_of(a) ^ ((q << u64(62)) & SIGN_BIT)),
        float_of(bits_of(b) ^ (((q + u64(1)) << u64(62)) & SIGN_BIT)),
    )


@njit(inline="always")
def vsin(x):
    return vsincos(x)[0]


@njit(inline="always")
def vcos(x):
    return vsincos(x)[1]


@njit(inline="always")
def vtan(x):
    s, c = vsincos(x)
    return s / c


@njit(inline="always")
def vtanh(x):
    """tanh x: a rational function near zero (Cephes), exponentials elsewhere."""
    a = math.fabs(x)
    s = x * x
    p = (-9.64399179425052238628e-1 * s - 9.92877231001918586564e1) * s - 1.61468768441708447952e3
    q = ((s + 1.12811678491632931402e2) * s + 2.23548839060100448583e3) * s + 4.84406305325125486048e3
    near = x + x * (s * (p / q))
    far = 1.0 - 2.0 / (vexp(2.0 * a) + 1.0)
    return near if a < 0.625 else float_of(bits_of(far) | (bits_of(x) & SIGN_BIT))


@njit(inline="always")
def vlog1p(x):
    """log(1 + x), exact for small x (Kahan)."""
    u = add_exact(1.0, x)
    tail = sub_exact(x, sub_exact(u, 1.0)) / u
    out = vlog(u) + (tail if u > 0.0 else 0.0)
    return x if u == 1.0 else out


@njit(inline="always")
def vexpm1(x):
    """e^x - 1, exact for small x: by tanh, 2 t / (1 - t) with t = tanh(x/2), where |x| < 1."""
    t = vtanh(0.5 * x)
    return 2.0 * t / (1.0 - t) if math.fabs(x) < 1.0 else vexp(x) - 1.0


@njit(inline="always")
def vsinh(x):
    e = vexpm1(math.fabs(x))
    h = 0.5 * (e + e / (e + 1.0)) if e < 1e300 else e
    return float_of(bits_of(h) | (bits_of(x) & SIGN_BIT))


@njit(inline="always")
def vcosh(x):
    e = vexp(math.fabs(x))
    return 0.5 * e + 0.5 / e


# Sums over lanes: a fixed binary tree, so that they are the same bits every time.


@njit(cache=True, **FAST)
def tree_sum(rows, at):
    """Sum of LANES numbers from `at`, by halving in place."""
    half = LANES // 2
    while half > 0:
        for j in range(half):
            rows[at + j] += rows[at + half + j]
        half //= 2
    return rows[at]


@njit(cache=True, **FAST)
def reduce_single(values, at, valid, scratch, to, out):
    """Adds sum h and sum h^2 over the first `valid` lanes to `out`."""
    for j in range(LANES):
        h = values[at + j] if j < valid else 0.0
        scratch[to + j] = h
        scratch[to + LANES + j] = h * h
    for i in range(2):
        out[i] += tree_sum(scratch, to + i * LANES)


@njit(cache=True, **FAST)
def reduce_pair(values, at, valid, scratch, to, out):
    """Adds the sums of h(x), h(z), d, their squares, C, C^2 and d C over the first `valid` lanes to `out`.

    Rows of `values` from `at`: h(x), h(z), C; d = h(x) - h(z).
    """
    for j in range(LANES):
        inside = j < valid
        x = values[at + j] if inside else 0.0
        z = values[at + LANES + j] if inside else 0.0
        c = values[at + 2 * LANES + j] if inside else 0.0
        d = x - z
        scratch[to + j] = x
        scratch[to + LANES + j] = z
        scratch[to + 2 * LANES + j] = d
        scratch[to + 3 * LANES + j] = x * x
        scratch[to + 4 * LANES + j] = z * z
        scratch[to + 5 * LANES + j] = d * d
        scratch[to + 6 * LANES + j] = c
        scratch[to + 7 * LANES + j] = c * c
        scratch[to + 8 * LANES + j] = d * c
    for i in range(9):
        out[i] += tree_sum(scratch, to + i * LANES)


@njit(cache=True, **FAST)
def count_lost(state, start, stop, valid):
    """How many of the first `valid` lanes have a number that is not finite in rows `start` to `stop`."""
    lost = 0
    for j in range(valid):
        total = 0.0
        for r in range(start, stop):
            total += state[r * LANES + j] * 0.0
        if total != 0.0:
            lost += 1
    return lost
