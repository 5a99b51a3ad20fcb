r"""SVAG: ghat = r_1 g_1 + r_2 g_2 at eta / l for l times the steps tends to the SDE at rate 1/l, whatever the law of the noise.

r_i = (1 + (-1)^i sqrt(2l - 1)) / 2 keep the mean and multiply the covariance by l, so the diffusion stays (eta Sigma)^{1/2} while the step
shrinks. The noise need not be Gaussian: its skewness falls with l too. In Lemma 2.4, summed over the l steps that replace one, the descent
and noise terms stay and the curvature term is divided by l.
"""

from __future__ import annotations

import math

import numpy as np
from _common import limit

import sdetools as st
from sdetools.weak import Estimate

ETA, SIGMA = 0.25, 1.0
START, HORIZON = [1.0], 1.0
LEVELS = [1, 2, 4, 8]
DEEP = [8, 32, 128, 512]


def oracle(noise=None):
    return st.NoisyOracle(st.losses.from_expression("x**2/2"), noise or st.noise.two_point(dim=1, probability=0.1), sigma=SIGMA)


def run_at(l, noise=None):
    return st.SGD(st.svag(oracle(noise), l), st.schedules.constant(ETA / l))


def limit_moments(times):
    sde = st.LimitSDE(oracle(), st.schedules.constant(ETA))
    return st.exact.solution(sde, START, times)


def exact_gap(l, h="x**2", scaled=True):
    """The gap to the SDE at T; without the factor l in the covariance it tends elsewhere."""
    one = run_at(l) if scaled else st.SGD(oracle(), st.schedules.constant(ETA / l))
    steps = round(HORIZON / one.step_time)
    moved = st.exact.moments(one, START, steps, record=[steps])
    return float((st.exact.expectation(moved, h) - st.exact.expectation(limit_moments([HORIZON]), h))[0])


@st.claim(
    "svag-to-sde",
    statement=r"At a fixed $\eta$ SVAG tends to the SDE with diffusion $(\eta\Sigma)^{1/2}$ at rate $1/l$, for skewed noise as well.",
    source="Definition 5.1; Li, Malladi, Arora (2021)",
)
def svag_to_sde(run):
    mean, variance = limit_moments([HORIZON]).mean[0, 0], limit_moments([HORIZON]).covariance[0, 0, 0]
    third = mean**3 + 3 * mean * variance
    for i, l in enumerate(LEVELS):
        options = run.options(paths=run.scale(quick=10 * run.paths, standard=run.paths, full=run.paths))
        found = st.simulate(run_at(l), START, HORIZON, observe=["x**2", "x**3"], times=[HORIZON], stream=i, **options)
        square, cube = found.at("x**2"), found.at("x**3")
        # ten standard errors: six for an interval at the level of a whole run, four for where it falls
        run.measure(f"gap of x^2, l = {l}", shifted(square, mean**2 + variance), exact_gap(l), tolerance=10 * square.stderr)
        run.measure(f"gap of x^3, l = {l}", shifted(cube, third), third_gap(l, third), tolerance=10 * cube.stderr)
    for h, gaps in (("x^2", [abs(exact_gap(l)) for l in DEEP]), ("x^3", [abs(third_gap(l, third)) for l in DEEP])):
        value, tolerance = limit(st.exact.local_orders([1 / l for l in DEEP], gaps))
        run.measure(f"limit of the exact local order in 1/l, {h}", value, expected=1.0, tolerance=tolerance + 0.01)
    with run.control("the small step without the scaled noise"):
        gaps = [abs(exact_gap(l, scaled=False)) for l in DEEP]
        run.measure("last local order in 1/l", st.exact.local_orders([1 / l for l in DEEP], gaps)[-1], at_least=0.5)
    with run.control("skewness ten times too large at l = 4"):
        run.measure(
            "gap of x^3", shifted(cube_at(run, 4), third), third_gap(4, third, 10.0), tolerance=10 * cube_at(run, 4).stderr
        )


def cube_at(run, l):
    options = run.options(paths=run.scale(quick=10 * run.paths, standard=run.paths, full=run.paths))
    return st.simulate(run_at(l), START, HORIZON, observe=["x**3"], times=[HORIZON], stream=100, **options).at("x**3")


def shifted(e, by):
    """An estimate less a number."""
    return Estimate(e.value - by, e.stderr, e.n, e.confidence, e.name, e.diverged, e.first_divergence)


def third_gap(l, target, factor=1.0):
    """E x^3 of SVAG less that of the SDE, by the exact recursion of the third cumulant."""
    noise = st.noise.two_point(dim=1, probability=0.1)
    step, skew = ETA / l, factor * noise.skewness * (3 * l - 1) / (2 * l**1.5)
    mean, variance, third = START[0], 0.0, 0.0
    for _ in range(round(HORIZON / step)):
        mean, variance, third = (
            (1 - step) * mean,
            (1 - step) ** 2 * variance + step**2 * l * SIGMA**2,
            (1 - step) ** 3 * third - step**3 * l**1.5 * SIGMA**3 * skew,
        )
    return mean**3 + 3 * mean * variance + third - target


