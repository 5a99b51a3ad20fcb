"""Noise laws: exact moments, roots in their three input forms, tracing, input validation."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
from scipy.integrate import quad
from traced import EMITTERS, traced

from sdetools import noise
from sdetools.graph.value import Trace, order, value
from sdetools.noise import Normal, Sign, Uniform

FAMILIES = [
    noise.gaussian,
    noise.rademacher,
    noise.uniform,
    noise.three_point,
    noise.centred_exponential,
    noise.two_point,
    noise.student_t,
]
MATRIX = [[1.0, 0.5, 0.0], [-0.3, 2.0, 1.0]]


def function_root(x):
    """Return a root that depends on the point."""
    return [[1 + 0.3 * np.sin(x[0]), 0.0], [x[0] * x[1], 1.0]]


def ragged_root(x):
    """Return rows of different lengths."""
    return [[1.0, x[1]], [x[0]]]


def nan_root(x):
    """Return a root without a domain."""
    return [[np.log(-1 - x[0] ** 2)]]


def gallery():
    """Yield each law with each kind of root."""
    for family in FAMILIES:
        yield family(dim=2)
        yield family(root=MATRIX)
        yield family(root=[2.0, 0.5])
        yield family(covariance=[[2.0, 0.6], [0.6, 1.0]])
        yield family(root=[["1 + a*sin(x)", "0"], ["x*y", "1"]], variables="x y", parameters={"a": 0.3})
        yield family(dim=2, root=function_root)
    yield noise.none(2)
    yield noise.label_noise(model="sqrt(1 + x**2)*y", std=0.5, variables="x y")
    yield noise.label_noise(model=["x*y", "x - a*y"], std=0.5, size=2, kind="gaussian", variables="x y", parameters={"a": 3.0})


GALLERY = list(gallery())
IDS = [n.identity[:60] for n in GALLERY]


# -- the laws of one entry, exactly ------------------------------------------------------------------------------------


def cells(law, breaks):
    """Yield (probability, value) for a law that is constant between `breaks`."""
    edges = [0.0, *breaks, 1.0]
    for a, b in itertools.pairwise(edges):
        yield b - a, law.value(np.zeros(1), np.array([(a + b) / 2]))[0]


@pytest.mark.parametrize(
    ("law", "breaks", "fourth"),
    [
        (noise.three_point(1), [1 / 6, 5 / 6], 3.0),
        (noise.two_point(1, probability=0.1), [0.1], None),
        (noise.two_point(1, probability=0.7), [0.7], None),
    ],
    ids=["three", "two .1", "two .7"],
)
def test_moments_of_discrete_laws_are_exact(law, breaks, fourth):
    """By enumeration of the cells of the uniform draw."""
    moments = [sum(p * v**k for p, v in cells(law, breaks)) for k in range(5)]
    assert moments[:3] == pytest.approx([1, 0, 1], abs=1e-14)
    assert moments[3] == pytest.approx(law.skewness, abs=1e-13)
    if fourth is not None:
        assert moments[4] == pytest.approx(fourth, abs=1e-13)


def test_two_point_skewness_is_the_formula():
    """The third moment is (1 - 2p)/sqrt(p q)."""
    for p in (0.01, 0.1, 0.5, 0.9):
        assert noise.two_point(1, probability=p).skewness == pytest.approx((1 - 2 * p) / math.sqrt(p * (1 - p)), rel=1e-14)


@pytest.mark.parametrize("law", [noise.uniform(1), noise.centred_exponential(1)], ids=["uniform", "exponential"])
def test_moments_of_continuous_laws_by_quadrature(law):
    """Mean 0, variance 1, and the third moment that the law reports."""

    def moment(k):
        return quad(lambda u: law.value(np.zeros(1), np.array([u]))[0] ** k, 0, 1, epsabs=1e-11, limit=200)[0]

    assert [moment(k) for k in (1, 2, 3)] == pytest.approx([0.0, 1.0, law.skewness], abs=1e-9)


@pytest.mark.parametrize("degrees", [2.5, 5.0, 30.0])
def test_student_t_has_unit_variance_and_the_t_kurtosis(degrees):
    """By quadrature over both uniform draws."""
    law = noise.student_t(1, degrees=degrees)
    turn = (np.arange(64) + 0.5) / 64  # the periodic midpoint rule is exact for low powers of a cosine

    def moment(k):
        def inner(s):  # u = s^m smooths the singularity at 0
            u = np.full(64, s**12)
            return 12 * s**11 * (law.value(np.zeros((1, 64)), np.stack([u, turn]))[0] ** k).mean()

        return quad(inner, 0, 1, epsabs=1e-12, limit=200)[0]

    assert moment(1) == pytest.approx(0.0, abs=1e-12)
    assert moment(2) == pytest.approx(1.0, rel=1e-8)
    if degrees > 4:
        assert moment(4) == pytest.approx(3 + 6 / (degrees - 4), rel=1e-8)


def test_student_t_has_the_t_distribution():
    """Its distribution function by quadrature over the angle, P(r(u) cos(2 pi b) > t), is SciPy's."""
    from scipy.stats import t as student

    degrees, scale = 5.0, math.sqrt(3 / 5)
    for t in (0.3, 1.0, 2.5):

        def radius_tail(b, t=t):
            c = math.cos(2 * math.pi * b)
            # r > t / c  <=>  u < (1 + (t/c)^2 / (nu - 2))^(-nu/2)
            return (1 + (t / c) ** 2 / (degrees - 2)) ** (-degrees / 2) if c > 0 else 0.0

        seen = 2 * quad(radius_tail, 0, 0.25, epsabs=1e-12)[0]
        assert seen == pytest.approx(student.sf(t / scale, degrees), rel=1e-8)
        law = noise.student_t(1, degrees=degrees)
        u = radius_tail(0.1)
        assert law.value(np.zeros(1), np.array([u, 0.1]))[0] == pytest.approx(t, rel=1e-12)


