"""Methods that the library has not, as a user writes them: the rule and nothing else gives simulation, weak gaps, exact moments, generators and SVAG's oracle.

AggMo         m_i' = b_i m_i + g,  x' = x - eta (m_1' + m_2') / 2                                            Lucas et al. 2019
AdaBelief     s' = b2 s + (1 - b2) (g - m')^2 in place of v' of Adam                                         Zhuang et al. 2020
Adan          three averages, of g, of g - g_previous, and of (g + (1 - b2) (g - g_previous))^2              Xie et al. 2022
Extragradient x' = x - eta g_2(x - eta g_1(x)), on independent draws                                         Korpelevich 1976
"""

from __future__ import annotations

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

import sdetools as st

PLAN = st.schedules.constant(0.05, 0.5)
MOVING = st.schedules.from_arrays(np.linspace(0.08, 0.02, 25), np.linspace(0.3, 0.8, 25))
HYPERBOLA = st.losses.hyperbola()
NORMAL = st.NoisyOracle(HYPERBOLA, st.noise.gaussian(dim=2), sigma=2.0)
H = np.array([[2.0, 0.5], [0.5, 1.0]])
BOWL = st.NoisyOracle(st.losses.quadratic(H), st.noise.gaussian(dim=2, covariance=[[1.0, 0.3], [0.3, 0.5]]), sigma=1.5)
X0 = np.array([1.5, 0.5])


class AggMo(st.Dynamics):
    """Two buffers of different memory, averaged."""

    parts, coefficients = ("x", "m1", "m2"), ("eta", "short", "long")
    short, long = 0.5, 0.9

    @staticmethod
    def rule(state, oracle, eta, short, long):
        x, m1, m2 = state
        g = oracle(x)
        m1, m2 = short * m1 + g, long * m2 + g
        return x - eta / 2 * (m1 + m2), m1, m2


class AdaBelief(st.Dynamics):
    """The deviation of the gradient from its average scales a step."""

    parts, coefficients = ("x", "m", "s"), ("eta", "beta", "beta2", "eps", "m_share", "s_share")
    beta2, eps = 0.9, 1e-3

    @staticmethod
    def rule(state, oracle, eta, beta, beta2, eps, m_share, s_share):
        x, m, s = state
        g = oracle(x)
        m = beta * m + (1 - beta) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
        return x - eta * (m / m_share) / (np.sqrt(s / s_share) + eps), m, s

    def coefficient_values(self, steps):
        eta, beta = self.plan.etas(steps), self.plan.betas(steps)
        ones = np.ones(steps)
        count = np.arange(1, steps + 1)
        return np.column_stack([eta, beta, self.beta2 * ones, self.eps * ones, 1 - np.cumprod(beta), 1 - self.beta2**count])


class Adan(st.Dynamics):
    """Adaptive Nesterov momentum; in the first step the difference of gradients is 0, which the coefficient `later` switches."""

    parts, coefficients = ("x", "m", "v", "n", "previous"), ("eta", "later")

    @staticmethod
    def rule(state, oracle, eta, later):
        x, m, v, n, previous = state
        g = oracle(x)
        change = later * (g - previous)
        m, v = 0.98 * m + 0.02 * g, 0.92 * v + 0.08 * change
        n = 0.99 * n + 0.01 * (g + 0.92 * change) ** 2
        return x - eta * (m + 0.92 * v) / (np.sqrt(n) + 1e-8), m, v, n, g

    def coefficient_values(self, steps):
        return np.column_stack([self.plan.etas(steps), np.arange(steps) > 0])


class Extragradient(st.Dynamics):
    """A step by the gradient at a point that a step on other draws would reach."""

    copies = 2

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        return (x - eta * oracle.independent(1)(x - eta * oracle(x)),)


def naive_aggmo(gradient, plan, steps):
    x, m1, m2 = X0.copy(), np.zeros(2), np.zeros(2)
    for k in range(steps):
        g = gradient(x, k, 0)
        for i in range(2):
            m1[i], m2[i] = 0.5 * m1[i] + g[i], 0.9 * m2[i] + g[i]
            x[i] -= plan.etas(steps)[k] * (m1[i] + m2[i]) / 2
    return x


def naive_adabelief(gradient, plan, steps):
    x, m, s, left = X0.copy(), np.zeros(2), np.zeros(2), 1.0
    for k in range(steps):
        g, eta, beta = gradient(x, k, 0), plan.etas(steps)[k], plan.betas(steps)[k]
        left *= beta
        for i in range(2):
            m[i] = beta * m[i] + (1 - beta) * g[i]
            s[i] = 0.9 * s[i] + 0.1 * (g[i] - m[i]) ** 2 + 1e-3
            x[i] -= eta * (m[i] / (1 - left)) / (math.sqrt(s[i] / (1 - 0.9 ** (k + 1))) + 1e-3)
    return x


