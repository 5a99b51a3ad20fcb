r"""Distances in law between two samples: Wasserstein-1, Kolmogorov-Smirnov and energy, with confidence intervals and noise floors.

A mean E h tests a single function; a distance compares the whole laws. All three are norms of the difference of distribution functions
along a line. With the distribution functions F_t, G_t of <t, X> and <t, Y>,

    wasserstein    mean over t of  integral |F_t - G_t| dx           (one dimension: W_1; more: sliced over directions t)
    kolmogorov     sup |F - G|                                       (one dimension, or one coordinate)
    energy         c_d mean over t of  2 integral (F_t - G_t)^2 dx  =  2 E|X - Y| - E|X - X'| - E|Y - Y'|,  c_d = 1 / E|t_1|

so that the same bound, bootstrap and permutation test apply to all of them.

Value. The distance of the two empirical laws, exact, in O(N log N) operations for each direction. It is nonnegative and hence biased
upwards: two samples of one law have a distance of about `floor`, not 0. The bootstrap of the value itself is inconsistent there, because a
norm is not differentiable at 0 (L. Dümbgen, Probability Theory and Related Fields 95, 1993; Z. Fang and A. Santos, Review of Economic
Studies 86, 2019).

Interval. Let e = (F_n - F) - (G_m - G) be the noise. By the triangle inequality | ||F_n - G_m|| - ||F - G|| | <= ||e|| for any laws. The
law of ||e|| is approximated by the *centred* bootstrap process (F_n* - F_n) - (G_m* - G_m). This is consistent for all three norms
(E. Giné and J. Zinn, Annals of Probability 18, 1990); for W_1 if the integral of sqrt(F (1 - F)) is finite, slightly more than two moments
(E. del Barrio, E. Giné and C. Matrán, Annals of Probability 27, 1999). Hence `value` -+ its quantile has at least the nominal coverage:
approximately the nominal one for equal laws, more otherwise. For `energy` this is done with its square root, the norm. At levels
that the number of draws cannot resolve, the Gaussian bound P(||e|| > median + s z) <= 1 - Phi(z) is used, with s the largest standard
deviation of a linear functional in the unit ball (C. Borell, Inventiones Mathematicae 30, 1975).

Floor. The mean and a quantile of the distance under random splits of the pooled sample, a permutation test. For equal laws
P(value > floor_high) is at most 1 - confidence, for few paths and for ties as well; groups and knots (below) change this by less than a
per cent. If the value does not exceed `floor_high`, the interval starts at 0.

Cost. Groups of paths are resampled: at most about 256 for each of two samples of equal size, single paths in small samples. Their
distribution functions are evaluated at knots, which are densest in the tails: all points of small samples, 16,384 points of large ones,
512 for each direction of a sliced distance (where the noise of more than 262,144 paths is rescaled from a subset of that size). Compared
with all points of 2 x 100,000, the error is below 0.1 % for W_1 and energy of normals, 3 % upwards at 512 knots for lognormals, and the
Kolmogorov noise is 0.6 % too small. Counts and weights are integers, so that their products are exact in any order of summation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools.estimates.interval import ConfidenceInterval, HasInterval, Kind
from sdetools.estimates.resampling import KINDS, Resampling, chosen_knots
from sdetools.results.protocol import BY_HAND, Origin, Result, call_text

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

SLICED_KNOTS = 512
"""The number of knots for each direction of a sliced distance."""
SLICED_PATHS = 1 << 18
"""The largest number of paths that are resampled for a sliced distance; the noise of larger samples is rescaled."""


@dataclass(frozen=True, eq=False)
class Distance(HasInterval, Result):
    """A distance in law between two samples, with the confidence interval `[low, high]` of the true distance; the return value of `distance`.

    Attributes:
        value: The distance of the empirical laws; NaN if any path diverged.
        floor: The mean distance of two such samples of one law, the pooled one.
        floor_high: The quantile of that distance at `confidence`. Equal laws are rejected if the value exceeds it.
        n: The number of paths of the first sample.
        m: The number of paths of the second sample.
        kind: "wasserstein", "kolmogorov" or "energy".
        confidence: The confidence level of the interval and of `floor_high`.
        diverged: The number of diverged paths in both samples: those with a coordinate that is not finite.
        directions: The number of directions of a sliced distance; 0 in one dimension.
        direction_error: The standard error of the average over directions, as an estimate of that over all directions. The interval does not
            include it: it refers to the directions used, which depend on seed, dimension and number alone, so that the distances of several
            pairs are comparable.
        draws: Norms of the centred bootstrap process, `(resamples,)`, in ascending order; empty if any path diverged.
        scale: The s of the Gaussian bound in the module's docstring, used at levels that `draws` cannot resolve.
        origin: The call and the seed.

    Example:
        >>> import numpy as np, sdetools as st
        >>> rng = np.random.default_rng(0)
        >>> d = st.distance(rng.normal(0.0, 1.0, 10_000), rng.normal(0.5, 1.0, 10_000))
        >>> d
        W1 = 0.497 in [0.468, 0.526] (95 %, 10000 and 10000 paths; equal laws: 0.026, at most 0.053): resolved
        >>> d.resolved, d.low < 0.5 < d.high
        (True, True)
        >>> d.paths_for(0.01) > 10_000
        True
    """

    value: float
    floor: float
    floor_high: float
    n: int
    m: int
    kind: str
    confidence: float = 0.95
    diverged: int = 0
    directions: int = 0
    direction_error: float = 0.0
    draws: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)
    scale: float = 0.0
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def resolved(self) -> bool:
        """Whether the value exceeds `floor_high`, so that equal laws are rejected; the error probability is at most 1 - confidence."""
        return bool(self.value > self.floor_high)

    def confidence_interval(self, level: float | None = None) -> ConfidenceInterval:
        """Return the confidence interval of the true distance, infinite if the value is not finite; its lower end is 0 if the value is unresolved.

        Args:
            level: The confidence level, strictly between 0 and 1 (otherwise ValueError); None for that of the result.

        Example:
            >>> import numpy as np, sdetools as st
            >>> d = st.distance(np.arange(100.0), np.arange(50.0, 150.0), "kolmogorov")
            >>> (d.low, d.high) == tuple(d.confidence_interval()), d.confidence_interval(0.9999).low < d.low
            (True, True)
        """
        level = _check.confidence(self.confidence if level is None else level, "level")
        if not math.isfinite(self.value):
            return ConfidenceInterval.unknown(level, Kind.BOOTSTRAP)
        ends = _ends(self.kind, self.value, self.resolved, _radius(self.draws, self.scale, level))
        return ConfidenceInterval(*ends, level, Kind.BOOTSTRAP)

    @property
    def data(self) -> xarray.Dataset:
        """A dataset of the numbers `value`, `low`, `high`, `floor`, `floor_high`, `direction_error`, without dimensions; other fields are attributes."""
        import xarray

        fields = {name: getattr(self, name) for name in ("value", "low", "high", "floor", "floor_high", "direction_error")}
        own = {"kind": self.kind, "confidence": self.confidence, "paths": [self.n, self.m], "diverged": self.diverged}
        return xarray.Dataset(fields, attrs=own | {"directions": self.directions} | self.origin.attributes)

    def table(self) -> str:
        """Return a text table of the value, its interval, and the mean and quantile of the distance of two samples of one law."""
        rows = {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "equal laws, mean": self.floor,
            "equal laws, at most": self.floor_high,
        }
        return "\n".join(f"{name:<22} {value:>14.6g}" for name, value in rows.items())

    def plot(self, *, ax: Any = None) -> Figure:
        """Plot the value with its interval, and the range of distances of two samples of one law, on `ax` or a new figure; return the figure."""
        from sdetools.plots import figure_of, interval_plot

        label, equal = KINDS[self.kind].label, (f"equal laws, {100 * self.confidence:g} %", self.floor_high)
        return figure_of(interval_plot({label: (self.value, self.low, self.high)}, label, region=equal, ax=ax))

    def paths_for(self, size: float) -> int:
        """Return the number of paths in each sample that reduces `floor_high` to half of `size`, so that a distance of `size` is resolved.

        For "energy", the square of a norm, it is reduced to a quarter. ValueError is raised if `size` is not positive or a path diverged.
        """
        _check.positive("size", size)
        if not math.isfinite(self.floor_high):
            raise ValueError(
                "`paths_for` needs a finite floor; got paths that left the finite range. Take a smaller step for these."
            )
        ratio = (2.0 if KINDS[self.kind].power == 1 else 4.0) * self.floor_high / size
        return max(2, math.ceil(2 / (1 / self.n + 1 / self.m) * ratio ** (2 / KINDS[self.kind].power)))

    def __repr__(self) -> str:
        name = ("sliced " if self.directions and self.kind == "wasserstein" else "") + KINDS[self.kind].label
        paths = f"{self.n} and {self.m} paths"
        if not math.isfinite(self.value):
            divergence = f", {self.diverged} of them left the finite range" if self.diverged else ""
            return f"{name} = {self.value} ({paths}{divergence})"
        value, low, high, floor, floor_high = _rounded(self.value, self.low, self.high, self.floor, self.floor_high)
        lines = f"; {self.directions} directions, +- {self.direction_error:.2g} between them" if self.directions else ""
        return (
            f"{name} = {value} in [{low}, {high}] ({100 * self.confidence:g} %, {paths}{lines}; equal laws: {floor}, at most {floor_high}): "
            f"{'resolved' if self.resolved else 'unresolved'}"
        )


def distance(
    first: Any,
    second: Any,
    kind: str = "wasserstein",
    *,
    coordinate: int | None = None,
    directions: int = 64,
    confidence: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> Distance:
    r"""Return the distance in law between two independent samples, with its confidence interval and noise floor.

    In several dimensions W_1 and energy are averages over random directions t. The sliced W_1 is E W_1(<t, X>, <t, Y>) for t uniform on the
    sphere; the energy approximates 2 E|X - Y| - E|X - X'| - E|Y - Y'| of the vectors. W_1 and energy have the unit of x, the Kolmogorov
    distance has none. The noise floor is the distance that two such samples of one law have; the module's docstring derives it and the interval.

    Two runs with one seed share their draws; simulate the second with another `stream=` or seed. Positively correlated samples make the
    interval and the floor too wide, negatively correlated samples make them too narrow.

    Sources: N. Bonneel et al., Journal of Mathematical Imaging and Vision 51 (2015); M. Rowland et al., AISTATS 2019; G. Székely and
    M. Rizzo, Journal of Statistical Planning and Inference 143 (2013).

    Args:
        first: Points `(dim, paths)`, or `(paths,)` in one dimension, or a run of `st.simulate(..., keep_final=True)`; at least 2 paths.
        second: The other sample, in the same forms; its number of paths may differ.
        kind: "wasserstein", "kolmogorov" or "energy".
        coordinate: The index of the coordinate to compare; None for whole points, which "kolmogorov" refuses in several dimensions.
        directions: The number of directions in several dimensions: equally spaced with a random rotation in the plane, random orthogonal
            frames in higher dimensions.
        confidence: The confidence level of the interval and of `floor_high`, strictly between 0 and 1.
        resamples: The number of bootstrap draws and of permutations, at least 1 / (1 - confidence) - 1.
        seed: The seed of directions and resampling. The result depends on the points and the seed alone.

    Returns:
        The distance; NaN with an infinite interval if any path diverged, that is, has a coordinate that is not finite.

    Raises:
        ValueError: If an argument is invalid; the message states the rule and a remedy.

    Example:
        >>> import numpy as np, sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=1.0)
        >>> def last(eta, stream):
        ...     rule = st.SGD(oracle, st.schedules.constant(eta=eta), step_time=eta)
        ...     return st.simulate(rule, x0=[1.0], horizon=2.0, paths=4096, observe=["x"], keep_final=True, stream=stream)
        >>> [st.distance(last(0.5, 0), last(eta, 1), "kolmogorov").resolved for eta in (0.5, 0.25)]
        [False, True]

        A shift by d in the plane has the sliced W_1 E|<t, d>| = 2 |d| / pi:

        >>> x = np.random.default_rng(0).standard_normal((2, 100))
        >>> round(st.distance(x, x + np.array([[0.3], [0.4]])).value * np.pi / 2, 3)
        0.5
    """
    call = call_text(distance, locals())
    _check.choice("kind", kind, KINDS)
    x, y = _points("first", first), _points("second", second)
    if len(x) != len(y):
        raise ValueError(
            f"`first` and `second` must have one dimension; got {len(x)} and {len(y)}. Points are component first: shape (dim, paths)."
        )
    dim, n, m = len(x), x.shape[1], y.shape[1]
    if coordinate is not None:
        coordinate = _check.count("coordinate", coordinate, least=0)
        if coordinate >= dim:
            raise ValueError(f"`coordinate` must lie in 0..{dim - 1}; got {coordinate}.")
    elif dim == 1:
        coordinate = 0
    elif kind == "kolmogorov":
        raise ValueError(
            f"the Kolmogorov distance must have one dimension; got {dim}. Pass coordinate=0, or take kind='energy' for whole points."
        )
    directions = _check.count("directions", directions, least=2, hint="A single direction gives no standard error.")
    _check.confidence(confidence)
    resamples = _check.count("resamples", resamples)
    if _rank(resamples, confidence) > resamples:
        raise ValueError(
            f"`resamples` must be at least {math.ceil(1 / (1 - confidence) - 1e-6) - 1} to reach confidence={confidence!r}; got {resamples}."
        )
    seed = _check.count("seed", seed, least=0, most=(1 << 64) - 1)

    lines = 0 if coordinate is not None else directions
    diverged = sum(int(np.count_nonzero(~np.isfinite(points).all(axis=0))) for points in (x, y))
    if diverged:
        return Distance(math.nan, math.nan, math.inf, n, m, kind, confidence, diverged, lines, origin=Origin(call, seed))

    gauge = KINDS[kind]
    # The directions have their own generator, so that they depend on seed, dimension and number alone.
    resampling = Resampling(n, m, SLICED_PATHS if lines else max(n, m), resamples, np.random.default_rng([seed, 1]))
    knots = SLICED_KNOTS if lines else gauge.knots

    def along(direction: np.ndarray | None) -> tuple[float, float, np.ndarray, np.ndarray]:
        """Return the distance along a direction `(dim,)`, or of the coordinate for None, the error of the difference of means, and two arrays.

        The arrays `(resamples,)` are norms, to their power, of the centred bootstrap process and of the permuted difference.
        """
        a, b = (points[coordinate] if direction is None else direction @ points for points in (x, y))
        sorted_a, sorted_b = np.sort(a), np.sort(b)
        spread = math.sqrt(a.var(ddof=1) / n + b.var(ddof=1) / m)
        return gauge.exact(sorted_a, sorted_b), spread, *resampling.parts(a, b, chosen_knots(sorted_a, sorted_b, knots), gauge)

    projections = [along(direction) for direction in (unit_directions(dim, directions, seed) if lines else [None])]
    values, spreads, centred, permuted = (np.array(column) for column in zip(*projections))
    factor = _norm_constant(dim) if lines and gauge.power == 2 else 1.0
    value = factor * float(values.mean())
    permuted = np.sort(factor * permuted.mean(axis=0))
    centred = np.sort((factor * centred.mean(axis=0)) ** (1 / gauge.power))
    if kind == "wasserstein":
        # The covariance is nonnegative, so that among |s| <= 1 the constant has the largest variance; directions add up at worst.
        scale = float(spreads.mean())
    elif kind == "kolmogorov":
        scale = 0.5 * math.sqrt(1 / n + 1 / m)
    else:
        scale = math.sqrt(float(np.mean(centred**2)))  # the trace bounds the largest eigenvalue
    floor, floor_high = float(permuted.mean()), float(permuted[_rank(resamples, confidence) - 1])
    error = factor * _direction_error(values, dim) if lines else 0.0
    return Distance(value, floor, floor_high, n, m, kind, confidence, 0, lines, error, centred, scale, Origin(call, seed))


def _points(name: str, given: Any) -> np.ndarray:
    """Return the points of an array or a run as `(dim, paths)`, diverged paths included; ValueError about `name` if there are none."""
    if hasattr(given, "final"):
        given = given.final
        if given is None:
            raise ValueError(f"`{name}` must have its last points; got a run without them. Run it with keep_final=True.")
    try:
        if given is None:
            raise TypeError
        out = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(
            f"`{name}` must be an array of numbers of shape (dim, paths) or a run; got {type(given).__name__}. "
            "Pass run.final, or a run with keep_final=True."
        ) from None
    out = out[None] if out.ndim == 1 else out
    if out.ndim != 2 or not len(out) or out.shape[1] < 2:
        raise ValueError(
            f"`{name}` must have shape (dim, paths), component first, with at least 2 paths; got shape {np.shape(given)}. "
            "For several times compute several distances."
        )
    return out


def unit_directions(dim: int, count: int, seed: int) -> np.ndarray:
    """Return unit vectors `(count, dim)`, each uniform on the sphere up to its sign.

    In the plane they are equally spaced on a half circle; in higher dimensions they are random orthogonal frames of `dim` vectors, the last
    frame cut if `dim` does not divide `count`.

    Args:
        dim: The dimension, at least 2.
        count: The number of vectors.
        seed: The seed of the rotation, or of the frames.

    Example:
        >>> t = unit_directions(3, 6, seed=0)
        >>> bool(np.allclose(t[:3] @ t[:3].T, np.eye(3))), t.shape
        (True, (6, 3))
    """
    rng = np.random.default_rng([seed, 0])
    if dim == 2:
        angles = np.pi * (np.arange(count) + rng.random()) / count
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    frames = [np.linalg.qr(rng.standard_normal((dim, min(dim, count))))[0].T for _ in range(-(-count // dim))]
    return np.concatenate(frames)[:count]


def _direction_error(values: np.ndarray, dim: int) -> float:
    """Return a conservative standard error of the mean of `values`, the distances `(directions,)` along random directions of R^dim.

    Source: K. Wolter, Introduction to Variance Estimation, 2007, ch. 8.
    """
    if dim == 2:  # systematic sampling: successive differences around the half circle
        return math.sqrt(float(np.mean((values - np.roll(values, 1)) ** 2)) / 2 / len(values))
    frames = len(values) // dim
    if frames >= 4:
        values = values[: frames * dim].reshape(frames, dim).mean(axis=1)
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _norm_constant(dim: int) -> float:
    """Return c_d with |x| = c_d E|<t, x>| for t uniform on the sphere of R^d, c_d = sqrt(pi) Gamma((d + 1) / 2) / Gamma(d / 2)."""
    return math.sqrt(math.pi) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))


def _rank(draws: int, confidence: float) -> int:
    """Return the rank, from 1, of the one of `draws` sorted draws that a further draw does not exceed with probability `confidence` or more.

    It is above `draws` if there are too few of them. Source: B. Phipson, G. Smyth, SAGMB 9, 2010.
    """
    return math.ceil((draws + 1) * confidence - 1e-9)


def _radius(draws: np.ndarray, scale: float, confidence: float) -> float:
    """Return the `confidence` quantile of the noise's norm: of the sorted `draws` if over five lie beyond it, otherwise median + `scale` z."""
    from scipy.special import ndtri

    if len(draws) * (1 - confidence) > 5:
        return float(draws[_rank(len(draws), confidence) - 1])
    return float(np.median(draws) + scale * max(0.0, ndtri(confidence)))


def _ends(kind: str, value: float, resolved: bool, radius: float) -> tuple[float, float]:
    """Return the lower and upper end of the interval of a distance from the `radius` in its norm; the lower is 0 if not `resolved`."""
    power = KINDS[kind].power
    norm = value ** (1 / power)
    high = (norm + radius) ** power
    return max(0.0, norm - radius) ** power if resolved else 0.0, min(1.0, high) if kind == "kolmogorov" else high


def _rounded(value: float, *others: float) -> list[str]:
    """Return all numbers as texts in this order, rounded to the precision of an interval whose ends are the first two of `others`."""
    half = (others[1] - others[0]) / 2
    digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 6
    return [f"{number:.{digits}f}" if digits < 7 else f"{number:.3g}" for number in (value, *others)]
