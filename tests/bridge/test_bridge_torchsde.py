"""SDEs to and from torchsde: the same drift and diffusion, and torchsde's own solver agrees with ours path by path."""

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
def test_drift_and_diffusion_are_the_same(name):
    sde, model = CASES[name], to_torchsde(CASES[name])
    y, t = np.random.default_rng(1).normal(size=(2, 7)), 0.3
    v = np.random.default_rng(2).normal(size=(sde.noise_dim, 7))
    signals = sde.signal_values(np.array([t]), 0.0, 0.0)[0] if sde.signals else ()
    at, w = torch.as_tensor(y.T.copy()), torch.as_tensor(v.T.copy())
    np.testing.assert_allclose(model.f(t, at).numpy().T, sde.drift(y, None, signals), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(model.g_prod(t, at, w).numpy().T, sde.diffusion(y, list(v), None, signals), rtol=1e-13, atol=1e-13)


class Model(torch.nn.Module):
    """What a user of torchsde has: a module with weights."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def f(self, t, y):
        return -self.rate * y

    def g(self, t, y):
        return 0.3 + 0.2 * torch.sin(y)


def test_a_torchsde_model_comes_unchanged():
    ours = st.SDE(drift=["-1.5*x", "-1.5*y"], diffusion=["0.3 + 0.2*sin(x)", "0.3 + 0.2*sin(y)"], variables="x y")
    theirs = from_torchsde(Model(), dim=2, names="x y")
    assert theirs.noise_class == ours.noise_class == "diagonal"
    for integrator in (st.EulerMaruyama, st.Milstein):
        a, b = (st.simulate(integrator(s, 0.1), [1.0, 0.5], 1.0, 300, ["x*y"], keep_final=True) for s in (ours, theirs))
        np.testing.assert_allclose(a.final, b.final, rtol=1e-12, atol=1e-12)


def test_other_weights_are_another_experiment():
    one, other = Model(), Model()
    other.rate.data += 1.0
    assert from_torchsde(one, 2).identity == from_torchsde(Model(), 2).identity != from_torchsde(other, 2).identity


class Given:
    """A Brownian path for torchsde with the increments of our draws."""

    def __init__(self, increments, h):
        self.increments, self.h = increments, h
        self.shape, self.dtype, self.device = increments.shape[1:], increments.dtype, increments.device
        self.levy_area_approximation = "none"

    def __call__(self, ta, tb=None, return_U=False, return_A=False):
        return self.increments[round(float(ta) / self.h)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchsde's own
def test_torchsdes_euler_on_our_draws_takes_our_paths():
    torchsde = pytest.importorskip("torchsde", reason="torchsde is an extra")
    from sdetools.simulation.philox import WordPlan, fill, stream_key

    sde, h, paths, steps = CASES["limit"], 0.05, 256, 20
    em = st.EulerMaruyama(sde, h)
    ours = st.simulate(em, [2.0, 0.5], steps * h, paths, ["x"], keep_final=True, seed=9).final
    z = np.stack([fill(WordPlan(em.draws), stream_key(9, 0), np.arange(paths), k).T for k in range(steps)])
    y0, ts = torch.tensor([[2.0, 0.5]], dtype=torch.float64).repeat(paths, 1), torch.tensor([0.0, steps * h], dtype=torch.float64)
    bm = Given(torch.as_tensor(np.sqrt(h) * z), h)
    theirs = torchsde.sdeint(to_torchsde(sde), y0, ts, bm=bm, method="euler", dt=h)[-1].numpy().T
    np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: to_torchsde("sde"), "SDE of ours"),
        (lambda: to_torchsde(from_torchsde(Model(), 2)), "traceable"),
        (lambda: from_torchsde(object(), 2), "protocol"),
        (lambda: from_torchsde(Model(), 0), "dim"),
        (lambda: from_torchsde(type("M", (Model,), {"noise_type": "odd"})(), 2), "noise_type"),
        (lambda: from_torchsde(type("M", (Model,), {"f": lambda self, t, y: y[:, :1]})(), 2), "shape"),
    ],
)
def test_what_does_not_fit_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()
