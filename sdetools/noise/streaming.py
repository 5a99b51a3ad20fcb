"""Streaming least squares: the gradient of a batch of fresh Gaussian rows, with label noise.

In the eigenbasis of the covariance K = diag(lam) of the rows, with x the displacement from the minimiser, a batch of B rows a_b ~ N(0, K) with
labels of error s eps_b, eps_b ~ N(0, 1), has the gradient

    g(x) = (1/B) sum_b a_b (a_b . x + s eps_b),     E g = K x,     Cov g = (K x x^T K + (x . K x + s^2) K) / B,

and for two points on the same rows Cov(g(x), g(y)) has K y x^T K + (x . K y + s^2) K in the place of the numerator (Isserlis' theorem).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import components, numeric, spread
from sdetools.graph.value import Value
from sdetools.losses.diagonal import DiagonalQuadratic
from sdetools.noise.base import Draws, Noise, Normal, check_draws
from sdetools.noise.laws import NORMAL, RootedNoise
from sdetools.noise.oracle import NoisyOracle
from sdetools.noise.roots import Root


class StreamingNoise(Noise):
    """The noise v = g(x) - K x of a batch of fresh Gaussian rows; `streaming_least_squares` makes the oracle with its loss.

    g(x) = (1/B) sum_b a_b (a_b . x + s eps_b) with rows a_b ~ N(0, K), K = diag(lam), and eps_b ~ N(0, 1). The draws are B dim standard
    normals, dim for a_1, then dim for a_2, ..., which sqrt(lam) scales coordinate by coordinate, and after them the B numbers eps_b.

    Args:
        loss: The loss L(x) = x . K x / 2, with the spectrum lam as its `parameters`.
        label_noise: The standard deviation s of the labels, 0 or above.
        batch: The number B of rows in each step, a positive integer.

    Raises:
        ValueError: If `label_noise` or `batch` lies outside its range.

    Attributes:
        loss: The loss.
        label_noise: The standard deviation s of the labels.
        batch: The number B of rows.
        parameters: [s, sqrt(lam_1), sqrt(lam_2), ...].
        centred: 1: the oracle at sigma = 1 returns the gradient of the batch itself.

    Example:
        >>> import numpy as np, sdetools as st
        >>> noise = st.streaming_least_squares(spectrum=[4.0, 1.0], label_noise=0.5, batch=1).noise
        >>> noise.draws, noise.raw(np.array([1.0, 0.0]), np.array([1.0, 2.0, 0.0]))  # the row a = (2, 2), without label error
        ((Normal(n=2), Normal(n=1)), array([4., 4.]))
    """

    centred = 1.0
    latex = r"\frac1B \sum_b a_b\,(a_b \cdot x + s\,\epsilon_b) - K x"
    loss: DiagonalQuadratic

    def __init__(self, loss: DiagonalQuadratic, label_noise: float, batch: int) -> None:
        self.loss, self.dim = loss, loss.dim
        self.batch = _check.count("batch", batch)
        self.label_noise = _check.number("label_noise", label_noise, "be a standard deviation, 0 or above")
        if self.label_noise < 0:
            raise ValueError(f"`label_noise` must be a standard deviation, 0 or above; got label_noise={label_noise!r}.")
        self.draws: tuple[Draws, ...] = (Normal(self.batch * self.dim), Normal(self.batch))
        self.parameters = np.concatenate([[self.label_noise], np.sqrt(loss.parameters)])
        self.identity = f"streaming({self.dim}, batch={self.batch})"
        self.label = f"streaming noise, {self.batch} fresh row{'s' * (self.batch > 1)}, label noise {self.label_noise:g}"

    def raw(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return the gradient of the batch, (1/B) X^T (X x + s eps), `(dim,)` or `(dim, paths)`, for the matrix X of the B rows.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            z: Standard normal draws, `(B dim + B,)` or with the paths of `x`: those of X row by row, then the B of the labels, eps.
            p: [s, sqrt(lam_1), sqrt(lam_2), ...]; None for `parameters`.
        """
        x, z = numeric(x), numeric(z)
        p, own = self.parameters if p is None else p, self.batch * self.dim
        if not isinstance(z, Value):
            x = spread(x, z)
        rows = z[:own].reshape(self.batch, self.dim, *z.shape[1:])  # of unit variance
        roots = spread(p[1:], z)
        residuals = (rows * (roots * x)).sum(axis=1) + p[0] * z[own:]
        return roots * (residuals[:, None] * rows).sum(axis=0) / self.batch

    def value(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return v = raw(x, z, p) - K x, `(dim,)` or `(dim, paths)`; ValueError if `z` does not have one row for each draw.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            z: Standard normal draws, `(B dim + B,)` or with the paths of `x`: those of the B rows, then those of the labels.
            p: [s, sqrt(lam_1), sqrt(lam_2), ...]; None for `parameters`.
        """
        raw = self.raw(x, check_draws(z, self), p)
        roots = spread(self.parameters[1:] if p is None else p[1:], raw)
        return raw - roots * roots * spread(numeric(x), raw)

    def covariance(self, x: Any, p: Any = None) -> Any:
        """Return (K x x^T K + (x . K x + s^2) K) / B: `(dim, dim)`, or `(dim, dim, paths)` for points `x` `(dim, paths)`.

        K = diag(lam) is the covariance of the rows, s the standard deviation of the labels. `p` is [s, sqrt(lam_1), ...]; None for `parameters`.
        """
        p, x = self.parameters if p is None else p, numeric(x)
        lam = spread(p[1:] * p[1:], x)
        pull = lam * x
        level = (pull * x).sum(axis=0) + p[0] * p[0]
        return (
            pull[:, None] * pull[None] + np.eye(self.dim).reshape(self.dim, self.dim, *(1,) * (x.ndim - 1)) * (lam * level)
        ) / (self.batch)

    def as_gaussian(self) -> RootedNoise:
        """Return the Gaussian noise with the same covariance at each point; it consumes dim + 1 normal draws."""
        return RootedNoise(NORMAL, StreamingRoot(self.dim, self.batch, self.parameters))


@dataclass(frozen=True, eq=False, repr=False)
class StreamingRoot(Root):
    """The root R(x) = [K x, sqrt(x . K x + s^2) K^(1/2)] / sqrt(B) of the covariance of `StreamingNoise`, `(dim, dim + 1)`.

    K = diag(lam) is the covariance of the rows, and s the standard deviation of the labels.

    Args:
        dim: Number of coordinates.
        batch: The number B of rows in each step.
        parameters: [s, sqrt(lam_1), sqrt(lam_2), ...].

    Attributes:
        rank: Number of columns, dim + 1.
    """

    dim: int
    batch: int
    parameters: np.ndarray
    rank: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", self.dim + 1)

    @property
    def identity(self) -> str:
        return f"streaming({self.dim}, batch={self.batch})"

    @property
    def latex(self) -> str:
        return r"R(x)\,"

    def _parts(self, x: Any, p: Any) -> tuple[Any, Any]:
        """Return K x / sqrt(B) and the diagonal sqrt((x . K x + s^2) lam / B), each `(dim,)` or `(dim, paths)`."""
        x = numeric(x)
        roots = spread(p[1:], x)
        scaled = roots * x
        level = np.sqrt((scaled * scaled).sum(axis=0) + p[0] * p[0])
        return roots * scaled / self.batch**0.5, roots * level / self.batch**0.5

    def entries(self, x: Any, p: Any) -> Sequence[Sequence[Any]]:
        """Return R(x) as `dim` lists of dim + 1 entries: numbers for `x` `(dim,)`, arrays `(paths,)` for `(dim, paths)`, or traced values.

        `p` is [s, sqrt(lam_1), ...]; unlike in a noise, None is not allowed.
        """
        pull, diagonal = self._parts(x, p)
        return [[pull[i], *(diagonal[i] if i == j else 0.0 for j in range(self.dim))] for i in range(self.dim)]

    def times(self, u: Any, x: Any, p: Any) -> Any:
        """Return R(x) u in the shape of the points `x`, `(dim,)` or `(dim, paths)`, for `u` `(dim + 1,)`, `(dim + 1, paths)` or a list of its rows.

        `p` is [s, sqrt(lam_1), ...]; unlike in a noise, None is not allowed.
        """
        pull, diagonal = self._parts(x, p)
        if isinstance(u, (list, tuple)):
            return components([pull[i] * u[0] + diagonal[i] * u[i + 1] for i in range(self.dim)], x)
        return pull * u[0] + diagonal * u[1:]


def streaming_least_squares(spectrum: Any, label_noise: float = 0.0, batch: int = 1) -> NoisyOracle:
    """Return the oracle of streaming least squares: every step sees `batch` fresh rows a ~ N(0, diag(lam)), with noisy labels.

    Coordinates are those of the eigenbasis of the rows' covariance, and x is the displacement from the minimiser. So the loss is the excess
    risk 1/2 sum_i lam_i x_i^2, and the stochastic gradient is g(x) = (1/B) sum_b a_b (a_b . x + s eps_b) with eps_b ~ N(0, 1). All
    gradients of one step see the same rows. The expected loss of any linear rule on it is exact: `st.exact.risk`.

    Args:
        spectrum: The eigenvalues lam_i of the rows' covariance, `(dim,)`, 0 or above.
        label_noise: The standard deviation s of the labels (not its square), 0 or above.
        batch: The number B of rows in each step.

    Returns:
        The oracle, with sigma = 1. Another sigma, and `st.svag`, scale the deviation from the full gradient as for any oracle.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> oracle = st.streaming_least_squares(spectrum=[2.0, 1.0], label_noise=0.5, batch=4)
        >>> oracle
        NoisyOracle(diagonal quadratic(dim=2), streaming noise, 4 fresh rows, label noise 0.5, sigma=1)
        >>> oracle.covariance([1.0, 0.0])
        array([[2.125 , 0.    ],
               [0.    , 0.5625]])
    """
    loss = DiagonalQuadratic(spectrum)
    return NoisyOracle(loss, StreamingNoise(loss, label_noise, batch))
