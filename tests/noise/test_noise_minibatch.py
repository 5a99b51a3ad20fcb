"""Noise from data: exact covariances by enumeration, sampling of subsets, graphs against NumPy and all backends."""

from __future__ import annotations

import importlib
import itertools
import math
import pickle

import numpy as np
import pytest
from scipy.stats import chi2
from traced import EMITTERS, traced

import sdetools as st
from sdetools import losses, noise
from sdetools.graph.value import Trace, order, value
from sdetools.noise import NoisyOracle, Normal, Sign, Uniform, svag
from sdetools.noise.batch_sampling import batch_indices

minibatches = importlib.import_module("sdetools.noise.minibatch")  # the package exports a function of that name
RNG = np.random.default_rng(5)
FEATURES = RNG.normal(size=(4, 2))
SMALL = {
    "least_squares": losses.least_squares(FEATURES, RNG.normal(size=4), l2=0.3),
    "logistic": losses.logistic(FEATURES, [0, 1, 1, 0], l2=0.3),
}
BIG_FEATURES = RNG.normal(size=(50, 7))
BIG = {
    "least_squares": losses.least_squares(BIG_FEATURES, RNG.normal(size=50), l2=0.1),
    "logistic": losses.logistic(BIG_FEATURES, RNG.integers(0, 2, 50), l2=0.1),
}
X = np.array([0.7, -1.3])


def uniforms_for_every_outcome(n, size, replace):
    """Return one vector of uniforms, at cell centres, for each equally likely outcome of the sample numbers."""
    ends = [n if replace else n - size + b + 1 for b in range(size)]
    return np.array([[(k + 0.5) / m for k, m in zip(ks, ends, strict=True)] for ks in itertools.product(*map(range, ends))])


# -- sampling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(1, 1), (4, 1), (4, 2), (5, 3), (6, 6), (7, 4)])
def test_all_subsets_are_equally_likely_by_floyd(n, size):
    """By enumeration."""
    cells = uniforms_for_every_outcome(n, size, replace=False)
    seen = np.sort(batch_indices(cells.T, n, replace=False).T, axis=1)
    subsets, counts = np.unique(seen, axis=0, return_counts=True)
    assert len(subsets) == math.comb(n, size)
    assert len(set(counts)) == 1
    assert all(len(set(s)) == size for s in subsets.tolist())


def test_all_indices_are_equally_likely_with_replacement():
    """By enumeration."""
    seen = batch_indices(uniforms_for_every_outcome(5, 2, replace=True).T, 5, replace=True)
    assert sorted(map(tuple, seen.T.tolist())) == list(itertools.product(range(5), repeat=2))


@pytest.mark.parametrize("replace", [True, False])
def test_indices_stay_in_range_at_the_ends_of_the_interval(replace):
    """Uniforms next to 0 and 1 give valid sample numbers."""
    for n in (3, 7, 1000):
        ends = np.array([[2.0**-60, 1 - 2.0**-53]] * 3)
        seen = batch_indices(ends, n, replace)
        assert seen.min() >= 0 and seen.max() <= n - 1


def frequencies(n, size, paths, bias=0.0):
    """Count the subsets of a sample of batches; a bias shortens the uniforms."""
    u = np.random.default_rng(17).random((size, paths)) * (1 - bias)
    code = (np.sort(batch_indices(u, n, replace=False), axis=0) * (n ** np.arange(size))[:, None]).sum(axis=0)
    return np.unique(code, return_counts=True)[1]


def test_subsets_by_chi_square_with_a_control():
    """False-alarm rate 1e-6; uniforms that are 2 % too short fail."""
    paths, cells = 200_000, math.comb(7, 3)
    limit = chi2.isf(1e-6, cells - 1)
    fair, biased = (frequencies(7, 3, paths, b) for b in (0.0, 0.02))
    assert len(fair) == cells
    assert ((fair - paths / cells) ** 2).sum() / (paths / cells) < limit
    assert ((biased - paths / cells) ** 2).sum() / (paths / cells) > limit


# -- exact covariances -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("kind", SMALL)
def test_minibatch_moments_by_full_enumeration(kind, size, replace):
    """Mean 0 and the exact covariance, with and without replacement."""
    loss = SMALL[kind]
    law = noise.minibatch(loss, size=size, replace=replace)
    u = uniforms_for_every_outcome(4, size, replace)
    v = law.value(np.repeat(X[:, None], len(u), axis=1), u.T)
    np.testing.assert_allclose(v.mean(axis=1), 0.0, atol=1e-14)
    np.testing.assert_allclose(v @ v.T / len(u), law.covariance(X), atol=1e-14)
    g = loss.sample_gradients(X) - loss.gradient(X)
    finite = 1.0 if replace else (4 - size) / 3
    np.testing.assert_allclose(law.covariance(X), g.T @ g / 4 / size * finite, atol=1e-14)


