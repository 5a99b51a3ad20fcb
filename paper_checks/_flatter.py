"""Helpers of the checks of "Flatter, faster": problems with one mode across Gamma, their settling times, and the optimal momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from _plain import NON_FINITE_DISTANCE, ROUNDING, already_contradicted, relative_distance, value_or_nan

import sdetools as st
from sdetools.estimates import Estimate
from sdetools.exact.modes import flattening, relaxation_steps, settled, settling_time, transverse_modes
from sdetools.studies import Simulation

EPS = 0.2
"""Size of the label noise."""
FRACTION = 0.1
"""T is the last step at which the rms distance exceeds this fraction of its initial value. At 1/e, T would jump as a function of beta."""
RATIO = 2**0.25
"""The grid of 1 - beta consists of powers of this number, for every eta."""
WINDOW = 2
"""Number of grid points on either side of the shortest T that the parabola in log(1 - beta) is fitted to."""
RECORDS, DRAWS = 300, 2000
OBSERVED = "along", "across", "signed"


@dataclass(frozen=True)
class Problem:
    """A model with one mode across Gamma, f(x) = label, with noise of size eps on the labels.

    Attributes:
        name: Name in the report.
        loss: The loss.
        noise: The noise as a function of eps; its covariance is weight eps^2 grad f grad f^T on Gamma.
        start: A point of Gamma at a finite distance from the flattest minimum.
        near: A point of Gamma close to the flattest minimum.
        along: Observable, the squared distance from the flattest minimum.
        across: Observable, the squared distance from Gamma in f.
        signed: Observable that changes sign on overshooting.
        chi: Second derivative of the sharpness grad f . grad f along Gamma at the flattest minimum.
        weight: Factor of the noise covariance.
    """

    name: str
    loss: st.losses.Loss
    noise: Callable[[float], st.noise.Noise]
    start: Sequence[float]
    near: Sequence[float]
    along: str
    across: str
    signed: str
    chi: float
    weight: float = 1.0

    @cached_property
    def oracles(self) -> dict[float, st.NoisyOracle]:
        """The oracles so far, by eps: making one takes as long as a short run."""
        return {}

    def restoring_rate(self, eta: float, mu: Any, eps: float = EPS) -> Any:
        """Return r = eta^2 eps^2 chi / (4 mu^3) with mu = 1 - beta: see `sdetools.exact.modes`."""
        return eta**2 * self.weight * eps**2 * self.chi / (4 * mu**3)

    def damping(self, eta: float, r: float, eps: float = EPS) -> float:
        """Return the 1 - beta at which the restoring rate is r."""
        return (self.restoring_rate(eta, 1.0, eps) / r) ** (1 / 3)

    def run(
        self,
        run: Any,
        eta: float,
        mu: float,
        steps: int,
        eps: float = EPS,
        start: Any = None,
        momentum: Any = None,
        times: Any = None,
        **options: Any,
    ) -> Simulation:
        """Simulate heavy ball at learning rate `eta` and beta = 1 - `mu` for `steps` steps, by default from `start` at rest."""
        if eps not in self.oracles:
            self.oracles[eps] = st.NoisyOracle(self.loss, self.noise(eps))
        one = st.HeavyBall(self.oracles[eps], gamma=eta, beta=1 - mu, momentum=momentum, step_time=1.0)
        if times is None:
            times = np.append(0, np.unique(np.geomspace(max(1, steps / 50), steps, RECORDS).round()))
        observe = {name: getattr(self, name) for name in OBSERVED}
        begin = self.start if start is None else start
        return st.simulate(one, begin, float(steps), observe=observe, times=times, **run.options(**options))


def label_noise(root: Sequence[Sequence[str]], variables: Any) -> Callable[[float], st.noise.Noise]:
    """Return Rademacher noise with the given root as a function of eps."""
    return lambda eps: st.noise.rademacher(root=root, variables=variables, parameters={"eps": eps})


def valley() -> Problem:
    """Return the valley f = sqrt(1 + x^2) y with label 0: Gamma is y = 0, the sharpness is 1 + x^2."""
    loss = st.losses.from_expression("(1 + x**2)*y**2/2", variables="x y")
    noise = label_noise([["eps*x*y/sqrt(1 + x**2)"], ["eps*sqrt(1 + x**2)"]], "x y")
    return Problem("valley", loss, noise, [1.0, 0.0], [0.1, 0.0], "x**2", "(1 + x**2)*y**2", "x", chi=2.0)


def uv(n: int = 3) -> Problem:
    """Return the model f = U.V / sqrt(n) with label 1: Gamma is U.V = sqrt(n), the sharpness (|U|^2 + |V|^2)/n is smallest where U = V."""
    u, v = ([f"{name}{i}" for i in range(n)] for name in "uv")
    f = "(" + " + ".join(f"{a}*{b}" for a, b in zip(u, v, strict=True)) + f")/{math.sqrt(n)!r}"
    noise = label_noise([[f"eps*{name}/{math.sqrt(n)!r}"] for name in (*v, *u)], (*u, *v))
    along = " + ".join(f"({a} - {b})**2" for a, b in zip(u, v, strict=True))

    def start(apart: float) -> list[float]:
        middle, apart = math.sqrt((math.sqrt(n) + apart**2) / n), apart / math.sqrt(n)
        return [*(middle + apart * (-1) ** i for i in range(n)), *(middle - apart * (-1) ** i for i in range(n))]

    loss = st.losses.from_expression(f"({f} - 1)**2/2", variables=(*u, *v))
    return Problem("UV model", loss, noise, start(1.0), start(0.1), along, f"({f} - 1)**2", f"{u[0]} - {v[0]}", chi=4 / n)


def minibatch() -> Problem:
    """Return the valley with four samples, inputs 1 + 0.3 s and labels eps s' (1 + s/2), s, s' = +-1, in batches of one.

    Each input has two labels, which cannot both be fitted; at eps = 0 all samples can be interpolated. Mean squares: 1.09 for the input
    and 1.9625 eps^2 for input x label.
    """

    def slope(x: Any) -> tuple[Any, Any]:
        return x[0] * x[1] / np.sqrt(1 + x[0] * x[0]), np.sqrt(1 + x[0] * x[0])

    def noise(eps: float) -> st.noise.Noise:
        def deviation(x: Any, z: Any) -> list[Any]:
            f, a = np.sqrt(1 + x[0] * x[0]) * x[1], 1 + 0.3 * z[0]
            residual = a * (a * f - eps * z[1] * (1 + 0.5 * z[0])) - 1.09 * f
            return [residual * s for s in slope(x)]

        def covariance(x: Any) -> list[list[Any]]:
            variance = 0.36 * (1 + x[0] * x[0]) * x[1] * x[1] + 1.9625 * eps**2
            return [[variance * s * t for s in slope(x)] for t in slope(x)]

        return st.noise.from_function(deviation, 2, st.noise.Sign(2), covariance)

    loss = st.losses.from_expression("1.09*(1 + x**2)*y**2/2", variables="x y")
    return Problem("minibatch", loss, noise, [1.0, 0.0], [0.1, 0.0], "x**2", "(1 + x**2)*y**2", "x", chi=2.0, weight=1.9625)


def settling(found: Simulation, fraction: float = FRACTION) -> np.ndarray:
    """Return T, followed by draws from its normal approximation: the standard error of the rms divided by its rate of decay.

    Runs with different parameters use independent paths.
    """
    square, error = found.statistics.mean[:, 0], found.statistics.stderr[:, 0]
    rms = np.sqrt(square / square[0])
    value = settled(found.times, rms, fraction)
    beside = np.interp([0.97 * value, 1.03 * value], found.times, np.log(np.maximum(rms, 1e-300)))
    k = np.searchsorted(found.times, value)
    sigma = error[k] / (2 * square[k]) / abs(np.diff(beside)[0] / (0.06 * value)) if np.isfinite(value) else np.nan
    seed = round(1e6 * math.log(found.times[-1] + 1) + 1e3 * float(found.dynamics.plan.beta_values[0]))
    return value + np.append(0.0, sigma * np.random.default_rng(seed).standard_normal(DRAWS))


def estimate(rows: np.ndarray, paths: int, name: str = "") -> Estimate:
    """Return an `Estimate` from a value and draws from its sampling distribution."""
    return Estimate(float(rows[0]), float(np.std(rows[1:])), paths, name=name)


def exponent(etas: Sequence[float], times: np.ndarray) -> np.ndarray:
    """Return the slope of log times `(etas, rows)` in log eta, for each row."""
    return np.polyfit(np.log(etas), np.log(times), 1)[0]


@lru_cache
def scaling_function() -> Any:
    """Return the exact log of (1 - beta) T as a spline in log r, for r from 0.03 to 12; the grids of `sweep` lie between 0.036 and 12."""
    from scipy.interpolate import CubicSpline

    logs = np.linspace(math.log(0.03), math.log(12), 36)
    return CubicSpline(logs, [math.log(settling_time(math.exp(u), FRACTION)) for u in logs])


@lru_cache
def best_restoring_rate() -> float:
    """Return the r that minimises T for given eta and eps, the minimiser of r^{1/3} (1 - beta) T."""
    logs = np.linspace(math.log(0.3), math.log(2), 4001)
    return float(np.exp(logs[np.argmin(logs / 3 + scaling_function()(logs))]))


def shortest(times: np.ndarray) -> int:
    """Return the index of the shortest of the times `(mus, rows)`, where nan means that a run has not settled."""
    return int(np.argmin(np.nan_to_num(times[:, 0], nan=np.inf)))


def optimum(mus: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return (log of the best 1 - beta, log of its T) from times `(mus, rows)` by a parabola in log(1 - beta).

    The result is nan where the grid has no interior minimum.
    """
    k = shortest(times)
    near = slice(max(0, k - WINDOW), k + WINDOW + 1)
    if not (np.isfinite(times[near]).all() and WINDOW <= k < len(mus) - WINDOW):
        return np.full((2, times.shape[1]), np.nan)
    a, b, c = np.polyfit(np.log(mus[near] / mus[k]), np.log(times[near]), 2)
    return np.stack([math.log(mus[k]) - b / (2 * a), c - b * b / (4 * a)])


