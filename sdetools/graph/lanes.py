"""Functions of one lane that LLVM turns into vector code: bits and exact sums, and the elementary functions of traced formulas.

Every loop over lanes that uses them is innermost, straight-line and free of libm calls. Two habits keep it vector code: conversions between
integers and floats go through bit patterns, because the 64-bit conversions need AVX-512; and loops are short, so that their constants stay
in registers. `sub_exact` is a subtraction that fast-math may not touch.

`FLAGS` names the liberties taken: fused multiply-add, and no care for the sign of zero. NaN and infinity keep their meaning,
for a path that leaves the finite range has to be seen.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

FLAGS = {"contract", "nsz"}
FAST = dict(nogil=True, fastmath=FLAGS, error_model="numpy")

u64 = np.uint64
LOW, S32 = u64(0xFFFFFFFF), u64(32)
ONE_BITS = u64(0x3FF0000000000000)
SIGN_BIT = u64(1 << 63)


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
def fma(typingctx, x, y, z):
    """x y + z, rounded once on every machine: by one instruction where there is one, by libm's `fma` where there is none."""
    return types.float64(types.float64, types.float64, types.float64), lambda ctx, b, sig, a: b.fma(*a)


@intrinsic
def low_product(typingctx, x, y):
    """(low 32 bits of x) times y: one vector instruction; the dirty upper half of x is ignored."""
    low = ir.Constant(ir.IntType(64), 0xFFFFFFFF)
    return types.uint64(types.uint64, types.uint64), lambda ctx, b, sig, a: b.mul(b.and_(a[0], low), a[1])


@intrinsic
def float_pointer(typingctx, address):
    """An address as a pointer to floats."""
    return types.CPointer(types.float64)(types.int64), lambda ctx, b, sig, a: b.inttoptr(a[0], ir.DoubleType().as_pointer())


@intrinsic
def word_pointer(typingctx, address):
    """An address as a pointer to 64-bit words."""
    return types.CPointer(types.uint64)(types.int64), lambda ctx, b, sig, a: b.inttoptr(a[0], ir.IntType(64).as_pointer())


@intrinsic
def call(typingctx, address, a, b, c, d, e, f):
    """Calls the function of `library.py` at an address."""

    def codegen(context, builder, signature, arguments):
        word = ir.IntType(64)
        function = builder.inttoptr(arguments[0], ir.FunctionType(word, [word] * 6).as_pointer())
        return builder.call(function, arguments[1:])

    return types.int64(*[types.int64] * 7), codegen


# Elementary functions for traced formulas, accurate to a few units in the last place.


@njit(inline="always")
def _split(x):
    """m in [sqrt(1/2), sqrt 2) and a whole number e with x = m 2^e, for finite x > 0; subnormal numbers are scaled up first."""
    tiny = x < 2.2250738585072014e-308
    i = bits_of(x * 18014398509481984.0 if tiny else x)
    e = i + u64((1024 << 52) - 0x3FE6A09E667F3BCD)
    m = float_of(i - (e & u64(0xFFF0000000000000)) + u64(1024 << 52))
    e = sub_exact(float_of((e >> u64(52)) | u64(0x4330000000000000)), 4503599627370496.0 + 1024.0)
    return m, sub_exact(e, 54.0 if tiny else 0.0)


@njit(inline="always")
def vlog(x):
    """log x; -inf at 0, NaN below."""
    m, e = _split(x)
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
    out = -np.inf if x == 0.0 else out
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


FAR = float(2**30)
"""The largest argument that `sincos` reduces; `library.py` asks libm beyond it."""


@njit(inline="always")
def sincos(x):
    """sin x and cos x for |x| <= FAR.

    x - n pi/2 in three fused steps, with pi/2 = C1 + C2 + C3 to 159 bits: the first is exact, as x and C1 are multiples of 2^-53 and
    the difference is below 1; each of the others rounds once, relative to what is left, however much cancels.
    """
    t = add_exact(x * 0.6366197723675814, 6755399441055744.0)
    n = sub_exact(t, 6755399441055744.0)
    r = fma(n, -1.5707963267948966, x)
    r = fma(n, -6.123233995736766e-17, r)
    r = fma(n, 1.4973849048591833e-33, r)
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
    half = 0.5 * s
    w = sub_exact(1.0, half)
    cs = w + (sub_exact(sub_exact(1.0, w), half) + (s * s) * cs)
    q = bits_of(t)
    odd = (q & u64(1)) != u64(0)
    a = cs if odd else sn
    b = sn if odd else cs
    sine = float_of(bits_of(a) ^ ((q << u64(62)) & SIGN_BIT))
    return (
        x if math.fabs(x) < 7.450580596923828e-09 else sine,  # its own sine below 2^-27, with its sign where it is zero
        float_of(bits_of(b) ^ (((q + u64(1)) << u64(62)) & SIGN_BIT)),
    )


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
    out = u if u > 1.7976931348623157e308 else out
    return x if u == 1.0 else out


