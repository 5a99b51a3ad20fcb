"""Helpers of the checks of Theorem 3.5: the compared pair, exact gap curves and the tolerances of measured ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from _plain import ROUNDING, averaged, draws, follow, gap_path, moments, normal_power, relative_distance, sgd, sgdm

import sdetools as st
from sdetools.estimates import Estimate, SupEstimate
from sdetools.studies import OrderStudy, WeakGap

START = [1.0]
SMOOTH = ("x", "x**2")
LIPSCHITZ = "abs(x - 1)"
HOELDER = "abs(x - 1)**0.5"
OBSERVE = [*SMOOTH, LIPSCHITZ, HOELDER]
"""Test functions from smooth to rough. The rough ones have their kink at the start."""

SPREAD = {"x": 0.8, "x**2": 6.0, LIPSCHITZ: 1.4, HOELDER: 0.8}
"""Standard deviation of the largest gap, for one path with the control variate and relative to the gap. These are upper bounds from a
pilot run on the quadratic, for 1 - beta from 0.01 to 0.5 and eta from 2^-4 to 2^-12. They set the resolution of a number of paths.
"""

EIGHT = 8.0
"""Standard errors in a tolerance: 3.5 for the band of a gap at its maximum, at a verdict's level, and 4.5 for the largest error of 30 gaps."""


def pair(oracle: st.NoisyOracle, plan: st.Plan) -> tuple[st.SGDM, st.SGD]:
    """Return SGDM and SGD on the averaged schedule."""
    return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())


def quadratic(eta: float, noise: Any = None) -> st.NoisyOracle:
    """Return the oracle of L = x^2 / 2 with sigma = eta^-1/2, the largest noise scale that the theorem allows."""
    return st.NoisyOracle(st.losses.from_expression("x**2/2"), noise or st.noise.gaussian(dim=1), sigma=eta**-0.5)


PLAIN = {
    "x": (lambda x: x, lambda mean, variance: mean),
    "x**2": (lambda x: x**2, lambda mean, variance: mean**2 + variance),
    LIPSCHITZ: (lambda x: np.abs(x - 1), lambda mean, variance: normal_power(mean - 1, variance, 1)),
    HOELDER: (lambda x: np.abs(x - 1) ** 0.5, lambda mean, variance: normal_power(mean - 1, variance, 0.5)),
}
"""Reference implementations of the test functions: their values, and their expectations under a normal law."""


def plain_expectations(etas: np.ndarray, betas: np.ndarray, variance: float, tests: Sequence[str] = OBSERVE) -> dict[str, Any]:
    """Return (E h(x_k), E h(z_k)), k = 0 ... K, of SGDM and of SGD at the averaged rates on x^2 / 2, by plain recursions from START."""
    one = moments(sgdm, (*START, 0.0), np.column_stack([etas, betas]), 1.0, variance)
    two = moments(sgd, START, averaged(etas, betas)[:, None], 1.0, variance)
    return {h: tuple(PLAIN[h][1](mean[:, 0], spread[:, 0, 0]) for mean, spread in (one, two)) for h in tests}


def exact_curves(
    gaps: Iterable[WeakGap], schedules: Iterable[Any], tests: Sequence[Any] = OBSERVE
) -> dict[Any, list[np.ndarray]]:
    """Return the exact gap curve of each pair at its recorded steps, for each test function.

    `schedules` holds (etas, betas, noise variance) as the claim states them. It is independent of the library's plans.
    """
    curves: dict[Any, list[np.ndarray]] = {h: [] for h in tests}
    for gap, (etas, betas, variance) in zip(gaps, schedules, strict=True):
        found = plain_expectations(etas, betas, variance, tests)
        for h in tests:
            curves[h].append((found[h][0] - found[h][1])[gap.steps])
    return curves


