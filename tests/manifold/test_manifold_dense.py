"""Phi, dPhi and d2Phi by dense Hessians: closed forms, finite differences of Phi, and input validation.

Seeds are fixed, so there is no false-alarm rate.
"""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import sdetools as st
from sdetools.manifold import FlowError, at, differential, distance, matrix_free, project, second_derivative, tangent_projection
from sdetools.manifold.geometry import Geometry

EXACT = 1e-9


def hyperbola_phi(x):
    """Return the point of xy = 1 with the same x^2 - y^2, on the branch of x."""
    q = x[0] ** 2 - x[1] ** 2
    large = np.sqrt((np.abs(q) + np.sqrt(q * q + 4)) / 2)
    a, b = np.where(q >= 0, large, 1 / large), np.where(q >= 0, 1 / large, large)
    sign = np.sign(x[0] + x[1])
    return np.array([a * sign, b * sign])


CLOSED = {
    "valley": (st.losses.exponential_valley(1.0), lambda x: np.array([x[0] - x[1] ** 2 / 4, 0 * x[0]])),
    "steep valley": (st.losses.exponential_valley(-2.0), lambda x: np.array([x[0] + x[1] ** 2 / 2, 0 * x[0]])),
    "circle": (st.losses.sphere(2), lambda x: x / np.linalg.norm(x, axis=0)),
    "sphere": (st.losses.sphere(4), lambda x: x / np.linalg.norm(x, axis=0)),
    "hyperbola": (st.losses.hyperbola(), hyperbola_phi),
}
NAMES = list(CLOSED)


def points(loss, n=40, seed=0):
    """Return random points around 0.3."""
    return np.random.default_rng(seed).normal(size=(loss.dim, n)) * 0.8 + 0.3


@pytest.mark.parametrize("name", NAMES)
def test_phi_is_the_closed_form(name):
    """On five manifolds."""
    loss, phi = CLOSED[name]
    x = points(loss)
    assert np.abs(project(loss, x) - phi(x)).max() < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_phi_of_one_point_is_that_of_many(name):
    """The same point alone and among others."""
    loss, _ = CLOSED[name]
    x = points(loss, 3)
    assert np.abs(project(loss, x)[:, 1] - project(loss, x[:, 1])).max() < 1e-13


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8, 1e-10])
def test_the_error_is_within_the_tolerance(tolerance):
    """The error is at most three times the tolerance times the size of the points."""
    loss, phi = CLOSED["hyperbola"]
    x = points(loss, 100, seed=5) * 2
    assert np.abs(project(loss, x, tolerance=tolerance) - phi(x)).max() < 3 * tolerance * np.abs(x).max()


def test_phi_is_the_limit_of_the_flow_and_not_the_nearest_zero():
    """In a valley both differ by 1."""
    x = np.array([1.0, 2.0])
    nearest = np.array([1.0, 0.0])
    end = project(st.losses.exponential_valley(1.0), x)
    assert abs(end[0] - 0.0) < EXACT < abs(end[0] - nearest[0])


def test_a_stiff_flow_does_not_increase_the_number_of_steps():
    """A stiffness ratio of 1e6: an explicit method would exceed `max_steps`."""
    loss = st.losses.from_expression("(1e6*(x*y - 1)**2 + (z - x)**2)/2", variables="x y z")
    x = np.array([1.5, 1.2, -1.0])
    end = project(loss, x, max_steps=600)
    exact = solve_ivp(
        lambda t, y: -loss.gradient(y), (0, 200), x, method="Radau", jac=lambda t, y: -loss.hessian(y), rtol=1e-11, atol=1e-13
    )
    assert np.abs(end - exact.y[:, -1]).max() < 1e-7  # the accuracy of Radau here


