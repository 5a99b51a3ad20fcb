"""Theorem 3.5 for other noises: discrete, skewed or heavy-tailed noise, and noise that depends on the state.

On L = x^2/2 the iterate is a weighted sum of draws, x_k = E x_k - eta sigma sum_j a_j v_j, so E |x_k - 1| is exact for any law
with a known characteristic function phi: with Y = x_k - 1 and P larger than |Y|, the series of the triangle wave gives

    E |Y| = P/2 - (4 P / pi^2) sum_{n odd} Re phi_Y(n pi / P) / n^2,      phi_Y(u) = e^{i u E Y} prod_j phi(-eta sigma a_j u).

On a double well with noise root 1 + 0.3 sin x only the initial phase is known exactly: there the gap is that of pure noise.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from _common import (
    LIPSCHITZ,
    OBSERVE,
    SMOOTH,
    START,
    constant_schedule,
    exact_curves,
    gap_tolerance,
    measure_path,
    measure_study,
    pair,
    quadratic,
    sups,
)  # fmt: skip
from _plain import NON_FINITE_DISTANCE, ROUNDING, already_contradicted, integrate_unit_interval, relative_distance, value_or_nan
from scipy.special import gamma, kv

import sdetools as st

BETA = 0.9
TESTS = (*SMOOTH, LIPSCHITZ)
ETAS = [2.0**-k for k in range(4, 8)]
LAWS = {
    "rademacher": (st.noise.rademacher(dim=1), lambda u: np.cos(u)),
    "uniform": (st.noise.uniform(dim=1), lambda u: np.sinc(math.sqrt(3) * u / math.pi)),
    "centred exponential": (st.noise.centred_exponential(dim=1), lambda u: np.exp(-1j * u) / (1 - 1j * u)),
    "two-point, 1/5": (st.noise.two_point(dim=1, probability=0.2), lambda u: 0.2 * np.exp(2j * u) + 0.8 * np.exp(-0.5j * u)),
    "student t, 8": (st.noise.student_t(dim=1, degrees=8), lambda u: student(math.sqrt(6 / 8) * np.abs(u), 8)),
}
OTHERS = {
    "gaussian": (st.noise.gaussian(dim=1), lambda u: np.exp(-(u**2) / 2)),
    "three-point": (st.noise.three_point(dim=1), lambda u: (2 + np.cos(math.sqrt(3) * u)) / 3),
}
"""Laws whose equations are checked, but not their orders."""
BREAKS = {"two-point, 1/5": (0.2,), "three-point": (1 / 6, 5 / 6)}
TAILS = {"centred exponential": 16, "student t, 8": 16}
"""Jumps of a law in its uniform draw, and the power of the substitution u = s^16 where it diverges at u = 0."""
THIRD = {"centred exponential": 2.0, "two-point, 1/5": 1.5}
WELL = st.losses.double_well()
WELL_NOISE = st.noise.gaussian(root=[["1 + 0.3*sin(x)"]], variables="x")
WELL_ETAS = [2.0**-k for k in range(6, 10)]


def student(u, degrees):
    """Return the characteristic function of Student's t (S. Hurst, 1995)."""
    z = np.maximum(math.sqrt(degrees) * u, 1e-9)
    return kv(degrees / 2, z) * z ** (degrees / 2) / (gamma(degrees / 2) * 2 ** (degrees / 2 - 1))


