"""Variance reduction by coupling and by the control variate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from typing import Any

from sdetools.benchmarking.implementations import BETA, START


def reductions(paths: int, exponents: Sequence[int], threads: int | None) -> list[dict[str, Any]]:
    """Measure the variance of independent sampling over that of the coupled gap, without and with the control variate.

    A gap is E h(x) - E h(z) for an observable h, where x is SGDM and z SGD on the averaged schedule, on four losses and noises, with sigma =
    eta^-1/2 and horizon T = 1. Independent sampling estimates the two means from separate draws, a coupled gap from the same draws.

    Args:
        paths: Number of paths.
        exponents: Values k of eta = 2^-k; SGDM has beta = 0.9.
        threads: Number of threads; all available ones if None.

    Returns:
        A list of dicts, one for each loss, noise, observable and eta, in this order. They name the case by `loss`, `noise`, `observable`, `eta`,
        `paths` and `diverged` (a number of paths). The ratios of variances, larger where coupling helps more, are `coupled` and `controlled` (with
        the control variate) at the last time, and `coupled_at_max` and `controlled_at_max` at the time of the largest gap.
    """
    import sdetools as st

    quadratic = st.losses.from_expression("x**2 / 2")
    well, valley = st.losses.from_expression("(x**2 - 1)**2 / 4"), st.losses.hyperbola()
    wavy = st.noise.gaussian(root=[["1 + 0.3*sin(x)"]], variables="x")
    cases = (
        ("x^2/2", "Gaussian", quadratic, st.noise.gaussian(dim=1), [1.0], ("x**2", "abs(x - 1)")),
        ("x^2/2", "Rademacher", quadratic, st.noise.rademacher(1), [1.0], ("x**2", "abs(x - 1)")),
        ("double well", "Gaussian, root 1 + 0.3 sin x", well, wavy, [1.0], ("cos(2*x)",)),
        ("hyperbola", "Gaussian", valley, st.noise.gaussian(dim=2), list(START), ("x**2 + y**2",)),
    )

    def measured(loss: str, law: str, own: Any, noise: Any, x0: list[float], observe: tuple[str, ...]) -> list[dict[str, Any]]:
        found: dict[str, list[dict[str, Any]]] = {h: [] for h in observe}
        for exponent in exponents:
            eta = 2.0**-exponent
            plan, oracle = st.schedules.constant(eta=eta, beta=BETA), st.NoisyOracle(own, noise, sigma=eta**-0.5)
            pair = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
            gap = st.weak_gap(*pair, x0=x0, horizon=1.0, paths=paths, observe=list(observe), threads=threads)
            for h in observe:
                last, peak = gap.variance_reduction(h), gap.variance_reduction(h, gap.sup(h).time)
                row = {"loss": loss, "noise": law, "observable": h, "eta": eta, "paths": paths, "diverged": gap.diverged}
                found[h].append(
                    row | {"coupled": last[0], "controlled": last[1], "coupled_at_max": peak[0], "controlled_at_max": peak[1]}
                )
        return [row for rows in found.values() for row in rows]

    return [row for rows in starmap(measured, cases) for row in rows]
