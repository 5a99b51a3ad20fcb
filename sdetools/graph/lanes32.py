"""Functions of one lane in float32, by the names of `lanes`: shorter polynomials, and twice as many lanes in a register.

Angles are reduced in double precision, and powers computed in it: float32 would lose the digits of the former, and the logarithm of the
latter would need a second number.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit  # noqa: F401

from sdetools.graph import lanes
from sdetools.graph.bits import (  # noqa: F401
    add_exact,
    bits_of,
    call,
    float32_of,
    float32_pointer,
    float_pointer,
    fma,
    polynomial,
    sub_exact,
    whole_pointer,
    word_pointer,
)
from sdetools.graph.elementary import Precision, functions
from sdetools.graph.lanes import FAST  # noqa: F401

f32, f64, u64 = np.float32, np.float64, np.uint64
SIGN_BIT, ONE_BITS = u64(1 << 31), u64(0x3F800000)


@njit(inline="always")
def _quarters(x):
    """Return n, r and tail with x = n pi/2 + r + tail: the difference in double precision, rounded to r, and its rounding error."""
    wide = f64(x)
    t = add_exact(wide * 0.6366197723675814, 6755399441055744.0)
    n = sub_exact(t, 6755399441055744.0)
    wide = fma(n, -6.123233995736766e-17, fma(n, -1.5707963267948966, wide))
    r = f32(wide)
    return bits_of(t), r, f32(sub_exact(wide, f64(r)))


_F = functions(
    Precision(
        real=np.float32,
        float_of=float32_of,
        mantissa=23,
        bias=127,
        log2=(0.693145751953125, 1.4286068e-06),
        half_pi=(1.5707963705062866, -4.371139e-08),
        exp_range=(-104.0, 89.0),
        cosh_end=89.5,
        tanh_end=10.0,
        small=2.0**-12,
        sinh=polynomial(0.16666667, 0.0083333105, 0.00019891058),
        cosh=polynomial(0.041666623, 0.001391876),
        log=polynomial(0.6666667, 0.40000123, 0.28550804, 0.23330964),
        arctan=polynomial(
            *(-0.33333334, 0.1999995, -0.14284004, 0.11088262, -0.08931827),
            *(0.070319146, -0.048960514, 0.026305001, -0.009144629, 0.0014886919),
        ),
        arcsin=polynomial(0.16666666, 0.07500094, 0.044599403, 0.031100662, 0.017149238, 0.033690847),
        sine=polynomial(-0.16666667, 0.008333332, -0.00019840087, 2.72499e-06),
        cosine=polynomial(0.041666664, -0.0013888302, 2.4547922e-05),
        quarters=_quarters,
    )
)
globals().update({own: getattr(_F, name) for name, own in lanes.NAMES.items() if name != "power"})
sincos, _power_of = _F.sincos, _F.power_of

real_pointer = float32_pointer


@njit(inline="always")
def sign_of(word):
    """Return -1.0 if the highest bit of the uint64 `word` is set, else 1.0; a float32."""
    return float32_of(((word >> u64(32)) & SIGN_BIT) | ONE_BITS)


_POWER = polynomial(0.6666666666666666, 0.3999999990480438, 0.28571531927216204, 0.22204750187487082, 0.19120778680559553)
_GROWTH = polynomial(1.0, 1.0, 0.5, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320)


@njit(inline="always")
def vpow(x, y):
    """Return x**y of two float32 with NumPy's special values: NaN for finite negative x unless y is whole; 0**0 = 1.

    It is computed in double precision as e^(y log |x|), each factor within 2^-33.
    """
    wide = math.fabs(f64(x))
    m, e = lanes.split(wide)
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    log = e * 0.6931471805599453 + f * (2.0 + s * _POWER(s))
    log = -np.inf if wide == 0.0 else log
    log = wide if not wide <= 1.7976931348623157e308 else log
    power = 0.0 if wide == 1.0 else f64(y) * log
    power = 200.0 if power > 200.0 else power
    power = -200.0 if power < -200.0 else power
    n = lanes.rounded(power * 1.4426950408889634)
    return _power_of(x, y, f32(_GROWTH(power - n * 0.6931471805599453) * lanes.power_of_two(n)))
