"""The momentum family: plain loops from the papers, identities between its members, and gains."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import sdetools as st
from sdetools.dynamics.rules import (
    IGT,
    PNM,
    QHM,
    SGDF,
    SNGM,
    STORM,
    AccSGD,
    LinearFilter,
    Nesterov,
    PrimalAveraging,
    RandomScaling,
)

STEPS = 50
RNG = np.random.default_rng(5)
ETAS, BETAS = RNG.uniform(0.002, 0.02, STEPS), RNG.uniform(0.1, 0.95, STEPS)
NORMALS, UNIFORMS = RNG.standard_normal((STEPS, 2)), RNG.uniform(0.01, 1.0, STEPS)
MOVING, BARE = st.schedules.from_arrays(ETAS, BETAS), st.schedules.from_arrays(ETAS)
ORACLE = st.NoisyOracle(
    st.losses.hyperbola(), st.noise.gaussian(root=[["1 + x**2/9", "0"], ["y", "1"]], variables="x y"), sigma=0.3
)
X0 = np.array([2.0, 1.5])

ALL = {
    "Nesterov": lambda: Nesterov(ORACLE, MOVING),
    "Nesterov, moving at the start": lambda: Nesterov(ORACLE, MOVING, momentum=[0.3, -0.2]),
    "QHM": lambda: QHM(ORACLE, MOVING, nu=0.7),
    "PrimalAveraging": lambda: PrimalAveraging(ORACLE, BARE, c=0.15),
    "AccSGD": lambda: AccSGD(ORACLE, BARE, kappa=50, xi=5),
    "PNM": lambda: PNM(ORACLE, MOVING, b0=1.0),
    "STORM": lambda: STORM(ORACLE, BARE, a=0.2),
    "RandomScaling": lambda: RandomScaling(ORACLE, MOVING),
    "SNGM": lambda: SNGM(ORACLE, MOVING),
    "SGDF": lambda: SGDF(ORACLE, MOVING, b2=0.99),
    "IGT": lambda: IGT(ORACLE, BARE),
}
LINEAR = [name for name in ALL if name not in ("SNGM", "SGDF", "IGT")]


def draws(dynamics, k):
    """Return all draws of step k, in the order of the rule's oracle."""
    return np.append(NORMALS[k], UNIFORMS[k]) if dynamics.extra_draws else NORMALS[k]


def walk(dynamics, steps=STEPS):
    """Return the positions after 0 ... steps steps of the rule."""
    state = dynamics.start(X0)
    path = [state[0]]
    for k, row in enumerate(dynamics.coefficient_values(steps)):
        state = dynamics.rule(state, dynamics.bind(draws(dynamics, k)), *row)
        path.append(state[0])
    return np.array(path)


def distance(a, b, steps=STEPS):
    return np.abs(walk(a, steps) - walk(b, steps)).max()


# -- plain loops from the papers, on g(x, k) and a schedule ------------------------------------------------------------------------------------


def noisy(x, k):
    return ORACLE(x, NORMALS[k])


def naive_nesterov(g, x, etas, betas, v=0.0):
    for k in range(len(etas)):
        gradient = g(x, k)
        v = betas[k] * v + gradient
        x = x - etas[k] * gradient - etas[k] * betas[k] * v
        yield x


def naive_qhm(g, x, etas, betas, nu=0.7):
    m = 0.0
    for k in range(len(etas)):
        gradient = g(x, k)
        m = m - (1 - betas[k]) * (m - gradient)
        x = x - etas[k] * gradient + etas[k] * nu * (gradient - m)
        yield x


def naive_primal_averaging(g, x, etas, betas, c=0.15):
    z = x
    for k in range(len(etas)):
        z = z - etas[k] * g(x, k)
        x = x + c * (z - x)
        yield x


def naive_accsgd(g, x, etas, betas, kappa=50.0, xi=5.0):
    """Follow the authors' code: long step, A, 1 - A and the weight of the mean."""
    e, buffer = 0.7, x
    for k in range(len(etas)):
        long = etas[k] * kappa / e
        b = e**2 * xi / kappa
        zeta = e / (e + b)
        gradient = g(x, k)
        buffer = b * ((1 / b - 1) * buffer - long * gradient + x)
        x = zeta * (x - etas[k] * gradient) + (1 - zeta) * buffer
        yield x


