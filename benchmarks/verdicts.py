"""Error rates of verdicts on claims whose truth is known: false support, false contradiction, and power.

    python benchmarks/verdicts.py [--judgements 10000000] [--runs 10000]

A judgement is a mean of n paths of a law, in groups of 256 paths, drawn with the exact joint law of the groups' means and of the standard error
(counts of the values of discrete laws; normal means and chi-squared variances), and compared with an upper bound, as `sdetools verify` does. At
the bound itself a claim is both the worst true and the worst false one:

    support        the interval at level 1 - 1e-3 lies below the bound: at most 1e-3, and 5e-4 for a symmetric law, as the test is one-sided
    flag           the interval at level 1 - sqrt(1e-5) lies above it: at most 3.2e-3; its square is the rate of a false contradiction
    no verdict     the groups show that the mean is too skewed for a normal interval
    power          standard errors between truth and bound at which 9 of 10 claims are supported

A value beyond its limit by more than 4 binomial standard errors is marked. The second table runs whole claims, with five measurements and a
control, through the code that judges them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from sdetools.claims import Claim, ClaimContext
from sdetools.claims.measurement import FALSE_CONTRADICTION, FALSE_SUPPORT, FLAG, TILT, widening
from sdetools.claims.verification import run_claim
from sdetools.estimates import Estimate
from sdetools.estimates.estimate import SKEWNESS_ERRORS, skewness_of_mean
from sdetools.estimates.interval import binomial_interval, quantile

CHUNK = 20_000
N = 20_000
"""Paths of a quick claim."""

SIZES = np.array([256] * (N // 256) + [N % 256])
"""Numbers of paths of the groups from whose means the skewness is estimated."""

Sums = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator, int], Sums]


def normal(sizes: np.ndarray, rng: np.random.Generator, many: int) -> Sums:
    """Return sums over groups of standard normals, `(many, groups)`, and the sums of their squared deviations from all their mean, `(many,)`."""
    sums = rng.normal(size=(many, len(sizes))) * np.sqrt(sizes)
    between = (sums**2 / sizes).sum(1) - sums.sum(1) ** 2 / sizes.sum()
    within = sizes.sum() - len(sizes)
    return sums, between + (rng.chisquare(within, many) if within else 0.0)


def two_point(p: float, sizes: np.ndarray, rng: np.random.Generator, many: int) -> Sums:
    """Return the same for a law of mean 0 and variance 1 whose larger value has probability p; its skewness is (1 - 2 p) / sqrt(p (1 - p))."""
    s, n = math.sqrt(p * (1 - p)), sizes.sum()
    hits = rng.binomial(sizes, p, (many, len(sizes)))
    share = hits.sum(1) / n
    return (hits - p * sizes) / s, n * share * (1 - share) / s**2


def three_point(p: float, sizes: np.ndarray, rng: np.random.Generator, many: int) -> Sums:
    """Return the same for a symmetric law of variance 1 whose two outer values have probability p together; its kurtosis is 1 / p."""
    outer = rng.binomial(sizes, p, (many, len(sizes)))
    sums = (2 * rng.binomial(outer, 0.5) - outer) * p**-0.5
    return sums, outer.sum(1) / p - sums.sum(1) ** 2 / sizes.sum()


LAWS: dict[str, tuple[np.ndarray, Draw]] = {
    "normal": (SIZES, normal),
    "skewness 2.7": (SIZES, partial(two_point, 0.1)),
    "skewness 9.8": (SIZES, partial(two_point, 0.01)),
    "skewness 13": (SIZES, partial(two_point, 0.006)),
    "skewness 18": (SIZES, partial(two_point, 0.003)),
    "skewness 31": (SIZES, partial(two_point, 0.001)),
    "kurtosis 100": (SIZES, partial(three_point, 0.01)),
    "kurtosis 1,000": (SIZES, partial(three_point, 0.001)),
    "12 normal seeds": (np.ones(12), normal),
}


def skewness(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return `skewness_of_mean` of many sets of groups at once; the first ones are compared with it."""
    if len(sizes) < 50:  # seeds have no groups
        return np.zeros(len(sums))
    n = sizes.sum()
    deviation = sums - sums.sum(1, keepdims=True) * (sizes / n)
    seen = (deviation**3).sum(1) / (deviation**2).sum(1) ** 1.5
    found = np.sign(seen) * np.maximum(0.0, np.abs(seen) - SKEWNESS_ERRORS * math.sqrt(6 * (sizes**3).sum() / n**3))
    assert np.allclose(found[:50], [skewness_of_mean(row / sizes, sizes) for row in sums[:50]])
    return found


