"""Batches of losses given by a function of one sample: moments by enumeration, paths on all backends, labels, input validation."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
from samples import FEATURES, PROBLEMS, TARGETS, D, N
from traced import EMITTERS, traced

import sdetools as st
from sdetools import noise
from sdetools.graph.value import Trace, order, value
from sdetools.losses import from_function, samples
from sdetools.noise import NoisyOracle, Sign, Uniform, svag
from sdetools.noise.batch_sampling import batch_indices

LOSSES = {name: problem.loss() for name, problem in PROBLEMS.items()}
FEW = {name: from_function(value=p.formula(np), data=[d[:4] for d in p.data], dim=p.dim) for name, p in PROBLEMS.items()}
MODEL = from_function(model=lambda x, a: a @ np.tanh(x), data=(FEATURES[:4], TARGETS[:4]), dim=D)


def close(a, b):
    """Compare arrays relative to the largest entry, at least 1e-3."""
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * max(np.abs(b).max(), 1e-3))


def outcomes(n, size, replace):
    """Return one vector of uniforms, at cell centres, for each equally likely outcome of the sample numbers."""
    ends = [n if replace else n - size + b + 1 for b in range(size)]
    return np.array([[(k + 0.5) / m for k, m in zip(ks, ends, strict=True)] for ks in itertools.product(*map(range, ends))])


# ---- moments


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", FEW)
def test_moments_by_enumeration_and_from_single_samples(name, size, replace):
    """Mean 0 and the exact covariance, which is that of the gradients of single samples."""
    loss, problem = FEW[name], PROBLEMS[name]
    law, x = noise.minibatch(loss, size, replace), problem.x0
    u = outcomes(4, size, replace)
    v = law.value(np.repeat(x[:, None], len(u), axis=1), u.T)
    np.testing.assert_allclose(v.mean(axis=1), 0.0, atol=1e-14)
    np.testing.assert_allclose(v @ v.T / len(u), law.covariance(x), atol=1e-13)
    g = np.array([f.gradient(x) for f in problem.alone()[:4]])
    g = g - g.mean(axis=0)
    np.testing.assert_allclose(law.covariance(x), g.T @ g / 4 / size * (1.0 if replace else (4 - size) / 3), atol=1e-13)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("replace", [True, False])
def test_label_noise_of_a_model_by_enumeration(replace, batch):
    """Mean 0 and the exact covariance, with the full gradient and with that of the batch."""
    std, size, x = 0.5, 2, np.linspace(-0.5, 0.8, D)
    law = noise.label_noise(MODEL, std, size=size, replace=replace, batch=batch)
    assert law.draws == (Uniform(2), Sign(2))
    z = np.array([[*u, *s] for u in outcomes(4, size, replace) for s in itertools.product([-1.0, 1.0], repeat=size)])
    v = law.value(np.repeat(x[:, None], len(z), axis=1), z.T)
    np.testing.assert_allclose(v.mean(axis=1), 0.0, atol=1e-14)
    np.testing.assert_allclose(v @ v.T / len(z), law.covariance(x), atol=1e-13)
    slopes = FEATURES[:4] * (1 - np.tanh(x) ** 2)
    own = std**2 / size * slopes.T @ slopes / 4
    np.testing.assert_allclose(law.covariance(x), own + noise.minibatch(MODEL, size, replace).covariance(x) * batch, atol=1e-13)


def test_a_batch_with_label_noise_is_the_batch_gradient_of_perturbed_labels():
    """Also at another sigma, where the full gradient is added."""
    u, s, std = np.array([0.1, 0.9]), np.array([1.0, -1.0]), 0.5
    law, x = noise.label_noise(MODEL, std, size=2, batch=True), np.linspace(-0.5, 0.8, D)
    perturbed = from_function(model=MODEL.model_function, data=(FEATURES[[0, 3]], TARGETS[[0, 3]] + std * s), dim=D)
    for sigma in (1.0, 0.3):
        expected = sigma * perturbed.gradient(x) + (1 - sigma) * MODEL.gradient(x)
        close(NoisyOracle(MODEL, law, sigma)(x, np.array([*u, *s])), expected)


def laws(loss, labels=False):
    """Yield each kind of noise of a loss."""
    yield noise.minibatch(loss, 2)
    yield noise.minibatch(loss, 3, replace=False)
    yield noise.minibatch(loss, 2).as_gaussian()
    if labels:
        yield noise.label_noise(loss, 0.7, size=2)
        yield noise.label_noise(loss, 0.7, "gaussian", size=3, batch=True, replace=False)
        yield noise.label_noise(loss, 0.7, size=2, batch=True).as_gaussian()
        yield noise.label_noise(loss, 0.7, size=2).as_gaussian()


LAWS = [law for loss in FEW.values() for law in laws(loss)] + list(laws(MODEL, labels=True))
IDS = [f"{law.loss.label}-{law.label}" for law in LAWS]


@pytest.mark.sample(1)
@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_the_graph_agrees_with_arrays_and_paths_with_one_path(law):
    """Alone and with SVAG, by each emitter."""
    generator = np.random.default_rng(2)
    x, z = generator.normal(size=(law.dim, 5)), noise.sample_draws(law.draws, generator, 5)
    many = law.value(x, z)
    for j in range(5):
        close(law.value(x[:, j], z[:, j]), many[:, j])
        close(law.covariance(x[:, j]), law.covariance(x)[..., j])
    for one in (law, noise.SVAGNoise(law, 3)):
        z = noise.sample_draws(one.draws, generator, 5)
        for emitter in EMITTERS:
            close(traced(emitter, one.value, x, z, one.parameters), one.value(x, z))


@pytest.mark.parametrize("law", [law for law in LAWS if law.gaussian], ids=lambda law: law.label)
def test_the_gaussian_version_has_the_covariance_exactly(law):
    """It is linear in its normal draws, so unit vectors give its root."""
    x, n = np.linspace(-0.4, 0.5, law.dim), law.n_draws
    root = law.value(np.repeat(x[:, None], n, axis=1), np.eye(n))
    np.testing.assert_allclose(root @ root.T, law.covariance(x), atol=1e-14)


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("law", [law for law in LAWS if not law.gaussian], ids=lambda law: f"{law.loss.label}-{law.label}")
def test_the_oracle_is_its_gradient_plus_its_deviation(law, sigma):
    """Whether the full gradient is omitted or part of one sum over the samples; also with SVAG."""
    generator = np.random.default_rng(10)
    oracle, x = NoisyOracle(law.loss, law, sigma), generator.normal(size=(law.dim, 7))
    for one in (oracle, *(svag(oracle, l) for l in (1, 3))):
        z = noise.sample_draws(one.draws, generator, 7)
        close(one(x, z), law.loss.gradient(x) + one.sigma * one.noise.value(x, z))


@pytest.mark.sample(1)
@pytest.mark.parametrize("size", [1, 3, 32, N])
def test_gathering_and_weighting_give_the_same_noise(size, monkeypatch):
    """Rows of the batch, and weights of all samples: equal to rounding by each emitter; other draws differ."""
    problem, generator = PROBLEMS["two layers"], np.random.default_rng(size)
    x, z = generator.normal(size=(problem.dim, 5)), generator.random((size, 5))
    each = np.array([f.gradient(x) for f in problem.alone()])
    chosen = batch_indices(z, N, True).astype(int)
    plain = np.stack([each[chosen[:, j], :, j].mean(axis=0) - each[..., j].mean(axis=0) for j in range(5)], axis=-1)
    for cost in (0.0, 1e6):  # all batches gather their rows, all weight all samples
        monkeypatch.setattr(samples, "GATHER_COST", cost)
        loss = problem.loss()
        law = noise.minibatch(loss, size)
        assert loss.gathers(size, True, False) == (not cost and size < N)
        close(law.value(x, z), plain)
        for emitter in EMITTERS:
            close(traced(emitter, law.value, x, z), plain)
        assert np.abs(law.value(x, z[:, ::-1]) - plain).max() > 1e-3 * np.abs(plain).max()


def test_no_full_gradient_at_sigma_one_and_one_pass_at_others():
    """The number of matrix products in the graph of the oracle."""
    loss = LOSSES["diagonal network"]
    for sigma, products in ((1.0, 0), (2.0, 2)):
        for oracle in (
            NoisyOracle(loss, noise.minibatch(loss, 1), sigma),
            svag(NoisyOracle(loss, noise.minibatch(loss, 1), sigma), 3),
        ):
            trace = Trace()
            made = oracle(trace.input("x", (loss.dim,)), trace.input("z", (oracle.noise.n_draws,)))
            assert sum(node.op == "contract" for node in order([value(made)])) == products


# ---- paths


def final(loss, size, replace, sigma=1.0, paths=50, seed=0, **more):
    """Return the final points of SGDM with minibatch noise."""
    oracle = NoisyOracle(loss, noise.minibatch(loss, size, replace), sigma)
    dynamics, x0 = st.SGDM(oracle, st.schedules.constant(0.1, 0.5)), np.linspace(-0.6, 0.7, loss.dim)
    return st.simulate(dynamics, x0, 1.0, paths, {"L": loss}, keep_final=True, threads=1, seed=seed, **more).final


@pytest.mark.sample(1)
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("size", [1, 3, 32, N])
@pytest.mark.parametrize("name", PROBLEMS)
def test_backends_and_torchs_autograd_take_the_same_paths(name, size, replace):
    """Ten steps with momentum; the last loss is the same formula in torch, by its autograd; another seed differs."""
    pytest.importorskip("torch", reason="torch is an extra")
    ours, theirs = LOSSES[name], PROBLEMS[name].in_torch()
    reference = final(ours, size, replace, backend="numpy")
    for found in (
        final(ours, size, replace, backend="numba"),
        final(ours, size, replace, backend="torch"),
        final(theirs, size, replace, backend="torch"),
    ):
        np.testing.assert_allclose(found, reference, rtol=1e-12, atol=1e-12)
    if replace or size < N:
        assert np.abs(final(ours, size, replace, backend="numpy", seed=1) - reference).max() > 1e-4


@pytest.mark.sample(1)
@pytest.mark.parametrize("sigma", [1.0, 1.7])
@pytest.mark.parametrize("size", [3, 32])
def test_a_path_agrees_with_a_hand_written_loop(size, sigma):
    """Ten steps of SGD with the same uniforms and the gradients of single samples."""
    from sdetools.simulation.chunks import make_task
    from sdetools.simulation.draws import fill
    from sdetools.simulation.trajectories import stored
    from sdetools.studies.means import make_program

    problem, loss = PROBLEMS["two layers"], LOSSES["two layers"]
    oracle = NoisyOracle(loss, noise.minibatch(loss, size), sigma)
    run = st.simulate(st.SGD(oracle, st.schedules.constant(0.1)), problem.x0, 1.0, 2, {"L": loss}, keep_final=True, seed=9)
    program = make_program((run.dynamics,), problem.x0, 1.0, {"L": loss}, None, (), False, True)[0]
    key = int(make_task(program, 9, 0, 2, 1, stored(program), "numpy").arguments[0][0])
    alone = problem.alone()
    for path in range(2):
        x = problem.x0
        for k in range(10):
            index = (fill(program.noise.sets[0], key, np.array([path]), k)[:, 0] * N).astype(int)
            each = [f.gradient(x) for f in alone]
            full, batch = np.mean(each, axis=0), np.mean([each[i] for i in index], axis=0)
            x = x - 0.1 * (full + sigma * (batch - full))
        np.testing.assert_allclose(run.final[:, path], x, rtol=1e-12, atol=1e-12)


@pytest.mark.sample(1)
@pytest.mark.parametrize("sigma", [0.5, 2.0])
@pytest.mark.parametrize("name", PROBLEMS)
def test_scaled_batches_svag_and_labels_on_all_backends(name, sigma):
    """Paths agree with NumPy's."""
    loss = LOSSES[name]
    cases = [NoisyOracle(loss, noise.minibatch(loss, 3), sigma), svag(NoisyOracle(loss, noise.minibatch(loss, 3)), 3)]
    if name == "two layers":
        cases = [NoisyOracle(MODEL, noise.label_noise(MODEL, 0.3, size=2, batch=b), sigma) for b in (True, False)]
    for oracle in cases:
        moving, x0 = st.SGD(oracle, st.schedules.constant(0.1)), np.linspace(-0.6, 0.7, oracle.dim)
        numpy, *others = (
            st.simulate(moving, x0, 0.5, 20, {"L": oracle.loss}, keep_final=True, threads=1, backend=b).final
            for b in ("numpy", "numba", "torch")
        )
        for found in others:
            np.testing.assert_allclose(found, numpy, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_single_precision_agrees_with_double_to_rounding():
    """Fifty units of 2^-24 for ten steps with numbers of size 1."""
    loss = LOSSES["logistic regression"]
    double, single = (final(loss, 3, True, 2.0, backend="numba", dtype=t) for t in ("float64", "float32"))
    assert 0.0 < np.abs(double - single).max() < 50 * 2.0**-24


def test_the_diagonal_network_has_minibatches():
    """Its paths are those of the same formula written as a function, and it pickles."""
    z, y, _ = st.losses.sparse_teacher(12, 5, 2, seed=1)
    loss = st.losses.diagonal_network(z, y)
    written = from_function(value=lambda x, a, t: (a @ (x[:5] ** 2 - x[5:] ** 2) - t) ** 2 / 2, data=(z, y), dim=10)
    for backend in ("numpy", "numba"):
        np.testing.assert_allclose(
            final(loss, 3, True, backend=backend), final(written, 3, True, backend="numpy"), rtol=1e-12, atol=1e-12
        )
    again = pickle.loads(pickle.dumps(noise.minibatch(loss, 3)))
    u, x = np.random.default_rng(0).random((3, 4)), np.ones((10, 4))
    np.testing.assert_array_equal(again.value(x, u), noise.minibatch(loss, 3).value(x, u))
    models = noise.label_noise(model=loss.models, std=0.5, variables=loss.names)
    close(noise.label_noise(loss, std=0.5).covariance(x[:, 0]), models.covariance(x[:, 0]))


@pytest.mark.parametrize(
    "loss", [LOSSES["logistic regression"], st.losses.logistic(FEATURES, np.sign(TARGETS))], ids=["written", "gallery"]
)
def test_the_limiting_sde_of_minibatches_runs(loss):
    """The SDE has the Gaussian noise with the exact covariance; NumPy and Numba agree."""
    oracle = NoisyOracle(loss, noise.minibatch(loss, 3), 2.0)
    limit = st.EulerMaruyama(st.LimitSDE(oracle, st.schedules.constant(0.1, 0.5)), dt=0.05)
    runs = [
        st.simulate(limit, np.zeros(D), 0.2, 20, {"L": loss}, keep_final=True, threads=1, backend=b).final
        for b in ("numpy", "numba")
    ]
    np.testing.assert_allclose(*runs, rtol=1e-12, atol=1e-12)


# ---- input validation


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.minibatch(from_function(value=lambda x: x[0] ** 2, dim=1), 1), "must have data"),
        (lambda: noise.minibatch(MODEL, 0), "at least 1"),
        (lambda: noise.minibatch(MODEL, 5, replace=False), "at most the number of samples, 4"),
        (lambda: noise.label_noise(LOSSES["two layers"], 0.3), "a loss of squares"),
        (lambda: noise.minibatch(MODEL, 2).value(np.zeros(D), np.zeros(3)), "must have 2 rows"),
        (lambda: NoisyOracle(LOSSES["two layers"], noise.minibatch(FEW["two layers"], 2)), "another loss"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    """The message starts with the argument and gives the rule."""
    with pytest.raises(ValueError, match=r"^`") as error:
        call()
    assert message in str(error.value)


def test_sample_covariance_with_a_control():
    """36 entries within 6 standard errors: a false alarm in 1e7 runs; the factor without replacement fails."""
    loss, paths = LOSSES["two layers"], 40_000
    law, wrong = noise.minibatch(loss, 10), noise.minibatch(loss, 10, replace=False)
    x = PROBLEMS["two layers"].x0
    v = law.value(np.repeat(x[:, None], paths, axis=1), noise.sample_draws(law.draws, np.random.default_rng(3), paths))
    i, j = np.triu_indices(loss.dim)
    products = v[i] * v[j]
    error = products.std(axis=1) / math.sqrt(paths)
    assert np.abs((products.mean(axis=1) - law.covariance(x)[i, j]) / error).max() < 6
    assert np.abs((products.mean(axis=1) - wrong.covariance(x)[i, j]) / error).max() > 6
