"""Losses of any dimension with a known cost per step, and the SGDM runs that the dimension tables measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.benchmarking.implementations import BETA, ETA

if TYPE_CHECKING:
    from sdetools.dynamics.base import Dynamics

DIMS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 10_000)


@dataclass(frozen=True)
class Problem:
    """A family of losses, one for each dimension, with its cost per step and the bound on its measured time.

    Attributes:
        name: Name in the table, such as "dense quadratic".
        data: Function d -> tuple of the arrays that the loss of dimension d needs, such as its Hessian; empty if it needs none.
        loss: Function (d, *data) -> loss of dimension d, a `losses.Loss`.
        flops: Flops of matrix products per coordinate-step (one step of one coordinate of one path), divided by the number of samples that a
            step evaluates: d, and the batch in addition. The rows of a matrix `(d, d)` count as samples.
        bound: Function d -> largest allowed ratio of the measured time to the roofline, a lower bound of the time from the machine's measured rates.
        most: Largest dimension that is measured.
        even: Whether the dimension must be even.
        batch: Batch size of minibatch noise at sigma = 2, for which a step evaluates the full gradient and the batch's; 0 for Gaussian noise at
            sigma = 1. Sigma is the factor of the noise.
    """

    name: str
    data: Callable[[int], tuple[np.ndarray, ...]]
    loss: Callable[..., Any]
    flops: float
    bound: Callable[[int], float]
    most: int = DIMS[-1]
    even: bool = False
    batch: int = 0

    def flops_at(self, dim: int) -> float:
        """Return the flops in matrix products of a coordinate-step (one step of one coordinate of one path), `flops * (dim + batch)`, at `dim`."""
        return self.flops * (dim + self.batch)

    def draws_at(self, dim: int) -> float:
        """Return the random draws per coordinate-step at dimension `dim`: 1 normal, or batch / dim uniforms, which choose the samples."""
        return self.batch / dim if self.batch else 1.0

    def dynamics(self, dim: int, *data: np.ndarray) -> Dynamics:
        """Return the SGDM that is measured in dimension `dim`, with eta = 0.01 and beta = 0.9; `data` are the arrays of the attribute `data` at `dim`."""
        return sgdm(self.loss(dim, *data), dim, self.batch)

    def takes(self, dim: int) -> bool:
        """Return whether the problem exists at dimension `dim` (an even number if `even`) and is measured there (`dim` is not above `most`)."""
        return dim <= self.most and not (self.even and dim % 2)


def symmetric(d: int) -> np.ndarray:
    """Return a dense symmetric matrix `(d, d)` with eigenvalues from 0.1 to 1 in geometric progression, the same in every call.

    It is D reflected in a random direction, (I - 2 v v^T) D (I - 2 v v^T) with D diagonal and |v| = 1; [[0.1]] for d = 1.
    """
    eigenvalues, v = np.geomspace(0.1, 1.0, d), np.random.default_rng(d).normal(size=d)
    v /= np.linalg.norm(v)
    w = eigenvalues * v - (v @ (eigenvalues * v)) * v  # (1 - 2 v v^T) D (1 - 2 v v^T) = D - 2 (v w^T + w v^T)
    H = np.outer(-2.0 * v, w)
    H += H.T.copy()
    H[np.diag_indices(d)] += eigenvalues
    return H


def regression(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random data of the diagonal network of even dimension d: features `(d, d / 2)`, entries N(0, 1/d), and targets `(d,)`, N(0, 1).

    There are d samples, the rows of the features; the data are the same in every call. The network predicts <a, u*u - v*v> for a row a, where u
    and v are the two halves of the position.
    """
    rng = np.random.default_rng(d)
    return rng.normal(size=(d, d // 2)) / d**0.5, rng.normal(size=d)


def _quadratic(d: int, H: np.ndarray) -> Any:
    import sdetools as st

    return st.losses.quadratic(H)


def _well(d: int) -> Any:
    import sdetools as st

    return st.losses.from_function(value=lambda x: np.sum(x**4 / 4 - x**2 / 2), dim=d)


def _network(d: int, features: np.ndarray, targets: np.ndarray) -> Any:
    import sdetools as st

    h = d // 2
    return st.losses.from_function(value=lambda x: np.mean((features @ (x[:h] ** 2 - x[h:] ** 2) - targets) ** 2) / 2, dim=d)


def _samples(d: int, features: np.ndarray, targets: np.ndarray) -> Any:
    import sdetools as st

    h = d // 2
    return st.losses.from_function(
        value=lambda x, a, y: (a @ (x[:h] ** 2 - x[h:] ** 2) - y) ** 2 / 2, data=(features, targets), dim=d
    )


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("dense quadratic", lambda d: (symmetric(d),), _quadratic, 2.0, lambda d: 1.25 if d in (16, 32) else 1.15),
        Problem("double well", lambda d: (), _well, 0.0, lambda d: 1.3),
        Problem("diagonal network", regression, _network, 2.0, lambda d: 1.4, most=2048, even=True),
        Problem("network, batches", regression, _samples, 2.0, lambda d: 1.4, most=2048, even=True, batch=32),
    )
}
"""Dense quadratic: x^T H x / 2. Double well: sum x_i^4 / 4 - x_i^2 / 2. Diagonal network: mean_i (<a_i, u*u - v*v> - y_i)^2 / 2 on d samples
of d / 2 features, as one value, and for batches as the value of one sample.
"""


def sgdm(loss: Any, dim: int, batch: int = 0) -> Dynamics:
    """Return SGDM (`st.SGDM`) at the benchmark's learning rate eta = 0.01 and momentum beta = 0.9.

    Args:
        loss: The loss; with `batch` it is a mean over samples, made with `data=`.
        dim: Its dimension.
        batch: 0 for isotropic Gaussian noise at sigma = 1, else the size of the batches whose noise is used, at sigma = 2.
    """
    import sdetools as st

    noise = st.noise.minibatch(loss, batch) if batch else st.noise.gaussian(dim=dim)
    return st.SGDM(st.NoisyOracle(loss, noise, 2.0 if batch else 1.0), st.schedules.constant(eta=ETA, beta=BETA))


def runner(dynamics: Dynamics, dim: int, paths: int, **more: Any) -> Callable[[int], Any]:
    """Return a function `run(steps)`, which calls `st.simulate` on one thread, with the observable x0 at the last time, and returns its result.

    Paths start at (0.5, ..., 0.5), and x0 is the first coordinate.

    Args:
        dynamics: The dynamics to run, with eta = 0.01.
        dim: Its dimension.
        paths: Number of paths.
        **more: Further arguments of `st.simulate`.
    """
    import sdetools as st

    def run(steps: int) -> Any:
        end = steps * ETA
        return st.simulate(dynamics, np.full(dim, 0.5), end, paths=paths, times=[end], observe={"x0": _first}, threads=1, **more)

    return run


def _first(x: Any) -> Any:
    return x[0]
