"""The formulas of the manifold against the reference implementations of this file: exact, so there is no false-alarm rate.

Losses, points and covariances have no symmetry by accident, and points or lanes differ. Results agree to rounding; the error of a factor
of 1.02, a wrong sign, term or index is a million times larger.
"""

import itertools
import math
from itertools import combinations_with_replacement

import naive
import numpy as np
import pytest

import sdetools as st
from sdetools.manifold import flow, kernels as compiled
from sdetools.manifold.flow import FlowError
from sdetools.manifold.geometry import at
from sdetools.manifold.product_geometry import matrix_free, retract

NONLINEAR = st.losses.from_expression(
    "exp(0.3*x)*(y - sin(x) + 0.2*z)**2/2 + 0.7*(z - 0.4*x**2 + 0.3*y*z)**2/2 + 0.05*(x - 0.2)**4 + 0.1*x*y*z", variables="x y z"
)
kernels = naive.interpreted(compiled)
STARTS = np.array([[0.3, -0.4, 0.5], [0.9, 0.2, -0.6]])


def relative(found, exact):
    """Return the largest error relative to the largest entry."""
    assert np.shape(found) == np.shape(exact)
    return np.abs(found - exact).max() / np.abs(exact).max()


# --- the flow ---


def plain_extrapolants(loss, x, h, V):
    """Return x and V after a step h by j = 1 ... 9 linearly implicit Euler substeps, extrapolated with Lagrange's weights to substep 0.

    A substep solves (I + h/j H) d = -h/j grad L(y) with H at the start of the step. Its derivative with respect to the start includes that
    of H: (I + h/j H) dW = -h/j (Hess L(y) W + D3[d] V) with the third derivatives D3 at the start. The results are the extrapolants of all
    nine and of the last eight.
    """
    H, third, eye, ends = loss.hessian(x), loss.third(x), np.eye(len(x)), []
    for j in range(1, 10):
        y, W, A = x.copy(), V.copy(), eye + h / j * H
        for _ in range(j):
            d = np.linalg.solve(A, -h / j * loss.gradient(y))
            W = W + np.linalg.solve(A, -h / j * (loss.hessian(y) @ W + np.einsum("ikl,l->ik", third, d) @ V))
            y = y + d
        ends.append((y, W))
    out = []
    for used in (range(1, 10), range(2, 10)):
        weights = {j: math.prod((1 / i) / (1 / i - 1 / j) for i in used if i != j) for j in used}
        out.append(tuple(sum(weights[j] * ends[j - 1][part] for j in used) for part in (0, 1)))
    return out


@pytest.mark.parametrize("follows", [True, False])
def test_a_step_of_the_flow_is_the_extrapolated_implicit_euler_method(follows):
    """The sizes of the nine weights add up to about 1e4, so rounding is 1e-11."""
    h, V = np.array([0.4, 0.7]), np.random.default_rng(3).normal(size=(2, 3, 3))
    values, vectors = np.linalg.eigh(flow.hessians(NONLINEAR, STARTS))
    found = flow._extrapolated(
        NONLINEAR, STARTS.copy(), flow.gradients(NONLINEAR, STARTS), values, vectors, h, V.copy() if follows else None
    )
    for i in range(2):
        for got, (x, W) in zip(found, plain_extrapolants(NONLINEAR, STARTS[i], h[i], V[i]), strict=True):
            assert relative(got.x[i], x) < 1e-10
            assert got.v is None if not follows else relative(got.v[i], W) < 1e-10


def test_the_final_newton_steps():
    """Three steps y - H^+ grad L(y) with a constant H^+, which a fourth would change; V becomes P V."""
    loss = st.losses.from_expression("exp(0.3*x)*(y - sin(x))**2/2 + 0*z", variables="x y z")
    x = np.array([[0.3, 0.5, 0.1], [0.7, 0.4, -0.2], [0.1, 0.2, 0.3]])
    V = np.random.default_rng(4).normal(size=(3, 3, 3))
    out, chosen = flow._State(x.copy(), V.copy()), np.array([2, 0])
    values, vectors = np.linalg.eigh(flow.hessians(loss, x[chosen]))
    values[np.abs(values) < 0.2] = 0.0
    flow._finish(loss, out, chosen, values, vectors, np.zeros(3))
    for i, of, own in zip(chosen, values, vectors, strict=True):
        inverse = own @ np.diag([1 / v if v else 0.0 for v in of]) @ own.T
        y = x[i].copy()
        for _ in range(3):
            y = y - inverse @ loss.gradient(y)
        assert relative(out.x[i], y) < 1e-14 and np.abs(inverse @ loss.gradient(y)).max() > 1e-6
        assert relative(out.v[i], V[i] - inverse @ (own @ np.diag(of) @ own.T) @ V[i]) < 1e-13
    assert np.array_equal(out.x[1], x[1]) and np.array_equal(out.v[1], V[1])


