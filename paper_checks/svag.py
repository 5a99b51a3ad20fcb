"""SVAG: ghat = r_1 g_1 + r_2 g_2 at eta / l for l times the steps tends to the SDE at rate 1/l, for noise of any law.

r_i = (1 + (-1)^i sqrt(2l - 1)) / 2 keep the mean and multiply the covariance by l, so the diffusion stays (eta Sigma)^{1/2} while the step
decreases. The noise need not be Gaussian: its skewness decreases with l too. In Lemma 2.4, summed over the l steps that replace one, the
descent and noise terms are unchanged and the curvature term is divided by l.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

import sdetools as st

ETA, SIGMA = 0.25, 1.0
START, HORIZON = [1.0], 1.0
LEVELS = [1, 2, 4, 8]
DEEP = [256, 512]


def oracle(noise=None):
    """Return the oracle of x^2 / 2 with skewed two-point noise."""
    return st.NoisyOracle(st.losses.from_expression("x**2/2"), noise or st.noise.two_point(dim=1, probability=0.1), sigma=SIGMA)


def run_at(l, noise=None):
    """Return SGD with SVAG at level l."""
    return st.SGD(st.svag(oracle(noise), l), st.schedules.constant(ETA / l))


NOISE = (3.0, 0.1), (-1 / 3, 0.9)
"""Values of the noise and their probabilities: sqrt(.9/.1) and -sqrt(.1/.9); its third moment is 8/3."""
OBSERVE = ["x**2", "x**3"]


def weights(l):
    """Return SVAG's weights r_1 and r_2."""
    return (1 - math.sqrt(2 * l - 1)) / 2, (1 + math.sqrt(2 * l - 1)) / 2


def moments_at(l, scaled=True):
    """Return (E x^2, E x^3) of SVAG at T from x' = (1 - h) x - h v, h = eta / l.

    The cumulants of v = r_1 v_1 + r_2 v_2 are l and (3l - 1)/2 8/3.
    """
    h, (low, high) = ETA / l, weights(l)
    second, third = (sum(chance * value**k for value, chance in NOISE) for k in (2, 3))
    if scaled:
        second, third = (low**2 + high**2) * second, (low**3 + high**3) * third
    mean, variance, cube = START[0], 0.0, 0.0
    for _ in range(round(HORIZON / h)):
        mean = (1 - h) * mean
        variance = (1 - h) ** 2 * variance + h**2 * SIGMA**2 * second
        cube = (1 - h) ** 3 * cube - h**3 * SIGMA**3 * third
    return mean**2 + variance, mean**3 + 3 * mean * variance + cube


def limit_moments():
    """Return (E x^2, E x^3) of dX = -X dt + sqrt(eta) sigma dW at T, a Gaussian."""
    mean, variance = START[0] * math.exp(-HORIZON), ETA * SIGMA**2 / 2 * (1 - math.exp(-2 * HORIZON))
    return mean**2 + variance, mean**3 + 3 * mean * variance


def constants():
    """Return the limits of l times the gaps: derivatives of the moments in h = eta / l at h = 0, times eta.

    (1 - h)^(T/h) = e^-T (1 - T h / 2 + ...), the stationary variance is eta sigma^2 / (2 - h), and the third cumulant accumulates
    -h eta sigma^3 3/2 8/3 (1 - e^-3T) / 3.
    """
    e, v = math.exp(-HORIZON), ETA * SIGMA**2 / 2
    mean, variance = e, v * (1 - e**2)
    mean_1, variance_1 = -HORIZON / 2 * e, v / 2 * (1 - e**2) + v * HORIZON * e**2
    cube_1 = -4 / 3 * ETA * SIGMA**3 * (1 - e**3)
    square = 2 * mean * mean_1 + variance_1
    return ETA * square, ETA * (3 * mean**2 * mean_1 + 3 * mean_1 * variance + 3 * mean * variance_1 + cube_1)


