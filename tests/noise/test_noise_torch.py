"""Minibatch and label noise of torch models: agreement with compiled linear models, moments of a network, paths on all backends."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st

torch = pytest.importorskip("torch", reason="torch is an extra")

RNG = np.random.default_rng(0)
FEATURES, TARGETS = RNG.normal(size=(12, 3)), RNG.normal(size=12)
LINEAR = st.losses.least_squares(FEATURES, TARGETS)
TORCH = st.losses.from_torch_model(lambda x, a: a @ x, FEATURES, TARGETS, dim=3)


def network(x, a):
    """Return the output of two tanh units with 7 parameters."""
    hidden = torch.tanh(x[:4].reshape(2, 2) @ a[:2] + x[4:6])
    return hidden.sum() * x[6]


NETWORK = st.losses.from_torch_model(network, FEATURES[:, :2], TARGETS, dim=7)
NOISES = {
    "with replacement": lambda loss: st.noise.minibatch(loss, 4),
    "without replacement": lambda loss: st.noise.minibatch(loss, 5, replace=False),
    "labels": lambda loss: st.noise.label_noise(loss, 0.3, size=2),
    "labels of a batch": lambda loss: st.noise.label_noise(loss, 0.3, "gaussian", size=2, batch=True),
}


@pytest.mark.parametrize("name", NOISES)
def test_a_linear_model_agrees_with_the_compiled_one(name):
    """Values and covariances for the same draws."""
    ours, theirs = NOISES[name](LINEAR), NOISES[name](TORCH)
    x, z = RNG.normal(size=(3, 6)), st.noise.sample_draws(ours.draws, np.random.default_rng(1), 6)
    np.testing.assert_allclose(TORCH.gradient(x), LINEAR.gradient(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(theirs.value(x, z), ours.value(x, z), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(theirs.value(x[:, 0], z[:, 0]), ours.value(x[:, 0], z[:, 0]), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(theirs.covariance(x), ours.covariance(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(theirs.covariance(x[:, 0]), ours.covariance(x[:, 0]), rtol=1e-12, atol=1e-13)


@pytest.mark.sample(3)
@pytest.mark.parametrize("backend", ["auto", "torch", "numpy"])
@pytest.mark.parametrize("l", [1, 3])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
@pytest.mark.parametrize("name", NOISES)
def test_paths_agree_with_the_compiled_kernels(name, sigma, l, backend):
    """With momentum, SVAG and sigma; another seed differs."""

    def final(loss, **more):
        oracle = st.svag(st.NoisyOracle(loss, NOISES[name](loss), sigma), l)
        dynamics = st.SGDM(oracle, st.schedules.constant(0.05, 0.5))
        return st.simulate(dynamics, [1.0, 0.0, 0.0], 0.5, 200, {"L": loss}, keep_final=True, **more).final

    expected = final(LINEAR, backend="numba")
    np.testing.assert_allclose(final(TORCH, backend=backend), expected, rtol=1e-10, atol=1e-12)
    assert np.abs(final(TORCH, backend=backend, seed=1) - expected).max() > 1e-3


@pytest.mark.parametrize("name", NOISES)
def test_sample_covariance_of_a_network(name):
    """35 entries from 40,000 draws within 5 standard errors: a false alarm in 5e4 runs; Gaussian version too."""
    x = np.linspace(-0.6, 0.7, 7)
    for noise in (NOISES[name](NETWORK), NOISES[name](NETWORK).as_gaussian()):
        n = 40_000
        v = noise.value(np.repeat(x[:, None], n, axis=1), st.noise.sample_draws(noise.draws, np.random.default_rng(2), n))
        sigma = noise.covariance(x)
        assert (np.abs(v.mean(axis=1)) < 5 * np.sqrt(np.diag(sigma) / n)).all()
        product = v[:, None] * v[None]
        assert (np.abs(product.mean(axis=-1) - sigma) < 5 * product.std(axis=-1) / np.sqrt(n) + 1e-12).all()
        wrong = np.abs(product.mean(axis=-1) - 1.3 * sigma) > 5 * product.std(axis=-1) / np.sqrt(n)
        assert np.diag(wrong).any()  # negative control
    assert noise.gaussian


def test_sgd_on_a_network_agrees_with_a_hand_written_loop():
    """The same uniforms, gradients by autograd, 20 steps of each path."""
    loss, size, eta = NETWORK, 4, 0.1
    oracle = st.NoisyOracle(loss, st.noise.minibatch(loss, size), 1.0)
    run = st.simulate(st.SGD(oracle, st.schedules.constant(eta)), np.full(7, 0.3), 2.0, 4, {"L": loss}, keep_final=True, seed=9)
    from sdetools.simulation.chunks import make_task
    from sdetools.simulation.draws import fill
    from sdetools.simulation.trajectories import stored
    from sdetools.studies.means import make_program

    program = make_program((run.dynamics,), np.full(7, 0.3), 2.0, {"L": loss}, None, (), False, True)[0]
    key = int(make_task(program, 9, 0, 4, 1, stored(program), "numpy").arguments[0][0])
    a, y = torch.tensor(FEATURES[:, :2]), torch.tensor(TARGETS)
    for path in range(4):
        x = torch.full((7,), 0.3, dtype=torch.float64, requires_grad=True)
        for k in range(20):
            index = (fill(program.noise.sets[0], key, np.array([path]), k)[:, 0] * 12).astype(int)
            value = sum((network(x, a[i]) - y[i]) ** 2 / 2 for i in index) / size
            (g,) = torch.autograd.grad(value, x)
            x = (x - eta * g).detach().requires_grad_()
        np.testing.assert_allclose(run.final[:, path], x.detach().numpy(), rtol=1e-11)


def test_a_loss_with_integer_labels_and_a_module():
    """The cross entropy of an nn.Module through functional_call has the gradient of torch's autograd."""
    torch.manual_seed(0)
    module = torch.nn.Linear(2, 3).double()
    shapes = {name: p.shape for name, p in module.named_parameters()}
    sizes = [int(np.prod(s)) for s in shapes.values()]

    def one(x, a, label):
        parts = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), torch.split(x, sizes))}
        return torch.nn.functional.cross_entropy(torch.func.functional_call(module, parts, (a,)), label)

    labels = torch.arange(12) % 3
    loss = st.losses.from_torch(one, dim=9, data=(torch.tensor(FEATURES[:, :2]), labels))
    whole = torch.nn.functional.cross_entropy(module(torch.tensor(FEATURES[:, :2])), labels)
    whole.backward()
    x = torch.cat([p.detach().ravel() for p in module.parameters()]).numpy()
    np.testing.assert_allclose(loss.gradient(x), torch.cat([p.grad.ravel() for p in module.parameters()]).numpy(), rtol=1e-10)
    oracle = st.NoisyOracle(loss, st.noise.minibatch(loss, 3), 1.0)
    gap = st.weak_gap(
        *(rule(oracle, plan) for rule, plan in
          ((st.SGDM, st.schedules.constant(0.05, 0.5)), (st.SGD, st.schedules.constant(0.05, 0.5).averaged()))),
        x0=x, horizon=0.5, paths=300, observe={"L": loss},
    )  # fmt: skip
    assert np.isfinite(gap.sup("L").value) and gap.diverged == 0