def test_curvatures_count_above_a_millionth_of_the_largest():
    """Smaller and negative ones do not, and are not divided by."""
    values = np.array([[-0.5, 0.99e-6, 1.01e-6, 1.0], [-4.0, 0.99 * 4e-6, 1.01 * 4e-6, 2.0]])
    assert flow._has_curvature(values).tolist() == [[False, False, True, True], [False, False, True, True]]
    b = np.array([3.0, 5.0, 7.0, 9.0])
    found = flow._divided(np.array([b, -b]), values, flow._has_curvature(values))
    assert np.allclose(found, [[0, 0, 7 / 1.01e-6, 9], [0, 0, -7 / 4.04e-6, -4.5]], rtol=1e-15, atol=0)


def test_a_limit_is_a_saddle_below_minus_a_millionth_of_the_largest_curvature():
    """One percent above the threshold passes, one percent below is rejected."""
    loss, vectors = st.losses.sphere(2), np.eye(2)[None]

    def finish(low):
        flow._finish(loss, flow._State(np.array([[1.0, 0.0]]), None), np.array([0]), np.array([[low, 4.0]]), vectors, np.zeros(1))

    finish(-0.99 * 4e-6)
    with pytest.raises(FlowError, match="saddle"):
        finish(-1.01 * 4e-6)


def test_the_scaled_difference_is_the_larger_of_both_parts():
    """X counts relative to the size of the point, V as it is."""
    one = flow._State(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[[1.0, 2.0]], [[3.0, 4.0]]]).swapaxes(1, 2))
    other = flow._State(np.array([[1.5, 1.0], [3.0, 4.5]]), np.array([[[1.1, 2.0]], [[3.0, 3.0]]]).swapaxes(1, 2))
    assert flow._scaled_difference(one, other, np.array([4.0, 8.0])).tolist() == [0.25, 1.0]
    assert flow._scaled_difference(flow._State(one.x, None), flow._State(other.x, None), np.array([4.0, 8.0])).tolist() == [
        0.25,
        0.0625,
    ]
    bad = flow._State(np.array([[np.nan, 2.0], [3.0, 4.0]]), None)
    assert flow._scaled_difference(bad, flow._State(other.x, None), np.ones(2)).tolist() == [np.inf, 0.5]


# --- dense geometry ---

VALLEYS = st.losses.from_expression(
    "exp(0.3*x - 0.2*w)*(y - sin(x) + 0.2*w)**2/2 + 0.7*exp(0.4*y)*(z - 0.4*x**2 + 0.3*w + 0.2*(y - sin(x) + 0.2*w))**2/2",
    variables="x y z w",
)


def on_valleys(x, w):
    """Return a point of the manifold of `VALLEYS`."""
    return [x, math.sin(x) - 0.2 * w, 0.4 * x * x - 0.3 * w, w]


ON = np.array([on_valleys(0.4, -0.3), on_valleys(-0.6, 0.5), on_valleys(1.1, 0.2)]).T
ROOTS = np.random.default_rng(5).normal(size=(3, 4, 4))
SIGMAS = np.array([R @ R.T for R in ROOTS])


def by_inverses(loss, x, S):
    """Return H, P, H^+, P S P, Z = Lyap^{-1}(Q S Q) + H^+ Q S P + its transpose, and d2Phi[S], by linear systems."""
    H, third, eye = loss.hessian(x), loss.third(x), np.eye(len(x))
    inverse = np.linalg.pinv(H, rcond=1e-8, hermitian=True)
    Q = inverse @ H
    P = eye - Q
    both = np.kron(H, eye) + np.kron(eye, H)
    lyapunov = (np.linalg.pinv(both, rcond=1e-8, hermitian=True) @ (Q @ S @ Q).ravel()).reshape(H.shape)
    mixed = inverse @ Q @ S @ P
    Z = lyapunov + mixed + mixed.T
    D = [np.einsum("ijl,ij->l", third, M) for M in (P @ S @ P, Z)]
    return H, P, inverse, P @ S @ P, Z, -inverse @ D[0] - P @ D[1]


