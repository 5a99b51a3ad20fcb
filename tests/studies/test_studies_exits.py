"""Exit times: stored paths, exact values, shifted boundaries, censored paths, bands, and refused arguments."""

import math

import numpy as np
import pytest
from scipy.special import zeta

import sdetools as st
from sdetools.estimates.interval import binomial_interval
from sdetools.studies.stopping import outside_of

EPS, DT = 0.2, 0.02
WELL = st.SDE(drift=["x - x**3"], diffusion=[repr(math.sqrt(2 * EPS))], variables="x")
EULER = st.EulerMaruyama(WELL, DT)
PLANE = st.NoisyOracle(st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y"), st.noise.gaussian(dim=2))
SGDM = st.SGDM(PLANE, st.schedules.constant(0.1, 0.5))


def naive(paths, horizon, outside):
    """Return exit times and places, from paths of SGDM that go on, `(paths,)` and `(2, paths)`; the horizon for paths that do not leave."""
    run = st.simulate(SGDM, [1.0, 1.0], horizon, paths, ["x"], times="all", trajectories=paths, backend="numpy", seed=6)
    x = run.trajectories.sel(part="x").transpose("coordinate", "path", "time").values
    out = outside(x)
    first = np.where(out.any(axis=1), out.argmax(axis=1), x.shape[2] - 1)
    return first * 0.1, x[:, np.arange(paths), first], out.any(axis=1)


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
@pytest.mark.parametrize("form", ["expression", "comparison", "condition"])
def test_exits_are_those_of_paths_that_go_on(backend, form):
    """300 paths of SGDM; the survival function at all times, min(tau, T), and the place of exit."""
    if backend == "torch":
        pytest.importorskip("torch")
    leaves = {
        "expression": "x**2 + y**2 - 4.5",
        "comparison": "4.5 < x**2 + y**2",
        "condition": lambda x: x[0] ** 2 + x[1] ** 2 > 4.5,
    }[form]
    tau, place, left = naive(300, 6.0, lambda x: x[0] ** 2 + x[1] ** 2 > 4.5)
    assert 30 < left.sum() < 270
    run = st.exit_time(SGDM, [1.0, 1.0], leaves, 6.0, 300, ["x", "x*y"], times="all", backend=backend, seed=6)
    share = [np.mean(~left | (tau > t + 1e-9)) for t in run.times]
    np.testing.assert_allclose(run.data["survival"].values, share, rtol=0, atol=1e-12)
    assert run.censored == (~left).sum()
    assert run.restricted_mean().value == pytest.approx(np.minimum(tau, 6.0).mean(), rel=1e-12)
    assert run.restricted_mean(3.0).value == pytest.approx(np.minimum(tau, 3.0).mean(), rel=1e-12)
    assert run.at_exit("x").value == pytest.approx(place[0].mean(), rel=1e-10)
    assert run.data["mean"].observable.values.tolist() == ["time inside", "x", "x*y"]
    ends = [np.minimum(tau, 6.0), place[0], place[0] * place[1]]
    np.testing.assert_allclose(run.data["mean"].values, np.mean(ends, axis=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.data["stderr"].values, np.std(ends, axis=1, ddof=1) / math.sqrt(300), rtol=1e-9)
    early = np.minimum(tau, 3.0)
    assert float(run.data["restricted_mean"].sel(time=3.0, method="nearest")) == pytest.approx(early.mean(), rel=1e-12)
    assert float(run.data["restricted_mean_stderr"].sel(time=3.0, method="nearest")) == pytest.approx(
        early.std(ddof=1) / math.sqrt(300)
    )
    assert run.at_exit(1).value == pytest.approx((place[0] * place[1]).mean(), rel=1e-10)


def test_the_mean_exit_time_of_a_chain_is_exact():
    """100,000 paths against the chain's own equation: z below 4.5 (7e-6). Control: a noise that is 5 % smaller, an exit time 16 % longer."""
    run = st.exit_time(EULER, [-1.0], "x - 1", 400.0, 100_000, seed=1)
    assert run.censored == 0 and abs(run.mean().z(st.exact.exit_time(EULER, [-1.0], high=1.0))) < 4.5
    smaller = st.SDE(drift=["x - x**3"], diffusion=[repr(0.95 * math.sqrt(2 * EPS))], variables="x")
    assert abs(run.mean().z(st.exact.exit_time(st.EulerMaruyama(smaller, DT), [-1.0], high=1.0))) > 20


def test_sgd_leaves_as_its_chain():
    oracle = st.NoisyOracle(st.losses.double_well(), st.noise.gaussian(dim=1), sigma=3.0)
    sgd = st.SGD(oracle, st.schedules.constant(0.1))
    run = st.exit_time(sgd, [-1.0], "abs(x) - 1.5", 100.0, 50_000, ["x"], seed=2)
    assert run.censored == 0 and abs(run.mean().z(st.exact.exit_time(sgd, [-1.0], -1.5, 1.5))) < 4.5
    assert run.at_exit("x").low > -1.8


def test_the_shift_is_that_of_the_noise_along_the_gradient():
    """g = x + 2 y with two Brownian motions: b^T grad g = (.3 + .2, .4 + 1) by hand, of length 1.4866."""
    sde = st.SDE(drift=["0", "0"], diffusion=[["0.3", "0.4"], ["0.1", "0.5"]], variables="x y")
    leaves = outside_of("x + 2*y > 1", st.EulerMaruyama(sde, 0.04), True)
    end = 1 + float(zeta(0.5)) / math.sqrt(2 * math.pi) * math.sqrt(0.04) * math.hypot(0.5, 1.4)
    for y in (0.0, 0.3):
        assert leaves(np.array([end - 2 * y + 1e-9, y])) and not leaves(np.array([end - 2 * y - 1e-9, y]))


def test_a_shifted_boundary_gives_the_time_of_the_equation():
    """40,000 paths of the chain with the shifted end; that its mean is the equation's up to O(dt) is an exact test (test_exact_exit_times).

    Control: the chain with its own end is 7 standard errors later.
    """
    run = st.exit_time(EULER, [-1.0], "x - 0.5", 400.0, 40_000, corrected=True, seed=3)
    moved = 0.5 - 0.5825971579390107 * math.sqrt(2 * EPS * DT)
    assert abs(run.mean().z(st.exact.exit_time(EULER, [-1.0], high=moved))) < 4.5
    assert run.mean().z(st.exact.exit_time(EULER, [-1.0], high=0.5)) < -5


def test_the_shift_is_along_the_normal():
    """In the plane a scaled g gives the same boundary; with noise along y alone, a boundary x = const is not shifted."""
    sde = st.SDE(drift=["-x", "-y"], diffusion=[["0.3", "0.1"], ["0.2", "0.8"]], variables="x y")
    euler = st.EulerMaruyama(sde, 0.25)
    runs = [
        st.exit_time(euler, [0.0, 0.0], g, 5.0, 600, corrected=True, times="all", backend="numpy")
        for g in ("x**2 + y**2 - 1", "7*(x**2 + y**2 - 1)")
    ]
    assert (runs[0].data["survival"] == runs[1].data["survival"]).all()
    plain = st.exit_time(euler, [0.0, 0.0], "x**2 + y**2 - 1", 5.0, 600, times="all", backend="numpy")
    assert plain.mean().value > runs[0].mean().value
    flat = st.EulerMaruyama(st.SDE(drift=["y", "-y"], diffusion=[["0"], ["1"]], variables="x y"), 0.25)
    pair = [st.exit_time(flat, [0.0, 0.0], "x - 0.5", 5.0, 600, corrected=c, times="all", backend="numpy") for c in (True, False)]
    assert (pair[0].data["survival"] == pair[1].data["survival"]).all()


def test_compiled_and_plain_shifts_agree():
    runs = [st.exit_time(EULER, [-1.0], "x", 20.0, 600, corrected=True, backend=b, times="all") for b in ("numpy", "numba")]
    np.testing.assert_array_equal(*(run.data["survival"].values for run in runs))


def test_censored_paths_give_a_lower_bound_and_a_remedy():
    """The bound lies below the truth; with the remedy as horizon all paths leave; without an exit the bound is near the horizon."""
    truth = st.exact.exit_time(EULER, [-1.0], high=1.0)
    run = st.exit_time(EULER, [-1.0], "x - 1", 30.0, 2000, seed=1)
    e = run.mean()
    assert run.censored > 100 and e.low < truth and math.isinf(e.high) and e.low > 10
    assert "had not left by t=30" in repr(e) and f"horizon={e.remedy:.3g}" in run.table()
    later = st.exit_time(EULER, [-1.0], "x - 1", round(e.remedy / DT) * DT, 2000, seed=1)
    assert later.censored == 0 and truth in later.mean().confidence_interval(0.9999)
    rate = (2000 - run.censored) / (2000 * run.restricted_mean().value)  # exits over the time that all paths spent inside
    assert e.remedy == pytest.approx(math.log(2000 / 0.05) / rate, rel=1e-12)
    none = st.exit_time(EULER, [-1.0], "x - 1", 0.2, 2000).mean()
    assert none.censored == 2000 and 0.199 < none.low < 0.2 and "no path left" in repr(none)


def test_the_start_counts():
    run = st.exit_time(EULER, [2.0], "x - 1", 1.0, 500, ["x"])
    assert run.censored == 0 and run.mean().value == 0.0 and run.mean().high < 0.01
    assert run.at_exit("x").value == 2.0 and run.data["survival"].values.max() == 0.0


def test_the_band_covers_the_whole_curve():
    """A geometric law: a chain that leaves with probability 1/4 a step. 2,000 replications of 50 paths; Massart's band covers at least 95 %.

    Fewer covered replications than the 1e-6 quantile of the binomial law at 95 % would be a false alarm with probability 1e-6. Control: pointwise
    intervals of the same level contain the whole curve less than 90 % of the times.
    """
    coin = st.NoisyOracle(st.losses.from_expression("0*x"), st.noise.gaussian(dim=1))
    jump = st.SGD(coin, st.schedules.constant(1.0))
    edge = 0.6744897501960817  # a normal exceeds it with probability 1/4
    kept = 1.0 - 0.25
    run = st.simulate(jump, [0.0], 12.0, 100_000, ["x"], times="all", slices="all", seed=5)
    step = np.diff(run.slices.values[..., 0, 0], axis=1)  # the draws themselves, (paths, steps)
    tau = np.where((step > edge).any(axis=1), (step > edge).argmax(axis=1) + 1, 13).reshape(2000, 50)
    truth, half = kept ** np.arange(13), math.sqrt(math.log(2 / 0.05) / 100)
    share = (tau[:, :, None] > np.arange(13)).mean(axis=1)
    assert binomial_interval(int((np.abs(share - truth).max(axis=1) <= half).sum()), 2000, 1 - 2e-6).high >= 0.95
    single = 1.96 * np.sqrt(share * (1 - share) / 50)
    assert binomial_interval(int((np.abs(share - truth) <= single).all(axis=1).sum()), 2000, 1 - 2e-6).high < 0.9
    found = st.exit_time(EULER, [-1.0], "x", 20.0, 50)
    low, high = found.band()
    s = found.data["survival"].values
    np.testing.assert_allclose(high - s, np.minimum(half, 1 - s), rtol=0, atol=1e-12)
    np.testing.assert_allclose(s - low, np.minimum(half, s), rtol=0, atol=1e-12)


def test_survival_at_one_time_is_a_binomial_estimate():
    run = st.exit_time(EULER, [-1.0], "x", 20.0, 400, times=[5.0, 20.0])
    e = run.survival(5.0)
    hits = round(400 * e.value)
    want = binomial_interval(hits, 400)
    assert (e.low, e.high) == pytest.approx((want.low, want.high)) and 0.3 < e.value < 0.99
    assert (
        e.value == pytest.approx(float(run.data["survival"][0]), rel=1e-12) and run.survival().value == run.data["survival"][-1]
    )


def test_threads_stores_and_chunks_change_no_bit(tmp_path):
    def run(**how):
        return st.exit_time(EULER, [-1.0], "x", 20.0, 2000, seed=4, **how).table()

    plain = run(threads=1)
    assert run(threads=2) == plain == run(store=tmp_path / "a.sqlite") == run(store=tmp_path / "a.sqlite", resume=True)
    other = st.exit_time(EULER, [-1.0], "x - 0.1", 20.0, 2000, seed=4, store=tmp_path / "b.sqlite").table()
    assert other != plain
    with pytest.raises(ValueError, match="store"):
        st.exit_time(EULER, [-1.0], "x - 0.2", 20.0, 2000, seed=4, store=tmp_path / "b.sqlite", resume=True)


def test_paths_that_diverge_inside_leave_no_number_and_those_outside_stand_still():
    """x' = x - 3 x^3 diverges beyond 1: inside an infinite set no number is left; out of |x| > 2 all paths leave, and stay finite."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**4/4"), st.noise.gaussian(dim=1), sigma=0.1)
    rule = st.SGD(oracle, st.schedules.constant(3.0))
    for backend in ("numpy", "numba"):
        never = st.exit_time(rule, [1.5], "-1 - x**2", 60.0, 20, backend=backend)
        assert never.diverged == 20 and math.isnan(never.mean().value) and math.isnan(never.survival().value)
        assert "left the finite range" in repr(never)
        run = st.exit_time(rule, [1.5], "abs(x) - 2", 60.0, 20, ["x"], backend=backend)
        assert run.diverged == 0 and run.censored == 0 and 2 < abs(run.at_exit("x").value) < 20


HEAVY = st.SGDM(PLANE, st.schedules.constant(0.1, 0.5))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (dict(corrected=True), "`corrected` must be False for SGDM"),
        (dict(dynamics=EULER, x0=[0.0], leaves=lambda x: x[0] > 1, corrected=True), "`leaves` must be a function g"),
        (
            dict(dynamics=st.EulerMaruyama(WELL, 0.1, "two-point"), x0=[0.0], leaves="x", corrected=True),
            "no SDE with normal draws",
        ),
        (dict(leaves="z - 1"), "only the names x, y"),
        (dict(leaves="x >="), "`leaves` must be a formula"),
        (dict(leaves=3), "`leaves` must be a comparison"),
        (dict(dynamics=EULER, x0=[0.0], leaves="x >= 1", corrected=True), "`leaves` must be a function g"),
        (dict(observe={"outside": "x"}), "must not use the names"),
        (dict(horizon=0.05), "`horizon` must be a whole number of steps"),
        (dict(paths=0), "`paths` must be"),
        (dict(confidence=1.0), "`confidence` must"),
        (dict(dynamics=PLANE), "`dynamics` must be a dynamics.*st.SGD"),
    ],
)
def test_bad_arguments_are_refused(given, text):
    with pytest.raises(ValueError, match=text):
        st.exit_time(**(dict(dynamics=HEAVY, x0=[1.0, 1.0], leaves="x - 2", horizon=1.0, paths=4, backend="numpy") | given))