@pytest.mark.parametrize("name", NAMES)
def test_dphi_off_the_manifold_is_the_derivative_of_phi(name):
    """By central differences of the closed form."""
    loss, phi = CLOSED[name]
    x = points(loss, 12)
    h = 1e-5
    numeric = np.stack([(phi(x + h * e[:, None]) - phi(x - h * e[:, None])) / (2 * h) for e in np.eye(loss.dim)], axis=1)
    assert np.abs(differential(loss, x) - numeric).max() < 2e-8  # the accuracy of the difference quotient


def test_dphi_of_the_sphere_exactly():
    """It is (I - x x^T / r^2) / r."""
    x = points(CLOSED["sphere"][0], 10)
    r = np.linalg.norm(x, axis=0)
    exact = (np.eye(4)[..., None] - np.einsum("in,jn->ijn", x, x) / r**2) / r
    assert np.abs(differential(CLOSED["sphere"][0], x) - exact).max() < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_on_the_manifold_dphi_is_the_tangent_projection(name):
    """It is a projection whose trace is the dimension of the manifold."""
    loss, phi = CLOSED[name]
    x = phi(points(loss, 10))
    P = tangent_projection(loss, x)
    assert np.abs(P - differential(loss, x)).max() < EXACT
    assert np.abs(np.einsum("ijn,jkn->ikn", P, P) - P).max() < 1e-12
    assert np.abs(np.einsum("iin->n", P) - (loss.dim - at(loss, x).rank)).max() < 1e-12


def covariance(dim, seed=1):
    """Return a random covariance."""
    root = np.random.default_rng(seed).normal(size=(dim, dim))
    return root @ root.T


EXACT_SECOND = {
    "valley": lambda x, S: np.array([-S[1, 1] / 2 + 0 * x[0], 0 * x[0]]),
    "steep valley": lambda x, S: np.array([S[1, 1] + 0 * x[0], 0 * x[0]]),
    "circle": lambda x, S: sphere_second(x, S),
    "sphere": lambda x, S: sphere_second(x, S),
}


def sphere_second(x, S):
    """Return d2(x/|x|)[S] at |x| = 1: -2 S x - x tr S + 3 x (x.Sx)."""
    Sx = S @ x
    return -2 * Sx - x * np.trace(S) + 3 * x * (x * Sx).sum(axis=0)


@pytest.mark.parametrize("name", list(EXACT_SECOND))
def test_d2phi_is_the_closed_form(name):
    """On valleys and spheres, for a random covariance."""
    loss, phi = CLOSED[name]
    x, S = phi(points(loss, 10)), covariance(loss.dim)
    assert np.abs(second_derivative(loss, x, S) - EXACT_SECOND[name](x, S)).max() < EXACT


def test_d2phi_of_the_hyperbola_preserves_the_conserved_quantity():
    """Two derivatives of q(Phi(x)) = q(x), q = x^2 - y^2, summed over the covariance S."""
    loss, phi = CLOSED["hyperbola"]
    x = phi(points(loss, 10))
    S = covariance(2)
    gradient, hessian = np.array([2 * x[0], -2 * x[1]]), np.diag([2.0, -2.0])
    P = tangent_projection(loss, x)
    moved = np.einsum("ijn,jk,lkn->iln", P, S, P)
    left = (gradient * second_derivative(loss, x, S)).sum(axis=0) + np.einsum("ij,ijn->n", hessian, moved)
    assert np.abs(left - np.trace(hessian @ S)).max() < EXACT


@pytest.mark.parametrize("name", NAMES)
def test_label_noise_gives_the_gradient_of_the_trace(name):
    """For Sigma = c H it is -(c/2) P grad tr H."""
    loss, phi = CLOSED[name]
    x = phi(points(loss, 10))
    geometry = at(loss, x)
    drift = geometry.second_derivative(0.3 * np.moveaxis(np.array([loss.hessian(p) for p in x.T]), 0, -1))
    assert np.abs(drift + 0.15 * geometry.trace_gradient()).max() < EXACT


