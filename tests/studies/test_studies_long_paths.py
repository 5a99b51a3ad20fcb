"""Stationary averages: sums against stored paths, coverage on three processes of known law, concerns, and refused arguments."""

import math

import numpy as np
import pytest

import sdetools as st
from sdetools.estimates.batch_means import default_batches
from sdetools.estimates.interval import binomial_interval
from sdetools.studies.long_paths import BLOCKS

ETA = 0.1
ORACLE = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5)
EPS, DT = 0.35, 0.1
WELL = st.EulerMaruyama(st.SDE(drift=["x0 - x0**3"], diffusion=[f"{math.sqrt(2 * EPS)!r}"], variables="x0"), DT)


def well_square():
    """Return E x^2 under the stationary law of WELL as a chain, from the linear system p = K p on a fine grid.

    The trapezoidal rule on a grid of spacing 0.005, a fiftieth of the noise of a step, is exact to rounding; the density is 1e-25 at the ends.
    """
    x = np.linspace(-4, 4, 1601)
    mean, deviation = x + DT * (x - x**3), math.sqrt(2 * EPS * DT)
    kernel = np.exp(-0.5 * ((x[:, None] - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi)) * (x[1] - x[0])
    system = kernel - np.eye(len(x))
    system[0] = 1.0
    p = np.linalg.solve(system, np.eye(len(x))[0])
    return float(p @ x**2)


def variance(beta):
    """Return the stationary variance of SGDM in closed form, with (1 - beta)/(1 + beta)."""
    return ETA * 0.25 / (2 - ETA * (1 - beta) / (1 + beta))


PROCESSES = {
    "SGD, an autoregression": (st.SGD(ORACLE, st.schedules.constant(ETA)), lambda: variance(0.0)),
    "SGDM": (st.SGDM(ORACLE, st.schedules.constant(ETA, 0.9)), lambda: variance(0.9)),
    "a double well": (WELL, well_square),
}


def coverages(run, observable, truth, paths):
    """Return the number of replications, and of those whose interval contains the truth: with batch means, and as if steps were independent."""
    blocks, hits, naive = run.batch_means(observable), 0, 0
    replications = run.paths // paths
    for r in range(replications):
        own = slice(r * paths, (r + 1) * paths)
        part = type(blocks)(blocks.means[own], blocks.squares[own], blocks.length, default_batches(paths, BLOCKS))
        hits += truth in part.estimate().confidence_interval()
        naive += abs(part.mean - truth) <= 1.96 * math.sqrt(part.variance / part.steps)
    return replications, hits, naive


@pytest.mark.sample(1)
@pytest.mark.parametrize("paths", [1, 4, 64])
@pytest.mark.parametrize("name", PROCESSES)
def test_intervals_cover_at_their_level(name, paths):
    """1,000 to 2,000 replications for x and x^2. The coverage must be compatible with 93 to 97 %.

    An interval of level 1 - 1e-5 for the coverage (Clopper-Pearson) must meet [0.93, 0.97]: a false alarm has probability 1e-5 for each of 18
    cases. Intervals that take steps for independent cover less than 60 %, and this is seen with the same certainty.
    """
    dynamics, square = PROCESSES[name]
    memory = 44 if dynamics is WELL else 20
    steps, replications = {1: 1000 * memory, 4: 250 * memory, 64: 100 * memory}[paths], 1000 if paths == 64 else 2000
    step = dynamics.step_time
    burn_in = 20 * memory
    run = st.stationary(
        dynamics, [0.0], (burn_in + steps) * step, replications * paths, ["x0", "x0**2"], burn_in=burn_in * step, seed=paths
    )
    for observable, truth in (("x0", 0.0), ("x0**2", square())):
        n, hits, naive = coverages(run, observable, truth, paths)
        assert n == replications
        low, high = binomial_interval(hits, n, 1 - 1e-5)
        assert high >= 0.93 and low <= 0.97, (observable, hits / n)
        assert binomial_interval(naive, n, 1 - 1e-5).high < 0.6, (observable, naive / n)


def test_block_averages_are_those_of_stored_paths():
    """Every step of 3 paths, averaged by NumPy."""
    rule, horizon = PROCESSES["SGDM"][0], 20.0
    run = st.stationary(rule, [1.0], horizon, 3, ["x0", "sin(x0)"], burn_in=2.0, backend="numpy")
    kept = st.simulate(rule, [1.0], horizon, 3, ["x0"], times="all", trajectories=3, backend="numpy").trajectories
    assert run.length == 2 and run.burn_in == pytest.approx((200 - 2 * BLOCKS) * ETA)
    x = kept.sel(part="x").isel(coordinate=0).values[:, 1 + 200 - 2 * BLOCKS :].reshape(3, BLOCKS, 2)
    for o, h in enumerate((x, np.sin(x))):
        np.testing.assert_allclose(run.means[o], h.mean(axis=2), rtol=0, atol=1e-13)
        np.testing.assert_allclose(run.squares[o], (h**2).mean(axis=2), rtol=0, atol=1e-13)
    assert (run.batches, run.paths) == (32, 3) and run.data.attrs["burn_in"] == run.burn_in
    assert run.times[-1] == pytest.approx(horizon) and run.times[0] == pytest.approx(run.burn_in + 2 * ETA)


def test_backends_threads_and_resumed_runs_agree(tmp_path):
    """Backends to rounding, all else to the bit; with a functional of two observables and several chunks."""
    rule = PROCESSES["SGDM"][0]

    def run(**how):
        return st.stationary(rule, [1.0], 20.0, 600, ["x0", "x0**2"], seed=4, **how)

    plain = run(threads=1)
    assert (run(threads=2).means == plain.means).all()
    assert (run(store=tmp_path / "a.sqlite").means == plain.means).all()
    assert (run(store=tmp_path / "a.sqlite", resume=True).means == plain.means).all()
    np.testing.assert_allclose(run(backend="numpy").means, plain.means, rtol=0, atol=1e-12)


def test_torch_agrees():
    pytest.importorskip("torch")
    rule = PROCESSES["SGDM"][0]
    runs = [st.stationary(rule, [1.0], 20.0, 8, ["x0"], seed=4, backend=b).means for b in ("numpy", "torch")]
    np.testing.assert_allclose(*runs, rtol=0, atol=1e-12)


def test_functions_that_cannot_be_traced_are_observed():
    def branching(x):
        return 1.0 if x[0] > 0 else 0.0

    run = st.stationary(PROCESSES["SGDM"][0], [0.0], 400.0, 16, {"right": branching}, backend="numpy")
    assert abs(run.at("right").z(0.5)) < 4.5


def test_paths_in_two_wells_are_reported():
    """At eps = 0.02 no path crosses the barrier of 1/4 in this time: exp(-12.5) is the rate. 16 values of +-0.97 are all that is known."""
    cold = st.EulerMaruyama(st.SDE(drift=["x0 - x0**3"], diffusion=["0.2"], variables="x0"), DT)
    run = st.stationary(cold, np.array([[-1.0, 1.0]]), 100.0, 16, ["x0"])
    e = run.at()
    assert e.r_hat > 2 and e.n == 16 and 0.4 < e.half_width < 0.6 and 0.0 in e.confidence_interval()
    assert "R-hat" in e.concerns[0] and e.concerns[0] in run.table() and e.concerns[0] in repr(run)


def test_diverged_paths_leave_no_number():
    rule = st.SGD(st.NoisyOracle(st.losses.from_expression("x**4/4"), st.noise.gaussian(dim=1)), st.schedules.constant(1.0))
    run = st.stationary(rule, [5.0], 100.0, 8, ["x"], backend="numpy")
    assert run.diverged == 8 and math.isnan(run.at().value) and math.isinf(run.at().half_width)
    assert "8 paths" in repr(run) and "diverged" in run.table()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (dict(horizon=5.0), "`horizon` must leave at least 64 steps"),
        (dict(burn_in=20.0), "`horizon` must leave at least 64 steps"),
        (dict(burn_in=-1.0), "`burn_in` must be a list of times between 0"),
        (dict(batches=3), "`batches` must be 1, 2, 4"),
        (dict(batches=128), "`batches` must be"),
        (dict(paths=0), "`paths` must be"),
        (dict(dtype="float32"), "`dtype` of a stationary average must be 'float64'"),
        (dict(observe=[]), "`observe` must name at least one"),
        (dict(dynamics=ORACLE), "`(dynamics|first|second)` must be a dynamics"),
    ],
)
def test_bad_arguments_are_refused(given, text):
    with pytest.raises(ValueError, match=text):
        st.stationary(**(dict(dynamics=PROCESSES["SGDM"][0], x0=[0.0], horizon=20.0, observe=["x0"]) | given))
