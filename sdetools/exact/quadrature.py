"""The law of one-dimensional SGD by quadrature, for any loss and for Gaussian noise whose size may depend on the point.

The iterate after z has the law N(m_k(z), s_k(z)^2) with the mean m_k(z) = z - eta_k L'(z) and deviation s_k(z) of step k, so the densities p_k of z_k obey

    p_{k+1}(y) = int N(y; m_k(z), s_k(z)^2) p_k(z) dz,        p_1 = N(m_0(x_0), s_0(x_0)^2).

On an equidistant grid of spacing s/3, s the least deviation, the trapezoidal rule converges faster than any power of the spacing, because the integrand is
smooth and vanishes at both ends. The step is computed from the rule (`exact.linear`), so the method applies to any rule with one part
that is affine in z and in its single gradient, not only to SGD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.exact.closed_observables import Closed, closed, value_of
from sdetools.exact.linear import check_linear, open_step
from sdetools.exact.recorded import recorded
from sdetools.starts import point

_REACH = 9.0  # truncation of a step in standard deviations; the tail has probability 2e-19
_POINTS = 200_000
_WIDENINGS = 8
_ESCAPED = 1e-12


def transfer(
    dynamics: Any, x0: Sequence[float], steps: int, h: Any, record: Sequence[int] | None = None, resolution: float = 3.0
) -> np.ndarray:
    """Return E h(z_k) for the iterates z_k of one-dimensional SGD with Gaussian noise on any loss, by quadrature.

    Args:
        dynamics: SGD, or another rule without momentum and with one gradient per step, linear in z and in that gradient.
        x0: The initial point, shape `(1,)`.
        steps: The number of steps, 0 or more.
        h: The observable: an expression in the name of the loss's coordinate (x0 unless named), an `Absolute`, a `Below`, or an object with a method
            `value` from points `(1, points)` to `(points,)`. Kinks and jumps are integrated exactly for the two classes and for sums of
            c |a x + b|^p, exp, sin, cos, sign and polynomials. Any other h must be smooth.
        record: The recorded steps k, increasing; by default 0, ..., `steps`.
        resolution: The number of grid points per standard deviation of a step, at least 1.5. With the default the quadrature error is near
            rounding if loss, noise and h are analytic on the scale of one step; a comparison with 5.0 shows it.

    Returns:
        The expectations at the recorded steps, shape `(times,)`.

    Raises:
        ValueError: If the dimension is not 1, if the noise is not Gaussian or too small for the grid, if the rule does not qualify, or if
            paths diverge.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.double_well(), st.noise.gaussian(dim=1), sigma=2.0)
        >>> st.exact.transfer(st.SGD(oracle, st.schedules.constant(0.1)), x0=[0.0], steps=2, h="x**2").round(6)
        array([0.      , 0.04    , 0.087354])
    """
    check_linear(dynamics, "`exact.transfer`")
    oracle = dynamics.oracle
    x0 = point(x0, oracle.loss.dim, "exact.transfer")
    kept = recorded(record, _check.count("steps", steps, least=0))
    resolution = _check.number("resolution", resolution, "be a number >= 1.5")
    if resolution < 1.5:
        raise ValueError(
            f"`resolution` must be a number >= 1.5; got {resolution!r}. A coarser grid does not resolve the density of one step."
        )
    if oracle.loss.dim != 1 or len(dynamics.parts) != 1:
        raise ValueError(
            f"`exact.transfer` must have one coordinate and no momentum; got dim={oracle.loss.dim} and parts "
            f"{', '.join(dynamics.parts)}. On a quadratic loss use `exact.moments`."
        )
    if not oracle.noise.gaussian and np.any(oracle.covariance(x0[:, None] + np.linspace(-1, 1, 11))):
        raise ValueError(f"`exact.transfer` must have Gaussian noise; got {oracle.noise!r}. Its kernel is a normal density.")
    start = float(np.asarray(dynamics.start(x0)[0])[0])
    names = tuple(oracle.loss.names)
    observable = _Observable(closed(h, names, x0), value_of(h, names))
    rows = np.asarray(dynamics.coefficient_values(int(kept[-1])), dtype=float).reshape(int(kept[-1]), -1)
    kernels = _Kernels(dynamics, oracle)
    moving = np.array([not kernels.is_identity(row) for row in rows], dtype=bool)
    taken = np.concatenate([[0], np.cumsum(moving)])[kept]  # steps of rate zero are skipped
    rows, (kept, back) = rows[moving][: taken[-1]], np.unique(taken, return_inverse=True)
    low, high, spacing, quiet = _grid(kernels, rows, start, resolution)
    for _ in range(_WIDENINGS):
        values, escaped = _propagate(kernels, rows, start, quiet, low, high, spacing, kept, observable)
        if escaped <= _ESCAPED:
            return values[back]
        low, high = low - 0.25 * (high - low), high + 0.25 * (high - low)
    raise ValueError(
        f"`exact.transfer` must keep the probability on its grid; {escaped:.3g} of it leaves [{low:.3g}, {high:.3g}] "
        f"within {len(rows)} steps. The iterates diverge: use a smaller eta or fewer steps."
    )


class _Observable:
    """An observable h with a formula for E h under a normal law where one exists, and its values.

    Args:
        form: The closed form of h, or None.
        value: The function from points `(1, points)` to h.

    Attributes:
        form: The closed form, as given.
    """

    def __init__(self, form: Closed | None, value: Any) -> None:
        self.form, self._value = form, value

    def at(self, x: np.ndarray) -> np.ndarray:
        """Return h at points `(points,)`, in their shape."""
        return np.broadcast_to(np.asarray(self._value(x[None, :]), dtype=float), x.shape)

    def smoothed(self, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Return E h(u) for u ~ N(mean, deviation^2), entry by entry; only with a closed form."""
        assert self.form is not None
        return self.form.expectation(mean[:, None], (deviation**2)[:, None, None])


