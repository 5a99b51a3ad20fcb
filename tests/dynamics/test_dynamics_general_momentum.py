"""General momentum, DANA, MaSS and schedule-free SGD: identities with other rules, path by path, and loops from the papers."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st

STEPS = 40
RNG = np.random.default_rng(3)
ETAS, NORMALS = RNG.uniform(0.002, 0.02, STEPS), RNG.standard_normal((STEPS, 2))
ORACLE = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2), sigma=0.3)
STREAM = st.streaming_least_squares([1.0, 0.1], 0.2, 4)
CONSTANT, MOVING, X0 = st.schedules.constant(0.02), st.schedules.from_arrays(ETAS), np.array([2.0, 1.5])
MU = 0.8


def walk(dynamics, part=0):
    """The positions (or another part) after 0 ... STEPS steps of the rule."""
    state = dynamics.start(X0)
    path = [state[part]]
    for k, row in enumerate(dynamics.coefficient_values(STEPS)):
        state = dynamics.rule(state, dynamics.bind(NORMALS[k]), *row)
        path.append(state[part])
    return np.array(path)


IDENTITIES = {
    "SGDM": (
        lambda: st.GeneralMomentum(ORACLE, CONSTANT, D=1 - MU, g1=1 - MU, g2=0.0, g3=1.0, momentum=[0.1, 0.2]),
        lambda: st.SGDM(ORACLE, st.schedules.constant(0.02, MU), momentum=[0.1, 0.2]),
    ),
    "SGDM, moving": (
        lambda: st.GeneralMomentum(ORACLE, MOVING, D=25 * ETAS, g1=25 * ETAS, g2=0.0, g3=1.0),
        lambda: st.SGDM(ORACLE, st.schedules.from_arrays(ETAS, 1 - 25 * ETAS)),
    ),
    "Nesterov": (
        lambda: st.GeneralMomentum(ORACLE, CONSTANT, D=1 - MU, g1=1.0, g2=1.0, g3=MU),
        lambda: st.Nesterov(ORACLE, st.schedules.constant(0.02, MU)),
    ),
    "QHM": (
        lambda: st.GeneralMomentum(ORACLE, CONSTANT, D=1 - MU, g1=1 - MU, g2=0.3, g3=0.7),
        lambda: st.QHM(ORACLE, st.schedules.constant(0.02, MU), nu=0.7),
    ),
    "DANA without its buffer is SGD": (lambda: st.DANA(ORACLE, MOVING, ratio=0.0), lambda: st.SGD(ORACLE, MOVING)),
    "DANA is general momentum": (
        lambda: st.DANA(ORACLE, CONSTANT, delta=3.0, ratio=0.5, power=0.5),
        lambda: st.GeneralMomentum(
            ORACLE, CONSTANT, D=3 / (3 + np.arange(STEPS)), g1=1.0, g2=1.0, g3=0.5 * (1 + np.arange(STEPS)) ** -0.5
        ),
    ),
    "MaSS without compensation is Nesterov": (
        lambda: st.MaSS(ORACLE, CONSTANT, gamma=MU, c=0.0),
        lambda: st.Nesterov(ORACLE, st.schedules.constant(0.02, MU)),
    ),
    "MaSS without extrapolation is SGD": (
        lambda: st.MaSS(ORACLE, st.schedules.constant(0.02), gamma=0.0, c=0.25),
        lambda: st.SGD(ORACLE, st.schedules.constant(0.015)),
    ),
    "the sequence of schedule-free SGD": (lambda: st.ScheduleFree(ORACLE, MOVING, beta=0.0), lambda: st.SGD(ORACLE, MOVING)),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities_hold_path_by_path(name):
    """Control: a wrong weight by a tenth is seen."""
    one, other = (make() for make in IDENTITIES[name])
    part = 1 if "sequence" in name else 0
    np.testing.assert_allclose(walk(one, part), walk(other), rtol=1e-11)
    table = one.coefficient_values(STEPS)
    one.coefficient_values = lambda steps: 1.1 * table
    assert np.abs(walk(one, part) - walk(other)).max() > 1e-4


def test_without_weight_schedule_free_sgd_is_the_average_of_sgd():
    path = walk(st.SGD(ORACLE, MOVING))
    means = np.cumsum(path, axis=0) / np.arange(1, STEPS + 2)[:, None]
    np.testing.assert_allclose(walk(st.ScheduleFree(ORACLE, MOVING, beta=0.0)), means, rtol=1e-12)


def test_loops_from_the_papers():
    """MaSS in its two variables, and schedule-free SGD with its three."""
    u, w, eta1, eta2, gamma = X0, X0, 0.02, 0.004, 0.7
    z = x = X0
    for k in range(STEPS):
        g = ORACLE(u, NORMALS[k])
        next_w = u - eta1 * g
        u, w = next_w + gamma * (next_w - w) + eta2 * g, next_w
        y = 0.1 * z + 0.9 * x
        z = z - 0.02 * ORACLE(y, NORMALS[k])
        x = x + (z - x) / (k + 2)
    np.testing.assert_allclose(walk(st.MaSS(ORACLE, CONSTANT, gamma=0.7, c=0.2))[-1], u, rtol=1e-12)
    np.testing.assert_allclose(walk(st.ScheduleFree(ORACLE, CONSTANT, beta=0.9))[-1], x, rtol=1e-12)


def test_gains_and_the_equivalent_sgd():
    """g2 + g1 g3 / D, and (1 - c)/(1 - gamma)."""
    assert st.GeneralMomentum(ORACLE, CONSTANT, D=0.25, g1=0.5, g2=2.0, g3=0.5).gain == 3.0
    assert st.MaSS(ORACLE, CONSTANT, gamma=0.75, c=0.2).gain == pytest.approx(3.2, rel=1e-13)
    moving = st.GeneralMomentum(ORACLE, CONSTANT, D=[0.9, 0.5, 0.2], g3=[0.1, 0.2])
    np.testing.assert_array_equal(
        moving.coefficient_values(4), [[0.02, 0.9, 1, 1, 0.1], [0.02, 0.5, 1, 1, 0.2], *[[0.02, 0.2, 1, 1, 0.2]] * 2]
    )
    assert moving.averaged().etas(9)[-1] == pytest.approx(0.02 * moving.gain, rel=1e-12) and moving.gain == pytest.approx(2.0)


def test_the_noise_budget_of_dana_and_its_limits():
    """g3 = min(1, 2 s B / N(D/eta)) to the error of interpolation; Nesterov's g3 = 1 for large batches."""
    one = st.DANA(STREAM, CONSTANT, delta=4.0, share=0.01)
    table = one.coefficient_values(1000)
    k = np.arange(1000)
    mu = 4 / (4 + k) / 0.02
    exact = np.minimum(1, 2 * 0.01 * 4 / (np.array([1.0, 0.1])[:, None] / (np.array([1.0, 0.1])[:, None] + mu)).sum(axis=0))
    np.testing.assert_allclose(table[:, -1], exact, rtol=1e-4)
    assert table[-1, -1] < 0.2
    large = st.DANA(st.streaming_least_squares([1.0, 0.1], 0.2, 10**4), CONSTANT, share=0.2).coefficient_values(9)
    assert (large[:, -1] == 1).all()
    assert st.DANA(STREAM.with_sigma(0.0), CONSTANT, share=0.2).coefficient_values(2)[-1, -1] == 1


def test_they_have_an_exact_risk():
    """Schedule-free SGD evaluates its gradient between two parts of the state."""
    for make in (
        lambda o: st.ScheduleFree(o, CONSTANT),
        lambda o: st.DANA(o, CONSTANT, share=0.2),
        lambda o: st.MaSS(o, CONSTANT),
    ):
        found = st.exact.risk(make(STREAM), X0, 30)
        run = st.simulate(
            make(STREAM), X0, 30 * make(STREAM).step_time, 20_000, observe={"loss": STREAM.loss.value}, backend="numpy"
        )
        assert abs(run.at("loss").z(found.risk[-1])) < 4.5  # three tests: a false alarm once in 50,000 runs