def naive_pnm(g, x, etas, betas, b0=1.0):
    """Follow the authors' code: two alternating buffers, the current one with a positive weight, the other with a negative weight."""
    buffers = [0.0, 0.0]
    for k in range(len(etas)):
        buffers[k % 2] = betas[k] ** 2 * buffers[k % 2] + (1 - betas[k] ** 2) * g(x, k)
        both = (1 + b0) * buffers[k % 2] - b0 * buffers[1 - k % 2]
        x = x - etas[k] / math.sqrt((1 + b0) ** 2 + b0**2) * both
        yield x


def naive_storm(g, x, etas, betas, a=0.2):
    d, last = g(x, 0), x
    for k in range(len(etas)):
        if k:
            d = g(x, k) + (1 - a) * (d - g(last, k))
        x, last = x - etas[k] * d, x
        yield x


def naive_random_scaling(g, x, etas, betas):
    m = 0.0
    for k in range(len(etas)):
        m = betas[k] * m + (1 - betas[k]) * g(x, k)
        x = x + math.log(UNIFORMS[k]) * etas[k] * m
        yield x


def naive_sngm(g, x, etas, betas):
    m = 0.0
    for k in range(len(etas)):
        gradient = g(x, k)
        m = betas[k] * m + gradient / np.linalg.norm(gradient)
        x = x - etas[k] * m
        yield x


def naive_sgdf(g, x, etas, betas, b2=0.99, eps=1e-8):
    m, s, left = np.zeros(2), np.zeros(2), 1.0
    for k in range(len(etas)):
        gradient, left = g(x, k), left * betas[k]
        moved = np.zeros(2)
        for i in range(2):
            m[i] = betas[k] * m[i] + (1 - betas[k]) * gradient[i]
            s[i] = b2 * s[i] + (1 - b2) * (gradient[i] - m[i]) ** 2
            mean, variance = m[i] / (1 - left), s[i] / (1 - b2 ** (k + 1))
            wiener = variance / (variance + (gradient[i] - mean) ** 2 + eps)
            moved[i] = mean + wiener * (gradient[i] - mean)
        x = x - etas[k] * moved
        yield x


def naive_igt(g, x, etas, betas):
    v, last = 0.0, x
    for t in range(len(etas)):
        v = (t * v + g(x + t * (x - last), t)) / (t + 1)
        x, last = x - etas[t] * v, x
        yield x


NAIVE = {
    "Nesterov": naive_nesterov,
    "Nesterov, moving at the start": lambda *given: naive_nesterov(*given, np.array([0.3, -0.2])),
    "QHM": naive_qhm,
    "PrimalAveraging": naive_primal_averaging,
    "AccSGD": naive_accsgd,
    "PNM": naive_pnm,
    "STORM": naive_storm,
    "RandomScaling": naive_random_scaling,
    "SNGM": naive_sngm,
    "SGDF": naive_sgdf,
    "IGT": naive_igt,
}


@pytest.mark.parametrize("name", ALL)
def test_a_rule_agrees_with_a_plain_loop(name):
    reference = np.array([X0, *NAIVE[name](noisy, X0, ETAS, BETAS)])
    np.testing.assert_allclose(walk(ALL[name]()), reference, rtol=1e-12, atol=1e-12)
    assert np.abs(reference[-1] - X0).max() > 0.05  # the iterates move


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("QHM", lambda: QHM(ORACLE, MOVING, nu=0.8)),
        ("PrimalAveraging", lambda: PrimalAveraging(ORACLE, BARE, c=0.2)),
        ("AccSGD", lambda: AccSGD(ORACLE, BARE, kappa=50, xi=6)),
        ("PNM", lambda: PNM(ORACLE, MOVING, b0=0.9)),
        ("STORM", lambda: STORM(ORACLE, BARE, a=0.3)),
        ("SGDF", lambda: SGDF(ORACLE, MOVING, b2=0.5)),
    ],
)
def test_another_parameter_gives_other_iterates(name, changed):
    """Negative control of the test above."""
    reference = np.array([X0, *NAIVE[name](noisy, X0, ETAS, BETAS)])
    assert np.abs(walk(changed()) - reference).max() > 1e-3


