"""Means and covariances of a dynamics at recorded steps, the return type of exact moment computations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdetools import _check


@dataclass(frozen=True, eq=False, repr=False)
class Moments:
    """The mean and covariance of a dynamics at recorded steps, the result of `exact.moments` and `exact.solution`.

    The state consists of parts, such as x and the momentum buffer m, of total length n. The first part is x, of length `dim`.

    Attributes:
        steps: The recorded steps, shape `(times,)`; for an SDE the numbers 0, 1, ... of its times.
        times: The recorded times, shape `(times,)`; for a rule, steps * step_time.
        state_mean: The mean of the whole state (parts in order), shape `(times, n)`.
        state_covariance: The covariance of the whole state, shape `(times, n, n)`.
        parts: The length of each part of the state, by name, in order.
        names: The names of the coordinates of x.
        gaussian: Whether the law of the state is known to be normal at every recorded step.
    """

    steps: np.ndarray
    times: np.ndarray
    state_mean: np.ndarray
    state_covariance: np.ndarray
    parts: dict[str, int]
    names: tuple[str, ...]
    gaussian: bool

    @property
    def dim(self) -> int:
        """The number of coordinates of x, the first part of the state."""
        return next(iter(self.parts.values()))

    @property
    def mean(self) -> np.ndarray:
        """The mean of x at each recorded step, shape `(times, dim)`."""
        return self.state_mean[:, : self.dim]

    @property
    def covariance(self) -> np.ndarray:
        """The covariance of x at each recorded step, shape `(times, dim, dim)`."""
        return self.state_covariance[:, : self.dim, : self.dim]

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean, shape `(times, size)`, and covariance, `(times, size, size)`, of one part of the state, such as "x" or "m".

        `size` is the length of the part, `parts[name]`.

        Raises:
            ValueError: If the state has no part of this name.
        """
        if name not in self.parts:
            meant = _check.suggestion(name, self.parts, "These are the parts of the state.")
            raise ValueError(f"`name` must be one of {', '.join(self.parts)}; got name={name!r}. {meant}")
        end = np.cumsum(list(self.parts.values()))[list(self.parts).index(name)]
        inside = slice(end - self.parts[name], end)
        return self.state_mean[:, inside], self.state_covariance[:, inside, inside]

    def __repr__(self) -> str:
        law = "Gaussian" if self.gaussian else "not Gaussian"
        return (
            f"Moments({len(self.steps)} times up to t={self.times[-1]:.6g}, state {'+'.join(self.parts)}, dim={self.dim}, {law})"
        )


def recorded(record: Sequence[int] | np.ndarray | None, steps: int) -> np.ndarray:
    """Return the recorded steps after validation, as an integer array `(times,)`.

    Args:
        record: Increasing whole numbers in 0..`steps`, at least one; None stands for 0, ..., `steps`.
        steps: The number of steps of the run.

    Raises:
        ValueError: If `record` is empty, not increasing, or outside 0..`steps`.
    """
    if record is None:
        return np.arange(steps + 1)
    out = np.array([_check.count("record", k, least=0) for k in np.asarray(record).ravel().tolist()], dtype=int)
    if not len(out) or np.any(np.diff(out) <= 0) or out[-1] > steps:
        raise ValueError(
            f"`record` must hold increasing steps between 0 and steps={steps}; got {_short(out)}. Omit it to record every step."
        )
    return out


def _short(values: np.ndarray) -> str:
    return np.array2string(values, threshold=6, separator=", ")
