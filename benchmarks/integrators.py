"""Every integrator against torchsde and diffrax: cost per path-step, and cost to a given weak error. Needs the extra `bench`.

Three linear 2-D problems, so that the step for a given weak error follows from exact moment maps, the same for one scheme in every library:
diagonal noise (Ito), the same in the Stratonovich sense, and additive noise; and a kinetic equation for the splittings. All implementations
run on `--threads` threads in double precision, 200 steps to t = 1. They are compiled and at their best batch size before the clock starts,
and run interleaved.

diffrax is jitted and vmapped over keys, a fresh key for each call, constant steps, `UnsafeBrownianPath`, `DirectAdjoint`: its fastest
configuration. torchsde has its default Brownian interval, under `inference_mode`. The plain torch loop is a hand-written Euler scheme.

The cost to a weak error of `--error` is that of all paths and steps for E x^2 with a bias and a standard error of this size each.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import sdetools as st
from sdetools.benchmarking.implementations import PEERS, STEPS, Implementation, best_implementation, run_interleaved
from sdetools.benchmarking.machine import hardware, show
from sdetools.simulation.engine import available_threads

DRIFT, START = np.array([[-1.0, 0.3], [-0.2, -0.7]]), (1.0, 0.5)
SPREAD = (0.5, 0.4)
BATCHES = (4096, 16384)


def linear(noise: list[str], calculus: str = "ito") -> st.SDE:
    """Return the linear SDE with the given noise."""
    (a, b), (c, d) = DRIFT.tolist()
    return st.SDE(drift=[f"{a}*x + {b}*y", f"{c}*x + {d}*y"], diffusion=noise, variables="x y", calculus=calculus)


def kinetic(dim: int) -> st.KineticSDE:
    """Return the kinetic equation of a quadratic."""
    eta = 0.01
    oracle = st.NoisyOracle(st.losses.quadratic([1.7, 1.0][:dim]), st.noise.gaussian(dim=dim), sigma=0.5 * eta**-0.5)
    return st.KineticSDE(oracle, st.schedules.scaled(eta, alpha=1.0))


MULTIPLIED, FIXED = [f"{SPREAD[0]}*x", f"{SPREAD[1]}*y"], [str(s) for s in SPREAD]
PROBLEMS = {
    "diagonal": linear(MULTIPLIED),
    "Stratonovich": linear(MULTIPLIED, "stratonovich"),
    "additive": linear(FIXED),
    "kinetic": kinetic(2),
}
MAPPED = PROBLEMS | {"kinetic": kinetic(1)}
"""Problems for which the moment map is evaluated. The coordinates of the kinetic problem are independent, so the first one suffices."""


@dataclass
class Entry:
    """An implementation of one scheme on one problem; `map(n)` returns the dynamics with its exact moments at n steps, if known."""

    problem: str
    scheme: str
    impl: Implementation
    map: Callable[[int], Any] | None = None


def ours(threads: int) -> Iterator[Entry]:
    """Yield this library's integrators."""
    cases = [
        ("diagonal", st.EulerMaruyama, ("normal", "three-point", "two-point")), ("diagonal", st.Milstein, ("normal",)),
        ("diagonal", st.Platen, ("normal", "three-point")), ("diagonal", st.RI1, ("normal", "three-point")),
        ("Stratonovich", st.Heun, ("normal",)), ("additive", st.EulerMaruyama, ("normal",)), ("additive", st.SRA1, ("normal",)),
        *(("kinetic", cls, ("normal",)) for cls in (st.OBABO, st.BAOAB, st.UBU)),
    ]  # fmt: skip
    for problem, cls, laws in cases:
        for law in laws:
            sde = PROBLEMS[problem]

            def make(n: int, cls: Any = cls, sde: Any = MAPPED[problem], law: str = law) -> Any:
                return cls(sde, 1 / n, law)

            one = cls(sde, 1 / STEPS, law)

            def run(paths: int, one: Any = one, name: str = f"{sde.names[0]}**2") -> Any:
                return st.simulate(one, START, 1.0, paths, [name], times=[1.0], threads=threads)

            scheme = cls.__name__ + ("" if law == "normal" else f", {law} draws")
            yield Entry(problem, scheme, Implementation("sdetools", threads, run), make)
    euler = PROBLEMS["diagonal"]

    def halves(paths: int) -> Any:
        return st.extrapolate(
            lambda dt: st.EulerMaruyama(euler, dt), 2 / STEPS, START, 1.0, paths, ["x**2"], times=[1.0], threads=threads
        )

    yield Entry(
        "diagonal", "EulerMaruyama, extrapolated", Implementation("sdetools", threads, halves, "200 steps and 100 coupled"), None
    )

    def device(paths: int) -> Any:
        return st.simulate(
            st.EulerMaruyama(euler, 1 / STEPS), START, 1.0, paths, ["x**2"], times=[1.0], threads=threads, backend="torch"
        )

    yield Entry("diagonal", "EulerMaruyama", Implementation("sdetools, torch backend", threads, device, block=16384), None)


