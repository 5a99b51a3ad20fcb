"""Cost of a step of each torch optimiser compared with `torch.optim.SGD`, all run interleaved.

    python benchmarks/optimisers.py [--parameters 10000000] [--tensors 200] [--threads 2] [--device cpu]

Passes are the numbers of reads and writes of arrays of the parameters' size, summed over torch's operations. The last column is the
time of a pass over that of `torch.optim.SGD`, which has 3.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from sdetools import bridge

OPTIMISERS = {
    "torch.optim.SGD": (3, lambda p: torch.optim.SGD(p, lr=1e-6)),
    "SGD": (3, lambda p: bridge.SGD(p, lr=1e-6)),
    "torch.optim.SGD, momentum": (8, lambda p: torch.optim.SGD(p, lr=1e-6, momentum=0.9)),
    "HeavyBall": (8, lambda p: bridge.HeavyBall(p, lr=1e-6)),
    "SGDM": (6, lambda p: bridge.SGDM(p, lr=1e-6)),
    "torch.optim.SGD, Nesterov": (11, lambda p: torch.optim.SGD(p, lr=1e-6, momentum=0.9, nesterov=True)),
    "Nesterov": (11, lambda p: bridge.Nesterov(p, lr=1e-6)),
    "QHM": (9, lambda p: bridge.QHM(p, lr=1e-6)),
    "PNM": (9, lambda p: bridge.PNM(p, lr=1e-6)),
    "SNGM": (9, lambda p: bridge.SNGM(p, lr=1e-6)),
    "RandomScaling": (6, lambda p: bridge.RandomScaling(p, lr=1e-6)),
    "SGDF": (41, lambda p: bridge.SGDF(p, lr=1e-6)),
}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--tensors", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    wait = torch.cuda.synchronize if given.device.startswith("cuda") else (lambda: None)
    optimisers = {}
    for name, (_, make) in OPTIMISERS.items():
        size = given.parameters // given.tensors
        params = [torch.nn.Parameter(torch.randn(size, device=given.device)) for _ in range(given.tensors)]
        for p in params:
            p.grad = torch.randn_like(p)
        optimisers[name] = make(params)
        optimisers[name].step()
    seconds: dict[str, list[float]] = {name: [] for name in OPTIMISERS}
    for _ in range(given.turns):
        for name, optimiser in optimisers.items():
            wait()
            begin = time.perf_counter()
            optimiser.step()
            wait()
            seconds[name].append(time.perf_counter() - begin)
    base = statistics.median(seconds["torch.optim.SGD"])
    print(f"{given.parameters:,} parameters in {given.tensors} tensors, {given.threads} threads, {given.device}")
    print(f"{'optimiser':28}{'ms':>8}{'times SGD':>12}{'passes':>8}{'time of a pass':>16}")
    for name, (passes, _) in OPTIMISERS.items():
        median = statistics.median(seconds[name])
        print(f"{name:28}{1e3 * median:8.2f}{median / base:12.2f}{passes:8}{median / base * 3 / passes:16.2f}")


if __name__ == "__main__":
    main()
