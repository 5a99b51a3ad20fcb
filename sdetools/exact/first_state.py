"""Mean and covariance of the first state of a dynamics or an SDE, from a point or a law of starts and from the draws of a momentum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools.starts import Law, checked

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class KnownStart:
    """E x_0 `(dim,)`, Cov x_0 `(dim, dim)` (None for a point), and whether x_0 is Gaussian, as a point is."""

    mean: np.ndarray
    covariance: np.ndarray | None
    gaussian: bool


def known_start(x0: Any, dim: int) -> KnownStart:
    """A start whose moments are known; ValueError for a law that does not state them, and for an array of points."""
    x0 = checked(x0, dim)
    if not isinstance(x0, Law):
        if x0.ndim == 2:
            raise ValueError(
                f"`x0` of exact moments must be a point ({dim},) or a law; got an array of shape {x0.shape}. Ask for each column, or simulate."
            )
        return KnownStart(x0, None, True)
    if x0.mean is None or x0.covariance is None:
        raise ValueError(
            f"exact moments must start from a law whose mean and covariance are known; got the {x0!r}. "
            "State them: st.starts.from_function(..., mean=..., covariance=...)."
        )
    still = not x0.covariance.any()
    return KnownStart(x0.mean, None if still else x0.covariance, x0.gaussian or still)


def first_state(dynamics: Any, start: KnownStart) -> tuple[np.ndarray, np.ndarray, list[int], bool]:
    """Mean and covariance of the first state, the sizes of its parts, and whether it is Gaussian.

    The state is affine in x_0 and in the draws: s = s(x, 0) + J (x_0 - x) + R z, which probes hold it to.
    """
    draws = tuple(getattr(dynamics, "start_draws", ()) or ())
    kinds = {type(draw).__name__ for draw in draws}
    if not kinds <= {"Normal", "Sign"}:
        raise ValueError(
            f"exact moments must start from Normal or Sign draws; got {', '.join(sorted(kinds))}. Simulate it instead."
        )
    n = sum(draw.n for draw in draws)
    rng = np.random.default_rng(20240603)

    def parts(x: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(part, dtype=float) for part in (dynamics.start(x, z) if n else dynamics.start(x))]

    def state(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.concatenate(parts(x, z))

    x, silent = start.mean, np.zeros(n)
    mean = state(x, silent)
    covariance = np.zeros((len(mean), len(mean)))
    if n:
        covariance += _spread(lambda z: state(x, z), np.eye(n), rng.standard_normal(n), silent, "draws")
    if start.covariance is not None:
        covariance += _spread(
            lambda u: state(u, silent), start.covariance, x + rng.standard_normal(len(x)), np.zeros(len(x)), "a law"
        )
    sizes = [len(part) for part in parts(x, silent)]
    return mean, covariance, sizes, start.gaussian and kinds <= {"Normal"}


def _spread(
    state: Callable[[np.ndarray], np.ndarray], covariance: np.ndarray, probe: np.ndarray, origin: np.ndarray, what: str
) -> np.ndarray:
    """J C J^T, J the matrix of `state`, which must be affine."""
    at = state(origin)
    J = np.stack([state(unit) - at for unit in np.eye(len(origin))], axis=1)
    error = np.abs(state(probe) - at - J @ probe)
    if not np.all(error <= _TOLERANCE * (np.abs(at) + np.abs(J) @ np.abs(probe) + np.finfo(float).tiny)):
        raise ValueError(
            f"exact moments must start from {what} that enter{'s' * (what == 'a law')} linearly; a random probe of `start` does not. Simulate it."
        )
    return J @ covariance @ J.T
