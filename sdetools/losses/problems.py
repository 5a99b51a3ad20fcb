"""Overparametrised models with a manifold of minimisers: L(x) = (1/2n) sum_i (f_i(x) - y_i)^2 with formulas f_i and targets y_i.

They are test problems for the slow SDE. On the manifold Gamma of minimisers all f_i = y_i and Hess L = (1/n) sum grad f_i grad f_i^T. Fresh
label noise with standard deviation delta on batches of size B, `st.noise.label_noise(loss, std)`, has Sigma = (delta^2/B) Hess L there.
Each docstring names the quantities that the gradient flow conserves. All derivatives are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._install import install_command
from sdetools.losses.expression import ExpressionLoss
from sdetools.losses.samples import FunctionSamples


class ModelLoss(ExpressionLoss):
    """The loss L = (1/2n) sum_i (f_i - y_i)^2 for n formulas f_i; build it with `from_models` or a function of this module.

    Args:
        models: The expressions of the f_i.
        targets: The y_i, `(n,)`.
        names: Names of the coordinates, in order.
        label: A short name for messages and reports.

    Attributes:
        models: The expressions of the f_i, a tuple of n texts; `st.noise.label_noise(loss)` reads them.
        targets: The y_i, an array `(n,)`.

    Raises:
        ValueError: If `targets` do not have shape `(n,)`, or a text is not a formula in the coordinates.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.uv_model(1, target=2.0)
        >>> loss.models, loss.targets, loss.names
        (('(u0*v0)/1.0',), array([2.]), ('u0', 'v0'))
    """

    def __init__(self, models: Sequence[str], targets: Any, names: Sequence[str], label: str) -> None:
        self.models, self.targets = tuple(models), _targets(targets, len(models))
        squares = " + ".join(f"({f} - ({y!r}))**2" for f, y in zip(self.models, self.targets.tolist()))
        super().__init__(f"({squares})/{2 * len(self.models)}", tuple(names), {})
        self.label = label


def from_models(models: str | Sequence[str], targets: Any, variables: str | Sequence[str]) -> ModelLoss:
    """Return the loss L(x) = (1/2n) sum_i (f_i(x) - y_i)^2 from the expressions of the f_i and the numbers y_i.

    Args:
        models: The expression of f, or a list of n expressions; their grammar is that of `from_expression`.
        targets: The y_i, `(n,)`, or one number for one model.
        variables: Names of the coordinates in order, "x y" or a list.

    Raises:
        ValueError: If there are not as many targets as models, or a text is not a formula in the coordinates.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.from_models(["x*y"], [1.0], "x y")
        >>> loss.gradient([2.0, 1.0])
        array([1., 2.])
    """
    from sdetools.losses.parser import identifiers

    models = [models] if isinstance(models, str) else list(models)
    if not models:
        raise ValueError("`models` must contain at least one expression; got none. Pass for example ['x*y'].")
    return ModelLoss(models, np.atleast_1d(targets), identifiers("variables", variables), f"{len(models)} residuals")


class DiagonalNetwork(FunctionSamples):
    """The loss (1/2n) sum_i (f_i - y_i)^2 of the models f_i = <z_i, u*u - v*v>, x = (u, v); build it with `diagonal_network`.

    Args:
        features: The z_i in rows, `(n, d)`. The 2 d coordinates are u0, u1, ..., v0, v1, ...
        targets: The y_i, `(n,)`.

    Raises:
        ValueError: If a shape is wrong or a number is not finite.
    """

    def __init__(self, features: Any, targets: Any) -> None:
        z = _features(features)
        d = z.shape[1]
        super().__init__(None, (z, _targets(targets, len(z))), 2 * d, _named("u", d) + _named("v", d), _diagonal)
        self.targets, self.label = self.data[1], f"diagonal network ({len(z)} samples, {d} weights)"

    @property
    def models(self) -> tuple[str, ...]:
        """The n models f_i as expressions in the coordinates u0, ..., v0, ..., a tuple of texts."""
        rows = self.data[0].tolist()
        return tuple(" + ".join(f"{_signed(c)}*(u{j}**2 - v{j}**2)" for j, c in enumerate(row)) for row in rows)


def uv_model(n: int, target: float = 1.0) -> ModelLoss:
    """Return the loss L = (f - y)^2 / 2 of the vector UV model f = n^{-1/2} u . v with one sample.

    On the manifold of minimisers u . v = sqrt(n) y, and the gradient flow conserves u_i^2 - v_i^2. There tr Hess L = (|u|^2 + |v|^2)/n,
    which is smallest at u = v (for y > 0). Source: A. Cowsik, T. Can, P. Glorioso, *Flatter, faster*.

    Args:
        n: Dimension of u and of v; the 2 n coordinates are u0, u1, ..., v0, v1, ...
        target: The number y that the model is fitted to.

    Raises:
        ValueError: If `n` is not a positive integer or `target` is not finite.

    Example:
        >>> import sdetools as st
        >>> float(st.losses.uv_model(2).value([1.0, 0.0, 0.0, 1.0]))
        0.5
    """
    n = _check.count("n", n)
    model = "(" + " + ".join(f"u{i}*v{i}" for i in range(n)) + f")/{float(n) ** 0.5!r}"
    return ModelLoss([model], [_check.number("target", target)], _named("u", n) + _named("v", n), f"UV model (n={n})")


def diagonal_network(features: Any, targets: Any) -> DiagonalNetwork:
    """Return the loss (1/2n) sum_i (f_i - y_i)^2 of the diagonal linear network f_i = <z_i, u*u - v*v>.

    It is a loss with data for `st.noise.minibatch`. The gradient flow conserves u_j v_j. On the manifold of minimisers tr Hess L = (4/n)
    sum_j (sum_i z_ij^2)(u_j^2 + v_j^2), so label noise drives the weights w = u^2 - v^2 towards the interpolating solution of least
    weighted l1 norm.

    Args:
        features: The z_i in rows, `(n, d)`. The 2 d coordinates are u0, u1, ..., v0, v1, ...
        targets: The y_i, `(n,)`.

    Raises:
        ValueError: If a shape is wrong or a number is not finite.

    Example:
        >>> import sdetools as st
        >>> loss = st.losses.diagonal_network([[1.0, 2.0]], [1.0])
        >>> loss.gradient([1.0, 1.0, 1.0, 0.0]), loss.models
        (array([ 2.,  4., -2., -0.]), ('1.0*(u0**2 - v0**2) + 2.0*(u1**2 - v1**2)',))
    """
    return DiagonalNetwork(features, targets)


def _diagonal(x: Any, z: Any) -> Any:
    return z @ (x[: len(z)] ** 2 - x[len(z) :] ** 2)


def sparse_teacher(samples: int, weights: int, nonzero: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return random data of a sparse linear model: features, targets and the true weights.

    Args:
        samples: Number of samples n.
        weights: Number of weights d.
        nonzero: How many of the weights, the first ones, are 1; the others are 0. At most d.
        seed: Seed of the features.

    Returns:
        A tuple `(features, targets, weights)`: features z `(n, d)` of independent random signs -1 and 1, targets z @ w `(n,)` without
        noise, and the true weights w `(d,)`.

    Raises:
        ValueError: If `samples`, `weights` or `nonzero` is not a positive integer, or `nonzero` is larger than `weights`.

    Example:
        >>> import sdetools as st
        >>> z, y, w = st.losses.sparse_teacher(4, 6, 1)
        >>> bool((z @ w == y).all()), w.tolist()
        (True, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    """
    samples, weights = _check.count("samples", samples), _check.count("weights", weights)
    truth = np.zeros(weights)
    truth[: _check.count("nonzero", nonzero, most=weights, hint="There are that many weights.")] = 1.0
    z = np.random.default_rng(seed).choice([-1.0, 1.0], (samples, weights))
    return z, z @ truth, truth


