r"""Momentum with a memory that grows with the run, and with a compensation of its noise, as `torch.optim.Optimizer`s.

    DANA     y = (1 - D) y + g,  p -= lr (g + g3 y),  D = delta / (delta + k)                        g3 = ratio (1 + k)^-power or a noise budget
    MaSS     d = mu d - lr (mu - c) g,  p += d - lr g                                                 mu = `momentum`

p is a parameter, g its gradient, and k = 0, 1, ... counts the steps of p. Each implements the rule of the same name in `sdetools.dynamics`. On
streaming least squares `st.exact.risk` has their exact risk; on networks they are methods to try, and nothing about them is proved.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from sdetools import _check
from sdetools.bridge.optimiser_base import Optimizer, Tensors, column
from sdetools.losses.diagonal import DiagonalQuadratic


class DANA(Optimizer):
    """Dimension-adapted momentum, y = (1 - D) y + g, p -= lr (g + g3 y), D = delta / (delta + k), k = 0, 1, ...; see `sdetools.DANA`.

    p is a parameter, g its gradient, and y the state "momentum_buffer", 0 at first; k is the number of steps that p has taken. The memory is
    (delta + k) / delta steps after k steps. Either g3 = ratio (1 + k)^-power, or, with `share`, g3 = min(1, 2 s B / N(D / lr)) for
    which the buffer's noise takes about the share s of the stability limit on least squares: N(mu) = sum_i lam_i / (lam_i + mu) over the
    `spectrum` of the Hessian, and B = `batch`. A restart of the memory, such as for another data set, is a new optimiser.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0, the weight of the gradient.
        delta: The decay rate of y is delta / (delta + k); positive.
        ratio: g3 at k = 0, 0 or above.
        power: The exponent of its decay, 0 or above.
        share: Instead of `ratio` and `power`: the share s of the noise budget, positive, such as 0.25; None where they give g3.
        batch: With `share`: the batch size B.
        spectrum: With `share`: the positive eigenvalues of the Hessian of the loss, measured or assumed, a sequence of numbers.
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize`, as in `Optimizer`.

    Raises:
        ValueError: If a number lies outside its range, `share` comes without `batch` and `spectrum`, a parameter is complex or, in a step, a gradient is
            sparse.

    Example:
        >>> import torch
        >>> from sdetools.bridge import DANA
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> p.grad = torch.tensor([0.5])
        >>> DANA([p], lr=0.5, ratio=1.0).step()
        >>> p.data
        tensor([0.5000])
    """

    buffers = ("momentum_buffer",)

    def __init__(
        self,
        params: Any,
        lr: float,
        delta: float = 8.0,
        ratio: float = 0.1,
        power: float = 0.0,
        *,
        share: float | None = None,
        batch: int | None = None,
        spectrum: Any = None,
        **options: Any,
    ) -> None:
        numbers = {"delta": delta, "ratio": ratio, "power": power, "share": share, "batch": batch}
        super().__init__(params, {"lr": lr, **numbers, "spectrum": _plain(spectrum)}, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Validate a parameter group and add it, as in torch; its `spectrum` becomes a tuple of floats, for checkpoints.

        Args:
            param_group: A dict with "params" and any hyperparameters that differ from the defaults; its "spectrum" is replaced in place.

        Raises:
            ValueError: If a hyperparameter is out of range or a parameter is complex.
        """
        if "spectrum" in param_group:
            param_group["spectrum"] = _plain(param_group["spectrum"])
        super().add_param_group(param_group)

    def check(self, settings: dict[str, Any]) -> None:
        _check.positive("delta", settings["delta"], "The memory is (delta + k) / delta steps.")
        for name in ("ratio", "power"):
            if _check.number(name, settings[name]) < 0:
                raise ValueError(f"`{name}` must be 0 or above; got {name}={settings[name]!r}.")
        if settings["share"] is None:
            return
        _check.positive("share", settings["share"], "A share of 0.2 to 0.3 was best on least squares.")
        if settings["batch"] is None or settings["spectrum"] is None:
            raise ValueError("`share` must come with `batch` and `spectrum`, which determine the noise budget. Or give `ratio`.")
        _check.count("batch", settings["batch"])
        lam = _check.finite("spectrum", settings["spectrum"])
        if lam.ndim != 1 or not len(lam) or lam.min() <= 0:
            raise ValueError(f"`spectrum` must be positive numbers; got {_check.shown(settings['spectrum'])}. Leave out others.")

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        y, lr, delta = column(states, "momentum_buffer"), float(group["lr"]), group["delta"]
        counts = [state.get("step", 0) for state in states]
        weights = {k: self.weight(group, k) for k in set(counts)}
        torch._foreach_mul_(y, [k / (delta + k) for k in counts])
        torch._foreach_add_(y, grads)
        torch._foreach_add_(params, grads, alpha=-lr)
        torch._foreach_add_(params, torch._foreach_mul(y, [-lr * weights[k] for k in counts]))
        for state, k in zip(states, counts):
            state["step"] = k + 1

    @staticmethod
    def weight(group: dict[str, Any], k: int) -> float:
        """Return g3, the weight of the buffer y in the step p -= lr (g + g3 y), for a parameter group after `k` steps.

        Args:
            group: The hyperparameters of the group: "lr", "delta", "ratio", "power", "share", "batch" and "spectrum".
            k: The number of steps done, 0, 1, ...
        """
        if group["share"] is None:
            return float(group["ratio"] * (1 + k) ** -group["power"])
        lr = float(group["lr"])
        if lr == 0:
            return 1.0  # without a step, whatever the weight
        seen = _quadratic(group["spectrum"]).effective_dimension(group["delta"] / (group["delta"] + k) / lr)
        return min(1.0, 2 * group["share"] * group["batch"] / seen)


class MaSS(Optimizer):
    """Momentum-added stochastic solver, w' = p - lr g, p' = (1 + mu) w' - mu w + c lr g from w = p, mu = `momentum`; see `sdetools.MaSS`.

    A prime marks the value after the step. The state "displacement_buffer", 0 at first, is d = p - w: d = mu d - lr (mu - c) g, p += d - lr g. The last
    term of p' compensates the noise of the extrapolation; c = 0 is Nesterov's method with the learning rate inside its buffer. On least squares
    `st.exact.mass_parameters(spectrum, batch)` gives the authors' lr, mu and c. A decoupled weight decay does not enter d.

    Args:
        params: The parameters p, an iterable of tensors, or parameter groups, dicts with "params" and their own numbers, as in torch.
        lr: The learning rate, at least 0, the authors' eta_1.
        momentum: mu in [0, 1), the authors' gamma.
        c: The compensation in [0, 1), the authors' eta_2 / eta_1.
        **options: `weight_decay`, `decoupled`, `foreach` and `maximize`, as in `Optimizer`.

    Raises:
        ValueError: If a number lies outside its range, a parameter is complex or, in a step, a gradient is sparse.

    Example:
        >>> import torch
        >>> from sdetools.bridge import MaSS
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> p.grad = torch.tensor([0.5])
        >>> MaSS([p], lr=0.5, momentum=0.75, c=0.25).step()
        >>> p.data  # 1 - 0.5 * 0.5 * (1 + 0.75 - 0.25)
        tensor([0.6250])
    """

    buffers = ("displacement_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, c: float = 0.05, **options: Any) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "c": c}, **options)

    def check(self, settings: dict[str, Any]) -> None:
        _check.momentum("c", settings["c"])

    def update(self, params: Tensors, grads: Tensors, states: list[dict[str, Any]], group: dict[str, Any]) -> None:
        d, lr, mu = column(states, "displacement_buffer"), float(group["lr"]), group["momentum"]
        torch._foreach_mul_(d, mu)
        torch._foreach_add_(d, grads, alpha=-lr * (mu - group["c"]))
        torch._foreach_add_(params, d)
        torch._foreach_add_(params, grads, alpha=-lr)


@lru_cache(maxsize=8)
def _quadratic(spectrum: tuple[float, ...]) -> DiagonalQuadratic:
    """Return the quadratic loss with the curvatures `spectrum`, one object for all steps."""
    return DiagonalQuadratic(np.array(spectrum))


def _plain(spectrum: Any) -> Any:
    """Return the eigenvalues `spectrum` as a tuple of floats, which a checkpoint can hold; None and what is no sequence of numbers unchanged."""
    if isinstance(spectrum, torch.Tensor):
        spectrum = spectrum.detach().cpu().numpy()
    try:
        return None if spectrum is None else tuple(float(one) for one in spectrum)
    except (TypeError, ValueError):
        return spectrum