def rates(sizes: np.ndarray, draw: Draw, judgements: int, seed: int) -> tuple[float, float, float, float, float]:
    """Return the rates of support and of flags at the bound, for the law and for its mirror image (the larger), of no verdict, and the power."""
    rng, n = np.random.default_rng(seed), int(sizes.sum())
    support, flag, none, total, margins = np.zeros(2), np.zeros(2), 0, 0, []
    inner, outer = quantile(1 - FALSE_SUPPORT, n), quantile(1 - FLAG, n)
    while total < judgements:
        sums, squares = draw(sizes, rng, min(CHUNK, judgements - total))
        mean, stderr = sums.sum(1) / n, np.sqrt(squares / (n - 1) / n)
        skew = skewness(sums, sizes)
        judged = np.abs(skew) * inner**3 / 6 <= TILT  # `inner` is the larger of the two, as in `judge_measurement`
        ends = [
            [mean + sign * z * np.where(sign * skew > 0, widening(skew, z), 1.0) * stderr for sign in (-1, 1)]
            for z in (inner, outer)
        ]
        (low, high), (far_low, far_high) = ends
        support += [(judged & (high < 0)).sum(), (judged & (low > 0)).sum()]
        flag += [(judged & (far_low > 0)).sum(), (judged & (far_high < 0)).sum()]
        none, total = none + int((~judged).sum()), total + len(mean)
        margins.append(np.quantile(np.where(judged, high, np.inf), 0.9, method="higher") * math.sqrt(n))
    return support.max() / total, flag.max() / total, none / total, float(np.mean(margins)), total


def indicator(p: float, judgements: int, seed: int) -> tuple[float, float, float, float]:
    """Return the same rates for the probability of a rare event with Clopper and Pearson's interval."""
    hits = np.random.default_rng(seed).binomial(N, p, judgements)
    kinds, where = np.unique(hits, return_inverse=True)
    inner, outer = (np.array([tuple(binomial_interval(int(h), N, 1 - rate)) for h in kinds]) for rate in (FALSE_SUPPORT, FLAG))
    support = max(np.mean((inner[:, 1] < p)[where]), np.mean((inner[:, 0] > p)[where]))
    flag = max(np.mean((outer[:, 0] > p)[where]), np.mean((outer[:, 1] < p)[where]))
    return float(support), float(flag), float((np.quantile(inner[:, 1][where], 0.9) - p) / math.sqrt(p / N)), judgements


def marked(value: float, limit: float, total: float) -> str:
    """Return a rate as text, with a mark if it exceeds its limit by more than four standard errors."""
    return f"{value:.1e}" + (" !" if value > limit + 4 * math.sqrt(limit / total) else "")


def whole_runs(runs: int, shift: float) -> dict[str, int]:
    """Judge whole claims with five measurements and a control; the truth lies `shift` standard errors above the bounds. Return the verdicts' counts."""
    found: dict[str, int] = {}

    def function(run: ClaimContext) -> None:
        rng = np.random.default_rng(run.seed)
        for i in range(5):
            run.measure(f"{i}", Estimate(float(rng.normal(shift)), 1.0, N), at_most=0.0)
        with run.control("far"):
            run.measure("far", Estimate(float(rng.normal(9.0)), 1.0, N), at_most=0.0)

    claim = Claim("synthetic", "The values are at most 0.", "", function, Path("synthetic.py"), 1)
    for seed in range(runs):
        verdict = run_claim(claim, partial(ClaimContext, claim.id, seed=seed)).verdict
        found[verdict] = found.get(verdict, 0) + 1
    return found


def lines(judgements: int, runs: int) -> Iterator[str]:
    """Yield the lines of both tables."""
    yield f"| law of a path, {judgements:,} judgements each | false support | flag | false contradiction | no verdict | power |"
    yield "|---|---|---|---|---|---|"
    for seed, (name, (sizes, draw)) in enumerate(LAWS.items()):
        support, flag, none, power, total = rates(sizes, draw, judgements, seed)
        yield (
            f"| {name} | {marked(support, FALSE_SUPPORT, total)} | {marked(flag, FLAG, total)} | {flag**2:.1e} | {none:.2g} | {power:.2f} |"
        )
    for seed, p in enumerate((1e-2, 1e-3, 1e-4)):
        support, flag, power, total = indicator(p, judgements, 100 + seed)
        yield f"| event of probability {p:g} | {marked(support, FALSE_SUPPORT, total)} | {marked(flag, FLAG, total)} | {flag**2:.1e} | 0 | {power:.2f} |"
    yield ""
    yield f"| whole claims, {runs:,} each | supported | inconclusive | contradicted |"
    yield "|---|---|---|---|"
    for name, shift in (
        ("all values at their bounds", 0.0),
        ("2 standard errors below", -2.0),
        ("7 below", -7.0),
        ("7 above", 7.0),
    ):
        found = whole_runs(runs, shift)
        yield f"| {name} | {found.get('supported', 0):,} | {found.get('inconclusive', 0):,} | {found.get('contradicted', 0):,} |"
    yield ""
    yield f"Allowed: {FALSE_SUPPORT:g} false support, {FLAG:.2g} a flag, {FALSE_CONTRADICTION:g} false contradiction. `!`: beyond it by four standard errors."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgements", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=10_000)
    options = parser.parse_args()
    begin = time.perf_counter()
    for line in lines(options.judgements, options.runs):
        print(line, flush=True)
    print(f"{time.perf_counter() - begin:.0f} s")