@pytest.mark.parametrize("name", ["QHM", "AccSGD", "PNM", "STORM", "RandomScaling", "SNGM", "SGDF", "IGT"])
def test_the_kernel_agrees_with_the_reference_path_by_path(name):
    d = ALL[name]()
    options = {"horizon": 24 * d.step_time, "paths": 600, "observe": ["x"], "keep_final": True, "threads": 1, "seed": 3}
    kernel, reference = (st.simulate(d, X0, backend=backend, **options).final for backend in ("numba", "numpy"))
    np.testing.assert_allclose(kernel, reference, rtol=1e-11, atol=1e-12)
    assert reference.std(axis=1).min() > 1e-3


# -- the contract of a dynamics --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_shapes_layouts_and_untouched_inputs(name):
    d, paths = ALL[name](), 3
    assert d.parts[0] == "x" and d.formula and d.name in repr(d) and d.step_time > 0
    np.testing.assert_array_equal(d.coefficient_values(9)[:4], d.coefficient_values(4))
    assert d.coefficient_values(0).shape == (0, len(d.coefficients))
    start = d.start(X0)
    assert [part.shape for part in start] == [(2,)] * len(d.parts)
    np.testing.assert_array_equal(start[0], X0)
    z = RNG.uniform(0.1, 0.9, (2 + len(d.extra_draws), paths))
    together = tuple(part[:, None] + 0.1 * np.arange(paths) for part in start)
    for part in (*start, *together):
        part.setflags(write=False)
    for row in d.coefficient_values(3)[[0, 2]]:
        after = d.rule(together, d.bind(z), *row)
        for j in range(paths):
            alone = d.rule(tuple(part[:, j] for part in together), d.bind(z[:, j]), *row)
            for a, b in zip(after, alone, strict=True):
                np.testing.assert_allclose(a[:, j], b, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_it_pickles(name):
    d = ALL[name]()
    copy = pickle.loads(pickle.dumps(d))
    assert distance(d, copy, 5) == 0 and copy.identity == d.identity and copy.step_time == d.step_time


def test_additional_positions_start_at_x0():
    for name, parts in {"PrimalAveraging": ["z"], "AccSGD": ["w"], "STORM": ["previous"], "IGT": ["previous"]}.items():
        d = ALL[name]()
        for part in parts:
            np.testing.assert_array_equal(d.start(X0)[d.parts.index(part)], X0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QHM(ORACLE, MOVING, nu=math.nan), "`nu` must be a finite number; got nu=nan. nu = 0 is SGD, nu = 1 is SGDM."),
        (lambda: PrimalAveraging(ORACLE, BARE, c=0.0), "`c` must lie in (0, 1]; got c=0.0. At c = 1 the method is SGD"),
        (lambda: PrimalAveraging(ORACLE, MOVING), "`plan` of PrimalAveraging must be without momentum; got one with beta > 0."),
        (lambda: AccSGD(ORACLE, BARE, kappa=-1), "`kappa` must be a positive number; got kappa=-1."),
        (lambda: AccSGD(ORACLE, BARE, xi="a"), "`xi` must be a positive number; got xi='a'."),
        (lambda: AccSGD(ORACLE, BARE, kappa=4.9, xi=10.5), "`xi` must be at most kappa / 0.49 = 10; got xi=10.5."),
        (lambda: AccSGD(ORACLE, MOVING), "`plan` of AccSGD must be without momentum"),
        (lambda: PNM(ORACLE, MOVING, b0=math.inf), "`b0` must be a finite number; got b0=inf."),
        (lambda: STORM(ORACLE, BARE, a=1.5), "`a` must lie in (0, 1]; got a=1.5. At a = 1 the method is SGD"),
        (lambda: STORM(ORACLE, MOVING), "`plan` of STORM must be without momentum"),
        (lambda: SGDF(ORACLE, MOVING, b2=1.0), "`b2` must lie in [0, 1); got b2=1.0."),
        (lambda: SGDF(ORACLE, MOVING, eps=0.0), "`eps` must be a positive number; got eps=0.0. It avoids 0 / 0"),
        (lambda: IGT(ORACLE, MOVING), "`plan` of IGT must be without momentum"),
        (lambda: IGT(ORACLE, 0.1), "`plan` must be a schedule; got 0.1."),
        (lambda: Nesterov(ORACLE, MOVING, step_time=-1), "`step_time` must be a positive number"),
        (lambda: ALL["SNGM"]().gain, "`gain` requires a linear filter; SNGM is not linear"),
        (lambda: ALL["SGDF"]().gain, "`gain` requires a linear filter; SGDF is not linear"),
        (lambda: ALL["IGT"]().gain, "`gain` requires a filter with a fading memory"),
    ],
)
def test_invalid_arguments_raise_value_error(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value).startswith(message)


