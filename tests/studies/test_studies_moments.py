"""Simulated moments against the exact recursions at finite eta, for every noise, both forms of momentum and moving schedules.

Every |z| < 4.5: false-alarm rate 7e-6 each, about 1,500 of them: 1 % for the file, once, as seeds are fixed. With 200,000 paths a
noise variance that is wrong by a tenth stands out by more than 20 standard errors, and the last test says so for every law.
"""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st

ETA, STEPS, PATHS = 0.125, 12, 200_000
TIMES = [ETA * k for k in (1, 2, 5, 12)]
RECORD = [1, 2, 5, 12]
RNG = np.random.default_rng(3)
MATRIX, ROOT, CENTRE = [[1.3, 0.4], [0.4, 0.7]], [[1.0, 0.3], [-0.4, 0.8]], np.array([0.1, -0.1])
FIXED = st.schedules.constant(ETA, 0.8)
MOVING = st.schedules.from_arrays(ETA * RNG.uniform(0.3, 1.6, 7), RNG.uniform(0.2, 0.95, 7), base=ETA)
ALTERNATING = st.schedules.from_arrays(ETA * (1 + 0.5 * (-1.0) ** np.arange(12)), 0.9, base=ETA)
PLANS = {"fixed": FIXED, "moving": MOVING, "alternating": ALTERNATING}
MOMENTS = ["x0", "x1", "x0**2", "x0*x1"]
LOSS = st.losses.quadratic(MATRIX, center=CENTRE)
FEATURES, TARGETS = RNG.standard_normal((11, 3)), RNG.standard_normal(11)
TARGETS -= FEATURES @ np.linalg.lstsq(FEATURES, TARGETS, rcond=None)[0]  # now the minimiser is 0, and the noise at 0 is not
REGRESSION = st.losses.least_squares(FEATURES, TARGETS, l2=0.1)

LAWS = {
    "gaussian": lambda: st.noise.gaussian(root=ROOT),
    "rademacher": lambda: st.noise.rademacher(root=ROOT),
    "uniform": lambda: st.noise.uniform(root=ROOT),
    "three point": lambda: st.noise.three_point(root=ROOT),
    "centred exponential": lambda: st.noise.centred_exponential(root=ROOT),
    "two point": lambda: st.noise.two_point(probability=0.3, root=ROOT),
    "student, 12 degrees": lambda: st.noise.student_t(degrees=12.0, root=ROOT),
    "degenerate": lambda: st.noise.gaussian(covariance=[[1.0, 2.0], [2.0, 4.0]]),
    "multiplicative": lambda: st.noise.rademacher(root=[["0.5*x0", "1.0"], ["0.3", "x1 - x0"]], variables="x0 x1"),
}
ON_DATA = {
    "minibatch": lambda: st.noise.minibatch(REGRESSION, size=2),
    "minibatch without replacement": lambda: st.noise.minibatch(REGRESSION, size=2, replace=False),
    "labels": lambda: st.noise.label_noise(REGRESSION, std=0.5, size=3),
    "batch and labels": lambda: st.noise.label_noise(REGRESSION, std=0.5, kind="gaussian", size=3, batch=True),
    "gaussian of a minibatch": lambda: st.noise.minibatch(REGRESSION, size=2).as_gaussian(),
}

ON_NUMPY = ("two point", "three point", "student, 12 degrees", "degenerate", "multiplicative")
"""Their kernels are compared with the reference path by path elsewhere; here the reference itself, on fewer paths, saves compiling."""


def oracle_of(law, sigma=1.5):
    """Return the oracle of a noise law."""
    noise = (LAWS | ON_DATA)[law]()
    return st.NoisyOracle(REGRESSION if law in ON_DATA else LOSS, noise, sigma=sigma)


def names_of(oracle):
    """Return the names of first and second moments."""
    return MOMENTS if oracle.dim == 2 else ["x0", "x2", "x1**2", "x0*x2"]


def pair_of(oracle, plan, form="ema", momentum=True):
    """Return a momentum method and SGD."""
    if form == "ema":
        start = np.linspace(0.3, -0.2, oracle.dim) if momentum else None
        return st.SGDM(oracle, plan, momentum=start), st.SGD(oracle, plan.averaged())
    heavy = st.HeavyBall(oracle, gamma=plan.etas(STEPS) * (1 - plan.betas(STEPS)), beta=plan.betas(STEPS), step_time=ETA)
    return heavy, st.SGD(oracle, heavy.averaged())


def scores(pair, x0, seed, paths=PATHS, coupled=True, truth=None, backend="auto"):
    """Return z of both members' moments, `(2, times, moments)`; `truth` is another pair whose exact moments are compared."""
    names = names_of(pair[0].oracle)
    gap = st.weak_gap(
        *pair, x0, STEPS * ETA, paths, names, times=TIMES, control=False, coupled=coupled, seed=seed, backend=backend
    )
    out = []
    for which, exact_of in zip("xz", truth or pair, strict=True):
        mean, variance = gap.statistics.member(which)
        m = st.exact.moments(exact_of, x0, STEPS, record=RECORD)
        exact = np.column_stack([st.exact.expectation(m, h) for h in names])
        spread = np.sqrt(variance / paths)
        assert (np.abs(mean - exact)[spread == 0] < 1e-12).all()  # first step without noise
        out.append(np.divide(mean - exact, spread, out=np.zeros_like(mean), where=spread > 0))
    return np.array(out)


