"""The slow SDE: its coefficients, its steps on the manifold, its moments against closed forms, and input validation.

Tests of moments use fixed seeds and |z| < 4.5, a false-alarm rate of 1 in 150,000 per number. Each has a control that must fail.
"""

import pickle

import numpy as np
import pytest

import sdetools as st
from sdetools.dynamics.sdes import slow as formulas
from sdetools.dynamics.sdes.slow import SlowSDE
from sdetools.manifold import at, kernels, project

PLAN = st.schedules.constant(eta=0.01)
Z = 4.5


def slow(loss, noise=None, sigma=1.0, plan=PLAN, **more):
    return st.SlowSDE(st.NoisyOracle(loss, noise or st.noise.gaussian(dim=loss.dim), sigma=sigma), plan, **more)


LOSSES = {
    "valley": (st.losses.exponential_valley(1.0), [0.3, 0.0]),
    "hyperbola": (st.losses.hyperbola(), [2.0, 0.5]),
    "sphere": (st.losses.sphere(3), [0.6, 0.0, 0.8]),
    "two": (st.losses.from_expression("((x*y - 1)**2 + (z - x**2)**2*(1 + w**2))/2", variables="x y z w"), [1.2, 0.9, 1.5, 0.2]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_drift_and_diffusion_agree_with_the_geometry_of_the_manifold(name):
    loss, start = LOSSES[name]
    root = np.random.default_rng(3).normal(size=(loss.dim, 2))
    sde = slow(loss, st.noise.gaussian(root=root), sigma=0.7, at=start)
    x = sde.start(np.array(start))[0]
    geometry = at(loss, x)
    assert np.abs(sde.drift(x) - geometry.slow_drift(0.49 * root @ root.T)).max() < 1e-9
    u = np.array([0.3, -1.1])
    assert np.abs(sde.diffusion(x, u) + geometry.project_tangent(0.7 * root @ u)).max() < 1e-9
    half = [np.array(0.5)]
    assert np.abs(sde.drift(x, None, half) - 0.25 * sde.drift(x)).max() < 1e-12


def test_minibatch_noise_agrees_with_the_geometry_of_the_manifold():
    """u v fitted to targets 1/2 and 3/2 at one input: with batches of size 1 the noise is normal to the manifold u v = 1."""
    import torch

    data = torch.ones(2), torch.tensor([0.5, 1.5])
    loss = st.losses.from_torch(lambda w, a, b: (a * w[0] * w[1] - b) ** 2 / 2, dim=2, data=data)
    sde = slow(loss, st.noise.minibatch(loss, 1), sigma=0.7, at=[2.0, 0.5])
    assert sde._noise_whole  # its covariance is not traced
    x = np.array([2.0, 0.5])
    across = np.array([0.5, 2.0])  # of grad (u v): gradients are (1 - b) of it, b - 1 = -1/2 or 1/2
    exact = at(loss, x).slow_drift(0.49 * np.outer(across, across) / 4)
    assert np.abs(exact).max() > 0.01
    np.testing.assert_allclose(sde.drift(x), exact, atol=1e-9)
    assert np.abs(sde.diffusion(x, np.array([1.0, -0.4]))).max() < 1e-9


def rows(M):
    """Return the entries i <= j of symmetric matrices `(..., d, d)`, as rows of paths."""
    i, j = np.triu_indices(M.shape[-1])
    return np.moveaxis(M[..., i, j], -1, 0)


@pytest.mark.parametrize(("dtype", "a"), [("float32", 1e-30), ("float64", 1e-170), ("float64", 0.1)])
def test_rotations_where_squares_underflow(dtype, a):
    """[[0, a], [a, 0]] has the eigenvalues -a and a; where a^2 underflows, no rotation increases an entry."""
    A, V = np.array([0, a, a, 0], dtype)[:, None], np.empty((4, 1), dtype)
    kernels.jacobi(A, V, 2, 1)
    assert np.abs(A[[0, 1, 3]]).max() <= np.abs(np.array(a, dtype))  # sines are stored below the diagonal
    V = V.reshape(2, 2).astype(float)
    np.testing.assert_allclose(V @ V.T, np.eye(2), rtol=0, atol=4 * np.finfo(dtype).eps)


def test_the_frame_agrees_with_inverses_of_full_matrices():
    """P = 1 - H^+ H, H^+, P S P and Lyap^{-1}(Q S Q) + H^+ S P + P S H^+, for Hessians of rank 2 in four coordinates."""
    rng = np.random.default_rng(4)
    rotation = np.linalg.qr(rng.normal(size=(3, 4, 4)))[0]
    H = rotation @ (np.array([3.0, 0.5, 0.0, 0.0])[:, None] * rotation.swapaxes(1, 2))
    S = rng.normal(size=(3, 4, 4))
    S = S @ S.swapaxes(1, 2)
    found = formulas._plain_frame(4, 2, rows(H), rows(S)).reshape(4, 10, 3)
    for n in range(3):
        inverse = np.linalg.pinv(H[n], rcond=1e-8, hermitian=True)
        Q = inverse @ H[n]
        P = np.eye(4) - Q
        both = np.kron(H[n], np.eye(4)) + np.kron(np.eye(4), H[n])
        level = (np.linalg.pinv(both, rcond=1e-8, hermitian=True) @ (Q @ S[n] @ Q).ravel()).reshape(4, 4)
        mixed = inverse @ S[n] @ P
        right = np.array([P, inverse, P @ S[n] @ P, level + mixed + mixed.T])
        np.testing.assert_allclose(found[:, :, n], rows(right).T, atol=1e-12)
        T = rng.normal(size=(4, 4, 4))
        T = sum(T.transpose(order) for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
        own = T[formulas.ascending(4, 3)]
        pulled = -inverse @ np.einsum("ijl,ij->l", T, right[2]) - P @ np.einsum("ijl,ij->l", T, right[3])
        np.testing.assert_allclose(formulas._plain_pull(4, found[:, :, n].ravel(), own), pulled, rtol=1e-12)
        g = rng.normal(size=4)
        newton = formulas._plain_newton(4, rows(H[n : n + 1]), rows(P[None]), g[:, None])
        np.testing.assert_allclose(newton[:, 0], np.linalg.solve(H[n] + np.trace(H[n]) * P, g), rtol=1e-12)


def test_a_frame_is_nan_where_the_rank_is_ambiguous():
    """Exactly where |lambda_3| exceeds 0.7 lambda_2, or lambda_2 is below 1e-8 lambda_1."""
    values = np.array(
        [[1.0, 1.0, 0.695], [1.0, 1.0, 0.705], [1.0, -0.695, 1.0], [-0.705, 1.0, 1.0], [1.01e-8, 0.0, 1.0], [0.99e-8, 0.0, 1.0]]
    )
    H = values[:, :, None] * np.eye(3)
    ambiguous = np.isnan(formulas._plain_frame(3, 2, rows(H), rows(np.broadcast_to(np.eye(3), (6, 3, 3))))).all(axis=0)
    assert ambiguous.tolist() == [False, True, False, True, False, True]


def test_lambda_is_evaluated_on_the_slow_clock():
    """lambda at t = k eta^2, also within a step that covers three steps of the plan; the end belongs to the last of them."""
    eta, rates = 0.1, np.array([0.1, 0.07, 0.05, 0.02])
    sde = slow(LOSSES["valley"][0], plan=st.schedules.from_arrays(rates, base=eta), at=[0.3, 0.0])
    starts = eta**2 * np.arange(3)
    for part, width, later in ((0.0, 1, 0), (0.99, 1, 0), (1.0, 1, 0), (0.33, 3, 0), (0.66, 3, 1), (1.0, 3, 2)):
        found = sde.signal_values(starts, part, width * eta**2)
        np.testing.assert_allclose(found[:, 0], (rates / eta)[np.minimum(np.arange(3) + later, 3)], rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "integrator"), [("valley", st.EulerMaruyama), ("two", st.EulerMaruyama), ("hyperbola", st.Platen)]
)
def test_backends_agree_path_by_path(name, integrator):
    loss, start = LOSSES[name]
    dynamics = integrator(slow(loss, st.noise.gaussian(root=np.eye(loss.dim)[:, :2]), at=start), 0.01)
    runs = [
        st.simulate(dynamics, x0=start, horizon=0.05, paths=70, seed=3, observe=[loss.names[0]], keep_final=True, backend=b).final
        for b in ("numpy", "numba")
    ]
    assert np.abs(runs[0] - runs[1]).max() < 1e-10


BY_VALUE = {
    "circle": (st.losses.from_function(value=lambda x: (np.sum(x * x) - 1) ** 2 / 4, dim=2), [0.6, 0.8]),
    "surface": (st.losses.from_function(value=lambda x: (x[0] * x[1] * x[2] - 1) ** 2 / 2, dim=3), [1.0, 1.0, 1.0]),
    "model": (
        st.losses.from_function(
            model=lambda x, a: a @ (x[:2] ** 2 - x[2:] ** 2),
            data=(np.array([[1.0, 0.5], [-0.3, 0.8]]), np.array([0.9, 0.4])),
            dim=4,
        ),
        [1.0, 0.9, 0.3, 0.2],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_VALUE)
def test_a_loss_defined_by_its_value_has_a_kernel(name):
    """Its derivatives are operations on small arrays; the NumPy paths use the same code."""
    loss, start = BY_VALUE[name]
    dynamics = st.EulerMaruyama(slow(loss, st.noise.gaussian(dim=loss.dim), at=start), 0.02)
    given = dict(x0=st.manifold.project(loss, start), horizon=0.1, paths=70, seed=3, observe=[loss.names[0]], keep_final=True)
    ends = [st.simulate(dynamics, backend=b, **given).final for b in ("numpy", "numba")]
    assert np.abs(ends[0] - ends[1]).max() < 1e-12
    assert max(map(loss.value, ends[1].T)) < 1e-12 and np.ptp(ends[1][0]) > 1e-3


def test_torch_agrees_and_accepts_torch_losses():
    torch = pytest.importorskip("torch")
    loss = st.losses.sphere(2)
    own = st.losses.from_torch(lambda x: ((x * x).sum() - 1.0) ** 2 / 4, dim=2)
    finals = []
    for given, backend in ((loss, "numpy"), (loss, "torch"), (own, "auto")):
        dynamics = st.EulerMaruyama(slow(given, at=[1.0, 0.0]), 0.02)
        finals.append(
            st.simulate(
                dynamics, x0=[0.6, 0.8], horizon=0.2, paths=40, seed=1, observe=["x0"], keep_final=True, backend=backend
            ).final
        )
    assert torch is not None
    assert np.abs(finals[0] - finals[1]).max() < 1e-12
    assert np.abs(finals[0] - finals[2]).max() < 1e-10


@pytest.mark.sample(1)
@pytest.mark.parametrize(("name", "integrator"), [("hyperbola", st.EulerMaruyama), ("sphere", st.EulerMaruyama)])
def test_steps_stay_on_the_manifold_to_rounding(name, integrator):
    loss, start = LOSSES[name]
    run = st.simulate(
        integrator(slow(loss, at=start), 0.01),
        x0=start,
        horizon=2.0,
        paths=512,
        observe=[loss.text],
        times=[0.5, 2.0],
        keep_final=True,
    )
    assert run.diverged == 0
    assert np.abs(loss.gradient(run.final)).max() < 1e-12
    assert run.at(loss.text).value < 1e-24


@pytest.mark.slow
def test_after_ten_thousand_steps_the_distance_to_the_manifold_is_rounding():
    run = st.simulate(
        st.EulerMaruyama(slow(st.losses.sphere(3)), 1e-3),
        x0=[1.0, 0, 0],
        horizon=10.0,
        paths=256,
        observe=["x0"],
        times=[10.0],
        keep_final=True,
    )
    assert np.abs(np.linalg.norm(run.final, axis=0) - 1).max() < 1e-10


def z_of(estimate, exact):
    return (estimate.value - exact) / estimate.stderr


@pytest.mark.slow
def test_moments_of_the_valley():
    """X_t ~ N(x_0 - t/4, t) exactly, for every scheme, because drift and diffusion along Gamma are constant."""
    run = st.simulate(
        st.EulerMaruyama(slow(LOSSES["valley"][0]), 0.1), x0=[0.5, 1.0], horizon=1.0, paths=50_000, observe=["x", "x**2"]
    )
    mean = 0.5 - 0.25 - 0.25
    assert abs(z_of(run.at("x"), mean)) < Z and abs(z_of(run.at("x**2"), mean**2 + 1)) < Z
    assert abs(z_of(run.at("x"), mean + 0.05)) > Z  # negative control: the drift is a fifth too small


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "integrator", "dt"), [(2, st.Platen, 0.0625), (3, st.EulerMaruyama, 0.0078125)])
def test_moments_of_the_sphere(dim, integrator, dt):
    """E X_t = e^{-(d-1)t/2} x_0 and E (X.e)^2 = 1/d + ((x_0.e)^2 - 1/d) e^{-d t}: eigenfunctions of the sphere's Laplacian."""
    dynamics = integrator(slow(st.losses.sphere(dim)), dt, "three-point")
    run = st.simulate(dynamics, x0=np.eye(dim)[0], horizon=0.5, paths=30_000, seed=2, observe=["x0", "x0**2"], times=[0.25, 0.5])
    for t in (0.25, 0.5):
        second = 1 / dim + (1 - 1 / dim) * np.exp(-dim * t)
        for name, exact in (("x0", np.exp(-(dim - 1) * t / 2)), ("x0**2", second)):
            assert abs(z_of(run.at(name, t), exact)) < Z, (name, t)
        assert abs(z_of(run.at("x0", t), np.exp(-(dim - 1) * t / 2 * 1.15))) > Z


@pytest.mark.slow
def test_the_conserved_quantity_of_the_flow_is_a_martingale_on_the_hyperbola():
    """q = x^2 - y^2 with Sigma = I: dq = 2 (q^2 + 4)^{1/4} dW, so E q is constant and d E q^2 = 4 E sqrt(q^2 + 4) dt."""
    times = np.linspace(0.0, 0.2, 21)
    q = "x**2 - y**2"
    run = st.simulate(
        st.EulerMaruyama(slow(st.losses.hyperbola()), 0.0025),
        x0=[1.5, 1 / 1.5], horizon=0.2, paths=60_000, seed=4, observe=[q, f"({q})**2", f"sqrt(({q})**2 + 4)"], times=times[1:],
    )  # fmt: skip
    q0 = 1.5**2 - 1.5**-2
    assert all(abs(z_of(run.at(q, t), q0)) < Z for t in times[1:])
    rate = np.array([np.sqrt(q0**2 + 4), *(run.at(2, t).value for t in times[1:])])
    grown = 4 * np.trapezoid(rate, times)
    estimate = run.at(1, 0.2)
    assert abs((estimate.value - q0**2 - grown) / estimate.stderr) < Z
    assert abs((estimate.value - q0**2 - 1.1 * grown) / estimate.stderr) > Z


@pytest.mark.slow
def test_with_label_noise_the_slow_sde_is_a_flow_that_decreases_the_trace():
    """Sigma = c Hess L on Gamma: x' = -(c/4) (tr H)' = -(eps^2/2) x / 1 for the valley f = sqrt(1 + x^2) y, tr H = 1 + x^2."""
    loss, eps = st.losses.label_noise_valley(), 0.5
    noise = st.noise.rademacher(
        root=[["eps*x*y/sqrt(1 + x**2)"], ["eps*sqrt(1 + x**2)"]], variables="x y", parameters={"eps": eps}
    )
    sde = slow(loss, noise)
    assert sde.noise_dim == 0
    errors = []
    for dt in (0.1, 0.05):
        end = st.simulate(st.RI1(sde, dt), x0=[1.0, 0.0], horizon=2.0, paths=1, observe=["x"]).at("x")
        errors.append(abs(end.value - np.exp(-(eps**2) / 2 * 2.0)))
    assert errors[1] < 1e-6 and errors[0] / errors[1] > 6  # order 3 without noise


def test_a_varying_rate_is_evaluated_on_the_slow_clock():
    eta = 0.1
    plan = st.schedules.scaled(eta, alpha=0.5, rate=lambda t: 1.0 if t < 0.5 else 0.5, damping=0.5, horizon=2.0, step_time=eta**2)
    run = st.simulate(
        st.EulerMaruyama(slow(LOSSES["valley"][0], plan=plan.averaged()), 0.01),
        x0=[0.0, 0.0],
        horizon=1.0,
        paths=40_000,
        observe=["x", "x**2"],
    )
    grown = 0.5 + 0.25 * 0.5
    assert (
        abs(run.at("x").value + grown / 4) < Z * run.at("x").stderr + 0.01
    )  # the averaged rate changes within a few of its steps
    assert abs(run.at("x**2").value - grown) < Z * run.at("x**2").stderr + 0.02
    assert abs(run.at("x**2").value - 1.0) > 0.1


def test_the_start_is_projected_by_the_flow():
    sde = slow(st.losses.exponential_valley(1.0))
    assert np.abs(sde.start(np.array([0.3, 2.0]))[0] - [0.3 - 1.0, 0.0]).max() < 1e-9


@pytest.mark.slow
def test_orders_on_the_circle():
    """E (X.e)^2 = 1/2 + e^{-2t}/2 with three-point draws: the local orders are 1 and 2 within three standard errors."""
    exact = 0.5 + 0.5 * np.exp(-1.0)
    for integrator, order in ((st.EulerMaruyama, 1.0), (st.Platen, 2.0)):
        z = []
        for dt in (0.25, 0.125):
            dynamics = integrator(slow(st.losses.sphere(2)), dt, "three-point")
            run = st.simulate(
                dynamics, x0=[1.0, 0.0], horizon=0.5, paths=400_000, seed=8, observe=["x0", "x0**2"], times=[0.25, 0.5]
            )
            z.append(abs(z_of(run.at("x0**2"), exact)))
        assert z[1] > Z  # resolved
        assert abs(np.log2(z[0] / z[1]) - order) < 0.5 + 5 / z[1]


def test_it_pickles():
    sde = slow(st.losses.sphere(2))
    again = pickle.loads(pickle.dumps(sde))
    x = np.array([0.6, 0.8])
    assert np.array_equal(again.drift(x), sde.drift(x)) and again.identity == sde.identity


@pytest.mark.slow
def test_paths_near_a_singular_point_count_as_diverged():
    """Curvatures 1 and x^2, and label noise that drives x to 0 as e^{-t/2}: from x = 0.01 their ratio is below 1e-8 after t = 9.2."""
    loss = st.losses.from_expression("(y**2 + (x*z)**2)/2", variables="x y z")
    noise = st.noise.gaussian(root=[["0", "z"], ["1", "0"], ["0", "x"]], variables="x y z")
    sde = slow(loss, noise, at=[1.0, 0.0, 0.0])
    for horizon, diverged in ((9.0, 0), (10.0, 16)):
        run = st.simulate(st.EulerMaruyama(sde, 0.05), x0=[0.01, 0.0, 0.0], horizon=horizon, paths=16, observe=["x"])
        assert run.diverged == diverged
        assert np.isnan(run.at("x").value) == (diverged > 0)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: slow(st.losses.double_well()), "minimum is isolated"),
        (lambda: slow(st.losses.from_expression("x**2/2 + y**4", variables="x y")), "must stay at its minimum"),
        (lambda: slow(st.losses.from_expression("x**2/2 + y**6", variables="x y"), at=[1.0, 1.0], rank=1), "must stay at its minimum"),
        (lambda: slow(st.losses.from_expression("x**2 - y**2", variables="x y")), "`at` must be a point whose gradient flow"),
        (lambda: slow(st.losses.hyperbola(), at=[0.0, 0.0]), "saddle"),
        (lambda: slow(st.losses.hyperbola(), at=[1.0]), "`at`"),
        (lambda: slow(st.losses.hyperbola(), rank=2), "full rank|gap"),
        (lambda: SlowSDE(st.losses.hyperbola(), PLAN), "NoisyOracle"),
        (lambda: SlowSDE(st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2)), 0.1), "schedule"),
        (lambda: st.simulate(st.EulerMaruyama(slow(st.losses.hyperbola()), 0.1), x0=[0.0, 0.0], horizon=1.0, paths=4, observe=["x"]), "saddle"),
        (lambda: st.Heun(slow(st.losses.hyperbola()), 0.1), "stratonovich"),
    ],
)  # fmt: skip
def test_invalid_arguments_raise_value_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_projection_of_a_start_is_cached():
    sde = slow(st.losses.sphere(2))
    x = np.array([3.0, 4.0])
    assert sde.start(x)[0] is sde.start(x)[0]
    assert np.abs(project(st.losses.sphere(2), x) - [0.6, 0.8]).max() < 1e-9
