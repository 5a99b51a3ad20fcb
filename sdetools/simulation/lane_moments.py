"""Compiled functions on the lanes of a block: Philox, the Box-Muller transform, and moments.

A kernel advances a block of paths, its lanes, at a time. Rows have constant distances in one array, so that LLVM can see that they
do not overlap. The elementary functions of one lane are in `graph.lanes`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sdetools.graph.lanes import LOW, S32, SIGN_BIT, bits_of, float_of, low_product, sub_exact, u64
from sdetools.simulation.records import PAIR, SINGLE

f64 = np.float64
_M0, _M1 = u64(0xD2511F53), u64(0xCD9E8D57)
_W0, _W1 = u64(0x9E3779B9), u64(0xBB67AE85)


@njit(inline="always")
def philox_words(k0, k1, c0, c1, c2, c3):
    """Return the two 64-bit random words of Philox4x32-10 at a counter of four 32-bit words, c0 to c3, under a key of two, k0 and k1.

    All are uint64, and the result is a pair of them; the upper halves of the counter's words are ignored. `philox.words` is the same in NumPy.
    """
    for _ in range(10):
        p0, p1 = low_product(c0, _M0), low_product(c2, _M1)
        c0, c1, c2, c3 = (p1 >> S32) ^ c1 ^ k0, p1, (p0 >> S32) ^ c3 ^ k1, p0
        k0, k1 = (k0 + _W0) & LOW, (k1 + _W1) & LOW
    return (c0 << S32) | (c1 & LOW), (c2 << S32) | (c3 & LOW)


# The Box-Muller transform of one word, in two functions: the loop over each needs few enough constants to keep them in registers.
# The polynomials are minimax in relative error: sin and cos of t pi / 2, |t| <= 1/2, in powers of t^2, and 2 atanh(f) / f in
# powers of f^2.


@njit(inline="always")
def radius(w):
    """Return the radius sqrt(-log u) of the Box-Muller transform as a float64.

    u = 1 - (i + 1/2) 2^-40, where i is the upper 40 bits of the 64-bit random word w.
    """
    i = bits_of(2.0 - float_of(((w >> u64(12)) & u64(0x000FFFFFFFFFF000)) | u64(0x3FF0000000000800)))
    e = i + u64((1024 << 52) - 0x3FE6A09E667F3BCD)
    m = float_of(i - (e & u64(0xFFF0000000000000)) + u64(1024 << 52))
    e = sub_exact(float_of((e >> u64(52)) | u64(0x4330000000000000)), 4503599627370496.0 + 1024.0)
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    q = s * s
    low = (2.0000000000000004 + s * 0.6666666666655222) + q * (0.40000000062016494 + s * 0.2857141598122734)
    high = (0.22223437162244242 + s * 0.18121855428921346) + q * 0.16838554998839272
    return math.sqrt(-f * (low + (q * q) * high) - e * 0.6931471805599453)


@njit(inline="always")
def normal_pair(w, r):
    """Return two independent standard normals, s0 r (cos a - sin a) and s1 r (cos a + sin a), from the radius and the angle of one word.

    Args:
        w: A 64-bit random word; its lower 24 bits give the angle a in (-pi/4, pi/4) and the signs s0 and s1.
        r: The radius, `radius(w)` of the same word.
    """
    t = float_of(((w << u64(30)) & u64(0x3FFFFF << 30)) | u64((0x3FF << 52) | (1 << 29))) - 1.5
    s = t * t
    q = s * s
    sine = (1.5707963267948895 - s * 0.6459640975042397) + q * (0.07969262615353437 - s * 0.004681752566775282)
    sine = t * (sine + (q * q) * (0.00016042915250834877 - s * 3.556206574116599e-06))
    cosine = (0.9999999999999999 - s * 1.2337005501361489) + q * (0.25366950789975307 - s * 0.02086348073305851)
    cosine = cosine + (q * q) * ((0.000919259935579931 - s * 2.5200084137183358e-05) + q * 4.6546176702782693e-07)
    a, b = r * (cosine - sine), r * (cosine + sine)
    return float_of(bits_of(a) ^ ((w << u64(40)) & SIGN_BIT)), float_of(bits_of(b) ^ ((w << u64(41)) & SIGN_BIT))


# Moments over lanes. Where they are inlined (`library.py`), LLVM may reassociate additions, so that sums use vector registers.
# The order is then fixed in that one compiled function: it is the same for every block, thread and process on one type of
# processor. Each block is summed about its first lane and joined to the earlier blocks of its leaf by the update of Chan, Golub
# and LeVeque (1983). A variance far below the square of the mean keeps its digits, and equal values have a variance of exactly
# zero.

_H, _H2 = map(SINGLE.index, ("h", "h2"))
_X, _Z, _D, _X2, _Z2, _D2, _C, _C2, _DC = map(PAIR.index, ("x", "z", "d", "x2", "z2", "d2", "c", "c2", "dc"))


@njit(inline="always")
def reduce_single(values, at, valid, before, out, o):
    """Add the values h(x) of a block of paths, for one dynamics, to the moments of h: its mean and the sum of squares about it.

    The block is joined to the earlier blocks of its leaf (256 consecutive paths). Sums are in double precision, whatever the type of the values.

    Args:
        values: A flat array of rows of values.
        at: The position in `values` of the first value h.
        valid: The number of values, one a path, at least 1.
        before: The number of earlier paths of the leaf.
        out: The moments of the leaf, a flat array that is updated; zeros before the first block.
        o: The position in `out` of the mean, which the sum of squares follows.
    """
    pivot, n = f64(values[at]), float(valid)
    s = s2 = 0.0
    for j in range(valid):
        h = sub_exact(f64(values[at + j]), pivot)
        s += h
        s2 += h * h
    share, earlier = n / (before + n), before * n / (before + n)
    step = pivot + s / n - out[o + _H]
    out[o + _H] += share * step
    out[o + _H2] += _spread(s2, s, s, n) + _between(earlier, step, step)


@njit(inline="always")
def reduce_pair(values, at, width, valid, before, out, o):
    """Add the values of a block of paths, for a pair, to the moments of one observable h: those of h(x), h(z), d = h(x) - h(z) and C.

    The block is joined to the earlier blocks of its leaf (256 consecutive paths). Sums are in double precision, whatever the type of the values.

    Args:
        values: A flat array of rows of values.
        at: The position in `values` of the first value h(x); the rows of h(z) and of the control variate C follow.
        width: The distance from one row to the next.
        valid: The number of values in a row, one a path, at least 1.
        before: The number of earlier paths of the leaf.
        out: The moments of the leaf, a flat array that is updated; zeros before the first block.
        o: The position in `out` of the nine statistics, in the order of `records.PAIR`.
    """
    n = float(valid)
    px, pz, pc = f64(values[at]), f64(values[at + width]), f64(values[at + 2 * width])
    pd = sub_exact(px, pz)
    sx = sz = sd = sc = sx2 = sz2 = sd2 = sc2 = sdc = 0.0
    for j in range(valid):
        x, z, c = f64(values[at + j]), f64(values[at + width + j]), sub_exact(f64(values[at + 2 * width + j]), pc)
        d = sub_exact(sub_exact(x, z), pd)
        x, z = sub_exact(x, px), sub_exact(z, pz)
        sx += x
        sz += z
        sd += d
        sc += c
        sx2 += x * x
        sz2 += z * z
        sd2 += d * d
        sc2 += c * c
        sdc += d * c
    share, earlier = n / (before + n), before * n / (before + n)
    x, z, d, c = px + sx / n - out[o + _X], pz + sz / n - out[o + _Z], pd + sd / n - out[o + _D], pc + sc / n - out[o + _C]
    out[o + _X] += share * x
    out[o + _Z] += share * z
    out[o + _D] += share * d
    out[o + _X2] += _spread(sx2, sx, sx, n) + _between(earlier, x, x)
    out[o + _Z2] += _spread(sz2, sz, sz, n) + _between(earlier, z, z)
    out[o + _D2] += _spread(sd2, sd, sd, n) + _between(earlier, d, d)
    out[o + _C] += share * c
    out[o + _C2] += _spread(sc2, sc, sc, n) + _between(earlier, c, c)
    out[o + _DC] += _spread(sdc, sd, sc, n) + _between(earlier, d, c)


@njit(inline="always")
def _spread(product, a, b, n):
    """Return the sum of products about the means, from the sums of products, of first factors `a` and of second factors `b` about a pivot.

    `n` is the number of paths.
    """
    return product - a * b / n


@njit(inline="always")
def _between(earlier, a, b):
    """Return the contribution of the differences `a` and `b` of two pairs of means to a sum of products, with the weight `earlier`.

    The weight is n m / (n + m) for n earlier and m new paths; with a weight of 0, the first block, the result is 0 even where `a` or `b` is NaN.
    """
    return earlier * a * b if earlier > 0.0 else 0.0


@njit(inline="always")
def count_diverged(state, start, stop, valid, width):
    """Return the number of lanes (paths of a block) with an infinite number or NaN in some rows of the state.

    Args:
        state: A flat array of rows, row r from position `r * width` on.
        start: The first row that is examined.
        stop: The end of these rows, exclusive.
        valid: The number of lanes that are paths; further ones are ignored.
        width: The number of lanes of a row.
    """
    count = 0
    for j in range(valid):
        total = 0.0
        for r in range(start, stop):
            total += state[r * width + j] * 0.0
        if total != 0.0:
            count += 1
    return count
