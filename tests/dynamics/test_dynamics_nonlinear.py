"""Adaptive, sign, clipped and multi-gradient rules: plain loops from the papers, identities, exact laws, backends, and what exact results refuse."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from scipy.stats import norm

import sdetools as st
from sdetools.dynamics.catalogue import optimisers

STEPS = 50
RNG = np.random.default_rng(8)
ETAS, BETAS = RNG.uniform(0.002, 0.02, STEPS), RNG.uniform(0.1, 0.95, STEPS)
NORMALS = RNG.standard_normal((STEPS, 4, 2))
"""The draws of each step for up to four workers."""
MOVING, BARE = st.schedules.from_arrays(ETAS, BETAS), st.schedules.from_arrays(ETAS)
STEADY = st.schedules.constant(0.01, 0.9)
ORACLE = st.NoisyOracle(
    st.losses.hyperbola(), st.noise.gaussian(root=[["1 + x**2/9", "0"], ["y", "1"]], variables="x y"), sigma=2.0
)
X0, V0, M0 = np.array([2.0, 1.5]), np.array([0.5, 2.0]), np.array([0.3, -0.2])
LAGGED = {"beta2": 0.9, "eps": 0.1, "lagged": True, "second_moment": V0, "momentum": M0}


def noisy(x, k, worker=0):
    """The noisy gradient of step k on the draws of a worker."""
    return ORACLE(x, NORMALS[k, worker])


def walk(dynamics, steps=STEPS):
    """The positions after 0 ... steps steps of the rule, on the same draws for every rule."""
    state = dynamics.start(X0)
    path = [state[0]]
    for k, row in enumerate(dynamics.coefficient_values(steps)):
        state = dynamics.rule(state, dynamics.bind(NORMALS[k, : dynamics.copies].ravel()), *row)
        path.append(state[0])
    return np.array(path)


def distance(a, b, steps=STEPS):
    return np.abs(walk(a, steps) - walk(b, steps)).max()


# -- plain loops from the papers, coordinate by coordinate ---------------------------------------------------------------------


def naive_adam(
    beta2=0.999, eps=1e-8, lagged=False, bias_correction=True, second_moment=(0.0, 0.0), momentum=(0.0, 0.0), weight_decay=0.0
):
    x, m, v, left = list(X0), list(momentum), list(second_moment), 1.0
    for k in range(STEPS):
        g, left = noisy(np.array(x), k), left * BETAS[k]
        for i in range(2):
            before = v[i]
            x[i] = x[i] * (1 - ETAS[k] * weight_decay)
            m[i] = BETAS[k] * m[i] + (1 - BETAS[k]) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            mean, square = m[i], before if lagged else v[i]
            if bias_correction:
                mean, square = mean / (1 - left), square / (1 - beta2 ** (k + 1))
            x[i] = x[i] - ETAS[k] * mean / (math.sqrt(square) + eps)
        yield np.array(x)


def naive_rmsprop(beta2=0.99, eps=1e-8, lagged=False, bias_correction=False, second_moment=(0.0, 0.0), momentum=(0.0, 0.0)):
    x, b, v = list(X0), list(momentum), list(second_moment)
    for k in range(STEPS):
        g = noisy(np.array(x), k)
        for i in range(2):
            before = v[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            square = (before if lagged else v[i]) / ((1 - beta2 ** (k + 1)) if bias_correction else 1)
            b[i] = BETAS[k] * b[i] + g[i] / (math.sqrt(square) + eps)
            x[i] = x[i] - ETAS[k] * b[i]
        yield np.array(x)


def naive_sign():
    x = X0
    for k in range(STEPS):
        g = noisy(x, k)
        x = np.array([x[i] - math.copysign(ETAS[k], g[i]) for i in range(2)])
        yield x


def naive_signum():
    x, m = X0, np.zeros(2)
    for k in range(STEPS):
        m = m - (1 - BETAS[k]) * (m - noisy(x, k))
        x = np.array([x[i] - math.copysign(ETAS[k], m[i]) for i in range(2)])
        yield x


def naive_lion(beta2=0.99, weight_decay=0.0):
    """Follow the authors' pseudocode: the update interpolates by beta_1, the stored average by beta_2."""
    x, m = X0, np.zeros(2)
    for k in range(STEPS):
        g = noisy(x, k)
        c = BETAS[k] * m + (1 - BETAS[k]) * g
        x = np.array([x[i] - ETAS[k] * (math.copysign(1.0, c[i]) + weight_decay * x[i]) for i in range(2)])
        m = beta2 * m + (1 - beta2) * g
        yield x


