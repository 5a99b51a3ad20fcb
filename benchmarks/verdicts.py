"""Error rates of verdicts on claims whose truth is known: false support, false contradiction, and power.

    python benchmarks/verdicts.py [--judgements 10000000] [--runs 10000]

A judgement is a mean of n paths of a law, drawn with its exact joint law of mean and standard error (counts of the values of discrete laws;
normal means with chi-squared variances), and compared with an upper bound, as `sdetools verify` does. At the bound itself a claim is both
the worst true and the worst false one:

    support        the interval at level 1 - 1e-3 lies below the bound: at most 1e-3, and 5e-4 for a symmetric law, as the test is one-sided
    flag           the interval at level 1 - sqrt(1e-5) lies above it: at most 3.2e-3; its square is the rate of a false contradiction
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
from sdetools.claims.measurement import FALSE_CONTRADICTION, FALSE_SUPPORT, FLAG
from sdetools.claims.verification import run_claim
from sdetools.estimates import Estimate
from sdetools.estimates.interval import binomial_interval, quantile

CHUNK = 500_000
N = 20_000
"""Paths of a quick claim."""

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def normal(n: int, rng: np.random.Generator, many: int) -> tuple[np.ndarray, np.ndarray]:
    """Return means of n standard normals and their standard errors."""
    return rng.normal(size=many) / math.sqrt(n), np.sqrt(rng.chisquare(n - 1, many) / (n - 1) / n)


def discrete(
    values: np.ndarray, weights: np.ndarray, n: int, rng: np.random.Generator, many: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return means of n draws from a discrete law of mean 0 and their standard errors, from counts."""
    shares = rng.multinomial(n, weights, many) / n
    mean = shares @ values
    return mean, np.sqrt(np.maximum(shares @ values**2 - mean**2, 0.0) / (n - 1))


def two_point(p: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a law of mean 0 and variance 1 whose larger value has probability p; its skewness is (1 - 2 p) / sqrt(p (1 - p))."""
    s = math.sqrt(p * (1 - p))
    return np.array([(1 - p) / s, -p / s]), np.array([p, 1 - p])


def three_point(p: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a symmetric law of variance 1 whose two outer values have probability p together; its kurtosis is 1 / p."""
    return np.array([p**-0.5, 0.0, -(p**-0.5)]), np.array([p / 2, 1 - p, p / 2])


LAWS: dict[str, tuple[int, Draw]] = {
    "normal": (N, partial(normal, N)),
    "skewness 2.7": (N, partial(discrete, *two_point(0.1), N)),
    "skewness 9.8": (N, partial(discrete, *two_point(0.01), N)),
    "skewness 31": (N, partial(discrete, *two_point(0.001), N)),
    "kurtosis 100": (N, partial(discrete, *three_point(0.01), N)),
    "kurtosis 1,000": (N, partial(discrete, *three_point(0.001), N)),
    "12 normal seeds": (12, partial(normal, 12)),
}


def rates(n: int, draw: Draw, judgements: int, seed: int) -> tuple[float, float, float, float]:
    """Return the rates of support and of flags at the bound, for the law and for its mirror image (the larger), and the power."""
    rng, support, flag, margins = np.random.default_rng(seed), np.zeros(2), np.zeros(2), []
    inner, outer = quantile(1 - FALSE_SUPPORT, n), quantile(1 - FLAG, n)
    for _ in range(max(1, judgements // CHUNK)):
        mean, stderr = draw(rng, CHUNK)
        with np.errstate(all="ignore"):
            support += [(mean + inner * stderr < 0).sum(), (mean - inner * stderr > 0).sum()]
            flag += [(mean - outer * stderr > 0).sum(), (mean + outer * stderr < 0).sum()]
        margins.append(np.quantile(mean + inner * stderr, 0.9) * math.sqrt(n))
    total = max(1, judgements // CHUNK) * CHUNK
    return support.max() / total, flag.max() / total, float(np.mean(margins)), total


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
    yield f"| law of a path, {judgements:,} judgements each | false support | flag | false contradiction | power |"
    yield "|---|---|---|---|---|"
    for seed, (name, (n, draw)) in enumerate(LAWS.items()):
        support, flag, power, total = rates(n, draw, judgements, seed)
        yield f"| {name} | {marked(support, FALSE_SUPPORT, total)} | {marked(flag, FLAG, total)} | {flag**2:.1e} | {power:.2f} |"
    for seed, p in enumerate((1e-2, 1e-3, 1e-4)):
        support, flag, power, total = indicator(p, judgements, 100 + seed)
        yield f"| event of probability {p:g} | {marked(support, FALSE_SUPPORT, total)} | {marked(flag, FLAG, total)} | {flag**2:.1e} | {power:.2f} |"
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