@dataclass(frozen=True)
class Sweep:
    """T over a grid of 1 - beta at one eta: measured `(mus, rows)` and by theory `(mus,)`."""

    eta: float
    mus: np.ndarray
    times: np.ndarray
    theory: np.ndarray

    @property
    def optimum(self) -> np.ndarray:
        """The optimum of the measured times."""
        return optimum(self.mus, self.times)

    @property
    def expected(self) -> np.ndarray:
        """The optimum of the theoretical times, by the same parabola."""
        return optimum(self.mus, self.theory[:, None])[:, 0]


def sweep(run: Any, problem: Problem, eta: float, stream: int, paths: int, half: int = 3) -> Sweep:
    """Measure T over a grid of 1 - beta around the theoretical optimum, of up to two more points where its minimum lies near an end.

    If the theory is wrong, the grid has no interior minimum.
    """
    centre = round(math.log(problem.damping(eta, best_restoring_rate())) / math.log(RATIO))

    def at(place: int) -> tuple[float, float, np.ndarray]:
        mu = RATIO ** float(centre + place)
        theory = math.exp(scaling_function()(math.log(problem.restoring_rate(eta, mu)))) / mu
        return mu, theory, settling(problem.run(run, eta, mu, math.ceil(1.7 * theory), stream=stream + 10 + place, paths=paths))

    low, high = -half, half
    rows = [at(place) for place in range(low, high + 1)]
    for _ in range(2):
        k = shortest(np.stack([times for *_, times in rows]))
        if k < WINDOW:
            low -= 1
            rows.insert(0, at(low))
        elif k >= len(rows) - WINDOW:
            high += 1
            rows.append(at(high))
    mus, theory, measured = (np.array(column) for column in zip(*rows, strict=True))
    return Sweep(eta, mus, measured, theory)