def naive_clipped(value=math.inf, norm=math.inf):
    x = X0
    for k in range(STEPS):
        g = [min(max(u, -value), value) for u in noisy(x, k)]
        size = math.hypot(*g)
        x = np.array([x[i] - ETAS[k] * (g[i] if size <= norm else g[i] * norm / size) for i in range(2)])
        yield x


def naive_normalised():
    x = X0
    for k in range(STEPS):
        g = noisy(x, k)
        x = x - ETAS[k] * g / math.hypot(*g)
        yield x


def naive_local(workers=3, local_steps=4):
    """Follow the usual presentation: rounds of local steps, after each of which the average is sent to all workers."""
    sent, done = X0, 0
    while done < STEPS:
        local = [sent] * workers
        for k in range(done, min(done + local_steps, STEPS)):
            local = [w - ETAS[k] * noisy(w, k, i) for i, w in enumerate(local)]
            yield np.mean(local, axis=0)
        sent, done = np.mean(local, axis=0), done + local_steps


def naive_sam(rho=0.05):
    x = X0
    for k in range(STEPS):
        probe = x + rho * noisy(x, k)
        x = x - ETAS[k] * noisy(probe, k)
        yield x


def naive_acsgd(ratio=0.1):
    """Follow the paper's three sequences: x_{t+1}, z_{t+1} from the gradient at y_t, (t + 2) y_{t+1} = (t + 1) x_{t+1} + z_{t+1}."""
    z = y = X0
    for t in range(STEPS):
        g = noisy(y, t)
        x, z = y - ETAS[t] * g, z - ratio * ETAS[t] * (t + 1) * g
        y = ((t + 1) * x + z) / (t + 2)
        yield x


CASES = {
    "Adam": (lambda: st.Adam(ORACLE, MOVING), naive_adam),
    "Adam, uncorrected": (
        lambda: st.Adam(ORACLE, MOVING, beta2=0.9, bias_correction=False),
        lambda: naive_adam(beta2=0.9, bias_correction=False),
    ),
    "Adam, lagged": (lambda: st.Adam(ORACLE, MOVING, **LAGGED), lambda: naive_adam(**LAGGED)),
    "Adam, lagged, uncorrected": (
        lambda: st.Adam(ORACLE, MOVING, **LAGGED, bias_correction=False),
        lambda: naive_adam(**LAGGED, bias_correction=False),
    ),
    "AdamW": (lambda: st.AdamW(ORACLE, MOVING, weight_decay=2.0), lambda: naive_adam(weight_decay=2.0)),
    "AdamW, lagged": (
        lambda: st.AdamW(ORACLE, MOVING, **LAGGED, weight_decay=2.0),
        lambda: naive_adam(**LAGGED, weight_decay=2.0),
    ),
    "RMSProp": (lambda: st.RMSProp(ORACLE, MOVING), naive_rmsprop),
    "RMSProp, lagged": (lambda: st.RMSProp(ORACLE, MOVING, **LAGGED), lambda: naive_rmsprop(**LAGGED)),
    "RMSProp, corrected": (
        lambda: st.RMSProp(ORACLE, MOVING, bias_correction=True),
        lambda: naive_rmsprop(bias_correction=True),
    ),
    "RMSProp, lagged, corrected": (
        lambda: st.RMSProp(ORACLE, MOVING, **LAGGED, bias_correction=True),
        lambda: naive_rmsprop(**LAGGED, bias_correction=True),
    ),
    "SignSGD": (lambda: st.SignSGD(ORACLE, BARE), naive_sign),
    "Signum": (lambda: st.Signum(ORACLE, MOVING), naive_signum),
    "Lion": (lambda: st.Lion(ORACLE, MOVING), naive_lion),
    "Lion, decay": (
        lambda: st.Lion(ORACLE, MOVING, beta2=0.8, weight_decay=2.0),
        lambda: naive_lion(beta2=0.8, weight_decay=2.0),
    ),
    "ClippedSGD, value": (lambda: st.ClippedSGD(ORACLE, BARE, value=1.5), lambda: naive_clipped(value=1.5)),
    "ClippedSGD, norm": (lambda: st.ClippedSGD(ORACLE, BARE, norm=2.0), lambda: naive_clipped(norm=2.0)),
    "NormalisedSGD": (lambda: st.NormalisedSGD(ORACLE, BARE), naive_normalised),
    "LocalSGD": (lambda: st.LocalSGD(ORACLE, BARE, workers=3, local_steps=4), naive_local),
    "SAM": (lambda: st.SAM(ORACLE, BARE, rho=0.05), naive_sam),
    "AcSGD": (lambda: st.AcSGD(ORACLE, BARE, ratio=0.1), naive_acsgd),
}