def constant_schedule(eta: float, beta: float, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return eta and beta of every step, and the noise variance 1 / eta of the oracle `quadratic`."""
    return np.full(steps, eta), np.full(steps, beta), 1 / eta


def measure_equations(
    run: Any, name: str, dynamics: Any, schedule: Any, tests: Sequence[str] = OBSERVE, steps: int | None = None
) -> None:
    """Compare a pair on x^2 / 2 with the paper's equations, step by step: the gap along one path of the kernel, and the exact gap.

    `steps` limits the comparison where the schedule is longer than the run.
    """
    etas, betas, variance = schedule
    steps, (first, second) = steps or len(etas), dynamics
    measure_path(run, name, dynamics, schedule, tests, lambda x: x, lambda z, x: z, steps)
    if first.oracle.noise.gaussian:
        plain = plain_expectations(etas, betas, variance, tests)
        for h in tests:
            found = [st.exact.expectation(st.exact.moments(one, START, steps), h) for one in (first, second)]
            away = max(relative_distance(curve, other[: steps + 1]) for curve, other in zip(found, plain[h], strict=True))
            run.measure(f"{name}, {h}: E h(x_k) and E h(z_k) beside plain recursions", away, at_most=ROUNDING)


def measure_path(
    run: Any, name: str, dynamics: Any, schedule: Any, tests: Sequence[str], gradient: Any, noise: Any, steps: int
) -> None:
    """Compare the coupled gap h(x_k) - h(z_k) along one path of the kernel with a reference implementation of SGDM and SGD, at every k.

    `gradient(x)` and `noise(z, x)`, the noise value for the draws of a step, are plain functions of the claim.
    """
    etas, betas, variance = schedule
    first, sigma = dynamics[0], math.sqrt(variance)
    found = gap_path(dynamics, START, steps, list(tests), run.seed)
    z = draws(first, steps, run.seed)

    def noisy(k, x):
        return gradient(x) + sigma * noise(z[k], x)

    x0 = np.array(START)
    x = follow(sgdm, (x0, 0 * x0), np.column_stack([etas, betas])[:steps], noisy)[:, 0]
    y = follow(sgd, (x0,), averaged(etas, betas)[:steps, None], noisy)[:, 0]
    for o, h in enumerate(tests):
        away = relative_distance(found[:, o], PLAIN[h][0](x) - PLAIN[h][0](y))
        run.measure(f"{name}, {h}: the gap along one path beside Definitions 2.2 and 2.3", away, at_most=ROUNDING)


def fitted_order(etas: Sequence[float], gaps: Sequence[float]) -> float:
    """Return the least-squares slope of log gap against log eta."""
    return float(np.polyfit(np.log(etas), np.log(gaps), 1)[0])


def sups(curves: Iterable[np.ndarray]) -> np.ndarray:
    """Return the largest absolute gap of each curve."""
    return np.array([np.abs(curve).max() for curve in curves])


def largest_relative_error(measured: Sequence[Estimate], exact: Sequence[float]) -> SupEstimate:
    """Return the largest relative error of measured gaps with respect to exact ones.

    Its interval comes from a simultaneous band over all of them. It starts at 0 when every band covers its exact value.
    """
    away = np.array([e.value / value - 1 for e, value in zip(measured, exact, strict=True)])
    errors = np.array([e.stderr / value for e, value in zip(measured, exact, strict=True)])
    k, diverged = int(np.abs(away).argmax()), sum(e.diverged for e in measured)
    return SupEstimate(
        float(np.abs(away[k])), float(errors[k]), measured[0].n, diverged=diverged, curve=away, errors=errors, argmax=k
    )


def measure_against_exact(
    run: Any, name: str, found: OrderStudy, paths: int, spread: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Compare simulated gaps with the exact ones at the same steps, to eight standard errors, as in `gap_tolerance`.

    `spread` is the standard error of the largest gap under each test function, for one path and relative to the gap.
    """
    curves = {}
    for h in spread:
        curves[h] = sups(st.exact.gap(g.first, g.second, START, int(g.steps[-1]), h, record=g.steps) for g in found.gaps)
        off = largest_relative_error(found.estimates(h), curves[h])
        run.measure(f"{name}, {h}: farthest from the exact gap", off, at_most=EIGHT * spread[h] / math.sqrt(paths))
    return curves


def gap_tolerance(h: str, paths: int, spread: Mapping[str, float] = SPREAD) -> float:
    """Return eight standard errors of a relative gap: see `EIGHT`."""
    return EIGHT * spread[h] / math.sqrt(paths)


def order_tolerance(h: str, paths: int, etas: Sequence[float], spread: Mapping[str, float] = SPREAD) -> float:
    """Return six standard errors of a fitted order if all gaps had that of the noisiest one, which are ten of a measured order or more."""
    logs = np.log(etas)
    return 6 * spread[h] / math.sqrt(paths) / float(np.linalg.norm(logs - logs.mean()))


def limit(local: Sequence[float], grid: float = 1e-3) -> tuple[float, float]:
    """Return the limit of a sequence of local orders by Aitken's extrapolation and, as its tolerance, the size of the extrapolation.

    `grid` bounds the change of a local order when a maximum is taken over whole or recorded steps.
    """
    a, b, c = local[-3:]
    carried = 0.0 if abs(c - b) < grid / 10 else (c - b) ** 2 / (2 * b - a - c)
    return c + carried, abs(carried) + grid


def measure_sups(run: Any, name: str, found: Sequence[SupEstimate]) -> None:
    """Check that each reported supremum is the maximum of its own curve."""
    away = relative_distance([e.value for e in found], [np.abs(e.curve).max() for e in found])
    run.measure(f"{name}: largest gaps beside the largest of their curves", away, at_most=ROUNDING)


def measure_study(
    run: Any,
    name: str,
    study: OrderStudy,
    exact: Mapping[str, np.ndarray],
    tests: Sequence[str],
    spread: Mapping[str, float] = SPREAD,
) -> None:
    """Compare the gaps of a study with the exact ones, and its fitted orders with the same fit through the exact gaps."""
    paths = study.gaps[0].paths
    for h in tests:
        order, fitted = study.order(h), exact[h]
        measure_sups(run, f"{name}, {h}", study.estimates(h))
        run.measure(
            f"{name}, {h}: farthest from the exact gap",
            largest_relative_error(study.estimates(h), fitted),
            at_most=gap_tolerance(h, paths, spread),
        )
        if len(order.etas) >= 2:
            fit = fitted_order(order.etas, order.gaps)
            run.measure(f"{name}, {h}: the fit beside plain least squares", order.value, fit, tolerance=ROUNDING)
            local = np.diff(np.log(order.gaps)) / np.diff(np.log(order.etas))
            away = relative_distance(st.exact.local_orders(order.etas, order.gaps), local)
            run.measure(f"{name}, {h}: local orders beside plain quotients", away, at_most=ROUNDING)
        expected = fitted_order(order.etas, fitted[np.isin(study.etas, order.etas)]) if len(order.etas) >= 2 else math.nan
        run.measure(f"{name}, {h}: fitted order", order, expected, order_tolerance(h, paths, study.etas, spread))
