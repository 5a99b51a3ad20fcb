"""Spectra from their definitions, and the rule for dropping momentum against the exact risk on random problems."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st

E = st.exact


def test_random_features_induce_independent_label_noise():
    """The whole risk of a point theta is half of s^2 plus its excess, written out in the inputs; K theta* = W^T D b."""
    found = E.random_features(5, 40, a=0.8, b=0.4, label_noise=0.3, seed=2)
    j = np.arange(1.0, 41)
    D, b, W = j**-1.6, j**-0.4, np.random.default_rng(2).standard_normal((40, 5)) / 5**0.5
    K = W.T @ (D[:, None] * W)
    best = np.linalg.solve(K, W.T @ (D * b))
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(K)[::-1], rtol=1e-12)
    outside = (D * (b - W @ best) ** 2).sum()
    assert found.label_noise**2 == pytest.approx(0.09 + outside, rel=1e-12) and outside > 0.01
    assert found.risk == pytest.approx(best @ K @ best / 2, rel=1e-12)  # of the start 0


def test_spectra_from_data():
    """Half the mean squared residual of any start is half the label noise's variance plus the risk."""
    rng = np.random.default_rng(0)
    A, x0 = rng.standard_normal((30, 4)), rng.standard_normal(4)
    y = A @ [1.0, 2.0, 0.0, -1.0] + 0.5 * rng.standard_normal(30)
    found = E.from_data(A, y, start=x0)
    assert found.label_noise**2 / 2 + found.risk == pytest.approx(((A @ x0 - y) ** 2).mean() / 2, rel=1e-12)
    np.testing.assert_allclose(found.values.sum(), (A**2).sum() / 30, rtol=1e-12)
    deficient = E.from_data(np.hstack([A, A[:, :1]]), y)
    assert len(deficient.values) == 4


def test_power_law_and_two_bulks():
    law = E.power_law(3, a=1.0, b=0.5, label_noise=0.1)
    np.testing.assert_allclose([law.values, law.distance], [[1, 1 / 4, 1 / 9], [1, 2**-0.5, 3**-0.5]], rtol=1e-15)
    bulks = E.two_bulks((1, 2), 10.0, (1.0, 3.0))
    assert bulks.values.tolist() == [1.0, 0.1, 0.1] and bulks.distance.tolist() == [1.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: E.power_law(0, 1.0, 0.0), "`modes`"),
        (lambda: E.power_law(2, -1.0, 0.0), "`a`"),
        (lambda: E.power_law(2, 1.0, 0.0, -0.1), "`label_noise`"),
        (lambda: E.random_features(5, 4, 1.0, 0.0), "`inputs`"),
        (lambda: E.two_bulks((1, 1), 0.5), "`ratio`"),
        (lambda: E.from_data([[1.0]], [1.0, 2.0]), "`features`"),
        (lambda: E.mass_parameters([0.0], 1), "`spectrum`"),
        (lambda: E.drop_momentum(E.power_law(2, 1.0, 0.0), 1, 0.1, 1.0, 9), "`beta`"),
    ],
)
def test_invalid_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def problems(count, seed):
    """Random problems: power laws with label noise, batch, momentum, a learning rate below the edge, and a number of steps."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        law = E.power_law(int(rng.integers(4, 24)), rng.uniform(0.4, 1.5), rng.uniform(0, 1), 10 ** rng.uniform(-2, 0.5))
        batch, beta = int(2 ** rng.integers(0, 9)), float(rng.choice([0.5, 0.9, 0.95]))
        yield (
            law,
            batch,
            E.momentum_edge(law.values, batch, beta) * 10 ** rng.uniform(-3.5, -0.1),
            beta,
            int(10 ** rng.uniform(2, 3.3)),
        )


def test_the_rule_for_dropping_is_safe_on_random_problems():
    """Every "drop" has a log ratio of the risks below 1.5 delta; control: the rule h lam <= delta does not."""
    delta, seen, naive = 0.05, [], []
    for law, batch, h, beta, steps in problems(80, seed=7):
        oracle = st.streaming_least_squares(law.values, law.label_noise, batch)
        with_momentum = E.risk(st.SGDM(oracle, st.schedules.constant(h, beta)), law.distance, steps).risk
        without = E.risk(st.SGD(oracle, st.schedules.constant(h)), law.distance, steps).risk
        gap = np.abs(np.log(with_momentum / without)).max() if np.isfinite(without).all() else np.inf
        terms = E.drop_momentum(law, batch, h, beta, steps)
        if terms.drop(delta):
            seen.append(gap)
        if h * law.values.max() <= delta:
            naive.append(gap)
    assert len(seen) >= 8 and max(seen) < 1.5 * delta
    assert np.mean(np.array(naive) < 1.5 * delta) < 0.8


def test_the_terms_by_hand_for_one_mode():
    """Without label noise there is no floor: the transient is 2 beta/(1-beta) max |x (1 - x t)|, and unstable SGD has no bound."""
    law = E.Spectrum(np.array([1.0]), np.array([1.0]), 0.0)
    terms = E.drop_momentum(law, 4, 0.001, 0.5, 100)
    assert terms.transient == pytest.approx(2 * 0.001, rel=1e-9) and terms.floor_step == 100
    q = {k: 0.001 / (8 - (1 + 4 * k) * 0.001) for k in (1.0, 1 / 3)}
    assert terms.noise == pytest.approx(np.log(q[1.0] * (1 - q[1 / 3]) / (q[1 / 3] * (1 - q[1.0]))), rel=1e-9)
    assert terms.bound == terms.noise + terms.transient + terms.rate
    assert np.isinf(E.drop_momentum(law, 4, 1.5, 0.5, 100).bound) and np.isinf(E.dropping_diagram(law, [4], [1.5], 0.5, 9)).all()


def test_the_parameters_of_mass_accelerate():
    """The measured rate keeps the bound 1 - 1/S, and beats the best heavy ball; control: without compensation it diverges."""
    p = E.mass_parameters([1.0, 1e-4], 1)
    oracle = st.streaming_least_squares([1.0, 1e-4], 0.0, 1)
    rule = lambda c: st.MaSS(oracle, st.schedules.constant(p.eta), gamma=p.gamma, c=c)  # noqa: E731
    assert E.rate(rule(p.c)) < p.rate and E.rate(rule(0.0)) > 1
    assert np.log(E.rate(rule(p.c))) / np.log(E.best([1.0, 1e-4], 1, momentum=False).rate) > 30