def naive_adan(gradient, plan, steps):
    x, m, v, n, before = X0.copy(), np.zeros(2), np.zeros(2), np.zeros(2), None
    for k in range(steps):
        g = gradient(x, k, 0)
        for i in range(2):
            change = 0.0 if before is None else g[i] - before[i]
            m[i] += 0.02 * (g[i] - m[i])
            v[i] += 0.08 * (change - v[i])
            n[i] += 0.01 * ((g[i] + 0.92 * change) ** 2 - n[i])
            x[i] -= plan.etas(steps)[k] * (m[i] + 0.92 * v[i]) / (math.sqrt(n[i]) + 1e-8)
        before = g
    return x


def naive_extragradient(gradient, plan, steps):
    x = X0.copy()
    for k in range(steps):
        eta = plan.etas(steps)[k]
        x = x - eta * gradient(x - eta * gradient(x, k, 0), k, 1)
    return x


METHODS = {
    "AggMo": (AggMo, naive_aggmo),
    "AdaBelief": (AdaBelief, naive_adabelief),
    "Adan": (Adan, naive_adan),
    "Extragradient": (Extragradient, naive_extragradient),
}


def made(name, oracle, plan=PLAN):
    kind = METHODS[name][0]
    return kind(oracle, plan.averaged() if name in ("AggMo", "Adan", "Extragradient") else plan)


@pytest.mark.parametrize("plan", [PLAN, MOVING], ids=["constant", "moving"])
@pytest.mark.parametrize("name", METHODS)
def test_the_rule_is_the_papers_loop(name, plan):
    """On drawn gradients, and without noise on the compiled backend."""
    draws = np.random.default_rng(2).standard_normal((30, 2, 2))
    method = made(name, NORMAL, plan)
    state = method.start(X0)
    for k, row in enumerate(method.coefficient_values(30)):
        state = method.rule(state, method.bind(draws[k, : method.copies].ravel()), *row)
    used = method.plan if name != "AdaBelief" else plan
    assert state[0] == pytest.approx(METHODS[name][1](lambda x, k, i: NORMAL(x, draws[k, i]), used, 30), rel=1e-12)
    quiet = made(name, st.NoisyOracle(HYPERBOLA, st.noise.none(dim=2)), plan)
    times = [25 * quiet.step_time]
    run = st.simulate(quiet, X0, times[0], 2, ["x", "y"], times=times, backend="numba")
    assert run.data["mean"].values[-1] == pytest.approx(
        METHODS[name][1](lambda x, k, i: HYPERBOLA.gradient(x), used, 25), rel=1e-11
    )


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("name", METHODS)
def test_backends_agree_path_by_path(name, backend):
    method = made(name, NORMAL)
    times = [0.5, 1.0]
    options = {"observe": ["x*y"], "times": times, "trajectories": [0, 3]}
    paths = [st.simulate(method, X0, 1.0, 8, **options, backend=b).trajectories.values for b in ("numpy", backend)]
    assert paths[0] == pytest.approx(paths[1], rel=1e-9, abs=1e-12)
    assert paths[0].shape[2] == len(method.parts)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", METHODS)
def test_weak_gap_against_sgd_and_itself(name):
    """Against itself on the same draws the gap is a rounding error; against SGD at five times the rate it is resolved."""
    oracle, plan = NORMAL.with_sigma(0.5), st.schedules.constant(0.01, 0.5)
    method, h = made(name, oracle, plan), "x**2 + y**2"
    options = {"x0": X0, "horizon": 0.5, "paths": 2_000, "observe": [h]}
    same = st.weak_gap(method, made(name, oracle, plan), **options).sup(h)
    assert abs(same.value) < 1e-15 and same.high < 1e-12
    sgd = st.SGD(oracle, st.schedules.constant(0.05), step_time=0.01)
    assert st.weak_gap(method, sgd, coupled=method.copies == 1, **options).sup(h).low > 0.01