def matrix_sensing(sensors: Any, targets: Any, rank: int) -> ModelLoss:
    """Return the loss (1/2n) sum_i (f_i - y_i)^2 of symmetric matrix sensing, f_i = <A_i, U U^T>, with a matrix U `(d, rank)`.

    <A, B> = sum_ij A_ij B_ij. L is invariant under U -> U O for orthogonal O `(rank, rank)`.

    Args:
        sensors: The A_i, `(n, d, d)`; they are replaced by (A_i + A_i^T) / 2, which has the same f_i.
        targets: The y_i, `(n,)`.
        rank: Number of columns of U; the coordinates are its entries row by row, u00, u01, ... (u0_0, u0_1, ... if d or rank
            exceeds 10).

    Raises:
        ValueError: If a shape is wrong or a number is not finite.

    Example:
        >>> import sdetools as st
        >>> st.losses.matrix_sensing([[[1.0, 0.0], [0.0, 1.0]]], [2.0], rank=1).models
        ('1.0*(u00*u00) + 1.0*(u10*u10)',)
    """
    A, rank = _check.finite("sensors", sensors), _check.count("rank", rank)
    if A.ndim != 3 or A.shape[1] != A.shape[2]:
        raise ValueError(f"`sensors` must be matrices of shape (n, d, d); got shape {A.shape}.")
    A, d = (A + A.swapaxes(1, 2)) / 2, A.shape[1]
    name = _entries("u", d, rank)
    models = []
    for matrix in A.tolist():
        terms = []
        for i in range(d):
            for j in range(i, d):
                value = matrix[i][j] * (1 if i == j else 2)
                if value:
                    terms.append(f"{_signed(value)}*(" + " + ".join(f"{name(i, k)}*{name(j, k)}" for k in range(rank)) + ")")
        models.append(" + ".join(terms) or f"0*{name(0, 0)}")
    names = tuple(name(i, k) for i in range(d) for k in range(rank))
    return ModelLoss(models, targets, names, f"matrix sensing ({len(A)} sensors, {d}x{d}, rank {rank})")


