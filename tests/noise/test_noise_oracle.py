"""The oracle and SVAG: exact identities, layout of the parameters, input validation."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest

from sdetools import losses, noise
from sdetools.graph.value import Trace, order
from sdetools.noise import NoisyOracle, Sign, svag

HYPERBOLA = losses.from_expression("a*(x*y - 1)**2 / 2", variables="x y", parameters={"a": 1.5})
ROOT = {"root": [["1 + b*sin(x)", "0"], ["x*y", "1"]], "variables": "x y", "parameters": {"b": 0.3}}


def test_the_oracle_is_the_gradient_plus_sigma_v():
    """Also its covariance, and another sigma in a call."""
    oracle = NoisyOracle(HYPERBOLA, noise.gaussian(**ROOT), sigma=3.0)
    x, z = np.random.default_rng(0).normal(size=(2, 2, 5))
    expected = HYPERBOLA.gradient(x) + 3.0 * oracle.noise.value(x, z)
    np.testing.assert_array_equal(oracle(x, z), expected)
    np.testing.assert_allclose(oracle.covariance(x), 9.0 * oracle.noise.covariance(x), rtol=1e-15)
    np.testing.assert_array_equal(oracle(x, z, sigma=0.0), HYPERBOLA.gradient(x))
    np.testing.assert_array_equal(oracle.with_sigma(1.0)(x, z), oracle(x, z, sigma=1.0))
    assert oracle.dim == 2 and oracle.draws == oracle.noise.draws


def test_parameters_are_sigma_then_loss_then_noise():
    """The parameters of another oracle give its gradients."""
    oracle = NoisyOracle(HYPERBOLA, noise.gaussian(**ROOT), sigma=3.0)
    assert oracle.parameters.tolist() == [3.0, 1.5, 0.3]
    assert [np.ravel(part).tolist() for part in oracle.split(oracle.parameters)] == [[3.0], [1.5], [0.3]]
    x, z = np.random.default_rng(0).normal(size=(2, 2))
    np.testing.assert_allclose(oracle(x, z, oracle.parameters), oracle(x, z), rtol=1e-15)
    other = NoisyOracle(
        losses.from_expression("a*(x*y - 1)**2 / 2", variables="x y", parameters={"a": 2.0}),
        noise.gaussian(**{**ROOT, "parameters": {"b": 0.7}}),
        sigma=5.0,
    )
    np.testing.assert_allclose(oracle(x, z, other.parameters), other(x, z), rtol=1e-15)


def test_no_noise_is_the_full_gradient():
    """Without noise there are no draws."""
    oracle = NoisyOracle(HYPERBOLA, noise.none(2), sigma=0.0)
    x = np.array([[1.0, 2.0], [0.5, 3.0]])
    np.testing.assert_array_equal(oracle(x, np.empty((0, 2))), HYPERBOLA.gradient(x))


@pytest.mark.parametrize("l", [None, 3])
def test_no_noise_costs_nothing_in_a_graph(l):
    """The graph has the operations of the gradient alone, for any sigma; a noise adds some."""
    trace = Trace()
    x, z, none = trace.input("x", (2,)), trace.input("z", (4,)), trace.input("none", (0,))

    def gradient(law, draws):
        oracle = NoisyOracle(HYPERBOLA, law, sigma=2.0)
        oracle = oracle if l is None else svag(oracle, l)
        return oracle(x, draws[: oracle.noise.n_draws], trace.uniform("p", (len(oracle.parameters),)))

    found = order([gradient(noise.none(2), none)])
    assert not [n for n in found if n.op == "input" and n.name != "x"]
    plain = order([HYPERBOLA.gradient(x, trace.uniform("p", (2,))[1:])])
    assert sorted(n.name for n in found if n.op == "map") == sorted(n.name for n in plain if n.op == "map")
    assert len(order([gradient(noise.gaussian(2), z)])) > len(found)


@pytest.mark.parametrize("l", [1, 2, 3, 16])
def test_svag_weights_and_covariance_by_enumeration(l):
    """Weights, mean and l-fold covariance over all sign vectors."""
    oracle = NoisyOracle(HYPERBOLA, noise.rademacher(**ROOT), sigma=2.0)
    big = svag(oracle, l)
    r = np.array(big.noise.weights) * math.sqrt(l)
    assert r.sum() == pytest.approx(1.0, abs=1e-14)
    assert (r**2).sum() == pytest.approx(l, rel=1e-14)
    assert big.sigma == pytest.approx(2.0 * math.sqrt(l)) and big.draws == (Sign(2), Sign(2))
    x = np.array([0.7, -1.3])
    g = np.array([big(x, np.array(s)) for s in itertools.product([-1.0, 1.0], repeat=4)])
    np.testing.assert_allclose(g.mean(axis=0), HYPERBOLA.gradient(x), atol=1e-13)
    seen = (g - g.mean(axis=0)).T @ (g - g.mean(axis=0)) / len(g)
    np.testing.assert_allclose(seen, l * oracle.covariance(x), rtol=1e-13)
    np.testing.assert_allclose(seen, big.covariance(x), rtol=1e-13)
    np.testing.assert_allclose(big.noise.covariance(x), oracle.noise.covariance(x), rtol=1e-15)


def test_svag_is_r1_g1_plus_r2_g2():
    """On two halves of the draws; at l = 1 it is the second gradient."""
    oracle = NoisyOracle(HYPERBOLA, noise.centred_exponential(**ROOT), sigma=2.0)
    x, z = np.array([0.7, -1.3]), np.array([0.1, 0.2, 0.6, 0.9])
    r1, r2 = (1 - math.sqrt(7)) / 2, (1 + math.sqrt(7)) / 2
    np.testing.assert_allclose(svag(oracle, 4)(x, z), r1 * oracle(x, z[:2]) + r2 * oracle(x, z[2:]), rtol=1e-13)
    np.testing.assert_allclose(svag(oracle, 1)(x, z), oracle(x, z[2:]), rtol=1e-14)


@pytest.mark.parametrize("l", [1, 2, 5, 40])
def test_svag_skewness_is_the_formula(l):
    """The third moment is multiplied by (3 l - 1) / (2 l^(3/2))."""
    p = 0.1
    law = noise.two_point(1, probability=p)
    big = svag(NoisyOracle(losses.from_expression("x**2/2"), law), l).noise
    third = sum(
        (p if a < p else 1 - p) * (p if b < p else 1 - p) * big.value(np.zeros(1), np.array([a, b]))[0] ** 3
        for a, b in itertools.product([p / 2, 0.9], repeat=2)
    )
    assert third == pytest.approx(law.skewness * (3 * l - 1) / (2 * l**1.5), rel=1e-12)


def test_svag_nests_and_its_structure_does_not_depend_on_l():
    """SVAG of SVAG multiplies the covariance twice; l is a parameter."""
    oracle = NoisyOracle(HYPERBOLA, noise.gaussian(**ROOT), sigma=2.0)
    assert svag(oracle, 3).noise.identity == svag(oracle, 7).noise.identity
    assert len(svag(oracle, 3).parameters) == 1 + 1 + 2 + 1
    twice = svag(svag(oracle, 3), 2)
    x = np.array([0.7, -1.3])
    assert twice.noise.n_draws == 8
    np.testing.assert_allclose(twice.covariance(x), 6 * oracle.covariance(x), rtol=1e-14)
    np.testing.assert_allclose(twice(x, np.arange(8.0), twice.parameters), twice(x, np.arange(8.0)), rtol=1e-14)
    assert twice.noise.gaussian and twice.noise.as_gaussian() is oracle.noise


def test_oracles_pickle():
    """A pickled oracle gives the same gradients."""
    oracle = svag(NoisyOracle(HYPERBOLA, noise.gaussian(**ROOT), sigma=2.0), 3)
    again = pickle.loads(pickle.dumps(oracle))
    x, z = np.array([0.7, -1.3]), np.array([0.1, 0.2, 0.6, 0.9])
    np.testing.assert_array_equal(again(x, z), oracle(x, z))
    assert "SVAG" in repr(again)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NoisyOracle("x**2", noise.gaussian(1)), "`loss` must be a loss"),
        (lambda: NoisyOracle(HYPERBOLA, 1.0), "`noise` must be a noise"),
        (lambda: NoisyOracle(HYPERBOLA, noise.gaussian(3)), "dimension of the loss, 2; got a noise of dimension 3"),
        (lambda: NoisyOracle(HYPERBOLA, noise.gaussian(2), sigma=-1.0), "0 or above"),
        (lambda: NoisyOracle(HYPERBOLA, noise.gaussian(2), sigma=math.inf), "0 or above"),
        (lambda: NoisyOracle(HYPERBOLA, noise.gaussian(2), sigma="a"), "0 or above"),
        (lambda: NoisyOracle(HYPERBOLA, noise.gaussian(2)).with_sigma(math.nan), "0 or above"),
        (lambda: NoisyOracle(HYPERBOLA, noise.gaussian(root=[["y", "0"], ["0", "x"]], variables="y x")), "order"),
        (lambda: NoisyOracle(HYPERBOLA, noise.gaussian(2))(np.zeros(2), np.zeros(3)), "must have 2 rows"),
        (lambda: svag(NoisyOracle(HYPERBOLA, noise.gaussian(2)), 0), "at least 1"),
        (lambda: svag(NoisyOracle(HYPERBOLA, noise.gaussian(2)), 1.5), "whole number"),
    ],
)
def test_invalid_arguments_are_rejected(call, message):
    """The message starts with the argument and gives the rule."""
    with pytest.raises(ValueError, match=r"^`") as error:
        call()
    assert message in str(error.value)


def test_noise_from_other_data_is_rejected():
    """Equal data in another object are accepted."""
    one, other = (losses.least_squares([[1.0], [2.0]], [0.0, t]) for t in (1.0, 2.0))
    with pytest.raises(ValueError, match="made from the loss of the oracle"):
        NoisyOracle(one, noise.minibatch(other, size=1))
    NoisyOracle(losses.least_squares([[1.0], [2.0]], [0.0, 2.0]), noise.minibatch(other, size=1))
