"""Closed expectations of a normal variable, against 40-digit references and independent quadrature."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from sdetools import exact

POWERS = [0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 4.7]
VARIANCES = [1e-300, 1e-12, 1e-2, 1.0, 50.0]
SHIFTS = [0.0, 1e-8, 0.1, 0.99, 1.0, 1.01, 7.0, 30.0]


def reference(d: float, variance: float, p: float) -> float:
    """E|N(d, v)|^p by another form of the confluent hypergeometric function, in 40 digits."""
    with mpmath.workdps(40):
        d, v, p = mpmath.mpf(d), mpmath.mpf(variance), mpmath.mpf(p)
        return (
            (2 * v) ** (p / 2) * mpmath.gamma((1 + p) / 2) / mpmath.sqrt(mpmath.pi) * mpmath.hyp1f1(-p / 2, 0.5, -d * d / (2 * v))
        )


@pytest.mark.sample(5)
@pytest.mark.parametrize("p", POWERS)
def test_absolute_moment_has_full_accuracy(p):
    for variance in VARIANCES:
        for d in SHIFTS:
            want = float(reference(d, variance, p))
            rounded = (d + 1.0) - 1.0  # the shift after rounding
            assert exact.absolute_moment(d + 1.0, variance, a=1.0, p=p) == pytest.approx(
                float(reference(rounded, variance, p)), rel=2e-14
            )
            assert exact.absolute_moment(-d, variance, p=p) == pytest.approx(want, rel=2e-14)


def test_absolute_moment_is_smooth_where_the_two_formulas_meet():
    variance = 0.02
    edge = np.sqrt(100 * variance)
    for p in POWERS:
        left, right = (
            exact.absolute_moment(edge * (1 - 1e-14), variance, p=p),
            exact.absolute_moment(edge * (1 + 1e-14), variance, p=p),
        )
        assert left == pytest.approx(right, rel=1e-13)


def test_point_masses_and_shapes():
    assert exact.absolute_moment(3.0, 0.0, a=1.0, p=0.5) == 2**0.5
    assert exact.absolute_moment(1.0, 0.0, a=1.0, p=0.5) == 0.0
    assert exact.absolute_moment(1.0, 2.0, p=0.0) == pytest.approx(1.0, rel=1e-15)
    out = exact.absolute_moment(np.zeros((3, 1)), np.array([0.0, 1.0]), p=1.0)
    np.testing.assert_allclose(out, np.tile([0.0, np.sqrt(2 / np.pi)], (3, 1)))
    np.testing.assert_array_equal(exact.probability_below([0.0, 1.0, 2.0], 0.0, 1.0), [1.0, 1.0, 0.0])


def test_probability_below():
    for mean, variance, a in [(0.3, 2.0, -1.0), (0.0, 1.0, -30.0), (5.0, 1e-6, 5.0), (1.0, 1e-300, 2.0)]:
        want = float(mpmath.ncdf((mpmath.mpf(a) - mean) / mpmath.sqrt(variance)))
        assert exact.probability_below(mean, variance, a) == pytest.approx(want, rel=1e-13)


def test_raw_moment_against_quadrature():
    z, w = np.polynomial.hermite_e.hermegauss(20)
    w = w / w.sum()
    for n in range(12):
        assert exact.raw_moment(0.7, 1.9, n) == pytest.approx(float(w @ (0.7 + np.sqrt(1.9) * z) ** n), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.absolute_moment(0.0, -1.0), "`variance` must not be negative"),
        (lambda: exact.absolute_moment(0.0, 1.0, p=-0.5), "`p` must not be negative"),
        (lambda: exact.absolute_moment(float("nan"), 1.0), "`mean`"),
        (lambda: exact.probability_below(0.0, -1e-9, 0.0), "`variance`"),
        (lambda: exact.raw_moment(0.0, 1.0, -1), "`n`"),
    ],
)
def test_invalid_arguments_raise_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
