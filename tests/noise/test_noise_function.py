"""The function door: right laws pass, wrong moments and shapes are refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sdetools import noise
from sdetools.noise import Normal, Sign, Uniform


def product_law(x, z):
    """A sign times a normal, scaled by the point."""
    return [(1 + x[0] ** 2) * z[0] * z[1], z[1]]


def product_covariance(x):
    return [[(1 + x[0] ** 2) ** 2, 0.0], [0.0, 1.0]]


def make(**changes):
    given = {"value": product_law, "dim": 2, "draws": (Normal(1), Sign(1)), "covariance": product_covariance}
    return noise.from_function(**{**given, **changes})


def test_a_right_law_passes_and_speaks_both_layouts():
    law = make()
    x, z = np.random.default_rng(0).normal(size=(2, 2, 4))
    assert law.value(x, z).shape == (2, 4) and law.covariance(x).shape == (2, 2, 4)
    np.testing.assert_array_equal(law.value(x, z)[:, 1], law.value(x[:, 1], z[:, 1]))
    np.testing.assert_array_equal(law.covariance(x)[..., 1], law.covariance(x[:, 1]))
    assert law.state_dependent and not law.gaussian and law.n_draws == 2
    assert pickle.loads(pickle.dumps(law)).identity == law.identity


def test_a_constant_covariance_has_a_gaussian_version():
    law = noise.from_function(lambda x, z: [z[0], 0.0], 2, Sign(1), [1.0, 0.0], state_dependent=False)
    assert law.covariance(np.zeros((2, 3))).shape == (2, 2, 3)
    np.testing.assert_allclose(law.as_gaussian().covariance(np.zeros(2)), np.diag([1.0, 0.0]))
    with pytest.raises(ValueError, match="square root"):
        make().as_gaussian()


def test_identity_follows_the_code_and_its_closure():
    def scaled(s):
        return noise.from_function(lambda x, z: [s * z[0]], 1, Sign(1), s * s)

    assert scaled(2.0).identity != scaled(3.0).identity
    assert scaled(2.0).identity == scaled(2.0).identity


@pytest.mark.parametrize(
    ("changes", "words"),
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
def test_wrong_input_is_refused_in_words(changes, words):
    with pytest.raises(ValueError, match=r"^`") as error:
        make(**changes)
    assert words in str(error.value)


def test_the_check_can_be_left_out_and_moved():
    wrong = noise.from_function(lambda x, z: [z[0] + 1], 1, Uniform(1), 1.0, check=False)
    assert wrong.value(np.zeros(1), np.zeros(1)) == 1.0
    noise.from_function(lambda x, z: [np.sqrt(x[0] - 5) * z[0]], 1, Normal(1), lambda x: [[x[0] - 5]], at=[9.0])
