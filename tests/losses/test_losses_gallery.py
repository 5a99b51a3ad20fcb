"""Test problems and quadratic losses: values by hand, finite differences, packing of parameters, traced formulas."""

import pickle
from itertools import permutations

import numpy as np
import pytest
from traced import EMITTERS, traced

from sdetools.losses import (
    DiagonalQuadratic,
    Loss,
    double_well,
    exponential_valley,
    from_expression,
    hyperbola,
    label_noise_valley,
    linear,
    quadratic,
    sphere,
)

pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(7)


def symmetric(dim):
    """Return a random positive definite matrix."""
    a = np.random.default_rng(dim).standard_normal((dim, dim))
    return a @ a.T / dim + np.eye(dim)


LOSSES = {
    "diagonal": DiagonalQuadratic([2.0, 0.5, 0.0]),
    "double_well": double_well(),
    "hyperbola": hyperbola(),
    "exponential_valley": exponential_valley(0.7),
    "sphere": sphere(4),
    "label_noise_valley": label_noise_valley(),
    "quadratic": quadratic(symmetric(3), center=[1.0, 0.0, -2.0]),
    "quadratic_large": quadratic(symmetric(20), center=np.arange(20.0)),
    "quadratic_number": quadratic(2.5),
    "linear": linear([1.0, -2.0, 0.0]),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_derivatives_against_differences(loss):
    """Each derivative is the central difference of the one before; contractions are those of the dense tensors."""
    h = 6e-6
    for x in np.random.default_rng(1).standard_normal((3, loss.dim)):
        steps = h * np.eye(loss.dim)
        for lower, upper in ((loss.value, loss.gradient), (loss.gradient, loss.hessian), (loss.hessian, loss.third)):
            numeric = np.stack([(lower(x + s) - lower(x - s)) / (2 * h) for s in steps])
            exact = upper(x)
            # eps^(2/3) = 4e-11 times scales up to a few hundred, with room for the third derivative's constant
            np.testing.assert_allclose(exact, numeric, atol=1e-7 * max(1, np.abs(exact).max()))
        third = loss.third(x)
        assert all(np.array_equal(third, third.transpose(o)) for o in permutations(range(3)))
        M = symmetric(loss.dim)
        np.testing.assert_allclose(loss.third_contracted(x, M), np.einsum("ijl,ij->l", third, M), atol=1e-12)
        np.testing.assert_allclose(loss.hessian_product(x, M[0]), loss.hessian(x) @ M[0], rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_contract(loss):
    """Shapes, one path and many, contractions, unchanged inputs, pickling, parameters."""
    assert isinstance(loss, Loss) and len(loss.names) == loss.dim
    assert loss.latex and loss.label and repr(loss) and loss.parameters.ndim == 1
    x = RNG.standard_normal((loss.dim, 5))
    before, d = x.copy(), loss.dim
    v, M = RNG.standard_normal((d, 5)), RNG.standard_normal((d, d, 5))
    calls = {
        loss.value: (),
        loss.gradient: (d,),
        loss.hessian: (d, d),
        loss.third: (d, d, d),
        lambda x: loss.hessian_product(x, v[:, 0]): (d,),
        lambda x: loss.third_contracted(x, M[..., 0]): (d,),
    }
    for call, shape in calls.items():
        many = call(x)
        assert many.shape == (*shape, 5)
        for j in range(5):
            np.testing.assert_allclose(many[..., j], call(x[:, j]), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(loss.hessian_product(x, v)[:, 2], loss.hessian(x[:, 2]) @ v[:, 2], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(loss.hessian_product(x[:, 0], v)[:, 2], loss.hessian(x[:, 0]) @ v[:, 2], rtol=1e-12, atol=1e-12)
    expected = np.einsum("ijl,ij->l", loss.third(x[:, 2]), M[..., 2])
    np.testing.assert_allclose(loss.third_contracted(x, M)[:, 2], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(x, before)
    again = pickle.loads(pickle.dumps(loss))
    assert again.identity == loss.identity and "\n" not in loss.identity
    np.testing.assert_array_equal(again.gradient(x), loss.gradient(x))
    np.testing.assert_allclose(loss.gradient(x, p=loss.parameters.copy()), loss.gradient(x), rtol=1e-15)


def test_identities_differ():
    """Losses with other numbers have other identities."""
    identities = [loss.identity for loss in LOSSES.values()]
    assert len(set(identities)) == len(identities)
    assert exponential_valley(1.0).identity != exponential_valley(2.0).identity
    assert quadratic(1.0).identity == quadratic([[1.0]]).identity != quadratic(1.0, center=1.0).identity


def test_values_by_hand():
    """Derivatives of the test problems at single points."""
    assert double_well().gradient([2.0]).item() == 6 and double_well().hessian([2.0]).item() == 11
    assert double_well().third([2.0]).item() == 12 and double_well().names == ("x",)
    valley = exponential_valley(2.0)
    assert valley.third([0.0, 1.0])[0, 1, 1] == 2 and valley.third([0.0, 1.0])[0, 0, 0] == 4
    assert valley.parameters.tolist() == [2.0]
    assert label_noise_valley().hessian([1.0, 0.0]).tolist() == [[0, 0], [0, 2]]
    x = np.array([0.6, 0.0, 0.8])
    np.testing.assert_allclose(sphere(3).hessian(x), 2 * np.outer(x, x), atol=1e-15)
    np.testing.assert_allclose(sphere(3).gradient(x), 0, atol=1e-15)


def test_quadratic_by_hand():
    """Values, the quadratic form, and the forms in which H may be given."""
    loss = quadratic([[2.0, 1.0], [1.0, 4.0]], center=[1.0, 0.0])
    assert loss.value([2.0, 1.0]) == 4 and loss.gradient([2.0, 1.0]).tolist() == [3.0, 5.0]
    H, c, level = loss.quadratic()
    assert (H.tolist(), c.tolist(), level) == ([[2, 1], [1, 4]], [-2, -1], 1.0)
    assert loss.minimiser().tolist() == [1.0, 0.0]
    assert quadratic([1.0, 2.0], center=3.0).gradient([4.0, 4.0]).tolist() == [1.0, 2.0]
    assert quadratic(2.0, center=[0.0, 1.0, 2.0]).hessian([0.0] * 3).tolist() == (2 * np.eye(3)).tolist()
    assert quadratic(1.0, names="x").names == ("x",)


def test_linear_by_hand():
    """Values, the quadratic form, and no minimiser."""
    loss = linear([1.0, -2.0])
    assert loss.value([3.0, 1.0]) == 1 and loss.quadratic()[1].tolist() == [1, -2] and loss.parameters.tolist() == [1, -2]
    with pytest.raises(ValueError, match="bounded below"):
        loss.minimiser()
    with pytest.raises(ValueError, match="bounded below"):
        quadratic([1.0, -1.0]).minimiser()


@pytest.mark.parametrize("loss", [LOSSES["quadratic"], LOSSES["quadratic_large"], linear([1.0, 0.0])])
def test_quadratic_form_is_the_loss(loss):
    """The loss is x^T H x / 2 + c^T x + L0 with the results of `quadratic`."""
    H, c, level = loss.quadratic()
    x = RNG.standard_normal(loss.dim)
    assert loss.value(x) == pytest.approx(x @ H @ x / 2 + c @ x + level, rel=1e-12)
    np.testing.assert_allclose(loss.gradient(x), H @ x + c, rtol=1e-11, atol=1e-11)


def test_only_nonzero_entries_are_parameters():
    """Other numbers in the same places make another loss of the same form."""
    loss = quadratic([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.0, 4.0]], center=[0.0, 5.0, 0.0])
    assert loss.parameters.tolist() == [2, 1, 3, 4, 5]
    other = quadratic([[7.0, 0.0, 2.0], [0.0, 8.0, 0.0], [2.0, 0.0, 9.0]], center=[0.0, 6.0, 0.0])
    x = RNG.standard_normal((3, 4))
    for method in ("value", "gradient", "hessian"):
        np.testing.assert_array_equal(getattr(loss, method)(x, other.parameters), getattr(other, method)(x))


def test_quadratic_runs_on_symbols():
    """Gradient and value are those of SymPy, with symbols for the point and the parameters."""
    sympy = pytest.importorskip("sympy")
    loss = quadratic([[2.0, 1.0], [1.0, 4.0]], center=[1.0, 0.0])
    x = np.array(sympy.symbols("x y"), dtype=object)
    p = np.array(sympy.symbols("a b c d"), dtype=object)
    a, b, c, d = p
    gradient = loss.gradient(x, p)
    assert sympy.expand(gradient[0] - (a * (x[0] - d) + b * x[1])) == 0
    assert sympy.expand(gradient[1] - (b * (x[0] - d) + c * x[1])) == 0
    assert [sympy.expand(sympy.diff(loss.value(x, p), s) - g) for s, g in zip(x, gradient, strict=True)] == [0, 0]
    plain = from_expression("x0**2 + x0*x1 + 2*x1**2 - 2*x0 - x1 + 1")
    assert all(sympy.expand(u - v) == 0 for u, v in zip(loss.gradient(x), plain.gradient(x), strict=True))


@pytest.mark.parametrize("emitter", EMITTERS)
@pytest.mark.parametrize("lanes", [1, 7, 64])
def test_large_quadratics_are_traced_as_matrix_products(emitter, lanes):
    """A large H has no parameters; value and gradient agree with NumPy."""
    loss = LOSSES["quadratic_large"]
    assert loss.parameters.size == 0
    H, c = symmetric(20), np.arange(20.0)[:, None]
    x = np.random.default_rng(lanes).standard_normal((20, lanes))
    before = x.copy()
    gradient, value = traced(emitter, loss.gradient, x), traced(emitter, loss.value, x)
    np.testing.assert_allclose(gradient, loss.gradient(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(value, loss.value(x), rtol=1e-12)
    np.testing.assert_allclose(gradient, H @ (x - c), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(value, np.einsum("ij,ik,kj->j", x - c, H, x - c) / 2, rtol=1e-12)
    np.testing.assert_array_equal(x, before)
    assert not traced(emitter, loss.gradient, np.repeat(c, lanes, axis=1)).any()


@pytest.mark.sample(20)
@pytest.mark.parametrize("emitter", EMITTERS)
@pytest.mark.parametrize("name", LOSSES)
def test_problems_are_traced_with_their_parameters(name, emitter):
    """One path and many, and other values of the parameters."""
    loss = LOSSES[name]
    for paths in (1, 5):
        x = np.random.default_rng(paths).uniform(-1, 1, (loss.dim, paths))
        for p in (loss.parameters, 1.5 * loss.parameters):
            for method in (loss.value, loss.gradient):
                np.testing.assert_allclose(traced(emitter, method, x, p), method(x, p), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "arguments",
    [
        ([[1.0, 2.0], [0.0, 1.0]],),
        ([[1.0, 2.0, 3.0]],),
        ([1.0, 2.0], [1.0, 2.0, 3.0]),
        ([[np.nan]],),
        (1.0, [np.inf]),
        ("a",),
        (np.zeros((0, 0)),),
        (np.zeros((1, 1, 1)),),
        (np.eye(2), [[0.0, 0.0]]),
        ([[1.0]], [1.0, 2.0]),
    ],
)
def test_invalid_quadratics_are_rejected(arguments):
    """The message names `H` or `center`."""
    with pytest.raises(ValueError, match=r"`(H|center)`"):
        quadratic(*arguments)


def test_invalid_arguments_of_the_problems_are_rejected():
    """Each invalid argument raises ValueError."""
    for call in (lambda: linear([[1.0]]), lambda: linear([]), lambda: linear([np.nan]), lambda: sphere(0), lambda: sphere(1.5)):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError, match="`c`"):
        exponential_valley(np.inf)
    with pytest.raises(ValueError, match="`names`"):
        quadratic(np.eye(2), names=["a", "a"])


def test_importing_losses_loads_no_heavy_package():
    """The import of the package loads neither SymPy nor Numba nor SciPy."""
    import subprocess
    import sys

    code = "import sys, sdetools.losses as l; l.Loss, l.Stage; print({'sympy', 'numba', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_every_public_name_exists():
    """Each name of `__all__` has a docstring; others raise AttributeError."""
    import sdetools.losses as losses

    for name in losses.__all__:
        assert getattr(losses, name).__doc__
    assert set(dir(losses)) >= set(losses.__all__)
    with pytest.raises(AttributeError):
        losses.nothing  # noqa: B018


@pytest.mark.parametrize("i, j", [(299, 5), (5, 299), (130, 129), (127, 128), (298, 299)])
def test_an_asymmetry_is_detected_in_every_tile(i, j):
    """One entry of a large matrix is changed, on the borders of tiles too."""
    H = symmetric(300)
    assert (quadratic(H).matrix == H).all()
    H[i, j] += 0.25
    with pytest.raises(ValueError, match="largest asymmetry is 0.25"):
        quadratic(H)


def test_a_quadratic_copies_its_matrix():
    """A later change of the argument does not change the loss."""
    H = symmetric(20)
    kept, before = quadratic(H), H.copy()
    H += 1.0
    assert (kept.matrix == before).all()
