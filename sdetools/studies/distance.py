r"""Distances in law between two samples of endpoints: Wasserstein-1, Kolmogorov-Smirnov, energy; each with an interval and its floor.

E h tests one function at a time; these see the whole law. All three are a norm of the difference of distribution functions, taken
along a line: with F_t, G_t the distribution functions of <t, X> and <t, Y>,

    wasserstein    mean over t of  integral |F_t - G_t| dx           (one dimension: W_1; more: sliced over directions t)
    kolmogorov     sup |F - G|                                       (one dimension, or one coordinate)
    energy         c_d mean over t of  2 integral (F_t - G_t)^2 dx  =  2 E|X - Y| - E|X - X'| - E|Y - Y'|,  c_d = 1 / E|t_1|

so that one argument, one bootstrap and one permutation serve them all.

The value. It is the distance of the two empirical laws (exact, O(N log N) a direction), hence never negative and biased upwards: samples
of one law lie about `floor` apart, not 0. The bootstrap of the value itself is inconsistent there (L. Dümbgen, Probability Theory and
Related Fields 95, 1993; Z. Fang and A. Santos, Review of Economic Studies 86, 2019), since a norm has no derivative at 0.

The interval. Write e = (F_n - F) - (G_m - G) for the noise. By the triangle inequality | ||F_n - G_m|| - ||F - G|| | <= ||e||, whatever the
laws. The law of ||e|| is that of the *centred* bootstrap process (F_n* - F_n) - (G_m* - G_m), consistent for all three norms (E. Giné and
J. Zinn, Annals of Probability 18, 1990; for W_1 if the integral of sqrt(F (1 - F)) is finite, a little more than two moments: E. del Barrio,
E. Giné and C. Matrán, Annals of Probability 27, 1999), so `value` -+ its quantile holds the true distance with at least the stated
probability: about exactly when the laws are equal, more often when they are not. For `energy` this is done with its square root, the norm.
At confidences that the draws cannot reach, the Gaussian bound P(||e|| > median + s z) <= 1 - Phi(z) serves, s the largest standard deviation of
a linear functional in the unit ball (C. Borell, Inventiones Mathematicae 30, 1975).

The floor. Mean and quantile of the distance under random splits of the pooled sample, a permutation test: for equal laws, whatever they are,
P(value > floor_high) is at most 1 - confidence, with few paths and ties as well; groups and knots (below) move that by parts of a per cent.
Where the value is not above `floor_high`, the interval reaches down to 0.

Cost. Resampling works on groups of paths (at most about 256 a sample of equal sizes, single paths for small samples), whose distribution
functions are held at knots that lie densest in the tails: all points of small samples, 16,384 of large ones, 512 a line when sliced (where
the noise of more than 262,144 paths is scaled from as many). Beside all points of 2 x 100,000 that errs by under 0.1 % for W_1 and energy
of normals, 3 % upwards at 512 knots for lognormals, and makes the Kolmogorov noise 0.6 % too small. Counts and weights are whole numbers,
so that their products are exact in any order of summation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools.estimates.interval import ConfidenceInterval, HasInterval, Kind
from sdetools.estimates.resampling import KINDS, Resampling, chosen_knots
from sdetools.studies.result_protocol import BY_HAND, Origin, Result, called

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

SLICED_KNOTS = 512
"""Points at which the noise of one of many lines is followed."""
SLICED_PATHS = 1 << 18
"""Paths of a sample that are resampled along many lines; the noise of more is scaled."""


@dataclass(frozen=True)
class Distance(HasInterval, Result):
    """A distance in law of two samples of `n` and `m` paths, with the interval `[low, high]` of the true one at `confidence`.

    `floor` is the mean distance that two such samples of one law (the pooled one) have, `floor_high` its quantile at `confidence`;
    `resolved` says that the value lies above that, so that equal laws are refuted. `directions` counts the lines of a sliced distance (0:
    none), `direction_error` is the standard error of their average as one over all directions. The interval leaves that error out: it
    is about these lines, which depend on seed, dimension and number alone, so that the distances of several pairs may be compared.
    `diverged` counts paths that left the finite range; with any the value is NaN and the interval is the whole line.

    >>> import numpy as np
    >>> from sdetools.studies.distance import distance
    >>> rng = np.random.default_rng(0)
    >>> d = distance(rng.normal(0.0, 1.0, 10_000), rng.normal(0.5, 1.0, 10_000))
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
    """Norms of the centred bootstrap process."""
    scale: float = 0.0
    """The largest standard deviation of a linear functional of the noise."""
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def resolved(self) -> bool:
        """Whether the value lies above `floor_high`; equal laws do so with probability 1 - confidence."""
        return bool(self.value > self.floor_high)

    def confidence_interval(self, level: float | None = None) -> ConfidenceInterval:
        """The interval at a level, by default at `confidence`; the whole line when the value is not finite.

        >>> import numpy as np
        >>> from sdetools.studies.distance import distance
        >>> d = distance(np.arange(100.0), np.arange(50.0, 150.0), "kolmogorov")
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
        """`value`, `low`, `high`, `floor`, `floor_high`: numbers without an axis."""
        import xarray

        fields = {name: getattr(self, name) for name in ("value", "low", "high", "floor", "floor_high", "direction_error")}
        own = {"kind": self.kind, "confidence": self.confidence, "paths": [self.n, self.m], "diverged": self.diverged}
        return xarray.Dataset(fields, attrs=own | {"directions": self.directions} | self.origin.attributes)

    def table(self) -> str:
        """The value, its interval, and what two samples of one law show, a line each."""
        rows = {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "equal laws, mean": self.floor,
            "equal laws, at most": self.floor_high,
        }
        return "\n".join(f"{name:<22} {value:>14.6g}" for name, value in rows.items())

    def plot(self, *, ax: Any = None) -> Figure:
        """The value with its interval, beside what two samples of one law show."""
        from sdetools.plots import figure_of, interval_plot

        label, equal = KINDS[self.kind].label, (f"equal laws, {100 * self.confidence:g} %", self.floor_high)
        return figure_of(interval_plot({label: (self.value, self.low, self.high)}, label, region=equal, ax=ax))

    def paths_for(self, size: float) -> int:
        """How many paths in each sample bring `floor_high` down to half of `size`, so that a distance of `size` is resolved."""
        _check.positive("size", size)
        if not math.isfinite(self.floor_high):
            raise ValueError("`paths_for` needs a finite floor; got paths that left the finite range. Mend those first.")
        ratio = (2.0 if KINDS[self.kind].power == 1 else 4.0) * self.floor_high / size
        return max(2, math.ceil(2 / (1 / self.n + 1 / self.m) * ratio ** (2 / KINDS[self.kind].power)))

    def __repr__(self) -> str:
        name = ("sliced " if self.directions and self.kind == "wasserstein" else "") + KINDS[self.kind].label
        paths = f"{self.n} and {self.m} paths"
        if not math.isfinite(self.value):
            lost = f", {self.diverged} of them left the finite range" if self.diverged else ""
            return f"{name} = {self.value} ({paths}{lost})"
        value, low, high, floor, floor_high = _told(self.value, self.low, self.high, self.floor, self.floor_high)
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
    r"""How far apart the laws of two samples lie: `kind` is "wasserstein", "kolmogorov" or "energy"; a `Distance` with interval and floor.

    `first`, `second`: points `(dim, paths)`, or `(paths,)` in one dimension, or runs of `st.simulate(..., keep_final=True)`, whose last points
    are taken; their numbers of paths may differ. `coordinate` compares the law of that one alone. In several dimensions W_1 and energy are
    averaged over `directions` lines drawn from `seed`: equally spaced with a random turn in the plane, random orthogonal frames beyond;
    the energy so approximates 2 E|X - Y| - E|X - X'| - E|Y - Y'| of the whole vectors, and the sliced W_1 is E W_1(<t, X>, <t, Y>) for t uniform
    on the sphere (N. Bonneel et al., Journal of Mathematical Imaging and Vision 51, 2015; M. Rowland et al., AISTATS 2019; G. Székely and M. Rizzo,
    Journal of Statistical Planning and Inference 143, 2013). W_1 and energy have the unit of x, the Kolmogorov distance none. The interval and
    the floor come from `resamples` bootstrap draws and permutations; how, and why not from a bootstrap of the value, is told at the head of
    `sdetools/studies/distance.py`. The result depends on the points and `seed` alone. ValueError for anything that does not fit.

    The two samples are taken as *independent*. Two runs of one seed share their draws: then give the second another `stream=` (or seed). Samples
    that move together only make interval and floor too wide; samples that move against each other make them too narrow.

    >>> import numpy as np
    >>> import sdetools as st
    >>> from sdetools.studies.distance import distance
    >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=1.0)
    >>> def last(eta, stream):
    ...     rule = st.SGD(oracle, st.schedules.constant(eta=eta), step_time=eta)
    ...     return st.simulate(rule, x0=[1.0], horizon=2.0, paths=4096, observe=["x"], keep_final=True, stream=stream)
    >>> distance(last(0.5, 0), last(0.5, 1), "kolmogorov").resolved, distance(last(0.5, 0), last(0.25, 1), "kolmogorov").resolved
    (False, True)

    A shift by d in the plane has the sliced W_1 E|<t, d>| = 2 |d| / pi:

    >>> x = np.random.default_rng(0).standard_normal((2, 100))
    >>> round(distance(x, x + np.array([[0.3], [0.4]])).value * np.pi / 2, 3)
    0.5
    """
    call = called(distance, locals())
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(map(repr, KINDS))}; got {kind!r}.")
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
    directions = _check.count(
        "directions", directions, least=2, hint="One line alone does not say how much the next would differ."
    )
    _check.confidence(confidence)
    resamples = _check.count("resamples", resamples)
    if _rank(resamples, confidence) > resamples:
        raise ValueError(
            f"`resamples` must be at least {math.ceil(1 / (1 - confidence) - 1e-6) - 1} to reach confidence={confidence!r}; got {resamples}."
        )
    seed = _check.count("seed", seed, least=0, most=(1 << 64) - 1)

    lines = 0 if coordinate is not None else directions
    lost = sum(int(np.count_nonzero(~np.isfinite(points).all(axis=0))) for points in (x, y))
    if lost:
        return Distance(math.nan, math.nan, math.inf, n, m, kind, confidence, lost, lines, origin=Origin(call, seed))

    gauge = KINDS[kind]
    # The directions have a generator of their own: they shall depend on seed, dimension and number alone.
    resampling = Resampling(n, m, SLICED_PATHS if lines else max(n, m), resamples, np.random.default_rng([seed, 1]))
    knots = SLICED_KNOTS if lines else gauge.knots

    def along(direction: np.ndarray | None) -> tuple[float, float, np.ndarray, np.ndarray]:
        a, b = (points[coordinate] if direction is None else direction @ points for points in (x, y))
        sorted_a, sorted_b = np.sort(a), np.sort(b)
        spread = math.sqrt(a.var(ddof=1) / n + b.var(ddof=1) / m)
        return gauge.exact(sorted_a, sorted_b), spread, *resampling.parts(a, b, chosen_knots(sorted_a, sorted_b, knots), gauge)

    done = [along(direction) for direction in (unit_directions(dim, directions, seed) if lines else [None])]
    values, spreads, centred, permuted = (np.array(column) for column in zip(*done))
    factor = _whole_from_lines(dim) if lines and gauge.power == 2 else 1.0
    value = factor * float(values.mean())
    permuted = np.sort(factor * permuted.mean(axis=0))
    centred = np.sort((factor * centred.mean(axis=0)) ** (1 / gauge.power))
    if kind == "wasserstein":
        # Of all |s| <= 1 the constant has the largest variance under a covariance that is nowhere negative; lines add up at worst.
        scale = float(spreads.mean())
    elif kind == "kolmogorov":
        scale = 0.5 * math.sqrt(1 / n + 1 / m)
    else:
        scale = math.sqrt(float(np.mean(centred**2)))  # the trace bounds the largest eigenvalue
    floor, floor_high = float(permuted.mean()), float(permuted[_rank(resamples, confidence) - 1])
    error = factor * _direction_error(values, dim) if lines else 0.0
    return Distance(value, floor, floor_high, n, m, kind, confidence, 0, lines, error, centred, scale, Origin(call, seed))


def _points(name: str, given: Any) -> np.ndarray:
    """Points `(dim, paths)` of an array or a run; lost paths may be in it."""
    if hasattr(given, "final"):
        given = given.final
        if given is None:
            raise ValueError(f"`{name}` must hold its last points; got a run without them. Run it with keep_final=True.")
    try:
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
            "Several times are several distances."
        )
    return out


def unit_directions(dim: int, count: int, seed: int) -> np.ndarray:
    """Unit vectors `(count, dim)`, each uniform on the sphere up to its sign: equally spaced in the plane, orthogonal frames beyond.

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
    """Standard error of the average over directions, on the safe side: see K. Wolter, Introduction to Variance Estimation, 2007, ch. 8."""
    if dim == 2:  # systematic sampling: successive differences around the half circle
        return math.sqrt(float(np.mean((values - np.roll(values, 1)) ** 2)) / 2 / len(values))
    frames = len(values) // dim
    if frames >= 4:
        values = values[: frames * dim].reshape(frames, dim).mean(axis=1)
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _whole_from_lines(dim: int) -> float:
    """|x| = c_d E|<t, x>| for t uniform on the sphere: c_d = sqrt(pi) Gamma((d + 1) / 2) / Gamma(d / 2)."""
    return math.sqrt(math.pi) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))


