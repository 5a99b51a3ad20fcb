"""The formulas of the noises against the reference implementations of this file: exact, so there is no false-alarm rate.

The noises are traced, and their graphs run by each emitter.
There are more samples than coordinates, weights differ, and no number is 0 or 1 by accident.
"""

import math

import numpy as np
import pytest
from traced import EMITTERS, traced

import sdetools as st
from sdetools.noise.base import batch_factor, check_draws
from sdetools.noise.oracle import SVAGNoise
from sdetools.noise.roots import make_root

RNG = np.random.default_rng(12)
N, DIM, LANES, L2, STD = 7, 5, 3, 0.3, 0.45
FEATURES, LABELS, CLASSES = RNG.normal(size=(N, DIM)), RNG.normal(size=N), np.array([0, 1, 1, 0, 1, 0, 0])
LOSSES = {"squares": st.losses.least_squares(FEATURES, LABELS, l2=L2), "logistic": st.losses.logistic(FEATURES, CLASSES, l2=L2)}
X = 2 * RNG.normal(size=(DIM, LANES))
WEIGHTS = (0.7, -1.3)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def slope(kind, i, x):
    """Return the gradient of sample i without the ridge, divided by its features."""
    if kind == "squares":
        return FEATURES[i] @ x - LABELS[i]
    y = 2.0 * CLASSES[i] - 1
    return -y / (1 + math.exp(y * (FEATURES[i] @ x)))


def full_gradient(kind, x):
    """Return the full gradient with the ridge."""
    return sum(slope(kind, i, x) * FEATURES[i] for i in range(N)) / N + L2 * x


def chosen(u, replace):
    """Return the samples of a batch: floor(u n), or Floyd's algorithm; a uniform that was rounded up to 1 takes the last one."""
    if replace:
        return [min(math.floor(v * N), N - 1) for v in u]
    out = []
    for b, v in enumerate(u):
        last = N - len(u) + b
        t = min(math.floor(v * (last + 1)), last)
        out.append(last if t in out else t)
    return out


def batch(kind, x, z, size, replace, std, data):
    """Return the gradient of a batch with perturbed labels, or the label noise alone."""
    rows = chosen(z[:size], replace)
    out = np.zeros(DIM)
    for b, i in enumerate(rows):
        own = slope(kind, i, x) if data else 0.0
        out = out + (own - (std * z[size + b] if std else 0.0)) * FEATURES[i] / size
    return out + (L2 * x if data else 0.0)


def copies(law):
    """Return a sum of two copies of a noise, with `WEIGHTS`."""
    made = SVAGNoise(law, 1)
    made.weights = WEIGHTS
    made.parameters = np.array([*WEIGHTS, *law.parameters])
    return made


def combined_of(law, emitter, x, z):
    """Return the sum of copies, from its graph."""
    made = copies(law)
    return traced(emitter, lambda x, z: made.value(x, z), x, z)


def gradient_of(law, emitter, sigma, x, z):
    """Return the full gradient plus sigma times the sum of copies, from its graph."""
    oracle = st.NoisyOracle(law.loss, copies(law), abs(sigma))
    return traced(emitter, lambda x, z: oracle(x, z, sigma=sigma), x, z)


SAMPLED = [
    (kind, size, replace, labels)
    for kind in LOSSES
    for size, replace in ((3, True), (4, False))
    for labels in (("none", "batch", "only") if kind == "squares" else ("none",))
]


def law_of(kind, size, replace, labels):
    """Return minibatch noise or label noise of one kind."""
    if labels == "none":
        return st.noise.minibatch(LOSSES[kind], size, replace)
    return st.noise.label_noise(LOSSES[kind], STD, "gaussian", size, batch=labels == "batch", replace=replace)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("kind", "size", "replace", "labels"), SAMPLED)
