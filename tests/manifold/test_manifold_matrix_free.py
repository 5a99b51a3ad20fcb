"""The matrix-free geometry against dense Hessians and third derivatives, to rounding; stochastic traces by their standard error."""

import numpy as np
import pytest

import sdetools as st
from sdetools.manifold import at, matrix_free, project, retract
from sdetools.manifold.product_geometry import LanczosGeometry, ResidualGeometry

torch = pytest.importorskip("torch")
FEATURES, WIDTH, SAMPLES = 6, 24, 12
DIM = WIDTH * (FEATURES + 2)


def network(x, a):
    """Return the output of one hidden tanh layer."""
    w, b, v = x[: WIDTH * FEATURES].reshape(WIDTH, FEATURES), x[WIDTH * FEATURES : WIDTH * (FEATURES + 1)], x[-WIDTH:]
    return v @ torch.tanh(w @ a + b) / WIDTH**0.5


@pytest.fixture(scope="module")
def interpolating():
    """Return a loss, an interpolating point, and its dense and matrix-free geometry."""
    rng = np.random.default_rng(0)
    loss = st.losses.from_torch_model(
        network, torch.as_tensor(rng.normal(size=(SAMPLES, FEATURES))), torch.as_tensor(rng.normal(size=SAMPLES)), dim=DIM
    )
    x = retract(loss, rng.normal(size=DIM) * 0.7)
    return loss, x, at(loss, x), matrix_free(loss, x)


def relative(found, exact):
    """Return the largest error relative to the largest entry."""
    return np.abs(found - exact).max() / np.abs(exact).max()


def test_products_of_the_torch_loss(interpolating):
    """Hessian and third-derivative products agree with dense tensors and differences."""
    loss, x, *_ = interpolating
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, DIM))
    assert relative(loss.hessian_product(x, a), loss.hessian(x) @ a) < 1e-12
    both = (np.outer(a, b) + np.outer(b, a)) / 2
    assert relative(loss.third_product(x, a, b), loss.third_contracted(x, both)) < 1e-11
    h = 1e-4
    difference = (loss.hessian_product(x + h * b, a) - loss.hessian_product(x - h * b, a)) / (2 * h)
    assert relative(loss.third_product(x, a, b), difference) < 1e-6
    small = st.losses.from_torch(lambda y: torch.exp(y[0] * y[1]) + y[2] ** 3 * y[0], dim=3)
    points, matrices = rng.normal(size=(3, 4)), rng.normal(size=(3, 3, 4))
    exact = np.einsum("ijln,ijn->ln", small.third(points), matrices)
    assert relative(small.third_contracted(points, matrices), exact) < 1e-12


def test_the_residual_geometry_agrees_with_the_dense_one(interpolating):
    """Eigenvalues, projection, pseudo-inverse and basis."""
    _, _, dense, free = interpolating
    assert isinstance(free, ResidualGeometry) and free.rank == dense.rank == SAMPLES
    assert relative(free.eigenvalues, dense.eigenvalues[:SAMPLES]) < 1e-12
    v = np.random.default_rng(2).normal(size=(DIM, 3))
    assert relative(free.project_tangent(v), dense.projection @ v) < 1e-9
    assert relative(free.pseudo_inverse(v[:, 0]), dense.pseudo_inverse(v[:, 0])) < 1e-9
    assert np.abs(free.coordinates(free.across(np.eye(SAMPLES))) - np.eye(SAMPLES)).max() < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 4])
def test_d2phi_agrees_with_the_dense_one(interpolating, columns):
    """Also the slow drift; a root that is one percent too large is detected."""
    _, _, dense, free = interpolating
    R = np.random.default_rng(3).normal(size=(DIM, columns))
    exact = dense.second_derivative(R @ R.T)
    assert relative(free.second_derivative(root=R), exact) < 1e-8
    assert relative(free.slow_drift(root=R, rate=2.0), 2.0 * exact) < 1e-8
    assert relative(free.second_derivative(root=1.01 * R), exact) > 1e-2  # negative control: a root that is one percent too large


@pytest.mark.slow
def test_label_noise_agrees_with_the_dense_one(interpolating):
    """For Sigma = c H, and the trace gradient."""
    loss, x, dense, free = interpolating
    exact = dense.second_derivative(0.3 * loss.hessian(x))
    assert relative(free.second_derivative(hessian_multiple=0.3), exact) < 1e-8
    assert relative(free.trace_gradient()[0], dense.trace_gradient()) < 1e-8


def test_hutchinsons_estimate_is_within_its_standard_error(interpolating):
    """|z| < 3.3 for 99.9 % of normal errors; a trace gradient that is 50 % too large fails."""
    *_, free = interpolating
    exact = free.trace_gradient()[0]
    value, stderr = free.trace_gradient(probes=400, seed=4)
    z = (value - exact) / stderr
    assert np.mean(np.abs(z) < 3.3) > 0.99 and abs(np.mean(z**2) - 1) < 0.5
    wrong = (value - 1.5 * exact) / stderr
    assert np.mean(wrong**2) > np.mean(z**2) + 0.5