# Random smooth losses with a known manifold: L = |A(x) r(x)|^2 / 2 with r(x) = y - f(z), in coordinates changed by a smooth map.


def random_loss(seed):
    """Return sum_k w_k(x) (x_k - f_k(z))^2 / 2 with random w_k > 0 and f_k, and a point of its manifold."""
    rng = np.random.default_rng([7, seed])
    tangent, normal = rng.integers(1, 3), rng.integers(1, 3)
    names = [f"x{i}" for i in range(tangent + normal)]
    free = names[normal:]
    a = rng.uniform(-1, 1, (normal, tangent, 3))
    w = rng.uniform(-0.5, 0.5, (normal, len(names)))
    curves = [
        " + ".join(f"{a[k, i, 0]:.4f}*sin({v}) + {a[k, i, 1]:.4f}*{v}**2 + {a[k, i, 2]:.4f}*{v}" for i, v in enumerate(free))
        for k in range(normal)
    ]
    mixed = [f"({names[k]} - ({curves[k]}) + 0.3*({names[0]} - ({curves[0]}))*{free[0]})" if k else f"({names[0]} - ({curves[0]}))"
             for k in range(normal)]  # fmt: skip
    weights = ["exp(" + " + ".join(f"{w[k, i]:.4f}*{v}" for i, v in enumerate(names)) + ")" for k in range(normal)]
    loss = st.losses.from_expression(" + ".join(f"{u}*{r}**2/2" for u, r in zip(weights, mixed)), variables=names)
    z = rng.uniform(-0.7, 0.7, tangent)
    on = [sum(a[k, i, 0] * np.sin(v) + a[k, i, 1] * v**2 + a[k, i, 2] * v for i, v in enumerate(z)) for k in range(normal)]
    on = [float(f"{value:.16g}") for value in on]
    return loss, project(loss, np.array([*on, *z])), normal, rng


@pytest.mark.slow
@pytest.mark.parametrize("block", range(3))
def test_d2phi_is_the_second_difference_of_phi_on_random_losses(block):
    """Eighteen random losses; a tangent part that is 5 % too small is detected."""
    for seed in range(6 * block, 6 * block + 6):
        loss, x, normal, rng = random_loss(seed)
        geometry = at(loss, x)
        assert geometry.rank == normal and geometry.gap > 1e6
        root = rng.normal(size=(loss.dim, loss.dim))
        h = 2e-3
        steps = np.concatenate([x[:, None] + h * factor * root for factor in (-2, -1, 1, 2)], axis=1)
        ends = project(loss, steps, tolerance=1e-10).reshape(loss.dim, 4, loss.dim)
        centre = project(loss, x, tolerance=1e-10)[:, None]
        second = (-ends[:, 0] + 16 * ends[:, 1] - 30 * centre + 16 * ends[:, 2] - ends[:, 3]) / (12 * h * h)
        found, numeric = geometry.second_derivative(root @ root.T), second.sum(axis=1)
        assert np.abs(found - numeric).max() < 1e-4 * np.abs(numeric).max(), seed
        wrong = found - 0.05 * geometry.project_tangent(found)  # negative control: a tangent part that is 5 % too small
        assert (
            np.abs(wrong - numeric).max() > 1e-3 * np.abs(numeric).max() or np.abs(geometry.project_tangent(found)).max() < 1e-2
        )


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("text", "start", "message"),
    [
        ("exp(-x) + y**2", [0.0, 1.0], "must converge"),
        ("-x**2 + y**2", [1.0, 1.0], "diverges"),
        ("(x**2 - 1)**2/4 + y**2", [0.0, 1.0], "saddle"),
        ("x*y", [0.0, 0.0], "saddle"),
        ("sqrt(x) + y**2", [2.0, 1.0], "must"),
        ("log(x) + y**2", [-1.0, 1.0], "must"),
    ],
)
def test_a_flow_that_does_not_end_at_minimisers_is_rejected(text, start, message):
    """Flows without a limit, to a saddle, and out of the domain."""
    loss = st.losses.from_expression(text, variables="x y")
    with pytest.raises(FlowError, match=message) as error:
        project(loss, start, max_steps=3000)
    assert "point 0" in str(error.value) or "at (" in str(error.value)


