"""Multilevel Monte Carlo: rms error and coverage over repetitions, the growth of the cost with 1/eps, and the saving.

    python benchmarks/multilevel.py --eps 1e-3 1e-4 --repetitions 100

`additive` is an Ornstein-Uhlenbeck equation, `non-commutative` a linear 2-D system; both by Euler-Maruyama, E x^2 at t = 1, with the exact
value from `st.exact.solution`. Every repetition has its own seed. Errors are relative to the exact value.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import sdetools as st

PROBLEMS = {
    "additive": (st.SDE(drift=["-x"], diffusion=["0.25"], variables="x"), [1.0]),
    "non-commutative": (
        st.SDE(
            drift=["-x + 0.5*y", "-0.5*x - y"],
            diffusion=[["0.1*x", "0.125*y"], ["-0.075*y", "0.125*x"]],
            variables="x y",
        ),
        [1.0, 0.5],
    ),
}


def repeat(sde: st.SDE, x0: list[float], true: float, eps: float, repetitions: int, first: int) -> dict[str, float]:
    """Return errors in units of eps, and costs in steps, over repetitions at one tolerance."""
    errors, costs, plain, begin = [], [], [], time.perf_counter()
    for i in range(repetitions):
        run = st.multilevel(lambda dt: st.EulerMaruyama(sde, dt), x0, 1.0, eps * abs(true), ["x**2"], seed=first + i)
        errors.append((run.estimate.value - true) / (eps * abs(true)))
        costs.append(run.cost)
        plain.append(run.plain_cost)
    return {
        "rms": float(np.sqrt(np.mean(np.square(errors)))), "hits": int(np.sum(np.abs(errors) <= 2)), "cost": float(np.mean(costs)),
        "saving": float(np.mean(plain) / np.mean(costs)), "seconds": (time.perf_counter() - begin) / repetitions,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eps", type=float, nargs="+", default=[1e-3, 3e-4, 1e-4], help="relative tolerances")
    parser.add_argument("--repetitions", type=int, default=100, help="runs of each (default: 100)")
    parser.add_argument("--seed", type=int, default=1000, help="the first seed (default: 1000)")
    options = parser.parse_args(argv)
    for name, (sde, x0) in PROBLEMS.items():
        true = float(st.exact.expectation(st.exact.solution(sde, x0, [1.0]), "x**2")[-1])
        rows = []
        for eps in options.eps:
            row = repeat(sde, x0, true, eps, options.repetitions, options.seed)
            rows.append(row)
            print(
                f"{name}, eps = {eps:g}: rms error {row['rms']:.3f} eps, {row['hits']} of {options.repetitions} within 2 eps, "
                f"{row['cost']:.3g} steps, {row['saving']:.4g} times fewer than plain Monte Carlo, {row['seconds']:.2g} s",
                flush=True,
            )
        if len(rows) > 1:
            growth = np.polyfit(-np.log(options.eps), np.log([row["cost"] for row in rows]), 1)[0]
            print(f"{name}: the cost grows like eps^-{growth:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
