"""Cost of a path-step of each optimiser over that of SGDM, in two dimensions, all run interleaved on one thread.

    python benchmarks/rules.py [--paths 16384] [--steps 400] [--turns 7]

The problem is the hyperbola L = (x y - 1)^2 / 2 with Gaussian noise, in double precision on the compiled backend. The time of a step is the
difference between the shortest runs of n and of 10 steps.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import sdetools as st
from sdetools.dynamics.catalogue import optimisers


def seconds(method: Any, steps: int, paths: int) -> float:
    """Return the wall-clock time of one run."""
    begin, horizon = time.perf_counter(), steps * method.step_time
    st.simulate(method, [2.0, 0.5], horizon, paths, ["x"], times=[horizon], threads=1, backend="numba")
    return time.perf_counter() - begin


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=16_384)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    oracle = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2))
    plan = st.schedules.constant(0.01, 0.9)
    methods = {
        f"{entry.name}{i or ''}": (entry.build(oracle, plan, arguments), arguments)
        for entry in optimisers()
        for i, arguments in enumerate(entry.valid)
    }
    long: dict[str, list[float]] = {name: [] for name in methods}
    short: dict[str, list[float]] = {name: [] for name in methods}
    for method, _ in methods.values():
        seconds(method, 10, given.paths)  # compiles
    for _ in range(given.turns):
        for name, (method, _) in methods.items():
            short[name].append(seconds(method, 10, given.paths))
            long[name].append(seconds(method, given.steps, given.paths))
    cost = {name: (min(long[name]) - min(short[name])) / ((given.steps - 10) * given.paths) * 1e9 for name in methods}
    print(f"{'optimiser':18}{'ns a path-step':>16}{'over SGDM':>12}  arguments")
    for name, (_, arguments) in methods.items():
        shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
        print(f"{name:18}{cost[name]:16.2f}{cost[name] / cost['SGDM']:12.2f}  {shown}")


if __name__ == "__main__":
    main()