ALL = {name: make for name, (make, _) in CASES.items()}
"""The rules, for the comparison of all backends (`tests/programs.py`)."""


@pytest.mark.parametrize("name", CASES)
def test_a_rule_agrees_with_a_plain_loop(name):
    make, naive = CASES[name]
    reference = np.array([X0, *naive()])
    np.testing.assert_allclose(walk(make()), reference, rtol=1e-11, atol=1e-12)
    assert np.abs(reference[-1] - X0).max() > 0.05  # the iterates move


def test_no_two_cases_have_the_same_path():
    """Negative control of the loops: every switch changes the path."""
    ends = np.array([walk(make())[-1] for make, _ in CASES.values()])
    apart = np.abs(ends[:, None] - ends).max(axis=2) + np.eye(len(ends))
    assert apart.min() > 1e-4


# -- identities between methods ---------------------------------------------------------------------------------------------------


def lone_adam(w, cls=st.Adam, **more):
    """Adam without memory: beta = beta2 = eps = 0, at w = 0."""
    return cls(ORACLE, BARE, beta2=w, eps=w, **more)


CONSTANT_V = {"lagged": True, "second_moment": 1.0, "beta2": 1.0, "eps": 0.0, "bias_correction": False}
SAME = {
    "Adam, beta = beta2 = eps = 0, is SignSGD": lambda w: (lone_adam(w), st.SignSGD(ORACLE, BARE)),
    "AdamW, the same without decay": lambda w: (
        st.AdamW(ORACLE, BARE, beta2=0.0, eps=0.0, weight_decay=w),
        st.SignSGD(ORACLE, BARE),
    ),
    "RMSProp, beta = beta2 = eps = 0, is SignSGD": lambda w: (lone_adam(w, st.RMSProp), st.SignSGD(ORACLE, BARE)),
    "Adam, v constant, is SGDM": lambda w: (
        st.Adam(ORACLE, MOVING, **CONSTANT_V),
        st.SGDM(ORACLE, st.schedules.from_arrays(ETAS * (1 + w), BETAS)),
    ),
    "Adam, v constant at 4, is SGDM at half the rate": lambda w: (
        st.Adam(ORACLE, MOVING, **{**CONSTANT_V, "second_moment": 4.0 + w}),
        st.SGDM(ORACLE, st.schedules.from_arrays(ETAS / 2, BETAS)),
    ),
    "RMSProp, v constant, is HeavyBall": lambda w: (
        st.RMSProp(ORACLE, MOVING, **CONSTANT_V),
        st.HeavyBall(ORACLE, gamma=ETAS * (1 + w), beta=BETAS),
    ),
    "Adam, beta = 0, is RMSProp": lambda w: (
        st.Adam(ORACLE, BARE, beta2=0.9),
        st.RMSProp(ORACLE, BARE, beta2=0.9 + w / 2, bias_correction=True),
    ),
    "AdamW, wd = 0, is Adam": lambda w: (st.AdamW(ORACLE, MOVING, weight_decay=10 * w), st.Adam(ORACLE, MOVING)),
    "Signum, beta = 0, is SignSGD": lambda w: (
        st.Signum(ORACLE, st.schedules.from_arrays(ETAS, 5 * w)),
        st.SignSGD(ORACLE, BARE),
    ),
    "Lion, beta = beta2, is Signum": lambda w: (st.Lion(ORACLE, STEADY, beta2=0.9 - 5 * w), st.Signum(ORACLE, STEADY)),
    "ClippedSGD, value = inf, is SGD": lambda w: (
        st.ClippedSGD(ORACLE, BARE, value=1 / w if w else math.inf),
        st.SGD(ORACLE, st.schedules.from_arrays(ETAS * (1 + w))),
    ),
    "ClippedSGD, norm = inf, is SGD": lambda w: (
        st.ClippedSGD(ORACLE, BARE, norm=1 / w if w else math.inf),
        st.SGD(ORACLE, st.schedules.from_arrays(ETAS * (1 + w))),
    ),
    "ClippedSGD, norm small, is NormalisedSGD": lambda w: (
        st.ClippedSGD(ORACLE, st.schedules.from_arrays(ETAS * 2.0**20), norm=2.0**-20 * (1 + w)),
        st.NormalisedSGD(ORACLE, BARE),
    ),
    "NormalisedSGD is SNGM without momentum": lambda w: (
        st.NormalisedSGD(ORACLE, BARE),
        st.SNGM(ORACLE, st.schedules.from_arrays(ETAS, w)),
    ),
    "LocalSGD, K = 1, H = 1, is SGD": lambda w: (
        st.LocalSGD(ORACLE, BARE, workers=1, local_steps=1),
        st.SGD(ORACLE, st.schedules.from_arrays(ETAS * (1 + w))),
    ),
    "LocalSGD, K = 1, H = 7, is SGD": lambda w: (
        st.LocalSGD(ORACLE, BARE, workers=1, local_steps=7),
        st.SGD(ORACLE, st.schedules.from_arrays(ETAS * (1 + w))),
    ),
    "SAM, rho = 0, is SGD": lambda w: (st.SAM(ORACLE, BARE, rho=w), st.SGD(ORACLE, BARE)),
}


