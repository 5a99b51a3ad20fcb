"""Initial conditions: probability distributions (laws) of x_0 for the argument `x0=` of all simulations.

    x0=[1.0, 2.0]                                  every path starts at this point
    x0=points                                      path p starts at column p mod n of an array (dim, n)
    x0=st.starts.gaussian(mean, covariance)        every path starts at its own random point

The random numbers of a start are a function of (seed, stream, path). The members of a coupled pair share them and start at the same point
on every path; independent members do not. An array is a finite population: an expectation is the mean over columns weighted by their paths.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdetools import _check, _lazy
from sdetools._arrays import components, few_paths, on_rows, spread, with_outliers
from sdetools._identity import function_identity
from sdetools.noise.base import Draws, Normal, Sign, Uniform, sample_draws
from sdetools.noise.roots import symmetric_root

__all__ = ["Law", "from_function", "gaussian", "mixture", "uniform"]
_lazy.list_public_names(globals())

FEW_DRAWS, CHECK_DRAWS, CHECK_NUMBERS, CHECK_ERRORS = 1000, 200_000, 20_000_000, 6.0
"""Draws in a trial evaluation; limits on draws and on array entries in the check of stated moments, and its tolerance in standard errors."""


class Law(ABC):
    """A probability distribution of initial points, given as a function of random draws: x_0 = points(z).

    A subclass sets `dim`, `draws` and `identity` and writes `points`, branch-free NumPy code that accepts the draws of one path `(n,)`, of many
    paths `(n, paths)`, and traced values. A law is immutable and can be pickled; `identity` must determine all numbers that it produces.

    Attributes:
        dim: The number of coordinates.
        draws: The random draws of one start, in the order of the rows of `z`: a tuple of `Normal(n)`, `Sign(n)` and `Uniform(n)` of `st.noise`.
        identity: A text that is part of the keys of stored results.
        mean: The exact mean, shape `(dim,)`; None if unknown.
        covariance: The exact covariance matrix, shape `(dim, dim)`; None if unknown.
        gaussian: Whether the law is normal.
        label: The name of the law in messages.
    """

    dim: int
    draws: tuple[Draws, ...]
    identity: str
    mean: np.ndarray | None = None
    covariance: np.ndarray | None = None
    gaussian: bool = False
    label: str = "law"

    @abstractmethod
    def points(self, z: Any) -> Any:
        """Return x_0: `(dim,)` for the draws `z` of one path, `(n_draws,)`; `(dim, paths)` for many, `(n_draws, paths)`; traced for a traced `z`."""

    @property
    def n_draws(self) -> int:
        """The number of random numbers of one start, the length of the first axis of `z` in `points`."""
        return sum(draw.n for draw in self.draws)

    def sample(self, generator: np.random.Generator, n: int) -> np.ndarray:
        """Return `n` points of the law, shape `(dim, n)`, drawn with a NumPy generator.

        Simulations do not use this method: their draws are functions of seed, stream and path.
        """
        return np.asarray(self.points(sample_draws(self.draws, generator, _check.count("n", n))))

    def moved(self, by: np.ndarray) -> Law:
        """Return the law of x_0 + `by` for a fixed shift `by`, `(dim,)`; from the same draws its points are those of this law, shifted."""
        return _Moved(self, by)

    def __repr__(self) -> str:
        return self.label


class _Moved(Law):
    """The law of x_0 + b."""

    def __init__(self, law: Law, by: np.ndarray) -> None:
        self.law, self.by = law, by
        self.dim, self.draws, self.gaussian, self.label = law.dim, law.draws, law.gaussian, f"{law.label}, moved"
        self.mean, self.covariance = None if law.mean is None else law.mean + by, law.covariance
        self.identity = f"moved({law.identity}, {_digest(by)})"

    def points(self, z: Any) -> Any:
        x = self.law.points(z)
        return x + spread(self.by, x)


class _Point(Law):
    """A point mass, as a component of a mixture."""

    draws = ()
    gaussian = True

    def __init__(self, point: np.ndarray) -> None:
        self.mean, self.covariance, self.dim = point, np.zeros((len(point), len(point))), len(point)
        self.identity, self.label = f"point({_digest(point)})", f"point {_check.shown(point.tolist())}"

    def points(self, z: Any) -> Any:
        return spread(self.mean, z)


class _Gaussian(Law):
    """The law of mean + S z, where S is the symmetric square root of the covariance."""

    gaussian = True

    def __init__(self, mean: np.ndarray, root: np.ndarray, covariance: np.ndarray) -> None:
        self.dim, self.mean, self.covariance = len(mean), mean, covariance
        self.scale = np.diag(root).copy() if np.array_equal(root, np.diag(np.diag(root))) else None
        self.root, self.draws = root, (Normal(self.dim),)
        self.identity, self.label = f"gaussian({_digest(mean, covariance)})", f"Gaussian law of {self.dim} coordinates"

    def points(self, z: Any) -> Any:
        return spread(self.mean, z) + (self.root @ z if self.scale is None else spread(self.scale, z) * z)


class _Uniform(Law):
    """The law of low + (high - low) u, with independent coordinates."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.dim, self.low, self.width = len(low), low, high - low
        self.draws = (Uniform(self.dim),)
        self.mean, self.covariance = low + self.width / 2, np.diag(self.width**2 / 12)
        self.identity, self.label = f"uniform({_digest(low, high)})", f"uniform law of {self.dim} coordinates"

    def points(self, z: Any) -> Any:
        return spread(self.low, z) + spread(self.width, z) * z