@pytest.mark.sample(1)
@pytest.mark.parametrize("dim", [3, 30])
def test_lanczos_on_any_loss(dim):
    """A torch loss without residuals, in few and in many coordinates."""
    loss = st.losses.from_torch(lambda x: ((x * x).sum() - 1.0) ** 2 / 4 + (x[0] * x[1] - 0.1) ** 2, dim=dim)
    x = project(loss, np.linspace(0.2, 0.9, dim) / np.sqrt(dim / 2))
    free, dense = matrix_free(loss, x), at(loss, x)
    assert isinstance(free, LanczosGeometry) and free.rank == dense.rank == 2
    R = np.random.default_rng(5).normal(size=(dim, 2))
    assert relative(free.second_derivative(root=R), dense.second_derivative(R @ R.T)) < 1e-6
    assert relative(free.trace_gradient()[0], dense.trace_gradient()) < 1e-6
    value, stderr = free.trace_gradient(probes=200)
    assert np.abs(value - dense.trace_gradient()).max() < 5 * stderr.max()


def test_lanczos_and_residual_geometry_agree(interpolating):
    """The same torch loss by its model and as a function."""
    loss, x, _, free = interpolating
    plain = st.losses.from_torch(loss.function, dim=DIM)
    lanczos = matrix_free(plain, x)
    R = np.random.default_rng(6).normal(size=(DIM, 2))
    assert relative(lanczos.second_derivative(root=R), free.second_derivative(root=R)) < 1e-6


def test_retraction_agrees_with_phi_to_second_order(interpolating):
    """The distance to the linearised projection is of second order."""
    loss, x, dense, _ = interpolating
    v = np.random.default_rng(7).normal(size=DIM)
    v /= np.linalg.norm(v)
    for h in (1e-2, 1e-3):
        assert np.linalg.norm(retract(loss, x + h * v) - x - h * dense.projection @ v) < 20 * h * h


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda loss, x: matrix_free(loss, x + 0.1), "retract"),
        (lambda loss, x: matrix_free(loss, x[:-1]), "`x`"),
        (lambda loss, x: matrix_free("loss", x), "`loss`"),
        (lambda loss, x: matrix_free(loss, x, rank=5), "gap ratio"),
        (lambda loss, x: matrix_free(loss, x).second_derivative(), "must be given; got neither"),
        (lambda loss, x: matrix_free(loss, x).second_derivative(root=np.eye(3)), "shape"),
        (lambda loss, x: matrix_free(loss, x).trace_gradient(probes=1), "probes"),
        (lambda loss, x: matrix_free(st.losses.quadratic([1.0, 2.0]), [0.0, 0.0]), "isolated minimum"),
        (lambda loss, x: matrix_free(st.losses.from_expression("x**2 - y**2"), [0.0, 0.0]), "saddle"),
        (lambda loss, x: matrix_free(st.losses.hyperbola(), [2.0, 1.0]), "Project it first"),
        (lambda loss, x: retract(st.losses.hyperbola(), [2.0, 1.0]), "residuals"),
    ],
)
def test_invalid_arguments_are_rejected(interpolating, make, message):
    """The message names the argument or the remedy."""
    loss, x, *_ = interpolating
    with pytest.raises(ValueError, match=message):
        make(loss, x)


def test_degenerate_residuals_are_not_a_manifold():
    """The residuals (x, y^2) have rank 1 at their only zero; those of (x, x) vanish on a line."""
    inputs, targets = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0])
    isolated = st.losses.from_torch_model(lambda x, a: (1 - a) * x[0] + a * x[1] ** 2, inputs, targets, dim=2)
    line = st.losses.from_torch_model(lambda x, a: x[0] + 0 * a * x[1], inputs, targets, dim=2)
    with pytest.raises(ValueError, match="must stay at its minimum"):
        matrix_free(isolated, [0.0, 0.0])
    assert matrix_free(line, [0.0, 0.5]).rank == 1


def test_the_tolerance_of_a_retraction_includes_the_targets():
    """The values of the model are 1e-12, so a tolerance relative to them could not be reached."""
    circle = st.losses.from_torch_model(lambda x, a: a * (x * x).sum(), torch.tensor([1.0]), torch.tensor([1.0]), dim=2)
    np.testing.assert_allclose(retract(circle, [0.6e-6, 0.8e-6]), [0.6, 0.8], rtol=1e-12)


def test_a_model_that_cannot_interpolate_is_rejected():
    """The target is outside the range of the model."""
    loss = st.losses.from_torch_model(lambda x, a: torch.tanh(x[0]) * a, torch.tensor([1.0]), torch.tensor([5.0]), dim=2)
    with pytest.raises(ValueError, match="converge to 0"):
        retract(loss, [0.3, 0.0])