def _entries(letter: str, rows: int, columns: int) -> Callable[[int, int], str]:
    """Return the function (i, j) -> name of that entry of a matrix `(rows, columns)`, "u01", or "u0_1" if an index may have two digits."""
    between = "" if max(rows, columns) <= 10 else "_"
    return lambda i, j: f"{letter}{i}{between}{j}"


def two_layer(features: Any, targets: Any, width: int) -> ModelLoss:
    """Return the loss (1/2n) sum_i (f_i - y_i)^2 of a two-layer network f_i = sum_k a_k tanh(<w_k, z_i>).

    Args:
        features: The z_i in rows, `(n, d)`.
        targets: The y_i, `(n,)`.
        width: Number of hidden units; the coordinates are the vectors w_k one after another, w00, w01, ... (w0_0, w0_1, ... if d or width
            exceeds 10), then the a_k, a0, a1, ...

    Raises:
        ValueError: If a shape is wrong or a number is not finite.

    Example:
        >>> import sdetools as st
        >>> st.losses.two_layer([[1.0]], [0.5], width=1).models
        ('a0*tanh(1.0*w00)',)
    """
    z, width = _features(features), _check.count("width", width)
    d = z.shape[1]
    name = _entries("w", width, d)
    models = [
        " + ".join(
            f"a{k}*tanh(" + " + ".join(f"{_signed(c)}*{name(k, j)}" for j, c in enumerate(row)) + ")" for k in range(width)
        )
        for row in z.tolist()
    ]
    names = tuple(name(k, j) for k in range(width) for j in range(d)) + _named("a", width)
    return ModelLoss(models, targets, names, f"two-layer network ({len(z)} samples, width {width})")


def diabetes_network(samples: int = 5, features: int = 2, width: int = 3) -> ModelLoss:
    """Return the loss of a two-layer tanh network, as in `two_layer`, on the diabetes data of scikit-learn.

    Each measurement and the target have mean 0 and variance 1 over all patients. The network has `width * (features + 1)` coordinates.

    Args:
        samples: Number of patients, the first ones of the data set.
        features: Number of measurements of a patient, the first ones of the data set.
        width: Number of hidden units.

    Raises:
        ValueError: If scikit-learn, which provides the data, is not installed, if a number is not a positive integer, or if there are not
            so many patients or measurements in the data.

    Example:
        >>> import sdetools as st
        >>> st.losses.diabetes_network().dim
        9
    """
    try:
        from sklearn.datasets import load_diabetes
    except ModuleNotFoundError:
        raise ValueError(
            f"The diabetes data are part of scikit-learn, which is not installed; install it with {install_command('data')}."
        ) from None
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()
    samples, features = _check.count("samples", samples), _check.count("features", features)
    if samples > len(X) or features > X.shape[1]:
        raise ValueError(f"`samples` and `features` must be at most {len(X)} and {X.shape[1]}; got {samples} and {features}.")
    return two_layer(X[:samples, :features].round(6), y[:samples].round(6), width)


def _features(features: Any) -> np.ndarray:
    """Return features as an array `(n, d)`; ValueError for another shape or numbers that are not finite."""
    z = _check.finite("features", features)
    if z.ndim != 2 or not z.size:
        raise ValueError(f"`features` must have shape (n, d), one row for each sample; got shape {z.shape}.")
    return z


def _targets(targets: Any, n: int) -> np.ndarray:
    """Return targets as an array `(n,)`; ValueError for another shape or numbers that are not finite."""
    y = _check.finite("targets", targets)
    if y.shape != (n,):
        raise ValueError(f"`targets` must have shape ({n},), one for each model; got shape {y.shape}.")
    return y


def _named(letter: str, n: int) -> tuple[str, ...]:
    """Return n names for a letter u: u0, u1, ..., u(n-1)."""
    return tuple(f"{letter}{i}" for i in range(n))


def _signed(value: float) -> str:
    """Return a number as text, negative ones in brackets."""
    return repr(value) if value >= 0 else f"({value!r})"