class _Mixture(Law):
    """The mixture of the laws `parts` with probabilities `weights`, `(n,)`: a uniform draw selects the component, and all share the other draws."""

    def __init__(self, weights: np.ndarray, parts: Sequence[Law]) -> None:
        self.parts, self.dim = tuple(parts), parts[0].dim
        self.ends = np.cumsum(weights)[:-1].tolist()
        most = {kind: max(_count(part, kind) for part in parts) for kind in (Normal, Sign, Uniform)}
        own = [kind(n) for kind, n in most.items() if n]
        self.draws = (Uniform(1), *own)
        first = dict(zip([type(draw) for draw in own], (1 + np.cumsum([0, *(draw.n for draw in own)])).tolist()))
        self.rows = [_rows(part, first) for part in self.parts]
        if all(part.mean is not None for part in parts):
            means = np.stack([part.mean for part in parts])  # type: ignore[misc]
            self.mean = weights @ means
            if all(part.covariance is not None for part in parts):
                apart = means - self.mean
                within = np.einsum("i,ijk->jk", weights, np.stack([part.covariance for part in parts]))  # type: ignore[misc]
                self.covariance = within + np.einsum("i,ij,ik->jk", weights, apart, apart)
        self.identity = f"mixture({_digest(weights)}; {'; '.join(part.identity for part in parts)})"
        self.label = f"mixture of {len(parts)} starts"

    def points(self, z: Any) -> Any:
        *others, x = [part.points(_taken(z, rows)) for part, rows in zip(self.parts, self.rows)]
        for end, other in zip(self.ends[::-1], others[::-1]):
            x = np.where(z[0] < end, other, x)
        return x


def _count(part: Law, kind: type) -> int:
    return sum(draw.n for draw in part.draws if type(draw) is kind)


def _rows(part: Law, first: dict[Any, int]) -> list[slice]:
    """Return slices of the rows of a mixture's draws that its component `part` uses; `first` is the first row of each kind, by its class."""
    at, out = dict(first), []
    for draw in part.draws:
        out.append(slice(at[type(draw)], at[type(draw)] + draw.n))
        at[type(draw)] += draw.n
    return out


def _taken(z: Any, rows: Sequence[slice]) -> Any:
    if len(rows) == 1:
        return z[rows[0]]
    return np.concatenate([z[own] for own in rows]) if rows else z[:0]


