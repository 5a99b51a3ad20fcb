"""Conversion of an `nn.Module` with a loss function and data to a loss of sdetools, and the loss of a network on one batch."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from sdetools import _check
from sdetools._identity import function_identity
from sdetools.bridge.batches import batch_rows, map_tensors
from sdetools.losses.torch_function import TorchSamples


class ModuleLoss(TorchSamples):
    """The loss L(x) = mean over the data of criterion(module(input), target), x the trainable parameters; made by `loss_of_module`.

    A point x `(dim,)` contains the parameters in the order of `module.named_parameters()`, flattened and concatenated, in double precision.

    Args:
        module: The network; a copy in double precision on the CPU is used.
        criterion: The loss of (output, target), a scalar tensor; it is called with batches of one sample.
        inputs: The inputs, an array or tensor with one row per sample.
        targets: The targets, one row per sample.

    Attributes:
        module: The copy of the network.
        start: The parameters of the module when it was passed in, `(dim,)`.
        shapes: The shape of each trainable parameter, by name.

    Raises:
        ValueError: If the module has no trainable parameters, or if its loss is not a mean over samples (see `check_module`).
    """

    def __init__(self, module: torch.nn.Module, criterion: Callable[..., Any], inputs: Any, targets: Any) -> None:
        self.module = copy.deepcopy(module).cpu().double()
        self.criterion = criterion
        check_module(self.module)
        own = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        if not own:
            raise ValueError("`module` must have parameters that require a gradient; got none.")
        self.shapes = {name: p.shape for name, p in own.items()}
        self.start = np.concatenate([p.detach().numpy().ravel() for p in own.values()])

        def sample(x: torch.Tensor, a: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            answer = torch.func.functional_call(self.module, self.parts(x), (a[None],))
            return criterion(answer, y[None])

        super().__init__(sample, (inputs, targets), len(self.start), at=self.start)
        self.label = f"{type(module).__name__} with {len(self.start)} parameters on {self.samples} samples"

    @property
    def identity(self) -> str:
        """Text that identifies module, criterion and data in stored results: the dimension and a hash, equal in every process."""
        digest = hashlib.sha256(f"{self.module!r}{_criterion_identity(self.criterion)}".encode())
        for part in self.module.modules():
            if not type(part).__module__.startswith("torch."):
                digest.update(function_identity(type(part).forward).encode())
        fixed = {**dict(self.module.named_buffers()), **{n: p for n, p in self.module.named_parameters() if not p.requires_grad}}
        for name, tensor in (*fixed.items(), *enumerate(self.data)):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().numpy().tobytes())
        return f"module({self.dim}; {digest.hexdigest()[:24]})"

    def parts(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Split a point x `(dim,)` into the module's trainable parameters: a dict of tensors by name, each in the parameter's shape."""
        cut = torch.split(x, [shape.numel() for shape in self.shapes.values()])
        return {name: part.reshape(shape) for part, (name, shape) in zip(cut, self.shapes.items())}

    def load(self, x: Any) -> torch.nn.Module:
        """Return a copy of the module, in double precision on the CPU, whose trainable parameters are those of the point x `(dim,)`."""
        out = copy.deepcopy(self.module)
        out.load_state_dict(self.parts(torch.as_tensor(np.array(x, dtype=float))), strict=False)
        return out


def _criterion_identity(criterion: Callable[..., Any]) -> str:
    """Return text that identifies a criterion, equal in every process: the printed form and state of a module, else the function's identity."""
    if isinstance(criterion, torch.nn.Module):
        return f"{criterion!r}{ {name: value.tolist() for name, value in criterion.state_dict().items()} }"
    return function_identity(criterion)


def loss_of_module(module: torch.nn.Module, criterion: Callable[..., Any], inputs: Any, targets: Any) -> ModuleLoss:
    """Return a network with its data as a loss L(x) = mean criterion(module(input), target), in double precision.

    The point x `(dim,)` contains all trainable parameters of the network. Use `st.noise.minibatch(loss, size)` for minibatch noise, and start
    at `x0=loss.start`.

    Args:
        module: The network; a copy of it is used, in its present mode (training or evaluation).
        criterion: The loss of (output, target), a scalar tensor, such as `torch.nn.functional.mse_loss`; it is called with batches of one sample.
        inputs: The inputs, an array or tensor with one row per sample.
        targets: The targets, one row per sample.

    Returns:
        The loss, a function of x like other losses of sdetools, with `dim` parameters and `samples` samples. Its `load(x)` returns a copy of the network
        with the parameters x.

    Raises:
        ValueError: If `module` is no network or has no trainable parameters, or `criterion` is no function. Also if the loss is not a mean over samples,
            because of batch normalisation or dropout in training mode: call `module.eval()`, or use group normalisation.

    Example:
        >>> import torch
        >>> from sdetools.bridge import loss_of_module
        >>> loss = loss_of_module(torch.nn.Linear(2, 3), torch.nn.functional.cross_entropy, torch.randn(8, 2), torch.arange(8) % 3)
        >>> loss.dim, loss.samples, loss.gradient(loss.start).shape
        (9, 8, (9,))
    """
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"`module` must be a torch.nn.Module; got {module!r}. Pass a network, not its class.")
    _check_criterion("criterion", criterion)
    return ModuleLoss(module, criterion, inputs, targets)


