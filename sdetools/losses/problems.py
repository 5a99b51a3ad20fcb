r"""Over-parametrised models with a manifold of minimisers, for the slow clock: L(x) = (1/2n) sum_i (f_i(x) - y_i)^2 with formulas f_i.

On Gamma all f_i = y_i and Hess L = (1/n) sum grad f_i grad f_i^T; fresh label noise of size delta on batches of B gives Sigma = (delta^2/B) Hess L
there, `st.noise.label_noise(loss, std)`. What the gradient flow conserves is told with each. Their derivatives are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.expression import ExpressionLoss
from sdetools.losses.samples import FunctionSamples


class ModelLoss(ExpressionLoss):
    """L = (1/2n) sum_i (f_i - y_i)^2; `models` are the texts of the f_i, `targets` the y_i `(n,)`."""

    def __init__(self, models: Sequence[str], targets: Any, names: Sequence[str], label: str) -> None:
        self.models, self.targets = tuple(models), _targets(targets, len(models))
        squares = " + ".join(f"({f} - ({y!r}))**2" for f, y in zip(self.models, self.targets.tolist()))
        super().__init__(f"({squares})/{2 * len(self.models)}", tuple(names), {})
        self.label = label


def from_models(models: str | Sequence[str], targets: Any, variables: str | Sequence[str]) -> ModelLoss:
    """L = (1/2n) sum_i (f_i(x) - y_i)^2 from the formulas of the f_i and the numbers y_i. ValueError as in `from_expression`.

    >>> loss = from_models(["x*y"], [1.0], "x y")
    >>> loss.gradient([2.0, 1.0])
    array([1., 2.])
    """
    from sdetools.losses.parser import identifiers

    models = [models] if isinstance(models, str) else list(models)
    return ModelLoss(models, np.atleast_1d(targets), identifiers("variables", variables), f"{len(models)} residuals")


class DiagonalNetwork(FunctionSamples):
    """The squares of f_i = <z_i, u*u - v*v>; see `diagonal_network`."""

    def __init__(self, features: Any, targets: Any) -> None:
        z = _features(features)
        d = z.shape[1]
        super().__init__(None, (z, _targets(targets, len(z))), 2 * d, _named("u", d) + _named("v", d), _diagonal)
        self.targets, self.label = self.data[1], f"diagonal network ({len(z)} samples, {d} weights)"

    @property
    def models(self) -> tuple[str, ...]:
        """The f_i as texts."""
        rows = self.data[0].tolist()
        return tuple(" + ".join(f"{_signed(c)}*(u{j}**2 - v{j}**2)" for j, c in enumerate(row)) for row in rows)


def uv_model(n: int, target: float = 1.0) -> ModelLoss:
    """f = n^{-1/2} u . v, one sample: the vector UV model. Gamma: u . v = sqrt(n) y; the flow conserves u_i^2 - v_i^2.

    tr Hess L = (|u|^2 + |v|^2)/n, least where u = v. Source: A. Cowsik, T. Can, P. Glorioso, *Flatter, faster*.

    >>> float(uv_model(2).value([1.0, 0.0, 0.0, 1.0]))
    0.5
    """
    n = _check.count("n", n)
    model = "(" + " + ".join(f"u{i}*v{i}" for i in range(n)) + f")/{float(n) ** 0.5!r}"
    return ModelLoss([model], [_check.number("target", target)], _named("u", n) + _named("v", n), f"UV model (n={n})")


def diagonal_network(features: Any, targets: Any) -> DiagonalNetwork:
    """f_i = <z_i, u*u - v*v>, features z `(n, d)`: the flow conserves u_j v_j. A loss of samples, of which `st.noise.minibatch` takes batches.

    tr Hess L = (4/n) sum_j (sum_i z_ij^2)(u_j^2 + v_j^2): label noise takes it to the interpolating w = u^2 - v^2 of least weighted l1 norm.

    >>> loss = diagonal_network([[1.0, 2.0]], [1.0])
    >>> loss.gradient([1.0, 1.0, 1.0, 0.0]), loss.models
    (array([ 2.,  4., -2., -0.]), ('1.0*(u0**2 - v0**2) + 2.0*(u1**2 - v1**2)',))
    """
    return DiagonalNetwork(features, targets)


def _diagonal(x: Any, z: Any) -> Any:
    return z @ (x[: len(z)] ** 2 - x[len(z) :] ** 2)


def sparse_teacher(samples: int, weights: int, nonzero: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of random signs `(samples, weights)`, their targets, and the truth: `nonzero` weights of size 1, the first ones.

    >>> z, y, w = sparse_teacher(4, 6, 1)
    >>> bool((z @ w == y).all()), w.tolist()
    (True, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    """
    samples, weights = _check.count("samples", samples), _check.count("weights", weights)
    truth = np.zeros(weights)
    truth[: _check.count("nonzero", nonzero)] = 1.0
    z = np.random.default_rng(seed).choice([-1.0, 1.0], (samples, weights))
    return z, z @ truth, truth


