"""Conversion of SDEs to and from torchsde: equal drift and diffusion, and equal paths by torchsde's solver and by sdetools."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st

torch = pytest.importorskip("torch", reason="torch is an extra")

from sdetools.bridge import from_torchsde, to_torchsde  # noqa: E402

PLAN = st.schedules.step_decay(0.1, at=[5], factor=0.5, beta=0.5)
ORACLE = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(root=[["1", "0"], ["0.5", "0.3*x"]], variables="x y"), sigma=2.0)
CASES = {
    "diagonal": st.SDE(drift=["-x**3", "-y + t"], diffusion=["0.5*x", "0.3 + 0.1*sin(y)"], variables="x y"),
    "scalar": st.SDE(drift=["-x", "x - y"], diffusion=[["0.3*y"], ["1"]], variables="x y"),
    "general": st.SDE(drift=["-x", "-tanh(y)"], diffusion=[["x", "y"], ["0.2", "x*y"]], variables="x y"),
    "additive": st.SDE(drift=["-x", "-y"], diffusion=[[0.5, 0.1], [0.0, 0.3]], variables="x y"),
    "limit": st.LimitSDE(ORACLE, PLAN),
}


@pytest.mark.parametrize("name", CASES)
def test_drift_and_diffusion_are_equal(name):
    sde, model = CASES[name], to_torchsde(CASES[name])
    y, t = np.random.default_rng(1).normal(size=(2, 7)), 0.3
    v = np.random.default_rng(2).normal(size=(sde.noise_dim, 7))
    signals = sde.signal_values(np.array([t]), 0.0, 0.0)[0] if sde.signals else ()
    at, w = torch.as_tensor(y.T.copy()), torch.as_tensor(v.T.copy())
    np.testing.assert_allclose(model.f(t, at).numpy().T, sde.drift(y, None, signals), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(model.g_prod(t, at, w).numpy().T, sde.diffusion(y, list(v), None, signals), rtol=1e-13, atol=1e-13)


class Model(torch.nn.Module):
    """A typical torchsde model: a module with weights."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def f(self, t, y):
        return -self.rate * y

    def g(self, t, y):
        return 0.3 + 0.2 * torch.sin(y)


def test_a_torchsde_model_gives_the_same_paths_as_the_formula():
    ours = st.SDE(drift=["-1.5*x", "-1.5*y"], diffusion=["0.3 + 0.2*sin(x)", "0.3 + 0.2*sin(y)"], variables="x y")
    theirs = from_torchsde(Model(), dim=2, names="x y")
    assert theirs.noise_class == ours.noise_class == "diagonal"
    for integrator in (st.EulerMaruyama, st.Milstein):
        a, b = (st.simulate(integrator(s, 0.1), [1.0, 0.5], 1.0, 300, ["x*y"], keep_final=True) for s in (ours, theirs))
        np.testing.assert_allclose(a.final, b.final, rtol=1e-12, atol=1e-12)


def test_the_identity_depends_on_the_weights():
    one, other = Model(), Model()
    other.rate.data += 1.0
    assert from_torchsde(one, 2).identity == from_torchsde(Model(), 2).identity != from_torchsde(other, 2).identity


class GivenIncrements:
    """A Brownian path for torchsde with given increments."""

    def __init__(self, increments, h):
        self.increments, self.h = increments, h
        self.shape, self.dtype, self.device = increments.shape[1:], increments.dtype, increments.device
        self.levy_area_approximation = "none"

    def __call__(self, ta, tb=None, return_U=False, return_A=False):
        return self.increments[round(float(ta) / self.h)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchsde's own
def test_torchsdes_euler_on_the_same_draws_gives_the_same_paths():
    torchsde = pytest.importorskip("torchsde", reason="torchsde is an extra")
    from sdetools.simulation.draws import DrawPlan, fill
    from sdetools.simulation.philox import stream_key

    sde, h, paths, steps = CASES["limit"], 0.05, 256, 20
    em = st.EulerMaruyama(sde, h)
    ours = st.simulate(em, [2.0, 0.5], steps * h, paths, ["x"], keep_final=True, seed=9).final
    z = np.stack([fill(DrawPlan(em.draws), stream_key(9, 0), np.arange(paths), k).T for k in range(steps)])
    y0, ts = torch.tensor([[2.0, 0.5]], dtype=torch.float64).repeat(paths, 1), torch.tensor([0.0, steps * h], dtype=torch.float64)
    bm = GivenIncrements(torch.as_tensor(np.sqrt(h) * z), h)
    theirs = torchsde.sdeint(to_torchsde(sde), y0, ts, bm=bm, method="euler", dt=h)[-1].numpy().T
    np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: to_torchsde("sde"), "sdetools SDE"),
        (lambda: to_torchsde(from_torchsde(Model(), 2)), "traceable"),
        (lambda: from_torchsde(object(), 2), "protocol"),
        (lambda: from_torchsde(Model(), 0), "dim"),
        (lambda: from_torchsde(type("M", (Model,), {"noise_type": "odd"})(), 2), "noise_type"),
        (lambda: from_torchsde(type("M", (Model,), {"f": lambda self, t, y: y[:, :1]})(), 2), "shape"),
    ],
)
def test_invalid_models_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def model_of(kind, **functions):
    """Return a model of a noise type with some functions replaced; the others are valid."""
    widths = {"diagonal": None, "scalar": 1, "additive": 3, "general": 3}

    def g(self, t, y):
        if widths[kind] is None:
            return 0.1 + 0.2 * y
        return (0.3 * torch.ones_like(y) if kind == "additive" else 0.1 + 0.2 * y)[:, :, None].repeat(1, 1, widths[kind])

    own = {"f": lambda self, t, y: -y, "g": g} | functions
    return type("Own", (), {"noise_type": kind, "sde_type": "ito", **{k: v for k, v in own.items() if v is not None}})()