def _rank(draws: int, confidence: float) -> int:
    """Which of the sorted draws bounds one more of their kind with at least this probability (B. Phipson and G. Smyth, SAGMB 9, 2010)."""
    return math.ceil((draws + 1) * confidence - 1e-9)


def _radius(draws: np.ndarray, scale: float, confidence: float) -> float:
    """The quantile of the noise's norm: of the sorted draws where enough lie beyond it, else by the Gaussian bound."""
    from scipy.special import ndtri

    if len(draws) * (1 - confidence) > 5:
        return float(draws[_rank(len(draws), confidence) - 1])
    return float(np.median(draws) + scale * max(0.0, ndtri(confidence)))


def _ends(kind: str, value: float, resolved: bool, radius: float) -> tuple[float, float]:
    power = KINDS[kind].power
    norm = value ** (1 / power)
    high = (norm + radius) ** power
    return max(0.0, norm - radius) ** power if resolved else 0.0, min(1.0, high) if kind == "kolmogorov" else high


def _told(value: float, *others: float) -> list[str]:
    """Numbers with the decimals that the interval (the first two of `others`) leaves."""
    half = (others[1] - others[0]) / 2
    digits = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 6
    return [f"{number:.{digits}f}" if digits < 7 else f"{number:.3g}" for number in (value, *others)]
