"""Integrators by their exact moment maps: declared weak orders, simulation against the map, strong orders, identities, input validation."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st

MIXED = dict(
    drift=["-x + 0.3*y", "-0.7*y - 0.2*x"], diffusion=[["0.4*x + 0.1", "0.5*y"], ["0.2*y", "-0.3*x + 0.2"]], variables="x y"
)
OU = st.SDE(drift=["-1.3*x + 0.4"], diffusion=["0.8"], variables="x")
GBM = st.SDE(drift=["0.3*x"], diffusion=["0.5*x"], variables="x")
GBM_S = st.SDE(drift=["0.3*x"], diffusion=["0.5*x"], variables="x", calculus="stratonovich")
GENERAL, GENERAL_S = st.SDE(**MIXED), st.SDE(**MIXED, calculus="stratonovich")
ADDITIVE = st.SDE(drift=["-x + 0.3*y", "-0.7*y"], diffusion=[[0.5, 0.1], [0.0, 0.3]], variables="x y")


def kinetic():
    eta = 0.01
    oracle = st.NoisyOracle(st.losses.quadratic(1.7), st.noise.gaussian(dim=1), sigma=eta**-0.5)
    return st.KineticSDE(oracle, st.schedules.constant(eta=eta, beta=1 - 1.4 * eta), momentum=[0.3])


def many_noises(q, seed=3):
    """Three coordinates and `q` noises that do not commute: every entry affine, with coefficients in tenths."""
    rng = np.random.default_rng(seed)

    def affine(scale):
        return " + ".join(f"{v:.1f}{x}" for v, x in zip(scale * rng.uniform(-1, 1, 4), ("*x", "*y", "*z", "")))

    rows = [[affine(0.6) for _ in range(q)] for _ in range(3)]
    return st.SDE([f"-{c} + {affine(0.5)}" for c in "xyz"], rows, variables="x y z")


KINETIC = kinetic()
START = [1.0, 0.5, -0.5]
THREE, FOUR = many_noises(3), many_noises(4)
WEAK = [
    *((st.EulerMaruyama, sde, law) for sde in (OU, GBM, GENERAL) for law in ("normal", "three-point", "two-point")),
    *((st.Milstein, sde, "normal") for sde in (OU, GBM)),
    *((st.Heun, sde, "normal") for sde in (GBM_S, GENERAL_S)),
    (st.SRA1, ADDITIVE, "normal"),
    *((cls, sde, law) for cls in (st.Platen, st.RI1) for sde in (OU, GBM, GENERAL) for law in ("normal", "three-point")),
    *((cls, sde, "three-point") for cls in (st.Platen, st.RI1) for sde in (THREE, FOUR)),
    *((cls, KINETIC, "normal") for cls in (st.OBABO, st.BAOAB, st.UBU)),
]


def weak_error(integrator, sde, exact=None):
    """The largest error of the first and second moments at t = 1."""
    steps = round(1 / integrator.step_time)
    got = st.exact.moments(integrator, START[: sde.dim], steps, record=[steps])
    true = exact or st.exact.solution(sde, START[: sde.dim], [1.0])
    second = [m.state_covariance[-1] + np.outer(m.state_mean[-1], m.state_mean[-1]) for m in (got, true)]
    return max(np.abs(second[0] - second[1]).max(), np.abs(got.state_mean[-1] - true.state_mean[-1]).max())


@pytest.mark.sample(19)
@pytest.mark.parametrize(("cls", "sde", "law"), WEAK)
def test_weak_order_of_the_exact_moment_map(cls, sde, law):
    """The order between the two finest of six steps is within 0.02 of the declared one; there the next order is small enough."""
    errors = [weak_error(cls(sde, 2.0**-k, law), sde) for k in range(4, 10)]
    assert abs(np.log2(errors[-2] / errors[-1]) - cls.weak_order) < 0.02


@pytest.mark.parametrize("cls", [st.EulerMaruyama, st.Platen, st.RI1])
def test_a_wrong_drift_does_not_converge_to_the_right_limit(cls):
    wrong = st.SDE(**{**MIXED, "drift": ["-0.97*x + 0.3*y", "-0.7*y - 0.2*x"]})
    right = st.exact.solution(GENERAL, START[:2], [1.0])
    errors = [weak_error(cls(wrong, 2.0**-k), wrong, right) for k in (6, 8)]
    assert weak_error(cls(GENERAL, 2.0**-8), GENERAL) < errors[1] / 4 and errors[1] > errors[0] / 2


SIMULATED = [
    (st.EulerMaruyama, GENERAL, "normal"),
    (st.EulerMaruyama, GENERAL, "two-point"),
    (st.Milstein, GBM, "normal"),
    (st.Heun, GENERAL_S, "normal"),
    (st.SRA1, ADDITIVE, "normal"),
    (st.Platen, GENERAL, "three-point"),
    (st.RI1, GENERAL, "normal"),
    (st.OBABO, KINETIC, "normal"),
    (st.BAOAB, KINETIC, "normal"),
    (st.UBU, KINETIC, "normal"),
]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("cls", "sde", "law"), SIMULATED)
def test_simulation_agrees_with_the_moment_map_and_the_kernel_with_the_reference(cls, sde, law):
    """At two steps, |z| < 4.5: the 40 tests have a joint false-alarm rate below 1/3,000. Negative control: the map of another step."""
    name = sde.names[0]
    for dt in (0.25, 0.125):
        one = cls(sde, dt, law)
        run = st.simulate(one, START[: sde.dim], 1.0, 400_000, [name, f"{name}**2"], times=[1.0], seed=7)
        exact = st.exact.moments(one, START[: sde.dim], round(1 / dt), record=[round(1 / dt)])
        mean, second = exact.mean[0, 0], exact.covariance[0, 0, 0] + exact.mean[0, 0] ** 2
        assert abs(run.at(name).z(mean)) < 4.5 and abs(run.at(f"{name}**2").z(second)) < 4.5
        far = st.exact.moments(cls(sde, 1.0, law), START[: sde.dim], 1, record=[1])
        away = max(
            abs(run.at(name).z(far.mean[0, 0])), abs(run.at(f"{name}**2").z(far.covariance[0, 0, 0] + far.mean[0, 0] ** 2))
        )
        assert away > 10
    fast, slow = (
        st.simulate(one, START[: sde.dim], 1.0, 600, [name], keep_final=True, backend=b).final for b in ("numba", "numpy")
    )
    np.testing.assert_allclose(fast, slow, rtol=1e-10, atol=1e-10)


CURVED = st.SDE(drift=["-x**3", "-y"], diffusion=["0.5*x", "0.3 + 0.1*sin(y)"], variables="x y")
CURVED_ADDITIVE = st.SDE(drift=["-x**3 + y", "-sin(y)"], diffusion=[[0.5, 0.1], [0.0, 0.3]], variables="x y")
STRONG = [
    (st.EulerMaruyama, GENERAL, 0.5),
    (st.EulerMaruyama, CURVED_ADDITIVE, 1.0),
    (st.Milstein, CURVED, 1.0),
    (st.Heun, GENERAL_S, 0.5),
    (st.SRA1, CURVED_ADDITIVE, 1.5),
]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("cls", "sde", "order"), STRONG)
def test_strong_orders_by_coupled_steps(cls, sde, order):
    """The rms distance of dt and dt/2 on one Brownian path; negative control: independent draws."""

    def distance(dt, coupled=True):
        final = st.weak_gap(
            cls(sde, dt), cls(sde, dt / 2), START[:2], 1.0, 20_000, [sde.names[0]], times=[1.0], keep_final=True, coupled=coupled
        ).final
        return float(np.sqrt(((final[:2] - final[2:]) ** 2).sum(axis=0).mean()))

    near = [distance(2.0**-k) for k in (7, 8, 9)]
    slopes = np.log2(np.array(near[:-1]) / near[1:])
    assert np.all(np.abs(slopes - order) < 0.1)
    assert distance(2.0**-9, coupled=False) > 10 * near[-1]


@pytest.mark.parametrize("ratio", [2, 3, 8])
def test_sums_of_fine_draws_are_the_coarse_increments(ratio):
    """For W and, with two levels of draws, for the integral of W, to rounding."""
    w = st.SDE(drift=["0*x"], diffusion=["1"], variables="x")
    final = st.weak_gap(
        st.EulerMaruyama(w, 0.25), st.EulerMaruyama(w, 0.25 / ratio), [0.0], 1.0, 500, ["x"], keep_final=True
    ).final
    np.testing.assert_allclose(final[0], final[1], rtol=1e-12, atol=1e-12)
    integral = st.SDE(drift=["0*x", "x"], diffusion=[[1.0], [0.0]], variables="x y")
    for backend in ("numba", "numpy"):
        final = st.weak_gap(
            st.SRA1(integral, 0.25),
            st.SRA1(integral, 0.25 / ratio),
            [0.0, 0.0],
            1.0,
            500,
            ["y"],
            keep_final=True,
            backend=backend,
        ).final
        np.testing.assert_allclose(final[:2], final[2:], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("schedule", [st.schedules.constant(0.02), st.schedules.step_decay(0.02, at=[10, 20], factor=0.5)])
@pytest.mark.parametrize("root", [None, [["1 + 0.3*sin(x)", "0"], ["0.2", "1"]]])
def test_sgd_with_gaussian_noise_is_eulers_scheme(root, schedule, backend):
    noise = st.noise.gaussian(dim=2) if root is None else st.noise.gaussian(root=root, variables="x y")
    oracle = st.NoisyOracle(st.losses.hyperbola(), noise, sigma=0.02**-0.5)
    euler = st.EulerMaruyama(st.LimitSDE(oracle, schedule), dt=0.02)

    def apart(sgd):
        final = st.weak_gap(sgd, euler, [2.0, 0.5], 1.0, 500, ["x"], keep_final=True, backend=backend).final
        return np.abs(final[:2] - final[2:]).max()

    assert apart(st.SGD(oracle, schedule)) < 1e-12
    assert apart(st.SGD(oracle.with_sigma(oracle.sigma * (1 + 1e-6)), schedule)) > 1e-8  # negative control


@pytest.mark.parametrize("dim", [2, 7, 8, 10, 16])
@pytest.mark.parametrize("cls", [st.UBU, st.OBABO, st.SRA1, st.EulerMaruyama])
def test_additive_noise_has_exact_moments_in_any_dimension(cls, dim):
    """Uncoupled coordinates are copies of the one-dimensional process, whose map is a sum over all nodes; 7^28 nodes are too many."""

    def end(d):
        oracle = st.NoisyOracle(st.losses.quadratic(1.7 * np.eye(d)), st.noise.gaussian(dim=d), sigma=10.0)
        one = cls(st.KineticSDE(oracle, st.schedules.constant(eta=0.01, beta=1 - 0.014)), 0.25)
        return one, st.exact.moments(one, [1.0] * d, 4, record=[4])

    (_, many), (one, single) = end(dim), end(1)
    points, weights = st.exact.step_law(one, [1.0])
    mean = points @ weights
    first = st.exact.moments(one, [1.0], 1, record=[1])
    np.testing.assert_allclose(first.state_mean[0], mean, rtol=1e-13)
    np.testing.assert_allclose(first.state_covariance[0], (points * weights) @ points.T - np.outer(mean, mean), atol=1e-13)
    np.testing.assert_allclose(many.mean[0], single.mean[0, 0], rtol=1e-12)
    np.testing.assert_allclose(many.covariance[0], single.covariance[0, 0, 0] * np.eye(dim), atol=1e-12)


@pytest.mark.parametrize("noises", [5, 10, 14])
def test_too_many_nodes_raise_value_error_also_where_their_product_overflows(noises):
    """7^10 2^45 is negative in 64 bits, and 7^14 2^91 is 0."""
    sde = st.SDE(lambda x: [-x[0]], lambda x: [[0.1 * k * x[0] for k in range(1, noises + 1)]], dim=1, noise="general")
    with pytest.raises(ValueError, match="at most 200,000 nodes"):
        st.exact.moments(st.Platen(sde, 0.1), [1.0], 1)


def test_reference_values_of_the_kinetic_and_hamiltonian_limits():
    eta = 1e-3
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=eta**-0.5)
    limit = st.exact.solution(st.KineticSDE(oracle, st.schedules.scaled(eta, alpha=1.0)), [1.0], [1.0])
    np.testing.assert_allclose([limit.mean[0, 0], limit.covariance[0, 0, 0]], [0.65970, 0.14008], atol=1e-5)
    plan = st.schedules.scaled(eta, alpha=1.5)
    flow = st.exact.solution(st.HamiltonianSDE(oracle, plan), [1.0], [2.0])
    np.testing.assert_allclose([flow.mean[0, 0], flow.covariance[0, 0, 0]], [np.cos(2.0), 0.0], atol=1e-12)


INVALID = {
    "Milstein on general noise": (lambda: st.Milstein(GENERAL, 0.1), "commutative"),
    "SRA1 on multiplicative noise": (lambda: st.SRA1(GBM, 0.1), "additive"),
    "Ito scheme on Stratonovich": (lambda: st.EulerMaruyama(GBM_S, 0.1), "ito"),
    "Heun on Ito": (lambda: st.Heun(GBM, 0.1), "stratonovich"),
    "law": (lambda: st.Milstein(GBM, 0.1, "two-point"), "law"),
    "dt": (lambda: st.EulerMaruyama(OU, 0.0), "dt"),
    "no SDE": (lambda: st.EulerMaruyama(lambda x: x, 0.1), "SDE"),
    "splitting": (lambda: st.BAOAB(OU, 0.1), "kinetic"),
    "grids": (lambda: st.weak_gap(st.EulerMaruyama(OU, 0.1), st.EulerMaruyama(OU, 0.04), [1.0], 1.0, 10, ["x"]), "nest"),
    "three points across grids": (
        lambda: st.weak_gap(
            st.EulerMaruyama(OU, 0.1, "three-point"), st.EulerMaruyama(OU, 0.05, "three-point"), [1.0], 1.0, 10, ["x"]
        ),
        "Brownian",
    ),
    "shape": (lambda: st.SDE(drift=lambda x: [x[0]], diffusion=None, dim=2), "drift"),
    "names": (lambda: st.SDE(drift=["-x"], diffusion=["q"], variables="x"), "q"),
    "code": (lambda: st.SDE(drift=["__import__('os').getcwd()"], variables="x"), "__import__"),
    "class": (lambda: st.SDE(**MIXED, noise="diagonal"), "wide enough"),
    "class by its formula": (lambda: st.SDE(["-x"], ["1 + max(x - 1e9, 0)"], variables="x", noise="additive"), "wide enough"),
    "SRA1 beyond a kink": (lambda: st.SRA1(st.SDE(["-x"], ["1 + max(x - 5, 0)"], variables="x"), 0.1), "additive"),
    "calculus": (lambda: st.SDE(drift=["-x"], variables="x", calculus="both"), "calculus"),
    "kinetic": (lambda: st.KineticSDE(KINETIC.oracle, st.schedules.constant(0.1)), "momentum"),
    "Hamiltonian": (lambda: st.HamiltonianSDE(KINETIC.oracle, st.schedules.constant(0.1, 0.9)), "alpha > 1"),
    "not linear": (lambda: st.exact.solution(CURVED, START[:2], [1.0]), "linear"),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_arguments_raise_value_error(name):
    make, message = INVALID[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_modified_equations_agree_with_their_formulas():
    oracle = st.NoisyOracle(st.losses.quadratic([[2.0, 0.5], [0.5, 1.0]]), st.noise.gaussian(dim=2), sigma=1.0)
    H, x, m, gamma, beta = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([0.3, -0.8]), np.array([0.1, 0.4]), 0.04, 0.7
    np.testing.assert_allclose(st.ModifiedSDE(oracle, 0.1).drift(x), -(H @ x) - 0.05 * H @ H @ x, rtol=1e-13)
    h = gamma**0.5
    mu, v, g, one = (1 - beta) / h, -m, H @ x, np.eye(2)
    dv = -((mu * one + h / 2 * (mu**2 * one - H)) @ v + (1 + h * mu / 2) * g)
    dx = (1 - h * mu / 2) * v - h / 2 * g
    np.testing.assert_allclose(
        st.ModifiedMomentumSDE(oracle, gamma, beta).drift(np.concatenate([x, m])), np.concatenate([dx, -dv]), rtol=1e-12
    )


def test_deprecated_names_of_the_orders_warn():
    with pytest.warns(DeprecationWarning, match="`weak` is now `weak_order`"):
        assert st.Platen.weak == 2
    with pytest.warns(DeprecationWarning, match="`strong` is now `strong_order`"):
        assert st.SRA1(OU, 0.1).strong == 1.5
    with pytest.warns(DeprecationWarning, match="Own sets `weak`, which is now `weak_order`") as caught:

        class Own(st.EulerMaruyama):
            weak = 2.0

    assert caught[0].filename == __file__ and Own.weak_order == 2 and Own.strong_order == 0.5
    with pytest.warns(DeprecationWarning, match="`weak` is now `weak_order`"):
        assert Own.weak == 2
    own = Own(OU, 0.1)
    with pytest.warns(DeprecationWarning, match="`weak` is now `weak_order`"):
        own.weak = 1.0
    assert own.weak_order == 1 and Own.weak_order == 2
