"""The square-root rule and SVAG of adaptive methods: exact identities, the paper's numbers, and what is refused."""

import math
import pickle

import numpy as np
import pytest

import sdetools as st

PLAN = st.schedules.constant(0.125, beta=0.875)
BARE = st.schedules.constant(0.125)
ORACLE = st.NoisyOracle(st.losses.hyperbola(), st.noise.rademacher(dim=2), sigma=3.0)
ADAPTIVE = {
    "Adam": st.Adam(ORACLE, PLAN, beta2=0.96875, eps=0.5, lagged=True, second_moment=[2.0, 3.0], momentum=[0.1, 0.2]),
    "AdamW": st.AdamW(ORACLE, PLAN, beta2=0.96875, eps=0.5, weight_decay=0.25),
    "RMSProp": st.RMSProp(ORACLE, BARE, beta2=0.96875, eps=0.5, second_moment=2.0),
}
NUMBERS = {
    "eta": lambda m: m.plan.eta_values,
    "beta1": lambda m: m.plan.beta_values,
    "beta2": lambda m: m.beta2,
    "eps": lambda m: m.eps,
    "v0": lambda m: m.second_moment,
    "decay": lambda m: getattr(m, "weight_decay", 0.0),
    "sigma": lambda m: m.oracle.sigma,
    "time": lambda m: m.step_time,
    "base": lambda m: m.plan.eta,
    "m0": lambda m: m.momentum_mean,
}


def numbers(method):
    return np.concatenate([np.atleast_1d(read(method)) for read in NUMBERS.values()])


@pytest.mark.parametrize("name", ADAPTIVE)
def test_at_one_a_method_is_itself(name):
    method = ADAPTIVE[name]
    for made in (st.square_root_rule(method, 1), st.svag(method, 1)):
        assert type(made) is type(method) and (numbers(made) == numbers(method)).all()
    z = np.random.default_rng(0).choice([-1.0, 1.0], (50, 4))
    ends = []
    for one, draws in ((method, z[:, 2:]), (st.svag(method, 1), z)):
        state = one.start(np.array([2.0, 0.5]))
        for k, row in enumerate(one.coefficient_values(50)):
            state = one.rule(state, one.bind(draws[k]), *row)
        ends.append(np.concatenate(state))
    assert ends[0] == pytest.approx(ends[1], rel=1e-13)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_two_square_root_rules_are_one_for_the_product(name):
    method = ADAPTIVE[name]
    composed = st.square_root_rule(st.square_root_rule(method, 3.0), 0.5)
    assert numbers(composed) == pytest.approx(numbers(st.square_root_rule(method, 1.5)), rel=1e-14)
    assert numbers(composed) != pytest.approx(numbers(method), rel=0.1)
    back = st.square_root_rule(st.square_root_rule(method, 7.0), 1 / 7)
    assert numbers(back) == pytest.approx(numbers(method), rel=1e-12)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_two_svag_are_one_for_the_product(name):
    twice, once = st.svag(st.svag(ADAPTIVE[name], 2), 3), st.svag(ADAPTIVE[name], 6)
    assert numbers(twice) == pytest.approx(numbers(once), rel=1e-14)
    assert len(twice.oracle.draws) == 2 * len(once.oracle.draws)  # four copies of the noise in place of two


def test_the_numbers_of_the_paper():
    """Malladi et al. 2022: batch times kappa, and SVAG with their l, the square root of the one here."""
    method = ADAPTIVE["AdamW"]
    large = st.square_root_rule(method, 4)
    assert (large.plan.eta, large.plan.beta_values[0], large.beta2, large.eps) == (0.25, 0.5, 0.875, 0.25)
    assert (large.weight_decay, large.oracle.sigma, large.step_time) == (0.5, 1.5, 0.5)
    l = 3
    amplified = st.svag(method, l**2)
    assert amplified.plan.eta == pytest.approx(0.125 / l, rel=1e-15)
    assert 1 - amplified.plan.beta_values[0] == pytest.approx(0.125 / l**2, rel=1e-14)
    assert 1 - amplified.beta2 == pytest.approx(0.03125 / l**2, rel=1e-14)
    assert amplified.eps == pytest.approx(0.5 * l, rel=1e-15)
    own = np.array(amplified.oracle.noise.weights) * l  # r_1, r_2
    assert own == pytest.approx([(1 - math.sqrt(2 * l**2 - 1)) / 2, (1 + math.sqrt(2 * l**2 - 1)) / 2], rel=1e-14)


@pytest.mark.parametrize("name", ["Adam", "RMSProp"])
def test_the_sde_of_a_method_is_kept(name):
    """Drift and diffusion of the library's equations at a point, for three batch sizes and with SVAG: c_i, sigma0, eps0 and u are the same."""
    method = ADAPTIVE[name]
    equation = {"Adam": st.AdamSDE, "RMSProp": st.RMSPropSDE}[name]
    own = {"bias_correction": False} if name == "Adam" else {}

    def at(one):
        h = one.plan.eta**2
        sde = equation(one.oracle, one.plan, beta2=one.beta2, eps=one.eps, second_moment=one.second_moment, **own)
        y = np.concatenate(sde.start(np.array([2.0, 0.7])))
        s = tuple(sde.signal_values(np.zeros(1), 0.0, h)[0])
        return np.concatenate([y, sde.drift(y, s=s), np.ravel(sde.diffusion(y, np.array([1.0, -2.0]), s=s))])

    base = at(method)
    for made in (st.square_root_rule(method, 0.25), st.square_root_rule(method, 4), st.svag(method, 5)):
        assert at(made) == pytest.approx(base, rel=1e-12)
    linear = st.Adam if name == "Adam" else st.RMSProp  # the linear rule changes the SDE
    wrong = linear(
        method.oracle.with_sigma(1.5), st.schedules.constant(0.5, 0.5 if name == "Adam" else 0.0), beta2=0.875, eps=0.25,
        second_moment=method.second_moment / 4,
    )  # fmt: skip
    assert at(wrong) != pytest.approx(base, rel=0.1)


