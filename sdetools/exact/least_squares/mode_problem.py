"""What the exact functions for least squares need of a dynamics: its spectrum, its noise, and the moments of its start."""

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
    """Streaming least squares as its modes see it.

    Attributes:
        lam: The eigenvalues, shape `(dim,)`.
        label_variance: The variance of the labels.
        factor: sigma^2 / B: the covariance of a gradient is `factor` times that of one row.
        rows: The number B of rows of one batch.
        weights: The weights of independent batches in a gradient, whose sum is 1: (1,), or for `st.svag` two numbers or more.
        spread: The factor of the deviation of their mean from the full gradient, sigma; for `st.svag` that of the oracle within.
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
        ValueError: If the oracle is another one.
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
    """Return E s_a s_b of the initial state in every coordinate, shape `(n, n, dim)` for n parts of the state.

    Args:
        dynamics: The dynamics, whose `start` gives the parts.
        x0: A point `(dim,)`, a law of `st.starts`, or a pair (mean, variance) of two vectors `(dim,)`.

    Raises:
        ValueError: If `x0` has another form, or a part of the state has another length than x.
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