def test_noise_from_data_agrees_with_its_samples(kind, size, replace, labels):
    """Values, sums of copies, and gradients at other sigma; batches of 3 use a gather or counts, of 4 counted."""
    law, std, data = law_of(kind, size, replace, labels), 0.0 if labels == "none" else STD, labels != "only"
    generator = np.random.default_rng(3)
    z = st.noise.sample_draws(law.draws * len(WEIGHTS), generator, LANES)
    z[:size, 0] = 0.999  # equal uniforms: Floyd's algorithm takes the last sample
    z[:size, 2] = 1.0
    own = len(z) // len(WEIGHTS)
    parts = [z[c * own : (c + 1) * own] for c in range(len(WEIGHTS))]
    v = np.array([[batch(kind, X[:, j], part[:, j], size, replace, std, data) - (full_gradient(kind, X[:, j]) if data else 0.0) for j in range(LANES)] for part in parts])  # fmt: skip
    found = law.value(X, parts[0])
    np.testing.assert_allclose(found, v[0].T, **CLOSE)
    np.testing.assert_allclose(law.value(X[:, 1], parts[0][:, 1]), v[0][1], **CLOSE)
    combined = sum(w * one for w, one in zip(WEIGHTS, v, strict=True)).T
    full = np.array([full_gradient(kind, x) for x in X.T]).T
    for emitter in EMITTERS:
        np.testing.assert_allclose(combined_of(law, emitter, X, z), combined, **CLOSE)
        for sigma in (0.8, 1 / sum(WEIGHTS)):  # at the second one the factor of the full gradient is 0
            np.testing.assert_allclose(gradient_of(law, emitter, sigma, X, z), full + sigma * combined, **CLOSE)
    if std:
        p = np.array([0.2])
        other = batch(kind, X[:, 0], parts[0][:, 0], size, replace, 0.2, data) - (full_gradient(kind, X[:, 0]) if data else 0.0)
        np.testing.assert_allclose(law.value(X, parts[0], p)[:, 0], other, **CLOSE)


def plain_covariance(kind, x, size, replace, std, data):
    """Return the covariance of a batch with label noise from the sample gradients."""
    g = [slope(kind, i, x) * FEATURES[i] for i in range(N)]
    mean = sum(g) / N
    spread = sum(np.outer(one - mean, one - mean) for one in g) / N / size * (1.0 if replace else (N - size) / (N - 1))
    return (spread if data else 0.0) + std**2 / size * sum(np.outer(a, a) for a in FEATURES) / N


