"""Overparametrised problems: derivatives, manifolds of minimisers, conserved quantities and label noise, without randomness."""

import pickle

import numpy as np
import pytest

import sdetools as st
from sdetools.manifold import at, project

RNG = np.random.default_rng(0)
SENSORS = RNG.normal(size=(3, 3, 3))
TEACHER = RNG.normal(size=(3, 2))
SENSED = np.einsum("nij,ik,jk->n", SENSORS, TEACHER, TEACHER)


def diagonal():
    """Return a small diagonal network."""
    z, y, _ = st.losses.sparse_teacher(3, 5, 1, seed=1)
    return st.losses.diagonal_network(z, y)


PROBLEMS = {
    "uv": (lambda: st.losses.uv_model(3), 1, lambda x: x[:3] ** 2 - x[3:] ** 2),
    "diagonal": (diagonal, 3, lambda x: x[:5] * x[5:]),
    "sensing": (lambda: st.losses.matrix_sensing(SENSORS, SENSED, rank=2), 3, None),
    "two layers": (lambda: st.losses.two_layer(RNG.normal(size=(3, 2)).round(3), [0.5, -0.3, 0.1], width=3), 3, None),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_loss_is_the_mean_square_of_its_residuals(name):
    """Value and gradient come from the models, one by one; the loss pickles."""
    loss = PROBLEMS[name][0]()
    x = RNG.normal(size=(loss.dim, 4))
    models = [st.losses.from_expression(f, variables=loss.names) for f in loss.models]
    r = np.array([f.value(x) - y for f, y in zip(models, loss.targets)])
    assert np.abs(loss.value(x) - (r**2).mean(axis=0) / 2).max() < 1e-12
    gradient = sum(f.gradient(x) * ri for f, ri in zip(models, r)) / len(r)
    assert np.abs(loss.gradient(x) - gradient).max() < 1e-12
    assert pickle.loads(pickle.dumps(loss)).identity == loss.identity


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", PROBLEMS)
def test_manifold_and_label_noise(name):
    """The rank is the number of residuals, the flow conserves its invariants, and label noise is a multiple of the Hessian."""
    make, rank, conserved = PROBLEMS[name]
    loss = make()
    x = np.random.default_rng(3).normal(size=loss.dim)
    phi = project(loss, x)
    geometry = at(loss, phi)
    assert geometry.rank == rank and loss.value(phi) < 1e-20
    if conserved is not None:
        assert np.abs(conserved(phi) - conserved(x)).max() < 1e-8
    Sigma = st.noise.label_noise(loss, std=0.5, size=2).covariance(phi)
    assert np.abs(Sigma - 0.125 * loss.hessian(phi)).max() < 1e-9
    drift = geometry.second_derivative(Sigma)
    assert np.abs(drift + 0.0625 * geometry.trace_gradient()).max() < 1e-7 * max(1.0, np.abs(drift).max())


def test_the_trace_of_the_diagonal_network():
    """On the manifold tr H is 4 (|u|^2 + |v|^2) for signs as features."""
    loss = diagonal()
    x = project(loss, np.full(10, 0.8))
    assert abs(np.trace(loss.hessian(x)) - 4 * (x**2).sum()) < 1e-9


def test_real_data():
    """A network on the diabetes data has a manifold of the expected rank."""
    pytest.importorskip("sklearn")
    loss = st.losses.diabetes_network(samples=3, features=2, width=2)
    phi = project(loss, np.random.default_rng(1).normal(size=loss.dim))
    assert at(loss, phi).rank == 3


def test_kernels_agree_with_the_reference():
    """Paths with label noise on two backends."""
    loss = diagonal()
    oracle = st.NoisyOracle(loss, st.noise.label_noise(loss, std=0.5))
    sgd = st.SGD(oracle, st.schedules.constant(0.01))
    ends = [
        st.simulate(sgd, x0=np.full(10, 0.7), horizon=0.2, paths=40, observe=["u0"], keep_final=True, backend=b).final
        for b in ("numpy", "numba")
    ]
    assert np.abs(ends[0] - ends[1]).max() < 1e-10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: st.losses.uv_model(0), "`n`"),
        (lambda: st.losses.diagonal_network([1.0, 2.0], [1.0]), "`features`"),
        (lambda: st.losses.diagonal_network([[1.0, 2.0]], [1.0, 2.0]), "`targets`"),
        (lambda: st.losses.matrix_sensing([[1.0]], [1.0], rank=1), "`sensors`"),
        (lambda: st.losses.two_layer([[1.0]], [np.nan], width=1), "finite"),
        (lambda: st.losses.from_models(["x*q"], [1.0], "x y"), "q"),
        (lambda: st.losses.diabetes_network(samples=10**6), "at most"),
    ],
)
def test_invalid_arguments_are_rejected(make, message):
    """The message names the argument."""
    with pytest.raises(ValueError, match=message):
        make()


def test_names_of_large_models_differ():
    """With two-digit indices they are apart; in small models they are not, as ever."""
    rng = np.random.default_rng(0)
    network = st.losses.two_layer(rng.standard_normal((1, 11)).round(2), [1.0], width=12)
    assert network.names[0] == "w0_0" and len(set(network.names)) == network.dim == 12 * 12
    sensing = st.losses.matrix_sensing([np.diag([1.0] + 10 * [0.0] + [2.0])], [1.0], rank=11)
    assert sensing.names[12] == "u1_1" and len(set(sensing.names)) == sensing.dim == 132
    assert st.losses.two_layer([[1.0, 2.0]], [1.0], width=2).names == ("w00", "w01", "w10", "w11", "a0", "a1")
    with pytest.raises(ValueError, match="`nonzero` must be at most 3"):
        st.losses.problems.sparse_teacher(4, 3, 4)