# -- identities between methods ------------------------------------------------------------------------------------------------------------

ETA, BETA = 0.02, 0.85
STEADY, PLAIN = st.schedules.constant(ETA, BETA), st.schedules.constant(ETA)
VARYING = st.schedules.from_arrays(ETAS, BETA)
"""Varying rates with a constant momentum."""


def accsgd_as_qhm(rates, kappa, xi, e=0.7):
    """Return the equivalent QHM on a schedule of short steps."""
    nu, b = (e * xi - 1) / (e * (1 + xi)), (kappa - e**2 * xi) / (kappa + e * xi)
    return QHM(ORACLE, st.schedules.from_arrays(np.asarray(rates) * e * (1 + xi) / (1 + e), b), nu=nu)


def pnm_as_sgdm(b, wrong=1.0):
    b0 = -b / (1 + b) * wrong
    return PNM(ORACLE, STEADY, b0=b0), st.SGDM(ORACLE, st.schedules.constant(ETA / math.hypot(1 + b0, b0), b))


SAME = {
    "QHM, nu = 1, is SGDM": lambda w: (QHM(ORACLE, MOVING, nu=1.0 - w), st.SGDM(ORACLE, MOVING)),
    "QHM, nu = 0, is SGD": lambda w: (QHM(ORACLE, MOVING, nu=w), st.SGD(ORACLE, BARE)),
    "QHM, nu = beta, is Nesterov": lambda w: (
        Nesterov(ORACLE, VARYING),
        QHM(ORACLE, st.schedules.from_arrays(ETAS / (1 - BETA), BETA), nu=BETA - w),
    ),
    "Nesterov, mu = 0, is SGD": lambda w: (
        Nesterov(ORACLE, st.schedules.from_arrays(ETAS, w)),
        st.SGD(ORACLE, BARE),
    ),
    "PrimalAveraging is SGDM": lambda w: (PrimalAveraging(ORACLE, PLAIN, c=1 - BETA + w), st.SGDM(ORACLE, STEADY)),
    "PrimalAveraging is HeavyBall at eta = a / (1 - b)": lambda w: (
        PrimalAveraging(ORACLE, st.schedules.constant(ETA / (1 - BETA)), c=1 - BETA + w),
        st.HeavyBall(ORACLE, gamma=ETA, beta=BETA),
    ),
    "PrimalAveraging, c = 1, is SGD": lambda w: (PrimalAveraging(ORACLE, BARE, c=1.0 - w), st.SGD(ORACLE, BARE)),
    "AccSGD is QHM": lambda w: (AccSGD(ORACLE, PLAIN, kappa=50, xi=5), accsgd_as_qhm([ETA], 50, 5 + 5 * w)),
    "AccSGD is QHM, the authors' numbers": lambda w: (AccSGD(ORACLE, PLAIN), accsgd_as_qhm([ETA], 1000, 10 + 5 * w)),
    "PNM, beta = b0 = 0, is SGD": lambda w: (PNM(ORACLE, BARE, b0=w), st.SGD(ORACLE, BARE)),
    "PNM, b0 = - beta / (1 + beta), is SGDM": lambda w: pnm_as_sgdm(BETA, 1 + w),
    "STORM, a = 1, is SGD": lambda w: (STORM(ORACLE, BARE, a=1.0 - w), st.SGD(ORACLE, BARE)),
    "SGDF, beta = 0, is SGD": lambda w: (
        SGDF(ORACLE, st.schedules.from_arrays(ETAS, w)),
        st.SGD(ORACLE, BARE),
    ),
    "RandomScaling, beta = 0, is SGD of those lengths": lambda w: (
        RandomScaling(ORACLE, st.schedules.from_arrays(ETAS, w)),
        st.SGD(ORACLE, st.schedules.from_arrays(-ETAS * np.log(UNIFORMS))),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_special_cases_coincide(case):
    assert distance(*SAME[case](0.0)) < 1e-13


@pytest.mark.parametrize("case", SAME)
def test_with_a_wrong_parameter_they_differ(case):
    """Negative control."""
    assert distance(*SAME[case](0.1)) > 1e-3


def test_methods_whose_memory_contains_the_rate_differ_on_a_schedule():
    assert distance(PrimalAveraging(ORACLE, BARE, c=1 - BETA), st.SGDM(ORACLE, VARYING)) > 1e-3
    assert distance(AccSGD(ORACLE, BARE, kappa=50, xi=5), accsgd_as_qhm(ETAS, 50, 5)) > 1e-3


def test_sgdf_interpolates_between_the_average_and_the_gradient():
    d = SGDF(ORACLE, MOVING)
    state, kept = d.start(X0), []
    for k, row in enumerate(d.coefficient_values(STEPS)):
        g, x = noisy(state[0], k), state[0]
        state = d.rule(state, d.bind(NORMALS[k]), *row)
        mean = state[1] / row[4]
        if k:  # the first mean is the first gradient
            kept.append(((x - state[0]) / row[0] - mean) / (g - mean))
    kept = np.array(kept)
    assert kept.min() > -1e-9 and kept.max() < 1 + 1e-9 and kept.std() > 0.1
    np.testing.assert_allclose(walk(d)[1], X0 - ETAS[0] * noisy(X0, 0), rtol=1e-14)


ADDITIVE = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2), sigma=0.3)