@pytest.mark.parametrize("name", ["AggMo", "Extragradient"])
def test_exact_moments_of_the_linear_methods(name):
    """Mean and covariance on a quadratic loss beside the affine recursion written again, and beside a simulation at 5 standard errors (1e-6)."""
    method, steps = made(name, BOWL), 12
    found = st.exact.moments(method, X0, steps)
    eta, n, one, cov = 0.05, np.zeros((2, 2)), np.eye(2), 1.5**2 * BOWL.noise.covariance(X0)
    if name == "AggMo":
        step = np.block([[one - eta * H, -eta / 2 * 0.5 * one, -eta / 2 * 0.9 * one], [H, 0.5 * one, n], [H, n, 0.9 * one]])
        sources = [np.vstack([-eta * one, one, one])]
        mean = np.concatenate([X0, np.zeros(4)])
    else:
        step = one - eta * H @ (one - eta * H)
        sources, mean = [eta**2 * H, -eta * one], X0.copy()
    spread = np.zeros((len(mean), len(mean)))
    for _ in range(steps):
        mean, spread = step @ mean, step @ spread @ step.T + sum(s @ cov @ s.T for s in sources)
    assert found.mean[-1] == pytest.approx(mean[:2], rel=1e-12)
    assert found.covariance[-1] == pytest.approx(spread[:2, :2], rel=1e-11)
    times = [steps * method.step_time]
    run = st.simulate(method, X0, times[0], 40_000, ["x0", "x0*x1"], times=times)
    for text, exact in (("x0", mean[0]), ("x0*x1", spread[0, 1] + mean[0] * mean[1])):
        value = run.at(text)
        assert abs(value.value - exact) < 5 * value.stderr


def test_the_adaptive_methods_have_no_exact_moments():
    for name in ("AdaBelief", "Adan"):
        with pytest.raises(ValueError, match="linear"):
            st.exact.moments(made(name, BOWL), X0, 3)


def test_order_of_the_two_buffers_to_their_sgd():
    """AggMo is a filter of gain (1/(1 - .5) + 1/(1 - .9)) / 2 = 6: exact order 1 in eta on a quadratic loss, and none at another gain."""
    gaps: dict[float, list[float]] = {6.0: [], 5.0: []}
    for eta in (0.002, 0.001, 0.0005):
        sigma = eta**-0.5
        oracle = st.NoisyOracle(st.losses.quadratic([1.0]), st.noise.gaussian(dim=1), sigma=sigma)
        steps = round(0.3 / eta)
        own = st.exact.moments(AggMo(oracle, st.schedules.constant(eta)), [1.0], steps)
        for gain, out in gaps.items():
            other = st.exact.moments(st.SGD(oracle, st.schedules.constant(gain * eta)), [1.0], steps)
            out.append(float(abs(own.mean[-1] - other.mean[-1])[0]))
    right, wrong = (np.log2(np.array(g[:-1]) / g[1:]) for g in gaps.values())
    assert right[-1] == pytest.approx(1.0, abs=0.1) and abs(wrong[-1]) < 0.25


def test_they_pickle_and_name_themselves():
    for name in METHODS:
        method = made(name, NORMAL)
        again = pickle.loads(pickle.dumps(method))
        assert again.identity == method.identity and again.name == name and not again.formula


CLAIM = """
import numpy as np
import sdetools as st

class AggMo(st.Dynamics):
    parts, coefficients = ("x", "m1", "m2"), ("eta", "short", "long")
    short, long = 0.5, 0.9
    formula = r"m^i_{k+1} = b_i m^i_k + g_k, \\\\quad x_{k+1} = x_k - \\\\tfrac{\\\\eta}{2} (m^1_{k+1} + m^2_{k+1})"

    @staticmethod
    def rule(state, oracle, eta, short, long):
        x, m1, m2 = state
        g = oracle(x)
        m1, m2 = short * m1 + g, long * m2 + g
        return x - eta / 2 * (m1 + m2), m1, m2

@st.claim("aggmo", statement="AggMo is near SGD at six times the rate.", source="own")
def aggmo(run):
    oracle = st.NoisyOracle(st.losses.quadratic([1.0]), st.noise.gaussian(dim=1))
    method, sgd = AggMo(oracle, st.schedules.constant(0.002)), st.SGD(oracle, st.schedules.constant(0.012), step_time=0.002)
    gap = st.weak_gap(method, sgd, [1.0], 0.4, observe=["x0"], times=[0.4], **run.options(paths=2_000))
    run.measure("gap", gap.at("x0"), 0.0, tolerance=0.2)
    run.figure("gap", gap.plot())
"""


@pytest.mark.slow
def test_a_claim_on_a_foreign_rule_and_its_report(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(CLAIM)
    done = subprocess.run(
        [sys.executable, "-m", "sdetools", "verify", str(file), "--budget", "quick", "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "supported" in done.stdout and "AggMo" in (tmp_path / "out" / "report.html").read_text()
