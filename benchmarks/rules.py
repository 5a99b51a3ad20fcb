"""Cost of a path-step of each optimiser over that of SGDM, in two dimensions, and of adaptive methods in a thousand, all run interleaved on one thread.

    python benchmarks/rules.py [--only Adam SignSGD] [--paths 16384] [--steps 400] [--dim 1000] [--turns 7]

The first table is for the hyperbola L = (x y - 1)^2 / 2, the second for the double well L = sum x_i^4/4 - x_i^2/2 in `--dim` coordinates, both with Gaussian
noise, in double precision on the compiled backend. The time of a step is the difference between the shortest runs of many steps and of few, in processor
time, because other processes share the machine; the medians are beside them.

A square root has a price of its own: the difference of SGDM and of the same with x' = x - eta sqrt(1 + m'^2), in the same loop. Adam needs one more
square root and one more division a coordinate, and moves one more part of the state.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

import sdetools as st
from sdetools.dynamics.catalogue import optimisers

BOUNDS = {"Adam": 2.2, "SignSGD": 1.2}
"""The most that a path-step in two dimensions may cost, over SGDM."""
BOUND = 1.3
"""The most that a coordinate-step of Adam may cost over that of SGDM and a square root."""
PLAN = st.schedules.constant(0.01, 0.9)


class RootedSGDM(st.SGDM):
    """SGDM with a square root in each coordinate, to measure its price: x' = x - eta sqrt(1 + m'^2)."""

    @staticmethod
    def rule(state: Any, oracle: Any, eta: Any, beta: Any) -> Any:
        x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        return x - eta * np.sqrt(1 + m * m), m


def seconds(method: Any, x0: Any, steps: int, paths: int) -> float:
    """Return the processor time of one run."""
    begin, horizon = time.thread_time(), steps * method.step_time
    st.simulate(method, x0, horizon, paths, {"first": first}, times=[horizon], threads=1, backend="numba")
    return time.thread_time() - begin


def first(x: Any) -> Any:
    """Return the first coordinate."""
    return x[0]


def nanoseconds(
    methods: Mapping[str, Any], x0: Any, steps: tuple[int, int], paths: int, turns: int
) -> dict[str, tuple[float, float]]:
    """Return the least and the median cost of a path-step of each method by name, in nanoseconds; `steps` are those of a short and a long run."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for method in methods.values():
        seconds(method, x0, steps[0], paths)  # compiles
    for _ in range(turns):
        for name, method in methods.items():
            taken[name].append((seconds(method, x0, steps[0], paths), seconds(method, x0, steps[1], paths)))
    unit = 1e9 / ((steps[1] - steps[0]) * paths)
    return {
        name: (unit * (min(b for _, b in runs) - min(a for a, _ in runs)), unit * median(b - a for a, b in runs))
        for name, runs in taken.items()
    }


def two_dimensions(wanted: Callable[[str], bool], paths: int, steps: int, turns: int) -> None:
    """Print the table of all optimisers that are `wanted`, in two dimensions."""
    oracle = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2))
    made = {
        f"{entry.name}{i or ''}": (entry.build(oracle, PLAN, arguments), arguments)
        for entry in optimisers()
        for i, arguments in enumerate(entry.valid)
        if wanted(entry.name)
    }
    cost = nanoseconds({name: method for name, (method, _) in made.items()}, [2.0, 0.5], (10, steps), paths, turns)
    print(f"{'two dimensions':18}{'ns a path-step':>16}{'median':>9}{'over SGDM':>12}{'bound':>7}  arguments")
    for name, (_, arguments) in made.items():
        shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
        best, middle = cost[name]
        bound = f"{BOUNDS[name]:7.1f}" if name in BOUNDS else " " * 7
        print(f"{name:18}{best:16.2f}{middle:9.2f}{best / cost['SGDM'][0]:12.2f}{bound}  {shown}")


def many_dimensions(dim: int, turns: int) -> None:
    """Print the cost of a coordinate-step of adaptive methods in `dim` dimensions, beside that of SGDM and a square root."""
    well = st.losses.from_function(value=lambda x: np.sum(x**4 / 4 - x**2 / 2), dim=dim)
    oracle = st.NoisyOracle(well, st.noise.gaussian(dim=dim))
    methods = {
        "SGDM": st.SGDM(oracle, PLAN),
        "SGDM with a root": RootedSGDM(oracle, PLAN),
        "RMSProp": st.RMSProp(oracle, PLAN.averaged()),
        "Adam": st.Adam(oracle, PLAN),
        "AdamW": st.AdamW(oracle, PLAN),
    }
    paths = 1024
    steps = max(2, round(1.2e8 / (dim * paths)))
    cost = nanoseconds(methods, np.full(dim, 0.5), (1, 1 + steps), paths, turns)
    least = cost["SGDM with a root"][0] / dim
    print(f"\n{f'{dim:,} dimensions':18}{'ns a coordinate':>16}{'median':>9}{'over SGDM':>12}{'over SGDM + root':>18}")
    for name, (best, middle) in cost.items():
        print(f"{name:18}{best / dim:16.3f}{middle / dim:9.3f}{best / cost['SGDM'][0]:12.2f}{best / dim / least:18.2f}")
    print(
        f"a root: {least - cost['SGDM'][0] / dim:.3f} ns; Adam over SGDM and a root: {cost['Adam'][0] / dim / least:.2f}, bound {BOUND:g}"
    )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="optimisers of the first table, besides SGDM")
    parser.add_argument("--paths", type=int, default=16_384)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--dim", type=int, default=1_000)
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    two_dimensions(lambda name: given.only is None or name in ("SGDM", *given.only), given.paths, given.steps, given.turns)
    many_dimensions(given.dim, given.turns)


if __name__ == "__main__":
    main()
