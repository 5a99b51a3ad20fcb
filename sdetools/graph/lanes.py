"""Functions of one lane in float64 that LLVM vectorises: the elementary functions of traced formulas, and bit operations.

Every loop over lanes that uses them is innermost, straight-line and free of libm calls. Two rules keep it vectorised: conversions between
integers and floats go through bit patterns, because the 64-bit conversions need AVX-512; and loops are short, so that their constants stay
in registers. `sub_exact` is a subtraction that fast-math may not reassociate.

`FLAGS` allows fused multiply-add only. Signs of zeros, NaN and infinity keep their meaning, so that diverged paths are detected.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit  # noqa: F401

from sdetools.graph.bits import (  # noqa: F401
    add_exact,
    bits_of,
    call,
    float_of,
    float_pointer,
    fma,
    low_product,
    polynomial,
    sub_exact,
    whole_pointer,
    word_pointer,
)
from sdetools.graph.elementary import FAR, Precision, functions  # noqa: F401

FLAGS = {"contract"}
FAST = dict(nogil=True, fastmath=FLAGS, error_model="numpy")

u64 = np.uint64
LOW, S32 = u64(0xFFFFFFFF), u64(32)
ONE_BITS = u64(0x3FF0000000000000)
SIGN_BIT = u64(1 << 63)


@njit(inline="always")
def _quarters(x):
    """Return n, r and tail with x = n pi/2 + r + tail for |x| <= FAR: x - n pi/2 in fused steps, with pi/2 = C1 + C2 + C3 to 159 bits.

    x - n C1 is exact, as both are multiples of 2^-53 and the difference is below 1. The rounding errors of the other steps go into the
    tail, whatever cancels. n is in the low bits of a word.
    """
    t = add_exact(x * 0.6366197723675814, 6755399441055744.0)
    n = sub_exact(t, 6755399441055744.0)
    first = fma(n, -1.5707963267948966, x)
    product = n * 6.123233995736766e-17
    r = sub_exact(first, product)
    back = sub_exact(r, first)
    tail = sub_exact(sub_exact(first, sub_exact(r, back)), add_exact(product, back))
    return bits_of(t), r, fma(n, 1.4973849048591833e-33, sub_exact(tail, fma(n, 6.123233995736766e-17, -product)))


_F = functions(
    Precision(
        real=np.float64,
        float_of=float_of,
        mantissa=52,
        bias=1023,
        log2=(0.6931471804855391, 7.440617110012397e-11),
        half_pi=(1.5707963267948966, 6.123233995736766e-17),
        exp_range=(-746.0, 710.0),
        cosh_end=710.6,
        tanh_end=20.0,
        small=2.0**-27,
        sinh=polynomial(
            0.16666666666666669, 0.008333333333330044, 0.00019841269863142295, 2.755726832230253e-06, 2.5100450946427397e-08
        ),
        cosh=polynomial(
            0.041666666666666664, 0.0013888888888886539, 2.4801587317207826e-05, 2.7557282871219326e-07, 2.0911283370046976e-09
        ),
        log=polynomial(
            *(0.6666666666666666, 0.4000000000000088, 0.28571428570801954, 0.22222222392089008),
            *(0.18181795600060793, 0.15386241881938595, 0.13268714792348096, 0.1308723619665962),
        ),
        arctan=polynomial(
            *(-0.3333333333333333, 0.19999999999999984, -0.14285714285711718, 0.11111111110929807),
            *(-0.09090909084093506, 0.07692307534369985, -0.06666664203478607, 0.0588232553920069),
            *(-0.05262931380521779, 0.04760471049395462, -0.043407182638729704, 0.03971908106924452),
            *(-0.036139320776507194, 0.03213544133307827, -0.02718155333081564, 0.021121594179966983),
            *(-0.014503079564732733, 0.00844989240397037, -0.004000209679906822, 0.0014617449054205385),
            *(-0.00038394037972999467, 6.417524965866564e-05, -5.1088410388226665e-06),
        ),
        arcsin=polynomial(
            *(0.16666666666666669, 0.07499999999998433, 0.04464285714635543, 0.030381944138531247),
            *(0.02237217294214989, 0.017352392720869973, 0.013971212973552933, 0.011479177415184906),
            *(0.01032281435018578, 0.005457506718640358, 0.01740087944269402, -0.014851887071247204, 0.028757851367421566),
        ),
        sine=polynomial(
            *(-0.16666666666666666, 0.008333333333333331, -0.00019841269841265063, 2.7557319219337672e-06),
            *(-2.5052106231927857e-08, 1.6058531536611833e-10, -7.586692262094344e-13),
        ),
        cosine=polynomial(
            *(0.041666666666666664, -0.0013888888888887398, 2.4801587298764778e-05),
            *(-2.7557317271258515e-07, 2.0876146170183976e-09, -1.1382625349447592e-11),
        ),
        quarters=_quarters,
    )
)
NAMES = {
    **{name: f"v{name}" for name in ("exp", "expm1", "sinh", "cosh", "tanh", "log", "log1p", "sin", "cos", "tan")},
    **{name: f"v{name}" for name in ("maximum", "minimum", "sign", "heaviside", "floor")},
    **{"arctan": "vatan", "arcsin": "vasin", "arccos": "vacos", "power": "vpow"},
}
"""Names of NumPy's functions here and in `lanes32`; sqrt and abs are instructions, `math.sqrt` and `math.fabs`."""
globals().update({own: getattr(_F, name) for name, own in NAMES.items() if name != "power"})
sincos, split, rounded, power_of_two = _F.sincos, _F.split, _F.rounded, _F.power_of_two
_reduced, _scaled, _power_of = _F.reduced, _F.scaled, _F.power_of