@pytest.mark.parametrize("case", SAME)
def test_special_cases_coincide(case):
    assert distance(*SAME[case](0.0)) < 1e-12


@pytest.mark.parametrize("case", SAME)
def test_with_a_wrong_parameter_they_differ(case):
    """Negative control."""
    assert distance(*SAME[case](0.1)) > 1e-4


def test_acsgd_is_nesterovs_method_at_ratio_1():
    """Without noise on a quadratic: y_t = x_t + (t - 1) / (t + 1) (x_t - x_{t-1}); another ratio is another method."""
    quiet = st.NoisyOracle(st.losses.quadratic([3.0, 0.1]), st.noise.none(2))
    plan = st.schedules.constant(0.3)
    previous, y, seen = X0, X0, [X0]
    for t in range(STEPS):
        x = y - 0.3 * quiet.loss.gradient(y)
        y, previous = x + t / (t + 2) * (x - previous), x
        seen.append(x)

    def path(ratio):
        method = st.AcSGD(quiet, plan, ratio=ratio)
        state, found = method.start(X0), [X0]
        for row in method.coefficient_values(STEPS):
            state = method.rule(state, method.bind(np.zeros(0)), *row)
            found.append(state[0])
        return np.array(found)

    np.testing.assert_allclose(path(1.0), seen, rtol=0, atol=1e-13)
    assert np.abs(path(0.9) - seen).max() > 1e-3


@pytest.mark.parametrize("wrong", [0.0, 0.1])
def test_the_momentum_of_lagged_adam_is_a_change_of_variables(wrong):
    """y = x - kappa m / P, kappa = eta b / (1 - b), moves by -eta g / P_k - kappa (1 / P_{k+1} - 1 / P_k) m', P_k = sqrt(v_k) + eps, path by path."""
    b = 0.8
    adam = st.Adam(
        ORACLE, st.schedules.constant(0.01, b), beta2=0.9, eps=0.3, lagged=True, bias_correction=False, second_moment=V0
    )
    kappa, state, worst = 0.01 * b / (1 - b) * (1 + wrong), adam.start(X0), 0.0
    for k, row in enumerate(adam.coefficient_values(STEPS)):
        (x, m, v), g = state, noisy(state[0], k)
        state = adam.rule(state, adam.bind(NORMALS[k, 0]), *row)
        before, after = np.sqrt(v) + 0.3, np.sqrt(state[2]) + 0.3
        moved = (state[0] - kappa * state[1] / after) - (x - kappa * m / before)
        worst = max(worst, np.abs(moved + 0.01 * g / before + kappa * (1 / after - 1 / before) * state[1]).max())
    assert worst < 1e-14 if wrong == 0 else worst > 1e-4


def test_workers_on_a_quadratic_loss_average_to_sgd_with_the_averaged_noise():
    """A linear gradient commutes with the mean, whatever the number of local steps; on another loss it does not."""
    for loss, holds in ((st.losses.quadratic([[2.0, 0.5], [0.5, 1.0]]), True), (st.losses.hyperbola(), False)):
        oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=2), sigma=0.5)
        method = st.LocalSGD(oracle, BARE, workers=4, local_steps=6)
        state, x, worst = method.start(X0), X0, 0.0
        for k, row in enumerate(method.coefficient_values(STEPS)):
            state = method.rule(state, method.bind(NORMALS[k].ravel()), *row)
            x = x - ETAS[k] * (loss.gradient(x) + 0.5 * NORMALS[k].mean(axis=0))
            worst = max(worst, np.abs(state[0] - x).max())
            spread = np.ptp(np.array(state[1:]), axis=0).max()
            assert spread == 0 if (k + 1) % 6 == 0 else spread > 1e-4
        assert worst < 1e-13 if holds else worst > 1e-5