def by_hand(threads: int, batch: int) -> Callable[[int], None]:
    """Return Euler's scheme as a plain batched torch loop."""
    import torch

    A, b = torch.tensor(DRIFT), torch.tensor(SPREAD, dtype=torch.float64)[:, None]
    start, h = torch.tensor(START, dtype=torch.float64)[:, None], 1 / STEPS

    def run(paths: int) -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for _ in range(paths // batch):
                x = start.repeat(1, batch)
                for _ in range(STEPS):
                    x = x + h * (A @ x) + b * x * (math.sqrt(h) * torch.randn_like(x))
                float((x[0] ** 2).mean())

    return run


def torchsde_implementations(threads: int) -> Iterator[tuple[str, str, Callable[[int], Callable[[int], None]]]]:
    """Yield problem, scheme and implementation of torchsde's solvers."""
    import torch
    import torchsde

    A, b = torch.tensor(DRIFT), torch.tensor(SPREAD, dtype=torch.float64)
    start, times = torch.tensor(START, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)

    def solver(method: str, kind: str, multiplied: bool) -> Callable[[int], Callable[[int], None]]:
        class Model(torch.nn.Module):
            noise_type, sde_type = "diagonal", kind

            def f(self, t: Any, x: Any) -> Any:
                return x @ A.T

            def g(self, t: Any, x: Any) -> Any:
                return b * x if multiplied else b.expand_as(x)

        model = Model()

        def make(batch: int) -> Callable[[int], None]:
            def run(paths: int) -> None:
                torch.set_num_threads(threads)
                with torch.inference_mode(method != "milstein"), torch.no_grad():
                    for _ in range(paths // batch):
                        x = torchsde.sdeint(model, start.repeat(batch, 1), times, method=method, dt=1 / STEPS)[-1]
                        float((x[:, 0] ** 2).mean())

            return run

        return make

    yield "diagonal", "EulerMaruyama", solver("euler", "ito", True)
    yield "diagonal", "Milstein", solver("milstein", "ito", True)
    yield "diagonal", "SRK", solver("srk", "ito", True)
    yield "Stratonovich", "Heun", solver("heun", "stratonovich", True)
    yield "additive", "EulerMaruyama", solver("euler", "ito", False)
    yield "additive", "SRK", solver("srk", "ito", False)


def diffrax_implementations(threads: int) -> Iterator[tuple[str, str, Callable[[int], Callable[[int], None]]]]:
    """Yield problem, scheme and implementation of diffrax's solvers."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import lineax

    jax.config.update("jax_enable_x64", True)
    A, b, start = jnp.array(DRIFT), jnp.array(SPREAD), jnp.array(START)

    def solver(method: Any, multiplied: bool, area: Any = diffrax.BrownianIncrement) -> Callable[[int], Callable[[int], None]]:
        def one(key: Any) -> Any:
            motion = diffrax.UnsafeBrownianPath(shape=(2,), key=key, levy_area=area)
            noise = diffrax.ControlTerm(lambda t, x, args: lineax.DiagonalLinearOperator(b * x if multiplied else b), motion)
            terms = diffrax.MultiTerm(diffrax.ODETerm(lambda t, x, args: A @ x), noise)
            return diffrax.diffeqsolve(
                terms, method, 0.0, 1.0, 1 / STEPS, start, saveat=diffrax.SaveAt(t1=True), max_steps=STEPS + 1,
                stepsize_controller=diffrax.ConstantStepSize(), adjoint=diffrax.DirectAdjoint(), throw=False,
            ).ys[0]  # fmt: skip

        @jax.jit
        def mean(keys: Any) -> Any:
            return jnp.mean(jax.vmap(one)(keys)[:, 0] ** 2)

        split = jax.jit(jax.random.split, static_argnums=1)

        def make(batch: int) -> Callable[[int], None]:
            state = {"key": jax.random.key(0)}

            def run(paths: int) -> None:
                for _ in range(paths // batch):
                    state["key"], key = jax.random.split(state["key"])
                    float(mean(split(key, batch)))

            return run

        return make

    yield "diagonal", "EulerMaruyama", solver(diffrax.Euler(), True)
    yield "diagonal", "Milstein", solver(diffrax.ItoMilstein(), True)
    yield "Stratonovich", "Heun", solver(diffrax.Heun(), True)
    yield "additive", "EulerMaruyama", solver(diffrax.Euler(), False)
    yield "additive", "SRA1", solver(diffrax.SRA1(), False, diffrax.SpaceTimeLevyArea)


def peers(threads: int, quick: bool) -> tuple[list[Entry], list[str]]:
    """Return the other libraries' implementations at their best batch size, and a message for each that is not installed."""
    entries, absent = [], []
    sizes = BATCHES[:1] if quick else BATCHES
    maps = {(e.problem, e.scheme): e.map for e in ours(threads) if e.map is not None}
    entries.append(
        Entry(
            "diagonal",
            "EulerMaruyama",
            best_implementation("plain torch loop", threads, lambda size: by_hand(threads, size), sizes),
        )
    )
    for name, impls in (("torchsde", torchsde_implementations), ("diffrax", diffrax_implementations)):
        try:
            for problem, scheme, make in impls(threads):
                impl = best_implementation(name, threads, make, sizes)
                entries.append(Entry(problem, scheme, impl, maps.get((problem, scheme))))
        except ModuleNotFoundError as error:
            absent.append(f"{name}: {error.name} is not installed; {PEERS}")
    return entries, absent


def steps_for(make: Callable[[int], Any], problem: str, error: float) -> int:
    """Return the least n such that n and n + 1 steps have a relative bias of E x^2 at t = 1 of at most `error`."""
    sde = MAPPED[problem]
    start = START[: sde.dim]
    true = float(st.exact.expectation(st.exact.solution(sde, start, [1.0]), f"{sde.names[0]}**2")[-1])

    def bias(n: int) -> float:
        got = st.exact.moments(make(n), start, n, record=[n])
        return abs(float(got.covariance[0, 0, 0] + got.mean[0, 0] ** 2) / true - 1)

    high = 1
    while max(bias(high), bias(high + 1)) > error:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if max(bias(middle), bias(middle + 1)) <= error else (middle, high)
    return high


def relative_variance(problem: str) -> float:
    """Return Var x^2 / (E x^2)^2 at t = 1 by simulation. Divided by e^2 it is the number of paths for a relative standard error of e."""
    sde = PROBLEMS[problem]
    scheme = {"Stratonovich": st.Heun, "kinetic": st.BAOAB}.get(problem, st.EulerMaruyama)
    run = st.simulate(scheme(sde, 1 / STEPS), START, 1.0, 200_000, [f"{sde.names[0]}**2"], times=[1.0])
    return float(run.statistics.variance[-1, 0] / run.statistics.mean[-1, 0] ** 2)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs and fewer batch sizes, for a first impression")
    parser.add_argument(
        "--threads", type=int, default=available_threads(), help="threads of every implementation (default: all cores)"
    )
    parser.add_argument("--error", type=float, default=1e-3, help="relative weak error of the last columns (default: 1e-3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    options = parser.parse_args(argv)
    print(", ".join(f"{key} {value}" for key, value in hardware().items()))
    others, absent = peers(options.threads, options.quick)
    entries = [*ours(options.threads), *others]
    target, rounds = (0.1, 3) if options.quick else (0.5, 5)
    for entry in entries:
        entry.impl.size(target)
    run_interleaved([entry.impl for entry in entries], rounds)
    base = {(e.problem, e.scheme): median(e.impl.nanoseconds) for e in entries if e.impl.name == "sdetools"}
    spread = {problem: relative_variance(problem) for problem in PROBLEMS}
    rows = []
    for e in sorted(entries, key=lambda e: (list(PROBLEMS).index(e.problem), e.scheme, e.impl.name != "sdetools")):
        ns = median(e.impl.nanoseconds)
        steps = steps_for(e.map, e.problem, options.error) if e.map is not None else None
        seconds = None if steps is None else ns * 1e-9 * steps * spread[e.problem] / options.error**2
        rows.append({
            "problem": e.problem, "scheme": e.scheme, "way": e.impl.name, "threads": e.impl.threads, "paths": e.impl.paths,
            "ns_per_path_step": ns, "fastest": min(e.impl.nanoseconds), "slowest": max(e.impl.nanoseconds),
            "ratio": ns / base[e.problem, e.scheme] if (e.problem, e.scheme) in base else None,
            "steps_for_error": steps, "seconds_for_error": seconds, "note": e.impl.note,
        })  # fmt: skip
    show(
        f"{options.threads} threads, double precision; the last two columns for a weak error of {options.error:g} of E x^2 at t = 1",
        ["problem", "scheme", "implementation", "ns per path-step", "range", "times sdetools", "steps", "seconds"],
        [
            [r["problem"], r["scheme"], r["way"], f"{r['ns_per_path_step']:.2f}", f"{r['fastest']:.2f} to {r['slowest']:.2f}",
             "" if r["ratio"] is None else f"{r['ratio']:.1f}", "" if r["steps_for_error"] is None else str(r["steps_for_error"]),
             "" if r["seconds_for_error"] is None else f"{r['seconds_for_error']:.3g}"]
            for r in rows
        ],
    )  # fmt: skip
    for line in absent:
        print(line)
    if options.json:
        report = {"hardware": hardware(), "rows": rows, "absent": absent, "error": options.error}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