def test_the_rejected_point_is_named():
    """The message gives the number of the point."""
    with pytest.raises(FlowError, match="point 1"):
        project(st.losses.double_well(), np.array([[1.5, 0.0, -0.5]]))


@pytest.mark.parametrize(
    ("text", "point", "message"),
    [
        ("x**2 + y**2", [0.0, 0.0], "minimum is isolated"),
        ("(x*y - 1)**2/2", [2.0, 1.0], "Project it first"),
        ("exp(x)*y**2/2", [0.3, 1e-4], "Project it first"),
        ("(x*y)**2/2", [0.0, 0.0], "vanishes"),
        ("x**2 - y**2", [0.0, 0.0], "saddle"),
        ("x**2*(1 + 1e-7*y**2) + 1e-7*y**2", [0.0, 0.0], "gap ratio of 1e"),
        ("0*x + 0*y", [0.0, 0.0], "vanishes"),
    ],
)
def test_a_point_without_a_clear_manifold_is_rejected(text, point, message):
    """Isolated minima, points off the manifold, saddles and ambiguous ranks."""
    loss = st.losses.from_expression(text, variables="x y")
    with pytest.raises(ValueError, match=message):
        at(loss, point)


# Hessians of lower rank whose minimum is isolated, or of fewer dimensions than the kernel: (loss, coordinates, point).
DEGENERATE = [
    ("x**2/2 + y**4", "x y", [0, 0]),
    ("x**2/2 + y**6", "x y", [0, 0]),
    ("x**2/2 + y**12", "x y", [0, 0]),
    ("x**2/2 + y**3", "x y", [0, 0]),
    ("x**2/2 - y**4", "x y", [0, 0]),
    ("x**2/2 + 1e-6*y**4", "x y", [0, 0]),
    ("(1e6*x)**2/2 + y**4", "x y", [0, 0]),
    ("(y - x**2)**2/2 + x**4", "x y", [0, 0]),
    ("(y - 1e4*x**2)**2/2 + x**4", "x y", [0, 0]),
    ("(x - y**2)**2 + y**6*exp(y)", "x y", [0, 0]),
    ("(x*y - 1)**2/2 + (x - 2)**4", "x y", [2, 0.5]),
    ("x**2/2 + (1 - cos(y))**2", "x y", [0, 0]),
    ("x**2/2 + y**4 + 0*z", "x y z", [0, 0, 3]),
    ("x**2 + (y*z)**4", "x y z", [0, 1, 0]),
    ("(x**2 + y**2 + z**2 - 1)**2/4 + (z - 0.6)**4", "x y z", [0.8, 0, 0.6]),
]
# Manifolds of minimisers: strongly curved, badly scaled, near singular points, and one with a curvature below rounding.
FLAT = [
    ("(x*y - 1)**2/2", "x y", [1000, 0.001]),
    ("(1e6*(x*y - 1))**2/2", "x y", [2, 0.5]),
    ("x**2*y**2 - 2*x*y + 1", "x y", [2, 0.5]),
    ("(a*b*c*d*f*g - 1)**2/2", "a b c d f g", [1.1, 1.1, 1.1, 1.1, 1.1, 0.6]),
    ("exp(x + y)*(x - y)**2/2", "x y", [0.3, 0.1]),
    ("(y - 1e4*x**2)**2/2", "x y", [0, 0]),
    ("(y - 1e4*x**2)**2/2", "x y", [1, 1e4]),
    ("(y - sin(50*x))**2/2", "x y", [0.3, 0.6]),
    ("(x**2 + y**2 - 1e-6)**2/4", "x y", [1e-3, 0]),
    ("(x**2 + y**2 - 1e12)**2/4", "x y", [1e6, 0]),
    ("(y**2 + (x*z)**2)/2", "x y z", [0.01, 0, 0]),
    ("(x*y)**2/2", "x y", [1, 0]),
    ("(log(x) + log(y))**2", "x y", [2, 0.4]),
    ("x**2*(1 + y**2) + 1e-11*y**2", "x y", [0, 0]),
]