def test_the_law_of_sign_descent_is_that_of_its_birth_and_death_chain():
    """E x^2 of sign descent on x^2 / 2, exactly: P(up) = Phi(-x / s) on the grid x_0 + eta Z. A z-test at 4.5 sigma, a false alarm once in 150,000 runs."""
    eta, s, steps = 0.2, 0.5, 10
    grid = 1.0 + eta * np.arange(-steps, steps + 1)
    law = (np.arange(-steps, steps + 1) == 0).astype(float)
    for _ in range(steps):
        up = law * norm.cdf(-grid / s)
        law = np.roll(up, 1) + np.roll(law - up, -1)
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=s)
    run = st.simulate(st.SignSGD(oracle, st.schedules.constant(eta)), [1.0], steps * eta, 100_000, ["x0**2"], seed=2)
    assert abs(run.at("x0**2").z(law @ grid**2)) < 4.5
    assert abs(run.at("x0**2").z(1.03 * (law @ grid**2))) > 4.5  # negative control: 3 % more


def test_normalised_and_clipped_gradients_have_their_exact_means():
    """E x_1 after one step from the closed forms, in two dimensions; z-tests at 4.5 sigma, a false alarm once in 30,000 runs."""
    from scipy.special import gamma, hyp1f1

    mu, s, eta, C = np.array([0.6, -0.3]), 0.8, 1.0, 0.7
    oracle = st.NoisyOracle(st.losses.linear(mu.tolist()), st.noise.gaussian(dim=2), sigma=s)
    plan = st.schedules.constant(eta)
    ratio = mu @ mu / (2 * s * s)
    direction = mu / s * gamma(1.5) / (math.sqrt(2) * gamma(2.0)) * hyp1f1(0.5, 2.0, -ratio)
    a, b = (-C - mu) / s, (C - mu) / s
    inside = norm.cdf(b) - norm.cdf(a)
    clipped = mu * inside + s * (norm.pdf(a) - norm.pdf(b)) + C * (1 - norm.cdf(b) - norm.cdf(a))
    for method, mean in ((st.NormalisedSGD(oracle, plan), direction), (st.ClippedSGD(oracle, plan, value=C), clipped)):
        run = st.simulate(method, [0.0, 0.0], eta, 100_000, ["x0", "x1"], seed=4)
        for i, h in enumerate(("x0", "x1")):
            assert abs(run.at(h).z(-mean[i])) < 4.5
            assert abs(run.at(h).z(-1.2 * mean[i])) > 4.5  # negative control: a mean that is 20 % larger


# -- the contract of a dynamics -------------------------------------------------------------------------------------------------------

ELSEWHERE = ("optimisers", "filters", "general_momentum", "without_gain")
"""Files of rules that have such tests of their own; a new file is tested here."""
MINE = [e for e in optimisers() if e.make.__module__.split(".")[-1] not in ELSEWHERE or e.name == "AcSGD"]
VALID = [(entry, i) for entry in MINE for i in range(len(entry.valid))]


def name(value):
    return getattr(value, "name", str(value))


@pytest.mark.parametrize(("entry", "i"), VALID, ids=name)
def test_shapes_layouts_and_untouched_inputs(entry, i):
    d, paths = entry.build(ORACLE, MOVING, entry.valid[i]), 3
    assert d.parts[0] == "x" and d.formula and d.name in repr(d) and d.step_time == MOVING.eta
    np.testing.assert_array_equal(d.coefficient_values(9)[:4], d.coefficient_values(4))
    assert d.coefficient_values(0).shape == (0, len(d.coefficients))
    start = d.start(X0)
    assert [part.shape for part in start] == [(2,)] * len(d.parts)
    z = NORMALS[0, : d.copies].reshape(-1, 1) + 0.1 * np.arange(paths)
    together = tuple(part[:, None] + 0.1 * np.arange(paths) for part in start)
    for part in (*start, *together):
        part.setflags(write=False)
    for row in d.coefficient_values(3)[[0, 2]]:
        after = d.rule(together, d.bind(z), *row)
        for j in range(paths):
            alone = d.rule(tuple(part[:, j] for part in together), d.bind(z[:, j]), *row)
            for a, b in zip(after, alone, strict=True):
                np.testing.assert_allclose(a[:, j], b, rtol=1e-13, atol=1e-14)
    copy = pickle.loads(pickle.dumps(d))
    assert distance(d, copy, 5) == 0 and copy.identity == d.identity


@pytest.mark.parametrize(("entry", "i"), VALID, ids=name)
def test_torch_agrees_with_the_reference_path_by_path(entry, i):
    pytest.importorskip("torch")
    d = entry.build(ORACLE, MOVING, entry.valid[i])
    options = {"horizon": 12 * d.step_time, "paths": 300, "observe": ["x"], "keep_final": True, "threads": 1, "seed": 3}
    torch, reference = (st.simulate(d, X0, backend=backend, **options).final for backend in ("torch", "numpy"))
    np.testing.assert_allclose(torch, reference, rtol=1e-10, atol=1e-11)
    assert reference.std(axis=1).min() > 1e-4


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_gap_of_two_rules_runs_them_on_the_same_draws(backend):
    """Adam without memory against sign descent: the gap is 0 on every path, and not with independent draws."""
    other = st.SignSGD(ORACLE, BARE)
    options = {"horizon": 10 * BARE.eta, "paths": 500, "observe": ["x"], "backend": backend, "threads": 1}
    same = st.weak_gap(lone_adam(0.0), other, X0, **options)
    assert abs(same.sup("x").value) < 1e-12
    apart = st.weak_gap(lone_adam(0.0), other, X0, coupled=False, **options)
    assert abs(apart.sup("x").value) > 1e-6