def test_storm_averages_the_noise_and_not_the_gradient():
    d, e = STORM(ADDITIVE, BARE, a=0.2), 0.0
    state = d.start(X0)
    for k, row in enumerate(d.coefficient_values(STEPS)):
        x, state = state[0], d.rule(state, d.bind(NORMALS[k]), *row)
        e = 0.3 * NORMALS[k] if k == 0 else 0.8 * e + 0.2 * 0.3 * NORMALS[k]
        np.testing.assert_allclose(state[1], ADDITIVE.loss.gradient(x) + e, rtol=1e-12, atol=1e-13)


def test_igt_is_the_current_gradient_plus_the_mean_of_all_noise():
    """The identity holds on a quadratic loss and fails on another one."""
    for loss, holds in ((st.losses.quadratic([1.0, 3.0]), True), (st.losses.hyperbola(), False)):
        d = IGT(st.NoisyOracle(loss, st.noise.gaussian(dim=2), sigma=0.3), BARE)
        state, miss = d.start(X0), 0.0
        for k, row in enumerate(d.coefficient_values(STEPS)):
            x, state = state[0], d.rule(state, d.bind(NORMALS[k]), *row)
            miss = max(miss, np.abs(state[1] - loss.gradient(x) - 0.3 * NORMALS[: k + 1].mean(axis=0)).max())
        assert (miss < 1e-12) if holds else (miss > 1e-3)


