r"""SVAG around any optimiser and any training loop: the same mean gradient, l times its covariance, steps l times smaller.

A step takes two batches, L = r_1 L_1 + r_2 L_2 with r_i = (1 -+ sqrt(2 l - 1)) / 2, at the learning rate lr / l, and there are l times as
many of them. As r_1 + r_2 = 1 and r_1^2 + r_2^2 = l, the limit l -> infinity is the SDE of the optimiser at its own finite learning
rate. Each batch is forwarded by itself, so that batch normalisation sees its own statistics (and moves its running ones twice a step).
The momentum stays as it is while l grows.

Source: Z. Li, S. Malladi, S. Arora, NeurIPS 2021; Def. 5.1 of the paper; on losses of formulas it is `sdetools.svag`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sdetools.noise.oracle import svag_weights


class SVAG:
    """Two batches a step for `optimizer`, whose learning rates it divides by l; make it before any scheduler.

    `backward(loss_of, first, second)` puts the gradient of r_1 loss_of(first) + r_2 loss_of(second) into the parameters;
    `stretched(f)` is a schedule f of steps, for l times as many. At l = 1 the first batch has weight zero and is not forwarded.

    Raises `ValueError` for an l below 1, and for an optimiser that a scheduler has already.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = torch.optim.SGD([p], lr=0.5)
    >>> svag = SVAG(optimizer, l=5)
    >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, svag.stretched(lambda k: 0.5**k))
    >>> loss = svag.backward(lambda batch: (p * batch).sum(), torch.tensor([1.0]), torch.tensor([2.0]))
    >>> p.grad, optimizer.param_groups[0]["lr"]
    (tensor([3.]), 0.1)
    >>> optimizer.step()
    """

    def __init__(self, optimizer: torch.optim.Optimizer, l: int) -> None:
        self.l, self.weights, self.optimizer = l, svag_weights(l), optimizer
        for group in optimizer.param_groups:
            if "initial_lr" in group:
                raise ValueError(
                    "`optimizer` must have no scheduler yet, for that remembers the old learning rate; got one. Make SVAG first."
                )
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] / l

    def backward(self, loss_of: Callable[[Any], torch.Tensor], first: Any, second: Any) -> torch.Tensor:
        """Add the gradient of r_1 loss_of(first) + r_2 loss_of(second) to the parameters' `.grad`; returns that loss, detached."""
        total: torch.Tensor | None = None
        for weight, batch in zip(self.weights, (first, second)):
            if weight:
                part = weight * loss_of(batch)
                total = part if total is None else total + part
        assert total is not None
        total.backward()
        return total.detach()

    def stretched(self, factor: Callable[[int], float]) -> Callable[[int], float]:
        """A schedule of steps, each of which lasts l steps now."""
        return lambda k: factor(k // self.l)