@pytest.mark.parametrize("kind", SMALL)
def test_a_batch_gradient_is_the_mean_of_its_sample_gradients(kind):
    """At sigma = 1 the oracle is the gradient of the batch."""
    loss = SMALL[kind]
    oracle = NoisyOracle(loss, noise.minibatch(loss, size=3))
    u = np.array([0.1, 0.6, 0.9])
    np.testing.assert_allclose(oracle(X, u), loss.sample_gradients(X)[[0, 2, 3]].mean(axis=0), rtol=1e-13)


def test_one_sample_and_the_whole_data_have_no_noise():
    """One sample, or all of them without replacement."""
    one = losses.least_squares([[2.0]], [1.0])
    for replace in (True, False):
        law = noise.minibatch(one, size=1, replace=replace)
        assert law.covariance(np.array([3.0])) == 0 and law.value(np.array([3.0]), np.array([0.4])) == 0
    whole = noise.minibatch(SMALL["logistic"], size=4, replace=False)
    np.testing.assert_allclose(whole.value(X, np.array([0.3, 0.9, 0.2, 0.7])), 0.0, atol=1e-15)


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("batch", [True, False])
def test_label_noise_moments_by_full_enumeration(batch, replace):
    """Mean 0 and the exact covariance, with the full gradient and with that of the batch."""
    loss, std, size = SMALL["least_squares"], 0.5, 2
    law = noise.label_noise(loss, std=std, size=size, batch=batch, replace=replace)
    assert law.draws == (Uniform(2), Sign(2))
    outcomes = uniforms_for_every_outcome(4, size, replace)
    z = np.array([[*u, *s] for u in outcomes for s in itertools.product([-1.0, 1.0], repeat=size)])
    v = law.value(np.repeat(X[:, None], len(z), axis=1), z.T)
    np.testing.assert_allclose(v.mean(axis=1), 0.0, atol=1e-14)
    np.testing.assert_allclose(v @ v.T / len(z), law.covariance(X), atol=1e-14)
    hessian = loss.hessian(X) - 0.3 * np.eye(2)
    expected = std**2 / size * hessian
    if batch:
        expected = expected + noise.minibatch(loss, size, replace).covariance(X)
    np.testing.assert_allclose(law.covariance(X), expected, atol=1e-14)
    assert law.state_dependent is batch


def test_a_batch_with_label_noise_is_the_batch_gradient_of_perturbed_labels():
    """At sigma = 1 the oracle is the gradient of a loss with perturbed labels."""
    std, u, s = 0.5, np.array([0.1, 0.9]), np.array([1.0, -1.0])
    loss = SMALL["least_squares"]
    oracle = NoisyOracle(loss, noise.label_noise(loss, std=std, size=2, batch=True))
    perturbed = losses.least_squares(FEATURES[[0, 3]], loss.targets[[0, 3]] + std * s, l2=0.3)
    np.testing.assert_allclose(oracle(X, np.array([*u, *s])), perturbed.gradient(X), rtol=1e-13)


def test_label_noise_of_a_loss_and_of_its_models_have_one_covariance():
    """The same linear models as data and as expressions."""
    loss = SMALL["least_squares"]
    models = [f"{a!r}*x0 + {b!r}*x1" for a, b in FEATURES.tolist()]
    of_models = noise.label_noise(model=models, std=0.5, size=3)
    np.testing.assert_allclose(of_models.covariance(X), noise.label_noise(loss, std=0.5, size=3).covariance(X), rtol=1e-14)


def laws(loss):
    """Yield each kind of noise of a loss."""
    yield noise.minibatch(loss, size=5)
    yield noise.minibatch(loss, size=5, replace=False)
    yield noise.minibatch(loss, size=5).as_gaussian()
    yield noise.minibatch(loss, size=5, replace=False).as_gaussian()
    if loss.kind == "least_squares":
        yield noise.label_noise(loss, std=0.7, size=5)
        yield noise.label_noise(loss, std=0.7, size=5, kind="gaussian", replace=False)
        yield noise.label_noise(loss, std=0.7, size=5, batch=True)
        yield noise.label_noise(loss, std=0.7, size=5, batch=True, kind="gaussian", replace=False)
        yield noise.label_noise(loss, std=0.7, size=5, batch=True).as_gaussian()