@pytest.mark.slow
def test_workers_share_draws_with_workers_only():
    """Two local SGDs are coupled, also at unequal steps; against SGD they have other draws."""
    oracle = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2), sigma=0.5)
    plan = st.schedules.constant(0.02)
    local, parallel = (st.LocalSGD(oracle, plan, workers=4, local_steps=h) for h in (8, 1))
    assert local.brownian == 8 and st.LocalSGD(ORACLE, plan, workers=1).brownian == 2
    given = {"x0": [2.0, 0.5], "horizon": 0.8, "observe": ["x*y"], "threads": 1, "paths": 2_000}
    coupled, alone = (st.weak_gap(local, parallel, coupled=c, **given) for c in (True, False))
    assert coupled.at("x*y").stderr < 0.5 * alone.at("x*y").stderr
    fine = st.LocalSGD(oracle, st.schedules.constant(0.01), workers=4, local_steps=2)
    coarse = st.weak_gap(parallel, fine, **given)
    assert coarse.at("x*y").stderr < 0.5 * alone.at("x*y").stderr
    with pytest.raises(ValueError, match="same draws"):
        st.weak_gap(local, st.SGD(oracle, plan), **given)
    assert st.weak_gap(local, st.SGD(oracle, plan), coupled=False, **given).paths == 2_000


def test_rules_of_one_name_and_other_structure_have_other_identities():
    """A store must not mix results of other numbers of workers, or of clipping by value and by norm."""
    pairs = [
        (st.LocalSGD(ORACLE, BARE, workers=2), st.LocalSGD(ORACLE, BARE, workers=3)),
        (st.ClippedSGD(ORACLE, BARE, value=1.0), st.ClippedSGD(ORACLE, BARE, norm=1.0)),
    ]
    for a, b in pairs:
        assert a.identity != b.identity
    lagged = st.Adam(ORACLE, MOVING, lagged=True)
    assert lagged.identity == st.Adam(ORACLE, MOVING).identity  # one kernel, other numbers
    assert not np.array_equal(lagged.coefficient_values(1), st.Adam(ORACLE, MOVING).coefficient_values(1))
    assert not np.array_equal(st.Adam(ORACLE, MOVING, second_moment=1.0).start_numbers[-1], lagged.start_numbers[-1])


def test_zero_gradients_stay_finite():
    """At a minimum without noise nothing moves, on every backend, also where eps and the second moment are not both 0."""
    quiet = st.NoisyOracle(st.losses.quadratic([1.0, 2.0]), st.noise.none(2))
    plan = st.schedules.constant(0.1)
    for d in (
        st.Adam(quiet, plan), st.RMSProp(quiet, plan), st.SignSGD(quiet, plan), st.Lion(quiet, plan), st.NormalisedSGD(quiet, plan),
        st.ClippedSGD(quiet, plan, norm=1.0), st.ClippedSGD(quiet, plan, norm=math.inf), st.ClippedSGD(quiet, plan, value=math.inf),
    ):  # fmt: skip
        for backend in ("numpy", "numba"):
            run = st.simulate(d, [0.0, 0.0], 0.4, 3, ["x0"], keep_final=True, backend=backend)
            np.testing.assert_array_equal(run.final, 0.0)


def test_units_of_time():
    plan = st.schedules.constant(0.1, 0.9)
    assert st.Adam(ORACLE, plan).step_time == 0.1 and st.Adam(ORACLE, plan, step_time=0.1**2).step_time == 0.1**2
    assert st.Lion(ORACLE, plan).longest_memory == pytest.approx(100) and st.Signum(ORACLE, plan).longest_memory == pytest.approx(
        10
    )
    assert st.Lion(ORACLE, plan, beta2=0.5).longest_memory == pytest.approx(10)


