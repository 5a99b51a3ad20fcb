"""Coverage of the intervals of `st.stationary`, and the time of few long paths.

For three processes of known stationary law, the share of replications whose interval of level 95 % contains the truth, for E x and E x^2, from 1, 4
and 64 paths: with batch means, and as if steps were independent. Each process has n integrated autocorrelation times in all its paths together.

- SGD on a quadratic, an autoregression, eta lam = 0.1, and SGDM with beta = 0.9: the variance in closed form.
- Euler's scheme for a double well at eps = 0.35, dt = 0.1: the stationary law of the chain, from a linear system on a grid.

    python benchmarks/interval_coverage.py --replications 10000
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

import sdetools as st
from sdetools.estimates.batch_means import BatchMeans, default_batches
from sdetools.studies.long_paths import BLOCKS

ETA, NOISE, EPS, DT = 0.1, 0.5, 0.35, 0.1
LENGTHS = {1: 1000, 4: 250, 64: 100}
"""By the number of paths, the length of each in multiples of the memory."""


def processes() -> dict[str, tuple[st.Moving, float, int]]:
    """Return each process with its exact E x^2 and its memory in steps."""
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=NOISE)
    x = np.linspace(-4, 4, 1601)
    deviation = math.sqrt(2 * EPS * DT)
    kernel = (
        np.exp(-0.5 * ((x[:, None] - x - DT * (x - x**3)) / deviation) ** 2)
        / (deviation * math.sqrt(2 * math.pi))
        * (x[1] - x[0])
    )
    system = kernel - np.eye(len(x))
    system[0] = 1.0
    density = np.linalg.solve(system, np.eye(len(x))[0])
    well = st.SDE(drift=["x0 - x0**3"], diffusion=[repr(math.sqrt(2 * EPS))], variables="x0")
    return {
        f"SGDM, beta = {beta:g}": (
            st.SGDM(oracle, st.schedules.constant(ETA, beta)),
            ETA * NOISE**2 / (2 - ETA * (1 - beta) / (1 + beta)),
            20,
        )
        for beta in (0.0, 0.9)
    } | {"double well": (st.EulerMaruyama(well, DT), float(density @ x**2), 44)}


def coverage(run: object, observable: str, truth: float, paths: int) -> tuple[int, int, int]:
    """Return the number of replications, and how many intervals contain the truth: from batch means, and as if steps were independent."""
    blocks: BatchMeans = run.batch_means(observable)  # type: ignore[attr-defined]
    count = blocks.paths // paths
    hits = naive = 0
    for r in range(count):
        own = slice(r * paths, (r + 1) * paths)
        part = BatchMeans(blocks.means[own], blocks.squares[own], blocks.length, default_batches(paths, BLOCKS))
        hits += truth in part.estimate().confidence_interval()
        naive += abs(part.mean - truth) <= 1.96 * math.sqrt(part.variance / part.steps)
    return count, hits, naive


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=1000, help="replications of one run, which share its memory")
    given = parser.parse_args()
    print(f"{'process':<20} {'paths':>6} {'h':>7} {'batch means':>12} {'+-':>6} {'independent':>12}")
    for name, (dynamics, square, memory) in processes().items():
        for paths, length in LENGTHS.items():
            step, burn_in = dynamics.step_time, 20 * memory
            totals = {"x0": np.zeros(3), "x0**2": np.zeros(3)}
            for stream in range(-(-given.replications // given.batch)):
                run = st.stationary(
                    dynamics,
                    [0.0],
                    (burn_in + length * memory) * step,
                    given.batch * paths,
                    [*totals],
                    burn_in=burn_in * step,
                    stream=stream,
                )
                for h, truth in (("x0", 0.0), ("x0**2", square)):
                    totals[h] += coverage(run, h, truth, paths)
            for h, (count, hits, naive) in totals.items():
                error = 1.96 * math.sqrt(hits / count * (1 - hits / count) / count)
                print(f"{name:<20} {paths:>6} {h:>7} {hits / count:>12.4f} {error:>6.4f} {naive / count:>12.4f}", flush=True)
    print(f"\n{'paths':>6} {'seconds for 10^6 steps':>24} {'ns a path-step':>16}")
    well = processes()["double well"][0]
    st.stationary(well, [0.0], 100.0, 64, ["x0", "x0**2"])
    for paths in (1, 64, 256, 512):
        begin = time.perf_counter()
        st.stationary(well, [0.0], 1e5, paths, ["x0", "x0**2"])
        seconds = time.perf_counter() - begin
        print(f"{paths:>6} {seconds:>24.2f} {1e3 * seconds / paths:>16.2f}", flush=True)


if __name__ == "__main__":
    main()
