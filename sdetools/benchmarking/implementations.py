"""Implementations of the core loop, 200 steps of 2-D SGDM on the hyperbola: how their runs are sized, interleaved and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdetools._install import install_command

ETA, BETA, SIGMA, START = 0.01, 0.9, 1.0, (2.0, 0.5)
STEPS = 200
BLOCKS = (512, 1024, 2048, 4096, 8192, 16384)
BATCHES = (4096, 16384, 65536)
REFERENCE = "sdetools"
PEERS = install_command("bench")


@dataclass
class Implementation:
    """One implementation of the core loop, 200 steps of 2-D SGDM on the hyperbola (x y - 1)^2 / 2 from (2, 0.5).

    The learning rate is eta = 0.01, the momentum beta = 0.9, and the gradient noise standard normal (Rademacher in one variant).

    Attributes:
        name: Name in the table, such as "NumPy loop".
        threads: Number of threads.
        run: Function `run(paths)` that simulates the given number of paths, a multiple of `block`; what it returns is not used.
        note: Remark in the table.
        block: Number of paths that are simulated together.
        paths: Number of paths of a timed run, chosen by `size`; 0 before.
        timer: The clock, a function that returns seconds; by default wall time.
        seconds: Time of the runs so far, one for each round of `run_interleaved`.
    """

    name: str
    threads: int
    run: Callable[[int], Any]
    note: str = ""
    block: int = 4096
    paths: int = 0
    timer: Callable[[], float] = time.perf_counter
    seconds: list[float] = field(default_factory=list)

    @property
    def nanoseconds(self) -> list[float]:
        """Nanoseconds per path-step (one step of one path) of each round, in order; empty before the first round."""
        return [1e9 * s / (self.paths * STEPS) for s in self.seconds]

    def size(self, target: float) -> None:
        """Compile, then set `paths` to the multiple of `block` that is expected to take `target` seconds, by extrapolation from a shorter run."""
        paths = self.block
        self.run(paths)
        while (seconds := clock(lambda: self.run(paths), self.timer)) < target / 4:
            paths *= 4
        self.paths = max(1, round(paths * target / seconds / self.block)) * self.block


def best_implementation(
    name: str, threads: int, make: Callable[[int], Callable[[int], None]], sizes: Sequence[int]
) -> Implementation:
    """Return an implementation of the core loop at the block size (number of paths computed together) that is fastest on this machine.

    Args:
        name: Name in the table.
        threads: Number of threads.
        make: Function of a block size that returns a function `run(paths)`, which simulates that number of paths.
        sizes: Block sizes, at least one. Each is timed on as many paths as the largest of them; a single one is not timed.

    Returns:
        The implementation, without a number of paths, which `Implementation.size` chooses.
    """
    most = max(sizes)

    def seconds(size: int) -> float:
        run = make(size)
        run(size)
        return min(clock(lambda: run(most)) for _ in range(2))

    best = sizes[0] if len(sizes) == 1 else min(sizes, key=seconds)
    return Implementation(name, threads, make(best), f"blocks of {best:,}", best)


def clock(work: Callable[[], Any], timer: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds that the call `work()` takes by `timer`, a function that returns seconds; by default wall time."""
    begin = timer()
    work()
    return timer() - begin


def run_interleaved(impls: Sequence[Implementation], rounds: int) -> None:
    """Run the implementations in the order A B C A B C ..., `rounds` times each, and append the times to their `seconds`.

    Each must have been sized by `Implementation.size`, which chooses its number of paths.
    """
    for _ in range(rounds):
        for impl in impls:
            impl.seconds.append(clock(lambda: impl.run(impl.paths), impl.timer))
