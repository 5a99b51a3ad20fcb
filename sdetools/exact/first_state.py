"""Mean and covariance of the initial state of a dynamics or an SDE, from a point or a law and from the draws of a momentum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools.starts import Law, checked

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class KnownStart:
    """The moments of an initial point x_0, fixed or random.

    Attributes:
        mean: E x_0, shape `(dim,)`.
        covariance: Cov x_0, shape `(dim, dim)`, or None for a fixed point or a law of variance 0.
        gaussian: Whether x_0 is Gaussian; a fixed point counts as Gaussian.
    """

    mean: np.ndarray
    covariance: np.ndarray | None
    gaussian: bool


def known_start(x0: Any, dim: int) -> KnownStart:
    """Return the moments of the initial point `x0`, a point `(dim,)` or a law of `st.starts`.

    Raises:
        ValueError: For a law without a mean or covariance, and for an array of several points.
    """
    x0 = checked(x0, dim)
    if not isinstance(x0, Law):
        if x0.ndim == 2:
            raise ValueError(
                f"`x0` of exact moments must be a point ({dim},) or a law; got an array of shape {x0.shape}. Compute each column, or simulate."
            )
        return KnownStart(x0, None, True)
    if x0.mean is None or x0.covariance is None:
        raise ValueError(
            f"exact moments must start from a law with a mean and covariance; got the {x0!r}. "
            "Pass them: st.starts.from_function(..., mean=..., covariance=...)."
        )
    constant = not x0.covariance.any()
    return KnownStart(x0.mean, None if constant else x0.covariance, x0.gaussian or constant)


def first_state(dynamics: Any, start: KnownStart) -> tuple[np.ndarray, np.ndarray, list[int], bool]:
    """Return the moments of the initial state of a dynamics, which consists of x and, for example, a momentum buffer.

    The state s must be affine in x_0 and in the draws z of the start, s(x_0, z) = s(x, 0) + J (x_0 - x) + R z with x = E x_0. This is checked at
    random inputs.

    Args:
        dynamics: The dynamics or SDE. Its method `start` maps x_0 (and the draws of `start_draws`, if any) to the parts of the state.
        start: The moments of x_0.

    Returns:
        A tuple: the mean of the state, shape `(n,)`; its covariance, shape `(n, n)`; the list of the lengths of its parts, which sum to n; and
        whether it is Gaussian.

    Raises:
        ValueError: If the state is not affine in x_0 and the draws, or if there are draws other than Normal and Sign.
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
    """Return J C J^T, the covariance of state(u) for u of covariance C, where J is the matrix of the affine function `state`.

    Args:
        state: The function from `(k,)` to `(n,)`.
        covariance: C, `(k, k)`.
        probe: A random point at which it is checked that `state` is affine, `(k,)`.
        origin: The point 0, `(k,)`.
        what: What u is, for the message of the ValueError if `state` is not affine.
    """
    at = state(origin)
    J = np.stack([state(unit) - at for unit in np.eye(len(origin))], axis=1)
    error = np.abs(state(probe) - at - J @ probe)
    if not np.all(error <= _TOLERANCE * (np.abs(at) + np.abs(J) @ np.abs(probe) + np.finfo(float).tiny)):
        raise ValueError(
            f"exact moments must start from {what} that enter{'s' * (what == 'a law')} linearly; the value of `start` at a random input does not. Simulate it."
        )
    return J @ covariance @ J.T