real_pointer = float_pointer


@njit(inline="always")
def sign_of(word):
    """Return -1.0 if the highest bit of the uint64 `word` is set, else 1.0; a float64."""
    return float_of((word & SIGN_BIT) | ONE_BITS)


_POWER = polynomial(
    *(0.4, 0.2857142857142937, 0.22222222221654733, 0.1818181833565416),
    *(0.15384594934597917, 0.13334806212100603, 0.11706195689881364, 0.11723603622905411),
)


@njit(inline="always")
def vpow(x, y):
    """Return x**y of two float64 with NumPy's special values: NaN for finite negative x unless y is whole; 0**0 = 1.

    It is e^(y log |x|) with log |x| = high + low: y log |x| reaches 745, and an error of one ulp in it would be 745 ulp in the power. With
    |x| = m 2^e and f = (m - 1) / (m + 1), log m = 2 f + f^3 (2/3 + q). f, f^2, f^3 and 2/3 + q are sums of two float64; q is at most 1/50.
    """
    size = math.fabs(x)
    m, e = split(size)
    above, below = sub_exact(m, 1.0), add_exact(m, 1.0)
    inverse = 1.0 / below
    f = above * inverse
    f_rest = (fma(-f, below, above) - f * sub_exact(m, sub_exact(below, 1.0))) * inverse
    s = f * f
    s_rest = fma(f, f, -s) + 2.0 * f * f_rest
    q = s * _POWER(s)
    g = add_exact(0.6666666666666666, q)
    g_rest = sub_exact(q, sub_exact(g, 0.6666666666666666)) + 3.700743415417188e-17
    cube = f * s
    cube_rest = fma(f, s, -cube) + (f * s_rest + f_rest * s)
    third = cube * g
    third_rest = fma(cube, g, -third) + (cube * g_rest + cube_rest * g)
    whole_part = e * 0.6931471804855391  # exact: this part of log 2 has trailing zeros
    head = add_exact(whole_part, 2.0 * f)
    rest = sub_exact(2.0 * f, sub_exact(head, whole_part))
    high = add_exact(head, third)
    rest = rest + sub_exact(third, sub_exact(high, head)) + (2.0 * f_rest + third_rest + e * 7.440617110012397e-11)
    head = high
    high = add_exact(head, rest)
    low = sub_exact(rest, sub_exact(high, head))
    high = -np.inf if size == 0.0 else high
    high = size if not size <= 1.7976931348623157e308 else high
    power = 0.0 if size == 1.0 else y * high
    low = fma(y, high, -power) + y * low if (math.fabs(power) < 800.0 and size != 1.0) else 0.0
    power = 710.0 if power > 710.0 else power
    power = -746.0 if power < -746.0 else power
    n, r, odd, even = _reduced(power)
    grown = low + low * (r + (odd + even))
    return _power_of(x, y, _scaled(1.0 + (r + (odd + (even + grown))), n))