def test_the_geometry_of_several_points_agrees_with_linear_systems():
    """Projections, pseudo-inverses, second derivatives, drifts and trace gradients."""
    geometry, v = at(VALLEYS, ON), np.random.default_rng(6).normal(size=(4, 3))
    S = np.moveaxis(SIGMAS, 0, -1)
    second, drift, trace = geometry.second_derivative(S), geometry.slow_drift(S, rate=0.7), geometry.trace_gradient()
    parts = geometry._split(S)
    for n in range(3):
        H, P, inverse, across, Z, exact = by_inverses(VALLEYS, ON[:, n], SIGMAS[n])
        assert relative(geometry.projection[..., n], P) < 1e-11
        assert relative(geometry.project_tangent(v)[:, n], P @ v[:, n]) < 1e-11
        assert relative(geometry.pseudo_inverse(v)[:, n], inverse @ v[:, n]) < 1e-11
        assert relative(geometry.pseudo_inverse_matrix[..., n], inverse) < 1e-11
        assert relative(parts[0][..., n], across) < 1e-10 and relative(parts[1][..., n], Z) < 1e-10
        assert relative(second[:, n], exact) < 1e-10 and relative(drift[:, n], 0.245 * exact) < 1e-10
        slope = P @ np.einsum("iil->l", VALLEYS.third(ON[:, n]))
        assert relative(trace[:, n], slope) < 1e-10
        assert relative(geometry.eigenvalues[:, n], np.linalg.eigvalsh(H)[::-1]) < 1e-12
        one = at(VALLEYS, ON[:, n])
        assert relative(one.second_derivative(SIGMAS[n]), exact) < 1e-10 and relative(one.trace_gradient(), slope) < 1e-10


def test_the_gap_is_the_smallest_over_points():
    """The M-th eigenvalue divided by the largest modulus after it."""
    loss = st.losses.from_expression("x**2 + 0.25*y**2 + 5e-11*z**2", variables="x y z")
    assert at(loss, [0.0, 0.0, 0.0]).gap == pytest.approx(0.5e10, rel=1e-9)
    assert at(loss, [0.0, 0.0, 0.0]).rank == 2
    two = st.manifold.geometry.Geometry(
        loss, np.zeros((3, 2)), np.array([[2, 3], [0.5, 0.6], [1e-4, -3e-4]]), np.zeros((3, 3, 2)), 2
    )
    assert two.gap == pytest.approx(2000.0, rel=1e-12)
    assert st.manifold.geometry.Geometry(loss, np.zeros(3), np.ones(3), np.eye(3), 0).gap == np.inf
    assert two.normal.shape == (3, 2, 2) and two.tangent.shape == (3, 1, 2)


def flat(c):
    """Return a loss with the curvatures 4, 4 c and 0."""
    return st.losses.from_expression(f"2*x**2 + 2*({c!r})*y**2 + 0*z", variables="x y z")


@pytest.mark.parametrize("geometry", [at, matrix_free])
def test_the_rank_is_ambiguous_between_a_billionth_and_a_millionth(geometry):
    """Eigenvalues one percent inside and outside of the thresholds, for both methods."""
    for c, rank in ((1.01e-6, 2), (0.99e-9, 1), (-0.99e-9, 1)):
        assert geometry(flat(c), [0.0, 0.0, 0.0]).rank == rank
    for c, message in (
        (0.99e-6, "must be clear"),
        (1.01e-9, "must be clear"),
        (-1.01e-9, "must be clear"),
        (-0.99e-6, "must be clear"),
        (-1.01e-6, "saddle"),
    ):
        with pytest.raises(ValueError, match=message):
            geometry(flat(c), [0.0, 0.0, 0.0])
    assert geometry(flat(0.99e-3), [0.0, 0.0, 0.0], rank=1).rank == 1
    with pytest.raises(ValueError, match="gap ratio"):
        geometry(flat(1.01e-3), [0.0, 0.0, 0.0], rank=1)