@pytest.mark.parametrize(("text", "names", "point"), DEGENERATE)
def test_a_degenerate_minimum_is_not_a_manifold(text, names, point):
    """For the dense and the matrix-free method, also with a given rank and at several points."""
    loss = st.losses.from_expression(text, variables=names)
    for geometry in (at, matrix_free):
        with pytest.raises(ValueError, match="must stay at its minimum along the kernel of its Hessian"):
            geometry(loss, point)
    with pytest.raises(ValueError, match="must stay at its minimum"):
        at(loss, np.array(point, dtype=float), rank=1)
    with pytest.raises(ValueError, match="must stay at its minimum"):
        at(loss, np.stack([point, point], axis=1))


@pytest.mark.parametrize(("text", "names", "point"), FLAT)
def test_a_manifold_of_any_curvature_and_scale_is_accepted(text, names, point):
    """No false rejection."""
    loss = st.losses.from_expression(text, variables=names)
    x = project(loss, point)
    assert at(loss, x).rank == matrix_free(loss, x).rank < loss.dim


def test_the_limit_of_a_flow_to_a_degenerate_minimum_is_rejected():
    """The flow ends where the slope is below rounding, not at 0."""
    loss = st.losses.from_expression("x**2/2 + y**6", variables="x y")
    x = project(loss, [1.0, 1.0])
    assert 0 < abs(x[1]) < 1e-2
    with pytest.raises(ValueError, match="must stay at its minimum"):
        at(loss, x)


def test_a_rank_that_changes_is_rejected():
    """A regular and a singular point of the same set."""
    loss = st.losses.from_expression("(x*y)**2/2 + z**2", variables="x y z")
    at(loss, [1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="same at all points"):
        at(loss, np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))


def test_a_given_rank_must_be_at_a_gap():
    """A gap ratio of 1000 or more."""
    loss = st.losses.from_expression("(x**2 + 1e-7*y**2)/2 + 0*z", variables="x y z")
    assert at(loss, [0.0, 0.0, 0.0], rank=2).rank == 2
    with pytest.raises(ValueError, match="gap ratio"):
        at(st.losses.sphere(3), [1.0, 0.0, 0.0], rank=2)


@pytest.mark.parametrize(
    ("Sigma", "message"),
    [
        (np.eye(3), "shape"),
        ([[1.0, 2.0], [0.0, 1.0]], "symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], "semidefinite"),
        (np.full((2, 2), np.nan), "finite"),
    ],
)
def test_an_invalid_sigma_is_rejected(Sigma, message):
    """Wrong shape, asymmetric, indefinite, not finite."""
    with pytest.raises(ValueError, match=message):
        second_derivative(st.losses.hyperbola(), [1.0, 1.0], Sigma)


@pytest.mark.parametrize("x", [[1.0], [1.0, np.nan], [[[1.0]], [[1.0]]], "a"])
def test_an_invalid_point_is_rejected(x):
    """Wrong shape, not finite, not a number."""
    for function in (project, differential, tangent_projection):
        with pytest.raises(ValueError, match="`x`"):
            function(st.losses.hyperbola(), x)


def test_distance_and_representation():
    """The distance to a circle, and the rank in the representation."""
    loss = st.losses.sphere(2)
    assert abs(float(distance(loss, [0.0, 0.5])) - 0.5) < EXACT
    assert isinstance(at(loss, [1.0, 0.0]), Geometry)
    assert "rank 1 of 2" in repr(at(loss, [1.0, 0.0]))