@st.claim(
    "svag-to-sde",
    statement=r"At a fixed $\eta$ SVAG tends to the SDE with diffusion $(\eta\Sigma)^{1/2}$ at rate $1/l$ as $l \to \infty$, for skewed noise as well.",
    source="Definition 5.1; Li, Malladi, Arora (2021)",
)
def svag_to_sde(run):
    """Check the convergence of SVAG's moments to those of the SDE."""
    aim = dict(zip(OBSERVE, limit_moments()))
    sde = st.exact.solution(st.LimitSDE(oracle(), st.schedules.constant(ETA)), START, [HORIZON])
    run.measure("E x^2 of the SDE", float(st.exact.expectation(sde, "x**2")[0]), expected=aim["x**2"], tolerance=1e-12)
    for i, l in enumerate(LEVELS):
        steps = round(HORIZON / (ETA / l))
        exact = dict(zip(OBSERVE, moments_at(l)))
        moved = st.exact.expectation(st.exact.moments(run_at(l), START, steps, record=[steps]), "x**2")[0]
        run.measure(f"E x^2 by moment recursion, l = {l}", float(moved), expected=exact["x**2"], tolerance=1e-13 * steps)

        @lru_cache
        def simulated(paths, l=l, i=i):
            options = run.options(paths=paths, observe=OBSERVE, times=[HORIZON], stream=i)
            return st.simulate(run_at(l), START, HORIZON, **options)

        for h in OBSERVE:
            gap = exact[h] - aim[h]

            def moved_to(paths, simulated=simulated, h=h):
                return shifted(simulated(paths).at(h), aim[h])

            # half of the gap: a gap that is not halved from l to 2 l is detected
            paths = run.scale(quick=10 * l * run.paths, standard=run.paths, full=run.paths)
            found = run.decide(f"gap of {h}, l = {l}", moved_to, gap, relative=0.5, paths=paths, looks=6)
        if l == 4:
            with run.control("skewness ten times too large at l = 4"):
                excess = (
                    9 * (ETA / l) ** 3 * (3 * l - 1) / 2 * 8 / 3 * SIGMA**3 * sum((1 - ETA / l) ** (3 * k) for k in range(steps))
                )
                run.measure("gap of x^3", found, gap - excess, relative=0.5)
    for k, (h, constant) in enumerate(zip(OBSERVE, constants())):
        gaps = [l * (moments_at(l)[k] - aim[h]) for l in DEEP]
        # Richardson extrapolation over l -> 2l removes the term in 1/l; the remainder is of size (eta / l)^2, here below 1e-6
        run.measure(f"limit of l times the exact gap, {h}", 2 * gaps[-1] - gaps[-2], expected=constant, tolerance=1e-5)
    with run.control("the small step without the scaled noise"):
        gaps = [l * (moments_at(l, scaled=False)[0] - aim["x**2"]) for l in DEEP]
        run.measure("limit of l times the gap, x**2", 2 * gaps[-1] - gaps[-2], expected=constants()[0], tolerance=1e-5)
    run.note(
        "Moments of SVAG, their limits and the constants of the gaps are formulas of this file. Detected by the moment recursion: a sigma "
        "without sqrt(l), a rate without 1/l, a covariance not multiplied by l. The claim svag-one-step checks single outcomes."
    )


def shifted(e, by):
    """Return an estimate minus a number."""
    return replace(e, value=e.value - by)


@st.claim(
    "svag-one-step",
    statement=r"A gradient of SVAG is $r_1 g_1 + r_2 g_2$ with $r_i = (1 \mp \sqrt{2l-1})/2$: mean $\nabla L$, covariance $l\Sigma$, third "
    r"moment $\frac{3l-1}{2}$ times that of one gradient; the learning rate of a step is $\eta/l$.",
    source="Definition 5.1",
)
def one_step(run):
    """Check SVAG's gradient exactly: two draws of a two-point noise have four outcomes with known probabilities."""
    at, q = np.array([0.7]), 0.1
    values, chances = np.array(NOISE).T * [[SIGMA], [1.0]]
    draws = np.array([q / 2, (1 + q) / 2])  # values of the uniform draw, one for each outcome
    first, second = (side.ravel() for side in np.meshgrid(draws, draws, indexing="ij"))
    weight = np.outer(chances, chances).ravel()
    for l in (1, 2, 5, 32):
        low, high = weights(l)
        expected = at[0] + (low * values[:, None] + high * values[None]).ravel()  # L' = x
        made = st.svag(oracle(), l)
        found = np.asarray(made(np.full((1, 4), at[0]), np.stack([first, second])))[0]
        size = 1e-14 * high * 3
        run.measure(f"l = {l}: largest difference from r_1 g_1 + r_2 g_2", float(np.abs(found - expected).max()), at_most=size)
        mean = float(weight @ found)
        second_moment, third_moment = (float(weight @ (found - at[0]) ** power) for power in (2, 3))
        run.measure(f"l = {l}: mean", mean, expected=at[0], tolerance=size)
        run.measure(f"l = {l}: variance", second_moment, expected=l * SIGMA**2, tolerance=l * size)
        run.measure(f"l = {l}: third moment", third_moment, expected=(3 * l - 1) / 2 * 8 / 3 * SIGMA**3, tolerance=l**2 * size)
        run.measure(f"l = {l}: reported covariance", float(made.covariance(at).item()), expected=l, tolerance=l * 1e-14)
        moved = st.simulate(run_at(l), at, ETA / l, observe=["x"], keep_final=True, **run.options(paths=4096, store=None))
        off = np.abs(moved.final[0][:, None] - (at[0] - ETA / l * expected)[None]).min(axis=1)
        run.measure(f"l = {l}: simulated endpoints off the four exact ones", float(off.max()), at_most=size)
    with run.control("weights of sqrt(2l + 1)"):
        low, high = (1 - math.sqrt(2 * l + 1)) / 2, (1 + math.sqrt(2 * l + 1)) / 2
        wrong = float(weight @ (low * values[:, None] + high * values[None]).ravel() ** 2)
        run.measure("variance at l = 32", wrong, expected=l, tolerance=l * size)
    run.note(
        "Detected up to rounding: another weight r_1 or r_2, the two exchanged, another root, a sigma without sqrt(l), a rate without 1/l, and "
        "any other change of one of the four outcomes, in the formula or in the compiled kernel."
    )


