"""The base class of gradient noises: the deviation v of a stochastic gradient from the full one, with E v = 0 and Cov v = Sigma(x).

Contract for a new `Noise`:

1. `draws` lists the random numbers that one evaluation consumes, in order: `Normal(n)`, `Sign(n)`, `Uniform(n)`. The argument `z`
   contains them, `(n_draws,)` for one path or `(n_draws, paths)` for many.
2. `value(x, z, p)` is branch-free NumPy code and runs on one point `(dim,)`, on many `(dim, paths)` and on traced values (see
   `sdetools.noise`). A noise that is the deviation of a sampled gradient from the full one also implements `raw`, the sampled gradient,
   and sets `centred`.
3. Numbers belong to `parameters` and are read from `p`; structure (shapes, formulas, laws) belongs to `identity`. Noises of equal
   identity share a compiled kernel. Two noises are the same experiment if both `identity` and `parameters` agree.
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
    """The declaration that an evaluation of a noise consumes `n` independent draws from N(0, 1): `n` rows of the array `z` of draws.

    It is an element of `Noise.draws` and contains no random numbers itself. ValueError if `n` is not a positive integer.

    Example:
        >>> from sdetools import noise
        >>> noise.gaussian(dim=3).draws
        (Normal(n=3),)
    """

    n: int

    def __post_init__(self) -> None:
        _check.count("n", self.n)


@dataclass(frozen=True)
class Sign:
    """The declaration that an evaluation of a noise consumes `n` independent signs, -1.0 or 1.0 with probability 1/2: `n` rows of the array `z`.

    It is an element of `Noise.draws` and contains no random numbers itself. ValueError if `n` is not a positive integer.

    Example:
        >>> from sdetools import noise
        >>> noise.rademacher(dim=3).draws
        (Sign(n=3),)
    """

    n: int

    def __post_init__(self) -> None:
        _check.count("n", self.n)


@dataclass(frozen=True)
class Uniform:
    """The declaration that an evaluation of a noise consumes `n` independent uniform draws from the open interval (0, 1): `n` rows of the array `z`.

    It is an element of `Noise.draws` and contains no random numbers itself. ValueError if `n` is not a positive integer.

    Example:
        >>> from sdetools import noise
        >>> noise.student_t(dim=3, degrees=5).draws
        (Uniform(n=6),)
    """

    n: int

    def __post_init__(self) -> None:
        _check.count("n", self.n)


Draws = Normal | Sign | Uniform


class Noise(ABC):
    """The base class of gradient noises Z(x): v = value(x, z) from draws z, with E v = 0, Cov v = covariance(x) (Wang et al. 2024, Def. 2.1).

    A subclass sets `dim`, `draws` and `identity`, and implements `value`, `covariance` and `as_gaussian`. A noise that is the deviation of a
    sampled gradient from the full one also implements `raw` and sets `centred` and `loss`; it may implement `sample_weights`. The other
    attributes have the values of a state-dependent, not Gaussian noise without parameters. A noise is immutable and pickles.

    Example:
        A noise that is the same in both coordinates:

        >>> import numpy as np
        >>> from sdetools.noise import Noise, Normal, gaussian
        >>> class Common(Noise):
        ...     dim, draws, identity, state_dependent, label = 2, (Normal(1),), "common", False, "common noise"
        ...     def value(self, x, z, p=None):
        ...         return np.stack([z[0], z[0]])
        ...     def covariance(self, x, p=None):
        ...         return np.ones((2, 2) + np.shape(x)[1:])
        ...     def as_gaussian(self):
        ...         return gaussian(root=[[1.0], [1.0]])
        >>> Common().value(np.zeros(2), np.array([0.5])), Common().n_draws
        (array([0.5, 0.5]), 1)
    """

    dim: int
    """Number of coordinates."""
    draws: tuple[Draws, ...]
    """The random numbers that one evaluation consumes, in the order of the rows of `z`; empty for none."""
    identity: str
    """A short string that identifies the structure: everything except the numbers in `parameters`."""
    parameters: np.ndarray = np.zeros(0)
    """Numbers of the formula that can change without a recompilation, a vector; the argument `p` of a method replaces them."""
    state_dependent: bool = True
    """Whether the law of v depends on x."""
    gaussian: bool = False
    """Whether v is Gaussian given x."""
    finite_variance: bool = True
    """Whether v has a variance; the control variate of a momentum pair requires one."""
    names: tuple[str, ...] | None = None
    """Names of the coordinates in the expressions of the noise, in order; None for a noise without expressions."""
    loss: Loss | None = None
    """The loss whose data the noise samples, None for a noise without data."""
    centred: float | None = None
    """The number c in v = raw - c grad L for noise that samples data (see `raw`), None for any other."""
    latex: str = "v(x)"
    """v as a formula in LaTeX, without dollar signs."""
    label: str = "noise"
    """A short name for messages and reports; it is the `repr`."""

    @abstractmethod
    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        """Return the deviation v of the gradient of each path, in the shape of `x`.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            z: Draws with the paths of `x`, `(n_draws,)` or `(n_draws, paths)`, in the order of `draws`, or a traced value `(n_draws,)`.
            p: The numbers of the noise, in the order of `parameters`; None for `parameters` itself.
        """

    @abstractmethod
    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return Sigma(x) = Cov v, exactly: `(dim, dim)` for one point, `(dim, dim, paths)` for many, possibly as a read-only view.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            p: The numbers of the noise, in the order of `parameters`; None for `parameters` itself.
        """

    @abstractmethod
    def as_gaussian(self) -> Noise:
        """Return a noise with the same covariance Sigma(x) and normal draws, Gaussian given x: that of the SDE that approximates the optimiser.

        It is the noise itself if that is Gaussian.

        Raises:
            ValueError: If no square root of the covariance is known.
        """

    @property
    def n_draws(self) -> int:
        """The number of random numbers that one evaluation consumes: the number of rows of `z`."""
        return sum(d.n for d in self.draws)

    def raw(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return v + c grad L, with c the attribute `centred`: at c = 1 the stochastic gradient of the sampled batch itself.

        A noise with `centred` None has no such gradient.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            z: Draws with the paths of `x`, `(n_draws,)` or `(n_draws, paths)`, or a traced value `(n_draws,)`.
            p: The numbers of the noise, in the order of `parameters`; None for `parameters` itself.

        Returns:
            An array in the shape of `x`.

        Raises:
            NotImplementedError: If the noise samples no data.
        """
        raise NotImplementedError

    def sample_weights(self, z: Any, p: Any = None) -> tuple[Any, ...] | None:
        """Return the weights with which `loss.weighted_gradient(x, *weights)` equals `raw(x, z, p)`, or None (the base class).

        None means that `raw` is no such sum over the samples, or is not computed as one.

        Args:
            z: Draws, `(n_draws,)` or `(n_draws, paths)`.
            p: The numbers of the noise, in the order of `parameters`; None for `parameters` itself.

        Returns:
            A tuple of one or two arrays `(n,)` or `(n, paths)` for n samples: the weights w of the gradients of their losses L_i and, with label
            noise, e of their models f_i, in raw = sum_i (w_i grad L_i - e_i grad f_i).
        """
        return None

    def __repr__(self) -> str:
        return self.label


def sample_draws(draws: Sequence[Draws], generator: np.random.Generator, paths: int) -> np.ndarray:
    """Draw the random numbers of a noise from a NumPy generator, for tests and checks; simulations compute theirs by Philox.

    Args:
        draws: The draws of a noise, such as `noise.draws`.
        generator: The random generator, whose state advances.
        paths: Number of paths.

    Returns:
        The argument `z` of `Noise.value`, a new array `(n_draws, paths)` of doubles: the rows of the first element of `draws` first.

    Raises:
        ValueError: If an element of `draws` is not `Normal`, `Sign` or `Uniform`.

    Example:
        >>> import numpy as np
        >>> from sdetools.noise import Sign, Uniform, sample_draws
        >>> sample_draws((Sign(2), Uniform(1)), np.random.default_rng(0), 4).round(2)
        array([[ 1.  ,  1.  ,  1.  , -1.  ],
               [-1.  , -1.  , -1.  , -1.  ],
               [ 0.81,  0.91,  0.61,  0.73]])
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
    """Return the draws `z` unchanged if they have one row for each draw of `noise` (`noise.n_draws` rows); raise ValueError otherwise.

    `z` is an array, a list of rows, or a traced value.
    """
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
    """Return a matrix `(dim, dim)` repeated for the paths of the points `x`, `(dim,)` or `(dim, paths)`.

    The result is a read-only view `(dim, dim)` or `(dim, dim, paths)`.

    Example:
        >>> over_paths(np.eye(2), np.zeros((2, 5))).shape
        (2, 2, 5)
    """
    tail = np.shape(x)[1:]
    return np.broadcast_to(matrix.reshape(*matrix.shape, *(1 for _ in tail)), (*matrix.shape, *tail))


def batch_factor(n: int, size: int, replace: bool) -> float:
    """Return c in Cov g_B = c S: 1/size with replacement, (n - size) / ((n - 1) size) without, which is 0 for size = n (also for n = 1).

    g_B is the mean of the gradients of `size` random samples, and S = (1/n) sum_i (g_i - gbar)(g_i - gbar)^T the covariance of the gradients
    g_i of all n samples, with mean gbar.

    Args:
        n: Number of samples.
        size: Batch size; at most n without replacement.
        replace: Whether samples are drawn with replacement.

    Example:
        >>> batch_factor(5, 2, replace=False)
        0.375
    """
    return 1 / size if replace else (n - size) / (max(n - 1, 1) * size)
