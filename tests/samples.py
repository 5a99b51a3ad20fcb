"""Losses of samples, each one formula for NumPy and torch, with reference losses of single samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RNG = np.random.default_rng(4)
N, D, H = 40, 3, 2
FEATURES, TARGETS = RNG.normal(size=(N, D)), RNG.normal(size=N)


def diagonal(m):
    """The loss (<a, u*u - v*v> - y)^2 / 2 of a diagonal network."""
    return lambda x, a, y: (a @ (x[:D] ** 2 - x[D:] ** 2) - y) ** 2 / 2


def network(m):
    """The loss of two layers: H tanh units with thresholds."""
    return lambda x, a, y: (m.tanh(x[: H * D].reshape(H, D) @ a + x[H * D : H * D + H]) @ x[H * D + H :] - y) ** 2 / 2


def logistic(m):
    """The loss log(1 + exp(-y <a, x>))."""
    return lambda x, a, y: m.log1p(m.exp(-y * (a @ x)))


@dataclass(frozen=True)
class Sampled:
    """A formula of one sample, its dimension and its data."""

    formula: Any
    dim: int
    data: tuple[np.ndarray, np.ndarray] = (FEATURES, TARGETS)

    def loss(self) -> Any:
        """Return the loss of all samples in NumPy."""
        from sdetools.losses import from_function

        return from_function(value=self.formula(np), data=self.data, dim=self.dim)

    def in_torch(self) -> Any:
        """Return the loss of all samples in torch."""
        import torch

        from sdetools.losses import from_torch

        return from_torch(self.formula(torch), dim=self.dim, data=self.data)

    def alone(self) -> list[Any]:
        """Return the loss of each sample."""
        from sdetools.losses import from_function

        one = self.formula(np)
        return [from_function(value=lambda x, a=a, y=y: one(x, a, y), dim=self.dim) for a, y in zip(*self.data)]

    @property
    def x0(self) -> np.ndarray:
        """An initial point."""
        return np.linspace(-0.6, 0.7, self.dim)


PROBLEMS = {
    "diagonal network": Sampled(diagonal, 2 * D),
    "two layers": Sampled(network, H * (D + 2)),
    "logistic regression": Sampled(logistic, D, (FEATURES, np.sign(TARGETS))),
}