# -- covariance is R R^T --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: noise.rademacher(root=MATRIX),
        lambda: noise.rademacher(dim=2, root=function_root),
        lambda: noise.rademacher(root=[["1 + 0.3*sin(x)", "0"], ["x*y", "1"]], variables="x y"),
        lambda: noise.label_noise(model=["x*y", "x - 3*y", "y**2"], std=0.5, size=2, variables="x y"),
        lambda: noise.rademacher(covariance=[[1.0, 1.0], [1.0, 1.0]]),
    ],
    ids=["matrix", "function", "expression", "labels", "degenerate"],
)
def test_covariance_by_enumeration_of_signs(make):
    """Mean 0 and the exact covariance over all sign vectors."""
    law, x = make(), np.array([0.7, -1.3])
    values = np.array([law.value(x, np.array(s)) for s in itertools.product([-1.0, 1.0], repeat=law.n_draws)])
    assert values.mean(axis=0) == pytest.approx([0.0, 0.0], abs=1e-15)
    np.testing.assert_allclose(values.T @ values / len(values), law.covariance(x), atol=1e-14)


@pytest.mark.parametrize("family", FAMILIES)
def test_covariance_does_not_depend_on_the_law(family):
    """Each law with the same root has the covariance R R^T."""
    np.testing.assert_allclose(family(root=MATRIX).covariance(np.zeros(2)), np.array(MATRIX) @ np.array(MATRIX).T, rtol=1e-14)
    x = np.random.default_rng(0).normal(size=(2, 3))
    expected = np.stack([np.array(function_root(c)) @ np.array(function_root(c)).T for c in x.T], axis=-1)
    np.testing.assert_allclose(family(dim=2, root=function_root).covariance(x), expected, rtol=1e-14)


def test_expression_and_function_roots_agree():
    """The same root as an expression and as a Python function; a named number is a parameter."""
    text = noise.gaussian(root=[["1 + a*sin(x)", "0"], ["x*y", "1"]], variables="x y", parameters={"a": 0.3})
    function = noise.gaussian(dim=2, root=function_root)
    x, z = np.random.default_rng(1).normal(size=(2, 2, 5))
    np.testing.assert_allclose(text.value(x, z), function.value(x, z), rtol=1e-15)
    assert text.parameters.tolist() == [0.3]
    np.testing.assert_allclose(text.value(x, z, p=[0.0])[0], z[0])


@pytest.mark.parametrize("covariance", [np.zeros((2, 2)), [[1.0, 1.0], [1.0, 1.0]], [4.0, 0.0], [[2.0, 0.5], [0.5, 1.0]]])
def test_singular_covariances_have_symmetric_roots(covariance):
    """The root of a singular covariance is real and symmetric."""
    law = noise.gaussian(covariance=covariance)
    wanted = np.diag(covariance) if np.ndim(covariance) == 1 else np.array(covariance)
    np.testing.assert_allclose(law.covariance(np.zeros(2)), wanted, atol=1e-15)
    root = law.root.matrix()
    np.testing.assert_allclose(root, root.T, atol=1e-15)