@pytest.mark.parametrize("kind", ["diagonal", "scalar", "additive", "general"])
def test_correct_shapes_are_accepted(kind):
    sde = from_torchsde(model_of(kind), dim=2)
    assert sde.noise_dim == {"diagonal": 2, "scalar": 1}.get(kind, 3)
    product = model_of(
        kind, g=None, g_prod=lambda self, t, y, v: 0.1 * y * v.sum(1, keepdim=True) if kind != "additive" else 0 * y
    )
    if kind != "diagonal":
        assert from_torchsde(product, dim=2, noise_dim=sde.noise_dim).noise_dim == sde.noise_dim


WRONG = {
    "one number": lambda self, t, y: torch.tensor(0.3),
    "no batch": lambda self, t, y: y[0],
    "a batch of one": lambda self, t, y: y[:1],
    "transposed": lambda self, t, y: y.T,
    "one column": lambda self, t, y: y[:, :1],
    "four axes": lambda self, t, y: y[:, :, None, None],
    "a list": lambda self, t, y: [row for row in y],
    "nothing": lambda self, t, y: None,
    "NumPy": lambda self, t, y: y.numpy(),
    "complex": lambda self, t, y: torch.complex(y, y),
    "of a fixed batch": lambda self, t, y: torch.ones(2, 2, dtype=torch.float64),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("kind", ["diagonal", "scalar", "additive", "general"])
def test_results_of_wrong_shape_are_refused(kind, name):
    for function in ("f", "g"):
        with pytest.raises(
            ValueError, match=rf"^`{function}` must return a real tensor of shape \(batch, 2.*; for a batch of [23] it gave .*\.$"
        ):
            from_torchsde(model_of(kind, **{function: WRONG[name]}), dim=2)


@pytest.mark.parametrize(
    ("kind", "g", "message"),
    [
        ("diagonal", lambda self, t, y: torch.diag_embed(y), r"shape \(batch, 2\) for diagonal noise; for a batch of 2 it gave \(2, 2, 2\)"),
        ("scalar", lambda self, t, y: y, r"shape \(batch, 2, 1\) for scalar noise; for a batch of 2 it gave \(2, 2\)"),
        ("scalar", lambda self, t, y: torch.diag_embed(y), r"for scalar noise; for a batch of 2 it gave \(2, 2, 2\)"),
        ("additive", lambda self, t, y: torch.eye(2, dtype=y.dtype), r"shape \(batch, 2, noise_dim\) for additive noise"),
        ("general", lambda self, t, y: torch.eye(2, dtype=y.dtype)[None], r"for general noise; for a batch of 2 it gave \(1, 2, 2\)"),
        ("general", lambda self, t, y: torch.ones(len(y), 3, 2, dtype=y.dtype), r"for a batch of 2 it gave \(2, 3, 2\)"),
        ("general", lambda self, t, y: torch.ones(2, 2, 2, dtype=y.dtype), r"for a batch of 3 it gave \(2, 2, 2\)"),
        ("general", lambda self, t, y: 1 / 0, "`g` must take .*calling it raised ZeroDivisionError"),
        ("general", lambda self, t, y: y.reshape(7), "`g` must take .*calling it raised RuntimeError"),
        ("diagonal", lambda self, t, y: y * y.mean(), "`g` must evaluate the rows of y independently"),
        ("diagonal", lambda self, t, y: torch.rand_like(y), "`g` must evaluate the rows of y independently"),
    ],
)  # fmt: skip
def test_a_diffusion_of_wrong_shape_for_its_noise_type_is_refused(kind, g, message):
    with pytest.raises(ValueError, match=message):
        from_torchsde(model_of(kind, g=g), dim=2)


def test_wrong_numbers_of_brownian_motions_are_refused():
    for kind, given, message in (
        ("diagonal", 3, "`noise_dim` must be 2 for diagonal noise of a y with 2 columns; got 3"),
        ("scalar", 2, "`noise_dim` must be 1 for scalar noise"),
        ("general", 2, r"`g` must return a real tensor of shape \(batch, 2, 2\) for general noise; .* gave \(2, 2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            from_torchsde(model_of(kind), dim=2, noise_dim=given)
    for product, message in (
        (lambda self, t, y, v: y.reshape(7), "`g_prod` must take .*calling it raised RuntimeError"),
        (lambda self, t, y, v: v, r"`g_prod` must return a real tensor of shape \(batch, 2\); for a batch of 2 it gave \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            from_torchsde(model_of("general", g=None, g_prod=product), dim=2, noise_dim=3)


def test_a_shape_that_changes_during_a_run_is_refused():
    late = from_torchsde(model_of("diagonal", g=lambda self, t, y: y if t < 0.5 else y[:, :1].expand(-1, 3)), dim=2)
    with pytest.raises(ValueError, match=r"`g` must return .*; for a batch of (\d+) it gave \(\1, 3\)"):
        st.simulate(st.EulerMaruyama(late, 0.1), [1.0, 0.5], 1.0, 10, ["x0"])


def test_a_network_in_training_mode_is_refused():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).double()
    for ready in (False, True):
        net.train(not ready)
        model = model_of("diagonal", f=lambda self, t, y: net(y))
        if ready:
            assert from_torchsde(model, dim=2).noise_dim == 2
        else:
            with pytest.raises(ValueError, match=r"`f` must evaluate the rows of y independently.*Call eval\(\)"):
                from_torchsde(model, dim=2)
