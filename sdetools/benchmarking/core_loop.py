"""The core loop beside its peers.

The core loop is 2-D SGDM on the hyperbola with Gaussian noise in double precision, the same arithmetic in every way: through
`st.simulate` with one recorded time (everything that a user waits for, tracing and sums too), in NumPy and in torch at their best
block size, in Numba one path at a time, and as torchsde's Euler scheme on the SDE with the same drift and diffusion. Each way is
compiled and sized before the clock runs; then all take turns (A B C A B C ...), so that a slow minute of the machine hits all of
them. The ratio of medians on equally many threads is what to quote; nanoseconds are this machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from sdetools.benchmarking.ways import (
    BATCHES,
    BETA,
    BLOCKS,
    ETA,
    PEERS,
    REFERENCE,
    SIGMA,
    START,
    STEPS,
    Way,
    best_way,
    take_turns,
)
from sdetools.dynamics.base import Dynamics

CONTROLLED = "sdetools, coupled pair with control"


class OwnRule(Dynamics):
    """SGDM as a user would write it, outside the library."""

    parts = ("x", "m")
    coefficients = ("eta", "beta")

    @staticmethod
    def rule(state: Any, oracle: Any, eta: Any, beta: Any) -> Any:
        x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        return x - eta * m, m


def own_ways(threads: int, **more: Any) -> list[Way]:
    """The core loop in this library, on `threads` threads, and variations of it; `more` arguments go to `st.simulate`."""
    import sdetools as st

    loss, plan = st.losses.hyperbola(), st.schedules.constant(eta=ETA, beta=BETA)
    oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=2), sigma=SIGMA)
    signs = st.NoisyOracle(loss, st.noise.rademacher(2), sigma=SIGMA)
    common: dict[str, Any] = {
        "x0": START,
        "horizon": STEPS * ETA,
        "times": [STEPS * ETA],
        "observe": ["x**2 + y**2"],
        "threads": threads,
        **more,
    }

    def single(dynamics: Any) -> Callable[[int], Any]:
        return lambda paths: st.simulate(dynamics, paths=paths, **common)

    def pair(control: bool) -> Callable[[int], Any]:
        first, second = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
        return lambda paths: st.weak_gap(first, second, paths=paths, control=control, **common)

    def staged() -> Any:
        from numba import njit

        @njit
        def gradient(x: Any) -> Any:
            r = x[0] * x[1] - 1.0
            return r * x[1], r * x[0]

        own = st.losses.from_function(gradient, dim=2, names=("x", "y"))
        return st.SGDM(st.NoisyOracle(own, st.noise.gaussian(dim=2), sigma=SIGMA), plan)

    return [
        Way(REFERENCE, threads, single(st.SGDM(oracle, plan))),
        Way("sdetools, a rule of your own", threads, single(OwnRule(oracle, plan)), "a traced subclass of st.Dynamics"),
        Way("sdetools, an @njit gradient of your own", threads, single(staged()), "from_function"),
        Way("sdetools, Rademacher noise", threads, single(st.SGDM(signs, plan))),
        Way("sdetools, coupled pair", threads, pair(False), "SGDM and SGD on the same draws, both in one path-step"),
        Way(CONTROLLED, threads, pair(True), "and the control variate"),
    ]


def numpy_loop(block: int) -> Callable[[int], None]:
    """Blocks of paths that stay in the cache, every operation in place, the fastest of NumPy's bit generators."""
    x, m, z, g = (np.empty((2, block)) for _ in range(4))
    r = np.empty(block)
    generator = np.random.Generator(np.random.SFC64(0))
    rate = ETA * (1 - BETA)  # m holds eta m_k: one multiplication fewer

    def run(paths: int) -> None:
        for _ in range(paths // block):
            x[0], x[1], m[:] = START[0], START[1], 0.0
            for _ in range(STEPS):
                generator.standard_normal(out=z)
                np.multiply(x[0], x[1], out=r)
                np.subtract(r, 1.0, out=r)
                np.multiply(r, x[1], out=g[0])
                np.multiply(r, x[0], out=g[1])
                np.multiply(z, SIGMA, out=z)
                np.add(g, z, out=g)
                np.multiply(g, rate, out=g)
                np.multiply(m, BETA, out=m)
                np.add(m, g, out=m)
                np.subtract(x, m, out=x)
            float(np.mean(x[0] ** 2 + x[1] ** 2))

    return run


def naive_numba() -> Callable[[int], Any]:
    """One path after the other, with Numba's own generator."""
    from numba import njit

    @njit
    def loop(paths: int, steps: int, eta: float, beta: float, sigma: float, x0: float, y0: float) -> float:
        total = 0.0
        for _ in range(paths):
            x, y, m0, m1 = x0, y0, 0.0, 0.0
            for _ in range(steps):
                r = x * y - 1.0
                m0 = beta * m0 + (1.0 - beta) * (r * y + sigma * np.random.normal())
                m1 = beta * m1 + (1.0 - beta) * (r * x + sigma * np.random.normal())
                x -= eta * m0
                y -= eta * m1
            total += x * x + y * y
        return total / paths

    return lambda paths: loop(paths, STEPS, ETA, BETA, SIGMA, *START)


def peer_ways(threads: int, quick: bool = False) -> tuple[list[Way], list[str]]:
    """The core loop elsewhere, at each way's best block size; and a line for each peer that is not installed."""
    from sdetools.benchmarking.torch_loops import torch_loop, torchsde_euler

    blocks, batches = (BLOCKS[3:5], BATCHES[1:2]) if quick else (BLOCKS, BATCHES)
    ways, absent = [], []
    if threads == 1:
        ways += [best_way("NumPy loop", 1, numpy_loop, blocks), Way("Numba, one path at a time", 1, naive_numba())]
    for name, make, sizes in (("torch loop", torch_loop, blocks), ("torchsde, Euler", torchsde_euler, batches)):
        try:
            ways.append(best_way(name, threads, partial(make, threads), sizes))
        except ModuleNotFoundError as error:
            absent.append(f"{name}: {error.name} is not installed; {PEERS}")
    return ways, absent


def speed(threads: Sequence[int], quick: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each way, with its ratio to this library on equally many threads; and what is not installed."""
    target, turns = (0.1, 3) if quick else (0.8, 7)
    ways: list[Way] = []
    absent: dict[str, None] = {}
    for count in threads:
        peers, missing = peer_ways(count, quick)
        ways += [*own_ways(count), *peers]
        absent.update(dict.fromkeys(missing))
    for way in ways:
        way.size(target)
    take_turns(ways, turns)
    base = {way.threads: median(way.nanoseconds) for way in ways if way.name == REFERENCE}
    rows = [
        {
            "way": way.name, "note": way.note, "threads": way.threads, "paths": way.paths, "steps": STEPS,
            "ns_per_path_step": median(way.nanoseconds), "fastest": min(way.nanoseconds), "slowest": max(way.nanoseconds),
            "ratio": median(way.nanoseconds) / base[way.threads],
        }
        for way in ways
    ]  # fmt: skip
    return rows, list(absent)
