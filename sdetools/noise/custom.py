"""Noise given by a Python function, with a statistical validation of its mean and covariance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import components, few_paths, on_rows, with_outliers
from sdetools._identity import function_identity
from sdetools.graph.tracing import error_summary
from sdetools.noise.base import Draws, Noise, Normal, Sign, Uniform, over_paths, sample_draws
from sdetools.noise.laws import RootedNoise, gaussian

CHECK_PATHS, CHECK_NUMBERS, CHECK_LEAST = 200_000, 20_000_000, 2_000
"""Draws by which a declared covariance is checked: so many, fewer in high dimensions (so many numbers), but at least so many."""
CHECK_ROWS = 512
"""The largest number of coordinates whose covariance is checked; of more, as many are chosen at random."""
CHECK_ERRORS = 6.0
"""The largest deviation of a sample mean or covariance from the stated one, in standard errors."""


class FunctionNoise(Noise):
    """A noise v = value(x, z) given by a Python function, with a covariance that the user states; made by `from_function`.

    The arguments are those of `from_function`, already validated there.

    Args:
        value: `value(x, z)` returns `dim` components.
        dim: Number of coordinates.
        draws: The random numbers of one evaluation, a tuple of `Normal(n)`, `Sign(n)` and `Uniform(n)`.
        covariance: Cov v, a matrix `(dim, dim)` or a function of x that returns `dim` rows of `dim` entries.
        state_dependent: Whether the law of v depends on x.
        gaussian: Whether v is Gaussian given x.

    Attributes:
        function: The argument `value`.
        stated: The argument `covariance`.
        given: `function` in a form that may be called with many paths at once: itself, or a wrapper that calls it path by path if it mixes
            paths, as `np.linalg.norm` does.
    """

    latex = r"v(x, \xi)"

    def __init__(
        self,
        value: Callable[[Any, Any], Any],
        dim: int,
        draws: tuple[Draws, ...],
        covariance: np.ndarray | Callable[[Any], Any],
        state_dependent: bool,
        gaussian: bool,
    ) -> None:
        self.function, self.stated = value, covariance
        self.dim, self.draws = dim, draws
        self.state_dependent, self.gaussian = state_dependent, gaussian
        name = function_identity(covariance) if callable(covariance) else "constant"
        self.identity = f"function({dim}, {draws}; {function_identity(value)}; {name})"
        points = np.random.default_rng(0).uniform(0.2, 1.0, (dim, few_paths(dim)))
        z = sample_draws(draws, np.random.default_rng(1), points.shape[1])
        self.given = on_rows(value, *([x, z] for x in with_outliers(points)), *([points, far] for far in with_outliers(z)))
        self.label = f"noise {getattr(value, '__name__', 'of a function')}"

    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        """Return v, the components that `function` gives, in the shape of `x`.

        `x` are points `(dim,)` or `(dim, paths)`, `z` draws `(n_draws,)` or `(n_draws, paths)` with the same paths; `p` is not used.
        """
        return components(self.given(x, z), x)

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the stated covariance at points `x`: `(dim, dim)` for `(dim,)`, `(dim, dim, paths)` for `(dim, paths)`; `p` is not used.

        It is a read-only view if a matrix was given, and a new array if a function was.
        """
        if not callable(self.stated):
            return over_paths(self.stated, x)
        return np.stack([components(row, x) for row in self.stated(x)])

    def as_gaussian(self) -> Noise:
        """Return this noise if it is Gaussian, else Gaussian noise of the stated covariance; ValueError if that is a function."""
        if self.gaussian:
            return self
        if callable(self.stated):
            raise ValueError(
                f"`as_gaussian` must know a square root of the covariance; got {self.label}, whose covariance is a function. "
                "Make the Gaussian noise with noise.gaussian(dim, root=...)."
            )
        return _gaussian_of(self.stated)


