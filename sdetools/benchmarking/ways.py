"""A way to run the core loop, sized so that a turn takes a given time; all ways take turns, so that a slow minute hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ETA, BETA, SIGMA, START = 0.01, 0.9, 1.0, (2.0, 0.5)
STEPS = 200
BLOCKS = (512, 1024, 2048, 4096, 8192, 16384)
BATCHES = (4096, 16384, 65536)
REFERENCE = "sdetools"
PEERS = "pip install 'sdetools[bench]'"


@dataclass
class Way:
    """One way to run the core loop: `run(paths)` for a multiple of `block`; `seconds` is what each turn took by the clock `timer`."""

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
        """ns per path-step, a turn each."""
        return [1e9 * s / (self.paths * STEPS) for s in self.seconds]

    def size(self, target: float) -> None:
        """Compile, then choose the number of paths that takes about `target` seconds."""
        paths = self.block
        self.run(paths)
        while (seconds := clock(lambda: self.run(paths), self.timer)) < target / 4:
            paths *= 4
        self.paths = max(1, round(paths * target / seconds / self.block)) * self.block


def best_way(name: str, threads: int, make: Callable[[int], Callable[[int], None]], sizes: Sequence[int]) -> Way:
    """The way at the block size that is fastest here."""
    most = max(sizes)

    def seconds(size: int) -> float:
        run = make(size)
        run(size)
        return min(clock(lambda: run(most)) for _ in range(2))

    best = sizes[0] if len(sizes) == 1 else min(sizes, key=seconds)
    return Way(name, threads, make(best), f"blocks of {best:,}", best)


def clock(work: Callable[[], Any], timer: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that some work takes."""
    begin = timer()
    work()
    return timer() - begin


def take_turns(ways: Sequence[Way], turns: int) -> None:
    """A B C A B C ...: each of the sized ways runs `turns` times."""
    for _ in range(turns):
        for way in ways:
            way.seconds.append(clock(lambda: way.run(way.paths), way.timer))