@st.claim(
    "svag-divides-the-curvature-term",
    statement=r"Over the $l$ steps of SVAG that replace one of SGD, the change of $E\,L$ has the same descent term "
    r"$-\eta|\nabla L|^2$ and noise term $\frac{\eta^2}{2}\mathrm{tr}(\nabla^2 L\,\Sigma)$, and $1/l$ times the "
    r"curvature term $\frac{\eta^2}{2}\nabla L^\top\nabla^2 L\,\nabla L$.",
    source="Lemma 2.4 under Definition 5.1",
)
def svag_lemma(run):
    """Check Lemma 2.4 under SVAG exactly: two coordinates of two draws each have 16 outcomes."""
    H, z, root, sigma = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, -0.5]), np.array([[1.0, 0.0], [0.6, 0.8]]), 2.0
    loss = st.losses.quadratic(H)
    base = st.NoisyOracle(loss, st.noise.two_point(dim=2, probability=0.1, root=root.tolist()), sigma=sigma)
    g, spread = H @ z, sigma**2 * root @ root.T
    which = np.array(list(itertools.product((0, 1), repeat=4))).T  # of v_1's entries, then of v_2's
    chance, draws = np.array([0.1, 0.9])[which].prod(axis=0), np.array([0.05, 0.55])[which]
    for i, l in enumerate(LEVELS):
        made = st.svag(base, l)
        sgd = st.SGD(made, st.schedules.constant(ETA / l))
        terms = -ETA * g @ g, ETA**2 / 2 * np.trace(H @ spread), ETA**2 / (2 * l) * g @ H @ g
        low, high = weights(l)
        u = np.array([3.0, -1 / 3])[which]
        noise = sigma * root @ (low * u[:2] + high * u[2:])
        after = z[:, None] - ETA / l * (g[:, None] + noise)
        change = (after * (H @ after)).sum(axis=0) / 2 - z @ H @ z / 2
        run.measure(f"l steps by the sixteen outcomes, l = {l}", float(l * chance @ change), expected=sum(terms), tolerance=1e-12)
        found = np.asarray(made(np.repeat(z[:, None], 16, axis=1), draws))
        off = float(np.abs(found - g[:, None] - noise).max())
        run.measure(f"SVAG's gradient off the sixteen outcomes, l = {l}", off, at_most=1e-13 * l)

        def simulated(paths, sgd=sgd, l=l, i=i):
            options = run.options(paths=paths, observe={"L": loss}, stream=i)
            moved = shifted(st.simulate(sgd, z, ETA / l, **options).at("L"), z @ H @ z / 2)
            # the lemma is about one step; l steps to first order
            return replace(moved, value=l * moved.value, stderr=l * moved.stderr)

        # half of the curvature term, which is the smallest: divided by another power of l it would be detected
        paths = run.scale(quick=10 * l * run.paths, standard=10 * run.paths, full=run.paths)
        run.decide(f"l steps, l = {l}", simulated, expected=sum(terms), tolerance=terms[2] / 2, paths=paths, looks=6)
        exact = l * (st.exact.expectation(st.exact.moments(sgd, z, 1, record=[1]), loss)[0] - z @ H @ z / 2)
        run.measure(f"the same by moment recursion, l = {l}", exact, expected=sum(terms), tolerance=1e-12)
    run.note(
        "Detected: a weight r_1 or r_2, an eta / l or a covariance that is not that of SVAG, in the formula and in the moment recursion."
    )
    with run.control("the curvature term not divided, l = 8"):
        run.measure("l steps by moment recursion", exact, expected=sum(terms[:2]) + 8 * terms[2], tolerance=1e-6)