def test_start_and_second_moment():
    d = st.Adam(ORACLE, MOVING, second_moment=[0.5, 2.0], momentum=([0.1, 0.2], [[1.0, 0.0], [0.0, 4.0]]))
    _, m, v = d.start(X0, np.array([1.0, -1.0]))
    np.testing.assert_allclose(m, [1.1, -1.8])
    np.testing.assert_array_equal(v, [0.5, 2.0])
    np.testing.assert_array_equal(st.RMSProp(ORACLE, MOVING, second_moment=3).start(X0)[2], [3.0, 3.0])
    run = st.simulate(d, X0, MOVING.eta, 50, ["x"], keep_final=True, backend="numba")
    same = st.simulate(d, X0, MOVING.eta, 50, ["x"], keep_final=True, backend="numpy")
    np.testing.assert_allclose(run.final, same.final, rtol=1e-12)
    assert run.final.std(axis=1).min() > 1e-4  # the momentum is drawn


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: st.Adam(ORACLE, MOVING, beta2=1.0), "`beta2` must lie in [0, 1); got beta2=1.0. At 1, a constant v, add"),
        (lambda: st.Adam(ORACLE, MOVING, beta2=-0.1, bias_correction=False), "`beta2` must lie in [0, 1]; got beta2=-0.1."),
        (lambda: st.RMSProp(ORACLE, MOVING, eps=-1), "`eps` must be a finite number, 0 or above; got eps=-1."),
        (lambda: st.Adam(ORACLE, MOVING, second_moment=-1), "`second_moment` must not be negative; got -1."),
        (lambda: st.Adam(ORACLE, MOVING, second_moment=[1.0]), "`second_moment` must have shape (2,)"),
        (
            lambda: st.SignSGD(ORACLE, MOVING),
            "`plan` of SignSGD must be without momentum; got one with beta > 0. Pass plan.averaged()",
        ),
        (lambda: st.ClippedSGD(ORACLE, BARE), "`value` or `norm` must be given, one of them; got neither."),
        (lambda: st.ClippedSGD(ORACLE, BARE, value=-math.inf), "`value` must be a positive number; got value=-inf."),
        (lambda: st.LocalSGD(ORACLE, BARE, workers=0), "`workers` must be at least 1; got workers=0. One worker is SGD."),
        (
            lambda: st.AcSGD(ORACLE, MOVING),
            "`plan` of AcSGD must be without momentum; got one with beta > 0. Its memory is set by",
        ),
    ],
)
def test_invalid_arguments_raise_value_error(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value).startswith(message)


# -- exact results -----------------------------------------------------------------------------------------------------------------

STREAM = st.streaming_least_squares(spectrum=[1.0, 0.5], label_noise=0.2, batch=4)
ONE = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5)
NONLINEAR = {
    "Adam": lambda o: st.Adam(o, STEADY),
    "Adam, v constant": lambda o: st.Adam(o, STEADY, **CONSTANT_V),
    "AdamW": lambda o: st.AdamW(o, STEADY),
    "RMSProp": lambda o: st.RMSProp(o, STEADY),
    "SignSGD": lambda o: st.SignSGD(o, STEADY.averaged()),
    "Signum": lambda o: st.Signum(o, STEADY),
    "Lion": lambda o: st.Lion(o, STEADY),
    "ClippedSGD, value": lambda o: st.ClippedSGD(o, STEADY.averaged(), value=1.0),
    "ClippedSGD, large value": lambda o: st.ClippedSGD(o, STEADY.averaged(), value=1e9),
    "ClippedSGD, large norm": lambda o: st.ClippedSGD(o, STEADY.averaged(), norm=1e9),
    "NormalisedSGD": lambda o: st.NormalisedSGD(o, STEADY.averaged()),
    "LocalSGD": lambda o: st.LocalSGD(o, STEADY.averaged(), workers=2),
}


@pytest.mark.parametrize("case", NONLINEAR)
def test_exact_results_refuse_a_nonlinear_rule(case):
    """In one message with the way out, also where clipping is beyond every probe."""
    words = "must have a rule (that is linear in its state and its gradients|with one draw of the noise in a step).* Simulate it instead.$"
    if case != "LocalSGD":
        with pytest.raises(ValueError, match=f"^the exact risk {words}"):
            st.exact.risk(NONLINEAR[case](STREAM), [1.0, 1.0], steps=5)
        with pytest.raises(ValueError, match=f"^exact moments {words}"):
            st.exact.moments(NONLINEAR[case](ONE), [1.0], steps=5)
    with pytest.raises(ValueError, match=f"^`exact.transfer` {words}"):
        st.exact.transfer(NONLINEAR[case](ONE), [1.0], 5, "x0**2")


