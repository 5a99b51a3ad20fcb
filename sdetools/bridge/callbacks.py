r"""The diagnosis of momentum and SVAG in other people's training loops: callbacks for transformers' `Trainer` and for Lightning.

Neither package is needed to import this file. Both callbacks of a kind do the same:

- `TransformersDiagnosis`, `LightningDiagnosis` call `diagnose` at every n-th step of a run with momentum, and report the numbers.
- `TransformersSVAG`, `LightningSVAG` turn the accumulation of two batches into SVAG: gradients r_1 g_1 + r_2 g_2 in place of (g_1 + g_2) / 2, and the
  learning rate lr / l. A run takes l times as many steps as without SVAG; schedules stretch with the number of steps that the loop is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from sdetools import _check
from sdetools.bridge.diagnosis import Diagnosis, diagnose
from sdetools.bridge.svag import SVAG
from sdetools.bridge.torch_optimisers import SGDM, HeavyBall, Nesterov


def _base(*places: str) -> Any:
    """Return the first class of `places`, texts such as "module.Class", whose module is installed; `object` if there is none."""
    for place in places:
        module, _, name = place.rpartition(".")
        try:
            return getattr(import_module(module), name)
        except ModuleNotFoundError:
            continue
    return object


if TYPE_CHECKING:
    _TransformersCallback = object
    _LightningCallback = object
else:
    _TransformersCallback = _base("transformers.trainer_callback.TrainerCallback")
    _LightningCallback = _base("lightning.pytorch.Callback", "pytorch_lightning.Callback")


def momentum_of(optimiser: Any) -> tuple[float, float, str]:
    """Return learning rate, momentum and form ("heavy-ball", "sgdm" or "nesterov") of a torch optimiser, as `diagnose` takes them.

    Args:
        optimiser: `torch.optim.SGD` with momentum, or `SGDM`, `HeavyBall` or `Nesterov` of this package; also inside a wrapper with the attribute
            `optimizer`. All groups must agree.

    Raises:
        ValueError: For another optimiser, without momentum, or with groups that differ.

    Example:
        >>> import torch; from sdetools.bridge.callbacks import momentum_of
        >>> momentum_of(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9))
        (0.1, 0.9, 'heavy-ball')
    """
    own = getattr(optimiser, "optimizer", optimiser)
    found = set()
    for group in own.param_groups:
        momentum = float(group.get("momentum", 0.0))
        form = next(
            (form for kind, form in ((SGDM, "sgdm"), (HeavyBall, "heavy-ball"), (Nesterov, "nesterov")) if isinstance(own, kind)),
            None,
        )
        if isinstance(own, torch.optim.SGD):
            dampening = float(group["dampening"])
            form = {0.0: "nesterov" if group["nesterov"] else "heavy-ball", momentum: "sgdm"}.get(dampening)
        found.add((float(group["lr"]), momentum, form))
    if len(found) != 1 or not momentum or form is None:
        raise ValueError(
            "`optimizer` must be SGD with momentum (and no dampening, or one equal to the momentum) and equal groups, which the diagnosis is about; got "
            f"{type(own).__name__} with {', '.join(f'lr={lr:g}, momentum={m:g}' for lr, m, _ in sorted(found, key=str))}."
        )
    return float(group["lr"]), momentum, form


class PeriodicDiagnosis:
    """Calls `diagnose` at every n-th step and reports the numbers; the core of both callbacks.

    Args:
        every: The number n of steps between diagnoses, at least 1; ValueError otherwise.
        loss_of: The loss of (model, batch), a scalar tensor.
        data: Arrays, a data set or a loader, as for `diagnose`; None for the loop's own loader of training data.
        tell: Called with one line about each diagnosis; None for no output.
        loggers: Objects with `log(step, numbers)`, which receive the numbers that `at` returns.
        options: Further keyword arguments of `diagnose`, by name; None for none. Without "seeds" nothing is trained (seeds=0): P(keep) comes from the
            sharpness alone.

    Attributes:
        diagnoses: The pairs (step, `Diagnosis`) so far.

    Example:
        >>> import torch; from sdetools.bridge.callbacks import PeriodicDiagnosis
        >>> net = torch.nn.Linear(2, 1)
        >>> x = torch.randn(64, 2); rows = (x, x.sum(1, keepdim=True))
        >>> loss_of = lambda net, batch: torch.nn.functional.mse_loss(net(batch[0]), batch[1])
        >>> watch = PeriodicDiagnosis(10, loss_of, rows, tell=None, options={"batch_size": 8})
        >>> for step in range(1, 21):
        ...     numbers = watch.at(step, net, torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9))
        >>> [(step, found.advice) for step, found in watch.diagnoses]
        [(10, 'drop'), (20, 'drop')]
    """

    def __init__(
        self, every: int, loss_of: Callable[[torch.nn.Module, Any], torch.Tensor], data: Any = None,
        tell: Callable[[str], None] | None = print, loggers: Sequence[Any] = (), options: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.every = _check.count("every", every)
        self.loss_of, self.data, self.tell, self.loggers, self.options = (
            loss_of,
            data,
            tell,
            loggers,
            {"seeds": 0} | (options or {}),
        )
        self.diagnoses: list[tuple[int, Diagnosis]] = []

    def at(self, step: int, model: torch.nn.Module, optimiser: Any, loader: Any = None) -> dict[str, float] | None:
        """Diagnose the model after `step` steps if that is a positive multiple of `every`, and report the numbers.

        Args:
            step: The number of steps done.
            model: The network; it is not changed, and nor are torch's random numbers.
            optimiser: Its optimiser, from which `momentum_of` reads learning rate, momentum and form.
            loader: The data if none were given to the constructor.

        Returns:
            The numbers by name: "diagnosis/" and "descent", "curvature", "noise", "variance" or "sharpness", the values of `Diagnosis`;
            "diagnosis/eta_lambda_max", with the ends of its interval under "..._low" and "..._high"; "diagnosis/noise_scale". None if nothing was
            diagnosed.

        Raises:
            ValueError: For an optimiser without momentum, missing data, and as `diagnose`.
        """
        if step % self.every or step == 0:
            return None
        lr, momentum, form = momentum_of(optimiser)
        data = self.data if self.data is not None else loader
        if data is None:
            raise ValueError("`data` must be given where the loop has no loader of training data; got none.")
        found = diagnose(model, None, data, lr, momentum, form=form, loss_of=self.loss_of, **self.options)
        self.diagnoses.append((step, found))
        if self.tell is not None:
            self.tell(f"step {step}: {found.summary()}")
        numbers = {
            f"diagnosis/{name}": getattr(found, name).value for name in ("descent", "curvature", "noise", "variance", "sharpness")
        }
        numbers |= {f"diagnosis/eta_lambda_max{end}": getattr(found.step_sharpness, which) for end, which in _ENDS.items()}
        numbers |= {"diagnosis/noise_scale": found.noise_scale}
        for logger in self.loggers:
            logger.log(step, numbers)
        return numbers


_ENDS = {"": "value", "_low": "low", "_high": "high"}


class AccumulatedSVAG:
    """SVAG in a loop that accumulates the mean gradient of two batches per step; the core of both callbacks.

    Each gradient g_i is multiplied by 2 r_i before it is added up, with the weights r_1 = (1 - sqrt(2 l - 1)) / 2 and r_2 = 1 - r_1 of `SVAG`. Their mean
    is then r_1 g_1 + r_2 g_2, also for a loop that clips it. The loop calls `count_batch` after each backward pass, and `check_step` before each step.

    Args:
        parameters: The network's parameters, of which those that require a gradient get a hook.
        optimiser: Their optimiser, also inside a wrapper with the attribute `optimizer`; `SVAG` is attached to it.
        l: The amplification, an integer >= 1.

    Attributes:
        svag: The `SVAG` that was attached.
        batches: The number of batches counted for the present step.

    Raises:
        ValueError: If `l` is below 1 or `SVAG` refuses the optimiser.

    Example:
        >>> import torch; from sdetools.bridge.callbacks import AccumulatedSVAG
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimiser = torch.optim.SGD([p], lr=0.5)
        >>> svag = AccumulatedSVAG([p], optimiser, l=5)
        >>> for target in (1.0, 2.0):
        ...     (p.sum() * target / 2).backward()
        ...     svag.count_batch()
        >>> svag.check_step(); optimiser.step(); p.grad, p.data
        (tensor([3.]), tensor([0.7000]))
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], optimiser: Any, l: int) -> None:
        self.svag = SVAG(getattr(optimiser, "optimizer", optimiser), l)
        self.batches = 0
        self._handles = [p.register_hook(self._weighted) for p in parameters if p.requires_grad]

    def _weighted(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of a parameter of the present batch times 2 r_i; autograd calls this before it adds the gradient up."""
        return gradient * (2 * self.svag.weights[min(self.batches, 1)])

    def count_batch(self) -> None:
        """Count a batch whose gradient was added: the next gradients get the weight of the second batch."""
        self.batches += 1

    def check_step(self) -> None:
        """Reset the count for the next step; ValueError unless exactly two batches were counted for this one."""
        if self.batches != 2:
            raise ValueError(
                f"a step of SVAG must accumulate two batches; got {self.batches}. Accumulate 2, and give each epoch an even number of batches "
                "(drop the last one)."
            )
        self.batches = 0

    def close(self) -> None:
        """Remove the hooks that weight gradients. SVAG stays attached to the optimiser."""
        for handle in self._handles:
            handle.remove()


def _check_accumulation(name: str, value: Any) -> None:
    """Raise a ValueError unless `value`, the number of accumulated batches, which the loop calls `name`, is 2."""
    if value != 2:
        raise ValueError(f"`{name}` must be 2, because a step of SVAG takes two batches; got {value!r}.")


class TransformersDiagnosis(_TransformersCallback):
    """Callback for transformers' `Trainer` that calls `diagnose` at every n-th step; the numbers are also added to its log history.

    Args:
        every: The number of steps between diagnoses, at least 1; ValueError otherwise.
        data: Arrays, a data set or a loader, as for `diagnose`; None for the trainer's loader of training data.
        loss_of: The loss of (model, batch), a scalar tensor; None for that of a model of transformers, `model(**batch).loss`.
        tell: Called with one line about each diagnosis; None for no output.
        loggers: Objects with `log(step, numbers)`, which receive the numbers of `PeriodicDiagnosis.at`.
        **options: Further keyword arguments of `diagnose`. Without `seeds` nothing is trained (seeds=0).

    Attributes:
        watch: The `PeriodicDiagnosis`, whose `diagnoses` are the results.

    Example:
        >>> from sdetools.bridge.callbacks import TransformersDiagnosis
        >>> TransformersDiagnosis(every=100, hessian_samples=256).watch.every
        100
    """

    def __init__(
        self, every: int, data: Any = None, loss_of: Callable[..., torch.Tensor] | None = None,
        tell: Callable[[str], None] | None = print, loggers: Sequence[Any] = (), **options: Any,
    ) -> None:  # fmt: skip
        self.watch = PeriodicDiagnosis(every, loss_of or (lambda model, batch: model(**batch).loss), data, tell, loggers, options)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Diagnose the model after a step of the optimiser, if it is one to diagnose at; the trainer calls this.

        Args:
            args: The trainer's arguments, not used.
            state: Its state, with the number of steps done (`global_step`) and the `log_history`, to which the numbers are added.
            control: Not used.
            **given: "model", "optimizer" and "train_dataloader" of the trainer; others are not used.
        """
        numbers = self.watch.at(state.global_step, given["model"], given["optimizer"], given.get("train_dataloader"))
        if numbers is not None:
            state.log_history.append({**numbers, "step": state.global_step})


class TransformersSVAG(_TransformersCallback):
    """Callback for transformers' `Trainer` that makes its steps those of SVAG; it needs `gradient_accumulation_steps=2`.

    A loss that is divided by the number of items in both batches (`model_accepts_loss_kwargs`) gives exact weights only if they have equally many.

    Args:
        l: The amplification, an integer >= 1 (ValueError otherwise); give the trainer l times as many steps (`max_steps`).

    Example:
        >>> from sdetools.bridge.callbacks import TransformersSVAG
        >>> TransformersSVAG(l=4).l
        4
    """

    def __init__(self, l: int) -> None:
        self.l = _check.count("l", l)
        self._svag: AccumulatedSVAG | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Attach SVAG to the optimiser in `given`; ValueError unless the trainer's `args` accumulate two batches. The trainer calls this."""
        _check_accumulation("gradient_accumulation_steps", args.gradient_accumulation_steps)
        self._svag = AccumulatedSVAG(given["model"].parameters(), given["optimizer"], self.l)

    def on_substep_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Count the first batch of a step, after its backward pass; no argument is used."""
        assert self._svag is not None
        self._svag.count_batch()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Count the second batch of a step; ValueError unless there were two. No argument is used."""
        assert self._svag is not None
        self._svag.count_batch()
        self._svag.check_step()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Remove the hooks that weight gradients; no argument is used."""
        if self._svag is not None:
            self._svag.close()


class LightningDiagnosis(_LightningCallback):
    """Callback for Lightning that calls `diagnose` at every n-th step; the trainer's loggers receive the numbers too.

    Args:
        every: The number of steps of the optimiser between diagnoses, at least 1; ValueError otherwise.
        loss_of: The loss of (network, batch), a scalar tensor.
        network: A function from the Lightning module to the network that is diagnosed; None for the module itself.
        data: Arrays, a data set or a loader, as for `diagnose`; None for the trainer's loader of training data.
        tell: Called with one line about each diagnosis; None for no output.
        loggers: Objects with `log(step, numbers)`, which receive the numbers of `PeriodicDiagnosis.at`.
        **options: Further keyword arguments of `diagnose`. Without `seeds` nothing is trained (seeds=0).

    Attributes:
        watch: The `PeriodicDiagnosis`, whose `diagnoses` are the results.

    Example:
        >>> from sdetools.bridge.callbacks import LightningDiagnosis
        >>> LightningDiagnosis(100, lambda net, batch: net(batch[0]).square().mean()).watch.diagnoses
        []
    """

    def __init__(
        self, every: int, loss_of: Callable[..., torch.Tensor], network: Callable[[Any], torch.nn.Module] | None = None, data: Any = None,
        tell: Callable[[str], None] | None = print, loggers: Sequence[Any] = (), **options: Any,
    ) -> None:  # fmt: skip
        self.watch = PeriodicDiagnosis(every, loss_of, data, tell, loggers, options)
        self._network, self._last = network or (lambda module: module), 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Diagnose the network after a batch with which a step of the optimiser was taken, if it is one to diagnose at; Lightning calls this.

        Of `trainer` the number of steps, the first optimiser, the loader of training data and the loggers are used; `pl_module` is the Lightning module.
        The other arguments are not used.
        """
        step = trainer.global_step
        if step == self._last:  # the batch was only accumulated
            return
        self._last = step
        numbers = self.watch.at(step, self._network(pl_module), trainer.optimizers[0], trainer.train_dataloader)
        for logger in trainer.loggers if numbers is not None else ():
            logger.log_metrics(numbers, step)


class LightningSVAG(_LightningCallback):
    """Callback for Lightning that makes its steps those of SVAG; it needs `accumulate_grad_batches=2` and a single optimiser.

    Args:
        l: The amplification, an integer >= 1 (ValueError otherwise); give the trainer l times as many steps.

    Example:
        >>> from sdetools.bridge.callbacks import LightningSVAG
        >>> LightningSVAG(l=4).l
        4
    """

    def __init__(self, l: int) -> None:
        self.l = _check.count("l", l)
        self._svag: AccumulatedSVAG | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach SVAG to the optimiser of `trainer`; ValueError unless it is the only one and two batches are accumulated. Lightning calls this."""
        _check_accumulation("accumulate_grad_batches", trainer.accumulate_grad_batches)
        if len(trainer.optimizers) != 1:
            raise ValueError(f"SVAG must have one optimiser; got a module with {len(trainer.optimizers)}.")
        self._svag = AccumulatedSVAG(pl_module.parameters(), trainer.optimizers[0], self.l)

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Count a batch, after its backward pass; no argument is used."""
        assert self._svag is not None
        self._svag.count_batch()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Reset the count of batches before a step; ValueError unless there were two. No argument is used."""
        assert self._svag is not None
        self._svag.check_step()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Remove the hooks that weight gradients; no argument is used."""
        if self._svag is not None:
            self._svag.close()
