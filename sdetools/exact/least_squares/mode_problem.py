"""What the exact functions for least squares need of a dynamics: its spectrum, its noise, and the moments of its start.

A mode is a coordinate in the eigenbasis of the rows' covariance K = diag(lam), where the minimiser is the origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.exact.first_state import known_start
from sdetools.noise.oracle import NoisyOracle, SVAGNoise
from sdetools.noise.streaming import StreamingNoise
from sdetools.starts import Law

_MOST_DRAWS = 4096


@dataclass(frozen=True, eq=False)
class ModeProblem:
    """The numbers of streaming least squares on which second moments depend.

    A gradient is K x + spread * (sum_l weights_l g_l - K x) with the gradients g_l of independent batches of fresh rows.

    Attributes:
        lam: The eigenvalues in the order of the coordinates, shape `(dim,)`.
        label_variance: The variance s^2 of the labels' noise.
        factor: The covariance of a gradient over that of one row: sigma^2 / B, with sigma the noise scale of the oracle.
        rows: The number B of rows of one batch.
        weights: The weights of the batches, whose sum is 1: (1,), or for `st.svag` two numbers or more.
        spread: sigma; for `st.svag` the sigma of the oracle that it was given.
    """

    lam: np.ndarray
    label_variance: float
    factor: float
    rows: int = 1
    weights: tuple[float, ...] = (1.0,)
    spread: float = 1.0


def mode_problem(oracle: NoisyOracle) -> ModeProblem:
    """Return the problem of an oracle of `st.streaming_least_squares`, also with another sigma or under `st.svag`.

    Raises:
        ValueError: If `oracle` is no such oracle.
    """
    noise, weights = getattr(oracle, "noise", None), np.ones(1)
    while isinstance(noise, SVAGNoise):
        weights, noise = np.outer(weights, noise.weights).ravel(), noise.inner
    if not isinstance(noise, StreamingNoise):
        raise ValueError(
            f"the exact risk must have streaming least squares; got {_check.shown(oracle if noise is None else noise)}. "
            "Make the oracle by st.streaming_least_squares(spectrum, label_noise, batch), or use st.exact.moments or a simulation."
        )
    spread, total = (
        float(oracle.sigma),
        float(weights.sum()),
    )  # the weights of SVAG are r_i / sqrt(l), and sigma has the factor sqrt(l)
    return ModeProblem(
        noise.loss.parameters,
        noise.label_noise**2,
        spread**2 / noise.batch,
        noise.batch,
        tuple((weights / total).tolist()),
        spread * total,
    )


def start_moments(dynamics: Any, x0: Any) -> np.ndarray:
    """Return E s_a s_b of the initial state in every coordinate, a and b in the order of `dynamics.parts`, shape `(n, n, dim)` for n parts.

    Covariances between coordinates do not enter the risk and are left out.

    Args:
        dynamics: The dynamics, whose `start` makes the parts from x_0 and, for a random momentum, from draws.
        x0: A point `(dim,)`, a law of `st.starts`, or a pair (mean, variance) of two vectors `(dim,)`, in the eigenbasis and from the minimiser.

    Raises:
        ValueError: If `x0` has another form or a negative variance, a part of the state has another length than x, or a momentum has more than 4,096
            draws.
    """
    dim = dynamics.dim
    if isinstance(x0, tuple) and len(x0) == 2 and np.ndim(x0[0]) == 1:
        mean, variance = (_check.point(f"x0 ({what})", value, dim) for what, value in zip(("mean", "variance"), x0, strict=True))
        if variance.min() < 0:
            raise ValueError(f"`x0` as (mean, variance) must have variances of 0 or above; got {variance.min():g}.")
    elif isinstance(x0, Law):
        start = known_start(x0, dim)
        mean, variance = start.mean, np.zeros(dim) if start.covariance is None else np.diag(start.covariance)
    else:
        mean, variance = _check.point("x0", x0, dim), np.zeros(dim)

    def state(x: np.ndarray, z: np.ndarray | None = None) -> np.ndarray:
        parts = [np.asarray(part, dtype=float) for part in (dynamics.start(x) if z is None else dynamics.start(x, z))]
        if any(len(part) != dim for part in parts):
            raise ValueError(f"every part of the state must have {dim} coordinates; got {[len(part) for part in parts]}.")
        shape = (dim,) if z is None else (dim, z.shape[1])
        return np.stack([np.broadcast_to(part[:, None] if part.ndim < len(shape) else part, shape) for part in parts])

    at = state(mean)
    out = np.einsum("ai,bi->abi", at, at)
    if variance.any():
        moved = state(mean + 1) - at
        out += variance * np.einsum("ai,bi->abi", moved, moved)
    if (n := sum(draw.n for draw in dynamics.start_draws)) > _MOST_DRAWS:
        raise ValueError(f"`momentum` must be fixed, or random in at most {_MOST_DRAWS} coordinates; got {n}.")
    if n:
        moved = state(np.repeat(mean[:, None], n, axis=1), np.eye(n)) - at[..., None]
        out += np.einsum("aij,bij->abi", moved, moved)
    return out