def test_moments_accept_chained_gradients():
    """With additive noise the moments of SAM are exact: factor 1 - eta lam (1 + rho lam)."""
    lam, eta, rho, s = 2.0, 0.1, 0.3, 0.5
    oracle = st.NoisyOracle(st.losses.quadratic(lam), st.noise.gaussian(dim=1), sigma=s)
    found = st.exact.moments(st.SAM(oracle, st.schedules.constant(eta), rho=rho), [1.0], steps=2)
    a, noise = 1 - eta * lam * (1 + rho * lam), (eta * (1 + rho * lam) * s) ** 2
    np.testing.assert_allclose(found.mean.ravel(), [1.0, a, a * a], rtol=1e-14)
    np.testing.assert_allclose(found.covariance.ravel(), [0.0, noise, noise * (1 + a * a)], rtol=1e-13)


def test_the_exact_risk_of_acsgd_follows_from_its_matrices():
    """One mode, d = 1, batch 1: E of the second moments of (x, z) under Gaussian rows, E (x^2)^2 = 3, by a recursion written out here."""
    eta, ratio, s2, steps = 0.05, 0.2, 0.3, 6
    oracle = st.streaming_least_squares(spectrum=[1.0], label_noise=math.sqrt(s2), batch=1)
    S = np.ones((2, 2))
    expected = [0.5 * S[0, 0]]
    for t in range(steps):
        u = np.array([t, 1.0]) / (t + 1)  # y = u . (x, z)
        step, b = np.stack([u, [0.0, 1.0]]), -eta * np.array([1.0, ratio * (t + 1)])
        energy, cross = u @ S @ u, step @ S @ u
        S = step @ S @ step.T + np.outer(cross, b) + np.outer(b, cross) + np.outer(b, b) * (3 * energy + s2)
        expected.append(0.5 * S[0, 0])
    plan = st.schedules.constant(eta)
    found = st.exact.risk(st.AcSGD(oracle, plan, ratio=ratio), [1.0], steps=steps)
    np.testing.assert_allclose(found.risk, expected, rtol=1e-12)
    assert np.abs(st.exact.risk(st.AcSGD(oracle, plan, ratio=0.3), [1.0], steps=steps).risk - expected).max() > 1e-3


def test_the_exact_moments_of_workers_are_those_of_all_their_batches():
    """Batches of one of two samples, two workers, three local steps: all 64 outcomes, with deviations that depend on each worker's own point."""
    rows, targets, eta = np.array([[1.0, 0.5], [-0.3, 1.2]]), np.array([0.7, -0.4]), 0.2
    loss = st.losses.least_squares(rows, targets)
    oracle = st.NoisyOracle(loss, st.noise.minibatch(loss, 1), 1.0)
    plan = st.schedules.constant(eta)
    ends = []
    for outcome in np.ndindex(*[2] * 6):
        local = [X0, X0]
        for k in range(3):
            picked = outcome[2 * k : 2 * k + 2]
            local = [w - eta * rows[i] * (rows[i] @ w - targets[i]) for w, i in zip(local, picked, strict=True)]
            local = [np.mean(local, axis=0)] * 2 if k == 1 else local
        ends.append(np.mean(local, axis=0))
    found = st.exact.moments(st.LocalSGD(oracle, plan, workers=2, local_steps=2), X0, steps=3)
    np.testing.assert_allclose(found.mean[-1], np.mean(ends, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance[-1], np.cov(np.transpose(ends), bias=True), rtol=1e-10)
    other = st.exact.moments(st.LocalSGD(oracle, plan, workers=2, local_steps=1), X0, steps=3)
    assert np.abs(other.covariance[-1] - found.covariance[-1]).max() > 1e-4  # negative control: a meeting after every step


class Chained(st.Dynamics):
    """A gradient at a point that depends on the noise of another copy."""

    copies = 2

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        return (x - eta * oracle.independent(1)(x + 0.1 * oracle(x)),)


def test_a_point_that_depends_on_noise_has_exact_moments_only_for_constant_noise():
    lam, eta, s = 2.0, 0.1, 0.5
    constant = st.NoisyOracle(st.losses.quadratic(lam), st.noise.gaussian(dim=1), sigma=s)
    found = st.exact.moments(Chained(constant, st.schedules.constant(eta)), [1.0], steps=1)
    np.testing.assert_allclose(found.mean[1], 1 - eta * lam * (1 + 0.1 * lam), rtol=1e-14)
    np.testing.assert_allclose(found.covariance[1], (eta * s) ** 2 * (1 + (0.1 * lam) ** 2), rtol=1e-13)
    loss = st.losses.least_squares([[1.0], [2.0]], [0.0, 1.0])
    with pytest.raises(ValueError, match="must have noise that does not depend on the point; got 2 oracle calls"):
        st.exact.moments(
            Chained(st.NoisyOracle(loss, st.noise.minibatch(loss, 1), 1.0), st.schedules.constant(eta)), [1.0], steps=1
        )