def test_a_point_lies_on_the_manifold_up_to_a_millionth_of_its_size():
    """The distance is the Newton displacement; the size is at least 1e-3."""
    loss = st.losses.from_expression("3*y**2/2 + 0*x", variables="x y")
    for size in (0.0, 5.0):
        at(loss, [size, 0.99e-6 * (size + 1e-3)])
        with pytest.raises(ValueError, match="must lie on the manifold"):
            at(loss, [size, 1.01e-6 * (size + 1e-3)])


# --- compiled functions, one point for each lane ---


def packed(tensor, order=2):
    """Return the entries i <= j (<= l) of symmetric tensors `(dim, ..., lanes)`."""
    return np.ascontiguousarray(tensor[tuple(np.array(list(combinations_with_replacement(range(len(tensor)), order))).T)])


@pytest.mark.parametrize("dim", [2, 3, 5, 8])
def test_rotations_diagonalise_to_rounding(dim):
    """Random, diagonal and constant matrices, one for each lane."""
    rng = np.random.default_rng(dim)
    H = rng.normal(size=(dim, dim, 6))
    H = H + H.swapaxes(0, 1)
    H[..., 0] = np.diag(np.arange(1.0, dim + 1))
    H[..., 1] = 1.0
    A, V = H.reshape(dim * dim, 6).copy(), np.empty((dim * dim, 6))
    kernels.jacobi(A, V, dim, 6)
    for n in range(6):
        own, vectors = A[:, n].reshape(dim, dim), V[:, n].reshape(dim, dim)
        assert np.abs(np.sort(np.diag(own)) - np.linalg.eigvalsh(H[..., n])).max() < 1e-13 * dim * 8
        assert np.abs(vectors.T @ vectors - np.eye(dim)).max() < 1e-13 * dim
        assert np.abs(vectors @ np.diag(np.diag(own)) @ vectors.T - H[..., n]).max() < 1e-13 * dim * 8


def framed(H, S, rank, most=0.7, least=1e-8):
    """Return the four matrices of the compiled frame."""
    dim, lanes = H.shape[0], H.shape[-1]
    out = np.empty((kernels.frame_rows(dim), lanes))
    kernels.frame(packed(H), packed(S), out, np.array([dim, rank, most, least]))
    own = dim * (dim + 1) // 2
    return out[: 4 * own].reshape(4, own, lanes)


def test_the_compiled_frame_and_its_drift_agree_with_linear_systems():
    """The matrices, the drift and the tangent projection of a vector."""
    H, T = (
        np.moveaxis(np.array([VALLEYS.hessian(x) for x in ON.T]), 0, -1),
        np.moveaxis(np.array([VALLEYS.third(x) for x in ON.T]), 0, -1),
    )
    found = framed(H, np.moveaxis(SIGMAS, 0, -1), 2)
    pulled, along = np.empty((8, 3)), np.empty((4, 3))
    full = np.empty((kernels.frame_rows(4), 3))
    kernels.frame(packed(H), packed(np.moveaxis(SIGMAS, 0, -1)), full, np.array([4, 2, 0.7, 1e-8]))
    kernels.pull(full, packed(T, 3), pulled, np.array([4, 2, 0.7, 1e-8]))
    v = np.random.default_rng(7).normal(size=(4, 3))
    kernels.tangent(full[:10].copy(), v, along, np.array([4, 2, 0.7, 1e-8]))
    for n in range(3):
        _, P, inverse, across, Z, exact = by_inverses(VALLEYS, ON[:, n], SIGMAS[n])
        for got, want in zip(found[..., n], (P, inverse, across, Z), strict=True):
            assert relative(got, packed(want)) < 1e-10
        assert relative(pulled[:4, n], exact) < 1e-10
        assert relative(along[:, n], P @ v[:, n]) < 1e-11


def diagonal(*values):
    """Return diagonal matrices, one for each lane."""
    return np.stack([np.diag(row) for row in values], axis=-1)


def test_a_frame_is_nan_if_a_bound_is_violated():
    """|lambda_{M+1}| at most .7 lambda_M, lambda_M at least 1e-3 lambda_1 and positive."""
    H = diagonal(
        (4.0, 2.0, 1.39), (8.0, 2.0, 1.41), (2.0, 2.0, -1.39), (4.0, 2.0, -1.41), (4.0, 4.04e-3, 0.0), (9.0, 8.9e-3, 0.0),
        (3.0, 3.04e-3, 0.0), (4.0, -1.0, -2.0),
    )  # fmt: skip
    found = framed(H, np.repeat(np.eye(3)[..., None], 8, axis=-1), 2, 0.7, 1e-3)
    assert np.isfinite(found).all(axis=(0, 1)).tolist() == [True, False, True, False, True, False, True, False]
    assert np.isnan(found).all(axis=(0, 1)).tolist() == [False, True, False, True, False, True, False, True]