def _check_criterion(name: str, criterion: Any, rule: str = "") -> None:
    """Raise a ValueError unless `criterion` is callable and no class; `name` is its name in the message, `rule` a text of what else it may be."""
    if isinstance(criterion, type):
        raise ValueError(
            f"`{name}` must be a function of (output, target){rule}; got the class {criterion.__name__}. Write {criterion.__name__}()."
        )
    if not callable(criterion):
        raise ValueError(
            f"`{name}` must be a function of (output, target){rule}; got {_check.shown(criterion)}. Pass for example torch.nn.functional.mse_loss."
        )


def check_module(module: torch.nn.Module) -> None:
    """Raise a ValueError if the loss of the network `module` is not a mean over samples; the message names the submodule that prevents it.

    Such submodules are batch normalisation that uses statistics of the batch, and dropout in training mode.
    """
    for name, part in module.named_modules():
        batch = isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and (part.training or not part.track_running_stats)
        chance = isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.training and part.p > 0
        if batch or chance:
            what = "mixes the samples of a batch" if batch else "draws at random"
            raise ValueError(
                f"`module` must have a loss that is a mean over samples; its part {name or type(part).__name__} ({type(part).__name__}) {what}. "
                "Call module.eval() first, or use group normalisation."
            )


def plain_copy(model: torch.nn.Module) -> torch.nn.Module:
    """Return a deep copy of the network `model` without the wrappers of `torch.compile`, `DataParallel` and `DistributedDataParallel`.

    The copy computes the same function. Compiled networks have no second derivatives, and would be compiled again for each copy.

    Example:
        >>> import torch; from sdetools.bridge.modules import plain_copy
        >>> type(plain_copy(torch.nn.DataParallel(torch.nn.Linear(2, 1)))).__name__
        'Linear'
    """

    def inner(part: torch.nn.Module) -> torch.nn.Module:
        while True:
            if "_orig_mod" in part._modules:  # torch.compile's OptimizedModule, without importing its compiler
                part = part.get_submodule("_orig_mod")
            elif isinstance(part, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
                part = part.module
            else:
                return part

    net = copy.deepcopy(inner(model))
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if inner(child) is not child:
                setattr(parent, name, inner(child))
    return net


def checked_module(model: Any) -> torch.nn.Module:
    """Return `model` unchanged if it is a network (`torch.nn.Module`); ValueError for anything else."""
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"`model` must be a torch.nn.Module; got {type(model).__name__}.")
    return model


def checked_copy(model: torch.nn.Module, device: Any = None) -> torch.nn.Module:
    """Return a deep copy of a network on a device, without the wrappers of `torch.compile` and of training on several devices (`plain_copy`).

    Args:
        model: The network.
        device: The device of the copy; None for that of the network.

    Raises:
        ValueError: If the device is not available, or if the network has no trainable parameters or some that are not finite.

    Example:
        >>> import torch; from sdetools.bridge.modules import checked_copy
        >>> checked_copy(torch.nn.Linear(2, 1)).weight.shape
        torch.Size([1, 2])
    """
    net = plain_copy(model)
    if device is not None:
        try:
            net = net.to(device)
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0][:80]
            raise ValueError(f"`device` must name an available device, such as 'cpu'; got {device!r} ({reason}).") from error
    own = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    if not own:
        raise ValueError("`model` must have parameters that require a gradient; got none.")
    for name, p in own:
        if not bool(torch.isfinite(p).all()):
            raise ValueError(
                f"`model` must have finite parameters; got a NaN or an infinity in {name}. Use a checkpoint from before the divergence."
            )
    return net


