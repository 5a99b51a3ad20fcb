"""What `sdetools bench` measures: the core loop beside its peers, and what coupling and the control variate save.

The core loop is 2-D SGDM on the hyperbola with Gaussian noise in double precision, the same arithmetic in every way: through
`st.simulate` with one recorded time (everything that a user waits for, tracing and sums too), in NumPy and in torch at their best
block size, in Numba one path at a time, and as torchsde's Euler scheme on the SDE with the same drift and diffusion. Each way is
compiled and sized before the clock runs; then all take turns (A B C A B C ...), so that a slow minute of the machine hits all of
them. The ratio of medians on equally many threads is what to quote; nanoseconds are this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from sdetools.dynamics.base import Dynamics

ETA, BETA, SIGMA, START = 0.01, 0.9, 1.0, (2.0, 0.5)
STEPS = 200
BLOCKS = (512, 1024, 2048, 4096, 8192, 16384)
BATCHES = (4096, 16384, 65536)
REFERENCE = "sdetools"
PEERS = "pip install 'sdetools[bench]'"


@dataclass
class Way:
    """One way to run the core loop: `run(paths)` for a multiple of `block`; `seconds` is what each turn took."""

    name: str
    threads: int
    run: Callable[[int], Any]
    note: str = ""
    block: int = 4096
    paths: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def nanoseconds(self) -> list[float]:
        """ns per path-step, a turn each."""
        return [1e9 * s / (self.paths * STEPS) for s in self.seconds]

    def size(self, target: float) -> None:
        """Compile, then choose the number of paths that takes about `target` seconds."""
        paths = self.block
        self.run(paths)
        while (seconds := clock(self.run, paths)) < target / 4:
            paths *= 4
        self.paths = max(1, round(paths * target / seconds / self.block)) * self.block


class OwnRule(Dynamics):
    """SGDM as a user would write it, outside the library."""

    parts = ("x", "m")
    coefficients = ("eta", "beta")

    @staticmethod
    def rule(state: Any, oracle: Any, eta: Any, beta: Any) -> Any:
        x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        return x - eta * m, m


def own_ways(threads: int) -> list[Way]:
    """The core loop in this library, on `threads` threads, and variations of it."""
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
        Way("sdetools, coupled pair with control", threads, pair(True), "and the control variate"),
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


def torch_loop(threads: int, block: int) -> Callable[[int], None]:
    """The NumPy loop in torch: in place, its own generator."""
    import torch

    x, m, z, g = (torch.empty((2, block), dtype=torch.float64) for _ in range(4))
    generator = torch.Generator().manual_seed(0)
    rate = ETA * (1 - BETA)

    def run(paths: int) -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for _ in range(paths // block):
                x[0], x[1] = START
                m.zero_()
                for _ in range(STEPS):
                    z.normal_(generator=generator)
                    r = (x[0] * x[1]).sub_(1.0)
                    torch.mul(x.flip(0), r, out=g)
                    m.mul_(BETA).add_(g, alpha=rate).add_(z, alpha=rate * SIGMA)
                    x.sub_(m)
                float((x[0] ** 2 + x[1] ** 2).mean())

    return run


def torchsde_euler(threads: int, batch: int) -> Callable[[int], None]:
    """torchsde's Euler scheme on dX = -grad L dt + sqrt(eta) sigma dW, diagonal noise, its default Brownian interval."""
    import torch
    import torchsde

    class Limit(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Any, x: Any) -> Any:
            return -x.flip(1) * (x[:, :1] * x[:, 1:] - 1.0)

        def g(self, t: Any, x: Any) -> Any:
            return torch.full_like(x, SIGMA * ETA**0.5)

    limit, start = Limit(), torch.tensor(START, dtype=torch.float64)
    times = torch.tensor([0.0, STEPS * ETA], dtype=torch.float64)

    def run(paths: int) -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for _ in range(paths // batch):
                x = torchsde.sdeint(limit, start.repeat(batch, 1), times, method="euler", dt=ETA)[-1]
                float((x**2).sum(1).mean())

    return run


def peer_ways(threads: int, quick: bool = False) -> tuple[list[Way], list[str]]:
    """The core loop elsewhere, at each way's best block size; and a line for each peer that is not installed."""
    blocks, batches = (BLOCKS[3:5], BATCHES[1:2]) if quick else (BLOCKS, BATCHES)
    ways, absent = [], []
    if threads == 1:
        ways += [best_way("NumPy loop", 1, numpy_loop, blocks), Way("Numba, one path at a time", 1, naive_numba())]
    for name, make, sizes in (("torch loop", torch_loop, blocks), ("torchsde, Euler", torchsde_euler, batches)):
        try:
            ways.append(best_way(name, threads, lambda size, make=make: make(threads, size), sizes))
        except ModuleNotFoundError as error:
            absent.append(f"{name}: {error.name} is not installed; {PEERS}")
    return ways, absent


def best_way(name: str, threads: int, make: Callable[[int], Callable[[int], None]], sizes: Sequence[int]) -> Way:
    """The way at the block size that is fastest here."""
    most = max(sizes)

    def seconds(size: int) -> float:
        run = make(size)
        run(size)
        return min(clock(run, most) for _ in range(2))

    best = sizes[0] if len(sizes) == 1 else min(sizes, key=seconds)
    return Way(name, threads, make(best), f"blocks of {best:,}", best)


def clock(run: Callable[[int], Any], paths: int) -> float:
    begin = time.perf_counter()
    run(paths)
    return time.perf_counter() - begin


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
    for _ in range(turns):
        for way in ways:
            way.seconds.append(clock(way.run, way.paths))
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


def reductions(paths: int, exponents: Sequence[int], threads: int | None) -> list[dict[str, Any]]:
    """Variance of independent sampling over that of the coupled gap, without and with the control; sigma = eta^-1/2, T = 1."""
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


def hardware() -> dict[str, Any]:
    """What ran it, for the record."""
    import numba

    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0] if lines else name
    versions = {"python": platform.python_version(), "numpy": np.__version__, "numba": numba.__version__}
    return {"processor": name, "cores": os.cpu_count(), "system": platform.system(), **versions}


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that reads well on a terminal and is Markdown elsewhere."""
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.MARKDOWN)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if rows and not rows[0][i][:1].isdigit() else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `sdetools bench`; the exit code.

    >>> main(["--part", "nothing"])
    Traceback (most recent call last):
    ...
    SystemExit: 2
    """
    parser = argparse.ArgumentParser(
        prog="sdetools bench", description="Measure how fast the kernels run here, beside other ways."
    )
    parser.epilog = "Example: sdetools bench --quick --json bench.json"
    parser.add_argument("--quick", action="store_true", help="shorter turns and fewer paths: a look, not a record")
    parser.add_argument("--part", choices=("speed", "variance"), help="only this part")
    parser.add_argument("--threads", type=int, metavar="N", help="the larger number of threads (default: all cores)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    options = parser.parse_args(argv)
    from sdetools.simulation.engine import available_threads

    most = options.threads or available_threads()
    if most < 1:
        parser.error("--threads must be at least 1")
    report: dict[str, Any] = {"hardware": hardware(), "threads": most}
    print(", ".join(f"{key} {value}" for key, value in report["hardware"].items()))
    if options.part != "variance":
        rows, absent = speed(sorted({1, most}), options.quick)
        report |= {"speed": rows, "absent": absent}
        show(
            "Core loop: 2-D SGDM on the hyperbola, Gaussian noise unless said otherwise, double precision",
            ["way", "threads", "ns per path-step", "fastest to slowest turn", "times sdetools", "remark"],
            [
                [r["way"], str(r["threads"]), f"{r['ns_per_path_step']:.2f}", f"{r['fastest']:.2f} to {r['slowest']:.2f}",
                 f"{r['ratio']:.2f}", r["note"]]
                for r in rows
            ],
        )  # fmt: skip
        for line in absent:
            print(line)
    if options.part != "speed":
        table = reductions(*((20_000, (7, 9)) if options.quick else (200_000, (7, 8, 9, 10, 11))), most)
        report["variance_reduction"] = table
        show(
            f"Variance of independent sampling over the gap's: beta = 0.9, sigma = eta^-1/2, T = 1, {table[0]['paths']:,} paths",
            ["loss", "noise", "h", "eta", "coupled, at T", "with control", "coupled, at the maximum", "with control"],
            [
                [r["loss"], r["noise"], r["observable"], f"2^{round(np.log2(r['eta']))}",
                 *(f"{r[key]:.1f}" for key in ("coupled", "controlled", "coupled_at_max", "controlled_at_max"))]
                for r in table
            ],
        )  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