@st.claim(
    "svag-one-step",
    statement=r"A gradient of SVAG is $r_1 g_1 + r_2 g_2$ with $r_i = (1 \mp \sqrt{2l-1})/2$: mean $\nabla L$, covariance $l\Sigma$, third "
    r"moment $\frac{3l-1}{2}$ of one gradient's; a step goes by $\eta/l$ of it.",
    source="Definition 5.1",
)
def one_step(run):
    """Exact: two draws of a two-point noise have four outcomes, which are gone through with their probabilities."""
    at, q = np.array([0.7]), 0.1
    values, chances = np.array([3.0, -1 / 3]) * SIGMA, np.array([q, 1 - q])  # sqrt(.9 / .1) and - sqrt(.1 / .9)
    draws = np.array([q / 2, (1 + q) / 2])  # of the uniform number that decides
    first, second = (side.ravel() for side in np.meshgrid(draws, draws, indexing="ij"))
    weight = np.outer(chances, chances).ravel()
    for l in (1, 2, 5, 32):
        low, high = (1 - math.sqrt(2 * l - 1)) / 2, (1 + math.sqrt(2 * l - 1)) / 2
        expected = at[0] + (low * values[:, None] + high * values[None]).ravel()  # L' = x
        made = st.svag(oracle(), l)
        found = np.asarray(made(np.full((1, 4), at[0]), np.stack([first, second])))[0]
        size = 1e-14 * high * 3
        run.measure(f"l = {l}: largest difference from r_1 g_1 + r_2 g_2", float(np.abs(found - expected).max()), at_most=size)
        mean = float(weight @ found)
        second_moment, third_moment = (float(weight @ (found - at[0]) ** power) for power in (2, 3))
        run.measure(f"l = {l}: mean", mean, expected=at[0], tolerance=size)
        run.measure(f"l = {l}: variance", second_moment, expected=l * SIGMA**2, tolerance=l * size)
        skewness = (1 - 2 * q) / math.sqrt(q * (1 - q))  # 8/3
        run.measure(f"l = {l}: third moment", third_moment, expected=(3 * l - 1) / 2 * skewness, tolerance=l**2 * size)
        run.measure(f"l = {l}: covariance that is told", float(made.covariance(at).item()), expected=l, tolerance=l * 1e-14)
        moved = st.simulate(run_at(l), at, ETA / l, observe=["x"], keep_final=True, **run.options(paths=4096, store=None))
        off = np.abs(moved.final[0][:, None] - (at[0] - ETA / l * expected)[None]).min(axis=1)
        run.measure(f"l = {l}: simulated endpoints off the four exact ones", float(off.max()), at_most=size)
    with run.control("weights of sqrt(2l + 1)"):
        low, high = (1 - math.sqrt(2 * l + 1)) / 2, (1 + math.sqrt(2 * l + 1)) / 2
        wrong = float(weight @ (low * values[:, None] + high * values[None]).ravel() ** 2)
        run.measure("variance at l = 32", wrong, expected=l, tolerance=l * size)
    run.note(
        "Noticed at rounding: another weight r_1 or r_2, the two exchanged, another root, a sigma without sqrt(l), a rate without 1/l, and "
        "whatever else moves one of the four outcomes, in the formula or in the compiled kernel."
    )


@st.claim(
    "svag-divides-the-curvature-term",
    statement=r"Over the $l$ steps of SVAG that replace one of SGD, $E\,L$ changes by the descent term "
    r"$-\eta|\nabla L|^2$ and the noise term $\frac{\eta^2}{2}\mathrm{tr}(\nabla^2 L\,\Sigma)$ as before, and by $1/l$ of the "
    r"curvature term $\frac{\eta^2}{2}\nabla L^\top\nabla^2 L\,\nabla L$.",
    source="Lemma 2.4 under Definition 5.1",
)
def svag_lemma(run):
    H, z = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, -0.5])
    loss, root = st.losses.quadratic(H), [[1.0, 0.0], [0.6, 0.8]]
    base = st.NoisyOracle(loss, st.noise.two_point(dim=2, probability=0.1, root=root), sigma=2.0)
    g, spread = loss.gradient(z), base.covariance(z)
    for i, l in enumerate(LEVELS):
        sgd = st.SGD(st.svag(base, l), st.schedules.constant(ETA / l))
        terms = -ETA * g @ g, ETA**2 / 2 * np.trace(H @ spread), ETA**2 / (2 * l) * g @ H @ g
        options = run.options(paths=run.scale(quick=50 * run.paths, standard=10 * run.paths, full=run.paths))
        found = st.simulate(sgd, z, ETA / l, observe={"L": loss}, stream=i, **options).at("L")
        change = shifted(found, float(loss.value(z)))
        per_unit = Estimate(
            l * change.value, l * change.stderr, change.n
        )  # the lemma is about one step; l of them to first order
        run.measure(f"l steps, l = {l}", per_unit, expected=sum(terms), tolerance=abs(terms[2]) / 2 + 10 * per_unit.stderr)
        moved = st.exact.moments(sgd, z, 1, record=[1])
        exact = l * (st.exact.expectation(moved, loss)[0] - float(loss.value(z)))
        run.measure(f"the same by moment recursion, l = {l}", exact, expected=sum(terms), tolerance=1e-12)
    with run.control("the curvature term not divided, l = 8"):
        run.measure("l steps by moment recursion", exact, expected=sum(terms[:2]) + 8 * terms[2], tolerance=1e-6)