def test_momentum_zero_stays_zero():
    adam = st.Adam(ORACLE, BARE, beta2=0.875)
    for made in (st.svag(adam, 3), st.square_root_rule(adam, 2)):
        assert not made.plan.has_momentum


def test_a_schedule_is_read_on_the_clock_of_samples():
    plan = st.schedules.from_arrays([0.4, 0.3, 0.2, 0.1, 0.05], [0.9, 0.9, 0.8, 0.8, 0.8])
    slow = st.svag(st.SGDM(ORACLE, plan), 3)
    assert slow.plan.etas(15) == pytest.approx(np.repeat(plan.eta_values, 3) / 3)
    assert (slow.plan.betas(15) == np.repeat(plan.beta_values, 3)).all()
    assert (slow.step_time, slow.oracle.sigma) == pytest.approx((plan.eta / 3, 3 * math.sqrt(3)))
    large = st.square_root_rule(st.Adam(ORACLE, plan), 2)
    assert large.plan.etas(4) == pytest.approx(np.array([0.4, 0.2, 0.05, 0.05]) * math.sqrt(2))
    assert large.plan.betas(3) == pytest.approx([0.8, 0.6, 0.6])


def test_long_schedules_and_batches_that_pass_their_end():
    plan = st.schedules.from_arrays(np.linspace(0.4, 0.01, 120), np.linspace(0.5, 0.9, 120))
    slow = st.svag(st.SGDM(ORACLE, plan), 3).plan
    assert slow.etas(363) == pytest.approx(np.repeat(plan.etas(121), 3) / 3)
    large = st.square_root_rule(st.Adam(ORACLE, st.schedules.from_arrays([0.4, 0.3, 0.2, 0.1, 0.05], 0.9)), 3).plan
    assert large.etas(4) == pytest.approx(np.array([0.4, 0.1, 0.05, 0.05]) * math.sqrt(3))
    rates = st.square_root_rule(st.Adam(ORACLE, plan), 1.5).plan.etas(90)
    assert rates == pytest.approx(plan.etas(200)[[3 * j // 2 for j in range(90)]] * math.sqrt(1.5))


def test_svag_of_an_oracle_is_that_of_noise():
    one, other = st.svag(ORACLE, 3), st.noise.svag(ORACLE, 3)
    assert one.sigma == other.sigma == 3 * math.sqrt(3) and one.noise.identity == other.noise.identity


def test_svag_of_sgd_keeps_its_sde():
    sgd = st.SGD(ORACLE, BARE)
    made = st.svag(sgd, 4)
    assert (made.plan.eta, made.step_time) == (0.03125, 0.03125)
    x, speed = np.array([2.0, 0.7]), lambda one: one.plan.eta_values[0] / one.step_time
    assert speed(made) == speed(sgd)
    per_time = [one.plan.eta**2 / one.step_time * one.oracle.covariance(x) for one in (sgd, made)]
    assert per_time[0] == pytest.approx(per_time[1], rel=1e-14)


def test_another_oracle_for_the_large_batch_and_the_original_is_unchanged():
    method, other = ADAPTIVE["Adam"], st.NoisyOracle(ORACLE.loss, st.noise.gaussian(dim=2), sigma=1.0)
    before = numbers(method)
    made = st.square_root_rule(method, 2, oracle=other)
    assert made.oracle is other and (numbers(method) == before).all()
    again = pickle.loads(pickle.dumps(made))
    assert (numbers(again) == numbers(made)).all()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: st.square_root_rule(st.SGD(ORACLE, BARE), 2), "linear rule"),
        (lambda: st.square_root_rule(ADAPTIVE["Adam"], 8.1), "at most 1 / \\(1 - beta_i\\), here 8"),
        (lambda: st.square_root_rule(ADAPTIVE["RMSProp"], 33), "here 32"),
        (lambda: st.square_root_rule(ADAPTIVE["Adam"], 0), "`kappa` must be a positive number"),
        (lambda: st.square_root_rule(st.RMSProp(ORACLE, PLAN), 2), "without momentum"),
        (lambda: st.svag(st.RMSProp(ORACLE, PLAN), 2), "without momentum"),
        (lambda: st.svag(st.SignSGD(ORACLE, BARE), 2), "SGD, SGDM, RMSProp, Adam or AdamW; got SignSGD"),
        (lambda: st.svag(ADAPTIVE["Adam"], 1.5), "whole number"),
        (lambda: st.svag(3, 2), "noisy oracle"),
        (
            lambda: st.square_root_rule(
                ADAPTIVE["Adam"], 2, oracle=st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
            ),
            "dimension of the method, 2; got 1",
        ),
    ],
)
def test_what_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_eight_times_the_batch_is_the_limit_of_adam():
    assert not st.square_root_rule(ADAPTIVE["Adam"], 8).plan.has_momentum