@pytest.mark.sample(3)
@pytest.mark.parametrize(("kind", "size", "replace", "labels"), SAMPLED)
def test_covariances_of_noise_from_data_and_of_its_gaussian_version(kind, size, replace, labels):
    """The Gaussian version is linear in its draws, so unit vectors give a root of the covariance."""
    law, std, data = law_of(kind, size, replace, labels), 0.0 if labels == "none" else STD, labels != "only"
    expected = np.stack([plain_covariance(kind, x, size, replace, std, data) for x in X.T], axis=-1)
    np.testing.assert_allclose(law.covariance(X), expected, **CLOSE)
    np.testing.assert_allclose(law.covariance(X[:, 2]), expected[..., 2], **CLOSE)
    if std:
        other = np.stack([plain_covariance(kind, x, size, replace, 0.2, data) for x in X.T], axis=-1)
        np.testing.assert_allclose(law.covariance(X, np.array([0.2])), other, **CLOSE)
        for emitter in EMITTERS:
            np.testing.assert_allclose(traced(emitter, law.covariance, X, np.array([0.2])), other, **CLOSE)
    gaussian = law.as_gaussian()
    assert gaussian.gaussian and gaussian.as_gaussian() is gaussian
    unit = np.eye(gaussian.n_draws)
    for j in range(LANES):
        root = gaussian.value(np.repeat(X[:, j : j + 1], len(unit), axis=1), unit)
        np.testing.assert_allclose(root @ root.T, expected[..., j], **CLOSE)
    np.testing.assert_allclose(gaussian.covariance(X), expected, **CLOSE)
    roots = [gaussian.value(np.repeat(X[:, j : j + 1], len(unit), axis=1), unit) for j in range(LANES)]
    z = np.random.default_rng(4).normal(size=(2 * gaussian.n_draws, LANES))
    first, second = (np.stack([roots[j] @ part[:, j] for j in range(LANES)], axis=1) for part in np.split(z, 2))
    twice, p = st.noise.SVAGNoise(gaussian, 3), gaussian.parameters
    low, high = (1 - math.sqrt(5)) / math.sqrt(12), (1 + math.sqrt(5)) / math.sqrt(12)
    for emitter in EMITTERS:  # its graph, alone and with two copies, for one path and for many
        np.testing.assert_allclose(traced(emitter, gaussian.value, X, z[: len(z) // 2], p), first, **CLOSE)
        np.testing.assert_allclose(traced(emitter, gaussian.value, X[:, 1:2], z[: len(z) // 2, 1:2], p), first[:, 1:2], **CLOSE)
        np.testing.assert_allclose(traced(emitter, twice.value, X, z, twice.parameters), low * first + high * second, **CLOSE)
    if data:  # and the covariance itself
        for emitter in EMITTERS:
            np.testing.assert_allclose(traced(emitter, gaussian.covariance, X), expected, **CLOSE)


def test_the_factor_of_a_batch():
    """1/size with replacement, (n - size)/((n - 1) size) without, and 0 for one sample."""
    assert batch_factor(7, 3, True) == 1 / 3 and math.isclose(batch_factor(7, 3, False), 4 / 18, rel_tol=1e-15)
    assert batch_factor(1, 1, False) == 0.0


def test_label_noise_of_models_is_a_root_of_gradients():
    """V = -(std / sqrt(n size)) sum_i s_i grad f_i for n models."""
    models = ["a*x**2*y", "sin(x) - y", "x + b*y**3"]
    law = st.noise.label_noise(model=models, std=STD, size=2, variables="x y", parameters={"a": 0.4, "b": -0.7})
    x, y = 0.6, -0.8
    gradients = np.array([[0.8 * x * y, 0.4 * x * x], [math.cos(x), -1.0], [1.0, -2.1 * y * y]]).T
    root = -STD / math.sqrt(6) * gradients
    s = np.array([1.0, -1.0, 1.0])
    np.testing.assert_allclose(law.value(np.array([x, y]), s), root @ s, rtol=1e-14)
    np.testing.assert_allclose(law.covariance(np.array([x, y])), root @ root.T, rtol=1e-14)
    at = np.array([[x, 0.1], [y, 0.9]])
    np.testing.assert_allclose(law.covariance(at)[..., 0], root @ root.T, rtol=1e-14)


@pytest.mark.parametrize("with_labels", [False, True])
def test_gaussian_batches_of_a_torch_model_agree_with_the_linear_one(with_labels):
    """A linear model in torch, path by path on the same draws, with label noise and without."""
    torch = pytest.importorskip("torch")
    a, b = RNG.normal(size=(6, 2)), RNG.normal(size=6)
    linear = st.losses.least_squares(a, b)
    model = st.losses.from_torch_model(lambda x, row: row @ x, torch.tensor(a), torch.tensor(b), dim=2)
    ours, theirs = (
        (st.noise.label_noise(loss, 0.7, size=3, batch=True) if with_labels else st.noise.minibatch(loss, 3)).as_gaussian()
        for loss in (linear, model)
    )
    assert ours.n_draws == theirs.n_draws
    x, z = RNG.normal(size=(2, 4)), RNG.normal(size=(ours.n_draws, 4))
    np.testing.assert_allclose(theirs.value(x, z), ours.value(x, z), rtol=1e-12)


# --- laws ---

MAKERS = {
    "gaussian": (st.noise.gaussian, {}, lambda z: z[0]),
    "rademacher": (st.noise.rademacher, {}, lambda z: z[0]),
    "uniform": (st.noise.uniform, {}, lambda z: 2 * 3**0.5 * (z[0] - 0.5)),
    "three-point": (st.noise.three_point, {}, lambda z: 3**0.5 * (float(z[0] >= 5 / 6) - float(z[0] < 1 / 6))),
    "exponential": (st.noise.centred_exponential, {}, lambda z: -math.log(z[0]) - 1),
    "two-point": (st.noise.two_point, {"probability": 0.3}, lambda z: (0.7 / 0.3) ** 0.5 if z[0] < 0.3 else -((0.3 / 0.7) ** 0.5)),
    "student": (st.noise.student_t, {"degrees": 5.5}, lambda z: math.sqrt(3.5 * (z[0] ** (-2 / 5.5) - 1)) * math.cos(2 * math.pi * z[1])),
}  # fmt: skip
THIRDS = {"exponential": 2.0, "two-point": 0.4 / 0.21**0.5}
WIDE = RNG.normal(size=(20, 4))
CONSTANT = {"identity": None, "diagonal": RNG.normal(size=20), "dense": WIDE}


@pytest.mark.sample(5)
@pytest.mark.parametrize("structure", CONSTANT)
@pytest.mark.parametrize("name", MAKERS)
def test_a_law_is_its_formula_of_the_draws(name, structure):
    """V = R u, with u_k from the draws k, rank + k, ...: values, covariances, and graphs of one copy and of two."""
    make, options, entry = MAKERS[name]
    law = make(dim=20, root=CONSTANT[structure], **options)
    R = {"identity": np.eye(20), "diagonal": np.diag(CONSTANT["diagonal"]), "dense": WIDE}[structure]
    rank, both = R.shape[1], name == "student"
    z = st.noise.sample_draws(law.draws * 3, np.random.default_rng(6), LANES)
    z[:4, 0] = (0.1660, 0.1673, 0.832, 0.834) if name == "three-point" else z[:4, 0]
    z[:2, 0] = (0.2999, 0.3001) if name == "two-point" else z[:2, 0]
    own, x = rank * (2 if both else 1), np.zeros((20, LANES))
    assert law.n_draws == own

    def v(part):
        u = [[entry([part[k, j], part[rank + k, j]] if both else [part[k, j]]) for j in range(LANES)] for k in range(rank)]
        return R @ np.array(u)

    parts = np.split(z, 3)
    np.testing.assert_allclose(law.value(x, parts[0]), v(parts[0]), **CLOSE)
    np.testing.assert_allclose(law.value(x[:, 1], parts[0][:, 1]), v(parts[0])[:, 1], **CLOSE)
    np.testing.assert_allclose(law.covariance(x), np.repeat((R @ R.T)[..., None], LANES, axis=-1), **CLOSE)
    np.testing.assert_allclose(law.covariance(x, law.parameters), np.repeat((R @ R.T)[..., None], LANES, axis=-1), **CLOSE)
    twice = st.noise.SVAGNoise(law, 3)
    low, high = (1 - math.sqrt(5)) / math.sqrt(12), (1 + math.sqrt(5)) / math.sqrt(12)
    both_copies = low * v(parts[0]) + high * v(parts[1])
    for emitter in EMITTERS:
        np.testing.assert_allclose(
            traced(emitter, law.value, x[:, :1], parts[0][:, :1], law.parameters), v(parts[0])[:, :1], **CLOSE
        )
        np.testing.assert_allclose(traced(emitter, twice.value, x, z[: 2 * own], twice.parameters), both_copies, **CLOSE)
    if name in THIRDS:
        assert math.isclose(law.skewness, THIRDS[name], rel_tol=1e-14)
    if name in ("gaussian", "rademacher", "uniform", "three-point", "student"):
        assert law.skewness == 0.0
    again = law.as_gaussian()
    np.testing.assert_allclose(again.value(x, z[:rank]), R @ z[:rank], **CLOSE)


def test_skewness_of_students_law_exists_above_three_degrees():
    """It is 0 above and NaN up to 3 degrees of freedom."""
    assert math.isnan(st.noise.student_t(1, degrees=3.0).skewness) and st.noise.student_t(1, degrees=3.05).skewness == 0.0


# --- roots ---


def test_roots_agree_in_all_input_forms():
    """Products and covariances of a root of expressions and of a function are those of the matrix."""
    points = np.array([[0.4, -1.2], [0.9, 0.3]])
    u = np.array([[0.7, -0.2], [1.3, 0.5], [-0.4, 0.8]])
    rows = [["a*x + 1", "0", "y"], ["x*y", "b", "1.02"]]
    a, b = 0.6, -1.4

    def plain(x, y):
        return np.array([[a * x + 1, 0, y], [x * y, b, 1.02]])

    def function(x):
        return [[a * x[0] + 1, 0.0, x[1]], [x[0] * x[1], b, 1.02]]

    by_text = make_root(root=rows, variables="x y", parameters={"a": a, "b": b})
    assert by_text.rank == 3 and not by_text.constant
    for root in (by_text, make_root(2, root=function)):
        p = root.parameters
        for j in range(2):
            R = plain(*points[:, j])
            np.testing.assert_allclose(np.array(root.times(u, points, p))[:, j], R @ u[:, j], rtol=1e-14)
            np.testing.assert_allclose(root.covariance(points, p)[..., j], R @ R.T, rtol=1e-14)
            np.testing.assert_allclose(root.covariance(points[:, j], p), R @ R.T, rtol=1e-14)
    other = make_root(root=rows, variables="x y", parameters={"a": 2 * a, "b": b}).parameters
    assert not np.allclose(np.array(by_text.times(u, points, other)), np.array(by_text.times(u, points, by_text.parameters)))


@pytest.mark.parametrize(
    ("given", "R"), [(1.7, np.diag([1.7, 1.7])), ([0.5, -2.0], np.diag([0.5, -2.0])), ([[0.3, 1.1, -0.2], [0.8, 0.4, 2.0]],) * 2]
)
def test_constant_roots(given, R):
    """With numbers, and with symbols term by term."""
    root = make_root(2, root=given)
    R = np.array(R)
    np.testing.assert_array_equal(root.matrix(), R)
    u = np.random.default_rng(7).normal(size=(R.shape[1], 2))
    x = np.zeros((2, 2))
    np.testing.assert_allclose(root.times(u, x, root.parameters), R @ u, rtol=1e-14)
    traced = root.times(list(u.astype(object)), x, root.parameters.astype(object))
    np.testing.assert_allclose(np.array(traced, dtype=float), R @ u, rtol=1e-14)
    np.testing.assert_allclose(np.array(root.entries(x, root.parameters), dtype=float), R, rtol=0)
    np.testing.assert_allclose(root.covariance(x, root.parameters)[..., 1], R @ R.T, rtol=1e-14)


def test_the_root_of_a_covariance_is_symmetric():
    """A matrix, a number and a diagonal."""
    S = np.array([[2.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 0.7]])
    R = make_root(3, covariance=S).matrix()
    np.testing.assert_allclose(R @ R, S, rtol=1e-13)
    np.testing.assert_allclose(R, R.T, rtol=1e-13)
    np.testing.assert_allclose(make_root(2, covariance=1.69).matrix(), np.diag([1.3, 1.3]), rtol=1e-15)
    np.testing.assert_allclose(make_root(covariance=[1.69, 0.25]).matrix(), np.diag([1.3, 0.5]), rtol=1e-15)


# --- oracles ---


def test_an_oracle_reads_its_parameters_by_position():
    """[sigma, loss, noise]: other numbers make another oracle."""
    loss = st.losses.from_expression("c*x**2/2 + d*y**4/4 + x*y", variables="x y", parameters={"c": 1.3, "d": 0.7})
    law = st.noise.uniform(root=[["a + x", "0.2"], ["0.5", "b*y"]], variables="x y", parameters={"a": 0.9, "b": 1.6})
    oracle = st.NoisyOracle(loss, law, sigma=1.7)
    np.testing.assert_allclose(oracle.parameters, [1.7, *loss.parameters, *law.parameters])
    x, z = np.array([0.6, -0.4]), np.array([0.2, 0.9])
    values = dict(zip(loss.parameter_names, loss.parameters)), dict(zip("ab", law.parameters))

    def plain(sigma, c, d, a, b):
        u = math.sqrt(12) * (z - 0.5)
        g = np.array([c * x[0] + x[1], d * x[1] ** 3 + x[0]])
        return g + sigma * np.array([[a + x[0], 0.2], [0.5, b * x[1]]]) @ u

    assert values == ({"c": 1.3, "d": 0.7}, {"a": 0.9, "b": 1.6})
    np.testing.assert_allclose(oracle(x, z), plain(1.7, 1.3, 0.7, 0.9, 1.6), rtol=1e-12)
    np.testing.assert_allclose(oracle(x, z, sigma=0.3), plain(0.3, 1.3, 0.7, 0.9, 1.6), rtol=1e-12)
    p = np.array([2.2, 0.8, 0.1, -0.5, 3.0])
    np.testing.assert_allclose(oracle(x, z, p), plain(*p), rtol=1e-12)
    np.testing.assert_allclose(oracle(x, z, p, 0.3), plain(0.3, *p[1:]), rtol=1e-12)
    R = np.array([[1.5, 0.2], [0.5, -0.64]])
    np.testing.assert_allclose(oracle.covariance(x), 1.7**2 * R @ R.T, rtol=1e-12)
    np.testing.assert_allclose(oracle.with_sigma(0.4).covariance(x), 0.16 * R @ R.T, rtol=1e-12)


@pytest.mark.parametrize("l", [1, 3, 8])
def test_svag_uses_its_weights_everywhere(l):
    """In values, with parameters, in graphs and in gradients, and for SVAG of SVAG."""
    law, sigma = st.noise.minibatch(LOSSES["squares"], 2), 1.4
    base = st.NoisyOracle(LOSSES["squares"], law, sigma)
    made = st.svag(base, l)
    low, high = (1 - math.sqrt(2 * l - 1)) / 2, (1 + math.sqrt(2 * l - 1)) / 2
    z = np.random.default_rng(8).random((4, LANES))
    expected = low * base(X, z[:2]) + high * base(X, z[2:])
    np.testing.assert_allclose(made(X, z), expected, **CLOSE)
    np.testing.assert_allclose(made(X, z, made.parameters), expected, **CLOSE)
    for emitter in EMITTERS:
        np.testing.assert_allclose(traced(emitter, made, X, z, made.parameters), expected, **CLOSE)
    deviation = (low * law.value(X, z[:2]) + high * law.value(X, z[2:])) / math.sqrt(l)
    np.testing.assert_allclose(made.noise.value(X, z), deviation, **CLOSE)
    for emitter in EMITTERS:
        np.testing.assert_allclose(traced(emitter, made.noise.value, X, z, made.noise.parameters), deviation, **CLOSE)
    np.testing.assert_allclose(made.covariance(X), l * base.covariance(X), rtol=1e-13)
    np.testing.assert_allclose(made.noise.covariance(X, made.noise.parameters), law.covariance(X), rtol=1e-13)
    twice = st.svag(made, 2)
    both = np.random.default_rng(9).random((8, LANES))
    root = math.sqrt(3)
    np.testing.assert_allclose(twice(X, both), (1 - root) / 2 * made(X, both[:4]) + (1 + root) / 2 * made(X, both[4:]), **CLOSE)


# --- noise of torch losses ---


@pytest.mark.parametrize("labels", ["none", "batch", "only"])
@pytest.mark.parametrize(("size", "replace"), [(3, True), (4, False)])
def test_noise_of_a_torch_loss_agrees_with_its_samples(size, replace, labels):
    """A nonlinear model with gradients by hand: values, copies, gradients, covariances, Gaussian versions."""
    torch = pytest.importorskip("torch")
    loss = st.losses.from_torch_model(
        lambda x, a: torch.sin(x[0] * a[0]) + x[1] ** 2 * a[1], torch.as_tensor(FEATURES[:, :2]), torch.as_tensor(LABELS), dim=2
    )
    std, data = 0.0 if labels == "none" else STD, labels != "only"
    law = st.noise.minibatch(loss, size, replace) if not std else st.noise.label_noise(loss, STD, "gaussian", size, batch=data, replace=replace)  # fmt: skip
    points = X[:2] / 2

    def inner(i, x):
        a, b = FEATURES[i, :2]
        return np.array([a * math.cos(x[0] * a), 2 * x[1] * b]), math.sin(x[0] * a) + x[1] ** 2 * b - LABELS[i]

    def each(i, x):
        slope, r = inner(i, x)
        return r * slope

    def full(x):
        return sum(each(i, x) for i in range(N)) / N

    def v(x, z):
        out = np.zeros(2)
        for b, i in enumerate(chosen(z[:size], replace)):
            out = out + ((each(i, x) if data else 0.0) - (std * z[size + b] * inner(i, x)[0] if std else 0.0)) / size
        return out - (full(x) if data else 0.0)

    z = st.noise.sample_draws(law.draws * 2, np.random.default_rng(5), LANES)
    z[:size, 0], z[:size, 2] = 0.999, 1.0
    parts = np.split(z, 2)
    expected = [np.array([v(points[:, j], part[:, j]) for j in range(LANES)]).T for part in parts]
    np.testing.assert_allclose(law.value(points, parts[0]), expected[0], **CLOSE)
    np.testing.assert_allclose(law.value(points[:, 1], parts[0]), np.array([v(points[:, 1], w) for w in parts[0].T]).T, **CLOSE)
    combined = sum(w * one for w, one in zip(WEIGHTS, expected))
    np.testing.assert_allclose(copies(law).value(points, z), combined, **CLOSE)
    slopes = np.array([full(x) for x in points.T]).T
    for sigma in (0.8, 1 / sum(WEIGHTS)):
        found = st.NoisyOracle(loss, copies(law), abs(sigma))(points, z, sigma=sigma)
        np.testing.assert_allclose(found, slopes + sigma * combined, **CLOSE)
    np.testing.assert_allclose(traced("torch", law.raw, points, parts[0]), expected[0] + (slopes if data else 0.0), **CLOSE)
    gaussian = law.as_gaussian()
    unit = np.eye(gaussian.n_draws)
    for j in range(LANES):
        x = points[:, j]
        g = [each(i, x) - full(x) for i in range(N)]
        f = [inner(i, x)[0] for i in range(N)]
        S = sum(np.outer(one, one) for one in g) / N / size * (1.0 if replace else (N - size) / (N - 1))
        own = (S if data else 0.0) + std**2 / size * sum(np.outer(one, one) for one in f) / N
        np.testing.assert_allclose(law.covariance(points)[..., j], own, **CLOSE)
        np.testing.assert_allclose(law.covariance(x), own, **CLOSE)
        root = gaussian.value(np.repeat(points[:, j : j + 1], len(unit), axis=1), unit)
        np.testing.assert_allclose(root @ root.T, own, **CLOSE)


# --- draws and laws of a user ---


def test_draws_are_in_order():
    """Signs are +-1 and uniforms lie strictly inside (0, 1), at centres of 2^52 cells."""
    rng = np.random.default_rng(10)
    z = st.noise.sample_draws((st.noise.Sign(2), st.noise.Uniform(1), st.noise.Normal(2)), np.random.default_rng(10), 4)
    assert np.array_equal(z[:2], np.where(rng.integers(0, 2, (2, 4)) == 1, 1.0, -1.0))
    assert np.array_equal(z[2:3], (2 * rng.integers(0, 2**52, (1, 4)) + 1) / 2**53)
    assert np.array_equal(z[3:], rng.standard_normal((2, 4)))
    assert check_draws(z, st.noise.gaussian(dim=5)) is z


@pytest.mark.parametrize(("errors", "passes"), [(-6.05, False), (-5.95, True), (5.95, True), (6.05, False)])
def test_a_law_is_validated_to_six_standard_errors(errors, passes):
    """The draws are fixed, so the largest deviation that passes is known to one percent."""
    rng = np.random.default_rng(20240101)
    at = rng.uniform(0.2, 1.0, 2)
    z = st.noise.sample_draws((st.noise.Normal(2),), rng, 200_000)

    def made(law, covariance):
        return st.noise.from_function(law, 2, st.noise.Normal(2), covariance)

    def allowed(law, covariance):
        if passes:
            made(law, covariance)
        else:
            with pytest.raises(ValueError, match="must have mean zero|must be that of"):
                made(law, covariance)

    spread = np.array([2.0, 3.0])
    for i in range(2):
        shift = np.zeros(2)
        shift[i] = errors * spread[i] * z[i].std() / 200_000**0.5 - spread[i] * z[i].mean()
        allowed(lambda x, z, shift=shift: [2 * z[0] + shift[0], 3 * z[1] + shift[1]], np.diag([4.0, 9.0]))
    for i, j in ((0, 0), (0, 1), (1, 1)):
        product = spread[i] * z[i] * spread[j] * z[j]
        stated = np.diag([4.0, 9.0])
        stated[i, j] = stated[j, i] = product.mean() + errors * product.std() / 200_000**0.5
        allowed(lambda x, z: [2 * z[0], 3 * z[1]], stated)
        moving = stated / np.outer(at, at)  # at the point of the validation, where the scale of the law is x
        allowed(
            lambda x, z: [2 * z[0], 3 * z[1]], lambda x, own=moving: [[own[a, b] * x[a] * x[b] for b in (0, 1)] for a in (0, 1)]
        )


def test_a_state_dependent_law_is_validated_at_its_point():
    """The covariance is evaluated at each point, and validated at `at`."""
    moving = st.noise.from_function(lambda x, z: [x[0] * z[0]], 1, st.noise.Sign(1), lambda x: [[x[0] * x[0]]])
    np.testing.assert_allclose(moving.covariance(np.array([[1.5, -2.0]])), [[[2.25, 4.0]]])
    with pytest.raises(ValueError, match="must be that of"):
        st.noise.from_function(lambda x, z: [x[0] * z[0]], 1, st.noise.Sign(1), lambda x: [[x[0]]], at=[1.01])
