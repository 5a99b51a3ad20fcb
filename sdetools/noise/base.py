"""The base class of gradient noises: the deviation v of a stochastic gradient from the full one, with E v = 0 and Cov v = Sigma(x).

Contract for a new `Noise`:

1. `draws` lists the random numbers that one evaluation consumes, in order: `Normal(n)`, `Sign(n)`, `Uniform(n)`. The argument `z`
   contains them, `(n_draws,)` for one path or `(n_draws, paths)` for many.
2. `value(x, z, p)` is branch-free NumPy code and runs on one point `(dim,)`, on many `(dim, paths)` and on traced values. A noise that is
   the deviation of a sampled gradient from the full one also implements `raw`, the sampled gradient, and sets `centred`.
3. Numbers belong to `parameters` and are read from `p`; structure (shapes, formulas, laws) belongs to `identity`. Noises of equal
   identity share a compiled kernel. Two noises are the same experiment if both agree.
4. `covariance(x)` is exact, never estimated.
5. A noise is immutable and pickles, so a function in it must be importable by name.
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
    """The declaration of `n` independent draws from N(0, 1), `n` rows of the array `z` of draws; it contains no random numbers itself."""

    n: int

    def __post_init__(self) -> None:
        _check.count("n", self.n)


@dataclass(frozen=True)
class Sign:
    """The declaration of `n` independent signs, -1.0 or 1.0 with probability 1/2 each, `n` rows of the array `z` of draws."""

    n: int

    def __post_init__(self) -> None:
        _check.count("n", self.n)


@dataclass(frozen=True)
class Uniform:
    """The declaration of `n` independent draws from the uniform law on the open interval (0, 1), `n` rows of the array `z` of draws."""

    n: int

    def __post_init__(self) -> None:
        _check.count("n", self.n)


Draws = Normal | Sign | Uniform


class Noise(ABC):
    """The base class of gradient noises Z(x): v = value(x, z) from draws z, with E v = 0 and Cov v = covariance(x) (the paper's Def. 2.1).

    A subclass sets `dim`, the number of coordinates; `draws`, a tuple of `Normal(n)`, `Sign(n)` and `Uniform(n)` that z consists of; and
    `identity`, a short text for everything except the numbers in `parameters`. The other attributes have the values of a state-dependent
    noise without parameters that samples no data. The docstring of the module has the contract.
    """

    dim: int
    """Number of coordinates."""
    draws: tuple[Draws, ...]
    """The random numbers that one evaluation consumes, in the order of `z`."""
    identity: str
    """A short string that identifies the structure: everything except the numbers in `parameters`."""
    parameters: np.ndarray = np.zeros(0)
    state_dependent: bool = True
    """Whether the law of v depends on x."""
    gaussian: bool = False
    """Whether v is Gaussian given x."""
    finite_variance: bool = True
    """Whether v has a variance; the control variate of a momentum pair requires one."""
    names: tuple[str, ...] | None = None
    """Coordinate names of the expressions in the noise, None if there are none."""
    loss: Loss | None = None
    """The loss whose data the noise samples, None for a noise without data."""
    centred: float | None = None
    """c in v = raw - c grad L for noise that samples data (see `raw`), None for any other."""
    latex: str = "v(x)"
    label: str = "noise"

    @abstractmethod
    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        """Return the deviation v, `(dim, paths)`, or `(dim,)` for one path.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            z: Draws, `(n_draws,)` or `(n_draws, paths)`, in the order of `draws`, or a traced value.
            p: The numbers of the noise, in the order of `parameters`; None for `parameters` itself.
        """

    @abstractmethod
    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return Sigma(x) = Cov v, exactly: `(dim, dim, paths)`, or `(dim, dim)` for one path.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            p: The numbers of the noise, in the order of `parameters`; None for `parameters` itself.
        """

    @abstractmethod
    def as_gaussian(self) -> Noise:
        """Return the Gaussian noise with the same covariance, the noise of the SDE that approximates the optimiser.

        Raises:
            ValueError: If no square root of the covariance is known.
        """

    @property
    def n_draws(self) -> int:
        """The number of random numbers that one evaluation consumes: the number of rows of `z`."""
        return sum(d.n for d in self.draws)

    def raw(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return v + c grad L, with c the attribute `centred`: the gradient of the sampled batch itself, `(dim,)` or `(dim, paths)`.

        The arguments are those of `value`: points, draws and numbers. A noise with `centred` None has no such gradient.

        Raises:
            NotImplementedError: If the noise samples no data.
        """
        raise NotImplementedError

    def sample_weights(self, z: Any, p: Any = None) -> tuple[Any, ...] | None:
        """Return the weights with which `loss.weighted_gradient(x, *weights)` equals `raw(x, z, p)`; None, the default, if not defined.

        Args:
            z: Draws, `(n_draws,)` or `(n_draws, paths)`.
            p: The numbers of the noise; None for `parameters`.

        Returns:
            A tuple of one or two arrays `(n,)` or `(n, paths)` for n samples: the weights of the gradients of their losses and, with label
            noise, of their models.
        """
        return None

    def __repr__(self) -> str:
        return self.label


def sample_draws(draws: Sequence[Draws], generator: np.random.Generator, paths: int) -> np.ndarray:
    """Draw the random numbers of a noise from a NumPy generator, for tests and checks; simulations compute theirs by Philox.

    Args:
        draws: The draws of a noise, such as `noise.draws`.
        generator: The random generator.
        paths: Number of paths.

    Returns:
        The argument `z` of `Noise.value`, `(n_draws, paths)`.

    Raises:
        ValueError: If an element of `draws` is not `Normal`, `Sign` or `Uniform`.

    Example:
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
                raise ValueError(f"`draws` must consist of Normal(n), Sign(n) or Uniform(n); got {draw!r}.")
    return np.concatenate(rows)


def check_draws(z: Any, noise: Noise) -> Any:
    """Return `z` unchanged if it has one row for each draw of `noise` (`noise.n_draws` rows); raise ValueError otherwise."""
    rows = len(z)
    if rows != noise.n_draws:
        raise ValueError(
            f"`z` must have {noise.n_draws} rows, one for each draw of {noise.label}; got {rows}. "
            "Make them with `sdetools.noise.sample_draws(noise.draws, generator, paths)`."
        )
    return z


def is_zero(v: Any) -> bool:
    """Return whether `v` is a traced value that is the constant 0, so that a formula can omit it; False for any array.

    Example:
        >>> is_zero(np.zeros(2)), is_zero(Value("const", "", (), (2,), np.zeros(2), None, False))
        (False, True)
    """
    return isinstance(v, Value) and v.op == "const" and not v.extra.any()


def over_paths(matrix: np.ndarray, x: Any) -> np.ndarray:
    """Return a matrix `(dim, dim)` repeated for the paths of `x`, `(dim,)` or `(dim, paths)`: a read-only view `(dim, dim)` or `(dim, dim, paths)`.

    Example:
        >>> over_paths(np.eye(2), np.zeros((2, 5))).shape
        (2, 2, 5)
    """
    tail = np.shape(x)[1:]
    return np.broadcast_to(matrix.reshape(*matrix.shape, *(1 for _ in tail)), (*matrix.shape, *tail))


def batch_factor(n: int, size: int, replace: bool) -> float:
    """Return c in Cov g_B = c S: 1/size with replacement, (n - size) / ((n - 1) size) without, which is 0 for size = n (also for n = 1).

    g_B is the mean gradient of a random batch, and S the covariance of the sample gradients (divided by n).

    Args:
        n: Number of samples.
        size: Batch size; at most n without replacement.
        replace: Whether samples are drawn with replacement.

    Example:
        >>> batch_factor(5, 2, replace=False)
        0.375
    """
    return 1 / size if replace else (n - size) / (max(n - 1, 1) * size)
