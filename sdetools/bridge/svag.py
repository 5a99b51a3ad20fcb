r"""SVAG around any torch optimiser and training loop: the same mean gradient, l times its covariance, steps l times smaller.

A step takes two batches, L = r_1 L_1 + r_2 L_2 with r_i = (1 -+ sqrt(2 l - 1)) / 2, at the learning rate lr / l, and there are l times as many
steps. Because r_1 + r_2 = 1 and r_1^2 + r_2^2 = l, the limit l -> infinity is the SDE of the optimiser at its finite learning rate. The two
batches are passed through the network separately, so that batch normalisation uses the statistics of each (and updates its running statistics
twice per step). The momentum of SGD does not depend on l. Steps of torch's Adam, AdamW and RMSprop, which divide by the size of the gradients, are scaled
by the square-root rule instead:

    lr / sqrt(l),   1 - (1 - beta_i) / l,   eps sqrt(l),   AdamW: weight_decay / sqrt(l).

The `alpha` of RMSprop is scaled as beta_2. A beta_1 of 0 stays 0. For these methods the limit needs noise that dominates the gradients.

Sources: Z. Li, S. Malladi, S. Arora, NeurIPS 2021; Def. 5.1 of the paper; for adaptive methods S. Malladi et al., NeurIPS 2022, whose l is sqrt(l) here. For
losses given as formulas, see `sdetools.svag`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

from sdetools.noise.oracle import svag_weights


class SVAG:
    """Stochastic variance amplified gradient: two batches per step, and steps of `optimizer` at the learning rate lr / l (adaptive methods: lr / sqrt(l)).

    The loss of a step is r_1 L_1 + r_2 L_2 for the losses of two batches, with r_1 = (1 - sqrt(2 l - 1)) / 2 and r_2 = 1 - r_1. The mean
    gradient stays, and its covariance is multiplied by l.

    `optimizer.step` divides the learning rates by l and restores them before it returns. For torch's Adam, AdamW and RMSprop it takes lr / sqrt(l),
    1 - (1 - beta) / l for each beta (RMSprop: alpha), eps sqrt(l) and, for decoupled decay, weight_decay / sqrt(l) (the square-root rule). Schedulers,
    checkpoints and groups added later therefore always see the numbers without SVAG. At l = 1 the first batch has weight zero and is not evaluated. A deep
    copy of both objects has SVAG too; a copy of the optimiser alone has not.

    Args:
        optimizer: A torch optimiser whose groups have a learning rate. Its `step` is replaced.
        l: The amplification, an integer >= 1.

    Attributes:
        l: The amplification.
        weights: The pair (r_1, r_2).
        optimizer: The optimiser.

    Raises:
        ValueError: If `l` is below 1, or if `optimizer` has no learning rates or already has SVAG. Also if it is adaptive and has taken steps (for l > 1),
            is another adaptive method, normalises its gradients (SNGM, Signum, Lion), or is RMSprop with momentum. Also in a step by a reference to
            `optimizer.step` that was stored before, because that step would be l times too long.

    Example:
        >>> import torch
        >>> from sdetools.bridge import SVAG
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = torch.optim.SGD([p], lr=0.5)
        >>> svag = SVAG(optimizer, l=5)
        >>> scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, svag.stretched(lambda k: 0.5**k))
        >>> loss = svag.backward(lambda batch: (p * batch).sum(), torch.tensor([1.0]), torch.tensor([2.0]))
        >>> optimizer.step(); p.grad, p.data, optimizer.param_groups[0]["lr"]
        (tensor([3.]), tensor([0.7000]), 0.5)
    """

    def __init__(self, optimizer: torch.optim.Optimizer, l: int) -> None:
        self._attach(optimizer, l)
        if l > 1 and isinstance(optimizer, ADAPTIVE) and optimizer.state:
            raise ValueError(
                "`optimizer` must be new, because its second moments are those of gradients without SVAG; got one that has taken steps. Make a new one, or "
                "load the state of a run with SVAG after this."
            )

    def _attach(self, optimizer: torch.optim.Optimizer, l: int) -> None:
        """Check `optimizer` (ValueErrors as for the class) and replace its `step` by one with amplification `l`; it may have taken steps."""
        self.l, self.weights, self.optimizer = l, svag_weights(l), optimizer
        if not isinstance(optimizer, torch.optim.Optimizer) or any("lr" not in group for group in optimizer.param_groups):
            raise ValueError(f"`optimizer` must be one of torch, with learning rates; got {optimizer!r}.")
        if (present := svag_of(optimizer)) is not None:
            raise ValueError(
                f"`optimizer` must be without SVAG; got one that has it with l={present.l}. Make a new optimiser for another l."
            )
        if isinstance(optimizer, _UNKNOWN) and not isinstance(optimizer, ADAPTIVE):
            raise ValueError(
                f"`optimizer` must be SGD, of the momentum family, Adam, AdamW or RMSprop; got {type(optimizer).__name__}, for which no scaling is known."
            )
        for group in optimizer.param_groups:
            _scaled(optimizer, group, l)
            if group.get("method") in _NORMALISED:
                raise ValueError(
                    f"`optimizer` must depend on the size of the gradients; got {group['method']}: noise that is amplified changes its mean step at every l."
                )
        self._saved: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] | None = None
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
            loss_of: The loss of a batch, a function to a scalar tensor.
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
            factor: The schedule without SVAG, from the number k = 0, 1, ... of a step to its factor of the learning rate, as for torch's `LambdaLR`.
        """
        return lambda k: factor(k // self.l)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (self.optimizer, self.l)

    def _divide(self) -> None:
        """Replace the numbers of every parameter group by those of a step with SVAG, such as lr / l, and store the others for `_restore`."""
        own = [(group, _scaled(self.optimizer, group, self.l)) for group in self.optimizer.param_groups]
        self._saved = [(group, {name: group[name] for name in numbers}, numbers) for group, numbers in own]
        for group, numbers in own:
            group.update(numbers)

    def _restore(self) -> None:
        """Restore the numbers after `_divide`; without a preceding `_divide`, do nothing.

        A learning rate that the optimiser changed during its step is multiplied by its divisor instead.
        """
        for group, whole, own in self._saved or ():
            changed = group["lr"] is not own["lr"]
            lr = group["lr"] * _divisor(self.optimizer, self.l)
            group.update(whole | ({"lr": lr} if changed else {}))
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


ADAPTIVE = (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
"""The optimisers that the square-root rule scales."""
_UNKNOWN = tuple(
    getattr(torch.optim, name)
    for name in ("Adadelta", "Adafactor", "Adagrad", "Adamax", "LBFGS", "Muon", "NAdam", "RAdam", "Rprop", "SparseAdam")
    if hasattr(torch.optim, name)
)

_NORMALISED = ("SNGM", "Signum", "Lion")


def _attached(optimizer: torch.optim.Optimizer, l: int) -> SVAG:
    """Return a new `SVAG` of `optimizer` with the amplification `l`, for copies: the optimiser may have taken steps with SVAG."""
    svag = SVAG.__new__(SVAG)
    svag._attach(optimizer, l)
    return svag


def _divisor(optimizer: torch.optim.Optimizer, l: int) -> float:
    """Return the number by which the learning rate of `optimizer` is divided: sqrt(l) for Adam, AdamW and RMSprop, l for others."""
    return math.sqrt(l) if isinstance(optimizer, ADAPTIVE) else l


def _scaled(optimizer: torch.optim.Optimizer, group: dict[str, Any], l: int) -> dict[str, Any]:
    """Return the numbers of a parameter group of `optimizer` that differ in a step with SVAG, as a dict by name; ValueError for RMSprop with momentum.

    They are lr / l, or for Adam, AdamW and RMSprop those of the square-root rule: "lr", "eps", "betas" or "alpha", and a decoupled "weight_decay".
    """
    divisor = _divisor(optimizer, l)
    own = {"lr": group["lr"] / divisor}
    if not isinstance(optimizer, ADAPTIVE):
        return own
    own["eps"] = group["eps"] * divisor
    if isinstance(optimizer, torch.optim.RMSprop):
        if group["momentum"]:
            raise ValueError(
                f"`optimizer` must be RMSprop without momentum; got momentum={group['momentum']:g}, for which no scaling is known. Use Adam."
            )
        return own | {"alpha": _slower(group["alpha"], l)}
    if group.get("decoupled_weight_decay", isinstance(optimizer, torch.optim.AdamW)):
        own["weight_decay"] = group["weight_decay"] / divisor
    return own | {"betas": tuple(_slower(beta, l) if beta else beta for beta in group["betas"])}


def _slower(beta: Any, l: int) -> Any:
    """Return 1 - (1 - beta) / l, a number or a tensor, exactly beta at l = 1."""
    return beta + (1 - 1 / l) * (1 - beta)


def svag_of(optimizer: Any) -> SVAG | None:
    """Return the `SVAG` attached to `optimizer`; None if it has none or is not an optimiser."""
    return getattr(optimizer, "_svag", None)
