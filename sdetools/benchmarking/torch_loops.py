"""The core loop in torch and in torchsde."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sdetools.benchmarking.implementations import BETA, ETA, SIGMA, START, STEPS


def torch_loop(threads: int, block: int) -> Callable[[int], None]:
    """Return a function `run(paths)`: the core loop in torch, on `block` paths at a time, with in-place operations and torch's own generator.

    The core loop is 200 steps of 2-D SGDM on the hyperbola. The function simulates whole blocks, paths // block of them, in double precision on
    `threads` threads (it sets torch's number of threads), and returns None.

    Raises:
        ModuleNotFoundError: If torch is not installed.
    """
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
    """Return a function `run(paths)`: torchsde's Euler scheme, on `batch` paths at a time, for the SDE of SGD on the core loop's loss.

    The SDE is dX = -grad L dt + sqrt(eta) sigma dW on the hyperbola L = (x y - 1)^2 / 2, with eta = 0.01, sigma = 1, 200 steps of length eta,
    torchsde's noise type "diagonal" and its default Brownian interval. The function simulates whole batches, paths // batch of them, on `threads`
    threads (it sets torch's number of threads), and returns None.

    Raises:
        ModuleNotFoundError: If torch or torchsde is not installed.
    """
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
