"""Losses of any dimension whose cost at every step is known, and the SGDM that the tables of the dimension run on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools.benchmarking.ways import BETA, ETA

if TYPE_CHECKING:
    from sdetools.dynamics.base import Dynamics

DIMS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 10_000)


@dataclass(frozen=True)
class Problem:
    """`data(d)` and the loss made of them; `flops` of matrix products for each coordinate-step and sample, of which there are d; `bound` of
    measured ns over the roofline's at a dimension; the largest `most` dimension that is measured, and whether it must be even. With a `batch`
    the noise is that of so many samples at sigma = 2, so that a step takes the full gradient and the batch's; else it is Gaussian."""

    name: str
    data: Callable[[int], tuple[np.ndarray, ...]]
    loss: Callable[..., Any]
    flops: float
    bound: Callable[[int], float]
    most: int = DIMS[-1]
    even: bool = False
    batch: int = 0

    def flops_at(self, dim: int) -> float:
        """Flops of a coordinate-step."""
        return self.flops * (dim + self.batch)

    def draws_at(self, dim: int) -> float:
        """Draws of a coordinate-step: a normal, or uniforms for the samples."""
        return self.batch / dim if self.batch else 1.0

    def dynamics(self, dim: int, *data: np.ndarray) -> Dynamics:
        """The SGDM that is measured, from the problem's data."""
        return sgdm(self.loss(dim, *data), dim, self.batch)

    def takes(self, dim: int) -> bool:
        return dim <= self.most and not (self.even and dim % 2)


def symmetric(d: int) -> np.ndarray:
    """A dense matrix `(d, d)` of eigenvalues from 0.1 to 1: a diagonal one, reflected in a random direction."""
    eigenvalues, v = np.geomspace(0.1, 1.0, d), np.random.default_rng(d).normal(size=d)
    v /= np.linalg.norm(v)
    w = eigenvalues * v - (v @ (eigenvalues * v)) * v  # (1 - 2 v v^T) D (1 - 2 v v^T) = D - 2 (v w^T + w v^T)
    H = np.outer(-2.0 * v, w)
    H += H.T.copy()
    H[np.diag_indices(d)] += eigenvalues
    return H


def regression(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal features `(d, d / 2)` and targets `(d,)`."""
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
"""x^T H x / 2; sum x_i^4 / 4 - x_i^2 / 2; mean_i (<a_i, u*u - v*v> - y_i)^2 / 2 on d samples of d / 2 features, as one value and as that of
a sample."""


def sgdm(loss: Any, dim: int, batch: int = 0) -> Dynamics:
    """SGDM with isotropic Gaussian noise, or that of a batch at sigma = 2."""
    import sdetools as st

    noise = st.noise.minibatch(loss, batch) if batch else st.noise.gaussian(dim=dim)
    return st.SGDM(st.NoisyOracle(loss, noise, 2.0 if batch else 1.0), st.schedules.constant(eta=ETA, beta=BETA))


def runner(dynamics: Dynamics, dim: int, paths: int, **more: Any) -> Callable[[int], Any]:
    """`run(steps)` through `st.simulate` on one thread, with one recorded time and one observable; `more` arguments go there too."""
    import sdetools as st

    def run(steps: int) -> Any:
        end = steps * ETA
        return st.simulate(dynamics, np.full(dim, 0.5), end, paths=paths, times=[end], observe={"x0": _first}, threads=1, **more)

    return run


def _first(x: Any) -> Any:
    return x[0]
