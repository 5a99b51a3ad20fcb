"""The core loop in this library and in other libraries.

The core loop is 2-D SGDM on the hyperbola with Gaussian noise in double precision. Every implementation does the same arithmetic:
`st.simulate` with one recorded time (including tracing and reductions), NumPy and torch at their best block size, Numba one path at a time,
and torchsde's Euler scheme on the SDE with the same drift and diffusion. Each is compiled and sized before the clock starts. Then all run
interleaved (A B C A B C ...), so that a temporary slowdown of the machine affects all of them. Quote the ratio of medians on equally many
threads; the nanoseconds are specific to the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from sdetools.benchmarking.implementations import (
    BATCHES,
    BETA,
    BLOCKS,
    ETA,
    PEERS,
    REFERENCE,
    SIGMA,
    START,
    STEPS,
    Implementation,
    best_implementation,
    run_interleaved,
)
from sdetools.dynamics.base import Dynamics

CONTROLLED = "sdetools, coupled pair with control"


class OwnRule(Dynamics):
    """SGDM as a user would write it, as a subclass of `st.Dynamics` outside the library, with the state (x, m) of position and momentum buffer."""

    parts = ("x", "m")
    coefficients = ("eta", "beta")

    @staticmethod
    def rule(state: Any, oracle: Any, eta: Any, beta: Any) -> Any:
        """Return the state (x, m) after one step: m' = beta m + (1 - beta) g and x' = x - eta m', with the noisy gradient g = oracle(x).

        x and m are arrays or traced values `(dim, ...)`; eta and beta are numbers.
        """
        x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        return x - eta * m, m


def own_implementations(threads: int, **more: Any) -> list[Implementation]:
    """Return this library's six implementations of the core loop (2-D SGDM on the hyperbola, 200 steps) and its variants, not yet sized or run.

    They are in this order: SGDM, a user's rule, a user's compiled gradient, Rademacher noise, a coupled pair (SGDM and SGD on the same draws), and
    such a pair with control variate. An implementation is sized by `Implementation.size`, which chooses its number of paths.

    Args:
        threads: Number of threads.
        **more: Further arguments of `st.simulate` and `st.weak_gap`, such as `dtype="float32"`.
    """
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
        Implementation(REFERENCE, threads, single(st.SGDM(oracle, plan))),
        Implementation(
            "sdetools, a rule of your own", threads, single(OwnRule(oracle, plan)), "a traced subclass of st.Dynamics"
        ),
        Implementation("sdetools, an @njit gradient of your own", threads, single(staged()), "from_function"),
        Implementation("sdetools, Rademacher noise", threads, single(st.SGDM(signs, plan))),
        Implementation("sdetools, coupled pair", threads, pair(False), "SGDM and SGD on the same draws, both in one path-step"),
        Implementation(CONTROLLED, threads, pair(True), "and the control variate"),
    ]


def numpy_loop(block: int) -> Callable[[int], None]:
    """Return a function `run(paths)`: the core loop in NumPy, on `block` paths at a time, with in-place operations and the generator SFC64.

    The core loop is 200 steps of 2-D SGDM on the hyperbola. The function simulates whole blocks, paths // block of them, in the calling thread, and
    returns None.
    """
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
    """Return a function `run(paths)`: the core loop in Numba, one path after the other, with Numba's own generator.

    The core loop is 200 steps of 2-D SGDM on the hyperbola. The function returns the mean of x^2 + y^2 at the end; its first call compiles it.
    """
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


def peer_implementations(threads: int, quick: bool = False) -> tuple[list[Implementation], list[str]]:
    """Return the core loop in NumPy, Numba, torch and torchsde at their best block sizes, and a message for each library that is not installed.

    The core loop is 200 steps of 2-D SGDM on the hyperbola; torchsde runs Euler's scheme on the SDE of SGD. A block is the paths that are
    computed together; its best size is found here by timing.

    Args:
        threads: Number of threads. The NumPy and Numba loops are included for one thread only.
        quick: Whether to try fewer block sizes.

    Returns:
        The list of the implementations, not yet sized or timed, and the list of messages, such as "torch loop: torch is not installed; ...".
    """
    from sdetools.benchmarking.torch_loops import torch_loop, torchsde_euler

    blocks, batches = (BLOCKS[3:5], BATCHES[1:2]) if quick else (BLOCKS, BATCHES)
    impls, absent = [], []
    if threads == 1:
        impls += [
            best_implementation("NumPy loop", 1, numpy_loop, blocks),
            Implementation("Numba, one path at a time", 1, naive_numba()),
        ]
    for name, make, sizes in (("torch loop", torch_loop, blocks), ("torchsde, Euler", torchsde_euler, batches)):
        try:
            impls.append(best_implementation(name, threads, partial(make, threads), sizes))
        except ModuleNotFoundError as error:
            absent.append(f"{name}: {error.name} is not installed; {PEERS}")
    return impls, absent


def speed(threads: Sequence[int], quick: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure all implementations of the core loop (2-D SGDM on the hyperbola), interleaved: in every round each runs once.

    Args:
        threads: Numbers of threads; each is measured.
        quick: Whether to use shorter runs (0.1 instead of 0.8 seconds) and fewer rounds (3 instead of 7).

    Returns:
        A list of rows and a list of messages, one for each library that is not installed. A row is a dict for an implementation and a number of
        threads, with `way` (its name), `ns_per_path_step` (the median over rounds), `fastest`, `slowest` (also in nanoseconds per
        path-step), and `ratio` to this library's median on equally many threads, and also `note`, `threads`, `paths` and `steps`.
    """
    target, rounds = (0.1, 3) if quick else (0.8, 7)
    impls: list[Implementation] = []
    absent: dict[str, None] = {}
    for count in threads:
        peers, missing = peer_implementations(count, quick)
        impls += [*own_implementations(count), *peers]
        absent.update(dict.fromkeys(missing))
    for impl in impls:
        impl.size(target)
    run_interleaved(impls, rounds)
    base = {impl.threads: median(impl.nanoseconds) for impl in impls if impl.name == REFERENCE}
    rows = [
        {
            "way": impl.name, "note": impl.note, "threads": impl.threads, "paths": impl.paths, "steps": STEPS,
            "ns_per_path_step": median(impl.nanoseconds), "fastest": min(impl.nanoseconds), "slowest": max(impl.nanoseconds),
            "ratio": median(impl.nanoseconds) / base[impl.threads],
        }
        for impl in impls
    ]  # fmt: skip
    return rows, list(absent)