def across_steps(run: Any, problem: Problem, eta: float, mu: float) -> float:
    """Return tau_1, the last step at which the distance across Gamma exceeds 1/e of its initial value.

    The distance combines two starts a quarter of a period apart. The noise is off and the start close to Gamma, so that the motion is linear
    and deterministic.
    """
    values, vectors = np.linalg.eigh(problem.loss.hessian(problem.near))
    step = 1e-5 * vectors[:, -1]
    steps = math.ceil(2 * float(relaxation_steps(eta, 1 - mu, values[-1])))
    starts = (problem.near + step, None), (problem.near, step * math.sqrt(values[-1] / eta))
    found = [problem.run(run, eta, mu, steps, eps=1e-12, start=x, momentum=m, paths=1) for x, m in starts]
    square = sum(one.statistics.mean[:, 1] for one in found)
    return float(settled(found[0].times, np.sqrt(square / square[0]), math.exp(-1)))


def along_steps(run: Any, problem: Problem, eta: float, mu: float, eps: float, **options: Any) -> np.ndarray:
    """Return tau_2, the last step at which the rms distance along Gamma exceeds 1/e of its initial value, and draws of it."""
    steps = math.ceil(1.5 / (problem.restoring_rate(eta, mu, eps) * mu))
    return settling(problem.run(run, eta, mu, steps, eps, start=problem.near, **options), math.exp(-1))