def test_sngm_depends_on_the_direction_only_and_accepts_a_zero_gradient():
    loud = st.NoisyOracle(st.losses.quadratic([1000.0, 1000.0]), st.noise.none(dim=2))
    soft = st.NoisyOracle(st.losses.quadratic([1.0, 1.0]), st.noise.none(dim=2))
    start, row = (X0, np.array([0.1, 0.2])), (0.1, 0.9)
    for a, b in zip(SNGM.rule(start, loud.loss.gradient, *row), SNGM.rule(start, soft.loss.gradient, *row), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    steps = np.linalg.norm(np.diff(walk(SNGM(ORACLE, STEADY)), axis=0), axis=1)
    assert steps.max() < ETA / (1 - BETA)
    for backend in ("numpy", "numba"):
        run = st.simulate(SNGM(soft, STEADY), [0.0, 0.0], 4 * ETA, 3, ["x0"], keep_final=True, backend=backend)
        np.testing.assert_array_equal(run.final, 0.0)
    one = SNGM.rule((np.array([[0.0, 3.0], [0.0, 4.0]]), np.zeros((2, 2))), soft.loss.gradient, *row)[1]
    np.testing.assert_allclose(one, [[0.0, 0.6], [0.0, 0.8]], rtol=1e-15)  # one path at rest, one in motion


# -- gains ----------------------------------------------------------------------------------------------------------------------

GAINS = {
    "SGDM's average": (lambda: QHM(ORACLE, STEADY, nu=1.0), 1.0),
    "Nesterov": (lambda: Nesterov(ORACLE, STEADY), 1 / (1 - BETA)),
    "QHM": (lambda: QHM(ORACLE, st.schedules.constant(ETA, 0.999)), 1.0),
    "PrimalAveraging": (lambda: PrimalAveraging(ORACLE, PLAIN, c=0.05), 1.0),
    "AccSGD": (lambda: AccSGD(ORACLE, PLAIN), 0.7 * 11 / 1.7),
    "PNM": (lambda: PNM(ORACLE, STEADY), 1 / math.sqrt(5)),
    "PNM, b0 = 0": (lambda: PNM(ORACLE, STEADY, b0=0.0), 1.0),
    "PNM, beta = 0": (lambda: PNM(ORACLE, PLAIN), 1 / math.sqrt(5)),
    "STORM": (lambda: STORM(ORACLE, PLAIN), 1.0),
    "RandomScaling": (lambda: RandomScaling(ORACLE, STEADY), 1.0),
}


@pytest.mark.parametrize("name", GAINS)
def test_gains_have_closed_forms_and_set_the_clock(name):
    make, expected = GAINS[name]
    d = make()
    assert d.gain == pytest.approx(expected, rel=1e-12)
    assert d.step_time == pytest.approx(expected * ETA, rel=1e-12)
    assert d.averaged().etas(3) == pytest.approx(expected * ETA, rel=1e-12) and not d.averaged().has_momentum
    assert st.SGD(ORACLE, d.averaged()).step_time == d.step_time


def test_an_explicit_step_time_is_used():
    d = Nesterov(ORACLE, STEADY, step_time=0.5)
    assert d.step_time == 0.5 and d.averaged().eta == 0.5


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", [name for name in GAINS if name != "RandomScaling"])
def test_the_variance_of_endpoints_grows_with_the_gain_squared(name):
    """The example of section 3.1: Var x_K / (K eta^2) tends to gain^2; no draw has more weight than twice the memory."""
    eta, steps = 1e-3, 2**22
    walk_of = GAINS[name][0]()
    d = type(walk_of).__new__(type(walk_of))
    d.__dict__.update(walk_of.__dict__)
    d.oracle = st.NoisyOracle(st.losses.linear([1.0]), st.noise.gaussian(dim=1))
    d.plan = st.schedules.constant(eta, walk_of.plan.beta_values[0])
    d.momentum_mean = np.zeros(1)
    found = st.exact.moments(d, [0.0], steps, record=[steps])
    assert found.covariance[-1, 0, 0] / (steps * eta**2) == pytest.approx(d.gain**2, rel=4 * d.longest_memory**2 / steps)
    assert found.mean[-1, 0] / (steps * eta) == pytest.approx(-d.gain, rel=d.longest_memory / steps + 1e-9)


def test_gains_at_beta_0_9():
    """Beta = 0.9: endpoint variance over K eta^2 is 1 for the average, 100 for Nesterov's sum, 0.2 for PNM."""
    plan = st.schedules.constant(ETA, 0.9)
    assert [QHM(ORACLE, plan).gain ** 2, Nesterov(ORACLE, plan).gain ** 2] == pytest.approx([1.0, 100.0])
    assert PNM(ORACLE, plan).gain == pytest.approx(0.447, abs=5e-4)


SMOOTH = st.schedules.from_arrays(np.linspace(0.02, 0.01, STEPS), np.linspace(0.5, 0.9, STEPS))
ON_SMOOTH = {
    "Nesterov": lambda: Nesterov(ORACLE, SMOOTH),
    "QHM": lambda: QHM(ORACLE, SMOOTH, nu=0.7),
    "PrimalAveraging": lambda: PrimalAveraging(ORACLE, st.schedules.from_arrays(SMOOTH.eta_values), c=0.15),
    "AccSGD": lambda: AccSGD(ORACLE, st.schedules.from_arrays(SMOOTH.eta_values), kappa=50, xi=5),
    "PNM": lambda: PNM(ORACLE, SMOOTH),
}


@pytest.mark.parametrize("name", ON_SMOOTH)
def test_the_averaged_plan_is_the_response_to_a_single_gradient(name):
    """The total effect of a gradient at step k on x, in the plain loop, is -etabar_k."""
    schedule, rates = (SMOOTH.etas(2000), SMOOTH.betas(2000)), ON_SMOOTH[name]().averaged().etas(61)
    for k in (0, 7, 48, 49, 60):
        *_, end = NAIVE[name](lambda x, j, k=k: np.full(2, float(j == k)), np.zeros(2), *schedule)
        np.testing.assert_allclose(-end, rates[k], rtol=1e-11)
    assert np.ptp(rates) > 1e-3


def test_a_filter_with_a_negative_averaged_rate_has_no_plan():
    with pytest.raises(ValueError, match="`averaged` of PNM must have rates >= 0") as error:
        PNM(ORACLE, MOVING).averaged()
    assert "of step" in str(error.value)


def test_averaged_plans_agree_with_the_theorem():
    np.testing.assert_allclose(QHM(ORACLE, MOVING, nu=1.0).averaged().etas(60), MOVING.averaged().etas(60), rtol=1e-13)
    np.testing.assert_allclose(RandomScaling(ORACLE, MOVING).averaged().etas(60), MOVING.averaged().etas(60), rtol=1e-13)
    wanted = st.schedules.from_arrays(ETAS, 0.8).averaged()
    np.testing.assert_allclose(STORM(ORACLE, BARE, a=0.2).averaged().etas(60), wanted.etas(60), rtol=1e-13)
    assert np.abs(QHM(ORACLE, MOVING).averaged().etas(60) - MOVING.averaged().etas(60)).max() > 1e-3


@pytest.mark.parametrize("name", ["Nesterov", "Nesterov, moving at the start", "QHM"])
def test_the_memory_of_the_buffer_gives_the_auxiliary_process(name):
    """y_k = x_k - c_k m_k moves by -etabar_k g_k, path by path, on every schedule."""
    d = ALL[name]()
    c, rates, state = d.memory(STEPS), d.averaged().etas(STEPS), d.start(X0)
    assert len(c) == STEPS + 1 and len(d.memory(3)) == 4 and len(d.memory(STEPS + 9)) == STEPS + 10
    np.testing.assert_array_equal(d.fading(STEPS), BETAS)
    for k, row in enumerate(d.coefficient_values(STEPS)):
        y, g = state[0] - c[k] * state[1], noisy(state[0], k)
        state = d.rule(state, d.bind(NORMALS[k]), *row)
        np.testing.assert_allclose(state[0] - c[k + 1] * state[1], y - rates[k] * g, rtol=0, atol=1e-13)


def test_memories_in_steps():
    assert Nesterov(ORACLE, STEADY).longest_memory == pytest.approx(1 / (1 - BETA))
    assert PrimalAveraging(ORACLE, PLAIN, c=0.05).longest_memory == pytest.approx(20)
    assert STORM(ORACLE, PLAIN, a=0.25).longest_memory == pytest.approx(4)
    assert PNM(ORACLE, STEADY).longest_memory == pytest.approx(1 / (1 - BETA))
    b = (1000 - 0.49 * 10) / (1000 + 0.7 * 10)
    assert AccSGD(ORACLE, PLAIN).longest_memory == pytest.approx(1 / (1 - b))
    assert issubclass(RandomScaling, LinearFilter) and not issubclass(IGT, LinearFilter)


def test_the_gap_to_sgd_at_the_gain_agrees_with_the_exact_gap_and_uses_the_control_variate():
    """A z-test at 5 standard errors (false alarm 6e-7), and a wrong rate that fails it."""
    h, quadratic = 2.0**-6, st.losses.from_expression("x**2/2")
    oracle = st.NoisyOracle(quadratic, st.noise.gaussian(dim=1), sigma=h**-0.5)
    d = Nesterov(oracle, st.schedules.constant(h / 10, 0.9))
    sgd = st.SGD(oracle, d.averaged())
    gap = st.weak_gap(d, sgd, [1.0], 1.0, 20_000, ["x**2"], seed=1)
    exact = st.exact.gap(d, sgd, [1.0], 64, "x**2", record=[64])[0]
    assert gap.controlled and abs(gap.at("x**2").z(exact)) < 5
    coupled, controlled = gap.variance_reduction("x**2")
    assert controlled > coupled > 2
    wrong = st.SGD(oracle, st.schedules.constant(0.7 * h), step_time=h)
    assert abs(st.weak_gap(d, wrong, [1.0], 1.0, 20_000, ["x**2"], seed=1).at("x**2").z(exact)) > 10
