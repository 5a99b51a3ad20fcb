"""What the checks of Theorem 3.5 share: the pair it compares, exact curves beside measured ones, how near they must be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import sdetools as st
from sdetools.weak import Estimate, OrderStudy, SupEstimate, WeakGap

START = [1.0]
SMOOTH = ("x", "x**2")
LIPSCHITZ = "abs(x - 1)"
HOELDER = "abs(x - 1)**0.5"
OBSERVE = [*SMOOTH, LIPSCHITZ, HOELDER]
"""Test functions from smooth to rough; the rough ones have their kink at the start."""

SPREAD = {"x": 0.8, "x**2": 6.0, LIPSCHITZ: 1.4, HOELDER: 0.8}
"""Standard deviation of the largest gap, for one path with the control variate and relative to the gap: what a pilot found on the
quadratic, at most, for 1 - beta from 0.01 to 0.5 and eta from 2^-4 to 2^-12. It sets how finely a number of paths can tell."""


def pair(oracle: st.NoisyOracle, plan: st.Plan) -> tuple[st.SGDM, st.SGD]:
    """SGDM and SGD on the averaged schedule."""
    return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())


def quadratic(eta: float, noise: Any = None) -> st.NoisyOracle:
    """L = x^2 / 2 with sigma = eta^-1/2, the largest noise that the theorem allows."""
    return st.NoisyOracle(st.losses.from_expression("x**2/2"), noise or st.noise.gaussian(dim=1), sigma=eta**-0.5)


def exact_curves(gaps: Iterable[WeakGap], tests: Sequence[Any] = OBSERVE) -> dict[Any, list[np.ndarray]]:
    """The exact gaps at the steps at which they were measured: a curve for each pair, under each test function."""
    curves: dict[Any, list[np.ndarray]] = {h: [] for h in tests}
    for gap in gaps:
        first, second = (st.exact.moments(one, START, int(gap.steps[-1]), record=gap.steps) for one in (gap.first, gap.second))
        for h in tests:
            curves[h].append(st.exact.expectation(first, h) - st.exact.expectation(second, h))
    return curves


def sups(curves: Iterable[np.ndarray]) -> np.ndarray:
    """The largest gap of each curve."""
    return np.array([np.abs(curve).max() for curve in curves])


def off_exact(measured: Sequence[Estimate], exact: Sequence[float]) -> SupEstimate:
    """How far measured gaps are from exact ones where they are farthest, relative to the exact gap.

    Its interval comes from a simultaneous band over all of them: it starts at 0 when every band holds its exact value.
    """
    away = np.array([e.value / value - 1 for e, value in zip(measured, exact, strict=True)])
    errors = np.array([e.stderr / value for e, value in zip(measured, exact, strict=True)])
    k, lost = int(np.abs(away).argmax()), sum(e.diverged for e in measured)
    return SupEstimate(
        float(np.abs(away[k])), float(errors[k]), measured[0].n, diverged=lost, curve=away, errors=errors, argmax=k
    )


def gap_tolerance(h: str, paths: int) -> float:
    """Ten standard errors of a relative gap: six for a band at the level of a whole run, four for the farthest of many gaps."""
    return 10 * SPREAD[h] / math.sqrt(paths)


def order_tolerance(h: str, paths: int, etas: Sequence[float]) -> float:
    """Eight standard errors of a fitted order: five for its interval at the level of a whole run, three for where it falls."""
    logs = np.log(etas)
    return 8 * SPREAD[h] / math.sqrt(paths) / float(np.linalg.norm(logs - logs.mean()))


def limit(local: Sequence[float], grid: float = 1e-3) -> tuple[float, float]:
    """Where a sequence of local orders goes by Aitken's extrapolation, and, as tolerance, how far it had to be carried.

    `grid` is what a maximum over whole or recorded steps may do to a local order.
    """
    a, b, c = local[-3:]
    carried = 0.0 if abs(c - b) < grid / 10 else (c - b) ** 2 / (2 * b - a - c)
    return c + carried, abs(carried) + grid


def measure_study(run: Any, name: str, study: OrderStudy, exact: Mapping[str, np.ndarray], tests: Sequence[str]) -> None:
    """The gaps of a study beside the exact ones, and its fitted orders beside the same fit through the exact gaps."""
    paths = study.gaps[0].paths
    for h in tests:
        order, fitted = study.order(h), exact[h]
        run.measure(
            f"{name}, {h}: farthest from the exact gap", off_exact(study.estimates(h), fitted), at_most=gap_tolerance(h, paths)
        )
        expected = order.fit(fitted[np.isin(study.etas, order.etas)])
        run.measure(f"{name}, {h}: fitted order", order, expected, order_tolerance(h, paths, study.etas))