def start_of(oracle):
    """Return the start of the paths."""
    return np.array([1.5, -0.5]) if oracle.dim == 2 else np.array([1.0, -1.0, 0.5])


@pytest.mark.sample(9)
@pytest.mark.parametrize("schedule", PLANS)
@pytest.mark.parametrize("law", [*LAWS, *ON_DATA])
def test_means_and_second_moments(law, schedule):
    """SGDM with a given momentum and SGD on the averaged schedule, coupled, each against its exact moments."""
    oracle = oracle_of(law)
    how = dict(paths=PATHS // 4, backend="numpy") if law in ON_NUMPY else {}
    z = scores(pair_of(oracle, PLANS[schedule]), start_of(oracle), seed=len(law) + len(schedule), **how)
    assert np.abs(z).max() < 4.5
    assert np.count_nonzero(z) > z.size // 2


@pytest.mark.parametrize("schedule", ["fixed", "moving"])
def test_heavy_ball(schedule):
    """The heavy-ball form of momentum."""
    oracle = oracle_of("gaussian")
    assert np.abs(scores(pair_of(oracle, PLANS[schedule], "heavy"), start_of(oracle), seed=7)).max() < 4.5


def test_independent_members():
    """Without coupling."""
    oracle = oracle_of("gaussian")
    assert np.abs(scores(pair_of(oracle, MOVING), start_of(oracle), seed=8, coupled=False)).max() < 4.5


def test_svag_keeps_the_first_two_moments():
    """Covariance times l, at eta / l for l times the steps: another sigma and other draws."""
    oracle = st.svag(oracle_of("centred exponential"), 3)
    pair = pair_of(oracle, MOVING)
    assert np.abs(scores(pair, start_of(oracle), seed=9, paths=PATHS // 4, backend="numpy")).max() < 4.5


def test_drawn_momentum():
    """A random initial momentum."""
    oracle, plan = oracle_of("gaussian"), FIXED
    drawn = st.SGDM(oracle, plan, momentum=([0.3, -0.2], [[4.0, 1.0], [1.0, 2.0]]))
    assert np.abs(scores((drawn, st.SGD(oracle, plan.averaged())), start_of(oracle), seed=10)).max() < 4.5


@pytest.mark.sample(2)
@pytest.mark.parametrize("law", [*LAWS, *ON_DATA])
def test_ten_per_cent_of_the_noise_variance_is_detected(law):
    """Negative control: from the minimiser, exact moments for 1.1 sigma^2 are missed by more than 20 standard errors."""
    right, wrong = oracle_of(law), oracle_of(law, 1.5 * np.sqrt(1.1))
    start, paths = (CENTRE if right.dim == 2 else np.zeros(3)), PATHS * (1 if law != "student, 12 degrees" else 2)
    backend = "numpy" if law in ON_NUMPY else "auto"
    z = scores(
        pair_of(right, FIXED, momentum=False), start, 11, paths, truth=pair_of(wrong, FIXED, momentum=False), backend=backend
    )
    assert np.abs(z[0]).max() > 20 and np.abs(z[1]).max() > 20


def test_raw_instead_of_averaged_learning_rates_are_detected():
    """Negative control of the schedules: the alternating schedule has 1.25 times the mean square of its average."""
    oracle = oracle_of("gaussian")
    raw = st.schedules.from_arrays(ALTERNATING.etas(STEPS), 0.0, base=ETA)
    pair = pair_of(oracle, ALTERNATING)
    z = scores(pair, start_of(oracle), seed=12, truth=(pair[0], st.SGD(oracle, raw)))
    assert np.abs(z[0]).max() < 4.5 < 20 < np.abs(z[1]).max()


def test_nonlinear_sgd_against_quadrature():
    """One coordinate, any loss, state-dependent Gaussian noise: the transfer operator gives E h to 1e-10."""
    loss = st.losses.double_well()
    oracle = st.NoisyOracle(loss, st.noise.gaussian(root=[["1 + 0.3*sin(x)"]], variables="x"), sigma=1.0)
    sgd = st.SGD(oracle, st.schedules.constant(ETA))
    observables = ["x**2", "cos(2*x)", "abs(x)"]
    run = st.simulate(sgd, [1.5], STEPS * ETA, 4 * PATHS, observables, times=TIMES, seed=13)
    for h in observables:
        for t, answer in zip(TIMES, st.exact.transfer(sgd, [1.5], STEPS, h, record=RECORD).tolist(), strict=True):
            assert abs(run.at(h, t).z(answer)) < 4.5
            assert abs(run.at(h, t).z(answer * 1.02)) > 4.5  # negative control, 10 standard errors away at the least
