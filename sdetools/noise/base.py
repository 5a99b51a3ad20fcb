"""What a gradient noise is: the deviation v of a stochastic gradient from the full one, with E v = 0 and Cov v = Sigma(x).

For implementers of a new `Noise`:

1. `draws` says what one evaluation consumes, in order: `Normal(n)`, `Sign(n)`, `Uniform(n)`. The `z` that comes in holds these
   numbers component first, `(n_draws,)` for one path or `(n_draws, paths)` for many.
2. `value(x, z, p)` is plain branch-free NumPy text and runs on one point, on rows of paths and on traced values. A noise that is the
   deviation of something from the full gradient gives that as `raw`, and says so by `centred`.
3. Numbers live in `parameters` and are read from `p`; structure (shapes, formulas, laws) lives in `identity`. Two noises of
   one identity share a compiled kernel; a noise is the same experiment when both agree.
4. `covariance(x)` is exact, never estimated.
5. A noise is immutable and pickles (so a function given to it must be importable by name).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools.graph.value import Value

if TYPE_CHECKING:
    from sdetools.losses.base import Loss


@dataclass(frozen=True)
class Normal:
    """`n` independent N(0, 1) draws."""

    n: int

    def __post_init__(self) -> None:
        _check.count("n", self.n)


@dataclass(frozen=True)
class Sign:
    """`n` independent signs, -1.0 or +1.0 with probability 1/2 each."""

    n: int

    def __post_init__(self) -> None:
        _check.count("n", self.n)


@dataclass(frozen=True)
class Uniform:
    """`n` independent uniforms on the open interval (0, 1)."""

    n: int

    def __post_init__(self) -> None:
        _check.count("n", self.n)


Draws = Normal | Sign | Uniform


class Noise(ABC):
    """A gradient noise Z(x): draws z -> deviation v = value(x, z), with E v = 0 and Cov v = covariance(x) (the paper's Def. 2.1).

    See the module's text for the rules. `dim`, `draws` and `identity` are set by every noise; the other attributes have
    defaults that fit a traced, state-dependent noise without numbers of its own.
    """

    dim: int
    """Number of coordinates."""
    draws: tuple[Draws, ...]
    """What one evaluation consumes, in the order in which `z` holds it."""
    identity: str
    """A short text that fixes the structure: everything but the numbers in `parameters`."""
    parameters: np.ndarray = np.zeros(0)
    state_dependent: bool = True
    """Whether the law of v depends on x."""
    gaussian: bool = False
    """Whether v is Gaussian given x."""
    names: tuple[str, ...] | None = None
    """Coordinate names of the expressions in the noise, None when there are none."""
    loss: Loss | None = None
    """The loss whose data the noise draws from, None when the noise belongs to no loss."""
    centred: float | None = None
    """c in v = raw - c grad L, for noise of samples; None for any other."""
    latex: str = "v(x)"
    label: str = "noise"

    @abstractmethod
    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        """The deviation v at `x` from the draws `z`: `(dim, paths)`, or `(dim,)` for one path."""

    @abstractmethod
    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Sigma(x) = Cov v, exactly: `(dim, dim, paths)`, or `(dim, dim)` for one path."""

    @abstractmethod
    def as_gaussian(self) -> Noise:
        """The Gaussian noise with the same covariance: what an SDE that approximates the optimiser is driven by."""

    @property
    def n_draws(self) -> int:
        """Rows of `z`."""
        return sum(d.n for d in self.draws)

    def raw(self, x: Any, z: Any, p: Any = None) -> Any:
        """v + c grad L where `centred` gives c: what the samples make, without the full gradient."""
        raise NotImplementedError

    def sample_weights(self, z: Any, p: Any = None) -> tuple[Any, ...] | None:
        """What `loss.weighted_gradient` makes `raw` of, numbers `(n, *paths)` for the samples of the loss; None where nothing does."""
        return None

    def __repr__(self) -> str:
        return self.label


def sample_draws(draws: Sequence[Draws], generator: np.random.Generator, paths: int) -> np.ndarray:
    """NumPy draws in the layout of `Noise.value`: `(n_draws, paths)`. For tests and checks; simulations use addressed draws.

    >>> sample_draws((Sign(2),), np.random.default_rng(0), 3).shape
    (2, 3)
    """
    rows: list[np.ndarray] = [np.empty((0, paths))]
    for draw in draws:
        match draw:
            case Normal(n):
                rows.append(generator.standard_normal((n, paths)))
            case Sign(n):
                rows.append(2.0 * generator.integers(0, 2, (n, paths)) - 1.0)
            case Uniform(n):
                rows.append((generator.integers(0, 2**52, (n, paths)) + 0.5) * 2.0**-52)
            case _:
                raise ValueError(f"`draws` must hold Normal(n), Sign(n) or Uniform(n); got {draw!r}.")
    return np.concatenate(rows)


def check_draws(z: Any, noise: Noise) -> Any:
    """`z` with one row for each draw of `noise`."""
    rows = len(z)
    if rows != noise.n_draws:
        raise ValueError(
            f"`z` must have {noise.n_draws} rows, one for each draw of {noise.label}; got {rows}. "
            "Make them with `sdetools.noise.sample_draws(noise.draws, generator, paths)`."
        )
    return z


def is_zero(v: Any) -> bool:
    """Whether a traced deviation is the constant 0, so that a graph can do without it.

    >>> is_zero(np.zeros(2)), is_zero(Value("const", "", (), (2,), np.zeros(2), None, False))
    (False, True)
    """
    return isinstance(v, Value) and v.op == "const" and not v.extra.any()


def over_paths(matrix: np.ndarray, x: Any) -> np.ndarray:
    """A constant matrix `(dim, dim)` seen at every path of `x`: `(dim, dim, *paths)`, without copying.

    >>> over_paths(np.eye(2), np.zeros((2, 5))).shape
    (2, 2, 5)
    """
    tail = np.shape(x)[1:]
    return np.broadcast_to(matrix.reshape(*matrix.shape, *(1 for _ in tail)), (*matrix.shape, *tail))


def batch_factor(n: int, size: int, replace: bool) -> float:
    """c in Cov g_B = c S: 1/size with replacement, (1/size) (n - size)/(n - 1) without.

    >>> batch_factor(5, 2, replace=False)
    0.375
    """
    return 1 / size if replace else (n - size) / (max(n - 1, 1) * size)