@njit(inline="always")
def vexpm1(x):
    """e^x - 1, exact for small x: by tanh, 2 t / (1 - t) with t = tanh(x/2), where |x| < 1."""
    t = vtanh(0.5 * x)
    out = 2.0 * t / (1.0 - t) if math.fabs(x) < 1.0 else vexp(x) - 1.0
    return x if math.fabs(x) < 1.1102230246251565e-16 else out  # half of a subnormal number is not one


@njit(inline="always")
def vsinh(x):
    """sinh x: by e^x - 1 where that is safe, by (e^(x/2))^2 / 2 to the end of the range."""
    a = math.fabs(x)
    e, t = vexpm1(a), vexp(0.5 * a)
    h = 0.5 * (e + e / (e + 1.0)) if a < 300.0 else (0.5 * t) * t
    h = a if a < 7.450580596923828e-09 else h
    return float_of(bits_of(h) | (bits_of(x) & SIGN_BIT))


@njit(inline="always")
def vcosh(x):
    """cosh x, likewise."""
    a = math.fabs(x)
    e, t = vexp(a), vexp(0.5 * a)
    return 0.5 * e + 0.5 / e if a < 300.0 else (0.5 * t) * t


@njit(inline="always")
def vpow(x, y):
    """x**y as NumPy has it: real powers of negative numbers are NaN, but for whole y; 0**0 = 1.

    e^(y log |x|) with log |x| = high + low, for y log |x| reaches 745 and an error of one unit in it would be 745 in the power:
    log m = 2 atanh f, f = (m - 1) / (m + 1), is 2 f exactly and a rest of at most one part in a hundred.
    """
    size = math.fabs(x)
    m, e = _split(size)
    below = add_exact(m, 1.0)
    f = sub_exact(m, 1.0) / below
    rest = (fma(-f, below, sub_exact(m, 1.0)) - f * sub_exact(m, sub_exact(below, 1.0))) / below
    s = f * f
    p = 2.0 / 25.0
    p = p * s + 2.0 / 23.0
    p = p * s + 2.0 / 21.0
    p = p * s + 2.0 / 19.0
    p = p * s + 2.0 / 17.0
    p = p * s + 2.0 / 15.0
    p = p * s + 2.0 / 13.0
    p = p * s + 2.0 / 11.0
    p = p * s + 2.0 / 9.0
    p = p * s + 2.0 / 7.0
    p = p * s + 2.0 / 5.0
    p = p * s + 2.0 / 3.0
    whole_part = e * 0.693147180369123816490  # exact: this part of log 2 ends in zeros
    high = add_exact(whole_part, 2.0 * f)
    tail = sub_exact(2.0 * f, sub_exact(high, whole_part)) + (2.0 * rest + (f * (s * p) + e * 1.90821492927058770002e-10))
    head = high
    high = add_exact(head, tail)
    low = sub_exact(tail, sub_exact(high, head))
    high = -np.inf if size == 0.0 else high
    high = size if not size <= 1.7976931348623157e308 else high
    power = 0.0 if size == 1.0 else y * high
    low = fma(y, high, -power) + y * low if (math.fabs(power) < 800.0 and size != 1.0) else 0.0
    grown = vexp(power) * (1.0 + low)
    whole = math.floor(y) == y
    odd = whole and math.floor(0.5 * y) != 0.5 * y
    signed = float_of(bits_of(grown) ^ (bits_of(x) & SIGN_BIT)) if odd else grown
    out = np.nan if (x < 0.0 and not whole) else signed
    return 1.0 if (y == 0.0 or x == 1.0) else out
