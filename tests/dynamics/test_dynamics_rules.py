"""The contract of every dynamics: shapes, unmodified inputs, both layouts, clock, coefficients, and algebraic identities."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st
from sdetools.noise import Normal

RNG = np.random.default_rng(1)
ETAS, BETAS = RNG.uniform(0.02, 0.2, 6), RNG.uniform(0.1, 0.95, 6)
MOVING = st.schedules.from_arrays(ETAS, BETAS)
ORACLE = st.NoisyOracle(
    st.losses.hyperbola(), st.noise.gaussian(root=[["1 + x**2/9", "0"], ["y", "1"]], variables="x y"), sigma=0.3
)
X0 = np.array([2.0, 0.5])
DRAWN = ([0.1, -0.1], [[1.0, 0.4], [0.4, 2.0]])

ALL = {
    "SGD": lambda: st.SGD(ORACLE, MOVING.averaged()),
    "SGDM": lambda: st.SGDM(ORACLE, MOVING),
    "SGDM, vector": lambda: st.SGDM(ORACLE, MOVING, momentum=[0.3, -0.2]),
    "SGDM, drawn": lambda: st.SGDM(ORACLE, MOVING, momentum=DRAWN),
    "HeavyBall": lambda: st.HeavyBall(ORACLE, gamma=0.02, beta=0.9),
    "HeavyBall, moving": lambda: st.HeavyBall(ORACLE, gamma=ETAS, beta=BETAS),
    "Auxiliary": lambda: st.Auxiliary(ORACLE, MOVING, momentum=[0.3, -0.2]),
    "Auxiliary, drawn": lambda: st.Auxiliary(ORACLE, MOVING, momentum=DRAWN),
}


def start_of(dynamics, paths=None, seed=0):
    n = sum(d.n for d in dynamics.start_draws)
    z = np.random.default_rng(seed).standard_normal((n,) if paths is None else (n, paths))
    state = dynamics.start(X0, z) if n else dynamics.start(X0)
    if paths is None:
        return state
    return tuple(np.array(np.broadcast_to(p if np.ndim(p) == 2 else p[:, None], (2, paths))) for p in state)


def walk(dynamics, steps, paths=None, seed=0):
    """Return the states after 0 ... steps steps, on NumPy draws."""
    rng = np.random.default_rng(100 + seed)
    states = [start_of(dynamics, paths, seed)]
    for row in dynamics.coefficient_values(steps):
        z = rng.standard_normal((2,) if paths is None else (2, paths))
        states.append(dynamics.rule(states[-1], lambda x, z=z: dynamics.oracle(x, z), *row))
    return states


@pytest.mark.parametrize("name", ALL)
def test_shapes_parts_and_clock(name):
    d = ALL[name]()
    assert d.dim == 2 and d.parts[0] in ("x", "y") and len(set(d.parts)) == len(d.parts)
    assert len(start_of(d)) == len(d.parts) and all(p.shape == (2,) for p in start_of(d))
    for steps in (1, 4, 9):
        assert d.coefficient_values(steps).shape == (steps, len(d.coefficients))
    np.testing.assert_array_equal(d.coefficient_values(9)[:4], d.coefficient_values(4))
    assert d.step_time > 0 and all(isinstance(draw, Normal) for draw in d.start_draws)
    assert repr(d).startswith(type(d).__name__) and d.formula and type(d).__doc__


@pytest.mark.parametrize("name", ALL)
def test_a_step_changes_no_input_and_keeps_shapes(name):
    d = ALL[name]()
    for paths in (None, 5):
        state = start_of(d, paths)
        copies = [np.array(p, copy=True) for p in state]
        for p in state:
            p.setflags(write=False)
        coefficients = d.coefficient_values(1)[0]
        coefficients.setflags(write=False)
        z = np.ones((2,) if paths is None else (2, paths))
        new = d.rule(state, lambda x, z=z: d.oracle(x, z), *coefficients)
        assert len(new) == len(d.parts) and all(np.shape(p) == np.shape(c) for p, c in zip(new, copies, strict=True))
        for p, c in zip(state, copies, strict=True):
            np.testing.assert_array_equal(p, c)


@pytest.mark.parametrize("name", ALL)
def test_many_paths_agree_with_single_paths(name):
    d, paths = ALL[name](), 3
    together = start_of(d, paths)
    z = np.random.default_rng(2).standard_normal((2, paths))
    row = d.coefficient_values(1)[0]
    new = d.rule(together, lambda x: d.oracle(x, z), *row)
    for j in range(paths):
        alone = d.rule(tuple(p[:, j] for p in together), lambda x, j=j: d.oracle(x, z[:, j]), *row)
        for a, b in zip(new, alone, strict=True):
            np.testing.assert_allclose(a[:, j], b, rtol=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_a_start_accepts_no_draws_one_path_and_many(name):
    d = ALL[name]()
    n = sum(draw.n for draw in d.start_draws)
    for z in (None, np.zeros(n), np.zeros((n, 4))):
        parts = d.start(X0, z) if n else d.start(X0)
        for part in parts:
            assert np.shape(part) in ((2,), (2, 4))
    np.testing.assert_array_equal(d.start(X0)[d.parts.index("x")], X0)
    np.testing.assert_array_equal(X0, [2.0, 0.5])


# -- identities -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [None, [0.3, -0.2]])
def test_the_auxiliary_process_is_memoryless_for_every_schedule(momentum):
    """y_{k+1} = y_k - etabar_k g_k and y_k = x_k - c_k m_k, path by path, with g_k evaluated at x_k, to 1e-14."""
    steps, d = 12, st.Auxiliary(ORACLE, MOVING, momentum=momentum)
    states, x = walk(d, steps), walk(st.SGDM(ORACLE, MOVING, momentum=momentum), steps)
    flat, memory = MOVING.averaged().etas(steps), MOVING.memory(steps)
    rng = np.random.default_rng(100)
    for k in range(steps):
        np.testing.assert_array_equal(states[k][1], x[k][0])
        np.testing.assert_allclose(states[k][0], x[k][0] - memory[k] * x[k][1], rtol=1e-13)
        g = ORACLE(x[k][0], rng.standard_normal(2))
        np.testing.assert_allclose(states[k + 1][0], states[k][0] - flat[k] * g, rtol=0, atol=1e-14)


def test_without_averaging_the_rates_it_has_memory():
    """Negative control: with eta_k instead of etabar_k the identity fails."""
    states, x = walk(st.Auxiliary(ORACLE, MOVING), 6), walk(st.SGDM(ORACLE, MOVING), 6)
    rng = np.random.default_rng(100)
    misses = [np.abs(states[k + 1][0] - states[k][0] + ETAS[k] * ORACLE(x[k][0], rng.standard_normal(2))).max() for k in range(6)]
    assert max(misses) > 1e-3


def test_the_two_forms_of_momentum_have_the_same_iterates():
    """eta = gamma / (1 - beta), m_EMA = (1 - beta) m_HB, also for a nonzero initial momentum."""
    beta, gamma = 0.9, 0.01
    heavy = walk(st.HeavyBall(ORACLE, gamma=gamma, beta=beta, momentum=[3.0, -2.0]), 30)
    ema = walk(st.SGDM(ORACLE, st.schedules.constant(gamma / (1 - beta), beta), momentum=[0.3, -0.2]), 30)
    for h, e in zip(heavy, ema, strict=True):
        np.testing.assert_allclose(h[0], e[0], rtol=1e-12)
        np.testing.assert_allclose((1 - beta) * h[1], e[1], rtol=1e-11)


def test_the_auxiliary_process_of_heavy_ball_moves_by_its_averaged_plan():
    """x_k - c_k m_k moves by the rates of averaged() for varying gamma and beta."""
    d = st.HeavyBall(ORACLE, gamma=ETAS, beta=BETAS)
    states, memory, flat = walk(d, 9), d.memory(9), d.averaged().etas(9)
    rng = np.random.default_rng(100)
    for k in range(9):
        y, later = (states[n][0] - memory[n] * states[n][1] for n in (k, k + 1))
        np.testing.assert_allclose(later, y - flat[k] * ORACLE(states[k][0], rng.standard_normal(2)), atol=1e-13)


def test_without_beta_momentum_is_sgd():
    plan = st.schedules.constant(0.1)
    for a, b in zip(walk(st.SGDM(ORACLE, plan), 8), walk(st.SGD(ORACLE, plan), 8), strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-15)


def test_drawn_momenta_have_their_mean_and_covariance():
    """The square of the root equals the covariance exactly; no sampling is needed."""
    d = st.SGDM(ORACLE, MOVING, momentum=DRAWN)
    root = np.array([d.start(X0, unit)[1] - d.start(X0, np.zeros(2))[1] for unit in np.eye(2)]).T
    np.testing.assert_allclose(root @ root.T, DRAWN[1], rtol=1e-13)
    np.testing.assert_array_equal(d.start(X0, np.zeros(2))[1], DRAWN[0])


def test_all_gradients_of_a_step_use_the_same_draw():
    """Two oracle calls at one point return the same value: they use the same minibatch."""

    class Twice(st.Dynamics):
        @staticmethod
        def rule(state, oracle, eta):
            a, b = oracle(state[0]), oracle(state[0])
            return (state[0] + (a - b),)

    for backend in ("numpy", "numba"):
        run = st.simulate(
            Twice(ORACLE, st.schedules.constant(0.25)), X0, 1.0, 40, ["x"], keep_final=True, backend=backend, threads=1
        )
        np.testing.assert_array_equal(run.final, np.repeat(X0[:, None], 40, axis=1))


def test_memory_and_fading_have_one_entry_per_step():
    """c_0 ... c_K and beta_0 ... beta_{K-1}, beyond the last pair as well."""
    for d in (st.SGDM(ORACLE, MOVING), st.HeavyBall(ORACLE, gamma=ETAS, beta=BETAS)):
        np.testing.assert_array_equal(d.memory(8), MOVING.memory(8))
        np.testing.assert_array_equal(d.fading(8), [*BETAS, BETAS[-1], BETAS[-1]])
        np.testing.assert_array_equal(d.coefficient_values(8), np.pad([ETAS, BETAS], ((0, 0), (0, 2)), mode="edge").T)
    assert st.SGD(ORACLE, MOVING.averaged()).memory(8) is None


def test_step_time_is_the_base_rate_or_explicit():
    assert st.SGDM(ORACLE, st.schedules.constant(0.1, 0.9)).step_time == 0.1
    assert st.SGDM(ORACLE, st.schedules.constant(0.1, 0.9), step_time=0.01).step_time == 0.01
    assert st.HeavyBall(ORACLE, gamma=0.01, beta=0.9).step_time == pytest.approx(0.1)
    assert st.HeavyBall(ORACLE, gamma=0.01, beta=0.9, step_time=3.0).averaged().eta == 3.0


def test_variances_of_a_random_momentum_are_a_diagonal_covariance():
    vector, matrix = (st.SGDM(ORACLE, MOVING, momentum=([0.3, -0.2], c)) for c in ([4.0, 2.0], [[4.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_allclose(vector.momentum_root @ vector.momentum_root.T, np.diag([4.0, 2.0]), rtol=1e-15)
    np.testing.assert_array_equal(vector.momentum_root, matrix.momentum_root)
    np.testing.assert_array_equal(vector.momentum_mean, [0.3, -0.2])


def test_a_random_momentum_is_its_mean_plus_its_root_times_the_draws():
    drawn = ALL["SGDM, drawn"]()
    z = np.array([[0.3, -1.1, 2.0], [0.7, 0.2, -0.4]])
    expected = np.array(DRAWN[0])[:, None] + drawn.momentum_root @ z
    np.testing.assert_allclose(drawn.start(X0, z)[1], expected, atol=1e-14)
    np.testing.assert_allclose(drawn.start(X0, z[:, 1])[1], expected[:, 1], atol=1e-14)
    np.testing.assert_array_equal(drawn.start(X0)[1], DRAWN[0])


class Walk(st.Moving):
    """x' = c x + s xi, with the minimal interface of a simulation."""

    parts, coefficients = ("x",), ("c",)
    dim, names, draws = 2, ("x", "y"), (Normal(2),)
    parameters, identity, step_time = np.array([0.5]), "walk", 0.25

    def rule(self, state, bound, c):
        z, (s,) = bound
        return (c * state[0] + s * z,)

    def bind(self, z, p=None):
        return z, self.parameters if p is None else p

    def start(self, x0, z=None):
        return (np.asarray(x0, dtype=float),)

    def coefficient_values(self, steps):
        return 0.5 ** np.arange(1, steps + 1)[:, None]