def study(run, make, etas):
    """Run an order study."""
    paths = run.scale(quick=run.paths, standard=run.paths // 5, full=run.paths // 5)
    return st.order_study(make, etas, START, 1.0, observe=OBSERVE, **run.options(paths=paths))


def plan(eta):
    """Return the constant schedule at BETA."""
    return st.schedules.constant(eta, beta=BETA)


def schedule(eta):
    """Return eta_k, beta_k and the noise variance of the constant schedule."""
    return constant_schedule(eta, BETA, round(1 / eta))


def well(eta):
    """Return SGDM and SGD on the double well with state-dependent noise."""
    return pair(st.NoisyOracle(WELL, WELL_NOISE, sigma=eta**-0.5), plan(eta))


def response(eta, beta, steps, x=0.0, impulse=0.0, curvature=1.0):
    """Return x_1, ..., x_steps of SGDM (SGD: beta = 0) with gradient curvature * x, plus an impulse in the first step."""
    out, m = np.empty(steps), 0.0
    for k in range(steps):
        m = beta * m + (1 - beta) * (curvature * x + (impulse if k == 0 else 0.0))
        x -= eta * m
        out[k] = x
    return out


def absolute_moments(eta, beta, steps, law, terms=2000):
    """Return E |x_k - 1| for k = 1, ..., steps."""
    centre = response(eta, beta, steps, x=1.0) - 1.0
    weights = response(eta, beta, steps, impulse=eta**-0.5)
    # a law of variance 1: within 16 standard deviations for sums, and more for the heavy tails of single draws
    half = np.abs(centre).max() + 16 * math.sqrt((weights**2).sum()) + 16 * np.abs(weights).max()
    n = 2 * np.arange(terms) + 1
    u = n * math.pi / half
    product, out = np.ones(terms, complex), np.empty(steps)
    for k in range(steps):
        product = product * law(weights[k] * u)
        out[k] = half / 2 - 4 * half / math.pi**2 * np.sum(np.real(np.exp(1j * u * centre[k]) * product) / n**2)
        kept = np.flatnonzero(np.abs(product) > 1e-18)[-1] + 1  # beyond it the products are below rounding, and only fall further
        product, u, n = product[:kept], u[:kept], n[:kept]
    return out


def exact_lipschitz(gap, law):
    """Return the exact gap of |x - 1| at the steps of a measured one."""
    eta, steps = gap.first.plan.eta, int(gap.steps[-1])
    curve = absolute_moments(eta, BETA, steps, law) - absolute_moments(eta, 0.0, steps, law)
    return np.concatenate([[0.0], curve])[gap.steps]


def empirical_law(name, noise, frequencies):
    """Return E v, E v^2, E v^3 and E e^{i t v} from a noise's draws, by sums over signs or integrals over uniforms."""

    def of(function):
        def value(z):
            return function(noise.value(np.zeros((1, z.shape[1])), z)[0])

        if name == "rademacher":
            return (value(np.array([[1.0]]))[..., 0] + value(np.array([[-1.0]]))[..., 0]) / 2
        if name == "gaussian":
            nodes, weights = np.polynomial.hermite_e.hermegauss(60)
            return value(nodes[None, :]) @ weights / weights.sum()
        power = TAILS.get(name, 1)
        if noise.n_draws == 1:
            return integrate_unit_interval(lambda u: value(u[None, :]), BREAKS.get(name, ()), power)
        angles = (np.arange(256) + 0.5) / 256  # the second draw is an angle: the trapezoidal rule is exact to rounding

        def over_angles(u):
            found = value(np.stack([np.tile(u, angles.size), np.repeat(angles, u.size)]))
            return found.reshape(*found.shape[:-1], angles.size, u.size).mean(axis=-2)

        return integrate_unit_interval(over_angles, (), power)

    moments = [float(of(lambda v, n=n: v**n)) for n in (1, 2, 3)]
    return moments, of(lambda v: np.exp(1j * np.multiply.outer(frequencies, v)))


def finite(value):
    """Return the value, or `NON_FINITE_DISTANCE` where it is not finite."""
    return value if math.isfinite(value) else NON_FINITE_DISTANCE


def measure_law(run, name, noise, law):
    """Compare the law of the draws with the law that the claim states."""
    frequencies = np.array([0.3, 0.7, 1.3, 2.0])
    with np.errstate(all="ignore"):
        moments, characteristic = empirical_law(name, noise, frequencies)
    for n, expected in ((1, 0.0), (2, 1.0), (3, THIRD.get(name, 0.0))):
        run.measure(f"{name}: moment {n} of the noise by quadrature", finite(moments[n - 1]), expected, tolerance=1e-6)
    known = law(frequencies) + 0j
    away = relative_distance([characteristic.real, characteristic.imag], [known.real, known.imag])
    run.measure(f"{name}: characteristic function by quadrature, farthest from its formula", away, at_most=1e-6)
    run.measure(f"{name}: covariance as stated", float(noise.covariance(np.zeros(1))[0, 0]), 1.0, tolerance=ROUNDING)
    if name in THIRD:
        run.measure(f"{name}: skewness as stated", noise.skewness, THIRD[name], tolerance=ROUNDING)


MAKERS = {
    "gaussian": st.noise.gaussian,
    "rademacher": st.noise.rademacher,
    "uniform": st.noise.uniform,
    "three-point": st.noise.three_point,
    "centred exponential": st.noise.centred_exponential,
    "two-point, 1/5": partial(st.noise.two_point, probability=0.2),
    "student t, 8": partial(st.noise.student_t, degrees=8),
}


def measure_roots(run):
    """Check v = R u in two coordinates from three entries of each law, each entry made from its own draws."""
    R = np.array([[1.2, -0.4, 0.3], [0.5, 0.8, -1.1]])
    for name, make in MAKERS.items():
        two, one = make(dim=2, root=R), make(dim=1)
        z = st.noise.sample_draws(two.draws, np.random.default_rng(run.seed), 5)
        u = np.array([one.value(np.zeros((1, 5)), z[k::3])[0] for k in range(3)])
        run.measure(f"{name}: R u in two coordinates", relative_distance(two.value(np.zeros((2, 5)), z), R @ u), at_most=ROUNDING)
        run.measure(f"{name}: its covariance", relative_distance(two.covariance(np.zeros(2)), R @ R.T), at_most=ROUNDING)
        run.measure(
            f"{name}: that of the identity", relative_distance(make(dim=2).covariance(np.zeros(2)), np.eye(2)), at_most=ROUNDING
        )


def measure_expressions(run):
    """Check a root of expressions in two coordinates, with three entries and a named parameter."""
    rows = [["1 + 0.3*sin(x)", "0.2*y", "-0.4"], ["a*x*y", "0.5", "exp(y)"]]
    noise = st.noise.gaussian(root=rows, variables="x y", parameters={"a": 0.7})
    points, z = np.array([[0.4, -1.2], [0.9, 0.3]]), np.array([[0.7, -0.2], [1.3, 0.5], [-0.4, 0.8]])
    plain = [np.array([[1 + 0.3 * math.sin(x), 0.2 * y, -0.4], [0.7 * x * y, 0.5, math.exp(y)]]) for x, y in points.T]
    values = np.array([R @ u for R, u in zip(plain, z.T, strict=True)]).T
    run.measure(
        "a root of expressions: R(x) u",
        relative_distance(value_or_nan(noise.value, points, z) * np.ones((2, 2)), values),
        at_most=ROUNDING,
    )
    spread = np.moveaxis(np.array([R @ R.T for R in plain]), 0, -1)
    found = value_or_nan(noise.covariance, points) * np.ones((2, 2, 2))
    run.measure("a root of expressions: its covariance", relative_distance(found, spread), at_most=ROUNDING)


def measure_steps(run, name, noise):
    """Compare a path of the kernel under the given law with the reference implementation."""
    eta, steps = ETAS[2], 32
    schedule = constant_schedule(eta, BETA, steps)
    two = pair(quadratic(eta, noise), plan(eta))
    measure_path(run, name, two, schedule, TESTS, lambda x: x, lambda z, x: noise.value(x, z), steps)


def pure_noise(eta, root):
    """Return the largest gap of |x - x_0| without a gradient: E |N| times the difference of two standard deviations."""
    steps = 10 * math.ceil(1 / (1 - BETA))
    spread = [
        np.sqrt(np.cumsum(response(eta, beta, steps, impulse=root * eta**-0.5, curvature=0.0) ** 2)) for beta in (0.0, BETA)
    ]
    return math.sqrt(2 / math.pi) * np.max(spread[0] - spread[1])


def drift(eta):
    """Return an upper bound of the gradient's relative contribution to the gap up to its maximum.

    The maximum lies 1.06 / (1 - beta) steps from the start. With r = eta / (1 - beta) a slope of 2 contributes 1.06 r of SGD's
    standard deviation, which is 1.75 times the gap.
    """
    return 1.06 * 1.75 * eta / (1 - BETA)


@st.claim(
    "theorem-3.5-any-law-of-noise",
    statement=r"For discrete, bounded, skewed and heavy-tailed noise on a quadratic the weak gaps between SGDM and SGD in "
    r"$x$, $x^2$ and $|x - x_0|$ agree with their exact curves and have the orders of Gaussian noise as $\eta \to 0$.",
    source="Theorem 3.5, Assumption 3.3",
)
def theorem_3_5_any_law_of_noise(run):
    """Check the gaps on a quadratic for noise of several laws."""
    run.note(
        "A law with another mean, variance, skewness or characteristic function is detected by quadrature over its draws, a wrong rule, rate "
        "or scale along a path of the kernel, each to rounding."
    )
    measure_roots(run)
    if already_contradicted(run):
        return
    for name, (noise, law) in (LAWS | OTHERS).items():
        measure_law(run, name, noise, law)
        if already_contradicted(run):
            return
    for name, (noise, law) in LAWS.items():
        measure_steps(run, name, noise)
        if already_contradicted(run):
            return
    for name, (noise, law) in LAWS.items():
        found = study(run, lambda eta, noise=noise: pair(quadratic(eta, noise), plan(eta)), ETAS)
        exact = {h: sups(curves) for h, curves in exact_curves(found.gaps, map(schedule, found.etas), SMOOTH).items()}
        exact[LIPSCHITZ] = sups(exact_lipschitz(gap, law) for gap in found.gaps)
        measure_study(run, name, found, exact, (*SMOOTH, LIPSCHITZ))
        if name == "two-point, 1/5":
            run.figure(
                name,
                found.plot(exact=exact),
                "Skewed two-point noise; the exact values of $|x-1|$ come from its characteristic function.",
            )
        if name == "rademacher":
            with run.control("the exact curve of another law: exponential for Rademacher draws"):
                other = sups(exact_lipschitz(gap, LAWS["centred exponential"][1]) for gap in found.gaps)
                away = found.sup(LIPSCHITZ, ETAS[-1])
                run.measure("largest gap of |x - 1|", away, other[-1], relative=1e-3)


@st.claim(
    "theorem-3.5-state-dependent-noise",
    statement=r"On the double well $(x^2-1)^2/4$ with noise root $1 + 0.3 \sin x$ the weak gap between SGDM and SGD vanishes "
    r"at least at the theorem's rate for smooth $h$. For $h = |x - x_0|$ it tends to that of pure noise, of order $1/2$ as $\eta \to 0$.",
    source="Theorem 3.5",
)
def theorem_3_5_state_dependent_noise(run):
    """Check the gaps on a double well with state-dependent noise."""
    run.note("A wrong rule, rate, gradient, noise root or scale is detected along a path of the kernel, step by step.")
    measure_expressions(run)
    if already_contradicted(run):
        return
    eta, steps = WELL_ETAS[0], 64
    measure_path(
        run,
        f"eta = {eta:g}",
        well(eta),
        constant_schedule(eta, BETA, steps),
        TESTS,
        lambda x: x**3 - x,
        lambda z, x: (1 + 0.3 * np.sin(x)) * z,
        steps,
    )
    point = np.array([0.7])
    root = (1 + 0.3 * math.sin(0.7)) ** 2
    run.measure("Sigma(0.7) of the noise", float(WELL_NOISE.covariance(point)[0, 0]), root, tolerance=ROUNDING)
    if already_contradicted(run):
        return
    found = study(run, well, WELL_ETAS)
    for h in SMOOTH:
        run.measure(f"{h}: fitted order", found.order(h), at_least=0.5)
    leading = np.array([pure_noise(eta, 1 + 0.3 * math.sin(1.0)) for eta in found.etas])
    for eta, expected in zip(found.etas, leading, strict=True):
        tolerance = drift(eta) + gap_tolerance(LIPSCHITZ, found.gaps[0].paths)
        run.measure(f"|x - 1| at eta = {eta:g}, beside pure noise", found.sup(LIPSCHITZ, eta), expected, relative=tolerance)
    run.figure(
        "double well",
        found.plot(exact={LIPSCHITZ: leading}),
        "Double well, state-dependent noise; dashed: pure noise at the start.",
    )
    with run.control("pure noise of root 1 instead of 1 + 0.3 sin(x_0)"):
        run.measure(
            "|x - 1|", found.sup(LIPSCHITZ, WELL_ETAS[-1]), pure_noise(WELL_ETAS[-1], 1.0), relative=WELL_ETAS[-1] / (1 - BETA)
        )
    with run.control("SGD at the wrong learning rate, (1 - beta) eta, on the same clock"):

        def wrong(eta):
            sgdm, sgd = well(eta)
            return sgdm, st.SGD(sgd.oracle, st.schedules.constant((1 - BETA) * eta), step_time=eta)

        slow = study(run, wrong, WELL_ETAS)
        run.measure("order of x**2, at least half of the theorem's", slow.order("x**2"), at_least=0.25)
