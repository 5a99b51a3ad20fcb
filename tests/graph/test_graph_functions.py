"""Elementary functions against mpmath, and NumPy's special values, on every backend and in both precisions."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from backends import BACKENDS, REAL, TYPES, any_float, call_row, computed, on_rows, right_angles, true, ulps

from sdetools.graph import lanes, rows

RNG = np.random.default_rng(0)
ANGLES = ("sin", "cos", "tan")
FAR = lanes.FAR

# -- accuracy -------------------------------------------------------------------------------------------------------------------

DOMAIN = {
    "exp": (-745.1, 709.78),
    "expm1": (-745.1, 709.78),
    "sinh": (-710.47, 710.47),
    "cosh": (-710.47, 710.47),
    "tanh": (-1e300, 1e300),
    "log": (0, np.inf),
    "log1p": (-1, np.inf),
    "arctan": (-np.inf, np.inf),
    "arcsin": (-1, 1),
    "arccos": (-1, 1),
} | dict.fromkeys(ANGLES, (-1e15, 1e15))


def arguments(name: str, n: int) -> np.ndarray:
    """Return n arguments within the domain: over all exponents, over the range where values vary, near 0, 1 and right angles."""
    low, high = DOMAIN[name]
    parts = [
        any_float(RNG, 3 * n),
        RNG.uniform(max(low, -800), min(high, 800), 3 * n),
        RNG.uniform(max(low, -1.2), min(high, 1.2), 3 * n),
    ]
    parts += [sign * 10.0 ** RNG.uniform(-17, 0, n) + at for at in (-1, 0, 1) for sign in (-1, 1)]
    if name in ANGLES:
        small = np.arange(1, min(200, n // 10))
        parts += [right_angles(np.concatenate([small, 2.0 ** RNG.uniform(0, 49, n // 20)])), RNG.uniform(-2e9, 2e9, n)]
    kept = [part[(part > low) & (part < high)][: n // 4] for part in parts]
    x = np.concatenate(kept)
    return RNG.permutation(x)[:n]


def check_accuracy(name: str, n: int) -> None:
    x = arguments(name, n)
    assert len(x) == n
    near = np.abs(x) <= FAR if name in ANGLES else np.full(n, True)
    got = {backend: computed(backend, name, x) for backend in BACKENDS}
    got["lanes"] = np.where(near, got["lanes"], got["rows"])  # inlined functions are limited to FAR
    limit = 1 if name in ("sin", "cos") else 2
    for backend, wrong in zip(got, ulps(true(name), (x,), *got.values())):
        assert np.all(wrong <= limit), f"{backend}: {wrong.max():.2f} units at x={x[np.argmax(wrong)]!r}"


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", REAL)
def test_accuracy_within_two_ulp(name):
    """Sin and cos are within one ulp, for arguments up to 10^15."""
    check_accuracy(name, 5_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_accuracy_within_two_ulp_on_many_arguments(name):
    check_accuracy(name, 100_000)


def test_an_error_of_two_and_a_half_ulp_is_detected():
    """Negative control: a relative error of 5.6e-16 is 1.3 to 2.5 ulp."""
    x = arguments("exp", 2_000)
    x = x[x > -700]
    (wrong,) = ulps(mpmath.exp, (x,), computed("lanes", "exp", x) * (1 + 5.6e-16))
    assert wrong.max() > 2


@pytest.mark.parametrize("name", REAL)
def test_float32_accuracy_within_two_ulp(name):
    """The reference is NumPy in double precision, within 2^-28 ulp by the tests above; NumPy and torch in float32 claim 4 ulp."""
    low, high = DOMAIN[name]
    with np.errstate(all="ignore"):
        x = np.concatenate([any_float(RNG, 150_000, np.float32), arguments(name, 50_000).astype(np.float32)])
        x = x[(x > low) & (x < high) & ((np.abs(x) <= FAR) | (name not in ANGLES))][-100_000:]
        truth = getattr(np, name)(x.astype(float))
        finite = np.abs(truth) < np.finfo(np.float32).max
        unit = np.spacing(np.abs(truth[finite]).astype(np.float32)).astype(float)
        for backend in BACKENDS:
            got = computed(backend, name, x)
            assert got.dtype == np.float32
            wrong = np.abs(got[finite].astype(float) - truth[finite]) / unit
            limit = 4 if backend in ("numpy", "torch") else 2
            assert np.all(wrong <= limit), f"{backend}: {wrong.max():.2f} units at x={x[finite][np.argmax(wrong)]!r}"
            np.testing.assert_array_equal(got[~finite], truth[~finite].astype(np.float32))


def powers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bases of every size and exponents whose powers cover all doubles, including subnormal ones."""
    x = np.abs(
        np.concatenate(
            [any_float(RNG, n), 10.0 ** RNG.uniform(-1, 1, n), 1 + RNG.choice([-1, 1], n) * 10.0 ** RNG.uniform(-16, -0.5, n)]
        )
    )
    x = RNG.permutation(x[(x != 1) & (x > 0)])[:n]
    with np.errstate(over="ignore"):
        return x, np.clip(RNG.uniform(-745, 709, n) / np.log(x), -1e300, 1e300)


def check_powers(n: int) -> None:
    x, y = powers(n)
    got = [computed(backend, "power", x, y) for backend in BACKENDS]
    for backend, wrong in zip(BACKENDS, ulps(mpmath.power, (x, y), *got)):
        assert np.all(wrong <= 2), f"{backend}: {wrong.max():.2f} units at {x[np.argmax(wrong)]!r} ** {y[np.argmax(wrong)]!r}"


