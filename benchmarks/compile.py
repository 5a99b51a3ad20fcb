"""Time to the first result of an unseen formula in a fresh process: libraries cached, its own kernel not cached and then cached.

    python benchmarks/compile.py [NAME ...] [--ways sgdm,sde,gap] [--dims 1,2,4,8,16,32,64,128,512,2048,10000] [--json compile.json]

A loss is defined by its value alone, so its gradient comes from the graph. `sgdm` runs SGDM on it, `sde` also needs its second derivatives
(Euler-Maruyama on the modified equation of SGD), `gap` is a coupled pair with its control variate. Seconds are those from the loss to the
end of a run of 256 paths and 4 steps, without imports: the graph, the source code, compiling, running. `cached` is the same in a second
process. Operations are those of the value's graph, lines those of the kernel's source code. `quadratic d` is SGDM on a dense quadratic with
Gaussian noise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

RNG = np.random.default_rng(7)


def nested_max(x: Any) -> Any:
    """Return a value with 50 nested maxima."""
    y = x[0]
    for i in range(50):
        y = np.maximum(0.3 * x[i % 2] + 0.01 * i, y * x[(i + 1) % 2] - 0.1)
    return y * y


def deep_tan(x: Any) -> Any:
    """Return a value with 20 nested tangents."""
    y = x[0] * x[1]
    for i in range(20):
        y = np.tan(0.5 * y + 0.01 * i)
    return y


def sum_of_cosh(x: Any) -> Any:
    """Return a sum of 200 hyperbolic cosines."""
    return sum(np.cosh((0.001 * i + 0.1) * x[i % 2] + 0.2 * x[(i + 1) % 2]) for i in range(200)) / 200


def random_expression(dim: int, operations: int) -> Callable[[Any], Any]:
    """Return a loss with `operations` random operations on earlier results, scaled so that magnitudes stay near one."""
    rng = np.random.default_rng(dim)
    kinds = rng.choice(
        ["add", "multiply", "tanh", "sin", "exp", "sqrt", "maximum"], operations, p=[0.35, 0.3, 0.1, 0.05, 0.05, 0.05, 0.1]
    )
    takes = rng.integers(1, 2 * dim + 2, (operations, 2))
    factors = rng.uniform(0.2, 1.0, operations)

    def value(x: Any) -> Any:
        made = [x[i % dim] for i in range(2 * dim + 1)]
        for kind, (a, b), c in zip(kinds, takes, factors):
            u, v = made[-a], made[-b]
            new = {
                "add": lambda: u - c * v, "multiply": lambda: u * v, "tanh": lambda: np.tanh(u), "sin": lambda: np.sin(u + c),
                "exp": lambda: np.exp(-u * u), "sqrt": lambda: np.sqrt(u * u + c), "maximum": lambda: np.maximum(u, c * v),
            }[kind]()  # fmt: skip
            made.append(new)
        return sum(m * m for m in made[-2 * dim - 1 :])

    return value


WEIGHTS, IMAGES = (3, 8, 8, 1), RNG.standard_normal((4, 4))


def network(w: Any) -> Any:
    """Return the loss of a network with three layers, written out in scalars."""
    loss = 0.0
    for *inputs, target in IMAGES:
        at, layer = 0, list(inputs)
        for n, m in pairwise(WEIGHTS):
            layer = [sum(w[at + i * n + j] * layer[j] for j in range(n)) + w[at + n * m + i] for i in range(m)]
            layer = [np.tanh(u) for u in layer] if m > 1 else layer
            at += n * m + m
        loss = loss + (layer[0] - target) ** 2
    return loss / len(IMAGES)


NETWORK_DIM = sum(n * m + m for n, m in pairwise(WEIGHTS))
POWERS = RNG.integers(0, 6, (500, 3))
FACTORS = RNG.standard_normal(500) / 500
TOKENS = RNG.standard_normal((6, 3))


def polynomial(x: Any) -> Any:
    """Return a polynomial of 500 terms in three coordinates."""
    return sum(c * x[0] ** int(a) * x[1] ** int(b) * x[2] ** int(e) for c, (a, b, e) in zip(FACTORS, POWERS)) + np.sum(x**2)


def attention(w: Any) -> Any:
    """Return the loss of one attention head, token by token."""
    query, key, what = (np.reshape(w[9 * i : 9 * i + 9], (3, 3)) for i in range(3))
    loss = 0.0
    for t in range(len(TOKENS)):
        scores = [np.sum((query @ TOKENS[t]) * (key @ TOKENS[s])) / 3**0.5 for s in range(t + 1)]
        total = sum(np.exp(s) for s in scores)
        mixed = sum(np.exp(s) / total * (what @ TOKENS[i]) for i, s in enumerate(scores))
        loss = loss + np.sum((mixed - TOKENS[(t + 1) % len(TOKENS)]) ** 2)
    return loss


FORMULAS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "nested max, 50 deep": (2, nested_max),
    "tan, 20 deep": (2, deep_tan),
    "200 cosh": (2, sum_of_cosh),
    "random, 300 operations": (4, random_expression(4, 300)),
    "random, 1,500 operations": (2, random_expression(2, 1500)),
    "random, 1,500 operations, 8 coordinates": (8, random_expression(8, 1500)),
    "network number by number": (NETWORK_DIM, network),
    "polynomial of 500 terms": (3, polynomial),
    "attention token by token": (27, attention),
    "random, 20,000 operations": (4, random_expression(4, 20_000)),
}
DIMS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 10_000)
KINDS = ("sgdm", "sde", "gap")


def hessian(name: str) -> np.ndarray | None:
    """Return the matrix of a quadratic, or None for another formula."""
    if not name.startswith("quadratic "):
        return None
    dim = int(name.split()[1])
    matrix = np.random.default_rng(dim).standard_normal((dim, dim)) / dim**0.5
    return matrix + matrix.T + 3 * np.eye(dim)


def member(st: Any, name: str, kind: str, matrix: np.ndarray | None) -> tuple[Any, ...]:
    """Return the dynamics of a row of the table."""
    if matrix is not None:
        dim, loss = len(matrix), st.losses.quadratic(matrix)
    else:
        dim, value = FORMULAS[name]
        loss = st.losses.from_function(value=value, dim=dim)
    oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=dim), sigma=0.1)
    plan = st.schedules.constant(eta=0.01, beta=0.9)
    if kind == "sde":
        return (st.EulerMaruyama(st.ModifiedSDE(oracle, plan.averaged().eta), dt=0.01),)
    return (st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())) if kind == "gap" else (st.SGDM(oracle, plan),)


def one(name: str, kind: str) -> dict[str, Any]:
    """Measure one row in this process."""
    begin = time.perf_counter()
    import sdetools as st
    from sdetools.graph.value import Trace, order, value
    from sdetools.simulation import engine
    from sdetools.simulation.cpu import write
    from sdetools.studies.means import make_program

    st.simulate, st.EulerMaruyama, st.ModifiedSDE, st.SGDM, st.losses.from_function  # noqa: B018
    loaded = time.perf_counter()
    matrix = hessian(name)
    ready = time.perf_counter()
    members = member(st, name, kind, matrix)
    made = time.perf_counter()
    dim = members[0].dim
    program, *_ = make_program(members, np.full(dim, 0.3), 0.04, ["x0**2"], None, (), control=kind == "gap", coupled=True)
    prepared = time.perf_counter()
    sums = engine.execute(program, 256, 0, threads=1, backend="numba")
    end = time.perf_counter()
    kernel = write(program)
    text = time.perf_counter() - end  # time to generate the source code, which `execute` did as well
    assert sums.paths == 256
    operations = 0
    if name in FORMULAS:
        operations = sum(n.op not in ("input", "const") for n in order([value(FORMULAS[name][1](Trace().input("x", (dim,))))]))
    lines = len(kernel.text.splitlines())
    return {
        "name": name, "way": kind, "operations": operations, "lines": lines, "import": loaded - begin, "loss": made - ready, "text": prepared - made + text,
        "compile": end - prepared - text, "seconds": end - ready,
        "cpu": time.process_time(),
    }  # fmt: skip


def measured(name: str, kind: str) -> dict[str, Any]:
    """Measure one row in two fresh processes that share an empty kernel cache."""
    with tempfile.TemporaryDirectory() as place:
        rows = []
        for _ in range(2):
            command = [sys.executable, __file__, "--one", json.dumps([name, kind])]
            found = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"SDETOOLS_CACHE": place})
            if found.returncode:
                return {"name": name, "way": kind, "error": found.stderr.strip().splitlines()[-1]}
            rows.append(json.loads(found.stdout.splitlines()[-1]))
    return rows[0] | {"cached": rows[1]["seconds"], "import": rows[1]["import"]}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="prefixes of the rows to measure (default: all)")
    parser.add_argument("--ways", default=",".join(KINDS), help="kinds of run (default: %(default)s)")
    parser.add_argument("--dims", default=",".join(map(str, DIMS)))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(*json.loads(given.one))))
        return
    rows = [(name, kind) for name in FORMULAS for kind in given.ways.split(",")]
    rows += [(f"quadratic {d}", "sgdm") for d in given.dims.split(",") if d]
    libraries = (
        "from sdetools.graph import rows; from sdetools.simulation import launch\n"
        "for name in (*rows.NAMES, 'program', 'product', 'small_product', *launch.MODULES):\n"
        "    launch.address(name)"
    )
    subprocess.run([sys.executable, "-c", libraries], check=True)
    measured("quadratic 1", "sgdm")
    print(
        f"{'':42}{'run':6}{'operations':>11}{'lines':>7}{'loss':>7}{'text':>7}{'compile':>9}{'seconds':>9}{'cached':>8}{'cpu':>7}"
    )
    out = []
    for name, kind in rows:
        if given.names and not any(name.startswith(n) for n in given.names):
            continue
        row = measured(name, kind)
        out.append(row)
        if "error" in row:
            print(f"{name:42}{kind:6} {row['error']}", flush=True)
            continue
        parts = "".join(
            f"{row[key]:{width}.2f}"
            for key, width in (("loss", 7), ("text", 7), ("compile", 9), ("seconds", 9), ("cached", 8), ("cpu", 7))
        )
        print(f"{name:42}{kind:6}{row['operations']:11,}{row['lines']:7,}{parts}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