def measure_modes(run: Any) -> None:
    """Compare the modes across Gamma with NumPy's eigenvalues of one step of (x_k, x_{k-1}), and tau_1 with their modulus."""
    cases = [(0.1, 0.5, 1.0), (0.3, 0.9, 2.0), (2.5, 0.6, 1.0), (0.01, 0.2, 3.0), (4.5, 0.5, 1.0), (0.3, 0.0, 1.7)]
    found = value_or_nan(transverse_modes, *np.transpose(cases)) * np.ones((2, len(cases)))
    taken = value_or_nan(relaxation_steps, *np.transpose(cases)) * np.ones(len(cases))
    for i, (eta, beta, lam) in enumerate(cases):
        own = np.linalg.eigvals(np.array([[1 + beta - eta * lam, -beta], [1.0, 0.0]], dtype=complex))
        own = own[np.argsort(-np.abs(own), kind="stable")]
        pairs = (own, own[::-1]) if np.allclose(*np.abs(own)) else (own,)
        away = min(relative_distance([found[:, i].real, found[:, i].imag], [pair.real, pair.imag]) for pair in pairs)
        name = f"eta = {eta:g}, beta = {beta:g}, lambda = {lam:g}"
        run.measure(f"{name}: modes beside the eigenvalues of a step", away, at_most=ROUNDING)
        # the reciprocal of a time: 0 where nothing decays
        falls = max(0.0, -math.log(np.abs(own[0])))
        run.measure(f"{name}: 1 / tau_1 beside them", relative_distance(1 + 1 / taken[i], 1 + falls), at_most=ROUNDING)


def measure_passages(run: Any) -> None:
    """Check the last passage of curves that decay, overshoot, jump to zero, never exceed the level or never fall below it."""
    times = np.array([0.0, 1.0, 2.5, 3.0, 4.5])
    curves = np.array([[1, 0.3, 0.05, 0.02, 0.01], [1, 0.05, 0.2, 0.08, 0.05], [1, 0.9, 0.5, 0.0, 0.0], [0.05] * 5, [0.2] * 5])
    # the logarithm of a curve is linear from 0.3 to 0.05, and from 0.2 to 0.08; a curve that jumps to 0 crosses at the jump
    between = math.log(0.3 / 0.1) / math.log(0.3 / 0.05), math.log(0.2 / 0.1) / math.log(0.2 / 0.08)
    expected = [1.0 + 1.5 * between[0], 2.5 + 0.5 * between[1], 3.0, -1.0, -1.0]
    found = value_or_nan(settled, times, curves, 0.1) * np.ones(5)
    away = relative_distance(np.where(np.isnan(found), -1.0, found), expected)
    run.measure("last passages of five curves, -1 where there is none", away, at_most=ROUNDING)