def matrix_sensing(sensors: Any, targets: Any, rank: int) -> ModelLoss:
    """f_i = <A_i, U U^T> for symmetric sensors A `(n, d, d)` and U `(d, rank)`, by rows u00, u01, ...; U -> U O for orthogonal O keeps L.

    >>> matrix_sensing([[[1.0, 0.0], [0.0, 1.0]]], [2.0], rank=1).models
    ('1.0*(u00*u00) + 1.0*(u10*u10)',)
    """
    A, rank = _check.finite("sensors", sensors), _check.count("rank", rank)
    if A.ndim != 3 or A.shape[1] != A.shape[2]:
        raise ValueError(f"`sensors` must be matrices of shape (n, d, d); got shape {A.shape}.")
    A, d = (A + A.swapaxes(1, 2)) / 2, A.shape[1]
    models = []
    for matrix in A.tolist():
        terms = []
        for i in range(d):
            for j in range(i, d):
                value = matrix[i][j] * (1 if i == j else 2)
                if value:
                    terms.append(f"{_signed(value)}*(" + " + ".join(f"u{i}{k}*u{j}{k}" for k in range(rank)) + ")")
        models.append(" + ".join(terms) or "0*u00")
    names = tuple(f"u{i}{k}" for i in range(d) for k in range(rank))
    return ModelLoss(models, targets, names, f"matrix sensing ({len(A)} sensors, {d}x{d}, rank {rank})")


def two_layer(features: Any, targets: Any, width: int) -> ModelLoss:
    """f_i = sum_k a_k tanh(<w_k, z_i>) for features z `(n, d)`: parameters w row by row, then a.

    >>> two_layer([[1.0]], [0.5], width=1).models
    ('a0*tanh(1.0*w00)',)
    """
    z, width = _features(features), _check.count("width", width)
    d = z.shape[1]
    models = [
        " + ".join(f"a{k}*tanh(" + " + ".join(f"{_signed(c)}*w{k}{j}" for j, c in enumerate(row)) + ")" for k in range(width))
        for row in z.tolist()
    ]
    names = tuple(f"w{k}{j}" for k in range(width) for j in range(d)) + _named("a", width)
    return ModelLoss(models, targets, names, f"two-layer network ({len(z)} samples, width {width})")


def diabetes_network(samples: int = 5, features: int = 2, width: int = 3) -> ModelLoss:
    """A two-layer network on the first `samples` patients of the diabetes data, their first `features` measurements and the target standardised.

    ValueError when scikit-learn, which brings the data, is missing.

    >>> diabetes_network().dim
    9
    """
    try:
        from sklearn.datasets import load_diabetes
    except ModuleNotFoundError:
        raise ValueError(
            "the diabetes data come with scikit-learn, which is not installed; install it with pip install 'sdetools[data]'."
        ) from None
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()
    samples, features = _check.count("samples", samples), _check.count("features", features)
    if samples > len(X) or features > X.shape[1]:
        raise ValueError(f"`samples` and `features` must be at most {len(X)} and {X.shape[1]}; got {samples} and {features}.")
    return two_layer(X[:samples, :features].round(6), y[:samples].round(6), width)


def _features(features: Any) -> np.ndarray:
    z = _check.finite("features", features)
    if z.ndim != 2 or not z.size:
        raise ValueError(f"`features` must have shape (n, d), a row a sample; got shape {z.shape}.")
    return z


def _targets(targets: Any, n: int) -> np.ndarray:
    y = _check.finite("targets", targets)
    if y.shape != (n,):
        raise ValueError(f"`targets` must have shape ({n},), one a model; got shape {y.shape}.")
    return y


def _named(letter: str, n: int) -> tuple[str, ...]:
    return tuple(f"{letter}{i}" for i in range(n))


def _signed(value: float) -> str:
    return repr(value) if value >= 0 else f"({value!r})"