def test_the_frame_counts_equal_curvatures_once_each():
    """Two of three equal eigenvalues are across the manifold; which two is arbitrary."""
    found = framed(diagonal((3.0, 3.0, 3.0, 0.0)), np.eye(4)[..., None], 2, 2.0)
    P = np.zeros((4, 4))
    P[np.triu_indices(4)] = found[0, :, 0]
    assert np.trace(P) == pytest.approx(2.0, abs=1e-14)


def test_the_newton_step_solves_its_system():
    """(H + tr(H) P)^{-1} g, with H not exactly of the rank that belongs to P."""
    rng = np.random.default_rng(8)
    H, P = np.empty((4, 4, 3)), np.empty((4, 4, 3))
    for n in range(3):
        frame, _ = np.linalg.qr(rng.normal(size=(4, 4)))
        H[..., n] = frame @ np.diag([3.0, 1.3, 0.1, 0.02 * n]) @ frame.T
        P[..., n] = frame[:, 2:] @ frame[:, 2:].T
    g, out = rng.normal(size=(4, 3)), np.empty((kernels.newton_rows(4), 3))
    kernels.newton(packed(H), packed(P), g, out, np.array([4]))
    for n in range(3):
        exact = np.linalg.solve(H[..., n] + np.trace(H[..., n]) * P[..., n], g[:, n])
        assert relative(out[:4, n], exact) < 1e-13


# --- matrix-free geometry ---


@pytest.fixture(scope="module")
def residuals():
    """Return a loss of rank 2 as an expression, and as three weighted residuals of a torch model."""
    torch = pytest.importorskip("torch")
    one, two = "exp(0.15*x - 0.1*w)*(y - sin(x) + 0.2*w)", "0.7*exp(0.2*y)*(z - 0.4*x**2 + 0.3*w)"

    def model(p, a):
        x, y, z, w = p
        first = torch.exp(0.15 * x - 0.1 * w) * (y - torch.sin(x) + 0.2 * w)
        second = 0.7 * torch.exp(0.2 * y) * (z - 0.4 * x**2 + 0.3 * w)
        third = 0.5 * first - 0.4 * (1 + y) * second
        return torch.where(a == 0, first + 0.7, torch.where(a == 1, second - 0.4, third + 0.1))

    plain = st.losses.from_expression(f"(({one})**2 + ({two})**2 + (0.5*{one} - 0.4*(1 + y)*{two})**2)/6", variables="x y z w")
    return plain, st.losses.from_torch_model(model, torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.7, -0.4, 0.1]), dim=4)


@pytest.mark.parametrize("which", [0, 1])
def test_matrix_free_results_agree_with_linear_systems(residuals, which):
    """For the Lanczos and the residual method."""
    plain, x = residuals[0], ON[:, 1]
    geometry = matrix_free(residuals[which], x)
    H, P, inverse, _, _, exact = by_inverses(plain, x, SIGMAS[0])
    v = np.random.default_rng(9).normal(size=(4, 3))
    assert (
        relative(geometry.project_tangent(v), P @ v) < 1e-10 and relative(geometry.project_tangent(v[:, 0]), P @ v[:, 0]) < 1e-10
    )
    assert relative(geometry.pseudo_inverse(v), inverse @ v) < 1e-10
    assert relative(geometry.second_derivative(root=ROOTS[0]), exact) < 1e-9
    column = ROOTS[0][:, 1]
    assert relative(geometry.second_derivative(root=column), by_inverses(plain, x, np.outer(column, column))[-1]) < 1e-9
    slope = P @ np.einsum("iil->l", plain.third(x))
    assert relative(geometry.trace_gradient()[0], slope) < 1e-9 and not geometry.trace_gradient()[1].any()
    assert relative(geometry.second_derivative(hessian_multiple=0.6), -0.3 * slope) < 1e-9
    assert relative(geometry.slow_drift(root=ROOTS[0], rate=0.7), 0.245 * exact) < 1e-9
    assert geometry.rank == 2 and relative(geometry.eigenvalues, np.linalg.eigvalsh(H)[::-1][:2]) < 1e-10
    assert geometry.gap > 1e9


