r"""SVAG around any optimiser and any training loop: the same mean gradient, l times its covariance, steps l times smaller.

A step takes two batches, L = r_1 L_1 + r_2 L_2 with r_i = (1 -+ sqrt(2 l - 1)) / 2, at the learning rate lr / l, and there are l times as
many of them. As r_1 + r_2 = 1 and r_1^2 + r_2^2 = l, the limit l -> infinity is the SDE of the optimiser at its own finite learning
rate. Each batch is forwarded by itself, so that batch normalisation sees its own statistics (and moves its running ones twice a step).
The momentum stays as it is while l grows.

Source: Z. Li, S. Malladi, S. Arora, NeurIPS 2021; Def. 5.1 of the paper; on losses of formulas it is `sdetools.svag`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

from sdetools.noise.oracle import svag_weights


class SVAG:
    """Two batches a step for `optimizer`, which from now on takes its steps at lr / l.

    `lr` itself stays what it is set to, by whom and whenever that is: the division is part of `optimizer.step`, and lasts as long as
    it. Schedulers, checkpoints and added groups hold the learning rate of the optimiser without SVAG.

    `backward(loss_of, first, second)` puts the gradient of r_1 loss_of(first) + r_2 loss_of(second) into the parameters;
    `stretched(f)` is a schedule f of steps, for l times as many. At l = 1 the first batch has weight zero and is not forwarded.
    A copy of both together is SVAG too; a copy of the optimiser alone is the optimiser.

    Raises `ValueError` for an l below 1, for what is no optimiser of torch with learning rates, and for one that has SVAG already; and
    in a step by a method of the optimiser that was got before, which would be l times as long.

    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = torch.optim.SGD([p], lr=0.5)
    >>> svag = SVAG(optimizer, l=5)
    >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, svag.stretched(lambda k: 0.5**k))
    >>> loss = svag.backward(lambda batch: (p * batch).sum(), torch.tensor([1.0]), torch.tensor([2.0]))
    >>> optimizer.step(); p.grad, p.data, optimizer.param_groups[0]["lr"]
    (tensor([3.]), tensor([0.7000]), 0.5)
    """

    def __init__(self, optimizer: torch.optim.Optimizer, l: int) -> None:
        self.l, self.weights, self.optimizer = l, svag_weights(l), optimizer
        if not isinstance(optimizer, torch.optim.Optimizer) or any("lr" not in group for group in optimizer.param_groups):
            raise ValueError(f"`optimizer` must be one of torch, with learning rates; got {optimizer!r}.")
        if (held := of(optimizer)) is not None:
            raise ValueError(
                f"`optimizer` must be without SVAG; got one that has it with l={held.l}. Make a new optimiser for another l."
            )
        self._held: list[tuple[dict[str, Any], Any, Any]] | None = None
        take = optimizer.step

        @functools.wraps(getattr(take, "__func__", take))  # with the mark by which torch's schedulers know that steps are counted
        def step(_: Any, closure: Callable[[], Any] | None = None, *args: Any, **options: Any) -> Any:
            given = () if closure is None else (self._whole(closure),)
            self._divide()
            try:
                return take(*given, *args, **options)
            finally:
                self._restore()

        optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
        optimizer._svag = self  # type: ignore[attr-defined]
        optimizer.register_step_pre_hook(self._check_divided)

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

    def __reduce__(self) -> tuple[Any, ...]:
        return SVAG, (self.optimizer, self.l)

    def _divide(self) -> None:
        self._held = [(group, group["lr"], group["lr"] / self.l) for group in self.optimizer.param_groups]
        for group, _, own in self._held:
            group["lr"] = own

    def _restore(self) -> None:
        """Learning rates as they were; what an optimiser made of those that it saw is theirs times l."""
        for group, whole, own in self._held or ():
            group["lr"] = whole if group["lr"] is own else group["lr"] * self.l
        self._held = None

    def _whole(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure that reads and writes learning rates as all others do."""

        @functools.wraps(closure)
        def call() -> Any:
            self._restore()
            try:
                return closure()
            finally:
                self._divide()

        return call

    def _check_divided(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._held is None:
            raise ValueError(
                "a step under SVAG must be taken by `optimizer.step` as it is now; this one is by a method got before SVAG was made, "
                "which would not divide lr by l. Get it anew."
            )


def of(optimizer: Any) -> SVAG | None:
    """The SVAG that an optimiser has."""
    return getattr(optimizer, "_svag", None)