def test_a_number_is_a_multiple_of_the_identity():
    """For a covariance and for a root."""
    np.testing.assert_allclose(noise.gaussian(3, covariance=4.0).covariance(np.zeros(3)), 4 * np.eye(3))
    np.testing.assert_allclose(noise.gaussian(3, root=2.0).covariance(np.zeros(3)), 4 * np.eye(3))


def test_label_noise_of_a_model_is_minus_std_times_its_gradient():
    """One model, one sign."""
    law = noise.label_noise(model="sqrt(1 + x**2)*y", std=0.5, variables="x y")
    x, y = 0.8, -1.7
    gradient = np.array([x * y / math.sqrt(1 + x * x), math.sqrt(1 + x * x)])
    np.testing.assert_allclose(law.value(np.array([x, y]), np.array([1.0])), -0.5 * gradient, rtol=1e-15)
    assert law.draws == (Sign(1),) and law.parameters.tolist() == [-0.5]


def test_label_noise_with_every_label_is_the_full_batch_with_perturbed_labels():
    """At size = n the noise is the gradient of the perturbed labels."""
    models, x = ["x*y", "x - 3*y", "y**2"], np.array([0.7, -1.3])
    law = noise.label_noise(model=models, std=0.2, size=3, variables="x y")
    gradients = np.array([[x[1], x[0]], [1.0, -3.0], [0.0, 2 * x[1]]])
    signs = np.array([1.0, -1.0, 1.0])
    np.testing.assert_allclose(law.value(x, signs), -(0.2 * signs[:, None] * gradients).mean(axis=0), rtol=1e-14)


# -- one formula for numbers, rows and symbols -----------------------------------------------------------------------------


@pytest.mark.sample(5)
@pytest.mark.parametrize("law", GALLERY, ids=IDS)
def test_tracing_agrees_with_numbers_and_reads_parameters(law):
    """By each emitter, for one path and for many; other functions than NumPy's have errors of 2 ulp, and products may be fused."""
    generator = np.random.default_rng(7)
    p = law.parameters
    for paths in (1, 5):
        x, z = generator.normal(size=(2, paths)), noise.sample_draws(law.draws, generator, paths)
        for emitter in EMITTERS:
            close = {"rtol": 1e-14, "atol": 1e-16} if emitter == "numpy" else {"rtol": 1e-13, "atol": 1e-14}
            np.testing.assert_allclose(traced(emitter, law.value, x, z, p), law.value(x, z), **close)
            np.testing.assert_allclose(traced(emitter, law.covariance, x, p), law.covariance(x), **close)
            if len(p) and law.identity.startswith(("gaussian[diagonal", "gaussian[dense")):
                np.testing.assert_allclose(traced(emitter, law.value, x, z, 2 * p), 2 * law.value(x, z), **close)


def products(law):
    """Count the multiplications on one path in the graph of a noise."""
    trace = Trace()
    v = law.value(trace.input("x", (2,)), trace.input("z", (law.n_draws,)), trace.uniform("p", (len(law.parameters),)))
    return sum(n.size for n in order([value(v)]) if n.name == "multiply")


@pytest.mark.parametrize(("root", "count"), [(None, 0), ([2.0, 3.0], 2), (MATRIX, 6)])
def test_structure_determines_the_number_of_multiplications(root, count):
    """An identity needs none, a diagonal one for each coordinate."""
    assert products(noise.gaussian(dim=2) if root is None else noise.gaussian(root=root)) == count


def test_ones_and_zeros_of_a_root_are_not_multiplied():
    """Constant entries of an expression root cost nothing."""
    assert products(noise.gaussian(root=[["1", "0"], ["x", "1"]], variables="x y")) == 1


