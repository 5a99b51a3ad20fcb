"""Stationary law, edge and rate against the recursion and closed forms, and the best rates of the batch threshold."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st

LAM, S, B = np.array([2.0, 0.9, 0.3, 0.05]), 0.4, 2
PLAN = st.schedules.constant(0.2)


def oracle(label_noise=S, batch=B, lam=LAM):
    return st.streaming_least_squares(lam, label_noise, batch)


def sgdm(h, beta, **given):
    return st.SGDM(oracle(**given), st.schedules.constant(h, beta))


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_closed_forms_agree_with_the_recursion(beta):
    """To 1e-10 the stationary risk is that of a long run, and the edge and the rate are those of the maps; control: k = 1 with momentum."""
    long = st.exact.risk(sgdm(0.2, beta), np.ones(4), 20_000, record=[20_000]).risk[0]
    closed = st.exact.momentum_stationary_risk(LAM, B, S, 0.2, beta)
    np.testing.assert_allclose([st.exact.stationary_risk(sgdm(0.2, beta)), closed], long, rtol=1e-10)
    edge = st.exact.momentum_edge(LAM, B, beta)
    assert st.exact.stability_edge(sgdm(0.2, beta)) * 0.2 == pytest.approx(edge, rel=1e-12)
    assert st.exact.momentum_budget(LAM, B, edge, beta) == pytest.approx(1, rel=1e-10)
    if beta:
        assert abs(st.exact.momentum_stationary_risk(LAM, B, S, 0.2) / long - 1) > 0.1
        assert st.exact.momentum_edge(LAM, B) / edge < 0.9


@pytest.mark.parametrize(
    "make", [lambda o: st.SGDM(o, st.schedules.constant(0.2, 0.9)), lambda o: st.STORM(o, PLAN, a=0.3), lambda o: st.SGD(o, PLAN)]
)
def test_the_rate_is_that_of_a_long_run(make):
    """Without label noise the risk finally falls by the rate in each step."""
    run = st.exact.risk(make(oracle(0.0)), np.ones(4), 3000).risk
    assert st.exact.rate(make(oracle())) == pytest.approx(run[-1] / run[-2], rel=1e-11)
    assert 0.9 < st.exact.rate(make(oracle())) < 1


def test_storm_has_a_stationary_law_with_its_own_first_step():
    run = st.exact.risk(st.STORM(oracle(), PLAN, a=0.3), np.ones(4), 4000, record=[4000]).risk[0]
    assert st.exact.stationary_risk(st.STORM(oracle(), PLAN, a=0.3)) == pytest.approx(run, rel=1e-11)


def test_just_beyond_the_edge_the_risk_grows():
    """And just before it does not."""
    edge = st.exact.momentum_edge(LAM, B, 0.5)
    for by, grows in ((0.99, False), (1.01, True)):
        run = st.exact.risk(sgdm(by * edge, 0.5, label_noise=0.0), np.ones(4), 6000).risk
        assert bool(run[-1] > run[-1000]) is grows and (st.exact.rate(sgdm(by * edge, 0.5)) > 1) is grows
        assert np.isinf(st.exact.stationary_risk(sgdm(by * edge, 0.5))) == grows
    assert np.isinf(st.exact.momentum_stationary_risk(LAM, B, S, 1.01 * edge, 0.5)) and np.isinf(
        st.exact.momentum_budget(LAM, B, 9.0)
    )


def test_one_eigenvalue_by_hand():
    """h lam = 2 B / (2 + k B), and the two plateaus of the heavy-ball rate."""
    for batch, beta in ((1, 0.0), (4, 0.9), (10**6, 0.5)):
        k = (1 - beta) / (1 + beta)
        assert st.exact.momentum_edge([2.0], batch, beta) == pytest.approx(2 * batch / (2 + k * batch) / 2, rel=1e-12)
    assert (1 - 0.5) * st.exact.momentum_edge([1.0], 10**6, 0.5) == pytest.approx(2 * (1 + 0.5), rel=1e-5)
    assert 0.001 * st.exact.momentum_edge([1.0], 1, 0.999) == pytest.approx(2 * 0.001 * 0.5, rel=1e-3)
    one = st.SGD(st.streaming_least_squares([1.0], 0.0, 1), st.schedules.constant(0.25))
    assert st.exact.rate(one) == 0.6875


@pytest.mark.parametrize("D", [1.0, 0.3, 0.02])
def test_the_budget_of_frozen_general_momentum(D):
    """The stationary level is s^2 / (1 - q), to 1e-10, for the rule written out."""

    class Frozen(st.Dynamics):
        parts, coefficients = ("x", "y"), ("D", "g2", "g3")

        def coefficient_values(self, steps):
            return np.tile([D, 0.1, 0.02], (steps, 1))

        @staticmethod
        def rule(state, oracle, D, g2, g3):
            x, y = state
            g = oracle(x)
            y = (1 - D) * y + g
            return x - g2 * g - g3 * y, y

    one = Frozen(oracle(), PLAN)
    q = st.exact.general_budget(LAM, B, D, 0.1, 0.02)
    # the level s^2 + sum lam E x^2 is s^2 / (1 - q), and the risk half of its second term
    assert st.exact.stationary_risk(one) == pytest.approx(S**2 / 2 * q / (1 - q), rel=1e-10)
    small = (1e-4 * LAM.sum() + 1e-5 / 1e-4 * st.exact.effective_dimension(LAM, 1e-3 / 1e-4)) / (2 * B)
    assert st.exact.general_budget(LAM, B, 1e-3, 1e-4, 1e-5) == pytest.approx(small, rel=0.02)
    assert np.isinf(st.exact.general_budget(LAM, B, D, 5.0, 0.02))


def test_best_rates_and_the_threshold():
    """One mode by hand, the (B + 2)/2 of two modes, and the exact gains of one spectrum, which the asymptotic rule orders."""
    found = st.exact.best([1.0], 2, momentum=False)
    assert (found.h, found.rate) == (pytest.approx(0.5, rel=1e-4), pytest.approx(0.5, rel=1e-8))
    lam = np.geomspace(1, 1e-2, 8)
    limits = st.exact.batch_threshold(lam)
    assert (
        limits.threshold == pytest.approx(lam.sum() * 10 / 2, rel=1e-12)
        and limits.gain(1) == 1
        and limits.gain(1e9) == pytest.approx(10)
    )
    gains = [np.log(st.exact.best(lam, b).rate) / np.log(st.exact.best(lam, b, momentum=False).rate) for b in (1, 10**5)]
    assert 1 <= gains[0] < 1.5 and 8 < gains[1] < 10


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: st.exact.stationary_risk(st.IGT(oracle(), PLAN)), "keep moving"),
        (lambda: st.exact.rate(st.SNGM(oracle(), PLAN)), "linear"),
        (lambda: st.exact.momentum_budget([1.0, 0.0], 1, 0.1), "`spectrum`"),
        (lambda: st.exact.momentum_budget([1.0], 0, 0.1), "`batch`"),
        (lambda: st.exact.momentum_budget([1.0], 1, 0.0), "`h`"),
        (lambda: st.exact.momentum_budget([1.0], 1, 0.1, 1.0), "`beta`"),
        (lambda: st.exact.general_budget([1.0], 1, 0.0, 0.1, 0.1), "`D`"),
        (lambda: st.exact.general_budget([1.0], 1, 0.5, 0.0, 0.0), "not both 0"),
    ],
)
def test_invalid_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_edge_of_a_rule_without_a_learning_rate_is_that_of_a_function():
    class Renamed(st.SGD):
        coefficients = ("h",)

        def coefficient_values(self, steps):
            return self.plan.etas(steps)[:, None]

    with pytest.raises(ValueError, match="function of c"):
        st.exact.stability_edge(Renamed(oracle(), PLAN))
    edge = st.exact.stability_edge(lambda c: Renamed(oracle(), st.schedules.constant(0.2 * c)))
    assert edge == pytest.approx(st.exact.momentum_edge(LAM, B) / 0.2, rel=1e-12)
