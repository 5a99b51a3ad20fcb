r"""SVAG around any torch optimiser and training loop: the same mean gradient, l times its covariance, steps l times smaller.

A step takes two batches, L = r_1 L_1 + r_2 L_2 with r_i = (1 -+ sqrt(2 l - 1)) / 2, at the learning rate lr / l, and there are l times as many
steps. Because r_1 + r_2 = 1 and r_1^2 + r_2^2 = l, the limit l -> infinity is the SDE of the optimiser at its finite learning rate. The two
batches are passed through the network separately, so that batch normalisation uses the statistics of each (and updates its running statistics
twice per step). The momentum does not depend on l.

Source: Z. Li, S. Malladi, S. Arora, NeurIPS 2021; Def. 5.1 of the paper. For losses given as formulas, see `sdetools.svag`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

from sdetools.noise.oracle import svag_weights


class SVAG:
    """Stochastic variance amplified gradient: two batches per step, and steps of `optimizer` at the learning rate lr / l.

    The loss of a step is r_1 L_1 + r_2 L_2 for the losses of two batches, with r_1 = (1 - sqrt(2 l - 1)) / 2 and r_2 = 1 - r_1. The mean
    gradient stays, and its covariance is multiplied by l.

    `optimizer.step` divides the learning rates by l and restores them before it returns. Schedulers, checkpoints and groups added later
    therefore always see the learning rate without SVAG. At l = 1 the first batch has weight zero and is not evaluated. A deep copy of both
    objects has SVAG too; a copy of the optimiser alone has not.

    Args:
        optimizer: A torch optimiser whose groups have a learning rate. Its `step` is replaced.
        l: The amplification, an integer >= 1.

    Attributes:
        weights: The pair (r_1, r_2).

    Raises:
        ValueError: If `l` is below 1, or if `optimizer` has no learning rates or already has SVAG. Also in a step by a reference to
            `optimizer.step` that was stored before, because that step would be l times too long.

    Example:
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
        if (present := svag_of(optimizer)) is not None:
            raise ValueError(
                f"`optimizer` must be without SVAG; got one that has it with l={present.l}. Make a new optimiser for another l."
            )
        self._saved: list[tuple[dict[str, Any], Any, Any]] | None = None
        original_step = optimizer.step

        # `wraps` keeps the attribute by which torch's schedulers detect that steps are counted
        @functools.wraps(getattr(original_step, "__func__", original_step))
        def step(_: Any, closure: Callable[[], Any] | None = None, *args: Any, **options: Any) -> Any:
            given = () if closure is None else (self._undivided(closure),)
            self._divide()
            try:
                return original_step(*given, *args, **options)
            finally:
                self._restore()

        optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
        optimizer._svag = self  # type: ignore[attr-defined]
        optimizer.register_step_pre_hook(self._check_divided)

    def backward(self, loss_of: Callable[[Any], torch.Tensor], first: Any, second: Any) -> torch.Tensor:
        """Add the gradient of r_1 loss_of(first) + r_2 loss_of(second) to the parameters' `.grad`, with r_1 and r_2 from `weights`.

        Args:
            loss_of: The loss of a batch, a scalar tensor.
            first: The batch with the weight r_1 <= 0; at l = 1 the weight is 0 and the batch is not used.
            second: The batch with the weight r_2 >= 1.

        Returns:
            The weighted loss, a detached scalar tensor.
        """
        total: torch.Tensor | None = None
        for weight, batch in zip(self.weights, (first, second)):
            if weight:
                part = weight * loss_of(batch)
                total = part if total is None else total + part
        assert total is not None
        total.backward()
        return total.detach()

    def stretched(self, factor: Callable[[int], float]) -> Callable[[int], float]:
        """Return a learning-rate schedule for the l times as many steps of SVAG: k -> factor(k // l).

        Args:
            factor: The schedule without SVAG, from the number k = 0, 1, ... of a step to its factor of the learning rate.
        """
        return lambda k: factor(k // self.l)

    def __reduce__(self) -> tuple[Any, ...]:
        return SVAG, (self.optimizer, self.l)

    def _divide(self) -> None:
        """Divide the learning rate of every parameter group by l, and store the undivided ones."""
        self._saved = [(group, group["lr"], group["lr"] / self.l) for group in self.optimizer.param_groups]
        for group, _, own in self._saved:
            group["lr"] = own

    def _restore(self) -> None:
        """Restore the undivided learning rates after `_divide`; without a preceding `_divide`, do nothing.

        A learning rate that the optimiser changed during its step is multiplied by l instead.
        """
        for group, whole, own in self._saved or ():
            group["lr"] = whole if group["lr"] is own else group["lr"] * self.l
        self._saved = None

    def _undivided(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return a function that calls `closure` with the undivided learning rates in place, and returns its result."""

        @functools.wraps(closure)
        def call() -> Any:
            self._restore()
            try:
                return closure()
            finally:
                self._divide()

        return call

    def _check_divided(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Raise a ValueError if the learning rates are not divided by l at the beginning of a step of `optimizer`; torch calls this before each."""
        if self._saved is None:
            raise ValueError(
                "a step under SVAG must be taken by `optimizer.step` as it is now; this reference to it was stored before SVAG was "
                "attached and would not divide lr by l. Look it up again."
            )


def svag_of(optimizer: Any) -> SVAG | None:
    """Return the `SVAG` attached to `optimizer`; None if it has none or is not an optimiser."""
    return getattr(optimizer, "_svag", None)
