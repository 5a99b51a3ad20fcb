"""Noise given by a function: correct laws pass, wrong moments and shapes are rejected."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sdetools import noise
from sdetools.noise import Normal, Sign, Uniform


def product_law(x, z):
    """Return a sign times a normal, scaled by the point, and a sign."""
    return [(1 + x[0] ** 2) * z[0] * z[1], z[1]]


def product_covariance(x):
    """Return the covariance of `product_law`."""
    return [[(1 + x[0] ** 2) ** 2, 0.0], [0.0, 1.0]]


def make(**changes):
    """Return the noise of `product_law` with some arguments replaced."""
    given = {"value": product_law, "dim": 2, "draws": (Normal(1), Sign(1)), "covariance": product_covariance}
    return noise.from_function(**{**given, **changes})


def test_a_correct_law_passes_on_one_path_and_on_many():
    """Values and covariances on many paths are those of each path."""
    law = make()
    x, z = np.random.default_rng(0).normal(size=(2, 2, 4))
    assert law.value(x, z).shape == (2, 4) and law.covariance(x).shape == (2, 2, 4)
    np.testing.assert_array_equal(law.value(x, z)[:, 1], law.value(x[:, 1], z[:, 1]))
    np.testing.assert_array_equal(law.covariance(x)[..., 1], law.covariance(x[:, 1]))
    assert law.state_dependent and not law.gaussian and law.n_draws == 2
    assert pickle.loads(pickle.dumps(law)).identity == law.identity


def test_a_constant_covariance_has_a_gaussian_version():
    """A covariance that is a function has none."""
    law = noise.from_function(lambda x, z: [z[0], 0.0], 2, Sign(1), [1.0, 0.0], state_dependent=False)
    assert law.covariance(np.zeros((2, 3))).shape == (2, 2, 3)
    np.testing.assert_allclose(law.as_gaussian().covariance(np.zeros(2)), np.diag([1.0, 0.0]))
    with pytest.raises(ValueError, match="square root"):
        make().as_gaussian()


def test_identity_depends_on_the_code_and_its_closure():
    """Another enclosed number is another noise."""

    def scaled(s):
        return noise.from_function(lambda x, z: [s * z[0]], 1, Sign(1), s * s)

    assert scaled(2.0).identity != scaled(3.0).identity
    assert scaled(2.0).identity == scaled(2.0).identity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": lambda x, z: [z[0] + 0.05, z[1]], "covariance": np.eye(2)}, "mean zero"),
        ({"covariance": lambda x: [[1.05 * (1 + x[0] ** 2) ** 2, 0.0], [0.0, 1.0]]}, "that of `value`"),
        ({"covariance": lambda x: [[(1 + x[0] ** 2) ** 2, 0.1], [0.1, 1.0]]}, "that of `value`"),
        ({"covariance": lambda x: [[1.0, 0.0]]}, "2 rows of 2"),
        ({"covariance": lambda x: 1.0}, "2 rows of 2"),
        ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "semidefinite"),
        ({"covariance": np.eye(3)}, "shape"),
        ({"value": lambda x, z: [z[0]]}, "2 components"),
        ({"value": lambda x, z: z[0]}, "2 components"),
        ({"value": lambda x, z: None}, "got None"),
        ({"value": lambda x, z: [z[0], z[7]]}, "IndexError"),
        ({"value": lambda x, z: [np.log(-1 - z[0] ** 2), z[1]]}, "finite"),
        ({"value": 3.0}, "function of (x, z)"),
        ({"draws": 3}, "Normal(n)"),
        ({"draws": ()}, "Normal(n)"),
        ({"dim": 0}, "at least 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_invalid_arguments_are_rejected(changes, message):
    """The message starts with the argument and gives the rule."""
    with pytest.raises(ValueError, match=r"^`") as error:
        make(**changes)
    assert message in str(error.value)


def test_the_validation_can_be_skipped_or_moved():
    """A law with a far domain is validated at a point of it."""
    wrong = noise.from_function(lambda x, z: [z[0] + 1], 1, Uniform(1), 1.0, check=False)
    assert wrong.value(np.zeros(1), np.zeros(1)) == 1.0
    noise.from_function(lambda x, z: [np.sqrt(x[0] - 5) * z[0]], 1, Normal(1), lambda x: [[x[0] - 5]], at=[9.0])


@pytest.mark.slow
def test_a_covariance_in_many_dimensions_is_checked():
    """In 600 coordinates, of which 512 are compared: a wrong entry of most coordinates is noticed, a right covariance accepted."""
    d = 600
    scale = 1 + 0.1 * (np.arange(d) % 2)[:, None]

    def value(x, z):
        return (z - 0.5) * np.sqrt(12.0) * (scale if np.ndim(z) > 1 else scale[:, 0])

    given = dict(dim=d, draws=noise.Uniform(d), state_dependent=False)
    noise.from_function(value, covariance=np.diag(scale[:, 0] ** 2), **given)
    with pytest.raises(ValueError, match=r"`covariance` must be that of `value`; got 1 in entry \(\d*[13579], \d*[13579]\)"):
        noise.from_function(value, covariance=np.eye(d), **given)