class _Function(Law):
    """The law of a user's function of draws, with the mean `(dim,)` and the covariance `(dim, dim)` that the user states, each None if unknown."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        dim: int,
        draws: tuple[Draws, ...],
        mean: np.ndarray | None,
        covariance: np.ndarray | None,
    ) -> None:
        self.function, self.dim, self.draws, self.mean, self.covariance = function, dim, draws, mean, covariance
        n = few_paths(dim, self.n_draws)
        self.given = on_rows(function, *([z] for z in with_outliers(sample_draws(draws, np.random.default_rng(0), n))))
        stated = _digest(*(a for a in (mean, covariance) if a is not None))
        self.identity = f"function({dim}, {draws}; {function_identity(function)}; {stated})"
        self.label = f"law {getattr(function, '__name__', 'of a function')}"

    def points(self, z: Any) -> Any:
        found = self.given(z)
        count = len(found) if np.ndim(found) or isinstance(found, (list, tuple)) else -1
        if count != self.dim:
            raise ValueError(
                f"`function` of an initial law must return {self.dim} components, one per coordinate; it returned "
                f"{count if count >= 0 else _check.shown(found)}."
            )
        return components(found, z)


def gaussian(mean: Any, covariance: Any) -> Law:
    """Return the normal law N(mean, covariance).

    Args:
        mean: The mean, shape `(dim,)`.
        covariance: The covariance: a matrix `(dim, dim)`, its diagonal `(dim,)`, or a number, the variance of each coordinate. It may be singular.

    Raises:
        ValueError: If the matrix is not symmetric positive semidefinite, or if the shapes do not match.

    Example:
        >>> import sdetools as st
        >>> law = st.starts.gaussian([1.0], covariance=0.25)
        >>> flow = st.SDE(drift=["-x"], diffusion=["0"], variables="x")
        >>> st.exact.solution(flow, law, times=[1.0]).covariance.ravel().round(6)
        array([0.033834])
    """
    mean = _vector("mean", mean)
    root = symmetric_root(len(mean), covariance)
    given = np.asarray(covariance, dtype=float)
    return _Gaussian(mean, root, given.copy() if given.ndim == 2 else np.diag(np.broadcast_to(given, (len(mean),))).copy())


def uniform(low: Any, high: Any) -> Law:
    """Return the uniform law on a box, with independent coordinates.

    Args:
        low: The lower bounds, shape `(dim,)`.
        high: The upper bounds, shape `(dim,)`, at least `low`.

    Raises:
        ValueError: If a lower bound exceeds the upper bound, or if the shapes differ.

    Example:
        >>> import sdetools as st
        >>> st.starts.uniform([0.0, -1.0], [6.0, 1.0]).mean
        array([3., 0.])
    """
    low, high = _vector("low", low), _vector("high", high)
    if low.shape != high.shape or (low > high).any():
        raise ValueError(f"`low` must not exceed `high`, coordinate by coordinate; got {low.tolist()} and {high.tolist()}.")
    return _Uniform(low, high)


def mixture(weights: Any, starts: Sequence[Any]) -> Law:
    """Return the mixture of several laws or points.

    Args:
        weights: The probabilities of the components, one each, shape `(n,)`, 0 or above. They must sum to 1.
        starts: The components, a sequence of n laws or points `(dim,)`.

    Raises:
        ValueError: If a weight is negative, if the weights do not sum to 1, or if the components differ in dimension.

    Example:
        >>> import sdetools as st
        >>> law = st.starts.mixture([0.25, 0.75], [[-1.0], st.starts.gaussian([1.0], 2.0)])
        >>> law.mean, law.covariance
        (array([0.5]), array([[2.25]]))
    """
    weights = _vector("weights", weights)
    parts = [start if isinstance(start, Law) else _Point(_vector("starts", start)) for start in starts]
    if len(parts) != len(weights) or weights.min() < 0 or abs(weights.sum() - 1) > 1e-12:
        raise ValueError(
            f"`weights` must be {len(parts)} probabilities that sum to 1, one per component; got {_check.shown(weights.tolist())}."
        )
    if len({part.dim for part in parts}) > 1:
        raise ValueError(f"`starts` must have the same dimension; got {', '.join(str(part.dim) for part in parts)}.")
    return _Mixture(weights, parts)


def from_function(
    function: Callable[[Any], Any],
    dim: int,
    draws: Draws | Sequence[Draws],
    mean: Any = None,
    covariance: Any = None,
) -> Law:
    """Return the law of x_0 = function(z) for random draws z.

    Args:
        function: A function of the draws z, `(n,)` or `(n, paths)`, in plain NumPy, that returns `dim` components, each `()` or `(paths,)`.
        dim: The number of coordinates.
        draws: `Normal(n)`, `Sign(n)`, `Uniform(n)` of `st.noise`, or a sequence of them, whose rows z has in this order.
        mean: The mean of the law, shape `(dim,)`, where known. Exact expectations need it.
        covariance: The covariance of the law where known: a matrix `(dim, dim)`, a diagonal `(dim,)` or a number.

    Raises:
        ValueError: If an argument is invalid, the number of components is wrong, a point is not finite, or `mean` or `covariance` differ from the
            sample moments of up to 200,000 fixed draws by more than 6 standard errors (by chance with probability 2e-9 an entry, given fourth moments).

    Example:
        >>> import numpy as np, sdetools as st
        >>> ring = st.starts.from_function(lambda z: [np.cos(2 * np.pi * z[0]), np.sin(2 * np.pi * z[0])], dim=2, draws=st.noise.Uniform(1))
        >>> ring.points(np.array([0.25])).round(12)
        array([0., 1.])
        >>> st.starts.from_function(lambda z: [z[0] ** 2], dim=1, draws=st.noise.Normal(1), mean=[0.0])
        Traceback (most recent call last):
        ...
        ValueError: `mean` must be that of `function`; got 0 in entry (0), where draws give 0.9997 (standard error 0.0032).
    """
    dim = _check.count("dim", dim)
    wanted = tuple(draws) if isinstance(draws, (list, tuple)) else (draws,)
    if not wanted or not all(isinstance(d, (Normal, Sign, Uniform)) for d in wanted):
        raise ValueError(f"`draws` must be Normal(n), Sign(n), Uniform(n) or several of them; got {draws!r}.")
    if not callable(function):
        raise ValueError(f"`function` must be a function of the draws z; got {function!r}. For a fixed point pass x0=[1.0, 2.0].")
    if mean is not None:
        mean = _check.point("mean", mean, dim)
    if covariance is not None:
        given = _check.finite("covariance", covariance)
        covariance = _check.covariance("covariance", np.full(dim, float(given)) if given.ndim == 0 else given, dim)
    law = _Function(function, dim, wanted, mean, covariance)
    _check_moments(law)
    return law


def _check_moments(law: _Function) -> None:
    """Raise ValueError if points of a law are not finite, or a stated mean or covariance disagrees with that of sampled points."""
    stated = law.mean is not None or law.covariance is not None
    n = max(FEW_DRAWS, min(CHECK_DRAWS, CHECK_NUMBERS // max(law.dim, law.n_draws))) if stated else FEW_DRAWS
    x = law.sample(np.random.default_rng(20240613), n)
    if not np.isfinite(x).all():
        raise ValueError("`function` of an initial law must be finite; it returned a NaN or an infinity.")
    rounding = 1e-12 * max(float(np.abs(x).max()), 1e-300)
    seen = x.mean(axis=1)
    if law.mean is not None:
        _compare("mean", law.mean, seen, x.std(axis=1) / n**0.5, rounding)
    if law.covariance is not None:
        x = x - seen[:, None]
        seen = x @ x.T / n
        variance = np.maximum(x**2 @ (x**2).T / n - seen**2, 0.0)
        _compare("covariance", law.covariance, seen, np.sqrt(variance / n), rounding * (1 + np.abs(x).max()))


def _compare(name: str, stated: np.ndarray, seen: np.ndarray, stderr: np.ndarray, slack: Any) -> None:
    excess = np.abs(seen - stated) - CHECK_ERRORS * stderr - slack
    if (excess > 0).any():
        at = np.unravel_index(np.argmax(excess), excess.shape)
        place = ", ".join(map(str, at))
        raise ValueError(
            f"`{name}` must be that of `function`; got {stated[at]:.4g} in entry ({place}), where draws give {seen[at]:.4g} "
            f"(standard error {stderr[at]:.2g})."
        )


def checked(x0: Any, dim: int) -> np.ndarray | Law:
    """Return `x0` after validation: a law as it is, a point `(dim,)` or points `(dim, n)`, n >= 1, as an array of doubles; ValueError otherwise."""
    if isinstance(x0, Law):
        if x0.dim != dim:
            raise ValueError(f"`x0` must be a law of {dim} coordinates, as the loss has; got the {x0!r} with dim={x0.dim}.")
        return x0
    if isinstance(x0, type) or callable(x0):
        raise ValueError(
            f"`x0` must be a point, an array (dim, n), or a law; got {_check.shown(x0)}. Make a law with st.starts.from_function(...)."
        )
    out = _check.coordinates("x0", x0)
    if out.ndim == 2 and len(out) == dim and out.shape[1]:
        return out.copy()
    if out.ndim == 2:
        raise ValueError(
            f"`x0` must have shape ({dim},), one number per coordinate, or ({dim}, n), one point per column; got shape {out.shape}."
        )
    return _check.point("x0", out, dim)


def point(x0: Any, dim: int, asker: str) -> np.ndarray:
    """Return the point `x0` as an array of doubles `(dim,)`; ValueError for a law or several points. `asker` names the caller in the message."""
    if isinstance(x0, Law) or np.ndim(x0) == 2:
        received = f"the {x0!r}" if isinstance(x0, Law) else f"an array of shape {np.shape(x0)}"
        raise ValueError(f"`x0` of {asker} must be one point of shape ({dim},); got {received}. Simulate it with st.simulate.")
    return _check.point("x0", x0, dim)


def _vector(name: str, value: Any) -> np.ndarray:
    out = _check.finite(name, value)
    if out.ndim != 1 or not len(out):
        raise ValueError(f"`{name}` must have shape (dim,), one number per coordinate; got shape {out.shape}.")
    return out.copy()


def _digest(*arrays: np.ndarray) -> str:
    """Return a hash of the shapes and all bits of some arrays, 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}".encode() + np.ascontiguousarray(array, dtype=float).tobytes())
    return digest.hexdigest()[:32]