def test_powers_within_two_ulp():
    check_powers(3_000)
    x, y = powers(3_000)
    (wrong,) = ulps(mpmath.power, (x, y), np.exp(y * np.log(x)))
    assert wrong.max() > 50  # negative control: an error of 745 ulp from the logarithm


@pytest.mark.slow
def test_powers_within_two_ulp_on_many_arguments():
    check_powers(100_000)


def test_float32_powers_within_two_ulp():
    x, y = (a.astype(np.float32) for a in (10.0 ** RNG.uniform(-37, 38, 100_000), RNG.uniform(-40, 40, 100_000)))
    y = np.where(np.arange(len(x)) % 2, y, RNG.uniform(-103, 88.7, len(x)) / np.log(x.astype(float))).astype(np.float32)
    with np.errstate(all="ignore"):
        truth = x.astype(float) ** y.astype(float)
        finite = truth < np.finfo(np.float32).max
        unit = np.spacing(truth[finite].astype(np.float32)).astype(float)
        for backend in BACKENDS:
            got = computed(backend, "power", x, y)
            limit = 4 if backend in ("numpy", "torch") else 2
            assert np.all(np.abs(got[finite] - truth[finite]) <= limit * unit), backend
            assert np.all(np.isinf(got[~finite]))


# -- rows -----------------------------------------------------------------------------------------------------------------------


def two_sources(name: str, dtype: str, n: int) -> tuple[np.ndarray, ...]:
    x = RNG.uniform(-0.99, 0.99, n)
    x = np.abs(x) if name in ("log", "power") else x
    return (x.astype(dtype),) if name != "power" else (x.astype(dtype), RNG.uniform(-3, 3, n).astype(dtype))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", [n for n in rows.NAMES if n != "sincos"])
def test_rows_of_any_length(name, dtype):
    """A lane has the same bits at any position and row length, in place or not; nothing is written beyond the end."""
    given = two_sources(name, dtype, 100)
    whole = on_rows(name, *given)
    alone = np.concatenate([on_rows(name, *(a[j : j + 1].copy() for a in given)) for j in range(100)])
    np.testing.assert_array_equal(alone, whole)
    for n in (0, 1, 31, 32, 33, 64, 99):
        out = np.full(n + 40, 7, dtype)
        on_rows(name, *(a[:n].copy() for a in given), out=out)
        np.testing.assert_array_equal(out[:n], whole[:n])
        assert np.all(out[n:] == 7)
        own = tuple(a.copy() for a in given)
        on_rows(name, own[0][:n], *own[1:], out=own[0])
        np.testing.assert_array_equal(own[0], np.concatenate([whole[:n], given[0][n:]]))


@pytest.mark.parametrize("dtype", TYPES)
def test_a_power_may_overwrite_its_exponent(dtype):
    x, y = two_sources("power", dtype, 77)
    expected = on_rows("power", x, y)
    np.testing.assert_array_equal(on_rows("power", x, y, out=y), expected)


@pytest.mark.parametrize("dtype", TYPES)
def test_sincos_equals_sin_and_cos(dtype):
    """Bit by bit; a lane beyond `FAR` does not change its neighbours, and a cosine may overwrite its angle."""
    x = np.concatenate([arguments("sin", 200), RNG.uniform(-9, 9, 150), [2.0**30, 2.0**31, 1e25, np.inf, np.nan]]).astype(dtype)
    sine, cosine = on_rows("sin", x), on_rows("cos", x)
    own, s = x.copy(), np.empty_like(x)
    call_row(rows.address("sincos", dtype), own.ctypes.data, s.ctypes.data, len(x), own.ctypes.data)
    np.testing.assert_array_equal(s, sine)
    np.testing.assert_array_equal(own, cosine)
    far = np.abs(x) > FAR
    assert 2 < far.sum() < len(x)
    np.testing.assert_array_equal(on_rows("sin", np.where(far, 1, x).astype(dtype))[~far], sine[~far])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ANGLES)
def test_large_angles_within_two_ulp(name, dtype):
    """Beyond `FAR`, up to the end of the range, by libm."""
    x = np.concatenate([any_float(RNG, 6000, np.dtype(dtype).type).astype(float), [2.0**30, 2.0**30 + 128]])
    x = x[(np.abs(x) > 2.0**29) & (np.abs(x) < np.finfo(dtype).max)].astype(dtype)
    got = on_rows(name, x).astype(float)
    with mpmath.workprec(100):
        truth = np.array([float(true(name)(mpmath.mpf(v))) for v in x.tolist()])
    assert np.all(np.abs(got - truth) <= 2 * np.spacing(np.abs(truth).astype(dtype)))


def test_the_float_nearest_to_a_multiple_of_a_right_angle():
    """6381956970095103 * 2^797 (Muller, Elementary Functions, 2016), to 14 digits: libm itself has an error of 14 ulp there."""
    x = np.array([6381956970095103.0 * 2.0**797])
    with mpmath.workdps(400):
        expected = {name: float(true(name)(mpmath.mpf(x[0]))) for name in ANGLES}
    assert abs(expected["cos"]) < 1e-18
    for name in ANGLES:
        np.testing.assert_allclose(on_rows(name, x), expected[name], rtol=1e-14)


def test_unknown_row_functions_are_refused():
    for name, dtype in (("gamma", "float64"), ("exp", "float16")):
        with pytest.raises(ValueError, match=f"got '{name}' of '{dtype}'"):
            rows.address(name, dtype)