def test_a_class_with_the_minimal_interface_can_be_simulated():
    """x_4 has the mean x_0 2^-10 and the variance (1 + 2^-8 + 2^-14 + 2^-18) / 4; z-tests at four standard errors: false alarm below 2e-4."""
    numba, numpy = (
        st.simulate(Walk(), X0, 1.0, 4096, ["x", "y**2"], times=[1.0], keep_final=True, backend=backend, threads=1)
        for backend in ("numba", "numpy")
    )
    rounding = 4 * 0.5 * 7 * 8 * np.finfo(float).eps  # four draws times s, below 7 and within 8 units in the last place
    np.testing.assert_allclose(numba.final, numpy.final, rtol=0, atol=rounding)
    variance = (1 + 2.0**-8 + 2.0**-14 + 2.0**-18) / 4
    for name, expected in (("x", X0[0] * 2.0**-10), ("y**2", variance + (X0[1] * 2.0**-10) ** 2)):
        found = numba.at(name, 1.0)
        assert abs(found.value - expected) < 4 * found.stderr
        assert abs(found.value - 1.2 * expected - 0.1) > 4 * found.stderr  # negative control
    with pytest.raises(ValueError, match="`(dynamics|first|second)` must be a dynamics"):
        st.simulate(object(), X0, 1.0, 4, ["x"])


def test_only_optimisers_have_an_oracle_a_plan_and_a_momentum():
    em, sgd = st.EulerMaruyama(st.LimitSDE(ORACLE, MOVING), 0.1), ALL["SGD"]()
    assert isinstance(em, st.Moving) and isinstance(sgd, st.Moving)
    assert isinstance(sgd, st.Dynamics) and not isinstance(em, st.Dynamics)
    assert all(hasattr(sgd, own) and not hasattr(em, own) for own in ("oracle", "plan", "momentum_mean", "momentum_root"))


def test_a_dynamics_without_a_rule_raises_type_error():
    with pytest.raises(TypeError, match="rule"):
        st.Dynamics(ORACLE, MOVING)


def test_start_numbers_of_dynamics():
    kinetic = st.KineticSDE(ORACLE, MOVING, momentum=[0.3, -0.2])
    assert st.BAOAB(kinetic, 0.1).start_numbers[0].tolist() == [0.3, -0.2]
    assert st.EulerMaruyama(st.LimitSDE(ORACLE, MOVING), 0.1).start_numbers == ()
    assert [len(ALL[name]().start_numbers) for name in ("SGDM", "SGDM, vector", "SGDM, drawn")] == [1, 1, 2]