@pytest.mark.parametrize("law", GALLERY, ids=IDS)
def test_many_paths_agree_with_single_paths(law):
    """Inputs are unchanged."""
    generator = np.random.default_rng(3)
    x, z = generator.normal(size=(2, 4)), noise.sample_draws(law.draws, generator, 4)
    kept = copy.deepcopy((x, z))
    many, sigma = law.value(x, z), law.covariance(x)
    assert many.shape == (2, 4) and sigma.shape == (2, 2, 4) and len(z) == law.n_draws
    for j in range(4):
        np.testing.assert_allclose(law.value(x[:, j], z[:, j]), many[:, j], rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(law.covariance(x[:, j]), sigma[..., j], rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(z, kept[1])


@pytest.mark.parametrize("law", GALLERY, ids=IDS)
def test_pickle_preserves_identity_and_values(law):
    """Each law has a formula and a label."""
    again = pickle.loads(pickle.dumps(law))
    x, z = np.array([0.3, 0.4]), noise.sample_draws(law.draws, np.random.default_rng(0), 1)[:, 0]
    np.testing.assert_array_equal(again.value(x, z), law.value(x, z))
    assert again.identity == law.identity and again.parameters.tolist() == law.parameters.tolist()
    assert law.latex and repr(law) == law.label


@pytest.mark.parametrize("law", GALLERY, ids=IDS)
def test_the_gaussian_version_has_the_same_covariance(law):
    """It is its own Gaussian version."""
    gaussian, x = law.as_gaussian(), np.array([[0.3, 1.0], [0.4, -2.0]])
    assert gaussian.gaussian and gaussian.as_gaussian() is gaussian
    np.testing.assert_allclose(gaussian.covariance(x), law.covariance(x), rtol=1e-14)


def test_identity_is_structure_and_parameters_are_numbers():
    """Laws that differ in numbers alone share the identity, unless a number is an exponent."""
    assert noise.gaussian(covariance=[1.0, 2.0]).identity == noise.gaussian(covariance=[3.0, 2.0]).identity
    assert noise.gaussian(covariance=[1.0, 2.0]).identity != noise.gaussian(dim=2).identity
    assert noise.gaussian(dim=2).identity != noise.rademacher(dim=2).identity
    assert noise.two_point(1, probability=0.1).identity == noise.two_point(1, probability=0.2).identity
    text = [["1 + a*x**b"]]
    one, other, third = (
        noise.gaussian(root=text, variables="x", parameters=p)
        for p in ({"a": 1.0, "b": 2.0}, {"a": 5.0, "b": 2.0}, {"a": 1.0, "b": 3.0})
    )
    assert one.identity == other.identity != third.identity
    assert one.parameters.tolist() == [1.0]
    assert (
        noise.gaussian(dim=2, root=function_root).identity
        != noise.gaussian(dim=2, root=lambda x: [[1.0, 0.0], [0.0, 1.0]]).identity
    )


def test_default_names():
    """Names come from the expressions; one string is a one-dimensional root."""
    assert noise.gaussian(root=[["1 + 0.3*sin(x)"]]).names == ("x",)
    assert noise.gaussian(root=[["x1", "0"], ["0", "x0"]]).names == ("x0", "x1")
    assert noise.gaussian(root="1 + x**2").dim == 1


# -- draws, by simulation ----------------------------------------------------------------------------------------------


def worst_z(values, expected):
    """Return the largest |mean - expected| in standard errors over the rows of `values`."""
    error = values.std(axis=1) / math.sqrt(values.shape[1])
    return np.max(np.abs(values.mean(axis=1) - expected) / error)


def test_sample_moments_with_a_control():
    """Seven laws, five moments: |z| < 5 has a false-alarm rate below 35 * 6e-7 = 2e-5; a root wrong by 5 % fails."""
    generator, paths = np.random.default_rng(11), 40_000
    x = np.array([[0.5], [1.1]]) + np.zeros((2, paths))
    for family in FAMILIES:
        law = family(dim=2, root=function_root)
        v = law.value(x, noise.sample_draws(law.draws, generator, paths))
        sigma = law.covariance(x[:, 0])
        assert worst_z(v, 0) < 5
        if family in (noise.rademacher, noise.student_t):
            continue  # the square is constant, or has no fourth moment of its own variance
        products = np.stack([v[0] ** 2, v[0] * v[1], v[1] ** 2])
        expected = np.array([sigma[0, 0], sigma[0, 1], sigma[1, 1]])
        assert worst_z(products, expected) < 5
        assert worst_z(1.05**2 * products, expected) > 5


def test_sampled_draws_have_their_ranges():
    """Signs are +-1, uniforms lie in (0, 1)."""
    z = noise.sample_draws((Normal(2), Sign(3), Uniform(4)), np.random.default_rng(0), 1000)
    assert z.shape == (9, 1000)
    assert set(np.unique(z[2:5])) == {-1.0, 1.0}
    assert z[5:].min() > 0 and z[5:].max() < 1


# -- input validation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise.gaussian(), "`dim` must be given"),
        (lambda: noise.gaussian(dim=0), "`dim` must be at least 1"),
        (lambda: noise.gaussian(dim=2.5), "`dim` must be a whole number"),
        (lambda: noise.gaussian(dim=3, covariance=np.eye(2)), "covariance matrix of shape"),
        (lambda: noise.gaussian(covariance=[[1.0, 2.0], [2.0, 1.0]]), "positive semidefinite"),
        (lambda: noise.gaussian(covariance=[[1.0, 0.5], [0.2, 1.0]]), "symmetric"),
        (lambda: noise.gaussian(covariance=-1.0), "positive semidefinite"),
        (lambda: noise.gaussian(covariance=[[np.nan]]), "finite numbers"),
        (lambda: noise.gaussian(covariance=np.eye(2), root=np.eye(2)), "must not both be given"),
        (lambda: noise.gaussian(dim=3, root=MATRIX), "matrix of shape"),
        (lambda: noise.gaussian(root=[]), "matrix of shape"),
        (lambda: noise.gaussian(root=[[1.0, np.inf]]), "finite numbers"),
        (lambda: noise.gaussian(root=np.zeros((2, 2, 2))), "matrix of shape"),
        (lambda: noise.gaussian(root=[["x", "1"], ["y"]], variables="x y"), "equal length"),
        (lambda: noise.gaussian(dim=1, root=[["x", "1"], ["y", "1"]], variables="x y"), "equal length"),
        (lambda: noise.gaussian(root=[["x"]], variables="x y"), "one row for each"),
        (lambda: noise.gaussian(root=[["x.__class__"]], variables="x"), "piece"),
        (lambda: noise.gaussian(root=[["q*x"]], variables="x"), "q"),
        (lambda: noise.gaussian(root=[["log(-1 - x**2)"]], variables="x"), "must be finite"),
        (lambda: noise.gaussian(root=[["sqrt(x - 5)"]], variables="x"), "give at="),
        (lambda: noise.gaussian(root=[["a*x"]], variables="x", parameters={"a": np.nan}), "finite number"),
        (lambda: noise.gaussian(root=function_root), "`dim` must be given with a function"),
        (lambda: noise.gaussian(dim=1, root=function_root), "calling it raised IndexError"),
        (lambda: noise.gaussian(dim=3, root=function_root), "3 rows of equal length"),
        (lambda: noise.gaussian(dim=2, root=ragged_root), "2 rows of equal length"),
        (lambda: noise.gaussian(dim=1, root=nan_root), "must be finite"),
        (lambda: noise.gaussian(dim=1, root=lambda x: x[0]), "rows of equal length"),
        (lambda: noise.gaussian(dim=1, root=lambda x: [["a"]]), "numbers"),
        (lambda: noise.two_point(1, probability=0.0), "lie in (0, 1)"),
        (lambda: noise.two_point(1, probability=1.5), "lie in (0, 1)"),
        (lambda: noise.student_t(1, degrees=2.0), "above 2"),
        (lambda: noise.student_t(1, degrees=np.nan), "above 2"),
        (lambda: noise.label_noise(), "neither"),
        (lambda: noise.label_noise(model="x", std=-1.0, variables="x"), "0 or above"),
        (lambda: noise.label_noise(model="x", std=1.0, kind="cauchy", variables="x"), "rademacher"),
        (lambda: noise.label_noise(model=[], std=1.0), "expression"),
        (lambda: noise.label_noise(model="sqrt(-1 - x**2)", variables="x"), "must be finite"),
        (lambda: Normal(0), "at least 1"),
        (lambda: noise.sample_draws((3,), np.random.default_rng(0), 1), "Normal(n)"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    """The message starts with the argument and gives the rule."""
    with pytest.raises(ValueError, match=r"^`") as error:
        call()
    assert message in str(error.value)


def test_at_validates_a_root_with_a_far_domain():
    """A root that is defined at `at` only is accepted."""
    assert noise.gaussian(root=[["sqrt(x - 5)"]], variables="x", at=[6.0]).covariance(np.array([9.0])) == pytest.approx(4.0)
