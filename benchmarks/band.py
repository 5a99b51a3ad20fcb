"""Coverage of the simultaneous band of a gap curve, and its width relative to the narrowest band with that coverage.

    python benchmarks/band.py [--repetitions 4000] [--paths 1280 5120 20480] [--observable x**2] [--first-seed 0]

SGDM against SGD on the quadratic, where the gap curve is known exactly. Each repetition is a run with its own seed. The band should cover
the curve in 93.5 to 96.5 % of 4,000 runs (a true 95 % leaves this range with probability 1 in 76,000). The ideal band has the true standard
errors and, as critical value, the 95 % quantile of the largest standardised error, both estimated from the repetitions themselves. It
covers 95 % by construction, so that `width` is the price of estimating them. `pointwise` is the negative control: pointwise intervals must
not cover the curve simultaneously.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterable, Iterator

import numpy as np

import sdetools as st
from sdetools.studies.gap import WeakGap

ETA, BETA, STEPS = 2.0**-4, 0.5, 16
HOW = {"control": {}, "coupled": {"control": False}, "independent": {"coupled": False}}


def pair() -> tuple[st.SGDM, st.SGD]:
    """Return SGDM and SGD on the averaged schedule, with the largest noise that the theorem allows."""
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=ETA**-0.5)
    plan = st.schedules.constant(ETA, BETA)
    return st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())


def runs(how: str, paths: int, repetitions: int, observable: str, first_seed: int = 0) -> Iterator[WeakGap]:
    """Yield one run per seed, with every step recorded."""
    first, second = pair()
    for seed in range(first_seed, first_seed + repetitions):
        yield st.weak_gap(
            first, second, [1.0], STEPS * ETA, paths, [observable], seed=seed, times="all", threads=1, **HOW[how]
        )  # fmt: skip


def measure(gaps: Iterable[WeakGap], truth: np.ndarray, observable: str, confidence: float = 0.95) -> dict[str, float]:
    """Return the coverage of the curve by the band and by pointwise intervals, and the band's width relative to the ideal one."""
    away, width, covered, pointwise, groups = [], [], 0, 0, 0
    for gap in gaps:
        groups = int((gap.statistics.sums.counts > 0).sum())
        sup = gap.sup(observable)
        low, high = sup.band(confidence)
        covered += bool(((low <= truth) & (truth <= high)).all())
        pointwise += bool((np.abs(sup.curve - truth) <= 1.96 * sup.errors + sup.points["rounding"]).all())
        away.append((sup.curve - truth)[1:])
        width.append((high - low)[1:] / 2)
    sigma = np.std(away, axis=0)
    ideal = np.quantile(np.abs(away / sigma).max(axis=1), confidence) * sigma
    n = len(away)
    return {"band": covered / n, "pointwise": pointwise / n, "width": float(np.mean(np.array(width) / ideal)), "groups": groups}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=4000)
    parser.add_argument("--paths", type=int, nargs="+", default=[1280, 5120, 20_480])
    parser.add_argument("--observable", default="x**2")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed of all runs")
    given = parser.parse_args()
    truth = st.exact.gap(*pair(), [1.0], STEPS, given.observable)
    print(
        f"{given.repetitions} repetitions, {given.observable}, {STEPS + 1} times: share of runs in which the whole curve is covered"
    )
    print(f"{'':<12} {'paths':>8} {'groups':>7} {'band':>8} {'pointwise':>10} {'width':>7} {'seconds':>8}")
    for row, (how, paths) in enumerate(itertools.product(HOW, given.paths), 1):
        begin = time.perf_counter()  # independent draws for each row: rows on the same draws would have correlated errors
        gaps = runs(how, paths, given.repetitions, given.observable, given.first_seed + row * given.repetitions)
        found = measure(gaps, truth, given.observable)
        seconds = time.perf_counter() - begin
        line = (
            f"{how:<12} {paths:>8,} {found['groups']:>7} {found['band']:>8.4f} {found['pointwise']:>10.4f} {found['width']:>7.3f}"
        )
        print(f"{line} {seconds:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