def from_function(
    value: Callable[[Any, Any], Any],
    dim: int,
    draws: Draws | Sequence[Draws],
    covariance: Any,
    *,
    state_dependent: bool = True,
    gaussian: bool = False,
    at: Any = None,
    check: bool = True,
) -> FunctionNoise:
    """Return the noise v = value(x, z) of a Python function, with mean 0 and the covariance that the caller states.

    The mean and the covariance are validated at one point, on 200,000 draws of a fixed seed. A deviation of more than 6 standard errors is an
    error; for a correct law with fourth moments its probability is about 2e-9 for each entry.

    Args:
        value: `value(x, z)` returns a sequence of `dim` components, by arithmetic on the components x[0], x[1], ... and on the draws z[0],
            z[1], ...; each is a number for one path, and an array `(paths,)` for many.
        dim: Number of coordinates.
        draws: The random numbers of one evaluation: `Normal(n)`, `Sign(n)`, `Uniform(n)` or a sequence of them, in the order of z.
        covariance: Cov v: a matrix `(dim, dim)`, a diagonal `(dim,)`, a number (its multiple of the identity), or a function `covariance(x)`
            that returns `dim` rows of `dim` entries.
        state_dependent: Whether the law of v depends on x.
        gaussian: Whether v is Gaussian given x; it is not validated.
        at: The point of the validation, `(dim,)`; by default a fixed one with coordinates between 0.2 and 1.
        check: Whether the mean and the covariance are validated. Beyond 100 coordinates there are fewer draws, 2,000 at least, and beyond 512
            only the covariance of 512 random coordinates is compared.

    Returns:
        The noise, for the argument `noise` of `NoisyOracle`.

    Raises:
        ValueError: If an argument has a wrong form, or in the validation: if `value` is not finite, or the mean or the covariance is wrong.

    Example:
        >>> import numpy as np
        >>> from sdetools import noise
        >>> product = noise.from_function(lambda x, z: [z[0] * z[1]], dim=1, draws=noise.Sign(2), covariance=1.0)
        >>> product.value(np.array([0.0]), np.array([1.0, -1.0]))
        array([-1.])
        >>> noise.from_function(lambda x, z: [z[0] + 0.5], dim=1, draws=noise.Normal(1), covariance=1.0)
        Traceback (most recent call last):
        ...
        ValueError: `value` must have mean zero; got a mean of 0.5 (standard error 0.0022) in coordinate 0. Subtract it.
    """
    dim = _check.count("dim", dim)
    wanted = tuple(draws) if isinstance(draws, (list, tuple)) else (draws,)
    if not wanted or not all(isinstance(d, (Normal, Sign, Uniform)) for d in wanted):
        raise ValueError(f"`draws` must be Normal(n), Sign(n), Uniform(n) or several of them; got {draws!r}.")
    if not callable(value):
        raise ValueError(
            f"`value` must be a function of (x, z); got {value!r}. For a constant root take noise.gaussian(root=...)."
        )
    if not callable(covariance):
        matrix = _check.finite("covariance", covariance)
        covariance = _check.covariance("covariance", np.full(dim, float(matrix)) if matrix.ndim == 0 else matrix, dim)
    noise = FunctionNoise(value, dim, wanted, covariance, bool(state_dependent), bool(gaussian))
    if check:
        _check_moments(noise, at)
    return noise


def _check_moments(noise: FunctionNoise, at: Any) -> None:
    """Raise ValueError unless the mean is 0 and the covariance is the stated one, to 6 standard errors, at the point `at` or a random one."""
    generator = np.random.default_rng(20240101)
    at = generator.uniform(0.2, 1.0, noise.dim) if at is None else _check.point("at", at, noise.dim)
    paths = min(CHECK_PATHS, max(CHECK_NUMBERS // noise.dim, CHECK_LEAST))
    z = sample_draws(noise.draws, generator, paths)
    x = np.repeat(at[:, None], paths, axis=1)
    try:
        returned = noise.given(x, z)
    except (IndexError, TypeError) as error:
        raise ValueError(
            f"`value` must take (x, z) with {noise.dim} coordinates and {noise.n_draws} draws; calling it raised {error_summary(error)}."
        ) from error
    count = len(returned) if hasattr(returned, "__len__") else None
    if count != noise.dim:
        got = f"{returned!r:.60}" if count is None else count
        raise ValueError(
            f"`value` must return {noise.dim} components, one for each coordinate; got {got}. Return a list such as [z[0], z[1]]."
        )
    v = components(returned, x)
    if not np.all(np.isfinite(v)):
        raise ValueError(f"`value` must be finite; got a NaN or an infinity at x={at.tolist()}. Give at= a point of its domain.")
    stated = _given_covariance(noise, at)
    largest = max(float(np.abs(v).max()), 1e-300)
    rounding = 1e-12 * largest
    mean, stderr = v.mean(axis=1), v.std(axis=1) / paths**0.5
    for i in np.flatnonzero(np.abs(mean) > CHECK_ERRORS * stderr + rounding)[:1]:
        raise ValueError(
            f"`value` must have mean zero; got a mean of {mean[i]:.2g} (standard error {stderr[i]:.2g}) in coordinate {i}. Subtract it."
        )
    chosen = np.sort(generator.choice(noise.dim, min(noise.dim, CHECK_ROWS), replace=False))
    u = v[chosen] / largest  # so that no square overflows
    sample = u @ u.T / paths
    error = np.sqrt(np.maximum((u * u) @ (u * u).T / paths - sample**2, 0.0) / paths) * largest**2
    sample, wanted = sample * largest**2, stated[np.ix_(chosen, chosen)]
    for a, b in np.argwhere(np.abs(sample - wanted) > CHECK_ERRORS * error + rounding * (1 + largest))[:1]:
        raise ValueError(
            f"`covariance` must be that of `value`; got {wanted[a, b]:.4g} in entry ({chosen[a]}, {chosen[b]}) at x={_check.shown(at.tolist())}, "
            f"where {paths} draws give {sample[a, b]:.4g} (standard error {error[a, b]:.2g}). Correct one of the two."
        )


def _given_covariance(noise: FunctionNoise, at: np.ndarray) -> np.ndarray:
    """Return the stated covariance at the point `at`, `(dim, dim)`; ValueError if it is not a covariance of this shape."""
    rows = noise.stated(at) if callable(noise.stated) else noise.stated
    try:
        out = np.array(rows if isinstance(rows, np.ndarray) else [[float(entry) for entry in row] for row in rows], dtype=float)
    except TypeError:
        out = np.zeros(0)
    if out.shape != (noise.dim, noise.dim):
        raise ValueError(f"`covariance` must return {noise.dim} rows of {noise.dim} entries; got {rows!r}.")
    return _check.covariance("covariance", out, noise.dim)


def _gaussian_of(covariance: np.ndarray) -> RootedNoise:
    """Return the Gaussian noise with a constant covariance `(dim, dim)`."""
    return gaussian(covariance=covariance)
