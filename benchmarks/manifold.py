"""Cost of the slow drift of a large network: a tanh network with two hidden layers at zero residuals, by products alone.

    python benchmarks/manifold.py [--residuals 500] [--parameters 10000 30000 100000]

Prints seconds and peak memory for the geometry (Gram matrix), the tangent projection of a vector, the slow drift under label noise and
under a root of 4 columns, and the log-log slope of the total in the number of parameters.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

import sdetools as st

FEATURES = 20


def network(parameters: int):
    """Return f(x, a) with the largest number of parameters up to `parameters`, and that number."""
    width = int((-(FEATURES + 3) + np.sqrt((FEATURES + 3) ** 2 + 4 * parameters)) / 2)
    sizes = [(width, FEATURES), (width,), (width, width), (width,), (width,)]
    ends = np.cumsum([int(np.prod(s)) for s in sizes]).tolist()

    def model(x, a):
        parts = [x[end - int(np.prod(s)) : end].reshape(s) for end, s in zip(ends, sizes)]
        hidden = torch.tanh(parts[0] @ a / FEATURES**0.5 + parts[1])
        hidden = torch.tanh(parts[2] @ hidden / width**0.5 + parts[3])
        return parts[4] @ hidden / width**0.5

    return model, ends[-1]


def timed(label: str, function):
    """Run a function, print its time, and return its result and the time."""
    begin = time.perf_counter()
    out = function()
    seconds = time.perf_counter() - begin
    print(f"  {label:38}{seconds:8.2f} s", flush=True)
    return out, seconds


def measure(parameters: int, residuals: int) -> tuple[int, float]:
    """Return the number of parameters and the seconds from a point of zero residuals to its slow drifts."""
    model, dim = network(parameters)
    rng = np.random.default_rng(0)
    inputs, targets = torch.as_tensor(rng.normal(size=(residuals, FEATURES))), torch.as_tensor(rng.normal(size=residuals))
    loss = st.losses.from_torch_model(model, inputs, targets, dim=dim, at=rng.normal(size=dim))
    print(f"{dim:,} parameters, {residuals} residuals")
    x, _ = timed("(interpolation, by Gauss-Newton)", lambda: st.manifold.retract(loss, rng.normal(size=dim)))
    geometry, a = timed("geometry", lambda: st.manifold.matrix_free(loss, x))
    _, b = timed("tangent projection of a vector", lambda: geometry.project_tangent(rng.normal(size=dim)))
    _, c = timed("slow drift, label noise (exact)", lambda: geometry.slow_drift(hessian_multiple=1.0))
    _, d = timed("slow drift, a root of 4 columns", lambda: geometry.slow_drift(root=rng.normal(size=(dim, 4))))
    print(
        f"  {'total':38}{a + b + c + d:8.2f} s, rank {geometry.rank}, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    )
    return dim, a + b + c + d


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--residuals", type=int, default=500)
    parser.add_argument("--parameters", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    options = parser.parse_args()
    found = [measure(n, options.residuals) for n in options.parameters]
    if len(found) > 1:
        sizes, seconds = np.log(np.array(found)).T
        print(f"log-log slope of the cost in the number of parameters: {np.polyfit(sizes, seconds, 1)[0]:.2f}")


if __name__ == "__main__":
    main()