class Objective:
    """The scalar loss of a network on a batch, `objective(network, batch)`, with input validation.

    A call returns a tensor of shape `()`. A loss that is NaN or infinite on finite data is returned as it is: the run diverges.

    Where a batch does not fit into memory, it passes in pieces of at most `rows` samples, one after the other, as with gradient accumulation. The
    loss of the batch is then the mean of those of its pieces, weighted by their samples, or their sum if `sums`. Batch normalisation normalises each
    piece alone.

    Args:
        loss: The loss as a function of (output, target), for batches (input, target).
        loss_of: The loss as a function of (network, batch), for any batches; it takes precedence over `loss`.
        rows: The number of samples of a piece; None for whole batches.

    Attributes:
        sums: Whether the loss of a batch is the sum of those of its samples, False at first.

    Raises:
        ValueError: If no loss is callable. When called: if network and loss reject the batch, if the loss is not a scalar (`reduction="none"`)
            or does not depend on the parameters, or if it is not finite because the batch is not.

    Example:
        >>> import torch; from sdetools.bridge.modules import Objective
        >>> objective = Objective(torch.nn.functional.mse_loss)
        >>> float(objective(torch.nn.Linear(2, 1), (torch.zeros(4, 2), torch.zeros(4, 1))).detach()) >= 0
        True
    """

    def __init__(
        self,
        loss: Callable[..., Any] | None,
        loss_of: Callable[[torch.nn.Module, Any], Any] | None = None,
        rows: int | None = None,
    ) -> None:
        if loss_of is None:
            _check_criterion("loss", loss, ", or None beside `loss_of`")
        self.loss: Any = loss if loss_of is None else None
        self.loss_of, self.rows, self.sums, self._unchecked = loss_of, rows, False, True

    def __call__(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        values = [weight * self._whole(model, piece) for weight, piece in self.pieces(batch)]
        return values[0] if len(values) == 1 else torch.stack(values).sum()

    def backward(self, model: torch.nn.Module, batch: Any) -> float:
        """Add the gradient of the loss of `batch` to `p.grad` of each parameter of `model`, one piece after the other, and return the loss.

        From the first piece whose loss is not finite on, nothing is added.
        """
        total = 0.0
        for weight, piece in self.pieces(batch):
            value = weight * self._whole(model, piece)
            total += float(value.detach())
            if not math.isfinite(total):
                break
            value.backward()
        return total

    def pieces(self, batch: Any) -> Iterator[tuple[float, Any]]:
        """Yield pairs (weight, piece): consecutive pieces of a batch, of at most `rows` samples, with their weights in its loss.

        A weight is the piece's share of the samples, or 1 if `sums`. The batch itself comes with weight 1 if it has at most `rows` samples.

        Raises:
            ValueError: If the batch is split, and has a tensor without one row per sample.
        """
        if self.rows is None or (count := batch_rows(batch)) <= self.rows:
            yield 1.0, batch
            return
        shapes: list[tuple[int, ...]] = []
        map_tensors(lambda part: shapes.append(tuple(part.shape)), batch)
        unequal = [shape for shape in shapes if not shape or shape[0] != count]
        if unequal:
            raise ValueError(
                f"`pieces` must split batches whose tensors all have one row per sample, {count} here; got a tensor of shape {unequal[0]}. "
                "Leave it out, or let the batch contain only such tensors."
            )
        for at in range(0, count, self.rows):
            end = min(at + self.rows, count)
            yield 1.0 if self.sums else (end - at) / count, map_tensors(itemgetter(slice(at, end)), batch)

    def _value(self, model: torch.nn.Module, batch: Any) -> Any:
        """Return what the caller's loss returns for a batch."""
        return self.loss_of(model, batch) if self.loss_of is not None else self.loss(model(batch[0]), batch[1])

    def _first(self, model: torch.nn.Module, batch: Any) -> Any:
        """Return the same for the first batch; ValueError if torch warns that it broadcasts output and target, whose loss is that of another problem."""
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")
            try:
                value = self._value(model, batch)
            except UserWarning as error:
                if "Using a target size" not in str(error):
                    raise
                raise ValueError(
                    "output and target have unequal shapes, which torch broadcasts. Reshape the target, such as y[:, None]."
                ) from error
        self._unchecked = False
        return value

    def _whole(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the loss of `batch`, which passes through the network `model` at once, a tensor `()`; ValueErrors as for a call of the objective."""
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if self.loss_of is None and not pair:
            raise ValueError(
                "`data` must give batches (input, target) to `loss`; got others. Pass loss_of(model, batch) instead."
            )
        try:
            value = self._first(model, batch) if self._unchecked else self._value(model, batch)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            first = (str(error).strip() or "no message").splitlines()[0]
            raise ValueError(
                f"`model` and the loss must take a batch of `data`, {describe_batch(batch)}; they raised {type(error).__name__}: {first}"
            ) from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(
                f'the loss of a batch must be a scalar tensor; got {got}. Use reduction="mean", or take the mean of its values.'
            )
        if torch.is_grad_enabled() and not value.requires_grad:
            raise ValueError(
                "the loss must depend on the model's parameters through torch functions; got a number without a gradient."
            )
        if not bool(torch.isfinite(value)) and (bad := _non_finite_tensors(batch)):
            raise ValueError(f"`data` must be finite; got {bad}, where the loss is {value.item()}. Drop or impute such samples.")
        return value.reshape(())


def describe_batch(batch: Any) -> str:
    """Return the types and shapes of a batch's tensors as text for messages, such as "tuple of float32 (4, 2), int64 (4,)"."""
    parts: list[str] = []
    map_tensors(lambda part: parts.append(f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}"), batch)
    return f"{type(batch).__name__} of {', '.join(parts)}" if parts else f"a {type(batch).__name__} without tensors"


def _non_finite_tensors(batch: Any) -> str:
    """Return text that counts the NaN and infinite numbers in each tensor of a batch, for messages; empty if all are finite."""
    parts: list[tuple[int, int]] = []
    map_tensors(lambda part: parts.append((int((~torch.isfinite(part)).sum()), part.numel())), batch)
    return ", ".join(
        f"{bad} of {size} numbers NaN or infinite in tensor {i} of a batch" for i, (bad, size) in enumerate(parts) if bad
    )