ROWS = torch.ones(4, 2)
BAD = {
    "rows": (lambda: st.losses.from_torch(lambda x, a, y: x.sum(), 2, data=(ROWS, torch.ones(3))), "the same number of rows"),
    "empty": (lambda: st.losses.from_torch(lambda x, a: x.sum(), 2, data=torch.ones(0, 2)), "one row for each sample"),
    "a word": (lambda: st.losses.from_torch(lambda x, a: x.sum(), 2, data="digits"), "`data`"),
    "not a number": (lambda: st.losses.from_torch(lambda x, a: a * x, 2, data=ROWS), "one number"),
    "targets": (lambda: st.losses.from_torch_model(lambda x, a: a @ x, ROWS, ROWS, 2), "`targets`"),
    "model": (lambda: st.losses.from_torch_model(None, ROWS, torch.ones(4), 2), "`model`"),
    "labels of no model": (
        lambda: st.noise.label_noise(st.losses.from_torch(lambda x, a: (a @ x) ** 2, 2, data=ROWS)),
        "from_torch_model",
    ),
    "no data": (lambda: st.noise.minibatch(st.losses.from_torch(lambda x: (x**2).sum(), 2), 2), "have data"),
    "too large": (lambda: st.noise.minibatch(TORCH, 13, replace=False), "at most the number of samples"),
    "another loss": (lambda: st.NoisyOracle(NETWORK, st.noise.minibatch(TORCH, 2)), "dimension"),
    "numba": (
        lambda: st.simulate(
            st.SGD(st.NoisyOracle(TORCH, st.noise.minibatch(TORCH, 2)), st.schedules.constant(0.1)),
            [0.0, 0.0, 0.0], 0.2, 10, {"L": TORCH}, backend="numba",
        ),
        "torch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_invalid_arguments_are_rejected_in_one_sentence(name):
    """The message names the argument or the remedy."""
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