@pytest.mark.parametrize("which", [0, 1])
def test_the_mean_over_all_probes_is_the_trace_gradient(residuals, which):
    """All sign vectors give the exact mean; the standard error has its formula."""

    class Given:
        def __init__(self, rows):
            self.rows = iter(rows)

        def choice(self, of, size):
            assert of == [-1.0, 1.0] and size == own
            return np.array(next(self.rows))

    plain, x = residuals[0], ON[:, 1]
    geometry = matrix_free(residuals[which], x)
    own = (2, 3)[which]
    signs = Given(itertools.product([1.0, -1.0], repeat=own))
    every = np.array([geometry._probe(signs) for _ in range(2**own)])
    exact = by_inverses(plain, x, np.eye(4))[1] @ np.einsum("iil->l", plain.third(x))
    assert relative(every.mean(axis=0), exact) < 1e-9 and np.abs(every[0] - every[1]).max() > 1e-3
    mean, error = geometry.trace_gradient(probes=5, seed=3)
    rng = np.random.default_rng(3)
    drawn = np.array([geometry._probe(rng) for _ in range(5)])
    assert relative(mean, drawn.sum(axis=0) / 5) < 1e-12
    assert relative(error, np.sqrt(((drawn - mean) ** 2).sum(axis=0) / 4 / 5)) < 1e-12


def test_residuals_count_as_zero_up_to_a_millionth_of_values_and_targets(residuals):
    """The scale is the largest target, .7, plus the largest value of the model, .7."""
    _, loss = residuals
    x = ON[:, 1]
    direction = np.linalg.lstsq(loss.jacobian(x), np.array([1.0, 0.3, 0.5 - 0.12 * (1 + x[1])]), rcond=None)[0]
    assert matrix_free(loss, x + 0.99 * 1.4e-6 * direction).rank == 2
    with pytest.raises(ValueError, match="all residuals 0"):
        matrix_free(loss, x + 1.01 * 1.4e-6 * direction)


@pytest.mark.parametrize(("dim", "curved", "given"), [(40, 12, None), (40, 12, 12), (14, 12, None), (40, 3, None), (9, 8, None)])
def test_lanczos_finds_all_curvatures(dim, curved, given):
    """Fewer than in its first run, more, all but one, and a given number."""
    rng = np.random.default_rng(dim)
    frame, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    values = np.concatenate([np.linspace(3.0, 0.4, curved), np.zeros(dim - curved)])
    geometry = matrix_free(st.losses.quadratic((frame * values) @ frame.T), np.zeros(dim), rank=given)
    np.testing.assert_allclose(geometry.eigenvalues, values[:curved], rtol=1e-10)
    v = rng.normal(size=dim)
    assert np.abs(geometry.project_tangent(v) - frame[:, curved:] @ (frame[:, curved:].T @ v)).max() < 1e-9


def test_a_retraction_is_the_gauss_newton_iteration():
    """From x to x - J^+ r until the residuals are rounding errors."""
    torch = pytest.importorskip("torch")
    loss = st.losses.from_torch_model(
        lambda p, a: torch.where(a == 0, p[1] - torch.sin(p[0]) + 0.2 * p[3], 0.7 * p[2] - 0.4 * p[0] ** 2 * p[1]),
        torch.tensor([0.0, 1.0]), torch.tensor([0.3, -0.2]), dim=4,
    )  # fmt: skip
    x = np.array([0.4, 0.5, 0.1, -0.3])
    y = x.copy()
    for _ in range(12):
        y = y - np.linalg.pinv(loss.jacobian(y)) @ loss.residuals(y)
    assert relative(retract(loss, x), y) < 1e-12 and np.abs(loss.residuals(y)).max() < 1e-14


def test_of_several_points_the_saddle_is_named():
    """Sin y has a minimum at -pi/2, the first point, and a maximum at pi/2, the second."""
    loss = st.losses.from_expression("sin(y) + 0*x", variables="x y")
    with pytest.raises(ValueError, match=r"at \(0, 1\.5708\) .* eigenvalues from -1 to"):
        at(loss, [[0.0, 0.0], [-np.pi / 2, np.pi / 2]])