class _Kernels:
    """The normal law of the next iterate from a point, for a row of coefficients, that is the values of a step's coefficients such as (eta,).

    Args:
        dynamics: The rule, of one part in one coordinate.
        oracle: Its oracle, with Gaussian noise.
    """

    def __init__(self, dynamics: Any, oracle: Any) -> None:
        self._rule, self._oracle = dynamics.rule, oracle
        self._known: dict[bytes, tuple[float, ...]] = {}

    def is_identity(self, row: np.ndarray) -> bool:
        """Return whether a step with these coefficients leaves every point in its place, as at a rate of 0."""
        return self._coefficients(row)[:3] == (1.0, 0.0, 0.0)

    def normal(self, row: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the iterate after a step from points `z`, each in their shape `(points,)`."""
        a, b, g, u, d = self._coefficients(row)
        point = (u * z + d)[None, :]
        with np.errstate(over="ignore", invalid="ignore"):
            gradient = np.broadcast_to(self._oracle.loss.gradient(point), point.shape)[0]
            variance = np.broadcast_to(self._oracle.covariance(point), (1, 1, len(z)))[0, 0]
            return a * z + b + g * gradient, np.abs(g) * np.sqrt(variance)

    def _coefficients(self, row: np.ndarray) -> tuple[float, ...]:
        """Return (a, b, g, u, d) of the step z' = a z + b + g G with G the noisy gradient at u z + d; ValueError if it has several gradients."""
        key = row.tobytes()
        if key not in self._known:
            step = open_step(self._rule, [1], 1, row)
            if len(step.answers) != 1:
                raise ValueError(
                    f"`exact.transfer` must have one gradient per step; got {len(step.answers)}. Simulate it instead."
                )
            d, U, _ = step.points[0]
            self._known[key] = tuple(float(v.ravel()[0]) for v in (step.matrix, step.constant, step.answers[0], U, d))
        return self._known[key]


def _grid(kernels: _Kernels, rows: np.ndarray, start: float, resolution: float) -> tuple[float, float, float, int]:
    """Return (low, high, spacing, quiet): a first interval, the spacing of its grid, and the number of noiseless steps at the beginning (from a point mass).

    The spacing is the least deviation of a step in the interval over `resolution`. Probability at points without noise leaves the grid in `_matrix`.
    ValueError if the noiseless path from `start` does not remain finite; `rows` are the coefficients of all steps, `(steps, coefficients)`.
    """
    z, path, total, least, quiet = np.array([start]), [start], 0.0, math.inf, 0
    for k, row in enumerate(rows):
        z, deviation = kernels.normal(row, z)
        path.append(float(z[0]))
        size = float(deviation[0])
        if total == 0 and size == 0:
            quiet = k + 1
        total += size * size
        if size > 0:
            least = min(least, size)
    if not math.isfinite(total) or not np.all(np.isfinite(path)):
        raise ValueError("`exact.transfer` must have iterates that stay finite; the noiseless path does not. Take a smaller eta.")
    if total == 0:
        return start, start, 1.0, quiet
    reach = _REACH * math.sqrt(total)
    low, high = min(path) - reach, max(path) + reach
    sample = np.linspace(low, high, 2001)
    for row in rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])][:64]:
        deviation = kernels.normal(row, sample)[1]
        if np.any(deviation > 0):
            least = min(least, float(deviation[deviation > 0.0].min()))
    return low, high, least / resolution, quiet


