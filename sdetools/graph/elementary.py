"""Elementary functions of one lane, the same code for float64 and float32: `functions(precision)` makes them for a type.

A lane is the place of a path: x and y are single numbers, and LLVM makes vector code of a loop that calls the functions. All are straight-line
code without libm calls and accurate within 2 ulp. They have NumPy's special values: overflow, subnormal arguments and results, -0.0,
infinity, NaN, arguments outside the domain. Signs of zeros are set by bits, or the argument itself is returned.

e^x and related functions share one reduction, x = n log 2 + r with |r| <= log(2)/2, and the even and odd parts of e^r. A sum such as
sinh x = (2^n e^r - 2^-n e^-r) / 2 is then a sum of exact multiples of 1, r and small remainders, without cancellation near zero. Logarithms
share log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)) with s = f/(2 + f) (Ng, fdlibm). Polynomials interpolate at Chebyshev nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from sdetools.graph.bits import add_exact, bits_of, fma, sub_exact, whole_below

u64 = np.uint64


class Precision(NamedTuple):
    """The numbers and polynomials by which the elementary functions (exp, log, sin, ...) of float64 and float32 differ.

    The fields sinh to cosine are polynomials P of s = r^2 (of z for log and arcsin), as functions to be called in code that Numba compiles; r is
    the argument after reduction to a small range.

    Attributes:
        real: NumPy's type, `np.float64` or `np.float32`.
        float_of: Function from bits, a uint64, to the float.
        mantissa: Number of stored bits of the mantissa.
        bias: Bias of the exponent.
        log2: log 2 as a sum of two numbers, the larger one first.
        half_pi: pi/2 as a sum of two numbers, the larger one first.
        exp_range: Below the first number e^x is 0 and above the second infinity; arguments are limited to this range.
        cosh_end: Above it cosh and sinh overflow.
        tanh_end: Above it tanh rounds to 1.
        small: For |x| below it, x + x^3 rounds to x.
        sinh: sinh r = r + r s P(s).
        cosh: cosh r = 1 + s/2 + s^2 P(s).
        log: log(1 + f) = f - f^2/2 + s (f^2/2 + z P(z)) with s = f/(2 + f), z = s^2, for sqrt(1/2) <= 1 + f < sqrt 2.
        arctan: arctan r = r + r s P(s), |r| <= 1.
        arcsin: arcsin w = w + w z P(z) with z = w^2 <= 1/4.
        sine: sin r = r + r s P(s), |r| <= pi/4.
        cosine: cos r = 1 - s/2 + s^2 P(s).
        quarters: Maps x to (n, r, tail) with x = n pi/2 + r + tail, |r| <= pi/4, for |x| <= `FAR` = 2^30; n is a uint64, right modulo 4.
    """

    real: Any
    float_of: Any
    mantissa: int
    bias: int
    log2: tuple[float, float]
    half_pi: tuple[float, float]
    exp_range: tuple[float, float]
    cosh_end: float
    tanh_end: float
    small: float
    sinh: Any
    cosh: Any
    log: Any
    arctan: Any
    arcsin: Any
    sine: Any
    cosine: Any
    quarters: Any


FAR = float(2**30)
"""The largest argument of sin, cos and tan; the functions on rows call libm beyond it."""


def functions(p: Precision) -> SimpleNamespace:
    """Return a namespace with the elementary functions of the type that `p` describes, by name: `functions(p).exp(x)` is e^x.

    They are NumPy's exp to tan, maximum, minimum, sign, heaviside and floor, and the steps they share, such as `rounded`. Each is
    compiled by Numba, inlined where compiled code calls it, and takes and returns single numbers of that type. Arguments outside the ranges that
    the functions state are not checked, and give wrong numbers.
    """
    made = SimpleNamespace()

    def lane(function: Callable[..., Any]) -> Any:
        compiled = njit(inline="always")(function)
        setattr(made, function.__name__, compiled)
        return compiled

    real, float_of, M, bias = p.real, p.float_of, u64(p.mantissa), u64(p.bias)
    zero, half, one, two, inf, nan = (real(v) for v in (0.0, 0.5, 1.0, 2.0, np.inf, np.nan))
    largest, normal, small, tiny = (real(v) for v in (np.finfo(real).max, np.finfo(real).tiny, p.small, p.small**2))
    whole = real(1.5 * 2.0**p.mantissa)  # adding it rounds to a whole number, in the low bits
    log2_e, log2_high, log2_low = real(1.4426950408889634), real(p.log2[0]), real(p.log2[1])
    pi_high, pi_low = real(p.half_pi[0]), real(p.half_pi[1])
    exp_low, exp_high = real(p.exp_range[0]), real(p.exp_range[1])
    expm1_low, cosh_end, tanh_end = real(-1.5 * p.mantissa), real(p.cosh_end), real(p.tanh_end)
    far = real(p.mantissa + 8.0)  # 2^-n is negligible beside 2^n for n above half of it
    sinh_rest, cosh_rest, log_rest, arctan_rest, arcsin_rest = p.sinh, p.cosh, p.log, p.arctan, p.arcsin
    sine_rest, cosine_rest, quarters = p.sine, p.cosine, p.quarters
    sign_place = p.mantissa + (11 if p.mantissa == 52 else 8)
    sign_bit, below_sign = u64(1 << sign_place), u64(sign_place - 1)
    root_half = u64(0x3FE6A09E667F3BCD if p.mantissa == 52 else 0x3F3504F3)
    offset = u64((p.bias + 1) << p.mantissa)
    upper_bits = u64((4 * p.bias + 3) << p.mantissa)
    as_float, float_bias = u64((p.bias + p.mantissa) << p.mantissa), real(2.0**p.mantissa + p.bias + 1)
    lift, lifted = real(2.0 ** (p.mantissa + 2)), real(p.mantissa + 2.0)

    @lane
    def with_sign(size, x):
        """Return |size| with the sign bit of x, for two floats."""
        return float_of((bits_of(size) & (sign_bit - u64(1))) | (bits_of(x) & sign_bit))

    @lane
    def rounded(x):
        """Return the whole number nearest to a float x, as a float, for |x| < 2^22; half-way it is the even one."""
        return sub_exact(add_exact(x, whole), whole)

    @lane
    def power_of_two(n):
        """Return 2^n for a float n that is a whole number from 1 - bias to bias, `Precision.bias`: -1022 to 1023 for float64."""
        return float_of((bits_of(add_exact(n, whole)) + bias) << M)

    @lane
    def scaled(x, n):
        """Return x 2^n for floats x and n, n whole: in two factors, so that n may be twice as large as in `power_of_two`."""
        first = rounded(half * n)
        return (x * power_of_two(first)) * power_of_two(sub_exact(n, first))

    @lane
    def split(x):
        """Return floats (m, e) with x = m 2^e, m in [sqrt(1/2), sqrt 2) and e a whole number, for a finite float x > 0, also a subnormal one."""
        low = x < normal
        i = bits_of(x * lift if low else x)
        e = i + (offset - root_half)
        m = float_of(i + offset - (e & upper_bits))
        e = sub_exact(float_of((e >> M) | as_float), float_bias)
        return m, sub_exact(e, lifted if low else zero)

    @lane
    def reduced(x):
        """Return floats (n, r, odd, even): x = n log 2 + r, n whole, |r| <= log(2)/2, sinh r = r + odd (with r's rounding), cosh r = 1 + even."""
        n = rounded(x * log2_e)
        high, low = x - n * log2_high, n * log2_low
        r = sub_exact(high, low)
        s = r * r
        return n, r, sub_exact(sub_exact(high, r), low) + r * (s * sinh_rest(s)), s * (half + s * cosh_rest(s))

    @lane
    def exp(x):
        """Return e^x of a float x; 0 or infinity beyond the range of the type, NaN for NaN."""
        y = exp_high if x > exp_high else x
        y = exp_low if y < exp_low else y
        n, r, odd, even = reduced(y)
        return scaled(one + (r + (odd + even)), n)

    @lane
    def expm1(x):
        """Return e^x - 1 of a float x, without cancellation near 0; infinity beyond the range of the type, -1 at -infinity, NaN for NaN."""
        y = exp_high if x > exp_high else x
        y = expm1_low if y < expm1_low else y
        n, r, odd, even = reduced(y)
        a = power_of_two(sub_exact(n, one))
        head = sub_exact(a, half)
        total = head + a * r
        out = two * (total + ((a * r - sub_exact(total, head)) + a * (odd + even)))
        return x if math.fabs(x) < tiny else out

    @lane
    def hyperbolic(a):
        """Return floats (s, s_rest, c, c_rest): sinh(a)/2 = s + s_rest, cosh(a)/2 = c + c_rest, for 0 <= a <= `Precision.cosh_end`."""
        n, r, odd, even = reduced(a)
        up = power_of_two(sub_exact(n, two))
        down = power_of_two(sub_exact(-two, n if n < far else far))
        minus, plus = sub_exact(up, down), add_exact(up, down)
        s = minus + plus * r
        c = plus + minus * r
        rounding = sub_exact(down, sub_exact(plus, up))
        s_rest = ((plus * r - sub_exact(s, minus)) - rounding) + (minus * even + plus * odd)
        c_rest = ((minus * r - sub_exact(c, plus)) + rounding) + (plus * even + minus * odd)
        return s, s_rest, c, c_rest

    @lane
    def sinh(x):
        """Return sinh x of a float x; infinity with the sign of x beyond the range of the type, NaN for NaN."""
        a = math.fabs(x)
        high, low, _, _ = hyperbolic(cosh_end if a > cosh_end else a)
        return with_sign(a if a < small else two * (high + low), x)

    @lane
    def cosh(x):
        """Return cosh x of a float x; infinity beyond the range of the type, NaN for NaN."""
        a = math.fabs(x)
        _, _, high, low = hyperbolic(cosh_end if a > cosh_end else a)
        return two * (high + low)

    @lane
    def quotient(a, a_rest, b, b_rest):
        """Return (a + a_rest) / (b + b_rest) for floats with |a_rest| << |a|, |b_rest| << |b|: a quotient and one correction by its remainder."""
        c, d = add_exact(a, a_rest), add_exact(b, b_rest)
        inverse = one / d
        q = c * inverse
        c_rest, d_rest = sub_exact(a_rest, sub_exact(c, a)), sub_exact(b_rest, sub_exact(d, b))
        return q + (fma(-q, d, c) + (c_rest - q * d_rest)) * inverse

    @lane
    def tanh(x):
        """Return tanh x of a float x as E / (E + 2) with E = e^(2 |x|) - 1, and the sign of x; 1 or -1 for large |x|, NaN for NaN."""
        a = math.fabs(x)
        n, r, odd, even = reduced(two * (tanh_end if a > tanh_end else a))
        up = power_of_two(n)
        head = sub_exact(up, one)
        e = head + up * r
        e_rest = (up * r - sub_exact(e, head)) + up * (odd + even)
        return with_sign(a if a < small else quotient(e, e_rest, add_exact(e, two), e_rest), x)

    @lane
    def log_of(f, e):
        """Return log((1 + f) 2^e) = log(1 + f) + e log 2 for floats f, from sqrt(1/2) - 1 to sqrt 2 - 1, and e, a whole number (see `split`)."""
        s = f / (two + f)
        z, square = s * s, half * (f * f)
        low = e * log2_low + s * (square + z * log_rest(z))
        return e * log2_high - (sub_exact(square, low) - f)

    @lane
    def log(x):
        """Return log x of a float x; -infinity at 0 and -0.0, NaN for x < 0, infinity at infinity, NaN for NaN."""
        m, e = split(x)
        out = log_of(sub_exact(m, one), e)
        out = -inf if x == zero else out
        out = nan if x < zero else out
        out = x if x > largest else out
        return x if x != x else out

    @lane
    def log1p(x):
        """Return log(1 + x) of a float x, without cancellation near 0; -infinity at -1, NaN for x < -1, infinity at infinity, NaN for NaN."""
        u = add_exact(one, x)
        back = sub_exact(u, one)
        rounding = add_exact(sub_exact(one, sub_exact(u, back)), sub_exact(x, back))
        m, e = split(u)
        f = sub_exact(m, one) + (rounding * power_of_two(-e) if e < far else zero)
        out = log_of(x if e == zero else f, e)
        out = -inf if u == zero else out
        out = nan if u < zero else out
        out = x if (u > largest or math.fabs(x) < tiny) else out
        return x if x != x else out

    @lane
    def arctan(x):
        """Return arctan x of a float x, in [-pi/2, pi/2], NaN for NaN; for x > 1 it is pi/2 minus that of 1/x."""
        a = math.fabs(x)
        above = a > one
        t = one / a if above else a
        s = t * t
        rest = t * (s * arctan_rest(s))
        size = sub_exact(pi_high, add_exact(t, sub_exact(rest, pi_low))) if above else t + rest
        return with_sign(size, x)

    @lane
    def arcsine_of(a):
        """Return floats (w, rest): arcsin a is w + rest for 0 <= a <= 1/2, and pi/2 - 2 (w + rest) for 1/2 < a <= 1; NaNs for a > 1."""
        above = a > half
        z = half - half * a if above else a * a
        w = math.sqrt(z) if above else a
        return w, w * (z * arcsin_rest(z))

    @lane
    def arcsin(x):
        """Return arcsin x of a float x, in [-pi/2, pi/2]; NaN outside [-1, 1]."""
        a = math.fabs(x)
        w, rest = arcsine_of(a)
        high = sub_exact(pi_high, two * w)
        low = add_exact(pi_low, sub_exact(sub_exact(pi_high, high), two * w))
        size = sub_exact(high, sub_exact(two * rest, low)) if a > half else w + rest
        return with_sign(size, x)

    @lane
    def arccos(x):
        """Return arccos x of a float x, in [0, pi]; NaN outside [-1, 1]."""
        a = math.fabs(x)
        w, rest = arcsine_of(a)
        far_side = two * (w + rest)
        far_side = far_side if x > zero else two * sub_exact(pi_high, sub_exact(add_exact(w, rest), pi_low))
        near = sub_exact(pi_high, sub_exact(x, sub_exact(pi_low, rest if x > zero else -rest)))
        return far_side if a > half else near

    @lane
    def power_of(x, y, grown):
        """Return x**y of floats, given `grown` = |x|**y: with x's sign if y is odd, NaN for finite x < 0 and y not whole, 1 for y = 0 or x = 1."""
        n, hf = whole_below(y), half * y
        integer = n == y
        odd = integer and whole_below(hf) != hf and math.fabs(y) <= largest
        out = float_of(bits_of(grown) ^ (bits_of(x) & sign_bit)) if odd else grown
        out = nan if (x < zero and not integer and x >= -largest) else out
        return one if (y == zero or x == one) else out

    @lane
    def maximum(x, y):
        """Return the larger of two floats x and y; NaN if one is NaN."""
        return x if (x > y or x != x) else y

    @lane
    def minimum(x, y):
        """Return the smaller of two floats x and y; NaN if one is NaN."""
        return x if (x < y or x != x) else y

    @lane
    def sign(x):
        """Return the sign of a float x, -1.0, 0.0 or 1.0; NaN for NaN."""
        out = one if x > zero else (-one if x < zero else zero)
        return x if x != x else out

    @lane
    def heaviside(x, h):
        """Return 0.0 for a float x < 0, 1.0 for x > 0, the float h for x = 0 or -0.0, and NaN for x = NaN."""
        out = one if x > zero else (zero if x < zero else h)
        return x if x != x else out

    @lane
    def floor(x):
        """Return the largest whole number that is not above a float x, as a float; NaN for NaN, and an infinity for itself."""
        return whole_below(x)

    @lane
    def quarter_reduced(x):
        """Return (n, r, odd, w, even): x = n pi/2 + y, sin y = r + odd, cos y = w + even, for |x| <= `FAR` = 2^30; n is a uint64, right modulo 4."""
        n, r, tail = quarters(x)
        s = r * r
        square = half * s
        w = sub_exact(one, square)
        odd = r * (s * sine_rest(s)) + (tail - square * tail)
        even = sub_exact(sub_exact(one, w), square) + (s * s * cosine_rest(s) - r * tail)
        return n, r, odd, w, even

    @lane
    def sincos(x):
        """Return (sin x, cos x) of a float x with |x| <= `FAR` = 2^30; beyond it they may be wrong (`graph.rows` calls libm there)."""
        n, r, odd, w, even = quarter_reduced(x)
        sine, cosine = r + odd, w + even
        swap = (n & u64(1)) != u64(0)
        a = cosine if swap else sine
        b = sine if swap else cosine
        return (
            x if math.fabs(x) < small else float_of(bits_of(a) ^ ((n << below_sign) & sign_bit)),
            float_of(bits_of(b) ^ (((n + u64(1)) << below_sign) & sign_bit)),
        )

    @lane
    def sin(x):
        """Return sin x of a float x with |x| <= `FAR` = 2^30; beyond it the result may be wrong (`graph.rows` calls libm there)."""
        return sincos(x)[0]

    @lane
    def cos(x):
        """Return cos x of a float x with |x| <= `FAR` = 2^30; beyond it the result may be wrong (`graph.rows` calls libm there)."""
        return sincos(x)[1]

    @lane
    def tan(x):
        """Return tan x of a float x with |x| <= `FAR` = 2^30; beyond it the result may be wrong (`graph.rows` calls libm there)."""
        n, r, odd, w, even = quarter_reduced(x)
        swap = (n & u64(1)) != u64(0)
        a, a_rest = (w if swap else r), (even if swap else odd)
        b, b_rest = (-r if swap else w), (-odd if swap else even)
        return x if math.fabs(x) < small else quotient(a, a_rest, b, b_rest)

    return made
