"""Schedules: averaged rates against brute-force sums, the auxiliary identity, immutability, and input validation."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from sdetools import schedules
from sdetools.schedules import Plan

LONG = 400  # beta <= 0.9 in the tail, so what a brute-force sum leaves out is 0.9^400 = 5e-19


def random_plan(seed: int) -> Plan:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 30))
    return schedules.from_arrays(rng.uniform(0, 0.2, k), rng.uniform(0, 0.9, k))


def brute_averaged(plan: Plan, k: int) -> float:
    etas, betas = plan.etas(k + LONG), plan.betas(k + LONG)
    return (1 - betas[k]) * sum(etas[s] * np.prod(betas[k + 1 : s + 1]) for s in range(k, k + LONG))


def brute_memory(plan: Plan, k: int) -> float:
    etas, betas = plan.etas(k + LONG), plan.betas(k + LONG)
    return sum(etas[s] * np.prod(betas[k : s + 1]) for s in range(k, k + LONG))


@pytest.mark.parametrize("seed", range(10))
def test_averaged_and_memory_equal_the_long_sums(seed):
    plan = random_plan(seed)
    steps = len(plan.eta_values) + 3
    np.testing.assert_allclose(plan.averaged().etas(steps), [brute_averaged(plan, k) for k in range(steps)], rtol=1e-13)
    np.testing.assert_allclose(plan.memory(steps), [brute_memory(plan, k) for k in range(steps + 1)], rtol=1e-13)


def test_a_truncated_sum_is_not_the_averaged_schedule():
    """Negative control: stopping the sum at the end of the arrays has an error of 0.9^K, which the comparison above detects."""
    plan = schedules.from_arrays(np.linspace(0.1, 0.2, 20), beta=0.9)
    cut = (1 - 0.9) * sum(plan.eta_values[s] * 0.9**s for s in range(20))
    assert abs(cut / plan.averaged().etas(1)[0] - 1) > 0.1


@pytest.mark.parametrize("seed", range(10))
def test_auxiliary_identity_on_random_schedules(seed):
    """y_{k+1} = y_k - etabar_k g_k for any gradients, path by path."""
    plan, rng = random_plan(seed), np.random.default_rng(seed + 100)
    steps = 60
    etas, betas, c, bars = plan.etas(steps), plan.betas(steps), plan.memory(steps), plan.averaged().etas(steps)
    x, m = rng.standard_normal(5), rng.standard_normal(5)
    for k in range(steps):
        y, g = x - c[k] * m, rng.standard_normal(5) + x
        m = betas[k] * m + (1 - betas[k]) * g
        x = x - etas[k] * m
        np.testing.assert_allclose(x - c[k + 1] * m, y - bars[k] * g, rtol=0, atol=1e-13)


@pytest.mark.parametrize("eta", [0.1, 1 / 3, 1e-7])
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1 / 3])
def test_a_constant_plan_has_one_pair_and_keeps_its_rate_exactly(eta, beta):
    plan = schedules.constant(eta, beta)
    assert len(plan.eta_values) == 1
    assert plan.averaged() == schedules.constant(eta)
    np.testing.assert_allclose(plan.memory(3), eta * beta / (1 - beta), rtol=1e-15)
    assert plan.rate(0.7) == 1.0
    assert schedules.from_arrays([eta] * 50, [beta] * 50) == plan


def test_plan_without_momentum_is_its_own_average():
    plan = schedules.cosine(0.3, steps=17)
    assert plan.averaged() == plan
    assert not plan.has_momentum and plan.longest_memory == 1
    assert not plan.memory(5).any()


def test_averaging_flattens_an_alternating_schedule():
    """eta_k = eta (1 + (-1)^k / 2): mean square 1.25 raw, 1.00 averaged at beta = 0.9 (MATHEMATICS: averaged schedule)."""
    plan = schedules.from_functions(lambda k: 1 + 0.5 * (-1) ** k, beta=0.9, steps=2000)
    inside = plan.averaged().etas(1000)
    assert np.mean(plan.etas(1000) ** 2) == pytest.approx(1.25)
    # the alternating part is damped by the filter (1 - beta)/(1 + beta) = 1/19
    np.testing.assert_allclose(inside, 1 + 0.5 * (-1.0) ** np.arange(1000) / 19, rtol=1e-12)


def test_averaging_keeps_the_sum_up_to_the_boundary():
    """For constant gradients sum etabar_k - sum eta_k consists of the boundary terms -c_0 + c_N."""
    plan = schedules.step_decay(0.1, at=[30, 60], factor=0.1, beta=0.9)
    n = 100
    c = plan.memory(n)
    # with g_k = 1 and m_0 = 1 the momentum stays 1, so y_0 - y_n = sum etabar = sum eta - c_0 + c_n
    assert plan.averaged().etas(n).sum() == pytest.approx(plan.etas(n).sum() - c[0] + c[n], rel=1e-13)


def test_families():
    np.testing.assert_allclose(schedules.warmup(0.4, 4, start=0.2, beta=0.5).etas(6), [0.2, 0.25, 0.3, 0.35, 0.4, 0.4])
    np.testing.assert_allclose(schedules.step_decay(1.0, [1, 3], beta=0.5).etas(5), [1, 0.1, 0.1, 0.01, 0.01])
    assert schedules.step_decay(1.0, []) == schedules.constant(1.0)
    np.testing.assert_allclose(
        schedules.cosine(0.2, 4, final=0.1).etas(6), 0.1 + 0.05 * (1 + np.cos(np.pi * np.array([0, 1, 2, 3, 4, 4]) / 4))
    )
    recipe = schedules.chain(schedules.warmup(0.2, 2, beta=0.9), 2, schedules.step_decay(0.2, at=[3], beta=0.9))
    np.testing.assert_allclose(recipe.etas(7), [0, 0.1, 0.2, 0.2, 0.2, 0.02, 0.02])
    assert recipe.eta == 0.2 and recipe.has_momentum and recipe.longest_memory == pytest.approx(10)
    by_function = schedules.from_functions(lambda k: 0.1 / (1 + k), lambda k: 0.5 if k < 2 else 0.9, steps=4)
    np.testing.assert_allclose(by_function.betas(5), [0.5, 0.5, 0.9, 0.9, 0.9])
    assert by_function.eta == 0.1
    np.testing.assert_allclose(by_function.etas(6), np.array([12, 6, 4, 3, 3, 3]) / 120, rtol=1e-15)  # four pairs, then constant


def test_scaled_family():
    for eta in (2.0**-4, 2.0**-9):
        for alpha in (0, 0.25, 0.5):
            plan = schedules.scaled(eta, alpha, damping=0.3)
            assert 1 - plan.beta_values[0] == pytest.approx(0.3 * eta**alpha, rel=1e-12)
            assert plan.alpha == alpha and len(plan.eta_values) == 1
    assert 1 - schedules.scaled(0.01, 1.0).beta_values[0] == pytest.approx(0.01, rel=1e-12)  # alpha >= 1: lambda = 1
    assert 1 - schedules.scaled(0.01, 1.5, damping=2.0).beta_values[0] == pytest.approx(0.002, rel=1e-12)
    varied = schedules.scaled(0.1, 0.5, rate=lambda t: 1 + t, damping=lambda t: 0.5 - 0.1 * t, horizon=1.0)
    np.testing.assert_allclose(varied.etas(12), 0.1 * (1 + 0.1 * np.minimum(np.arange(12), 10)))
    np.testing.assert_allclose(1 - varied.betas(11), (0.5 - 0.01 * np.arange(11)) * 0.1**0.5)
    slow = schedules.scaled(0.1, 0.5, rate=lambda t: 1 + t, damping=0.5, horizon=1.0, step_time=0.01)
    assert len(slow.eta_values) == 101 and slow.etas(51)[50] == pytest.approx(0.15)


def test_rate_is_the_averaged_rate_of_the_step_that_contains_t():
    plan = schedules.from_arrays([0.1, 0.2, 0.3, 0.1], beta=0.5, base=0.1)
    bars = plan.averaged().etas(6) / 0.1
    for k in range(6):  # the start of a step belongs to that step, although k * 0.1 is rounded
        assert plan.rate(k * 0.1) == bars[k]
        assert plan.rate(k * 0.1 + 0.0999) == bars[k]
    np.testing.assert_array_equal(plan.rate(np.arange(600) * 0.01, step_time=0.01)[:4], bars[:4])
    long = schedules.from_functions(lambda k: 1 + k, 0.0, steps=5000, base=0.3)
    np.testing.assert_array_equal(long.rate(np.arange(5000) * 0.3), np.arange(1, 5001) / 0.3)
    assert plan.rate(1e300) == bars[-1]


def test_plans_are_immutable_values():
    arrays = np.array([0.1, 0.2]), np.array([0.5, 0.9])
    plan = Plan(*arrays, eta=0.1, alpha=0.5)
    arrays[0][0] = 7
    assert plan.eta_values[0] == 0.1
    for values in (plan.eta_values, plan.beta_values):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1
    with pytest.raises(FrozenInstanceError):
        plan.eta = 2.0
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan and hash(copy) == hash(plan) and copy.identity == plan.identity
    assert not copy.eta_values.flags.writeable
    for other in (
        Plan([0.1, 0.2], [0.5, 0.8], 0.1, 0.5),
        Plan([0.1, 0.3], [0.5, 0.9], 0.1, 0.5),
        Plan([0.1, 0.2], [0.5, 0.9], 0.2, 0.5),
        Plan([0.1, 0.2], [0.5, 0.9], 0.1, 0.0),
        "plan",
    ):
        assert plan != other
        assert getattr(other, "identity", "") != plan.identity
    assert Plan([0.1], [-0.0]).identity == Plan([0.1], [0.0]).identity
    assert repr(plan) == "Plan(eta=0.1, eta_k=0.1..0.2, beta_k=0.5..0.9, alpha=0.5, 2 pairs)"
    assert plan.etas(0).shape == (0,) and plan.memory(0).shape == (1,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant(0.0), r"`eta` must be a positive number; got eta=0.0"),
        (lambda: schedules.constant(-0.1), r"`eta` must be a positive number; got eta=-0.1"),
        (lambda: schedules.constant(float("nan")), "`eta`"),
        (lambda: schedules.constant("fast"), "`eta`"),
        (lambda: schedules.constant(0.1, 1.0), r"`beta` must lie in \[0, 1\); got beta=1.0"),
        (lambda: schedules.constant(0.1, -0.1), r"`beta` must lie in \[0, 1\); got beta=-0.1"),
        (lambda: schedules.constant(0.1, float("nan")), "`beta`"),
        (lambda: schedules.from_arrays([0.1, 0.2], [0.9, 0.9, 0.9]), "one length; got 2 rates and 3 momenta"),
        (lambda: schedules.from_arrays([]), "non-empty"),
        (lambda: schedules.from_arrays([[0.1]]), "one-dimensional"),
        (lambda: schedules.from_arrays([0.1, -0.2]), r"got eta=-0.2 at step 1"),
        (lambda: schedules.from_arrays([0.0, 0.0]), "eta=0 at all of them"),
        (lambda: schedules.from_arrays([0.1, np.inf]), "finite"),
        (lambda: schedules.from_arrays([0.1, 0.1], [0.5, 1.0]), "`beta`"),
        (lambda: schedules.from_arrays([0.1], base=0.0), "`base`"),
        (lambda: schedules.warmup(0.1, 0), "`steps` must be at least 1"),
        (lambda: schedules.warmup(0.1, 2, start=-0.1), "`start`"),
        (lambda: schedules.step_decay(0.1, [3, 3]), "increasing"),
        (lambda: schedules.step_decay(0.1, [0]), "`at` must be at least 1"),
        (lambda: schedules.step_decay(0.1, [3], factor=0), "`factor`"),
        (lambda: schedules.cosine(0.1, 3, final=-1), "`final`"),
        (lambda: schedules.scaled(0.1, 0.5), r"`damping` must lie in \(0, 1\) at alpha=0.5; got 1.0"),
        (lambda: schedules.scaled(0.1, 1.0, damping=0.0), r"\(0, inf\)"),
        (lambda: schedules.scaled(0.1, 1.0, damping=20.0), "must not exceed 1"),
        (lambda: schedules.scaled(0.1, -0.5, damping=0.5), "`alpha`"),
        (lambda: schedules.scaled(0.1, 0.5, rate=lambda t: 1.0, damping=0.5), "`horizon`"),
        (lambda: schedules.scaled(0.1, 0.5, rate=lambda t: 1 - 2 * t, damping=0.5, horizon=1.0), "`rate` must not be negative"),
        (lambda: schedules.scaled(0.1, 0.5, damping=lambda t: 0.5 + t, horizon=1.0), r"at t=0.5"),
        (lambda: schedules.constant(0.1).rate(-1.0), "`t` must not be negative"),
        (lambda: schedules.constant(0.1).etas(-1), "`steps`"),
    ],
)
def test_invalid_arguments_raise_value_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_single_zero_rate_is_allowed():
    """Definition 3.1 requires eta_k >= 0: a step of rate zero only updates the momentum buffer."""
    assert schedules.from_arrays([0.0, 0.1], 0.5).averaged().etas(1)[0] == pytest.approx(0.05)


def test_functions_of_time_are_not_evaluated_beyond_the_horizon():
    """Where the horizon is a multiple of the step, and where it is not."""
    for horizon, steps in ((0.5, 3), (0.6, 3), (0.75, 4)):
        seen = []
        plan = schedules.scaled(0.25, alpha=1, rate=lambda t, seen=seen: seen.append(t) or 1 / (1 + t), horizon=horizon)
        assert max(seen) <= horizon and len(set(seen)) == steps
        np.testing.assert_allclose(plan.etas(6), 0.25 / (1 + np.minimum(np.arange(6), steps - 1) * 0.25))
