"""The kernels' elementary functions against mpmath with 40 digits, their special values, and the sums over lanes."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from numba import njit

from sdetools.simulation import lanes
from sdetools.simulation.source import LANES

NAMES = ("exp", "log", "sin", "cos", "tan", "tanh", "log1p", "expm1", "sinh", "cosh")


@njit(**lanes.FAST)
def table(x, out):
    """A row for each function of NAMES."""
    for j in range(len(x)):
        out[0, j] = lanes.vexp(x[j])
        out[1, j] = lanes.vlog(x[j])
        out[2, j] = lanes.vsin(x[j])
        out[3, j] = lanes.vcos(x[j])
        out[4, j] = lanes.vtan(x[j])
        out[5, j] = lanes.vtanh(x[j])
        out[6, j] = lanes.vlog1p(x[j])
        out[7, j] = lanes.vexpm1(x[j])
        out[8, j] = lanes.vsinh(x[j])
        out[9, j] = lanes.vcosh(x[j])


def values(name: str, x: np.ndarray) -> np.ndarray:
    out = np.empty((len(NAMES), len(x)))
    table(np.asarray(x, dtype=float), out)
    return out[NAMES.index(name)]


def both_signs(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, -x])


RNG = np.random.default_rng(0)
SMALL = 10.0 ** RNG.uniform(-300, 0, 1500)
MODERATE = RNG.uniform(0, 40, 1500)
NEAR_MULTIPLES = np.concatenate([k * np.pi / 2 + 10.0 ** RNG.uniform(-16, -1, 20) for k in (1, 2, 3, 100, 99_999, 600_000)])
RANGES = {
    "exp": both_signs(np.concatenate([SMALL, MODERATE, RNG.uniform(0, 708, 1500)])),
    "log": np.concatenate(
        [SMALL, MODERATE[1:], 10.0 ** RNG.uniform(0, 300, 1500), 1 + both_signs(10.0 ** RNG.uniform(-16, -0.5, 1500))]
    ),
    "sin": both_signs(np.concatenate([SMALL, MODERATE, RNG.uniform(0, 1e6, 1500), NEAR_MULTIPLES])),
    "tanh": both_signs(np.concatenate([SMALL, MODERATE, RNG.uniform(0.5, 0.75, 1500)])),
    "log1p": np.concatenate(
        [both_signs(SMALL * 0.999), 10.0 ** RNG.uniform(0, 300, 1500), -1 + 10.0 ** RNG.uniform(-15, 0, 1500)]
    ),
    "expm1": both_signs(np.concatenate([SMALL, MODERATE, RNG.uniform(0.4, 1.2, 1500), RNG.uniform(40, 700, 500)])),
    "sinh": both_signs(np.concatenate([SMALL, MODERATE, RNG.uniform(0.4, 1.2, 1500), RNG.uniform(40, 700, 500)])),
}
RANGES |= {"cos": RANGES["sin"], "tan": RANGES["sin"], "cosh": RANGES["sinh"]}


def ulps(name: str, x: np.ndarray, computed: np.ndarray) -> np.ndarray:
    """Distance from the true value in units of the last place of that value."""
    with mpmath.workdps(40):
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


SPECIAL = np.array([0.0, np.inf, -np.inf, np.nan, 1000.0, -1000.0, -1.0, -2.0, -0.0])


@pytest.mark.parametrize("name", NAMES)
def test_special_values(name):
    """What NumPy says at zeros, infinities, NaN, far outside and out of the domain: a lost path must be seen to be lost."""
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(SPECIAL)
    np.testing.assert_allclose(values(name, SPECIAL), expected, rtol=1e-14)


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
