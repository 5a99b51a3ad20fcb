"""The kernels' elementary functions against mpmath with 40 digits, their special values, and the sums over lanes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import mpmath
import numpy as np
import pytest
from numba import cfunc, njit

from sdetools.simulation import lanes, library
from sdetools.simulation.source import LANES

ANGLES = ("sin", "cos", "tan")
NAMES = ("exp", "log", "tanh", "log1p", "expm1", "sinh", "cosh", *ANGLES)


@njit(**lanes.FAST)
def table(x, out):
    """A row for each function of NAMES but the angles."""
    for j in range(len(x)):
        out[0, j] = lanes.vexp(x[j])
        out[1, j] = lanes.vlog(x[j])
        out[2, j] = lanes.vtanh(x[j])
        out[3, j] = lanes.vlog1p(x[j])
        out[4, j] = lanes.vexpm1(x[j])
        out[5, j] = lanes.vsinh(x[j])
        out[6, j] = lanes.vcosh(x[j])


@njit
def rows(address, x, sine, cosine, tangent):
    """Angles of whole rows, as kernels take them; an empty array is not asked for."""
    for at in range(0, len(x), LANES):
        s, c, t = [(a.ctypes.data + 8 * at if len(a) else 0) for a in (sine, cosine, tangent)]
        lanes.call(address, x.ctypes.data + 8 * at, s, c, t, 0, 0)


def angles(x: np.ndarray, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    row = np.concatenate([x, np.ones(-len(x) % LANES)])
    out = {name: np.empty(len(row) if name in wanted else 0) for name in ANGLES}
    rows(library.ADDRESSES[library.ANGLES], row, *out.values())
    return {name: out[name][: len(x)] for name in wanted}


def values(name: str, x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=float)
    if name in ANGLES:
        return angles(x, (name,))[name]
    out = np.empty((len(NAMES), len(x)))
    table(x, out)
    return out[NAMES.index(name)]


def both_signs(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, -x])


RNG = np.random.default_rng(0)
SMALL = 10.0 ** RNG.uniform(-300, 0, 1500)
MODERATE = RNG.uniform(0, 40, 1500)
WIDE = 10.0 ** RNG.uniform(-300, 300, 1500)
SUBNORMAL = 5e-324 * np.round(2.0 ** RNG.uniform(0, 52, 50))


def nearest_multiples(counts: np.ndarray) -> np.ndarray:
    """The floats nearest to k pi/2: what is left of them is all cancellation."""
    with mpmath.workdps(400):
        return np.array([float(mpmath.mpf(int(k)) * mpmath.pi / 2) for k in counts])


def whole_multiples() -> np.ndarray:
    """To 2^30 and beyond, one by one at first."""
    counts = [*range(1, 200), *(int(2.0**e) + d for e in RNG.uniform(7, 900, 400) for d in (0, 1))]
    return np.concatenate([nearest_multiples(counts), [2.0**30, np.nextafter(2.0**30, np.inf)]])


NEAR_MULTIPLES = np.concatenate([k * np.pi / 2 + 10.0 ** RNG.uniform(-16, -1, 20) for k in (1, 2, 3, 100, 99_999, 600_000)])
RANGES = {
    "exp": both_signs(np.concatenate([SMALL, MODERATE, RNG.uniform(0, 708, 1500)])),
    "log": np.concatenate(
        [SUBNORMAL, SMALL, MODERATE[1:], 10.0 ** RNG.uniform(0, 300, 1500), 1 + both_signs(10.0 ** RNG.uniform(-16, -0.5, 1500))]
    ),
    "sin": both_signs(np.concatenate([SUBNORMAL, WIDE, MODERATE, RNG.uniform(0, 2e9, 1500), NEAR_MULTIPLES, whole_multiples()])),
    "tanh": both_signs(np.concatenate([SMALL, MODERATE, RNG.uniform(0.5, 0.75, 1500)])),
    "log1p": np.concatenate(
        [both_signs(SMALL * 0.999), 10.0 ** RNG.uniform(0, 300, 1500), -1 + 10.0 ** RNG.uniform(-15, 0, 1500)]
    ),
    "expm1": both_signs(np.concatenate([SMALL, MODERATE, RNG.uniform(0.4, 1.2, 1500), RNG.uniform(40, 700, 500)])),
    "sinh": both_signs(np.concatenate([SMALL, MODERATE, RNG.uniform(0.4, 1.2, 1500), RNG.uniform(40, 700, 500)])),
}
RANGES |= {"cos": RANGES["sin"], "tan": RANGES["sin"], "cosh": RANGES["sinh"]}


def ulps(name: str, x: np.ndarray, computed: np.ndarray) -> np.ndarray:
    """Distance from the true value in units of the last place of that value; an angle of 10^300 needs 300 digits of pi, and 40 more."""
    with mpmath.workdps(400 if name in ANGLES else 40):
        truth = [getattr(mpmath, name)(mpmath.mpf(float(v))) for v in x]
        rounded = np.array([float(t) for t in truth])
        rest = np.array([float(mpmath.mpf(float(c)) - t) for c, t in zip(computed, truth, strict=True)])
    unit = np.maximum(np.spacing(np.abs(rounded)), np.finfo(float).tiny * np.finfo(float).eps)
    return np.abs(rest) / unit


@pytest.mark.parametrize("name", NAMES)
def test_within_four_units_of_the_last_place(name):
    x = RANGES[name]
    wrong = ulps(name, x, values(name, x))
    assert np.all(wrong <= 4), f"{wrong.max():.2f} ulp at x={x[np.argmax(wrong)]!r}"


def test_a_relative_error_of_1e_15_would_be_seen():
    """Negative control: 1e-15 is between 4.5 and 9 units."""
    x = RANGES["exp"]
    assert ulps("exp", x, values("exp", x) * (1 + 1.2e-15)).max() > 4


def test_the_float_nearest_to_a_multiple_of_a_right_angle():
    """6381956970095103 * 2^797 (Muller, Elementary Functions, 2016): to 14 digits, for there libm itself errs by 8 units."""
    x = np.array([6381956970095103.0 * 2.0**797])
    with mpmath.workdps(400):
        expected = {name: float(getattr(mpmath, name)(mpmath.mpf(x[0]))) for name in ANGLES}
    assert abs(expected["cos"]) < 1e-18
    for name in ANGLES:
        np.testing.assert_allclose(values(name, x), expected[name], rtol=1e-14)


def test_a_reduction_by_products_fails():
    """Negative control of the angles, and what they were before: where no fma is made, n times a part of pi/2 is rounded."""
    x = nearest_multiples(2.0 ** RNG.uniform(20, 29, 50))
    n = np.rint(x * (2 / np.pi))
    r = ((x - n * 1.5707963267341256) - n * 6.077100506303966e-11) - n * 2.0222662487959506e-21
    reduced = np.where(n % 2, np.cos(r), np.sin(r)) * np.where(n % 4 >= 2, -1, 1)
    assert ulps("sin", x[n % 2 == 0], reduced[n % 2 == 0]).max() > 1000
    assert ulps("sin", x, values("sin", x)).max() <= 4


def test_angles_asked_for_together_are_those_asked_for_alone():
    """Bit by bit, and a far lane changes none of its neighbours."""
    x = RANGES["sin"]
    alone = {name: values(name, x) for name in ANGLES}
    for wanted in (("sin", "cos"), ("cos", "tan"), ANGLES):
        for name, got in angles(x, wanted).items():
            np.testing.assert_array_equal(got, alone[name])
    near = np.where(np.abs(x) > lanes.FAR, 1.0, x)
    for name in ANGLES:
        np.testing.assert_array_equal(
            np.where(np.abs(x) > lanes.FAR, 0, alone[name]), np.where(np.abs(x) > lanes.FAR, 0, values(name, near))
        )


SPECIAL = np.array(
    [0.0, np.inf, -np.inf, np.nan, 1000.0, -1000.0, -1.0, -2.0, -0.0, 5e-324, -5e-324, 1e-310, 1e300, -1e300, 1e15, 709.7]
)


@pytest.mark.parametrize("name", NAMES)
def test_special_values(name):
    """What NumPy says at zeros, infinities, NaN, far outside and out of the domain: a lost path must be seen to be lost."""
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(SPECIAL)
    np.testing.assert_allclose(values(name, SPECIAL), expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["sin", "tan"])
def test_zero_keeps_its_sign(name):
    assert np.signbit(values(name, np.array([0.0, -0.0]))).tolist() == [False, True]


def assembly(function) -> str:
    return cfunc(library._SIGNATURE, fastmath=lanes.FLAGS, error_model="numpy")(function._pyfunc)._library.get_asm_str()


def test_angles_are_vector_code():
    """Products and sums of whole vectors on x86 (`...pd`) or ARM (`.2d`), as many as a polynomial has, or this processor is unknown here."""
    packed = {
        "x86_64": r"\bv?f?m(?:ul|add)\w*pd\b",
        "AMD64": r"\bv?f?m(?:ul|add)\w*pd\b",
        "aarch64": r"\bfml?[aul]+\w*\s.*\.2d",
        "arm64": r"\bfml?[aul]+\w*\s.*\.2d",
    }
    pattern = packed.get(os.uname().machine)
    if pattern is None:
        pytest.skip("no pattern for the assembly of this processor")
    assert len(re.findall(pattern, assembly(library._angles))) >= 20
    assert len(re.findall(pattern, assembly(library._words))) < 20  # negative control: integers only


def test_angles_are_right_where_the_processor_has_no_fma():
    """The same function compiled for the plainest processor of this kind: `fma` is then a call, slow and exact."""
    if os.uname().machine != "x86_64":
        pytest.skip("every ARM processor of 64 bits has fma")
    code = (
        "import numpy as np; from numba import njit; from sdetools.simulation import lanes\n"
        "@njit(**lanes.FAST)\ndef f(x, y):\n    for j in range(len(x)):\n        y[0, j], y[1, j] = lanes.sincos(x[j])\n"
        f"x = np.array({nearest_multiples(2.0 ** RNG.uniform(0, 29, 40)).tolist()})\n"
        "y = np.empty((2, len(x))); f(x, y); asm = ''.join(f.inspect_asm().values())\n"
        "assert 'vfmadd' not in asm and 'fma' in asm; print(x.tolist(), y.tolist())"
    )
    plain = dict(os.environ, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+sse2")
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    x, (sine, cosine) = eval(done.stdout.replace("] [", "], ["))
    assert max(ulps("sin", x, sine).max(), ulps("cos", x, cosine).max()) <= 4


# -- powers ---------------------------------------------------------------------------------------------------------------------


@njit(**lanes.FAST)
def powers(x, y, out):
    for j in range(len(x)):
        out[j] = lanes.vpow(x[j], y[j])


def power(x, y) -> np.ndarray:
    x, y = (np.array(a, dtype=float) for a in np.broadcast_arrays(x, y))
    out = np.empty(x.shape)
    powers(x, y, out)
    return out


def test_powers_over_the_whole_range():
    """Every power that a double can hold, from bases of every size, where |y log x| <= 708 and one unit of it is 708 units.

    The logarithm is exact but for its rest, at most .0098 of it, which six roundings make: 708 * .0098 * 6 * 2^-54 = 2.4e-15. The exponential
    adds its four units and three roundings: 1.2e-15.
    """
    x = np.concatenate([WIDE, 10.0 ** RNG.uniform(-1, 1, 1500), 1 + both_signs(10.0 ** RNG.uniform(-16, -0.5, 750)), SUBNORMAL])
    x = x[x != 1]
    y = RNG.uniform(-708, 708, len(x)) / np.abs(np.log(x))
    with mpmath.workdps(60):
        truth = [mpmath.mpf(float(a)) ** mpmath.mpf(float(b)) for a, b in zip(x, y)]
        wrong = [abs(mpmath.mpf(float(c)) / t - 1) for c, t in zip(power(x, y), truth)]
    assert max(wrong) <= 3.6e-15
    naive = np.exp(y * np.log(x))
    with mpmath.workdps(60):
        assert max(abs(mpmath.mpf(float(c)) / t - 1) for c, t in zip(naive, truth)) > 1e-14  # negative control


def test_powers_at_the_ends_are_numpys():
    """But for a real power of -inf, which is NaN as every real power of a negative number is (C, and so NumPy, has inf)."""
    ends = np.array(
        [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, 1e300, -1e300, 1e-300, 5e-324, np.inf, -np.inf, np.nan]
    )
    x, y = (a.ravel() for a in np.meshgrid(ends, ends))
    with np.errstate(all="ignore"):
        expected = np.where((x == -np.inf) & np.isfinite(y) & (np.floor(y) != y), np.nan, np.power(x, y))
    for a, b, got, want in zip(x, y, power(x, y), expected):
        assert (np.isnan(got) and np.isnan(want)) or got == want or abs(got / want - 1) < 1e-15, (a, b, got, want)


def test_hyperbolic_functions_reach_as_far_as_a_double():
    """e^x overflows at 709.78, cosh x and sinh x only at 710.47."""
    x = np.array([709.5, 709.79, 710.2, 710.47])
    np.testing.assert_allclose(values("cosh", x), np.cosh(x), rtol=1e-12)
    np.testing.assert_allclose(values("sinh", -x), np.sinh(-x), rtol=1e-12)


def test_exp_underflows_gradually():
    x = np.array([-708.5, -720.0, -744.0, -746.0])
    np.testing.assert_allclose(values("exp", x), np.exp(x), rtol=0, atol=5e-324)


# -- sums -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("valid", [1, 2, 255, LANES])
def test_reductions_leave_out_lanes_beyond_the_last_path(valid):
    """Two blocks joined, the second cut off: moments of all their paths, and nothing of the lanes beyond."""
    blocks = RNG.standard_normal((2, 3, LANES)) + 1e3
    blocks[1, :, valid:] = np.nan
    out, single = np.zeros(9), np.zeros(2)
    for before, n, rows in zip((0, LANES), (LANES, valid), blocks):
        lanes.reduce_pair(rows.copy().ravel(), 0, n, before, out)
        lanes.reduce_single(rows[0].copy(), 0, n, before, single)
    x, z, c = np.hstack([blocks[0], blocks[1, :, :valid]])
    d = x - z
    own = {name: v - v.mean() for name, v in dict(x=x, z=z, d=d, c=c).items()}
    squares = [(own["x"] ** 2).sum(), (own["z"] ** 2).sum(), (own["d"] ** 2).sum()]
    expected = [x.mean(), z.mean(), d.mean(), *squares, c.mean(), (own["c"] ** 2).sum(), (own["d"] * own["c"]).sum()]
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(single, [x.mean(), (own["x"] ** 2).sum()], rtol=1e-10)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("sigma", [1e-5, 1e-9, 1e-12])
def test_a_spread_far_below_the_value_keeps_its_digits(backend, sigma):
    """Raw sums of squares would lose the variance at sigma = 1e-9, and call the mean exact."""
    import sdetools as st

    noisy = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=sigma)
    sgd = st.SGD(noisy, st.schedules.constant(eta=0.5))
    run = st.simulate(sgd, [1.0], 0.5, 100_000, ["x", "1 + 0*x"], times=[0.5], backend=backend)
    got = run.at("x")
    assert abs(got.stderr / (0.5 * sigma / np.sqrt(100_000)) - 1) < max(
        0.01, 1e-15 / sigma
    )  # 1 %: 4.5 standard errors of a variance
    assert abs(got.z(0.5)) < 4.5 + 1e-15 / got.stderr
    assert run.at("1 + 0*x").stderr == 0.0 and run.at("1 + 0*x").value == 1.0


def test_count_lost_sees_infinities_and_nan_in_any_row():
    state = np.zeros((3, LANES))
    state[0, 3], state[2, 3], state[1, 9], state[2, 200], state[0, 255] = np.nan, np.inf, -np.inf, np.nan, 1e308
    assert lanes.count_lost(state.ravel(), 0, 3, LANES) == 3
    assert lanes.count_lost(state.ravel(), 0, 3, 200) == 2
    assert lanes.count_lost(state.ravel(), 1, 2, LANES) == 1