def _propagate(
    kernels: _Kernels,
    rows: np.ndarray,
    start: float,
    quiet: int,
    low: float,
    high: float,
    spacing: float,
    kept: np.ndarray,
    observable: _Observable,
) -> tuple[np.ndarray, float]:
    """Return E h at the recorded steps, `(times,)`, and the largest probability that left the grid; values are incomplete if that exceeds 1e-12.

    Args:
        kernels: The laws of single steps.
        rows: The coefficients of the steps, `(steps, coefficients)`.
        start: The initial point.
        quiet: The number of noiseless steps at the beginning.
        low: The first point of the grid.
        high: The end of the interval of the grid.
        spacing: The distance of neighbouring points.
        kept: The recorded steps, increasing.
        observable: h.

    Raises:
        ValueError: If the grid has more than 200,000 points.
    """
    count = math.ceil((high - low) / spacing) + 1
    if count > _POINTS:
        raise ValueError(
            f"`exact.transfer` must have at most {_POINTS} grid points; the step with the smallest noise needs {count}. "
            "Keep the noise of a step away from zero, or simulate it."
        )
    grid = low + spacing * np.arange(count)
    marks = {int(k): i for i, k in enumerate(kept)}
    out, escaped, density, matrix, key = np.empty(len(kept)), 0.0, None, None, b""
    point = np.array([start])
    at_grid = observable.at(grid) if observable.form is None else np.empty(0)
    if 0 in marks:
        out[marks[0]] = observable.at(point)[0]
    for k, row in enumerate(rows):
        mean, deviation = kernels.normal(row, point if density is None else grid)
        if k < quiet:
            point = mean
            if k + 1 in marks:
                out[marks[k + 1]] = observable.at(point)[0]
            continue
        if k + 1 in marks and observable.form is not None:
            smoothed = observable.smoothed(mean, deviation)
            out[marks[k + 1]] = smoothed[0] if density is None else _inner(density, smoothed) * spacing
        if density is None:
            density = np.exp(-0.5 * ((grid - mean[0]) / deviation[0]) ** 2) / (deviation[0] * math.sqrt(2 * math.pi))
        else:
            if row.tobytes() != key:
                matrix, key = _matrix(grid, mean, deviation, spacing), row.tobytes()
            density = matrix @ density
        escaped = max(escaped, abs(1 - float(density.sum()) * spacing))
        if k + 1 in marks and observable.form is None:
            out[marks[k + 1]] = _inner(density, at_grid) * spacing
        if escaped > _ESCAPED:
            break
    return out, escaped


def _matrix(grid: np.ndarray, mean: np.ndarray, deviation: np.ndarray, spacing: float) -> Any:
    """Return K[i, j] = N(grid_i; mean_j, deviation_j^2) * spacing as a sparse matrix `(points, points)`, truncated at 9 standard deviations.

    `mean` and `deviation` are those of a step from each point of the grid. A column is 0 where the mean is not finite or far outside, or the deviation 0.
    """
    from scipy.sparse import coo_array

    n = len(grid)
    inside = (
        np.isfinite(mean)
        & (deviation > 0)
        & (mean > grid[0] - _REACH * deviation.max(initial=0.0, where=np.isfinite(deviation)))
        & (mean < grid[-1] + _REACH * deviation.max(initial=0.0, where=np.isfinite(deviation)))
    )
    source = np.flatnonzero(inside)
    centre = np.rint((mean[source] - grid[0]) / spacing).astype(int)
    half = np.ceil(_REACH * deviation[source] / spacing).astype(int)
    shift = np.arange(-int(half.max(initial=0)), int(half.max(initial=0)) + 1)
    target = centre[:, None] + shift
    keep = (np.abs(shift) <= half[:, None]) & (target >= 0) & (target < n)
    j = np.broadcast_to(source[:, None], target.shape)[keep]
    i = target[keep]
    weights = np.exp(-0.5 * ((grid[i] - mean[j]) / deviation[j]) ** 2) * (spacing / (deviation[j] * math.sqrt(2 * math.pi)))
    return coo_array((weights, (i, j)), shape=(n, n)).tocsr()


def _inner(density: np.ndarray, values: np.ndarray) -> float:
    """Return sum density * values, without the points of density 0, at which an observable may overflow."""
    present = density > 0
    return float(density[present] @ values[present])