LAWS = [law for loss in BIG.values() for law in laws(loss)]
IDS = [f"{law.loss.kind}-{law.label}" for law in LAWS]


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("replace", [True, False])
def test_the_gaussian_version_has_the_covariance_of_the_batch_exactly(kind, replace):
    """It is linear in its normal draws, so unit vectors give its root."""
    law = noise.minibatch(SMALL[kind], 2, replace)
    gaussian = law.as_gaussian()
    root = gaussian.value(np.repeat(X[:, None], 4, axis=1), np.eye(4))
    np.testing.assert_allclose(root @ root.T, law.covariance(X), atol=1e-15)
    assert gaussian.gaussian and gaussian.draws == (Normal(4),)


def test_the_gaussian_version_includes_the_label_noise():
    """Its covariance is that of the batch with label noise."""
    law = noise.label_noise(SMALL["least_squares"], std=0.5, size=2, batch=True)
    gaussian = law.as_gaussian()
    root = gaussian.value(np.repeat(X[:, None], 8, axis=1), np.eye(8))
    np.testing.assert_allclose(root @ root.T, law.covariance(X), atol=1e-15)
    plain = noise.label_noise(SMALL["least_squares"], std=0.5, size=2)
    np.testing.assert_allclose(plain.as_gaussian().covariance(X), plain.covariance(X), atol=1e-15)


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_many_paths_agree_with_single_paths(law):
    """Inputs are unchanged, and pickling preserves values."""
    generator = np.random.default_rng(2)
    x, z = generator.normal(size=(7, 3)), noise.sample_draws(law.draws, generator, 3)
    kept = x.copy(), z.copy()
    many, sigma = law.value(x, z), law.covariance(x)
    assert many.shape == (7, 3) and sigma.shape == (7, 7, 3)
    for j in range(3):
        np.testing.assert_allclose(law.value(x[:, j], z[:, j]), many[:, j], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(law.covariance(x[:, j]), sigma[..., j], rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal((x, z[: len(z)])[0], kept[0])
    np.testing.assert_array_equal(z, kept[1])
    again = pickle.loads(pickle.dumps(law))
    assert again.identity == law.identity
    np.testing.assert_array_equal(again.value(x, z), many)


def test_identity_depends_on_the_data_and_the_size():
    """Also on the kind of sampling."""
    loss = SMALL["least_squares"]
    other = losses.least_squares(FEATURES, loss.targets + 1e-9, l2=0.3)
    seen = {noise.minibatch(loss, 2).identity, noise.minibatch(loss, 3).identity, noise.minibatch(loss, 2, False).identity}
    assert len(seen | {noise.minibatch(other, 2).identity}) == 4


def test_sample_covariance_with_a_control():
    """28 entries: |z| < 6 has a false-alarm rate below 28 * 2e-9; the factor without replacement fails."""
    loss, paths = BIG["logistic"], 40_000
    law, wrong = noise.minibatch(loss, 10), noise.minibatch(loss, 10, replace=False)
    x = np.linspace(-1, 1, 7)
    v = law.value(np.repeat(x[:, None], paths, axis=1), noise.sample_draws(law.draws, np.random.default_rng(3), paths))
    i, j = np.triu_indices(7)
    products = v[i] * v[j]
    error = products.std(axis=1) / math.sqrt(paths)
    assert np.abs(v.mean(axis=1) / (v.std(axis=1) / math.sqrt(paths))).max() < 6
    assert np.abs((products.mean(axis=1) - law.covariance(x)[i, j]) / error).max() < 6
    assert np.abs((products.mean(axis=1) - wrong.covariance(x)[i, j]) / error).max() > 6


# -- graphs ---------------------------------------------------------------------------------------------------------------


def close(a, b):
    """Compare arrays relative to the largest entry."""
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max())


def assert_graph_agrees(law, x, paths):
    """Assert that the graph of a noise gives the values of its NumPy code, by each emitter."""
    z = noise.sample_draws(law.draws, np.random.default_rng(9), paths)
    for emitter in EMITTERS:
        close(traced(emitter, law.value, x, z, law.parameters), law.value(x, z))


@pytest.mark.sample(1)
@pytest.mark.parametrize("paths", [1, 33])
@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_the_graph_agrees_with_numpy(law, paths):
    """Each kind of noise, alone and with SVAG, for one path and for many."""
    x = 3 * np.random.default_rng(8).normal(size=(7, paths))
    assert_graph_agrees(law, x, paths)
    assert_graph_agrees(noise.SVAGNoise(law, 3), x, paths)


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("law", [law for law in LAWS if isinstance(law, noise.Minibatch)], ids=lambda law: law.label)
def test_the_oracle_is_its_gradient_plus_its_deviation(law, sigma):
    """Whether or not the full gradient is computed; also with SVAG."""
    generator = np.random.default_rng(10)
    oracle = NoisyOracle(law.loss, law, sigma)
    x = 3 * generator.normal(size=(7, 33))
    for one in (oracle, *(svag(oracle, l) for l in (1, 3, 7))):
        z = noise.sample_draws(one.draws, generator, 33)
        close(one(x, z), law.loss.gradient(x) + one.sigma * one.noise.value(x, z))


@pytest.mark.parametrize("l", [0, 1, 2, 3, 5, 17, 1000])
def test_no_full_gradient_at_sigma_one(l):
    """NaNs in samples outside the batch do not matter, and the graph has no product with all data."""
    loss = pickle.loads(pickle.dumps(BIG["least_squares"]))
    oracle = NoisyOracle(loss, noise.minibatch(loss, size=2), 1.0)
    oracle = svag(oracle, l) if l else oracle
    u, x = np.full((oracle.noise.n_draws, 4), 0.25), np.ones((7, 4))
    expected = np.repeat(loss.sample_gradients(np.ones(7))[12][:, None], 4, axis=1)
    loss.features[np.arange(50) != 12] = np.nan
    close(oracle(x, u), expected)
    assert not np.any(np.isfinite(oracle(x, u, sigma=1.01 * oracle.sigma)))
    for sigma, whole in ((oracle.sigma, False), (1.01 * oracle.sigma, True)):
        trace = Trace()
        made = oracle.with_sigma(sigma)(trace.input("x", (7,)), trace.input("z", (len(u),)))
        assert whole == any(node.op == "contract" for node in order([value(made)]))


@pytest.mark.parametrize("size", [3, 40])
@pytest.mark.parametrize("emitter", EMITTERS)
def test_nans_stay_in_their_lane(emitter, size):
    """A NaN in one lane leaves the other lanes finite."""
    law = noise.minibatch(BIG["logistic"], size=size)
    x = np.ones((7, 5))
    x[2, 3] = np.nan
    out = traced(emitter, law.value, x, np.full((size, 5), 0.4))
    assert np.isnan(out[:, 3]).all() and np.isfinite(out[:, [0, 1, 2, 4]]).all()


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", BIG)
@pytest.mark.parametrize("size", [1, 2, 50 // 11 - 1, 50 // 11 + 1, 50, 150])
def test_gathering_and_counting_give_the_same_noise(kind, size, monkeypatch):
    """Rows of samples, and products with all data: equal to rounding by each emitter; other draws differ."""
    law, generator = noise.minibatch(BIG[kind], size), np.random.default_rng(size)
    x, z = generator.normal(size=(7, 9)), noise.sample_draws(law.draws, generator, 9)
    each = law.loss.slope(law.loss.features @ x)[:, None] * law.loss.features[..., None]
    chosen = batch_indices(z, 50, True).astype(int)
    plain = np.stack([each[chosen[:, j], :, j].mean(axis=0) - each[..., j].mean(axis=0) for j in range(9)], axis=-1)
    for cost in (-(10**6), 10**6):  # all batches gather their rows, all count their samples
        monkeypatch.setattr(minibatches, "GATHER_COST", cost)
        assert law.gathers == (cost < 0)
        close(law.value(x, z), plain)
        for emitter in EMITTERS:
            close(traced(emitter, law.value, x, z), plain)
        assert np.abs(law.value(x, z[:, ::-1]) - plain).max() > 1e-3 * np.abs(plain).max()


@pytest.mark.parametrize("kind", BIG)
def test_small_batches_use_a_gather_and_large_ones_counts(kind):
    """The cheaper form is chosen by the size."""
    found = [noise.minibatch(BIG[kind], size).gathers for size in (1, 2, 50, 150)]
    assert found == [True, True, False, False]


@pytest.mark.sample(6)
@pytest.mark.parametrize("structure", ["identity", "diagonal", "dense", "wide"])
@pytest.mark.parametrize(
    "family",
    [
        noise.gaussian,
        noise.rademacher,
        noise.uniform,
        noise.three_point,
        noise.centred_exponential,
        noise.two_point,
        noise.student_t,
    ],
)
def test_constant_roots_of_many_coordinates_are_traced(family, structure):
    """Each law with each structure of the root in 20 coordinates."""
    generator = np.random.default_rng(4)
    root = {"identity": 1.0, "diagonal": generator.normal(size=20), "dense": generator.normal(size=(20, 20))}
    law = family(dim=20, root=root.get(structure, generator.normal(size=(20, 25))))
    assert_graph_agrees(law, np.zeros((20, 9)), 9)
    assert_graph_agrees(noise.SVAGNoise(law, 3), np.zeros((20, 9)), 9)


WIDE = RNG.normal(size=(20, 20))
RUNS = {
    "logistic, Gaussian of a batch": (BIG["logistic"], noise.minibatch(BIG["logistic"], 5).as_gaussian()),
    "least squares, Gaussian of a batch and its labels": (
        BIG["least_squares"],
        noise.label_noise(BIG["least_squares"], std=0.7, size=5, batch=True).as_gaussian(),
    ),
    "large quadratic, dense root": (
        losses.quadratic(WIDE @ WIDE.T / 20, center=np.arange(20.0) / 20),
        noise.student_t(20, root=WIDE),
    ),
    "logistic, labels of a law": (BIG["logistic"], noise.three_point(7, root=np.linspace(0.5, 1.5, 7))),
    "least squares, batches": (BIG["least_squares"], noise.minibatch(BIG["least_squares"], 2, replace=False)),
    "logistic, counted batches": (BIG["logistic"], noise.minibatch(BIG["logistic"], 30)),
    "least squares, counted batches and labels": (
        BIG["least_squares"],
        noise.label_noise(BIG["least_squares"], 0.7, size=55, batch=True),
    ),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("paths", [1, 300])
@pytest.mark.parametrize("name", RUNS)
def test_backends_take_the_same_paths(name, paths):
    """SGD and SVAG, path by path against NumPy; another sigma differs."""
    loss, law = RUNS[name]
    oracle, x0 = NoisyOracle(loss, law, sigma=0.8), np.linspace(-1, 1, loss.dim)

    def final(oracle, backend):
        moving = st.SGD(oracle, st.schedules.constant(0.1))
        return st.simulate(moving, x0, 0.5, paths, {"L": loss}, keep_final=True, threads=1, backend=backend).final

    for one in (oracle, svag(oracle, 3)):
        reference = final(one, "numpy")
        for backend in ("numba", "torch"):
            np.testing.assert_allclose(final(one, backend), reference, rtol=1e-10, atol=1e-11)
    assert np.abs(final(oracle.with_sigma(0.81), "numba") - final(oracle, "numpy")).max() > 1e-6


# -- input validation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.minibatch(losses.from_expression("x**2"), size=1), "must have data"),
        (lambda: noise.minibatch(None, size=1), "must have data"),
        (lambda: noise.minibatch(SMALL["logistic"], size=0), "at least 1"),
        (lambda: noise.minibatch(SMALL["logistic"], size=1.5), "whole number"),
        (lambda: noise.minibatch(SMALL["logistic"], size=5, replace=False), "at most the number of samples, 4"),
        (lambda: noise.minibatch(SMALL["logistic"], size=2, replace="no"), "True or False"),
        (lambda: noise.label_noise(SMALL["logistic"], std=1.0), "least-squares"),
        (lambda: noise.label_noise(SMALL["least_squares"], std=math.nan), "0 or above"),
        (lambda: noise.label_noise(SMALL["least_squares"], model="x"), "both"),
        (lambda: noise.minibatch(SMALL["logistic"], size=2).value(X, np.zeros(3)), "must have 2 rows"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    """The message starts with the argument and gives the rule."""
    with pytest.raises(ValueError, match=r"^`") as error:
        call()
    assert message in str(error.value)


@pytest.mark.parametrize("options", [{"batch": True}, {"replace": False}])
def test_expressions_have_no_batches(options):
    """Options of sampling are refused where nothing is sampled, for a model in text and for a loss of formulas."""
    for given in ({"model": "x*y", "variables": "x y"}, {"loss": st.losses.uv_model(1)}):
        with pytest.raises(ValueError, match="`batch` and `replace` must keep their defaults for expressions"):
            st.noise.label_noise(**given, **options)
        st.noise.label_noise(**given)