def series(r: float, terms: int = 22) -> tuple[np.ndarray, np.ndarray]:
    """Return the Taylor coefficients at s = 0 of E X and E X^2 from X = 1, V = A = 0, by applying the generator to monomials.

    The generator is G = V d/dX - (V + r A X) d/dV + (1 - A) d/dA + A d^2/dA^2 on X^i V^j A^n, applied exactly.
    """

    def applied(f: dict[tuple[int, int, int], float]) -> dict[tuple[int, int, int], float]:
        out: dict[tuple[int, int, int], float] = {}
        for (i, j, n), c in f.items():
            for key, factor in (
                ((i - 1, j + 1, n), i),
                ((i, j, n), -j - n),
                ((i + 1, j - 1, n + 1), -r * j),
                ((i, j, n - 1), n * n),
            ):
                if factor:
                    out[key] = out.get(key, 0.0) + c * factor
        return out

    rows = []
    for power in (1, 2):
        f, row = {(power, 0, 0): 1.0}, []
        for k in range(terms):
            row.append(sum(c for (_, j, n), c in f.items() if j == n == 0) / math.factorial(k))
            f = applied(f)
        rows.append(np.array(row))
    return rows[0], rows[1]


def measure_limit(run: Any) -> None:
    """Compare the limit's moments with their Taylor series, its settling time with its curve, and the optimal r with the statement."""
    for r in (0.3, 0.655, 1.0):
        times = np.array([0.0, 0.24, 0.3, 0.6])  # the series converges up to about 2
        found, powers = value_or_nan(flattening, r, times), times[:, None] ** np.arange(22)
        for power, row in zip(("mean", "square"), series(r), strict=True):
            away = relative_distance(getattr(found, power, math.nan) * np.ones(4), powers @ row)
            run.measure(f"r = {r:g}: {power} of X in the limit beside its Taylor series", away, at_most=1e-8)
        root = relative_distance(getattr(found, "rms", math.nan) * np.ones(4), np.sqrt(powers @ series(r)[1]))
        run.measure(f"r = {r:g}: rms of X in the limit beside it", root, at_most=1e-8)
        # with A replaced by its mean 1 - e^-s, by the Runge-Kutta method
        averaged, plain = value_or_nan(flattening, r, [1.0, 2.0], random=False), [by_mean_energy(r, end) for end in (1.0, 2.0)]
        for power in (1, 2):
            away = relative_distance(
                getattr(averaged, ("mean", "square")[power - 1], math.nan) * np.ones(2), np.power(plain, power)
            )
            run.measure(f"r = {r:g}: X to the {power} with the mean energy beside Runge and Kutta", away, at_most=1e-7)
    r = 0.655
    time = value_or_nan(settling_time, r, FRACTION)
    curve = getattr(value_or_nan(lambda: flattening(r, time + np.arange(0.0, 6.0, 0.25))), "rms", math.nan) * np.ones(24)
    run.measure("rms of the limit at its settling time", relative_distance(curve[0], FRACTION), at_most=1e-4)
    run.measure("rms of the limit later", float(np.nan_to_num(curve[1:], nan=NON_FINITE_DISTANCE).max()), at_most=FRACTION)
    if already_contradicted(run):
        return
    # three digits, as in the statement; the underlying curves are compared with their series above
    run.measure("r at which T is shortest", best_restoring_rate(), expected=0.655, tolerance=1e-3)


def by_mean_energy(r: float, end: float, steps: int = 400) -> float:
    """Solve X'' + X' + r (1 - e^-s) X = 0 from X = 1 at rest by the classical Runge-Kutta method."""

    def slope(s: float, u: np.ndarray) -> np.ndarray:
        return np.array([u[1], -u[1] - r * (1 - math.exp(-s)) * u[0]])

    u, h = np.array([1.0, 0.0]), end / steps
    for k in range(steps):
        s = k * h
        a = slope(s, u)
        b = slope(s + h / 2, u + h / 2 * a)
        c = slope(s + h / 2, u + h / 2 * b)
        u = u + h / 6 * (a + 2 * b + 2 * c + slope(s + h, u + h * c))
    return float(u[0])
